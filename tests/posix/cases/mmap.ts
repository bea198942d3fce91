/** mmap(2) of files. */

import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { fails, kernel, later, pattern, text } from "../case.ts";
import { MAP, MS, O, PROT } from "../constants.ts";
import { sharedMap } from "../kernel.ts";

const page = 4096;

kernel("a mapping shows what was written to the file", async (fs) => {
  await fs.writeFile("file", pattern(10_000));
  const map = await (await fs.open("file", O.RDONLY)).mmap(10_000, PROT.READ, MAP.SHARED);
  assertEquals(await map.get(0, 10_000), pattern(10_000));
});

kernel("what is behind the end of a file in its last page is zeros", async (fs) => {
  await fs.writeFile("file", "abc");
  const map = await (await fs.open("file", O.RDONLY)).mmap(page, PROT.READ, MAP.SHARED);
  const bytes = await map.get(0, page);
  assertEquals([text(bytes.subarray(0, 3)), bytes.subarray(3).every((byte) => byte === 0)], ["abc", true]);
});

kernel("what is put into a shared mapping is in the file after msync()", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const map = await (await fs.open("file", O.RDWR)).mmap(page, ...sharedMap);
  await map.put(3, "abc");
  await map.msync(MS.SYNC);
  assertEquals(await fs.readText("file"), "012abc6789");
});

kernel("what is put into a shared mapping is seen by another client after msync()", async (fs) => {
  await fs.writeFile("file", pattern(3 * page));
  const other = await fs.elsewhere();
  await other.readFile("file");
  const map = await (await fs.open("file", O.RDWR)).mmap(3 * page, ...sharedMap);
  await map.put(page + 1, "mapped");
  await map.msync(MS.SYNC);
  assertEquals(text((await other.readFile("file")).subarray(page + 1, page + 7)), "mapped");
});

kernel("what is put into a shared mapping is in the file after munmap() and close()", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const file = await fs.open("file", O.RDWR), map = await file.mmap(page, ...sharedMap);
  await map.put(0, "xyz");
  await map.munmap();
  await file.close();
  assertEquals(await (await fs.elsewhere()).readText("file"), "xyz3456789");
});

kernel("a mapping stays good after its descriptor is closed", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const file = await fs.open("file", O.RDWR), map = await file.mmap(page, ...sharedMap);
  await file.close();
  await map.put(0, "ABC");
  await map.msync(MS.SYNC);
  assertEquals([text(await map.get(0, 4)), await fs.readText("file")], ["ABC3", "ABC3456789"]);
});

kernel("what is put behind the end of a file does not extend it", async (fs) => {
  await fs.writeFile("file", "abc");
  const map = await (await fs.open("file", O.RDWR)).mmap(page, ...sharedMap);
  await map.put(100, "lost");
  await map.msync(MS.SYNC);
  assertEquals([(await fs.stat("file")).size, await fs.readText("file")], [3, "abc"]);
});

kernel("what was put behind the end of a file is no part of it when it grows", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write("abc");
  const map = await file.mmap(page, ...sharedMap);
  await map.put(100, "lost");
  await map.munmap();
  await file.ftruncate(200);
  assertEquals((await file.pread(200, 0)).subarray(3).every((byte) => byte === 0), true);
});

kernel("a private mapping keeps what is put into it to itself", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const map = await (await fs.open("file", O.RDONLY)).mmap(page, PROT.READ | PROT.WRITE, MAP.PRIVATE);
  await map.put(0, "mine");
  assertEquals([text(await map.get(0, 6)), await fs.readText("file")], ["mine45", "0123456789"]);
});

kernel("write() is seen in a shared mapping of the same client at once", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const file = await fs.open("file", O.RDWR), map = await file.mmap(page, PROT.READ, MAP.SHARED);
  assertEquals(text(await map.get(0, 3)), "012");
  await file.pwrite("abc", 0);
  assertEquals(text(await map.get(0, 3)), "abc");
});

kernel("what is put into a shared mapping is seen by read() of the same client at once", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const file = await fs.open("file", O.RDWR), map = await file.mmap(page, ...sharedMap);
  await map.put(5, "now");
  assertEquals(text(await file.pread(10, 0)), "01234now89");
});

kernel("two processes see each other's shared mapping at once", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const other = await fs.process();
  const one = await (await fs.open("file", O.RDWR)).mmap(page, ...sharedMap);
  const two = await (await other.open("file", O.RDWR)).mmap(page, ...sharedMap);
  await one.put(0, "one");
  assertEquals(text(await two.get(0, 3)), "one");
  await two.put(3, "two");
  assertEquals(text(await one.get(0, 6)), "onetwo");
});

kernel("a mapping at an offset shows the file from there", async (fs) => {
  await fs.writeFile("file", pattern(5 * page));
  const map = await (await fs.open("file", O.RDONLY)).mmap(page, PROT.READ, MAP.SHARED, 3 * page);
  assertEquals(await map.get(0, page), pattern(5 * page).subarray(3 * page, 4 * page));
});

