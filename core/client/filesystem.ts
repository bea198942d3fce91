/**
 * The file system as a client offers it: POSIX operations on inode numbers. FUSE, the library and `client exec` are
 * three front ends of this one interface. Every method is a task that ends with a value or a positive errno, in
 * bounded time (the io timeout), and tells the truth: what it acknowledged has happened.
 *
 * Names are bytes without NUL and '/', 1..255 of them; "." and ".." are the front end's (and the kernel's) affair.
 * The root of the volume is {@linkcode FileSystem.root}; FUSE's nodeid 1 is translated by the front end.
 *
 * @module
 */

import type { Attributes } from "../meta/attributes.ts";
import type { Time } from "../runtime.ts";
import type { Result } from "../errno.ts";
import type { Future, Task } from "../task.ts";

/** How to read. */
export interface ReadOptions {
  /** Leaves the atime as it is (O_NOATIME), whatever the mount says. */
  noAtime?: boolean;
}

/** How to list a directory. */
export interface ListOptions extends ReadOptions {
  /** With attributes. */
  plus: boolean;
}

/** Who asks: owner of what is created, pid for locks and logs. */
export interface Caller {
  uid: number;
  gid: number;
  pid: number;
  /** File mode creation mask, which a directory's default ACL takes the place of (0 when it has been applied). */
  umask: number;
  /**
   * Supplementary groups of the caller, those that the front end knows to matter: a member of a setgid directory's group
   * may create a setgid file in it. Absent = none known.
   */
  groups?: readonly number[];
}

/** Done, nothing to say. */
export type Done = Result<Record<never, never>>;
/** What {@linkcode Done} is when it is not an errno. */
export const done: Record<never, never> = Object.freeze({});

/** One name of a directory page. */
export interface DirectoryEntry {
  name: Uint8Array;
  inode: number;
  /** DT_* = mode >> 12. */
  type: number;
  /** Where to continue after this entry. Always > 2. */
  cookie: number;
  /** Present when asked for with `plus` and it could be had. */
  attributes: Attributes | null;
}

/** What to change in {@linkcode FileSystem.setAttributes}; absent = leave. */
export interface AttributeChange {
  mode?: number;
  uid?: number;
  gid?: number;
  size?: number;
  /** "now" takes the server's clock. */
  atime?: Time | "now";
  mtime?: Time | "now";
  ctime?: Time;
  /** Clear setuid and setgid as a write does (FATTR_KILL_SUIDGID); also sent with chown. Directories keep theirs. */
  killSetId?: boolean;
  /** What chattr(1) sets, of files and directories: core/meta/protection.ts. */
  immutable?: boolean;
  appendOnly?: boolean;
}

/** What an open is for besides reading: what is written goes where it is told, or to the end. */
export type Writing = "anywhere" | "end";

/** What to create. Type bits of `mode` say what kind; a symbolic link has a target. */
export interface CreateOptions {
  mode: number;
  rdev?: number;
  target?: Uint8Array;
  /** EEXIST when the name exists; otherwise an existing regular file is opened. */
  exclusive: boolean;
  /** Register an open of the file for this client (pair with `release`). */
  open: boolean;
  /** Absent: an existing file is only read. */
  writing?: Writing;
  /** Cut an existing file to zero (O_TRUNC). */
  truncate?: boolean;
  /** With `truncate`: also clear setuid and setgid of an existing file. One that is made keeps those of `mode`. */
  killSetId?: boolean;
}

/** How to open. */
export interface OpenOptions {
  /** Absent: the file is only read. */
  writing?: Writing;
  /** Cut the file to zero (O_TRUNC). */
  truncate: boolean;
  /** With `truncate`: also clear setuid and setgid, as a write does. */
  killSetId?: boolean;
}

/** What {@linkcode FileSystem.allocate} works on, in bytes. */
export interface AllocateRange {
  mode: number;
  offset: number;
  length: number;
  /** Clear setuid and setgid as a write does. */
  killSetId: boolean;
}

/** What {@linkcode FileSystem.copyRange} copies, in bytes. */
export interface CopyRange {
  from: number;
  fromOffset: number;
  to: number;
  toOffset: number;
  length: number;
  /** Clear setuid and setgid of the target as a write does. */
  killSetId: boolean;
}

/** RENAME_* flags of renameat2(2). */
export const renameFlags = { noReplace: 1, exchange: 2 } as const;

/**
 * Flags of setxattr(2), and one of FUSE (FUSE_SETXATTR_ACL_KILL_SGID): the access ACL is set by one who must not keep the
 * file's setgid.
 */
