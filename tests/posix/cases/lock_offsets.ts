/** fcntl(2) locks far beyond the end of any file: offsets are 63 bits and each byte is one of its own. */

import { assertEquals } from "@std/assert";
import { fails, kernel } from "../case.ts";
import { F, O } from "../constants.ts";

const last = 2n ** 63n - 1n;

kernel("fcntl() locks the last byte that an offset can name, and the one before it for somebody else", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.process();
  const mine = await fs.open("file", O.RDWR), theirs = await other.open("file", O.RDWR);
  await mine.lock(F.SETLK, { type: F.WRLCK, start: last, length: 1 });
  await fails(["EAGAIN", "EACCES"], theirs.lock(F.SETLK, { type: F.WRLCK, start: last, length: 0 }));
  await theirs.lock(F.SETLK, { type: F.WRLCK, start: last - 1n, length: 1 });
  await fails(["EAGAIN", "EACCES"], mine.lock(F.SETLK, { type: F.RDLCK, start: last - 1n, length: 1 }));
});

for (const start of [2n ** 53n, 2n ** 53n + 1n, 2n ** 62n + 1n]) {
  kernel(`fcntl() unlocks the byte at ${start} alone out of a lock of everything`, async (fs) => {
    await fs.writeFile("file", "");
    const other = await fs.process();
    const mine = await fs.open("file", O.RDWR), theirs = await other.open("file", O.RDWR);
    await mine.lock(F.SETLK, { type: F.WRLCK, start: 0, length: 0 });
    await mine.lock(F.SETLK, { type: F.UNLCK, start, length: 1 });
    const test = async (at: bigint) => (await theirs.lock(F.GETLK, { type: F.WRLCK, start: at, length: 1 })).type;
    assertEquals([await test(start - 1n), await test(start), await test(start + 1n)], [F.WRLCK, F.UNLCK, F.WRLCK]);
  });
}

kernel("fcntl() of a range that passes the last offset is EOVERFLOW", async (fs) => {
  await fs.writeFile("file", "");
  const file = await fs.open("file", O.RDWR);
  await fails(["EOVERFLOW", "EINVAL"], file.lock(F.SETLK, { type: F.WRLCK, start: last, length: 2 }));
});
