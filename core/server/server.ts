/**
 * A server's store as its peers see it: links, handshakes, requests in and answers out.
 *
 * Frames are checked, routed and executed (core/meta/ops); answers are kept until the turn's records are in the log,
 * then sent: {@linkcode StoreServer.endOfTurn} is called by the reactor after every turn. A store whose log cannot be
 * written sends nothing any more.
 *
 * A mutation is executed at most once: the slot says whether it runs now (wait for its answer), was executed (its
 * stored answer goes out again) or is older than what came since (refused).
 *
 * @module
 */

import { E } from "../errno.ts";
import { type Answer, answerErrno, Engine, type Request, sessionKey } from "../meta/engine.ts";
import type { Attributes } from "../meta/attributes.ts";
import { type Intent, intentKind } from "../meta/intent.ts";
import { after, Key, keyNumber, kind, localShard, replyKey, replyRecord, shardOf } from "../meta/layout.ts";
import { linkStory, unlinkStory } from "../meta/ops/unlink.ts";
import { makeDirectoryStory } from "../meta/ops/mkdir.ts";
import { removeDirectoryStory } from "../meta/ops/rmdir.ts";
import { renameStory } from "../meta/ops/rename.ts";
import { truncateStory } from "../meta/ops/setattr.ts";
import { Plan } from "../meta/plan.ts";
import type { Meter } from "../metrics/meter.ts";
import { volumeState } from "../placement/map.ts";
import type { MapHolder } from "../placement/map_holder.ts";
import { Caller } from "../protocol/caller.ts";
import { decode, DecodeError, Reader, Writer } from "../protocol/codec.ts";
import {
  beginFrame,
  finishFrame,
  type Frame,
  frameFlags,
  type Head,
  noShard,
  noSlot,
  readFrame,
  status,
} from "../protocol/frame.ts";
import { randomNonce, ServerHandshake } from "../protocol/hello.ts";
import {
  CREATE,
  GRANTED,
  HELLO,
  type Message,
  messageOf,
  peerKind,
  PROVE,
  READ,
  READDIR,
  READLINK,
  RECALL,
  RECLAIM,
  RENAME,
  RMDIR,
  STEP,
  TMPFILE,
} from "../protocol/messages.ts";
import type { Link, Network, Runtime } from "../runtime.ts";
import type { Store } from "../store/store.ts";
import { type Future, type Task, wait } from "../task.ts";
import { fieldsErrno, operationOf } from "./operations.ts";
import { grantLeases } from "./grant.ts";
import { Slots } from "./slots.ts";
import { sweepVolume } from "./sweep.ts";
import { heldLocks, touched } from "./touches.ts";

/** Requests in progress in a store; more are told to come again. */
export const requestsMax = 16384;
/** Links a store has open at most; more are closed at once. */
export const linksMax = 16384;
/** A link on which nobody has proved who it is after this time is closed. */
export const handshakeMsMax = 10_000;
/** Reply records removed in one record when their session is dead. */
const repliesPerRecord = 1024;

/** What a store's server is made of. */
export interface StoreServerParts {
  runtime: Runtime;
  network: Network;
  store: Store;
  maps: MapHolder;
  clusterId: string;
  serverId: number;
  storeIndex: number;
  /** This server's own session with the manager, for what it asks of other servers. */
  session: number;
  /** The cluster's secret; null without one. */
  secret: Uint8Array | null;
  /** Differs at every start of the store. */
  incarnation: number;
  /** Owner of a new volume's root directory. */
  rootOwner: { uid: number; gid: number };
  ioTimeoutMs?: number;
  /** The store has failed for good. */
  onFailed?: (reason: string) => void;
  /** Measures requests, by message type, from the turn that received them until their answers are sent. */
  meter?: Meter;
}

interface Connection {
  link: Link;
  handshake: ServerHandshake;
  open: boolean;
}

interface Asker {
  connection: Connection;
  id: number;
  /** When the request arrived; 0: nobody measures it. */
  sinceMs: number;
}

