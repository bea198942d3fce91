/**
 * What a POSIX volume is, as a value: a pure model that says whether an answer is right in a state and what the state
 * is afterwards. Immutable, so that the checker can try many orders; small, so that it can be trusted by reading.
 *
 * An operation is one or more phases, each of which happens at one moment. Where sealfs promises less than one moment
 * for the whole, the phases say exactly what it promises instead: a read or write touches the chunks of several shards
 * one by one; the inode that a name is taken from or given to changes a moment apart from the name; a listing that runs
 * beside a rename may show it half done. Names alone (lookup, create, rename) are one moment, always.
 *
 * Inode numbers are those that the clients saw. The inode of a create whose answer was lost gets a negative number until
 * somebody sees it.
 *
 * @module
 */

import { E } from "../../core/errno.ts";
import { aclPermissions, chmodAcl, inheritAcl, isMinimal } from "../../core/meta/acl.ts";
import { S } from "../../core/meta/attributes.ts";
import { aclOf, aclText } from "../core/meta/acls.ts";
import {
  blockers,
  clash,
  describeLocks,
  haunted,
  type HeldLock,
  locked,
  type Locks,
  loosened,
  mayBeBlocked,
  noLocks,
  orphaned,
  settled,
  unlocked,
} from "./locks.ts";

/** Bytes of a chunk: reads and writes within chunk 0 are atomic. */
export const chunkBytes = 1 << 20;
/** Phases are bits of a number. */
export const phasesMax = 8;

/** An operation of a client on the volume, by inode numbers. `tag` says what the bytes of a write are. */
export type Op =
  | { kind: "lookup"; dir: number; name: string }
  | { kind: "stat"; inode: number }
  | { kind: "create"; dir: number; name: string; exclusive: boolean; open: boolean; mode: number }
  | { kind: "symlink"; dir: number; name: string; target: string }
  | { kind: "mkdir"; dir: number; name: string; mode: number }
  | { kind: "unlink"; dir: number; name: string }
  | { kind: "rmdir"; dir: number; name: string }
  | { kind: "rename"; dir: number; name: string; newDir: number; newName: string; flags: number }
  | { kind: "link"; inode: number; dir: number; name: string }
  | { kind: "readlink"; inode: number }
  | { kind: "open"; inode: number; truncate: boolean }
  | { kind: "release"; inode: number }
  | { kind: "read"; inode: number; offset: number; length: number }
  | { kind: "write"; inode: number; offset: number; length: number; tag: number }
  | { kind: "append"; inode: number; length: number; tag: number }
  | { kind: "truncate"; inode: number; size: number }
  | { kind: "chmod"; inode: number; mode: number }
  | { kind: "readdir"; dir: number }
  /** Removes what files it can; `loose`: names that are just being changed may be passed over though they are there. */
  | { kind: "clear"; dir: number; loose?: readonly string[] }
  | { kind: "setxattr"; inode: number; name: string; value: string; flags: number }
  | { kind: "getxattr"; inode: number; name: string }
  | { kind: "listxattr"; inode: number }
  | { kind: "removexattr"; inode: number; name: string }
  | { kind: "fsync"; inode: number }
  /** fallocate(2) with {@linkcode allocateModes}. */
  | { kind: "allocate"; inode: number; mode: number; offset: number; length: number }
  /** SEEK_HOLE or SEEK_DATA; offset -1 as an answer: there is none. */
  | { kind: "seek"; inode: number; offset: number; hole: boolean }
  /** Only while nothing else happens: its parts are of many moments. */
  | { kind: "copy"; inode: number; offset: number; to: number; toOffset: number; length: number }
  /** `write` null: unlock. `waitMs` above 0: waits so long, then a signal comes (EINTR). */
  | {
    kind: "setlk";
    inode: number;
    owner: number;
    flock: boolean;
    write: boolean | null;
    start: number;
    end: number;
    waitMs: number;
  }
  | { kind: "getlk"; inode: number; owner: number; write: boolean; start: number; end: number }
  /** A close: everything of that kind that the owner holds. */
  | { kind: "droplk"; inode: number; owner: number; flock: boolean };

/** Modes of fallocate(2). */
export const allocateModes = { plain: 0, keepSize: 1, punchHole: 3, zeroRange: 16, zeroKeepSize: 17 } as const;

/** Names of ACLs as extended attributes; their values are text here (tests/core/meta/acls.ts). */
export const aclNames = { access: "system.posix_acl_access", default: "system.posix_acl_default" } as const;

/** `nlink` that was seen while it was changing: any will do. */
export const anyNlink = -1;

/** What a client saw of an inode. */
export interface Seen {
  inode: number;
  mode: number;
  nlink: number;
  size: number;
}

/** What a client saw of an operation that succeeded: what is there depends on the operation. */
export interface Success {
  seen?: Seen;
  bytes?: Uint8Array;
  offset?: number;
  text?: string;
  /** Sorted names with their inode numbers. */
  entries?: [name: string, inode: number, type: number][];
  /** Sorted names of extended attributes; or the names that a clear has left. */
  names?: string[];
  /** Bytes copied. */
  count?: number;
  /** The lock that blocks, null: none. `pid` is the owner's on its own client, else 0. */
  lock?: { owner: number; write: boolean; start: number; end: number; pid: number } | null;
  /** Files that a clear removed. */
  removed?: number;
}

/** Success, an errno, or null: the outcome is unknown and may come later or never. */
export type Observed = Success | number | null;

/** A stretch of a file's bytes: byte p is `patternByte(tag, p - origin)`. What no stretch covers is zero. */
interface Stretch {
  start: number;
  end: number;
  tag: number;
  origin: number;
}

interface Inode {
  readonly mode: number;
  readonly nlink: number;
  readonly size: number;
  readonly stretches: readonly Stretch[];
  readonly target: string;
  readonly entries: ReadonlyMap<string, number>;
  /** Directories: where they are. */
  readonly parent: number;
  readonly xattrs: ReadonlyMap<string, string>;
  /** How many opens each client holds for certain. */
  readonly opens: ReadonlyMap<number, number>;
  readonly locks: Locks;
  /** A truncation under way may have taken the data from here on. */
  readonly cut: number;
  /** A copy into it ended without a certain answer: size and bytes are anybody's guess. */
  readonly vague: boolean;
}

const noEntries: ReadonlyMap<string, never> = new Map<string, never>();
const blank: Inode = {
  mode: 0,
  nlink: 1,
  size: 0,
  stretches: [],
  target: "",
  entries: noEntries,
  parent: 0,
  xattrs: noEntries,
  opens: new Map(),
  locks: noLocks,
  cut: Infinity,
  vague: false,
};

const gone = [E.NOENT, E.STALE];

