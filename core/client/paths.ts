/**
 * A volume by path: what a program does with names, with the checks and errnos of Linux's system calls, over any
 * {@linkcode FileSystem}. For front ends without a kernel that would walk and check (the library). Paths are bytes; see
 * walk.ts for where they lead.
 *
 * An inode that went away between being found and being used is looked for again, a few times; so a reader of a file
 * that others replace by rename sees one or the other, never ESTALE.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { type Attributes, isDirectory, isRegular, S } from "../meta/attributes.ts";
import { targetBytesMax } from "../meta/layout.ts";
import type { Time } from "../runtime.ts";
import type { Scheduler, Task } from "../task.ts";
import {
  accessErrno,
  chmodMode,
  chownErrno,
  isAclName,
  isMember,
  isSuperuser,
  may,
  ownerErrno,
  stickyErrno,
  xattrErrno,
  xattrIsShown,
} from "./access.ts";
import {
  type AttributeChange,
  type Caller,
  type DirectoryEntry,
  type Done,
  done,
  type FileSystem,
  type Inspection,
  xattrFlags,
} from "./filesystem.ts";
import { type Removal, type RemovalOptions, removeTree } from "./remove_tree.ts";
import { type LinksMet, type Usage, usageOf } from "./usage.ts";
import { isSymlink, type Last, Walk } from "./walk.ts";

/** Times that an operation is begun anew because what it found had gone. */
export const attemptsMax = 8;

/** A path's end as an operation on names needs it. */
interface Place {
  walk: Walk;
  last: Last;
}

/** A moment to set, or the server's "now". */
export type SetTime = Time | "now";

/** What {@linkcode Paths} works with. */
export interface PathsOptions {
  fileSystem: FileSystem;
  /** Owns what is made, and is checked against modes. */
  who: Caller;
  /** Runs what is done in parallel. */
  scheduler: Scheduler;
  /** A number for an open file's locks, never given twice in a session. */
  newLockOwner: () => number;
}

/** See the module's comment. Used from one reactor; every method is a task. */
export class Paths {
  readonly fileSystem: FileSystem;
  readonly who: Caller;
  readonly scheduler: Scheduler;
  readonly newLockOwner: () => number;

  constructor(options: PathsOptions) {
    this.fileSystem = options.fileSystem;
    this.who = options.who;
    this.scheduler = options.scheduler;
    this.newLockOwner = options.newLockOwner;
  }

  /** Attributes of what a path names; of a link itself without `follow`. */
  *stat(path: Uint8Array, follow: boolean): Task<Result<Attributes>> {
    return yield* this.again(() => this.find(path, follow));
  }

