/**
 * Binary encoding of messages and records: little-endian, fixed order, no padding, described once by a {@linkcode Codec}
 * so that writer, reader and type cannot differ. Reading checks every bound: hostile bytes give a {@linkcode DecodeError},
 * never a read outside the frame and never an allocation larger than the frame.
 *
 * @module
 */

/** Malformed bytes. Caught where frames and records enter; the message says what was wrong. */
export class DecodeError extends Error {
  override name = "DecodeError";
}

const f64 = new Float64Array(1);
const f64Bytes = new Uint8Array(f64.buffer);

/** Memory of small values is taken in pieces of this size. */
const slabBytes = 64 * 1024;
/** A piece with less room than this is left. */
const slabRoomMin = 1024;
const none = new Uint8Array(0);

/** Appends to a growing buffer. Reuse one: `reset()` keeps the memory. */
export class Writer {
  bytes: Uint8Array;
  length = 0;

  constructor(capacityBytes = 1024) {
    this.bytes = new Uint8Array(capacityBytes);
  }

  reset(): this {
    this.length = 0;
    return this;
  }

  /** Makes room for `count` bytes and returns the offset where they start. */
  reserve(count: number): number {
    const at = this.length, end = at + count;
    if (end > this.bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.bytes.length * 2));
      grown.set(this.bytes.subarray(0, at));
      this.bytes = grown;
    }
    this.length = end;
    return at;
  }

  u8(value: number): void {
    // Not in one expression: `reserve` may replace `bytes`.
    const at = this.reserve(1);
    this.bytes[at] = value;
  }

  u16(value: number): void {
    const at = this.reserve(2), b = this.bytes;
    b[at] = value;
    b[at + 1] = value >>> 8;
  }

  u32(value: number): void {
    const at = this.reserve(4);
    this.setU32(at, value);
  }

  setU32(at: number, value: number): void {
    const b = this.bytes;
    b[at] = value;
    b[at + 1] = value >>> 8;
    b[at + 2] = value >>> 16;
    b[at + 3] = value >>> 24;
  }

  /** A whole number 0..2^53-1 in 8 bytes. */
  u53(value: number): void {
    const at = this.reserve(8);
    this.setU32(at, value);
    this.setU32(at + 4, Math.floor(value / 4294967296));
  }

  /** A whole number 0..2^63-1 in 8 bytes. */
  u63(value: bigint): void {
    const at = this.reserve(8);
    this.setU32(at, Number(value & 0xffffffffn));
    this.setU32(at + 4, Number(value >> 32n));
  }

  f64(value: number): void {
    const at = this.reserve(8), b = this.bytes;
    f64[0] = value;
    for (let i = 0; i < 8; i++) b[at + i] = f64Bytes[i];
  }

  raw(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.bytes.set(bytes, at);
  }

  /** What was written, as a view that the next reset reuses. */
  view(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  /** What was written, copied. */
  copy(): Uint8Array {
    return this.bytes.slice(0, this.length);
  }
}

let slab = new Writer(slabBytes);

/** The piece that small values come from now. Every array with memory of its own costs more than to fill it. */
function smallWriter(): Writer {
  if (slabBytes - slab.length < slabRoomMin) slab = new Writer(slabBytes);
  return slab;
}

/**
 * `length` bytes for what is soon forgotten, zeros: they share their memory with others, all of which lives as long as
 * any of it.
 */
export function smallBytes(length: number): Uint8Array {
  if (length > slabRoomMin) return new Uint8Array(length);
  const writer = smallWriter(), start = writer.reserve(length);
  return writer.bytes.subarray(start, start + length);
}

/** Reads what a {@linkcode Writer} wrote; throws {@linkcode DecodeError} at the first byte that is missing. */
export class Reader {
  at: number;
  end: number;

  constructor(readonly bytes: Uint8Array, start = 0, end = bytes.length) {
    this.at = start;
    this.end = end;
  }

  take(count: number): number {
    const at = this.at;
    if (count > this.end - at) throw new DecodeError(`${count} bytes expected at ${at}, ${this.end - at} left`);
    this.at = at + count;
    return at;
  }

  u8(): number {
    return this.bytes[this.take(1)];
  }

  u16(): number {
    const at = this.take(2), b = this.bytes;
    return b[at] | b[at + 1] << 8;
  }

  u32(): number {
    const at = this.take(4), b = this.bytes;
    return (b[at] | b[at + 1] << 8 | b[at + 2] << 16 | b[at + 3] << 24) >>> 0;
  }

  u53(): number {
    const low = this.u32(), high = this.u32();
    if (high >= 0x200000) throw new DecodeError("number above 2^53");
    return high * 4294967296 + low;
  }

  u63(): bigint {
    const low = this.u32(), high = this.u32();
    if (high >= 0x80000000) throw new DecodeError("number above 2^63");
    return BigInt(high) << 32n | BigInt(low);
  }

  f64(): number {
    const at = this.take(8), b = this.bytes;
    for (let i = 0; i < 8; i++) f64Bytes[i] = b[at + i];
    return f64[0];
  }

  /** A copy of the next `count` bytes. */
  raw(count: number): Uint8Array {
    const at = this.take(count);
    return this.bytes.slice(at, at + count);
  }

  /** As {@linkcode raw}, in memory of {@linkcode smallBytes}. */
  small(count: number): Uint8Array {
    if (count === 0) return none;
    const at = this.take(count), copy = smallBytes(count), from = this.bytes;
    for (let i = 0; i < count; i++) copy[i] = from[at + i];
    return copy;
  }

