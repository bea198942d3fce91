/**
 * What a server's main thread and its reactor Workers (`server_worker.ts`, one a store) say to each other: the first
 * message comes by postMessage and carries the mailbox, all others go through the mailbox as CBOR.
 *
 * @module
 */

import type { VolumeUsage } from "../core/manager/manager.ts";
import type { LogOptions } from "./log.ts";
import type { MailboxPort } from "./mailbox.ts";
import type { StoreMetricsMemory } from "./metrics/server_metrics.ts";

/** The first message to a Worker: all it needs to open its store and serve. */
export interface ServerWorkerStart {
  mailbox: MailboxPort;
  log: LogOptions;
  clusterId: string;
  serverId: number;
  session: number;
  /** The cluster's secret; null without one. */
  secret: string | null;
  /** Which of the server's stores, from 0. The Worker of store 0 listens and hands links to the others. */
  store: number;
  stores: number;
  /** `host:port`, numeric. */
  listen: string;
  databasePath: string;
  storagePaths: string[];
  /** The cluster map, encoded. */
  map: Uint8Array;
  /** Where the store shows its figures. */
  metrics: StoreMetricsMemory;
}

/** Posted by the main thread. */
export type ServerOrder =
  /** A newer map. */
  | { type: "map"; bytes: Uint8Array }
  /** A connection that store 0 accepted for this store: its descriptor, and what was received on it. */
  | { type: "adopt"; fd: number; received: Uint8Array };

/** Called by the main thread. */
export type ServerQuestion =
  /** Answered with {@linkcode StoreStatistics}. */
  | { type: "statistics" }
  /** Stop serving, make a checkpoint, close the store. Answered with true when that is done; then the Worker ends. */
  | { type: "stop" };

/** Posted by the Worker. */
export type ServerReport =
  /** The store is open and is served. */
  | { type: "ready" }
  /** The store cannot be opened or served, one line. The Worker ends. */
  | { type: "failed"; message: string }
  /** A peer knows this epoch; the Worker's map is older. */
  | { type: "needMap"; epoch: number }
  /** A connection for another store. */
  | { type: "handOver"; store: number; fd: number; received: Uint8Array };

/** Called by the Worker: answered with the numeric address of a host name, or null. */
export interface ResolveQuestion {
  type: "resolve";
  host: string;
}

/** What one store says of itself at each heartbeat. */
export interface StoreStatistics {
  capacityBytes: number;
  usedBytes: number;
  /** Requests answered since the start. */
  requests: number;
  /** Volumes in deletion of which nothing is left in this store. */
  swept: number[];
  volumes: VolumeUsage[];
}
