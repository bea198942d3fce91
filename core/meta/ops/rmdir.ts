/**
 * RMDIR. The parent's shard drives: the name is locked; the directory's shard drops it if it is empty (a step, after
 * which nothing can fail any more); one record removes the dentry and ends the intent. A name locked inside the
 * directory answers BUSY; the driver then lets go of everything, and the server starts the request over.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { decode } from "../../protocol/codec.ts";
import { RMDIR } from "../../protocol/messages.ts";
import type { Task } from "../../task.ts";
import { S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, nameLock, type Request } from "../engine.ts";
import { busy, type Intent, intentKind } from "../intent.ts";
import { shardOf } from "../layout.ts";
import { Plan } from "../plan.ts";
import { keptErrno } from "../protection.ts";
import { nothingRemoved, planDropDirectory, planSetName } from "../steps.ts";

const directoryType = S.IFDIR >> 12;
const nothing = { inode: 0, type: 0 };

/** RMDIR. ENOENT, ENOTDIR, ENOTEMPTY, EPERM; EBUSY: to be started over. */
export function* rmdir(engine: Engine, request: Request): Task<Answer> {
  const { dir, name } = request.body, lock = nameLock(dir, name), owner = engine.newOwner();
  yield* engine.names.acquire(lock, owner, dir);
  const inode = target(engine, request);
  if (inode <= 0) {
    engine.names.release(lock, owner, dir);
    return answerErrno(-inode);
  }
  if (shardOf(inode) === request.head.shard) {
    const answer = near(engine, request, inode, owner);
    engine.names.release(lock, owner, dir);
    return answer;
  }
  const intent = engine.intents.begin(request, intentKind.removeDirectory);
  engine.names.release(lock, owner, dir);
  engine.names.tryAcquire(lock, intent.owner, dir);
  return yield* removeDirectoryStory(engine, intent);
}

/** Inode of the directory to remove, or a negative errno. */
function target(engine: Engine, request: Request): number {
  const parent = engine.directory(request.body.dir);
  if (failed(parent)) return -parent;
  const { entry } = engine.tree.find(request.body.dir, request.body.name);
  if (entry === null) return -E.NOENT;
  if (entry.type !== directoryType) return -E.NOTDIR;
  return keptErrno(parent) === 0 ? entry.inode : -E.PERM;
}

function near(engine: Engine, request: Request, inode: number, owner: string): Answer {
  if (engine.names.heldInGroup(inode, owner) === "others") return answerErrno(busy);
  const directory = engine.tree.attributes(inode), parent = engine.directory(request.body.dir);
  if (failed(parent)) return answerErrno(parent);
  if (directory !== null && keptErrno(directory) !== 0) return answerErrno(E.PERM);
  if (directory !== null && directory.entries > 0) return answerErrno(E.NOTEMPTY);
  const plan = new Plan();
  const removed = directory === null ? nothingRemoved : planDropDirectory(engine, plan, directory);
  planSetName(engine, plan, parent, request.body.name, nothing);
  plan.attributes(parent);
  engine.tree.forget(inode);
  return engine.answer(request, plan, removed);
}

/** The intent's story. Ends with EBUSY, nothing done, when it has to be started over. */
export function* removeDirectoryStory(engine: Engine, intent: Intent): Task<Answer> {
  const { dir, name } = decode(RMDIR.request, intent.request), lock = nameLock(dir, name);
  engine.names.tryAcquire(lock, intent.owner, dir);
  yield* intent.record(1, intent.state);
  const entry = engine.tree.find(dir, name).entry!;
  const dropped = yield* intent.step(1, shardOf(entry.inode), "dropDirectory", { inode: entry.inode });
  let answer: Answer;
  if (dropped.outcome === null) answer = intent.abort(dropped.errno);
  else {
    const plan = new Plan(), parent = engine.tree.attributes(dir)!;
    planSetName(engine, plan, parent, name, nothing);
    plan.attributes(parent);
    answer = intent.finish(plan, { ...nothingRemoved, gone: dropped.outcome.gone });
  }
  engine.names.release(lock, intent.owner, dir);
  return answer;
}
