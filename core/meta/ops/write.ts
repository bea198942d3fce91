/**
 * WRITE, WRITE_CHUNK, PUBLISH, APPEND: bytes into files; RESERVE_CHUNK: room for them.
 *
 * Within chunk 0 data, size and times are one record. A chunk > 0 is written on its own shard first, then the size is
 * published on the inode's: no reader sees a size whose bytes are not there. Before the first far chunk is written the
 * inode is marked (inodeFlags.far), so that whoever deletes it knows where to look. The inode is locked while its chunk
 * 0 or its size changes in more than one turn.
 *
 * @module
 */

import type { ChunkRange, PreparedChange } from "../../data/chunk.ts";
import { chunkBytesMax } from "../../data/chunk_record.ts";
import { E, failed, type Result } from "../../errno.ts";
import { chunkShard } from "../../placement/hash.ts";
import { primaryOf } from "../../placement/map.ts";
import { array, decode, encode, struct, u32 } from "../../protocol/codec.ts";
import { status } from "../../protocol/frame.ts";
import { blocksBias, WRITE_CHUNK } from "../../protocol/messages.ts";
import { type Task, wait } from "../../task.ts";
import { type Attributes, inodeFlags, isRegular } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { chunkKey, fileBytesMax, inlineBytesMax, inodeKey, kind, shardOf } from "../layout.ts";
import { Plan } from "../plan.ts";
import { frozenErrno, keptErrno } from "../protection.ts";
import { planDropPrivileges } from "./setattr.ts";

/** Servers written to since the last fsync (value of M). */
export const maskRecord = struct({ servers: array(u32, 4096) });

const granule = 4096;

/** A range of a chunk > 0, and the file as the writer knows it. */
interface FarRange extends ChunkRange {
  volume: number;
  gen: number;
}

/** Most space a write of `length` bytes can take. */
function spaceFor(length: number): number {
  return (Math.ceil(length / granule) + 1) * granule;
}

/** 512-byte units of inline data of a length: what a local file system would say. */
function inlineBlocks(length: number): number {
  return Math.ceil(length / granule) * 8;
}

/** Bytes to be written; `isHole` as in {@linkcode ChunkWrite}. */
export interface Content {
  data: Uint8Array;
  isHole?: (granule: number) => boolean;
}

/** WRITE: `offset` and the data lie within chunk 0. EINVAL, ENOSPC, EPERM, ESTALE; STALE_GEN as PUBLISH when it has far chunks. */
export function write(engine: Engine, request: Request): Answer | Task<Answer> {
  return writeSmall(engine, request) ?? writeContent(engine, request, request, writtenOf);
}

/** A write of a small file, if nothing has to be waited for: no lock, no credit, no data outside the image. Else null. */
export function writeSmall(engine: Engine, request: Request): Answer | null {
  const { inode, offset, far, killSetId } = request.body, { data } = request, end = offset + data.length;
  if (far !== null || data.length === 0 || end > inlineBytesMax || engine.inodeHeld(inode)) return null;
  const file = regularFile(engine, inode);
  if (failed(file)) return answerErrno(file);
  if (keptErrno(file) !== 0) return answerErrno(E.PERM);
  if (file.size > inlineBytesMax || engine.store.get(chunkKey(shardOf(inode), inode, 0)) !== undefined) return null;
  if (!engine.credit.isPlenty(file.volume, spaceFor(data.length))) return null;
  const plan = new Plan();
  writeInline(engine, plan, file, { offset, data });
  planDropPrivileges(plan, file, killSetId);
  plan.attributes(file);
  return engine.answer(request, plan, writtenOf(file));
}

/** Writes `content` at `offset` of the request's inode, within chunk 0, publishes `far`, and answers with `reply`. */
export function* writeContent(
  engine: Engine,
  request: Request,
  content: Content,
  reply: (file: Attributes) => unknown,
): Task<Answer> {
  const { inode, offset, far } = request.body, lock = String(inode), owner = engine.newOwner();
  if (offset + content.data.length > chunkBytesMax) return answerErrno(E.INVAL);
  if (far !== null && far.size > fileBytesMax) return answerErrno(E.FBIG);
  yield* engine.inodes.acquire(lock, owner);
  const answer = yield* writeLocked(engine, request, content, reply);
  engine.inodes.release(lock, owner);
  return answer;
}

