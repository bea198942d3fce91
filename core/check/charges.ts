/**
 * What volumes are charged against what there is of them, and the credit of servers.
 *
 * @module
 */

import { shardOf } from "../meta/layout.ts";
import { rootShard } from "../placement/hash.ts";
import { volumeState } from "../placement/map.ts";
import type { Repair } from "./finding.ts";
import type { Observed } from "./observed.ts";
import { seen } from "./tables.ts";

/** Adds what is wrong to `all`. Shards whose charges cannot be compared are left out. */
export function judgeCharges(all: Observed): void {
  judgeUsage(all);
  judgeCredit(all);
  judgeOverdraft(all);
}

function judgeUsage(all: Observed): void {
  const { charged } = all;
  for (const [shard, sums] of sumsOf(all)) {
    const list = charged.get(shard);
    if (list === null || list === undefined) continue;
    const said = new Map(list.map((one) => [one.volume, one]));
    for (const volume of new Set([...sums.keys(), ...said.keys()])) {
      if (all.volumeState(volume) !== volumeState.live) continue;
      const has = sums.get(volume) ?? { bytes: 0, inodes: 0 }, says = said.get(volume) ?? { bytes: 0, inodes: 0 };
      const bytesDelta = has.bytes - says.bytes, inodesDelta = has.inodes - says.inodes;
      if (bytesDelta === 0 && inodesDelta === 0) continue;
      const text = `shard ${shard} charges volume ${volume} ${says.bytes} bytes and ${says.inodes} inodes, ` +
        `it has ${has.bytes} and ${has.inodes}`;
      const repair: Repair = { do: "charge", shard, volume, bytesDelta, inodesDelta };
      all.add({ kind: "usage", severity: "warning", shard, text, repair });
    }
  }
}

/** What there is, by shard and volume. */
function sumsOf(all: Observed): Map<number, Map<number, { bytes: number; inodes: number }>> {
  const { charged, chunkBytes } = all, { count, inode, volume, inlineBytes, targetBytes } = all.inodes;
  const sums = new Map<number, Map<number, { bytes: number; inodes: number }>>();
  for (const shard of charged.keys()) sums.set(shard, new Map());
  const add = (shard: number, id: number, bytes: number, inodes: number) => {
    const ofShard = sums.get(shard), sum = ofShard?.get(id);
    if (sum === undefined) ofShard?.set(id, { bytes, inodes });
    else {
      sum.bytes += bytes;
      sum.inodes += inodes;
    }
  };
  for (const [shard, byVolume] of chunkBytes) for (const [id, bytes] of byVolume) add(shard, id, bytes, 0);
  for (let row = 0; row < count; row++) {
    if (!all.inodes.has(row, seen.inode)) continue;
    add(shardOf(inode[row]), volume[row], inlineBytes[row] + targetBytes[row], 1);
  }
  return sums;
}

function judgeCredit(all: Observed): void {
  const { credits, map } = all;
  for (const { shard, key, volume, server } of credits) {
    if (all.volumeState(volume) === volumeState.deleting) continue;
    const drop: Repair = { do: "dropRecord", key };
    const add = (text: string) => {
      all.add({ kind: "credit", severity: "note", shard, text, repair: drop });
    };
    if (all.volumeState(volume) === undefined) {
      add(`credit of server ${server} with volume ${volume}, which does not exist`);
    } else if (rootShard(volume, map.shards) !== shard) {
      add(`credit with volume ${volume} in shard ${shard}, which does not hold its root`);
    } else if (!map.servers.some((one) => one.id === server)) {
      add(`credit with volume ${volume} of server ${server}, which does not exist`);
    }
  }
}

/** A store that uses more than it was given; it asks anew when it wants more. */
function judgeOverdraft(all: Observed): void {
  const { credits, facts, charged, map } = all, used = new Map<string, { bytes: number; inodes: number }>();
  for (const [shard, list] of charged) {
    const { server, store } = facts.get(shard)!;
    for (const { volume, bytes, inodes } of list ?? []) {
      const key = `${server}/${store}/${volume}`, sum = used.get(key) ?? { bytes: 0, inodes: 0 };
      used.set(key, { bytes: sum.bytes + bytes, inodes: sum.inodes + inodes });
    }
  }
  for (const { shard, volume, server, store, given } of credits) {
    const sum = used.get(`${server}/${store}/${volume}`), live = map.volumes.some((one) => one.id === volume);
    // The root of a volume comes into being without credit.
    if (sum === undefined || !live || (sum.bytes <= given.bytes && sum.inodes <= given.inodes + 1)) continue;
    const text = `server ${server} store ${store} uses ${sum.bytes} bytes and ${sum.inodes} inodes of volume ` +
      `${volume}, its credit is ${given.bytes} and ${given.inodes}`;
    all.add({ kind: "credit", severity: "note", shard, text });
  }
}
