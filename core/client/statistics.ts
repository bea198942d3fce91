/**
 * statfs(2) of a volume: one question to every store, all at once.
 *
 * @module
 */

import { E, type Result } from "../errno.ts";
import { inodeBudget, serverState } from "../placement/map.ts";
import { STATFS } from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import type { Totals } from "./filesystem.ts";
import { inParallel } from "./parallel.ts";
import { parallelMax, type Volume } from "./volume.ts";

/** A store that does not answer within this time makes the figure unknown. */
const answerMs = 10_000;

/**
 * Budget and use of the volume. What is available is the smaller of what the budget leaves and what the servers have
 * free for one copy; the size shown is never more than use and space together. Stores that the map calls down are left
 * out; EIO when another does not answer.
 */
export function* statistics(volume: Volume): Task<Result<Totals>> {
  const { maps, caller, runtime } = volume.session;
  // Space on a server that takes no data is no space.
  const stores = maps.holders.filter(({ server }) => maps.server(server)!.state !== serverState.down);
  const replies = yield* inParallel(runtime.scheduler, stores.length, parallelMax, (i) => {
    return caller.call(STATFS, stores[i], { volume: volume.id }, { timeoutMs: answerMs });
  });
  let usedBytes = 0, inodes = 0, freeBytes = 0;
  for (const { status, body } of replies) {
    if (status !== 0) return E.IO;
    usedBytes += body!.usedBytes;
    inodes += body!.inodes;
    freeBytes += body!.freeBytes;
  }
  const budget = maps.volume(volume.id)?.sizeBytes ?? 0;
  const free = Math.floor(freeBytes / Math.max(1, maps.current.replicas));
  const availableBytes = Math.max(0, Math.min(budget - usedBytes, free));
  return {
    sizeBytes: Math.min(budget, usedBytes + free),
    usedBytes,
    availableBytes,
    inodes,
    inodesFree: Math.max(0, inodeBudget(budget) - inodes),
  };
}
