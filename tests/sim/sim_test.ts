/**
 * Whole clusters under seeded troubles, many of them: the main test of sealfs. A failing seed is named, with the
 * command that shows its run again.
 *
 * @module
 */

import { assertEquals, assertGreater, assertLess, assertNotEquals } from "@std/assert";
import { type TroubleKind, troubleKinds } from "./faults.ts";
import { scenarioOf, simulate } from "./simulation.ts";
import { mixes } from "./workload.ts";

const full = Deno.env.get("SEALFS_TEST_FULL") === "1";
/** Seeds of a run of the tests; each takes some 80 ms. */
const seeds = full ? 10_000 : 1_000;
/** Part of the runs that may be too hard to judge. */
const unjudgedMax = 0.01;

Deno.test(`simulate() finds nothing wrong in ${seeds} seeds`, () => {
  const troubles = new Map<TroubleKind, number>(), seen = new Set<string>();
  let unjudged = 0, calls = 0;
  for (let seed = 1; seed <= seeds; seed++) {
    const scenario = scenarioOf(seed);
    const outcome = runOrExplain(seed);
    seen.add(scenario.mix).add(scenario.plan.network);
    for (const [kind, count] of outcome.troubles) troubles.set(kind, (troubles.get(kind) ?? 0) + count);
    if (outcome.unjudged !== "") unjudged++;
    calls += outcome.calls;
  }
  console.log(`${calls} operations, ${unjudged} runs not judged to the end, ${JSON.stringify([...troubles])}`);
  assertLess(unjudged, seeds * unjudgedMax);
  for (const kind of troubleKinds) assertGreater(troubles.get(kind) ?? 0, seeds / 20, `${kind} hardly ever happened`);
  for (const mix of Object.keys(mixes)) assertEquals(seen.has(mix), true, `no run did ${mix}`);
});

/** Runs that once went wrong, and why. */
const onceWrong: readonly { seed: number; mix: keyof typeof mixes; because: string }[] = [
  { seed: 2301, mix: "locks", because: "a refused lock request came again and took the lock" },
  { seed: 700, mix: "ranges", because: "an old answer brought a new lease" },
];

for (const { seed, mix, because } of onceWrong) {
  Deno.test(`simulate() finds nothing wrong in seed ${seed}, where ${because}`, () => {
    assertEquals(simulate({ ...scenarioOf(seed), mix }).unjudged, "");
  });
}

function runOrExplain(seed: number) {
  try {
    return simulate(scenarioOf(seed));
  } catch (error) {
    console.error(`see it again: deno task sim --seed ${seed} --trace`);
    throw error;
  }
}

Deno.test("simulate() runs a seed the same way every time", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const first = simulate(scenarioOf(seed)), second = simulate(scenarioOf(seed));
    assertEquals(first.digest, second.digest, `seed ${seed} ran in two ways`);
  }
  assertNotEquals(simulate(scenarioOf(1)).digest, simulate(scenarioOf(2)).digest);
});

Deno.test("simulate() traces a run without changing it", () => {
  let lines = 0;
  const quiet = simulate(scenarioOf(3)), traced = simulate(scenarioOf(3), () => lines++);
  assertEquals(traced.digest, quiet.digest);
  assertGreater(lines, 100);
});
