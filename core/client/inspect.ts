/**
 * Where an inode and its data are, and who uses it: for people. The parts come from several servers one after another
 * and are of no one moment.
 *
 * @module
 */

import { failed, type Result } from "../errno.ts";
import { shardOf } from "../meta/layout.ts";
import { lockRangeEnd, lockType, type WireLock } from "../meta/lock_ranges.ts";
import { chunkShard } from "../placement/hash.ts";
import { CHUNKS, INODE_STATUS } from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import { type ChunkPlace, chunksShownMax, type Inspection, type Lock, lockEnd } from "./filesystem.ts";
import { inParallel } from "./parallel.ts";
import { errnoOf, parallelMax, type Volume } from "./volume.ts";

/** INODE_STATUS at the inode's shard, CHUNKS at every store. */
export function* inspect(volume: Volume, inode: number): Task<Result<Inspection>> {
  const own = yield* volume.ask(INODE_STATUS, inode, { inode });
  if (failed(own)) return own;
  const { attributes, orphan, busy, inlineBytes, nearBlocks, opens, leases } = own;
  const shard = shardOf(inode), owner = volume.session.maps.ownerOf(shard);
  const primary = { shard, server: owner?.server ?? 0, store: owner?.store ?? 0 };
  const held = yield* farChunks(volume, inode);
  if (typeof held === "number") return held;
  if (nearBlocks > 0) {
    held.push({ ...primary, count: 1, blocks: nearBlocks, first: [{ chunk: 0, blocks: nearBlocks }] });
  }
  const { shards } = volume.session.maps.current;
  const places = held.flatMap(({ server, store, first }) =>
    first.map(({ chunk, blocks }): ChunkPlace => {
      return { chunk, shard: chunk === 0 ? shard : chunkShard(inode, chunk, shards), server, store, blocks };
    })
  );
  return {
    attributes,
    ...primary,
    orphan,
    busy,
    inlineBytes,
    holders: totals(held),
    chunks: places.sort((a, b) => a.chunk - b.chunk).slice(0, chunksShownMax),
    opens,
    leases,
    locks: own.locks.map(({ session, lock }) => ({ session, lock: lockOf(lock) })),
  };
}

/** What a store holds, and its first chunks. */
interface Held {
  server: number;
  store: number;
  count: number;
  blocks: number;
  first: { chunk: number; blocks: number }[];
}

/** A line a store; chunk 0 has been found apart from the others. */
function totals(held: readonly Held[]): Inspection["holders"] {
  const lines = new Map<string, Inspection["holders"][number]>();
  for (const { server, store, count, blocks } of held) {
    const key = `${server}/${store}`, line = lines.get(key) ?? { server, store, chunks: 0, blocks: 0 };
    lines.set(key, { server, store, chunks: line.chunks + count, blocks: line.blocks + blocks });
  }
  return [...lines.values()].filter(({ chunks }) => chunks > 0)
    .sort((a, b) => a.server - b.server || a.store - b.store);
}

/** Chunks > 0 by store; or an errno. */
function* farChunks(volume: Volume, inode: number): Task<Held[] | number> {
  const { caller, maps, runtime } = volume.session, stores = maps.holders;
  const lists = yield* inParallel(runtime.scheduler, stores.length, parallelMax, function* (i): Task<Held | number> {
    const held: Held = { ...stores[i], count: 0, blocks: 0, first: [] };
    for (let from = 1;;) {
      const reply = yield* caller.call(CHUNKS, stores[i], { inode, from });
      if (reply.status !== 0) return errnoOf(reply.status);
      const { chunks, end } = reply.body!;
      held.count += chunks.length;
      for (const { blocks } of chunks) held.blocks += blocks;
      held.first.push(...chunks.slice(0, chunksShownMax - held.first.length));
      if (end || chunks.length === 0) return held;
      from = chunks[chunks.length - 1].chunk + 1;
    }
  });
  const bad = lists.find((one) => typeof one === "number");
  return bad ?? lists as Held[];
}

function lockOf({ flock, type, ownerLow, ownerHigh, pid, start, end }: WireLock): Lock {
  const types = { [lockType.read]: "read", [lockType.write]: "write", [lockType.unlock]: "unlock" } as const;
  return {
    flock,
    type: types[type as 0 | 1 | 2],
    ownerLow,
    ownerHigh,
    pid,
    start,
    end: end >= lockRangeEnd ? lockEnd : end,
  };
}