function* writeLocked(
  engine: Engine,
  request: Request,
  { data, isHole }: Content,
  reply: (file: Attributes) => unknown,
): Task<Answer> {
  const { inode, offset, killSetId: kill, far } = request.body, plan = new Plan();
  const file = regularFile(engine, inode);
  if (failed(file)) return answerErrno(file);
  if (keptErrno(file) !== 0) return answerErrno(E.PERM);
  if (far !== null && far.gen < file.gen) return answerErrno(status.staleGen);
  return yield* writeNear(engine, plan, { inode, offset, data, isHole }, (now) => {
    if (far !== null) {
      planFarWrite(engine, plan, now, far.servers);
      now.blocks = Math.max(0, now.blocks + far.blocksDelta - blocksBias);
      extend(engine, now, far.size);
    }
    planDropPrivileges(plan, now, kill);
    plan.attributes(now);
    return engine.answer(request, plan, reply(now));
  });
}

/**
 * Writes within chunk 0 of a locked inode: reserves space, writes, plans data and the new size; `publish` sets what else
 * changes and records the plan.
 */
function* writeNear(
  engine: Engine,
  plan: Plan,
  at: { inode: number; offset: number } & Content,
  publish: (file: Attributes) => Answer,
): Task<Answer> {
  const file = regularFile(engine, at.inode);
  if (failed(file)) return answerErrno(file);
  const reserved = yield* engine.credit.reserveWrite(file.volume, spaceFor(at.data.length), () => growth(engine, at));
  if (failed(reserved)) return answerErrno(reserved);
  const answer = yield* writeReserved(engine, plan, at, publish);
  engine.credit.settle(file.volume, reserved.bytes, 0);
  return answer;
}

/** Space that a write within chunk 0 takes; more than that for a small file. */
function growth(engine: Engine, { inode, offset, data }: { inode: number; offset: number; data: Uint8Array }): number {
  const shard = shardOf(inode), inline = engine.store.get(inodeKey(shard, kind.data, inode));
  if (inline !== undefined && offset + data.length <= inline.length) return 0;
  if (inline !== undefined || engine.store.get(chunkKey(shard, inode, 0)) === undefined) return spaceFor(data.length);
  return engine.chunks.holes({ shard, inode, chunk: 0, offset, length: data.length }) * granule;
}

function regularFile(engine: Engine, inode: number): Result<Attributes> {
  const file = engine.inode(inode);
  if (failed(file)) return file;
  return isRegular(file.mode) ? file : E.INVAL;
}

function* writeReserved(
  engine: Engine,
  plan: Plan,
  at: { inode: number; offset: number } & Content,
  publish: (file: Attributes) => Answer,
): Task<Answer> {
  const { inode, offset, data, isHole } = at, shard = shardOf(inode), end = offset + data.length;
  const file = regularFile(engine, inode);
  if (failed(file)) return answerErrno(file);
  if (data.length === 0) return publish(file);
  const small = Math.max(file.size, end) <= inlineBytesMax;
  if (small && engine.store.get(chunkKey(shard, inode, 0)) === undefined) {
    writeInline(engine, plan, file, { offset, data });
    return publish(file);
  }
  const inline = engine.store.get(inodeKey(shard, kind.data, inode))?.slice();
  const range = { shard, inode, chunk: 0, offset, length: data.length };
  const written = yield* engine.chunks.write({ ...range, data, isHole, volume: file.volume, gen: file.gen, inline });
  if (failed(written)) return answerErrno(written);
  const now = regularFile(engine, inode);
  if (failed(now)) {
    written.abandon();
    return answerErrno(now);
  }
  const inlineLength = inline?.length ?? 0;
  plan.add(written.changes, [{ volume: now.volume, bytesDelta: written.bytesDelta - inlineLength, inodesDelta: 0 }]);
  now.flags &= ~inodeFlags.inline;
  now.blocks = Math.max(0, now.blocks - inlineBlocks(inlineLength) + written.bytesDelta / 512);
  extend(engine, now, end);
  const answer = publish(now);
  written.done();
  return answer;
}

