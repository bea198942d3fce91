/**
 * The log of a store as preallocated files, one a segment. Appending is one pwrite into allocated space: it cannot fail
 * for a full disk. The page cache keeps what was written over a kill of the process; `sync` is fdatasync.
 *
 * @module
 */

import { join } from "@std/path";
import type { IoResult, LogFile } from "../../core/runtime.ts";
import { Future } from "../../core/task.ts";
import { cstr, errno, libc, O } from "../libc.ts";
import type { Reactor } from "../reactor.ts";

const EIO = 5;

/** See the module's comment. */
export class LogFiles implements LogFile {
  readonly #reactor: Reactor;
  readonly #folder: string;
  #fd = -1;
  #offset = 0;
  /** A new file's name has to be made durable with it. */
  #folderDirty = false;
  /** Files that were left while something in them was not synced. */
  #left: number[] = [];

  /** The segments lie in `folder`, which exists. */
  constructor(reactor: Reactor, folder: string) {
    this.#reactor = reactor;
    this.#folder = folder;
  }

  segments(): number[] {
    const numbers: number[] = [];
    for (const entry of Deno.readDirSync(this.#folder)) {
      const match = entry.name.match(/^(\d{12})\.log$/);
      if (match !== null) numbers.push(Number(match[1]));
    }
    return numbers.sort((a, b) => a - b);
  }

  read(segment: number): Uint8Array {
    return Deno.readFileSync(this.#path(segment));
  }

  create(segment: number, bytes: number): number {
    const fd = libc.open(cstr(this.#path(segment)), O.RDWR | O.CREAT | O.EXCL | O.CLOEXEC, 0o600);
    if (fd < 0) return errno();
    if (libc.fallocate64(fd, 0, 0n, BigInt(bytes)) !== 0) {
      const failure = errno();
      libc.close(fd);
      Deno.removeSync(this.#path(segment));
      return failure;
    }
    this.#leave();
    this.#fd = fd;
    this.#offset = 0;
    this.#folderDirty = true;
    return 0;
  }

  resume(segment: number, offset: number): number {
    const path = this.#path(segment), fd = libc.open(cstr(path), O.RDWR | O.CLOEXEC, 0);
    if (fd < 0) return errno();
    const bytes = Deno.statSync(path).size;
    // Cutting and growing again leaves zeros behind `offset`.
    if (
      libc.ftruncate64(fd, BigInt(offset)) !== 0 || libc.fallocate64(fd, 0, 0n, BigInt(Math.max(bytes, offset))) !== 0
    ) {
      const failure = errno();
      libc.close(fd);
      return failure;
    }
    this.#leave();
    this.#fd = fd;
    this.#offset = offset;
    return 0;
  }

  write(bytes: Uint8Array): number {
    for (let done = 0; done < bytes.length;) {
      const part = done === 0 ? bytes : bytes.subarray(done);
      const count = libc.pwriteBuffer(
        this.#fd,
        part as Uint8Array<ArrayBuffer>,
        BigInt(part.length),
        BigInt(this.#offset),
      );
      if (count <= 0) return count === 0 ? EIO : errno();
      done += count;
      this.#offset += count;
    }
    return 0;
  }

  sync(): Future<IoResult> {
    const done = new Future<IoResult>();
    const folder = this.#syncFolder() || this.#syncLeft();
    if (folder !== 0) {
      done.resolve(folder);
      return done;
    }
    this.#reactor.fdatasync(this.#fd).listen((res) => done.resolve(res < 0 ? -res : 0));
    return done;
  }

  syncNow(): IoResult {
    const before = this.#syncFolder() || this.#syncLeft();
    if (before !== 0) return before;
    return this.#fd < 0 || libc.fdatasync(this.#fd) === 0 ? 0 : errno();
  }

  remove(segment: number): void {
    Deno.removeSync(this.#path(segment));
  }

  /** Closes the files. Nothing is synced. */
  close(): void {
    for (const fd of this.#left) libc.close(fd);
    if (this.#fd >= 0) libc.close(this.#fd);
    this.#left = [];
    this.#fd = -1;
  }

  #path(segment: number): string {
    return join(this.#folder, `${String(segment).padStart(12, "0")}.log`);
  }

  #leave(): void {
    if (this.#fd >= 0) this.#left.push(this.#fd);
  }

  #syncLeft(): number {
    while (this.#left.length > 0) {
      if (libc.fdatasync(this.#left[0]) !== 0) return errno();
      libc.close(this.#left.shift()!);
    }
    return 0;
  }

  #syncFolder(): number {
    if (!this.#folderDirty) return 0;
    const fd = libc.open(cstr(this.#folder), O.RDONLY | O.CLOEXEC, 0);
    if (fd < 0) return errno();
    const failure = libc.fsync(fd) === 0 ? 0 : errno();
    libc.close(fd);
    this.#folderDirty = failure !== 0;
    return failure;
  }
}
