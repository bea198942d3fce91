/**
 * A volume as a {@linkcode FileSystem}: the front door of the client core. Each operation's story is in the file of its
 * subject (namespace, attributes, data, ranges, directory, xattr, locks, statistics); here is only who may do what: a
 * deleted volume answers ESTALE to everything, a read-only one EROFS to changes, and files that were open when the
 * session died EIO until they are closed.
 *
 * @module
 */

import { E, type Result } from "../errno.ts";
import type { Attributes } from "../meta/attributes.ts";
import type { Future, Task } from "../task.ts";
import { setAttributes } from "./attributes.ts";
import { copyRange } from "./copy.ts";
import { append, read, sync, write } from "./data.ts";
import { clearDirectory, readDirectory, tallyDirectory } from "./directory.ts";
import {
  type AllocateRange,
  type AttributeChange,
  type Caller,
  type Cleared,
  type CopyRange,
  type CreateOptions,
  type DirectoryEntry,
  type Done,
  done,
  type FileSystem,
  type Inspection,
  type ListOptions,
  type Lock,
  type OpenOptions,
  type ReadOptions,
  type Tally,
  type Totals,
  type VoidListener,
  type Whence,
} from "./filesystem.ts";
import { changedGhost } from "./ghosts.ts";
import { inspect } from "./inspect.ts";
import { absent } from "./lease_cache.ts";
import { dropLocks, setLock, testLock } from "./locks.ts";
import {
  create,
  createUnnamed,
  link,
  lookup,
  makeDirectory,
  open,
  openKnown,
  parent,
  readLink,
  removeDirectory,
  rename,
  unlink,
} from "./namespace.ts";
import { allocate, seek } from "./ranges.ts";
import type { ClientSession } from "./session.ts";
import { statistics } from "./statistics.ts";
import { Volume, type VolumeOptions } from "./volume.ts";
import {
  getExtendedAttribute,
  listExtendedAttributes,
  removeExtendedAttribute,
  setExtendedAttribute,
} from "./xattr.ts";

/** See the module's comment. Several of them share a session. */
export class VolumeClient implements FileSystem {
  #volume: Volume;

  /**
   * `volumeId` as in the map; `readOnly` is the mount's wish, besides the volume's own setting. Access times are relatime
   * for everything when nothing is said.
   */
  constructor(session: ClientSession, options: VolumeOptions) {
    this.#volume = new Volume(session, options);
  }

  get root(): number {
    return this.#volume.root;
  }

  get readOnly(): boolean {
    return this.#volume.readOnly;
  }

  /** Number of the volume, as in the map. */
  get volumeId(): number {
    return this.#volume.id;
  }

