/** unlink(2), and files that are open when their last name goes. */

import { assertEquals, assertGreater } from "@std/assert";
import { both, fails, kernel, later, text } from "../case.ts";
import { nameMax, O } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

pathCases({ name: "unlink() of", call: (fs, path) => fs.unlink(path), finds: true, changesDirectory: true });

for (const type of fileTypes) {
  if (type === "directory") continue;
  kernel(`unlink() removes a ${type}`, async (fs) => {
    await fs.make(type, "name");
    await fs.unlink("name");
    await fails("ENOENT", fs.lstat("name"));
    assertEquals(await fs.readdir("."), []);
  });
}

kernel("unlink() of a directory is EISDIR", async (fs) => {
  await fs.mkdir("dir");
  await fails(["EISDIR", "EPERM"], fs.unlink("dir"));
  await fs.stat("dir");
});

kernel("unlink() of a file with a slash at the end of its path is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", fs.unlink("file/"));
});

both("unlink() of a symbolic link leaves its target", async (fs) => {
  await fs.writeFile("target", "stays");
  await fs.symlink("target", "link");
  await fs.unlink("link");
  assertEquals(await fs.readText("target"), "stays");
});

both("unlink() of one of three links leaves two", async (fs) => {
  await fs.writeFile("one", "contents");
  await fs.link("one", "two");
  await fs.link("one", "three");
  await fs.unlink("one");
  assertEquals([(await fs.stat("two")).nlink, await fs.readText("three")], [2, "contents"]);
});

both("unlink() updates ctime of a file that has another link", async (fs) => {
  await fs.writeFile("one", "");
  await fs.link("one", "two");
  const before = await fs.stat("two");
  await later();
  await fs.unlink("one");
  const after = await fs.stat("two");
  assertGreater(after.ctime, before.ctime);
  assertEquals(after.mtime, before.mtime);
});

both("unlink() updates mtime and ctime of the directory", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  const before = await fs.stat("dir");
  await later();
  await fs.unlink("dir/file");
  const after = await fs.stat("dir");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

both("an open file that was unlinked can be read and written until it is closed", async (fs) => {
  await fs.writeFile("file", "before");
  const file = await fs.open("file", O.RDWR);
  await fs.unlink("file");
  assertEquals(text(await file.pread(100, 0)), "before");
  await file.pwrite("after unlink", 0);
  assertEquals(text(await file.pread(100, 0)), "after unlink");
  const { nlink, size } = await file.fstat();
  assertEquals([nlink, size], [0, 12]);
});

both("an open file that another client unlinked can be read and written", async (fs) => {
  await fs.writeFile("file", "before");
  const file = await fs.open("file", O.RDWR);
  await (await fs.elsewhere()).unlink("file");
  assertEquals(await fs.exists("file"), false);
  assertEquals(text(await file.pread(100, 0)), "before");
  await file.pwrite("more", 6);
  assertEquals(text(await file.pread(100, 0)), "beforemore");
});

both("a name can be made anew while the old file is still open", async (fs) => {
  await fs.writeFile("file", "old");
  const old = await fs.open("file", O.RDONLY);
  await fs.unlink("file");
  await fs.writeFile("file", "new");
  assertEquals(text(await old.pread(10, 0)), "old");
  assertEquals(await fs.readText("file"), "new");
});

kernel("an open unlinked file can be truncated, its mode changed and its times set", async (fs) => {
  await fs.writeFile("file", "contents");
  const file = await fs.open("file", O.RDWR);
  await fs.unlink("file");
  await file.ftruncate(3);
  await file.fchmod(0o600);
  await file.futimens(1_000_000_000n, 2_000_000_000n);
  const { size, mode, mtime } = await file.fstat();
  assertEquals([size, mode & 0o777, mtime], [3, 0o600, 2_000_000_000n]);
});

both("unlink() of a name of 255 bytes works", async (fs) => {
  const name = "n".repeat(nameMax);
  await fs.writeFile(name, "");
  await fs.unlink(name);
  assertEquals(await fs.readdir("."), []);
});

both("of two that unlink the same name at once one is told ENOENT", async (fs) => {
  const other = await fs.elsewhere();
  for (let round = 0; round < 10; round++) {
    await fs.writeFile("file", "");
    const ends = await Promise.allSettled([fs.unlink("file"), other.unlink("file")]);
    assertEquals(ends.filter(({ status }) => status === "fulfilled").length, 1);
  }
});
