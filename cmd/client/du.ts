/**
 * `sealfs client du`: what files and trees take, summed up by the servers.
 *
 * @module
 */

import type { TreeUsage } from "../../ffi/library/volume.ts";
import { command, CommandError } from "../flags.ts";
import { humanSize, printJson, table, writeError, writeOut } from "../output.ts";
import { clientFlags, jsonFlag } from "./common.ts";
import { pathHelp, type Place, placeOf, reasonOf, shownPath, Volumes } from "./place.ts";

const name = "sealfs client du";

/** Asks for all paths of a volume at once, so that a file with names in several of them is counted once. */
async function ask(volumes: Volumes, places: readonly Place[]): Promise<Map<Place, TreeUsage | Error>> {
  const found = new Map<Place, TreeUsage | Error>();
  const groups = Map.groupBy(places, ({ managerAddress, volume }) => `${managerAddress}/${volume}`);
  for (const group of groups.values()) {
    const volume = await volumes.volume(group[0]);
    const usages = await volume.usage(group.map(({ path }) => path));
    group.forEach((place, i) => found.set(place, usages[i]));
  }
  return found;
}

function usageTable(rows: readonly [Place, TreeUsage][], bytes: boolean): string {
  const size = (value: number) => bytes ? String(value) : humanSize(value);
  return table(
    [
      { title: "allocated", align: "right" },
      { title: "apparent", align: "right" },
      { title: "files", align: "right" },
      { title: "directories", align: "right" },
      { title: "path" },
    ],
    rows.map(([{ given }, usage]) => [
      size(usage.allocatedBytes),
      size(usage.apparentBytes),
      usage.files,
      usage.directories,
      given,
    ]),
  );
}

/** Runs the command. */
export const { run } = command(
  {
    name,
    summary: "Sum up what files and trees take",
    details:
      "Servers sum up the directories that they hold, many at once; nothing is read but metadata. A file with\n" +
      "several names is counted once. Symbolic links are counted, not followed.",
    flags: [
      ...clientFlags,
      { name: "bytes", short: "b", type: "boolean", help: "print numbers of bytes instead of KiB, MiB, GiB" },
      jsonFlag,
    ],
    positionals: [{ name: "PATH", help: pathHelp, rest: true }],
    examples: ["sealfs client du ~/fs/photos", "sealfs client du --bytes test1:/photos test1:/music"],
  },
  async ({ flags, positionals, given }) => {
    await using volumes = new Volumes(flags);
    const places: Place[] = [], rows: [Place, TreeUsage][] = [];
    let complete = true;
    const complain = (path: string, reason: string) => {
      complete = false;
      writeError(`${name}: ${path}: ${reason}`);
    };
    for (const path of positionals.PATH) {
      try {
        places.push(placeOf(path, flags, given.has("manager-address")));
      } catch (error) {
        if (!(error instanceof CommandError)) throw error;
        complete = false;
        writeError(`${name}: ${error.message}`);
      }
    }
    const found = await ask(volumes, places);
    for (const place of places) {
      const usage = found.get(place)!;
      if (usage instanceof Error) {
        complain(place.given, reasonOf(usage));
        continue;
      }
      rows.push([place, usage]);
      for (const { path, error } of usage.problems) complain(shownPath(place, path), reasonOf(error));
      if (usage.moreProblems > 0) complain(place.given, `${usage.moreProblems} more could not be read`);
    }
    if (flags.json) {
      printJson(rows.map(([place, { files, directories, apparentBytes, allocatedBytes, problems, moreProblems }]) => {
        const unread = problems.length + moreProblems;
        return { path: place.given, files, directories, apparentBytes, allocatedBytes, unread };
      }));
    } else if (rows.length > 0) writeOut(usageTable(rows, flags.bytes));
    return complete ? 0 : 1;
  },
);
