/**
 * One mount: turns FUSE requests into operations of a {@linkcode FileSystem} and their outcomes into replies. It knows
 * the protocol and the kernel's expectations, not how bytes travel (ffi/fuse) nor where files are.
 *
 * It keeps only what the kernel will ask about: open files, owners of locks, requests under way. There is no inode
 * table: nodeid = inode number, except that nodeid 1 is the volume's root. What the kernel may keep while leases last is
 * the affair of kernel_cache.ts; file data stays over an open only if the file's version is the same.
 *
 * @module
 */

import type { AttributeChange, Caller, FileSystem, Lock, Writing } from "../client/filesystem.ts";
import { lockEnd, renameFlags, xattrFlags } from "../client/filesystem.ts";
import { E, failed, type Result } from "../errno.ts";
import { accessAclName, capabilityName, defaultAclName, sameName } from "../meta/acl.ts";
import { type Attributes, inodeFlags, isRegular, S } from "../meta/attributes.ts";
import type { Meter } from "../metrics/meter.ts";
import { RecentMap } from "../recent_map.ts";
import { Future, type Task } from "../task.ts";
import { decodeFileFlags, encodeFileFlags, fileFlagsBytes, setsFileFlags } from "./file_flags.ts";
import { KernelCache, type KernelNotifier } from "./kernel_cache.ts";
import {
  attrOut,
  batchForgetIn,
  copyFileRangeIn,
  createIn,
  type Dirent,
  direntBytes,
  encodeAbsent,
  encodeAttrOut,
  encodeDirent,
  encodeEntry,
  encodeOpen,
  encodeStatfs,
  encodeStatx,
  entryOut,
  fallocateIn,
  FATTR,
  flushIn,
  FOPEN,
  forgetOne,
  FUSE,
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  FUSE_LK_FLOCK,
  FUSE_OPEN_KILL_SUIDGID,
  FUSE_RELEASE_FLOCK_UNLOCK,
  FUSE_ROOT_ID,
  FUSE_SETXATTR_ACL_KILL_SGID,
  FUSE_WRITE_CACHE,
  FUSE_WRITE_KILL_SUIDGID,
  fuseMinorVersionMin,
  type FuseRequest,
  getxattrIn,
  INIT,
  INIT2,
  initIn,
  initOut,
  ioctlIn,
  ioctlOut,
  isDot,
  isDotDot,
  linkIn,
  LK,
  lkIn,
  lkOut,
  lseekIn,
  maxWriteBytes,
  mkdirIn,
  mknodIn,
  noValidity,
  O,
  openIn,
  openOut,
  outHeader,
  readIn,
  releaseIn,
  rename2In,
  SEEK,
  setattrIn,
  setU64,
  setxattrIn,
  statfsOut,
  statxOut,
  type Validity,
} from "./protocol.ts";

/** Most requests under way at once, besides parked locks; also what the kernel is told as max_background. */
export const requestsInFlightMax = 64;
/** Most blocking lock requests that wait at once; ENOLCK beyond. */
export const parkedLocksMax = 4096;
/** Most open files of a mount; ENFILE beyond. */
export const openFilesMax = 1 << 20;
/** Most bytes one COPY_FILE_RANGE copies; the caller asks again for the rest. */
const copyBytesMax = 64 << 20;
/** Files of which it is remembered which version the kernel has pages of. */
const dataVersionsMax = 65_536;
/** Read-ahead allowed in bytes; the bdi's own setting is the effective limit. */
const maxReadaheadBytes = 1 << 20;

/** Threads remembered whose OPEN came too late; files opened ahead of their OPEN; tries to find one that can be opened. */
const outrunMax = 1_024, aheadMax = 64, openAheadMax = 16;

/** What is asked of the kernel at INIT, where it offers it. NO_OPEN_SUPPORT is left out: opens are registered. */
const wantedFlags = INIT.ASYNC_READ | INIT.POSIX_LOCKS | INIT.ATOMIC_O_TRUNC | INIT.EXPORT_SUPPORT | INIT.BIG_WRITES |
  INIT.DONT_MASK | INIT.FLOCK_LOCKS | INIT.AUTO_INVAL_DATA | INIT.DO_READDIRPLUS | INIT.READDIRPLUS_AUTO |
  INIT.ASYNC_DIO | INIT.PARALLEL_DIROPS | INIT.POSIX_ACL | INIT.MAX_PAGES | INIT.HANDLE_KILLPRIV_V2 |
  INIT.SETXATTR_EXT | INIT.INIT_EXT;
const wantedFlags2 = INIT2.CREATE_SUPP_GROUP | INIT2.DIRECT_IO_ALLOW_MMAP;

/** {@linkcode FuseSession.answer} of a request that it leaves to a task. */
const taskNeeded = -1;

/** fallocate(2) modes that are passed on; others are EOPNOTSUPP. */
const allocateModes: readonly number[] = [0, 1, 3, 0x10, 0x11];

/** Operations that change a directory's names. */
const entryChanges: ReadonlySet<number> = new Set([
  FUSE.SYMLINK,
  FUSE.MKNOD,
  FUSE.MKDIR,
  FUSE.UNLINK,
  FUSE.RMDIR,
  FUSE.RENAME,
  FUSE.RENAME2,
  FUSE.LINK,
  FUSE.CREATE,
  FUSE.TMPFILE,
]);

/** Operations that a read-only volume refuses. OPEN is looked at by itself. */
const mutations: ReadonlySet<number> = new Set([
  FUSE.SETATTR,
  FUSE.SYMLINK,
  FUSE.MKNOD,
  FUSE.MKDIR,
  FUSE.UNLINK,
  FUSE.RMDIR,
  FUSE.RENAME,
  FUSE.RENAME2,
  FUSE.LINK,
  FUSE.CREATE,
  FUSE.TMPFILE,
  FUSE.WRITE,
  FUSE.SETXATTR,
  FUSE.REMOVEXATTR,
  FUSE.FALLOCATE,
  FUSE.COPY_FILE_RANGE,
  FUSE.COPY_FILE_RANGE_64,
]);

const xattrNamespaces = ["user.", "trusted.", "security."].map((text) => new TextEncoder().encode(text));
const trustedNamespace = xattrNamespaces[1];

/** Attributes that the kernel asks for by itself, and the inode's flag that says whether there is one. */
const flaggedNames = [
  { name: accessAclName, flag: inodeFlags.accessAcl },
  { name: defaultAclName, flag: inodeFlags.defaultAcl },
  { name: capabilityName, flag: inodeFlags.capability },
];
/** A lock that this mount may hold on an inode. */
interface HeldLock {
  flock: boolean;
  ownerLow: number;
  ownerHigh: number;
  /** The open file it was asked for through last. */
  handle: number;
}

