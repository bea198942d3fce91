/**
 * A {@linkcode FileSystem} in memory with full semantics: the model that front ends are tested against and that real
 * clusters are compared with. One thread, no persistence; what it acknowledges it did.
 *
 * Permissions are the kernel's affair (default_permissions) and are not checked here.
 *
 * @module
 */

import type {
  AllocateRange,
  AttributeChange,
  Caller,
  Cleared,
  CopyRange,
  CreateOptions,
  DirectoryEntry,
  Done,
  FileSystem,
  Inspection,
  Lock,
  OpenOptions,
  Tally,
  Totals,
  Whence,
} from "../../core/client/filesystem.ts";
import { done, lockEnd, renameFlags, type VoidListener, xattrFlags } from "../../core/client/filesystem.ts";
import { E, failed, type Result } from "../../core/errno.ts";
import {
  accessAclName,
  aclPermissions,
  chmodAcl,
  decodeAcl,
  encodeAcl,
  isMinimal,
  sameName,
} from "../../core/meta/acl.ts";
import { type Attributes, inodeFlags, isDirectory, isRegular, S } from "../../core/meta/attributes.ts";
import type { Time } from "../../core/runtime.ts";
import { first, Future, type Task, wait } from "../../core/task.ts";

const blockBytes = 4096;
const linksMax = 65000;
/** Names, in bytes, that a page of a clear or a tally goes over. */
const clearBytes = 4096;
/** Largest file. */
export const memoryFileBytesMax = 2 ** 44;

/** How to make a {@linkcode MemoryFileSystem}. */
export interface MemoryOptions {
  /** Clock; the wall clock by default. */
  now?: () => Time;
  capacityBytes?: number;
  inodesMax?: number;
  readOnly?: boolean;
  /** Permissions of the root directory, 0755 by default. */
  rootMode?: number;
  /** Called at the start of every operation with its name: a future to wait for, or null. */
  pause?: (operation: string) => Future<void> | null;
}

interface Entry {
  name: Uint8Array;
  inode: number;
  type: number;
  cookie: number;
}

interface HeldLock extends Lock {
  owner: string;
}

class Node {
  readonly entries = new Map<string, Entry>();
  /** Entries by cookie - `cookieBase`, null where one was removed: cookies stay valid whatever happens. */
  list: (Entry | null)[] = [];
  cookieBase = 3;
  target: Uint8Array | null = null;
  readonly xattrs = new Map<string, Uint8Array>();
  readonly blocks = new Map<number, Uint8Array>();
  opens = 0;
  locks: HeldLock[] = [];
  /** Settled, and emptied, whenever a lock goes. */
  waiters: Future<void>[] = [];

  constructor(public a: Attributes) {}
}

const key = (name: Uint8Array) => String.fromCharCode(...name);
const bytesOf = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));
const ownerOf = (lock: { flock: boolean; ownerLow: number; ownerHigh: number }) =>
  `${lock.flock ? "f" : "p"}${lock.ownerHigh}:${lock.ownerLow}`;

function setFlag(a: Attributes, flag: number, on: boolean): void {
  a.flags = on ? a.flags | flag : a.flags & ~flag;
}

function setMode(node: Node, mode: number): void {
  node.a.mode = (node.a.mode & S.IFMT) | (mode & 0o7777);
  const acl = decodeAcl(node.xattrs.get(key(accessAclName)) ?? new Uint8Array(0));
  if (!failed(acl)) node.xattrs.set(key(accessAclName), encodeAcl(chmodAcl(acl, mode)));
}

/** The access ACL goes with the mode, and is not kept when the mode says it all. errno. */
function setAccessAcl(node: Node, value: Uint8Array, killSetgid: boolean): number {
  const acl = (node.a.mode & S.IFMT) === S.IFLNK ? E.OPNOTSUPP : decodeAcl(value);
  if (failed(acl)) return acl;
  if (acl.length > 0) node.a.mode = node.a.mode & ~0o777 | aclPermissions(acl);
  if (killSetgid) node.a.mode &= ~S.ISGID;
  node.a.flags = isMinimal(acl) ? node.a.flags & ~inodeFlags.accessAcl : node.a.flags | inodeFlags.accessAcl;
  if (isMinimal(acl)) node.xattrs.delete(key(accessAclName));
  else node.xattrs.set(key(accessAclName), value.slice());
  return 0;
}

