/**
 * The classic FUSE transport: requests are read from /dev/fuse and replies written to it, by direct system calls of the
 * reactor's thread. The ring only tells when there is something to read; then the device is drained until EAGAIN.
 *
 * At most `requestsInFlightMax` requests are under way, each in a buffer of its own. With all buffers busy nothing is
 * read until one is free: the kernel queues. Blocking lock requests, the only ones that may wait without bound, hold
 * no buffer, so buffers come free within the file system's time limit and an INTERRUPT always gets through.
 *
 * The thread that runs this must never touch its own mount: it would wait for itself.
 *
 * @module
 */

import { fuseBufferBytes, FuseRequest, fuseRequestAt, outHeader } from "../../core/fuse/protocol.ts";
import { FuseSession, requestsInFlightMax } from "../../core/fuse/session.ts";
import { closeFd, errno, errnoText, F, libc, O, POLL, systemError } from "../libc.ts";
import type { Poll, Reactor } from "../reactor.ts";
import type { FuseNotifier } from "./notifier.ts";

const ENOENT = 2, EINTR = 4, EAGAIN = 11, ENODEV = 19, ECONNABORTED = 103;

/** Failed reads in one turn for which there is no reason. */
const failuresMax = 16;
/** Requests read before other work of the reactor gets its turn. */
const readsPerTurnMax = 256;

/** Counters of a transport since its start. */
export interface FuseDeviceStatistics {
  requests: number;
  replies: number;
  /** Replies that the kernel no longer wanted. */
  undelivered: number;
  /** Times that reading stopped because all buffers were busy. */
  starved: number;
}

/** What a {@linkcode FuseDevice} needs. */
export interface FuseDeviceOptions {
  reactor: Reactor;
  /** Descriptor of /dev/fuse, mounted. The device closes it at its end. */
  fd: number;
  session: FuseSession;
  /** What the session notifies the kernel by, if it does. */
  notifier?: FuseNotifier;
  /**
   * Called once, when the mount is gone (unmounted, aborted, or {@linkcode FuseDevice.stop}) and everything that was
   * open has been released. `reason` is for the log.
   */
  onEnd: (reason: string) => void;
  /** Read only when the completions that came with the device's have been heard: an INTERRUPT may be of one of them. */
  readsLate?: boolean;
}

/** A buffer with its addresses. */
interface Slot {
  request: FuseRequest;
  readAddress: bigint;
  replyAddress: bigint;
}

const readBytes = BigInt(fuseBufferBytes - fuseRequestAt);
/** Lengths as the C library takes them, for replies without data. */
const smallLengths = Array.from({ length: 512 }, (_, length) => BigInt(length));

/** Serves one mount. See the module's comment. */
export class FuseDevice {
  readonly statistics: FuseDeviceStatistics = { requests: 0, replies: 0, undelivered: 0, starved: 0 };
  readonly #options: FuseDeviceOptions;
  readonly #free: Slot[] = [];
  #slots = 0;
  #active = 0;
  #poll: Poll | null = null;
  #starved = false;
  #ending: string | null = null;
  #closed = false;

  /** Throws when the descriptor is not one or the arena has no room for a single buffer. */
  constructor(options: FuseDeviceOptions) {
    this.#options = options;
    const first = this.#grow();
    if (first === null) throw new Error("cannot serve a mount: the buffer arena is full");
    this.#free.push(first);
    if (libc.fcntl(options.fd, F.SETFL, O.RDWR | O.NONBLOCK) < 0) throw systemError("use", "the FUSE device");
  }

