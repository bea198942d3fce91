/**
 * flock(2) and fcntl(2) locks. The inode's shard grants them; a request that has to wait is parked there and answered
 * by a push. Whoever waits asks again every 2 s under the same ticket, which finds a push that was lost, a server that
 * was started anew, and a deadlock.
 *
 * A request that is given up, because its server did not answer or a signal came, is settled in the background; until
 * then the next request of its owner about the inode waits.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { lockRangeEnd, lockType, type WireLock } from "../meta/lock_ranges.ts";
import { CANCELLOCK, DROPLOCKS, SETLOCK, TESTLOCK } from "../protocol/messages.ts";
import { either, Future, type Task, wait } from "../task.ts";
import { type Done, done, type Lock } from "./filesystem.ts";
import type { Turn, WaitEnd } from "./held_locks.ts";
import type { Volume } from "./volume.ts";

/** Who waits asks again this often. */
const askAgainMs = 2_000;
/** A program that a signal has woken learns within this time whether it has the lock; else it is told that it has not. */
const cancelMs = 500;
const typeNames = ["read", "write", "unlock"] as const;

/** A lock request on its way. */
interface Wanted {
  volume: Volume;
  inode: number;
  lock: WireLock;
}

function onWire(lock: Lock): WireLock {
  const { flock, ownerLow, ownerHigh, pid } = lock;
  const range = flock ? { start: 0n, end: lockRangeEnd } : { start: lock.start, end: lock.end };
  return { flock, type: lockType[lock.type], ownerLow, ownerHigh, pid, ...range };
}

function isRange(lock: WireLock): boolean {
  return lock.start >= 0n && lock.start <= lock.end && lock.end <= lockRangeEnd;
}

/** TESTLOCK. The pid of a lock of another client is 0: it names no process here. */
export function* testLock(volume: Volume, inode: number, lock: Lock): Task<Result<Lock>> {
  const wanted = onWire(lock);
  if (!isRange(wanted)) return E.INVAL;
  const found = yield* volume.ask(TESTLOCK, inode, { inode, lock: wanted });
  if (failed(found)) return found;
  const pid = found.session === volume.session.caller.session ? found.lock.pid : 0;
  return { ...found.lock, type: typeNames[found.lock.type] ?? "unlock", pid };
}

/** SETLOCK. EAGAIN, EDEADLK, ENOLCK; EINTR when a wait was cancelled. */
export function* setLock(
  volume: Volume,
  inode: number,
  lock: Lock,
  block: boolean,
  cancel: Future<void>,
): Task<Done> {
  const { locks } = volume.session, wanted = { volume, inode, lock: onWire(lock) };
  if (!isRange(wanted.lock)) return E.INVAL;
  const unlock = wanted.lock.type === lockType.unlock;
  if (unlock && !locks.mayHold(inode, wanted.lock)) return done;
  const errno = block && !unlock
    ? yield* waitForLock(wanted, cancel)
    : yield* inTurn(wanted, null, () => setNow(wanted));
  return errno === 0 ? done : errno;
}

/** Runs `request` in its owner's turn. EINTR when `cancel` came first, EIO when the turn does not come. */
function* inTurn(wanted: Wanted, cancel: Future<void> | null, request: () => Task<number>): Task<number> {
  const { volume, inode, lock } = wanted, { locks, caller, runtime } = volume.session;
  const giveUp = () => cancel ?? runtime.sleep(caller.ioTimeoutMs);
  const turn = yield* locks.takeTurn(inode, lock, giveUp);
  if (turn === null) return cancel?.settled ? E.INTR : E.IO;
  const errno = yield* request();
  locks.endTurn(turn);
  return errno;
}

/** Asks once, without waiting, in the owner's turn. */
function* setNow(wanted: Wanted): Task<number> {
  const { inode, lock } = wanted, { locks } = wanted.volume.session;
  locks.begin(inode, lock);
  const errno = yield* askFor(wanted, 0);
  // After EIO it is not known whether the lock is held: it stays noted, so that a close drops it.
  if (errno !== E.IO) locks.end(inode, lock, errno === 0);
  return errno;
}

function* askFor({ volume, inode, lock }: Wanted, ticket: number): Task<number> {
  const { locks, caller } = volume.session;
  // A program whose session has died is not to get a lock in the next one, of which it knows nothing.
  if (!caller.sessionAlive) return E.IO;
  const answer = yield* volume.ask(SETLOCK, inode, { inode, lock, ticket, order: locks.nextOrder() });
  const errno = failed(answer) ? answer : 0;
  // A flock that could not be converted at once has been given up.
  if (errno === E.AGAIN && lock.flock) locks.dropped(inode, lock);
  return errno;
}

function* waitForLock(wanted: Wanted, cancel: Future<void>): Task<number> {
  const { inode, lock } = wanted, { locks, runtime } = wanted.volume.session;
  const end = new Future<WaitEnd>(), ticket = locks.wait(end), told = { interrupted: false };
  locks.begin(inode, lock);
  const asked = yield* askUntilGranted(wanted, ticket, end, cancel);
  if (asked !== null && asked !== E.IO) {
    locks.stopWaiting(ticket);
    locks.end(inode, lock, asked === 0);
    return asked;
  }
  if (end.settled && end.value === "dead") return E.IO;
  told.interrupted = asked === E.IO;
  const settled = runtime.scheduler.spawn(settle(wanted, ticket, told));
  if (asked === E.IO) return E.IO;
  yield* wait(either(settled, runtime.sleep(cancelMs)));
  if (settled.settled) return settled.value;
  told.interrupted = true;
  return E.INTR;
}

