/** chattr(1), which is ioctl(2) with FS_IOC_SETFLAGS: what is immutable does not change, what is append-only only grows. */

import { assertEquals } from "@std/assert";
import { alice, fails, kernel, later, pattern } from "../case.ts";
import { O, RENAME } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

const getFlags = 0x80086601, setFlags = 0x40086602;
const none = 0, immutable = 0x10, appendOnly = 0x20, noSuchFlag = 0x4000_0000;
const xattrCreate = 1;

/** Sets `flags` and clears the others of the two; what else a file system keeps stays. */
async function chattr(fs: Kernel, name: string, flags: number): Promise<void> {
  const file = await fs.open(name, O.RDONLY), argument = new Uint8Array(8);
  const others = await flagsOf(file) & ~(immutable | appendOnly);
  new DataView(argument.buffer).setUint32(0, others | flags, true);
  try {
    await fs.call("ioctl", [file.fd, setFlags, argument]);
  } finally {
    await file.close();
  }
}

async function flagsOf(file: KernelFile): Promise<number> {
  const { out } = await file.fs.call("ioctl", [file.fd, getFlags, { out: 8 }]);
  return new DataView(out[0].buffer, out[0].byteOffset).getUint32(0, true);
}

async function lsattr(fs: Kernel, name: string): Promise<number> {
  const file = await fs.open(name, O.RDONLY), flags = await flagsOf(file);
  await file.close();
  return flags & (immutable | appendOnly);
}

/** Runs `check` while `names` are protected: they can be removed afterwards. */
async function during(fs: Kernel, names: string[], flags: number, check: () => Promise<void>): Promise<void> {
  for (const name of names) await chattr(fs, name, flags);
  try {
    await check();
  } finally {
    for (const name of names) await chattr(fs, name, none);
  }
}

/** A file, one that is far from its name, and directories with a file in them. */
async function prepare(fs: Kernel): Promise<void> {
  for (const dir of ["dir", "other", "third"]) await fs.mkdir(dir);
  await fs.writeFile("file", pattern(5000));
  for (const [number, from] of ["dir", "other", "third"].entries()) {
    await fs.writeFile(`${from}/file`, "x");
    await fs.writeFile(`${from}/moving`, "x");
    await fs.rename(`${from}/moving`, `moved${number}`);
  }
}

const files = ["file", "moved0", "moved1", "moved2"];

for (const [name, flag] of Object.entries({ immutable, "append-only": appendOnly })) {
  kernel(`a file or directory says that it is ${name}, on another client too`, async (fs) => {
    await prepare(fs);
    const elsewhere = await fs.elsewhere();
    for (const what of ["file", "dir"]) {
      assertEquals(await lsattr(elsewhere, what), none);
      await during(fs, [what], flag, async () => {
        assertEquals([await lsattr(fs, what), await lsattr(elsewhere, what)], [flag, flag]);
      });
      assertEquals(await lsattr(elsewhere, what), none);
    }
  });

  kernel(`only root may make a file ${name}`, async (fs) => {
    await fs.writeFile("file", "x");
    await fs.chown("file", alice.uid, alice.gid);
    await fails("EPERM", chattr(fs.as(alice), "file", flag));
    await during(fs, ["file"], flag, () => fails("EPERM", chattr(fs.as(alice), "file", none)));
    await chattr(fs.as(alice), "file", none);
  });

  kernel(`what is ${name} cannot be removed, renamed, replaced or linked`, async (fs) => {
    await prepare(fs);
    const elsewhere = await fs.elsewhere();
    await during(fs, [...files, "dir"], flag, async () => {
      for (const who of [fs, elsewhere]) {
        for (const file of files) {
          await fails("EPERM", who.unlink(file));
          await fails("EPERM", who.rename(file, "new"));
          await fails("EPERM", who.rename(file, "other/new"));
          await fails("EPERM", who.rename("other/file", file));
          await fails("EPERM", who.renameat2(file, "other/file", RENAME.EXCHANGE));
          await fails("EPERM", who.renameat2("other/file", file, RENAME.EXCHANGE));
          await fails("EPERM", who.link(file, "new"));
          await fails("EPERM", who.link(file, "other/new"));
        }
        await fails("EPERM", who.rename("dir", "new"));
        await fails("EPERM", who.rename("dir", "other/new"));
        await fails("EPERM", who.renameat2("other", "dir", RENAME.EXCHANGE));
        await fails("EPERM", who.unlink("dir/file"));
        await fails("EPERM", who.rename("dir/file", "new"));
        await fails("EPERM", who.rename("file", "dir/file"));
      }
    });
    for (const file of files) await fs.unlink(file);
    await fs.unlink("dir/file");
    await during(fs, ["dir"], flag, () => fails("EPERM", fs.rmdir("dir")));
    await fs.rmdir("dir");
  });

  kernel(`of what is ${name}, mode, owner, size, times and extended attributes stay`, async (fs) => {
    await prepare(fs);
    for (const what of ["file", "dir"]) {
      await fs.setxattr(what, "user.kept", "x");
      const before = await fs.stat(what);
      await during(fs, [what], flag, async () => {
        await fails("EPERM", fs.chmod(what, 0o600));
        await fails("EPERM", fs.chown(what, alice.uid, alice.gid));
        await fails("EPERM", fs.utimens(what, 1n, 2n));
        await fails("EPERM", fs.setxattr(what, "user.new", "x", xattrCreate));
        await fails("EPERM", fs.removexattr(what, "user.kept"));
        if (what === "file") await fails("EPERM", fs.truncate(what, 10));
      });
      const { mode, uid, gid, size, mtime } = await fs.stat(what);
      assertEquals([mode, uid, gid, size, mtime], [before.mode, before.uid, before.gid, before.size, before.mtime]);
    }
    await fs.chmod("file", 0o600);
  });

  kernel(`a file that is ${name} is opened for reading, but not to write over it`, async (fs) => {
    await prepare(fs);
    for (const file of files) {
      await during(fs, [file], flag, async () => {
        await fails("EPERM", fs.open(file, O.WRONLY));
        await fails("EPERM", fs.open(file, O.RDWR | O.CREAT));
        await fails("EPERM", fs.open(file, O.WRONLY | O.TRUNC));
        await fails("EPERM", fs.open(file, O.WRONLY | O.CREAT | O.TRUNC));
        assertEquals((await fs.readFile(file)).length, file === "file" ? 5000 : 1);
      });
      await fs.writeFile(file, "new");
    }
  });
}