/** A request whose operation waits for something. */
interface Running {
  request: Request;
  asker: Asker;
  /** Its data's memory. */
  buffer: Uint8Array | null;
  /** What it may change. */
  inodes: readonly number[];
  /** Times it was started over. */
  attempts: number;
}

interface Outgoing {
  asker: Asker;
  message: Message;
  answer: Answer;
  flags: number;
  /** Bits of leaseBits. */
  leases?: number;
}

/** A file that a CREATE made and opened before the start, while its asker has not heard of it. */
interface Doubt {
  slot: number;
  sequence: number;
  inode: number;
}

/** Figures of a store's server. */
export interface ServerCounters {
  requests: number;
  malformed: number;
  refused: number;
  duplicates: number;
  links: number;
}

/** Of a request that only its intent remembers. */
const resumedHead: Head = {
  type: 0,
  flags: 0,
  id: 0,
  epoch: 0,
  status: 0,
  session: 0,
  sequence: 0,
  slot: noSlot,
  shard: noShard,
  leases: 0,
  clock: 0,
};
/** Of the frame that is being sent. */
const replyHead: Head = { ...resumedHead };
const resumedData = new Uint8Array(0);
const nothingTouched: readonly number[] = [];
/** Messages that change nothing but, now and then, an atime. */
const movesAccessTime: ReadonlySet<Message> = new Set([READ, READDIR, READLINK]);

/** See the module's comment. */
export class StoreServer {
  readonly engine: Engine;
  readonly caller: Caller;
  readonly counters: ServerCounters = { requests: 0, malformed: 0, refused: 0, duplicates: 0, links: 0 };
  /** Volumes in deletion of which nothing is left here. */
  readonly swept = new Set<number>();
  readonly #parts: StoreServerParts;
  readonly #runtime: Runtime;
  readonly #connections = new Set<Connection>();
  readonly #bySession = new Map<number, Connection>();
  readonly #slots = new Slots<Asker, Answer>();
  readonly #loaded = new Set<number>();
  /** Sessions that had reply records when their shards were taken up. */
  readonly #answeredBefore = new Set<number>();
  readonly #sweeping = new Set<number>();
  /** By session. */
  readonly #doubts = new Map<number, Doubt[]>();
  readonly #writer = new Writer(64 * 1024);
  #outbox: Outgoing[] = [];
  #serving = false;
  #active = 0;
  #failed = false;

