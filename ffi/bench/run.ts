/**
 * Runs a bench: a folder of its own below the one that is measured, a Worker a process, one phase after the other, and the
 * folder removed whatever happens. For the main thread, which stays free to hear signals.
 *
 * @module
 */

import { join } from "@std/path";
import { LatencyTable, percentileMs, sumOfFigures } from "../../core/metrics/latency_table.ts";
import { cstr, errno, errnoText, libc } from "../libc.ts";
import {
  type BenchDone,
  type BenchOrder,
  type BenchPlan,
  type BenchStart,
  bytesNeeded,
  control,
  type Phase,
  phasesOf,
} from "./plan.ts";

/** Part of the free room that stays free. */
const spareRoom = 0.05;
/** Inodes besides those of small files. */
const otherInodes = 16;
const statfsBytes = 120;

/** What a phase came to, over all processes. Percentiles are of single operations; of listings where they are counted by entry. */
export interface PhaseResult {
  phase: string;
  title: string;
  operations: number;
  bytes: number;
  /** From the first process' begin to the last one's end. */
  seconds: number;
  operationsPerSecond: number;
  mebibytesPerSecond: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
}

/** How a bench is run. */
export interface BenchOptions extends Omit<BenchPlan, "folder"> {
  /** An existing folder. */
  path: string;
  /** Settles when the run is to be given up. */
  stop: Promise<unknown>;
  /** Hears of each phase before it begins. */
  progress: (phase: Phase, number: number, of: number) => void;
}

/** The results, one a phase; a text is why there are none. Nothing of the run is left, or the text says what. */
export async function runBench(options: BenchOptions): Promise<PhaseResult[] | string> {
  const shortage = roomFault(options);
  if (shortage !== "") return shortage;
  let folder: string;
  try {
    folder = Deno.makeTempDirSync({ dir: options.path, prefix: ".sealfs-bench-" });
  } catch (error) {
    return `cannot make a folder in ${options.path}: ${reasonOf(error)}`;
  }
  const { path: _, stop, progress, ...plan } = options;
  const bench = new Bench({ ...plan, folder });
  stop.then(() => bench.stop());
  let outcome: PhaseResult[] | string;
  try {
    outcome = await bench.run(progress);
  } catch (error) {
    outcome = reasonOf(error);
  }
  bench.close();
  try {
    await Deno.remove(folder, { recursive: true });
  } catch (error) {
    const left = `${folder} could not be removed: ${reasonOf(error)}`;
    return typeof outcome === "string" ? `${outcome}; ${left}` : left;
  }
  return outcome;
}

class Bench {
  readonly #plan: BenchPlan;
  readonly #phases: Phase[];
  readonly #control = new Int32Array(new SharedArrayBuffer(control.words * 4));
  readonly #workers: { worker: Worker; latencies: SharedArrayBuffer }[] = [];
  readonly #died = Promise.withResolvers<never>();
  #stopped = false;

  constructor(plan: BenchPlan) {
    this.#plan = plan;
    this.#phases = phasesOf(plan);
    this.#died.promise.catch(() => {}); // Heard of by the phase that runs.
  }

  /** Has the workers end at their next operation. */
  stop(): void {
    this.#stopped = true;
    this.#halt();
  }

