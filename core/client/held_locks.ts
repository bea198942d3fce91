/**
 * The locks that programs of this client hold or wait for: what has to be claimed again after a server's start, and
 * what lets a close without locks cost nothing. Not who may have a lock: that is the server's to say.
 *
 * @module
 */

import { shardOf } from "../meta/layout.ts";
import { LockList, lockType, type SessionLock, type WireLock } from "../meta/lock_ranges.ts";
import type { MapHolder } from "../placement/map_holder.ts";
import type { Future } from "../task.ts";

interface InodeLocks {
  held: LockList;
  /** Owner -> requests whose outcome is not known (under way, or given up). */
  unknown: Map<string, number>;
}

/** How a wait for a lock can end besides its answer. */
export type WaitEnd = "granted" | "dead";

/** See the module's comment. */
export class HeldLocks {
  #maps: MapHolder;
  #inodes = new Map<number, InodeLocks>();
  #waits = new Map<number, Future<WaitEnd>>();
  #lastTicket = 0;

  constructor(maps: MapHolder) {
    this.#maps = maps;
  }

  /** A request about this lock is about to be sent. */
  begin(inode: number, lock: WireLock): void {
    let locks = this.#inodes.get(inode);
    if (locks === undefined) this.#inodes.set(inode, locks = { held: new LockList(), unknown: new Map() });
    const owner = ownerOf(lock);
    locks.unknown.set(owner, (locks.unknown.get(owner) ?? 0) + 1);
  }

  /** The request begun has an answer that is certain; `granted`: the lock is set (or removed). */
  end(inode: number, lock: WireLock, granted: boolean): void {
    const locks = this.#inodes.get(inode);
    if (locks === undefined) return;
    const owner = ownerOf(lock), others = (locks.unknown.get(owner) ?? 1) - 1;
    if (others > 0) locks.unknown.set(owner, others);
    else locks.unknown.delete(owner);
    if (granted) locks.held.set(own(lock));
    this.#tidy(inode, locks);
  }

  /** True when the owner holds a lock on the inode, or might. */
  mayHold(inode: number, lock: WireLock): boolean {
    const locks = this.#inodes.get(inode);
    return locks !== undefined && (locks.unknown.has(ownerOf(lock)) || locks.held.holds(own(lock)));
  }

  /** A flock that could not be converted at once has been dropped by the server. */
  dropped(inode: number, lock: WireLock): void {
    this.#inodes.get(inode)?.held.release(own(lock));
  }

  /** The server has dropped all that the owner had. */
  release(inode: number, lock: WireLock): void {
    const locks = this.#inodes.get(inode);
    if (locks === undefined) return;
    locks.held.release(own(lock));
    locks.unknown.delete(ownerOf(lock));
    this.#tidy(inode, locks);
  }

  /** The parts of a lock's range in which its owner holds nothing. */
  gaps(inode: number, lock: WireLock): { start: bigint; end: bigint }[] {
    const held = (this.#inodes.get(inode)?.held.locks ?? [])
      .filter((one) => ownerOf(one) === ownerOf(lock) && one.start <= lock.end && one.end >= lock.start);
    const gaps: { start: bigint; end: bigint }[] = [];
    let at = lock.start;
    for (const one of held) {
      if (one.start > at) gaps.push({ start: at, end: one.start - 1n });
      at = one.end + 1n;
    }
    if (at <= lock.end) gaps.push({ start: at, end: lock.end });
    return gaps;
  }

  /** What is held on a store, by the map of now. */
  claims(server: number, store: number): { inode: number; lock: WireLock }[] {
    const found: { inode: number; lock: WireLock }[] = [];
    for (const [inode, locks] of this.#inodes) {
      const owner = this.#maps.ownerOf(shardOf(inode));
      if (owner?.server !== server || owner.store !== store) continue;
      for (const lock of locks.held.locks) found.push({ inode, lock });
    }
    return found;
  }

  /** Registers a wait and returns its ticket; `end` settles when a GRANTED comes, or with the session. */
  wait(end: Future<WaitEnd>): number {
    this.#waits.set(++this.#lastTicket, end);
    return this.#lastTicket;
  }

  /** Forgets a wait. */
  stopWaiting(ticket: number): void {
    this.#waits.delete(ticket);
  }

  /** A server says that a wait is over. Unknown tickets are late news of waits that have ended. */
  granted(ticket: number): void {
    this.#waits.get(ticket)?.resolve("granted");
  }

  /** The session died: nothing is held, nobody waits. */
  sessionDied(): void {
    this.#inodes.clear();
    const waits = [...this.#waits.values()];
    this.#waits.clear();
    for (const end of waits) end.resolve("dead");
  }

  #tidy(inode: number, locks: InodeLocks): void {
    if (locks.held.size === 0 && locks.unknown.size === 0) this.#inodes.delete(inode);
  }
}

function ownerOf(lock: WireLock): string {
  return `${lock.flock}/${lock.ownerLow}/${lock.ownerHigh}`;
}

function own(lock: WireLock): SessionLock {
  return { ...lock, session: 0 };
}

/** An unlock of the given part of a lock. */
export function unlockOf(lock: WireLock, part: { start: bigint; end: bigint }): WireLock {
  return { ...lock, ...part, type: lockType.unlock };
}