  /** Begins to serve. */
  start(): void {
    const { reactor, fd, readsLate } = this.#options;
    this.#poll = reactor.poll(fd, POLL.IN, (events) => {
      if (events < 0) this.#end(`poll: ${errnoText(events)}`);
      else if (readsLate === true) reactor.defer(() => this.#drain());
      else this.#drain();
    });
  }

  /** Ends the mount from this side: programs that use it get ENOTCONN. Unmounting is the orderly way. */
  stop(): void {
    this.#end("stopped");
  }

  /** Requests under way. */
  get active(): number {
    return this.#active;
  }

  #grow(): Slot | null {
    const { arena } = this.#options.reactor;
    const bytes = this.#slots < requestsInFlightMax ? arena.allocate(fuseBufferBytes) : null;
    if (bytes === null) return null;
    this.#slots++;
    const request = new FuseRequest(bytes), address = arena.addressOf(bytes);
    return {
      request,
      readAddress: BigInt(address + request.requestAt),
      replyAddress: BigInt(address + request.replyAt),
    };
  }

  #drain(): void {
    const { fd, reactor } = this.#options;
    for (let reads = 0, failures = 0; reads < readsPerTurnMax; reads++) {
      if (this.#ending !== null) return;
      const slot = this.#free.pop() ?? this.#grow();
      if (slot === null) {
        this.#starved = true;
        this.statistics.starved++;
        return;
      }
      const length = libc.read(fd, slot.readAddress, readBytes);
      if (length >= 0) {
        this.#serve(slot, length);
        continue;
      }
      const why = errno();
      this.#free.push(slot);
      if (why === EAGAIN) return;
      // ENOENT: the request was taken back while it was being read.
      if (why === EINTR || why === ENOENT) continue;
      // A reason that is none may be another call's: asked again, the device gives its own.
      if (why !== ENODEV && why !== ECONNABORTED && ++failures < failuresMax) continue;
      this.#end(why === ENODEV ? "unmounted" : why === ECONNABORTED ? "aborted" : errnoText(why));
      return;
    }
    reactor.defer(() => this.#drain());
  }

  #serve(slot: Slot, length: number): void {
    const { request } = slot;
    this.statistics.requests++;
    if (!request.decode(length)) {
      this.#free.push(slot);
      return;
    }
    if (FuseSession.mayPark(request)) {
      const parked = request.detach();
      this.#free.push(slot);
      this.#run(parked, null);
    } else this.#run(request, slot);
  }

  #run(request: FuseRequest, slot: Slot | null): void {
    const { reactor, session } = this.#options;
    this.#active++;
    const length = session.answer(request);
    if (length >= 0) this.#answer(request, slot, length);
    else reactor.scheduler.start(session.work(request), (length) => this.#answer(request, slot, length));
  }

  /** Writes the reply now: the program that waits for it should not wait for the rest of the turn. */
  #answer(request: FuseRequest, slot: Slot | null, length: number): void {
    if (length > 0 && !this.#write(request, slot, length)) {
      this.statistics.undelivered++;
      if (request.handle !== 0) {
        const { reactor, session } = this.#options;
        reactor.scheduler.spawn(session.undelivered(request)).listen(() => this.#finished(slot));
        return;
      }
    }
    this.#finished(slot);
  }

  #finished(slot: Slot | null): void {
    this.#active--;
    if (slot !== null) this.#free.push(slot);
    if (this.#ending !== null) this.#endIfIdle();
    else if (this.#starved && slot !== null) {
      this.#starved = false;
      this.#options.reactor.defer(() => this.#drain());
    }
  }

  #write(request: FuseRequest, slot: Slot | null, length: number): boolean {
    if (this.#closed) return false;
    const { fd } = this.#options;
    const bytes = length < smallLengths.length ? smallLengths[length] : BigInt(length);
    const written = slot === null
      ? libc.writeBuffer(fd, request.bytes.slice(request.replyAt, request.replyAt + outHeader.sizeof), bytes)
      : libc.write(fd, slot.replyAddress, bytes);
    if (written === length) {
      this.statistics.replies++;
      return true;
    }
    const why = errno();
    // ENOENT: the request was aborted; the others: the mount is gone.
    if (why !== ENOENT && why !== ENODEV && why !== ECONNABORTED && this.#ending === null) {
      this.#options.reactor.log("error", "fuse", `reply to opcode ${request.opcode} refused: ${errnoText(why)}`);
    }
    return false;
  }

  #end(reason: string): void {
    if (this.#ending !== null) return;
    this.#ending = reason;
    this.#poll?.cancel();
    const { reactor, session } = this.#options;
    if (reason !== "unmounted") {
      // The last descriptor of the device gone, the kernel fails what is under way and what comes.
      this.#close();
    }
    this.#active++;
    reactor.scheduler.spawn(session.close()).listen(() => this.#finished(null));
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.notifier?.close();
    closeFd(this.#options.fd);
  }

  #endIfIdle(): void {
    if (this.#active > 0) return;
    const { reactor, onEnd } = this.#options;
    this.#close();
    for (const slot of this.#free) reactor.arena.release(slot.request.bytes);
    this.#free.length = 0;
    onEnd(this.#ending!);
  }
}
