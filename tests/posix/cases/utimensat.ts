/** utimensat(2), futimens(3). */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, bob, both, fails, kernel, later } from "../case.ts";
import { AT, O } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

const second = 1_000_000_000n, millisecond = 1_000_000n;

pathCases({ name: "utimensat() of", call: (fs, path) => fs.utimens(path, 0n, second), finds: true, follows: true });

both("utimensat() sets atime and mtime", async (fs) => {
  await fs.writeFile("file", "");
  await fs.utimens("file", 1_000_000n * second, 2_000_000n * second + 5n * millisecond);
  const { atime, mtime } = await fs.stat("file");
  assertEquals([atime, mtime], [1_000_000n * second, 2_000_000n * second + 5n * millisecond]);
});

kernel("utimensat() keeps every nanosecond", async (fs) => {
  await fs.writeFile("file", "");
  await fs.utimens("file", 1_111_111_111_123_456_789n, 1_222_222_222_999_999_999n);
  const { atime, mtime } = await fs.stat("file");
  assertEquals([atime, mtime], [1_111_111_111_123_456_789n, 1_222_222_222_999_999_999n]);
});

for (
  const [name, time] of Object.entries({
    "the epoch": 0n,
    "one nanosecond before the epoch": -1n,
    "a year before the epoch": -31_536_000n * second,
    "beyond 2038": 2n ** 31n * second + 1n,
    "beyond 2106": 2n ** 32n * second + 7n,
  })
) {
  kernel(`utimensat() keeps ${name}`, async (fs) => {
    await fs.writeFile("file", "");
    await fs.utimens("file", time, time);
    const { atime, mtime } = await fs.stat("file");
    assertEquals([atime, mtime], [time, time]);
  });
}

for (const type of fileTypes) {
  kernel(`utimensat() sets the times of a ${type}`, async (fs) => {
    await fs.make(type, "name");
    await fs.utimens("name", second, 2n * second, AT.SYMLINK_NOFOLLOW);
    assertEquals((await fs.lstat("name")).mtime, 2n * second);
  });
}

kernel("UTIME_OMIT leaves a time", async (fs) => {
  await fs.writeFile("file", "");
  await fs.utimens("file", second, 2n * second);
  await fs.utimens("file", "omit", 3n * second);
  await fs.utimens("file", 4n * second, "omit");
  const { atime, mtime } = await fs.stat("file");
  assertEquals([atime, mtime], [4n * second, 3n * second]);
});

kernel("UTIME_OMIT of both times changes not even ctime, and may be asked by all", async (fs) => {
  await fs.writeFile("file", "");
  const before = await fs.stat("file");
  await later();
  await fs.as(bob).utimens("file", "omit", "omit");
  assertEquals((await fs.stat("file")).ctime, before.ctime);
});

kernel("UTIME_NOW sets the present", async (fs) => {
  await fs.writeFile("file", "");
  await fs.utimens("file", second, second);
  const from = BigInt(Date.now() - 2000) * millisecond;
  await fs.utimens("file", "now", "now");
  const { atime, mtime } = await fs.stat("file");
  assertGreater(atime, from);
  assertGreater(mtime, from);
});

both("utimensat() updates ctime to the present, whatever it sets", async (fs) => {
  await fs.writeFile("file", "");
  const before = await fs.stat("file");
  await later();
  await fs.utimens("file", second, second);
  assertGreater((await fs.stat("file")).ctime, before.ctime);
});

both("the owner may set times", async (fs) => {
  await fs.writeFile("file", "", 0o400);
  await fs.chown("file", alice.uid, alice.gid);
  await fs.as(alice).utimens("file", second, 2n * second);
  assertEquals((await fs.stat("file")).mtime, 2n * second);
});

both("utimensat() of given times by another than the owner is EPERM, even if they may write", async (fs) => {
  await fs.writeFile("file", "", 0o666);
  await fs.chown("file", alice.uid, alice.gid);
  await fails("EPERM", fs.as(bob).utimens("file", second, second));
});

kernel("utimensat() of the present by somebody who may write works", async (fs) => {
  await fs.writeFile("file", "", 0o666);
  await fs.chown("file", alice.uid, alice.gid);
  await fs.utimens("file", second, second);
  await fs.as(bob).utimens("file", "now", "now");
  assertGreater((await fs.stat("file")).mtime, second);
});

kernel("utimensat() of the present by somebody who may not write is EACCES", async (fs) => {
  await fs.writeFile("file", "", 0o644);
  await fs.chown("file", alice.uid, alice.gid);
  await fails("EACCES", fs.as(bob).utimens("file", "now", "now"));
});

kernel("utimensat() of one present and one kept time by another than the owner is EPERM", async (fs) => {
  await fs.writeFile("file", "", 0o666);
  await fs.chown("file", alice.uid, alice.gid);
  await fails("EPERM", fs.as(bob).utimens("file", "now", "omit"));
});

kernel("utimensat() of nanoseconds out of range is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  const times = new Uint8Array(BigInt64Array.of(1n, 1_000_000_000n, 1n, 0n).buffer);
  await fails("EINVAL", fs.call("utimensat", [AT.FDCWD, "file", times, 0]));
});

kernel("utimensat() with an unknown flag is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", fs.utimens("file", second, second, 0x8000));
});

kernel("futimens() sets the times of an open file without a name", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await fs.unlink("file");
  await file.futimens(second, 2n * second);
  assertEquals((await file.fstat()).mtime, 2n * second);
});

both("a write after utimensat() sets mtime to the present again", async (fs) => {
  await fs.writeFile("file", "");
  await fs.utimens("file", second, second);
  await fs.writeFile("file", "new");
  assertGreater((await fs.stat("file")).mtime, 1_000_000n * second);
});

both("times that another client sets are seen at once", async (fs) => {
  await fs.writeFile("file", "");
  const other = await fs.elsewhere();
  await other.stat("file");
  await fs.utimens("file", 5n * second, 6n * second);
  const { atime, mtime } = await other.stat("file");
  assertEquals([atime, mtime], [5n * second, 6n * second]);
});

kernel("the times of an open file that has been written to stay as utimensat() sets them", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write("contents");
  await file.futimens(second, 2n * second);
  await file.close();
  await later();
  assertEquals((await fs.stat("file")).mtime, 2n * second);
});
