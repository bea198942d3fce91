/**
 * How the POSIX suite is written. A case is one promise of the file system and a body that checks it:
 *
 * ```ts ignore
 * import { both, bob, fails, kernel } from "../case.ts";
 *
 * both("rename() onto a non-empty directory is ENOTEMPTY", async (fs) => {
 *   await fs.mkdir("from");
 *   await fs.mkdir("to");
 *   await fs.writeFile("to/file", "");
 *   await fails("ENOTEMPTY", fs.rename("from", "to"));
 * });
 * ```
 *
 * To add cases put them into the file of their operation in `tests/posix/cases/`, or add a file there: all of them are
 * found. {@linkcode both} is for what a program can do over the library (mod.ts) too and gets {@linkcode Files};
 * {@linkcode kernel} is for what needs system calls and gets a Kernel (kernel.ts), which has all of Files and much more,
 * and `call` for what has no method yet.
 *
 * - Every case has a folder of its own, empty, owned by root with mode 0755; paths are relative to it. Nothing has to
 *   be tidied up: files are closed, mappings undone and other processes ended after the case.
 * - Another case runs at the same time, in a folder of its own: what is told of the whole volume may change meanwhile.
 * - Calls are made by root with umask 0; `fs.as(bob)` is the same process as somebody else. Folders in which somebody
 *   else shall make files need a mode or an owner that permits it.
 * - A call that fails rejects with a {@linkcode CallError}; {@linkcode fails} expects one. Calls of one process are made
 *   in the order in which they were asked for, so many can be asked for at once with Promise.all.
 * - `fs.process()` is another process, `fs.elsewhere()` one that uses another client (a second mount, a second
 *   connection) of the same volume: for locks, and for what clients promise each other; `fs.readOnly()` has the volume
 *   read-only. A call that blocks blocks its process.
 * - Modes, sizes and offsets are numbers, times are nanoseconds in bigint.
 *
 * The ways a case is run: on a FUSE mount, over the library, and, as a control, on any local directory. A way is a
 * {@linkcode Way}: to add one (a program under `sealfs client exec`) start the agent by another command (kernel.ts).
 *
 *     deno test -A tests/posix                                      everything
 *     SEALFS_POSIX_CASES='^rename: .*ENOTEMPTY' deno test -A tests/posix    cases whose "file: name" matches
 *     SEALFS_POSIX_WAYS=mount deno test -A tests/posix              one way of mount, library
 *     SEALFS_POSIX_PATH=/mnt/ext4 deno test -A tests/posix          on a local directory instead of a cluster
 *
 * A case states what POSIX or Linux says: it has to pass on ext4. Where ext4 and sealfs differ and both are right, the
 * case says so with `notOn: { local: "why" }`.
 *
 * @module
 */

import { AssertionError } from "@std/assert";
import type { Identity } from "./agent.ts";
import type { Kernel } from "./kernel.ts";

export type { Identity };

/** Root without supplementary groups, umask 0: who makes calls unless told otherwise. */
export const root: Identity = { uid: 0, gid: 0, groups: [], umask: 0 };
/** Three users, each in a group of its own. */
export const alice: Identity = { uid: 5001, gid: 5001, groups: [], umask: 0 };
/** See {@linkcode alice}. */
export const bob: Identity = { uid: 5002, gid: 5002, groups: [], umask: 0 };
/** See {@linkcode alice}. */
export const carol: Identity = { uid: 5003, gid: 5003, groups: [], umask: 0 };
/** A group that nobody is in; `{ ...bob, groups: [staff] }` is. */
export const staff = 6001;

/** A call that failed. */
export class CallError extends Error {
  override readonly name = "CallError";

  constructor(
    /** Such as "ENOENT". */
    readonly code: string,
    /** The call with its arguments. */
    readonly call: string,
  ) {
    super(`${call}: ${code}`);
  }
}

/** Expects that a call fails with this code, or one of these. */
export async function fails(codes: string | readonly string[], call: Promise<unknown>): Promise<void> {
  const wanted = typeof codes === "string" ? [codes] : codes;
  let result: unknown;
  try {
    result = await call;
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    if (!wanted.includes(error.code)) throw new AssertionError(`${error.message}, not ${wanted.join(" or ")}`);
    return;
  }
  throw new AssertionError(`the call was done (${Deno.inspect(result)}), not ${wanted.join(" or ")}`);
}

/** Waits until every clock on the way has moved on, so that times that are set now differ from those before. */
export function later(): Promise<void> {
  return new Promise((done) => setTimeout(done, 20));
}

