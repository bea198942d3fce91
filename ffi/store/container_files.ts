/**
 * The container of a store: its data blocks in one file on each storage path. Space is taken in units of 16 MiB, so that
 * a path is used in proportion to what is free on it; which unit lies where is written in the file's own table before
 * the unit is used, and never changes.
 *
 * | file offset | holds |
 * | ----------- | ----- |
 * | 0           | magic "SEALFSDC", version u32, server u32, store u32, path index u32, crc32 u32 of the 24 bytes before; cluster id as text at 64 |
 * | 4096        | table: u32 for each unit of this file in turn: number of the unit in the container + 1, 0 = end |
 * | 4 MiB       | the units |
 *
 * Reads and writes go through the reactor's io_uring, buffered by the page cache. Writing out is begun as data comes, so
 * that a sync has little left to do.
 *
 * @module
 */

import { join } from "@std/path";
import { crc32 } from "node:zlib";
import type { BlockContainer, IoResult } from "../../core/runtime.ts";
import { groupBlocks } from "../../core/store/allocator.ts";
import type { StoreIdentity } from "../../core/store/store.ts";
import { Future } from "../../core/task.ts";
import { cstr, errno, errnoText, libc, O, SYNC_FILE_RANGE } from "../libc.ts";
import type { Reactor } from "../reactor.ts";

const blockBytes = 4096;
/** Blocks of a unit: what the allocator never crosses. */
const unitBlocks = groupBlocks;
const unitBytes = unitBlocks * blockBytes;
const tableOffset = 4096, unitsOffset = 4 * 1024 * 1024;
const unitsPerFileMax = (unitsOffset - tableOffset) / 4;
/** Left free on every path for the others who use it. */
const freeBytesMin = 64 * 1024 * 1024;
/** Writing out begins when this much has been written. */
const writeOutBytes = 8 * 1024 * 1024;
/** How often the free space of the paths is looked up. */
const freeLookMs = 1000;
const magic = new TextEncoder().encode("SEALFSDC");
const version = 1;
const EIO = 5, ENOSPC = 28;

interface Disk {
  folder: string;
  fd: number;
  units: number;
  dirtyBytes: number;
  dirty: boolean;
}

interface Unit {
  disk: Disk;
  /** File offset of its first block. */
  offset: number;
}

/** See the module's comment. */
export class ContainerFiles implements BlockContainer {
  readonly #reactor: Reactor;
  readonly #disks: Disk[] = [];
  readonly #units: Unit[] = [];
  #freeBlocks = 0;
  #lookedAtMs = -Infinity;

  private constructor(reactor: Reactor) {
    this.#reactor = reactor;
  }

  /** Opens or makes the files of a store on `folders`. A text is why not. */
  static open(reactor: Reactor, folders: readonly string[], identity: StoreIdentity): ContainerFiles | string {
    const container = new ContainerFiles(reactor);
    const found = new Map<number, Unit>();
    for (const [index, folder] of folders.entries()) {
      const fault = container.#openDisk(folder, index, identity, found);
      if (fault !== "") {
        container.close();
        return fault;
      }
    }
    for (let unit = 0; unit < found.size; unit++) {
      const one = found.get(unit);
      if (one === undefined) {
        container.close();
        return `unit ${unit} of ${found.size} is on none of the storage paths`;
      }
      container.#units.push(one);
    }
    return container;
  }

  get blockCount(): number {
    return this.#units.length * unitBlocks;
  }

  get blockCountMax(): number {
    const nowMs = this.#reactor.nowMs();
    if (nowMs - this.#lookedAtMs >= freeLookMs) {
      this.#lookedAtMs = nowMs;
      this.#freeBlocks = this.#disks.reduce((sum, disk) => sum + Math.floor(freeBytes(disk.folder) / blockBytes), 0);
    }
    return this.blockCount + this.#freeBlocks;
  }

  grow(blocks: number): number {
    while (this.blockCount < blocks) {
      const failure = this.#addUnit();
      if (failure !== 0) return failure;
    }
    return 0;
  }

