/**
 * Rounds: every actor does some operations, all at once, and when all are done the checker judges what they saw.
 *
 * @module
 */

import type { FileSystem } from "../../core/client/filesystem.ts";
import { type Task, wait } from "../../core/task.ts";
import { type Call, Checker } from "./checker.ts";
import { type Op, type State } from "./model.ts";
import type { Random } from "./random.ts";
import { Generator, type Mix, perform, Pool } from "./workload.ts";
import type { Node, World } from "./world.ts";

/** Longest time a round may take: above any time after which a client gives up. */
const roundMsMax = 600_000;
/** Pause of an actor whose client is starting. */
const startingMs = 10;
/** Longest pause of an actor between two operations. */
const thinkMsMax = 4;

/** A thread of a program on a client: one operation after the other. */
export class Actor {
  readonly generator: Generator;
  busy = false;

  /** `fs`: the client's file system now; it changes when the client is started again, and is null until then. */
  constructor(
    readonly index: number,
    readonly client: number,
    readonly node: Node,
    readonly fs: () => FileSystem | null,
    random: Random,
    mix: Mix,
    pool: Pool,
  ) {
    this.generator = new Generator(random, mix, pool, index + 1);
  }

  /** Its client's process died, and it with it. */
  kill(): void {
    this.busy = false;
    this.generator.opens = [];
  }
}

/** What a run has been asked and told. */
export class Rounds {
  readonly checker: Checker;
  /** Calls of the whole run. */
  calls = 0;
  /** Calls without an answer. */
  unknown = 0;
  /** How often each kind of operation succeeded. */
  readonly successes = new Map<Op["kind"], number>();
  /**
   * Clients that gave up a create that was to open the file: what it opened, if it did, stays open until the end of the
   * session, for its number was in the answer.
   */
  readonly unsure = new Set<number>();
  #history: Call[] = [];
  #lost = new Set<number>();

  constructor(readonly world: World, fresh: State, readonly pool: Pool, readonly random: Random) {
    this.checker = new Checker(fresh);
  }

  /** Plays and judges one round of `count` operations an actor. */
  play(actors: readonly Actor[], count: number): void {
    this.pool.refresh(this.checker.state, this.random);
    this.#history = [];
    for (const actor of actors) {
      actor.busy = true;
      actor.node.spawn(this.#act(actor, count));
    }
    this.world.run(() => actors.every((actor) => !actor.busy), roundMsMax, "the end of a round");
    this.judge();
  }

  /** Lets one actor copy between its files while the others rest, and judges that: its parts are of many moments. */
  copy(actor: Actor): void {
    const op = actor.generator.copy();
    if (op === null || this.checker.unresolved > 0 || actor.fs() === null) return;
    actor.busy = true;
    const end = () => actor.busy = false;
    actor.node.spawn(this.once(actor, op)).listen(end);
    this.world.run(() => !actor.busy, roundMsMax, "the end of a copy");
    this.judge();
  }

  /** Judges what has been seen since the last time. */
  judge(): void {
    const calls = this.#history.map((call) => this.#lost.has(call.client) ? { ...call, client: -1 } : call);
    for (const client of this.#lost) this.checker.forgetClient(client);
    this.#lost.clear();
    this.#history = [];
    for (const { observed, op, client } of calls) {
      if (observed === null && op.kind === "create" && op.open && client >= 0) this.unsure.add(client);
      if (observed === null) this.unknown++;
      else if (typeof observed !== "number") this.successes.set(op.kind, (this.successes.get(op.kind) ?? 0) + 1);
    }
    this.checker.round(calls);
  }

  /** A client's process or session died: the files it has opened so far are released, sooner or later. */
  lost(client: number): void {
    this.#lost.add(client);
  }

  /** One operation of one actor, outside of a round; judged with the next. */
  *once(actor: Actor, op: Op): Task<Call> {
    const { world } = this;
    const call: Call = {
      serial: ++this.calls,
      actor: actor.index,
      client: actor.client,
      op,
      invokedMs: world.nowMs,
      returnedMs: Infinity,
      observed: null,
    };
    this.#history.push(call);
    world.trace(() => `actor ${actor.index}: #${call.serial} ${JSON.stringify(op)}`);
    const observed = yield* perform(actor.fs()!, op, (ms) => actor.node.sleep(ms));
    call.observed = observed;
    if (observed !== null) call.returnedMs = world.nowMs;
    world.note(typeof observed === "number" ? observed : observed === null ? 1 : 0);
    world.trace(() => `actor ${actor.index}: #${call.serial} answered ${describe(observed)}`);
    return call;
  }

  *#act(actor: Actor, count: number): Task<void> {
    const { generator } = actor;
    while (actor.fs() === null) yield* wait(actor.node.sleep(startingMs));
    for (let i = 0; i < count; i++) {
      if (generator.random.chance(0.7)) yield* wait(actor.node.sleep(thinkMsMax * generator.random.fraction()));
      const { op, observed } = yield* this.once(actor, generator.next(this.calls + 1));
      // Whoever does not know what became of a change stops: a few unknowns are many possible worlds.
      if (observed === null) break;
      if (typeof observed === "number") continue;
      if (observed.seen !== undefined) this.pool.learn(observed.seen);
      if (op.kind === "open" || op.kind === "create" && op.open) generator.opens.push(observed.seen!.inode);
      else if (op.kind === "release") generator.opens.splice(generator.opens.indexOf(op.inode), 1);
    }
    actor.busy = false;
  }
}

function describe(observed: unknown): string {
  if (observed === null) return "nothing certain";
  if (typeof observed === "number") return `errno ${observed}`;
  return JSON.stringify(observed, (key, value) => key === "bytes" ? `${value.length} bytes` : value);
}
