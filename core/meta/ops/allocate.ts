/**
 * FALLOCATE and CUT: space of files without bytes from the client.
 *
 * New data always goes to free blocks, so allocation does not choose any: it charges the space to the volume and notes
 * that the granules have room (core/data/chunk_record.ts). Far chunks got theirs from the client (RESERVE_CHUNK), chunk 0
 * gets it here, with the size. Punching and zeroing work on chunk 0 here and on far chunks by CUT; they are done again by
 * a retry and are not atomic, as on other file systems.
 *
 * @module
 */

import { blocksOf, chunkBytesMax, granuleBytes } from "../../data/chunk_record.ts";
import { E, failed, type Result } from "../../errno.ts";
import type { Task } from "../../task.ts";
import { type Attributes, inodeFlags, isRegular } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { chunkKey, fileBytesMax, inodeKey, keyNumber, kind, shardOf } from "../layout.ts";
import { Plan } from "../plan.ts";
import { frozenErrno, keptErrno } from "../protection.ts";
import { cutEverywhere } from "../reaper.ts";
import { nearBlocks, planDropPrivileges } from "./setattr.ts";
import { cutDoneOf, encodeFloor, floorOf } from "./write.ts";

/** Modes of fallocate(2) (include/uapi/linux/falloc.h). */
export const fallocateMode = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;
/** Chunks that one record of CUT may drop. */
const chunksPerRecord = 512;

/** FALLOCATE. EOPNOTSUPP for modes that are not offered, EFBIG, ENOSPC, EINVAL, EPERM. */
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
  const refused = (mode & ~fallocateMode.keepSize) === 0 ? frozenErrno(file) : keptErrno(file);
  if (refused !== 0) return answerErrno(refused);
  const plan = new Plan(), end = offset + length, room = (mode & fallocateMode.punchHole) === 0;
  const zero = (mode & (fallocateMode.punchHole | fallocateMode.zeroRange)) !== 0;
  plan.changer = request.head.session;
  const part = { start: offset, end: Math.min(end, file.size), room };
  const far = zero ? yield* zeroFar(engine, file, part, plan.changer) : untouched;
  if (failed(far)) return answerErrno(far);
  const near = room
    ? yield* roomNear(engine, plan, file, { start: offset, end, zero })
    : yield* punchNear(engine, plan, file, { start: offset, end: Math.min(end, file.size) });
  if (failed(near)) return answerErrno(near);
  const now = engine.inode(inode);
  if (failed(now)) {
    near.end(false);
    return answerErrno(now);
  }
  if ((mode & fallocateMode.keepSize) === 0) now.size = Math.max(now.size, end);
  if (room) now.flags |= inodeFlags.room;
  if (near.movedInline) now.flags &= ~inodeFlags.inline;
  now.blocks = far.leftBlocks < 0
    ? Math.max(0, now.blocks + near.blocksDelta)
    : (far.leftBlocks + nearBlocks(engine, plan, inode)) * (granuleBytes / 512);
  now.mtime = now.ctime = engine.stamp(now);
  planDropPrivileges(plan, now, request.body.killSetId);
  plan.attributes(now);
  const answer = engine.answer(request, plan, {});
  near.end(true);
  return answer;
}

/** Far chunks that no CUT has been sent to. */
const untouched = { leftBlocks: -1 };

/** Makes [start, end) of the far chunks zeros; whole granules have room or are holes. */
function* zeroFar(
  engine: Engine,
  file: Attributes,
  range: { start: number; end: number; room: boolean },
  changer: number,
): Task<Result<{ leftBlocks: number }>> {
  if (range.end <= chunkBytesMax || (file.flags & inodeFlags.far) === 0) return untouched;
  // Writes under way belong before or after: those that carry the old gen are done again, after.
  const raised = new Plan();
  raised.changer = changer;
  file.gen++;
  raised.attributes(file);
  engine.commit(shardOf(file.inode), raised);
  yield* engine.logged();
  const cut = yield* cutEverywhere(engine, { inode: file.inode, gen: file.gen, ...range, forget: false, floor: true });
  return cut.errno === 0 ? cut : cut.errno;
}

