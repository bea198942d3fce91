/** fallocate(2): allocation, holes, zeros. */

import { assert, assertEquals, assertGreater } from "@std/assert";
import { fails, kernel, later, pattern } from "../case.ts";
import { FALLOC, O, SEEK } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

const mebibyte = 1048576;
const punch = FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE;

async function filled(fs: Kernel, size: number): Promise<KernelFile> {
  await fs.writeFile("file", pattern(size));
  return await fs.open("file", O.RDWR);
}

for (const [offset, length] of [[0, 1], [0, 100_000], [5000, 5000], [2 * mebibyte, mebibyte]]) {
  kernel(`fallocate() of ${length} bytes at ${offset} extends a file with zeros`, async (fs) => {
    const file = await filled(fs, 3000);
    await file.fallocate(0, offset, length);
    const size = Math.max(3000, offset + length), wanted = new Uint8Array(size);
    wanted.set(pattern(3000));
    assertEquals((await file.fstat()).size, size);
    assertEquals(await fs.readFile("file"), wanted);
  });
}

for (const [offset, length] of [[0, 5000], [5000, 100_000], [mebibyte - 100, 2 * mebibyte]]) {
  kernel(`fallocate() of ${length} bytes at ${offset} takes the space and makes no data`, async (fs) => {
    const file = await fs.open("file", O.RDWR | O.CREAT), end = offset + length;
    await file.fallocate(FALLOC.KEEP_SIZE, offset, length);
    const blocks = Math.ceil(end / 4096) - Math.floor(offset / 4096);
    assertEquals((await file.fstat()).blocks, blocks * 8);
    await file.fallocate(0, offset, length);
    assertEquals((await file.fstat()).blocks, blocks * 8);
    await fails("ENXIO", file.lseek(0, SEEK.DATA));
    await file.pwrite(pattern(length), offset);
    assertEquals((await file.fstat()).blocks, blocks * 8);
  });
}

kernel("FALLOC_FL_ZERO_RANGE keeps the space, a hole gives it back", async (fs) => {
  const file = await filled(fs, 100_000), { blocks } = await file.fstat();
  await file.fallocate(FALLOC.ZERO_RANGE, 4096, 40_960);
  assertEquals((await file.fstat()).blocks, blocks);
  await file.fallocate(punch, 4096, 40_960);
  assertEquals((await file.fstat()).blocks, blocks - 80);
});

kernel("fallocate() inside a file leaves its contents and size", async (fs) => {
  const file = await filled(fs, 10_000);
  await file.fallocate(0, 1000, 3000);
  assertEquals(await fs.readFile("file"), pattern(10_000));
});

kernel("fallocate() with FALLOC_FL_KEEP_SIZE leaves the size", async (fs) => {
  const file = await filled(fs, 3000);
  await file.fallocate(FALLOC.KEEP_SIZE, 0, 100_000);
  assertEquals((await file.fstat()).size, 3000);
});

for (
  const [size, offset, length] of [
    [3000, 100, 200],
    [3000, 0, 3000],
    [20_000, 4096, 8192],
    [20_000, 100, 15_000],
    [3 * mebibyte, 1000, 2 * mebibyte],
    [3 * mebibyte, mebibyte, mebibyte],
  ]
) {
  kernel(`a hole of ${length} bytes at ${offset} in a file of ${size} is zeros, the rest stays`, async (fs) => {
    const file = await filled(fs, size), wanted = pattern(size);
    await file.fallocate(punch, offset, length);
    wanted.fill(0, offset, offset + length);
    assertEquals(await file.pread(size + 1, 0), wanted);
    assertEquals(await (await fs.elsewhere()).readFile("file"), wanted);
  });
  kernel(
    `FALLOC_FL_ZERO_RANGE of ${length} bytes at ${offset} in a file of ${size} is zeros, the rest stays`,
    async (fs) => {
      const file = await filled(fs, size), wanted = pattern(size);
      await file.fallocate(FALLOC.ZERO_RANGE, offset, length);
      wanted.fill(0, offset, offset + length);
      assertEquals(await fs.readFile("file"), wanted);
    },
  );
}

kernel("a hole beyond the end leaves the size", async (fs) => {
  const file = await filled(fs, 3000);
  await file.fallocate(punch, 2000, 100_000);
  const wanted = pattern(3000).fill(0, 2000);
  assertEquals(await fs.readFile("file"), wanted);
});

