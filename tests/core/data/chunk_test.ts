/** Tests of core/data/chunk.ts: chunks against a model array, checksums, space, locks, crashes. */

import { assert, assertEquals } from "@std/assert";
import { Chunks, dropChunksMax, type PreparedChange } from "../../../core/data/chunk.ts";
import { chunkBytesMax, decodeChunk, encodeChunk, granuleBytes } from "../../../core/data/chunk_record.ts";
import { E, failed, type Result } from "../../../core/errno.ts";
import { chunkKey, inodeKey, kind } from "../../../core/meta/layout.ts";
import { put } from "../../../core/store/record.ts";
import { type Task, wait } from "../../../core/task.ts";
import { Random } from "../../sim/random.ts";
import { Bench, bytes, smallLimits } from "../store/harness.ts";

const shard = 1, inode = 2 ** 41 + 5, volume = 3;

class ChunkBench extends Bench {
  chunks = new Chunks(this.store);

  constructor(seed: number, blocksMax?: number) {
    super(seed, { ...smallLimits, segmentBytes: 256 * 1024, logBytesMax: 4 << 20 }, blocksMax);
  }

  override start(): void {
    super.start();
    this.store.openShard(shard);
    this.chunks = new Chunks(this.store);
  }

  /** Runs a preparation and commits it. errno. */
  apply(task: Task<Result<PreparedChange>>): number {
    const change = this.runtime.run(task);
    if (failed(change)) return change;
    this.publish(change);
    return 0;
  }

  publish(change: PreparedChange): void {
    const charge = { volume, bytesDelta: change.bytesDelta, inodesDelta: 0 };
    assert(this.commit(shard, change.changes, [charge]) > 0);
    change.done();
  }

  write(chunk: number, offset: number, data: Uint8Array | null, length = data!.length, inline?: Uint8Array): number {
    return this.apply(this.chunks.write({ shard, inode, chunk, offset, data, length, volume, gen: 1, inline }));
  }

  read(chunk: number, offset: number, length: number): Uint8Array | number {
    const into = new Uint8Array(length).fill(0xee);
    return this.runtime.run(this.chunks.read({ shard, inode, chunk, offset, length }, into)) || into;
  }

  record(chunk: number) {
    const value = this.get(chunkKey(shard, inode, chunk));
    return value === undefined ? null : decodeChunk(value);
  }

  /** Bytes that the records name. */
  namedBytes(): number {
    let blocks = 0;
    const from = chunkKey(shard, 0, 0), to = chunkKey(shard, 2 ** 53, 0);
    this.store.scan(from, to, (_key, value) => {
      const { granules } = decodeChunk(value);
      for (let i = 0; i < granules.length; i += 2) if (granules[i] !== 0) blocks++;
      return true;
    });
    return blocks * granuleBytes;
  }
}

function noise(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => 1 + random.below(255));
}

Deno.test("Chunks agrees with a model array over random writes, holes, drops, syncs, kills and power cuts", () => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = new Random(seed, "chunks"), bench = new ChunkBench(seed);
    const model = [new Uint8Array(chunkBytesMax), new Uint8Array(chunkBytesMax)];
    for (let step = 0; step < 60; step++) {
      const chunk = random.below(2), large = random.chance(0.15);
      let offset = random.below(random.chance(0.5) ? 20000 : chunkBytesMax),
        length = 1 + random.below(large ? 400000 : 9000);
      if (random.chance(0.4)) {
        [offset, length] = [offset - offset % granuleBytes, Math.ceil(length / granuleBytes) * granuleBytes];
      }
      length = Math.min(length, chunkBytesMax - offset);
      const action = random.weighted({ write: 10, zero: 4, drop: 0.3, read: 8, sync: 1, kill: 0.5, power: 0.5 });
      if (action === "write") {
        const data = noise(random, length);
        assertEquals(bench.write(chunk, offset, data), 0);
        model[chunk].set(data, offset);
      } else if (action === "zero") {
        assertEquals(bench.write(chunk, offset, null, length), 0);
        model[chunk].fill(0, offset, offset + length);
      } else if (action === "drop") {
        const drop = bench.runtime.run(bench.chunks.drop(shard, inode, chunk));
        bench.publish(drop);
        for (let c = chunk; c < 2; c++) model[c].fill(0);
      } else if (action === "read") {
        assertEquals(bench.read(chunk, offset, length), model[chunk].slice(offset, offset + length), `seed ${seed}`);
      } else if (action === "sync") {
        assertEquals(random.chance(0.5) ? bench.sync() : bench.checkpoint(), 0);
      } else {
        if (action === "power") assertEquals(bench.sync(), 0);
        bench.crash(action);
      }
      assertEquals(bench.media.container.lentBuffers, 0);
    }
    for (const chunk of [0, 1]) assertEquals(bench.read(chunk, 0, chunkBytesMax), model[chunk]);
    const named = bench.namedBytes();
    assertEquals(bench.store.usage(volume).bytes, named);
    assertEquals(bench.store.fill().dataBytes, named + granuleBytes, "every other block is free again");
    for (const chunk of [0, 1]) {
      const map = bench.chunks.map(shard, inode, chunk);
      for (let g = 0; g < 256; g++) {
        const data = (map[g >> 3] >> (g & 7) & 1) === 1;
        if (!data) assert(model[chunk].subarray(g * granuleBytes, (g + 1) * granuleBytes).every((b) => b === 0));
      }
    }
  }
});

