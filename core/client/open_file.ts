/**
 * Files as a front end without a kernel has them open: open(2) by path, then reads and writes at offsets, appends,
 * locks, and a close that waits for what is under way. Also whole small files in the fewest round trips, and copies.
 *
 * An open file is found by its inode from then on, whatever happens to its name. A directory may be opened too, for
 * stat and sync.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { type Attributes, isDirectory, isRegular, S } from "../meta/attributes.ts";
import { Future, type Task, wait } from "../task.ts";
import { accessErrno, chmodMode, createMode, isSuperuser, may, ownerErrno } from "./access.ts";
import { type AttributeChange, type Done, done, type FileSystem, lockEnd, type Writing } from "./filesystem.ts";
import { attemptsMax, type Paths, type SetTime, timesErrno } from "./paths.ts";
import { isSymlink, Walk } from "./walk.ts";

/** How to open. */
export interface OpenFlags {
  read: boolean;
  /** Implied by `append`. */
  write: boolean;
  append: boolean;
  truncate: boolean;
  create: boolean;
  /** Create, and EEXIST if the name is there, even as a link that leads nowhere. */
  createNew: boolean;
  /** Permission bits of a file that is created, before the umask. */
  mode: number;
}

const readOnlyFlags: OpenFlags = {
  read: true,
  write: false,
  append: false,
  truncate: false,
  create: false,
  createNew: false,
  mode: 0,
};

function writingOf(flags: OpenFlags): Writing | undefined {
  return flags.append ? "end" : flags.write ? "anywhere" : undefined;
}

/** Bytes that one step of a copy asks for. */
const copyStepBytes = 64 << 20;

/** open(2). */
export function* openFile(paths: Paths, path: Uint8Array, flags: OpenFlags): Task<Result<OpenFile>> {
  return yield* paths.again(() => openOnce(paths, path, flags));
}

function* openOnce(paths: Paths, path: Uint8Array, flags: OpenFlags): Task<Result<OpenFile>> {
  if (flags.create || flags.createNew) return yield* create(paths, path, flags);
  const found = yield* paths.find(path, true);
  return failed(found) ? found : yield* openFound(paths, found, flags);
}

/** O_CREAT: makes the file, or opens what is there; a link at the end leads on. */
function* create(paths: Paths, path: Uint8Array, flags: OpenFlags): Task<Result<OpenFile>> {
  const walk = new Walk(paths.fileSystem, paths.who);
  for (let at = path;;) {
    const last = yield* walk.toParent(at);
    if (failed(last)) return last;
    if (last.kind !== "name") return flags.createNew ? E.EXIST : E.ISDIR;
    if (last.slash) return E.ISDIR;
    const found = yield* createIn(paths, walk, last.name, flags);
    if (failed(found) || found instanceof OpenFile) return found;
    if (!isSymlink(found.mode)) return yield* openFound(paths, found, flags);
    const looped = walk.countLink();
    if (looped !== 0) return looped;
    const target = yield* paths.fileSystem.readLink(found.inode);
    if (failed(target)) return target;
    at = target;
  }
}

/** Makes the name where the walk stands, or says what it is already. */
function* createIn(
  paths: Paths,
  walk: Walk,
  name: Uint8Array,
  flags: OpenFlags,
): Task<Result<OpenFile | Attributes>> {
  const { fileSystem, who } = paths, dir = walk.inode;
  const mode = S.IFREG | (flags.mode & 0o7777);
  // Whoever may open anything needs no look at what is there: one request.
  const direct = isSuperuser(who) && !fileSystem.readOnly;
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    if (direct) {
      const writing = writingOf(flags);
      const options = { mode, exclusive: flags.createNew, open: true, truncate: flags.truncate, writing };
      const opened = yield* fileSystem.create(dir, name, options, who);
      if (!failed(opened)) return new OpenFile(paths, opened, flags);
      if (opened !== E.EXIST || flags.createNew) return opened;
    }
    const found = yield* fileSystem.lookup(dir, name);
    if (!failed(found)) return flags.createNew ? E.EXIST : found;
    if (found !== E.NOENT) return found;
    if (direct) continue;
    if (fileSystem.readOnly) return E.ROFS;
    const errno = yield* walk.accessErrno(may.write | may.execute);
    if (errno !== 0) return errno;
    const above = yield* walk.attributes();
    if (failed(above)) return above;
    const options = { mode: createMode(above, mode, who), exclusive: true, open: true };
    const made = yield* fileSystem.create(dir, name, options, who);
    if (!failed(made)) return new OpenFile(paths, made, flags);
    if (made !== E.EXIST || flags.createNew) return made;
  }
  return E.BUSY;
}

