/**
 * A small cluster for tests of servers: three of the real core over simulated links and media, asked by a plain Caller.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { ClientSession } from "../../../core/client/session.ts";
import { VolumeClient } from "../../../core/client/volume_client.ts";
import { S } from "../../../core/meta/attributes.ts";
import { shardOf } from "../../../core/meta/layout.ts";
import { type ClusterMap, rank, rootInode, serverState, volumeState } from "../../../core/placement/map.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import { Caller } from "../../../core/protocol/caller.ts";
import * as m from "../../../core/protocol/messages.ts";
import { StoreServer } from "../../../core/server/server.ts";
import { Store } from "../../../core/store/store.ts";
import { Future, type Task } from "../../../core/task.ts";
import { Media } from "../../sim/media.ts";
import { Random } from "../../sim/random.ts";
import { type Node, World } from "../../sim/world.ts";

const clusterId = "test";
/** Shards of the cluster. */
export const shards = 16;
/** UTF-8. */
export const bytes = (text: string) => new TextEncoder().encode(text);

interface Server {
  node: Node;
  media: Media;
  server: StoreServer;
}

/** A cluster of three servers and one client, all calm. */
export class Cluster {
  readonly world = new World(7);
  map: ClusterMap;
  readonly #maps: { node: Node; holder: MapHolder }[] = [];
  readonly servers: Server[] = [];
  readonly caller: Caller;
  readonly client: Node;
  readonly root: number;

  constructor(sizeBytes = 2 ** 30) {
    const entries = [1, 2, 3].map((id) => ({
      id,
      address: `10.0.0.${id}:1`,
      stores: 1,
      weight: 100,
      state: serverState.up,
    }));
    this.map = {
      epoch: 1,
      clusterId,
      shards,
      replicas: 1,
      servers: entries,
      owners: Array.from({ length: shards }, (_, shard) => rank(shard, entries).slice(0, 1)),
      volumes: [{ id: 1, name: "v", sizeBytes, state: volumeState.live, readOnly: false }],
      sessionHorizon: 13,
      sessions: [10, 11, 12, 13],
    };
    this.root = rootInode(1, shards);
    for (const { id } of entries) this.servers.push(this.#start(id));
    this.client = this.world.node("client");
    this.caller = this.newCaller();
  }

  /** Another caller of the client's session, which counts its requests from 1, and what they are for in `sentFor`. */
  newCaller(sentFor?: Float64Array): Caller {
    return new Caller({
      runtime: this.client,
      network: this.client,
      maps: this.#holder(this.client),
      secret: bytes("secret"),
      kind: m.peerKind.client,
      session: 10,
      sentFor,
    });
  }

  /** A whole client with a session of its own (10 to 13), on a node of its own. */
  newClient(session: number): { node: Node; volume: VolumeClient } {
    const node = this.world.node(`client ${session}`);
    const maps = this.#holder(node);
    const own = new ClientSession({ runtime: node, network: node, maps, secret: bytes("secret"), session });
    return { node, volume: new VolumeClient(own, { volumeId: 1 }) };
  }

  /** Gives everybody a new map. */
  update(map: ClusterMap): void {
    this.map = map;
    for (const { node, holder } of this.#maps) node.post(() => void holder.update(map));
    this.world.pass(10);
  }

  #holder(node: Node): MapHolder {
    const holder = new MapHolder(this.map);
    this.#maps.push({ node, holder });
    return holder;
  }

  #starts = 0;

  #start(id: number): Server {
    const node = this.world.node(`server ${id}`);
    const media = new Media(node, new Random(id), { blocksMax: 65536 });
    const identity = { clusterId, serverId: id, storeIndex: 0, storeCount: 1 };
    assertEquals(Store.format(media.image, identity), null);
    return { node, media, server: this.#serve(id, node, media) };
  }

  #serve(id: number, node: Node, media: Media): StoreServer {
    const identity = { clusterId, serverId: id, storeIndex: 0, storeCount: 1 };
    const parts = { image: media.image, log: media.log, container: media.container, runtime: node };
    let server: StoreServer | null = null;
    node.spawn(Store.open(parts, identity)).listen((store) => {
      if (!(store instanceof Store)) throw new Error(store.error);
      server = new StoreServer({
        runtime: node,
        network: node,
        store,
        maps: this.#holder(node),
        clusterId,
        serverId: id,
        storeIndex: 0,
        // Above the horizon: known to be alive.
        session: 1000 + ++this.#starts,
        secret: bytes("secret"),
        incarnation: this.world.nowMs + id,
        rootOwner: { uid: 0, gid: 0 },
      });
      this.world.listen(node, id, 0, (link) => server!.accept(link));
      node.onTurnEnd = () => void server!.endOfTurn();
      server.start();
    });
    this.world.run(() => server !== null, 10_000, "the start of a server");
    return server!;
  }

