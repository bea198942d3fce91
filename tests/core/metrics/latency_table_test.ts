/** Histograms: buckets, percentiles, differences and sums. */

import { assert, assertEquals } from "@std/assert";
import {
  bucketCount,
  bucketEndMs,
  bucketOf,
  figuresSince,
  LatencyTable,
  percentileMs,
  sumOfFigures,
} from "../../../core/metrics/latency_table.ts";

const nameOf = (kind: number) => `kind ${kind}`;

Deno.test("bucketOf() puts every duration into a bucket that ends above it and is an eighth wide at most", () => {
  let before = 0;
  for (let us = 0; us < 2 ** 27; us = us < 5000 ? us + 1 : Math.ceil(us * 1.003)) {
    const bucket = bucketOf(us / 1000), endUs = Math.round(bucketEndMs(bucket) * 1000);
    assert(bucket >= before && bucket < bucketCount && endUs > us, `${us} us: bucket ${bucket} ends at ${endUs}`);
    assert(us < 8 ? endUs === us + 1 : endUs <= us * 1.125 + 1, `${us} us: bucket ${bucket} ends at ${endUs}`);
    before = bucket;
  }
  assertEquals(before, bucketCount - 1);
  assertEquals([bucketOf(1e9), bucketOf(-5), bucketOf(0.0004)], [bucketCount - 1, 0, 0]);
});

Deno.test("LatencyTable counts what is recorded, in memory that another table reads", () => {
  const memory = new SharedArrayBuffer(LatencyTable.bytes(4)), table = new LatencyTable(4, memory);
  for (let ms = 1; ms <= 100; ms++) table.record(2, ms, 10);
  table.record(99, 5, 0);
  table.trips[2] = 7;
  const [other, row, ...more] = new LatencyTable(4, memory).figures(nameOf);
  assertEquals([other.name, other.count, row.name, row.count, more], ["kind 0", 1, "kind 2", 100, []]);
  assertEquals([row.totalMs, row.maxMs, row.bytes, row.trips], [5050, 100, 1000, 7]);
  for (const [share, ms] of [[0.01, 1], [0.5, 50], [0.99, 99]]) {
    const found = percentileMs(row, share);
    assert(found >= ms && found <= ms * 1.125 + 0.001, `${share}: ${found}`);
  }
  assertEquals(percentileMs(row, 1), 100);
  assertEquals(percentileMs({ ...row, buckets: [] }, 0.5), 0);
});

Deno.test("figuresSince() tells what happened in between, also over a start from zero", () => {
  const table = new LatencyTable(3);
  table.record(1, 800, 5);
  table.record(2, 1, 5);
  const before = table.figures(nameOf);
  table.record(1, 2, 5);
  table.trips[1] += 3;
  const [row, ...others] = figuresSince(before, table.figures(nameOf));
  assertEquals(others, []);
  assertEquals([row.count, row.totalMs, row.bytes, row.trips], [1, 2, 5, 3]);
  assert(row.maxMs >= 2 && row.maxMs < 2.3 && percentileMs(row, 0.99) === row.maxMs);
  const anew = new LatencyTable(3);
  anew.record(2, 4, 1);
  anew.record(2, 4, 1);
  assertEquals(figuresSince(before, anew.figures(nameOf)).map(({ count, totalMs }) => [count, totalMs]), [[2, 8]]);
});

Deno.test("sumOfFigures() makes one row of those of several threads", () => {
  const [one, two] = [new LatencyTable(3), new LatencyTable(3)];
  one.record(1, 1, 1);
  two.record(1, 1, 1);
  two.record(1, 3, 1);
  two.record(2, 9, 0);
  const rows = sumOfFigures([one.figures(nameOf), two.figures(nameOf)]);
  assertEquals(rows.map(({ name, count, totalMs, maxMs, bytes }) => [name, count, totalMs, maxMs, bytes]), [
    ["kind 1", 3, 5, 3, 3],
    ["kind 2", 1, 9, 9, 0],
  ]);
  assertEquals(rows[0].buckets, [[bucketOf(1), 2], [bucketOf(3), 1]]);
});
