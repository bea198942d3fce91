/**
 * UNLINK and LINK: names of files.
 *
 * Near inode (the ordinary case): one record with dentry, directory, inode and reply. Far inode (after a rename or a
 * link from another directory): the dentry's shard drives an intent: the name is locked, the inode's shard changes the
 * link count in a step, then one record changes the dentry and ends the intent.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { decode } from "../../protocol/codec.ts";
import { LINK, UNLINK } from "../../protocol/messages.ts";
import type { Task } from "../../task.ts";
import { isDirectory, S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, nameLock, type Request } from "../engine.ts";
import { type ActionOutcome, type Intent, intentKind } from "../intent.ts";
import { linksMax, shardOf } from "../layout.ts";
import { Plan } from "../plan.ts";
import { frozenErrno, keptErrno } from "../protection.ts";
import { mayBeLinked, nothingRemoved, planAddLink, planDropLink, planSetName, type Removed } from "../steps.ts";

const stepLinks = 1;
const directoryType = S.IFDIR >> 12;
const nothing = { inode: 0, type: 0 };

/** UNLINK. ENOENT, EISDIR, ENOTDIR, EPERM. */
export function unlink(engine: Engine, request: Request): Answer | Task<Answer> {
  const { dir, name } = request.body;
  if (engine.nameHeld(dir, name)) return unlinkLater(engine, request);
  const parent = engine.directory(dir);
  if (failed(parent)) return answerErrno(parent);
  const { entry } = engine.tree.find(dir, name);
  if (entry === null) return answerErrno(E.NOENT);
  if (entry.type === directoryType) return answerErrno(E.ISDIR);
  if (keptErrno(parent) !== 0) return answerErrno(E.PERM);
  if (shardOf(entry.inode) !== request.head.shard) return unlinkLater(engine, request);
  const plan = new Plan(), file = engine.tree.attributes(entry.inode);
  if (file !== null && keptErrno(file) !== 0) return answerErrno(E.PERM);
  planSetName(engine, plan, parent, name, nothing);
  plan.attributes(parent);
  return engine.answer(request, plan, file === null ? nothingRemoved : planDropLink(engine, plan, file));
}

/** With the name locked: far inodes, and names that somebody else had locked. */
function* unlinkLater(engine: Engine, request: Request): Task<Answer> {
  const { dir, name } = request.body, lock = nameLock(dir, name), owner = engine.newOwner();
  yield* engine.names.acquire(lock, owner, dir);
  const parent = engine.directory(dir);
  const entry = failed(parent) || keptErrno(parent) !== 0 ? null : engine.tree.find(dir, name).entry;
  const far = entry !== null && entry.type !== directoryType && shardOf(entry.inode) !== request.head.shard;
  const intent = far ? engine.intents.begin(request, intentKind.unlink) : null;
  engine.names.release(lock, owner, dir);
  if (intent !== null) {
    engine.names.tryAcquire(lock, intent.owner, dir);
    return yield* unlinkStory(engine, intent);
  }
  const answer = unlink(engine, request);
  return "status" in answer ? answer : yield* answer;
}

/** The story of an unlink of a far inode. */
export function* unlinkStory(engine: Engine, intent: Intent): Task<Answer> {
  const { dir, name } = decode(UNLINK.request, intent.request), lock = nameLock(dir, name);
  engine.names.tryAcquire(lock, intent.owner, dir);
  yield* intent.record(1, intent.state);
  const entry = engine.tree.find(dir, name).entry!;
  const links = { inode: entry.inode, add: false, parent: dir };
  const { outcome, errno } = yield* intent.step(stepLinks, shardOf(entry.inode), "changeLinks", links);
  let answer: Answer;
  if (errno === E.PERM) answer = intent.abort(errno);
  else {
    const plan = new Plan(), parent = engine.tree.attributes(dir)!;
    planSetName(engine, plan, parent, name, nothing);
    plan.attributes(parent);
    answer = intent.finish(plan, removedBy(outcome));
  }
  engine.names.release(lock, intent.owner, dir);
  return answer;
}

/** What a step that took a link away has ended; null: it found nothing. */
export function removedBy(outcome: ActionOutcome<"changeLinks"> | null): Removed {
  if (outcome === null || outcome.attributes.nlink > 0) return nothingRemoved;
  return { gone: outcome.attributes, target: outcome.target };
}

/** LINK. EEXIST, ENOENT, EPERM, also for directories, EMLINK, EXDEV between volumes. */
export function* link(engine: Engine, request: Request): Task<Answer> {
  const { dir, name, inode } = request.body, lock = nameLock(dir, name), owner = engine.newOwner();
  yield* engine.names.acquire(lock, owner, dir);
  const refused = checkLink(engine, request);
  if (refused !== 0) {
    engine.names.release(lock, owner, dir);
    return answerErrno(refused);
  }
  if (shardOf(inode) === request.head.shard) {
    const answer = linkNear(engine, request);
    engine.names.release(lock, owner, dir);
    return answer;
  }
  const intent = engine.intents.begin(request, intentKind.link);
  engine.names.release(lock, owner, dir);
  engine.names.tryAcquire(lock, intent.owner, dir);
  return yield* linkStory(engine, intent);
}

function checkLink(engine: Engine, request: Request): number {
  const parent = engine.directory(request.body.dir);
  if (failed(parent)) return parent;
  const place = engine.tree.find(request.body.dir, request.body.name);
  if (place.entry !== null) return E.EXIST;
  if (frozenErrno(parent) !== 0) return E.PERM;
  return place.disc < 0 ? E.NOSPC : 0;
}

function linkNear(engine: Engine, request: Request): Answer {
  const { dir, name, inode } = request.body;
  const file = engine.inode(inode), parent = engine.directory(dir);
  if (failed(file) || !mayBeLinked(engine, file)) return answerErrno(E.NOENT);
  if (failed(parent)) return answerErrno(parent);
  if (isDirectory(file.mode) || keptErrno(file) !== 0) return answerErrno(E.PERM);
  if (file.volume !== parent.volume) return answerErrno(E.XDEV);
  if (file.nlink >= linksMax) return answerErrno(E.MLINK);
  const plan = new Plan();
  planAddLink(engine, plan, file, { dir, by: null });
  planSetName(engine, plan, parent, name, { inode, type: file.mode >>> 12 });
  plan.attributes(parent);
  return engine.answer(request, plan, { attributes: file });
}

/** The story of a link to a far inode. */
export function* linkStory(engine: Engine, intent: Intent): Task<Answer> {
  const { dir, name, inode } = decode(LINK.request, intent.request), lock = nameLock(dir, name);
  engine.names.tryAcquire(lock, intent.owner, dir);
  yield* intent.record(1, intent.state);
  const linked = yield* intent.step(stepLinks, shardOf(inode), "changeLinks", { inode, add: true, parent: dir });
  let answer: Answer;
  if (linked.outcome === null) answer = intent.abort(linked.errno);
  else {
    const { attributes } = linked.outcome, plan = new Plan(), parent = engine.tree.attributes(dir)!;
    planSetName(engine, plan, parent, name, { inode, type: attributes.mode >>> 12 });
    plan.attributes(parent);
    answer = intent.finish(plan, { attributes });
  }
  engine.names.release(lock, intent.owner, dir);
  return answer;
}
