/**
 * `sealfs client list`: the volumes.
 *
 * @module
 */

import type { VolumeStatus } from "../../core/manager/manager.ts";
import { command } from "../flags.ts";
import { humanSize, printJson, table, writeOut } from "../output.ts";
import { askManager, clientFlags, jsonFlag } from "./common.ts";

/** The volumes for people. */
export function volumeTable(volumes: readonly VolumeStatus[]): string {
  if (volumes.length === 0) return "no volumes; sealfs client create NAME SIZE makes one\n";
  return table(
    [
      { title: "name" },
      { title: "size", align: "right" },
      { title: "used", align: "right" },
      { title: "inodes", align: "right" },
      { title: "mounts", align: "right" },
      { title: "state" },
    ],
    volumes.map((volume) => [
      volume.name,
      humanSize(volume.sizeBytes),
      humanSize(volume.usedBytes),
      volume.inodes,
      volume.mounts,
      volume.state + (volume.readOnly ? ", read-only" : ""),
    ]),
  );
}

/** Runs the command. */
export const { run } = command(
  { name: "sealfs client list", summary: "List the volumes", flags: [...clientFlags, jsonFlag] },
  async ({ flags }) => {
    const volumes = await askManager(flags, (client) => client.listVolumes());
    if (flags.json) printJson(volumes);
    else writeOut(volumeTable(volumes));
    return 0;
  },
);
