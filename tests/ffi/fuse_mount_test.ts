/**
 * Real mounts of the file system in memory, driven by ordinary programs and system calls: FUSE session, transport and
 * mounting as the kernel sees them.
 *
 * @module
 */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  cleanDeadMount,
  findMount,
  isMounted,
  mountFuse,
  parseMountOptions,
  setReadAhead,
  unmount,
} from "../../ffi/fuse/mount.ts";
import { closeFd, cstr, O } from "../../ffi/libc.ts";
import {
  fcntlLock,
  getxattr,
  installed,
  open,
  renameat2,
  result,
  run,
  serve,
  setxattr,
  sys,
  withMount,
  withoutUring,
} from "./fuse_mounted.ts";
import type { Served, ServeOptions } from "./fuse_worker.ts";

const mountable = Deno.uid() === 0 && (() => {
  try {
    return Deno.statSync("/dev/fuse").isCharDevice === true;
  } catch {
    return false;
  }
})();

/** Registers a test for each transport; `needs`: a program. */
function transportTest(test: { name: string; needs?: string; fn: (uring: boolean) => Promise<void> }): void {
  const { name, needs, fn } = test, also = needs === undefined ? "" : `, ${needs}`;
  const ignore = !mountable || (needs !== undefined && !installed(needs));
  Deno.test({ name: `${name} (needs root, /dev/fuse${also})`, ignore, fn: () => fn(false) });
  const without = ignore ? "" : withoutUring();
  Deno.test({
    name: `over io_uring: ${name} (needs root, /dev/fuse with io_uring${also}${without === "" ? "" : `: ${without}`})`,
    ignore: ignore || without !== "",
    fn: () => fn(true),
  });
}

/** A test on a mount, over each transport; at its end the mount must go away cleanly with nothing left open. */
function mountTest(
  name: string,
  body: (path: string) => Promise<void> | void,
  options: Omit<ServeOptions, "fd"> & { mount?: string; needs?: string; check?: (served: Served) => void } = {},
): void {
  const { needs, check, ...rest } = options;
  const fn = (uring: boolean) =>
    withMount({ ...rest, uring }, async (mounted) => {
      await body(mounted.path);
      const served = await mounted.end();
      assertEquals([served.opens, served.locks, served.openFiles, served.inFlight], [0, 0, 0, 0]);
      assertEquals([served.reason, served.usedBytes], ["unmounted", 0]);
      assertEquals(served.transport, uring ? "uring" : "classic");
      check?.(served);
    });
  transportTest({ name, needs, fn });
}

function pattern(length: number, seed: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * seed + seed) & 0xff);
}

/** Throws like Deno does, and its code is `code`. */
function assertCode(code: string, body: () => unknown): void {
  const error = assertThrows(body) as { code?: string };
  assertEquals(error.code, code);
}

mountTest("files, directories and links by Deno's calls", async (path) => {
  const data = pattern(3_333_333, 5);
  await Deno.writeFile(`${path}/a`, data);
  assertEquals(await Deno.readFile(`${path}/a`), data);
  assertEquals(Deno.statSync(`${path}/a`).size, data.length);
  Deno.mkdirSync(`${path}/d/e/f`, { recursive: true });
  Deno.renameSync(`${path}/a`, `${path}/d/e/f/b`);
  assertCode("ENOENT", () => Deno.statSync(`${path}/a`));
  Deno.linkSync(`${path}/d/e/f/b`, `${path}/hard`);
  assertEquals([Deno.statSync(`${path}/hard`).nlink, Deno.statSync(`${path}/d`).nlink], [2, 3]);
  Deno.symlinkSync("d/e/f/b", `${path}/soft`);
  assertEquals(Deno.readLinkSync(`${path}/soft`), "d/e/f/b");
  assertEquals((await Deno.readFile(`${path}/soft`)).length, data.length);
  Deno.truncateSync(`${path}/hard`, 10);
  assertEquals(Deno.readFileSync(`${path}/soft`), data.subarray(0, 10));
  Deno.chmodSync(`${path}/hard`, 0o640);
  Deno.chownSync(`${path}/hard`, 12, 34);
  const stat = Deno.statSync(`${path}/hard`);
  assertEquals([stat.mode! & 0o7777, stat.uid, stat.gid], [0o640, 12, 34]);
  Deno.utimeSync(`${path}/hard`, 1_000_000_000, -5);
  assertEquals(Deno.statSync(`${path}/hard`).mtime?.getTime(), -5000);
  assertEquals(Deno.statSync(`${path}/hard`).atime?.getTime(), 1_000_000_000_000);
  assertCode("ENOTEMPTY", () => Deno.removeSync(`${path}/d`));
  assertCode("EEXIST", () => Deno.mkdirSync(`${path}/d`));
  assertCode("EINVAL", () => Deno.renameSync(`${path}/d`, `${path}/d/e/loop`));
  assertCode("ENAMETOOLONG", () => Deno.mkdirSync(`${path}/${"n".repeat(256)}`));
  Deno.mkdirSync(`${path}/${"ü".repeat(127)}`);
  assertEquals([...Deno.readDirSync(path)].map((entry) => entry.name).sort(), ["d", "hard", "soft", "ü".repeat(127)]);
  Deno.removeSync(`${path}/d`, { recursive: true });
  assertEquals(Deno.statSync(`${path}/hard`).nlink, 1);
});

