/**
 * The manager: membership, the cluster map, volumes and sessions, as a deterministic state machine. Its caller passes
 * the time (monotonic milliseconds) and a small key-value store in; every change is committed to the store before the
 * operation returns, so what was answered survives a restart. Heartbeats change memory only.
 *
 * Data cannot move yet, so shards are given out once: until the first volume is created every server that is up takes
 * part in the placement; from then on the owners are frozen and later servers stay `joining`, without shards.
 *
 * @module
 */

import {
  array,
  bool,
  type Codec,
  decode,
  DecodeError,
  encode,
  struct,
  text,
  u16,
  u32,
  u53,
  u8,
} from "../protocol/codec.ts";
import { type ClusterMap, encodeMap, rank, serverState, shardsMax, volumeState } from "../placement/map.ts";
import type { LogLevel } from "../runtime.ts";

/** A client session that was silent for this long is dead. */
export const sessionTimeoutMs = 30_000;
/** The first volume waits until no server has joined for this long, so that all that are starting get shards. */
export const placementSettleMs = 2_000;
/** Most servers ever registered. */
export const serversMax = 4096;
/** Most volumes, deleted ones included until their data is gone. */
export const volumesMax = 4096;
/** Most sessions alive at once. */
export const sessionsMax = 65536;
/** Most mounts one session may report. */
export const mountsMax = 1024;
/** Longest path of a mount point. */
const pathCharsMax = 4096;
/** Replicas this version can keep. */
export const replicasMax = 1;
/** Heaviest server. */
export const weightMax = 1_000_000;
/** Largest volume: the numbers of a volume stay whole. */
export const volumeBytesMax = Number.MAX_SAFE_INTEGER;

/** Version of the records below; others are refused. */
const formatVersion = 1;
const namePattern = /^[A-Za-z0-9._-]{1,128}$/;
const identityPattern = /^[A-Za-z0-9-]{16,64}$/;

/** What the manager keeps its state in. Changes become durable, all or none, with `commit`. */
export interface StateStore {
  get(key: string): Uint8Array | undefined;
  put(key: string, value: Uint8Array): void;
  remove(key: string): void;
  /** Durable when it returns; throws when the disk fails, and then nothing was changed. */
  commit(): void;
}

/** Why an operation was refused; {@linkcode ManagerError.code}. */
export type ErrorCode =
  | "invalid"
  | "notFound"
  | "exists"
  | "busy"
  | "wrongCluster"
  | "identityInUse"
  | "noServers"
  | "settling"
  | "sessionDead"
  | "full";

/** A refusal: a code for programs, one line for people. */
export interface ManagerError {
  error: ErrorCode;
  message: string;
  /** Set when asking again after this many milliseconds can succeed. */
  retryAfterMs?: number;
}

/** A value, or why there is none. */
export type Reply<T> = T | ManagerError;

/** True for a refusal. */
export function isRefusal(reply: unknown): reply is ManagerError {
  return typeof reply === "object" && reply !== null && typeof (reply as ManagerError).error === "string";
}

/** How a cluster is made and run. */
export interface ManagerOptions {
  /** What an empty store is formatted with; `clusterId` is random text. */
  newCluster: { clusterId: string; shards: number; replicas: number };
  /** What the store must have been formatted with, where something was said. */
  expected: { shards?: number; replicas?: number };
  /** A server silent for this long is down. */
  serverTimeoutMs: number;
  /** Receives what happened, one line each. */
  log?: (level: LogLevel, message: string) => void;
}

/** What a server says when it starts. */
export interface ServerRegistration {
  /** Random text made by the server once and stored with its data. */
  identity: string;
  /** The cluster its data belongs to; "" before the first registration. */
  clusterId: string;
  address: string;
  stores: number;
  weight: number;
  capacityBytes: number;
}

/** What a server gets. */
export interface Registered {
  serverId: number;
  session: number;
  clusterId: string;
  shards: number;
  /** The map, encoded. */
  map: Uint8Array;
}

/** What one volume uses on one server. */
export interface VolumeUsage {
  id: number;
  usedBytes: number;
  inodes: number;
}

/** Sent by every server at each heartbeat. */
export interface ServerHeartbeat {
  session: number;
  capacityBytes: number;
  usedBytes: number;
  /** Requests a second since the last heartbeat. */
  requestsPerSecond: number;
  /** 1-minute load average of the host. */
  hostLoad: number;
  /** Volumes in deletion of which this server has nothing left. */
  swept: number[];
  /** What each volume uses here. */
  volumes: VolumeUsage[];
}

