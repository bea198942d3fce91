/**
 * Tables of a check: everything that has to be remembered of a cluster's records until all have been seen, in typed
 * arrays, so that memory is about 124 bytes an inode, 17 a name and 18 a chunk, and none of it is the collector's work.
 *
 * @module
 */

import { mix32 } from "../placement/hash.ts";

/** What was seen of an inode: bits of {@linkcode InodeTable.seen}. */
export const seen = {
  /** The inode's own record. */
  inode: 1,
  hashKey: 2,
  data: 4,
  target: 8,
  xattr: 16,
  orphan: 32,
  mask: 64,
  /** Chunks > 0. */
  farChunk: 128,
  chunkZero: 256,
  floor: 512,
  /** Open in some session. */
  open: 1024,
  /** The inode's own record, but it cannot be read. */
  damaged: 2048,
  accessAcl: 4096,
  defaultAcl: 8192,
  /** An extended attribute security.capability. */
  capability: 16384,
  places: 32768,
} as const;

type Column = Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Uint8Array<ArrayBuffer>;

function larger<C extends Column>(column: C, length: number): C {
  const grown = new (column.constructor as new (length: number) => C)(length);
  grown.set(column);
  return grown;
}

const rowsFirst = 1024;

/** A row for each inode that any record speaks of; found by number. */
export class InodeTable {
  /** Rows in use. */
  count = 0;
  inode = new Float64Array(rowsFirst);
  seen = new Uint16Array(rowsFirst);
  // From the inode's record.
  type = new Uint8Array(rowsFirst);
  mode = new Uint16Array(rowsFirst);
  flags = new Uint8Array(rowsFirst);
  nlink = new Uint32Array(rowsFirst);
  entries = new Uint32Array(rowsFirst);
  volume = new Uint32Array(rowsFirst);
  version = new Float64Array(rowsFirst);
  parent = new Float64Array(rowsFirst);
  size = new Float64Array(rowsFirst);
  blocks = new Float64Array(rowsFirst);
  gen = new Float64Array(rowsFirst);
  // Counted.
  /** Names that lead here, names in this directory, and those of them that are of directories. */
  names = new Uint32Array(rowsFirst);
  ownNames = new Uint32Array(rowsFirst);
  ownDirectories = new Uint32Array(rowsFirst);
  inlineBytes = new Uint32Array(rowsFirst);
  targetBytes = new Uint32Array(rowsFirst);
  /** Permission bits that the access ACL stands for, plus one; 0 when there is none that can be read. */
  aclPermissions = new Uint16Array(rowsFirst);
  chunkBlocks = new Uint32Array(rowsFirst);
  /** Where the last granule of data ends. */
  dataEnd = new Float64Array(rowsFirst);
  /** Highest floor. */
  floor = new Float64Array(rowsFirst);
  #slots = new Uint32Array(4 * rowsFirst);

  /** The row of an inode, or -1. */
  find(inode: number): number {
    const slots = this.#slots, mask = slots.length - 1;
    for (let at = slotOf(inode) & mask;; at = (at + 1) & mask) {
      if (slots[at] === 0) return -1;
      if (this.inode[slots[at] - 1] === inode) return slots[at] - 1;
    }
  }

  /** The row of an inode, made if there is none: columns taken before may be of a shorter table then. */
  row(inode: number): number {
    const found = this.find(inode);
    if (found >= 0) return found;
    if (this.count === this.inode.length) this.#grow();
    const row = this.count++;
    this.inode[row] = inode;
    this.#enter(row);
    return row;
  }

  /** True when all of `bits` were seen. */
  has(row: number, bits: number): boolean {
    return (this.seen[row] & bits) === bits;
  }

