/**
 * Access times: which reads move them, that they cost no record of their own, and that a calm restart keeps them.
 *
 * @module
 */

import { assert, assertEquals, assertGreater } from "@std/assert";
import { accessIsDue, accessTimes } from "../../../core/meta/access_times.ts";
import { type Attributes, compareTime, S } from "../../../core/meta/attributes.ts";
import * as m from "../../../core/protocol/messages.ts";
import { bytes, Cluster } from "./cluster.ts";

const { never, relative, always } = accessTimes;
const at = (sec: number) => ({ sec, nsec: 0 });
const times = (atime: number, mtime: number, ctime: number) => {
  return { atime: at(atime), mtime: at(mtime), ctime: at(ctime) } as Attributes;
};

Deno.test("accessIsDue() is relatime: after a change, or a day later", () => {
  const now = at(1_000_000);
  assert(accessIsDue(times(10, 10, 9), relative, now));
  assert(accessIsDue(times(10, 9, 10), relative, now));
  assert(accessIsDue(times(10, 9, 9), relative, now));
  assert(accessIsDue(times(1_000_000 - 86_400, 9, 9), relative, now));
  assert(!accessIsDue(times(1_000_000 - 86_399, 9, 9), relative, now));
  assert(accessIsDue(times(999_999, 9, 9), always, now));
  assert(!accessIsDue(times(10, 10, 10), never, now));
});

function write(c: Cluster, inode: number, text: string): void {
  assertEquals(c.call(m.WRITE, inode, { inode, offset: 0, killSetId: false, far: null }, bytes(text)).status, 0);
  c.world.pass(10);
}

function read(c: Cluster, inode: number, when: number): void {
  assertEquals(c.call(m.READ, inode, { inode, offset: 0, length: 9, gen: 0, accessTimes: when }).status, 0);
  c.world.pass(10);
}

Deno.test("READ, READLINK and READDIR move the atime once after a change, and nothing else", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode;
  write(c, file, "text");
  const before = c.attributes(file);
  read(c, file, never);
  assertEquals(c.attributes(file), before);
  read(c, file, relative);
  const first = c.attributes(file);
  assertEquals({ ...first, atime: before.atime }, before);
  assertGreater(compareTime(first.atime, before.mtime), 0);
  read(c, file, relative);
  assertEquals(c.attributes(file), first);
  read(c, file, always);
  assertGreater(compareTime(c.attributes(file).atime, first.atime), 0);

  const body = { dir: c.root, name: bytes("l"), mode: S.IFLNK | 0o777, uid: 0, gid: 0, rdev: 0, target: bytes("f") };
  const link = c.call(m.CREATE, c.root, { ...body, exclusive: true, openId: 0, truncate: false }).attributes;
  c.world.pass(10);
  c.call(m.READLINK, link.inode, { inode: link.inode, accessTimes: relative });
  assertGreater(compareTime(c.attributes(link.inode).atime, link.atime), 0);
  const dir = c.attributes(c.root);
  c.call(m.READDIR, c.root, { dir: c.root, cookie: 0, limitBytes: 1000, plus: false, accessTimes: relative });
  assertGreater(compareTime(c.attributes(c.root).atime, dir.mtime), 0);
});

Deno.test("READ writes no record; the atime is recorded a second later, and is there after a kill", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode, server = c.ownerOf(file);
  write(c, file, "text");
  const { log } = c.servers[server].media, { writes } = log;
  read(c, file, relative);
  assertEquals(log.writes, writes);
  const { atime } = c.attributes(file);
  c.world.pass(2000);
  assertEquals(log.writes, writes + 1);
  c.restart(server);
  assertEquals(c.attributes(file).atime, atime);
});

Deno.test("SETATTR of the atime wins over a read before it", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode, zero = at(0);
  write(c, file, "text");
  read(c, file, relative);
  const set = { inode: file, valid: m.setattrValid.atime, mode: 0, uid: 0, gid: 0, size: 0, mtime: zero, ctime: zero };
  c.call(m.SETATTR, file, { ...set, atime: at(77) });
  assertEquals(c.attributes(file).atime, at(77));
  c.world.pass(2000);
  assertEquals(c.attributes(file).atime, at(77));
});

Deno.test("an atime that moved is kept by other changes of the inode, and goes with it", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode;
  write(c, file, "text");
  read(c, file, relative);
  const { atime } = c.attributes(file);
  write(c, file, "more");
  assertEquals(c.attributes(file).atime, atime);
  read(c, file, relative);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("f") }).status, 0);
  c.world.pass(2000);
  assertEquals(c.create(c.root, "f").status, 0);
});
