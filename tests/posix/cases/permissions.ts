/** Who may do what: every class of users and every right, for files and directories. */

import { assertEquals } from "@std/assert";
import { alice, bob, both, fails, type Files, type Identity, kernel, staff } from "../case.ts";
import { O } from "../constants.ts";

/** Class of users of a file of alice's and group staff: who is in it, and where its bits are. */
const classes: Record<string, { shift: number; who: Identity }> = {
  "the owner": { shift: 6, who: alice },
  "a member of the group": { shift: 3, who: { ...bob, gid: staff } },
  "a member of the group by a supplementary group": { shift: 3, who: { ...bob, groups: [7, staff] } },
  "another user": { shift: 0, who: bob },
};

async function make(fs: Files, mode: number): Promise<void> {
  await fs.writeFile("file", "contents");
  await fs.chown("file", alice.uid, staff);
  await fs.chmod("file", mode);
}

async function makeDir(fs: Files, mode: number): Promise<void> {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "contents", 0o666);
  await fs.chown("dir", alice.uid, staff);
  await fs.chmod("dir", mode);
}

for (const [name, { shift, who }] of Object.entries(classes)) {
  both(`${name} reads a file exactly when their r bit is set`, async (fs) => {
    await make(fs, 4 << shift);
    await fs.as(who).open("file", O.RDONLY);
    await fs.chmod("file", 0o777 & ~(4 << shift));
    await fails("EACCES", fs.as(who).open("file", O.RDONLY));
  });
  both(`${name} writes a file exactly when their w bit is set`, async (fs) => {
    await make(fs, 2 << shift);
    await fs.as(who).open("file", O.WRONLY);
    await fs.chmod("file", 0o777 & ~(2 << shift));
    await fails("EACCES", fs.as(who).open("file", O.WRONLY));
  });
  both(`${name} opens a file to read and write only with both bits`, async (fs) => {
    await make(fs, 6 << shift);
    await fs.as(who).open("file", O.RDWR);
    for (const bits of [4, 2]) {
      await fs.chmod("file", bits << shift);
      await fails("EACCES", fs.as(who).open("file", O.RDWR));
    }
  });
  both(`${name} lists a directory exactly when their r bit is set`, async (fs) => {
    await makeDir(fs, 4 << shift);
    assertEquals((await fs.as(who).readdir("dir")).map((entry) => entry.name), ["file"]);
    await fs.chmod("dir", 0o777 & ~(4 << shift));
    await fails("EACCES", fs.as(who).readdir("dir"));
  });
  both(`${name} reaches names in a directory exactly when their x bit is set`, async (fs) => {
    await makeDir(fs, 1 << shift);
    assertEquals(await fs.as(who).readText("dir/file"), "contents");
    await fs.chmod("dir", 0o777 & ~(1 << shift));
    await fails("EACCES", fs.as(who).stat("dir/file"));
  });
  both(`${name} makes names in a directory exactly when their w and x bits are set`, async (fs) => {
    await makeDir(fs, 3 << shift);
    await fs.as(who).writeFile("dir/new", "");
    for (const bits of [2, 1, 5]) {
      await fs.chmod("dir", (bits << shift) | (0o777 & ~(7 << shift)));
      await fails("EACCES", fs.as(who).writeFile("dir/newer", ""));
    }
  });
  both(`${name} removes names from a directory exactly when their w and x bits are set`, async (fs) => {
    await makeDir(fs, 0o777 & ~(2 << shift));
    await fails("EACCES", fs.as(who).unlink("dir/file"));
    await fs.chmod("dir", 3 << shift);
    await fs.as(who).unlink("dir/file");
  });
}

both("root reads and writes a file whatever its mode", async (fs) => {
  await make(fs, 0);
  await fs.writeFile("file", "by root");
  assertEquals(await fs.readText("file"), "by root");
});

both("root lists, searches and changes a directory whatever its mode", async (fs) => {
  await makeDir(fs, 0);
  assertEquals(await fs.readText("dir/file"), "contents");
  await fs.unlink("dir/file");
  assertEquals(await fs.readdir("dir"), []);
});

both("a user may remove another's file from a directory of their own", async (fs) => {
  await fs.mkdir("dir", 0o755);
  await fs.chown("dir", alice.uid, alice.gid);
  await fs.writeFile("dir/file", "", 0o600);
  await fs.as(alice).unlink("dir/file");
  assertEquals(await fs.readdir("dir"), []);
});

both("an open that is refused leaves the file's contents and times", async (fs) => {
  await make(fs, 0o400);
  const before = await fs.stat("file");
  await fails("EACCES", fs.as(bob).open("file", O.WRONLY | O.TRUNC));
  const after = await fs.stat("file");
  assertEquals([after.size, after.mtime], [before.size, before.mtime]);
});

kernel("a user with the root's group is no root", async (fs) => {
  await fs.writeFile("file", "", 0o604);
  await fails("EACCES", fs.as({ ...bob, gid: 0 }).open("file", O.RDONLY));
});

kernel("a user may be in many groups, and the last one counts", async (fs) => {
  await make(fs, 0o040);
  const groups = [...Array.from({ length: 100 }, (_, i) => 20_000 + i), staff];
  await fs.as({ ...bob, groups }).open("file", O.RDONLY);
});

kernel("chdir() needs permission to search", async (fs) => {
  await fs.mkdir("dir", 0o644);
  await fs.chown("dir", alice.uid, alice.gid);
  await fails("EACCES", fs.as(alice).chdir("dir"));
  await fs.chmod("dir", 0o100);
  await fs.as(alice).chdir("dir");
});

kernel("a working directory that may not be searched any more refuses names", async (fs) => {
  await fs.mkdir("dir", 0o777);
  await fs.writeFile("dir/file", "", 0o666);
  await fs.chdir("dir");
  await fs.chmod(".", 0o666);
  await fails("EACCES", fs.as(alice).open("file", O.RDONLY));
});

both("a right that is taken away on one client is refused on another from then on", async (fs) => {
  await fs.mkdir("dir", 0o755);
  await fs.writeFile("dir/file", "contents");
  const other = (await fs.elsewhere()).as(bob);
  assertEquals(await other.readText("dir/file"), "contents");
  await fs.chmod("dir", 0o700);
  await fails("EACCES", other.stat("dir/file"));
});