  #enter(row: number): void {
    const slots = this.#slots, mask = slots.length - 1;
    let at = slotOf(this.inode[row]) & mask;
    while (slots[at] !== 0) at = (at + 1) & mask;
    slots[at] = row + 1;
  }

  #grow(): void {
    const length = 2 * this.inode.length;
    this.inode = larger(this.inode, length);
    this.seen = larger(this.seen, length);
    this.type = larger(this.type, length);
    this.mode = larger(this.mode, length);
    this.flags = larger(this.flags, length);
    this.nlink = larger(this.nlink, length);
    this.entries = larger(this.entries, length);
    this.volume = larger(this.volume, length);
    this.version = larger(this.version, length);
    this.parent = larger(this.parent, length);
    this.size = larger(this.size, length);
    this.blocks = larger(this.blocks, length);
    this.gen = larger(this.gen, length);
    this.names = larger(this.names, length);
    this.ownNames = larger(this.ownNames, length);
    this.ownDirectories = larger(this.ownDirectories, length);
    this.inlineBytes = larger(this.inlineBytes, length);
    this.targetBytes = larger(this.targetBytes, length);
    this.aclPermissions = larger(this.aclPermissions, length);
    this.chunkBlocks = larger(this.chunkBlocks, length);
    this.dataEnd = larger(this.dataEnd, length);
    this.floor = larger(this.floor, length);
    this.#slots = new Uint32Array(4 * length);
    for (let row = 0; row < this.count; row++) this.#enter(row);
  }
}

function slotOf(inode: number): number {
  return mix32((inode >>> 0) ^ mix32(Math.floor(inode / 4294967296) + 0x9e3779b9));
}

/** A row for each name. */
export class NameTable {
  count = 0;
  /** Rows of the directory and of the inode in the {@linkcode InodeTable}. */
  dir = new Uint32Array(rowsFirst);
  target = new Uint32Array(rowsFirst);
  /** hash48 * 32 + disambiguator. */
  place = new Float64Array(rowsFirst);
  /** What the entry says that the inode is (mode >> 12). */
  type = new Uint8Array(rowsFirst);

  add(name: { dir: number; target: number; place: number; type: number }): void {
    if (this.count === this.dir.length) this.#grow();
    const row = this.count++;
    this.dir[row] = name.dir;
    this.target[row] = name.target;
    this.place[row] = name.place;
    this.type[row] = name.type;
  }

  #grow(): void {
    const length = 2 * this.dir.length;
    this.dir = larger(this.dir, length);
    this.target = larger(this.target, length);
    this.place = larger(this.place, length);
    this.type = larger(this.type, length);
  }
}

/** A row for each chunk and for each floor: what of an inode may lie in other shards. */
export class PartTable {
  count = 0;
  /** Row of the inode in the {@linkcode InodeTable}. */
  owner = new Uint32Array(rowsFirst);
  shard = new Uint16Array(rowsFirst);
  /** Number of the chunk; {@linkcode floorPart} for a floor. */
  chunk = new Uint32Array(rowsFirst);
  volume = new Uint32Array(rowsFirst);
  /** Granules up to the last that has data, and those that take space. */
  granules = new Uint16Array(rowsFirst);
  blocks = new Uint16Array(rowsFirst);

  add(part: { owner: number; shard: number; chunk: number; volume: number; granules: number; blocks: number }): void {
    if (this.count === this.owner.length) this.#grow();
    const row = this.count++;
    this.owner[row] = part.owner;
    this.shard[row] = part.shard;
    this.chunk[row] = part.chunk;
    this.volume[row] = part.volume;
    this.granules[row] = part.granules;
    this.blocks[row] = part.blocks;
  }

  #grow(): void {
    const length = 2 * this.owner.length;
    this.owner = larger(this.owner, length);
    this.shard = larger(this.shard, length);
    this.chunk = larger(this.chunk, length);
    this.volume = larger(this.volume, length);
    this.granules = larger(this.granules, length);
    this.blocks = larger(this.blocks, length);
  }
}

/** `chunk` of a floor in a {@linkcode PartTable}. */
export const floorPart = 0xffffffff;

const pageBits = 1 << 15;

/** The blocks of one store: one bit each, in pages that exist where blocks are used. */
export class BlockSet {
  /** Blocks in the set. */
  size = 0;
  #pages = new Map<number, Uint32Array>();

  /** Adds a block; false when it was there. */
  add(block: number): boolean {
    const number = Math.floor(block / pageBits), bit = block % pageBits;
    let page = this.#pages.get(number);
    if (page === undefined) this.#pages.set(number, page = new Uint32Array(pageBits / 32));
    const mask = 1 << (bit & 31);
    if ((page[bit >>> 5] & mask) !== 0) return false;
    page[bit >>> 5] |= mask;
    this.size++;
    return true;
  }
}
