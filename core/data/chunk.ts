/**
 * The chunk engine: reads, writes, punches and drops the data of chunks in a store. Nothing is overwritten in place: new
 * bytes go to free blocks, then one record names them, with their checksums. The engine does the I/O and says what to
 * change; the caller commits that in ONE record together with the inode's own changes:
 *
 * ```ts ignore
 * const write = yield* chunks.write({ shard, inode, chunk: 0, offset, data, length: data.length, volume, gen });
 * if (failed(write)) return write;
 * // check floor and inode again: others ran meanwhile
 * store.commit(shard, { ...request, changes: [...write.changes, inodeChange], charges: [{ volume, bytesDelta: write.bytesDelta, inodesDelta: 0 }] });
 * write.done();            // or write.abandon() instead of the commit
 * ```
 *
 * Writers of one chunk are let in one at a time, from `write` to `done`. Readers are never locked out: one that finds other
 * bytes than its checksum looks whether the chunk has changed meanwhile. Floors and sizes are the caller's concern.
 *
 * @module
 */

import { E, type Result } from "../errno.ts";
import { after, chunkKey, inodeKey, keyNumber, kind } from "../meta/layout.ts";
import { type Change, patch, put, remove } from "../store/record.ts";
import type { Run } from "../store/allocator.ts";
import type { Store } from "../store/store.ts";
import { Future, type Task, wait } from "../task.ts";
import {
  chunkBytesMax,
  chunkHeadBytes,
  type ChunkRecord,
  decodeChunk,
  encodeChunk,
  encodeChunkHead,
  encodeGranules,
  granuleBytes,
  granuleEntryBytes,
  granulesMax,
  isBlock,
  roomBlock,
} from "./chunk_record.ts";
import { crc32 } from "node:zlib";

/** Writes with partial granules up to this many granules are gathered in one buffer, to be one I/O. */
const stagedGranulesMax = 32;
/** How often a read looks again at a chunk that changes under it. */
const readAttemptsMax = 8;
/** Most chunks that one {@linkcode Chunks.drop} takes, so that its record stays small. */
export const dropChunksMax = 1000;

/** A place in a chunk. `offset` + `length` is at most the chunk's size. */
export interface ChunkRange {
  /** Shard that holds the chunk. */
  shard: number;
  inode: number;
  chunk: number;
  /** First byte, from the start of the chunk. */
  offset: number;
  length: number;
}

/** What to write. */
export interface ChunkWrite extends ChunkRange {
  /** `length` bytes, untouched until the task has ended; null writes zeros: whole granules become holes. */
  data: Uint8Array | null;
  /** True for a granule of the chunk that is zeros in `data` and becomes a hole, if all of it is written. */
  isHole?: (granule: number) => boolean;
  /** Without data: what would be a hole gets room instead. With "keep" there are no zeros, only holes get room. */
  room?: "zero" | "keep";
  volume: number;
  gen: number;
  /** Contents of a file that was inline until now (chunk 0 only): they are kept, and its record D is removed. */
  inline?: Uint8Array;
}

/** Data that is written but not yet named by a record, or changes without data. End it with `done` or `abandon`. */
export interface PreparedChange {
  /** To be committed in one record, before anything else in this reactor runs that could make them stale. */
  changes: Change[];
  /** Growth of the space taken, in bytes: to be charged to the volume in the same record. */
  bytesDelta: number;
  /** The record was committed: lets the next writer in. */
  done(): void;
  /** No record will come: the blocks are free again and the next writer is let in. */
  abandon(): void;
}

/** Changes of {@linkcode Chunks.drop}, a part of the work. */
export interface PreparedDrop extends PreparedChange {
  /** True when there is more to drop: commit this and call again. */
  more: boolean;
}

/** One lock a (inode, chunk), first come first served. */
class ChunkLocks {
  #waiting = new Map<string, Future<void>[]>();

  *acquire(key: string): Task<void> {
    const queue = this.#waiting.get(key);
    if (queue === undefined) {
      this.#waiting.set(key, []);
      return;
    }
    const turn = new Future<void>();
    queue.push(turn);
    yield* wait(turn);
  }

  held(key: string): boolean {
    return this.#waiting.has(key);
  }

  release(key: string): void {
    const next = this.#waiting.get(key)!.shift();
    if (next === undefined) this.#waiting.delete(key);
    else next.resolve();
  }
}

