/**
 * Decides whether what the clients saw can be explained: is there an order of the operations, each taking effect at
 * moments between its call and its answer, in which the model gives the same answers? (Linearizability: Wing and Gong
 * 1993; remembering visited configurations: Lowe 2017.) An operation without an answer may take effect at any time
 * after its call, in part, or never.
 *
 * The history is checked in rounds: between two of them every client is idle. What is carried from one to the next is
 * the set of all worlds that explain everything so far.
 *
 * @module
 */

import {
  anyNlink,
  isWithoutEffect,
  type Observed,
  onlyLooks,
  onlyLoosens,
  type Op,
  phasesOf,
  type State,
  type Success,
} from "./model.ts";

/** Most configurations of one round: beyond it the round is not judged. */
const configurationsMax = 300_000;
/** Most worlds carried into the next round. */
const worldsMax = 20_000;

/** One call as a client saw it. */
export interface Call {
  /** Number of the call in the run, from 1. */
  serial: number;
  /** Calls of one actor follow each other. */
  actor: number;
  /** Calls of actors of one client share opens. */
  client: number;
  op: Op;
  invokedMs: number;
  /** Infinity while there is no answer. */
  returnedMs: number;
  observed: Observed;
}

/** A call without an answer and the phases of it that have happened, as bits. */
interface Pending {
  call: Call;
  done: number;
}

/** A state that explains all rounds so far, and what may still happen in it. */
export interface Possibility {
  state: State;
  pending: readonly Pending[];
}

/** What no order explains. */
export class Inexplicable extends Error {
  override name = "Inexplicable";
}

/** A history with so many possible orders that it is not judged. Too many unknown outcomes at once make it so. */
export class TooHard extends Error {
  override name = "TooHard";
}

interface Work {
  call: Call;
  needs: readonly number[];
  all: number;
  optional: boolean;
  /** It changes nothing, wherever it stands; or it has but made things possible that were not. */
  eager: "looks" | "loosens" | null;
}

/** Keeps all explanations of a history. */
export class Checker {
  possibilities: Possibility[];
  /** Configurations looked at so far. */
  configurations = 0;

  constructor(fresh: State) {
    this.possibilities = [{ state: fresh, pending: [] }];
  }

  /** One of the states the volume may be in now. */
  get state(): State {
    return this.possibilities[0].state;
  }

  /** Calls that have no answer and may still take effect. */
  get unresolved(): number {
    return Math.max(...this.possibilities.map((p) => p.pending.length));
  }

  /** Adds a round. Throws {@linkcode Inexplicable}, {@linkcode TooHard}. */
  round(calls: readonly Call[]): void {
    const found = new Map<string, Possibility>();
    const search = new Search();
    for (const call of calls) loosen(call, calls, this.possibilities);
    for (const possibility of this.possibilities) search.explain(possibility, calls, found);
    this.configurations += search.configurations;
    if (found.size === 0) throw new Inexplicable(search.report(calls));
    if (found.size > worldsMax) throw new TooHard(`${found.size} worlds explain the round`);
    this.possibilities = [...found.values()];
  }

  /** Nothing is on its way any more: what has not happened by now never will, and nothing is left half done. */
  settle(): void {
    this.possibilities = this.possibilities.filter(({ state }) => state.whole);
    this.#map((p) => ({ state: p.state.settled(), pending: [] }));
  }

  /** A client's process died: its opens go, and what it asked for last may or may not happen. */
  forgetClient(client: number): void {
    this.#map((p) => ({ state: p.state.forgetClient(client), pending: p.pending }));
  }

  #map(change: (possibility: Possibility) => Possibility): void {
    const distinct = new Map<string, Possibility>();
    for (const possibility of this.possibilities) {
      const next = change(possibility);
      distinct.set(worldKey(next.state, next.pending), next);
    }
    this.possibilities = [...distinct.values()];
  }
}

function worldKey(state: State, pending: readonly Pending[]): string {
  return pending.map((p) => `${p.call.serial}:${p.done}`).join(",") + "|" + state.key;
}

