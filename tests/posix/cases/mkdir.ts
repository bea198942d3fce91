/** mkdir(2). */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, both, fails, kernel, later } from "../case.ts";
import { nameMax, S } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { longPath, pathCases } from "../path_cases.ts";

pathCases({ name: "mkdir() of", call: (fs, path) => fs.mkdir(path), changesDirectory: true });

both("mkdir() makes an empty directory with two links", async (fs) => {
  await fs.mkdir("dir", 0o755);
  const { mode, nlink } = await fs.stat("dir");
  assertEquals([mode, nlink], [S.IFDIR | 0o755, 2]);
  assertEquals(await fs.readdir("dir"), []);
});

both("mkdir() adds a link to the parent", async (fs) => {
  await fs.mkdir("parent");
  await fs.mkdir("parent/one");
  await fs.mkdir("parent/two");
  assertEquals((await fs.stat("parent")).nlink, 4);
});

for (const mode of [0o000, 0o111, 0o222, 0o444, 0o755, 0o777, 0o1777]) {
  both(`mkdir() keeps mode 0${mode.toString(8)}`, async (fs) => {
    await fs.mkdir("dir", mode);
    assertEquals((await fs.stat("dir")).mode, S.IFDIR | mode);
  });
}

for (const umask of [0o022, 0o077, 0o777]) {
  both(`mkdir() takes the bits of umask 0${umask.toString(8)} away`, async (fs) => {
    await fs.as({ uid: 0, gid: 0, groups: [], umask }).mkdir("dir", 0o777);
    assertEquals((await fs.stat("dir")).mode & 0o7777, 0o777 & ~umask);
  });
}

both("a new directory belongs to its maker's user and group", async (fs) => {
  await fs.chmod(".", 0o777);
  await fs.as(alice).mkdir("dir");
  const { uid, gid } = await fs.stat("dir");
  assertEquals([uid, gid], [alice.uid, alice.gid]);
});

both("a directory made in a setgid directory has its group and is setgid", async (fs) => {
  await fs.mkdir("parent");
  await fs.chown("parent", 0, 6001);
  await fs.chmod("parent", 0o2777);
  await fs.as(alice).mkdir("parent/dir", 0o755);
  const { gid, mode } = await fs.stat("parent/dir");
  assertEquals([gid, mode & 0o7777], [6001, 0o2755]);
});

both("mkdir() updates mtime and ctime of the parent", async (fs) => {
  await fs.mkdir("parent");
  const before = await fs.stat("parent");
  await later();
  await fs.mkdir("parent/dir");
  const after = await fs.stat("parent");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

for (const type of fileTypes) {
  kernel(`mkdir() where there is a ${type} is EEXIST`, async (fs) => {
    await fs.make(type, "name");
    await fails("EEXIST", fs.mkdir("name"));
  });
}

both("mkdir() through a symbolic link at the end that leads nowhere is EEXIST", async (fs) => {
  await fs.symlink("nowhere", "link");
  await fails("EEXIST", fs.mkdir("link"));
  assertEquals(await fs.exists("nowhere"), false);
});

for (const path of [".", "..", "dir/.", "dir/.."]) {
  kernel(`mkdir() of ${path} is EEXIST`, async (fs) => {
    await fs.mkdir("dir");
    await fails("EEXIST", fs.mkdir(path));
  });
}

kernel("mkdir() of an absent name followed by /. is ENOENT", async (fs) => {
  await fails("ENOENT", fs.mkdir("dir/."));
});

kernel("mkdir() of a path with slashes at its end works", async (fs) => {
  await fs.mkdir("dir///");
  assertEquals((await fs.stat("dir")).mode & S.IFMT, S.IFDIR);
});

both("mkdir() of a name of 255 bytes works", async (fs) => {
  await fs.mkdir("n".repeat(nameMax));
  assertEquals((await fs.readdir("."))[0].name.length, nameMax);
});

kernel("mkdir() of a path of 4095 bytes works", async (fs) => {
  await fs.mkdir(longPath("name", 4095));
  assertEquals((await fs.stat("name")).mode & S.IFMT, S.IFDIR);
});

both("mkdir() works 40 directories deep", async (fs) => {
  let path = "d";
  await fs.mkdir(path);
  for (let depth = 1; depth < 40; depth++) await fs.mkdir(path += "/d");
  await fs.writeFile(`${path}/file`, "deep");
  assertEquals(await fs.readText(`${path}/file`), "deep");
});

both("of two that make the same directory at once one is told EEXIST", async (fs) => {
  const other = await fs.elsewhere();
  for (let round = 0; round < 10; round++) {
    const ends = await Promise.allSettled([fs.mkdir(`dir${round}`), other.mkdir(`dir${round}`)]);
    assertEquals(ends.filter(({ status }) => status === "fulfilled").length, 1);
  }
});
