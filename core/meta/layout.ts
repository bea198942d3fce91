/**
 * Stored records, byte by byte. Keys are big-endian (so that they sort) and start with the shard, so that a shard is
 * one contiguous range of the image; values are little-endian and packed (core/protocol/codec.ts).
 *
 * Key = shard u16, kind u8, then:
 *
 * | kind | rest of the key                              | value |
 * | ---- | -------------------------------------------- | ----- |
 * | P    |                                              | {@linkcode shardState}: position, counters |
 * | V    | volume u32                                   | {@linkcode usage}: bytes and inodes charged to the volume in this shard |
 * | I    | inode u56                                    | {@linkcode attributes} without the inode number |
 * | K    | dir u56                                      | 16 bytes: SipHash key of a directory's names |
 * | E    | dir u56, hash u48, disambiguator u8          | {@linkcode dentry}: inode, type, name |
 * | D    | inode u56                                    | inline data of a small file, at most {@linkcode inlineBytesMax} |
 * | L    | inode u56                                    | target of a symbolic link |
 * | X    | inode u56, name (1..255 bytes)               | value of an extended attribute; ACLs too: core/meta/acl.ts |
 * | C    | inode u56, chunk u32                         | see core/data/chunk_record.ts |
 * | F    | inode u56                                    | floor: lowest gen a chunk write may carry, highest gen whose CUT is done (two f64) |
 * | O    | inode u56                                    | orphan: nothing links to it; u32 volume |
 * | M    | inode u56                                    | u64 mask (two u32) of servers written since the last fsync |
 * | W    | inode u56                                    | directories with names that no fsync has covered: core/meta/places.ts |
 * | N    | n u56                                        | driver's intent: core/meta/intent.ts |
 * | S    | driver shard u16, n u56, step u8             | outcome of an applied step: core/meta/intent.ts |
 * | R    | session u56, slot u16                        | {@linkcode replyRecord}: the last answer in that slot |
 * | A    | session u56 (shard 0xfffe only)              | one byte: the session has held opens or locks in this store |
 * | G    | volume u32, server u32, store u16                   | credit granted to a server (only in the shard of the volume's root) |
 *
 * Opens and locks are not stored: after a server's start the sessions claim them again (core/server/grace.ts).
 *
 * Shards 0xffff and 0xfffe hold what belongs to the store itself (store/store.ts).
 *
 * @module
 */

import {
  bytes,
  type Codec,
  DecodeError,
  encodeSmall,
  Reader,
  shortBytes,
  smallBytes,
  struct,
  time,
  u16,
  u32,
  u53,
  u8,
} from "../protocol/codec.ts";
import type { Attributes } from "./attributes.ts";

/** Layout version of keys and values; a store of another version is refused. */
export const layoutVersion = 1;
/** Regular files up to this size live in the image. */
export const inlineBytesMax = 4096;
/** Longest name (NAME_MAX). */
export const nameBytesMax = 255;
/** Longest symbolic link target (PATH_MAX - 1). */
export const targetBytesMax = 4095;
/** Longest extended attribute value (XATTR_SIZE_MAX). */
export const xattrBytesMax = 65536;
/** Shard number that no shard has: the store's own keys. */
export const storeShard = 0xffff;
/** Shard number of records that stay with the store when shards move (kind A). */
export const localShard = 0xfffe;
/** Bits of an inode number below the shard. */
export const sequenceLimit = 2 ** 41;
/** Sequences of volume roots start here: 2^40 + volume id. Ordinary ones stay below. */
export const rootSequence = 2 ** 40;
/** Largest regular file, 8 TiB: chunk numbers fit u32 and offsets a double exactly. */
export const fileBytesMax = 2 ** 43;

/** Most names a file can have. */
export const linksMax = 2 ** 31 - 1;