Deno.test("write() of whole granules is one write to the container, and a small unaligned one is too", () => {
  const bench = new ChunkBench(1), random = new Random(1);
  assertEquals(bench.write(0, 0, noise(random, chunkBytesMax)), 0);
  assertEquals(bench.media.container.writes, 1);
  assertEquals(bench.write(1, 100, noise(random, 9000)), 0);
  assertEquals(bench.media.container.writes, 2);
  assertEquals(bench.media.container.reads, 0, "nothing was there to be kept");
  bench.read(0, 0, chunkBytesMax);
  assertEquals(bench.media.container.reads, 1);
});

Deno.test("a 4 KiB overwrite logs no whole chunk record", () => {
  const bench = new ChunkBench(2), random = new Random(2);
  assertEquals(bench.write(0, 0, noise(random, chunkBytesMax)), 0);
  const [segment] = bench.media.log.segments(), before = bench.media.log.written(segment);
  assertEquals(bench.write(0, 40960, noise(random, granuleBytes)), 0);
  assert(bench.media.log.written(segment) - before < 200);
});

Deno.test("read() gives EIO for rotten data and tells it, and reads on where data is sound", () => {
  const bench = new ChunkBench(3), random = new Random(3), data = noise(random, 5 * granuleBytes);
  assertEquals(bench.write(0, 0, data), 0);
  bench.media.container.corrupt(bench.record(0)!.granules[4]);
  assertEquals(bench.read(0, 0, data.length), E.IO);
  assertEquals(bench.read(0, 2 * granuleBytes + 5, 10), E.IO);
  assertEquals(bench.read(0, 3 * granuleBytes, 1000), data.slice(3 * granuleBytes, 3 * granuleBytes + 1000));
  assertEquals(bench.chunks.damaged, 2);
  assertEquals(bench.write(0, 2 * granuleBytes + 1, bytes("part of a rotten granule")), E.IO);
  assertEquals(bench.write(0, 2 * granuleBytes, noise(random, granuleBytes)), 0, "a whole granule needs nothing old");
  assertEquals(bench.media.container.lentBuffers, 0);
});

Deno.test("write() keeps inline contents and removes their record", () => {
  for (const [offset, length] of [[0, 10], [5, 3], [3000, 3000], [8192, 100], [0, 9000], [4096, 4096]]) {
    const bench = new ChunkBench(4), random = new Random(4), inline = noise(random, 700), data = noise(random, length);
    const key = inodeKey(shard, kind.data, inode);
    bench.commit(shard, [put(key, inline)]);
    assertEquals(bench.write(0, offset, data, length, inline), 0);
    assertEquals(bench.get(key), undefined);
    const expected = new Uint8Array(Math.max(700, offset + length));
    expected.set(inline);
    expected.set(data, offset);
    assertEquals(bench.read(0, 0, expected.length), expected, `${offset}+${length}`);
  }
});

Deno.test("zero() makes holes of whole granules and removes the record when nothing is left", () => {
  const bench = new ChunkBench(5), random = new Random(5);
  assertEquals(bench.write(0, 0, noise(random, 10 * granuleBytes)), 0);
  assertEquals(bench.write(0, 8 * granuleBytes, null, 2 * granuleBytes), 0);
  assertEquals(bench.record(0)!.granules.length, 16, "trailing holes are not stored");
  assertEquals(bench.write(0, 100, null, granuleBytes), 0);
  assertEquals(bench.store.usage(volume).bytes, 8 * granuleBytes);
  assertEquals(bench.write(0, 0, null, chunkBytesMax), 0);
  assertEquals(bench.record(0), null);
  assertEquals(bench.store.usage(volume).bytes, 0);
  assertEquals(bench.write(0, 50, null, 5000), 0, "a hole in a hole");
});