  /** Kills a server and starts it again on what it had written. */
  restart(index: number): void {
    this.kill(index);
    this.start(index);
  }

  /** All servers lose power at once, with all that was not synced, and start again. */
  powerCut(): void {
    for (const { node, media } of this.servers) {
      node.crash();
      media.faults.unsyncedKept = 0;
      media.crash("power");
    }
    this.servers.forEach((_, index) => this.start(index));
  }

  /** Kills a server. */
  kill(index: number): void {
    const { node, media } = this.servers[index];
    node.crash();
    media.crash("kill");
  }

  /** Starts a server that was killed. */
  start(index: number): void {
    const one = this.servers[index];
    one.media.attach(one.node);
    one.server = this.#serve(index + 1, one.node, one.media);
  }

  run<T>(task: Task<T>): T {
    return this.end(this.begin(task));
  }

  /** Runs a task of another client's node. */
  runOn<T>(node: Node, task: Task<T>): T {
    return this.end(this.begin(task, node));
  }

  /** Starts a task of the client, or of another node. */
  begin<T>(task: Task<T>, node = this.client): Future<T> {
    const ended = new Future<T>();
    node.post(() => node.scheduler.spawn(task).listen((value) => ended.resolve(value)));
    return ended;
  }

  /** Lets the world go on until a task has ended. */
  end<T>(ended: Future<T>): T {
    this.world.run(() => ended.settled, 120_000, "the task");
    return ended.value;
  }

  /** The server whose shard an inode is in, from 0. */
  ownerOf(inode: number): number {
    return this.map.owners[shardOf(inode)][0] - 1;
  }

  /** Calls one message and returns status and body. */
  // deno-lint-ignore no-explicit-any
  call(message: m.Message, inode: number, body: any, data?: Uint8Array): any {
    const reply = this.run(this.caller.call(message, { shard: shardOf(inode) }, body, { data }));
    return { status: reply.status, ...(reply.body as object), data: reply.data };
  }

  create(dir: number, name: string, mode = S.IFREG | 0o644) {
    const body = {
      dir,
      name: bytes(name),
      mode,
      umask: 0,
      uid: 1,
      gid: 2,
      rdev: 0,
      target: bytes(""),
      exclusive: true,
      openId: 0,
      truncate: false,
    };
    return this.call(m.CREATE, dir, body);
  }

  mkdir(dir: number, name: string) {
    return this.call(m.MKDIR, dir, { dir, name: bytes(name), mode: 0o755, umask: 0, uid: 0, gid: 0 });
  }

  lookup(dir: number, name: string) {
    return this.call(m.LOOKUP, dir, { dir, name: bytes(name) });
  }

  rename(dir: number, name: string, newDir: number, newName: string, flags = 0) {
    return this.call(m.RENAME, dir, { dir, name: bytes(name), newDir, newName: bytes(newName), flags }).status;
  }

  attributes(inode: number) {
    return this.call(m.GETATTR, inode, { inode }).attributes;
  }
}
