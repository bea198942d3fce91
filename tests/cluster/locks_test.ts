/**
 * Locks and open files of two clients when servers and clients die: what a client holds it keeps over a start of the
 * servers and loses with its session, and then alone.
 */

import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { attempt, type Cluster, run, script, shell, sleep, withCluster } from "./harness.ts";
import { needs, needyTest } from "./needs.ts";

const kinds = ["flock", "fcntl"] as const;
/** A session is dead when it has been silent for 30 s (core/manager/manager.ts). */
const deathMs = 60_000;
const lostBytes = 24 << 20;

interface Holder {
  child: Deno.ChildProcess;
  /** Kills it. */
  end(): Promise<void>;
}

/** A process that holds a lock until it is killed; settles when it does. */
async function hold(kind: string, path: string): Promise<Holder> {
  const [program, ...args] = script("contender.ts", "hold", kind, path);
  const child = new Deno.Command(program, { args, stdout: "piped" }).spawn();
  const { value } = await child.stdout.getReader().read();
  assertEquals(new TextDecoder().decode(value), "held\n");
  const end = async () => {
    await attempt(["kill", "-9", String(child.pid)]);
    await child.status;
  };
  return { child, end };
}

/** Whether somebody gets the lock without waiting for another holder, in a moment. */
async function isFree(kind: string, path: string): Promise<boolean> {
  const told = script("contender.ts", "try", kind, path);
  return (await run(told, { timeoutMs: 60_000 })).trim() === "free";
}

/** Bytes that the volume uses, as a client is told. */
async function usedBytes(path: string): Promise<number> {
  return Number(
    (await run(["stat", "-f", "-c", "%b %f %S", path])).trim().split(" ").reduce(
      (sum, word, i) => i === 0 ? Number(word) : i === 1 ? sum - Number(word) : sum * Number(word),
      0,
    ),
  );
}

/** Locks on both clients, over a kill and start of all servers. */
async function restart(cluster: Cluster): Promise<void> {
  const [{ path: a }, { path: b }] = cluster.clients;
  const holders = await Promise.all(kinds.map((kind) => hold(kind, join(a, kind))));
  await Promise.all(cluster.servers.map((server) => server.kill9()));
  const tries = kinds.map((kind) => isFree(kind, join(b, kind)));
  await Promise.all(cluster.servers.map((server) => server.start()));
  assertEquals(await Promise.all(tries), [false, false], "a lock was given away while its server was down");
  await Promise.all(holders.map((holder) => holder.end()));
  for (const kind of kinds) assert(await isFree(kind, join(b, kind)), `${kind} stays locked`);
}

/** The daemon of the first client dies with locks and an unlinked file; the second one waits for them. */
async function death(cluster: Cluster): Promise<void> {
  const [first, { path: b }] = cluster.clients, { path: a } = first;
  const before = await usedBytes(b);
  const holders = await Promise.all(kinds.map((kind) => hold(kind, join(a, kind))));
  await Deno.writeFile(join(a, "lost"), new Uint8Array(lostBytes).fill(1));
  const reader = new Deno.Command("sh", { args: ["-c", 'exec sleep 600 <"$1"', "sh", join(a, "lost")] }).spawn();
  try {
    await sleep(500);
    await Deno.remove(join(b, "lost"));
    const waiting = kinds.map((kind) =>
      run(script("contender.ts", "take", kind, join(b, kind)), { timeoutMs: deathMs })
    );
    const early = await Promise.race([...waiting.map((one) => one.then(() => true)), sleep(2_000).then(() => false)]);
    assertEquals(early, false, "a lock was given to two");
    assert(await usedBytes(b) >= before + lostBytes, "a file that is open has ended");
    await first.daemon.kill9();
    await Promise.all(waiting);
    for (let left = 20; await usedBytes(b) > before + (1 << 20); left--) {
      assert(left > 0, "what a dead client had open takes space");
      await sleep(500);
    }
  } finally {
    reader.kill("SIGKILL");
    await reader.status;
    await Promise.all(holders.map((holder) => holder.end()));
  }
  await first.daemon.start();
  await cluster.mounted(first);
  for (const kind of kinds) assert(await isFree(kind, join(a, kind)));
}

/** A name is replaced again and again on one client while another opens it. */
async function replace(cluster: Cluster): Promise<void> {
  const [{ path: a }, { path: b }] = cluster.clients, name = "replaced", times = "150";
  const writers = [1, 2].map((id) => run(script("contender.ts", "replace", join(a, name), String(id), times)));
  await run(shell('while [ ! -e "$1" ]; do sleep 0.05; done').concat("wait", join(b, name)));
  const observers = [a, b].map((path) => run(script("contender.ts", "observe", join(path, name), "0", times)));
  await Promise.all([...writers, ...observers]);
  await Deno.remove(join(b, name));
}

needyTest(
  "locks outlive servers and end with their client, names are never missing while they are replaced",
  needs(),
  () =>
    withCluster({ timeoutMs: 300_000 }, async (cluster) => {
      const [{ path: a }, { path: b }] = cluster.clients;
      for (const kind of kinds) await Deno.writeTextFile(join(a, kind), "");
      await replace(cluster);
      await restart(cluster);
      await death(cluster);
      for (const kind of kinds) await Deno.remove(join(b, kind));
      await cluster.check();
    }),
);