/** Kinds of keys: the ASCII letters of the table above. */
export const kind = {
  shard: 0x50,
  usage: 0x56,
  inode: 0x49,
  hashKey: 0x4b,
  dentry: 0x45,
  data: 0x44,
  symlink: 0x4c,
  xattr: 0x58,
  chunk: 0x43,
  floor: 0x46,
  orphan: 0x4f,
  mask: 0x4d,
  intent: 0x4e,
  step: 0x53,
  reply: 0x52,
  credit: 0x47,
  session: 0x41,
  places: 0x57,
} as const;

/** Shard of an inode number. */
export function shardOf(inode: number): number {
  return Math.floor(inode / sequenceLimit);
}

/** Inode number from its parts. */
export function inodeNumber(shard: number, sequence: number): number {
  return shard * sequenceLimit + sequence;
}

/** A key under construction: `new Key(shard, kind.dentry).u56(dir).u48(hash).u8(disc).done()`. */
export class Key {
  #bytes: Uint8Array;
  #length = 3;

  constructor(shard: number, keyKind: number, capacityBytes = 32) {
    this.#bytes = smallBytes(capacityBytes);
    this.#bytes[0] = shard >>> 8;
    this.#bytes[1] = shard;
    this.#bytes[2] = keyKind;
  }

  u8(value: number): this {
    this.#bytes[this.#length++] = value;
    return this;
  }

  u16(value: number): this {
    return this.u8(value >>> 8).u8(value & 0xff);
  }

  u32(value: number): this {
    return this.u16(value >>> 16).u16(value & 0xffff);
  }

  u48(value: number): this {
    return this.u16(Math.floor(value / 4294967296)).u32(value >>> 0);
  }

  u56(value: number): this {
    return this.u8(Math.floor(value / 2 ** 48)).u48(value % 2 ** 48);
  }

