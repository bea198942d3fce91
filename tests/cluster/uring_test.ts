/**
 * Mounts that are served over io_uring: ordinary work by two clients, and that no program hangs when the daemon is
 * stopped, killed or unmounts under load. SEALFS_TEST_TRANSPORT=uring runs every other test of real mounts so.
 */

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { withoutUring } from "../ffi/fuse_mounted.ts";
import { record, recordBytes } from "./contender.ts";
import {
  attempt,
  type Client,
  type Cluster,
  isMountpoint,
  run,
  script,
  shell,
  sleep,
  volume,
  withCluster,
} from "./harness.ts";
import { needs, needyTest } from "./needs.ts";

/** How long the verified work goes on. */
const workMs = 6_000;
const programMs = 60_000;
/** Time within which every program that uses a dead mount must have ended. */
const deadMs = 15_000;
const appendsEach = 100, countsEach = 40;

function uringNeed() {
  const need = needs(), why = need.missing === "" ? withoutUring() : "";
  return why === "" ? need : { suffix: `(needs io_uring: ${why})`, ignore: need.ignore, missing: why };
}

/** Files, folders, links, names, listings, opens, mappings and large contents, each seen by the other client. */
async function ordinaryWork(cluster: Cluster): Promise<void> {
  const [{ path: a }, { path: b }] = cluster.clients, control = join(cluster.folder, "verified");
  await run(script("coherence.ts", a, b, "4"), { timeoutMs: programMs });
  Deno.mkdirSync(control);
  const verified = run(script("verified_work.ts", a, b, control, "7"), { timeoutMs: programMs });
  await run(
    shell(`
      dd if=/dev/urandom of="$1/large" bs=1M count=48 2>&1
      dd if="$1/large" of="$2/direct" bs=1M iflag=direct oflag=direct 2>&1
      cmp "$1/large" "$2/direct"; cmp "$2/large" "$1/direct"; rm "$1/large" "$2/direct"`).concat("large", a, b),
    { timeoutMs: programMs },
  );
  await sleep(workMs);
  Deno.writeTextFileSync(join(control, "stop"), "");
  assert(JSON.parse(await verified).operations > 0);
}

/** Appends of both clients all arrive, and locks exclude. */
async function contention(cluster: Cluster): Promise<void> {
  const [{ path: a }, { path: b }] = cluster.clients, ids = [1, 2, 3, 4];
  const contend = (verb: string, name: string, each: number) =>
    Promise.all(ids.map((id) => {
      const target = join(id % 2 === 0 ? a : b, name);
      return run(script("contender.ts", verb, target, String(id), String(each)), { timeoutMs: programMs });
    }));
  await contend("append", "log", appendsEach);
  const text = await Deno.readTextFile(join(a, "log"));
  assertEquals(text.length, ids.length * appendsEach * recordBytes);
  const expected = ids.flatMap((id) => Array.from({ length: appendsEach }, (_, n) => record(id, n)));
  assertEquals(new Set(text.trim().split("\n")), new Set(expected.map((one) => new TextDecoder().decode(one).trim())));
  for (const kind of ["flock", "fcntl"]) {
    await Deno.writeTextFile(join(a, kind), "0");
    await contend(kind, kind, countsEach);
    assertEquals(Number(await Deno.readTextFile(join(b, kind))), ids.length * countsEach);
  }
}

/** The kernel tells nobody of a signal that comes before the daemon has the request: here, the end of flock's patience. */
async function signalWhileStopped(client: Client): Promise<void> {
  const text = ': > "$1/lock"; exec 8<"$1/lock" 9<"$1/lock"; flock 8; echo held; read; flock -w 0.3 9 || echo $?';
  const [program, ...args] = shell(text).concat("signal", client.path);
  const child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped" }).spawn();
  const said = child.stdout.pipeThrough(new TextDecoderStream()).getReader(), asks = child.stdin.getWriter();
  assertEquals((await said.read()).value, "held\n");
  client.daemon.signal("SIGSTOP");
  await asks.write(new TextEncoder().encode("\n"));
  await sleep(1_000);
  client.daemon.signal("SIGCONT");
  const late = sleep(deadMs).then(() => ({ value: "waits for ever" }));
  const { value } = await Promise.race([said.read(), late]);
  // Whatever came of it, nothing may wait for the lock any more.
  if (value !== "1\n") await client.daemon.kill9();
  assertEquals(value, "1\n");
  await said.cancel();
  await asks.close();
  await child.status;
}

