/** rmdir(2). */

import { assertEquals, assertGreater } from "@std/assert";
import { both, fails, kernel, later } from "../case.ts";
import { AT, nameMax } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { kernelPathCases } from "../path_cases.ts";

kernelPathCases({ name: "rmdir() of", call: (fs, path) => fs.rmdir(path), finds: true, changesDirectory: true });

both("rmdir() removes an empty directory and a link of the parent", async (fs) => {
  await fs.mkdir("parent");
  await fs.mkdir("parent/dir");
  await fs.rmdir("parent/dir");
  assertEquals(await fs.exists("parent/dir"), false);
  assertEquals((await fs.stat("parent")).nlink, 2);
});

for (const type of fileTypes) {
  kernel(`rmdir() of a directory that holds a ${type} is ENOTEMPTY`, async (fs) => {
    await fs.mkdir("dir");
    await fs.make(type, "dir/name");
    await fails(["ENOTEMPTY", "EEXIST"], fs.rmdir("dir"));
    await fs.lstat("dir/name");
  });
  if (type === "directory") continue;
  kernel(`rmdir() of a ${type} is ENOTDIR`, async (fs) => {
    await fs.make(type, "name");
    await fails("ENOTDIR", fs.rmdir("name"));
    await fs.lstat("name");
  });
}

kernel("rmdir() of a symbolic link to a directory is ENOTDIR", async (fs) => {
  await fs.mkdir("dir");
  await fs.symlink("dir", "link");
  await fails("ENOTDIR", fs.rmdir("link"));
  await fails("ENOTDIR", fs.rmdir("link/"));
});

kernel("rmdir() of a path that ends in . is EINVAL", async (fs) => {
  await fs.mkdir("dir");
  await fails("EINVAL", fs.rmdir("dir/."));
});

kernel("rmdir() of a path that ends in .. is ENOTEMPTY", async (fs) => {
  await fs.mkdir("dir");
  await fs.mkdir("dir/inner");
  await fails(["ENOTEMPTY", "EEXIST"], fs.rmdir("dir/inner/.."));
});

kernel("rmdir() of a path with a slash at its end works", async (fs) => {
  await fs.mkdir("dir");
  await fs.rmdir("dir/");
  assertEquals(await fs.exists("dir"), false);
});

both("rmdir() works after the last name in the directory was removed", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/one", "");
  await fs.mkdir("dir/two");
  await fs.rename("dir/one", "one");
  await fs.rmdir("dir/two");
  await fs.rmdir("dir");
  assertEquals(await fs.exists("dir"), false);
});

both("rmdir() updates mtime and ctime of the parent", async (fs) => {
  await fs.mkdir("parent");
  await fs.mkdir("parent/dir");
  const before = await fs.stat("parent");
  await later();
  await fs.rmdir("parent/dir");
  const after = await fs.stat("parent");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

both("rmdir() that fails changes no time of the directory", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  const before = await fs.stat("dir");
  await fails("ENOTEMPTY", fs.rmdir("dir"));
  const after = await fs.stat("dir");
  assertEquals([after.mtime, after.ctime, after.nlink], [before.mtime, before.ctime, 2]);
});

both("rmdir() of a name of 255 bytes works", async (fs) => {
  const name = "n".repeat(nameMax);
  await fs.mkdir(name);
  await fs.rmdir(name);
  assertEquals(await fs.readdir("."), []);
});

kernel("unlinkat() with AT_REMOVEDIR removes a directory, without it is EISDIR", async (fs) => {
  await fs.mkdir("dir");
  await fails("EISDIR", fs.unlinkat(AT.FDCWD, "dir", 0));
  await fs.unlinkat(AT.FDCWD, "dir", AT.REMOVEDIR);
  assertEquals(await fs.exists("dir"), false);
});

kernel("unlinkat() with an unknown flag is EINVAL", async (fs) => {
  await fs.mkdir("dir");
  await fails("EINVAL", fs.unlinkat(AT.FDCWD, "dir", 0x800));
});

both("a directory can be made again under the name of one that was removed", async (fs) => {
  await fs.mkdir("dir");
  const { ino } = await fs.stat("dir");
  await fs.rmdir("dir");
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  assertEquals((await fs.readdir("dir")).length, 1);
  assertGreater(ino, 0);
});

both("rmdir() and a create in the directory at once leave either the file or no directory", async (fs) => {
  const other = await fs.elsewhere();
  for (let round = 0; round < 10; round++) {
    await fs.mkdir("dir");
    const [removed, made] = await Promise.allSettled([fs.rmdir("dir"), other.writeFile("dir/file", "")]);
    assertEquals([removed.status, made.status].sort(), ["fulfilled", "rejected"]);
    assertEquals(await fs.exists("dir"), made.status === "fulfilled");
    if (made.status === "fulfilled") await fs.rename("dir", `kept${round}`);
  }
});
