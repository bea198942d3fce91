/**
 * Bytes of files. Chunk 0 lives with the inode and is read and written there, size and all, in one request. Chunks
 * > 0 are read and written on their own shards, many at a time, straight from and into the program's buffer.
 *
 * Three rules keep a reader from seeing zeros that no program wrote: a writer publishes the size after the data is there;
 * a reader that finds a chunk short of the size, or asked for it before it knew of that size, reads it again; and one that
 * finds a chunk cut by a truncation that its size knows nothing of starts over.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { fileBytesMax } from "../meta/layout.ts";
import { chunkShard } from "../placement/hash.ts";
import { dataBytesMax, status } from "../protocol/frame.ts";
import type { Reply } from "../protocol/caller.ts";
import {
  APPEND,
  blocksBias,
  FSYNC,
  PUBLISH,
  READ,
  READ_CHUNK,
  RESERVE_CHUNK,
  WRITE,
  WRITE_CHUNK,
} from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import { type Done, done, type ReadOptions } from "./filesystem.ts";
import { inParallel } from "./parallel.ts";
import { errnoOf, parallelMax, type Volume, type WriteHint } from "./volume.ts";

/** Bytes of a chunk. */
export const chunkBytes = dataBytesMax;
/** A longer write is done in steps of this size, each published. */
const writeStepBytes = 64 * chunkBytes;
/**
 * Truncations that may come between data and size: of a write, before it is given up with EIO; of a read, before it
 * takes the size of one and the bytes of another.
 */
const staleMax = 16;
const blocksDeltaMax = 2 ** 32 - 1;

/** Part of a range that lies in one chunk. */
export interface Piece {
  chunk: number;
  /** Offset in the chunk. */
  within: number;
  /** Offset in the range. */
  at: number;
  length: number;
}

function pieces(offset: number, length: number): Piece[] {
  const list: Piece[] = [];
  for (let at = 0; at < length;) {
    const chunk = Math.floor((offset + at) / chunkBytes), within = (offset + at) % chunkBytes;
    const count = Math.min(length - at, chunkBytes - within);
    list.push({ chunk, within, at, length: count });
    at += count;
  }
  return list;
}

function isOffset(offset: number): boolean {
  return Number.isSafeInteger(offset) && offset >= 0;
}

/** Reads up to `into.length` bytes; `count` is short only at the end of the file. */
export function* read(
  volume: Volume,
  asked: { inode: number; offset: number; into: Uint8Array } & ReadOptions,
): Task<Result<{ count: number }>> {
  const { inode, offset, into } = asked, accessTimes = volume.accessTimes(asked);
  if (!isOffset(offset)) return E.INVAL;
  const length = Math.min(into.length, fileBytesMax - offset);
  if (length <= 0) return { count: 0 };
  const wanted = into.subarray(0, length);
  if (offset + length <= chunkBytes) {
    return yield* readNear(volume, { inode, offset, length, gen: 0, accessTimes }, wanted);
  }
  for (let attempt = 0, gen = 0;; attempt++) {
    const read = yield* readFar(volume, { inode, offset, into: wanted, gen, accessTimes });
    if (failed(read)) return read;
    if (read.floor <= read.gen || attempt >= staleMax) return { count: read.count };
    gen = read.floor;
  }
}

/** A read that reaches beyond chunk 0. */
interface FarRead {
  inode: number;
  offset: number;
  into: Uint8Array;
  /** A truncation with this gen has come to chunks of the file: the size is to be of no older one. */
  gen: number;
  /** As in READ. */
  accessTimes: number;
}

/** What a far read found. Size and bytes belong together when `floor` is not above `gen`. */
interface FarBytes {
  count: number;
  /** Gen of the file's size. */
  gen: number;
  /** Gen of the last truncation that a chunk has seen. */
  floor: number;
}

