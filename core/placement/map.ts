/**
 * The cluster map: who serves which shard, which volumes and sessions exist. Made by the manager, versioned by epoch,
 * known to everyone. A shard's list starts with its primary; backups follow.
 *
 * @module
 */

import { array, bool, decode, encode, struct, text, u16, u32, u53, u8 } from "../protocol/codec.ts";
import { inodeNumber, rootSequence } from "../meta/layout.ts";
import { mixNumbers, rootShard } from "./hash.ts";

/** Most shards a cluster can have: 12 bits of the inode number. */
export const shardsMax = 4096;

/** State of a server as the manager sees it. */
export const serverState = { up: 1, down: 2, joining: 3 } as const;
/** State of a volume. */
export const volumeState = { live: 1, deleting: 2 } as const;

const server = struct({ id: u32, address: text, stores: u16, weight: u32, state: u8 });
const volume = struct({ id: u32, name: text, sizeBytes: u53, state: u8, readOnly: bool });
const map = struct({
  epoch: u32,
  clusterId: text,
  shards: u16,
  replicas: u8,
  servers: array(server, 4096),
  /** For each shard the ids of its servers, primary first. Empty while the cluster has no servers. */
  owners: array(array(u32, 3), shardsMax),
  volumes: array(volume, 65536),
  /** Every session with a number up to this was given out; those not in `sessions` are dead. */
  sessionHorizon: u53,
  sessions: array(u53, 65536),
});

/** A server in the map. */
export type ServerEntry = { id: number; address: string; stores: number; weight: number; state: number };
/** A volume in the map. */
export type VolumeEntry = { id: number; name: string; sizeBytes: number; state: number; readOnly: boolean };

/** The map as data. */
export interface ClusterMap {
  epoch: number;
  clusterId: string;
  shards: number;
  replicas: number;
  servers: ServerEntry[];
  owners: number[][];
  volumes: VolumeEntry[];
  sessionHorizon: number;
  sessions: number[];
}

/** Bytes of a map. */
export function encodeMap(value: ClusterMap): Uint8Array {
  return encode(map, value);
}

/** Map of bytes; throws DecodeError. */
export function decodeMap(bytes: Uint8Array): ClusterMap {
  return decode(map, bytes) as ClusterMap;
}

/** Which store of a server holds a shard: fixed by the store count the server was formatted with. */
export function storeOfShard(shard: number, stores: number): number {
  return shard % stores;
}

/** The first id in a shard's list, or 0 when nobody serves it. */
export function primaryOf(value: ClusterMap, shard: number): number {
  return value.owners[shard]?.[0] ?? 0;
}

/** Inode number of a volume's root directory. */
export function rootInode(volumeId: number, shards: number): number {
  return inodeNumber(rootShard(volumeId, shards), rootSequence + volumeId);
}

/** Inodes a volume may have: one for each so many bytes of its size, but not fewer than some. */
const bytesPerInode = 1024, inodesMin = 1024;

/** Most inodes of a volume of a size. */
export function inodeBudget(sizeBytes: number): number {
  return Math.max(inodesMin, Math.floor(sizeBytes / bytesPerInode));
}

/** True when the session was given out and is not alive any more. */
export function sessionIsDead(value: ClusterMap, session: number): boolean {
  return session <= value.sessionHorizon && !value.sessions.includes(session);
}

/**
 * Servers of a shard, best first, by weighted rendezvous hashing: score = -weight / ln(u), u uniform in (0,1) from
 * hash(shard, server) (Thaler and Ravishankar 1998; weighted by Mosharaf et al.). A server that joins or leaves moves
 * only its own share.
 */
export function rank(shard: number, servers: readonly { id: number; weight: number }[]): number[] {
  return servers
    .filter((s) => s.weight > 0)
    .map((s) => ({ id: s.id, score: -s.weight / Math.log((mixNumbers(shard, s.id) + 0.5) / 4294967296) }))
    .sort((a, b) => b.score - a.score || a.id - b.id)
    .map((s) => s.id);
}
