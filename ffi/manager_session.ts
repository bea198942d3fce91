/**
 * A client's session with the manager, on the main thread: opened when the manager is there, kept alive by heartbeats
 * that tell what is mounted, replaced when it died, with the newest map at hand. Reply slots belong to a session, so
 * every reactor that speaks to servers has one of its own.
 *
 * @module
 */

import type { SessionMount } from "../core/manager/manager.ts";
import { type ClusterMap, decodeMap, volumeState } from "../core/placement/map.ts";
import type { Logger } from "./log.ts";
import { ManagerClient, ManagerFailure } from "./manager_client.ts";

/** How long closing a session waits for the manager. */
const closeTimeoutMs = 2_000;

/** Heartbeats that may be missed before the manager counts as silent. */
const missedMax = 4;

/** How a session is made. */
export interface ManagerSessionOptions {
  /** `host:port`. */
  managerAddress: string;
  secret?: string;
  logger: Logger;
  /** The session alone does not keep the process alive. */
  background?: boolean;
}

/** See the module's comment. */
export class ManagerSession {
  /** Hears each newer map. */
  onMap: (bytes: Uint8Array) => void = () => {};
  /** Hears the number of the session that replaces a dead one. */
  onReplaced: (session: number) => void = () => {};
  /** What is mounted now. */
  mounts: () => SessionMount[] = () => [];
  /** For questions besides the session's own. */
  readonly client: ManagerClient;
  readonly #logger: Logger;
  readonly #ended = new AbortController();
  readonly #opened = Promise.withResolvers<void>();
  #session = 0;
  #intervalMs = 0;
  /** When the manager last answered a heartbeat. */
  #heardAtMs = 0;
  #refusal = "";
  #map: ClusterMap | null = null;
  #mapBytes = new Uint8Array();

  /** Starts to open the session; {@linkcode opened} tells when that is done. */
  constructor(options: ManagerSessionOptions) {
    this.#logger = options.logger;
    this.client = new ManagerClient({
      address: options.managerAddress,
      secret: options.secret,
      logger: options.logger,
      background: options.background,
    });
    this.#opened.promise.catch(() => {}); // Whoever asks for the session hears of it.
    this.#run().catch((error) => this.#opened.reject(error));
  }

  /** Settles once there is a session; rejects with a ManagerFailure when the manager refuses or `signal` aborts. */
  async opened(signal: AbortSignal): Promise<void> {
    const { promise, reject } = Promise.withResolvers<never>();
    const abort = () => {
      reject(new ManagerFailure("unreachable", `no answer from the manager at ${this.client.address}`));
    };
    if (signal.aborted && this.#session === 0) abort();
    signal.addEventListener("abort", abort);
    try {
      await Promise.race([this.#opened.promise, promise]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** True once a session was opened. */
  get isOpen(): boolean {
    return this.#session !== 0;
  }

  /** How long the manager has left several heartbeats in a row without an answer, in ms; 0: it answers. */
  get silentMs(): number {
    const sinceMs = performance.now() - this.#heardAtMs;
    return this.isOpen && sinceMs > missedMax * this.#intervalMs ? sinceMs : 0;
  }

  /** Number of the session; 0 before it is open. */
  get number(): number {
    return this.#session;
  }

  /** The newest map. Throws before the session is open. */
  get map(): ClusterMap {
    if (this.#map === null) throw new Error("the session is not open");
    return this.#map;
  }

  /** The newest map, encoded. */
  get mapBytes(): Uint8Array {
    return this.#mapBytes;
  }

  /** Tells the manager now what is mounted, `volume` too. Rejects with a ManagerFailure when that may not be. */
  async announce(volume: number): Promise<void> {
    await this.#beat(volume);
  }

  /** Fetches the map now if there is a newer one: for what was made a moment ago. */
  async refresh(): Promise<void> {
    const bytes = await this.client.mapAfter(this.map.epoch);
    if (bytes !== undefined) this.#take(bytes);
  }

  /** As {@linkcode refresh}, for a Worker that knows that `epoch` exists; a failure is left to the long poll. */
  want(epoch: number): void {
    if (epoch > this.map.epoch) this.refresh().catch(() => {});
  }

  /** Ends the session, as far as the manager can be told. */
  async close(): Promise<void> {
    this.#ended.abort();
    if (this.#session !== 0) {
      const told = this.client.closeSession(this.#session).catch(() => {});
      const late = Promise.withResolvers<void>();
      const timer = setTimeout(late.resolve, closeTimeoutMs);
      await Promise.race([told, late.promise]);
      clearTimeout(timer);
    }
    this.client.close();
  }

  async #run(): Promise<void> {
    const signal = this.#ended.signal;
    const intervalMs = await this.#open();
    this.#opened.resolve();
    const onRefused = async (failure: ManagerFailure) => {
      if (failure.code === "sessionDead") return await this.#replace();
      // A volume that went away between the map and the heartbeat is no longer told by the next one.
      if (failure.code === "notFound" || failure.message === this.#refusal) return;
      this.#refusal = failure.message;
      this.#logger.log("warn", "client", `the manager refuses a heartbeat: ${failure.message}`);
    };
    await Promise.all([
      this.client.keepAlive({ beat: () => this.#beat(), intervalMs, onRefused, signal }),
      this.client.followMap({ epoch: this.map.epoch, onMap: (bytes) => this.#take(bytes), signal }),
    ]);
  }

  async #open(): Promise<number> {
    const who = { host: Deno.hostname(), pid: Deno.pid };
    const opened = await this.client.patiently(() => this.client.openSession(who), this.#ended.signal);
    this.#session = opened.session;
    this.#take(Uint8Array.from(opened.map));
    this.#intervalMs = opened.heartbeatIntervalMs;
    this.#heardAtMs = performance.now();
    return opened.heartbeatIntervalMs;
  }

  async #replace(): Promise<void> {
    this.#logger.log("warn", "client", `session ${this.#session} is dead: what was open is lost, starting anew`);
    try {
      await this.#open();
      this.onReplaced(this.#session);
    } catch (error) {
      if (!(error instanceof ManagerFailure)) throw error;
      this.#logger.log("warn", "client", `no new session: ${error.message}`);
    }
  }

  async #beat(wanted?: number): Promise<void> {
    const live = new Set(this.map.volumes.filter((one) => one.state === volumeState.live).map((one) => one.id));
    // A mount of a deleted volume stays until somebody unmounts it, but it holds nothing.
    const mounts = this.mounts().filter(({ volume }) => live.has(volume) || volume === wanted);
    await this.client.clientHeartbeat({ session: this.#session, mounts });
    this.#heardAtMs = performance.now();
  }

  #take(bytes: Uint8Array): void {
    const map = decodeMap(bytes);
    if (this.#map !== null && map.epoch <= this.#map.epoch) return;
    this.#map = map;
    this.#mapBytes = Uint8Array.from(bytes);
    this.onMap(this.#mapBytes);
  }
}
