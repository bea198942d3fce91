/**
 * A small file server in memory behind three scripted stores: enough of every message to test the client, with every
 * request on record. All stores share one state; it does not check who is asked, the tests do.
 */

import { ClientSession, type ClientSessionOptions } from "../../../core/client/session.ts";
import { VolumeClient } from "../../../core/client/volume_client.ts";
import { E } from "../../../core/errno.ts";
import { type Attributes, inodeFlags, S } from "../../../core/meta/attributes.ts";
import { inodeNumber, shardOf } from "../../../core/meta/layout.ts";
import { LockList, lockType, type SessionLock } from "../../../core/meta/lock_ranges.ts";
import { rootInode } from "../../../core/placement/map.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import { status } from "../../../core/protocol/frame.ts";
import { GRANTED, setattrValid } from "../../../core/protocol/messages.ts";
import { type Asked, fakeMap, FakeNetwork, FakeRuntime, FakeStore, type Said } from "../fake.ts";

/** Bytes of a chunk. */
export const chunk = 1 << 20;
const bias = 2 ** 31;
const none = Number.MAX_SAFE_INTEGER;

/** Text as bytes. */
export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

interface Node {
  attributes: Attributes;
  entries: Map<string, number>;
  chunks: Map<number, Uint8Array>;
}

/** See the module's comment. */
export class FakeCluster {
  readonly runtime = new FakeRuntime();
  readonly network = new FakeNetwork(this.runtime);
  readonly maps: MapHolder;
  readonly session: ClientSession;
  readonly volume: VolumeClient;
  readonly nodes = new Map<number, Node>();
  readonly locks = new Map<number, LockList>();
  readonly waiting: { inode: number; lock: SessionLock; ticket: number }[] = [];
  readonly opens = new Map<number, number>();
  /** Gens of truncations that far chunks have seen. */
  readonly floors = new Map<number, number>();
  readonly asked: Asked[] = [];
  deaths = 0;
  /** Said instead of the usual when it returns something. */
  before: (asked: Asked) => Said | undefined = () => undefined;
  #sequence = 2;

