/**
 * The log of a store: records of all its shards, interleaved, in numbered segments of preallocated files. What is in the
 * log survives a kill; what was synced survives a power cut. A turn's records leave in one write.
 *
 * A segment starts with 64 bytes, little-endian: magic "SEALFSLG", version u32, store u32 (crc32 of the store's identity),
 * segment u53, the segment before it u53 (0: none), where that one ended u53, 20 bytes of 0, crc32 u32 of the 60 bytes
 * before. That crc is the seed of the crcs of the segment's records, so bytes of an older life of a reused file never
 * pass for records. Reading stops at the first thing that is not intact; the header of the next segment tells whether
 * that was the end of this one. What the records mean is the business of store.ts.
 *
 * @module
 */

import { Reader, Writer } from "../protocol/codec.ts";
import { E } from "../errno.ts";
import type { IoResult, LogFile } from "../runtime.ts";
import type { Future } from "../task.ts";
import { intactRecord, sealRecord } from "./record.ts";
import { crc32 } from "node:zlib";

/** Version of the segment layout. */
export const logVersion = 1;
/** Bytes of a segment's header. */
export const segmentHeadBytes = 64;
const magic = new TextEncoder().encode("SEALFSLG");

/** A segment that was read: its records lie in `bytes` from {@linkcode segmentHeadBytes} to `end`. */
export interface ReadSegment {
  segment: number;
  bytes: Uint8Array;
  end: number;
}

/** What {@linkcode readLog} found. */
export interface LogContents {
  segments: ReadSegment[];
  /** Why reading ended before the last byte, for the server's log; "" when nothing is amiss. */
  note: string;
}

/**
 * Reads all intact segments from number `first` on, in order: those before were dropped, even if a power cut has brought
 * one back. A text is an error: this is not our log. Nothing is changed.
 */
export function readLog(file: LogFile, storeSum: number, first: number): LogContents | string {
  const contents: LogContents = { segments: [], note: "" };
  for (const segment of file.segments().filter((number) => number >= first)) {
    const bytes = file.read(segment), head = readHead(bytes);
    if (head === null) {
      contents.note = `log segment ${segment} has no intact header`;
      break;
    }
    if (head.version !== logVersion) {
      return `log segment ${segment} has version ${head.version}, this program knows ${logVersion}`;
    }
    if (head.store !== storeSum) return `log segment ${segment} belongs to another store`;
    const last = contents.segments.at(-1);
    if (head.segment !== segment || last !== undefined && (head.before !== last.segment || head.beforeEnd > last.end)) {
      contents.note = `log segment ${segment} does not continue the one before it, which ends early`;
      break;
    }
    // What an earlier start refused to replay stays refused.
    if (last !== undefined) last.end = head.beforeEnd;
    let end = segmentHeadBytes;
    for (let length; (length = intactRecord(bytes, end, head.seed)) > 0;) end += length;
    contents.segments.push({ segment, bytes, end });
  }
  return contents;
}

/** The records of a segment: their bytes, and where in the segment they start. */
export function* recordsOf(segment: ReadSegment): Generator<{ bytes: Uint8Array; at: number }, void> {
  for (let at = segmentHeadBytes; at < segment.end;) {
    const length = new Reader(segment.bytes, at).u32();
    yield { bytes: segment.bytes.subarray(at, at + length), at };
    at += length;
  }
}

function readHead(bytes: Uint8Array) {
  if (bytes.length < segmentHeadBytes || magic.some((byte, i) => bytes[i] !== byte)) return null;
  const seed = crc32(bytes.subarray(0, 60));
  const r = new Reader(bytes, 60);
  if (r.u32() !== seed) return null;
  r.at = 8;
  const version = r.u32(), store = r.u32();
  if (version !== logVersion) return { version, store, segment: 0, before: 0, beforeEnd: 0, seed };
  return { version, store, segment: r.u53(), before: r.u53(), beforeEnd: r.u53(), seed };
}

/** Sizes of a log. */
export interface LogLimits {
  /** Bytes of a segment. More than the largest record and the header. */
  segmentBytes: number;
  /** Most bytes of all segments together. */
  logBytesMax: number;
}

/** A segment that is kept: its number and the highest position of each shard in it. */
export interface KeptSegment {
  segment: number;
  positions: Map<number, number>;
}

/** Whether someone still needs the record of `shard` at `position`. */
export type Held = (shard: number, position: number) => boolean;

/** What a log goes on from. */
export interface LogOptions {
  file: LogFile;
  limits: LogLimits;
  storeSum: number;
  /** Segments that exist, oldest first, and where the last of them ends. */
  kept: KeptSegment[];
  keptEnd: number;
  /** Number of the next segment: never used before in this store. */
  nextSegment: number;
  /** Called when there is no room for a segment: should bring all records into the image and drop segments. errno. */
  makeRoom: () => number;
}

/** The log being written. A new segment is begun by the first record after the start. */
export class Log {
  readonly #file: LogFile;
  readonly #limits: LogLimits;
  readonly #storeSum: number;
  readonly #makeRoom: () => number;
  readonly #segments: KeptSegment[];
  #nextSegment: number;
  /** Bytes of the last segment that are taken, queued ones included. */
  #end: number;
  #open = false;
  #seed = 0;
  #written = 0;
  #synced = 0;
  /** Where records are encoded; what is in it waits for {@linkcode flush}. */
  readonly writer = new Writer(256 * 1024);

