/**
 * Hashes that place things. They are part of the stored format: changing one moves everything.
 *
 * @module
 */

import { crc32 } from "node:zlib";

/** 32-bit finaliser of MurmurHash3 (Appleby, public domain): every input bit moves every output bit. */
export function mix32(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Mixes whole numbers below 2^53 into 32 bits; order matters. */
export function mixNumbers(...values: number[]): number {
  let h = 0x5ea1f5;
  for (const value of values) {
    h = mix32(h ^ (value >>> 0));
    h = mix32(h + 0x9e3779b9 ^ Math.floor(value / 4294967296));
  }
  return h;
}

/** Shard of a new directory: spreads directories over all servers. */
export function directoryShard(parent: number, name: Uint8Array, shards: number): number {
  return mixNumbers(parent, crc32(name), name.length) % shards;
}

/** Shard of chunk `chunk` > 0 of a file (chunk 0 lives with the inode). */
export function chunkShard(inode: number, chunk: number, shards: number): number {
  return mixNumbers(inode, chunk) % shards;
}

/** Shard of a volume's root directory. */
export function rootShard(volume: number, shards: number): number {
  return mixNumbers(0x766f6c, volume) % shards;
}
