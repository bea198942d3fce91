/**
 * Simulated media of a store: image, log and container in memory, with all that real ones do wrong, drawn from a seed.
 * They outlive the process that uses them: after `crash` call `attach` with the runtime of the next one.
 *
 * A kill keeps everything written (writes in flight may or may not have happened). A power cut keeps what was synced;
 * of the rest each 512-byte sector of log and container stays or goes by itself, and directory changes may be undone.
 *
 * @module
 */

import { E } from "../../core/errno.ts";
import type { BlockContainer, Image, IoResult, LogFile, Runtime } from "../../core/runtime.ts";
import { Future } from "../../core/task.ts";
import type { Random } from "./random.ts";

/** Bytes of a block. */
const blockBytes = 4096;
/** What a device writes whole or not at all. */
const sectorBytes = 512;
/** What freed memory and unwritten blocks hold: nobody may rely on it. */
const poison = 0xdb;

/** What media do wrong and how long they take. Change it at any time. */
export interface MediaFaults {
  /** Milliseconds that a read or write of the container takes, and a sync. */
  ioMs: [least: number, most: number];
  syncMs: [least: number, most: number];
  /** Probabilities that one operation fails with EIO. */
  readError: number;
  writeError: number;
  syncError: number;
  /** The disk has no room: no new log segment, no growth of the container. */
  diskFull: boolean;
  /** Probability that an unsynced sector survives a power cut. */
  unsyncedKept: number;
}

/** Media that only take their time. */
export const calmMedia: MediaFaults = {
  ioMs: [0.02, 0.2],
  syncMs: [0.2, 2],
  readError: 0,
  writeError: 0,
  syncError: 0,
  diskFull: false,
  unsyncedKept: 0.5,
};

/** The media of one store. */
export class Media {
  readonly faults: MediaFaults;
  readonly image: MemoryImage;
  readonly log: MemoryLog;
  readonly container: MemoryContainer;
  /** The process that uses them now. */
  runtime: Runtime;

  /** `sizes`: most blocks of the container and most bytes of the image. */
  constructor(runtime: Runtime, readonly random: Random, sizes: { blocksMax: number; imageBytesMax?: number }) {
    this.runtime = runtime;
    this.faults = { ...calmMedia };
    this.image = new MemoryImage(sizes.imageBytesMax ?? 1 << 28);
    this.log = new MemoryLog(this);
    this.container = new MemoryContainer(this, sizes.blocksMax);
  }

  /** The next process takes over. */
  attach(runtime: Runtime): void {
    this.runtime = runtime;
  }

  /** The process has died ("kill"), or the machine lost its power ("power"). */
  crash(how: "kill" | "power"): void {
    this.image.rollBack();
    this.log.crash(how === "power");
    this.container.crash(how === "power");
  }

  /** Settles with `errno` after a time drawn from `range`. */
  later(range: [number, number], finish: () => IoResult): Future<IoResult> {
    const done = new Future<IoResult>();
    const [least, most] = range;
    this.runtime.sleep(least + (most - least) * this.random.fraction()).listen(() => done.resolve(finish()));
    return done;
  }

  /** After a power cut: each unsynced sector of `bytes` in [from, to) is as written, or as `before` (zeros when absent). */
  tear(bytes: Uint8Array, before: Uint8Array | undefined, from: number, to: number): void {
    for (let at = from; at < to;) {
      const end = Math.min(to, (Math.floor(at / sectorBytes) + 1) * sectorBytes);
      if (!this.random.chance(this.faults.unsyncedKept)) {
        if (before === undefined) bytes.fill(0, at, end);
        else bytes.set(before.subarray(at, end), at);
      }
      at = end;
    }
  }
}

/** An ordered map with one open transaction. What it hands out is destroyed at the next call, as the contract allows. */
export class MemoryImage implements Image {
  #keys: string[] = [];
  #values = new Map<string, Uint8Array>();
  #undo = new Map<string, Uint8Array | undefined>();
  #handedOut: Uint8Array[] = [];
  #usedBytes = 0;
  #scanning = false;
  /** When not 0, `commit` fails with it and changes nothing on disk. */
  commitError = 0;
  /** Commits so far. */
  commits = 0;

