/**
 * Immutable and append-only inodes on servers of the real core: what the servers refuse by themselves, and that it holds
 * over their start.
 */

import { assert, assertEquals } from "@std/assert";
import { renameFlags } from "../../../core/client/filesystem.ts";
import { E } from "../../../core/errno.ts";
import { inodeFlags } from "../../../core/meta/attributes.ts";
import { shardOf } from "../../../core/meta/layout.ts";
import * as m from "../../../core/protocol/messages.ts";
import { bytes, Cluster } from "./cluster.ts";

const zero = { sec: 0, nsec: 0 };
const { setImmutable, clearImmutable, setAppendOnly, clearAppendOnly, mode } = m.setattrValid;

function set(c: Cluster, inode: number, valid: number): number {
  const body = { inode, valid, mode: 0o600, uid: 0, gid: 0, size: 0, atime: zero, mtime: zero, ctime: zero };
  return c.call(m.SETATTR, inode, body).status;
}

function remove(c: Cluster, dir: number, name: string): number {
  return c.call(m.UNLINK, dir, { dir, name: bytes(name) }).status;
}

/** A directory on another shard than the root's. */
function farDirectory(c: Cluster): number {
  const made = Array.from({ length: 20 }, (_, i) => c.mkdir(c.root, `d${i}`).attributes.inode);
  return made.find((inode) => shardOf(inode) !== shardOf(c.root))!;
}

Deno.test("UNLINK, RENAME and LINK refuse a protected file, near its name or far, and do it when it is free again", () => {
  const c = new Cluster(), dir = farDirectory(c);
  const { inode: near } = c.create(c.root, "near"), { inode: far } = c.create(dir, "moving");
  c.create(dir, "other");
  assertEquals(c.rename(dir, "moving", c.root, "far"), 0);
  for (const [name, inode] of [["near", near], ["far", far]] as const) {
    for (const [on, off] of [[setImmutable, clearImmutable], [setAppendOnly, clearAppendOnly]]) {
      assertEquals(set(c, inode, on), 0);
      assertEquals(remove(c, c.root, name), E.PERM);
      assertEquals(c.call(m.LINK, dir, { inode, dir, name: bytes("new") }).status, E.PERM);
      for (const to of [c.root, dir]) assertEquals(c.rename(c.root, name, to, "new"), E.PERM);
      assertEquals(c.rename(dir, "other", c.root, name), E.PERM);
      assertEquals(c.rename(c.root, name, dir, "other", renameFlags.exchange), E.PERM);
      assertEquals([c.lookup(c.root, name).inode, c.attributes(inode).nlink], [inode, 1]);
      assertEquals(set(c, inode, off), 0);
    }
    assertEquals(remove(c, c.root, name), 0);
    assertEquals(c.call(m.GETATTR, inode, { inode }).status, E.STALE);
  }
});

Deno.test("protection outlives the start of a server", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "file");
  assertEquals(set(c, inode, setImmutable | setAppendOnly), 0);
  c.restart(c.ownerOf(inode));
  assertEquals(c.attributes(inode).flags, inodeFlags.immutable | inodeFlags.appendOnly);
  assertEquals(set(c, inode, mode), E.PERM);
  assertEquals(remove(c, c.root, "file"), E.PERM);
});

Deno.test("a protected file takes no bytes, an append-only one at its end alone", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "file");
  const write = () => {
    return c.call(m.WRITE, inode, { inode, offset: 0, killSetId: false, far: null }, bytes("x")).status;
  };
  const append = () => c.call(m.APPEND, inode, { inode, killSetId: false }, bytes("x")).status;
  const allocate = (mode: number) => {
    return c.call(m.FALLOCATE, inode, { inode, mode, offset: 0, length: 4096, killSetId: false }).status;
  };
  assertEquals(set(c, inode, setAppendOnly), 0);
  assertEquals([write(), append(), allocate(0), allocate(3)], [E.PERM, 0, 0, E.PERM]);
  assertEquals(set(c, inode, setImmutable | clearAppendOnly), 0);
  assertEquals([write(), append(), allocate(0), allocate(3)], [E.PERM, E.PERM, E.PERM, E.PERM]);
  assertEquals(set(c, inode, clearImmutable), 0);
  assertEquals([write(), append(), allocate(0), allocate(3)], [0, 0, 0, 0]);
});

Deno.test("CLEAR leaves protected files, and a protected directory as it is", () => {
  const c = new Cluster(), dir = farDirectory(c), kept = c.create(dir, "kept").inode;
  for (const name of ["a", "b"]) c.create(dir, name);
  const clear = () => c.call(m.CLEAR, dir, { dir, cookie: 0, owner: null });
  assertEquals([set(c, kept, setImmutable), set(c, dir, setAppendOnly)], [0, 0]);
  assertEquals(clear().status, E.PERM);
  assertEquals(set(c, dir, clearAppendOnly), 0);
  const { removed, left } = clear();
  assertEquals([removed, left.map((one: { inode: number }) => one.inode)], [2, [kept]]);
  assert(c.lookup(dir, "kept").inode === kept);
});
