/** renameat2(2): RENAME_NOREPLACE and RENAME_EXCHANGE. */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, bob, fails, kernel, later } from "../case.ts";
import { O, RENAME, S } from "../constants.ts";
import { fileTypes, typeBits } from "../kernel.ts";

for (const type of fileTypes) {
  kernel(`RENAME_NOREPLACE onto a ${type} is EEXIST`, async (fs) => {
    await fs.writeFile("file", "stays");
    await fs.make(type, "name");
    await fails("EEXIST", fs.renameat2("file", "name", RENAME.NOREPLACE));
    assertEquals(await fs.readText("file"), "stays");
  });
  kernel(`RENAME_EXCHANGE exchanges a file and a ${type} of another directory`, async (fs) => {
    await fs.mkdir("a");
    await fs.mkdir("b");
    await fs.writeFile("a/one", "file");
    await fs.make(type, "b/two");
    const [one, two] = [await fs.lstat("a/one"), await fs.lstat("b/two")];
    await fs.renameat2("a/one", "b/two", RENAME.EXCHANGE);
    const [now, then] = [await fs.lstat("a/one"), await fs.lstat("b/two")];
    assertEquals([now.ino, now.mode & S.IFMT, then.ino], [two.ino, typeBits[type], one.ino]);
    assertEquals(await fs.readText("b/two"), "file");
  });
}

kernel("RENAME_NOREPLACE to an absent name renames", async (fs) => {
  await fs.writeFile("file", "moved");
  await fs.mkdir("dir");
  await fs.renameat2("file", "dir/other", RENAME.NOREPLACE);
  assertEquals(await fs.readText("dir/other"), "moved");
  assertEquals(await fs.exists("file"), false);
});

kernel("RENAME_NOREPLACE of a name onto itself is EEXIST", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EEXIST", fs.renameat2("file", "file", RENAME.NOREPLACE));
});

kernel("RENAME_EXCHANGE with an absent name is ENOENT, either way", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOENT", fs.renameat2("file", "none", RENAME.EXCHANGE));
  await fails("ENOENT", fs.renameat2("none", "file", RENAME.EXCHANGE));
  assertEquals(await fs.exists("file"), true);
});

kernel("RENAME_EXCHANGE with RENAME_NOREPLACE is EINVAL", async (fs) => {
  await fs.writeFile("one", "");
  await fs.writeFile("two", "");
  await fails("EINVAL", fs.renameat2("one", "two", RENAME.EXCHANGE | RENAME.NOREPLACE));
});

kernel("an unknown flag is EINVAL", async (fs) => {
  await fs.writeFile("one", "");
  await fails("EINVAL", fs.renameat2("one", "two", 0x80));
  assertEquals(await fs.exists("one"), true);
});

kernel("RENAME_EXCHANGE of two names of one directory", async (fs) => {
  await fs.writeFile("one", "1");
  await fs.writeFile("two", "2");
  await fs.renameat2("one", "two", RENAME.EXCHANGE);
  assertEquals([await fs.readText("one"), await fs.readText("two")], ["2", "1"]);
});

kernel("RENAME_EXCHANGE of two non-empty directories exchanges what is in them", async (fs) => {
  for (const name of ["a", "b"]) {
    await fs.mkdir(name);
    await fs.mkdir(`${name}/dir`);
    await fs.writeFile(`${name}/dir/file`, name);
  }
  await fs.renameat2("a/dir", "b/dir", RENAME.EXCHANGE);
  assertEquals([await fs.readText("a/dir/file"), await fs.readText("b/dir/file")], ["b", "a"]);
  assertEquals((await fs.stat("a/dir/..")).ino, (await fs.stat("a")).ino);
  assertEquals([(await fs.stat("a")).nlink, (await fs.stat("b")).nlink], [3, 3]);
});

