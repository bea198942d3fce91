/**
 * `kill -9` of servers, manager and client daemon at random moments while programs work on the mounts: they go on, and
 * nothing that was acknowledged is lost. The seed of the moments is printed; SEALFS_TEST_SEED repeats it.
 */

import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { Random } from "../sim/random.ts";
import { type Cluster, type Process, run, script, shell, sleep, withCluster } from "./harness.ts";
import { full, needs, needyTest } from "./needs.ts";

/** How long processes are killed. */
const serversMs = full ? 600_000 : 25_000;
const daemonKills = full ? 40 : 3;
/** Longest time until the next kill, and that a killed one stays dead. */
const betweenMsMax = 2_500;
const deadMsMax = 1_500;
const pollMs = 50;
const testMs = full ? 1_500_000 : 180_000;
/** Longest time until programs do something again: leases of the one that was killed run out meanwhile. */
const goesOnMs = 30_000;
const workMs = full ? 1_400_000 : 170_000;

const given = Deno.env.get("SEALFS_TEST_SEED");
const seed = given === undefined ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(given);

/** A program that works until the file `stop` is in its control folder. */
interface Work {
  control: string;
  /** Settles with its stdout when it has ended well. */
  done: Promise<string>;
  /** Why it ended, when it did not end well. */
  failed: () => Error | undefined;
}

function begin(control: string, command: string[]): Work {
  Deno.mkdirSync(control, { recursive: true });
  let failure: Error | undefined;
  const done = run(command, { timeoutMs: workMs });
  done.catch((error) => failure = error);
  return { control, done, failed: () => failure };
}

async function end(work: Work): Promise<string> {
  Deno.writeTextFileSync(join(work.control, "stop"), "");
  return await work.done;
}

function verified(cluster: Cluster, name: string, number: number): Work {
  const control = join(cluster.folder, name);
  const [{ path: a }, { path: b }] = cluster.clients;
  return begin(control, script("verified_work.ts", a, b, control, String(seed + number)));
}

/** Rows are inserted one transaction each; what sqlite3 acknowledged is counted outside. */
function database(cluster: Cluster): Work {
  const control = join(cluster.folder, "database");
  return begin(
    control,
    shell(`
      cd "$1"; sqlite3 rows.db "create table t (n integer primary key, b blob)"
      n=0
      while [ ! -e "$2/stop" ]; do
        n=$((n + 1)); sqlite3 rows.db "insert into t values ($n, randomblob(3000))"
      done
      test "$(sqlite3 rows.db 'select count(*), max(n) from t')" = "$n|$n"
      test "$(sqlite3 rows.db 'pragma integrity_check')" = ok
      rm rows.db; echo $n`).concat("database", cluster.clients[0].path, control),
  );
}

/** A tree goes in, is compared and removed, again and again. */
function archives(cluster: Cluster): Work {
  const control = join(cluster.folder, "archives"), source = join(cluster.folder, "source");
  for (let number = 0; number < 300; number++) {
    const folder = join(source, `d${number % 7}`, `e${number % 5}`);
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeFileSync(join(folder, `f${number}`), new Uint8Array(number * 997 % 20_000).fill(number));
  }
  return begin(
    control,
    shell(`
      tar -C "$3" -cf "$3.tar" .
      n=0
      while [ ! -e "$2/stop" ]; do
        n=$((n + 1)); mkdir "$1/tree$n"; tar -C "$1/tree$n" -xf "$3.tar"; diff -r "$3" "$1/tree$n"; rm -r "$1/tree$n"
      done
      echo $n`).concat("archives", cluster.clients[1].path, control, source),
  );
}

/** Kills processes of the cluster at random moments until the time is over or a program fails. */
async function killing(targets: readonly Process[], works: readonly Work[], random: Random): Promise<string[]> {
  const limit = performance.now() + serversMs;
  const kills: string[] = [];
  while (performance.now() < limit) {
    await sleep(random.below(betweenMsMax));
    const victims = random.chance(0.2) ? targets.slice() : [random.pick(targets)];
    // All at once, too: a whole rack that loses its processes.
    await Promise.all(victims.map((process) => process.kill9()));
    kills.push(victims.map((process) => process.name).join("+"));
    await sleep(random.below(deadMsMax));
    await Promise.all(victims.map((process) => process.start()));
    const failure = works.map((work) => work.failed()).find((error) => error !== undefined);
    if (failure !== undefined) throw new Error(`after kills of ${kills.join(", ")}: ${failure.message}`);
  }
  return kills;
}

