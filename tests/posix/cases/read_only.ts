/** A file system that is mounted or opened read-only: EROFS for every change, everything else as ever. */

import { assertEquals } from "@std/assert";
import { alice, both, fails, type Files, kernel, text } from "../case.ts";
import { ACCESS, LOCK, O, S } from "../constants.ts";
import { fileTypes, type Kernel } from "../kernel.ts";

/** A file, a directory with nothing in it, a link. */
async function prepare<F extends Files>(fs: F): Promise<F> {
  await fs.writeFile("file", "contents", 0o666);
  await fs.setxattr("file", "user.name", "value");
  await fs.mkdir("dir", 0o777);
  await fs.symlink("file", "link");
  return await fs.readOnly() as F;
}

const changes: Record<string, (fs: Files) => Promise<unknown>> = {
  "open() to write": (fs) => fs.open("file", O.WRONLY),
  "open() to read and write": (fs) => fs.open("file", O.RDWR),
  "open() with O_TRUNC": (fs) => fs.open("file", O.WRONLY | O.TRUNC),
  "open() with O_CREAT of an absent name": (fs) => fs.open("new", O.WRONLY | O.CREAT),
  "mkdir()": (fs) => fs.mkdir("new"),
  "rmdir()": (fs) => fs.rmdir("dir"),
  "unlink()": (fs) => fs.unlink("file"),
  "rename()": (fs) => fs.rename("file", "new"),
  "link()": (fs) => fs.link("file", "new"),
  "symlink()": (fs) => fs.symlink("target", "new"),
  "chmod()": (fs) => fs.chmod("file", 0o600),
  "chown()": (fs) => fs.chown("file", 1, 1),
  "lchown() of a link": (fs) => fs.lchown("link", 1, 1),
  "truncate()": (fs) => fs.truncate("file", 0),
  "utimensat()": (fs) => fs.utimens("file", 0n, 0n),
  "setxattr()": (fs) => fs.setxattr("file", "user.name", "new"),
  "removexattr()": (fs) => fs.removexattr("file", "user.name"),
};

for (const [name, change] of Object.entries(changes)) {
  both(`${name} is EROFS`, async (fs) => {
    const readOnly = await prepare(fs);
    const before = await fs.stat("file");
    await fails("EROFS", change(readOnly));
    assertEquals([await fs.readText("file"), (await fs.stat("file")).ctime], ["contents", before.ctime]);
    assertEquals((await fs.readdir(".")).length, 3);
  });
}

const kernelChanges: Record<string, (fs: Kernel) => Promise<unknown>> = {
  "mknod()": (fs) => fs.mknod("new", S.IFIFO | 0o644),
  "fchmod()": async (fs) => await (await fs.open("file", O.RDONLY)).fchmod(0o600),
  "fchown()": async (fs) => await (await fs.open("file", O.RDONLY)).fchown(1, 1),
  "futimens()": async (fs) => await (await fs.open("file", O.RDONLY)).futimens(0n, 0n),
  "access() to write": (fs) => fs.access("file", ACCESS.W),
  "access() to write to a directory": (fs) => fs.access("dir", ACCESS.W),
  "renameat2() with RENAME_EXCHANGE": (fs) => fs.renameat2("file", "link", 2),
};

for (const [name, change] of Object.entries(kernelChanges)) {
  kernel(`${name} is EROFS`, async (fs) => {
    await fails("EROFS", change(await prepare(fs)));
  });
}

for (const type of fileTypes) {
  kernel(`mkdir() where there is a ${type} is EEXIST also where nothing can be made`, async (fs) => {
    await fs.make(type, "name");
    await fails("EEXIST", (await fs.readOnly()).mkdir("name"));
  });
}

both("a change that is not permitted either is still refused", async (fs) => {
  const readOnly = await prepare(fs);
  await fs.chmod("file", 0o600);
  await fails(["EROFS", "EACCES"], readOnly.as(alice).open("file", O.WRONLY));
});

both("everything can be read", async (fs) => {
  const readOnly = await prepare(fs);
  assertEquals([await readOnly.readText("file"), await readOnly.readlink("link")], ["contents", "file"]);
  assertEquals(text(await readOnly.getxattr("file", "user.name")), "value");
  assertEquals((await readOnly.readdir(".")).map(({ name }) => name).sort(), ["dir", "file", "link"]);
});

both("what another client changes is seen at once", async (fs) => {
  const readOnly = await prepare(fs);
  const file = await readOnly.open("file", O.RDONLY);
  assertEquals(text(await file.pread(100, 0)), "contents");
  await fs.writeFile("file", "changed");
  await fs.writeFile("dir/new", "made");
  assertEquals([text(await file.pread(100, 0)), await readOnly.readText("dir/new")], ["changed", "made"]);
});

both("an absent name is ENOENT to read", async (fs) => {
  await fails("ENOENT", (await prepare(fs)).readFile("none"));
});

both("a file can be locked", async (fs) => {
  const readOnly = await prepare(fs);
  await (await readOnly.open("file", O.RDONLY)).flock(LOCK.SH | LOCK.NB);
  await fails("EAGAIN", (await fs.open("file", O.RDWR)).flock(LOCK.EX | LOCK.NB));
});

kernel("open() with O_CREAT of what is there works to read", async (fs) => {
  await (await prepare(fs)).open("file", O.RDONLY | O.CREAT);
});

kernel("a fifo can be opened to write", async (fs) => {
  await fs.make("fifo", "fifo");
  await (await fs.readOnly()).open("fifo", O.RDWR);
});

kernel("a program runs", async (fs) => {
  await fs.writeFile("program", await Deno.readFile("/usr/bin/echo"), 0o755);
  assertEquals((await (await fs.readOnly()).run(["./program", "read-only"])).stdout, "read-only\n");
});
