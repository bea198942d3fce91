/**
 * How often each kind of operation was done, how long it took and how much it moved: counts and log-linear histograms
 * in one block of memory, which may be shared, so that another thread reads it while this one counts.
 *
 * Recording allocates nothing. Times below 8 us have a bucket a microsecond, longer ones eight buckets a power of two: a
 * percentile read from them is at most an eighth too high. A reader may catch a row between two of its numbers; each
 * number by itself is whole.
 *
 * @module
 */

/** Buckets of a power of two. */
const bucketsPerPower = 8;
/** Powers of two that are told apart: 8 us to 134 s; what takes longer counts as that. */
const powers = 24;
/** Buckets of a kind. */
export const bucketCount = bucketsPerPower * (powers + 1);
const microsecondsMax = 2 ** (powers + 3) - 1;

// Numbers of a row, before its buckets.
const countAt = 0, totalAt = 1, maxAt = 2, bytesAt = 3, numbers = 4;

/** What is known of one kind of operation. Buckets without an operation are left out. Plain data: it travels as JSON. */
export interface OperationFigures {
  name: string;
  count: number;
  totalMs: number;
  maxMs: number;
  bytes: number;
  /** Requests that were sent to servers for it. */
  trips: number;
  /** Pairs of a bucket's number, ascending, and its count. */
  buckets: [number, number][];
}

/** The bucket of a duration. */
export function bucketOf(ms: number): number {
  const us = Math.max(0, Math.min(microsecondsMax, ms * 1000)) >>> 0;
  if (us < bucketsPerPower) return us;
  const power = 28 - Math.clz32(us);
  return (power + 1) * bucketsPerPower + (us >>> power) - bucketsPerPower;
}

/** Milliseconds that everything in a bucket is below. */
export function bucketEndMs(bucket: number): number {
  if (bucket < bucketsPerPower) return (bucket + 1) / 1000;
  const power = Math.floor(bucket / bucketsPerPower) - 1;
  return (bucketsPerPower + bucket % bucketsPerPower + 1) * 2 ** power / 1000;
}

/** See the module's comment. Kinds are numbers from 0; one that is out of range counts as 0. */
export class LatencyTable {
  /** Requests sent to servers for each kind: counted by whoever sends them. */
  readonly trips: Float64Array;
  readonly #numbers: Float64Array;
  readonly #buckets: Uint32Array;

  /** `memory` has {@linkcode LatencyTable.bytes} zeros, or what another table of as many kinds counts in. */
  constructor(readonly kinds: number, memory: ArrayBufferLike = new ArrayBuffer(LatencyTable.bytes(kinds))) {
    this.trips = new Float64Array(memory, 0, kinds);
    this.#numbers = new Float64Array(memory, this.trips.byteLength, kinds * numbers);
    this.#buckets = new Uint32Array(memory, this.trips.byteLength + this.#numbers.byteLength, kinds * bucketCount);
  }

  /** Bytes of memory for so many kinds. */
  static bytes(kinds: number): number {
    return kinds * ((1 + numbers) * 8 + bucketCount * 4);
  }

  /** One more operation, which took `ms` and moved `bytes` of data. */
  record(kind: number, ms: number, bytes: number): void {
    const row = kind < this.kinds ? kind : 0, at = row * numbers, all = this.#numbers;
    all[at + countAt]++;
    all[at + totalAt] += ms;
    if (ms > all[at + maxAt]) all[at + maxAt] = ms;
    all[at + bytesAt] += bytes;
    this.#buckets[row * bucketCount + bucketOf(ms)]++;
  }

  /** Every kind that has happened or has sent something, named by `nameOf`. */
  figures(nameOf: (kind: number) => string): OperationFigures[] {
    const list: OperationFigures[] = [], all = this.#numbers;
    for (let kind = 0; kind < this.kinds; kind++) {
      const at = kind * numbers;
      if (all[at + countAt] === 0 && this.trips[kind] === 0) continue;
      list.push({
        name: nameOf(kind),
        count: all[at + countAt],
        totalMs: all[at + totalAt],
        maxMs: all[at + maxAt],
        bytes: all[at + bytesAt],
        trips: this.trips[kind],
        buckets: this.#bucketsOf(kind),
      });
    }
    return list;
  }

  #bucketsOf(kind: number): [number, number][] {
    const pairs: [number, number][] = [];
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      const count = this.#buckets[kind * bucketCount + bucket];
      if (count > 0) pairs.push([bucket, count]);
    }
    return pairs;
  }
}

/** Milliseconds within which a share (0 to 1) of the operations were done: a bucket's end; 0 when there were none. */
export function percentileMs({ buckets, maxMs }: OperationFigures, share: number): number {
  const total = buckets.reduce((sum, [, count]) => sum + count, 0);
  let left = Math.ceil(total * share);
  for (const [bucket, count] of buckets) {
    left -= count;
    if (left <= 0) return Math.min(maxMs, bucketEndMs(bucket));
  }
  return 0;
}

/**
 * What happened between two readings of one table. The longest of that time is known as well as its bucket is. After a
 * start from zero in between, it is what the later reading says.
 */
export function figuresSince(before: readonly OperationFigures[], after: readonly OperationFigures[]) {
  const earlier = new Map(before.map((one) => [one.name, one]));
  const later = new Map(after.map((one) => [one.name, one.count]));
  const restarted = before.some(({ name, count }) => (later.get(name) ?? 0) < count);
  return after.map((one) => restarted ? one : difference(earlier.get(one.name), one))
    .filter(({ count, trips }) => count > 0 || trips > 0);
}

function difference(before: OperationFigures | undefined, after: OperationFigures): OperationFigures {
  if (before === undefined) return after;
  const had = new Map(before.buckets);
  const buckets = after.buckets.map(([bucket, count]): [number, number] => [bucket, count - (had.get(bucket) ?? 0)])
    .filter(([, count]) => count > 0);
  const last = buckets.at(-1)?.[0], totalMs = after.totalMs - before.totalMs;
  return {
    name: after.name,
    count: after.count - before.count,
    totalMs,
    maxMs: last === undefined ? 0 : Math.min(after.maxMs, bucketEndMs(last), totalMs),
    bytes: after.bytes - before.bytes,
    trips: after.trips - before.trips,
    buckets,
  };
}

/** The sum of tables of several threads: rows of one name become one. */
export function sumOfFigures(tables: readonly (readonly OperationFigures[])[]): OperationFigures[] {
  return [...Map.groupBy(tables.flat(), ({ name }) => name)].map(([name, rows]) => {
    const buckets = new Map<number, number>();
    for (const [bucket, count] of rows.flatMap((row) => row.buckets)) {
      buckets.set(bucket, (buckets.get(bucket) ?? 0) + count);
    }
    const sum = (value: (row: OperationFigures) => number) => rows.reduce((total, row) => total + value(row), 0);
    return {
      name,
      count: sum((row) => row.count),
      totalMs: sum((row) => row.totalMs),
      maxMs: Math.max(...rows.map((row) => row.maxMs)),
      bytes: sum((row) => row.bytes),
      trips: sum((row) => row.trips),
      buckets: [...buckets].sort(([a], [b]) => a - b),
    };
  });
}
