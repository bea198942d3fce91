/**
 * `sealfs up`: a whole cluster on this machine with a mounted volume, until Ctrl-C.
 *
 * @module
 */

import { join, resolve } from "@std/path";
import { bold, green } from "@std/fmt/colors";
import { isMounted } from "../ffi/fuse/mount.ts";
import { logFlags } from "./config.ts";
import { command, CommandError } from "./flags.ts";
import { LocalCluster } from "./local_cluster.ts";
import { writeError, writeOut } from "./output.ts";
import { stopSignal } from "./signals.ts";

const volume = "test1";
/** Larger than most disks: then the disk is the limit, and `df` shows it. */
const volumeBytes = 2 ** 40;

function progress(line: string): void {
  writeOut(`${green("ok")}  ${line}\n`);
}

/** Makes the folder to mount on; returns how to remove what was made. */
function prepareMountpoint(path: string): () => void {
  if (isMounted(path)) throw new CommandError(`something is mounted at ${path}: give another --mount`);
  try {
    const there = Deno.lstatSync(path);
    if (!there.isDirectory) throw new CommandError(`${path} is not a folder: give another --mount`);
    return () => {};
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  try {
    Deno.mkdirSync(path, { recursive: true });
  } catch (error) {
    throw new CommandError(`cannot make the folder ${path}: ${(error as Error).message}`);
  }
  return () => {
    try {
      Deno.removeSync(path);
    } catch { // Somebody put something there after the volume was unmounted: it stays.
    }
  };
}

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs up",
    summary: "Run a whole cluster on this machine, until Ctrl-C",
    details: `Starts a manager, servers and a client, makes volume ${volume} and mounts it. Without --data-path\n` +
      "everything is in a temporary folder, which is removed at the end.",
    flags: [
      { name: "servers", type: "integer", min: 1, max: 16, help: "number of servers", default: 3 },
      { name: "mount", type: "string", value: "DIR", help: "where to mount", default: "./sealfs-mount" },
      { name: "data-path", type: "string", value: "DIR", help: "folder for the data, kept and used again" },
      logFlags[0],
    ],
    examples: ["sealfs up", "sealfs up --servers 1 --mount ~/fs --data-path ~/fs-data"],
  },
  async ({ flags }) => {
    const stop = stopSignal();
    const mountpoint = resolve(flags.mount);
    const removeMountpoint = prepareMountpoint(mountpoint);
    const runPath = await Deno.makeTempDir({ prefix: "sealfs-up-" });
    const dataPath = flags["data-path"] === undefined ? join(runPath, "data") : resolve(flags["data-path"]);
    let cluster: LocalCluster | undefined;
    try {
      const start = async () => {
        cluster = await LocalCluster.start({
          servers: flags.servers,
          dataPath,
          runPath,
          logLevel: flags["log-level"],
          progress,
        });
        await cluster.ensureVolume(volume, volumeBytes);
        progress(`volume ${volume}`);
        const daemon = await cluster.startDaemon("client");
        await daemon.mount(mountpoint, volume);
        progress(`mounted at ${mountpoint}`);
        writeOut(summary(cluster.managerAddress, daemon.socketPath, flags["data-path"] && dataPath, runPath));
        writeOut(`ready: volume ${volume} at ${mountpoint} (Ctrl-C stops)\n`);
      };
      const started = start();
      const early = await Promise.race([started.then(() => false), stop.then(() => true)]);
      if (early) await started.catch(() => {});
      else {
        const broken = await Promise.race([stop.then(() => undefined), cluster!.broken]);
        if (broken !== undefined) throw new CommandError(broken);
      }
      writeOut("stopping\n");
    } finally {
      const problems = await cluster?.stop() ?? [];
      for (const problem of problems) writeError(`sealfs up: ${problem}`);
      removeMountpoint();
      await Deno.remove(runPath, { recursive: true });
    }
    return 0;
  },
);

function summary(manager: string, socketPath: string, dataPath: string | undefined, runPath: string): string {
  const client = `sealfs client --manager-address ${manager} --socket-path ${socketPath}`;
  const rows = [
    ["dashboard", `http://${manager}/`],
    ["status", `${client} status`],
    ["logs", `${runPath}/*.log`],
    ["data", dataPath === undefined ? "temporary, removed at the end (--data-path DIR keeps it)" : dataPath],
  ];
  const width = Math.max(...rows.map(([title]) => title.length));
  return `\n${rows.map(([title, text]) => `${bold(title.padEnd(width))}  ${text}\n`).join("")}\n`;
}
