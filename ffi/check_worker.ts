/**
 * The reactor Worker of a check: reads all shards over the network (core/check/walk.ts) and tells the main thread what
 * it finds (ffi/check_messages.ts). It never returns to the event loop until it is told to end.
 *
 * @module
 */

/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />

import type { Finding } from "../core/check/finding.ts";
import { checkCluster, type CheckProgress } from "../core/check/walk.ts";
import { decodeMap } from "../core/placement/map.ts";
import { MapHolder } from "../core/placement/map_holder.ts";
import { Caller } from "../core/protocol/caller.ts";
import { peerKind } from "../core/protocol/messages.ts";
import { Future, type Task, wait } from "../core/task.ts";
import type { CheckOrder, CheckResolve, CheckTold, CheckWorkerStart, ToldFinding } from "./check_messages.ts";
import { openLogger } from "./log.ts";
import { ReactorMailbox } from "./mailbox.ts";
import { SocketNetwork } from "./net.ts";
import { Reactor } from "./reactor.ts";

/** Progress is told this often. */
const progressMs = 200;
/** Findings told in one message. */
const findingsPerMessage = 50;
/** Pause when the main thread does not keep up. */
const fullMs = 5;
/** How long the last answer may take to leave. */
const endMs = 20;

class CheckWorker {
  readonly #start: CheckWorkerStart;
  readonly #reactor: Reactor;
  readonly #mailbox: ReactorMailbox;
  readonly #network: SocketNetwork;
  readonly #maps: MapHolder;
  readonly #caller: Caller;
  #toldMs = 0;

  constructor(start: CheckWorkerStart) {
    this.#start = start;
    this.#reactor = new Reactor({ log: openLogger(start.log).log });
    this.#mailbox = new ReactorMailbox(this.#reactor, start.mailbox);
    this.#network = new SocketNetwork(this.#reactor, { resolve: (host) => this.#resolve(host) });
    this.#maps = new MapHolder(decodeMap(start.map), (epoch) => void this.#post({ type: "needMap", epoch }));
    this.#caller = new Caller({
      runtime: this.#reactor,
      network: this.#network,
      maps: this.#maps,
      secret: start.secret === null ? null : new TextEncoder().encode(start.secret),
      kind: peerKind.admin,
      session: start.session,
      ioTimeoutMs: start.ioTimeoutMs,
    });
    this.#mailbox.onMessage = (message) => void this.#maps.update(decodeMap((message as CheckOrder).bytes));
    this.#mailbox.onCall = (_, answer) => {
      answer.reply(true);
      this.#caller.close();
      this.#reactor.after(endMs, () => this.#reactor.stop());
    };
  }

  run(): void {
    this.#reactor.scheduler.spawn(this.#check());
    this.#mailbox.guard(() => this.#reactor.run());
    this.#network.close();
    this.#mailbox.close();
    this.#reactor.close();
  }

  *#check(): Task<void> {
    const { verifyData, repair } = this.#start;
    const parts = { runtime: this.#reactor, maps: this.#maps, caller: this.#caller };
    const onProgress = (progress: CheckProgress) => this.#progress(progress);
    const report = yield* checkCluster(parts, { verifyData, repair, onProgress });
    if (typeof report === "string") return yield* this.#tell({ type: "failed", message: report });
    const { findings, repaired, ...summary } = report;
    yield* this.#tellAll("findings", findings);
    yield* this.#tellAll("repaired", repaired);
    yield* this.#tell({ type: "done", summary });
  }

  *#tellAll(list: "findings" | "repaired", findings: readonly Finding[]): Task<void> {
    for (let at = 0; at < findings.length; at += findingsPerMessage) {
      const some = findings.slice(at, at + findingsPerMessage).map(told);
      yield* this.#tell({ type: "findings", list, some });
    }
  }

  *#tell(message: CheckTold): Task<void> {
    while (!this.#post(message)) yield* wait(this.#reactor.sleep(fullMs));
  }

  #progress(progress: CheckProgress): void {
    const nowMs = this.#reactor.nowMs();
    if (nowMs - this.#toldMs < progressMs) return;
    this.#toldMs = nowMs;
    this.#post({ type: "progress", progress });
  }

  #post(message: CheckTold): boolean {
    return this.#mailbox.post(message);
  }

  #resolve(host: string): Future<string | null> {
    const found = new Future<string | null>();
    this.#mailbox.call({ type: "resolve", host } satisfies CheckResolve).listen((reply) => {
      found.resolve(reply.ok ? reply.value as string | null : null);
    });
    return found;
  }
}

function told({ kind, severity, shard, inode, text, path, refused, repair }: Finding): ToldFinding {
  return { kind, severity, shard, inode, text, path, refused, repairable: repair !== undefined };
}

self.onmessage = (event: MessageEvent) => {
  new CheckWorker(event.data as CheckWorkerStart).run();
  self.close();
};
