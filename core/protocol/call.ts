/**
 * One request under way, from its first send to its answer: what the caller, the peer it goes to and the hooks of
 * both know of it.
 *
 * @module
 */

import type { Network, Runtime } from "../runtime.ts";
import type { MapHolder } from "../placement/map_holder.ts";
import { Future } from "../task.ts";
import type { Of } from "./codec.ts";
import { type Frame, noShard, noSlot } from "./frame.ts";
import type { SlotPool } from "./gate.ts";
import type { Message, RECLAIM } from "./messages.ts";

/** How one attempt ended. `lost`: no answer will come on this link; `late`: the deadline passed. */
export type Outcome = "answered" | "lost" | "late" | "malformed";

/** A request and, once answered, its reply. */
export class Call {
  shard = noShard;
  slot: number = noSlot;
  sequence = 0;
  session = 0;
  pool: SlotPool | null = null;
  /** Data that follows the body; stays untouched until the call ends, since it may be sent again. */
  data: Uint8Array | undefined = undefined;
  /** Where the reply's data goes. */
  into: Uint8Array | undefined = undefined;

  id = 0;
  sends = 0;
  answers = 0;
  sentAtMs = 0;
  /** When the first of its sends left. */
  firstSentAtMs = 0;
  outcome = new Future<Outcome>();

  status = 0;
  replyEpoch = 0;
  replyBody: unknown = undefined;
  replyLength = 0;
  replyData: Uint8Array | undefined = undefined;
  server = 0;
  /** What the task that made it works for, see Scheduler.origin. */
  origin = 0;

  constructor(readonly message: Message, readonly body: unknown, readonly deadlineMs: number) {}
}

/** What a caller tells its owner, and asks of it. */
export interface CallerHooks {
  /** What the session holds on a store that it meets for the first time since the store's start; the last has `last`. */
  reclaim?(serverId: number, store: number): Of<typeof RECLAIM.request>[];
  /** The manager declared the session dead. Called once a session; {@linkcode Caller.renew} starts the next one. */
  sessionDead?(): void;
  /** A reply has arrived, its call filled in, its task not yet resumed. `leases`: bits of leaseBits. */
  replied?(call: Call, leases: number): void;
  /** A mutation was given up, or after that fenced: it may have taken effect at any moment until now. */
  uncertain?(call: Call): void;
  /** A frame that answers nothing (frameFlags.push). May throw DecodeError. The frame is valid during the call only. */
  push?(frame: Frame, serverId: number, store: number): void;
  /** The clock that goes out in frames, in ms since 1970; default: the wall clock. */
  clockMs?(): number;
  /** The clock of a server's reply. */
  heardClock?(clockMs: number): void;
}

/** Counts since the start, for metrics and for tests of round trips. */
export interface CallerCounters {
  /** Requests sent, by message type number; one sent twice counts twice. */
  sent: number[];
  /** Requests sent, by what the task that made them worked for (Scheduler.origin); beyond its length nothing counts. */
  sentFor: Float64Array;
  /** Attempts beyond a call's first. */
  retries: number;
  bytesSent: number;
  bytesReceived: number;
  /** Frames that could not be read; each cost its link. */
  malformed: number;
  /** Replies to requests given up or answered before. */
  strays: number;
  /** Links opened. */
  links: number;
}

/** Limits and surroundings that a caller shares with its peers. */
export interface CallerContext {
  readonly runtime: Runtime;
  readonly network: Network;
  readonly maps: MapHolder;
  readonly secret: Uint8Array | null;
  /** One of peerKind. */
  readonly kind: number;
  /** Keep links up that were opened once (clients: grace, pushes). */
  readonly keepLinks: boolean;
  readonly callTimeoutMs: number;
  readonly ioTimeoutMs: number;
  readonly hooks: CallerHooks;
  readonly counters: CallerCounters;
  /** The session now; 0 for servers. */
  readonly session: number;
  /** False from the death of a session until the next one. */
  readonly sessionAlive: boolean;
  /** The session was declared dead by a server. */
  sessionDied(session: number): void;
}
