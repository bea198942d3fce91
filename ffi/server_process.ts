/**
 * A server's main thread: holds the server's folders, registers it with the manager, starts a reactor Worker a store,
 * passes maps to them, sends heartbeats, and stops them cleanly. It waits for the manager for ever; it ends with an
 * error when a reactor fails, or when the manager says that another process took the server's place.
 *
 * @module
 */

import { decodeMap } from "../core/placement/map.ts";
import type { ServerRegistration } from "../core/manager/manager.ts";
import { parseHostPort } from "./address.ts";
import type { Logger } from "./log.ts";
import { MainMailbox } from "./mailbox.ts";
import { ManagerClient, ManagerFailure, pause } from "./manager_client.ts";
import { serveMetrics } from "./metrics/http.ts";
import { readStore, serverMetricsText, type StoreMetricsMemory, storeMetricsMemory } from "./metrics/server_metrics.ts";
import { resolveHost } from "./resolve.ts";
import { type HeldServer, holdServer } from "./server_identity.ts";
import type {
  ResolveQuestion,
  ServerOrder,
  ServerQuestion,
  ServerReport,
  ServerWorkerStart,
  StoreStatistics,
} from "./server_messages.ts";

/** Time a store may take for its last checkpoint. */
const stopTimeoutMs = 60_000;
/** Time a store may take to tell its statistics before a heartbeat goes without them. */
const statisticsTimeoutMs = 2_000;
/** How long a server that moved waits for its old process to be forgotten, beyond what the manager says. */
const takeOverExtraMs = 5_000;
const retryMs = 1_000;
/** How long a stopping server waits for the manager. */
const leaveTimeoutMs = 2_000;

/** What a server is run with. */
export interface ServerProcessOptions {
  /** `host:port`. */
  managerAddress: string;
  /** `host:port` where it listens and is reached. */
  address: string;
  databasePath: string;
  storagePaths: readonly string[];
  /** For a new server; undefined takes what it was made with. */
  stores?: number;
  weight: number;
  secret?: string;
  /** `host:port` of /metrics and /healthz; none without it. */
  metricsAddress?: string;
  /** Of the program, for metrics. */
  version: string;
  logger: Logger;
  /** Settles when the server is to stop. */
  stop: Promise<unknown>;
  /** Called once when all stores are served. */
  onReady: (serverId: number, clusterId: string) => void;
}

/** Runs a server until it is to stop (undefined) or fails (why). */
export async function runServer(options: ServerProcessOptions): Promise<string | undefined> {
  const held = holdServer(options);
  if (typeof held === "string") return held;
  const server = new ServerProcess(options, held);
  const { metricsAddress, secret, logger } = options;
  const service = metricsAddress === undefined ? undefined : serveMetrics({
    address: metricsAddress,
    secret,
    metrics: () => server.metrics(),
    problems: () => server.problems(),
    logger,
  });
  try {
    return typeof service === "string" ? service : await server.run();
  } finally {
    server.close();
    held.close();
    if (typeof service === "object") await service.close();
  }
}

interface StoreWorker {
  worker: Worker;
  mailbox: MainMailbox;
  metrics: StoreMetricsMemory;
}

class ServerProcess {
  readonly #options: ServerProcessOptions;
  readonly #held: HeldServer;
  readonly #client: ManagerClient;
  readonly #ended = new AbortController();
  readonly #failed = Promise.withResolvers<string>();
  #stores: StoreWorker[] = [];
  #session = 0;
  #epoch = 0;
  #ready = 0;
  #stopping = false;
  #requestsBefore = 0;
  #beatBeforeMs = performance.now();

