/**
 * STATFS, and what the check command uses: SCAN, VERIFY_CHUNK, REPAIR, SHARD_STATUS.
 *
 * @module
 */

import { decodeChunk, granuleBytes } from "../../data/chunk_record.ts";
import { E } from "../../errno.ts";
import type { Task } from "../../task.ts";
import { wait } from "../../task.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { chunkKey, Key, keyNumber, shardOf } from "../layout.ts";
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

/** VERIFY_CHUNK. */
export function* verifyChunk(engine: Engine, request: Request): Task<Answer> {
  const { inode, chunk } = request.body;
  const key = chunkKey(request.head.shard, inode, chunk), value = engine.store.get(key)?.slice();
  const bad: number[] = [];
  if (value === undefined) return { status: 0, body: { bad } };
  const { granules } = decodeChunk(value), buffer = engine.store.container.allocate(granuleBytes);
  const view = buffer.subarray(0, granuleBytes);
  for (let g = 0; g < granules.length / 2; g++) {
    if (granules[2 * g] === 0) continue;
    const errno = yield* wait(engine.store.container.read(granules[2 * g], view));
    if (errno === 0 && crc32(view) === granules[2 * g + 1]) continue;
    const now = engine.store.get(key);
    if (now !== undefined && decodeChunk(now).granules[2 * g] === granules[2 * g]) bad.push(g);
  }
  engine.store.container.release(buffer);
  return { status: 0, body: { bad } };
}

/** REPAIR. EAGAIN when a key has another value than expected; EINVAL for a key of another shard. */
export function repair(engine: Engine, request: Request): Answer {
  const plan = new Plan();
  for (const { key, expected, value } of request.body.changes) {
    if (key.length < 3 || keyNumber(key, 0, 2) !== request.head.shard) return answerErrno(E.INVAL);
    const now = engine.store.get(key) ?? null;
    if (!same(now, expected)) return answerErrno(E.AGAIN);
    if (value === null) plan.remove(key);
    else plan.put(key, value);
  }
  return engine.answer(request, plan, {});
}

function same(a: Uint8Array | null, b: Uint8Array | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
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
    },
  };
}
