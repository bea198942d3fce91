/**
 * A whole cluster in a simulated world: the real manager, store servers and clients, each on nodes of its own, with
 * media that outlive them. What a process's main thread does in ffi/ (register, heartbeat, follow the map) is done here
 * in a few lines; everything else is the product's own code.
 *
 * @module
 */

import { ClientSession } from "../../core/client/session.ts";
import type { FileSystem } from "../../core/client/filesystem.ts";
import { VolumeClient } from "../../core/client/volume_client.ts";
import { isRefusal } from "../../core/manager/manager.ts";
import { type ClusterMap, decodeMap } from "../../core/placement/map.ts";
import { MapHolder } from "../../core/placement/map_holder.ts";
import { decodeAction } from "../../core/meta/intent.ts";
import { readFrame } from "../../core/protocol/frame.ts";
import { messageOf, STEP } from "../../core/protocol/messages.ts";
import { StoreServer } from "../../core/server/server.ts";
import { Store, type StoreLimits } from "../../core/store/store.ts";
import { type Task, wait } from "../../core/task.ts";
import { ControlPlane } from "./control.ts";
import type { Victim, Victims } from "./faults.ts";
import type { StoredStore } from "./fsck.ts";
import { Media } from "./media.ts";
import type { Node, World } from "./world.ts";

const serverHeartbeatMs = 1_000;
const clientHeartbeatMs = 5_000;
const serverTimeoutMs = 3_500;
const pollMs = 250;
const retryMs = 100;
const volumeName = "test";
/** Blocks of a store's container. */
const blocksMax = 32768;
/** A cluster must be up after this time. */
const bootMsMax = 60_000;
/** Everything that was begun must be over after this time: dead sessions, intents, orphans. */
const quietMsMax = 180_000;
const user = { uid: 1000, gid: 1000 };

/** What a cluster is made of. */
export interface ClusterOptions {
  servers: number;
  stores: number;
  clients: number;
  shards: number;
  volumeBytes: number;
  /** After this time a client gives up. */
  ioTimeoutMs: number;
  callTimeoutMs: number;
  limits: Partial<StoreLimits>;
}

/** A server's process, its stores' media, and its life. */
export class ServerProcess implements Victim {
  readonly nodes: Node[];
  readonly media: Media[];
  /** One a store, while they serve. */
  servers: StoreServer[] = [];
  stores: Store[] = [];
  maps: MapHolder[] = [];
  id = 0;
  up = false;
  #clusterId = "";
  #starts = 0;

  constructor(readonly cluster: Cluster, readonly index: number) {
    const { world, options } = cluster;
    this.nodes = Array.from({ length: options.stores }, (_, store) => world.node(`server${index + 1}.${store}`));
    this.media = this.nodes.map((node) => new Media(node, world.random.fork(`media ${node.name}`), { blocksMax }));
  }

  get name(): string {
    return `server${this.index + 1}`;
  }

  /** Every store has taken up its shards. */
  get ready(): boolean {
    return this.up && this.servers.filter((server) => server !== undefined).length === this.nodes.length;
  }

  kill(): void {
    this.#end("kill");
  }

  /** The machine loses its power: what was not synced may be gone. */
  cutPower(): void {
    this.#end("power");
  }

