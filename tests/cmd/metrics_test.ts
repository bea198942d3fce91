/** `--metrics-address` of processes that wait for their manager, and of ones that cannot have it. */

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Child } from "../../cmd/child.ts";
import { freePort, sealfs, startManager, withFolder } from "./processes.ts";

Deno.test("server and client daemon answer /healthz with what they wait for, and then with ok", async () => {
  await withFolder(async (folder) => {
    const manager = `127.0.0.1:${freePort()}`, [one, two] = [`127.0.0.1:${freePort()}`, `127.0.0.1:${freePort()}`];
    const paths = [`--database-path=${folder}/d`, `--storage-path=${folder}/s`];
    const serverFlags = [`--server-address=127.0.0.1:${freePort()}`, `--metrics-address=${one}`, ...paths];
    await using server = new Child(["server", `--manager-address=${manager}`, ...serverFlags]);
    const clientFlags = [`--socket-path=${folder}/c.sock`, `--state-path=${folder}`, `--metrics-address=${two}`];
    await using client = new Child(["client", "daemon", `--manager-address=${manager}`, ...clientFlags]);
    await server.says(/waiting for it/);
    await client.says(/waiting for it/);
    const health = async (address: string) => await (await fetch(`http://${address}/healthz`)).text();
    assertEquals(await health(one), `not registered yet with the manager at ${manager}\n`);
    assertEquals(await health(two), `no session yet with the manager at ${manager}\n`);
    assertMatch(await (await fetch(`http://${one}/metrics`)).text(), /^sealfs_server_id 0$/m);
    await using _ = new Child(["manager", `--address=${manager}`, `--data-path=${folder}/m`]);
    await server.says(/ready at/);
    for (let tries = 0; tries < 100 && await health(two) !== "ok\n"; tries++) {
      await new Promise((done) => setTimeout(done, 100));
    }
    assertEquals([await health(one), await health(two)], ["ok\n", "ok\n"]);
    assertMatch(await (await fetch(`http://${one}/metrics`)).text(), /^sealfs_server_id 1$/m);
  });
});

Deno.test("the manager serves metrics on a second address, and says when it cannot", async () => {
  await withFolder(async (folder) => {
    const metrics = `127.0.0.1:${freePort()}`;
    const { manager, address } = await startManager(`${folder}/m`, [`--metrics-address=${metrics}`]);
    await using _ = manager;
    for (const place of [address, metrics]) {
      assertMatch(await (await fetch(`http://${place}/metrics`)).text(), /^sealfs_build_info\{role="manager",.*\} 1$/m);
    }
    assertEquals((await fetch(`http://${metrics}/v1/status`)).status, 404);
    const flags = ["--address=127.0.0.1:0", `--data-path=${folder}/n`, `--metrics-address=${metrics}`];
    const { code, stderr } = await sealfs(["manager", ...flags]);
    assertEquals(code, 1);
    assertStringIncludes(stderr, `sealfs manager: cannot serve metrics on ${metrics}: `);
    const paths = ["--database-path", `${folder}/d`, "--storage-path", `${folder}/s`];
    const server = await sealfs(["server", `--manager-address=${address}`, ...paths, `--metrics-address=${metrics}`]);
    assertEquals(server.code, 1);
    assertStringIncludes(server.stderr, `sealfs server: cannot serve metrics on ${metrics}: `);
  });
});
