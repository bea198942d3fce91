/**
 * `deno task bench:peers [--files N] [--mebibytes N] [--rounds N] [--json]`: sealfs against bindfs (Debian) and the local
 * ext4. The stores of all lie on one fresh ext4 image; runs alternate; figures are medians, ratios are against bindfs of
 * the same placement. Each is measured as it comes, and with every process, the load too, pinned to one processor. Needs
 * root and /dev/fuse; removes everything it makes.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { attempt, Cluster, isMountpoint, root, run } from "../tests/cluster/harness.ts";
import { buildExecutable } from "../cmd/build.ts";
import { jsonText, table } from "../cmd/output.ts";
import { needs } from "../tests/cluster/needs.ts";
import type { Figures } from "./load.ts";

const imageSize = "12G";
const pinnedTo = 0;
const loadTimeoutMs = 300_000;

/** Something that is measured. */
interface Candidate {
  name: string;
  /** Processor that everything of it runs on; undefined: any. */
  pin?: number;
  folder: string;
  runs: Figures[];
}

const columns: readonly { key: keyof Figures; title: string }[] = [
  { key: "create", title: "create+write+close 4 KiB/s" },
  { key: "stat", title: "stat/s" },
  { key: "fstat", title: "fstat/s" },
  { key: "read", title: "open+read+close 4 KiB/s" },
  { key: "unlink", title: "unlink/s" },
  { key: "writeMib", title: "write MiB/s" },
  { key: "readMib", title: "read MiB/s" },
  { key: "randomRead", title: "random 4 KiB reads/s" },
];

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function medians(candidate: Candidate): Figures {
  const of = (key: keyof Figures) => median(candidate.runs.map((figures) => figures[key]));
  return Object.fromEntries(columns.map(({ key }) => [key, of(key)])) as unknown as Figures;
}

function onProcessor(pin: number | undefined, command: string[]): string[] {
  return pin === undefined ? command : ["taskset", "-c", String(pin), ...command];
}

async function measure(candidate: Candidate, files: number, mebibytes: number): Promise<void> {
  const folder = join(candidate.folder, "load");
  await Deno.mkdir(folder);
  const load = [Deno.execPath(), "run", "-A", "--no-check", join(root, "bench", "load.ts")];
  const command = onProcessor(candidate.pin, [...load, folder, String(files), String(mebibytes)]);
  candidate.runs.push(JSON.parse(await run(command, { timeoutMs: loadTimeoutMs })));
  await Deno.remove(folder);
}

function ratio(value: number, base: number): string {
  const quotient = value / base;
  return `${quotient < 0.1 ? quotient.toFixed(2) : quotient.toFixed(1)}x`;
}

/** A table in Markdown, ratios against the bindfs of the same placement in brackets. */
function report(candidates: readonly Candidate[]): string {
  const lines = [
    `| | ${columns.map((column) => column.title).join(" | ")} |`,
    `|---|${columns.map(() => "--:").join("|")}|`,
  ];
  for (const candidate of candidates) {
    const mine = medians(candidate);
    const peer = candidates.find((one) => one.name === "bindfs" && one.pin === candidate.pin)!;
    const cells = columns.map(({ key }) => {
      const text = Math.round(mine[key]).toLocaleString("en");
      return candidate === peer ? text : `${text} (${ratio(mine[key], medians(peer)[key])})`;
    });
    lines.push(`| ${label(candidate)} | ${cells.join(" | ")} |`);
  }
  return lines.join("\n") + "\n";
}

function label({ name, pin }: Candidate): string {
  return pin === undefined ? name : `${name}, pinned`;
}

/** Everything that was made, undone in reverse. */
class Undo {
  #steps: (() => Promise<unknown>)[] = [];

  push(step: () => Promise<unknown>): void {
    this.#steps.unshift(step);
  }

  async all(): Promise<void> {
    for (const step of this.#steps) await step().catch((error) => console.error(String(error)));
  }
}

async function freshImage(temp: string, undo: Undo): Promise<string> {
  const image = join(temp, "image"), path = join(temp, "disk");
  await run(["truncate", "-s", imageSize, image]);
  await run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image]);
  await Deno.mkdir(path);
  await run(["mount", "-o", "loop", image, path]);
  undo.push(() => run(["umount", path]).catch(() => run(["umount", "-l", path])));
  return path;
}