/** Contents of one granule to be written: 4096 bytes at `at` of `buffer`. */
interface Source {
  buffer: Uint8Array;
  at: number;
}

/** See the module. One a store. */
export class Chunks {
  readonly #store: Store;
  readonly #locks = new ChunkLocks();
  /** Granules that were found damaged since the start. */
  damaged = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Reads `range.length` bytes into `into`; holes and what lies behind the data are zeros. errno: EIO for damaged data. */
  *read(range: ChunkRange, into: Uint8Array): Task<number> {
    checkRange(range);
    for (let attempt = 0;; attempt++) {
      const before = this.#record(range);
      const bad = yield* this.#readOnce(range, before, into);
      if (bad === 0) return 0;
      // A block that was freed, reused and overwritten while it was read is no damage: the record tells.
      if (attempt < readAttemptsMax && !sameGranules(before, this.#record(range), range)) continue;
      this.#reportDamage(range);
      return E.IO;
    }
  }

  /** Writes `request.length` bytes at `request.offset`. errno: ENOSPC, EIO. */
  *write(request: ChunkWrite): Task<Result<PreparedChange>> {
    checkRange(request);
    const lock = lockKey(request.inode, request.chunk);
    yield* this.#locks.acquire(lock);
    const prepared = yield* this.#prepare(request);
    if (typeof prepared === "number") {
      this.#locks.release(lock);
      return prepared;
    }
    const { changes, bytesDelta, fresh } = prepared;
    return this.#handOut([lock], fresh, changes, bytesDelta);
  }

  /** Writes zeros: whole granules become holes, or have room with `room`. As `write` with `data` null. */
  zero(range: ChunkRange & { volume: number; gen: number; room?: "zero" }): Task<Result<PreparedChange>> {
    return this.write({ ...range, data: null });
  }

  /** Gives holes room: they go on reading as zeros, and what fills them takes no more space. errno: EIO, ENOSPC. */
  reserve(range: ChunkRange & { volume: number; gen: number; inline?: Uint8Array }): Task<Result<PreparedChange>> {
    return this.write({ ...range, data: null, room: "keep" });
  }

  /** Granules of a range that take no space yet. */
  holes(range: ChunkRange): number {
    const granules = this.#record(range)?.granules ?? noGranules;
    const end = Math.ceil((range.offset + range.length) / granuleBytes);
    let count = 0;
    for (let g = Math.floor(range.offset / granuleBytes); g < end; g++) if (!(granules[2 * g] > 0)) count++;
    return count;
  }

  /** Drops the chunks of `inode` in `shard` from number `from` on, at most {@linkcode dropChunksMax} a call. */
  *drop(shard: number, inode: number, from: number): Task<PreparedDrop> {
    const keys: Uint8Array[] = [], locks: string[] = [], changes: Change[] = [];
    const end = after(inodeKey(shard, kind.chunk, inode));
    this.#store.scan(chunkKey(shard, inode, from), end, (key) => keys.push(key.slice()) <= dropChunksMax);
    const more = keys.length > dropChunksMax;
    let bytesDelta = 0;
    for (const key of keys.slice(0, dropChunksMax)) {
      const lock = lockKey(inode, keyNumber(key, 10, 4));
      yield* this.#locks.acquire(lock);
      locks.push(lock);
    }
    for (const key of keys.slice(0, dropChunksMax)) {
      const value = this.#store.get(key);
      if (value === undefined) continue;
      bytesDelta -= countBlocks(decodeChunk(value).granules) * granuleBytes;
      changes.push(remove(key));
    }
    return { ...this.#handOut(locks, [], changes, bytesDelta), more };
  }

  /** One bit a granule, lowest first: 1 where the chunk has data, which room is not. 32 bytes. */
  map(shard: number, inode: number, chunk: number): Uint8Array {
    const bits = new Uint8Array(granulesMax / 8);
    const granules = this.#record({ shard, inode, chunk })?.granules;
    for (let i = 0; granules !== undefined && i < granules.length / 2; i++) {
      if (isBlock(granules[2 * i])) bits[i >>> 3] |= 1 << (i & 7);
    }
    return bits;
  }

  /** True while a writer is between `write` and `done`. */
  isBusy(inode: number, chunk: number): boolean {
    return this.#locks.held(lockKey(inode, chunk));
  }

  #record({ shard, inode, chunk }: { shard: number; inode: number; chunk: number }): ChunkRecord | null {
    const value = this.#store.get(chunkKey(shard, inode, chunk));
    return value === undefined ? null : decodeChunk(value);
  }

  #handOut(locks: string[], fresh: Run[], changes: Change[], bytesDelta: number): PreparedChange {
    let ended = false;
    const end = () => {
      if (ended) throw new Error("chunk change ended twice");
      ended = true;
      for (const lock of locks) this.#locks.release(lock);
    };
    return {
      changes,
      bytesDelta,
      done: end,
      abandon: () => {
        this.#store.giveBack(fresh);
        end();
      },
    };
  }

  #reportDamage({ shard, inode, chunk }: ChunkRange): void {
    this.damaged++;
    const where = `inode ${inode}, chunk ${chunk}, shard ${shard}`;
    this.#store.runtime.log("error", "store", `data does not match its checksum or cannot be read: ${where}`);
  }

