import { assert, assertEquals } from "@std/assert";
import type { Lock } from "../../../core/client/filesystem.ts";
import { lockEnd } from "../../../core/client/filesystem.ts";
import { E, failed } from "../../../core/errno.ts";
import { lockType } from "../../../core/meta/lock_ranges.ts";
import { Future } from "../../../core/task.ts";
import { FakeCluster } from "./fake_cluster.ts";

function lock(owner: number, type: Lock["type"], start = 0, end: number | bigint = lockEnd, flock = false): Lock {
  return { flock, type, ownerLow: owner, ownerHigh: 0, pid: owner, start: BigInt(start), end: BigInt(end) };
}

interface World {
  c: FakeCluster;
  inode: number;
  set(wanted: Lock): number;
  /** Starts a wait; `done` settles with its errno. */
  wait(wanted: Lock): { done: Future<number>; cancel: Future<void> };
  /** A lock of another client. */
  foreign(start: number, end: number, type?: number): void;
}

function world(options = {}): World {
  const c = new FakeCluster([1, 1], options);
  const { inode } = c.file("f", 3);
  const errno = function* (wanted: Lock, block: boolean, cancel: Future<void>) {
    const answer = yield* c.volume.setLock(inode, wanted, block, cancel);
    return failed(answer) ? answer : 0;
  };
  return {
    c,
    inode,
    set: (wanted) => c.runtime.run(errno(wanted, false, new Future<void>())),
    wait: (wanted) => {
      const cancel = new Future<void>();
      const done = c.runtime.scheduler.spawn(errno(wanted, true, cancel));
      c.runtime.pass(100);
      return { done, cancel };
    },
    foreign: (start, end, type = lockType.write) => {
      const held = {
        session: 99,
        flock: false,
        type,
        ownerLow: 1,
        ownerHigh: 0,
        pid: 1,
        start: BigInt(start),
        end: BigInt(end),
      };
      c.runtime.run(c.volume.testLock(inode, lock(1, "read")));
      c.locks.get(inode)!.set(held);
    },
  };
}

Deno.test("setLock() says EAGAIN for a conflict, and testLock() who it is", () => {
  const w = world();
  assertEquals(w.set(lock(1, "write", 0, 9)), 0);
  assertEquals(w.set(lock(2, "read", 5, 5)), E.AGAIN);
  const found = w.c.runtime.run(w.c.volume.testLock(w.inode, lock(2, "read", 5, 5)));
  assertEquals(failed(found) ? found : [found.type, found.start, found.end, found.ownerLow], ["write", 0n, 9n, 1]);
  assertEquals(w.set(lock(2, "read", 9, 5)), E.INVAL);
});

Deno.test("a wait ends by the push when the lock is granted", () => {
  const w = world();
  w.set(lock(1, "write"));
  const { done } = w.wait(lock(2, "write"));
  assertEquals(done.settled, false);
  assertEquals(w.set(lock(1, "unlock")), 0);
  w.c.runtime.pass(10);
  assertEquals(done.value, 0);
});

Deno.test("a wait ends within 2 s when the push was lost", () => {
  const w = world();
  w.set(lock(1, "write"));
  const { done } = w.wait(lock(2, "write"));
  w.c.waiting.length = 0;
  w.c.locks.get(w.inode)!.release({ ...lockWire(1), session: 5 });
  w.c.runtime.pass(2500);
  assertEquals(done.value, 0);
});

function lockWire(owner: number) {
  return { flock: false, type: lockType.unlock, ownerLow: owner, ownerHigh: 0, pid: 0, start: 0n, end: lockEnd };
}

Deno.test("a wait that is cancelled ends with EINTR and is forgotten by the server", () => {
  const w = world();
  w.set(lock(1, "write"));
  const { done, cancel } = w.wait(lock(2, "write"));
  cancel.resolve();
  w.c.runtime.pass(10);
  assertEquals(done.value, E.INTR);
  assertEquals(w.c.waiting.length, 0);
});

Deno.test("a wait that was granted before it was cancelled has succeeded", () => {
  const w = world();
  w.set(lock(1, "write"));
  const { done, cancel } = w.wait(lock(2, "write"));
  const list = w.c.locks.get(w.inode)!;
  list.release({ ...lockWire(1), session: 5 });
  list.set({ ...lockWire(2), type: lockType.write, session: 5 });
  w.c.waiting.length = 0;
  cancel.resolve();
  w.c.runtime.pass(10);
  assertEquals(done.value, 0);
});

