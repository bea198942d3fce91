import { assert, assertEquals } from "@std/assert";
import { E, failed, type Result } from "../../../core/errno.ts";
import { fileBytesMax } from "../../../core/meta/layout.ts";
import { bytes, chunk, FakeCluster } from "./fake_cluster.ts";

function value<T extends object>(result: Result<T>): T {
  if (failed(result)) throw new Error(`errno ${result}`);
  return result;
}

/** Bytes that differ with their place. */
function pattern(length: number, seed = 1): Uint8Array {
  const out = new Uint8Array(length);
  for (let i = 0; i < length; i++) out[i] = (Math.imul(i + seed, 2654435761) >>> 24) | 1;
  return out;
}

function read(c: FakeCluster, inode: number, offset: number, length: number): Uint8Array {
  const into = new Uint8Array(length).fill(0xee);
  const { count } = value(c.runtime.run(c.volume.read(inode, offset, into)));
  return into.slice(0, count);
}

function write(c: FakeCluster, inode: number, offset: number, data: Uint8Array): Result<object> {
  return c.runtime.run(c.volume.write(inode, offset, data, { killSetId: false }));
}

Deno.test("read() and write() within chunk 0 are one request", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  value(write(c, inode, 100, bytes("hello")));
  assertEquals(read(c, inode, 98, 100), bytes("\0\0hello"));
  assertEquals(read(c, inode, 105, 10).length, 0);
  assertEquals(c.names(), ["WRITE", "READ", "READ"]);
});

Deno.test("write() over several chunks puts far chunks first, then chunk 0 and the size at once", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3), data = pattern(3 * chunk);
  value(write(c, inode, chunk / 2, data));
  const names = c.names();
  assertEquals(names.slice(0, 2), ["GETATTR", "PUBLISH"], "the file is marked before its first far chunk");
  assertEquals(names.slice(2), ["WRITE_CHUNK", "WRITE_CHUNK", "WRITE_CHUNK", "WRITE"]);
  assertEquals(read(c, inode, 0, 4 * chunk).length, 3.5 * chunk);
  assertEquals(read(c, inode, chunk / 2, 3 * chunk), data);
  const { blocks } = value(c.runtime.run(c.volume.getAttributes(inode)));
  assertEquals(blocks, 2.5 * chunk / 512);
  c.names();
  value(write(c, inode, 2 * chunk, bytes("x")));
  assertEquals(c.names(), ["WRITE_CHUNK", "PUBLISH"], "gen and mark are known by now");
});

Deno.test("PUBLISH names the servers that were written to", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  value(write(c, inode, chunk, pattern(12 * chunk)));
  const published = c.asked.filter((one) => one.message.name === "PUBLISH").at(-1)!.body;
  const written = c.asked.filter((one) => one.message.name === "WRITE_CHUNK").map((one) => 1 + one.head.shard % 3);
  assertEquals([...published.servers].sort(), [...new Set(written)].sort());
  assertEquals(published.size, 13 * chunk);
});

Deno.test("write() fetches the gen and starts over when the file was cut meanwhile", () => {
  const c = new FakeCluster();
  const file = c.file("f", 3), data = pattern(2 * chunk);
  value(write(c, file.inode, chunk, data));
  let cuts = 2;
  c.before = (asked) => {
    if (asked.message.name === "PUBLISH" && asked.body.size > 0 && cuts-- > 0) file.gen++;
    return undefined;
  };
  c.names();
  value(write(c, file.inode, chunk, data));
  assertEquals(c.names().filter((name) => name === "GETATTR").length, 2);
  assertEquals(read(c, file.inode, chunk, 2 * chunk), data);
});

Deno.test("write() returns the errno of a chunk, keeps the size and accounts for what was written", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  c.before = (asked) =>
    asked.message.name === "WRITE_CHUNK" && asked.body.chunk === 3 ? { status: E.NOSPC } : undefined;
  assertEquals(write(c, inode, chunk, pattern(3 * chunk)), E.NOSPC);
  const { size, blocks } = value(c.runtime.run(c.volume.getAttributes(inode)));
  assertEquals([size, blocks], [0, 2 * chunk / 512]);
});

