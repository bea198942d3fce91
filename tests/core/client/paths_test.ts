import { assert, assertEquals } from "@std/assert";
import type { Caller } from "../../../core/client/filesystem.ts";
import {
  copyFile,
  type OpenFile,
  openFile,
  type OpenFlags,
  readWhole,
  writeWhole,
} from "../../../core/client/open_file.ts";
import { Paths } from "../../../core/client/paths.ts";
import { linksMax } from "../../../core/client/walk.ts";
import { E, failed, type Result } from "../../../core/errno.ts";
import { encodeAcl } from "../../../core/meta/acl.ts";
import { S } from "../../../core/meta/attributes.ts";
import { Future, Scheduler, type Task } from "../../../core/task.ts";
import { aclOf } from "../meta/acls.ts";
import { MemoryFileSystem, type MemoryOptions } from "../../fuse/memory_filesystem.ts";

const root: Caller = { uid: 0, gid: 0, pid: 1, umask: 0 };
const alice: Caller = { uid: 1000, gid: 1000, pid: 2, umask: 0o022, groups: [50] };
const bob: Caller = { uid: 1001, gid: 1001, pid: 3, umask: 0o022 };

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (view: Uint8Array) => new TextDecoder().decode(view);

const flagsOf = (flags: Partial<OpenFlags>): OpenFlags => ({
  read: false,
  write: false,
  append: false,
  truncate: false,
  create: false,
  createNew: false,
  mode: 0o666,
  ...flags,
});

/** A volume in memory and callers of it, with text in place of bytes; tasks run to their end at once. */
class World {
  readonly scheduler = new Scheduler((error) => {
    throw error;
  });
  readonly fileSystem: MemoryFileSystem;
  #owners = 0;

  constructor(options: MemoryOptions = {}) {
    this.fileSystem = new MemoryFileSystem(options);
  }

