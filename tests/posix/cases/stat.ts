/** stat(2), lstat(2), fstat(2), statx(2). */

import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertNotEquals } from "@std/assert";
import { both, fails, kernel, later, pattern } from "../case.ts";
import { AT, O, S, STATX, STATX_SYNC } from "../constants.ts";
import { fileTypes, typeBits } from "../kernel.ts";
import { kernelPathCases, pathCases } from "../path_cases.ts";

pathCases({ name: "stat() of", call: (fs, path) => fs.stat(path), finds: true, follows: true });
pathCases({ name: "lstat() of", call: (fs, path) => fs.lstat(path), finds: true });
kernelPathCases({
  name: "newfstatat() of",
  call: (fs, path) => fs.call("newfstatat", [AT.FDCWD, path, { out: 144 }, 0]),
  finds: true,
  follows: true,
});

for (const type of fileTypes) {
  kernel(`lstat() tells that a ${type} is one`, async (fs) => {
    await fs.make(type, "name");
    assertEquals((await fs.lstat("name")).mode & S.IFMT, typeBits[type]);
  });
}

both("inodes of different files differ", async (fs) => {
  await fs.writeFile("one", "");
  await fs.writeFile("two", "");
  await fs.mkdir("dir");
  const inodes = await Promise.all(["one", "two", "dir"].map(async (name) => (await fs.stat(name)).ino));
  assertEquals(new Set(inodes).size, 3);
});

both("a file's inode is the same on every client", async (fs) => {
  await fs.writeFile("file", "");
  assertEquals((await (await fs.elsewhere()).stat("file")).ino, (await fs.stat("file")).ino);
});

kernel("fstat() and stat() tell the same", async (fs) => {
  await fs.writeFile("file", pattern(5000));
  const file = await fs.open("file", O.RDONLY);
  assertEquals(await file.fstat(), await fs.stat("file"));
});

kernel("newfstatat() tells what statx() tells", async (fs) => {
  await fs.writeFile("file", pattern(5000), 0o642);
  const { out } = await fs.call("newfstatat", [AT.FDCWD, "file", { out: 144 }, 0]);
  // struct stat: ino 8, nlink 16, mode 24, size 48, blocks 64, mtime 88.
  const view = new DataView(out[0].buffer, out[0].byteOffset), long = (at: number) => view.getBigInt64(at, true);
  const told = await fs.stat("file");
  assertEquals(
    [Number(long(8)), Number(long(16)), view.getUint32(24, true), Number(long(48)), Number(long(64))],
    [told.ino, told.nlink, told.mode, told.size, told.blocks],
  );
  assertEquals(long(88) * 1_000_000_000n + long(96), told.mtime);
});

kernel("files of one file system have one device number", async (fs) => {
  await fs.writeFile("file", "");
  await fs.mkdir("dir");
  const [file, dir] = [await fs.stat("file"), await fs.stat("dir")];
  assertEquals([file.devMajor, file.devMinor], [dir.devMajor, dir.devMinor]);
});

both("the times of a new file are the present, and all the same", async (fs) => {
  const from = BigInt(Date.now() - 2000) * 1_000_000n;
  await fs.open("file", O.WRONLY | O.CREAT);
  const { atime, mtime, ctime } = await fs.stat("file");
  assertGreater(mtime, from);
  assertEquals([atime, ctime], [mtime, mtime]);
});

both("a file's birth time stays while it is written, renamed and linked", async (fs) => {
  await fs.writeFile("file", "");
  const { btime, mtime } = await fs.stat("file");
  assert(btime <= mtime);
  await later();
  await fs.writeFile("file", "new");
  await fs.rename("file", "other");
  await fs.link("other", "third");
  assertEquals((await fs.stat("third")).btime, btime);
});

both("the birth time of a new file under an old name is its own", async (fs) => {
  await fs.writeFile("file", "");
  const { btime } = await fs.stat("file");
  await fs.unlink("file");
  await later();
  await fs.writeFile("file", "");
  assertGreater((await fs.stat("file")).btime, btime);
});

kernel("statx() tells the birth time when it is asked for", async (fs) => {
  await fs.writeFile("file", "");
  const { mask, btime } = await fs.statx(AT.FDCWD, "file", 0, STATX.ALL);
  assertEquals(mask & STATX.BTIME, STATX.BTIME);
  assertGreater(btime, 0n);
});

kernel("statx() fills in all that stat() tells", async (fs) => {
  await fs.writeFile("file", "");
  const { mask } = await fs.statx(AT.FDCWD, "file", 0, STATX.BASIC);
  assertEquals(mask & STATX.BASIC, STATX.BASIC);
});

for (const [name, flag] of Object.entries(STATX_SYNC)) {
  kernel(`statx() with the sync flag ${name} tells the attributes`, async (fs) => {
    await fs.writeFile("file", "12345");
    assertEquals((await fs.statx(AT.FDCWD, "file", flag, STATX.BASIC)).size, 5);
  });
}

kernel("statx() with both sync flags is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", fs.statx(AT.FDCWD, "file", STATX_SYNC.FORCE | STATX_SYNC.DONT, STATX.BASIC));
});

kernel("statx() with the reserved bit of its mask is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", fs.statx(AT.FDCWD, "file", 0, 0x80000000));
});

kernel("statx() starts at its directory descriptor", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "123");
  const dir = await fs.open("dir", O.RDONLY);
  assertEquals((await fs.statx(dir.fd, "file", 0, STATX.BASIC)).size, 3);
});

kernel("blksize is a power of two", async (fs) => {
  await fs.writeFile("file", "");
  const { blksize } = await fs.stat("file");
  assertGreaterOrEqual(blksize, 512);
  assertEquals(blksize & (blksize - 1), 0);
});

both("stat() of .. of a directory is its parent", async (fs) => {
  await fs.mkdir("dir");
  await fs.mkdir("dir/inner");
  assertEquals((await fs.stat("dir/inner/..")).ino, (await fs.stat("dir")).ino);
  assertEquals((await fs.stat("dir/.")).ino, (await fs.stat("dir")).ino);
});

both("a directory has two links and one more for each directory in it, wherever those are stored", async (fs) => {
  await fs.mkdir("dir");
  await Promise.all(Array.from({ length: 20 }, (_, i) => fs.mkdir(`dir/sub${i}`)));
  await fs.writeFile("dir/file", "");
  assertEquals((await fs.stat("dir")).nlink, 22);
  await Promise.all(Array.from({ length: 10 }, (_, i) => fs.rmdir(`dir/sub${i}`)));
  assertEquals((await fs.stat("dir")).nlink, 12);
});

both("mtime of a file grows with every write", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  let last = 0n;
  for (let i = 0; i < 5; i++) {
    await file.pwrite(`${i}`, i);
    await later();
    const { mtime } = await fs.stat("file");
    assertGreater(mtime, last);
    last = mtime;
  }
});

kernel("an inode number is not given to a new file while the old one is open", async (fs) => {
  const old = await fs.open("old", O.RDWR | O.CREAT);
  const { ino } = await old.fstat();
  await fs.unlink("old");
  for (let i = 0; i < 10; i++) {
    await fs.writeFile(`new${i}`, "");
    assertNotEquals((await fs.stat(`new${i}`)).ino, ino);
  }
});
