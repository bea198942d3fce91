/**
 * RENAME, with NOREPLACE and EXCHANGE.
 *
 * One record when both names, the moved inode and what it replaces are in one shard and no directory changes its
 * parent. Everything else is an intent of the source's shard:
 *
 * 1. intent; the source name is locked (waiting, holding nothing else);
 * 2. a directory that changes its parent: the volume's directory-move lock at the root's shard, then the ancestors of
 *    the new parent are walked: EINVAL when the moved directory is among them;
 * 3. the target's shard locks the target name and says what it holds (step claimName); the attributes of what is far from
 *    its name are asked for, as it may be protected (core/meta/protection.ts);
 * 4. a replaced directory is dropped if it is empty (step dropDirectory): from here on nothing can fail;
 * 5. commit: one record removes the source name (or exchanges it) and marks the intent;
 * 6. steps: moved inodes learn parent and ctime; the target name is set and freed; a replaced file loses a link; locks end;
 * 7. one record ends the intent with the reply.
 *
 * From 5 until the target name is set the name is in neither place, or an exchanged inode in both: whoever lists the
 * source's directory then waits (ops/lookup.ts), so that nobody sees a rename half done by looking at one after the other.
 *
 * A lock that is taken answers BUSY: the driver frees what it has and ends with EBUSY, upon which the server starts the
 * request over, so nobody waits while holding.
 *
 * @module
 */

import { renameFlags } from "../../client/filesystem.ts";
import { E, failed } from "../../errno.ts";
import { rootInode } from "../../placement/map.ts";
import { decode, encode, struct, u53, u8 } from "../../protocol/codec.ts";
import { GETATTR, RENAME } from "../../protocol/messages.ts";
import { type Task, wait } from "../../task.ts";
import { type Attributes, S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, nameLock, type Request } from "../engine.ts";
import { busy, type Intent, intentKind } from "../intent.ts";
import { shardOf } from "../layout.ts";
import { Plan } from "../plan.ts";
import { keptErrno } from "../protection.ts";
import {
  checkTarget,
  isKeptHere,
  nothingRemoved,
  planDropDirectory,
  planDropLink,
  planMoved,
  planSetName,
  type Removed,
} from "../steps.ts";
import { removedBy } from "./unlink.ts";

/** Steps of the intent: numbers are stored. */
const steps = {
  moveLock: 1,
  claim: 2,
  dropVictim: 3,
  setTarget: 4,
  unlinkVictim: 5,
  moved: 6,
  movedBack: 7,
  unlock: 8,
  dropClaim: 9,
};
/** Phases: before the commit everything can be undone; after it everything is finished. */
const phase = { begun: 1, committed: 2 };
const directoryType = S.IFDIR >> 12;
const nothing = { inode: 0, type: 0 };
/** Directories deeper than this cannot be moved: a bound on the walk. */
const depthMax = 65536;

/** What the intent has found out. */
export const renameState = struct({ inode: u53, type: u8, victim: u53, victimType: u8 });
type State = { inode: number; type: number; victim: number; victimType: number };
type Body = { dir: number; name: Uint8Array; newDir: number; newName: Uint8Array; flags: number };

/** RENAME. ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, EPERM, EXDEV; EBUSY: to be started over. */
export function* rename(engine: Engine, request: Request): Task<Answer> {
  if (((request.body as Body).flags & ~(renameFlags.noReplace | renameFlags.exchange)) !== 0) {
    return answerErrno(E.INVAL);
  }
  const body: Body = request.body, lock = nameLock(body.dir, body.name), owner = engine.newOwner();
  yield* engine.names.acquire(lock, owner, body.dir);
  const source = findSource(engine, body);
  if (typeof source === "number") {
    engine.names.release(lock, owner, body.dir);
    return answerErrno(source);
  }
  const near = renameNear(engine, request, source, owner);
  if (near !== null) {
    engine.names.release(lock, owner, body.dir);
    return near;
  }
  const intent = engine.intents.begin(request, intentKind.rename);
  engine.names.release(lock, owner, body.dir);
  engine.names.tryAcquire(lock, intent.owner, body.dir);
  yield* intent.record(phase.begun, encode(renameState, { ...source, victim: 0, victimType: 0 }));
  return yield* renameStory(engine, intent);
}

function findSource(engine: Engine, body: Body): number | { inode: number; type: number } {
  const dir = engine.directory(body.dir);
  if (failed(dir)) return dir;
  const { entry } = engine.tree.find(body.dir, body.name);
  if (entry === null) return E.NOENT;
  if (keptErrno(dir) !== 0 || isKeptHere(engine, body.dir, entry.inode)) return E.PERM;
  return { inode: entry.inode, type: entry.type };
}

