/**
 * `sealfs client`: the verbs, one module each, imported only when it runs.
 *
 * @module
 */

import { type Command, group } from "./flags.ts";
import { clientFlags } from "./client/common.ts";

/** What a verb's module exports. */
interface VerbModule {
  run(args: string[]): Promise<number>;
}

/** A verb: its line in the help, and its module. */
interface Verb {
  summary: string;
  internal?: boolean;
  load: () => Promise<VerbModule>;
}

/** The verbs, in the order of the help. */
const verbs: Record<string, Verb> = {
  daemon: { summary: "Serve mounts of volumes on this machine", load: () => import("./client/daemon.ts") },
  create: { summary: "Make a volume", load: () => import("./client/create.ts") },
  delete: { summary: "Delete a volume and everything in it", load: () => import("./client/delete.ts") },
  list: { summary: "List the volumes", load: () => import("./client/list.ts") },
  mount: { summary: "Mount a volume", load: () => import("./client/mount.ts") },
  umount: { summary: "Unmount a volume", load: () => import("./client/umount.ts") },
  "list-mountpoints": { summary: "List the mounts of the daemon", load: () => import("./client/list_mountpoints.ts") },
  du: { summary: "Sum up what files and trees take", load: () => import("./client/du.ts") },
  rm: { summary: "Remove files and whole trees", load: () => import("./client/rm.ts") },
  info: { summary: "Show where a file is and who uses it", load: () => import("./client/info.ts") },
  status: { summary: "Show servers, volumes and clients of the cluster", load: () => import("./client/status.ts") },
  stats: { summary: "Show what mounts do, interval by interval", load: () => import("./client/stats.ts") },
  profile: { summary: "Show where the time of a mount goes", load: () => import("./client/profile.ts") },
  bench: { summary: "Measure a directory: small files, then large ones", load: () => import("./client/bench.ts") },
  fsck: { summary: "Check the whole cluster, and repair it", load: () => import("./client/fsck.ts") },
  probe: { summary: "Tell whether daemon and manager answer", load: () => import("./client/probe.ts") },
  keeper: { summary: "Hold the mounts of a daemon", internal: true, load: () => import("./client/keeper.ts") },
};

const commands: Command[] = Object.entries(verbs).map(([name, { summary, internal, load }]) => {
  return { name: `sealfs client ${name}`, summary, internal, run: async (args) => (await load()).run(args) };
});

/** Runs the command. */
export const { run } = group({
  name: "sealfs client",
  summary: "Mount volumes and administer a cluster",
  flags: clientFlags,
  commands,
  examples: [
    "sealfs client create test1 100GiB",
    "sealfs client mount ~/fs test1",
    "sealfs client --manager-address 10.0.0.1:8081 status",
  ],
});
