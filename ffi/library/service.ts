/**
 * The Worker's side of the library: volumes and files that programs have open, and a task for each call of
 * ffi/library/messages.ts. It knows file systems, not where they come from.
 *
 * @module
 */

import { type Caller, type Done, done, type FileSystem } from "../../core/client/filesystem.ts";
import { copyFile, type OpenFile, openFile, readWhole, writeWhole } from "../../core/client/open_file.ts";
import { Paths } from "../../core/client/paths.ts";
import type { Removal, RemovalProgress } from "../../core/client/remove_tree.ts";
import type { LinksMet, Usage } from "../../core/client/usage.ts";
import { E, failed, type Result } from "../../core/errno.ts";
import type { Scheduler, Task } from "../../core/task.ts";
import { type At, type LibraryCall, type LibraryCalls, slotBytes } from "./messages.ts";

/** Open files of one Worker; ENFILE beyond. */
export const filesMax = 65536;
/** Names in one page of a directory, in bytes. A page has to fit into the mailbox. */
const pageBytes = 32 * 1024;

/** What a service works with. */
export interface LibraryServiceOptions {
  scheduler: Scheduler;
  /** All slots, one behind the other. */
  slots: Uint8Array;
  /** A volume of the cluster, or why it cannot be had. */
  openFileSystem: (id: number, readOnly: boolean) => Result<FileSystem>;
}

type Handlers = {
  [K in keyof LibraryCalls]: (ask: LibraryCalls[K]["ask"]) => Task<Result<LibraryCalls[K]["answer"]>>;
};

/** A removal under way. */
interface Job extends RemovalProgress {
  stopped: boolean;
}

/** An open file and the volume it is of. */
interface Held {
  file: OpenFile;
  volume: number;
}

const encoder = new TextEncoder(), decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const bytes = (text: string) => encoder.encode(text);

/** See the module's comment. */
export class LibraryService {
  readonly #options: LibraryServiceOptions;
  readonly #volumes = new Map<number, Paths>();
  readonly #files = new Map<number, Held>();
  readonly #jobs = new Map<string, Job>();
  #lastVolume = 0;
  #lastFile = 0;
  #lastLockOwner = 0;

  constructor(options: LibraryServiceOptions) {
    this.#options = options;
  }

  /** Serves one call. */
  call(message: LibraryCall): Task<Result<object>> {
    const handler = this.#handlers[message.call] as (ask: unknown) => Task<Result<object>>;
    return handler(message.ask);
  }

  readonly #handlers: Handlers = {
    openVolume: (ask) => this.#openVolume(ask),
    closeVolume: ({ volume }) => this.#closeVolume(volume),
    stop: () => this.#closeFiles(() => true),

    stat: (ask) => this.#on(ask, (paths, path) => paths.stat(path, ask.follow)),
    realPath: (ask) => this.#path(ask, (paths, path) => paths.realPath(path)),
    readLink: (ask) => this.#path(ask, (paths, path) => paths.readLink(path)),
    mkdir: (ask) => this.#mkdir(ask),
    remove: (ask) => this.#on(ask, (paths, path) => paths.remove(path)),
    removeAll: (ask) => this.#removeAll(ask),
    jobProgress: (ask) => this.#job(ask, ({ files, directories }) => ({ files, directories })),
    stopJob: (ask) => this.#job(ask, (one) => (one.stopped = true, done)),
    usage: (ask) => this.#on({ volume: ask.volume, path: "" }, (paths) => usages(paths, ask.paths)),
    inspect: (ask) => this.#on(ask, (paths, path) => paths.inspect(path)),
    rename: (ask) => this.#on(ask, (paths, path) => paths.rename(path, bytes(ask.to))),
    link: (ask) => this.#on(ask, (paths, path) => paths.link(path, bytes(ask.to))),
    symlink: (ask) => this.#on(ask, (paths, path) => paths.symlink(bytes(ask.target), path)),
    copyFile: (ask) => this.#on(ask, (paths, path) => copyFile(paths, path, bytes(ask.to))),
    chmod: (ask) => this.#on(ask, (paths, path) => paths.setMode(path, ask.mode)),
    chown: (ask) => this.#on(ask, (paths, path) => paths.setOwner(path, ask, ask.follow)),
    utime: (ask) => this.#on(ask, (paths, path) => paths.setTimes(path, ask, ask.follow)),
    truncate: (ask) => this.#on(ask, (paths, path) => paths.truncate(path, ask.size)),
    statfs: ({ volume }) => this.#on({ volume, path: "" }, (paths) => paths.fileSystem.statistics()),
    openDirectory: (ask) => this.#openDirectory(ask),
    readDirectory: (ask) => this.#readDirectory(ask),
    getXattr: (ask) => this.#getXattr(ask),
    setXattr: (ask) =>
      this.#on(ask, (paths, path) => paths.setExtendedAttribute(path, bytes(ask.name), ask.value, ask)),
    listXattr: (ask) => this.#listXattr(ask),
    removeXattr: (ask) =>
      this.#on(ask, (paths, path) => paths.removeExtendedAttribute(path, bytes(ask.name), ask.follow)),

