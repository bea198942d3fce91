/**
 * Pages of a directory: listed, cleared, summed up. With attributes, those of near inodes come in the page; those of far ones (subdirectories,
 * mostly) by one question to each store, all at once.
 *
 * @module
 */

import { failed, type Result } from "../errno.ts";
import type { Attributes } from "../meta/attributes.ts";
import { shardOf } from "../meta/layout.ts";
import { CLEAR, GETATTRS, READDIR, TALLY } from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import type { Cleared, DirectoryEntry, ListOptions, Tally } from "./filesystem.ts";
import { removing } from "./namespace.ts";
import { inParallel } from "./parallel.ts";
import { parallelMax, type Volume } from "./volume.ts";

/** Longest page asked for. */
const pageBytesMax = 256 * 1024;
/** Inodes in one GETATTRS. */
const inodesPerMessage = 4096;

/** READDIR, and GETATTRS for far inodes with `plus`. An inode that is gone meanwhile has no attributes. */
export function* readDirectory(
  volume: Volume,
  asked: { dir: number; cookie: number; limitBytes: number } & ListOptions,
): Task<Result<DirectoryEntry[]>> {
  const { dir, cookie, plus } = asked, limitBytes = Math.max(1, Math.min(asked.limitBytes, pageBytesMax));
  const accessTimes = volume.directoryAccessTimes(asked);
  const page = yield* volume.ask(READDIR, dir, { dir, cookie, limitBytes, plus, accessTimes });
  if (failed(page)) return page;
  if (plus) yield* fetchAttributes(volume, page.entries);
  return page.entries;
}

/** CLEAR. */
export function* clearDirectory(
  volume: Volume,
  dir: number,
  cookie: number,
  owner: number | null,
): Task<Result<Cleared>> {
  return yield* removing(volume, null, volume.ask(CLEAR, dir, { dir, cookie, owner }));
}

/** TALLY, and GETATTRS for far inodes. One that is gone meanwhile is not counted. */
export function* tallyDirectory(volume: Volume, dir: number, cookie: number): Task<Result<Tally>> {
  const page = yield* volume.ask(TALLY, dir, { dir, cookie });
  if (failed(page)) return page;
  const { far, ...tally } = page;
  const found = yield* attributesOf(volume, far);
  for (const file of found) {
    if (file === null) continue;
    if (file.nlink > 1) {
      tally.linked.push({ inode: file.inode, nlink: file.nlink, bytes: file.size, blocks: file.blocks });
      continue;
    }
    tally.files++;
    tally.bytes += file.size;
    tally.blocks += file.blocks;
  }
  return tally;
}

function* fetchAttributes(volume: Volume, entries: DirectoryEntry[]): Task<void> {
  const far = entries.filter((entry) => entry.attributes === null);
  for (const { attributes } of entries) if (attributes !== null) volume.seen(attributes);
  const found = yield* attributesOf(volume, far.map((entry) => entry.inode));
  far.forEach((entry, i) => entry.attributes = found[i]);
}

/** Attributes of inodes anywhere, in their order; null for those that are gone or could not be asked for. */
function* attributesOf(volume: Volume, inodes: readonly number[]): Task<(Attributes | null)[]> {
  const { maps, caller, runtime } = volume.session;
  const groups: { server: number; store: number; places: number[] }[] = [];
  const filling = new Map<string, (typeof groups)[number]>();
  const found = new Array<Attributes | null>(inodes.length).fill(null);
  inodes.forEach((inode, place) => {
    const owner = maps.ownerOf(shardOf(inode));
    if (owner === null) return;
    const key = `${owner.server}/${owner.store}`;
    let group = filling.get(key);
    if (group === undefined || group.places.length >= inodesPerMessage) {
      group = { ...owner, places: [] };
      filling.set(key, group);
      groups.push(group);
    }
    group.places.push(place);
  });
  if (groups.length === 0) return found;
  yield* inParallel(runtime.scheduler, groups.length, parallelMax, function* (i): Task<void> {
    const { server, store, places } = groups[i];
    const reply = yield* caller.call(GETATTRS, { server, store }, { inodes: places.map((place) => inodes[place]) });
    if (reply.status !== 0) return;
    places.forEach((place, at) => {
      const one = reply.body!.found[at] ?? null;
      if (one?.inode === inodes[place]) found[place] = volume.seen(one);
    });
  });
  return found;
}
