import { assert, assertEquals } from "@std/assert";
import { type Lock, lockEnd } from "../../../core/client/filesystem.ts";
import type { VolumeClient } from "../../../core/client/volume_client.ts";
import { E, failed } from "../../../core/errno.ts";
import { placeInDeadlock } from "../../../core/meta/deadlock.ts";
import { lockType } from "../../../core/meta/lock_ranges.ts";
import * as m from "../../../core/protocol/messages.ts";
import { Future, type Task } from "../../../core/task.ts";
import type { Node } from "../../sim/world.ts";
import { Cluster } from "./cluster.ts";

/** An fcntl lock; without `end` up to the end of any size. */
function lock(owner: number, type: Lock["type"], start = 0, end = -1): Lock {
  const range = { start: BigInt(start), end: end < 0 ? lockEnd : BigInt(end) };
  return { flock: false, type, ownerLow: owner, ownerHigh: 0, pid: 100 + owner, ...range };
}

interface Client {
  node: Node;
  volume: VolumeClient;
}

/** A cluster with two clients and a file on each server. */
class World {
  readonly cluster = new Cluster();
  readonly a: Client = this.cluster.newClient(11);
  readonly b: Client = this.cluster.newClient(12);
  readonly files: number[] = [];

  constructor() {
    for (let number = 0; this.files.filter((one) => one !== undefined).length < 3; number++) {
      const { inode } = this.cluster.mkdir(this.cluster.root, `d${number}`).attributes;
      const file: number = this.cluster.create(inode, "f").inode;
      this.files[this.cluster.ownerOf(file)] ??= file;
    }
  }

  /** Sets a lock without waiting; errno. */
  set(client: Client, inode: number, wanted: Lock): number {
    return this.cluster.end(this.#begin(client, inode, wanted, false).done);
  }

  /** Waits for a lock; `done` settles with its errno. */
  wait(client: Client, inode: number, wanted: Lock): { done: Future<number>; cancel: Future<void> } {
    return this.#begin(client, inode, wanted, true);
  }

  #begin({ node, volume }: Client, inode: number, wanted: Lock, block: boolean) {
    const cancel = new Future<void>();
    const errno = function* (): Task<number> {
      const answer = yield* volume.setLock(inode, wanted, block, cancel);
      return failed(answer) ? answer : 0;
    };
    return { done: this.cluster.begin(errno(), node), cancel };
  }

  test({ node, volume }: Client, inode: number, wanted: Lock): Lock {
    const found = this.cluster.runOn(node, volume.testLock(inode, wanted));
    if (failed(found)) throw new Error(`errno ${found}`);
    return found;
  }
}

Deno.test("a lock of another client is seen with its range and type, without a pid", () => {
  const w = new World(), [file] = w.files;
  assertEquals(w.set(w.a, file, lock(1, "write", 10, 19)), 0);
  assertEquals(w.set(w.b, file, lock(1, "read", 19, 30)), E.AGAIN);
  const { type, start, end, pid } = w.test(w.b, file, lock(1, "read", 19, 30));
  assertEquals([type, start, end, pid], ["write", 10n, 19n, 0]);
  assertEquals(w.test(w.a, file, lock(2, "read", 19, 30)).pid, 101);
});

Deno.test("a lock survives a restart of its server, and nobody else gets it meanwhile", () => {
  const w = new World(), [file] = w.files;
  assertEquals(w.set(w.a, file, lock(1, "write", 0, 9)), 0);
  assertEquals(w.set(w.b, file, lock(2, "write", 20, 29)), 0);
  w.cluster.kill(0);
  const taken = w.wait(w.b, file, lock(2, "write", 5, 5));
  w.cluster.start(0);
  w.cluster.world.pass(5_000);
  assertEquals(taken.done.settled, false);
  assertEquals(w.set(w.a, file, lock(1, "unlock")), 0);
  assertEquals(w.cluster.end(taken.done), 0);
  assertEquals(w.set(w.a, file, lock(1, "write", 20, 29)), E.AGAIN);
});

Deno.test("locks of a session end when it is dead, and who waits gets them", () => {
  const w = new World(), [file] = w.files;
  assertEquals(w.set(w.a, file, lock(1, "write")), 0);
  const waiting = w.wait(w.b, file, lock(2, "write"));
  w.cluster.world.pass(3_000);
  assertEquals(waiting.done.settled, false);
  const { map } = w.cluster;
  w.cluster.update({ ...map, epoch: map.epoch + 1, sessions: map.sessions.filter((one) => one !== 11) });
  assertEquals(w.cluster.end(waiting.done), 0);
});

