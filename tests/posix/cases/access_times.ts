/** atime: which reads move it (relatime, as Linux mounts without being told otherwise), and what they leave alone. */

import { assert, assertEquals, assertGreater } from "@std/assert";
import { alice, kernel, later } from "../case.ts";
import { O } from "../constants.ts";
import type { Kernel } from "../kernel.ts";

const day = 86_400_000_000_000n, second = 1_000_000_000n;

/** Looks at `path` before and after something is done: atime has moved on, and nothing else has changed. */
async function moves(fs: Kernel, path: string, act: () => Promise<unknown>): Promise<void> {
  await later();
  const before = await fs.lstat(path);
  await act();
  const after = await fs.lstat(path);
  assertGreater(after.atime, before.atime);
  assertEquals([after.mtime, after.ctime, after.btime], [before.mtime, before.ctime, before.btime]);
}

/** As {@linkcode moves}: nothing has changed. */
async function stays(fs: Kernel, path: string, act: () => Promise<unknown>): Promise<void> {
  await later();
  const before = await fs.lstat(path);
  await act();
  assertEquals(await fs.lstat(path), before);
}

kernel("the first read() after a write moves the atime, the next one does not", async (fs) => {
  await fs.writeFile("file", "text");
  await moves(fs, "file", () => fs.readFile("file"));
  await stays(fs, "file", () => fs.readFile("file"));
  await later();
  await fs.writeFile("file", "more");
  await moves(fs, "file", () => fs.readFile("file"));
});

kernel("a read() after a change of the mode moves the atime", async (fs) => {
  await fs.writeFile("file", "text");
  await fs.readFile("file");
  await later();
  await fs.chmod("file", 0o600);
  await moves(fs, "file", () => fs.readFile("file"));
});

kernel("an atime that is a day old is moved by any read()", async (fs) => {
  await fs.writeFile("file", "text");
  const now = BigInt(Date.now()) * 1_000_000n;
  // ctime is now: a read is due for that alone, once.
  await fs.utimens("file", now - 2n * day, now - 3n * day);
  await moves(fs, "file", () => fs.readFile("file"));
  assertGreater((await fs.stat("file")).atime, now - second);
});

kernel("read() with O_NOATIME does not move the atime", async (fs) => {
  await fs.writeFile("file", "text");
  await stays(fs, "file", async () => {
    const file = await fs.open("file", O.RDONLY | O.NOATIME);
    await file.read(4);
    await file.close();
  });
});

kernel("read() through O_DIRECT and of what lies far behind moves the atime", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.pwrite("end", 5 << 20);
  await moves(fs, "file", async () => {
    const reader = await fs.open("file", O.RDONLY);
    assertEquals((await reader.pread(3, 5 << 20)).length, 3);
  });
});

kernel("stat(), open() and access() do not move the atime", async (fs) => {
  await fs.writeFile("file", "text");
  await stays(fs, "file", async () => {
    await fs.access("file", 4);
    await (await fs.open("file", O.RDWR)).close();
    await fs.stat("file");
  });
});

kernel("write() does not move the atime", async (fs) => {
  await fs.writeFile("file", "text");
  await later();
  const { atime } = await fs.stat("file");
  const file = await fs.open("file", O.WRONLY);
  await file.write("more");
  assertEquals((await fs.stat("file")).atime, atime);
});

kernel("getdents64() moves the atime of a directory once after a change", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  await moves(fs, "dir", () => fs.readdir("dir"));
  await stays(fs, "dir", () => fs.readdir("dir"));
});

kernel("readlink() moves the atime of the link", async (fs) => {
  await fs.symlink("target", "link");
  await moves(fs, "link", () => fs.readlink("link"));
  await stays(fs, "link", () => fs.readlink("link"));
});

kernel("following a symbolic link moves its atime", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await moves(fs, "link", () => fs.stat("link"));
});

kernel("an atime that was set is kept until a read that is due", async (fs) => {
  await fs.writeFile("file", "text");
  await fs.readFile("file");
  await fs.utimens("file", 7n * second, "omit");
  assertEquals((await fs.stat("file")).atime, 7n * second);
  await later();
  await fs.readFile("file");
  assert((await fs.stat("file")).atime > 7n * second);
});

kernel("another client sees an atime that has moved", async (fs) => {
  await fs.writeFile("file", "text");
  const other = await fs.elsewhere(), { atime } = await other.stat("file");
  await later();
  await fs.readFile("file");
  assertGreater((await other.stat("file")).atime, atime);
});

kernel("who may only read a file moves its atime", async (fs) => {
  await fs.writeFile("file", "text");
  await moves(fs, "file", () => fs.as(alice).readFile("file"));
});
