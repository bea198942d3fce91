/**
 * Operations across shards: one recipe, the driver's intent.
 *
 * The shard of the dentry drives. It logs an intent, sends steps to other shards (idempotent: the participant stores
 * that it applied step (driver shard, n, step) in the same record as the effect), logs the outcome with the reply, and
 * forgets the intent. After a crash the driver resumes every intent it finds; a step that was applied answers what it
 * answered before. Every step names the driver's lowest unfinished n: participants refuse what is below; what they have
 * applied they forget once the driver, asked from time to time, says that the intent is over.
 * Nobody ever undoes by time.
 *
 * An intent's story is told in one file of core/meta/ops; this file is the mechanism they share.
 *
 * @module
 */

import { E } from "../errno.ts";
import {
  bool,
  bytes,
  type Codec,
  decode,
  DecodeError,
  encode,
  optional,
  Reader,
  shortBytes,
  struct,
  u16,
  u32,
  u53,
  u8,
  Writer,
} from "../protocol/codec.ts";
import { status } from "../protocol/frame.ts";
import { attributes, LOWEST, messageOf, STEP } from "../protocol/messages.ts";
import { type Task, wait } from "../task.ts";
import { type Answer, answerErrno, type Engine, nameLock, type Request } from "./engine.ts";
import { after, Key, keyNumber, kind } from "./layout.ts";
import { Plan } from "./plan.ts";
import { applyAction } from "./steps.ts";

/** Kinds of intents: numbers are stored. */
export const intentKind = {
  makeDirectory: 1,
  removeDirectory: 2,
  unlink: 3,
  link: 4,
  rename: 5,
  truncate: 6,
  punch: 7,
} as const;

/** Value of N. `request` is the body of the client's request, `state` what the story remembers of its phase. */
export const intentRecord = struct({
  kind: u8,
  phase: u8,
  session: u53,
  slot: u16,
  sequence: u53,
  type: u16,
  request: bytes,
  state: bytes,
});

/** Value of S: what a step did. `holds`: a name it locked, until a later step of the intent frees it. */
export const stepRecord = struct({
  holds: optional(struct({ dir: u53, name: shortBytes })),
  outcome: bytes,
  intent: bytes,
});

/** What a driver can ask of a participant. Numbers are stored and sent. */
export const actions = {
  makeDirectory: {
    tag: 1,
    codec: struct({
      parent: u53,
      mode: u32,
      uid: u32,
      gid: u32,
      volume: u32,
      /** What the directory above gives of its default ACL: stored values, empty for none. */
      accessAcl: bytes,
      defaultAcl: bytes,
    }),
    outcome: struct({ attributes }),
  },
  dropDirectory: { tag: 2, codec: struct({ inode: u53 }), outcome: struct({ gone: optional(attributes) }) },
  /**
   * `parent`: directory of the name that comes or goes; 0 of a removal that has been committed, which cannot be refused.
   * `target`: of a symbolic link that loses its last name.
   */
  changeLinks: {
    tag: 3,
    codec: struct({ inode: u53, add: bool, parent: u53 }),
    outcome: struct({ attributes, target: shortBytes }),
  },
  moved: { tag: 4, codec: struct({ inode: u53, parent: u53 }), outcome: struct({}) },
  claimName: {
    tag: 5,
    codec: struct({ dir: u53, name: shortBytes, movingDirectory: bool, flags: u32 }),
    outcome: struct({ inode: u53, type: u8 }),
  },
  setName: {
    tag: 6,
    codec: struct({ dir: u53, name: shortBytes, inode: u53, type: u8, claim: u8 }),
    outcome: struct({}),
  },
  dropName: { tag: 7, codec: struct({ dir: u53, name: shortBytes, claim: u8 }), outcome: struct({}) },
  moveLock: { tag: 8, codec: struct({ root: u53 }), outcome: struct({}) },
  moveUnlock: { tag: 9, codec: struct({ root: u53, claim: u8 }), outcome: struct({}) },
} as const;

