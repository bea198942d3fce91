/**
 * FALLOCATE and CUT: space of files without bytes from the client.
 *
 * Blocks are not reserved ahead (new data always goes to free blocks), so plain allocation checks that the volume has
 * room now and sets the size. Punching and zeroing work on chunk 0 here and on far chunks by CUT; they are done again
 * by a retry and are not atomic, as on other file systems.
 *
 * @module
 */

import { blocksOf, chunkBytesMax, granuleBytes } from "../../data/chunk_record.ts";
import { E, failed } from "../../errno.ts";
import type { Task } from "../../task.ts";
import { type Attributes, inodeFlags, isRegular } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { chunkKey, fileBytesMax, inodeKey, keyNumber, kind, shardOf } from "../layout.ts";
import { Plan } from "../plan.ts";
import { cutEverywhere } from "../reaper.ts";
import { nearBlocks, planDropPrivileges } from "./setattr.ts";
import { cutDoneOf, encodeFloor, floorOf } from "./write.ts";

/** Modes of fallocate(2) (include/uapi/linux/falloc.h). */
export const fallocateMode = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;
/** Chunks that one record of CUT may drop. */
const chunksPerRecord = 512;

/** FALLOCATE. EOPNOTSUPP for modes that are not offered, EFBIG, ENOSPC, EINVAL. */
export function* fallocate(engine: Engine, request: Request): Task<Answer> {
  const { inode, mode, offset, length } = request.body, lock = String(inode), owner = engine.newOwner();
  const { keepSize, punchHole, zeroRange } = fallocateMode;
  if (![0, keepSize, punchHole | keepSize, zeroRange, zeroRange | keepSize].includes(mode)) {
    return answerErrno(E.OPNOTSUPP);
  }
  if (length === 0) return answerErrno(E.INVAL);
  if (offset + length > fileBytesMax) return answerErrno(E.FBIG);
  yield* engine.inodes.acquire(lock, owner);
  const answer = yield* allocateLocked(engine, request);
  engine.inodes.release(lock, owner);
  return answer;
}

function* allocateLocked(engine: Engine, request: Request): Task<Answer> {
  const { inode, mode, offset, length } = request.body;
  const file = engine.inode(inode);
  if (failed(file)) return answerErrno(file);
  if (!isRegular(file.mode)) return answerErrno(E.NODEV);
  const plan = new Plan(), end = offset + length;
  plan.changer = request.head.session;
  let leftBlocks = -1, bytesDelta = 0, done = () => {};
  if ((mode & (fallocateMode.punchHole | fallocateMode.zeroRange)) === 0) {
    const errno = yield* engine.credit.reserve(file.volume, length, 0);
    if (errno !== 0) return answerErrno(errno);
    engine.credit.settle(file.volume, length, 0);
  } else {
    const zeroed = yield* zeroRange(engine, plan, file, offset, Math.min(end, file.size));
    if (typeof zeroed === "number") return answerErrno(zeroed);
    ({ leftBlocks, bytesDelta, done } = zeroed);
  }
  const now = engine.inode(inode);
  if (failed(now)) {
    done();
    return answerErrno(now);
  }
  if ((mode & fallocateMode.keepSize) === 0) now.size = Math.max(now.size, end);
  now.blocks = leftBlocks < 0
    ? Math.max(0, now.blocks + bytesDelta / 512)
    : (leftBlocks + nearBlocks(engine, plan, inode)) * (granuleBytes / 512);
  now.mtime = now.ctime = engine.stamp(now);
  planDropPrivileges(plan, now, request.body.killSetId);
  plan.attributes(now);
  const answer = engine.answer(request, plan, {});
  done();
  return answer;
}

/** Makes [start, end) zeros. errno, or what the record has to know; `leftBlocks` -1: far chunks were not touched. */
function* zeroRange(
  engine: Engine,
  plan: Plan,
  file: Attributes,
  start: number,
  end: number,
): Task<number | { leftBlocks: number; bytesDelta: number; done: () => void }> {
  const shard = shardOf(file.inode);
  let leftBlocks = -1;
  if (end > chunkBytesMax && (file.flags & inodeFlags.far) !== 0) {
    // Writes under way belong before or after: those that carry the old gen are done again, after.
    const raised = new Plan();
    raised.changer = plan.changer;
    file.gen++;
    raised.attributes(file);
    engine.commit(shard, raised);
    yield* engine.logged();
    const range = { inode: file.inode, gen: file.gen, start, end, forget: false, floor: true };
    const cut = yield* cutEverywhere(engine, range);
    if (cut.errno !== 0) return cut.errno;
    leftBlocks = cut.leftBlocks;
  }
  const key = inodeKey(shard, kind.data, file.inode), inline = engine.store.get(key)?.slice();
  if (inline !== undefined) {
    if (start < inline.length) plan.put(key, inline.fill(0, start, Math.min(end, inline.length)));
    return { leftBlocks, bytesDelta: 0, done: () => {} };
  }
  const length = Math.min(end, chunkBytesMax) - start;
  if (length <= 0 || engine.store.get(chunkKey(shard, file.inode, 0)) === undefined) {
    return { leftBlocks, bytesDelta: 0, done: () => {} };
  }
  const range = { shard, inode: file.inode, chunk: 0, offset: start, length };
  const zeroed = yield* engine.chunks.zero({ ...range, volume: file.volume, gen: file.gen });
  if (failed(zeroed)) return zeroed;
  plan.add(zeroed.changes, [{ volume: file.volume, bytesDelta: zeroed.bytesDelta, inodesDelta: 0 }]);
  return { leftBlocks, bytesDelta: zeroed.bytesDelta, done: zeroed.done };
}