/** Byte `at` of what a write with `tag` writes; never 0, so that it differs from a hole. */
export function patternByte(tag: number, at: number): number {
  return 1 + (tag * 37 + at * 11 + (at >>> 8) * 3 + (at >>> 16) * 5) % 255;
}

/** All bytes of a write. */
export function pattern(tag: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at++) bytes[at] = patternByte(tag, at);
  return bytes;
}

function isDir(inode: Inode): boolean {
  return (inode.mode & S.IFMT) === S.IFDIR;
}

function isFile(inode: Inode): boolean {
  return (inode.mode & S.IFMT) === S.IFREG;
}

/** An inode with another mode, and its access ACL in step. */
function withMode(inode: Inode, mode: number): Inode {
  const acl = inode.xattrs.get(aclNames.access);
  if (acl === undefined) return { ...inode, mode };
  return { ...inode, mode, xattrs: new Map(inode.xattrs).set(aclNames.access, aclText(chmodAcl(aclOf(acl), mode))) };
}

/** A new inode with what it inherits of the default ACL of `dir`. */
function inherited(dir: Inode, made: Inode): Inode {
  const acl = dir.xattrs.get(aclNames.default);
  if (acl === undefined || !isDir(made) && !isFile(made)) return made;
  const { permissions, access } = inheritAcl(aclOf(acl), made.mode), xattrs = new Map(made.xattrs);
  if (access.length > 0) xattrs.set(aclNames.access, aclText(access));
  if (isDir(made)) xattrs.set(aclNames.default, acl);
  return { ...made, mode: made.mode & ~0o777 | permissions, xattrs };
}

const keys = new WeakMap<Inode, string>();

function keyOf(inode: Inode): string {
  let key = keys.get(inode);
  if (key !== undefined) return key;
  key = `${inode.mode.toString(8)} ${inode.nlink} ${inode.size} ${inode.parent} ${inode.target} ` +
    inode.stretches.map((s) => `${s.start}-${s.end}:${s.tag}@${s.origin}`).join(",") + " " +
    sorted(inode.entries) + sorted(inode.xattrs) + sorted(inode.opens) + describeLocks(inode.locks) +
    (inode.vague ? " vague" : "") + (inode.cut === Infinity ? "" : ` cut ${inode.cut}`);
  keys.set(inode, key);
  return key;
}

function sorted(map: ReadonlyMap<string | number, string | number>): string {
  if (map.size === 0) return "{}";
  return `{${[...map].map(([k, v]) => `${k}=${v}`).sort().join(",")}}`;
}

/** Cuts everything at or after `size` off. */
function cutStretches(stretches: readonly Stretch[], size: number): Stretch[] {
  return stretches.filter((s) => s.start < size).map((s) => s.end <= size ? s : { ...s, end: size });
}

function layStretch(stretches: readonly Stretch[], put: Stretch): Stretch[] {
  const out = clearStretches(stretches, put.start, put.end);
  if (put.end > put.start) out.push(put);
  return out.sort((a, b) => a.start - b.start);
}

/** Makes [start, end) zeros. */
function clearStretches(stretches: readonly Stretch[], start: number, end: number): Stretch[] {
  const out: Stretch[] = [];
  for (const s of stretches) {
    if (s.start < start) out.push({ ...s, end: Math.min(s.end, start) });
    if (s.end > end) out.push({ ...s, start: Math.max(s.start, end) });
  }
  return out.filter((s) => s.end > s.start).sort((a, b) => a.start - b.start);
}

/** True when no stretch of data is in [start, end). */
function isZero(inode: Inode, start: number, end: number): boolean {
  const stop = Math.min(end, inode.cut);
  return start >= stop || !inode.stretches.some((s) => s.start < stop && s.end > start);
}

function bytesMatch(inode: Inode, offset: number, bytes: Uint8Array, limit = Infinity): boolean {
  let at = 0;
  for (const s of inode.stretches) {
    const from = Math.max(s.start, offset) - offset, to = Math.min(s.end, limit, offset + bytes.length) - offset;
    if (to <= from) continue;
    for (; at < from; at++) if (bytes[at] !== 0) return false;
    for (; at < to; at++) if (bytes[at] !== patternByte(s.tag, at + offset - s.origin)) return false;
  }
  for (; at < bytes.length; at++) if (bytes[at] !== 0) return false;
  return true;
}

/** A volume at one moment. Immutable; equal states have equal keys. */
export class State {
  #key: string | null = null;

  private constructor(
    readonly root: number,
    private readonly inodes: ReadonlyMap<number, Inode>,
    /** Files without a name that nobody has open: any answer will do, they may be gone or on their way. */
    private readonly limbo: ReadonlySet<number>,
    /** Operations between two phases, by serial, and the inode they are about. */
    private readonly work: ReadonlyMap<number, number>,
  ) {}

  /** A fresh volume; `defaultAcl` is the root's, "" for none. */
  static fresh(root: Seen, defaultAcl = ""): State {
    const xattrs = defaultAcl === "" ? noEntries : new Map([[aclNames.default, defaultAcl]]);
    return new State(
      root.inode,
      new Map([[root.inode, { ...blank, mode: root.mode, nlink: 2, parent: root.inode, xattrs }]]),
      new Set(),
      new Map(),
    );
  }

  /** Equal for equal states. */
  get key(): string {
    return this.#key ??= [...this.inodes].sort((a, b) => a[0] - b[0]).map(([id, inode]) => `${id}:${keyOf(inode)}`)
      .join("\n") + "|" + [...this.limbo].sort((a, b) => a - b).join(",") + sorted(this.work);
  }

  /** True when no operation is between two phases. */
  get whole(): boolean {
    return this.work.size === 0;
  }

  /** Numbers of directories, files and symbolic links that clients can know. */
  known(what: "dir" | "file" | "symlink"): number[] {
    const type = { dir: S.IFDIR, file: S.IFREG, symlink: S.IFLNK }[what];
    return [...this.inodes].filter(([id, i]) => id > 0 && (i.mode & S.IFMT) === type).map(([id]) => id);
  }

  /** Opens a client holds, one number for each. */
  opensOf(client: number): number[] {
    const out: number[] = [];
    for (const [id, inode] of this.inodes) {
      for (let count = inode.opens.get(client) ?? 0; count > 0; count--) out.push(id);
    }
    return out;
  }

  /** For people: one line an inode. */
  describe(): string {
    return this.key;
  }