/** Names of {@linkcode actions}. */
export type ActionName = keyof typeof actions;
type Body<C> = C extends Codec<infer T> ? T : never;
/** Arguments of an action. */
export type ActionBody<N extends ActionName> = Body<typeof actions[N]["codec"]>;
/** What an action answers. */
export type ActionOutcome<N extends ActionName> = Body<typeof actions[N]["outcome"]>;

const byTag = new Map<number, ActionName>(
  (Object.keys(actions) as ActionName[]).map((name) => [actions[name].tag, name]),
);

/** Bytes of an action. */
export function encodeAction<N extends ActionName>(name: N, body: ActionBody<N>): Uint8Array {
  const writer = new Writer(64);
  writer.u8(actions[name].tag);
  (actions[name].codec as Codec<ActionBody<N>>).write(writer, body);
  return writer.copy();
}

/** Action of bytes; throws DecodeError. */
// deno-lint-ignore no-explicit-any
export function decodeAction(source: Uint8Array): { name: ActionName; body: any } {
  const reader = new Reader(source);
  const tag = reader.u8(), name = byTag.get(tag);
  if (name === undefined) throw new DecodeError(`action ${tag}`);
  const body = (actions[name].codec as Codec<unknown>).read(reader);
  reader.finish();
  return { name, body };
}

/** Inodes whose attributes or names an action changes. A new directory nobody knows yet. */
// deno-lint-ignore no-explicit-any
export function touchedByAction(name: ActionName, body: any): readonly number[] {
  switch (name) {
    case "dropDirectory":
    case "changeLinks":
    case "moved":
      return [body.inode];
    case "setName":
      return [body.dir];
    default:
      return [];
  }
}

function intentKey(shard: number, n: number): Uint8Array {
  return new Key(shard, kind.intent, 10).u56(n).done();
}

function stepKey(shard: number, driver: number, n: number, step: number): Uint8Array {
  return new Key(shard, kind.step, 13).u16(driver).u56(n).u8(step).done();
}

/** A participant's shard and a driver's as one number. */
function pairOf(shard: number, driver: number): number {
  return shard * 65536 + driver;
}

/** Owner of the locks of an intent. */
export function lockOwner(shard: number, n: number): string {
  return `intent${shard}.${n}`;
}

/** How often applied steps whose intents are over are forgotten, and how many drivers are asked about in one message. */
const tidyMs = 2000, tidyPairsMax = 1024;
/** A driver that does not answer in this time is asked the next time. */
const tidyTimeoutMs = 2000;
/** Refused steps that are remembered. */
const refusedMax = 65536;
/** Step records removed in one record. */
const forgetMax = 256;
/** Milliseconds before a driver that met a locked name tries again, and the most it grows to. */
const busyMsMin = 1, busyMsMax = 64;

/** An intent under way. */
export class Intent {
  readonly owner: string;
  phase: number;
  state: Uint8Array;

  constructor(
    readonly engine: Engine,
    readonly shard: number,
    readonly n: number,
    readonly origin: { session: number; slot: number; sequence: number },
    readonly kind: number,
    readonly type: number,
    readonly request: Uint8Array,
    phase = 0,
    state: Uint8Array = new Uint8Array(0),
  ) {
    this.owner = lockOwner(shard, n);
    this.phase = phase;
    this.state = state;
  }

