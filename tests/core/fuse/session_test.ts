import { assert, assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import {
  attr,
  attrOut,
  copyFileRangeIn,
  createIn,
  entryOut,
  fallocateIn,
  FATTR,
  FOPEN,
  FUSE,
  FUSE_LK_FLOCK,
  FUSE_OPEN_KILL_SUIDGID,
  FUSE_RELEASE_FLOCK_UNLOCK,
  FUSE_WRITE_CACHE,
  FUSE_WRITE_KILL_SUIDGID,
  INIT,
  INIT2,
  initIn,
  initOut,
  ioctlIn,
  ioctlOut,
  linkIn,
  LK,
  lkIn,
  lseekIn,
  mkdirIn,
  mknodIn,
  O,
  openIn,
  readIn,
  releaseIn,
  rename2In,
  SEEK,
  setattrIn,
  setxattrIn,
  statxOut,
} from "../../../core/fuse/protocol.ts";
import { fileFlagsRequest } from "../../../core/fuse/file_flags.ts";
import { openFilesMax } from "../../../core/fuse/session.ts";
import { encodeAcl } from "../../../core/meta/acl.ts";
import { Harness, type Reply, request, struct, utf8 } from "../../fuse/requests.ts";
import { FuseRequest } from "../../../core/fuse/protocol.ts";
import { aclOf } from "../meta/acls.ts";

const nodeOf = (reply: Reply) => Number(reply.view.getBigUint64(entryOut.nodeid, true));
const modeOf = (reply: Reply) => reply.view.getUint32(entryOut.attr + attr.mode, true);

/** CREATE with mode 0644; returns nodeid and handle. */
function create(harness: Harness, name: string, flags = 0, nodeid = 1): { node: number; fh: bigint; reply: Reply } {
  const body = struct(createIn.sizeof, {
    [createIn.flags]: flags | 2,
    [createIn.mode]: 0o100666,
    [createIn.umask]: 0o22,
  });
  const reply = harness.ask("CREATE", { nodeid, uid: 10, gid: 20 }, body, name);
  assertEquals(reply.errno, 0);
  return { node: nodeOf(reply), fh: reply.view.getBigUint64(entryOut.sizeof, true), reply };
}

function write(
  harness: Harness,
  nodeid: number,
  offset: number,
  data: Uint8Array,
  fields: Record<number, number> = {},
) {
  const body = struct(readIn.sizeof, { [readIn.offset]: BigInt(offset), [readIn.size]: data.length, ...fields });
  return harness.ask("WRITE", { nodeid }, body, data);
}

function read(harness: Harness, nodeid: number, offset: number | bigint, size: number): Reply {
  return harness.ask("READ", { nodeid }, struct(40, { [readIn.offset]: BigInt(offset), [readIn.size]: size }));
}

function mkdir(harness: Harness, name: string, nodeid = 1, mode = 0o777): number {
  const body = struct(8, { [mkdirIn.mode]: mode, [mkdirIn.umask]: 0o22 });
  const reply = harness.ask("MKDIR", { nodeid, uid: 10, gid: 20 }, body, name);
  assertEquals(reply.errno, 0);
  return nodeOf(reply);
}

function lookup(harness: Harness, name: string, nodeid = 1): Reply {
  return harness.ask("LOOKUP", { nodeid }, name);
}

function release(harness: Harness, node: number, fh: bigint, fields: Record<number, number | bigint> = {}): Reply {
  return harness.ask("RELEASE", { nodeid: node }, struct(24, { [releaseIn.fh]: fh, ...fields }));
}

function lockBody(type: number, fields: Record<number, number | bigint> = {}): Uint8Array {
  return struct(lkIn.sizeof, {
    [lkIn.owner]: 1n,
    [lkIn.start]: 0n,
    [lkIn.end]: 0x7fffffffffffffffn,
    [lkIn.type]: type,
    ...fields,
  });
}

Deno.test("INIT agrees on what is wanted and offered", () => {
  const harness = new Harness();
  const body = struct(initIn.sizeof, {
    [initIn.major]: 7,
    [initIn.minor]: 60,
    [initIn.flags]: 0xffffffff,
    [initIn.flags2]: 0xffffffff,
  });
  const { errno, view } = harness.ask("INIT", { nodeid: 0 }, body);
  assertEquals(errno, 0);
  assertEquals([view.getUint32(initOut.major, true), view.getUint32(initOut.minor, true)], [7, 45]);
  const flags = view.getUint32(initOut.flags, true);
  for (
    const flag of [
      INIT.ATOMIC_O_TRUNC,
      INIT.POSIX_LOCKS,
      INIT.FLOCK_LOCKS,
      INIT.MAX_PAGES,
      INIT.HANDLE_KILLPRIV_V2,
      INIT.POSIX_ACL,
      INIT.SETXATTR_EXT,
    ]
  ) {
    assert((flags & flag) !== 0);
  }
  for (const flag of [INIT.WRITEBACK_CACHE, INIT.NO_OPEN_SUPPORT, INIT.CACHE_SYMLINKS]) {
    assertEquals(flags & flag, 0);
  }
  assertEquals(view.getUint32(initOut.flags2, true), INIT2.CREATE_SUPP_GROUP | INIT2.DIRECT_IO_ALLOW_MMAP);
  assertEquals(view.getUint32(initOut.maxWrite, true), 1 << 20);
  assertEquals([view.getUint16(initOut.maxPages, true), view.getUint16(initOut.maxBackground, true)], [256, 64]);
});

Deno.test("INIT agrees on io_uring where it is wanted and offered", () => {
  for (const [overUring, offered] of [[true, true], [true, false], [false, true]]) {
    let agreed = -1;
    const harness = new Harness({}, { overUring, onReady: ({ flags2 }) => agreed = flags2 });
    const body = struct(initIn.sizeof, {
      [initIn.major]: 7,
      [initIn.minor]: 45,
      [initIn.flags]: INIT.INIT_EXT,
      [initIn.flags2]: offered ? INIT2.OVER_IO_URING : 0,
    });
    const { view } = harness.ask("INIT", { nodeid: 0 }, body);
    assertEquals(agreed, overUring && offered ? INIT2.OVER_IO_URING : 0);
    assertEquals(view.getUint32(initOut.flags2, true), agreed);
  }
});

Deno.test("INIT answers a newer major with ours and refuses an old kernel", () => {
  const harness = new Harness();
  const newer = harness.ask("INIT", { nodeid: 0 }, struct(64, { [initIn.major]: 8 }));
  assertEquals([newer.errno, newer.view.getUint32(0, true)], [0, 7]);
  assertEquals(harness.ask("INIT", { nodeid: 0 }, struct(64, { [initIn.major]: 6 })).errno, E.PROTO);
  const old = struct(16, { [initIn.major]: 7, [initIn.minor]: 35 });
  assertEquals(harness.ask("INIT", { nodeid: 0 }, old).errno, E.PROTO);
});

Deno.test("nodeid 1 is the root, in requests and in replies", () => {
  const harness = new Harness();
  const root = harness.ask("GETATTR", {}, struct(16));
  assertEquals(root.view.getBigUint64(attrOut.attr + attr.ino, true), 1n);
  const dir = mkdir(harness, "dir");
  assert(dir > 2 ** 41);
  assertEquals(nodeOf(lookup(harness, "..", dir)), 1);
  assertEquals(nodeOf(lookup(harness, ".", dir)), dir);
  assertEquals(nodeOf(lookup(harness, "..")), 1);
  assertEquals(lookup(harness, "absent").errno, E.NOENT);
});

Deno.test("CREATE, MKDIR and MKNOD leave the umask to the file system", () => {
  const harness = new Harness();
  assertEquals(modeOf(create(harness, "file").reply), 0o100644);
  mkdir(harness, "dir");
  assertEquals(modeOf(lookup(harness, "dir")), 0o40755);
  const body = struct(16, { [mknodIn.mode]: 0o20666, [mknodIn.rdev]: 0x103, [mknodIn.umask]: 0o77 });
  const device = harness.ask("MKNOD", {}, body, "null");
  assertEquals(modeOf(device), 0o20600);
  assertEquals(device.view.getUint32(entryOut.attr + attr.rdev, true), 0x103);
  assertEquals(harness.ask("MKNOD", {}, struct(16, { [mknodIn.mode]: 0o40755 }), "x").errno, E.INVAL);
});

Deno.test("CREATE in a setgid directory knows the caller's supplementary groups", () => {
  const harness = new Harness();
  const dir = mkdir(harness, "dir");
  harness.ask("SETATTR", { nodeid: dir }, struct(88, { [setattrIn.valid]: FATTR.GID, [setattrIn.gid]: 500 }));
  harness.ask("SETATTR", { nodeid: dir }, struct(88, { [setattrIn.valid]: FATTR.MODE, [setattrIn.mode]: 0o2777 }));
  const body = struct(createIn.sizeof, { [createIn.mode]: 0o102775 });
  const groups = struct(16, { 0: 16, 4: 32, 8: 1, 12: 500 });
  const member = harness.ask("CREATE", { nodeid: dir, uid: 10, gid: 20, extensions: groups }, body, "member");
  assertEquals(modeOf(member), 0o102775);
  assertEquals(member.view.getUint32(entryOut.attr + attr.gid, true), 500);
  assertEquals(modeOf(harness.ask("CREATE", { nodeid: dir, uid: 10, gid: 20 }, body, "stranger")), 0o100775);
});

Deno.test("CREATE without O_EXCL makes the kernel look again when the name is no regular file", () => {
  const harness = new Harness();
  harness.ask("SYMLINK", {}, "name", "target");
  const body = struct(createIn.sizeof, { [createIn.mode]: 0o100644 });
  assertEquals(harness.ask("CREATE", {}, body, "name").errno, E.STALE);
  const exclusive = struct(createIn.sizeof, { [createIn.mode]: 0o100644, [createIn.flags]: O.EXCL });
  assertEquals(harness.ask("CREATE", {}, exclusive, "name").errno, E.EXIST);
  assertEquals(harness.fileSystem.opens, 0);
});

function openFlagsOf(harness: Harness, node: number, flags: number): number {
  return harness.ask("OPEN", { nodeid: node }, struct(8, { [openIn.flags]: flags })).view.getUint32(8, true);
}

Deno.test("OPEN answers DIRECT_IO for appends and O_DIRECT only", () => {
  const harness = new Harness();
  const { node } = create(harness, "file");
  for (const flags of [O.APPEND | 1, 0o40000]) assertEquals(openFlagsOf(harness, node, flags), FOPEN.DIRECT_IO);
  for (const flags of [0, 2]) assertEquals(openFlagsOf(harness, node, flags) & FOPEN.DIRECT_IO, 0);
});

Deno.test("OPEN keeps the kernel's pages when the file is as it was at the last open, or only this mount wrote it since", () => {
  const harness = new Harness(), { fileSystem } = harness;
  const { node } = create(harness, "file");
  assertEquals(openFlagsOf(harness, node, 0), FOPEN.KEEP_CACHE);
  // Without a lease nobody can say who else has written.
  write(harness, node, 0, utf8("mine"));
  assertEquals(openFlagsOf(harness, node, 0), 0);
  assertEquals(openFlagsOf(harness, node, 0), FOPEN.KEEP_CACHE);
  fileSystem.validForMs = 1000;
  write(harness, node, 0, utf8("mine"));
  assertEquals(openFlagsOf(harness, node, 0), FOPEN.KEEP_CACHE);
  harness.run(fileSystem.write(node, 0, utf8("another's"), { killSetId: false }));
  assertEquals(openFlagsOf(harness, node, 0), 0);
  harness.run(fileSystem.write(node, 0, utf8("another's"), { killSetId: false }));
  write(harness, node, 0, utf8("mine"));
  assertEquals(openFlagsOf(harness, node, 0), 0);
});

Deno.test("OPEN keeps no pages of a mount whose reads all move the atime", () => {
  const harness = new Harness({}, { readsAnew: true });
  const { node } = create(harness, "file");
  for (let open = 0; open < 2; open++) assertEquals(openFlagsOf(harness, node, 0), 0);
});

Deno.test("a thread whose OPEN came after a rename opens what it looks up next, however soon that is replaced too", () => {
  const harness = new Harness(), pid = 7, { fileSystem } = harness;
  const replace = (text: string) => {
    const { node, fh } = create(harness, "new");
    write(harness, node, 0, utf8(text));
    release(harness, node, fh);
    assertEquals(harness.ask("RENAME", {}, struct(8, { 0: 1n }), "new", "name").errno, 0);
  };
  const look = () => nodeOf(harness.ask("LOOKUP", { pid }, "name"));
  const open = (nodeid: number) => harness.ask("OPEN", { nodeid, pid }, struct(8));
  replace("first");
  const first = look();
  replace("second");
  assertEquals(open(first).errno, E.STALE);
  const second = look();
  replace("third");
  const opened = open(second);
  assertEquals(opened.errno, 0);
  assertEquals([fileSystem.opens, harness.session.openFiles], [1, 1]);
  assertEquals(read(harness, second, 0, 10).body, utf8("second"));
  release(harness, second, opened.view.getBigUint64(0, true));
  look();
  assertEquals([fileSystem.opens, fileSystem.inodes], [0, 2]);
});

Deno.test("OPEN registers and RELEASE ends each open, and a file lives until then", () => {
  const harness = new Harness();
  const { node, fh } = create(harness, "file");
  write(harness, node, 0, utf8("alive"));
  const second = harness.ask("OPEN", { nodeid: node }, struct(8)).view.getBigUint64(0, true);
  assertEquals([harness.fileSystem.opens, harness.session.openFiles], [2, 2]);
  assertEquals(harness.ask("UNLINK", {}, "file").errno, 0);
  assertEquals(release(harness, node, fh).errno, 0);
  assertEquals(read(harness, node, 0, 10).body, utf8("alive"));
  assertEquals(release(harness, node, fh).errno, E.BADF);
  assertEquals(release(harness, node, second).errno, 0);
  assertEquals(read(harness, node, 0, 10).errno, E.STALE);
  assertEquals([harness.fileSystem.opens, harness.session.openFiles], [0, 0]);
  for (const wrong of [0n, 99n, 2n ** 63n]) assertEquals(release(harness, node, wrong).errno, E.BADF);
  assert(openFilesMax > 1000);
});

Deno.test("OPEN and CREATE with O_TRUNC clear setuid when the kernel says so", () => {
  const harness = new Harness();
  const { node } = create(harness, "file");
  const chmod = struct(88, { [setattrIn.valid]: FATTR.MODE, [setattrIn.mode]: 0o6755 });
  const flags = { [openIn.flags]: O.TRUNC | 1, [openIn.openFlags]: FUSE_OPEN_KILL_SUIDGID };
  write(harness, node, 0, utf8("12345"));
  harness.ask("SETATTR", { nodeid: node }, chmod);
  assertEquals(harness.ask("OPEN", { nodeid: node }, struct(8, { [openIn.flags]: O.TRUNC | 1 })).errno, 0);
  assertEquals(modeOf(lookup(harness, "file")), 0o106755);
  assertEquals(harness.ask("OPEN", { nodeid: node }, struct(8, flags)).errno, 0);
  assertEquals(modeOf(lookup(harness, "file")), 0o100755);
  assertEquals(read(harness, node, 0, 10).body.length, 0);
});

Deno.test("CREATE with O_TRUNC keeps setuid and setgid of the file that it makes", () => {
  const harness = new Harness();
  const flags = O.TRUNC | 1;
  const kill = { [createIn.flags]: flags, [createIn.mode]: 0o6755, [createIn.openFlags]: FUSE_OPEN_KILL_SUIDGID };
  assertEquals(harness.ask("CREATE", {}, struct(createIn.sizeof, kill), "file").errno, 0);
  assertEquals(modeOf(lookup(harness, "file")), 0o106755);
  assertEquals(harness.ask("CREATE", {}, struct(createIn.sizeof, kill), "file").errno, 0);
  assertEquals(modeOf(lookup(harness, "file")), 0o100755);
});

Deno.test("WRITE and SETATTR clear setuid and setgid as flagged, chown always", () => {
  const harness = new Harness();
  const { node } = create(harness, "file");
  const set = () =>
    harness.ask("SETATTR", { nodeid: node }, struct(88, { [setattrIn.valid]: FATTR.MODE, [setattrIn.mode]: 0o6755 }));
  const mode = () => modeOf(lookup(harness, "file"));
  set();
  write(harness, node, 0, utf8("x"));
  assertEquals(mode(), 0o106755);
  write(harness, node, 0, utf8("x"), { [readIn.readFlags]: FUSE_WRITE_KILL_SUIDGID });
  assertEquals(mode(), 0o100755);
  set();
  harness.ask("SETATTR", { nodeid: node }, struct(88, { [setattrIn.valid]: FATTR.UID, [setattrIn.uid]: 5 }));
  assertEquals(mode(), 0o100755);
  set();
  harness.ask("SETATTR", { nodeid: node }, struct(88, { [setattrIn.valid]: FATTR.SIZE | FATTR.KILL_SUIDGID }));
  assertEquals(mode(), 0o100755);
});

Deno.test("SETATTR of nothing, a chown that leaves both ids, clears setuid for the owner and for root alone", () => {
  const harness = new Harness();
  const { node } = create(harness, "file"), stranger = 11, owner = 10;
  const mode = { [setattrIn.valid]: FATTR.MODE, [setattrIn.mode]: 0o6755 };
  for (const [uid, left] of [[stranger, 0o106755], [owner, 0o100755], [0, 0o100755]]) {
    harness.ask("SETATTR", { nodeid: node }, struct(88, mode));
    assertEquals(harness.ask("SETATTR", { nodeid: node, uid }, struct(88)).errno, 0);
    assertEquals(modeOf(lookup(harness, "file")), left);
  }
});

Deno.test("WRITE with O_APPEND goes to the end whatever the offset, written back pages do not", () => {
  const harness = new Harness();
  const { node } = create(harness, "file");
  write(harness, node, 0, utf8("0123"));
  assertEquals(write(harness, node, 1, utf8("45"), { [readIn.flags]: O.APPEND }).view.getUint32(0, true), 2);
  assertEquals(read(harness, node, 0, 100).body, utf8("012345"));
  write(harness, node, 1, utf8("X"), { [readIn.flags]: O.APPEND, [readIn.readFlags]: FUSE_WRITE_CACHE });
  assertEquals(read(harness, node, 0, 100).body, utf8("0X2345"));
});

Deno.test("WRITE with O_DSYNC syncs through an open without page cache, where the kernel sends no FSYNC", () => {
  for (const [flags, syncs] of [[O.APPEND, 1], [O.DIRECT, 1], [0, 0]]) {
    let count = 0;
    const harness = new Harness({
      pause: (operation) => {
        if (operation === "sync") count++;
        return null;
      },
    });
    const { node, fh } = create(harness, "file", flags);
    const direct = { [readIn.fh]: Number(fh), [readIn.flags]: flags };
    write(harness, node, 0, utf8("0123"), direct);
    assertEquals(count, 0);
    assertEquals(write(harness, node, 0, utf8("45"), { ...direct, [readIn.flags]: flags | O.DSYNC }).errno, 0);
    assertEquals(count, syncs);
    assertEquals(release(harness, node, fh).errno, 0);
    // The handle's number comes again, for an open with page cache.
    const again = harness.ask("OPEN", { nodeid: node }, struct(8, {})).view.getBigUint64(0, true);
    assertEquals(again, fh);
    write(harness, node, 0, utf8("6"), { [readIn.fh]: Number(again), [readIn.flags]: O.DSYNC });
    assertEquals(count, syncs);
  }
});

Deno.test("READ and WRITE carry 1 MiB and refuse offsets beyond 2^53", () => {
  const harness = new Harness();
  const { node } = create(harness, "file");
  const data = Uint8Array.from({ length: 1 << 20 }, (_, i) => i * 7 >> 3);
  assertEquals(write(harness, node, 4096, data).view.getUint32(0, true), 1 << 20);
  assertEquals(read(harness, node, 4096, 1 << 20).body, data);
  assertEquals(read(harness, node, 4096, 0xffffffff).body.length, 1 << 20);
  assertEquals(read(harness, node, 2n ** 62n, 4096).body.length, 0);
  const far = struct(40, { [readIn.offset]: 2n ** 62n, [readIn.size]: 1 });
  assertEquals(harness.ask("WRITE", { nodeid: node }, far, utf8("x")).errno, E.FBIG);
});

Deno.test("READDIR fills the buffer that the kernel gives", () => {
  const harness = new Harness();
  for (let i = 0; i < 200; i++) create(harness, `${i}`);
  for (const opcode of ["READDIR", "READDIRPLUS"] as const) {
    const { body } = harness.ask(opcode, {}, struct(40, { [readIn.size]: 4096 }));
    assert(body.length > 3900 && body.length <= 4096, `${opcode}: ${body.length} bytes`);
  }
});

Deno.test("READDIR lists dots with cookies 1 and 2 and resumes at any cookie", () => {
  const harness = new Harness();
  const dir = mkdir(harness, "dir");
  for (let i = 0; i < 100; i++) create(harness, `f${i}`, 0, dir);
  for (const [opcode, plus] of [["READDIR", 0], ["READDIRPLUS", entryOut.sizeof]] as const) {
    const names: string[] = [], cookies: number[] = [];
    for (let cookie = 0n;;) {
      const body = struct(40, { [readIn.offset]: cookie, [readIn.size]: 1024 });
      const { errno, body: page, view } = harness.ask(opcode, { nodeid: dir }, body);
      assertEquals(errno, 0);
      if (page.length === 0) break;
      for (let at = 0; at < page.length;) {
        const length = view.getUint32(at + plus + 16, true);
        names.push(new TextDecoder().decode(page.subarray(at + plus + 24, at + plus + 24 + length)));
        cookie = view.getBigUint64(at + plus + 8, true);
        cookies.push(Number(cookie));
        at += plus + 24 + (length + 7 & ~7);
      }
    }
    assertEquals(names.slice(0, 2), [".", ".."]);
    assertEquals(cookies.slice(0, 2), [1, 2]);
    assertEquals(names.slice(2), Array.from({ length: 100 }, (_, i) => `f${i}`));
    assert(cookies.slice(2).every((cookie) => cookie > 2));
  }
  const root = harness.ask("READDIR", {}, struct(40, { [readIn.size]: 4096 }));
  assertEquals([root.view.getBigUint64(0, true), root.view.getBigUint64(32, true)], [1n, 1n]);
  assertEquals(harness.ask("READDIR", {}, struct(40, { [readIn.size]: 8 })).errno, E.INVAL);
});

Deno.test("OPENDIR holds the directory until RELEASEDIR, and FORGETs reach the file system", () => {
  const harness = new Harness(), { fileSystem } = harness;
  const dir = mkdir(harness, "dir");
  harness.ask("OPENDIR", { nodeid: dir }, struct(8));
  assertEquals(fileSystem.held, [Number(dir)]);
  harness.ask("RELEASEDIR", { nodeid: dir }, struct(24));
  assertEquals(fileSystem.held, []);
  assertEquals(harness.ask("FORGET", { nodeid: dir }, struct(8)).errno, -1);
  const two = [struct(8, { 0: 2 }), struct(16, { 0: 5n, 8: 1n }), struct(16, { 0: 6n, 8: 1n })];
  assertEquals(harness.ask("BATCH_FORGET", {}, ...two).errno, -1);
  // A count that the request has no room for names no more than there is.
  assertEquals(harness.ask("BATCH_FORGET", {}, struct(8, { 0: 0xffffffff }), struct(16, { 0: 7n })).errno, -1);
  assertEquals(fileSystem.forgotten, [Number(dir), 5, 6, 7]);
});

Deno.test("READDIR of a directory that is gone says ENOENT", () => {
  const harness = new Harness();
  const dir = mkdir(harness, "dir");
  assertEquals(harness.ask("RMDIR", {}, "dir").errno, 0);
  assertEquals(harness.ask("READDIR", { nodeid: dir }, struct(40, { [readIn.size]: 4096 })).errno, E.NOENT);
});

Deno.test("RENAME2 passes NOREPLACE and EXCHANGE and refuses WHITEOUT", () => {
  const harness = new Harness();
  const a = create(harness, "a").node, b = create(harness, "b").node;
  const ask = (flags: number) =>
    harness.ask("RENAME2", {}, struct(16, { [rename2In.newdir]: 1n, [rename2In.flags]: flags }), "a", "b").errno;
  assertEquals(ask(1), E.EXIST);
  assertEquals(ask(2), 0);
  assertEquals([nodeOf(lookup(harness, "a")), nodeOf(lookup(harness, "b"))], [b, a]);
  assertEquals([ask(4), ask(3)], [E.INVAL, E.INVAL]);
  assertEquals(harness.ask("RENAME", {}, struct(8, { [rename2In.newdir]: 1n }), "a", "b").errno, 0);
  assertEquals(lookup(harness, "a").errno, E.NOENT);
  assertEquals(harness.ask("RENAME", {}, struct(8, { [rename2In.newdir]: 2n ** 60n }), "b", "c").errno, E.STALE);
});

Deno.test("LINK, SYMLINK and READLINK", () => {
  const harness = new Harness();
  const { node } = create(harness, "a");
  const linked = harness.ask("LINK", {}, struct(8, { [linkIn.oldnodeid]: BigInt(node) }), "b");
  assertEquals(linked.view.getUint32(entryOut.attr + attr.nlink, true), 2);
  const symlink = harness.ask("SYMLINK", {}, "s", "../far/away");
  assertEquals(harness.ask("READLINK", { nodeid: nodeOf(symlink) }).body, utf8("../far/away"));
  assertEquals(harness.ask("READLINK", { nodeid: node }).errno, E.INVAL);
});

Deno.test("extended attributes: sizes, ERANGE, flags and namespaces", () => {
  const harness = new Harness();
  const { node } = create(harness, "a");
  const set = (name: string, value: string, flags = 0) => {
    const body = struct(setxattrIn.sizeof, { [setxattrIn.size]: value.length, [setxattrIn.flags]: flags });
    return harness.ask("SETXATTR", { nodeid: node }, body, name, utf8(value)).errno;
  };
  const get = (name: string, size: number) => harness.ask("GETXATTR", { nodeid: node }, struct(8, { 0: size }), name);
  assertEquals(set("user.a", "value"), 0);
  assertEquals(get("user.a", 0).view.getUint32(0, true), 5);
  assertEquals(get("user.a", 5).body, utf8("value"));
  assertEquals(get("user.a", 4).errno, E.RANGE);
  assertEquals(get("user.b", 4).errno, E.NODATA);
  assertEquals([set("user.a", "x", 1), set("user.b", "x", 2)], [E.EXIST, E.NODATA]);
  assertEquals([set("system.other", "x"), set("odd.a", "x"), set("user.", "x")], [95, 95, E.INVAL]);
  assertEquals([set("user.a", "x", 4), set("user.a", "x", 0x80000001)], [E.INVAL, E.INVAL]);
  assertEquals([set("system.posix_acl_access", "xxxx"), get("system.posix_acl_default", 0).errno], [
    E.OPNOTSUPP,
    E.NODATA,
  ]);
  assertEquals(set("trusted.t", "x"), 0);
  const list = (uid: number) => harness.ask("LISTXATTR", { nodeid: node, uid }, struct(8, { 0: 100 })).body;
  assertEquals(list(0), utf8("user.a\0trusted.t\0"));
  assertEquals(list(1000), utf8("user.a\0"));
  assertEquals(harness.ask("REMOVEXATTR", { nodeid: node }, "user.a").errno, 0);
  assertEquals(harness.ask("REMOVEXATTR", { nodeid: node }, "user.a").errno, E.NODATA);
});

Deno.test("LOOKUP of '.' is ESTALE for what has lost its last name", () => {
  const harness = new Harness(), { node } = create(harness, "file");
  assertEquals(harness.ask("LOOKUP", { nodeid: node }, ".").errno, 0);
  harness.ask("UNLINK", {}, "file");
  assertEquals(harness.ask("LOOKUP", { nodeid: node }, ".").errno, E.STALE);
});

Deno.test("GETXATTR of an ACL asks nobody while it is known that there is none", () => {
  let calls = 0;
  const pause = (operation: string) => {
    if (operation === "getExtendedAttribute") calls++;
    return null;
  };
  const harness = new Harness({ pause });
  const { node } = create(harness, "a"), name = "system.posix_acl_access";
  const asked = () => {
    const before = calls;
    const { errno } = harness.ask("GETXATTR", { nodeid: node }, struct(8, { 0: 4096 }), name);
    return [errno, calls - before];
  };
  assertEquals(asked(), [E.NODATA, 1]);
  harness.fileSystem.validForMs = 1000;
  assertEquals(asked(), [E.NODATA, 0]);
  const acl = encodeAcl(aclOf("u::rw- u:1:r-- g::r-- m::r-- o::---"));
  const body = struct(setxattrIn.sizeof, { [setxattrIn.size]: acl.length });
  assertEquals(harness.ask("SETXATTR", { nodeid: node }, body, name, acl).errno, 0);
  assertEquals(asked(), [0, 1]);
});

Deno.test("FALLOCATE, LSEEK, COPY_FILE_RANGE and STATX", () => {
  const harness = new Harness();
  const { node } = create(harness, "a");
  const allocate = (mode: number, offset: bigint, length: bigint) => {
    const fields = { [fallocateIn.offset]: offset, [fallocateIn.length]: length, [fallocateIn.mode]: mode };
    return harness.ask("FALLOCATE", { nodeid: node }, struct(fallocateIn.sizeof, fields)).errno;
  };
  const seek = (offset: bigint, whence: number) =>
    harness.ask("LSEEK", { nodeid: node }, struct(24, { [lseekIn.offset]: offset, [lseekIn.whence]: whence }));
  assertEquals(allocate(0, 0n, 65536n), 0);
  assertEquals(allocate(3, 8192n, 8192n), 0);
  assertEquals([allocate(8, 0n, 1n), allocate(0, 0n, 0n), allocate(0, 2n ** 62n, 1n)], [E.OPNOTSUPP, E.INVAL, E.FBIG]);
  assertEquals(seek(0n, SEEK.HOLE).view.getUint32(0, true), 8192);
  assertEquals(seek(8192n, SEEK.DATA).view.getUint32(0, true), 16384);
  assertEquals([seek(65536n, SEEK.DATA).errno, seek(0n, 1).errno], [E.NXIO, E.INVAL]);
  write(harness, node, 0, utf8("copied"));
  const target = create(harness, "b").node;
  const copy = { [copyFileRangeIn.nodeidOut]: BigInt(target), [copyFileRangeIn.offOut]: 3n, [copyFileRangeIn.len]: 6n };
  for (const opcode of ["COPY_FILE_RANGE", "COPY_FILE_RANGE_64"] as const) {
    const copied = harness.ask(opcode, { nodeid: node }, struct(copyFileRangeIn.sizeof, copy));
    assertEquals(copied.view.getBigUint64(0, true), 6n);
  }
  assertEquals(read(harness, target, 0, 100).body, utf8("\0\0\0copied"));
  const statx = harness.ask("STATX", { nodeid: target }, struct(24));
  assertEquals(statx.view.getBigUint64(statxOut.size, true), 9n);
  assert(statx.view.getBigUint64(statxOut.btime, true) > 0n);
});

Deno.test("SETLK, GETLK and FLUSH: closing drops the owner's fcntl locks", () => {
  const harness = new Harness();
  const { node } = create(harness, "a");
  const own = lockBody(LK.WRLCK, { [lkIn.start]: 100n, [lkIn.end]: 199n, [lkIn.pid]: 42 });
  const other = (type: number) => lockBody(type, { [lkIn.owner]: 2n ** 63n + 1n });
  assertEquals(harness.ask("SETLK", { nodeid: node }, own).errno, 0);
  assertEquals(harness.ask("SETLK", { nodeid: node }, other(LK.RDLCK)).errno, E.AGAIN);
  const found = harness.ask("GETLK", { nodeid: node }, other(LK.RDLCK)).view;
  assertEquals([found.getBigUint64(0, true), found.getBigUint64(8, true)], [100n, 199n]);
  assertEquals([found.getUint32(16, true), found.getUint32(20, true)], [LK.WRLCK, 42]);
  // Another owner's close changes nothing.
  harness.ask("FLUSH", { nodeid: node }, struct(24, { 16: 7n }));
  assertEquals(harness.fileSystem.locks, 1);
  harness.ask("FLUSH", { nodeid: node }, struct(24, { 16: 1n }));
  assertEquals(harness.fileSystem.locks, 0);
  const none = harness.ask("GETLK", { nodeid: node }, other(LK.RDLCK)).view;
  assertEquals([none.getUint32(16, true), none.getBigUint64(8, true)], [LK.UNLCK, 0x7fffffffffffffffn]);
  assertEquals(harness.ask("SETLK", { nodeid: node }, lockBody(3)).errno, E.INVAL);
  assertEquals(
    harness.ask("SETLK", { nodeid: node }, lockBody(0, { [lkIn.start]: 5n, [lkIn.end]: 4n })).errno,
    E.INVAL,
  );
});

Deno.test("SETLK and GETLK tell the last bytes that can be locked apart", () => {
  const harness = new Harness(), last = 2n ** 63n - 1n;
  const { node } = create(harness, "a");
  const byte = (at: bigint, owner: bigint) =>
    lockBody(LK.WRLCK, { [lkIn.start]: at, [lkIn.end]: at, [lkIn.owner]: owner });
  assertEquals(harness.ask("SETLK", { nodeid: node }, byte(last, 1n)).errno, 0);
  assertEquals(harness.ask("SETLK", { nodeid: node }, byte(last - 1n, 2n)).errno, 0);
  assertEquals(harness.ask("SETLK", { nodeid: node }, byte(last - 1n, 1n)).errno, E.AGAIN);
  const found = harness.ask("GETLK", { nodeid: node }, lockBody(LK.WRLCK, { [lkIn.owner]: 1n })).view;
  assertEquals([found.getBigUint64(0, true), found.getBigUint64(8, true)], [last - 1n, last - 1n]);
  const beyond = lockBody(LK.WRLCK, { [lkIn.end]: last + 1n });
  assertEquals(harness.ask("SETLK", { nodeid: node }, beyond).errno, E.OVERFLOW);
});

Deno.test("FLUSH asks the file system only when a lock may be held", () => {
  const asked: string[] = [];
  const harness = new Harness({
    pause: (operation) => {
      asked.push(operation);
      return null;
    },
  });
  const { node } = create(harness, "a");
  harness.ask("FLUSH", { nodeid: node }, struct(24, { 16: 1n }));
  harness.ask("SETLK", { nodeid: node }, lockBody(LK.WRLCK));
  harness.ask("SETLK", { nodeid: node }, lockBody(LK.UNLCK));
  harness.ask("FLUSH", { nodeid: node }, struct(24, { 16: 1n }));
  assertEquals(asked, ["create", "setLock", "setLock"]);
});

Deno.test("RELEASE drops the flock of the description that took it", () => {
  const harness = new Harness();
  const { node, fh } = create(harness, "a");
  assertEquals(harness.ask("SETLK", { nodeid: node }, lockBody(LK.WRLCK, { [lkIn.lkFlags]: FUSE_LK_FLOCK })).errno, 0);
  harness.ask("FLUSH", { nodeid: node }, struct(24, { 16: 1n }));
  assertEquals(harness.fileSystem.locks, 1);
  const flags = { [releaseIn.releaseFlags]: FUSE_RELEASE_FLOCK_UNLOCK, [releaseIn.lockOwner]: 1n };
  assertEquals(release(harness, node, fh, flags).errno, 0);
  assertEquals(harness.fileSystem.locks, 0);
});

Deno.test("RELEASE drops what the description itself has locked (F_OFD_SETLK), and nothing else", () => {
  const harness = new Harness();
  const { node, fh } = create(harness, "a");
  const second = harness.ask("OPEN", { nodeid: node }, struct(8, {})).view.getBigUint64(0, true);
  const lock = (through: bigint, owner: bigint, start: bigint) => {
    const fields = { [lkIn.fh]: through, [lkIn.owner]: owner, [lkIn.start]: start, [lkIn.end]: start + 9n };
    return harness.ask("SETLK", { nodeid: node }, lockBody(LK.WRLCK, fields)).errno;
  };
  assertEquals([lock(fh, 1n, 0n), lock(second, 2n, 10n)], [0, 0]);
  assertEquals(release(harness, node, fh).errno, 0);
  assertEquals(harness.fileSystem.locks, 1);
  assertEquals(lock(second, 3n, 0n), 0);
  assertEquals(release(harness, node, second).errno, 0);
  assertEquals(harness.fileSystem.locks, 0);
});

Deno.test("SETLKW waits until the lock is free, INTERRUPT ends the wait with EINTR", () => {
  const harness = new Harness();
  const { node } = create(harness, "a");
  harness.ask("SETLK", { nodeid: node }, lockBody(LK.WRLCK));
  const first = harness.start("SETLKW", { nodeid: node, unique: 1000 }, lockBody(LK.WRLCK, { [lkIn.owner]: 2n }));
  const second = harness.start("SETLKW", { nodeid: node, unique: 1002 }, lockBody(LK.WRLCK, { [lkIn.owner]: 3n }));
  assertEquals([first.length.settled, second.length.settled, harness.session.inFlight], [false, false, 2]);
  assertEquals(harness.ask("INTERRUPT", { unique: 1001 }, struct(8, { 0: 1000n })).errno, -1);
  harness.scheduler.run();
  assertEquals(first.reply().errno, E.INTR);
  assertEquals(second.length.settled, false);
  harness.ask("SETLK", { nodeid: node }, lockBody(LK.UNLCK));
  harness.scheduler.run();
  assertEquals(second.reply().errno, 0);
  assertEquals(harness.session.inFlight, 0);
});

Deno.test("SETLKW finds a deadlock", () => {
  const harness = new Harness();
  const a = create(harness, "a").node, b = create(harness, "b").node;
  const lock = (owner: bigint) => lockBody(LK.WRLCK, { [lkIn.owner]: owner });
  harness.ask("SETLK", { nodeid: a }, lock(1n));
  harness.ask("SETLK", { nodeid: b }, lock(2n));
  harness.start("SETLKW", { nodeid: b, unique: 1000 }, lock(1n));
  assertEquals(harness.start("SETLKW", { nodeid: a, unique: 1002 }, lock(2n)).reply().errno, E.DEADLK);
});

Deno.test("INTERRUPT of an unknown request asks the kernel to send it again", () => {
  const harness = new Harness();
  assertEquals(harness.ask("INTERRUPT", { unique: 5 }, struct(8, { 0: 4n })).errno, E.AGAIN);
});

Deno.test("undelivered() closes what an OPEN opened", () => {
  const harness = new Harness();
  const { node, fh } = create(harness, "a");
  release(harness, node, fh);
  const bytes = request({ opcode: FUSE.OPEN, nodeid: node }, struct(8));
  const open = new FuseRequest(new Uint8Array(8192), 0, 4096);
  open.bytes.set(bytes);
  open.decode(bytes.length);
  harness.run(harness.session.handle(open));
  assertEquals(harness.fileSystem.opens, 1);
  harness.run(harness.session.undelivered(open));
  harness.run(harness.session.undelivered(open));
  assertEquals([harness.fileSystem.opens, harness.session.openFiles], [0, 0]);
});

Deno.test("TMPFILE opens a file without a name, which LINK names unless it was O_EXCL", () => {
  const harness = new Harness(), group = struct(24, { 0: 24, 4: 32, 8: 1, 12: 4242 });
  for (const [flags, errno] of [[O.TMPFILE | 2, 0], [O.TMPFILE | 2 | O.EXCL, E.NOENT]] as const) {
    const body = struct(createIn.sizeof, {
      [createIn.flags]: flags,
      [createIn.mode]: 0o100666,
      [createIn.umask]: 0o27,
    });
    // The kernel's name for it is "/".
    const made = harness.ask("TMPFILE", { extensions: group }, body, "/", new Uint8Array(6));
    assertEquals(made.errno, 0);
    const node = nodeOf(made), at = entryOut.attr;
    assertEquals([made.view.getUint32(at + attr.nlink, true), made.view.getUint32(at + attr.mode, true)], [
      0,
      0o100640,
    ]);
    assertEquals(harness.session.openFiles, 1);
    assertEquals(harness.ask("LINK", {}, struct(8, { 0: BigInt(node) }), "named").errno, errno);
    release(harness, node, made.view.getBigUint64(entryOut.sizeof, true));
  }
  assertEquals(lookup(harness, "named").errno, 0);
  assertEquals(harness.fileSystem.inodes, 2);
});

Deno.test("IOCTL gets and sets what chattr sets, in both forms, and refuses flags that are not kept", () => {
  const harness = new Harness(), { node } = create(harness, "file");
  const { getFlags, setFlags, getExtended, setExtended } = fileFlagsRequest;
  const get = (cmd: number, outSize: number) => {
    const body = struct(ioctlIn.sizeof, { [ioctlIn.cmd]: cmd, [ioctlIn.outSize]: outSize });
    const { errno, body: reply, view } = harness.ask("IOCTL", { nodeid: node }, body);
    assertEquals([errno, reply.length, view.getInt32(0, true)], [0, ioctlOut.sizeof + outSize, 0]);
    return view.getUint32(ioctlOut.sizeof, true);
  };
  const set = (cmd: number, argument: Uint8Array) => {
    const body = struct(ioctlIn.sizeof, { [ioctlIn.cmd]: cmd, [ioctlIn.inSize]: argument.length });
    return harness.ask("IOCTL", { nodeid: node }, body, argument).errno;
  };
  for (const [flags, xflags] of [[0, 0], [0x10, 0x08], [0x20, 0x10], [0x30, 0x18], [0, 0]]) {
    assertEquals(set(setFlags, struct(4, { 0: flags })), 0);
    assertEquals([get(getFlags, 4), get(getExtended, 28)], [flags, xflags]);
    assertEquals(set(setFlags, struct(4)), 0);
    assertEquals(set(setExtended, struct(28, { 0: xflags })), 0);
    assertEquals([get(getFlags, 4), get(getExtended, 28)], [flags, xflags]);
  }
  assertEquals(set(setFlags, struct(4, { 0: 0x80 | 0x10 })), E.OPNOTSUPP);
  assertEquals(set(setExtended, struct(28, { 0: 0x08, 12: 4711 })), E.OPNOTSUPP);
  assertEquals(set(setFlags, new Uint8Array(3)), E.INVAL);
  assertEquals(get(getFlags, 4), 0);
});

Deno.test("close() wakes waiting locks, drops all locks and releases all opens", () => {
  const harness = new Harness();
  const a = create(harness, "a"), b = create(harness, "b");
  harness.ask("SETLK", { nodeid: a.node }, lockBody(LK.WRLCK));
  harness.ask("SETLK", { nodeid: b.node }, lockBody(LK.RDLCK, { [lkIn.lkFlags]: FUSE_LK_FLOCK }));
  const waiting = harness.start("SETLKW", { nodeid: a.node, unique: 1000 }, lockBody(LK.WRLCK, { [lkIn.owner]: 9n }));
  harness.run(harness.session.close());
  assertEquals(waiting.length.settled, true);
  assertEquals([harness.fileSystem.opens, harness.fileSystem.locks, harness.session.openFiles], [0, 0, 0]);
  assertEquals(lookup(harness, "a").errno, E.IO);
});

Deno.test("operations without a server: ENOSYS, ENOTTY, no reply", () => {
  const harness = new Harness();
  for (const [opcode, size] of [["ACCESS", 8], ["POLL", 24], ["BMAP", 16], ["SYNCFS", 8]] as const) {
    assertEquals(harness.ask(opcode, {}, struct(size)).errno, E.NOSYS);
  }
  assertEquals(harness.ask("IOCTL", {}, struct(32)).errno, E.NOTTY);
  assertEquals(harness.ask("FORGET", {}, struct(8)).errno, -1);
  assertEquals(harness.ask("BATCH_FORGET", {}, struct(8)).errno, -1);
  assertEquals(harness.ask("STATFS", {}).view.getUint32(40, true), 4096);
  assertEquals(harness.ask("FSYNC", {}, struct(16)).errno, 0);
  assertEquals(harness.ask("DESTROY", {}).errno, 0);
});

Deno.test("a read-only volume refuses mutations and writable opens", () => {
  const harness = new Harness({ readOnly: true });
  assertEquals(harness.ask("MKDIR", {}, struct(8), "d").errno, E.ROFS);
  assertEquals(harness.ask("SETATTR", {}, struct(88)).errno, E.ROFS);
  assertEquals(harness.ask("OPEN", {}, struct(8, { [openIn.flags]: 1 })).errno, E.ROFS);
  assertEquals(harness.ask("GETATTR", {}, struct(16)).errno, 0);
});

Deno.test("answer() serves what is known without a task, and leaves everything else to one", () => {
  const harness = new Harness(), { fileSystem } = harness;
  const { node } = create(harness, "f");
  const getxattr = (name: string) => [struct(8), name] as const;
  const ask = {
    found: () => harness.atOnce("LOOKUP", {}, "f"),
    absent: () => harness.atOnce("LOOKUP", {}, "g"),
    attributes: () => harness.atOnce("GETATTR", { nodeid: node }, struct(16)),
    capability: () => harness.atOnce("GETXATTR", { nodeid: node }, ...getxattr("security.capability")),
    flush: () => harness.atOnce("FLUSH", { nodeid: node }, struct(24)),
    open: () => harness.atOnce("OPEN", { nodeid: node }, struct(8)),
  };
  // Nothing is known.
  for (const name of ["found", "absent", "attributes", "capability", "open"] as const) {
    assertEquals(ask[name](), null, name);
  }
  assertEquals(ask.flush()?.errno, 0);

  fileSystem.validForMs = 1000;
  assertEquals(Number(ask.found()?.view.getBigUint64(entryOut.nodeid, true)), node);
  assertEquals(ask.absent()?.errno, E.NOENT);
  assertEquals(Number(ask.attributes()?.view.getBigUint64(attrOut.attr, true)), node);
  assertEquals(ask.capability()?.errno, E.NODATA);

  const opens = fileSystem.opens, opened = ask.open();
  assertEquals([opened?.errno, fileSystem.opens], [0, opens + 1]);
  assertEquals(release(harness, node, opened!.view.getBigUint64(0, true)).errno, 0);
  assertEquals(fileSystem.opens, opens);
  assertEquals(harness.atOnce("OPEN", { nodeid: node }, struct(8, { [openIn.flags]: O.TRUNC })), null);

  // What others may have, and what has to be done elsewhere.
  assertEquals(harness.atOnce("GETXATTR", { nodeid: node }, ...getxattr("user.a")), null);
  for (const name of [".", ".."]) assertEquals(harness.atOnce("LOOKUP", {}, name), null);
  assertEquals(harness.atOnce("UNLINK", {}, "f"), null);
  assertEquals(harness.ask("SETLK", { nodeid: node }, lockBody(LK.WRLCK)).errno, 0);
  assertEquals(ask.flush(), null);
});
