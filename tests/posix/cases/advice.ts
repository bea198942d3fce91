/** posix_fadvise(2), readahead(2), ioctl(2): advice is taken, and what is not offered is refused as such. */

import { assertEquals } from "@std/assert";
import { fails, kernel, pattern } from "../case.ts";
import { O } from "../constants.ts";

const advices = { NORMAL: 0, RANDOM: 1, SEQUENTIAL: 2, WILLNEED: 3, DONTNEED: 4, NOREUSE: 5 };
/** FIONREAD, and a number that nobody has. */
const bytesToRead = 0x541b, unknown = 0xdeadbeef;

for (const [name, advice] of Object.entries(advices)) {
  kernel(`POSIX_FADV_${name} is taken and the contents stay`, async (fs) => {
    await fs.writeFile("file", pattern(100_000));
    const file = await fs.open("file", O.RDONLY);
    assertEquals((await fs.call("fadvise64", [file.fd, 0, 0, advice])).result, 0);
    assertEquals(await fs.readFile("file"), pattern(100_000));
  });
}

kernel("unknown advice is EINVAL", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await fails("EINVAL", fs.call("fadvise64", [file.fd, 0, 0, 99]));
});

kernel("advice about a fifo is ESPIPE", async (fs) => {
  await fs.make("fifo", "fifo");
  const fifo = await fs.open("fifo", O.RDWR);
  await fails("ESPIPE", fs.call("fadvise64", [fifo.fd, 0, 0, 0]));
});

kernel("what POSIX_FADV_DONTNEED dropped is read again as it was written", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write(pattern(300_000));
  await fs.call("fadvise64", [file.fd, 0, 0, advices.DONTNEED]);
  assertEquals(await file.pread(300_000, 0), pattern(300_000));
});

kernel("readahead() of a file is done", async (fs) => {
  await fs.writeFile("file", pattern(300_000));
  const file = await fs.open("file", O.RDONLY);
  assertEquals((await fs.call("readahead", [file.fd, 0, 300_000])).result, 0);
  assertEquals(await file.read(300_000), pattern(300_000));
});

kernel("readahead() of a file that is open for writing only is EBADF", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  await fails("EBADF", fs.call("readahead", [file.fd, 0, 100]));
});

kernel("FIONREAD tells how much is left of a file", async (fs) => {
  await fs.writeFile("file", pattern(1000));
  const file = await fs.open("file", O.RDONLY);
  await file.read(300);
  const { out } = await fs.call("ioctl", [file.fd, bytesToRead, { out: 4 }]);
  assertEquals(new DataView(out[0].buffer, out[0].byteOffset).getUint32(0, true), 700);
});

kernel("an unknown ioctl() of a file is ENOTTY", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await fails("ENOTTY", fs.call("ioctl", [file.fd, unknown, { out: 8 }]));
});

kernel("an unknown ioctl() of a directory is ENOTTY", async (fs) => {
  const dir = await fs.open(".", O.RDONLY);
  await fails("ENOTTY", fs.call("ioctl", [dir.fd, unknown, { out: 8 }]));
});
