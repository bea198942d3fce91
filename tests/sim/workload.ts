/**
 * What the simulated clients do: random operations on few names and few files, so that they meet, and the way from an
 * operation of the model to a call of the real {@linkcode FileSystem} and back to what was seen.
 *
 * @module
 */

import { decodeAcl, encodeAcl } from "../../core/meta/acl.ts";
import { S } from "../../core/meta/attributes.ts";
import type { Attributes } from "../../core/meta/attributes.ts";
import { type Caller, type FileSystem, type Lock, lockEnd } from "../../core/client/filesystem.ts";
import { E, failed } from "../../core/errno.ts";
import { aclOf, aclText } from "../core/meta/acls.ts";
import { Future, type Task } from "../../core/task.ts";
import {
  aclNames,
  allocateModes,
  chunkBytes,
  isReading,
  type Observed,
  type Op,
  pattern,
  type Seen,
  type State,
} from "./model.ts";
import type { Random } from "./random.ts";

const user: Caller = { uid: 1000, gid: 1000, pid: 1, umask: 0 };
const namesOf = ["a", "b", "c", "d"];
/** Directories move among few names, so that they meet. */
const namesOfMoves = ["a", "b"];
/** Directories of a run: few, so that clients meet. */
const directoriesMax = 4;
const filesMax = 8;
/** Bytes of a page of a directory: all names of a run fit. */
const pageBytes = 65536;
/** Access ACLs: one that a mode can say among them. */
const acls = ["u::rwx u:7:r-x g::--- m::r-x o::---", "u::rw- g::r-- g:8:rwx m::rwx o::r--", "u::rw- g::r-- o::r--"];
/** The root's default ACL, in runs in which there is one. */
export const inheritable = "u::rwx u:7:rwx g::r-x m::rwx o::r--";
/** How long programs wait for a lock before a signal comes, some of them long enough to find deadlocks. */
const waits = { 1: 4, 5: 4, 20: 4, 100: 2, 5000: 1 };
/** Who is told of a signal's effect later than this may hold the lock for some time nevertheless. */
const signalMs = 400;
/** Last byte of locks that reach to the end of any size. */
export const lockedEnd = 1000;
const wholeFile = { start: 0, end: lockedEnd };
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Weights of operations. */
export type Mix = Readonly<Partial<Record<Op["kind"], number>>>;

/** What clients care about in a run. */
export const mixes: Readonly<Record<string, Mix>> = {
  names: {
    lookup: 3,
    stat: 2,
    create: 5,
    symlink: 1,
    mkdir: 4,
    unlink: 4,
    rmdir: 3,
    rename: 7,
    link: 3,
    readlink: 1,
    open: 1,
    release: 2,
    readdir: 3,
    clear: 1,
  },
  data: {
    lookup: 1,
    stat: 2,
    create: 3,
    unlink: 1,
    open: 3,
    release: 3,
    read: 8,
    write: 8,
    append: 4,
    truncate: 4,
    fsync: 1,
  },
  /** Files that are open while their names come and go. */
  orphans: {
    lookup: 1,
    stat: 5,
    create: 3,
    unlink: 5,
    rename: 3,
    link: 1,
    open: 7,
    release: 2,
    read: 6,
    write: 1,
    truncate: 1,
    clear: 1,
  },
  locks: {
    stat: 1,
    create: 3,
    unlink: 1,
    open: 3,
    release: 1,
    setlk: 14,
    getlk: 3,
    droplk: 2,
  },
  ranges: {
    stat: 1,
    create: 3,
    open: 3,
    release: 2,
    read: 6,
    write: 6,
    append: 1,
    truncate: 3,
    allocate: 5,
    seek: 5,
    fsync: 1,
  },
  moves: {
    lookup: 1,
    stat: 1,
    mkdir: 5,
    rmdir: 1,
    rename: 12,
    readdir: 1,
  },
  listings: {
    lookup: 2,
    mkdir: 4,
    rename: 9,
    readdir: 9,
    rmdir: 1,
  },
  mixed: {
    lookup: 2,
    stat: 2,
    create: 4,
    symlink: 1,
    mkdir: 2,
    unlink: 3,
    rmdir: 2,
    rename: 4,
    link: 2,
    open: 2,
    release: 2,
    read: 3,
    write: 4,
    append: 1,
    truncate: 2,
    chmod: 1,
    readdir: 2,
    setxattr: 2,
    getxattr: 2,
    listxattr: 1,
    removexattr: 1,
    fsync: 1,
  },
};

