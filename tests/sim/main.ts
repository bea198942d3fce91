/**
 * Runs simulations by hand: `deno task sim --seed N` one, with `--trace` to read it; `--seeds M` many, from `--seed` on.
 * `--mix NAME` has every run do one kind of work. `--power` simulates power cuts instead (`--mixed`: with directories made and files renamed as well).
 * Ends with 1 at the first seed that fails, or with `--go-on` after all.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { simulatePower } from "./power.ts";
import { scenarioOf, simulate } from "./simulation.ts";
import { mixes } from "./workload.ts";
import { SimulationError } from "./world.ts";

const flags = parseArgs(Deno.args, {
  string: ["seed", "seeds", "mix"],
  boolean: ["trace", "go-on", "power", "mixed"],
  default: { seed: "1", seeds: "1" },
});

const onTrace = flags.trace ? (line: string) => console.log(line) : null;
const first = Number(flags.seed), count = Number(flags.seeds);
let failures = 0, unjudged = 0;
const startMs = performance.now();
for (let seed = first; seed < first + count; seed++) {
  const drawn = scenarioOf(seed), scenario = { ...drawn, mix: (flags.mix ?? drawn.mix) as keyof typeof mixes };
  const begunMs = performance.now();
  try {
    if (flags.power) {
      const outcome = simulatePower(seed, flags.mixed === true, onTrace);
      if (count === 1) console.log(`seed ${seed} ok`, JSON.stringify(outcome));
      continue;
    }
    const outcome = simulate(scenario, onTrace);
    if (outcome.unjudged !== "") unjudged++;
    if (count > 1 && seed % 100 !== 0) continue;
    const { troubles, ...figures } = outcome;
    const tookMs = Math.round(performance.now() - begunMs);
    console.log(`seed ${seed} ok in ${tookMs} ms`, JSON.stringify({ ...figures, troubles: [...troubles] }));
  } catch (error) {
    if (!(error instanceof SimulationError)) throw error;
    failures++;
    console.error(flags.power ? error.message : `${error.message}\nscenario: ${JSON.stringify(scenario)}`);
    const mix = flags.mix === undefined ? "" : ` --mix ${flags.mix}`;
    const kind = `${mix}${flags.power ? " --power" : ""}${flags.mixed ? " --mixed" : ""}`;
    console.error(`again: deno task sim --seed ${seed}${kind} --trace`);
    if (!flags["go-on"]) break;
  }
}
const seconds = (performance.now() - startMs) / 1000;
if (count > 1) console.log(`${failures} failures, ${unjudged} not judged to the end, ${seconds.toFixed(1)} s`);
Deno.exit(failures === 0 ? 0 : 1);