  constructor(readonly limitBytes: number) {}

  get(key: Uint8Array): Uint8Array | undefined {
    this.#enter();
    const value = this.#values.get(text(key));
    return value === undefined ? undefined : this.#handOut(value);
  }

  put(key: Uint8Array, value: Uint8Array): void {
    const name = text(key), copy = value.slice();
    this.#enter();
    if (this.#usedBytes + key.length + copy.length > this.limitBytes) throw new Error("the image is full");
    const old = this.#values.get(name);
    if (!this.#undo.has(name)) this.#undo.set(name, old);
    if (old === undefined) this.#keys.splice(this.#find(name), 0, name);
    this.#usedBytes += copy.length - (old === undefined ? -key.length : old.length);
    this.#values.set(name, copy);
  }

  remove(key: Uint8Array): void {
    const name = text(key);
    this.#enter();
    const old = this.#values.get(name);
    if (old === undefined) return;
    if (!this.#undo.has(name)) this.#undo.set(name, old);
    this.#drop(name, old);
  }

  scan(from: Uint8Array, to: Uint8Array, visit: (key: Uint8Array, value: Uint8Array) => boolean): void {
    this.#enter();
    const end = text(to);
    this.#scanning = true;
    try {
      for (let at = this.#find(text(from)); at < this.#keys.length && this.#keys[at] < end; at++) {
        const name = this.#keys[at];
        const key = this.#handOut(unpack(name)), value = this.#handOut(this.#values.get(name)!);
        const more = visit(key, value);
        this.#destroy();
        if (!more) return;
      }
    } finally {
      this.#scanning = false;
    }
  }

  commit(): number {
    this.#enter();
    if (this.commitError !== 0) return this.commitError;
    this.commits++;
    this.#undo.clear();
    return 0;
  }

  usage(): { usedBytes: number; limitBytes: number } {
    return { usedBytes: this.#usedBytes, limitBytes: this.limitBytes };
  }

  /** What was not committed is gone. */
  rollBack(): void {
    this.#scanning = false;
    for (const [name, old] of this.#undo) {
      const present = this.#values.get(name);
      if (old === undefined) {
        if (present !== undefined) this.#drop(name, present);
        continue;
      }
      if (present === undefined) this.#keys.splice(this.#find(name), 0, name);
      this.#usedBytes += old.length - (present === undefined ? -name.length : present.length);
      this.#values.set(name, old);
    }
    this.#undo.clear();
  }

  /** All keys and values, for comparisons. */
  entries(): [key: string, value: Uint8Array][] {
    return this.#keys.map((name) => [name, this.#values.get(name)!]);
  }

  #drop(name: string, value: Uint8Array): void {
    this.#keys.splice(this.#find(name), 1);
    this.#values.delete(name);
    this.#usedBytes -= name.length + value.length;
  }

  /** Index of the first key that is not below `name`. */
  #find(name: string): number {
    let low = 0, high = this.#keys.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#keys[middle] < name) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #handOut(bytes: Uint8Array): Uint8Array {
    const copy = bytes.slice();
    this.#handedOut.push(copy);
    return copy;
  }

  #enter(): void {
    if (this.#scanning) throw new Error("the image was called from inside a scan");
    this.#destroy();
  }

  #destroy(): void {
    for (const bytes of this.#handedOut) bytes.fill(poison);
    this.#handedOut.length = 0;
  }
}

interface Segment {
  bytes: Uint8Array;
  /** What the file held before, when it is a reused one. */
  stale: Uint8Array | undefined;
  written: number;
  synced: number;
  /** False until a sync: a power cut may then take the whole segment away. */
  named: boolean;
}

/** Log segments. Their files are reused, as real ones are: a new segment begins with what an old one left. */
export class MemoryLog implements LogFile {
  readonly #media: Media;
  #segments = new Map<number, Segment>();
  /** Removed, but not yet for certain. */
  #removed = new Map<number, Segment>();
  #current: Segment | null = null;
  /** Writes so far: one a turn. */
  writes = 0;
  /** Syncs that have settled. */
  syncs = 0;
  /** When not 0, `write` fails with it. */
  writeError = 0;

  constructor(media: Media) {
    this.#media = media;
  }

  segments(): number[] {
    return [...this.#segments.keys()].sort((a, b) => a - b);
  }

  read(segment: number): Uint8Array {
    return this.#segments.get(segment)!.bytes.slice();
  }

  create(segment: number, bytes: number): number {
    if (this.#segments.has(segment)) throw new Error(`log segment ${segment} exists`);
    const reused = this.#removed.values().next().value;
    if (this.#media.faults.diskFull && reused === undefined) return E.NOSPC;
    const stale = reused?.bytes.length === bytes ? reused.bytes : undefined;
    this.#removed.clear();
    this.#current = { bytes: stale?.slice() ?? new Uint8Array(bytes), stale, written: 0, synced: 0, named: false };
    this.#segments.set(segment, this.#current);
    return 0;
  }

  write(bytes: Uint8Array): number {
    if (this.writeError !== 0) return this.writeError;
    const segment = this.#current!;
    if (segment.written + bytes.length > segment.bytes.length) throw new Error("log write beyond its segment");
    segment.bytes.set(bytes, segment.written);
    segment.written += bytes.length;
    this.writes++;
    return 0;
  }

  sync(): Future<IoResult> {
    const marks = [...this.#segments.values()].map((segment) => ({ segment, written: segment.written }));
    const media = this.#media;
    return media.later(media.faults.syncMs, () => {
      if (media.random.chance(media.faults.syncError)) return E.IO;
      for (const { segment, written } of marks) {
        segment.synced = Math.max(segment.synced, written);
        segment.named = true;
      }
      this.syncs++;
      return 0;
    });
  }

  syncNow(): IoResult {
    for (const segment of this.#segments.values()) {
      segment.synced = segment.written;
      segment.named = true;
    }
    this.syncs++;
    return 0;
  }

  remove(segment: number): void {
    const removed = this.#segments.get(segment);
    if (removed === undefined) throw new Error(`log segment ${segment} does not exist`);
    this.#segments.delete(segment);
    this.#removed.set(segment, removed);
  }

  /** Flips one bit of what was written. */
  corrupt(segment: number, at: number): void {
    this.#segments.get(segment)!.bytes[at] ^= 1 << this.#media.random.below(8);
  }

  /** Bytes written to a segment. */
  written(segment: number): number {
    return this.#segments.get(segment)!.written;
  }

  crash(power: boolean): void {
    this.#current = null;
    if (!power) return this.#removed.clear();
    const { random } = this.#media;
    for (const [number, segment] of this.#removed) if (random.chance(0.5)) this.#segments.set(number, segment);
    this.#removed.clear();
    for (const [number, segment] of [...this.#segments]) {
      this.#media.tear(segment.bytes, segment.stale, segment.synced, segment.written);
      if (!segment.named && random.chance(0.5)) this.#segments.delete(number);
      segment.written = segment.synced = segment.bytes.length;
      segment.stale = undefined;
      segment.named = true;
    }
  }
}

interface InFlight {
  block: number;
  bytes: Uint8Array;
}

/** Blocks in memory; those never written hold poison. */
export class MemoryContainer implements BlockContainer {
  readonly #media: Media;
  #blocks = new Map<number, Uint8Array>();
  /** Durable contents of blocks that were written since (undefined: never written before). */
  #unsynced = new Map<number, Uint8Array | undefined>();
  #inFlight = new Set<InFlight>();
  #lent = new Set<ArrayBufferLike>();
  blockCount = 0;
  /** Lower it to make the disk smaller. */
  blockCountMax: number;
  /** Reads and writes so far. */
  reads = 0;
  writes = 0;

  constructor(media: Media, blocksMax: number) {
    this.#media = media;
    this.blockCountMax = blocksMax;
  }

  grow(blocks: number): number {
    if (blocks <= this.blockCount) return 0;
    if (this.#media.faults.diskFull) return E.NOSPC;
    this.blockCount = Math.max(this.blockCount, Math.min(blocks, this.blockCountMax));
    return this.blockCount < blocks ? E.NOSPC : 0;
  }

  read(block: number, into: Uint8Array): Future<IoResult> {
    this.#check(block, into);
    this.reads++;
    return this.#media.later(this.#media.faults.ioMs, () => {
      if (this.#media.random.chance(this.#media.faults.readError)) return E.IO;
      for (let at = 0; at < into.length; at += blockBytes) {
        const bytes = this.#blocks.get(block + at / blockBytes);
        if (bytes === undefined) into.fill(poison, at, at + blockBytes);
        else into.set(bytes, at);
      }
      return 0;
    });
  }

  write(block: number, from: Uint8Array): Future<IoResult> {
    this.#check(block, from);
    this.writes++;
    const inFlight = { block, bytes: from.slice() };
    this.#inFlight.add(inFlight);
    return this.#media.later(this.#media.faults.ioMs, () => {
      this.#inFlight.delete(inFlight);
      if (this.#media.random.chance(this.#media.faults.writeError)) return E.IO;
      for (let at = 0; at < from.length; at += blockBytes) {
        if (from[at] !== inFlight.bytes[at]) throw new Error("a buffer was changed while it was written");
        this.#put(block + at / blockBytes, inFlight.bytes.slice(at, at + blockBytes));
      }
      return 0;
    });
  }

  sync(): Future<IoResult> {
    const covered = [...this.#unsynced.keys()].map((block) => ({ block, bytes: this.#blocks.get(block) }));
    const media = this.#media;
    return media.later(media.faults.syncMs, () => {
      if (media.random.chance(media.faults.syncError)) return E.IO;
      for (const { block, bytes } of covered) {
        if (this.#blocks.get(block) === bytes) this.#unsynced.delete(block);
        else this.#unsynced.set(block, bytes);
      }
      return 0;
    });
  }

  syncNow(): IoResult {
    this.#unsynced.clear();
    return 0;
  }

  allocate(bytes: number): Uint8Array {
    const buffer = new Uint8Array(bytes).fill(poison);
    this.#lent.add(buffer.buffer);
    return buffer;
  }

  release(buffer: Uint8Array): void {
    if (!this.#lent.delete(buffer.buffer)) throw new Error("released a buffer twice, or one of another pool");
    buffer.fill(poison);
  }

  /** Buffers that are lent out: 0 when nothing is going on. */
  get lentBuffers(): number {
    return this.#lent.size;
  }

  /** Flips one bit of a block: bit rot. */
  corrupt(block: number): void {
    const bytes = this.#blocks.get(block);
    if (bytes === undefined) throw new Error(`block ${block} was never written`);
    bytes[this.#media.random.below(blockBytes)] ^= 1 << this.#media.random.below(8);
  }

  crash(power: boolean): void {
    const { random } = this.#media;
    for (const { block, bytes } of this.#inFlight) {
      for (let at = 0; at < bytes.length; at += blockBytes) {
        if (random.chance(0.5)) this.#put(block + at / blockBytes, bytes.slice(at, at + blockBytes));
      }
    }
    this.#inFlight.clear();
    this.#lent.clear();
    if (!power) return;
    for (const [block, before] of this.#unsynced) {
      const bytes = this.#blocks.get(block)!.slice();
      this.#media.tear(bytes, before ?? new Uint8Array(blockBytes), 0, blockBytes);
      this.#blocks.set(block, bytes);
    }
    this.#unsynced.clear();
  }

  #put(block: number, bytes: Uint8Array): void {
    if (!this.#unsynced.has(block)) this.#unsynced.set(block, this.#blocks.get(block));
    this.#blocks.set(block, bytes);
  }

  #check(block: number, bytes: Uint8Array): void {
    const count = bytes.length / blockBytes;
    if (!Number.isInteger(count) || count === 0 || block <= 0 || block + count > this.blockCount) {
      throw new Error(`I/O of ${bytes.length} bytes at block ${block} of ${this.blockCount}`);
    }
  }
}

function text(bytes: Uint8Array): string {
  let out = "";
  for (let i = 0; i < bytes.length; i += 4096) out += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return out;
}

function unpack(name: string): Uint8Array {
  const bytes = new Uint8Array(name.length);
  for (let i = 0; i < name.length; i++) bytes[i] = name.charCodeAt(i);
  return bytes;
}
