/**
 * Calls to shards and stores, as clients make them and servers among themselves: finds the server by the map, gives
 * mutations a reply slot, sends, and sends again until there is an answer that means something or the time is up.
 *
 * Promises: a call ends within its timeout. A mutation takes effect at most once however often it is sent: it keeps
 * its slot and sequence through all attempts, also to another server. One that is given up (status EIO) may or may not
 * have taken effect; its slot is not used again before the shard has answered a FENCE in it.
 *
 * Statuses that reach the caller: 0, an errno, staleGen, sessionDead, and for calls to a store wrongOwner. The others
 * are dealt with here.
 *
 * @module
 */

import { E } from "../errno.ts";
import type { MapHolder } from "../placement/map_holder.ts";
import type { Network, Runtime } from "../runtime.ts";
import { first, Future, type Task, wait } from "../task.ts";
import { Call, type CallerContext, type CallerCounters, type CallerHooks, type Outcome } from "./call.ts";
import { noSlot, status } from "./frame.ts";
import { SlotPool, slotsPerServer } from "./gate.ts";
import { CREATE, FENCE, type Message, messageOf } from "./messages.ts";
import { bulkBytesMin, Peer } from "./peer.ts";

/** A server that does not answer within this time is asked again; if its link is silent too, on a new link. */
export const callTimeoutMsDefault = 10_000;
/** A call is given up with EIO after this time. */
export const ioTimeoutMsDefault = 60_000;
/** Deadlines are looked at this often. */
const tickMs = 250;
const pauseMsMin = 1;
const pauseMsMax = 50;
/** A map that is waited for is asked for again this often. */
const mapRetryMs = 1_000;
/** Replies that cannot be read, for one call, before it is given up. */
const malformedMax = 3;
const fencePauseMs = 1_000;
/** Above every number of a store of a server, which travels as 16 bits. */
const storesMax = 65_536;

/** Where a call goes: the primary of a shard, or a store of a server. */
export type Target = { shard: number } | { server: number; store: number };

/** See {@linkcode Caller.call}. */
export interface CallOptions {
  /** Data behind the body, at most dataBytesMax. Must stay untouched until the call ends. */
  data?: Uint8Array;
  /** Takes the reply's data; a longer one counts as malformed. Untouched after the call ends. */
  into?: Uint8Array;
  /** Default: the caller's io timeout. */
  timeoutMs?: number;
}

/** What came back. `body` is there exactly when `status` is 0. */
export interface Reply<R> {
  status: number;
  body?: R;
  /** Bytes of data in the reply (in `into`, or in `data`). */
  dataLength: number;
  /** The reply's data when there was no `into`. */
  data?: Uint8Array;
  /** Server that answered last, 0 if none did. */
  server: number;
  /** Times the request was sent. */
  sends: number;
}

/** What a caller is made of. */
export interface CallerOptions {
  runtime: Runtime;
  network: Network;
  maps: MapHolder;
  /** The cluster's secret; null without one. */
  secret: Uint8Array | null;
  /** One of peerKind. */
  kind: number;
  /** The session (from the manager); 0 for servers. */
  session: number;
  /**
   * For callers that share a session (the stores of one server): this one's number, and how many there are. Each uses
   * slots of its own; without this two of them would answer for each other.
   */
  lane?: { index: number; of: number };
  /** Keep up the links that were opened once. For clients: servers wait for their claims and push to them. */
  keepLinks?: boolean;
  callTimeoutMs?: number;
  ioTimeoutMs?: number;
  hooks?: CallerHooks;
  /** Where {@linkcode CallerCounters.sentFor} is counted; without it nowhere. */
  sentFor?: Float64Array;
}

const noOptions: CallOptions = {};

/** See the module's comment. One a reactor and session. */
export class Caller implements CallerContext {
  readonly runtime: Runtime;
  readonly network: Network;
  readonly maps: MapHolder;
  readonly secret: Uint8Array | null;
  readonly kind: number;
  readonly keepLinks: boolean;
  readonly callTimeoutMs: number;
  readonly ioTimeoutMs: number;
  readonly hooks: CallerHooks;
  readonly counters: CallerCounters;