  read(block: number, into: Uint8Array): Future<IoResult> {
    const { arena } = this.#reactor;
    if (arena.owns(into)) return this.#transfer("read", block, into);
    const bounce = arena.allocate(into.length);
    if (bounce === null) return Future.of(this.#readNow(block, into));
    const done = new Future<IoResult>(), view = bounce.subarray(0, into.length);
    this.#transfer("read", block, view).listen((failure) => {
      into.set(view);
      arena.release(bounce);
      done.resolve(failure);
    });
    return done;
  }

  write(block: number, from: Uint8Array): Future<IoResult> {
    const { arena } = this.#reactor;
    if (arena.owns(from)) return this.#transfer("write", block, from);
    const bounce = arena.allocate(from.length);
    if (bounce === null) return Future.of(this.#writeNow(block, from));
    const done = new Future<IoResult>(), view = bounce.subarray(0, from.length);
    view.set(from);
    this.#transfer("write", block, view).listen((failure) => {
      arena.release(bounce);
      done.resolve(failure);
    });
    return done;
  }

  sync(): Future<IoResult> {
    const dirty = this.#disks.filter((disk) => disk.dirty), done = new Future<IoResult>();
    let left = dirty.length, failure = 0;
    if (left === 0) done.resolve(0);
    for (const disk of dirty) {
      disk.dirty = false;
      disk.dirtyBytes = 0;
      this.#reactor.fdatasync(disk.fd).listen((res) => {
        if (res < 0) {
          disk.dirty = true;
          failure = -res;
        }
        if (--left === 0) done.resolve(failure);
      });
    }
    return done;
  }

  syncNow(): IoResult {
    for (const disk of this.#disks) {
      if (disk.dirty && libc.fdatasync(disk.fd) !== 0) return errno();
      disk.dirty = false;
      disk.dirtyBytes = 0;
    }
    return 0;
  }

  allocate(bytes: number): Uint8Array {
    return this.#reactor.arena.allocate(bytes) ?? new Uint8Array(bytes);
  }

  release(buffer: Uint8Array): void {
    if (this.#reactor.arena.owns(buffer)) this.#reactor.arena.release(buffer as Uint8Array<ArrayBuffer>);
  }

  /** Closes the files. Nothing is synced. */
  close(): void {
    for (const disk of this.#disks) libc.close(disk.fd);
    this.#disks.length = 0;
  }

  #openDisk(folder: string, index: number, identity: StoreIdentity, found: Map<number, Unit>): string {
    const path = join(folder, `store-${identity.storeIndex}.data`);
    const fd = libc.open(cstr(path), O.RDWR | O.CREAT | O.CLOEXEC, 0o600);
    if (fd < 0) return `cannot open ${path}: ${errnoText(errno())}`;
    const disk: Disk = { folder, fd, units: 0, dirtyBytes: 0, dirty: false };
    this.#disks.push(disk);
    const wanted = header(identity, index);
    if (Deno.statSync(path).size === 0) {
      if (libc.fallocate64(fd, 0, 0n, BigInt(unitsOffset)) !== 0) return `cannot make ${path}: ${errnoText(errno())}`;
      if (writeAt(fd, wanted, 0) !== 0 || libc.fsync(fd) !== 0) return `cannot write ${path}: ${errnoText(errno())}`;
      return "";
    }
    const head = new Uint8Array(blockBytes);
    if (readAt(fd, head, 0) !== 0) return `cannot read ${path}: ${errnoText(errno())}`;
    if (magic.some((byte, i) => head[i] !== byte)) return `${path} is no data file of sealfs`;
    const view = new DataView(head.buffer);
    if (view.getUint32(24, true) !== crc32(head.subarray(0, 24))) return `the header of ${path} is damaged`;
    if (view.getUint32(8, true) !== version) {
      return `${path} has format ${view.getUint32(8, true)}, known is ${version}`;
    }
    if (wanted.some((byte, i) => head[i] !== byte)) return `${path} belongs to another store`;
    return this.#readTable(disk, path, found);
  }

  #readTable(disk: Disk, path: string, found: Map<number, Unit>): string {
    const table = new Uint32Array(unitsPerFileMax);
    if (readAt(disk.fd, new Uint8Array(table.buffer), tableOffset) !== 0) {
      return `cannot read ${path}: ${errnoText(errno())}`;
    }
    for (; disk.units < table.length && table[disk.units] !== 0; disk.units++) {
      const unit = table[disk.units] - 1;
      if (found.has(unit)) return `unit ${unit} is on two of the storage paths`;
      found.set(unit, { disk, offset: unitsOffset + disk.units * unitBytes });
    }
    return "";
  }

  /** Takes 16 MiB where most is free. The table says so, durably, before anything is put there. */
  #addUnit(): number {
    const disk = this.#disks.reduce((best, one) => freeBytes(one.folder) > freeBytes(best.folder) ? one : best);
    if (freeBytes(disk.folder) < unitBytes || disk.units >= unitsPerFileMax) return ENOSPC;
    const offset = unitsOffset + disk.units * unitBytes;
    if (libc.fallocate64(disk.fd, 0, BigInt(offset), BigInt(unitBytes)) !== 0) return errno();
    const entry = new Uint8Array(4);
    new DataView(entry.buffer).setUint32(0, this.#units.length + 1, true);
    if (writeAt(disk.fd, entry, tableOffset + disk.units * 4) !== 0) return errno();
    // The next sync, which comes before any record that names a block of the unit is durable, covers the entry too.
    disk.dirty = true;
    disk.units++;
    this.#units.push({ disk, offset });
    this.#lookedAtMs = -Infinity;
    return 0;
  }

  #place(block: number, bytes: number): { disk: Disk; offset: number } {
    const number = Math.floor(block / unitBlocks), unit = this.#units[number], within = block - number * unitBlocks;
    if (unit === undefined || within * blockBytes + bytes > unitBytes || bytes % blockBytes !== 0) {
      throw new RangeError(`${bytes} bytes at block ${block}`);
    }
    return { disk: unit.disk, offset: unit.offset + within * blockBytes };
  }

  #transfer(way: "read" | "write", block: number, view: Uint8Array): Future<IoResult> {
    const { disk, offset } = this.#place(block, view.length), done = new Future<IoResult>();
    const io = way === "read"
      ? this.#reactor.readInto(disk.fd, view, offset)
      : this.#reactor.writeFrom(disk.fd, view, offset);
    io.listen((res) => {
      if (way === "write") this.#written(disk, view.length);
      if (res === view.length) done.resolve(0);
      else if (res < 0 && res !== -EAGAIN && res !== -EINTR) done.resolve(-res);
      else done.resolve(way === "read" ? this.#readNow(block, view) : this.#writeNow(block, view));
    });
    return done;
  }

  /** Begins to write out, so that the next sync is short. */
  #written(disk: Disk, bytes: number): void {
    disk.dirty = true;
    disk.dirtyBytes += bytes;
    if (disk.dirtyBytes < writeOutBytes) return;
    disk.dirtyBytes = 0;
    this.#reactor.syncFileRange(disk.fd, 0, 0, SYNC_FILE_RANGE.WRITE);
  }

  #readNow(block: number, into: Uint8Array): number {
    const { disk, offset } = this.#place(block, into.length);
    return readAt(disk.fd, into, offset);
  }

  #writeNow(block: number, from: Uint8Array): number {
    const { disk, offset } = this.#place(block, from.length);
    this.#written(disk, from.length);
    return writeAt(disk.fd, from, offset);
  }
}