/** The whole rename in one record, or null when it concerns other shards. The source name is locked. */
function renameNear(
  engine: Engine,
  request: Request,
  source: { inode: number; type: number },
  owner: string,
): Answer | null {
  const body: Body = request.body, shard = request.head.shard;
  if (shardOf(body.newDir) !== shard || shardOf(source.inode) !== shard) return null;
  if (source.type === directoryType && body.dir !== body.newDir) return null;
  const lock = nameLock(body.newDir, body.newName);
  if (engine.names.held(lock) && !engine.names.tryAcquire(lock, owner, body.newDir)) return answerErrno(busy);
  const target = checkTarget(engine, {
    ...body,
    dir: body.newDir,
    name: body.newName,
    movingDirectory: source.type === directoryType,
  });
  if (typeof target === "number") return answerErrno(target);
  if (target.inode === source.inode) return engine.answer(request, new Plan(), nothingRemoved);
  if (target.inode !== 0 && shardOf(target.inode) !== shard) return null;
  const exchange = (body.flags & renameFlags.exchange) !== 0;
  if (exchange && target.type === directoryType && body.dir !== body.newDir) return null;
  return applyNear(engine, request, source, target, owner);
}

function applyNear(
  engine: Engine,
  request: Request,
  source: { inode: number; type: number },
  target: { inode: number; type: number },
  owner: string,
): Answer {
  const body: Body = request.body, plan = new Plan();
  const dir = engine.directory(body.dir);
  const newDir = body.newDir === body.dir ? dir : engine.directory(body.newDir);
  if (failed(dir) || failed(newDir)) return answerErrno(E.NOENT);
  if (dir.volume !== newDir.volume) return answerErrno(E.XDEV);
  const exchange = (body.flags & renameFlags.exchange) !== 0;
  let removed = nothingRemoved;
  const victim = target.inode === 0 ? null : engine.tree.attributes(target.inode);
  if (victim !== null && !exchange && target.type === directoryType) {
    if (engine.names.heldInGroup(victim.inode, owner) === "others") return answerErrno(busy);
    if (victim.entries > 0) return answerErrno(E.NOTEMPTY);
    removed = planDropDirectory(engine, plan, victim);
    engine.tree.forget(victim.inode);
  } else if (victim !== null && exchange) planMoved(engine, plan, victim, { dir: body.dir, by: null });
  else if (victim !== null) removed = planDropLink(engine, plan, victim);
  planSetName(engine, plan, dir, body.name, exchange ? target : nothing);
  planSetName(engine, plan, newDir, body.newName, source);
  plan.attributes(dir);
  if (newDir !== dir) plan.attributes(newDir);
  const moved = engine.tree.attributes(source.inode);
  if (moved !== null) planMoved(engine, plan, moved, { dir: body.newDir, by: null });
  return engine.answer(request, plan, removed);
}

/** The intent's story. Ends with EBUSY, nothing done, when it has to be started over. */
export function* renameStory(engine: Engine, intent: Intent): Task<Answer> {
  const body: Body = decode(RENAME.request, intent.request), lock = nameLock(body.dir, body.name);
  engine.names.tryAcquire(lock, intent.owner, body.dir);
  const answer = yield* drive(engine, intent, body);
  engine.names.release(lock, intent.owner, body.dir);
  return answer;
}

function* drive(engine: Engine, intent: Intent, body: Body): Task<Answer> {
  const state: State = decode(renameState, intent.state);
  const volume = engine.tree.attributes(body.dir)!.volume;
  const root = rootInode(volume, engine.shards);
  const removed = { ...nothingRemoved };
  if (intent.phase === phase.begun) {
    const errno = yield* prepare(engine, intent, { body, state, root, volume, removed });
    if (errno !== 0 || sameInode(state)) {
      yield* undo(intent, body, root);
      return errno === 0 ? intent.finish(new Plan(), nothingRemoved) : intent.abort(errno);
    }
    leave(engine, intent, body);
    yield* commit(engine, intent, body, state);
  } else leave(engine, intent, body);
  const unlinked = yield* finish(engine, intent, { body, state, root });
  return intent.finish(new Plan(), unlinked.gone === null ? removed : unlinked);
}

function leave(engine: Engine, intent: Intent, { dir, name }: Body): void {
  engine.leaving.tryAcquire(nameLock(dir, name), intent.owner, dir);
}

/** Both names stand for one inode: rename(2) does nothing. */
function sameInode(state: State): boolean {
  return state.victim === state.inode;
}

function movesDirectory(body: Body, state: State): boolean {
  if (body.dir === body.newDir) return false;
  return state.type === directoryType ||
    ((body.flags & renameFlags.exchange) !== 0 && state.victimType === directoryType);
}

