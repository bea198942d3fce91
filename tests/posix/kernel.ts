/**
 * Files by system calls: an agent process for each process of a case, with a method for each call. A method rejects
 * with a {@linkcode CallError} when its call fails, and tells the call's result otherwise; nothing is retried, and no
 * call is made that was not asked for.
 *
 * @module
 */

import { errnoText } from "../../ffi/libc.ts";
import { attempt, type Outcome } from "../cluster/harness.ts";
import type { Answer, Argument } from "./agent.ts";
import { agentCommand, AgentProcess } from "./agent_process.ts";
import {
  type Bytes,
  CallError,
  type Entry,
  type Files,
  type Identity,
  type OpenFile,
  root,
  type Stat,
  type Totals,
  type Way,
  type WayName,
  type When,
} from "./case.ts";
import { AT, F, MAP, O, PROT, S, STATX, SYS, UTIME } from "./constants.ts";

const encoder = new TextEncoder(), decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Sizes of kernel structures. */
const statxBytes = 256, statfsBytes = 120, flockBytes = 32, timesBytes = 32;
/** Longest value of an extended attribute and longest list of names. */
const xattrBytes = 65536;
const readFileBytes = 1 << 20;
const direntBytes = 32768;

/** A path or name as the kernel wants it. */
function path(value: Bytes): Uint8Array {
  const bytes = typeof value === "string" ? encoder.encode(value) : value;
  const ended = new Uint8Array(bytes.length + 1);
  ended.set(bytes);
  return ended;
}

function contents(data: Bytes): Uint8Array {
  return typeof data === "string" ? encoder.encode(data) : data;
}

/** What a failed call is named by: long arguments are cut. */
function show(arg: Argument | Bytes): string {
  const path = arg instanceof Uint8Array && arg.at(-1) === 0 ? decoder.decode(arg.subarray(0, -1)) : arg;
  const text = typeof path === "object" ? "..." : typeof path === "string" ? JSON.stringify(path) : String(path);
  return text.length > 60 ? `${text.slice(0, 40)}... (${text.length})` : text;
}