  #lane: { index: number; of: number };
  #session: number;
  #sequence = 0;
  /** Settles when the dead session has a successor; null while the session lives. */
  #renewed: Future<void> | null = null;
  #closed = false;
  #ticking = false;
  #calls = 0;
  readonly #creating = new Set<Call>();
  /** By server * {@linkcode storesMax} + store. */
  #peers = new Map<number, Peer>();
  #pools = new Map<number, SlotPool>();

  constructor(options: CallerOptions) {
    this.runtime = options.runtime;
    this.network = options.network;
    this.maps = options.maps;
    this.secret = options.secret;
    this.kind = options.kind;
    this.#session = options.session;
    this.#lane = options.lane ?? { index: 0, of: 1 };
    this.keepLinks = options.keepLinks ?? false;
    this.callTimeoutMs = options.callTimeoutMs ?? callTimeoutMsDefault;
    this.ioTimeoutMs = options.ioTimeoutMs ?? ioTimeoutMsDefault;
    this.hooks = options.hooks ?? {};
    this.counters = {
      sent: [],
      sentFor: options.sentFor ?? new Float64Array(1),
      retries: 0,
      bytesSent: 0,
      bytesReceived: 0,
      malformed: 0,
      strays: 0,
      links: 0,
    };
    this.maps.onChange(() => this.#mapChanged());
  }

  /** The session whose calls these are; the last one while it is dead. */
  get session(): number {
    return this.#session;
  }

  /** False from the death of a session until {@linkcode renew}. */
  get sessionAlive(): boolean {
    return this.#renewed === null;
  }

  /** True after {@linkcode close}. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Calls under way. */
  get active(): number {
    return this.#calls;
  }

  /** Requests sent so far by message name; one sent twice counts twice. */
  get roundTrips(): Record<string, number> {
    const out: Record<string, number> = {};
    this.counters.sent.forEach((count, type) => out[messageOf(type)?.name ?? type] = count);
    return out;
  }

  /** Why servers refuse us, one line each; empty when none does. */
  get refusals(): string[] {
    return [...this.#peers.values()].filter((peer) => peer.refusal !== "")
      .map((peer) => `server ${peer.serverId} store ${peer.store}: ${peer.refusal}`);
  }

  /** Sends a message and waits for its outcome. See the module's comment for the statuses. */
  *call<Q, R>(message: Message<Q, R>, target: Target, body: Q, options: CallOptions = noOptions): Task<Reply<R>> {
    const deadlineMs = this.runtime.nowMs() + (options.timeoutMs ?? this.ioTimeoutMs);
    if (this.#renewed !== null) yield* this.#awaitSession(deadlineMs);
    const call = new Call(message, body, deadlineMs);
    call.session = this.#session;
    call.origin = this.runtime.scheduler.origin;
    call.data = options.data;
    call.into = options.into;
    if ("shard" in target) call.shard = target.shard;
    this.#calls++;
    this.#tick();
    const opens = message.type === CREATE.type && (body as { openId: number }).openId !== 0;
    if (opens) this.#creating.add(call);
    const ended = yield* this.#deliver(call, target);
    if (opens) this.#creating.delete(call);
    this.#calls--;
    if (!ended && message.mutation) this.hooks.uncertain?.(call);
    if (call.pool !== null) this.#endSlot(call, target, ended || call.sends === call.answers);
    return {
      status: call.status,
      body: call.status === 0 ? call.replyBody as R : undefined,
      dataLength: call.replyLength,
      data: call.replyData,
      server: call.server,
      sends: call.sends,
    };
  }

  /** CREATEs for a store that are to open a file and have been sent, but not answered. */
  creating(server: number, store: number): { shard: number; slot: number; sequence: number }[] {
    const here = [...this.#creating].filter((call) => {
      const owner = this.maps.ownerOf(call.shard);
      return call.sends > 0 && owner?.server === server && owner.store === store;
    });
    return here.map(({ shard, slot, sequence }) => ({ shard, slot, sequence }));
  }

  /** Stores to which there is a link, or something to send. */
  get linked(): { server: number; store: number }[] {
    return [...this.#peers.values()].filter((peer) => peer.active).map(({ serverId, store }) => ({
      server: serverId,
      store,
    }));
  }

