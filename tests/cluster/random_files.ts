/**
 * `random_files.ts A B OPERATIONS SEED`: one process plays random operations on two files, each through folder A or
 * folder B, both of the same volume, and compares all that it reads with a model in memory: calls, O_DIRECT, O_APPEND,
 * mappings, fallocate(2), copy_file_range(2), SEEK_DATA and SEEK_HOLE. Mappings are made from a fresh open and end with
 * msync and close; all else needs no close between two mounts.
 *
 * Exit code 0 when nothing differed; else the last operations and the first difference are told.
 *
 * @module
 */

import { E } from "../../core/errno.ts";
import { errnoText, FALLOC, MAP, O, PROT } from "../../ffi/libc.ts";
import { open, result, sys } from "../ffi/fuse_mounted.ts";
import { Random } from "../sim/random.ts";

/** Largest file: three chunks and an end in the middle of a block. */
const fileBytesMax = 3 * 2 ** 20 + 1111;
/** Longest piece of one operation. */
const pieceBytesMax = 2 ** 20 + 5000;
/** Every so many operations both files are compared as a whole, through both folders. */
const wholeEvery = 250;
/** Operations that a failure shows. */
const shownOperations = 60;
const pageBytes = 4096, chunkBytes = 2 ** 20;
const seekEnd = 2, seekData = 3, seekHole = 4;
const msSync = 4;

type Bytes = Uint8Array<ArrayBuffer>;

/** How often each operation is drawn. */
const weights = {
  write: 20,
  writeDirect: 5,
  append: 6,
  read: 20,
  readDirect: 5,
  mapRead: 8,
  mapWrite: 10,
  truncate: 8,
  recreate: 0.3,
  allocate: 4,
  punch: 6,
  zero: 5,
  copy: 10,
  seek: 10,
  size: 5,
  sync: 2,
} as const;

/** What a file has to be. */
interface Model {
  bytes: Bytes;
  size: number;
}

/** A file as one mount has it open. */
interface Opened {
  path: string;
  plain: number;
  direct: number;
  append: number;
}

class Difference extends Error {}

function must(what: string, value: number): number {
  if (value < 0) throw new Difference(`${what}: ${errnoText(value)}`);
  return value;
}

function fail(text: string): never {
  throw new Difference(text);
}

