/**
 * The simulator finds bugs: each test breaks one safety rule of the real core and counts the seeds until a run fails.
 * A rule whose breach nobody notices is not tested, whatever the other tests say.
 *
 * @module
 */

import { assertLessOrEqual } from "@std/assert";
import { LeaseCache } from "../../core/client/lease_cache.ts";
import {
  type AllocateRange,
  type Caller,
  type CopyRange,
  type CreateOptions,
  done,
  type Whence,
} from "../../core/client/filesystem.ts";
import { HeldLocks } from "../../core/client/held_locks.ts";
import { OpenTable } from "../../core/client/open_table.ts";
import { VolumeClient } from "../../core/client/volume_client.ts";
import { E, failed } from "../../core/errno.ts";
import { isRegular } from "../../core/meta/attributes.ts";
import { Engine } from "../../core/meta/engine.ts";
import { Intents } from "../../core/meta/intent.ts";
import { LockList, type SessionLock } from "../../core/meta/lock_ranges.ts";
import { type LockOutcome, LockService } from "../../core/meta/lock_service.ts";
import { LockTable } from "../../core/meta/lock_table.ts";
import { kind } from "../../core/meta/layout.ts";
import { Opens } from "../../core/meta/opens.ts";
import type { Reader } from "../../core/protocol/codec.ts";
import { READ_CHUNK } from "../../core/protocol/messages.ts";
import { Slots } from "../../core/server/slots.ts";
import { Store } from "../../core/store/store.ts";
import { scenarioOf, simulate } from "./simulation.ts";
import { mixes } from "./workload.ts";
import { SimulationError } from "./world.ts";

// deno-lint-ignore no-explicit-any
type AnyFunction = (...args: any[]) => any;

/** Replaces a method of a class while `run` runs. */
function withMethod(
  // deno-lint-ignore no-explicit-any
  target: { prototype: any },
  name: string,
  make: (original: AnyFunction) => AnyFunction,
  run: () => void,
): void {
  const original = target.prototype[name] as AnyFunction;
  if (typeof original !== "function") throw new Error(`there is no method ${name} to break`);
  target.prototype[name] = make(original);
  try {
    run();
  } finally {
    target.prototype[name] = original;
  }
}

/** First seed from 1 on that fails, at most `most`; `most` + 1 when none does. `mix`: the work of every run. */
function seedsToFind(most: number, mix?: keyof typeof mixes): number {
  for (let seed = 1; seed <= most; seed++) {
    const drawn = scenarioOf(seed);
    try {
      simulate({ ...drawn, mix: mix ?? drawn.mix });
    } catch (error) {
      if (!(error instanceof SimulationError)) throw error;
      return seed;
    }
  }
  return most + 1;
}

function mutation(
  what: string,
  most: number,
  // deno-lint-ignore no-explicit-any
  target: { prototype: any },
  name: string,
  make: (original: AnyFunction) => AnyFunction,
  mix?: keyof typeof mixes,
): void {
  Deno.test(`simulate() finds within ${most} seeds that ${what}`, () => {
    withMethod(target, name, make, () => {
      const seeds = seedsToFind(most, mix);
      console.log(`found by seed ${seeds}`);
      assertLessOrEqual(seeds, most);
    });
  });
}

mutation("reply slots are not stored", 100, Engine, "planReply", () => () => {});

mutation("the log is not written at the end of a turn", 100, Store, "endOfTurn", () => () => 0);

mutation(
  "intents are forgotten at a restart",
  100,
  Intents,
  "load",
  (original) =>
    function (this: Intents, shard: number) {
      return original.call(this, shard, () => {});
    },
);

mutation("names are not locked", 100, LockTable, "tryAcquire", () => () => true);

mutation("late duplicates of refused requests are executed", 400, Slots, "kept", () => () => null);

mutation("requests are executed again while they run", 100, Slots, "begin", () => () => "run");

mutation("nobody waits for the claims of sessions after a restart", 100, Opens, "await", () => () => {});

mutation("clients do not claim what they have open", 300, OpenTable, "claims", () => () => []);

mutation("clients go on using what was recalled", 100, LeaseCache, "recalled", () => () => []);

mutation(
  "a lease is returned before the server knows of opens under it",
  100,
  OpenTable,
  "tell",
  () => () => null,
  "orphans",
);

mutation(
  "a session removes files that it has open under a lease without a word",
  100,
  OpenTable,
  "beginRemoval",
  (original) =>
    function (this: OpenTable) {
      Object.defineProperty(this, "untold", { value: 0, configurable: true });
      return original.call(this);
    },
  "orphans",
);

mutation("files end while they are open", 100, Opens, "mayBeOpen", () => () => false);

mutation(
  "directories are listed while names have left them that are nowhere else yet",
  100,
  LockTable,
  "groupSettled",
  () => function* () {},
  "listings",
);

mutation(
  "directories move without the move lock",
  300,
  LockTable,
  "tryAcquire",
  (original) =>
    function (this: LockTable, name: string, owner: string, group: number) {
      return name.endsWith("/") || original.call(this, name, owner, group);
    },
);

