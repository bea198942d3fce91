/**
 * One socket as core's Link: frames in, frames out, over the reactor's io_uring.
 *
 * Receiving: small frames are parsed where the kernel put them (multishot receive into a ring of buffers); a large
 * frame is received straight into a pool buffer. Sending: everything of a turn is copied into arena chunks and leaves
 * as one send. The descriptor is closed only when no operation names it any more. Knows of a frame its length only.
 *
 * @module
 */

import type { Link } from "../core/runtime.ts";
import { Future } from "../core/task.ts";
import { frameBytesMax, headBytes } from "../core/protocol/frame.ts";
import { type Arena, bufferBytesMax } from "./arena.ts";
import { type Bytes, checked, closeFd, errnoText, libc } from "./libc.ts";
import type { Completion, Reactor } from "./reactor.ts";
import { type BufferRing, CQE, setAddress } from "./ring.ts";

/** Bytes that may wait to be sent on one link; one more frame closes it. */
export const queueBytesMaxDefault = 64 << 20;
/** How long `close` lets what was sent before it leave. */
export const lingerMs = 1000;
/** What is missing of a frame is received straight into its buffer when it is more than this. */
export const directBytesMin = 16384;
/** Smallest buffer for frames to send. */
const chunkBytesMin = 16384;
/** Chunks grow with the queue up to this, so that few of them hold much. */
const chunkBytesGrow = 262144;
/** Chunks that one send gathers. */
export const gatherMax = 16;
/** msghdr (56 bytes, padded) and the iovecs of one gathered send. */
export const messageBytes = 64 + gatherMax * 16;
/** Receives without a large frame after which a link goes back to multishot. */
const bulkReceives = 16;
const MSG_DONTWAIT = 0x40, MSG_WAITALL = 0x100, MSG_NOSIGNAL = 0x4000;
const ENOBUFS = 105, ECANCELED = 125, EAGAIN = 11, EINTR = 4;
const SHUT_RDWR = 2;

/** Counters of all links of a network. */
export interface LinkStatistics {
  framesIn: number;
  framesOut: number;
  bytesIn: number;
  bytesOut: number;
  /** Links closed for a frame length outside 56..frameBytesMax. */
  badFrames: number;
  /** Links closed because their send queue was over its limit. */
  overflows: number;
}

/** What all links of a network share. */
export interface LinkContext {
  readonly reactor: Reactor;
  readonly buffers: BufferRing;
  readonly bufferGroup: number;
  readonly queueBytesMax: number;
  readonly statistics: LinkStatistics;
  /** A place for `messageBytes` bytes that stays untouched until the next submission: its arena offset. */
  messageScratch(): number;
  /** Asks for {@linkcode SocketLink.flush} at the end of the turn. */
  markDirty(link: SocketLink): void;
  /** The link is over: its descriptor is closed or handed over. */
  removed(link: SocketLink): void;
}

/** What {@linkcode SocketLink.detach} leaves: for another reactor's network to adopt. */
export interface DetachedLink {
  fd: number;
  /** Bytes received behind the last frame that was delivered. */
  received: Bytes;
}

interface Chunk {
  offset: number;
  /** First byte not sent, first byte free, and size. */
  start: number;
  end: number;
  room: number;
}

const connecting = 0, open = 1, closing = 2, detaching = 3, closed = 4;

/** A link over a stream socket. */
export class SocketLink implements Link {
  onFrame: (frame: Uint8Array) => void = () => {};
  onClose: (reason: string) => void = () => {};
  /** Frames longer than this are refused: lower it until a peer has shown who it is. */
  frameBytesMax: number = frameBytesMax;
  /** Frames delivered. */
  framesIn = 0;
  #state = connecting;
  #fd = -1;
  // The owner is not to be told of the end (any more).
  #ended = false;
  #released = false;
  readonly #context: LinkContext;
  readonly #arena: Arena;

  // Receiving. An assembly is a frame of which some bytes are there: in the pool, or on the heap when that is full.
  readonly #receiveSlot: number;
  #receiving = false;
  #cancelling = false;
  #delivering = false;
  #bulkLeft = 0;
  readonly #lengthBytes = new Uint8Array(4);
  #lengthHave = 0;
  #assemblyOffset = -1;
  #assemblyHeap: Uint8Array | null = null;
  #assemblyLength = 0;
  #assemblyHave = 0;

