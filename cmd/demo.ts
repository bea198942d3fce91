/**
 * `sealfs demo`: a whole cluster in a temporary folder, real work by two clients, everything verified and removed.
 *
 * The last line is `demo ok: N files, M MiB verified` and the exit code 0; any difference is exit code 1.
 *
 * @module
 */

import { dirname, fromFileUrl, join } from "@std/path";
import { green } from "@std/fmt/colors";
import { isMounted } from "../ffi/fuse/mount.ts";
import { logFlags } from "./config.ts";
import { databaseWrites, renameStorm } from "./demo/storms.ts";
import {
  type Entry,
  fileEntry,
  folderEntry,
  forAll,
  Mismatch,
  readTree,
  verifyTree,
  type Work,
  writeTree,
} from "./demo/tree.ts";
import { command, CommandError } from "./flags.ts";
import { LocalCluster } from "./local_cluster.ts";
import { humanSize, table, writeError, writeOut } from "./output.ts";
import { isExecutable } from "./self.ts";
import { stopSignal } from "./signals.ts";

const volume = "demo";
const volumeBytes = 64 * 2 ** 30;
const smallFiles = 2000;
const smallFolders = 20;
const smallBytes = 4096;

/** Folders to work in. */
interface Places {
  /** The same volume, mounted by two daemons. */
  a: string;
  b: string;
  /** On the local disk. */
  local: string;
}

/** A row of the table at the end. */
interface Row {
  what: string;
  work: Work;
  local?: Work;
}

/** What has been compared so far. */
class Tally {
  files = 0;
  bytes = 0;
  readonly rows: Row[] = [];

  verified(work: Work): Work {
    this.files += work.files;
    this.bytes += work.bytes;
    return work;
  }
}

/** Files of the package that this Deno came in, or its executable alone; and the tree of this repository, if there. */
function realTrees(): Entry[] {
  const program = Deno.realPathSync("/proc/self/exe");
  const entries: Entry[] = [];
  const packages = /^(.*\/node_modules)\/@deno\//.exec(program)?.[1];
  if (packages === undefined) {
    entries.push(folderEntry("deno"), fileEntry("deno/program", Deno.readFileSync(program), 0o755));
  } else entries.push(...readTree(packages, "deno"));
  if (!isExecutable()) {
    const root = dirname(dirname(fromFileUrl(import.meta.url)));
    entries.push(...readTree(root, "repository", ["node_modules", "build", "sealfs-mount"]));
  }
  return entries;
}

/** Many small files. */
function smallTree(): Entry[] {
  const entries = [folderEntry("small")];
  for (let n = 0; n < smallFolders; n++) entries.push(folderEntry(`small/d${n}`));
  for (let n = 0; n < smallFiles; n++) {
    const bytes = new Uint8Array(smallBytes).map((_, at) => at * 31 + n * 7);
    entries.push(fileEntry(`small/d${n % smallFolders}/f${n}`, bytes));
  }
  return entries;
}

async function tar(...args: string[]): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command("tar", { args, stdin: "null" }).output();
  const decoder = new TextDecoder();
  if (!success) throw new Mismatch(`tar ${args.join(" ")}: ${decoder.decode(stderr)}${decoder.decode(stdout)}`.trim());
}

async function measured(entries: readonly Entry[], body: () => Promise<void>): Promise<Work> {
  const files = entries.filter((entry) => entry.content.kind !== "folder");
  const bytes = files.reduce((sum, { content }) => sum + (content.kind === "file" ? content.bytes.length : 0), 0);
  const start = performance.now();
  await body();
  return { files: files.length, bytes, seconds: (performance.now() - start) / 1000 };
}

/** Trees in by one mount, verified by the other, and the same on the local disk. */
async function copies(places: Places, tally: Tally, step: (line: string) => void): Promise<void> {
  for (const [what, entries] of [["real trees", realTrees()], ["small files", smallTree()]] as const) {
    const written = await writeTree(entries, places.a);
    const writtenLocal = await writeTree(entries, places.local);
    const read = tally.verified(await verifyTree(entries, places.b));
    const readLocal = await verifyTree(entries, places.local);
    tally.rows.push({ what: `${what}: write`, work: written, local: writtenLocal });
    tally.rows.push({ what: `${what}: read, verify`, work: read, local: readLocal });
    step(`${what}: ${written.files} files, ${humanSize(written.bytes)} in by one mount, verified by the other`);
  }
}

/** An archive unpacked by one mount, packed again by the other. */
async function archives(places: Places, tally: Tally, step: (line: string) => void): Promise<void> {
  const entries = smallTree();
  const archive = join(places.local, "small.tar"), back = join(places.local, "back.tar");
  await tar("-cf", archive, "-C", places.local, "small");
  const unpack = (root: string) =>
    measured(entries, async () => {
      await Deno.mkdir(join(root, "unpacked"));
      await tar("-xf", archive, "-C", join(root, "unpacked"));
    });
  tally.rows.push({ what: "tar: unpack", work: await unpack(places.a), local: await unpack(places.local) });
  tally.verified(await verifyTree(entries, join(places.b, "unpacked")));
  const pack = (root: string) => measured(entries, () => tar("-cf", back, "-C", join(root, "unpacked"), "small"));
  const packedLocal = await pack(places.local);
  tally.rows.push({ what: "tar: pack", work: await pack(places.b), local: packedLocal });
  await tar("-df", back, "-C", places.local);
  step(`tar: ${smallFiles} files unpacked by one mount, packed by the other, equal`);
}