Deno.test("read() zero-fills holes, cuts at the size and leaves nothing of the buffer's old content", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  value(write(c, inode, 2 * chunk + 10, bytes("end")));
  const all = read(c, inode, 0, 5 * chunk);
  assertEquals(all.length, 2 * chunk + 13);
  assert(all.subarray(0, 2 * chunk + 10).every((byte) => byte === 0));
  assertEquals(all.subarray(2 * chunk + 10), bytes("end"));
  assertEquals(read(c, inode, 3 * chunk, 10).length, 0);
});

Deno.test("read() reads a short chunk again after it has seen the size", () => {
  const c = new FakeCluster();
  const file = c.file("f", 3, 2 * chunk), data = pattern(chunk, 7);
  let first = true;
  c.before = (asked) => {
    if (asked.message.name !== "READ_CHUNK" || !first) return undefined;
    first = false;
    // The chunk is read before a writer's data is there; the size that comes back is from after it.
    c.nodes.get(file.inode)!.chunks.set(1, data);
    return { body: { floor: 0 } };
  };
  assertEquals(read(c, file.inode, 0, 2 * chunk).subarray(chunk), data);
  assertEquals(c.names(), ["READ", "READ_CHUNK", "READ_CHUNK"]);
});

Deno.test("read() starts over when a chunk has been cut since the size was told, and waits for the truncation", () => {
  const c = new FakeCluster();
  const file = c.file("f", 3, 2 * chunk), node = c.nodes.get(file.inode)!, data = pattern(chunk, 7);
  const gens: number[] = [];
  c.before = ({ message, body }) => {
    if (message.name === "READ") gens.push(body.gen);
    // The truncation has come to the chunk and not to the size.
    if (message.name === "READ_CHUNK" && gens.length === 1) return { body: { floor: 1 } };
    if (message.name !== "READ" || body.gen !== 1) return undefined;
    // It is over, and the file was written anew.
    node.attributes.gen = 1;
    c.floors.set(file.inode, 1);
    node.chunks.set(1, data);
    return undefined;
  };
  assertEquals(read(c, file.inode, 0, 2 * chunk).subarray(chunk), data);
  assertEquals(gens, [0, 1]);
});

Deno.test("read() does not take a size from before a truncation for the size of a chunk", () => {
  const c = new FakeCluster();
  const file = c.file("f", 3, 2 * chunk), node = c.nodes.get(file.inode)!, data = pattern(chunk, 7);
  assertEquals(read(c, file.inode, 0, 2 * chunk).length, 2 * chunk);
  // Cut and grown again by somebody else: the chunk answers before its last bytes are there, the size after.
  node.attributes.gen = 1;
  c.floors.set(file.inode, 1);
  let first = true;
  c.before = ({ message }) => {
    if (message.name !== "READ_CHUNK" || !first) return undefined;
    first = false;
    node.chunks.set(1, data);
    return { body: { floor: 1 }, data: new Uint8Array(chunk) };
  };
  assertEquals(read(c, file.inode, 0, 2 * chunk).subarray(chunk), data);
});

Deno.test("read() and write() refuse offsets that cannot be", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  assertEquals(c.runtime.run(c.volume.read(inode, -1, new Uint8Array(1))), E.INVAL);
  assertEquals(write(c, inode, fileBytesMax, bytes("x")), E.FBIG);
  assertEquals(value(c.runtime.run(c.volume.read(inode, fileBytesMax, new Uint8Array(1)))).count, 0);
  value(write(c, inode, 0, new Uint8Array(0)));
  assertEquals(c.names(), []);
});

Deno.test("append() sends pieces of a chunk's size and returns where the first went", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3), data = pattern(2 * chunk + 5);
  assertEquals(value(c.runtime.run(c.volume.append(inode, bytes("abc"), { killSetId: false }))).offset, 0);
  assertEquals(value(c.runtime.run(c.volume.append(inode, data, { killSetId: false }))).offset, 3);
  assertEquals(c.names(), ["APPEND", "APPEND", "APPEND", "APPEND"]);
  assertEquals(read(c, inode, 3, data.length), data);
});

