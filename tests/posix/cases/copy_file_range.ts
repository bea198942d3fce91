/** copy_file_range(2), sendfile(2), splice(2). */

import { assertEquals, assertGreater } from "@std/assert";
import { fails, kernel, later, pattern, text } from "../case.ts";
import { O, SEEK } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

const mebibyte = 1048576;

async function pair(fs: Kernel, size: number): Promise<[KernelFile, KernelFile]> {
  await fs.writeFile("from", pattern(size));
  return [await fs.open("from", O.RDONLY), await fs.open("to", O.RDWR | O.CREAT)];
}

/** Copies until all is there: a call may do less. */
async function copyAll(
  from: KernelFile,
  to: KernelFile,
  at: { from: number; to: number; length: number },
): Promise<void> {
  for (let done = 0; done < at.length;) {
    const count = await from.copyTo(to, { from: at.from + done, to: at.to + done, length: at.length - done });
    if (count === 0) throw new Error(`nothing was copied after ${done} bytes`);
    done += count;
  }
}

for (const size of [1, 4096, 100_000, 3 * mebibyte + 5]) {
  kernel(`copy_file_range() copies a file of ${size} bytes`, async (fs) => {
    const [from, to] = await pair(fs, size);
    await copyAll(from, to, { from: 0, to: 0, length: size });
    assertEquals(await fs.readFile("to"), pattern(size));
    assertEquals(await (await fs.elsewhere()).readFile("to"), pattern(size));
  });
}

for (
  const [fromOffset, toOffset, length] of [[100, 0, 500], [0, 5000, 2000], [1000, mebibyte - 300, 9000], [
    mebibyte - 1,
    7,
    2 * mebibyte,
  ]]
) {
  kernel(`copy_file_range() copies ${length} bytes from ${fromOffset} to ${toOffset} and nothing else`, async (fs) => {
    const [from, to] = await pair(fs, 3 * mebibyte + 10_000);
    const wanted = new Uint8Array(Math.max(10_000, toOffset + length));
    wanted.set(pattern(10_000, 5));
    await to.write(pattern(10_000, 5));
    await copyAll(from, to, { from: fromOffset, to: toOffset, length });
    wanted.set(pattern(3 * mebibyte + 10_000).subarray(fromOffset, fromOffset + length), toOffset);
    assertEquals(await fs.readFile("to"), wanted);
  });
}

kernel("copy_file_range() by positions moves both", async (fs) => {
  const [from, to] = await pair(fs, 1000);
  await from.lseek(100, SEEK.SET);
  assertEquals(await from.copyTo(to, { from: null, to: null, length: 300 }), 300);
  assertEquals([await from.lseek(0, SEEK.CUR), await to.lseek(0, SEEK.CUR)], [400, 300]);
  assertEquals(await fs.readFile("to"), pattern(1000).subarray(100, 400));
});

kernel("copy_file_range() by offsets leaves the positions", async (fs) => {
  const [from, to] = await pair(fs, 1000);
  await from.copyTo(to, { from: 10, to: 20, length: 30 });
  assertEquals([await from.lseek(0, SEEK.CUR), await to.lseek(0, SEEK.CUR)], [0, 0]);
});

kernel("copy_file_range() stops at the end of its source", async (fs) => {
  const [from, to] = await pair(fs, 1000);
  assertEquals(await from.copyTo(to, { from: 900, to: 0, length: 5000 }), 100);
  assertEquals((await to.fstat()).size, 100);
});

kernel("copy_file_range() from the end of its source copies nothing", async (fs) => {
  const [from, to] = await pair(fs, 1000);
  assertEquals(await from.copyTo(to, { from: 1000, to: 0, length: 100 }), 0);
  assertEquals(await from.copyTo(to, { from: 5000, to: 0, length: 100 }), 0);
  assertEquals((await to.fstat()).size, 0);
});

kernel("copy_file_range() of no bytes is nothing", async (fs) => {
  const [from, to] = await pair(fs, 1000);
  assertEquals(await from.copyTo(to, { from: 0, to: 0, length: 0 }), 0);
});

kernel("copy_file_range() within one file copies ranges that do not overlap", async (fs) => {
  await fs.writeFile("file", pattern(20_000));
  const file = await fs.open("file", O.RDWR), wanted = pattern(20_000);
  await copyAll(file, file, { from: 0, to: 10_000, length: 5000 });
  wanted.set(pattern(20_000).subarray(0, 5000), 10_000);
  assertEquals(await fs.readFile("file"), wanted);
});

kernel("copy_file_range() of ranges of one file that overlap is EINVAL", async (fs) => {
  await fs.writeFile("file", pattern(20_000));
  const file = await fs.open("file", O.RDWR);
  await fails("EINVAL", file.copyTo(file, { from: 0, to: 1000, length: 5000 }));
  assertEquals(await fs.readFile("file"), pattern(20_000));
});