/** What the session tells of the mount. */
export interface FuseSessionOptions {
  /** Called once with the version agreed on at INIT. */
  onReady?: (version: { major: number; minor: number; flags: number; flags2: number }) => void;
  /** The way of notifications to the kernel. Without one it keeps nothing. */
  notifier?: KernelNotifier;
  /** Every open reads anew what it reads, so that its reads are known and move the atime (strictatime). */
  readsAnew?: boolean;
  /** Ask the kernel for FUSE over io_uring. Whether it agreed is in `flags2` of `onReady`. */
  overUring?: boolean;
  /** Measures requests, by opcode. */
  meter?: Meter;
}

/** See the module's comment. Used from one reactor. */
export class FuseSession {
  /** Open files: inode by handle - 1, 0 = free. */
  #handles: number[] = [];
  #freeHandles: number[] = [];
  /** Handles opened with FOPEN_DIRECT_IO. */
  #direct = new Set<number>();
  /** Owners that may hold locks, by inode and owner: so that close asks the server only when there is something to drop. */
  #locks = new Map<number, Map<string, HeldLock>>();
  /** Requests under way by unique; blocking locks with the future that cancels them. */
  #inFlight = new Map<number, Future<void> | null>();
  #parked = 0;
  /** Versions of files at their last open. */
  #dataVersions = new RecentMap<number>(dataVersionsMax);
  /** Threads whose OPEN found that its file is gone. */
  readonly #outrun = new Set<number>();
  /** Files that LOOKUP has opened, by the thread whose OPEN is to follow. */
  readonly #ahead = new Map<number, number>();
  /** True when the kernel leaves the umask to us (FUSE_DONT_MASK was agreed on). */
  #dontMask = true;
  #closed = false;

  readonly #cache: KernelCache | null;

  constructor(readonly fileSystem: FileSystem, private readonly options: FuseSessionOptions = {}) {
    const { notifier } = options;
    this.#cache = notifier === undefined ? null : new KernelCache(fileSystem, notifier, (inode) => this.#node(inode));
  }

  /** Open files. */
  get openFiles(): number {
    return this.#handles.length - this.#freeHandles.length;
  }

  /** Requests under way, parked locks among them. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** True for a request that may wait without bound: it must not hold a buffer of a pool. */
  static mayPark(request: FuseRequest): boolean {
    return request.opcode === FUSE.SETLKW;
  }

  /**
   * Serves a decoded request; the reply is then in its buffer. Returns the reply's length, 0 when there is none
   * (FORGET, INTERRUPT). Never throws for what the kernel or a user sent.
   */
  *handle(request: FuseRequest): Task<number> {
    const length = this.answer(request);
    return length >= 0 ? length : yield* this.work(request);
  }

  /**
   * The half of {@linkcode handle} that needs no task: serves a request at once if everything is known that it takes.
   * Negative: it is not, and the request is one for {@linkcode work}.
   */
  answer(request: FuseRequest): number {
    switch (request.opcode) {
      case FUSE.FORGET:
      case FUSE.BATCH_FORGET:
        return this.#forget(request);
      case FUSE.NOTIFY_REPLY:
        return 0;
      case FUSE.INTERRUPT:
        return this.#interrupt(request);
    }
    if (request.error !== 0) return request.fail(request.error);
    if (this.#closed) return request.fail(E.IO);
    if (this.fileSystem.readOnly && mutations.has(request.opcode)) return request.fail(E.ROFS);
    const { meter } = this.options, beganMs = meter?.seen() ?? 0;
    const length = this.#answerKnown(request);
    if (length >= 0) meter?.end(request.opcode, beganMs, 0);
    return length;
  }

  /** The other half of {@linkcode handle}: serves a request that {@linkcode answer} has left. */
  *work(request: FuseRequest): Task<number> {
    if (entryChanges.has(request.opcode)) this.#changing(request);
    const { unique, opcode } = request, { meter } = this.options;
    this.#inFlight.set(unique, null);
    const beganMs = meter?.begin(opcode) ?? 0;
    const length = yield* this.#dispatch(request);
    meter?.end(opcode, beganMs, bytesMoved(request, length));
    this.#inFlight.delete(unique);
    return length;
  }

  #changing(request: FuseRequest): void {
    this.#cache?.changing(this.#inode(request.nodeid));
    const renames = request.opcode === FUSE.RENAME || request.opcode === FUSE.RENAME2;
    if (renames) this.#cache?.changing(this.#inode(request.u64(rename2In.newdir)));
  }

  /** Tells that the reply to `request` could not be delivered: what it opened is closed again. */
  *undelivered(request: FuseRequest): Task<void> {
    const { handle } = request;
    request.handle = 0;
    // close() may have been there before.
    const inode = handle === 0 ? 0 : this.#handles[handle - 1];
    if (inode === 0) return;
    this.#freeHandle(handle);
    yield* this.fileSystem.release(inode);
  }