  #end(how: "kill" | "power"): void {
    this.up = false;
    this.servers = [];
    this.stores = [];
    this.maps = [];
    for (const node of this.nodes) node.crash();
    for (const media of this.media) media.crash(how);
  }

  start(): void {
    this.up = true;
    this.#starts++;
    this.nodes[0].spawn(this.#register());
  }

  *#register(): Task<void> {
    const node = this.nodes[0], { control, options } = this.cluster;
    const asked = {
      identity: `identity-of-server-${this.index + 1}`,
      clusterId: this.#clusterId,
      address: `server${this.index + 1}:8085`,
      stores: options.stores,
      weight: 100,
      capacityBytes: blocksMax * 4096,
    };
    for (;;) {
      const answer = yield* wait(control.ask(node, (manager, nowMs) => manager.registerServer(asked, nowMs)));
      if (answer === null || isRefusal(answer)) {
        yield* wait(node.sleep(retryMs));
        continue;
      }
      this.id = answer.serverId;
      this.#clusterId = answer.clusterId;
      const map = decodeMap(answer.map.slice());
      this.nodes.forEach((one, store) => one.post(() => void one.spawn(this.#serve(store, map, answer.session))));
      yield* this.#beat(answer.session);
      return;
    }
  }

  *#beat(session: number): Task<void> {
    const node = this.nodes[0], { control } = this.cluster;
    for (;;) {
      yield* wait(node.sleep(serverHeartbeatMs));
      const beat = {
        session,
        capacityBytes: blocksMax * 4096,
        usedBytes: 0,
        requestsPerSecond: 0,
        hostLoad: 0,
        swept: this.ready
          ? [...this.servers[0].swept].filter((id) => this.servers.every((one) => one.swept.has(id)))
          : [],
        volumes: [],
      };
      const answer = yield* wait(control.ask(node, (manager, nowMs) => manager.serverHeartbeat(beat, nowMs)));
      if (answer === null || !isRefusal(answer)) continue;
      // A registration that was late has taken its place: such a process ends, and whoever watches it starts it again.
      if (answer.error !== "sessionDead") return this.cluster.world.fail(`${this.name}: ${answer.message}`);
      this.kill();
      this.cluster.world.after(serverHeartbeatMs, () => {
        if (!this.up) this.start();
      });
      return;
    }
  }

  *#serve(index: number, map: ClusterMap, session: number): Task<void> {
    const node = this.nodes[index], media = this.media[index], { world, options } = this.cluster;
    media.attach(node);
    const identity = { clusterId: map.clusterId, serverId: this.id, storeIndex: index, storeCount: this.nodes.length };
    if (media.image.entries().length === 0) {
      const error = Store.format(media.image, identity);
      if (error !== null) return world.fail(`${node.name}: ${error.error}`);
    }
    const { image, log, container } = media;
    const store = yield* Store.open({ image, log, container, runtime: node, limits: options.limits }, identity);
    if ("error" in store) return world.fail(`${node.name}: ${store.error}`);
    const maps = this.cluster.followMap(node, map);
    const server = new StoreServer({
      runtime: node,
      network: node,
      store,
      maps,
      clusterId: map.clusterId,
      serverId: this.id,
      storeIndex: index,
      session,
      secret: this.cluster.secret,
      incarnation: this.#starts,
      rootOwner: user,
      onFailed: (reason) => world.fail(`${node.name} failed: ${reason}`),
    });
    this.stores[index] = store;
    this.servers[index] = server;
    this.maps[index] = maps;
    node.onTurnEnd = () => void server.endOfTurn();
    server.start();
    world.listen(node, this.id, index, (link) => server.accept(link));
  }

  /** The raw records, for the checker of stores. */
  stored(): StoredStore[] {
    return this.media.map((media, store) => ({
      serverId: this.id,
      store,
      entries: media.image.entries().map(([key, value]) => [Uint8Array.from(key, (c) => c.charCodeAt(0)), value]),
      usedDataBytes: this.stores[store].fill().dataBytes,
      charged: (shard, volume) => this.stores[store].usageOf(shard, volume),
    }));
  }
}

/** A client's process: a session with the manager and a mounted volume. */
export class ClientProcess implements Victim {
  readonly nodes: Node[];
  up = false;
  fs: FileSystem | null = null;
  session: ClientSession | null = null;
  maps: MapHolder | null = null;
  /** Hears of every end of the process. */
  onKilled: () => void = () => {};
  /** Hears when what was open is lost: with the process or with the session. */
  onLost: () => void = () => {};

  constructor(readonly cluster: Cluster, readonly index: number) {
    this.nodes = [cluster.world.node(`client${index + 1}`)];
  }

  get name(): string {
    return `client${this.index + 1}`;
  }

  get ready(): boolean {
    return this.fs !== null && this.session!.caller.sessionAlive;
  }

