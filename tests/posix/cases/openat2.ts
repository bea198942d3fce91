/** openat2(2): where a path may lead. */

import { assertEquals } from "@std/assert";
import { fails, kernel } from "../case.ts";
import { AT, O, RESOLVE } from "../constants.ts";
import type { Kernel } from "../kernel.ts";

/** struct open_how: flags, mode, resolve. */
async function openat2(
  fs: Kernel,
  dir: number,
  path: string,
  resolve: number,
  flags: number = O.RDONLY,
): Promise<void> {
  const how = new Uint8Array(BigUint64Array.of(BigInt(flags | O.CLOEXEC), 0n, BigInt(resolve)).buffer);
  fs.opened((await fs.call("openat2", [dir, path, how, how.length])).result);
}

kernel("openat2() without restrictions opens as openat() does", async (fs) => {
  await fs.writeFile("file", "");
  await openat2(fs, AT.FDCWD, "file", 0);
});

kernel("RESOLVE_BENEATH refuses to climb out by ..", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("file", "");
  const dir = await fs.open("dir", O.RDONLY);
  await fails("EXDEV", openat2(fs, dir.fd, "../file", RESOLVE.BENEATH));
});

kernel("RESOLVE_BENEATH refuses an absolute link", async (fs) => {
  await fs.mkdir("dir");
  await fs.symlink("/etc", "dir/link");
  const dir = await fs.open("dir", O.RDONLY);
  await fails("EXDEV", openat2(fs, dir.fd, "link/passwd", RESOLVE.BENEATH));
});

kernel("RESOLVE_NO_SYMLINKS refuses every link", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await fails("ELOOP", openat2(fs, AT.FDCWD, "link", RESOLVE.NO_SYMLINKS));
  await openat2(fs, AT.FDCWD, "file", RESOLVE.NO_SYMLINKS);
});

kernel("RESOLVE_IN_ROOT takes the directory for the root", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  await fs.symlink("/file", "dir/link");
  const dir = await fs.open("dir", O.RDONLY);
  await openat2(fs, dir.fd, "/../link", RESOLVE.IN_ROOT);
});

kernel("RESOLVE_NO_XDEV refuses to leave the file system", async (fs) => {
  await fs.symlink("/proc/self/status", "link");
  await fails("EXDEV", openat2(fs, AT.FDCWD, "link", RESOLVE.NO_XDEV));
});

kernel("openat2() with unknown bits is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", openat2(fs, AT.FDCWD, "file", 0x8000));
  assertEquals(await fs.exists("file"), true);
});