  /** The mount is gone: wakes blocked locks, drops all locks and releases all opens. Later requests fail with EIO. */
  *close(): Task<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const cancel of this.#inFlight.values()) cancel?.resolve();
    // Without an answer the rest would wait as long each: the servers drop everything when the session ends.
    for (const inode of [...this.#locks.keys()]) if ((yield* this.#dropAllLocks(inode)) === E.IO) return;
    for (let handle = 1; handle <= this.#handles.length; handle++) {
      const inode = this.#handles[handle - 1];
      if (inode === 0) continue;
      this.#freeHandle(handle);
      if ((yield* this.fileSystem.release(inode)) === E.IO) return;
    }
  }

  /** What needs nobody else: what leases say, what there is none of, what the session itself keeps. Negative: more. */
  #answerKnown(request: FuseRequest): number {
    switch (request.opcode) {
      case FUSE.LOOKUP: {
        if (isDot(request.name) || isDotDot(request.name) || this.#outrun.has(request.pid)) return taskNeeded;
        const known = this.fileSystem.knownEntry(this.#inode(request.nodeid), request.name);
        return known === null ? taskNeeded : this.#found(request, known);
      }
      case FUSE.GETATTR: {
        const known = this.fileSystem.known(this.#inode(request.nodeid));
        return known === null ? taskNeeded : this.#attributes(request, known);
      }
      case FUSE.GETXATTR: {
        const errno = checkAttributeName(request.name);
        if (errno !== 0) return request.fail(errno);
        return this.#knownAbsent(request) ? request.fail(E.NODATA) : taskNeeded;
      }
      case FUSE.OPEN:
        return this.#openKnown(request);
      case FUSE.FLUSH:
        return this.#locks.has(this.#inode(request.nodeid)) ? taskNeeded : request.finish(0);
      case FUSE.OPENDIR:
        // Directories are read by cookie alone: there is nothing to open.
        this.fileSystem.hold(this.#inode(request.nodeid));
        encodeOpen(request.view, request.bodyAt, 0, 0);
        return request.finish(openOut.sizeof);
      case FUSE.RELEASEDIR:
        this.fileSystem.letGo(this.#inode(request.nodeid));
        return request.finish(0);
      case FUSE.INIT:
        return this.#init(request);
      case FUSE.IOCTL:
        return fileFlagsBytes(request.u32(ioctlIn.cmd)) === 0 ? request.fail(E.NOTTY) : taskNeeded;
    }
    return taskNeeded;
  }

  #dispatch(request: FuseRequest): Task<number> {
    switch (request.opcode) {
      case FUSE.LOOKUP:
        return this.#lookup(request);
      case FUSE.GETATTR:
        return this.#getattr(request);
      case FUSE.STATX:
        return this.#statx(request);
      case FUSE.SETATTR:
        return this.#setattr(request);
      case FUSE.READLINK:
        return this.#readlink(request);
      case FUSE.SYMLINK:
        return this.#symlink(request);
      case FUSE.MKNOD:
        return this.#mknod(request);
      case FUSE.MKDIR:
        return this.#mkdir(request);
      case FUSE.UNLINK:
        return finished(request, this.fileSystem.unlink(this.#inode(request.nodeid), request.name));
      case FUSE.RMDIR:
        return finished(request, this.fileSystem.removeDirectory(this.#inode(request.nodeid), request.name));
      case FUSE.RENAME:
      case FUSE.RENAME2:
        return this.#rename(request);
      case FUSE.LINK:
        return this.#link(request);
      case FUSE.CREATE:
        return this.#create(request);
      case FUSE.TMPFILE:
        return this.#tmpfile(request);
      case FUSE.OPEN:
        return this.#open(request);
      case FUSE.RELEASE:
        return this.#release(request);
      case FUSE.FLUSH:
        return this.#flush(request);
      case FUSE.READ:
        return this.#read(request);
      case FUSE.WRITE:
        return this.#write(request);
      case FUSE.FSYNC:
      case FUSE.FSYNCDIR:
        return finished(request, this.fileSystem.sync(this.#inode(request.nodeid)));
      case FUSE.READDIR:
        return this.#readdir(request, false);
      case FUSE.READDIRPLUS:
        return this.#readdir(request, true);
      case FUSE.STATFS:
        return this.#statfs(request);
      case FUSE.GETXATTR:
        return this.#getxattr(request);
      case FUSE.SETXATTR:
        return this.#setxattr(request);
      case FUSE.LISTXATTR:
        return this.#listxattr(request);
      case FUSE.REMOVEXATTR:
        return this.#removexattr(request);
      case FUSE.FALLOCATE:
        return this.#fallocate(request);
      case FUSE.LSEEK:
        return this.#lseek(request);
      case FUSE.COPY_FILE_RANGE:
      case FUSE.COPY_FILE_RANGE_64:
        return this.#copyFileRange(request);
      case FUSE.GETLK:
        return this.#getlk(request);
      case FUSE.SETLK:
        return this.#setlk(request, null);
      case FUSE.SETLKW:
        return this.#setlkw(request);
      case FUSE.DESTROY:
        return this.#destroy(request);
      case FUSE.IOCTL:
        return this.#ioctl(request);
      default:
        // ACCESS (default_permissions), POLL, BMAP and SYNCFS: the kernel asks once and then does without.
        return refused(request, E.NOSYS);
    }
  }

  *#destroy(request: FuseRequest): Task<number> {
    yield* this.close();
    return request.finish(0);
  }

  #inode(nodeid: number): number {
    return nodeid === FUSE_ROOT_ID ? this.fileSystem.root : nodeid;
  }

  #node(inode: number): number {
    return inode === this.fileSystem.root ? FUSE_ROOT_ID : inode;
  }

  #caller(request: FuseRequest, umask: number): Caller {
    const { uid, gid, pid, groups } = request;
    return { uid, gid, pid, umask: this.#dontMask ? umask & 0o777 : 0, groups };
  }

  #init(request: FuseRequest): number {
    const { view } = request, at = request.bodyAt;
    const major = request.u32(initIn.major), minor = Math.min(request.u32(initIn.minor), FUSE_KERNEL_MINOR_VERSION);
    if (major < FUSE_KERNEL_VERSION || (major === FUSE_KERNEL_VERSION && minor < fuseMinorVersionMin)) {
      return request.fail(E.PROTO);
    }
    const extended = request.argsBytes >= initIn.flags2 + 4;
    const flags = request.u32(initIn.flags) & wantedFlags;
    const wanted2 = wantedFlags2 | (this.options.overUring === true ? INIT2.OVER_IO_URING : 0);
    const flags2 = extended && (flags & INIT.INIT_EXT) !== 0 ? request.u32(initIn.flags2) & wanted2 : 0;
    const expires = extended && (request.u32(initIn.flags2) & INIT2.HAS_EXPIRE_ONLY) !== 0;
    if (this.#cache !== null) this.#cache.names = expires;
    for (let i = 0; i < initOut.sizeof; i += 4) view.setUint32(at + i, 0, true);
    view.setUint32(at + initOut.major, FUSE_KERNEL_VERSION, true);
    // A newer major asks again in our version after this.
    if (major > FUSE_KERNEL_VERSION) {
      view.setUint32(at + initOut.minor, FUSE_KERNEL_MINOR_VERSION, true);
      return request.finish(initOut.sizeof);
    }
    view.setUint32(at + initOut.minor, minor, true);
    view.setUint32(at + initOut.maxReadahead, maxReadaheadBytes, true);
    view.setUint32(at + initOut.flags, flags, true);
    view.setUint16(at + initOut.maxBackground, requestsInFlightMax, true);
    view.setUint16(at + initOut.congestionThreshold, requestsInFlightMax * 3 / 4, true);
    view.setUint32(at + initOut.maxWrite, maxWriteBytes, true);
    view.setUint32(at + initOut.timeGran, 1, true);
    view.setUint16(at + initOut.maxPages, maxWriteBytes / 4096, true);
    view.setUint32(at + initOut.flags2, flags2, true);
    this.#dontMask = (flags & INIT.DONT_MASK) !== 0;
    this.options.onReady?.({ major, minor, flags, flags2 });
    return request.finish(initOut.sizeof);
  }

  #forget(request: FuseRequest): number {
    if (request.error !== 0) return 0;
    if (request.opcode === FUSE.FORGET) {
      this.fileSystem.forget(this.#inode(request.nodeid));
      return 0;
    }
    const most = Math.floor((request.argsBytes - batchForgetIn.sizeof) / forgetOne.sizeof);
    const count = Math.min(request.u32(batchForgetIn.count), most);
    for (let at = 0; at < count; at++) {
      this.fileSystem.forget(this.#inode(request.u64(batchForgetIn.sizeof + at * forgetOne.sizeof)));
    }
    return 0;
  }

  /** Answers with EAGAIN when the request is not known here yet: the kernel sends the interrupt again. */
  #interrupt(request: FuseRequest): number {
    if (request.error !== 0) return 0;
    return this.interrupt(request.u64(0)) ? 0 : request.fail(E.AGAIN);
  }

  /** A program no longer wants to wait for the request `unique`. False when that is not known here. */
  interrupt(unique: number): boolean {
    const cancel = this.#inFlight.get(unique);
    cancel?.resolve();
    return cancel !== undefined;
  }

  /**
   * True when it is known without asking that there is no such attribute: the kernel looks for ACLs at each permission
   * check, and for capabilities at the first write.
   */
  #knownAbsent(request: FuseRequest): boolean {
    const flagged = flaggedNames.find(({ name }) => sameName(name, request.name));
    if (flagged === undefined) return false;
    const known = this.fileSystem.known(this.#inode(request.nodeid));
    return known !== null && (known.flags & flagged.flag) === 0;
  }

  /** Writes what a name stands for; `nameMs`: how long the kernel may keep that. */
  #putEntry(request: FuseRequest, attributes: Attributes, nameMs: number): void {
    const attributesMs = this.#cache?.attributesMs(attributes) ?? 0, node = this.#node(attributes.inode);
    encodeEntry(request.view, request.bodyAt, node, attributes, { nameMs, attributesMs });
  }

  #entry(request: FuseRequest, attributes: Result<Attributes>, nameMs = 0): number {
    if (failed(attributes)) return request.fail(attributes);
    this.#putEntry(request, attributes, nameMs);
    return request.finish(entryOut.sizeof);
  }

  *#lookup(request: FuseRequest): Task<number> {
    const { name } = request, dir = this.#inode(request.nodeid);
    if (isDot(name)) {
      const own = yield* this.fileSystem.getAttributes(dir);
      // A file handle's question: what has no name any more is gone for it, whoever still holds it.
      return this.#entry(request, !failed(own) && own.nlink === 0 ? E.STALE : own);
    }
    if (isDotDot(name)) return this.#entry(request, yield* this.fileSystem.parent(dir));
    const found = yield* this.fileSystem.lookup(dir, name);
    return this.#found(request, this.#outrun.has(request.pid) ? yield* this.#openAhead(request, dir, found) : found);
  }

  /**
   * Opens the file that a LOOKUP has found for a thread whose OPEN has just come too late: a rename had replaced the file
   * in between. The kernel looks and opens once more, and only once; what is open cannot be taken from it.
   */
  *#openAhead(request: FuseRequest, dir: number, looked: Result<Attributes>): Task<Result<Attributes>> {
    const { name, pid } = request;
    let found = looked;
    for (let attempt = 0; attempt < openAheadMax && !failed(found) && isRegular(found.mode); attempt++) {
      this.#outrun.delete(pid);
      const opened = yield* this.fileSystem.open(found.inode, { truncate: false });
      if (!failed(opened)) {
        yield* this.#endAhead(this.#ahead.size >= aheadMax ? this.#ahead.keys().next().value! : pid);
        this.#ahead.set(pid, opened.inode);
        return opened;
      }
      if (opened !== E.STALE && opened !== E.NOENT) return found;
      found = yield* this.fileSystem.lookup(dir, name);
    }
    return found;
  }

  /** Ends what {@linkcode #openAhead} has opened for a thread: it has come to its OPEN, or never will. */
  *#endAhead(pid: number): Task<void> {
    const inode = this.#ahead.get(pid);
    if (inode === undefined) return;
    this.#ahead.delete(pid);
    yield* this.fileSystem.release(inode);
  }

  /** The reply to LOOKUP of a name. */
  #found(request: FuseRequest, found: Result<Attributes>): number {
    const { name } = request, dir = this.#inode(request.nodeid);
    if (!failed(found)) return this.#entry(request, found, this.#cache?.nameMs(dir, name, found.inode) ?? 0);
    const absentMs = found === E.NOENT ? this.#cache?.nameMs(dir, name, 0) ?? 0 : 0;
    if (absentMs <= 0) return request.fail(found);
    encodeAbsent(request.view, request.bodyAt, absentMs);
    return request.finish(entryOut.sizeof);
  }

  #validity(dir: number, entry: Dirent, attributes: Attributes): Validity {
    const nameMs = this.#cache?.nameMs(dir, entry.name, attributes.inode) ?? 0;
    return { nameMs, attributesMs: this.#cache?.attributesMs(attributes) ?? 0 };
  }

  #attributes(request: FuseRequest, attributes: Result<Attributes>): number {
    if (failed(attributes)) return request.fail(attributes);
    const validMs = this.#cache?.attributesMs(attributes) ?? 0;
    encodeAttrOut(request.view, request.bodyAt, this.#node(attributes.inode), attributes, validMs);
    return request.finish(attrOut.sizeof);
  }

  *#getattr(request: FuseRequest): Task<number> {
    return this.#attributes(request, yield* this.fileSystem.getAttributes(this.#inode(request.nodeid)));
  }