  constructor(options: ServerProcessOptions, held: HeldServer) {
    this.#options = options;
    this.#held = held;
    this.#client = new ManagerClient({
      address: options.managerAddress,
      secret: options.secret,
      logger: options.logger,
    });
  }

  async run(): Promise<string | undefined> {
    const { stop } = this.#options;
    const listen = await this.#listenAddress();
    if ("fault" in listen) return listen.fault;
    const registering = this.#register();
    const registered = await Promise.race([registering, stop.then(() => undefined)]);
    if (registered === undefined || typeof registered === "string") return registered;

    const { session, clusterId, serverId, heartbeatIntervalMs } = registered;
    const map = Uint8Array.from(registered.map);
    this.#session = session;
    this.#held.join(clusterId, serverId);
    this.#epoch = decodeMap(map).epoch;
    for (let store = 0; store < this.#held.file.stores; store++) {
      this.#startStore(store, { session, clusterId, serverId, map, listen: listen.text });
    }
    const signal = this.#ended.signal;
    const beat = () => this.#heartbeat(this.#session);
    const onRefused = (failure: ManagerFailure) =>
      this.#failed.resolve(`the manager refuses this server: ${failure.message}`);
    const loops = [
      this.#client.keepAlive({ beat, intervalMs: heartbeatIntervalMs, onRefused, signal }),
      this.#client.followMap({ epoch: this.#epoch, onMap: (bytes, epoch) => this.#newMap(bytes, epoch), signal }),
    ];
    for (const loop of loops) loop.catch((error) => this.#failed.resolve(`internal error: ${error.stack ?? error}`));
    const failure = await Promise.race([this.#failed.promise, stop.then(() => undefined)]);
    this.#ended.abort();
    if (failure !== undefined) return failure;
    const problem = await this.#stopStores();
    await this.#leave(session);
    return problem;
  }

  /** The page of /metrics. */
  metrics(): string {
    const stores = this.#stores.map(({ metrics }) => readStore(metrics)), { version } = this.#options;
    return serverMetricsText({ stores, serverId: this.#held.file.serverId, epoch: this.#epoch, version });
  }

  /** What keeps the server from serving, a line each. */
  problems(): string[] {
    if (this.#stopping) return ["the server is stopping"];
    if (this.#session === 0) return [`not registered yet with the manager at ${this.#client.address}`];
    const opening = this.#stores.length - this.#ready;
    return opening === 0 ? [] : [`${opening} of ${this.#stores.length} stores are not served yet`];
  }

  /** Tells the manager, if it is there, so that nobody has to notice. */
  async #leave(session: number): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, leaveTimeoutMs);
    await Promise.race([this.#client.closeSession(session).catch(() => {}), late.promise]);
    clearTimeout(timer);
  }

  close(): void {
    this.#ended.abort();
    this.#client.close();
    for (const { worker, mailbox } of this.#stores) {
      mailbox.close();
      worker.terminate();
    }
  }

  /** The numeric address to listen on, tried now: a server that cannot listen must not register. */
  async #listenAddress(): Promise<{ text: string } | { fault: string }> {
    const { address } = this.#options;
    const target = parseHostPort(address);
    if (target === null || target.port === 0) return { fault: `the server's address ${address} is not HOST:PORT` };
    const { host, port } = target;
    const ip = await resolveHost(host);
    if (ip === null) return { fault: `cannot find the host of the server's address ${address}` };
    if (/^[0.:]+$/.test(ip)) return { fault: `the server's address ${address} is one that others cannot reach` };
    try {
      Deno.listen({ hostname: ip, port }).close();
    } catch (error) {
      return { fault: `cannot listen on ${address}: ${error instanceof Error ? error.message : error}` };
    }
    return { text: ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}` };
  }

  async #register() {
    const { address, weight, logger } = this.#options;
    const { identity, clusterId, stores } = this.#held.file;
    const asked: ServerRegistration = {
      identity,
      clusterId,
      address,
      stores,
      weight,
      capacityBytes: 0,
    };
    let giveUpMs: number | undefined;
    for (;;) {
      try {
        return await this.#client.patiently(() => this.#client.register(asked), this.#ended.signal, ["identityInUse"]);
      } catch (error) {
        if (!(error instanceof ManagerFailure)) throw error;
        if (this.#ended.signal.aborted) return undefined;
        const { code, message, retryAfterMs = 0 } = error;
        if (code === "identityInUse" && giveUpMs === undefined) {
          giveUpMs = performance.now() + retryAfterMs + takeOverExtraMs;
          logger.log("warn", "server", message);
        } else if (code !== "identityInUse" || performance.now() > giveUpMs!) {
          return `the manager at ${this.#client.address} refuses this server: ${message}`;
        }
        await pause(retryMs, this.#ended.signal);
      }
    }
  }

  #startStore(
    store: number,
    of: { session: number; clusterId: string; serverId: number; map: Uint8Array; listen: string },
  ): void {
    const { logger, secret, databasePath } = this.#options;
    const mailbox = new MainMailbox();
    const worker = new Worker(new URL("./server_worker.ts", import.meta.url), { type: "module" });
    const failed = (reason: string) => {
      if (!this.#stopping) this.#failed.resolve(`store ${store}: ${reason}`);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      mailbox.died(event.message);
    };
    mailbox.onDeath = (reason) => failed(`internal error: ${reason}`);
    mailbox.onMessage = (message) => this.#report(store, message as ServerReport, failed);
    mailbox.onCall = (message) => resolveHost((message as ResolveQuestion).host);
    const metrics = storeMetricsMemory();
    this.#stores.push({ worker, mailbox, metrics });
    const start: ServerWorkerStart = {
      mailbox: mailbox.port,
      log: logger.options,
      secret: secret ?? null,
      store,
      stores: this.#held.file.stores,
      databasePath,
      storagePaths: this.#held.storagePaths,
      metrics,
      ...of,
    };
    worker.postMessage(start);
  }

  #report(store: number, report: ServerReport, failed: (reason: string) => void): void {
    switch (report.type) {
      case "ready":
        if (++this.#ready === this.#stores.length) this.#allReady();
        return;
      case "failed":
        return failed(report.message);
      case "needMap":
        return this.#fetchMap(report.epoch);
      case "handOver": {
        const { fd, received } = report;
        const target = this.#stores[report.store];
        if (target !== undefined) this.#order(target, { type: "adopt", fd, received });
        else failed(`store ${store} handed a connection to store ${report.store}, which does not exist`);
      }
    }
  }

  #allReady(): void {
    const { serverId, clusterId } = this.#held.file;
    this.#options.onReady(serverId, clusterId);
    // What there is to tell is known from now on; the loop goes on whatever becomes of this one.
    this.#heartbeat(this.#session).catch(() => {});
  }

  /** A Worker knows of a newer map: the long poll brings it, unless it is pausing after a failure. */
  #fetchMap(epoch: number): void {
    if (epoch <= this.#epoch) return;
    this.#client.mapAfter(this.#epoch).then((bytes) => {
      if (bytes !== undefined) this.#newMap(bytes, decodeMap(bytes).epoch);
    }).catch(() => {}); // The manager is away: the long poll goes on asking.
  }

  #newMap(bytes: Uint8Array, epoch: number): void {
    if (epoch <= this.#epoch) return;
    this.#epoch = epoch;
    for (const store of this.#stores) this.#order(store, { type: "map", bytes });
  }

  #order(store: StoreWorker, order: ServerOrder): void {
    // A full or dead mailbox ends the server by way of `onDeath` or the statistics; a map that is lost is asked for.
    store.mailbox.post(order).catch((error) => this.#options.logger.log("warn", "server", String(error.message)));
  }

  async #heartbeat(session: number): Promise<void> {
    const ask: ServerQuestion = { type: "statistics" };
    const all = await Promise.all(
      this.#stores.map(({ mailbox }) =>
        mailbox.call(ask, statisticsTimeoutMs).then((value) => value as StoreStatistics, () => undefined)
      ),
    );
    const known = all.filter((one) => one !== undefined);
    const sum = (value: (one: StoreStatistics) => number) => known.reduce((total, one) => total + value(one), 0);
    const requests = sum((one) => one.requests), nowMs = performance.now();
    const seconds = (nowMs - this.#beatBeforeMs) / 1000;
    const requestsPerSecond = Math.max(0, requests - this.#requestsBefore) / seconds;
    this.#requestsBefore = requests;
    this.#beatBeforeMs = nowMs;
    const whole = known.length === all.length;
    await this.#client.serverHeartbeat({
      session,
      capacityBytes: sum((one) => one.capacityBytes),
      usedBytes: sum((one) => one.usedBytes),
      requestsPerSecond,
      hostLoad: Deno.loadavg()[0],
      // Swept means by every store.
      swept: whole ? known[0].swept.filter((id) => known.every((one) => one.swept.includes(id))) : [],
      volumes: known.flatMap((one) => one.volumes),
    });
  }

  async #stopStores(): Promise<string | undefined> {
    this.#stopping = true;
    const question: ServerQuestion = { type: "stop" };
    try {
      await Promise.all(this.#stores.map(({ mailbox }) => mailbox.call(question, stopTimeoutMs)));
      return undefined;
    } catch (error) {
      return `a store did not stop cleanly: ${error instanceof Error ? error.message : error}`;
    }
  }
}
