/**
 * One store of one server as its callers see it: the link, opened when it is needed and again when it is lost; the
 * handshake and the claims that come first; the requests in flight on it. A peer sends each call once for each
 * {@linkcode Peer.submit} (and again while its reply is overdue); whether to try elsewhere is the caller's decision.
 *
 * Life of a link: HELLO, PROVE, RECLAIM if the store was started since the last one, then requests, many at a time.
 *
 * @module
 */

import { errnoName } from "../errno.ts";
import { serverState } from "../placement/map.ts";
import type { Link } from "../runtime.ts";
import { Future, type Task, wait } from "../task.ts";
import { Call, type CallerContext, type Outcome } from "./call.ts";
import { DecodeError, Writer } from "./codec.ts";
import { beginFrame, finishFrame, type Frame, frameFlags, type Head, readFrame, status } from "./frame.ts";
import { Gate } from "./gate.ts";
import { ClientHandshake, randomNonce } from "./hello.ts";
import { HELLO, type Message, PING, PROVE, RECLAIM } from "./messages.ts";

/** Requests in flight and waiting for a link, to one store; more wait at {@linkcode Peer.gate}. */
export const callsPerPeerMax = 256;
/** Requests with more data than this go through {@linkcode Peer.bulkGate} too. */
export const bulkBytesMin = 64 * 1024;
/** Requests with much data under way to one store: 16 MiB at most. */
export const bulkCallsPerPeerMax = 16;
/** Each message of a handshake is answered within this time or the link is given up. */
export const handshakeTimeoutMs = 3_000;
/** A link that has been silent for this long while something is expected of it is asked whether it lives. */
export const pingIntervalMs = 5_000;
const backoffMsMin = 10;
const backoffMsMax = 500;
const reclaimRetryMs = 50;
/** Longest text kept from a refusal. */
const reasonBytesMax = 512;

const writer = new Writer(4096);
const head: Head = {
  type: 0,
  flags: 0,
  id: 0,
  epoch: 0,
  status: 0,
  session: 0,
  sequence: 0,
  slot: 0,
  shard: 0,
  leases: 0,
  clock: 0,
};
const nothing = {};

/** See the module's comment. */
export class Peer {
  readonly gate = new Gate(callsPerPeerMax);
  readonly bulkGate = new Gate(bulkCallsPerPeerMax);
  /** Why the peer refused us last, "" if it did not. */
  refusal = "";

  #context: CallerContext;
  #link: Link | null = null;
  #address = "";
  #ready = false;
  #opening = false;
  #closed = false;
  #wanted = false;
  #failures = 0;
  #incarnation = -1;
  #claimedSession = -1;
  #nextId = 1;
  #sent = new Map<number, Call>();
  #queued: Call[] = [];
  #heardAtMs = 0;
  #pingedAtMs = 0;

  constructor(context: CallerContext, readonly serverId: number, readonly store: number) {
    this.#context = context;
  }

