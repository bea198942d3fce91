/**
 * Deleted volumes: walks a store's shards and removes everything that belongs to a volume which the map calls
 * "deleting", in slices, in the background. It is its own intent: after a restart it walks again and finds the rest.
 *
 * @module
 */

import { blocksOf, granuleBytes } from "../data/chunk_record.ts";
import { inodeFlags } from "../meta/attributes.ts";
import type { Engine } from "../meta/engine.ts";
import { after, decodeAttributes, inodeKey, Key, keyNumber, kind } from "../meta/layout.ts";
import { Plan } from "../meta/plan.ts";
import { cutEverywhere } from "../meta/reaper.ts";
import { type Task, wait } from "../task.ts";

/** Keys looked at, and records removed, before others get their turn. */
const sliceKeys = 512;
/** Pause before a shard is walked again because something in it was in use. */
const againMs = 200;

/** Removes a volume from all shards of a store. Ends when nothing is left. */
export function* sweepVolume(engine: Engine, volume: number): Task<void> {
  for (let busy = true; busy;) {
    busy = false;
    for (const shard of engine.ownShards()) busy = (yield* sweepShard(engine, shard, volume)) || busy;
    if (busy) yield* wait(engine.runtime.sleep(againMs));
  }
  engine.credit.forget(volume);
}

/** True when something of the volume is in use and stays for now. */
function* sweepShard(engine: Engine, shard: number, volume: number): Task<boolean> {
  let busy = false;
  for (const keyKind of [kind.inode, kind.chunk]) {
    const end = new Key(shard, keyKind + 1, 3).done();
    for (let from: Uint8Array | null = new Key(shard, keyKind, 3).done(); from !== null;) {
      const slice = nextSlice(engine, { from, end, keyKind, volume });
      for (const key of slice.found) {
        if (keyKind === kind.chunk) removeChunk(engine, shard, key, volume);
        else if (inUse(engine, keyNumber(key, 3, 7))) busy = true;
        else if (yield* forgetFar(engine, keyNumber(key, 3, 7))) removeInode(engine, shard, key, volume);
        else busy = true;
        yield* wait(engine.runtime.sleep(0));
      }
      from = slice.next;
      yield* wait(engine.runtime.sleep(0));
    }
  }
  removeCredit(engine, shard, volume);
  return busy;
}

function nextSlice(
  engine: Engine,
  at: { from: Uint8Array; end: Uint8Array; keyKind: number; volume: number },
): { found: Uint8Array[]; next: Uint8Array | null } {
  const found: Uint8Array[] = [];
  let seen = 0, next: Uint8Array | null = null;
  engine.store.scan(at.from, at.end, (key, value) => {
    if (++seen > sliceKeys) {
      next = key.slice();
      return false;
    }
    const owner = at.keyKind === kind.inode
      ? decodeAttributes(0, value).volume
      : new DataView(value.buffer, value.byteOffset, 4).getUint32(0, true);
    if (owner === at.volume) found.push(key.slice());
    return true;
  });
  return { found, next };
}

function inUse(engine: Engine, inode: number): boolean {
  return engine.inodeHeld(inode) || engine.names.heldInGroup(inode, "") !== "none";
}

/** The floors of a file with far chunks name no volume: they go with its inode. False when a store did not answer. */
function* forgetFar(engine: Engine, inode: number): Task<boolean> {
  const file = engine.tree.attributes(inode);
  if (file === null || (file.flags & inodeFlags.far) === 0) return true;
  const all = { inode, gen: file.gen, start: 0, end: Number.MAX_SAFE_INTEGER, forget: true, floor: false, room: false };
  return (yield* cutEverywhere(engine, all)).errno === 0;
}

function removeInode(engine: Engine, shard: number, key: Uint8Array, volume: number): void {
  const inode = keyNumber(key, 3, 7), plan = new Plan();
  let bytes = 0;
  const { hashKey, symlink, orphan, mask, floor, places, data } = kind;
  for (const keyKind of [kind.inode, hashKey, symlink, orphan, mask, floor, places, data]) {
    const one = inodeKey(shard, keyKind, inode), value = engine.store.get(one);
    if (value === undefined) continue;
    if (keyKind === kind.data || keyKind === kind.symlink) bytes -= value.length;
    plan.remove(one);
  }
  for (const keyKind of [kind.dentry, kind.xattr]) {
    const prefix = inodeKey(shard, keyKind, inode);
    engine.store.scan(prefix, after(prefix), (found) => {
      plan.remove(found.slice());
      return plan.changes.length < 8192;
    });
  }
  if (plan.changes.length >= 8192) {
    // A large directory: its names go first, the inode in a later round.
    const names = new Plan();
    for (const change of plan.changes.slice(7)) names.remove(change.key);
    engine.commit(shard, names);
    return removeInode(engine, shard, key, volume);
  }
  plan.charge(volume, bytes, -1);
  engine.commit(shard, plan);
  engine.tree.forget(inode);
  engine.locks.forget(inode);
}

function removeChunk(engine: Engine, shard: number, key: Uint8Array, volume: number): void {
  const value = engine.store.get(key);
  if (value === undefined) return;
  const plan = new Plan();
  plan.charge(volume, -blocksOf(value) * granuleBytes, 0);
  plan.remove(key);
  engine.commit(shard, plan);
}

function removeCredit(engine: Engine, shard: number, volume: number): void {
  const prefix = new Key(shard, kind.credit, 7).u32(volume).done(), plan = new Plan();
  engine.store.scan(prefix, after(prefix), (key) => {
    plan.remove(key.slice());
    return true;
  });
  engine.commit(shard, plan);
}