/** Where inline data is put together; good until the plan is recorded. */
const inlineScratch = new Uint8Array(inlineBytesMax);

/** Plans a write that leaves the file small. The plan has to be recorded before anything else is written. */
function writeInline(
  engine: Engine,
  plan: Plan,
  file: Attributes,
  { offset, data }: { offset: number; data: Uint8Array },
): void {
  const key = inodeKey(shardOf(file.inode), kind.data, file.inode), end = offset + data.length;
  const inline = engine.store.get(key), had = inline?.length ?? 0, length = Math.max(had, end);
  let value = data;
  if (length > data.length) {
    value = inlineScratch.subarray(0, length);
    if (inline !== undefined) value.set(inline);
    if (offset > had) value.fill(0, had, offset);
    value.set(data, offset);
  }
  plan.put(key, value);
  plan.charge(file.volume, length - had, 0);
  file.blocks += inlineBlocks(length) - inlineBlocks(had);
  file.flags |= inodeFlags.inline;
  extend(engine, file, end);
}

/** What the replies to writes say of the file. */
export function writtenOf(
  { size, blocks, mtime, version }: Attributes,
): Pick<Attributes, "size" | "blocks" | "mtime" | "version"> {
  return { size, blocks, mtime, version };
}

/** The file has at least `end` bytes, and has been written now. */
function extend(engine: Engine, file: Attributes, end: number): void {
  file.size = Math.max(file.size, end);
  file.mtime = file.ctime = engine.stamp(file);
}

/** WRITE_CHUNK, on the chunk's shard. STALE_GEN below the floor. */
export function writeChunk(engine: Engine, request: Request): Task<Answer> {
  return writeFarContent(engine, request, request);
}

/** Writes `content` into the chunk > 0 that the request names, and answers as WRITE_CHUNK. */
export function writeFarContent(engine: Engine, request: Request, { data, isHole }: Content): Task<Answer> {
  const at = { length: data.length, space: spaceFor(data.length) };
  return changeChunk(engine, request, at, (range) => engine.chunks.write({ ...range, data, isHole }));
}

/** RESERVE_CHUNK, on the chunk's shard. STALE_GEN below the floor. */
export function reserveChunk(engine: Engine, request: Request): Task<Answer> {
  const at = { length: request.body.length, space: Infinity };
  return changeChunk(engine, request, at, (range) => engine.chunks.reserve(range));
}

/** A change of `length` bytes of a far chunk that takes at most `space` bytes. */
function* changeChunk(
  engine: Engine,
  request: Request,
  { length, space }: { length: number; space: number },
  prepare: (range: FarRange) => Task<Result<PreparedChange>>,
): Task<Answer> {
  const { inode, volume, gen, chunk, offset } = request.body, shard = request.head.shard;
  if (chunk === 0 || length === 0 || offset + length > chunkBytesMax) return answerErrno(E.INVAL);
  if (!engine.volumeLives(volume)) return answerErrno(E.STALE);
  if (engine.ended.has(inode)) return answerErrno(E.STALE);
  if (gen < floorOf(engine, shard, inode)) return answerErrno(status.staleGen);
  const range = { shard, inode, chunk, offset, length, volume, gen };
  const reserved = yield* engine.credit.reserveWrite(volume, space, () => engine.chunks.holes(range) * granule);
  if (failed(reserved)) return answerErrno(reserved);
  const answer = changeReserved(engine, request, yield* prepare(range));
  engine.credit.settle(volume, reserved.bytes, 0);
  return answer;
}

