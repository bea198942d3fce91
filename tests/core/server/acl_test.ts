/**
 * What servers make of ACLs and capabilities: kept beside the inode, in step with its mode, inherited wherever a child
 * is made.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { accessAclName, capabilityName, decodeAcl, defaultAclName, encodeAcl } from "../../../core/meta/acl.ts";
import { inodeFlags, S } from "../../../core/meta/attributes.ts";
import { inodeKey, keyNumber, kind, shardOf } from "../../../core/meta/layout.ts";
import { directoryShard } from "../../../core/placement/hash.ts";
import * as m from "../../../core/protocol/messages.ts";
import { aclOf, aclText } from "../meta/acls.ts";
import { bytes, Cluster, shards } from "./cluster.ts";

const zero = { sec: 0, nsec: 0 };
const inheritable = "u::rwx u:1000:rwx g::r-x m::rwx o::---";

function set(c: Cluster, inode: number, name: Uint8Array, value: Uint8Array, flags = 0): number {
  return c.call(m.SETXATTR, inode, { inode, name, value, flags }).status;
}

function setAcl(c: Cluster, inode: number, name: Uint8Array, text: string, flags = 0): number {
  return set(c, inode, name, encodeAcl(text === "" ? [] : aclOf(text)), flags);
}

/** A list as text, or the errno of asking for it. */
function acl(c: Cluster, inode: number, name: Uint8Array): string | number {
  const { status, value } = c.call(m.GETXATTR, inode, { inode, name });
  if (status !== 0) return status;
  const list = decodeAcl(value);
  return typeof list === "number" ? list : aclText(list);
}

function remove(c: Cluster, inode: number, name: Uint8Array): number {
  return c.call(m.REMOVEXATTR, inode, { inode, name }).status;
}

function names(c: Cluster, inode: number): string {
  return new TextDecoder().decode(c.call(m.LISTXATTR, inode, { inode }).names).replaceAll("\0", " ").trim();
}

function setattr(
  c: Cluster,
  inode: number,
  valid: number,
  change: { mode?: number; uid?: number; size?: number } = {},
) {
  const body = { inode, valid, mode: 0, uid: 0, gid: 0, size: 0, atime: zero, mtime: zero, ctime: zero, ...change };
  return c.call(m.SETATTR, inode, body).attributes;
}

/** Permission bits and the flags of ACLs. */
function bits(c: Cluster, inode: number): [number, number] {
  const { mode, flags } = c.attributes(inode);
  return [mode & 0o7777, flags & (inodeFlags.accessAcl | inodeFlags.defaultAcl)];
}

Deno.test("SETXATTR of an access ACL sets the mode, and keeps the list only when the mode does not say it all", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "f");
  assertEquals(setAcl(c, inode, accessAclName, "u::rw- u:7:r-x g::--- m::r-x o::r--"), 0);
  assertEquals(bits(c, inode), [0o654, inodeFlags.accessAcl]);
  assertEquals(acl(c, inode, accessAclName), "u::rw- u:7:r-x g::--- m::r-x o::r--");
  assertEquals(names(c, inode), "system.posix_acl_access");
  assertEquals(setAcl(c, inode, accessAclName, "u::rwx g::--x o::---"), 0);
  assertEquals(bits(c, inode), [0o710, 0]);
  assertEquals([acl(c, inode, accessAclName), names(c, inode)], [E.NODATA, ""]);
});

Deno.test("SETXATTR of an empty ACL, and REMOVEXATTR, remove the list and leave the mode", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "f"), list = "u::rwx u:7:r-x g::--- m::r-x o::---";
  for (const drop of [() => setAcl(c, inode, accessAclName, ""), () => remove(c, inode, accessAclName)]) {
    assertEquals(setAcl(c, inode, accessAclName, list), 0);
    assertEquals(drop(), 0);
    assertEquals(bits(c, inode), [0o750, 0]);
    assertEquals(acl(c, inode, accessAclName), E.NODATA);
  }
  assertEquals([remove(c, inode, accessAclName), remove(c, inode, capabilityName)], [0, E.NODATA]);
});