function* readFar(volume: Volume, read: FarRead): Task<Result<FarBytes>> {
  const { inode, offset, into } = read, { length } = into;
  const near = nearLength(offset, length), far = farPieces(offset, length);
  const found = { count: 0, gen: 0, floor: 0 };
  let nearCount = 0, size = 0;
  // Chunks asked for now hold all that a file of this size has: what a size seen later adds may have come after.
  const before = volume.sizeSeen(inode);
  const lengths = yield* inParallel(volume.session.runtime.scheduler, far.length + 1, parallelMax, function* (i) {
    if (i > 0) return yield* readPiece(volume, inode, far[i - 1], into, found);
    const body = { inode, offset: near > 0 ? offset : 0, length: near, gen: read.gen, accessTimes: read.accessTimes };
    const reply = yield* volume.reply(READ, inode, body, { into: into.subarray(0, near) });
    if (reply.status === 0) ({ size, gen: found.gen } = reply.body!), nearCount = reply.dataLength;
    return reply.status === 0 ? reply.dataLength : -errnoOf(reply.status);
  });
  const bad = lengths.find((one) => one < 0);
  if (bad !== undefined) return -bad;
  found.count = Math.max(0, Math.min(size - offset, length));
  into.fill(0, Math.min(nearCount, found.count), Math.min(near, found.count));
  volume.noteSize(inode, size, found.gen);
  if (found.floor > found.gen) return found;
  const sizeBefore = before?.gen === found.gen ? before.size : 0;
  const sure = lengths.slice(1).map((one, i) => Math.min(one, Math.max(0, sizeBefore - offset - far[i].at)));
  const errno = yield* completePieces(volume, read, far, { lengths: sure, found });
  return errno === 0 ? found : errno;
}

function* readNear(
  volume: Volume,
  body: { inode: number; offset: number; length: number; gen: number; accessTimes: number },
  into: Uint8Array,
): Task<Result<{ count: number }>> {
  const reply = yield* volume.reply(READ, body.inode, body, { into });
  if (reply.status !== 0) return errnoOf(reply.status);
  const count = Math.max(0, Math.min(reply.body!.size - body.offset, into.length));
  if (reply.dataLength < count) into.fill(0, reply.dataLength, count);
  return { count };
}

/** Bytes read, or a negative errno; raises `found.floor`. */
function* readPiece(
  volume: Volume,
  inode: number,
  piece: Piece,
  into: Uint8Array,
  found: { floor: number },
): Task<number> {
  const { chunk, within, at, length } = piece, { caller, maps } = volume.session;
  const shard = chunkShard(inode, chunk, maps.current.shards);
  const options = { into: into.subarray(at, at + length) };
  const reply = yield* caller.call(READ_CHUNK, { shard }, { inode, chunk, offset: within, length }, options);
  if (reply.status !== 0) return -errnoOf(reply.status);
  found.floor = Math.max(found.floor, reply.body!.floor);
  return reply.dataLength;
}

/**
 * Reads again what was not sure to reach the size, and zeroes what still does not: a hole. `lengths`: sure bytes of each
 * piece. errno.
 */
function* completePieces(
  volume: Volume,
  { inode, into }: FarRead,
  far: Piece[],
  { lengths, found }: { lengths: number[]; found: FarBytes },
): Task<number> {
  const wanted = far.map((piece) => Math.min(piece.length, found.count - piece.at));
  const short = far.map((_, i) => i).filter((i) => lengths[i] < wanted[i]);
  if (short.length === 0) return 0;
  const again = yield* inParallel(volume.session.runtime.scheduler, short.length, parallelMax, (i) => {
    return readPiece(volume, inode, { ...far[short[i]], length: wanted[short[i]] }, into, found);
  });
  const bad = again.find((one) => one < 0);
  if (bad !== undefined) return -bad;
  short.forEach((i, nth) => into.fill(0, far[i].at + again[nth], far[i].at + wanted[i]));
  return 0;
}

/** Writes all of `data`. An errno may leave a part of it written, as on every file system. */
export function* write(
  volume: Volume,
  inode: number,
  offset: number,
  data: Uint8Array,
  options: { killSetId: boolean },
): Task<Done> {
  if (!isOffset(offset)) return E.INVAL;
  if (offset + data.length > fileBytesMax) return E.FBIG;
  if (data.length > 0 && offset + data.length <= chunkBytes) {
    const body = { inode, offset, killSetId: options.killSetId, far: null };
    return errnoOf((yield* volume.reply(WRITE, inode, body, { data })).status) || done;
  }
  for (let at = 0; at < data.length; at += writeStepBytes) {
    const part = data.subarray(at, at + writeStepBytes);
    const errno = yield* writeStep(volume, dataStep(volume, { inode, offset: offset + at, ...options }, part));
    if (errno !== 0) return errno;
  }
  return done;
}

