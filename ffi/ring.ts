/**
 * io_uring from TypeScript: submission and completion rings mapped as typed arrays, no library in between.
 *
 * The ring belongs to the thread that made it (SINGLE_ISSUER, DEFER_TASKRUN) and loses nothing: completions that
 * overflow wait in the kernel for the next {@linkcode Ring.enter}. It does not know what its completions mean; that is
 * the reactor's. Needs Linux 6.1. Layouts: include/uapi/linux/io_uring.h.
 *
 * @module
 */

import type { Arena } from "./arena.ts";
import { type Bytes, closeFd, errno, libc, MAP, mapMemory, systemError } from "./libc.ts";

/** Operation codes. */
export const OP = {
  NOP: 0,
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  READ_FIXED: 4,
  WRITE_FIXED: 5,
  POLL_ADD: 6,
  POLL_REMOVE: 7,
  SYNC_FILE_RANGE: 8,
  SENDMSG: 9,
  RECVMSG: 10,
  TIMEOUT: 11,
  ACCEPT: 13,
  ASYNC_CANCEL: 14,
  CONNECT: 16,
  FALLOCATE: 17,
  CLOSE: 19,
  READ: 22,
  WRITE: 23,
  SEND: 26,
  RECV: 27,
  SHUTDOWN: 34,
  MSG_RING: 40,
  URING_CMD: 46,
} as const;

/** Flags of a submission (byte 1 of it), to be or-ed to the operation as `flag << 8`. */
export const SQE = { FIXED_FILE: 1, IO_LINK: 4, ASYNC: 16, BUFFER_SELECT: 32, CQE_SKIP_SUCCESS: 64 } as const;

/** So often in a row the ring may fail for a reason that errno does not tell. */
const failuresMax = 16;

/** Flags of a completion. The id of a provided buffer is `flags >>> 16`. */
export const CQE = { BUFFER: 1, MORE: 2, SOCK_NONEMPTY: 4 } as const;

/** io_uring_setup flags. */
export const SETUP = {
  CQSIZE: 8,
  CLAMP: 16,
  SUBMIT_ALL: 128,
  SQE128: 1024,
  SINGLE_ISSUER: 4096,
  DEFER_TASKRUN: 8192,
  NO_SQARRAY: 65536,
} as const;

const enterGetEvents = 1;
const enterExtArg = 8;
const registerPbufRing = 22;
const fsyncDatasync = 1;
const sysSetup = 425, sysEnter = 426, sysRegister = 427;
const EINTR = 4, EAGAIN = 11, EBUSY = 16, EINVAL = 22, ETIME = 62;
/** 32-bit words of a 128-byte submission. */
const wideWords = 32;

/** How a ring is made. */
export interface RingOptions {
  /** Submissions that fit before the kernel must be entered: a power of two. */
  entries: number;
  /** Completions that fit before they overflow into kernel memory: a power of two. */
  completions: number;
  /** 128-byte submissions, as FUSE over io_uring needs. */
  wideEntries: boolean;
  /** Submissions waiting before they are given to the kernel without waiting for the end of the turn. */
  flushEvery: number;
}

/** What {@linkcode Reactor} uses. Flushing every 8 keeps a disk busy while the rest of a batch is prepared. */
export const ringDefaults: RingOptions = { entries: 256, completions: 4096, wideEntries: false, flushEvery: 8 };

/** A ring of the calling thread. */
export class Ring {
  /** Descriptor of the ring, the target of another ring's {@linkcode message}. */
  readonly fd: number;
  /** The submissions as 32-bit words; {@linkcode get} gives indexes into it. */
  readonly sqe: Uint32Array<ArrayBuffer>;
  /** The completion ring; {@linkcode completion} gives indexes into it: user_data low, high, res, flags. */
  readonly cq: Int32Array<ArrayBuffer>;
  /** Calls of io_uring_enter so far. */
  enters = 0;
  /** Submissions so far. */
  submissions = 0;
  #tail = 0;
  #submitted = 0;
  #head: number;
  #sqEntries: number;
  readonly #entryWords: number;
  readonly #sqMask: number;
  readonly #sqTailAt: number;
  readonly #sqFlagsAt: number;
  readonly #cqMask: number;
  readonly #cqHeadAt: number;
  readonly #cqTailAt: number;
  readonly #cqesAt: number;
  readonly #flushEvery: number;
  /** Calls that failed in a row for no known reason. */
  #failures = 0;
  // io_uring_getevents_arg and the timespec it points to, in the arena.
  readonly #timespecAt: number;
  readonly #extArg: bigint;
  readonly #arena: Arena;

