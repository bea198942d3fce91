/**
 * A process of `sealfs client bench` (plan.ts): does the phases that it is told to, each together with the
 * others, with plain system calls that block this thread. It looks at the clock once an operation.
 *
 * @module
 */

/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />

import { LatencyTable } from "../../core/metrics/latency_table.ts";
import { Calls, Names } from "./calls.ts";
import {
  type BenchDone,
  type BenchOrder,
  type BenchStart,
  control,
  listings,
  type Phase,
  phasesOf,
  pieceBytes,
  randomBytes,
} from "./plan.ts";
import { type Bytes, cstr, O } from "../libc.ts";

/** Time between looks at whether all workers have come, should a wake-up be lost. */
const meetMs = 100;

/** An operation of a phase: does number `at`, and returns the bytes it moved. */
type Step = (at: number) => number;

class BenchProcess {
  readonly #start: BenchStart;
  readonly #phases: Phase[];
  readonly #control: Int32Array;
  readonly #table: LatencyTable;
  readonly #calls = new Calls();
  readonly #small: Bytes;
  readonly #piece: Bytes = new Uint8Array(pieceBytes);
  readonly #random: Bytes = new Uint8Array(randomBytes);
  readonly #large: Bytes;
  /** Small files that there are, by place. */
  readonly #made = { own: 0, shared: 0, large: 0 };
  /** Bytes of the large file that were written. */
  #written = 0;
  #seed: number;

