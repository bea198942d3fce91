/**
 * The image of a store in LMDB (npm:lmdb), read and written through one write transaction that stays open from commit
 * to commit: a put costs half a microsecond and only `commit` touches the disk, with a real fdatasync.
 *
 * A transaction is held open by giving lmdb's `transactionSync` a thenable that we resolve when it is time to commit:
 * all of it is synchronous, as a reactor needs. Disk space is reserved ahead of use, so that a full disk is seen by
 * {@linkcode LmdbImage.usage} before a commit could fail from it.
 *
 * @module
 */

import * as lmdb from "lmdb";
import type { Image, LogLevel } from "../../core/runtime.ts";
import { E } from "../../core/errno.ts";
import { smallBytes } from "../../core/protocol/codec.ts";
import { ValueCache } from "./value_cache.ts";
import { checked, closeFd, cstr, errnoText, FALLOC, libc, O, systemError } from "../libc.ts";

const { ABORT, open } = lmdb;

/** A cursor of lmdb's native part, in the open transaction. */
interface Cursor {
  address: number;
  close(): void;
}

/** What lmdb's native part offers for cursors (read.js of lmdb 3.5.6). Each answers the length of the key it is at now. */
interface Native {
  Cursor: new (database: unknown, transaction: number) => Cursor;
  position(cursor: number, flags: number, offset: number, keyBytes: number, endAddress: number): number;
  iterate(cursor: number): number;
}
/** A database with the handle that its native part knows it by. */
type Database = lmdb.RootDatabase<Uint8Array, Uint8Array> & { db: unknown };
const native = (lmdb as unknown as { nativeAddon: Native }).nativeAddon;
/** Where the native part puts the key that a cursor is at; the length of its value is at the beginning. */
const cursorKeyAt = 32;
/** Flag of `position` that asks for values, too. */
const withValues = 0x100;

/** Address space of the map, and so the most that the image can hold. */
export const imageBytesMax = 256 * 1024 ** 3;
/** Disk space reserved beyond what is used; also the step. */
const reserveBytes = 32 * 1024 * 1024;
/** Values up to this size are handed out through views that are made once. */
const viewBytesMax = 4096;
/** Largest value: core/store/record.ts agrees. */
const valueBytesMax = 1024 * 1024;

/** The part of lmdb's statistics that is used. */
interface Statistics {
  pageSize: number;
  treeBranchPageCount: number;
  treeLeafPageCount: number;
  overflowPages: number;
  lastPageNumber: number;
}

/** What lmdb's fast reads give: one buffer for all values, whose `length` it overrides, with its true length beside. */
type SharedBuffer = Uint8Array<ArrayBuffer> & { maxLength: number };

/** A value on its way into lmdb: bytes [start, end) of the buffer. */
type StagedValue = Uint8Array<ArrayBuffer> & { start: number; end: number };

/** Images of this thread whose transaction is open. */
const openImages = new Set<LmdbImage>();

/**
 * Drops the open transactions of this thread. A Worker calls it when it ends, however it ends: lmdb's destructor would
 * wait for ever for the lock that an open transaction holds. The main thread's own end is taken care of.
 */
export function abandonImages(): void {
  for (const image of openImages) image.abandon();
}

addEventListener("unload", abandonImages);

/** How an image is opened. */
export interface ImageOptions {
  /** Folder of data.mdb and lock.mdb; it exists. */
  folder: string;
  limitBytes?: number;
  log: (level: LogLevel, component: string, message: string) => void;
}

/** One a store; one an environment in this process. */
export class LmdbImage implements Image {
  readonly #database: Database;
  readonly #options: ImageOptions;
  readonly #limitBytes: number;
  readonly #fd: number;
  readonly #staging: StagedValue;
  readonly #cache = new ValueCache();
  #views: (Uint8Array | undefined)[] = [];
  #viewed: ArrayBuffer | null = null;
  /** Ends the open transaction: commits it, or drops it when called with ABORT. */
  #end: ((how?: unknown) => unknown) | null = null;
  #reservedBytes = 0;
  #diskFull = false;
  #usedBytes = 0;
  /** The buffer through which reads and cursors get keys, and cursors give them. */
  #keys: Uint8Array | null = null;
  #cursor: Cursor | null = null;