mountTest("cp, mv, tar, find and du agree with a local copy", async (path) => {
  const source = new URL("../../core", import.meta.url).pathname;
  await run("cp", "-a", source, `${path}/copy`);
  await run("diff", "-r", source, `${path}/copy`);
  await run("mv", `${path}/copy`, `${path}/moved`);
  await run("sh", "-c", `cd ${path} && tar cf all.tar moved && mkdir out && tar xf all.tar -C out`);
  await run("diff", "-r", source, `${path}/out/moved`);
  const count = async (where: string) => (await run("find", where, "-type", "f")).split("\n").length;
  assertEquals(await count(`${path}/moved`), await count(source));
  await run("du", "-s", path);
  await run("sh", "-c", `dd if=/dev/urandom of=${path}/direct bs=1M count=5 oflag=direct 2>&1`);
  await run("sh", "-c", `dd if=${path}/direct of=${path}/direct2 bs=1M iflag=direct 2>&1`);
  await run("cmp", `${path}/direct`, `${path}/direct2`);
  await run("rm", "-rf", `${path}/moved`, `${path}/out`);
});

mountTest("git makes and checks a repository", async (path) => {
  const git = (...args: string[]) => run("git", "-C", path, "-c", "user.name=t", "-c", "user.email=t@t", ...args);
  await git("init", "-q", "-b", "main");
  for (let i = 0; i < 50; i++) Deno.writeTextFileSync(`${path}/file${i}`, `content ${i}\n`.repeat(i));
  await git("add", ".");
  await git("commit", "-q", "-m", "first");
  await git("mv", "file1", "renamed");
  await git("commit", "-q", "-a", "-m", "second");
  await git("gc", "-q");
  await git("fsck", "--full");
  assertEquals(await git("status", "--porcelain"), "");
}, { needs: "git" });

mountTest("sqlite3 keeps a database in both journal modes", async (path) => {
  for (const mode of ["delete", "wal"]) {
    const sql = `pragma journal_mode=${mode}; create table t(a integer primary key, b text); begin;` +
      Array.from({ length: 200 }, (_, i) => `insert into t values(${i}, hex(randomblob(200)));`).join("") +
      "commit; delete from t where a % 3 = 0; vacuum; pragma integrity_check; select count(*) from t;";
    const said = await run("sqlite3", `${path}/${mode}.db`, sql);
    assertEquals(said.trim().split("\n").slice(-2), ["ok", "133"]);
  }
}, { needs: "sqlite3" });

mountTest("a shared writable mapping reaches the file", async (path) => {
  const file = `${path}/mapped`, bytes = 3 * 4096;
  Deno.writeFileSync(file, new Uint8Array(bytes));
  for (const flags of [O.RDWR, O.RDWR | O.APPEND, O.RDWR | O.DIRECT]) {
    const fd = open(file, flags);
    // PROT_READ | PROT_WRITE, MAP_SHARED
    const pointer = sys.mmap(0n, BigInt(bytes), 3, 1, fd, 0n);
    assert(pointer !== null && Deno.UnsafePointer.value(pointer) !== 2n ** 64n - 1n, `open flags ${flags}`);
    const memory = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, bytes));
    memory[5000] = (flags & 0xff) + 7;
    assertEquals(sys.msync(pointer, BigInt(bytes), 4), 0);
    assertEquals((await Deno.readFile(file))[5000], (flags & 0xff) + 7);
    sys.munmap(pointer, BigInt(bytes));
    sys.close(fd);
  }
});

