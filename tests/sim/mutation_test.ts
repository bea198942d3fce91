/**
 * The simulator finds bugs: each test breaks one safety rule of the real core and counts the seeds until a run fails.
 * A rule whose breach nobody notices is not tested, whatever the other tests say.
 *
 * @module
 */

import { assertLessOrEqual } from "@std/assert";
import { LeaseCache } from "../../core/client/lease_cache.ts";
import { OpenTable } from "../../core/client/open_table.ts";
import { Engine } from "../../core/meta/engine.ts";
import { Intents } from "../../core/meta/intent.ts";
import { LockTable } from "../../core/meta/lock_table.ts";
import { kind } from "../../core/meta/layout.ts";
import { Opens } from "../../core/meta/opens.ts";
import { Slots } from "../../core/server/slots.ts";
import { Store } from "../../core/store/store.ts";
import { scenarioOf, simulate } from "./simulation.ts";
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

/** First seed from 1 on that fails, at most `most`; `most` + 1 when none does. */
function seedsToFind(most: number): number {
  for (let seed = 1; seed <= most; seed++) {
    try {
      simulate(scenarioOf(seed));
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
): void {
  Deno.test(`simulate() finds within ${most} seeds that ${what}`, () => {
    withMethod(target, name, make, () => {
      const seeds = seedsToFind(most);
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

mutation("files end while they are open", 100, Opens, "mayBeOpen", () => () => false);

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
