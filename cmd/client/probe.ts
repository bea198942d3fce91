/**
 * `sealfs client probe`: tells whether the daemon and its manager answer. Exit code 0 when both do.
 *
 * @module
 */

import { ManagerClient, ManagerFailure } from "../../ffi/manager_client.ts";
import { command } from "../flags.ts";
import { printJson, writeOut } from "../output.ts";
import { clientFlags, jsonFlag, loggerOf, probeDaemon, secretOf, socketPath } from "./common.ts";

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client probe",
    summary: "Tell whether daemon and manager answer",
    details: "Waits for nothing. Exit code 0 when both answer, 1 when not. The manager is the daemon's, unless\n" +
      "--manager-address names another.",
    flags: [...clientFlags, jsonFlag],
  },
  async ({ flags, given }) => {
    const daemon = await probeDaemon(flags);
    const own = given.has("manager-address") ? undefined : daemon?.managerAddress;
    const address = own ?? flags["manager-address"];
    const client = new ManagerClient({
      address,
      secret: secretOf(flags),
      logger: { ...loggerOf(flags), log: () => {} },
    });
    let problem: string | undefined;
    try {
      await client.status();
    } catch (error) {
      if (!(error instanceof ManagerFailure)) throw error;
      problem = error.message;
    }
    client.close();
    if (flags.json) {
      printJson({
        daemon: daemon ?? null,
        manager: { address, answers: problem === undefined, problem: problem ?? null },
      });
    } else {
      const socket = socketPath(flags);
      writeOut(
        daemon === undefined
          ? `daemon: none at ${socket}\n`
          : `daemon: pid ${daemon.pid} at ${socket}, version ${daemon.version}, session ${daemon.session}, ` +
            `${daemon.mounts.length} ${daemon.mounts.length === 1 ? "mount" : "mounts"}\n`,
      );
      writeOut(problem === undefined ? `manager: answers at ${address}\n` : `manager: ${problem}\n`);
    }
    return daemon !== undefined && problem === undefined ? 0 : 1;
  },
);
