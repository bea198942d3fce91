/**
 * The client of the manager's service, for servers, client daemons and admin commands: one method an operation, and the
 * two loops that keep a session alive and follow the map.
 *
 * Failures are {@linkcode ManagerFailure}s with a message of one line. A manager that cannot be reached is waited for
 * by the loops and by {@linkcode ManagerClient.patiently}, which say so once, when it goes and when it comes back.
 * Proxies of the environment are not used: a cluster's manager is never behind one.
 *
 * @module
 */

import http from "node:http";
import type {
  ClientHeartbeat,
  ClusterStatus,
  HeartbeatReply,
  Registered,
  ServerHeartbeat,
  ServerRegistration,
  VolumeStatus,
} from "../core/manager/manager.ts";
import { decodeMap } from "../core/placement/map.ts";
import {
  type ApiErrorCode,
  cborType,
  decodeCbor,
  encodeCbor,
  longPollMs,
  managerToken,
  paths,
  replyBytesMax,
} from "./manager_api.ts";
import type { Logger } from "./log.ts";

/** Longest time an ordinary question may take. */
const requestTimeoutMs = 10_000;
/** Pauses between attempts to reach a manager: the first, then doubled up to the longest. */
const retryMs = { first: 50, longest: 1000 } as const;

/** Why there is no answer: the manager's own refusal, or `unreachable`, or `protocol` for what is no manager. */
export type FailureCode = ApiErrorCode | "unreachable" | "protocol";

/** A question that was not answered as hoped. The message fits in one line. */
export class ManagerFailure extends Error {
  override name = "ManagerFailure";
  constructor(readonly code: FailureCode, message: string, readonly retryAfterMs?: number) {
    super(message);
  }
}

/** A client's new session. */
export interface OpenedSession {
  session: number;
  map: Uint8Array;
  heartbeatIntervalMs: number;
}

/** How a client reaches its manager. */
export interface ManagerClientOptions {
  /** `host:port`. */
  address: string;
  secret?: string;
  logger: Logger;
  /** Questions and pauses do not keep the process alive. */
  background?: boolean;
}

interface Question {
  method: "GET" | "POST" | "DELETE";
  path: string;
  body?: object;
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** See the module's comment. */
export class ManagerClient {
  /** `host:port` of the manager. */
  readonly address: string;
  readonly #options: ManagerClientOptions;
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  readonly #headers: Record<string, string>;
  #reachable = true;
  #closed = false;

  constructor(options: ManagerClientOptions) {
    this.#options = options;
    this.address = options.address;
    this.#headers = { accept: cborType };
    if (options.secret !== undefined) this.#headers.authorization = `Bearer ${managerToken(options.secret)}`;
  }

  /** A server starts. */
  async register(registration: ServerRegistration): Promise<Registered & { heartbeatIntervalMs: number }> {
    return await this.#ask({ method: "POST", path: paths.register, body: registration }) as
      & Registered
      & { heartbeatIntervalMs: number };
  }

  /** A server lives. */
  async serverHeartbeat(beat: ServerHeartbeat): Promise<HeartbeatReply> {
    return await this.#ask({ method: "POST", path: paths.serverHeartbeat, body: beat }) as HeartbeatReply;
  }

  /** A client starts. */
  async openSession(client: { host: string; pid: number }): Promise<OpenedSession> {
    return await this.#ask({ method: "POST", path: paths.sessions, body: client }) as OpenedSession;
  }

  /** A client lives, with these mounts. Await it before serving a new mount: it is refused when the volume is not live. */
  async clientHeartbeat(beat: ClientHeartbeat): Promise<HeartbeatReply> {
    return await this.#ask({ method: "POST", path: paths.clientHeartbeat, body: beat }) as HeartbeatReply;
  }

  /** A client ends. */
  async closeSession(session: number): Promise<void> {
    await this.#ask({ method: "DELETE", path: `${paths.sessions}/${session}` });
  }

