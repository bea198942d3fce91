import { assert, assertEquals, assertRejects } from "@std/assert";
import { slotBytes } from "../../ffi/library/messages.ts";
import type { Volume } from "../../ffi/library/volume.ts";
import {
  agreeWithLocal,
  localFiles,
  openMemoryVolume,
  outcome,
  snapshot,
  startMemoryWorker,
  type Step,
  step,
  withMemoryVolume,
} from "./library_volumes.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (view: Uint8Array) => new TextDecoder().decode(view);

/** Bytes that differ all over. */
function pattern(length: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(length), words = new Uint32Array(data.buffer, 0, length >> 2);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i, 2654435761);
  return data;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Runs the same steps on a volume and on the local file system and compares what each came to. */
async function compare(steps: Step[], volume: Volume) {
  const root = await Deno.realPath(await Deno.makeTempDir({ prefix: "sealfs-local-" }));
  try {
    const local = localFiles(root);
    for (const { say, run } of steps) {
      const expected = await outcome(() => run(local), root);
      assertEquals(await outcome(() => run(volume)), expected, say);
    }
    assertEquals(await snapshot(volume), await snapshot(local));
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

Deno.test({
  name: "Volume gives Deno's results and errors, word for word, when the same steps run on both (needs root)",
  ignore: Deno.uid() !== 0,
  fn: async () => {
    await withMemoryVolume(async (volume) => {
      await compare([
        step("read absent", (fs) => fs.readTextFile("no")),
        step("read empty path", (fs) => fs.readTextFile("")),
        step("write in absent", (fs) => fs.writeTextFile("no/f", "x")),
        step("write", (fs) => fs.writeTextFile("f", "content")),
        step("read", (fs) => fs.readTextFile("f")),
        step("append", (fs) => fs.writeTextFile("f", "+", { append: true })),
        step("replace", (fs) => fs.writeTextFile("f", "short")),
        step("createNew", (fs) => fs.writeTextFile("f", "x", { createNew: true })),
        step("no create", (fs) => fs.writeTextFile("g", "x", { create: false })),
        step("mode", (fs) => fs.writeTextFile("m", "x", { mode: 0o777 })),
        step("mode again", (fs) => fs.writeTextFile("m", "x", { mode: 0o606 })),
        step("mkdir", (fs) => fs.mkdir("d")),
        step("mkdir again", (fs) => fs.mkdir("d")),
        step("mkdir on file", (fs) => fs.mkdir("f")),
        step("mkdir below absent", (fs) => fs.mkdir("no/no")),
        step("mkdir below file", (fs) => fs.mkdir("f/no")),
        step("mkdir recursive", (fs) => fs.mkdir("d/e/f/g", { recursive: true, mode: 0o750 })),
        step("mkdir recursive again", (fs) => fs.mkdir("d/e", { recursive: true })),
        step("mkdir recursive on file", (fs) => fs.mkdir("f", { recursive: true })),
        step("mkdir recursive below file", (fs) => fs.mkdir("f/x/y", { recursive: true })),
        step("read directory", (fs) => fs.readTextFile("d")),
        step("write directory", (fs) => fs.writeTextFile("d", "x")),
        step("write with slash", (fs) => fs.writeTextFile("new/", "x")),
        step("symlink", (fs) => fs.symlink("d/e", "l")),
        step("symlink to file", (fs) => fs.symlink("f", "lf")),
        step("symlink again", (fs) => fs.symlink("x", "l")),
        step("dangling", (fs) => fs.symlink("nowhere", "dangling")),
        step("loop", (fs) => fs.symlink("loop", "loop")),
        step("read loop", (fs) => fs.readTextFile("loop")),
        step("read dangling", (fs) => fs.readTextFile("dangling")),
        step("write dangling", (fs) => fs.writeTextFile("dangling", "made")),
        step("readLink", (fs) => fs.readLink("l")),
        step("readLink of file", (fs) => fs.readLink("f")),
        step("readLink absent", (fs) => fs.readLink("no")),
        step("realPath", (fs) => fs.realPath("l/f/../../e/./f/g")),
        step("realPath absent", (fs) => fs.realPath("l/no")),
        step("realPath root", (fs) => fs.realPath(".")),
        step("through file", (fs) => fs.readTextFile("f/x")),
        step("long name", (fs) => fs.writeTextFile("n".repeat(256), "x")),
        step("long path", (fs) => fs.readTextFile("./".repeat(3000) + "f")),
        step("readDir", async (fs) => (await Array.fromAsync(fs.readDir("d/e"))).map((entry) => ({ ...entry }))),
        step("readDir of file", (fs) => Array.fromAsync(fs.readDir("f"))),
        step("readDir absent", (fs) => Array.fromAsync(fs.readDir("no"))),
        step("link", (fs) => fs.link("f", "hard")),
        step("link directory", (fs) => fs.link("d", "hard2")),
        step("link exists", (fs) => fs.link("f", "hard")),
        step("link of link", (fs) => fs.link("lf", "hardlink")),
        step("rename", (fs) => fs.rename("hard", "renamed")),
        step("rename onto same", (fs) => fs.rename("renamed", "f")),
        step("rename into itself", (fs) => fs.rename("d", "d/e/x")),
        step("rename onto filled", (fs) => fs.rename("d/e/f", "d")),
        step("rename file onto directory", (fs) => fs.rename("f", "d/e")),
        step("rename directory onto file", (fs) => fs.rename("d", "f")),
        step("rename absent", (fs) => fs.rename("no", "x")),
        step("rename dot", (fs) => fs.rename("d/.", "x")),
        step("rename with slash", (fs) => fs.rename("f/", "x")),
        step("rename directory with slashes", (fs) => fs.rename("d/e/f/", "moved/")),
        step("chmod", (fs) => fs.chmod("lf", 0o4711)),
        step("chmod absent", (fs) => fs.chmod("no", 0o644)),
        step("truncate", (fs) => fs.truncate("f", 2)),
        step("truncate longer", (fs) => fs.truncate("f", 6)),
        step("truncate directory", (fs) => fs.truncate("d", 0)),
        step("truncate absent", (fs) => fs.truncate("no", 0)),
        step("copy", (fs) => fs.copyFile("lf", "copied")),
        step("copy over", (fs) => fs.copyFile("m", "copied")),
        step("copy absent", (fs) => fs.copyFile("no", "copied")),
        step("copy into absent", (fs) => fs.copyFile("f", "no/x")),
        step("utime", async (fs) => {
          await fs.utime("f", 1.5, new Date(2500));
          const { atime, mtime } = await fs.stat("f");
          return [atime, mtime];
        }),
        step("utime before 1970", async (fs) => {
          await fs.utime("f", -1.25, -2);
          const { atime, mtime } = await fs.stat("f");
          return [atime, mtime];
        }),
        step("utime absent", (fs) => fs.utime("no", 0, 0)),
        step("stat", async (fs) => {
          const { isFile, isDirectory, isSymlink, size, mode, nlink, uid, gid, rdev } = await fs.stat("lf");
          return { isFile, isDirectory, isSymlink, size, mode, nlink, uid, gid, rdev };
        }),
        step("lstat", async (fs) => {
          const { isFile, isDirectory, isSymlink, size, nlink } = await fs.lstat("lf");
          return { isFile, isDirectory, isSymlink, size, nlink };
        }),
        step("remove filled", (fs) => fs.remove("d")),
        step("remove link", (fs) => fs.remove("l")),
        step("remove absent", (fs) => fs.remove("no")),
        step("remove below file", (fs) => fs.remove("f/x")),
        step("remove all of absent", (fs) => fs.remove("no", { recursive: true })),
        step("remove all of file", (fs) => fs.remove("copied", { recursive: true })),
        step("remove empty", (fs) => fs.remove("moved/g")),
        step("remove all", (fs) => fs.remove("d", { recursive: true })),
      ], volume);
    });
  },
});

Deno.test({
  name: "Volume agrees with the local file system when random steps run on both (needs root)",
  ignore: Deno.uid() !== 0,
  fn: async () => {
    await withMemoryVolume(async (volume) => await agreeWithLocal(volume, 40));
  },
});

Deno.test("Volume moves large contents whole when they take many pieces", async () => {
  await withMemoryVolume(async (volume) => {
    for (const length of [0, 1, slotBytes - 1, slotBytes, slotBytes + 1, 9 * slotBytes + 12345]) {
      const data = pattern(length);
      await volume.writeFile("f", data);
      assertEquals((await volume.stat("f")).size, length);
      assert(sameBytes(await volume.readFile("f"), data), `${length} bytes`);
    }
    const data = pattern(3 * slotBytes + 7);
    await volume.writeFile("a", data);
    await volume.writeFile("a", data, { append: true });
    const twice = await volume.readFile("a");
    assert(sameBytes(twice.subarray(0, data.length), data) && sameBytes(twice.subarray(data.length), data));
  });
});

Deno.test("Volume.readFile() and writeFile() take streams and stop when their signal says so", async () => {
  await withMemoryVolume(async (volume) => {
    const chunks = [pattern(100_000), pattern(1), pattern(1_500_000)];
    await volume.writeFile("f", ReadableStream.from(chunks), { mode: 0o640 });
    const info = await volume.stat("f");
    assertEquals([info.size, (info.mode ?? 0) & 0o777], [1_600_001, 0o640]);
    await volume.writeTextFile("t", ReadableStream.from(["one ", "two"]));
    await volume.writeTextFile("t", ReadableStream.from([" three"]), { append: true });
    assertEquals(await volume.readTextFile("t"), "one two three");
    const signal = AbortSignal.abort();
    await assertRejects(() => volume.readFile("f", { signal }), DOMException);
    await assertRejects(() => volume.writeFile("x", new Uint8Array(1), { signal }), DOMException);
    assertEquals(await volume.exists("x"), false);
    const failing = ReadableStream.from((function* () {
      yield pattern(10);
      throw new Error("the source broke");
    })());
    await assertRejects(() => volume.writeFile("y", failing), Error, "the source broke");
    assertEquals((await volume.stat("y")).size, 10);
  });
});

Deno.test("VolumeFile reads, writes and seeks from its position when calls overlap", async () => {
  await withMemoryVolume(async (volume) => {
    await using file = await volume.open("f", { read: true, write: true, create: true });
    await Promise.all(["0123", "4567", "89"].map((part) => file.write(bytes(part))));
    assertEquals(await file.seek(-3, Deno.SeekMode.End), 7);
    const into = new Uint8Array(2);
    assertEquals(await file.read(into), 2);
    assertEquals(text(into), "78");
    assertEquals(await file.read(into), 1);
    assertEquals(await file.read(into), null);
    assertEquals(await file.read(new Uint8Array(0)), 0);
    assertEquals(await file.seek(2, Deno.SeekMode.Start), 2);
    assertEquals(await file.seek(1n, Deno.SeekMode.Current), 3);
    await assertRejects(() => file.seek(-4, Deno.SeekMode.Current), TypeError, "seek 'f'");
    assertEquals(await file.readAt(into, 5), 2);
    assertEquals(text(into), "56");
    await file.writeAt(bytes("XX"), 20);
    await file.truncate(21);
    assertEquals((await file.stat()).size, 21);
    await file.utime(5, 6);
    assertEquals((await file.stat()).mtime, new Date(6000));
    await file.sync();
    await file.syncData();
    assertEquals(await volume.readTextFile("f"), "0123456789" + "\0".repeat(10) + "X");
  });
});

Deno.test("VolumeFile streams its contents and closes at their end", async () => {
  await withMemoryVolume(async (volume) => {
    const data = pattern(1_000_000);
    const out = await volume.create("f");
    await ReadableStream.from([data.subarray(0, 300_000), data.subarray(300_000)]).pipeTo(out.writable);
    await assertRejects(() => out.stat(), Deno.errors.BadResource);
    const source = await volume.open("f");
    const read = new Uint8Array(await new Response(source.readable).arrayBuffer());
    assert(sameBytes(read, data));
    await assertRejects(() => source.stat(), Deno.errors.BadResource);
    const cancelled = await volume.open("f");
    const reader = cancelled.readable.getReader();
    await reader.read();
    await reader.cancel();
    await assertRejects(() => cancelled.stat(), Deno.errors.BadResource);
  });
});

Deno.test("VolumeFile refuses what it was not opened for, and everything once closed", async () => {
  await withMemoryVolume(async (volume) => {
    await volume.writeTextFile("f", "x");
    const reader = await volume.open("f");
    const error = await assertRejects(
      () => reader.write(bytes("y")),
      Error,
      "Bad file descriptor (os error 9): write 'f'",
    );
    assertEquals((error as Error & { code: string }).code, "EBADF");
    await assertRejects(() => reader.truncate(0), TypeError);
    const appender = await volume.open("f", { append: true });
    await assertRejects(() => appender.read(new Uint8Array(1)), Error, "Bad file descriptor");
    await assertRejects(() => appender.writeAt(bytes("y"), 0), TypeError);
    assertEquals(await appender.write(bytes("yz")), 2);
    assertEquals(await appender.seek(0, Deno.SeekMode.Current), 3);
    await appender.close();
    assertEquals(await volume.readTextFile("f"), "xyz");
    reader.close();
    let thrown: unknown;
    try {
      reader.close();
    } catch (error) {
      thrown = error;
    }
    assert(thrown instanceof Deno.errors.BadResource);
    reader[Symbol.dispose]();
    await assertRejects(() => reader.read(new Uint8Array(1)), Deno.errors.BadResource);
    for (const options of [{}, { read: true, create: true }, { append: true, truncate: true }, { truncate: true }]) {
      await assertRejects(() => volume.open("g", options), Error, "require");
    }
    assertEquals(await volume.exists("g"), false);
  });
});

Deno.test("VolumeFile.lock() keeps others out until it is unlocked or closed", async () => {
  await withMemoryVolume(async (volume) => {
    await volume.writeTextFile("f", "");
    const [one, two, three] = await Promise.all([1, 2, 3].map(() => volume.open("f")));
    await one.lock(true);
    assertEquals(await two.tryLock(), false);
    const order: string[] = [];
    const waiting = two.lock(true).then(() => order.push("two has it"));
    order.push("unlock");
    await one.unlock();
    await waiting;
    assertEquals(order, ["unlock", "two has it"]);
    const blocked = three.lock();
    const refused = assertRejects(() => blocked, Deno.errors.Interrupted);
    await three.close();
    await refused;
    await two.close();
    assertEquals(await one.tryLock(true), true);
    await one.close();
  });
});

Deno.test("Volume.lock() does not hold others up when more of them wait than there may be calls", async () => {
  await withMemoryVolume(async (volume) => {
    await volume.writeTextFile("f", "x");
    const holder = await volume.open("f");
    await holder.lock(true);
    const files = await Promise.all(Array.from({ length: 400 }, () => volume.open("f")));
    const locked = Promise.all(files.map((file) => file.lock()));
    assertEquals(await volume.readTextFile("f"), "x");
    await holder.close();
    await locked;
    await Promise.all(files.map((file) => file.close()));
  });
});

Deno.test("Volume serves many operations at once and mixes none of them up", async () => {
  await withMemoryVolume(async (_, link) => {
    const volume = await openMemoryVolume(link, 2);
    await Promise.all(Array.from({ length: 600 }, async (_, i) => {
      await volume.writeFile(`f${i}`, pattern(4 * (i % 40) * 97));
      const read = await volume.readFile(`f${i}`);
      assert(sameBytes(read, pattern(4 * (i % 40) * 97)), `file ${i}`);
      if (i % 3 === 0) await volume.rename(`f${i}`, `g${i}`);
    }));
    const names = (await Array.fromAsync(volume.readDir("/"))).map((entry) => entry.name);
    assertEquals(names.length, 600);
    assertEquals(names.filter((name) => name.startsWith("g")).length, 200);
    await volume.close();
  });
});

Deno.test("Volume.readDir() gives every entry once when a directory has many pages", async () => {
  await withMemoryVolume(async (volume) => {
    await volume.mkdir("d");
    const long = "n".repeat(200);
    await Promise.all(Array.from({ length: 1500 }, (_, i) => volume.writeFile(`d/${long}${i}`, new Uint8Array())));
    const names = new Set<string>();
    for await (const entry of volume.readDir("d")) {
      assert(entry.isFile && !names.has(entry.name));
      names.add(entry.name);
    }
    assertEquals(names.size, 1500);
    for await (const entry of volume.readDir("d")) await volume.remove(`d/${entry.name}`);
    await volume.remove("d");
  });
});

Deno.test("Volume keeps extended attributes and tells statfs, owners and names", async () => {
  await withMemoryVolume(async (volume) => {
    await volume.writeTextFile("f", "x");
    await volume.setXattr("f", "user.color", bytes("red"));
    assertEquals(text(await volume.getXattr("f", "user.color")), "red");
    assertEquals(await volume.listXattr("f"), ["user.color"]);
    await assertRejects(
      () => volume.setXattr("f", "user.color", bytes("x"), { create: true }),
      Deno.errors.AlreadyExists,
      "setxattr 'f' 'user.color'",
    );
    await volume.removeXattr("f", "user.color");
    const error = await assertRejects(() => volume.getXattr("f", "user.color"), Error);
    assertEquals((error as Error & { code: string }).code, "ENODATA");
    await assertRejects(() => volume.setXattr("f", "user.big", new Uint8Array(65537)), Error, "Argument list too long");
    await volume.chown("f", 12, 34);
    const info = await volume.stat("f");
    assertEquals([info.uid, info.gid, info.ino === 1, (await volume.stat("/")).ino], [12, 34, false, 1]);
    await volume.symlink("f", "l");
    await volume.chown("l", 56, null, { follow: false });
    assertEquals([(await volume.lstat("l")).uid, (await volume.stat("l")).uid], [56, 12]);
    const totals = await volume.statfs();
    assert(totals.usedBytes > 0 && totals.usedBytes + totals.availableBytes === totals.sizeBytes);
    await volume.writeTextFile("ä/".normalize().slice(0, 1) + "€😀", "text");
    assert((await Array.fromAsync(volume.readDir("."))).some((entry) => entry.name === "ä€😀"));
    await assertRejects(() => volume.stat("a\0b"), TypeError);
    await assertRejects(() => volume.stat("x".repeat(100_000)), Error, "File name too long");
  });
});

Deno.test("Volume checks permissions when it works for somebody else than root", async () => {
  await withMemoryVolume(async (volume, link) => {
    await using other = await openMemoryVolume(link, 1, { uid: 1000, gid: 1000, groups: [7] });
    const denied = await assertRejects(() => other.mkdir("d"), Deno.errors.PermissionDenied, "mkdir 'd'");
    assertEquals((denied as Error & { code: string }).code, "EACCES");
    await volume.mkdir("shared");
    await volume.chown("shared", null, 7);
    await volume.chmod("shared", 0o775);
    await other.writeTextFile("shared/f", "mine");
    const { uid, gid, mode } = await volume.stat("shared/f");
    assertEquals([uid, gid, (mode ?? 0) & 0o777], [1000, 1000, 0o644]);
    await volume.chmod("shared/f", 0);
    await assertRejects(() => other.readFile("shared/f"), Deno.errors.PermissionDenied);
    assertEquals(await volume.readTextFile("shared/f"), "mine");
  });
});

Deno.test("Volume.close() closes its files and refuses what comes after", async () => {
  await withMemoryVolume(async (volume, link) => {
    const other = await openMemoryVolume(link);
    const file = await other.create("f");
    await other.close();
    await other.close();
    await assertRejects(() => file.write(bytes("x")), Error, "Bad file descriptor");
    await assertRejects(() => other.stat("f"), Deno.errors.BadResource, "volume memory1 is closed");
    await file.close();
    assertEquals(await volume.readTextFile("f"), "");
  });
});

Deno.test("WorkerLink ends every call with an error when its Worker dies", async () => {
  const link = await startMemoryWorker();
  const volume = await openMemoryVolume(link);
  await volume.writeTextFile("f", "x");
  const file = await volume.open("f");
  await file.lock(true);
  const second = await volume.open("f");
  const waiting = assertRejects(() => second.lock(true), Error, "the reactor's own bug");
  await assertRejects(() => openMemoryVolume(link, 13), Error, "the reactor's own bug");
  await waiting;
  await assertRejects(() => volume.readFile("f"), Error, "has failed");
  await file.close();
  await link.close();
});

Deno.test("WorkerLink.close() ends calls that are under way", async () => {
  const link = await startMemoryWorker();
  const volume = await openMemoryVolume(link);
  const file = await volume.create("f"), other = await volume.open("f");
  await file.lock(true);
  const waiting = assertRejects(() => other.lock(true), Deno.errors.Interrupted);
  await link.close();
  await waiting;
  await assertRejects(() => volume.stat("f"), Error, "closed");
});
