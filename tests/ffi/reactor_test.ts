/** The reactor: turns, timers, hooks, polls and file operations. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { Future, type Task, wait } from "../../core/task.ts";
import { cstr, libc, O } from "../../ffi/libc.ts";
import { Reactor } from "../../ffi/reactor.ts";

function withReactor(body: (reactor: Reactor) => void): void {
  const reactor = new Reactor({ arenaBytes: 64 << 20 });
  try {
    body(reactor);
  } finally {
    reactor.close();
  }
}

function runTask<T>(reactor: Reactor, task: Task<T>): T {
  const done = reactor.scheduler.spawn(task);
  reactor.run(() => done.settled);
  return done.value;
}

Deno.test("Reactor.sleep() settles in the order of the deadlines and never early", () =>
  withReactor((reactor) => {
    const order: number[] = [];
    let left = 0;
    for (const ms of [30, 5, 20, 5.5, 0, 12, 1, 25]) {
      left++;
      const start = performance.now();
      reactor.sleep(ms).listen(() => {
        assert(performance.now() - start >= ms);
        order.push(ms);
        left--;
      });
    }
    reactor.run(() => left === 0);
    assertEquals(order, [0, 1, 5, 5.5, 12, 20, 25, 30]);
  }));

Deno.test("Reactor.sleep() keeps many timers in order", () =>
  withReactor((reactor) => {
    const due: number[] = [];
    let seed = 1;
    for (let i = 0; i < 5000; i++) {
      seed = (seed * 48271) % 2147483647;
      const ms = (seed % 30000) / 1000;
      const atMs = performance.now() + ms;
      reactor.after(ms, () => due.push(atMs));
    }
    reactor.run(() => due.length === 5000);
    const late = due.filter((atMs, i) => i > 0 && atMs < due[i - 1] - 5).length;
    assertEquals(late, 0);
  }));

Deno.test("Reactor.run() waits in one system call a turn and not at all while tasks are ready", () =>
  withReactor((reactor) => {
    function* work(): Task<number> {
      for (let i = 0; i < 100; i++) yield* wait(Future.of(i));
      yield* wait(reactor.sleep(20));
      return 7;
    }
    const before = reactor.statistics();
    assertEquals(runTask(reactor, work()), 7);
    const enters = reactor.statistics().enters - before.enters;
    assert(enters <= 3, `${enters} calls`);
  }));

Deno.test("Reactor.atEndOfTurn() runs hooks in order with no task between the first and the last of a pass", () =>
  withReactor((reactor) => {
    const events: string[] = [];
    let written = 0, queued = 0;
    let waiting: Future<void>[] = [];
    reactor.atEndOfTurn(300, () => {
      events.push("flush");
      assertEquals(written, queued);
    });
    reactor.atEndOfTurn(100, () => {
      events.push("log");
      written = queued;
      const done = waiting;
      waiting = [];
      for (const future of done) future.resolve();
    });
    function* writer(): Task<void> {
      for (let i = 0; i < 3; i++) {
        queued++;
        const durable = new Future<void>();
        waiting.push(durable);
        yield* wait(durable);
      }
    }
    const enters = reactor.statistics().enters;
    runTask(reactor, writer());
    assertEquals(events, ["log", "log", "log", "log", "flush"]);
    assertEquals(reactor.statistics().enters, enters);
  }));

Deno.test("Reactor.run() can be left and re-entered, from inside a callback too", () =>
  withReactor((reactor) => {
    let steps = 0;
    function* ticking(): Task<void> {
      for (; steps < 10; steps++) yield* wait(reactor.sleep(1));
    }
    const done = reactor.scheduler.spawn(ticking());
    const transaction = (callback: () => void) => callback();
    for (let goal = 2; goal <= 10; goal += 2) transaction(() => reactor.run(() => steps >= goal));
    reactor.run(() => done.settled);
    assertEquals(steps, 10);
    reactor.runOnce(5);
  }));

Deno.test("Reactor.run() throws what a task threw", () =>
  withReactor((reactor) => {
    // deno-lint-ignore require-yield
    function* bug(): Task<void> {
      throw new Error("bug of a task");
    }
    reactor.scheduler.spawn(bug());
    assertThrows(() => reactor.run(), Error, "bug of a task");
  }));

Deno.test("Reactor.stop() ends run(), from a timer", () =>
  withReactor((reactor) => {
    reactor.after(5, () => reactor.stop());
    reactor.run();
    assert(reactor.stopped);
  }));

Deno.test("Reactor.serve() lets the event loop have turns, between those of its own, until stop()", async () => {
  const reactor = new Reactor({ arenaBytes: 64 << 20 });
  let turns = 0, steps = 0;
  const tick = () => {
    steps++;
    reactor.after(1, tick);
  };
  tick();
  const interval = setInterval(() => {
    if (++turns === 3) reactor.stop();
  }, 0);
  reactor.after(10_000, () => reactor.stop());
  await reactor.serve(5);
  clearInterval(interval);
  reactor.close();
  assertEquals(turns, 3);
  assert(steps >= 3, `${steps} steps of the reactor`);
});

Deno.test("Reactor.poll() reports each wake-up until it is cancelled", () =>
  withReactor((reactor) => {
    const fd = libc.eventfd(0, O.NONBLOCK);
    const eight = new Uint8Array(8);
    let woken = 0;
    const poll = reactor.poll(fd, 1, (events) => {
      assertEquals(events & 1, 1);
      while (libc.readBuffer(fd, eight, 8n) === 8) woken++;
    });
    const wake = () => libc.writeBuffer(fd, new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]), 8n);
    for (let i = 1; i <= 50; i++) {
      wake();
      reactor.run(() => woken === i);
    }
    poll.cancel();
    poll.cancel();
    wake();
    for (let i = 0; i < 5; i++) reactor.runOnce(2);
    assertEquals(woken, 50);
    libc.close(fd);
  }));

function* fileStory(reactor: Reactor, fd: number): Task<void> {
  const one = reactor.arena.allocate(1 << 20)!, two = reactor.arena.allocate(1 << 20)!;
  one.forEach((_, i) => one[i] = i * 7);
  assertEquals(yield* wait(reactor.fallocate(fd, 0, 0, 3 << 20)), 0);
  assertEquals(yield* wait(reactor.writeFrom(fd, one, 5 * 2 ** 30)), 1 << 20);
  assertEquals(yield* wait(reactor.syncFileRange(fd, 0, 3 << 20, 2)), 0);
  assertEquals(yield* wait(reactor.fdatasync(fd)), 0);
  assertEquals(yield* wait(reactor.fsync(fd)), 0);
  assertEquals(yield* wait(reactor.readInto(fd, two, 5 * 2 ** 30)), 1 << 20);
  assertEquals(two, one);
  assertEquals(yield* wait(reactor.readInto(fd, two, 5 * 2 ** 30 + (1 << 20) - 10)), 10);
  assertEquals(yield* wait(reactor.readInto(-1, two, 0)), -9);
  const many = Array.from(
    { length: 300 },
    (_, i) => reactor.readInto(fd, two.subarray(i, i + 1), 5 * 2 ** 30 + i),
  );
  for (const read of many) assertEquals(yield* wait(read), 1);
  assertEquals(two.subarray(0, 300), one.subarray(0, 300));
}

Deno.test("Reactor file operations read what they wrote and report errors as minus errno", () =>
  withReactor((reactor) => {
    const folder = Deno.makeTempDirSync();
    try {
      const fd = libc.open(cstr(`${folder}/file`), O.RDWR | O.CREAT, 0o600);
      runTask(reactor, fileStory(reactor, fd));
      libc.close(fd);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  }));

Deno.test("Reactor clocks agree with the system's and random32() does not repeat", () =>
  withReactor((reactor) => {
    const wall = reactor.wallTime();
    assert(Math.abs(wall.sec * 1000 + wall.nsec / 1e6 - Date.now()) < 1000);
    const start = reactor.nowMs();
    reactor.run(() => reactor.nowMs() > start);
    assert(reactor.nowMs() - start < 61_000);
    assertEquals(new Set(Array.from({ length: 3000 }, () => reactor.random32())).size, 3000);
  }));
