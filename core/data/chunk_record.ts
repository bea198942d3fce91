/**
 * The record of a chunk (kind C of core/meta/layout.ts): where its granules lie in the container and what their bytes
 * sum to. Little-endian:
 *
 * | at     | size | field |
 * | ------ | ---- | ----- |
 * | 0      | 4    | volume u32 |
 * | 4      | 8    | gen u53: the highest gen that wrote to the chunk |
 * | 12     | 8 n  | for each granule up to the last that is no hole: block u32 (0: a hole), crc32 u32 of its 4096 bytes |
 *
 * A granule whose block is 2^32-1 has room and no bytes: it reads as zeros, counts as space that is taken, and the write
 * that fills it takes no more. Its crc is 0.
 *
 * A chunk without data has no record. Bytes of a granule behind the end of the file are zero.
 *
 * @module
 */

import { DecodeError } from "../protocol/codec.ts";

/** Bytes of a granule: the unit of allocation and of checksums. One block of the container. */
export const granuleBytes = 4096;
/** Most granules in a chunk: chunks are at most 1 MiB. */
export const granulesMax = 256;
/** Largest chunk. */
export const chunkBytesMax = granuleBytes * granulesMax;
/** Bytes before the granules. */
export const chunkHeadBytes = 12;
/** Bytes a granule takes in the record. */
export const granuleEntryBytes = 8;

/** Block of a granule that has room and no bytes (fallocate). */
export const roomBlock = 0xffffffff;

/** True for a block of the container: neither a hole nor {@linkcode roomBlock}. */
export function isBlock(block: number): boolean {
  return block !== 0 && block !== roomBlock;
}

/** A chunk's record. `granules` holds block, crc of each granule in turn; two numbers a granule. */
export interface ChunkRecord {
  volume: number;
  gen: number;
  granules: Uint32Array;
}

/** Decodes a record into memory of its own; throws {@linkcode DecodeError}. */
export function decodeChunk(value: Uint8Array): ChunkRecord {
  const body = value.length - chunkHeadBytes;
  if (body < 0 || body % granuleEntryBytes !== 0 || body > granulesMax * granuleEntryBytes) {
    throw new DecodeError(`chunk record of ${value.length} bytes`);
  }
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  const genHigh = view.getUint32(8, true);
  if (genHigh >= 0x200000) throw new DecodeError("gen above 2^53");
  const granules = new Uint32Array(body / 4);
  for (let i = 0; i < granules.length; i++) granules[i] = view.getUint32(chunkHeadBytes + 4 * i, true);
  return { volume: view.getUint32(0, true), gen: genHigh * 4294967296 + view.getUint32(4, true), granules };
}

/** Encodes granules `first`..`end` alone, as they stand in the record. */
export function encodeGranules(granules: Uint32Array, first: number, end: number): Uint8Array {
  const bytes = new Uint8Array((end - first) * granuleEntryBytes);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 2 * (end - first); i++) view.setUint32(4 * i, granules[2 * first + i], true);
  return bytes;
}

/** Encodes the volume and gen of a record. */
export function encodeChunkHead(volume: number, gen: number): Uint8Array {
  const bytes = new Uint8Array(chunkHeadBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, volume, true);
  view.setUint32(4, gen % 4294967296, true);
  view.setUint32(8, Math.floor(gen / 4294967296), true);
  return bytes;
}

/** Encodes a whole record. */
export function encodeChunk(record: ChunkRecord): Uint8Array {
  const granules = encodeGranules(record.granules, 0, record.granules.length / 2);
  const bytes = new Uint8Array(chunkHeadBytes + granules.length);
  bytes.set(encodeChunkHead(record.volume, record.gen));
  bytes.set(granules, chunkHeadBytes);
  return bytes;
}

/** Granules of a stored record that take space: those with a block and those with room for one. */
export function blocksOf(value: Uint8Array): number {
  let count = 0;
  for (let at = chunkHeadBytes; at + granuleEntryBytes <= value.length; at += granuleEntryBytes) {
    if (blockAt(value, at) !== 0) count++;
  }
  return count;
}

/**
 * Calls `visit` with each granule that differs between two stored records (absent = empty). A block may be 0, a hole, or
 * {@linkcode roomBlock}.
 */
export function diffChunks(
  old: Uint8Array | undefined,
  value: Uint8Array | undefined,
  visit: (oldBlock: number, newBlock: number, newCrc: number) => void,
): void {
  const oldEnd = old?.length ?? 0, newEnd = value?.length ?? 0, end = Math.max(oldEnd, newEnd);
  for (let at = chunkHeadBytes; at < end; at += granuleEntryBytes) {
    const oldBlock = at < oldEnd ? blockAt(old!, at) : 0, newBlock = at < newEnd ? blockAt(value!, at) : 0;
    if (oldBlock !== newBlock) visit(oldBlock, newBlock, isBlock(newBlock) ? blockAt(value!, at + 4) : 0);
  }
}

/** As {@linkcode diffChunks} for a logged patch: the new blocks of the container that it names. Throws {@linkcode DecodeError} on one across granules. */
export function diffChunkPatch(
  patch: { offset: number; replaced: Uint8Array; bytes: Uint8Array },
  visit: (oldBlock: number, newBlock: number, newCrc: number) => void,
): void {
  const { offset, replaced, bytes } = patch;
  if (offset + bytes.length <= chunkHeadBytes) return;
  if (
    offset < chunkHeadBytes || (offset - chunkHeadBytes) % granuleEntryBytes !== 0 ||
    bytes.length % granuleEntryBytes !== 0
  ) {
    throw new DecodeError("patch of a chunk record across granules");
  }
  const overwritten = Math.min(replaced.length, bytes.length);
  for (let at = 0; at < bytes.length; at += granuleEntryBytes) {
    const oldBlock = at + granuleEntryBytes <= overwritten ? blockAt(replaced, at) : 0, newBlock = blockAt(bytes, at);
    if (isBlock(newBlock) && newBlock !== oldBlock) visit(oldBlock, newBlock, blockAt(bytes, at + 4));
  }
}

function blockAt(value: Uint8Array, at: number): number {
  return (value[at] | value[at + 1] << 8 | value[at + 2] << 16 | value[at + 3] << 24) >>> 0;
}
