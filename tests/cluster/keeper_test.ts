/**
 * The keeper of a client daemon: nobody waits for ever when the daemon is killed while names are being taken back from the
 * kernel, what other clients change is seen at once with and without a keeper, and it goes when its daemon goes.
 */

import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { type Client, type Cluster, run, shell, sleep, volume, withCluster } from "./harness.ts";
import { full, needs, needyTest } from "./needs.ts";

const rounds = full ? 60 : 6;
/** Longest that a program may wait in a mount whose daemon was killed. */
const endMs = 20_000;
/** How long a keeper may take to come and to go. */
const keeperMs = 10_000;
const pollMs = 50;
/** A directory that was changed by a mount keeps its names to itself for this time; see core/fuse/kernel_cache.ts. */
const quietMs = 1_200;

/** Process id of the keeper of a daemon; 0 when it has none. */
function keeperOf(daemon: number): number {
  for (const task of [...Deno.readDirSync(`/proc/${daemon}/task`)]) {
    for (const pid of Deno.readTextFileSync(`/proc/${daemon}/task/${task.name}/children`).split(" ")) {
      if (pid !== "" && Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes("\0keeper\0")) return Number(pid);
    }
  }
  return 0;
}

async function until(what: string, check: () => boolean): Promise<void> {
  for (const limit = performance.now() + keeperMs; !check();) {
    assert(performance.now() < limit, `${what} within ${keeperMs / 1000} s`);
    await sleep(pollMs);
  }
}

/** Mounts once more, with names that the kernel keeps. */
async function mountWithNames(cluster: Cluster): Promise<void> {
  for (const client of cluster.clients) {
    await cluster.clientCli(client, "umount", client.path);
    await cluster.clientCli(client, "mount", "-o", "names", client.path, volume);
  }
}

async function keeperComes(client: Client): Promise<number> {
  await until("a keeper comes", () => keeperOf(client.daemon.pid) !== 0);
  return keeperOf(client.daemon.pid);
}

function isThere(pid: number): boolean {
  try {
    return !Deno.readTextFileSync(`/proc/${pid}/stat`).includes(") Z ");
  } catch {
    return false;
  }
}

/** Names made, moved and removed at one mount are seen at the other by the next call, also those that its kernel has. */
async function checkNames({ clients: [{ path: a }, { path: b }] }: Cluster, round: string): Promise<void> {
  const dir = `names-${round}`;
  Deno.mkdirSync(join(b, dir));
  for (const name of ["kept", "moved", "removed"]) await Deno.writeTextFile(join(b, dir, name), name);
  await sleep(quietMs);
  const look = shell(
    'cd "$1"; for i in 1 2 3; do for n in kept moved removed new; do stat $n; done; done >/dev/null 2>&1',
  )
    .concat("look", join(a, dir));
  await run(look, { timeoutMs: endMs }).catch(() => {}); // `new` is not there: the kernel learns that, too.
  await Deno.rename(join(b, dir, "moved"), join(b, dir, "new"));
  await Deno.remove(join(b, dir, "removed"));
  const names = await run(["ls", join(a, dir)], { timeoutMs: endMs });
  assertEquals(names, "kept\nnew\n");
  const said = await run(
    shell('cd "$1"; cat kept new; for n in moved removed; do if stat $n >/dev/null 2>&1; then echo $n; fi; done')
      .concat("look", join(a, dir)),
    { timeoutMs: endMs },
  );
  assertEquals(said, "keptmoved");
}

needyTest(
  "programs get an error, not silence, when their daemon is killed while names are taken back",
  needs(),
  () =>
    withCluster({ timeoutMs: 60_000 + rounds * 30_000 }, async (cluster) => {
      const [client, { path: b }] = cluster.clients, { path: a } = client;
      await mountWithNames(cluster);
      Deno.mkdirSync(join(b, "d"));
      for (let n = 0; n < 30; n++) await Deno.writeTextFile(join(b, "d", `file${n}`), "");
      for (let round = 0; round < rounds; round++) {
        const keeper = await keeperComes(client);
        await sleep(quietMs);
        await run(["ls", "-l", join(a, "d")], { timeoutMs: endMs });
        // One of this mount's programs has the directory's lock, another client wants its names back.
        const busy = shell(
          'cd "$1" && for n in 1 2 3 4 5 6 7 8; do : >own$n && mv own$n more$n && rm more$n; done || true',
        );
        const foreign = shell('cd "$1" && for n in 1 2 3 4; do : >foreign$n && rm foreign$n; done');
        const works = [
          run(busy.concat("busy", join(a, "d")), { timeoutMs: endMs }),
          run(foreign.concat("foreign", join(b, "d")), { timeoutMs: endMs }),
        ];
        await sleep(round * 2);
        await client.daemon.kill9();
        await Promise.all(works);
        await until("the keeper goes with its daemon", () => !isThere(keeper));
        await client.daemon.start();
        await cluster.mounted(client);
      }
      await cluster.check();
    }),
);

needyTest(
  "names that other clients change are seen at once, also when the keeper has been killed",
  needs(),
  () =>
    withCluster({}, async (cluster) => {
      await mountWithNames(cluster);
      const [client] = cluster.clients, keeper = await keeperComes(client);
      await checkNames(cluster, "kept");
      Deno.kill(keeper, "SIGKILL");
      await until("the keeper is gone", () => !isThere(keeper));
      await checkNames(cluster, "alone");
      await mountWithNames(cluster);
      const next = await keeperComes(client);
      assert(next !== keeper);
      await checkNames(cluster, "again");
      await cluster.check();
    }),
);
