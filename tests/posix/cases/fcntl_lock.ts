/** Locks of byte ranges by fcntl(2): of processes (F_SETLK) and of open files (F_OFD_SETLK). */

import { assert, assertEquals } from "@std/assert";
import { fails, kernel, later } from "../case.ts";
import { F, O, SEEK } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

const read = F.RDLCK, write = F.WRLCK, none = F.UNLCK;

async function opened(fs: Kernel, size = 100): Promise<KernelFile> {
  if (!await fs.exists("file")) await fs.writeFile("file", "x".repeat(size));
  return await fs.open("file", O.RDWR);
}

for (const where of ["process", "elsewhere"] as const) {
  const who = where === "process" ? "another process" : "another client";
  for (
    const [held, asked, meets] of [[read, read, false], [read, write, true], [write, read, true], [
      write,
      write,
      true,
    ]] as const
  ) {
    const names = ["a shared", "an exclusive"];
    kernel(
      `${names[asked]} lock is ${meets ? "EAGAIN" : "granted"} while ${who} holds ${names[held]} one`,
      async (fs) => {
        const file = await opened(fs), other = await opened(await fs[where]());
        await file.lock(F.SETLK, { type: held, start: 10, length: 10 });
        const lock = other.lock(F.SETLK, { type: asked, start: 15, length: 10 });
        if (meets) await fails(["EAGAIN", "EACCES"], lock);
        else await lock;
      },
    );
  }
  kernel(`F_GETLK tells the lock of ${who} that is in the way`, async (fs) => {
    const file = await opened(fs), second = await fs[where](), other = await opened(second);
    await other.lock(F.SETLK, { type: write, start: 30, length: 5 });
    const found = await file.lock(F.GETLK, { type: read, start: 0, length: 0 });
    assertEquals([found.type, found.start, found.length, found.whence], [write, 30, 5, SEEK.SET]);
    // On another client it may be anybody's; a local file system has no other clients.
    assert(found.pid === second.pid || where === "elsewhere" && found.pid === 0, `pid ${found.pid}`);
  });
  kernel(`one who waits by F_SETLKW gets the lock when ${who} gives it up`, async (fs) => {
    const file = await opened(fs), other = await opened(await fs[where]());
    await file.lock(F.SETLK, { type: write, start: 0, length: 0 });
    let got = false;
    const waiting = other.lock(F.SETLKW, { type: write, start: 5, length: 1 }).then(() => got = true);
    await later();
    await later();
    assertEquals(got, false);
    await file.lock(F.SETLK, { type: none, start: 0, length: 0 });
    await waiting;
  });
  kernel(`one who waits gets the lock when its holder, ${who}, is killed`, async (fs) => {
    const file = await opened(fs), holder = await fs[where]();
    await (await opened(holder)).lock(F.SETLK, { type: write, start: 0, length: 0 });
    const waiting = file.lock(F.SETLKW, { type: write, start: 0, length: 0 });
    await later();
    holder.agent.kill();
    await waiting;
  });
}

kernel("F_GETLK of a range that is free says so", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await other.lock(F.SETLK, { type: write, start: 30, length: 5 });
  assertEquals((await file.lock(F.GETLK, { type: write, start: 0, length: 30 })).type, none);
  assertEquals((await file.lock(F.GETLK, { type: write, start: 35, length: 0 })).type, none);
});

kernel("F_GETLK does not tell a process of its own locks", async (fs) => {
  const file = await opened(fs);
  await file.lock(F.SETLK, { type: write, start: 0, length: 10 });
  assertEquals((await file.lock(F.GETLK, { type: write, start: 0, length: 10 })).type, none);
});

kernel("ranges that only touch do not meet", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 10, length: 10 });
  await other.lock(F.SETLK, { type: write, start: 0, length: 10 });
  await other.lock(F.SETLK, { type: write, start: 20, length: 10 });
});

kernel("a process does not meet its own lock: the newer one replaces the part it covers", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 0, length: 30 });
  await file.lock(F.SETLK, { type: read, start: 10, length: 10 });
  await other.lock(F.SETLK, { type: read, start: 10, length: 10 });
  for (const start of [9, 20]) await fails("EAGAIN", other.lock(F.SETLK, { type: read, start, length: 1 }));
});

kernel("unlocking the middle of a range leaves both its ends", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 0, length: 30 });
  await file.lock(F.SETLK, { type: none, start: 10, length: 10 });
  await other.lock(F.SETLK, { type: write, start: 10, length: 10 });
  for (const start of [0, 9, 20, 29]) await fails("EAGAIN", other.lock(F.SETLK, { type: write, start, length: 1 }));
});

kernel("ranges that touch are one: F_GETLK tells all of it", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 0, length: 10 });
  await file.lock(F.SETLK, { type: write, start: 10, length: 10 });
  const { start, length } = await other.lock(F.GETLK, { type: write, start: 5, length: 1 });
  assertEquals([start, length], [0, 20]);
});