kernel("copy_file_range() keeps holes zeros", async (fs) => {
  const from = await fs.open("from", O.RDWR | O.CREAT), to = await fs.open("to", O.RDWR | O.CREAT);
  await from.pwrite(pattern(100), 2 * mebibyte);
  await to.write(pattern(3 * mebibyte, 8));
  await copyAll(from, to, { from: 0, to: 0, length: 2 * mebibyte + 100 });
  const wanted = pattern(3 * mebibyte, 8).fill(0, 0, 2 * mebibyte);
  wanted.set(pattern(100), 2 * mebibyte);
  assertEquals(await fs.readFile("to"), wanted);
});

kernel("copy_file_range() updates mtime and ctime of its target", async (fs) => {
  const [from, to] = await pair(fs, 1000), before = await to.fstat();
  await later();
  await from.copyTo(to, { from: 0, to: 0, length: 1000 });
  const after = await to.fstat();
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

kernel("copy_file_range() to a file that is open for reading only is EBADF", async (fs) => {
  await pair(fs, 1000);
  const from = await fs.open("from", O.RDONLY), to = await fs.open("to", O.RDONLY);
  await fails("EBADF", from.copyTo(to, { from: 0, to: 0, length: 10 }));
});

kernel("copy_file_range() from a file that is open for writing only is EBADF", async (fs) => {
  const [, to] = await pair(fs, 1000), from = await fs.open("from", O.WRONLY);
  await fails("EBADF", from.copyTo(to, { from: 0, to: 0, length: 10 }));
});

kernel("copy_file_range() to a file with O_APPEND is EBADF", async (fs) => {
  const [from] = await pair(fs, 1000), to = await fs.open("to", O.WRONLY | O.APPEND);
  await fails("EBADF", from.copyTo(to, { from: 0, to: 0, length: 10 }));
});

kernel("copy_file_range() of a directory is EISDIR", async (fs) => {
  const [, to] = await pair(fs, 1000);
  await fs.mkdir("dir");
  await fails("EISDIR", (await fs.open("dir", O.RDONLY)).copyTo(to, { from: 0, to: 0, length: 10 }));
});

kernel("copy_file_range() of a fifo is EINVAL", async (fs) => {
  const [, to] = await pair(fs, 1000);
  await fs.make("fifo", "fifo");
  await fails("EINVAL", (await fs.open("fifo", O.RDWR)).copyTo(to, { from: null, to: null, length: 10 }));
});

kernel("copy_file_range() with a flag is EINVAL", async (fs) => {
  const [from, to] = await pair(fs, 1000);
  await fails("EINVAL", from.copyTo(to, { from: 0, to: 0, length: 10, flags: 1 }));
});

kernel("copy_file_range() at a negative offset is EINVAL", async (fs) => {
  const [from, to] = await pair(fs, 1000);
  await fails(["EINVAL", "EOVERFLOW"], from.copyTo(to, { from: -1, to: 0, length: 10 }));
});

kernel("copy_file_range() copies what another client has just written", async (fs) => {
  const [from, to] = await pair(fs, 1000), other = await fs.elsewhere();
  await (await other.open("from", O.WRONLY)).pwrite("fresh", 0);
  await from.copyTo(to, { from: 0, to: 0, length: 5 });
  assertEquals(await fs.readText("to"), "fresh");
});

kernel("copy_file_range() copies what is still in a mapping", async (fs) => {
  const [, to] = await pair(fs, 8192), from = await fs.open("from", O.RDWR);
  const map = await from.mmap(8192, 3, 1);
  await map.put(100, "mapped");
  await from.copyTo(to, { from: 0, to: 0, length: 8192 });
  assertEquals(text(await to.pread(6, 100)), "mapped");
});

kernel("sendfile() from a file to a file copies", async (fs) => {
  const [from, to] = await pair(fs, 100_000);
  const { result } = await fs.call("sendfile", [to.fd, from.fd, 0, 100_000]);
  assertEquals(result, 100_000);
  assertEquals(await fs.readFile("to"), pattern(100_000));
});

kernel("splice() from a file into a fifo carries its bytes", async (fs) => {
  const [from] = await pair(fs, 4096);
  await fs.make("fifo", "fifo");
  const reader = await fs.open("fifo", O.RDWR);
  const { result } = await fs.call("splice", [from.fd, 0, reader.fd, 0, 4096, 0]);
  assertEquals(result, 4096);
  assertEquals(await reader.read(4096), pattern(4096));
});

kernel("splice() from a fifo into a file writes its bytes", async (fs) => {
  const [, to] = await pair(fs, 1);
  await fs.make("fifo", "fifo");
  const fifo = await fs.open("fifo", O.RDWR);
  await fifo.write(pattern(5000));
  const { result } = await fs.call("splice", [fifo.fd, 0, to.fd, 0, 5000, 0]);
  assertEquals(await fs.readFile("to"), pattern(5000).subarray(0, result));
});
