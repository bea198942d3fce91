/**
 * The simulated world keeps its word: a seed gives one run, frames do not outlive their delivery, a crash forgets
 * everything, and every fault it can make does happen.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import type { Link } from "../../core/runtime.ts";
import { type Task, wait } from "../../core/task.ts";
import { calmNetwork, type NetworkFaults, type Node, SimulationError, World } from "./world.ts";

const endpoint = { serverId: 1, address: "server:1", store: 0 };
const roughNetwork: NetworkFaults = { delayMs: [0.1, 5], loss: 0.1, duplicate: 0.1, stall: 0.2 };

/** A server that answers each frame with its bytes plus one, and a client that sends `count` numbers. */
function echo(seed: number, faults: NetworkFaults, count: number): { world: World; heard: number[]; nodes: Node[] } {
  const world = new World(seed);
  world.faults = faults;
  const server = world.node("server"), client = world.node("client");
  const heard: number[] = [];
  world.listen(server, 1, 0, (link) => link.onFrame = (frame) => link.send(new Uint8Array([frame[0] + 1])));
  const link = client.connect(endpoint);
  link.onFrame = (frame) => heard.push(frame[0]);
  client.spawn((function* (): Task<void> {
    for (let i = 0; i < count; i++) {
      link.send(new Uint8Array([i]));
      yield* wait(client.sleep(1));
    }
  })());
  return { world, heard, nodes: [server, client] };
}

Deno.test("World runs the same way twice when the seed is the same, and another way when it is not", () => {
  const digests = [7, 7, 8].map((seed) => {
    const { world } = echo(seed, roughNetwork, 50);
    world.pass(1000);
    return world.digest;
  });
  assertEquals(digests[0], digests[1]);
  assertNotEquals(digests[0], digests[2]);
});

Deno.test("Link delivers whole frames in order, however late some are", () => {
  const { world, heard } = echo(1, { ...calmNetwork, stall: 0.3 }, 100);
  world.pass(1000);
  assertEquals(heard, Array.from({ length: 100 }, (_, i) => i + 1));
});

Deno.test("Link loses and doubles frames when the network is told to", () => {
  const { world, heard } = echo(1, roughNetwork, 100);
  world.pass(1000);
  const distinct = new Set(heard);
  assert(distinct.size < 100, "nothing was lost");
  assert(heard.length > distinct.size, "nothing was doubled");
});

Deno.test("Link destroys a frame after its delivery", () => {
  const world = new World(1);
  const server = world.node("server"), client = world.node("client");
  let kept: Uint8Array | null = null;
  world.listen(server, 1, 0, (link) => link.onFrame = (frame) => kept = frame);
  const head = new Uint8Array([1, 2, 3]);
  client.connect(endpoint).send(head);
  head.fill(9);
  world.pass(100);
  assertEquals([...kept!], [0xdb, 0xdb, 0xdb]);
});

Deno.test("Node forgets its tasks when it crashes, and its peers hear of it", () => {
  const { world, heard, nodes: [server, client] } = echo(1, calmNetwork, 100);
  world.pass(20);
  const before = heard.length;
  assert(before > 0 && before < 100);
  server.crash();
  world.pass(1000);
  assert(heard.length <= before + 1);
  let closed = "";
  client.connect(endpoint).onClose = (reason) => closed = reason;
  world.pass(100);
  assertEquals(closed, "connection refused");
});

Deno.test("Node that crashes unsaid has done its turn, but nobody hears of it", () => {
  const { world, heard, nodes: [server] } = echo(1, calmNetwork, 100);
  let turns = 0;
  server.onTurnEnd = () => turns++;
  world.pass(20);
  const before = heard.length, turnsBefore = turns;
  let crashed = false;
  server.crashUnsaid(() => crashed = true);
  world.pass(100);
  assert(crashed);
  assertEquals(turns, turnsBefore + 1);
  assert(heard.length <= before + 1);
});

Deno.test("part() holds frames back until heal(), or drops them", () => {
  for (const mode of ["hold", "drop"] as const) {
    const { world, heard, nodes: [server, client] } = echo(3, calmNetwork, 100);
    world.pass(20);
    world.part(server, client, mode);
    world.pass(2);
    const before = heard.length;
    world.pass(500);
    assertEquals(heard.length, before);
    world.heal(server, client);
    world.pass(100);
    assertEquals(heard.length > before, mode === "hold");
    if (mode === "hold") assertEquals(heard.length, 100);
  }
});

Deno.test("Node takes no turn while it pauses", () => {
  const { world, heard, nodes: [, client] } = echo(3, calmNetwork, 100);
  world.pass(20);
  client.pause(50);
  const before = heard.length;
  world.pass(49);
  assertEquals(heard.length, before);
  world.pass(1000);
  assertEquals(heard.length, 100);
});

Deno.test("World fails the run when a task throws, naming seed and time", () => {
  const world = new World(42);
  const node = world.node("server");
  node.spawn((function* (): Task<void> {
    yield* wait(node.sleep(5));
    throw new Error("a bug");
  })());
  const error = assertThrows(() => world.pass(100), SimulationError, "seed 42");
  assert(error.message.includes("a bug"));
});

Deno.test("World fails the run when a task spins or when nothing can happen any more", () => {
  const world = new World(1);
  assertThrows(() => world.run(() => false, 10, "a miracle"), SimulationError, "a miracle");
  const other = new World(1), node = other.node("server");
  node.spawn((function* (): Task<void> {
    for (;;) yield* wait(node.sleep(1));
  })());
  assertThrows(() => other.run(() => false, 1000, "a miracle"), SimulationError, "1000 ms passed");
});

Deno.test("Link whose peer is gone tells its user, not the user who closed it", () => {
  const world = new World(1);
  const server = world.node("server"), client = world.node("client");
  const links: Link[] = [];
  let serverHeard = "", clientHeard = "";
  world.listen(server, 1, 0, (link) => {
    links.push(link);
    link.onClose = (reason) => serverHeard = reason;
  });
  const link = client.connect(endpoint);
  link.onClose = (reason) => clientHeard = reason;
  world.pass(10);
  assertEquals(links.length, 1);
  link.close();
  world.pass(10);
  assertEquals([serverHeard, clientHeard], ["closed by the peer", ""]);
});