kernel("a lock of length 0 reaches to every later end of the file", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 50, length: 0 });
  await fails("EAGAIN", other.lock(F.SETLK, { type: write, start: 1_000_000_000, length: 1 }));
  await other.lock(F.SETLK, { type: write, start: 0, length: 50 });
});

kernel("a lock beyond the end of the file works", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 5_000_000, length: 10 });
  await fails("EAGAIN", other.lock(F.SETLK, { type: write, start: 5_000_009, length: 1 }));
});

kernel("a negative length locks what is before the start", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 20, length: -10 });
  await fails("EAGAIN", other.lock(F.SETLK, { type: write, start: 19, length: 1 }));
  for (const start of [9, 20]) await other.lock(F.SETLK, { type: write, start, length: 1 });
});

kernel("a range that begins before the file is EINVAL", async (fs) => {
  const file = await opened(fs);
  await fails("EINVAL", file.lock(F.SETLK, { type: write, start: 5, length: -10 }));
  await fails("EINVAL", file.lock(F.SETLK, { type: write, start: -1, length: 1 }));
});

kernel("a lock may start from the position or from the end", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lseek(10, SEEK.SET);
  await file.lock(F.SETLK, { type: write, whence: SEEK.CUR, start: 5, length: 1 });
  await file.lock(F.SETLK, { type: write, whence: SEEK.END, start: -1, length: 1 });
  for (const start of [15, 99]) await fails("EAGAIN", other.lock(F.SETLK, { type: write, start, length: 1 }));
  for (const start of [14, 16, 98, 100]) await other.lock(F.SETLK, { type: write, start, length: 1 });
});

kernel("an exclusive lock of a file that is open for reading only is EBADF", async (fs) => {
  await opened(fs);
  const file = await fs.open("file", O.RDONLY);
  await fails("EBADF", file.lock(F.SETLK, { type: write, start: 0, length: 0 }));
  await file.lock(F.SETLK, { type: read, start: 0, length: 0 });
});

kernel("a shared lock of a file that is open for writing only is EBADF", async (fs) => {
  await opened(fs);
  const file = await fs.open("file", O.WRONLY);
  await fails("EBADF", file.lock(F.SETLK, { type: read, start: 0, length: 0 }));
  await file.lock(F.SETLK, { type: write, start: 0, length: 0 });
});

kernel("an unknown type of lock is EINVAL", async (fs) => {
  await fails("EINVAL", (await opened(fs)).lock(F.SETLK, { type: 9, start: 0, length: 0 }));
});

kernel("a process loses its locks when it closes any descriptor of the file", async (fs) => {
  const file = await opened(fs), second = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 0, length: 0 });
  await second.close();
  await other.lock(F.SETLK, { type: write, start: 0, length: 0 });
});

kernel("closing another file keeps the locks", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await file.lock(F.SETLK, { type: write, start: 0, length: 0 });
  await (await fs.open("second", O.RDWR | O.CREAT)).close();
  await fails("EAGAIN", other.lock(F.SETLK, { type: write, start: 0, length: 0 }));
});

kernel("unlocking what is not locked is done", async (fs) => {
  await (await opened(fs)).lock(F.SETLK, { type: none, start: 0, length: 0 });
});

kernel("a shared lock becomes exclusive when it is alone", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.elsewhere());
  await file.lock(F.SETLK, { type: read, start: 0, length: 10 });
  await file.lock(F.SETLK, { type: write, start: 0, length: 10 });
  await fails("EAGAIN", other.lock(F.SETLK, { type: read, start: 0, length: 1 }));
});

kernel("a shared lock stays shared while another holds one", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.elsewhere());
  await file.lock(F.SETLK, { type: read, start: 0, length: 10 });
  await other.lock(F.SETLK, { type: read, start: 0, length: 10 });
  await fails("EAGAIN", file.lock(F.SETLK, { type: write, start: 0, length: 10 }));
});

/** Each holds byte 0 of a file and waits for the other's: one is told EDEADLK, and then the other gets it. */
async function embrace(one: { has: KernelFile; wants: KernelFile }, two: typeof one, byte: number): Promise<void> {
  await one.has.lock(F.SETLK, { type: write, start: 0, length: 1 });
  await two.has.lock(F.SETLK, { type: write, start: byte, length: 1 });
  const ends = [one.wants.lock(F.SETLKW, { type: write, start: byte, length: 1 })];
  await later();
  ends.push(two.wants.lock(F.SETLKW, { type: write, start: 0, length: 1 }));
  const first = await Promise.race(ends.map(async (end, i) => {
    const [outcome] = await Promise.allSettled([end]);
    return { i, outcome };
  }));
  assert(first.outcome.status === "rejected" && String(first.outcome.reason).includes("EDEADLK"));
  const loser = first.i === 0 ? one : two;
  await loser.has.lock(F.SETLK, { type: none, start: 0, length: 0 });
  await ends[1 - first.i];
}

