/**
 * What a server's start finds half done, and what it does not know any more: intents, opens, slots, sessions.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { shardOf } from "../../../core/meta/layout.ts";
import { chunkShard, directoryShard } from "../../../core/placement/hash.ts";
import { volumeState } from "../../../core/placement/map.ts";
import * as m from "../../../core/protocol/messages.ts";
import { bytes, Cluster, shards } from "./cluster.ts";

/** A name in the root whose directory would be on another server than the root. */
function farName(c: Cluster, from = 0): { name: string; owner: number } {
  for (let i = from;; i++) {
    const name = `far${i}`, owner = c.map.owners[directoryShard(c.root, bytes(name), shards)][0] - 1;
    if (owner !== c.ownerOf(c.root)) return { name, owner };
  }
}

const create = {
  mode: S.IFREG | 0o644,
  umask: 0,
  uid: 0,
  gid: 0,
  rdev: 0,
  target: new Uint8Array(0),
  exclusive: false,
  openId: 0,
  truncate: false,
};

Deno.test("StoreServer answers a retry with the outcome of the intent it resumed, on the same link", () => {
  const c = new Cluster(), { name, owner } = farName(c), driver = c.ownerOf(c.root);
  c.kill(owner);
  const body = { dir: c.root, name: bytes(name), mode: 0o755, umask: 0, uid: 0, gid: 0 };
  const made = c.begin(c.caller.call(m.MKDIR, { shard: shardOf(c.root) }, body));
  c.world.pass(100);
  c.restart(driver);
  c.world.pass(2000);
  c.start(owner);
  const reply = c.end(made);
  assertEquals([reply.status, c.lookup(c.root, name).inode], [0, reply.body!.attributes.inode]);
  assertEquals(c.caller.counters.malformed, 0);
});

Deno.test("StoreServer opens again what a CREATE opened whose truncation it resumed", () => {
  const c = new Cluster(), dir = c.root, driver = c.ownerOf(dir), { inode } = c.create(dir, "big");
  const publish = { inode, gen: 0, size: 0, blocksDelta: 2 ** 31, servers: [], killSetId: false };
  assertEquals(c.call(m.PUBLISH, inode, publish).status, 0);
  const chunk = { inode, volume: 1, gen: 0, chunk: 1, offset: 0 };
  const data = new Uint8Array(4096).fill(1);
  assertEquals(
    c.run(c.caller.call(m.WRITE_CHUNK, { shard: chunkShard(inode, 1, shards) }, chunk, { data })).status,
    0,
  );
  assertEquals(c.call(m.PUBLISH, inode, { ...publish, size: 2 ** 20 + 4096 }).status, 0);
  const other = (driver + 1) % 3;
  c.kill(other);
  const body = { dir, name: bytes("big"), ...create, openId: 7, truncate: true };
  const opened = c.begin(c.caller.call(m.CREATE, { shard: shardOf(dir) }, body));
  c.world.pass(100);
  c.restart(driver);
  c.world.pass(2000);
  c.start(other);
  const reply = c.end(opened);
  assertEquals([reply.status, reply.body!.created, reply.body!.attributes!.size], [0, false, 0]);
  assert(c.servers[driver].server.engine.opens.mayBeOpen(inode));
});

Deno.test("StoreServer does not execute what its slot has left behind before the start", () => {
  const c = new Cluster(), server = c.ownerOf(c.root);
  for (const name of ["a", "b"]) assertEquals(c.create(c.root, name).status, 0);
  c.restart(server);
  // The first number of a new caller is below that of "b", in the same slot.
  const body = { dir: c.root, name: bytes("late"), ...create };
  const old = c.run(c.newCaller().call(m.CREATE, { shard: shardOf(c.root) }, body));
  assertEquals(old.status, E.IO);
  assertEquals(c.lookup(c.root, "late").status, E.NOENT);
});

