import { assert, assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import type { Attributes } from "../../../core/meta/attributes.ts";
import {
  attr,
  attrOut,
  copyFileRangeIn,
  createIn,
  direntBytes,
  encodeAttr,
  encodeDirent,
  encodeEntry,
  encodeStatfs,
  encodeStatx,
  entryOut,
  FUSE,
  FUSE_EXT_GROUPS,
  fuseBufferBytes,
  fuseDataAt,
  fuseReplyAt,
  FuseRequest,
  fuseRequestAt,
  initIn,
  initOut,
  ioctlIn,
  lkIn,
  mkdirIn,
  noValidity,
  readIn,
  setattrIn,
  setxattrIn,
  statfsOut,
  statxOut,
  uringHeader,
} from "../../../core/fuse/protocol.ts";
import { join, request, struct, utf8 } from "../../fuse/requests.ts";

function decode(bytes: Uint8Array): FuseRequest {
  const decoded = new FuseRequest(new Uint8Array(fuseBufferBytes));
  decoded.bytes.fill(0xaa);
  decoded.bytes.set(bytes, decoded.requestAt);
  assert(decoded.decode(bytes.length));
  return decoded;
}

const attributes: Attributes = {
  inode: 2 ** 41 * 3 + 5,
  mode: 0o100644,
  nlink: 2,
  uid: 1000,
  gid: 1001,
  rdev: 0,
  size: 2 ** 40 + 7,
  blocks: 8,
  atime: { sec: -1, nsec: 5 },
  mtime: { sec: 1700000000, nsec: 999_999_999 },
  ctime: { sec: 2 ** 33, nsec: 1 },
  btime: { sec: 1600000000, nsec: 3 },
  version: 1,
  gen: 0,
  volume: 1,
  parent: 2,
  entries: 0,
  flags: 0,
};

Deno.test("layouts have the sizes of the kernel's structs", () => {
  const sizes = [
    [attr.sizeof, 88],
    [entryOut.sizeof, 128],
    [entryOut.attr + attr.sizeof, entryOut.sizeof],
    [attrOut.attr + attr.sizeof, attrOut.sizeof],
    [setattrIn.sizeof, 88],
    [readIn.sizeof, 40],
    [lkIn.sizeof, 48],
    [initIn.sizeof, 64],
    [initOut.sizeof, 64],
    [statfsOut.sizeof, 80],
    [statxOut.sizeof, 288],
    [copyFileRangeIn.sizeof, 56],
    [createIn.sizeof, 16],
  ];
  for (const [ours, theirs] of sizes) assertEquals(ours, theirs);
});

Deno.test("buffers put the data of WRITE and READ on the page boundary", () => {
  assertEquals(fuseRequestAt + 40 + readIn.sizeof, fuseDataAt);
  assertEquals(fuseReplyAt + 16, fuseDataAt);
  assertEquals(fuseRequestAt % 8, 0);
  // The kernel's least: header, fuse_write_in, max_write.
  assert(fuseBufferBytes - fuseRequestAt >= 40 + 40 + (1 << 20));
});

Deno.test("decode() reads header, struct and name", () => {
  const bytes = request(
    { opcode: FUSE.MKDIR, nodeid: 2n ** 41n + 9n, unique: 0x1_0000_0002, uid: 5, gid: 6 },
    struct(mkdirIn.sizeof, { [mkdirIn.mode]: 0o755, [mkdirIn.umask]: 0o22 }),
    "naïve",
  );
  const decoded = decode(bytes);
  assertEquals(decoded.error, 0);
  assertEquals([decoded.opcode, decoded.nodeid, decoded.uid, decoded.gid], [FUSE.MKDIR, 2 ** 41 + 9, 5, 6]);
  assertEquals([decoded.uniqueLow, decoded.uniqueHigh], [2, 1]);
  assertEquals([decoded.u32(mkdirIn.mode), decoded.u32(mkdirIn.umask)], [0o755, 0o22]);
  assertEquals(decoded.name, utf8("naïve"));
});

Deno.test("decode() refuses malformed names", () => {
  const cases: [Uint8Array, number][] = [
    [request({ opcode: FUSE.LOOKUP }, utf8("unterminated")), E.INVAL],
    [request({ opcode: FUSE.LOOKUP }, ""), E.INVAL],
    [request({ opcode: FUSE.LOOKUP }), E.INVAL],
    [request({ opcode: FUSE.LOOKUP }, "a/b"), E.INVAL],
    [request({ opcode: FUSE.LOOKUP }, "x".repeat(255)), 0],
    [request({ opcode: FUSE.LOOKUP }, "x".repeat(256)), E.NAMETOOLONG],
    [request({ opcode: FUSE.RENAME }, struct(8), "a", utf8("b")), E.INVAL],
    [request({ opcode: FUSE.RENAME }, struct(8), "a"), E.INVAL],
    [request({ opcode: FUSE.RENAME2 }, struct(16), "a", "b/c"), E.INVAL],
    [request({ opcode: FUSE.SYMLINK }, "a", "../b/c"), 0],
    [request({ opcode: FUSE.SYMLINK }, "a", "t".repeat(4096)), E.NAMETOOLONG],
  ];
  for (const [bytes, errno] of cases) assertEquals(decode(bytes).error, errno);
});

Deno.test("decode() refuses lengths that contradict each other", () => {
  const write = request({ opcode: FUSE.WRITE }, struct(40, { [readIn.size]: 9 }), utf8("12345678"));
  assertEquals(decode(write).error, E.IO);
  const short = request({ opcode: FUSE.SETATTR }, struct(80));
  assertEquals(decode(short).error, E.IO);
  const lied = request({ opcode: FUSE.GETATTR }, struct(16));
  lied[0]++;
  assertEquals(decode(lied).error, E.IO);
  const value = request({ opcode: FUSE.SETXATTR }, struct(16, { [setxattrIn.size]: 5 }), "user.a", utf8("1234"));
  assertEquals(decode(value).error, E.INVAL);
  assertEquals(decode(request({ opcode: 7 })).error, E.NOSYS);
  assertEquals(decode(request({ opcode: 1 << 20 })).error, E.NOSYS);
  assertEquals(decode(request({ opcode: FUSE.GETATTR, nodeid: 2n ** 60n }, struct(16))).error, E.STALE);
  assertEquals(new FuseRequest(new Uint8Array(fuseBufferBytes)).decode(39), false);
  assertEquals(new FuseRequest(new Uint8Array(fuseBufferBytes)).decode(fuseBufferBytes), false);
});

/** A request as it comes over io_uring: its struct beside the header, the rest where the reply's body goes. */
function decodeUring(bytes: Uint8Array, structBytes: number): FuseRequest {
  const decoded = new FuseRequest(new Uint8Array(fuseBufferBytes).fill(0xaa), 0, 0, fuseDataAt);
  const payload = bytes.subarray(40 + structBytes);
  decoded.bytes.set(bytes.subarray(0, 40));
  decoded.bytes.set(bytes.subarray(40, 40 + structBytes), uringHeader.opIn);
  decoded.bytes.set(payload, fuseDataAt);
  decoded.view.setUint32(uringHeader.payloadSize, payload.length, true);
  decoded.decodeUring();
  return decoded;
}

Deno.test("decodeUring() reads what decode() reads, and its reply overlays header and payload", () => {
  const groups = struct(16, { 0: 16, 4: FUSE_EXT_GROUPS, 8: 1, 12: 4711 });
  const cases: [Uint8Array, number][] = [
    [request({ opcode: FUSE.GETATTR, uid: 3 }, struct(16)), 16],
    [request({ opcode: FUSE.LOOKUP }, "a name"), 0],
    [request({ opcode: FUSE.MKDIR, extensions: groups }, struct(8, { 0: 0o755 }), "d"), 8],
    [request({ opcode: FUSE.WRITE }, struct(40, { [readIn.size]: 8 }), utf8("12345678")), 40],
    [request({ opcode: FUSE.SETXATTR }, struct(16, { [setxattrIn.size]: 4 }), "user.a", utf8("1234")), 16],
    [request({ opcode: FUSE.RENAME2 }, struct(16, { 0: 5 }), "old", "new"), 16],
    [request({ opcode: FUSE.SYMLINK }, "link", "target"), 0],
    [request({ opcode: FUSE.SETLKW }, struct(48, { [lkIn.pid]: 9 })), 48],
    [request({ opcode: FUSE.LOOKUP }, "a/b"), 0],
    [request({ opcode: FUSE.WRITE }, struct(40, { [readIn.size]: 9 }), utf8("12345678")), 40],
    [request({ opcode: FUSE.SETATTR }, struct(80)), 80],
    [request({ opcode: FUSE.IOCTL }, struct(32, { [ioctlIn.inSize]: 4 }), utf8("1234")), 32],
    [request({ opcode: FUSE.IOCTL }, struct(32, { [ioctlIn.inSize]: 5 }), utf8("1234")), 32],
  ];
  for (const [bytes, structBytes] of cases) {
    const one = decode(bytes), other = decodeUring(bytes, structBytes);
    const told = ({ opcode, unique, nodeid, uid, gid, pid, groups, error, name, newName, data }: FuseRequest) => {
      return { opcode, unique, nodeid, uid, gid, pid, groups, error, name, newName, data };
    };
    assertEquals(told(other), told(one));
    for (let field = 0; field + 4 <= structBytes; field += 4) assertEquals(other.u32(field), one.u32(field));
  }
  const read = decodeUring(request({ opcode: FUSE.READLINK, unique: 0x1_0000_0006 }), 0);
  assertEquals(read.reply(utf8("target")), 22);
  assertEquals([read.view.getUint32(0, true), read.view.getInt32(4, true)], [22, 0]);
  assertEquals(read.view.getBigUint64(8, true), 0x1_0000_0006n);
  assertEquals(read.bytes.slice(fuseDataAt, fuseDataAt + 6), utf8("target"));
});

Deno.test("decodeUring() refuses lengths that contradict each other", () => {
  const bytes = request({ opcode: FUSE.LOOKUP }, "name");
  for (const payloadBytes of [6, 0x10_0000, 0x10_0001, 0xffff_ffff]) {
    const decoded = decodeUring(bytes, 0);
    decoded.view.setUint32(uringHeader.payloadSize, payloadBytes, true);
    decoded.decodeUring();
    assertEquals(decoded.error, E.IO);
  }
  assertEquals(decodeUring(request({ opcode: FUSE.LOOKUP }, struct(200), "name"), 200).error, E.IO);
});

Deno.test("decode() reads the supplementary groups that follow a name", () => {
  const groups = struct(16, { 0: 16, 4: FUSE_EXT_GROUPS, 8: 1, 12: 4711 });
  const decoded = decode(request({ opcode: FUSE.CREATE, extensions: groups }, struct(16), "file"));
  assertEquals(decoded.error, 0);
  assertEquals(decoded.name, utf8("file"));
  assertEquals(decoded.groups, [4711]);
  for (const field of [{ 0: 24 }, { 0: 7 }, { 0: 0 }, { 8: 2 }, { 8: 0xffffffff }]) {
    const bad = struct(16, { 0: 16, 4: FUSE_EXT_GROUPS, 8: 1, 12: 1, ...field });
    assertEquals(decode(request({ opcode: FUSE.CREATE, extensions: bad }, struct(16), "file")).error, E.IO);
  }
  const tooMuch = request({ opcode: FUSE.CREATE }, struct(16), "file");
  tooMuch[36] = 200;
  assertEquals(decode(tooMuch).error, E.IO);
});

Deno.test("encodeAttr() writes negative and large times and sizes", () => {
  const view = new DataView(new ArrayBuffer(attr.sizeof));
  encodeAttr(view, 0, 1, attributes);
  assertEquals(view.getBigUint64(attr.ino, true), 1n);
  assertEquals(view.getBigUint64(attr.size, true), 2n ** 40n + 7n);
  assertEquals(view.getBigInt64(attr.atime, true), -1n);
  assertEquals(view.getBigInt64(attr.ctime, true), 2n ** 33n);
  assertEquals(view.getUint32(attr.mtimensec, true), 999_999_999);
  assertEquals(view.getUint32(attr.mode, true), 0o100644);
});

Deno.test("encodeEntry() says how long name and attributes may be kept", () => {
  const bytes = new Uint8Array(entryOut.sizeof).fill(0xff), view = new DataView(bytes.buffer);
  encodeEntry(view, 0, attributes.inode, attributes, noValidity);
  assertEquals(view.getBigUint64(0, true), BigInt(attributes.inode));
  assertEquals(bytes.subarray(entryOut.entryValid, entryOut.attr), new Uint8Array(24));
  encodeEntry(view, 0, attributes.inode, attributes, { nameMs: 3_250, attributesMs: 500 });
  assertEquals(view.getBigUint64(entryOut.entryValid, true), 3n);
  assertEquals(view.getUint32(entryOut.entryValidNsec, true), 250_000_000);
  assertEquals(view.getBigUint64(entryOut.attrValid, true), 0n);
  assertEquals(view.getUint32(entryOut.attrValidNsec, true), 500_000_000);
});

Deno.test("encodeStatx() carries the birth time and splits the device number", () => {
  const view = new DataView(new ArrayBuffer(statxOut.sizeof));
  encodeStatx(view, 0, 9, { ...attributes, rdev: 0x12345678 }, 0);
  assertEquals(view.getBigInt64(statxOut.btime, true), 1600000000n);
  assertEquals(view.getUint32(statxOut.btime + 8, true), 3);
  // new_decode_dev(): major = bits 8..19, minor = bits 0..7 and 20..31.
  assertEquals(view.getUint32(statxOut.rdevMajor, true), 0x456);
  assertEquals(view.getUint32(statxOut.rdevMinor, true), 0x12378);
});

Deno.test("encodeDirent() pads to 8 bytes and clears what was there", () => {
  const target = new FuseRequest(new Uint8Array(fuseBufferBytes).fill(0xee));
  const entry = { name: utf8("abc"), node: 5, type: 8, cookie: 2 ** 40, attributes: null, valid: noValidity };
  const length = encodeDirent(target, target.bodyAt, entry, false);
  assertEquals(length, direntBytes(3, false));
  assertEquals(length, 32);
  const record = target.bytes.subarray(target.bodyAt, target.bodyAt + length);
  const expected = join(struct(24, { 0: 5n, 8: 2n ** 40n, 16: 3, 20: 8 }), utf8("abc"), new Uint8Array(5));
  assertEquals(record, expected);
});

Deno.test("encodeStatfs() gives df all inodes and the free ones", () => {
  const view = new DataView(new ArrayBuffer(statfsOut.sizeof));
  encodeStatfs(view, 0, { sizeBytes: 8192, usedBytes: 4096, availableBytes: 4096, inodes: 3, inodesFree: 7 });
  assertEquals(view.getBigUint64(statfsOut.files, true), 10n);
  assertEquals(view.getBigUint64(statfsOut.ffree, true), 7n);
});
