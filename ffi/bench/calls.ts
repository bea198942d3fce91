/**
 * The system calls of a bench worker, as a program in C makes them: a call costs some 10 ns more. A failure throws one
 * line that names the call and the path.
 *
 * @module
 */

import { type Bytes, errno, errnoText, O } from "../libc.ts";

const libc = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "u64"], result: "i32" },
  write: { parameters: ["i32", "buffer", "u64"], result: "i32" },
  pread64: { parameters: ["i32", "buffer", "u64", "i64"], result: "i32" },
  pwrite64: { parameters: ["i32", "buffer", "u64", "i64"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  posix_fadvise64: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  stat: { parameters: ["buffer", "buffer"], result: "i32" },
  rename: { parameters: ["buffer", "buffer"], result: "i32" },
  unlink: { parameters: ["buffer"], result: "i32" },
  getdents64: { parameters: ["i32", "buffer", "u64"], result: "i32" },
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
}).symbols;

const clockMonotonic = 1;
const adviseDontNeed = 4;
const statBytes = 144;
const EINTR = 4;

/** Paths of the files of one directory: `FOLDER/PREFIX` and a number of eight digits, in one buffer that is written anew. */
export class Names {
  readonly #bytes: Bytes;
  readonly #digitsAt: number;

  constructor(folder: string, prefix: string) {
    this.#bytes = new TextEncoder().encode(`${folder}/${prefix}00000000\0`);
    this.#digitsAt = this.#bytes.length - 9;
  }

  /** The path of a file, valid until the next call. */
  of(number: number): Bytes {
    const bytes = this.#bytes;
    for (let at = this.#digitsAt + 7, rest = number; at >= this.#digitsAt; at--) {
      const tens = Math.floor(rest / 10);
      bytes[at] = 48 + rest - tens * 10;
      rest = tens;
    }
    return bytes;
  }
}

/** The text of a path that ends with NUL. */
function textOf(path: Bytes): string {
  return new TextDecoder().decode(path.subarray(0, -1));
}

function fail(what: string, path: Bytes | string): never {
  throw new Error(`cannot ${what} ${typeof path === "string" ? path : textOf(path)}: ${errnoText(errno())}`);
}

/** See the module's comment. One a thread. */
export class Calls {
  readonly #stat = new Uint8Array(statBytes);
  readonly #time = new Float64Array(2);
  readonly #timeWords = new Uint32Array(this.#time.buffer);
  readonly #entries = new Uint8Array(32768);

  /** Milliseconds on the machine's monotonic clock. */
  nowMs(): number {
    libc.clock_gettime(clockMonotonic, this.#time);
    const words = this.#timeWords;
    return (words[0] + words[1] * 4294967296) * 1000 + words[2] / 1e6;
  }

  /** Opens with flags of {@linkcode O}; the descriptor. */
  open(path: Bytes, flags: number): number {
    const fd = libc.open(path, flags | O.CLOEXEC, 0o644);
    return fd < 0 ? fail((flags & O.CREAT) !== 0 ? "create" : "open", path) : fd;
  }

  close(fd: number, path: Bytes): void {
    if (libc.close(fd) < 0) fail("close", path);
  }

  stat(path: Bytes): void {
    if (libc.stat(path, this.#stat) < 0) fail("stat", path);
  }

  rename(from: Bytes, to: Bytes): void {
    if (libc.rename(from, to) < 0) fail("rename", from);
  }

  unlink(path: Bytes): void {
    if (libc.unlink(path) < 0) fail("remove", path);
  }

  /** Writes all of `bytes` where the descriptor is. */
  write(fd: number, bytes: Bytes, path: Bytes): void {
    for (let rest = bytes; rest.length > 0;) {
      const count = libc.write(fd, rest, BigInt(rest.length));
      if (count < 0 && errno() !== EINTR) fail("write", path);
      rest = rest.subarray(Math.max(0, count));
    }
  }

  /** Reads until `into` is full; a shorter file is an error. */
  read(fd: number, into: Bytes, path: Bytes): void {
    for (let rest = into; rest.length > 0;) {
      const count = libc.read(fd, rest, BigInt(rest.length));
      if (count < 0 && errno() !== EINTR) fail("read", path);
      if (count === 0) throw new Error(`${textOf(path)} is shorter than what was written to it`);
      rest = rest.subarray(Math.max(0, count));
    }
  }

  /** Writes `bytes` at `offset`, in one call. */
  writeAt(fd: number, bytes: Bytes, offset: number, path: Bytes): void {
    const count = libc.pwrite64(fd, bytes, BigInt(bytes.length), BigInt(offset));
    if (count !== bytes.length) fail("write", path);
  }

  /** Fills `into` from `offset`, in one call. */
  readAt(fd: number, into: Bytes, offset: number, path: Bytes): void {
    const count = libc.pread64(fd, into, BigInt(into.length), BigInt(offset));
    if (count !== into.length) fail("read", path);
  }

  fsync(fd: number, path: Bytes): void {
    if (libc.fsync(fd) < 0) fail("sync", path);
  }

  /** Asks the kernel to forget the pages of a file, which are clean. */
  forgetPages(fd: number): void {
    libc.posix_fadvise64(fd, 0n, 0n, adviseDontNeed);
  }

  /** Entries of a directory, but for "." and "..". */
  list(path: Bytes): number {
    const fd = this.open(path, O.RDONLY | O.DIRECTORY), bytes = this.#entries;
    let entries = -2;
    for (;;) {
      const length = libc.getdents64(fd, bytes, BigInt(bytes.length));
      if (length < 0) fail("list", path);
      if (length === 0) break;
      // struct linux_dirent64: d_reclen lies behind d_ino and d_off.
      for (let at = 0; at < length; at += bytes[at + 16] + bytes[at + 17] * 256) entries++;
    }
    this.close(fd, path);
    return entries;
  }
}
