/** `/metrics` and `/healthz` on an address of their own. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { managerToken } from "../../../ffi/manager_api.ts";
import { type MetricsService, serveMetrics } from "../../../ffi/metrics/http.ts";

const logger = { options: { level: "error" as const }, enabled: () => false, log: () => {} };

async function ask(service: MetricsService, path: string, init?: RequestInit): Promise<[number, string]> {
  const response = await fetch(`http://${service.address}${path}`, init);
  return [response.status, await response.text()];
}

Deno.test("serveMetrics() answers metrics and health, and nothing else", async () => {
  let problems: string[] = [];
  const options = { metrics: () => "sealfs_x 1\n", problems: () => problems, logger };
  const service = serveMetrics({ ...options, address: "127.0.0.1:0" });
  assert(typeof service === "object");
  try {
    const response = await fetch(`http://${service.address}/metrics`);
    assertEquals(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assertEquals(await response.text(), "sealfs_x 1\n");
    assertEquals(await ask(service, "/healthz"), [200, "ok\n"]);
    problems = ["store 1 is down", "store 2 is down"];
    assertEquals(await ask(service, "/healthz"), [503, "store 1 is down\nstore 2 is down\n"]);
    assertEquals((await ask(service, "/"))[0], 404);
    assertEquals((await ask(service, "/metrics", { method: "POST", body: "x" }))[0], 405);
    const second = serveMetrics({ ...options, address: service.address });
    assert(typeof second === "string");
    assertStringIncludes(second, `cannot serve metrics on ${service.address}: `);
  } finally {
    await service.close();
  }
  assertStringIncludes(String(serveMetrics({ ...options, address: "nonsense" })), "is not HOST:PORT");
});

Deno.test("serveMetrics() keeps metrics, but not health, from who has not the secret", async () => {
  const options = { metrics: () => "sealfs_x 1\n", problems: () => [], logger };
  const service = serveMetrics({ ...options, address: "127.0.0.1:0", secret: "s3cret" });
  assert(typeof service === "object");
  try {
    assertEquals((await ask(service, "/metrics"))[0], 401);
    assertEquals((await ask(service, "/metrics", { headers: { authorization: "Bearer wrong" } }))[0], 401);
    assertEquals(await ask(service, "/healthz"), [200, "ok\n"]);
    const headers = { authorization: `Bearer ${managerToken("s3cret")}` };
    assertEquals(await ask(service, "/metrics", { headers }), [200, "sealfs_x 1\n"]);
  } finally {
    await service.close();
  }
});