kernel("an immutable file is not opened to append to it", async (fs) => {
  await fs.writeFile("file", "x");
  await during(fs, ["file"], immutable, () => fails("EPERM", fs.open("file", O.WRONLY | O.APPEND)));
});

kernel("an append-only file is appended to", async (fs) => {
  await fs.writeFile("file", "x");
  await during(fs, ["file"], appendOnly, async () => {
    const file = await fs.open("file", O.WRONLY | O.APPEND);
    await file.write("y");
    await fails("EPERM", file.fallocate(3, 0, 4096));
    await file.close();
  });
  assertEquals(await fs.readText("file"), "xy");
});

kernel(
  "utimensat() with the time of now moves the times of an append-only file, and not of an immutable one",
  async (fs) => {
    await fs.writeFile("file", "x");
    const { mtime } = await fs.stat("file");
    await later();
    await during(fs, ["file"], immutable, () => fails("EPERM", fs.utimens("file", "now", "now")));
    assertEquals((await fs.stat("file")).mtime, mtime);
    await during(fs, ["file"], appendOnly, () => fs.utimens("file", "now", "now"));
    assertEquals((await fs.stat("file")).mtime > mtime, true);
  },
);

kernel("nothing comes into an immutable directory", async (fs) => {
  await prepare(fs);
  await during(fs, ["dir"], immutable, async () => {
    await fails("EPERM", fs.open("dir/new", O.WRONLY | O.CREAT));
    await fails("EPERM", fs.open("dir", O.WRONLY | O.TMPFILE));
    await fails("EPERM", fs.mkdir("dir/new"));
    await fails("EPERM", fs.symlink("target", "dir/new"));
    await fails("EPERM", fs.make("fifo", "dir/new"));
    await fails("EPERM", fs.link("file", "dir/new"));
    for (const what of ["file", "moved1", "other"]) await fails("EPERM", fs.rename(what, "dir/new"));
    const file = await fs.open("dir/file", O.RDWR | O.CREAT);
    await file.write("y");
    await file.close();
  });
  assertEquals(await fs.readText("dir/file"), "y");
});

kernel("an append-only directory takes new names", async (fs) => {
  await prepare(fs);
  await during(fs, ["dir"], appendOnly, async () => {
    await fs.writeFile("dir/new", "x");
    await fs.mkdir("dir/sub");
    await fs.rename("file", "dir/moved");
    await fails("EPERM", fs.rename("dir/new", "dir/newer"));
  });
  assertEquals((await fs.readdir("dir")).length, 4);
});

kernel("a flag that is not kept is EOPNOTSUPP, and changes nothing", async (fs) => {
  await fs.writeFile("file", "x");
  await fails("EOPNOTSUPP", chattr(fs, "file", noSuchFlag | immutable));
  assertEquals(await lsattr(fs, "file"), none);
});
