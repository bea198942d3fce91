/** What clients of one volume promise each other: a call that has returned on one is seen by all later ones on others. */

import { assert, assertEquals } from "@std/assert";
import { both, fails, kernel, pattern, text } from "../case.ts";
import { F, LOCK, MAP, MS, O, PROT, S, SEEK } from "../constants.ts";
import { fileTypes, sharedMap, typeBits } from "../kernel.ts";

const page = 4096;

for (const type of fileTypes) {
  kernel(`a ${type} that one client makes is there for the other at once`, async (fs) => {
    const other = await fs.elsewhere();
    await fails("ENOENT", other.lstat("name"));
    await fs.make(type, "name");
    assertEquals((await other.lstat("name")).mode & S.IFMT, typeBits[type]);
  });
}

both("a name that one client removes is gone for the other at once", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", "contents");
  assertEquals(await other.readText("file"), "contents");
  await fs.unlink("file");
  await fails("ENOENT", other.stat("file"));
  await fails("ENOENT", other.open("file", O.RDONLY));
});

both("a name that one client moves is where it is for the other at once", async (fs) => {
  const other = await fs.elsewhere();
  await fs.mkdir("a");
  await fs.mkdir("b");
  await fs.writeFile("a/file", "contents");
  for (let round = 0; round < 5; round++) {
    await fs.rename("a/file", "b/file");
    await fails("ENOENT", other.stat("a/file"));
    await other.rename("b/file", "a/file");
    assertEquals(await fs.readText("a/file"), "contents");
  }
});

both("what one client writes and closes the other reads when it opens, every time", async (fs) => {
  const other = await fs.elsewhere();
  for (let round = 0; round < 10; round++) {
    const [writer, reader] = round % 2 === 0 ? [fs, other] : [other, fs];
    await writer.writeFile("file", pattern(1000 * round, round));
    assertEquals(await reader.readFile("file"), pattern(1000 * round, round));
  }
});

both("a file that one client cuts is short for the other, which has it open", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", pattern(3 * page));
  const reader = await other.open("file", O.RDONLY);
  assertEquals((await reader.pread(3 * page, 0)).length, 3 * page);
  await fs.truncate("file", 10);
  assertEquals([(await reader.pread(3 * page, 0)).length, (await reader.fstat()).size], [10, 10]);
});

both("a file that one client replaces by rename stays what it was for the other, which has it open", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", "old");
  const reader = await other.open("file", O.RDONLY);
  await fs.writeFile("new", "new");
  await fs.rename("new", "file");
  assertEquals([text(await reader.pread(10, 0)), await other.readText("file")], ["old", "new"]);
});

both("an open file of one client whose last name the other takes stays until it is closed", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", pattern(2_000_000));
  const reader = await fs.open("file", O.RDONLY);
  await other.unlink("file");
  await other.writeFile("file", "another");
  assertEquals(await reader.pread(2_000_000, 0), pattern(2_000_000));
});

both("a directory that one client removes and makes anew is the new one for the other", async (fs) => {
  const other = await fs.elsewhere();
  await fs.mkdir("dir");
  await other.stat("dir");
  await fs.rmdir("dir");
  await fs.mkdir("dir");
  await other.writeFile("dir/file", "in the new one");
  assertEquals(await fs.readText("dir/file"), "in the new one");
});

both("a link that one client makes counts for the other at once", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("one", "");
  assertEquals((await other.stat("one")).nlink, 1);
  await fs.link("one", "two");
  assertEquals((await other.stat("one")).nlink, 2);
  await other.unlink("one");
  assertEquals((await fs.stat("two")).nlink, 1);
});

kernel("the working directory of one client goes on when the other renames it", async (fs) => {
  const other = await fs.elsewhere();
  await fs.mkdir("dir");
  await fs.chdir("dir");
  await other.rename("dir", "moved");
  await fs.writeFile("file", "inside");
  assertEquals(await other.readText("moved/file"), "inside");
});

both("a number that two clients count up under a lock loses nothing", async (fs) => {
  const clients = [fs, await fs.elsewhere()], each = 20;
  await fs.writeFile("counter", "0");
  await Promise.all(clients.map(async (client) => {
    for (let i = 0; i < each; i++) {
      const file = await client.open("counter", O.RDWR);
      await file.flock(LOCK.EX);
      const value = Number(text(await file.pread(10, 0)));
      await file.pwrite(String(value + 1), 0);
      await file.close();
    }
  }));
  assertEquals(await fs.readText("counter"), String(2 * each));
});

kernel("a number that two clients count up under fcntl() locks loses nothing", async (fs) => {
  const clients = [fs, await fs.elsewhere()], each = 20;
  await fs.writeFile("counter", "0");
  await Promise.all(clients.map(async (client) => {
    const file = await client.open("counter", O.RDWR);
    for (let i = 0; i < each; i++) {
      await file.lock(F.SETLKW, { type: F.WRLCK, start: 0, length: 0 });
      const value = Number(text(await file.pread(10, 0)));
      await file.pwrite(String(value + 1), 0);
      await file.lock(F.SETLK, { type: F.UNLCK, start: 0, length: 0 });
    }
  }));
  assertEquals(await fs.readText("counter"), String(2 * each));
});

