/**
 * FUSE over io_uring (Linux 6.14 and newer): the kernel puts a request into a buffer that was registered with it and
 * completes a command of the ring; the reply goes with the command that fetches the next request, in the same
 * io_uring_enter as all else that a turn of the reactor submits.
 *
 * Each processor has a queue for the requests of the programs that run on it; the one ring of the reactor serves them
 * all. INIT, FORGET, INTERRUPT and notifications go by /dev/fuse, which a {@linkcode FuseDevice} reads; it also serves
 * the requests where the kernel does not agree. A blocking lock, the only request that may wait without bound, keeps its
 * buffer, and its queue gets another one: others always find one within the file system's time limit.
 *
 * The thread that runs this must never touch its own mount: it would wait for itself.
 *
 * @module
 */

import {
  FUSE_IO_URING_CMD,
  fuseBufferBytes,
  fuseDataAt,
  FuseRequest,
  INIT2,
  maxWriteBytes,
  outHeader,
  uringHeader,
} from "../../core/fuse/protocol.ts";
import { FuseSession, requestsInFlightMax } from "../../core/fuse/session.ts";
import { E } from "../../core/errno.ts";
import { closeFd, errnoText, F, libc, systemError } from "../libc.ts";
import type { Completion } from "../reactor.ts";
import { setAddress } from "../ring.ts";
import type { FuseTransport } from "./mount.ts";
import { FuseDevice, type FuseDeviceOptions, type FuseDeviceStatistics } from "./device.ts";

/** Address space of the arena of a reactor that serves by {@linkcode FuseUring}: buffers cost memory when used. */
export const uringArenaBytes = 3 * 2 ** 30;
/** Most queues, which is most processors of a machine, that the arena has buffers for. */
export const uringQueuesMax = 256;
/** Most and fewest requests under way of one processor, besides parked locks. */
const depthMax = 32, depthMin = 4;
/** Most buffers that queues get for parked locks; ENOLCK beyond. */
export const sparesMax = 1024;
/** Of a queue whose locks get no more buffers, so many stay for other requests. */
const unparkedMin = 2;
/** A registration that the kernel refuses has been refused by then. */
const registeredMs = 1;
/** A lock that is not granted by then is looked after: see {@linkcode hasPendingSignal}. */
const parkedCheckMs = 10;
/** Time the kernel may take to give back its buffers after the mount is gone. */
const lostMsMax = 1_000;
/** Offset of the two iovecs that name header and payload, behind the header. */
const iovecsAt = 512;

const ECONNABORTED = 103, ENOTCONN = 107, ECANCELED = 125;

/** What a {@linkcode FuseUring} needs. */
export interface FuseUringOptions extends FuseDeviceOptions {
  /** Processors the machine may have: {@linkcode possibleCpus}. */
  queues: number;
  /** Called once, when requests are served; `why` it is not over io_uring, "" if it is. */
  onServing: (transport: FuseTransport, why: string) => void;
}

/** Where the kernel says whether FUSE over io_uring may be used. */
export const enableUringPath = "/sys/module/fuse/parameters/enable_uring";

/** Why this machine has no FUSE over io_uring, "" when the kernel offers it. */
export function uringMissing(parameterPath: string = enableUringPath): string {
  let text: string;
  try {
    text = Deno.readTextFileSync(parameterPath);
  } catch {
    return "the kernel has none (Linux 6.14 or newer is needed, with its fuse module loaded)";
  }
  if (!/^[Y1]/.test(text)) return `it is switched off (as root: echo Y > ${parameterPath})`;
  const queues = possibleCpus();
  return queues > uringQueuesMax ? `there are ${queues} processors, ${uringQueuesMax} at most can be served` : "";
}

/** Processors that the machine may have, present or not: as many queues must be served. */
export function possibleCpus(text: string = Deno.readTextFileSync("/sys/devices/system/cpu/possible")): number {
  let count = 0;
  for (const part of text.trim().split(",")) {
    const [from, to = from] = part.split("-").map(Number);
    count += to - from + 1;
  }
  return count;
}

/** Requests of one processor that may be under way at once. */
export function queueDepth(queues: number): number {
  return Math.max(depthMin, Math.min(depthMax, Math.floor(requestsInFlightMax / queues)));
}

/**
 * True when the thread `pid` has a signal to look at. The kernel tells of a signal by INTERRUPT, but over io_uring not of
 * one that comes before its request has been handed over.
 */
function hasPendingSignal(pid: number): boolean {
  let text: string;
  try {
    text = Deno.readTextFileSync(`/proc/${pid}/status`);
  } catch {
    return false;
  }
  const mask = (name: string) => BigInt(`0x${text.match(new RegExp(`^${name}:\\s*([0-9a-f]+)$`, "m"))?.[1] ?? "0"}`);
  return ((mask("SigPnd") | mask("ShdPnd")) & ~mask("SigBlk")) !== 0n;
}

/** The requests of one processor. */
interface Queue {
  id: number;
  /** Buffers that the kernel has or that are being served. */
  entries: number;
  /** Of these, those with a request under way. */
  busy: number;
  /** Of these, those of blocking locks. */
  parked: number;
}

