/**
 * Servers of the real core over simulated links and media, asked by a plain Caller: what each message answers.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { shardOf } from "../../../core/meta/layout.ts";
import { chunkShard } from "../../../core/placement/hash.ts";
import { type ClusterMap, rank, rootInode, serverState, volumeState } from "../../../core/placement/map.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import { Caller } from "../../../core/protocol/caller.ts";
import * as m from "../../../core/protocol/messages.ts";
import { StoreServer } from "../../../core/server/server.ts";
import { Store } from "../../../core/store/store.ts";
import type { Task } from "../../../core/task.ts";
import { Media } from "../../sim/media.ts";
import { Random } from "../../sim/random.ts";
import { type Node, World } from "../../sim/world.ts";

const clusterId = "test", shards = 16;
const bytes = (text: string) => new TextEncoder().encode(text);

interface Server {
  node: Node;
  media: Media;
  server: StoreServer;
}

/** A cluster of three servers and one client, all calm. */
class Cluster {
  readonly world = new World(7);
  readonly map: ClusterMap;
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
    this.caller = new Caller({
      runtime: this.client,
      network: this.client,
      maps: new MapHolder(this.map),
      secret: bytes("secret"),
      kind: m.peerKind.client,
      session: 10,
    });
  }

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
        maps: new MapHolder(this.map),
        clusterId,
        serverId: id,
        storeIndex: 0,
        session: 10 + id,
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
    const one = this.servers[index];
    one.node.crash();
    one.media.crash("kill");
    one.media.attach(one.node);
    one.server = this.#serve(index + 1, one.node, one.media);
  }

  run<T>(task: Task<T>): T {
    let value: T | undefined, done = false;
    this.client.post(() => {
      this.client.scheduler.spawn(task).listen((v) => {
        value = v;
        done = true;
      });
    });
    this.world.run(() => done, 120_000, "the task");
    return value!;
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
    return this.call(m.MKDIR, dir, { dir, name: bytes(name), mode: 0o755, uid: 0, gid: 0 });
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

Deno.test("StoreServer creates, finds and removes files", () => {
  const c = new Cluster();
  const made = c.create(c.root, "a");
  assertEquals([made.status, made.created, made.attributes.uid], [0, true, 1]);
  assertEquals(c.create(c.root, "a").status, E.EXIST);
  assertEquals(c.lookup(c.root, "a").inode, made.inode);
  assertEquals(c.attributes(c.root).entries, 1);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("a") }).status, 0);
  assertEquals(c.lookup(c.root, "a").status, E.NOENT);
  assertEquals(c.call(m.GETATTR, made.inode, { inode: made.inode }).status, E.STALE);
});

Deno.test("StoreServer makes and removes directories on other shards", () => {
  const c = new Cluster();
  const inodes = Array.from({ length: 20 }, (_, i) => c.mkdir(c.root, `d${i}`).attributes.inode);
  assert(new Set(inodes.map(shardOf)).size > 4);
  assertEquals(c.attributes(c.root).nlink, 22);
  assertEquals(c.create(inodes[3], "f").status, 0);
  assertEquals(c.call(m.RMDIR, c.root, { dir: c.root, name: bytes("d3") }).status, E.NOTEMPTY);
  assertEquals(c.call(m.RMDIR, c.root, { dir: c.root, name: bytes("d4") }).status, 0);
  assertEquals(c.attributes(c.root).nlink, 21);
  const page = c.call(m.READDIR, c.root, { dir: c.root, cookie: 0, limitBytes: 100000, plus: true });
  assertEquals(page.entries.length, 19);
});

Deno.test("StoreServer renames within and across shards", () => {
  const c = new Cluster();
  const a = c.mkdir(c.root, "a").attributes.inode, b = c.mkdir(c.root, "b").attributes.inode;
  const file = c.create(a, "f").inode;
  assertEquals(c.rename(a, "f", b, "g"), 0);
  assertEquals(c.lookup(a, "f").status, E.NOENT);
  assertEquals(c.lookup(b, "g").inode, file);
  assertEquals([c.attributes(a).entries, c.attributes(b).entries], [0, 1]);
  const other = c.create(a, "f").inode;
  assertEquals(c.rename(a, "f", b, "g", 1), E.EXIST);
  assertEquals(c.rename(a, "f", b, "g", 2), 0);
  assertEquals([c.lookup(a, "f").inode, c.lookup(b, "g").inode], [file, other]);
  assertEquals(c.rename(a, "f", b, "g"), 0);
  assertEquals(c.call(m.GETATTR, other, { inode: other }).status, E.STALE);
  assertEquals(c.rename(c.root, "a", b, "a"), 0);
  assertEquals(c.rename(c.root, "b", a, "loop"), E.INVAL);
  assertEquals([c.attributes(c.root).nlink, c.attributes(b).nlink, c.attributes(a).parent], [3, 3, b]);
});