/** 0 or an errno when the wait is over, null when it was cancelled. */
function* askUntilGranted(
  wanted: Wanted,
  ticket: number,
  end: Future<WaitEnd>,
  cancel: Future<void>,
): Task<number | null> {
  const { runtime } = wanted.volume.session;
  let news = new Future<void>();
  end.listen(() => news.resolve());
  cancel.listen(() => news.resolve());
  for (;;) {
    const asking = runtime.scheduler.spawn(inTurn(wanted, cancel, () => askFor(wanted, ticket)));
    if (!asking.settled && !cancel.settled) yield* wait(either(asking, news = new Future<void>()));
    if (!asking.settled) {
      if (cancel.settled) return null;
      // Granted by the push: the answer is on its way.
      yield* wait(asking);
    }
    if (asking.value === E.INTR) return null;
    if (asking.value !== E.AGAIN) return asking.value;
    if (!end.settled && !cancel.settled) {
      const now = news = new Future<void>();
      runtime.sleep(askAgainMs).listen(() => now.resolve());
      yield* wait(now);
    }
    if (end.settled) return end.value === "granted" ? 0 : E.IO;
    if (cancel.settled) return null;
  }
}

/**
 * Ends a wait that its program has given up, however long it takes. 0: the lock had been granted in the meantime, and is
 * kept, unless the program has been told otherwise: then its range becomes what it was.
 */
function* settle(wanted: Wanted, ticket: number, told: { interrupted: boolean }): Task<number> {
  const { volume, inode, lock } = wanted, { caller, locks, runtime } = volume.session, { session } = caller;
  const turn = yield* locks.takeTurn(inode, lock, null);
  if (turn === null) return E.IO;
  let outcome: number = E.IO;
  while (caller.session === session && caller.sessionAlive && !caller.closed) {
    outcome = yield* endWait(wanted, ticket, told);
    if (outcome !== E.IO) break;
    yield* wait(runtime.sleep(askAgainMs));
  }
  if (caller.session === session && caller.sessionAlive) {
    locks.stopWaiting(ticket);
    locks.end(inode, lock, outcome === 0);
  }
  locks.endTurn(turn);
  return outcome;
}

/** One try to end a wait: EIO when it has to be made again. */
function* endWait(wanted: Wanted, ticket: number, told: { interrupted: boolean }): Task<number> {
  const { volume, inode, lock } = wanted, { locks } = volume.session;
  const answer = yield* volume.ask(CANCELLOCK, inode, { inode, lock, ticket, order: locks.nextOrder() });
  if (failed(answer)) return answer;
  if (!answer.granted) return E.INTR;
  if (!told.interrupted) {
    // "Granted" is also said of a wait that a server's start has ended: asking again tells which.
    const errno = yield* askFor(wanted, 0);
    if (errno !== 0) return errno === E.AGAIN ? E.INTR : errno;
    if (!told.interrupted) return 0;
  }
  for (const part of locks.restoring(inode, lock)) {
    const errno = yield* askFor({ ...wanted, lock: part }, 0);
    if (errno === E.IO) return E.IO;
  }
  return E.INTR;
}

/** DROPLOCKS, unless the owner cannot hold anything. After EIO it is tried on in the background. */
export function* dropLocks(
  volume: Volume,
  inode: number,
  flock: boolean,
  ownerLow: number,
  ownerHigh: number,
): Task<Done> {
  const { locks, caller, runtime } = volume.session;
  const lock = { flock, type: lockType.unlock, ownerLow, ownerHigh, pid: 0, start: 0n, end: lockRangeEnd };
  if (!locks.mayHold(inode, lock)) return done;
  const wanted = { volume, inode, lock };
  const turn = yield* locks.takeTurn(inode, lock, () => runtime.sleep(caller.ioTimeoutMs));
  const errno = turn === null ? E.IO : yield* drop(wanted);
  if (errno === E.IO) runtime.scheduler.spawn(dropLater(wanted, turn));
  else locks.endTurn(turn!);
  return errno === 0 || errno === E.STALE || errno === E.NOENT ? done : errno;
}

function* drop({ volume, inode, lock }: Wanted): Task<number> {
  const { locks, caller } = volume.session, { session } = caller;
  const answer = yield* volume.ask(DROPLOCKS, inode, { inode, lock, order: locks.nextOrder() });
  if (failed(answer) && answer === E.IO) return caller.session === session && caller.sessionAlive ? E.IO : 0;
  locks.release(inode, lock);
  return failed(answer) ? answer : 0;
}

/** Drops what an owner holds, before anything that it asks for later, however long it takes. */
function* dropLater(wanted: Wanted, taken: Turn | null): Task<void> {
  const { volume, inode, lock } = wanted, { locks, caller, runtime } = volume.session, { session } = caller;
  const turn = taken ?? (yield* locks.takeTurn(inode, lock, null));
  if (turn === null) return;
  while (caller.session === session && caller.sessionAlive && !caller.closed) {
    if ((yield* drop(wanted)) !== E.IO) break;
    yield* wait(runtime.sleep(askAgainMs));
  }
  locks.endTurn(turn);
}
