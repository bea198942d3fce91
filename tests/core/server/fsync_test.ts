/**
 * What fsync promises of names: all that a file had when it was asked for are there after a power cut of every server.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { kind, shardOf } from "../../../core/meta/layout.ts";
import { inodeKey } from "../../../core/meta/layout.ts";
import { everywhere, placesOf } from "../../../core/meta/places.ts";
import * as m from "../../../core/protocol/messages.ts";
import { bytes, Cluster } from "./cluster.ts";

/** Directories in the root, on each server in turn. */
function directories(c: Cluster, count: number): number[] {
  const made: number[] = [];
  for (let number = 0; made.length < count; number++) {
    const { inode } = c.mkdir(c.root, `d${number}`).attributes;
    if (c.ownerOf(inode) === made.length % 3) made.push(inode);
  }
  return made;
}

function link(c: Cluster, inode: number, dir: number, name: string): void {
  assertEquals(c.call(m.LINK, dir, { inode, dir, name: bytes(name) }).status, 0);
}

function sync(c: Cluster, inode: number): void {
  assertEquals(c.call(m.FSYNC, inode, { inode }).status, 0);
}

function places(c: Cluster, inode: number) {
  return placesOf(c.servers[c.ownerOf(inode)].server.engine, inode);
}

Deno.test("fsync of a file with names on several servers keeps them all, over a power cut of all servers", () => {
  const c = new Cluster(), dirs = directories(c, 6);
  const { inode } = c.create(dirs[0], "f");
  for (const dir of dirs.slice(1)) link(c, inode, dir, "f");
  assertEquals(c.rename(dirs[5], "f", dirs[4], "g"), 0);
  sync(c, inode);
  c.powerCut();
  assertEquals(c.attributes(inode).nlink, 6);
  for (const dir of dirs.slice(0, 5)) assertEquals(c.lookup(dir, "f").inode, inode);
  assertEquals(c.lookup(dirs[4], "g").inode, inode);
});

Deno.test("an fsync forgets directories of names once the intents that made them are over", () => {
  const c = new Cluster(), dirs = directories(c, 3);
  const { inode } = c.create(dirs[0], "f");
  link(c, inode, dirs[0], "near");
  assertEquals(places(c, inode), [], "the inode knows it");
  link(c, inode, dirs[1], "far");
  link(c, inode, dirs[2], "far");
  assertEquals(new Set(places(c, inode).map((place) => place.dir)), new Set(dirs));
  c.world.pass(10_000);
  sync(c, inode);
  assertEquals(places(c, inode), []);
});

Deno.test("a file with names in very many directories is still synced with all of them", () => {
  const c = new Cluster(), dirs = directories(c, 40);
  const { inode } = c.create(dirs[0], "f");
  for (const dir of dirs.slice(1)) link(c, inode, dir, "f");
  assert(places(c, inode).some((place) => place.dir === everywhere));
  sync(c, inode);
  c.powerCut();
  for (const dir of dirs) assertEquals(c.lookup(dir, "f").inode, inode);
  for (const dir of dirs) assertEquals(c.call(m.UNLINK, dir, { dir, name: bytes("f") }).status, 0);
  const { store } = c.servers[c.ownerOf(inode)].server.engine;
  assertEquals(store.get(inodeKey(shardOf(inode), kind.places, inode)), undefined);
});