/** A change of chunk 0 that is planned. */
interface NearChange {
  /** Of the inode's 512-byte units. */
  blocksDelta: number;
  /** What was inline lies in the chunk then. */
  movedInline: boolean;
  /** The plan was committed, or given up. */
  end(committed: boolean): void;
}

const noChange: NearChange = { blocksDelta: 0, movedInline: false, end() {} };

/** Gives room to what of [start, end) lies in chunk 0, and makes it zeros when asked. */
function* roomNear(
  engine: Engine,
  plan: Plan,
  file: Attributes,
  { start, end, zero }: { start: number; end: number; zero: boolean },
): Task<Result<NearChange>> {
  const { inode, volume, gen } = file, shard = shardOf(inode);
  const range = { shard, inode, chunk: 0, offset: start, length: Math.min(end, chunkBytesMax) - start };
  if (range.length <= 0) return noChange;
  const inline = engine.store.get(inodeKey(shard, kind.data, inode))?.slice(), inlineBytes = inline?.length ?? 0;
  const most = () => engine.chunks.holes(range) * granuleBytes + (inlineBytes > 0 ? granuleBytes : 0);
  const reserved = yield* engine.credit.reserveWrite(volume, Infinity, most);
  if (failed(reserved)) return reserved;
  const settle = () => engine.credit.settle(volume, reserved.bytes, 0);
  const made = yield* engine.chunks.write({ ...range, data: null, room: zero ? "zero" : "keep", volume, gen, inline });
  if (failed(made)) {
    settle();
    return made;
  }
  plan.add(made.changes, [{ volume, bytesDelta: made.bytesDelta - inlineBytes, inodesDelta: 0 }]);
  return {
    blocksDelta: made.bytesDelta / 512 - Math.ceil(inlineBytes / granuleBytes) * (granuleBytes / 512),
    movedInline: inline !== undefined,
    end(committed) {
      if (committed) made.done();
      else made.abandon();
      settle();
    },
  };
}

/** Makes what of [start, end) lies in chunk 0, or inline, zeros that take no space. */
function* punchNear(
  engine: Engine,
  plan: Plan,
  file: Attributes,
  { start, end }: { start: number; end: number },
): Task<Result<NearChange>> {
  const { inode, volume, gen } = file, shard = shardOf(inode);
  const key = inodeKey(shard, kind.data, inode), inline = engine.store.get(key)?.slice();
  if (inline !== undefined) {
    if (start < inline.length) plan.put(key, inline.fill(0, start, Math.min(end, inline.length)));
    return noChange;
  }
  const length = Math.min(end, chunkBytesMax) - start;
  if (length <= 0 || engine.store.get(chunkKey(shard, inode, 0)) === undefined) return noChange;
  const zeroed = yield* engine.chunks.zero({ shard, inode, chunk: 0, offset: start, length, volume, gen });
  if (failed(zeroed)) return zeroed;
  plan.add(zeroed.changes, [{ volume, bytesDelta: zeroed.bytesDelta, inodesDelta: 0 }]);
  return {
    blocksDelta: zeroed.bytesDelta / 512,
    movedInline: false,
    end: (committed) => committed ? zeroed.done() : zeroed.abandon(),
  };
}

/** CUT: removes data of far chunks in this store. Idempotent: a second one finds nothing. */
export function* cut(engine: Engine, request: Request): Task<Answer> {
  const { inode, gen, start, end, floor, forget, room } = request.body;
  const own = engine.ownShards();
  for (const shard of own) {
    const errno = yield* cutShard(engine, { shard, inode, gen, start, end, floor, forget, room });
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
  /** Whole granules have room instead of being holes. */
  room: boolean;
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
      const zeroed = yield* engine.chunks.zero({ ...at, room: range.room ? "zero" : undefined });
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
