/**
 * A simulated world: virtual time, nodes that run tasks in turns, a network between them. Everything that a real one
 * leaves to chance is drawn from the seed: who runs next, how long a frame takes, what is lost, doubled or overtaken.
 * Nothing here waits for real time; the digest of all that happened proves that a seed gives one run.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { Future, Scheduler, type Task } from "../../core/task.ts";
import type { Endpoint, Link, LogLevel, Network, Runtime, Time } from "../../core/runtime.ts";
import { mix32 } from "../../core/placement/hash.ts";
import { Random } from "./random.ts";

/** Virtual start: 2026-01-01, in ms since 1970. */
const epochMs = 1767225600000;
/** Most events of one run: beyond it the run is a livelock. */
const eventsMax = 3_000_000;
/** Most scheduler runs of one turn: a task that never waits would go on for ever. */
const runsPerTurnMax = 64;

/** What the network does wrong, as probabilities a frame, and how slow it is. */
export interface NetworkFaults {
  delayMs: [least: number, most: number];
  loss: number;
  duplicate: number;
  stall: number;
}

/** A network that only takes its time. */
export const calmNetwork: NetworkFaults = { delayMs: [0.02, 0.3], loss: 0, duplicate: 0, stall: 0 };

/** A run that went wrong: what, in which seed, at which virtual time. */
export class SimulationError extends Error {
  override name = "SimulationError";

  constructor(message: string, readonly seed: number, readonly atMs: number, cause?: unknown) {
    super(`seed ${seed} at ${atMs.toFixed(3)} ms: ${message}`, { cause });
  }
}

interface Event {
  atMs: number;
  /** Drawn: events of one moment run in any order. */
  order: number;
  serial: number;
  run: () => void;
}

function earlier(a: Event, b: Event): boolean {
  if (a.atMs !== b.atMs) return a.atMs < b.atMs;
  if (a.order !== b.order) return a.order < b.order;
  return a.serial < b.serial;
}

/** Binary heap of events, earliest first. */
class EventQueue {
  #heap: Event[] = [];

  get length(): number {
    return this.#heap.length;
  }