  /** Goes on with a new session: every slot is free, links are opened anew, and calls of the old one end as sessionDead. */
  renew(session: number): void {
    const renewed = this.#renewed;
    this.#session = session;
    this.#pools = new Map();
    this.#renewed = null;
    for (const peer of this.#peers.values()) peer.suspend();
    for (const peer of this.#peers.values()) peer.resume();
    renewed?.resolve();
  }

  /** A server, or the map, says that a session is dead; nothing happens if it is not the one in use. */
  sessionDied(session: number): void {
    if (session !== this.#session || this.#renewed !== null || session === 0) return;
    this.#renewed = new Future<void>();
    this.runtime.log("warn", "caller", `session ${session} is dead`);
    for (const peer of this.#peers.values()) peer.suspend();
    this.hooks.sessionDead?.();
  }

  /** Ends everything: calls under way end with EIO. */
  close(): void {
    this.#closed = true;
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }

  /** Sends until there is an outcome. False: the call was given up (EIO). */
  *#deliver(call: Call, target: Target): Task<boolean> {
    let pauseMs = pauseMsMin, malformed = 0;
    for (;;) {
      if (this.#closed || this.runtime.nowMs() >= call.deadlineMs) return this.#giveUp(call);
      if (call.session !== this.#session || this.#renewed !== null) {
        call.status = status.sessionDead;
        return true;
      }
      const at = "shard" in target ? this.maps.ownerOf(target.shard) : this.#storeOf(target);
      if (at === null) {
        if (!("shard" in target)) return this.#giveUp(call);
        yield* this.#awaitMap(this.maps.current.epoch, call.deadlineMs);
        continue;
      }
      if (call.message.mutation && call.slot === noSlot && !this.#takeFreeSlot(call, at.server)) {
        if (!(yield* this.#takeSlot(call, at.server))) return this.#giveUp(call);
        continue;
      }
      const outcome = yield* this.#attempt(call, this.#peer(at.server, at.store));
      if (outcome === "late") return this.#giveUp(call);
      if (outcome === "malformed" && ++malformed >= malformedMax) return this.#giveUp(call);
      if (outcome === "answered") {
        switch (call.status) {
          case status.wrongOwner:
            if (!("shard" in target)) return true;
            if (call.replyEpoch > this.maps.current.epoch) yield* this.#awaitMap(call.replyEpoch - 1, call.deadlineMs);
            else pauseMs = yield* this.#pause(pauseMs, call.deadlineMs);
            break;
          case status.retry:
            pauseMs = yield* this.#pause(pauseMs, call.deadlineMs);
            break;
          case status.refused:
            this.#peer(at.server, at.store).drop("it refuses requests");
            break;
          case status.sessionDead:
            this.sessionDied(call.session);
            return true;
          case status.oldSequence:
          case status.malformed:
            this.runtime.log("error", "caller", `${call.message.name}: server ${at.server} answered ${call.status}`);
            call.status = E.IO;
            return true;
          default:
            return true;
        }
      }
      this.counters.retries++;
    }
  }

  *#attempt(call: Call, peer: Peer): Task<Outcome> {
    const bulk = call.data !== undefined && call.data.length > bulkBytesMin;
    if (!peer.gate.tryAcquire() && !(yield* peer.gate.acquire(call.deadlineMs))) return "late";
    if (bulk && !(yield* peer.bulkGate.acquire(call.deadlineMs))) {
      peer.gate.release();
      return "late";
    }
    const ended = peer.submit(call);
    const outcome = ended.settled ? ended.value : (yield ended) as Outcome;
    if (bulk) peer.bulkGate.release();
    peer.gate.release();
    return outcome;
  }

  #giveUp(call: Call): false {
    call.status = E.IO;
    return false;
  }

  #storeOf(target: { server: number; store: number }): { server: number; store: number } | null {
    const entry = this.maps.server(target.server);
    return entry === undefined || target.store >= entry.stores ? null : target;
  }

  *#awaitMap(epoch: number, deadlineMs: number): Task<void> {
    const ms = Math.max(1, Math.min(mapRetryMs, deadlineMs - this.runtime.nowMs()));
    yield* wait(first<void>(this.maps.newer(epoch), this.runtime.sleep(ms)));
  }

  *#awaitSession(deadlineMs: number): Task<void> {
    const renewed = this.#renewed;
    if (renewed === null) return;
    const ms = Math.max(1, deadlineMs - this.runtime.nowMs());
    yield* wait(first<void>(renewed, this.runtime.sleep(ms)));
  }

  /** Sleeps about `pauseMs`; returns how long to sleep the next time. */
  *#pause(pauseMs: number, deadlineMs: number): Task<number> {
    const jittered = pauseMs * (0.5 + this.runtime.random32() / 2 ** 33);
    yield* wait(this.runtime.sleep(Math.max(0, Math.min(jittered, deadlineMs - this.runtime.nowMs()))));
    return Math.min(pauseMsMax, pauseMs * 2);
  }