  /** Logs the intent as it stands, with what `plan` adds, and waits until the log has it. */
  *record(phase: number, state: Uint8Array, plan = new Plan()): Task<void> {
    this.phase = phase;
    this.state = state;
    plan.put(intentKey(this.shard, this.n), this.#encoded());
    this.engine.commit(this.shard, plan, this.origin);
    yield* this.engine.logged();
    // Of an intent that was found at start nobody has asked yet whether its changes may be made.
    yield* this.engine.leases.graceOver();
  }

  /** Runs one step on the shard that it concerns. Never gives up: an intent once begun is finished. */
  *step<N extends ActionName>(
    step: number,
    shard: number,
    name: N,
    body: ActionBody<N>,
  ): Task<{ errno: number; outcome: ActionOutcome<N> | null }> {
    const action = encodeAction(name, body);
    for (;;) {
      const request = {
        driverShard: this.shard,
        n: this.n,
        step,
        lowest: this.engine.intents.lowest(this.shard),
        intent: this.#encoded(),
        action,
      };
      if (this.engine.owns(shard)) {
        const done = yield* this.#applyHere(shard, request, touchedByAction(name, body));
        if (done.errno !== 0) return { errno: done.errno, outcome: null };
        yield* this.engine.logged();
        return { errno: 0, outcome: decode(actions[name].outcome as Codec<ActionOutcome<N>>, done.outcome) };
      }
      const reply = yield* this.engine.caller.call(STEP, { shard }, request);
      if (reply.status === 0) {
        const { errno, outcome } = reply.body as { errno: number; outcome: Uint8Array };
        if (errno !== 0) return { errno, outcome: null };
        return { errno: 0, outcome: decode(actions[name].outcome as Codec<ActionOutcome<N>>, outcome) };
      }
      this.engine.runtime.log(
        "debug",
        "intent",
        `${this.owner} step ${step} (${name}): status ${reply.status}, trying again`,
      );
      yield* wait(this.engine.runtime.sleep(busyMsMax));
    }
  }

  /** A step on another shard of the same store. */
  *#applyHere(
    shard: number,
    request: Parameters<Intents["apply"]>[1],
    touched: readonly number[],
  ): Task<{ errno: number; outcome: Uint8Array }> {
    const { leases, intents } = this.engine;
    leases.begin(touched);
    if (leases.held(touched, 0)) yield* leases.clear(touched, 0);
    const done = intents.apply(shard, request);
    leases.end(touched);
    return done;
  }

  /** Ends the intent: its last changes, its removal and the reply in one record. */
  finish(plan: Plan, body: unknown): Answer {
    const message = messageOf(this.type)!;
    const encoded = encode(message.reply, body);
    this.engine.planReply(plan, this.shard, this.origin, { type: this.type, encoded });
    this.forget(plan);
    return { status: 0, encoded, body };
  }

  /** Ends an intent that changed nothing. */
  abort(errno: number): Answer {
    this.forget(new Plan());
    return answerErrno(errno);
  }

  /** Removes the intent with what `plan` adds. */
  forget(plan: Plan): void {
    plan.remove(intentKey(this.shard, this.n));
    this.engine.commit(this.shard, plan, this.origin);
    this.engine.intents.ended(this);
  }

  #encoded(): Uint8Array {
    const { session, slot, sequence } = this.origin;
    return encode(intentRecord, {
      kind: this.kind,
      phase: this.phase,
      session,
      slot,
      sequence,
      type: this.type,
      request: this.request,
      state: this.state,
    });
  }
}

/** A story: drives an intent from whatever phase it is in to its end. */
export type Story = (engine: Engine, intent: Intent) => Task<Answer>;

/** The intents of a store: those it drives and the steps it took for others. */
export class Intents {
  /** Unfinished n of each shard that has any. */
  #active = new Map<number, Set<number>>();
  /** Lowest n accepted from a driver, by pair of shards. */
  #lowest = new Map<number, number>();
  /** Steps that were refused, and the errno: a late duplicate must not succeed after its driver has given it up. */
  #refused = new Map<string, number>();
  /** Pairs of shards with step records. */
  #applied = new Set<number>();
  #stories = new Map<number, Story>();

  constructor(readonly engine: Engine) {}

  /** Tells how intents of a kind are driven. */
  register(kindNumber: number, story: Story): void {
    this.#stories.set(kindNumber, story);
  }

  /** Begins an intent for a request. It is logged by its story's first {@linkcode Intent.record}. */
  begin(request: Request, kindNumber: number): Intent {
    const shard = request.head.shard;
    const n = this.engine.store.newIntent(shard);
    const body = encode(request.message.request, request.body);
    return this.#activate(new Intent(this.engine, shard, n, request.head, kindNumber, request.message.type, body));
  }