  *#statx(request: FuseRequest): Task<number> {
    const attributes = yield* this.fileSystem.getAttributes(this.#inode(request.nodeid));
    if (failed(attributes)) return request.fail(attributes);
    const validMs = this.#cache?.attributesMs(attributes) ?? 0;
    encodeStatx(request.view, request.bodyAt, this.#node(attributes.inode), attributes, validMs);
    return request.finish(statxOut.sizeof);
  }

  *#setattr(request: FuseRequest): Task<number> {
    const valid = request.u32(setattrIn.valid);
    const change: AttributeChange = {};
    if (valid & FATTR.MODE) change.mode = request.u32(setattrIn.mode) & 0o7777;
    if (valid & FATTR.UID) change.uid = request.u32(setattrIn.uid);
    if (valid & FATTR.GID) change.gid = request.u32(setattrIn.gid);
    if (valid & FATTR.SIZE) {
      change.size = request.u64(setattrIn.size);
      if (change.size > Number.MAX_SAFE_INTEGER) return request.fail(E.FBIG);
    }
    if (valid & FATTR.ATIME_NOW) change.atime = "now";
    else if (valid & FATTR.ATIME) change.atime = request.time(setattrIn.atime, setattrIn.atimensec);
    if (valid & FATTR.MTIME_NOW) change.mtime = "now";
    else if (valid & FATTR.MTIME) change.mtime = request.time(setattrIn.mtime, setattrIn.mtimensec);
    if (valid & FATTR.CTIME) change.ctime = request.time(setattrIn.ctime, setattrIn.ctimensec);
    // With HANDLE_KILLPRIV_V2 the kernel flags truncations and leaves chown to us altogether.
    const chown = (valid & (FATTR.UID | FATTR.GID)) !== 0 && (valid & FATTR.MODE) === 0;
    if (chown || (valid & FATTR.KILL_SUIDGID) !== 0) change.killSetId = true;
    // Nothing to change: chown(2) that leaves both ids clears them as well, but in the owner's name only. The kernel asks
    // the same before a write, which then says by itself what to clear.
    const nothing = Object.keys(change).length === 0;
    if (nothing && (yield* this.#owns(request))) change.killSetId = true;
    return this.#attributes(request, yield* this.fileSystem.setAttributes(this.#inode(request.nodeid), change));
  }

  /** True when the caller is root or the inode's owner. */
  *#owns(request: FuseRequest): Task<boolean> {
    if (request.uid === 0) return true;
    const attributes = yield* this.fileSystem.getAttributes(this.#inode(request.nodeid));
    return !failed(attributes) && attributes.uid === request.uid;
  }

  *#readlink(request: FuseRequest): Task<number> {
    const target = yield* this.fileSystem.readLink(this.#inode(request.nodeid));
    return failed(target) ? request.fail(target) : request.reply(target);
  }

  *#symlink(request: FuseRequest): Task<number> {
    if (isDot(request.name) || isDotDot(request.name)) return request.fail(E.EXIST);
    const options = { mode: S.IFLNK | 0o777, target: request.newName, exclusive: true, open: false };
    const caller = this.#caller(request, 0);
    return this.#entry(
      request,
      yield* this.fileSystem.create(this.#inode(request.nodeid), request.name, options, caller),
    );
  }

  *#mknod(request: FuseRequest): Task<number> {
    const mode = request.u32(mknodIn.mode), type = mode & S.IFMT;
    if (isDot(request.name) || isDotDot(request.name)) return request.fail(E.EXIST);
    const known = type === S.IFREG || type === S.IFIFO || type === S.IFSOCK || type === S.IFCHR || type === S.IFBLK;
    if (!known) return request.fail(E.INVAL);
    const device = type === S.IFCHR || type === S.IFBLK;
    const options = { mode, rdev: device ? request.u32(mknodIn.rdev) : 0, exclusive: true, open: false };
    const caller = this.#caller(request, request.u32(mknodIn.umask));
    return this.#entry(
      request,
      yield* this.fileSystem.create(this.#inode(request.nodeid), request.name, options, caller),
    );
  }