  // Sending.
  readonly #sendSlot: number;
  #sending = false;
  #chunks: Chunk[] = [];
  #queuedBytes = 0;
  #dirty = false;
  #connectScratch = -1;

  #detached: { future: Future<DetachedLink>; parts: Uint8Array[] } | null = null;

  /** Made by a network, which then opens or connects it. */
  constructor(context: LinkContext, public peer: string) {
    this.#context = context;
    this.#arena = context.reactor.arena;
    this.#receiveSlot = context.reactor.register(new Receiver(this));
    this.#sendSlot = context.reactor.register(new Sender(this));
  }

  /** Bytes that wait to be sent. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** True until the link failed or was closed. */
  get alive(): boolean {
    return this.#state === connecting || this.#state === open;
  }

  /** True before {@linkcode open}. */
  get connecting(): boolean {
    return this.#state === connecting;
  }

  /** Takes a connected socket and starts to receive. */
  open(fd: number): void {
    this.#fd = fd;
    this.#state = open;
    this.#receive();
    if (this.#queuedBytes > 0) this.#markDirty();
  }

  /** Starts to connect a socket; opens the link or fails it. */
  connect(fd: number, address: Uint8Array): void {
    this.#fd = fd;
    const at = this.#arena.take(address.length);
    if (at < 0) return this.fail("out of buffers");
    this.#arena.u8.set(address, at);
    this.#connectScratch = at;
    this.#sending = true;
    this.#context.reactor.ring.connect(this.#sendSlot, fd, this.#arena.base + at, address.length);
  }

  /** As core's Link: both parts are copied; ignored when the link is over. */
  send(head: Uint8Array, data?: Uint8Array): void {
    if (this.#state > open) return;
    const total = head.length + (data === undefined ? 0 : data.length);
    if (this.#queuedBytes + total > this.#context.queueBytesMax) {
      this.#context.statistics.overflows++;
      return this.fail(`${this.#queuedBytes} bytes wait to be sent: the peer does not read`);
    }
    this.#queuedBytes += total;
    if (!this.#append(head, total) || (data !== undefined && !this.#append(data, data.length))) {
      return this.fail("out of buffers");
    }
    this.#context.statistics.framesOut++;
    if (this.#state === open) this.#markDirty();
  }

  /** Closes the link; what was sent before may still leave within `lingerMs`. Does not call onClose. */
  close(): void {
    this.#ended = true;
    if (this.#state > open) return;
    if (this.#state === connecting || this.#queuedBytes === 0) return this.#tearDown();
    this.#state = closing;
    this.#cancelReceive();
    this.#markDirty();
    this.#context.reactor.after(lingerMs, () => {
      if (this.#state === closing) this.#tearDown();
    });
  }

  /** Ends the link for `reason`: onClose is called once, later in this turn or in the next. */
  fail(reason: string): void {
    if (this.#state > open) {
      if (this.#state === closing) this.#tearDown();
      return;
    }
    this.#tearDown();
    if (this.#ended) return;
    this.#context.reactor.defer(() => {
      if (this.#ended) return;
      this.#ended = true;
      this.onClose(reason);
    });
  }

  /**
   * Gives the socket away, for another reactor: to be called inside `onFrame`, after which neither onFrame nor onClose
   * is called. Settles when no operation of this reactor names the descriptor and what was sent before has left.
   */
  detach(): Future<DetachedLink> {
    if (!this.#delivering || this.#state !== open) throw new Error("detach() belongs inside onFrame of an open link");
    this.#state = detaching;
    this.#ended = true;
    this.#detached = { future: new Future<DetachedLink>(), parts: [] };
    this.#cancelReceive();
    // The rest of the buffer being parsed is still to come: finish at the end of the turn.
    this.#markDirty();
    return this.#detached.future;
  }

  /** Treats bytes that another reactor received as if they had come from the socket now. */
  feed(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length && this.#state === open;) {
      const part = bytes.subarray(done, done + bufferBytesMax);
      const at = this.#arena.take(part.length);
      if (at < 0) return this.fail("out of buffers");
      this.#arena.u8.set(part, at);
      this.#consume(at, at + part.length);
      this.#arena.drop(at);
      done += part.length;
    }
  }

  /**
   * Hands what is queued to the kernel, unless a send is under way. For the network's end-of-turn hook. With few links
   * to flush a plain send (`direct`) is cheaper by 5 %: through the ring its completion only ends the wait for the
   * answer. With many the ring is, by 10 %, as one call submits them all. The ring takes what a plain send leaves.
   */
  flush(way: "direct" | "ring"): void {
    this.#dirty = false;
    if (this.#sending || this.#state === connecting) return;
    if (way === "direct" && this.#state !== closed && this.#chunks.length > 0) this.#sendNow();
    if (this.#state === closed || this.#chunks.length === 0) return this.#finish();
    this.#sending = true;
    const { ring } = this.#context.reactor;
    if (this.#chunks.length > 1) {
      ring.sendMessage(this.#sendSlot, this.#fd, this.#arena.base + this.#gather(), MSG_NOSIGNAL | MSG_WAITALL);
      return;
    }
    const { offset, start, end } = this.#chunks[0];
    ring.send(this.#sendSlot, this.#fd, this.#arena.base + offset + start, end - start, MSG_NOSIGNAL | MSG_WAITALL);
  }

  /** A completion of the receive slot. */
  received(res: number, flags: number): void {
    this.#receiving = (flags & CQE.MORE) !== 0;
    if (!this.#receiving) this.#cancelling = false;
    if ((flags & CQE.BUFFER) !== 0) {
      const id = flags >>> 16;
      const at = this.#context.buffers.offsetOf(id);
      if (res > 0) this.#consume(at, at + res);
      this.#context.buffers.give(id);
    } else if (res > 0) {
      this.#receivedDirect(res);
    }
    if (res <= 0) this.#receiveEnded(res);
    if (this.#receiving) return;
    if (this.#state === open) this.#receive();
    else this.#finish();
  }

  /** A completion of the send slot: of the connect, then of sends. */
  sent(res: number): void {
    this.#sending = false;
    if (this.#connectScratch >= 0) return this.#connected(res);
    this.#took(res);
    if (this.#state === closed) return this.#finish();
    if (this.#chunks.length > 0 || this.#state !== open) this.#markDirty();
  }

  #connected(res: number): void {
    this.#arena.drop(this.#connectScratch);
    this.#connectScratch = -1;
    if (this.#state !== connecting) return this.#finish();
    if (res < 0) return this.fail(`cannot connect: ${errnoText(res)}`);
    this.open(this.#fd);
  }

  #markDirty(): void {
    if (this.#dirty) return;
    this.#dirty = true;
    this.#context.markDirty(this);
  }

  #receive(): void {
    const { reactor, bufferGroup } = this.#context;
    this.#receiving = true;
    if (this.#wantsDirect()) {
      const at = this.#arena.base + this.#assemblyOffset + this.#assemblyHave;
      const missing = this.#assemblyLength - this.#assemblyHave;
      reactor.ring.receive(this.#receiveSlot, this.#fd, at, missing, MSG_WAITALL);
      return;
    }
    // Large frames tend to come in rows: receive one piece at a time, so that nothing has to be cancelled.
    const bulk = this.#bulkLeft > 0;
    if (bulk) this.#bulkLeft--;
    reactor.ring.receiveProvided(this.#receiveSlot, this.#fd, bufferGroup, !bulk);
  }

  #wantsDirect(): boolean {
    return this.#assemblyOffset >= 0 && this.#assemblyLength - this.#assemblyHave > directBytesMin;
  }

  #cancelReceive(): void {
    if (!this.#receiving || this.#cancelling) return;
    this.#cancelling = true;
    this.#context.reactor.ring.cancel(this.#receiveSlot);
  }

  #receiveEnded(res: number): void {
    if (res === -ENOBUFS || res === -ECANCELED || res === -EAGAIN || res === -EINTR) return;
    // A detached link's next owner meets the end of the stream itself.
    if (this.#state === detaching) return;
    this.fail(res === 0 ? "the peer closed the connection" : errnoText(res));
  }

  #receivedDirect(bytes: number): void {
    this.#context.statistics.bytesIn += bytes;
    this.#assemblyHave += bytes;
    if (this.#state === open && this.#assemblyHave === this.#assemblyLength) this.#deliverAssembly();
  }

  /** Takes the bytes at arena offsets `at` to `end`: whole frames are delivered in place. */
  #consume(at: number, end: number): void {
    this.#context.statistics.bytesIn += end - at;
    const u8 = this.#arena.u8;
    while (at < end && this.#state === open) {
      if (this.#assemblyLength > 0) {
        at = this.#fillAssembly(at, end);
        continue;
      }
      if (this.#lengthHave > 0 || end - at < 4) {
        this.#lengthBytes[this.#lengthHave++] = u8[at++];
        if (this.#lengthHave === 4) this.#startAssembly(readLength(this.#lengthBytes, 0), this.#lengthBytes);
        continue;
      }
      const length = readLength(u8, at);
      if (!this.#lengthAllowed(length)) return;
      if (length <= end - at) {
        this.#deliver(u8.subarray(at, at + length));
        at += length;
      } else {
        this.#startAssembly(length, null);
      }
    }
    if (this.#state === detaching && at < end) this.#detached!.parts.push(u8.slice(at, end));
    // A multishot receive would go on to bring a large frame in pieces: end it.
    if (this.#state === open && this.#wantsDirect()) this.#cancelReceive();
  }

  #lengthAllowed(length: number): boolean {
    if (length >= headBytes && length <= this.frameBytesMax) return true;
    this.#context.statistics.badFrames++;
    this.fail(`bad frame length ${length}`);
    return false;
  }

  #startAssembly(length: number, first: Uint8Array | null): void {
    this.#lengthHave = 0;
    if (!this.#lengthAllowed(length)) return;
    this.#assemblyLength = length;
    this.#assemblyHave = 0;
    this.#assemblyOffset = this.#arena.take(length);
    // With the pool exhausted the frame still has to be received, or its link would never get on.
    if (this.#assemblyOffset < 0) this.#assemblyHeap = new Uint8Array(length);
    if (length > directBytesMin) this.#bulkLeft = bulkReceives;
    if (first === null) return;
    if (this.#assemblyHeap !== null) this.#assemblyHeap.set(first);
    else this.#arena.u8.set(first, this.#assemblyOffset);
    this.#assemblyHave = first.length;
  }

  #fillAssembly(at: number, end: number): number {
    const stop = Math.min(end, at + this.#assemblyLength - this.#assemblyHave);
    const u8 = this.#arena.u8;
    if (this.#assemblyHeap !== null) this.#assemblyHeap.set(u8.subarray(at, stop), this.#assemblyHave);
    else u8.copyWithin(this.#assemblyOffset + this.#assemblyHave, at, stop);
    this.#assemblyHave += stop - at;
    if (this.#assemblyHave === this.#assemblyLength) this.#deliverAssembly();
    return stop;
  }

  #deliverAssembly(): void {
    const offset = this.#assemblyOffset, length = this.#assemblyLength;
    const frame = this.#assemblyHeap ?? this.#arena.u8.subarray(offset, offset + length);
    this.#assemblyLength = 0;
    this.#assemblyOffset = -1;
    this.#assemblyHeap = null;
    this.#deliver(frame);
    if (offset >= 0) this.#arena.drop(offset);
  }

  #deliver(frame: Uint8Array): void {
    this.#context.statistics.framesIn++;
    this.framesIn++;
    this.#delivering = true;
    this.onFrame(frame);
    this.#delivering = false;
  }

  /** Copies `bytes` behind what is queued; `ahead` is the room that is going to be needed from here. */
  #append(bytes: Uint8Array, ahead: number): boolean {
    let done = 0;
    while (done < bytes.length) {
      let chunk = this.#chunks[this.#chunks.length - 1];
      if (chunk === undefined || chunk.end === chunk.room) {
        const grown = Math.min(this.#queuedBytes, chunkBytesGrow);
        const offset = this.#arena.take(Math.min(Math.max(ahead - done, chunkBytesMin, grown), bufferBytesMax));
        if (offset < 0) return false;
        chunk = { offset, start: 0, end: 0, room: this.#arena.room(offset) };
        this.#chunks.push(chunk);
      }
      const count = Math.min(bytes.length - done, chunk.room - chunk.end);
      const part = count === bytes.length ? bytes : bytes.subarray(done, done + count);
      this.#arena.u8.set(part, chunk.offset + chunk.end);
      chunk.end += count;
      done += count;
    }
    return true;
  }

  #sendNow(): void {
    const base = this.#arena.base;
    if (this.#chunks.length > 1) {
      const message = BigInt(base + this.#gather());
      return this.#took(checked(libc.sendmsg(this.#fd, message, MSG_NOSIGNAL | MSG_DONTWAIT)));
    }
    const { offset, start, end } = this.#chunks[0];
    const address = BigInt(base + offset + start);
    this.#took(checked(libc.send(this.#fd, address, BigInt(end - start), MSG_NOSIGNAL | MSG_DONTWAIT)));
  }

  /** Acts on the result of a send: a count, or minus errno. */
  #took(res: number): void {
    if (res > 0) return this.#consumeSent(res);
    if (res === 0 || res === -EAGAIN || res === -EINTR || this.#state === closed) return;
    // The next owner of a detached link meets the error itself.
    if (this.#state === detaching) this.#dropChunks();
    else this.fail(errnoText(res));
  }

  /** Describes the first chunks in a msghdr and returns its arena offset. */
  #gather(): number {
    const u32 = this.#arena.u32, base = this.#arena.base;
    const scratch = this.#context.messageScratch();
    const header = scratch >> 2;
    const count = Math.min(this.#chunks.length, gatherMax);
    // msghdr: iov at byte 16, their number at 24; names, control data and flags are none.
    u32.fill(0, header, header + 16);
    setAddress(u32, header + 4, base + scratch + 64);
    u32[header + 6] = count;
    for (let i = 0; i < count; i++) {
      const { offset, start, end } = this.#chunks[i];
      const vector = header + 16 + i * 4;
      setAddress(u32, vector, base + offset + start);
      u32[vector + 2] = end - start;
      u32[vector + 3] = 0;
    }
    return scratch;
  }

  #consumeSent(bytes: number): void {
    this.#context.statistics.bytesOut += bytes;
    this.#queuedBytes -= bytes;
    let drop = 0;
    for (const chunk of this.#chunks) {
      const count = Math.min(bytes, chunk.end - chunk.start);
      chunk.start += count;
      bytes -= count;
      // The kernel is done with everything up to here, so a chunk that is used up can go, the last one too.
      if (chunk.start < chunk.end) break;
      this.#arena.drop(chunk.offset);
      drop++;
    }
    if (drop > 0) this.#chunks.splice(0, drop);
  }

  #dropChunks(): void {
    for (const { offset } of this.#chunks) this.#arena.drop(offset);
    this.#chunks = [];
    this.#queuedBytes = 0;
  }

  #tearDown(): void {
    this.#state = closed;
    this.#cancelReceive();
    if (this.#sending) this.#context.reactor.ring.cancel(this.#sendSlot);
    // Tells the peer now, and ends operations that a cancellation might miss.
    if (this.#fd >= 0) libc.shutdown(this.#fd, SHUT_RDWR);
    // Not here: the caller may be in the middle of parsing.
    this.#markDirty();
  }

  /** Lets go of everything once no operation is under way. Comes by more than once. */
  #finish(): void {
    if (this.#receiving || this.#sending) return;
    if (this.#state === closing) {
      if (this.#chunks.length === 0) this.#tearDown();
      return;
    }
    if (this.#state !== closed && this.#state !== detaching) return;
    if (this.#state === detaching && this.#chunks.length > 0) return this.#markDirty();
    if (this.#delivering || this.#released) return;
    this.#release();
  }

  #release(): void {
    this.#released = true;
    this.#dropChunks();
    if (this.#assemblyOffset >= 0) this.#arena.drop(this.#assemblyOffset);
    this.#assemblyOffset = -1;
    this.#assemblyHeap = null;
    const { reactor } = this.#context;
    reactor.unregister(this.#receiveSlot);
    reactor.unregister(this.#sendSlot);
    this.#context.removed(this);
    const fd = this.#fd, detached = this.#detached;
    this.#fd = -1;
    this.#state = closed;
    if (detached !== null) detached.future.resolve({ fd, received: joined(detached.parts) });
    else if (fd >= 0) closeFd(fd);
  }
}

class Receiver implements Completion {
  constructor(readonly link: SocketLink) {}
  complete(res: number, flags: number): void {
    this.link.received(res, flags);
  }
}

class Sender implements Completion {
  constructor(readonly link: SocketLink) {}
  complete(res: number, _flags: number): void {
    this.link.sent(res);
  }
}

function readLength(bytes: Uint8Array, at: number): number {
  return (bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24) >>> 0;
}

function joined(parts: readonly Uint8Array[]): Bytes {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
