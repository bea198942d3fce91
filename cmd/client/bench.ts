/**
 * `sealfs client bench`: measures a directory, on a volume or anywhere else.
 *
 * @module
 */

import { resolve } from "@std/path";
import { pieceBytes } from "../../ffi/bench/plan.ts";
import { type PhaseResult, runBench } from "../../ffi/bench/run.ts";
import { command, CommandError, UsageError } from "../flags.ts";
import { humanSize, printJson, table, writeError, writeOut } from "../output.ts";
import { stopSignal } from "../signals.ts";
import { clientFlags, jsonFlag } from "./common.ts";
import { benchPlot } from "./bench_plot.ts";
import { countText, latencyText } from "./mount_rates.ts";

const name = "sealfs client bench";
const processesDefault = 2, filesDefault = 1000, fileBytesDefault = 4096, largeBytesDefault = 64 << 20;
const phaseMsDefault = 10_000;

/** The results for people. */
export function benchText(results: readonly PhaseResult[]): string {
  const right = { align: "right" } as const;
  return table(
    [
      { title: "phase" },
      { title: "count", ...right },
      { title: "time", ...right },
      { title: "ops/s", ...right },
      { title: "MiB/s", ...right },
      { title: "p50", ...right },
      { title: "p99", ...right },
      { title: "max", ...right },
    ],
    results.map((one) => [
      one.title,
      countText(one.operations),
      `${one.seconds.toFixed(2)} s`,
      countText(one.operationsPerSecond),
      one.bytes === 0 ? "" : countText(one.mebibytesPerSecond),
      latencyText(one.p50Ms),
      latencyText(one.p99Ms),
      latencyText(one.maxMs),
    ]),
  );
}

/** Opens the file of the picture before the work, which a wrong path would make vain. */
function openPlot(path: string | undefined): Deno.FsFile | undefined {
  if (path === undefined) return undefined;
  try {
    return Deno.openSync(path, { write: true, create: true });
  } catch (error) {
    throw new CommandError(`cannot write ${path}: ${(error as Error).message.split(" (os error")[0]}`);
  }
}

function writePlot(file: Deno.FsFile, text: string): void {
  file.truncateSync(0);
  for (let rest = new TextEncoder().encode(text); rest.length > 0;) rest = rest.subarray(file.writeSync(rest));
}

/** Runs the command. */
export const { run } = command(
  {
    name,
    summary: "Measure a directory: small files, then large ones",
    details:
      "Works in a folder of its own in PATH, which is removed at the end, also after Ctrl-C. PATH may be in a\n" +
      "mounted volume or anywhere else, to compare. Small files are created, looked at, read, listed, renamed and\n" +
      "removed, by each process in a directory of its own and then by all in one; large ones are written and read in\n" +
      "order by 1 MiB and anywhere by 4 KiB. Processes are threads that make system calls and begin each phase\n" +
      "together. Writing large files ends with fsync, which counts; before they are read this machine's memory\n" +
      "forgets them, but not that of servers. Listings count by entry, their latency is of a whole listing.",
    flags: [
      ...clientFlags,
      { name: "processes", type: "integer", min: 1, max: 64, help: "how many work at once", default: processesDefault },
      {
        name: "files",
        type: "integer",
        min: 0,
        max: 1_000_000,
        help: "small files of each process and directory; 0 leaves them out",
        default: filesDefault,
      },
      {
        name: "file-size",
        type: "size",
        min: 1,
        max: pieceBytes,
        help: "size of a small file",
        default: fileBytesDefault,
        shownDefault: "4KiB",
      },
      {
        name: "size",
        type: "size",
        min: 0,
        max: 2 ** 40,
        help: "size of each process' large file, in whole MiB; 0 leaves it out",
        default: largeBytesDefault,
        shownDefault: "64MiB",
      },
      {
        name: "seconds",
        type: "duration",
        min: 100,
        max: 3_600_000,
        value: "SECONDS",
        help: "a phase ends after this time, done or not",
        default: phaseMsDefault,
        shownDefault: phaseMsDefault / 1000,
      },
      { name: "svg", type: "string", value: "FILE", help: "draw the results into FILE as well" },
      jsonFlag,
    ],
    positionals: [{ name: "PATH", help: "a mountpoint, or any other directory" }],
    examples: [
      "sealfs client bench ~/fs",
      "sealfs client bench /var/tmp --svg local.svg",
      "sealfs client bench ~/fs --processes 8 --files 10000 --size 0 --json",
    ],
  },
  async ({ flags, positionals }) => {
    const path = resolve(positionals.PATH);
    const { processes, files, "file-size": fileBytes } = flags;
    const largeBytes = Math.ceil(flags.size / pieceBytes) * pieceBytes;
    if (files === 0 && largeBytes === 0) throw new UsageError(`${name}: --files 0 and --size 0 leave nothing to do`);
    const plot = openPlot(flags.svg);
    const shows = Deno.stderr.isTerminal();
    const outcome = await runBench({
      path,
      processes,
      files,
      fileBytes,
      largeBytes,
      phaseMsMax: flags.seconds,
      stop: stopSignal(),
      progress: ({ title }, number, of) => {
        if (shows) writeError(`${number} of ${of}: ${title}`);
      },
    });
    if (typeof outcome === "string") throw new CommandError(outcome);
    if (plot !== undefined) {
      const large = largeBytes === 0 ? "" : `, ${humanSize(largeBytes)} each`;
      const subtitle = `${processes} at once; ${countText(files)} files of ${humanSize(fileBytes)} each${large}`;
      writePlot(plot, benchPlot(outcome, { title: `sealfs client bench ${positionals.PATH}`, subtitle }));
    }
    if (flags.json) printJson({ path, processes, files, fileBytes, largeBytes, phases: outcome });
    else writeOut(benchText(outcome));
    return 0;
  },
);