export const xattrFlags = { create: 1, replace: 2, killSetgid: 4 } as const;

/** A byte-range or whole-file lock request. */
export interface Lock {
  /** flock(2) instead of fcntl(2). */
  flock: boolean;
  type: "read" | "write" | "unlock";
  /** The kernel's lock owner, as two u32. */
  ownerLow: number;
  ownerHigh: number;
  pid: number;
  /** First byte, and last byte inclusive; `lockEnd` = up to the end of any size. */
  start: bigint;
  end: bigint;
}
/** `end` of a lock that reaches to the end: the kernel's OFFSET_MAX. */
export const lockEnd = 2n ** 63n - 1n;

/** Totals of a volume. */
export interface Totals {
  /** Budget, used and available in bytes. */
  sizeBytes: number;
  usedBytes: number;
  availableBytes: number;
  /** Inodes in use, and how many more there can be. */
  inodes: number;
  inodesFree: number;
}

/** What {@linkcode FileSystem.clearDirectory} did. */
export interface Cleared {
  removed: number;
  /** Passed over: directories, and files that need an unlink of their own. */
  left: { name: Uint8Array; inode: number; type: number }[];
  /** Where to continue, unless `end`. */
  cookie: number;
  end: boolean;
}

/** A page of {@linkcode FileSystem.tallyDirectory}: files with one name summed up, and what is still to be looked at. */
export interface Tally {
  directory: Attributes;
  files: number;
  /** Sum of the sizes, and of the allocated units of 512 bytes. */
  bytes: number;
  blocks: number;
  dirs: { name: Uint8Array; inode: number }[];
  /** Files with several names, of which this directory holds one. */
  linked: { inode: number; nlink: number; bytes: number; blocks: number }[];
  cookie: number;
  end: boolean;
}

/** Where something of a file is, for people. */
export interface ChunkPlace {
  chunk: number;
  shard: number;
  server: number;
  store: number;
  /** 4 KiB blocks that it takes. */
  blocks: number;
}

/** All that the servers know of an inode. */
export interface Inspection {
  attributes: Attributes;
  shard: number;
  /** Server and store of the inode's shard: its primary. */
  server: number;
  store: number;
  orphan: boolean;
  busy: boolean;
  /** Bytes of contents that live with the inode itself. */
  inlineBytes: number;
  /** What each store holds of its data. */
  holders: { server: number; store: number; chunks: number; blocks: number }[];
  /** The first, ascending; at most {@linkcode chunksShownMax}. */
  chunks: ChunkPlace[];
  /** Sessions that have it open. */
  opens: number[];
  /** Sessions that hold a lease on it. */
  leases: number[];
  locks: { session: number; lock: Lock }[];
}
/** Chunks in one {@linkcode Inspection}. */
export const chunksShownMax = 1024;

/** A part of a file where data or a hole begins. */
export type Whence = "data" | "hole";

/** See {@linkcode FileSystem.watch}. */
export type VoidListener = (inode: number) => Task<void> | null;

/** See the module's comment. */
export interface FileSystem {
  /** Inode number of the volume's root directory. */
  readonly root: number;
  readonly readOnly: boolean;

  lookup(dir: number, name: Uint8Array): Task<Result<Attributes>>;
  /** Parent of a directory (the root's is the root). */
  parent(dir: number): Task<Result<Attributes>>;
  getAttributes(inode: number): Task<Result<Attributes>>;
  setAttributes(inode: number, change: AttributeChange): Task<Result<Attributes>>;
  /** Files, devices, fifos, sockets, symbolic links. */
  create(dir: number, name: Uint8Array, options: CreateOptions, caller: Caller): Task<Result<Attributes>>;
  /**
   * A regular file without a name, with an open registered (pair with `release`): it ends with the last open unless `link`
   * names it first, which only a `linkable` one lets it.
   */
  createUnnamed(
    dir: number,
    options: { mode: number; linkable: boolean },
    caller: Caller,
  ): Task<Result<Attributes>>;
  makeDirectory(dir: number, name: Uint8Array, mode: number, caller: Caller): Task<Result<Attributes>>;
  unlink(dir: number, name: Uint8Array): Task<Done>;
  removeDirectory(dir: number, name: Uint8Array): Task<Done>;
  rename(dir: number, name: Uint8Array, newDir: number, newName: Uint8Array, flags: number): Task<Done>;
  link(inode: number, dir: number, name: Uint8Array): Task<Result<Attributes>>;
  readLink(inode: number): Task<Result<Uint8Array>>;