Deno.test("SETXATTR refuses what is no ACL, default ACLs of files and any ACL of a symbolic link", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "f");
  assertEquals(set(c, inode, accessAclName, bytes("nonsense")), E.OPNOTSUPP);
  assertEquals(set(c, inode, accessAclName, Uint8Array.of(2, 0, 0, 0, 1)), E.INVAL);
  assertEquals(setAcl(c, inode, accessAclName, "u::rwx u:7:r-x g::--- o::r--"), E.INVAL);
  assertEquals(setAcl(c, inode, defaultAclName, "u::rwx g::r-x o::r-x"), E.ACCES);
  assertEquals(setAcl(c, inode, defaultAclName, ""), 0);
  const link = c.call(m.CREATE, c.root, {
    ...{ dir: c.root, name: bytes("l"), mode: S.IFLNK | 0o777, umask: 0, uid: 0, gid: 0, rdev: 0 },
    ...{ target: bytes("f"), exclusive: true, openId: 0, truncate: false },
  });
  assertEquals(setAcl(c, link.inode, accessAclName, "u::rwx g::r-x o::r-x"), E.OPNOTSUPP);
  assertEquals(bits(c, inode), [0o644, 0]);
});

Deno.test("SETXATTR of an access ACL clears setgid when it is told to", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "f", S.IFREG | 0o2755);
  assertEquals(setAcl(c, inode, accessAclName, "u::rwx u:7:r-x g::r-x m::r-x o::r-x"), 0);
  assertEquals(bits(c, inode)[0], 0o2755);
  assertEquals(setAcl(c, inode, accessAclName, "u::rwx u:7:r-x g::r-x m::r-x o::r-x", 4), 0);
  assertEquals(bits(c, inode)[0], 0o755);
});

Deno.test("SETATTR of the mode changes the mask of the access ACL, or its group without one", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "f");
  assertEquals(setAcl(c, inode, accessAclName, "u::rwx u:7:rwx g::r-x m::rwx o::---"), 0);
  assertEquals(setattr(c, inode, m.setattrValid.mode, { mode: 0o641 }).mode & 0o777, 0o641);
  assertEquals(acl(c, inode, accessAclName), "u::rw- u:7:rwx g::r-x m::r-- o::--x");
});

Deno.test("CREATE and MKDIR inherit the default ACL of their directory in place of the umask, on any shard", () => {
  const c = new Cluster(), dir = c.mkdir(c.root, "d").attributes.inode;
  assertEquals(setAcl(c, dir, defaultAclName, inheritable), 0);
  assertEquals(bits(c, dir), [0o755, inodeFlags.defaultAcl]);
  const body = { dir, mode: S.IFREG | 0o666, umask: 0o77, uid: 5, gid: 5, rdev: 0, target: bytes("") };
  const made = c.call(m.CREATE, dir, { ...body, name: bytes("f"), exclusive: true, openId: 0, truncate: false });
  assertEquals(made.attributes.mode & 0o7777, 0o660);
  assertEquals(acl(c, made.inode, accessAclName), "u::rw- u:1000:rwx g::r-x m::rw- o::---");
  assertEquals(acl(c, made.inode, defaultAclName), E.NODATA);
  const seen = new Set<boolean>();
  for (let i = 0; i < 20; i++) {
    const name = bytes(`d${i}`), below = c.call(m.MKDIR, dir, { dir, name, mode: 0o777, umask: 0o77, uid: 5, gid: 5 });
    const { inode, mode } = below.attributes;
    assertEquals([below.status, mode & 0o7777], [0, 0o770]);
    assertEquals(acl(c, inode, accessAclName), inheritable);
    assertEquals(acl(c, inode, defaultAclName), inheritable);
    assertEquals(bits(c, inode)[1], inodeFlags.accessAcl | inodeFlags.defaultAcl);
    seen.add(shardOf(inode) === shardOf(dir));
  }
  assert(seen.has(false));
});

Deno.test("CREATE inherits nothing but the mode from a default ACL that a mode can say, and MKDIR passes it on", () => {
  const c = new Cluster(), dir = c.mkdir(c.root, "d").attributes.inode, list = "u::rwx g::r-x o::---";
  assertEquals(setAcl(c, dir, defaultAclName, list), 0);
  const file = c.create(dir, "f", S.IFREG | 0o777);
  assertEquals([bits(c, file.inode), names(c, file.inode)], [[0o750, 0], ""]);
  const below = c.mkdir(dir, "below").attributes.inode;
  assertEquals(bits(c, below), [0o750, inodeFlags.defaultAcl]);
  assertEquals([acl(c, below, accessAclName), acl(c, below, defaultAclName)], [E.NODATA, list]);
});