/** Checks that two processes never hold a lock at once, before and after the kills. */
async function lockIsHeld(path: string): Promise<void> {
  await run(shell('! flock --nonblock "$1" true').concat("locked", path), { timeoutMs: 70_000 });
}

needyTest(
  `programs go on when servers and manager are killed, seed ${seed}`,
  needs("tar", "sqlite3"),
  () =>
    withCluster({ timeoutMs: testMs }, async (cluster) => {
      const [{ path: a }, { path: b }] = cluster.clients;
      await Deno.writeTextFile(join(a, "lock"), "");
      const control = join(cluster.folder, "lock");
      const holder = begin(
        control,
        shell('while [ ! -e "$2/stop" ]; do sleep 0.1; done 9<"$1"').concat("holder", join(a, "lock"), control),
      );
      const locked = begin(
        join(cluster.folder, "locked"),
        shell('exec 9<"$1"; flock 9; touch "$2/held"; while [ ! -e "$2/stop" ]; do sleep 0.1; done').concat(
          "locked",
          join(a, "lock"),
          join(cluster.folder, "locked"),
        ),
      );
      const works = [verified(cluster, "verified", 0), database(cluster), archives(cluster), holder, locked];
      const kills = await killing([...cluster.servers, cluster.manager], works, new Random(seed, "kills"));
      await lockIsHeld(join(b, "lock"));
      const said = await Promise.all(works.map(end));
      await run(["flock", "--nonblock", join(b, "lock"), "true"], { timeoutMs: 70_000 });
      const [{ operations }, rows, trees] = said.slice(0, 3).map((text) => JSON.parse(text));
      console.log(`seed ${seed}: ${kills.length} kills, ${operations} operations, ${rows} rows, ${trees} trees`);
      assert(operations > 0 && rows > 0 && trees > 0);
      await cluster.check();
      assertEquals(cluster.logged("error"), []);
    }),
);

/** Kills the daemon of the first client and starts it again; the mount is back when it settles. */
async function killDaemon(cluster: Cluster, outage: () => void, random: Random): Promise<void> {
  const [client] = cluster.clients;
  outage();
  await client.daemon.kill9();
  // Programs hear of it: the mount is dead, not hung. What was asked in its last moment is told that it was cut off.
  const ask = shell('ls "$1" >/dev/null 2>&1 || true; ls "$1" 2>&1 || true').concat("ls", client.path);
  const said = await run(ask, { timeoutMs: 10_000 });
  assert(said.includes("endpoint is not connected"), `ls of a dead mount said: ${said}`);
  await sleep(random.below(deadMsMax));
  await client.daemon.start();
  await cluster.mounted(client);
}

/** Operations that the work has done. */
async function progress(work: Work): Promise<number> {
  return Number(await Deno.readTextFile(join(work.control, "operations")).catch(() => "0"));
}

/** Waits until the work does something again. */
async function goesOn(work: Work): Promise<void> {
  const before = await progress(work), limit = performance.now() + goesOnMs;
  while (work.failed() === undefined && await progress(work) === before) {
    assert(performance.now() < limit, `nothing done for ${goesOnMs / 1000} s`);
    await sleep(pollMs);
  }
}

needyTest(
  `mounts come back when the client daemon is killed, seed ${seed}`,
  needs(),
  () =>
    withCluster({ timeoutMs: testMs }, async (cluster) => {
      const random = new Random(seed, "daemon");
      const work = verified(cluster, "verified", 1);
      for (let kill = 1; kill <= daemonKills; kill++) {
        await sleep(500 + random.below(betweenMsMax));
        await killDaemon(cluster, () => Deno.writeTextFileSync(join(work.control, "outages"), String(kill)), random);
        await goesOn(work);
        const failure = work.failed();
        if (failure !== undefined) throw new Error(`after ${kill} kills: ${failure.message}`);
      }
      const { operations } = JSON.parse(await end(work));
      console.log(`seed ${seed}: ${daemonKills} kills of the daemon, ${operations} operations`);
      assert(operations > 0);
      await cluster.check();
    }),
);
