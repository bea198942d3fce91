/**
 * The manager's service: one HTTP/1.1 port for servers, clients, people, probes and monitoring, in front of the state
 * machine of core/manager. With a secret everything but /healthz needs its token (as Bearer, or as the password of
 * Basic for browsers).
 *
 * Requests are bounded in size, time and number. When the state cannot be stored the service ends with an error rather
 * than answer something that a restart would forget.
 *
 * @module
 */

import { isRefusal, type Manager, type Reply } from "../core/manager/manager.ts";
import { decodeMap } from "../core/placement/map.ts";
import type { Logger } from "./log.ts";
import {
  type ApiErrorCode,
  cborType,
  decodeCbor,
  encodeCbor,
  jsonType,
  longPollMs,
  paths,
  requestBytesMax,
  statusOf,
  tokenCheck,
} from "./manager_api.ts";
import { dashboardPage } from "./manager_dashboard.ts";
import { metricsText, type RequestCounts } from "./manager_metrics.ts";
import { metricsType } from "./metrics/text.ts";

/** Time a request's body may take to arrive. */
const bodyTimeoutMs = 10_000;
/** Questions for a newer map that may be open at once. */
const longPollsMax = 8192;
/** Time between looks at who is silent. */
const tickMs = 250;
/** Time that open requests get when the service stops. */
const stopTimeoutMs = 2_000;

/** How a service is started. */
export interface ManagerServiceOptions {
  manager: Manager;
  hostname: string;
  /** 0 lets the system choose. */
  port: number;
  secret?: string;
  heartbeatIntervalMs: number;
  /** Of the program, for metrics. */
  version: string;
  logger: Logger;
}

/** A service that runs. */
export interface ManagerService {
  /** Where it listens. */
  readonly hostname: string;
  readonly port: number;
  /** Settles when the service has ended: with undefined after {@linkcode stop}, with a reason when it failed. */
  readonly finished: Promise<string | undefined>;
  /** Answers what is open, takes nothing new, ends. */
  stop(): Promise<void>;
  /** The page of /metrics, for another address as well. */
  metrics(): string;
}

/** A refusal made here rather than in the manager. */
class HttpRefusal extends Error {
  constructor(readonly code: ApiErrorCode, message: string) {
    super(message);
  }
}

type Handler = (request: Request, url: URL) => Promise<Response> | Response;

/** Starts the service. Throws when the address cannot be listened on. */
export function startManagerService(options: ManagerServiceOptions): ManagerService {
  return new Service(options);
}

class Service implements ManagerService {
  readonly hostname: string;
  readonly port: number;
  readonly finished: Promise<string | undefined>;
  readonly #options: ManagerServiceOptions;
  readonly #manager: Manager;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #authorized: (request: Request) => boolean;
  readonly #waiters = new Set<() => void>();
  readonly #counts: RequestCounts = new Map();
  readonly #ticker: ReturnType<typeof setInterval>;
  #finish!: (reason: string | undefined) => void;
  #stopping = false;

