/**
 * A store: the log, the image and the container of one reactor, and the shards in it. {@linkcode Store.commit} makes one
 * record of an operation and applies it to the image at once; {@linkcode Store.endOfTurn} writes the turn's records to the
 * log, after which they survive a kill; {@linkcode Store.sync} makes them survive a power cut.
 *
 * A start is the last checkpoint of the image plus a replay of the log, whether the stop was clean, a kill or a power cut.
 * A store that cannot write its log or image, or cannot sync, has failed for good: it answers EIO until the next start.
 *
 * Keys of shard 0xffff: kind P alone, the {@linkcode storeRecord}.
 *
 * @module
 */

import { E } from "../errno.ts";
import {
  after,
  inodeNumber,
  Key,
  keyNumber,
  kind,
  layoutVersion,
  localShard,
  rootSequence,
  sequenceLimit,
  shardState,
  storeShard,
  usage as usageRecord,
} from "../meta/layout.ts";
import { diffChunkPatch, diffChunks, granuleBytes, isBlock, roomBlock } from "../data/chunk_record.ts";
import { decode, DecodeError, encode, Reader, struct, text, u16, u32, u53 } from "../protocol/codec.ts";
import type { Meter } from "../metrics/meter.ts";
import type { BlockContainer, Image, IoResult, LogFile, Runtime } from "../runtime.ts";
import { Future, type Task, wait } from "../task.ts";
import { Allocator, groupBlocks, type Run } from "./allocator.ts";
import { type Held, type KeptSegment, Log, type LogContents, readLog, recordsOf } from "./log.ts";
import {
  applyPatch,
  type Change,
  changeOp,
  type Charge,
  decodeRecord,
  keyBytesMax,
  type LoggedChange,
  type LogRecord,
  recordType,
  RecordWriter,
  valueBytesMax,
} from "./record.ts";
import { crc32 } from "node:zlib";

/** Limits of a store. */
export interface StoreLimits {
  /** Bytes of a log segment; more than twice the largest record. */
  segmentBytes: number;
  /** Most bytes of the log. */
  logBytesMax: number;
  /** A checkpoint is due this long after the first change. */
  checkpointMs: number;
  /** A checkpoint is due when this many bytes were put (2,048 pages of 4 KiB). */
  checkpointBytes: number;
  /**
   * A checkpoint is due when this many changes were made, and made at once at twice as many: each may have touched a page
   * of its own, and pages that are to be written wait in memory that the image never gives back.
   */
  checkpointChanges: number;
  /** Most blocks that the container grows by at once; a small one grows by a quarter. */
  growBlocks: number;
  /** Part of log, image and container up to which growing operations are let in. */
  growFillMax: number;
}

/** What a store has unless told otherwise. */
export const storeLimits: StoreLimits = {
  segmentBytes: 32 * 1024 * 1024,
  logBytesMax: 256 * 1024 * 1024,
  checkpointMs: 1000,
  checkpointBytes: 2048 * 4096,
  checkpointChanges: 16384,
  growBlocks: 65536,
  growFillMax: 0.95,
};

/** How many inode numbers and intent numbers a start skips in each shard: what a power cut un-wrote is never given out again. */
export const startSkip = 2 ** 20;
/** First inode sequence and intent number (1 is FUSE's root). */
const firstNumber = 2;
/** Least blocks that the container grows by: 64 MiB. */
const growBlocksMin = 16384;
/** A forced checkpoint begins when the log is this full. */
const logFillForced = 0.5;
/** How often {@linkcode Store.maintain} looks whether a checkpoint is due. */
const maintainMs = 100;
/** Blocks read at once when replay verifies data. */
const verifyBlocksMax = 256;

/** Which store this is. Written at format, compared at open. */
export interface StoreIdentity {
  clusterId: string;
  serverId: number;
  /** Which of the server's stores, and how many it has. */
  storeIndex: number;
  storeCount: number;
}

/**
 * Value of the store's own key. `starts` counts opens, `firstSegment` is the oldest log segment still needed, `nextSegment`
 * is above every one begun before the commit.
 */