/** Publishes what was prepared, unless the file has been cut meanwhile. */
function changeReserved(engine: Engine, request: Request, written: Result<PreparedChange>): Answer {
  const { inode, volume, gen } = request.body, shard = request.head.shard;
  if (failed(written)) return answerErrno(written);
  if (gen < floorOf(engine, shard, inode) || engine.ended.has(inode)) {
    written.abandon();
    return answerErrno(engine.ended.has(inode) ? E.STALE : status.staleGen);
  }
  const plan = new Plan();
  plan.add(written.changes, [{ volume, bytesDelta: written.bytesDelta, inodesDelta: 0 }]);
  const answer = engine.answer(request, plan, { blocksDelta: written.bytesDelta / 512 + blocksBias });
  written.done();
  return answer;
}

/** Lowest gen that may write chunks of an inode in a shard. */
export function floorOf(engine: Engine, shard: number, inode: number): number {
  const value = engine.store.get(inodeKey(shard, kind.floor, inode));
  return value === undefined ? 0 : new DataView(value.buffer, value.byteOffset, 8).getFloat64(0, true);
}

/** Highest gen whose CUT has been carried out for an inode in a shard: a late duplicate of it finds nothing to do. */
export function cutDoneOf(engine: Engine, shard: number, inode: number): number {
  const value = engine.store.get(inodeKey(shard, kind.floor, inode));
  return value === undefined ? 0 : new DataView(value.buffer, value.byteOffset, 16).getFloat64(8, true);
}

/** Value of F. */
export function encodeFloor(gen: number, done = 0): Uint8Array {
  const value = new Uint8Array(16), view = new DataView(value.buffer);
  view.setFloat64(0, gen, true);
  view.setFloat64(8, done, true);
  return value;
}

/** PUBLISH. STALE_GEN when the file has been cut since the chunks were written. */
export function publish(engine: Engine, request: Request): Answer | Task<Answer> {
  return engine.inodeHeld(request.body.inode) ? publishLater(engine, request) : publishNow(engine, request);
}

function* publishLater(engine: Engine, request: Request): Task<Answer> {
  yield* engine.inodes.settled(String(request.body.inode));
  const answer = publish(engine, request);
  return "status" in answer ? answer : yield* answer;
}

function publishNow(engine: Engine, request: Request): Answer {
  const { inode, gen, size, blocksDelta, servers, killSetId: kill } = request.body;
  const file = regularFile(engine, inode);
  if (failed(file)) return answerErrno(file);
  if (gen < file.gen) return countStale(engine, request, file);
  if (size > fileBytesMax) return answerErrno(E.FBIG);
  const plan = new Plan();
  // Without servers and with a size it only makes the file longer (the end of a copied hole): there is no far chunk.
  if (servers.length > 0 || size === 0) planFarWrite(engine, plan, file, servers);
  file.blocks = Math.max(0, file.blocks + blocksDelta - blocksBias);
  extend(engine, file, size);
  planDropPrivileges(plan, file, kill);
  plan.attributes(file);
  return engine.answer(request, plan, writtenOf(file));
}

/**
 * A publication of an older gen. After a truncation its chunks are gone, or counted by the CUT; after an append, which
 * raises the gen alone, they are there, and its writer, who writes them again, will not count them again.
 */
function countStale(engine: Engine, request: Request, file: Attributes): Answer {
  const { inode, gen, blocksDelta, servers } = request.body, { head, message } = request;
  const stale = answerErrno(status.staleGen);
  if (servers.length === 0 || gen < floorOf(engine, head.shard, inode)) return stale;
  const plan = new Plan(), encoded = new Uint8Array(0);
  planFarWrite(engine, plan, file, servers);
  file.blocks = Math.max(0, file.blocks + blocksDelta - blocksBias);
  plan.attributes(file);
  engine.planReply(plan, head.shard, head, { type: message.type, status: status.staleGen, encoded });
  engine.commit(head.shard, plan, head);
  return { ...stale, encoded };
}

