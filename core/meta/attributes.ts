/**
 * What an inode says of itself: the attributes that stat(2) shows and those sealfs needs besides. One type for the
 * store, the wire and the client, with one binary layout (see layout.ts for how it is stored).
 *
 * @module
 */

import type { Time } from "../runtime.ts";

/** File type bits of `mode` (include/uapi/linux/stat.h). */
export const S = {
  IFMT: 0o170000,
  IFSOCK: 0o140000,
  IFLNK: 0o120000,
  IFREG: 0o100000,
  IFBLK: 0o060000,
  IFDIR: 0o040000,
  IFCHR: 0o020000,
  IFIFO: 0o010000,
  ISUID: 0o4000,
  ISGID: 0o2000,
  ISVTX: 0o1000,
  IXGRP: 0o010,
} as const;

/** Attributes of an inode. Sizes in bytes. */
export interface Attributes {
  /** Inode number: shard * 2^41 + sequence. */
  inode: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** Device number as the kernel encodes it in FUSE (new_encode_dev), for device files. */
  rdev: number;
  /** Directories: always 4096. */
  size: number;
  /** Allocated space in units of 512 bytes. */
  blocks: number;
  atime: Time;
  mtime: Time;
  ctime: Time;
  btime: Time;
  /** Counts every change of this inode but those of its atime; what caches compare. */
  version: number;
  /** Counts truncations; chunk writes carry it, so that one from before a truncation is refused. */
  gen: number;
  /** Volume the inode belongs to. */
  volume: number;
  /** Directory the inode was last linked into (for a directory: its parent; for a volume's root: itself). */
  parent: number;
  /** Directories: number of entries. */
  entries: number;
  /** Bits: see {@linkcode inodeFlags}. */
  flags: number;
}

/** Bits of {@linkcode Attributes.flags}. */
export const inodeFlags = {
  /** The directory was removed (or is about to be, for certain): nothing may be created in it. */
  sealed: 1,
  /** Contents are inline in the image (regular files up to the inline limit). */
  inline: 2,
  /** Chunks > 0 may exist, on other shards. Set before the first of them is written. */
  far: 4,
  /** There is an access ACL beside the mode, as an extended attribute. */
  accessAcl: 8,
  /** The directory has a default ACL, as an extended attribute. */
  defaultAcl: 16,
  /** There is an extended attribute security.capability. */
  capability: 32,
  /** A file without a name that may get one (O_TMPFILE without O_EXCL). */
  linkable: 64,
  /** fallocate made room in the file: blocks that count may hold no data. */
  room: 128,
  /** Nothing of it may change (FS_IMMUTABLE_FL): core/meta/protection.ts. */
  immutable: 256,
  /** It may only be added to (FS_APPEND_FL). */
  appendOnly: 512,
} as const;

/** True for a directory's mode. */
export function isDirectory(mode: number): boolean {
  return (mode & S.IFMT) === S.IFDIR;
}

/** True for a regular file's mode. */
export function isRegular(mode: number): boolean {
  return (mode & S.IFMT) === S.IFREG;
}

/** -1, 0 or 1 as `a` is before, at or after `b`. */
export function compareTime(a: Time, b: Time): number {
  return Math.sign(a.sec - b.sec || a.nsec - b.nsec);
}
