/**
 * STATFS, and what the check command uses: SCAN, VERIFY_CHUNK, REPAIR, SHARD_STATUS.
 *
 * @module
 */

import { type ChunkRecord, decodeChunk, granuleBytes, isBlock } from "../../data/chunk_record.ts";
import { E } from "../../errno.ts";
import { decode, DecodeError } from "../../protocol/codec.ts";
import type { Task } from "../../task.ts";
import { wait } from "../../task.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { heldName, lockOwner, stepRecord } from "../intent.ts";
import { after, chunkKey, dentry, Key, keyNumber, kind, shardOf } from "../layout.ts";
import { keyBytesMax, valueBytesMax } from "../../store/record.ts";
import { Plan } from "../plan.ts";
import { crc32 } from "node:zlib";

/** Most bytes of one SCAN page. */
const scanBytesMax = 512 * 1024;

/** STATFS. */
export function statfs(engine: Engine, request: Request): Answer {
  const used = engine.store.usage(request.body.volume), { dataBytes, dataBytesMax } = engine.store.fill();
  const body = {
    usedBytes: used.bytes,
    inodes: used.inodes,
    freeBytes: Math.max(0, dataBytesMax - dataBytes),
    totalBytes: dataBytesMax,
  };
  return { status: 0, body };
}

/** SCAN: raw records of the request's shard. */
export function scan(engine: Engine, request: Request): Answer {
  const { from, limitBytes } = request.body, shard = request.head.shard;
  if (from.length > keyBytesMax) return answerErrno(E.INVAL);
  const first = from.length > 0 ? from : new Key(shard, 0, 3).done();
  if (keyNumber(first, 0, 2) !== shard) return answerErrno(E.INVAL);
  const records: { key: Uint8Array; value: Uint8Array }[] = [];
  let bytes = 0, end = true;
  engine.store.scan(first, new Key(shard + 1, 0, 3).done(), (key, value) => {
    bytes += key.length + value.length + 8;
    if (records.length > 0 && bytes > Math.min(limitBytes, scanBytesMax)) {
      end = false;
      return false;
    }
    records.push({ key: key.slice(), value: value.slice() });
    return true;
  });
  return { status: 0, body: { records, end } };
}

/** VERIFY_CHUNK. EIO when the chunk's record itself is damaged. */
export function* verifyChunk(engine: Engine, request: Request): Task<Answer> {
  const { inode, chunk } = request.body;
  const key = chunkKey(request.head.shard, inode, chunk), value = engine.store.get(key);
  if (value === undefined) return { status: 0, body: { bad: [] } };
  const record = chunkOf(value.slice());
  if (record === null) return answerErrno(E.IO);
  const { granules } = record, suspects: number[] = [];
  if (granules.length === 0) return { status: 0, body: { bad: [] } };
  const buffer = engine.store.container.allocate(granules.length / 2 * granuleBytes);
  for (let first = 0; first < granules.length / 2;) {
    const count = runLength(granules, first), view = buffer.subarray(0, count * granuleBytes);
    const block = granules[2 * first];
    const errno = isBlock(block) ? yield* wait(engine.store.container.read(block, view)) : 0;
    for (let g = first; isBlock(block) && g < first + count; g++) {
      const bytes = view.subarray((g - first) * granuleBytes, (g - first + 1) * granuleBytes);
      if (errno !== 0 || crc32(bytes) !== granules[2 * g + 1]) suspects.push(g);
    }
    first += count;
  }
  engine.store.container.release(buffer);
  // A granule that was written anew meanwhile is no damage.
  const now = engine.store.get(key), still = now === undefined ? null : chunkOf(now);
  return { status: 0, body: { bad: suspects.filter((g) => still?.granules[2 * g] === granules[2 * g]) } };
}

function chunkOf(value: Uint8Array): ChunkRecord | null {
  return decoded(() => decodeChunk(value));
}

/** Granules from `first` on whose blocks follow each other, or that are holes. */
function runLength(granules: Uint32Array, first: number): number {
  const block = granules[2 * first];
  let count = 1;
  while (first + count < granules.length / 2 && granules[2 * (first + count)] === (block === 0 ? 0 : block + count)) {
    count++;
  }
  return count;
}

/** A change that REPAIR asks for. */
interface RawChange {
  key: Uint8Array;
  expected: Uint8Array | null;
  value: Uint8Array | null;
}

