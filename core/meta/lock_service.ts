/**
 * flock and fcntl locks of a store's inodes: what is granted, who waits, who would wait for ever (EDEADLK, among the
 * inodes of this store; core/meta/deadlock.ts looks further). In memory; after a start the sessions claim again what
 * they hold, and nothing is granted until they have (core/meta/opens.ts, grace).
 *
 * @module
 */

import { E } from "../errno.ts";
import type { Runtime } from "../runtime.ts";
import { blocks, LockList, lockType, type SessionLock } from "./lock_ranges.ts";

/** Most locks held, and most requests waiting, on one inode: beyond them ENOLCK. */
export const locksMax = 4096, waitersMax = 4096;
/** Most locks and waits of a store: beyond them ENOLCK. */
const locksOfStoreMax = 1 << 20;
/** Owners of a session whose last request is remembered, so that a duplicate does not take effect. */
const ordersMax = 4096;
/** A wait this long is looked at for a deadlock with other stores; then after twice the time, and so on. */
const deadlockCheckMs = 2_000, deadlockCheckMsMax = 60_000;

/** Who holds or wants fcntl locks. */
export interface LockOwner {
  session: number;
  ownerLow: number;
  ownerHigh: number;
}

/** A wait for a lock, and who keeps it waiting. */
export interface LockWait {
  owner: LockOwner;
  inode: number;
  ticket: number;
  blockers: LockOwner[];
}

interface Waiter {
  lock: SessionLock;
  inode: number;
  ticket: number;
  /** When to look for a deadlock next, and the time after that. */
  checkAtMs: number;
  checkMs: number;
  /** Times that the wait was found to be part of a deadlock. */
  finds: number;
}

/** What came of a request; `granted` of a wait that was to be ended. */
export interface LockOutcome {
  errno: number;
  granted: boolean;
}

interface InodeLocks {
  list: LockList;
  waiting: Waiter[];
}

/** See the module's comment. */
export class LockService {
  #inodes = new Map<number, InodeLocks>();
  /** Waits for fcntl locks by owner. */
  #waits = new Map<string, Set<Waiter>>();
  /** Session -> owner on an inode -> highest `order` seen, and what came of it. */
  #orders = new Map<number, Map<string, { order: number; outcome: LockOutcome }>>();
  /** Locks and waits in all. */
  #count = 0;
  /** Tells a session that a waiting lock is granted. */
  onGranted: (session: number, inode: number, ticket: number) => void = () => {};

  constructor(readonly runtime: Runtime) {}

  /**
   * Carries out an owner's request about an inode, once: what comes again has the outcome that it had, and what comes
   * after a later one is ECANCELED.
   */
  once(inode: number, lock: SessionLock, order: number, carryOut: () => LockOutcome): LockOutcome {
    let orders = this.#orders.get(lock.session);
    if (orders === undefined) this.#orders.set(lock.session, orders = new Map());
    const key = orderKey(inode, lock), last = orders.get(key);
    if (last !== undefined && order < last.order) return { errno: E.CANCELED, granted: false };
    if (last !== undefined && order === last.order) return last.outcome;
    const outcome = carryOut();
    orders.delete(key);
    orders.set(key, { order, outcome });
    if (orders.size > ordersMax) orders.delete(orders.keys().next().value!);
    return outcome;
  }

  /** The lock that would block `wanted`, or null. */
  test(inode: number, wanted: SessionLock): SessionLock | null {
    return this.#inodes.get(inode)?.list.conflict(wanted) ?? null;
  }

  /** Sets or removes a lock. EAGAIN: it conflicts, and waits when `ticket` is not 0. EDEADLK, ENOLCK. */
  set(inode: number, wanted: SessionLock, ticket: number): number {
    const locks = this.#of(inode), full = this.#count >= locksOfStoreMax;
    if (wanted.type !== lockType.unlock && (full || locks.list.size >= locksMax)) return this.#refuse(inode, locks);
    if (ticket !== 0 && this.#waiter(inode, wanted.session, ticket) !== undefined) return E.AGAIN;
    const blocker = this.#change(locks, () => locks.list.acquire(wanted));
    if (blocker === null) {
      this.#wake(inode, locks);
      return 0;
    }
    if (ticket === 0) return E.AGAIN;
    if (!wanted.flock && this.#wouldDeadlock(inode, wanted)) return E.DEADLK;
    if (locks.waiting.length >= waitersMax) return this.#refuse(inode, locks);
    this.#addWaiter(locks, {
      lock: wanted,
      inode,
      ticket,
      checkAtMs: this.runtime.nowMs() + deadlockCheckMs,
      checkMs: deadlockCheckMs,
      finds: 0,
    });
    this.#wake(inode, locks);
    return E.AGAIN;
  }

  /** Ends a wait; true when the lock had been granted before, or there is no such wait. */
  cancel(session: number, inode: number, ticket: number): boolean {
    const waiter = this.#waiter(inode, session, ticket);
    if (waiter === undefined) return true;
    const locks = this.#inodes.get(inode)!;
    this.#removeWaiter(locks, waiter);
    this.#tidy(inode, locks);
    return false;
  }