kernel("a mapping across chunks is written and read", async (fs) => {
  const size = 2 * 1048576 + page, data = pattern(8000, 7);
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.ftruncate(size);
  const map = await file.mmap(size, ...sharedMap);
  for (const at of [0, 1048576 - 4000, 2 * 1048576 - 4000]) await map.put(at, data);
  await map.msync(MS.SYNC);
  const read = await (await fs.elsewhere()).readFile("file");
  for (const at of [0, 1048576 - 4000, 2 * 1048576 - 4000]) assertEquals(read.subarray(at, at + 8000), data);
});

kernel("a mapping of a hole can be filled", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.ftruncate(10 * page);
  const map = await file.mmap(10 * page, ...sharedMap);
  assertEquals((await map.get(0, 10 * page)).every((byte) => byte === 0), true);
  await map.put(5 * page, "filled");
  await map.msync(MS.SYNC);
  assertEquals(text(await file.pread(6, 5 * page)), "filled");
});

kernel("touching a page behind the end of a file ends the process by SIGBUS", async (fs) => {
  await fs.writeFile("file", "abc");
  const victim = await fs.process();
  const map = await (await victim.open("file", O.RDONLY)).mmap(2 * page, PROT.READ, MAP.SHARED);
  await assertRejects(() => map.get(page, 1), Error, "SIGBUS");
});

kernel("touching what truncate() has cut off ends the process by SIGBUS", async (fs) => {
  await fs.writeFile("file", pattern(3 * page));
  const victim = await fs.process();
  const map = await (await victim.open("file", O.RDONLY)).mmap(3 * page, PROT.READ, MAP.SHARED);
  await map.get(2 * page, 1);
  await fs.truncate("file", page);
  await assertRejects(() => map.get(2 * page, 1), Error, "SIGBUS");
});

kernel("a shared writable mapping of a file open for reading only is EACCES", async (fs) => {
  await fs.writeFile("file", "abc");
  await fails("EACCES", (await fs.open("file", O.RDONLY)).mmap(page, ...sharedMap));
});

kernel("a mapping of a file open for writing only is EACCES", async (fs) => {
  await fs.writeFile("file", "abc");
  await fails("EACCES", (await fs.open("file", O.WRONLY)).mmap(page, PROT.READ, MAP.SHARED));
});

kernel("a mapping of a directory is ENODEV", async (fs) => {
  await fs.mkdir("dir");
  await fails("ENODEV", (await fs.open("dir", O.RDONLY)).mmap(page, PROT.READ, MAP.SHARED));
});

kernel("a mapping of no bytes is EINVAL", async (fs) => {
  await fs.writeFile("file", "abc");
  await fails("EINVAL", (await fs.open("file", O.RDONLY)).mmap(0, PROT.READ, MAP.SHARED));
});

kernel("a mapping at an offset inside a page is EINVAL", async (fs) => {
  await fs.writeFile("file", pattern(2 * page));
  await fails("EINVAL", (await fs.open("file", O.RDONLY)).mmap(page, PROT.READ, MAP.SHARED, 100));
});

kernel("a mapped file can be unlinked and is still there in memory", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const map = await (await fs.open("file", O.RDWR)).mmap(page, ...sharedMap);
  await fs.unlink("file");
  await map.put(0, "gone");
  assertEquals(text(await map.get(0, 6)), "gone45");
});

kernel("msync() updates mtime and ctime of what was put into a mapping", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const map = await (await fs.open("file", O.RDWR)).mmap(page, ...sharedMap);
  const before = await fs.stat("file");
  await later();
  await map.put(0, "new");
  await map.msync(MS.SYNC);
  const after = await fs.stat("file");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

kernel("msync() of what is not mapped is ENOMEM", async (fs) => {
  await fs.writeFile("file", "abc");
  const map = await (await fs.open("file", O.RDWR)).mmap(page, ...sharedMap);
  await map.munmap();
  await fails("ENOMEM", map.msync(MS.SYNC));
});

kernel("msync() with MS_SYNC and MS_ASYNC is EINVAL", async (fs) => {
  await fs.writeFile("file", "abc");
  const map = await (await fs.open("file", O.RDWR)).mmap(page, ...sharedMap);
  await fails("EINVAL", map.msync(MS.SYNC | MS.ASYNC));
});

kernel("fsync() writes back what was put into a mapping", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const file = await fs.open("file", O.RDWR), map = await file.mmap(page, ...sharedMap);
  await map.put(0, "abc");
  await file.fsync();
  assertEquals(await (await fs.elsewhere()).readText("file"), "abc3456789");
});

kernel("read() from a mapping of the same file copies it", async (fs) => {
  await fs.writeFile("file", pattern(page));
  const file = await fs.open("file", O.RDWR), map = await file.mmap(page, ...sharedMap);
  const { result } = await fs.call("pwrite64", [file.fd, map.address, page, page]);
  assertEquals(result, page);
  const read = await fs.readFile("file");
  assertEquals(read.subarray(page), pattern(page));
  assert(read.length === 2 * page);
});

kernel("a file opened with O_DIRECT can be mapped and written", async (fs) => {
  await fs.writeFile("file", pattern(page));
  const file = await fs.open("file", O.RDWR | O.DIRECT), map = await file.mmap(page, ...sharedMap);
  await map.put(0, "direct");
  await map.msync(MS.SYNC);
  assertEquals(text((await fs.readFile("file")).subarray(0, 6)), "direct");
});