/** Steps 2 to 4: errno. Fills in what the target holds, and a directory that it replaces. */
function* prepare(
  engine: Engine,
  intent: Intent,
  at: { body: Body; state: State; root: number; volume: number; removed: Removed },
): Task<number> {
  const { body, state, root } = at;
  const mayMove = body.dir !== body.newDir &&
    (state.type === directoryType || (body.flags & renameFlags.exchange) !== 0);
  if (mayMove) {
    const locked = yield* intent.step(steps.moveLock, shardOf(root), "moveLock", { root });
    if (locked.errno !== 0) return locked.errno;
  }
  if (state.type === directoryType && body.dir !== body.newDir) {
    const errno = yield* checkLoop(engine, body.newDir, state.inode, at.volume);
    if (errno !== 0) return errno;
  }
  const claimed = yield* intent.step(steps.claim, shardOf(body.newDir), "claimName", {
    dir: body.newDir,
    name: body.newName,
    movingDirectory: state.type === directoryType,
    flags: body.flags,
  });
  if (claimed.outcome === null) return claimed.errno;
  state.victim = claimed.outcome.inode;
  state.victimType = claimed.outcome.type;
  if (sameInode(state)) return 0;
  const exchange = (body.flags & renameFlags.exchange) !== 0;
  let kept = yield* farKeptErrno(engine, body.dir, state.inode);
  // A replaced directory is looked at by the step that drops it.
  if (kept === 0 && state.victim !== 0 && (exchange || state.victimType !== directoryType)) {
    kept = yield* farKeptErrno(engine, body.newDir, state.victim);
  }
  if (kept !== 0) return kept;
  if (exchange) {
    if (state.victimType !== directoryType || body.dir === body.newDir) return 0;
    return yield* checkLoop(engine, body.dir, state.victim, at.volume);
  }
  if (state.victim === 0 || state.victimType !== directoryType) return 0;
  const dropped = yield* intent.step(steps.dropVictim, shardOf(state.victim), "dropDirectory", { inode: state.victim });
  at.removed.gone = dropped.outcome?.gone ?? null;
  return dropped.errno;
}

/** EPERM for what is far from its name in `dir` and must keep it; what is near has been looked at. */
function* farKeptErrno(engine: Engine, dir: number, inode: number): Task<number> {
  if (shardOf(inode) === shardOf(dir)) return 0;
  const found = yield* remoteAttributes(engine, inode);
  return typeof found === "number" ? 0 : keptErrno(found);
}

/** EINVAL when `moving` is `dir` or above it; EXDEV when `dir` is of another volume. */
function* checkLoop(engine: Engine, dir: number, moving: number, volume: number): Task<number> {
  let at = dir;
  for (let depth = 0; depth < depthMax; depth++) {
    if (at === moving) return E.INVAL;
    const found = yield* remoteAttributes(engine, at);
    if (typeof found === "number") return found === E.STALE ? E.NOENT : found;
    if (found.volume !== volume) return E.XDEV;
    if (found.parent === at) return 0;
    at = found.parent;
  }
  return E.LOOP;
}

function* remoteAttributes(engine: Engine, inode: number): Task<Attributes | number> {
  const shard = shardOf(inode);
  for (;;) {
    if (engine.owns(shard)) {
      const found = engine.inode(inode);
      return found;
    }
    const reply = yield* engine.caller.call(GETATTR, { shard }, { inode });
    if (reply.status === 0) return (reply.body as { attributes: Attributes }).attributes;
    if (reply.status !== E.IO) return reply.status;
    yield* wait(engine.runtime.sleep(100));
  }
}

/** Frees what was locked by an intent that will not commit. */
function* undo(intent: Intent, body: Body, root: number): Task<void> {
  const name = { dir: body.newDir, name: body.newName, claim: steps.claim };
  yield* intent.step(steps.dropClaim, shardOf(body.newDir), "dropName", name);
  yield* intent.step(steps.unlock, shardOf(root), "moveUnlock", { root, claim: steps.moveLock });
}

/** Step 5. */
function* commit(engine: Engine, intent: Intent, body: Body, state: State): Task<void> {
  const plan = new Plan(), dir = engine.tree.attributes(body.dir)!;
  const exchange = (body.flags & renameFlags.exchange) !== 0;
  planSetName(engine, plan, dir, body.name, exchange ? { inode: state.victim, type: state.victimType } : nothing);
  plan.attributes(dir);
  yield* intent.record(phase.committed, encode(renameState, state), plan);
}

/** Step 6. Tells which file has lost its last name. */
function* finish(engine: Engine, intent: Intent, at: { body: Body; state: State; root: number }): Task<Removed> {
  const { body, state, root } = at, { inode, type, victim, victimType } = state;
  const exchange = (body.flags & renameFlags.exchange) !== 0;
  let removed = nothingRemoved;
  // While both names are locked: the next rename of this inode tells it its parent after this one.
  yield* intent.step(steps.moved, shardOf(inode), "moved", { inode, parent: body.newDir });
  if (exchange) yield* intent.step(steps.movedBack, shardOf(victim), "moved", { inode: victim, parent: body.dir });
  const target = { dir: body.newDir, name: body.newName, inode, type, claim: steps.claim };
  yield* intent.step(steps.setTarget, shardOf(body.newDir), "setName", target);
  engine.leaving.release(nameLock(body.dir, body.name), intent.owner, body.dir);
  if (victim !== 0 && !exchange && victimType !== directoryType) {
    const links = { inode: victim, add: false, parent: 0 };
    removed = removedBy((yield* intent.step(steps.unlinkVictim, shardOf(victim), "changeLinks", links)).outcome);
  }
  if (movesDirectory(body, state) || exchange) {
    yield* intent.step(steps.unlock, shardOf(root), "moveUnlock", { root, claim: steps.moveLock });
  }
  return removed;
}