/** Opens what a path led to. */
function* openFound(paths: Paths, found: Attributes, flags: OpenFlags): Task<Result<OpenFile>> {
  const { fileSystem, who } = paths;
  const writes = flags.write || flags.append || flags.truncate;
  if (isDirectory(found.mode)) {
    if (writes) return E.ISDIR;
    return (yield* accessErrno(fileSystem, found, who, may.read)) || new OpenFile(paths, found, flags);
  }
  if (!isRegular(found.mode)) return E.NXIO;
  if (writes && fileSystem.readOnly) return E.ROFS;
  const wanted = (flags.read ? may.read : 0) | (writes ? may.write : 0);
  const errno = yield* accessErrno(fileSystem, found, who, wanted);
  if (errno !== 0) return errno;
  const options = { truncate: flags.truncate, killSetId: !isSuperuser(who), writing: writingOf(flags) };
  const opened = yield* fileSystem.open(found.inode, options);
  return failed(opened) ? opened : new OpenFile(paths, opened, flags);
}

/** A whole file that fits in `into` by one read; a larger one comes back open. ENXIO for what has no contents. */
export function* readWhole(
  paths: Paths,
  path: Uint8Array,
  into: Uint8Array,
): Task<Result<{ count: number; file: OpenFile | null }>> {
  return yield* paths.again(() => readWholeOnce(paths, path, into));
}

function* readWholeOnce(
  paths: Paths,
  path: Uint8Array,
  into: Uint8Array,
): Task<Result<{ count: number; file: OpenFile | null }>> {
  const found = yield* paths.find(path, true);
  if (failed(found)) return found;
  if (isDirectory(found.mode)) return E.ISDIR;
  if (!isRegular(found.mode)) return E.NXIO;
  const errno = yield* accessErrno(paths.fileSystem, found, paths.who, may.read);
  if (errno !== 0) return errno;
  // One byte more than there was shows whether that was all.
  if (found.size < into.length) {
    const asked = into.subarray(0, found.size + 1);
    const read = yield* paths.fileSystem.read(found.inode, 0, asked);
    if (failed(read)) return read;
    if (read.count < asked.length) return { count: read.count, file: null };
  }
  const file = yield* openFound(paths, found, readOnlyFlags);
  return failed(file) ? file : { count: 0, file };
}

/**
 * open, chmod to `setMode` unless that is null, write all or append all, close. An errno may leave a part written.
 */
export function* writeWhole(
  paths: Paths,
  path: Uint8Array,
  data: Uint8Array,
  options: { flags: OpenFlags; setMode: number | null },
): Task<Done> {
  const { flags, setMode } = options;
  const file = yield* openFile(paths, path, flags);
  if (failed(file)) return file;
  const changed = setMode === null ? done : yield* file.setMode(setMode);
  const written = failed(changed) ? changed : yield* flags.append ? file.append(data) : file.write(0, data);
  yield* file.close();
  return failed(written) ? written : done;
}

/** Copies contents and permission bits; what was in `to` is replaced. EINVAL for what is no file, or the same one. */
export function* copyFile(paths: Paths, from: Uint8Array, to: Uint8Array): Task<Done> {
  const source = yield* openFile(paths, from, readOnlyFlags);
  if (failed(source)) return source;
  const copied = yield* copyInto(paths, source, to);
  yield* source.close();
  return copied;
}

function* copyInto(paths: Paths, source: OpenFile, to: Uint8Array): Task<Done> {
  const attributes = yield* source.stat();
  if (failed(attributes)) return attributes;
  if (!isRegular(attributes.mode)) return E.INVAL;
  const mode = attributes.mode & 0o7777;
  const target = yield* openFile(paths, to, { ...readOnlyFlags, read: false, write: true, create: true, mode });
  if (failed(target)) return target;
  const copied = target.inode === source.inode ? E.INVAL : yield* copyContents(paths, source, target, attributes);
  yield* target.close();
  return copied;
}

function* copyContents(paths: Paths, source: OpenFile, target: OpenFile, original: Attributes): Task<Done> {
  const cut = yield* target.truncate(0);
  if (failed(cut)) return cut;
  for (let at = 0; at < original.size;) {
    const range = { from: source.inode, fromOffset: at, to: target.inode, toOffset: at, length: copyStepBytes };
    const copied = yield* paths.fileSystem.copyRange({ ...range, killSetId: !isSuperuser(paths.who) });
    if (failed(copied)) return copied;
    if (copied.count === 0) break;
    at += copied.count;
  }
  const made = yield* target.stat();
  if (failed(made)) return made;
  const mode = original.mode & 0o7777;
  if ((made.mode & 0o7777) === mode || ownerErrno(made, paths.who) !== 0) return done;
  return yield* target.setMode(mode);
}

/** An open file. Made by {@linkcode openFile}; ends with {@linkcode OpenFile.close}. */
export class OpenFile {
  readonly inode: number;
  /** Every write goes to the end. */
  readonly appends: boolean;
  readonly #paths: Paths;
  readonly #reads: boolean;
  readonly #writes: boolean;
  /** Opened as a directory: nothing is registered for it. */
  readonly #directory: boolean;
  readonly #owner: number;
  readonly #lockRequests = new Set<Future<void>>();
  #locked = false;
  #active = 0;
  #closed = false;
  readonly #idle = new Future<void>();