  /** One attempt to read; errno. */
  *#readOnce(range: ChunkRange, record: ChunkRecord | null, into: Uint8Array): Task<number> {
    const { container } = this.#store, granules = record?.granules ?? new Uint32Array(0);
    const first = Math.floor(range.offset / granuleBytes),
      end = Math.ceil((range.offset + range.length) / granuleBytes);
    const pending: { io: Future<number>; run: Run; first: number; buffer: Uint8Array; own: boolean }[] = [];
    for (let g = first; g < end;) {
      const run = runAt(granules, g, end);
      const at = g * granuleBytes - range.offset, bytes = run.count * granuleBytes;
      if (run.block === 0) {
        into.fill(0, Math.max(0, at), Math.min(range.length, at + bytes));
      } else {
        const own = at < 0 || at + bytes > range.length;
        const buffer = own ? container.allocate(bytes) : into;
        const view = own ? buffer.subarray(0, bytes) : into.subarray(at, at + bytes);
        pending.push({ io: container.read(run.block, view), run, first: g, buffer: own ? buffer : view, own });
      }
      g += run.count;
    }
    let errno = 0;
    for (const { io, run, first, buffer, own } of pending) {
      errno = (yield* wait(io)) || errno;
      if (errno === 0 && !sumsMatch(granules, first, run.count, buffer)) errno = E.IO;
      if (errno === 0 && own) copyOut(buffer, first * granuleBytes, run.count * granuleBytes, range, into);
      if (own) container.release(buffer);
    }
    return errno;
  }

  /** The I/O of a write and the changes that publish it. The chunk is locked. errno. */
  *#prepare(request: ChunkWrite): Task<Result<{ changes: Change[]; bytesDelta: number; fresh: Run[] }>> {
    const old = this.#record(request), work = new Staging(this.#store, request, old);
    let errno = yield* work.gather();
    let fresh: Run[] | null = [];
    if (errno === 0 && work.sources.size > 0) {
      fresh = yield* this.#store.allocate(work.sources.size);
      if (fresh === null) errno = E.NOSPC;
      else errno = yield* work.write(fresh);
    }
    work.release();
    if (errno !== 0) {
      if (fresh !== null) this.#store.giveBack(fresh);
      return errno;
    }
    const changes = publish(request, old, work.granules);
    if (request.inline !== undefined) changes.push(remove(inodeKey(request.shard, kind.data, request.inode)));
    const bytesDelta = (countBlocks(work.granules) - countBlocks(old?.granules ?? noGranules)) * granuleBytes;
    return { changes, bytesDelta, fresh: fresh! };
  }
}

const noGranules = new Uint32Array(0);

/** The granules of one write on their way to the container. */
class Staging {
  readonly #store: Store;
  readonly #request: ChunkWrite;
  readonly #buffers: Uint8Array[] = [];
  readonly #old: Uint32Array;
  /** Granule number -> contents, in ascending order. */
  readonly sources = new Map<number, Source>();
  /** The chunk's granules as they will be. */
  granules: Uint32Array;

