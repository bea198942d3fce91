/**
 * The entry point: picks the subcommand and imports only that one.
 *
 * Exit codes: 0 done, 1 failed, 2 wrong usage.
 *
 * @module
 */

import { type Command, group, guard } from "./flags.ts";
import { invokedAs } from "./self.ts";
import { writeOut } from "./output.ts";
import { version } from "./version.ts";

/** What a subcommand's module exports: `run` takes the arguments behind the name and returns the exit code. */
interface CommandModule {
  run(args: string[]): Promise<number>;
}

/** A subcommand: its line in the help, and its module, imported only when it runs. */
interface Entry {
  summary: string;
  load: () => Promise<CommandModule>;
}

/** The subcommands, in the order of the help. */
const entries: Record<string, Entry> = {
  manager: {
    summary: "Coordinate a cluster: membership, the cluster map, volumes",
    load: () => import("./manager.ts"),
  },
  server: { summary: "Store a share of the files and of their names", load: () => import("./server.ts") },
  client: { summary: "Mount volumes and administer a cluster", load: () => import("./client.ts") },
  up: { summary: "Run a whole cluster on this machine, until Ctrl-C", load: () => import("./up.ts") },
  demo: { summary: "Show a cluster at work on this machine, verify it, remove it", load: () => import("./demo.ts") },
};

/** Names under which the executable does something else, for symlinks to it. */
const otherNames: Record<string, () => Promise<CommandModule>> = {
  "mount.fuse.sealfs": () => import("./mount_helper.ts"),
};

const commands: Command[] = Object.entries(entries).map(([name, { summary, load }]) => {
  return { name: `sealfs ${name}`, summary, run: async (args) => (await load()).run(args) };
});

const sealfs = group({
  name: "sealfs",
  summary: `sealfs ${version}, a distributed POSIX file system`,
  flags: [{ name: "version", type: "boolean", help: "show the version" }],
  commands,
});

function main(args: string[]): Promise<number> {
  const name = invokedAs();
  if (Object.hasOwn(otherNames, name)) return guard(name, async () => (await otherNames[name]()).run(args));
  if (args[0] === "--version") {
    writeOut(`sealfs ${version}\n`);
    return Promise.resolve(0);
  }
  return sealfs.run(args);
}

Deno.exit(await main(Deno.args));