/** Mixes in which few names make all clients meet. */
const meetingMixes: readonly Mix[] = [mixes.moves, mixes.locks, mixes.ranges, mixes.listings];

/** What the actors of all clients know: inode numbers to try things on. */
export class Pool {
  dirs: number[];
  files: number[];
  links: number[];

  constructor(readonly root: number) {
    this.dirs = [root];
    this.files = [];
    this.links = [];
  }

  /** Starts a round: what exists, and at times something that did. */
  refresh(state: State, random: Random): void {
    const mix = (live: number[], old: number[], most: number) => {
      const stale = old.filter((inode) => !live.includes(inode));
      const all = live.slice(-most);
      if (stale.length > 0 && random.chance(0.3)) all.push(random.pick(stale));
      return all;
    };
    this.dirs = mix(state.known("dir"), this.dirs, directoriesMax);
    if (!this.dirs.includes(this.root)) this.dirs.push(this.root);
    this.files = mix(state.known("file"), this.files, filesMax);
    this.links = mix(state.known("symlink"), this.links, filesMax);
  }

  /** Somebody saw an inode. */
  learn(seen: Seen): void {
    const type = seen.mode & S.IFMT;
    const list = type === S.IFDIR ? this.dirs : type === S.IFREG ? this.files : this.links;
    if (!list.includes(seen.inode)) list.push(seen.inode);
  }
}

/** Draws operations for one client. */
export class Generator {
  /** Opens this client holds. */
  opens: number[] = [];

  readonly #names: readonly string[];

  /** `owner` names this actor's locks. */
  constructor(readonly random: Random, readonly mix: Mix, readonly pool: Pool, readonly owner: number) {
    this.#names = meetingMixes.includes(mix) ? namesOfMoves : namesOf;
  }

  /** A copy between files that this client has open; null: there is none to make. */
  copy(): Op | null {
    const { random, opens } = this;
    if (opens.length === 0) return null;
    const inode = random.pick(opens), to = random.pick(opens);
    const { offset, length } = this.#range(), toOffset = this.#range().offset;
    if (inode === to && Math.abs(offset - toOffset) < length) return null;
    return { kind: "copy", inode, offset, to, toOffset, length };
  }

  /** The next operation; `tag` marks what it writes. */
  next(tag: number): Op {
    const { random, pool } = this;
    for (;;) {
      const kind = random.weighted(this.mix as Record<Op["kind"], number>);
      if (kind === "mkdir" && pool.dirs.length > directoriesMax && random.chance(0.8)) continue;
      const op = this.#make(kind, tag);
      if (op !== null) return op;
    }
  }

