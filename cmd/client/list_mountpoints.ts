/**
 * `sealfs client list-mountpoints`: what the daemon on this machine has mounted.
 *
 * @module
 */

import { command } from "../flags.ts";
import { printJson, table, writeOut } from "../output.ts";
import { clientFlags, jsonFlag, probeDaemon } from "./common.ts";

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client list-mountpoints",
    summary: "List the mounts of the daemon",
    details: "Without a daemon there are no mounts: the list is empty.",
    flags: [...clientFlags, jsonFlag],
  },
  async ({ flags }) => {
    const mounts = (await probeDaemon(flags))?.mounts ?? [];
    if (flags.json) printJson(mounts);
    else if (mounts.length === 0) writeOut("no mounts\n");
    else {
      const columns = ["mountpoint", "volume", "mode", "transport", "state"].map((title) => ({ title }));
      const rows = mounts.map(({ mountpoint, volume, readOnly, transport, state, problem }) => {
        const said = problem === "" ? state : `${state}: ${problem}`;
        return [mountpoint, volume, readOnly ? "ro" : "rw", transport, said];
      });
      writeOut(table(columns, rows));
    }
    return 0;
  },
);
