/**
 * The data area of a store over one file in each storage path, `store-N.data`: preallocated, buffered, grown in steps.
 * Blocks are numbered over all files; a table in each file's head says which part of the numbers it holds.
 *
 * A file starts with two heads of 128 KiB, written in turn, so that one is whole whatever happens. Little-endian:
 *
 * | at  | size | field |
 * | --- | ---- | ----- |
 * | 0   | 8    | "SEALFSDC" |
 * | 8   | 4    | version u32 |
 * | 12  | 4    | crc32 u32 of what follows, up to the end of the table |
 * | 16  | 8    | generation u53: the higher head counts |
 * | 24  | 4    | server u32 |
 * | 28  | 2, 2 | store u16, number of stores u16 |
 * | 32  | 2, 2 | place of this file among the store's u16, number of files u16 |
 * | 36  | 2,66 | length u16 and text of the cluster's id |
 * | 104 | 4    | number of table entries u32 |
 * | 108 | 8 n  | table, in the order in which the parts lie in the file: first group u32, groups u32 (of 4096 blocks) |
 *
 * A file that starts with anything else is never touched.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { E } from "../../core/errno.ts";
import { DecodeError, Reader, Writer } from "../../core/protocol/codec.ts";
import type { BlockContainer, IoResult } from "../../core/runtime.ts";
import { groupBlocks } from "../../core/store/allocator.ts";
import type { StoreIdentity } from "../../core/store/store.ts";
import { Future, type Task, wait } from "../../core/task.ts";
import { type Bytes, checked, closeFd, cstr, errnoText, libc, O, SYNC_FILE_RANGE, systemError } from "../libc.ts";
import type { Reactor } from "../reactor.ts";
import { syncFolder } from "./log_file.ts";

const blockBytes = 4096;
const groupBytes = groupBlocks * blockBytes;
const version = 1;
/** Bytes of one head; a file's data starts behind two. */
const headBytes = 128 * 1024;
const dataStart = 2 * headBytes;
const magic = new TextEncoder().encode("SEALFSDC");
const clusterIdBytesMax = 66;
const tableAt = 108;
const entriesMax = Math.floor((headBytes - tableAt) / 8);
/** Space that is left to the log and the database on the same disk: this part of it, but no more than these bytes. */
const reservePart = 0.05;
const reserveBytesMax = 512 * 1024 * 1024;
/** Free space of disks is asked for at most this often. */
const capacityMs = 500;
/** Writing back to disk is begun each time this much was written, so that a sync finds little left to do. */
const writeBackBytes = 32 * 1024 * 1024;
/**
 * Writes up to this size go straight to the page cache: ext4 takes no buffered write without blocking, so the ring would
 * hand each one to a kernel thread, which costs 40 us for the 3 us that the copy takes.
 */
const inlineWriteBytesMax = 65536;
/** How often an operation that the kernel interrupted or had no room for is tried again. */
const attemptsMax = 50;
/** How data files are opened. */
const openFlags = O.RDWR | O.CLOEXEC;

interface Part {
  group: number;
  groups: number;
}

interface Device {
  path: string;
  fd: number;
  /** Opened with O_DSYNC: heads are durable when written, without a sync of all data. */
  headFd: number;
  parts: Part[];
  groups: number;
  generation: number;
  dirty: boolean;
  /** Bytes written since write-back was begun. */
  writtenBytes: number;
}

/** See the module. */
export class FileContainer implements BlockContainer {
  readonly #reactor: Reactor;
  readonly #identity: StoreIdentity;
  readonly #devices: Device[];
  /** For each group: its file, and where in the file it starts. */
  readonly #groupDevice: Device[] = [];
  readonly #groupOffset: number[] = [];
  #blockCountMax = 0;
  #measuredMs = -Infinity;

  private constructor(reactor: Reactor, identity: StoreIdentity, devices: Device[]) {
    this.#reactor = reactor;
    this.#identity = identity;
    this.#devices = devices;
  }