    readWhole: (ask) => this.#readWhole(ask),
    writeWhole: (ask) => this.#on(ask, (paths, path) => writeWhole(paths, path, this.#slot(ask.slot, ask.length), ask)),

    open: (ask) => this.#open(ask),
    close: ({ file }) => this.#close(file),
    read: ({ file, offset, slot, length }) => this.#in(file, (one) => one.read(offset, this.#slot(slot, length))),
    write: ({ file, offset, slot, length }) => this.#in(file, (one) => one.write(offset, this.#slot(slot, length))),
    append: ({ file, slot, length }) => this.#in(file, (one) => one.append(this.#slot(slot, length))),
    fileStat: ({ file }) => this.#in(file, (one) => one.stat()),
    fileTruncate: ({ file, size }) => this.#in(file, (one) => one.truncate(size)),
    fileTimes: (ask) => this.#in(ask.file, (one) => one.setTimes(ask)),
    fileMode: ({ file, mode }) => this.#in(file, (one) => one.setMode(mode)),
    fileSync: ({ file }) => this.#in(file, (one) => one.sync()),
    lock: ({ file, exclusive, block }) => this.#in(file, (one) => one.lock(exclusive, block)),
    unlock: ({ file }) => this.#in(file, (one) => one.unlock()),
  };

  #slot(slot: number, length: number): Uint8Array {
    return this.#options.slots.subarray(slot * slotBytes, slot * slotBytes + length);
  }

  *#on<T extends object>(at: At, work: (paths: Paths, path: Uint8Array) => Task<Result<T>>): Task<Result<T>> {
    const paths = this.#volumes.get(at.volume);
    return paths === undefined ? E.BADF : yield* work(paths, bytes(at.path));
  }

  *#in<T extends object>(file: number, work: (file: OpenFile) => Task<Result<T>>): Task<Result<T>> {
    const held = this.#files.get(file);
    return held === undefined ? E.BADF : yield* work(held.file);
  }

  // deno-lint-ignore require-yield
  *#openVolume(ask: { id: number; readOnly: boolean; who: Caller }): Task<Result<{ volume: number }>> {
    const fileSystem = this.#options.openFileSystem(ask.id, ask.readOnly);
    if (failed(fileSystem)) return fileSystem;
    const { scheduler } = this.#options, { who } = ask;
    const newLockOwner = () => ++this.#lastLockOwner;
    const volume = ++this.#lastVolume;
    this.#volumes.set(volume, new Paths({ fileSystem, who, scheduler, newLockOwner }));
    return { volume };
  }

  *#closeVolume(volume: number): Task<Done> {
    this.#volumes.delete(volume);
    return yield* this.#closeFiles((held) => held.volume === volume);
  }

  *#closeFiles(which: (held: Held) => boolean): Task<Done> {
    for (const [number, held] of [...this.#files]) if (which(held)) yield* this.#close(number);
    return done;
  }

  *#path(at: At, work: (paths: Paths, path: Uint8Array) => Task<Result<Uint8Array>>): Task<Result<{ path: string }>> {
    const found = yield* this.#on(at, work);
    return failed(found) ? found : { path: decoder.decode(found) };
  }

  *#mkdir(ask: LibraryCalls["mkdir"]["ask"]): Task<Done> {
    const { mode, recursive } = ask;
    const made = yield* this.#on(ask, (paths, path): Task<Result<object>> => {
      return recursive ? paths.makeDirectories(path, mode) : paths.makeDirectory(path, mode);
    });
    return failed(made) ? made : done;
  }

  *#removeAll(ask: LibraryCalls["removeAll"]["ask"]): Task<Result<Removal>> {
    const progress: Job = { files: 0, directories: 0, stopped: false }, { keepGoing } = ask, key = jobKey(ask);
    this.#jobs.set(key, progress);
    const stopped = () => progress.stopped;
    const removal = yield* this.#on(ask, (paths, path) => paths.removeAll(path, { keepGoing, progress, stopped }));
    this.#jobs.delete(key);
    return removal;
  }

  // deno-lint-ignore require-yield
  *#job<T extends object>(ask: { volume: number; job: number }, tell: (job: Job) => T): Task<Result<T>> {
    return tell(this.#jobs.get(jobKey(ask)) ?? { files: 0, directories: 0, stopped: false });
  }

  *#openDirectory(ask: At): Task<Result<{ inode: number }>> {
    const found = yield* this.#on(ask, (paths, path) => paths.openDirectory(path));
    return failed(found) ? found : { inode: found.inode };
  }

  *#readDirectory(ask: LibraryCalls["readDirectory"]["ask"]): Task<Result<LibraryCalls["readDirectory"]["answer"]>> {
    const { volume, inode, cookie } = ask;
    const page = yield* this.#on({ volume, path: "" }, (paths) => paths.readDirectory(inode, cookie, pageBytes));
    if (failed(page)) return page;
    return {
      names: page.map((entry) => decoder.decode(entry.name)),
      types: page.map((entry) => entry.type),
      cookie: page.at(-1)?.cookie ?? cookie,
    };
  }

  *#getXattr(ask: LibraryCalls["getXattr"]["ask"]): Task<Result<{ value: Uint8Array }>> {
    const value = yield* this.#on(
      ask,
      (paths, path) => paths.getExtendedAttribute(path, bytes(ask.name), ask.follow),
    );
    return failed(value) ? value : { value };
  }

  *#listXattr(ask: LibraryCalls["listXattr"]["ask"]): Task<Result<{ names: string[] }>> {
    const names = yield* this.#on(ask, (paths, path) => paths.listExtendedAttributes(path, ask.follow));
    return failed(names) ? names : { names: names.map((name) => decoder.decode(name)) };
  }

  *#readWhole(ask: LibraryCalls["readWhole"]["ask"]): Task<Result<{ count: number; file: number }>> {
    const read = yield* this.#on(ask, (paths, path) => readWhole(paths, path, this.#slot(ask.slot, slotBytes)));
    if (failed(read)) return read;
    if (read.file === null) return { count: read.count, file: 0 };
    const held = yield* this.#hold(read.file, ask.volume);
    return failed(held) ? held : { count: 0, ...held };
  }

  *#open(ask: LibraryCalls["open"]["ask"]): Task<Result<{ file: number }>> {
    const file = yield* this.#on(ask, (paths, path) => openFile(paths, path, ask.flags));
    return failed(file) ? file : yield* this.#hold(file, ask.volume);
  }

  *#hold(file: OpenFile, volume: number): Task<Result<{ file: number }>> {
    // The volume may have been closed meanwhile: nobody would close the file.
    const errno = !this.#volumes.has(volume) ? E.BADF : this.#files.size >= filesMax ? E.NFILE : 0;
    if (errno !== 0) {
      yield* file.close();
      return errno;
    }
    const number = ++this.#lastFile;
    this.#files.set(number, { file, volume });
    return { file: number };
  }

  *#close(number: number): Task<Done> {
    const held = this.#files.get(number);
    if (held === undefined) return E.BADF;
    this.#files.delete(number);
    yield* held.file.close();
    return done;
  }
}

function* usages(paths: Paths, of: readonly string[]): Task<{ found: (Usage | number)[] }> {
  const found: (Usage | number)[] = [], met: LinksMet = new Map();
  for (const path of of) found.push(yield* paths.usage(bytes(path), met));
  return { found };
}

function jobKey({ volume, job }: { volume: number; job: number }): string {
  return `${volume}/${job}`;
}
