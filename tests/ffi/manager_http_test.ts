/**
 * The manager's service over real sockets on 127.0.0.1, by its client and by plain fetch.
 *
 * @module
 */

import { assert, assertEquals, assertGreater, assertLess, assertRejects, assertStringIncludes } from "@std/assert";
import { Manager, type StateStore } from "../../core/manager/manager.ts";
import { decodeMap } from "../../core/placement/map.ts";
import type { Logger } from "../../ffi/log.ts";
import { encodeCbor, managerToken, requestBytesMax } from "../../ffi/manager_api.ts";
import { ManagerClient, ManagerFailure } from "../../ffi/manager_client.ts";
import { type ManagerService, startManagerService } from "../../ffi/manager_http.ts";
import { LmdbStateStore } from "../../ffi/manager_store.ts";

class MapStore extends Map<string, Uint8Array> implements StateStore {
  broken = false;
  put(key: string, value: Uint8Array): void {
    this.set(key, value);
  }
  remove(key: string): void {
    this.delete(key);
  }
  commit(): void {
    if (this.broken) throw new Error("disk full");
  }
}

interface Setting {
  client: ManagerClient;
  service: ManagerService;
  store: MapStore;
  url: string;
  lines: string[];
}

async function withService(options: { secret?: string; clientSecret?: string }, body: (s: Setting) => Promise<void>) {
  const lines: string[] = [];
  const logger: Logger = {
    options: { level: "trace" },
    enabled: () => true,
    log: (level, component, message) => lines.push(`${level} ${component} ${message}`),
  };
  const store = new MapStore();
  const manager = Manager.open(store, {
    newCluster: { clusterId: "c-1", shards: 16, replicas: 1 },
    expected: {},
    serverTimeoutMs: 5000,
  }, performance.now());
  assert(manager instanceof Manager);
  const { secret, clientSecret = secret } = options;
  const service = startManagerService({
    manager,
    hostname: "127.0.0.1",
    port: 0,
    secret,
    heartbeatIntervalMs: 500,
    version: "1.2.3",
    logger,
  });
  const address = `127.0.0.1:${service.port}`;
  const client = new ManagerClient({ address, secret: clientSecret, logger });
  try {
    await body({ client, service, store, url: `http://${address}`, lines });
  } finally {
    client.close();
    await service.stop();
  }
}

const registration = {
  identity: "an-identity-of-a-server",
  clusterId: "",
  address: "127.0.0.1:9999",
  stores: 1,
  weight: 1,
  capacityBytes: 1000,
};

async function failureOf(promise: Promise<unknown>): Promise<ManagerFailure> {
  return await assertRejects(() => promise, ManagerFailure);
}

Deno.test("ManagerClient registers, beats, creates, lists and deletes", async () => {
  await withService({}, async ({ client }) => {
    const registered = await client.register(registration);
    assertEquals([registered.serverId, registered.heartbeatIntervalMs], [1, 500]);
    assertEquals(decodeMap(Uint8Array.from(registered.map)).servers.length, 1);
    const { session } = await client.openSession({ host: "h", pid: 7 });
    const volume = await client.createVolume({ name: "v", sizeBytes: 2 ** 40, servers: 1 });
    assertEquals([volume.id, volume.sizeBytes], [1, 2 ** 40]);
    await client.clientHeartbeat({ session, mounts: [{ volume: 1, path: "/mnt" }] });
    assertEquals((await client.listVolumes()).map((one) => one.mounts), [1]);
    assertEquals((await failureOf(client.deleteVolume("v", false))).code, "busy");
    await client.closeSession(session);
    assertEquals((await client.deleteVolume("v", false)).state, "deleting");
    const swept = { capacityBytes: 1, usedBytes: 0, requestsPerSecond: 0.5, hostLoad: 0, swept: [1], volumes: [] };
    await client.serverHeartbeat({ session: registered.session, ...swept });
    assertEquals(await client.listVolumes(), []);
  });
});

Deno.test("ManagerClient.mapAfter() is answered by the change it waits for", async () => {
  await withService({}, async ({ client }) => {
    const { epoch } = await client.status();
    assertEquals(await client.mapAfter(epoch), undefined);
    assertEquals(await client.mapAfter(epoch, 50), undefined);
    const start = performance.now();
    const waiting = client.mapAfter(epoch, 20_000);
    setTimeout(() => client.openSession({ host: "h", pid: 1 }), 50);
    const map = decodeMap((await waiting)!);
    assertGreater(map.epoch, epoch);
    assertLess(performance.now() - start, 5000);
  });
});

Deno.test("the service refuses who has not the secret, and answers /healthz to all", async () => {
  await withService({ secret: "s3cret", clientSecret: "wrong" }, async ({ client, url }) => {
    assertEquals((await failureOf(client.status())).code, "unauthorized");
    for (const path of ["/", "/metrics", "/v1/status"]) {
      const response = await fetch(url + path);
      await response.body?.cancel();
      assertEquals(response.status, 401, path);
    }
    assertEquals(await (await fetch(`${url}/healthz`)).text(), "ok\n");
    const authorization = `Basic ${btoa(`anyone:${managerToken("s3cret")}`)}`;
    assertStringIncludes(await (await fetch(url, { headers: { authorization } })).text(), "<title>sealfs</title>");
  });
  await withService({ secret: "s3cret" }, async ({ client }) => {
    assertEquals((await client.status()).clusterId, "c-1");
  });
});

