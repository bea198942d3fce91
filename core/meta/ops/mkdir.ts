/**
 * MKDIR. The child's shard is hash(parent, name): directories spread over all servers. The parent's shard drives:
 *
 * 1. the name is locked; EEXIST and ENOENT are settled;
 * 2. intent; the child's shard makes the inode (its number is in the step's outcome, so a resumed driver gets the same);
 * 3. one record: dentry, the parent's counts and times, the reply, the end of the intent.
 *
 * When both shards are one it is one record.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { directoryShard } from "../../placement/hash.ts";
import { decode } from "../../protocol/codec.ts";
import { MKDIR } from "../../protocol/messages.ts";
import { type Task, wait } from "../../task.ts";
import { type Attributes, S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, nameLock, type Request } from "../engine.ts";
import { inherit, planInherited } from "../inherit.ts";
import { type Intent, intentKind } from "../intent.ts";
import { Plan } from "../plan.ts";
import { frozenErrno } from "../protection.ts";
import { planSetName } from "../steps.ts";

/** Step of the intent. */
const stepMake = 1;
const directoryType = S.IFDIR >> 12;

/** MKDIR. EEXIST, ENOENT, ENOTDIR, ENOSPC, EPERM. */
export function* mkdir(engine: Engine, request: Request): Task<Answer> {
  const { dir, name } = request.body;
  const lock = nameLock(dir, name), owner = engine.newOwner();
  yield* engine.names.acquire(lock, owner, dir);
  const refused = check(engine, request);
  if (refused !== 0) {
    engine.names.release(lock, owner, dir);
    return answerErrno(refused);
  }
  if (directoryShard(dir, name, engine.shards) === request.head.shard) {
    const answer = yield* makeNear(engine, request);
    engine.names.release(lock, owner, dir);
    return answer;
  }
  const intent = engine.intents.begin(request, intentKind.makeDirectory);
  engine.names.release(lock, owner, dir);
  engine.names.tryAcquire(lock, intent.owner, dir);
  return yield* makeDirectoryStory(engine, intent);
}

function check(engine: Engine, request: Request): number {
  const parent = engine.directory(request.body.dir);
  if (failed(parent)) return parent;
  const place = engine.tree.find(request.body.dir, request.body.name);
  if (place.entry !== null) return E.EXIST;
  if (frozenErrno(parent) !== 0) return E.PERM;
  return place.disc < 0 ? E.NOSPC : 0;
}

function directoryMode(mode: number): number {
  return S.IFDIR | (mode & 0o7777);
}

function* makeNear(engine: Engine, request: Request): Task<Answer> {
  const { dir, name, mode, umask, uid, gid } = request.body;
  const volume = engine.inode(dir);
  if (failed(volume)) return answerErrno(volume);
  const errno = yield* engine.credit.reserve(volume.volume, 0, 1);
  if (errno !== 0) return answerErrno(errno);
  engine.credit.settle(volume.volume, 0, 1);
  const parent = engine.directory(dir);
  if (failed(parent)) return answerErrno(parent);
  const inherited = inherit(engine, parent, { mode: directoryMode(mode), umask, gid });
  if (failed(inherited)) return answerErrno(inherited);
  const plan = new Plan(), inode = engine.store.newInode(request.head.shard);
  const made: Attributes = {
    ...engine.newAttributes(inode, inherited.mode, parent.volume, engine.now()),
    uid,
    gid: inherited.gid,
    parent: dir,
  };
  planInherited(plan, made, inherited);
  plan.attributes(made);
  engine.tree.newDirectory(plan, inode, engine.randomBytes(16));
  plan.charge(parent.volume, 0, 1);
  planSetName(engine, plan, parent, name, { inode, type: directoryType });
  plan.attributes(parent);
  return engine.answer(request, plan, { attributes: made });
}

/** The intent's story. The name is locked by the intent. */
export function* makeDirectoryStory(engine: Engine, intent: Intent): Task<Answer> {
  const body = decode(MKDIR.request, intent.request);
  const lock = nameLock(body.dir, body.name);
  engine.names.tryAcquire(lock, intent.owner, body.dir);
  const answer = yield* drive(engine, intent, body);
  engine.names.release(lock, intent.owner, body.dir);
  return answer;
}

function* drive(
  engine: Engine,
  intent: Intent,
  body: { dir: number; name: Uint8Array; mode: number; umask: number; uid: number; gid: number },
): Task<Answer> {
  yield* intent.record(1, intent.state);
  for (let attempt = 0;; attempt++) {
    // A directory with a locked name in it is not dropped: the parent stays.
    const parent = engine.tree.attributes(body.dir);
    if (parent === null) return intent.abort(E.NOENT);
    const { umask } = body,
      inherited = inherit(engine, parent, { mode: directoryMode(body.mode), umask, gid: body.gid });
    if (failed(inherited)) return intent.abort(inherited);
    const shard = directoryShard(body.dir, body.name, engine.shards);
    const made = yield* intent.step(stepMake, shard, "makeDirectory", {
      parent: body.dir,
      mode: inherited.mode,
      uid: body.uid,
      gid: inherited.gid,
      volume: parent.volume,
      accessAcl: inherited.accessAcl,
      defaultAcl: inherited.defaultAcl,
    });
    if (made.errno === E.AGAIN) {
      yield* wait(engine.runtime.sleep(5 + attempt));
      continue;
    }
    if (made.outcome === null) return intent.abort(made.errno);
    const dir = engine.tree.attributes(body.dir)!;
    const plan = new Plan();
    planSetName(engine, plan, dir, body.name, { inode: made.outcome.attributes.inode, type: directoryType });
    plan.attributes(dir);
    return intent.finish(plan, made.outcome);
  }
}
