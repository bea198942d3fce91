/**
 * `deno task bench:small-files [--servers N] [--programs N] [--files N] [--rounds N] [--pin CPU] [EXECUTABLE...]`: what an
 * operation on a small file costs: operations a second, and for the client daemon and the servers processor time and
 * context switches an operation. Several executables (builds of different versions) are measured in turn, round by round,
 * each on a cluster of its own; without one it is this version's. Figures are medians. Needs root and /dev/fuse.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { buildExecutable } from "../cmd/build.ts";
import { table } from "../cmd/output.ts";
import { Cluster, root } from "../tests/cluster/harness.ts";
import { type Phase, phases } from "./phase.ts";

/** Processor time and context switches of some processes since their start. */
interface Spent {
  cpuUs: number;
  switches: number;
}

interface Figures {
  perSecond: number;
  daemon: Spent;
  servers: Spent;
}

/** A program that works in a folder of its own, round by round. */
class Load {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<string>;

  constructor(folder: string, files: number, pin: number | undefined) {
    const command = [
      Deno.execPath(),
      "run",
      "-A",
      "--no-check",
      join(root, "bench", "phase.ts"),
      folder,
      String(files),
    ];
    const [program, ...args] = pin === undefined ? command : ["taskset", "-c", String(pin), ...command];
    this.#child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped" }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Milliseconds that a round took. */
  async round(phase: Phase): Promise<number> {
    await this.#writer.write(new TextEncoder().encode(`${phase}\n`));
    const { value } = await this.#reader.read();
    if (value === undefined) throw new Error(`the program ended in ${phase}`);
    return Number(value);
  }

  async end(): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#child.status;
  }
}

/** A version under test. */
class Candidate {
  readonly runs: Record<Phase, Figures[]> = { create: [], stat: [], read: [], unlink: [] };
  readonly #loads: Load[] = [];

  constructor(readonly name: string, readonly cluster: Cluster) {}

  async start(programs: number, files: number, pin: number | undefined): Promise<void> {
    await this.cluster.start();
    for (let number = 0; number < programs; number++) {
      const folder = join(this.cluster.clients[0].path, `d${number}`);
      await Deno.mkdir(folder);
      this.#loads.push(new Load(folder, files, pin));
    }
  }

  async measure(files: number, keep: boolean): Promise<void> {
    for (const phase of phases) {
      const before = this.#spent();
      const times = await Promise.all(this.#loads.map((load) => load.round(phase)));
      const after = this.#spent(), count = files * this.#loads.length;
      if (!keep) continue;
      this.runs[phase].push({
        perSecond: count * 1000 / Math.max(...times),
        daemon: each(before.daemon, after.daemon, count),
        servers: each(before.servers, after.servers, count),
      });
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.#loads.map((load) => load.end()));
    await this.cluster.stop();
    await this.cluster.clear();
  }

  #spent(): { daemon: Spent; servers: Spent } {
    const { clients, servers } = this.cluster;
    return { daemon: spentBy([clients[0].daemon.pid]), servers: spentBy(servers.map(({ pid }) => pid)) };
  }
}

function spentBy(pids: readonly number[]): Spent {
  const sum = { cpuUs: 0, switches: 0 };
  for (const pid of pids) {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
      const thread = `/proc/${pid}/task/${name}`;
      sum.cpuUs += Number(Deno.readTextFileSync(`${thread}/schedstat`).split(" ")[0]) / 1000;
      const status = Deno.readTextFileSync(`${thread}/status`);
      for (const [, count] of status.matchAll(/ctxt_switches:\s*(\d+)/g)) sum.switches += Number(count);
    }
  }
  return sum;
}

function each(before: Spent, after: Spent, count: number): Spent {
  return { cpuUs: (after.cpuUs - before.cpuUs) / count, switches: (after.switches - before.switches) / count };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function report(candidates: readonly Candidate[]): string {
  const columns = ["", "phase", "a second", "daemon us", "switches", "servers us", "switches"];
  const rows = phases.flatMap((phase) =>
    candidates.map(({ name, runs }) => {
      const of = (pick: (figures: Figures) => number, digits = 1) => median(runs[phase].map(pick)).toFixed(digits);
      return [
        name,
        phase,
        of((one) => one.perSecond, 0),
        of((one) => one.daemon.cpuUs),
        of((one) => one.daemon.switches),
        of((one) => one.servers.cpuUs),
        of((one) => one.servers.switches),
      ];
    })
  );
  return table(columns.map((title, at) => ({ title, align: at < 2 ? "left" : "right" })), rows);
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    string: ["servers", "programs", "files", "rounds", "pin"],
    default: { servers: "3", programs: "1", files: "1000", rounds: "5" },
  });
  const [servers, programs, files, rounds] = [flags.servers, flags.programs, flags.files, flags.rounds].map(Number);
  const executables = flags._.length > 0 ? flags._.map(String) : [await buildExecutable()];
  const temp = await Deno.makeTempDir({ prefix: "sealfs-bench-" });
  const candidates: Candidate[] = [];
  try {
    const pin = flags.pin === undefined ? undefined : Number(flags.pin);
    for (const [number, executable] of executables.entries()) {
      const folder = join(temp, String(number));
      await Deno.mkdir(folder);
      const candidate = new Candidate(executable, new Cluster(folder, [executable], { servers, clients: 1, pin }));
      candidates.push(candidate);
      await candidate.start(programs, files, pin);
    }
    for (let round = 0; round <= rounds; round++) {
      // The first round warms the code up.
      for (const candidate of candidates) await candidate.measure(files, round > 0);
    }
    console.log(report(candidates));
  } finally {
    for (const candidate of candidates) await candidate.stop().catch((error) => console.error(String(error)));
    await Deno.remove(temp, { recursive: true });
  }
}

await main();
