/**
 * The model against a file system that was written apart from it, behind a network's delays: right answers are
 * accepted for many seeds, and each way of being wrong is found.
 *
 * @module
 */

import { assert, assertGreater } from "@std/assert";
import type { FileSystem, Lock } from "../../core/client/filesystem.ts";
import { E, failed, type Result } from "../../core/errno.ts";
import { type Task, wait } from "../../core/task.ts";
import { isDirectory } from "../../core/meta/attributes.ts";
import { MemoryFileSystem } from "../fuse/memory_filesystem.ts";
import { Inexplicable } from "./checker.ts";
import { State } from "./model.ts";
import { Actor, Rounds } from "./rounds.ts";
import { mixes, Pool } from "./workload.ts";
import { type Node, World } from "./world.ts";

type Method = (...args: unknown[]) => Task<Result<object>>;
/** One call as it reaches the server. */
interface Arrived {
  name: string;
  args: unknown[];
  /** Carries it out. */
  run: () => Task<Result<object>>;
  fs: FileSystem;
  node: Node;
}
/** How a server treats a call. */
type Treatment = (call: Arrived) => Task<Result<object>>;

/** `fs` at the other end of a network: every operation happens at some moment between its call and its answer. */
function delayed(fs: FileSystem, node: Node, treat: Treatment): FileSystem {
  const delay = () => wait(node.sleep(6 * node.world.random.fraction()));
  return new Proxy(fs, {
    get(target, name: string) {
      const method = Reflect.get(target, name) as unknown;
      if (typeof method !== "function") return method;
      return function* (...args: unknown[]): Task<Result<object>> {
        yield* delay();
        const result = yield* treat({
          name,
          args,
          run: () => (method as Method).apply(target, args),
          fs: target,
          node,
        });
        yield* delay();
        return result;
      };
    },
  });
}

/** Runs a task that does not wait. */
// deno-lint-ignore require-yield
function* atOnce<T>(task: Task<T>): Task<T> {
  const at = task.next();
  if (!at.done) throw new Error("the memory file system waits");
  return at.value;
}

/** Locks may wait. */
const honest: Treatment = (call) => call.name === "setLock" ? call.run() : atOnce(call.run());

/** A client knows the pids of its own locks only. */
function* withoutPids(owner: number, call: Arrived, treat: Treatment): Task<Result<object>> {
  const result = yield* treat(call);
  if (call.name !== "testLock" || failed(result)) return result;
  const found = result as Lock;
  return found.ownerLow === owner ? found : { ...found, pid: 0 };
}

function simulate(seed: number, mix: keyof typeof mixes, treat: Treatment, rounds = 8): Rounds {
  const world = new World(seed);
  const clock = world.node("server");
  const fs = new MemoryFileSystem({ now: () => clock.wallTime() });
  const root = { inode: fs.root, mode: 0o40755, nlink: 2, size: 4096 };
  const pool = new Pool(fs.root);
  const play = new Rounds(world, State.fresh(root), pool, world.random.fork("rounds"));
  const actors = [0, 1, 2].map((index) => {
    const node = world.node(`client ${index}`);
    const mine = delayed(fs, node, (call) => withoutPids(index + 1, call, treat));
    return new Actor(index, index, node, () => mine, world.random.fork(`actor ${index}`), mixes[mix], pool);
  });
  for (let round = 0; round < rounds; round++) play.play(actors, 4);
  return play;
}

for (const mix of Object.keys(mixes)) {
  Deno.test(`Checker explains everything an honest file system does when the clients do ${mix}`, () => {
    const successes = new Map<string, number>();
    for (let seed = 1; seed <= 60; seed++) {
      for (const [kind, count] of simulate(seed, mix, honest).successes) {
        successes.set(kind, (successes.get(kind) ?? 0) + count);
      }
    }
    for (const kind of Object.keys(mixes[mix])) {
      assertGreater(successes.get(kind) ?? 0, 5, `${kind} hardly ever succeeds: the workload tests nothing`);
    }
  });
}

/** Number of the first seed whose run cannot be explained, or 0. */
function found(mix: keyof typeof mixes, treat: () => Treatment, seeds = 30): number {
  for (let seed = 1; seed <= seeds; seed++) {
    try {
      simulate(seed, mix, treat());
    } catch (error) {
      if (error instanceof Inexplicable) return seed;
      throw error;
    }
  }
  return 0;
}

Deno.test("Checker finds a server that carries a retried request out twice", () => {
  const twice: Treatment = function* (call) {
    if (["create", "unlink", "rename", "link"].includes(call.name) && call.node.world.random.chance(0.1)) {
      yield* honest(call);
    }
    return yield* honest(call);
  };
  assert(found("names", () => twice) > 0);
});

Deno.test("Checker finds a server that acknowledges what it does not do", () => {
  const forget: Treatment = function* (call) {
    if (call.name === "write" && call.node.world.random.chance(0.1)) return {};
    return yield* honest(call);
  };
  assert(found("data", () => forget) > 0);
});

Deno.test("Checker finds a client that answers from an old cache", () => {
  const stale = (): Treatment => {
    const cache = new Map<string, Result<object>>();
    return function* (call) {
      if (call.name !== "lookup") return yield* honest(call);
      const key = `${call.args[0]}/${call.args[1]}`, old = cache.get(key);
      if (old !== undefined && call.node.world.random.chance(0.2)) return old;
      const result = yield* honest(call);
      cache.set(key, failed(result) ? result : { ...result });
      return result;
    };
  };
  assert(found("names", stale) > 0);
});

Deno.test("Checker finds a rename that other clients see half done", () => {
  const half: Treatment = function* (call) {
    if (call.name !== "rename" || call.args[4] !== 0) return yield* honest(call);
    const [dir, name, newDir, newName] = call.args as [number, Uint8Array, number, Uint8Array];
    const moved = yield* atOnce(call.fs.lookup(dir, name));
    if (failed(moved) || isDirectory(moved.mode)) return yield* honest(call);
    const linked = yield* atOnce(call.fs.link(moved.inode, newDir, newName));
    if (failed(linked)) return yield* honest(call);
    yield* wait(call.node.sleep(3));
    yield* atOnce(call.fs.unlink(dir, name));
    return {};
  };
  assert(found("names", () => half) > 0);
});

Deno.test("Checker finds an append that overwrites another", () => {
  const racing: Treatment = function* (call) {
    const result = yield* honest(call);
    if (call.name === "append" && !failed(result) && call.node.world.random.chance(0.2)) return { offset: 0 };
    return result;
  };
  assert(found("data", () => racing) > 0);
});

Deno.test("Checker finds an errno that is wrong", () => {
  const wrong: Treatment = function* (call) {
    const result = yield* honest(call);
    return result === E.NOTEMPTY ? E.NOENT : result;
  };
  assert(found("names", () => wrong) > 0);
});
