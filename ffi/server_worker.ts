/**
 * The reactor Worker of one store: opens the store, serves it over sockets, and tells the main thread how it goes
 * (ffi/server_messages.ts). The Worker of store 0 listens for all stores of the server; a connection whose HELLO names
 * another store is handed over, descriptor and all. Until it is told to stop the event loop gets a turn a minute, in
 * which the database's native objects are given back.
 *
 * @module
 */

/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />

import { decodeMap } from "../core/placement/map.ts";
import { MapHolder } from "../core/placement/map_holder.ts";
import { DecodeError } from "../core/protocol/codec.ts";
import { frameBytesMax, readFrame } from "../core/protocol/frame.ts";
import { HELLO } from "../core/protocol/messages.ts";
import { StoreServer } from "../core/server/server.ts";
import { Future, type Task, wait } from "../core/task.ts";
import type { SocketLink } from "./link.ts";
import { openLogger } from "./log.ts";
import { type Answer, ReactorMailbox } from "./mailbox.ts";
import { publishStore, storeMeters } from "./metrics/server_metrics.ts";
import { SocketNetwork } from "./net.ts";
import { hookOrder, Reactor } from "./reactor.ts";
import type {
  ServerOrder,
  ServerQuestion,
  ServerReport,
  ServerWorkerStart,
  StoreStatistics,
} from "./server_messages.ts";
import { abandonImages } from "./store/image.ts";
import { type OpenedStore, openStore } from "./store/open.ts";

/** Longest frame of a peer that has not said yet which store it wants. */
const helloBytesMax = 4096;
/** How long a stopping store waits for the requests that are under way. */
const drainMsMax = 5000;

/** One store and everything around it. */
class StoreWorker {
  readonly #start: ServerWorkerStart;
  readonly #reactor: Reactor;
  readonly #mailbox: ReactorMailbox;
  readonly #network: SocketNetwork;
  readonly #maps: MapHolder;
  readonly #meters: ReturnType<typeof storeMeters>;
  #opened: OpenedStore | null = null;
  #server: StoreServer | null = null;
  #stopping = false;

  constructor(start: ServerWorkerStart) {
    this.#start = start;
    const logger = openLogger(start.log);
    this.#reactor = new Reactor({ log: logger.log });
    this.#meters = storeMeters(this.#reactor, start.metrics);
    this.#mailbox = new ReactorMailbox(this.#reactor, start.mailbox);
    this.#network = new SocketNetwork(this.#reactor, { resolve: (host) => this.#resolve(host) });
    this.#maps = new MapHolder(decodeMap(start.map), (epoch) => this.#report({ type: "needMap", epoch }));
    this.#mailbox.onMessage = (message) => this.#order(message as ServerOrder);
    this.#mailbox.onCall = (message, answer) => this.#question(message as ServerQuestion, answer);
  }

  async run(): Promise<void> {
    this.#reactor.scheduler.spawn(this.#open());
    await this.#mailbox.guard(() => this.#reactor.serve());
    this.#opened?.release();
    this.#mailbox.close();
    this.#reactor.close();
  }