  /** Sends a call now, or as soon as there is a link. The future tells how this attempt ended. */
  submit(call: Call): Future<Outcome> {
    const outcome = call.outcome = new Future<Outcome>();
    call.id = 0;
    if (this.#closed) outcome.resolve("lost");
    else if (this.#ready) this.#transmit(call);
    else {
      this.#queued.push(call);
      this.#open();
    }
    return outcome;
  }

  /** True while something is under way or the link is to be kept: {@linkcode sweep} has work. */
  get active(): boolean {
    return this.#sent.size > 0 || this.#queued.length > 0 || this.#opening || this.#keep || !this.gate.idle;
  }

  /** Ends what is overdue: calls past their deadline, links that fell silent. Called every few 100 ms. */
  sweep(nowMs: number): void {
    this.gate.expire(nowMs);
    this.bulkGate.expire(nowMs);
    const late = this.#queued.filter((call) => nowMs >= call.deadlineMs);
    if (late.length > 0) {
      this.#queued = this.#queued.filter((call) => nowMs < call.deadlineMs);
      for (const call of late) call.outcome.resolve("late");
    }
    for (const [id, call] of this.#sent) {
      if (nowMs >= call.deadlineMs) {
        this.#sent.delete(id);
        call.outcome.resolve("late");
      } else if (nowMs - call.sentAtMs >= this.#context.callTimeoutMs) {
        if (this.#heardAtMs < call.sentAtMs) return this.drop("no reply");
        // The link lives and this reply alone is overdue: ask again under the same number, either answer will do.
        this.#transmit(call);
        if (this.#link === null) return;
      }
    }
    this.#ping(nowMs);
  }

  /** The map changed: what waits for a link is routed anew; a server that is gone, down or elsewhere loses its link. */
  mapChanged(): void {
    const entry = this.#context.maps.server(this.serverId);
    if (entry === undefined) return this.close();
    if (this.#link !== null && (entry.state === serverState.down || entry.address !== this.#address)) {
      this.drop(entry.state === serverState.down ? "the server is down" : "the server moved");
    }
    if (!this.#ready) this.#rerouteQueued();
    if (this.#keep && this.#link === null) this.#open();
  }

  /** Gives up the link; calls in flight end as lost. A new one is opened when it is needed. */
  drop(reason: string): void {
    const link = this.#link;
    if (link === null) return;
    link.close();
    this.#lose(reason);
  }

  /** The session died: nothing goes out until {@linkcode resume}. */
  suspend(): void {
    this.drop("the session is dead");
    this.#rerouteQueued();
  }

  /** There is a new session. */
  resume(): void {
    this.drop("the session changed");
    if (this.#keep) this.#open();
  }

  /** Ends the peer for good. */
  close(): void {
    this.#closed = true;
    this.drop("closed");
    this.#rerouteQueued();
  }

  /** Opened once, wanted for ever, as long as the map says that the server is there. */
  get #keep(): boolean {
    if (!this.#context.keepLinks || !this.#wanted || this.#closed || !this.#context.sessionAlive) return false;
    const state = this.#context.maps.server(this.serverId)?.state;
    return state !== undefined && state !== serverState.down;
  }

  #rerouteQueued(): void {
    const queued = this.#queued;
    this.#queued = [];
    for (const call of queued) call.outcome.resolve("lost");
  }

  #open(): void {
    if (this.#opening || this.#closed || this.#link !== null) return;
    this.#opening = true;
    this.#wanted = true;
    this.#context.runtime.scheduler.spawn(this.#establish());
  }

  *#establish(): Task<void> {
    while (!this.#closed && (this.#queued.length > 0 || this.#keep)) {
      if (this.#failures > 0) yield* wait(this.#context.runtime.sleep(this.#backoffMs()));
      if (this.#closed) break;
      const problem = yield* this.#greet();
      if (problem === "") break;
      this.drop(problem);
      this.#failures++;
      this.#log("debug", problem);
    }
    this.#opening = false;
    if (this.#link === null && (this.#queued.length > 0 || this.#keep)) this.#open();
    else if (this.#link !== null) this.#begin();
  }

  /** The link is ready: everything that waited goes out. */
  #begin(): void {
    this.#ready = true;
    const queued = this.#queued;
    this.#queued = [];
    for (const call of queued) {
      if (this.#ready) this.#transmit(call);
      else call.outcome.resolve("lost");
    }
  }

  #backoffMs(): number {
    const longest = Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(this.#failures - 1, 10));
    return longest * (0.5 + this.#context.runtime.random32() / 2 ** 33);
  }

  /** Opens a link and does what comes before requests. "" or the reason why it is no good. */
  *#greet(): Task<string> {
    const context = this.#context, session = context.session;
    const entry = context.maps.server(this.serverId);
    if (entry === undefined) return "the map does not have it";
    const link = context.network.connect({ serverId: this.serverId, address: entry.address, store: this.store });
    context.counters.links++;
    this.#link = link;
    this.#address = entry.address;
    this.#heardAtMs = this.#pingedAtMs = context.runtime.nowMs();
    link.onFrame = (frame) => {
      if (this.#link === link) this.#receive(frame);
    };
    link.onClose = (reason) => {
      if (this.#link === link) this.#lose(reason);
    };
    const handshake = new ClientHandshake({
      clusterId: context.maps.current.clusterId,
      kind: context.kind,
      session,
      store: this.store,
      serverId: this.serverId,
      nonce: randomNonce(() => context.runtime.random32()),
    }, context.secret);
    const hello = yield* this.#ask(HELLO, handshake.hello);
    if (hello.status !== 0) return this.#refused("HELLO", hello);
    const reply = hello.replyBody as Parameters<ClientHandshake["accept"]>[0];
    const judged = handshake.accept(reply);
    if ("reason" in judged) return this.#distrust(`it ${judged.reason}`);
    const prove = yield* this.#ask(PROVE, { proof: judged.proof });
    if (prove.status !== 0) return this.#refused("PROVE", prove);
    this.refusal = "";
    const known = reply.incarnation === this.#incarnation && session === this.#claimedSession;
    const problem = known ? "" : yield* this.#reclaim();
    if (problem !== "") return problem;
    if (context.session !== session) return "the session changed";
    if (this.#link !== link) return "the link was lost";
    this.#incarnation = reply.incarnation;
    this.#claimedSession = session;
    return "";
  }

  /** Tells a store that was started anew what the session holds there. */
  *#reclaim(): Task<string> {
    for (const body of this.#context.hooks.reclaim?.(this.serverId, this.store) ?? []) {
      const deadlineMs = this.#context.runtime.nowMs() + this.#context.ioTimeoutMs;
      for (;;) {
        const claim = yield* this.#ask(RECLAIM, body);
        if (claim.status === 0) break;
        if (claim.status !== status.retry || this.#context.runtime.nowMs() >= deadlineMs) {
          return this.#refused("RECLAIM", claim);
        }
        yield* wait(this.#context.runtime.sleep(reclaimRetryMs));
      }
    }
    return "";
  }

  /** Sends one message of the handshake. A link that fails in the meantime counts as status.refused. */
  *#ask(message: Message, body: unknown): Task<Call> {
    const call = new Call(message, body, this.#context.runtime.nowMs() + handshakeTimeoutMs);
    call.session = this.#context.session;
    if (this.#link === null) {
      call.status = status.refused;
      return call;
    }
    this.#transmit(call);
    const outcome = yield* wait(call.outcome);
    if (outcome !== "answered") call.status = status.refused;
    return call;
  }

  #refused(step: string, call: Call): string {
    if (call.answers === 0) return `no answer to ${step}`;
    if (call.status === status.sessionDead) this.#context.sessionDied(call.session);
    if (call.status !== status.refused) return `${step} failed with ${errnoName(call.status)}`;
    const text = new TextDecoder().decode(call.replyData ?? new Uint8Array(0));
    return this.#distrust(`it refused ${step}${text === "" ? "" : `: ${text}`}`);
  }

  /** A refusal does not go away by itself: say so once, not at every attempt. */
  #distrust(reason: string): string {
    if (this.refusal !== reason) this.#log("error", reason);
    this.refusal = reason;
    return reason;
  }

  #transmit(call: Call): void {
    const link = this.#link!, context = this.#context, data = call.data;
    if (call.id === 0) {
      do {
        call.id = this.#nextId;
        this.#nextId = this.#nextId === 0xffffffff ? 1 : this.#nextId + 1;
      } while (this.#sent.has(call.id));
      this.#sent.set(call.id, call);
    }
    call.sentAtMs = context.runtime.nowMs();
    if (call.sends++ === 0) call.firstSentAtMs = call.sentAtMs;
    head.type = call.message.type;
    head.id = call.id;
    head.epoch = context.maps.current.epoch;
    head.session = call.session;
    head.sequence = call.sequence;
    head.slot = call.slot;
    head.shard = call.shard;
    head.clock = this.#clockMs();
    beginFrame(writer, head);
    call.message.request.write(writer, call.body);
    const frame = finishFrame(writer, data?.length ?? 0);
    context.counters.sent[head.type] = (context.counters.sent[head.type] ?? 0) + 1;
    context.counters.sentFor[call.origin]++;
    context.counters.bytesSent += frame.length + (data?.length ?? 0);
    link.send(frame, data);
  }

  #clockMs(): number {
    const { hooks, runtime } = this.#context;
    if (hooks.clockMs !== undefined) return hooks.clockMs();
    const time = runtime.wallTime();
    return time.sec * 1000 + time.nsec / 1e6;
  }

  #receive(bytes: Uint8Array): void {
    this.#heardAtMs = this.#context.runtime.nowMs();
    this.#context.counters.bytesReceived += bytes.length;
    try {
      const frame = readFrame(bytes);
      if ((frame.head.flags & frameFlags.push) !== 0) {
        if (this.#ready) this.#context.hooks.push?.(frame, this.serverId, this.store);
        return;
      }
      if ((frame.head.flags & frameFlags.reply) === 0) throw new DecodeError("neither reply nor push");
      this.#answer(frame);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.#context.counters.malformed++;
      this.#log("warn", `malformed frame: ${error.message}`);
      this.drop("malformed frame");
    }
  }

  #answer(frame: Frame): void {
    const { id, type, status: answer, epoch, clock } = frame.head;
    const call = this.#sent.get(id);
    if (call === undefined) {
      this.#context.counters.strays++;
      return;
    }
    if (call.message.type !== type) throw new DecodeError(`type ${type} answers a ${call.message.name}`);
    this.#sent.delete(id);
    try {
      takeReply(call, frame);
    } catch (error) {
      call.outcome.resolve("malformed");
      throw error;
    }
    call.status = answer;
    call.replyEpoch = epoch;
    call.answers++;
    call.server = this.serverId;
    if (this.#ready) {
      this.#failures = 0;
      this.#context.maps.heard(epoch);
      this.#context.hooks.heardClock?.(clock);
    }
    this.#context.hooks.replied?.(call, frame.head.leases);
    call.outcome.resolve("answered");
  }

  #lose(reason: string): void {
    const sent = this.#sent;
    this.#sent = new Map();
    this.#link = null;
    if (this.#ready) {
      this.#failures = Math.max(1, this.#failures);
      this.#log("debug", `link lost: ${reason}`);
    }
    this.#ready = false;
    for (const call of sent.values()) call.outcome.resolve("lost");
    if (this.#keep || this.#queued.length > 0) this.#open();
  }

  #ping(nowMs: number): void {
    if (!this.#ready || (this.#sent.size === 0 && !this.#keep)) return;
    const quietMs = Math.min(pingIntervalMs, this.#context.callTimeoutMs / 2);
    if (nowMs - Math.max(this.#heardAtMs, this.#pingedAtMs) < quietMs) return;
    this.#pingedAtMs = nowMs;
    const call = new Call(PING, nothing, Infinity);
    call.session = this.#context.session;
    this.#transmit(call);
  }

  #log(level: "error" | "warn" | "debug", text: string): void {
    this.#context.runtime.log(level, "link", `server ${this.serverId} store ${this.store}: ${text}`);
  }
}

/** Decodes a reply into its call; throws DecodeError and then leaves `into` as it was. */
function takeReply(call: Call, frame: Frame): void {
  const data = frame.data;
  if (frame.head.status !== 0) {
    if (data.length > 0) call.replyData = data.slice(0, reasonBytesMax);
    return;
  }
  const body = call.message.reply.read(frame.body);
  frame.body.finish();
  if (call.into !== undefined && data.length > call.into.length) {
    throw new DecodeError(`${data.length} bytes of data where ${call.into.length} were asked for`);
  }
  call.replyBody = body;
  call.replyLength = data.length;
  if (data.length === 0) return;
  if (call.into !== undefined) call.into.set(data);
  else call.replyData = data.slice();
}
