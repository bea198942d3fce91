/**
 * TESTLOCK, SETLOCK, CANCELLOCK, DROPLOCKS, LOCK_WAITS: front of core/meta/lock_service.ts. Nothing is granted while
 * sessions still claim what they held before a restart.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { status } from "../../protocol/frame.ts";
import type { Task } from "../../task.ts";
import { placeInDeadlock } from "../deadlock.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { lockType, type SessionLock, type WireLock } from "../lock_ranges.ts";
import type { LockOwner, LockWait } from "../lock_service.ts";

/** Owners that one answer to LOCK_WAITS names at most. */
const blockersMax = 4096;

function isLock(lock: WireLock): boolean {
  return lock.type <= lockType.unlock && lock.start <= lock.end;
}

function wanted(request: Request): SessionLock {
  return { ...request.body.lock, session: request.head.session };
}

/** TESTLOCK: the lock that blocks, or the one asked for as an unlock. */
export function testlock(engine: Engine, request: Request): Answer {
  const { inode, lock } = request.body;
  if (!isLock(lock)) return answerErrno(E.INVAL);
  if (engine.opens.grace) return answerErrno(status.retry);
  const found = engine.locks.test(inode, wanted(request)) ?? { ...wanted(request), type: lockType.unlock };
  return { status: 0, body: { lock: found, session: found.session } };
}

/** SETLOCK. EAGAIN, ECANCELED, EDEADLK, EINVAL, ENOLCK, ESTALE. */
export function setlock(engine: Engine, request: Request): Answer | Task<Answer> {
  const { inode, ticket } = request.body;
  if (engine.locks.suspects(request.head.session, inode, ticket)) return lookForDeadlock(engine, request);
  return setNow(engine, request, false);
}

/** A wait that lasts, asked for again: ends with EDEADLK if it would last for ever. */
function* lookForDeadlock(engine: Engine, request: Request): Task<Answer> {
  const { inode, ticket } = request.body, place = yield* placeInDeadlock(engine, wanted(request));
  const ends = place !== null && engine.locks.givesWay(request.head.session, inode, ticket, place);
  return setNow(engine, request, ends);
}

function setNow(engine: Engine, request: Request, deadlocked: boolean): Answer {
  const { inode, lock, ticket, order } = request.body, { session } = request.head;
  const found = engine.inode(inode);
  if (failed(found)) return answerErrno(found);
  if (!isLock(lock)) return answerErrno(E.INVAL);
  if (engine.opens.grace && lock.type !== lockType.unlock) return answerErrno(status.retry);
  const { errno } = engine.locks.once(inode, wanted(request), order, () => {
    if (deadlocked && !engine.locks.cancel(session, inode, ticket)) return { errno: E.DEADLK, granted: false };
    return { errno: engine.locks.set(inode, wanted(request), ticket), granted: false };
  });
  return errno === 0 ? { status: 0, body: {} } : answerErrno(errno);
}

/** CANCELLOCK. */
export function cancellock(engine: Engine, request: Request): Answer {
  const { inode, ticket, order } = request.body;
  const { errno, granted } = engine.locks.once(inode, wanted(request), order, () => {
    return { errno: 0, granted: engine.locks.cancel(request.head.session, inode, ticket) };
  });
  return errno === 0 ? { status: 0, body: { granted } } : answerErrno(errno);
}

/** DROPLOCKS. */
export function droplocks(engine: Engine, request: Request): Answer {
  const { inode, order } = request.body;
  const { errno } = engine.locks.once(inode, wanted(request), order, () => {
    engine.locks.drop(inode, wanted(request));
    return { errno: 0, granted: false };
  });
  return errno === 0 ? { status: 0, body: {} } : answerErrno(errno);
}

/** LOCK_WAITS. Of a crowd only a part is told. */
export function lockWaits(engine: Engine, request: Request): Answer {
  const owners: LockOwner[] = request.body.owners, waits: LockWait[] = [];
  let left = blockersMax;
  for (const one of owners.flatMap((owner) => engine.locks.waitsOf(owner))) {
    left -= Math.max(1, one.blockers.length);
    if (left < 0) break;
    waits.push(one);
  }
  return { status: 0, body: { waits } };
}
