/**
 * Exclusive locks by name, in memory, for work that waits in the middle: names that an intent is changing, inodes
 * whose data or size is being changed. First come, first served. A lock has an owner (a number of the caller's
 * choosing), so that work that is resumed or retried finds its own locks.
 *
 * Deadlock rule: wait only while holding nothing; take every further lock with `tryAcquire` and start over when it fails.
 *
 * @module
 */

import { Future, type Task, wait } from "../task.ts";

interface Held {
  owner: string;
  waiters: { owner: string; turn: Future<void> }[];
}

/** Locks named by strings. */
export class LockTable {
  #held = new Map<string, Held>();
  /** Locks held below a group, for {@linkcode heldInGroup}. */
  #groups = new Map<number, Set<string>>();

  /** True when somebody holds the lock. */
  held(name: string): boolean {
    return this.#held.size !== 0 && this.#held.has(name);
  }

  /** Takes the lock if it is free or already the owner's. `group` (a directory) is counted for {@linkcode heldInGroup}. */
  tryAcquire(name: string, owner: string, group = 0): boolean {
    const held = this.#held.get(name);
    if (held !== undefined) return held.owner === owner;
    this.#held.set(name, { owner, waiters: [] });
    if (group !== 0) {
      const names = this.#groups.get(group);
      if (names === undefined) this.#groups.set(group, new Set([name]));
      else names.add(name);
    }
    return true;
  }

  /** Waits for the lock and takes it. */
  *acquire(name: string, owner: string, group = 0): Task<void> {
    while (!this.tryAcquire(name, owner, group)) {
      const turn = new Future<void>();
      this.#held.get(name)!.waiters.push({ owner, turn });
      yield* wait(turn);
    }
  }

  /** Waits until nobody holds the lock, without taking it. */
  *settled(name: string): Task<void> {
    for (;;) {
      const held = this.#held.get(name);
      if (held === undefined) return;
      const turn = new Future<void>();
      held.waiters.push({ owner: "", turn });
      yield* wait(turn);
    }
  }

  /** Frees the lock if `owner` holds it; those who wait try again in their order. */
  release(name: string, owner: string, group = 0): void {
    const held = this.#held.get(name);
    if (held === undefined || held.owner !== owner) return;
    this.#held.delete(name);
    if (group !== 0) {
      const names = this.#groups.get(group);
      names?.delete(name);
      if (names?.size === 0) this.#groups.delete(group);
    }
    for (const waiter of held.waiters) waiter.turn.resolve();
  }

  /** Whether locks of the group are held by `owner` only ("own"), by others too ("others") or not at all ("none"). */
  heldInGroup(group: number, owner: string): "none" | "own" | "others" {
    const names = this.#groups.get(group);
    if (names === undefined) return "none";
    for (const name of names) {
      if (this.#held.get(name)!.owner !== owner) return "others";
    }
    return "own";
  }

  /** Waits until those locks of the group that are held now have been free. */
  *groupSettled(group: number): Task<void> {
    for (const name of [...this.#groups.get(group) ?? []]) yield* this.settled(name);
  }

  /** Locks held now. */
  get size(): number {
    return this.#held.size;
  }
}
