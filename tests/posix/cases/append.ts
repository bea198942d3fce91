/** O_APPEND. */

import { assertEquals } from "@std/assert";
import { both, kernel, pattern } from "../case.ts";
import { O, SEEK } from "../constants.ts";

both("O_APPEND writes at the end wherever the position is", async (fs) => {
  await fs.writeFile("file", "start");
  const file = await fs.open("file", O.RDWR | O.APPEND);
  await file.lseek(0, SEEK.SET);
  await file.write("+end");
  assertEquals(await fs.readText("file"), "start+end");
});

both("O_APPEND writes at the end that another client has made", async (fs) => {
  const other = await fs.elsewhere();
  const flags = O.WRONLY | O.CREAT | O.APPEND;
  const one = await fs.open("file", flags), two = await other.open("file", flags);
  for (let i = 0; i < 5; i++) {
    await one.write(`a${i}`);
    await two.write(`b${i}`);
  }
  assertEquals(await fs.readText("file"), "a0b0a1b1a2b2a3b3a4b4");
});

both("appends of two clients at once are all kept, each in one piece", async (fs) => {
  const other = await fs.elsewhere();
  const flags = O.WRONLY | O.CREAT | O.APPEND, bytes = 777, count = 30;
  const files = [await fs.open("file", flags), await other.open("file", flags)];
  await Promise.all(files.map(async (file, id) => {
    for (let i = 0; i < count; i++) await file.write(new Uint8Array(bytes).fill(1 + id * count + i));
  }));
  const read = await fs.readFile("file");
  assertEquals(read.length, 2 * count * bytes);
  const seen: number[] = [];
  for (let at = 0; at < read.length; at += bytes) {
    const record = read.subarray(at, at + bytes);
    assertEquals(record.every((byte) => byte === record[0]), true);
    seen.push(record[0]);
  }
  assertEquals(seen.toSorted((a, b) => a - b), Array.from({ length: 2 * count }, (_, i) => i + 1));
});

kernel("the position is behind what was appended", async (fs) => {
  await fs.writeFile("file", "12345");
  const file = await fs.open("file", O.RDWR | O.APPEND);
  await file.write("678");
  assertEquals(await file.lseek(0, SEEK.CUR), 8);
});

kernel("pwrite() to a file with O_APPEND goes to its end, as Linux has it", async (fs) => {
  await fs.writeFile("file", "12345");
  const file = await fs.open("file", O.RDWR | O.APPEND);
  await file.pwrite("end", 0);
  assertEquals(await fs.readText("file"), "12345end");
});

kernel("writev() appends its buffers in one piece", async (fs) => {
  await fs.writeFile("file", "12345");
  const file = await fs.open("file", O.RDWR | O.APPEND);
  await file.writev(["ab", "cd", "ef"]);
  assertEquals(await fs.readText("file"), "12345abcdef");
});

both("an append after truncate() begins at the new end", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT | O.APPEND);
  await file.write("1234567890");
  await fs.truncate("file", 3);
  await file.write("x");
  assertEquals(await fs.readText("file"), "123x");
});

both("appends across the first megabyte are read back", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT | O.APPEND), data = pattern(3 * 500_000, 5);
  for (let at = 0; at < data.length; at += 500_000) await file.write(data.subarray(at, at + 500_000));
  assertEquals(await fs.readFile("file"), data);
});

kernel("a file with O_APPEND can be read from its start", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT | O.APPEND);
  await file.write("contents");
  assertEquals((await file.pread(100, 0)).length, 8);
});

both("ftruncate() of a file with O_APPEND works", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT | O.APPEND);
  await file.write("contents");
  await file.ftruncate(2);
  assertEquals(await fs.readText("file"), "co");
});
