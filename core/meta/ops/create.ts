/**
 * CREATE: files, devices, fifos, sockets and symbolic links. The inode is made in the directory's shard, so that all
 * of it is one record: inode, dentry, the directory's counts and times, the reply.
 *
 * A name that exists is EEXIST with `exclusive`; else the answer says what is there, opened if it is a near regular file.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import type { Task } from "../../task.ts";
import { type Attributes, isRegular, S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, nameLock, type Request } from "../engine.ts";
import { inherit, planInherited } from "../inherit.ts";
import { inodeKey, kind, shardOf, targetBytesMax } from "../layout.ts";
import { Plan } from "../plan.ts";
import { frozenErrno, keptErrno } from "../protection.ts";
import type { Place } from "../tree.ts";
import { truncateFor } from "./setattr.ts";

/** What CREATE makes. */
const types: readonly number[] = [S.IFREG, S.IFLNK, S.IFCHR, S.IFBLK, S.IFIFO, S.IFSOCK];

/** CREATE. EEXIST, ENOENT, ENOTDIR, ENOSPC, EINVAL, EPERM. */
export function create(engine: Engine, request: Request): Answer | Task<Answer> {
  const answer = createNow(engine, request);
  return answer ?? createLater(engine, request);
}

/** As far as it goes without waiting; null: something has to be waited for. */
function createNow(engine: Engine, request: Request): Answer | Task<Answer> | null {
  const { dir, name, mode } = request.body;
  if (!types.includes((mode & ~0o7777) >>> 0) || request.body.target.length > targetBytesMax) {
    return answerErrno(E.INVAL);
  }
  if (engine.nameHeld(dir, name)) return null;
  const parent = engine.directory(dir);
  if (failed(parent)) return answerErrno(parent);
  const place = engine.tree.find(dir, name);
  if (place.entry !== null) return existing(engine, request, place.entry);
  if (place.disc < 0) return answerErrno(E.NOSPC);
  const credit = engine.credit.check(parent.volume, request.body.target.length, 1);
  if (credit === E.AGAIN) return null;
  if (credit !== 0) return answerErrno(credit);
  return make(engine, request, parent, place);
}

function* createLater(engine: Engine, request: Request): Task<Answer> {
  const { dir, name } = request.body;
  for (;;) {
    yield* engine.names.settled(nameLock(dir, name));
    const parent = engine.directory(dir);
    if (failed(parent)) return answerErrno(parent);
    const errno = yield* engine.credit.reserve(parent.volume, request.body.target.length, 1);
    if (errno !== 0) return answerErrno(errno);
    engine.credit.settle(parent.volume, request.body.target.length, 1);
    const answer = createNow(engine, request);
    if (answer === null) continue;
    return "status" in answer ? answer : yield* answer;
  }
}

function make(engine: Engine, request: Request, parent: Attributes, place: Place): Answer {
  const { name, mode, uid, rdev, target, openId } = request.body;
  if (frozenErrno(parent) !== 0) return answerErrno(E.PERM);
  const inherited = inherit(engine, parent, request.body);
  if (failed(inherited)) return answerErrno(inherited);
  const shard = request.head.shard, plan = new Plan();
  const inode = engine.store.newInode(shard);
  const made: Attributes = {
    ...engine.newAttributes(inode, inherited.mode, parent.volume, engine.stamp(parent)),
    uid,
    gid: inherited.gid,
    rdev,
    parent: parent.inode,
  };
  planInherited(plan, made, inherited);
  if ((mode & S.IFMT) === S.IFLNK) {
    made.size = target.length;
    plan.put(inodeKey(shard, kind.symlink, inode), target);
    plan.charge(parent.volume, target.length, 0);
  }
  plan.attributes(made);
  parent.entries++;
  parent.mtime = parent.ctime = made.mtime;
  plan.attributes(parent);
  engine.tree.insert(plan, parent.inode, place, { inode, type: mode >>> 12, name });
  plan.charge(parent.volume, 0, 1);
  if (openId !== 0) engine.opens.open(request.head.session, inode, openId);
  return engine.answer(request, plan, { created: true, inode, type: mode >>> 12, attributes: made });
}

function existing(engine: Engine, request: Request, entry: { inode: number; type: number }): Answer | Task<Answer> {
  const { exclusive, openId, truncate } = request.body;
  if (exclusive) return answerErrno(E.EXIST);
  const near = shardOf(entry.inode) === request.head.shard;
  const attributes = near ? engine.tree.attributes(entry.inode) : null;
  const body = { created: false, inode: entry.inode, type: entry.type, attributes };
  if (attributes === null || !isRegular(attributes.mode)) return { status: 0, body };
  if (truncate && keptErrno(attributes) !== 0) return answerErrno(E.PERM);
  if (openId !== 0) engine.opens.open(request.head.session, entry.inode, openId);
  if (!truncate) return { status: 0, body };
  return truncated(engine, request, entry.inode, body);
}

/** The file may have come while something was waited for: that it changes was not known before. */
function* truncated(engine: Engine, request: Request, inode: number, body: object): Task<Answer> {
  const { leases } = engine, { session } = request.head;
  leases.begin([inode]);
  if (leases.held([inode], session)) yield* leases.clear([inode], session);
  const answer = yield* truncateFor(engine, request, inode, (file) => ({ ...body, attributes: file }));
  leases.end([inode]);
  return answer;
}