  kill(): void {
    this.up = false;
    this.fs = null;
    this.session = null;
    this.maps = null;
    this.nodes[0].crash();
    this.onKilled();
    this.onLost();
  }

  start(): void {
    this.up = true;
    this.nodes[0].spawn(this.#run());
  }

  *#run(): Task<void> {
    const node = this.nodes[0], { options, secret } = this.cluster;
    const opened = yield* this.#openSession();
    const maps = this.cluster.followMap(node, decodeMap(opened.map.slice()));
    const session = new ClientSession({
      runtime: node,
      network: node,
      maps,
      secret,
      session: opened.session,
      ioTimeoutMs: options.ioTimeoutMs,
      callTimeoutMs: options.callTimeoutMs,
      onSessionDead: () => {
        this.onLost();
        node.spawn(this.#renew());
      },
    });
    for (;;) {
      const volume = maps.current.volumes.find((one) => one.name === volumeName);
      if (volume !== undefined) {
        this.maps = maps;
        this.session = session;
        this.fs = new VolumeClient(session, { volumeId: volume.id });
        break;
      }
      yield* wait(node.sleep(retryMs));
    }
    yield* this.#beat(session);
  }

  *#openSession(): Task<{ session: number; map: Uint8Array }> {
    const node = this.nodes[0];
    for (;;) {
      const client = { host: this.name, pid: 1 };
      const answer = yield* wait(this.cluster.control.ask(node, (m, nowMs) => m.openSession(client, nowMs)));
      if (answer !== null && !isRefusal(answer)) return answer;
      yield* wait(node.sleep(retryMs));
    }
  }

  *#renew(): Task<void> {
    const opened = yield* this.#openSession();
    this.maps!.update(decodeMap(opened.map.slice()));
    this.session!.renew(opened.session);
  }

  *#beat(session: ClientSession): Task<void> {
    const node = this.nodes[0];
    for (;;) {
      yield* wait(node.sleep(clientHeartbeatMs));
      const beat = { session: session.caller.session, mounts: [] };
      const answer = yield* wait(this.cluster.control.ask(node, (m, nowMs) => m.clientHeartbeat(beat, nowMs)));
      if (answer === null || !isRefusal(answer) || answer.error !== "sessionDead") continue;
      if (session.caller.session === beat.session) session.caller.sessionDied(beat.session);
    }
  }
}

/** See the module's comment. */
export class Cluster implements Victims {
  readonly control: ControlPlane;
  readonly servers: ServerProcess[];
  readonly clients: ClientProcess[];
  readonly manager: Victim;
  readonly secret: Uint8Array = new TextEncoder().encode("the simulated cluster's secret");

  constructor(readonly world: World, readonly options: ClusterOptions) {
    world.describe = describeFrame;
    this.control = new ControlPlane(world, {
      newCluster: { clusterId: "simulated-cluster", shards: options.shards, replicas: 1 },
      expected: {},
      serverTimeoutMs,
    });
    this.manager = managerVictim(this.control);
    this.servers = Array.from({ length: options.servers }, (_, index) => new ServerProcess(this, index));
    this.clients = Array.from({ length: options.clients }, (_, index) => new ClientProcess(this, index));
  }

  /** Starts everything and makes the volume; returns when every client has it mounted. */
  boot(): void {
    const { world, control, options } = this;
    for (const server of this.servers) server.start();
    world.run(() => this.servers.every((server) => server.ready), bootMsMax, "the servers to start");
    control.node.post(() => {
      const asked = { name: volumeName, sizeBytes: options.volumeBytes, servers: options.servers };
      const made = control.manager!.createVolume(asked, control.node.nowMs());
      if (isRefusal(made)) world.fail(`no volume: ${made.message}`);
    });
    for (const client of this.clients) client.start();
    world.run(() => this.clients.every((client) => client.ready), bootMsMax, "the clients to mount");
  }

  /** Deletes the volume and waits until nothing of it is left. */
  deleteVolume(): void {
    const { world, control } = this;
    control.node.post(() => {
      const deleted = control.manager!.deleteVolume(volumeName, true);
      if (isRefusal(deleted)) world.fail(`the volume cannot be deleted: ${deleted.message}`);
    });
    const gone = () => control.manager !== null && control.manager.map().volumes.length === 0;
    world.run(gone, quietMsMax, "the volume to be swept");
  }