  *#mkdir(request: FuseRequest): Task<number> {
    if (isDot(request.name) || isDotDot(request.name)) return request.fail(E.EXIST);
    const mode = request.u32(mkdirIn.mode) & 0o7777;
    const caller = this.#caller(request, request.u32(mkdirIn.umask));
    const dir = this.#inode(request.nodeid);
    return this.#entry(request, yield* this.fileSystem.makeDirectory(dir, request.name, mode, caller));
  }

  *#rename(request: FuseRequest): Task<number> {
    const { name, newName } = request;
    if (isDot(name) || isDotDot(name) || isDot(newName) || isDotDot(newName)) return request.fail(E.BUSY);
    const flags = request.opcode === FUSE.RENAME2 ? request.u32(rename2In.flags) : 0;
    // NOREPLACE together with EXCHANGE, as any file system answers, and RENAME_WHITEOUT, which is not kept.
    const known = flags === 0 || flags === renameFlags.noReplace || flags === renameFlags.exchange;
    if (!known) return request.fail(E.INVAL);
    const newDir = this.#inode(request.u64(rename2In.newdir));
    if (newDir > Number.MAX_SAFE_INTEGER) return request.fail(E.STALE);
    return done(request, yield* this.fileSystem.rename(this.#inode(request.nodeid), name, newDir, newName, flags));
  }

  *#link(request: FuseRequest): Task<number> {
    if (isDot(request.name) || isDotDot(request.name)) return request.fail(E.EXIST);
    const inode = this.#inode(request.u64(linkIn.oldnodeid));
    if (inode > Number.MAX_SAFE_INTEGER) return request.fail(E.STALE);
    return this.#entry(request, yield* this.fileSystem.link(inode, this.#inode(request.nodeid), request.name));
  }

  /** Reserves a handle for an inode; 0 when there are too many. */
  #newHandle(inode: number): number {
    const free = this.#freeHandles.pop();
    if (free !== undefined) {
      this.#handles[free - 1] = inode;
      return free;
    }
    if (this.#handles.length >= openFilesMax) return 0;
    return this.#handles.push(inode);
  }

  #freeHandle(handle: number): void {
    this.#handles[handle - 1] = 0;
    this.#freeHandles.push(handle);
    this.#direct.delete(handle);
  }

  /**
   * Appends go to where the file's end truly is, which only the servers know, and O_DIRECT wants no cache. Everything
   * else uses the page cache, so that a shared writable mmap works; an open drops it unless the file is as it was.
   */
  #openFlags({ handle }: FuseRequest, flags: number, attributes: Attributes): number {
    const keep = this.#holdsDataOf(attributes) && !this.options.readsAnew ? FOPEN.KEEP_CACHE : 0;
    if ((flags & (O.APPEND | O.DIRECT)) === 0) return keep;
    this.#direct.add(handle);
    return FOPEN.DIRECT_IO;
  }

  /**
   * True when the pages that the kernel has of a file are those of the version that is opened now. It reads them in while
   * the version is the one noted here or, if somebody writes, an older one; a write is done when the version has moved.
   */
  #holdsDataOf({ inode, version }: Attributes): boolean {
    const same = this.#dataVersions.get(inode) === version;
    this.#dataVersions.set(inode, version);
    return same;
  }

  /** The mount has written through the kernel's pages: they are those of the new version if nobody else wrote in between. */
  #wrote(inode: number, before: Attributes | null): void {
    const after = this.fileSystem.known(inode);
    if (before === null || after === null || this.#dataVersions.get(inode) !== before.version) return;
    if (after.version === before.version + 1) this.#dataVersions.set(inode, after.version);
  }

  *#create(request: FuseRequest): Task<number> {
    const { name } = request, flags = request.u32(createIn.flags);
    if (isDot(name) || isDotDot(name)) return request.fail(E.EXIST);
    const exclusive = (flags & O.EXCL) !== 0, truncate = (flags & O.TRUNC) !== 0;
    const mode = S.IFREG | (request.u32(createIn.mode) & 0o7777);
    const killSetId = (request.u32(createIn.openFlags) & FUSE_OPEN_KILL_SUIDGID) !== 0;
    const caller = this.#caller(request, request.u32(createIn.umask));
    const options = { mode, exclusive, truncate, killSetId, open: true, writing: writingOf(flags) };
    const attributes = yield* this.fileSystem.create(this.#inode(request.nodeid), name, options, caller);
    if (failed(attributes)) {
      // The name was absent when the kernel looked and is now something that CREATE does not open: ESTALE makes it
      // look again, where EEXIST would reach a program that did not ask for O_EXCL.
      return request.fail(attributes === E.EXIST && !exclusive ? E.STALE : attributes);
    }
    return yield* this.#created(request, attributes, flags);
  }

  /** O_TMPFILE: the name that the kernel sends stands for nothing. */
  *#tmpfile(request: FuseRequest): Task<number> {
    const flags = request.u32(createIn.flags), caller = this.#caller(request, request.u32(createIn.umask));
    const options = { mode: request.u32(createIn.mode) & 0o7777, linkable: (flags & O.EXCL) === 0 };
    const attributes = yield* this.fileSystem.createUnnamed(this.#inode(request.nodeid), options, caller);
    return failed(attributes) ? request.fail(attributes) : yield* this.#created(request, attributes, flags);
  }

  /** The reply to CREATE and TMPFILE. */
  *#created(request: FuseRequest, attributes: Attributes, flags: number): Task<number> {
    if (!(yield* this.#opened(request, attributes))) return request.fail(E.NFILE);
    this.#putEntry(request, attributes, 0);
    const openFlags = this.#openFlags(request, flags, attributes);
    encodeOpen(request.view, request.bodyAt + entryOut.sizeof, request.handle, openFlags);
    return request.finish(entryOut.sizeof + openOut.sizeof);
  }

  /** Gives an open that was registered a handle; ends it and is false when there are too many. */
  *#opened(request: FuseRequest, attributes: Attributes): Task<boolean> {
    request.handle = this.#newHandle(attributes.inode);
    if (request.handle === 0) yield* this.fileSystem.release(attributes.inode);
    return request.handle !== 0;
  }

  #openKnown(request: FuseRequest): number {
    const inode = this.#inode(request.nodeid), flags = request.u32(openIn.flags);
    // What a LOOKUP has opened ahead ends with the OPEN, in a task.
    if ((flags & O.TRUNC) !== 0 || this.#ahead.size > 0) return taskNeeded;
    if (this.fileSystem.readOnly && (flags & O.ACCMODE) !== 0) return taskNeeded;
    const handle = this.#newHandle(inode), known = handle === 0 ? null : this.fileSystem.openKnown(inode);
    if (known === null) {
      if (handle !== 0) this.#freeHandle(handle);
      return taskNeeded;
    }
    request.handle = handle;
    encodeOpen(request.view, request.bodyAt, handle, this.#openFlags(request, flags, known));
    return request.finish(openOut.sizeof);
  }

  *#open(request: FuseRequest): Task<number> {
    const flags = request.u32(openIn.flags), truncate = (flags & O.TRUNC) !== 0;
    if (this.fileSystem.readOnly && (truncate || (flags & O.ACCMODE) !== 0)) return request.fail(E.ROFS);
    const killSetId = (request.u32(openIn.openFlags) & FUSE_OPEN_KILL_SUIDGID) !== 0;
    const options = { truncate, killSetId, writing: writingOf(flags) };
    const attributes = yield* this.fileSystem.open(this.#inode(request.nodeid), options);
    if (this.#ahead.size > 0) yield* this.#endAhead(request.pid);
    if (failed(attributes)) {
      if (this.#outrun.size >= outrunMax) this.#outrun.clear();
      if (attributes === E.STALE) this.#outrun.add(request.pid);
      return request.fail(attributes);
    }
    if (!(yield* this.#opened(request, attributes))) return request.fail(E.NFILE);
    encodeOpen(request.view, request.bodyAt, request.handle, this.#openFlags(request, flags, attributes));
    return request.finish(openOut.sizeof);
  }

  *#release(request: FuseRequest): Task<number> {
    const handle = request.u64(releaseIn.fh), inode = this.#inode(request.nodeid);
    if (handle === 0 || this.#handles[handle - 1] !== inode) return request.fail(E.BADF);
    this.#freeHandle(handle);
    if (this.#locks.has(inode)) {
      if ((request.u32(releaseIn.releaseFlags) & FUSE_RELEASE_FLOCK_UNLOCK) !== 0) {
        yield* this.#dropLocks(inode, true, request, releaseIn.lockOwner);
      }
      yield* this.#dropLocksOf(inode, handle);
    }
    return done(request, yield* this.fileSystem.release(inode));
  }

  /** Every close(2): POSIX drops all fcntl locks that the process has on the file. */
  *#flush(request: FuseRequest): Task<number> {
    const inode = this.#inode(request.nodeid);
    return done(request, yield* this.#dropLocks(inode, false, request, flushIn.lockOwner));
  }

  *#dropLocks(inode: number, flock: boolean, request: FuseRequest, ownerField: number) {
    const owners = this.#locks.get(inode);
    if (owners === undefined) return 0;
    const ownerLow = request.u32(ownerField), ownerHigh = request.u32(ownerField + 4);
    const key = lockKey(flock, ownerLow, ownerHigh);
    if (!owners.delete(key)) return 0;
    if (owners.size === 0) this.#locks.delete(inode);
    return yield* this.fileSystem.dropLocks(inode, flock, ownerLow, ownerHigh);
  }

  /**
   * Locks of an open file description (F_OFD_SETLK) belong to an owner whose close the kernel never mentions. A process
   * that has locked through this one has closed it before, so what is left are the description's own.
   */
  *#dropLocksOf(inode: number, handle: number): Task<void> {
    const owners = this.#locks.get(inode);
    if (owners === undefined) return;
    for (const [key, held] of [...owners]) {
      if (held.handle !== handle) continue;
      owners.delete(key);
      yield* this.fileSystem.dropLocks(inode, held.flock, held.ownerLow, held.ownerHigh);
    }
    if (owners.size === 0 && this.#locks.get(inode) === owners) this.#locks.delete(inode);
  }

  /** Drops what any owner holds on an inode; stops at the first EIO. */
  *#dropAllLocks(inode: number): Task<number> {
    const owners = this.#locks.get(inode);
    this.#locks.delete(inode);
    for (const held of owners?.values() ?? []) {
      const outcome = yield* this.fileSystem.dropLocks(inode, held.flock, held.ownerLow, held.ownerHigh);
      if (outcome === E.IO) return E.IO;
    }
    return 0;
  }

  *#read(request: FuseRequest): Task<number> {
    const inode = this.#inode(request.nodeid), offset = request.u64(readIn.offset);
    const size = Math.min(request.u32(readIn.size), request.bodyBytes);
    if (offset > Number.MAX_SAFE_INTEGER - size) return request.finish(0);
    const into = request.bytes.subarray(request.bodyAt, request.bodyAt + size);
    const noAtime = (request.u32(readIn.flags) & O.NOATIME) !== 0;
    const result = yield* this.fileSystem.read(inode, offset, into, { noAtime });
    return failed(result) ? request.fail(result) : request.finish(Math.min(result.count, size));
  }

  *#write(request: FuseRequest): Task<number> {
    const { data } = request, inode = this.#inode(request.nodeid), offset = request.u64(readIn.offset);
    const writeFlags = request.u32(readIn.readFlags);
    const killSetId = (writeFlags & FUSE_WRITE_KILL_SUIDGID) !== 0;
    const append = (request.u32(readIn.flags) & O.APPEND) !== 0 && (writeFlags & FUSE_WRITE_CACHE) === 0;
    if (offset > Number.MAX_SAFE_INTEGER - data.length) return request.fail(E.FBIG);
    const size = data.length, before = append ? null : this.fileSystem.known(inode);
    const result = append
      ? yield* this.fileSystem.append(inode, data, { killSetId })
      : yield* this.fileSystem.write(inode, offset, data, { killSetId });
    if (failed(result)) return request.fail(result);
    this.#wrote(inode, before);
    if (this.#syncsWrite(request)) {
      const synced = yield* this.fileSystem.sync(inode);
      if (failed(synced)) return request.fail(synced);
    }
    setU64(request.view, request.bodyAt, size);
    return request.finish(8);
  }

  /**
   * True for a write that has to be durable when it returns and after which the kernel sends no FSYNC of its own: it does
   * so only where it has the file in its page cache (fs/fuse/file.c, fuse_cache_write_iter).
   */
  #syncsWrite(request: FuseRequest): boolean {
    return (request.u32(readIn.flags) & O.DSYNC) !== 0 && this.#direct.has(request.u64(readIn.fh));
  }

  *#readdir(request: FuseRequest, plus: boolean): Task<number> {
    const inode = this.#inode(request.nodeid), cookie = request.u64(readIn.offset);
    if (cookie > Number.MAX_SAFE_INTEGER) return request.finish(0);
    const size = Math.min(request.u32(readIn.size), request.bodyBytes);
    let parent = inode;
    if (cookie <= 1 && inode !== this.fileSystem.root) {
      const attributes = yield* this.fileSystem.parent(inode);
      // A directory that is gone has no entries, as the kernel says of those that were removed through it.
      if (failed(attributes)) return request.fail(attributes === E.STALE ? E.NOENT : attributes);
      parent = attributes.inode;
    }
    const options = { plus, noAtime: (request.u32(readIn.flags) & O.NOATIME) !== 0 };
    const entries = yield* this.fileSystem.readDirectory(inode, cookie > 2 ? cookie : 0, size, options);
    if (failed(entries)) return request.fail(entries);
    const page = dots(cookie, this.#node(inode), this.#node(parent));
    for (const entry of entries) page.push({ ...entry, node: this.#node(entry.inode), valid: noValidity });
    let used = 0;
    for (const entry of page) {
      const bytes = direntBytes(entry.name.length, plus);
      if (used + bytes > size) break;
      if (plus && entry.attributes !== null) entry.valid = this.#validity(inode, entry, entry.attributes);
      used += encodeDirent(request, request.bodyAt + used, entry, plus);
    }
    // A buffer too small for one entry would look like the end of the directory.
    return used === 0 && page.length > 0 ? request.fail(E.INVAL) : request.finish(used);
  }

  *#statfs(request: FuseRequest): Task<number> {
    const totals = yield* this.fileSystem.statistics();
    if (failed(totals)) return request.fail(totals);
    encodeStatfs(request.view, request.bodyAt, totals);
    return request.finish(statfsOut.sizeof);
  }

  /** The size alone when 0 bytes are asked for, else the value, ERANGE when it is longer. */
  #sized(request: FuseRequest, value: Uint8Array): number {
    const size = request.u32(getxattrIn.size);
    if (size > 0) return value.length > size ? request.fail(E.RANGE) : request.reply(value);
    setU64(request.view, request.bodyAt, value.length);
    return request.finish(8);
  }

  *#getxattr(request: FuseRequest): Task<number> {
    const errno = checkAttributeName(request.name);
    if (errno !== 0) return request.fail(errno);
    if (this.#knownAbsent(request)) return request.fail(E.NODATA);
    const value = yield* this.fileSystem.getExtendedAttribute(this.#inode(request.nodeid), request.name);
    return failed(value) ? request.fail(value) : this.#sized(request, value);
  }

  *#setxattr(request: FuseRequest): Task<number> {
    const errno = checkAttributeName(request.name);
    if (errno !== 0) return request.fail(errno);
    const { name, data } = request, inode = this.#inode(request.nodeid), flags = request.u32(setxattrIn.flags);
    if (flags > (xattrFlags.create | xattrFlags.replace)) return request.fail(E.INVAL);
    const kill = (request.u32(setxattrIn.setxattrFlags) & FUSE_SETXATTR_ACL_KILL_SGID) !== 0;
    const all = kill ? flags | xattrFlags.killSetgid : flags;
    const outcome = yield* this.fileSystem.setExtendedAttribute(inode, name, data, all);
    return done(request, outcome);
  }

  /** As local file systems do, trusted.* is shown to root alone. */
  *#listxattr(request: FuseRequest): Task<number> {
    const names = yield* this.fileSystem.listExtendedAttributes(this.#inode(request.nodeid));
    if (failed(names)) return request.fail(names);
    return this.#sized(request, request.uid === 0 ? names : withoutTrusted(names));
  }

  *#removexattr(request: FuseRequest): Task<number> {
    const errno = checkAttributeName(request.name);
    if (errno !== 0) return request.fail(errno);
    return done(
      request,
      yield* this.fileSystem.removeExtendedAttribute(this.#inode(request.nodeid), request.name),
    );
  }

  *#fallocate(request: FuseRequest): Task<number> {
    const offset = request.u64(fallocateIn.offset), length = request.u64(fallocateIn.length);
    const mode = request.u32(fallocateIn.mode);
    if (!allocateModes.includes(mode)) return request.fail(E.OPNOTSUPP);
    if (length === 0) return request.fail(E.INVAL);
    if (offset + length > Number.MAX_SAFE_INTEGER) return request.fail(E.FBIG);
    const range = { mode, offset, length, killSetId: killsUnasked(request) };
    return done(request, yield* this.fileSystem.allocate(this.#inode(request.nodeid), range));
  }

  *#lseek(request: FuseRequest): Task<number> {
    const offset = request.u64(lseekIn.offset), whence = request.u32(lseekIn.whence);
    if (whence !== SEEK.DATA && whence !== SEEK.HOLE) return request.fail(E.INVAL);
    if (offset > Number.MAX_SAFE_INTEGER) return request.fail(E.NXIO);
    const inode = this.#inode(request.nodeid);
    const found = yield* this.fileSystem.seek(inode, offset, whence === SEEK.DATA ? "data" : "hole");
    if (failed(found)) return request.fail(found);
    setU64(request.view, request.bodyAt, found.offset);
    return request.finish(8);
  }

  *#copyFileRange(request: FuseRequest): Task<number> {
    const fromOffset = request.u64(copyFileRangeIn.offIn), toOffset = request.u64(copyFileRangeIn.offOut);
    const to = this.#inode(request.u64(copyFileRangeIn.nodeidOut));
    const length = Math.min(request.u64(copyFileRangeIn.len), copyBytesMax);
    if (request.u64(copyFileRangeIn.flags) !== 0) return request.fail(E.INVAL);
    if (to > Number.MAX_SAFE_INTEGER) return request.fail(E.STALE);
    if (toOffset > Number.MAX_SAFE_INTEGER - length) return request.fail(E.FBIG);
    let count = 0;
    if (fromOffset <= Number.MAX_SAFE_INTEGER - length && length > 0) {
      const from = this.#inode(request.nodeid);
      const killSetId = killsUnasked(request);
      const result = yield* this.fileSystem.copyRange({ from, fromOffset, to, toOffset, length, killSetId });
      if (failed(result)) return request.fail(result);
      count = result.count;
    }
    setU64(request.view, request.bodyAt, count);
    return request.finish(8);
  }

  *#ioctl(request: FuseRequest): Task<number> {
    const command = request.u32(ioctlIn.cmd), size = fileFlagsBytes(command), sets = setsFileFlags(command);
    if ((sets ? request.data.length : request.u32(ioctlIn.outSize)) < size) return request.fail(E.INVAL);
    const { view } = request, inode = this.#inode(request.nodeid);
    let attributes: Result<Attributes>;
    if (sets) {
      const flags = decodeFileFlags(request.data, command);
      if (failed(flags)) return request.fail(flags);
      if (this.fileSystem.readOnly) return request.fail(E.ROFS);
      attributes = yield* this.fileSystem.setAttributes(inode, flags);
    } else attributes = yield* this.fileSystem.getAttributes(inode);
    if (failed(attributes)) return request.fail(attributes);
    const at = request.bodyAt;
    for (let i = 0; i < ioctlOut.sizeof; i += 4) view.setUint32(at + i, 0, true);
    if (sets) return request.finish(ioctlOut.sizeof);
    encodeFileFlags(view, at + ioctlOut.sizeof, command, attributes);
    return request.finish(ioctlOut.sizeof + size);
  }

  *#getlk(request: FuseRequest): Task<number> {
    const lock = decodeLock(request);
    if (failed(lock)) return request.fail(lock);
    const found = yield* this.fileSystem.testLock(this.#inode(request.nodeid), lock);
    if (failed(found)) return request.fail(found);
    const { view } = request, at = request.bodyAt;
    view.setBigUint64(at + lkOut.start, found.start, true);
    view.setBigUint64(at + lkOut.end, found.end, true);
    view.setUint32(at + lkOut.type, lockTypes.indexOf(found.type), true);
    view.setUint32(at + lkOut.pid, found.pid, true);
    return request.finish(lkOut.sizeof);
  }

  *#setlk(request: FuseRequest, cancel: Future<void> | null): Task<number> {
    const lock = decodeLock(request), inode = this.#inode(request.nodeid);
    if (failed(lock)) return request.fail(lock);
    this.#noteLock(inode, lock, request.u64(lkIn.fh));
    const outcome = yield* this.fileSystem.setLock(inode, lock, cancel !== null, cancel ?? new Future<void>());
    // Granted while the mount went away: nobody else would drop it.
    if (this.#closed) yield* this.fileSystem.dropLocks(inode, lock.flock, lock.ownerLow, lock.ownerHigh);
    return done(request, outcome);
  }

  *#setlkw(request: FuseRequest): Task<number> {
    if (this.#parked >= parkedLocksMax) return request.fail(E.NOLCK);
    const cancel = new Future<void>();
    this.#inFlight.set(request.unique, cancel);
    this.#parked++;
    const length = yield* this.#setlk(request, cancel);
    this.#parked--;
    return length;
  }

  /** Remembers the owner before the lock is asked for: a close that comes meanwhile must drop it. */
  #noteLock(inode: number, lock: Lock, handle: number): void {
    const key = lockKey(lock.flock, lock.ownerLow, lock.ownerHigh);
    const owners = this.#locks.get(inode);
    if (lock.type === "unlock") {
      if (lock.start > 0n || lock.end < lockEnd || !owners?.delete(key)) return;
      if (owners.size === 0) this.#locks.delete(inode);
      return;
    }
    const held = { flock: lock.flock, ownerLow: lock.ownerLow, ownerHigh: lock.ownerHigh, handle };
    if (owners === undefined) this.#locks.set(inode, new Map([[key, held]]));
    else owners.set(key, held);
  }
}