Deno.test("seek() follows lseek(2): data, holes, the end, ENXIO", () => {
  const c = new FakeCluster();
  const file = c.file("f", 3);
  const seek = (offset: number, whence: "data" | "hole") => {
    const found = c.runtime.run(c.volume.seek(file.inode, offset, whence));
    return failed(found) ? -found : found.offset;
  };
  assertEquals(seek(0, "data"), -E.NXIO);
  value(write(c, file.inode, 0, pattern(8192)));
  value(write(c, file.inode, 3 * chunk, pattern(chunk)));
  value(write(c, file.inode, 6 * chunk, pattern(100)));
  c.runtime.run(c.volume.setAttributes(file.inode, { size: 8 * chunk }));
  assertEquals(seek(0, "data"), 0);
  assertEquals(seek(0, "hole"), 8192);
  assertEquals(seek(8192, "data"), 3 * chunk);
  assertEquals(seek(3 * chunk + 5, "data"), 3 * chunk + 5);
  assertEquals(seek(3 * chunk, "hole"), 4 * chunk);
  assertEquals(seek(4 * chunk, "data"), 6 * chunk);
  assertEquals(seek(8 * chunk - 1, "hole"), 8 * chunk - 1);
  assertEquals(seek(7 * chunk, "data"), -E.NXIO);
  assertEquals(seek(8 * chunk, "hole"), -E.NXIO);
  assertEquals(seek(-1, "data"), -E.NXIO);
});

Deno.test("copyRange() copies data and holes and stops at the source's end", () => {
  const c = new FakeCluster();
  const from = c.file("from", 3), to = c.file("to", 4);
  const copy = (fromOffset: number, toOffset: number, length: number) => {
    const copied = c.runtime.run(
      c.volume.copyRange({ from: from.inode, fromOffset, to: to.inode, toOffset, length, killSetId: false }),
    );
    return failed(copied) ? -copied : copied.count;
  };
  value(write(c, from.inode, 0, pattern(5000)));
  value(write(c, from.inode, 3 * chunk, pattern(7 * chunk, 9)));
  c.runtime.run(c.volume.setAttributes(from.inode, { size: 12 * chunk }));
  value(write(c, to.inode, 0, new Uint8Array(4 * chunk).fill(7)));
  let at = 0;
  while (at < 12 * chunk) at += copy(at, 100 + at, 20 * chunk);
  assertEquals(at, 12 * chunk);
  const source = read(c, from.inode, 0, 13 * chunk), target = read(c, to.inode, 0, 14 * chunk);
  assertEquals(target.length, 12 * chunk + 100);
  assertEquals(target.subarray(0, 100), new Uint8Array(100).fill(7));
  assert(target.subarray(100).every((byte, i) => byte === source[i]));
  assertEquals(copy(12 * chunk, 0, 5), 0);
});

Deno.test("copyRange() refuses ranges that overlap in one file and accepts neighbours", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  value(write(c, inode, 0, pattern(100)));
  const copy = (toOffset: number, to = inode) =>
    c.volume.copyRange({ from: inode, fromOffset: 0, to, toOffset, length: 100, killSetId: false });
  assertEquals(c.runtime.run(copy(99)), E.INVAL);
  assertEquals(value(c.runtime.run(copy(100))).count, 100);
  assertEquals(read(c, inode, 100, 100), pattern(100));
  assertEquals(c.runtime.run(copy(0, c.volume.root)), E.ISDIR);
});

Deno.test("allocate() checks mode and range before it asks", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3);
  const allocate = (mode: number, offset: number, length: number) =>
    c.runtime.run(c.volume.allocate(inode, { mode, offset, length, killSetId: false }));
  assertEquals(allocate(0, 0, 0), E.INVAL);
  assertEquals(allocate(2, 0, 1), E.OPNOTSUPP);
  assertEquals(allocate(0x20, 0, 1), E.OPNOTSUPP);
  assertEquals(allocate(0, fileBytesMax, 1), E.FBIG);
  assertEquals(c.names(), []);
  value(allocate(3, 0, 100));
  assertEquals(c.names(), ["FALLOCATE"]);
});

Deno.test("data survives lost links: every write is there once, whole", () => {
  const c = new FakeCluster();
  const { inode } = c.file("f", 3), data = pattern(6 * chunk);
  let n = 0;
  c.before = (asked) => asked.data.length > 0 && ++n % 3 === 0 ? "hangup" : undefined;
  value(write(c, inode, 10, data));
  c.before = () => undefined;
  assertEquals(read(c, inode, 10, data.length), data);
});
