/**
 * What operations run in: the store, its namespace, the locks in memory, the clock and the way to other servers.
 * One a store. An operation checks, plans, and ends with {@linkcode Engine.answer}: one record that holds its effect
 * and its reply. Replies leave only after that record is in the log (core/server/server.ts).
 *
 * @module
 */

import { Chunks } from "../data/chunk.ts";
import { E, failed, type Result } from "../errno.ts";
import type { MapHolder } from "../placement/map_holder.ts";
import { primaryOf, storeOfShard, volumeState } from "../placement/map.ts";
import { rootShard } from "../placement/hash.ts";
import type { Caller } from "../protocol/caller.ts";
import { encodeSmall } from "../protocol/codec.ts";
import { type Head, noShard, noSlot } from "../protocol/frame.ts";
import type { Message } from "../protocol/messages.ts";
import type { Runtime, Time } from "../runtime.ts";
import type { Store } from "../store/store.ts";
import { Future, Semaphore, type Task, wait } from "../task.ts";
import { type Attributes, compareTime, inodeFlags, isDirectory, S } from "./attributes.ts";
import {
  inodeKey,
  inodeNumber,
  kind,
  localShard,
  replyKey,
  replyRecord,
  rootSequence,
  sequenceLimit,
  shardOf,
} from "./layout.ts";
import { Leases } from "./leases.ts";
import { LockTable } from "./lock_table.ts";
import { AccessTimes } from "./access_times.ts";
import { Plan } from "./plan.ts";
import { Tree } from "./tree.ts";
import { Intents } from "./intent.ts";
import { Opens } from "./opens.ts";
import { LockService } from "./lock_service.ts";
import { Credit } from "./credit.ts";
import { Reaper } from "./reaper.ts";

/** Files remembered that ended lately. */
const endedMax = 65536;
/** Copies that a store takes part in as the target at once; each has a chunk in memory. */
const copiesMax = 32;
/** Most that a server's clock is believed ahead of one's own. */
const clockAheadMsMax = 500;

/** A request on its way through an operation. */
// deno-lint-ignore no-explicit-any
export interface Request<Q = any> {
  message: Message;
  head: Head;
  body: Q;
  /** The frame's data, owned by the request. */
  data: Uint8Array;
}

/** What an operation answers. `body` goes through the message's reply codec. */
export interface Answer {
  status: number;
  body?: unknown;
  /** Encoded body, when it was stored and must go out byte for byte. With `body` too: it was recorded just now. */
  encoded?: Uint8Array;
  data?: Uint8Array;
  /** Called when `data` has been copied into the link. */
  sent?: () => void;
}

/** An operation: answers at once or as a task. */
// deno-lint-ignore no-explicit-any
export type Operation<Q = any> = (engine: Engine, request: Request<Q>) => Answer | Task<Answer>;

/** An answer without a body. */
export function answerErrno(errno: number): Answer {
  return { status: errno };
}

/** What an engine is made of. */
export interface EngineParts {
  runtime: Runtime;
  store: Store;
  map: MapHolder;
  caller: Caller;
  serverId: number;
  storeIndex: number;
  /** Owner of a new volume's root directory. */
  rootOwner: { uid: number; gid: number };
}

/** See the module's comment. */
export class Engine {
  readonly runtime: Runtime;
  readonly store: Store;
  readonly map: MapHolder;
  readonly caller: Caller;
  readonly serverId: number;
  readonly storeIndex: number;
  readonly tree: Tree;
  readonly chunks: Chunks;
  /** Names that work in progress is changing: `${dir}/${name}`. */
  readonly names = new LockTable();
  /** Names that a rename has taken away and not yet put in their new place. Who lists their directory waits. */
  readonly leaving = new LockTable();
  /** Inodes whose data or size work in progress is changing. */
  readonly inodes = new LockTable();
  readonly intents: Intents;
  readonly opens: Opens;
  readonly locks: LockService;
  readonly leases: Leases;
  readonly credit: Credit;
  readonly reaper: Reaper;
  readonly accessTimes: AccessTimes;
  /** Lets in those who copy. */
  readonly copies = new Semaphore(copiesMax);
  /** Files that ended lately: a write of their far chunks that was on its way must not make a chunk that nobody owns. */
  readonly ended = new RecentSet(endedMax);
  /** Fsyncs under way by inode. `written`: far data came meanwhile, which they may not cover. */
  readonly syncing = new Map<number, Set<{ written: boolean }>>();
  /** Directories that are durable with all their ancestors (inode numbers); see ops/fsync.ts. */
  readonly durable = new Set<number>();
  #rootOwner: { uid: number; gid: number };
  #clockAheadMs = 0;
  #turn = new Future<void>();
  #owners = 0;
  /** The epoch of which `#own` and `#owned` (by shard, 1 or 0) tell. */
  #ownEpoch = -1;
  #own: readonly number[] = [];
  #owned: Uint8Array = new Uint8Array(0);
  #liveEpoch = -1;
  #liveVolumes = new Set<number>();

