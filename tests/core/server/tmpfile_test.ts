/**
 * Files without names: TMPFILE, and the LINK that names them, on servers of the real core.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { shardOf } from "../../../core/meta/layout.ts";
import * as m from "../../../core/protocol/messages.ts";
import { bytes, Cluster } from "./cluster.ts";

const asked = { mode: S.IFREG | 0o666, umask: 0o22, uid: 5, gid: 6, openId: 1, linkable: true };

function make(c: Cluster, dir: number, change: Partial<typeof asked> = {}) {
  return c.call(m.TMPFILE, dir, { dir, ...asked, ...change });
}

function link(c: Cluster, inode: number, dir: number, name: string) {
  return c.call(m.LINK, dir, { inode, dir, name: bytes(name) });
}

function close(c: Cluster, inode: number, openId = 1): void {
  const target = { server: c.ownerOf(inode) + 1, store: 0 };
  assertEquals(c.run(c.caller.call(m.RELEASE, target, { closes: [{ inode, openId }] })).status, 0);
  c.world.pass(100);
}

function exists(c: Cluster, inode: number): boolean {
  return c.call(m.GETATTR, inode, { inode }).status === 0;
}

function write(c: Cluster, inode: number): number {
  return c.call(m.WRITE, inode, { inode, offset: 0, killSetId: false, far: null }, bytes("data")).status;
}

Deno.test("TMPFILE makes a file that is in no directory and ends with its last close", () => {
  const c = new Cluster(), before = c.attributes(c.root);
  const { inode, mode, nlink, uid, gid } = make(c, c.root).attributes;
  assertEquals([mode, nlink, uid, gid], [S.IFREG | 0o644, 0, 5, 6]);
  assertEquals(c.attributes(c.root), before);
  assertEquals(write(c, inode), 0);
  assertEquals(c.call(m.FSYNC, inode, { inode }).status, 0);
  close(c, inode);
  assert(!exists(c, inode));
  assertEquals(make(c, c.root, { mode: S.IFIFO | 0o600 }).status, E.INVAL);
  assertEquals(make(c, c.root, { openId: 0 }).status, E.INVAL);
  assertEquals(make(c, c.create(c.root, "file").inode).status, E.NOTDIR);
});

Deno.test("TMPFILE gives the group of a setgid directory", () => {
  const c = new Cluster(), dir = c.mkdir(c.root, "d").attributes.inode, zero = { sec: 0, nsec: 0 };
  const change = { mode: 0o2775, uid: 0, gid: 77, size: 0, atime: zero, mtime: zero, ctime: zero };
  const { mode, gid: gidBit } = m.setattrValid;
  assertEquals(c.call(m.SETATTR, dir, { inode: dir, valid: mode | gidBit, ...change, killSetId: false }).status, 0);
  assertEquals(make(c, dir).attributes.gid, 77);
});

Deno.test("LINK names a file of TMPFILE, near or far, once it is linkable and open", () => {
  const c = new Cluster();
  const far = Array.from({ length: 20 }, (_, i) => c.mkdir(c.root, `d${i}`).attributes.inode)
    .find((inode) => shardOf(inode) !== shardOf(c.root))!;
  for (const dir of [c.root, far]) {
    const { inode } = make(c, c.root).attributes;
    assertEquals(write(c, inode), 0);
    assertEquals(link(c, inode, dir, "named").attributes.nlink, 1);
    assertEquals(link(c, inode, dir, "again").attributes.nlink, 2);
    close(c, inode);
    assertEquals(c.attributes(inode).nlink, 2);
    for (const name of ["named", "again"]) {
      assertEquals(c.lookup(dir, name).inode, inode);
      assertEquals(c.call(m.UNLINK, dir, { dir, name: bytes(name) }).status, 0);
    }
    assert(!exists(c, inode));
  }
  const { inode: fixed } = make(c, c.root, { linkable: false }).attributes;
  for (const dir of [c.root, far]) assertEquals(link(c, fixed, dir, "no").status, E.NOENT);
});

Deno.test("a file that got a name and lost it again gets none any more", () => {
  const c = new Cluster(), { inode } = make(c, c.root).attributes;
  assertEquals(link(c, inode, c.root, "a").status, 0);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("a") }).status, 0);
  assertEquals(c.attributes(inode).nlink, 0);
  assertEquals(link(c, inode, c.root, "b").status, E.NOENT);
});

Deno.test("a file without a name lives through a restart if its session claims it, and ends with the session", () => {
  const c = new Cluster(), server = c.ownerOf(c.root), target = { server: server + 1, store: 0 };
  const claim = (opens: { inode: number; openId: number }[]) => {
    assertEquals(c.run(c.caller.call(m.RECLAIM, target, { opens, locks: [], creating: [], last: true })).status, 0);
  };
  claim([]);
  const { inode } = make(c, c.root).attributes, { inode: other } = make(c, c.root, { openId: 2 }).attributes;
  c.restart(server);
  claim([{ inode, openId: 1 }]);
  c.world.pass(1000);
  assertEquals([exists(c, inode), exists(c, other)], [true, false]);
  c.update({ ...c.map, epoch: 2, sessions: [11, 12, 13] });
  // What it knew under a lease it may still use.
  c.world.pass(6000);
  assertEquals(c.servers[server].server.engine.tree.attributes(inode), null);
});

Deno.test("TMPFILE asked again gives the same file, or a new one if a restart has ended it", () => {
  const c = new Cluster(), body = { dir: c.root, ...asked };
  // The first mutation of a new caller is in the slot of the other's first, with its number: the same request.
  const again = () => c.run(c.newCaller().call(m.TMPFILE, { shard: shardOf(c.root) }, body)).body!.attributes;
  const first = c.call(m.TMPFILE, c.root, body).attributes;
  assertEquals(again().inode, first.inode);
  c.restart(c.ownerOf(c.root));
  c.world.pass(1000);
  assert(!exists(c, first.inode), "nobody claims it");
  const second = again();
  assertNotEquals(second.inode, first.inode);
  assert(exists(c, second.inode));
});
