/**
 * A program's connection to a cluster: one session with the manager, one reactor Worker for all volumes it opens.
 *
 * A connection that nobody closes does not keep the process alive; its session dies with its heartbeats then.
 *
 * @module
 */

import type { Caller } from "../../core/client/filesystem.ts";
import type { ClusterStatus, VolumeStatus } from "../../core/manager/manager.ts";
import { rootInode, volumeState } from "../../core/placement/map.ts";
import { ioTimeoutMsDefault } from "../../core/protocol/caller.ts";
import type { LogLevel } from "../../core/runtime.ts";
import { openLogger } from "../log.ts";
import { ManagerFailure } from "../manager_client.ts";
import { ManagerSession } from "../manager_session.ts";
import { readSecretFile } from "../secret.ts";
import { resolveHost } from "../resolve.ts";
import { closedError, managerError } from "./errors.ts";
import { Volume } from "./volume.ts";
import { WorkerLink } from "./worker_link.ts";

/** Where the manager is when nobody says. */
export const defaultManagerAddress = "127.0.0.1:8081";
/** How a volume in use by this library is shown in lists of mounts. */
const mountName = "(library)";

/** How to connect; everything has a default. */
export interface ConnectOptions {
  /** `host:port` of the manager; else the variable SEALFS_MANAGER_ADDRESS, else `127.0.0.1:8081`. */
  managerAddress?: string;
  /** The cluster's secret, if it has one. */
  secret?: string;
  /** File that holds the secret, readable by its owner only; else the variable SEALFS_SECRET_FILE. */
  secretFile?: string;
  /** How long the manager and servers that do not answer are waited for, in milliseconds; 60,000 unless given. */
  ioTimeoutMs?: number;
  /** What is written to stderr; `"error"` unless given. */
  logLevel?: LogLevel;
}

/** How a volume is made. */
export interface CreateVolumeOptions {
  /** Most bytes that it holds. */
  sizeBytes: number;
  /** Nobody may change it. */
  readOnly?: boolean;
  /** For the first volume of a cluster: wait until it has this number of servers. */
  servers?: number;
}

/** Who works with a volume. */
export interface OpenVolumeOptions {
  /** Refuse changes. */
  readOnly?: boolean;
  /** Whose permissions apply and who owns what is made; by default this process's user, groups and umask. */
  as?: { uid: number; gid: number; groups?: number[]; umask?: number };
}

/** A connection. Made by {@linkcode connect}. */
export class Cluster implements AsyncDisposable {
  readonly #session: ManagerSession;
  readonly #options: { secret: string | undefined; ioTimeoutMs: number; logLevel: LogLevel };
  readonly #volumes = new Map<Volume, number>();
  #link: Promise<WorkerLink> | null = null;
  #opening: number[] = [];
  #closing: Promise<void> | null = null;