  /** The map, encoded, if there is one newer than `epoch` now or within `waitMs`. */
  async mapAfter(epoch: number, waitMs = 0, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const reply = await this.#ask({
      method: "GET",
      path: `${paths.map}?after=${epoch}&waitMs=${waitMs}`,
      timeoutMs: requestTimeoutMs + waitMs,
      signal,
    }) as { map?: Uint8Array };
    return reply.map === undefined ? undefined : Uint8Array.from(reply.map);
  }

  /** All there is to show. */
  async status(): Promise<ClusterStatus> {
    return await this.#ask({ method: "GET", path: paths.status }) as ClusterStatus;
  }

  /** All volumes. */
  async listVolumes(): Promise<VolumeStatus[]> {
    return (await this.#ask({ method: "GET", path: paths.volumes }) as { volumes: VolumeStatus[] }).volumes;
  }

  /** Makes a volume; see Manager.createVolume for `servers`. */
  async createVolume(
    asked: { name: string; sizeBytes: number; readOnly?: boolean; servers?: number },
  ): Promise<VolumeStatus> {
    return await this.#ask({ method: "POST", path: paths.volumes, body: asked }) as VolumeStatus;
  }

  /** Starts the removal of a volume. */
  async deleteVolume(name: string, force: boolean): Promise<VolumeStatus> {
    const path = `${paths.volumes}/${encodeURIComponent(name)}?force=${force}`;
    return await this.#ask({ method: "DELETE", path }) as VolumeStatus;
  }

  /** Ends all connections. */
  close(): void {
    this.#closed = true;
    this.#agent.destroy();
  }

  /**
   * Repeats `operation` while the manager cannot be reached or says that a later attempt can succeed, until `signal`
   * aborts; then the last failure is thrown. `unless` names refusals that are not waited for all the same. Only for
   * operations that may be done twice.
   */
  async patiently<T>(
    operation: () => Promise<T>,
    signal: AbortSignal,
    unless: readonly FailureCode[] = [],
  ): Promise<T> {
    let pauseMs: number = retryMs.first;
    for (;;) {
      try {
        return await operation();
      } catch (error) {
        if (!(error instanceof ManagerFailure) || signal.aborted) throw error;
        if (!canRetry(error) || unless.includes(error.code)) throw error;
        await this.#pause(Math.min(error.retryAfterMs ?? pauseMs, retryMs.longest), signal);
        pauseMs = Math.min(retryMs.longest, pauseMs * 2);
        if (signal.aborted) throw error;
      }
    }
  }

  /**
   * Calls `beat` every `intervalMs` until `signal` aborts. A manager that cannot be reached is waited for; any other
   * refusal goes to `onRefused`, after which the loop goes on.
   */
  async keepAlive(
    loop: {
      beat: () => Promise<unknown>;
      intervalMs: number;
      onRefused: (failure: ManagerFailure) => void | Promise<void>;
      signal: AbortSignal;
    },
  ): Promise<void> {
    const { beat, intervalMs, onRefused, signal } = loop;
    while (!signal.aborted) {
      await this.#pause(intervalMs, signal);
      if (signal.aborted) return;
      try {
        await beat();
      } catch (error) {
        if (!(error instanceof ManagerFailure)) throw error;
        if (!canRetry(error) && !signal.aborted) await onRefused(error);
      }
    }
  }

  /**
   * Calls `onMap` with every map newer than `epoch`, as soon as it is there, until `signal` aborts. Whatever the manager
   * answers, the loop goes on.
   */
  async followMap(
    loop: { epoch: number; onMap: (map: Uint8Array, epoch: number) => void; signal: AbortSignal },
  ): Promise<void> {
    const { onMap, signal } = loop;
    let { epoch } = loop;
    let pauseMs: number = retryMs.first;
    while (!signal.aborted) {
      try {
        const map = await this.mapAfter(epoch, longPollMs, signal);
        pauseMs = retryMs.first;
        if (map === undefined || signal.aborted) continue;
        epoch = decodeMap(map).epoch;
        onMap(map, epoch);
      } catch (error) {
        if (!(error instanceof ManagerFailure)) throw error;
        await this.#pause(pauseMs, signal);
        pauseMs = Math.min(retryMs.longest, pauseMs * 2);
      }
    }
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return pause(ms, signal, this.#options.background);
  }

  async #ask(question: Question): Promise<unknown> {
    let reply: RawReply;
    try {
      reply = await this.#exchange(question);
    } catch (error) {
      if (question.signal?.aborted) throw new ManagerFailure("unreachable", "given up");
      const reason = why(error);
      this.#noteReachable(false, reason);
      throw new ManagerFailure("unreachable", `no answer from the manager at ${this.address}: ${reason}`);
    }
    this.#noteReachable(true, "");
    return this.#understand(reply);
  }

  #exchange(question: Question): Promise<RawReply> {
    const { method, path, body, timeoutMs = requestTimeoutMs, signal } = question;
    const bytes = body === undefined ? undefined : encodeCbor(body);
    const headers: Record<string, string | number> = { ...this.#headers };
    if (bytes !== undefined) {
      headers["content-type"] = cborType;
      headers["content-length"] = bytes.length;
    }
    const { promise, resolve, reject } = Promise.withResolvers<RawReply>();
    const request = http.request(`http://${this.address}${path}`, { method, headers, agent: this.#agent });
    const timer = setTimeout(() => request.destroy(new Error(`silent for ${timeoutMs / 1000} s`)), timeoutMs);
    if (this.#options.background) {
      Deno.unrefTimer(timer);
      request.on("socket", (socket) => socket.unref());
    }
    const abort = () => request.destroy(new Error("given up"));
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    request.on("error", reject);
    request.on("response", (response: http.IncomingMessage) => {
      const parts: Uint8Array[] = [];
      let length = 0;
      response.on("data", (part: Uint8Array) => {
        length += part.length;
        if (length > replyBytesMax) request.destroy(new Error(`an answer longer than ${replyBytesMax} bytes`));
        else parts.push(part);
      });
      response.on("error", reject);
      response.on("close", () => reject(new Error("the connection closed in the middle of the answer")));
      response.on("end", () => {
        resolve({ status: response.statusCode ?? 0, type: response.headers["content-type"] ?? "", bytes: join(parts) });
      });
    });
    request.end(bytes);
    return promise.finally(() => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    });
  }

  #understand({ status, type, bytes }: RawReply): unknown {
    if (status === 204) return {};
    let value: unknown;
    try {
      if (type === cborType) value = decodeCbor(bytes);
    } catch { // Said below.
    }
    if (typeof value !== "object" || value === null) {
      throw new ManagerFailure(
        "protocol",
        `${this.address} is no sealfs manager (HTTP ${status}, ${type || "no type"})`,
      );
    }
    if (status < 400) return value;
    const { error, message, retryAfterMs } = value as { error: ApiErrorCode; message: string; retryAfterMs?: number };
    throw new ManagerFailure(error, String(message), retryAfterMs);
  }

  #noteReachable(reachable: boolean, reason: string): void {
    if (reachable === this.#reachable || this.#closed) return;
    this.#reachable = reachable;
    const { logger } = this.#options;
    if (reachable) logger.log("info", "manager", `the manager at ${this.address} answers`);
    else logger.log("warn", "manager", `no answer from the manager at ${this.address} (${reason}): waiting for it`);
  }
}

interface RawReply {
  status: number;
  type: string;
  bytes: Uint8Array;
}

/** Unreachable, stopping, or told to come back later. */
function canRetry(failure: ManagerFailure): boolean {
  return failure.code === "unreachable" || failure.code === "stopping" || failure.retryAfterMs !== undefined;
}

const reasons: Record<string, string> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset",
  ENOTFOUND: "unknown host name",
  EAI_AGAIN: "host name cannot be looked up",
  EHOSTUNREACH: "host unreachable",
  ENETUNREACH: "network unreachable",
  ETIMEDOUT: "connection timed out",
};

function why(error: unknown): string {
  const code = (error as { code?: string }).code ?? "";
  if (Object.hasOwn(reasons, code)) return reasons[code];
  return error instanceof Error ? error.message : String(error);
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Settles after `ms` or when `signal` aborts. In the background it does not keep the process alive. */
export function pause(ms: number, signal: AbortSignal, background = false): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    if (background) Deno.unrefTimer(timer);
    signal.addEventListener("abort", done);
  });
}