  as(who: Caller, fileSystem: MemoryFileSystem = this.fileSystem): User {
    const paths = new Paths({ fileSystem, who, scheduler: this.scheduler, newLockOwner: () => ++this.#owners });
    return new User(this, paths);
  }

  start<T>(task: Task<T>): Future<T> {
    const future = this.scheduler.spawn(task);
    while (this.scheduler.pending) this.scheduler.run();
    return future;
  }

  run<T>(task: Task<T>): T {
    const future = this.start(task);
    assert(future.settled, "the task waits");
    return future.value;
  }
}

class User {
  constructor(readonly world: World, readonly paths: Paths) {}

  run<T extends object>(task: Task<Result<T>>): Result<T> {
    return this.world.run(task);
  }

  /** errno, 0 for success. */
  errno<T extends object>(task: Task<Result<T>>): number {
    const result = this.run(task);
    return failed(result) ? result : 0;
  }

  mkdir(path: string, mode = 0o777) {
    return this.errno(this.paths.makeDirectory(bytes(path), mode));
  }
  mkdirs(path: string, mode = 0o777) {
    return this.errno(this.paths.makeDirectories(bytes(path), mode));
  }
  write(path: string, content = "", flags: Partial<OpenFlags> = {}) {
    const all = flagsOf({ write: true, create: true, truncate: !flags.append, ...flags });
    return this.errno(writeWhole(this.paths, bytes(path), bytes(content), { flags: all, setMode: null }));
  }
  read(path: string): string | number {
    const into = new Uint8Array(4096);
    const read = this.run(readWhole(this.paths, bytes(path), into));
    if (failed(read)) return read;
    assertEquals(read.file, null);
    return text(into.subarray(0, read.count));
  }
  open(path: string, flags: Partial<OpenFlags> = { read: true }): Result<OpenFile> {
    return this.run(openFile(this.paths, bytes(path), flagsOf(flags)));
  }
  opened(path: string, flags: Partial<OpenFlags> = { read: true }): OpenFile {
    const file = this.open(path, flags);
    assert(!failed(file), `open ${path}: errno ${file}`);
    return file;
  }
  stat(path: string, follow = true) {
    return this.run(this.paths.stat(bytes(path), follow));
  }
  mode(path: string): number {
    const found = this.stat(path);
    return failed(found) ? -found : found.mode & 0o7777;
  }
  type(path: string): number {
    const found = this.stat(path, false);
    return failed(found) ? -found : found.mode & S.IFMT;
  }
  statErrno(path: string, follow = true) {
    return this.errno(this.paths.stat(bytes(path), follow));
  }
  real(path: string): string | number {
    const found = this.run(this.paths.realPath(bytes(path)));
    return failed(found) ? found : text(found);
  }
  symlink(target: string, path: string) {
    return this.errno(this.paths.symlink(bytes(target), bytes(path)));
  }
  readLink(path: string): string | number {
    const found = this.run(this.paths.readLink(bytes(path)));
    return failed(found) ? found : text(found);
  }
  remove(path: string) {
    return this.errno(this.paths.remove(bytes(path)));
  }
  removeAll(path: string) {
    return this.errno(this.paths.removeAll(bytes(path)));
  }
  rename(from: string, to: string) {
    return this.errno(this.paths.rename(bytes(from), bytes(to)));
  }
  link(from: string, to: string) {
    return this.errno(this.paths.link(bytes(from), bytes(to)));
  }
  chmod(path: string, mode: number) {
    return this.errno(this.paths.setMode(bytes(path), mode));
  }
  chown(path: string, uid: number | null, gid: number | null) {
    return this.errno(this.paths.setOwner(bytes(path), { uid, gid }, true));
  }
  list(path: string): string[] | number {
    const dir = this.run(this.paths.openDirectory(bytes(path)));
    if (failed(dir)) return dir;
    const page = this.run(this.paths.readDirectory(dir.inode, 0, 1 << 20));
    return failed(page) ? page : page.map((entry) => text(entry.name)).sort();
  }
}

/** /dir/file ("content"), /dir/sub/, and links: /ldir -> dir, /lfile -> dir/file, /labs -> /dir/file, /dangling -> no. */
function tree(): User {
  const user = new World().as(root);
  assertEquals(user.mkdir("/dir"), 0);
  assertEquals(user.mkdir("/dir/sub"), 0);
  assertEquals(user.write("/dir/file", "content"), 0);
  for (
    const [target, path] of [["dir", "/ldir"], ["dir/file", "/lfile"], ["/dir/file", "/labs"], ["no", "/dangling"]]
  ) {
    assertEquals(user.symlink(target, path), 0);
  }
  return user;
}

Deno.test("Paths.stat() finds paths with dots, slashes and links when they lead somewhere", () => {
  const user = tree();
  const file = user.stat("/dir/file");
  assert(!failed(file));
  const ways = ["dir/file", "//dir///file", "/./dir/./file", "/dir/sub/../file", "/../../dir/file", "/ldir/file"];
  for (const way of [...ways, "/lfile", "/labs", "ldir/sub/../../lfile", "/dir/../ldir/sub/../file"]) {
    const found = user.stat(way);
    assert(!failed(found) && found.inode === file.inode, way);
  }
  for (const way of ["/", ".", "..", "/dir/..", "dir/sub/../..", "///"]) {
    const found = user.stat(way);
    assert(!failed(found) && found.inode === user.paths.fileSystem.root, way);
  }
});

Deno.test("Paths.stat() ends with the errno that Linux gives when a path leads nowhere", () => {
  const user = tree();
  assertEquals(user.statErrno(""), E.NOENT);
  assertEquals(user.statErrno("/no"), E.NOENT);
  assertEquals(user.statErrno("/no/file"), E.NOENT);
  assertEquals(user.statErrno("/no/../dir"), E.NOENT);
  assertEquals(user.statErrno("/dir/file/x"), E.NOTDIR);
  assertEquals(user.statErrno("/dir/file/."), E.NOTDIR);
  assertEquals(user.statErrno("/dir/file/.."), E.NOTDIR);
  assertEquals(user.statErrno("/lfile/x"), E.NOTDIR);
  assertEquals(user.statErrno("/dangling"), E.NOENT);
  assertEquals(user.statErrno("/dangling", false), 0);
  assertEquals(user.statErrno("/a\0b"), E.INVAL);
});

Deno.test("Paths.stat() wants a directory when the path ends in a slash", () => {
  const user = tree();
  assertEquals(user.statErrno("/dir/"), 0);
  assertEquals(user.statErrno("/dir/file/"), E.NOTDIR);
  assertEquals(user.statErrno("/lfile/", false), E.NOTDIR);
  assertEquals(user.type("/ldir/"), S.IFDIR);
  assertEquals(user.type("/ldir"), S.IFLNK);
  assertEquals(user.symlink("dir/", "/lslash"), 0);
  assertEquals(user.symlink("dir/file/", "/lbad"), 0);
  assertEquals(user.statErrno("/lslash"), 0);
  assertEquals(user.statErrno("/lbad"), E.NOTDIR);
});

Deno.test("Paths.stat() refuses names and paths when they are too long", () => {
  const user = new World().as(root);
  const longest = "n".repeat(255);
  assertEquals(user.write(`/${longest}`), 0);
  assertEquals(user.statErrno(`/${longest}`), 0);
  assertEquals(user.statErrno(`/${longest}n`), E.NAMETOOLONG);
  assertEquals(user.statErrno(`/${longest}n/x`), E.NAMETOOLONG);
  assertEquals(user.mkdir(`/${longest}n`), E.NAMETOOLONG);
  assertEquals(user.statErrno("/.".repeat(2047) + "/"), 0);
  assertEquals(user.statErrno("/.".repeat(2048)), E.NAMETOOLONG);
});

Deno.test("Paths.stat() follows 40 links and answers ELOOP when there are more", () => {
  const user = new World().as(root);
  assertEquals(user.write("/l0", "end"), 0);
  for (let i = 1; i <= linksMax + 1; i++) assertEquals(user.symlink(`l${i - 1}`, `/l${i}`), 0);
  assertEquals(user.read(`/l${linksMax}`), "end");
  assertEquals(user.statErrno(`/l${linksMax + 1}`), E.LOOP);
  assertEquals(user.symlink("self", "/self"), 0);
  for (const path of ["/self", "/self/x", "/self/"]) assertEquals(user.statErrno(path), E.LOOP);
  assertEquals(user.statErrno("/self", false), 0);
  assertEquals(user.write("/self"), E.LOOP);
  assertEquals(user.write("/self", "", { createNew: true }), E.EXIST);
  // Each link has its place in a walk, wherever it stands in the path.
  assertEquals(user.mkdir("/d"), 0);
  assertEquals(user.symlink(".", "/d/here"), 0);
  assertEquals(user.statErrno("/d" + "/here".repeat(40)), 0);
  assertEquals(user.statErrno("/d" + "/here".repeat(41)), E.LOOP);
});

Deno.test("Paths.realPath() is absolute and without links when the path exists", () => {
  const user = tree();
  assertEquals(user.real("/"), "/");
  assertEquals(user.real("ldir/sub/.."), "/dir");
  assertEquals(user.real("ldir/./sub"), "/dir/sub");
  assertEquals(user.real("/labs"), "/dir/file");
  assertEquals(user.symlink("../lfile", "/dir/sub/up"), 0);
  assertEquals(user.symlink("/ldir/sub/../sub", "/dir/round"), 0);
  assertEquals(user.real("/dir/round/../../lfile"), "/dir/file");
  assertEquals(user.real("/dangling"), E.NOENT);
});

Deno.test("Paths.readLink() gives targets as they were written, EINVAL when it is no link", () => {
  const user = tree();
  assertEquals(user.readLink("/lfile"), "dir/file");
  assertEquals(user.readLink("/ldir"), "dir");
  assertEquals(user.readLink("/ldir/"), E.INVAL);
  assertEquals(user.readLink("/dir/file"), E.INVAL);
  assertEquals(user.symlink("", "/empty"), E.NOENT);
  assertEquals(user.symlink("x".repeat(4096), "/long"), E.NAMETOOLONG);
  assertEquals(user.symlink("x", "/dir"), E.EXIST);
  assertEquals(user.symlink("x", "/dir/"), E.EXIST);
  assertEquals(user.symlink("x", "/new/"), E.NOENT);
  assertEquals(user.symlink("x", "/dir/."), E.EXIST);
});

Deno.test("Paths.makeDirectory() answers as mkdir(2) when the name is taken or special", () => {
  const user = tree();
  assertEquals(user.mkdir("/new/"), 0);
  for (const path of ["/dir", "/dir/", "/dir/file", "/", "/dir/.", "/dir/..", "/dangling", "/ldir", "/no/.."]) {
    assertEquals(user.mkdir(path), path === "/no/.." ? E.NOENT : E.EXIST, path);
  }
  assertEquals(user.mkdir("/dir/file/x"), E.NOTDIR);
  assertEquals(user.mkdir("/no/x"), E.NOENT);
  assertEquals(user.mkdir("/ldir/made"), 0);
  assertEquals(user.type("/dir/made"), S.IFDIR);
});

Deno.test("Paths.makeDirectories() makes what is missing and accepts what is there", () => {
  const user = tree();
  assertEquals(user.mkdirs("/a/b//c/./d/"), 0);
  assertEquals(user.type("/a/b/c/d"), S.IFDIR);
  assertEquals(user.mkdirs("/a/b"), 0);
  assertEquals(user.mkdirs("/"), 0);
  assertEquals(user.mkdirs("rel/x"), 0);
  assertEquals(user.mkdirs("/ldir/y/z"), 0);
  assertEquals(user.type("/dir/y/z"), S.IFDIR);
  assertEquals(user.mkdirs("/dir/file"), E.EXIST);
  assertEquals(user.mkdirs("/dir/file/x/y"), E.NOTDIR);
  assertEquals(user.mkdirs("/dangling/x"), E.EXIST);
  assertEquals(user.mkdirs("a/../b/c"), 0);
  assertEquals(user.type("/b/c"), S.IFDIR);
});

Deno.test("Paths.remove() unlinks, removes empty directories and answers as Linux when it must not", () => {
  const user = tree();
  assertEquals(user.remove("/dir"), E.NOTEMPTY);
  assertEquals(user.remove("/ldir/"), E.NOTDIR);
  assertEquals(user.remove("/ldir"), 0);
  assertEquals(user.type("/dir"), S.IFDIR);
  assertEquals(user.remove("/dir/file/"), E.NOTDIR);
  assertEquals(user.remove("/dir/sub/"), 0);
  assertEquals(user.remove("/dir/file"), 0);
  assertEquals(user.remove("/dir/."), E.INVAL);
  assertEquals(user.remove("/dir/.."), E.NOTEMPTY);
  assertEquals(user.remove("/"), E.BUSY);
  assertEquals(user.remove("/dir"), 0);
  assertEquals(user.remove("/dir"), E.NOENT);
  assertEquals(user.remove("/lfile"), 0);
});

Deno.test("Paths.removeAll() removes a deep and wide tree and leaves what links point to", () => {
  const user = tree();
  assertEquals(user.symlink("/dir", "/dir/sub/back"), 0);
  let path = "/deep";
  for (let i = 0; i < 300; i++) {
    assertEquals(user.mkdirs(path), 0);
    assertEquals(user.write(`${path}/f`), 0);
    assertEquals(user.symlink("/dir", `${path}/l`), 0);
    path += "/d";
  }
  for (let i = 0; i < 200; i++) assertEquals(user.mkdir(`/deep/w${i}`), 0);
  for (let i = 0; i < 6000; i++) assertEquals(user.write(`/deep/w7/${"n".repeat(20)}${i}`), 0);
  const before = user.world.fileSystem.inodes;
  assert(before > 6000);
  assertEquals(user.removeAll("/deep"), 0);
  assertEquals(user.statErrno("/deep"), E.NOENT);
  assertEquals(user.read("/dir/file"), "content");
  assertEquals(user.removeAll("/dir/file"), 0);
  assertEquals(user.removeAll("/ldir"), 0);
  assertEquals(user.removeAll("/dir"), 0);
  assertEquals(user.removeAll("/dir"), E.NOENT);
  assertEquals(user.removeAll("/"), E.BUSY);
  assertEquals(user.world.fileSystem.inodes, 4);
});

Deno.test("Paths.removeAll() ends with ENOTEMPTY when others keep filling the directory", () => {
  const world = new World(), user = world.as(root);
  assertEquals(user.mkdir("/d"), 0);
  const fileSystem = world.fileSystem, unlink = fileSystem.removeDirectory.bind(fileSystem);
  let count = 0;
  fileSystem.removeDirectory = function* (dir, name) {
    world.run(fileSystem.create(user.paths.fileSystem.root, bytes(`x${count++}`), {
      mode: S.IFREG | 0o644,
      exclusive: true,
      open: false,
    }, root));
    return count > 100 ? yield* unlink(dir, name) : E.NOTEMPTY;
  };
  assertEquals(user.removeAll("/d"), E.NOTEMPTY);
  assert(count < 30);
});

Deno.test("Paths.removeAll() with keepGoing removes what it may and names what stays", () => {
  const world = new World({ rootMode: 0o777 }), admin = world.as(root), user = world.as(alice), other = world.as(bob);
  for (const dir of ["/t", "/t/mine", "/t/mine/deep", "/t/mine/closed"]) assertEquals(user.mkdir(dir), 0);
  for (let i = 0; i < 300; i++) assertEquals(user.write(`/t/mine/deep/f${i}`), 0);
  assertEquals(user.write("/t/mine/closed/f"), 0);
  assertEquals(user.chmod("/t/mine/closed", 0o500), 0);
  assertEquals(user.mkdir("/t/mine/empty", 0), 0);
  assertEquals(admin.mkdir("/t/tmp"), 0);
  assertEquals(admin.chmod("/t/tmp", 0o1777), 0);
  assertEquals(user.write("/t/tmp/a"), 0);
  assertEquals(other.write("/t/tmp/b"), 0);
  const progress = { files: 0, directories: 0 };
  const removal = user.run(user.paths.removeAll(bytes("/t"), { keepGoing: true, progress }));
  assert(!failed(removal));
  const problems = removal.problems.map(({ path, errno }) => [text(path), errno]).sort();
  assertEquals(problems, [["/t/mine/closed", E.ACCES], ["/t/tmp/b", E.PERM]]);
  assertEquals([removal.files, removal.directories, removal.stopped], [301, 2, false]);
  assertEquals(progress, { files: 301, directories: 2 });
  assertEquals([admin.list("/t/mine"), admin.list("/t/tmp")], [["closed"], ["b"]]);
  // Without it the first problem ends the work and is the errno.
  assertEquals(user.removeAll("/t/tmp"), E.PERM);
});

Deno.test("Paths.removeAll() begins nothing new once it is stopped", () => {
  const user = new World().as(root);
  for (let i = 0; i < 40; i++) {
    assertEquals(user.mkdirs(`/t/d${i}`), 0);
    for (let j = 0; j < 5; j++) assertEquals(user.write(`/t/d${i}/f${j}`), 0);
  }
  const progress = { files: 0, directories: 0 }, stopped = () => progress.files >= 50;
  const removal = user.run(user.paths.removeAll(bytes("/t"), { keepGoing: true, progress, stopped }));
  assert(!failed(removal));
  assert(removal.stopped && removal.files >= 50 && removal.files < 200, `${removal.files} files`);
  assertEquals([removal.problems, user.statErrno("/t")], [[], 0]);
  assertEquals(user.removeAll("/t"), 0);
});

Deno.test("Paths.removeAll() goes down 20,000 directories without a deep stack", () => {
  const world = new World(), user = world.as(root), { fileSystem } = world;
  let dir = fileSystem.root, depth = 0;
  for (; depth < 20_000; depth++) {
    const made = world.run(fileSystem.makeDirectory(dir, bytes("d"), 0o755, root));
    assert(!failed(made));
    dir = made.inode;
  }
  const removal = user.run(user.paths.removeAll(bytes("/d")));
  assert(!failed(removal));
  assertEquals(removal.directories, depth);
});

Deno.test("Paths.usage() counts a file with several names once, and names what may not be read", () => {
  const world = new World(), admin = world.as(root), user = world.as(alice);
  assertEquals(admin.mkdirs("/t/a"), 0);
  assertEquals(admin.mkdirs("/t/b/c"), 0);
  for (let i = 0; i < 500; i++) assertEquals(admin.write(`/t/a/f${i}`, "x".repeat(10)), 0);
  assertEquals(admin.write("/t/big", "y".repeat(5000)), 0);
  for (const name of ["/t/a/l", "/t/b/c/l"]) assertEquals(admin.link("/t/big", name), 0);
  assertEquals(admin.symlink("/t/big", "/t/s"), 0);
  const usage = (who: User, path: string, met = new Map<number, number>()) => {
    const found = who.run(who.paths.usage(bytes(path), met));
    assert(!failed(found), `errno ${found}`);
    return found;
  };
  const blocksOf = (path: string) => {
    const found = admin.stat(path, false);
    return failed(found) ? NaN : found.blocks * 512;
  };
  const all = usage(admin, "/t");
  assertEquals([all.files, all.directories, all.apparentBytes], [502, 4, 500 * 10 + 5000 + "/t/big".length]);
  const dirs = ["/t", "/t/a", "/t/b", "/t/b/c"].reduce((sum, path) => sum + blocksOf(path), 0);
  assertEquals(all.allocatedBytes, dirs + 500 * blocksOf("/t/a/f0") + blocksOf("/t/big") + blocksOf("/t/s"));
  // One file counted once over several trees; a link itself, and a file.
  const met = new Map<number, number>();
  assertEquals([usage(admin, "/t/b", met).files, usage(admin, "/t/big", met).files], [1, 0]);
  assertEquals([usage(admin, "/t/s").files, usage(admin, "/t/big").apparentBytes], [1, 5000]);
  assertEquals(admin.chmod("/t/b", 0o700), 0);
  const part = usage(user, "/t");
  assertEquals(part.problems.map(({ path, errno }) => [text(path), errno]), [["/t/b", E.ACCES]]);
  assertEquals([part.files, part.directories], [502, 3]);
  assertEquals(user.errno(user.paths.usage(bytes("/no"))), E.NOENT);
});

Deno.test("Paths.rename() moves and replaces as rename(2)", () => {
  const user = tree();
  assertEquals(user.write("/other", "other"), 0);
  assertEquals(user.rename("/other", "/dir/file"), 0);
  assertEquals(user.read("/dir/file"), "other");
  assertEquals(user.rename("/dir/file", "/dir"), E.ISDIR);
  assertEquals(user.mkdir("/empty"), 0);
  assertEquals(user.rename("/empty", "/dir/file"), E.NOTDIR);
  assertEquals(user.rename("/empty", "/dir"), E.NOTEMPTY);
  assertEquals(user.rename("/dir", "/dir/sub/x"), E.INVAL);
  assertEquals(user.rename("/dir/sub", "/"), E.BUSY);
  assertEquals(user.rename("/dir/.", "/x"), E.BUSY);
  assertEquals(user.rename("/dir/..", "/x"), E.BUSY);
  assertEquals(user.rename("/no", "/x"), E.NOENT);
  assertEquals(user.rename("/dir/file/", "/x"), E.NOTDIR);
  assertEquals(user.rename("/dir/file", "/x/"), E.NOTDIR);
  assertEquals(user.rename("/dir/sub/", "/moved/"), 0);
  assertEquals(user.type("/moved"), S.IFDIR);
  // A link is renamed, not what it points to.
  assertEquals(user.rename("/lfile", "/renamed"), 0);
  assertEquals(user.readLink("/renamed"), "dir/file");
  assertEquals(user.rename("/ldir/", "/x"), E.NOTDIR);
});

Deno.test("Paths.link() links what a path names, a symbolic link itself", () => {
  const user = tree();
  assertEquals(user.link("/dir/file", "/hard"), 0);
  const file = user.stat("/dir/file");
  assert(!failed(file) && file.nlink === 2);
  assertEquals(user.link("/lfile", "/hardlink"), 0);
  assertEquals(user.type("/hardlink"), S.IFLNK);
  assertEquals(user.link("/dir", "/x"), E.PERM);
  assertEquals(user.link("/dir/file", "/dir"), E.EXIST);
  assertEquals(user.link("/dir/file", "/x/"), E.NOENT);
  assertEquals(user.link("/dir/file/", "/x"), E.NOTDIR);
  assertEquals(user.link("/no", "/x"), E.NOENT);
});

Deno.test("openFile() creates, truncates and refuses as open(2)", () => {
  const user = tree();
  assertEquals(user.open("/no"), E.NOENT);
  assertEquals(user.open("/dir", { write: true }), E.ISDIR);
  assertEquals(user.open("/dir", { write: true, create: true }), E.ISDIR);
  assertEquals(user.open("/", { write: true, create: true }), E.ISDIR);
  assertEquals(user.open("/new/", { write: true, create: true }), E.ISDIR);
  assertEquals(user.open("/dir/file/x", { write: true, create: true }), E.NOTDIR);
  assertEquals(user.open("/no/x", { write: true, create: true }), E.NOENT);
  assertEquals(user.open("/dir/file", { write: true, createNew: true }), E.EXIST);
  assertEquals(user.open("/dangling", { write: true, createNew: true }), E.EXIST);
  // Through a dangling link the target is made, next to the link.
  assertEquals(user.symlink("sub/made", "/dir/to"), 0);
  assertEquals(user.write("/dir/to", "x"), 0);
  assertEquals(user.read("/dir/sub/made"), "x");
  assertEquals(user.write("/lfile", "longer than before"), 0);
  assertEquals(user.write("/dir/file", "short"), 0);
  assertEquals(user.read("/labs"), "short");
  assertEquals(user.write("/dir/file", "++", { append: true, write: false }), 0);
  assertEquals(user.read("/dir/file"), "short++");
  assertEquals(user.world.fileSystem.opens, 0);
});

Deno.test("OpenFile reads, writes and appends by its flags and ends with BADF when it is closed", () => {
  const user = tree();
  const file = user.opened("/dir/file", { read: true, write: true });
  const into = new Uint8Array(100);
  assertEquals(user.run(file.read(3, into)), { count: 4 });
  assertEquals(text(into.subarray(0, 4)), "tent");
  assertEquals(user.errno(file.write(7, bytes("!"))), 0);
  assertEquals(user.remove("/dir/file"), 0);
  assertEquals(user.run(file.read(0, into)), { count: 8 });
  assertEquals(user.errno(file.truncate(2)), 0);
  const attributes = user.run(file.stat());
  assert(!failed(attributes) && attributes.size === 2 && attributes.nlink === 0);
  assertEquals(user.errno(file.sync()), 0);
  user.world.run(file.close());
  user.world.run(file.close());
  assertEquals(user.errno(file.read(0, into)), E.BADF);
  assertEquals(user.world.fileSystem.opens, 0);

  assertEquals(user.write("/f", "0123"), 0);
  const reader = user.opened("/f", { read: true });
  assertEquals(user.errno(reader.write(0, bytes("x"))), E.BADF);
  assertEquals(user.errno(reader.truncate(0)), E.INVAL);
  const writer = user.opened("/f", { append: true });
  assertEquals(user.errno(writer.read(0, into)), E.BADF);
  assertEquals(user.run(writer.append(bytes("45"))), { offset: 4 });
  user.world.run(reader.close());
  user.world.run(writer.close());
  const dir = user.opened("/dir");
  assertEquals(user.errno(dir.read(0, into)), E.ISDIR);
  assertEquals(user.errno(dir.sync()), 0);
  user.world.run(dir.close());
  assertEquals(user.world.fileSystem.opens, 0);
});

Deno.test("OpenFile.lock() waits for other holders, and a close lets it go", () => {
  const user = tree();
  const one = user.opened("/dir/file"), two = user.opened("/dir/file");
  assertEquals(user.errno(one.lock(true, false)), 0);
  assertEquals(user.errno(two.lock(false, false)), E.AGAIN);
  const waiting = user.world.start(two.lock(true, true));
  assert(!waiting.settled);
  user.world.run(one.close());
  while (user.world.scheduler.pending) user.world.scheduler.run();
  assert(waiting.settled && !failed(waiting.value));
  const three = user.opened("/dir/file");
  const blocked = user.world.start(three.lock(false, true));
  const closing = user.world.start(three.close());
  assert(blocked.settled && closing.settled);
  assertEquals(blocked.value, E.INTR);
  assertEquals(user.errno(two.unlock()), 0);
  assertEquals(user.world.fileSystem.locks, 0);
  user.world.run(two.close());
  assertEquals(user.world.fileSystem.opens, 0);
});

Deno.test("readWhole() reads small files at once and hands out larger ones", () => {
  const user = tree();
  const into = new Uint8Array(8);
  assertEquals(user.run(readWhole(user.paths, bytes("/lfile"), into)), { count: 7, file: null });
  assertEquals(user.write("/dir/file", "12345678"), 0);
  const read = user.run(readWhole(user.paths, bytes("/lfile"), into));
  assert(!failed(read) && read.file !== null);
  user.world.run(read.file.close());
  assertEquals(user.read("/dir"), E.ISDIR);
  assertEquals(user.read("/no"), E.NOENT);
});

Deno.test("readWhole() sees one or the other when a file is replaced by rename meanwhile", () => {
  const world = new World(), user = world.as(root);
  assertEquals(user.write("/f", "old"), 0);
  const { fileSystem } = world, read = fileSystem.read.bind(fileSystem);
  let replaced = false;
  fileSystem.read = function* (inode, offset, into) {
    if (!replaced) {
      replaced = true;
      assertEquals(user.write("/g", "new"), 0);
      assertEquals(user.rename("/g", "/f"), 0);
    }
    return yield* read(inode, offset, into);
  };
  assertEquals(user.read("/f"), "new");
});

Deno.test("copyFile() copies contents and mode, EINVAL when it is the same file or none", () => {
  const user = tree();
  assertEquals(user.chmod("/dir/file", 0o640), 0);
  const copy = (from: string, to: string) => user.errno(copyFile(user.paths, bytes(from), bytes(to)));
  assertEquals(user.write("/target", "something that was longer"), 0);
  assertEquals(copy("/lfile", "/target"), 0);
  assertEquals(user.read("/target"), "content");
  assertEquals(user.mode("/target"), 0o640);
  assertEquals(copy("/target", "/fresh"), 0);
  assertEquals(user.mode("/fresh"), 0o640);
  assertEquals(copy("/dir", "/x"), E.INVAL);
  assertEquals(copy("/dir/file", "/lfile"), E.INVAL);
  assertEquals(user.read("/dir/file"), "content");
  assertEquals(copy("/dir/file", "/dir"), E.ISDIR);
  assertEquals(user.world.fileSystem.opens, 0);
});

Deno.test("Paths.setTimes(), setMode(), setOwner() and truncate() change what the path names", () => {
  const user = tree();
  const at = { sec: 5, nsec: 7 };
  assertEquals(user.errno(user.paths.setTimes(bytes("/lfile"), { atime: at, mtime: at }, true)), 0);
  const file = user.stat("/dir/file");
  assert(!failed(file));
  assertEquals([file.atime, file.mtime], [at, at]);
  assertEquals(user.chmod("/lfile", 0o4755), 0);
  assertEquals(user.mode("/dir/file"), 0o4755);
  assertEquals(user.chown("/lfile", 7, null), 0);
  assertEquals(user.mode("/dir/file"), 0o755);
  const owned = user.stat("/dir/file");
  assert(!failed(owned) && owned.uid === 7 && owned.gid === 0);
  assertEquals(user.errno(user.paths.truncate(bytes("/lfile"), 3)), 0);
  assertEquals(user.read("/dir/file"), "con");
  assertEquals(user.errno(user.paths.truncate(bytes("/dir"), 3)), E.ISDIR);
});

Deno.test("Paths checks modes, owners and the sticky bit when the caller is not root", () => {
  const world = new World(), admin = world.as(root), a = world.as(alice), b = world.as(bob);
  assertEquals(a.mkdir("/mine"), E.ACCES);
  assertEquals(a.mkdir("/"), E.EXIST);
  assertEquals(admin.mkdir("/tmp"), 0);
  assertEquals(admin.chmod("/tmp", 0o1777), 0);
  assertEquals(a.mkdir("/tmp"), E.EXIST);
  assertEquals(a.mkdir("/tmp/a"), 0);
  assertEquals(a.mode("/tmp/a"), 0o755);
  assertEquals(a.write("/tmp/a/f", "secret"), 0);
  assertEquals(a.mode("/tmp/a/f"), 0o644);
  assertEquals(b.read("/tmp/a/f"), "secret");
  assertEquals(b.write("/tmp/a/f"), E.ACCES);
  assertEquals(b.write("/tmp/a/g"), E.ACCES);
  assertEquals(b.remove("/tmp/a/f"), E.ACCES);
  assertEquals(b.removeAll("/tmp/a"), E.PERM);
  assertEquals(b.rename("/tmp/a", "/tmp/b"), E.PERM);
  assertEquals(a.chmod("/tmp/a/f", 0o600), 0);
  assertEquals(b.read("/tmp/a/f"), E.ACCES);
  assertEquals(b.chmod("/tmp/a/f", 0o644), E.PERM);
  assertEquals(b.chown("/tmp/a/f", bob.uid, null), E.PERM);
  assertEquals(a.chown("/tmp/a/f", bob.uid, null), E.PERM);
  assertEquals(a.chown("/tmp/a/f", null, 50), 0);
  assertEquals(a.chown("/tmp/a/f", null, 51), E.PERM);
  assertEquals(a.chmod("/tmp/a", 0o700), 0);
  assertEquals(b.statErrno("/tmp/a/f"), E.ACCES);
  assertEquals(b.list("/tmp/a"), E.ACCES);
  assertEquals(b.list("/tmp"), ["a"]);
  assertEquals(b.errno(b.paths.setTimes(bytes("/tmp/a"), { atime: "now", mtime: "now" }, true)), E.ACCES);
  assertEquals(b.mkdir("/tmp/b"), 0);
  assertEquals(b.rename("/tmp/b", "/tmp/a"), E.PERM);
  assertEquals(b.rename("/tmp/b", "/tmp/c"), 0);
  assertEquals(b.removeAll("/tmp/c"), 0);
  assertEquals(a.removeAll("/tmp/a"), 0);
  assertEquals(admin.list("/tmp"), []);
});

Deno.test("Paths lets a writer who is not root lose setuid, and no stranger give setgid", () => {
  const world = new World(), admin = world.as(root), a = world.as(alice);
  assertEquals(admin.write("/f", "x"), 0);
  assertEquals(admin.chmod("/f", 0o6777), 0);
  assertEquals(a.write("/f", "y"), 0);
  assertEquals(admin.mode("/f"), 0o777);
  assertEquals(admin.chown("/f", alice.uid, 77), 0);
  assertEquals(a.chmod("/f", 0o2755), 0);
  assertEquals(admin.mode("/f"), 0o755);
});

Deno.test("Paths refuses changes when the volume is read-only, and still reads", () => {
  const user = tree();
  // The same volume through a front end that may not write.
  const { fileSystem } = user.world;
  Object.defineProperty(fileSystem, "readOnly", { value: true });
  const outcomes = [
    user.mkdir("/x"),
    user.write("/x"),
    user.write("/dir/file"),
    user.open("/dir/file", { write: true }),
    user.remove("/dir/file"),
    user.removeAll("/dir"),
    user.rename("/dir", "/x"),
    user.link("/dir/file", "/x"),
    user.symlink("a", "/x"),
    user.chmod("/dir", 0),
    user.errno(user.paths.truncate(bytes("/dir/file"), 0)),
    user.errno(user.paths.removeExtendedAttribute(bytes("/dir"), bytes("user.a"), true)),
  ];
  assertEquals(outcomes, outcomes.map(() => E.ROFS));
  assertEquals(user.mkdir("/dir"), E.EXIST);
  assertEquals(user.read("/dir/file"), "content");
});

Deno.test("Paths keeps extended attributes by namespace", () => {
  const world = new World(), admin = world.as(root), a = world.as(alice);
  assertEquals(admin.write("/f", "x"), 0);
  assertEquals(admin.chmod("/f", 0o666), 0);
  assertEquals(admin.symlink("f", "/l"), 0);
  const set = (user: User, path: string, name: string, value = "v", flags = 0) =>
    user.errno(user.paths.setExtendedAttribute(bytes(path), bytes(name), bytes(value), { flags, follow: true }));
  const get = (user: User, path: string, name: string, follow = true) => {
    const value = user.run(user.paths.getExtendedAttribute(bytes(path), bytes(name), follow));
    return failed(value) ? value : text(value);
  };
  const list = (user: User) => {
    const names = user.run(user.paths.listExtendedAttributes(bytes("/f"), true));
    return failed(names) ? names : names.map(text).sort();
  };
  assertEquals(set(a, "/l", "user.color", "red"), 0);
  assertEquals(set(a, "/f", "user.color", "red", 1), E.EXIST);
  assertEquals(set(a, "/f", "user.none", "red", 2), E.NODATA);
  assertEquals(set(admin, "/f", "trusted.t"), 0);
  assertEquals(set(a, "/f", "trusted.t"), E.PERM);
  assertEquals(set(a, "/f", "security.s"), E.PERM);
  assertEquals(set(admin, "/f", "security.s"), 0);
  assertEquals(set(admin, "/f", "system.other"), E.OPNOTSUPP);
  assertEquals(set(admin, "/f", "user."), E.INVAL);
  assertEquals(get(a, "/f", "user.color"), "red");
  assertEquals(get(a, "/f", "trusted.t"), E.NODATA);
  assertEquals(get(a, "/f", "security.s"), "v");
  assertEquals(get(admin, "/l", "user.color", false), E.NODATA);
  assertEquals(list(admin), ["security.s", "trusted.t", "user.color"]);
  assertEquals(list(a), ["security.s", "user.color"]);
  assertEquals(a.errno(a.paths.removeExtendedAttribute(bytes("/f"), bytes("user.color"), true)), 0);
  assertEquals(get(a, "/f", "user.color"), E.NODATA);
});

Deno.test("Paths keeps others from setting user attributes of a sticky directory", () => {
  const world = new World(), admin = world.as(root), a = world.as(alice);
  assertEquals([admin.mkdir("/d"), admin.chmod("/d", 0o777)], [0, 0]);
  const set = (user: User) =>
    user.errno(
      user.paths.setExtendedAttribute(bytes("/d"), bytes("user.x"), bytes("v"), { flags: 0, follow: true }),
    );
  assertEquals(set(a), 0);
  assertEquals(admin.chmod("/d", 0o1777), 0);
  assertEquals([set(a), set(admin)], [E.PERM, 0]);
});

Deno.test("Paths honours access ACLs wherever it checks", () => {
  const world = new World(), admin = world.as(root), a = world.as(alice), b = world.as(bob);
  const name = bytes("system.posix_acl_access");
  const setAcl = (user: User, path: string, acl: string) => {
    const options = { flags: 0, follow: true };
    return user.errno(user.paths.setExtendedAttribute(bytes(path), name, encodeAcl(aclOf(acl)), options));
  };
  assertEquals([admin.mkdir("/d"), admin.chmod("/d", 0o700), admin.write("/d/f", "secret")], [0, 0, 0]);
  assertEquals([a.read("/d/f"), a.errno(a.paths.openDirectory(bytes("/d")))], [E.ACCES, E.ACCES]);
  assertEquals(setAcl(admin, "/d", "u::rwx u:1000:rwx g::--- m::rwx o::---"), 0);
  assertEquals(admin.mode("/d"), 0o770);
  assertEquals([a.read("/d/f"), b.read("/d/f")], ["secret", E.ACCES]);
  assertEquals(a.errno(a.paths.openDirectory(bytes("/d"))), 0);
  assertEquals([a.write("/d/mine", "x"), b.write("/d/his", "x")], [0, E.ACCES]);
  // The mask takes it away again, as chmod(2) does on Linux.
  assertEquals([admin.chmod("/d", 0o750), a.write("/d/more", "x"), a.read("/d/f")], [0, E.ACCES, "secret"]);
  // By a group of the caller; what it may not read it may not truncate or set the times of either.
  assertEquals(setAcl(admin, "/d/f", "u::rw- g::--- g:50:r-- m::rw- o::r--"), 0);
  assertEquals([a.read("/d/f"), a.write("/d/f", "y")], ["secret", E.ACCES]);
  assertEquals(a.errno(a.paths.truncate(bytes("/d/f"), 0)), E.ACCES);
  assertEquals(a.errno(a.paths.setTimes(bytes("/d/f"), { atime: "now", mtime: "now" }, true)), E.ACCES);
  assertEquals(setAcl(admin, "/d/f", "u::rw- g::--- g:50:rw- m::rw- o::r--"), 0);
  assertEquals([a.write("/d/f", "y"), a.errno(a.paths.truncate(bytes("/d/f"), 0))], [0, 0]);
  assertEquals(a.errno(a.paths.removeAll(bytes("/d/mine"))), E.ACCES);
  assertEquals([admin.chmod("/d", 0o770), a.errno(a.paths.removeAll(bytes("/d/mine")))], [0, 0]);
});

Deno.test("Paths lets owners alone set ACLs, everybody read them, and none of symbolic links", () => {
  const world = new World(), admin = world.as(root), a = world.as(alice);
  const name = bytes("system.posix_acl_access"), value = encodeAcl(aclOf("u::rwx u:7:r-x g::r-x m::r-x o::r-x"));
  const set = (user: User, path: string, follow = true) =>
    user.errno(user.paths.setExtendedAttribute(bytes(path), name, value, { flags: 0, follow }));
  assertEquals([admin.write("/f", "x"), admin.symlink("f", "/l"), set(a, "/f"), set(admin, "/l", false)], [
    0,
    0,
    E.PERM,
    E.OPNOTSUPP,
  ]);
  // The owner who is not in the file's group loses its setgid.
  assertEquals([admin.chmod("/f", 0o2755), admin.chown("/f", 1000, 9), admin.chmod("/f", 0o2755)], [0, 0, 0]);
  assertEquals([set(a, "/f"), a.mode("/f")], [0, 0o755]);
  assertEquals(a.run(a.paths.getExtendedAttribute(bytes("/f"), name, true)), value);
  assertEquals(a.run(a.paths.getExtendedAttribute(bytes("/l"), name, false)), E.OPNOTSUPP);
  for (let i = 0; i < 2; i++) assertEquals(a.errno(a.paths.removeExtendedAttribute(bytes("/f"), name, true)), 0);
});

Deno.test("Paths makes no setgid program of a group that the caller is not in", () => {
  const world = new World(), admin = world.as(root), a = world.as(alice), b = world.as(bob);
  assertEquals([admin.mkdir("/d"), admin.chown("/d", 0, 50), admin.chmod("/d", 0o2777)], [0, 0, 0]);
  const make = (user: User, path: string, mode: number) => {
    const file = user.run(openFile(user.paths, bytes(path), flagsOf({ write: true, create: true, mode })));
    assert(!failed(file));
    user.world.run(file.close());
    return user.mode(path);
  };
  assertEquals([make(a, "/d/a", 0o2755), make(b, "/d/b", 0o2755), make(b, "/d/c", 0o2644)], [0o2755, 0o755, 0o2644]);
  assertEquals([b.mkdir("/d/dir", 0o6755), b.mode("/d/dir") & 0o4000], [0, 0]);
});
