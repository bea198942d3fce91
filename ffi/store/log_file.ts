/**
 * Log segments as preallocated files in one folder: `segment-N`. A segment that is no longer needed becomes a spare and
 * then the next segment, so that a running store neither allocates disk space nor turns fresh extents into written ones,
 * and always has a place to go on when the disk is full. Appends are plain writes to the page cache; syncs go through
 * the reactor's ring.
 *
 * @module
 */

import { E } from "../../core/errno.ts";
import type { IoResult, LogFile } from "../../core/runtime.ts";
import { Future, type Task, wait } from "../../core/task.ts";
import { type Bytes, checked, closeFd, cstr, errno, libc, O, systemError } from "../libc.ts";
import type { Reactor } from "../reactor.ts";

/** Spare files that are kept. */
const sparesMax = 2;

interface OpenFile {
  fd: number;
  /** Written since the last sync began. */
  dirty: boolean;
  /** Syncs under way: the descriptor stays open until they end. */
  busy: number;
  /** No longer written: to be closed when it is clean. */
  done: boolean;
}

/** See the module. Failures to read the folder throw; everything else is an errno. */
export class FileLog implements LogFile {
  /** Since the start. */
  readonly counters = { writes: 0, bytes: 0, syncs: 0 };
  readonly #reactor: Reactor;
  readonly #folder: string;
  readonly #sizes = new Map<number, number>();
  readonly #spares: { name: string; bytes: number }[] = [];
  #files: OpenFile[] = [];
  #current: OpenFile | null = null;
  #offset = 0;
  #spareNumber = 0;

  /** Opens the log in `folder`, which exists. */
  constructor(reactor: Reactor, folder: string) {
    this.#reactor = reactor;
    this.#folder = folder;
    for (const { name } of Deno.readDirSync(folder)) {
      const bytes = Deno.lstatSync(`${folder}/${name}`).size;
      const [, kind, number] = /^(segment|spare)-(\d+)$/.exec(name) ?? [];
      if (kind === "segment") this.#sizes.set(Number(number), bytes);
      else if (kind === "spare") this.#spares.push({ name, bytes });
    }
    while (this.#spares.length > sparesMax) Deno.removeSync(`${folder}/${this.#spares.pop()!.name}`);
    for (const { name } of this.#spares) this.#spareNumber = Math.max(this.#spareNumber, Number(name.slice(6)));
  }

  segments(): number[] {
    return [...this.#sizes.keys()].sort((a, b) => a - b);
  }

  read(segment: number): Uint8Array {
    return Deno.readFileSync(this.#path(segment));
  }

  create(segment: number, bytes: number): number {
    const path = this.#path(segment);
    let fd = this.#reuse(path, bytes);
    if (fd < 0) fd = preallocate(path, bytes);
    if (fd < 0) return -fd;
    const failure = syncFolder(this.#folder);
    if (failure !== 0) {
      closeFd(fd);
      return failure;
    }
    if (this.#current !== null) this.#current.done = true;
    this.#current = { fd, dirty: false, busy: 0, done: false };
    this.#files.push(this.#current);
    this.#sizes.set(segment, bytes);
    this.#offset = 0;
    this.#closeDone();
    return 0;
  }

  write(bytes: Uint8Array): number {
    const file = this.#current!;
    file.dirty = true;
    this.counters.writes++;
    this.counters.bytes += bytes.length;
    for (let done = 0; done < bytes.length;) {
      const rest = bytes.subarray(done) as Bytes;
      const count = checked(libc.pwriteBuffer(file.fd, rest, BigInt(rest.length), BigInt(this.#offset)));
      if (count === -E.INTR) continue;
      if (count <= 0) return count === 0 ? E.IO : -count;
      done += count;
      this.#offset += count;
    }
    return 0;
  }

  sync(): Future<IoResult> {
    return this.#reactor.scheduler.spawn(this.#sync());
  }

  *#sync(): Task<IoResult> {
    const files = this.#files.filter((file) => file.dirty);
    const pending = files.map((file) => {
      file.dirty = false;
      file.busy++;
      this.counters.syncs++;
      return this.#reactor.fdatasync(file.fd);
    });
    let failure = 0;
    for (const [i, io] of pending.entries()) {
      const result = yield* wait(io);
      files[i].busy--;
      if (result < 0) failure = -result;
    }
    this.#closeDone();
    return failure;
  }

  syncNow(): IoResult {
    // A sync under way may not have reached the disk yet: its files are synced once more.
    for (const file of this.#files) {
      if (!file.dirty && file.busy === 0) continue;
      this.counters.syncs++;
      const result = checked(libc.fdatasync(file.fd));
      if (result < 0) return -result;
      file.dirty = false;
    }
    this.#closeDone();
    return 0;
  }

  remove(segment: number): void {
    const bytes = this.#sizes.get(segment)!;
    this.#sizes.delete(segment);
    if (this.#spares.length >= sparesMax) {
      Deno.removeSync(this.#path(segment));
      return;
    }
    const name = `spare-${++this.#spareNumber}`;
    Deno.renameSync(this.#path(segment), `${this.#folder}/${name}`);
    this.#spares.push({ name, bytes });
  }

  /** Closes the files. Nothing may be under way. */
  close(): void {
    for (const { fd } of this.#files) closeFd(fd);
    this.#files = [];
    this.#current = null;
  }

  #path(segment: number): string {
    return `${this.#folder}/segment-${String(segment).padStart(12, "0")}`;
  }

  /** Makes a spare the file of a new segment: its descriptor, or -1 when there is none that fits. */
  #reuse(path: string, bytes: number): number {
    while (this.#spares.length > 0) {
      const spare = this.#spares.shift()!, from = `${this.#folder}/${spare.name}`;
      if (spare.bytes !== bytes) {
        Deno.removeSync(from);
        continue;
      }
      Deno.renameSync(from, path);
      return checked(libc.open(cstr(path), O.RDWR | O.CLOEXEC, 0));
    }
    return -1;
  }

  #closeDone(): void {
    const isOver = (file: OpenFile) => file.done && !file.dirty && file.busy === 0;
    for (const file of this.#files) if (isOver(file)) closeFd(file.fd);
    this.#files = this.#files.filter((file) => !isOver(file));
  }
}

/** A new file with all its space: the descriptor, or minus errno (then nothing is left of it). */
function preallocate(path: string, bytes: number): number {
  const fd = checked(libc.open(cstr(path), O.RDWR | O.CREAT | O.EXCL | O.CLOEXEC, 0o600));
  if (fd < 0) return fd;
  const failure = checked(libc.fallocate64(fd, 0, 0n, BigInt(bytes)));
  if (failure < 0) {
    closeFd(fd);
    Deno.removeSync(path);
    return failure;
  }
  // The size must be on disk before data is: fdatasync of a write inside it then moves no metadata.
  const synced = checked(libc.fsync(fd));
  if (synced >= 0) return fd;
  closeFd(fd);
  return synced;
}

/** Makes names in a folder durable. errno. */
export function syncFolder(folder: string): number {
  const fd = libc.open(cstr(folder), O.RDONLY | O.DIRECTORY | O.CLOEXEC, 0);
  if (fd < 0) return errno();
  const result = checked(libc.fsync(fd));
  closeFd(fd);
  return result < 0 ? -result : 0;
}

/** Opens the folder of a log, making it when it is absent. */
export function openLogFolder(reactor: Reactor, folder: string): FileLog {
  Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
  const failure = syncFolder(folder);
  if (failure !== 0) throw systemError("sync", folder, failure);
  return new FileLog(reactor, folder);
}
