/**
 * Access times. A read that is due moves the inode's atime in memory, where every answer shows it; it is recorded with
 * the others of its shard a second later, so that reading costs no record of its own. A kill of the server loses what was
 * moved in the last second, and nothing else: contents, mtime, ctime and version are never touched.
 *
 * @module
 */

import type { Time } from "../runtime.ts";
import { type Task, wait } from "../task.ts";
import { type Attributes, compareTime } from "./attributes.ts";
import type { Engine } from "./engine.ts";
import { shardOf } from "./layout.ts";
import { Plan } from "./plan.ts";

/** When a read moves the atime: numbers are sent. `relative` as the kernel's relatime, `always` as its strictatime. */
export const accessTimes = { never: 0, relative: 1, always: 2 } as const;
/** An atime older than this is always moved by `relative` (as in the kernel). */
const oldSeconds = 24 * 60 * 60;
/** Moved times are recorded after this time. */
const recordMs = 1000;
/** Times that wait to be recorded; more are not moved. */
const pendingMax = 65536;
/** Inodes in one record. */
const inodesPerRecord = 256;

/** True when a read at `now` moves the atime of an inode. */
export function accessIsDue(inode: Attributes, when: number, now: Time): boolean {
  if (when === accessTimes.always) return compareTime(now, inode.atime) > 0;
  if (when !== accessTimes.relative) return false;
  if (compareTime(inode.mtime, inode.atime) >= 0 || compareTime(inode.ctime, inode.atime) >= 0) return true;
  return now.sec - inode.atime.sec >= oldSeconds;
}

/** Access times of a store that are not recorded yet. They lie in the tree, which shows them. */
export class AccessTimes {
  #recording = false;

  constructor(readonly engine: Engine) {}

  /** True when a read of an inode now moves its atime, so that leases of others on it have to be taken back before. */
  isDue(inode: Attributes, when: number): boolean {
    // While leases of an earlier life may be in use a read would have to wait for their end.
    if (when === accessTimes.never || this.engine.leases.grace) return false;
    const pending = this.engine.tree.accessTimes;
    if (pending.size >= pendingMax && !pending.has(inode.inode)) return false;
    return accessIsDue(inode, when, this.engine.now());
  }

  /** An inode has been read by a session. True: its atime has moved. */
  read(inode: Attributes, when: number, session: number): boolean {
    if (!this.isDue(inode, when)) return false;
    this.engine.leases.check([inode.inode], session);
    this.engine.tree.accessTimes.set(inode.inode, this.engine.now());
    if (this.#recording) return true;
    this.#recording = true;
    this.engine.runtime.scheduler.spawn(this.#recordLater());
    return true;
  }

  /** The atime is set to something else. */
  forget(inode: number): void {
    this.engine.tree.accessTimes.delete(inode);
  }

  /** Records what waits; a store without room keeps the old times. */
  record(): void {
    const { tree, store } = this.engine, pending = tree.accessTimes;
    const shards = new Map<number, number[]>();
    for (const inode of store.canGrow() ? pending.keys() : []) {
      const shard = shardOf(inode), inodes = shards.get(shard);
      if (inodes === undefined) shards.set(shard, [inode]);
      else inodes.push(inode);
    }
    for (const [shard, inodes] of shards) {
      if (!this.engine.owns(shard)) continue;
      for (let at = 0; at < inodes.length; at += inodesPerRecord) {
        const plan = new Plan();
        for (const inode of inodes.slice(at, at + inodesPerRecord)) {
          const attributes = tree.attributes(inode);
          if (attributes !== null) plan.accessTime(attributes);
        }
        this.engine.commit(shard, plan);
      }
    }
    pending.clear();
  }

  *#recordLater(): Task<void> {
    yield* wait(this.engine.runtime.sleep(recordMs));
    this.#recording = false;
    this.record();
  }
}
