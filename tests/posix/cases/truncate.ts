/** truncate(2), ftruncate(2). */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, both, fails, kernel, later, pattern, text } from "../case.ts";
import { O } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

const mebibyte = 1048576;

pathCases({ name: "truncate() of", call: (fs, path) => fs.truncate(path, 1), finds: true, follows: true });

for (const [from, to] of [[10_000, 0], [10_000, 5000], [3 * mebibyte, 100], [3 * mebibyte, mebibyte], [5000, 4096]]) {
  both(`truncate() of ${from} to ${to} bytes keeps the first ${to}`, async (fs) => {
    const data = pattern(from, to + 1);
    await fs.writeFile("file", data);
    await fs.truncate("file", to);
    assertEquals([(await fs.stat("file")).size, await fs.readFile("file")], [to, data.subarray(0, to)]);
  });
}

for (const [from, to] of [[0, 1], [0, 100_000], [100, 4097], [4096, 3 * mebibyte], [mebibyte, 2 * mebibyte]]) {
  both(`truncate() of ${from} to ${to} bytes adds zeros`, async (fs) => {
    const data = pattern(from, to);
    await fs.writeFile("file", data);
    await fs.truncate("file", to);
    const wanted = new Uint8Array(to);
    wanted.set(data);
    assertEquals(await fs.readFile("file"), wanted);
  });
}

for (const cut of [100, 4000, 5000, mebibyte + 17]) {
  both(`what truncate() to ${cut} has cut off is zeros when the file grows again`, async (fs) => {
    await fs.writeFile("file", pattern(2 * mebibyte, 3));
    await fs.truncate("file", cut);
    await fs.truncate("file", 2 * mebibyte);
    const read = await fs.readFile("file");
    assertEquals(read.subarray(0, cut), pattern(2 * mebibyte, 3).subarray(0, cut));
    assertEquals(read.subarray(cut).every((byte) => byte === 0), true);
  });
}

both("a write beyond the end after truncate() leaves zeros where there were bytes", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write(pattern(9000));
  await file.ftruncate(10);
  await file.pwrite("end", 8000);
  const read = await file.pread(9000, 0);
  assertEquals([read.length, read.subarray(10, 8000).every((byte) => byte === 0)], [8003, true]);
});

both("truncate() of one part of a page leaves what is before it for all clients", async (fs) => {
  const other = await fs.elsewhere();
  const file = await fs.open("file", O.RDWR | O.CREAT), reader = await other.open("file", O.RDONLY);
  await file.write("0123456789");
  assertEquals(text(await reader.pread(20, 0)), "0123456789");
  await file.ftruncate(4);
  assertEquals(text(await reader.pread(20, 0)), "0123");
  await file.ftruncate(6);
  assertEquals(text(await reader.pread(20, 0)), "0123\0\0");
});

both("truncate() updates mtime and ctime", async (fs) => {
  await fs.writeFile("file", "contents");
  const before = await fs.stat("file");
  await later();
  await fs.truncate("file", 3);
  const after = await fs.stat("file");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

both("ftruncate() to the size that the file has keeps its contents", async (fs) => {
  await fs.writeFile("file", "contents");
  const file = await fs.open("file", O.RDWR);
  await file.ftruncate(8);
  assertEquals(await fs.readText("file"), "contents");
});

for (const type of fileTypes) {
  if (type === "file" || type === "symlink") continue;
  const code = type === "directory" ? "EISDIR" : "EINVAL";
  kernel(`truncate() of a ${type} is ${code}`, async (fs) => {
    await fs.make(type, "name");
    await fails(code, fs.truncate("name", 0));
  });
}

kernel("truncate() to a negative size is EINVAL", async (fs) => {
  await fs.writeFile("file", "contents");
  await fails("EINVAL", fs.truncate("file", -1));
  assertEquals((await fs.stat("file")).size, 8);
});

kernel("truncate() to the largest size is EFBIG or EINVAL, or done", async (fs) => {
  await fs.writeFile("file", "contents");
  try {
    await fs.truncate("file", 2n ** 63n - 1n);
  } catch (error) {
    if (!/EFBIG|EINVAL/.test(String(error))) throw error;
    assertEquals((await fs.stat("file")).size, 8);
  }
});

both("truncate() of a file that one may not write is EACCES", async (fs) => {
  await fs.writeFile("file", "contents", 0o444);
  await fails("EACCES", fs.as(alice).truncate("file", 0));
  assertEquals(await fs.readText("file"), "contents");
});

both("truncate() follows a symbolic link", async (fs) => {
  await fs.writeFile("file", "contents");
  await fs.symlink("file", "link");
  await fs.truncate("link", 4);
  assertEquals(await fs.readText("file"), "cont");
});

both("ftruncate() of a file that is open for reading only is EINVAL", async (fs) => {
  await fs.writeFile("file", "contents");
  await fails(["EINVAL", "EBADF"], (await fs.open("file", O.RDONLY)).ftruncate(0));
});

kernel("ftruncate() works after the mode forbids writing", async (fs) => {
  await fs.chmod(".", 0o777);
  const file = await fs.as(alice).open("file", O.RDWR | O.CREAT, 0o600);
  await file.write("contents");
  await fs.chmod("file", 0o400);
  await file.ftruncate(3);
  assertEquals((await file.fstat()).size, 3);
});

both("ftruncate() leaves the position", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write("0123456789");
  await file.ftruncate(4);
  await file.write("x");
  assertEquals(await fs.readText("file"), "0123\0\0\0\0\0\0x");
});

both("truncate() frees what it cuts", async (fs) => {
  await fs.writeFile("file", pattern(3 * mebibyte));
  await fs.truncate("file", 0);
  assertEquals((await fs.stat("file")).blocks, 0);
});

both("truncate() to 8 TiB allocates nothing", async (fs) => {
  await fs.writeFile("file", "");
  await fs.truncate("file", 2 ** 43);
  const { size, blocks } = await fs.stat("file");
  assertEquals([size, blocks], [2 ** 43, 0]);
});
