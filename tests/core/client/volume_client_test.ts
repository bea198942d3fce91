import { assert, assertEquals } from "@std/assert";
import type { Lock } from "../../../core/client/filesystem.ts";
import { E, failed, type Result } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { fileBytesMax, shardOf } from "../../../core/meta/layout.ts";
import { LOOKUP } from "../../../core/protocol/messages.ts";
import { fakeMap } from "../fake.ts";
import { bytes, FakeCluster } from "./fake_cluster.ts";

const me = { uid: 10, gid: 20, pid: 30, umask: 0o022 };

function value<T extends object>(result: Result<T>): T {
  if (failed(result)) throw new Error(`errno ${result}`);
  return result;
}

function create(c: FakeCluster, name: string, more: Record<string, unknown> = {}) {
  const options = { mode: 0o666, exclusive: false, open: true, ...more };
  return c.runtime.run(c.volume.create(c.volume.root, bytes(name), options, me));
}

Deno.test("create, small write and close cost two round trips; the close goes out later", () => {
  const c = new FakeCluster();
  const file = value(create(c, "f"));
  assertEquals(file.mode, S.IFREG | 0o644);
  value(c.runtime.run(c.volume.write(file.inode, 0, bytes("hello"), { killSetId: false })));
  value(c.runtime.run(c.volume.dropLocks(file.inode, false, 1, 0)));
  value(c.runtime.run(c.volume.release(file.inode)));
  assertEquals(c.names(), ["CREATE", "WRITE"]);
  c.runtime.pass(20);
  assertEquals(c.names(), ["RELEASE"]);
  assertEquals(c.opens.size, 0);
});

Deno.test("lookup() costs one request for a near inode and two for a far one", () => {
  const c = new FakeCluster();
  c.file("near", shardOf(c.volume.root));
  c.file("far", 3);
  assertEquals(value(c.runtime.run(c.volume.lookup(c.volume.root, bytes("near")))).size, 0);
  assertEquals(c.names(), ["LOOKUP"]);
  value(c.runtime.run(c.volume.lookup(c.volume.root, bytes("far"))));
  assertEquals(c.names(), ["LOOKUP", "GETATTR"]);
});

Deno.test("lookup() is ENOENT when the far inode stays gone, and never for ever", () => {
  const c = new FakeCluster();
  const file = c.file("far", 3);
  c.nodes.delete(file.inode);
  assertEquals(c.runtime.run(c.volume.lookup(c.volume.root, bytes("far"))), E.NOENT);
  assert(c.names().length <= 8);
});

Deno.test("names that cannot be are refused without a request", () => {
  const c = new FakeCluster();
  const cases: [Uint8Array, number][] = [
    [new Uint8Array(0), E.INVAL],
    [bytes("a/b"), E.INVAL],
    [bytes("a\0b"), E.INVAL],
    [bytes("."), E.INVAL],
    [bytes(".."), E.INVAL],
    [new Uint8Array(256).fill(97), E.NAMETOOLONG],
  ];
  for (const [name, errno] of cases) {
    assertEquals(c.runtime.run(c.volume.lookup(c.volume.root, name)), errno);
    assertEquals(c.runtime.run(c.volume.makeDirectory(c.volume.root, name, 0o755, me)), errno);
    assertEquals(c.runtime.run(c.volume.unlink(c.volume.root, name)), errno);
    assertEquals(c.runtime.run(c.volume.rename(c.volume.root, bytes("ok"), c.volume.root, name, 0)), errno);
  }
  assertEquals(c.names(), []);
  assertEquals(c.runtime.run(c.volume.rename(c.volume.root, bytes("a"), c.volume.root, bytes("b"), 3)), E.INVAL);
  assertEquals(c.runtime.run(c.volume.setAttributes(c.volume.root, { size: fileBytesMax + 1 })), E.FBIG);
  assertEquals(c.runtime.run(c.volume.setExtendedAttribute(5, bytes("user.a"), new Uint8Array(65537), 0)), E["2BIG"]);
  const link = (target: Uint8Array) => create(c, "l", { mode: S.IFLNK | 0o777, target, exclusive: true, open: false });
  assertEquals(link(new Uint8Array(0)), E.NOENT);
  assertEquals(link(new Uint8Array(4096).fill(97)), E.NAMETOOLONG);
  assertEquals(c.names(), []);
});

Deno.test("create() opens an existing far file by OPEN, and cuts it when asked", () => {
  const c = new FakeCluster();
  const file = c.file("far", 3, 100);
  assertEquals(value(create(c, "far", { truncate: true })).size, 0);
  assertEquals(c.names(), ["CREATE", "OPEN", "SETATTR"]);
  assert(c.opens.has(file.inode));
  assertEquals(create(c, "far", { exclusive: true }), E.EXIST);
});