/** Compares; `at` is where the bytes stand in the file. */
function compare(found: Uint8Array, wanted: Uint8Array, at: number): void {
  if (found.length !== wanted.length) fail(`${found.length} bytes at ${at} instead of ${wanted.length}`);
  for (let i = 0; i < found.length; i++) {
    if (found[i] !== wanted[i]) fail(`byte ${at + i} is ${found[i]} instead of ${wanted[i]}`);
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** The game. */
class Game {
  readonly #random: Random;
  readonly #models: Model[] = [0, 1].map(() => ({ bytes: new Uint8Array(fileBytesMax), size: 0 }));
  /** By mount, then by file. */
  readonly #opened: Opened[][];
  readonly #buffer = new Uint8Array(fileBytesMax + pageBytes);
  /** What has been done, the last {@linkcode shownOperations}. */
  readonly log: string[] = [];
  #filler = 0;

  constructor(folders: string[], seed: number) {
    this.#random = new Random(seed);
    this.#opened = folders.map((folder) =>
      this.#models.map((_, file) => {
        const path = `${folder}/random${file}`, flags = O.RDWR | O.CREAT | O.TRUNC;
        return {
          path,
          plain: must("open", open(path, flags)),
          direct: must("open", open(path, flags | O.DIRECT)),
          append: must("open", open(path, flags | O.APPEND)),
        };
      })
    );
  }

  /** One operation on one file through one mount. */
  play(): void {
    const random = this.#random, mount = random.below(this.#opened.length), file = random.below(2);
    const model = this.#models[file], opened = this.#opened[mount][file];
    const name = random.weighted(weights);
    switch (name) {
      case "write":
      case "writeDirect":
        return this.#write(model, opened, name, mount, file);
      case "append":
        return this.#append(model, opened, mount, file);
      case "read":
      case "readDirect":
        return this.#read(model, opened, name, mount, file);
      case "mapRead":
      case "mapWrite":
        return this.#map(model, opened, name, mount, file);
      case "truncate":
        return this.#truncate(model, opened, mount, file);
      case "recreate":
        return this.#recreate(model, opened, mount, file);
      case "allocate":
      case "punch":
      case "zero":
        return this.#allocate(model, opened, name, mount, file);
      case "copy":
        return this.#copy(mount, file);
      case "seek":
        return this.#seek(model, opened, mount, file);
      case "size":
        this.#note(name, mount, file);
        return this.#size(model, opened);
      case "sync":
        this.#note(name, mount, file);
        must("fsync", result(sys.fsync(opened.plain)));
    }
  }

  /** Both files, whole, through both mounts. */
  compareAll(): void {
    for (const [mount, files] of this.#opened.entries()) {
      for (const [file, opened] of files.entries()) {
        this.#note("whole", mount, file);
        this.#size(this.#models[file], opened);
        this.#compareRead(this.#models[file], opened.plain, 0, fileBytesMax);
      }
    }
  }

  #note(name: string, mount: number, file: number, offset = -1, length = -1): void {
    const range = offset < 0 ? "" : length < 0 ? ` ${offset}` : ` ${offset}+${length}`;
    this.log.push(`mount ${"ab"[mount]} file ${file} (${this.#models[file].size} bytes): ${name}${range}`);
    if (this.log.length > shownOperations) this.log.shift();
  }

  /** A place of a file: often at an edge of a page, a chunk or the file. */
  #offset(model: Model, limit = fileBytesMax): number {
    const random = this.#random, near = random.between(-3, 3);
    const at = [
      () => random.below(limit),
      () => random.below(Math.max(1, model.size)),
      () => random.below(16) * pageBytes + near,
      () => random.below(4) * chunkBytes + near,
      () => random.below(fileBytesMax / pageBytes) * pageBytes,
      () => model.size + near,
    ][random.below(6)]();
    return Math.max(0, Math.min(limit - 1, Math.floor(at)));
  }

  /** Mostly short, sometimes long. */
  #length(most: number): number {
    const bits = this.#random.below(21);
    return Math.max(1, Math.min(most, pieceBytesMax, this.#random.below(2 ** bits) + 1));
  }

  /** Bytes that no write before had in this order. */
  #pattern(length: number): Bytes {
    const bytes = new Uint8Array(length), step = this.#filler = (this.#filler + 1) % 251;
    for (let i = 0; i < length; i++) bytes[i] = (i * 7 + step) % 255 + 1;
    return bytes;
  }

  #put(model: Model, offset: number, bytes: Uint8Array): void {
    model.bytes.set(bytes, offset);
    model.size = Math.max(model.size, offset + bytes.length);
  }

  #write(model: Model, opened: Opened, name: "write" | "writeDirect", mount: number, file: number): void {
    const offset = this.#offset(model), length = this.#length(fileBytesMax - offset), bytes = this.#pattern(length);
    this.#note(name, mount, file, offset, length);
    const fd = name === "write" ? opened.plain : opened.direct;
    const written = must(name, result(sys.pwrite64(fd, bytes, BigInt(length), BigInt(offset))));
    if (written !== length) fail(`wrote ${written} of ${length} bytes`);
    this.#put(model, offset, bytes);
  }

  #append(model: Model, opened: Opened, mount: number, file: number): void {
    if (model.size >= fileBytesMax) return;
    const length = this.#length(fileBytesMax - model.size), bytes = this.#pattern(length);
    this.#note("append", mount, file, model.size, length);
    const written = must("append", result(sys.write(opened.append, bytes, BigInt(length))));
    if (written !== length) fail(`appended ${written} of ${length} bytes`);
    this.#put(model, model.size, bytes);
  }

  #read(model: Model, opened: Opened, name: "read" | "readDirect", mount: number, file: number): void {
    const offset = this.#offset(model), length = this.#length(fileBytesMax - offset);
    this.#note(name, mount, file, offset, length);
    this.#compareRead(model, name === "read" ? opened.plain : opened.direct, offset, length);
  }

  #compareRead(model: Model, fd: number, offset: number, length: number): void {
    const into = this.#buffer.subarray(0, length).fill(0xee);
    const count = must("read", result(sys.pread64(fd, into, BigInt(length), BigInt(offset))));
    compare(into.subarray(0, count), model.bytes.subarray(offset, Math.min(model.size, offset + length)), offset);
  }

  #map(model: Model, opened: Opened, name: "mapRead" | "mapWrite", mount: number, file: number): void {
    if (model.size === 0) return;
    const offset = this.#offset(model, model.size), length = this.#length(model.size - offset);
    this.#note(name, mount, file, offset, length);
    const fd = must("open", open(opened.path, O.RDWR));
    const start = Math.floor(offset / pageBytes) * pageBytes, size = offset + length - start;
    const address = sys.mmap(0n, BigInt(size), PROT.READ | PROT.WRITE, MAP.SHARED, fd, BigInt(start));
    if (address === null || Deno.UnsafePointer.value(address) >= 2n ** 63n) fail("mmap failed");
    const view = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(address, size));
    if (name === "mapRead") {
      compare(view, model.bytes.subarray(start, start + size), start);
    } else {
      const bytes = this.#pattern(length);
      view.set(bytes, offset - start);
      this.#put(model, offset, bytes);
      must("msync", result(sys.msync(address, BigInt(size), msSync)));
    }
    must("munmap", result(sys.munmap(address, BigInt(size))));
    must("close", result(sys.close(fd)));
  }

  #truncate(model: Model, opened: Opened, mount: number, file: number): void {
    const size = this.#offset(model);
    this.#note("truncate", mount, file, size);
    must("ftruncate", result(sys.ftruncate64(opened.plain, BigInt(size))));
    if (size < model.size) model.bytes.fill(0, size, model.size);
    model.size = size;
  }

  #recreate(model: Model, opened: Opened, mount: number, file: number): void {
    this.#note("open with O_TRUNC", mount, file);
    const fd = must("open", open(opened.path, O.RDWR | O.TRUNC));
    must("close", result(sys.close(fd)));
    model.bytes.fill(0, 0, model.size);
    model.size = 0;
  }

  #allocate(model: Model, opened: Opened, name: "allocate" | "punch" | "zero", mount: number, file: number): void {
    const keep = name === "punch" || this.#random.chance(0.5);
    const offset = this.#offset(model), length = this.#length(fileBytesMax - offset), end = offset + length;
    this.#note(keep ? `${name}, size kept` : name, mount, file, offset, length);
    const kind = { allocate: 0, punch: FALLOC.PUNCH_HOLE, zero: FALLOC.ZERO_RANGE }[name];
    const mode = kind | (keep ? FALLOC.KEEP_SIZE : 0);
    must(name, result(sys.fallocate64(opened.plain, mode, BigInt(offset), BigInt(length))));
    if (name !== "allocate") model.bytes.fill(0, Math.min(offset, model.size), Math.min(end, model.size));
    if (!keep) model.size = Math.max(model.size, end);
  }

  #copy(mount: number, to: number): void {
    const random = this.#random, from = random.below(2), source = this.#models[from], target = this.#models[to];
    const fromAt = this.#offset(source), toAt = this.#offset(target);
    const apart = from === to ? Math.abs(fromAt - toAt) : fileBytesMax;
    if (apart === 0) return;
    const length = this.#length(Math.min(fileBytesMax - toAt, apart));
    this.#note(`copy to file ${to} at ${toAt}`, mount, from, fromAt, length);
    const wanted = Math.max(0, Math.min(length, source.size - fromAt));
    // The kernel ends a copy at the source's end as it knows it, without asking: programs look at the size first.
    this.#size(source, this.#opened[mount][from]);
    const files = this.#opened[mount], places = [fromAt, toAt].map((at) => new BigUint64Array([BigInt(at)]));
    const [fromPlace, toPlace] = places.map((place) => new Uint8Array(place.buffer));
    const [fromFd, toFd] = [files[from].plain, files[to].plain];
    let copied = 0;
    do {
      const rest = BigInt(length - copied);
      const count = must("copy", result(sys.copy_file_range(fromFd, fromPlace, toFd, toPlace, rest, 0)));
      if (count === 0 || copied + count > wanted) {
        if (copied + count !== wanted) fail(`copied ${copied + count} bytes instead of ${wanted}`);
        break;
      }
      copied += count;
    } while (copied < wanted);
    if (wanted > 0) this.#put(target, toAt, source.bytes.slice(fromAt, fromAt + wanted));
  }

  /** What is called a hole reads as zeros, and no byte that is not zero is left out by SEEK_DATA. */
  #seek(model: Model, opened: Opened, mount: number, file: number): void {
    const offset = this.#offset(model);
    this.#note("seek", mount, file, offset);
    const { bytes, size } = model, fd = opened.plain;
    const data = result(sys.lseek64(fd, BigInt(offset), seekData));
    const hole = result(sys.lseek64(fd, BigInt(offset), seekHole));
    if (offset >= size) {
      if (data !== -E.NXIO || hole !== -E.NXIO) fail(`SEEK_DATA ${data} and SEEK_HOLE ${hole} beyond the end`);
      return;
    }
    if (data < 0 && data !== -E.NXIO) must("SEEK_DATA", data);
    if (data >= 0 && (data < offset || data >= size)) fail(`SEEK_DATA ${data}`);
    if (!isZero(bytes.subarray(offset, data < 0 ? size : data))) fail(`SEEK_DATA ${data} goes over data`);
    must("SEEK_HOLE", hole);
    if (hole < offset || hole > size) fail(`SEEK_HOLE ${hole}`);
    const pageEnd = Math.floor(hole / pageBytes + 1) * pageBytes;
    if (!isZero(bytes.subarray(hole, Math.min(size, pageEnd)))) fail(`SEEK_HOLE ${hole} is in data`);
  }

  #size(model: Model, opened: Opened): void {
    const size = must("SEEK_END", result(sys.lseek64(opened.plain, 0n, seekEnd)));
    if (size !== model.size) fail(`the size is ${size} instead of ${model.size}`);
  }
}

const [a, b, operations, seed] = Deno.args;
const game = new Game([a, b], Number(seed));
let number = 0;
try {
  for (number = 1; number <= Number(operations); number++) {
    game.play();
    if (number % wholeEvery === 0) game.compareAll();
  }
  game.compareAll();
} catch (error) {
  if (!(error instanceof Difference)) throw error;
  console.error(`seed ${seed}, operation ${number}: ${error.message}; before it:\n${game.log.join("\n")}`);
  Deno.exit(1);
}
console.log(`${operations} operations, nothing differed`);
