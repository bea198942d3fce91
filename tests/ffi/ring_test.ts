/** The ring by itself: batches, overflow, cancellation, time-outs, provided buffers. */

import { assert, assertEquals } from "@std/assert";
import { Arena } from "../../ffi/arena.ts";
import { libc } from "../../ffi/libc.ts";
import { CQE, OP, Ring, ringDefaults, setAddress } from "../../ffi/ring.ts";

interface Seen {
  slot: number;
  res: number;
  flags: number;
}

function reap(ring: Ring): Seen[] {
  const seen: Seen[] = [];
  const ready = ring.ready();
  for (let k = 0; k < ready; k++) {
    const at = ring.completion(k);
    seen.push({ slot: ring.cq[at], res: ring.cq[at + 2], flags: ring.cq[at + 3] });
  }
  ring.advance(ready);
  return seen;
}

function until(ring: Ring, count: number): Seen[] {
  const seen: Seen[] = [];
  for (let turns = 0; seen.length < count && turns < 1000; turns++) {
    ring.enter(1, 1000);
    seen.push(...reap(ring));
  }
  return seen;
}

Deno.test("Ring completes every operation when far more are queued than fit both rings", () => {
  const ring = new Ring(new Arena(4 << 20), { ...ringDefaults, entries: 8, completions: 16, flushEvery: 4 });
  const count = 500;
  for (let i = 1; i <= count; i++) ring.prepare(OP.NOP, -1, { address: 0, length: 0, offset: 0 }, i);
  const slots = until(ring, count).map((seen) => seen.slot);
  assertEquals(slots.toSorted((a, b) => a - b), Array.from({ length: count }, (_, i) => i + 1));
  ring.close();
});

Deno.test("Ring.enter() returns after its time-out when nothing completes", () => {
  const ring = new Ring(new Arena(4 << 20));
  const start = performance.now();
  ring.enter(1, 30.5);
  const took = performance.now() - start;
  assert(took >= 30 && took < 1000, `${took} ms`);
  assertEquals(ring.ready(), 0);
  ring.close();
});

Deno.test("Ring.submit() has the kernel take what is queued at once", () => {
  const arena = new Arena(4 << 20), ring = new Ring(arena), fd = libc.eventfd(0, 0o4000);
  const at = arena.reserve(16, 8), value = () => libc.read(fd, BigInt(arena.base + at + 8), 8n);
  arena.u32[at >> 2] = 7;
  ring.write(3, fd, arena.base + at, 8, -1);
  assertEquals(value(), -1);
  ring.submit();
  assertEquals([value(), arena.u32[(at >> 2) + 2]], [8, 7]);
  assertEquals(until(ring, 1).map((seen) => [seen.slot, seen.res]), [[3, 8]]);
  ring.close();
  libc.close(fd);
});

Deno.test("Ring.cancel() ends a poll and a receive, and says nothing when there is nothing to cancel", () => {
  const ring = new Ring(new Arena(4 << 20));
  const fd = libc.eventfd(0, 0);
  ring.poll(5, fd, 1);
  ring.cancel(5);
  assertEquals(until(ring, 1).map((seen) => [seen.slot, seen.res]), [[5, -125]]);
  ring.cancel(6);
  ring.enter(0);
  assertEquals(reap(ring).map((seen) => [seen.slot, seen.res]), [[0, -2]]);
  libc.close(fd);
  ring.close();
});

Deno.test("Ring.timeout() completes with -ETIME", () => {
  const arena = new Arena(4 << 20);
  const ring = new Ring(arena);
  const at = arena.reserve(16, 8);
  setAddress(arena.u32, (at >> 2) + 2, 5e6);
  ring.timeout(3, arena.base + at);
  assertEquals(until(ring, 1).map((seen) => [seen.slot, seen.res]), [[3, -62]]);
  ring.close();
});

Deno.test("Ring.receiveProvided() delivers through the buffer ring and goes on after ENOBUFS", () => {
  const arena = new Arena(4 << 20);
  const ring = new Ring(arena);
  const buffers = ring.provideBuffers(1, 2, 4096);
  const pair = new Int32Array(2);
  assertEquals(libc.socketpair(1, 1, 0, new Uint8Array(pair.buffer)), 0);
  const from = arena.allocate(4096 * 5)!;
  from.forEach((_, i) => from[i] = i % 251);
  libc.write(pair[0], BigInt(arena.addressOf(from)), BigInt(from.length));
  let received = 0, starved = 0, armed = false;
  for (let turn = 0; received < from.length && turn < 50; turn++) {
    if (!armed) ring.receiveProvided(9, pair[1], 1, true);
    armed = true;
    ring.enter(1, 1000);
    for (const seen of reap(ring)) {
      if (seen.res === -105) starved++;
      else {
        const id = seen.flags >>> 16;
        const at = buffers.offsetOf(id);
        for (let i = 0; i < seen.res; i++) assertEquals(arena.u8[at + i], (received + i) % 251);
        received += seen.res;
        buffers.give(id);
      }
      if ((seen.flags & CQE.MORE) === 0) armed = false;
    }
  }
  assertEquals(received, from.length);
  assert(starved > 0, "two buffers were enough for five");
  libc.close(pair[0]);
  libc.close(pair[1]);
  ring.close();
});

Deno.test("Ring.message() reaches another ring", () => {
  const arena = new Arena(4 << 20);
  const one = new Ring(arena), two = new Ring(arena);
  one.message(1, two.fd, 77, 42);
  assertEquals(until(one, 1).map((seen) => [seen.slot, seen.res]), [[1, 0]]);
  assertEquals(until(two, 1).map((seen) => [seen.slot, seen.res]), [[42, 77]]);
  one.close();
  two.close();
});
