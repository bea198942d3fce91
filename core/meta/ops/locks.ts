/**
 * TESTLOCK, SETLOCK, CANCELLOCK, DROPLOCKS: front of core/meta/lock_service.ts. Nothing is granted while sessions still
 * claim what they held before a restart.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { status } from "../../protocol/frame.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { lockType, type WireLock } from "../lock_ranges.ts";

function isLock(lock: WireLock): boolean {
  return lock.type <= lockType.unlock && lock.start <= lock.end;
}

/** TESTLOCK: the lock that blocks, or the one asked for as an unlock. */
export function testlock(engine: Engine, request: Request): Answer {
  const { inode, lock } = request.body;
  if (!isLock(lock)) return answerErrno(E.INVAL);
  if (engine.opens.grace) return answerErrno(status.retry);
  const blocker = engine.locks.test(inode, { ...lock, session: request.head.session });
  return { status: 0, body: { lock: blocker ?? { ...lock, type: lockType.unlock } } };
}

/** SETLOCK. EAGAIN, EDEADLK, EINVAL, ENOLCK, ESTALE. */
export function setlock(engine: Engine, request: Request): Answer {
  const { inode, lock, ticket } = request.body;
  const found = engine.inode(inode);
  if (failed(found)) return answerErrno(found);
  if (!isLock(lock)) return answerErrno(E.INVAL);
  if (engine.opens.grace && lock.type !== lockType.unlock) return answerErrno(status.retry);
  const errno = engine.locks.set(inode, { ...lock, session: request.head.session }, ticket);
  return errno === 0 ? { status: 0, body: {} } : answerErrno(errno);
}

/** CANCELLOCK. */
export function cancellock(engine: Engine, request: Request): Answer {
  const { inode, ticket } = request.body;
  return { status: 0, body: { granted: engine.locks.cancel(request.head.session, inode, ticket) } };
}

/** DROPLOCKS. */
export function droplocks(engine: Engine, request: Request): Answer {
  const { inode, flock, ownerLow, ownerHigh } = request.body;
  const owner = {
    flock,
    ownerLow,
    ownerHigh,
    session: request.head.session,
    type: lockType.unlock,
    pid: 0,
    start: 0n,
    end: 0n,
  };
  engine.locks.drop(inode, owner);
  return { status: 0, body: {} };
}
