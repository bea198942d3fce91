/**
 * `sealfs client delete`: deletes a volume; its data goes in the background.
 *
 * @module
 */

import { volumeNameFault } from "../../core/manager/manager.ts";
import { command, UsageError } from "../flags.ts";
import { printJson, writeOut } from "../output.ts";
import { askManager, clientFlags, jsonFlag } from "./common.ts";

const name = "sealfs client delete";

/** Runs the command. */
export const { run } = command(
  {
    name,
    summary: "Delete a volume and everything in it",
    details:
      "What is deleted cannot be brought back. A mounted volume is only deleted with --force: its mounts then\n" +
      "get ESTALE.",
    flags: [
      ...clientFlags,
      { name: "force", short: "f", type: "boolean", help: "also when it is mounted somewhere" },
      jsonFlag,
    ],
    positionals: [{ name: "NAME", help: "name of the volume" }],
  },
  async ({ flags, positionals }) => {
    const fault = volumeNameFault(positionals.NAME);
    if (fault !== undefined) throw new UsageError(`${name}: NAME: ${fault}`);
    const volume = await askManager(flags, (client) => client.deleteVolume(positionals.NAME, flags.force));
    if (flags.json) printJson(volume);
    else writeOut(`volume ${volume.name} is deleted; its space is freed in the background\n`);
    return 0;
  },
);
