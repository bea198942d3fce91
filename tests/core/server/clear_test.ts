/**
 * CLEAR, TALLY, INODE_STATUS and CHUNKS, from servers of the real core over simulated links and media.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { ClientSession } from "../../../core/client/session.ts";
import { VolumeClient } from "../../../core/client/volume_client.ts";
import { E } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { shardOf } from "../../../core/meta/layout.ts";
import { chunkShard } from "../../../core/placement/hash.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import * as m from "../../../core/protocol/messages.ts";
import { bytes, Cluster, shards } from "./cluster.ts";

const text = (name: Uint8Array) => new TextDecoder().decode(name);
const clear = (c: Cluster, dir: number, cookie = 0, owner: number | null = null) => {
  const reply = c.call(m.CLEAR, dir, { dir, cookie, owner });
  return { ...reply, left: reply.left?.map((one: { name: Uint8Array }) => text(one.name)).sort() };
};
const names = (c: Cluster, dir: number) => {
  const page = c.call(m.READDIR, dir, { dir, cookie: 0, limitBytes: 1 << 18, plus: false, accessTimes: 0 });
  return page.entries.map((entry: { name: Uint8Array }) => text(entry.name)).sort();
};
/** A new directory on another shard than the one it is in. */
const farDirectory = (c: Cluster, dir: number): number => {
  for (let i = 0;; i++) {
    const { inode } = c.mkdir(dir, `far${i}`).attributes;
    if (shardOf(inode) !== shardOf(dir)) return inode;
    assertEquals(c.call(m.RMDIR, dir, { dir, name: bytes(`far${i}`) }).status, 0);
  }
};
const used = (c: Cluster) => c.servers.map(({ server }) => server.engine.store.usage(1));

Deno.test("CLEAR removes files by pages, gives their space back, and leaves directories and far files", () => {
  const c = new Cluster(), before = used(c), dir = farDirectory(c, c.root);
  const sub = c.mkdir(dir, "sub").attributes.inode;
  c.create(c.root, "far");
  assertEquals(c.rename(c.root, "far", dir, "moved"), 0);
  for (let i = 0; i < 400; i++) {
    const { inode } = c.create(dir, `f${i}`);
    if (i < 20) {
      c.call(m.WRITE, inode, { inode, offset: 0, killSetId: false, far: null }, new Uint8Array(i * 1000).fill(1));
    }
  }
  const left: string[] = [];
  let removed = 0;
  for (let cookie = 0, end = false; !end;) {
    const page = clear(c, dir, cookie);
    assertEquals(page.status, 0);
    assert(page.removed <= 256 && page.removed > 0);
    removed += page.removed;
    left.push(...page.left);
    ({ cookie, end } = page);
  }
  assertEquals([removed, left.sort()], [400, ["moved", "sub"]]);
  assertEquals(names(c, dir), ["moved", "sub"]);
  assertEquals([c.attributes(dir).entries, c.attributes(dir).nlink, c.attributes(sub).nlink], [2, 3, 2]);
  for (const name of left) {
    const body = { dir, name: bytes(name) };
    assertEquals(c.call(name === "sub" ? m.RMDIR : m.UNLINK, dir, body).status, 0);
  }
  assertEquals(c.call(m.RMDIR, c.root, { dir: c.root, name: bytes(names(c, c.root)[0]) }).status, 0);
  assertEquals(c.call(m.CLEAR, dir, { dir, cookie: 0, owner: null }).status, E.NOENT);
  // The root came into being meanwhile.
  const inodes = used(c).reduce((sum, one) => sum + one.inodes, 0);
  assertEquals([inodes, used(c).map((one) => one.bytes)], [1, before.map((one) => one.bytes)]);
});

Deno.test("CLEAR drops one name of a hard link at a time, and one that others have elsewhere", () => {
  const c = new Cluster(), dir = c.root;
  const file = c.create(dir, "a").inode;
  for (const name of ["b", "c"]) assertEquals(c.call(m.LINK, dir, { inode: file, dir, name: bytes(name) }).status, 0);
  const first = clear(c, dir);
  assertEquals([first.removed, first.left.length, c.attributes(file).nlink], [1, 2, 2]);
  assertEquals(clear(c, dir).removed, 1);
  assertEquals([clear(c, dir).removed, names(c, dir)], [1, []]);
  assertEquals(c.call(m.GETATTR, file, { inode: file }).status, E.STALE);
});

Deno.test("CLEAR of a sticky directory removes the files of one owner", () => {
  const c = new Cluster(), dir = c.root;
  for (const name of ["a", "b"]) c.create(dir, name);
  const body = { mode: S.IFREG | 0o644, gid: 0, rdev: 0, target: bytes(""), exclusive: true, openId: 0 };
  assertEquals(c.call(m.CREATE, dir, { dir, name: bytes("mine"), uid: 7, truncate: false, ...body }).status, 0);
  const cleared = clear(c, dir, 0, 7);
  assertEquals([cleared.removed, cleared.left], [1, ["a", "b"]]);
});

Deno.test("CLEAR lets an open file live until it is closed", () => {
  const c = new Cluster(), dir = c.root, inode = c.create(dir, "f").inode;
  assertEquals(c.call(m.OPEN, inode, { inode, openId: 5 }).status, 0);
  assertEquals(clear(c, dir).removed, 1);
  assertEquals(c.attributes(inode).nlink, 0);
  assert(c.call(m.INODE_STATUS, inode, { inode }).orphan);
  const target = { server: c.ownerOf(inode) + 1, store: 0 };
  assertEquals(c.run(c.caller.call(m.RELEASE, target, { closes: [{ inode, openId: 5 }] })).status, 0);
  // The lease that came with the attributes runs out.
  c.world.pass(5000);
  assertEquals(c.call(m.GETATTR, inode, { inode }).status, E.STALE);
});