/** Bytes as text. */
export function text(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** `length` bytes that differ from place to place, and from seed to seed. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, state = seed * 2654435761; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** What stat(2) tells. Times are nanoseconds since 1970; over the library they are cut to milliseconds. */
export interface Stat {
  ino: number;
  /** Type and permission bits. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  size: number;
  /** Allocated, in units of 512 bytes. */
  blocks: number;
  atime: bigint;
  mtime: bigint;
  ctime: bigint;
  /** When it was made. */
  btime: bigint;
}

/** A directory entry; the library's types are DT_UNKNOWN (0) for what is neither file, directory nor link. */
export interface Entry {
  name: string;
  /** DT_*: mode >> 12. */
  type: number;
}

/** What statfs(2) tells, in bytes and counts. */
export interface Totals {
  sizeBytes: number;
  availableBytes: number;
  inodes: number;
  inodesFree: number;
}

/** A time to set. */
export type When = bigint | "now";

/** Size of the volume of {@linkcode Files.small}. */
export const smallBytes = 16 * 1048576;

/** A path, a name or contents: text is UTF-8. */
export type Bytes = string | Uint8Array;

/** An open file, with what every way has. */
export interface OpenFile {
  /** At most `count` bytes from the file's position; empty at its end. */
  read(count: number): Promise<Uint8Array>;
  /** At most `count` bytes from an offset. */
  pread(count: number, offset: number): Promise<Uint8Array>;
  /** Writes at the file's position (at the end with O_APPEND); how many bytes. */
  write(data: Bytes): Promise<number>;
  pwrite(data: Bytes, offset: number): Promise<number>;
  /** whence: 0 from the start, 1 from where it is, 2 from the end. */
  lseek(offset: number, whence: number): Promise<number>;
  fstat(): Promise<Stat>;
  ftruncate(size: number): Promise<void>;
  fsync(): Promise<void>;
  /** operation: LOCK.*. */
  flock(operation: number): Promise<void>;
  close(): Promise<void>;
}

/** A file system as every way has it. */
export interface Files {
  /** The same process as somebody else. */
  as(identity: Identity): Files;
  /** Another process. */
  process(): Promise<Files>;
  /** A process that uses another client. */
  elsewhere(): Promise<Files>;
  /** A process that has the file system read-only. */
  readOnly(): Promise<Files>;
  /** A process at the root of another volume, of {@linkcode smallBytes}, that all cases share. */
  small(): Promise<Files>;
  /** Absolute path of the case's folder. */
  readonly folder: string;

  open(path: string, flags: number, mode?: number): Promise<OpenFile>;
  mkdir(path: string, mode?: number): Promise<void>;
  rmdir(path: string): Promise<void>;
  unlink(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  link(from: string, to: string): Promise<void>;
  symlink(target: string, path: string): Promise<void>;
  readlink(path: string): Promise<string>;
  chmod(path: string, mode: number): Promise<void>;
  /** -1 leaves. */
  chown(path: string, uid: number, gid: number): Promise<void>;
  lchown(path: string, uid: number, gid: number): Promise<void>;
  truncate(path: string, size: number): Promise<void>;
  utimens(path: string, atime: When, mtime: When): Promise<void>;
  stat(path: string): Promise<Stat>;
  lstat(path: string): Promise<Stat>;
  statfs(path: string): Promise<Totals>;
  /** Entries without "." and "..", in the order in which they come. */
  readdir(path: string): Promise<Entry[]>;
  getxattr(path: string, name: string): Promise<Uint8Array>;
  /** flags: XATTR.*. */
  setxattr(path: string, name: string, value: Bytes, flags?: number): Promise<void>;
  listxattr(path: string): Promise<string[]>;
  removexattr(path: string, name: string): Promise<void>;

  /** Opens with O_WRONLY|O_CREAT|O_TRUNC and mode 0644 unless told otherwise, writes, closes. */
  writeFile(path: string, data: Bytes, mode?: number): Promise<void>;
  /** The whole contents. */
  readFile(path: string): Promise<Uint8Array>;
  /** The whole contents as text. */
  readText(path: string): Promise<string>;
  /** True when lstat finds it. */
  exists(path: string): Promise<boolean>;
}

/** Names of the ways. */
export type WayName = "mount" | "library" | "local";

/** A way to run cases. */
export interface Way<F extends Files> {
  readonly name: WayName;
  /** Files of a fresh folder for one case; `end` gives back what the case used. */
  begin(folder: string): Promise<{ fs: F; end(): Promise<void> }>;
  /** After the last case. */
  close(): Promise<void>;
}

/** Where a case differs. */
export interface CaseOptions {
  /** Ways on which it is not run, and why the promise is not theirs. */
  notOn?: Partial<Record<WayName, string>>;
}

/** A registered case. */
export interface Case<F extends Files> extends CaseOptions {
  /** "file: promise". */
  name: string;
  run: (fs: F) => Promise<void>;
}

/** Everything that was registered, in order. */
export const registered: { both: Case<Files>[]; kernel: Case<Kernel>[] } = { both: [], kernel: [] };

let registering = "";

/** Says whose cases are registered from now on: `name` is the file's, without ".ts". */
export function registerFile(name: string): void {
  registering = name;
}

function add<F extends Files>(list: Case<F>[], promise: string, run: (fs: F) => Promise<void>, options: CaseOptions) {
  const name = `${registering}: ${promise}`;
  if ([...registered.both, ...registered.kernel].some((one) => one.name === name)) {
    throw new Error(`two cases are named ${name}`);
  }
  list.push({ name, run, ...options });
}

/** Registers a case for every way. */
export function both(promise: string, run: (fs: Files) => Promise<void>, options: CaseOptions = {}): void {
  add(registered.both, promise, run, options);
}

/** Registers a case for the ways that make system calls. */
export function kernel(promise: string, run: (fs: Kernel) => Promise<void>, options: CaseOptions = {}): void {
  add(registered.kernel, promise, run, options);
}