kernel("a hole gives back its blocks", async (fs) => {
  const file = await filled(fs, 3 * mebibyte);
  await file.fsync();
  const before = await file.fstat();
  await file.fallocate(punch, mebibyte, mebibyte);
  await file.fsync();
  const { blocks, size } = await file.fstat();
  assertEquals(size, 3 * mebibyte);
  assert(blocks <= before.blocks - mebibyte / 512, `${blocks} of ${before.blocks}`);
});

kernel("FALLOC_FL_ZERO_RANGE beyond the end extends the file", async (fs) => {
  const file = await filled(fs, 3000);
  await file.fallocate(FALLOC.ZERO_RANGE, 2000, 8000);
  const wanted = new Uint8Array(10_000);
  wanted.set(pattern(3000).subarray(0, 2000));
  assertEquals(await fs.readFile("file"), wanted);
});

kernel("FALLOC_FL_ZERO_RANGE with FALLOC_FL_KEEP_SIZE leaves the size", async (fs) => {
  const file = await filled(fs, 3000);
  await file.fallocate(FALLOC.ZERO_RANGE | FALLOC.KEEP_SIZE, 2000, 8000);
  assertEquals(await fs.readFile("file"), pattern(3000).fill(0, 2000));
});

kernel("a write into a hole fills it", async (fs) => {
  const file = await filled(fs, 2 * mebibyte), wanted = pattern(2 * mebibyte);
  await file.fallocate(punch, 100_000, mebibyte);
  await file.pwrite(pattern(5000, 9), 500_000);
  wanted.fill(0, 100_000, 100_000 + mebibyte).set(pattern(5000, 9), 500_000);
  assertEquals(await fs.readFile("file"), wanted);
});

for (const [name, mode] of Object.entries({ "": 0, " of a hole": punch })) {
  kernel(`fallocate()${name} updates mtime and ctime`, async (fs) => {
    const file = await filled(fs, 10_000), before = await file.fstat();
    await later();
    await file.fallocate(mode, 0, 20_000);
    const after = await file.fstat();
    assertGreater(after.mtime, before.mtime);
    assertGreater(after.ctime, before.ctime);
  });
  kernel(`fallocate()${name} of no bytes is EINVAL`, async (fs) => {
    await fails("EINVAL", (await filled(fs, 100)).fallocate(mode, 0, 0));
  });
  kernel(`fallocate()${name} at a negative offset is EINVAL`, async (fs) => {
    await fails("EINVAL", (await filled(fs, 100)).fallocate(mode, -1, 10));
  });
  kernel(`fallocate()${name} of a negative length is EINVAL`, async (fs) => {
    await fails("EINVAL", (await filled(fs, 100)).fallocate(mode, 0, -1));
  });
  kernel(`fallocate()${name} of a file that is open for reading only is EBADF`, async (fs) => {
    await fs.writeFile("file", "abc");
    await fails("EBADF", (await fs.open("file", O.RDONLY)).fallocate(mode, 0, 10));
  });
}

kernel("fallocate() beyond the largest size is EFBIG", async (fs) => {
  await fails("EFBIG", (await filled(fs, 100)).fallocate(0, 2n ** 63n - 2n, 10));
});

kernel("FALLOC_FL_PUNCH_HOLE without FALLOC_FL_KEEP_SIZE is EOPNOTSUPP", async (fs) => {
  await fails(["EOPNOTSUPP", "EINVAL"], (await filled(fs, 100)).fallocate(FALLOC.PUNCH_HOLE, 0, 10));
});

kernel("an unknown mode is EOPNOTSUPP", async (fs) => {
  await fails(["EOPNOTSUPP", "EINVAL"], (await filled(fs, 100)).fallocate(0x8000, 0, 10));
});

kernel("fallocate() of a directory is EBADF", async (fs) => {
  await fs.mkdir("dir");
  await fails(["EBADF", "EISDIR"], (await fs.open("dir", O.RDONLY)).fallocate(0, 0, 10));
});

kernel("fallocate() of a fifo is ESPIPE", async (fs) => {
  await fs.make("fifo", "fifo");
  await fails("ESPIPE", (await fs.open("fifo", O.RDWR)).fallocate(0, 0, 10));
});

kernel("fallocate() of an open file without a name works", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await fs.unlink("file");
  await file.fallocate(0, 0, 10_000);
  assertEquals((await file.fstat()).size, 10_000);
});