/** Programs that use a mount in all ways that wait; each ends when the mount does. */
function load(path: string): Promise<unknown>[] {
  const programs = [
    "while dd if=/dev/zero of=w bs=1M count=20 2>/dev/null; do :; done",
    "while cp w /dev/null 2>/dev/null; do :; done",
    "n=0; while (: > f$n) 2>/dev/null && mv f$n g 2>/dev/null; do n=$((n + 1)); done",
    "while stat . && ls -l; do :; done >/dev/null 2>&1",
    ...Array(3).fill("exec 9<held; flock 9 && while stat held; do sleep 0.1; done >/dev/null 2>&1"),
  ];
  Deno.writeTextFileSync(join(path, "held"), "");
  Deno.writeTextFileSync(join(path, "w"), "");
  // Their folder stays the mount when another one comes to its place.
  return programs.map((text) =>
    attempt(shell(`set +e; cd "$1"; ${text}`).concat("load", path), { timeoutMs: programMs })
  );
}

async function ended(programs: Promise<unknown>[], what: string): Promise<void> {
  const late = sleep(deadMs).then(() => "late");
  assertEquals(await Promise.race([Promise.all(programs).then(() => "ended"), late]), "ended", what);
}

async function killed(cluster: Cluster, client: Client): Promise<void> {
  const programs = load(client.path);
  await sleep(1_500);
  await client.daemon.kill9();
  await ended(programs, "a program hangs on a mount whose daemon was killed");
  const { stderr } = await attempt(["ls", client.path], { timeoutMs: deadMs });
  assert(stderr.includes("endpoint is not connected"), stderr);
  await client.daemon.start();
  await cluster.mounted(client);
}

/** A busy mount stays; a lazy unmount leaves the programs what they have open. */
async function unmounted(cluster: Cluster, client: Client): Promise<void> {
  const steps = shell(`cd "$1"; exec 9>open; while [ -e "$2" ]; do date >&9; stat open; sleep 0.01; done >/dev/null`);
  const flag = join(cluster.folder, "works");
  Deno.writeTextFileSync(flag, "");
  const program = run(steps.concat("works", client.path, flag), { timeoutMs: programMs });
  await sleep(500);
  const busy = await assertRejects(() => cluster.clientCli(client, "umount", client.path), Error);
  assertStringIncludes(busy.message, "EBUSY");
  await cluster.clientCli(client, "umount", "--lazy", client.path);
  assertEquals(isMountpoint(client.path), false);
  await sleep(500);
  Deno.removeSync(flag);
  await program;
  await cluster.mount(client, client.path, volume);
}

/** The daemon ends although programs are at work, and they hear of it. */
async function stopped(cluster: Cluster, client: Client): Promise<void> {
  const programs = load(client.path);
  await sleep(1_500);
  assertEquals(await client.daemon.stop(), undefined);
  await ended(programs, "a program hangs on a mount whose daemon was stopped");
  assertEquals(isMountpoint(client.path), false);
  await client.daemon.start();
  await cluster.mounted(client);
}

needyTest("mounts over io_uring work, and no program hangs when they end", uringNeed(), async (t) => {
  await withCluster({ transport: "uring" }, async (cluster) => {
    const [first, second] = cluster.clients;
    const steps: [string, () => Promise<void>][] = [
      ["files, folders, names, mappings and large contents of two clients", () => ordinaryWork(cluster)],
      ["appends and locks of two clients", () => contention(cluster)],
      ["a signal that comes before the daemon has the request", () => signalWhileStopped(first)],
      ["an unmount under load", () => unmounted(cluster, first)],
      ["kill -9 of the daemon under load", () => killed(cluster, first)],
      ["SIGTERM of the daemon under load", () => stopped(cluster, second)],
      ["the list of mounts tells the transport", async () => {
        for (const client of cluster.clients) {
          assertStringIncludes(await cluster.clientCli(client, "list-mountpoints"), "uring");
        }
      }],
    ];
    for (const [name, fn] of steps) assert(await t.step(name, fn), name);
    await cluster.check();
    assertEquals(cluster.logged("error"), []);
  });
});
