/** Benches of a local folder. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { bytesNeeded, phasesOf } from "../../../ffi/bench/plan.ts";
import { type BenchOptions, runBench } from "../../../ffi/bench/run.ts";

const never = new Promise<never>(() => {});

async function withFolder(body: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir({ prefix: "sealfs-bench-test-" });
  try {
    await body(path);
    assertEquals([...Deno.readDirSync(path)], [], "something is left");
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

function options(path: string, more: Partial<BenchOptions> = {}): BenchOptions {
  return {
    path,
    processes: 2,
    files: 30,
    fileBytes: 100,
    largeBytes: 2 << 20,
    phaseMsMax: 60_000,
    stop: never,
    progress: () => {},
    ...more,
  };
}

Deno.test("runBench() does every phase with every process, counts it, and leaves nothing", async () => {
  await withFolder(async (path) => {
    const heard: string[] = [];
    const results = await runBench(options(path, { progress: ({ name }, n, of) => heard.push(`${n}/${of} ${name}`) }));
    assert(typeof results === "object", String(results));
    const counts = Object.fromEntries(results.map(({ phase, operations, bytes }) => [phase, [operations, bytes]]));
    assertEquals(counts, {
      "create-own": [60, 6000],
      "stat-own": [60, 0],
      "read-own": [60, 6000],
      "list-own": [240, 0],
      "rename-own": [60, 0],
      "unlink-own": [60, 0],
      "create-shared": [60, 6000],
      "stat-shared": [60, 0],
      "read-shared": [60, 6000],
      // Each process lists the files of both.
      "list-shared": [480, 0],
      "rename-shared": [60, 0],
      "unlink-shared": [60, 0],
      writeLarge: [4, 4 << 20],
      readLarge: [4, 4 << 20],
      writeRandom: [1024, 4 << 20],
      readRandom: [1024, 4 << 20],
    });
    assertEquals([heard.length, heard[0], heard.at(-1)], [16, "1/16 create-own", "16/16 readRandom"]);
    for (const { phase, seconds, operations, operationsPerSecond, p50Ms, p99Ms, maxMs } of results) {
      assert(seconds > 0 && seconds < 60 && Math.abs(operations / seconds - operationsPerSecond) < 1e-6, phase);
      assert(p50Ms > 0 && p50Ms <= p99Ms && p99Ms <= maxMs && maxMs <= seconds * 1000, phase);
    }
  });
});

Deno.test("runBench() leaves out what has no size, and ends phases for which there is no time", async () => {
  await withFolder(async (path) => {
    const large = await runBench(options(path, { files: 0 }));
    assert(typeof large === "object");
    assertEquals(large.map(({ phase }) => phase), ["writeLarge", "readLarge", "writeRandom", "readRandom"]);
    const hurried = await runBench(options(path, { files: 1_000_000, largeBytes: 0, phaseMsMax: 50 }));
    assert(typeof hurried === "object", String(hurried));
    assertEquals(hurried.map(({ phase }) => phase), phasesOf({ files: 1, largeBytes: 0 }).map(({ name }) => name));
    assert(hurried.every(({ operations, seconds }) => operations > 0 && operations < 2_000_000 && seconds < 10));
  });
});

Deno.test("runBench() refuses what there is no room for before it writes anything", async () => {
  await withFolder(async (path) => {
    const outcome = await runBench(options(path, { largeBytes: 2 ** 52 }));
    assertMatch(String(outcome), /has [\d,]+ MiB free, and the bench writes [\d,]+ MiB: give a smaller --size/);
    assertMatch(String(await runBench(options(`${path}/nothing`))), /cannot ask .*\/nothing for its free room: ENOENT/);
  });
  const plan = { folder: "", processes: 3, files: 10, fileBytes: 4097, largeBytes: 1 << 20, phaseMsMax: 1 };
  assertEquals(bytesNeeded(plan), 3 * ((1 << 20) + 10 * 8192));
});

Deno.test("runBench() ends and removes everything when it is stopped, or when an operation fails", async () => {
  await withFolder(async (path) => {
    const stop = new Promise<void>((resolve) => setTimeout(resolve, 300));
    const outcome = await runBench(options(path, { files: 500_000, stop }));
    assertEquals(outcome, "stopped; everything that it made is removed");
    // The directory of a process disappears under it.
    const spoil = ({ name }: { name: string }) => {
      const [{ name: own }] = [...Deno.readDirSync(path)];
      if (name === "create-shared") Deno.removeSync(`${path}/${own}/shared`);
    };
    const failed = await runBench(options(path, { progress: spoil }));
    assertMatch(String(failed), /^cannot create \S+\/shared\/f[01]\.00000000: ENOENT$/);
  });
});
