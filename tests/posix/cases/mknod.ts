/** mknod(2), mkfifo(3): special files. */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, fails, kernel, later } from "../case.ts";
import { AT, nameMax, O, S } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { kernelPathCases } from "../path_cases.ts";

kernelPathCases({ name: "mknod() of", call: (fs, path) => fs.mknod(path, S.IFIFO | 0o644), changesDirectory: true });

const kinds = {
  fifo: S.IFIFO,
  socket: S.IFSOCK,
  "regular file": S.IFREG,
  "character device": S.IFCHR,
  "block device": S.IFBLK,
};

for (const [name, bits] of Object.entries(kinds)) {
  kernel(`mknod() makes a ${name} with its mode`, async (fs) => {
    await fs.mknod("name", bits | 0o651, 0x0507);
    const { mode, nlink, size } = await fs.lstat("name");
    assertEquals([mode, nlink, size], [bits | 0o651, 1, 0]);
  });
  kernel(`mknod() of a ${name} takes the bits of the umask away`, async (fs) => {
    await fs.as({ uid: 0, gid: 0, groups: [], umask: 0o027 }).mknod("name", bits | 0o777, 0x0507);
    assertEquals((await fs.lstat("name")).mode & 0o7777, 0o750);
  });
  kernel(`a ${name} made by mknod() belongs to its maker`, async (fs) => {
    await fs.chmod(".", 0o777);
    const maker = name.endsWith("device") ? fs : fs.as(alice);
    await maker.mknod("name", bits | 0o600, 0x0507);
    assertEquals((await fs.lstat("name")).uid, maker === fs ? 0 : alice.uid);
  });
}

for (const [major, minor] of [[1, 3], [8, 255], [250, 65_000], [4000, 1_000_000]]) {
  kernel(`a device keeps the numbers ${major} and ${minor}`, async (fs) => {
    // As the kernel takes them: 8 bits of minor, 12 of major, 12 of minor.
    const device = (minor & 0xff) | (major << 8) | ((minor >> 8) << 20);
    await fs.mknod("device", S.IFCHR | 0o600, device >>> 0);
    const { rdevMajor, rdevMinor } = await fs.lstat("device");
    assertEquals([rdevMajor, rdevMinor], [major, minor]);
  });
}

for (const type of fileTypes) {
  kernel(`mknod() where there is a ${type} is EEXIST`, async (fs) => {
    await fs.make(type, "name");
    await fails("EEXIST", fs.mknod("name", S.IFIFO | 0o644));
  });
}

for (const [name, bits] of Object.entries({ "character device": S.IFCHR, "block device": S.IFBLK })) {
  kernel(`mknod() of a ${name} by a user is EPERM`, async (fs) => {
    await fs.chmod(".", 0o777);
    await fails("EPERM", fs.as(alice).mknod("name", bits | 0o666, 0x0103));
  });
}

kernel("mknod() of a directory is EPERM", async (fs) => {
  await fails(["EPERM", "EINVAL"], fs.mknod("dir", S.IFDIR | 0o755));
});

kernel("mknod() of a symbolic link is EINVAL", async (fs) => {
  await fails("EINVAL", fs.mknod("link", S.IFLNK | 0o777));
});

kernel("mknod() without a type makes a regular file", async (fs) => {
  await fs.mknod("file", 0o640);
  assertEquals((await fs.stat("file")).mode, S.IFREG | 0o640);
});

kernel("mknod() updates mtime and ctime of the directory", async (fs) => {
  await fs.mkdir("dir");
  const before = await fs.stat("dir");
  await later();
  await fs.mknod("dir/fifo", S.IFIFO | 0o644);
  const after = await fs.stat("dir");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

kernel("mknod() of a name of 255 bytes works", async (fs) => {
  await fs.mknod("n".repeat(nameMax), S.IFIFO | 0o644);
  assertEquals((await fs.readdir(".")).length, 1);
});

kernel("mknodat() makes a fifo in a directory descriptor", async (fs) => {
  await fs.mkdir("dir");
  const dir = await fs.open("dir", O.RDONLY);
  await fs.call("mknodat", [dir.fd, "fifo", S.IFIFO | 0o600, 0]);
  assertEquals((await fs.statx(AT.FDCWD, "dir/fifo", 0, 0x7ff)).mode, S.IFIFO | 0o600);
});

kernel("a fifo works across opens of one client", async (fs) => {
  await fs.mknod("fifo", S.IFIFO | 0o644);
  const other = await fs.process();
  const [reader, writer] = await Promise.all([fs.open("fifo", O.RDONLY), other.open("fifo", O.WRONLY)]);
  await writer.write("hello");
  assertEquals((await reader.read(10)).length, 5);
});
