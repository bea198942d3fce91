/**
 * `sealfs client daemon`: serves mounts until a signal.
 *
 * @module
 */

import { runClientDaemon } from "../../ffi/client_daemon.ts";
import { metricsFlag } from "../config.ts";
import { command, CommandError } from "../flags.ts";
import { writeOut } from "../output.ts";
import { stopSignal } from "../signals.ts";
import { version } from "../version.ts";
import { clientFlags, ioTimeoutMs, keeperCommand, loggerOf, secretOf, socketPath, statePath } from "./common.ts";

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client daemon",
    summary: "Serve mounts of volumes on this machine",
    details:
      "The daemon remembers its mounts and restores them at its next start, after a crash too. `client mount`\n" +
      "starts one when none runs. It waits for the manager if that is not there.",
    flags: [...clientFlags, metricsFlag],
  },
  async ({ flags }) => {
    const socket = socketPath(flags);
    const failure = await runClientDaemon({
      managerAddress: flags["manager-address"],
      secret: secretOf(flags),
      socketPath: socket,
      statePath: statePath(flags),
      ioTimeoutMs: ioTimeoutMs(flags),
      keeperCommand: keeperCommand(),
      version,
      metricsAddress: flags["metrics-address"],
      logger: loggerOf(flags),
      stop: stopSignal(),
      onReady: () => writeOut(`sealfs client daemon: ready at ${socket}\n`),
    });
    if (failure !== undefined) throw new CommandError(failure);
    return 0;
  },
);