  /** Opens or makes the database. Throws an Error that names the folder. */
  constructor(options: ImageOptions) {
    this.#options = options;
    this.#limitBytes = options.limitBytes ?? imageBytesMax;
    try {
      this.#database = open({
        path: options.folder,
        noSubdir: false,
        mapSize: this.#limitBytes,
        maxDbs: 1,
        maxReaders: 8,
        encoding: "binary",
        keyEncoder: {
          writeKey: (key: Uint8Array, target: Uint8Array, start: number) => {
            this.#keys ??= new Uint8Array(target.buffer, target.byteOffset, target.length);
            target.set(key, start);
            return start + key.length;
          },
          readKey: (source: Uint8Array, start: number, end: number) => source.slice(start, end),
        },
        cache: false,
        compression: false,
        // Commits end with their own fdatasync instead of one that some thread does later.
        overlappingSync: false,
      } as lmdb.RootDatabaseOptionsWithPath) as Database;
    } catch (error) {
      throw new Error(
        `cannot open the database in ${options.folder}: ${error instanceof Error ? error.message : error}`,
      );
    }
    this.#staging = Object.assign(new Uint8Array(valueBytesMax), { start: 0, end: 0 });
    this.#fd = libc.open(cstr(`${options.folder}/data.mdb`), O.RDWR | O.CLOEXEC, 0);
    if (this.#fd < 0) throw systemError("open", `${options.folder}/data.mdb`);
    this.#begin();
    // The first key that is encoded is one to read: it tells where they go.
    this.#database.getBinaryFast(new Uint8Array(1));
    this.#measure();
  }

  get(key: Uint8Array): Uint8Array | undefined {
    const known = this.#cache.get(key);
    if (known !== null) return known;
    const shared = this.#database.getBinaryFast(key) as SharedBuffer | undefined;
    const value = shared === undefined ? undefined : this.#view(shared);
    this.#cache.set(key, value);
    return value;
  }

  put(key: Uint8Array, value: Uint8Array): void {
    const staging = this.#staging;
    staging.set(value);
    staging.end = value.length;
    this.#database.put(key, staging);
    this.#cache.set(key, value);
  }

  remove(key: Uint8Array): void {
    this.#database.remove(key);
    this.#cache.set(key, undefined);
  }

  /**
   * Goes by one cursor for all scans of a transaction: a range of lmdb's makes one each, whose memory is given back by
   * the event loop, and a reactor hardly ever returns to that.
   */
  scan(from: Uint8Array, to: Uint8Array, visit: (key: Uint8Array, value: Uint8Array) => boolean): void {
    if (this.#end === null) return;
    const keys = this.#keys!, { address } = this.#cursor ??= new native.Cursor(this.#database.db, 0);
    keys.set(from);
    let values: SharedBuffer | undefined, all: Uint8Array | undefined;
    let length = native.position(address, withValues, 0, from.length, 0);
    for (; length > 0; length = native.iterate(address)) {
      const valueLength = keys[0] | keys[1] << 8 | keys[2] << 16 | keys[3] << 24;
      const key = copyOf(keys, cursorKeyAt, length);
      if (compareBytes(key, to) >= 0) return;
      // The first get tells where values come: there all that fit have been copied to by the cursor.
      if (values === undefined || valueLength > values.maxLength) {
        values = this.#database.getBinaryFast(key) as unknown as SharedBuffer;
        all = new Uint8Array(values.buffer, values.byteOffset, Math.max(values.maxLength, valueLength));
      }
      if (!visit(key, copyOf(all!, 0, valueLength))) return;
    }
    if (length < 0) throw new Error(`lmdb cursor: ${length}`);
  }

  commit(): number {
    const end = this.#end;
    if (end === null) return E.IO;
    this.#end = null;
    this.#closeCursor();
    try {
      end();
      this.#begin();
    } catch (error) {
      this.#options.log("error", "store", `database commit: ${error instanceof Error ? error.message : error}`);
      return E.IO;
    }
    this.#measure();
    return 0;
  }

  usage(): { usedBytes: number; limitBytes: number } {
    return { usedBytes: this.#usedBytes, limitBytes: this.#diskFull ? this.#reservedBytes : this.#limitBytes };
  }

  /** Drops what was not committed and closes the database. */
  close(): void {
    this.abandon();
    closeFd(this.#fd);
    // Nothing is left to do in the background: the promise settles with nobody to wait for it.
    this.#database.close().catch(() => {});
  }

  /** Drops what was not committed; nothing may be called afterwards but `close`. */
  abandon(): void {
    openImages.delete(this);
    if (this.#end !== null) this.#closeCursor();
    this.#end?.(ABORT);
    this.#end = null;
  }

  #closeCursor(): void {
    this.#cursor?.close();
    this.#cursor = null;
  }

  /** Opens the next transaction and leaves it open. */
  #begin(): void {
    // lmdb takes what the callback returns for a promise and ends the transaction when it settles.
    this.#database.transactionSync(() => ({
      then: (settled: (how?: unknown) => unknown) => void (this.#end = settled),
    }));
    if (this.#end === null) throw new Error("lmdb did not leave its transaction open");
    openImages.add(this);
  }

  /** A view of the `length` bytes that lmdb says are the value. */
  #view(shared: SharedBuffer): Uint8Array {
    const length = shared.length, buffer = shared.buffer;
    if (length > viewBytesMax) return new Uint8Array(buffer, shared.byteOffset, length);
    if (buffer !== this.#viewed) {
      this.#viewed = buffer;
      this.#views = [];
    }
    return this.#views[length] ??= new Uint8Array(buffer, shared.byteOffset, length);
  }

  /** Counts pages in use and keeps the reserve ahead of them. */
  #measure(): void {
    const statistics = this.#database.getStats() as Statistics, { pageSize } = statistics;
    const pages = statistics.treeBranchPageCount + statistics.treeLeafPageCount + statistics.overflowPages;
    this.#usedBytes = pages * pageSize;
    const endBytes = (statistics.lastPageNumber + 1) * pageSize;
    if (endBytes + reserveBytes <= this.#reservedBytes) return;
    const wanted = Math.min(this.#limitBytes, Math.ceil(endBytes / reserveBytes + 1) * reserveBytes);
    const errno = checked(libc.fallocate64(this.#fd, FALLOC.KEEP_SIZE, 0n, BigInt(wanted)));
    if (errno < 0 && -errno !== E.NOSPC && -errno !== E.OPNOTSUPP) {
      this.#options.log("warn", "store", `cannot reserve disk space for the database: ${errnoText(errno)}`);
    }
    this.#diskFull = -errno === E.NOSPC;
    if (errno >= 0) this.#reservedBytes = wanted;
    else this.#reservedBytes = Math.max(this.#reservedBytes, endBytes);
  }
}

function copyOf(from: Uint8Array, at: number, length: number): Uint8Array {
  const copy = smallBytes(length);
  copy.set(from.subarray(at, at + length));
  return copy;
}

/** Below 0, 0 or above 0, as memcmp(3) and then the length say. */
function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}
