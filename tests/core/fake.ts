/**
 * A runtime with virtual time and a network of scripted servers, for tests of what calls: nothing waits for real, and
 * the order of events is the same in every run.
 */

import { DecodeError, Writer } from "../../core/protocol/codec.ts";
import { beginFrame, finishFrame, type Frame, frameFlags, type Head, readFrame } from "../../core/protocol/frame.ts";
import { ServerHandshake } from "../../core/protocol/hello.ts";
import { HELLO, type Message, messageOf, PROVE } from "../../core/protocol/messages.ts";
import type { ClusterMap } from "../../core/placement/map.ts";
import type { Endpoint, Link, LogLevel, Network, Runtime, Time } from "../../core/runtime.ts";
import { Future, Scheduler, type Task } from "../../core/task.ts";

/** Virtual time: {@linkcode FakeRuntime.run} jumps from timer to timer. */
export class FakeRuntime implements Runtime {
  readonly scheduler = new Scheduler((error) => {
    throw error;
  });
  readonly logs: string[] = [];
  #now = 1000;
  #timers: { at: number; order: number; fire: () => void }[] = [];
  #order = 0;
  #random = 1;

  nowMs(): number {
    return this.#now;
  }
  wallTime(): Time {
    return { sec: Math.floor(this.#now / 1000), nsec: Math.floor((this.#now % 1000) * 1e6) };
  }
  random32(): number {
    return this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
  }
  sleep(ms: number): Future<void> {
    const future = new Future<void>();
    this.at(ms, () => future.resolve());
    return future;
  }
  log(level: LogLevel, component: string, message: string): void {
    this.logs.push(`${level} ${component} ${message}`);
  }

  /** Calls `fire` in `ms` milliseconds. */
  at(ms: number, fire: () => void): void {
    this.#timers.push({ at: this.#now + Math.max(0, ms), order: this.#order++, fire });
  }

  /** Runs a task to its end and returns its value; throws when it takes longer than `limitMs` of virtual time. */
  run<T>(task: Task<T>, limitMs = 600_000): T {
    const done = this.scheduler.spawn(task);
    const end = this.#now + limitMs;
    while (!done.settled) if (!this.#step(end)) throw new Error(`task has not ended after ${limitMs} ms`);
    return done.value;
  }

  /** Lets `ms` milliseconds pass. */
  pass(ms: number): void {
    const end = this.#now + ms;
    while (this.#step(end));
    this.#now = end;
  }

  #step(end: number): boolean {
    if (this.scheduler.run() > 0) return true;
    let next = -1;
    for (let i = 0; i < this.#timers.length; i++) {
      const a = this.#timers[i], b = this.#timers[next];
      if (next < 0 || a.at < b.at || (a.at === b.at && a.order < b.order)) next = i;
    }
    if (next < 0 || this.#timers[next].at > end) return false;
    const [timer] = this.#timers.splice(next, 1);
    this.#now = Math.max(this.#now, timer.at);
    timer.fire();
    return true;
  }
}

/** A request as a scripted server sees it. */
export interface Asked {
  head: Head;
  message: Message;
  // deno-lint-ignore no-explicit-any
  body: any;
  data: Uint8Array;
}

/** What a scripted server says: a status and body, "silence", or "hangup". */
export type Said =
  | { status?: number; body?: unknown; data?: Uint8Array; epoch?: number; raw?: Uint8Array }
  | "silence"
  | "hangup";

const writer = new Writer(4096);

/** Bytes of a reply. */
export function replyFrame(asked: Head, message: Message, said: Exclude<Said, string>): Uint8Array {
  const status = said.status ?? 0;
  beginFrame(writer, { ...asked, flags: frameFlags.reply, status, epoch: said.epoch ?? asked.epoch });
  if (status === 0) message.reply.write(writer, said.body ?? {});
  const frame = finishFrame(writer, said.data?.length ?? 0);
  const out = new Uint8Array(frame.length + (said.data?.length ?? 0));
  out.set(frame);
  if (said.data !== undefined) out.set(said.data, frame.length);
  return out;
}

/** One store of one server: shakes hands for real, then answers as `answer` says. */
export class FakeStore {
  incarnation = 1;
  up = true;
  /** Every request after the handshake, in order. */
  readonly asked: Asked[] = [];
  links: FakeLink[] = [];

  constructor(
    readonly serverId: number,
    readonly store: number,
    public answer: (asked: Asked) => Said,
    readonly secret: Uint8Array | null = null,
  ) {}

  /** Closes every link, as a crash does; `incarnation` moves on. */
  crash(): void {
    this.incarnation++;
    for (const link of this.links.splice(0)) link.fail("crash");
  }

  /** Names of the messages asked, without those of the upkeep of links. */
  get names(): string[] {
    return this.asked.map((one) => one.message.name).filter((name) => name !== "PING" && name !== "RECLAIM");
  }

  /** Sends a push on every link. */
  push(message: Message, body: unknown): void {
    beginFrame(writer, {
      type: message.type,
      flags: frameFlags.push,
      id: 0,
      epoch: 1,
      status: 0,
      session: 0,
      sequence: 0,
      slot: 0xffff,
      shard: 0xffff,
      leases: 0,
      clock: 0,
    });
    message.request.write(writer, body);
    const frame = finishFrame(writer).slice();
    for (const link of this.links) link.deliver(frame);
  }
}

/** The client's end of a link to a {@linkcode FakeStore}. */
export class FakeLink implements Link {
  onFrame: (frame: Uint8Array) => void = () => {};
  onClose: (reason: string) => void = () => {};
  readonly peer = "fake";
  open = true;
  #handshake: ServerHandshake;

  constructor(readonly runtime: FakeRuntime, readonly to: FakeStore, clusterId: string) {
    const { serverId, store, incarnation, secret } = to;
    this.#handshake = new ServerHandshake(
      { clusterId, serverId, store, incarnation, secret },
      new Uint8Array(16).fill(runtime.random32()),
    );
  }

  send(head: Uint8Array, data?: Uint8Array): void {
    const bytes = new Uint8Array(head.length + (data?.length ?? 0));
    bytes.set(head);
    if (data !== undefined) bytes.set(data, head.length);
    this.runtime.at(0.05, () => {
      if (this.open && this.to.up) this.#receive(readFrame(bytes));
    });
  }

  close(): void {
    this.open = false;
    this.to.links = this.to.links.filter((link) => link !== this);
  }

  /** The link breaks. */
  fail(reason: string): void {
    if (!this.open) return;
    this.close();
    this.runtime.at(0.05, () => this.onClose(reason));
  }

  /** Bytes come in from the server. */
  deliver(bytes: Uint8Array): void {
    this.runtime.at(0.05, () => {
      if (this.open) this.onFrame(bytes);
    });
  }

  #receive(frame: Frame): void {
    const message = messageOf(frame.head.type);
    if (message === undefined) throw new DecodeError(`type ${frame.head.type}`);
    const body = message.request.read(frame.body);
    frame.body.finish();
    if (message.type === HELLO.type) {
      const { status, reply } = this.#handshake.onHello(body);
      return this.deliver(
        replyFrame(frame.head, HELLO, {
          status,
          body: reply,
          data: status === 0 ? undefined : new TextEncoder().encode(this.#handshake.reason),
        }),
      );
    }
    if (message.type === PROVE.type) {
      return this.deliver(replyFrame(frame.head, PROVE, { status: this.#handshake.onProve(body.proof) }));
    }
    if (this.#handshake.peer === null) throw new Error(`${message.name} before the handshake`);
    const asked: Asked = { head: frame.head, message, body, data: frame.data };
    this.to.asked.push(asked);
    const said = message.name === "PING" || message.name === "RECLAIM" ? this.#upkeep(asked) : this.to.answer(asked);
    if (said === "silence") return;
    if (said === "hangup") return this.fail("hangup");
    this.deliver(said.raw ?? replyFrame(frame.head, message, said));
  }

  #upkeep(asked: Asked): Said {
    const said = this.to.answer(asked);
    return said === "silence" || said === "hangup" || said.status !== undefined ? said : { body: {} };
  }
}

/** Stores by server and number. A store that is not `up` never answers. */
export class FakeNetwork implements Network {
  readonly stores: FakeStore[] = [];
  connections = 0;

  constructor(readonly runtime: FakeRuntime, readonly clusterId = "c") {}

  connect(endpoint: Endpoint): Link {
    this.connections++;
    const store = this.stores.find((one) => one.serverId === endpoint.serverId && one.store === endpoint.store);
    if (store === undefined) throw new Error(`no store ${endpoint.serverId}/${endpoint.store}`);
    const link = new FakeLink(this.runtime, store, this.clusterId);
    store.links.push(link);
    return link;
  }
}

/** A map in which server i + 1 has `stores[i]` stores, and shard s belongs to server 1 + s % servers. */
export function fakeMap(epoch: number, stores: number[], shards = 16): ClusterMap {
  return {
    epoch,
    clusterId: "c",
    shards,
    replicas: 1,
    servers: stores.map((count, i) => ({
      id: i + 1,
      address: `127.0.0.1:${i + 1}`,
      stores: count,
      weight: 1,
      state: 1,
    })),
    owners: Array.from({ length: shards }, (_, shard) => [1 + shard % stores.length]),
    volumes: [{ id: 1, name: "v", sizeBytes: 1 << 30, state: 1, readOnly: false }],
    sessionHorizon: 10,
    sessions: [5],
  };
}
