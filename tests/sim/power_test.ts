/**
 * What fsync acknowledged survives the loss of power of every server at once, and the test would notice if it did not.
 *
 * @module
 */

import { assertGreater, assertLessOrEqual } from "@std/assert";
import { Store } from "../../core/store/store.ts";
import { Future } from "../../core/task.ts";
import { simulatePower } from "./power.ts";
import { SimulationError } from "./world.ts";

const full = Deno.env.get("SEALFS_TEST_FULL") === "1";
const seeds = full ? 2000 : 40;

Deno.test(`simulatePower() finds what was synced after every cut in ${seeds} seeds`, () => {
  let checked = 0;
  for (let seed = 1; seed <= seeds; seed++) checked += simulatePower(seed, false).checked;
  assertGreater(checked, seeds * 10);
});

/** First seed that fails while `broken` stands in for Store.sync. */
function seedsToFind(most: number, broken: typeof Store.prototype.sync): number {
  const { sync } = Store.prototype;
  Store.prototype.sync = broken;
  try {
    for (let seed = 1; seed <= most; seed++) {
      try {
        simulatePower(seed, false);
      } catch (error) {
        if (error instanceof SimulationError) return seed;
        throw error;
      }
    }
    return most + 1;
  } finally {
    Store.prototype.sync = sync;
  }
}

Deno.test("simulatePower() finds within 5 seeds that syncs do nothing", () => {
  assertLessOrEqual(seedsToFind(5, () => Future.of(0)), 5);
});

Deno.test("simulatePower() finds within 20 seeds that one sync in three does nothing", () => {
  const { sync } = Store.prototype;
  let count = 0;
  assertLessOrEqual(
    seedsToFind(20, function (this: Store) {
      return ++count % 3 === 0 ? Future.of(0) : sync.call(this);
    }),
    20,
  );
});