export const storeRecord = struct({
  layoutVersion: u32,
  clusterId: text,
  serverId: u32,
  storeIndex: u16,
  storeCount: u16,
  starts: u53,
  firstSegment: u53,
  nextSegment: u53,
});

/** The parts of a store. */
export interface StoreParts {
  image: Image;
  log: LogFile;
  container: BlockContainer;
  runtime: Runtime;
  limits?: Partial<StoreLimits>;
  /** True while a backup needs the record of `shard` at `position`, or the blocks it frees. Default: none does. */
  held?: Held;
  /** Measures the blocking parts of checkpoints, as kind 0. */
  checkpoints?: Meter;
}

/** Why a store cannot be opened: one sentence for the user. */
export interface StoreError {
  error: string;
}

/** The counters of a shard. */
export interface ShardState {
  /** Position of the last record. */
  position: number;
  /** Position up to which records are known to survive a power cut. */
  durablePosition: number;
  nextSequence: number;
  nextIntent: number;
}

/** Bytes and inodes charged to a volume. */
export interface Usage {
  bytes: number;
  inodes: number;
}

/** Who asked for a record, what it changes and what it costs. */
export interface Commit {
  epoch: number;
  /** Request that caused it; 0, 0, 0 for the server's own doing. */
  session: number;
  slot: number;
  sequence: number;
  changes: readonly Change[];
  charges?: readonly Charge[];
}

const storeKey = new Key(storeShard, kind.shard, 3).done();

/** See the module. Everything in it runs on one reactor; values handed out by `get` and `scan` are valid until the next call. */
export class Store {
  /** Data blocks. Chunk code reads and writes here; what a block holds is published by a record. */
  readonly container: BlockContainer;
  readonly runtime: Runtime;
  readonly identity: StoreIdentity;
  readonly #image: Image;
  readonly #limits: StoreLimits;
  readonly #held: Held;
  readonly #checkpoints: Meter | undefined;
  readonly #shards = new Map<number, ShardState>();
  readonly #usage = new Map<number, Map<number, Usage>>();
  readonly #totals = new Map<number, Usage>();
  readonly #dirtyShards = new Set<number>();
  readonly #unsynced = new Set<ShardState>();
  #log!: Log;
  #records!: RecordWriter;
  #allocator!: Allocator;
  /** Granules that have room and no block yet. */
  #roomBlocks = 0;
  #starts: number;
  #barriers = 0;
  /** Records that publish data, counted; and how many of them a container sync has covered. */
  #published = 0;
  #publishedSynced = 0;
  #dirtyBytes = 0;
  #dirtyChanges = 0;
  #dirtySinceMs = 0;
  #failure = 0;
  #closed = false;
  /** The pass that has not begun yet, for those who wait for it. */
  #syncNext: Future<number> | null = null;
  #syncing = false;

  private constructor(parts: StoreParts, limits: StoreLimits, identity: StoreIdentity, starts: number) {
    this.container = parts.container;
    this.runtime = parts.runtime;
    this.identity = identity;
    this.#image = parts.image;
    this.#limits = limits;
    this.#held = parts.held ?? (() => false);
    this.#checkpoints = parts.checkpoints;
    this.#starts = starts;
  }

  /** Writes the identity into an empty image. Refuses one that holds anything. */
  static format(image: Image, identity: StoreIdentity): StoreError | null {
    let empty = true;
    image.scan(new Uint8Array(1), new Uint8Array(4).fill(255), () => empty = false);
    if (!empty) return { error: "the image is not empty" };
    image.put(
      storeKey,
      encode(storeRecord, { layoutVersion, ...identity, starts: 0, firstSegment: 1, nextSegment: 1 }),
    );
    const errno = image.commit();
    return errno === 0 ? null : { error: `the image cannot be written (errno ${errno})` };
  }

  /** Opens a store: compares its identity and brings the image up to date from the log. Run it to its end before anything else. */
  static *open(parts: StoreParts, identity: StoreIdentity): Task<Store | StoreError> {
    try {
      return yield* Store.#open(parts, identity);
    } catch (error) {
      if (error instanceof DecodeError) return { error: `the store is damaged: ${error.message}` };
      throw error;
    }
  }

