/**
 * A volume of a cluster with the methods of Deno's file API, for use without a mount.
 *
 * @module
 */

import type { Inspection, Totals } from "../../core/client/filesystem.ts";
import type { OpenFlags } from "../../core/client/open_file.ts";
import type { TreeProblem } from "../../core/client/tree_problems.ts";
import { pathBytesMax } from "../../core/client/walk.ts";
import { E } from "../../core/errno.ts";
import { nameBytesMax, xattrBytesMax } from "../../core/meta/layout.ts";
import { append, type FileHandle, readAt, writeAt } from "./content.ts";
import { closedError, type FileError, fileError } from "./errors.ts";
import { VolumeFile } from "./file.ts";
import { slotBytes } from "./messages.ts";
import { dirEntry, fileInfo, timeOf, wholeNumber } from "./values.ts";
import type { WorkerLink } from "./worker_link.ts";

const fileMode = 0o666, directoryMode = 0o777;
const xattrCreate = 1, xattrReplace = 2;
/** How often progress is asked for. */
const progressMs = 200;

/** Options of reading a whole file. */
export interface ReadFileOptions {
  /** Ends the operation between its steps. */
  signal?: AbortSignal;
}

/** Options of writing a whole file. */
export interface WriteFileOptions {
  /** Write at the end instead of replacing the contents. */
  append?: boolean;
  /** Make the file if it is absent; true unless given. */
  create?: boolean;
  /** Fail if the name is there. */
  createNew?: boolean;
  /** Permission bits, set exactly. Without them a new file gets 0o666 minus the umask. */
  mode?: number;
  /** Ends the operation between its steps; what was written stays. */
  signal?: AbortSignal;
}

/** Options of opening a file. */
export interface OpenOptions {
  read?: boolean;
  write?: boolean;
  /** Every write goes to the end of the file, in one piece among all clients up to 1 MiB. */
  append?: boolean;
  /** Cut the file to nothing; needs `write`. */
  truncate?: boolean;
  /** Make the file if it is absent; needs `write` or `append`. */
  create?: boolean;
  /** Make the file, and fail if the name is there; needs `write` or `append`. */
  createNew?: boolean;
  /** Permission bits of a new file, before the umask; 0o666 unless given. */
  mode?: number;
}

/** Options of making a directory. */
export interface MkdirOptions {
  /** Make those above that are absent too, and accept one that is there. */
  recursive?: boolean;
  /** Permission bits, before the umask; 0o777 unless given. */
  mode?: number;
}

/** Options of removing a tree. */
export interface RemoveAllOptions {
  /** After an error go on with the rest. */
  keepGoing?: boolean;
  /** Told a few times a second how far it is. */
  onProgress?: (progress: { files: number; directories: number }) => void;
  /** Ends it: what is under way is finished, nothing new begun. */
  signal?: AbortSignal;
}

/** Something of a tree that could not be dealt with. */
export interface Problem {
  path: string;
  error: FileError;
}

/** What was removed. */
export interface Removed {
  files: number;
  directories: number;
  /** It was ended by its signal. */
  stopped: boolean;
  problems: Problem[];
  /** Problems beyond those. */
  moreProblems: number;
}

/** What a tree takes. */
export interface TreeUsage {
  /** Everything but directories. */
  files: number;
  directories: number;
  /** Sum of the sizes of files. */
  apparentBytes: number;
  /** Space that files and directories have allocated. */
  allocatedBytes: number;
  /** Directories that could not be read. */
  problems: Problem[];
  moreProblems: number;
}

/** Whether a symbolic link at the end of the path is followed; true unless given. */
export interface FollowOptions {
  follow?: boolean;
}

/**
 * A volume. Paths are absolute or relative to the volume's root, which is also where absolute symbolic links lead and
 * what `..` never leaves. Names are text in UTF-8.
 *
 * Methods, options and errors are those of Deno's functions of the same name: `Deno.errors.NotFound` and so on, with
 * `code` such as `"ENOENT"` and the paths in the message. What a method has done every other client sees from then on.
 * An operation whose servers cannot be reached ends with code `"EIO"` after the connection's io timeout; whether it has
 * been done is not known then.
 *
 * Any number of operations may be under way at once.
 */
