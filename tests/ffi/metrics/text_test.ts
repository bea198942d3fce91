/** The text format, as Prometheus reads it. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { LatencyTable } from "../../../core/metrics/latency_table.ts";
import { histogram, metric, processMetrics } from "../../../ffi/metrics/text.ts";

Deno.test("metric() writes help, type and samples, with labels escaped, and nothing without samples", () => {
  const samples = [{ labels: { path: 'a"b\\c\nd', id: 5 }, value: 1.5 }, { value: 2 }];
  assertEquals(
    metric("sealfs_x", "gauge", "An x", samples),
    '# HELP sealfs_x An x\n# TYPE sealfs_x gauge\nsealfs_x{path="a\\"b\\\\c\\nd",id="5"} 1.5\nsealfs_x 2\n',
  );
  assertEquals(metric("sealfs_x", "gauge", "An x", []), "");
});

Deno.test("histogram() has cumulative bounds in seconds, a sum and a count", () => {
  const table = new LatencyTable(2);
  for (const ms of [0.01, 0.5, 2, 60_000]) table.record(1, ms, 0);
  const [figures] = table.figures(() => "write");
  const lines = histogram("sealfs_y", "A y", [{ labels: { operation: "write" }, figures }]).trimEnd().split("\n");
  assertEquals(lines.slice(0, 3), [
    "# HELP sealfs_y A y",
    "# TYPE sealfs_y histogram",
    'sealfs_y_bucket{operation="write",le="0.000016"} 1',
  ]);
  const counts = lines.filter((line) => line.includes("_bucket")).map((line) => Number(line.split(" ").at(-1)));
  assert(counts.every((count, i) => i === 0 || count >= counts[i - 1]));
  assert(lines.includes('sealfs_y_bucket{operation="write",le="0.000512"} 2'));
  assert(lines.includes('sealfs_y_bucket{operation="write",le="0.002048"} 3'));
  assertEquals(lines.slice(-3), [
    'sealfs_y_bucket{operation="write",le="+Inf"} 4',
    'sealfs_y_sum{operation="write"} 60.00251',
    'sealfs_y_count{operation="write"} 4',
  ]);
});

Deno.test("processMetrics() tells what the process takes", () => {
  const text = processMetrics("server", "1.2.3");
  assertMatch(text, /^sealfs_build_info\{role="server",version="1\.2\.3"\} 1$/m);
  const value = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
  assert(value("process_cpu_seconds_total") > 0 && value("process_cpu_seconds_total") < 3600);
  assert(value("process_resident_memory_bytes") > 1e6);
  assert(Math.abs(value("process_start_time_seconds") - Date.now() / 1000) < 3600);
});
