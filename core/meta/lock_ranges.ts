/**
 * Locks of one inode: byte ranges as fcntl(2) has them (one owner's ranges split, merge and convert) and whole-file
 * locks as flock(2) has them. Offsets are exact up to the kernel's last one, 2^63 - 1: a program may lock far beyond what
 * a file can hold. Pure bookkeeping, used by the server for what is granted and by the client for what it
 * has to claim again. Who waits, for how long, and deadlocks are other modules' affair.
 *
 * @module
 */

import type { Of } from "../protocol/codec.ts";
import type { lock } from "../protocol/messages.ts";

/** `type` of a lock, on the wire and here. */
export const lockType = { read: 0, write: 1, unlock: 2 } as const;
/** `end` of a lock that reaches to the end of any size (the kernel's OFFSET_MAX). */
export const lockRangeEnd = 2n ** 63n - 1n;

/** A lock as messages carry it. `end` is the last byte, inclusive. */
export type WireLock = Of<typeof lock>;

/** A lock and the session that holds or wants it. An owner is (session, flock or fcntl, ownerLow, ownerHigh). */
export interface SessionLock extends WireLock {
  session: number;
}

/** True when both locks are of one owner and kind, so that they never conflict and replace each other. */
export function sameOwner(a: SessionLock, b: SessionLock): boolean {
  return a.ownerLow === b.ownerLow && a.ownerHigh === b.ownerHigh && a.session === b.session && a.flock === b.flock;
}

/** True when `held` keeps `wanted` from being granted. fcntl and flock locks do not see each other, as on Linux. */
export function blocks(held: SessionLock, wanted: SessionLock): boolean {
  if (held.flock !== wanted.flock || wanted.type === lockType.unlock || sameOwner(held, wanted)) return false;
  if (held.type === lockType.read && wanted.type === lockType.read) return false;
  return wanted.flock || (held.start <= wanted.end && wanted.start <= held.end);
}

function lowest(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function highest(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

/** The locks held on one inode. Every operation is linear in their number. */
export class LockList {
  #held: SessionLock[] = [];

  /** What is held; one owner's fcntl ranges are disjoint, ascending among themselves, and merged where they touch. */
  get locks(): readonly SessionLock[] {
    return this.#held;
  }

  /** Locks held. */
  get size(): number {
    return this.#held.length;
  }

  /** The held lock that blocks `wanted`, the one with the lowest start first; null when it could be granted. */
  conflict(wanted: SessionLock): SessionLock | null {
    let found: SessionLock | null = null;
    for (const held of this.#held) {
      if ((found === null || held.start < found.start) && blocks(held, wanted)) found = held;
    }
    return found;
  }

  /**
   * Grants or removes `wanted` if nothing blocks it, and returns null; else returns the lock that does. A flock that is
   * converted is dropped before the other kind is asked for, as flock(2) says: else two readers that both want to
   * write would wait for each other for ever.
   */
  acquire(wanted: SessionLock): SessionLock | null {
    const blocker = this.conflict(wanted);
    if (blocker === null) {
      this.set(wanted);
      return null;
    }
    if (wanted.flock) this.set({ ...wanted, type: lockType.unlock });
    return blocker;
  }

  /** Grants, converts or removes without asking whether anything blocks. Returns true when something changed. */
  set(wanted: SessionLock): boolean {
    return wanted.flock ? this.#setWhole(wanted) : this.#setRange(wanted);
  }

  /** True when the owner of `like` holds anything of that kind. */
  holds(like: SessionLock): boolean {
    return this.#held.some((held) => sameOwner(held, like));
  }

  /** Drops everything one owner holds of one kind; true when that was something. */
  release(like: SessionLock): boolean {
    return this.#keep((held) => !sameOwner(held, like));
  }

  /** Drops everything of a session; true when that was something. */
  releaseSession(session: number): boolean {
    return this.#keep((held) => held.session !== session);
  }

  #keep(stays: (held: SessionLock) => boolean): boolean {
    const before = this.#held.length;
    this.#held = this.#held.filter(stays);
    return this.#held.length !== before;
  }

  #setWhole(wanted: SessionLock): boolean {
    const at = this.#held.findIndex((held) => sameOwner(held, wanted));
    if (wanted.type === lockType.unlock) {
      if (at >= 0) this.#held.splice(at, 1);
      return at >= 0;
    }
    if (at < 0) {
      this.#held.push({ ...wanted });
      return true;
    }
    const changed = this.#held[at].type !== wanted.type;
    this.#held[at] = { ...wanted };
    return changed;
  }

  #setRange(wanted: SessionLock): boolean {
    const others: SessionLock[] = [], own: SessionLock[] = [];
    for (const held of this.#held) (sameOwner(held, wanted) ? own : others).push(held);
    if (own.some((held) => held.type === wanted.type && held.start <= wanted.start && wanted.end <= held.end)) {
      return false;
    }
    const left: SessionLock[] = [];
    const merged: SessionLock = { ...wanted };
    let touched = wanted.type !== lockType.unlock;
    for (const held of own) {
      if (held.end < wanted.start - 1n || held.start > wanted.end + 1n) left.push(held);
      else if (held.type === wanted.type) {
        merged.start = lowest(merged.start, held.start);
        merged.end = highest(merged.end, held.end);
      } else {
        touched ||= held.start <= wanted.end && wanted.start <= held.end;
        if (held.start < wanted.start) left.push({ ...held, end: lowest(held.end, wanted.start - 1n) });
        if (held.end > wanted.end) left.push({ ...held, start: highest(held.start, wanted.end + 1n) });
      }
    }
    if (wanted.type !== lockType.unlock) left.push(merged);
    left.sort((a, b) => a.start < b.start ? -1 : 1);
    this.#held = others.concat(left);
    return touched;
  }
}