  /** Throws unless everything was read. */
  finish(): void {
    if (this.at !== this.end) throw new DecodeError(`${this.end - this.at} bytes left over`);
  }
}

/** How values of one type are written and read. */
export interface Codec<T> {
  write(writer: Writer, value: T): void;
  read(reader: Reader): T;
}

/** The type a codec carries. */
export type Of<C> = C extends Codec<infer T> ? T : never;

/** 0..255. */
export const u8: Codec<number> = { write: (w, v) => w.u8(v), read: (r) => r.u8() };
/** 0..65535. */
export const u16: Codec<number> = { write: (w, v) => w.u16(v), read: (r) => r.u16() };
/** 0..2^32-1. */
export const u32: Codec<number> = { write: (w, v) => w.u32(v), read: (r) => r.u32() };
/** Whole number 0..2^53-1, 8 bytes. */
export const u53: Codec<number> = { write: (w, v) => w.u53(v), read: (r) => r.u53() };
/** Whole number 0..2^63-1, 8 bytes: for what the kernel counts further than files can be. */
export const u63: Codec<bigint> = { write: (w, v) => w.u63(v), read: (r) => r.u63() };
/** A double. */
export const double: Codec<number> = { write: (w, v) => w.f64(v), read: (r) => r.f64() };
/** One byte, 0 or 1. */
export const bool: Codec<boolean> = {
  write: (w, v) => w.u8(v ? 1 : 0),
  read: (r) => {
    const v = r.u8();
    if (v > 1) throw new DecodeError(`boolean ${v}`);
    return v === 1;
  },
};
/** u32 length, bytes. Reading copies. */
export const bytes: Codec<Uint8Array> = {
  write: (w, v) => {
    w.u32(v.length);
    w.raw(v);
  },
  read: (r) => r.raw(r.u32()),
};
/** u16 length, bytes: names and other short things. Reading copies. */
export const shortBytes: Codec<Uint8Array> = {
  write: (w, v) => {
    w.u16(v.length);
    w.raw(v);
  },
  read: (r) => r.small(r.u16()),
};

const encoder = new TextEncoder(), decoder = new TextDecoder("utf-8", { fatal: true });

/** UTF-8 text with a u16 length in bytes. */
export const text: Codec<string> = {
  write: (w, v) => shortBytes.write(w, encoder.encode(v)),
  read: (r) => {
    try {
      return decoder.decode(shortBytes.read(r));
    } catch (error) {
      if (error instanceof DecodeError) throw error;
      throw new DecodeError("text is not UTF-8");
    }
  },
};

/** A moment: seconds as a double (they may be negative), nanoseconds u32. 12 bytes. */
export const time: Codec<{ sec: number; nsec: number }> = {
  write: (w, v) => {
    w.f64(v.sec);
    w.u32(v.nsec);
  },
  read: (r) => {
    const sec = r.f64(), nsec = r.u32();
    if (!Number.isSafeInteger(sec) || nsec > 999_999_999) throw new DecodeError("not a time");
    return { sec, nsec };
  },
};

/** u32 count (at most `max`), items. */
export function array<T>(item: Codec<T>, max = 65536): Codec<T[]> {
  return {
    write: (w, v) => {
      if (v.length > max) throw new RangeError(`array of ${v.length}, at most ${max}`);
      w.u32(v.length);
      for (const one of v) item.write(w, one);
    },
    read: (r) => {
      const count = r.u32();
      if (count > max || count > r.end - r.at) throw new DecodeError(`array of ${count}`);
      const items: T[] = [];
      for (let i = 0; i < count; i++) items.push(item.read(r));
      return items;
    },
  };
}

/** A byte 0 or 1, then the value if 1. */
export function optional<T>(item: Codec<T>): Codec<T | null> {
  return {
    write: (w, v) => {
      w.u8(v === null ? 0 : 1);
      if (v !== null) item.write(w, v);
    },
    read: (r) => bool.read(r) ? item.read(r) : null,
  };
}

/** Fields in the order in which they are given. */
// deno-lint-ignore no-explicit-any
export function struct<F extends Record<string, Codec<any>>>(fields: F): Codec<{ [K in keyof F]: Of<F[K]> }> {
  const names = Object.keys(fields);
  const codecs = names.map((name) => fields[name]);
  type Value = { [K in keyof F]: Of<F[K]> };
  return {
    write: (w, v) => {
      for (let i = 0; i < names.length; i++) codecs[i].write(w, v[names[i]]);
    },
    read: (r) => {
      const value: Record<string, unknown> = {};
      for (let i = 0; i < names.length; i++) value[names[i]] = codecs[i].read(r);
      return value as Value;
    },
  };
}

/** Encodes one value alone. */
export function encode<T>(codec: Codec<T>, value: T): Uint8Array {
  const writer = new Writer(128);
  codec.write(writer, value);
  return writer.copy();
}

/** As {@linkcode encode}, for what is soon forgotten: see {@linkcode smallBytes}. */
export function encodeSmall<T>(codec: Codec<T>, value: T): Uint8Array {
  const writer = smallWriter(), start = writer.length;
  codec.write(writer, value);
  return writer.bytes.subarray(start, writer.length);
}

/** Decodes one value that must fill `bytes` exactly; throws {@linkcode DecodeError}. */
export function decode<T>(codec: Codec<T>, source: Uint8Array): T {
  const reader = new Reader(source);
  const value = codec.read(reader);
  reader.finish();
  return value;
}
