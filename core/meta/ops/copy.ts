/**
 * COPY, COPY_CHUNK and FETCH: copy_file_range without the client touching the bytes. The server of the target chunk
 * fetches what it is to hold from the server of the source chunk, or from its own store, and writes it as any other data:
 * the same locks, floors, checksums and one record. Holes of the source stay holes.
 *
 * A copy is done again from the beginning when its answer was never recorded, and then copies what the source is by then.
 * Fetching locks nothing, so no two copies can wait for each other.
 *
 * @module
 */

import { chunkBytesMax, granuleBytes, granulesMax } from "../../data/chunk_record.ts";
import { E, failed, type Result } from "../../errno.ts";
import { chunkShard } from "../../placement/hash.ts";
import { status } from "../../protocol/frame.ts";
import { FETCH } from "../../protocol/messages.ts";
import type { Task } from "../../task.ts";
import { isRegular } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { chunkKey, inodeKey, kind, shardOf } from "../layout.ts";
import { type Content, floorOf, writeContent, writeFarContent, writtenOf } from "./write.ts";

/** Times that a fetch starts over because the chunk was changed under it. */
const attemptsMax = 8;

/** A place in a chunk of the source, and the gen that its size was learnt with. */
interface Source {
  inode: number;
  chunk: number;
  offset: number;
  gen: number;
}

interface Range {
  inode: number;
  chunk: number;
  offset: number;
  length: number;
}

/** What was fetched: see FETCH. */
interface Fetched {
  size: number;
  gen: number;
  map: Uint8Array;
}

/** COPY: `offset` and the length lie within chunk 0. EINVAL, ENOSPC, ESTALE. */
export function* copy(engine: Engine, request: Request): Task<Answer> {
  const { offset, length, source } = request.body;
  if (offset + length > chunkBytesMax) return answerErrno(E.INVAL);
  return yield* withSource(engine, source, { offset, length }, (content) => {
    return writeContent(engine, request, content, writtenOf);
  });
}

/** COPY_CHUNK, on the target chunk's shard. STALE_GEN below the floor. */
export function* copyChunk(engine: Engine, request: Request): Task<Answer> {
  const { offset, length, source } = request.body;
  return yield* withSource(engine, source, { offset, length }, (content) => writeFarContent(engine, request, content));
}

/** Fetches what the target's range is to be, and runs `write` with it while it is in memory. */
function* withSource(
  engine: Engine,
  source: Source,
  target: { offset: number; length: number },
  write: (content: Content) => Task<Answer>,
): Task<Answer> {
  const { offset, length } = target, end = source.offset + length;
  if (length === 0 || length > chunkBytesMax || end > chunkBytesMax) return answerErrno(E.INVAL);
  if (shardOf(source.inode) >= engine.shards) return answerErrno(E.STALE);
  yield* engine.copies.acquire();
  const buffer = engine.store.container.allocate(length), into = buffer.subarray(0, length);
  const { inode, chunk } = source;
  const fetched = yield* fetchFrom(engine, { inode, chunk, offset: source.offset, length }, into);
  let answer: Answer;
  if (failed(fetched)) answer = answerErrno(fetched);
  // Bytes of another moment than the size: a truncation has come between.
  else if (fetched.gen > source.gen || (chunk === 0 && fetched.size < end)) answer = answerErrno(E.AGAIN);
  else {
    const shift = source.offset - offset;
    const isHole = (granule: number) => isEmpty(fetched.map, granule * granuleBytes + shift);
    answer = yield* write({ data: into, isHole });
  }
  engine.store.container.release(buffer);
  engine.copies.release();
  return answer;
}

/** True when nothing of the granule's length from byte `start` of the source's chunk on is data. */
function isEmpty(map: Uint8Array, start: number): boolean {
  const last = Math.floor((start + granuleBytes - 1) / granuleBytes);
  for (let g = Math.floor(start / granuleBytes); g <= last; g++) {
    if (g >= 0 && g < granulesMax && (map[g >>> 3] >>> (g & 7) & 1) !== 0) return false;
  }
  return true;
}

/** Fetches from the store that has the chunk: this one, or another server's. */
function* fetchFrom(engine: Engine, range: Range, into: Uint8Array): Task<Result<Fetched>> {
  const { inode, chunk } = range, shard = chunk === 0 ? shardOf(inode) : chunkShard(inode, chunk, engine.shards);
  if (engine.owns(shard)) return yield* fetchHere(engine, shard, range, into);
  const reply = yield* engine.caller.call(FETCH, { shard }, range, { into });
  if (reply.status !== 0) return reply.status;
  if (reply.dataLength < into.length) into.fill(0, reply.dataLength);
  return reply.body!;
}

/** Fetches from this store. Bytes and map are of one moment. */
function* fetchHere(engine: Engine, shard: number, range: Range, into: Uint8Array): Task<Result<Fetched>> {
  const { inode, chunk, offset, length } = range;
  let size = 0;
  const genNow = () => chunk === 0 ? engine.tree.attributes(inode)?.gen ?? Infinity : floorOf(engine, shard, inode);
  if (chunk === 0) {
    const file = engine.inode(inode);
    if (failed(file)) return file;
    if (!isRegular(file.mode)) return E.INVAL;
    size = file.size;
    const inline = engine.store.get(inodeKey(shard, kind.data, inode));
    if (inline !== undefined) {
      const part = inline.subarray(offset, offset + length), map = new Uint8Array(granulesMax / 8);
      map[0] = 1;
      into.set(part);
      into.fill(0, part.length);
      return { size, gen: file.gen, map };
    }
  }
  for (let attempt = 0;; attempt++) {
    const map = engine.chunks.map(shard, inode, chunk);
    if (engine.store.get(chunkKey(shard, inode, chunk)) === undefined) into.fill(0);
    else {
      const errno = yield* engine.chunks.read({ shard, inode, chunk, offset, length }, into);
      if (errno !== 0) return errno;
    }
    const now = engine.chunks.map(shard, inode, chunk), gen = genNow();
    if (map.every((byte, i) => byte === now[i])) return { size, gen, map };
    // What changes without end is copied as it was read, without holes.
    if (attempt >= attemptsMax) return { size, gen, map: map.fill(255) };
  }
}

/** FETCH, on the chunk's shard. EINVAL, EIO, ESTALE. */
export function* fetch(engine: Engine, request: Request): Task<Answer> {
  const { inode, chunk, offset, length } = request.body as Range, { shard } = request.head;
  const home = chunk === 0 ? shardOf(inode) : chunkShard(inode, chunk, engine.shards);
  if (home !== shard) return answerErrno(status.malformed);
  if (length === 0 || offset + length > chunkBytesMax) return answerErrno(E.INVAL);
  const buffer = engine.store.container.allocate(length), into = buffer.subarray(0, length);
  const fetched = yield* fetchHere(engine, shard, { inode, chunk, offset, length }, into);
  const sent = () => engine.store.container.release(buffer);
  if (failed(fetched)) {
    sent();
    return answerErrno(fetched);
  }
  const first = Math.floor(offset / granuleBytes), last = Math.floor((offset + length - 1) / granuleBytes);
  let empty = true;
  for (let g = first; g <= last; g++) empty &&= (fetched.map[g >>> 3] >>> (g & 7) & 1) === 0;
  return { status: 0, body: fetched, data: empty ? new Uint8Array(0) : into, sent };
}
