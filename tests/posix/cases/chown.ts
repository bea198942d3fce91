/** chown(2), lchown(2), fchown(2). What it does to setuid and setgid is in set_id.ts. */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, bob, both, fails, kernel, later, staff } from "../case.ts";
import { AT, O } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

pathCases({ name: "chown() of", call: (fs, path) => fs.chown(path, 1, 2), finds: true, follows: true });
pathCases({ name: "lchown() of", call: (fs, path) => fs.lchown(path, 1, 2), finds: true });

for (const type of fileTypes) {
  kernel(`lchown() of a ${type} sets owner and group`, async (fs) => {
    await fs.make(type, "name");
    await fs.lchown("name", 123, 456);
    const { uid, gid } = await fs.lstat("name");
    assertEquals([uid, gid], [123, 456]);
  });
}

both("chown() with -1 as owner leaves the owner", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", 10, 20);
  await fs.chown("file", -1, 30);
  const { uid, gid } = await fs.stat("file");
  assertEquals([uid, gid], [10, 30]);
});

both("chown() with -1 as group leaves the group", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", 10, 20);
  await fs.chown("file", 30, -1);
  const { uid, gid } = await fs.stat("file");
  assertEquals([uid, gid], [30, 20]);
});

kernel("chown() with -1 and -1 changes nothing but may be asked by all", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, alice.gid);
  await fs.as(bob).chown("file", -1, -1);
  const { uid, gid } = await fs.stat("file");
  assertEquals([uid, gid], [alice.uid, alice.gid]);
});

both("chown() keeps ids of 32 bits", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", 4_294_967_294, 4_000_000_000);
  const { uid, gid } = await fs.stat("file");
  assertEquals([uid, gid], [4_294_967_294, 4_000_000_000]);
});

both("chown() follows a symbolic link, lchown() does not", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await fs.chown("link", 11, 12);
  await fs.lchown("link", 13, 14);
  const file = await fs.stat("file"), link = await fs.lstat("link");
  assertEquals([file.uid, file.gid, link.uid, link.gid], [11, 12, 13, 14]);
});

both("chown() updates ctime, not mtime", async (fs) => {
  await fs.writeFile("file", "");
  const before = await fs.stat("file");
  await later();
  await fs.chown("file", 1, 2);
  const after = await fs.stat("file");
  assertGreater(after.ctime, before.ctime);
  assertEquals(after.mtime, before.mtime);
});

both("an owner may give a file to a group of theirs", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, alice.gid);
  await fs.as({ ...alice, groups: [staff] }).chown("file", -1, staff);
  assertEquals((await fs.stat("file")).gid, staff);
});

both("an owner who gives a file to a group they are not in is told EPERM", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, alice.gid);
  await fails("EPERM", fs.as(alice).chown("file", -1, staff));
});

both("an owner who gives a file to another user is told EPERM", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, alice.gid);
  await fails("EPERM", fs.as(alice).chown("file", bob.uid, -1));
});

both("chown() of another's file is EPERM and changes nothing", async (fs) => {
  await fs.writeFile("file", "", 0o777);
  await fs.chown("file", alice.uid, alice.gid);
  const before = await fs.stat("file");
  await fails("EPERM", fs.as(bob).chown("file", bob.uid, bob.gid));
  const after = await fs.stat("file");
  assertEquals([after.uid, after.gid, after.ctime], [alice.uid, alice.gid, before.ctime]);
});

both("an owner may set the owner and group that the file has", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, staff);
  await fs.as(alice).chown("file", alice.uid, staff);
  assertEquals((await fs.stat("file")).gid, staff);
});

kernel("fchown() sets the owner of an open file", async (fs) => {
  const file = await fs.open("file", O.RDONLY | O.CREAT);
  await file.fchown(77, 88);
  const { uid, gid } = await fs.stat("file");
  assertEquals([uid, gid], [77, 88]);
});

kernel("fchown() of an open unlinked file works", async (fs) => {
  const file = await fs.open("file", O.RDONLY | O.CREAT);
  await fs.unlink("file");
  await file.fchown(77, 88);
  assertEquals((await file.fstat()).uid, 77);
});

kernel("fchown() of a descriptor of O_PATH is EBADF", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EBADF", (await fs.open("file", O.PATH)).fchown(1, 1));
});

kernel("fchownat() with AT_EMPTY_PATH sets the owner of a descriptor of O_PATH", async (fs) => {
  await fs.symlink("nowhere", "link");
  const link = await fs.open("link", O.PATH | O.NOFOLLOW);
  await fs.call("fchownat", [link.fd, "", 5, 6, AT.EMPTY_PATH]);
  assertEquals((await fs.lstat("link")).uid, 5);
});

kernel("fchownat() with an unknown flag is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", fs.call("fchownat", [AT.FDCWD, "file", 1, 1, 0x4]));
});

both("an owner that another client sets is seen at once", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.elsewhere();
  await other.stat("file");
  await fs.chown("file", 42, 43);
  const { uid, gid } = await other.stat("file");
  assertEquals([uid, gid], [42, 43]);
});