/** A mount as a client session reports it. */
export interface SessionMount {
  volume: number;
  path: string;
}

/** Sent by every client at each heartbeat, and before each mount. */
export interface ClientHeartbeat {
  session: number;
  mounts: SessionMount[];
}

/** Answer to a heartbeat. */
export interface HeartbeatReply {
  /** The newest map's epoch. */
  epoch: number;
}

/** A server as `status` shows it. */
export interface ServerStatus {
  id: number;
  address: string;
  state: "up" | "down" | "joining";
  stores: number;
  weight: number;
  /** Shards of which it is primary. */
  shards: number;
  capacityBytes: number;
  usedBytes: number;
  requestsPerSecond: number;
  hostLoad: number;
  /** Milliseconds since its last heartbeat; null when it has not been heard since the manager started. */
  lastHeartbeatAgoMs: number | null;
}

/** A volume as `list` shows it. */
export interface VolumeStatus {
  id: number;
  name: string;
  state: "live" | "deleting";
  sizeBytes: number;
  usedBytes: number;
  inodes: number;
  readOnly: boolean;
  /** Client sessions that have it mounted. */
  mounts: number;
}

/** A client session as `status` shows it. */
export interface SessionStatus {
  session: number;
  host: string;
  pid: number;
  mounts: { volume: string; path: string }[];
  lastHeartbeatAgoMs: number | null;
}

/** The cluster as `status` shows it. */
export interface ClusterStatus {
  clusterId: string;
  epoch: number;
  shards: number;
  replicas: number;
  /** False until the first volume is created: shards still follow the servers. */
  placementFrozen: boolean;
  servers: ServerStatus[];
  volumes: VolumeStatus[];
  sessions: SessionStatus[];
}

interface Cluster {
  format: number;
  clusterId: string;
  shards: number;
  replicas: number;
  epoch: number;
  frozen: boolean;
  lastServer: number;
  lastVolume: number;
  lastSession: number;
}

interface Server {
  id: number;
  identity: string;
  address: string;
  stores: number;
  weight: number;
  capacityBytes: number;
  state: number;
  /** 0 when it stopped, or when another process took its place. */
  session: number;
}

interface Volume {
  id: number;
  name: string;
  sizeBytes: number;
  state: number;
  readOnly: boolean;
  /** Servers that have removed all of its data. */
  swept: number[];
}

interface Session {
  number: number;
  /** 0 for a client. */
  server: number;
  host: string;
  pid: number;
}

/** What is known of a server or a session since this process started. */
interface Heard {
  atMs: number;
  /** False until the first heartbeat: `atMs` is then when this manager started. */
  heard: boolean;
}

interface Load extends Heard {
  usedBytes: number;
  requestsPerSecond: number;
  hostLoad: number;
  volumes: VolumeUsage[];
}

const clusterCodec: Codec<Cluster> = struct({
  format: u16,
  clusterId: text,
  shards: u16,
  replicas: u8,
  epoch: u32,
  frozen: bool,
  lastServer: u32,
  lastVolume: u32,
  lastSession: u53,
});
const serversCodec: Codec<Server[]> = array(
  struct({
    id: u32,
    identity: text,
    address: text,
    stores: u16,
    weight: u32,
    capacityBytes: u53,
    state: u8,
    session: u53,
  }),
  serversMax,
);
const volumesCodec: Codec<Volume[]> = array(
  struct({ id: u32, name: text, sizeBytes: u53, state: u8, readOnly: bool, swept: array(u32, serversMax) }),
  volumesMax,
);
const sessionsCodec: Codec<Session[]> = array(struct({ number: u53, server: u32, host: text, pid: u32 }), sessionsMax);
const ownersCodec: Codec<number[][]> = array(array(u32, 3), shardsMax);

function refuse(error: ErrorCode, message: string, retryAfterMs?: number): ManagerError {
  return retryAfterMs === undefined ? { error, message } : { error, message, retryAfterMs };
}

function isWhole(value: unknown, least: number, most: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
}

/** Why `value` cannot be HOST:PORT, or undefined. */
export function addressFault(value: unknown): string | undefined {
  if (typeof value !== "string" || value.length > 255) return "not an address HOST:PORT";
  const match = /^(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})$/.exec(value);
  if (match === null) return `${value} is not an address HOST:PORT`;
  const port = Number(match[1]);
  return port >= 1 && port <= 65535 ? undefined : `${value} has no port between 1 and 65535`;
}

