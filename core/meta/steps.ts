/**
 * What a participant does for an intent's driver: one function an action (core/meta/intent.ts has their codecs).
 * Each checks, plans into the given plan, and returns its outcome, or a positive errno and leaves the plan unused.
 * Actions never wait: a locked name answers EBUSY, missing credit EAGAIN, and the driver comes again.
 *
 * @module
 */

import { E, failed } from "../errno.ts";
import { renameFlags } from "../client/filesystem.ts";
import { decode, encode } from "../protocol/codec.ts";
import { type Attributes, inodeFlags, isDirectory, S } from "./attributes.ts";
import type { Engine } from "./engine.ts";
import { type ActionBody, type ActionName, busy, heldName, stepRecord } from "./intent.ts";
import { planInherited } from "./inherit.ts";
import { after, inodeKey, kind, linksMax, shardOf } from "./layout.ts";
import { nameErrno } from "./names.ts";
import { type IntentId, planPlace } from "./places.ts";
import type { Plan } from "./plan.ts";
import { frozenErrno, keptErrno } from "./protection.ts";

/** The step that an action is part of. */
export interface StepContext {
  shard: number;
  by: IntentId;
  /** Owner of the intent's locks. */
  owner: string;
  plan: Plan;
  /** Key of the record of another step of the same intent in this shard. */
  claimKey(step: number): Uint8Array;
}

/** An action's result. */
export type StepResult = number | {
  outcome: unknown;
  holds?: { dir: number; name: Uint8Array };
  /** Runs once the record is made. */
  committed?: () => void;
};

/** What a removal has ended: what lost its last name, and the target of a symbolic link. */
export interface Removed {
  gone: Attributes | null;
  target: Uint8Array;
}

const noBytes = new Uint8Array(0);
/** {@linkcode Removed} when something else still names it. */
export const nothingRemoved: Removed = { gone: null, target: noBytes };

const directoryType = S.IFDIR >> 12;

/** Applies an action. EINVAL for one on an inode or name that is not of the step's shard, or on a name that cannot be. */
export function applyAction(
  engine: Engine,
  // deno-lint-ignore no-explicit-any
  step: StepContext & { name: ActionName; body: any },
): StepResult {
  const { body } = step, at = body.dir ?? body.inode ?? body.root;
  if (step.name !== "makeDirectory" && shardOf(at) !== step.shard) return E.INVAL;
  if (body.name !== undefined && nameErrno(body.name) !== 0) return E.INVAL;
  switch (step.name) {
    case "makeDirectory":
      return makeDirectory(engine, step, step.body);
    case "dropDirectory":
      return dropDirectory(engine, step, step.body);
    case "changeLinks":
      return changeLinks(engine, step, step.body);
    case "moved":
      return moved(engine, step, step.body);
    case "claimName":
      return claimName(engine, step, step.body);
    case "setName":
      return setName(engine, step, step.body);
    case "dropName":
      return freeClaim(engine, step, step.body.claim);
    case "moveLock":
      return moveLock(engine, step, step.body);
    case "moveUnlock":
      return freeClaim(engine, step, step.body.claim);
  }
}

function makeDirectory(engine: Engine, step: StepContext, body: ActionBody<"makeDirectory">): StepResult {
  // Credit of a volume that is being deleted never comes.
  if (!engine.volumeLives(body.volume)) return E.STALE;
  const credit = engine.credit.check(body.volume, 0, 1);
  if (credit !== 0) return credit;
  const inode = engine.store.newInode(step.shard);
  const made: Attributes = {
    ...engine.newAttributes(inode, S.IFDIR | (body.mode & 0o7777), body.volume, engine.now()),
    uid: body.uid,
    gid: body.gid,
    parent: body.parent,
  };
  planInherited(step.plan, made, body);
  step.plan.attributes(made);
  engine.tree.newDirectory(step.plan, inode, engine.randomBytes(16));
  step.plan.charge(body.volume, 0, 1);
  return { outcome: { attributes: made } };
}

