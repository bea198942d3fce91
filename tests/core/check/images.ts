/**
 * A small cluster as records in a map: what the tests of core/check damage, check and repair. Written with the stored
 * layout alone.
 *
 * @module
 */

import { Checker } from "../../../core/check/check.ts";
import { type Finding, repairPhase } from "../../../core/check/finding.ts";
import { planRepair, type Records, type RepairStep, type StoredRecord } from "../../../core/check/repair.ts";
import { encodeChunk, granuleBytes } from "../../../core/data/chunk_record.ts";
import { accessAclName, capabilityName, defaultAclName, encodeAcl } from "../../../core/meta/acl.ts";
import { type Attributes, inodeFlags, S } from "../../../core/meta/attributes.ts";
import {
  chunkKey,
  decodeAttributes,
  dentry,
  dentryKey,
  encodeAttributes,
  inodeKey,
  inodeNumber,
  Key,
  keyNumber,
  kind,
  shardOf,
  shardState,
  usage,
  xattrKey,
} from "../../../core/meta/layout.ts";
import { chunkShard } from "../../../core/placement/hash.ts";
import { type ClusterMap, rootInode } from "../../../core/placement/map.ts";
import { nameHash } from "../../../core/placement/siphash.ts";
import { decode, DecodeError, encode } from "../../../core/protocol/codec.ts";
import type { Task } from "../../../core/task.ts";
import { aclOf } from "../meta/acls.ts";

/** Shards of the cluster in tests. */
export const shards = 8;
/** Its one live volume. */
export const volume = 1;

/** Two servers with one store each; volume 2 is being deleted; session 4 is dead, 5 lives. */
export const map: ClusterMap = {
  epoch: 3,
  clusterId: "c",
  shards,
  replicas: 1,
  servers: [1, 2].map((id) => ({ id, address: `127.0.0.1:${id}`, stores: 1, weight: 1, state: 1 })),
  owners: Array.from({ length: shards }, (_, shard) => [1 + shard % 2]),
  volumes: [
    { id: 1, name: "v", sizeBytes: 1 << 30, state: 1, readOnly: false },
    { id: 2, name: "gone", sizeBytes: 1 << 30, state: 2, readOnly: false },
  ],
  sessionHorizon: 10,
  sessions: [5],
};

const encoder = new TextEncoder();
const time = { sec: 1, nsec: 2 };

/** What a new inode is given besides its number. */
export type Wanted = Partial<Omit<Attributes, "inode">> & { mode: number };

/** Records of a whole cluster. */
export class Image {
  readonly records = new Map<string, Uint8Array>();
  readonly root = rootInode(volume, shards);
  #next = 2;
  #block = 1;

  constructor() {
    for (let shard = 0; shard < shards; shard++) {
      this.put(
        new Key(shard, kind.shard, 3).done(),
        encode(shardState, { position: 1, nextSequence: 1e6, nextIntent: 2 }),
      );
    }
    this.inode(this.root, { mode: S.IFDIR | 0o755, nlink: 2, parent: this.root });
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.records.get(key.toHex());
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.records.set(key.toHex(), value.slice());
  }

  remove(key: Uint8Array): void {
    this.records.delete(key.toHex());
  }

