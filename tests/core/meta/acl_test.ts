import { assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import {
  type Acl,
  aclBytesMax,
  aclErrno,
  aclPermissions,
  aclTag,
  chmodAcl,
  decodeAcl,
  encodeAcl,
  inheritAcl,
  isMinimal,
} from "../../../core/meta/acl.ts";
import { aclOf } from "./acls.ts";

const extended = aclOf("u::rwx u:1000:r-x g::r-x g:50:rw- m::rwx o::r--");
const minimal = aclOf("u::rw- g::r-- o::---");

Deno.test("decodeAcl() gives back what encodeAcl() wrote, ids up to the highest", () => {
  for (const acl of [extended, minimal, aclOf("u::rwx u:4294967294:r-- g::--- m::r-- o::---"), []]) {
    assertEquals(decodeAcl(encodeAcl(acl)), acl);
  }
});

Deno.test("decodeAcl() takes the bytes that setfacl writes", () => {
  const hex = "0200000001000700ffffffff02000500e803000004000500ffffffff10000500ffffffff20000400ffffffff";
  const value = Uint8Array.from(hex.match(/../g)!, (byte) => parseInt(byte, 16));
  const acl = aclOf("u::rwx u:1000:r-x g::r-x m::r-x o::r--");
  assertEquals(decodeAcl(value), acl);
  assertEquals(encodeAcl(acl), value);
});

Deno.test("decodeAcl() refuses what the kernel refuses", () => {
  const bad: [string, Acl][] = [
    ["no owner", aclOf("g::r-- o::r--")],
    ["no group", aclOf("u::r-- o::r--")],
    ["no other", aclOf("u::r-- g::r--")],
    ["named entry without a mask", aclOf("u::r-- u:1:r-- g::r-- o::r--")],
    ["named group without a mask", aclOf("u::r-- g::r-- g:1:r-- o::r--")],
    ["two owners", aclOf("u::r-- u::r-- g::r-- o::r--")],
    ["two masks", aclOf("u::r-- g::r-- m::r-- m::r-- o::r--")],
    ["users after the group", aclOf("u::r-- g::r-- u:1:r-- m::r-- o::r--")],
    ["mask after other", aclOf("u::r-- g::r-- o::r-- m::r--")],
    ["unknown tag", [...minimal.slice(0, 2), { tag: 3, perm: 0, id: 0xffffffff }, minimal[2]]],
    ["permissions beyond rwx", [{ ...minimal[0], perm: 8 }, ...minimal.slice(1)]],
    ["user -1", [extended[0], { ...extended[1], id: 0xffffffff }, ...extended.slice(2)]],
  ];
  for (const [why, acl] of bad) assertEquals(decodeAcl(encodeAcl(acl)), E.INVAL, why);
  const value = encodeAcl(extended);
  for (const length of [0, 3, 5, value.length - 1, value.length - 4]) {
    assertEquals(decodeAcl(value.subarray(0, length)), E.INVAL);
  }
  assertEquals(decodeAcl(Uint8Array.from([1, 0, 0, 0])), E.OPNOTSUPP);
  const entries = Array.from({ length: aclBytesMax / 8 - 4 }, (_, i) => ({ tag: aclTag.user, perm: 4, id: i }));
  const most = [extended[0], ...entries.slice(1), ...aclOf("g::r-- m::r-- o::r--")];
  assertEquals(decodeAcl(encodeAcl(most)), most);
  assertEquals(decodeAcl(encodeAcl([most[0], entries[0], ...most.slice(1)])), E["2BIG"]);
});

Deno.test("aclPermissions() shows the mask as the group, and the group without a mask", () => {
  assertEquals(aclPermissions(extended), 0o774);
  assertEquals(aclPermissions(minimal), 0o640);
  assertEquals([isMinimal(extended), isMinimal(minimal)], [false, true]);
});

Deno.test("chmodAcl() changes the mask and leaves the group and named entries", () => {
  assertEquals(chmodAcl(extended, 0o100701), aclOf("u::rwx u:1000:r-x g::r-x g:50:rw- m::--- o::--x"));
  assertEquals(chmodAcl(minimal, 0o751), aclOf("u::rwx g::r-x o::--x"));
});

Deno.test("inheritAcl() takes off what the program did not ask for, and gives no list where the mode says it all", () => {
  assertEquals(inheritAcl(extended, 0o640), {
    permissions: 0o640,
    access: aclOf("u::rw- u:1000:r-x g::r-x g:50:rw- m::r-- o::---"),
  });
  assertEquals(inheritAcl(minimal, 0o777), { permissions: 0o640, access: [] });
  assertEquals(inheritAcl(aclOf("u::rwx g::rwx m::r-x o::rwx"), 0o777), {
    permissions: 0o757,
    access: aclOf("u::rwx g::rwx m::r-x o::rwx"),
  });
});

Deno.test("aclErrno() asks owner, named user, any group, other in that order, all but the ends under the mask", () => {
  const acl = aclOf("u::r-- u:10:rw- u:11:rwx g::r-x g:50:-w- g:51:r-- m::rw- o::--x");
  const owner = { uid: 1, gid: 100 };
  const allowed = (uid: number, groups: number[]) => {
    const who = { uid, isMember: (gid: number) => groups.includes(gid) };
    return [4, 2, 1, 6].filter((wanted) => aclErrno(acl, owner, who, wanted) === 0);
  };
  assertEquals(allowed(1, [100, 50]), [4]);
  assertEquals(allowed(10, [100]), [4, 2, 6]);
  assertEquals(allowed(11, []), [4, 2, 6]);
  assertEquals(allowed(12, [100]), [4]);
  // Two groups, but one entry has to grant all.
  assertEquals(allowed(12, [50, 51]), [4, 2]);
  assertEquals(allowed(12, [99]), [1]);
  assertEquals(aclErrno(acl, owner, { uid: 12, isMember: () => false }, 0), 0);
});