  /** Lowest n of a driver's shard that is not finished; above all when none is. */
  lowest(shard: number): number {
    const active = this.#active.get(shard);
    if (active === undefined || active.size === 0) return this.engine.store.openShard(shard).nextIntent;
    let low = Infinity;
    for (const n of active) low = Math.min(low, n);
    return low;
  }

  /** Intents under way in a shard. */
  count(shard: number): number {
    return this.#active.get(shard)?.size ?? 0;
  }

  /** The intent is over. */
  ended(intent: Intent): void {
    this.#active.get(intent.shard)?.delete(intent.n);
  }

  /** Pause of a driver that met a lock: grows with the attempts, different for each. */
  *backOff(attempt: number): Task<void> {
    const most = Math.min(busyMsMax, busyMsMin << Math.min(attempt, 6));
    yield* wait(this.engine.runtime.sleep(busyMsMin + this.engine.runtime.random32() % most));
  }

  /**
   * At the start of a shard: takes back the names locked for drivers elsewhere, and resumes one's own intents.
   * `resumed` hears of each, with the answer to come, so that a retry of its request waits for it.
   */
  load(shard: number, resumed: (intent: Intent, run: Task<Answer>) => void): void {
    const prefix = new Key(shard, kind.step, 4).done();
    this.engine.store.scan(prefix, after(prefix), (key, value) => {
      const driver = keyNumber(key, 3, 2), n = keyNumber(key, 5, 7);
      this.#applied.add(pairOf(shard, driver));
      const { holds } = decode(stepRecord, value);
      if (holds !== null && !this.engine.names.tryAcquire(heldName(holds), lockOwner(driver, n), holds.dir)) {
        throw new Error(`two intents hold name ${heldName(holds)}`);
      }
      return true;
    });
    const own = new Key(shard, kind.intent, 4).done();
    const found: Intent[] = [];
    this.engine.store.scan(own, after(own), (key, value) => {
      const r = decode(intentRecord, value);
      const origin = { session: r.session, slot: r.slot, sequence: r.sequence };
      found.push(
        new Intent(this.engine, shard, keyNumber(key, 3, 7), origin, r.kind, r.type, r.request, r.phase, r.state),
      );
      return true;
    });
    for (const intent of found) {
      const story = this.#stories.get(intent.kind);
      if (story === undefined) throw new Error(`intent of unknown kind ${intent.kind}`);
      this.#activate(intent);
      resumed(intent, story(this.engine, intent));
    }
  }

  /** True when nothing of a driver's intent is to come any more, for all that a shard of this store has heard of it. */
  isOver(shard: number, { driver, n }: { driver: number; n: number }): boolean {
    let over = true;
    this.engine.store.scan(stepKey(shard, driver, n, 0), stepKey(shard, driver, n + 1, 0), () => over = false);
    return over;
  }

  /** Applies a step of a driver to a shard of this store, once. errno EBUSY: a name is locked, nothing was done. */
  apply(
    shard: number,
    request: { driverShard: number; n: number; step: number; lowest: number; intent: Uint8Array; action: Uint8Array },
  ): { errno: number; outcome: Uint8Array } {
    const { driverShard, n, step } = request;
    const plan = new Plan();
    const pair = pairOf(shard, driverShard), known = this.#lowest.get(pair) ?? 0;
    if (n < known) return { errno: status.oldSequence, outcome: new Uint8Array(0) };
    const key = stepKey(shard, driverShard, n, step);
    const done = this.engine.store.get(key);
    if (done !== undefined) return { errno: 0, outcome: decode(stepRecord, done).outcome };
    const refusedKey = `${pair}/${n}/${step}`, refused = this.#refused.get(refusedKey);
    if (refused !== undefined) return { errno: refused, outcome: new Uint8Array(0) };
    const { name, body } = decodeAction(request.action);
    const owner = lockOwner(driverShard, n);
    const result = applyAction(this.engine, {
      shard,
      by: { driver: driverShard, n },
      owner,
      name,
      body,
      plan,
      claimKey: (s) => stepKey(shard, driverShard, n, s),
    });
    if (typeof result === "number") {
      // EAGAIN alone is asked again under the same number.
      if (result !== E.AGAIN) this.#refuse(refusedKey, result);
      return { errno: result, outcome: new Uint8Array(0) };
    }
    const outcome = encode(actions[name].outcome as Codec<unknown>, result.outcome);
    plan.put(key, encode(stepRecord, { holds: result.holds ?? null, outcome, intent: request.intent }));
    this.#applied.add(pair);
    this.#lowest.set(pair, Math.max(known, request.lowest));
    this.engine.commit(shard, plan);
    result.committed?.();
    return { errno: 0, outcome };
  }