  constructor(parts: StoreServerParts) {
    this.#parts = parts;
    this.#runtime = parts.runtime;
    this.caller = new Caller({
      runtime: parts.runtime,
      network: parts.network,
      maps: parts.maps,
      secret: parts.secret,
      kind: peerKind.server,
      session: parts.session,
      // All stores of a server share its session: each has slots of its own.
      lane: { index: parts.storeIndex, of: parts.maps.server(parts.serverId)?.stores ?? 1 },
      ioTimeoutMs: parts.ioTimeoutMs,
      hooks: { clockMs: () => this.engine.nowMs(), heardClock: (clock) => this.engine.observeClock(clock) },
    });
    this.engine = new Engine({
      runtime: parts.runtime,
      store: parts.store,
      map: parts.maps,
      caller: this.caller,
      serverId: parts.serverId,
      storeIndex: parts.storeIndex,
      rootOwner: parts.rootOwner,
    });
    this.engine.locks.onGranted = (session, inode, ticket) => this.#push(session, GRANTED, { inode, ticket });
    this.engine.leases.onRecall = (session, inode, grant) => this.#push(session, RECALL, { inode, grant });
    this.#registerStories();
    parts.maps.onChange(() => this.#mapChanged());
  }

  /** Takes up the store's shards: unfinished intents, orphans, sessions to wait for. Then requests are served. */
  start(): void {
    this.engine.store.openShard(localShard);
    this.engine.opens.await(this.#rememberedSessions());
    this.engine.leases.await(this.#rememberedSessions());
    this.#mapChanged();
    this.#runtime.scheduler.spawn(this.engine.store.maintain());
    this.#runtime.scheduler.spawn(this.engine.intents.tidy());
    this.#serveSoon();
  }

  /** Requests that are being executed. */
  get active(): number {
    return this.#active;
  }

  /** Links of peers. */
  get links(): number {
    return this.#connections.size;
  }

  /** Clients that are connected. */
  get clients(): number {
    return this.#bySession.size;
  }

  /** A peer has connected. */
  accept(link: Link): void {
    if (this.#connections.size >= linksMax || this.#failed) return link.close();
    const { clusterId, serverId, storeIndex: store, incarnation, secret } = this.#parts;
    const identity = { clusterId, serverId, store, incarnation, secret };
    const handshake = new ServerHandshake(identity, randomNonce(() => this.#runtime.random32()));
    const connection = { link, handshake, open: true };
    this.#connections.add(connection);
    this.counters.links++;
    link.onFrame = (bytes) => this.#received(connection, bytes);
    link.onClose = () => this.#closed(connection);
    this.#runtime.scheduler.spawn(this.#expectHandshake(connection));
  }

  /** The turn is over: writes its records to the log, then sends its answers. errno; not 0: nothing was sent. */
  endOfTurn(): number {
    if (this.#failed) return E.IO;
    const errno = this.engine.store.endOfTurn();
    if (errno !== 0) {
      this.#fail(`the log cannot be written (errno ${errno})`);
      return errno;
    }
    this.engine.turnLogged();
    if (this.#outbox.length === 0) return 0;
    const outbox = this.#outbox;
    this.#outbox = [];
    for (const outgoing of outbox) this.#send(outgoing);
    this.#measure(outbox);
    return 0;
  }

  #measure(sent: readonly Outgoing[]): void {
    const { meter } = this.#parts;
    if (meter === undefined) return;
    const nowMs = meter.nowMs();
    for (const { asker, message } of sent) if (asker.sinceMs > 0) meter.ended(message.type, asker.sinceMs, nowMs);
  }

  /** Stops serving: closes all links. The store is closed by its owner, when no request is active any more. */
  stop(): void {
    if (!this.#failed) this.engine.accessTimes.record();
    this.#serving = false;
    this.#failed = true;
    for (const connection of [...this.#connections]) this.#close(connection);
    this.caller.close();
  }

  /** Nothing is served before resumed intents have their locks: they take them in their first step, which comes before. */
  #serveSoon(): void {
    this.#serving = false;
    this.#runtime.scheduler.spawn(this.#serve());
  }

  *#serve(): Task<void> {
    yield* this.engine.logged();
    if (this.#failed) return;
    this.#serving = true;
    this.engine.reaper.kick();
  }

  #registerStories(): void {
    const { intents } = this.engine;
    intents.register(intentKind.makeDirectory, makeDirectoryStory);
    intents.register(intentKind.removeDirectory, removeDirectoryStory);
    intents.register(intentKind.unlink, unlinkStory);
    intents.register(intentKind.link, linkStory);
    intents.register(intentKind.rename, renameStory);
    intents.register(intentKind.truncate, truncateStory);
  }

  #rememberedSessions(): number[] {
    const sessions: number[] = [], prefix = new Key(localShard, kind.session, 3).done();
    this.engine.store.scan(prefix, after(prefix), (key) => {
      sessions.push(keyNumber(key, 3, 7));
      return true;
    });
    return sessions;
  }

  /** Sessions with reply records in a shard: from one session's first record on to the next session. */
  #answeredSessions(shard: number): number[] {
    const sessions: number[] = [], end = new Key(shard, kind.reply + 1, 3).done();
    for (let next = 0; next >= 0;) {
      const from = new Key(shard, kind.reply, 10).u56(next).done();
      next = -1;
      this.engine.store.scan(from, end, (key) => {
        const session = keyNumber(key, 3, 7);
        sessions.push(session);
        next = session + 1;
        return false;
      });
    }
    return sessions;
  }

  #mapChanged(): void {
    const map = this.#parts.maps.current, { engine } = this;
    let taken = false;
    for (const shard of engine.ownShards()) {
      if (this.#loaded.has(shard)) continue;
      this.#loaded.add(shard);
      taken = true;
      engine.store.openShard(shard);
      engine.intents.load(shard, (intent, run) => this.#resume(intent, run));
      engine.reaper.load(shard);
      for (const session of this.#answeredSessions(shard)) this.#answeredBefore.add(session);
    }
    if (taken && this.#serving) this.#serveSoon();
    const remembered = [...engine.opens.awaited, ...this.#rememberedSessions(), ...this.#answeredBefore];
    const known = new Set([...remembered, ...this.#slots.sessions()]);
    for (const session of known) if (this.#parts.maps.sessionIsDead(session)) this.#sessionDied(session);
    for (const volume of map.volumes) {
      if (volume.state !== volumeState.deleting || this.#sweeping.has(volume.id)) continue;
      this.#sweeping.add(volume.id);
      this.#runtime.scheduler.spawn(this.#sweep(volume.id));
    }
    for (const volume of this.swept) if (!map.volumes.some((v) => v.id === volume)) this.swept.delete(volume);
  }

  /** Who does not say in time who it is makes room for others. */
  *#expectHandshake(connection: Connection): Task<void> {
    yield* wait(this.#runtime.sleep(handshakeMsMax));
    if (connection.handshake.peer === null) this.#close(connection);
  }

  *#sweep(volume: number): Task<void> {
    yield* sweepVolume(this.engine, volume);
    yield* this.engine.logged();
    this.swept.add(volume);
    this.#sweeping.delete(volume);
  }

  /** An intent found at start goes on; a retry of its request waits for the same answer. */
  #resume(intent: Intent, run: Task<Answer>): void {
    const { origin } = intent;
    if (origin.slot !== noSlot) {
      const nobody = { connection: { open: false } as Connection, id: 0, sinceMs: 0 };
      this.#slots.begin(origin.session, origin.slot, origin.sequence, nobody);
    }
    const message = messageOf(intent.type)!, { engine } = this;
    const inodes = touched(engine, {
      message,
      head: { ...resumedHead, shard: intent.shard },
      body: decode(message.request, intent.request),
      data: resumedData,
    });
    this.#active++;
    engine.leases.begin(inodes);
    this.#runtime.scheduler.spawn(this.#finishResumed(intent, run, inodes));
  }

  *#finishResumed({ origin, type }: Intent, run: Task<Answer>, inodes: readonly number[]): Task<void> {
    const answer = yield* run, message = messageOf(type)!;
    this.#active--;
    this.engine.leases.end(inodes);
    // EBUSY: nothing was done. Those who wait are told to ask again, which executes the request anew.
    const told = answer.status === E.BUSY ? answerErrno(status.retry) : answer;
    for (const asker of this.#slots.end(origin.session, origin.slot, origin.sequence, unrecorded(told))) {
      this.#outbox.push({ asker, message, answer: told, flags: frameFlags.reply });
    }
  }

  #sessionDied(session: number): void {
    const { engine } = this;
    this.#endDoubts(session, () => true);
    for (const inode of engine.opens.drop(session)) engine.reaper.consider(inode);
    engine.locks.dropSession(session);
    this.#slots.drop(session);
    this.#answeredBefore.delete(session);
    const connection = this.#bySession.get(session);
    this.#bySession.delete(session);
    if (connection !== undefined) this.#close(connection);
    // Its leases may still be in use: the longest of them decides when grace is over for them.
    if (engine.opens.claimed(session)) engine.reaper.kick();
    this.#runtime.scheduler.spawn(this.#forgetReplies(session));
  }

  /** Removes a dead session's reply records, then the memory of it. */
  *#forgetReplies(session: number): Task<void> {
    const { engine } = this;
    for (const shard of engine.ownShards()) {
      const prefix = new Key(shard, kind.reply, 10).u56(session).done();
      for (let more = true; more;) {
        const plan = new Plan();
        engine.store.scan(prefix, after(prefix), (key) => {
          plan.remove(key.slice());
          return plan.changes.length < repliesPerRecord;
        });
        more = plan.changes.length >= repliesPerRecord;
        engine.commit(shard, plan);
      }
      if (shard % 64 === 63) yield* wait(this.#runtime.sleep(1));
    }
    const plan = new Plan(), key = sessionKey(session);
    if (engine.store.get(key) !== undefined) plan.remove(key);
    engine.commit(localShard, plan);
  }

  #received(connection: Connection, bytes: Uint8Array): void {
    if (!connection.open) return;
    let frame: Frame;
    try {
      frame = readFrame(bytes);
    } catch (error) {
      return this.#malformed(connection, error);
    }
    const { head } = frame, message = messageOf(head.type);
    if ((head.flags & frameFlags.reply) !== 0) return;
    if (message === undefined) return this.#reply(connection, head, HELLO, answerErrno(status.malformed));
    let body: unknown;
    try {
      body = message.request.read(frame.body);
      frame.body.finish();
    } catch (error) {
      return this.#malformed(connection, error);
    }
    this.#dispatch(connection, { message, head, body, data: frame.data });
  }

  #malformed(connection: Connection, error: unknown): void {
    if (!(error instanceof DecodeError)) throw error;
    this.counters.malformed++;
    this.#runtime.log("warn", "server", `bad frame from ${connection.link.peer}: ${error.message}`);
    this.#close(connection);
  }

  #dispatch(connection: Connection, request: Request): void {
    const { message, head } = request;
    if (message === HELLO || message === PROVE) return this.#shakeHands(connection, request);
    const refused = this.#check(connection, request);
    if (refused !== 0) return this.#reply(connection, head, message, answerErrno(refused));
    this.counters.requests++;
    if (message === RECLAIM) return this.#reclaim(connection, request);
    const asker = { connection, id: head.id, sinceMs: this.#runtime.nowMs() };
    if (!message.mutation) return this.#run(request, asker);
    if (head.slot === noSlot) return this.#reply(connection, head, message, answerErrno(status.malformed));
    const slot = this.#slots.begin(head.session, head.slot, head.sequence, asker);
    if (slot !== "run") this.counters.duplicates++;
    if (slot === "wait") return;
    if (slot === "old") return this.#reply(connection, head, message, answerErrno(status.oldSequence));
    if (slot === "busy") return this.#reply(connection, head, message, answerErrno(status.retry));
    const stored = this.#stored(head, message);
    const again = stored === null || this.#openAgain(request, stored) ? stored : null;
    if (this.#doubts.size > 0) {
      this.#endDoubts(head.session, ({ slot, sequence }) => slot === head.slot && sequence <= head.sequence);
    }
    if (again !== null) return this.#answered(request, asker, again);
    const kept = this.#slots.kept(head.session, head.slot);
    if (kept !== null) return this.#tell(request, asker, kept, 0);
    this.#run(request, asker);
  }

  /** Why a request is not executed; 0 when it is. */
  #check(connection: Connection, request: Request): number {
    const { message, head } = request, { peer } = connection.handshake;
    if (peer === null) {
      this.counters.refused++;
      return status.refused;
    }
    if (peer.kind === peerKind.server) this.engine.observeClock(head.clock);
    else if (head.session !== peer.session) return status.refused;
    const map = this.#parts.maps.current;
    this.#parts.maps.heard(head.epoch);
    // A peer with a newer map may ask for a volume that this one does not know: no answer until it is here.
    if (head.epoch > map.epoch) return status.retry;
    if (peer.kind !== peerKind.admin && this.#parts.maps.sessionIsDead(head.session)) return status.sessionDead;
    if (!this.#serving) return status.retry;
    if (message === RECLAIM) return 0;
    const entry = operationOf(message.type);
    if (entry === undefined) return status.malformed;
    if (this.#active >= requestsMax) return status.retry;
    if (entry.route === "store") return head.shard === noShard ? 0 : status.malformed;
    if (head.shard >= map.shards) return status.malformed;
    if (entry.route !== "shard" && shardOf(request.body[entry.route]) !== head.shard) return status.malformed;
    return this.engine.owns(head.shard) ? fieldsErrno(entry, request.body, map.shards) : status.wrongOwner;
  }

  /** The answer a slot has for this very request, if it was executed before. */
  #stored(head: Head, message: Message): Answer | null {
    const value = this.engine.store.get(replyKey(head.shard, head.session, head.slot));
    if (value === undefined) return null;
    const sequence = new Reader(value).u53();
    if (sequence < head.sequence) return null;
    const record = decode(replyRecord, value);
    // Higher: the slot has moved on (or was fenced) before this store was started; the request must not take effect now.
    if (record.sequence > head.sequence) return answerErrno(status.oldSequence);
    this.counters.duplicates++;
    if (record.type !== message.type) return answerErrno(status.malformed);
    return { status: record.status, encoded: record.body };
  }

  /**
   * A create that was recorded before a restart: what it opened was open in memory only. False when nothing is left of
   * it: a file without a name, which ended because nobody claimed it. Then it is to be done anew.
   */
  #openAgain({ message, body, head }: Request, stored: Answer): boolean {
    if (stored.status !== 0 || stored.encoded === undefined) return true;
    if (message !== CREATE && message !== TMPFILE) return true;
    const { attributes } = decode<{ attributes: Attributes | null }>(message.reply, stored.encoded);
    if (body.openId === 0 || attributes === null) return true;
    if (message === TMPFILE && this.engine.tree.attributes(attributes.inode) === null) return false;
    this.engine.opens.open(head.session, attributes.inode, body.openId);
    return true;
  }

  /** What a session's unanswered CREATEs have made and opened lives until they are answered, again. */
  #beginDoubts(session: number, creating: { shard: number; slot: number; sequence: number }[]): void {
    const { engine } = this, doubts: Doubt[] = [];
    for (const { shard, slot, sequence } of creating) {
      const value = engine.store.get(replyKey(shard, session, slot));
      const record = value === undefined ? null : decode(replyRecord, value);
      if (record === null || record.sequence !== sequence || record.type !== CREATE.type) continue;
      const { inode } = decode(CREATE.reply, record.body);
      doubts.push({ slot, sequence, inode });
      engine.opens.doubt(inode);
    }
    if (doubts.length > 0) this.#doubts.set(session, [...this.#doubts.get(session) ?? [], ...doubts]);
  }

  /** A request has been answered when it has been asked for again, or when its slot has gone on. */
  #endDoubts(session: number, over: (doubt: Doubt) => boolean): void {
    const doubts = this.#doubts.get(session);
    if (doubts === undefined) return;
    const left = doubts.filter((doubt) => !over(doubt));
    if (left.length > 0) this.#doubts.set(session, left);
    else this.#doubts.delete(session);
    for (const doubt of doubts.filter(over)) {
      this.engine.opens.certain(doubt.inode);
      this.engine.reaper.consider(doubt.inode);
    }
  }

  #run(request: Request, asker: Asker): void {
    const running: Running = { request, asker, buffer: null, inodes: nothingTouched, attempts: 0 };
    if (!request.message.mutation && !movesAccessTime.has(request.message)) return this.#execute(running);
    if (heldLocks(this.engine, request).length === 0) {
      running.inodes = touched(this.engine, request);
      if (!this.engine.leases.held(running.inodes, changerOf(request))) return this.#execute(running);
    }
    running.buffer = this.#keepData(request);
    this.#active++;
    this.#runtime.scheduler.spawn(this.#executeLater(running));
  }

  /** Waits until no name of the request is locked and nobody else holds a lease on what it changes, then executes it. */
  *#executeLater(running: Running): Task<void> {
    const { request } = running, { names, leases, intents } = this.engine, session = changerOf(request);
    if (running.attempts > 0) yield* intents.backOff(running.attempts);
    for (;;) {
      const locks = heldLocks(this.engine, request);
      for (const lock of locks) yield* names.settled(lock);
      if (locks.length > 0) continue;
      const inodes = running.inodes = touched(this.engine, request);
      if (!leases.held(inodes, session)) break;
      leases.begin(inodes);
      yield* leases.clear(inodes, session);
      leases.end(inodes);
    }
    this.#active--;
    this.#execute(running);
  }

  /** Executes a request as far as it goes without waiting: what was found out about it just now still holds. */
  #execute(running: Running): void {
    const { request, inodes } = running, { atOnce, operation } = operationOf(request.message.type)!;
    if (request.data.length > 0 && running.buffer === null) {
      const now = atOnce === null ? null : atOnce(this.engine, request);
      if (now !== null) return this.#executed(running, now);
      running.buffer = this.#keepData(request);
    }
    const answer = operation(this.engine, request);
    if ("status" in answer) return this.#executed(running, answer);
    const first = answer.next();
    if (first.done) return this.#executed(running, first.value);
    this.#active++;
    this.engine.leases.begin(inodes);
    this.#runtime.scheduler.spawn(this.#finish(running, answer, first.value));
  }

  *#finish(running: Running, run: Task<Answer>, waitsFor: Future<unknown>): Task<void> {
    let at = run.next(yield waitsFor);
    while (!at.done) at = run.next(yield at.value);
    this.#active--;
    this.engine.leases.end(running.inodes);
    this.#executed(running, at.value);
  }

  #executed(running: Running, answer: Answer): void {
    const { request, asker, buffer } = running;
    // It met a lock where it may not wait, has done nothing, and starts over.
    if (answer.status === E.BUSY && (request.message === RENAME || request.message === RMDIR)) {
      running.attempts++;
      this.#active++;
      this.#runtime.scheduler.spawn(this.#executeLater(running));
      return;
    }
    if (buffer !== null) this.engine.store.container.release(buffer);
    this.#answered(request, asker, answer);
  }

  /** Moves the frame's data, which lives only as long as the frame, to memory of the request's own. */
  #keepData(request: Request): Uint8Array | null {
    const { data } = request;
    if (data.length === 0) return null;
    const buffer = this.engine.store.container.allocate(data.length);
    buffer.set(data);
    request.data = buffer.subarray(0, data.length);
    return buffer;
  }