/** Why `value` cannot name a volume, or undefined. */
export function volumeNameFault(value: unknown): string | undefined {
  if (typeof value === "string" && namePattern.test(value) && value !== "." && value !== "..") return undefined;
  return `${JSON.stringify(value)} cannot name a volume: 1 to 128 of the letters A-Z a-z 0-9 . _ -`;
}

/** Why a cluster cannot have these measures, or undefined. */
export function clusterFault(shards: number, replicas: number): string | undefined {
  if (!isWhole(shards, 1, shardsMax)) return `shards: ${shards} is not a whole number from 1 to ${shardsMax}`;
  if (!isWhole(replicas, 1, 3)) return `replicas: ${replicas} is not a whole number from 1 to 3`;
  if (replicas > replicasMax) return `replicas: ${replicas} is not supported by this version`;
  return undefined;
}

/** See the module's comment. Made by {@linkcode Manager.open}. */
export class Manager {
  readonly #store: StateStore;
  readonly #options: ManagerOptions;
  readonly #cluster: Cluster;
  #servers: Server[];
  #volumes: Volume[];
  #sessions: Map<number, Session>;
  #owners: number[][];
  readonly #loads = new Map<number, Load>();
  readonly #heard = new Map<number, Heard>();
  readonly #mounts = new Map<number, SessionMount[]>();
  #lastJoinMs: number;
  #encodedMap: Uint8Array | null = null;

  private constructor(store: StateStore, options: ManagerOptions, cluster: Cluster, nowMs: number) {
    this.#store = store;
    this.#options = options;
    this.#cluster = cluster;
    this.#servers = this.#load("servers", serversCodec, []);
    this.#volumes = this.#load("volumes", volumesCodec, []);
    this.#sessions = new Map(this.#load("sessions", sessionsCodec, []).map((session) => [session.number, session]));
    this.#owners = this.#load("owners", ownersCodec, []);
    this.#lastJoinMs = nowMs;
    // Nobody could be heard while there was no manager: everyone gets a full timeout from now on.
    for (const server of this.#servers) this.#loads.set(server.id, emptyLoad(nowMs));
    for (const number of this.#sessions.keys()) this.#heard.set(number, { atMs: nowMs, heard: false });
  }

  /**
   * Reads the state, or formats an empty store. A text is why not: a store of another format, or one whose shards or
   * replicas are not the expected ones.
   */
  static open(store: StateStore, options: ManagerOptions, nowMs: number): Manager | string {
    const bytes = store.get("cluster");
    if (bytes === undefined) return Manager.#format(store, options, nowMs);
    try {
      const cluster = decodeCluster(bytes);
      if (typeof cluster === "string") return cluster;
      for (const key of ["shards", "replicas"] as const) {
        const asked = options.expected[key];
        if (asked !== undefined && asked !== cluster[key]) {
          return `${key}: ${asked} contradicts the cluster, which was made with ${key}: ${cluster[key]}; ` +
            `set it to ${cluster[key]} (it cannot change)`;
        }
      }
      return new Manager(store, options, cluster, nowMs);
    } catch (error) {
      if (error instanceof DecodeError) return `the manager's state is damaged: ${error.message}`;
      throw error;
    }
  }

  static #format(store: StateStore, options: ManagerOptions, nowMs: number): Manager | string {
    const { clusterId, shards, replicas } = options.newCluster;
    const fault = clusterFault(shards, replicas);
    if (fault !== undefined) return fault;
    const cluster: Cluster = {
      format: formatVersion,
      clusterId,
      shards,
      replicas,
      epoch: 1,
      frozen: false,
      lastServer: 0,
      lastVolume: 0,
      lastSession: 0,
    };
    store.put("cluster", encode(clusterCodec, cluster));
    store.commit();
    return new Manager(store, options, cluster, nowMs);
  }

  /** Identity of the cluster. */
  get clusterId(): string {
    return this.#cluster.clusterId;
  }

  /** Version of the newest map. */
  get epoch(): number {
    return this.#cluster.epoch;
  }

  /** The newest map, encoded, if it is newer than `epoch`. */
  mapAfter(epoch: number): Uint8Array | undefined {
    if (epoch >= this.#cluster.epoch) return undefined;
    return this.#encodedMap ??= encodeMap(this.map());
  }

  /** The newest map. */
  map(): ClusterMap {
    const { epoch, clusterId, shards, replicas, lastSession } = this.#cluster;
    return {
      epoch,
      clusterId,
      shards,
      replicas,
      servers: this.#servers.map(({ id, address, stores, weight, state }) => ({ id, address, stores, weight, state })),
      owners: this.#owners.map((list) => [...list]),
      volumes: this.#volumes.map(({ id, name, sizeBytes, state, readOnly }) => ({
        id,
        name,
        sizeBytes,
        state,
        readOnly,
      })),
      sessionHorizon: lastSession,
      sessions: [...this.#sessions.keys()],
    };
  }

