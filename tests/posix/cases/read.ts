/** read(2), pread(2), readv(2), preadv(2). */

import { assertEquals } from "@std/assert";
import { both, fails, kernel, pattern, text } from "../case.ts";
import { O, SEEK } from "../constants.ts";

/** Sizes around the limits of what is stored where: inline, page, chunk. */
const sizes = [0, 1, 4095, 4096, 4097, 65536, 1048575, 1048576, 1048577, 2097155];

for (const size of sizes) {
  both(`a file of ${size} bytes is read as it was written`, async (fs) => {
    const data = pattern(size, size);
    await fs.writeFile("file", data);
    assertEquals((await fs.stat("file")).size, size);
    assertEquals(await fs.readFile("file"), data);
  });
}

both("read() goes on where the last one ended", async (fs) => {
  await fs.writeFile("file", "abcdefghij");
  const file = await fs.open("file", O.RDONLY);
  assertEquals([text(await file.read(3)), text(await file.read(4)), text(await file.read(9))], ["abc", "defg", "hij"]);
});

both("read() at the end of a file is empty, also a second time", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDONLY);
  await file.read(3);
  assertEquals([(await file.read(1)).length, (await file.read(1)).length], [0, 0]);
});

both("read() beyond the end finds what was added meanwhile", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDONLY);
  assertEquals((await file.read(10)).length, 3);
  const other = await fs.elsewhere();
  await (await other.open("file", O.WRONLY | O.APPEND)).write("def");
  assertEquals(text(await file.read(10)), "def");
});

both("pread() leaves the position", async (fs) => {
  await fs.writeFile("file", "abcdef");
  const file = await fs.open("file", O.RDONLY);
  assertEquals(text(await file.pread(2, 3)), "de");
  assertEquals(text(await file.read(2)), "ab");
});

both("pread() across the end of a file is short", async (fs) => {
  await fs.writeFile("file", "abcdef");
  const file = await fs.open("file", O.RDONLY);
  assertEquals(text(await file.pread(100, 4)), "ef");
  assertEquals((await file.pread(100, 6)).length, 0);
  assertEquals((await file.pread(100, 1_000_000)).length, 0);
});

kernel("pread() at a negative offset is EINVAL", async (fs) => {
  await fs.writeFile("file", "abc");
  await fails("EINVAL", (await fs.open("file", O.RDONLY)).pread(1, -1));
});

kernel("pread() at the largest offset is empty", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDONLY);
  assertEquals((await file.pread(1, 2n ** 62n)).length, 0);
});

kernel("read() of no bytes is nothing", async (fs) => {
  await fs.writeFile("file", "abc");
  assertEquals((await (await fs.open("file", O.RDONLY)).read(0)).length, 0);
});

kernel("read() of a directory is EISDIR", async (fs) => {
  await fs.mkdir("dir");
  await fails("EISDIR", (await fs.open("dir", O.RDONLY)).read(10));
});

kernel("read() into memory that is not there is EFAULT", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDONLY);
  await fails("EFAULT", fs.call("read", [file.fd, 1, 3]));
});

both("what was never written between two writes is zeros", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write("start");
  await file.pwrite("end", 100_000);
  const middle = await file.pread(99_995, 5);
  assertEquals([middle.length, middle.every((byte) => byte === 0)], [99_995, true]);
});

both("a hole of whole chunks is zeros", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.pwrite("x", 5 * 1048576);
  const hole = await file.pread(1048576, 2 * 1048576 + 17);
  assertEquals([hole.length, hole.every((byte) => byte === 0)], [1048576, true]);
});

both("one read() may cross several chunks", async (fs) => {
  const data = pattern(3 * 1048576 + 99, 7);
  await fs.writeFile("file", data);
  const file = await fs.open("file", O.RDONLY);
  assertEquals(await file.pread(2 * 1048576 + 50, 524_321), data.subarray(524_321, 524_321 + 2 * 1048576 + 50));
});

kernel("readv() fills its buffers in turn", async (fs) => {
  await fs.writeFile("file", "abcdefghij");
  const file = await fs.open("file", O.RDONLY);
  assertEquals((await file.readv([2, 5, 9])).map(text), ["ab", "cdefg", "hij"]);
});

kernel("preadv() reads at an offset and leaves the position", async (fs) => {
  await fs.writeFile("file", "abcdefghij");
  const file = await fs.open("file", O.RDONLY);
  assertEquals((await file.readv([2, 3], 4)).map(text), ["ef", "ghi"]);
  assertEquals(await file.lseek(0, SEEK.CUR), 0);
});

kernel("readv() with more than 1024 buffers is EINVAL", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDONLY);
  await fails("EINVAL", file.readv(new Array(1025).fill(1)));
});

kernel("preadv2() with an unknown flag is EOPNOTSUPP", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDONLY);
  await fails("EOPNOTSUPP", file.readv([1], 0, 0x40000000));
});

kernel("pread() of a fifo is ESPIPE", async (fs) => {
  await fs.make("fifo", "fifo");
  await fails("ESPIPE", (await fs.open("fifo", O.RDWR)).pread(1, 0));
});

kernel("O_DIRECT reads aligned blocks", async (fs) => {
  const data = pattern(16384, 3);
  await fs.writeFile("file", data);
  const file = await fs.open("file", O.RDONLY | O.DIRECT);
  const map = await (await fs.memfd()).mmapOf(16384);
  const { result } = await fs.call("pread64", [file.fd, map.address, 8192, 4096]);
  assertEquals(result, 8192);
  assertEquals(await map.get(0, 8192), data.subarray(4096, 12288));
});

both("another client reads what was written as soon as write() has returned", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  const other = await fs.elsewhere(), reader = await other.open("file", O.RDONLY);
  for (let i = 0; i < 10; i++) {
    await file.pwrite(`round ${i}`, 0);
    assertEquals(text(await reader.pread(7, 0)), `round ${i}`);
  }
});
