/**
 * `/metrics` and `/healthz` of a process that has no other HTTP service, on an address of their own. With a secret
 * /metrics needs the token of the manager's API, as Bearer or as the password of Basic; /healthz never does.
 *
 * Health is 200 and "ok", or 503 and a line for each thing that does not work.
 *
 * @module
 */

import { parseHostPort } from "../address.ts";
import type { Logger } from "../log.ts";
import { tokenCheck } from "../manager_api.ts";
import { metricsType } from "./text.ts";

/** Time that open requests get when the service stops. */
const stopTimeoutMs = 1_000;

/** What is served. */
export interface MetricsServiceOptions {
  /** `host:port`; port 0 lets the system choose. */
  address: string;
  secret?: string;
  /** The page of /metrics. */
  metrics: () => string;
  /** What does not work, a line each. */
  problems: () => string[];
  logger: Logger;
}

/** A service that runs. */
export interface MetricsService {
  /** `host:port` where it listens. */
  readonly address: string;
  /** Takes nothing new and ends. */
  close(): Promise<void>;
}

/** Serves until it is closed. A text is why it cannot. */
export function serveMetrics(options: MetricsServiceOptions): MetricsService | string {
  const { address, logger } = options, place = parseHostPort(address);
  if (place === null) return `the address ${address} of the metrics is not HOST:PORT`;
  const onError = (error: unknown) => {
    logger.log("error", "metrics", error instanceof Error ? error.stack ?? error.message : String(error));
    return new Response("internal error\n", { status: 500 });
  };
  const authorized = tokenCheck(options.secret);
  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = Deno.serve({ hostname: place.host, port: place.port, onListen: () => {}, onError }, (request) => {
      return answer(request, options, authorized);
    });
  } catch (error) {
    return `cannot serve metrics on ${address}: ${error instanceof Error ? error.message : error}; ` +
      "give another --metrics-address";
  }
  const { port } = server.addr;
  return {
    address: `${place.host.includes(":") ? `[${place.host}]` : place.host}:${port}`,
    close: async () => {
      const late = Promise.withResolvers<void>();
      const timer = setTimeout(late.resolve, stopTimeoutMs);
      await Promise.race([server.shutdown(), late.promise]);
      clearTimeout(timer);
    },
  };
}

function answer(
  request: Request,
  { metrics, problems }: MetricsServiceOptions,
  authorized: (request: Request) => boolean,
): Response {
  const { pathname } = new URL(request.url);
  if (pathname !== "/metrics" && pathname !== "/healthz") return text("there are /metrics and /healthz\n", 404);
  if (request.method !== "GET" && request.method !== "HEAD") return text("only GET is served\n", 405);
  if (pathname === "/healthz") {
    const found = problems();
    return found.length === 0 ? text("ok\n", 200) : text(found.map((line) => `${line}\n`).join(""), 503);
  }
  if (!authorized(request)) {
    const refusal = text("wrong or missing token of the cluster's secret\n", 401);
    refusal.headers.set("www-authenticate", 'Basic realm="sealfs"');
    return refusal;
  }
  return new Response(metrics(), { headers: { "content-type": metricsType } });
}

function text(body: string, status: number): Response {
  return new Response(body, { status, headers: { "content-type": "text/plain; charset=utf-8" } });
}
