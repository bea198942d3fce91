/** ENOSPC: what a full volume refuses, what it never refuses, and that nothing is lost. The control is a tmpfs. */

import { assert, assertEquals, assertLess } from "@std/assert";
import { both, CallError, fails, type Files, kernel, pattern, smallBytes } from "../case.ts";
import { FALLOC, O } from "../constants.ts";
import type { Kernel } from "../kernel.ts";

const pieceBytes = 262_144;
/** Time that the space of removed files may take to come back. */
const freeTimeoutMs = 20_000, pollMs = 50;

let turn: Promise<unknown> = Promise.resolve();

/** Gives a case the small volume, empty, for itself. */
function alone<F extends Files>(run: (fs: F) => Promise<void>): (fs: F) => Promise<void> {
  return async (fs) => {
    const before = turn, done = Promise.withResolvers<void>();
    turn = done.promise;
    await before;
    const small = await fs.small() as F;
    try {
      await run(small);
    } finally {
      for (const { name } of await small.readdir(".")) {
        if (name !== "lost+found") await small.unlink(name).catch(() => small.rmdir(name));
      }
      done.resolve();
    }
  };
}

async function available(fs: Files, atLeast: number): Promise<void> {
  const limit = performance.now() + freeTimeoutMs;
  while ((await fs.statfs(".")).availableBytes < atLeast) {
    assert(performance.now() < limit, "the space did not come back");
    await new Promise((done) => setTimeout(done, pollMs));
  }
}

/** Fills the volume by a file; how many bytes went into it. */
async function fill(fs: Files, name: string): Promise<number> {
  await available(fs, smallBytes * 0.8);
  const file = await fs.open(name, O.WRONLY | O.CREAT), piece = pattern(pieceBytes, 5);
  let size = 0, step = pieceBytes;
  while (step >= 4096) {
    try {
      size += await file.pwrite(piece.subarray(0, step), size);
      await file.fsync();
    } catch (error) {
      if (!(error instanceof CallError) || error.code !== "ENOSPC") throw error;
      step /= 2;
    }
  }
  await file.close();
  return size;
}

both(
  "a volume takes about its size, then a write is ENOSPC",
  alone(async (fs) => {
    const size = await fill(fs, "file");
    assert(size > smallBytes / 2 && size <= smallBytes, `${size} bytes`);
    const file = await fs.open("file", O.WRONLY);
    await fails("ENOSPC", file.pwrite(pattern(pieceBytes), size));
  }),
);

both(
  "what was written before a volume was full is read back",
  alone(async (fs) => {
    const size = await fill(fs, "file"), file = await fs.open("file", O.RDONLY), piece = pattern(pieceBytes, 5);
    for (let at = 0; at + pieceBytes <= size - pieceBytes; at += pieceBytes) {
      assertEquals(await file.pread(pieceBytes, at), piece);
    }
  }),
);

both(
  "statfs() of a full volume tells that little is left",
  alone(async (fs) => {
    await fill(fs, "file");
    assertLess((await fs.statfs(".")).availableBytes, smallBytes / 8);
  }),
);

both(
  "unlink() works in a full volume and gives the space back",
  alone(async (fs) => {
    await fill(fs, "file");
    await fs.unlink("file");
    await available(fs, smallBytes * 0.8);
    await fill(fs, "another");
  }),
);

both(
  "truncate() to nothing works in a full volume and gives the space back",
  alone(async (fs) => {
    await fill(fs, "file");
    await fs.truncate("file", 0);
    await available(fs, smallBytes * 0.8);
  }),
);

both(
  "rename() works in a full volume",
  alone(async (fs) => {
    await fill(fs, "file");
    await fs.rename("file", "moved");
    assertEquals((await fs.readdir(".")).map(({ name }) => name).filter((name) => name !== "lost+found"), ["moved"]);
  }),
);

both(
  "chmod() and utimensat() work in a full volume",
  alone(async (fs) => {
    await fill(fs, "file");
    await fs.chmod("file", 0o600);
    await fs.utimens("file", 0n, 0n);
    const { mode, mtime } = await fs.stat("file");
    assertEquals([mode & 0o777, mtime], [0o600, 0n]);
  }),
);

both(
  "a file may grow by a hole in a full volume",
  alone(async (fs) => {
    const size = await fill(fs, "file");
    await fs.truncate("file", size + 100 * smallBytes);
    assertEquals((await fs.stat("file")).size, size + 100 * smallBytes);
  }),
);

both(
  "an append that finds no space leaves the file as it was, or longer by what it says",
  alone(async (fs) => {
    await fill(fs, "file");
    const { size } = await fs.stat("file"), file = await fs.open("file", O.WRONLY | O.APPEND);
    let added = 0;
    try {
      added = await file.write(pattern(8 * pieceBytes));
    } catch (error) {
      assert(error instanceof CallError && error.code === "ENOSPC", String(error));
    }
    assertEquals((await file.fstat()).size, size + added);
    assertLess(added, 8 * pieceBytes);
  }),
);

both(
  "overwriting works in a full volume",
  alone(async (fs) => {
    await fill(fs, "file");
    const file = await fs.open("file", O.RDWR), fresh = pattern(pieceBytes, 77);
    assertEquals(await file.pwrite(fresh, 5000), pieceBytes);
    await file.fsync();
    assertEquals(await file.pread(pieceBytes, 5000), fresh);
  }),
);

kernel(
  "what fallocate() gave to a file can be written in a full volume",
  alone(async (fs: Kernel) => {
    await available(fs, smallBytes * 0.8);
    const file = await fs.open("room", O.RDWR | O.CREAT), data = pattern(3 * 1048576, 9);
    await file.fallocate(FALLOC.KEEP_SIZE, 1000, data.length);
    await fill(fs, "file");
    assertEquals(await file.pwrite(data, 1000), data.length);
    await file.fsync();
    assertEquals(await file.pread(data.length, 1000), data);
  }),
);

kernel(
  "fallocate() of more than there is is ENOSPC and leaves the size",
  alone(async (fs: Kernel) => {
    await available(fs, smallBytes * 0.8);
    const file = await fs.open("file", O.RDWR | O.CREAT);
    await fails("ENOSPC", file.fallocate(0, 0, 4 * smallBytes));
    assertEquals((await file.fstat()).size, 0);
  }),
);

kernel(
  "punching a hole works in a full volume and gives the space back",
  alone(async (fs: Kernel) => {
    const size = await fill(fs, "file"), file = await fs.open("file", O.RDWR);
    await file.fallocate(FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, 0, size);
    await available(fs, smallBytes * 0.8);
  }),
);

kernel("rename() and link() between volumes are EXDEV", async (fs) => {
  await fs.writeFile("file", "");
  const small = await fs.small(), path = `${small.folder}moved-by-${fs.name}`;
  await fails("EXDEV", fs.rename("file", path));
  await fails("EXDEV", fs.link("file", path));
});