kernel("two processes that wait for each other: one is told EDEADLK", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await embrace({ has: file, wants: file }, { has: other, wants: other }, 1);
});

for (const where of ["process", "elsewhere"] as const) {
  const who = where === "process" ? "processes" : "clients";
  // Files of folders that lie on different servers: no server sees the circle alone.
  kernel(`two ${who} that wait for each other's files in many folders: one is told EDEADLK`, async (fs) => {
    const other = await fs[where]();
    for (const folder of ["a", "b", "c"]) {
      await fs.mkdir(folder);
      await fs.writeFile(`${folder}/file`, "");
    }
    for (const [here, there] of [["a/file", "b/file"], ["b/file", "c/file"]]) {
      const one = { has: await fs.open(here, O.RDWR), wants: await fs.open(there, O.RDWR) };
      const two = { has: await other.open(there, O.RDWR), wants: await other.open(here, O.RDWR) };
      await embrace(one, two, 0);
      for (const file of [one.has, one.wants, two.has, two.wants]) await file.close();
    }
  });
}

kernel("a lock is seen by every link of the file", async (fs) => {
  const file = await opened(fs);
  await fs.link("file", "link");
  await file.lock(F.SETLK, { type: write, start: 0, length: 0 });
  const other = await (await fs.process()).open("link", O.RDWR);
  await fails("EAGAIN", other.lock(F.SETLK, { type: write, start: 0, length: 0 }));
});

kernel("many small locks of one process can be held and given up together", async (fs) => {
  const file = await opened(fs), other = await opened(await fs.process());
  await Promise.all(Array.from({ length: 50 }, (_, i) => file.lock(F.SETLK, { type: write, start: i * 2, length: 1 })));
  await other.lock(F.SETLK, { type: write, start: 51, length: 1 });
  await fails("EAGAIN", other.lock(F.SETLK, { type: write, start: 50, length: 1 }));
  await file.lock(F.SETLK, { type: none, start: 0, length: 0 });
  await other.lock(F.SETLK, { type: write, start: 0, length: 0 });
});

kernel("two open files of one process exclude each other by F_OFD_SETLK", async (fs) => {
  const one = await opened(fs), two = await opened(fs);
  await one.lock(F.OFD_SETLK, { type: write, start: 0, length: 10 });
  await fails("EAGAIN", two.lock(F.OFD_SETLK, { type: write, start: 5, length: 1 }));
  await two.lock(F.OFD_SETLK, { type: write, start: 10, length: 1 });
});

kernel("open files of two clients exclude each other by F_OFD_SETLK", async (fs) => {
  const one = await opened(fs), two = await opened(await fs.elsewhere());
  await one.lock(F.OFD_SETLK, { type: write, start: 0, length: 10 });
  await fails("EAGAIN", two.lock(F.OFD_SETLK, { type: read, start: 9, length: 1 }));
});

kernel("a lock of an open file goes when that is closed, while others have the file open", async (fs) => {
  const one = await opened(fs), two = await opened(fs), other = await opened(await fs.elsewhere());
  await one.lock(F.OFD_SETLK, { type: write, start: 0, length: 10 });
  await two.lock(F.OFD_SETLK, { type: write, start: 10, length: 10 });
  await two.close();
  // The last close of an open file is told to FUSE a moment after close() has returned.
  await other.lock(F.OFD_SETLKW, { type: write, start: 10, length: 10 });
  await fails("EAGAIN", other.lock(F.OFD_SETLK, { type: write, start: 0, length: 10 }));
});

kernel("a lock of an open file stays when another descriptor of the file is closed", async (fs) => {
  const one = await opened(fs), two = await opened(fs), other = await opened(await fs.elsewhere());
  await one.lock(F.OFD_SETLK, { type: write, start: 0, length: 10 });
  await two.close();
  await fails("EAGAIN", other.lock(F.OFD_SETLK, { type: write, start: 0, length: 10 }));
});

kernel("F_OFD_SETLK and F_SETLK of one process exclude each other", async (fs) => {
  const one = await opened(fs), two = await opened(fs);
  await one.lock(F.OFD_SETLK, { type: write, start: 0, length: 0 });
  await fails("EAGAIN", two.lock(F.SETLK, { type: write, start: 0, length: 0 }));
});

kernel("F_OFD_GETLK tells a lock of an open file with pid -1", async (fs) => {
  const one = await opened(fs), two = await opened(fs);
  await one.lock(F.OFD_SETLK, { type: write, start: 3, length: 4 });
  const found = await two.lock(F.OFD_GETLK, { type: write, start: 0, length: 0 });
  assertEquals([found.type, found.start, found.length, found.pid], [write, 3, 4, -1]);
});
