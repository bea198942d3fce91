/**
 * What a reactor shows of itself to its process's main thread, in shared memory: a reader never waits for the reactor, nor
 * the reactor for a reader.
 *
 * Histograms are counted where they are read. Other figures are put up by the reactor four times a second while it has
 * something to do; an idle one is not woken for it.
 *
 * @module
 */

import { LatencyTable } from "../../core/metrics/latency_table.ts";
import { Meter } from "../../core/metrics/meter.ts";
import type { Reactor } from "../reactor.ts";

/** Time from something that happens until the figures show it. */
export const publishMs = 250;
/** The hook that puts figures up comes when the turn has nothing left to do. */
const publishOrder = 900;

/** Named figures of one reactor, by the names that its maker gives. */
export class Figures<Name extends string> {
  readonly #values: Float64Array;

  constructor(readonly names: readonly Name[], memory: SharedArrayBuffer) {
    this.#values = new Float64Array(memory, 0, names.length);
  }

  /** Memory for these names. */
  static memory(names: readonly string[]): SharedArrayBuffer {
    return new SharedArrayBuffer(names.length * 8);
  }

  /** Puts up new values. */
  set(values: Readonly<Record<Name, number>>): void {
    for (let i = 0; i < this.names.length; i++) this.#values[i] = values[this.names[i]];
  }

  /** The values that were put up last; zeros before the first time. */
  get(): Record<Name, number> {
    return Object.fromEntries(this.names.map((name, i) => [name, this.#values[i]])) as Record<Name, number>;
  }
}

/** Memory for a {@linkcode LatencyTable} of so many kinds. */
export function tableMemory(kinds: number): SharedArrayBuffer {
  return new SharedArrayBuffer(LatencyTable.bytes(kinds));
}

/** A meter of a reactor that counts in shared memory. */
export function sharedMeter(reactor: Reactor, kinds: number, memory: SharedArrayBuffer): Meter {
  return new Meter(reactor, new LatencyTable(kinds, memory), () => reactor.clockMs());
}

/** Calls `publish` at the end of a turn, {@linkcode publishMs} after the first turn since the last time. */
export function publishWhenBusy(reactor: Reactor, publish: () => void): void {
  let awaited = false, due = false;
  reactor.atEndOfTurn(publishOrder, () => {
    if (due) {
      due = awaited = false;
      publish();
    } else if (!awaited) {
      awaited = true;
      reactor.after(publishMs, () => due = true);
    }
  });
  publish();
}
