/**
 * An open file of a volume, with the methods of Deno.FsFile.
 *
 * @module
 */

import type { Attributes } from "../../core/meta/attributes.ts";
import { append, type FileHandle, readAt, writeAt } from "./content.ts";
import { closedError, fileError } from "./errors.ts";
import { fileInfo, timeOf, wholeNumber } from "./values.ts";
import { E } from "../../core/errno.ts";

/** Bytes of a chunk that a file's readable stream gives. */
const streamChunkBytes = 256 * 1024;

/**
 * An open file. Reads and writes go on from a position of its own, in the order in which they were asked for; those with
 * an explicit offset ({@linkcode readAt}, {@linkcode writeAt}) go on at once, beside each other.
 *
 * A write that has been acknowledged survives the end of this process and of any server's; {@linkcode sync} makes it
 * survive power loss. A file that is removed stays readable until it is closed.
 */
export class VolumeFile implements Disposable, AsyncDisposable {
  readonly #handle: FileHandle;
  readonly #root: number;
  readonly #appends: boolean;
  #position = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | null = null;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | null = null;
  #writable: WritableStream<Uint8Array<ArrayBufferLike>> | null = null;

  /** Made by `Volume.open`. */
  constructor(handle: FileHandle, options: { root: number; appends: boolean }) {
    this.#handle = handle;
    this.#root = options.root;
    this.#appends = options.appends;
  }

  /** Reads into `into` until it is full or the file ends; the number of bytes, null at the end of the file. */
  async read(into: Uint8Array): Promise<number | null> {
    return await this.#inTurn(async () => {
      const count = await readAt(this.#open(), this.#position, into);
      this.#position += count;
      return count === 0 && into.length > 0 ? null : count;
    });
  }

  /** Writes all of `data`, at the end of the file if it was opened to append; the number of bytes. */
  async write(data: Uint8Array): Promise<number> {
    return await this.#inTurn(async () => {
      const handle = this.#open();
      if (this.#appends) this.#position = await append(handle, data);
      else {
        await writeAt(handle, this.#position, data);
        this.#position += data.length;
      }
      return data.length;
    });
  }

  /** As {@linkcode read} at an offset in bytes; the position stays. 0 at the end of the file. */
  async readAt(into: Uint8Array, offset: number): Promise<number> {
    return await readAt(this.#open(), wholeNumber(offset, this.#what("read")), into);
  }

  /** As {@linkcode write} at an offset in bytes; the position stays. Not for files that were opened to append. */
  async writeAt(data: Uint8Array, offset: number): Promise<void> {
    const handle = this.#open();
    if (this.#appends) throw fileError(E.INVAL, this.#what("write"));
    await writeAt(handle, wholeNumber(offset, this.#what("write")), data);
  }

  /** Moves the position: from the start of the file, from where it is, or from the end. The new position. */
  async seek(offset: number | bigint, whence: Deno.SeekMode): Promise<number> {
    return await this.#inTurn(async () => {
      let from = 0;
      if (whence === Deno.SeekMode.Current) from = this.#position;
      else if (whence === Deno.SeekMode.End) from = (await this.#attributes()).size;
      return this.#position = wholeNumber(from + Number(offset), this.#what("seek"));
    });
  }

  /** Cuts the file, or extends it by zeros, to `length` bytes. */
  async truncate(length = 0): Promise<void> {
    const { link, file } = this.#open(), what = this.#what("ftruncate");
    await link.call("fileTruncate", { file, size: wholeNumber(length, what) }, what);
  }

  /** What the file is now. */
  async stat(): Promise<Deno.FileInfo> {
    return fileInfo(await this.#attributes(), this.#root);
  }

  /** Sets the times of last access and change. */
  async utime(atime: number | Date, mtime: number | Date): Promise<void> {
    const { link, file } = this.#open();
    await link.call("fileTimes", { file, atime: timeOf(atime), mtime: timeOf(mtime) }, this.#what("futime"));
  }

  /** What was written to the file survives power loss of every server once this settles, and so does its name. */
  async sync(): Promise<void> {
    const { link, file } = this.#open();
    await link.call("fileSync", { file }, this.#what("fsync"));
  }

  /** As {@linkcode sync}: contents and attributes become durable together. */
  async syncData(): Promise<void> {
    await this.sync();
  }

  /** Waits for a lock of the whole file (flock(2)), shared unless `exclusive`, that lasts until it is unlocked or closed. */
  async lock(exclusive = false): Promise<void> {
    const { link, file } = this.#open();
    await link.call("lock", { file, exclusive, block: true }, this.#what("lock"));
  }

  /** As {@linkcode lock} without waiting: false when another has it. */
  async tryLock(exclusive = false): Promise<boolean> {
    const { link, file } = this.#open();
    const answer = await link.ask("lock", { file, exclusive, block: false });
    if (typeof answer !== "number") return true;
    if (answer === E.AGAIN) return false;
    throw fileError(answer, this.#what("lock"));
  }

  /** Gives the lock up. */
  async unlock(): Promise<void> {
    const { link, file } = this.#open();
    await link.call("unlock", { file }, this.#what("unlock"));
  }

  /** The file from its position to its end, which closes it; so does cancelling. */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#readable ??= new ReadableStream({
      pull: async (controller) => {
        const chunk = new Uint8Array(streamChunkBytes);
        const count = await this.read(chunk);
        if (count !== null) return controller.enqueue(chunk.subarray(0, count));
        await this.close();
        controller.close();
      },
      cancel: () => this.#end(),
    }, { highWaterMark: 0 });
  }

  /** Writes go to the file; closing or aborting the stream closes it. */
  get writable(): WritableStream<Uint8Array<ArrayBufferLike>> {
    return this.#writable ??= new WritableStream({
      write: async (chunk) => void await this.write(chunk),
      close: () => this.close(),
      abort: () => this.#end(),
    });
  }

  /** Ends it. Nothing is lost if this is not waited for; a lock is gone when it settles. */
  close(): Promise<void> {
    this.#open();
    return this.#end();
  }

  /** As {@linkcode close}, also when it is closed already. */
  [Symbol.dispose](): void {
    this.#end();
  }

  /** As {@linkcode close}, also when it is closed already. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
  }

  #end(): Promise<void> {
    const { link, file } = this.#handle;
    // A connection that has ended has closed everything.
    return this.#closing ??= link.ask("close", { file }).then(() => {}, () => {});
  }

  #open(): FileHandle {
    if (this.#closing !== null) throw closedError(`'${this.#handle.path}'`);
    return this.#handle;
  }

  async #attributes(): Promise<Attributes> {
    const { link, file } = this.#open();
    return await link.call("fileStat", { file }, this.#what("fstat"));
  }

  #what(operation: string): string {
    return `${operation} '${this.#handle.path}'`;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return await turn;
  }
}