mountTest("O_APPEND writes of two descriptors never overwrite each other", (path) => {
  const file = `${path}/log`;
  const a = open(file, O.WRONLY | O.CREAT | O.APPEND), b = open(file, O.WRONLY | O.APPEND);
  const line = (text: string) => new TextEncoder().encode(text);
  for (let i = 0; i < 20; i++) {
    assertEquals(sys.write(i % 2 === 0 ? a : b, line(`${i}\n`), BigInt(`${i}\n`.length)), BigInt(`${i}\n`.length));
    // pwrite on an appending descriptor appends as well, as Linux has it.
    sys.pwrite64(a, line("p\n"), 2n, 0n);
  }
  sys.close(a);
  sys.close(b);
  assertEquals(Deno.readTextFileSync(file), Array.from({ length: 20 }, (_, i) => `${i}\np\n`).join(""));
});

mountTest("an unlinked open file lives until it is closed", (path) => {
  const file = Deno.openSync(`${path}/gone`, { create: true, read: true, write: true });
  file.writeSync(pattern(100_000, 3));
  Deno.removeSync(`${path}/gone`);
  assertCode("ENOENT", () => Deno.statSync(`${path}/gone`));
  const stat = file.statSync();
  assertEquals([stat.size, stat.nlink], [100_000, 0]);
  file.seekSync(0, Deno.SeekMode.Start);
  const read = new Uint8Array(100_000);
  for (let at = 0; at < read.length;) at += file.readSync(read.subarray(at)) ?? read.length;
  assertEquals(read, pattern(100_000, 3));
  file.close();
  Deno.mkdirSync(`${path}/dir`);
  assertEquals([...Deno.readDirSync(path)].length, 1);
});

mountTest("extended attributes", (path) => {
  const file = `${path}/file`;
  Deno.writeTextFileSync(file, "x");
  assertEquals(setxattr(file, "user.one", "first"), 0);
  assertEquals(setxattr(file, "user.two", ""), 0);
  assertEquals(setxattr(file, "trusted.three", "3"), 0);
  assertEquals([getxattr(file, "user.one"), getxattr(file, "user.two"), getxattr(file, "user.one", 2)], [
    "first",
    "",
    -34,
  ]);
  assertEquals(result(sys.getxattr(cstr(file), cstr("user.one"), null, 0n)), 5);
  assertEquals(getxattr(file, "user.none"), -61);
  assertEquals([setxattr(file, "user.one", "x", 1), setxattr(file, "user.none", "x", 2)], [-17, -61]);
  const names = new Uint8Array(100);
  const length = result(sys.listxattr(cstr(file), names, 100n));
  assertEquals(new TextDecoder().decode(names.subarray(0, length)), "user.one\0user.two\0trusted.three\0");
  assertEquals(result(sys.listxattr(cstr(file), names, 5n)), -34);
  assertEquals(result(sys.removexattr(cstr(file), cstr("user.one"))), 0);
  assertEquals(getxattr(file, "user.one"), -61);
  // u::rw-,g::r--,o::r-- as struct posix_acl_xattr_header and entries.
  const entry = (tag: number, perm: number) => String.fromCharCode(tag, 0, perm, 0) + "\x7f\x7f\x7f\x7f";
  const acl = "\x02\0\0\0" + entry(1, 6) + entry(4, 4) + entry(32, 4);
  assertEquals(setxattr(file, "system.posix_acl_access", acl), 0);
  assertEquals((Deno.statSync(file).mode ?? 0) & 0o777, 0o644);
  assertEquals(getxattr(file, "system.posix_acl_access"), -61);
  assertEquals(setxattr(file, "system.posix_acl_access", "nonsense"), -95);
  assertEquals(setxattr(file, "system.other", "x"), -95);
  assertEquals(setxattr(file, "user.big", "v".repeat(65536)), 0);
  assertEquals(getxattr(file, "user.big"), "v".repeat(65536));
});

