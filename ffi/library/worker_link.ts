/**
 * The main thread's end of a library Worker: starts it, calls it, and moves contents of files through its slots. Calls
 * go on in parallel, up to a limit; more wait in order.
 *
 * The Worker does not keep the process alive; a call under way does.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import { type Caller } from "../../core/client/filesystem.ts";
import { libc, MADV } from "../libc.ts";
import { MainMailbox } from "../mailbox.ts";
import { closedError, fileError } from "./errors.ts";
import {
  type LibraryCall,
  type LibraryCalls,
  type LibraryOrder,
  type LibraryReport,
  type LibraryResolve,
  type LibraryWorkerStart,
  slotBytes,
  slotsMax,
} from "./messages.ts";

/** Calls under way at once, waiting locks apart. */
const callsMax = 256;
/** The Worker answers within its io timeout, or dies: this only keeps the process alive meanwhile. */
const callTimeoutMs = 2 ** 31 - 1;
/** Time a Worker may take to serve. */
const readyTimeoutMs = 30_000;
/** Time a Worker may take to stop, and then to end. */
const stopTimeoutMs = 10_000;
const endTimeoutMs = 1_000;

/** How a Worker is started. */
export interface WorkerLinkOptions {
  /** Module of the Worker. */
  url: URL;
  start: Omit<LibraryWorkerStart, "mailbox">;
  /** Finds the numeric address of a host name. */
  resolve: (host: string) => Promise<string | null>;
  onNeedMap: (epoch: number) => void;
}

/** A slot of memory that both threads see. */
interface Slot {
  index: number;
  bytes: Uint8Array<ArrayBuffer>;
}

/** See the module's comment. */
export class WorkerLink {
  readonly #worker: Worker;
  readonly #mailbox = new MainMailbox();
  readonly #calls = new Turnstile(callsMax);
  readonly #slotTurns = new Turnstile(slotsMax);
  readonly #freeSlots: Slot[] = [];
  readonly #ready = Promise.withResolvers<void>();
  readonly #exited = Promise.withResolvers<void>();
  #arena = { address: 0, bytes: 0 };
  /** Why there is no Worker any more. */
  #gone: string | null = null;

  private constructor(options: WorkerLinkOptions) {
    const mailbox = this.#mailbox;
    mailbox.onMessage = (message) => this.#report(message as LibraryReport, options);
    mailbox.onCall = (message) => options.resolve((message as LibraryResolve).host);
    mailbox.onDeath = (reason) => {
      this.#gone = `the file system's thread has failed: ${reason.split("\n")[0]}`;
      this.#ready.reject(new Error(this.#gone));
    };
    const workerData: LibraryWorkerStart = { ...options.start, mailbox: mailbox.port };
    this.#worker = new Worker(options.url, { workerData });
    this.#worker.unref();
    this.#worker.on("exit", () => this.#exited.resolve());
    this.#worker.on("error", (error: unknown) => mailbox.died(error instanceof Error ? error.message : String(error)));
  }

  /** Starts a Worker; settles when it serves. */
  static async start(options: WorkerLinkOptions): Promise<WorkerLink> {
    const link = new WorkerLink(options);
    const timer = setTimeout(() => {
      link.#ready.reject(new Error(`not ready within ${readyTimeoutMs / 1000} s`));
    }, readyTimeoutMs);
    try {
      await link.#ready.promise;
    } catch (error) {
      link.#end();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return link;
  }

  /** Calls; the answer, or a positive errno. Throws when the Worker is gone. */
  async ask<K extends keyof LibraryCalls>(
    call: K,
    ask: LibraryCalls[K]["ask"],
  ): Promise<LibraryCalls[K]["answer"] | number> {
    // A lock may wait for another call of this program: it takes nobody's turn.
    const waits = call === "lock";
    if (!waits) await this.#calls.enter();
    try {
      if (this.#gone !== null) throw closedError("the connection");
      const message: LibraryCall<K> = { call, ask };
      return await this.#mailbox.call(message, callTimeoutMs) as LibraryCalls[K]["answer"] | number;
    } catch (error) {
      if (this.#gone !== null) throw new Error(this.#gone, { cause: error });
      throw error;
    } finally {
      if (!waits) this.#calls.leave();
    }
  }

  /** As {@linkcode ask}; an errno is thrown, `what` being the operation and its paths. */
  async call<K extends keyof LibraryCalls>(
    call: K,
    ask: LibraryCalls[K]["ask"],
    what: string,
  ): Promise<LibraryCalls[K]["answer"]> {
    const answer = await this.ask(call, ask);
    if (typeof answer === "number") throw fileError(answer, what);
    return answer;
  }

  /** Opens a volume by its id: its number in further calls. */
  async openVolume(id: number, options: { readOnly: boolean; who: Caller; what: string }): Promise<number> {
    const { readOnly, who, what } = options;
    return (await this.call("openVolume", { id, readOnly, who }, what)).volume;
  }

  /** Runs `work` with a slot of its own. What it wants of the slot's bytes it copies before it ends. */
  async withSlot<T>(work: (index: number, bytes: Uint8Array<ArrayBuffer>) => Promise<T>): Promise<T> {
    await this.#slotTurns.enter();
    // The slot that was used last: its memory is there already.
    const slot = this.#freeSlots.pop()!;
    try {
      return await work(slot.index, slot.bytes);
    } finally {
      this.#freeSlots.push(slot);
      this.#slotTurns.leave();
    }
  }

  /** Tells the Worker. A lost map is asked for, and a dead Worker shows itself in calls. */
  order(order: LibraryOrder): void {
    this.#mailbox.post(order).catch(() => {});
  }

  /** Closes everything in the Worker and ends it. */
  async close(): Promise<void> {
    if (this.#gone !== null) return this.#end();
    const message: LibraryCall<"stop"> = { call: "stop", ask: {} };
    const stopped = this.#mailbox.call(message, stopTimeoutMs);
    this.#gone = "the connection is closed";
    const clean = await stopped.then(() => true, () => false);
    if (clean) await this.#exit();
    this.#end();
  }

  /** Waits for the Worker's end and gives its memory back; the arena itself stays mapped (ffi/arena.ts). */
  async #exit(): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, endTimeoutMs);
    const ended = await Promise.race([this.#exited.promise.then(() => true), late.promise.then(() => false)]);
    clearTimeout(timer);
    // A slot in use is about to be read.
    if (!ended || this.#freeSlots.length < slotsMax) return;
    libc.madvise(BigInt(this.#arena.address), BigInt(this.#arena.bytes), MADV.DONTNEED);
  }

  #end(): void {
    this.#mailbox.onDeath = () => {};
    this.#mailbox.close();
    this.#worker.terminate();
  }

  #report(report: LibraryReport, options: WorkerLinkOptions): void {
    if (report.type === "needMap") return options.onNeedMap(report.epoch);
    const pointer = Deno.UnsafePointer.create(BigInt(report.slotsAddress))!;
    const memory = Deno.UnsafePointerView.getArrayBuffer(pointer, slotsMax * slotBytes);
    for (let index = slotsMax - 1; index >= 0; index--) {
      this.#freeSlots.push({ index, bytes: new Uint8Array(memory, index * slotBytes, slotBytes) });
    }
    this.#arena = { address: report.arenaAddress, bytes: report.arenaBytes };
    this.#ready.resolve();
  }
}

/** Lets a number of callers in at once, the others in the order of their coming. */
class Turnstile {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(places: number) {
    this.#free = places;
  }

  async enter(): Promise<void> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}