  /** Makes a ring; its timeout argument and buffer rings live in `arena`. Throws with the reason and what to do. */
  constructor(arena: Arena, options: RingOptions = ringDefaults) {
    this.#arena = arena;
    this.#flushEvery = options.flushEvery;
    const made = setup(options);
    this.fd = made.fd;
    const p = made.params;
    // io_uring_params: sq_off from word 10 (head, tail, mask, entries, flags, dropped, array), cq_off from word 20
    // (head, tail, mask, entries, overflow, cqes).
    this.#sqEntries = p[0];
    this.#entryWords = options.wideEntries ? wideWords : 16;
    const rings = this.#map(Math.max(p[25] + p[1] * 16, p[16] + p[0] * 4), 0);
    const entries = this.#map(p[0] * this.#entryWords * 4, 0x10000000);
    this.cq = new Int32Array(rings);
    this.sqe = new Uint32Array(entries);
    this.#sqTailAt = p[11] >> 2;
    this.#sqMask = this.cq[p[12] >> 2];
    this.#sqFlagsAt = p[14] >> 2;
    this.#cqHeadAt = p[20] >> 2;
    this.#cqTailAt = p[21] >> 2;
    this.#cqMask = this.cq[p[22] >> 2];
    this.#cqesAt = p[25] >> 2;
    this.#head = this.cq[this.#cqHeadAt];
    if (made.indexed) { for (let i = 0; i < p[0]; i++) this.cq[(p[16] >> 2) + i] = i; }
    const argAt = arena.reserve(40, 8);
    this.#timespecAt = (argAt + 24) >> 2;
    this.#extArg = BigInt(arena.base + argAt);
    setAddress(arena.u32, (argAt + 16) >> 2, arena.base + argAt + 24);
  }

  /** Submissions prepared and not yet given to the kernel. */
  get queued(): number {
    return this.#tail - this.#submitted;
  }