  #peer(server: number, store: number): Peer {
    const key = server * storesMax + store;
    let peer = this.#peers.get(key);
    if (peer === undefined) {
      peer = new Peer(this, server, store);
      this.#peers.set(key, peer);
    }
    return peer;
  }

  #mapChanged(): void {
    for (const [key, peer] of [...this.#peers]) {
      if (this.maps.server(peer.serverId) === undefined) this.#peers.delete(key);
      peer.mapChanged();
    }
  }

  #takeFreeSlot(call: Call, server: number): boolean {
    const pool = this.#pool(server);
    return pool !== null && this.#giveSlot(call, pool, pool.tryTake());
  }

  *#takeSlot(call: Call, server: number): Task<boolean> {
    const pool = this.#pool(server);
    return pool !== null && this.#giveSlot(call, pool, yield* pool.take(call.deadlineMs));
  }

  #giveSlot(call: Call, pool: SlotPool, slot: number): boolean {
    if (slot === noSlot) return false;
    call.pool = pool;
    call.slot = slot;
    call.sequence = ++this.#sequence;
    return true;
  }

  /** The slots for a server; those of a server that has left the map serve another when all numbers are in use. */
  #pool(server: number): SlotPool | null {
    const known = this.#pools.get(server);
    if (known !== undefined) return known;
    let base = (this.#pools.size * this.#lane.of + this.#lane.index) * slotsPerServer;
    if (base + slotsPerServer > noSlot) {
      const gone = [...this.#pools].find(([id, pool]) => this.maps.server(id) === undefined && pool.gate.idle);
      if (gone === undefined) return null;
      this.#pools.delete(gone[0]);
      base = gone[1].base;
    }
    const pool = new SlotPool(base);
    this.#pools.set(server, pool);
    return pool;
  }

  #endSlot(call: Call, target: Target, settled: boolean): void {
    if (settled) call.pool!.give(call.slot);
    else if (!this.#closed && call.session === this.#session) this.runtime.scheduler.spawn(this.#fence(call, target));
  }

  /** Keeps the slot of a request that was given up from being used until its shard cannot execute it any more. */
  *#fence(lost: Call, target: Target): Task<void> {
    for (;;) {
      const fence = new Call(FENCE, {}, this.runtime.nowMs() + this.ioTimeoutMs);
      fence.session = lost.session;
      fence.shard = lost.shard;
      fence.pool = lost.pool;
      fence.slot = lost.slot;
      fence.sequence = ++this.#sequence;
      this.#tick();
      const answered = yield* this.#deliver(fence, target);
      if (this.#closed || lost.session !== this.#session || fence.status === status.sessionDead) return;
      if (answered) break;
      yield* wait(this.runtime.sleep(fencePauseMs));
    }
    this.hooks.uncertain?.(lost);
    lost.pool!.give(lost.slot);
  }

  #tick(): void {
    if (this.#ticking) return;
    this.#ticking = true;
    this.runtime.scheduler.spawn(this.#sweep());
  }

  *#sweep(): Task<void> {
    for (;;) {
      yield* wait(this.runtime.sleep(tickMs));
      const nowMs = this.runtime.nowMs();
      let active = this.#calls > 0;
      for (const pool of this.#pools.values()) pool.gate.expire(nowMs);
      for (const peer of [...this.#peers.values()]) {
        peer.sweep(nowMs);
        active ||= peer.active;
      }
      if (active && !this.#closed) continue;
      this.#ticking = false;
      return;
    }
  }
}
