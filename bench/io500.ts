/**
 * `deno task io500 --binary PATH`: runs an IO500 that the user has built (https://github.com/IO500/io500) on a volume of a
 * cluster of its own, and shows what it prints. The configuration is `examples/io500.ini` unless told otherwise; its
 * datadir and resultdir are replaced. Needs root, /dev/fuse and an MPI; removes everything it makes.
 *
 * @module
 */

import { join, resolve } from "@std/path";
import { buildExecutable } from "../cmd/build.ts";
import { command, CommandError } from "../cmd/flags.ts";
import { stopSignal } from "../cmd/signals.ts";
import { Cluster, root, run } from "../tests/cluster/harness.ts";
import { needs } from "../tests/cluster/needs.ts";

const volumeSize = "1TiB";
/** Time that a run may take, in milliseconds. */
const timeoutMsDefault = 3_600_000;

/** What is to be run. */
export interface Io500Options {
  /** Path of the executable `io500`. */
  binary: string;
  /** Path of its configuration. */
  config: string;
  ranks: number;
  servers: number;
  /** Where the stores of the servers are; undefined: a temporary folder. */
  dataPath?: string;
  /** Where its result files are kept; undefined: nowhere. */
  results?: string;
  /** Time the whole run may take. */
  timeoutMs: number;
}

/** The configuration with its datadir and resultdir replaced, or undefined when it lacks one of them. */
export function withFolders(config: string, folders: { datadir: string; resultdir: string }): string | undefined {
  let text = config;
  for (const [key, folder] of Object.entries(folders)) {
    const line = new RegExp(`^[ \\t]*${key}[ \\t]*=.*$`, "m");
    if (!line.test(text)) return undefined;
    text = text.replace(line, () => `${key} = ${folder}`);
  }
  return text;
}

/** What is missing for a run; "" when nothing is. */
export function missingFor({ binary, config }: Io500Options): string {
  try {
    const { isFile, mode } = Deno.statSync(binary);
    if (!isFile || (mode! & 0o111) === 0) return `${binary} is not an executable file`;
  } catch {
    return `${binary} does not exist: build IO500 (https://github.com/IO500/io500, prepare.sh) and give its io500`;
  }
  try {
    Deno.statSync(config);
  } catch {
    return `the configuration ${config} does not exist`;
  }
  return mpirun() === undefined ? "mpirun is not in PATH: install an MPI (Debian: apt-get install openmpi-bin)" : "";
}

/** The beginning of a command line of the MPI that is there; undefined without one. */
function mpirun(): string[] | undefined {
  try {
    const { stdout } = new Deno.Command("mpirun", { args: ["--version"], stderr: "null" }).outputSync();
    // Open MPI wants to be told that root and more ranks than processors are meant.
    const isOpen = /open.?mpi/i.test(new TextDecoder().decode(stdout));
    return isOpen ? ["mpirun", "--allow-run-as-root", "--oversubscribe"] : ["mpirun"];
  } catch {
    return undefined;
  }
}

/** Runs IO500 in a folder until its end or `stop`; its output is this process' own. Throws {@linkcode CommandError}. */
async function runIo500(options: Io500Options, config: string, cwd: string, stop: Promise<unknown>): Promise<void> {
  const [program, ...args] = [...mpirun()!, "-np", String(options.ranks), options.binary, config];
  const child = new Deno.Command(program, { args, cwd, stdin: "null" }).spawn();
  const late = Promise.withResolvers<string>();
  const timer = setTimeout(() => {
    late.resolve(`not done after ${options.timeoutMs / 1000} s: give a longer --timeout`);
  }, options.timeoutMs);
  const ended = child.status.then(({ code }) => code === 0 ? "" : `io500 ended with exit code ${code}`);
  const outcome = await Promise.race([ended, late.promise, stop.then(() => "stopped")]);
  clearTimeout(timer);
  try {
    child.kill("SIGTERM");
  } catch { // It has ended.
  }
  await child.status;
  if (outcome !== "") throw new CommandError(outcome);
}

async function measure(options: Io500Options, folder: string): Promise<void> {
  const { servers, dataPath } = options, stop = stopSignal();
  const cluster = new Cluster(folder, [await buildExecutable()], { servers, clients: 1, volumeSize, dataPath });
  try {
    await cluster.start();
    const folders = {
      datadir: join(cluster.clients[0].path, "io500"),
      resultdir: options.results ?? join(folder, "results"),
    };
    const text = withFolders(Deno.readTextFileSync(options.config), folders);
    if (text === undefined) throw new CommandError(`${options.config} does not set both datadir and resultdir`);
    const config = join(folder, "io500.ini");
    Deno.writeTextFileSync(config, text);
    await runIo500(options, config, folder, stop);
    const problems = await cluster.stop();
    if (problems.length > 0) throw new CommandError(problems.join("; "));
  } finally {
    await cluster.clear();
  }
}

/** Runs the task. */
export const { run: runTask } = command(
  {
    name: "deno task io500",
    summary: "Run an IO500 that you have built on a volume of a cluster of its own",
    details: "Needs root, /dev/fuse and an MPI; removes everything that it makes.",
    flags: [
      { name: "binary", type: "string", value: "PATH", help: "the executable io500", required: true },
      {
        name: "config",
        type: "string",
        value: "FILE",
        help: "its configuration, whose datadir and resultdir are replaced",
        default: join(root, "examples", "io500.ini"),
        shownDefault: "examples/io500.ini",
      },
      { name: "ranks", type: "integer", min: 1, max: 1024, help: "processes of MPI", default: 2 },
      { name: "servers", type: "integer", min: 1, max: 16, help: "servers of the cluster", default: 3 },
      {
        name: "data-path",
        type: "string",
        value: "DIR",
        help: "new folder for the servers' data; a temporary one else",
      },
      { name: "results", type: "string", value: "DIR", help: "folder to keep the result files in" },
      {
        name: "timeout",
        type: "duration",
        min: 1000,
        value: "SECONDS",
        help: "time that the run may take",
        default: timeoutMsDefault,
        shownDefault: timeoutMsDefault / 1000,
      },
    ],
    examples: ["deno task io500 --binary ~/io500/io500"],
  },
  async ({ flags: { binary, config, ranks, servers, "data-path": dataPath, results, timeout: timeoutMs } }) => {
    const options = {
      binary: resolve(binary),
      config: resolve(config),
      ranks,
      servers,
      dataPath: dataPath && resolve(dataPath),
      results: results && resolve(results),
      timeoutMs,
    };
    const missing = missingFor(options) || needs("mount").missing;
    if (missing !== "") throw new CommandError(missing);
    const folder = await Deno.makeTempDir({ prefix: "sealfs-io500-" });
    try {
      await measure(options, folder);
      return 0;
    } finally {
      // A mount that could not be undone must not be emptied.
      await run(["rm", "-rf", "--one-file-system", folder]);
    }
  },
);

if (import.meta.main) Deno.exit(await runTask(Deno.args));
