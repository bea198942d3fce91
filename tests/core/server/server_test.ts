/**
 * What each message answers, from servers of the real core over simulated links and media.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { inodeFlags } from "../../../core/meta/attributes.ts";
import { shardOf } from "../../../core/meta/layout.ts";
import { chunkShard } from "../../../core/placement/hash.ts";
import { serverState } from "../../../core/placement/map.ts";
import { status } from "../../../core/protocol/frame.ts";
import * as m from "../../../core/protocol/messages.ts";
import { bytes, Cluster, shards } from "./cluster.ts";

Deno.test("StoreServer creates, finds and removes files", () => {
  const c = new Cluster();
  const made = c.create(c.root, "a");
  assertEquals([made.status, made.created, made.attributes.uid], [0, true, 1]);
  assertEquals(c.create(c.root, "a").status, E.EXIST);
  assertEquals(c.lookup(c.root, "a").inode, made.inode);
  assertEquals(c.attributes(c.root).entries, 1);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("a") }).status, 0);
  assertEquals(c.lookup(c.root, "a").status, E.NOENT);
  assertEquals(c.call(m.GETATTR, made.inode, { inode: made.inode }).status, E.STALE);
});

Deno.test("StoreServer makes and removes directories on other shards", () => {
  const c = new Cluster();
  const inodes = Array.from({ length: 20 }, (_, i) => c.mkdir(c.root, `d${i}`).attributes.inode);
  assert(new Set(inodes.map(shardOf)).size > 4);
  assertEquals(c.attributes(c.root).nlink, 22);
  assertEquals(c.create(inodes[3], "f").status, 0);
  assertEquals(c.call(m.RMDIR, c.root, { dir: c.root, name: bytes("d3") }).status, E.NOTEMPTY);
  assertEquals(c.call(m.RMDIR, c.root, { dir: c.root, name: bytes("d4") }).status, 0);
  assertEquals(c.attributes(c.root).nlink, 21);
  const page = c.call(m.READDIR, c.root, { dir: c.root, cookie: 0, limitBytes: 100000, plus: true, accessTimes: 0 });
  assertEquals(page.entries.length, 19);
});

Deno.test("READDIR fills a page of the size asked for", () => {
  const c = new Cluster();
  for (let i = 0; i < 200; i++) c.create(c.root, `${100 + i}`);
  for (const [plus, most] of [[false, 152], [true, 26]] as const) {
    const page = c.call(m.READDIR, c.root, { dir: c.root, cookie: 0, limitBytes: 4096, plus });
    assert(page.entries.length > most - 4 && page.entries.length <= most, `${page.entries.length} entries`);
  }
});

Deno.test("StoreServer renames within and across shards", () => {
  const c = new Cluster();
  const a = c.mkdir(c.root, "a").attributes.inode, b = c.mkdir(c.root, "b").attributes.inode;
  const file = c.create(a, "f").inode;
  assertEquals(c.rename(a, "f", b, "g"), 0);
  assertEquals(c.lookup(a, "f").status, E.NOENT);
  assertEquals(c.lookup(b, "g").inode, file);
  assertEquals([c.attributes(a).entries, c.attributes(b).entries], [0, 1]);
  const other = c.create(a, "f").inode;
  assertEquals(c.rename(a, "f", b, "g", 1), E.EXIST);
  assertEquals(c.rename(a, "f", b, "g", 2), 0);
  assertEquals([c.lookup(a, "f").inode, c.lookup(b, "g").inode], [file, other]);
  assertEquals(c.rename(a, "f", b, "g"), 0);
  assertEquals(c.call(m.GETATTR, other, { inode: other }).status, E.STALE);
  assertEquals(c.rename(c.root, "a", b, "a"), 0);
  assertEquals(c.rename(c.root, "b", a, "loop"), E.INVAL);
  assertEquals([c.attributes(c.root).nlink, c.attributes(b).nlink, c.attributes(a).parent], [3, 3, b]);
});

Deno.test("StoreServer links and unlinks far inodes", () => {
  const c = new Cluster();
  const a = c.mkdir(c.root, "a").attributes.inode, file = c.create(c.root, "f").inode;
  assertEquals(c.call(m.LINK, a, { inode: file, dir: a, name: bytes("l") }).attributes.nlink, 2);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("f") }).status, 0);
  assertEquals(c.attributes(file).nlink, 1);
  assertEquals(c.call(m.UNLINK, a, { dir: a, name: bytes("l") }).status, 0);
  assertEquals(c.call(m.GETATTR, file, { inode: file }).status, E.STALE);
});

Deno.test("StoreServer writes inline, into chunk 0 and far chunks, and cuts them", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode;
  const write = (offset: number, data: Uint8Array) =>
    c.call(m.WRITE, file, { inode: file, offset, killSetId: false, far: null }, data);
  assertEquals(write(0, bytes("hello")).size, 5);
  assertEquals(
    c.call(m.READ, file, { inode: file, offset: 1, length: 100, gen: 0, accessTimes: 0 }).data,
    bytes("ello"),
  );
  const block = new Uint8Array(10000).fill(7);
  assertEquals(write(3, block).size, 10003);
  const read = c.call(m.READ, file, { inode: file, offset: 0, length: 20000, gen: 0, accessTimes: 0 });
  assertEquals([read.data.length, read.data[2], read.data[3]], [10003, 108, 7]);
  assertEquals(
    c.call(m.PUBLISH, file, { inode: file, gen: 0, size: 0, blocksDelta: 2 ** 31, servers: [], killSetId: false })
      .status,
    0,
  );
  const shard = chunkShard(file, 1, shards);
  const far = c.run(
    c.caller.call(m.WRITE_CHUNK, { shard }, { inode: file, volume: 1, gen: 0, chunk: 1, offset: 0 }, { data: block }),
  );
  assertEquals(far.status, 0);
  const size = 2 ** 20 + 10000;
  assertEquals(
    c.call(m.PUBLISH, file, { inode: file, gen: 0, size, blocksDelta: 2 ** 31 + 24, servers: [1], killSetId: false })
      .size,
    size,
  );
  assertEquals(c.call(m.FSYNC, file, { inode: file }).status, 0);
  const zero = { sec: 0, nsec: 0 };
  const cut = {
    inode: file,
    valid: m.setattrValid.size,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 4,
    atime: zero,
    mtime: zero,
    ctime: zero,
  };
  const after = c.call(m.SETATTR, file, cut).attributes;
  assertEquals([after.size, after.gen], [4, 1]);
  const late = c.run(
    c.caller.call(m.WRITE_CHUNK, { shard }, { inode: file, volume: 1, gen: 0, chunk: 1, offset: 0 }, { data: block }),
  );
  assertEquals(late.status, 1004);
  const chunk = c.run(c.caller.call(m.READ_CHUNK, { shard }, { inode: file, chunk: 1, offset: 0, length: 100 }));
  assertEquals(chunk.dataLength, 0);
  const appended = c.call(m.APPEND, file, { inode: file, killSetId: false }, new Uint8Array(2 ** 20).fill(9));
  assertEquals([appended.status, appended.offset, appended.size], [0, 4, 2 ** 20 + 4]);
});

Deno.test("WRITE with a far part publishes the whole write in one record, or nothing of it after a truncation", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode, size = 2 ** 20 + 5;
  const far = { gen: 0, size, blocksDelta: 2 ** 31 + 8, servers: [1, 2] };
  const write = (part: typeof far) => {
    return c.call(m.WRITE, file, { inode: file, offset: 2 ** 20 - 3, killSetId: false, far: part }, bytes("abc"));
  };
  const { log } = c.servers[c.ownerOf(file)].media, before = log.writes;
  assertEquals(write(far).size, size);
  assertEquals(log.writes, before + 1);
  const { size: published, blocks, gen } = c.attributes(file);
  assertEquals([published, blocks, gen], [size, 16, 0]);
  const zero = { sec: 0, nsec: 0 }, cut = { valid: m.setattrValid.size, size: 0, mode: 0, uid: 0, gid: 0 };
  assertEquals(c.call(m.SETATTR, file, { inode: file, ...cut, atime: zero, mtime: zero, ctime: zero }).status, 0);
  assertEquals(write(far).status, status.staleGen);
  assertEquals(c.attributes(file).size, 0);
  assertEquals(write({ ...far, gen: 1 }).size, size);
  assertEquals(write({ ...far, gen: 1, size: 2 ** 44 }).status, E.FBIG);
});

Deno.test("PUBLISH that an append has made stale still counts the blocks of its chunks, one that a cut has does not", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode, megabyte = 2 ** 20;
  const publish = (gen: number, size: number, units: number) => {
    const body = { inode: file, gen, size, blocksDelta: 2 ** 31 + units, servers: [1], killSetId: false };
    return c.call(m.PUBLISH, file, body).status;
  };
  assertEquals(publish(0, megabyte, 0), 0);
  const shard = chunkShard(file, 2, shards), chunk = { inode: file, volume: 1, gen: 0, chunk: 2, offset: 0 };
  assertEquals(c.run(c.caller.call(m.WRITE_CHUNK, { shard }, chunk, { data: new Uint8Array(4096) })).status, 0);
  assertEquals(c.call(m.APPEND, file, { inode: file, killSetId: false }, bytes("x")).status, 0);
  assertEquals(publish(0, 2 * megabyte + 4096, 8), status.staleGen);
  const { size, gen, blocks } = c.attributes(file);
  assertEquals([size, gen, blocks], [megabyte + 1, 1, 16]);
  const zero = { sec: 0, nsec: 0 }, cut = { valid: m.setattrValid.size, size: 10, mode: 0, uid: 0, gid: 0 };
  assertEquals(c.call(m.SETATTR, file, { inode: file, ...cut, atime: zero, mtime: zero, ctime: zero }).status, 0);
  assertEquals(publish(1, 2 * megabyte + 4096, 8), status.staleGen);
  assertEquals(c.attributes(file).blocks, 0);
});

Deno.test("StoreServer cuts far chunks while a server that holds no data is down", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode, gone = 4;
  const idle = { id: gone, address: "10.0.0.4:1", stores: 1, weight: 100, state: serverState.down };
  c.update({ ...c.map, epoch: 2, servers: [...c.map.servers, idle] });
  const write = { inode: file, volume: 1, gen: 0, chunk: 1, offset: 0 };
  const shard = chunkShard(file, 1, shards), data = new Uint8Array(4096).fill(7);
  assertEquals(c.run(c.caller.call(m.WRITE_CHUNK, { shard }, write, { data })).status, 0);
  const size = 2 ** 20 + 4096, servers = [c.map.owners[shard][0]];
  const grown = { inode: file, gen: 0, size, blocksDelta: 2 ** 31 + 8, servers, killSetId: false };
  assertEquals(c.call(m.PUBLISH, file, grown).size, size);
  const zero = { sec: 0, nsec: 0 }, times = { atime: zero, mtime: zero, ctime: zero };
  const cut = { inode: file, valid: m.setattrValid.size, mode: 0, uid: 0, gid: 0, size: 0, ...times };
  const startMs = c.world.nowMs;
  assertEquals(c.call(m.SETATTR, file, cut).attributes.size, 0);
  assert(c.world.nowMs - startMs < 1000);
});

Deno.test("PUBLISH of a size alone does not mark a file as one with far chunks, whose cuts concern all shards", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode;
  const far = () => c.attributes(file).flags & inodeFlags.far;
  const body = { inode: file, gen: 0, blocksDelta: m.blocksBias, servers: [], killSetId: false };
  assertEquals(c.call(m.PUBLISH, file, { ...body, size: 5000 }).size, 5000);
  assertEquals(far(), 0);
  assertEquals(c.call(m.PUBLISH, file, { ...body, size: 0 }).size, 5000);
  assertEquals(far(), inodeFlags.far);
});

Deno.test("StoreServer keeps everything acknowledged over a kill", () => {
  const c = new Cluster();
  const dirs = Array.from({ length: 6 }, (_, i) => c.mkdir(c.root, `d${i}`).attributes.inode);
  for (let i = 0; i < 30; i++) assertEquals(c.create(dirs[i % 6], `f${i}`).status, 0);
  for (const index of [0, 1, 2]) c.restart(index);
  for (let i = 0; i < 30; i++) assertEquals(c.lookup(dirs[i % 6], `f${i}`).status, 0);
  assertEquals(c.rename(dirs[0], "f0", dirs[1], "g0"), 0);
  assertEquals(c.create(dirs[2], "new").status, 0);
});

Deno.test("StoreServer refuses what exceeds the volume's size", () => {
  const c = new Cluster(2 ** 20), file = c.create(c.root, "f").inode;
  let offset = 0, status = 0;
  for (; status === 0 && offset < 2 ** 21; offset += 65536) {
    const data = new Uint8Array(65536).fill(1);
    status = c.call(m.APPEND, file, { inode: file, killSetId: false }, data).status;
  }
  assertEquals(status, E.NOSPC);
  assert(offset > 2 ** 20 - 3 * 65536, `full at ${offset}`);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("f") }).status, 0);
  const again = c.create(c.root, "g");
  assertEquals(again.status, 0);
});