Deno.test("a circle of waits over two servers and two clients ends one of them with EDEADLK", () => {
  const w = new World(), [first, second] = w.files;
  assertEquals([w.set(w.a, first, lock(1, "write")), w.set(w.b, second, lock(1, "write"))], [0, 0]);
  const a = w.wait(w.a, second, lock(1, "write"));
  w.cluster.world.pass(1_000);
  const b = w.wait(w.b, first, lock(1, "write"));
  w.cluster.world.run(() => a.done.settled || b.done.settled, 20_000, "the deadlock to be found");
  const [lost, other, client, held] = a.done.settled ? [a, b, w.a, first] : [b, a, w.b, second];
  assertEquals([lost.done.value, other.done.settled], [E.DEADLK, false]);
  assertEquals(w.set(client, held, lock(1, "unlock")), 0);
  assertEquals(w.cluster.end(other.done), 0);
});

Deno.test("of all who find one circle of waits at the same time one is to give way first", () => {
  const w = new World(), [first, second] = w.files;
  assertEquals([w.set(w.a, first, lock(1, "write")), w.set(w.b, second, lock(1, "write"))], [0, 0]);
  const waits = [w.wait(w.a, second, lock(1, "write")), w.wait(w.b, first, lock(1, "write"))];
  w.cluster.world.pass(1_000);
  const places = [11, 12].map((session, i) => {
    const { node, server } = w.cluster.servers[i];
    return node.spawn(placeInDeadlock(server.engine, { session, ownerLow: 1, ownerHigh: 0 }));
  });
  w.cluster.world.run(() => places.every((one) => one.settled), 500, "both to look");
  assertEquals([...places.map((one) => one.value), ...waits.map((one) => one.done.settled)], [0, 1, false, false]);
  w.cluster.world.pass(10_000);
  assertEquals(waits.map((one) => one.done.settled), [true, false]);
});

Deno.test("a circle of three over three servers ends with EDEADLK, a long wait without a circle does not", () => {
  const w = new World(), [x, y, z] = w.files;
  const owners = [[w.a, 1, x, y], [w.b, 1, y, z], [w.a, 2, z, x]] as const;
  for (const [client, owner, held] of owners) assertEquals(w.set(client, held, lock(owner, "write")), 0);
  const waits = owners.slice(0, 2).map(([client, owner, , wanted]) => w.wait(client, wanted, lock(owner, "write")));
  w.cluster.world.pass(100_000);
  assertEquals(waits.map((one) => one.done.settled), [false, false]);
  const [client, owner, , wanted] = owners[2];
  const last = w.wait(client, wanted, lock(owner, "write"));
  w.cluster.world.run(() => last.done.settled, 10_000, "the deadlock to be found");
  assertEquals([last.done.value, ...waits.map((one) => one.done.settled)], [E.DEADLK, false, false]);
});

Deno.test("a circle within one server ends with EDEADLK at once", () => {
  const w = new World(), [file] = w.files;
  assertEquals([w.set(w.a, file, lock(1, "write", 0, 0)), w.set(w.b, file, lock(1, "write", 1, 1))], [0, 0]);
  const waiting = w.wait(w.a, file, lock(1, "write", 1, 1));
  w.cluster.world.pass(100);
  const { done } = w.wait(w.b, file, lock(1, "write", 0, 0));
  w.cluster.world.run(() => done.settled, 500, "the deadlock to be found");
  assertEquals([done.value, waiting.done.settled], [E.DEADLK, false]);
});

Deno.test("a wait that is cancelled while its server is down ends with EINTR within a second", () => {
  const w = new World(), [file] = w.files;
  assertEquals(w.set(w.a, file, lock(1, "write", 0, 9)), 0);
  assertEquals(w.set(w.b, file, lock(2, "read", 20, 29)), 0);
  const { done, cancel } = w.wait(w.b, file, lock(2, "write", 0, 29));
  w.cluster.world.pass(100);
  w.cluster.kill(0);
  w.cluster.world.pass(3_000);
  w.b.node.post(() => void cancel.resolve());
  w.cluster.world.run(() => done.settled, 1_000, "the wait to end");
  assertEquals(done.value, E.INTR);
  w.cluster.start(0);
  assertEquals(w.set(w.a, file, lock(1, "unlock")), 0);
  w.cluster.world.pass(10_000);
  // What it held before is what it holds: a read lock, on its part alone.
  assertEquals(w.test(w.a, file, lock(1, "write", 0, 19)).type, "unlock");
  assertEquals([w.test(w.a, file, lock(1, "write", 20, 20)).type, w.test(w.a, file, lock(1, "read", 20, 20)).type], [
    "read",
    "unlock",
  ]);
});