  constructor(parts: EngineParts) {
    this.runtime = parts.runtime;
    this.store = parts.store;
    this.map = parts.map;
    this.caller = parts.caller;
    this.serverId = parts.serverId;
    this.storeIndex = parts.storeIndex;
    this.#rootOwner = parts.rootOwner;
    this.tree = new Tree(parts.store);
    this.chunks = new Chunks(parts.store);
    this.intents = new Intents(this);
    this.opens = new Opens();
    this.locks = new LockService(parts.runtime);
    this.leases = new Leases(parts.runtime);
    this.credit = new Credit(this);
    this.reaper = new Reaper(this);
    this.accessTimes = new AccessTimes(this);
  }

  /** Shards of the cluster. */
  get shards(): number {
    return this.map.current.shards;
  }

  /** True when this store is the primary of the shard. */
  owns(shard: number): boolean {
    if (this.#ownEpoch !== this.map.current.epoch) this.#indexOwn();
    return this.#owned[shard] === 1;
  }

  /** Shards of which this store is the primary, ascending. */
  ownShards(): readonly number[] {
    if (this.#ownEpoch !== this.map.current.epoch) this.#indexOwn();
    return this.#own;
  }

  #indexOwn(): void {
    const map = this.map.current, entry = this.map.server(this.serverId), own: number[] = [];
    this.#owned = new Uint8Array(map.shards);
    for (let shard = 0; entry !== undefined && shard < map.shards; shard++) {
      if (primaryOf(map, shard) !== this.serverId || storeOfShard(shard, entry.stores) !== this.storeIndex) continue;
      this.#owned[shard] = 1;
      own.push(shard);
    }
    this.#own = own;
    this.#ownEpoch = map.epoch;
  }

  /** True while the map has the volume and it is not being deleted. */
  volumeLives(volume: number): boolean {
    const map = this.map.current;
    if (this.#liveEpoch !== map.epoch) {
      this.#liveEpoch = map.epoch;
      this.#liveVolumes = new Set(map.volumes.filter((v) => v.state === volumeState.live).map((v) => v.id));
    }
    return this.#liveVolumes.has(volume);
  }

  /** The cluster's time: the wall clock, moved forward by what other servers say, 500 ms at most. */
  now(): Time {
    const time = this.runtime.wallTime();
    if (this.#clockAheadMs <= 0) return time;
    const nsec = time.nsec + (this.#clockAheadMs % 1000) * 1e6;
    const sec = time.sec + Math.floor(this.#clockAheadMs / 1000) + Math.floor(nsec / 1e9);
    return { sec, nsec: Math.floor(nsec % 1e9) };
  }

  /** Milliseconds of {@linkcode now}, for frames. */
  nowMs(): number {
    const time = this.now();
    return time.sec * 1000 + time.nsec / 1e6;
  }

  /** A server's frame said `clock`: do not fall behind it by more than can be believed. */
  observeClock(clock: number): void {
    const time = this.runtime.wallTime();
    const ahead = clock - (time.sec * 1000 + time.nsec / 1e6);
    if (ahead > this.#clockAheadMs) this.#clockAheadMs = Math.min(ahead, clockAheadMsMax);
    else if (ahead < 0 && this.#clockAheadMs > 0) this.#clockAheadMs = Math.max(0, this.#clockAheadMs - 1);
  }

  /** A time for a change of `inode`: later than its mtime and ctime, whatever the clocks do. */
  stamp(inode: Attributes): Time {
    const now = this.now();
    const last = compareTime(inode.mtime, inode.ctime) > 0 ? inode.mtime : inode.ctime;
    // A program may set mtime far into the future; only the recent past is pushed forward.
    if (compareTime(now, last) > 0 || last.sec > now.sec + 1) return now;
    return last.nsec === 999_999_999 ? { sec: last.sec + 1, nsec: 0 } : { sec: last.sec, nsec: last.nsec + 1 };
  }

  /** Attributes of an inode here, or ESTALE when it or its volume is gone. Roots of volumes come into being here. */
  inode(inode: number): Result<Attributes> {
    const found = this.tree.attributes(inode) ?? this.#makeRoot(inode);
    if (found === null || !this.volumeLives(found.volume)) return E.STALE;
    return found;
  }

  /** A directory into which names may be put: ENOENT when it is gone, ENOTDIR. */
  directory(inode: number): Result<Attributes> {
    const found = this.inode(inode);
    if (failed(found)) return this.tree.attributes(inode) === null ? E.NOENT : found;
    if (!isDirectory(found.mode)) return E.NOTDIR;
    if ((found.flags & inodeFlags.sealed) !== 0) return E.NOENT;
    return found;
  }

  /** Records a plan and a mutation's reply in one record of the request's shard; the answer carries `body`. */
  answer(request: Request, plan: Plan, body: unknown): Answer {
    const encoded = encodeSmall(request.message.reply, body);
    this.planReply(plan, request.head.shard, request.head, { type: request.message.type, encoded });
    this.commit(request.head.shard, plan, request.head);
    return { status: 0, encoded, body };
  }

  /** Adds the reply slot of a request to a plan. */
  planReply(
    plan: Plan,
    shard: number,
    origin: { session: number; slot: number; sequence: number },
    { type, encoded, status = 0 }: { type: number; encoded: Uint8Array; status?: number },
  ): void {
    if (origin.slot === noSlot) return;
    const record = encodeSmall(replyRecord, { sequence: origin.sequence, type, status, body: encoded });
    plan.put(replyKey(shard, origin.session, origin.slot), record);
  }

  /** Records a plan that no client waits for, or whose reply was planned already. */
  commit(shard: number, plan: Plan, origin?: { session: number; slot: number; sequence: number }): void {
    if (plan.empty) return;
    this.leases.check(plan.inodes, origin?.session ?? plan.changer);
    this.store.commit(shard, {
      epoch: this.map.current.epoch,
      session: origin?.session ?? 0,
      slot: origin?.slot ?? 0,
      sequence: origin?.sequence ?? 0,
      changes: plan.changes,
      charges: plan.charges,
    });
  }

  /** Waits until everything committed so far is in the log. */
  *logged(): Task<void> {
    yield* wait(this.#turn);
  }

  /** The turn's records are in the log. */
  turnLogged(): void {
    const turn = this.#turn;
    this.#turn = new Future<void>();
    turn.resolve();
  }

  /** True while work in progress has a name of a directory locked. */
  nameHeld(dir: number, name: Uint8Array): boolean {
    // Hardly ever is any name locked: then none is put together.
    return this.names.size > 0 && this.names.held(nameLock(dir, name));
  }

  /** True while work in progress has an inode's data or size locked. */
  inodeHeld(inode: number): boolean {
    return this.inodes.size > 0 && this.inodes.held(String(inode));
  }

  /** A fresh name of a lock owner. */
  newOwner(): string {
    return `op${++this.#owners}`;
  }

  /** Calls a store message on every store of a server; false when one did not answer with success. */
  *everyStore(server: number, message: Message, body: unknown): Task<number> {
    const entry = this.map.current.servers.find((s) => s.id === server);
    if (entry === undefined) return E.IO;
    for (let store = 0; store < entry.stores; store++) {
      const reply = yield* this.caller.call(message, { server, store }, body);
      if (reply.status !== 0) return reply.status;
    }
    return 0;
  }

  #makeRoot(inode: number): Attributes | null {
    const sequence = inode % sequenceLimit, shard = shardOf(inode);
    const volume = sequence - rootSequence;
    if (volume <= 0 || !this.volumeLives(volume) || rootShard(volume, this.shards) !== shard || !this.owns(shard)) {
      return null;
    }
    const now = this.now(), plan = new Plan();
    const root: Attributes = {
      ...this.newAttributes(inodeNumber(shard, sequence), S.IFDIR | 0o755, volume, now),
      uid: this.#rootOwner.uid,
      gid: this.#rootOwner.gid,
      parent: inode,
    };
    plan.attributes(root);
    this.tree.newDirectory(plan, inode, this.randomBytes(16));
    plan.charge(volume, 0, 1);
    this.commit(shard, plan);
    return root;
  }

  /** Attributes of a new inode, owned by nobody yet. */
  newAttributes(inode: number, mode: number, volume: number, now: Time): Attributes {
    const directory = isDirectory(mode);
    return {
      inode,
      mode,
      nlink: directory ? 2 : 1,
      uid: 0,
      gid: 0,
      rdev: 0,
      size: directory ? 4096 : 0,
      blocks: directory ? 8 : 0,
      atime: now,
      mtime: now,
      ctime: now,
      btime: now,
      version: 0,
      gen: 0,
      volume,
      parent: 0,
      entries: 0,
      flags: 0,
    };
  }

  /** `count` unpredictable bytes. */
  randomBytes(count: number): Uint8Array {
    const out = new Uint8Array(count);
    for (let i = 0; i < count; i++) out[i] = this.runtime.random32();
    return out;
  }

  /** Writes down that a session has come, so that after a restart the store waits for its claims. */
  rememberSession(session: number): void {
    const key = sessionKey(session);
    if (this.store.get(key) !== undefined) return;
    const plan = new Plan();
    plan.put(key, new Uint8Array(1));
    this.commit(localShard, plan);
  }
}

/** Key under which a store remembers that a session holds something in it. */
export function sessionKey(session: number): Uint8Array {
  return inodeKey(localShard, kind.session, session);
}

/** Name of the lock on a directory's entry. */
export function nameLock(dir: number, name: Uint8Array): string {
  let text = dir + "/";
  for (let i = 0; i < name.length; i++) text += String.fromCharCode(name[i]);
  return text;
}

/** True when the request goes to a store as a whole. */
export function forStore(head: Head): boolean {
  return head.shard === noShard;
}

/** The numbers added last, up to a limit. */
class RecentSet {
  #numbers = new Set<number>();

  constructor(readonly limit: number) {}

  add(number: number): void {
    this.#numbers.add(number);
    if (this.#numbers.size > this.limit) this.#numbers.delete(this.#numbers.values().next().value!);
  }

  has(number: number): boolean {
    return this.#numbers.has(number);
  }
}