function dropDirectory(engine: Engine, step: StepContext, body: ActionBody<"dropDirectory">): StepResult {
  const found = engine.tree.attributes(body.inode);
  if (found === null) return { outcome: { gone: null } };
  if (!isDirectory(found.mode)) return E.NOTDIR;
  const held = engine.names.heldInGroup(body.inode, step.owner);
  if (held === "others") return busy;
  if (keptErrno(found) !== 0) return E.PERM;
  if (found.entries > 0) return E.NOTEMPTY;
  const { gone } = planDropDirectory(engine, step.plan, found);
  return { outcome: { gone }, committed: () => engine.tree.forget(body.inode) };
}

/** Plans the end of an empty directory. */
export function planDropDirectory(engine: Engine, plan: Plan, directory: Attributes): Removed {
  const shard = shardOf(directory.inode);
  plan.inodes.push(directory.inode);
  directory.ctime = engine.stamp(directory);
  directory.nlink = 0;
  plan.remove(inodeKey(shard, kind.inode, directory.inode));
  plan.remove(inodeKey(shard, kind.hashKey, directory.inode));
  planDropExtended(engine, plan, directory.inode);
  plan.charge(directory.volume, 0, -1);
  return { gone: directory, target: noBytes };
}

/** Plans the removal of an inode's extended attributes. */
export function planDropExtended(engine: Engine, plan: Plan, inode: number): void {
  const prefix = inodeKey(shardOf(inode), kind.xattr, inode);
  engine.store.scan(prefix, after(prefix), (key) => {
    plan.remove(key.slice());
    return true;
  });
}

function changeLinks(engine: Engine, step: StepContext, body: ActionBody<"changeLinks">): StepResult {
  const found = engine.inode(body.inode);
  if (failed(found)) return E.NOENT;
  // Without a directory it follows a commit, and must not fail.
  if (body.parent !== 0 && keptErrno(found) !== 0) return E.PERM;
  if (body.add) {
    if (!mayBeLinked(engine, found)) return E.NOENT;
    if (isDirectory(found.mode)) return E.PERM;
    if (found.nlink >= linksMax) return E.MLINK;
    planAddLink(engine, step.plan, found, { dir: body.parent, by: step.by });
    return { outcome: { attributes: found, target: noBytes } };
  }
  const { target } = planDropLink(engine, step.plan, found);
  return { outcome: { attributes: found, target } };
}

/** True for a file with a name, and for one that TMPFILE has made and somebody still has open. */
export function mayBeLinked(engine: Engine, file: Attributes): boolean {
  return file.nlink > 0 || ((file.flags & inodeFlags.linkable) !== 0 && engine.opens.mayBeOpen(file.inode));
}

/** Plans one more name of a file. With its first one a file of TMPFILE is like any other. */
export function planAddLink(
  engine: Engine,
  plan: Plan,
  file: Attributes,
  to: { dir: number; by: IntentId | null },
): void {
  if (file.nlink === 0) plan.remove(inodeKey(shardOf(file.inode), kind.orphan, file.inode));
  else planPlace(engine, plan, file, to.dir, to.by);
  file.flags &= ~inodeFlags.linkable;
  file.ctime = engine.stamp(file);
  file.nlink++;
  file.parent = to.dir;
  plan.attributes(file);
}

/** Plans one name less of a file; with the last one it goes, or becomes an orphan while it is open. */
export function planDropLink(engine: Engine, plan: Plan, file: Attributes): Removed {
  file.ctime = engine.stamp(file);
  file.nlink = Math.max(0, file.nlink - 1);
  if (file.nlink > 0) {
    plan.attributes(file);
    return nothingRemoved;
  }
  const target = engine.store.get(inodeKey(shardOf(file.inode), kind.symlink, file.inode))?.slice() ?? noBytes;
  engine.reaper.planEnd(plan, file);
  return { gone: file, target };
}

function moved(engine: Engine, step: StepContext, body: ActionBody<"moved">): StepResult {
  const found = engine.inode(body.inode);
  if (failed(found)) return { outcome: {} };
  planMoved(engine, step.plan, found, { dir: body.parent, by: step.by });
  return { outcome: {}, committed: () => engine.durable.delete(body.inode) };
}

/** Plans that an inode has a new name in place of another. */
export function planMoved(
  engine: Engine,
  plan: Plan,
  inode: Attributes,
  to: { dir: number; by: IntentId | null },
): void {
  if (!isDirectory(inode.mode) && inode.nlink > 1) planPlace(engine, plan, inode, to.dir, to.by);
  inode.ctime = engine.stamp(inode);
  inode.parent = to.dir;
  plan.attributes(inode);
}