Deno.test("a wait that a server's start has ended is EINTR when it is cancelled and somebody else has the lock", () => {
  const w = world();
  w.foreign(0, 9);
  const { done, cancel } = w.wait(lock(2, "write", 0, 9));
  w.c.waiting.length = 0;
  cancel.resolve();
  w.c.runtime.pass(10);
  assertEquals(done.value, E.INTR);
});

Deno.test("a wait is registered again after a server's start", () => {
  const w = world();
  w.foreign(0, 9);
  const { done } = w.wait(lock(2, "write", 0, 9));
  w.c.waiting.length = 0;
  w.c.store(2).crash();
  w.c.runtime.pass(3000);
  assertEquals(w.c.waiting.length, 1);
  assertEquals(done.settled, false);
});

Deno.test("unlock and dropLocks() without a lock cost nothing; with one they drop it", () => {
  const w = world();
  const drop = (owner: number, flock: boolean) => w.c.runtime.run(w.c.volume.dropLocks(w.inode, flock, owner, 0));
  assertEquals(w.set(lock(1, "unlock", 0, 9)), 0);
  assert(!failed(drop(1, false)));
  assertEquals(w.c.names(), []);
  w.set(lock(1, "read", 0, 9));
  w.set(lock(2, "read", 0, 9));
  w.c.names();
  assert(!failed(drop(1, true)));
  assertEquals(w.c.names(), [], "the owner has no flock");
  assert(!failed(drop(1, false)));
  assert(!failed(drop(1, false)));
  assertEquals(w.c.names(), ["DROPLOCKS"]);
  assertEquals(w.c.locks.get(w.inode)!.locks.map((one) => one.ownerLow), [2]);
});

Deno.test("what is claimed after a start is exactly what is held", () => {
  const w = world();
  w.set(lock(1, "write", 0, 99));
  w.set(lock(1, "unlock", 10, 19));
  w.set(lock(2, "read", 200, 299));
  w.set(lock(3, "write", 0, lockEnd, true));
  w.set(lock(2, "unlock"));
  w.c.locks.clear();
  w.c.store(2).crash();
  w.c.runtime.pass(1000);
  const held = w.c.locks.get(w.inode)!.locks.map((one) => [one.flock, one.ownerLow, one.type, one.start, one.end]);
  assertEquals(held, [[false, 1, 1, 0n, 9n], [false, 1, 1, 20n, 99n], [true, 3, 1, 0n, lockEnd]]);
});

Deno.test("a lock whose request was given up is dropped at the close", () => {
  const w = world({ ioTimeoutMs: 2000, callTimeoutMs: 500 });
  w.c.runtime.run(w.c.volume.getAttributes(w.inode));
  w.c.before = (asked) => asked.message.name === "SETLOCK" ? "silence" : undefined;
  assertEquals(w.set(lock(1, "write")), E.IO);
  w.c.before = () => undefined;
  w.c.names();
  assert(!failed(w.c.runtime.run(w.c.volume.dropLocks(w.inode, false, 1, 0))));
  assertEquals(w.c.names(), ["DROPLOCKS"]);
});

Deno.test("a wait that is given up is ended at the server when it answers again, and gives back what it brought", () => {
  const w = world({ ioTimeoutMs: 2000, callTimeoutMs: 500 });
  w.foreign(0, 9);
  assertEquals(w.set(lock(2, "read", 20, 29)), 0);
  const { done } = w.wait(lock(2, "write", 0, 29));
  w.c.before = () => "silence";
  w.c.runtime.pass(8000);
  assertEquals(done.value, E.IO);
  w.c.locks.get(w.inode)!.releaseSession(99);
  w.c.locks.get(w.inode)!.set({ ...lockWire(2), type: lockType.write, session: 5, start: 0n, end: 29n });
  w.c.waiting.length = 0;
  w.c.before = () => undefined;
  w.c.runtime.pass(10_000);
  assertEquals(w.c.locks.get(w.inode)!.locks.map((one) => [one.start, one.end]), [[20n, 29n]]);
});

Deno.test("a wait ends with EIO when the session dies", () => {
  const w = world();
  w.foreign(0, 9);
  const { done } = w.wait(lock(2, "write", 0, 9));
  w.c.session.caller.sessionDied(5);
  w.c.runtime.pass(10);
  assertEquals(done.value, E.IO);
});
