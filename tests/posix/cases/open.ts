/** open(2): flags, what can be opened, and what a new file is like. */

import { assert, assertEquals, assertGreater } from "@std/assert";
import { alice, bob, both, fails, kernel, later, staff, text } from "../case.ts";
import { F, nameMax, O, S } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { kernelPathCases, longPath, pathCases } from "../path_cases.ts";

pathCases({ name: "open() of", call: (fs, path) => fs.open(path, O.RDONLY), finds: true, follows: true });
pathCases({
  name: "open() with O_CREAT of",
  call: (fs, path) => fs.open(path, O.RDWR | O.CREAT),
  follows: true,
  changesDirectory: true,
});
kernelPathCases({
  name: "creat() of",
  call: (fs, path) => fs.creat(path, 0o644),
  follows: true,
  changesDirectory: true,
});

for (const mode of [0o000, 0o111, 0o444, 0o600, 0o777]) {
  both(`a new file has mode 0${mode.toString(8).padStart(3, "0")}`, async (fs) => {
    await fs.open("file", O.WRONLY | O.CREAT, mode);
    assertEquals((await fs.stat("file")).mode, S.IFREG | mode);
  });
}

for (const bit of [S.ISUID, S.ISVTX]) {
  kernel(`open() with O_CREAT keeps the mode bit 0${bit.toString(8)}`, async (fs) => {
    await fs.open("file", O.WRONLY | O.CREAT, 0o755 | bit);
    assertEquals((await fs.stat("file")).mode & 0o7777, 0o755 | bit);
  });
}

for (const umask of [0o022, 0o077, 0o027, 0o777]) {
  both(`open() with O_CREAT takes the bits of umask 0${umask.toString(8).padStart(3, "0")} away`, async (fs) => {
    await fs.as({ uid: 0, gid: 0, groups: [], umask }).open("file", O.WRONLY | O.CREAT, 0o777);
    assertEquals((await fs.stat("file")).mode & 0o7777, 0o777 & ~umask);
  });
}

both("a new file is empty, has one link and belongs to its maker", async (fs) => {
  await fs.chmod(".", 0o777);
  await fs.as(alice).open("file", O.WRONLY | O.CREAT, 0o644);
  const { size, nlink, uid, gid, blocks } = await fs.stat("file");
  assertEquals([size, nlink, uid, gid, blocks], [0, 1, alice.uid, alice.gid, 0]);
});

both("a file made in a setgid directory has the directory's group", async (fs) => {
  await fs.mkdir("dir");
  await fs.chown("dir", 0, staff);
  await fs.chmod("dir", 0o2777);
  await fs.as(alice).open("dir/file", O.WRONLY | O.CREAT);
  assertEquals((await fs.stat("dir/file")).gid, staff);
});

both("a new file can be written by its maker whatever its mode", async (fs) => {
  await fs.chmod(".", 0o777);
  const file = await fs.as(alice).open("file", O.RDWR | O.CREAT, 0);
  await file.write("mine");
  assertEquals(text(await file.pread(4, 0)), "mine");
  await fails("EACCES", fs.as(alice).open("file", O.RDONLY));
});

both("open() with O_CREAT of what is there changes neither mode nor owner nor contents", async (fs) => {
  await fs.writeFile("file", "contents", 0o640);
  await fs.chown("file", alice.uid, alice.gid);
  await fs.open("file", O.RDWR | O.CREAT, 0o777);
  const { mode, uid, size } = await fs.stat("file");
  assertEquals([mode & 0o7777, uid, size], [0o640, alice.uid, 8]);
});

for (const type of fileTypes) {
  kernel(`open() with O_CREAT|O_EXCL where there is a ${type} is EEXIST`, async (fs) => {
    await fs.make(type, "name");
    await fails("EEXIST", fs.open("name", O.WRONLY | O.CREAT | O.EXCL));
  });
  if (type === "directory" || type === "symlink") continue;
  kernel(`open() with O_DIRECTORY of a ${type} is ENOTDIR`, async (fs) => {
    await fs.make(type, "name");
    await fails("ENOTDIR", fs.open("name", O.RDONLY | O.DIRECTORY | O.NONBLOCK));
  });
}

both("open() with O_CREAT makes the target of a link that leads nowhere", async (fs) => {
  await fs.symlink("target", "link");
  await fs.writeFile("link", "made");
  assertEquals(await fs.readText("target"), "made");
});

both("open() with O_CREAT|O_EXCL of a link that leads nowhere is EEXIST", async (fs) => {
  await fs.symlink("target", "link");
  await fails("EEXIST", fs.open("link", O.WRONLY | O.CREAT | O.EXCL));
  assertEquals(await fs.exists("target"), false);
});