  constructor(start: BenchStart) {
    const { plan: { folder, fileBytes }, process } = start;
    this.#start = start;
    this.#phases = phasesOf(start.plan);
    this.#control = new Int32Array(start.control);
    this.#table = new LatencyTable(this.#phases.length, start.latencies);
    this.#small = new Uint8Array(fileBytes);
    this.#large = cstr(`${folder}/large.${process}`);
    this.#seed = process + 1;
    // What can be compressed or left out on the way would be no measure.
    for (const bytes of [this.#small, this.#piece, this.#random]) this.#fill(bytes);
  }

  /** Does a phase; what went wrong is in the result. */
  run(phase: number): BenchDone {
    const done: BenchDone = { phase, operations: 0, bytes: 0, beganMs: 0, endedMs: 0, error: "" };
    try {
      this.#perform(this.#phases[phase], done);
    } catch (error) {
      done.error = error instanceof Error ? error.message : String(error);
    }
    return done;
  }

  #perform({ kind, place }: Phase, done: BenchDone): void {
    const { plan: { files, largeBytes } } = this.#start, made = this.#made[place];
    switch (kind) {
      case "create":
        this.#repeat(done, files, this.#create(place));
        this.#made[place] = done.operations;
        return;
      case "stat":
        return this.#repeat(done, made, this.#onFile(place, "f", (path) => this.#calls.stat(path)));
      case "read":
        return this.#repeat(done, made, this.#read(place));
      case "list":
        return this.#list(place, done);
      case "rename":
        return this.#rename(place, done);
      case "unlink":
        this.#repeat(done, made, this.#onFile(place, "r", (path) => this.#calls.unlink(path)));
        return;
      case "writeLarge":
        return this.#onLarge(done, O.WRONLY | O.CREAT, largeBytes / pieceBytes, (fd) => {
          this.#calls.write(fd, this.#piece, this.#large);
          this.#written += pieceBytes;
          return pieceBytes;
        });
      case "readLarge":
        return this.#onLarge(done, O.RDONLY, this.#written / pieceBytes, (fd) => {
          this.#calls.read(fd, this.#piece, this.#large);
          return pieceBytes;
        });
      case "writeRandom":
        return this.#onLarge(done, O.WRONLY, this.#written / randomBytes, (fd) => {
          this.#calls.writeAt(fd, this.#random, this.#somewhere(), this.#large);
          return randomBytes;
        });
      case "readRandom":
        return this.#onLarge(done, O.RDONLY, this.#written / randomBytes, (fd) => {
          this.#calls.readAt(fd, this.#random, this.#somewhere(), this.#large);
          return randomBytes;
        });
    }
  }

  /** Meets the others, then does `count` steps, or as many as there is time for, and measures each. */
  #repeat(done: BenchDone, count: number, step: Step, last: () => void = () => {}): void {
    const calls = this.#calls, table = this.#table, { phaseMsMax } = this.#start.plan;
    this.#meet(done.phase);
    const beganMs = done.beganMs = done.endedMs = calls.nowMs();
    for (let at = 0, beforeMs = beganMs; at < count; at++) {
      if (Atomics.load(this.#control, control.stop) !== 0 || beforeMs - beganMs >= phaseMsMax) break;
      done.bytes += step(at);
      const nowMs = calls.nowMs();
      table.record(done.phase, nowMs - beforeMs, 0);
      beforeMs = nowMs;
      done.operations++;
    }
    last();
    done.endedMs = calls.nowMs();
  }

  /** Waits until all workers are here, or the run is stopped. */
  #meet(phase: number): void {
    const wanted = this.#start.plan.processes * (phase + 1);
    Atomics.add(this.#control, control.arrived, 1);
    Atomics.notify(this.#control, control.arrived);
    for (;;) {
      const arrived = Atomics.load(this.#control, control.arrived);
      if (arrived >= wanted || Atomics.load(this.#control, control.stop) !== 0) return;
      Atomics.wait(this.#control, control.arrived, arrived, meetMs);
    }
  }

  #folder(place: Phase["place"]): string {
    const { plan: { folder }, process } = this.#start;
    return place === "own" ? `${folder}/own.${process}` : `${folder}/shared`;
  }

  /** Names of this worker's files: in a shared directory each has its own. */
  #names(place: Phase["place"], prefix: string): Names {
    return new Names(this.#folder(place), `${prefix}${this.#start.process}.`);
  }

  #onFile(place: Phase["place"], prefix: string, call: (path: Bytes) => void): Step {
    const names = this.#names(place, prefix);
    return (at) => {
      call(names.of(at));
      return 0;
    };
  }

  #create(place: Phase["place"]): Step {
    const names = this.#names(place, "f"), calls = this.#calls, bytes = this.#small;
    return (at) => {
      const path = names.of(at), fd = calls.open(path, O.WRONLY | O.CREAT | O.EXCL);
      calls.write(fd, bytes, path);
      calls.close(fd, path);
      return bytes.length;
    };
  }

  #read(place: Phase["place"]): Step {
    const names = this.#names(place, "f"), calls = this.#calls, bytes = this.#small;
    return (at) => {
      const path = names.of(at), fd = calls.open(path, O.RDONLY);
      calls.read(fd, bytes, path);
      calls.close(fd, path);
      return bytes.length;
    };
  }

  #rename(place: Phase["place"], done: BenchDone): void {
    const from = this.#names(place, "f"), to = this.#names(place, "r"), calls = this.#calls;
    this.#repeat(done, this.#made[place], (at) => {
      calls.rename(from.of(at), to.of(at));
      return 0;
    });
    // Those that there was no time for are left to the end of the run.
    this.#made[place] = done.operations;
  }

  /** What counts are entries, what is measured are listings. */
  #list(place: Phase["place"], done: BenchDone): void {
    const path = cstr(this.#folder(place));
    let entries = 0;
    this.#repeat(done, listings, () => {
      entries += this.#calls.list(path);
      return 0;
    });
    done.operations = entries;
  }

  /** On the open large file, of which the kernel keeps nothing; what was written is on disk at the end. */
  #onLarge(done: BenchDone, flags: number, count: number, step: (fd: number) => number): void {
    const calls = this.#calls, fd = calls.open(this.#large, flags);
    try {
      if (flags === O.RDONLY) calls.forgetPages(fd);
      this.#repeat(done, count, () => step(fd), () => {
        if (flags !== O.RDONLY) calls.fsync(fd, this.#large);
      });
    } finally {
      calls.close(fd, this.#large);
    }
  }

  /** A place in the large file where a small piece fits. */
  #somewhere(): number {
    return this.#next() % (this.#written / randomBytes) * randomBytes;
  }

  /** The next number of a generator (Park and Miller). */
  #next(): number {
    return this.#seed = this.#seed * 48271 % 2147483647;
  }

  #fill(bytes: Bytes): void {
    for (let at = 0; at < bytes.length; at++) bytes[at] = this.#next() >> 7;
  }
}

let bench: BenchProcess | null = null;

self.onmessage = ({ data }: MessageEvent) => {
  if (bench === null) bench = new BenchProcess(data as BenchStart);
  else self.postMessage(bench.run((data as BenchOrder).phase));
};
