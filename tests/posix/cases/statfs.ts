/** statfs(2), fstatfs(2). */

import { assert, assertEquals, assertGreater } from "@std/assert";
import { both, kernel, pattern } from "../case.ts";
import { nameMax, O } from "../constants.ts";
import { kernelPathCases } from "../path_cases.ts";

kernelPathCases({ name: "statfs() of", call: (fs, path) => fs.statfs(path), finds: true, follows: true });

both("statfs() tells a size, and no more space than that", async (fs) => {
  const { sizeBytes, availableBytes, inodes, inodesFree } = await fs.statfs(".");
  assertGreater(sizeBytes, 0);
  assert(availableBytes <= sizeBytes);
  assertGreater(inodesFree, 0);
  assert(inodes >= 0);
});

kernel("statfs() tells names of 255 bytes and a block size", async (fs) => {
  const { nameBytesMax, blockBytes } = await fs.statfs(".");
  assertEquals(nameBytesMax, nameMax);
  assertEquals(blockBytes & (blockBytes - 1), 0);
});

both("statfs() tells what a large file takes, and what its end gives back", async (fs) => {
  // Other cases take and give back space meanwhile, but not as much.
  const size = 24 * 1048576;
  const before = await fs.statfs(".");
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  for (let at = 0; at < size; at += 1048576) await file.pwrite(pattern(1048576, at), at);
  await file.fsync();
  const full = await fs.statfs(".");
  assert(
    before.availableBytes - full.availableBytes >= size / 2,
    `${before.availableBytes - full.availableBytes} bytes`,
  );
  await file.close();
  await fs.unlink("file");
  for (let round = 0; round < 200; round++) {
    const { availableBytes } = await fs.statfs(".");
    if (availableBytes - full.availableBytes >= size / 2) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error("the space was not given back");
});

kernel("statfs() of a file and of its directory tell the same file system", async (fs) => {
  await fs.writeFile("file", "");
  const [file, dir] = [await fs.statfs("file"), await fs.statfs(".")];
  assertEquals([file.type, file.sizeBytes], [dir.type, dir.sizeBytes]);
});

kernel("fstatfs() tells what statfs() tells", async (fs) => {
  await fs.writeFile("file", "");
  const file = await fs.open("file", O.RDONLY);
  const { out } = await fs.call("fstatfs", [file.fd, { out: 120 }]);
  const view = new DataView(out[0].buffer, out[0].byteOffset), { sizeBytes } = await fs.statfs("file");
  assertEquals(Number(view.getBigInt64(16, true)) * Number(view.getBigInt64(8, true)), sizeBytes);
});