both("two clients that rename one file at once: one does, the other is told ENOENT", async (fs) => {
  const other = await fs.elsewhere();
  for (let round = 0; round < 10; round++) {
    await fs.writeFile("file", "");
    const ends = await Promise.allSettled([fs.rename("file", "one"), other.rename("file", "two")]);
    assertEquals(ends.filter(({ status }) => status === "fulfilled").length, 1);
    const names = (await fs.readdir(".")).map(({ name }) => name);
    assertEquals(names.length, 1);
    await fs.unlink(names[0]);
  }
});

both(
  "two clients that move directories into each other at once: one does, the other is told EINVAL or ENOENT",
  async (fs) => {
    const other = await fs.elsewhere();
    for (let round = 0; round < 5; round++) {
      await fs.mkdir("a");
      await fs.mkdir("b");
      const ends = await Promise.allSettled([fs.rename("a", "b/a"), other.rename("b", "a/b")]);
      assertEquals(ends.filter(({ status }) => status === "fulfilled").length, 1);
      const [top] = await fs.readdir(".");
      const inner = top.name === "a" ? "a/b" : "b/a";
      assert(await fs.exists(inner));
      await fs.rmdir(inner);
      await fs.rmdir(top.name);
    }
  },
);

both("files that two clients make in one directory at once are all there, each once", async (fs) => {
  const clients = [fs, await fs.elsewhere()], each = 40;
  await fs.mkdir("dir");
  await Promise.all(
    clients.flatMap((client, id) =>
      Array.from({ length: each }, (_, i) => client.writeFile(`dir/${id}-${i}`, `${id} ${i}`))
    ),
  );
  const names = (await fs.readdir("dir")).map(({ name }) => name);
  assertEquals([names.length, new Set(names).size], [2 * each, 2 * each]);
  assertEquals(await fs.readText("dir/1-17"), "1 17");
});

both("a directory that is emptied by two clients at once is empty", async (fs) => {
  const clients = [fs, await fs.elsewhere()], count = 60;
  await fs.mkdir("dir");
  await Promise.all(Array.from({ length: count }, (_, i) => fs.writeFile(`dir/${i}`, "")));
  const ends = await Promise.all(
    clients.map((client) => Promise.allSettled(Array.from({ length: count }, (_, i) => client.unlink(`dir/${i}`)))),
  );
  for (let i = 0; i < count; i++) {
    assertEquals(ends.filter((end) => end[i].status === "fulfilled").length, 1, `name ${i}`);
  }
  await fs.rmdir("dir");
});

kernel("lseek() to the end on one client sees what the other has appended", async (fs) => {
  const other = await fs.elsewhere();
  const file = await fs.open("file", O.RDWR | O.CREAT), end = await other.open("file", O.WRONLY | O.APPEND);
  for (let round = 1; round <= 5; round++) {
    await end.write("12345");
    assertEquals(await file.lseek(0, SEEK.END), 5 * round);
  }
});

kernel("what one client puts into a mapping and closes is in a mapping that the other makes then", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", pattern(2 * page));
  for (let round = 0; round < 4; round++) {
    const [one, two] = round % 2 === 0 ? [fs, other] : [other, fs];
    const file = await one.open("file", O.RDWR), map = await file.mmap(2 * page, ...sharedMap);
    await map.put(page - 4, `round ${round}`);
    await map.msync(MS.SYNC);
    await map.munmap();
    await file.close();
    const seen = await (await two.open("file", O.RDONLY)).mmap(2 * page, PROT.READ, MAP.SHARED);
    assertEquals(text(await seen.get(page - 4, 7)), `round ${round}`);
    await seen.munmap();
  }
});

kernel("an exclusive create is exclusive among processes of two clients, many times over", async (fs) => {
  const workers = [fs, await fs.process(), await fs.elsewhere()];
  for (let round = 0; round < 5; round++) {
    const ends = await Promise.allSettled(
      workers.map((worker) => worker.open(`lock${round}`, O.WRONLY | O.CREAT | O.EXCL)),
    );
    assertEquals(ends.filter(({ status }) => status === "fulfilled").length, 1);
  }
});

both("a file grows by turns of two clients and is whole", async (fs) => {
  const clients = [fs, await fs.elsewhere()], piece = 50_000, turns = 24;
  for (let turn = 0; turn < turns; turn++) {
    const file = await clients[turn % 2].open("file", O.WRONLY | O.CREAT);
    await file.pwrite(pattern(piece, turn), turn * piece);
    await file.close();
  }
  const read = await fs.readFile("file");
  assertEquals(read.length, turns * piece);
  for (let turn = 0; turn < turns; turn++) {
    assertEquals(read.subarray(turn * piece, (turn + 1) * piece), pattern(piece, turn));
  }
});
