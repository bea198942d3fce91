/**
 * One directory of many entries on a cluster of three servers: creates all, lists them by `ls -f` on a mount, stats all,
 * unlinks all, and prints the time an entry of each phase and the memory of each process. Time an entry that grows with
 * their number would be a super-linear cost. Needs root and /dev/fuse.
 *
 * deno task bench:directory [NUMBER...]: entries, 10,000 and 100,000 unless given; 1,000,000 takes most of an hour.
 *
 * @module
 */

import { connect, type Volume } from "../mod.ts";
import { type Cluster, run, shell, volume as volumeName, withCluster } from "../tests/cluster/harness.ts";

const countsDefault = [10_000, 100_000];
/** Operations under way at once. */
const inFlight = 128;
const timeoutMs = 4 * 60 * 60_000;

/** Runs `work` for 0 to `count` - 1, some at once; microseconds for each. */
async function each(count: number, work: (index: number) => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  let next = 0;
  await Promise.all(Array.from({ length: inFlight }, async () => {
    while (next < count) await work(next++);
  }));
  return (performance.now() - startMs) * 1000 / count;
}

/** RssAnon + RssShmem of a process in MiB. */
function memoryMiB(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const kiB = (name: string) => Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(status)?.[1] ?? 0);
  return Math.round((kiB("RssAnon") + kiB("RssShmem")) / 1024);
}

/** What each process of the cluster holds. */
function memoryOf(cluster: Cluster): string {
  const processes = [cluster.manager, ...cluster.servers, ...cluster.clients.map(({ daemon }) => daemon)];
  return processes.map(({ name, pid }) => `${name} ${memoryMiB(pid)}`).join(", ");
}

async function measure(cluster: Cluster, volume: Volume, count: number): Promise<void> {
  const dir = `d${count}`, path = `${cluster.clients[0].path}/${dir}`, name = (i: number) => `${dir}/entry-${i}`;
  await volume.mkdir(dir);
  const say = (phase: string, microseconds: number) => {
    const figures = `${microseconds.toFixed(1).padStart(8)} us an entry`;
    console.log(`${String(count).padStart(9)} ${phase.padEnd(7)}${figures}   MiB: ${memoryOf(cluster)}`);
  };
  say("create", await each(count, (i) => volume.writeFile(name(i), new Uint8Array(0), { createNew: true })));
  const startMs = performance.now();
  const listed = Number(await run(shell(`ls -f "$1" | wc -l`).concat("ls", path), { timeoutMs }));
  if (listed !== count + 2) throw new Error(`${listed} entries of ${count + 2} were listed`);
  say("ls -f", (performance.now() - startMs) * 1000 / count);
  say("stat", await each(count, (i) => volume.lstat(name(i))));
  say("unlink", await each(count, (i) => volume.remove(name(i))));
  await volume.remove(dir);
}

const counts = Deno.args.length > 0 ? Deno.args.map(Number) : countsDefault;
if (!counts.every((count) => Number.isSafeInteger(count) && count > 0)) {
  console.error(`large_directory: ${Deno.args.join(" ")}: numbers of entries are wanted`);
  Deno.exit(2);
}
await withCluster({ fromSource: true, clients: 1, timeoutMs }, async (cluster) => {
  await using connection = await connect({ managerAddress: cluster.managerAddress });
  await using volume = await connection.open(volumeName);
  for (const count of counts) await measure(cluster, volume, count);
});