  /** Takes a session that is open. */
  constructor(
    session: ManagerSession,
    options: { secret: string | undefined; ioTimeoutMs: number; logLevel: LogLevel },
  ) {
    this.#session = session;
    this.#options = options;
    session.mounts = () => {
      return [...this.#volumes.values(), ...this.#opening].map((volume) => ({ volume, path: mountName }));
    };
    session.onMap = (bytes) => void this.#link?.then((link) => link.order({ type: "map", bytes }), () => {});
    session.onReplaced = (number) => {
      this.#link?.then((link) => link.order({ type: "session", number }), () => {});
    };
  }

  /** `host:port` of the manager. */
  get managerAddress(): string {
    return this.#session.client.address;
  }

  /** Servers, volumes and clients of the cluster. */
  async status(): Promise<ClusterStatus> {
    return await this.#ask(() => this.#session.client.status());
  }

  /** All volumes. */
  async volumes(): Promise<VolumeStatus[]> {
    return await this.#ask(() => this.#session.client.listVolumes());
  }

  /** Makes a volume. `Deno.errors.AlreadyExists` if there is one of this name. */
  async createVolume(name: string, options: CreateVolumeOptions): Promise<VolumeStatus> {
    return await this.#ask(() => this.#session.client.createVolume({ name, ...options }));
  }

  /** Removes a volume with all that is in it. Refused while somebody has it mounted or open, unless `force`. */
  async deleteVolume(name: string, options: { force?: boolean } = {}): Promise<void> {
    await this.#ask(() => this.#session.client.deleteVolume(name, options.force ?? false));
  }

  /** Opens a volume. `Deno.errors.NotFound` if there is none of this name. */
  async open(name: string, options: OpenVolumeOptions = {}): Promise<Volume> {
    this.#check();
    const found = await this.#find(name);
    this.#opening.push(found.id);
    try {
      await this.#ask(() => this.#session.announce(found.id));
      const link = await held(this.#connected());
      const { readOnly = false } = options, what = `open volume '${name}'`;
      const volume = await link.openVolume(found.id, { readOnly, who: whoOf(options), what });
      const root = rootInode(found.id, this.#session.map.shards);
      const onClose = () => void this.#volumes.delete(opened);
      const opened = new Volume(link, { name, volume, root, onClose });
      this.#volumes.set(opened, found.id);
      return opened;
    } finally {
      this.#opening.splice(this.#opening.indexOf(found.id), 1);
    }
  }

  /** Closes all volumes and ends the session. Closing it twice does nothing. */
  close(): Promise<void> {
    return this.#closing ??= held(this.#close());
  }

  /** As {@linkcode close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#volumes.keys()].map((volume) => volume.close()));
    const link = await this.#link?.catch(() => null);
    await link?.close();
    await this.#session.close();
  }

  #check(): void {
    if (this.#closing !== null) throw closedError("the connection");
  }

  /** Asks the manager; one that is away, or says "later", is asked again as long as the io timeout allows. */
  async #ask<T>(question: () => Promise<T>): Promise<T> {
    this.#check();
    return await fromManager(this.#session.client.patiently(question, AbortSignal.timeout(this.#options.ioTimeoutMs)));
  }

  async #find(name: string): Promise<{ id: number }> {
    const session = this.#session;
    const find = () => session.map.volumes.find((one) => one.name === name && one.state === volumeState.live);
    // It may have been made a moment ago.
    if (find() === undefined) await this.#ask(() => session.refresh());
    const found = find();
    if (found === undefined) {
      throw managerError(new ManagerFailure("notFound", `the cluster has no volume ${JSON.stringify(name)}`));
    }
    return found;
  }

  #connected(): Promise<WorkerLink> {
    if (this.#link !== null) return this.#link;
    const link = this.#link = this.#start();
    // The next to open a volume tries again.
    link.catch(() => this.#link = null);
    return link;
  }

  async #start(): Promise<WorkerLink> {
    const { secret, ioTimeoutMs, logLevel } = this.#options, session = this.#session;
    const { number, map } = session;
    const link = await WorkerLink.start({
      url: new URL("./library_worker.ts", import.meta.url),
      start: { log: { level: logLevel }, session: number, secret: secret ?? null, map: session.mapBytes, ioTimeoutMs },
      resolve: resolveHost,
      onNeedMap: (epoch) => session.want(epoch),
    });
    // What came while it started.
    if (session.map !== map) link.order({ type: "map", bytes: session.mapBytes });
    if (session.number !== number) link.order({ type: "session", number: session.number });
    return link;
  }
}

/**
 * Connects to a cluster. The manager is waited for, up to the io timeout; then it is `Deno.errors.TimedOut`.
 * `Deno.errors.PermissionDenied` if the cluster has another secret.
 */
export async function connect(options: ConnectOptions = {}): Promise<Cluster> {
  const secretFile = options.secretFile ?? Deno.env.get("SEALFS_SECRET_FILE");
  const secret = options.secret ?? (secretFile ? readSecretFile(secretFile) : undefined);
  const managerAddress = options.managerAddress ?? (Deno.env.get("SEALFS_MANAGER_ADDRESS") || defaultManagerAddress);
  const { ioTimeoutMs = ioTimeoutMsDefault, logLevel = "error" } = options;
  const logger = openLogger({ level: logLevel });
  const session = new ManagerSession({ managerAddress, secret, logger, background: true });
  try {
    await fromManager(session.opened(AbortSignal.timeout(ioTimeoutMs)));
  } catch (error) {
    await held(session.close());
    throw error;
  }
  return new Cluster(session, { secret, ioTimeoutMs, logLevel });
}

/** This process's user, groups and umask, unless others are given. */
function whoOf({ as }: OpenVolumeOptions): Caller {
  const pid = Deno.pid;
  if (as !== undefined) return { uid: as.uid, gid: as.gid, groups: as.groups ?? [], umask: as.umask ?? 0o022, pid };
  // Deno.umask() would change it for a moment, for all threads.
  const status = Deno.readTextFileSync("/proc/self/status");
  const line = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, "m").exec(status)?.[1].trim() ?? "";
  const groups = line("Groups").split(/\s+/).filter((text) => text !== "").map(Number);
  return { uid: Deno.uid() ?? 0, gid: Deno.gid() ?? 0, groups, umask: parseInt(line("Umask"), 8), pid };
}

async function fromManager<T>(asked: Promise<T>): Promise<T> {
  try {
    return await held(asked);
  } catch (error) {
    throw error instanceof ManagerFailure ? managerError(error) : error;
  }
}

/** Keeps the process alive until `promise` settles. */
async function held<T>(promise: Promise<T>): Promise<T> {
  const timer = setInterval(() => {}, 2 ** 31 - 1);
  try {
    return await promise;
  } finally {
    clearInterval(timer);
  }
}