  /** The absolute path, from the volume's root, without links and dots. */
  *realPath(path: Uint8Array): Task<Result<Uint8Array>> {
    return yield* this.again(() => this.#realPath(path));
  }

  /** Target of a symbolic link; EINVAL for anything else. */
  *readLink(path: Uint8Array): Task<Result<Uint8Array>> {
    return yield* this.again(() => this.#readLink(path));
  }

  /** mkdir(2). */
  *makeDirectory(path: Uint8Array, mode: number): Task<Result<Attributes>> {
    return yield* this.again(() => this.#makeDirectory(path, mode));
  }

  /** Makes a directory and those above it that are absent; one that is there is no error. */
  *makeDirectories(path: Uint8Array, mode: number): Task<Done> {
    const chain = [path];
    let made = yield* this.makeDirectory(path, mode);
    for (let up = above(path); made === E.NOENT && up !== null; up = above(up)) {
      chain.push(up);
      made = yield* this.makeDirectory(up, mode);
    }
    if (failed(made) && made !== E.EXIST) return made;
    if (!failed(made)) chain.pop();
    for (let next = chain.pop(); next !== undefined; next = chain.pop()) {
      const errno = yield* this.#ensureDirectory(next, mode);
      if (errno !== 0) return errno;
    }
    return done;
  }

  /** Removes a name: unlink(2), or rmdir(2) for a directory, which must be empty. */
  *remove(path: Uint8Array): Task<Done> {
    return yield* this.again(() => this.#remove(path));
  }

  /**
   * Removes a name and, if it is a directory, everything below it. Links are removed, not followed. Without `keepGoing`
   * the first problem is the errno.
   */
  *removeAll(path: Uint8Array, options: RemovalOptions = {}): Task<Result<Removal>> {
    return yield* this.again(() => this.#removeAll(path, options));
  }

  /** What a tree takes; a link is counted itself. `met`: files with several names, shared by those who sum up. */
  *usage(path: Uint8Array, met: LinksMet = new Map()): Task<Result<Usage>> {
    const found = yield* this.stat(path, false);
    return failed(found) ? found : yield* usageOf(this, { attributes: found, path }, met);
  }

  /** Where what a path names is, and who uses it; a link itself. */
  *inspect(path: Uint8Array): Task<Result<Inspection>> {
    return yield* this.again(() => this.#inspect(path));
  }

  /** rename(2): replaces a file, or an empty directory by a directory. */
  *rename(from: Uint8Array, to: Uint8Array): Task<Done> {
    return yield* this.again(() => this.#rename(from, to));
  }

  /** link(2): a symbolic link at the end of `from` is linked itself. */
  *link(from: Uint8Array, to: Uint8Array): Task<Done> {
    return yield* this.again(() => this.#link(from, to));
  }

  /** symlink(2). */
  *symlink(target: Uint8Array, path: Uint8Array): Task<Done> {
    return yield* this.again(() => this.#symlink(target, path));
  }

  /** chmod(2): `mode` is 0..07777. */
  *setMode(path: Uint8Array, mode: number): Task<Done> {
    return yield* this.#change(path, true, (inode) => {
      return ownerErrno(inode, this.who) || { mode: chmodMode(inode, mode, this.who) };
    });
  }

  /** chown(2), of a link itself without `follow`; null leaves. */
  *setOwner(path: Uint8Array, owner: { uid: number | null; gid: number | null }, follow: boolean): Task<Done> {
    const { uid, gid } = owner;
    return yield* this.#change(path, follow, (inode) => {
      const errno = chownErrno(inode, uid, gid, this.who);
      if (errno !== 0) return errno;
      const change: AttributeChange = {};
      if (uid !== null) change.uid = uid;
      if (gid !== null) change.gid = gid;
      if (!isDirectory(inode.mode)) change.killSetId = true;
      return change;
    });
  }

  /** utimensat(2), of a link itself without `follow`. */
  *setTimes(path: Uint8Array, times: { atime: SetTime; mtime: SetTime }, follow: boolean): Task<Done> {
    const { fileSystem, who } = this;
    return yield* this.#change(
      path,
      follow,
      () => ({ ...times }),
      (inode) => timesErrno(fileSystem, inode, times, who),
    );
  }

  /** truncate(2). */
  *truncate(path: Uint8Array, size: number): Task<Done> {
    const change = (inode: Attributes): Result<AttributeChange> => {
      if (isDirectory(inode.mode)) return E.ISDIR;
      return isRegular(inode.mode) ? { size, killSetId: !isSuperuser(this.who) } : E.INVAL;
    };
    return yield* this.#change(path, true, change, (inode) => {
      return accessErrno(this.fileSystem, inode, this.who, may.write);
    });
  }

  /** A directory that may be read, for {@linkcode readDirectory}. */
  *openDirectory(path: Uint8Array): Task<Result<Attributes>> {
    return yield* this.again(() => this.#openDirectory(path));
  }

  /** Entries after `cookie` (0 = from the first); empty at the end. */
  *readDirectory(dir: number, cookie: number, limitBytes: number): Task<Result<DirectoryEntry[]>> {
    const page = yield* this.fileSystem.readDirectory(dir, cookie, limitBytes, { plus: false });
    // Removed while it is read: it has no more entries.
    return page === E.NOENT ? [] : page;
  }

  /** getxattr(2); of a link itself without `follow`. */
  *getExtendedAttribute(path: Uint8Array, name: Uint8Array, follow: boolean): Task<Result<Uint8Array>> {
    return yield* this.again(() => this.#getExtendedAttribute(path, name, follow));
  }

  /** setxattr(2): flags XATTR_CREATE 1, XATTR_REPLACE 2. */
  *setExtendedAttribute(
    path: Uint8Array,
    name: Uint8Array,
    value: Uint8Array,
    options: { flags: number; follow: boolean },
  ): Task<Done> {
    const { flags, follow } = options;
    return yield* this.#changeExtended(path, name, follow, (inode) => {
      const keeps = !isAclName(name) || isSuperuser(this.who) || isMember(this.who, inode.gid);
      const all = keeps ? flags : flags | xattrFlags.killSetgid;
      return this.fileSystem.setExtendedAttribute(inode.inode, name, value, all);
    });
  }

  /** Names that the caller may see. */
  *listExtendedAttributes(path: Uint8Array, follow: boolean): Task<Result<Uint8Array[]>> {
    return yield* this.again(() => this.#listExtendedAttributes(path, follow));
  }

  /** removexattr(2). */
  *removeExtendedAttribute(path: Uint8Array, name: Uint8Array, follow: boolean): Task<Done> {
    return yield* this.#changeExtended(path, name, follow, (inode) => {
      return this.fileSystem.removeExtendedAttribute(inode.inode, name);
    });
  }

  /** Runs `make` anew while it ends with ESTALE, a few times. */
  *again<T extends object>(make: () => Task<Result<T>>): Task<Result<T>> {
    let result: Result<T> = E.STALE;
    for (let attempt = 0; attempt < attemptsMax && result === E.STALE; attempt++) result = yield* make();
    return result;
  }

  /** One walk to what a path names. */
  *find(path: Uint8Array, follow: boolean): Task<Result<Attributes>> {
    return yield* new Walk(this.fileSystem, this.who).to(path, follow);
  }

  /** EROFS, EACCES or EEXIST when the name of `last` cannot be made where `walk` stands; else 0. */
  *createErrno(walk: Walk, last: Last): Task<number> {
    if (last.kind !== "name") return E.EXIST;
    const errno = yield* this.#writeErrno(walk);
    if (errno === 0) return 0;
    // What is there already is said first, as the kernel does.
    return (yield* this.#isThere(last)) ? E.EXIST : errno;
  }

  *#isThere(last: Last): Task<boolean> {
    return !failed(yield* this.fileSystem.lookup(last.dir, last.name));
  }

  /** EROFS or EACCES when names cannot be changed where `walk` stands; else 0. */
  *#writeErrno(walk: Walk): Task<number> {
    return this.fileSystem.readOnly ? E.ROFS : yield* walk.accessErrno(may.write | may.execute);
  }