/** Plans that a file has, or is about to have, far chunks on `servers`. */
function planFarWrite(engine: Engine, plan: Plan, file: Attributes, servers: readonly number[]): void {
  file.flags |= inodeFlags.far;
  const key = inodeKey(shardOf(file.inode), kind.mask, file.inode), value = engine.store.get(key);
  const known = value === undefined ? [] : decode(maskRecord, value).servers;
  for (const sync of engine.syncing.get(file.inode) ?? []) sync.written = true;
  const all = new Set([...known, ...servers.filter((id) => engine.map.server(id) !== undefined)]);
  if (all.size > known.length) plan.put(key, encode(maskRecord, { servers: [...all] }));
}

/** APPEND: one appender at a time, at whatever is the end then. ENOSPC, EFBIG, EPERM, ESTALE. */
export function* append(engine: Engine, request: Request): Task<Answer> {
  const { inode } = request.body, lock = String(inode), owner = engine.newOwner();
  yield* engine.inodes.acquire(lock, owner);
  const answer = yield* appendLocked(engine, request);
  engine.inodes.release(lock, owner);
  return answer;
}

function* appendLocked(engine: Engine, request: Request): Task<Answer> {
  const { inode, killSetId: kill } = request.body, { data } = request;
  const file = regularFile(engine, inode);
  if (failed(file)) return answerErrno(file);
  if (frozenErrno(file) !== 0) return answerErrno(E.PERM);
  const offset = file.size, end = offset + data.length;
  if (end > fileBytesMax) return answerErrno(E.FBIG);
  const near = Math.max(0, Math.min(data.length, chunkBytesMax - offset));
  const far = { blocksDelta: 0, servers: [] as number[] };
  if (near < data.length) {
    const errno = yield* appendFar(engine, request, { file, offset: offset + near, data: data.subarray(near) }, far);
    if (errno !== 0) return answerErrno(errno);
  }
  const plan = new Plan();
  const finish = (now: Attributes) => {
    if (near < data.length) planFarWrite(engine, plan, now, far.servers);
    now.blocks = Math.max(0, now.blocks + far.blocksDelta);
    extend(engine, now, end);
    planDropPrivileges(plan, now, kill);
    plan.attributes(now);
    return engine.answer(request, plan, { offset, ...writtenOf(now) });
  };
  if (near > 0) return yield* writeNear(engine, plan, { inode, offset, data: data.subarray(0, near) }, finish);
  const now = regularFile(engine, inode);
  return failed(now) ? answerErrno(now) : finish(now);
}

/** Writes the part of an append that lies in chunks > 0. errno. */
function* appendFar(
  engine: Engine,
  request: Request,
  at: { file: Attributes; offset: number; data: Uint8Array },
  out: { blocksDelta: number; servers: number[] },
): Task<number> {
  const { file, offset, data } = at;
  // A new gen makes those who have written beyond the end, and not published it, write it again: should this append be
  // cut short by a crash and done again elsewhere, its first bytes are not left in the middle of theirs.
  const plan = new Plan();
  plan.changer = request.head.session;
  file.gen++;
  planFarWrite(engine, plan, file, []);
  plan.attributes(file);
  engine.commit(request.head.shard, plan);
  yield* engine.logged();
  const running = [];
  for (let done = 0; done < data.length;) {
    const chunk = Math.floor((offset + done) / chunkBytesMax), within = (offset + done) % chunkBytesMax;
    const length = Math.min(data.length - done, chunkBytesMax - within),
      shard = chunkShard(file.inode, chunk, engine.shards);
    const body = { inode: file.inode, volume: file.volume, gen: file.gen, chunk, offset: within };
    out.servers.push(primaryOf(engine.map.current, shard));
    const call = engine.caller.call(WRITE_CHUNK, { shard }, body, { data: data.subarray(done, done + length) });
    running.push(engine.runtime.scheduler.spawn(call));
    done += length;
  }
  let errno = 0;
  for (const one of running) {
    const reply = yield* wait(one);
    if (reply.status !== 0) errno = reply.status;
    else out.blocksDelta += (reply.body as { blocksDelta: number }).blocksDelta - blocksBias;
  }
  return errno === status.staleGen ? E.IO : errno;
}