Deno.test("create() keeps setuid and setgid of what it makes, and clears those of what it cuts when asked", () => {
  const c = new FakeCluster();
  const cut = { mode: 0o6755, truncate: true, killSetId: true };
  assertEquals(value(create(c, "new", cut)).mode, S.IFREG | 0o6755);
  assertEquals(c.names(), ["CREATE"]);
  for (const [name, shard] of [["near", shardOf(c.volume.root)], ["far", 3]] as const) {
    const file = c.file(name, shard, 100);
    file.mode = S.IFREG | 0o6755;
    assertEquals(value(create(c, name, { ...cut, killSetId: false })).mode, S.IFREG | 0o6755);
    const opened = value(create(c, name, cut));
    assertEquals([opened.mode, opened.size, file.mode], [S.IFREG | 0o755, 0, S.IFREG | 0o755]);
  }
});

Deno.test("create() does not open what is no regular file", () => {
  const c = new FakeCluster();
  c.file("fifo", shardOf(c.volume.root)).mode = S.IFIFO | 0o644;
  c.file("dir", 3).mode = S.IFDIR | 0o755;
  assertEquals(create(c, "fifo"), E.EXIST);
  assertEquals(create(c, "dir"), E.ISDIR);
  c.runtime.pass(100);
  assertEquals(c.session.opens.size, 0);
});

Deno.test("opens are counted: the last close releases, and a late RELEASE does not end a newer open", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  const open = () => value(c.runtime.run(c.volume.open(inode, { truncate: false })));
  const close = () => value(c.runtime.run(c.volume.release(inode)));
  open(), open(), close();
  c.runtime.pass(50);
  assertEquals(c.names(), ["OPEN", "OPEN"]);
  close(), open();
  c.runtime.pass(50);
  assertEquals(c.names(), ["OPEN", "RELEASE"]);
  assert(c.opens.has(inode));
  close();
  c.runtime.pass(50);
  assertEquals(c.opens.size, 0);
});

Deno.test("many closes go out as one message a store", () => {
  const c = new FakeCluster();
  const files = Array.from({ length: 30 }, (_, i) => c.file(`f${i}`, i % 6));
  for (const file of files) value(c.runtime.run(c.volume.open(file.inode, { truncate: false })));
  c.names();
  for (const file of files) value(c.runtime.run(c.volume.release(file.inode)));
  c.runtime.run(c.session.finish());
  assertEquals(c.names(), ["RELEASE", "RELEASE", "RELEASE", "RETURN", "RETURN", "RETURN"]);
  assertEquals(c.opens.size, 0);
});

Deno.test("RELEASE is sent again when it was not answered", () => {
  const c = new FakeCluster([1], { ioTimeoutMs: 2000, callTimeoutMs: 500 });
  const { inode } = c.file("f", 3);
  value(c.runtime.run(c.volume.open(inode, { truncate: false })));
  c.before = (asked) => asked.message.name === "RELEASE" ? "silence" : undefined;
  value(c.runtime.run(c.volume.release(inode)));
  c.runtime.pass(5000);
  assert(c.opens.has(inode));
  c.before = () => undefined;
  c.runtime.pass(5000);
  assertEquals(c.opens.size, 0);
});

Deno.test("finish() does not wait long for a store that is silent, and nothing goes on after close()", () => {
  const c = new FakeCluster([1]);
  const { inode } = c.file("f", 3);
  value(c.runtime.run(c.volume.open(inode, { truncate: false })));
  c.before = (asked) => asked.message.name === "RELEASE" ? "silence" : undefined;
  value(c.runtime.run(c.volume.release(inode)));
  c.runtime.run(c.session.finish(), 6000);
  c.session.close();
  c.runtime.pass(70_000);
  assertEquals(c.runtime.scheduler.active, 0);
});

Deno.test("opens and locks are claimed after a store's start, before anything else, in bounded messages", () => {
  const c = new FakeCluster([1, 1]);
  const files = Array.from({ length: 1100 }, (_, i) => c.file(`f${i}`, (i % 2) * 3));
  for (const file of files) value(c.runtime.run(c.volume.open(file.inode, { truncate: false })));
  const lock: Lock = { flock: false, type: "write", ownerLow: 1, ownerHigh: 2, pid: 3, start: 5n, end: 9n };
  value(c.runtime.run(c.volume.setLock(files[0].inode, lock, false, never())));
  const on = files.filter((file) => shardOf(file.inode) === 0);
  c.opens.clear();
  c.locks.clear();
  c.store(1).asked.length = 0;
  c.store(1).crash();
  c.runtime.pass(1000);
  value(c.runtime.run(c.volume.getAttributes(on[0].inode)));
  const order = c.store(1).asked.map((one) => one.message.name).filter((name) => name !== "PING");
  assertEquals(order, ["RECLAIM", "GETATTR"]);
  assertEquals([...c.opens.keys()].sort(), on.map((file) => file.inode).sort());
  assertEquals(c.locks.get(files[0].inode)?.locks.length, 1);
});

function never() {
  return new FakeCluster([1]).runtime.sleep(1);
}