  /** Waits until all is up and nothing is under way any more: requests, intents, orphans, sessions of the dead. */
  quiet(): void {
    this.world.run(() => this.#isQuiet(), quietMsMax, "the cluster to be quiet");
    this.world.pass(1000);
    this.world.run(() => this.#isQuiet(), quietMsMax, "the cluster to stay quiet");
  }

  #isQuiet(): boolean {
    const { manager } = this.control;
    if (manager === null || !this.servers.every((server) => server.ready)) return false;
    if (!this.clients.every((client) => client.ready && client.session!.caller.active === 0)) return false;
    const { epoch, sessions } = manager.map();
    if (sessions.length !== this.servers.length + this.clients.length) return false;
    const holders = [...this.servers.flatMap((server) => server.maps), ...this.clients.map((client) => client.maps!)];
    if (holders.some((maps) => maps.current.epoch !== epoch)) return false;
    return this.servers.every((server) => server.servers.every((one) => this.#isIdle(one)));
  }

  #isIdle({ engine, active }: StoreServer): boolean {
    if (active > 0 || engine.opens.grace || engine.reaper.pending > 0) return false;
    if (engine.names.size > 0 || engine.inodes.size > 0) return false;
    return engine.ownShards().every((shard) => engine.intents.count(shard) === 0);
  }

  /** Why the cluster is not quiet, for a failing run. */
  describe(): string {
    return this.servers.flatMap((server) =>
      server.servers.map(({ engine, active }, store) =>
        `${server.name}.${store}: ${active} requests, ${engine.reaper.pending} orphans, names ${engine.names.size}, ` +
        `inodes ${engine.inodes.size}, awaited ${[...engine.opens.awaited]}, ` +
        `intents ${engine.ownShards().reduce((sum, shard) => sum + engine.intents.count(shard), 0)}`
      )
    ).join("\n");
  }

  /** Keeps a node's map new, as its main thread would. */
  followMap(node: Node, map: ClusterMap): MapHolder {
    const { control } = this;
    const fetch = function* (): Task<void> {
      const { epoch } = maps.current;
      const bytes = yield* wait(control.ask(node, (manager) => manager.mapAfter(epoch)));
      if (bytes !== null && bytes !== undefined) maps.update(decodeMap(bytes.slice()));
    };
    const maps: MapHolder = new MapHolder(map, () => void node.spawn(fetch()));
    node.spawn((function* (): Task<void> {
      for (;;) {
        yield* wait(node.sleep(pollMs));
        yield* fetch();
      }
    })());
    return maps;
  }
}

function managerVictim(control: ControlPlane): Victim {
  return {
    name: "manager",
    nodes: [control.node],
    get up() {
      return control.manager !== null;
    },
    kill: () => control.crash(),
    start: () => control.start(),
  };
}

function describeFrame(bytes: Uint8Array): string {
  const { head, body, data } = readFrame(bytes);
  const message = messageOf(head.type), reply = (head.flags & 1) !== 0;
  const parts = [reply ? "reply" : "", message?.name ?? `type ${head.type}`, `#${head.id}`];
  if (reply) parts.push(`status ${head.status}`);
  else parts.push(`shard ${head.shard} slot ${head.slot} sequence ${head.sequence} session ${head.session}`);
  if (data.length > 0) parts.push(`+${data.length} bytes`);
  if (head.status === 0 && message !== undefined) {
    const read = (reply ? message.reply : message.request).read(body);
    parts.push(
      JSON.stringify(message === STEP && !reply ? { ...read, action: decodeAction(read.action) } : read, short),
    );
  }
  return parts.filter((part) => part !== "").join(" ");
}

/** Bytes as text where they are text, times as one number. */
function short(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Uint8Array) return value.length > 40 ? `${value.length} bytes` : new TextDecoder().decode(value);
  if (typeof value === "object" && value !== null && "nsec" in value && "sec" in value) return undefined;
  return value;
}