  /**
   * A server starts. The same identity is the same server wherever it is; a process that was there before (or that
   * listened on the same address) is out. Repeating a registration is harmless.
   */
  registerServer(asked: ServerRegistration, nowMs: number): Reply<Registered> {
    const fault = registrationFault(asked);
    if (fault !== undefined) return refuse("invalid", fault);
    if (asked.clusterId !== "" && asked.clusterId !== this.#cluster.clusterId) {
      return refuse(
        "wrongCluster",
        `the server's data belongs to cluster ${asked.clusterId}, this manager runs cluster ${this.#cluster.clusterId}`,
      );
    }
    const known = this.#servers.find((server) => server.identity === asked.identity);
    if (known === undefined && asked.clusterId !== "") {
      return refuse(
        "wrongCluster",
        "the server's data says that it is of this cluster, but the manager does not know it",
      );
    }
    const server = known === undefined ? this.#newServer(asked, nowMs) : this.#returningServer(known, asked, nowMs);
    if (isRefusal(server)) return server;

    if (server.session !== 0) this.#dropSession(server.session);
    for (const other of this.#servers) {
      if (other !== server && other.address === asked.address && other.session !== 0) this.#displace(other);
    }
    const session = this.#newSession({ server: server.id, host: asked.address, pid: 0 }, nowMs);
    if (isRefusal(session)) return session;
    server.session = session;
    this.#loads.set(server.id, emptyLoad(nowMs));
    this.#setState(server, this.#aliveState(server));
    this.#save("servers", "sessions");
    this.#log("info", `server ${server.id} at ${server.address} is ${stateName(server.state)} (session ${session})`);
    return {
      serverId: server.id,
      session,
      clusterId: this.#cluster.clusterId,
      shards: this.#cluster.shards,
      map: this.mapAfter(0)!,
    };
  }

  #newServer(asked: ServerRegistration, nowMs: number): Reply<Server> {
    if (this.#servers.length >= serversMax) return refuse("full", `the cluster has ${serversMax} servers already`);
    if (this.#sessions.size >= sessionsMax) return refuse("full", `the cluster has ${sessionsMax} sessions already`);
    const { identity, address, stores, weight, capacityBytes } = asked;
    const id = ++this.#cluster.lastServer;
    const server = { id, identity, address, stores, weight, capacityBytes, state: serverState.down, session: 0 };
    this.#servers.push(server);
    this.#lastJoinMs = nowMs;
    return server;
  }

  #returningServer(server: Server, asked: ServerRegistration, nowMs: number): Reply<Server> {
    if (server.stores !== asked.stores) {
      return refuse("invalid", `server ${server.id} was made with ${server.stores} stores, not ${asked.stores}`);
    }
    const load = this.#loads.get(server.id)!;
    const silentMs = nowMs - load.atMs;
    // On one address there can be only one; on two the older one may be alive until it has been silent.
    if (server.session !== 0 && server.address !== asked.address && silentMs < this.#options.serverTimeoutMs) {
      return refuse(
        "identityInUse",
        `server ${server.id} is running at ${server.address}; its data must not be served from ${asked.address} too`,
        this.#options.serverTimeoutMs - silentMs,
      );
    }
    if (server.state !== serverState.up) this.#lastJoinMs = nowMs;
    server.address = asked.address;
    server.weight = asked.weight;
    server.capacityBytes = asked.capacityBytes;
    return server;
  }