async function startBindfs(temp: string, disk: string, pin: number | undefined, undo: Undo): Promise<Candidate> {
  const name = pin === undefined ? "bindfs" : "bindfs-pinned";
  const store = join(disk, name), folder = join(temp, name);
  await Deno.mkdir(store);
  await Deno.mkdir(folder);
  // In the foreground it is a process of ours.
  const [program, ...args] = onProcessor(pin, ["bindfs", "-f", store, folder]);
  const child = new Deno.Command(program, { args, stdin: "null" }).spawn();
  undo.push(async () => {
    await attempt(["umount", "-l", folder]);
    await child.status; // It ends with its mount.
  });
  while (!isMountpoint(folder)) await new Promise((done) => setTimeout(done, 20));
  return { name: "bindfs", pin, folder, runs: [] };
}

interface ClusterWish {
  servers: number;
  pin: number | undefined;
}

async function startCluster(temp: string, disk: string, wish: ClusterWish, undo: Undo): Promise<Candidate> {
  const { servers, pin } = wish;
  const name = `sealfs-${servers}${pin === undefined ? "" : "-pinned"}`;
  const folder = join(temp, name);
  await Deno.mkdir(folder);
  const options = { servers, clients: 1, pin, dataPath: join(disk, name), volumeSize: "4GiB" };
  const cluster = new Cluster(folder, [await buildExecutable()], options);
  undo.push(async () => {
    const problems = await cluster.stop();
    await cluster.clear();
    if (problems.length > 0) throw new Error(problems.join("\n"));
  });
  await cluster.start();
  const label = `sealfs, ${servers} server${servers === 1 ? "" : "s"}`;
  return { name: label, pin, folder: cluster.clients[0].path, runs: [] };
}

async function main(): Promise<number> {
  const flags = parseArgs(Deno.args, {
    string: ["files", "mebibytes", "rounds"],
    boolean: ["json"],
    default: { files: "2000", mebibytes: "256", rounds: "3" },
  });
  const [files, mebibytes, rounds] = [flags.files, flags.mebibytes, flags.rounds].map(Number);
  if (![files, mebibytes, rounds].every((number) => Number.isSafeInteger(number) && number > 0)) {
    console.error("bench:peers: --files, --mebibytes and --rounds are whole numbers above 0");
    return 2;
  }
  const { missing } = needs("bindfs", "mkfs.ext4", "mount");
  if (missing !== "") {
    console.error(`bench:peers: missing: ${missing}`);
    return 1;
  }
  const temp = await Deno.makeTempDir({ prefix: "sealfs-bench-" });
  const undo = new Undo();
  undo.push(() => Deno.remove(temp, { recursive: true }));
  try {
    const disk = await freshImage(temp, undo);
    const candidates: Candidate[] = [];
    for (const pin of [undefined, pinnedTo]) {
      const folder = join(disk, `local${pin ?? ""}`);
      await Deno.mkdir(folder);
      candidates.push({ name: "local ext4", pin, folder, runs: [] });
      candidates.push(await startBindfs(temp, disk, pin, undo));
      for (const servers of [1, 3]) candidates.push(await startCluster(temp, disk, { servers, pin }, undo));
    }
    for (let round = 1; round <= rounds; round++) {
      for (const candidate of candidates) {
        await measure(candidate, files, mebibytes);
        if (flags.json) continue;
        const figures = candidate.runs.at(-1)!;
        const cells = columns.map(({ key }) => Math.round(figures[key]));
        const titles = [`round ${round}: ${label(candidate)}`, ...columns.map((column) => column.key)];
        console.error(table(titles.map((title) => ({ title, align: "right" })), [["", ...cells]]));
      }
    }
    if (flags.json) {
      console.log(jsonText(candidates.map((one) => ({ name: label(one), medians: medians(one), runs: one.runs }))));
    } else console.log(report(candidates));
    return 0;
  } finally {
    await undo.all();
  }
}

Deno.exit(await main());
