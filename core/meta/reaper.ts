/**
 * The end of files: what happens when the last name of a file is gone. A file that nobody has open and that has no far
 * chunks ends in the record that removes its name. Others become orphans (kind O, in the store) and end here, when the
 * last session has closed them: far chunks first, on all servers, then the inode. An orphan is its own intent: found
 * at start, it is ended again.
 *
 * @module
 */

import { blocksOf, granuleBytes } from "../data/chunk_record.ts";
import { CUT } from "../protocol/messages.ts";
import { type Task, wait } from "../task.ts";
import { type Attributes, inodeFlags } from "./attributes.ts";
import type { Engine } from "./engine.ts";
import { after, chunkKey, inodeKey, Key, keyNumber, kind, shardOf } from "./layout.ts";
import { Plan } from "./plan.ts";
import { planDropExtended } from "./steps.ts";

/** Pause before a failed end is tried again. */
const againMs = 1000;
/** Orphans ended at the same time. */
const atOnceMax = 8;

/** Ends orphans of a store. */
export class Reaper {
  #queue = new Set<number>();
  #running = 0;

  constructor(readonly engine: Engine) {}

  /** Plans the end of a file whose last name goes: at once, or as an orphan. `file.nlink` is 0, its times are set. */
  planEnd(plan: Plan, file: Attributes): void {
    const far = (file.flags & inodeFlags.far) !== 0;
    const busy = this.engine.opens.mayBeOpen(file.inode) || this.engine.inodeHeld(file.inode);
    if (!far && !busy) return this.#planRemoval(plan, file);
    this.planOrphan(plan, file);
    // In grace nobody knows yet whether it is open: it waits in the queue. Else the last close brings it back.
    this.consider(file.inode);
  }

  /** Plans the attributes of a file without names, and the mark by which it is found again. */
  planOrphan(plan: Plan, file: Attributes): void {
    const mark = new Uint8Array(4);
    new DataView(mark.buffer).setUint32(0, file.volume, true);
    plan.attributes(file);
    plan.put(inodeKey(shardOf(file.inode), kind.orphan, file.inode), mark);
  }

  /** At the start of a shard: its orphans are ended once grace is over. */
  load(shard: number): void {
    const prefix = new Key(shard, kind.orphan, 3).done();
    this.engine.store.scan(prefix, after(prefix), (key) => {
      this.#queue.add(keyNumber(key, 3, 7));
      return true;
    });
  }

  /** An inode has been closed, or dropped: ends it if it is an orphan that nobody has open. */
  consider(inode: number): void {
    this.#queue.add(inode);
    this.kick();
  }

  /** Goes through what waits. Called when grace ends, too. */
  kick(): void {
    while (this.#running < atOnceMax && this.#queue.size > 0 && !this.engine.opens.grace) {
      const inode = this.#queue.values().next().value!;
      this.#queue.delete(inode);
      this.#running++;
      this.engine.runtime.scheduler.spawn(this.#end(inode));
    }
  }

  /** Orphans that wait or are being ended. */
  get pending(): number {
    return this.#queue.size + this.#running;
  }

  *#end(inode: number): Task<void> {
    const again = yield* this.#tryEnd(inode);
    this.#running--;
    if (again) {
      yield* wait(this.engine.runtime.sleep(againMs));
      this.#queue.add(inode);
    }
    this.kick();
  }

  /** True when it has to be tried again later. */
  *#tryEnd(inode: number): Task<boolean> {
    const shard = shardOf(inode), engine = this.engine;
    yield* engine.logged();
    const isOrphan = () => engine.store.get(inodeKey(shard, kind.orphan, inode)) !== undefined;
    if (!isOrphan() || engine.opens.mayBeOpen(inode)) return false;
    const lock = String(inode), owner = engine.newOwner();
    yield* engine.inodes.acquire(lock, owner);
    // A create that is answered again after a restart opens again what it had opened.
    if (engine.opens.mayBeOpen(inode)) {
      engine.inodes.release(lock, owner);
      return false;
    }
    const done = yield* this.#cutFar(inode, isOrphan);
    engine.leases.begin([inode]);
    yield* engine.leases.clear([inode], 0);
    const file = engine.tree.attributes(inode);
    if (done && isOrphan() && file !== null) {
      const plan = new Plan();
      this.#planRemoval(plan, file);
      plan.inodes.push(inode);
      engine.commit(shard, plan);
    }
    engine.leases.end([inode]);
    engine.inodes.release(lock, owner);
    return !done;
  }

  *#cutFar(inode: number, isOrphan: () => boolean): Task<boolean> {
    const file = this.engine.tree.attributes(inode);
    if (!isOrphan() || file === null || (file.flags & inodeFlags.far) === 0) return true;
    const range = {
      inode,
      gen: file.gen,
      start: 0,
      end: Number.MAX_SAFE_INTEGER,
      forget: true,
      floor: false,
      room: false,
    };
    return (yield* cutEverywhere(this.engine, range)).errno === 0;
  }

  #planRemoval(plan: Plan, file: Attributes): void {
    const shard = shardOf(file.inode), engine = this.engine;
    for (const keyKind of [kind.inode, kind.data, kind.symlink, kind.orphan, kind.mask, kind.floor, kind.places]) {
      const key = inodeKey(shard, keyKind, file.inode);
      if (engine.store.get(key) !== undefined) plan.remove(key);
    }
    planDropExtended(engine, plan, file.inode);
    const lengthOf = (keyKind: number) => engine.store.get(inodeKey(shard, keyKind, file.inode))?.length ?? 0;
    const inline = lengthOf(kind.data) + lengthOf(kind.symlink);
    const chunk = engine.store.get(chunkKey(shard, file.inode, 0));
    if (chunk !== undefined) {
      plan.charge(file.volume, -blocksOf(chunk) * granuleBytes, 0);
      plan.remove(chunkKey(shard, file.inode, 0));
    }
    plan.charge(file.volume, -inline, -1);
    engine.locks.forget(file.inode);
  }
}

/** Sends one CUT to every store that holds data; errno of the first that failed, and the blocks of far chunks that are left. */
export function* cutEverywhere(
  engine: Engine,
  cut: { inode: number; gen: number; start: number; end: number; forget: boolean; floor: boolean; room: boolean },
): Task<{ errno: number; leftBlocks: number }> {
  const running = engine.map.holders.map((at) => engine.runtime.scheduler.spawn(engine.caller.call(CUT, at, cut)));
  let errno = 0, leftBlocks = 0;
  for (const one of running) {
    const reply = yield* wait(one);
    if (reply.status !== 0) errno = reply.status;
    else leftBlocks += (reply.body as { leftBlocks: number }).leftBlocks;
  }
  return { errno, leftBlocks };
}
