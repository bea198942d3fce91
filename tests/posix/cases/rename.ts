/** rename(2): what it moves and replaces, what it refuses, and what stays. */

import { assert, assertEquals, assertGreater } from "@std/assert";
import { alice, bob, both, fails, kernel, later, text } from "../case.ts";
import { nameMax, O, S } from "../constants.ts";
import { fileTypes, typeBits } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

pathCases({
  name: "rename() from",
  call: (fs, path) => fs.rename(path, "other"),
  finds: true,
  changesDirectory: true,
});
pathCases({
  name: "rename() to",
  prepare: async (fs) => {
    await fs.chmod(".", 0o777);
    await fs.writeFile("source", "");
  },
  call: (fs, path) => fs.rename("source", path),
  changesDirectory: true,
});

both("rename() keeps a file's inode, contents and mode", async (fs) => {
  await fs.writeFile("old", "contents", 0o640);
  const before = await fs.stat("old");
  await fs.rename("old", "new");
  const after = await fs.stat("new");
  assertEquals([after.ino, after.mode, await fs.readText("new")], [before.ino, before.mode, "contents"]);
  assertEquals(await fs.exists("old"), false);
});

for (const type of fileTypes) {
  kernel(`rename() moves a ${type} to another directory`, async (fs) => {
    await fs.mkdir("from");
    await fs.mkdir("to");
    await fs.make(type, "from/name");
    const { ino } = await fs.lstat("from/name");
    await fs.rename("from/name", "to/name");
    const moved = await fs.lstat("to/name");
    assertEquals([moved.ino, moved.mode & S.IFMT], [ino, typeBits[type]]);
    assertEquals(await fs.exists("from/name"), false);
  });
  if (type === "directory") continue;
  kernel(`rename() replaces a ${type} by a file`, async (fs) => {
    await fs.make(type, "victim");
    await fs.writeFile("file", "new");
    await fs.rename("file", "victim");
    assertEquals(await fs.readText("victim"), "new");
    assertEquals((await fs.readdir(".")).map(({ name }) => name), ["victim"]);
  });
  kernel(`rename() of a ${type} onto a directory is EISDIR`, async (fs) => {
    await fs.make(type, "name");
    await fs.mkdir("dir");
    await fails("EISDIR", fs.rename("name", "dir"));
    assert(await fs.exists("name"));
  });
  kernel(`rename() of a directory onto a ${type} is ENOTDIR`, async (fs) => {
    await fs.mkdir("dir");
    await fs.make(type, "name");
    await fails("ENOTDIR", fs.rename("dir", "name"));
    assert(await fs.exists("dir"));
  });
}

both("rename() replaces an empty directory by a directory with its contents", async (fs) => {
  await fs.mkdir("from");
  await fs.writeFile("from/file", "inside");
  await fs.mkdir("to");
  await fs.rename("from", "to");
  assertEquals(await fs.readText("to/file"), "inside");
  assertEquals(await fs.exists("from"), false);
});

both("rename() onto a non-empty directory is ENOTEMPTY", async (fs) => {
  await fs.mkdir("from");
  await fs.mkdir("to");
  await fs.writeFile("to/file", "");
  await fails(["ENOTEMPTY", "EEXIST"], fs.rename("from", "to"));
  assertEquals((await fs.readdir("to")).length, 1);
});

both("rename() replaces an empty directory whatever the length of its name", async (fs) => {
  for (const length of [1, 64, 100, 118, 128, 200, 246, 255]) {
    const name = "n".repeat(length);
    await fs.mkdir("from");
    await fs.mkdir(name);
    await fs.rename("from", name);
    await fs.rmdir(name);
  }
});

both("rename() of a directory into itself is EINVAL", async (fs) => {
  await fs.mkdir("dir");
  await fails("EINVAL", fs.rename("dir", "dir/inside"));
});

both("rename() of a directory below itself is EINVAL", async (fs) => {
  await fs.mkdir("a");
  await fs.mkdir("a/b");
  await fs.mkdir("a/b/c");
  await fails("EINVAL", fs.rename("a", "a/b/c/d"));
});

kernel("rename() of a directory onto one that it is in is ENOTEMPTY", async (fs) => {
  await fs.mkdir("a");
  await fs.mkdir("a/b");
  await fs.mkdir("a/b/c");
  await fails("ENOTEMPTY", fs.rename("a/b/c", "a"));
});

both("rename() of a name onto itself does nothing", async (fs) => {
  await fs.writeFile("file", "contents");
  const before = await fs.stat("file");
  await fs.rename("file", "file");
  const after = await fs.stat("file");
  assertEquals([after.ino, after.ctime], [before.ino, before.ctime]);
});

