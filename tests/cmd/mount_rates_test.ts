/** What `sealfs client stats` and `profile` make of two readings. */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { ratesOf } from "../../cmd/client/mount_rates.ts";
import { profileText } from "../../cmd/client/profile.ts";
import { statsText } from "../../cmd/client/stats.ts";
import { stripAnsiCode } from "@std/fmt/colors";
import { FUSE } from "../../core/fuse/protocol.ts";
import { LatencyTable } from "../../core/metrics/latency_table.ts";
import { type ClientMetricsMemory, clientMetricsMemory, readClient } from "../../ffi/metrics/client_metrics.ts";

/** A reading of one reactor, as the daemon gives it. */
function reading(memory: ClientMetricsMemory, atMs: number, figures: Record<string, number>) {
  const { operations, reactors: [zeros] } = readClient([memory]);
  return {
    mountpoint: "/mnt/a",
    volume: "v",
    state: "mounted" as const,
    atMs,
    operations,
    reactors: [{ ...zeros, ...figures }],
  };
}

Deno.test("ratesOf() tells operations, cache and reactors of an interval, slowest operation first", () => {
  const memory = clientMetricsMemory(), table = new LatencyTable(64, memory.operations);
  table.record(FUSE.WRITE, 500, 4096);
  const before = reading(memory, 1000, { processorMs: 100, turns: 5, namesFound: 10, namesMissed: 10, roundTrips: 9 });
  for (let i = 0; i < 100; i++) table.record(FUSE.LOOKUP, 0.01, 0);
  table.record(FUSE.WRITE, 3, 4096);
  table.trips[FUSE.WRITE] = 2;
  const after = reading(memory, 3000, {
    processorMs: 600,
    turns: 105,
    namesFound: 109,
    namesMissed: 11,
    roundTrips: 12,
    requestsInFlight: 3,
  });
  const rates = ratesOf(before, after);
  assertEquals(rates.seconds, 2);
  assertEquals(rates.operations.map((one) => [one.operation, one.count, one.perSecond, one.roundTrips, one.bytes]), [
    ["write", 1, 0.5, 2, 4096],
    ["lookup", 100, 50, 0, 0],
  ]);
  assertEquals([rates.names, rates.roundTrips, rates.requestsInFlight], [{ hits: 99, misses: 1 }, 3, 3]);
  assertEquals(rates.reactors, [{ cpu: 0.25, turns: 100, tasks: 0 }]);
  const text = stripAnsiCode(statsText(rates));
  assertStringIncludes(text, "/mnt/a, volume v\n");
  assertStringIncludes(text, "names 99 % of 50/s");
  assertStringIncludes(text, "25.0 % CPU");
  const profile = stripAnsiCode(profileText(rates));
  assertStringIncludes(profile, "75 %");
  assertStringIncludes(profile, "101 operations and 3 requests to servers in 2.0 s, 25.0 % of a processor\n");
  // The mount was started anew: what its new reactor says is of the interval.
  const anew = ratesOf(after, reading(clientMetricsMemory(), 5000, { processorMs: 200, turns: 7, namesFound: 1 }));
  assertEquals([anew.operations, anew.names.hits, anew.reactors[0].cpu], [[], 1, 0.1]);
  assertStringIncludes(statsText(anew), "no operations\n");
});