  /** A number nobody has. */
  number(shard: number): number {
    return inodeNumber(shard, this.#next++);
  }

  block(): number {
    return this.#block++;
  }

  /** Stores an inode, with the key of its names if it is a directory, and charges it. */
  inode(inode: number, wanted: Wanted): number {
    const directory = (wanted.mode & S.IFMT) === S.IFDIR;
    const attributes: Attributes = {
      inode,
      nlink: directory ? 2 : 1,
      uid: 0,
      gid: 0,
      rdev: 0,
      size: directory ? 4096 : 0,
      blocks: directory ? 8 : 0,
      atime: time,
      mtime: time,
      ctime: time,
      btime: time,
      version: 1,
      gen: 0,
      volume,
      parent: 0,
      entries: 0,
      flags: 0,
      ...wanted,
    };
    this.put(inodeKey(shardOf(inode), kind.inode, inode), encodeAttributes(attributes));
    if (directory) {
      const value = new Uint8Array(17).fill(inode % 251);
      value[16] = 0;
      this.put(inodeKey(shardOf(inode), kind.hashKey, inode), value);
    }
    this.charge(shardOf(inode), 0, 1, attributes.volume);
    return inode;
  }

  attributes(inode: number): Attributes {
    return decodeAttributes(inode, this.get(inodeKey(shardOf(inode), kind.inode, inode))!);
  }

  /** Changes an inode's attributes. */
  edit(inode: number, change: Partial<Attributes>): void {
    const value = encodeAttributes({ ...this.attributes(inode), ...change });
    this.put(inodeKey(shardOf(inode), kind.inode, inode), value);
  }

  /** Where a name has to be. */
  place(dir: number, name: string, disc = 0): Uint8Array {
    const hashKey = this.get(inodeKey(shardOf(dir), kind.hashKey, dir))!;
    return dentryKey(dir, nameHash(hashKey.subarray(0, 16), encoder.encode(name)), disc);
  }

  /** Puts a name into a directory, without its counts. */
  entry(dir: number, name: string, inode: number, type: number): void {
    this.put(this.place(dir, name), encode(dentry, { inode, type, name: encoder.encode(name) }));
  }

  /** Puts a name into a directory, with its counts. */
  link(dir: number, name: string, inode: number): void {
    const { mode } = this.attributes(inode), { entries, nlink } = this.attributes(dir);
    const directory = (mode & S.IFMT) === S.IFDIR;
    this.entry(dir, name, inode, mode >>> 12);
    this.edit(dir, { entries: entries + 1, nlink: nlink + (directory ? 1 : 0) });
  }

  /** Makes a directory in a shard. */
  directory(parent: number, name: string, shard: number): number {
    const inode = this.inode(this.number(shard), { mode: S.IFDIR | 0o755, parent });
    this.link(parent, name, inode);
    return inode;
  }

  /** Makes a file in its directory's shard. */
  file(parent: number, name: string, wanted: Partial<Wanted> = {}): number {
    const inode = this.inode(this.number(shardOf(parent)), { mode: S.IFREG | 0o644, parent, ...wanted });
    this.link(parent, name, inode);
    return inode;
  }

  /** Gives a file inline data. */
  inline(inode: number, bytes: number): void {
    this.put(inodeKey(shardOf(inode), kind.data, inode), new Uint8Array(bytes).fill(1));
    const { flags } = this.attributes(inode);
    this.edit(inode, { size: bytes, blocks: Math.ceil(bytes / 4096) * 8, flags: flags | inodeFlags.inline });
    this.charge(shardOf(inode), bytes, 0);
  }

  /** Shard of a chunk. */
  home(inode: number, chunk: number): number {
    return chunk === 0 ? shardOf(inode) : chunkShard(inode, chunk, shards);
  }

  /** Gives a file a chunk with `granules` granules of data, without the inode knowing. */
  rawChunk(inode: number, chunk: number, granules: number, ofVolume = volume): Uint8Array {
    const list = new Uint32Array(2 * granules);
    for (let g = 0; g < granules; g++) list[2 * g] = this.block();
    const shard = this.home(inode, chunk), key = chunkKey(shard, inode, chunk);
    this.put(key, encodeChunk({ volume: ofVolume, gen: 0, granules: list }));
    this.charge(shard, granules * granuleBytes, 0, ofVolume);
    return key;
  }

  /** Gives a file a chunk, with blocks, size and flags. */
  chunk(inode: number, chunk: number, granules: number): Uint8Array {
    const key = this.rawChunk(inode, chunk, granules), { blocks, flags, size } = this.attributes(inode);
    this.edit(inode, {
      blocks: blocks + granules * 8,
      flags: chunk > 0 ? flags | inodeFlags.far : flags,
      size: Math.max(size, chunk * (1 << 20) + granules * granuleBytes),
    });
    return key;
  }

  charge(shard: number, bytes: number, inodes: number, ofVolume = volume): void {
    const key = new Key(shard, kind.usage, 7).u32(ofVolume).done(), value = this.get(key);
    const before = value === undefined ? { bytes: 0, inodes: 0 } : decode(usage, value);
    this.put(key, encode(usage, { bytes: before.bytes + bytes, inodes: before.inodes + inodes }));
  }

  /** Records of a shard, ascending. */
  shard(shard: number): StoredRecord[] {
    const prefix = new Key(shard, 0, 3).done().subarray(0, 2).toHex();
    return [...this.records].filter(([key]) => key.startsWith(prefix)).sort(([a], [b]) => a < b ? -1 : 1)
      .map(([key, value]) => ({ key: Uint8Array.fromHex(key), value }));
  }

  /** What is wrong with the cluster at rest. */
  check(opens: readonly number[] = [], ofMap = map, intents?: number): Finding[] {
    const checker = new Checker(ofMap, { atRest: intents === undefined });
    for (let shard = 0; shard < shards; shard++) {
      const open = opens.filter((inode) => shardOf(inode) === shard), server = 1 + shard % 2;
      const scan = checker.shard({ shard, server, store: 0, intents: intents ?? 0, opens: open, grace: false });
      const records = this.shard(shard), late = records.findIndex(({ key }) => key[2] >= kind.hashKey);
      for (const { key, value } of [...records.slice(late), ...records.slice(0, late)]) scan.record(key, value);
      scan.end("stored");
    }
    return checker.finish();
  }

  /** Repairs until nothing is left that can be. Returns the findings that are, and why repairs were refused. */
  repair(): { left: Finding[]; refused: string[] } {
    const refused = new Map<string, string>();
    for (let round = 0; round < 20; round++) {
      const left = this.check();
      const todo = left.filter(({ repair, evidence }) => repair !== undefined && !refused.has(evidence));
      if (todo.length === 0) return { left, refused: [...refused.values()] };
      const phase = Math.min(...todo.map(({ repair }) => repairPhase(repair!)));
      for (const finding of todo) {
        if (repairPhase(finding.repair!) !== phase) continue;
        const steps = this.#plan(finding);
        if (typeof steps === "string") refused.set(finding.evidence, steps);
        else for (const step of steps) this.#apply(step);
      }
    }
    throw new Error(`repairs do not end:\n${texts(this.check())}`);
  }

  #plan(finding: Finding): RepairStep[] | string {
    try {
      return now(planRepair(finding, this.#records()));
    } catch (error) {
      if (error instanceof DecodeError) return `a record cannot be read: ${error.message}`;
      throw error;
    }
  }

  #apply({ shard, changes, charges }: RepairStep): void {
    for (const { key, expected } of changes) {
      if (keyNumber(key, 0, 2) !== shard) throw new Error("a change in another shard");
      if (this.get(key)?.toHex() !== expected?.toHex()) throw new Error("a repair expects another value");
    }
    for (const { key, value } of changes) value === null ? this.remove(key) : this.put(key, value);
    for (const one of charges) this.charge(shard, one.bytesDelta, one.inodesDelta, one.volume);
  }

  #records(): Records {
    const image = this.records, lostAndFound = () => this.#lostAndFound();
    return {
      // deno-lint-ignore require-yield
      *read(key) {
        return image.get(key.toHex())?.slice() ?? null;
      },
      // deno-lint-ignore require-yield
      *list(prefix) {
        const found = [...image].filter(([key]) => key.startsWith(prefix.toHex()));
        return found.sort(([a], [b]) => a < b ? -1 : 1)
          .map(([key, value]) => ({ key: Uint8Array.fromHex(key), value: value.slice() }));
      },
      // deno-lint-ignore require-yield
      *lostAndFound() {
        return lostAndFound();
      },
      newHashKey: () => new Uint8Array(16).fill(77),
    };
  }