  *#place(path: Uint8Array): Task<Result<Place>> {
    const walk = new Walk(this.fileSystem, this.who);
    const last = yield* walk.toParent(path);
    return failed(last) ? last : { walk, last };
  }

  *#realPath(path: Uint8Array): Task<Result<Uint8Array>> {
    const walk = new Walk(this.fileSystem, this.who);
    const found = yield* walk.to(path, true);
    return failed(found) ? found : walk.path;
  }

  *#readLink(path: Uint8Array): Task<Result<Uint8Array>> {
    const found = yield* this.find(path, false);
    if (failed(found)) return found;
    return isSymlink(found.mode) ? yield* this.fileSystem.readLink(found.inode) : E.INVAL;
  }

  *#makeDirectory(path: Uint8Array, mode: number): Task<Result<Attributes>> {
    const place = yield* this.#place(path);
    if (failed(place)) return place;
    const errno = yield* this.createErrno(place.walk, place.last);
    if (errno !== 0) return errno;
    return yield* this.fileSystem.makeDirectory(place.last.dir, place.last.name, mode & 0o1777, this.who);
  }

  *#ensureDirectory(path: Uint8Array, mode: number): Task<number> {
    const made = yield* this.makeDirectory(path, mode);
    if (!failed(made)) return 0;
    if (made !== E.EXIST) return made;
    const found = yield* this.stat(path, true);
    // A link that leads nowhere is in the way like a file.
    if (failed(found)) return found === E.IO ? found : E.EXIST;
    return isDirectory(found.mode) ? 0 : E.EXIST;
  }

  /** errno of taking the name away; `found` is what it names, null when that was not needed to know. */
  *#removalErrno(place: Place): Task<{ errno: number; found: Attributes | null }> {
    const { walk, last } = place, { fileSystem, who } = this;
    if (last.kind === "root") return { errno: E.BUSY, found: null };
    if (last.kind !== "name") return { errno: last.kind === "dot" ? E.INVAL : E.NOTEMPTY, found: null };
    let found: Attributes | null = null;
    if (last.slash || !isSuperuser(who)) {
      const looked = yield* fileSystem.lookup(last.dir, last.name);
      if (failed(looked)) return { errno: looked, found };
      found = looked;
      if (last.slash && !isDirectory(found.mode)) return { errno: E.NOTDIR, found };
    }
    const errno = yield* this.#writeErrno(walk);
    if (errno !== 0 || found === null || isSuperuser(who)) return { errno, found };
    const dir = yield* walk.attributes();
    return { errno: failed(dir) ? dir : stickyErrno(dir, found, who), found };
  }

  *#remove(path: Uint8Array): Task<Done> {
    const place = yield* this.#place(path);
    if (failed(place)) return place;
    const { errno } = yield* this.#removalErrno(place);
    if (errno !== 0) return errno;
    const { dir, name } = place.last;
    // Another client may put a file in a directory's place and back.
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const unlinked = yield* this.fileSystem.unlink(dir, name);
      if (unlinked !== E.ISDIR) return unlinked;
      const removed = yield* this.fileSystem.removeDirectory(dir, name);
      if (removed !== E.NOTDIR) return removed;
    }
    return E.BUSY;
  }

  *#removeAll(path: Uint8Array, options: RemovalOptions): Task<Result<Removal>> {
    const place = yield* this.#place(path);
    if (failed(place)) return place;
    const { errno } = yield* this.#removalErrno(place);
    if (errno !== 0) return errno;
    const { dir, name } = place.last;
    const removal = yield* removeTree(this, { dir, name, path }, options);
    return options.keepGoing ? removal : removal.problems[0]?.errno ?? removal;
  }

  *#inspect(path: Uint8Array): Task<Result<Inspection>> {
    const found = yield* this.find(path, false);
    return failed(found) ? found : yield* this.fileSystem.inspect(found.inode);
  }

  *#rename(from: Uint8Array, to: Uint8Array): Task<Done> {
    const source = yield* this.#place(from);
    if (failed(source)) return source;
    const target = yield* this.#place(to);
    if (failed(target)) return target;
    if (source.last.kind !== "name" || target.last.kind !== "name") return E.BUSY;
    const errno = yield* this.#renameErrno(source, target);
    if (errno !== 0) return errno;
    return yield* this.fileSystem.rename(source.last.dir, source.last.name, target.last.dir, target.last.name, 0);
  }

  *#renameErrno(source: Place, target: Place): Task<number> {
    const { errno, found } = yield* this.#removalErrno(source);
    if (errno !== 0) return errno;
    const moved = found ??
      (target.last.slash ? yield* this.fileSystem.lookup(source.last.dir, source.last.name) : null);
    if (moved !== null && failed(moved)) return moved;
    if (target.last.slash && moved !== null && !isDirectory(moved.mode)) return E.NOTDIR;
    if (isSuperuser(this.who)) return yield* this.#writeErrno(target.walk);
    const victim = yield* this.#removalErrno({ ...target, last: { ...target.last, slash: false } });
    const targetErrno = victim.errno === E.NOENT ? yield* this.#writeErrno(target.walk) : victim.errno;
    if (targetErrno !== 0) return targetErrno;
    // A directory that moves elsewhere has its ".." changed.
    if (moved === null || !isDirectory(moved.mode) || source.last.dir === target.last.dir) return 0;
    return yield* accessErrno(this.fileSystem, moved, this.who, may.write);
  }

  *#link(from: Uint8Array, to: Uint8Array): Task<Done> {
    const found = yield* this.find(from, false);
    if (failed(found)) return found;
    const place = yield* this.#place(to);
    if (failed(place)) return place;
    const errno = yield* this.#nameErrno(place);
    if (errno !== 0) return errno;
    if (isDirectory(found.mode)) return (yield* this.#isThere(place.last)) ? E.EXIST : E.PERM;
    const linked = yield* this.fileSystem.link(found.inode, place.last.dir, place.last.name);
    return failed(linked) ? linked : done;
  }

  *#symlink(target: Uint8Array, path: Uint8Array): Task<Done> {
    if (target.length === 0) return E.NOENT;
    if (target.length > targetBytesMax) return E.NAMETOOLONG;
    if (target.includes(0)) return E.INVAL;
    const place = yield* this.#place(path);
    if (failed(place)) return place;
    const errno = yield* this.#nameErrno(place);
    if (errno !== 0) return errno;
    const options = { mode: S.IFLNK | 0o777, target, exclusive: true, open: false };
    const made = yield* this.fileSystem.create(place.last.dir, place.last.name, options, this.who);
    return failed(made) ? made : done;
  }

  /** As {@linkcode createErrno}, for what cannot be a directory: a slash after a free name is ENOENT. */
  *#nameErrno(place: Place): Task<number> {
    const errno = yield* this.createErrno(place.walk, place.last);
    if (errno !== 0 || !place.last.slash) return errno;
    return (yield* this.#isThere(place.last)) ? E.EXIST : E.NOENT;
  }

  /** Finds an inode and changes it as `judge` says, or ends with its errno, or with that of `check`. */
  *#change(
    path: Uint8Array,
    follow: boolean,
    judge: (inode: Attributes) => Result<AttributeChange>,
    check: (inode: Attributes) => Task<number> = allowed,
  ): Task<Done> {
    return yield* this.again(() => this.#changeOnce(path, follow, judge, check));
  }

  *#changeOnce(
    path: Uint8Array,
    follow: boolean,
    judge: (inode: Attributes) => Result<AttributeChange>,
    check: (inode: Attributes) => Task<number>,
  ): Task<Done> {
    const found = yield* this.find(path, follow);
    if (failed(found)) return found;
    if (this.fileSystem.readOnly) return E.ROFS;
    const change = judge(found);
    if (failed(change)) return change;
    const errno = yield* check(found);
    if (errno !== 0) return errno;
    const changed = yield* this.fileSystem.setAttributes(found.inode, change);
    return failed(changed) ? changed : done;
  }

  *#openDirectory(path: Uint8Array): Task<Result<Attributes>> {
    const found = yield* this.find(path, true);
    if (failed(found)) return found;
    if (!isDirectory(found.mode)) return E.NOTDIR;
    return (yield* accessErrno(this.fileSystem, found, this.who, may.read)) || found;
  }

  *#getExtendedAttribute(path: Uint8Array, name: Uint8Array, follow: boolean): Task<Result<Uint8Array>> {
    const found = yield* this.find(path, follow);
    if (failed(found)) return found;
    const errno = yield* xattrErrno(this.fileSystem, found, name, { who: this.who, change: false });
    return errno || (yield* this.fileSystem.getExtendedAttribute(found.inode, name));
  }

  *#changeExtended(
    path: Uint8Array,
    name: Uint8Array,
    follow: boolean,
    change: (inode: Attributes) => Task<Done>,
  ): Task<Done> {
    return yield* this.again(() => this.#changeExtendedOnce(path, name, follow, change));
  }

  *#changeExtendedOnce(
    path: Uint8Array,
    name: Uint8Array,
    follow: boolean,
    change: (inode: Attributes) => Task<Done>,
  ): Task<Done> {
    const found = yield* this.find(path, follow);
    if (failed(found)) return found;
    if (this.fileSystem.readOnly) return E.ROFS;
    const errno = yield* xattrErrno(this.fileSystem, found, name, { who: this.who, change: true });
    return errno || (yield* change(found));
  }

  *#listExtendedAttributes(path: Uint8Array, follow: boolean): Task<Result<Uint8Array[]>> {
    const found = yield* this.find(path, follow);
    if (failed(found)) return found;
    const names = yield* this.fileSystem.listExtendedAttributes(found.inode);
    return failed(names) ? names : split(names).filter((name) => xattrIsShown(name, this.who));
  }
}

// deno-lint-ignore require-yield
function* allowed(): Task<number> {
  return 0;
}

/** errno of setting times: "now" needs write permission, another moment ownership. */
export function* timesErrno(
  fileSystem: FileSystem,
  inode: Attributes,
  times: { atime: SetTime; mtime: SetTime },
  who: Caller,
): Task<number> {
  const owner = ownerErrno(inode, who);
  if (owner === 0 || times.atime !== "now" || times.mtime !== "now") return owner;
  return yield* accessErrno(fileSystem, inode, who, may.write);
}

/** The path of the directory above, as text has it; null when there is no more above. */
function above(path: Uint8Array): Uint8Array | null {
  const slash = 0x2f;
  let end = path.length;
  while (end > 0 && path[end - 1] === slash) end--;
  while (end > 0 && path[end - 1] !== slash) end--;
  while (end > 0 && path[end - 1] === slash) end--;
  return end === 0 ? null : path.subarray(0, end);
}

function split(names: Uint8Array): Uint8Array[] {
  const list: Uint8Array[] = [];
  for (let at = 0; at < names.length;) {
    const nul = names.indexOf(0, at), end = nul < 0 ? names.length : nul;
    list.push(names.subarray(at, end));
    at = end + 1;
  }
  return list;
}
