import { assert, assertEquals } from "@std/assert";
import { LockList, lockRangeEnd, lockType, type SessionLock } from "../../../core/meta/lock_ranges.ts";

function range(owner: number, type: number, from: number, to: number | bigint, flock = false): SessionLock {
  const start = BigInt(from), end = BigInt(to);
  return { session: 1 + owner % 2, flock, type, ownerLow: owner, ownerHigh: 0, pid: 100 + owner, start, end };
}

/** Ranges of an owner as "type:start-end". */
function shown(list: LockList, owner: number): string[] {
  return list.locks.filter((l) => l.ownerLow === owner).map((l) => `${l.type}:${l.start}-${l.end}`);
}

Deno.test("LockList.acquire() splits a range when its middle is unlocked", () => {
  const list = new LockList();
  assertEquals(list.acquire(range(1, lockType.write, 0, lockRangeEnd)), null);
  assertEquals(list.acquire(range(1, lockType.unlock, 10, 19)), null);
  assertEquals(shown(list, 1), ["1:0-9", `1:20-${lockRangeEnd}`]);
});

Deno.test("LockList.acquire() merges ranges of one kind that touch", () => {
  const list = new LockList();
  list.acquire(range(1, lockType.read, 0, 9));
  list.acquire(range(1, lockType.read, 20, 29));
  list.acquire(range(1, lockType.read, 10, 19));
  assertEquals(shown(list, 1), ["0:0-29"]);
});

Deno.test("LockList.acquire() keeps bytes at the end of 63 bits apart", () => {
  const list = new LockList(), last = 2n ** 63n - 1n;
  assertEquals(list.acquire(range(1, lockType.write, 2 ** 54, last)), null);
  assertEquals(list.acquire({ ...range(1, lockType.unlock, 0, last), start: last - 1n, end: last - 1n }), null);
  assertEquals(shown(list, 1), [`1:${2 ** 54}-${last - 2n}`, `1:${last}-${last}`]);
  assertEquals(list.acquire({ ...range(2, lockType.write, 0, last), start: last - 1n, end: last - 1n }), null);
  assertEquals(list.acquire({ ...range(3, lockType.read, 0, last), start: last })?.ownerLow, 1);
});

Deno.test("LockList.acquire() converts a part of a range", () => {
  const list = new LockList();
  list.acquire(range(1, lockType.read, 0, 29));
  list.acquire(range(1, lockType.write, 10, 19));
  assertEquals(shown(list, 1), ["0:0-9", "1:10-19", "0:20-29"]);
});

Deno.test("LockList.acquire() returns the lowest blocker and changes nothing when an fcntl lock conflicts", () => {
  const list = new LockList();
  list.acquire(range(1, lockType.write, 50, 59));
  list.acquire(range(2, lockType.write, 10, 19));
  assertEquals(list.acquire(range(3, lockType.read, 0, 100))?.ownerLow, 2);
  assertEquals(shown(list, 3), []);
});

Deno.test("LockList.acquire() drops the shared flock when its conversion is blocked", () => {
  const list = new LockList();
  list.acquire(range(1, lockType.read, 0, lockRangeEnd, true));
  list.acquire(range(2, lockType.read, 0, lockRangeEnd, true));
  assert(list.acquire(range(1, lockType.write, 0, lockRangeEnd, true)) !== null);
  assertEquals(shown(list, 1), []);
  assertEquals(list.acquire(range(2, lockType.write, 0, lockRangeEnd, true)), null);
});

Deno.test("LockList keeps flock and fcntl apart", () => {
  const list = new LockList();
  list.acquire(range(1, lockType.write, 0, lockRangeEnd, true));
  assertEquals(list.acquire(range(2, lockType.write, 0, 9)), null);
  assert(list.release(range(1, lockType.unlock, 0, 0, true)));
  assertEquals(list.size, 1);
});

Deno.test("LockList.releaseSession() drops what one session holds", () => {
  const list = new LockList();
  list.acquire(range(1, lockType.read, 0, 9));
  list.acquire(range(2, lockType.read, 0, 9));
  assert(list.releaseSession(2));
  assertEquals(shown(list, 1), []);
  assertEquals(shown(list, 2), ["0:0-9"]);
  assertEquals(list.releaseSession(2), false);
});

Deno.test("LockList agrees with an array of bytes when locks come at random", () => {
  const bytes = 24, owners = 4;
  let seed = 12345;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return Math.floor(seed / 65536) % below;
  };
  for (let round = 0; round < 200; round++) {
    const list = new LockList();
    const model = Array.from({ length: owners }, () => new Array<number>(bytes).fill(lockType.unlock));
    for (let step = 0; step < 60; step++) {
      const owner = random(owners), type = random(3);
      const a = random(bytes), b = random(bytes);
      const start = Math.min(a, b), end = Math.max(a, b);
      let blocked = false;
      for (let other = 0; other < owners; other++) {
        if (other === owner || type === lockType.unlock) continue;
        for (let at = start; at <= end; at++) {
          const held = model[other][at];
          if (held !== lockType.unlock && (held === lockType.write || type === lockType.write)) blocked = true;
        }
      }
      const answer = list.acquire(range(owner, type, start, end));
      assertEquals(answer !== null, blocked);
      if (!blocked) model[owner].fill(type, start, end + 1);
      for (let one = 0; one < owners; one++) {
        const seen = new Array<number>(bytes).fill(lockType.unlock);
        const own = list.locks.filter((l) => l.ownerLow === one);
        for (const held of own) {
          for (let at = Number(held.start); at <= Number(held.end); at++) {
            assertEquals(seen[at], lockType.unlock, "ranges overlap");
            seen[at] = held.type;
          }
        }
        assertEquals(seen, model[one]);
        for (let i = 1; i < own.length; i++) {
          assert(own[i].start > own[i - 1].end, "ranges ascend");
          assert(own[i].start > own[i - 1].end + 1n || own[i].type !== own[i - 1].type, "ranges that touch are merged");
        }
      }
    }
  }
});
