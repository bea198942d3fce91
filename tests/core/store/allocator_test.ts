/** Tests of core/store/allocator.ts: no block is given out twice, freed blocks wait, room is found when it is there. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { Allocator, groupBlocks, runBlocksMax } from "../../../core/store/allocator.ts";
import { Random } from "../../sim/random.ts";

const noneHeld = () => false;

Deno.test("allocate() gives contiguous runs and never block 0", () => {
  const allocator = new Allocator(2 * groupBlocks);
  const runs = allocator.allocate(runBlocksMax)!;
  assertEquals(runs.length, 1);
  assertEquals(runs[0].count, runBlocksMax);
  assert(runs[0].block > 0);
  assertEquals(allocator.freeBlocks, 2 * groupBlocks - 1 - runBlocksMax);
});

Deno.test("free() keeps a block in quarantine until thaw()", () => {
  const allocator = new Allocator(groupBlocks);
  const [run] = allocator.allocate(4)!;
  allocator.free(run.block, 1, 10);
  const mark = allocator.quarantineMark();
  allocator.free(run.block + 1, 1, 11);
  assert(allocator.isUsed(run.block));
  assertEquals(allocator.quarantinedBlocks, 2);
  allocator.thaw(mark, (_shard, position) => position === 10);
  assert(allocator.isUsed(run.block), "held by a backup");
  allocator.thaw(mark, noneHeld);
  assert(!allocator.isUsed(run.block));
  assert(allocator.isUsed(run.block + 1), "freed after the mark");
  assertEquals(allocator.quarantinedBlocks, 1);
});

Deno.test("thaw() with an old mark leaves what was freed after it, whatever was thawed meanwhile", () => {
  const allocator = new Allocator(groupBlocks);
  const [run] = allocator.allocate(4)!;
  allocator.free(run.block, 1, 1);
  const mark = allocator.quarantineMark();
  allocator.thaw(allocator.quarantineMark(), noneHeld);
  allocator.free(run.block + 1, 1, 2);
  allocator.thaw(mark, noneHeld);
  assert(allocator.isUsed(run.block + 1));
});

Deno.test("thaw() gives every group its own blocks back when one record freed a run on both sides of a group's end", () => {
  const allocator = new Allocator(2 * groupBlocks);
  while (allocator.allocate(1) !== null);
  for (let block = groupBlocks - 8; block < groupBlocks + 8; block++) allocator.free(block, 1, 1);
  allocator.thaw(allocator.quarantineMark(), noneHeld);
  const found: number[] = [];
  for (let runs; (runs = allocator.allocate(1)) !== null;) found.push(runs[0].block);
  assertEquals(found.sort((a, b) => a - b), Array.from({ length: 16 }, (_, at) => groupBlocks - 8 + at));
});

Deno.test("allocate() gathers pieces when no run is long enough, and gives null only when there are too few blocks", () => {
  const allocator = new Allocator(groupBlocks);
  const all: number[] = [];
  for (let runs; (runs = allocator.allocate(1)) !== null;) all.push(runs[0].block);
  assertEquals(all.length, groupBlocks - 1);
  // Every other block is free.
  allocator.giveBack(all.filter((_, i) => i % 2 === 0).slice(0, 100).map((block) => ({ block, count: 1 })));
  const runs = allocator.allocate(100)!;
  assertEquals(runs.reduce((sum, run) => sum + run.count, 0), 100);
  assertEquals(allocator.allocate(1), null);
});

Deno.test("Allocator throws when a block is freed twice, or freed while free", () => {
  const allocator = new Allocator(groupBlocks);
  const [run] = allocator.allocate(1)!;
  allocator.giveBack([run]);
  assertThrows(() => allocator.giveBack([run]), Error, "twice");
  assertThrows(() => allocator.free(run.block, 0, 1), Error, "free of block");
  assertThrows(() => allocator.free(0, 0, 1), Error, "free of block");
  assertEquals(allocator.claim(0), false);
  assertEquals(allocator.claim(groupBlocks), false);
  assertEquals(allocator.claim(5), true);
  assertEquals(allocator.claim(5), false);
});

Deno.test("Allocator agrees with a model over 20,000 random steps", () => {
  const random = new Random(3), allocator = new Allocator(groupBlocks), used = new Set<number>([0]);
  const held: { block: number; count: number }[] = [];
  let blocks = groupBlocks;
  for (let step = 0; step < 20_000; step++) {
    if (random.chance(0.55)) {
      const count = 1 + random.below(random.chance(0.2) ? runBlocksMax : 8);
      const runs = allocator.allocate(count);
      if (runs === null) {
        assert(blocks - used.size < count);
        if (blocks < 8 * groupBlocks) allocator.extend(blocks += groupBlocks);
        continue;
      }
      for (const run of runs) {
        for (let b = run.block; b < run.block + run.count; b++) {
          assert(!used.has(b) && b < blocks, `block ${b} given out twice`);
          used.add(b);
        }
        held.push(run);
      }
    } else if (held.length > 0) {
      const [run] = held.splice(random.below(held.length), 1);
      for (let b = run.block; b < run.block + run.count; b++) {
        allocator.free(b, 0, step);
        used.delete(b);
      }
      allocator.thaw(allocator.quarantineMark(), noneHeld);
    }
    assertEquals(allocator.usedBlocks, used.size);
  }
});
