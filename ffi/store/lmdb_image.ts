/**
 * The image of a store in LMDB (npm:lmdb), inside one write transaction that stays open from commit to commit: reads
 * and writes go through it, so they cost a tree walk and not a transaction.
 *
 * The transaction is kept open with what lmdb offers for asynchronous callbacks of `transactionSync`: the callback
 * returns a thenable of ours, and calling what lmdb gave to it commits, synchronously. Commits end with fdatasync.
 *
 * Space is reserved in the file ahead of the highest page in use, so that a commit cannot fail for a full disk: when no
 * more can be reserved the image says that it is full, and growing operations are refused before anything is lost.
 *
 * @module
 */

import { ABORT, open, type RootDatabase } from "lmdb";
import type { Image } from "../../core/runtime.ts";
import { cstr, errno, FALLOC, libc, O } from "../libc.ts";

/** Most bytes an image may have: address space, not disk. */
export const imageBytesMax = 2 ** 38;
/** Reserved on disk ahead of the highest page in use. */
const reserveBytes = 64 * 1024 * 1024;
/** With less than this reserved ahead, the image is full. */
const reserveBytesMin = 16 * 1024 * 1024;
const EIO = 5;

/** The part of lmdb's statistics that is used. */
interface Statistics {
  lastPageNumber: number;
  pageSize: number;
}

/** See the module's comment. */
export class LmdbImage implements Image {
  readonly #db: RootDatabase<Uint8Array, Uint8Array>;
  readonly #fd: number;
  #finish: ((value?: unknown) => void) | null = null;
  #usedBytes = 0;
  #reservedBytes = 0;
  #putBytes = 0;

  /** Opens or makes the image in file `path`. Throws when it cannot. */
  constructor(path: string) {
    // The types leave out what lmdb documents for environments: one commit, flushed, before anybody goes on.
    const options = {
      path,
      noSubdir: true,
      encoding: "binary",
      keyEncoding: "binary",
      mapSize: imageBytesMax,
      overlappingSync: false,
      eventTurnBatching: false,
      cache: false,
      compression: false,
      noReadAhead: true,
    } as const;
    this.#db = open(options as unknown as Parameters<typeof open>[0]) as RootDatabase<Uint8Array, Uint8Array>;
    this.#fd = libc.open(cstr(path), O.RDWR | O.CLOEXEC, 0);
    if (this.#fd < 0) throw new Error(`cannot open ${path}: errno ${errno()}`);
    this.#reservedBytes = Deno.statSync(path).blocks! * 512;
    this.#begin();
    this.#measure();
  }

  get(key: Uint8Array): Uint8Array | undefined {
    const found = this.#db.getBinaryFast(key as never) as (Uint8Array & { length: number }) | undefined;
    if (found === undefined) return undefined;
    return plain(found);
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.#putBytes += key.length + value.length;
    this.#db.putSync(key as never, value as never);
  }

  remove(key: Uint8Array): void {
    this.#putBytes += key.length;
    this.#db.removeSync(key as never);
  }

  scan(from: Uint8Array, to: Uint8Array, visit: (key: Uint8Array, value: Uint8Array) => boolean): void {
    for (const { key, value } of this.#db.getRange({ start: from as never, end: to as never })) {
      if (!visit(plain(key as unknown as Uint8Array), plain(value))) return;
    }
  }

  commit(): number {
    const finish = this.#finish;
    if (finish === null) return EIO;
    this.#finish = null;
    try {
      finish();
      this.#begin();
      this.#measure();
    } catch {
      return EIO;
    }
    return 0;
  }

  usage(): { usedBytes: number; limitBytes: number } {
    // Between commits pages are copied: twice the bytes put is a safe guess of what they take.
    const usedBytes = this.#usedBytes + 2 * this.#putBytes;
    const full = this.#reservedBytes - usedBytes < reserveBytesMin && !this.#reserve(usedBytes);
    return { usedBytes, limitBytes: full ? usedBytes : imageBytesMax };
  }

  /** True when nothing was ever put. */
  get empty(): boolean {
    for (const _ of this.#db.getKeys({ limit: 1 })) return false;
    return true;
  }

  /** Drops what was not committed, and closes. */
  async close(): Promise<void> {
    this.#finish?.(ABORT);
    this.#finish = null;
    libc.close(this.#fd);
    await this.#db.close();
  }

  #begin(): void {
    this.#db.transactionSync(() => ({
      // lmdb commits when it is told that this "promise" has its value.
      then: (resolve: (value?: unknown) => void) => {
        this.#finish = resolve;
        return undefined;
      },
    }));
    if (this.#finish === null) throw new Error("lmdb did not hand out its transaction");
  }

  #measure(): void {
    const env = (this.#db as unknown as { env: { info(): Statistics; stat(): Statistics } }).env;
    this.#usedBytes = (env.info().lastPageNumber + 1) * env.stat().pageSize;
    this.#putBytes = 0;
    if (this.#reservedBytes - this.#usedBytes < reserveBytes / 2) this.#reserve(this.#usedBytes);
  }

  /** Makes sure that the pages after `usedBytes` have room on the disk. */
  #reserve(usedBytes: number): boolean {
    const target = usedBytes + reserveBytes;
    if (libc.fallocate64(this.#fd, FALLOC.KEEP_SIZE, 0n, BigInt(target)) !== 0) return false;
    this.#reservedBytes = target;
    return true;
  }
}

/** The bytes of a Buffer as a Uint8Array: a Buffer's slice() would be a view where everyone expects a copy. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}
