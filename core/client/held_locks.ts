/**
 * The locks that programs of this client hold or wait for: what has to be claimed again after a server's start, and
 * what lets a close without locks cost nothing. Not who may have a lock: that is the server's to say.
 *
 * Requests of one owner about one inode go one after the other, each in its turn and with a higher order, so that client
 * and server agree on what the owner holds whatever is lost or comes late.
 *
 * @module
 */

import { shardOf } from "../meta/layout.ts";
import { LockList, lockType, type SessionLock, type WireLock } from "../meta/lock_ranges.ts";
import type { MapHolder } from "../placement/map_holder.ts";
import { either, Future, type Task, wait } from "../task.ts";

interface InodeLocks {
  held: LockList;
  /** Owner -> requests whose outcome is not known (under way, or given up). */
  unknown: Map<string, number>;
  turns: Map<string, Turn>;
}

/** The turn of an owner on an inode, and those who want it next: they hear true, or false when the session died. */
export interface Turn {
  inode: number;
  owner: string;
  queue: Future<boolean>[];
}

/** How a wait for a lock can end besides its answer. */
export type WaitEnd = "granted" | "dead";

/** See the module's comment. */
export class HeldLocks {
  #maps: MapHolder;
  #inodes = new Map<number, InodeLocks>();
  #waits = new Map<number, Future<WaitEnd>>();
  #lastTicket = 0;
  #lastOrder = 0;

  constructor(maps: MapHolder) {
    this.#maps = maps;
  }

  /** A request about this lock is about to be sent. */
  begin(inode: number, lock: WireLock): void {
    const locks = this.#of(inode), owner = ownerOf(lock);
    locks.unknown.set(owner, (locks.unknown.get(owner) ?? 0) + 1);
  }

  /** The `order` of the next request. */
  nextOrder(): number {
    return ++this.#lastOrder;
  }

  /**
   * Waits for the turn of the lock's owner on the inode. Null when it did not come: what `giveUp` made, if there was a
   * queue, has settled (`giveUp` null: never), or the session died.
   */
  *takeTurn(inode: number, lock: WireLock, giveUp: (() => Future<void>) | null): Task<Turn | null> {
    const { turns } = this.#of(inode), owner = ownerOf(lock), turn = turns.get(owner);
    if (turn === undefined) {
      const fresh = { inode, owner, queue: [] };
      turns.set(owner, fresh);
      return fresh;
    }
    const mine = new Future<boolean>();
    turn.queue.push(mine);
    if (giveUp === null) yield* wait(mine);
    else yield* wait(either(mine, giveUp()));
    if (mine.settled) return mine.value ? turn : null;
    turn.queue.splice(turn.queue.indexOf(mine), 1);
    return null;
  }

  /** Ends a turn. */
  endTurn(turn: Turn): void {
    const locks = this.#inodes.get(turn.inode);
    if (locks === undefined || locks.turns.get(turn.owner) !== turn) return;
    const next = turn.queue.shift();
    if (next !== undefined) next.resolve(true);
    else locks.turns.delete(turn.owner);
    this.#tidy(turn.inode, locks);
  }

  /** The request begun has an answer that is certain; `granted`: the lock is set (or removed). */
  end(inode: number, lock: WireLock, granted: boolean): void {
    const locks = this.#of(inode), owner = ownerOf(lock), others = (locks.unknown.get(owner) ?? 1) - 1;
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

  /** What makes a lock's range at the server what its owner holds there: each part as held, and unlocked between. */
  restoring(inode: number, lock: WireLock): WireLock[] {
    const held = (this.#inodes.get(inode)?.held.locks ?? [])
      .filter((one) => ownerOf(one) === ownerOf(lock) && one.start <= lock.end && one.end >= lock.start);
    const parts: WireLock[] = [];
    const unlock = (start: bigint, end: bigint) => parts.push({ ...lock, type: lockType.unlock, start, end });
    let at = lock.start;
    for (const { type, start, end } of held) {
      if (start > at) unlock(at, start - 1n);
      parts.push({ ...lock, type, start: start > at ? start : at, end: end < lock.end ? end : lock.end });
      at = end + 1n;
    }
    if (at <= lock.end) unlock(at, lock.end);
    return parts;
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
    for (const { turns } of this.#inodes.values()) {
      for (const { queue } of turns.values()) for (const next of queue) next.resolve(false);
    }
    this.#inodes.clear();
    const waits = [...this.#waits.values()];
    this.#waits.clear();
    for (const end of waits) end.resolve("dead");
  }

  #of(inode: number): InodeLocks {
    let locks = this.#inodes.get(inode);
    if (locks === undefined) {
      this.#inodes.set(inode, locks = { held: new LockList(), unknown: new Map(), turns: new Map() });
    }
    return locks;
  }

  #tidy(inode: number, locks: InodeLocks): void {
    if (locks.held.size + locks.unknown.size + locks.turns.size === 0) this.#inodes.delete(inode);
  }
}

function ownerOf(lock: WireLock): string {
  return `${lock.flock}/${lock.ownerLow}/${lock.ownerHigh}`;
}

function own(lock: WireLock): SessionLock {
  return { ...lock, session: 0 };
}