  constructor(options: LogOptions) {
    this.#file = options.file;
    this.#limits = options.limits;
    this.#storeSum = options.storeSum;
    this.#segments = options.kept;
    this.#end = options.keptEnd;
    this.#nextSegment = options.nextSegment;
    this.#makeRoom = options.makeRoom;
  }

  /** Number that the next segment gets. */
  get nextSegment(): number {
    return this.#nextSegment;
  }

  /** Part of the log's room that is taken, 0..1. */
  get fill(): number {
    const full = Math.max(0, this.#segments.length - 1) * this.#limits.segmentBytes;
    return (full + this.#end) / this.#limits.logBytesMax;
  }

  /** Where the next record goes, unless it needs a new segment. */
  get point(): { segment: number; end: number } {
    return { segment: this.#segments.at(-1)?.segment ?? 0, end: this.#end };
  }

  /** Counts bytes written; what a sync covers is compared with it. */
  get writtenBytes(): number {
    return this.#written;
  }

  /** True when something was queued or written since the last sync. */
  get dirty(): boolean {
    return this.writer.length > 0 || this.#synced < this.#written;
  }

  /** Queues the record that starts at `start` of the writer and seals it. `position` 0: nobody will ever hold it. errno. */
  append(start: number, shard: number, position: number): number {
    const length = this.writer.length - start;
    if (length + segmentHeadBytes > this.#limits.segmentBytes) {
      throw new RangeError(`record of ${length} bytes in the log`);
    }
    if (!this.#open || this.#end + length > this.#limits.segmentBytes) {
      const errno = this.#roll(start);
      if (errno !== 0) return errno;
      start = this.writer.length - length;
    }
    sealRecord(this.writer, start, this.#seed);
    this.#end += length;
    if (position > 0) this.#segments[this.#segments.length - 1].positions.set(shard, position);
    return 0;
  }

  /** Writes what is queued, in one write. errno. */
  flush(): number {
    if (this.writer.length === 0) return 0;
    const errno = this.#file.write(this.writer.view());
    if (errno === 0) this.#written += this.writer.length;
    this.writer.reset();
    return errno;
  }

  /** Everything flushed before is durable when this settles with 0; then call {@linkcode syncedTo}. */
  sync(): Future<IoResult> {
    return this.#file.sync();
  }

  /** A sync that began when `writtenBytes` was `mark` has succeeded. */
  syncedTo(mark: number): void {
    if (mark > this.#synced) this.#synced = mark;
  }

  /** As `sync`, blocking, if there is anything to sync. errno. */
  syncNow(): IoResult {
    if (this.#synced === this.#written) return 0;
    const errno = this.#file.syncNow();
    if (errno === 0) this.#synced = this.#written;
    return errno;
  }

  /** Number of the oldest segment that {@linkcode drop} will leave. */
  firstNeeded(held: Held): number {
    const kept = this.#segments.find((segment, i) => i === this.#segments.length - 1 || isHeld(segment, held));
    return kept?.segment ?? this.#nextSegment;
  }

  /** Removes segments from the oldest on, except the last, until one is needed. All their records must be in the durable image. */
  drop(held: Held): void {
    while (this.#segments.length > 1 && !isHeld(this.#segments[0], held)) this.#dropOldest();
  }

  #dropOldest(): void {
    this.#file.remove(this.#segments.shift()!.segment);
  }

  /** Writes what precedes `start` to the current segment and begins a new one, with the record at `start` behind its header. */
  #roll(start: number): number {
    const record = this.writer.bytes.slice(start, this.writer.length);
    this.writer.length = start;
    const errno = this.flush() || this.#create();
    if (errno === 0) this.writer.raw(record);
    return errno;
  }

  #create(): number {
    const { segmentBytes, logBytesMax } = this.#limits;
    if ((this.#segments.length + 1) * segmentBytes > logBytesMax) {
      const errno = this.#makeRoom();
      if (errno !== 0) return errno;
      // The cap wins over those who hold segments: whoever is that far behind needs a snapshot.
      while (this.#segments.length > 1 && (this.#segments.length + 1) * segmentBytes > logBytesMax) this.#dropOldest();
    }
    const before = this.#segments.at(-1)?.segment ?? 0, beforeEnd = this.#segments.length === 0 ? 0 : this.#end;
    let errno = this.#file.create(this.#nextSegment, segmentBytes);
    if (errno === E.NOSPC) errno = this.#createInPlace(segmentBytes);
    if (errno !== 0) return errno;
    this.#segments.push({ segment: this.#nextSegment, positions: new Map() });
    this.#open = true;
    this.#end = segmentHeadBytes;
    this.#writeHead(this.#nextSegment++, before, beforeEnd);
    return 0;
  }

  /** The disk is full: brings everything into the image, so that the present segment can make place for the next. */
  #createInPlace(segmentBytes: number): number {
    const errno = this.#makeRoom();
    if (errno !== 0) return errno;
    while (this.#segments.length > 0) this.#dropOldest();
    return this.#file.create(this.#nextSegment, segmentBytes);
  }

  #writeHead(segment: number, before: number, beforeEnd: number): void {
    const w = this.writer, start = w.length;
    w.raw(magic);
    w.u32(logVersion);
    w.u32(this.#storeSum);
    w.u53(segment);
    w.u53(before);
    w.u53(beforeEnd);
    w.raw(new Uint8Array(20));
    this.#seed = crc32(w.bytes.subarray(start, w.length));
    w.u32(this.#seed);
  }
}

function isHeld(segment: KeptSegment, held: Held): boolean {
  for (const [shard, position] of segment.positions) if (held(shard, position)) return true;
  return false;
}