  /** Registers an open: the file's data lives until the last release even if it is unlinked. */
  open(inode: number, options: OpenOptions): Task<Result<Attributes>>;
  /** Ends one open. */
  release(inode: number): Task<Done>;
  /** Reads up to `into.length` bytes; the result's `count` is short only at the end of the file. */
  read(inode: number, offset: number, into: Uint8Array, options?: ReadOptions): Task<Result<{ count: number }>>;
  /** Writes all of `data` at `offset`. `killSetId` clears setuid/setgid. */
  write(inode: number, offset: number, data: Uint8Array, options: { killSetId: boolean }): Task<Done>;
  /** Writes all of `data` at the end of the file, atomically among all clients; `offset` is where it went. */
  append(inode: number, data: Uint8Array, options: { killSetId: boolean }): Task<Result<{ offset: number }>>;
  /** fallocate(2) modes: 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]. */
  allocate(inode: number, range: AllocateRange): Task<Done>;
  /** Copies within the volume; both files may be the same if the ranges do not overlap. */
  copyRange(copy: CopyRange): Task<Result<{ count: number }>>;
  /** Next data or hole at or after `offset`; ENXIO beyond the end. */
  seek(inode: number, offset: number, whence: Whence): Task<Result<{ offset: number }>>;
  /** What has been acknowledged for this file survives power loss once this returns. */
  sync(inode: number): Task<Done>;

  /**
   * Entries after `cookie` (0 = from the first), as many as a READDIR reply of `limitBytes` holds, READDIRPLUS with
   * `plus`, or a few more; empty at the end. Without "." and "..".
   */
  readDirectory(dir: number, cookie: number, limitBytes: number, options: ListOptions): Task<Result<DirectoryEntry[]>>;

  /** A directory is open from here to `letGo`: should others remove it, its holder still gets its attributes. */
  hold(dir: number): void;
  letGo(dir: number): void;
  /** The front end will not name this inode again unless it finds it anew. */
  forget(inode: number): void;

  /**
   * Removes files of a directory by the hundred: some after `cookie`, all at once. With `owner` only those of that user,
   * as a sticky directory wants it. Directories stay.
   */
  clearDirectory(dir: number, cookie: number, owner: number | null): Task<Result<Cleared>>;
  /** Sums up entries of a directory after `cookie`. */
  tallyDirectory(dir: number, cookie: number): Task<Result<Tally>>;
  /** For people: where an inode and its data are, and who uses it. EOPNOTSUPP where there are no servers. */
  inspect(inode: number): Task<Result<Inspection>>;

  getExtendedAttribute(inode: number, name: Uint8Array): Task<Result<Uint8Array>>;
  /** flags: {@linkcode xattrFlags}. POSIX ACLs are attributes as in Linux, see core/meta/acl.ts. */
  setExtendedAttribute(inode: number, name: Uint8Array, value: Uint8Array, flags: number): Task<Done>;
  /** Names, each ended by NUL. */
  listExtendedAttributes(inode: number): Task<Result<Uint8Array>>;
  removeExtendedAttribute(inode: number, name: Uint8Array): Task<Done>;

  /** The first lock that would block `lock`, or an unlock when none does; `pid` 0: it belongs to another client. */
  testLock(inode: number, lock: Lock): Task<Result<Lock>>;
  /** Sets, converts or removes a lock. With `block` waits until granted or until `cancel` settles (EINTR). */
  setLock(inode: number, lock: Lock, block: boolean, cancel: Future<void>): Task<Done>;
  /** Drops every fcntl (or flock) lock of an owner on an inode: close and the last release. */
  dropLocks(inode: number, flock: boolean, ownerLow: number, ownerHigh: number): Task<Done>;

  statistics(): Task<Result<Totals>>;

  /** Attributes of an inode as they are now, if that is known without asking; else null. */
  known(inode: number): Attributes | null;
  /** As `open` without truncation, if that takes no asking; else null, and nothing is open. */
  openKnown(inode: number): Attributes | null;
  /** What `lookup` would say if that is known without asking: attributes, or ENOENT; else null. */
  knownEntry(dir: number, name: Uint8Array): Result<Attributes> | null;
  /** Milliseconds from now for which attributes that this file system has given may be used without asking; 0: none. */
  validityMs(attributes: Attributes): number;
  /** As {@linkcode FileSystem.validityMs}, for a name and what it stands for; `inode` 0: for its absence. */
  nameValidityMs(dir: number, name: Uint8Array, inode: number): number;
  /**
   * Has `listener` called when what was said of an inode, and of the names in it, is void before its time. Whoever wants
   * to change the inode waits for the task that the listener returns; null: nothing is left of what was said.
   */
  watch(listener: VoidListener): void;
}