/** What a write has put into far chunks, published with what it puts into chunk 0. */
export interface FarPart {
  gen: number;
  size: number;
  blocksDelta: number;
  servers: number[];
}

/** A stretch of a file that is written and then published. */
export interface WriteStep {
  inode: number;
  offset: number;
  length: number;
  /** The size stays as it is. */
  keepSize?: boolean;
  killSetId: boolean;
  /** Writes the first `length` bytes, which lie in chunk 0, and publishes `far` with them: a status. */
  near(length: number, far: FarPart | null): Task<number>;
  /** What lies in chunks > 0; `at` counts from the step's first byte. */
  far: readonly Piece[];
  /** Writes one of them. */
  put(piece: Piece, hint: WriteHint): Task<Reply<{ blocksDelta: number }>>;
}

/** Gives room to the holes of a range of chunks > 0. ENOSPC may leave a part with room, as on other file systems. */
export function* reserveFar(volume: Volume, inode: number, offset: number, length: number): Task<Done> {
  for (let at = 0; at < length; at += writeStepBytes) {
    const part = { offset: offset + at, length: Math.min(writeStepBytes, length - at) };
    const errno = yield* writeStep(volume, roomStep(volume, { inode, ...part }));
    if (errno !== 0) return errno;
  }
  return done;
}

/** A step that makes room in chunks > 0. */
function roomStep(volume: Volume, at: { inode: number; offset: number; length: number }): WriteStep {
  const { inode, offset, length } = at, { caller, maps } = volume.session;
  return {
    ...at,
    killSetId: false,
    keepSize: true,
    far: farPieces(offset, length),
    near() {
      throw new Error("room in chunk 0 is made by FALLOCATE");
    },
    *put({ chunk, within, length }, hint) {
      const shard = chunkShard(inode, chunk, maps.current.shards);
      const body = { inode, volume: hint.volume, gen: hint.gen, chunk, offset: within, length };
      return yield* caller.call(RESERVE_CHUNK, { shard }, body);
    },
  };
}

interface FarResult {
  /** 0, an errno, or status.staleGen. */
  status: number;
  blocksDelta: number;
  servers: number[];
}

/** Bytes that a range has in chunk 0. */
export function nearLength(offset: number, length: number): number {
  return Math.max(0, Math.min(length, chunkBytes - offset));
}

/** Parts of a range that lie in chunks > 0, `at` counted from its first byte. */
export function farPieces(offset: number, length: number): Piece[] {
  const near = nearLength(offset, length);
  return pieces(offset + near, length - near).map((piece) => ({ ...piece, at: piece.at + near }));
}

/** A step of bytes that the program gave. */
function dataStep(
  volume: Volume,
  at: { inode: number; offset: number; killSetId: boolean },
  data: Uint8Array,
): WriteStep {
  const { inode, offset, killSetId } = at, { caller, maps } = volume.session;
  return {
    ...at,
    length: data.length,
    far: farPieces(offset, data.length),
    *near(length, far) {
      const options = { data: data.subarray(0, length) };
      const reply = yield* volume.reply(WRITE, inode, { inode, offset, killSetId, far }, options);
      if (reply.status === 0 && far !== null) volume.noteSize(inode, reply.body!.size, far.gen);
      return reply.status;
    },
    *put({ chunk, within, at, length }, hint) {
      const shard = chunkShard(inode, chunk, maps.current.shards);
      const body = { inode, volume: hint.volume, gen: hint.gen, chunk, offset: within };
      return yield* caller.call(WRITE_CHUNK, { shard }, body, { data: data.subarray(at, at + length) });
    },
  };
}

/** Far chunks first, then chunk 0 and the size: nobody sees the end before what lies before it. errno. */
export function* writeStep(volume: Volume, step: WriteStep): Task<number> {
  const { inode, offset, length } = step;
  const near = nearLength(offset, length);
  if (near === length) {
    return errnoOf(yield* step.near(near, null));
  }
  for (let attempt = 0; attempt < staleMax; attempt++) {
    const hint = yield* volume.hint(inode);
    if (failed(hint)) return hint;
    const answer = yield* writeWithHint(volume, step, near, hint);
    if (answer !== status.staleGen) return answer === 0 ? 0 : errnoOf(answer);
    volume.forget(inode);
  }
  return E.IO;
}