async function work(places: Places, tally: Tally, step: (line: string) => void): Promise<void> {
  await copies(places, tally, step);
  await archives(places, tally, step);

  const database = await databaseWrites(places.a);
  const databaseLocal = await databaseWrites(places.local);
  tally.rows.push({ what: "database: random writes, fsync", work: database.work, local: databaseLocal.work });
  tally.verified(await database.verify(places.b));
  step("database: random page writes in journalled transactions, verified by the other mount");

  const storm = await renameStorm(places.a, places.b);
  tally.rows.push({ what: "renames by two clients", work: storm.work });
  tally.verified(storm.verified);
  step(`renames: ${storm.work.files} by two clients in the same folders, nothing lost, nothing twice`);

  const names = [...Deno.readDirSync(places.b)].map((entry) => join(places.b, entry.name));
  const start = performance.now();
  await forAll(names, (path) => Deno.remove(path, { recursive: true }));
  for (const { name } of Deno.readDirSync(places.a)) throw new Mismatch(`${name} is still there after its removal`);
  step(`everything removed by one mount, gone in the other (${((performance.now() - start) / 1000).toFixed(1)} s)`);
}

function figures(rows: readonly Row[]): string {
  const perSecond = (work: Work) => (work.files / work.seconds).toFixed(0);
  const mebibytes = (work: Work) => work.bytes === 0 ? "" : (work.bytes / 2 ** 20 / work.seconds).toFixed(1);
  return table(
    [
      { title: "work" },
      { title: "files/s", align: "right" },
      { title: "MiB/s", align: "right" },
      { title: "local files/s", align: "right" },
      { title: "local MiB/s", align: "right" },
    ],
    rows.map(({ what, work, local }) => [
      what,
      perSecond(work),
      mebibytes(work),
      local === undefined ? "" : perSecond(local),
      local === undefined ? "" : mebibytes(local),
    ]),
  );
}

/** Starts the cluster, works, takes everything down; what is left behind is a {@linkcode Mismatch}. */
async function demonstrate(logLevel: string, stop: Promise<void>, step: (line: string) => void): Promise<Tally> {
  const folder = await Deno.makeTempDir({ prefix: "sealfs-demo-" });
  const places = { a: join(folder, "a"), b: join(folder, "b"), local: join(folder, "local") };
  const tally = new Tally();
  let cluster: LocalCluster | undefined;
  let problems: string[] = [];
  try {
    for (const path of Object.values(places)) await Deno.mkdir(path);
    const dataPath = join(folder, "data");
    cluster = await LocalCluster.start({ servers: 3, dataPath, runPath: folder, logLevel, progress: step });
    await cluster.ensureVolume(volume, volumeBytes);
    for (const name of ["a", "b"] as const) {
      const daemon = await cluster.startDaemon(`client-${name}`);
      await daemon.mount(places[name], volume);
      step(`client ${name} (pid ${daemon.pid}) has mounted the volume`);
    }
    const broken = await Promise.race([
      work(places, tally, step).then(() => undefined),
      cluster.broken,
      stop.then(() => "interrupted"),
    ]);
    if (broken !== undefined) throw new CommandError(broken);
  } finally {
    problems = await cluster?.stop() ?? [];
    for (const path of [places.a, places.b]) if (isMounted(path)) problems.push(`${path} is still mounted`);
    // Never through a mount that is still there.
    if (problems.length === 0) await Deno.remove(folder, { recursive: true });
    else problems.push(`see ${folder}`);
    for (const problem of problems) writeError(`sealfs demo: ${problem}`);
  }
  if (problems.length > 0) throw new Mismatch("the cluster did not go down cleanly");
  step("cluster stopped, everything removed");
  return tally;
}

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs demo",
    summary: "Show a cluster at work on this machine, verify it, remove it",
    details: "Manager, three servers, two clients in a temporary folder; takes about a minute.",
    flags: [logFlags[0]],
  },
  async ({ flags }) => {
    const step = (line: string) => writeOut(`${green("ok")}  ${line}\n`);
    try {
      const tally = await demonstrate(flags["log-level"], stopSignal(), step);
      writeOut(`\n${figures(tally.rows)}\n`);
      writeOut(`demo ok: ${tally.files} files, ${Math.round(tally.bytes / 2 ** 20)} MiB verified\n`);
      return 0;
    } catch (error) {
      if (error instanceof CommandError) throw error;
      throw new CommandError(error instanceof Error ? error.message : String(error));
    }
  },
);