kernel("RENAME_EXCHANGE of a directory with a file moves a link of the parents", async (fs) => {
  await fs.mkdir("a");
  await fs.mkdir("b");
  await fs.mkdir("a/dir");
  await fs.writeFile("b/file", "");
  await fs.renameat2("a/dir", "b/file", RENAME.EXCHANGE);
  assertEquals([(await fs.stat("a")).nlink, (await fs.stat("b")).nlink], [2, 3]);
});

kernel("RENAME_EXCHANGE of a directory with one below it is EINVAL", async (fs) => {
  await fs.mkdir("a");
  await fs.mkdir("a/b");
  await fs.mkdir("a/b/c");
  await fails("EINVAL", fs.renameat2("a", "a/b/c", RENAME.EXCHANGE));
  await fails("EINVAL", fs.renameat2("a/b/c", "a", RENAME.EXCHANGE));
});

kernel("RENAME_EXCHANGE of two links of one file does nothing", async (fs) => {
  await fs.writeFile("one", "");
  await fs.link("one", "two");
  await fs.renameat2("one", "two", RENAME.EXCHANGE);
  assertEquals((await fs.stat("one")).nlink, 2);
});

kernel("RENAME_EXCHANGE updates ctime of both", async (fs) => {
  await fs.writeFile("one", "");
  await fs.writeFile("two", "");
  const before = await Promise.all([fs.stat("one"), fs.stat("two")]);
  await later();
  await fs.renameat2("one", "two", RENAME.EXCHANGE);
  assertGreater((await fs.stat("two")).ctime, before[0].ctime);
  assertGreater((await fs.stat("one")).ctime, before[1].ctime);
});

kernel("RENAME_EXCHANGE needs permission to write in both directories", async (fs) => {
  await fs.mkdir("open", 0o777);
  await fs.mkdir("closed", 0o755);
  await fs.as(alice).writeFile("open/mine", "");
  await fs.writeFile("closed/roots", "", 0o666);
  await fails("EACCES", fs.as(alice).renameat2("open/mine", "closed/roots", RENAME.EXCHANGE));
  await fails("EACCES", fs.as(bob).renameat2("closed/roots", "open/mine", RENAME.EXCHANGE));
});

kernel("RENAME_EXCHANGE back and forth leaves everything as it was", async (fs) => {
  await fs.mkdir("a");
  await fs.mkdir("b");
  await fs.writeFile("a/x", "x");
  await fs.symlink("target", "b/y");
  for (let i = 0; i < 10; i++) await fs.renameat2("a/x", "b/y", RENAME.EXCHANGE);
  assertEquals([await fs.readText("a/x"), await fs.readlink("b/y")], ["x", "target"]);
});

kernel("open files stay with their contents when their names are exchanged", async (fs) => {
  await fs.writeFile("one", "1");
  await fs.writeFile("two", "2");
  const file = await fs.open("one", O.RDWR);
  await fs.renameat2("one", "two", RENAME.EXCHANGE);
  await file.pwrite("!", 0);
  assertEquals([await fs.readText("one"), await fs.readText("two")], ["2", "!"]);
});

kernel("renameat2() takes paths from directory descriptors", async (fs) => {
  await fs.mkdir("a");
  await fs.mkdir("b");
  await fs.writeFile("a/file", "moved");
  const a = await fs.open("a", O.RDONLY), b = await fs.open("b", O.RDONLY);
  await fs.renameat2("file", "file", 0, [a.fd, b.fd]);
  assertEquals(await fs.readText("b/file"), "moved");
});

kernel("of two clients that rename to one name with RENAME_NOREPLACE at once one is told EEXIST", async (fs) => {
  const other = await fs.elsewhere();
  for (let round = 0; round < 10; round++) {
    await fs.writeFile("one", "");
    await fs.writeFile("two", "");
    const ends = await Promise.allSettled([
      fs.renameat2("one", `name${round}`, RENAME.NOREPLACE),
      other.renameat2("two", `name${round}`, RENAME.NOREPLACE),
    ]);
    assertEquals(ends.filter(({ status }) => status === "fulfilled").length, 1);
    await Promise.allSettled([fs.unlink("one"), fs.unlink("two")]);
  }
});
