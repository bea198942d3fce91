/**
 * A store on simulated media, with a runtime of virtual time: what the tests of core/store and core/data stand on.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { LogLevel, Runtime, Time } from "../../../core/runtime.ts";
import { type Commit, Store, type StoreIdentity, type StoreLimits } from "../../../core/store/store.ts";
import { Future, Scheduler, type Task } from "../../../core/task.ts";
import { Key, kind } from "../../../core/meta/layout.ts";
import { Media } from "../../sim/media.ts";
import { Random } from "../../sim/random.ts";

/** Virtual time: sleepers are woken in order when nothing else can run. */
export class TestRuntime implements Runtime {
  readonly scheduler: Scheduler;
  readonly lines: string[] = [];
  #now = 0;
  #sleepers: { at: number; future: Future<void> }[] = [];

  constructor() {
    this.scheduler = new Scheduler((error) => {
      throw error;
    });
  }

  nowMs(): number {
    return this.#now;
  }

  wallTime(): Time {
    return { sec: Math.floor(this.#now / 1000), nsec: 0 };
  }

  random32(): number {
    return 4;
  }

  sleep(ms: number): Future<void> {
    const future = new Future<void>();
    this.#sleepers.push({ at: this.#now + ms, future });
    return future;
  }

  log(level: LogLevel, component: string, message: string): void {
    this.lines.push(`${level} ${component}: ${message}`);
  }

  /** Lets `ms` pass without running anything. */
  pass(ms: number): void {
    this.#now += ms;
  }

  /** One step: what is ready, else the next sleeper. False when there is nothing to do. */
  step(): boolean {
    if (this.scheduler.run() > 0) return true;
    if (this.#sleepers.length === 0) return false;
    this.#sleepers.sort((a, b) => a.at - b.at);
    const next = this.#sleepers.shift()!;
    this.#now = Math.max(this.#now, next.at);
    next.future.resolve();
    return true;
  }

  /** Runs a task to its end. */
  run<T>(task: Task<T>): T {
    return this.settle(this.scheduler.spawn(task));
  }

  /** Runs until `future` is there. */
  settle<T>(future: Future<T>): T {
    for (let steps = 0; !future.settled; steps++) {
      if (steps > 1_000_000 || !this.step()) throw new Error("the task never ends");
    }
    return future.value;
  }
}

/** The identity of the stores in tests. */
export const identity: StoreIdentity = { clusterId: "test", serverId: 7, storeIndex: 0, storeCount: 1 };
/** Small, so that tests meet every limit. */
export const smallLimits: StoreLimits = {
  segmentBytes: 64 * 1024,
  logBytesMax: 512 * 1024,
  checkpointMs: 1000,
  checkpointBytes: 1 << 20,
  checkpointChanges: 1000,
  growBlocks: 4096,
  growFillMax: 0.95,
};

/** Media with the store that uses them now. */
export class Bench {
  runtime = new TestRuntime();
  readonly media: Media;
  store!: Store;

  constructor(readonly seed: number, readonly limits: Partial<StoreLimits> = smallLimits, blocksMax = 65536) {
    this.media = new Media(this.runtime, new Random(seed, "media"), { blocksMax });
    assertEquals(Store.format(this.media.image, identity), null);
    this.start();
  }

  /** Opens the store; fails the test when it does not open. */
  start(): void {
    const store = this.open();
    if ("error" in store) throw new Error(store.error);
    this.store = store;
  }

  /** Opens the store with a new runtime. */
  open(): Store | { error: string } {
    this.runtime = new TestRuntime();
    this.media.attach(this.runtime);
    const { image, log, container } = this.media;
    return this.runtime.run(
      Store.open({ image, log, container, runtime: this.runtime, limits: this.limits }, identity),
    );
  }

  /** The process dies, or the power fails; then the store is opened again. */
  crash(how: "kill" | "power"): void {
    this.media.crash(how);
    this.start();
  }

  /** Commits without a request behind it, and writes the log. Returns the position. */
  commit(shard: number, changes: Commit["changes"], charges: Commit["charges"] = []): number {
    const position = this.store.commit(shard, { epoch: 1, session: 0, slot: 0, sequence: 0, changes, charges });
    this.store.endOfTurn();
    return position;
  }

  /** Makes everything durable. */
  sync(): number {
    return this.runtime.settle(this.store.sync());
  }

  /** A checkpoint. */
  checkpoint(): number {
    return this.runtime.run(this.store.checkpoint());
  }

  /** A copy of a value. */
  get(key: Uint8Array): Uint8Array | undefined {
    return this.store.get(key)?.slice();
  }
}

/** A key for tests: extended attribute `name` of inode 1. */
export function testKey(shard: number, name: number): Uint8Array {
  return new Key(shard, kind.xattr, 20).u56(1).u48(name).done();
}

/** Bytes of text. */
export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
