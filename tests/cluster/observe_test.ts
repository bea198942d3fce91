/** Metrics and health of every process, and what `sealfs client stats` and `profile` tell of a mount at work. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { buildExecutable } from "../../cmd/build.ts";
import type { MountRates } from "../../cmd/client/mount_rates.ts";
import { attempt, type Cluster, run, shell, sleep, withCluster } from "./harness.ts";
import { needs, needyTest } from "./needs.ts";

const files = 200;
/** How long a client may take to tell that its manager is silent. */
const healthMs = 20_000;
/** Creates, reads and removes small files, and writes and reads a large one. */
const work = `
  mkdir -p "$1/small"; cd "$1/small"
  for i in $(seq ${files}); do echo x > "file $i"; done
  cat * > /dev/null; rm *
  dd if=/dev/zero of=../large bs=1M count=8 status=none; dd if=../large of=/dev/null bs=1M status=none iflag=direct
`;

async function page(address: string, path: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://${address}${path}`, { signal: AbortSignal.timeout(10_000) });
  return { status: response.status, text: await response.text() };
}

/** The sum of the samples of a metric whose labels hold `labels`. */
function total(text: string, name: string, labels = ""): number {
  const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  const chosen = lines.filter((line) => line.includes(labels));
  assert(chosen.length > 0, `no ${name}{${labels}} in\n${text}`);
  return chosen.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

/** Every line is a comment or a sample, and no metric is described twice. */
function checkFormat(text: string): void {
  const described = new Set<string>();
  for (const line of text.trimEnd().split("\n")) {
    if (line.startsWith("# TYPE ")) {
      const name = line.split(" ")[2];
      assert(!described.has(name), `${name} twice`);
      described.add(name);
    } else if (!line.startsWith("# HELP ")) {
      assertMatch(line, /^[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+$/);
    }
  }
}

async function daemonVerb(cluster: Cluster, ...args: string[]) {
  return await attempt([await buildExecutable(), "client", ...cluster.clients[0].flags, ...args]);
}

needyTest("metrics, stats and profile tell what a cluster does", needs("mount"), async (t) => {
  await withCluster({ clients: 1, metrics: true }, async (cluster) => {
    const { path } = cluster.clients[0], { metrics } = cluster;
    let rounds = 0, benched = 0;

    await t.step("every process says that it is well", async () => {
      for (const [name, address] of Object.entries(metrics)) {
        assertEquals(await page(address, "/healthz"), { status: 200, text: "ok\n" }, name);
      }
      assertEquals(Object.keys(metrics), ["manager", "server1", "server2", "server3", "client1"]);
    });

    await t.step("profile and stats tell operations and round trips", async () => {
      const watching = Promise.all([
        daemonVerb(cluster, "profile", path, "--seconds=4", "--json"),
        daemonVerb(cluster, "stats", path, "--interval=2", "--count=2", "--json"),
      ]);
      let watched = false;
      watching.finally(() => watched = true);
      for (; !watched; rounds++) await run(shell(work).concat("work", path));
      const [profiled, shown] = await watching;
      const profile: MountRates = JSON.parse(profiled.stdout);
      const find = (name: string) => profile.operations.find(({ operation }) => operation === name)!;
      assert(find("create").count > 0 && find("create").count <= files * rounds + 1);
      // One request each, and now and then one more: a directory's first, or its listing.
      const { count, roundTrips } = find("unlink");
      assert(roundTrips >= count - 1 && roundTrips <= count * 1.1 + 1, `${roundTrips} trips of ${count}`);
      assert(find("write").bytes >= 2 && find("read").bytes >= 2);
      for (const { operation, p50Ms, p99Ms, maxMs, totalMs, count } of profile.operations) {
        assert(p50Ms <= p99Ms && p99Ms <= maxMs && maxMs <= totalMs + 1e-6 || count === 0, operation);
      }
      assert(profile.names.hits > 0 && profile.roundTrips > 0);
      assert(profile.reactors.length === 1 && profile.reactors[0].cpu > 0 && profile.reactors[0].cpu < 1.1);
      const lines: MountRates[] = shown.stdout.trim().split("\n").map((line) => JSON.parse(line));
      assertEquals(lines.map(({ mountpoint }) => mountpoint), [path, path]);
      assert(lines.every(({ operations }) => operations.length > 0));
      const people = await daemonVerb(cluster, "stats", "--count=1", "--interval=200ms");
      assertEquals(people.code, 0);
      assertStringIncludes(people.stdout, `${path}, volume test1\n`);
      assertMatch(people.stdout, /\nreactor 0 +\d+\.\d % CPU/);
    });

    await t.step("what is no mount of the daemon is an error", async () => {
      for (const verb of ["stats", "profile"]) {
        const { code, stderr } = await daemonVerb(cluster, verb, "/nowhere");
        assertEquals(code, 1);
        assertStringIncludes(stderr, `sealfs client ${verb}: /nowhere is not mounted by the daemon at `);
      }
    });

    await t.step("bench measures the mount and leaves nothing", async () => {
      const before = [...Deno.readDirSync(path)].length;
      const small = ["--files=20", "--size=1MiB", "--seconds=20"];
      const { code, stdout, stderr } = await daemonVerb(cluster, "bench", path, ...small, "--json");
      assertEquals([code, stderr], [0, ""]);
      const { phases } = JSON.parse(stdout);
      assertEquals(phases.length, 16);
      for (const { phase, operations, seconds } of phases) assert(operations > 0 && seconds < 20, phase);
      assertEquals([...Deno.readDirSync(path)].length, before);
      benched = 2 * 2 * 20 + 2;
    });

    await t.step("metrics agree with what was done", async () => {
      const pages: Record<string, string> = {};
      for (const [name, address] of Object.entries(metrics)) {
        const { status, text } = await page(address, "/metrics");
        assertEquals(status, 200, name);
        checkFormat(text);
        pages[name] = text;
      }
      const client = pages.client1;
      assertEquals(total(client, "sealfs_mount_up"), 1);
      assertEquals(
        total(client, "sealfs_fuse_request_seconds_count", 'operation="create"'),
        files * rounds + 1 + benched,
      );
      assertEquals(
        total(client, "sealfs_fuse_request_seconds_bucket", 'operation="create",le="+Inf"'),
        files * rounds + 1 + benched,
      );
      const benchedBytes = 2 * (2 * 20 * 4096 + (2 << 20));
      assertEquals(total(client, "sealfs_written_bytes_total"), rounds * (files * 2 + (8 << 20)) + benchedBytes);
      assert(total(client, "sealfs_cache_questions_total", 'outcome="hit"') > 0);
      const servers = [pages.server1, pages.server2, pages.server3];
      const all = (name: string, labels = "") => servers.reduce((sum, text) => sum + total(text, name, labels), 0);
      assertEquals(all("sealfs_sessions"), 3);
      assert(all("sealfs_log_writes_total") > files && all("sealfs_log_written_bytes_total") > files * 100);
      assert(all("sealfs_checkpoint_seconds_count") >= 3 && all("sealfs_leases_granted_total") > 0);
      assert(all("sealfs_data_used_bytes") >= 8 << 20);
      assert(all("sealfs_reactor_cpu_seconds_total") > 0);
      const creates = servers.filter((text) => text.includes('message="CREATE"'))
        .reduce((sum, text) => sum + total(text, "sealfs_request_seconds_count", 'message="CREATE"'), 0);
      assertEquals(creates, files * rounds + 1 + benched);
      assertEquals(total(pages.manager, "sealfs_servers", 'state="up"'), 3);
      assert(total(pages.manager, "sealfs_manager_heartbeats_total", 'from="servers"') >= 3);
      assert(total(pages.manager, "sealfs_server_heartbeat_age_seconds") < 9);
    });

    await t.step("a client whose manager is silent does not say that it is well", async () => {
      await cluster.manager.kill9();
      const limit = performance.now() + healthMs;
      let health = await page(metrics.client1, "/healthz");
      for (; health.status === 200; health = await page(metrics.client1, "/healthz")) {
        assert(performance.now() < limit, "it says that it is well");
        await sleep(200);
      }
      assertEquals(health.status, 503);
      assertMatch(health.text, /no answer from the manager for \d+ s/);
      await cluster.manager.start();
    });
  });
});