/**
 * What a rename between shards shows half done: a CLEAR may pass over either of its names, and a directory that gives or
 * takes a directory counts its links a moment apart from the names. Listings show all of it or nothing.
 */
function loosen(call: Call, calls: readonly Call[], possibilities: readonly Possibility[]): void {
  const seen = call.observed !== null && typeof call.observed !== "number" ? call.observed.seen : undefined;
  const clear = call.op.kind === "clear" ? call.op : null;
  const dir = clear?.dir ?? seen?.inode;
  if (dir === undefined) return;
  const names = new Set<string>();
  const visit = ({ op, observed, invokedMs, returnedMs }: Call) => {
    const removes = op.kind === "unlink" || op.kind === "rmdir";
    if (clear !== null && removes && op.dir === dir) names.add(op.name);
    if (op.kind !== "rename" || typeof observed === "number") return;
    if (invokedMs > call.returnedMs || returnedMs < call.invokedMs) return;
    if (op.dir === dir) names.add(op.name);
    if (op.newDir === dir) names.add(op.newName);
  };
  calls.forEach(visit);
  for (const { pending } of possibilities) for (const one of pending) visit(one.call);
  if (names.size === 0) return;
  if (clear !== null) call.op = { ...clear, loose: [...names] };
  else call.observed = { ...call.observed as Success, seen: { ...seen!, nlink: anyNlink } };
}

/** Where a search is: which phases are done, and the state they led to. */
interface Configuration {
  done: number[];
  state: State;
  left: number;
}

class Search {
  configurations = 0;
  #deepest: { configuration: Configuration; works: Work[] } | null = null;

  explain(from: Possibility, calls: readonly Call[], found: Map<string, Possibility>): void {
    const works: Work[] = [];
    const done: number[] = [];
    const add = (call: Call, already: number) => {
      const needs = phasesOf(call.op, call.observed);
      const loosens = onlyLoosens(call.op, call.observed), optional = call.observed === null && !loosens;
      const eager = loosens ? "loosens" : !optional && onlyLooks(call.op, call.observed) ? "looks" : null;
      works.push({ call, needs, all: (1 << needs.length) - 1, optional, eager });
      done.push(already);
    };
    for (const pending of from.pending) add(pending.call, pending.done);
    for (const call of calls) if (!isWithoutEffect(call.op, call.observed)) add(call, 0);
    const left = works.filter((work) => !work.optional).length;
    const visited = new Set<string>();
    const stack: Configuration[] = [{ done, state: from.state, left }];
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      const key = `${at.done.join()}|${at.state.key}`;
      if (visited.has(key)) continue;
      visited.add(key);
      if (++this.configurations > configurationsMax) throw new TooHard("the round has too many possible orders");
      if (this.#deepest === null || at.left < this.#deepest.configuration.left) {
        this.#deepest = { configuration: at, works };
      }
      if (at.left === 0) this.#finish(at, works, found);
      this.#advance(at, works, stack);
    }
  }

  /** Everything that was answered has happened: one explanation. */
  #finish(at: Configuration, works: readonly Work[], found: Map<string, Possibility>): void {
    const pending: Pending[] = [];
    for (let i = 0; i < works.length; i++) {
      if (works[i].optional && at.done[i] !== works[i].all) pending.push({ call: works[i].call, done: at.done[i] });
    }
    found.set(worldKey(at.state, pending), { state: at.state, pending });
  }

  /** Pushes every configuration that is one phase further. */
  #advance(at: Configuration, works: readonly Work[], stack: Configuration[]): void {
    const ready = readyWorks(at, works);
    // Some may happen as soon as they can: no other order explains more.
    for (const i of ready) if (works[i].eager !== null && this.#hurry(at, works[i], i, stack)) return;
    for (const i of ready) {
      const { call, needs } = works[i];
      for (let phase = 0; phase < needs.length; phase++) {
        if (!isNext(at.done[i], phase, needs)) continue;
        for (const state of at.state.apply(call.op, phase, call.observed, call.client, call.serial)) {
          stack.push(after(at, works[i], i, phase, state));
        }
      }
    }
  }

  /** Pushes the configuration in which one more phase of something eager is done; false: none can be now. */
  #hurry(at: Configuration, work: Work, index: number, stack: Configuration[]): boolean {
    const { call, needs } = work;
    for (let phase = 0; phase < needs.length; phase++) {
      if (!isNext(at.done[index], phase, needs)) continue;
      const states = at.state.apply(call.op, phase, call.observed, call.client, call.serial);
      if (states.length !== 1 || work.eager === "looks" && states[0] !== at.state) continue;
      stack.push(after(at, work, index, phase, states[0]));
      return true;
    }
    return false;
  }

  /** For people: the round, and how far an explanation got. */
  report(calls: readonly Call[]): string {
    const lines = ["no order explains this round:"];
    for (const call of calls) lines.push(`  ${describeCall(call)}`);
    if (this.#deepest === null) return lines.join("\n");
    const { configuration, works } = this.#deepest;
    lines.push("the longest explanation leaves out:");
    for (let i = 0; i < works.length; i++) {
      if (configuration.done[i] !== works[i].all) {
        lines.push(`  ${describeCall(works[i].call)}${works[i].optional ? " (may be left out)" : ""}`);
      }
    }
    lines.push("in the state", configuration.state.describe());
    return lines.join("\n");
  }
}