  constructor(options: ManagerServiceOptions) {
    this.#options = options;
    this.#manager = options.manager;
    this.#authorized = tokenCheck(options.secret);
    this.finished = new Promise((resolve) => this.#finish = resolve);
    const { hostname, port } = options;
    this.#server = Deno.serve(
      { hostname, port, onListen: () => {}, onError: (error) => this.#unexpected(error) },
      (request) => this.#serve(request),
    );
    this.hostname = hostname;
    this.port = this.#server.addr.port;
    this.#ticker = setInterval(() => this.#tick(), tickMs);
  }

  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    clearInterval(this.#ticker);
    this.#wake();
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, stopTimeoutMs);
    await Promise.race([this.#server.shutdown(), late.promise]);
    clearTimeout(timer);
    this.#finish(undefined);
  }

  metrics(): string {
    return metricsText(this.#manager.status(performance.now()), this.#counts, this.#options.version);
  }

  #tick(): void {
    try {
      this.#run(() => this.#manager.tick(performance.now()));
    } catch { // `finished` says why.
    }
  }

  /** Calls the manager; wakes who waits for a map if there is a new one. A failure to store ends the service. */
  #run<T>(operation: () => T): T {
    const before = this.#manager.epoch;
    try {
      const result = operation();
      if (this.#manager.epoch !== before) this.#wake();
      return result;
    } catch (error) {
      const reason = `cannot keep the cluster's state: ${error instanceof Error ? error.message : error}`;
      this.#options.logger.log("error", "manager", reason);
      this.#stopping = true;
      clearInterval(this.#ticker);
      this.#finish(reason);
      throw new HttpRefusal("stopping", reason);
    }
  }

  #wake(): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter();
  }

  async #serve(request: Request): Promise<Response> {
    const url = new URL(request.url);
    let response: Response;
    try {
      response = await this.#route(request, url);
    } catch (error) {
      response = error instanceof HttpRefusal ? refused(request, error.code, error.message) : this.#unexpected(error);
    }
    const path = Object.values(paths).find((known) => url.pathname.startsWith(known)) ?? "other";
    const key = `${request.method} ${path} ${response.status}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    return response;
  }

  #unexpected(error: unknown): Response {
    this.#options.logger.log("error", "manager", error instanceof Error ? error.stack ?? error.message : String(error));
    return new Response("internal error\n", { status: 500 });
  }

  #route(request: Request, url: URL): Promise<Response> | Response {
    if (url.pathname === "/healthz") return new Response("ok\n");
    this.#checkOrigin(request, url);
    this.#authorize(request);
    if (this.#stopping) throw new HttpRefusal("stopping", "the manager is stopping");
    const get = request.method === "GET";
    if (get && url.pathname === "/") return html(dashboardPage);
    if (get && url.pathname === "/metrics") {
      return new Response(this.metrics(), { headers: { "content-type": metricsType } });
    }
    const exact = this.#handlers[`${request.method} ${url.pathname}`];
    if (exact !== undefined) return exact(request, url);
    const named = /^(\/v1\/(?:volumes|sessions))\/([^/]+)$/.exec(url.pathname);
    if (named !== null && request.method === "DELETE") return this.#delete(request, url, named[1], named[2]);
    throw new HttpRefusal("noSuchPath", `there is no ${request.method} ${url.pathname}`);
  }

  /** A page of another site may not use the browser of somebody who can reach the manager. */
  #checkOrigin(request: Request, url: URL): void {
    const origin = request.headers.get("origin");
    if (origin !== null && origin !== url.origin) {
      throw new HttpRefusal("unauthorized", `origin ${origin} is not served`);
    }
  }

  #authorize(request: Request): void {
    if (this.#authorized(request)) return;
    throw new HttpRefusal("unauthorized", "wrong or missing secret: give the cluster's --secret-file");
  }

  readonly #handlers: Record<string, Handler> = {
    [`POST ${paths.register}`]: this.#posting((body) => this.#manager.registerServer(body, performance.now())),
    [`POST ${paths.serverHeartbeat}`]: this.#posting((body) => this.#manager.serverHeartbeat(body, performance.now())),
    [`POST ${paths.clientHeartbeat}`]: this.#posting((body) => this.#manager.clientHeartbeat(body, performance.now())),
    [`POST ${paths.sessions}`]: this.#posting((body) => this.#manager.openSession(body, performance.now())),
    [`POST ${paths.volumes}`]: this.#posting((body) => this.#manager.createVolume(body, performance.now())),
    [`GET ${paths.volumes}`]: (request) => answer(request, { volumes: this.#manager.listVolumes() }),
    [`GET ${paths.status}`]: (request) => answer(request, this.#manager.status(performance.now())),
    [`GET ${paths.map}`]: (request, url) => this.#map(request, url),
  };

  // deno-lint-ignore no-explicit-any -- the manager checks every field of what came in.
  #posting(operation: (body: any) => Reply<object>): Handler {
    return async (request) => {
      const body = await readBody(request);
      const reply = this.#run(() => operation(body));
      if (isRefusal(reply)) return answer(request, reply, statusOf[reply.error]);
      const interval = { heartbeatIntervalMs: this.#options.heartbeatIntervalMs };
      return answer(request, "session" in reply ? { ...reply, ...interval } : reply);
    };
  }

  #delete(request: Request, url: URL, kind: string, name: string): Response {
    if (kind === paths.sessions) {
      this.#run(() => this.#manager.closeSession(Number(name)));
      return answer(request, {});
    }
    let decoded: string;
    try {
      decoded = decodeURIComponent(name);
    } catch {
      throw new HttpRefusal("malformed", "the name is not percent-encoded UTF-8");
    }
    const reply = this.#run(() => this.#manager.deleteVolume(decoded, url.searchParams.get("force") === "true"));
    return answer(request, reply, isRefusal(reply) ? statusOf[reply.error] : 200);
  }

  /** The map if it is newer than `after`; else waits up to `waitMs` for one. 204: there is none. */
  async #map(request: Request, url: URL): Promise<Response> {
    const after = Number(url.searchParams.get("after") ?? 0);
    const waitMs = Math.min(longPollMs, Number(url.searchParams.get("waitMs") ?? 0));
    if (!(after >= 0) || !(waitMs >= 0)) throw new HttpRefusal("malformed", "after and waitMs are numbers");
    if (this.#manager.epoch <= after && waitMs > 0) await this.#newMap(waitMs);
    const map = this.#manager.mapAfter(after);
    return map === undefined ? new Response(null, { status: 204 }) : answer(request, { map });
  }

  #newMap(waitMs: number): Promise<void> {
    if (this.#waiters.size >= longPollsMax) throw new HttpRefusal("full", `${longPollsMax} others wait for a map`);
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#waiters.delete(done);
        resolve();
      }, waitMs);
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#waiters.add(done);
    });
  }
}

function html(page: string): Response {
  return new Response(page, {
    headers: { "content-type": "text/html; charset=utf-8", "content-security-policy": "frame-ancestors 'none'" },
  });
}

/** `value` in CBOR or JSON, as the request accepts. */
function answer(request: Request, value: object, status = 200): Response {
  if (request.headers.get("accept")?.includes(cborType)) {
    return new Response(encodeCbor(value), { status, headers: { "content-type": cborType } });
  }
  const shown = "map" in value && value.map instanceof Uint8Array ? { ...value, map: decodeMap(value.map) } : value;
  return new Response(JSON.stringify(shown, null, 2) + "\n", { status, headers: { "content-type": jsonType } });
}

function refused(request: Request, code: ApiErrorCode, message: string): Response {
  const response = answer(request, { error: code, message }, statusOf[code]);
  if (code === "unauthorized") response.headers.set("www-authenticate", 'Basic realm="sealfs"');
  return response;
}

async function readBody(request: Request): Promise<object> {
  const type = request.headers.get("content-type")?.split(";")[0].trim();
  // Browsers send other types across sites without asking.
  if (type !== cborType && type !== jsonType) {
    throw new HttpRefusal("malformed", `a body is ${cborType} or ${jsonType}`);
  }
  const bytes = await readBytes(request);
  try {
    const body = type === cborType ? decodeCbor(bytes) : JSON.parse(new TextDecoder().decode(bytes));
    if (typeof body === "object" && body !== null && !Array.isArray(body)) return body;
  } catch { // Said below.
  }
  throw new HttpRefusal("malformed", "the body is not an object");
}

async function readBytes(request: Request): Promise<Uint8Array> {
  const reader = request.body?.getReader();
  if (reader === undefined) return new Uint8Array();
  const timer = setTimeout(() => reader.cancel().catch(() => {}), bodyTimeoutMs);
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      length += part.value.length;
      if (length > requestBytesMax) throw new HttpRefusal("tooLarge", `a body has at most ${requestBytesMax} bytes`);
      parts.push(part.value);
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
