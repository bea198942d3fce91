/**
 * Which sessions may use what they know of which inodes without asking, and how that is taken back.
 *
 * A change waits ({@linkcode Leases.clear}) until every other session has returned its lease on what it changes or the
 * lease has run out; meanwhile, and while the change is under way, nobody gets a new one. After a recall the inode counts
 * as shared for a while: without that two writers would recall each other at every step.
 *
 * In memory only. After a start some session may still hold what an earlier life of the store granted: changes wait until
 * every session that the store remembers has claimed (which voids its leases) or the longest lease has run out.
 * The death of a session ends none of its leases: it may not have heard of it.
 *
 * @module
 */

import { leaseMs } from "../protocol/lease.ts";
import type { Runtime } from "../runtime.ts";
import { first, Future, type Task, wait } from "../task.ts";

/** Inodes of a store on which there are leases at most; beyond, none are granted. */
export const leasedInodesMax = 65_536;
/** An inode whose leases were recalled gets none for this time. */
export const sharedMs = 2_000;
/** A recall that is not answered is sent again after this time. */
const recallAgainMs = 500;
/** Entries looked at for one that is over, when the table is full. */
const sweepSteps = 64;

interface Holder {
  session: number;
  untilMs: number;
  grant: number;
}

interface Entry {
  inode: number;
  /** Its place in the table, -1 without one: then nobody has a lease on it. */
  place: number;
  /** Mostly none or one. */
  holders: Holder[];
  /** No lease is granted before this time. */
  sharedUntilMs: number;
  /** Changes under way: no lease is granted. */
  changes: number;
  /** Settles when a holder has returned its lease. */
  returned: Future<void> | null;
}

