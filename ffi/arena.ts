/**
 * The memory that the kernel and the wire touch: one mapping per reactor, seen through typed arrays, with a pool of
 * buffers in size classes. Addresses are plain arithmetic, and no garbage collector moves or frees anything.
 *
 * The mapping is reserved at its full limit and filled by the kernel page by page as it is used, so growing costs
 * nothing and every view lies in one ArrayBuffer. Buffers come back dirty. Used from one thread only.
 *
 * @module
 */

import { libc, MADV, MAP, mapMemory } from "./libc.ts";

/** Granule of the pool: buffers start on a page, as O_DIRECT and the FUSE payload need. */
export const pageBytes = 4096;

/** Size classes of pool buffers. The largest holds a frame of 1 MiB of data with all headers. */
export const classBytes: readonly number[] = [
  4096,
  8192,
  16384,
  32768,
  65536,
  131072,
  262144,
  524288,
  1048576,
  1048576 + 131072,
];

/** Largest buffer that {@linkcode Arena.allocate} gives. */
export const bufferBytesMax: number = classBytes[classBytes.length - 1];

/** Address space an arena reserves when nothing else is asked. Only touched pages cost memory. */
export const arenaBytesDefault = 1 << 30;

/** Small classes are cut from spans of this size, so that they do not scatter over the arena. */
const spanBytes = 1 << 20;

/** Freed buffers of 512 KiB and more keep their pages only while fewer than this many bytes of them lie idle. */
const idleBytesMax = 64 << 20;
const idleClassFrom = 7;

/** A mapping with a buffer pool in it. */
export class Arena {
  /** Address of byte 0. */
  readonly base: number;
  /** The whole arena. A buffer or reservation at `offset` is `u8.subarray(offset, ...)`. */
  readonly u8: Uint8Array<ArrayBuffer>;
  /** The whole arena as 16-bit words: index = offset / 2. */
  readonly u16: Uint16Array<ArrayBuffer>;
  /** The whole arena as 32-bit words: index = offset / 4. */
  readonly u32: Uint32Array<ArrayBuffer>;
  /** The whole arena as signed 32-bit words: index = offset / 4. */
  readonly i32: Int32Array<ArrayBuffer>;
  /** Bytes in pool buffers that are handed out now. */
  usedBytes = 0;
  #top = 0;
  #idleBytes = 0;
  // For each page: class + 1 where a buffer in use starts, otherwise 0.
  readonly #classAt: Uint8Array;
  readonly #free: number[][] = classBytes.map(() => []);

  /** Reserves `limitBytes` (a multiple of 4096, below 4 GiB). Throws when the kernel refuses. */
  constructor(readonly limitBytes: number = arenaBytesDefault) {
    if (limitBytes % pageBytes !== 0 || limitBytes <= 0 || limitBytes >= 2 ** 32) {
      throw new RangeError(`arena of ${limitBytes} bytes: not a multiple of ${pageBytes} below 4 GiB`);
    }
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    const memory = mapMemory("the buffer arena", { sizeBytes: limitBytes, flags, fd: -1, offset: 0 });
    this.base = memory.address;
    this.u8 = new Uint8Array(memory.buffer);
    this.u16 = new Uint16Array(memory.buffer);
    this.u32 = new Uint32Array(memory.buffer);
    this.i32 = new Int32Array(memory.buffer);
    this.#classAt = new Uint8Array(limitBytes / pageBytes);
  }

  /** Claims zeroed memory for good and returns its offset. `align` is a power of two. Throws when the arena is full. */
  reserve(bytes: number, align: number = 64): number {
    const offset = (this.#top + align - 1) & -align;
    // The masks above are 32-bit: compare as unsigned.
    const at = offset >>> 0;
    if (at + bytes > this.limitBytes) throw new RangeError(`arena of ${this.limitBytes} bytes is full`);
    this.#top = at + bytes;
    return at;
  }

  /** A page-aligned buffer of exactly `bytes` bytes (at most `bufferBytesMax`), or null when the arena is full. */
  allocate(bytes: number): Uint8Array<ArrayBuffer> | null {
    const offset = this.take(bytes);
    return offset < 0 ? null : this.u8.subarray(offset, offset + bytes);
  }

  /** Gives back a buffer of {@linkcode allocate}: any view that starts where it started. Throws on a foreign view. */
  release(view: Uint8Array): void {
    if (view.buffer !== this.u8.buffer) throw new Error("released a buffer of another arena");
    this.drop(view.byteOffset);
  }

  /** As {@linkcode allocate} without making a view: the offset, or -1. The room is the whole class: {@linkcode room}. */
  take(bytes: number): number {
    const kind = classOf(bytes);
    const free = this.#free[kind];
    let offset: number;
    if (free.length > 0) {
      offset = free.pop()!;
      if (kind >= idleClassFrom) this.#idleBytes -= classBytes[kind];
    } else {
      offset = this.#carve(kind);
      if (offset < 0) return -1;
    }
    this.#classAt[offset / pageBytes] = kind + 1;
    this.usedBytes += classBytes[kind];
    return offset;
  }

  /** Gives back a buffer of {@linkcode take}. Throws when no buffer in use starts at `offset`. */
  drop(offset: number): void {
    const page = offset / pageBytes;
    const kind = this.#classAt[page] - 1;
    if (!(kind >= 0)) throw new Error(`released no buffer, or one twice, at arena offset ${offset}`);
    this.#classAt[page] = 0;
    const bytes = classBytes[kind];
    this.usedBytes -= bytes;
    this.#free[kind].push(offset);
    if (kind < idleClassFrom) return;
    this.#idleBytes += bytes;
    // A burst of large buffers must not stay resident for ever.
    if (this.#idleBytes > idleBytesMax) libc.madvise(BigInt(this.base + offset), BigInt(bytes), MADV.DONTNEED);
  }

  /** Bytes of the buffer in use that starts at `offset`. */
  room(offset: number): number {
    return classBytes[this.#classAt[offset / pageBytes] - 1];
  }

  /** True when `view` lies in this arena, so that the kernel may be given its address. */
  owns(view: Uint8Array): boolean {
    return view.buffer === this.u8.buffer;
  }

  /** Address of the first byte of a view over this arena. Throws on a foreign view. */
  addressOf(view: Uint8Array): number {
    if (view.buffer !== this.u8.buffer) throw new Error("address of a view outside the arena");
    return this.base + view.byteOffset;
  }

  /** Returns all pages to the kernel. The mapping stays, so that a late view reads zeros instead of crashing. */
  discard(): void {
    libc.madvise(BigInt(this.base), BigInt(this.limitBytes), MADV.DONTNEED);
  }

  #carve(kind: number): number {
    const bytes = classBytes[kind];
    const at = Math.ceil(this.#top / pageBytes) * pageBytes;
    const span = bytes < spanBytes / 2 ? spanBytes : bytes;
    const end = Math.min(at + span, this.limitBytes);
    if (at + bytes > end) return -1;
    let next = at + bytes;
    const free = this.#free[kind];
    for (; next + bytes <= end; next += bytes) free.push(next);
    this.#top = next;
    // Lowest offsets first: they are the ones touched already.
    if (free.length > 1) free.reverse();
    return at;
  }
}

function classOf(bytes: number): number {
  if (bytes > bufferBytesMax) throw new RangeError(`buffer of ${bytes} bytes: at most ${bufferBytesMax}`);
  if (bytes > 1048576) return 9;
  return bytes <= 4096 ? 0 : 20 - Math.clz32(bytes - 1);
}