  /** Opens the files in `folders`, making those that are absent if `create`. A text is why not. */
  static open(
    options: { reactor: Reactor; identity: StoreIdentity; folders: readonly string[]; create: boolean },
  ): FileContainer | string {
    const { reactor, identity, folders, create } = options, devices: Device[] = [];
    const give = (error: string) => {
      for (const { fd, headFd } of devices) [fd, headFd].forEach(closeFd);
      return error;
    };
    for (const [place, folder] of folders.entries()) {
      const path = `${folder}/store-${identity.storeIndex}.data`;
      const device = openDevice(path, { identity, place, count: folders.length }, create);
      if (typeof device === "string") return give(device);
      devices.push(device);
    }
    const container = new FileContainer(reactor, identity, devices);
    const fault = container.#mapParts();
    return fault === "" ? container : give(fault);
  }

  get blockCount(): number {
    return this.#groupDevice.length * groupBlocks;
  }

  get blockCountMax(): number {
    const nowMs = this.#reactor.nowMs();
    if (nowMs - this.#measuredMs < capacityMs) return this.#blockCountMax;
    this.#measuredMs = nowMs;
    let groups = this.#groupDevice.length;
    for (const device of this.#devices) groups += this.#freeGroups(device);
    return this.#blockCountMax = groups * groupBlocks;
  }

  grow(blocks: number): number {
    let missing = Math.ceil(blocks / groupBlocks) - this.#groupDevice.length;
    if (missing <= 0) return 0;
    this.#measuredMs = -Infinity;
    const roomy = [...this.#devices].sort((a, b) => this.#freeGroups(b) - this.#freeGroups(a));
    for (const device of roomy) {
      const groups = Math.min(missing, this.#freeGroups(device));
      if (groups > 0 && this.#growDevice(device, groups) === 0) missing -= groups;
      if (missing === 0) return 0;
    }
    return E.NOSPC;
  }

  read(block: number, into: Uint8Array): Future<IoResult> {
    return this.#each(block, into, (device, offset, part) => this.#read(device, offset, part));
  }

  write(block: number, from: Uint8Array): Future<IoResult> {
    return this.#each(block, from, (device, offset, part) => this.#write(device, offset, part));
  }

  sync(): Future<IoResult> {
    return this.#reactor.scheduler.spawn(this.#sync());
  }

  *#sync(): Task<IoResult> {
    const pending = this.#devices.filter((device) => device.dirty).map((device) => {
      device.dirty = false;
      device.writtenBytes = 0;
      return this.#reactor.fdatasync(device.fd);
    });
    let failure = 0;
    for (const io of pending) {
      const result = yield* wait(io);
      if (result < 0) failure = -result;
    }
    return failure;
  }

  syncNow(): IoResult {
    // All of them: a sync under way may not have reached the disk yet.
    for (const device of this.#devices) {
      const result = checked(libc.fdatasync(device.fd));
      if (result < 0) return -result;
      device.dirty = false;
      device.writtenBytes = 0;
    }
    return 0;
  }

  allocate(bytes: number): Uint8Array {
    return this.#reactor.arena.allocate(bytes) ?? new Uint8Array(bytes);
  }

  release(buffer: Uint8Array): void {
    if (this.#reactor.arena.owns(buffer)) this.#reactor.arena.release(buffer);
  }

  /** Closes the files. Nothing may be under way. */
  close(): void {
    for (const { fd, headFd } of this.#devices) [fd, headFd].forEach(closeFd);
  }

  /** Groups that the file could still get without taking what log and database need. */
  #freeGroups(device: Device): number {
    const { freeBytes, totalBytes } = spaceOf(device.path);
    const reserveBytes = Math.min(reserveBytesMax, totalBytes * reservePart);
    return Math.max(0, Math.floor((freeBytes - reserveBytes) / groupBytes));
  }

  /** errno; nothing has changed when it is not 0. */
  #growDevice(device: Device, groups: number): number {
    const endBytes = dataStart + device.groups * groupBytes, first = this.#groupDevice.length;
    const result = checked(libc.fallocate64(device.fd, 0, BigInt(endBytes), BigInt(groups * groupBytes)));
    if (result < 0) {
      libc.ftruncate64(device.fd, BigInt(endBytes));
      return -result;
    }
    const parts = device.parts.map((part) => ({ ...part })), last = parts.at(-1);
    if (last !== undefined && last.group + last.groups === first) last.groups += groups;
    else parts.push({ group: first, groups });
    const failure = parts.length > entriesMax ? E.NOSPC : this.#writeHead(device, parts);
    if (failure !== 0) return failure;
    device.parts = parts;
    for (let i = 0; i < groups; i++) this.#place(device, first + i, device.groups + i);
    device.groups += groups;
    return 0;
  }

  #writeHead(device: Device, parts: Part[]): number {
    const place = this.#devices.indexOf(device), count = this.#devices.length, generation = device.generation + 1;
    const bytes = encodeHead({ identity: this.#identity, place, count }, generation, parts);
    const result = checked(
      libc.pwriteBuffer(device.headFd, bytes, BigInt(bytes.length), BigInt(generation % 2 * headBytes)),
    );
    if (result !== bytes.length) return result < 0 ? -result : E.IO;
    device.generation = generation;
    return 0;
  }

  #place(device: Device, group: number, index: number): void {
    this.#groupDevice[group] = device;
    this.#groupOffset[group] = dataStart + index * groupBytes;
  }

  /** Builds the map of groups from the tables. A text says what is wrong with them. */
  #mapParts(): string {
    let total = 0;
    for (const device of this.#devices) {
      let index = 0;
      for (const { group, groups } of device.parts) {
        for (let i = 0; i < groups; i++) {
          if (this.#groupDevice[group + i] !== undefined) return `${device.path}: two files hold group ${group + i}`;
          this.#place(device, group + i, index++);
        }
        total += groups;
      }
    }
    return total === this.#groupDevice.length
      ? ""
      : "the files of the container do not belong together: groups are missing";
  }

  /** Cuts an operation where the groups it touches lie apart. */
  #each(
    block: number,
    bytes: Uint8Array,
    run: (device: Device, offset: number, part: Uint8Array) => Future<IoResult>,
  ): Future<IoResult> {
    const end = block + bytes.length / blockBytes;
    if (bytes.length % blockBytes !== 0 || end > this.blockCount) throw new RangeError(`blocks ${block}..${end}`);
    const group = Math.floor(block / groupBlocks);
    const offset = this.#groupOffset[group] + block % groupBlocks * blockBytes;
    const groupEnd = (group + 1) * groupBlocks;
    if (end <= groupEnd) return run(this.#groupDevice[group], offset, bytes);
    const cut = (groupEnd - block) * blockBytes, both = new Future<IoResult>();
    const head = run(this.#groupDevice[group], offset, bytes.subarray(0, cut));
    const tail = this.#each(groupEnd, bytes.subarray(cut), run);
    head.listen((first) => tail.listen((second) => both.resolve(first || second)));
    return both;
  }

  #read(device: Device, offset: number, into: Uint8Array): Future<IoResult> {
    const { arena } = this.#reactor;
    if (arena.owns(into)) return this.#transfer(device.fd, offset, into, false);
    const buffer = this.#borrow(into.length);
    if (buffer === null) return Future.of(blocking(device.fd, offset, into, false));
    const done = new Future<IoResult>();
    this.#transfer(device.fd, offset, buffer, false).listen((failure) => {
      if (failure === 0) into.set(buffer);
      arena.release(buffer);
      done.resolve(failure);
    });
    return done;
  }

