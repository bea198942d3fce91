/** chmod(2), fchmod(2). */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, bob, both, fails, kernel, later, staff } from "../case.ts";
import { AT, O, S } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

pathCases({ name: "chmod() of", call: (fs, path) => fs.chmod(path, 0o644), finds: true, follows: true });

for (const mode of [0o000, 0o007, 0o070, 0o700, 0o555, 0o777, 0o1777, 0o2755, 0o4755, 0o7777]) {
  both(`chmod() of a file to 0${mode.toString(8).padStart(3, "0")} sets just that`, async (fs) => {
    await fs.writeFile("file", "", 0o421);
    await fs.chmod("file", mode);
    assertEquals((await fs.stat("file")).mode, S.IFREG | mode);
  });
}

for (const type of fileTypes) {
  if (type === "symlink") continue;
  kernel(`chmod() of a ${type} keeps its type`, async (fs) => {
    await fs.make(type, "name");
    const { mode } = await fs.stat("name");
    await fs.chmod("name", 0o1642);
    assertEquals((await fs.stat("name")).mode, (mode & S.IFMT) | 0o1642);
  });
}

both("chmod() follows a symbolic link", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await fs.chmod("link", 0o600);
  assertEquals([(await fs.stat("file")).mode & 0o777, (await fs.lstat("link")).mode & 0o777], [0o600, 0o777]);
});

both("chmod() updates ctime, not mtime", async (fs) => {
  await fs.writeFile("file", "");
  const before = await fs.stat("file");
  await later();
  await fs.chmod("file", 0o600);
  const after = await fs.stat("file");
  assertGreater(after.ctime, before.ctime);
  assertEquals(after.mtime, before.mtime);
});

both("the owner may chmod()", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, alice.gid);
  await fs.as(alice).chmod("file", 0o604);
  assertEquals((await fs.stat("file")).mode & 0o7777, 0o604);
});

both("chmod() by another than the owner is EPERM and changes nothing", async (fs) => {
  await fs.writeFile("file", "", 0o777);
  await fs.chown("file", alice.uid, alice.gid);
  const before = await fs.stat("file");
  await fails("EPERM", fs.as(bob).chmod("file", 0o600));
  const after = await fs.stat("file");
  assertEquals([after.mode, after.ctime], [before.mode, before.ctime]);
});

both("chmod() of a file by a member of its group is EPERM", async (fs) => {
  await fs.writeFile("file", "", 0o777);
  await fs.chown("file", alice.uid, staff);
  await fails("EPERM", fs.as({ ...bob, groups: [staff] }).chmod("file", 0o600));
});

both("chmod() by an owner outside the file's group drops setgid", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, staff);
  await fs.as(alice).chmod("file", 0o2755);
  assertEquals((await fs.stat("file")).mode & 0o7777, 0o755);
});

both("chmod() by an owner in the file's group keeps setgid", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, staff);
  await fs.as({ ...alice, groups: [staff] }).chmod("file", 0o2755);
  assertEquals((await fs.stat("file")).mode & 0o7777, 0o2755);
});

both("chmod() by an owner sets setuid and sticky", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, alice.gid);
  await fs.as(alice).chmod("file", 0o5755);
  assertEquals((await fs.stat("file")).mode & 0o7777, 0o5755);
});

kernel("fchmod() sets the mode of an open file", async (fs) => {
  const file = await fs.open("file", O.RDONLY | O.CREAT, 0o644);
  await file.fchmod(0o4711);
  assertEquals((await fs.stat("file")).mode & 0o7777, 0o4711);
});

kernel("fchmod() of a descriptor of O_PATH is EBADF", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EBADF", (await fs.open("file", O.PATH)).fchmod(0o600));
});

kernel("fchmod() of an open directory works", async (fs) => {
  await fs.mkdir("dir");
  await (await fs.open("dir", O.RDONLY)).fchmod(0o1750);
  assertEquals((await fs.stat("dir")).mode, S.IFDIR | 0o1750);
});

kernel("fchmod() by another than the owner is EPERM", async (fs) => {
  await fs.writeFile("file", "", 0o666);
  const file = await fs.open("file", O.RDWR);
  await fails("EPERM", file.as(alice).fchmod(0o600));
});

kernel("fchmodat() starts at its directory descriptor", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  const dir = await fs.open("dir", O.RDONLY);
  await fs.call("fchmodat", [dir.fd, "file", 0o640]);
  assertEquals((await fs.stat("dir/file")).mode & 0o777, 0o640);
});

both("a mode that another client sets is seen at once, and obeyed", async (fs) => {
  await fs.writeFile("file", "contents", 0o644);
  const other = await fs.elsewhere();
  assertEquals(await other.as(alice).readText("file"), "contents");
  await fs.chmod("file", 0o600);
  assertEquals((await other.stat("file")).mode & 0o777, 0o600);
  await fails("EACCES", other.as(alice).open("file", O.RDONLY));
});

kernel("an open file can be read after its mode forbids it", async (fs) => {
  await fs.writeFile("file", "contents", 0o644);
  const file = await fs.as(alice).open("file", O.RDONLY);
  await fs.chmod("file", 0);
  assertEquals((await file.read(8)).length, 8);
});

kernel("chmod() by AT_SYMLINK_NOFOLLOW of a link is EOPNOTSUPP", async (fs) => {
  await fs.symlink("nowhere", "link");
  await fails(["EOPNOTSUPP", "ENOTSUP"], fs.call("fchmodat2", [AT.FDCWD, "link", 0o600, AT.SYMLINK_NOFOLLOW]));
});
