/**
 * `load.ts FOLDER FILES MEBIBYTES`: measures one folder by one process with plain system calls, and prints a line of JSON
 * ({@linkcode Figures}). Paths and buffers are made before the clock starts, and a call costs some 10 ns more than in C:
 * what is measured is the file system.
 *
 * @module
 */

import { errno, errnoText, O } from "../ffi/libc.ts";

/** What one run found. Rates are per second. */
export interface Figures {
  /** open(O_CREAT | O_EXCL), write 4 KiB, close. */
  create: number;
  /** stat by path. */
  stat: number;
  /** fstat of an open file. */
  fstat: number;
  /** open, read 4 KiB, close. */
  read: number;
  /** unlink. */
  unlink: number;
  /** MiB/s of writing one file in pieces of 1 MiB, and closing it. */
  writeMib: number;
  /** MiB/s of reading it in pieces of 1 MiB, caches dropped. */
  readMib: number;
  /** Reads of 4 KiB at random places of it, caches dropped. */
  randomRead: number;
}

const fileBytes = 4096;
const pieceBytes = 1 << 20;
const statBytes = 144;
/** Files of a round nobody measures: code and caches get warm. */
const warmFiles = 200;
const randomReads = 2_000;

const calls = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "u64"], result: "i32" },
  write: { parameters: ["i32", "buffer", "u64"], result: "i32" },
  pread64: { parameters: ["i32", "buffer", "u64", "i64"], result: "i32" },
  stat: { parameters: ["buffer", "buffer"], result: "i32" },
  fstat: { parameters: ["i32", "buffer"], result: "i32" },
  sync: { parameters: [], result: "void" },
  unlink: { parameters: ["buffer"], result: "i32" },
}).symbols;

function must(what: string, value: number, expected?: number): number {
  if (value < 0) throw new Error(`${what}: ${errnoText(errno())}`);
  if (expected !== undefined && value !== expected) throw new Error(`${what}: ${value} of ${expected} bytes`);
  return value;
}

/** Times `count` calls of `body`; calls a second. */
function rate(count: number, body: (number: number) => void): number {
  const start = performance.now();
  for (let number = 0; number < count; number++) body(number);
  return count * 1000 / (performance.now() - start);
}

function dropCaches(): void {
  // Only what is clean can be dropped.
  calls.sync();
  try {
    Deno.writeTextFileSync("/proc/sys/vm/drop_caches", "3");
  } catch { // Without root the figures are those of warm caches.
  }
}

type Small = Pick<Figures, "create" | "stat" | "fstat" | "read" | "unlink">;

function smallFiles(folder: string, count: number): Small {
  const encoder = new TextEncoder();
  const paths = Array.from({ length: count }, (_, number) => encoder.encode(`${folder}/file.${number}\0`));
  const bytes = new Uint8Array(fileBytes).fill(77), length = BigInt(fileBytes), stat = new Uint8Array(statBytes);
  const create = rate(count, (number) => {
    const fd = must("create", calls.open(paths[number], O.WRONLY | O.CREAT | O.EXCL | O.CLOEXEC, 0o644));
    must("write", calls.write(fd, bytes, length), fileBytes);
    must("close", calls.close(fd));
  });
  const statRate = rate(count, (number) => must("stat", calls.stat(paths[number], stat)));
  const open = must("open", calls.open(paths[0], O.RDONLY | O.CLOEXEC, 0));
  const fstat = rate(count, () => must("fstat", calls.fstat(open, stat)));
  must("close", calls.close(open));
  const read = rate(count, (number) => {
    const fd = must("open", calls.open(paths[number], O.RDONLY | O.CLOEXEC, 0));
    must("read", calls.read(fd, bytes, length), fileBytes);
    must("close", calls.close(fd));
  });
  const unlink = rate(count, (number) => must("unlink", calls.unlink(paths[number])));
  return { create, stat: statRate, fstat, read, unlink };
}

type Large = Pick<Figures, "writeMib" | "readMib" | "randomRead">;

function largeFile(path: string, mebibytes: number): Large {
  const name = new TextEncoder().encode(`${path}\0`);
  const piece = crypto.getRandomValues(new Uint8Array(65536));
  const bytes = new Uint8Array(pieceBytes), length = BigInt(pieceBytes);
  for (let at = 0; at < pieceBytes; at += piece.length) bytes.set(piece, at);
  let start = performance.now();
  let fd = must("create", calls.open(name, O.WRONLY | O.CREAT | O.CLOEXEC, 0o644));
  for (let number = 0; number < mebibytes; number++) must("write", calls.write(fd, bytes, length), pieceBytes);
  must("close", calls.close(fd));
  const writeMib = mebibytes * 1000 / (performance.now() - start);
  dropCaches();
  start = performance.now();
  fd = must("open", calls.open(name, O.RDONLY | O.CLOEXEC, 0));
  for (let number = 0; number < mebibytes; number++) must("read", calls.read(fd, bytes, length), pieceBytes);
  must("close", calls.close(fd));
  const readMib = mebibytes * 1000 / (performance.now() - start);
  dropCaches();
  fd = must("open", calls.open(name, O.RDONLY | O.CLOEXEC, 0));
  const small = new Uint8Array(fileBytes), blocks = mebibytes * pieceBytes / fileBytes;
  let place = 1;
  const randomRead = rate(randomReads, () => {
    place = (place * 48271) % 2147483647;
    must("read", calls.pread64(fd, small, BigInt(fileBytes), BigInt(place % blocks * fileBytes)), fileBytes);
  });
  must("close", calls.close(fd));
  must("unlink", calls.unlink(name));
  return { writeMib, readMib, randomRead };
}

if (import.meta.main) {
  const [folder, files, mebibytes] = Deno.args;
  smallFiles(folder, warmFiles);
  const small = smallFiles(folder, Number(files));
  const figures: Figures = { ...small, ...largeFile(`${folder}/large`, Number(mebibytes)) };
  console.log(JSON.stringify(figures));
}