Deno.test("write() lets writers of one chunk in one at a time, in their order", () => {
  const bench = new ChunkBench(6), { chunks, runtime } = bench, order: number[] = [];
  const one = function* (n: number): Task<void> {
    const data = new Uint8Array(3).fill(n);
    const change = yield* chunks.write({ shard, inode, chunk: 0, offset: n, length: 3, data, volume, gen: n });
    assert(!failed(change));
    order.push(n);
    bench.publish(change);
  };
  const done = [1, 2, 3, 4].map((n) => runtime.scheduler.spawn(one(n)));
  for (const future of done) runtime.settle(future);
  assertEquals(order, [1, 2, 3, 4]);
  assertEquals(bench.read(0, 0, 8), new Uint8Array([0, 1, 2, 3, 4, 4, 4, 0]));
  assertEquals(bench.record(0)!.gen, 4);
});

Deno.test("abandon() gives the blocks back and lets the next writer in", () => {
  const bench = new ChunkBench(7), { chunks, runtime, store } = bench;
  const before = store.fill().dataBytes;
  for (let i = 0; i < 3; i++) {
    const data = new Uint8Array(50000);
    const change = runtime.run(
      chunks.write({ shard, inode, chunk: 0, offset: 7, length: data.length, data, volume, gen: 1 }),
    );
    assert(!failed(change));
    change.abandon();
  }
  assertEquals(store.fill().dataBytes, before || granuleBytes);
  assertEquals(bench.record(0), null);
});

Deno.test("a failing write returns EIO, keeps the old data and leaks no block", () => {
  const bench = new ChunkBench(8), random = new Random(8), data = noise(random, 3 * granuleBytes);
  assertEquals(bench.write(0, 0, data), 0);
  const before = bench.store.fill().dataBytes;
  bench.media.faults.writeError = 1;
  assertEquals(bench.write(0, 100, noise(random, 8000)), E.IO);
  bench.media.faults.writeError = 0;
  bench.media.faults.readError = 1;
  assertEquals(bench.write(0, 100, noise(random, 10)), E.IO);
  bench.media.faults.readError = 0;
  assertEquals(bench.store.fill().dataBytes, before);
  assertEquals(bench.read(0, 0, data.length), data);
});

Deno.test("a full container gives ENOSPC, and freed space can be used at once", () => {
  const bench = new ChunkBench(9, 4096), random = new Random(9), full = new Uint8Array(chunkBytesMax).fill(5);
  let chunk = 0;
  while (bench.write(chunk, 0, full) === 0) chunk++;
  assertEquals(chunk, 15);
  assert(bench.store.canGrow());
  assertEquals(bench.write(chunk, 0, full.subarray(0, 200 * granuleBytes)), 0);
  assert(!bench.store.canGrow());
  assertEquals(bench.write(chunk + 1, 0, full), E.NOSPC);
  assertEquals(bench.write(2, 0, noise(random, granuleBytes)), 0, "the reserve lets overwrites through");
  bench.publish(bench.runtime.run(bench.chunks.drop(shard, inode, 10)));
  assert(bench.store.canGrow());
  assertEquals(bench.write(30, 0, full), 0, "quarantined blocks are hurried free");
  assertEquals(bench.read(9, 0, chunkBytesMax), full);
});

Deno.test("drop() takes chunks in parts", () => {
  const bench = new ChunkBench(10), record = encodeChunk({ volume, gen: 1, granules: new Uint32Array(0) });
  for (let i = 0; i < dropChunksMax + 5; i++) {
    bench.store.commit(shard, {
      epoch: 1,
      session: 0,
      slot: 0,
      sequence: 0,
      changes: [put(chunkKey(shard, inode, i), record)],
    });
  }
  bench.store.endOfTurn();
  const first = bench.runtime.run(bench.chunks.drop(shard, inode, 3));
  assertEquals([first.more, first.changes.length], [true, dropChunksMax]);
  bench.publish(first);
  const second = bench.runtime.run(bench.chunks.drop(shard, inode, 3));
  assertEquals([second.more, second.changes.length], [false, 2]);
  bench.publish(second);
  assert(bench.record(2) !== null && bench.record(3) === null);
});