mountTest("fallocate, holes and sparse files", (path) => {
  const fd = open(`${path}/sparse`, O.RDWR | O.CREAT);
  const seek = (offset: number, whence: number) => result(sys.lseek64(fd, BigInt(offset), whence));
  const allocate = (mode: number, offset: number, length: number) =>
    result(sys.fallocate64(fd, mode, BigInt(offset), BigInt(length)));
  assertEquals(allocate(0, 0, 1 << 20), 0);
  assertEquals(Deno.statSync(`${path}/sparse`).blocks, 2048);
  sys.pwrite64(fd, pattern(8192, 1), 8192n, 4096n);
  assertEquals(allocate(3, 4096, 4096), 0);
  const back = new Uint8Array(8192);
  sys.pread64(fd, back, 8192n, 4096n);
  assertEquals(back.subarray(0, 4096), new Uint8Array(4096));
  assertEquals(back.subarray(4096), pattern(8192, 1).subarray(4096));
  assertEquals([seek(0, 4), seek(4096, 3), seek(1 << 20, 3)], [4096, 8192, -6]);
  assertEquals(allocate(1, 1 << 20, 4096), 0);
  assertEquals(Deno.statSync(`${path}/sparse`).size, 1 << 20);
  assertEquals(allocate(0x10, 8192, 4096), 0);
  sys.pread64(fd, back, 4096n, 8192n);
  assertEquals(back.subarray(0, 4096), new Uint8Array(4096));
  assertEquals(allocate(8, 0, 4096), -95);
  assertEquals(result(sys.ftruncate64(fd, 2n ** 40n)), 0);
  assertEquals(seek(2 ** 30, 3), -6);
  assertEquals(result(sys.ftruncate64(fd, 2n ** 62n)), -27);
  sys.close(fd);
});

mountTest("copy_file_range and renameat2", (path) => {
  const data = pattern(5_000_000, 9);
  Deno.writeFileSync(`${path}/from`, data);
  const from = open(`${path}/from`, O.RDONLY), to = open(`${path}/to`, O.RDWR | O.CREAT);
  for (let left = data.length; left > 0;) {
    const copied = result(sys.copy_file_range(from, null, to, null, BigInt(left), 0));
    assert(copied > 0, `copy_file_range: ${copied}`);
    left -= copied;
  }
  assertEquals(result(sys.copy_file_range(from, null, to, null, 10n, 0)), 0);
  assertEquals(Deno.readFileSync(`${path}/to`), data);
  sys.close(from);
  sys.close(to);
  Deno.mkdirSync(`${path}/dir`);
  assertEquals(renameat2(`${path}/from`, `${path}/to`, 1), -17);
  assertEquals(renameat2(`${path}/to`, `${path}/dir`, 2), 0);
  assertEquals([Deno.statSync(`${path}/to`).isDirectory, Deno.statSync(`${path}/dir`).isFile], [true, true]);
  assertEquals(renameat2(`${path}/dir`, `${path}/new`, 1), 0);
  assertEquals(renameat2(`${path}/new`, `${path}/other`, 4), -22);
  assertCode("EISDIR", () => Deno.renameSync(`${path}/new`, `${path}/to`));
  assertCode("ENOTDIR", () => Deno.renameSync(`${path}/to`, `${path}/new`));
});

mountTest("a position of a directory stays good while others create and unlink", (path) => {
  for (let i = 0; i < 1000; i++) Deno.writeTextFileSync(`${path}/f${i}`, "");
  const dir = sys.opendir(cstr(path));
  const next = () => {
    const entry = sys.readdir(dir);
    return entry === null ? null : Deno.UnsafePointerView.getCString(entry, 19);
  };
  const seen: string[] = [];
  for (let i = 0; i < 300; i++) seen.push(next()!);
  const position = sys.telldir(dir);
  const after = next();
  for (let i = 0; i < 1000; i += 2) if (`f${i}` !== after) Deno.removeSync(`${path}/f${i}`);
  for (let i = 0; i < 100; i++) Deno.writeTextFileSync(`${path}/new${i}`, "");
  sys.seekdir(dir, position);
  assertEquals(next(), after);
  const rest = new Set<string>([after!]);
  for (let name = next(); name !== null; name = next()) {
    assert(!rest.has(name) && !seen.includes(name), `${name} came twice`);
    rest.add(name);
  }
  for (let i = 1; i < 1000; i += 2) assert(seen.includes(`f${i}`) || rest.has(`f${i}`), `f${i} was lost`);
  sys.closedir(dir);
});

mountTest("a blocked flock is granted when the other goes, and a signal interrupts it", async (path) => {
  const file = `${path}/lock`;
  Deno.writeTextFileSync(file, "");
  const fd = open(file, O.RDWR);
  assertEquals(result(sys.flock(fd, 2)), 0);
  const blocked = new Deno.Command("flock", { args: [file, "true"] }).spawn();
  const killed = new Deno.Command("flock", { args: [file, "true"] }).spawn();
  assertEquals((await new Deno.Command("flock", { args: ["-n", file, "true"] }).output()).code, 1);
  await new Promise((resolve) => setTimeout(resolve, 200));
  killed.kill("SIGINT");
  assertEquals((await killed.status).signal, "SIGINT");
  let granted = false;
  blocked.status.then(() => granted = true);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assertEquals(granted, false);
  sys.close(fd);
  assertEquals((await blocked.status).success, true);
}, { needs: "flock" });

