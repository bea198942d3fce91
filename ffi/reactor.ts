/**
 * The reactor: one io_uring, one scheduler and one arena on one thread, and the loop that drives them. It implements
 * core's Runtime and gives file operations, polls and timers to everything else in ffi/.
 *
 * A turn: completions in a batch, due timers, ready tasks until none is ready, end-of-turn hooks in their order, then
 * one io_uring_enter that submits and waits. Nothing here is thread-safe; a Worker that runs a reactor does not return
 * to the event loop, or for a moment each minute ({@linkcode Reactor.serve}): no promise, message or Deno timer may be
 * relied on in it.
 *
 * @module
 */

import type { LogLevel, Runtime, Time } from "../core/runtime.ts";
import { Future, Scheduler } from "../core/task.ts";
import { Arena } from "./arena.ts";
import { libc } from "./libc.ts";
import { CQE, Ring, ringDefaults, type RingOptions, SQE } from "./ring.ts";

/** Hears of the completions of what was submitted under its slot. */
export interface Completion {
  /** `res` as the kernel gives it (a count, or minus errno); `flags` are {@linkcode CQE} flags. */
  complete(res: number, flags: number): void;
}

/** Order of the end-of-turn hooks: what must be written before it is answered comes first. */
export const hookOrder = { store: 100, device: 200, network: 300 } as const;

/** Most operations in flight or registered at once. */
const slotsMax = 1 << 18;
/** Completions handled before their room is given back to the kernel. */
const advanceEvery = 64;
/** Times one turn runs hooks and the tasks they made ready before it looks at the kernel again. */
const hookRoundsMax = 8;
/** Waiting is cut here, so that a lost wake-up could only delay, never hang. */
const waitMsMax = 60_000;
/** How often {@linkcode Reactor.serve} gives the event loop a turn. */
const eventLoopMs = 60_000;
const EBUSY = 16;
const clockRealtime = 0, clockMonotonic = 1, clockThread = 3;
const randomWords = 1024;

/** How a reactor is made; everything has a default. */
export interface ReactorOptions {
  /** Receives log lines. Default: none are kept. */
  log?: (level: LogLevel, component: string, message: string) => void;
  /** Address space of the arena, see {@linkcode Arena}. */
  arenaBytes?: number;
  /** The ring's measures. */
  ring?: Partial<RingOptions>;
}

/** What a reactor has done so far. */
export interface ReactorStatistics {
  turns: number;
  completions: number;
  enters: number;
  submissions: number;
  tasks: number;
}

/** A poll that goes on until it is cancelled. */
export interface Poll {
  /** Stops it; the callback is not called any more. The descriptor may be closed afterwards. */
  cancel(): void;
}

/** One a thread. Made, run and closed on that thread. */
export class Reactor implements Runtime {
  /** The memory that operations may name. */
  readonly arena: Arena;
  /** For operations that have no method here; submit under a slot of {@linkcode register}. */
  readonly ring: Ring;
  /** Runs the tasks. A task that throws makes {@linkcode run} throw. */
  readonly scheduler: Scheduler;
  readonly #log: (level: LogLevel, component: string, message: string) => void;
  readonly #handlers: Completion[] = [];
  readonly #freeSlots: number[] = [];
  readonly #operations: Operation[] = [];
  readonly #timers = new TimerHeap();
  #hooks: { order: number; hook: () => void }[] = [];
  #deferred: (() => void)[] = [];
  #stopped = false;
  #panic: { error: unknown } | null = null;
  #turns = 0;
  #completions = 0;
  readonly #clockAt: number;
  readonly #clockAddress: bigint;
  #nowMs = -1;
  #wallTime: Time | null = null;
  readonly #random: Uint32Array<ArrayBuffer> = new Uint32Array(randomWords);
  #randomNext = randomWords;

