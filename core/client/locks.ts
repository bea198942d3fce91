/**
 * flock(2) and fcntl(2) locks. The inode's shard grants them; a request that has to wait is parked there and answered
 * by a push. Whoever waits asks again every 2 s under the same ticket, which finds a push that was lost or a server
 * that was started anew.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { lockRangeEnd, lockType, type WireLock } from "../meta/lock_ranges.ts";
import { CANCELLOCK, DROPLOCKS, SETLOCK, TESTLOCK } from "../protocol/messages.ts";
import { Future, type Task, wait } from "../task.ts";
import { type Done, done, type Lock } from "./filesystem.ts";
import { unlockOf, type WaitEnd } from "./held_locks.ts";
import { finished } from "./namespace.ts";
import type { Volume } from "./volume.ts";

/** Who waits asks again this often. */
const askAgainMs = 2_000;
const typeNames = ["read", "write", "unlock"] as const;

function onWire(lock: Lock): WireLock {
  const { flock, ownerLow, ownerHigh, pid } = lock;
  const range = flock ? { start: 0n, end: lockRangeEnd } : { start: lock.start, end: lock.end };
  return { flock, type: lockType[lock.type], ownerLow, ownerHigh, pid, ...range };
}

function isRange(lock: WireLock): boolean {
  return lock.start >= 0n && lock.start <= lock.end && lock.end <= lockRangeEnd;
}

/** TESTLOCK. */
export function* testLock(volume: Volume, inode: number, lock: Lock): Task<Result<Lock>> {
  const wanted = onWire(lock);
  if (!isRange(wanted)) return E.INVAL;
  const found = yield* volume.ask(TESTLOCK, inode, { inode, lock: wanted });
  return failed(found) ? found : { ...found.lock, type: typeNames[found.lock.type] ?? "unlock" };
}

/** SETLOCK. EAGAIN, EDEADLK, ENOLCK; EINTR when a wait was cancelled. */
export function* setLock(
  volume: Volume,
  inode: number,
  lock: Lock,
  block: boolean,
  cancel: Future<void>,
): Task<Done> {
  const wanted = onWire(lock), { locks } = volume.session;
  if (!isRange(wanted)) return E.INVAL;
  if (wanted.type === lockType.unlock && !locks.mayHold(inode, wanted)) return done;
  locks.begin(inode, wanted);
  if (block && wanted.type !== lockType.unlock) return yield* waitForLock(volume, inode, wanted, cancel);
  return yield* setNow(volume, inode, wanted);
}

/** Asks once, without waiting, for a lock that was begun. */
function* setNow(volume: Volume, inode: number, lock: WireLock): Task<Done> {
  const { locks } = volume.session;
  const answer = yield* volume.ask(SETLOCK, inode, { inode, lock, ticket: 0 });
  const errno = failed(answer) ? answer : 0;
  if (errno === E.AGAIN && lock.flock) locks.dropped(inode, lock);
  // After EIO it is not known whether the lock is held: it stays noted, so that a close drops it.
  if (errno !== E.IO) locks.end(inode, lock, errno === 0);
  return finished(answer);
}

function* waitForLock(volume: Volume, inode: number, lock: WireLock, cancel: Future<void>): Task<Done> {
  const { locks, runtime } = volume.session;
  const end = new Future<WaitEnd>(), ticket = locks.wait(end);
  const outcome = yield* askUntilGranted();
  locks.stopWaiting(ticket);
  if (outcome === E.INTR) return yield* cancelWait(volume, inode, lock, ticket);
  if (outcome !== E.IO) locks.end(inode, lock, outcome === 0);
  else if (!end.settled || end.value !== "dead") runtime.scheduler.spawn(abandonWait(volume, inode, lock, ticket));
  return outcome === 0 ? done : outcome;

  function* askUntilGranted(): Task<number> {
    let cancelled = cancel.settled, turn = new Future<void>();
    end.listen(() => turn.resolve());
    cancel.listen(() => {
      cancelled = true;
      turn.resolve();
    });
    for (;;) {
      const answer = yield* volume.ask(SETLOCK, inode, { inode, lock, ticket });
      if (!failed(answer)) return 0;
      if (answer !== E.AGAIN) return answer;
      if (lock.flock) locks.dropped(inode, lock);
      if (!end.settled && !cancelled) {
        const now = turn = new Future<void>();
        runtime.sleep(askAgainMs).listen(() => now.resolve());
        yield* wait(now);
      }
      if (end.settled) return end.value === "granted" ? 0 : E.IO;
      if (cancelled) return E.INTR;
    }
  }
}

/**
 * The program does not want to wait any more. The lock may have been granted in the meantime, and then it is kept and
 * the wait has succeeded: to give it back could take away what its owner held in that range before.
 */
function* cancelWait(volume: Volume, inode: number, lock: WireLock, ticket: number): Task<Done> {
  const answer = yield* volume.ask(CANCELLOCK, inode, { inode, ticket });
  if (failed(answer)) {
    volume.session.runtime.scheduler.spawn(abandonWait(volume, inode, lock, ticket));
    return E.INTR;
  }
  if (!answer.granted) {
    volume.session.locks.end(inode, lock, false);
    return E.INTR;
  }
  // "Granted" is also said of a wait that a server's start has ended: asking again tells which.
  const set = yield* setNow(volume, inode, lock);
  return set === E.AGAIN ? E.INTR : set;
}

/** Ends a wait whose fate is not known, however long it takes, and gives back what it may have brought. */
function* abandonWait(volume: Volume, inode: number, lock: WireLock, ticket: number): Task<void> {
  const { caller, locks, runtime } = volume.session, session = caller.session;
  for (;;) {
    const answer = yield* volume.ask(CANCELLOCK, inode, { inode, ticket });
    if (caller.session !== session || !caller.sessionAlive || caller.closed) return;
    if (!failed(answer)) {
      if (answer.granted) yield* unlockGaps(volume, inode, lock);
      return locks.end(inode, lock, false);
    }
    if (answer !== E.IO) return;
    yield* wait(runtime.sleep(askAgainMs));
  }
}

function* unlockGaps(volume: Volume, inode: number, lock: WireLock): Task<void> {
  for (const gap of volume.session.locks.gaps(inode, lock)) {
    yield* volume.ask(SETLOCK, inode, { inode, lock: unlockOf(lock, gap), ticket: 0 });
  }
}

/** DROPLOCKS, unless the owner cannot hold anything. */
export function* dropLocks(
  volume: Volume,
  inode: number,
  flock: boolean,
  ownerLow: number,
  ownerHigh: number,
): Task<Done> {
  const { locks } = volume.session;
  const any = { flock, type: lockType.unlock, ownerLow, ownerHigh, pid: 0, start: 0n, end: lockRangeEnd };
  if (!locks.mayHold(inode, any)) return done;
  const answer = yield* volume.ask(DROPLOCKS, inode, { inode, flock, ownerLow, ownerHigh });
  if (!failed(answer) || answer === E.STALE || answer === E.NOENT) locks.release(inode, any);
  return finished(answer);
}
