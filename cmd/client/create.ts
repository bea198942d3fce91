/**
 * `sealfs client create`: makes a volume.
 *
 * @module
 */

import { volumeNameFault } from "../../core/manager/manager.ts";
import { command, UsageError } from "../flags.ts";
import { humanSize, printJson, writeOut } from "../output.ts";
import { parseSize, ValueError } from "../values.ts";
import { askManager, clientFlags, jsonFlag } from "./common.ts";

const name = "sealfs client create";

function sizeOf(text: string): number {
  try {
    const bytes = parseSize(text, 2 ** 20);
    if (bytes > 0) return bytes;
    throw new ValueError("a volume needs a size");
  } catch (error) {
    if (error instanceof ValueError) throw new UsageError(`${name}: SIZE: ${error.message}`);
    throw error;
  }
}

/** Runs the command. */
export const { run } = command(
  {
    name,
    summary: "Make a volume",
    details:
      "The first volume of a cluster decides which servers hold its data: those that are up. It waits until no\n" +
      "server has joined for two seconds, or with --servers until that many have.",
    flags: [
      ...clientFlags,
      { name: "read-only", type: "boolean", help: "nobody may write to it" },
      { name: "servers", type: "integer", min: 1, max: 4096, help: "first volume: wait for this many servers" },
      jsonFlag,
    ],
    positionals: [
      { name: "NAME", help: "letters A-Z a-z 0-9 . _ -" },
      { name: "SIZE", help: "in MiB, or with KiB, MiB, GiB or TiB behind it" },
    ],
    examples: ["sealfs client create test1 100GiB"],
  },
  async ({ flags, positionals }) => {
    const fault = volumeNameFault(positionals.NAME);
    if (fault !== undefined) throw new UsageError(`${name}: NAME: ${fault}`);
    const asked = {
      name: positionals.NAME,
      sizeBytes: sizeOf(positionals.SIZE),
      readOnly: flags["read-only"],
      servers: flags.servers,
    };
    const volume = await askManager(flags, (client) => client.createVolume(asked));
    if (flags.json) printJson(volume);
    else writeOut(`volume ${volume.name} of ${humanSize(volume.sizeBytes)} is ready to be mounted\n`);
    return 0;
  },
);
