/**
 * Access times that clients see while they hold leases.
 *
 * @module
 */

import { assertEquals, assertGreater } from "@std/assert";
import type { FileSystem } from "../../../core/client/filesystem.ts";
import { type Attributes, compareTime } from "../../../core/meta/attributes.ts";
import type { Task } from "../../../core/task.ts";
import { must, Pair, utf8 } from "./pair.ts";

/** What client 0 does, with attributes that both clients knew before under leases; both see the new atime at once. */
function sees(p: Pair, inode: number, act: (fs: FileSystem) => Task<unknown>): void {
  p.world.pass(5_000);
  const stat = (client: number): Attributes => must(p.run((fs) => fs.getAttributes(inode), client));
  const before = stat(0);
  assertEquals(stat(1), before);
  const asked = p.cluster.clients[1].session!.caller.roundTrips["GETATTR"];
  assertEquals(stat(1), before);
  assertEquals(p.cluster.clients[1].session!.caller.roundTrips["GETATTR"], asked, "under a lease");
  p.run(act);
  for (const client of [1, 0]) assertGreater(compareTime(stat(client).atime, before.atime), 0);
  const { atime } = stat(1);
  p.run(act);
  assertEquals(stat(0).atime, atime, "not due any more");
}

Deno.test("an atime that moves is seen by clients with leases on the inode", () => {
  const p = new Pair(), file = p.create(p.root, "file").inode, dir = p.mkdir(p.root, "dir").inode;
  const link = p.create(p.root, "link", "target").inode;
  must(p.run((fs) => fs.write(file, 0, utf8("text"), { killSetId: false })));
  sees(p, file, (fs) => fs.read(file, 0, new Uint8Array(4)));
  sees(p, link, (fs) => fs.readLink(link));
  sees(p, dir, (fs) => fs.readDirectory(dir, 0, 4096, { plus: true }));
});

Deno.test("no lease is missed, also when a moved atime is recorded later", () => {
  const p = new Pair(), file = p.create(p.root, "file").inode;
  p.world.pass(5_000);
  p.run((fs) => fs.read(file, 0, new Uint8Array(4)));
  p.world.pass(500);
  for (const client of [0, 1]) must(p.run((fs) => fs.getAttributes(file), client));
  p.world.pass(3_000);
  for (const one of p.cluster.servers) {
    for (const { engine } of one.servers) assertEquals(engine.leases.counters.missed, 0);
  }
});
