/**
 * FUSE requests with bytes flipped, cut, grown and swapped: whatever comes, a session answers with a well-formed reply
 * or with none, never reads outside the request and keeps nothing.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { FUSE, fuseBufferBytes, FuseRequest, outHeader } from "../../core/fuse/protocol.ts";
import { FuseSession, parkedLocksMax } from "../../core/fuse/session.ts";
import { Scheduler } from "../../core/task.ts";
import { MemoryFileSystem } from "../fuse/memory_filesystem.ts";
import { request, struct, utf8 } from "../fuse/requests.ts";

const rounds = 100_000;
const growthBytesMax = 64 << 20;

/** mulberry32. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return (t ^ t >>> 14) >>> 0;
  };
}

/** A valid request of every opcode. */
function corpus(file: number): Uint8Array[] {
  const tails: Record<number, (string | Uint8Array)[]> = {
    [FUSE.LOOKUP]: ["file"],
    [FUSE.SYMLINK]: ["link", "target"],
    [FUSE.MKNOD]: [struct(16, { 0: 0o100644 }), "node"],
    [FUSE.MKDIR]: [struct(8, { 0: 0o755 }), "dir"],
    [FUSE.UNLINK]: ["node"],
    [FUSE.RMDIR]: ["dir"],
    [FUSE.RENAME]: [struct(8, { 0: 1n }), "node", "other"],
    [FUSE.RENAME2]: [struct(16, { 0: 1n }), "other", "node"],
    [FUSE.LINK]: [struct(8, { 0: BigInt(file) }), "hard"],
    [FUSE.OPEN]: [struct(8, { 0: 2 })],
    [FUSE.CREATE]: [struct(16, { 0: 0o102, 4: 0o100644 }), "created"],
    [FUSE.TMPFILE]: [struct(16), "x"],
    [FUSE.READ]: [struct(40, { 16: 4096 })],
    [FUSE.WRITE]: [struct(40, { 16: 64 }), new Uint8Array(64)],
    [FUSE.READDIR]: [struct(40, { 16: 4096 })],
    [FUSE.READDIRPLUS]: [struct(40, { 16: 4096 })],
    [FUSE.SETXATTR]: [struct(16, { 0: 5 }), "user.a", utf8("value")],
    [FUSE.GETXATTR]: [struct(8, { 0: 64 }), "user.a"],
    [FUSE.LISTXATTR]: [struct(8, { 0: 64 })],
    [FUSE.REMOVEXATTR]: ["user.a"],
    [FUSE.INIT]: [struct(64, { 0: 7, 4: 45, 12: 0xffffffff, 16: 0xffffffff })],
    [FUSE.COPY_FILE_RANGE]: [struct(56, { 16: BigInt(file), 32: 4096n, 40: 64n })],
    [FUSE.COPY_FILE_RANGE_64]: [struct(56, { 16: BigInt(file), 32: 4096n, 40: 64n })],
    [FUSE.LSEEK]: [struct(24, { 16: 3 })],
    [FUSE.FALLOCATE]: [struct(32, { 16: 4096n })],
    [FUSE.SETATTR]: [struct(88, { 0: 0xfff, 16: 100n, 68: 0o644 })],
  };
  const extension = struct(16, { 0: 16, 4: 32, 8: 1, 12: 5 });
  const requests: Uint8Array[] = [];
  for (const opcode of Object.values(FUSE)) {
    const tail = tails[opcode] ?? [struct(88)];
    for (const nodeid of [1, file]) requests.push(request({ opcode, nodeid, uid: 1000, gid: 1000 }, ...tail));
    const named = opcode === FUSE.CREATE || opcode === FUSE.MKDIR || opcode === FUSE.MKNOD;
    if (named) requests.push(request({ opcode, extensions: extension }, ...tail));
  }
  return requests;
}

const interesting = [0, 1, 2, 7, 8, 39, 40, 255, 256, 4095, 4096, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff];

