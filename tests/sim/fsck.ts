/**
 * Looks at the raw records of all stores and says what does not fit together. Written against the stored layout alone,
 * apart from the code that writes it. For a cluster that is quiet: no request, intent, orphan or open is under way.
 *
 * @module
 */

import { decodeChunk, granuleBytes } from "../../core/data/chunk_record.ts";
import { type Attributes, inodeFlags, isDirectory, isRegular, S } from "../../core/meta/attributes.ts";
import { decodeAttributes, dentry, keyNumber, kind, localShard, shardOf, storeShard } from "../../core/meta/layout.ts";
import { chunkShard } from "../../core/placement/hash.ts";
import { type ClusterMap, primaryOf, rootInode, storeOfShard } from "../../core/placement/map.ts";
import { decode } from "../../core/protocol/codec.ts";

/** One store as it lies on its media. */
export interface StoredStore {
  serverId: number;
  store: number;
  entries: readonly [key: Uint8Array, value: Uint8Array][];
  /** Bytes that the store's allocator takes for used. */
  usedDataBytes: number;
  /** What the running store has charged a volume in a shard. */
  charged: (shard: number, volume: number) => { bytes: number; inodes: number };
}

interface Entry {
  dir: number;
  inode: number;
  type: number;
  name: string;
}

interface Records {
  inodes: Map<number, Attributes>;
  entries: Entry[];
  hashKeys: Set<number>;
  inline: Map<number, number>;
  targets: Map<number, number>;
  xattrs: Map<number, number>;
  chunks: { inode: number; chunk: number; shard: number; blocks: number; volume: number }[];
}

const decoder = new TextDecoder();

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
  const problems: string[] = [];
  const records: Records = {
    inodes: new Map(),
    entries: [],
    hashKeys: new Set(),
    inline: new Map(),
    targets: new Map(),
    xattrs: new Map(),
    chunks: [],
  };
  for (const store of stores) readStore(store, map, records, problems);
  checkNames(records, map, problems);
  checkParts(records, map, problems);
  checkUsage(stores, records, map, problems);
  return problems;
}

function readStore(store: StoredStore, map: ClusterMap, records: Records, problems: string[]): void {
  const blocks = new Set<number>();
  const where = `server ${store.serverId} store ${store.store}`;
  for (const [key, value] of store.entries) {
    const shard = keyNumber(key, 0, 2), keyKind = key[2];
    if (shard === storeShard || shard === localShard) continue;
    // Counters stay behind where a shard was before the placement was fixed.
    if (keyKind === kind.shard) continue;
    if (primaryOf(map, shard) !== store.serverId) problems.push(`${where} holds shard ${shard}, which is not its own`);
    const entry = map.servers.find((server) => server.id === store.serverId);
    if (entry !== undefined && storeOfShard(shard, entry.stores) !== store.store) {
      problems.push(`${where} holds shard ${shard} of another store`);
    }
    if (keyKind === kind.chunk) {
      const granules = decodeChunk(value).granules;
      for (let at = 0; at < granules.length; at += 2) {
        if (granules[at] === 0) continue;
        if (blocks.has(granules[at])) problems.push(`${where}: block ${granules[at]} is used twice`);
        blocks.add(granules[at]);
      }
    }
    readRecord(shard, key, value, records, problems);
  }
  // Block 0 means a hole in a record, so it is never given out.
  if (blocks.size > 0 || store.usedDataBytes > 0) blocks.add(0);
  if (blocks.size * granuleBytes !== store.usedDataBytes) {
    problems.push(
      `${where}: chunks use ${blocks.size} blocks, the allocator counts ${store.usedDataBytes / granuleBytes}`,
    );
  }
}