  *#open(): Task<void> {
    const { clusterId, serverId, store: storeIndex, stores: storeCount, databasePath, storagePaths } = this.#start;
    const identity = { clusterId, serverId, storeIndex, storeCount };
    const { checkpoints } = this.#meters;
    const opened = yield* openStore({ reactor: this.#reactor, databasePath, storagePaths, identity, checkpoints });
    if ("error" in opened) return this.#fail(opened.error);
    this.#opened = opened;
    this.#serve(opened);
  }

  #serve(opened: OpenedStore): void {
    const { clusterId, serverId, store: storeIndex, session, secret, listen } = this.#start;
    const server = new StoreServer({
      runtime: this.#reactor,
      network: this.#network,
      store: opened.store,
      maps: this.#maps,
      clusterId,
      serverId,
      storeIndex,
      session,
      secret: secret === null ? null : new TextEncoder().encode(secret),
      incarnation: this.#reactor.random32() * 2 ** 20 + (this.#reactor.random32() >>> 12),
      rootOwner: { uid: Deno.uid() ?? 0, gid: Deno.gid() ?? 0 },
      onFailed: (reason) => this.#fail(reason),
      meter: this.#meters.messages,
    });
    this.#server = server;
    this.#reactor.atEndOfTurn(hookOrder.store, () => void server.endOfTurn());
    server.start();
    publishStore({ reactor: this.#reactor, network: this.#network, server, opened }, this.#start.metrics);
    if (storeIndex === 0) {
      try {
        this.#network.listen({ address: listen, serverId, onLink: (link) => this.#greet(link) });
      } catch (error) {
        return this.#fail(error instanceof Error ? error.message : String(error));
      }
    }
    this.#report({ type: "ready" });
  }

  /** A new connection: its first frame says which store it is for. */
  #greet(link: SocketLink): void {
    link.frameBytesMax = helloBytesMax;
    link.onFrame = (frame) => {
      const store = storeOfHello(frame);
      if (store === null || store >= this.#start.stores) return link.close();
      link.frameBytesMax = frameBytesMax;
      if (store !== this.#start.store) return this.#handOver(link, frame.slice(), store);
      this.#server!.accept(link);
      link.onFrame(frame);
    };
  }

  #handOver(link: SocketLink, hello: Uint8Array, store: number): void {
    link.detach().listen(({ fd, received }) => {
      const all = new Uint8Array(hello.length + received.length);
      all.set(hello);
      all.set(received, hello.length);
      this.#report({ type: "handOver", store, fd, received: all });
    });
  }

  #order(order: ServerOrder): void {
    if (order.type === "map") this.#maps.update(decodeMap(order.bytes));
    else this.#network.adopt(order.fd, order.received, (link) => this.#adopt(link));
  }

  #adopt(link: SocketLink): void {
    if (this.#server === null) link.close();
    else this.#server.accept(link);
  }

  #question(question: ServerQuestion, answer: Answer): void {
    if (question.type === "statistics") return answer.reply(this.#statistics());
    if (this.#stopping) return answer.fail("the store is stopping");
    this.#stopping = true;
    this.#reactor.scheduler.spawn(this.#stop(answer));
  }

  *#stop(answer: Answer): Task<void> {
    const server = this.#server, opened = this.#opened;
    const untilMs = this.#reactor.nowMs() + drainMsMax;
    while (server !== null && server.active > 0 && this.#reactor.nowMs() < untilMs) {
      yield* wait(this.#reactor.sleep(10));
    }
    server?.stop();
    this.#network.close();
    const errno = opened === null ? 0 : yield* opened.store.close();
    if (errno === 0) answer.reply(true);
    else answer.fail(`the last checkpoint failed (errno ${errno})`);
    this.#reactor.after(50, () => this.#reactor.stop());
  }

  #statistics(): StoreStatistics {
    const server = this.#server, store = this.#opened?.store;
    if (server === null || store === undefined) {
      return { capacityBytes: 0, usedBytes: 0, requests: 0, swept: [], volumes: [] };
    }
    const { dataBytes, dataBytesMax } = store.fill();
    const volumes = this.#maps.current.volumes.map(({ id }) => {
      const used = store.usage(id);
      return { id, usedBytes: used.bytes, inodes: used.inodes };
    });
    return {
      capacityBytes: dataBytesMax,
      usedBytes: dataBytes,
      requests: server.counters.requests,
      swept: [...server.swept],
      volumes,
    };
  }

  #resolve(host: string): Future<string | null> {
    const found = new Future<string | null>();
    this.#mailbox.call({ type: "resolve", host }).listen((reply) => {
      found.resolve(reply.ok ? reply.value as string | null : null);
    });
    return found;
  }

  #report(report: ServerReport): void {
    this.#mailbox.post(report);
  }

  #fail(message: string): void {
    this.#report({ type: "failed", message });
    this.#reactor.after(100, () => this.#reactor.stop());
  }
}

/** The store that a HELLO names; null when the frame is none. */
function storeOfHello(bytes: Uint8Array): number | null {
  try {
    const frame = readFrame(bytes);
    if (frame.head.type !== HELLO.type) return null;
    return HELLO.request.read(frame.body).store;
  } catch (error) {
    if (error instanceof DecodeError) return null;
    throw error;
  }
}

self.onmessage = async (event: MessageEvent) => {
  try {
    await new StoreWorker(event.data as ServerWorkerStart).run();
  } finally {
    abandonImages();
    self.close();
  }
};
