/**
 * copy_file_range(2): the servers copy among themselves, the client says what and where. Far chunks of the target first,
 * then chunk 0, then the size, as with every write; holes of the source become holes of the target.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { type Attributes, S } from "../meta/attributes.ts";
import { fileBytesMax } from "../meta/layout.ts";
import { chunkShard } from "../placement/hash.ts";
import { COPY, COPY_CHUNK, READ } from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import { chunkBytes, extendTo, farPieces, type Piece, type WriteStep, writeStep } from "./data.ts";
import type { CopyRange } from "./filesystem.ts";
import { allocate, fallocateModes, seekData } from "./ranges.ts";
import type { Volume } from "./volume.ts";

/** Bytes that one copyRange goes over at most; the caller asks again for the rest. */
export const copyBytesMax = 256 * 2 ** 20;
/** Bytes that are published at once; less where holes are looked for between. */
const stepBytes = 64 * chunkBytes, sparseStepBytes = 16 * chunkBytes;
const blockBytes = 4096, sectorBytes = 512;
/** Times that the source may be truncated under one copy. */
const truncationsMax = 64;

/**
 * Copies within the volume. `count` is short at the source's end, after {@linkcode copyBytesMax}, and before a failure
 * that came after something had been copied. EINVAL when the ranges overlap in one file or something is no regular file.
 */
export function* copyRange(volume: Volume, request: CopyRange): Task<Result<{ count: number }>> {
  const { from, fromOffset, to, toOffset, length } = request;
  if (![fromOffset, toOffset, length].every((one) => Number.isSafeInteger(one) && one >= 0)) return E.INVAL;
  if (from === to && fromOffset < toOffset + length && toOffset < fromOffset + length) return E.INVAL;
  const target = yield* regularFile(volume, to), file = yield* regularFile(volume, from);
  if (failed(file)) return file;
  if (failed(target)) return target;
  let source = yield* sourceOf(volume, file, 0);
  for (let count = 0, truncations = 0;;) {
    if (failed(source)) return count > 0 ? { count } : source;
    const left = Math.min(length, copyBytesMax, source.size - fromOffset) - count;
    if (left <= 0) return { count };
    if (toOffset + count + left > fileBytesMax) return count > 0 ? { count } : E.FBIG;
    const part = { ...request, fromOffset: fromOffset + count, toOffset: toOffset + count, length: left };
    const step = yield* copyStep(volume, part, source, target);
    if (step === E.AGAIN && ++truncations <= truncationsMax) {
      // What is left of it is copied.
      source = yield* sourceOf(volume, source, source.gen + 1);
      continue;
    }
    if (failed(step)) return count > 0 ? { count } : step === E.AGAIN ? E.IO : step;
    count += step.count;
  }
}

/** The source with a size and a gen of now, once a truncation is over that leads to `gen`. It counts as read. */
function* sourceOf(volume: Volume, file: Attributes, gen: number): Task<Result<Attributes>> {
  const body = { inode: file.inode, offset: 0, length: 0, gen, accessTimes: volume.accessTimes() };
  const reply = yield* volume.ask(READ, file.inode, body);
  // What came since it was looked at need not be copied, and its flags do not tell of it.
  return failed(reply) ? reply : { ...file, size: Math.min(file.size, reply.size), gen: reply.gen };
}

function* regularFile(volume: Volume, inode: number): Task<Result<Attributes>> {
  const file = yield* volume.attributes(inode);
  if (failed(file)) return file;
  if ((file.mode & S.IFMT) === S.IFREG) return file;
  return (file.mode & S.IFMT) === S.IFDIR ? E.ISDIR : E.INVAL;
}

/** Copies what comes first: a hole, or a step of data. EAGAIN when the source is truncated under it. */
function* copyStep(
  volume: Volume,
  request: CopyRange,
  source: Attributes,
  target: Attributes,
): Task<Result<{ count: number }>> {
  const { fromOffset, length } = request, { size, blocks } = source;
  const dense = blocks * sectorBytes >= Math.ceil(size / blockBytes) * blockBytes;
  if (!dense) {
    const data = yield* seekData(volume, source, fromOffset);
    if (failed(data) && data !== E.NXIO) return data;
    const hole = failed(data) ? length : Math.min(length, data.offset - fromOffset);
    if (hole > 0) {
      const errno = yield* copyHole(volume, target, { ...request, length: hole });
      return errno === 0 ? { count: hole } : errno;
    }
  }
  const count = Math.min(length, dense ? stepBytes : sparseStepBytes);
  const errno = yield* writeStep(volume, stepOf(volume, { ...request, length: count }, source.gen));
  return errno === 0 ? { count } : errno;
}

/** Makes the request's range of the target read as zeros. errno. */
function* copyHole(volume: Volume, target: Attributes, request: CopyRange): Task<number> {
  const { toOffset, length, killSetId } = request, end = toOffset + length, within = Math.min(end, target.size);
  if (toOffset < within) {
    const { keepSize, punchHole } = fallocateModes;
    const range = { mode: punchHole | keepSize, offset: toOffset, length: within - toOffset, killSetId };
    const punched = yield* allocate(volume, target.inode, range);
    if (failed(punched)) return punched;
  }
  return end > target.size ? yield* extendTo(volume, target.inode, end, { killSetId }) : 0;
}

/** A write whose bytes the servers fetch. */
function stepOf(volume: Volume, request: CopyRange, sourceGen: number): WriteStep {
  const { from, fromOffset, to, toOffset, length, killSetId } = request, { caller, maps } = volume.session;
  const sourceAt = (at: number) => {
    const chunk = Math.floor((fromOffset + at) / chunkBytes);
    return { inode: from, chunk, offset: (fromOffset + at) % chunkBytes, gen: sourceGen };
  };
  return {
    inode: to,
    offset: toOffset,
    length,
    killSetId,
    far: farPieces(toOffset, length).flatMap((piece) => bySource(piece, fromOffset)),
    *near(near, far) {
      const whole = { chunk: 0, within: toOffset, at: 0, length: near };
      for (const { within, at, length } of bySource(whole, fromOffset)) {
        const last = at + length === near;
        const body = { inode: to, offset: within, length, source: sourceAt(at), killSetId, far: last ? far : null };
        const reply = yield* volume.reply(COPY, to, body);
        if (reply.status !== 0) return reply.status;
      }
      return 0;
    },
    *put({ chunk, within, at, length }, { volume: id, gen }) {
      const shard = chunkShard(to, chunk, maps.current.shards);
      const body = { inode: to, volume: id, gen, chunk, offset: within, length, source: sourceAt(at) };
      return yield* caller.call(COPY_CHUNK, { shard }, body);
    },
  };
}

/** A piece of the target, cut where the source's chunks meet. */
function bySource(piece: Piece, fromOffset: number): Piece[] {
  const parts: Piece[] = [];
  for (let done = 0; done < piece.length;) {
    const at = piece.at + done;
    const length = Math.min(piece.length - done, chunkBytes - (fromOffset + at) % chunkBytes);
    parts.push({ chunk: piece.chunk, within: piece.within + done, at, length });
    done += length;
  }
  return parts;
}
