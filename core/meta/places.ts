/**
 * In which directories a file has got names that no fsync has covered yet (kind W). An inode knows one directory, the last
 * one; a file that gets a second name elsewhere remembers all of them here until an fsync has made each durable.
 *
 * An entry that an intent of another shard made may name a dentry that is still to come: it stays until that intent is
 * over, which its steps in this shard show.
 *
 * @module
 */

import { array, decode, encode, struct, u16, u53 } from "../protocol/codec.ts";
import type { Attributes } from "./attributes.ts";
import type { Engine } from "./engine.ts";
import { inodeKey, kind, shardOf } from "./layout.ts";
import type { Plan } from "./plan.ts";

/** Entries of one file; with more, an fsync syncs every store instead ({@linkcode everywhere}). */
const placesMax = 32;
/** `dir` of the entry that stands for all that did not fit. */
export const everywhere = 0;
/** `driver` of an entry that no intent made; its `n` is the inode's version then. */
const noDriver = 0xffff;

/** Value of W. */
export const placesRecord = array(struct({ dir: u53, driver: u16, n: u53 }), placesMax);
/** A directory with a name of the file, and the intent that made the name. */
export type Place = { dir: number; driver: number; n: number };
/** An intent: shard of its driver, and number. */
export type IntentId = { driver: number; n: number };

/** Directories, besides the one in its attributes, that an fsync of the file has to make durable. */
export function placesOf(engine: Engine, inode: number): Place[] {
  const value = engine.store.get(inodeKey(shardOf(inode), kind.places, inode));
  return value === undefined ? [] : decode(placesRecord, value);
}

/** Plans that a file which has a name gets, or moves, one to `parent`. Its attributes still have the directory before. */
export function planPlace(engine: Engine, plan: Plan, file: Attributes, parent: number, by: IntentId | null): void {
  const known = placesOf(engine, file.inode);
  if (file.parent === parent && known.length === 0) return;
  const near = { driver: noDriver, n: file.version };
  const all = known.some((place) => place.dir === file.parent) ? known : [...known, { dir: file.parent, ...near }];
  all.push({ dir: parent, ...(by ?? near) });
  const kept = all.length <= placesMax ? all : [{ dir: everywhere, ...near }, ...all.slice(1 - placesMax)];
  plan.put(inodeKey(shardOf(file.inode), kind.places, file.inode), encode(placesRecord, kept));
}

/** Those whose dentries are all there. */
export function settledPlaces(engine: Engine, inode: number): Place[] {
  const shard = shardOf(inode);
  return placesOf(engine, inode).filter(({ driver, n }) => {
    return driver === noDriver || engine.intents.isOver(shard, { driver, n });
  });
}

/** Plans that an fsync has covered these. */
export function planCovered(engine: Engine, plan: Plan, inode: number, covered: readonly Place[]): void {
  const known = placesOf(engine, inode);
  if (known.length === 0) return;
  const left = known.filter((a) => !covered.some((b) => a.dir === b.dir && a.driver === b.driver && a.n === b.n));
  const key = inodeKey(shardOf(inode), kind.places, inode);
  if (left.length === 0) plan.remove(key);
  else if (left.length < known.length) plan.put(key, encode(placesRecord, left));
}
