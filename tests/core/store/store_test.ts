/** Tests of core/store/store.ts: what survives a kill, a power cut and failing media, and that no number comes twice. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { inodeKey, kind, shardOf } from "../../../core/meta/layout.ts";
import { patch, put, remove } from "../../../core/store/record.ts";
import { startSkip, Store } from "../../../core/store/store.ts";
import { Random } from "../../sim/random.ts";
import { Bench, bytes, identity, smallLimits, testKey } from "./harness.ts";

Deno.test("commit() is seen at once and survives a kill when endOfTurn() has returned 0", () => {
  const bench = new Bench(1);
  bench.store.openShard(3);
  assertEquals(bench.commit(3, [put(testKey(3, 1), bytes("one")), put(testKey(3, 2), bytes("two"))]), 1);
  assertEquals(bench.commit(3, [remove(testKey(3, 2)), patch(testKey(3, 1), 1, bytes("X"), 5)]), 2);
  const value = new Uint8Array([111, 88, 101, 0, 0]);
  assertEquals(bench.get(testKey(3, 1)), value);
  const lost = { epoch: 1, session: 0, slot: 0, sequence: 0, changes: [put(testKey(3, 9), bytes("queued only"))] };
  bench.store.commit(3, lost);
  bench.crash("kill");
  assertEquals(bench.get(testKey(3, 1)), value);
  assertEquals(bench.get(testKey(3, 2)), undefined);
  assertEquals(bench.get(testKey(3, 9)), undefined, "never written to the log");
  assertEquals(bench.store.shard(3)!.position, 2);
});

Deno.test("endOfTurn() writes everything a turn committed in one write", () => {
  const bench = new Bench(2);
  bench.store.openShard(1);
  bench.commit(1, [put(testKey(1, 0), bytes("begin the segment"))]);
  const before = bench.media.log.writes;
  for (let i = 0; i < 50; i++) {
    bench.store.commit(1, { epoch: 1, session: 1, slot: 1, sequence: i, changes: [put(testKey(1, i), bytes("x"))] });
  }
  assertEquals(bench.store.endOfTurn(), 0);
  assertEquals(bench.store.endOfTurn(), 0);
  assertEquals(bench.media.log.writes, before + 1);
});

Deno.test("sync() keeps what was committed before it through power cuts; later records survive as a prefix or not at all", () => {
  for (let seed = 1; seed <= 150; seed++) {
    const bench = new Bench(seed), random = new Random(seed, "test"), { store } = bench;
    store.openShard(1);
    store.openShard(2);
    const synced = [0, 0, 0];
    for (let i = 1; i <= 40; i++) {
      const shard = 1 + random.below(2);
      bench.commit(shard, [put(testKey(shard, store.shard(shard)!.position + 1), bytes(`value ${shard} `.repeat(20)))]);
      if (random.chance(0.1)) {
        for (const s of [1, 2]) synced[s] = store.shard(s)!.position;
        assertEquals(bench.sync(), 0);
        for (const s of [1, 2]) assertEquals(store.shard(s)!.durablePosition, synced[s]);
      }
      if (random.chance(0.03)) {
        assertEquals(bench.checkpoint(), 0);
        for (const s of [1, 2]) synced[s] = store.shard(s)!.position;
      }
    }
    bench.crash("power");
    for (const s of [1, 2]) {
      const last = bench.store.shard(s)?.position ?? 0;
      assert(last >= synced[s], `seed ${seed}: shard ${s} is at ${last}, ${synced[s]} was synced`);
      for (let n = 1; n <= 40; n++) assertEquals(bench.get(testKey(s, n)) !== undefined, n <= last, `seed ${seed}`);
    }
  }
});

Deno.test("sync() serves callers of one turn with one pass, and one who comes during a pass with the next", () => {
  const bench = new Bench(3), { store, media } = bench;
  store.openShard(1);
  bench.commit(1, [put(testKey(1, 1), bytes("a"))]);
  const first = [store.sync(), store.sync(), store.sync()];
  bench.runtime.step();
  bench.commit(1, [put(testKey(1, 2), bytes("b"))]);
  const late = store.sync();
  while (!first[0].settled) bench.runtime.step();
  assert(first[1].settled && first[2].settled);
  assertEquals(media.log.syncs, 1);
  assert(!late.settled, "the first pass began before its record was written");
  assertEquals(bench.runtime.settle(late), 0);
  assertEquals(media.log.syncs, 2);
  assertEquals(bench.sync(), 0);
  assertEquals(media.log.syncs, 2, "nothing to do");
});

Deno.test("checkpoint() moves everything to the image and lets go of the log", () => {
  const bench = new Bench(4), { store, media } = bench;
  store.openShard(1);
  const big = new Uint8Array(6000).fill(7);
  for (let i = 0; i < 40; i++) bench.commit(1, [put(testKey(1, i), big)]);
  assert(media.log.segments().length > 3);
  const before = store.fill().log;
  assertEquals(bench.checkpoint(), 0);
  assertEquals(media.log.segments().length, 1);
  assert(store.fill().log < before);
  bench.crash("power");
  for (let i = 0; i < 40; i++) assertEquals(bench.get(testKey(1, i)), big);
});

Deno.test("checkpointDue() follows time, bytes and the fill of the log", () => {
  const bench = new Bench(5), { store, runtime } = bench;
  store.openShard(1);
  assertEquals(bench.checkpoint(), 0);
  assert(!store.checkpointDue());
  bench.commit(1, [put(testKey(1, 1), bytes("a"))]);
  assert(!store.checkpointDue());
  runtime.pass(smallLimits.checkpointMs);
  assert(store.checkpointDue());
  assertEquals(bench.checkpoint(), 0);
  assert(!store.checkpointDue());
  for (let i = 0; i < 50 && !store.checkpointDue(); i++) bench.commit(1, [put(testKey(1, i), new Uint8Array(8000))]);
  assert(store.checkpointDue(), "the log is half full");
});

Deno.test("checkpointDue() follows the number of changes, and endOfTurn() waits no longer at twice as many", () => {
  const bench = new Bench(17, { ...smallLimits, checkpointChanges: 10 }), { store, media } = bench;
  store.openShard(1);
  assertEquals(bench.checkpoint(), 0);
  const change = (count: number) => {
    for (let i = 0; i < count; i++) bench.commit(1, [put(testKey(1, i), bytes("a")), put(testKey(1, 0), bytes("b"))]);
  };
  change(4);
  assert(!store.checkpointDue());
  change(1);
  assert(store.checkpointDue());
  const before = media.image.commits;
  change(4);
  assertEquals(media.image.commits, before);
  change(1);
  assertEquals(media.image.commits, before + 1);
  assert(!store.checkpointDue());
});

Deno.test("the log never outgrows its cap: a full one forces a checkpoint", () => {
  const bench = new Bench(6), { store, media } = bench;
  store.openShard(1);
  for (let i = 0; i < 400; i++) {
    assert(bench.commit(1, [put(testKey(1, i % 7), new Uint8Array(5000).fill(i))]) > 0);
    assert(media.log.segments().length <= smallLimits.logBytesMax / smallLimits.segmentBytes);
  }
  bench.crash("kill");
  assertEquals(bench.store.shard(1)!.position, 400);
  assertEquals(bench.get(testKey(1, 399 % 7))![0], 399 & 255);
});

Deno.test("a full disk stops the log from growing, not the store from working", () => {
  const bench = new Bench(7), { store, media } = bench;
  store.openShard(1);
  bench.commit(1, [put(testKey(1, 0), bytes("a"))]);
  media.faults.diskFull = true;
  for (let i = 0; i < 100; i++) assert(bench.commit(1, [put(testKey(1, i % 3), new Uint8Array(5000).fill(i))]) > 0);
  assertEquals(store.failure, 0);
  bench.crash("power");
  assertEquals(bench.store.failure, 0);
});

Deno.test("newInode() and newIntent() never repeat a number, whatever a power cut has undone", () => {
  const bench = new Bench(8), seen = new Set<number>(), intents = new Set<number>(), random = new Random(8);
  for (let round = 0; round < 40; round++) {
    for (const shard of [5, 6, 7]) {
      bench.store.openShard(shard);
      for (let i = 0; i < 3; i++) {
        const inode = bench.store.newInode(shard), intent = shard * 2 ** 40 + bench.store.newIntent(shard);
        assertEquals(shardOf(inode), shard);
        assert(!seen.has(inode) && !intents.has(intent), `round ${round}`);
        seen.add(inode);
        intents.add(intent);
        if (random.chance(0.5)) bench.commit(shard, [put(inodeKey(shard, kind.inode, inode), bytes("inode"))]);
      }
    }
    if (random.chance(0.2)) bench.checkpoint();
    bench.crash(random.pick(["kill", "power"]));
  }
  assert(Math.max(...seen) % 2 ** 41 > 40 * startSkip);
});

Deno.test("usage() sums charges and survives replay and checkpoints", () => {
  const bench = new Bench(9);
  bench.store.openShard(1);
  bench.store.openShard(2);
  bench.commit(1, [], [{ volume: 9, bytesDelta: 8192, inodesDelta: 2 }]);
  bench.commit(2, [], [{ volume: 9, bytesDelta: 4096, inodesDelta: 1 }, { volume: 8, bytesDelta: 1, inodesDelta: 1 }]);
  bench.checkpoint();
  bench.commit(1, [], [{ volume: 9, bytesDelta: -4096, inodesDelta: -1 }]);
  for (const how of ["kill", "kill", "power"] as const) {
    bench.crash(how);
    assertEquals(bench.store.usage(9), { bytes: 8192, inodes: 2 });
    assertEquals(bench.store.usageOf(1, 9), { bytes: 4096, inodes: 1 });
    assertEquals(bench.store.usage(8), { bytes: 1, inodes: 1 });
    assertEquals(bench.store.usage(7), { bytes: 0, inodes: 0 });
  }
});

Deno.test("a failed log write, log sync or image commit fails the store for good, and nothing acknowledged is lost", () => {
  for (const what of ["write", "sync", "commit", "put"] as const) {
    const bench = new Bench(10), { store, media } = bench;
    store.openShard(1);
    bench.commit(1, [put(testKey(1, 1), bytes("kept"))]);
    store.commit(1, { epoch: 1, session: 0, slot: 0, sequence: 0, changes: [put(testKey(1, 2), bytes("gone"))] });
    if (what === "write") {
      media.log.writeError = E.IO;
      assertEquals(store.endOfTurn(), E.IO);
    } else if (what === "sync") {
      media.faults.syncError = 1;
      assertEquals(bench.sync(), E.IO);
    } else if (what === "commit") {
      media.image.commitError = E.NOSPC;
      assertEquals(bench.checkpoint(), E.IO);
    } else {
      const large = put(testKey(1, 3), new Uint8Array(1 << 20));
      let position = 1;
      for (let i = 0; position > 0 && i < 400; i++) {
        large.key = testKey(1, 100 + i);
        position = store.commit(1, {
          epoch: 1,
          session: 0,
          slot: 0,
          sequence: 0,
          changes: [put(large.key, new Uint8Array(40000))],
        });
        if (i === 3) Object.defineProperty(media.image, "limitBytes", { value: 1000 });
      }
      assertEquals(position, 0);
    }
    assertEquals(store.failure, E.IO);
    assertEquals(bench.commit(1, [put(testKey(1, 4), bytes("refused"))]), 0);
    assertEquals(store.endOfTurn(), E.IO);
    assertEquals(bench.sync(), E.IO);
    assertEquals(bench.checkpoint(), E.IO);
    assert(!store.canGrow());
    assert(bench.runtime.lines.some((line) => line.includes("has failed")));
    media.log.writeError = media.image.commitError = media.faults.syncError = 0;
    if (what === "put") Object.defineProperty(media.image, "limitBytes", { value: 1 << 28 });
    bench.crash("kill");
    assertEquals(bench.get(testKey(1, 1)), bytes("kept"));
    assertEquals(bench.get(testKey(1, 4)), undefined);
  }
});

Deno.test("open() refuses a store of another identity, without format, or with a newer layout", () => {
  const bench = new Bench(11), { image, log, container } = bench.media;
  bench.runtime.run(bench.store.close());
  const parts = { image, log, container, runtime: bench.runtime, limits: smallLimits };
  const other = bench.runtime.run(Store.open(parts, { ...identity, serverId: 8 }));
  assert("error" in other);
  assertStringIncludes(other.error, "serverId 7, not 8");
  const cluster = bench.runtime.run(Store.open(parts, { ...identity, clusterId: "else" }));
  assert("error" in cluster);
  assert(Store.format(image, identity) !== null, "holds a store already");
  const empty = new Bench(12);
  empty.media.image.scan(new Uint8Array(1), new Uint8Array(3).fill(255), () => true);
  for (const [key] of empty.media.image.entries()) {
    empty.media.image.remove(Uint8Array.from(key, (c) => c.charCodeAt(0)));
  }
  empty.media.image.commit();
  const none = empty.open();
  assert("error" in none);
  assertStringIncludes(none.error, "never formatted");
});

Deno.test("open() takes a torn tail for the end, and drops later segments that do not continue", () => {
  const bench = new Bench(13), { media } = bench;
  bench.store.openShard(1);
  for (let i = 1; i <= 60; i++) bench.commit(1, [put(testKey(1, i), new Uint8Array(3000).fill(i))]);
  const [first] = media.log.segments();
  media.log.corrupt(first, media.log.written(first) - 100);
  bench.crash("kill");
  const last = bench.store.shard(1)!.position;
  assert(last > 5 && last < 30, `${last}`);
  assert(bench.runtime.lines.some((line) => line.startsWith("warn")), "a lost tail is told");
  for (let i = 1; i <= 60; i++) assertEquals(bench.get(testKey(1, i)) !== undefined, i <= last);
  bench.commit(1, [put(testKey(1, 61), bytes("goes on"))]);
  bench.crash("kill");
  assertEquals(bench.store.shard(1)!.position, last + 1);
});

Deno.test("a dropped log segment that a power cut brings back does no harm", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const bench = new Bench(seed);
    bench.store.openShard(1);
    for (let i = 1; i <= 60; i++) bench.commit(1, [put(testKey(1, i), new Uint8Array(4000))]);
    assertEquals(bench.checkpoint(), 0);
    bench.commit(1, [put(testKey(1, 61), bytes("synced"))]);
    assertEquals(bench.sync(), 0);
    bench.crash("power");
    assertEquals(bench.get(testKey(1, 61)), bytes("synced"), `seed ${seed}`);
  }
});

Deno.test("maintain() runs checkpoints until close()", () => {
  const bench = new Bench(14), { store, runtime, media } = bench;
  const done = runtime.scheduler.spawn(store.maintain());
  store.openShard(1);
  bench.commit(1, [put(testKey(1, 1), bytes("a"))]);
  const before = media.image.commits;
  while (runtime.nowMs() < 2500) runtime.step();
  assertEquals(media.image.commits, before + 1);
  assertEquals(runtime.run(store.close()), 0);
  runtime.settle(done);
});

Deno.test("a store on media that lie in every allowed way never loses what was synced, over 60 lives", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const bench = new Bench(seed), random = new Random(seed, "lives");
    const model = new Map<number, number>();
    let uncertain = new Map<number, number>();
    for (let life = 0; life < 6; life++) {
      bench.store.openShard(1);
      for (let i = random.below(60); i > 0; i--) {
        const name = random.below(12), value = random.u32();
        assert(
          bench.commit(1, [
            put(testKey(1, name), new Uint8Array(new Uint32Array([value, ...new Array(400).fill(i)]).buffer)),
          ]) > 0,
        );
        uncertain.set(name, value);
        if (random.chance(0.08)) {
          assertEquals(random.chance(0.5) ? bench.sync() : bench.checkpoint(), 0);
          for (const [key, value] of uncertain) model.set(key, value);
          uncertain = new Map();
        }
      }
      const how = random.pick(["kill", "power"] as const);
      if (how === "kill") { for (const [key, value] of uncertain) model.set(key, value); }
      bench.crash(how);
      for (let name = 0; name < 12; name++) {
        const value = bench.get(testKey(1, name)), number = value && new Uint32Array(value.buffer)[0];
        if (uncertain.has(name) && how === "power") {
          // Some older write of this life may be what is left: take what is there as the truth from now on.
          if (number !== undefined) model.set(name, number);
          else assert(!model.has(name));
        } else assertEquals(number, model.get(name), `seed ${seed}, life ${life}, name ${name}`);
      }
      uncertain = new Map();
    }
  }
});
