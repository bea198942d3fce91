/** What operations of clients and servers are measured as, on a cluster of the real core. */

import { assert, assertEquals } from "@std/assert";
import { LatencyTable } from "../../../core/metrics/latency_table.ts";
import { Meter, timedOneOf } from "../../../core/metrics/meter.ts";
import { PING } from "../../../core/protocol/messages.ts";
import type { Runtime } from "../../../core/runtime.ts";
import { Future, Scheduler, type Task, wait } from "../../../core/task.ts";
import { Cluster } from "../server/cluster.ts";

Deno.test("Scheduler keeps apart what tasks work for, and hands it to the tasks that they start", () => {
  const scheduler = new Scheduler((error) => {
    throw error;
  });
  const gate = new Future<void>(), seen: [string, number][] = [];
  function* child(name: string): Task<void> {
    seen.push([name, scheduler.origin]);
    yield* wait(gate);
    seen.push([name, scheduler.origin]);
  }
  function* parent(name: string, origin: number): Task<void> {
    scheduler.origin = origin;
    scheduler.spawn(child(`child of ${name}`));
    yield* child(name);
  }
  scheduler.spawn(parent("a", 5));
  scheduler.spawn(parent("b", 6));
  scheduler.spawn(child("c"));
  scheduler.run();
  assertEquals(scheduler.origin, 0);
  gate.resolve();
  scheduler.run();
  const expected = { a: 5, b: 6, c: 0, "child of a": 5, "child of b": 6 };
  assertEquals(seen.length, 10);
  for (const [name, origin] of seen) assertEquals(origin, expected[name as keyof typeof expected], name);
});

Deno.test("a meter looks at the clock for one of four operations that end in the turn they began in", () => {
  const table = new LatencyTable(8), scheduler = new Scheduler(() => {});
  let turnMs = 100, looks = 0;
  const runtime = { scheduler, nowMs: () => turnMs } as unknown as Runtime;
  const meter = new Meter(runtime, table, () => turnMs + ++looks);
  for (let i = 0; i < 100; i++) meter.end(3, meter.begin(3), 0);
  assertEquals(looks, 100 / timedOneOf);
  for (let i = 0; i < 100; i++) {
    const beganMs = meter.begin(4);
    turnMs += 7;
    meter.end(4, beganMs, 0);
  }
  assertEquals(looks, 100 / timedOneOf);
  const [within, over] = table.figures(String);
  // Looks took 1, 2, 3 ... ms, and each counted for four.
  assertEquals([within.count, within.totalMs, over.count, over.totalMs], [100, timedOneOf * 25 * 26 / 2, 100, 700]);
});

Deno.test("a meter measures operations, and the requests that are sent for them are told apart", () => {
  const table = new LatencyTable(64), cluster = new Cluster(), { client: node } = cluster;
  const caller = cluster.newCaller(table.trips), meter = new Meter(node, table, () => node.nowMs());
  function* ask(kind: number, servers: number[]): Task<void> {
    const beganMs = meter.begin(kind);
    for (const server of servers) yield* caller.call(PING, { server, store: 0 }, {});
    meter.end(kind, beganMs, 5);
  }
  const all = [ask(7, [1, 2, 3]), ask(9, [2])].map((task) => cluster.begin(task));
  for (const one of all) cluster.end(one);
  const rows = table.figures(String).filter(({ count }) => count > 0);
  assertEquals(rows.map(({ name, count, bytes, trips }) => [name, count, bytes, trips]), [["7", 1, 5, 3], [
    "9",
    1,
    5,
    1,
  ]]);
  assert(rows.every(({ totalMs }) => totalMs > 0));
});
