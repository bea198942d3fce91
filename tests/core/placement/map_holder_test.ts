import { assert, assertEquals } from "@std/assert";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import type { ClusterMap } from "../../../core/placement/map.ts";

function map(epoch: number): ClusterMap {
  return {
    epoch,
    clusterId: "c",
    shards: 4,
    replicas: 1,
    servers: [{ id: 1, address: "a:1", stores: 2, weight: 1, state: 1 }],
    owners: [[1], [1], [1], []],
    volumes: [],
    sessionHorizon: 0,
    sessions: [],
  };
}

Deno.test("MapHolder.update() ignores a map that is not newer", () => {
  const holder = new MapHolder(map(5));
  assertEquals(holder.update(map(5)), false);
  assertEquals(holder.update(map(4)), false);
  assertEquals(holder.update(map(6)), true);
  assertEquals(holder.current.epoch, 6);
});

Deno.test("MapHolder.newer() asks for the map and settles when it comes", () => {
  const asked: number[] = [];
  const holder = new MapHolder(map(5), (epoch) => asked.push(epoch));
  assert(holder.newer(4).settled);
  const waiter = holder.newer(6);
  assertEquals(asked, [7]);
  holder.update(map(6));
  assertEquals(waiter.settled, false);
  holder.update(map(7));
  assert(waiter.settled);
});

Deno.test("MapHolder.heard() asks once for each newer epoch", () => {
  const asked: number[] = [];
  const holder = new MapHolder(map(5), (epoch) => asked.push(epoch));
  for (const epoch of [4, 5, 8, 8, 7, 9]) holder.heard(epoch);
  assertEquals(asked, [8, 9]);
});

Deno.test("MapHolder.ownerOf() gives server and store, and null while nobody serves the shard", () => {
  const holder = new MapHolder(map(5));
  assertEquals(holder.ownerOf(1), { server: 1, store: 1 });
  assertEquals(holder.ownerOf(2), { server: 1, store: 0 });
  assertEquals(holder.ownerOf(3), null);
});

Deno.test("MapHolder.holders lists the stores that serve shards and leaves out a server that has none", () => {
  const value = map(5);
  value.servers.push({ id: 2, address: "a:2", stores: 2, weight: 1, state: 1 });
  value.servers.push({ id: 3, address: "a:3", stores: 2, weight: 1, state: 2 });
  value.owners = [[1], [1, 2], [1], []];
  const holder = new MapHolder(value);
  assertEquals(holder.holders, [{ server: 1, store: 0 }, { server: 1, store: 1 }, { server: 2, store: 1 }]);
  holder.update({ ...value, epoch: 6, owners: [[3], [], [], []] });
  assertEquals(holder.holders, [{ server: 3, store: 0 }]);
});