Deno.test("StoreServer opens no file that is being ended", () => {
  const c = new Cluster(), dir = c.root, { inode } = c.create(dir, "f");
  assertEquals(c.call(m.OPEN, inode, { inode, openId: 1 }).status, 0);
  assertEquals(c.call(m.UNLINK, dir, { dir, name: bytes("f") }).status, 0);
  assertEquals(c.call(m.OPEN, inode, { inode, openId: 2 }).status, 0, "still open: /proc/self/fd");
  // It may have chunks everywhere, and one server cannot be asked to drop them: the end takes time.
  const publish = { inode, gen: 0, size: 0, blocksDelta: 2 ** 31, servers: [], killSetId: false };
  assertEquals(c.call(m.PUBLISH, inode, publish).status, 0);
  c.kill((c.ownerOf(inode) + 1) % 3);
  const release = c.caller.call(m.RELEASE, { server: c.ownerOf(inode) + 1, store: 0 }, {
    closes: [{ inode, openId: 2 }],
  });
  assertEquals(c.run(release).status, 0);
  assertEquals(c.call(m.OPEN, inode, { inode, openId: 3 }).status, E.STALE);
});

Deno.test("StoreServer makes no directory in a volume that is being deleted, and lets go of its name", () => {
  const c = new Cluster(), { name, owner } = farName(c), driver = c.ownerOf(c.root);
  c.kill(owner);
  const body = { dir: c.root, name: bytes(name), mode: 0o755, umask: 0, uid: 0, gid: 0 };
  const made = c.begin(c.caller.call(m.MKDIR, { shard: shardOf(c.root) }, body));
  c.world.pass(100);
  c.update({ ...c.map, epoch: 2, volumes: [{ ...c.map.volumes[0], state: volumeState.deleting }] });
  c.start(owner);
  assertEquals(c.end(made).status, E.STALE);
  c.world.pass(5000);
  assert(c.servers[driver].server.swept.has(1));
});

Deno.test("StoreServer frees a name that was locked for an intent which its driver has lost", () => {
  const c = new Cluster(), dir = c.root, driver = shardOf(c.mkdir(dir, farName(c).name).attributes.inode);
  assertEquals(c.create(dir, "f").status, 0);
  // claimName: directory, name, moving a directory, flags.
  const name = bytes("f"), action = new Uint8Array(1 + 8 + 2 + name.length + 1 + 4), view = new DataView(action.buffer);
  view.setUint8(0, 5);
  view.setUint32(1, dir % 2 ** 32, true);
  view.setUint32(5, Math.floor(dir / 2 ** 32), true);
  view.setUint16(9, name.length, true);
  action.set(name, 11);
  const step = { driverShard: driver, n: 1, step: 2, lowest: 0, intent: new Uint8Array(0), action };
  assertEquals(c.call(m.STEP, dir, step).errno, 0);
  c.world.pass(5000);
  assertEquals(c.lookup(dir, "f").status, 0);
});

Deno.test("StoreServer keeps the extended attributes of an inode in bounds, and can end it", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "f"), value = new Uint8Array(65536);
  let set = 0, errno = 0;
  for (; errno === 0 && set < 200; set++) {
    errno = c.call(m.SETXATTR, inode, { inode, name: bytes(`user.a${set}`), value, flags: 0 }).status;
  }
  assertEquals([errno, set > 10], [E.NOSPC, true]);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("f") }).status, 0);
  assertEquals(c.call(m.GETATTR, inode, { inode }).status, E.STALE);
});

Deno.test("StoreServer closes a link on which nobody says who he is", () => {
  const c = new Cluster();
  let closed = false;
  c.client.post(() => {
    const link = c.client.connect({ serverId: 1, address: "10.0.0.1:1", store: 0 });
    link.onClose = () => closed = true;
  });
  c.world.pass(30_000);
  assert(closed);
});

Deno.test("StoreServer grants no lease with an answer that it gives again", () => {
  const c = new Cluster(), { engine } = c.servers[c.ownerOf(c.root)].server, target = { shard: shardOf(c.root) };
  const body = { dir: c.root, name: bytes("f"), ...create };
  // The second finds the file, which leaves no record: its answer is kept in memory.
  for (const created of [true, false]) assertEquals(c.call(m.CREATE, c.root, body).created, created);
  const again = c.newCaller();
  assertEquals(c.run(again.call(m.CREATE, target, body)).status, E.IO, "older than what came since");
  const { granted } = engine.leases.counters;
  assertEquals(c.run(again.call(m.CREATE, target, body)).body!.created, false);
  assertEquals(engine.leases.counters.granted, granted);
});