  #refuse(key: string, errno: number): void {
    this.#refused.set(key, errno);
    if (this.#refused.size > refusedMax) this.#refused.delete(this.#refused.keys().next().value!);
  }

  /** Forgets steps of intents that are over, a pair of shards after the other, for ever: their drivers are asked. */
  *tidy(): Task<void> {
    for (;;) {
      yield* wait(this.engine.runtime.sleep(tidyMs));
      const byStore = new Map<string, { server: number; store: number; pairs: { shard: number; driver: number }[] }>();
      for (const pair of this.#applied) {
        const shard = Math.floor(pair / 65536), driver = pair % 65536, owner = this.engine.map.ownerOf(driver);
        if (owner === null || !this.engine.owns(shard)) continue;
        const key = `${owner.server}/${owner.store}`, group = byStore.get(key);
        if (group === undefined) byStore.set(key, { ...owner, pairs: [{ shard, driver }] });
        else group.pairs.push({ shard, driver });
      }
      for (const { server, store, pairs } of byStore.values()) {
        for (let at = 0; at < pairs.length; at += tidyPairsMax) {
          yield* this.#tidyPairs({ server, store }, pairs.slice(at, at + tidyPairsMax));
        }
      }
    }
  }

  *#tidyPairs(target: { server: number; store: number }, pairs: { shard: number; driver: number }[]): Task<void> {
    const body = { shards: pairs.map(({ driver }) => driver) };
    const reply = yield* this.engine.caller.call(LOWEST, target, body, { timeoutMs: tidyTimeoutMs });
    if (reply.status !== 0) return;
    const { lowest } = reply.body as { lowest: number[] };
    for (let i = 0; i < pairs.length; i++) {
      if (lowest[i] > 0) this.#forgetBelow(pairs[i].shard, pairs[i].driver, lowest[i]);
    }
  }

  #forgetBelow(shard: number, driver: number, lowest: number): void {
    const pair = pairOf(shard, driver), plan = new Plan();
    const from = stepKey(shard, driver, 0, 0), to = stepKey(shard, driver + 1, 0, 0);
    const freed: { holds: { dir: number; name: Uint8Array }; owner: string }[] = [];
    let left = 0;
    this.engine.store.scan(from, to, (key, value) => {
      const n = keyNumber(key, 5, 7);
      if (n < lowest) {
        plan.remove(key.slice());
        const { holds } = decode(stepRecord, value);
        if (holds !== null) freed.push({ holds, owner: lockOwner(driver, n) });
      } else left++;
      return plan.changes.length < forgetMax;
    });
    this.#lowest.set(pair, Math.max(lowest, this.#lowest.get(pair) ?? 0));
    if (left === 0 && plan.changes.length < forgetMax) this.#applied.delete(pair);
    this.engine.commit(shard, plan);
    // An intent that its driver lost with its power frees nothing any more.
    for (const { holds, owner } of freed) this.engine.names.release(heldName(holds), owner, holds.dir);
  }

  #activate(intent: Intent): Intent {
    const active = this.#active.get(intent.shard);
    if (active === undefined) this.#active.set(intent.shard, new Set([intent.n]));
    else active.add(intent.n);
    return intent;
  }
}

/** Lock of a name that a step holds; an empty name is the volume's directory-move lock, at its root. */
export function heldName(holds: { dir: number; name: Uint8Array }): string {
  return nameLock(holds.dir, holds.name);
}

/** What a step that found its name locked answers. */
export const busy = E.BUSY;