/** What can happen next: nothing that is still to happen was answered before it was asked for. */
function readyWorks(at: Configuration, works: readonly Work[]): number[] {
  let horizonMs = Infinity;
  const undone = (i: number) => at.done[i] !== works[i].all;
  for (let i = 0; i < works.length; i++) {
    if (!works[i].optional && undone(i)) horizonMs = Math.min(horizonMs, works[i].call.returnedMs);
  }
  const ready: number[] = [], busy = new Set<number>();
  for (let i = 0; i < works.length; i++) {
    const { call, optional } = works[i];
    if (!undone(i) || call.invokedMs > horizonMs || busy.has(call.actor)) continue;
    ready.push(i);
    if (!optional) busy.add(call.actor);
  }
  return ready;
}

/** True when the phase is not done and those before it are. */
function isNext(done: number, phase: number, needs: readonly number[]): boolean {
  return (done & 1 << phase) === 0 && (done & needs[phase]) === needs[phase];
}

function after(at: Configuration, work: Work, index: number, phase: number, state: State): Configuration {
  const done = at.done.slice();
  done[index] |= 1 << phase;
  return { done, state, left: at.left - (done[index] === work.all && !work.optional ? 1 : 0) };
}

/** One line: when, who, what, and what came of it. */
export function describeCall(call: Call): string {
  const { kind, ...rest } = call.op;
  const parts = Object.entries(rest).map(([key, value]) => `${key}=${value}`).join(" ");
  return `[${call.invokedMs.toFixed(3)}..${call.returnedMs.toFixed(3)}] #${call.serial} actor ${call.actor} ` +
    `client ${call.client}: ${kind} ${parts} -> ${describeObserved(call.observed)}`;
}

function describeObserved(observed: Observed): string {
  if (observed === null) return "unknown";
  if (typeof observed === "number") return `errno ${observed}`;
  const parts: string[] = [];
  const seen = observed.seen;
  if (seen !== undefined) {
    parts.push(`inode=${seen.inode} mode=${seen.mode.toString(8)} nlink=${seen.nlink} size=${seen.size}`);
  }
  if (observed.bytes !== undefined) {
    parts.push(`${observed.bytes.length} bytes ${observed.bytes.subarray(0, 8).join(" ")}`);
  }
  if (observed.offset !== undefined) parts.push(`offset=${observed.offset}`);
  if (observed.text !== undefined) parts.push(`"${observed.text}"`);
  if (observed.entries !== undefined) parts.push(observed.entries.map(([name, id]) => `${name}=${id}`).join(","));
  if (observed.names !== undefined) parts.push(observed.names.join(","));
  if (observed.count !== undefined) parts.push(`count=${observed.count}`);
  if (observed.lock !== undefined) parts.push(`lock=${JSON.stringify(observed.lock)}`);
  return parts.join(" ") || "ok";
}
