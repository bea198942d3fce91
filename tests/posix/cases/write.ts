/** write(2), pwrite(2), writev(2), pwritev(2). What it does to setuid and setgid is in set_id.ts. */

import { assertEquals, assertGreater, assertGreaterOrEqual, assertRejects } from "@std/assert";
import { both, fails, kernel, later, pattern, text } from "../case.ts";
import { O, RLIMIT_FSIZE, RWF, SEEK } from "../constants.ts";

const mebibyte = 1048576;

both("write() replaces bytes in the middle and leaves the rest", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const file = await fs.open("file", O.WRONLY);
  await file.pwrite("abc", 4);
  assertEquals(await fs.readText("file"), "0123abc789");
});

for (const at of [4096, 65536, mebibyte, 3 * mebibyte]) {
  both(`a write across byte ${at} is read back, with what is around it`, async (fs) => {
    const data = pattern(at + 5000, at);
    await fs.writeFile("file", data);
    const file = await fs.open("file", O.RDWR);
    await file.pwrite(pattern(200, 99), at - 100);
    data.set(pattern(200, 99), at - 100);
    assertEquals(await fs.readFile("file"), data);
  });
}

both("a write beyond the end extends the file", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  await file.pwrite("x", 12_345);
  assertEquals((await fs.stat("file")).size, 12_346);
});

both("a write inside a file leaves its size", async (fs) => {
  await fs.writeFile("file", pattern(10_000));
  const file = await fs.open("file", O.WRONLY);
  await file.pwrite("x", 0);
  assertEquals((await file.fstat()).size, 10_000);
});

both("write() goes on where the last one ended", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  await file.write("abc");
  await file.write("def");
  assertEquals(await fs.readText("file"), "abcdef");
});

both("write() after a seek beyond the end leaves zeros between", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  await file.write("a");
  await file.lseek(4, SEEK.CUR);
  await file.write("b");
  assertEquals(await fs.readText("file"), "a\0\0\0\0b");
});

both("write() updates mtime and ctime", async (fs) => {
  await fs.writeFile("file", "abc");
  const before = await fs.stat("file");
  await later();
  const file = await fs.open("file", O.WRONLY);
  await file.write("x");
  await file.close();
  const after = await fs.stat("file");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

kernel("write() of no bytes changes neither size nor times", async (fs) => {
  await fs.writeFile("file", "abc");
  const before = await fs.stat("file");
  await later();
  const file = await fs.open("file", O.WRONLY);
  assertEquals(await file.write(""), 0);
  assertEquals(await file.pwrite("", 100), 0);
  const after = await fs.stat("file");
  assertEquals([after.size, after.mtime, after.ctime], [3, before.mtime, before.ctime]);
});

kernel("pwrite() leaves the position", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.pwrite("abcdef", 10);
  assertEquals(await file.lseek(0, SEEK.CUR), 0);
});

kernel("pwrite() at a negative offset is EINVAL", async (fs) => {
  await fails("EINVAL", (await fs.open("file", O.WRONLY | O.CREAT)).pwrite("x", -1));
});

kernel("a write that ends beyond the largest offset is EFBIG or EINVAL and leaves the file", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  await fails(["EFBIG", "EINVAL"], file.pwrite("xx", 2n ** 63n - 1n));
  assertEquals((await file.fstat()).size, 0);
});

kernel("write() from memory that is not there is EFAULT and leaves the file", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  await fails("EFAULT", fs.call("write", [file.fd, 1, 100]));
  assertEquals((await file.fstat()).size, 0);
});

kernel("writev() writes its buffers in turn", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  assertEquals(await file.writev(["ab", "cdefg", "", "h"]), 8);
  assertEquals(await fs.readText("file"), "abcdefgh");
});

kernel("pwritev() writes at an offset and leaves the position", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const file = await fs.open("file", O.RDWR);
  await file.writev(["a", "bc"], 3);
  assertEquals([await fs.readText("file"), await file.lseek(0, SEEK.CUR)], ["012abc6789", 0]);
});

kernel("pwritev2() with RWF_APPEND writes at the end", async (fs) => {
  await fs.writeFile("file", "0123");
  const file = await fs.open("file", O.RDWR);
  await file.writev(["end"], 1, RWF.APPEND);
  assertEquals(await fs.readText("file"), "0123end");
});

