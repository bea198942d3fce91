/**
 * Measures operations of a reactor into a {@linkcode LatencyTable}, and marks its tasks with the operation they work for,
 * so that the requests they send can be told apart.
 *
 * An operation begins with the reactor's turn that sees it, whose clock has been read anyway; its end costs one look at
 * the clock.
 *
 * @module
 */

import type { Runtime } from "../runtime.ts";
import type { LatencyTable } from "./latency_table.ts";

/** See the module's comment. */
export class Meter {
  /** `clockMs` is the clock of `runtime`, read at every call. */
  constructor(
    private readonly runtime: Runtime,
    private readonly table: LatencyTable,
    private readonly clockMs: () => number,
  ) {}

  /** The running task works for an operation of `kind` from now on. Returns what {@linkcode end} is told. */
  begin(kind: number): number {
    this.runtime.scheduler.origin = kind;
    return this.runtime.nowMs();
  }

  /** The operation has been done; it moved `bytes` of data. */
  end(kind: number, beganMs: number, bytes: number): void {
    this.table.record(kind, this.clockMs() - beganMs, bytes);
  }

  /** Milliseconds on the clock of {@linkcode begin}, now: for operations that end together. */
  nowMs(): number {
    return this.clockMs();
  }

  /** As {@linkcode end}, at a moment of {@linkcode nowMs}. */
  ended(kind: number, beganMs: number, endedMs: number): void {
    this.table.record(kind, endedMs - beganMs, 0);
  }
}