mountTest("more blocked locks of one processor than it has buffers leave room for the unlock", async (path) => {
  const script = `cd ${path}; : > file; exec 9<file; flock 9
    for i in $(seq 100); do flock file true & done
    for i in $(seq 100); do sleep 0.02; : > other; done
    flock -u 9; wait`;
  await run("timeout", "30", "taskset", "-c", "0", "sh", "-c", script);
}, { needs: "flock" });

mountTest("fcntl locks exclude other owners and go with close", (path) => {
  const file = `${path}/lock`;
  Deno.writeTextFileSync(file, "0123456789");
  // F_OFD_GETLK 36, F_OFD_SETLK 37: owners within one process.
  const a = open(file, O.RDWR), b = open(file, O.RDWR);
  assertEquals(fcntlLock(a, 37, 1, 0, 5).outcome, 0);
  assertEquals(fcntlLock(b, 37, 0, 4, 2).outcome, -11);
  assertEquals(fcntlLock(b, 37, 1, 5, 0).outcome, 0);
  const found = fcntlLock(b, 36, 1, 0, 10);
  assertEquals([found.outcome, found.type, found.start], [0, 1, 0]);
  assertEquals(fcntlLock(a, 37, 2, 0, 0).outcome, 0);
  assertEquals(fcntlLock(b, 37, 1, 0, 0).outcome, 0);
  sys.close(a);
  sys.close(b);
  // F_SETLK 6, F_GETLK 5, of the process: dropped by any close of the file.
  const c = open(file, O.RDWR), d = open(file, O.RDWR);
  assertEquals(fcntlLock(c, 6, 1, 0, 0).outcome, 0);
  assertEquals(fcntlLock(d, 37, 1, 0, 0).outcome, -11);
  const e = open(file, O.RDWR);
  sys.close(e);
  assertEquals(fcntlLock(d, 37, 1, 0, 0).outcome, 0);
  sys.close(c);
  sys.close(d);
});

mountTest("modes: umask, setgid directories, and setuid lost by a write", async (path) => {
  const old = sys.umask(0o027);
  // Deno's own calls set a given mode once more after the file was made.
  sys.close(open(`${path}/file`, O.WRONLY | O.CREAT, 0o666));
  Deno.mkdirSync(`${path}/dir`, { mode: 0o777 });
  assertEquals(result(sys.mknod(cstr(`${path}/fifo`), 0o010666, 0n)), 0);
  sys.umask(old);
  const mode = (name: string) => Deno.lstatSync(`${path}/${name}`).mode! & 0o7777;
  assertEquals([mode("file"), mode("dir"), mode("fifo")], [0o640, 0o750, 0o640]);
  Deno.chownSync(`${path}/dir`, 0, 4242);
  Deno.chmodSync(`${path}/dir`, 0o2777);
  Deno.mkdirSync(`${path}/dir/sub`);
  assertEquals([mode("dir/sub") & 0o2000, Deno.statSync(`${path}/dir/sub`).gid], [0o2000, 4242]);
  Deno.chmodSync(`${path}/file`, 0o6777);
  await run("setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", `echo more >> ${path}/file`);
  assertEquals(mode("file"), 0o777);
  Deno.chmodSync(`${path}/file`, 0o6777);
  Deno.chownSync(`${path}/file`, 1, 1);
  assertEquals(mode("file"), 0o777);
  assertEquals(result(sys.mknod(cstr(`${path}/null`), 0o020666, 0x103n)), 0);
  assertEquals(Deno.readFileSync(`${path}/null`).length, 0);
  await assertRejects(() => run("setpriv", "--reuid=65534", "--clear-groups", "rm", "-f", `${path}/file`));
}, { needs: "setpriv" });

