/**
 * Messages between the main thread, which has the event loop, and a reactor Worker, which never returns to it.
 *
 * Two byte rings in shared memory, one a direction; the reactor is woken by an eventfd in its io_uring, the main
 * thread by Atomics.waitAsync. Messages are Uint8Arrays or whatever cbor-x encodes; they arrive whole and in order.
 * Both queues are bounded: senders on the main thread wait, the reactor is told "no". Not for data: a message is
 * copied twice.
 *
 * @module
 */

import { decode, encode } from "cbor-x";
import { Future } from "../core/task.ts";
import { closeFd, libc, O, POLL, systemError } from "./libc.ts";
import type { Poll, Reactor } from "./reactor.ts";

/** Room of each direction unless asked otherwise. One message must fit. */
export const mailboxBytesDefault = 1 << 20;
/** Messages that may wait for room on either side before sending fails. */
export const waitingMessagesMax = 4096;
/** How long {@linkcode MainMailbox.call} waits for the reply unless asked otherwise. */
export const callTimeoutMsDefault = 10_000;
const headerBytes = 12;
const controlWords = 8;
/** The hook that wakes the main thread comes after all others. */
const wakeOrder = 1000;

// Message kinds; `rawKind` is added when the payload is bytes and not CBOR.
const kindPost = 1, kindCall = 2, kindReply = 3, kindFailure = 4, kindDeath = 5;
const rawKind = 0x100;

/** What a Worker needs to open its end: can be sent with postMessage. */
export interface MailboxPort {
  memory: SharedArrayBuffer;
  eventFd: number;
}

/** A reply: what the other side answered, or why there is no answer. */
export type Reply = { ok: true; value: unknown } | { ok: false; error: string };

/** Answers a call, once. */
export interface Answer {
  reply(value: unknown): void;
  fail(error: string): void;
}

interface Packet {
  kind: number;
  id: number;
  payload: Uint8Array;
}

// Control words of a queue: positions count bytes modulo 2^32.
const readAt = 0, writeAt = 1, roomWantedAt = 2;
// The word of the reactor-to-main queue on which the main thread waits.
const signalAt = 3;

/** A byte ring with one sending and one receiving thread. */
class SharedQueue {
  readonly control: Int32Array<SharedArrayBuffer>;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  readonly #header = new Uint32Array(3);
  readonly #headerBytes = new Uint8Array(this.#header.buffer);

  constructor(memory: SharedArrayBuffer, which: 0 | 1) {
    const half = memory.byteLength / 2;
    this.control = new Int32Array(memory, which * half, controlWords);
    this.#bytes = new Uint8Array(memory, which * half + controlWords * 4, half - controlWords * 4);
  }

  get messageBytesMax(): number {
    return this.#bytes.length - headerBytes;
  }

