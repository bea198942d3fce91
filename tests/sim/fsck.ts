/**
 * Looks at the raw records of all stores with the product's own check (core/check), and at what only one who holds the
 * media can see: which store has which shard, and what its allocator counts. For a cluster that is quiet: no request,
 * intent, orphan or open is under way.
 *
 * @module
 */

import { Checker } from "../../core/check/check.ts";
import { decodeChunk, granuleBytes, roomBlock } from "../../core/data/chunk_record.ts";
import { keyNumber, kind, localShard, storeShard } from "../../core/meta/layout.ts";
import { type ClusterMap, primaryOf, storeOfShard } from "../../core/placement/map.ts";

/** One store as it lies on its media. */
export interface StoredStore {
  serverId: number;
  store: number;
  entries: readonly [key: Uint8Array, value: Uint8Array][];
  /** Bytes that the store takes for used: blocks, and room for blocks. */
  usedDataBytes: number;
  /** What the running store has charged a volume in a shard. */
  charged: (shard: number, volume: number) => { bytes: number; inodes: number };
}

/** Records of volumes that the map does not have, one line each: what a deletion left behind. */
export function leftovers(stores: readonly StoredStore[]): string[] {
  const lasting: number[] = [kind.shard, kind.usage, kind.reply, kind.step];
  return stores.flatMap((store) =>
    store.entries.filter(([key]) => keyNumber(key, 0, 2) < localShard && !lasting.includes(key[2]))
      .map(([key]) =>
        `server ${store.serverId} still has a record ${String.fromCharCode(key[2])} ${[...key].join(" ")}`
      )
  );
}

/** Everything that is wrong, one line each; empty when all is well. */
export function check(stores: readonly StoredStore[], map: ClusterMap): string[] {
  const problems: string[] = [], checker = new Checker(map, { atRest: true });
  for (const store of stores) readStore(store, map, checker, problems);
  // Notes are leftovers of what was cut short: a kill may lose the last word about a write.
  for (const { severity, text } of checker.finish()) if (severity !== "note") problems.push(text);
  return problems;
}

function readStore(store: StoredStore, map: ClusterMap, checker: Checker, problems: string[]): void {
  const where = `server ${store.serverId} store ${store.store}`, shards = new Map<number, typeof store.entries[0][]>();
  for (const entry of store.entries) {
    const shard = keyNumber(entry[0], 0, 2);
    if (shard === storeShard || shard === localShard) continue;
    const owner = map.servers.find((server) => server.id === primaryOf(map, shard));
    if (owner?.id === store.serverId && storeOfShard(shard, owner.stores) === store.store) {
      const known = shards.get(shard);
      if (known === undefined) shards.set(shard, [entry]);
      else known.push(entry);
    } else if (entry[0][2] !== kind.shard) {
      // Counters stay behind where a shard was before the placement was fixed.
      problems.push(`${where} holds a record of shard ${shard}, which is not its own`);
    }
  }
  for (const [shard, entries] of shards) {
    const { serverId: server, store: index } = store;
    const scan = checker.shard({ shard, server, store: index, intents: 0, opens: [], grace: false });
    const middle = entries.findIndex(([key]) => key[2] >= kind.hashKey);
    for (const [key, value] of [...entries.slice(middle), ...entries.slice(0, middle)]) scan.record(key, value);
    scan.end(map.volumes.map(({ id }) => ({ volume: id, ...store.charged(shard, id) })));
  }
  // Block 0 means a hole in a record, so it is never given out.
  const { size } = checker.blocks(store.serverId, store.store), room = roomOf(store);
  const counted = store.usedDataBytes / granuleBytes - room;
  if (size + (counted > 0 ? 1 : 0) !== counted) {
    problems.push(
      `${where}: chunks use ${size} blocks and room for ${room}, the store counts ${counted} besides those`,
    );
  }
}

/** Granules of a store's chunks that have room and no block. */
function roomOf({ entries }: StoredStore): number {
  let count = 0;
  for (const [key, value] of entries) {
    if (key[2] !== kind.chunk) continue;
    const { granules } = decodeChunk(value);
    for (let at = 0; at < granules.length; at += 2) if (granules[at] === roomBlock) count++;
  }
  return count;
}
