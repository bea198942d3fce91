/**
 * What the kernel was told that it may keep, for how long, and how it is taken back when a lease ends.
 *
 * Attributes are kept, and taken back by INVAL_INODE, which waits for no lock. Names are not: to take one back the kernel
 * waits for its directory's lock, in a thread of this process that then outlives a kill, and with it the mount, whose
 * programs wait for replies that nobody will write. The client answers for names from under its leases instead.
 *
 * The kernel takes a reply over some time after it was written. What it knows already it compares with what arrives late;
 * an inode that it is just learning of is taken back again until it knows it.
 *
 * @module
 */

import type { FileSystem } from "../client/filesystem.ts";
import { E } from "../errno.ts";
import type { Attributes } from "../meta/attributes.ts";
import { type Future, type Task, wait } from "../task.ts";
import { encodeInvalInode } from "./protocol.ts";

/** An inode that the kernel does not have this long after it was told of has been dropped. */
const lateMs = 50;
const retryMs = 1;
/** Inodes of which it is remembered when they were told of. */
const recentMax = 16_384;

/** The way of notifications to the kernel. */
export interface KernelNotifier {
  /** Writes one that does not wait in the kernel. errno; ENOENT: the kernel does not have the inode. */
  write(message: Uint8Array): number;
  nowMs(): number;
  sleep(ms: number): Future<void>;
}

/** See the module's comment. One a mount. */
export class KernelCache {
  readonly #fileSystem: FileSystem;
  readonly #notifier: KernelNotifier;
  readonly #node: (inode: number) => number;
  /** When an inode was last told of, oldest first. */
  readonly #told = new Map<number, number>();

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

  #tell(inode: number): void {
    this.#told.delete(inode);
    this.#told.set(inode, this.#notifier.nowMs());
    if (this.#told.size > recentMax) this.#told.delete(this.#told.keys().next().value!);
  }

  /** A lease has ended. Null: nothing of it is left in the kernel; else a task that ends when that is so. */
  #void(inode: number): Task<void> | null {
    const message = encodeInvalInode(this.#node(inode));
    if (this.#notifier.write(message) !== E.NOENT) return null;
    const toldMs = this.#told.get(inode) ?? -Infinity;
    return this.#notifier.nowMs() - toldMs < lateMs ? this.#voidAgain(message, toldMs + lateMs) : null;
  }

  *#voidAgain(message: Uint8Array, untilMs: number): Task<void> {
    while (this.#notifier.nowMs() < untilMs) {
      yield* wait(this.#notifier.sleep(retryMs));
      if (this.#notifier.write(message) !== E.NOENT) return;
    }
  }
}