  #write(device: Device, offset: number, from: Uint8Array): Future<IoResult> {
    const { arena } = this.#reactor;
    device.dirty = true;
    this.#beginWriteBack(device, from.length);
    if (from.length <= inlineWriteBytesMax) return Future.of(blocking(device.fd, offset, from, true));
    if (arena.owns(from)) return this.#transfer(device.fd, offset, from, true);
    const buffer = this.#borrow(from.length);
    if (buffer === null) return Future.of(blocking(device.fd, offset, from, true));
    buffer.set(from);
    const done = this.#transfer(device.fd, offset, buffer, true);
    done.listen(() => arena.release(buffer));
    return done;
  }

  #borrow(bytes: number): Uint8Array | null {
    return bytes > 1024 * 1024 ? null : this.#reactor.arena.allocate(bytes);
  }

  /** One operation on the ring, gone on with when it was cut short. */
  #transfer(fd: number, offset: number, view: Uint8Array, write: boolean): Future<IoResult> {
    const reactor = this.#reactor, done = new Future<IoResult>();
    let at = 0, attempts = 0;
    const issue = () => {
      const rest = at === 0 ? view : view.subarray(at);
      const io = write ? reactor.writeFrom(fd, rest, offset + at) : reactor.readInto(fd, rest, offset + at);
      io.listen((count) => {
        if (count > 0) at += count;
        else if ((count !== -E.INTR && count !== -E.AGAIN && count !== -E.BUSY) || ++attempts > attemptsMax) {
          done.resolve(count === 0 ? E.IO : -count);
          return;
        }
        if (at === view.length) done.resolve(0);
        else if (count > 0) issue();
        else reactor.after(1, issue);
      });
    };
    issue();
    return done;
  }

  #beginWriteBack(device: Device, bytes: number): void {
    device.writtenBytes += bytes;
    if (device.writtenBytes < writeBackBytes) return;
    device.writtenBytes = 0;
    // Nobody waits: what fails here fails in the next sync as well.
    this.#reactor.syncFileRange(device.fd, 0, 0, SYNC_FILE_RANGE.WRITE);
  }
}

