/**
 * Files over the library: a {@linkcode Volume} of mod.ts for each identity of each process of a case. What the library
 * does not offer is a mistake of the case, not a failure of the file system, and is said so.
 *
 * @module
 */

import { type Cluster, connect, type Volume, type VolumeFile } from "../../mod.ts";
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
  type When,
} from "./case.ts";
import { DT, LOCK, O, S, XATTR } from "./constants.ts";

const encoder = new TextEncoder(), decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const flagsOffered = O.WRONLY | O.RDWR | O.CREAT | O.EXCL | O.TRUNC | O.APPEND | O.CLOEXEC;

/** A case that asks the library for what it does not have. */
function notOffered(what: string): never {
  throw new Error(`the library has no ${what}: make this a case of kernel()`);
}

function contents(data: Bytes): Uint8Array {
  return typeof data === "string" ? encoder.encode(data) : data;
}

async function calling<T>(call: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const { code } = error as { code?: string };
    throw error instanceof Error && code !== undefined ? new CallError(code, `library ${call}`) : error;
  }
}

function statOf(info: Deno.FileInfo): Stat {
  const time = (date: Date | null) => BigInt(date?.getTime() ?? 0) * 1_000_000n;
  return {
    ino: info.ino ?? 0,
    mode: info.mode ?? 0,
    nlink: info.nlink ?? 0,
    uid: info.uid ?? 0,
    gid: info.gid ?? 0,
    rdev: info.rdev ?? 0,
    size: info.size,
    blocks: info.blocks ?? 0,
    atime: time(info.atime),
    mtime: time(info.mtime),
    ctime: time(info.ctime),
    btime: time(info.birthtime),
  };
}

class LibraryFile implements OpenFile {
  constructor(readonly file: VolumeFile, readonly what: string, readonly process: Process) {}

  async read(count: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(count);
    return bytes.subarray(0, await calling(`read ${this.what}`, this.file.read(bytes)) ?? 0);
  }

  async pread(count: number, offset: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(count);
    return bytes.subarray(0, await calling(`read ${this.what}`, this.file.readAt(bytes, offset)));
  }

  async write(data: Bytes): Promise<number> {
    return await calling(`write ${this.what}`, this.file.write(contents(data)));
  }

  async pwrite(data: Bytes, offset: number): Promise<number> {
    const bytes = contents(data);
    await calling(`write ${this.what}`, this.file.writeAt(bytes, offset));
    return bytes.length;
  }

  async lseek(offset: number, whence: number): Promise<number> {
    return await calling(`seek ${this.what}`, this.file.seek(offset, whence));
  }

  async fstat(): Promise<Stat> {
    return statOf(await calling(`fstat ${this.what}`, this.file.stat()));
  }

  async ftruncate(size: number): Promise<void> {
    await calling(`ftruncate ${this.what}`, this.file.truncate(size));
  }

  async fsync(): Promise<void> {
    await calling(`fsync ${this.what}`, this.file.sync());
  }

  async flock(operation: number): Promise<void> {
    const call = `flock ${this.what}`, exclusive = (operation & LOCK.EX) !== 0;
    if ((operation & LOCK.UN) !== 0) return await calling(call, this.file.unlock());
    if ((operation & LOCK.NB) === 0) return await calling(call, this.file.lock(exclusive));
    if (!await calling(call, this.file.tryLock(exclusive))) throw new CallError("EAGAIN", call);
  }

  async close(): Promise<void> {
    this.process.files.delete(this.file);
    await this.file.close();
  }
}

/** What a process of a case has open. */
class Process {
  readonly files = new Set<VolumeFile>();

  constructor(
    /** Which of the connections it uses. */
    readonly client: number,
    /** All processes of the case. */
    readonly all: Process[],
  ) {
    all.push(this);
  }
}

/** Which volume of the cluster, and how it is opened. */
interface VolumeOptions {
  readOnly: boolean;
  small: boolean;
}

class LibraryFiles implements Files {
  readonly #way: LibraryWay;
  readonly #process: Process;
  readonly #identity: Identity;
  readonly #options: VolumeOptions;

  constructor(
    way: LibraryWay,
    process: Process,
    identity: Identity,
    readonly folder: string,
    options: VolumeOptions = { readOnly: false, small: false },
  ) {
    this.#options = options;
    this.#way = way;
    this.#process = process;
    this.#identity = identity;
  }

