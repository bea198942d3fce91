/**
 * READ, READ_CHUNK, SEEK_CHUNK, NEXT_DATA: bytes of files. Chunk 0 (or the inline data) lives with the inode, so its
 * answer knows the file's size; chunks > 0 know only their bytes, and the client asks the inode's shard as well.
 *
 * @module
 */

import { chunkBytesMax, decodeChunk, granuleBytes, granulesMax, isBlock } from "../../data/chunk_record.ts";
import { E, failed } from "../../errno.ts";
import { dataBytesMax } from "../../protocol/frame.ts";
import type { Task } from "../../task.ts";
import { type Attributes, isRegular } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { chunkKey, inodeKey, keyNumber, kind } from "../layout.ts";
import { floorOf } from "./write.ts";

/** `offset` in SEEK_CHUNK's answer when the chunk has no such place. */
export const noOffset = 0xffffffff;
/** Times a read starts over because the file was changed under it. */
const attemptsMax = 8;

/** READ: may move the atime. EISDIR is the client's; EINVAL for what is no regular file. */
export function read(engine: Engine, request: Request): Answer | Task<Answer> {
  const { inode, gen, accessTimes } = request.body, file = engine.inode(inode);
  if (failed(file)) return answerErrno(file);
  if (gen > 0 && engine.inodeHeld(inode)) return readLater(engine, request);
  const moved = isRegular(file.mode) && engine.accessTimes.read(file, accessTimes, request.head.session);
  return readFrom(engine, request, { attempt: 0, moved });
}

/** Waits for a truncation that has come to far chunks and not to the size yet. The read that led here moved the atime. */
function* readLater(engine: Engine, request: Request): Task<Answer> {
  const { inode, gen } = request.body;
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const file = engine.inode(inode);
    if (failed(file) || file.gen >= gen) break;
    yield* engine.inodes.settled(String(inode));
  }
  const answer = readFrom(engine, request, { attempt: 0, moved: false });
  return "status" in answer ? answer : yield* answer;
}

function readFrom(engine: Engine, request: Request, at: { attempt: number; moved: boolean }): Answer | Task<Answer> {
  const { inode, offset, length } = request.body;
  const file = engine.inode(inode);
  if (failed(file)) return answerErrno(file);
  if (!isRegular(file.mode) || length > dataBytesMax) return answerErrno(E.INVAL);
  const count = Math.max(0, Math.min(length, Math.min(file.size, chunkBytesMax) - offset));
  const body = { size: file.size, version: file.version, gen: file.gen, moved: at.moved };
  if (count === 0) return { status: 0, body };
  const inline = engine.store.get(inodeKey(request.head.shard, kind.data, inode));
  if (inline !== undefined) {
    const data = new Uint8Array(count);
    data.set(inline.subarray(offset, offset + count));
    return { status: 0, body, data };
  }
  if (engine.store.get(chunkKey(request.head.shard, inode, 0)) === undefined) {
    return { status: 0, body, data: new Uint8Array(count) };
  }
  return readChunkZero(engine, request, { file, count, ...at });
}

/**
 * Size and bytes are of one moment: a change that comes while the bytes are read makes the read start over. Under
 * changes without end only a shrunken file does, so that nobody sees zeros that were never in it.
 */
function* readChunkZero(
  engine: Engine,
  request: Request,
  at: { file: Attributes; count: number; attempt: number; moved: boolean },
): Task<Answer> {
  const { inode, offset } = request.body, shard = request.head.shard, { file, count, attempt, moved } = at;
  const buffer = engine.store.container.allocate(count), into = buffer.subarray(0, count);
  const errno = yield* engine.chunks.read({ shard, inode, chunk: 0, offset, length: count }, into);
  const now = errno === 0 ? engine.inode(inode) : errno;
  if (!failed(now) && now.size >= offset + count && (now.version === file.version || attempt >= attemptsMax)) {
    const sent = () => engine.store.container.release(buffer);
    const { size, version, gen } = file;
    return { status: 0, body: { size, version, gen, moved }, data: into, sent };
  }
  engine.store.container.release(buffer);
  if (failed(now)) return answerErrno(now);
  const again = readFrom(engine, request, { attempt: attempt + 1, moved });
  return "status" in again ? again : yield* again;
}

/** READ_CHUNK: `length` bytes, or none when the chunk does not exist (zeros). */
export function* readChunk(engine: Engine, request: Request): Task<Answer> {
  const { inode, chunk, offset, length } = request.body, shard = request.head.shard;
  if (chunk === 0 || length === 0 || offset + length > chunkBytesMax) return answerErrno(E.INVAL);
  const body = () => ({ floor: floorOf(engine, shard, inode) });
  if (engine.store.get(chunkKey(shard, inode, chunk)) === undefined) return { status: 0, body: body() };
  const buffer = engine.store.container.allocate(length), into = buffer.subarray(0, length);
  const errno = yield* engine.chunks.read({ shard, inode, chunk, offset, length }, into);
  const sent = () => engine.store.container.release(buffer);
  // The floor as of now: a cut that has come to the bytes has raised it before.
  if (errno === 0) return { status: 0, body: body(), data: into, sent };
  sent();
  return answerErrno(errno);
}

/** SEEK_CHUNK. */
export function seekChunk(engine: Engine, request: Request): Answer {
  const { inode, chunk, offset, hole } = request.body, shard = request.head.shard;
  const inline = chunk === 0 ? engine.store.get(inodeKey(shard, kind.data, inode)) : undefined;
  if (inline !== undefined) {
    const found = offset < inline.length ? (hole ? inline.length : offset) : (hole ? offset : noOffset);
    return { status: 0, body: { offset: found >= chunkBytesMax ? noOffset : found } };
  }
  const bits = engine.chunks.map(shard, inode, chunk);
  for (let g = Math.floor(offset / granuleBytes); g < granulesMax; g++) {
    if ((bits[g >>> 3] >>> (g & 7) & 1) === (hole ? 0 : 1)) {
      return { status: 0, body: { offset: Math.max(offset, g * granuleBytes) } };
    }
  }
  return { status: 0, body: { offset: noOffset } };
}

/** NEXT_DATA: over all chunks > 0 of the inode in this store. */
export function nextData(engine: Engine, request: Request): Answer {
  const { inode, offset } = request.body;
  const first = Math.max(1, Math.floor(offset / chunkBytesMax));
  let lowest = Number.MAX_SAFE_INTEGER;
  for (const shard of engine.ownShards()) {
    engine.store.scan(chunkKey(shard, inode, first), chunkKey(shard, inode, 0xffffffff), (key, value) => {
      const chunk = keyNumber(key, 10, 4), { granules } = decodeChunk(value);
      for (let g = 0; g < granules.length / 2; g++) {
        const end = chunk * chunkBytesMax + (g + 1) * granuleBytes;
        if (!isBlock(granules[2 * g]) || end <= offset) continue;
        lowest = Math.min(lowest, Math.max(offset, end - granuleBytes));
        return false;
      }
      return true;
    });
  }
  return { status: 0, body: { offset: lowest } };
}
