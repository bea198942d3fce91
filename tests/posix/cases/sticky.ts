/** The sticky bit of directories. */

import { assert, assertEquals } from "@std/assert";
import { alice, bob, both, carol, fails, type Files, kernel } from "../case.ts";
import { RENAME } from "../constants.ts";

/** A sticky directory of carol's, open to all, with a file of alice's. */
async function prepare(fs: Files): Promise<void> {
  await fs.mkdir("dir");
  await fs.chown("dir", carol.uid, carol.gid);
  await fs.chmod("dir", 0o1777);
  await fs.as(alice).writeFile("dir/file", "alice's", 0o666);
}

both("in a sticky directory the owner of a file may remove it", async (fs) => {
  await prepare(fs);
  await fs.as(alice).unlink("dir/file");
  assertEquals(await fs.exists("dir/file"), false);
});

both("in a sticky directory the directory's owner may remove a file", async (fs) => {
  await prepare(fs);
  await fs.as(carol).unlink("dir/file");
  assertEquals(await fs.exists("dir/file"), false);
});

both("in a sticky directory root may remove a file", async (fs) => {
  await prepare(fs);
  await fs.unlink("dir/file");
  assertEquals(await fs.exists("dir/file"), false);
});

both("in a sticky directory another user who removes a file is told EPERM", async (fs) => {
  await prepare(fs);
  await fails(["EPERM", "EACCES"], fs.as(bob).unlink("dir/file"));
  assert(await fs.exists("dir/file"));
});

both("in a sticky directory another user who removes a directory is told EPERM", async (fs) => {
  await prepare(fs);
  await fs.as(alice).mkdir("dir/inner", 0o777);
  await fails(["EPERM", "EACCES"], fs.as(bob).rmdir("dir/inner"));
  await fs.as(alice).rmdir("dir/inner");
});

both("in a sticky directory another user who renames a file is told EPERM", async (fs) => {
  await prepare(fs);
  await fails(["EPERM", "EACCES"], fs.as(bob).rename("dir/file", "dir/other"));
  await fs.as(alice).rename("dir/file", "dir/other");
});

both("in a sticky directory another user who replaces a file is told EPERM", async (fs) => {
  await prepare(fs);
  await fs.as(bob).writeFile("dir/mine", "bob's");
  await fails(["EPERM", "EACCES"], fs.as(bob).rename("dir/mine", "dir/file"));
  assertEquals(await fs.readText("dir/file"), "alice's");
});

both("in a sticky directory one may replace a file of one's own", async (fs) => {
  await prepare(fs);
  await fs.as(alice).writeFile("dir/new", "new");
  await fs.as(alice).rename("dir/new", "dir/file");
  assertEquals(await fs.readText("dir/file"), "new");
});

both("in a sticky directory everybody may make files", async (fs) => {
  await prepare(fs);
  await fs.as(bob).writeFile("dir/bobs", "");
  assertEquals((await fs.stat("dir/bobs")).uid, bob.uid);
});

both("in a sticky directory another user who removes a second name of a file is told EPERM", async (fs) => {
  await prepare(fs);
  await fs.as(alice).link("dir/file", "dir/second");
  await fails(["EPERM", "EACCES"], fs.as(bob).unlink("dir/second"));
});

both("moving a file of another out of a sticky directory is EPERM", async (fs) => {
  await prepare(fs);
  await fs.mkdir("open", 0o777);
  await fails(["EPERM", "EACCES"], fs.as(bob).rename("dir/file", "open/file"));
});

both("moving a file of one's own into a sticky directory works", async (fs) => {
  await prepare(fs);
  await fs.mkdir("open", 0o777);
  await fs.as(bob).writeFile("open/mine", "");
  await fs.as(bob).rename("open/mine", "dir/mine");
  assert(await fs.exists("dir/mine"));
});

kernel("exchanging one's own file with another's in a sticky directory is EPERM", async (fs) => {
  await prepare(fs);
  await fs.as(bob).writeFile("dir/mine", "");
  await fails(["EPERM", "EACCES"], fs.as(bob).renameat2("dir/mine", "dir/file", RENAME.EXCHANGE));
});

both("without the sticky bit everybody may remove what is in an open directory", async (fs) => {
  await prepare(fs);
  await fs.chmod("dir", 0o777);
  await fs.as(bob).unlink("dir/file");
  assertEquals(await fs.exists("dir/file"), false);
});

kernel("an ordinary owner of a directory may set its sticky bit", async (fs) => {
  await prepare(fs);
  await fs.chmod("dir", 0o777);
  await fs.as(carol).chmod("dir", 0o1777);
  assertEquals((await fs.stat("dir")).mode & 0o7777, 0o1777);
});
