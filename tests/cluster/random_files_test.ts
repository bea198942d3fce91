/**
 * Random operations on the same files through two mounts in turn, held against a model in memory. The seed is printed;
 * SEALFS_TEST_SEED repeats it.
 */

import { join } from "@std/path";
import { run, script, withCluster } from "./harness.ts";
import { full, needs, needyTest } from "./needs.ts";

const operations = full ? 1_000_000 : 2_000;
const testMs = full ? 4 * 3_600_000 : 240_000;

const given = Deno.env.get("SEALFS_TEST_SEED");
const seed = given === undefined ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(given);

needyTest(`${operations} random operations through two mounts in turn agree with a model`, needs(), async () => {
  console.log(`seed ${seed}`);
  await withCluster({ timeoutMs: testMs }, async (cluster) => {
    const folders = cluster.clients.map(({ path }) => join(path, "random"));
    await Deno.mkdir(folders[0]);
    await run(script("random_files.ts", ...folders, String(operations), String(seed)), { timeoutMs: testMs });
    await Deno.remove(folders[1], { recursive: true });
    await cluster.check();
  });
});