  #answered(request: Request, asker: Asker, answer: Answer): void {
    // A store that has failed has recorded nothing: what it says of mutations is EIO.
    const failed = request.message.mutation && this.engine.store.failure !== 0;
    const told = failed ? answerErrno(E.IO) : ownStatus(answer);
    this.#tell(request, asker, told, this.#grant(request, asker, told));
  }

  /** Sends an answer to all who wait for it. `leases`: bits of leaseBits, for the asker; an answer of before grants none. */
  #tell(request: Request, asker: Asker, told: Answer, leases: number): void {
    const { message, head } = request;
    const askers = message.mutation
      ? this.#slots.end(head.session, head.slot, head.sequence, unrecorded(told))
      : [asker];
    for (const one of askers) {
      const granted = one.connection === asker.connection && one.id === asker.id ? leases : 0;
      this.#outbox.push({ asker: one, message, answer: told, flags: frameFlags.reply, leases: granted });
    }
  }

  /** Grants the leases that go with an answer: bits of leaseBits. Only to clients, on the link that recalls go to. */
  #grant(request: Request, { connection }: Asker, answer: Answer): number {
    const { session } = request.head;
    if (connection.handshake?.peer?.kind !== peerKind.client) return 0;
    return this.#bySession.get(session) === connection ? grantLeases(this.engine.leases, request, answer) : 0;
  }

  #reply(connection: Connection, head: Head, message: Message, answer: Answer): void {
    this.#outbox.push({ asker: { connection, id: head.id, sinceMs: 0 }, message, answer, flags: frameFlags.reply });
  }

  #send({ asker, message, answer, flags, leases = 0 }: Outgoing): void {
    const { connection, id } = asker, writer = this.#writer;
    if (!connection.open) return answer.sent?.();
    replyHead.type = message.type;
    replyHead.flags = flags;
    replyHead.id = id;
    replyHead.epoch = this.#parts.maps.current.epoch;
    replyHead.status = answer.status;
    replyHead.leases = leases;
    replyHead.clock = this.engine.nowMs();
    beginFrame(writer, replyHead);
    if (answer.encoded !== undefined) writer.raw(answer.encoded);
    else if (answer.body !== undefined) {
      (flags === frameFlags.push ? message.request : message.reply).write(writer, answer.body);
    }
    connection.link.send(finishFrame(writer, answer.data?.length ?? 0), answer.data);
    answer.sent?.();
  }

  #push(session: number, message: Message, body: unknown): void {
    const connection = this.#bySession.get(session);
    if (connection === undefined) return;
    this.#outbox.push({
      asker: { connection, id: 0, sinceMs: 0 },
      message,
      answer: { status: 0, body },
      flags: frameFlags.push,
    });
  }

  #shakeHands(connection: Connection, request: Request): void {
    const { handshake } = connection, { head, message, body } = request;
    if (message === HELLO) {
      const { status: errno, reply } = handshake.onHello(body);
      return this.#greet(
        connection,
        head,
        message,
        reply === undefined ? answerErrno(errno) : { status: 0, body: reply },
      );
    }
    const errno = handshake.onProve(body.proof);
    const session = handshake.peer?.session ?? 0;
    if (errno === 0 && handshake.peer!.kind === peerKind.client) this.#bySession.set(session, connection);
    this.#greet(connection, head, message, errno === 0 ? { status: 0, body: {} } : answerErrno(errno));
  }

  #greet(connection: Connection, head: Head, message: Message, answer: Answer): void {
    if (answer.status !== 0) {
      this.counters.refused++;
      answer.data = new TextEncoder().encode(connection.handshake.reason);
      this.#runtime.log("warn", "server", `refused ${connection.link.peer}: ${connection.handshake.reason}`);
    }
    this.#reply(connection, head, message, answer);
  }

  #reclaim(connection: Connection, request: Request): void {
    const { engine } = this, { head, body } = request, { session } = head;
    for (const { inode, openId } of body.opens) engine.opens.open(session, inode, openId);
    for (const { inode, lock } of body.locks) engine.locks.claim(inode, { ...lock, session });
    if (body.last) {
      engine.rememberSession(session);
      this.#beginDoubts(session, body.creating);
      if (engine.opens.claimed(session)) engine.reaper.kick();
      engine.leases.claimed(session);
    }
    this.#reply(connection, head, RECLAIM, { status: 0, body: {} });
  }

  #close(connection: Connection): void {
    if (!connection.open) return;
    this.#closed(connection);
    connection.link.close();
  }

  #closed(connection: Connection): void {
    connection.open = false;
    this.#connections.delete(connection);
    const session = connection.handshake.peer?.session ?? 0;
    if (this.#bySession.get(session) === connection) this.#bySession.delete(session);
  }

  #fail(reason: string): void {
    if (this.#failed) return;
    this.#runtime.log("error", "server", `store ${this.#parts.storeIndex}: ${reason}`);
    this.stop();
    this.#parts.onFailed?.(reason);
  }
}

/** The answer, if it is final and no record holds it; what asks for another attempt is not final. */
function unrecorded(answer: Answer): Answer | null {
  const again = answer.status === status.retry || answer.status === status.wrongOwner;
  return again || answer.encoded !== undefined ? null : { status: answer.status, body: answer.body };
}

/** Whose leases a change leaves alone: the asker's own. A step's asker is a server: everybody's are taken back. */
function changerOf(request: Request): number {
  return request.message === STEP ? 0 : request.head.session;
}

/** What another server said of this one's session or request is not for the asker, who would take it as its own. */
function ownStatus(answer: Answer): Answer {
  const own = answer.status < status.wrongOwner || answer.status === status.retry || answer.status === status.staleGen;
  return own ? answer : answerErrno(status.retry);
}