Deno.test("CLEAR waits for the leases that others hold on what it removes", () => {
  const c = new Cluster(), dir = c.root, maps = new MapHolder(c.map), secret = bytes("secret");
  const session = new ClientSession({ runtime: c.client, network: c.client, maps, secret, session: 11 });
  const other = new VolumeClient(session, { volumeId: 1 });
  for (let i = 0; i < 20; i++) c.create(dir, `f${i}`);
  const found = c.run(other.readDirectory(dir, 0, 1 << 16, { plus: true }));
  assert(typeof found !== "number" && found.length === 20);
  assertEquals(clear(c, dir).removed, 20);
  assert(session.leases.counters.recalls > 0);
  assertEquals(c.run(other.lookup(dir, bytes("f3"))), E.NOENT);
  const engines = c.servers.map(({ server }) => server.engine);
  assertEquals(engines.map(({ leases }) => leases.counters.missed), [0, 0, 0]);
});

Deno.test("CLEAR is done once when its answer is lost and the server killed", () => {
  const c = new Cluster(), dir = c.root, owner = c.ownerOf(dir);
  for (let i = 0; i < 10; i++) c.create(dir, `f${i}`);
  const body = { dir, cookie: 0, owner: null };
  const asked = c.begin(c.caller.call(m.CLEAR, { shard: shardOf(dir) }, body));
  const { engine } = c.servers[owner].server;
  // Until it is done there, and no further.
  c.world.run(() => engine.tree.attributes(dir)!.entries === 0, 1000, "the clear");
  c.restart(owner);
  assertEquals(c.create(dir, "later").status, 0);
  const reply = c.end(asked);
  assertEquals([reply.status, reply.body!.removed, names(c, dir)], [0, 10, ["later"]]);
});

Deno.test("TALLY sums up near files and names the rest", () => {
  const c = new Cluster(), dir = farDirectory(c, c.root);
  const sub = c.mkdir(dir, "sub").attributes.inode, far = c.create(c.root, "far").inode;
  assertEquals(c.rename(c.root, "far", dir, "moved"), 0);
  for (let i = 0; i < 1500; i++) c.create(dir, `f${i}`);
  const big = c.lookup(dir, "f7").inode;
  c.call(m.WRITE, big, { inode: big, offset: 0, killSetId: false, far: null }, new Uint8Array(10_000));
  assertEquals(c.call(m.LINK, dir, { inode: c.lookup(dir, "f8").inode, dir, name: bytes("l8") }).status, 0);
  const sum = { files: 0, bytes: 0, blocks: 0 }, dirs: number[] = [], fars: number[] = [], linked: number[] = [];
  let pages = 0;
  for (let cookie = 0, end = false; !end; pages++) {
    const page = c.call(m.TALLY, dir, { dir, cookie });
    assertEquals([page.status, page.directory.inode], [0, dir]);
    for (const key of ["files", "bytes", "blocks"] as const) sum[key] += page[key];
    dirs.push(...page.dirs.map((one: { inode: number }) => one.inode));
    fars.push(...page.far);
    linked.push(...page.linked.map((one: { nlink: number }) => one.nlink));
    ({ cookie, end } = page);
  }
  assertEquals([sum.files, sum.bytes, sum.blocks, pages > 1], [1499, 10_000, 24, true]);
  assertEquals([dirs, fars, linked], [[sub], [far], [2, 2]]);
});

Deno.test("INODE_STATUS and CHUNKS tell who has a file open and locked, and where its data is", () => {
  const c = new Cluster(), inode = c.create(c.root, "f").inode;
  assertEquals(c.call(m.OPEN, inode, { inode, openId: 1 }).status, 0);
  const lock = { flock: false, type: 1, ownerLow: 1, ownerHigh: 2, pid: 3, start: 4n, end: 5n };
  assertEquals(c.call(m.SETLOCK, inode, { inode, lock, ticket: 0 }).status, 0);
  c.call(m.WRITE, inode, { inode, offset: 0, killSetId: false, far: null }, new Uint8Array(100));
  const status = c.call(m.INODE_STATUS, inode, { inode });
  assertEquals([status.opens, status.locks, status.inlineBytes], [[10], [{ session: 10, lock }], 100]);
  const data = new Uint8Array(5000).fill(1), expected = new Map<number, number[]>();
  for (const chunk of [1, 2, 9, 4]) {
    const shard = chunkShard(inode, chunk, shards), body = { inode, volume: 1, gen: 0, chunk, offset: 0 };
    const reply = c.run(c.caller.call(m.WRITE_CHUNK, { shard }, body, { data }));
    assertEquals(reply.status, 0);
    expected.set(reply.server, [...expected.get(reply.server) ?? [], chunk].sort());
  }
  for (const [server, chunks] of expected) {
    const reply = c.run(c.caller.call(m.CHUNKS, { server, store: 0 }, { inode, from: 2 }));
    const wanted = chunks.filter((chunk) => chunk >= 2).map((chunk) => ({ chunk, blocks: 2 }));
    assertEquals(reply.body, { chunks: wanted, end: true });
  }
});
