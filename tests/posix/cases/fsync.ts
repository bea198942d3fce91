/** fsync(2), fdatasync(2), sync_file_range(2), syncfs(2). What survives a power cut is shown by the simulator. */

import { assertEquals } from "@std/assert";
import { both, fails, kernel, pattern } from "../case.ts";
import { O } from "../constants.ts";

both("fsync() of a written file leaves its contents", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT), data = pattern(2_500_000);
  await file.write(data);
  await file.fsync();
  assertEquals(await fs.readFile("file"), data);
});

kernel("fsync() of a file that is open for reading only is done", async (fs) => {
  await fs.writeFile("file", "abc");
  await (await fs.open("file", O.RDONLY)).fsync();
});

kernel("fsync() of a directory is done", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  await (await fs.open("dir", O.RDONLY)).fsync();
});

kernel("fdatasync() of a written file is done", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write(pattern(10_000));
  await file.fdatasync();
  assertEquals(await fs.readFile("file"), pattern(10_000));
});

kernel("fsync() of an open file without a name is done", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write("abc");
  await fs.unlink("file");
  await file.fsync();
});

kernel("fsync() of a descriptor of O_PATH is EBADF", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EBADF", (await fs.open("file", O.PATH)).fsync());
});

kernel("fsync() of a fifo is EINVAL", async (fs) => {
  await fs.make("fifo", "fifo");
  await fails("EINVAL", (await fs.open("fifo", O.RDWR)).fsync());
});

kernel("sync_file_range() of a written range is done", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write(pattern(100_000));
  assertEquals((await fs.call("sync_file_range", [file.fd, 4096, 8192, 7])).result, 0);
});

kernel("sync_file_range() with an unknown flag is EINVAL", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await fails("EINVAL", fs.call("sync_file_range", [file.fd, 0, 0, 0x80]));
});

kernel("syncfs() of the file system is done", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write("abc");
  assertEquals((await fs.call("syncfs", [file.fd])).result, 0);
});

both("fsync() changes neither size nor times", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write("abc");
  const before = await file.fstat();
  await file.fsync();
  const after = await file.fstat();
  assertEquals([after.size, after.mtime, after.ctime], [before.size, before.mtime, before.ctime]);
});

both("fsync() by two clients of one file at once is done by both", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", "");
  const files = [await fs.open("file", O.RDWR), await other.open("file", O.RDWR)];
  await Promise.all(files.map(async (file, i) => {
    await file.pwrite(pattern(5000, i), i * 5000);
    await file.fsync();
  }));
  const read = await fs.readFile("file");
  assertEquals([read.subarray(0, 5000), read.subarray(5000)], [pattern(5000, 0), pattern(5000, 1)]);
});
