/**
 * TMPFILE: a regular file without a name (O_TMPFILE), made in the directory's shard and open for who asked. It is an
 * orphan from the start: the last close, or the end of the session, ends it (core/meta/reaper.ts), unless a LINK has
 * named it before. One record; the directory itself does not change.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import type { Task } from "../../task.ts";
import { type Attributes, inodeFlags, isRegular } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { inherit, planInherited } from "../inherit.ts";
import { Plan } from "../plan.ts";
import { frozenErrno } from "../protection.ts";

/** TMPFILE. ENOENT, ENOTDIR, ENOSPC, EINVAL, EPERM. */
export function tmpfile(engine: Engine, request: Request): Answer | Task<Answer> {
  return tmpfileNow(engine, request) ?? tmpfileLater(engine, request);
}

/** As far as it goes without waiting; null: credit has to be waited for. */
function tmpfileNow(engine: Engine, request: Request): Answer | null {
  const { dir, mode, openId } = request.body;
  if (!isRegular(mode) || openId === 0) return answerErrno(E.INVAL);
  const parent = engine.directory(dir);
  if (failed(parent)) return answerErrno(parent);
  if (frozenErrno(parent) !== 0) return answerErrno(E.PERM);
  const credit = engine.credit.check(parent.volume, 0, 1);
  if (credit === E.AGAIN) return null;
  return credit === 0 ? make(engine, request, parent) : answerErrno(credit);
}

function* tmpfileLater(engine: Engine, request: Request): Task<Answer> {
  for (;;) {
    const parent = engine.directory(request.body.dir);
    if (failed(parent)) return answerErrno(parent);
    const errno = yield* engine.credit.reserve(parent.volume, 0, 1);
    if (errno !== 0) return answerErrno(errno);
    engine.credit.settle(parent.volume, 0, 1);
    const answer = tmpfileNow(engine, request);
    if (answer !== null) return answer;
  }
}

function make(engine: Engine, request: Request, parent: Attributes): Answer {
  const { uid, openId, linkable } = request.body, inherited = inherit(engine, parent, request.body);
  if (failed(inherited)) return answerErrno(inherited);
  const plan = new Plan(), inode = engine.store.newInode(request.head.shard);
  const made: Attributes = {
    ...engine.newAttributes(inode, inherited.mode, parent.volume, engine.now()),
    uid,
    gid: inherited.gid,
    nlink: 0,
    parent: parent.inode,
    flags: linkable ? inodeFlags.linkable : 0,
  };
  planInherited(plan, made, inherited);
  engine.reaper.planOrphan(plan, made);
  plan.charge(parent.volume, 0, 1);
  engine.opens.open(request.head.session, inode, openId);
  return engine.answer(request, plan, { attributes: made });
}
