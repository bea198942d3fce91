/**
 * What the kernel was told that it may keep, for how long, and how it is taken back when a lease ends.
 *
 * Attributes are taken back by INVAL_INODE, which waits for no lock. Names by INVAL_ENTRY, which waits for the directory's
 * lock: a program's own change of the directory, which may be waiting for others to give back their leases, holds it.
 * Therefore the names of a directory that this mount has changed lately are not given out at all, names are given for a
 * short time only, whatever their lease, and another process takes them back. A name only expires: what is mounted on it,
 * or stands in it, stays.
 *
 * The kernel takes a reply over some time after it was written: what it was told a moment ago is taken back again. Only
 * a name that is looked up anew while the kernel has it, by a program that then gets no processor for milliseconds, may so
 * outlive its lease, by that short time.
 *
 * @module
 */

import type { FileSystem } from "../client/filesystem.ts";
import { E } from "../errno.ts";
import type { Attributes } from "../meta/attributes.ts";
import { RecentMap } from "../recent_map.ts";
import { first, type Future, type Task, wait } from "../task.ts";
import { encodeInvalEntry, encodeInvalInode } from "./protocol.ts";

/** A directory that the mount changed gives out no names for this time. */
export const changedMs = 1_000;
/** A name is given out for this time at most: so long may two mounts that begin to change a directory wait for each other. */
export const nameMsMax = 1_000;
/** A name is believed to be taken over this long after its reply. */
const takenOverMs = 4;
/** An inode that the kernel does not have this long after it was told of has been dropped. */
const lateMs = 50;
const retryMs = 1;
/** Names given out at most, in all and of one directory; more are not kept by the kernel. */
const namesMax = 65_536, namesPerDirectoryMax = 4_096;
/** Most bytes of notifications that are written together. */
export const batchBytesMax = 16 * 1024;
/** Inodes and directories of which it is remembered when they were told of, or changed. */
const recentMax = 16_384;

/** The way of notifications to the kernel. */
export interface KernelNotifier {
  /** Writes one that does not wait in the kernel. errno; ENOENT: the kernel does not have the inode. */
  write(message: Uint8Array): number;
  /** True while those that wait may be written. */
  readonly mayWait: boolean;
  /** Writes some that may wait for a lock, back to back, {@linkcode batchBytesMax} at most. Settles with the errno. */
  writeLater(messages: Uint8Array): Future<number>;
  nowMs(): number;
  sleep(ms: number): Future<void>;
}

interface Given {
  names: Map<string, Uint8Array>;
  /** When the last of them runs out in the kernel. */
  untilMs: number;
}

/** See the module's comment. One a mount. */
export class KernelCache {
  readonly #fileSystem: FileSystem;
  readonly #notifier: KernelNotifier;
  readonly #node: (inode: number) => number;
  /** Names that the kernel may use without asking, by directory. */
  readonly #given = new Map<number, Given>();
  #names = 0;
  /** When an inode was last told of. */
  readonly #told = new RecentMap<number>(recentMax);
  /** When the mount last changed a directory. */
  readonly #changed = new RecentMap<number>(recentMax);
  /** True when names may be given out: the kernel can let them expire. */
  names = false;