  static *#open(parts: StoreParts, identity: StoreIdentity): Task<Store | StoreError> {
    const record = readStoreRecord(parts.image, identity);
    if ("error" in record) return record;
    const contents = readLog(parts.log, storeSum(identity), record.firstSegment);
    if (typeof contents === "string") return { error: contents };
    const store = new Store(parts, { ...storeLimits, ...parts.limits }, identity, record.starts + 1);
    const error = yield* store.#start(parts.log, contents, record.nextSegment);
    return error === "" ? store : { error };
  }

  /** 0, or EIO once the store has failed. */
  get failure(): number {
    return this.#failure;
  }

  /** The value of `key`, or undefined. Valid until the next call. */
  get(key: Uint8Array): Uint8Array | undefined {
    return this.#image.get(key);
  }

  /** Visits keys in [from, to) ascending until `visit` returns false. `visit` may not call the store. */
  scan(from: Uint8Array, to: Uint8Array, visit: (key: Uint8Array, value: Uint8Array) => boolean): void {
    this.#image.scan(from, to, visit);
  }

  /** The counters of a shard, or undefined when the store has nothing of it. Read only. */
  shard(shard: number): Readonly<ShardState> | undefined {
    return this.#shards.get(shard);
  }

  /** Shards that the store has, ascending. */
  shards(): number[] {
    return [...this.#shards.keys()].sort((a, b) => a - b);
  }

  /** As {@linkcode shard}; a new one begins empty, with numbers that no earlier life of it can have given out. */
  openShard(shard: number): Readonly<ShardState> {
    let state = this.#shards.get(shard);
    if (state === undefined) {
      const first = firstNumber + this.#starts * startSkip;
      state = { position: 0, durablePosition: 0, nextSequence: first, nextIntent: first };
      this.#shards.set(shard, state);
      this.#touch(shard, 0);
    }
    return state;
  }

  /** An inode number of `shard` that was never used. */
  newInode(shard: number): number {
    const state = this.#state(shard);
    if (state.nextSequence >= rootSequence) throw new Error(`shard ${shard} has no inode numbers left`);
    return inodeNumber(shard, state.nextSequence++);
  }

  /** An intent number of `shard` that was never used. */
  newIntent(shard: number): number {
    return this.#state(shard).nextIntent++;
  }

  /** Bytes and inodes charged to a volume in this store. */
  usage(volume: number): Usage {
    const total = this.#totals.get(volume);
    return { bytes: total?.bytes ?? 0, inodes: total?.inodes ?? 0 };
  }

  /** Bytes and inodes charged to a volume in one shard. */
  usageOf(shard: number, volume: number): Usage {
    const one = this.#usage.get(shard)?.get(volume);
    return { bytes: one?.bytes ?? 0, inodes: one?.inodes ?? 0 };
  }

  /** How full the parts are: log and image 0..1, container in bytes (`dataBytesMax` counts what it can grow to). */
  fill(): { log: number; image: number; dataBytes: number; dataBytesMax: number } {
    const image = this.#image.usage();
    return {
      log: this.#log.fill,
      image: image.usedBytes / image.limitBytes,
      dataBytes: (this.#allocator.usedBlocks - this.#allocator.quarantinedBlocks + this.#roomBlocks) * granuleBytes,
      dataBytesMax: Math.max(this.container.blockCountMax, this.#allocator.blockCount) * granuleBytes,
    };
  }

  /** False when operations that take space should be refused with ENOSPC. Removing and truncating always work. */
  canGrow(): boolean {
    const { dataBytes, dataBytesMax } = this.fill();
    return this.canRewrite() && dataBytes < this.#limits.growFillMax * dataBytesMax;
  }

  /** False when not even data that takes no more space than what it replaces should be written. */
  canRewrite(): boolean {
    const { log, image } = this.fill(), max = this.#limits.growFillMax;
    return this.#failure === 0 && log < max && image < max;
  }

  /**
   * Makes one record of `commit` and applies it to the image. Returns its position, or 0 when the store has failed. All keys
   * belong to `shard`; changes apply in order and see those before them. Blocks that chunk records no longer name are freed.
   * No answer may leave before {@linkcode endOfTurn} has returned 0.
   */
  commit(shard: number, commit: Commit): number {
    if (this.#failure !== 0) return 0;
    const state = this.#state(shard), position = state.position + 1, charges = commit.charges ?? [];
    const { epoch, session, slot, sequence } = commit;
    const queued = this.#log.writer.length;
    this.#records.begin(recordType.operation, { shard, position, epoch, session, slot, sequence }, charges);
    try {
      for (const change of commit.changes) this.#change(shard, position, change);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.#fail(error.message);
      return 0;
    }
    for (const charge of charges) this.#charge(shard, charge);
    const start = this.#records.finish();
    state.position = position;
    this.#touch(shard, this.#log.writer.length - queued);
    this.#dirtyChanges += commit.changes.length;
    const errno = this.#log.append(start, shard, position);
    if (errno === 0) return position;
    this.#fail(`log segment: errno ${errno}`);
    return 0;
  }

  /** Writes the turn's records to the log. errno; anything but 0 means that none of the turn's answers may leave. */
  endOfTurn(): number {
    const errno = this.#flush();
    // The disk keeps checkpoints waiting for longer than there is memory: it sets the pace.
    return errno === 0 && this.#dirtyChanges >= 2 * this.#limits.checkpointChanges ? this.#checkpointNow() : errno;
  }

  /** Settles with 0 when everything committed before the call survives a power cut. Callers share the work. */
  sync(): Future<IoResult> {
    if (this.#failure !== 0) return Future.of<IoResult>(E.IO);
    if (this.#syncNext !== null) return this.#syncNext;
    if (!this.#syncing && !this.#log.dirty && this.#publishedSynced === this.#published) return Future.of(0);
    this.#syncNext = new Future();
    if (!this.#syncing) this.runtime.scheduler.spawn(this.#syncLoop());
    this.#syncing = true;
    return this.#syncNext;
  }

  /** True when {@linkcode checkpoint} should be run. */
  checkpointDue(): boolean {
    if (this.#dirtyBytes === 0 || this.#failure !== 0) return false;
    const { checkpointBytes, checkpointChanges, checkpointMs } = this.#limits;
    return this.#dirtyBytes >= checkpointBytes || this.#dirtyChanges >= checkpointChanges ||
      this.#log.fill >= logFillForced || this.runtime.nowMs() - this.#dirtySinceMs >= checkpointMs;
  }

  /** Brings the image up to date on disk and lets go of the log before it. errno. */
  *checkpoint(): Task<number> {
    if (this.#failure !== 0) return E.IO;
    if (this.#dirtyBytes === 0) return 0;
    // The bulk goes to disk while the reactor goes on; only what comes meanwhile is left for the blocking part.
    const errno = yield* wait(this.sync());
    return errno === 0 ? this.#checkpointNow() : errno;
  }

  /** Runs checkpoints when they are due, until the store is closed or has failed. Spawn it once. */
  *maintain(): Task<void> {
    while (!this.#closed && this.#failure === 0) {
      if (this.checkpointDue()) yield* this.checkpoint();
      yield* wait(this.runtime.sleep(maintainMs));
    }
  }

  /** Last checkpoint. Afterwards nothing may be called. errno. */
  *close(): Task<number> {
    const errno = yield* this.checkpoint();
    this.#closed = true;
    return errno;
  }

  /** Takes up to 256 free blocks, growing the container if need be; null when it is full. They hold nothing until a record names them. */
  *allocate(count: number): Task<Run[] | null> {
    const runs = this.#allocateNow(count);
    if (runs !== null || this.#allocator.quarantinedBlocks === 0) return runs;
    // Freed blocks wait for the log: hurry it.
    const errno = yield* wait(this.sync());
    return errno === 0 ? this.#allocateNow(count) : null;
  }

  /** Returns blocks of {@linkcode allocate} that no record names. */
  giveBack(runs: readonly Run[]): void {
    this.#allocator.giveBack(runs);
  }

  #allocateNow(count: number): Run[] | null {
    const runs = this.#allocator.allocate(count);
    if (runs !== null) return runs;
    const had = this.#allocator.blockCount;
    this.container.grow(had + Math.min(this.#limits.growBlocks, Math.max(growBlocksMin, had >>> 2)));
    this.#allocator.extend(this.container.blockCount);
    return this.#allocator.allocate(count);
  }

  #state(shard: number): ShardState {
    const state = this.#shards.get(shard);
    if (state === undefined) throw new Error(`store: shard ${shard} is not open`);
    return state;
  }

  #touch(shard: number, bytes: number): void {
    const state = this.#shards.get(shard)!;
    this.#dirtyShards.add(shard);
    this.#unsynced.add(state);
    if (this.#dirtyBytes === 0) this.#dirtySinceMs = this.runtime.nowMs();
    this.#dirtyBytes += bytes + 1;
  }

  #flush(): number {
    if (this.#failure !== 0) return E.IO;
    const errno = this.#log.flush();
    return errno === 0 ? 0 : this.#fail(`log write: errno ${errno}`);
  }

  #fail(what: string): number {
    if (this.#failure === 0) {
      this.runtime.log("error", "store", `store ${this.identity.storeIndex} has failed: ${what}`);
    }
    this.#failure = E.IO;
    return E.IO;
  }

  /** Records one change and applies it to the image. */
  #change(shard: number, position: number, change: Change): void {
    const { key } = change;
    checkKey(shard, key);
    const old = this.#image.get(key);
    if (change.op === changeOp.remove) {
      if (old === undefined) return;
      this.#records.remove(key, old);
      if (key[2] === kind.chunk) this.#publish(old, undefined, shard, position);
      this.#apply(key, undefined);
      return;
    }
    let value: Uint8Array;
    if (change.op === changeOp.put) {
      value = change.value;
      this.#records.put(key, old, value);
    } else {
      if (old === undefined || change.offset + change.bytes.length > change.length) {
        throw new RangeError("patch outside");
      }
      value = applyPatch(old, change.offset, change.bytes, change.length);
      this.#records.patch(key, old, change.offset, change.bytes, change.length);
    }
    if (value.length > valueBytesMax) throw new RangeError(`value of ${value.length} bytes`);
    if (key[2] === kind.chunk) this.#publish(old, value, shard, position);
    this.#apply(key, value);
  }

  #apply(key: Uint8Array, value: Uint8Array | undefined): void {
    try {
      if (value === undefined) this.#image.remove(key);
      else this.#image.put(key, value);
    } catch (error) {
      throw new ImageError(`image: ${error instanceof Error ? error.message : error}`);
    }
  }

  /** A chunk record changes: old blocks are freed, new ones must have been allocated. */
  #publish(old: Uint8Array | undefined, value: Uint8Array | undefined, shard: number, position: number): void {
    this.#published++;
    diffChunks(old, value, (oldBlock, newBlock) => {
      if (newBlock === roomBlock) this.#roomBlocks++;
      if (oldBlock === roomBlock) this.#roomBlocks--;
      if (isBlock(newBlock) && !this.#allocator.isUsed(newBlock)) {
        throw new Error(`block ${newBlock} is named but free`);
      }
      if (isBlock(oldBlock)) this.#allocator.free(oldBlock, shard, position);
    });
  }

  #charge(shard: number, { volume, bytesDelta, inodesDelta }: Charge): void {
    let ofShard = this.#usage.get(shard);
    if (ofShard === undefined) this.#usage.set(shard, ofShard = new Map());
    for (const usages of [ofShard, this.#totals]) {
      let one = usages.get(volume);
      if (one === undefined) usages.set(volume, one = { bytes: 0, inodes: 0 });
      one.bytes += bytesDelta;
      one.inodes += inodesDelta;
      if (one.bytes < 0 || one.inodes < 0) throw new Error(`usage of volume ${volume} in shard ${shard} is below 0`);
    }
  }

  /** One pass after the other while somebody waits: a pass serves those who came before it began. */
  *#syncLoop(): Task<void> {
    for (let done; (done = this.#syncNext) !== null;) {
      this.#syncNext = null;
      done.resolve(yield* this.#syncOnce());
    }
    this.#syncing = false;
  }

  *#syncOnce(): Task<number> {
    let errno = this.#flush();
    if (errno !== 0) return errno;
    const mark = this.#allocator.quarantineMark(), point = this.#log.point;
    const shards = [...this.#unsynced].map((state) => ({ state, position: state.position }));
    this.#unsynced.clear();
    const published = this.#published;
    if (this.#publishedSynced < published) {
      errno = yield* wait(this.container.sync());
      if (errno !== 0) return this.#fail(`container sync: errno ${errno}`);
      this.#publishedSynced = Math.max(this.#publishedSynced, published);
      errno = this.#writeBarrier(point);
      if (errno !== 0) return errno;
    }
    const written = this.#log.writtenBytes;
    errno = yield* wait(this.#log.sync());
    if (errno !== 0) return this.#fail(`log sync: errno ${errno}`);
    if (this.#failure !== 0) return E.IO;
    this.#log.syncedTo(written);
    this.#madeDurable(shards, mark);
    return 0;
  }

  #madeDurable(shards: { state: ShardState; position: number }[], mark: number): void {
    for (const { state, position } of shards) state.durablePosition = Math.max(state.durablePosition, position);
    this.#allocator.thaw(mark, this.#held);
  }

  /** Tells replay that data named by records before `point` need not be verified. */
  #writeBarrier(point: { segment: number; end: number }): number {
    if (this.#failure !== 0) return E.IO;
    const position = ++this.#barriers;
    const head = { shard: storeShard, position, epoch: point.segment, session: 0, slot: 0, sequence: point.end };
    this.#records.begin(recordType.barrier, head, []);
    const errno = this.#log.append(this.#records.finish(), storeShard, 0);
    return errno === 0 ? this.#flush() : this.#fail(`log segment: errno ${errno}`);
  }

  /** The blocking part of a checkpoint. Order: container, log, image (a record in the image has its data and its log on disk). */
  #checkpointNow(): number {
    const meter = this.#checkpoints, beganMs = meter?.nowMs() ?? 0;
    const errno = this.#saveAll();
    meter?.ended(0, beganMs, meter.nowMs());
    return errno;
  }

  #saveAll(): number {
    let errno = this.#flush();
    if (errno !== 0) return errno;
    if (this.#publishedSynced < this.#published) {
      errno = this.container.syncNow();
      if (errno !== 0) return this.#fail(`container sync: errno ${errno}`);
      this.#publishedSynced = this.#published;
    }
    errno = this.#log.syncNow();
    if (errno !== 0) return this.#fail(`log sync: errno ${errno}`);
    return this.#commitImage();
  }

  #commitImage(): number {
    const mark = this.#allocator.quarantineMark();
    try {
      this.#putCounters();
    } catch (error) {
      return this.#fail(`image: ${error instanceof Error ? error.message : error}`);
    }
    const errno = this.#image.commit();
    if (errno !== 0) return this.#fail(`image commit: errno ${errno}`);
    const shards = [...this.#unsynced].map((state) => ({ state, position: state.position }));
    this.#unsynced.clear();
    this.#dirtyShards.clear();
    this.#dirtyBytes = this.#dirtyChanges = 0;
    this.#madeDurable(shards, mark);
    this.#log.drop(this.#held);
    return 0;
  }

  #putCounters(): void {
    for (const shard of this.#dirtyShards) {
      this.#image.put(new Key(shard, kind.shard, 3).done(), encode(shardState, this.#shards.get(shard)!));
      for (const [volume, usage] of this.#usage.get(shard) ?? []) {
        this.#image.put(new Key(shard, kind.usage, 7).u32(volume).done(), encode(usageRecord, usage));
      }
    }
    const segments = { firstSegment: this.#log.firstNeeded(this.#held), nextSegment: this.#log.nextSegment };
    const record = { layoutVersion, ...this.identity, starts: this.#starts, ...segments };
    this.#image.put(storeKey, encode(storeRecord, record));
  }

  /** Everything between the image as it was committed and the first operation. A text is an error. */
  *#start(file: LogFile, contents: LogContents, nextSegment: number): Task<string> {
    this.#loadShards();
    if (contents.note !== "") this.runtime.log("warn", "store", contents.note);
    const replayed = yield* this.#replay(contents);
    this.#allocator = this.#buildAllocator();
    const numbers = file.segments(), kept = replayed.kept;
    for (const segment of numbers) if (!kept.some((one) => one.segment === segment)) file.remove(segment);
    this.#log = new Log({
      file,
      limits: this.#limits,
      storeSum: storeSum(this.identity),
      kept,
      keptEnd: replayed.end,
      nextSegment: Math.max(nextSegment, (numbers.at(-1) ?? 0) + 1),
      makeRoom: () => this.#checkpointNow(),
    });
    this.#records = new RecordWriter(this.#log.writer);
    for (const [shard, state] of this.#shards) {
      state.nextSequence += startSkip;
      state.nextIntent += startSkip;
      this.#touch(shard, 0);
    }
    // What a killed process wrote may still be in the page cache only.
    this.#published++;
    const errno = this.#checkpointNow();
    return errno === 0 ? "" : "the store cannot be written: see the log";
  }

  #loadShards(): void {
    for (const shard of [...Array(shardsMax).keys(), localShard]) {
      const value = this.#image.get(new Key(shard, kind.shard, 3).done());
      if (value === undefined) continue;
      const state = decode(shardState, value);
      this.#shards.set(shard, { ...state, durablePosition: state.position });
      const prefix = new Key(shard, kind.usage, 3).done();
      const charges: Charge[] = [];
      this.#image.scan(prefix, after(prefix), (key, value) => {
        const { bytes, inodes } = decode(usageRecord, value);
        charges.push({ volume: keyNumber(key, 3, 4), bytesDelta: bytes, inodesDelta: inodes });
        return true;
      });
      for (const charge of charges) this.#charge(shard, charge);
    }
  }

  *#replay(contents: LogContents): Task<Replayed> {
    const barrier = lastBarrier(contents), kept: KeptSegment[] = [];
    let applied = 0;
    for (const segment of contents.segments) {
      const positions = new Map<number, number>();
      kept.push({ segment: segment.segment, positions });
      for (const { bytes, at } of recordsOf(segment)) {
        const record = decodeRecord(bytes);
        if (record.type === recordType.barrier) continue;
        const verified = segment.segment < barrier.segment || segment.segment === barrier.segment && at < barrier.end;
        const state = this.openShard(record.shard) as ShardState;
        if (record.position > state.position) {
          if (record.position !== state.position + 1) {
            throw new DecodeError(`shard ${record.shard} jumps from position ${state.position} to ${record.position}`);
          }
          if (!verified && !(yield* this.#dataIsThere(record))) {
            this.runtime.log(
              "warn",
              "store",
              `log segment ${segment.segment} ends at ${at}: data written last is not on disk`,
            );
            return { kept, end: at };
          }
          this.#replayRecord(record, state);
          applied++;
        }
        positions.set(record.shard, record.position);
      }
    }
    if (applied > 0) this.runtime.log("info", "store", `${applied} records replayed from the log`);
    return { kept, end: contents.segments.at(-1)?.end ?? 0 };
  }

  #replayRecord(record: LogRecord, state: ShardState): void {
    for (const change of record.changes) this.#replayChange(record.shard, state, change);
    for (const charge of record.charges) this.#charge(record.shard, charge);
    state.position = record.position;
  }

  #replayChange(shard: number, state: ShardState, change: LoggedChange): void {
    const { key } = change;
    if ((key[0] << 8 | key[1]) !== shard) throw new DecodeError("key of another shard");
    if (change.op === changeOp.remove) return this.#image.remove(key);
    if (change.op === changeOp.patch) {
      const old = this.#image.get(key);
      if (old === undefined || old.length !== change.oldTotal) throw new DecodeError("patch of another value");
      return this.#image.put(key, applyPatch(old, change.offset, change.bytes, change.newTotal));
    }
    this.#image.put(key, change.value);
    if (key[2] === kind.inode && key.length === 10) {
      const sequence = keyNumber(key, 3, 7) % sequenceLimit;
      if (sequence < rootSequence && sequence >= state.nextSequence) state.nextSequence = sequence + 1;
    } else if (key[2] === kind.intent && key.length >= 10) {
      state.nextIntent = Math.max(state.nextIntent, keyNumber(key, 3, 7) + 1);
    }
  }

  /** True when every block that the record publishes holds what its crc says. */
  *#dataIsThere(record: LogRecord): Task<boolean> {
    const blocks = publishedBlocks(record);
    for (let i = 0; i < blocks.length;) {
      let end = i + 1;
      while (end < blocks.length && end - i < verifyBlocksMax && blocks[end].block === blocks[end - 1].block + 1) end++;
      if (blocks[end - 1].block >= this.container.blockCount) return false;
      const buffer = this.container.allocate((end - i) * granuleBytes),
        bytes = buffer.subarray(0, (end - i) * granuleBytes);
      const errno = yield* wait(this.container.read(blocks[i].block, bytes));
      let good = true;
      for (let at = 0; errno === 0 && good && i < end; i++, at += granuleBytes) {
        good = crc32(bytes.subarray(at, at + granuleBytes)) === blocks[i].crc;
      }
      this.container.release(buffer);
      // Not being able to read is no reason to forget what was acknowledged: the start fails instead.
      if (errno !== 0) throw new DecodeError(`block ${blocks[end - 1].block} cannot be read (errno ${errno})`);
      if (!good) return false;
    }
    return true;
  }

  #buildAllocator(): Allocator {
    const allocator = new Allocator(Math.floor(this.container.blockCount / groupBlocks) * groupBlocks);
    for (const shard of this.#shards.keys()) {
      const prefix = new Key(shard, kind.chunk, 3).done();
      this.#image.scan(prefix, after(prefix), (_key, value) => {
        diffChunks(undefined, value, (_old, block) => {
          if (block === roomBlock) this.#roomBlocks++;
          else if (!allocator.claim(block)) {
            throw new DecodeError(`block ${block} is in two chunks or outside the container`);
          }
        });
        return true;
      });
    }
    return allocator;
  }
}

