/**
 * flock and fcntl locks of a store's inodes: what is granted, who waits, who would wait for ever (EDEADLK, among the
 * inodes of this store). In memory; after a start the sessions claim again what they hold, and nothing is granted until
 * they have (core/meta/opens.ts, grace).
 *
 * @module
 */

import { E } from "../errno.ts";
import type { Runtime } from "../runtime.ts";
import { blocks, LockList, lockType, type SessionLock } from "./lock_ranges.ts";

/** Most locks held, and most requests waiting, on one inode: beyond them ENOLCK. */
const locksMax = 4096, waitersMax = 4096;

interface Waiter {
  lock: SessionLock;
  ticket: number;
  sinceMs: number;
}

interface InodeLocks {
  list: LockList;
  waiting: Waiter[];
}

/** See the module's comment. */
export class LockService {
  #inodes = new Map<number, InodeLocks>();
  /** Tells a session that a waiting lock is granted. */
  onGranted: (session: number, inode: number, ticket: number) => void = () => {};

  constructor(readonly runtime: Runtime) {}

  /** The lock that would block `wanted`, or null. */
  test(inode: number, wanted: SessionLock): SessionLock | null {
    return this.#inodes.get(inode)?.list.conflict(wanted) ?? null;
  }

  /** Sets or removes a lock. EAGAIN: it conflicts, and waits when `ticket` is not 0. EDEADLK, ENOLCK. */
  set(inode: number, wanted: SessionLock, ticket: number): number {
    const locks = this.#of(inode);
    if (wanted.type !== lockType.unlock && locks.list.size >= locksMax) return E.NOLCK;
    const queued = locks.waiting.findIndex((w) => w.ticket === ticket && w.lock.session === wanted.session);
    if (ticket !== 0 && queued >= 0) return E.AGAIN;
    const blocker = locks.list.acquire(wanted);
    if (blocker === null) {
      this.#wake(inode, locks);
      return 0;
    }
    if (ticket === 0) return E.AGAIN;
    if (!wanted.flock && this.#wouldDeadlock(inode, wanted)) return E.DEADLK;
    if (locks.waiting.length >= waitersMax) return E.NOLCK;
    locks.waiting.push({ lock: wanted, ticket, sinceMs: this.runtime.nowMs() });
    this.#wake(inode, locks);
    return E.AGAIN;
  }

  /** Ends a wait; true when the lock had been granted before. */
  cancel(session: number, inode: number, ticket: number): boolean {
    const locks = this.#inodes.get(inode);
    const at = locks?.waiting.findIndex((w) => w.ticket === ticket && w.lock.session === session) ?? -1;
    if (locks === undefined || at < 0) return true;
    locks.waiting.splice(at, 1);
    this.#tidy(inode, locks);
    return false;
  }

  /** Drops all that an owner holds on an inode. */
  drop(inode: number, owner: SessionLock): void {
    const locks = this.#inodes.get(inode);
    if (locks === undefined) return;
    if (locks.list.release(owner)) this.#wake(inode, locks);
    this.#tidy(inode, locks);
  }

  /** A session claims what it held before a restart. */
  claim(inode: number, lock: SessionLock): void {
    this.#of(inode).list.set(lock);
  }

  /** The session is dead: what it holds and waits for goes. */
  dropSession(session: number): void {
    for (const [inode, locks] of [...this.#inodes]) {
      locks.waiting = locks.waiting.filter((w) => w.lock.session !== session);
      if (locks.list.releaseSession(session)) this.#wake(inode, locks);
      this.#tidy(inode, locks);
    }
  }

  /** The inode is gone. */
  forget(inode: number): void {
    this.#inodes.delete(inode);
  }

  /** Locks held on an inode, for information. */
  held(inode: number): readonly SessionLock[] {
    return this.#inodes.get(inode)?.list.locks ?? [];
  }

  #of(inode: number): InodeLocks {
    let locks = this.#inodes.get(inode);
    if (locks === undefined) this.#inodes.set(inode, locks = { list: new LockList(), waiting: [] });
    return locks;
  }

  #tidy(inode: number, locks: InodeLocks): void {
    if (locks.list.size === 0 && locks.waiting.length === 0) this.#inodes.delete(inode);
  }

  /** Grants what can be granted now, in the order in which it was asked. */
  #wake(inode: number, locks: InodeLocks): void {
    for (let at = 0; at < locks.waiting.length;) {
      const waiter = locks.waiting[at];
      if (locks.list.conflict(waiter.lock) !== null) {
        at++;
        continue;
      }
      locks.list.set(waiter.lock);
      locks.waiting.splice(at, 1);
      this.onGranted(waiter.lock.session, inode, waiter.ticket);
    }
    this.#tidy(inode, locks);
  }

  /** True when somebody who blocks `wanted` waits, directly or not, for its owner. */
  #wouldDeadlock(inode: number, wanted: SessionLock): boolean {
    const me = ownerOf(wanted);
    const seen = new Set<string>();
    const next = this.#blockersOf(inode, wanted);
    while (next.length > 0) {
      const owner = next.pop()!;
      if (owner === me) return true;
      if (seen.has(owner)) continue;
      seen.add(owner);
      for (const [waitedFor, locks] of this.#inodes) {
        for (const waiter of locks.waiting) {
          if (!waiter.lock.flock && ownerOf(waiter.lock) === owner) {
            next.push(...this.#blockersOf(waitedFor, waiter.lock));
          }
        }
      }
    }
    return false;
  }

  #blockersOf(inode: number, wanted: SessionLock): string[] {
    return this.#of(inode).list.locks.filter((held) => blocks(held, wanted)).map(ownerOf);
  }
}

function ownerOf(lock: SessionLock): string {
  return `${lock.session}/${lock.ownerLow}/${lock.ownerHigh}`;
}