mountTest("stat -f, birth times, ioctl and fsync", async (path) => {
  const file = Deno.openSync(`${path}/f`, { create: true, write: true });
  file.writeSync(new Uint8Array(8192));
  file.syncSync();
  file.close();
  assertEquals((await run("stat", "-f", "-c", "%T %S %b %f %l", path)).trim(), "fuseblk 4096 4096 4094 255");
  const birth = Number(await run("stat", "-c", "%W", `${path}/f`));
  assert(Math.abs(birth - Date.now() / 1000) < 100, `birth at ${birth}`);
  const fd = open(`${path}/f`, O.RDONLY);
  try {
    // FS_IOC_GETFLAGS, and TCGETS, which no file has.
    const flags = new Uint8Array(8).fill(0xff);
    assertEquals([result(sys.ioctl(fd, 0x80086601n, flags)), flags[0]], [0, 0]);
    assertEquals(result(sys.ioctl(fd, 0x5401n, new Uint8Array(64))), -25);
  } finally {
    // Left open, the end of this process would wait for the mount that this process serves.
    sys.close(fd);
  }
  assertCode("ENOSPC", () => Deno.writeFileSync(`${path}/big`, new Uint8Array(20 << 20)));
}, { capacityBytes: 16 << 20 });

mountTest("200 programs at once over a slow file system get their own answers", async (path) => {
  Deno.mkdirSync(`${path}/d`);
  const work = async (i: number) => {
    const name = `${path}/d/f${i}`, data = pattern(20_000 + i * 7, i);
    await Deno.writeFile(name, data);
    await Deno.rename(name, `${name}x`);
    assertEquals(await Deno.readFile(`${name}x`), data);
    if (i % 2 === 0) await Deno.remove(`${name}x`);
  };
  await Promise.all(Array.from({ length: 200 }, (_, i) => work(i)));
  assertEquals([...Deno.readDirSync(`${path}/d`)].length, 100);
  // More programs than buffers.
  await run("sh", "-c", `for i in $(seq 1 150); do cat ${path}/d/f1x > /dev/null & done; wait`);
}, { delayMsMax: 4, check: ({ starved }) => assert(starved > 0, "the limit was not reached") });

mountTest("a read-only mount refuses writes", (path) => {
  assertEquals(findMount(path)?.readOnly, true);
  assertCode("EROFS", () => Deno.mkdirSync(`${path}/d`));
}, { readOnly: true, mount: "ro,nosuid,nodev" });

mountTest("what the kernel says of the mount, and read-ahead", (path) => {
  const mount = findMount(path)!;
  assertEquals([mount.type, mount.source, mount.readOnly], ["fuse.sealfs", "sealfs#test", false]);
  assertEquals(setReadAhead(path), true);
  assertEquals(Deno.readTextFileSync(`/sys/class/bdi/${mount.device}/read_ahead_kb`).trim(), "1024");
  const again = { source: "x", mountpoint: path, options: parseMountOptions("") };
  assertThrows(() => mountFuse(again), Error, "already mounted");
  const busy = Deno.openSync(`${path}/busy`, { create: true, write: true });
  assertThrows(() => unmount(path, { lazy: false }), Error, "EBUSY");
  busy.close();
});

transportTest({
  name: "a mount that is killed releases what was open and is cleaned away",
  fn: (uring) =>
    withMount({ uring }, async ({ path, served }) => {
      const fd = open(`${path}/file`, O.RDWR | O.CREAT);
      assertEquals(result(sys.flock(fd, 2)), 0);
      const connection = findMount(path)!.device.split(":")[1];
      const control = "/sys/fs/fuse/connections", controlled = isMounted(control);
      if (!controlled) await run("mount", "-t", "fusectl", "none", control);
      try {
        Deno.writeTextFileSync(`${control}/${connection}/abort`, "1");
      } finally {
        if (!controlled) await run("umount", control);
      }
      const { opens, locks, openFiles, usedBytes } = await served;
      assertEquals([opens, locks, openFiles, usedBytes], [0, 0, 0, 0]);
      assertEquals(isMounted(path), true);
      sys.close(fd);
      assertEquals(cleanDeadMount(path), true);
      assertEquals(isMounted(path), false);
    }),
});

Deno.test({
  name: "mountFuse() replaces a dead mount (needs root, /dev/fuse)",
  ignore: !mountable,
  fn: async () => {
    const path = Deno.makeTempDirSync({ prefix: "sealfs-fuse- dead" });
    try {
      const { fd } = mountFuse({ source: "sealfs#dead", mountpoint: path, options: parseMountOptions("") });
      closeFd(fd);
      assertCode("ENOTCONN", () => Deno.statSync(path));
      const mounted = await serve(path, {});
      Deno.writeTextFileSync(`${path}/alive`, "yes");
      await mounted.end();
      assertEquals(isMounted(path), false);
      assertEquals(unmount(path, { lazy: false }), false);
    } finally {
      while (isMounted(path)) unmount(path, { lazy: true });
      Deno.removeSync(path);
    }
  },
});
