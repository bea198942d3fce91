/** symlink(2), and where symbolic links lead. */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, both, fails, kernel, later, text } from "../case.ts";
import { AT, linksMax, nameMax, O, pathMax, S } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

pathCases({ name: "symlink() at", call: (fs, path) => fs.symlink("target", path), changesDirectory: true });

both("a symbolic link has its target's length as size, mode 0777 and one link", async (fs) => {
  await fs.symlink("some/target", "link");
  const { mode, size, nlink } = await fs.lstat("link");
  assertEquals([mode, size, nlink], [S.IFLNK | 0o777, "some/target".length, 1]);
});

both("a symbolic link has mode 0777 whatever the umask", async (fs) => {
  await fs.as({ uid: 0, gid: 0, groups: [], umask: 0o777 }).symlink("target", "link");
  assertEquals((await fs.lstat("link")).mode, S.IFLNK | 0o777);
});

both("a symbolic link belongs to its maker", async (fs) => {
  await fs.chmod(".", 0o777);
  await fs.as(alice).symlink("target", "link");
  const { uid, gid } = await fs.lstat("link");
  assertEquals([uid, gid], [alice.uid, alice.gid]);
});

for (const type of fileTypes) {
  kernel(`symlink() where there is a ${type} is EEXIST`, async (fs) => {
    await fs.make(type, "name");
    await fails("EEXIST", fs.symlink("target", "name"));
  });
}

both("symlink() with an empty target is ENOENT", async (fs) => {
  await fails("ENOENT", fs.symlink("", "link"));
});

both("symlink() keeps a target of 4095 bytes", async (fs) => {
  const target = "0123456789abcde/".repeat(256).slice(0, pathMax);
  await fs.symlink(target, "link");
  assertEquals(await fs.readlink("link"), target);
  assertEquals((await fs.lstat("link")).size, pathMax);
});

kernel("symlink() with a target of 4096 bytes is ENAMETOOLONG", async (fs) => {
  await fails("ENAMETOOLONG", fs.symlink("t".repeat(pathMax + 1), "link"));
});

both("symlink() at a name of 255 bytes works", async (fs) => {
  await fs.symlink("target", "n".repeat(nameMax));
  assertEquals(await fs.readlink("n".repeat(nameMax)), "target");
});

kernel("a target is kept byte by byte, whatever the bytes are", async (fs) => {
  const target = Uint8Array.from({ length: 255 }, (_, i) => i + 1);
  await fs.symlink(target, "link");
  assertEquals(await fs.readlinkBytes("link"), target);
});

both("symlink() updates mtime and ctime of the directory", async (fs) => {
  await fs.mkdir("dir");
  const before = await fs.stat("dir");
  await later();
  await fs.symlink("target", "dir/link");
  const after = await fs.stat("dir");
  assertGreater(after.mtime, before.mtime);
  assertGreater(after.ctime, before.ctime);
});

both("a relative target starts at the link's directory", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "inside");
  await fs.symlink("file", "dir/link");
  assertEquals(await fs.readText("dir/link"), "inside");
});

both("a target may climb by ..", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("file", "above");
  await fs.symlink("../file", "dir/link");
  assertEquals(await fs.readText("dir/link"), "above");
});

both("an absolute target starts at the root", async (fs) => {
  await fs.writeFile("file", "absolute");
  await fs.symlink(`${fs.folder}/file`, "link");
  assertEquals(await fs.readText("link"), "absolute");
});

both("a link to a directory is walked through", async (fs) => {
  await fs.mkdir("dir");
  await fs.symlink("dir", "link");
  await fs.writeFile("link/file", "through");
  assertEquals(await fs.readText("dir/file"), "through");
});

both("stat() follows a link, lstat() does not", async (fs) => {
  await fs.writeFile("file", "12345");
  await fs.symlink("file", "link");
  assertEquals((await fs.stat("link")).ino, (await fs.stat("file")).ino);
  assertEquals((await fs.lstat("link")).mode & S.IFMT, S.IFLNK);
});

kernel("lstat() of a link to a directory follows it when a slash comes after", async (fs) => {
  await fs.mkdir("dir");
  await fs.symlink("dir", "link");
  assertEquals((await fs.lstat("link/")).mode & S.IFMT, S.IFDIR);
});

kernel("lstat() of a link to a file with a slash after is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await fails("ENOTDIR", fs.lstat("link/"));
});

both("stat() of a link that leads nowhere is ENOENT", async (fs) => {
  await fs.symlink("nowhere", "link");
  await fails("ENOENT", fs.stat("link"));
});

both("a path may lead through 40 links", async (fs) => {
  await fs.writeFile("file", "found");
  let target = "file";
  for (let i = 0; i < linksMax; i++) {
    await fs.symlink(target, `link${i}`);
    target = `link${i}`;
  }
  assertEquals(await fs.readText(target), "found");
});

both("a path that leads through 41 links is ELOOP", async (fs) => {
  await fs.writeFile("file", "found");
  let target = "file";
  for (let i = 0; i <= linksMax; i++) {
    await fs.symlink(target, `link${i}`);
    target = `link${i}`;
  }
  await fails("ELOOP", fs.stat(target));
});

kernel("a link leads where its target is after that was renamed away and made anew", async (fs) => {
  await fs.writeFile("target", "old");
  await fs.symlink("target", "link");
  await fs.rename("target", "moved");
  await fails("ENOENT", fs.stat("link"));
  await fs.writeFile("target", "new");
  assertEquals(await fs.readText("link"), "new");
});

both("another client follows a link as soon as it is made", async (fs) => {
  await fs.writeFile("file", "shared");
  const other = await fs.elsewhere();
  await fails("ENOENT", other.lstat("link"));
  await fs.symlink("file", "link");
  assertEquals(await other.readText("link"), "shared");
});

kernel("symlinkat() makes a link in a directory descriptor", async (fs) => {
  await fs.mkdir("dir");
  const dir = await fs.open("dir", O.RDONLY);
  await fs.call("symlinkat", ["target", dir.fd, "link"]);
  assertEquals(await fs.readlink("dir/link"), "target");
});

kernel("symlinkat() at a file descriptor of a file is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  const file = await fs.open("file", O.RDONLY);
  await fails("ENOTDIR", fs.call("symlinkat", ["target", file.fd, "link"]));
});

kernel("readlinkat() with an empty path reads a link that was opened with O_PATH", async (fs) => {
  await fs.symlink("target", "link");
  const link = await fs.open("link", O.PATH | O.NOFOLLOW);
  const { out, result } = await fs.call("readlinkat", [link.fd, "", { out: 100 }, 100]);
  assertEquals(text(out[0].subarray(0, result)), "target");
});

kernel("utimensat() with AT_SYMLINK_NOFOLLOW sets the times of the link itself", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await fs.utimens("link", 1_000_000_001n, 2_000_000_002n, AT.SYMLINK_NOFOLLOW);
  const { mtime } = await fs.lstat("link");
  assertEquals(mtime, 2_000_000_002n);
  assertGreater((await fs.stat("file")).mtime, 2_000_000_002n);
});
