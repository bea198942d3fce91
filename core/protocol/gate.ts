/**
 * A semaphore whose waiters have deadlines, and the reply slots that are handed out through one. What waits here ends:
 * with a place, or at its deadline when the owner calls {@linkcode Gate.expire}.
 *
 * @module
 */

import { Future, type Task, wait } from "../task.ts";
import { noSlot } from "./frame.ts";

/** Most tasks that wait at one gate; more are turned away at once. */
export const gateWaitersMax = 16_384;

/** Lets at most `limit` tasks through at a time, first come first served. */
export class Gate {
  #free: number;
  #waiting: { turn: Future<boolean>; deadlineMs: number }[] = [];

  constructor(readonly limit: number) {
    this.#free = limit;
  }

  /** Takes a place if one is free now. */
  tryAcquire(): boolean {
    if (this.#free === 0) return false;
    this.#free--;
    return true;
  }

  /** Waits for a place until `deadlineMs` (monotonic). False: none came. A place is given back by {@linkcode release}. */
  *acquire(deadlineMs: number): Task<boolean> {
    if (this.tryAcquire()) return true;
    if (this.#waiting.length >= gateWaitersMax) return false;
    const turn = new Future<boolean>();
    this.#waiting.push({ turn, deadlineMs });
    return yield* wait(turn);
  }

  /** Gives a place to the one who has waited longest. */
  release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next.turn.resolve(true);
  }

  /** Turns away those whose deadline has passed. */
  expire(nowMs: number): void {
    if (this.#waiting.length === 0) return;
    const late = this.#waiting.filter((one) => one.deadlineMs <= nowMs);
    if (late.length === 0) return;
    this.#waiting = this.#waiting.filter((one) => one.deadlineMs > nowMs);
    for (const one of late) one.turn.resolve(false);
  }

  /** True when every place is free. */
  get idle(): boolean {
    return this.#free === this.limit;
  }
}

/** Mutations of one session in flight to one server. */
export const slotsPerServer = 64;

/** The reply slots of a session that belong to one server: numbers base .. base + {@linkcode slotsPerServer} - 1. */
export class SlotPool {
  readonly gate = new Gate(slotsPerServer);
  /** The last slot given back is taken first, so that few slots mean few reply records. */
  #free: number[] = [];

  constructor(readonly base: number) {
    for (let i = slotsPerServer - 1; i >= 0; i--) this.#free.push(base + i);
  }

  /** A slot that is free now, or {@linkcode noSlot}. */
  tryTake(): number {
    return this.gate.tryAcquire() ? this.#free.pop()! : noSlot;
  }

  /** A slot for one request, or {@linkcode noSlot} when none came free by `deadlineMs`. */
  *take(deadlineMs: number): Task<number> {
    if (!(yield* this.gate.acquire(deadlineMs))) return noSlot;
    return this.#free.pop()!;
  }

  /** Gives back a slot whose request was answered (or fenced). */
  give(slot: number): void {
    this.#free.push(slot);
    this.gate.release();
  }
}
