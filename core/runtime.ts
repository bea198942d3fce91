/**
 * What core asks of the world. `ffi/` implements these interfaces for real, `tests/sim` with a seed.
 * Core itself does no I/O, reads no clock and has no randomness of its own.
 *
 * @module
 */

import type { Future, Scheduler } from "./task.ts";

/** A moment: whole seconds since 1970 (may be negative) and nanoseconds 0..999,999,999. */
export interface Time {
  sec: number;
  nsec: number;
}

/** Log levels, most severe first. */
export const logLevels = ["error", "warn", "info", "debug", "trace"] as const;
/** One of {@linkcode logLevels}. */
export type LogLevel = typeof logLevels[number];

/** The reactor, as core sees it. One a reactor thread; everything in it is used from that thread only. */
export interface Runtime {
  readonly scheduler: Scheduler;
  /** Monotonic milliseconds, with fraction. Comparable only within this process. */
  nowMs(): number;
  /** Wall clock. May jump. */
  wallTime(): Time;
  /** 32 unpredictable bits. */
  random32(): number;
  /** Settles after `ms` milliseconds. Timers are not cancelled: ignore one that comes late. */
  sleep(ms: number): Future<void>;
  /** One line; `component` is a short word such as "server" or "store". */
  log(level: LogLevel, component: string, message: string): void;
}

/** Where a store listens, as the cluster map gives it. */
export interface Endpoint {
  /** Identity of the server (never reused). */
  serverId: number;
  /** `host:port`. A network may choose a faster way when the server is on the same host. */
  address: string;
  /** Which store (reactor) of the server. */
  store: number;
}

/**
 * A byte-frame connection. Frames arrive whole, at most once each while the link lives (the simulator breaks this on
 * purpose), and in order (leases rely on it); a link that fails closes and is never reused.
 */
export interface Link {
  /** Queues one frame, `head` followed by `data`; both are copied before `send` returns. Everything sent in a turn leaves
   * as one send. A link whose queue is over its limit closes. */
  send(head: Uint8Array, data?: Uint8Array): void;
  /** Closes the link; `onClose` is not called for one's own close. */
  close(): void;
  /** Called with each whole frame. The view is valid only during the call: copy what must live longer. */
  onFrame: (frame: Uint8Array) => void;
  /** Called once when the link failed or the peer closed it. */
  onClose: (reason: string) => void;
  /** For logs. */
  readonly peer: string;
}

/** Makes links. Connecting never blocks: frames sent before the link is up wait in a bounded queue. */
export interface Network {
  connect(endpoint: Endpoint): Link;
}

/** One read or write of a block container: the errno (0 = whole, otherwise positive, e.g. 5 EIO). */
export type IoResult = number;

/**
 * The data area of a store: 4 KiB blocks addressed from 0, spread over one or more devices or files.
 * Writes may complete in any order; only `sync` makes them durable.
 */
export interface BlockContainer {
  /** Blocks that exist now over all devices. */
  readonly blockCount: number;
  /** Most blocks it could have (free space of the file system counted), for capacity reports. */
  readonly blockCountMax: number;
  /** Tries to have at least `blocks` blocks; errno (28 ENOSPC when the device is full). */
  grow(blocks: number): number;
  /** Reads `into.length` bytes (a multiple of 4096) starting at block `block`. */
  read(block: number, into: Uint8Array): Future<IoResult>;
  /** Writes `from` (a multiple of 4096 bytes) starting at block `block`. `from` must stay untouched until it settles. */
  write(block: number, from: Uint8Array): Future<IoResult>;
  /** Everything whose write has settled is durable when this settles with 0. */
  sync(): Future<IoResult>;
  /** As `sync`, blocking: for start and stop only. */
  syncNow(): IoResult;
  /** A buffer of at least `bytes` bytes that `read` and `write` take without copying. */
  allocate(bytes: number): Uint8Array;
  /** Gives a buffer of `allocate` back. */
  release(buffer: Uint8Array): void;
}

/**
 * The log as a file sees it: a sequence of segments of bytes. A byte is "written" after `write` returned 0 (it
 * survives a kill of the process) and durable after `sync` settled with 0 (it survives power loss).
 */
export interface LogFile {
  /** Numbers of the segments that exist, ascending. */
  segments(): number[];
  /** The bytes of a segment. Behind those written there may be zeros or what an earlier life of the file left. */
  read(segment: number): Uint8Array;
  /** Makes a new, preallocated segment of `bytes` bytes and appends go there. errno, 28 when there is no space. */
  create(segment: number, bytes: number): number;
  /** Appends to the current segment. Synchronous: one write a turn. errno. */
  write(bytes: Uint8Array): number;
  /** Everything written is durable when this settles with 0. */
  sync(): Future<IoResult>;
  /** As `sync`, blocking. */
  syncNow(): IoResult;
  /** Removes a segment that is no longer needed: its file may become a new segment's. */
  remove(segment: number): void;
}

/**
 * The ordered key-value image (LMDB, or a map in the simulator) inside one open write transaction.
 * Keys compare as unsigned bytes. Views handed out are valid until the next call.
 */
export interface Image {
  get(key: Uint8Array): Uint8Array | undefined;
  put(key: Uint8Array, value: Uint8Array): void;
  /** Removes a key; nothing happens when it is absent. */
  remove(key: Uint8Array): void;
  /** Visits keys in [from, to) ascending until `visit` returns false. `visit` may not change the image. */
  scan(from: Uint8Array, to: Uint8Array, visit: (key: Uint8Array, value: Uint8Array) => boolean): void;
  /** Makes everything put so far durable, atomically, and goes on with a new transaction. Blocking. errno. */
  commit(): number;
  /** Bytes in use and the most there can be: growing operations stop before it is full. */
  usage(): { usedBytes: number; limitBytes: number };
}