  as(identity: Identity): LibraryFiles {
    return new LibraryFiles(this.#way, this.#process, identity, this.folder, this.#options);
  }

  process(): Promise<LibraryFiles> {
    return Promise.resolve(this.#way.enter(this.#process.client, this.folder, this.#process.all));
  }

  elsewhere(): Promise<LibraryFiles> {
    return Promise.resolve(this.#way.enter(this.#process.client + 1, this.folder, this.#process.all));
  }

  readOnly(): Promise<LibraryFiles> {
    const options = { ...this.#options, readOnly: true };
    return Promise.resolve(new LibraryFiles(this.#way, this.#process, this.#identity, this.folder, options));
  }

  small(): Promise<LibraryFiles> {
    const options = { readOnly: false, small: true };
    return Promise.resolve(new LibraryFiles(this.#way, this.#process, this.#identity, "", options));
  }

  async #do<T>(call: string, work: (volume: Volume) => Promise<T>): Promise<T> {
    return await calling(call, work(await this.#way.volume(this.#process.client, this.#identity, this.#options)));
  }

  #at(path: string): string {
    return path === "" || path.startsWith("/") ? path : `${this.folder}/${path}`;
  }

  async open(path: string, flags: number, mode = 0o644): Promise<OpenFile> {
    if ((flags & ~flagsOffered) !== 0) notOffered(`open flag in 0${flags.toString(8)}`);
    const access = flags & 3, append = (flags & O.APPEND) !== 0;
    if (access === O.RDONLY && (flags & ~O.CLOEXEC) !== 0) notOffered("flags for files that are only read");
    if (append && (flags & O.TRUNC) !== 0) notOffered("O_APPEND with O_TRUNC");
    const options: Deno.OpenOptions = {
      read: access !== O.WRONLY,
      write: access !== O.RDONLY && !append,
      append,
      truncate: (flags & O.TRUNC) !== 0,
      create: (flags & O.CREAT) !== 0,
      createNew: (flags & O.CREAT) !== 0 && (flags & O.EXCL) !== 0,
    };
    const file = await this.#do(`open ${path}`, (volume) => volume.open(this.#at(path), { ...options, mode }));
    this.#process.files.add(file);
    return new LibraryFile(file, path, this.#process);
  }

  async mkdir(path: string, mode = 0o755): Promise<void> {
    await this.#do(`mkdir ${path}`, (volume) => volume.mkdir(this.#at(path), { mode }));
  }

  async rmdir(path: string): Promise<void> {
    await this.#remove(path, true);
  }

  async unlink(path: string): Promise<void> {
    await this.#remove(path, false);
  }

  /** The library has one method for both: what it would not refuse is not asked for. */
  async #remove(path: string, directory: boolean): Promise<void> {
    const info = await this.as(root).lstat(path).catch(() => null);
    if (info !== null && ((info.mode & S.IFMT) === S.IFDIR) !== directory) notOffered("unlink or rmdir of its own");
    await this.#do(`remove ${path}`, (volume) => volume.remove(this.#at(path)));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#do(`rename ${from} ${to}`, (volume) => volume.rename(this.#at(from), this.#at(to)));
  }

  async link(from: string, to: string): Promise<void> {
    await this.#do(`link ${from} ${to}`, (volume) => volume.link(this.#at(from), this.#at(to)));
  }

  async symlink(target: string, path: string): Promise<void> {
    await this.#do(`symlink ${target} ${path}`, (volume) => volume.symlink(target, this.#at(path)));
  }

  async readlink(path: string): Promise<string> {
    return await this.#do(`readlink ${path}`, (volume) => volume.readLink(this.#at(path)));
  }

  async chmod(path: string, mode: number): Promise<void> {
    await this.#do(`chmod ${path}`, (volume) => volume.chmod(this.#at(path), mode));
  }

  async chown(path: string, uid: number, gid: number): Promise<void> {
    await this.#chown(path, uid, gid, true);
  }

  async lchown(path: string, uid: number, gid: number): Promise<void> {
    await this.#chown(path, uid, gid, false);
  }

  async #chown(path: string, uid: number, gid: number, follow: boolean): Promise<void> {
    const given = (id: number) => id === -1 ? null : id;
    await this.#do(`chown ${path}`, (volume) => volume.chown(this.#at(path), given(uid), given(gid), { follow }));
  }

  async truncate(path: string, size: number): Promise<void> {
    await this.#do(`truncate ${path}`, (volume) => volume.truncate(this.#at(path), size));
  }

  async utimens(path: string, atime: When, mtime: When): Promise<void> {
    const date = (when: When) => {
      if (when === "now" || when % 1_000_000n !== 0n) notOffered("times but in milliseconds");
      return new Date(Number(when / 1_000_000n));
    };
    await this.#do(`utime ${path}`, (volume) => volume.utime(this.#at(path), date(atime), date(mtime)));
  }

  async stat(path: string): Promise<Stat> {
    return statOf(await this.#do(`stat ${path}`, (volume) => volume.stat(this.#at(path))));
  }

  async lstat(path: string): Promise<Stat> {
    return statOf(await this.#do(`lstat ${path}`, (volume) => volume.lstat(this.#at(path))));
  }

  async statfs(_path: string): Promise<Totals> {
    return await this.#do("statfs", (volume) => volume.statfs());
  }

  async readdir(path: string): Promise<Entry[]> {
    const entries = await this.#do(`readdir ${path}`, (volume) => Array.fromAsync(volume.readDir(this.#at(path))));
    return entries.map(({ name, isFile, isDirectory, isSymlink }) => {
      return { name, type: isFile ? DT.REG : isDirectory ? DT.DIR : isSymlink ? DT.LNK : 0 };
    });
  }

  async getxattr(path: string, name: string): Promise<Uint8Array> {
    return await this.#do(`getxattr ${path} ${name}`, (volume) => volume.getXattr(this.#at(path), name));
  }

  async setxattr(path: string, name: string, value: Bytes, flags = 0): Promise<void> {
    const options = { create: (flags & XATTR.CREATE) !== 0, replace: (flags & XATTR.REPLACE) !== 0 };
    await this.#do(
      `setxattr ${path} ${name}`,
      (volume) => volume.setXattr(this.#at(path), name, contents(value), options),
    );
  }

  async listxattr(path: string): Promise<string[]> {
    return await this.#do(`listxattr ${path}`, (volume) => volume.listXattr(this.#at(path)));
  }

  async removexattr(path: string, name: string): Promise<void> {
    await this.#do(`removexattr ${path} ${name}`, (volume) => volume.removeXattr(this.#at(path), name));
  }

  async writeFile(path: string, data: Bytes, mode = 0o644): Promise<void> {
    const file = await this.open(path, O.WRONLY | O.CREAT | O.TRUNC, mode);
    await file.write(data);
    await file.close();
  }

  async readFile(path: string): Promise<Uint8Array> {
    return await this.#do(`readfile ${path}`, (volume) => volume.readFile(this.#at(path)));
  }

  async readText(path: string): Promise<string> {
    return decoder.decode(await this.readFile(path));
  }

  async exists(path: string): Promise<boolean> {
    try {
      await this.lstat(path);
      return true;
    } catch (error) {
      if (error instanceof CallError && error.code === "ENOENT") return false;
      throw error;
    }
  }
}

/** Cases over the library: two connections to one cluster. */
export class LibraryWay implements Way<Files> {
  readonly name = "library";
  readonly #clusters: Cluster[];
  readonly #names: { volume: string; small: string };
  readonly #volumes = new Map<string, Promise<Volume>>();

  private constructor(clusters: Cluster[], names: { volume: string; small: string }) {
    this.#clusters = clusters;
    this.#names = names;
  }

  /** Connects to the cluster of a manager. */
  static async start(managerAddress: string, names: { volume: string; small: string }): Promise<LibraryWay> {
    const connected = await Promise.all([connect({ managerAddress }), connect({ managerAddress })]);
    return new LibraryWay(connected, names);
  }

  async begin(folder: string): Promise<{ fs: Files; end(): Promise<void> }> {
    const all: Process[] = [], fs = this.enter(0, `/${folder}`, all);
    await (await this.volume(0, root)).mkdir(`/${folder}`, { mode: 0o755 });
    return { fs, end: () => this.#end(all) };
  }

  /** A process of its own in a folder. */
  enter(client: number, folder: string, all: Process[]): LibraryFiles {
    const process = new Process(client % this.#clusters.length, all);
    return new LibraryFiles(this, process, root, folder);
  }

  /** The volume as somebody has it. */
  volume(client: number, identity: Identity, options?: VolumeOptions): Promise<Volume> {
    const { uid, gid, groups, umask } = identity, { readOnly = false, small = false } = options ?? {};
    const key = JSON.stringify([client, uid, gid, groups, umask, readOnly, small]);
    const known = this.#volumes.get(key);
    if (known !== undefined) return known;
    const opened = this.#clusters[client].open(small ? this.#names.small : this.#names.volume, {
      readOnly,
      as: { uid, gid, groups: [...groups], umask },
    });
    this.#volumes.set(key, opened);
    return opened;
  }

  async #end(all: Process[]): Promise<void> {
    await Promise.all(all.flatMap(({ files }) => [...files].map((file) => file.close())));
  }

  async close(): Promise<void> {
    await Promise.all(this.#clusters.map((cluster) => cluster.close()));
  }
}
