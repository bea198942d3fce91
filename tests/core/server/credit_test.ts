/**
 * What stores may take of a volume's size.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { primaryOf } from "../../../core/placement/map.ts";
import { rootShard } from "../../../core/placement/hash.ts";
import { type Task, wait } from "../../../core/task.ts";
import { Cluster, shards } from "./cluster.ts";

Deno.test("Credit.reserve() asks again when a recall has overtaken its answer", () => {
  const c = new Cluster(2 ** 26), root = primaryOf(c.map, rootShard(1, shards)) - 1, other = (root + 1) % 3;
  const { engine } = c.servers[other].server, { node } = c.servers[other];
  const reserved = c.begin(engine.credit.reserve(1, 4096, 1), node);
  // The question has gone out; the answer is under way when the root takes everything back.
  c.world.part(node, c.servers[root].node, "hold");
  const recalled = c.begin(
    (function* (): Task<{ bytes: number; inodes: number }> {
      yield* wait(node.sleep(50));
      return engine.credit.recall(1);
    })(),
    node,
  );
  assertEquals(c.end(recalled), { bytes: 0, inodes: 0 });
  c.world.healAll();
  const asked = () => engine.caller.roundTrips.CREDIT;
  assertEquals(c.end(reserved), 0);
  assert(asked() >= 2, `asked ${asked()} times`);
});
