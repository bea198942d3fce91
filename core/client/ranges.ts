/**
 * Ranges of files without bytes of the program: fallocate(2), SEEK_DATA and SEEK_HOLE.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { type Attributes, inodeFlags } from "../meta/attributes.ts";
import { fileBytesMax } from "../meta/layout.ts";
import { chunkShard } from "../placement/hash.ts";
import { FALLOCATE, NEXT_DATA, SEEK_CHUNK } from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import { chunkBytes, reserveFar } from "./data.ts";
import { type AllocateRange, type Done, done, type Whence } from "./filesystem.ts";
import { inParallel } from "./parallel.ts";
import { statistics } from "./statistics.ts";
import { errnoOf, parallelMax, type Volume } from "./volume.ts";

/** Longer allocations ask first whether the volume has that much. */
const unaskedBytesMax = 4 * 2 ** 20;
/** Modes of fallocate(2) (include/uapi/linux/falloc.h). */
export const fallocateModes = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;
/** SEEK_CHUNK's answer for "not in this chunk". */
const nowhere = 2 ** 32 - 1;
/** Chunks that a search for a hole goes over before it says what is always true: there is one at the end. */
const holeChunksMax = 65_536;
/** 512-byte units of a block of space. */
const blockBytes = 4096;

/** FALLOCATE. EINVAL, EFBIG, EOPNOTSUPP for modes that are not offered, ENOSPC. */
export function* allocate(volume: Volume, inode: number, range: AllocateRange): Task<Done> {
  const { mode, offset, length, killSetId } = range, { keepSize, punchHole, zeroRange } = fallocateModes;
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length <= 0) return E.INVAL;
  if (![0, keepSize, punchHole | keepSize, zeroRange, zeroRange | keepSize].includes(mode)) return E.OPNOTSUPP;
  if (offset + length > fileBytesMax) return E.FBIG;
  const room = (mode & punchHole) === 0 ? yield* roomForFar(volume, inode, offset, length) : done;
  if (failed(room)) return room;
  const answer = yield* volume.ask(FALLOCATE, inode, { inode, mode, offset, length, killSetId });
  return failed(answer) ? answer : done;
}

/** Room for the part of a range that lies in chunks > 0. */
function* roomForFar(volume: Volume, inode: number, offset: number, length: number): Task<Done> {
  const start = Math.max(offset, chunkBytes), end = offset + length;
  if (start >= end) return done;
  if (end - start > unaskedBytesMax) {
    // What can never fit should not fill the volume first.
    const file = yield* volume.attributes(inode), totals = yield* statistics(volume);
    if (failed(file)) return file;
    if (!failed(totals) && end - start - file.blocks * 512 > totals.availableBytes) return E.NOSPC;
  }
  return yield* reserveFar(volume, inode, start, end - start);
}

/** lseek(2) with SEEK_DATA or SEEK_HOLE: ENXIO at and beyond the end, and when no data follows; the end is a hole. */
export function* seek(volume: Volume, inode: number, offset: number, whence: Whence): Task<Result<{ offset: number }>> {
  if (!Number.isSafeInteger(offset)) return E.INVAL;
  const file = yield* volume.attributes(inode);
  if (failed(file)) return file;
  if (offset < 0 || offset >= file.size) return E.NXIO;
  return yield* whence === "data" ? seekData(volume, file, offset) : seekHole(volume, file, offset);
}

/** As {@linkcode seek} for data; `file` says how far. */
export function* seekData(volume: Volume, file: Attributes, offset: number): Task<Result<{ offset: number }>> {
  let found = Infinity;
  if (offset < chunkBytes) {
    const near = yield* seekChunk(volume, file.inode, 0, offset, false);
    if (near < 0) return -near;
    if (near !== nowhere) found = near;
  }
  if (found === Infinity && file.size > chunkBytes && (file.flags & inodeFlags.far) !== 0) {
    const far = yield* nextData(volume, file.inode, Math.max(offset, chunkBytes));
    if (failed(far)) return far;
    found = far.offset;
  }
  return found < file.size ? { offset: found } : E.NXIO;
}

function* nextData(volume: Volume, inode: number, offset: number): Task<Result<{ offset: number }>> {
  const { caller, maps, runtime } = volume.session;
  const stores = maps.holders;
  const replies = yield* inParallel(runtime.scheduler, stores.length, parallelMax, (i) => {
    return caller.call(NEXT_DATA, stores[i], { inode, offset });
  });
  let lowest = Infinity;
  for (const reply of replies) {
    if (reply.status !== 0) return errnoOf(reply.status);
    lowest = Math.min(lowest, reply.body!.offset);
  }
  return { offset: lowest };
}

function* seekHole(volume: Volume, file: Attributes, offset: number): Task<Result<{ offset: number }>> {
  const atEnd = { offset: file.size };
  const full = file.blocks * 512 >= Math.ceil(file.size / blockBytes) * blockBytes;
  if (full && (file.flags & inodeFlags.room) === 0) return atEnd;
  const first = Math.floor(offset / chunkBytes);
  const last = Math.min(Math.floor((file.size - 1) / chunkBytes), first + holeChunksMax);
  for (let chunk = first; chunk <= last; chunk += parallelMax) {
    const count = Math.min(parallelMax, last - chunk + 1);
    const found = yield* inParallel(volume.session.runtime.scheduler, count, parallelMax, (i) => {
      return seekChunk(volume, file.inode, chunk + i, chunk + i === first ? offset % chunkBytes : 0, true);
    });
    for (let i = 0; i < count; i++) {
      if (found[i] < 0) return -found[i];
      if (found[i] !== nowhere) return { offset: Math.min(file.size, (chunk + i) * chunkBytes + found[i]) };
    }
  }
  return atEnd;
}

/** Offset in the chunk, `nowhere`, or a negative errno. */
function* seekChunk(volume: Volume, inode: number, chunk: number, offset: number, hole: boolean): Task<number> {
  const { caller, maps } = volume.session, body = { inode, chunk, offset, hole };
  const reply = chunk === 0
    ? yield* volume.reply(SEEK_CHUNK, inode, body)
    : yield* caller.call(SEEK_CHUNK, { shard: chunkShard(inode, chunk, maps.current.shards) }, body);
  return reply.status === 0 ? reply.body!.offset : -errnoOf(reply.status);
}