  #with(changes: [number, Inode | null][], limbo = this.limbo): State {
    const inodes = new Map(this.inodes);
    for (const [id, inode] of changes) {
      if (inode === null) inodes.delete(id);
      else inodes.set(id, inode);
    }
    return new State(this.root, inodes, limbo, this.work);
  }

  /** This state with an operation half way, at `id`; null: it is through. */
  #working(serial: number, id: number | null): State {
    const work = new Map(this.work);
    if (id === null) work.delete(serial);
    else work.set(serial, id);
    return new State(this.root, this.inodes, this.limbo, work);
  }

  /** What a name stands for. `inode` is undefined while its removal is half done. */
  #at(dir: Inode, name: string): { id: number; inode: Inode | undefined } | null {
    const id = dir.entries.get(name);
    return id === undefined ? null : { id, inode: this.inodes.get(id) };
  }

  /** File `id` with one name less: gone when it was the last and nobody has it open. */
  #unlinked(id: number): State {
    const at = this.inodes.get(id)!, left = { ...at, nlink: at.nlink - 1 };
    if (left.nlink > 0 || at.opens.size > 0) return this.#with([[id, left]]);
    return this.#with([[id, null]], new Set([...this.limbo, id]));
  }

  /** The state with the inode of a lost answer named, now that somebody saw it. */
  #named(from: number, to: number): State {
    const rename = (id: number) => id === from ? to : id;
    const inodes = new Map<number, Inode>();
    for (const [id, inode] of this.inodes) {
      const parent = rename(inode.parent);
      let entries = inode.entries;
      if ([...entries.values()].includes(from)) entries = new Map([...entries].map(([name, at]) => [name, rename(at)]));
      inodes.set(
        rename(id),
        entries === inode.entries && parent === inode.parent ? inode : { ...inode, parent, entries },
      );
    }
    const work = new Map([...this.work].map(([serial, id]) => [serial, rename(id)]));
    return new State(this.root, inodes, this.limbo, work);
  }

  /** This state if `id` is what the client saw, the same with a nameless inode named, or null. */
  #identify(id: number, seen: number): State | null {
    if (id === seen) return this;
    return id < 0 && !this.inodes.has(seen) ? this.#named(id, seen) : null;
  }

  #sees(id: number, seen: Seen | undefined): boolean {
    const inode = this.inodes.get(id);
    if (inode === undefined || seen === undefined) return false;
    if (seen.inode !== id || seen.mode !== inode.mode) return false;
    if (seen.nlink !== inode.nlink && seen.nlink !== anyNlink) return false;
    return isDir(inode) || inode.vague || seen.size === inode.size;
  }

  /** Whether `above` is `dir` or one of its ancestors. */
  #isAbove(above: number, dir: number): boolean {
    for (let at = dir;;) {
      if (at === above) return true;
      const inode = this.inodes.get(at);
      if (inode === undefined || at === this.root) return false;
      at = inode.parent;
    }
  }

  /**
   * States that may follow when phase `phase` of `op` by `client` happens now and is seen as `observed`; none = it
   * cannot have happened now. `serial` names what an unknown outcome creates.
   */
  apply(op: Op, phase: number, observed: Observed, client: number, serial: number): State[] {
    if (observed === E.IO || observed === E.NOSPC && takesSpace(op)) return [this];
    const step = new Step(op, phase, observed, client, serial);
    switch (op.kind) {
      case "lookup":
        return this.#lookup(op, step);
      case "stat":
        return this.#onInode(op.inode, step, () => this.#sees(op.inode, step.success?.seen) ? [this] : []);
      case "create":
        return this.#create(op, step);
      case "symlink":
        return this.#make(op, step, { ...blank, mode: S.IFLNK | 0o777, target: op.target, size: op.target.length });
      case "mkdir":
        return this.#make(op, step, { ...blank, mode: S.IFDIR | op.mode, nlink: 2, parent: op.dir });
      case "unlink":
        return this.#unlink(op, step);
      case "rmdir":
        return this.#rmdir(op, step);
      case "rename":
        return this.#rename(op, step);
      case "link":
        return this.#link(op, step);
      case "readlink":
        return this.#onInode(op.inode, step, (inode) => {
          if ((inode.mode & S.IFMT) !== S.IFLNK) return step.refused([E.INVAL], this);
          return step.succeeded && step.success!.text === inode.target ? [this] : [];
        });
      case "open":
        return this.#open(op, step);
      case "release":
        return this.#release(op, step);
      case "read":
        return this.#read(op, step);
      case "write":
        return this.#write(op, step);
      case "append":
        return this.#append(op, step);
      case "truncate":
        return this.#onFile(
          op.inode,
          step,
          (inode) => this.#truncate(op.inode, inode, op.size, phase, step.success?.seen),
        );
      case "chmod":
        return this.#onInode(op.inode, step, (inode) => {
          const next = this.#with([[op.inode, withMode(inode, inode.mode & S.IFMT | op.mode)]]);
          return step.succeeded && (step.unknown || next.#sees(op.inode, step.success!.seen)) ? [next] : [];
        });
      case "readdir":
        return this.#readdir(op, step);
      case "clear":
        return this.#clear(op, step);
      case "setxattr":
      case "getxattr":
      case "listxattr":
      case "removexattr":
        return this.#xattr(op, step);
      case "fsync":
        return this.#onInode(op.inode, step, () => step.succeeded ? [this] : []);
      case "allocate":
        return this.#allocate(op, step);
      case "seek":
        return this.#seek(op, step);
      case "copy":
        return this.#copy(op, step);
      case "setlk":
        return this.#setlk(op, step);
      case "getlk":
        return this.#getlk(op, step);
      case "droplk":
        return this.#droplk(op, step);
    }
  }

  /** Runs `then` on an inode that exists; otherwise the answer must say that it is gone. */
  #onInode(id: number, step: Step, then: (inode: Inode) => State[]): State[] {
    if (this.limbo.has(id)) return [this];
    const inode = this.inodes.get(id);
    if (inode === undefined) return step.isGhost ? [this] : step.refused(gone, this);
    return then(inode);
  }

  /** As #onInode, for a regular file whose operation succeeds. */
  #onFile(id: number, step: Step, then: (inode: Inode) => State[]): State[] {
    return this.#onInode(id, step, (inode) => {
      if (isDir(inode)) return step.refused([E.ISDIR, E.INVAL], this);
      if (!isFile(inode)) return step.refused([E.INVAL], this);
      return step.succeeded ? then(inode) : [];
    });
  }

  /** Errors of a directory that is to hold names; empty = fine. */
  #dirErrors(id: number): number[] {
    const inode = this.inodes.get(id);
    if (inode === undefined) return gone;
    return isDir(inode) ? [] : [E.NOTDIR];
  }

  #lookup(op: Op & { kind: "lookup" }, step: Step): State[] {
    const seen = step.success?.seen;
    if (step.phase === 1) return seen === undefined || this.#sees(seen.inode, seen) ? [this] : [];
    const errors = this.#dirErrors(op.dir);
    if (errors.length > 0) return step.refused(errors, this);
    const id = this.inodes.get(op.dir)!.entries.get(op.name);
    if (id === undefined) return step.refused([E.NOENT], this);
    if (seen === undefined) return [];
    const named = this.#identify(id, seen.inode);
    return named === null ? [] : [named];
  }

  #make(op: Op & { dir: number; name: string }, step: Step, wanted: Inode): State[] {
    const errors = this.#dirErrors(op.dir);
    if (errors.length > 0) return step.refused(errors, this);
    const dir = this.inodes.get(op.dir)!, made = inherited(dir, wanted);
    if (dir.entries.has(op.name)) return step.refused([E.EXIST], this);
    if (!step.succeeded) return [];
    const id = step.success?.seen?.inode ?? -step.serial;
    if (this.inodes.has(id) || this.limbo.has(id)) return [];
    const nlink = dir.nlink + (isDir(made) ? 1 : 0);
    const next = this.#with([[op.dir, { ...dir, nlink, entries: new Map(dir.entries).set(op.name, id) }], [id, made]]);
    return step.unknown || op.kind === "create" || next.#sees(id, step.success!.seen) ? [next] : [];
  }

  #create(op: Op & { kind: "create" }, step: Step): State[] {
    const seen = step.success?.seen;
    if (step.phase === 1) {
      if (step.unknown) return [this];
      return this.#sees(seen!.inode, seen) ? [op.open ? this.#opened(seen!.inode, step.client) : this] : [];
    }
    const existing = this.inodes.get(op.dir)?.entries.get(op.name);
    if (existing === undefined || op.exclusive) return this.#make(op, step, { ...blank, mode: S.IFREG | op.mode });
    const found = this.inodes.get(existing);
    if (found === undefined) return [];
    if (!isFile(found)) return step.refused([E.EXIST, E.ISDIR, E.LOOP, E.INVAL], this);
    if (step.unknown) return [this];
    if (seen === undefined) return [];
    const named = this.#identify(existing, seen.inode);
    return named === null ? [] : [named];
  }

  /** `client` below 0: one that has lost what it opened. */
  #opened(id: number, client: number): State {
    if (client < 0) return this;
    const inode = this.inodes.get(id)!;
    return this.#with([[id, {
      ...inode,
      opens: new Map(inode.opens).set(client, (inode.opens.get(client) ?? 0) + 1),
    }]]);
  }

  #open(op: Op & { kind: "open" }, step: Step): State[] {
    return this.#onFile(op.inode, step, (inode) => {
      if (step.phase > 0) return this.#truncate(op.inode, inode, 0, step.phase - 1, step.success?.seen);
      if (step.unknown) return [this];
      if (!op.truncate && !this.#sees(op.inode, step.success!.seen)) return [];
      return [this.#opened(op.inode, step.client)];
    });
  }

  #release(op: Op & { kind: "release" }, step: Step): State[] {
    const inode = this.inodes.get(op.inode);
    if (inode === undefined || !step.succeeded) return step.succeeded ? [this] : [];
    const count = inode.opens.get(step.client) ?? 0;
    const opens = new Map(inode.opens);
    if (count > 1) opens.set(step.client, count - 1);
    else opens.delete(step.client);
    if (inode.nlink > 0 || opens.size > 0) return [this.#with([[op.inode, { ...inode, opens }]])];
    return [this.#with([[op.inode, null]], new Set([...this.limbo, op.inode]))];
  }

  /** Phase 0: the inode has a name less (or is gone). Phase 1: the name goes. */
  #unlink(op: Op & { kind: "unlink" }, step: Step): State[] {
    if (step.phase === 1) return this.#dropName(op.dir, op.name, step);
    const errors = this.#dirErrors(op.dir);
    if (errors.length > 0) return step.refused(errors, this);
    const at = this.#at(this.inodes.get(op.dir)!, op.name);
    if (at === null) return step.refused([E.NOENT], this);
    if (at.inode === undefined) return [];
    if (isDir(at.inode)) return step.refused([E.ISDIR, E.PERM], this);
    return step.succeeded ? [this.#unlinked(at.id).#working(step.serial, at.id)] : [];
  }

  #rmdir(op: Op & { kind: "rmdir" }, step: Step): State[] {
    if (step.phase === 1) return this.#dropName(op.dir, op.name, step);
    const errors = this.#dirErrors(op.dir);
    if (errors.length > 0) return step.refused(errors, this);
    const at = this.#at(this.inodes.get(op.dir)!, op.name);
    if (at === null) return step.refused([E.NOENT], this);
    if (at.inode === undefined) return [];
    if (!isDir(at.inode)) return step.refused([E.NOTDIR], this);
    if (at.inode.entries.size > 0) return step.refused([E.NOTEMPTY, E.EXIST], this);
    return step.succeeded ? [this.#with([[at.id, null]]).#working(step.serial, at.id)] : [];
  }

  /** The name that the operation's first phase was about goes. */
  #dropName(dirId: number, name: string, step: Step): State[] {
    const id = this.work.get(step.serial);
    if (id === undefined) return step.unknown ? [this] : [];
    const dir = this.inodes.get(dirId);
    if (dir?.entries.get(name) !== id) return [];
    const entries = new Map(dir.entries);
    entries.delete(name);
    const nlink = dir.nlink - (step.op.kind === "rmdir" ? 1 : 0);
    return [this.#with([[dirId, { ...dir, entries, nlink }]]).#working(step.serial, null)];
  }

  /** Everything that speaks against a rename: the server may report whichever it meets first. */
  #renameErrors(op: Op & { kind: "rename" }): number[] {
    const errors = [...this.#dirErrors(op.dir), ...this.#dirErrors(op.newDir)];
    if (errors.length > 0) return errors;
    const source = this.#at(this.inodes.get(op.dir)!, op.name);
    const target = this.#at(this.inodes.get(op.newDir)!, op.newName);
    const noReplace = (op.flags & 1) !== 0, exchange = (op.flags & 2) !== 0;
    if (source === null) errors.push(E.NOENT);
    if (target === null && exchange) errors.push(E.NOENT);
    if (target !== null && noReplace) errors.push(E.EXIST);
    if (source === null || source.inode === undefined) return errors;
    if (isDir(source.inode) && this.#isAbove(source.id, op.newDir)) errors.push(E.INVAL);
    if (target === null || target.inode === undefined || target.id === source.id) return errors;
    if (exchange) {
      if (isDir(target.inode) && this.#isAbove(target.id, op.dir)) errors.push(E.INVAL);
      return errors;
    }
    if (isDir(source.inode) && !isDir(target.inode)) errors.push(E.NOTDIR);
    if (!isDir(source.inode) && isDir(target.inode)) errors.push(E.ISDIR);
    if (isDir(target.inode) && target.inode.entries.size > 0) errors.push(E.NOTEMPTY, E.EXIST);
    return errors;
  }

  /** Phase 0: a directory that is replaced goes. Phase 1: the names, at once. Phase 2: a file that was replaced has a name less. */
  #rename(op: Op & { kind: "rename" }, step: Step): State[] {
    const half = this.work.get(step.serial);
    if (step.phase === 2) {
      if (half === undefined) return [this];
      return this.inodes.has(half) ? [this.#unlinked(half).#working(step.serial, null)] : [];
    }
    const errors = this.#renameErrors(op);
    if (errors.length > 0) return step.refused(errors, this);
    if (!step.succeeded) return [];
    const source = this.#at(this.inodes.get(op.dir)!, op.name)!;
    const target = this.#at(this.inodes.get(op.newDir)!, op.newName);
    if (source.inode === undefined) return [];
    if (source.id === target?.id) return half === undefined ? [this] : [];
    const exchange = (op.flags & 2) !== 0;
    const replacesDirectory = target !== null && !exchange && target.inode !== undefined && isDir(target.inode);
    if (step.phase === 0) {
      return replacesDirectory ? [this.#with([[target.id, null]]).#working(step.serial, target.id)] : [this];
    }
    if (replacesDirectory || half !== undefined && half !== target?.id) return [];
    if (target !== null && target.inode === undefined && half === undefined) return [];
    const next = this.#moveNames(op, source.id, target?.id, half !== undefined);
    const replacesFile = target !== null && !exchange && half === undefined;
    return [next.#working(step.serial, replacesFile ? target.id : null)];
  }

  #moveNames(op: Op & { kind: "rename" }, id: number, targetId: number | undefined, replacesDirectory: boolean): State {
    const changes = new Map<number, Inode>();
    const edit = (at: number, change: (inode: Inode) => Partial<Inode>) => {
      const inode = changes.get(at) ?? this.inodes.get(at)!;
      changes.set(at, { ...inode, ...change(inode) });
    };
    const put = (dir: number, name: string, entry: number | undefined) =>
      edit(dir, (inode) => {
        const entries = new Map(inode.entries);
        if (entry === undefined) entries.delete(name);
        else entries.set(name, entry);
        return { entries };
      });
    const move = (what: number, from: number, to: number) => {
      if (!isDir(this.inodes.get(what)!)) return;
      edit(what, () => ({ parent: to }));
      edit(from, (inode) => ({ nlink: inode.nlink - 1 }));
      edit(to, (inode) => ({ nlink: inode.nlink + 1 }));
    };
    const exchange = (op.flags & 2) !== 0;
    put(op.dir, op.name, exchange ? targetId : undefined);
    put(op.newDir, op.newName, id);
    move(id, op.dir, op.newDir);
    if (exchange) move(targetId!, op.newDir, op.dir);
    if (replacesDirectory) edit(op.newDir, (inode) => ({ nlink: inode.nlink - 1 }));
    return this.#with([...changes]);
  }

  /** Phase 0: the inode has a name more. Phase 1: the name comes. */
  #link(op: Op & { kind: "link" }, step: Step): State[] {
    if (step.phase === 1) {
      const id = this.work.get(step.serial), dir = this.inodes.get(op.dir);
      if (id === undefined) return step.unknown ? [this] : [];
      if (dir === undefined || dir.entries.has(op.name)) return [];
      const entries = new Map(dir.entries).set(op.name, id);
      return [this.#with([[op.dir, { ...dir, entries }]]).#working(step.serial, null)];
    }
    const inode = this.inodes.get(op.inode);
    const errors = this.#dirErrors(op.dir).slice();
    if (this.limbo.has(op.inode) && !step.succeeded) return [this];
    if (inode === undefined || inode.nlink === 0) errors.push(...gone);
    else if (isDir(inode)) errors.push(E.PERM);
    if (this.inodes.get(op.dir)?.entries.has(op.name)) errors.push(E.EXIST);
    if (errors.length > 0) return step.refused(errors, this);
    if (!step.succeeded) return [];
    const next = this.#with([[op.inode, { ...inode!, nlink: inode!.nlink + 1 }]]);
    if (!step.unknown && !next.#sees(op.inode, step.success!.seen)) return [];
    return [next.#working(step.serial, op.inode)];
  }

  #read(op: Op & { kind: "read" }, step: Step): State[] {
    return this.#onFile(op.inode, step, (inode) => {
      if (step.unknown) return [this];
      const bytes = step.success!.bytes!;
      const far = op.offset + op.length > chunkBytes;
      if (inode.vague) return [this];
      if (step.phase === 0) {
        if (bytes.length !== Math.max(0, Math.min(op.length, inode.size - op.offset))) return [];
        return far || bytesMatch(inode, op.offset, bytes, inode.size) ? [this] : [];
      }
      const [from, to] = chunkPart(op.offset, bytes.length, step.phase - 1);
      if (to <= from) return [this];
      // Bytes are of a moment at which the file had them: a truncation is seen by the size, not by zeros.
      return to <= inode.size && bytesMatch(inode, from, bytes.subarray(from - op.offset, to - op.offset))
        ? [this]
        : [];
    });
  }

  #write(op: Op & { kind: "write" }, step: Step): State[] {
    return this.#onFile(op.inode, step, (inode) => {
      const end = op.offset + op.length;
      const lay = (stretches: readonly Stretch[], part: number) => {
        const [from, to] = chunkPart(op.offset, op.length, part);
        return to > from ? layStretch(stretches, { start: from, end: to, tag: op.tag, origin: op.offset }) : stretches;
      };
      const parts = chunkParts(op.offset, op.length);
      const firstIsNear = op.offset < chunkBytes;
      if (step.phase < parts) {
        const stretches = lay(inode.stretches, step.phase);
        const size = step.phase === 0 && firstIsNear ? Math.max(inode.size, Math.min(end, chunkBytes)) : inode.size;
        return [this.#with([[op.inode, { ...inode, stretches, size }]])];
      }
      const published = { ...inode, size: Math.max(inode.size, end) };
      let again = inode.stretches;
      // What something else came between is written once more, all of it.
      for (let part = 0; part < parts; part++) again = lay(again, part);
      const states = [
        this.#with([[op.inode, published]]),
        this.#with([[op.inode, { ...published, stretches: again }]]),
      ];
      return states[0].key === states[1].key ? [states[0]] : states;
    });
  }

  /** One moment within chunk 0. Beyond it the far bytes come first (phase 0), then the size and the rest (phase 1). */
  #append(op: Op & { kind: "append" }, step: Step): State[] {
    return this.#onFile(op.inode, step, (inode) => {
      if (inode.vague) return [this];
      if (!step.unknown && step.success!.offset !== inode.size) return [];
      const start = inode.size, end = start + op.length, put = { start, end, tag: op.tag, origin: start };
      if (step.unknown || step.phase === 1 || end <= chunkBytes) {
        const near = { ...put, end: Math.min(end, Math.max(start, chunkBytes)) };
        const whole = step.phase === 0 || step.unknown;
        const stretches = layStretch(inode.stretches, whole ? put : near);
        return [this.#with([[op.inode, { ...inode, size: end, stretches }]])];
      }
      const stretches = layStretch(inode.stretches, { ...put, start: Math.max(start, chunkBytes) });
      return [this.#with([[op.inode, { ...inode, stretches }]])];
    });
  }

  /** Phase 0 drops far chunks, phase 1 sets the size; who searches for data may see the first without the second. */
  #truncate(id: number, inode: Inode, size: number, phase: number, seen: Seen | undefined): State[] {
    if (phase === 0) {
      if (size >= inode.size) return [this];
      return [this.#with([[id, { ...inode, cut: Math.max(size, chunkBytes) }]])];
    }
    const next = this.#with([[id, { ...inode, size, cut: Infinity, stretches: cutStretches(inode.stretches, size) }]]);
    return seen === undefined || next.#sees(id, seen) ? [next] : [];
  }

  #readdir(op: Op & { kind: "readdir" }, step: Step): State[] {
    const errors = this.#dirErrors(op.dir);
    if (errors.length > 0) return step.refused(errors, this);
    if (step.success?.entries === undefined) return [];
    const { entries } = step.success;
    if (entries.length !== this.inodes.get(op.dir)!.entries.size) return [];
    // deno-lint-ignore no-this-alias
    let state: State = this;
    for (const [name, inode, type] of entries) {
      const at = state.#at(state.inodes.get(op.dir)!, name);
      if (at === null || at.inode !== undefined && type !== at.inode.mode >> 12) return [];
      const named = state.#identify(at.id, inode);
      if (named === null) return [];
      state = named;
    }
    return [state];
  }

  /**
   * Removes at one moment every file of the directory but those it tells. Of names that a rename is changing it may have
   * missed any, and when nobody heard its answer any are gone.
   */
  #clear(op: Op & { kind: "clear" }, step: Step): State[] {
    const errors = this.#dirErrors(op.dir);
    if (errors.length > 0) return step.refused(errors, this);
    if (!step.succeeded) return [];
    const dir = this.inodes.get(op.dir)!, left = step.success?.names ?? [];
    const sure: string[] = [], unsure: string[] = [];
    for (const [name, id] of dir.entries) {
      if (left.includes(name)) continue;
      const inode = this.inodes.get(id), loose = step.unknown || (op.loose?.includes(name) ?? false);
      const goes = inode !== undefined && !isDir(inode);
      if (goes && loose) unsure.push(name);
      else if (goes) sure.push(name);
      else if (!loose) return [];
    }
    return subsets(unsure).map((some) => [...sure, ...some])
      .filter((names) => step.unknown || names.length === step.success!.removed)
      .map((names) => this.#cleared(op.dir, names))
      .filter((state) => state !== null);
  }

  /** Null when a name's file goes with another of the names. */
  #cleared(dirId: number, names: readonly string[]): State | null {
    // deno-lint-ignore no-this-alias
    let state: State = this;
    for (const name of names) {
      const dir = state.inodes.get(dirId)!, id = dir.entries.get(name)!, entries = new Map(dir.entries);
      if (!state.inodes.has(id)) return null;
      entries.delete(name);
      state = state.#unlinked(id).#with([[dirId, { ...dir, entries }]]);
    }
    return state;
  }

  #xattr(op: Op & { kind: "setxattr" | "getxattr" | "listxattr" | "removexattr" }, step: Step): State[] {
    return this.#onInode(op.inode, step, (inode) => {
      if (op.kind === "listxattr") {
        return step.succeeded && step.success!.names!.join() === [...inode.xattrs.keys()].sort().join() ? [this] : [];
      }
      if (op.kind === "setxattr" && op.name === aclNames.access) return this.#setAccessAcl(op, inode, step);
      const value = inode.xattrs.get(op.name);
      const xattrs = new Map(inode.xattrs);
      if (op.kind === "setxattr") {
        if (op.flags === 1 && value !== undefined) return step.refused([E.EXIST], this);
        if (op.flags === 2 && value === undefined) return step.refused([E.NODATA], this);
        xattrs.set(op.name, op.value);
      } else if (op.kind === "removexattr" && op.name === aclNames.access && value === undefined) {
        return step.succeeded ? [this] : [];
      } else if (value === undefined) return step.refused([E.NODATA], this);
      else if (op.kind === "getxattr") return step.succeeded && step.success!.text === value ? [this] : [];
      else xattrs.delete(op.name);
      return step.succeeded ? [this.#with([[op.inode, { ...inode, xattrs }]])] : [];
    });
  }

  #setAccessAcl(op: Op & { kind: "setxattr" }, inode: Inode, step: Step): State[] {
    if ((inode.mode & S.IFMT) === S.IFLNK) return step.refused([E.OPNOTSUPP], this);
    if (!step.succeeded) return [];
    const acl = aclOf(op.value), xattrs = new Map(inode.xattrs);
    if (isMinimal(acl)) xattrs.delete(op.name);
    else xattrs.set(op.name, op.value);
    return [this.#with([[op.inode, { ...inode, mode: inode.mode & ~0o777 | aclPermissions(acl), xattrs }]])];
  }

  /** Far parts one by one, then chunk 0 and the size; a server's start may make the far ones happen again. */
  #allocate(op: Op & { kind: "allocate" }, step: Step): State[] {
    return this.#onFile(op.inode, step, (inode) => {
      const { keepSize, zeroKeepSize, punchHole, plain } = allocateModes;
      const end = op.offset + op.length, far = farParts(op), firstFar = op.offset < chunkBytes ? 1 : 0;
      const grows = op.mode !== keepSize && op.mode !== zeroKeepSize && op.mode !== punchHole;
      const zeroes = op.mode !== plain && op.mode !== keepSize;
      const zeroed = (stretches: readonly Stretch[], part: number): readonly Stretch[] => {
        const [start, to] = chunkPart(op.offset, op.length, part), stop = Math.min(to, inode.size);
        return start < stop && zeroes ? clearStretches(stretches, start, stop) : stretches;
      };
      if (step.phase < far) {
        return [this.#with([[op.inode, { ...inode, stretches: zeroed(inode.stretches, firstFar + step.phase) }]])];
      }
      const near = { ...inode, size: grows ? Math.max(inode.size, end) : inode.size };
      let again = firstFar === 1 ? zeroed(inode.stretches, 0) : inode.stretches;
      const states = [this.#with([[op.inode, { ...near, stretches: again }]])];
      for (let part = firstFar; part < firstFar + far; part++) again = zeroed(again, part);
      const other = this.#with([[op.inode, { ...near, stretches: again }]]);
      return other.key === states[0].key ? states : [...states, other];
    });
  }

  /** Phase 0: the size. Then each chunk on the way at its own moment: no data is skipped, and a hole has none. */
  #seek(op: Op & { kind: "seek" }, step: Step): State[] {
    return this.#onFile(op.inode, step, (inode) => {
      if (inode.vague) return [this];
      const found = step.success!.offset!;
      if (step.phase === 0) {
        if (op.offset >= inode.size) return found < 0 ? [this] : [];
        return found < 0 && op.hole || found > inode.size || found >= inode.size && !op.hole ? [] : [this];
      }
      if (op.hole) {
        if (found < 0 || found >= inode.size) return [this];
        const granuleEnd = (Math.floor(found / granuleBytes) + 1) * granuleBytes;
        return isZero(inode, found, Math.min(granuleEnd, inode.size)) ? [this] : [];
      }
      const length = (found < 0 ? seekBytesMax : found) - op.offset;
      if (length <= 0) return [this];
      const [from, to] = chunkPart(op.offset, length, step.phase - 1);
      return isZero(inode, from, Math.min(to, inode.size)) ? [this] : [];
    });
  }

  /** One moment: nothing else happens meanwhile. */
  #copy(op: Op & { kind: "copy" }, step: Step): State[] {
    return this.#onFile(op.inode, step, (source) => {
      const target = this.inodes.get(op.to);
      if (target === undefined) return [this];
      if (step.unknown || source.vague) return [this.#with([[op.to, { ...target, vague: true }]])];
      const whole = Math.max(0, Math.min(op.length, source.size - op.offset)), count = step.success!.count!;
      if (count > whole || count === 0 && whole > 0) return [];
      let stretches = clearStretches(target.stretches, op.toOffset, op.toOffset + count);
      const shift = op.toOffset - op.offset;
      for (const s of source.stretches) {
        const start = Math.max(s.start, op.offset), end = Math.min(s.end, op.offset + count);
        if (start >= end) continue;
        stretches = layStretch(stretches, {
          start: start + shift,
          end: end + shift,
          tag: s.tag,
          origin: s.origin + shift,
        });
      }
      const size = count > 0 ? Math.max(target.size, op.toOffset + count) : target.size;
      return [this.#with([[op.to, { ...target, stretches, size }]])];
    });
  }

  #withLocks(id: number, inode: Inode, locks: Locks): State {
    return describeLocks(locks) === describeLocks(inode.locks) ? this : this.#with([[id, { ...inode, locks }]]);
  }

  /**
   * Granted, or refused for a conflict. A flock that is converted is given up before the other kind is asked for (phase
   * 0). Whoever does not know whether he has a lock, or was woken while he waited, may hold it for some time.
   */
  #setlk(op: Op & { kind: "setlk" }, step: Step): State[] {
    const inode = this.inodes.get(op.inode);
    if (this.limbo.has(op.inode)) return [this];
    if (inode === undefined) return op.write === null && step.succeeded ? [this] : step.refused(gone, this);
    const { owner, flock, start, end } = op, { locks } = inode;
    const wanted: HeldLock = { client: step.client, owner, flock, write: op.write === true, start, end };
    const next = (changed: Locks) => this.#withLocks(op.inode, inode, changed);
    const given = unlocked(locks, wanted), givenUp = next(given), either = givenUp === this ? [this] : [this, givenUp];
    if (step.phase === 0 && phasesOf(op, step.observed).length > 1) return either;
    if (op.write === null) {
      if (step.unknown) return [next(loosened(locks, wanted))];
      return step.succeeded ? [givenUp] : [];
    }
    // A client that was lost may have got it before, in the session that is dead now, or after.
    const perhaps = (from: Locks, fading: boolean) => {
      return step.client < 0 ? haunted(haunted(from, wanted, false), wanted, true) : haunted(from, wanted, fading);
    };
    if (step.unknown) return [next(perhaps(loosened(locks, wanted), op.waitMs > 0))];
    if (step.succeeded) {
      if (blockers(locks, wanted).length > 0) return [];
      return [next(step.client < 0 ? perhaps(given, false) : locked(locks, wanted))];
    }
    const refused = step.refused([E.AGAIN, E.DEADLK, E.INTR], this);
    if (refused.length === 0) return [];
    if (step.observed === E.INTR) return flock ? either : [this];
    if (!mayBeBlocked(locks, wanted) || step.observed === E.DEADLK && (flock || op.waitMs === 0)) return [];
    return [flock ? givenUp : this];
  }

  #getlk(op: Op & { kind: "getlk" }, step: Step): State[] {
    return this.#onInode(op.inode, step, ({ locks }) => {
      const found = step.success?.lock;
      const wanted: HeldLock = { ...op, client: step.client, flock: false };
      if (found === undefined) return [];
      if (found === null) return blockers(locks, wanted).length === 0 ? [this] : [];
      const isIt = (one: HeldLock) => {
        if (one.owner !== found.owner || one.write !== found.write) return false;
        return step.client < 0 || found.pid === (one.client === step.client ? found.owner : 0);
      };
      const seen = { ...found, client: 0, flock: false };
      if (blockers(locks, wanted).some((one) => isIt(one) && one.start === found.start && one.end === found.end)) {
        return [this];
      }
      return clash(seen, wanted) && locks.ghosts.some((one) => one.owner === found.owner && !one.flock) ? [this] : [];
    });
  }

  #droplk(op: Op & { kind: "droplk" }, step: Step): State[] {
    const inode = this.inodes.get(op.inode);
    if (inode === undefined || !step.succeeded) return step.succeeded ? [this] : [];
    const all: HeldLock = { ...op, client: step.client, write: true, start: 0, end: Number.MAX_SAFE_INTEGER };
    const locks = step.unknown ? loosened(inode.locks, all) : unlocked(inode.locks, all);
    return [this.#withLocks(op.inode, inode, locks)];
  }

  /** Nothing is on its way any more. */
  settled(): State {
    const changes: [number, Inode][] = [];
    for (const [id, inode] of this.inodes) {
      const locks = settled(inode.locks);
      if (locks !== inode.locks) changes.push([id, { ...inode, locks }]);
    }
    return changes.length === 0 ? this : this.#with(changes);
  }

  /** What a client that died held open is released, sooner or later. */
  forgetClient(client: number): State {
    const changes: [number, Inode | null][] = [];
    const limbo = new Set(this.limbo);
    for (const [id, inode] of this.inodes) {
      const locks = orphaned(inode.locks, client);
      if (!inode.opens.has(client) && locks === inode.locks) continue;
      const opens = new Map(inode.opens);
      opens.delete(client);
      const last = inode.nlink === 0 && opens.size === 0;
      if (last) limbo.add(id);
      changes.push([id, last ? null : { ...inode, opens, locks }]);
    }
    return changes.length === 0 ? this : this.#with(changes, limbo);
  }

  /** The tree by path, with what a client can see of each inode: for comparing with a whole read. */
  tree(): TreeEntry[] {
    const out: TreeEntry[] = [];
    const visit = (path: string, id: number) => {
      const inode = this.inodes.get(id)!;
      out.push({ path, inode: id, mode: inode.mode, nlink: inode.nlink, size: isDir(inode) ? 0 : inode.size });
      for (const name of [...inode.entries.keys()].sort()) visit(`${path}/${name}`, inode.entries.get(name)!);
    };
    visit("", this.root);
    return out;
  }
}