  /** False, with the wish for room noted, when it does not fit now. */
  push(packet: Packet): boolean {
    const need = headerBytes + packet.payload.length;
    if (this.#room() < need) {
      Atomics.store(this.control, roomWantedAt, 1);
      // The receiver may have made room before it could see the wish.
      if (this.#room() < need) return false;
    }
    const at = Atomics.load(this.control, writeAt) >>> 0;
    this.#header[0] = packet.payload.length;
    this.#header[1] = packet.kind;
    this.#header[2] = packet.id;
    this.#copyIn(at, this.#headerBytes);
    this.#copyIn(at + headerBytes, packet.payload);
    Atomics.store(this.control, writeAt, (at + need) | 0);
    return true;
  }

  pop(): Packet | null {
    const at = Atomics.load(this.control, readAt) >>> 0;
    if (at === Atomics.load(this.control, writeAt) >>> 0) return null;
    this.#copyOut(at, this.#headerBytes);
    const payload = new Uint8Array(this.#header[0]);
    this.#copyOut(at + headerBytes, payload);
    Atomics.store(this.control, readAt, (at + headerBytes + payload.length) | 0);
    return { kind: this.#header[1], id: this.#header[2], payload };
  }

  /** True once after the sender found no room. */
  takeRoomWanted(): boolean {
    return Atomics.exchange(this.control, roomWantedAt, 0) === 1;
  }

  #room(): number {
    const used = (Atomics.load(this.control, writeAt) - Atomics.load(this.control, readAt)) >>> 0;
    return this.#bytes.length - used;
  }

  // The length of the ring divides 2^32, so a position modulo the length survives the wrap of the counters.
  #copyIn(position: number, from: Uint8Array): void {
    const at = position % this.#bytes.length;
    const first = Math.min(from.length, this.#bytes.length - at);
    this.#bytes.set(from.subarray(0, first), at);
    if (first < from.length) this.#bytes.set(from.subarray(first), 0);
  }

  #copyOut(position: number, into: Uint8Array): void {
    const at = position % this.#bytes.length;
    const first = Math.min(into.length, this.#bytes.length - at);
    into.set(this.#bytes.subarray(at, at + first), 0);
    if (first < into.length) into.set(this.#bytes.subarray(0, into.length - first), first);
  }
}

function packet(kind: number, id: number, message: unknown): Packet {
  if (message instanceof Uint8Array) return { kind: kind | rawKind, id, payload: message };
  return { kind, id, payload: encode(message) };
}

function content(packet: Packet): unknown {
  return (packet.kind & rawKind) !== 0 ? packet.payload : decode(packet.payload);
}

function tooLarge(packet: Packet, queue: SharedQueue): string | null {
  if (packet.payload.length <= queue.messageBytesMax) return null;
  return `message of ${packet.payload.length} bytes: at most ${queue.messageBytesMax}`;
}

/** The main thread's end. One a Worker. */
export class MainMailbox {
  /** Give this to the Worker. */
  readonly port: MailboxPort;
  /** Hears what the reactor posts. */
  onMessage: (message: unknown) => void = () => {};
  /** Answers the reactor's calls; what it throws becomes the failure. */
  onCall: (message: unknown) => unknown | Promise<unknown> = () => {
    throw new Error("nobody answers calls of the reactor");
  };
  /** Called once when the Worker said that it dies, or {@linkcode died} was called. */
  onDeath: (reason: string) => void = () => {};
  readonly #out: SharedQueue;
  readonly #in: SharedQueue;
  readonly #waiting: { packet: Packet; resolve: () => void; reject: (error: Error) => void }[] = [];
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #nextId = 1;
  #dead: string | null = null;
  #closed = false;

  /** `directionBytes`, a power of two, bounds what is under way to and from the Worker, and so a single message. */
  constructor(directionBytes: number = mailboxBytesDefault) {
    if (directionBytes < 4096 || (directionBytes & (directionBytes - 1)) !== 0) {
      throw new RangeError(`mailbox of ${directionBytes} bytes: not a power of two from 4096`);
    }
    const memory = new SharedArrayBuffer(2 * (directionBytes + controlWords * 4));
    const eventFd = libc.eventfd(0, O.CLOEXEC);
    if (eventFd < 0) throw systemError("make", "an eventfd");
    this.port = { memory, eventFd };
    this.#out = new SharedQueue(memory, 0);
    this.#in = new SharedQueue(memory, 1);
    this.#pump();
  }

  /** Sends; settles when the message is in the queue, rejects when the Worker is dead or too much waits already. */
  post(message: unknown): Promise<void> {
    return this.#send(packet(kindPost, 0, message));
  }

  /** Sends a request and waits for its reply. Rejects with the other side's reason, after `timeoutMs`, or on its death. */
  call(message: unknown, timeoutMs: number = callTimeoutMsDefault): Promise<unknown> {
    const id = this.#nextId;
    this.#nextId = (this.#nextId + 1) >>> 0 || 1;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#calls.delete(id);
        reject(new Error(`no reply from the reactor within ${timeoutMs} ms`));
      }, timeoutMs);
      const over = () => {
        clearTimeout(timer);
        this.#calls.delete(id);
      };
      this.#calls.set(id, {
        resolve: (value) => (over(), resolve(value)),
        reject: (error) => (over(), reject(error)),
      });
      this.#send(packet(kindCall, id, message)).catch((error) => this.#calls.get(id)?.reject(error));
    });
  }

  /** Says that the Worker is gone: for `worker.onerror`. Everything that waits is rejected and `onDeath` is called. */
  died(reason: string): void {
    if (this.#dead !== null || this.#closed) return;
    this.#dead = reason;
    this.#rejectAll(reason);
    this.onDeath(reason);
  }

  /** Ends this side, after the Worker has ended its own. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#rejectAll("the mailbox is closed");
    Atomics.add(this.#in.control, signalAt, 1);
    Atomics.notify(this.#in.control, signalAt);
    closeFd(this.port.eventFd);
  }

  #rejectAll(reason: string): void {
    const error = new Error(`the reactor is gone: ${reason}`);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
    for (const call of [...this.#calls.values()]) call.reject(error);
  }

  #send(packet: Packet): Promise<void> {
    const refusal = this.#closed
      ? "the mailbox is closed"
      : this.#dead !== null
      ? `the reactor is gone: ${this.#dead}`
      : tooLarge(packet, this.#out);
    if (refusal !== null) return Promise.reject(new Error(refusal));
    if (this.#waiting.length === 0 && this.#out.push(packet)) {
      this.#wake();
      return Promise.resolve();
    }
    if (this.#waiting.length >= waitingMessagesMax) {
      return Promise.reject(new Error(`the reactor does not read its mailbox: ${waitingMessagesMax} messages wait`));
    }
    // CBOR output may lie in a buffer that is used again.
    const kept = { ...packet, payload: packet.payload.slice() };
    return new Promise((resolve, reject) => this.#waiting.push({ packet: kept, resolve, reject }));
  }

  #wake(): void {
    libc.writeBuffer(this.port.eventFd, one, 8n);
  }

  async #pump(): Promise<void> {
    while (!this.#closed) {
      const seen = Atomics.load(this.#in.control, signalAt);
      this.#drain();
      this.#sendWaiting();
      const next = Atomics.waitAsync(this.#in.control, signalAt, seen);
      if (next.async) await next.value;
    }
  }

  #sendWaiting(): void {
    let sent = 0;
    while (sent < this.#waiting.length && this.#out.push(this.#waiting[sent].packet)) sent++;
    if (sent === 0) return;
    this.#wake();
    for (const { resolve } of this.#waiting.splice(0, sent)) resolve();
  }

  #drain(): void {
    for (let next = this.#in.pop(); next !== null && !this.#closed; next = this.#in.pop()) this.#take(next);
    if (!this.#closed && this.#in.takeRoomWanted()) this.#wake();
  }

  #take(packet: Packet): void {
    const message = content(packet);
    switch (packet.kind & ~rawKind) {
      case kindPost:
        return this.onMessage(message);
      case kindCall:
        return this.#answer(packet.id, message);
      case kindReply:
        return this.#calls.get(packet.id)?.resolve(message);
      case kindFailure:
        return this.#calls.get(packet.id)?.reject(new Error(String(message)));
      case kindDeath:
        return this.died(String(message));
    }
  }

  #answer(id: number, message: unknown): void {
    const work = async () => await this.onCall(message);
    work().then(
      (value) => this.#send(packet(kindReply, id, value)),
      (error) => this.#send(packet(kindFailure, id, error instanceof Error ? error.message : String(error))),
    ).catch(() => {
      // The reactor is gone or does not read: its call times out there.
    });
  }
}

/** The reactor's end, used on its thread only. */
export class ReactorMailbox {
  /** Hears what the main thread posts. */
  onMessage: (message: unknown) => void = () => {};
  /** Hears the main thread's calls; answer now or in a later turn. */
  onCall: (message: unknown, answer: Answer) => void = (_, answer) => answer.fail("nobody answers calls");
  readonly #reactor: Reactor;
  readonly #in: SharedQueue;
  readonly #out: SharedQueue;
  readonly #poll: Poll;
  readonly #removeHook: () => void;
  readonly #calls = new Map<number, Future<Reply>>();
  readonly #backlog: Packet[] = [];
  #nextId = 1;
  #signal = false;

  /** Opens the end of `port` and reads it from `reactor`'s loop. */
  constructor(reactor: Reactor, port: MailboxPort) {
    this.#reactor = reactor;
    this.#in = new SharedQueue(port.memory, 0);
    this.#out = new SharedQueue(port.memory, 1);
    // Each write to an eventfd wakes its pollers whatever its counter says, so it is never read.
    this.#poll = reactor.poll(port.eventFd, POLL.IN, () => this.#drain());
    this.#removeHook = reactor.atEndOfTurn(wakeOrder, () => this.#endOfTurn());
  }

  /** Sends. False when the main thread does not read and too much waits already, or the message is too large. */
  post(message: unknown): boolean {
    return this.#send(packet(kindPost, 0, message));
  }

  /** Asks the main thread. The reply says so when there is none within `timeoutMs`. */
  call(message: unknown, timeoutMs: number = callTimeoutMsDefault): Future<Reply> {
    const id = this.#nextId;
    this.#nextId = (this.#nextId + 1) >>> 0 || 1;
    const future = new Future<Reply>();
    if (!this.#send(packet(kindCall, id, message))) {
      future.resolve({ ok: false, error: "the mailbox to the main thread is full" });
      return future;
    }
    this.#calls.set(id, future);
    this.#reactor.after(timeoutMs, () => {
      if (this.#calls.delete(id)) future.resolve({ ok: false, error: `no reply within ${timeoutMs} ms` });
    });
    return future;
  }

  /** Runs `body`, normally `reactor.run()` or `serve()`; what it throws is told to the main thread and thrown on. */
  guard<T extends void | Promise<void>>(body: () => T): T {
    const died = (error: unknown): never => {
      this.reportDeath(error instanceof Error ? error.stack ?? error.message : String(error));
      throw error;
    };
    try {
      const done = body();
      return (done instanceof Promise ? done.catch(died) : done) as T;
    } catch (error) {
      return died(error);
    }
  }

  /** Tells the main thread, at once, that this reactor ends for a bug. */
  reportDeath(reason: string): void {
    this.#backlog.unshift(packet(kindDeath, 0, reason));
    this.#signal = true;
    this.#endOfTurn();
  }

  /** Stops listening and sends what still fits. The descriptor belongs to the main thread. */
  close(): void {
    this.#endOfTurn();
    this.#poll.cancel();
    this.#removeHook();
  }

  #send(packet: Packet): boolean {
    if (tooLarge(packet, this.#out) !== null) return false;
    this.#signal = true;
    if (this.#backlog.length === 0 && this.#out.push(packet)) return true;
    if (this.#backlog.length >= waitingMessagesMax) return false;
    this.#backlog.push({ ...packet, payload: packet.payload.slice() });
    return true;
  }

  #drain(): void {
    for (let next = this.#in.pop(); next !== null; next = this.#in.pop()) this.#take(next);
    if (this.#in.takeRoomWanted()) this.#signal = true;
  }

  #take(packet: Packet): void {
    const message = content(packet);
    switch (packet.kind & ~rawKind) {
      case kindPost:
        return this.onMessage(message);
      case kindCall:
        return this.onCall(message, this.#answer(packet.id));
      case kindReply:
        return this.#settle(packet.id, { ok: true, value: message });
      case kindFailure:
        return this.#settle(packet.id, { ok: false, error: String(message) });
    }
  }

  #answer(id: number): Answer {
    return {
      reply: (value) => {
        const reply = packet(kindReply, id, value);
        const refusal = tooLarge(reply, this.#out);
        this.#send(refusal === null ? reply : packet(kindFailure, id, refusal));
      },
      fail: (error) => void this.#send(packet(kindFailure, id, error)),
    };
  }

  #settle(id: number, reply: Reply): void {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    call?.resolve(reply);
  }

  #endOfTurn(): void {
    let sent = 0;
    while (sent < this.#backlog.length && this.#out.push(this.#backlog[sent])) sent++;
    if (sent > 0) this.#backlog.splice(0, sent);
    if (!this.#signal && sent === 0) return;
    this.#signal = false;
    Atomics.add(this.#out.control, signalAt, 1);
    Atomics.notify(this.#out.control, signalAt);
  }
}

const one = new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]);
