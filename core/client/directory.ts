/**
 * Pages of a directory. With attributes, those of near inodes come in the page; those of far ones (subdirectories,
 * mostly) by one question to each store, all at once.
 *
 * @module
 */

import { failed, type Result } from "../errno.ts";
import { shardOf } from "../meta/layout.ts";
import { GETATTRS, READDIR } from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import type { DirectoryEntry, ListOptions } from "./filesystem.ts";
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

function* fetchAttributes(volume: Volume, entries: DirectoryEntry[]): Task<void> {
  const { maps, caller, runtime } = volume.session;
  const groups: { server: number; store: number; entries: DirectoryEntry[] }[] = [];
  const filling = new Map<string, (typeof groups)[number]>();
  for (const entry of entries) {
    if (entry.attributes !== null) {
      volume.seen(entry.attributes);
      continue;
    }
    const owner = maps.ownerOf(shardOf(entry.inode));
    if (owner === null) continue;
    const key = `${owner.server}/${owner.store}`;
    let group = filling.get(key);
    if (group === undefined || group.entries.length >= inodesPerMessage) {
      group = { ...owner, entries: [] };
      filling.set(key, group);
      groups.push(group);
    }
    group.entries.push(entry);
  }
  if (groups.length === 0) return;
  yield* inParallel(runtime.scheduler, groups.length, parallelMax, function* (i): Task<void> {
    const { server, store, entries } = groups[i];
    const reply = yield* caller.call(GETATTRS, { server, store }, { inodes: entries.map((entry) => entry.inode) });
    if (reply.status !== 0) return;
    entries.forEach((entry, at) => {
      const found = reply.body!.found[at] ?? null;
      if (found?.inode === entry.inode) entry.attributes = volume.seen(found);
    });
  });
}