function readRecord(shard: number, key: Uint8Array, value: Uint8Array, records: Records, problems: string[]): void {
  const keyKind = key[2], letter = String.fromCharCode(keyKind);
  const inode = key.length >= 10 ? keyNumber(key, 3, 7) : 0;
  switch (keyKind) {
    case kind.usage:
    case kind.reply:
    case kind.credit:
    case kind.mask:
      return;
    case kind.inode:
      if (shardOf(inode) !== shard) problems.push(`inode ${inode} lies in shard ${shard}`);
      records.inodes.set(inode, decodeAttributes(inode, value));
      return;
    case kind.hashKey:
      records.hashKeys.add(inode);
      return;
    case kind.dentry: {
      const entry = decode(dentry, value);
      records.entries.push({ dir: inode, inode: entry.inode, type: entry.type, name: decoder.decode(entry.name) });
      return;
    }
    case kind.data:
      records.inline.set(inode, value.length);
      return;
    case kind.symlink:
      records.targets.set(inode, value.length);
      return;
    case kind.xattr:
      records.xattrs.set(inode, (records.xattrs.get(inode) ?? 0) + 1);
      return;
    case kind.chunk: {
      const chunk = decodeChunk(value);
      let blocks = 0;
      for (let at = 0; at < chunk.granules.length; at += 2) if (chunk.granules[at] !== 0) blocks++;
      if (blocks === 0) problems.push(`chunk ${keyNumber(key, 10, 4)} of inode ${inode} holds nothing`);
      records.chunks.push({ inode, chunk: keyNumber(key, 10, 4), shard, blocks, volume: chunk.volume });
      return;
    }
    case kind.floor:
      // Floors outlive a truncation on purpose; those of files that are gone are looked at in checkParts.
      return;
    case kind.orphan:
      problems.push(`inode ${inode} is still an orphan`);
      return;
    case kind.intent:
      problems.push(`intent ${keyNumber(key, 3, 7)} of shard ${shard} is still there`);
      return;
    case kind.step:
      // Step 0 says what is forgotten; the others go when the driver's next step comes by.
      return;
    default:
      problems.push(`shard ${shard} holds a record of unknown kind ${letter}`);
  }
}

/** Names and inodes: each leads to the other, counts are right, everything hangs on a root. */
function checkNames(records: Records, map: ClusterMap, problems: string[]): void {
  const names = new Map<number, Entry[]>();
  const counts = new Map<number, { entries: number; directories: number }>();
  const seen = new Set<string>();
  for (const entry of records.entries) {
    const { dir, inode, type, name } = entry;
    if (seen.has(`${dir}/${name}`)) problems.push(`directory ${dir} has two entries ${name}`);
    seen.add(`${dir}/${name}`);
    const parent = records.inodes.get(dir), target = records.inodes.get(inode);
    if (parent === undefined) problems.push(`entry ${name} lies in directory ${dir}, which does not exist`);
    if (target === undefined) {
      problems.push(`entry ${name} of directory ${dir} names inode ${inode}, which does not exist`);
    } else if (target.mode >> 12 !== type) {
      problems.push(`entry ${name} of directory ${dir} says type ${type}, inode ${inode} is ${target.mode >> 12}`);
    }
    const count = counts.get(dir) ?? { entries: 0, directories: 0 };
    count.entries++;
    if (type === S.IFDIR >> 12) count.directories++;
    counts.set(dir, count);
    names.set(inode, [...names.get(inode) ?? [], entry]);
  }
  const roots = new Set(map.volumes.map((volume) => rootInode(volume.id, map.shards)));
  for (const [inode, attributes] of records.inodes) {
    const mine = names.get(inode) ?? [];
    if (isDirectory(attributes.mode)) {
      checkDirectory(attributes, mine, counts.get(inode) ?? { entries: 0, directories: 0 }, roots.has(inode), problems);
      if (!records.hashKeys.has(inode)) problems.push(`directory ${inode} has no hash key`);
      if (!reachesRoot(attributes, records.inodes, roots)) problems.push(`directory ${inode} hangs on no root`);
      continue;
    }
    if (attributes.nlink !== mine.length) {
      problems.push(`inode ${inode} has nlink ${attributes.nlink} and ${mine.length} names`);
    }
    if (mine.length === 0) problems.push(`inode ${inode} has leaked: no name leads to it`);
  }
  for (const inode of records.hashKeys) {
    if (!records.inodes.has(inode)) problems.push(`the hash key of directory ${inode} has leaked`);
  }
}

function checkDirectory(
  { inode, nlink, entries, parent, flags }: Attributes,
  names: readonly Entry[],
  count: { entries: number; directories: number },
  isRoot: boolean,
  problems: string[],
): void {
  if (nlink !== 2 + count.directories) {
    problems.push(`directory ${inode} has nlink ${nlink} and ${count.directories} directories in it`);
  }
  if (entries !== count.entries) problems.push(`directory ${inode} counts ${entries} entries and has ${count.entries}`);
  if ((flags & inodeFlags.sealed) !== 0) problems.push(`directory ${inode} is sealed`);
  if (isRoot) {
    if (names.length > 0) problems.push(`root ${inode} has a name`);
    return;
  }
  if (names.length !== 1) problems.push(`directory ${inode} has ${names.length} names`);
  else if (names[0].dir !== parent) problems.push(`directory ${inode} lies in ${names[0].dir} and says ${parent}`);
}