  /** Makes the ring on the calling thread. Throws when the kernel refuses it. */
  constructor(options: ReactorOptions = {}) {
    this.#log = options.log ?? (() => {});
    this.arena = new Arena(options.arenaBytes);
    this.ring = new Ring(this.arena, { ...ringDefaults, ...options.ring });
    this.scheduler = new Scheduler((error) => this.#panic ??= { error });
    const at = this.arena.reserve(16, 16);
    this.#clockAt = at >> 2;
    this.#clockAddress = BigInt(this.arena.base + at);
    // Slot 0 hears of failed cancellations (the target was done) and of what nobody listens to.
    this.register(nobody);
  }

  /** Monotonic milliseconds, comparable over all threads of the host. Read once a turn. */
  nowMs(): number {
    return this.#nowMs >= 0 ? this.#nowMs : (this.#nowMs = this.#readMs());
  }

  /** The clock of {@linkcode nowMs}, read now. */
  clockMs(): number {
    return this.#readMs();
  }

  /** Processor time of the calling thread, which runs the reactor, in milliseconds. */
  processorMs(): number {
    return this.#readMs(clockThread);
  }

  /** Wall clock, read once a turn. Treat the object as frozen. */
  wallTime(): Time {
    if (this.#wallTime !== null) return this.#wallTime;
    libc.clock_gettime(clockRealtime, this.#clockAddress);
    const u32 = this.arena.u32, at = this.#clockAt;
    return this.#wallTime = { sec: u32[at] + u32[at + 1] * 4294967296, nsec: u32[at + 2] };
  }

  /** 32 unpredictable bits of the system's generator. */
  random32(): number {
    if (this.#randomNext === randomWords) {
      crypto.getRandomValues(this.#random);
      this.#randomNext = 0;
    }
    return this.#random[this.#randomNext++];
  }

  /** Settles once `ms` milliseconds have passed, never earlier. */
  sleep(ms: number): Future<void> {
    const future = new Future<void>();
    this.#timers.push(this.#readMs() + ms, () => future.resolve());
    return future;
  }

  /** Calls `callback` once, `ms` milliseconds from now. Not cancelled: the callback checks whether it still matters. */
  after(ms: number, callback: () => void): void {
    this.#timers.push(this.#readMs() + ms, callback);
  }

  /** Calls `callback` in this turn or the next, but never from inside the caller. */
  defer(callback: () => void): void {
    this.#deferred.push(callback);
  }

  /** Passes one line on. */
  log(level: LogLevel, component: string, message: string): void {
    this.#log(level, component, message);
  }

  /**
   * Runs `hook` at the end of every turn, in ascending `order` ({@linkcode hookOrder}). No task runs between the first
   * and the last hook of a pass, so a later hook sends only what an earlier one has written; when a hook made tasks
   * ready they run and the pass starts again. Returns a function that removes the hook.
   */
  atEndOfTurn(order: number, hook: () => void): () => void {
    const entry = { order, hook };
    this.#hooks = [...this.#hooks, entry].sort((a, b) => a.order - b.order);
    return () => {
      this.#hooks = this.#hooks.filter((other) => other !== entry);
    };
  }

  /** Takes a slot: what is submitted to {@linkcode ring} with it completes at `handler`. Throws when all are taken. */
  register(handler: Completion): number {
    const slot = this.#freeSlots.pop() ?? this.#handlers.length;
    if (slot >= slotsMax) throw new Error(`more than ${slotsMax} slots of a reactor in use`);
    this.#handlers[slot] = handler;
    return slot;
  }

  /** Frees a slot. Nothing submitted under it may still complete. */
  unregister(slot: number): void {
    this.#handlers[slot] = nobody;
    this.#freeSlots.push(slot);
  }

  /** Reads into arena memory: the count, or minus errno. Short at the end of the file. */
  read(fd: number, address: number, length: number, offset: number): Future<number> {
    const operation = this.#operation();
    if (operation === null) return busy();
    this.ring.read(operation.slot, fd, address, length, offset);
    return operation.future;
  }

  /** Writes from arena memory, which must stay untouched until it settles: the count, or minus errno. */
  write(fd: number, address: number, length: number, offset: number): Future<number> {
    const operation = this.#operation();
    if (operation === null) return busy();
    this.ring.write(operation.slot, fd, address, length, offset);
    return operation.future;
  }

  /** As {@linkcode write} without an offset, by a thread of the kernel's: it may wait there without holding up the ring. */
  writeApart(fd: number, address: number, length: number): Future<number> {
    const operation = this.#operation();
    if (operation === null) return busy();
    this.ring.write(operation.slot, fd, address, length, -1, SQE.ASYNC);
    return operation.future;
  }

  /** Gathers `count` iovecs (at most 1024) at `address` into one write, as {@linkcode write}. */
  writev(fd: number, address: number, count: number, offset: number): Future<number> {
    const operation = this.#operation();
    if (operation === null) return busy();
    this.ring.writev(operation.slot, fd, address, count, offset);
    return operation.future;
  }

  /** Reads into a view of the arena, as {@linkcode read}. */
  readInto(fd: number, into: Uint8Array, offset: number): Future<number> {
    return this.read(fd, this.arena.addressOf(into), into.length, offset);
  }

  /** Writes a view of the arena, as {@linkcode write}. */
  writeFrom(fd: number, from: Uint8Array, offset: number): Future<number> {
    return this.write(fd, this.arena.addressOf(from), from.length, offset);
  }

  /** fdatasync: 0, or minus errno. */
  fdatasync(fd: number): Future<number> {
    return this.#sync(fd, false);
  }

  /** fsync: 0, or minus errno. */
  fsync(fd: number): Future<number> {
    return this.#sync(fd, true);
  }

  /** sync_file_range with its flags: 0, or minus errno. */
  syncFileRange(fd: number, offset: number, length: number, flags: number): Future<number> {
    const operation = this.#operation();
    if (operation === null) return busy();
    this.ring.syncFileRange(operation.slot, fd, offset, length, flags);
    return operation.future;
  }

  /** fallocate with its mode: 0, or minus errno. */
  fallocate(fd: number, mode: number, offset: number, length: number): Future<number> {
    const operation = this.#operation();
    if (operation === null) return busy();
    this.ring.fallocate(operation.slot, fd, mode, offset, length);
    return operation.future;
  }

  /**
   * Calls `callback` with the ready events (or minus errno, after which it is over) each time `fd` becomes ready.
   * Edge triggered: the callback drains a nonblocking descriptor until EAGAIN. Readiness at the start counts.
   */
  poll(fd: number, events: number, callback: (events: number) => void): Poll {
    const poll = new MultishotPoll(this, fd, events, callback);
    poll.arm();
    return poll;
  }

  /** Runs turns until `until` (asked after each turn) is true or {@linkcode stop} was called. May be left and re-entered. */
  run(until: () => boolean = () => false): void {
    while (!this.#stopped) {
      this.#turn();
      if (until() || this.#stopped) break;
      this.#enter(this.#waitMs(waitMsMax));
    }
    this.#submit();
  }

  /**
   * As {@linkcode run} until {@linkcode stop}, for a thread with native objects (N-API): every `everyMs` the event loop
   * has a turn, of about a millisecond. The finalizers of objects that were collected run there and nowhere else, so
   * what they hold would otherwise pile up for as long as the thread lives.
   */
  async serve(everyMs: number = eventLoopMs): Promise<void> {
    for (;;) {
      const untilMs = this.#readMs() + everyMs;
      this.run(() => this.nowMs() >= untilMs);
      if (this.#stopped) return;
      await new Promise<void>((resume) => setTimeout(resume, 0));
    }
  }

  /** One turn: waits at most `maxWaitMs` for something to happen, then does all that is ready. */
  runOnce(maxWaitMs: number): void {
    this.#enter(this.#waitMs(maxWaitMs));
    this.#turn();
    this.#submit();
  }

  /** Makes {@linkcode run} return after the current turn. From another thread: through a mailbox. */
  stop(): void {
    this.#stopped = true;
  }

  /** True after {@linkcode stop}. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Counters since the start. */
  statistics(): ReactorStatistics {
    const { enters, submissions } = this.ring;
    return { turns: this.#turns, completions: this.#completions, enters, submissions, tasks: this.scheduler.active };
  }

  /** Closes the ring. Operations in flight are cancelled by the kernel; their futures never settle. */
  close(): void {
    this.#stopped = true;
    this.ring.close();
  }

  #sync(fd: number, whole: boolean): Future<number> {
    const operation = this.#operation();
    if (operation === null) return busy();
    this.ring.sync(operation.slot, fd, whole);
    return operation.future;
  }

  #operation(): Operation | null {
    const free = this.#operations.pop();
    if (free !== undefined) {
      free.future = new Future<number>();
      return free;
    }
    if (this.#freeSlots.length === 0 && this.#handlers.length >= slotsMax) return null;
    const operation = new Operation(this.#operations);
    operation.slot = this.register(operation);
    return operation;
  }

  /** Everything that can be done without the kernel. */
  #turn(): void {
    this.#turns++;
    this.#forgetTime();
    this.#reap();
    this.#runTimers();
    this.#runDeferred();
    this.scheduler.run();
    for (let round = 0; round < hookRoundsMax; round++) {
      if (!this.#runHooks(round < hookRoundsMax - 1)) break;
    }
    if (this.#panic !== null) throw this.#panic.error;
  }

  /** Returns true when tasks ran in between, so that the hooks must run again. */
  #runHooks(again: boolean): boolean {
    for (const { hook } of this.#hooks) {
      hook();
      if (!again || (!this.scheduler.pending && this.#deferred.length === 0)) continue;
      this.#forgetTime();
      this.#runDeferred();
      this.scheduler.run();
      return true;
    }
    return false;
  }

  #runDeferred(): void {
    if (this.#deferred.length === 0) return;
    const deferred = this.#deferred;
    this.#deferred = [];
    for (const callback of deferred) callback();
  }

  #runTimers(): void {
    if (this.#timers.size === 0) return;
    const now = this.nowMs();
    while (this.#timers.size > 0 && this.#timers.nextMs <= now) this.#timers.pop()();
  }

  #reap(): void {
    const ring = this.ring, cq = ring.cq, handlers = this.#handlers;
    const ready = ring.ready();
    this.#completions += ready;
    for (let done = 0; done < ready;) {
      const batch = Math.min(ready - done, advanceEvery);
      for (let k = 0; k < batch; k++) {
        const at = ring.completion(k);
        handlers[cq[at]].complete(cq[at + 2], cq[at + 3]);
      }
      ring.advance(batch);
      done += batch;
    }
  }

  /** How long may be waited: not at all when something is ready. */
  #waitMs(maxWaitMs: number): number {
    if (this.scheduler.pending || this.#deferred.length > 0 || this.ring.ready() > 0) return 0;
    if (this.#timers.size === 0) return maxWaitMs;
    return Math.max(0, Math.min(maxWaitMs, this.#timers.nextMs - this.#readMs()));
  }

  #enter(waitMs: number): void {
    if (waitMs > 0) this.ring.enter(1, waitMs);
    else this.ring.enter(0);
  }

  #submit(): void {
    if (this.ring.queued > 0) this.ring.enter(0);
  }

  #forgetTime(): void {
    this.#nowMs = -1;
    this.#wallTime = null;
  }

  // A third of the price of performance.now(), and the same clock on every thread.
  #readMs(clock: number = clockMonotonic): number {
    libc.clock_gettime(clock, this.#clockAddress);
    const u32 = this.arena.u32, at = this.#clockAt;
    return (u32[at] + u32[at + 1] * 4294967296) * 1000 + u32[at + 2] / 1e6;
  }
}

const nobody: Completion = { complete() {} };

function busy(): Future<number> {
  return Future.of(-EBUSY);
}

/** One file operation in flight; reused, with its slot, for the next. */
class Operation implements Completion {
  slot = 0;
  future = new Future<number>();
  readonly #free: Operation[];

  constructor(free: Operation[]) {
    this.#free = free;
  }

  complete(res: number, _flags: number): void {
    const future = this.future;
    this.#free.push(this);
    future.resolve(res);
  }
}

class MultishotPoll implements Poll, Completion {
  readonly #slot: number;
  #cancelled = false;
  #armed = false;

  constructor(
    readonly reactor: Reactor,
    readonly fd: number,
    readonly events: number,
    readonly callback: (events: number) => void,
  ) {
    this.#slot = reactor.register(this);
  }

  arm(): void {
    this.#armed = true;
    this.reactor.ring.poll(this.#slot, this.fd, this.events);
  }

  complete(res: number, flags: number): void {
    this.#armed = (flags & CQE.MORE) !== 0;
    if (this.#cancelled) {
      if (!this.#armed) this.reactor.unregister(this.#slot);
      return;
    }
    if (res < 0 && !this.#armed) {
      this.#cancelled = true;
      this.reactor.unregister(this.#slot);
    }
    this.callback(res);
    // The kernel ends a multishot request when completions overflow.
    if (!this.#armed && !this.#cancelled) this.arm();
  }

  cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    if (this.#armed) this.reactor.ring.cancel(this.#slot);
    // Not armed means that this is called from inside the last completion's callback.
    else this.reactor.unregister(this.#slot);
  }
}

/** A binary heap of moments and what to do then. */
class TimerHeap {
  readonly #at: number[] = [];
  readonly #callbacks: (() => void)[] = [];

  get size(): number {
    return this.#at.length;
  }

  get nextMs(): number {
    return this.#at[0];
  }

  push(atMs: number, callback: () => void): void {
    const at = this.#at, callbacks = this.#callbacks;
    let i = at.length;
    at.push(atMs);
    callbacks.push(callback);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (at[parent] <= atMs) break;
      at[i] = at[parent];
      callbacks[i] = callbacks[parent];
      i = parent;
    }
    at[i] = atMs;
    callbacks[i] = callback;
  }

  pop(): () => void {
    const at = this.#at, callbacks = this.#callbacks;
    const first = callbacks[0];
    const atMs = at.pop()!, callback = callbacks.pop()!;
    const size = at.length;
    if (size === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= size) break;
      if (child + 1 < size && at[child + 1] < at[child]) child++;
      if (at[child] >= atMs) break;
      at[i] = at[child];
      callbacks[i] = callbacks[child];
      i = child;
    }
    at[i] = atMs;
    callbacks[i] = callback;
    return first;
  }
}