/** See the module's comment. */
export class MemoryFileSystem implements FileSystem {
  /** Directories that are open, and what the front end has forgotten. */
  readonly held: number[] = [];
  readonly forgotten: number[] = [];
  readonly root = 7 * 2 ** 41 + 2;
  readonly readOnly: boolean;
  /** What the kernel may keep, and whom to tell when it may not any more. */
  validForMs = 0;
  listeners: VoidListener[] = [];
  readonly #nodes = new Map<number, Node>();
  readonly #now: () => Time;
  readonly #capacityBlocks: number;
  readonly #inodesMax: number;
  readonly #pause: (operation: string) => Future<void> | null;
  /** fcntl locks that wait, by owner, for finding deadlocks. */
  readonly #waiting = new Map<string, { inode: number; lock: Lock }>();
  #nextInode = this.root + 1;
  #usedBlocks = 0;
  #last: Time = { sec: 0, nsec: 0 };

  constructor(options: MemoryOptions = {}) {
    this.readOnly = options.readOnly ?? false;
    this.#now = options.now ?? wallTime;
    this.#capacityBlocks = Math.floor((options.capacityBytes ?? 2 ** 30) / blockBytes);
    this.#inodesMax = options.inodesMax ?? 1e6;
    this.#pause = options.pause ?? (() => null);
    const root = this.#make(this.root, S.IFDIR | (options.rootMode ?? 0o755), { uid: 0, gid: 0 });
    root.a.nlink = 2;
    root.a.parent = this.root;
  }

  known(inode: number): Attributes | null {
    const node = this.validForMs > 0 ? this.#nodes.get(inode) : undefined;
    return node === undefined ? null : { ...node.a };
  }

  openKnown(inode: number): Attributes | null {
    const node = this.validForMs > 0 ? this.#nodes.get(inode) : undefined;
    if (node === undefined) return null;
    node.opens++;
    return this.#out(node);
  }

  knownEntry(dir: number, name: Uint8Array): Result<Attributes> | null {
    const parent = this.validForMs > 0 ? this.#directory(dir) : null;
    if (parent === null || typeof parent === "number") return null;
    const entry = parent.entries.get(key(name));
    return entry === undefined ? E.NOENT : this.#out(this.#nodes.get(entry.inode)!);
  }

  validityMs(): number {
    return this.validForMs;
  }

  nameValidityMs(): number {
    return this.validForMs;
  }

  watch(listener: VoidListener): void {
    this.listeners.push(listener);
  }

  /** Opens registered and not released, over all files. */
  get opens(): number {
    return this.#nodes.values().reduce((sum, node) => sum + node.opens, 0);
  }

  /** Locks held, over all files. */
  get locks(): number {
    return this.#nodes.values().reduce((sum, node) => sum + node.locks.length, 0);
  }

  /** Inodes that exist, the root and orphans among them. */
  get inodes(): number {
    return this.#nodes.size;
  }