function reachesRoot(from: Attributes, inodes: ReadonlyMap<number, Attributes>, roots: ReadonlySet<number>): boolean {
  const visited = new Set<number>();
  for (let at: Attributes | undefined = from; at !== undefined; at = inodes.get(at.parent)) {
    if (roots.has(at.inode)) return true;
    if (visited.has(at.inode)) return false;
    visited.add(at.inode);
  }
  return false;
}

/** Data, targets, attributes: each belongs to an inode that wants it, and lies where it should. */
function checkParts(records: Records, map: ClusterMap, problems: string[]): void {
  const { inodes } = records;
  const dataBlocks = new Map<number, number>();
  for (const { inode, chunk, shard, blocks } of records.chunks) {
    const file = inodes.get(inode);
    if (file === undefined || !isRegular(file.mode)) {
      problems.push(`chunk ${chunk} of inode ${inode} has leaked`);
      continue;
    }
    const home = chunk === 0 ? shardOf(inode) : chunkShard(inode, chunk, map.shards);
    if (home !== shard) problems.push(`chunk ${chunk} of inode ${inode} lies in shard ${shard}, not ${home}`);
    if (chunk > 0 && (file.flags & inodeFlags.far) === 0) {
      problems.push(`inode ${inode} does not know of its chunk ${chunk}`);
    }
    dataBlocks.set(inode, (dataBlocks.get(inode) ?? 0) + blocks);
  }
  for (const [inode] of records.inline) {
    const file = inodes.get(inode);
    if (file === undefined) problems.push(`inline data of inode ${inode} has leaked`);
    else if ((file.flags & inodeFlags.inline) === 0) problems.push(`inode ${inode} has inline data and does not know`);
  }
  for (const [inode, length] of records.targets) {
    if (inodes.get(inode)?.size !== length) problems.push(`the target of inode ${inode} has leaked or another length`);
  }
  for (const inode of records.xattrs.keys()) {
    if (!inodes.has(inode)) problems.push(`extended attributes of inode ${inode} have leaked`);
  }
  for (const [inode, file] of inodes) {
    if ((file.mode & S.IFMT) === S.IFLNK && !records.targets.has(inode)) {
      problems.push(`symbolic link ${inode} has no target`);
    }
    if (!isRegular(file.mode)) continue;
    const inline = records.inline.get(inode) ?? 0;
    if (inline > file.size) problems.push(`inode ${inode} has ${inline} bytes of inline data and size ${file.size}`);
    const units = (dataBlocks.get(inode) ?? 0) * granuleBytes / 512 +
      Math.ceil(inline / granuleBytes) * granuleBytes / 512;
    if (file.blocks !== units && (file.flags & inodeFlags.far) === 0) {
      problems.push(`inode ${inode} says ${file.blocks} blocks and has ${units}`);
    }
  }
}

/** What volumes are charged is what lies there. */
function checkUsage(stores: readonly StoredStore[], records: Records, map: ClusterMap, problems: string[]): void {
  const sums = new Map<string, { bytes: number; inodes: number }>();
  const add = (shard: number, volume: number, bytes: number, inodes: number) => {
    const key = `${shard}/${volume}`, sum = sums.get(key) ?? { bytes: 0, inodes: 0 };
    sum.bytes += bytes;
    sum.inodes += inodes;
    sums.set(key, sum);
  };
  for (const [inode, { volume }] of records.inodes) {
    add(shardOf(inode), volume, (records.inline.get(inode) ?? 0) + (records.targets.get(inode) ?? 0), 1);
  }
  for (const { shard, volume, blocks } of records.chunks) add(shard, volume, blocks * granuleBytes, 0);
  for (let shard = 0; shard < map.shards; shard++) {
    const id = primaryOf(map, shard), entry = map.servers.find((server) => server.id === id)!;
    const owner = stores.find((one) => one.serverId === id && one.store === storeOfShard(shard, entry.stores))!;
    for (const volume of map.volumes) {
      const is = owner.charged(shard, volume.id), has = sums.get(`${shard}/${volume.id}`) ?? { bytes: 0, inodes: 0 };
      if (is.bytes === has.bytes && is.inodes === has.inodes) continue;
      problems.push(
        `shard ${shard} charges volume ${volume.id} ${is.bytes} bytes, ${is.inodes} inodes; it has ${has.bytes}, ${has.inodes}`,
      );
    }
  }
}