  constructor(stores: number[] = [1, 1, 1], options: Partial<ClientSessionOptions> = {}) {
    this.maps = new MapHolder(fakeMap(1, stores));
    stores.forEach((count, i) => {
      for (let store = 0; store < count; store++) {
        this.network.stores.push(new FakeStore(i + 1, store, (asked) => this.#answer(asked)));
      }
    });
    const { runtime, network, maps } = this;
    const onSessionDead = () => void this.deaths++;
    this.session = new ClientSession({ runtime, network, maps, secret: null, session: 5, onSessionDead, ...options });
    this.volume = new VolumeClient(this.session, { volumeId: 1 });
    this.#make(S.IFDIR | 0o755, rootInode(1, 16));
  }

  /** The store of a server's first reactor. */
  store(serverId: number): FakeStore {
    return this.network.stores.find((one) => one.serverId === serverId)!;
  }

  /** Names of the requests since the last call, without upkeep. */
  names(): string[] {
    const names = this.asked.map((one) => one.message.name).filter((name) => name !== "PING" && name !== "RECLAIM");
    this.asked.length = 0;
    return names;
  }

  /** Makes a file in the shard given, named in the root. */
  file(name: string, shard: number, size = 0): Attributes {
    const node = this.#make(S.IFREG | 0o644, inodeNumber(shard, this.#sequence++));
    node.attributes.size = size;
    this.nodes.get(this.volume.root)!.entries.set(name, node.attributes.inode);
    return node.attributes;
  }

  #make(mode: number, inode: number): Node {
    const time = { sec: 1, nsec: 0 };
    const attributes: Attributes = {
      inode,
      mode,
      nlink: 1,
      uid: 0,
      gid: 0,
      rdev: 0,
      size: 0,
      blocks: 0,
      atime: time,
      mtime: time,
      ctime: time,
      btime: time,
      version: 1,
      gen: 0,
      volume: 1,
      parent: this.volume.root,
      entries: 0,
      flags: 0,
    };
    const node = { attributes, entries: new Map(), chunks: new Map() };
    this.nodes.set(inode, node);
    return node;
  }

  #answer(asked: Asked): Said {
    this.asked.push(asked);
    const special = this.before(asked);
    if (special !== undefined) return special;
    const { body, data } = asked, node = this.nodes.get(body.inode ?? body.dir);
    if (node === undefined && (body.inode !== undefined || body.dir !== undefined)) return { status: E.STALE };
    const near = (inode: number) => shardOf(inode) === asked.head.shard ? this.nodes.get(inode)!.attributes : null;
    switch (asked.message.name) {
      case "LOOKUP": {
        const inode = node!.entries.get(new TextDecoder().decode(body.name));
        if (inode === undefined) return { status: E.NOENT };
        const type = this.nodes.get(inode) === undefined ? 8 : this.nodes.get(inode)!.attributes.mode >>> 12;
        return { body: { inode, type, attributes: this.nodes.has(inode) ? near(inode) : null } };
      }
      case "GETATTR":
        return { body: { attributes: node!.attributes } };
      case "GETATTRS":
        return { body: { found: body.inodes.map((inode: number) => this.nodes.get(inode)?.attributes ?? null) } };
      case "OPEN":
        this.opens.set(body.inode, Math.max(body.openId, this.opens.get(body.inode) ?? 0));
        return { body: { attributes: node!.attributes } };
      case "RELEASE":
        for (const one of body.closes) if ((this.opens.get(one.inode) ?? 0) <= one.openId) this.opens.delete(one.inode);
        return {};
      case "CREATE":
        return this.#create(asked, node!);
      case "SETATTR":
        if ((body.valid & setattrValid.size) !== 0) this.#resize(node!, body.size);
        if ((body.valid & setattrValid.mode) !== 0) {
          node!.attributes.mode = (node!.attributes.mode & S.IFMT) | body.mode;
        }
        if ((body.valid & setattrValid.killSetId) !== 0) node!.attributes.mode &= ~(S.ISUID | S.ISGID);
        return { body: { attributes: node!.attributes } };
      case "READDIR": {
        const entries = [...node!.entries].map(([name, inode], i) => ({
          name: bytes(name),
          inode,
          type: 8,
          cookie: i + 3,
          attributes: body.plus && this.nodes.has(inode) ? near(inode) : null,
        }));
        return { body: { entries: entries.filter((one) => one.cookie > body.cookie), end: true } };
      }
      case "READ": {
        const { size } = node!.attributes;
        const count = Math.max(0, Math.min(body.length, Math.min(size, chunk) - body.offset));
        const out = new Uint8Array(count);
        const have = node!.chunks.get(0) ?? new Uint8Array(0);
        out.set(have.subarray(body.offset, body.offset + count));
        return { body: { size, version: 1, gen: node!.attributes.gen }, data: out };
      }
      case "READ_CHUNK":
        return {
          body: { floor: this.floors.get(body.inode) ?? 0 },
          data: node!.chunks.get(body.chunk)?.slice(body.offset, body.offset + body.length),
        };
      case "WRITE":
        if (body.far !== null && body.far.gen < node!.attributes.gen) return { status: status.staleGen };
        this.#put(node!, 0, body.offset, data);
        node!.attributes.size = Math.max(node!.attributes.size, body.far?.size ?? 0, body.offset + data.length);
        if (body.far !== null) {
          node!.attributes.flags |= inodeFlags.far;
          node!.attributes.blocks += body.far.blocksDelta - bias;
        }
        return { body: written(node!) };
      case "WRITE_CHUNK":
        if (body.gen < node!.attributes.gen) return { status: status.staleGen };
        return { body: { blocksDelta: bias + this.#put(node!, body.chunk, body.offset, data) } };
      case "COPY":
        this.#put(node!, 0, body.offset, sourceOf(this.nodes.get(body.source.inode)!, body));
        node!.attributes.size = Math.max(node!.attributes.size, body.far?.size ?? 0, body.offset + body.length);
        return { body: written(node!) };
      case "COPY_CHUNK": {
        if (body.gen < node!.attributes.gen) return { status: status.staleGen };
        const data = sourceOf(this.nodes.get(body.source.inode)!, body);
        return { body: { blocksDelta: bias + this.#put(node!, body.chunk, body.offset, data) } };
      }
      case "PUBLISH":
        if (body.gen < node!.attributes.gen) return { status: status.staleGen };
        node!.attributes.flags |= inodeFlags.far;
        node!.attributes.size = Math.max(node!.attributes.size, body.size);
        node!.attributes.blocks += body.blocksDelta - bias;
        return { body: written(node!) };
      case "APPEND": {
        const offset = node!.attributes.size;
        for (let at = 0; at < data.length;) {
          const within = (offset + at) % chunk, count = Math.min(data.length - at, chunk - within);
          this.#put(node!, Math.floor((offset + at) / chunk), within, data.subarray(at, at + count));
          at += count;
        }
        node!.attributes.size += data.length;
        return { body: { offset, ...written(node!) } };
      }
      case "SEEK_CHUNK": {
        const have = (node!.chunks.get(body.chunk) ?? new Uint8Array(0)).length;
        if (body.hole) {
          return { body: { offset: Math.max(body.offset, have) >= chunk ? 2 ** 32 - 1 : Math.max(body.offset, have) } };
        }
        return { body: { offset: body.offset < have ? body.offset : 2 ** 32 - 1 } };
      }
      case "NEXT_DATA": {
        const found = [...node!.chunks.keys()].filter((n) => n > 0 && (n + 1) * chunk > body.offset).sort((a, b) =>
          a - b
        );
        return { body: { offset: found.length === 0 ? none : Math.max(body.offset, found[0] * chunk) } };
      }
      case "FALLOCATE":
        if ((body.mode & 2) !== 0) this.#punch(node!, body.offset, body.offset + body.length);
        return {};
      case "STATFS":
        return { body: { usedBytes: 1000, inodes: 7, freeBytes: 1e6, totalBytes: 2e6 } };
      case "TESTLOCK": {
        const { session } = asked.head, blocker = this.#lockList(body.inode).conflict({ ...body.lock, session });
        return {
          body: { lock: blocker ?? { ...body.lock, type: lockType.unlock }, session: blocker?.session ?? session },
        };
      }
      case "SETLOCK":
        return this.#setLock(asked);
      case "CANCELLOCK": {
        const at = this.waiting.findIndex((one) => one.ticket === body.ticket);
        if (at >= 0) this.waiting.splice(at, 1);
        return { body: { granted: at < 0 } };
      }
      case "DROPLOCKS": {
        this.#lockList(body.inode).release({ ...body.lock, session: asked.head.session });
        this.#wake();
        return {};
      }
      case "RECLAIM":
        for (const { inode, openId } of body.opens) this.opens.set(inode, openId);
        for (const { inode, lock } of body.locks) this.#lockList(inode).set({ ...lock, session: asked.head.session });
        return {};
      case "MKDIR":
        return {
          body: { attributes: this.#make(body.mode & ~body.umask, inodeNumber(9, this.#sequence++)).attributes },
        };
      case "READLINK":
        return { body: { target: bytes("there") } };
      case "LINK":
        return { body: { attributes: node!.attributes } };
      case "GETXATTR":
        return { body: { value: bytes("value") } };
      case "LISTXATTR":
        return { body: { names: bytes("user.a\0") } };
      default:
        return {};
    }
  }

  #create(asked: Asked, dir: Node): Said {
    const { body } = asked, name = new TextDecoder().decode(body.name);
    const known = dir.entries.get(name);
    if (known !== undefined) {
      if (body.exclusive) return { status: E.EXIST };
      const { mode } = this.nodes.get(known)!.attributes;
      const attributes = shardOf(known) === asked.head.shard ? this.nodes.get(known)!.attributes : null;
      if (attributes !== null && body.openId !== 0) this.opens.set(known, body.openId);
      if (attributes !== null && body.truncate) this.#resize(this.nodes.get(known)!, 0);
      return { body: { created: false, inode: known, type: mode >>> 12, attributes } };
    }
    const node = this.#make(body.mode & ~body.umask, inodeNumber(asked.head.shard, this.#sequence++));
    dir.entries.set(name, node.attributes.inode);
    if (body.openId !== 0) this.opens.set(node.attributes.inode, body.openId);
    return {
      body: { created: true, inode: node.attributes.inode, type: body.mode >>> 12, attributes: node.attributes },
    };
  }

  /** Returns the change in 512-byte units. */
  #put(node: Node, index: number, offset: number, data: Uint8Array): number {
    const have = node.chunks.get(index) ?? new Uint8Array(0);
    const next = new Uint8Array(Math.max(have.length, offset + data.length));
    next.set(have);
    next.set(data, offset);
    node.chunks.set(index, next);
    return Math.ceil(next.length / 4096) * 8 - Math.ceil(have.length / 4096) * 8;
  }

  #resize(node: Node, size: number): void {
    if (size < node.attributes.size) {
      node.attributes.gen++;
      for (const [index, data] of node.chunks) {
        const keep = Math.max(0, size - index * chunk);
        if (keep === 0) node.chunks.delete(index);
        else node.chunks.set(index, data.slice(0, keep));
      }
    }
    node.attributes.size = size;
  }

  #punch(node: Node, start: number, end: number): void {
    for (const [index, data] of node.chunks) {
      const from = Math.max(0, start - index * chunk), to = Math.min(data.length, end - index * chunk);
      if (from < to) data.fill(0, from, to);
    }
  }

  #lockList(inode: number): LockList {
    let list = this.locks.get(inode);
    if (list === undefined) this.locks.set(inode, list = new LockList());
    return list;
  }

  #setLock(asked: Asked): Said {
    const { inode, ticket } = asked.body, lock = { ...asked.body.lock, session: asked.head.session };
    if (this.waiting.some((one) => one.ticket === ticket)) return { status: E.AGAIN };
    const blocker = this.#lockList(inode).acquire(lock);
    if (blocker === null) {
      this.#wake();
      return {};
    }
    if (ticket !== 0) this.waiting.push({ inode, lock, ticket });
    return { status: E.AGAIN };
  }

  #wake(): void {
    for (const one of [...this.waiting]) {
      if (this.#lockList(one.inode).acquire(one.lock) !== null) continue;
      this.waiting.splice(this.waiting.indexOf(one), 1);
      for (const store of this.network.stores) store.push(GRANTED, { inode: one.inode, ticket: one.ticket });
    }
  }
}

function written({ attributes: { size, blocks, mtime } }: Node) {
  return { size, blocks, mtime, version: 1 };
}

function sourceOf(from: Node, body: { source: { chunk: number; offset: number }; length: number }): Uint8Array {
  const { chunk, offset } = body.source, data = new Uint8Array(body.length);
  data.set((from.chunks.get(chunk) ?? new Uint8Array(0)).subarray(offset, offset + body.length));
  return data;
}
