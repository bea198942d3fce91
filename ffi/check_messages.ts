/**
 * What the main thread and the reactor Worker of a check (`check_worker.ts`) say to each other: the first message comes
 * by postMessage and carries the mailbox, all others go through the mailbox as CBOR.
 *
 * @module
 */

import type { Finding } from "../core/check/finding.ts";
import type { CheckProgress, CheckReport } from "../core/check/walk.ts";
import type { LogOptions } from "./log.ts";
import type { MailboxPort } from "./mailbox.ts";

/** The first message to a Worker. */
export interface CheckWorkerStart {
  mailbox: MailboxPort;
  log: LogOptions;
  /** A session of its own. */
  session: number;
  /** The cluster's secret; null without one. */
  secret: string | null;
  /** The cluster map, encoded. */
  map: Uint8Array;
  ioTimeoutMs: number;
  verifyData: boolean;
  repair: boolean;
}

/** Posted by the main thread: a newer map. */
export interface CheckOrder {
  type: "map";
  bytes: Uint8Array;
}

/** Called by the main thread when it has heard all: answered with true, then the Worker ends. */
export interface CheckEnd {
  type: "end";
}

/** Called by the Worker: answered with the numeric address of a host name, or null. */
export interface CheckResolve {
  type: "resolve";
  host: string;
}

/** A finding, as it is told. */
export type ToldFinding =
  & Pick<Finding, "kind" | "severity" | "shard" | "inode" | "text" | "path" | "refused">
  & { repairable: boolean };

/** Posted by the Worker. */
export type CheckTold =
  /** A server knows this epoch; the Worker's map is older. */
  | { type: "needMap"; epoch: number }
  | { type: "progress"; progress: CheckProgress }
  /** Some of what was found, or has been repaired. */
  | { type: "findings"; list: "findings" | "repaired"; some: ToldFinding[] }
  /** All has been told. */
  | { type: "done"; summary: Omit<CheckReport, "findings" | "repaired"> }
  /** The check could not be made, one line. */
  | { type: "failed"; message: string };