Deno.test("StoreServer links and unlinks far inodes", () => {
  const c = new Cluster();
  const a = c.mkdir(c.root, "a").attributes.inode, file = c.create(c.root, "f").inode;
  assertEquals(c.call(m.LINK, a, { inode: file, dir: a, name: bytes("l") }).attributes.nlink, 2);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("f") }).status, 0);
  assertEquals(c.attributes(file).nlink, 1);
  assertEquals(c.call(m.UNLINK, a, { dir: a, name: bytes("l") }).status, 0);
  assertEquals(c.call(m.GETATTR, file, { inode: file }).status, E.STALE);
});

Deno.test("StoreServer writes inline, into chunk 0 and far chunks, and cuts them", () => {
  const c = new Cluster(), file = c.create(c.root, "f").inode;
  const write = (offset: number, data: Uint8Array) =>
    c.call(m.WRITE, file, { inode: file, offset, killSetId: false }, data);
  assertEquals(write(0, bytes("hello")).size, 5);
  assertEquals(c.call(m.READ, file, { inode: file, offset: 1, length: 100 }).data, bytes("ello"));
  const block = new Uint8Array(10000).fill(7);
  assertEquals(write(3, block).size, 10003);
  const read = c.call(m.READ, file, { inode: file, offset: 0, length: 20000 });
  assertEquals([read.data.length, read.data[2], read.data[3]], [10003, 108, 7]);
  assertEquals(
    c.call(m.PUBLISH, file, { inode: file, gen: 0, size: 0, blocksDelta: 2 ** 31, servers: [], killSetId: false })
      .status,
    0,
  );
  const shard = chunkShard(file, 1, shards);
  const far = c.run(
    c.caller.call(m.WRITE_CHUNK, { shard }, { inode: file, volume: 1, gen: 0, chunk: 1, offset: 0 }, { data: block }),
  );
  assertEquals(far.status, 0);
  const size = 2 ** 20 + 10000;
  assertEquals(
    c.call(m.PUBLISH, file, { inode: file, gen: 0, size, blocksDelta: 2 ** 31 + 24, servers: [1], killSetId: false })
      .size,
    size,
  );
  assertEquals(c.call(m.FSYNC, file, { inode: file }).status, 0);
  const zero = { sec: 0, nsec: 0 };
  const cut = {
    inode: file,
    valid: m.setattrValid.size,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 4,
    atime: zero,
    mtime: zero,
    ctime: zero,
  };
  const after = c.call(m.SETATTR, file, cut).attributes;
  assertEquals([after.size, after.gen], [4, 1]);
  const late = c.run(
    c.caller.call(m.WRITE_CHUNK, { shard }, { inode: file, volume: 1, gen: 0, chunk: 1, offset: 0 }, { data: block }),
  );
  assertEquals(late.status, 1004);
  const chunk = c.run(c.caller.call(m.READ_CHUNK, { shard }, { inode: file, chunk: 1, offset: 0, length: 100 }));
  assertEquals(chunk.dataLength, 0);
  const appended = c.call(m.APPEND, file, { inode: file, killSetId: false }, new Uint8Array(2 ** 20).fill(9));
  assertEquals([appended.status, appended.offset, appended.size], [0, 4, 2 ** 20 + 4]);
});

Deno.test("StoreServer keeps everything acknowledged over a kill", () => {
  const c = new Cluster();
  const dirs = Array.from({ length: 6 }, (_, i) => c.mkdir(c.root, `d${i}`).attributes.inode);
  for (let i = 0; i < 30; i++) assertEquals(c.create(dirs[i % 6], `f${i}`).status, 0);
  for (const index of [0, 1, 2]) c.restart(index);
  for (let i = 0; i < 30; i++) assertEquals(c.lookup(dirs[i % 6], `f${i}`).status, 0);
  assertEquals(c.rename(dirs[0], "f0", dirs[1], "g0"), 0);
  assertEquals(c.create(dirs[2], "new").status, 0);
});

Deno.test("StoreServer refuses what exceeds the volume's size", () => {
  const c = new Cluster(2 ** 20), file = c.create(c.root, "f").inode;
  let offset = 0, status = 0;
  for (; status === 0 && offset < 2 ** 21; offset += 65536) {
    const data = new Uint8Array(65536).fill(1);
    status = c.call(m.APPEND, file, { inode: file, killSetId: false }, data).status;
  }
  assertEquals(status, E.NOSPC);
  assert(offset > 2 ** 20 - 3 * 65536, `full at ${offset}`);
  assertEquals(c.call(m.UNLINK, c.root, { dir: c.root, name: bytes("f") }).status, 0);
  const again = c.create(c.root, "g");
  assertEquals(again.status, 0);
});