  /** Drops all that an owner holds on an inode. */
  drop(inode: number, owner: SessionLock): void {
    const locks = this.#inodes.get(inode);
    if (locks === undefined) return;
    if (this.#change(locks, () => locks.list.release(owner))) this.#wake(inode, locks);
    this.#tidy(inode, locks);
  }

  /** A session claims what it held before a restart. A claim that comes after later requests of its owner is a duplicate. */
  claim(inode: number, lock: SessionLock): void {
    if (this.#orders.get(lock.session)?.has(orderKey(inode, lock))) return;
    const locks = this.#of(inode);
    this.#change(locks, () => locks.list.set(lock));
  }

  /** The session is dead: what it holds and waits for goes. */
  dropSession(session: number): void {
    this.#orders.delete(session);
    for (const [inode, locks] of [...this.#inodes]) {
      for (const waiter of [...locks.waiting]) if (waiter.lock.session === session) this.#removeWaiter(locks, waiter);
      if (this.#change(locks, () => locks.list.releaseSession(session))) this.#wake(inode, locks);
      this.#tidy(inode, locks);
    }
  }

  /** The inode is gone. */
  forget(inode: number): void {
    const locks = this.#inodes.get(inode);
    if (locks === undefined) return;
    for (const waiter of [...locks.waiting]) this.#removeWaiter(locks, waiter);
    this.#count -= locks.list.size;
    this.#inodes.delete(inode);
  }

  /** Locks held on an inode, for information. */
  held(inode: number): readonly SessionLock[] {
    return this.#inodes.get(inode)?.list.locks ?? [];
  }

  /** True when an fcntl wait has lasted so long that a deadlock is worth looking for; says so once for some time. */
  suspects(session: number, inode: number, ticket: number): boolean {
    const waiter = this.#waiter(inode, session, ticket), nowMs = this.runtime.nowMs();
    if (waiter === undefined || waiter.lock.flock || nowMs < waiter.checkAtMs) return false;
    waiter.checkMs = Math.min(deadlockCheckMsMax, waiter.checkMs * 2);
    waiter.checkAtMs = nowMs + waiter.checkMs;
    return true;
  }

  /**
   * A wait was found in a deadlock, in which `before` others are to give way before it. True when it is its turn; else they
   * have until it is asked for the next time.
   */
  givesWay(session: number, inode: number, ticket: number, before: number): boolean {
    const waiter = this.#waiter(inode, session, ticket);
    if (waiter === undefined) return false;
    waiter.checkAtMs = this.runtime.nowMs();
    return waiter.finds++ >= before;
  }

  /** What an owner waits for in this store. */
  waitsOf(owner: LockOwner): LockWait[] {
    return [...this.#waits.get(ownerKey(owner)) ?? []].map(({ lock, inode, ticket }) => {
      return { owner: ownerOf(lock), inode, ticket, blockers: this.#blockersOf(inode, lock) };
    });
  }

  #refuse(inode: number, locks: InodeLocks): number {
    this.#tidy(inode, locks);
    return E.NOLCK;
  }

  #of(inode: number): InodeLocks {
    let locks = this.#inodes.get(inode);
    if (locks === undefined) this.#inodes.set(inode, locks = { list: new LockList(), waiting: [] });
    return locks;
  }

  #tidy(inode: number, locks: InodeLocks): void {
    if (locks.list.size === 0 && locks.waiting.length === 0) this.#inodes.delete(inode);
  }

  /** Changes a list and keeps count. */
  #change<T>(locks: InodeLocks, change: () => T): T {
    const before = locks.list.size, result = change();
    this.#count += locks.list.size - before;
    return result;
  }

  #waiter(inode: number, session: number, ticket: number): Waiter | undefined {
    return this.#inodes.get(inode)?.waiting.find((one) => one.ticket === ticket && one.lock.session === session);
  }

  #addWaiter(locks: InodeLocks, waiter: Waiter): void {
    locks.waiting.push(waiter);
    this.#count++;
    if (waiter.lock.flock) return;
    const key = ownerKey(waiter.lock), waits = this.#waits.get(key);
    if (waits === undefined) this.#waits.set(key, new Set([waiter]));
    else waits.add(waiter);
  }

  #removeWaiter(locks: InodeLocks, waiter: Waiter): void {
    locks.waiting.splice(locks.waiting.indexOf(waiter), 1);
    this.#count--;
    const key = ownerKey(waiter.lock), waits = this.#waits.get(key);
    waits?.delete(waiter);
    if (waits?.size === 0) this.#waits.delete(key);
  }

  /** Grants what can be granted now, in the order in which it was asked. */
  #wake(inode: number, locks: InodeLocks): void {
    for (const waiter of [...locks.waiting]) {
      if (locks.list.conflict(waiter.lock) !== null) continue;
      this.#change(locks, () => locks.list.set(waiter.lock));
      this.#removeWaiter(locks, waiter);
      this.onGranted(waiter.lock.session, inode, waiter.ticket);
    }
    this.#tidy(inode, locks);
  }

  /** True when somebody who blocks `wanted` waits, directly or not, for its owner. */
  #wouldDeadlock(inode: number, wanted: SessionLock): boolean {
    const me = ownerKey(wanted), seen = new Set<string>();
    const next = this.#blockersOf(inode, wanted);
    while (next.length > 0) {
      const owner = next.pop()!, key = ownerKey(owner);
      if (key === me) return true;
      if (seen.has(key)) continue;
      seen.add(key);
      for (const wait of this.waitsOf(owner)) next.push(...wait.blockers);
    }
    return false;
  }

  #blockersOf(inode: number, wanted: SessionLock): LockOwner[] {
    const owners = new Map<string, LockOwner>();
    for (const held of this.#inodes.get(inode)?.list.locks ?? []) {
      if (blocks(held, wanted)) owners.set(ownerKey(held), ownerOf(held));
    }
    return [...owners.values()];
  }
}

/** Equal for equal owners. */
export function ownerKey(owner: LockOwner): string {
  return `${owner.session}/${owner.ownerLow}/${owner.ownerHigh}`;
}

function ownerOf({ session, ownerLow, ownerHigh }: SessionLock): LockOwner {
  return { session, ownerLow, ownerHigh };
}

function orderKey(inode: number, lock: SessionLock): string {
  return `${inode}/${lock.flock}/${lock.ownerLow}/${lock.ownerHigh}`;
}