export class Volume implements AsyncDisposable {
  /** Its name in the cluster. */
  readonly name: string;
  readonly #link: WorkerLink;
  readonly #volume: number;
  readonly #root: number;
  readonly #onClose: () => void;
  #closed = false;
  #lastJob = 0;

  /** Made by `Cluster.open`. `volume` is the Worker's number, `root` the root's inode number. */
  constructor(
    link: WorkerLink,
    options: { name: string; volume: number; root: number; onClose: () => void },
  ) {
    this.#link = link;
    this.name = options.name;
    this.#volume = options.volume;
    this.#root = options.root;
    this.#onClose = options.onClose;
  }

  /** The contents of a file. */
  async readFile(path: string, options: ReadFileOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    options.signal?.throwIfAborted();
    const what = `readfile '${path}'`, at = this.#at(path, what);
    const start = await this.#link.withSlot(async (slot, bytes) => {
      const { count, file } = await this.#link.call("readWhole", { ...at, slot }, what);
      return file === 0 ? bytes.slice(0, count) : file;
    });
    if (typeof start !== "number") return start;
    const handle = { link: this.#link, file: start, path };
    try {
      return await this.#readAll(handle, what, options.signal);
    } finally {
      await this.#closeFile(handle);
    }
  }

  /** The contents of a file as text in UTF-8. */
  async readTextFile(path: string, options: ReadFileOptions = {}): Promise<string> {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(await this.readFile(path, options));
  }

  /**
   * Replaces the contents of a file, or adds to them; the file is made if it is absent. Up to 1 MiB nobody sees a part
   * of `data`, but the file may be seen empty before; to replace a file at once write another and rename it.
   */
  async writeFile(
    path: string,
    data: Uint8Array | ReadableStream<Uint8Array>,
    options: WriteFileOptions = {},
  ): Promise<void> {
    const { append = false, create = true, createNew = false, mode, signal } = options;
    signal?.throwIfAborted();
    const truncate = !append && !createNew;
    const flags = { read: false, write: !append, append, truncate, create, createNew, mode: mode ?? fileMode };
    const what = `writefile '${path}'`, at = this.#at(path, what), setMode = mode ?? null;
    if (data instanceof Uint8Array && data.length <= slotBytes) {
      return await this.#link.withSlot(async (slot, bytes) => {
        bytes.set(data);
        await this.#link.call("writeWhole", { ...at, flags, setMode, slot, length: data.length }, what);
      });
    }
    const { file } = await this.#link.call("open", { ...at, flags }, what);
    const handle = { link: this.#link, file, path };
    try {
      if (setMode !== null) await this.#link.call("fileMode", { file, mode: setMode }, what);
      if (data instanceof Uint8Array) await this.#writeAll(handle, data, append, signal);
      else await this.#writeStream(handle, data, append, signal);
    } finally {
      await this.#closeFile(handle);
    }
  }

  /** As {@linkcode writeFile}, of text in UTF-8. */
  async writeTextFile(
    path: string,
    data: string | ReadableStream<string>,
    options: WriteFileOptions = {},
  ): Promise<void> {
    if (typeof data === "string") return await this.writeFile(path, new TextEncoder().encode(data), options);
    await this.writeFile(path, data.pipeThrough(new TextEncoderStream()), options);
  }

  /** Opens a file, to read unless `options` say otherwise. A directory can be opened too, for `stat` and `sync`. */
  async open(path: string, options: OpenOptions = { read: true }): Promise<VolumeFile> {
    const flags = openFlags(options), what = `open '${path}'`;
    const { file } = await this.#link.call("open", { ...this.#at(path, what), flags }, what);
    return new VolumeFile({ link: this.#link, file, path }, { root: this.#root, appends: flags.append });
  }

  /** Opens a file to read and write that is made, or cut to nothing. */
  async create(path: string): Promise<VolumeFile> {
    return await this.open(path, { read: true, write: true, truncate: true, create: true });
  }

  /** Makes a directory. */
  async mkdir(path: string, options: MkdirOptions = {}): Promise<void> {
    const { recursive = false, mode = directoryMode } = options, what = `mkdir '${path}'`;
    await this.#link.call("mkdir", { ...this.#at(path, what), recursive, mode }, what);
  }

  /**
   * The entries of a directory, in no order, without "." and "..". What is made or removed meanwhile may be among them
   * or not; everything else is, once.
   */
  async *readDir(path: string): AsyncGenerator<Deno.DirEntry, void, unknown> {
    const what = `readdir '${path}'`;
    const { inode } = await this.#link.call("openDirectory", this.#at(path, what), what);
    for (let cookie = 0;;) {
      const page = await this.#link.call("readDirectory", { volume: this.#open(), inode, cookie }, what);
      if (page.names.length === 0) return;
      for (const [i, name] of page.names.entries()) yield dirEntry(name, page.types[i]);
      cookie = page.cookie;
    }
  }

  /** What a path names; symbolic links are followed. */
  async stat(path: string): Promise<Deno.FileInfo> {
    const what = `stat '${path}'`;
    return fileInfo(await this.#link.call("stat", { ...this.#at(path, what), follow: true }, what), this.#root);
  }

  /** As {@linkcode stat}, of a symbolic link itself. */
  async lstat(path: string): Promise<Deno.FileInfo> {
    const what = `lstat '${path}'`;
    return fileInfo(await this.#link.call("stat", { ...this.#at(path, what), follow: false }, what), this.#root);
  }

  /** True when {@linkcode stat} finds something. */
  async exists(path: string): Promise<boolean> {
    const what = `stat '${path}'`;
    const answer = await this.#link.ask("stat", { ...this.#at(path, what), follow: true });
    if (typeof answer !== "number") return true;
    if (answer === E.NOENT || answer === E.NOTDIR) return false;
    throw fileError(answer, what);
  }

  /** The absolute path, from the volume's root, without symbolic links, "." and "..". */
  async realPath(path: string): Promise<string> {
    const what = `realpath '${path}'`;
    return (await this.#link.call("realPath", this.#at(path, what), what)).path;
  }

  /** Moves a file or directory, in one step for all who look; a file or an empty directory at `to` is replaced. */
  async rename(from: string, to: string): Promise<void> {
    const what = `rename '${from}' -> '${to}'`;
    await this.#link.call("rename", { ...this.#at(from, what), to: this.#path(to, what) }, what);
  }

  /** Removes a file, a symbolic link or an empty directory; with `recursive` a directory with all that is in it. */
  async remove(path: string, options: { recursive?: boolean } = {}): Promise<void> {
    if (options.recursive) return void await this.removeAll(path);
    const what = `remove '${path}'`;
    await this.#link.call("remove", this.#at(path, what), what);
  }

  /**
   * Removes a file or a directory with all that is in it, mostly by the servers themselves: names go by the hundred,
   * many directories at once. It works while others change the tree. What could not be removed is an error; with
   * `keepGoing` the rest goes all the same and what stays is told.
   */
  async removeAll(path: string, options: RemoveAllOptions = {}): Promise<Removed> {
    const { keepGoing = false, onProgress, signal } = options, what = `remove '${path}'`;
    signal?.throwIfAborted();
    const at = this.#at(path, what), job = ++this.#lastJob;
    const stop = () => void this.#link.call("stopJob", { volume: at.volume, job }, what).catch(() => {});
    const tell = () => {
      this.#link.call("jobProgress", { volume: at.volume, job }, what).then((progress) => onProgress!(progress)).catch(
        () => {},
      );
    };
    signal?.addEventListener("abort", stop, { once: true });
    const timer = onProgress === undefined ? undefined : setInterval(tell, progressMs);
    try {
      const { problems, moreProblems, ...removed } = await this.#link.call(
        "removeAll",
        { ...at, keepGoing, job },
        what,
      );
      return { ...removed, problems: problems.map(problemOf), moreProblems };
    } finally {
      clearInterval(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  /**
   * What files and trees take, one answer a path, in their order; an error where there is none. A file with several
   * names is counted once. Servers sum up what they hold, many directories at once.
   */
  async usage(paths: string[]): Promise<(TreeUsage | FileError)[]> {
    for (const path of paths) this.#path(path, `usage '${path}'`);
    const { found } = await this.#link.call("usage", { volume: this.#open(), paths }, "usage");
    return found.map((one, i) => {
      if (typeof one === "number") return fileError(one, `usage '${paths[i]}'`);
      return { ...one, problems: one.problems.map(problemOf) };
    });
  }

  /** Where a file, directory or link and its data are, and who uses it. */
  async inspect(path: string): Promise<Inspection> {
    const what = `inspect '${path}'`;
    return await this.#link.call("inspect", this.#at(path, what), what);
  }

  /** Gives a file a further name. */
  async link(from: string, to: string): Promise<void> {
    const what = `link '${from}' -> '${to}'`;
    await this.#link.call("link", { ...this.#at(from, what), to: this.#path(to, what) }, what);
  }

  /** Makes a symbolic link at `path` that leads to `target`. */
  async symlink(target: string, path: string): Promise<void> {
    const what = `symlink '${target}' -> '${path}'`;
    await this.#link.call("symlink", { ...this.#at(path, what), target: this.#path(target, what) }, what);
  }

  /** Where a symbolic link leads, as it was written. */
  async readLink(path: string): Promise<string> {
    const what = `readlink '${path}'`;
    return (await this.#link.call("readLink", this.#at(path, what), what)).path;
  }

  /** Sets permission bits, 0 to 0o7777. */
  async chmod(path: string, mode: number): Promise<void> {
    const what = `chmod '${path}'`;
    await this.#link.call("chmod", { ...this.#at(path, what), mode: mode & 0o7777 }, what);
  }

  /** Sets owner and group; null leaves. */
  async chown(path: string, uid: number | null, gid: number | null, options: FollowOptions = {}): Promise<void> {
    const what = `chown '${path}'`;
    for (const id of [uid, gid]) if (id !== null) wholeNumber(id, what);
    await this.#link.call("chown", { ...this.#at(path, what), uid, gid, follow: options.follow ?? true }, what);
  }

  /** Sets the times of last access and change: Dates, or seconds since 1970. */
  async utime(
    path: string,
    atime: number | Date,
    mtime: number | Date,
    options: FollowOptions = {},
  ): Promise<void> {
    const what = `utime '${path}'`, times = { atime: timeOf(atime), mtime: timeOf(mtime) };
    await this.#link.call("utime", { ...this.#at(path, what), ...times, follow: options.follow ?? true }, what);
  }

  /** Cuts a file, or extends it by zeros, to `length` bytes. */
  async truncate(path: string, length = 0): Promise<void> {
    const what = `truncate '${path}'`;
    await this.#link.call("truncate", { ...this.#at(path, what), size: wholeNumber(length, what) }, what);
  }

  /** Copies contents and permission bits of a file; the servers' part of a mount's copy_file_range(2). */
  async copyFile(from: string, to: string): Promise<void> {
    const what = `copy '${from}' -> '${to}'`;
    await this.#link.call("copyFile", { ...this.#at(from, what), to: this.#path(to, what) }, what);
  }

  /** Size, use and free space of the volume in bytes, and counts of files. */
  async statfs(): Promise<Totals> {
    return await this.#link.call("statfs", { volume: this.#open() }, "statfs");
  }

  /** The value of an extended attribute, such as `user.color`; an error with code `"ENODATA"` when there is none. */
  async getXattr(path: string, name: string, options: FollowOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    const what = `getxattr '${path}' '${name}'`, follow = options.follow ?? true;
    const ask = { ...this.#at(path, what), name: xattrName(name, what), follow };
    return Uint8Array.from((await this.#link.call("getXattr", ask, what)).value);
  }

  /** Sets an extended attribute, at most 64 KiB; with `create` it must be absent, with `replace` present. */
  async setXattr(
    path: string,
    name: string,
    value: Uint8Array,
    options: FollowOptions & { create?: boolean; replace?: boolean } = {},
  ): Promise<void> {
    const what = `setxattr '${path}' '${name}'`, { create = false, replace = false, follow = true } = options;
    if (value.length > xattrBytesMax) throw fileError(E["2BIG"], what);
    const flags = (create ? xattrCreate : 0) | (replace ? xattrReplace : 0);
    const ask = { ...this.#at(path, what), name: xattrName(name, what), value, flags, follow };
    await this.#link.call("setXattr", ask, what);
  }

  /** Names of the extended attributes. */
  async listXattr(path: string, options: FollowOptions = {}): Promise<string[]> {
    const what = `listxattr '${path}'`;
    const ask = { ...this.#at(path, what), follow: options.follow ?? true };
    return (await this.#link.call("listXattr", ask, what)).names;
  }

  /** Removes an extended attribute. */
  async removeXattr(path: string, name: string, options: FollowOptions = {}): Promise<void> {
    const what = `removexattr '${path}' '${name}'`, follow = options.follow ?? true;
    await this.#link.call("removeXattr", { ...this.#at(path, what), name: xattrName(name, what), follow }, what);
  }

  /** Closes the volume and its files. Closing it twice does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose();
    // A connection that has ended has closed everything.
    await this.#link.ask("closeVolume", { volume: this.#volume }).catch(() => {});
  }

  /** As {@linkcode close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #open(): number {
    if (this.#closed) throw closedError(`volume ${this.name}`);
    return this.#volume;
  }

  #at(path: string, what: string): { volume: number; path: string } {
    return { volume: this.#open(), path: this.#path(path, what) };
  }

  #path(path: string, what: string): string {
    if (typeof path !== "string") throw new TypeError(`a path is a string, not ${path}`);
    if (path.length > pathBytesMax) throw fileError(E.NAMETOOLONG, what);
    return path;
  }

  /** A file that is larger than a slot, or was when it was opened. */
  async #readAll(handle: FileHandle, what: string, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const { size } = await this.#link.call("fileStat", { file: handle.file }, what);
    let content = new Uint8Array(size);
    let length = 0;
    for (;;) {
      signal?.throwIfAborted();
      // A part at a time, so that a signal is heard.
      const part = content.subarray(length, length + 16 * slotBytes);
      const count = await readAt(handle, length, part);
      length += count;
      if (count < part.length) return content.slice(0, length);
      if (length < content.length) continue;
      const more = new Uint8Array(slotBytes);
      const extra = await readAt(handle, length, more);
      if (extra === 0) return content;
      const longer = new Uint8Array(length + extra);
      longer.set(content);
      longer.set(more.subarray(0, extra), length);
      content = longer;
      length += extra;
    }
  }

  async #writeAll(handle: FileHandle, data: Uint8Array, appends: boolean, signal?: AbortSignal): Promise<void> {
    for (let at = 0; at < data.length; at += 16 * slotBytes) {
      signal?.throwIfAborted();
      const part = data.subarray(at, at + 16 * slotBytes);
      if (appends) await append(handle, part);
      else await writeAt(handle, at, part);
    }
  }

  async #writeStream(
    handle: FileHandle,
    stream: ReadableStream<Uint8Array>,
    appends: boolean,
    signal?: AbortSignal,
  ): Promise<void> {
    let at = 0;
    for await (const chunk of stream) {
      signal?.throwIfAborted();
      if (appends) await append(handle, chunk);
      else await writeAt(handle, at, chunk);
      at += chunk.length;
    }
  }

  async #closeFile({ file }: FileHandle): Promise<void> {
    // Every write has been acknowledged: a close has nothing to tell.
    await this.#link.ask("close", { file }).catch(() => {});
  }
}

/** The flags of open options; throws as Deno.open does for those that make no sense. */
function openFlags(options: OpenOptions): OpenFlags {
  const { read = false, write = false, append = false, truncate = false, create = false, createNew = false } = options;
  if (!read && !write && !append) {
    throw new Error(
      truncate || create || createNew
        ? "'create', 'createNew' and 'truncate' options require 'write' or 'append' to be true"
        : "'options' requires at least one option to be true",
    );
  }
  if (truncate && !write) throw new Error("'truncate' option requires 'write' to be true");
  if ((create || createNew) && !write && !append) {
    throw new Error("'create' or 'createNew' options require 'write' or 'append' to be true");
  }
  return { read, write, append, truncate, create, createNew, mode: options.mode ?? fileMode };
}

function xattrName(name: string, what: string): string {
  if (name.length > nameBytesMax) throw fileError(E.RANGE, what);
  return name;
}

function problemOf({ path, errno }: TreeProblem): Problem {
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(path);
  return { path: text, error: fileError(errno, `'${text}'`) };
}