both("of two clients that make a file with O_EXCL at once one is told EEXIST", async (fs) => {
  const other = await fs.elsewhere();
  for (let round = 0; round < 10; round++) {
    const flags = O.WRONLY | O.CREAT | O.EXCL;
    const ends = await Promise.allSettled([fs.open(`file${round}`, flags), other.open(`file${round}`, flags)]);
    assertEquals(ends.filter(({ status }) => status === "fulfilled").length, 1);
  }
});

both("of two clients that open one file with O_CREAT at once both have the same one", async (fs) => {
  const other = await fs.elsewhere();
  for (let round = 0; round < 10; round++) {
    const files = await Promise.all([fs, other].map((one) => one.open(`file${round}`, O.WRONLY | O.CREAT)));
    const [one, two] = await Promise.all(files.map((file) => file.fstat()));
    assertEquals(one.ino, two.ino);
  }
});

both("open() with O_TRUNC cuts a file to nothing", async (fs) => {
  await fs.writeFile("file", "contents");
  await fs.open("file", O.WRONLY | O.TRUNC);
  assertEquals((await fs.stat("file")).size, 0);
});

both("open() with O_TRUNC updates mtime and ctime", async (fs) => {
  await fs.writeFile("file", "contents");
  const before = await fs.stat("file");
  await later();
  await fs.open("file", O.WRONLY | O.TRUNC);
  const after = await fs.stat("file");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

both("open() with O_TRUNC keeps inode, mode and owner", async (fs) => {
  await fs.writeFile("file", "contents", 0o640);
  await fs.chown("file", alice.uid, alice.gid);
  const before = await fs.stat("file");
  await fs.open("file", O.WRONLY | O.TRUNC);
  const { ino, mode, uid, gid } = await fs.stat("file");
  assertEquals([ino, mode, uid, gid], [before.ino, before.mode, alice.uid, alice.gid]);
});

both("open() with O_TRUNC of a file that one may not write is EACCES and leaves it", async (fs) => {
  await fs.writeFile("file", "contents", 0o444);
  await fails("EACCES", fs.as(alice).open("file", O.WRONLY | O.TRUNC));
  assertEquals(await fs.readText("file"), "contents");
});

both("open() without O_CREAT changes no time", async (fs) => {
  await fs.writeFile("file", "contents");
  const before = await fs.stat("file");
  await later();
  await (await fs.open("file", O.RDWR)).close();
  const after = await fs.stat("file");
  assertEquals([after.mtime, after.ctime], [before.mtime, before.ctime]);
});

both("a create updates mtime and ctime of the directory", async (fs) => {
  await fs.mkdir("dir");
  const before = await fs.stat("dir");
  await later();
  await fs.open("dir/file", O.WRONLY | O.CREAT);
  const after = await fs.stat("dir");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

both("open() with O_CREAT of what is there leaves the directory's times", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  const before = await fs.stat("dir");
  await later();
  await fs.open("dir/file", O.WRONLY | O.CREAT);
  const after = await fs.stat("dir");
  assertEquals([after.mtime, after.ctime], [before.mtime, before.ctime]);
});

for (const [name, flags] of Object.entries({ O_WRONLY: O.WRONLY, O_RDWR: O.RDWR })) {
  both(`open() of a directory with ${name} is EISDIR`, async (fs) => {
    await fs.mkdir("dir");
    await fails("EISDIR", fs.open("dir", flags));
  });
}

for (const [name, flag] of Object.entries({ O_CREAT: O.CREAT, O_TRUNC: O.TRUNC | O.WRONLY })) {
  kernel(`open() of a directory with ${name} is EISDIR`, async (fs) => {
    await fs.mkdir("dir");
    await fails("EISDIR", fs.open("dir", flag));
  });
}

kernel("open() with O_CREAT of a path with a slash at its end is EISDIR", async (fs) => {
  await fails("EISDIR", fs.open("file/", O.WRONLY | O.CREAT));
  assertEquals(await fs.exists("file"), false);
});

kernel("open() of a file with a slash at the end of its path is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", fs.open("file/", O.RDONLY));
});

kernel("open() with O_NOFOLLOW of a symbolic link is ELOOP", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await fails("ELOOP", fs.open("link", O.RDONLY | O.NOFOLLOW));
});

kernel("open() with O_NOFOLLOW follows links before the last name", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  await fs.symlink("dir", "link");
  await fs.open("link/file", O.RDONLY | O.NOFOLLOW);
});

kernel("open() with O_DIRECTORY|O_NOFOLLOW of a link to a directory is ENOTDIR", async (fs) => {
  await fs.mkdir("dir");
  await fs.symlink("dir", "link");
  await fails(["ENOTDIR", "ELOOP"], fs.open("link", O.RDONLY | O.DIRECTORY | O.NOFOLLOW));
});

kernel("open() of a fifo with O_WRONLY|O_NONBLOCK without a reader is ENXIO", async (fs) => {
  await fs.make("fifo", "fifo");
  await fails("ENXIO", fs.open("fifo", O.WRONLY | O.NONBLOCK));
});