/** statfs(2): struct statfs of 64-bit Linux has type, bsize, blocks, bfree and bavail first, 8 bytes each. */
function spaceOf(path: string): { freeBytes: number; totalBytes: number } {
  const words = new BigUint64Array(16);
  if (libc.statfs64(cstr(path), new Uint8Array(words.buffer)) < 0) return { freeBytes: 0, totalBytes: 0 };
  const blockSize = Number(words[1]);
  return { freeBytes: Number(words[4]) * blockSize, totalBytes: Number(words[2]) * blockSize };
}

/** Without the ring, for when the arena is full. errno. */
function blocking(fd: number, offset: number, view: Uint8Array, write: boolean): IoResult {
  for (let at = 0; at < view.length;) {
    const rest = view.subarray(at) as Bytes, size = BigInt(rest.length), from = BigInt(offset + at);
    const count = checked(write ? libc.pwriteBuffer(fd, rest, size, from) : libc.preadBuffer(fd, rest, size, from));
    if (count === -E.INTR) continue;
    if (count <= 0) return count === 0 ? E.IO : -count;
    at += count;
  }
  return 0;
}

interface Owner {
  identity: StoreIdentity;
  place: number;
  count: number;
}

function openDevice(path: string, owner: Owner, create: boolean): Device | string {
  try {
    Deno.lstatSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    if (!create) return `${path} is missing: the store has data there`;
    makeFile(path, owner);
  }
  const fd = libc.open(cstr(path), openFlags, 0);
  if (fd < 0) throw systemError("open", path);
  const headFd = libc.open(cstr(path), openFlags | O.DSYNC, 0);
  if (headFd < 0) throw systemError("open", path);
  const head = readHeads(path, fd, owner);
  if (typeof head === "string") {
    [fd, headFd].forEach(closeFd);
    return head;
  }
  const groups = head.parts.reduce((sum, part) => sum + part.groups, 0);
  return { path, fd, headFd, ...head, groups, dirty: false, writtenBytes: 0 };
}