  lookup(dir: number, name: Uint8Array): Task<Result<Attributes>> {
    const errno = this.#volume.gone;
    return errno === 0 ? lookup(this.#volume, dir, name) : refused(errno);
  }

  *parent(dir: number): Task<Result<Attributes>> {
    return this.#volume.gone || (yield* parent(this.#volume, dir));
  }

  *getAttributes(inode: number): Task<Result<Attributes>> {
    if (this.#volume.gone) return this.#volume.gone;
    const found = yield* this.#volume.attributes(inode);
    return found === E.STALE ? this.#volume.gone || (this.#volume.ghost(inode) ?? found) : found;
  }

  *setAttributes(inode: number, change: AttributeChange): Task<Result<Attributes>> {
    const errno = this.#volume.unwritable || (change.size === undefined ? 0 : this.#volume.staleness(inode));
    if (errno !== 0) return errno;
    const changed = yield* setAttributes(this.#volume, inode, change);
    return changed === E.STALE ? this.#volume.gone || this.#changeGhost(inode, change) : changed;
  }

  create(dir: number, name: Uint8Array, options: CreateOptions, caller: Caller): Task<Result<Attributes>> {
    const errno = this.#volume.unwritable;
    return errno === 0 ? create(this.#volume, dir, name, options, caller) : refused(errno);
  }

  *createUnnamed(
    dir: number,
    options: { mode: number; linkable: boolean },
    caller: Caller,
  ): Task<Result<Attributes>> {
    return this.#volume.unwritable || (yield* createUnnamed(this.#volume, dir, options, caller));
  }

  *makeDirectory(dir: number, name: Uint8Array, mode: number, caller: Caller): Task<Result<Attributes>> {
    return this.#volume.unwritable || (yield* makeDirectory(this.#volume, dir, name, mode, caller));
  }

  unlink(dir: number, name: Uint8Array): Task<Done> {
    const errno = this.#volume.unwritable;
    return errno === 0 ? unlink(this.#volume, dir, name) : refused(errno);
  }

  *removeDirectory(dir: number, name: Uint8Array): Task<Done> {
    return this.#volume.unwritable || (yield* removeDirectory(this.#volume, dir, name));
  }

  *rename(dir: number, name: Uint8Array, newDir: number, newName: Uint8Array, flags: number): Task<Done> {
    const from = { dir, name }, to = { dir: newDir, name: newName };
    return this.#volume.unwritable || (yield* rename(this.#volume, from, to, flags));
  }

  *link(inode: number, dir: number, name: Uint8Array): Task<Result<Attributes>> {
    return this.#volume.unwritable || (yield* link(this.#volume, inode, dir, name));
  }

  *readLink(inode: number): Task<Result<Uint8Array>> {
    return this.#volume.gone || (yield* readLink(this.#volume, inode));
  }

  open(inode: number, options: OpenOptions): Task<Result<Attributes>> {
    const errno = (options.truncate ? this.#volume.unwritable : this.#volume.gone) || this.#volume.staleness(inode);
    return errno === 0 ? open(this.#volume, inode, options) : refused(errno);
  }

  // deno-lint-ignore require-yield
  *release(inode: number): Task<Done> {
    this.#volume.session.opens.close(inode);
    return done;
  }

  read(
    inode: number,
    offset: number,
    into: Uint8Array,
    options: ReadOptions = {},
  ): Task<Result<{ count: number }>> {
    const errno = this.#unreadable(inode);
    return errno === 0 ? read(this.#volume, { inode, offset, into, ...options }) : refused(errno);
  }

  write(inode: number, offset: number, data: Uint8Array, options: { killSetId: boolean }): Task<Done> {
    const errno = this.#unwritable(inode);
    return errno === 0 ? write(this.#volume, inode, offset, data, options) : refused(errno);
  }

  *append(inode: number, data: Uint8Array, options: { killSetId: boolean }): Task<Result<{ offset: number }>> {
    return this.#unwritable(inode) || (yield* append(this.#volume, inode, data, options));
  }

  *allocate(inode: number, range: AllocateRange): Task<Done> {
    return this.#unwritable(inode) || (yield* allocate(this.#volume, inode, range));
  }

  *copyRange(copy: CopyRange): Task<Result<{ count: number }>> {
    const errno = this.#unreadable(copy.from) || this.#unwritable(copy.to);
    return errno || (yield* copyRange(this.#volume, copy));
  }

  *seek(inode: number, offset: number, whence: Whence): Task<Result<{ offset: number }>> {
    return this.#unreadable(inode) || (yield* seek(this.#volume, inode, offset, whence));
  }

  *sync(inode: number): Task<Done> {
    return this.#unreadable(inode) || (yield* this.#unlessGhost(inode, sync(this.#volume, inode), done));
  }

  *readDirectory(
    dir: number,
    cookie: number,
    limitBytes: number,
    options: ListOptions,
  ): Task<Result<DirectoryEntry[]>> {
    return this.#volume.gone || (yield* readDirectory(this.#volume, { dir, cookie, limitBytes, ...options }));
  }

  hold(dir: number): void {
    this.#volume.hold(dir);
  }

  letGo(dir: number): void {
    this.#volume.ghosts.letGo(dir);
  }

  forget(inode: number): void {
    this.#volume.ghosts.forget(inode);
  }

  *clearDirectory(dir: number, cookie: number, owner: number | null): Task<Result<Cleared>> {
    return this.#volume.unwritable || (yield* clearDirectory(this.#volume, dir, cookie, owner));
  }

  *tallyDirectory(dir: number, cookie: number): Task<Result<Tally>> {
    return this.#volume.gone || (yield* tallyDirectory(this.#volume, dir, cookie));
  }

  *inspect(inode: number): Task<Result<Inspection>> {
    return this.#volume.gone || (yield* inspect(this.#volume, inode));
  }

  *getExtendedAttribute(inode: number, name: Uint8Array): Task<Result<Uint8Array>> {
    const read = getExtendedAttribute(this.#volume, inode, name);
    return this.#volume.gone || (yield* this.#unlessGhost(inode, read, E.NODATA));
  }

  *setExtendedAttribute(inode: number, name: Uint8Array, value: Uint8Array, flags: number): Task<Done> {
    return this.#volume.unwritable || (yield* setExtendedAttribute(this.#volume, inode, name, value, flags));
  }

  *listExtendedAttributes(inode: number): Task<Result<Uint8Array>> {
    const listed = listExtendedAttributes(this.#volume, inode);
    return this.#volume.gone || (yield* this.#unlessGhost(inode, listed, new Uint8Array(0)));
  }

  *removeExtendedAttribute(inode: number, name: Uint8Array): Task<Done> {
    return this.#volume.unwritable || (yield* removeExtendedAttribute(this.#volume, inode, name));
  }

  *testLock(inode: number, lock: Lock): Task<Result<Lock>> {
    return this.#unreadable(inode) || (yield* testLock(this.#volume, inode, lock));
  }

  *setLock(inode: number, lock: Lock, block: boolean, cancel: Future<void>): Task<Done> {
    return this.#unreadable(inode) || (yield* setLock(this.#volume, inode, lock, block, cancel));
  }

  *dropLocks(inode: number, flock: boolean, ownerLow: number, ownerHigh: number): Task<Done> {
    return this.#volume.gone || (yield* dropLocks(this.#volume, inode, flock, ownerLow, ownerHigh));
  }

  *statistics(): Task<Result<Totals>> {
    return this.#volume.gone || (yield* statistics(this.#volume));
  }

  known(inode: number): Attributes | null {
    return this.#volume.gone !== 0 ? null : this.#volume.session.leases.attributes(inode);
  }

  openKnown(inode: number): Attributes | null {
    return this.#unreadable(inode) === 0 ? openKnown(this.#volume, inode) : null;
  }

  knownEntry(dir: number, name: Uint8Array): Result<Attributes> | null {
    const { leases } = this.#volume.session;
    const inode = this.#volume.gone !== 0 ? undefined : leases.name(dir, name);
    if (inode === undefined) return null;
    return inode === absent ? E.NOENT : leases.attributes(inode);
  }

  validityMs(attributes: Attributes): number {
    return this.#volume.session.leases.validityMs(attributes);
  }

  nameValidityMs(dir: number, name: Uint8Array, inode: number): number {
    return this.#volume.session.leases.nameValidityMs(dir, name, inode);
  }

  watch(listener: VoidListener): void {
    this.#volume.session.leases.watch(listener);
  }

  /** What an operation says, or `instead` when the inode is gone and is a ghost here. */
  *#unlessGhost<T extends object>(inode: number, task: Task<Result<T>>, instead: Result<T>): Task<Result<T>> {
    const result = yield* task;
    if (result !== E.STALE || this.#volume.gone || this.#volume.ghost(inode) === null) return result;
    return instead;
  }

  #changeGhost(inode: number, change: AttributeChange): Result<Attributes> {
    const ghost = this.#volume.ghost(inode);
    const changed = ghost && changedGhost(ghost, change, this.#volume.session.runtime.wallTime());
    return changed === null ? E.STALE : this.#volume.seen(changed);
  }

  #unreadable(inode: number): number {
    return this.#volume.gone || this.#volume.staleness(inode);
  }

  #unwritable(inode: number): number {
    return this.#volume.unwritable || this.#volume.staleness(inode);
  }
}

/** An operation that ends with an errno before it begins. */
// deno-lint-ignore require-yield
function* refused(errno: number): Task<number> {
  return errno;
}
