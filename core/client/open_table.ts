/**
 * What this client has open, by inode. The servers know one open a session and inode, named by an id that only grows;
 * here the opens of all programs are counted. The last close queues a RELEASE, which goes out later with others in one
 * message a store: a close never waits, and a RELEASE that comes late cannot end a newer open, whose id is higher.
 *
 * Under a lease a file is opened without a word: whoever wants to remove its last name has to take the lease back first,
 * and then the server is told before the lease is returned. It is told anyway of what stays open for longer, in time
 * before the lease runs out, and before this session itself removes the name, for which nobody asks it. A client that is
 * cut off from the server just then finds such a file gone (ESTALE) if somebody has removed it meanwhile.
 *
 * @module
 */

import { E } from "../errno.ts";
import { shardOf } from "../meta/layout.ts";
import type { Caller } from "../protocol/caller.ts";
import { OPEN, RELEASE } from "../protocol/messages.ts";
import { first, Future, type Task, wait } from "../task.ts";
import { inParallel } from "./parallel.ts";

/** An open as RECLAIM and RELEASE name it. */
export interface OpenClaim {
  inode: number;
  openId: number;
}

interface OpenState {
  /** Opens of programs. */
  count: number;
  /** Requests under way that may register an open. */
  opening: number;
  /** Highest id that was sent, or will be. */
  openId: number;
  /** The server knows that the inode is open; or may know, as something was sent. */
  told: boolean;
  sent: boolean;
  /** When the first program opened it without telling the server. */
  lentMs: number;
}

/** Closes for one store; target null: nobody serves their shard now. */
interface Batch {
  target: { server: number; store: number } | null;
  closes: OpenClaim[];
}

/** A queued RELEASE leaves after this time. */
const releaseDelayMs = 15;
/** So many queued RELEASEs leave at once. */
const releaseBatch = 64;
/** Closes in one message. */
const closesPerMessage = 1024;
const releaseRetryMs = 1_000;
/** The server is told of an open after this time, looked at so often; a lease has to last for longer to open under it. */
const tellAfterMs = 500, tellEveryMs = 250, lendMs = 2_000;
/** Opens at most that the server has not been told of; and so many are told at once. */
const untoldMax = 4_096, tellsMax = 16;
/** {@linkcode OpenTable.flush} waits this long for a store: what it does not get to know ends with the session. */
const flushMs = 5_000;

/** See the module's comment. */
export class OpenTable {
  #caller: Caller;
  #lastId = 0;
  #states = new Map<number, OpenState>();
  /** Opens of a session that died, by inode: whoever holds one gets EIO until it is closed. */
  #stale = new Map<number, number>();
  #closing = new Map<number, number>();
  #flushing = false;
  #full = new Future<void>();
  /** Inodes that are open and of which the server has not been told. */
  readonly #untold = new Set<number>();
  #telling = false;
  /** Requests under way that may remove the last name of a file, for which nobody will take back a lease. */
  #removals = 0;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /** A fresh id, for a request that finds out which inode it opens. */
  newId(): number {
    return ++this.#lastId;
  }

  /** An OPEN is about to be sent; returns its id. Ends with {@linkcode opened} or {@linkcode ended}. */
  begin(inode: number): number {
    const state = this.#state(inode);
    state.opening++;
    state.sent = true;
    return state.openId = this.newId();
  }

  /** What {@linkcode begin} began has succeeded: one more open. */
  opened(inode: number): void {
    const state = this.#state(inode);
    state.opening = Math.max(0, state.opening - 1);
    state.count++;
    this.#told(inode, state);
  }