function claimName(engine: Engine, step: StepContext, body: ActionBody<"claimName">): StepResult {
  const lock = heldName(body);
  if (engine.names.held(lock) && !engine.names.tryAcquire(lock, step.owner, body.dir)) return busy;
  const refused = checkTarget(engine, body);
  if (typeof refused === "number") return refused;
  if (!engine.names.tryAcquire(lock, step.owner, body.dir)) return busy;
  return { outcome: refused, holds: { dir: body.dir, name: body.name } };
}

/** The errno with which a rename's target refuses, or what the name holds now (inode 0: nothing). */
export function checkTarget(
  engine: Engine,
  body: ActionBody<"claimName">,
): number | { inode: number; type: number } {
  const dir = engine.directory(body.dir);
  if (failed(dir)) return dir;
  const place = engine.tree.find(body.dir, body.name);
  if (place.entry === null) {
    if ((body.flags & renameFlags.exchange) !== 0) return E.NOENT;
    if (frozenErrno(dir) !== 0) return E.PERM;
    return place.disc < 0 ? E.NOSPC : { inode: 0, type: 0 };
  }
  const { inode, type } = place.entry;
  if ((body.flags & renameFlags.noReplace) !== 0) return E.EXIST;
  if (keptErrno(dir) !== 0 || isKeptHere(engine, body.dir, inode)) return E.PERM;
  if ((body.flags & renameFlags.exchange) !== 0) return { inode, type };
  if (body.movingDirectory && type !== directoryType) return E.NOTDIR;
  if (!body.movingDirectory && type === directoryType) return E.ISDIR;
  return { inode, type };
}

/** True for what must not lose the name that it has in `dir`. What is far from its name is not known here. */
export function isKeptHere(engine: Engine, dir: number, inode: number): boolean {
  const found = shardOf(inode) === shardOf(dir) ? engine.tree.attributes(inode) : null;
  return found !== null && keptErrno(found) !== 0;
}

function setName(engine: Engine, step: StepContext, body: ActionBody<"setName">): StepResult {
  const dir = engine.tree.attributes(body.dir);
  // A directory with a claimed name in it stays: only a step out of nowhere can find none.
  if (dir === null || !isDirectory(dir.mode)) return E.NOENT;
  planSetName(engine, step.plan, dir, body.name, { inode: body.inode, type: body.type });
  step.plan.attributes(dir);
  if (body.claim === 0) return { outcome: {} };
  const freed = freeClaim(engine, step, body.claim);
  return typeof freed === "number" ? freed : { ...freed, outcome: {} };
}

/** Plans that `name` in `dir` stands for an inode (0: for nothing), and the directory's counts and times but not its record. */
export function planSetName(
  engine: Engine,
  plan: Plan,
  dir: Attributes,
  name: Uint8Array,
  to: { inode: number; type: number },
): void {
  const place = engine.tree.find(dir.inode, name);
  if (place.entry !== null) {
    dir.entries--;
    if (place.entry.type === directoryType) dir.nlink--;
    if (to.inode === 0) engine.tree.remove(plan, dir.inode, place);
  }
  if (to.inode !== 0) {
    dir.entries++;
    if (to.type === directoryType) dir.nlink++;
    engine.tree.insert(plan, dir.inode, place, { inode: to.inode, type: to.type, name });
  }
  dir.mtime = dir.ctime = engine.stamp(dir);
}

function moveLock(engine: Engine, step: StepContext, body: ActionBody<"moveLock">): StepResult {
  const holds = { dir: body.root, name: new Uint8Array(0) };
  if (!engine.names.tryAcquire(heldName(holds), step.owner)) return busy;
  return { outcome: {}, holds };
}

/** Frees what an earlier step of the intent locked here. */
function freeClaim(engine: Engine, step: StepContext, claim: number): StepResult {
  const key = step.claimKey(claim), stored = engine.store.get(key);
  if (stored === undefined) return { outcome: {} };
  const record = decode(stepRecord, stored), { holds } = record;
  if (holds === null) return { outcome: {} };
  step.plan.put(key, encode(stepRecord, { ...record, holds: null }));
  return { outcome: {}, committed: () => engine.names.release(heldName(holds), step.owner, holds.dir) };
}