  /** `attributes` of an inode whose open is registered, unless it is a directory. */
  constructor(paths: Paths, attributes: Attributes, flags: OpenFlags) {
    this.#paths = paths;
    this.inode = attributes.inode;
    this.appends = flags.append;
    this.#reads = flags.read;
    this.#writes = flags.write || flags.append;
    this.#directory = isDirectory(attributes.mode);
    this.#owner = paths.newLockOwner();
  }

  /** Reads at an offset; `count` is short only at the end of the file. */
  *read(offset: number, into: Uint8Array): Task<Result<{ count: number }>> {
    if (this.#directory) return E.ISDIR;
    if (!this.#reads) return E.BADF;
    return yield* this.#use((fileSystem) => fileSystem.read(this.inode, offset, into));
  }

  /** Writes all at an offset. */
  *write(offset: number, data: Uint8Array): Task<Done> {
    if (!this.#writes) return E.BADF;
    const options = { killSetId: this.#killSetId };
    return yield* this.#use((fileSystem) => fileSystem.write(this.inode, offset, data, options));
  }

  /** Writes all at the end, atomically up to 1 MiB; `offset` is where it went. */
  *append(data: Uint8Array): Task<Result<{ offset: number }>> {
    if (!this.#writes) return E.BADF;
    const options = { killSetId: this.#killSetId };
    return yield* this.#use((fileSystem) => fileSystem.append(this.inode, data, options));
  }

  /** fstat(2). */
  *stat(): Task<Result<Attributes>> {
    return yield* this.#use((fileSystem) => fileSystem.getAttributes(this.inode));
  }

  /** ftruncate(2): EINVAL when it is not open for writing. */
  *truncate(size: number): Task<Done> {
    return this.#writes ? yield* this.#set({ size, killSetId: this.#killSetId }) : E.INVAL;
  }

  /** fchmod(2). */
  *setMode(mode: number): Task<Done> {
    const attributes = yield* this.stat();
    if (failed(attributes)) return attributes;
    const { fileSystem, who } = this.#paths;
    if (fileSystem.readOnly) return E.ROFS;
    return ownerErrno(attributes, who) || (yield* this.#set({ mode: chmodMode(attributes, mode, who) }));
  }

  /** futimens(2). */
  *setTimes(times: { atime: SetTime; mtime: SetTime }): Task<Done> {
    const attributes = yield* this.stat();
    if (failed(attributes)) return attributes;
    if (this.#paths.fileSystem.readOnly) return E.ROFS;
    const { fileSystem, who } = this.#paths;
    return (yield* timesErrno(fileSystem, attributes, times, who)) || (yield* this.#set({ ...times }));
  }

  /** fsync(2). */
  *sync(): Task<Done> {
    return yield* this.#use((fileSystem) => fileSystem.sync(this.inode));
  }

  /** flock(2): a second lock converts the first. Without `block` EAGAIN when another holds it; EINTR by a close. */
  *lock(exclusive: boolean, block: boolean): Task<Done> {
    if (this.#directory) return E.ISDIR;
    const cancel = new Future<void>();
    this.#lockRequests.add(cancel);
    this.#locked = true;
    const outcome = yield* this.#use((fileSystem) => {
      return fileSystem.setLock(this.inode, this.#flock(exclusive ? "write" : "read"), block, cancel);
    });
    this.#lockRequests.delete(cancel);
    return outcome;
  }

  /** flock(2) with LOCK_UN. */
  *unlock(): Task<Done> {
    if (!this.#locked) return done;
    return yield* this.#use((fileSystem) => {
      return fileSystem.setLock(this.inode, this.#flock("unlock"), false, new Future<void>());
    });
  }

  /** Ends it, with its lock, after what is under way. Waiting locks end with EINTR. A second close does nothing. */
  *close(): Task<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const request of this.#lockRequests) request.resolve();
    if (this.#active > 0) yield* wait(this.#idle);
    const { fileSystem } = this.#paths;
    if (this.#locked) yield* fileSystem.dropLocks(this.inode, true, this.#owner, 0);
    if (!this.#directory) yield* fileSystem.release(this.inode);
  }

  get #killSetId(): boolean {
    return !isSuperuser(this.#paths.who);
  }

  #flock(type: "read" | "write" | "unlock") {
    const { pid } = this.#paths.who;
    return { flock: true, type, ownerLow: this.#owner, ownerHigh: 0, pid, start: 0n, end: lockEnd };
  }

  *#set(change: AttributeChange): Task<Done> {
    const changed = yield* this.#use((fileSystem) => fileSystem.setAttributes(this.inode, change));
    return failed(changed) ? changed : done;
  }

  *#use<T extends object>(work: (fileSystem: FileSystem) => Task<Result<T>>): Task<Result<T>> {
    if (this.#closed) return E.BADF;
    this.#active++;
    const result = yield* work(this.#paths.fileSystem);
    if (--this.#active === 0 && this.#closed) this.#idle.resolve();
    return result;
  }
}