kernel("pwritev2() with RWF_SYNC writes", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  assertEquals(await file.writev(["synced"], 0, RWF.SYNC), 6);
  assertEquals(await fs.readText("file"), "synced");
});

for (const [name, flag] of Object.entries({ O_SYNC: O.SYNC, O_DSYNC: O.DSYNC })) {
  kernel(`a file opened with ${name} is written and read back`, async (fs) => {
    const file = await fs.open("file", O.RDWR | O.CREAT | flag);
    const data = pattern(100_000, 4);
    await file.write(data);
    assertEquals(await file.pread(100_000, 0), data);
  });
}

kernel("O_DIRECT writes aligned blocks that others read", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT | O.DIRECT);
  const map = await (await fs.memfd()).mmapOf(8192), data = pattern(8192, 12);
  await map.put(0, data);
  const { result } = await fs.call("pwrite64", [file.fd, map.address, 8192, 4096]);
  assertEquals(result, 8192);
  const other = await fs.elsewhere();
  assertEquals((await other.readFile("file")).subarray(4096), data);
});

both("blocks of a file count what is allocated, not its holes", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  await file.pwrite(pattern(8192), 64 * mebibyte);
  await file.fsync();
  const { size, blocks } = await fs.stat("file");
  assertEquals(size, 64 * mebibyte + 8192);
  assertGreaterOrEqual(blocks, 16);
  assertEquals(blocks < 2048, true);
});

both("a file of 8 TiB can be made of one byte at its end", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  const at = 2 ** 43 - 1;
  await file.pwrite("z", at);
  assertEquals((await file.fstat()).size, 2 ** 43);
  assertEquals(text(await file.pread(10, at)), "z");
  assertEquals((await file.pread(5, 2 ** 42)).every((byte) => byte === 0), true);
});

const ownLimit = { notOn: { local: "its largest file is another" } };

both("what lies behind 8 TiB is EFBIG and leaves the file", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await fails("EFBIG", file.pwrite("z", 2 ** 43));
  await fails("EFBIG", file.ftruncate(2 ** 43 + 1));
  assertEquals((await file.fstat()).size, 0);
}, ownLimit);

kernel(
  "a write across the process's limit of a file's size is cut short there, one behind it ends by SIGXFSZ",
  async (fs) => {
    const limited = await fs.process(), limit = new Uint8Array(new BigUint64Array([1000n, 1000n]).buffer);
    const file = await limited.open("file", O.RDWR | O.CREAT);
    await limited.call("prlimit64", [0, RLIMIT_FSIZE, limit, 0]);
    assertEquals(await file.pwrite(pattern(1500), 0), 1000);
    await assertRejects(() => file.pwrite("z", 1000), Error, "SIGXFSZ");
    assertEquals(await fs.readFile("file"), pattern(1500).subarray(0, 1000));
  },
);

both("writes of two clients into parts of one file are all kept", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", "");
  const [one, two] = [await fs.open("file", O.WRONLY), await other.open("file", O.WRONLY)];
  const size = 3000, count = 40;
  await Promise.all(Array.from({ length: count }, (_, i) => {
    return (i % 2 === 0 ? one : two).pwrite(pattern(size, i + 1), i * size);
  }));
  const read = await fs.readFile("file");
  for (let i = 0; i < count; i++) assertEquals(read.subarray(i * size, (i + 1) * size), pattern(size, i + 1));
});

both("fstat() tells the new size as soon as write() has returned, on every client", async (fs) => {
  const other = await fs.elsewhere();
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  for (const size of [1, 5000, 70_000, 1_100_000]) {
    await file.pwrite("x", size - 1);
    assertEquals([(await file.fstat()).size, (await other.stat("file")).size], [size, size]);
  }
});

kernel("write() to a fifo without readers is EPIPE", async (fs) => {
  await fs.make("fifo", "fifo");
  const reader = await fs.open("fifo", O.RDONLY | O.NONBLOCK), writer = await fs.open("fifo", O.WRONLY | O.NONBLOCK);
  await reader.close();
  await fails("EPIPE", writer.write("x"));
});
