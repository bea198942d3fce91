/**
 * What a client's main thread and the reactor Worker of one mount (`client_worker.ts`) say to each other: the first
 * message comes by postMessage and carries the mailbox, all others go through the mailbox as CBOR.
 *
 * @module
 */

import type { AccessTimePolicy } from "../core/client/volume.ts";
import type { FuseTransport } from "./fuse/mount.ts";
import type { LogOptions } from "./log.ts";
import type { MailboxPort } from "./mailbox.ts";
import type { ClientMetricsMemory } from "./metrics/client_metrics.ts";

/** The first message to a Worker: all it needs to serve one mount. */
export interface ClientWorkerStart {
  mailbox: MailboxPort;
  log: LogOptions;
  clusterId: string;
  session: number;
  /** The cluster's secret; null without one. */
  secret: string | null;
  /** The cluster map, encoded. */
  map: Uint8Array;
  /** Id of the volume. */
  volume: number;
  readOnly: boolean;
  accessTimes: AccessTimePolicy;
  /** By what the mount is served; it fails where that cannot be had. */
  transport: FuseTransport;
  /** Descriptor of /dev/fuse, mounted; the Worker closes it when it has `ended`, but not when it `failed`. */
  fuseFd: number;
  /** The mount's socket of the keeper (ffi/keeper_messages.ts), which the Worker closes with `fuseFd`; -1 without one. */
  keeperFd: number;
  /** How long a request is retried before it ends in EIO. */
  ioTimeoutMs: number;
  /** Where the reactor shows its figures. */
  metrics: ClientMetricsMemory;
}

/** Posted by the main thread. */
export type ClientOrder =
  /** A newer map. */
  | { type: "map"; bytes: Uint8Array }
  /** The old session died: what was open fails, new requests are of this one. */
  | { type: "session"; number: number };

/** Called by the main thread: stop serving, whatever is open. Answered with true; then the Worker ends. */
export interface ClientStop {
  type: "stop";
}

/** Posted by the Worker. */
export type ClientReport =
  /** The kernel's INIT has been answered, and it has gone over to the transport: the mount can be used. */
  | { type: "ready" }
  /** The mount cannot be served, one line. The Worker ends. */
  | { type: "failed"; message: string }
  /** A server knows this epoch; the Worker's map is older. */
  | { type: "needMap"; epoch: number }
  /** The kernel ended the connection (unmounted or aborted), and everything was released. The Worker ends. */
  | { type: "ended"; reason: string };