  /** `node` gives an inode's number at the kernel. */
  constructor(fileSystem: FileSystem, notifier: KernelNotifier, node: (inode: number) => number) {
    this.#fileSystem = fileSystem;
    this.#notifier = notifier;
    this.#node = node;
    fileSystem.watch((inode) => this.#void(inode));
  }

  /** Milliseconds for which the kernel may use attributes that it is about to get. */
  attributesMs(attributes: Attributes): number {
    const ms = this.#fileSystem.validityMs(attributes);
    if (ms > 0) this.#tell(attributes.inode);
    return ms;
  }

  /** Milliseconds for which the kernel may use a name that it is about to hear of; `inode` 0: that there is none. */
  nameMs(dir: number, name: Uint8Array, inode: number): number {
    if (!this.names || !this.#notifier.mayWait) return 0;
    const nowMs = this.#notifier.nowMs();
    if (nowMs - (this.#changed.get(dir) ?? -Infinity) < changedMs) return 0;
    const ms = Math.min(this.#fileSystem.nameValidityMs(dir, name, inode), nameMsMax);
    if (ms <= 0) return 0;
    let given = this.#given.get(dir);
    if (given !== undefined && given.untilMs <= nowMs) this.#forget(dir);
    given = this.#given.get(dir);
    if (given === undefined) this.#given.set(dir, given = { names: new Map(), untilMs: 0 });
    const key = String.fromCharCode(...name);
    if (!given.names.has(key)) {
      if (given.names.size >= namesPerDirectoryMax || (this.#names >= namesMax && !this.#sweep(nowMs))) return 0;
      given.names.set(key, name.slice());
      this.#names++;
    }
    given.untilMs = Math.max(given.untilMs, nowMs + ms);
    this.#tell(dir);
    return ms;
  }

  /** The mount is about to change a directory. */
  changing(dir: number): void {
    this.#changed.set(dir, this.#notifier.nowMs());
  }

  #tell(inode: number): void {
    this.#told.set(inode, this.#notifier.nowMs());
  }

  /** A lease has ended. Null: nothing of it is left in the kernel; else a task that ends when that is so. */
  #void(inode: number): Task<void> | null {
    const message = encodeInvalInode(this.#node(inode));
    const known = this.#notifier.write(message) !== E.NOENT, given = this.#given.get(inode);
    const toldMs = this.#told.get(inode) ?? -Infinity;
    this.#forget(inode);
    // What the kernel knows it compares with what arrives late; of what it does not know yet a reply may be on its way.
    const coming = !known && this.#notifier.nowMs() - toldMs < lateMs;
    return given === undefined && !coming ? null : this.#voidSlowly(inode, given, coming ? message : null);
  }

  *#voidSlowly(inode: number, given: Given | undefined, coming: Uint8Array | null): Task<void> {
    const toldMs = this.#told.get(inode) ?? -Infinity, notifier = this.#notifier;
    while (coming !== null && notifier.nowMs() - toldMs < lateMs) {
      yield* wait(notifier.sleep(retryMs));
      if (notifier.write(coming) !== E.NOENT) coming = null;
    }
    if (given === undefined) return;
    const node = this.#node(inode),
      batches = inBatches([...given.names.values()].map((name) => encodeInvalEntry(node, name)));
    yield* this.#expire(batches, given);
    const sinceMs = notifier.nowMs() - toldMs;
    if (sinceMs < takenOverMs) {
      yield* wait(notifier.sleep(takenOverMs - sinceMs));
      yield* this.#expire(batches, given);
    }
  }

  /** Ends when the names are expired, or have run out by themselves. */
  *#expire(batches: readonly Uint8Array[], { untilMs }: Given): Task<void> {
    const leftMs = untilMs - this.#notifier.nowMs();
    if (leftMs <= 0) return;
    const over = this.#notifier.sleep(leftMs);
    for (const written of batches.map((batch) => this.#notifier.writeLater(batch))) {
      yield* wait(first<unknown>(written as Future<unknown>, over as Future<unknown>));
      if (over.settled) return;
      // ENOENT: the kernel does not have it. Anything else: it may.
      if (written.value !== 0 && written.value !== E.NOENT) return yield* wait(over);
    }
  }

  #forget(dir: number): void {
    const given = this.#given.get(dir);
    if (given === undefined) return;
    this.#names -= given.names.size;
    this.#given.delete(dir);
  }

  /** Forgets directories whose names have run out. False: there are none. */
  #sweep(nowMs: number): boolean {
    for (const [dir, given] of this.#given) if (given.untilMs <= nowMs) this.#forget(dir);
    return this.#names < namesMax;
  }
}

/** Joins notifications. */
function inBatches(messages: readonly Uint8Array[]): Uint8Array[] {
  const batches: Uint8Array[] = [];
  for (let from = 0, to = 0; from < messages.length; from = to) {
    let bytes = 0;
    while (to < messages.length && bytes + messages[to].length <= batchBytesMax) bytes += messages[to++].length;
    const batch = new Uint8Array(bytes);
    for (let at = 0, i = from; i < to; at += messages[i++].length) batch.set(messages[i], at);
    batches.push(batch);
  }
  return batches;
}
