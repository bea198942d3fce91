/** What is left of directories, files and links that have no name any more, for those who still hold them. */

import { assertEquals } from "@std/assert";
import { both, fails, kernel, text } from "../case.ts";
import { AT, O, S, STATX } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

/** A directory that is open and has been removed. */
async function removed(fs: Kernel, by: Kernel = fs): Promise<KernelFile> {
  await fs.mkdir("dir");
  const dir = await fs.open("dir", O.RDONLY | O.DIRECTORY);
  await by.rmdir("dir");
  return dir;
}

kernel("an open directory that was removed is a directory without links", async (fs) => {
  const dir = await removed(fs), { mode, nlink } = await dir.fstat();
  assertEquals([mode & S.IFMT, nlink], [S.IFDIR, 0]);
});

kernel("an open directory that another client removed is a directory without links", async (fs) => {
  const dir = await removed(fs, await fs.elsewhere()), { mode, nlink } = await dir.fstat();
  assertEquals([mode & S.IFMT, nlink], [S.IFDIR, 0]);
});

kernel("nothing can be made or found in an open directory that was removed", async (fs) => {
  for (const by of [fs, await fs.elsewhere()]) {
    const dir = await removed(fs, by);
    await fails("ENOENT", fs.mkdirat(dir.fd, "x"));
    await fails("ENOENT", fs.openat(dir.fd, "x", O.CREAT | O.RDWR));
    await fails("ENOENT", fs.statx(dir.fd, "x", 0, STATX.ALL));
    await dir.close();
  }
});

kernel("a directory that was removed has no entries", async (fs) => {
  for (const by of [fs, await fs.elsewhere()]) {
    const dir = await removed(fs, by);
    await fails("ENOENT", dir.getdents());
    await dir.close();
  }
});

kernel("mode, owner and times of a directory that was removed can be changed", async (fs) => {
  const dir = await removed(fs);
  await dir.fchmod(0o710);
  await dir.fchown(5001, 5002);
  await dir.futimens(5n, 6_000_000_007n);
  const { mode, uid, gid, atime, mtime } = await dir.fstat();
  assertEquals([mode & 0o7777, uid, gid, atime, mtime], [0o710, 5001, 5002, 5n, 6_000_000_007n]);
  await dir.fsync();
});

kernel("a working directory that was removed can be told and left, and nothing is made in it", async (fs) => {
  await fs.mkdir("dir");
  await fs.mkdir("dir/inner");
  await fs.chdir("dir/inner");
  await fs.rmdir("../inner");
  assertEquals((await fs.statx(AT.FDCWD, "", AT.EMPTY_PATH, STATX.ALL)).nlink, 0);
  await fails("ENOENT", fs.getcwd());
  await fails("ENOENT", fs.mkdir("x"));
  await fails("ENOENT", fs.open("x", O.CREAT | O.WRONLY));
  await fs.chdir("..");
  assertEquals(await fs.getcwd(), `${fs.folder}/dir`);
});

for (const [type, make] of [["file", "file"], ["symbolic link", "link"], ["fifo", "fifo"]] as const) {
  kernel(`a ${type} held by O_PATH has no links once it has no name`, async (fs) => {
    if (make === "link") await fs.symlink("target", "name");
    else await fs.mknod("name", make === "file" ? S.IFREG | 0o644 : S.IFIFO | 0o644);
    const held = await fs.open("name", O.PATH | O.NOFOLLOW), before = await held.fstat();
    await fs.unlink("name");
    const { ino, mode, nlink, size } = await held.fstat();
    assertEquals([ino, mode, nlink, size], [before.ino, before.mode, 0, before.size]);
    if (make !== "link") return;
    const { out } = await fs.call("readlinkat", [held.fd, "", { out: 100 }, 100], { trim: true });
    assertEquals(text(out[0]), "target");
  });
}

kernel("what a rename replaces has no links for those who hold it", async (fs) => {
  for (const [make, flags] of [["mkdir", O.DIRECTORY], ["file", O.PATH]] as const) {
    for (const name of ["old", "new"]) await (make === "mkdir" ? fs.mkdir(name) : fs.writeFile(name, ""));
    const held = await fs.open("old", flags);
    await fs.rename("new", "old");
    assertEquals((await held.fstat()).nlink, 0);
    await held.close();
    await (make === "mkdir" ? fs.rmdir("old") : fs.unlink("old"));
  }
});

kernel("a file held by O_PATH keeps the links that are left", async (fs) => {
  await fs.writeFile("a", "");
  await fs.link("a", "b");
  const held = await fs.open("a", O.PATH);
  await fs.unlink("a");
  assertEquals((await held.fstat()).nlink, 1);
});

both("a directory made anew is another one", async (fs) => {
  await fs.mkdir("dir");
  const { ino } = await fs.stat("dir");
  await fs.rmdir("dir");
  await fs.mkdir("dir");
  assertEquals([(await fs.stat("dir")).nlink, (await fs.stat("dir")).ino === ino], [2, false]);
}, { notOn: { local: "ext4 gives inode numbers again" } });
