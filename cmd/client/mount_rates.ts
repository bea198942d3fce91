/**
 * What a mount did between two readings of its figures: for `sealfs client stats` and `profile`.
 *
 * @module
 */

import { figuresSince, type OperationFigures, percentileMs } from "../../core/metrics/latency_table.ts";
import type { ClientFigures, MountMetrics } from "../../ffi/metrics/client_metrics.ts";
import { askRunningDaemon, type ClientFlags } from "./common.ts";

/** One kind of operation in an interval. */
export interface OperationRate {
  operation: string;
  count: number;
  perSecond: number;
  totalMs: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  /** Data that programs read or wrote by it. */
  bytes: number;
  /** Requests that were sent to servers for it. */
  roundTrips: number;
}

/** Questions to the lease cache. */
export interface CacheRate {
  hits: number;
  misses: number;
}

/** A mount in an interval; counts are of the interval, "in flight" and "open" of its end. */
export interface MountRates {
  mountpoint: string;
  volume: string;
  state: string;
  seconds: number;
  /** Those that happened, by total time, longest first. */
  operations: OperationRate[];
  names: CacheRate;
  attributes: CacheRate;
  recalls: number;
  cachedInodes: number;
  roundTrips: number;
  retries: number;
  bytesSent: number;
  bytesReceived: number;
  requestsInFlight: number;
  callsInFlight: number;
  openFiles: number;
  /** `cpu`: part of one processor, 0 to 1. */
  reactors: { cpu: number; turns: number; tasks: number }[];
}

/** Asks the daemon for the figures of one mount or all. Throws CommandError. */
export async function askMetrics(flags: ClientFlags, mountpoint: string | undefined): Promise<MountMetrics[]> {
  return await askRunningDaemon(flags, { ask: "metrics", mountpoint }) as MountMetrics[];
}

/** What happened between two readings. A mount that was started anew in between is counted from its start. */
export function ratesOf(before: MountMetrics, after: MountMetrics): MountRates {
  const seconds = (after.atMs - before.atMs) / 1000;
  const counted = (name: keyof ClientFigures) => {
    const [from, to] = [sum(before, name), sum(after, name)];
    return to >= from ? to - from : to;
  };
  const now = (name: keyof ClientFigures) => sum(after, name);
  const operations = figuresSince(before.operations, after.operations);
  return {
    mountpoint: after.mountpoint,
    volume: after.volume,
    state: after.state,
    seconds,
    operations: operations.map((one) => rateOf(one, seconds)).sort((a, b) => b.totalMs - a.totalMs),
    names: { hits: counted("namesFound"), misses: counted("namesMissed") },
    attributes: { hits: counted("attributesFound"), misses: counted("attributesMissed") },
    recalls: counted("recalls"),
    cachedInodes: now("cachedInodes"),
    roundTrips: counted("roundTrips"),
    retries: counted("retries"),
    bytesSent: counted("bytesSent"),
    bytesReceived: counted("bytesReceived"),
    requestsInFlight: now("requestsInFlight"),
    callsInFlight: now("callsInFlight"),
    openFiles: now("openFiles"),
    reactors: after.reactors.map((figures, index) => {
      const earlier = before.reactors[index], known = earlier !== undefined && earlier.turns <= figures.turns;
      const since = (name: keyof ClientFigures) => figures[name] - (known ? earlier[name] : 0);
      return { cpu: since("processorMs") / 1000 / seconds, turns: since("turns"), tasks: figures.tasks };
    }),
  };
}

function sum({ reactors }: MountMetrics, name: keyof ClientFigures): number {
  return reactors.reduce((total, figures) => total + figures[name], 0);
}

function rateOf(figures: OperationFigures, seconds: number): OperationRate {
  const { name, count, totalMs, maxMs, bytes, trips } = figures;
  return {
    operation: name,
    count,
    perSecond: count / seconds,
    totalMs,
    p50Ms: percentileMs(figures, 0.5),
    p99Ms: percentileMs(figures, 0.99),
    maxMs,
    bytes,
    roundTrips: trips,
  };
}

/** A duration of operations: `0.042 ms`, `12.3 ms`, `4.2 s`. */
export function latencyText(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms >= 10 ? ms.toFixed(1) : ms.toFixed(3)} ms`;
}

/** A count or rate for people: `12,345`, `3.5`. */
export function countText(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

/** A share for people: `97 %`; `-` of nothing. */
export function shareText(part: number, whole: number): string {
  return whole === 0 ? "-" : `${(part / whole * 100).toFixed(part / whole < 0.1 ? 1 : 0)} %`;
}