/** All subsets of a short list. */
function subsets(list: readonly string[]): string[][] {
  return list.reduce((all, one) => [...all, ...all.map((some) => [...some, one])], [[]] as string[][]);
}

/** One line of {@linkcode State.tree}. */
export interface TreeEntry {
  path: string;
  inode: number;
  mode: number;
  nlink: number;
  size: number;
}

/** One phase as it was seen. */
class Step {
  constructor(
    readonly op: Op,
    readonly phase: number,
    readonly observed: Observed,
    readonly client: number,
    readonly serial: number,
  ) {}

  get unknown(): boolean {
    return this.observed === null;
  }

  get success(): Success | null {
    return typeof this.observed === "number" ? null : this.observed;
  }

  /** It did or may succeed. */
  get succeeded(): boolean {
    return typeof this.observed !== "number";
  }

  /** What a client may say of an inode that is gone and that it has seen: it is there without names (core/client/ghosts.ts). */
  get isGhost(): boolean {
    const { op, observed } = this;
    if (observed === null) return false;
    if (op.kind === "getxattr") return observed === E.NODATA;
    if (typeof observed === "number") return false;
    if (op.kind === "stat" || op.kind === "chmod") {
      const { inode, nlink } = observed.seen!;
      return inode === op.inode && (nlink === 0 || nlink === anyNlink);
    }
    if (op.kind === "listxattr") return observed.names!.length === 0;
    return op.kind === "readlink" || op.kind === "fsync";
  }