  constructor(store: Store, request: ChunkWrite, old: ChunkRecord | null) {
    this.#store = store;
    this.#request = request;
    this.#old = old?.granules ?? noGranules;
    const end = Math.ceil((request.offset + request.length) / granuleBytes);
    this.granules = new Uint32Array(2 * Math.max(end, this.#old.length / 2, request.inline === undefined ? 0 : 1));
    this.granules.set(this.#old);
  }

  /** Decides what becomes of each granule; reads those of which a part stays. errno. */
  *gather(): Task<number> {
    const { offset, length, data, inline, isHole, room } = this.#request;
    const first = Math.floor(offset / granuleBytes), end = Math.ceil((offset + length) / granuleBytes);
    if (room === "keep") return this.#reserve(first, end);
    const staged = this.#stage(first, end);
    if (inline !== undefined && first > 0 && inline.length > 0) {
      const errno = yield* this.#partial(0, this.#buffer(granuleBytes), 0);
      if (errno !== 0) return errno;
    }
    for (let g = first; g < end; g++) {
      const start = g * granuleBytes, whole = start >= offset && start + granuleBytes <= offset + length;
      if (!whole) {
        const at = staged === null ? 0 : start - first * granuleBytes;
        const errno = yield* this.#partial(g, staged ?? this.#buffer(granuleBytes), at);
        if (errno !== 0) return errno;
      } else if (data === null || isHole?.(g)) {
        this.granules[2 * g] = this.granules[2 * g + 1] = 0;
      } else if (staged === null) {
        this.sources.set(g, { buffer: data, at: start - offset });
      } else {
        const at = start - first * granuleBytes;
        staged.set(data.subarray(start - offset, start - offset + granuleBytes), at);
        this.sources.set(g, { buffer: staged, at });
      }
    }
    if (room === "zero") this.#fillHoles(first, end);
    return 0;
  }

  /** What was inline gets a block, holes get room. */
  #reserve(first: number, end: number): number {
    const { inline } = this.#request;
    if (inline !== undefined && inline.length > 0) {
      const buffer = this.#buffer(granuleBytes);
      buffer.fill(0, 0, granuleBytes);
      buffer.set(inline);
      this.sources.set(0, { buffer, at: 0 });
    }
    this.#fillHoles(first, end);
    return 0;
  }

  #fillHoles(first: number, end: number): void {
    for (let g = first; g < end; g++) {
      if (this.granules[2 * g] === 0 && !this.sources.has(g)) this.granules[2 * g] = roomBlock;
    }
  }

  /** Writes the granules to `runs` and notes blocks and checksums. errno. */
  *write(runs: Run[]): Task<number> {
    const list = [...this.sources], pending: Future<number>[] = [];
    let next = 0;
    for (const run of runs) {
      for (let done = 0; done < run.count;) {
        const [, source] = list[next];
        let count = 1;
        while (done + count < run.count && follows(source, list[next + count][1], count)) count++;
        const bytes = source.buffer.subarray(source.at, source.at + count * granuleBytes);
        pending.push(this.#store.container.write(run.block + done, bytes));
        for (let i = 0; i < count; i++) {
          const g = list[next + i][0];
          this.granules[2 * g] = run.block + done + i;
          this.granules[2 * g + 1] = crc32(bytes.subarray(i * granuleBytes, (i + 1) * granuleBytes));
        }
        next += count;
        done += count;
      }
    }
    let errno = 0;
    for (const io of pending) errno = (yield* wait(io)) || errno;
    return errno;
  }

  /** Gives the buffers back. */
  release(): void {
    for (const buffer of this.#buffers) this.#store.container.release(buffer);
  }

  /** A buffer for all granules of a small write with partial ones, else null. */
  #stage(first: number, end: number): Uint8Array | null {
    const { offset, length, data } = this.#request;
    const aligned = offset % granuleBytes === 0 && length % granuleBytes === 0;
    return data === null || aligned || end - first > stagedGranulesMax
      ? null
      : this.#buffer((end - first) * granuleBytes);
  }

  #buffer(bytes: number): Uint8Array {
    const buffer = this.#store.container.allocate(bytes);
    this.#buffers.push(buffer);
    return buffer;
  }

  /** Granule `g` keeps a part of its old bytes: merges old and new at `at` of `buffer`. errno. */
  *#partial(g: number, buffer: Uint8Array, at: number): Task<number> {
    const { offset, length, data, inline } = this.#request;
    const block = 2 * g < this.#old.length ? this.#old[2 * g] : 0;
    const view = buffer.subarray(at, at + granuleBytes);
    if (isBlock(block)) {
      const errno = yield* wait(this.#store.container.read(block, view));
      if (errno !== 0) return errno;
      if (crc32(view) !== this.#old[2 * g + 1]) return E.IO;
    } else {
      if (data === null && (g > 0 || inline === undefined)) return 0;
      view.fill(0);
      if (g === 0 && inline !== undefined) view.set(inline);
    }
    const start = Math.max(offset, g * granuleBytes), end = Math.min(offset + length, (g + 1) * granuleBytes);
    if (start < end) {
      const to = start - g * granuleBytes;
      if (data === null) view.fill(0, to, end - g * granuleBytes);
      else view.set(data.subarray(start - offset, end - offset), to);
    }
    this.sources.set(g, { buffer, at });
    return 0;
  }
}

/** The changes that make `granules` the chunk's. */
function publish(request: ChunkWrite, old: ChunkRecord | null, granules: Uint32Array): Change[] {
  const { shard, inode, chunk, volume, offset, length } = request, key = chunkKey(shard, inode, chunk);
  let count = granules.length / 2;
  while (count > 0 && granules[2 * count - 2] === 0) count--;
  if (old === null) {
    return count === 0
      ? []
      : [put(key, encodeChunk({ volume, gen: request.gen, granules: granules.subarray(0, 2 * count) }))];
  }
  if (count === 0) return [remove(key)];
  const changes: Change[] = [], gen = Math.max(old.gen, request.gen), oldCount = old.granules.length / 2;
  const total = chunkHeadBytes + count * granuleEntryBytes;
  if (gen !== old.gen || volume !== old.volume) {
    changes.push(patch(key, 0, encodeChunkHead(volume, gen), chunkHeadBytes + oldCount * granuleEntryBytes));
  }
  const first = Math.min(count, Math.floor(offset / granuleBytes));
  const end = Math.min(count, Math.ceil((offset + length) / granuleBytes));
  if (first < end || count !== oldCount) {
    changes.push(patch(key, chunkHeadBytes + first * granuleEntryBytes, encodeGranules(granules, first, end), total));
  }
  return changes;
}

function lockKey(inode: number, chunk: number): string {
  return `${inode}/${chunk}`;
}

function checkRange({ offset, length }: ChunkRange): void {
  if (offset < 0 || length <= 0 || offset + length > chunkBytesMax) {
    throw new RangeError(`range ${offset}+${length} of a chunk`);
  }
}

function countBlocks(granules: Uint32Array): number {
  let count = 0;
  for (let i = 0; i < granules.length; i += 2) if (granules[i] !== 0) count++;
  return count;
}

/** The longest run of consecutive blocks, or of granules without bytes (block 0), that starts at granule `g`. */
function runAt(granules: Uint32Array, g: number, end: number): Run {
  const at = (i: number) => isBlock(granules[2 * i] ?? 0) ? granules[2 * i] : 0;
  const block = at(g);
  let count = 1;
  while (g + count < end && at(g + count) === (block === 0 ? 0 : block + count)) count++;
  return { block, count };
}

function sumsMatch(granules: Uint32Array, first: number, count: number, bytes: Uint8Array): boolean {
  for (let i = 0; i < count; i++) {
    if (crc32(bytes.subarray(i * granuleBytes, (i + 1) * granuleBytes)) !== granules[2 * (first + i) + 1]) return false;
  }
  return true;
}

/** Copies what `range` wants of `bytes` bytes that stand at `start` of the chunk. */
function copyOut(buffer: Uint8Array, start: number, bytes: number, range: ChunkRange, into: Uint8Array): void {
  const from = Math.max(start, range.offset), end = Math.min(start + bytes, range.offset + range.length);
  into.set(buffer.subarray(from - start, end - start), from - range.offset);
}

function sameGranules(a: ChunkRecord | null, b: ChunkRecord | null, range: ChunkRange): boolean {
  const first = Math.floor(range.offset / granuleBytes), end = Math.ceil((range.offset + range.length) / granuleBytes);
  for (let i = 2 * first; i < 2 * end; i++) if ((a?.granules[i] ?? 0) !== (b?.granules[i] ?? 0)) return false;
  return true;
}

/** True when `next` lies `count` granules behind `source` in the same memory. */
function follows(source: Source, next: Source, count: number): boolean {
  return next.buffer === source.buffer && next.at === source.at + count * granuleBytes;
}
