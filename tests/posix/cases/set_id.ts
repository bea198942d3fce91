/** setuid and setgid: what sets, keeps and clears them. */

import { assertEquals } from "@std/assert";
import { alice, bob, both, type Files, kernel, root, staff } from "../case.ts";
import { FALLOC, O, S } from "../constants.ts";

async function modeOf(fs: Files, path = "file"): Promise<string> {
  return ((await fs.stat(path)).mode & 0o7777).toString(8);
}

/** A file of alice's and group staff with this mode. */
async function make(fs: Files, mode: number): Promise<void> {
  await fs.writeFile("file", "contents");
  await fs.chown("file", alice.uid, staff);
  await fs.chmod("file", mode);
}

for (const [name, who] of Object.entries({ "another user": bob, "the owner": alice })) {
  both(`write() by ${name} clears setuid and setgid`, async (fs) => {
    await make(fs, 0o6777);
    await (await fs.as(who).open("file", O.WRONLY)).write("x");
    assertEquals(await modeOf(fs), "777");
  });
  both(`truncate() by ${name} clears setuid and setgid`, async (fs) => {
    await make(fs, 0o6777);
    await fs.as(who).truncate("file", 3);
    assertEquals(await modeOf(fs), "777");
  });
  both(`open() with O_TRUNC by ${name} clears setuid and setgid`, async (fs) => {
    await make(fs, 0o6777);
    await fs.as(who).open("file", O.WRONLY | O.TRUNC);
    assertEquals(await modeOf(fs), "777");
  });
  kernel(`ftruncate() by ${name} clears setuid and setgid`, async (fs) => {
    await make(fs, 0o6777);
    await (await fs.as(who).open("file", O.RDWR)).ftruncate(3);
    assertEquals(await modeOf(fs), "777");
  });
  kernel(`fallocate() by ${name} clears setuid and setgid`, async (fs) => {
    await make(fs, 0o6777);
    await (await fs.as(who).open("file", O.RDWR)).fallocate(0, 0, 10_000);
    assertEquals(await modeOf(fs), "777");
  });
  kernel(`punching a hole by ${name} clears setuid and setgid`, async (fs) => {
    await make(fs, 0o6777);
    const file = await fs.as(who).open("file", O.RDWR);
    await file.fallocate(FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, 0, 4);
    assertEquals(await modeOf(fs), "777");
  });
}

both("open() with O_CREAT and O_TRUNC by a user keeps setuid and setgid of the file that it makes", async (fs) => {
  await fs.mkdir("dir");
  await fs.chmod("dir", 0o777);
  await fs.as(bob).open("dir/file", O.WRONLY | O.CREAT | O.TRUNC, 0o6755);
  assertEquals(await modeOf(fs, "dir/file"), "6755");
});

both("write() by root keeps setuid and setgid", async (fs) => {
  await make(fs, 0o6777);
  await (await fs.open("file", O.WRONLY)).write("x");
  assertEquals(await modeOf(fs), "6777");
});

both("truncate() by root keeps setuid and setgid", async (fs) => {
  await make(fs, 0o6777);
  await fs.truncate("file", 1);
  assertEquals(await modeOf(fs), "6777");
});

both("a read clears neither setuid nor setgid", async (fs) => {
  await make(fs, 0o6777);
  await fs.as(bob).readFile("file");
  assertEquals(await modeOf(fs), "6777");
});

both("write() clears setuid of a file that nobody may execute", async (fs) => {
  await make(fs, 0o4666);
  await (await fs.as(bob).open("file", O.WRONLY)).write("x");
  assertEquals(await modeOf(fs), "666");
});

both("write() by a member of the group leaves setgid without group execution: it marks a lock", async (fs) => {
  await make(fs, 0o2767);
  await fs.chmod("file", 0o2747);
  await (await fs.as({ ...bob, uid: alice.uid, gid: staff }).open("file", O.WRONLY)).write("x");
  assertEquals(await modeOf(fs), "2747");
});

both("write() of a file with group execution clears setgid for a member of the group too", async (fs) => {
  await make(fs, 0o2777);
  await (await fs.as({ ...bob, gid: staff }).open("file", O.WRONLY)).write("x");
  assertEquals(await modeOf(fs), "777");
});

both("the sticky bit of a file stays when it is written", async (fs) => {
  await make(fs, 0o1777);
  await (await fs.as(bob).open("file", O.WRONLY)).write("x");
  assertEquals(await modeOf(fs), "1777");
});

both("an append by another user clears setuid and setgid", async (fs) => {
  await make(fs, 0o6777);
  await (await fs.as(bob).open("file", O.WRONLY | O.APPEND)).write("x");
  assertEquals(await modeOf(fs), "777");
});

kernel("copy_file_range() by another user clears setuid and setgid of its target", async (fs) => {
  await make(fs, 0o6777);
  await fs.writeFile("source", "source", 0o644);
  const from = await fs.as(bob).open("source", O.RDONLY), to = await fs.as(bob).open("file", O.WRONLY);
  await from.copyTo(to, { from: 0, to: 0, length: 6 });
  assertEquals(await modeOf(fs), "777");
});