  *#enter(operation: string): Task<void> {
    const pause = this.#pause(operation);
    if (pause !== null) yield* wait(pause);
  }

  /** A time later than every earlier one. */
  #tick(): Time {
    const now = this.#now(), last = this.#last;
    const later = now.sec > last.sec || (now.sec === last.sec && now.nsec > last.nsec);
    if (later) return this.#last = now;
    const nsec = last.nsec + 1;
    return this.#last = nsec < 1e9 ? { sec: last.sec, nsec } : { sec: last.sec + 1, nsec: 0 };
  }

  #make(inode: number, mode: number, owner: { uid: number; gid: number }): Node {
    const now = this.#tick();
    const node = new Node({
      inode,
      mode,
      nlink: 1,
      uid: owner.uid,
      gid: owner.gid,
      rdev: 0,
      size: isDirectory(mode) ? 4096 : 0,
      blocks: 0,
      atime: now,
      mtime: now,
      ctime: now,
      btime: now,
      version: 1,
      gen: 0,
      volume: 1,
      parent: this.root,
      entries: 0,
      flags: 0,
    });
    this.#nodes.set(inode, node);
    return node;
  }

  #out(node: Node): Attributes {
    return { ...node.a, blocks: node.blocks.size * (blockBytes / 512) };
  }

  #changed(node: Node, data: boolean): void {
    node.a.ctime = this.#tick();
    if (data) node.a.mtime = node.a.ctime;
    node.a.version++;
  }

  #node(inode: number): Result<Node> {
    return this.#nodes.get(inode) ?? E.STALE;
  }

  #directory(inode: number): Result<Node> {
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    return isDirectory(node.a.mode) ? node : E.NOTDIR;
  }

  #file(inode: number): Result<Node> {
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    if (isDirectory(node.a.mode)) return E.ISDIR;
    return isRegular(node.a.mode) ? node : E.INVAL;
  }

  #insert(dir: Node, name: Uint8Array, node: Node): void {
    const entry = {
      name: name.slice(),
      inode: node.a.inode,
      type: (node.a.mode & S.IFMT) >> 12,
      cookie: dir.cookieBase + dir.list.length,
    };
    dir.entries.set(key(name), entry);
    dir.list.push(entry);
    dir.a.entries = dir.entries.size;
    node.a.parent = dir.a.inode;
    if (isDirectory(node.a.mode)) dir.a.nlink++;
    this.#changed(dir, true);
  }

  #remove(dir: Node, entry: Entry): void {
    dir.entries.delete(key(entry.name));
    dir.list[entry.cookie - dir.cookieBase] = null;
    if (dir.entries.size === 0) {
      dir.cookieBase += dir.list.length;
      dir.list = [];
    }
    dir.a.entries = dir.entries.size;
    if (entry.type === S.IFDIR >> 12) dir.a.nlink--;
    this.#changed(dir, true);
  }

  #dropIfUnused(node: Node): void {
    if (node.a.nlink > 0 || node.opens > 0) return;
    this.#usedBlocks -= node.blocks.size;
    this.#nodes.delete(node.a.inode);
  }

  *lookup(dir: number, name: Uint8Array): Task<Result<Attributes>> {
    yield* this.#enter("lookup");
    const parent = this.#directory(dir);
    if (typeof parent === "number") return parent;
    if (name.length > 255) return E.NAMETOOLONG;
    const entry = parent.entries.get(key(name));
    return entry === undefined ? E.NOENT : this.#out(this.#nodes.get(entry.inode)!);
  }

  *parent(dir: number): Task<Result<Attributes>> {
    yield* this.#enter("parent");
    const node = this.#directory(dir);
    if (typeof node === "number") return node;
    const parent = this.#node(node.a.parent);
    return typeof parent === "number" ? parent : this.#out(parent);
  }

  *getAttributes(inode: number): Task<Result<Attributes>> {
    yield* this.#enter("getAttributes");
    const node = this.#node(inode);
    return typeof node === "number" ? node : this.#out(node);
  }

  *setAttributes(inode: number, change: AttributeChange): Task<Result<Attributes>> {
    yield* this.#enter("setAttributes");
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    const { a } = node;
    if (change.size !== undefined) {
      if (isDirectory(a.mode)) return E.ISDIR;
      if (!isRegular(a.mode)) return E.INVAL;
      const errno = this.#truncate(node, change.size);
      if (errno !== 0) return errno;
    }
    if (change.killSetId) this.#killSetId(node);
    if (change.mode !== undefined) setMode(node, change.mode);
    if (change.uid !== undefined) a.uid = change.uid;
    if (change.immutable !== undefined) setFlag(a, inodeFlags.immutable, change.immutable);
    if (change.appendOnly !== undefined) setFlag(a, inodeFlags.appendOnly, change.appendOnly);
    if (change.gid !== undefined) a.gid = change.gid;
    const now = this.#tick();
    if (change.size !== undefined) a.mtime = now;
    if (change.atime !== undefined) a.atime = change.atime === "now" ? now : change.atime;
    if (change.mtime !== undefined) a.mtime = change.mtime === "now" ? now : change.mtime;
    a.ctime = change.ctime ?? now;
    a.version++;
    return this.#out(node);
  }

  /** setuid goes, and setgid where the group may execute (without that it means mandatory locking). */
  #killSetId(node: Node): void {
    if (!isRegular(node.a.mode)) return;
    const group = (node.a.mode & S.IXGRP) !== 0 ? S.ISGID : 0;
    node.a.mode &= ~(S.ISUID | group);
  }

  #inherit(dir: Node, mode: number, caller: Caller): { uid: number; gid: number; mode: number } {
    let bits = mode & ~(caller.umask & 0o777);
    if ((dir.a.mode & S.ISGID) === 0) return { uid: caller.uid, gid: caller.gid, mode: bits };
    const { gid } = dir.a;
    const member = caller.uid === 0 || caller.gid === gid || (caller.groups?.includes(gid) ?? false);
    if (isDirectory(mode)) bits |= S.ISGID;
    else if ((bits & S.ISGID) !== 0 && (bits & S.IXGRP) !== 0 && !member) bits &= ~S.ISGID;
    return { uid: caller.uid, gid, mode: bits };
  }

  #newNode(dir: Node, mode: number, caller: Caller): Result<Node> {
    if ((dir.a.flags & inodeFlags.sealed) !== 0) return E.NOENT;
    if (this.#nodes.size >= this.#inodesMax) return E.NOSPC;
    const owner = this.#inherit(dir, mode, caller);
    return this.#make(this.#nextInode++, owner.mode, owner);
  }

  *create(dir: number, name: Uint8Array, options: CreateOptions, caller: Caller): Task<Result<Attributes>> {
    yield* this.#enter("create");
    const parent = this.#directory(dir);
    if (typeof parent === "number") return parent;
    if (name.length > 255) return E.NAMETOOLONG;
    const existing = parent.entries.get(key(name));
    if (existing !== undefined) {
      const node = this.#nodes.get(existing.inode)!;
      if (options.exclusive || !isRegular(node.a.mode)) return E.EXIST;
      if (options.truncate) {
        if (options.killSetId) this.#killSetId(node);
        this.#truncate(node, 0);
        this.#changed(node, true);
      }
      if (options.open) node.opens++;
      return this.#out(node);
    }
    const symlink = (options.mode & S.IFMT) === S.IFLNK;
    const node = this.#newNode(parent, options.mode, symlink ? { ...caller, umask: 0 } : caller);
    if (typeof node === "number") return node;
    node.a.rdev = options.rdev ?? 0;
    if (symlink) {
      node.target = options.target?.slice() ?? new Uint8Array();
      node.a.size = node.target.length;
    }
    if (options.open) node.opens++;
    this.#insert(parent, name, node);
    return this.#out(node);
  }

  *createUnnamed(
    dir: number,
    options: { mode: number; linkable: boolean },
    caller: Caller,
  ): Task<Result<Attributes>> {
    yield* this.#enter("createUnnamed");
    const parent = this.#directory(dir);
    if (typeof parent === "number") return parent;
    const node = this.#newNode(parent, S.IFREG | options.mode, caller);
    if (typeof node === "number") return node;
    node.a.nlink = 0;
    node.a.flags = options.linkable ? inodeFlags.linkable : 0;
    node.opens++;
    return this.#out(node);
  }

  *makeDirectory(dir: number, name: Uint8Array, mode: number, caller: Caller): Task<Result<Attributes>> {
    yield* this.#enter("makeDirectory");
    const parent = this.#directory(dir);
    if (typeof parent === "number") return parent;
    if (name.length > 255) return E.NAMETOOLONG;
    if (parent.entries.has(key(name))) return E.EXIST;
    const node = this.#newNode(parent, S.IFDIR | (mode & 0o7777), caller);
    if (typeof node === "number") return node;
    node.a.nlink = 2;
    this.#insert(parent, name, node);
    return this.#out(node);
  }

  *unlink(dir: number, name: Uint8Array): Task<Done> {
    yield* this.#enter("unlink");
    const parent = this.#directory(dir);
    if (typeof parent === "number") return parent;
    const entry = parent.entries.get(key(name));
    if (entry === undefined) return E.NOENT;
    if (entry.type === S.IFDIR >> 12) return E.ISDIR;
    const node = this.#nodes.get(entry.inode)!;
    this.#remove(parent, entry);
    this.#unlinked(node);
    return done;
  }

  #unlinked(node: Node): void {
    node.a.nlink--;
    this.#changed(node, false);
    this.#dropIfUnused(node);
  }

  *removeDirectory(dir: number, name: Uint8Array): Task<Done> {
    yield* this.#enter("removeDirectory");
    const parent = this.#directory(dir);
    if (typeof parent === "number") return parent;
    const entry = parent.entries.get(key(name));
    if (entry === undefined) return E.NOENT;
    if (entry.type !== S.IFDIR >> 12) return E.NOTDIR;
    const node = this.#nodes.get(entry.inode)!;
    if (node.entries.size > 0) return E.NOTEMPTY;
    this.#remove(parent, entry);
    this.#removedDirectory(node);
    return done;
  }

  #removedDirectory(node: Node): void {
    node.a.nlink = 0;
    node.a.flags |= inodeFlags.sealed;
    this.#dropIfUnused(node);
  }

  /** True when `dir` is `ancestor` or lies below it. */
  #within(dir: Node, ancestor: Node): boolean {
    for (let at = dir;; at = this.#nodes.get(at.a.parent)!) {
      if (at === ancestor) return true;
      if (at.a.inode === this.root || at === undefined) return false;
    }
  }

  *rename(dir: number, name: Uint8Array, newDir: number, newName: Uint8Array, flags: number): Task<Done> {
    yield* this.#enter("rename");
    const from = this.#directory(dir), to = this.#directory(newDir);
    if (typeof from === "number") return from;
    if (typeof to === "number") return to;
    if (newName.length > 255) return E.NAMETOOLONG;
    const entry = from.entries.get(key(name)), target = to.entries.get(key(newName));
    if (entry === undefined) return E.NOENT;
    if ((to.a.flags & inodeFlags.sealed) !== 0) return E.NOENT;
    const node = this.#nodes.get(entry.inode)!;
    const victim = target === undefined ? null : this.#nodes.get(target.inode)!;
    const exchange = (flags & renameFlags.exchange) !== 0;
    if (exchange && victim === null) return E.NOENT;
    if ((flags & renameFlags.noReplace) !== 0 && victim !== null) return E.EXIST;
    if (victim === node) return done;
    if (isDirectory(node.a.mode) && this.#within(to, node)) return E.INVAL;
    if (exchange) {
      if (isDirectory(victim!.a.mode) && this.#within(from, victim!)) return E.INVAL;
    } else if (victim !== null) {
      const errno = replaceable(node, victim);
      if (errno !== 0) return errno;
    }
    this.#remove(from, entry);
    if (target !== undefined) this.#remove(to, target);
    this.#insert(to, newName, node);
    if (exchange) this.#insert(from, name, victim!);
    this.#changed(node, false);
    if (victim === null) return done;
    if (exchange) this.#changed(victim, false);
    else if (isDirectory(victim.a.mode)) this.#removedDirectory(victim);
    else this.#unlinked(victim);
    return done;
  }

  *link(inode: number, dir: number, name: Uint8Array): Task<Result<Attributes>> {
    yield* this.#enter("link");
    const node = this.#node(inode), parent = this.#directory(dir);
    if (typeof parent === "number") return parent;
    if (typeof node === "number") return node;
    if (name.length > 255) return E.NAMETOOLONG;
    if (isDirectory(node.a.mode)) return E.PERM;
    if (node.a.nlink === 0 && (node.a.flags & inodeFlags.linkable) === 0) return E.NOENT;
    if ((parent.a.flags & inodeFlags.sealed) !== 0) return E.NOENT;
    if (parent.entries.has(key(name))) return E.EXIST;
    if (node.a.nlink >= linksMax) return E.MLINK;
    node.a.nlink++;
    node.a.flags &= ~inodeFlags.linkable;
    this.#insert(parent, name, node);
    this.#changed(node, false);
    return this.#out(node);
  }

  *readLink(inode: number): Task<Result<Uint8Array>> {
    yield* this.#enter("readLink");
    const node = this.#node(inode);
    return typeof node === "number" ? node : node.target ?? E.INVAL;
  }

  *open(inode: number, options: OpenOptions): Task<Result<Attributes>> {
    yield* this.#enter("open");
    const node = this.#file(inode);
    if (typeof node === "number") return node;
    node.opens++;
    if (options.truncate) {
      if (options.killSetId) this.#killSetId(node);
      this.#truncate(node, 0);
      this.#changed(node, true);
    }
    return this.#out(node);
  }

  *release(inode: number): Task<Done> {
    yield* this.#enter("release");
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    if (node.opens === 0) throw new Error(`release of inode ${inode}, which is not open`);
    node.opens--;
    this.#dropIfUnused(node);
    return done;
  }

  *read(inode: number, offset: number, into: Uint8Array): Task<Result<{ count: number }>> {
    yield* this.#enter("read");
    const node = this.#file(inode);
    if (typeof node === "number") return node;
    const count = Math.max(0, Math.min(into.length, node.a.size - offset));
    this.#copyOut(node, offset, into.subarray(0, count));
    return { count };
  }

  #copyOut(node: Node, offset: number, into: Uint8Array): void {
    for (let at = 0; at < into.length;) {
      const within = (offset + at) % blockBytes, length = Math.min(blockBytes - within, into.length - at);
      const block = node.blocks.get(Math.floor((offset + at) / blockBytes));
      if (block === undefined) into.fill(0, at, at + length);
      else into.set(block.subarray(within, within + length), at);
      at += length;
    }
  }

  /** errno, or 0 and the blocks of [offset, offset + length) exist. */
  #claim(node: Node, offset: number, length: number): number {
    const start = Math.floor(offset / blockBytes), end = Math.ceil((offset + length) / blockBytes);
    if (offset + length > memoryFileBytesMax) return E.FBIG;
    if (end - start - node.blocks.size > this.#capacityBlocks - this.#usedBlocks) return E.NOSPC;
    const missing: number[] = [];
    for (let block = start; block < end; block++) if (!node.blocks.has(block)) missing.push(block);
    if (missing.length > this.#capacityBlocks - this.#usedBlocks) return E.NOSPC;
    for (const block of missing) node.blocks.set(block, new Uint8Array(blockBytes));
    this.#usedBlocks += missing.length;
    return 0;
  }

  #copyIn(node: Node, offset: number, data: Uint8Array): void {
    for (let at = 0; at < data.length;) {
      const within = (offset + at) % blockBytes, length = Math.min(blockBytes - within, data.length - at);
      node.blocks.get(Math.floor((offset + at) / blockBytes))!.set(data.subarray(at, at + length), within);
      at += length;
    }
  }

  #write(node: Node, offset: number, data: Uint8Array, killSetId: boolean): number {
    if (data.length === 0) return 0;
    const errno = this.#claim(node, offset, data.length);
    if (errno !== 0) return errno;
    this.#copyIn(node, offset, data);
    node.a.size = Math.max(node.a.size, offset + data.length);
    if (killSetId) this.#killSetId(node);
    this.#changed(node, true);
    return 0;
  }

  *write(inode: number, offset: number, data: Uint8Array, options: { killSetId: boolean }): Task<Done> {
    yield* this.#enter("write");
    const node = this.#file(inode);
    if (typeof node === "number") return node;
    const errno = this.#write(node, offset, data, options.killSetId);
    return errno === 0 ? done : errno;
  }

  *append(inode: number, data: Uint8Array, options: { killSetId: boolean }): Task<Result<{ offset: number }>> {
    yield* this.#enter("append");
    const node = this.#file(inode);
    if (typeof node === "number") return node;
    const offset = node.a.size;
    const errno = this.#write(node, offset, data, options.killSetId);
    return errno === 0 ? { offset } : errno;
  }

  /** Zeroes [offset, end) where blocks exist; whole blocks go when `free`. */
  #zero(node: Node, offset: number, end: number, free: boolean): void {
    for (const [number, block] of [...node.blocks]) {
      const start = number * blockBytes;
      if (start >= end || start + blockBytes <= offset) continue;
      if (free && start >= offset && start + blockBytes <= end) {
        node.blocks.delete(number);
        this.#usedBlocks--;
      } else block.fill(0, Math.max(0, offset - start), Math.min(blockBytes, end - start));
    }
  }

  #truncate(node: Node, size: number): number {
    if (size > memoryFileBytesMax) return E.FBIG;
    if (size < node.a.size) {
      this.#zero(node, size, Infinity, true);
      node.a.gen++;
    }
    node.a.size = size;
    return 0;
  }

  *allocate(inode: number, { mode, offset, length, killSetId }: AllocateRange): Task<Done> {
    yield* this.#enter("allocate");
    const node = this.#file(inode);
    if (typeof node === "number") return node;
    if (length <= 0) return E.INVAL;
    const keepSize = (mode & 1) !== 0, punch = (mode & 2) !== 0, zero = (mode & 0x10) !== 0;
    if ((mode & ~0x13) !== 0 || (punch && (zero || !keepSize))) return E.OPNOTSUPP;
    if (punch) this.#zero(node, offset, offset + length, true);
    else {
      const errno = this.#claim(node, offset, length);
      if (errno !== 0) return errno;
      if (zero) this.#zero(node, offset, offset + length, false);
      if (!keepSize) node.a.size = Math.max(node.a.size, offset + length);
    }
    if (killSetId) this.#killSetId(node);
    this.#changed(node, true);
    return done;
  }

  *copyRange({ from, fromOffset, to, toOffset, length, killSetId }: CopyRange) {
    yield* this.#enter("copyRange");
    const source = this.#file(from), target = this.#file(to);
    if (typeof source === "number") return source;
    if (typeof target === "number") return target;
    const count = Math.max(0, Math.min(length, source.a.size - fromOffset));
    if (source === target && fromOffset < toOffset + count && toOffset < fromOffset + count) return E.INVAL;
    const data = new Uint8Array(count);
    this.#copyOut(source, fromOffset, data);
    const errno = this.#write(target, toOffset, data, killSetId);
    return errno === 0 ? { count } : errno;
  }

  *seek(inode: number, offset: number, whence: Whence): Task<Result<{ offset: number }>> {
    yield* this.#enter("seek");
    const node = this.#file(inode);
    if (typeof node === "number") return node;
    if (offset >= node.a.size) return E.NXIO;
    let block = Math.floor(offset / blockBytes);
    if (whence === "hole") {
      while (node.blocks.has(block)) block++;
      return { offset: Math.min(Math.max(offset, block * blockBytes), node.a.size) };
    }
    const next = node.blocks.keys().reduce((best, at) => at >= block && at < best ? at : best, Infinity);
    const found = Math.max(offset, next * blockBytes);
    return found < node.a.size ? { offset: found } : E.NXIO;
  }

  *sync(inode: number): Task<Done> {
    yield* this.#enter("sync");
    const node = this.#node(inode);
    return typeof node === "number" ? node : done;
  }

  *readDirectory(
    dir: number,
    cookie: number,
    limitBytes: number,
    { plus }: { plus: boolean },
  ): Task<Result<DirectoryEntry[]>> {
    yield* this.#enter("readDirectory");
    const node = this.#directory(dir);
    if (typeof node === "number") return node;
    const page: DirectoryEntry[] = [];
    let bytes = 0;
    for (let i = Math.max(0, cookie + 1 - node.cookieBase); i < node.list.length && bytes < limitBytes; i++) {
      const entry = node.list[i];
      if (entry === null) continue;
      const attributes = plus ? this.#out(this.#nodes.get(entry.inode)!) : null;
      page.push({ ...entry, attributes });
      bytes += entry.name.length + (plus ? 152 : 24);
    }
    return page;
  }

  *clearDirectory(dir: number, cookie: number, owner: number | null): Task<Result<Cleared>> {
    yield* this.#enter("clearDirectory");
    const page = yield* this.readDirectory(dir, cookie, clearBytes, { plus: true });
    if (typeof page === "number") return page;
    const cleared: Cleared = { removed: 0, left: [], cookie: page.at(-1)?.cookie ?? cookie, end: page.length === 0 };
    for (const { name, inode, type, attributes } of page) {
      const goes = type !== S.IFDIR >>> 12 && (owner === null || attributes!.uid === owner);
      if (goes && typeof (yield* this.unlink(dir, name)) !== "number") cleared.removed++;
      else cleared.left.push({ name, inode, type });
    }
    return cleared;
  }

  *tallyDirectory(dir: number, cookie: number): Task<Result<Tally>> {
    yield* this.#enter("tallyDirectory");
    const page = yield* this.readDirectory(dir, cookie, clearBytes, { plus: true });
    if (typeof page === "number") return page;
    const directory = this.#out(this.#nodes.get(dir)!), end = page.length === 0;
    const tally: Tally = {
      directory,
      files: 0,
      bytes: 0,
      blocks: 0,
      dirs: [],
      linked: [],
      cookie: page.at(-1)?.cookie ?? cookie,
      end,
    };
    for (const { name, inode, type, attributes } of page) {
      const { nlink, size, blocks } = attributes!;
      if (type === S.IFDIR >>> 12) tally.dirs.push({ name, inode });
      else if (nlink > 1) tally.linked.push({ inode, nlink, bytes: size, blocks });
      else {
        tally.files++;
        tally.bytes += size;
        tally.blocks += blocks;
      }
    }
    return tally;
  }

  *inspect(_inode: number): Task<Result<Inspection>> {
    yield* this.#enter("inspect");
    return E.OPNOTSUPP;
  }

  hold(dir: number): void {
    this.held.push(dir);
  }

  letGo(dir: number): void {
    this.held.splice(this.held.indexOf(dir), 1);
  }

  forget(inode: number): void {
    this.forgotten.push(inode);
  }

  *getExtendedAttribute(inode: number, name: Uint8Array): Task<Result<Uint8Array>> {
    yield* this.#enter("getExtendedAttribute");
    const node = this.#node(inode);
    return typeof node === "number" ? node : node.xattrs.get(key(name)) ?? E.NODATA;
  }

  *setExtendedAttribute(inode: number, name: Uint8Array, value: Uint8Array, flags: number): Task<Done> {
    yield* this.#enter("setExtendedAttribute");
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    const exists = node.xattrs.has(key(name));
    if ((flags & 1) !== 0 && exists) return E.EXIST;
    if ((flags & 2) !== 0 && !exists) return E.NODATA;
    if (value.length > 65536) return E.NOSPC;
    const acl = sameName(name, accessAclName),
      errno = acl ? setAccessAcl(node, value, (flags & xattrFlags.killSetgid) !== 0) : 0;
    if (errno !== 0) return errno;
    if (!acl) node.xattrs.set(key(name), value.slice());
    this.#changed(node, false);
    return done;
  }

  *listExtendedAttributes(inode: number): Task<Result<Uint8Array>> {
    yield* this.#enter("listExtendedAttributes");
    const node = this.#node(inode);
    return typeof node === "number" ? node : bytesOf([...node.xattrs.keys()].map((name) => name + "\0").join(""));
  }

  *removeExtendedAttribute(inode: number, name: Uint8Array): Task<Done> {
    yield* this.#enter("removeExtendedAttribute");
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    if (!node.xattrs.delete(key(name))) return sameName(name, accessAclName) ? done : E.NODATA;
    this.#changed(node, false);
    return done;
  }

  *testLock(inode: number, lock: Lock): Task<Result<Lock>> {
    yield* this.#enter("testLock");
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    return conflicts(node, lock)[0] ?? { ...lock, type: "unlock" };
  }

  *setLock(inode: number, lock: Lock, block: boolean, cancel: Future<void>): Task<Done> {
    yield* this.#enter("setLock");
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    const owner = ownerOf(lock);
    // As in Linux, changing a flock gives the old one up first.
    if (lock.flock || lock.type === "unlock") this.#cut(node, owner, lock.start, lock.end);
    if (lock.type === "unlock") return done;
    while (conflicts(node, lock).length > 0) {
      if (!block) return E.AGAIN;
      if (!lock.flock && this.#deadlock(node, lock)) return E.DEADLK;
      const changed = new Future<void>();
      node.waiters.push(changed);
      if (!lock.flock) this.#waiting.set(owner, { inode, lock });
      yield* wait(first(changed, cancel));
      this.#waiting.delete(owner);
      if (cancel.settled) return E.INTR;
    }
    this.#cut(node, owner, lock.start, lock.end);
    const touches = (held: HeldLock) =>
      held.owner === owner && held.type === lock.type && held.end >= lock.start - 1n && held.start <= lock.end + 1n;
    const own = [...node.locks.filter(touches), lock];
    const start = own.reduce((least, one) => one.start < least ? one.start : least, lock.start);
    const end = own.reduce((most, one) => one.end > most ? one.end : most, lock.end);
    node.locks = [...node.locks.filter((held) => !touches(held)), { ...lock, owner, start, end }];
    return done;
  }

  /** Takes [start, end] out of an owner's locks and wakes who waits. */
  #cut(node: Node, owner: string, start: bigint, end: bigint): void {
    const kept: HeldLock[] = [];
    for (const lock of node.locks) {
      if (lock.owner !== owner || lock.end < start || lock.start > end) {
        kept.push(lock);
        continue;
      }
      if (lock.start < start) kept.push({ ...lock, end: start - 1n });
      if (lock.end > end) kept.push({ ...lock, start: end + 1n });
    }
    node.locks = kept;
    const waiters = node.waiters;
    node.waiters = [];
    for (const waiter of waiters) waiter.resolve();
  }

  /** True when someone who blocks `lock` waits, through others or directly, for its owner. */
  #deadlock(node: Node, lock: Lock): boolean {
    const asker = ownerOf(lock), seen = new Set<string>();
    const queue = conflicts(node, lock).map((held) => held.owner);
    for (let owner = queue.pop(); owner !== undefined; owner = queue.pop()) {
      if (owner === asker) return true;
      if (seen.has(owner)) continue;
      seen.add(owner);
      const waiting = this.#waiting.get(owner);
      const on = waiting === undefined ? undefined : this.#nodes.get(waiting.inode);
      if (on !== undefined) queue.push(...conflicts(on, waiting!.lock).map((held) => held.owner));
    }
    return false;
  }

  *dropLocks(inode: number, flock: boolean, ownerLow: number, ownerHigh: number): Task<Done> {
    yield* this.#enter("dropLocks");
    const node = this.#node(inode);
    if (typeof node === "number") return node;
    this.#cut(node, ownerOf({ flock, ownerLow, ownerHigh }), 0n, lockEnd);
    return done;
  }

  *statistics(): Task<Result<Totals>> {
    yield* this.#enter("statistics");
    const sizeBytes = this.#capacityBlocks * blockBytes, usedBytes = this.#usedBlocks * blockBytes;
    return {
      sizeBytes,
      usedBytes,
      availableBytes: sizeBytes - usedBytes,
      inodes: this.#nodes.size,
      inodesFree: this.#inodesMax - this.#nodes.size,
    };
  }
}

function wallTime(): Time {
  const ms = Date.now();
  return { sec: Math.floor(ms / 1000), nsec: (ms % 1000) * 1e6 };
}

/** errno of a rename of `node` over `victim`. */
function replaceable(node: Node, victim: Node): number {
  if (!isDirectory(node.a.mode)) return isDirectory(victim.a.mode) ? E.ISDIR : 0;
  if (!isDirectory(victim.a.mode)) return E.NOTDIR;
  return victim.entries.size > 0 ? E.NOTEMPTY : 0;
}

/** Locks of others, of the same kind, that overlap `lock` and do not go with it; lowest start first. */
function conflicts(node: Node, lock: Lock): HeldLock[] {
  const owner = ownerOf(lock);
  const found = node.locks.filter((held) =>
    held.flock === lock.flock && held.owner !== owner && held.start <= lock.end && held.end >= lock.start &&
    (held.type === "write" || lock.type === "write")
  );
  return found.sort((a, b) => a.start < b.start ? -1 : 1);
}
