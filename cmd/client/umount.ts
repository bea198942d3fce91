/**
 * `sealfs client umount`: unmounts, and forgets the mount.
 *
 * @module
 */

import { resolve } from "@std/path";
import { cleanDeadMount } from "../../ffi/fuse/mount.ts";
import { command, CommandError } from "../flags.ts";
import { askRunningDaemon, clientFlags, probeDaemon, socketPath } from "./common.ts";

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client umount",
    summary: "Unmount a volume",
    details:
      "When it returns, everything written is with the servers. A mount in which files are open is busy; with\n" +
      "--lazy it disappears now and ends when the last of them is closed.",
    flags: [...clientFlags, { name: "lazy", short: "l", type: "boolean", help: "also when files in it are open" }],
    positionals: [{ name: "MOUNTPOINT", help: "where it is mounted" }],
  },
  async ({ flags, positionals }) => {
    const mountpoint = resolve(positionals.MOUNTPOINT);
    if (await probeDaemon(flags) === undefined) {
      // A daemon that crashed left it.
      if (cleanDeadMount(mountpoint)) return 0;
      throw new CommandError(`no client daemon at ${socketPath(flags)}, and no dead mount at ${mountpoint}`);
    }
    await askRunningDaemon(flags, { ask: "unmount", mountpoint, lazy: flags.lazy });
    return 0;
  },
);