/**
 * Whether setuid and setgid of a file go with a change of its contents that the kernel has no flag for. CAP_FSETID would
 * keep them; what is known of it is that root has it.
 */
function killsUnasked(request: FuseRequest): boolean {
  return request.uid !== 0;
}

/** Data that a request whose reply has `length` bytes read or wrote. */
function bytesMoved({ opcode, data }: FuseRequest, length: number): number {
  return opcode === FUSE.READ ? length - outHeader.sizeof : opcode === FUSE.WRITE ? data.length : 0;
}

/** Waits for an operation that has nothing to say but an errno, and replies. */
function* finished(request: FuseRequest, operation: Task<object | number>): Task<number> {
  return done(request, yield* operation);
}

// deno-lint-ignore require-yield
function* refused(request: FuseRequest, errno: number): Task<number> {
  return request.fail(errno);
}

/** What open(2)'s flags want to write. */
function writingOf(flags: number): Writing | undefined {
  if ((flags & O.ACCMODE) === 0) return undefined;
  return (flags & O.APPEND) !== 0 ? "end" : "anywhere";
}

/** The reply to an operation that has nothing to say but an errno. */
function done(request: FuseRequest, outcome: object | number): number {
  return typeof outcome === "number" && outcome !== 0 ? request.fail(outcome) : request.finish(0);
}