  #lostAndFound(): number {
    const shard = shardOf(this.root);
    for (const one of [kind.inode, kind.hashKey]) if (this.get(inodeKey(shard, one, this.root)) === undefined) return 0;
    const value = this.get(this.place(this.root, "lost+found"));
    return value === undefined ? this.directory(this.root, "lost+found", 3) : decode(dentry, value).inode;
  }
}

/** Runs a task that does not wait. */
export function now<T>(task: Task<T>): T {
  const at = task.next();
  if (!at.done) throw new Error("the task waits");
  return at.value;
}

/** Findings as lines. */
export function texts(findings: readonly Finding[]): string {
  return findings.map(({ kind, severity, text }) => `${severity} ${kind}: ${text}`).join("\n");
}

/** A clean cluster with something of everything. */
export function example(): Image & { a: number; b: number; small: number; big: number; hard: number; symlink: number } {
  const image = new Image();
  const a = image.directory(image.root, "a", 1), b = image.directory(a, "b", 2);
  image.directory(b, "empty", 5);
  const small = image.file(a, "small"), big = image.file(b, "big"), hard = image.file(a, "hard", { nlink: 2 });
  image.inline(small, 100);
  image.chunk(big, 0, 256);
  image.chunk(big, 1, 256);
  image.chunk(big, 5, 3);
  image.link(b, "hard too", hard);
  const symlink = image.file(b, "link", { mode: S.IFLNK | 0o777, size: 5 });
  image.put(inodeKey(shardOf(symlink), kind.symlink, symlink), encoder.encode("there"));
  image.charge(shardOf(symlink), 5, 0);
  image.file(a, "pipe", { mode: S.IFIFO | 0o644 });
  image.put(xattrKey(small, encoder.encode("user.x")), new Uint8Array(3));
  image.put(xattrKey(big, capabilityName), new Uint8Array(20));
  image.edit(big, { flags: image.attributes(big).flags | inodeFlags.capability });
  image.put(xattrKey(hard, accessAclName), encodeAcl(aclOf("u::rw- u:7:rwx g::--- m::r-- o::---")));
  image.edit(hard, { mode: S.IFREG | 0o640, flags: inodeFlags.accessAcl });
  image.put(xattrKey(b, defaultAclName), encodeAcl(aclOf("u::rwx g::r-x o::---")));
  image.edit(b, { flags: inodeFlags.defaultAcl });
  return Object.assign(image, { a, b, small, big, hard, symlink });
}