kernel("a fifo carries bytes from its writer to its reader", async (fs) => {
  await fs.make("fifo", "fifo");
  const reader = await fs.open("fifo", O.RDONLY | O.NONBLOCK);
  const writer = await fs.open("fifo", O.WRONLY | O.NONBLOCK);
  await writer.write("through");
  assertEquals(text(await reader.read(100)), "through");
});

kernel("open() of a socket is ENXIO", async (fs) => {
  await fs.make("socket", "socket");
  await fails("ENXIO", fs.open("socket", O.RDONLY));
});

kernel("read() of a file that is open for writing only is EBADF", async (fs) => {
  const file = await fs.open("file", O.WRONLY | O.CREAT);
  await fails("EBADF", file.read(1));
});

kernel("write() to a file that is open for reading only is EBADF", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EBADF", (await fs.open("file", O.RDONLY)).write("x"));
});

kernel("a descriptor of O_PATH tells attributes and cannot be read", async (fs) => {
  await fs.writeFile("file", "contents");
  const file = await fs.open("file", O.PATH);
  assertEquals((await file.fstat()).size, 8);
  await fails("EBADF", file.read(1));
});

kernel("open() with O_PATH needs no permission of the file", async (fs) => {
  await fs.writeFile("file", "contents", 0);
  assertEquals((await (await fs.as(alice).open("file", O.PATH)).fstat()).size, 8);
});

kernel("open() with O_NOATIME by another than the owner is EPERM", async (fs) => {
  await fs.writeFile("file", "", 0o666);
  await fails("EPERM", fs.as(bob).open("file", O.RDONLY | O.NOATIME));
});

kernel("F_GETFL tells access mode and status flags", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT | O.APPEND | O.NONBLOCK);
  const mask = 3 | O.APPEND | O.NONBLOCK | O.CREAT | O.EXCL;
  assertEquals(await file.fcntl(F.GETFL) & mask, O.RDWR | O.APPEND | O.NONBLOCK);
});

kernel("F_SETFL turns O_APPEND on for an open file", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.write("start");
  await file.lseek(0, 0);
  await file.fcntl(F.SETFL, O.APPEND);
  await file.write("+end");
  assertEquals(await fs.readText("file"), "start+end");
});

kernel("F_SETFL turns O_APPEND off for an open file", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT | O.APPEND);
  await file.write("start");
  await file.fcntl(F.SETFL, 0);
  await file.pwrite("S", 0);
  assertEquals(await fs.readText("file"), "Start");
});

kernel("a second close() of a descriptor is EBADF", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await file.close();
  await fails("EBADF", file.close());
});

kernel("a descriptor stays good when its duplicate is closed", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  const copy = await file.dup();
  await copy.close();
  assertEquals(await file.write("still"), 5);
});

kernel("two descriptors of one dup() share their position", async (fs) => {
  await fs.writeFile("file", "abcdef");
  const file = await fs.open("file", O.RDONLY), copy = await file.dup();
  await file.read(3);
  assertEquals(text(await copy.read(3)), "def");
});

both("two opens of one file have positions of their own", async (fs) => {
  await fs.writeFile("file", "abcdef");
  const one = await fs.open("file", O.RDONLY), two = await fs.open("file", O.RDONLY);
  await one.read(3);
  assertEquals(text(await two.read(3)), "abc");
});

both("open() with O_CREAT of a name of 255 bytes works", async (fs) => {
  await fs.writeFile("n".repeat(nameMax), "long");
  assertEquals(await fs.readText("n".repeat(nameMax)), "long");
});

kernel("open() of a path of 4095 bytes works", async (fs) => {
  await fs.writeFile("name", "far");
  assertEquals(await fs.readText(longPath("name", 4095)), "far");
});

kernel("openat() starts at its directory descriptor, whatever the directory is called now", async (fs) => {
  await fs.mkdir("dir");
  const dir = await fs.open("dir", O.RDONLY);
  await fs.rename("dir", "moved");
  await fs.openat(dir.fd, "file", O.WRONLY | O.CREAT);
  assert(await fs.exists("moved/file"));
});

kernel("openat() at a descriptor of a file is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  const file = await fs.open("file", O.RDONLY);
  await fails("ENOTDIR", fs.openat(file.fd, "name", O.RDONLY));
});

kernel("openat() at a descriptor that is not open is EBADF", async (fs) => {
  await fails("EBADF", fs.openat(9999, "name", O.RDONLY));
});

kernel("openat() with an absolute path does not look at its descriptor", async (fs) => {
  await fs.writeFile("file", "");
  await fs.openat(9999, `${fs.folder}/file`, O.RDONLY);
});

kernel("open() of a symbolic link with O_PATH|O_NOFOLLOW has the link itself", async (fs) => {
  await fs.symlink("nowhere", "link");
  const link = await fs.open("link", O.PATH | O.NOFOLLOW);
  assertEquals((await link.fstat()).mode & S.IFMT, S.IFLNK);
});