/** Seconds and nanoseconds of a time, floor of negative ones. */
function timespec(view: DataView, offset: number, time: When | "omit"): void {
  if (typeof time === "string") {
    return view.setBigInt64(offset + 8, BigInt(time === "now" ? UTIME.NOW : UTIME.OMIT), true);
  }
  const nanoseconds = ((time % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  view.setBigInt64(offset, (time - nanoseconds) / 1_000_000_000n, true);
  view.setBigInt64(offset + 8, nanoseconds, true);
}

/** struct timespec[2]. */
function timespecs(atime: When | "omit", mtime: When | "omit"): Uint8Array {
  const bytes = new Uint8Array(timesBytes), view = new DataView(bytes.buffer);
  timespec(view, 0, atime);
  timespec(view, 16, mtime);
  return bytes;
}

/** What statx(2) tells besides {@linkcode Stat}. */
export interface Statx extends Stat {
  /** What is filled in: STATX.*. */
  mask: number;
  blksize: number;
  attributes: bigint;
  devMajor: number;
  devMinor: number;
  rdevMajor: number;
  rdevMinor: number;
}

/** struct statx (include/uapi/linux/stat.h). */
function statxOf(bytes: Uint8Array): Statx {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const u32 = (at: number) => view.getUint32(at, true), u64 = (at: number) => view.getBigUint64(at, true);
  const time = (at: number) => view.getBigInt64(at, true) * 1_000_000_000n + BigInt(u32(at + 8));
  return {
    mask: u32(0),
    blksize: u32(4),
    attributes: u64(8),
    nlink: u32(16),
    uid: u32(20),
    gid: u32(24),
    mode: view.getUint16(28, true),
    ino: Number(u64(32)),
    size: Number(u64(40)),
    blocks: Number(u64(48)),
    atime: time(64),
    btime: time(80),
    ctime: time(96),
    mtime: time(112),
    rdev: u32(128) * 256 + u32(132),
    rdevMajor: u32(128),
    rdevMinor: u32(132),
    devMajor: u32(136),
    devMinor: u32(140),
  };
}

/** struct linux_dirent64, all of a buffer; `cookie` is where the next read goes on after the entry. */
export interface Dirent {
  ino: number;
  cookie: bigint;
  type: number;
  name: Uint8Array;
}

function direntsOf(bytes: Uint8Array): Dirent[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset), entries: Dirent[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = view.getUint16(at + 16, true), name = bytes.subarray(at + 19, at + length);
    entries.push({
      ino: Number(view.getBigUint64(at, true)),
      cookie: view.getBigInt64(at + 8, true),
      type: bytes[at + 18],
      name: name.slice(0, name.indexOf(0)),
    });
    at += length;
  }
  return entries;
}

/** A lock of fcntl(2). Length 0 reaches to the end of any size. */
export interface RangeLock {
  /** F.RDLCK, F.WRLCK, F.UNLCK. */
  type: number;
  start: number | bigint;
  length: number | bigint;
  /** Of `start`: SEEK.*; SET unless given. */
  whence?: number;
  /** Told by F_GETLK. */
  pid?: number;
}

/** struct statfs. */
export interface FileSystemTotals extends Totals {
  type: number;
  blockBytes: number;
  freeBytes: number;
  nameBytesMax: number;
}

/** An open file descriptor. */
export class KernelFile implements OpenFile {
  constructor(readonly fs: Kernel, readonly fd: number) {}

  /** The same descriptor, used by somebody else. */
  as(identity: Identity): KernelFile {
    return new KernelFile(this.fs.as(identity), this.fd);
  }

  async read(count: number): Promise<Uint8Array> {
    return (await this.fs.call("read", [this.fd, { out: count }, count], { trim: true })).out[0];
  }

  async pread(count: number, offset: number | bigint): Promise<Uint8Array> {
    return (await this.fs.call("pread64", [this.fd, { out: count }, count, offset], { trim: true })).out[0];
  }

  async write(data: Bytes): Promise<number> {
    const bytes = contents(data);
    return (await this.fs.call("write", [this.fd, bytes, bytes.length])).result;
  }

  async pwrite(data: Bytes, offset: number | bigint): Promise<number> {
    const bytes = contents(data);
    return (await this.fs.call("pwrite64", [this.fd, bytes, bytes.length, offset])).result;
  }

  /** Reads into buffers of these sizes; at an offset if given, with RWF.* flags if given. */
  async readv(sizes: number[], offset?: number, flags?: number): Promise<Uint8Array[]> {
    const vector = { vector: sizes.map((size) => ({ out: size })) };
    const { result, out } = await this.#vectored("read", vector, offset, flags);
    let left = result;
    return out.map((bytes) => {
      const part = bytes.subarray(0, Math.min(left, bytes.length));
      left -= part.length;
      return part;
    });
  }

  /** Writes from several buffers; see {@linkcode readv}. */
  async writev(parts: Bytes[], offset?: number, flags?: number): Promise<number> {
    return (await this.#vectored("write", { vector: parts.map(contents) }, offset, flags)).result;
  }

  #vectored(
    verb: "read" | "write",
    vector: { vector: (Uint8Array | { out: number })[] },
    offset?: number,
    flags?: number,
  ): Promise<Answer> {
    const count = vector.vector.length;
    if (flags !== undefined) {
      const call = verb === "read" ? "preadv2" : "pwritev2";
      return this.fs.call(call, [this.fd, vector, count, offset ?? -1, offset === undefined ? -1 : 0, flags]);
    }
    if (offset === undefined) return this.fs.call(verb === "read" ? "readv" : "writev", [this.fd, vector, count]);
    return this.fs.call(verb === "read" ? "preadv" : "pwritev", [this.fd, vector, count, offset, 0]);
  }

  async lseek(offset: number | bigint, whence: number): Promise<number> {
    return (await this.fs.call("lseek", [this.fd, offset, whence])).result;
  }

  async fstat(): Promise<Statx> {
    return await this.fs.statx(this.fd, "", AT.EMPTY_PATH, STATX.ALL);
  }

  async ftruncate(size: number | bigint): Promise<void> {
    await this.fs.call("ftruncate", [this.fd, size]);
  }

  async fallocate(mode: number, offset: number | bigint, length: number | bigint): Promise<void> {
    await this.fs.call("fallocate", [this.fd, mode, offset, length]);
  }

  async fsync(): Promise<void> {
    await this.fs.call("fsync", [this.fd]);
  }

  async fdatasync(): Promise<void> {
    await this.fs.call("fdatasync", [this.fd]);
  }

  async fchmod(mode: number): Promise<void> {
    await this.fs.call("fchmod", [this.fd, mode]);
  }

  async fchown(uid: number, gid: number): Promise<void> {
    await this.fs.call("fchown", [this.fd, uid, gid]);
  }

  async futimens(atime: When | "omit", mtime: When | "omit"): Promise<void> {
    await this.fs.call("utimensat", [this.fd, 0, timespecs(atime, mtime), 0]);
  }

  async flock(operation: number): Promise<void> {
    await this.fs.call("flock", [this.fd, operation]);
  }

  /** fcntl(2) with a number. */
  async fcntl(command: number, arg = 0): Promise<number> {
    const { result } = await this.fs.call("fcntl", [this.fd, command, arg]);
    if (command === F.DUPFD) this.fs.opened(result);
    return result;
  }

  /** fcntl(2) with a struct flock: type 0, whence 2, start 8, len 16, pid 24. The lock as it came back. */
  async lock(command: number, lock: RangeLock): Promise<RangeLock> {
    const bytes = new Uint8Array(flockBytes), view = new DataView(bytes.buffer);
    view.setInt16(0, lock.type, true);
    view.setInt16(2, lock.whence ?? 0, true);
    view.setBigInt64(8, BigInt(lock.start), true);
    view.setBigInt64(16, BigInt(lock.length), true);
    const { out } = await this.fs.call("fcntl", [this.fd, command, { inout: bytes }]);
    const told = new DataView(out[0].buffer, out[0].byteOffset);
    return {
      type: told.getInt16(0, true),
      whence: told.getInt16(2, true),
      start: Number(told.getBigInt64(8, true)),
      length: Number(told.getBigInt64(16, true)),
      pid: told.getInt32(24, true),
    };
  }

  /** Another descriptor of the same open file. */
  async dup(): Promise<KernelFile> {
    const { result } = await this.fs.call("dup", [this.fd]);
    return this.fs.opened(result);
  }

  /** copy_file_range(2); null offsets use the positions of the files. */
  async copyTo(to: KernelFile, options: {
    from: number | null;
    to: number | null;
    length: number | bigint;
    flags?: number;
  }): Promise<number> {
    const offset = (at: number | null) =>
      at === null ? 0 : { inout: new Uint8Array(BigInt64Array.of(BigInt(at)).buffer) };
    const args = [this.fd, offset(options.from), to.fd, offset(options.to), options.length, options.flags ?? 0];
    return (await this.fs.call("copy_file_range", args)).result;
  }

  /** Maps a part of the file; it is undone after the case. */
  async mmap(length: number, protection: number, flags: number, offset = 0): Promise<Mapping> {
    const { result } = await this.fs.call("mmap", [0, length, protection, flags, this.fd, offset]);
    return this.fs.mapped(new Mapping(this.fs, result, length));
  }

  /** Makes the file `length` bytes long and maps all of it, shared, to be read and written. */
  async mmapOf(length: number): Promise<Mapping> {
    await this.ftruncate(length);
    return await this.mmap(length, ...sharedMap);
  }

  /** One getdents64(2); no entries at the end. Has "." and "..". */
  async getdents(limitBytes = direntBytes): Promise<Dirent[]> {
    const { out } = await this.fs.call("getdents64", [this.fd, { out: limitBytes }, limitBytes], { trim: true });
    return direntsOf(out[0]);
  }

  /** getdents64(2) to the end. */
  async dirents(): Promise<Dirent[]> {
    const all: Dirent[] = [];
    for (let page = await this.getdents(); page.length > 0; page = await this.getdents()) all.push(...page);
    return all;
  }

  async close(): Promise<void> {
    this.fs.closed(this.fd);
    await this.fs.call("close", [this.fd]);
  }
}

/** A mapping of a process. Touching what cannot be had ends the process: {@linkcode Mapping.get} rejects then. */
export class Mapping {
  constructor(readonly fs: Kernel, readonly address: number, readonly length: number) {}

  /** Reads memory. */
  async get(offset: number, length: number): Promise<Uint8Array> {
    return (await this.fs.agent.call({ call: "peek", address: this.address + offset, length })).out[0];
  }

  /** Writes memory. */
  async put(offset: number, data: Bytes): Promise<void> {
    await this.fs.agent.call({ call: "poke", address: this.address + offset, bytes: contents(data) });
  }

  async msync(flags: number, offset = 0, length = this.length): Promise<void> {
    await this.fs.call("msync", [this.address + offset, length, flags]);
  }

  async munmap(): Promise<void> {
    this.fs.unmapped(this);
    await this.fs.call("munmap", [this.address, this.length]);
  }
}

/** A process of a case, and what it has open. */
class Process {
  readonly descriptors = new Set<number>();
  readonly mappings = new Set<Mapping>();

  constructor(
    readonly agent: AgentProcess,
    /** Where it has the file system. */
    readonly mount: string,
    /** All processes of the case. */
    readonly all: Process[],
  ) {
    all.push(this);
  }
}

/** Files by system calls. Every method is the call of its name, except where it says more. */
export class Kernel implements Files {
  readonly #way: KernelWay;
  readonly #process: Process;
  readonly #identity: Identity;

  /** Made by {@linkcode KernelWay}. */
  constructor(
    way: KernelWay,
    process: Process,
    identity: Identity,
    /** Name of the case's folder. */
    readonly name: string,
  ) {
    this.#way = way;
    this.#process = process;
    this.#identity = identity;
  }

  /** The process that makes the calls. */
  get agent(): AgentProcess {
    return this.#process.agent;
  }

  /** Its process id. */
  get pid(): number {
    return this.agent.pid;
  }

  get folder(): string {
    return `${this.#process.mount}/${this.name}`;
  }

  as(identity: Identity): Kernel {
    return new Kernel(this.#way, this.#process, identity, this.name);
  }

  async process(): Promise<Kernel> {
    return await this.#way.enter(this.name, this.#process.mount, this.#process.all);
  }

  async elsewhere(): Promise<Kernel> {
    const { mounts } = this.#way, next = (mounts.indexOf(this.#process.mount) + 1) % mounts.length;
    return await this.#way.enter(this.name, mounts[next], this.#process.all);
  }

  async readOnly(): Promise<Kernel> {
    return await this.#way.enter(this.name, this.#way.places.readOnly, this.#process.all);
  }

  async small(): Promise<Kernel> {
    return await this.#way.enter("", this.#way.places.small, this.#process.all);
  }

  /** Any system call. Texts are paths; buffers that it writes to come back. */
  async call(
    name: keyof typeof SYS,
    args: (Argument | string)[],
    options: { trim?: boolean } = {},
  ): Promise<Answer> {
    const answer = await this.agent.call({
      call: "system",
      number: SYS[name],
      args: args.map((arg) => typeof arg === "string" ? path(arg) : arg),
      identity: this.#identity,
      trim: options.trim ?? false,
    });
    if (answer.result >= 0) return answer;
    throw new CallError(errnoText(answer.result), `${name}(${args.map(show).join(", ")})`);
  }

  /** Remembers a descriptor, to be closed after the case. */
  opened(fd: number): KernelFile {
    this.#process.descriptors.add(fd);
    return new KernelFile(this, fd);
  }

  /** See {@linkcode opened}. */
  closed(fd: number): void {
    this.#process.descriptors.delete(fd);
  }

  /** Remembers a mapping, to be undone after the case. */
  mapped(mapping: Mapping): Mapping {
    this.#process.mappings.add(mapping);
    return mapping;
  }

  /** See {@linkcode mapped}. */
  unmapped(mapping: Mapping): void {
    this.#process.mappings.delete(mapping);
  }

  async open(name: Bytes, flags: number, mode = 0o644): Promise<KernelFile> {
    return await this.openat(AT.FDCWD, name, flags, mode);
  }

  /** `dir` is a descriptor or AT.FDCWD, as in all calls that end in "at". */
  async openat(dir: number, name: Bytes, flags: number, mode = 0o644): Promise<KernelFile> {
    const { result } = await this.call("openat", [dir, this.#path(name), flags | O.CLOEXEC, mode]);
    return this.opened(result);
  }

  async creat(name: Bytes, mode: number): Promise<KernelFile> {
    const { result } = await this.call("creat", [this.#path(name), mode]);
    return this.opened(result);
  }

  async mkdir(name: Bytes, mode = 0o755): Promise<void> {
    await this.call("mkdir", [this.#path(name), mode]);
  }

  async mkdirat(dir: number, name: Bytes, mode = 0o755): Promise<void> {
    await this.call("mkdirat", [dir, this.#path(name), mode]);
  }

  /** `mode` has the type; `device` is major * 256 + minor. */
  async mknod(name: Bytes, mode: number, device = 0): Promise<void> {
    await this.call("mknod", [this.#path(name), mode, device]);
  }

  async rmdir(name: Bytes): Promise<void> {
    await this.call("rmdir", [this.#path(name)]);
  }

  async unlink(name: Bytes): Promise<void> {
    await this.call("unlink", [this.#path(name)]);
  }

  async unlinkat(dir: number, name: Bytes, flags: number): Promise<void> {
    await this.call("unlinkat", [dir, this.#path(name), flags]);
  }

  async rename(from: Bytes, to: Bytes): Promise<void> {
    await this.call("rename", [this.#path(from), this.#path(to)]);
  }

  /** flags: RENAME.*. */
  async renameat2(from: Bytes, to: Bytes, flags: number, dirs: [number, number] = [AT.FDCWD, AT.FDCWD]): Promise<void> {
    await this.call("renameat2", [dirs[0], this.#path(from), dirs[1], this.#path(to), flags]);
  }

  async link(from: Bytes, to: Bytes): Promise<void> {
    await this.call("link", [this.#path(from), this.#path(to)]);
  }

  async linkat(from: Bytes, to: Bytes, flags: number, dirs: [number, number] = [AT.FDCWD, AT.FDCWD]): Promise<void> {
    await this.call("linkat", [dirs[0], this.#path(from), dirs[1], this.#path(to), flags]);
  }

  async symlink(target: Bytes, name: Bytes): Promise<void> {
    await this.call("symlink", [this.#path(target), this.#path(name)]);
  }

  async readlink(name: Bytes): Promise<string> {
    return decoder.decode(await this.readlinkBytes(name));
  }

  /** At most `limitBytes` of a link's target. */
  async readlinkBytes(name: Bytes, limitBytes = 8192): Promise<Uint8Array> {
    const args = [this.#path(name), { out: limitBytes }, limitBytes];
    return (await this.call("readlink", args, { trim: true })).out[0];
  }

  async chmod(name: Bytes, mode: number): Promise<void> {
    await this.call("chmod", [this.#path(name), mode]);
  }

  async chown(name: Bytes, uid: number, gid: number): Promise<void> {
    await this.call("chown", [this.#path(name), uid, gid]);
  }

  async lchown(name: Bytes, uid: number, gid: number): Promise<void> {
    await this.call("lchown", [this.#path(name), uid, gid]);
  }

  async truncate(name: Bytes, size: number | bigint): Promise<void> {
    await this.call("truncate", [this.#path(name), size]);
  }

  async utimens(name: Bytes, atime: When | "omit", mtime: When | "omit", flags = 0): Promise<void> {
    await this.call("utimensat", [AT.FDCWD, this.#path(name), timespecs(atime, mtime), flags]);
  }

  /** access(2) with the real ids; ACCESS.*. */
  async access(name: Bytes, mode: number): Promise<void> {
    await this.call("access", [this.#path(name), mode]);
  }

  async statx(dir: number, name: Bytes, flags: number, mask: number): Promise<Statx> {
    const { out } = await this.call("statx", [dir, this.#path(name), flags, mask, { out: statxBytes }]);
    return statxOf(out[0]);
  }

  async stat(name: Bytes): Promise<Statx> {
    return await this.statx(AT.FDCWD, name, 0, STATX.ALL);
  }

  async lstat(name: Bytes): Promise<Statx> {
    return await this.statx(AT.FDCWD, name, AT.SYMLINK_NOFOLLOW, STATX.ALL);
  }

  async statfs(name: Bytes): Promise<FileSystemTotals> {
    const { out } = await this.call("statfs", [this.#path(name), { out: statfsBytes }]);
    const view = new DataView(out[0].buffer, out[0].byteOffset);
    const word = (at: number) => Number(view.getBigInt64(at * 8, true)), blockBytes = word(1);
    return {
      type: word(0),
      blockBytes,
      sizeBytes: word(2) * blockBytes,
      freeBytes: word(3) * blockBytes,
      availableBytes: word(4) * blockBytes,
      inodes: word(5),
      inodesFree: word(6),
      nameBytesMax: word(8),
    };
  }

  async readdir(name: Bytes): Promise<Entry[]> {
    const file = await this.open(name, O.RDONLY | O.DIRECTORY);
    const entries = await file.dirents();
    await file.close();
    return entries.map((entry) => ({ name: decoder.decode(entry.name), type: entry.type }))
      .filter(({ name }) => name !== "." && name !== "..");
  }

  async getxattr(name: Bytes, attribute: string, limitBytes = xattrBytes): Promise<Uint8Array> {
    return (await this.call("getxattr", [this.#path(name), attribute, { out: limitBytes }, limitBytes], { trim: true }))
      .out[0];
  }

  async lgetxattr(name: Bytes, attribute: string): Promise<Uint8Array> {
    return (await this.call("lgetxattr", [this.#path(name), attribute, { out: xattrBytes }, xattrBytes], {
      trim: true,
    }))
      .out[0];
  }

  async setxattr(name: Bytes, attribute: string, value: Bytes, flags = 0): Promise<void> {
    const bytes = contents(value);
    await this.call("setxattr", [this.#path(name), attribute, bytes, bytes.length, flags]);
  }

  async lsetxattr(name: Bytes, attribute: string, value: Bytes, flags = 0): Promise<void> {
    const bytes = contents(value);
    await this.call("lsetxattr", [this.#path(name), attribute, bytes, bytes.length, flags]);
  }

  async listxattr(name: Bytes): Promise<string[]> {
    const { out } = await this.call("listxattr", [this.#path(name), { out: xattrBytes }, xattrBytes], { trim: true });
    return decoder.decode(out[0]).split("\0").slice(0, -1);
  }

  async removexattr(name: Bytes, attribute: string): Promise<void> {
    await this.call("removexattr", [this.#path(name), attribute]);
  }

  /** For the rest of the case; the next one begins in its own folder. */
  async chdir(name: Bytes): Promise<void> {
    await this.call("chdir", [this.#path(name)]);
  }

  async fchdir(fd: number): Promise<void> {
    await this.call("fchdir", [fd]);
  }

  async getcwd(): Promise<string> {
    const { out } = await this.call("getcwd", [{ out: 8192 }, 8192], { trim: true });
    return decoder.decode(out[0].subarray(0, -1));
  }

  async writeFile(name: Bytes, data: Bytes, mode = 0o644): Promise<void> {
    const file = await this.open(name, O.WRONLY | O.CREAT | O.TRUNC, mode);
    const bytes = contents(data);
    for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
    await file.close();
  }

  async readFile(name: Bytes): Promise<Uint8Array> {
    const file = await this.open(name, O.RDONLY);
    const parts: Uint8Array[] = [];
    for (let part = await file.read(readFileBytes); part.length > 0; part = await file.read(readFileBytes)) {
      parts.push(part);
    }
    await file.close();
    return new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  }

  async readText(name: Bytes): Promise<string> {
    return decoder.decode(await this.readFile(name));
  }

  async exists(name: Bytes): Promise<boolean> {
    try {
      await this.lstat(name);
      return true;
    } catch (error) {
      if (error instanceof CallError && error.code === "ENOENT") return false;
      throw error;
    }
  }

  /** Anonymous memory with descriptors, on no file system of ours. */
  async memfd(): Promise<KernelFile> {
    const { result } = await this.call("memfd_create", ["test", 1]);
    return this.opened(result);
  }

  /** Runs a program by the shell in the case's folder: exit code 126 when it cannot be executed. */
  async run(command: string[]): Promise<Outcome> {
    const { uid, gid, groups } = this.#identity;
    const ids = [
      `--reuid=${uid}`,
      `--regid=${gid}`,
      groups.length > 0 ? `--groups=${groups.join(",")}` : "--clear-groups",
    ];
    // The shell goes to the folder as root: others may not walk there.
    const script = 'cd "$1"; shift; exec setpriv "$@"';
    return await attempt(["sh", "-c", script, "sh", this.folder, ...ids, "sh", "-c", '"$@"', "sh", ...command]);
  }

  /** Makes each of {@linkcode fileTypes} at `name`; a symbolic link leads nowhere. */
  async make(type: FileType, name: Bytes, mode = 0o644): Promise<void> {
    if (type === "directory") await this.mkdir(name, mode);
    else if (type === "symlink") await this.symlink("nowhere", name);
    else if (type === "file") await (await this.open(name, O.WRONLY | O.CREAT | O.EXCL, mode)).close();
    else await this.mknod(name, nodeTypes[type] | mode, type === "fifo" || type === "socket" ? 0 : 0x0103);
  }

  #path(value: Bytes): Uint8Array {
    return path(value);
  }
}

/** All types that a name can be of. */
export const fileTypes = ["file", "directory", "symlink", "fifo", "socket", "char", "block"] as const;
/** See {@linkcode fileTypes}. */
export type FileType = typeof fileTypes[number];
const nodeTypes = { fifo: S.IFIFO, socket: S.IFSOCK, char: S.IFCHR, block: S.IFBLK } as const;
/** Type bits of each. */
export const typeBits: Record<FileType, number> = {
  ...nodeTypes,
  file: S.IFREG,
  directory: S.IFDIR,
  symlink: S.IFLNK,
};

/** Shared memory that can be read and written, for {@linkcode KernelFile.mmap}. */
export const sharedMap = [PROT.READ | PROT.WRITE, MAP.SHARED] as const;

/** Cases by system calls on a mounted file system. */
export class KernelWay implements Way<Kernel> {
  readonly #idle: AgentProcess[] = [];

  constructor(
    readonly name: WayName,
    /** Folders of the file system: where a client has it, and where another one has. */
    readonly mounts: readonly string[],
    /** Where it is mounted read-only, and where a small one is mounted. */
    readonly places: { readOnly: string; small: string },
    /** Starts an agent. */
    readonly command: readonly string[] = agentCommand,
  ) {}

  async begin(folder: string): Promise<{ fs: Kernel; end(): Promise<void> }> {
    const all: Process[] = [], home = this.#acquire(this.mounts[0], all);
    const above = new Kernel(this, home, root, "");
    await above.mkdir(`${this.mounts[0]}/${folder}`);
    await above.chdir(`${this.mounts[0]}/${folder}`);
    return { fs: new Kernel(this, home, root, folder), end: () => this.#end(all) };
  }

  /** A further process in a case's folder, by one of the mounts. */
  async enter(folder: string, mount: string, all: Process[]): Promise<Kernel> {
    const process = this.#acquire(mount, all);
    const fs = new Kernel(this, process, root, folder);
    await fs.chdir(fs.folder);
    return fs;
  }

  async close(): Promise<void> {
    await Promise.all(this.#idle.splice(0).map((agent) => agent.end()));
  }

  #acquire(mount: string, all: Process[]): Process {
    return new Process(this.#idle.pop() ?? new AgentProcess(this.command), mount, all);
  }

  async #end(all: Process[]): Promise<void> {
    await Promise.all(all.map((process) => this.#giveBack(process)));
  }

  /** Leaves a process as it was before the case; one that cannot be is ended. */
  async #giveBack(process: Process): Promise<void> {
    const { agent, descriptors, mappings } = process;
    const fs = new Kernel(this, process, root, "");
    try {
      if (agent.busy) throw new Error("it is in a call");
      await Promise.all([
        ...[...mappings].map(({ address, length }) => fs.call("munmap", [address, length])),
        ...[...descriptors].map((fd) => fs.call("close", [fd])),
        fs.chdir("/"),
      ]);
      this.#idle.push(agent);
    } catch {
      agent.kill();
      await agent.end();
    }
  }
}