  close(): void {
    for (const { worker } of this.#workers) worker.terminate();
  }

  async run(progress: BenchOptions["progress"]): Promise<PhaseResult[] | string> {
    const { folder, processes } = this.#plan;
    Deno.mkdirSync(join(folder, "shared"));
    for (let process = 0; process < processes; process++) {
      Deno.mkdirSync(join(folder, `own.${process}`));
      this.#start(process);
    }
    const results: PhaseResult[] = [];
    for (const [number, phase] of this.#phases.entries()) {
      if (this.#stopped) break;
      progress(phase, number + 1, this.#phases.length);
      const done = await Promise.race([this.#phase(number), this.#died.promise]);
      const failed = done.find(({ error }) => error !== "");
      if (failed !== undefined) return failed.error;
      results.push(this.#result(phase, done));
    }
    return this.#stopped ? "stopped; everything that it made is removed" : results;
  }

  #halt(): void {
    Atomics.store(this.#control, control.stop, 1);
    Atomics.notify(this.#control, control.arrived);
  }

  #start(process: number): void {
    const worker = new Worker(new URL("./bench_worker.ts", import.meta.url), { type: "module" });
    const latencies = new SharedArrayBuffer(LatencyTable.bytes(this.#phases.length));
    worker.onerror = (event) => {
      event.preventDefault();
      this.#halt();
      this.#died.reject(new Error(`internal error: ${event.message}`));
    };
    const start: BenchStart = { plan: this.#plan, process, control: this.#control.buffer, latencies };
    worker.postMessage(start);
    this.#workers.push({ worker, latencies });
  }

  /** What each worker says of a phase; one that failed ends those of the others. */
  #phase(number: number): Promise<BenchDone[]> {
    const order: BenchOrder = { phase: number };
    return Promise.all(this.#workers.map(({ worker }) =>
      new Promise<BenchDone>((resolve) => {
        worker.onmessage = ({ data }) => {
          if (data.error !== "") this.#halt();
          resolve(data);
        };
        worker.postMessage(order);
      })
    ));
  }

  #result({ name, title }: Phase, done: readonly BenchDone[]): PhaseResult {
    const tables = this.#workers.map(({ latencies }) => new LatencyTable(this.#phases.length, latencies));
    const figures = sumOfFigures(tables.map((table) => table.figures((kind) => this.#phases[kind].name)))
      .find((row) => row.name === name);
    const operations = done.reduce((sum, one) => sum + one.operations, 0);
    const bytes = done.reduce((sum, one) => sum + one.bytes, 0);
    const beganMs = Math.min(...done.map((one) => one.beganMs)), endedMs = Math.max(...done.map((one) => one.endedMs));
    // A phase without an operation takes no time.
    const seconds = Math.max(endedMs - beganMs, 0.001) / 1000;
    return {
      phase: name,
      title,
      operations,
      bytes,
      seconds,
      operationsPerSecond: operations / seconds,
      mebibytesPerSecond: bytes / seconds / 2 ** 20,
      p50Ms: figures === undefined ? 0 : percentileMs(figures, 0.5),
      p99Ms: figures === undefined ? 0 : percentileMs(figures, 0.99),
      maxMs: figures?.maxMs ?? 0,
    };
  }
}

/** Why there is no room for a plan, "" when there is. */
function roomFault({ path, ...plan }: BenchOptions): string {
  const stat = new BigUint64Array(statfsBytes / 8);
  if (libc.statfs64(cstr(path), stat) < 0) return `cannot ask ${path} for its free room: ${errnoText(errno())}`;
  // struct statfs: f_bsize, f_bavail, f_files and f_ffree are its words 1, 4, 5 and 6.
  const [, blockBytes, , , available, inodes, inodesFree] = Array.from(stat, Number);
  const needed = bytesNeeded({ ...plan, folder: "" }), free = blockBytes * available;
  if (needed > free * (1 - spareRoom)) {
    return `${path} has ${mebibytes(free)} MiB free, and the bench writes ${mebibytes(needed)} MiB: give a smaller ` +
      "--size, --files, --file-size or --processes";
  }
  const files = plan.processes * (plan.files + 2) + otherInodes;
  // A file system without a limit says 0.
  if (inodes === 0 || files <= inodesFree) return "";
  return `${path} has room for ${inodesFree} more files, and the bench makes ${files}: give fewer --files or --processes`;
}

function mebibytes(bytes: number): string {
  return Math.ceil(bytes / 2 ** 20).toLocaleString("en-US");
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message.split(" (os error")[0] : String(error);
}