/** Makes a file without data under another name first, so that one without a head is never ours. */
function makeFile(path: string, owner: Owner): void {
  const fresh = `${path}.new`, file = new Uint8Array(dataStart);
  file.set(encodeHead(owner, 0, []));
  Deno.writeFileSync(fresh, file, { mode: 0o600 });
  const fd = libc.open(cstr(fresh), openFlags, 0);
  if (fd < 0) throw systemError("open", fresh);
  const result = checked(libc.fsync(fd));
  closeFd(fd);
  if (result < 0) throw systemError("sync", fresh, -result);
  Deno.renameSync(fresh, path);
  const failure = syncFolder(path.slice(0, path.lastIndexOf("/")));
  if (failure !== 0) throw systemError("sync the folder of", path, failure);
}

function encodeHead({ identity, place, count }: Owner, generation: number, parts: readonly Part[]): Bytes {
  const id = new TextEncoder().encode(identity.clusterId);
  if (id.length > clusterIdBytesMax) throw new RangeError(`cluster id of ${id.length} bytes`);
  const w = new Writer(tableAt + 8 * parts.length);
  w.raw(magic);
  w.u32(version);
  w.u32(0);
  w.u53(generation);
  w.u32(identity.serverId);
  w.u16(identity.storeIndex);
  w.u16(identity.storeCount);
  w.u16(place);
  w.u16(count);
  w.u16(id.length);
  w.raw(id);
  w.raw(new Uint8Array(clusterIdBytesMax - id.length));
  w.u32(parts.length);
  for (const { group, groups } of parts) {
    w.u32(group);
    w.u32(groups);
  }
  w.setU32(12, crc32(w.bytes.subarray(16, w.length)));
  return w.copy() as Bytes;
}

/** The newer of the two heads; a text when there is none, or it is another's. */
function readHeads(path: string, fd: number, owner: Owner): { generation: number; parts: Part[] } | string {
  const bytes: Bytes = new Uint8Array(dataStart);
  const count = checked(libc.preadBuffer(fd, bytes, BigInt(bytes.length), 0n));
  if (count < 0) return `cannot read ${path}: ${errnoText(count)}`;
  const heads = [0, headBytes].map((at) => decodeHead(bytes.subarray(at, at + headBytes)));
  const found = heads.filter((head) => typeof head !== "string").sort((a, b) => b.generation - a.generation)[0];
  if (found === undefined) {
    if (heads.includes("version")) return `${path} has another version than this program knows (${version})`;
    if (heads.includes("damaged")) return `${path}: both heads are damaged`;
    return `${path} holds something else than data of sealfs: it is left alone`;
  }
  const { identity } = owner;
  const mine = found.clusterId === identity.clusterId && found.serverId === identity.serverId &&
    found.storeIndex === identity.storeIndex && found.place === owner.place && found.count === owner.count;
  if (mine) return found;
  return `${path} belongs to cluster ${found.clusterId}, server ${found.serverId}, store ${found.storeIndex}, ` +
    `place ${found.place + 1} of ${found.count}`;
}

function decodeHead(bytes: Bytes) {
  if (magic.some((byte, i) => bytes[i] !== byte)) return "foreign";
  try {
    const r = new Reader(bytes, 8);
    if (r.u32() !== version) return "version";
    const sum = r.u32(), generation = r.u53(), serverId = r.u32(), storeIndex = r.u16();
    r.u16();
    const place = r.u16(), count = r.u16(), id = r.raw(Math.min(r.u16(), clusterIdBytesMax));
    r.at = 104;
    const entries = r.u32(), parts: Part[] = [];
    if (entries > entriesMax || crc32(bytes.subarray(16, tableAt + 8 * entries)) !== sum) return "damaged";
    for (let i = 0; i < entries; i++) parts.push({ group: r.u32(), groups: r.u32() });
    return { generation, serverId, storeIndex, place, count, clusterId: new TextDecoder().decode(id), parts };
  } catch (error) {
    if (error instanceof DecodeError) return "damaged";
    throw error;
  }
}
