/** lseek(2), with SEEK_DATA and SEEK_HOLE. */

import { assert, assertEquals } from "@std/assert";
import { both, fails, kernel, pattern, text } from "../case.ts";
import { FALLOC, O, SEEK } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

const mebibyte = 1048576;

both("lseek() from start, position and end", async (fs) => {
  await fs.writeFile("file", "0123456789");
  const file = await fs.open("file", O.RDONLY);
  assertEquals(await file.lseek(4, SEEK.SET), 4);
  assertEquals(await file.lseek(3, SEEK.CUR), 7);
  assertEquals(await file.lseek(-2, SEEK.END), 8);
  assertEquals(text(await file.read(9)), "89");
});

both("lseek() beyond the end leaves the size", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDWR);
  assertEquals(await file.lseek(1000, SEEK.SET), 1000);
  assertEquals([(await file.read(1)).length, (await file.fstat()).size], [0, 3]);
});

both("lseek() before the start is EINVAL and leaves the position", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDONLY);
  await file.lseek(2, SEEK.SET);
  await fails("EINVAL", file.lseek(-3, SEEK.CUR));
  assertEquals(text(await file.read(1)), "c");
});

both("lseek() from the end counts what another client has added", async (fs) => {
  await fs.writeFile("file", "abc");
  const file = await fs.open("file", O.RDONLY);
  const other = await fs.elsewhere();
  await (await other.open("file", O.WRONLY | O.APPEND)).write("de");
  assertEquals(await file.lseek(0, SEEK.END), 5);
});

kernel("lseek() with an unknown whence is EINVAL", async (fs) => {
  await fails("EINVAL", (await fs.open("file", O.RDONLY | O.CREAT)).lseek(0, 99));
});

kernel("lseek() of a fifo is ESPIPE", async (fs) => {
  await fs.make("fifo", "fifo");
  await fails("ESPIPE", (await fs.open("fifo", O.RDWR)).lseek(0, SEEK.SET));
});

kernel("lseek() of a descriptor of O_PATH is EBADF", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EBADF", (await fs.open("file", O.PATH)).lseek(0, SEEK.SET));
});

/** A file with data in the first 64 KiB and in those at 2 MiB, of 4 MiB in all. */
async function sparse(fs: Kernel): Promise<KernelFile> {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.pwrite(pattern(65536), 0);
  await file.pwrite(pattern(65536), 2 * mebibyte);
  await file.ftruncate(4 * mebibyte);
  await file.fsync();
  return file;
}

kernel("SEEK_DATA at data is where it stands", async (fs) => {
  const file = await sparse(fs);
  assertEquals([await file.lseek(0, SEEK.DATA), await file.lseek(100, SEEK.DATA)], [0, 100]);
});

kernel("SEEK_HOLE from data is its end", async (fs) => {
  assertEquals(await (await sparse(fs)).lseek(0, SEEK.HOLE), 65536);
});

kernel("SEEK_DATA from a hole is the next data", async (fs) => {
  assertEquals(await (await sparse(fs)).lseek(100_000, SEEK.DATA), 2 * mebibyte);
});

kernel("SEEK_HOLE in a hole is where it stands", async (fs) => {
  assertEquals(await (await sparse(fs)).lseek(100_000, SEEK.HOLE), 100_000);
});

kernel("SEEK_DATA in the hole at the end is ENXIO", async (fs) => {
  await fails("ENXIO", (await sparse(fs)).lseek(3 * mebibyte, SEEK.DATA));
});

for (const [name, whence] of Object.entries({ SEEK_DATA: SEEK.DATA, SEEK_HOLE: SEEK.HOLE })) {
  kernel(`${name} at the end of a file is ENXIO`, async (fs) => {
    await fails("ENXIO", (await sparse(fs)).lseek(4 * mebibyte, whence));
  });
  kernel(`${name} of an empty file is ENXIO`, async (fs) => {
    await fails("ENXIO", (await fs.open("file", O.RDWR | O.CREAT)).lseek(0, whence));
  });
  kernel(`${name} at a negative offset is ENXIO`, async (fs) => {
    await fails(["ENXIO", "EINVAL"], (await sparse(fs)).lseek(-1, whence));
  });
}

kernel("SEEK_HOLE of a file without holes is its end", async (fs) => {
  await fs.writeFile("file", pattern(3 * mebibyte + 777));
  assertEquals(await (await fs.open("file", O.RDONLY)).lseek(0, SEEK.HOLE), 3 * mebibyte + 777);
});

kernel("SEEK_DATA of a file that is all hole is ENXIO", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.ftruncate(10 * mebibyte);
  await fails("ENXIO", file.lseek(0, SEEK.DATA));
});

kernel("SEEK_HOLE finds what was punched", async (fs) => {
  await fs.writeFile("file", pattern(mebibyte));
  const file = await fs.open("file", O.RDWR);
  await file.fallocate(FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, 262_144, 131_072);
  assertEquals([await file.lseek(0, SEEK.HOLE), await file.lseek(262_144, SEEK.DATA)], [262_144, 393_216]);
});

kernel("walking by SEEK_DATA and SEEK_HOLE finds every part of a file with holes in all its chunks", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  const starts = Array.from({ length: 5 }, (_, i) => i * mebibyte + 131_072);
  for (const at of starts) await file.pwrite(pattern(65536), at);
  await file.fsync();
  const found: number[] = [];
  for (let at = 0; at < 4 * mebibyte + 196_608;) {
    const data = await file.lseek(at, SEEK.DATA);
    found.push(data);
    at = await file.lseek(data, SEEK.HOLE);
    assert(at > data);
  }
  assertEquals(found, starts);
});

kernel("lseek() of a directory back to its start reads it again", async (fs) => {
  await fs.mkdir("dir");
  for (const name of ["a", "b", "c"]) await fs.writeFile(`dir/${name}`, "");
  const dir = await fs.open("dir", O.RDONLY);
  const first = await dir.dirents();
  await dir.lseek(0, SEEK.SET);
  assertEquals(await dir.dirents(), first);
});