Deno.test("readDirectory() with attributes asks each store once for the far ones", () => {
  const c = new FakeCluster();
  for (let i = 0; i < 12; i++) c.file(`f${i}`, i % 6);
  c.file("near", shardOf(c.volume.root));
  const gone = c.file("gone", 4);
  c.nodes.delete(gone.inode);
  const page = value(c.runtime.run(c.volume.readDirectory(c.volume.root, 0, 65536, { plus: true })));
  const names = c.names();
  assertEquals(names[0], "READDIR");
  assert(names.length <= 4 && names.slice(1).every((name) => name === "GETATTRS"), names.join());
  assertEquals(page.length, 14);
  for (const entry of page) assertEquals(entry.attributes?.inode ?? gone.inode, entry.inode);
  assertEquals(value(c.runtime.run(c.volume.readDirectory(c.volume.root, page[13].cookie, 65536, { plus: true }))), []);
});

Deno.test("statistics() adds up the stores and shows the smaller of budget and space", () => {
  const c = new FakeCluster([1, 1, 1]);
  const totals = value(c.runtime.run(c.volume.statistics()));
  assertEquals(c.names(), ["STATFS", "STATFS", "STATFS"]);
  assertEquals(totals.usedBytes, 3000);
  assertEquals(totals.availableBytes, 3_000_000);
  assertEquals(totals.sizeBytes, 3_003_000);
  const map = fakeMap(2, [1, 1, 1]);
  map.volumes[0].sizeBytes = 10_000;
  c.maps.update(map);
  assertEquals(value(c.runtime.run(c.volume.statistics())).availableBytes, 7000);
  map.servers.push({ id: 4, address: "127.0.0.1:4", stores: 1, weight: 1, state: 1 });
  c.maps.update({ ...map, epoch: 3 });
  c.names();
  assertEquals(value(c.runtime.run(c.volume.statistics())).usedBytes, 3000);
  assertEquals(c.names().length, 3, "a server without shards was asked");
});

Deno.test("parent() asks for the directory above, and the root's is the root", () => {
  const c = new FakeCluster();
  const dir = value(c.runtime.run(c.volume.makeDirectory(c.volume.root, bytes("d"), 0o777, me)));
  assertEquals(value(c.runtime.run(c.volume.parent(dir.inode))).inode, c.volume.root);
  c.names();
  assertEquals(value(c.runtime.run(c.volume.parent(c.volume.root))).inode, c.volume.root);
  assertEquals(c.names(), ["GETATTR"]);
});

Deno.test("a read-only volume answers EROFS to changes and a deleted one ESTALE to everything", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  const map = fakeMap(2, [1, 1, 1]);
  map.volumes[0].readOnly = true;
  c.maps.update(map);
  assertEquals(create(c, "x"), E.ROFS);
  assertEquals(c.runtime.run(c.volume.write(inode, 0, bytes("a"), { killSetId: false })), E.ROFS);
  assertEquals(c.runtime.run(c.volume.open(inode, { truncate: true })), E.ROFS);
  value(c.runtime.run(c.volume.open(inode, { truncate: false })));
  c.maps.update({ ...fakeMap(3, [1, 1, 1]), volumes: [] });
  c.names();
  assertEquals(c.runtime.run(c.volume.getAttributes(inode)), E.STALE);
  assertEquals(create(c, "x"), E.STALE);
  assertEquals(c.runtime.run(c.volume.statistics()), E.STALE);
  assertEquals(c.names(), []);
});

Deno.test("an inode number that no shard has is ESTALE, at once", () => {
  const c = new FakeCluster();
  assertEquals(c.runtime.run(c.volume.getAttributes(17 * 2 ** 41)), E.STALE);
  assertEquals(c.runtime.run(c.volume.getAttributes(0)), E.STALE);
  assertEquals(c.names(), []);
});

Deno.test("after the session's death open files give EIO until closed, the rest goes on in the next session", () => {
  const c = new FakeCluster();
  const file = value(create(c, "f")), other = c.file("g", 3);
  c.maps.update({ ...fakeMap(2, [1, 1, 1]), sessions: [] });
  assertEquals(c.deaths, 1);
  c.runtime.at(500, () => c.session.renew(6));
  assertEquals(value(c.runtime.run(c.volume.lookup(c.volume.root, bytes("g")))).inode, other.inode);
  const into = new Uint8Array(4);
  assertEquals(c.runtime.run(c.volume.read(file.inode, 0, into)), E.IO);
  assertEquals(c.runtime.run(c.volume.write(file.inode, 0, into, { killSetId: false })), E.IO);
  assertEquals(c.runtime.run(c.volume.open(file.inode, { truncate: false })), E.IO);
  assertEquals(value(c.runtime.run(c.volume.getAttributes(file.inode))).inode, file.inode);
  value(c.runtime.run(c.volume.release(file.inode)));
  value(c.runtime.run(c.volume.open(file.inode, { truncate: false })));
  assertEquals(c.asked.at(-1)?.head.session, 6);
  assertEquals(c.session.caller.roundTrips[LOOKUP.name], 1);
});