/** CUT: removes data of far chunks in this store. Idempotent: a second one finds nothing. */
export function* cut(engine: Engine, request: Request): Task<Answer> {
  const { inode, gen, start, end, floor, forget } = request.body;
  const own = engine.ownShards();
  for (const shard of own) {
    const errno = yield* cutShard(engine, { shard, inode, gen, start, end, floor, forget });
    if (errno !== 0) return answerErrno(errno);
  }
  let leftBlocks = 0;
  for (const shard of own) {
    engine.store.scan(chunkKey(shard, inode, 1), chunkKey(shard, inode, 0xffffffff), (_, value) => {
      leftBlocks += blocksOf(value);
      return true;
    });
  }
  return { status: 0, body: { leftBlocks } };
}

interface CutRange {
  shard: number;
  inode: number;
  gen: number;
  start: number;
  end: number;
  floor: boolean;
  forget: boolean;
}

/** The floor first, so that late writes are refused; then chunk after chunk. errno. */
function* cutShard(engine: Engine, range: CutRange): Task<number> {
  const { shard, inode, gen, start, end, floor } = range;
  // What was written since, under the new gen, stays.
  if (floor && cutDoneOf(engine, shard, inode) >= gen) return 0;
  let chunks = chunksFrom(engine, range, Math.max(1, Math.floor(start / chunkBytesMax)));
  // Most shards have nothing of a file: one record is enough there.
  if (chunks.length > 0) planFloor(engine, range, false);
  while (chunks.length > 0) {
    for (const chunk of chunks) {
      const within = Math.max(0, start - chunk * chunkBytesMax);
      const length = Math.min(chunkBytesMax, end - chunk * chunkBytesMax) - within;
      const value = engine.store.get(chunkKey(shard, inode, chunk));
      if (value === undefined || length <= 0) continue;
      const volume = new DataView(value.buffer, value.byteOffset).getUint32(0, true);
      const at = { shard, inode, chunk, offset: within, length, volume, gen };
      const zeroed = yield* engine.chunks.zero(at);
      if (failed(zeroed)) return zeroed;
      if (floor && cutDoneOf(engine, shard, inode) >= gen) {
        zeroed.abandon();
        return 0;
      }
      const plan = new Plan();
      plan.add(zeroed.changes, [{ volume, bytesDelta: zeroed.bytesDelta, inodesDelta: 0 }]);
      engine.commit(shard, plan);
      zeroed.done();
    }
    if (chunks.length < chunksPerRecord) break;
    chunks = chunksFrom(engine, range, chunks[chunks.length - 1] + 1);
  }
  planFloor(engine, range, true);
  return 0;
}

/** Numbers of the next chunks that a cut concerns, ascending from `from`. */
function chunksFrom(engine: Engine, { shard, inode, end }: CutRange, from: number): number[] {
  const chunks: number[] = [];
  engine.store.scan(chunkKey(shard, inode, from), chunkKey(shard, inode, 0xffffffff), (key) => {
    const chunk = keyNumber(key, 10, 4);
    if (chunk * chunkBytesMax < end) chunks.push(chunk);
    return chunk * chunkBytesMax < end && chunks.length < chunksPerRecord;
  });
  return chunks;
}

/** Records the floor, at the beginning of a CUT and once it is carried out. */
function planFloor(engine: Engine, { shard, inode, gen, floor, forget }: CutRange, done: boolean): void {
  const plan = new Plan(), key = inodeKey(shard, kind.floor, inode);
  if (forget) engine.ended.add(inode);
  if (forget && engine.store.get(key) !== undefined) plan.remove(key);
  const lowest = floorOf(engine, shard, inode), before = cutDoneOf(engine, shard, inode);
  if (floor && (lowest < gen || done)) {
    plan.put(key, encodeFloor(Math.max(lowest, gen), done ? Math.max(before, gen) : before));
  }
  engine.commit(shard, plan);
}
