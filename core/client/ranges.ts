/**
 * Ranges of files without bytes of the program: fallocate(2), SEEK_DATA and SEEK_HOLE, copy_file_range(2).
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { type Attributes, inodeFlags, S } from "../meta/attributes.ts";
import { fileBytesMax } from "../meta/layout.ts";
import { chunkShard } from "../placement/hash.ts";
import { FALLOCATE, NEXT_DATA, SEEK_CHUNK } from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import { chunkBytes, extendTo, read, write } from "./data.ts";
import { type AllocateRange, type CopyRange, type Done, done, type Whence } from "./filesystem.ts";
import { inParallel } from "./parallel.ts";
import { errnoOf, parallelMax, type Volume } from "./volume.ts";

/** Modes of fallocate(2) (include/uapi/linux/falloc.h). */
export const fallocateModes = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;
/** Bytes that one copyRange goes over at most; the caller asks again for the rest. */
export const copyBytesMax = 256 * 2 ** 20;
/** Bytes of a copy in one read and write, and how many of those at once. */
const copyPieceBytes = 2 ** 20, copyPieces = 4;
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
  const answer = yield* volume.ask(FALLOCATE, inode, { inode, mode, offset, length, killSetId });
  return failed(answer) ? answer : done;
}

/** lseek(2) with SEEK_DATA or SEEK_HOLE: ENXIO at and beyond the end, and when no data follows; the end is a hole. */
export function* seek(volume: Volume, inode: number, offset: number, whence: Whence): Task<Result<{ offset: number }>> {
  if (!Number.isSafeInteger(offset)) return E.INVAL;
  const file = yield* volume.attributes(inode);
  if (failed(file)) return file;
  if (offset < 0 || offset >= file.size) return E.NXIO;
  return yield* whence === "data" ? seekData(volume, file, offset) : seekHole(volume, file, offset);
}

function* seekData(volume: Volume, file: Attributes, offset: number): Task<Result<{ offset: number }>> {
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
  if (file.blocks * 512 >= Math.ceil(file.size / blockBytes) * blockBytes) return atEnd;
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

/**
 * copy_file_range(2): holes of the source become holes of the target. `count` is short at the source's end, after
 * {@linkcode copyBytesMax}, and before a failure that came after something had been copied. EINVAL when the ranges
 * overlap in one file or something is no regular file.
 */
export function* copyRange(volume: Volume, request: CopyRange): Task<Result<{ count: number }>> {
  const { from, fromOffset, to, toOffset, length } = request;
  if (![fromOffset, toOffset, length].every((one) => Number.isSafeInteger(one) && one >= 0)) return E.INVAL;
  if (from === to && fromOffset < toOffset + length && toOffset < fromOffset + length) return E.INVAL;
  const source = yield* volume.attributes(from);
  if (failed(source)) return source;
  const target = yield* volume.attributes(to);
  if (failed(target)) return target;
  for (const { mode } of [source, target]) {
    if ((mode & S.IFMT) !== S.IFREG) return (mode & S.IFMT) === S.IFDIR ? E.ISDIR : E.INVAL;
  }
  const total = Math.min(length, source.size - fromOffset, copyBytesMax);
  if (total <= 0) return { count: 0 };
  if (toOffset + total > fileBytesMax) return E.FBIG;
  let count = 0;
  while (count < total) {
    const step = yield* copyStep(volume, { ...request, length: total }, count, source, target);
    if (failed(step)) return count > 0 ? { count } : step;
    if (step.count === 0) break;
    count += step.count;
  }
  return { count };
}

/** Copies what comes at `at`: a hole, or data up to the next hole. 0: the source became shorter. */
function* copyStep(
  volume: Volume,
  request: CopyRange,
  at: number,
  source: Attributes,
  target: Attributes,
): Task<Result<{ count: number }>> {
  const { fromOffset, toOffset, length } = request;
  const data = yield* seekData(volume, source, fromOffset + at);
  if (failed(data) && data !== E.NXIO) return data;
  const dataAt = failed(data) ? length : Math.min(length, data.offset - fromOffset);
  if (dataAt > at) {
    const errno = yield* copyHole(volume, request, target, { start: toOffset + at, end: toOffset + dataAt });
    return errno === 0 ? { count: dataAt - at } : errno;
  }
  const hole = yield* seekHole(volume, source, fromOffset + at);
  if (failed(hole)) return hole;
  const end = Math.min(length, Math.max(hole.offset - fromOffset, at + 1), at + copyPieces * copyPieceBytes);
  return yield* copyData(volume, request, at, end);
}

/** Makes [start, end) of the target read as zeros. errno. */
function* copyHole(
  volume: Volume,
  { killSetId }: CopyRange,
  target: Attributes,
  { start, end }: { start: number; end: number },
): Task<number> {
  const within = Math.min(end, target.size);
  if (start < within) {
    const { keepSize, punchHole } = fallocateModes;
    const range = { mode: punchHole | keepSize, offset: start, length: within - start, killSetId };
    const punched = yield* allocate(volume, target.inode, range);
    if (failed(punched)) return punched;
  }
  return end > target.size ? yield* extendTo(volume, target.inode, end, { killSetId }) : 0;
}

/** Copies bytes, a few pieces at a time; counts those up to the first that failed. */
function* copyData(volume: Volume, request: CopyRange, at: number, end: number): Task<Result<{ count: number }>> {
  const { from, fromOffset, to, toOffset, killSetId } = request;
  const pieces = Math.ceil((end - at) / copyPieceBytes);
  const results = yield* inParallel(volume.session.runtime.scheduler, pieces, copyPieces, function* (i): Task<number> {
    const start = at + i * copyPieceBytes, buffer = new Uint8Array(Math.min(copyPieceBytes, end - start));
    const got = yield* read(volume, { inode: from, offset: fromOffset + start, into: buffer });
    if (failed(got)) return -got;
    const wrote = yield* write(volume, to, toOffset + start, buffer.subarray(0, got.count), { killSetId });
    return failed(wrote) ? -wrote : got.count;
  });
  let count = 0;
  for (const one of results) {
    if (one < 0) return count > 0 ? { count } : -one;
    count += one;
    if (one < copyPieceBytes) break;
  }
  return { count };
}