  push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (!earlier(event, heap[up])) break;
      heap[at] = heap[up];
      at = up;
    }
    heap[at] = event;
  }

  pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0], last = heap.pop();
    if (last === undefined || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && earlier(heap[child + 1], heap[child])) child++;
      if (!earlier(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

/** One seed's universe. */
export class World {
  readonly random: Random;
  readonly nodes: Node[] = [];
  /** The network's behaviour now. */
  faults: NetworkFaults = calmNetwork;
  /** Virtual milliseconds since the start. */
  nowMs = 0;
  /** Events run so far. */
  events = 0;
  /** Frames delivered so far. */
  frames = 0;
  /** Hash over everything that happened, in order. */
  digest = 0;
  /** Hears what happens, when somebody wants to read it. */
  onTrace: ((line: string) => void) | null = null;
  /** A frame in a few words, for the trace. */
  describe = (frame: Uint8Array): string => `${frame.length} bytes`;
  #queue = new EventQueue();
  #serial = 0;
  #listeners = new Map<string, Listener>();
  #partitions = new Map<string, "hold" | "drop">();
  #held = new Map<string, (() => void)[]>();
  #failure: SimulationError | null = null;

  constructor(readonly seed: number) {
    this.random = new Random(seed, "world");
  }

  /** Adds a node. */
  node(name: string): Node {
    const node = new Node(this, name);
    this.nodes.push(node);
    return node;
  }

  /** Runs `run` after `delayMs` of virtual time, whatever becomes of the nodes. */
  after(delayMs: number, run: () => void): void {
    this.#queue.push({ atMs: this.nowMs + delayMs, order: this.random.u32(), serial: this.#serial++, run });
  }

  /** Mixes a number into the digest. */
  note(value: number): void {
    this.digest = mix32(this.digest ^ (value >>> 0)) + 1;
  }

  /** A line of the trace; the text is made only when somebody reads. */
  trace(line: () => string): void {
    if (this.onTrace !== null) this.onTrace(`${this.nowMs.toFixed(3).padStart(12)} ${line()}`);
  }

  /** Ends the run: the next {@linkcode run} throws. The first failure counts. */
  fail(message: string, cause?: unknown): void {
    this.trace(() => `FAIL ${message}`);
    this.#failure ??= new SimulationError(message, this.seed, this.nowMs, cause);
  }

  /** Runs events until `until` is true; fails when `limitMs` of virtual time pass or nothing is left to happen. */
  run(until: () => boolean, limitMs: number, what: string): void {
    const deadlineMs = this.nowMs + limitMs;
    while (!until()) {
      const event = this.#queue.pop();
      if (event === undefined) this.fail(`nothing left to happen while waiting for ${what}`);
      else if (event.atMs > deadlineMs) this.fail(`${limitMs} ms passed while waiting for ${what}`);
      else if (++this.events > eventsMax) this.fail(`${eventsMax} events passed while waiting for ${what}`);
      else {
        this.nowMs = event.atMs;
        this.note(event.serial);
        event.run();
      }
      if (this.#failure !== null) throw this.#failure;
    }
  }

  /** Lets `ms` of virtual time pass. */
  pass(ms: number): void {
    let over = false;
    this.after(ms, () => over = true);
    this.run(() => over, ms + 1, "time to pass");
  }

  /** Where links to `endpoint` arrive, or undefined when nobody listens. */
  listener(endpoint: Endpoint): Listener | undefined {
    const listener = this.#listeners.get(`${endpoint.serverId}/${endpoint.store}`);
    return listener !== undefined && listener.node.incarnation === listener.incarnation ? listener : undefined;
  }

  /** `node` takes links for store `store` of server `serverId`, until it crashes. */
  listen(node: Node, serverId: number, store: number, accept: (link: Link) => void): void {
    this.#listeners.set(`${serverId}/${store}`, { node, incarnation: node.incarnation, accept });
  }

  /** Parts two nodes: "hold" = what is sent arrives after {@linkcode heal}, "drop" = it is lost. */
  part(a: Node, b: Node, mode: "hold" | "drop"): void {
    this.trace(() => `part ${a.name} and ${b.name} (${mode})`);
    this.#partitions.set(pairKey(a, b), mode);
  }

  /** Ends a partition; what was held travels on. */
  heal(a: Node, b: Node): void {
    const key = pairKey(a, b);
    if (!this.#partitions.delete(key)) return;
    this.trace(() => `heal ${a.name} and ${b.name}`);
    const held = this.#held.get(key) ?? [];
    this.#held.delete(key);
    for (const travel of held) travel();
  }

  /** Ends all partitions. */
  healAll(): void {
    for (const a of this.nodes) for (const b of this.nodes) if (a.index < b.index) this.heal(a, b);
  }

  /** Runs `travel` when a message from `a` to `b` may set out: now, after the partition, or never. */
  travel(a: Node, b: Node, travel: () => void): void {
    const key = pairKey(a, b);
    const mode = this.#partitions.get(key);
    if (mode === undefined) travel();
    else if (mode === "hold") {
      const held = this.#held.get(key);
      if (held === undefined) this.#held.set(key, [travel]);
      else held.push(travel);
    }
  }

  /** Whether the two can talk now. */
  connected(a: Node, b: Node): boolean {
    return !this.#partitions.has(pairKey(a, b));
  }

  /** How long the next message takes. */
  delayMs(): number {
    const [least, most] = this.faults.delayMs;
    return least + (most - least) * this.random.fraction();
  }
}

interface Listener {
  node: Node;
  incarnation: number;
  accept: (link: Link) => void;
}

function pairKey(a: Node, b: Node): string {
  return a.index < b.index ? `${a.index}-${b.index}` : `${b.index}-${a.index}`;
}

/**
 * A machine's process: the {@linkcode Runtime} and {@linkcode Network} of the core that runs on it. What happens to it is
 * queued and handled in turns, as a reactor does; what it sends leaves at the end of the turn. A crash is the end of
 * everything in its memory: a late event of an earlier incarnation finds nobody.
 */
export class Node implements Runtime, Network {
  readonly index: number;
  readonly random: Random;
  /** Counts the starts; changes at every crash. */
  incarnation = 1;
  scheduler: Scheduler;
  /** Between running the tasks and sending what they said: where a server writes its log. */
  onTurnEnd: (() => void) | null = null;
  /** Difference of this node's wall clock from the world's, in ms. */
  clockOffsetMs = 0;
  /** Speed of this node's monotonic clock. */
  clockRate = 1;
  #inbox: (() => void)[] = [];
  #outbox: (() => void)[] = [];
  #ends = new Set<LinkEnd>();
  #turnPlanned = false;
  #pausedUntilMs = 0;
  #crashAtTurnEnd: (() => void) | null = null;

  constructor(readonly world: World, readonly name: string) {
    this.index = world.nodes.length;
    this.random = world.random.fork(name);
    this.scheduler = this.#newScheduler();
  }

  #newScheduler(): Scheduler {
    return new Scheduler((error) => this.#panic(error));
  }

  #panic(error: unknown): void {
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    this.world.fail(`${this.name} panicked: ${text}`, error);
  }

  nowMs(): number {
    return 1000 + this.world.nowMs * this.clockRate;
  }

  wallTime(): Time {
    const ms = epochMs + this.world.nowMs + this.clockOffsetMs;
    const sec = Math.floor(ms / 1000);
    return { sec, nsec: Math.min(999999999, Math.floor((ms - sec * 1000) * 1e6)) };
  }

  random32(): number {
    return this.random.u32();
  }

  sleep(ms: number): Future<void> {
    const future = new Future<void>();
    this.later(ms, () => future.resolve());
    return future;
  }

  log(level: LogLevel, component: string, message: string): void {
    this.world.trace(() => `${this.name} ${level} ${component}: ${message}`);
    if (level === "error" && component === "leases") this.world.fail(`${this.name}: ${message}`);
  }

  connect(endpoint: Endpoint): Link {
    const near = new LinkEnd(this, `${endpoint.address}#${endpoint.store}`);
    const world = this.world;
    const arrive = () => {
      if (near.closed) return;
      const listener = world.listener(endpoint);
      if (listener === undefined) {
        this.later(world.delayMs(), () => near.break("connection refused"));
        return;
      }
      const far = new LinkEnd(listener.node, this.name);
      near.other = far;
      far.other = near;
      listener.node.post(() => {
        far.open = true;
        listener.accept(far);
      });
      near.flushEarly();
    };
    this.#outbox.push(() => {
      const delayMs = world.delayMs();
      const listener = world.listener(endpoint);
      if (listener === undefined) world.after(delayMs, arrive);
      else world.travel(this, listener.node, () => world.after(delayMs, arrive));
    });
    this.#planTurn();
    return near;
  }

  /** Runs `handle` in one of the next turns, if the node still lives then. */
  post(handle: () => void): void {
    this.#inbox.push(handle);
    this.#planTurn();
  }

  /** Runs `handle` in a turn after `ms` of this node's clock, if the node still lives then. */
  later(ms: number, handle: () => void): void {
    const incarnation = this.incarnation;
    this.world.after(Math.max(0, ms) / this.clockRate, () => {
      if (this.incarnation === incarnation) this.post(handle);
    });
  }

  /** Starts a task on this node. */
  spawn<T>(task: Task<T>): Future<T> {
    const future = this.scheduler.spawn(task);
    this.#planTurn();
    return future;
  }

  /** Takes no turn for `ms`: SIGSTOP, a long collection of garbage, a machine that swaps. */
  pause(ms: number): void {
    this.world.trace(() => `${this.name} pauses for ${ms.toFixed(1)} ms`);
    this.#pausedUntilMs = this.world.nowMs + ms;
  }

  /** Sends once this turn is over. */
  queue(send: () => void): void {
    this.#outbox.push(send);
    this.#planTurn();
  }

  #planTurn(): void {
    if (this.#turnPlanned) return;
    this.#turnPlanned = true;
    const incarnation = this.incarnation;
    const world = this.world;
    const waitMs = Math.max(0, this.#pausedUntilMs - world.nowMs) + 0.05 * world.random.fraction();
    world.after(waitMs, () => {
      if (this.incarnation === incarnation) this.#turn();
    });
  }

  #turn(): void {
    this.#turnPlanned = false;
    if (this.#pausedUntilMs > this.world.nowMs) {
      this.#planTurn();
      return;
    }
    const incarnation = this.incarnation;
    const inbox = this.#inbox;
    this.#inbox = [];
    try {
      for (const handle of inbox) handle();
      for (let runs = 0; this.scheduler.pending; runs++) {
        if (runs === runsPerTurnMax) throw new Error("a task never waits");
        this.scheduler.run();
      }
      this.onTurnEnd?.();
    } catch (error) {
      this.#panic(error);
      return;
    }
    if (this.incarnation !== incarnation) return;
    const crash = this.#crashAtTurnEnd;
    if (crash !== null) {
      this.#crashAtTurnEnd = null;
      crash();
      return;
    }
    const outbox = this.#outbox;
    this.#outbox = [];
    for (const send of outbox) send();
    if (this.scheduler.pending || this.#inbox.length > 0) this.#planTurn();
  }

  /** The process dies at the end of its next busy turn: its log is written, but what it wanted to say is lost. */
  crashUnsaid(then: () => void): void {
    this.#crashAtTurnEnd = () => {
      this.crash();
      then();
    };
  }

  /** The process dies now. Peers hear it from their links, if the network lets them. */
  crash(): void {
    this.world.trace(() => `${this.name} crashes`);
    this.incarnation++;
    this.scheduler = this.#newScheduler();
    this.onTurnEnd = null;
    this.#inbox = [];
    this.#outbox = [];
    this.#turnPlanned = false;
    this.#crashAtTurnEnd = null;
    this.#pausedUntilMs = 0;
    for (const end of [...this.#ends]) end.vanish();
    this.#ends.clear();
  }

  /** Breaks every link of this node: both sides hear of it. */
  cutLinks(other: Node | null = null): void {
    for (const end of [...this.#ends]) {
      if (other === null || end.other?.node === other) end.cut();
    }
  }

  /** For {@linkcode LinkEnd} alone. */
  adopt(end: LinkEnd): void {
    this.#ends.add(end);
  }

  /** For {@linkcode LinkEnd} alone. */
  forget(end: LinkEnd): void {
    this.#ends.delete(end);
  }
}

/** Least time between two frames of a link. */
const orderMs = 1e-6;

/** One side of a link. Frames are copied when sent, and the copy is destroyed after delivery. */
class LinkEnd implements Link {
  onFrame: (frame: Uint8Array) => void = () => {};
  onClose: (reason: string) => void = () => {};
  other: LinkEnd | null = null;
  open = false;
  closed = false;
  readonly incarnation: number;
  #lastArrivalMs = 0;
  #early: Uint8Array[] = [];

  constructor(readonly node: Node, readonly peer: string) {
    this.incarnation = node.incarnation;
    node.adopt(this);
  }

  send(head: Uint8Array, data?: Uint8Array): void {
    if (this.closed || this.node.incarnation !== this.incarnation) return;
    const frame = new Uint8Array(head.length + (data?.length ?? 0));
    frame.set(head);
    if (data !== undefined) frame.set(data, head.length);
    this.node.queue(() => this.#depart(frame));
  }

  #depart(frame: Uint8Array): void {
    if (this.closed) return;
    if (this.other === null) {
      this.#early.push(frame);
      return;
    }
    const world = this.node.world, other = this.other;
    world.travel(this.node, other.node, () => this.#fly(frame, other));
  }

  #fly(frame: Uint8Array, other: LinkEnd): void {
    const world = this.node.world, faults = world.faults, random = world.random;
    if (random.chance(faults.loss)) {
      world.trace(() => `lost: ${this.node.name} -> ${other.node.name} ${world.describe(frame)}`);
      return;
    }
    // What is late holds up what follows on the same link, and no two frames arrive in one moment: links keep the order.
    const delayMs = world.delayMs() * (random.chance(faults.stall) ? 10 : 1);
    const atMs = this.#lastArrivalMs = Math.max(world.nowMs + delayMs, this.#lastArrivalMs + orderMs);
    world.after(atMs - world.nowMs, () => other.deliver(frame));
    if (!random.chance(faults.duplicate)) return;
    const copy = frame.slice();
    world.after(atMs - world.nowMs + 20 * world.delayMs(), () => other.deliver(copy));
  }

  /** What was sent before the link was up goes first. */
  flushEarly(): void {
    const early = this.#early;
    this.#early = [];
    for (const frame of early) this.#depart(frame);
  }

  deliver(frame: Uint8Array): void {
    if (this.closed || this.node.incarnation !== this.incarnation) {
      this.#reset();
      return;
    }
    this.node.post(() => {
      if (this.closed) return;
      const world = this.node.world;
      world.frames++;
      world.note(crc32(frame));
      world.trace(() => `${this.other?.node.name} -> ${this.node.name} ${world.describe(frame)}`);
      this.onFrame(frame);
      frame.fill(0xdb);
    });
  }

  /** A frame came to a side that is gone: the sender hears of it, as TCP's RST tells. */
  #reset(): void {
    const other = this.other, world = this.node.world;
    if (other === null || other.closed) return;
    world.travel(this.node, other.node, () => world.after(world.delayMs(), () => other.break("connection reset")));
  }

  close(): void {
    if (this.closed) return;
    this.vanish();
    this.node.forget(this);
  }

  /** This side is gone; the other hears of it when the network lets it. */
  vanish(): void {
    this.closed = true;
    const other = this.other, world = this.node.world;
    if (other === null) return;
    world.travel(this.node, other.node, () => {
      const atMs = Math.max(world.nowMs + world.delayMs(), this.#lastArrivalMs);
      world.after(atMs - world.nowMs, () => other.break("closed by the peer"));
    });
  }

  /** The connection fails: both sides hear of it, each in its time. */
  cut(): void {
    const world = this.node.world, other = this.other;
    world.after(world.delayMs(), () => this.break("connection reset"));
    if (other !== null) world.after(world.delayMs(), () => other.break("connection reset"));
  }

  break(reason: string): void {
    if (this.closed || this.node.incarnation !== this.incarnation) return;
    this.closed = true;
    this.node.forget(this);
    this.node.post(() => this.onClose(reason));
  }
}