Deno.test("data written but not synced is never half there after a power cut: replay ends before its record", () => {
  let cut = 0, kept = 0;
  for (let seed = 1; seed <= 120; seed++) {
    const bench = new ChunkBench(seed), random = new Random(seed, "cut");
    bench.media.faults.unsyncedKept = random.pick([0.5, 0.95, 0.999, 1]);
    const first = noise(random, 6 * granuleBytes), second = noise(random, 3 * granuleBytes);
    assertEquals(bench.write(0, 0, first), 0);
    if (random.chance(0.5)) assertEquals(bench.sync(), 0);
    const synced = bench.store.shard(shard)!.durablePosition;
    assertEquals(bench.write(0, granuleBytes + 7, second), 0);
    bench.crash("power");
    const position = bench.store.shard(shard)?.position ?? 0;
    assert(position >= synced);
    const expected = new Uint8Array(6 * granuleBytes);
    if (position >= 1) expected.set(first);
    if (position >= 2) expected.set(second, granuleBytes + 7);
    assertEquals(bench.read(0, 0, expected.length), expected, `seed ${seed}: position ${position}`);
    if (position === 2) kept++;
    else cut++;
  }
  assert(cut > 10 && kept > 10, `${cut} cut, ${kept} kept`);
});

Deno.test("read() is right while writers overwrite and checkpoints free the blocks under it", () => {
  const bench = new ChunkBench(11, 4096), { chunks, runtime, store, media } = bench;
  media.faults.ioMs = [0.01, 5];
  media.faults.syncMs = [0.01, 0.1];
  let writing = 3, reads = 0;
  const writer = function* (chunk: number): Task<void> {
    for (let round = 1; round <= 60; round++) {
      const data = new Uint8Array(64 * granuleBytes).fill(round);
      const change = yield* chunks.write({ shard, inode, chunk, offset: 0, length: data.length, data, volume, gen: 1 });
      assert(!failed(change), `${change}`);
      bench.publish(change);
      if (round % 2 === 0) yield* store.checkpoint();
    }
    writing--;
  };
  const reader = function* (chunk: number): Task<void> {
    const into = new Uint8Array(64 * granuleBytes);
    while (writing > 0) {
      const errno = yield* chunks.read({ shard, inode, chunk, offset: 0, length: into.length }, into);
      assertEquals(errno, 0);
      assert(into.every((b) => b === into[0]), "one version, not a mixture");
      reads++;
      yield* wait(runtime.sleep(0.1));
    }
  };
  const done = [0, 1, 2].flatMap((c) => [runtime.scheduler.spawn(writer(c)), runtime.scheduler.spawn(reader(c))]);
  for (const future of done) runtime.settle(future);
  assert(reads > 50, `${reads}`);
  assertEquals(chunks.damaged, 0);
});

Deno.test("a power cut amid writers, syncs and checkpoints leaves no record without its data", () => {
  let cuts = 0;
  for (let seed = 1; seed <= 150; seed++) {
    const bench = new ChunkBench(seed, 4096),
      random = new Random(seed, "amid"),
      { chunks, runtime, store, media } = bench;
    media.faults.unsyncedKept = random.pick([0.3, 0.9, 1]);
    const writer = function* (chunk: number): Task<void> {
      for (let round = 1;; round++) {
        const data = new Uint8Array(granuleBytes * (1 + random.below(200))).fill(round), length = data.length;
        const change = yield* chunks.write({ shard, inode, chunk, offset: 0, length, data, volume, gen: 1 });
        assert(!failed(change), `${change}`);
        bench.publish(change);
        if (random.chance(0.5)) yield* wait(runtime.sleep(random.fraction()));
      }
    };
    const syncer = function* (): Task<void> {
      for (;;) {
        yield* wait(runtime.sleep(random.fraction()));
        assertEquals(yield* random.chance(0.7) ? wait(store.sync()) : store.checkpoint(), 0);
      }
    };
    for (const chunk of [0, 1, 2]) runtime.scheduler.spawn(writer(chunk));
    runtime.scheduler.spawn(syncer());
    for (let steps = random.below(400); steps > 0; steps--) runtime.step();
    const durable = store.shard(shard)!.durablePosition, last = store.shard(shard)!.position;
    bench.crash("power");
    const position = bench.store.shard(shard)!.position;
    assert(position >= durable && position <= last, `seed ${seed}: ${durable} <= ${position} <= ${last}`);
    if (position < last) cuts++;
    for (const chunk of [0, 1, 2]) assert(typeof bench.read(chunk, 0, chunkBytesMax) !== "number", `seed ${seed}`);
  }
  assert(cuts > 20, `${cuts}`);
});