both("rename() of one link onto another of the same file does nothing", async (fs) => {
  await fs.writeFile("one", "contents");
  await fs.link("one", "two");
  await fs.rename("one", "two");
  assertEquals((await fs.stat("one")).nlink, 2);
  assertEquals((await fs.readdir(".")).map(({ name }) => name).sort(), ["one", "two"]);
});

for (const dots of [".", ".."]) {
  kernel(`rename() of a path that ends in ${dots} is EBUSY`, async (fs) => {
    await fs.mkdir("dir");
    await fs.mkdir("dir/inner");
    await fails(["EBUSY", "EINVAL"], fs.rename(`dir/inner/${dots}`, "other"));
  });
  kernel(`rename() to a path that ends in ${dots} is EBUSY`, async (fs) => {
    await fs.mkdir("dir");
    await fs.mkdir("dir/inner");
    await fails(["EBUSY", "EINVAL"], fs.rename("dir", `dir/inner/${dots}`));
  });
}

both("rename() of a symbolic link moves the link itself", async (fs) => {
  await fs.writeFile("target", "");
  await fs.symlink("target", "link");
  await fs.rename("link", "moved");
  assertEquals(await fs.readlink("moved"), "target");
  assert(await fs.exists("target"));
});

both("rename() onto a symbolic link replaces the link, not its target", async (fs) => {
  await fs.writeFile("target", "stays");
  await fs.symlink("target", "link");
  await fs.writeFile("file", "new");
  await fs.rename("file", "link");
  assertEquals([await fs.readText("target"), await fs.readText("link")], ["stays", "new"]);
});

kernel("an open file that is replaced by rename() stays readable without a link", async (fs) => {
  await fs.writeFile("victim", "victim");
  await fs.writeFile("file", "file");
  const open = await fs.open("victim", O.RDONLY);
  await fs.rename("file", "victim");
  assertEquals(text(await open.read(100)), "victim");
  assertEquals((await open.fstat()).nlink, 0);
});

both("rename() onto one of two links leaves the other with nlink 1", async (fs) => {
  await fs.writeFile("one", "old");
  await fs.link("one", "two");
  await fs.writeFile("file", "new");
  await fs.rename("file", "one");
  assertEquals([(await fs.stat("two")).nlink, await fs.readText("two")], [1, "old"]);
});

both("rename() of a directory to another parent moves a link of each parent", async (fs) => {
  await fs.mkdir("from");
  await fs.mkdir("to");
  await fs.mkdir("from/dir");
  await fs.rename("from/dir", "to/dir");
  assertEquals([(await fs.stat("from")).nlink, (await fs.stat("to")).nlink], [2, 3]);
});

both("rename() onto a directory drops the link of the one replaced", async (fs) => {
  await fs.mkdir("parent");
  await fs.mkdir("parent/from");
  await fs.mkdir("parent/to");
  await fs.rename("parent/from", "parent/to");
  assertEquals((await fs.stat("parent")).nlink, 3);
});

kernel(".. of a moved directory leads to its new parent", async (fs) => {
  await fs.mkdir("from");
  await fs.mkdir("to");
  await fs.mkdir("from/dir");
  await fs.rename("from/dir", "to/dir");
  assertEquals((await fs.stat("to/dir/..")).ino, (await fs.stat("to")).ino);
});

kernel("what is below a moved directory is found by its new path and by its open descriptor", async (fs) => {
  await fs.mkdir("from");
  await fs.mkdir("from/deep");
  await fs.writeFile("from/deep/file", "found");
  const dir = await fs.open("from/deep", O.RDONLY | O.DIRECTORY);
  await fs.rename("from", "to");
  assertEquals(await fs.readText("to/deep/file"), "found");
  const file = await fs.openat(dir.fd, "file", O.RDONLY);
  assertEquals(text(await file.read(10)), "found");
});

both("rename() updates mtime and ctime of both directories", async (fs) => {
  await fs.mkdir("from");
  await fs.mkdir("to");
  await fs.writeFile("from/file", "");
  const before = await Promise.all([fs.stat("from"), fs.stat("to")]);
  await later();
  await fs.rename("from/file", "to/file");
  const after = await Promise.all([fs.stat("from"), fs.stat("to")]);
  for (const [i, dir] of after.entries()) {
    assertGreater(dir.mtime, before[i].mtime);
    assertGreater(dir.ctime, before[i].ctime);
  }
});