  /** The operation fails in `state` with one of `errnos`; an unknown outcome then changes nothing. */
  refused(errnos: readonly number[], state: State): State[] {
    if (this.observed === null) return [state];
    return typeof this.observed === "number" && errnos.includes(this.observed) ? [state] : [];
  }
}

/** How many chunks a range touches (at least one). */
function chunkParts(offset: number, length: number): number {
  return Math.floor(Math.max(offset + length - 1, offset) / chunkBytes) - Math.floor(offset / chunkBytes) + 1;
}

/** How many chunks > 0 a range touches. */
function farParts({ offset, length }: { offset: number; length: number }): number {
  return chunkParts(offset, length) - (offset < chunkBytes ? 1 : 0);
}

/** The range's part in the `index`-th chunk it touches. */
function chunkPart(offset: number, length: number, index: number): [from: number, to: number] {
  const start = (Math.floor(offset / chunkBytes) + index) * chunkBytes;
  return [Math.max(offset, start), Math.min(offset + length, start + chunkBytes)];
}

const one = [0];
/** Blocks, which a hole has at least one of. */
const granuleBytes = 4096;
/** No file of a run is longer. */
const seekBytesMax = 4 * chunkBytes;

/** For each phase of an operation the phases that come before it, as bits. */
export function phasesOf(op: Op, observed: Observed): readonly number[] {
  if (typeof observed === "number") return one;
  switch (op.kind) {
    case "lookup":
    case "truncate":
    case "create":
    case "unlink":
    case "rmdir":
    case "link":
      return [0, 1];
    case "rename":
      return [0, 1, 3];
    case "append":
      return observed !== null && (observed.offset ?? 0) + op.length > chunkBytes ? [0, 1] : one;
    case "open":
      return op.truncate ? [0, 1, 3] : one;
    case "read":
      if (op.offset + op.length <= chunkBytes || observed === null) return one;
      return new Array(1 + chunkParts(op.offset, op.length)).fill(0);
    case "write": {
      if (op.offset + op.length <= chunkBytes) return one;
      const parts = chunkParts(op.offset, op.length);
      return [...new Array(parts).fill(0), (1 << parts) - 1];
    }
    case "allocate": {
      const far = farParts(op);
      return [...new Array(far).fill(0), (1 << far) - 1];
    }
    case "seek": {
      const found = observed === null ? 0 : observed.offset!;
      if (op.hole) return found < 0 ? one : [0, 0];
      const stop = found < 0 ? seekBytesMax : found;
      return stop <= op.offset ? one : [0, ...new Array(chunkParts(op.offset, stop - op.offset)).fill(0)];
    }
    case "setlk":
      return op.flock && op.write !== null && observed !== null ? [0, 1] : one;
    default:
      return one;
  }
}

