/**
 * `sealfs client rm`: removes files and whole trees, mostly by the servers themselves.
 *
 * @module
 */

import { mountAtOrBelow } from "../../ffi/fuse/mount.ts";
import type { Removed, Volume } from "../../ffi/library/volume.ts";
import { command, CommandError } from "../flags.ts";
import { humanDuration, printJson, writeError } from "../output.ts";
import { clientFlags, jsonFlag } from "./common.ts";
import { pathHelp, type Place, placeOf, reasonOf, shownPath, Volumes } from "./place.ts";

const name = "sealfs client rm";
const barChars = 30;
/** Exit code after a second Ctrl-C, which ends the command in the middle, as a shell gives it. */
const interruptedCode = 130;
const encoder = new TextEncoder();
const counted = (number: number, one: string, more: string) => {
  return `${number.toLocaleString("en-US")} ${number === 1 ? one : more}`;
};

/** A line on a terminal that is written over; nothing elsewhere. */
class Bar {
  readonly shown = Deno.stderr.isTerminal();
  #total = 0;
  readonly #startMs = performance.now();

  counting(): void {
    this.#write("counting");
  }

  begin(total: number): void {
    this.#total = total;
  }

  show({ files, directories }: { files: number; directories: number }): void {
    const done = files + directories, part = this.#total === 0 ? 0 : Math.min(1, done / this.#total);
    const filled = Math.round(part * barChars), elapsedMs = performance.now() - this.#startMs;
    const left = part > 0.02 && part < 1 ? `, ${humanDuration(elapsedMs / part - elapsedMs)} left` : "";
    const bar = `[${"#".repeat(filled)}${".".repeat(barChars - filled)}] ${Math.floor(part * 100)} %`;
    this.#write(`${bar}  ${done.toLocaleString("en-US")} of ${this.#total.toLocaleString("en-US")}${left}`);
  }

  clear(): void {
    this.#write("");
  }

  #write(text: string): void {
    if (this.shown) Deno.stderr.writeSync(encoder.encode(`\r\x1b[K${text}`));
  }
}

/** Why a path must not be removed; undefined when it may. */
function refusal({ given, path, realPath }: Place): string | undefined {
  if (/(^|\/)\.{1,2}\/*$/.test(given)) return "is . or .., which is never removed";
  const mount = realPath === undefined ? undefined : mountAtOrBelow(realPath);
  if (mount !== undefined && mount === realPath) return "is a mountpoint: remove what is in it, or unmount it";
  if (mount !== undefined) return `holds a mountpoint, ${mount}: unmount it first`;
  return /^\/*$/.test(path) ? "is the root of a volume: remove what is in it, or delete the volume" : undefined;
}

interface Removal {
  recursive: boolean;
  force: boolean;
  signal: AbortSignal;
  bar: Bar;
}

const nothing: Removed = { files: 0, directories: 0, stopped: false, problems: [], moreProblems: 0 };

async function remove(volume: Volume, place: Place, options: Removal): Promise<Removed> {
  const { path, given } = place, { bar, signal } = options;
  const refused = refusal(place);
  if (refused !== undefined) throw new CommandError(`${given} ${refused}`);
  try {
    const found = await volume.lstat(path);
    if (found.isDirectory && !options.recursive) {
      throw new CommandError(`${given} is a directory: -r removes it with all that is in it`);
    }
    if (bar.shown && found.isDirectory) {
      bar.counting();
      const [usage] = await volume.usage([path]);
      bar.begin(usage instanceof Error ? 0 : usage.files + usage.directories);
    }
    const onProgress = bar.shown ? (now: { files: number; directories: number }) => bar.show(now) : undefined;
    return await volume.removeAll(path, { keepGoing: true, onProgress, signal });
  } catch (error) {
    if (error instanceof CommandError) throw error;
    if (error instanceof Deno.errors.NotFound && options.force) return nothing;
    if (signal.aborted && error === signal.reason) return { ...nothing, stopped: true };
    throw new CommandError(`${given}: ${reasonOf(error)}`);
  } finally {
    bar.clear();
  }
}

/** Aborted at the first Ctrl-C (or SIGTERM); the second ends the process. */
function stopping(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      if (controller.signal.aborted) Deno.exit(interruptedCode);
      controller.abort();
    });
  }
  return controller.signal;
}

/** Runs the command. */
export const { run } = command(
  {
    name,
    summary: "Remove files and whole trees",
    details:
      "Servers remove what they hold, names by the hundred and many directories at once. Others may work in the\n" +
      "tree meanwhile. The caller's permissions apply, as with rm(1); after an error the rest is removed all the\n" +
      "same, and the exit code is 1. Ctrl-C stops it: what was begun is finished, the rest stays.",
    flags: [
      ...clientFlags,
      { name: "recursive", short: "r", type: "boolean", help: "remove directories with all that is in them" },
      { name: "force", short: "f", type: "boolean", help: "say nothing of paths that do not exist" },
      jsonFlag,
    ],
    positionals: [{ name: "PATH", help: pathHelp, rest: true }],
    examples: ["sealfs client rm -r ~/fs/build", "sealfs client rm -rf test1:/tmp/old test1:/tmp/older"],
  },
  async ({ flags, positionals, given }) => {
    const { recursive, force } = flags, signal = stopping(), bar = new Bar(), startMs = performance.now();
    const total = { files: 0, directories: 0 };
    let failed = false, stopped = false;
    const complain = (line: string) => {
      failed = true;
      writeError(`${name}: ${line}`);
    };
    await using volumes = new Volumes(flags);
    for (const path of positionals.PATH) {
      if (stopped) break;
      try {
        const place = placeOf(path, flags, given.has("manager-address"));
        const removed = await remove(await volumes.volume(place), place, { recursive, force, signal, bar });
        total.files += removed.files;
        total.directories += removed.directories;
        stopped = removed.stopped || signal.aborted;
        for (const problem of removed.problems) {
          complain(`${shownPath(place, problem.path)}: ${reasonOf(problem.error)}`);
        }
        if (removed.moreProblems > 0) complain(`${path}: ${removed.moreProblems} more could not be removed`);
      } catch (error) {
        if (!(error instanceof CommandError)) throw error;
        complain(error.message);
      }
    }
    const tookMs = Math.round(performance.now() - startMs);
    const { files, directories } = total;
    const what = `${counted(files, "file", "files")} and ${counted(directories, "directory", "directories")}`;
    if (stopped) complain(`stopped: ${what} were removed`);
    else if (bar.shown && !flags.json) writeError(`removed ${what} in ${humanDuration(tookMs)}`);
    if (flags.json) printJson({ files, directories, stopped, complete: !failed, tookMs });
    return failed ? 1 : 0;
  },
);