function lockKey(flock: boolean, ownerLow: number, ownerHigh: number): string {
  return `${flock ? "f" : "p"}${ownerHigh}:${ownerLow}`;
}

/** Lock types by the kernel's number. */
const lockTypes = ["read", "write", "unlock"] as const;

function decodeLock(request: FuseRequest): Result<Lock> {
  const type = request.u32(lkIn.type), flock = (request.u32(lkIn.lkFlags) & FUSE_LK_FLOCK) !== 0;
  if (type > LK.UNLCK) return E.INVAL;
  const start = flock ? 0n : request.bigU64(lkIn.start), end = flock ? lockEnd : request.bigU64(lkIn.end);
  if (end > lockEnd) return E.OVERFLOW;
  if (start > end) return E.INVAL;
  return {
    flock,
    type: lockTypes[type],
    ownerLow: request.u32(lkIn.owner),
    ownerHigh: request.u32(lkIn.owner + 4),
    pid: request.u32(lkIn.pid),
    start,
    end,
  };
}

const dotName = new Uint8Array([0x2e]), dotDotName = new Uint8Array([0x2e, 0x2e]);

/** "." has cookie 1 and ".." cookie 2: those that come after `cookie`. */
function dots(cookie: number, node: number, parent: number): Dirent[] {
  const type = S.IFDIR >> 12;
  const both: Dirent[] = [
    { name: dotName, node, type, cookie: 1, attributes: null, valid: noValidity },
    { name: dotDotName, node: parent, type, cookie: 2, attributes: null, valid: noValidity },
  ];
  return both.slice(Math.min(cookie, 2));
}

function startsWith(name: Uint8Array, prefix: Uint8Array): boolean {
  if (name.length < prefix.length) return false;
  for (let i = 0; i < prefix.length; i++) if (name[i] !== prefix[i]) return false;
  return true;
}

/** EOPNOTSUPP for a namespace that is not kept (system.* but for POSIX ACLs), as for a name without one. */
function checkAttributeName(name: Uint8Array): number {
  if (name.length > 255) return E.RANGE;
  if (sameName(name, accessAclName) || sameName(name, defaultAclName)) return 0;
  const namespace = xattrNamespaces.find((prefix) => startsWith(name, prefix));
  if (namespace === undefined) return E.OPNOTSUPP;
  return name.length === namespace.length ? E.INVAL : 0;
}

/** A list of NUL-ended names without those of trusted.*. */
function withoutTrusted(names: Uint8Array): Uint8Array {
  const kept: number[] = [];
  for (let at = 0; at < names.length;) {
    const nul = names.indexOf(0, at), end = nul < 0 ? names.length : nul + 1;
    const name = names.subarray(at, end);
    if (!startsWith(name, trustedNamespace)) kept.push(...name);
    at = end;
  }
  return Uint8Array.from(kept);
}