function* writeWithHint(volume: Volume, step: WriteStep, near: number, hint: WriteHint): Task<number> {
  const { inode, offset, length, killSetId } = step;
  const publish = { inode, gen: hint.gen, blocksDelta: blocksBias, servers: [] as number[], killSetId };
  if (!hint.far) {
    // Whoever deletes the file has to know that it has far chunks before the first of them exists.
    const marked = yield* volume.reply(PUBLISH, inode, { ...publish, size: 0 });
    if (marked.status !== 0) return marked.status;
    hint.far = true;
  }
  const far = yield* writeFar(volume, step, hint);
  publish.blocksDelta = Math.max(0, Math.min(blocksBias + far.blocksDelta, blocksDeltaMax));
  publish.servers = far.servers;
  if (far.status === 0 && near > 0) {
    const { gen, blocksDelta, servers } = publish;
    far.status = yield* step.near(near, { gen, size: offset + length, blocksDelta, servers });
    if (far.status === 0) return 0;
  }
  // After a failure the size stays, but what was written counts: for the space used, and for the next fsync.
  const size = far.status === 0 && !step.keepSize ? offset + length : 0;
  // A truncation is under way, or over: a publication is answered when it is over, so that the next try fares better.
  if (far.servers.length === 0 && far.status !== status.staleGen) return far.status;
  const published = yield* volume.reply(PUBLISH, inode, { ...publish, size });
  if (published.status === 0) volume.noteSize(inode, published.body!.size, hint.gen);
  return far.status === 0 ? published.status : far.status;
}

function* writeFar(volume: Volume, step: WriteStep, hint: WriteHint): Task<FarResult> {
  const { far } = step, result: FarResult = { status: 0, blocksDelta: 0, servers: [] };
  yield* inParallel(volume.session.runtime.scheduler, far.length, parallelMax, function* (i): Task<void> {
    if (result.status !== 0) return;
    const reply = yield* step.put(far[i], hint);
    if (reply.status !== 0) {
      // An errno says more than staleGen, which only asks for another try.
      if (result.status === 0 || result.status === status.staleGen) result.status = reply.status;
      return;
    }
    result.blocksDelta += reply.body!.blocksDelta - blocksBias;
    if (!result.servers.includes(reply.server)) result.servers.push(reply.server);
  });
  return result;
}

/** Makes the size at least `size`, without data (the end of a copied hole). errno. */
export function* extendTo(
  volume: Volume,
  inode: number,
  size: number,
  options: { killSetId: boolean },
): Task<number> {
  for (let attempt = 0; attempt < staleMax; attempt++) {
    const hint = yield* volume.hint(inode);
    if (failed(hint)) return hint;
    const body = { inode, gen: hint.gen, size, blocksDelta: blocksBias, servers: [], ...options };
    const reply = yield* volume.reply(PUBLISH, inode, body);
    if (reply.status !== status.staleGen) return reply.status === 0 ? 0 : errnoOf(reply.status);
    volume.forget(inode);
  }
  return E.IO;
}

/** APPEND. A piece of up to 1 MiB is appended atomically; longer data in several pieces. */
export function* append(
  volume: Volume,
  inode: number,
  data: Uint8Array,
  options: { killSetId: boolean },
): Task<Result<{ offset: number }>> {
  let first = -1;
  for (let at = 0; at === 0 || at < data.length; at += dataBytesMax) {
    const piece = data.subarray(at, at + dataBytesMax);
    const reply = yield* volume.ask(APPEND, inode, { inode, killSetId: options.killSetId }, { data: piece });
    if (failed(reply)) return reply;
    if (first < 0) first = reply.offset;
  }
  return { offset: first };
}

/** FSYNC. */
export function* sync(volume: Volume, inode: number): Task<Done> {
  const synced = yield* volume.ask(FSYNC, inode, { inode });
  return failed(synced) ? synced : done;
}