/** REPAIR. EAGAIN, EBUSY, ERANGE; EINVAL for a key of another shard, or for a chunk with blocks that are not its own. */
export function repair(engine: Engine, request: Request): Answer {
  const plan = new Plan(), shard = request.head.shard;
  for (const change of request.body.changes as RawChange[]) {
    const { key, expected, value } = change;
    if (key.length < 3 || key.length > keyBytesMax || keyNumber(key, 0, 2) !== shard) return answerErrno(E.INVAL);
    if (value !== null && value.length > valueBytesMax) return answerErrno(E.INVAL);
    const now = engine.store.get(key)?.slice() ?? null;
    if (!same(now, expected)) return answerErrno(E.AGAIN);
    if (key[2] === kind.chunk && value !== null && !keepsBlocks(expected, value)) return answerErrno(E.INVAL);
    if (inUse(engine, change)) return answerErrno(E.BUSY);
    if (value === null) plan.remove(key);
    else plan.put(key, value);
  }
  for (const { volume, bytesDelta, inodesDelta } of request.body.charges) {
    if (!Number.isSafeInteger(bytesDelta) || !Number.isSafeInteger(inodesDelta)) return answerErrno(E.INVAL);
    plan.charge(volume, bytesDelta, inodesDelta);
  }
  for (const { volume, bytesDelta, inodesDelta } of plan.charges) {
    const used = engine.store.usageOf(shard, volume);
    if (used.bytes + bytesDelta < 0 || used.inodes + inodesDelta < 0) return answerErrno(E.RANGE);
  }
  const answer = engine.answer(request, plan, {});
  for (const change of request.body.changes) afterRepair(engine, change);
  return answer;
}

function same(a: Uint8Array | null, b: Uint8Array | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** True when a chunk's new record names no block that the old one does not. */
function keepsBlocks(old: Uint8Array | null, value: Uint8Array): boolean {
  const before = old === null ? null : chunkOf(old)?.granules, now = chunkOf(value)?.granules;
  if (!before || !now) return false;
  for (let i = 0; i < now.length; i += 2) if (now[i] !== 0 && now[i] !== before[i]) return false;
  return true;
}

/** True while work in progress relies on a record. */
function inUse(engine: Engine, { key, expected, value }: RawChange): boolean {
  if (key.length < 10) return false;
  const inode = keyNumber(key, 3, 7), locked = () => engine.inodeHeld(inode);
  switch (key[2]) {
    case kind.inode:
      if (value !== null) return locked();
      return locked() || engine.opens.mayBeOpen(inode) || engine.names.heldInGroup(inode, "") !== "none";
    case kind.hashKey:
      return engine.names.heldInGroup(inode, "") !== "none";
    case kind.dentry:
      return [expected, value].some((entry) => {
        const name = entry === null ? null : nameOf(entry);
        return name !== null && engine.nameHeld(inode, name);
      });
    case kind.chunk:
      return engine.chunks.isBusy(inode, keyNumber(key, 10, 4)) || locked();
    case kind.data:
    case kind.symlink:
    case kind.orphan:
    case kind.floor:
      return locked();
    default:
      return false;
  }
}

function nameOf(entry: Uint8Array): Uint8Array | null {
  return decoded(() => decode(dentry, entry).name);
}

/** What `read` gives, or null for a damaged record. */
function decoded<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

/** What is kept in memory beside the records follows them. */
function afterRepair(engine: Engine, { key, expected, value }: RawChange): void {
  if (key.length < 10) return;
  const inode = keyNumber(key, 3, 7);
  switch (key[2]) {
    case kind.inode:
      engine.durable.delete(inode);
      if (value !== null) return;
      engine.tree.forget(inode);
      return engine.locks.forget(inode);
    case kind.hashKey:
      return engine.tree.forget(inode);
    case kind.orphan:
      if (value !== null) engine.reaper.consider(inode);
      return;
    case kind.step:
      return freeName(engine, key, expected, value);
  }
}

/** A step that no longer holds its name lets those in who wait for it. */
function freeName(engine: Engine, key: Uint8Array, expected: Uint8Array | null, value: Uint8Array | null): void {
  const before = expected === null ? null : decoded(() => decode(stepRecord, expected).holds);
  const now = value === null ? null : decoded(() => decode(stepRecord, value).holds);
  if (before === null || now !== null) return;
  engine.names.release(heldName(before), lockOwner(keyNumber(key, 3, 2), keyNumber(key, 5, 7)), before.dir);
}

/** SHARD_STATUS. */
export function shardStatus(engine: Engine, request: Request): Answer {
  const shard = request.head.shard;
  const opens = engine.opens.inodes().filter((inode) => shardOf(inode) === shard);
  return {
    status: 0,
    body: {
      intents: engine.intents.count(shard),
      position: engine.store.shard(shard)?.position ?? 0,
      opens: opens.slice(0, 65536),
      grace: engine.opens.grace,
      usage: usageOf(engine, shard),
    },
  };
}

/** What a shard has charged to the volumes of the map, and to those it has a record of. */
function usageOf(engine: Engine, shard: number): { volume: number; bytes: number; inodes: number }[] {
  const volumes = new Set(engine.map.current.volumes.map((volume) => volume.id));
  const prefix = new Key(shard, kind.usage, 3).done();
  engine.store.scan(prefix, after(prefix), (key) => {
    volumes.add(keyNumber(key, 3, 4));
    return true;
  });
  return [...volumes].map((volume) => ({ volume, ...engine.store.usageOf(shard, volume) }))
    .filter(({ bytes, inodes }) => bytes !== 0 || inodes !== 0);
}
