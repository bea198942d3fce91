/** flock(2). */

import { assertEquals } from "@std/assert";
import { alice, both, fails, kernel, later } from "../case.ts";
import { LOCK, O } from "../constants.ts";

both("a shared lock can be held by many", async (fs) => {
  await fs.writeFile("file", "");
  const others = [await fs.process(), await fs.elsewhere()];
  for (const one of [fs, ...others]) await (await one.open("file", O.RDONLY)).flock(LOCK.SH | LOCK.NB);
});

for (
  const [name, held, asked] of [["shared", LOCK.SH, LOCK.EX], ["exclusive", LOCK.EX, LOCK.SH], [
    "exclusive",
    LOCK.EX,
    LOCK.EX,
  ]] as const
) {
  const wanted = asked === LOCK.EX ? "an exclusive" : "a shared";
  both(
    `${wanted} lock is EAGAIN while another process holds ${name === "shared" ? "a" : "an"} ${name} one`,
    async (fs) => {
      await fs.writeFile("file", "");
      const other = await fs.process();
      await (await fs.open("file", O.RDWR)).flock(held);
      await fails("EAGAIN", (await other.open("file", O.RDWR)).flock(asked | LOCK.NB));
    },
  );
  both(
    `${wanted} lock is EAGAIN while another client holds ${name === "shared" ? "a" : "an"} ${name} one`,
    async (fs) => {
      await fs.writeFile("file", "");
      const other = await fs.elsewhere();
      await (await fs.open("file", O.RDWR)).flock(held);
      await fails("EAGAIN", (await other.open("file", O.RDWR)).flock(asked | LOCK.NB));
    },
  );
}

both("two opens of one process exclude each other", async (fs) => {
  await fs.writeFile("file", "");
  const one = await fs.open("file", O.RDWR), two = await fs.open("file", O.RDWR);
  await one.flock(LOCK.EX);
  await fails("EAGAIN", two.flock(LOCK.EX | LOCK.NB));
});

kernel("a duplicate of a descriptor holds the same lock", async (fs) => {
  await fs.writeFile("file", "");
  const one = await fs.open("file", O.RDWR), copy = await one.dup();
  await one.flock(LOCK.EX);
  await copy.flock(LOCK.EX | LOCK.NB);
  await copy.flock(LOCK.UN);
  await (await fs.open("file", O.RDWR)).flock(LOCK.EX | LOCK.NB);
});

kernel("a lock lasts until the last duplicate is closed", async (fs) => {
  await fs.writeFile("file", "");
  const one = await fs.open("file", O.RDWR), copy = await one.dup(), other = await fs.open("file", O.RDWR);
  await one.flock(LOCK.EX);
  await one.close();
  await fails("EAGAIN", other.flock(LOCK.EX | LOCK.NB));
  await copy.close();
  await other.flock(LOCK.EX | LOCK.NB);
});

both("LOCK_UN lets another in", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.elsewhere(), file = await fs.open("file", O.RDWR);
  await file.flock(LOCK.EX);
  await file.flock(LOCK.UN);
  await (await other.open("file", O.RDWR)).flock(LOCK.EX | LOCK.NB);
});

both("close() lets another in", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.elsewhere(), file = await fs.open("file", O.RDWR);
  await file.flock(LOCK.EX);
  await file.close();
  await (await other.open("file", O.RDWR)).flock(LOCK.EX);
});

both("an exclusive lock becomes a shared one", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.elsewhere(), file = await fs.open("file", O.RDWR);
  await file.flock(LOCK.EX);
  await file.flock(LOCK.SH);
  await (await other.open("file", O.RDWR)).flock(LOCK.SH | LOCK.NB);
});

both("a lone shared lock becomes an exclusive one", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.elsewhere(), file = await fs.open("file", O.RDWR);
  await file.flock(LOCK.SH);
  await file.flock(LOCK.EX | LOCK.NB);
  await fails("EAGAIN", (await other.open("file", O.RDWR)).flock(LOCK.SH | LOCK.NB));
});

both("one who waits for a lock gets it when it is given up", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.elsewhere(), file = await fs.open("file", O.RDWR), second = await other.open("file", O.RDWR);
  await file.flock(LOCK.EX);
  let got = false;
  const waiting = second.flock(LOCK.EX).then(() => got = true);
  await later();
  await later();
  assertEquals(got, false);
  await file.flock(LOCK.UN);
  await waiting;
});

both("a lock can be held on a file that is open for reading only", async (fs) => {
  await fs.writeFile("file", "");
  await (await fs.open("file", O.RDONLY)).flock(LOCK.EX | LOCK.NB);
});

kernel("a lock can be held on a directory, among the processes of a client", async (fs) => {
  await fs.mkdir("dir");
  const other = await fs.process();
  await (await fs.open("dir", O.RDONLY)).flock(LOCK.EX | LOCK.NB);
  await fails("EAGAIN", (await other.open("dir", O.RDONLY)).flock(LOCK.EX | LOCK.NB));
});

both("a lock holds for every link of a file", async (fs) => {
  await fs.writeFile("one", "");
  await fs.link("one", "two");
  await (await fs.open("one", O.RDWR)).flock(LOCK.EX);
  await fails("EAGAIN", (await fs.open("two", O.RDWR)).flock(LOCK.EX | LOCK.NB));
});

both("locks of different files do not meet", async (fs) => {
  await fs.writeFile("one", "");
  await fs.writeFile("two", "");
  await (await fs.open("one", O.RDWR)).flock(LOCK.EX);
  await (await fs.open("two", O.RDWR)).flock(LOCK.EX | LOCK.NB);
});

both("a lock is advice: others may read and write", async (fs) => {
  await fs.writeFile("file", "before");
  await (await fs.open("file", O.RDWR)).flock(LOCK.EX);
  const other = await fs.elsewhere();
  await other.writeFile("file", "after");
  assertEquals(await other.readText("file"), "after");
});

kernel("a lock is gone when its holder is killed", async (fs) => {
  await fs.writeFile("file", "");
  const holder = await fs.elsewhere();
  await (await holder.open("file", O.RDWR)).flock(LOCK.EX);
  const file = await fs.open("file", O.RDWR);
  await fails("EAGAIN", file.flock(LOCK.EX | LOCK.NB));
  holder.agent.kill();
  await file.flock(LOCK.EX);
});

kernel("an unknown operation is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", (await fs.open("file", O.RDWR)).flock(0));
});

kernel("a lock of a descriptor of O_PATH is EBADF", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EBADF", (await fs.open("file", O.PATH)).flock(LOCK.SH));
});

kernel("one who may open a file may lock it", async (fs) => {
  await fs.writeFile("file", "", 0o444);
  await (await fs.as(alice).open("file", O.RDONLY)).flock(LOCK.EX | LOCK.NB);
});

kernel("flock() and fcntl() locks do not meet", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.process();
  await (await fs.open("file", O.RDWR)).flock(LOCK.EX);
  await (await other.open("file", O.RDWR)).lock(6, { type: 1, start: 0, length: 0 });
});

kernel("a lock on an open file without a name works among its descriptors", async (fs) => {
  await fs.writeFile("file", "");
  const one = await fs.open("file", O.RDWR), two = await fs.open("file", O.RDWR);
  await fs.unlink("file");
  await one.flock(LOCK.EX);
  await fails("EAGAIN", two.flock(LOCK.EX | LOCK.NB));
});
