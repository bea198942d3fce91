/**
 * Deadlocks of fcntl locks over several stores. A store sees at once when a request would close a circle of waits within
 * itself. A wait that lasts is followed from store to store: whom does it wait for, whom do they wait for, and so on. A
 * circle that is found is followed a second time; when all its waits are still the same ones, they have all waited
 * between the two looks, and nobody in it can go on. Stores that do not answer leave it open until the next look.
 *
 * All in a circle may find it at the same time, and one of them has to give way, not all: each gives way at its first
 * find, its second, and so on, by its place in the order of the owners' names (LockService.givesWay).
 *
 * @module
 */

import { LOCK_WAITS } from "../protocol/messages.ts";
import { type Task, wait } from "../task.ts";
import type { Engine } from "./engine.ts";
import { type LockOwner, type LockWait, ownerKey } from "./lock_service.ts";

/** Longest circle that is found. */
const stepsMax = 32;
/** Owners followed at a time; more are no deadlock but a crowd. */
const ownersMax = 1024;
/** A store that does not answer within this time is left out until the next look. */
const askMs = 1_000;

/** A wait of a circle. */
interface CircleWait {
  /** {@linkcode ownerKey} of who waits. */
  owner: string;
  /** Of this very wait. */
  text: string;
}

/** When `owner` waits for itself, over any stores: how many of that circle are to give way before it does; else null. */
export function* placeInDeadlock(engine: Engine, owner: LockOwner): Task<number | null> {
  const before = yield* findCircle(engine, owner);
  if (before.length === 0) return null;
  const after = new Set((yield* findCircle(engine, owner)).map(({ text }) => text));
  if (!before.every(({ text }) => after.has(text))) return null;
  const me = ownerKey(owner);
  return before.filter((one) => one.owner < me).length;
}

/** The waits that lead from an owner back to itself; empty when none do. */
function* findCircle(engine: Engine, owner: LockOwner): Task<CircleWait[]> {
  const me = ownerKey(owner);
  /** Owner -> the waits that led to it. */
  const paths = new Map<string, CircleWait[]>([[me, []]]);
  let frontier = [owner];
  for (let step = 0; step < stepsMax && frontier.length > 0 && frontier.length <= ownersMax; step++) {
    const next: LockOwner[] = [];
    for (const one of yield* waitsEverywhere(engine, frontier)) {
      const waiter = ownerKey(one.owner);
      const path = [...paths.get(waiter) ?? [], { owner: waiter, text: `${waiter} ${one.inode} ${one.ticket}` }];
      for (const blocker of one.blockers) {
        const key = ownerKey(blocker);
        if (key === me) return path;
        if (paths.has(key)) continue;
        paths.set(key, path);
        next.push(blocker);
      }
    }
    frontier = next;
  }
  return [];
}

/** What these owners wait for, in all stores that answer. */
function* waitsEverywhere(engine: Engine, owners: LockOwner[]): Task<LockWait[]> {
  const { map, caller, runtime } = engine;
  const others = map.holders.filter(({ server, store }) => server !== engine.serverId || store !== engine.storeIndex);
  const asked = others.map((at) =>
    runtime.scheduler.spawn(caller.call(LOCK_WAITS, at, { owners }, { timeoutMs: askMs }))
  );
  const waits = owners.flatMap((owner) => engine.locks.waitsOf(owner));
  for (const one of asked) {
    const reply = yield* wait(one);
    if (reply.status === 0) waits.push(...reply.body!.waits);
  }
  return waits;
}