/** The image refused a change. */
class ImageError extends Error {}

interface Replayed {
  kept: KeptSegment[];
  /** Where in the last segment the replay ended. */
  end: number;
}

/** Shards are numbered below this. */
const shardsMax = 4096;

function storeSum(identity: StoreIdentity): number {
  return crc32(`${identity.clusterId}/${identity.serverId}/${identity.storeIndex}`);
}

function readStoreRecord(image: Image, identity: StoreIdentity) {
  const value = image.get(storeKey);
  if (value === undefined) return { error: "the image holds no store: it was never formatted" };
  const version = new Reader(value).u32();
  if (version !== layoutVersion) {
    return { error: `the store has layout ${version}, this program knows ${layoutVersion}` };
  }
  const record = decode(storeRecord, value);
  for (const field of ["clusterId", "serverId", "storeIndex", "storeCount"] as const) {
    if (record[field] !== identity[field]) {
      return { error: `the store has ${field} ${record[field]}, not ${identity[field]}` };
    }
  }
  return record;
}

function checkKey(shard: number, key: Uint8Array): void {
  if (key.length < 3 || key.length > keyBytesMax) throw new RangeError(`key of ${key.length} bytes`);
  if ((key[0] << 8 | key[1]) !== shard) {
    throw new Error(`key of shard ${key[0] << 8 | key[1]} in a record of shard ${shard}`);
  }
}

/** The point before which data is known durable: the last barrier's. */
function lastBarrier(contents: LogContents): { segment: number; end: number } {
  let point = { segment: 0, end: 0 };
  for (const segment of contents.segments) {
    for (const { bytes } of recordsOf(segment)) {
      if (bytes[8] !== recordType.barrier) continue;
      const { epoch, sequence } = decodeRecord(bytes);
      point = { segment: epoch, end: sequence };
    }
  }
  return point;
}

/** Blocks and crcs that a record names anew. */
function publishedBlocks(record: LogRecord): { block: number; crc: number }[] {
  const found: { block: number; crc: number }[] = [];
  const visit = (_old: number, block: number, crc: number) => {
    if (isBlock(block)) found.push({ block, crc });
  };
  for (const change of record.changes) {
    if (change.key[2] !== kind.chunk) continue;
    if (change.op === changeOp.put) diffChunks(change.old ?? undefined, change.value, visit);
    else if (change.op === changeOp.patch) diffChunkPatch(change, visit);
  }
  return found;
}
