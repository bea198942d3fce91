/**
 * Requests that are whole frames and that no client of ours would send: they are refused, and leave the server, its names
 * and its log as they were.
 *
 * @module
 */

import { assertEquals, assertNotEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { inodeNumber, shardOf } from "../../../core/meta/layout.ts";
import * as m from "../../../core/protocol/messages.ts";
import { bytes, Cluster, shards } from "./cluster.ts";

const none = new Uint8Array(0);

/** Names that no directory may have. */
const badNames = [none, bytes("."), bytes(".."), bytes("a/b"), bytes("a\0b"), new Uint8Array(256).fill(97)];

Deno.test("StoreServer refuses names that cannot be", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode, dir = c.root;
  const create = {
    mode: S.IFREG,
    umask: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    target: none,
    exclusive: true,
    openId: 0,
    truncate: false,
  };
  for (const name of badNames) {
    const errno = name.length > 255 ? E.NAMETOOLONG : E.INVAL;
    assertEquals(c.call(m.LOOKUP, dir, { dir, name }).status, errno);
    assertEquals(c.call(m.CREATE, dir, { dir, name, ...create }).status, errno);
    assertEquals(c.call(m.MKDIR, dir, { dir, name, mode: 0, umask: 0, uid: 0, gid: 0 }).status, errno);
    assertEquals(c.call(m.LINK, dir, { dir, name, inode: file }).status, errno);
    assertEquals(c.call(m.UNLINK, dir, { dir, name }).status, errno);
    assertEquals(c.call(m.RMDIR, dir, { dir, name }).status, errno);
    const rename = { dir, name: bytes("f"), newDir: dir, newName: name, flags: 0 };
    assertEquals(c.call(m.RENAME, dir, rename).status, errno);
    assertEquals(c.call(m.RENAME, dir, { ...rename, name, newName: bytes("f") }).status, errno);
  }
  assertEquals(c.attributes(dir).entries, 1);
});

Deno.test("StoreServer refuses names of extended attributes that cannot be", () => {
  const c = new Cluster(), inode = c.create(c.root, "f").inode;
  for (const name of [none, new Uint8Array(256).fill(97), new Uint8Array(65535).fill(97)]) {
    assertEquals(c.call(m.GETXATTR, inode, { inode, name }).status, E.RANGE);
    assertEquals(c.call(m.SETXATTR, inode, { inode, name, value: none, flags: 0 }).status, E.RANGE);
    assertEquals(c.call(m.REMOVEXATTR, inode, { inode, name }).status, E.RANGE);
  }
});

Deno.test("StoreServer refuses inodes of shards that do not exist, and its names stay free", () => {
  const c = new Cluster(), dir = c.root, file = c.create(dir, "f").inode, nowhere = inodeNumber(shards + 5, 77);
  assertEquals(c.call(m.LINK, dir, { dir, name: bytes("l"), inode: nowhere }).status, E.STALE);
  assertEquals(c.rename(dir, "f", nowhere, "g"), E.STALE);
  assertEquals(c.rename(dir, "f", dir, "g"), 0);
  assertEquals([c.lookup(dir, "g").inode, c.lookup(dir, "l").status], [file, E.NOENT]);
});

Deno.test("StoreServer refuses files of no known type", () => {
  const c = new Cluster();
  for (const mode of [0o644, S.IFDIR | 0o755, S.IFMT | 0o644, 2 ** 31 + S.IFREG]) {
    assertEquals(c.create(c.root, "f", mode).status, E.INVAL);
  }
});

Deno.test("StoreServer refuses steps that it cannot read or that contradict what it has", () => {
  const c = new Cluster(), dir = c.root;
  const head = { driverShard: 1, n: 5, step: 1, lowest: 0, intent: none };
  assertNotEquals(c.call(m.STEP, dir, { ...head, action: none }).status, 0);
  assertNotEquals(c.call(m.STEP, dir, { ...head, action: new Uint8Array([99]) }).status, 0);
  assertNotEquals(c.call(m.STEP, dir, { ...head, action: new Uint8Array([6, 1, 2]) }).status, 0);
  const lone = { shard: shardOf(dir), dir: inodeNumber(shardOf(dir), 12345) };
  const action = new Uint8Array(8 + 1 + 2 + 1 + 8 + 1 + 1), view = new DataView(action.buffer);
  view.setUint8(0, 6);
  view.setUint32(1, lone.dir % 2 ** 32, true);
  view.setUint32(5, Math.floor(lone.dir / 2 ** 32), true);
  view.setUint16(9, 1, true);
  view.setUint8(11, 97);
  assertNotEquals(c.call(m.STEP, dir, { ...head, action }).errno, 0);
  assertEquals(c.create(dir, "still").status, 0);
});

Deno.test("StoreServer takes locks only of known types and ranges", () => {
  const c = new Cluster(), inode = c.create(c.root, "f").inode;
  const lock = { flock: false, type: 1, ownerLow: 1, ownerHigh: 0, pid: 1, start: 0n, end: 9n };
  for (const bad of [{ type: 3 }, { type: 255 }, { start: 10n, end: 9n }]) {
    assertEquals(c.call(m.SETLOCK, inode, { inode, lock: { ...lock, ...bad }, ticket: 0, order: 1 }).status, E.INVAL);
    assertEquals(c.call(m.TESTLOCK, inode, { inode, lock: { ...lock, ...bad } }).status, E.INVAL);
  }
  assertEquals(c.call(m.SETLOCK, inode, { inode, lock, ticket: 0, order: 2 }).status, 0);
});

Deno.test("StoreServer survives publications of servers that are not in the map", () => {
  const c = new Cluster(), inode = c.create(c.root, "f").inode;
  for (let from = 1000; from < 1600; from += 200) {
    const servers = Array.from({ length: 200 }, (_, i) => from + i);
    const body = { inode, gen: 0, size: 0, blocksDelta: 2 ** 31, servers, killSetId: false };
    assertEquals(c.call(m.PUBLISH, inode, body).status, 0);
  }
  assertEquals(c.call(m.FSYNC, inode, { inode }).status, 0);
});

Deno.test("StoreServer answers pages that fit a frame, whatever limit is asked for", () => {
  const c = new Cluster(), dir = c.root;
  const name = (i: number) => String(i).padStart(255, "x");
  for (let i = 0; i < 3000; i++) assertEquals(c.create(dir, name(i)).status, 0);
  let seen = 0;
  for (let cookie = 0, end = false; !end;) {
    const page = c.call(m.READDIR, dir, { dir, cookie, limitBytes: 2 ** 32 - 1, plus: true, accessTimes: 0 });
    assertEquals(page.status, 0);
    seen += page.entries.length;
    cookie = page.entries.at(-1).cookie;
    end = page.end;
  }
  assertEquals(seen, 3000);
});