/** A buffer: header and iovecs in its first page, the payload from `fuseDataAt` on. */
class Entry implements Completion {
  readonly slot: number;
  readonly request: FuseRequest;
  /** Index of the header among the arena's 32-bit words. */
  readonly words: number;
  /** What the reply is handed to. */
  readonly answer: (length: number) => void;
  parked = false;
  /** It has held a request. */
  served = false;
  /** The kernel will put nothing into it any more. */
  lost = false;

  constructor(readonly transport: FuseUring, readonly queue: Queue, readonly bytes: Uint8Array) {
    this.slot = transport.reactor.register(this);
    this.request = new FuseRequest(bytes, 0, 0, fuseDataAt);
    this.words = bytes.byteOffset >> 2;
    this.answer = (length) => transport.answer(this, length);
  }

  complete(res: number): void {
    if (res < 0) this.transport.lose(this, res);
    else this.transport.serve(this);
  }
}

/** Serves one mount; used like a {@linkcode FuseDevice}. See the module's comment. */
export class FuseUring {
  readonly reactor: FuseDeviceOptions["reactor"];
  readonly #options: FuseUringOptions;
  readonly #device: FuseDevice;
  readonly #depth: number;
  readonly #queues: Queue[] = [];
  readonly #entries: Entry[] = [];
  readonly #statistics: FuseDeviceStatistics = { requests: 0, replies: 0, undelivered: 0, starved: 0 };
  /** A descriptor of its own: replies may be due when the device has closed its own. -1: closed. */
  #fd: number;
  #active = 0;
  /** Buffers that the kernel may put something into, or that are being served. */
  #held = 0;
  #refusal = 0;
  /** {@linkcode stop} was called: requests that still come are refused. */
  #stopped = false;
  /** The device's reason for the end. */
  #ending: string | null = null;
  #ended = false;
  #waitsForEnd = false;