  /** Another process listens on the server's address now, so it cannot be there any more. */
  #displace(server: Server): void {
    this.#dropSession(server.session);
    server.session = 0;
    this.#setState(server, serverState.down);
    this.#log("warn", `server ${server.id} is down: another server registered with its address ${server.address}`);
  }

  /** A server's heartbeat. `sessionDead`: another process took its place, it must stop. */
  serverHeartbeat(beat: ServerHeartbeat, nowMs: number): Reply<HeartbeatReply> {
    const session = this.#sessions.get(beat.session);
    const server = session === undefined ? undefined : this.#servers.find((one) => one.id === session.server);
    if (server === undefined || server.session !== beat.session) {
      return refuse("sessionDead", "another server process took this one's identity or address");
    }
    const fault = serverHeartbeatFault(beat);
    if (fault !== undefined) return refuse("invalid", fault);
    this.#loads.set(server.id, {
      atMs: nowMs,
      heard: true,
      usedBytes: beat.usedBytes,
      requestsPerSecond: beat.requestsPerSecond,
      hostLoad: beat.hostLoad,
      volumes: beat.volumes,
    });
    server.capacityBytes = beat.capacityBytes;
    if (server.state === serverState.down) {
      this.#setState(server, this.#aliveState(server));
      this.#lastJoinMs = nowMs;
      this.#save("servers");
      this.#log("info", `server ${server.id} at ${server.address} is ${stateName(server.state)} again`);
    }
    this.#noteSwept(server.id, beat.swept);
    return { epoch: this.#cluster.epoch };
  }

  /** Removes volumes in deletion of which no server that holds shards has anything left. */
  #noteSwept(serverId: number, swept: readonly number[]): void {
    let changed = false;
    for (const id of swept) {
      const volume = this.#volumes.find((one) => one.id === id && one.state === volumeState.deleting);
      if (volume === undefined || volume.swept.includes(serverId)) continue;
      volume.swept.push(serverId);
      changed = true;
    }
    if (!changed) return;
    const holders = this.#holders();
    const gone = this.#volumes.filter((one) =>
      one.state === volumeState.deleting && holders.every((id) => one.swept.includes(id))
    );
    if (gone.length > 0) {
      this.#volumes = this.#volumes.filter((one) => !gone.includes(one));
      this.#changed();
      for (const volume of gone) this.#log("info", `volume ${volume.name} (${volume.id}) is gone`);
    }
    this.#save("volumes");
  }

  /** A client starts a session. */
  openSession(client: { host: string; pid: number }, nowMs: number): Reply<{ session: number; map: Uint8Array }> {
    if (typeof client.host !== "string" || client.host.length > 255 || !isWhole(client.pid, 0, 2 ** 32 - 1)) {
      return refuse("invalid", "a session needs the client's host and pid");
    }
    const session = this.#newSession({ server: 0, host: client.host, pid: client.pid }, nowMs);
    if (isRefusal(session)) return session;
    this.#mounts.set(session, []);
    this.#save("sessions");
    this.#log("info", `session ${session}: client on ${client.host}, pid ${client.pid}`);
    return { session, map: this.mapAfter(0)! };
  }

  /**
   * A client ends its session: what it held open or locked is free. A server that ends its own is down at once, and may
   * come back anywhere. Harmless when it is gone.
   */
  closeSession(number: number): void {
    const session = this.#sessions.get(number);
    if (session === undefined) return;
    this.#dropSession(number);
    const server = this.#servers.find((one) => one.session === number);
    if (server !== undefined) {
      server.session = 0;
      this.#setState(server, serverState.down);
      this.#log("info", `server ${server.id} at ${server.address} has stopped`);
      return this.#save("servers", "sessions");
    }
    this.#log("info", `session ${number} is closed`);
    this.#save("sessions");
  }

  /** A client's heartbeat. `sessionDead`: it must start anew. `notFound`: a volume it wants to mount is not live. */
  clientHeartbeat(beat: ClientHeartbeat, nowMs: number): Reply<HeartbeatReply> {
    const session = this.#sessions.get(beat.session);
    if (session === undefined || session.server !== 0) return refuse("sessionDead", `session ${beat.session} is dead`);
    const fault = mountsFault(beat.mounts);
    if (fault !== undefined) return refuse("invalid", fault);
    this.#heard.set(beat.session, { atMs: nowMs, heard: true });
    const before = this.#mounts.get(beat.session);
    // A session that this manager has not heard yet had its mounts before: they stay, also on a volume in deletion.
    for (const { volume } of before === undefined ? [] : beat.mounts) {
      const live = this.#volumes.some((one) => one.id === volume && one.state === volumeState.live);
      if (!live && !before!.some((mount) => mount.volume === volume)) return refuse("notFound", `no volume ${volume}`);
    }
    this.#mounts.set(beat.session, beat.mounts);
    return { epoch: this.#cluster.epoch };
  }

  /**
   * Makes a volume. The first one freezes the placement: it waits (`settling`) until no server has joined for
   * {@linkcode placementSettleMs}, or with `servers` until that many are up.
   */
  createVolume(
    asked: { name: string; sizeBytes: number; readOnly?: boolean; servers?: number },
    nowMs: number,
  ): Reply<VolumeStatus> {
    const { name, sizeBytes, readOnly = false } = asked;
    const fault = volumeNameFault(name);
    if (fault !== undefined) return refuse("invalid", fault);
    if (!isWhole(sizeBytes, 1, volumeBytesMax)) return refuse("invalid", `a volume cannot have ${sizeBytes} bytes`);
    if (this.#liveVolume(name) !== undefined) return refuse("exists", `volume ${name} exists already`);
    if (this.#volumes.length >= volumesMax) return refuse("full", `the cluster has ${volumesMax} volumes already`);
    const waiting = this.#cluster.frozen ? undefined : this.#placementUnready(asked.servers, nowMs);
    if (waiting !== undefined) return waiting;

    const id = ++this.#cluster.lastVolume;
    const volume = { id, name, sizeBytes, state: volumeState.live, readOnly: readOnly === true, swept: [] };
    this.#volumes.push(volume);
    if (!this.#cluster.frozen) {
      this.#cluster.frozen = true;
      this.#log("info", `placement is frozen: ${this.#cluster.shards} shards on ${this.#holders().length} servers`);
    }
    this.#changed();
    this.#save("volumes", "owners");
    this.#log("info", `volume ${name} (${id}) is made, ${sizeBytes} bytes`);
    return this.#volumeStatus(volume);
  }

  #placementUnready(wanted: number | undefined, nowMs: number): ManagerError | undefined {
    const up = this.#servers.filter((server) => server.state === serverState.up).length;
    if (wanted !== undefined) {
      if (!isWhole(wanted, 1, serversMax)) return refuse("invalid", `servers: ${wanted} is not a number of servers`);
      if (up >= wanted) return undefined;
      return refuse("noServers", `${up} of ${wanted} servers have registered`, placementSettleMs / 4);
    }
    if (up === 0) return refuse("noServers", "no server has registered yet", placementSettleMs / 4);
    const quietMs = nowMs - this.#lastJoinMs;
    if (quietMs >= placementSettleMs) return undefined;
    return refuse("settling", "servers are still joining", placementSettleMs - quietMs);
  }

  /** Starts the removal of a volume: its data goes in the background. Refused while it is mounted unless `force`. */
  deleteVolume(name: string, force: boolean): Reply<VolumeStatus> {
    const volume = this.#liveVolume(name);
    if (volume === undefined) return refuse("notFound", `no volume ${name}`);
    const users = this.#users(volume.id);
    if (users.length > 0 && !force) {
      const { host, path } = users[0];
      const others = users.length > 1 ? ` and ${users.length - 1} more` : "";
      return refuse("busy", `volume ${name} is mounted at ${path} on ${host}${others}`);
    }
    const unheard = [...this.#sessions.values()].some((one) => one.server === 0 && !this.#mounts.has(one.number));
    if (unheard && !force) {
      return refuse("settling", "some clients have not said yet what they have mounted", placementSettleMs / 4);
    }
    volume.state = volumeState.deleting;
    this.#changed();
    this.#save("volumes");
    this.#log("info", `volume ${name} (${volume.id}) is being deleted`);
    return this.#volumeStatus(volume);
  }

  /** All volumes. */
  listVolumes(): VolumeStatus[] {
    return this.#volumes.map((volume) => this.#volumeStatus(volume));
  }

  /** All there is to show. */
  status(nowMs: number): ClusterStatus {
    const { clusterId, epoch, shards, replicas, frozen } = this.#cluster;
    const clients = [...this.#sessions.values()].filter((session) => session.server === 0);
    return {
      clusterId,
      epoch,
      shards,
      replicas,
      placementFrozen: frozen,
      servers: this.#servers.map((server) => this.#serverStatus(server, nowMs)),
      volumes: this.listVolumes(),
      sessions: clients.map(({ number, host, pid }) => ({
        session: number,
        host,
        pid,
        mounts: (this.#mounts.get(number) ?? []).map(({ volume, path }) => ({
          volume: this.#volumeName(volume),
          path,
        })),
        lastHeartbeatAgoMs: ago(this.#heard.get(number)!, nowMs),
      })),
    };
  }

  /** Time passes: silent servers go down, silent client sessions die. Call it a few times in each timeout. */
  tick(nowMs: number): void {
    const silent = this.#servers.filter((server) =>
      server.state !== serverState.down && nowMs - this.#loads.get(server.id)!.atMs >= this.#options.serverTimeoutMs
    );
    for (const server of silent) {
      this.#setState(server, serverState.down);
      this.#log("warn", `server ${server.id} at ${server.address} is down: silent for its timeout`);
    }
    if (silent.length > 0) this.#save("servers");

    const dead = [...this.#sessions.values()].filter((session) =>
      session.server === 0 && nowMs - this.#heard.get(session.number)!.atMs >= sessionTimeoutMs
    );
    for (const { number, host, pid } of dead) {
      this.#dropSession(number);
      this.#log("warn", `session ${number} (client on ${host}, pid ${pid}) is dead: silent for its timeout`);
    }
    if (dead.length > 0) this.#save("sessions");
  }

  #load<T>(key: string, codec: Codec<T>, empty: T): T {
    const bytes = this.#store.get(key);
    return bytes === undefined ? empty : decode(codec, bytes);
  }

  /** Puts the tables that changed, with the counters, and commits. */
  #save(...tables: ("servers" | "volumes" | "sessions" | "owners")[]): void {
    const store = this.#store;
    for (const table of new Set(tables)) {
      if (table === "servers") store.put(table, encode(serversCodec, this.#servers));
      else if (table === "volumes") store.put(table, encode(volumesCodec, this.#volumes));
      else if (table === "sessions") store.put(table, encode(sessionsCodec, [...this.#sessions.values()]));
      else store.put(table, encode(ownersCodec, this.#owners));
    }
    store.put("cluster", encode(clusterCodec, this.#cluster));
    store.commit();
  }

  /** The map differs from the one handed out. */
  #changed(): void {
    this.#cluster.epoch++;
    this.#encodedMap = null;
  }

  #newSession(of: { server: number; host: string; pid: number }, nowMs: number): Reply<number> {
    if (this.#sessions.size >= sessionsMax) return refuse("full", `the cluster has ${sessionsMax} sessions already`);
    const number = ++this.#cluster.lastSession;
    this.#sessions.set(number, { number, ...of });
    this.#heard.set(number, { atMs: nowMs, heard: false });
    this.#changed();
    return number;
  }

  #dropSession(number: number): void {
    this.#sessions.delete(number);
    this.#heard.delete(number);
    this.#mounts.delete(number);
    this.#changed();
  }

  /** What a server that is heard is: `joining` when the placement is frozen without it. */
  #aliveState(server: Server): number {
    return !this.#cluster.frozen || this.#holders().includes(server.id) ? serverState.up : serverState.joining;
  }

  #setState(server: Server, state: number): void {
    server.state = state;
    this.#changed();
    if (!this.#cluster.frozen) this.#place();
  }

  /** Gives every shard to the servers that are up. Only before the placement is frozen: no shard holds data yet. */
  #place(): void {
    const up = this.#servers.filter((server) => server.state === serverState.up);
    const { shards, replicas } = this.#cluster;
    this.#owners = up.length === 0
      ? []
      : Array.from({ length: shards }, (_, shard) => rank(shard, up).slice(0, replicas));
    this.#store.put("owners", encode(ownersCodec, this.#owners));
  }

  /** Servers that hold shards. */
  #holders(): number[] {
    return [...new Set(this.#owners.flat())];
  }

  #liveVolume(name: string): Volume | undefined {
    return this.#volumes.find((volume) => volume.name === name && volume.state === volumeState.live);
  }

  #volumeName(id: number): string {
    return this.#volumes.find((volume) => volume.id === id)?.name ?? `(deleted volume ${id})`;
  }

  #users(volume: number): { host: string; path: string }[] {
    const users: { host: string; path: string }[] = [];
    for (const [number, mounts] of this.#mounts) {
      const host = this.#sessions.get(number)?.host ?? "";
      for (const mount of mounts) if (mount.volume === volume) users.push({ host, path: mount.path });
    }
    return users;
  }

  #volumeStatus(volume: Volume): VolumeStatus {
    let usedBytes = 0, inodes = 0;
    for (const load of this.#loads.values()) {
      for (const usage of load.volumes) {
        if (usage.id !== volume.id) continue;
        usedBytes += usage.usedBytes;
        inodes += usage.inodes;
      }
    }
    return {
      id: volume.id,
      name: volume.name,
      state: volume.state === volumeState.live ? "live" : "deleting",
      sizeBytes: volume.sizeBytes,
      usedBytes,
      inodes,
      readOnly: volume.readOnly,
      mounts: this.#users(volume.id).length,
    };
  }

  #serverStatus(server: Server, nowMs: number): ServerStatus {
    const load = this.#loads.get(server.id)!;
    return {
      id: server.id,
      address: server.address,
      state: stateName(server.state),
      stores: server.stores,
      weight: server.weight,
      shards: this.#owners.filter((list) => list[0] === server.id).length,
      capacityBytes: server.capacityBytes,
      usedBytes: load.usedBytes,
      requestsPerSecond: load.requestsPerSecond,
      hostLoad: load.hostLoad,
      lastHeartbeatAgoMs: ago(load, nowMs),
    };
  }

  #log(level: LogLevel, message: string): void {
    this.#options.log?.(level, message);
  }
}

function decodeCluster(bytes: Uint8Array): Cluster | string {
  const format = bytes.length < 2 ? 0 : bytes[0] | bytes[1] << 8;
  if (format !== formatVersion) {
    return `the manager's state has format ${format}, this version reads format ${formatVersion}`;
  }
  return decode(clusterCodec, bytes);
}

function registrationFault(asked: ServerRegistration): string | undefined {
  if (typeof asked.identity !== "string" || !identityPattern.test(asked.identity)) return "the server has no identity";
  if (typeof asked.clusterId !== "string") return "the server names no cluster";
  const fault = addressFault(asked.address);
  if (fault !== undefined) return `server address: ${fault}`;
  if (!isWhole(asked.stores, 1, 256)) return `stores: ${asked.stores} is not a whole number from 1 to 256`;
  if (!isWhole(asked.weight, 1, weightMax)) {
    return `weight: ${asked.weight} is not a whole number from 1 to ${weightMax}`;
  }
  if (!isWhole(asked.capacityBytes, 0, volumeBytesMax)) return "the capacity is not a whole number of bytes";
  return undefined;
}

function serverHeartbeatFault(beat: ServerHeartbeat): string | undefined {
  const { capacityBytes, usedBytes, requestsPerSecond, hostLoad, swept, volumes } = beat;
  if (![capacityBytes, usedBytes].every((value) => isWhole(value, 0, volumeBytesMax))) return "heartbeat: not bytes";
  if (![requestsPerSecond, hostLoad].every(Number.isFinite)) return "heartbeat: not a load";
  if (!Array.isArray(swept) || !swept.every((id) => isWhole(id, 1, 2 ** 32 - 1))) return "heartbeat: not volumes";
  if (!Array.isArray(volumes) || volumes.length > volumesMax || swept.length > volumesMax) {
    return "heartbeat: not volumes";
  }
  const fine = volumes.every((usage) =>
    isWhole(usage?.id, 1, 2 ** 32 - 1) && isWhole(usage.usedBytes, 0, volumeBytesMax) &&
    isWhole(usage.inodes, 0, volumeBytesMax)
  );
  return fine ? undefined : "heartbeat: not the use of a volume";
}

function mountsFault(mounts: SessionMount[]): string | undefined {
  if (!Array.isArray(mounts)) return "heartbeat: no list of mounts";
  if (mounts.length > mountsMax) return `more than ${mountsMax} mounts in one session`;
  const fine = mounts.every((mount) =>
    isWhole(mount?.volume, 1, 2 ** 32 - 1) && typeof mount.path === "string" && mount.path.length <= pathCharsMax
  );
  return fine ? undefined : "heartbeat: not a mount";
}

function emptyLoad(nowMs: number): Load {
  return { atMs: nowMs, heard: false, usedBytes: 0, requestsPerSecond: 0, hostLoad: 0, volumes: [] };
}

function stateName(state: number): "up" | "down" | "joining" {
  return state === serverState.up ? "up" : state === serverState.down ? "down" : "joining";
}

function ago(heard: Heard, nowMs: number): number | null {
  return heard.heard ? Math.max(0, Math.round(nowMs - heard.atMs)) : null;
}