both("a rename() that fails changes no time of the directory", async (fs) => {
  await fs.mkdir("dir");
  await fs.mkdir("dir/from");
  await fs.mkdir("dir/to");
  await fs.writeFile("dir/to/file", "");
  const before = await fs.stat("dir");
  await fails("ENOTEMPTY", fs.rename("dir/from", "dir/to"));
  const after = await fs.stat("dir");
  assertEquals([after.mtime, after.ctime], [before.mtime, before.ctime]);
});

both("rename() to a name of 255 bytes works", async (fs) => {
  const name = "n".repeat(nameMax);
  await fs.writeFile("file", "contents");
  await fs.rename("file", name);
  assertEquals(await fs.readText(name), "contents");
});

kernel("rename() of a file to a path with a slash at its end is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", fs.rename("file", "other/"));
});

kernel("rename() of a directory to an absent path with a slash at its end works", async (fs) => {
  await fs.mkdir("dir");
  await fs.rename("dir", "other/");
  assertEquals((await fs.stat("other")).mode & S.IFMT, S.IFDIR);
});

kernel("rename() to another file system is EXDEV", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EXDEV", fs.rename("file", `/dev/sealfs-posix-${fs.pid}`));
  assert(await fs.exists("file"));
});

both(
  "rename() of a directory without write permission to another parent is EACCES, to another name not",
  async (fs) => {
    for (const name of ["from", "to"]) {
      await fs.mkdir(name, 0o755);
      await fs.chown(name, alice.uid, alice.gid);
    }
    await fs.mkdir("from/file");
    await fs.chown("from/file", bob.uid, bob.gid);
    // Its ".." changes, which needs permission to write in it.
    await fails("EACCES", fs.as(alice).rename("from/file", "to/file"));
    await fs.as(alice).rename("from/file", "from/other");
    assert(await fs.exists("from/other"));
  },
);

both("rename() across directories moves many files, each once", async (fs) => {
  await fs.mkdir("from");
  await fs.mkdir("to");
  const names = Array.from({ length: 40 }, (_, i) => `file${i}`);
  await Promise.all(names.map((name) => fs.writeFile(`from/${name}`, name)));
  await Promise.all(names.map((name) => fs.rename(`from/${name}`, `to/${name}`)));
  assertEquals((await fs.readdir("from")).length, 0);
  assertEquals((await fs.readdir("to")).map(({ name }) => name).sort(), names.toSorted());
});

both("a reader finds one file or the other while rename() replaces it again and again", async (fs) => {
  await fs.writeFile("name", "version 0");
  const reader = await fs.elsewhere();
  const write = async () => {
    for (let i = 1; i <= 20; i++) {
      await fs.writeFile("new", `version ${i}`);
      await fs.rename("new", "name");
    }
  };
  let writing = true;
  const written = write().finally(() => writing = false);
  let last = 0;
  while (writing) {
    const text = await reader.readText("name"), version = Number(/^version (\d+)$/.exec(text)?.[1]);
    assert(version >= last, `${text} after version ${last}`);
    last = version;
  }
  await written;
  assertEquals(await reader.readText("name"), "version 20");
});

/** Does `look` again and again until `work` is done. */
async function meanwhile(work: Promise<void>, look: () => Promise<void>): Promise<void> {
  let over = false;
  const looking = async () => {
    while (!over) await look();
  };
  await Promise.all([work.finally(() => over = true), looking()]);
}

both("who lists a directory on another client finds what is renamed in it by one name or the other", async (fs) => {
  const other = await fs.elsewhere(), rounds = 30;
  await fs.mkdir("dir");
  await fs.mkdir("dir/0");
  const renames = async () => {
    for (let i = 0; i < rounds; i++) await fs.rename(`dir/${i % 2}`, `dir/${(i + 1) % 2}`);
  };
  await meanwhile(renames(), async () => assertGreater((await other.readdir("dir")).length, 0));
});

both("who lists the old and then the new directory on another client finds what is renamed", async (fs) => {
  const other = await fs.elsewhere(), rounds = 20;
  await fs.mkdir("from");
  await fs.mkdir("to");
  for (let i = 0; i < rounds; i++) await fs.mkdir(`from/${i}`);
  const renames = async () => {
    for (let i = 0; i < rounds; i++) await fs.rename(`from/${i}`, `to/${i}`);
  };
  await meanwhile(renames(), async () => {
    const entries = [...await other.readdir("from"), ...await other.readdir("to")];
    assertEquals(new Set(entries.map(({ name }) => name)).size, rounds);
  });
});