both("chown() by the owner clears setuid and setgid of an executable file", async (fs) => {
  await make(fs, 0o6755);
  await fs.as({ ...alice, groups: [staff] }).chown("file", -1, staff);
  assertEquals(await modeOf(fs), "755");
});

both("chown() by root clears setuid and setgid of an executable file", async (fs) => {
  await make(fs, 0o6755);
  await fs.chown("file", bob.uid, bob.gid);
  assertEquals(await modeOf(fs), "755");
});

kernel("chown() of no ids by the owner or by root clears setuid and setgid too", async (fs) => {
  for (const who of [alice, root]) {
    await make(fs, 0o6755);
    await fs.as(who).chown("file", -1, -1);
    assertEquals(await modeOf(fs), "755");
  }
});

kernel("chown() of no ids by somebody else leaves setuid and setgid", async (fs) => {
  await make(fs, 0o6755);
  await fs.as(bob).chown("file", -1, -1).catch(() => {});
  assertEquals(await modeOf(fs), "6755");
});

both("chown() by root keeps setgid of a file without group execution", async (fs) => {
  await make(fs, 0o2644);
  await fs.chown("file", bob.uid, -1);
  assertEquals(await modeOf(fs), "2644");
});

both("chown() of a directory keeps setuid and setgid", async (fs) => {
  await fs.mkdir("dir");
  await fs.chmod("dir", 0o6755);
  await fs.chown("dir", bob.uid, bob.gid);
  assertEquals(await modeOf(fs, "dir"), "6755");
});

both("chmod() by root sets setuid and setgid of another's file", async (fs) => {
  await make(fs, 0o755);
  await fs.chmod("file", 0o6755);
  assertEquals(await modeOf(fs), "6755");
});

kernel("a file made with setgid in a group that its maker is in keeps it", async (fs) => {
  await fs.chmod(".", 0o777);
  await fs.as(alice).open("file", O.WRONLY | O.CREAT, 0o2775);
  assertEquals(await modeOf(fs), "2775");
});

kernel("a file made with setgid in a setgid directory of a foreign group loses it", async (fs) => {
  await fs.mkdir("dir");
  await fs.chown("dir", 0, staff);
  await fs.chmod("dir", 0o2777);
  await fs.as(alice).open("dir/file", O.WRONLY | O.CREAT, 0o2775);
  assertEquals([await modeOf(fs, "dir/file"), (await fs.stat("dir/file")).gid], ["775", staff]);
});

kernel("a file made with setgid in a setgid directory of a supplementary group keeps it", async (fs) => {
  await fs.mkdir("dir");
  await fs.chown("dir", 0, staff);
  await fs.chmod("dir", 0o2777);
  await fs.as({ ...alice, groups: [staff] }).open("dir/file", O.WRONLY | O.CREAT, 0o2775);
  assertEquals([await modeOf(fs, "dir/file"), (await fs.stat("dir/file")).gid], ["2775", staff]);
});

kernel("a file made with setgid but without group execution in a setgid directory keeps it", async (fs) => {
  await fs.mkdir("dir");
  await fs.chown("dir", 0, staff);
  await fs.chmod("dir", 0o2777);
  await fs.as({ ...alice, groups: [staff] }).open("dir/file", O.WRONLY | O.CREAT, 0o2764);
  assertEquals(await modeOf(fs, "dir/file"), "2764");
});

both("a file made in a setgid directory is not setgid itself", async (fs) => {
  await fs.mkdir("dir");
  await fs.chown("dir", 0, staff);
  await fs.chmod("dir", 0o2777);
  await fs.as(alice).writeFile("dir/file", "", 0o755);
  assertEquals(await modeOf(fs, "dir/file"), "755");
});

kernel("a fifo and a symbolic link made in a setgid directory have its group", async (fs) => {
  await fs.mkdir("dir");
  await fs.chown("dir", 0, staff);
  await fs.chmod("dir", 0o2777);
  await fs.as(alice).make("fifo", "dir/fifo");
  await fs.as(alice).symlink("target", "dir/link");
  assertEquals([(await fs.lstat("dir/fifo")).gid, (await fs.lstat("dir/link")).gid], [staff, staff]);
});

kernel("a mapping that is only read keeps setuid", async (fs) => {
  await make(fs, 0o4777);
  const file = await fs.as(bob).open("file", O.RDONLY);
  await (await file.mmap(4096, 1, 1)).get(0, 4);
  assertEquals(await modeOf(fs), "4777");
});

kernel("rename() and link() keep setuid", async (fs) => {
  await make(fs, S.ISUID | 0o755);
  await fs.rename("file", "moved");
  await fs.link("moved", "second");
  assertEquals(await modeOf(fs, "second"), "4755");
});
