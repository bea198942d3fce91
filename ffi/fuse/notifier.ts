/**
 * How one mount notifies the kernel: what does not wait there is written to the device at once, what may wait for a lock is
 * written by the keeper (ffi/keeper_process.ts), in another process.
 *
 * @module
 */

import { batchBytesMax, type KernelNotifier } from "../../core/fuse/kernel_cache.ts";
import { Future } from "../../core/task.ts";
import { answerBytes, keeperMessageBytes, numberBytes } from "../keeper_messages.ts";
import { closeFd, errno, libc, POLL } from "../libc.ts";
import type { Poll, Reactor } from "../reactor.ts";

const EIO = 5, EAGAIN = 11, ENODEV = 19;
const MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000;

/** The way of notifications to the kernel of one mount. Once the mount is gone everything answers ENODEV. */
export class FuseNotifier implements KernelNotifier {
  readonly #reactor: Reactor;
  readonly #device: number;
  readonly #keeper: number;
  readonly #buffer: Uint8Array;
  readonly #waiting = new Map<number, Future<number>>();
  #poll: Poll | null = null;
  #number = 0;
  #mayWait = false;
  #gone = false;

  /** `device`: the mount's; `keeper`: the socket of the mount's keeper, -1 without one. */
  constructor(reactor: Reactor, { device, keeper }: { device: number; keeper: number }) {
    this.#reactor = reactor;
    this.#device = device;
    this.#keeper = keeper;
    const buffer = keeper < 0 ? null : reactor.arena.allocate(keeperMessageBytes);
    this.#buffer = buffer ?? new Uint8Array(0);
    if (buffer !== null) this.#poll = reactor.poll(keeper, POLL.IN | POLL.RDHUP, (events) => this.#drain(events));
  }

  /** True once the keeper holds the mount, and as long as it is there. */
  get mayWait(): boolean {
    return this.#mayWait;
  }

  /** The device is about to be closed. */
  close(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#lost();
    if (this.#keeper >= 0) closeFd(this.#keeper);
  }

  write(message: Uint8Array): number {
    if (this.#gone) return ENODEV;
    return libc.writeBuffer(this.#device, message as Uint8Array<ArrayBuffer>, BigInt(message.length)) < 0 ? errno() : 0;
  }

  writeLater(messages: Uint8Array): Future<number> {
    if (!this.#mayWait) return Future.of(ENODEV);
    const number = this.#number = this.#number % 0xffffffff + 1, bytes = this.#buffer;
    const length = numberBytes + Math.min(messages.length, batchBytesMax);
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, number, true);
    bytes.set(messages.subarray(0, length - numberBytes), numberBytes);
    const address = BigInt(this.#reactor.arena.addressOf(bytes));
    const sent = libc.send(this.#keeper, address, BigInt(length), MSG_DONTWAIT | MSG_NOSIGNAL);
    // A keeper that is behind by a whole socket buffer gets no more.
    if (sent !== length) return Future.of(EAGAIN);
    const settled = new Future<number>();
    this.#waiting.set(number, settled);
    return settled;
  }

  nowMs(): number {
    return this.#reactor.nowMs();
  }

  sleep(ms: number): Future<void> {
    return this.#reactor.sleep(ms);
  }

  #drain(events: number): void {
    const address = BigInt(this.#reactor.arena.addressOf(this.#buffer));
    for (;;) {
      const length = libc.recv(this.#keeper, address, BigInt(keeperMessageBytes), MSG_DONTWAIT);
      if (length === answerBytes) {
        this.#answered(new DataView(this.#buffer.buffer, this.#buffer.byteOffset, answerBytes));
        continue;
      }
      if (length === 0 || events < 0 || (events & (POLL.HUP | POLL.ERR)) !== 0) this.#lost();
      return;
    }
  }

  #answered(view: DataView): void {
    const number = view.getUint32(0, true), why = view.getUint32(4, true), waiting = this.#waiting.get(number);
    this.#waiting.delete(number);
    if (number !== 0) {
      waiting?.resolve(why);
      return;
    }
    this.#mayWait = why === 0;
    if (why !== 0) {
      this.#reactor.log("info", "fuse", "names are not kept by the kernel: its connections are not to be seen");
    }
  }

  /** The keeper is gone: what the kernel has been given runs out. */
  #lost(): void {
    if (this.#poll === null) return;
    this.#poll.cancel();
    this.#poll = null;
    if (this.#mayWait && !this.#gone) this.#reactor.log("warn", "fuse", "the keeper of this mount has ended");
    this.#mayWait = false;
    this.#reactor.arena.release(this.#buffer);
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const one of waiting) one.resolve(EIO);
  }
}