Deno.test("a close drops the locks later when its server is down, before its owner's next request", () => {
  const w = new World(), [file] = w.files;
  assertEquals(w.set(w.a, file, lock(1, "write")), 0);
  w.cluster.kill(0);
  const closed = w.cluster.begin(w.a.volume.dropLocks(file, false, 1, 0), w.a.node);
  w.cluster.world.run(() => closed.settled, 100_000, "the close to give up");
  assertEquals(closed.value, E.IO);
  const again = w.wait(w.a, file, lock(1, "read", 5, 5));
  w.cluster.world.pass(1_000);
  assertEquals(again.done.settled, false);
  w.cluster.start(0);
  assertEquals(w.cluster.end(again.done), 0);
  assertEquals(w.test(w.b, file, lock(1, "write")).end, 5n);
});

Deno.test("a request that comes again is answered as before, one that comes after a later one of its owner has no effect", () => {
  const w = new World(), [file] = w.files, { cluster } = w;
  const wire = { flock: false, ownerLow: 1, ownerHigh: 0, pid: 1, start: 0n, end: 9n, type: lockType.write };
  const ask = (message: m.Message, order: number, body = {}) =>
    cluster.call(message, file, { inode: file, lock: wire, order, ...body }).status;
  assertEquals(ask(m.SETLOCK, 5, { ticket: 0 }), 0);
  assertEquals(ask(m.SETLOCK, 5, { ticket: 0 }), 0);
  assertEquals(ask(m.DROPLOCKS, 7), 0);
  assertEquals([ask(m.SETLOCK, 5, { ticket: 0 }), ask(m.SETLOCK, 6, { ticket: 1 })], [E.CANCELED, E.CANCELED]);
  assertEquals(cluster.servers[0].server.engine.locks.held(file), []);
  assertEquals(ask(m.SETLOCK, 8, { ticket: 0 }), 0);
  assertEquals([ask(m.DROPLOCKS, 7), ask(m.CANCELLOCK, 6, { ticket: 1 })], [E.CANCELED, E.CANCELED]);
  assertEquals(cluster.servers[0].server.engine.locks.held(file).length, 1);
  // What was refused is refused when it comes again, though nobody holds the lock any more.
  const other = { ...wire, ownerLow: 3 };
  assertEquals(ask(m.SETLOCK, 1, { ticket: 0, lock: other }), E.AGAIN);
  assertEquals(ask(m.SETLOCK, 9, { ticket: 0, lock: { ...wire, type: lockType.unlock } }), 0);
  assertEquals(ask(m.SETLOCK, 1, { ticket: 0, lock: other }), E.AGAIN);
  assertEquals(cluster.servers[0].server.engine.locks.held(file).length, 0);
  assertEquals(ask(m.SETLOCK, 10, { ticket: 0 }), 0);
  // Another owner is another story, and so is a claim that comes again after the lock went.
  assertEquals(ask(m.SETLOCK, 1, { ticket: 0, lock: { ...wire, ownerLow: 2, start: 20n, end: 29n } }), 0);
  assertEquals(ask(m.DROPLOCKS, 11), 0);
  const claim = { opens: [], locks: [{ inode: file, lock: wire }], creating: [], last: true };
  const reply = cluster.run(cluster.caller.call(m.RECLAIM, { server: 1, store: 0 }, claim));
  assertEquals([reply.status, cluster.servers[0].server.engine.locks.held(file).length], [0, 1]);
});

Deno.test("a file has at most 4,096 locks: ENOLCK beyond, and every one of them can be unlocked", () => {
  const w = new World(), [file] = w.files;
  const many = function* (type: Lock["type"], from: number, to: number): Task<number[]> {
    const errnos: number[] = [];
    for (let at = from; at < to; at++) {
      const answer = yield* w.a.volume.setLock(file, lock(1, type, 2 * at, 2 * at), false, new Future<void>());
      errnos.push(failed(answer) ? answer : 0);
    }
    return errnos;
  };
  assert(w.cluster.runOn(w.a.node, many("write", 0, 4096)).every((errno) => errno === 0));
  assertEquals(w.cluster.runOn(w.a.node, many("write", 4096, 4098)), [E.NOLCK, E.NOLCK]);
  assertEquals(w.set(w.b, file, lock(1, "write", 9001, 9001)), E.NOLCK);
  assertEquals(w.set(w.a, file, lock(1, "unlock")), 0);
  assertEquals(w.set(w.b, file, lock(1, "write")), 0);
});
