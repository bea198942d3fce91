/** `sealfs manager` and the admin verbs, as processes. */

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { ClusterStatus } from "../../core/manager/manager.ts";
import { encodeCbor } from "../../ffi/manager_api.ts";
import { Child } from "../../cmd/child.ts";
import { freePort, sealfs, startManager, withFolder } from "./processes.ts";

async function register(address: string, n: number): Promise<number> {
  const body = encodeCbor({
    identity: `identity-of-server-${n}`,
    clusterId: "",
    address: `127.0.0.1:${9000 + n}`,
    stores: 1,
    weight: 1,
    capacityBytes: 1e9,
  });
  const headers = { "content-type": "application/cbor" };
  const reply = await fetch(`http://${address}/v1/register`, { method: "POST", headers, body });
  const { session } = await reply.json();
  return session;
}

Deno.test("sealfs manager keeps volumes over SIGTERM and kill -9, and stops with exit code 0", async () => {
  await withFolder(async (folder) => {
    const data = `${folder}/data`;
    const env = { SEALFS_MANAGER_ADDRESS: "" };
    let { manager, address } = await startManager(data, ["--shards=32"]);
    try {
      env.SEALFS_MANAGER_ADDRESS = address;
      await register(address, 1);
      const made = await sealfs(["client", "create", "test1", "100", "--servers=1"], env);
      assertEquals(made, { code: 0, stdout: "volume test1 of 100 MiB is ready to be mounted\n", stderr: "" });
      assertEquals(await manager.end(), 0);
      ({ manager, address } = await startManager(data));
      env.SEALFS_MANAGER_ADDRESS = address;
      assertEquals((await sealfs(["client", "create", "other", "1GiB"], env)).code, 0);
      await manager.end("SIGKILL");
      ({ manager, address } = await startManager(data, ["--shards=32"]));
      const listed = await sealfs(["client", "--manager-address", address, "list", "--json"]);
      const volumes = JSON.parse(listed.stdout);
      assertEquals(volumes.map((one: { name: string; sizeBytes: number }) => [one.name, one.sizeBytes]), [
        ["test1", 100 * 2 ** 20],
        ["other", 2 ** 30],
      ]);
    } finally {
      await manager.end("SIGKILL");
    }
  });
});

Deno.test("sealfs manager refuses settings that contradict its state, replicas it cannot keep, and a second manager", async () => {
  await withFolder(async (folder) => {
    const { manager, address } = await startManager(`${folder}/data`, ["--shards=32"]);
    await using _ = manager;
    const second = await sealfs(["manager", `--data-path=${folder}/data`, "--address=127.0.0.1:0"]);
    assertEquals(second.code, 1);
    assertStringIncludes(second.stderr, "another manager uses the data path");
    const taken = await sealfs(["manager", `--data-path=${folder}/other`, `--address=${address}`]);
    assertEquals(taken.code, 1);
    assertStringIncludes(taken.stderr, `cannot listen on ${address}`);
    await manager.end();
    await Deno.writeTextFile(`${folder}/manager.yaml`, `data_path: data\nshards: 64\n`);
    const wrong = await sealfs(["manager"], { SEALFS_CONFIG_PATH: folder });
    assertEquals(wrong.code, 1);
    assertMatch(wrong.stderr, /^sealfs manager: .*shards: 64 contradicts .* shards: 32; set it to 32/);
    const many = await sealfs(["manager", `--data-path=${folder}/new`, "--replicas=2"]);
    assertEquals(many.code, 1);
    assertStringIncludes(many.stderr, "replicas: 2 is not supported by this version");
  });
});

Deno.test("sealfs client status shows a silent server as down within the timeout", async () => {
  await withFolder(async (folder) => {
    const timing = ["--heartbeat-interval-ms=100", "--server-timeout-ms=500"];
    const { manager, address } = await startManager(folder, timing);
    await using _ = manager;
    await register(address, 1);
    const client = ["client", "--manager-address", address];
    const status = async () => JSON.parse((await sealfs([...client, "status", "--json"])).stdout) as ClusterStatus;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assertEquals((await status()).servers.map((server) => server.state), ["down"]);
    const text = (await sealfs([...client, "status"])).stdout;
    assertMatch(text, /1 +127\.0\.0\.1:9001 +down/);
  });
});

Deno.test("admin verbs exit 1 with one line for what fails and 2 for wrong usage", async () => {
  await withFolder(async (folder) => {
    const secret = `${folder}/secret`;
    await Deno.writeTextFile(secret, "a secret\n", { mode: 0o600 });
    const { manager, address } = await startManager(`${folder}/data`, [`--secret-file=${secret}`]);
    await using _ = manager;
    const client = ["client", "--manager-address", address];
    assertEquals(await sealfs([...client, "list"]), {
      code: 1,
      stdout: "",
      stderr: "sealfs client list: wrong or missing secret: give the cluster's --secret-file\n",
    });
    const env = { SEALFS_SECRET_FILE: secret };
    assertEquals((await sealfs([...client, "list"], env)).code, 0);
    const none = await sealfs([...client, "delete", "nothing"], env);
    assertEquals([none.code, none.stderr], [1, "sealfs client delete: no volume nothing\n"]);
    const early = await sealfs([...client, "--io-timeout=1", "create", "v", "5"], env);
    assertEquals(early.code, 1);
    assertStringIncludes(early.stderr, "sealfs client create: no server has registered yet\n");
    for (
      const args of [["create", "v"], ["create", "a/b", "5"], ["create", "v", "0"], ["create", "v", "5x"], ["lst"]]
    ) {
      const wrong = await sealfs([...client, ...args], env);
      assertEquals([wrong.code, wrong.stderr.split("\n").length], [2, 2], args.join(" "));
    }
  });
});

Deno.test("an admin verb waits a few seconds for a manager that is just being started", async () => {
  await withFolder(async (folder) => {
    const address = `127.0.0.1:${freePort()}`;
    const waiting = sealfs(["client", "--manager-address", address, "list", "--json"]);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await using _ = new Child(["manager", `--address=${address}`, `--data-path=${folder}`]);
    const { code, stdout } = await waiting;
    assertEquals([code, JSON.parse(stdout)], [0, []]);
  });
});