const EINTR = 4, EAGAIN = 11;

function header(identity: StoreIdentity, index: number): Uint8Array {
  const bytes = new Uint8Array(256), view = new DataView(bytes.buffer);
  bytes.set(magic);
  view.setUint32(8, version, true);
  view.setUint32(12, identity.serverId, true);
  view.setUint32(16, identity.storeIndex, true);
  view.setUint32(20, index, true);
  view.setUint32(24, crc32(bytes.subarray(0, 24)), true);
  bytes.set(new TextEncoder().encode(identity.clusterId).subarray(0, 192), 64);
  return bytes;
}

/** Bytes that may still be taken on the file system of a folder. */
function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsOf(folder);
  return Math.max(0, bavail * bsize - freeBytesMin);
}

/** statfs(2): struct statfs of 64-bit Linux, 120 bytes: type, bsize, blocks, bfree, bavail as 8-byte words. */
function statfsOf(folder: string): { bsize: number; bavail: number } {
  const buffer = new BigUint64Array(16);
  if (libc.statfs64(cstr(folder), new Uint8Array(buffer.buffer)) !== 0) return { bsize: 0, bavail: 0 };
  return { bsize: Number(buffer[1]), bavail: Number(buffer[4]) };
}

function readAt(fd: number, into: Uint8Array, offset: number): number {
  for (let done = 0; done < into.length;) {
    const part = into.subarray(done) as Uint8Array<ArrayBuffer>;
    const count = libc.preadBuffer(fd, part, BigInt(part.length), BigInt(offset + done));
    if (count <= 0) return count === 0 ? EIO : errno();
    done += count;
  }
  return 0;
}

function writeAt(fd: number, from: Uint8Array, offset: number): number {
  for (let done = 0; done < from.length;) {
    const part = from.subarray(done) as Uint8Array<ArrayBuffer>;
    const count = libc.pwriteBuffer(fd, part, BigInt(part.length), BigInt(offset + done));
    if (count <= 0) return count === 0 ? EIO : errno();
    done += count;
  }
  return 0;
}
