/** link(2) and linkat(2). */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, both, fails, kernel, later, text } from "../case.ts";
import { AT, nameMax, O } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

pathCases({ name: "link() of", call: (fs, path) => fs.link(path, "other"), finds: true });
pathCases({
  name: "link() to",
  prepare: async (fs) => {
    await fs.writeFile("source", "");
    await fs.chown("source", alice.uid, alice.gid);
  },
  call: (fs, path) => fs.link("source", path),
  changesDirectory: true,
});

both("link() gives a file a second name", async (fs) => {
  await fs.writeFile("one", "contents");
  await fs.link("one", "two");
  const one = await fs.stat("one"), two = await fs.stat("two");
  assertEquals([two.ino, one.nlink, two.nlink], [one.ino, 2, 2]);
  assertEquals(await fs.readText("two"), "contents");
});

for (const type of fileTypes) {
  kernel(`link() onto a ${type} is EEXIST`, async (fs) => {
    await fs.writeFile("file", "");
    await fs.make(type, "name");
    await fails("EEXIST", fs.link("file", "name"));
    assertEquals((await fs.stat("file")).nlink, 1);
  });
  if (type === "directory") continue;
  kernel(`link() of a ${type} works`, async (fs) => {
    await fs.make(type, "one");
    await fs.link("one", "two");
    const one = await fs.lstat("one"), two = await fs.lstat("two");
    assertEquals([two.ino, two.mode, two.nlink], [one.ino, one.mode, 2]);
  });
}

both("link() of a directory is EPERM", async (fs) => {
  await fs.mkdir("dir");
  await fails("EPERM", fs.link("dir", "other"));
  assertEquals((await fs.stat("dir")).nlink, 2);
});

both("what is written by one name is read by the other", async (fs) => {
  await fs.writeFile("one", "");
  await fs.mkdir("dir");
  await fs.link("one", "dir/two");
  await fs.writeFile("dir/two", "by two");
  assertEquals(await fs.readText("one"), "by two");
});

both("a mode or owner that is set by one name is seen by the other", async (fs) => {
  await fs.writeFile("one", "");
  await fs.mkdir("dir");
  await fs.link("one", "dir/two");
  await fs.chown("one", 1, 2);
  await fs.chmod("dir/two", 0o612);
  const { uid, gid, mode } = await fs.stat("one");
  assertEquals([uid, gid, mode & 0o7777], [1, 2, 0o612]);
});

both("link() updates ctime of the file, not its mtime", async (fs) => {
  await fs.writeFile("one", "");
  const before = await fs.stat("one");
  await later();
  await fs.link("one", "two");
  const after = await fs.stat("one");
  assertGreater(after.ctime, before.ctime);
  assertEquals(after.mtime, before.mtime);
});

both("link() updates mtime and ctime of the directory", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("one", "");
  const before = await fs.stat("dir");
  await later();
  await fs.link("one", "dir/two");
  const after = await fs.stat("dir");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

both("a link() that fails changes neither ctime nor nlink", async (fs) => {
  await fs.writeFile("one", "");
  await fs.writeFile("two", "");
  const before = await fs.stat("one");
  await fails("EEXIST", fs.link("one", "two"));
  const after = await fs.stat("one");
  assertEquals([after.ctime, after.nlink], [before.ctime, 1]);
});

both("a file can have 100 names in 10 directories", async (fs) => {
  await fs.writeFile("file", "shared");
  for (let dir = 0; dir < 10; dir++) {
    await fs.mkdir(`dir${dir}`);
    await Promise.all(Array.from({ length: 10 }, (_, i) => fs.link("file", `dir${dir}/name${i}`)));
  }
  assertEquals((await fs.stat("file")).nlink, 101);
  assertEquals(await fs.readText("dir7/name3"), "shared");
});

both("the last of several names keeps the file when the first is removed", async (fs) => {
  await fs.writeFile("one", "contents");
  await fs.mkdir("dir");
  await fs.link("one", "dir/two");
  await fs.unlink("one");
  assertEquals([(await fs.stat("dir/two")).nlink, await fs.readText("dir/two")], [1, "contents"]);
});

both("link() to a name of 255 bytes works", async (fs) => {
  await fs.writeFile("file", "contents");
  await fs.link("file", "n".repeat(nameMax));
  assertEquals(await fs.readText("n".repeat(nameMax)), "contents");
});

both("link() of a symbolic link links the link itself", async (fs) => {
  await fs.writeFile("target", "");
  await fs.symlink("target", "link");
  await fs.link("link", "other");
  assertEquals([await fs.readlink("other"), (await fs.stat("target")).nlink], ["target", 1]);
});

kernel("linkat() with AT_SYMLINK_FOLLOW links the target of a symbolic link", async (fs) => {
  await fs.writeFile("target", "");
  await fs.symlink("target", "link");
  await fs.linkat("link", "other", AT.SYMLINK_FOLLOW);
  assertEquals((await fs.lstat("other")).ino, (await fs.stat("target")).ino);
});

kernel("linkat() with AT_EMPTY_PATH links an open file", async (fs) => {
  await fs.writeFile("file", "contents");
  const file = await fs.open("file", O.RDONLY);
  await fs.linkat("", "other", AT.EMPTY_PATH, [file.fd, AT.FDCWD]);
  assertEquals(await fs.readText("other"), "contents");
});

kernel("linkat() of an open file without a name is ENOENT", async (fs) => {
  await fs.writeFile("file", "contents");
  const file = await fs.open("file", O.RDONLY);
  await fs.unlink("file");
  await fails("ENOENT", fs.linkat("", "other", AT.EMPTY_PATH, [file.fd, AT.FDCWD]));
});

kernel("linkat() with an unknown flag is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", fs.linkat("file", "other", 0x10000));
});

kernel("linkat() takes paths from directory descriptors", async (fs) => {
  await fs.mkdir("from");
  await fs.mkdir("to");
  await fs.writeFile("from/file", "contents");
  const from = await fs.open("from", O.RDONLY), to = await fs.open("to", O.RDONLY);
  await fs.linkat("file", "link", 0, [from.fd, to.fd]);
  assertEquals(await fs.readText("to/link"), "contents");
});

kernel("link() to another file system is EXDEV", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EXDEV", fs.link("file", `/dev/sealfs-posix-${fs.pid}`));
});

kernel("link() to a path with a slash at its end is ENOENT", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOENT", fs.link("file", "other/"));
});

kernel("link() of a file with a slash at the end of its path is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", fs.link("file/", "other"));
});

both("of two clients that link the same name at once one is told EEXIST", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", "");
  await fs.mkdir("dir");
  for (let round = 0; round < 10; round++) {
    const ends = await Promise.allSettled([fs.link("file", `dir/${round}`), other.link("file", `dir/${round}`)]);
    assertEquals(ends.filter(({ status }) => status === "fulfilled").length, 1);
  }
  assertEquals((await fs.stat("file")).nlink, 11);
});

kernel("an open file keeps its number of links while names come and go", async (fs) => {
  await fs.writeFile("one", "contents");
  const file = await fs.open("one", O.RDONLY);
  await fs.link("one", "two");
  assertEquals((await file.fstat()).nlink, 2);
  await fs.unlink("one");
  await fs.unlink("two");
  assertEquals([(await file.fstat()).nlink, text(await file.read(10))], [0, "contents"]);
});