Deno.test("the service speaks JSON, shows metrics, and says what is wrong with a request", async () => {
  await withService({}, async ({ url, client }) => {
    await client.register(registration);
    const post = (body: BodyInit, type: string, origin?: string) => {
      const headers: Record<string, string> = { "content-type": type };
      if (origin !== undefined) headers.origin = origin;
      return fetch(`${url}/v1/volumes`, { method: "POST", headers, body });
    };
    const made = await post('{"name": "j", "sizeBytes": 5, "servers": 1}', "application/json");
    assertEquals([made.status, (await made.json()).name], [200, "j"]);
    for (const body of ["", "[]", "nonsense", "null"]) {
      const wrong = await post(body, "application/json");
      assertEquals([wrong.status, (await wrong.json()).error], [400, "malformed"], body);
    }
    const cbor = await post(new Uint8Array([0xff, 0xff]), "application/cbor");
    assertEquals((await cbor.json()).error, "malformed");
    assertEquals((await (await post("{}", "text/plain")).json()).error, "malformed");
    assertEquals((await (await post("{}", "application/json", "http://evil.example")).json()).error, "unauthorized");
    const large = await post(new Uint8Array(requestBytesMax + 1), "application/json");
    assertEquals((await large.json()).error, "tooLarge");
    assertEquals((await (await fetch(`${url}/v1/nothing`)).json()).error, "noSuchPath");
    const metrics = await (await fetch(`${url}/metrics`)).text();
    assertStringIncludes(metrics, 'sealfs_servers{state="up"} 1\n');
    assertStringIncludes(metrics, 'sealfs_manager_requests_total{method="POST",path="/v1/volumes",code="200"} 1\n');
    const map = await (await fetch(`${url}/v1/map`)).json();
    assertEquals(map.map.volumes[0].name, "j");
  });
});

Deno.test("a body of extra fields and wrong types is refused by the manager, not by accident", async () => {
  await withService({}, async ({ url }) => {
    const bodies = [{}, { identity: 5 }, { ...registration, address: ["x"] }, { ...registration, weight: "1" }];
    for (const body of bodies) {
      const headers = { "content-type": "application/cbor" };
      const reply = await fetch(`${url}/v1/register`, { method: "POST", headers, body: encodeCbor(body) });
      assertEquals([reply.status, (await reply.json()).error], [400, "invalid"]);
    }
  });
});

Deno.test("ManagerClient.patiently() waits for a manager that comes later, and says so once", async () => {
  await withService({}, async ({ service, lines, client: _ }) => {
    const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const address = `127.0.0.1:${probe.addr.port}`;
    probe.close();
    const logger: Logger = {
      options: { level: "trace" },
      enabled: () => true,
      log: (l, _c, m) => lines.push(`${l} ${m}`),
    };
    const client = new ManagerClient({ address, logger });
    const failure = await failureOf(client.status());
    assertEquals(failure.code, "unreachable");
    assertStringIncludes(failure.message, `${address}: connection refused`);
    const late = setTimeout(() => {
      const forward = Deno.serve({ hostname: "127.0.0.1", port: probe.addr.port, onListen: () => {} }, (request) => {
        return fetch(`http://127.0.0.1:${service.port}${new URL(request.url).pathname}`, { headers: request.headers });
      });
      stopForward = () => forward.shutdown();
    }, 300);
    let stopForward = () => Promise.resolve();
    const status = await client.patiently(() => client.status(), AbortSignal.timeout(10_000));
    assertEquals(status.clusterId, "c-1");
    assertEquals(lines.filter((line) => line.startsWith("warn no answer")).length, 1);
    assertEquals(lines.filter((line) => line.includes("answers")).length, 1);
    clearTimeout(late);
    client.close();
    await stopForward();
  });
});

Deno.test("ManagerClient names what is no manager", async () => {
  const other = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () => new Response("hello"));
  const logger: Logger = { options: { level: "error" }, enabled: () => false, log: () => {} };
  const client = new ManagerClient({ address: `127.0.0.1:${other.addr.port}`, logger });
  const failure = await failureOf(client.status());
  assertEquals(failure.code, "protocol");
  assertStringIncludes(failure.message, "is no sealfs manager");
  client.close();
  await other.shutdown();
});

Deno.test("the service ends with a reason when the state cannot be stored, and claims nothing that was not", async () => {
  await withService({}, async ({ client, service, store, lines }) => {
    store.broken = true;
    assertEquals((await failureOf(client.openSession({ host: "h", pid: 1 }))).code, "stopping");
    assertStringIncludes((await service.finished)!, "disk full");
    assert(lines.some((line) => line.startsWith("error manager cannot keep")));
    assertEquals((await failureOf(client.status())).code, "stopping");
  });
});

Deno.test("ManagerService.stop() answers open questions for a map at once", async () => {
  await withService({}, async ({ client, service }) => {
    const { epoch } = await client.status();
    const waiting = client.mapAfter(epoch, 20_000);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const start = performance.now();
    const [map] = await Promise.all([waiting, service.stop()]);
    assertEquals(map, undefined);
    assertLess(performance.now() - start, 1500);
    assertEquals(await service.finished, undefined);
  });
});

Deno.test("LmdbStateStore keeps what was committed, and only one process has it", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const store = await LmdbStateStore.open(folder);
    assert(store instanceof LmdbStateStore);
    store.put("a", new Uint8Array([1, 2]));
    store.put("b", new Uint8Array([3]));
    store.commit();
    store.put("a", new Uint8Array([9]));
    assertEquals(store.get("a"), new Uint8Array([9]));
    store.remove("b");
    assertEquals(store.get("b"), undefined);
    assertStringIncludes(String(await LmdbStateStore.open(folder)), "another manager");
    await store.close();
    const again = await LmdbStateStore.open(folder);
    assert(again instanceof LmdbStateStore);
    assertEquals(again.get("a"), new Uint8Array([1, 2]));
    assertEquals(again.get("b"), new Uint8Array([3]));
    await again.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