Deno.test("CREATE and MKDIR take the umask off where there is no default ACL", () => {
  const c = new Cluster(), dir = c.mkdir(c.root, "d").attributes.inode;
  const body = { dir, mode: S.IFREG | 0o6666, umask: 0o27, uid: 5, gid: 5, rdev: 0, target: bytes("") };
  const made = c.call(m.CREATE, dir, { ...body, name: bytes("f"), exclusive: true, openId: 0, truncate: false });
  assertEquals(bits(c, made.inode), [0o6640, 0]);
  for (let i = 0; i < 4; i++) {
    const below = c.call(m.MKDIR, dir, { dir, name: bytes(`d${i}`), mode: 0o1777, umask: 0o27, uid: 5, gid: 5 });
    assertEquals(bits(c, below.attributes.inode), [0o1750, 0]);
  }
});

Deno.test("MKDIR gives a child on another server its ACLs once, through a restart of driver and participant", () => {
  const c = new Cluster(), driver = c.ownerOf(c.root);
  assertEquals(setAcl(c, c.root, defaultAclName, inheritable), 0);
  const owner = (text: string) => c.map.owners[directoryShard(c.root, bytes(text), shards)][0] - 1;
  const name = Array.from({ length: 99 }, (_, i) => `far${i}`).find((text) => owner(text) !== driver)!;
  c.kill(owner(name));
  const body = { dir: c.root, name: bytes(name), mode: 0o777, umask: 0o22, uid: 0, gid: 0 };
  const made = c.begin(c.caller.call(m.MKDIR, { shard: shardOf(c.root) }, body));
  c.world.pass(100);
  c.restart(driver);
  c.world.pass(2000);
  c.start(owner(name));
  const { inode, mode } = c.end(made).body!.attributes;
  c.restart(owner(name));
  c.restart(driver);
  assertEquals([mode & 0o7777, bits(c, inode)[0]], [0o770, 0o770]);
  assertEquals([acl(c, inode, accessAclName), acl(c, inode, defaultAclName)], [inheritable, inheritable]);
});

Deno.test("WRITE, truncation and chown take a file's capabilities, reads and chmod do not", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "f", S.IFREG | 0o755), value = bytes("caps");
  const has = () => c.call(m.GETXATTR, inode, { inode, name: capabilityName }).status === 0;
  const flagged = () => (c.attributes(inode).flags & inodeFlags.capability) !== 0;
  const takers = [
    () => void c.call(m.WRITE, inode, { inode, offset: 0, killSetId: false, far: null }, bytes("x")),
    () => void c.call(m.APPEND, inode, { inode, killSetId: false }, bytes("x")),
    () => void setattr(c, inode, m.setattrValid.size, { size: 1 }),
    () => void setattr(c, inode, m.setattrValid.uid, { uid: 9 }),
    () => void c.call(m.FALLOCATE, inode, { inode, mode: 3, offset: 0, length: 1, killSetId: false }),
  ];
  for (const take of takers) {
    assertEquals(set(c, inode, capabilityName, value), 0);
    setattr(c, inode, m.setattrValid.mode, { mode: 0o711 });
    assertEquals([has(), flagged()], [true, true]);
    take();
    assertEquals([has(), flagged()], [false, false], String(take));
  }
  assertEquals(set(c, inode, capabilityName, value), 0);
  assertEquals([remove(c, inode, capabilityName), flagged()], [0, false]);
});

Deno.test("FALLOCATE clears setuid and setgid when it is told to", () => {
  const c = new Cluster(), { inode } = c.create(c.root, "f", S.IFREG | 0o6755);
  for (const [killSetId, mode] of [[false, 0o6755], [true, 0o755]] as const) {
    assertEquals(c.call(m.FALLOCATE, inode, { inode, mode: 0, offset: 0, length: 100, killSetId }).status, 0);
    assertEquals(bits(c, inode)[0], mode);
  }
});

Deno.test("UNLINK and RMDIR leave nothing of ACLs", () => {
  const c = new Cluster();
  assertEquals(setAcl(c, c.root, defaultAclName, inheritable), 0);
  const file = c.create(c.root, "f").inode, dir = c.mkdir(c.root, "d").attributes.inode;
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("f") }).status, 0);
  assertEquals(c.call(m.RMDIR, c.root, { dir: c.root, name: bytes("d") }).status, 0);
  for (const inode of [file, dir]) {
    const from = inodeKey(shardOf(inode), kind.xattr, inode);
    const shard = { shard: shardOf(inode) };
    const page = c.run(c.caller.call(m.SCAN, shard, { from, limitBytes: 65536 })).body!;
    const own = page.records.filter(({ key }: { key: Uint8Array }) =>
      key[2] === kind.xattr && keyNumber(key, 3, 7) === inode
    );
    assertEquals(own, []);
  }
});