  #make(kind: Op["kind"], tag: number): Op | null {
    const { random, pool } = this;
    const dir = random.chance(0.3) ? pool.root : random.pick(pool.dirs), name = random.pick(this.#names);
    const file = pool.files.length > 0 ? random.pick(pool.files) : 0;
    const any = random.pick([...pool.files, ...pool.dirs, ...pool.links]);
    switch (kind) {
      case "lookup":
      case "unlink":
      case "rmdir":
        return { kind, dir, name };
      case "create": {
        // Programs ask for a name that may exist only to open it.
        const open = random.chance(0.7), exclusive = !open || random.chance(0.3);
        return { kind, dir, name, exclusive, open, mode: random.pick([0o644, 0o600]) };
      }
      case "symlink":
        return { kind, dir, name, target: `to-${tag}` };
      case "mkdir":
        return { kind, dir, name, mode: 0o755 };
      case "rename":
        return {
          kind,
          dir,
          name,
          newDir: random.chance(0.4) ? dir : random.pick(pool.dirs),
          newName: random.pick(this.#names),
          flags: random.pick([0, 0, 0, 0, 1, 2]),
        };
      case "link":
        return file === 0 ? null : { kind, inode: random.chance(0.9) ? file : any, dir, name };
      case "stat":
      case "listxattr":
        return { kind, inode: any };
      case "readlink":
        return pool.links.length === 0 ? null : { kind, inode: random.pick(pool.links) };
      case "open":
        return file === 0 ? null : { kind, inode: file, truncate: random.chance(0.2) };
      case "release":
        return this.opens.length === 0 ? null : { kind, inode: random.pick(this.opens) };
      case "chmod":
        return { kind, inode: any, mode: random.pick([0o700, 0o755, 0o644]) };
      case "readdir":
      case "clear":
        return { kind, dir };
      case "setxattr":
        if (random.chance(0.4)) return { kind, inode: any, name: aclNames.access, value: random.pick(acls), flags: 0 };
        return { kind, inode: any, name: "user.x", value: `v${tag}`, flags: random.pick([0, 0, 1, 2]) };
      case "getxattr":
      case "removexattr":
        return { kind, inode: any, name: random.pick(["user.x", "user.x", aclNames.access]) };
      case "fsync":
      case "read":
      case "write":
      case "append":
      case "allocate":
      case "seek":
      case "setlk":
      case "getlk":
      case "droplk":
        return this.#onOpen(kind, file, tag);
      case "copy":
        return null;
      case "truncate":
        return file === 0 ? null : { kind, inode: file, size: this.#range().offset };
    }
  }

  /** Bytes go through an open file, as in every program: what is closed and unlinked may be gone any moment. */
  #onOpen(
    kind: "fsync" | "read" | "write" | "append" | "allocate" | "seek" | "setlk" | "getlk" | "droplk",
    file: number,
    tag: number,
  ): Op | null {
    const { random, opens, owner } = this;
    if (opens.length === 0) return file === 0 ? null : { kind: "open", inode: file, truncate: random.chance(0.1) };
    const inode = random.pick(opens);
    switch (kind) {
      case "fsync":
        return { kind, inode };
      case "read":
        return { kind, inode, ...this.#range() };
      case "write":
        return { kind, inode, ...this.#range(), tag };
      case "append":
        return { kind, inode, length: random.pick([1, 100, 4096, 5000]), tag };
      case "allocate":
        return { kind, inode, mode: random.pick(Object.values(allocateModes)), ...this.#range() };
      case "seek":
        return { kind, inode, offset: this.#range().offset, hole: random.chance(0.5) };
      case "setlk": {
        const flock = random.chance(0.25), write = random.pick([true, true, false, null]);
        const waitMs = write !== null && random.chance(0.4) ? Number(random.weighted(waits)) : 0;
        return { kind, inode, owner, flock, write, ...(flock ? wholeFile : this.#locked()), waitMs };
      }
      case "getlk":
        return { kind, inode, owner, write: random.chance(0.7), ...this.#locked() };
      case "droplk":
        return { kind, inode, owner, flock: random.chance(0.25) };
    }
  }

  /** A range that a lock is asked for. */
  #locked(): { start: number; end: number } {
    const start = this.random.pick([0, 0, 5, 10]);
    return this.random.chance(0.2) ? { start, end: lockedEnd } : { start, end: start + this.random.pick([0, 4, 9]) };
  }

  /** Where things go wrong: at the limits of inline data, of blocks and of chunks. */
  #range(): { offset: number; length: number } {
    const { random } = this;
    const length = random.pick([1, 100, 700, 4096, 5000, 12288]);
    const at = random.pick([
      0,
      0,
      0,
      50,
      2000,
      4096,
      8192,
      chunkBytes - 4096,
      chunkBytes - 100,
      chunkBytes,
      2 * chunkBytes - 50,
    ]);
    return { offset: at + random.pick([0, 0, 1, 33]), length };
  }
}

function isAcl(name: string): boolean {
  return name === aclNames.access || name === aclNames.default;
}

function see(attributes: Attributes): { seen: Seen } {
  const { inode, mode, nlink, size } = attributes;
  return { seen: { inode, mode, nlink, size } };
}

/** Settles after some time of the client's clock. */
export type Sleep = (ms: number) => Future<void>;

/**
 * Calls the file system and says what was seen. A change that ends with EIO is unknown, and so null; so is one of
 * several parts that met a full volume.
 */
export function* perform(fs: FileSystem, op: Op, sleep: Sleep): Task<Observed> {
  const observed = yield* call(fs, op, sleep);
  if (observed === E.IO && !isReading(op)) return null;
  return observed === E.NOSPC && hasParts(op) ? null : observed;
}

function hasParts(op: Op): boolean {
  switch (op.kind) {
    case "write":
      return op.offset + op.length > chunkBytes;
    case "allocate":
      return op.mode !== allocateModes.plain && op.mode !== allocateModes.keepSize;
    case "append":
    case "copy":
      return true;
    default:
      return false;
  }
}

function lockOf(op: Op & { kind: "setlk" | "getlk" }): Lock {
  const { owner, start, end, write } = op, type = write === null ? "unlock" : write ? "write" : "read";
  const range = { start: BigInt(start), end: end === lockedEnd ? lockEnd : BigInt(end) };
  return { flock: op.kind === "setlk" && op.flock, type, ownerLow: owner, ownerHigh: 0, pid: owner, ...range };
}

function* call(fs: FileSystem, op: Op, sleep: Sleep): Task<Observed> {
  const bytes = (text: string) => encoder.encode(text);
  const attributes = function* (task: Task<Attributes | number>): Task<Observed> {
    const result = yield* task;
    return failed(result) ? result : see(result);
  };
  const plain = function* (task: Task<object | number>): Task<Observed> {
    const result = yield* task;
    return failed(result) ? result : {};
  };
  const text = function* (task: Task<Uint8Array | number>): Task<Observed> {
    const result = yield* task;
    return failed(result) ? result : { text: decoder.decode(result) };
  };
  switch (op.kind) {
    case "lookup":
      return yield* attributes(fs.lookup(op.dir, bytes(op.name)));
    case "stat":
      return yield* attributes(fs.getAttributes(op.inode));
    case "create": {
      const options = { mode: S.IFREG | op.mode, exclusive: op.exclusive, open: op.open };
      return yield* attributes(fs.create(op.dir, bytes(op.name), options, user));
    }
    case "symlink": {
      const options = { mode: S.IFLNK | 0o777, target: bytes(op.target), exclusive: true, open: false };
      return yield* attributes(fs.create(op.dir, bytes(op.name), options, user));
    }
    case "mkdir":
      return yield* attributes(fs.makeDirectory(op.dir, bytes(op.name), op.mode, user));
    case "unlink":
      return yield* plain(fs.unlink(op.dir, bytes(op.name)));
    case "rmdir":
      return yield* plain(fs.removeDirectory(op.dir, bytes(op.name)));
    case "rename":
      return yield* plain(fs.rename(op.dir, bytes(op.name), op.newDir, bytes(op.newName), op.flags));
    case "link":
      return yield* attributes(fs.link(op.inode, op.dir, bytes(op.name)));
    case "readlink":
      return yield* text(fs.readLink(op.inode));
    case "open":
      return yield* attributes(fs.open(op.inode, { truncate: op.truncate }));
    case "release":
      return yield* plain(fs.release(op.inode));
    case "read": {
      const into = new Uint8Array(op.length).fill(0xee);
      const result = yield* fs.read(op.inode, op.offset, into);
      return failed(result) ? result : { bytes: into.subarray(0, result.count) };
    }
    case "write":
      return yield* plain(fs.write(op.inode, op.offset, pattern(op.tag, op.length), { killSetId: false }));
    case "append": {
      const result = yield* fs.append(op.inode, pattern(op.tag, op.length), { killSetId: false });
      return failed(result) ? result : { offset: result.offset };
    }
    case "truncate":
      return yield* attributes(fs.setAttributes(op.inode, { size: op.size }));
    case "chmod":
      return yield* attributes(fs.setAttributes(op.inode, { mode: op.mode }));
    case "readdir": {
      const result = yield* fs.readDirectory(op.dir, 0, pageBytes, { plus: false });
      if (failed(result)) return result;
      const entries = result.map((e): [string, number, number] => [decoder.decode(e.name), e.inode, e.type]);
      return { entries: entries.sort((a, b) => a[0] < b[0] ? -1 : 1) };
    }
    case "setxattr": {
      const value = isAcl(op.name) ? encodeAcl(aclOf(op.value)) : bytes(op.value);
      return yield* plain(fs.setExtendedAttribute(op.inode, bytes(op.name), value, op.flags));
    }
    case "getxattr": {
      if (!isAcl(op.name)) return yield* text(fs.getExtendedAttribute(op.inode, bytes(op.name)));
      const value = yield* fs.getExtendedAttribute(op.inode, bytes(op.name));
      const acl = failed(value) ? value : decodeAcl(value);
      return failed(acl) ? acl : { text: aclText(acl) };
    }
    case "clear": {
      const result = yield* fs.clearDirectory(op.dir, 0, null);
      if (failed(result)) return result;
      return { names: result.left.map((entry) => decoder.decode(entry.name)).sort(), removed: result.removed };
    }
    case "listxattr": {
      const result = yield* fs.listExtendedAttributes(op.inode);
      return failed(result) ? result : { names: decoder.decode(result).split("\0").filter((n) => n !== "").sort() };
    }
    case "removexattr":
      return yield* plain(fs.removeExtendedAttribute(op.inode, bytes(op.name)));
    case "fsync":
      return yield* plain(fs.sync(op.inode));
    case "allocate":
      return yield* plain(fs.allocate(op.inode, {
        mode: op.mode,
        offset: op.offset,
        length: op.length,
        killSetId: false,
      }));
    case "seek": {
      const result = yield* fs.seek(op.inode, op.offset, op.hole ? "hole" : "data");
      if (result === E.NXIO) return { offset: -1 };
      return failed(result) ? result : { offset: result.offset };
    }
    case "copy": {
      const { inode: from, offset: fromOffset, to, toOffset, length } = op;
      const result = yield* fs.copyRange({ from, fromOffset, to, toOffset, length, killSetId: false });
      return failed(result) ? result : { count: result.count };
    }
    case "setlk": {
      if (op.waitMs === 0) return yield* plain(fs.setLock(op.inode, lockOf(op), false, new Future<void>()));
      const signal = sleep(op.waitMs), unsure = sleep(op.waitMs + signalMs);
      const observed = yield* plain(fs.setLock(op.inode, lockOf(op), true, signal));
      return observed === E.INTR && unsure.settled ? null : observed;
    }
    case "getlk": {
      const found = yield* fs.testLock(op.inode, lockOf(op));
      if (failed(found)) return found;
      const { type, ownerLow, pid } = found;
      const start = Number(found.start), end = found.end === lockEnd ? lockedEnd : Number(found.end);
      return { lock: type === "unlock" ? null : { owner: ownerLow, write: type === "write", start, end, pid } };
    }
    case "droplk":
      return yield* plain(fs.dropLocks(op.inode, op.flock, op.owner, 0));
  }
}