  raw(value: Uint8Array): this {
    if (this.#length + value.length > this.#bytes.length) {
      const grown = smallBytes(this.#length + value.length);
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  done(): Uint8Array {
    return this.#length === this.#bytes.length ? this.#bytes : this.#bytes.subarray(0, this.#length);
  }
}

/** A key of `length` bytes that begins with the shard, the kind and an inode number: the ten bytes most keys share. */
function keyOf(length: number, shard: number, keyKind: number, inode: number): Uint8Array {
  const key = smallBytes(length), high = Math.floor(inode / 4294967296), low = inode >>> 0;
  key[0] = shard >>> 8;
  key[1] = shard;
  key[2] = keyKind;
  key[3] = high >>> 16;
  key[4] = high >>> 8;
  key[5] = high;
  key[6] = low >>> 24;
  key[7] = low >>> 16;
  key[8] = low >>> 8;
  key[9] = low;
  return key;
}

/** Reads an unsigned big-endian number of `count` (<= 7) bytes out of a key. */
export function keyNumber(key: Uint8Array, at: number, count: number): number {
  let value = 0;
  for (let i = 0; i < count; i++) value = value * 256 + key[at + i];
  return value;
}

/** The key after every key that starts with `prefix`. */
export function after(prefix: Uint8Array): Uint8Array {
  const end = prefix.slice();
  for (let i = end.length - 1; i >= 0; i--) {
    if (end[i] < 255) {
      end[i]++;
      return end.subarray(0, i + 1);
    }
  }
  return new Uint8Array(end.length + 1).fill(255);
}

/** Key of an inode-scoped record without further parts (I, K, D, L, F, O, M, W), or the prefix of one with. */
export function inodeKey(shard: number, keyKind: number, inode: number): Uint8Array {
  return keyOf(10, shard, keyKind, inode);
}

/** Key of a dentry. */
export function dentryKey(dir: number, hash48: number, disc: number): Uint8Array {
  const key = keyOf(17, shardOf(dir), kind.dentry, dir), high = Math.floor(hash48 / 4294967296), low = hash48 >>> 0;
  key[10] = high >>> 8;
  key[11] = high;
  key[12] = low >>> 24;
  key[13] = low >>> 16;
  key[14] = low >>> 8;
  key[15] = low;
  key[16] = disc;
  return key;
}

/** Key of a chunk, on the shard that holds it. */
export function chunkKey(shard: number, inode: number, chunk: number): Uint8Array {
  const key = keyOf(14, shard, kind.chunk, inode);
  key[10] = chunk >>> 24;
  key[11] = chunk >>> 16;
  key[12] = chunk >>> 8;
  key[13] = chunk;
  return key;
}

/** Key of a session's slot in a shard. */
export function replyKey(shard: number, session: number, slot: number): Uint8Array {
  const key = keyOf(12, shard, kind.reply, session);
  key[10] = slot >>> 8;
  key[11] = slot;
  return key;
}

/** Key of an extended attribute. */
export function xattrKey(inode: number, name: Uint8Array): Uint8Array {
  return new Key(shardOf(inode), kind.xattr, 10 + name.length).u56(inode).raw(name).done();
}

/**
 * Value of I: 120 bytes, mode, nlink, uid, gid, rdev, flags u32; size, blocks u53; atime, mtime, ctime, btime (a time
 * each); version, gen u53; volume u32; parent u53; entries u32. The inode number is in the key. Written out, since nearly
 * every request reads and writes some: a table of fields takes five times as long.
 */
export const attributes: Codec<Omit<Attributes, "inode">> = {
  write(w, v) {
    w.u32(v.mode);
    w.u32(v.nlink);
    w.u32(v.uid);
    w.u32(v.gid);
    w.u32(v.rdev);
    w.u32(v.flags);
    w.u53(v.size);
    w.u53(v.blocks);
    time.write(w, v.atime);
    time.write(w, v.mtime);
    time.write(w, v.ctime);
    time.write(w, v.btime);
    w.u53(v.version);
    w.u53(v.gen);
    w.u32(v.volume);
    w.u53(v.parent);
    w.u32(v.entries);
  },
  read: (r) => readAttributes(r, 0),
};

/** Attributes of `inode`, as {@linkcode attributes} writes them. */
export function readAttributes(r: Reader, inode: number): Attributes {
  return {
    inode,
    mode: r.u32(),
    nlink: r.u32(),
    uid: r.u32(),
    gid: r.u32(),
    rdev: r.u32(),
    flags: r.u32(),
    size: r.u53(),
    blocks: r.u53(),
    atime: time.read(r),
    mtime: time.read(r),
    ctime: time.read(r),
    btime: time.read(r),
    version: r.u53(),
    gen: r.u53(),
    volume: r.u32(),
    parent: r.u53(),
    entries: r.u32(),
  };
}

/** Value of E. `type` is mode >> 12 (DT_*). */
export const dentry = struct({ inode: u53, type: u8, name: shortBytes });
/** A dentry as stored. */
export type Dentry = { inode: number; type: number; name: Uint8Array };

/** Value of P. */
export const shardState = struct({
  /** Position of the last record this image holds. */
  position: u53,
  /** Next inode sequence and intent number to give out. */
  nextSequence: u53,
  nextIntent: u53,
});

/** Value of V. */
export const usage = struct({ bytes: u53, inodes: u53 });

/** Value of R: the request's sequence number, then the reply's type, status and body. */
export const replyRecord = struct({ sequence: u53, type: u16, status: u32, body: bytes });

/** Encodes attributes for the image. */
export function encodeAttributes(value: Attributes): Uint8Array {
  return encodeSmall(attributes, value);
}

/** Decodes attributes of inode `inode` from the image. Throws {@linkcode DecodeError} on a record of another length. */
export function decodeAttributes(inode: number, value: Uint8Array): Attributes {
  const reader = new Reader(value), decoded = readAttributes(reader, inode);
  if (reader.at !== value.length) throw new DecodeError(`inode ${inode}: ${value.length - reader.at} bytes too many`);
  return decoded;
}