  /** Opens an inode on which there is a lease for `validMs` more. False: the server has to be asked. */
  lend(inode: number, validMs: number): boolean {
    if (validMs < lendMs || this.#removals > 0 || this.#untold.size >= untoldMax) return false;
    const state = this.#state(inode);
    state.count++;
    if (state.told) return true;
    if (!this.#untold.has(inode)) {
      this.#untold.add(inode);
      state.lentMs = this.#caller.runtime.nowMs();
      if (state.openId === 0) state.openId = this.newId();
    }
    if (this.#telling) return true;
    this.#telling = true;
    this.#caller.runtime.scheduler.spawn(this.#tellLater());
    return true;
  }

  /** Opens of which the server has not been told. */
  get untold(): number {
    return this.#untold.size;
  }

  /** Tells the server that an inode is open, before a lease on it is returned; null when it knows all that there is. */
  tell(inode: number): Task<void> | null {
    return this.#untold.has(inode) ? this.#tell(inode) : null;
  }

  /** Tells the server of all that is open. */
  *tellAll(): Task<void> {
    yield* this.#tellEach([...this.#untold]);
  }

  /** A request is about to be sent that may remove the last name of a file: until its end nothing is lent. */
  beginRemoval(): void {
    this.#removals++;
  }

  /** What {@linkcode beginRemoval} announced is over. */
  endRemoval(): void {
    this.#removals--;
  }

  /** What {@linkcode begin} began is over without one more open; should the server think otherwise, it is released. */
  ended(inode: number): void {
    const state = this.#states.get(inode);
    if (state === undefined) return;
    state.opening = Math.max(0, state.opening - 1);
    this.#settle(inode, state);
  }

  /** A request with an id of {@linkcode newId} has opened this inode. */
  adopt(inode: number, openId: number): void {
    const state = this.#state(inode);
    state.count++;
    state.openId = Math.max(state.openId, openId);
    this.#told(inode, state);
  }

  /** Ends one open. */
  close(inode: number): void {
    const stale = this.#stale.get(inode);
    if (stale !== undefined) {
      if (stale > 1) this.#stale.set(inode, stale - 1);
      else this.#stale.delete(inode);
      return;
    }
    const state = this.#states.get(inode);
    if (state === undefined) return;
    state.count = Math.max(0, state.count - 1);
    this.#settle(inode, state);
  }

  /** True while programs hold opens from a session that died. */
  isStale(inode: number): boolean {
    return this.#stale.size > 0 && this.#stale.has(inode);
  }

  /** Inodes that are open. */
  get size(): number {
    return this.#states.size;
  }

  /** What is open on a store, by the map of now. */
  claims(server: number, store: number): OpenClaim[] {
    const found: OpenClaim[] = [];
    for (const [inode, state] of this.#states) {
      if (state.count === 0) continue;
      const owner = this.#caller.maps.ownerOf(shardOf(inode));
      if (owner?.server !== server || owner.store !== store) continue;
      state.sent = true;
      found.push({ inode, openId: state.openId });
    }
    return found;
  }

  /** The session died: its opens are void. */
  sessionDied(): void {
    for (const [inode, state] of this.#states) {
      if (state.count > 0) this.#stale.set(inode, (this.#stale.get(inode) ?? 0) + state.count);
    }
    this.#states.clear();
    this.#untold.clear();
    this.#closing.clear();
  }

  /** The session ends: what is still open ends with it. */
  forget(): void {
    this.#states.clear();
    this.#untold.clear();
  }

  /** Sends every RELEASE that is queued and waits a few seconds for the answers (unmount). */
  *flush(): Task<void> {
    while (this.#closing.size > 0) {
      if (!(yield* this.#sendClosing(flushMs))) return;
    }
  }

  #state(inode: number): OpenState {
    let state = this.#states.get(inode);
    if (state === undefined) {
      this.#states.set(inode, state = { count: 0, opening: 0, openId: 0, told: false, sent: false, lentMs: 0 });
    }
    return state;
  }

  #told(inode: number, state: OpenState): void {
    state.told = state.sent = true;
    this.#untold.delete(inode);
  }

  *#tell(inode: number): Task<void> {
    const state = this.#states.get(inode), caller = this.#caller;
    if (state === undefined || state.told) return;
    state.opening++;
    state.sent = true;
    state.openId = this.newId();
    const reply = yield* caller.call(OPEN, { shard: shardOf(inode) }, { inode, openId: state.openId });
    if (this.#states.get(inode) !== state) return;
    state.opening = Math.max(0, state.opening - 1);
    // Gone, it stays gone: its users hear of it when they use it. Not answered, it is told again.
    if (reply.status !== E.IO) this.#told(inode, state);
    this.#settle(inode, state);
  }

  *#tellEach(inodes: readonly number[]): Task<void> {
    yield* inParallel(this.#caller.runtime.scheduler, inodes.length, tellsMax, (i) => this.#tell(inodes[i]));
  }

  *#tellLater(): Task<void> {
    const { runtime } = this.#caller;
    while (this.#untold.size > 0 && !this.#caller.closed) {
      yield* wait(runtime.sleep(tellEveryMs));
      const sinceMs = runtime.nowMs() - tellAfterMs;
      yield* this.#tellEach([...this.#untold].filter((inode) => this.#states.get(inode)!.lentMs <= sinceMs));
    }
    this.#telling = false;
  }

  #settle(inode: number, state: OpenState): void {
    if (state.count > 0 || state.opening > 0) return;
    this.#states.delete(inode);
    this.#untold.delete(inode);
    if (!state.sent) return;
    this.#closing.set(inode, state.openId);
    if (this.#closing.size >= releaseBatch) this.#full.resolve();
    if (this.#flushing) return;
    this.#flushing = true;
    this.#caller.runtime.scheduler.spawn(this.#flushLater());
  }

  *#flushLater(): Task<void> {
    const { runtime } = this.#caller;
    while (this.#closing.size > 0 && !this.#caller.closed) {
      yield* wait(first<void>(runtime.sleep(releaseDelayMs), this.#full));
      this.#full = new Future<void>();
      if (!(yield* this.#sendClosing())) yield* wait(runtime.sleep(releaseRetryMs));
    }
    this.#flushing = false;
  }

  /** One message a store (more for very many). False: some were not answered and are queued again. */
  *#sendClosing(timeoutMs?: number): Task<boolean> {
    const caller = this.#caller, session = caller.session;
    const batches = this.#batches();
    const answers = yield* inParallel(caller.runtime.scheduler, batches.length, 16, function* (i): Task<boolean> {
      const { target, closes } = batches[i];
      if (target === null) return false;
      return (yield* caller.call(RELEASE, target, { closes }, { timeoutMs })).status === 0;
    });
    if (caller.session !== session || !caller.sessionAlive) return false;
    answers.forEach((answered, i) => {
      if (!answered) { for (const one of batches[i].closes) this.#requeue(one); }
    });
    return answers.every((answered) => answered);
  }

  #batches(): Batch[] {
    const batches: Batch[] = [];
    const filling = new Map<string, Batch>();
    for (const [inode, openId] of this.#closing) {
      const target = this.#caller.maps.ownerOf(shardOf(inode)), key = `${target?.server}/${target?.store}`;
      let batch = filling.get(key);
      if (batch === undefined || batch.closes.length >= closesPerMessage) {
        batch = { target, closes: [] };
        filling.set(key, batch);
        batches.push(batch);
      }
      batch.closes.push({ inode, openId });
    }
    this.#closing.clear();
    return batches;
  }

  #requeue({ inode, openId }: OpenClaim): void {
    this.#closing.set(inode, Math.max(openId, this.#closing.get(inode) ?? 0));
  }
}
