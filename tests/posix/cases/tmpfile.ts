/** open(2) with O_TMPFILE: files that are made without a name, and named later. */

import { assertEquals } from "@std/assert";
import { bob, fails, kernel, later, pattern, staff, text } from "../case.ts";
import { AT, O, S } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

const unnamed = O.TMPFILE | O.RDWR;

function name(fs: Kernel, file: KernelFile, path: string): Promise<void> {
  return fs.linkat(`/proc/self/fd/${file.fd}`, path, AT.SYMLINK_FOLLOW);
}

kernel("open() with O_TMPFILE makes a file without a name", async (fs) => {
  const file = await fs.open(".", unnamed, 0o640), { mode, nlink, size, uid, gid } = await file.fstat();
  assertEquals([mode, nlink, size, uid, gid], [S.IFREG | 0o640, 0, 0, 0, 0]);
  assertEquals(await fs.readdir("."), []);
});

kernel("open() with O_TMPFILE changes nothing of the directory", async (fs) => {
  const { mtime, ctime, nlink } = await fs.stat(".");
  await later();
  await (await fs.open(".", unnamed)).close();
  const now = await fs.stat(".");
  assertEquals([now.mtime, now.ctime, now.nlink], [mtime, ctime, nlink]);
});

kernel("a file without a name is written, read, cut and synced like any other", async (fs) => {
  const file = await fs.open(".", unnamed), data = pattern(3_000_000);
  for (let at = 0; at < data.length;) at += await file.write(data.subarray(at));
  assertEquals(await file.pread(1000, 2_999_500), data.subarray(2_999_500));
  await file.fsync();
  await file.ftruncate(10);
  assertEquals((await file.fstat()).size, 10);
  await file.fchmod(0o600);
  await file.futimens(1n, 2n);
  assertEquals((await file.fstat()).mtime, 2n);
});

kernel("linkat() names a file without a name", async (fs) => {
  const file = await fs.open(".", unnamed);
  await file.write("text");
  await fs.mkdir("dir");
  await name(fs, file, "dir/file");
  assertEquals((await file.fstat()).nlink, 1);
  await file.close();
  assertEquals(await fs.readText("dir/file"), "text");
  await fs.unlink("dir/file");
  assertEquals(await fs.readdir("dir"), []);
});

kernel("another client sees a file that was named, with what was written before", async (fs) => {
  const file = await fs.open(".", unnamed), other = await fs.elsewhere();
  await file.write("text");
  assertEquals(await other.readdir("."), []);
  await name(fs, file, "file");
  assertEquals(await other.readText("file"), "text");
});

kernel("a file without a name gets several", async (fs) => {
  const file = await fs.open(".", unnamed);
  await name(fs, file, "a");
  await name(fs, file, "b");
  assertEquals([(await fs.stat("a")).nlink, (await fs.stat("b")).ino], [2, (await file.fstat()).ino]);
});

kernel("linkat() of a file without a name onto a name that is there is EEXIST", async (fs) => {
  const file = await fs.open(".", unnamed);
  await fs.writeFile("there", "old");
  await fails("EEXIST", name(fs, file, "there"));
  assertEquals([await fs.readText("there"), (await file.fstat()).nlink], ["old", 0]);
  await name(fs, file, "here");
});

kernel("a file that got a name and lost it gets none any more", async (fs) => {
  const file = await fs.open(".", unnamed);
  await file.write("text");
  await name(fs, file, "a");
  await fs.unlink("a");
  await fails("ENOENT", name(fs, file, "b"));
  assertEquals(text(await file.pread(10, 0)), "text");
});

kernel("open() with O_TMPFILE|O_EXCL makes a file that gets no name", async (fs) => {
  const file = await fs.open(".", unnamed | O.EXCL);
  await fails("ENOENT", name(fs, file, "a"));
  assertEquals(await fs.readdir("."), []);
});

kernel("open() with O_TMPFILE for reading only is EINVAL", async (fs) => {
  await fails("EINVAL", fs.open(".", O.TMPFILE | O.RDONLY));
});

kernel("open() with O_TMPFILE of what is no directory is ENOTDIR, of nothing ENOENT", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", fs.open("file", unnamed));
  await fails("ENOENT", fs.open("nothing", unnamed));
});

kernel("open() with O_TMPFILE takes the umask off the mode", async (fs) => {
  const file = await fs.as({ ...bob, uid: 0, gid: 0, umask: 0o27 }).open(".", unnamed, 0o666);
  assertEquals((await file.fstat()).mode, S.IFREG | 0o640);
});

kernel("open() with O_TMPFILE needs permission to write the directory", async (fs) => {
  await fails("EACCES", fs.as(bob).open(".", unnamed));
  await fs.chmod(".", 0o777);
  const file = await fs.as(bob).open(".", unnamed), { uid, gid } = await file.fstat();
  assertEquals([uid, gid], [bob.uid, bob.gid]);
});

kernel("a file without a name has the group of a setgid directory", async (fs) => {
  await fs.mkdir("dir");
  await fs.chown("dir", 0, staff);
  await fs.chmod("dir", 0o2775);
  assertEquals((await (await fs.open("dir", unnamed)).fstat()).gid, staff);
});

kernel("a directory can be removed while a file without a name was made in it", async (fs) => {
  await fs.mkdir("dir");
  const file = await fs.open("dir", unnamed);
  await fs.rmdir("dir");
  await file.write("text");
  await name(fs, file, "kept");
  assertEquals(await fs.readText("kept"), "text");
});

kernel("open() with O_TMPFILE in a directory that was removed is refused", async (fs) => {
  await fs.mkdir("dir");
  const dir = await fs.open("dir", O.RDONLY);
  await fs.rmdir("dir");
  // ext4 says EPERM.
  await fails(["ENOENT", "EPERM"], fs.openat(dir.fd, ".", unnamed));
});