  /** Throws when the descriptor is not one or the arena has too little room. */
  constructor(options: FuseUringOptions) {
    this.#options = options;
    this.reactor = options.reactor;
    this.#depth = queueDepth(options.queues);
    this.#fd = libc.fcntl(options.fd, F.DUPFD_CLOEXEC, 0);
    if (this.#fd < 0) throw systemError("use", "the FUSE device");
    for (let id = 0; id < options.queues; id++) {
      const queue: Queue = { id, entries: 0, busy: 0, parked: 0 };
      this.#queues.push(queue);
      while (queue.entries < this.#depth) {
        if (this.#grow(queue) === null) throw new Error("cannot serve a mount: the buffer arena is full");
      }
    }
    this.#device = new FuseDevice({ ...options, readsLate: true, onEnd: (reason) => this.#deviceEnded(reason) });
  }

  /** Requests of both ways together. */
  get statistics(): FuseDeviceStatistics {
    const sum = { ...this.#statistics }, other = this.#device.statistics;
    for (const key of Object.keys(sum) as (keyof FuseDeviceStatistics)[]) sum[key] += other[key];
    return sum;
  }

  /** Requests under way. */
  get active(): number {
    return this.#active + this.#device.active;
  }

  /** Begins to serve, with the kernel's INIT. */
  start(): void {
    this.#device.start();
  }

  /** To be called with the flags that the session has agreed on, when INIT is about to be answered. */
  agreed(flags2: number): void {
    if ((flags2 & INIT2.OVER_IO_URING) === 0) this.#serving("classic", "the kernel does not offer it");
    else this.reactor.defer(() => this.#registerAll());
  }

  /** Ends the mount from this side: programs that use it get ENOTCONN. Unmounting is the orderly way. */
  stop(): void {
    this.#stopped = true;
    this.#device.stop();
  }

  /** Gives up what the kernel would take as a sign of life: the last thing before the ring is closed. */
  close(): void {
    if (this.#fd < 0) return;
    closeFd(this.#fd);
    this.#fd = -1;
  }

  #serving(transport: FuseTransport, why: string): void {
    this.#options.onServing(transport, why);
  }

  #grow(queue: Queue): Entry | null {
    const bytes = this.reactor.arena.allocate(fuseBufferBytes);
    if (bytes === null) return null;
    const entry = new Entry(this, queue, bytes);
    this.#entries.push(entry);
    queue.entries++;
    return entry;
  }

  #registerAll(): void {
    if (this.#ending !== null || this.#fd < 0) return;
    for (const entry of this.#entries) this.#register(entry);
    this.reactor.after(registeredMs, () => {
      // The kernel goes over to the ring when each queue has a buffer, and does without it when it has refused one.
      const complete = this.#queues.every(({ entries }) => entries > 0);
      this.#serving(complete ? "uring" : "classic", complete ? "" : `the kernel says ${errnoText(this.#refusal)}`);
    });
  }

  #register(entry: Entry): void {
    const { arena, ring } = this.reactor, { bytes, words } = entry, address = arena.addressOf(bytes);
    bytes.fill(0, 0, fuseDataAt);
    this.#held++;
    const iovecs = words + (iovecsAt >> 2);
    setAddress(arena.u32, iovecs, address);
    setAddress(arena.u32, iovecs + 2, uringHeader.sizeof);
    setAddress(arena.u32, iovecs + 4, address + fuseDataAt);
    setAddress(arena.u32, iovecs + 6, maxWriteBytes);
    const i = ring.command(entry.slot, this.#fd, FUSE_IO_URING_CMD.REGISTER);
    setAddress(ring.sqe, i + 4, address + iovecsAt);
    ring.sqe[i + 6] = 2;
    ring.sqe[i + 16] = entry.queue.id;
  }

  /** A request has come into `entry`. */
  serve(entry: Entry): void {
    const { session } = this.#options, { request } = entry;
    this.#statistics.requests++;
    this.#active++;
    entry.served = true;
    if (++entry.queue.busy === entry.queue.entries) this.#statistics.starved++;
    request.decodeUring();
    if (this.#stopped) this.answer(entry, request.fail(ENOTCONN));
    else if (FuseSession.mayPark(request) && !this.#park(entry)) this.answer(entry, request.fail(E.NOLCK));
    else {
      const length = session.answer(request);
      if (length >= 0) this.answer(entry, length);
      else this.reactor.scheduler.start(session.work(request), entry.answer);
    }
  }

  /** Gives the queue of a request that may wait long another buffer. False when there is none and few are left. */
  #park(entry: Entry): boolean {
    const { queue, request } = entry;
    if (queue.entries - queue.parked - 1 < this.#depth) {
      const spares = this.#entries.length - this.#queues.length * this.#depth;
      const spare = spares < sparesMax ? this.#grow(queue) : null;
      if (spare !== null) this.#register(spare);
      else if (queue.entries - queue.parked - 1 < unparkedMin) return false;
    }
    entry.parked = true;
    queue.parked++;
    const { unique, pid } = request;
    this.reactor.after(parkedCheckMs, () => {
      if (!entry.parked || request.unique !== unique || !hasPendingSignal(pid)) return;
      this.#options.session.interrupt(unique);
    });
    return true;
  }

  /** Sends the reply of `length` bytes that is in the buffer, at the end of the turn at the latest. */
  answer(entry: Entry, length: number): void {
    const { request, queue } = entry;
    if (entry.parked) {
      entry.parked = false;
      queue.parked--;
    }
    if ((this.#ending === null && !this.#stopped) || request.handle === 0) this.#commit(entry, length);
    else {
      // Nobody will close what is opened by a mount that is gone.
      this.#statistics.undelivered++;
      const { session } = this.#options;
      this.reactor.scheduler.spawn(session.undelivered(request)).listen(() => {
        this.#commit(entry, request.fail(ENOTCONN));
      });
    }
  }

  #commit(entry: Entry, length: number): void {
    this.#active--;
    entry.queue.busy--;
    if (this.#fd >= 0) {
      const { arena: { u32 }, ring } = this.reactor, { words } = entry;
      this.#statistics.replies++;
      u32[words + (uringHeader.payloadSize >> 2)] = length - outHeader.sizeof;
      const i = ring.command(entry.slot, this.#fd, FUSE_IO_URING_CMD.COMMIT_AND_FETCH);
      ring.sqe[i + 14] = u32[words + (uringHeader.commitId >> 2)];
      ring.sqe[i + 15] = u32[words + (uringHeader.commitId >> 2) + 1];
      ring.sqe[i + 16] = entry.queue.id;
      // A program alone should not wait for the rest of the turn; the replies to several leave together.
      if (this.#active === 0) ring.submit();
    }
    if (this.#ending !== null) this.#endIfIdle();
  }

  /** The kernel has refused a buffer or given it back: the mount is gone, or there is no io_uring for it. */
  lose(entry: Entry, res: number): void {
    if (entry.lost) return;
    entry.lost = true;
    entry.queue.entries--;
    this.#held--;
    this.#refusal = res;
    if (this.#ending !== null) this.#endIfIdle();
    else if (entry.served && res !== -ENOTCONN && res !== -ECONNABORTED && res !== -ECANCELED) {
      // A program waits for this reply, and no other will be taken.
      this.reactor.log("error", "fuse", `reply to opcode ${entry.request.opcode} refused: ${errnoText(res)}`);
      this.stop();
    }
  }

  #deviceEnded(reason: string): void {
    this.#ending = reason;
    this.#endIfIdle();
  }

  #endIfIdle(): void {
    if (this.#active > 0) return;
    // Stopped from this side, the kernel keeps its buffers until the ring is closed.
    if (this.#stopped || this.#held === 0) return this.#end();
    if (this.#waitsForEnd) return;
    this.#waitsForEnd = true;
    this.reactor.after(lostMsMax, () => this.#end());
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#held === 0) {
      this.close();
      for (const { slot, bytes } of this.#entries) {
        this.reactor.unregister(slot);
        this.reactor.arena.release(bytes);
      }
    }
    this.#options.onEnd(this.#ending!);
  }
}
