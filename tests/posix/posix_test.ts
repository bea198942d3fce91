/**
 * Runs the POSIX suite: all cases of tests/posix/cases on a FUSE mount and over the library of one cluster of three
 * servers, or on a local directory. case.ts says how, and how to add one.
 */

import { join } from "@std/path";
import { attempt, type Cluster, run, sleep, volume, withCluster } from "../cluster/harness.ts";
import { needs, needyTest } from "../cluster/needs.ts";
import { type Case, type Files, registered, registerFile, smallBytes, type Way } from "./case.ts";
import { KernelWay } from "./kernel.ts";
import { LibraryWay } from "./library.ts";

/** Time one case may take. */
const caseTimeoutMs = 60_000;
/** Cases that are under way at once: they wait more than they work. */
const lanes = 2;
/** Time everything may take. */
const suiteTimeoutMs = 600_000;
/** Times fsck is run until it finds nothing, and the pause between. */
const checksMax = 5, checkPauseMs = 3000;

/** The volume of {@linkcode Files.small}. */
const smallVolume = "small";

const localPath = Deno.env.get("SEALFS_POSIX_PATH");
const wanted = new RegExp(Deno.env.get("SEALFS_POSIX_CASES") ?? "");
const ways = (Deno.env.get("SEALFS_POSIX_WAYS") ?? "mount,library").split(",");

const folder = new URL("./cases/", import.meta.url);
const files = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".ts")).sort();
for (const name of files) {
  registerFile(name.slice(0, -".ts".length));
  await import(new URL(name, folder).href);
}

async function runCase<F extends Files>(way: Way<F>, one: Case<F>, number: number): Promise<void> {
  const { fs, end } = await way.begin(`case-${way.name}-${number}`);
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`not done after ${caseTimeoutMs / 1000} s`)), caseTimeoutMs);
  try {
    await Promise.race([one.run(fs), late.promise]);
  } finally {
    clearTimeout(timer);
    await end();
  }
}

/** Runs cases as steps; how many there were. */
async function runCases<F extends Files>(t: Deno.TestContext, way: Way<F>, cases: Case<F>[]): Promise<void> {
  const chosen = cases.filter(({ name, notOn }) => wanted.test(name) && notOn?.[way.name] === undefined);
  const begunMs = performance.now();
  let next = 0, passed = 0;
  // Processes and connections outlive the case that was first to need them.
  const sanitize = { sanitizeOps: false, sanitizeResources: false, sanitizeExit: false };
  const lane = async () => {
    while (next < chosen.length) {
      const number = next++, one = chosen[number], fn = () => runCase(way, one, number);
      if (await t.step({ name: `${way.name}: ${one.name}`, fn, ...sanitize })) passed++;
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  await way.close();
  const seconds = ((performance.now() - begunMs) / 1000).toFixed(1);
  console.log(`posix: ${passed} of ${chosen.length} cases passed on ${way.name} in ${seconds} s`);
}

/**
 * What the last cases have removed ends when nobody can have it any more: a mount that has gone keeps that open for some
 * seconds. So fsck is run until it finds nothing, a few times.
 */
async function checkAtRest(cluster: Cluster): Promise<void> {
  for (let attempt = 1;; attempt++) {
    try {
      return await cluster.check();
    } catch (error) {
      if (attempt === checksMax) throw error;
      await sleep(checkPauseMs);
    }
  }
}

if (localPath !== undefined) {
  const own = `sealfs-posix-${Deno.pid}`;
  needyTest(`POSIX cases hold on ${localPath}`, needs(), async (t) => {
    const path = `${localPath}/${own}`;
    const [readOnly, small] = [1, 2].map(() => Deno.makeTempDirSync({ prefix: "sealfs-posix-" }));
    Deno.mkdirSync(path);
    try {
      await run(["mount", "--bind", path, readOnly]);
      await run(["mount", "-o", "remount,bind,ro", readOnly]);
      await run(["mount", "-t", "tmpfs", "-o", `size=${smallBytes}`, "none", small]);
      await runCases(t, new KernelWay("local", [path], { readOnly, small }), [
        ...registered.both,
        ...registered.kernel,
      ]);
    } finally {
      for (const place of [readOnly, small]) {
        await attempt(["umount", "-l", place]);
        await Deno.remove(place);
      }
      await Deno.remove(path, { recursive: true });
    }
  });
} else {
  needyTest("POSIX cases hold on a mount and over the library", needs(), async (t) => {
    await withCluster({ clients: 2, timeoutMs: suiteTimeoutMs }, async (cluster) => {
      // Cases are others than root, too.
      Deno.chmodSync(cluster.folder, 0o711);
      await cluster.cli("create", smallVolume, String(smallBytes / 1048576));
      if (ways.includes("mount")) {
        const mounts = cluster.clients.map(({ path }) => path), client = cluster.clients[1];
        const places = { readOnly: join(cluster.folder, "readonly"), small: join(cluster.folder, "small") };
        for (const place of Object.values(places)) Deno.mkdirSync(place);
        await cluster.mount(client, places.readOnly, volume, "ro");
        await cluster.mount(client, places.small, smallVolume);
        try {
          await runCases(t, new KernelWay("mount", mounts, places), [...registered.both, ...registered.kernel]);
        } finally {
          for (const place of Object.values(places)) await cluster.clientCli(client, "umount", place);
        }
      }
      if (ways.includes("library")) {
        const names = { volume, small: smallVolume };
        await runCases(t, await LibraryWay.start(cluster.managerAddress, names), registered.both);
      }
      await t.step("fsck finds nothing after all cases", () => checkAtRest(cluster));
    });
  });
}