/** True when the operation may be refused because the volume is full: then it has done nothing. */
function takesSpace(op: Op): boolean {
  switch (op.kind) {
    case "create":
    case "symlink":
    case "mkdir":
    case "write":
    case "append":
    case "allocate":
      return true;
    default:
      return false;
  }
}

/** True when the answer says nothing of the volume, and nothing has changed. */
export function isWithoutEffect(op: Op, observed: Observed): boolean {
  return observed === null ? isReading(op) : op.kind === "setlk" && !op.flock && observed === E.INTR;
}

/**
 * True when an operation that leaves the state as it is where it stands now would do so later, too: it looks, it was
 * refused, or it is about what its owner holds, which others do not change.
 */
export function onlyLooks(op: Op, observed: Observed): boolean {
  return isReading(op) || typeof observed === "number" || op.kind === "setlk" || op.kind === "droplk";
}

/** True when the operation has made things possible, and nothing impossible: locks that nobody is sure of. */
export function onlyLoosens(op: Op, observed: Observed): boolean {
  return observed === null && (op.kind === "setlk" || op.kind === "droplk");
}

/** True when the operation changes nothing: a lost answer needs no thought. */
export function isReading(op: Op): boolean {
  switch (op.kind) {
    case "lookup":
    case "stat":
    case "readlink":
    case "read":
    case "readdir":
    case "getxattr":
    case "listxattr":
    case "fsync":
    case "seek":
    case "getlk":
      return true;
    default:
      return false;
  }
}