/** Copies `source` into `target` at `at` with a few changes; returns the length to decode. */
function mutate(source: Uint8Array, target: Uint8Array, at: number, next: () => number): number {
  target.set(source, at);
  const view = new DataView(target.buffer, target.byteOffset);
  let length = source.length;
  for (let changes = next() % 4; changes > 0; changes--) {
    const where = at + next() % length;
    const kind = next() % 6;
    if (kind === 0) target[where] ^= 1 << next() % 8;
    else if (kind === 1) target[where] = next();
    else if (kind === 2 && length >= 44) {
      const word = at + (next() % (length - 3 >> 2)) * 4;
      view.setUint32(word, interesting[next() % interesting.length], true);
    } else if (kind === 3) length = Math.max(1, next() % length);
    else if (kind === 4) {
      const more = next() % 300;
      for (let i = 0; i < more; i++) target[at + length + i] = next();
      length += more;
    } else target.copyWithin(where, at, at + next() % length);
  }
  // Mostly the header tells the truth about the length, so that decoding goes on.
  if (next() % 8 !== 0 && length >= 4) view.setUint32(at, length, true);
  return length;
}

Deno.test(`a session survives ${rounds} mutated requests`, () => {
  const next = random(20260726);
  const make = () => {
    const fileSystem = new MemoryFileSystem({ capacityBytes: 4 << 20, inodesMax: 500 });
    return { fileSystem, session: new FuseSession(fileSystem) };
  };
  const scheduler = new Scheduler((error) => {
    throw error;
  });
  let { fileSystem, session } = make();
  const buffer = new FuseRequest(new Uint8Array(fuseBufferBytes));
  const requests = corpus(fileSystem.root + 1);
  const outcomes = new Map<number, number>();
  let heapBytes = 0, succeeded = 0;
  for (let round = 0; round < rounds; round++) {
    // DESTROY ends a session, and a long one fills up with waiting locks and files: go on with a new one.
    if (round % 5000 === 0 || buffer.opcode === FUSE.DESTROY) {
      scheduler.spawn(session.close());
      while (scheduler.run() > 0);
      assertEquals([fileSystem.opens, fileSystem.locks, session.openFiles], [0, 0, 0]);
      ({ fileSystem, session } = make());
    }
    if (round === rounds / 5) heapBytes = Deno.memoryUsage().heapUsed;
    const length = mutate(requests[next() % requests.length], buffer.bytes, buffer.requestAt, next);
    if (!buffer.decode(length)) continue;
    const request = FuseSession.mayPark(buffer) ? buffer.detach() : buffer;
    const { uniqueLow, uniqueHigh, opcode } = request;
    const future = scheduler.spawn(session.handle(request));
    while (scheduler.run() > 0);
    if (!future.settled) {
      assertEquals(opcode, FUSE.SETLKW);
      assert(session.inFlight <= parkedLocksMax);
      continue;
    }
    if (future.value === 0) continue;
    const { view, replyAt } = request;
    assertEquals(view.getUint32(replyAt + outHeader.len, true), future.value);
    assert(future.value >= outHeader.sizeof && replyAt + future.value <= request.bytes.length);
    const error = view.getInt32(replyAt + outHeader.error, true);
    assert(error <= 0 && error > -512, `error ${error}`);
    if (error !== 0) assertEquals(future.value, outHeader.sizeof);
    assertEquals(view.getUint32(replyAt + outHeader.unique, true), uniqueLow);
    assertEquals(view.getUint32(replyAt + outHeader.unique + 4, true), uniqueHigh);
    if (error === 0) succeeded++;
    outcomes.set(opcode, (outcomes.get(opcode) ?? 0) | (error === 0 ? 1 : 2));
  }
  const grown = Deno.memoryUsage().heapUsed - heapBytes;
  assert(grown < growthBytesMax, `the heap grew by ${grown} bytes`);
  // The test reached what it is for: most operations have both succeeded and failed.
  const both = [...outcomes.values()].filter((outcome) => outcome === 3).length;
  assert(both >= 25, `only ${both} operations saw both outcomes`);
  assert(succeeded > rounds / 20, `only ${succeeded} requests succeeded`);
});
