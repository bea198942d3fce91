/**
 * Values of Deno's file API from those of core, and back.
 *
 * @module
 */

import { E } from "../../core/errno.ts";
import { type Attributes, S } from "../../core/meta/attributes.ts";
import type { Time } from "../../core/runtime.ts";
import { fileError } from "./errors.ts";

/** Best size for reading and writing, in bytes. */
const blockBytes = 4096;

function dateOf({ sec, nsec }: Time): Date {
  return new Date(sec * 1000 + Math.floor(nsec / 1e6));
}

/** stat(2) as Deno shows it. The root of the volume has inode number 1, as on a mount. */
export function fileInfo(attributes: Attributes, root: number): Deno.FileInfo {
  const { inode, mode, nlink, uid, gid, rdev, size, blocks, volume } = attributes, type = mode & S.IFMT;
  return {
    isFile: type === S.IFREG,
    isDirectory: type === S.IFDIR,
    isSymlink: type === S.IFLNK,
    size,
    mtime: dateOf(attributes.mtime),
    atime: dateOf(attributes.atime),
    birthtime: dateOf(attributes.btime),
    ctime: dateOf(attributes.ctime),
    dev: volume,
    ino: inode === root ? 1 : inode,
    mode,
    nlink,
    uid,
    gid,
    rdev,
    blksize: blockBytes,
    blocks,
    isBlockDevice: type === S.IFBLK,
    isCharDevice: type === S.IFCHR,
    isFifo: type === S.IFIFO,
    isSocket: type === S.IFSOCK,
  };
}

/** A directory entry of a DT_* type. */
export function dirEntry(name: string, type: number): Deno.DirEntry {
  const bits = type << 12;
  return { name, isFile: bits === S.IFREG, isDirectory: bits === S.IFDIR, isSymlink: bits === S.IFLNK };
}

/** A moment: a Date, or seconds since 1970. Throws TypeError for no moment. */
export function timeOf(value: number | Date): Time {
  const ms = typeof value === "number" ? value * 1000 : value.getTime();
  if (!Number.isFinite(ms)) throw new TypeError(`${value} is no time`);
  const sec = Math.floor(ms / 1000);
  const nsec = Math.round((ms - sec * 1000) * 1e6);
  return nsec < 1e9 ? { sec, nsec } : { sec: sec + 1, nsec: 0 };
}

/** A size or offset in bytes; throws as EINVAL does for what cannot be one. */
export function wholeNumber(value: number, what: string): number {
  if (!Number.isSafeInteger(value) || value < 0) throw fileError(E.INVAL, what);
  return value;
}
