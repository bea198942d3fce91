/**
 * Measures operations of a reactor into a {@linkcode LatencyTable}, and marks its tasks with the operation they work for,
 * so that the requests they send can be told apart.
 *
 * The clock that the reactor reads once a turn serves both ends of an operation that waits. One that is done in the turn
 * that it began in would take no time by it: of these, which are the cheapest, every fourth is timed by a look at the
 * clock, and counts for those of its kind that follow.
 *
 * @module
 */

import type { Runtime } from "../runtime.ts";
import type { LatencyTable } from "./latency_table.ts";

/** Of so many operations that end in the turn they began in one is timed; a power of two. */
export const timedOneOf = 4;

/** See the module's comment. */
export class Meter {
  readonly #lastMs: Float64Array;
  #within = 0;

  /** `clockMs` is the clock of `runtime`, read at every call. */
  constructor(
    private readonly runtime: Runtime,
    private readonly table: LatencyTable,
    private readonly clockMs: () => number,
  ) {
    this.#lastMs = new Float64Array(table.kinds);
  }

  /** The running task works for an operation of `kind` from now on. Returns what {@linkcode end} is told. */
  begin(kind: number): number {
    this.runtime.scheduler.origin = kind;
    return this.runtime.nowMs();
  }

  /** What {@linkcode end} is told of an operation that is done without a task. */
  seen(): number {
    return this.runtime.nowMs();
  }

  /** The operation has been done; it moved `bytes` of data. */
  end(kind: number, beganMs: number, bytes: number): void {
    const ms = this.runtime.nowMs() - beganMs;
    this.table.record(kind, ms > 0 ? ms : this.#withinTurnMs(kind, beganMs), bytes);
  }

  /** Milliseconds on the clock of {@linkcode begin}, now: for operations that end together, and for blocking ones. */
  nowMs(): number {
    return this.clockMs();
  }

  /** As {@linkcode end}, at a moment of {@linkcode nowMs}. */
  ended(kind: number, beganMs: number, endedMs: number): void {
    this.table.record(kind, endedMs - beganMs, 0);
  }

  #withinTurnMs(kind: number, beganMs: number): number {
    const last = this.#lastMs[kind];
    if ((this.#within++ & (timedOneOf - 1)) !== 0 && last > 0) return last;
    return this.#lastMs[kind] = this.clockMs() - beganMs;
  }
}