  /**
   * The word index of a zeroed submission for the caller to fill before the next `get`. Gives the earlier ones to the
   * kernel when `flushEvery` of them wait.
   */
  get(): number {
    if (this.#tail - this.#submitted >= this.#flushEvery) this.#flush();
    const i = (this.#tail & this.#sqMask) * this.#entryWords;
    this.#tail++;
    const sqe = this.sqe, end = i + this.#entryWords;
    for (let k = i; k < end; k++) sqe[k] = 0;
    return i;
  }

  /** Prepares an operation of the common shape: descriptor, address, length, offset. Returns as {@linkcode get}. */
  prepare(op: number, fd: number, target: { address: number; length: number; offset: number }, slot: number): number {
    return this.#put(op, fd, target.address, target.length, target.offset, slot);
  }

  /** Reads `length` bytes at `offset` of a file (2^64-1 as -1: the current position, for pipes and eventfds). */
  read(slot: number, fd: number, address: number, length: number, offset: number): void {
    this.#put(OP.READ, fd, address, length, offset, slot);
  }

  /** Writes `length` bytes at `offset`, as {@linkcode read}. `flags` may hold {@linkcode SQE} flags. */
  write(slot: number, fd: number, address: number, length: number, offset: number, flags: number = 0): void {
    this.#put(OP.WRITE | flags << 8, fd, address, length, offset, slot);
  }

  /** Gathers `count` iovecs at `address` into one write at `offset`. */
  writev(slot: number, fd: number, address: number, count: number, offset: number): void {
    this.#put(OP.WRITEV, fd, address, count, offset, slot);
  }

  /** fdatasync, or fsync with `whole`. */
  sync(slot: number, fd: number, whole: boolean): void {
    const i = this.#put(OP.FSYNC, fd, 0, 0, 0, slot);
    this.sqe[i + 7] = whole ? 0 : fsyncDatasync;
  }

  /** Starts or awaits write-back of a range; flags as sync_file_range(2). */
  syncFileRange(slot: number, fd: number, offset: number, length: number, flags: number): void {
    const i = this.#put(OP.SYNC_FILE_RANGE, fd, 0, length, offset, slot);
    this.sqe[i + 7] = flags;
  }

  /** fallocate(2). */
  fallocate(slot: number, fd: number, mode: number, offset: number, length: number): void {
    // The length travels in the address field, the mode in the length field.
    this.#put(OP.FALLOCATE, fd, length, mode, offset, slot);
  }

  /** Multishot poll: a completion for each wake-up, edge triggered, so drain the descriptor each time. */
  poll(slot: number, fd: number, events: number): void {
    const i = this.#put(OP.POLL_ADD, fd, 0, 1, 0, slot);
    this.sqe[i + 7] = events;
  }

  /** Multishot accept: a completion with a descriptor (close-on-exec) for each connection. */
  accept(slot: number, fd: number): void {
    const i = this.#put(OP.ACCEPT | 1 << 16, fd, 0, 0, 0, slot);
    this.sqe[i + 7] = 0o2000000;
  }

  /** Connects a socket; the sockaddr must stay in place until the completion. */
  connect(slot: number, fd: number, address: number, length: number): void {
    this.#put(OP.CONNECT, fd, address, 0, length, slot);
  }

  /** Receives into `length` bytes at `address`. */
  receive(slot: number, fd: number, address: number, length: number, flags: number): void {
    const i = this.#put(OP.RECV, fd, address, length, 0, slot);
    this.sqe[i + 7] = flags;
  }

  /** Receives into a buffer of buffer ring `group`; `multishot` goes on until a completion has no `CQE.MORE`. */
  receiveProvided(slot: number, fd: number, group: number, multishot: boolean): void {
    const i = this.#put(OP.RECV | SQE.BUFFER_SELECT << 8 | (multishot ? 2 << 16 : 0), fd, 0, 0, 0, slot);
    this.sqe[i + 10] = group;
  }

  /** Sends `length` bytes; `flags` as send(2). */
  send(slot: number, fd: number, address: number, length: number, flags: number): void {
    const i = this.#put(OP.SEND, fd, address, length, 0, slot);
    this.sqe[i + 7] = flags;
  }

  /** Sends a msghdr at `address`; `flags` as sendmsg(2). */
  sendMessage(slot: number, fd: number, address: number, flags: number): void {
    const i = this.#put(OP.SENDMSG, fd, address, 1, 0, slot);
    this.sqe[i + 7] = flags;
  }

  /** Completes with -ETIME after the timespec at `address` (two 64-bit words: seconds, nanoseconds). */
  timeout(slot: number, address: number): void {
    this.#put(OP.TIMEOUT, -1, address, 1, 0, slot);
  }

  /** Posts a completion with `result` and user_data `targetSlot` to the ring `targetFd` of another thread. */
  message(slot: number, targetFd: number, result: number, targetSlot: number): void {
    this.#put(OP.MSG_RING, targetFd, 0, result, targetSlot, slot);
  }

  /**
   * Prepares a command that the driver of `fd` defines (URING_CMD). Returns as {@linkcode get}: the driver's own bytes
   * begin at the 12th word, 20 words that only a ring with wide entries has. Throws on any other ring.
   */
  command(slot: number, fd: number, operation: number): number {
    if (this.#entryWords !== wideWords) throw new Error("a command needs a ring with wide entries");
    const i = this.get(), sqe = this.sqe;
    sqe[i] = OP.URING_CMD;
    sqe[i + 1] = fd;
    sqe[i + 2] = operation;
    sqe[i + 8] = slot;
    return i;
  }

  /** Cancels what runs under `targetSlot`; it completes with -ECANCELED, or with its result when it was done already. */
  cancel(targetSlot: number): void {
    this.#put(OP.ASYNC_CANCEL | SQE.CQE_SKIP_SUCCESS << 8, -1, targetSlot, 0, 0, 0);
  }

  /**
   * Gives everything queued to the kernel, and waits until `wait` completions are there or `timeoutMs` have passed
   * (Infinity: no limit; ignored when `wait` is 0). Also runs the kernel's deferred work and takes overflowed
   * completions in. A signal ends the wait early.
   */
  enter(wait: number, timeoutMs: number = Infinity): void {
    if (wait === 0 || timeoutMs === Infinity) {
      this.#enter(wait, enterGetEvents, 0n, 0n);
      return;
    }
    const t = this.#timespecAt, u32 = this.#arena.u32;
    const seconds = Math.floor(timeoutMs / 1000);
    setAddress(u32, t, seconds);
    u32[t + 2] = Math.min(999_999_999, Math.ceil((timeoutMs - seconds * 1000) * 1e6));
    u32[t + 3] = 0;
    this.#enter(wait, enterGetEvents | enterExtArg, this.#extArg, 24n);
  }

  /** Gives everything queued to the kernel now, for what should not wait for the end of the turn. */
  submit(): void {
    this.#enter(0, 0, 0n, 0n);
  }

  /** True when the kernel holds completions that did not fit: enter before waiting for anything else. */
  get overflowed(): boolean {
    return (Atomics.load(this.cq, this.#sqFlagsAt) & 2) !== 0;
  }

  /** Completions ready now. */
  ready(): number {
    return (Atomics.load(this.cq, this.#cqTailAt) - this.#head) | 0;
  }

  /** Word index in `cq` of the `k`-th ready completion. */
  completion(k: number): number {
    return this.#cqesAt + ((this.#head + k) & this.#cqMask) * 4;
  }

  /** Gives the room of the first `n` ready completions back to the kernel. */
  advance(n: number): void {
    this.#head = (this.#head + n) | 0;
    Atomics.store(this.cq, this.#cqHeadAt, this.#head);
  }

  /** Makes a ring of `count` (a power of two) receive buffers of `bytes` bytes each, known as `group`. */
  provideBuffers(group: number, count: number, bytes: number): BufferRing {
    const at = this.#arena.reserve(count * 16, 4096);
    const register = this.#arena.reserve(40, 8);
    setAddress(this.#arena.u32, register >> 2, this.#arena.base + at);
    this.#arena.u32[(register >> 2) + 2] = count;
    this.#arena.u32[(register >> 2) + 3] = group;
    const address = BigInt(this.#arena.base + register);
    if (libc.ioUringRegister(sysRegister, this.fd, registerPbufRing, address, 1) < 0) {
      throw systemError("register", "receive buffers with io_uring");
    }
    return new BufferRing(this.#arena, at, { count, bytes });
  }

  /** Closes the ring. What runs in it is cancelled in the background: its memory must stay mapped. */
  close(): void {
    if (this.#sqEntries === 0) return;
    this.#sqEntries = 0;
    closeFd(this.fd);
    // The mappings stay on purpose: a late user gets the error of enter(), not a crash.
  }

  #put(op: number, fd: number, address: number, length: number, offset: number, slot: number): number {
    const i = this.get(), sqe = this.sqe;
    sqe[i] = op;
    sqe[i + 1] = fd;
    sqe[i + 2] = offset;
    sqe[i + 3] = Math.floor(offset / 4294967296);
    sqe[i + 4] = address;
    sqe[i + 5] = address / 4294967296;
    sqe[i + 6] = length;
    sqe[i + 8] = slot;
    return i;
  }

  /** Hands the queue over without waiting. The kernel takes part of it only when it is out of memory. */
  #flush(): void {
    this.#enter(0, 0, 0n, 0n);
    let tries = 0;
    while (this.#tail - this.#submitted >= this.#sqEntries) {
      if (++tries > 1000) throw new Error("io_uring does not take submissions: out of kernel memory?");
      this.#enter(0, enterGetEvents, 0n, 0n);
    }
  }

  #enter(wait: number, flags: number, arg: bigint, argBytes: bigint): void {
    if (this.#sqEntries === 0) throw new Error("the ring is closed");
    this.enters++;
    Atomics.store(this.cq, this.#sqTailAt, this.#tail | 0);
    const r = libc.ioUringEnter(sysEnter, this.fd, this.#tail - this.#submitted, wait, flags, arg, argBytes);
    if (r >= 0) {
      this.#failures = 0;
      this.#submitted += r;
      this.submissions += r;
      return;
    }
    const why = errno();
    // Time out, signal, or completions to be reaped first: the caller looks at the completions and comes again.
    if (why === ETIME || why === EINTR || why === EAGAIN || why === EBUSY) return;
    // Not what this call can fail with, or a failure that stays.
    if (++this.#failures < failuresMax) return;
    throw systemError("enter", "io_uring", why);
  }

  #map(sizeBytes: number, offset: number): ArrayBuffer {
    return mapMemory("io_uring", { sizeBytes, flags: MAP.SHARED | MAP.POPULATE, fd: this.fd, offset }).buffer;
  }
}

/** Receive buffers the kernel picks from. Every buffer of a completion must be given back with {@linkcode give}. */
export class BufferRing {
  readonly #mask: number;
  readonly #bytes: number;
  readonly #buffers: number;
  readonly #entries: number;
  readonly #tailAt: number;
  #tail = 0;

  /** For {@linkcode Ring.provideBuffers}: the entries are at arena offset `at`. */
  constructor(readonly arena: Arena, at: number, size: { count: number; bytes: number }) {
    this.#mask = size.count - 1;
    this.#bytes = size.bytes;
    this.#buffers = arena.reserve(size.count * size.bytes, 4096);
    this.#entries = at >> 2;
    this.#tailAt = (at + 14) >> 1;
    for (let id = 0; id < size.count; id++) this.give(id);
  }

  /** Arena offset of a buffer. */
  offsetOf(id: number): number {
    return this.#buffers + id * this.#bytes;
  }

  /** Gives a buffer to the kernel. */
  give(id: number): void {
    const entry = this.#entries + (this.#tail & this.#mask) * 4;
    const u32 = this.arena.u32;
    setAddress(u32, entry, this.arena.base + this.offsetOf(id));
    u32[entry + 2] = this.#bytes;
    // The upper half of entry 0's last word is the tail: write the id as 16 bits.
    this.arena.u16[(entry + 3) << 1] = id;
    this.#tail = (this.#tail + 1) & 0xffff;
    this.arena.u16[this.#tailAt] = this.#tail;
  }
}

/** Writes a number below 2^53 as two little-endian 32-bit words: an address, a length, seconds. */
export function setAddress(words: Uint32Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = value / 4294967296;
}

function setup(options: RingOptions): { fd: number; params: Uint32Array; indexed: boolean } {
  const flags = SETUP.CQSIZE | SETUP.SUBMIT_ALL | SETUP.SINGLE_ISSUER | SETUP.DEFER_TASKRUN |
    (options.wideEntries ? SETUP.SQE128 : 0);
  // NO_SQARRAY came with Linux 6.6; before it the entries are named through an index array.
  for (const extra of [SETUP.NO_SQARRAY, 0]) {
    const params: Uint32Array<ArrayBuffer> = new Uint32Array(30);
    params[1] = options.completions;
    params[2] = flags | extra;
    const fd = libc.ioUringSetup(sysSetup, options.entries, params as unknown as Bytes);
    if (fd >= 0) return { fd, params, indexed: extra === 0 };
    const why = errno();
    if (why === EINVAL && extra !== 0) continue;
    const help = why === EINVAL
      ? "; Linux 6.1 or newer is needed"
      : "; see the sysctl kernel.io_uring_disabled and the seccomp profile of the container";
    const error = systemError("set up", "io_uring", why);
    error.message += help;
    throw error;
  }
  throw new Error("unreachable");
}