/** The leases of a store. */
export class Leases {
  /** Sends a RECALL to a session. */
  onRecall: (session: number, inode: number, grant: number) => void = () => {};
  readonly #runtime: Runtime;
  readonly #entries = new Map<number, Entry>();
  /** Entries by place; null: free. */
  readonly #places: (Entry | null)[] = [];
  readonly #freePlaces: number[] = [];
  /** Where room is looked for next. */
  #hand = 0;
  #graceUntilMs: number;
  /** Sessions that may hold leases from before the start. */
  #awaited = new Set<number>();
  /** Settles when grace ends before its time. */
  #graceEnded = new Future<void>();
  /** Since the start: leases granted, recalls sent, changes that waited, changes that should have waited. */
  readonly counters = { granted: 0, recalls: 0, waits: 0, missed: 0 };

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
    this.#graceUntilMs = runtime.nowMs();
  }

  /** Inodes on which leases are out, or that are being changed. */
  get size(): number {
    return this.#entries.size;
  }

  /** True while leases from before the store's start may be in use. */
  get grace(): boolean {
    return !this.#graceEnded.settled && this.#runtime.nowMs() < this.#graceUntilMs;
  }

  /** At the start: these sessions may hold leases that were granted before it. */
  await(sessions: readonly number[]): void {
    for (const session of sessions) this.#awaited.add(session);
    if (this.#awaited.size > 0) this.#graceUntilMs = this.#runtime.nowMs() + leaseMs;
  }

  /** A session has claimed what it holds, and with that given up its leases. */
  claimed(session: number): void {
    if (this.#awaited.delete(session) && this.#awaited.size === 0) this.#graceEnded.resolve();
  }

  /** Waits for the end of grace. */
  *graceOver(): Task<void> {
    while (this.grace) {
      const leftMs = this.#graceUntilMs - this.#runtime.nowMs();
      yield* wait(first(this.#graceEnded, this.#runtime.sleep(leftMs)));
    }
  }

  /** Gives a session a lease on an inode from now on. False: not now. */
  grant(inode: number, session: number): boolean {
    const nowMs = this.#runtime.nowMs();
    let entry = this.#entries.get(inode);
    if (entry !== undefined && (entry.changes > 0 || nowMs < entry.sharedUntilMs)) return false;
    if (entry === undefined || entry.place < 0) {
      const place = this.#place(nowMs);
      if (place < 0) return false;
      entry ??= this.#add(inode);
      entry.place = place;
      this.#places[place] = entry;
    }
    const untilMs = nowMs + leaseMs, grant = ++this.counters.granted;
    const { holders } = entry;
    const holder = holders.find((one) => one.session === session) ?? holders.find((one) => one.untilMs <= nowMs);
    if (holder === undefined) holders.push({ session, untilMs, grant });
    else {
      holder.session = session;
      holder.untilMs = untilMs;
      holder.grant = grant;
    }
    return true;
  }

  /** A session has returned the lease that was recalled by number `grant`, and those before. */
  returned({ inode, session, grant }: { inode: number; session: number; grant: number }): void {
    const entry = this.#entries.get(inode);
    const at = entry?.holders.findIndex((one) => one.session === session && one.grant <= grant) ?? -1;
    if (entry === undefined || at < 0) return;
    entry.holders.splice(at, 1);
    const { returned } = entry;
    entry.returned = null;
    returned?.resolve();
    if (this.#idle(entry)) this.#remove(entry);
  }

  /** A session has ended in order: it uses nothing any more. */
  returnedAll(session: number): void {
    for (const inode of [...this.#entries.keys()]) this.returned({ inode, session, grant: Infinity });
  }

  /** Sessions that hold a lease on an inode. */
  holders(inode: number): number[] {
    const nowMs = this.#runtime.nowMs();
    return (this.#entries.get(inode)?.holders ?? []).filter(({ untilMs }) => untilMs > nowMs)
      .map(({ session }) => session);
  }

  /** True when a session other than `session` holds a lease on one of `inodes`, or might (grace). */
  held(inodes: readonly number[], session: number): boolean {
    if (inodes.length === 0) return false;
    if (this.grace) return true;
    const nowMs = this.#runtime.nowMs();
    for (const inode of inodes) {
      const entry = this.#entries.get(inode);
      if (entry !== undefined && this.#foreign(entry, session, nowMs)) return true;
    }
    return false;
  }

  /** A record is about to change these inodes: counts it if a lease stands in its way, which would be a bug. */
  check(inodes: readonly number[], session: number): void {
    const nowMs = this.#runtime.nowMs();
    for (const inode of inodes) {
      const entry = this.#entries.get(inode);
      if (entry === undefined || !this.#foreign(entry, session, nowMs)) continue;
      this.counters.missed++;
      this.#runtime.log("error", "leases", `inode ${inode} changes while a session holds a lease on it`);
    }
  }

  /** A change of `inodes` is under way: no leases on them until {@linkcode end}. */
  begin(inodes: readonly number[]): void {
    for (const inode of inodes) (this.#entries.get(inode) ?? this.#add(inode)).changes++;
  }

  /** A change that {@linkcode begin} announced is over. */
  end(inodes: readonly number[]): void {
    const nowMs = this.#runtime.nowMs();
    for (const inode of inodes) {
      const entry = this.#entries.get(inode);
      if (entry === undefined || entry.changes === 0) throw new Error(`leases: no change of ${inode} is under way`);
      entry.changes--;
      if (nowMs >= entry.sharedUntilMs && this.#idle(entry)) this.#remove(entry);
    }
  }

  /** Waits until no session but `session` holds a lease on any of `inodes`. Call between begin and end. */
  *clear(inodes: readonly number[], session: number): Task<void> {
    yield* this.graceOver();
    // All are asked before the first is waited for.
    for (const inode of inodes) this.#recall(inode, session);
    for (const inode of inodes) {
      const entry = this.#entries.get(inode)!;
      for (;;) {
        const nowMs = this.#runtime.nowMs();
        if (!this.#foreign(entry, session, nowMs)) break;
        this.counters.waits++;
        entry.returned ??= new Future<void>();
        yield* wait(first(entry.returned, this.#runtime.sleep(recallAgainMs)));
        if (this.#runtime.nowMs() - nowMs >= recallAgainMs) this.#recall(inode, session);
      }
    }
  }

  #recall(inode: number, session: number): void {
    const nowMs = this.#runtime.nowMs(), entry = this.#entries.get(inode);
    if (entry === undefined) return;
    entry.holders = entry.holders.filter((one) => one.session === session || one.untilMs > nowMs);
    for (const holder of entry.holders) {
      if (holder.session === session) continue;
      entry.sharedUntilMs = nowMs + sharedMs;
      this.counters.recalls++;
      this.onRecall(holder.session, inode, holder.grant);
    }
  }

  #foreign(entry: Entry, session: number, nowMs: number): boolean {
    for (const holder of entry.holders) if (holder.session !== session && holder.untilMs > nowMs) return true;
    return false;
  }

  #idle(entry: Entry): boolean {
    return entry.changes === 0 && entry.holders.length === 0;
  }

  #add(inode: number): Entry {
    const entry: Entry = { inode, place: -1, holders: [], sharedUntilMs: 0, changes: 0, returned: null };
    this.#entries.set(inode, entry);
    return entry;
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.inode);
    if (entry.place < 0) return;
    this.#places[entry.place] = null;
    this.#freePlaces.push(entry.place);
  }

  /** A free place; -1: none among those looked at, which go round. */
  #place(nowMs: number): number {
    if (this.#freePlaces.length === 0 && this.#places.length < leasedInodesMax) return this.#places.push(null) - 1;
    for (let steps = 0; this.#freePlaces.length === 0 && steps < sweepSteps; steps++) {
      const entry = this.#places[this.#hand]!;
      this.#hand = (this.#hand + 1) % leasedInodesMax;
      if (entry.changes === 0 && nowMs >= entry.sharedUntilMs && !this.#foreign(entry, 0, nowMs)) this.#remove(entry);
    }
    return this.#freePlaces.pop() ?? -1;
  }
}