mutation(
  "files are changed without their lock",
  300,
  LockTable,
  "tryAcquire",
  (original) =>
    function (this: LockTable, name: string, owner: string, group: number) {
      return !name.includes("/") || original.call(this, name, owner, group);
    },
);

mutation(
  "steps of an intent are applied again",
  300,
  Store,
  "get",
  (original) =>
    function (this: Store, key: Uint8Array) {
      return key[2] === kind.step ? undefined : original.call(this, key);
    },
);

mutation("a lock is given to two", 50, LockList, "conflict", () => () => null, "locks");

mutation("clients do not claim their locks after a restart", 100, HeldLocks, "claims", () => () => [], "locks");

mutation("locks of the dead stay", 100, LockService, "dropSession", () => () => {}, "locks");

mutation(
  "lock requests that come again, or late, take effect",
  300,
  LockService,
  "once",
  () => (_inode: number, _lock: SessionLock, _order: number, carryOut: () => LockOutcome) => carryOut(),
  "locks",
);

mutation(
  "lock requests that come late take effect",
  400,
  LockService,
  "once",
  (original) =>
    function (this: LockService, inode: number, lock: SessionLock, order: number, carryOut: () => LockOutcome) {
      const outcome: LockOutcome = original.call(this, inode, lock, order, carryOut);
      return outcome.errno === E.CANCELED ? carryOut() : outcome;
    },
  "locks",
);

mutation("a lock that a close should drop stays", 50, LockService, "drop", () => () => {}, "locks");

mutation(
  "a read does not notice that a chunk has been cut since it knows the size",
  100,
  { prototype: READ_CHUNK.reply },
  "read",
  (original) =>
    function (reader: Reader) {
      original(reader);
      return { floor: 0 };
    },
  "data",
);

mutation("files that only a dead session had open stay", 300, Opens, "drop", () => () => []);

mutation(
  "unlinked files stay when they are closed",
  100,
  Opens,
  "close",
  (original) =>
    function (this: Opens, session: number, inode: number, openId: number) {
      original.call(this, session, inode, openId);
      return false;
    },
);

mutation(
  "an exclusive create takes what is there",
  100,
  VolumeClient,
  "create",
  (original) =>
    function (this: VolumeClient, dir: number, name: Uint8Array, options: CreateOptions, caller: Caller) {
      return original.call(this, dir, name, { ...options, exclusive: false }, caller);
    },
);

mutation(
  "an append asks for the end and writes there",
  200,
  VolumeClient,
  "append",
  () =>
    function* (this: VolumeClient, inode: number, data: Uint8Array, options: { killSetId: boolean }) {
      const file = yield* this.getAttributes(inode);
      if (failed(file)) return file;
      const written = yield* this.write(inode, file.size, data, options);
      return failed(written) ? written : { offset: file.size };
    },
);

mutation(
  "a rename is a link and an unlink",
  100,
  VolumeClient,
  "rename",
  (original) =>
    function* (this: VolumeClient, dir: number, name: Uint8Array, newDir: number, newName: Uint8Array, flags: number) {
      const file = yield* this.lookup(dir, name);
      if (failed(file) || !isRegular(file.mode) || flags !== 0) {
        return yield* original.call(this, dir, name, newDir, newName, flags);
      }
      const linked = yield* this.link(file.inode, newDir, newName);
      return failed(linked) ? linked : yield* this.unlink(dir, name);
    },
);

mutation(
  "what is punched and zeroed stays",
  200,
  VolumeClient,
  "allocate",
  (original) =>
    function* (this: VolumeClient, inode: number, range: AllocateRange) {
      return range.mode > 1 ? done : yield* original.call(this, inode, range);
    },
);

mutation(
  "a search for data goes too far",
  200,
  VolumeClient,
  "seek",
  (original) =>
    function* (this: VolumeClient, inode: number, offset: number, whence: Whence) {
      const found = yield* original.call(this, inode, offset, whence);
      return failed(found) || whence === "hole" ? found : { offset: found.offset + 4096 };
    },
);

mutation(
  "a search for a hole finds data",
  200,
  VolumeClient,
  "seek",
  (original) =>
    function* (this: VolumeClient, inode: number, offset: number, whence: Whence) {
      const found = yield* original.call(this, inode, offset, whence);
      return failed(found) || whence === "data" ? found : { offset };
    },
);

mutation(
  "a copy leaves out a byte",
  200,
  VolumeClient,
  "copyRange",
  (original) =>
    function* (this: VolumeClient, copy: CopyRange) {
      const { fromOffset, toOffset, length } = copy;
      const shifted = { ...copy, fromOffset: fromOffset + 1, toOffset: toOffset + 1, length: length - 1 };
      const copied = length < 2 ? { count: 0 } : yield* original.call(this, shifted);
      return failed(copied) || copied.count === 0 ? copied : { count: copied.count + 1 };
    },
);
