/**
 * The check of a cluster's records, pure: it is given every record of every shard once, shard by shard, and then says
 * what does not fit together. Records of several shards may come interleaved; within a shard those of kind K come
 * before those of kind E (that is: from K on to the end, then from the start to K), else in any order.
 *
 * It reads the stored layout (core/meta/layout.ts) and shares no code with what writes it. One pass over a cluster at
 * work sees things half done; who calls it repeats the pass and believes what stays the same (core/check/walk.ts).
 *
 * @module
 */

import { chunkBytesMax, decodeChunk, granuleBytes, isBlock } from "../data/chunk_record.ts";
import { failed } from "../errno.ts";
import { accessAclName, aclPermissions, capabilityName, decodeAcl, defaultAclName, sameName } from "../meta/acl.ts";
import { actions, intentKind, intentRecord, stepRecord } from "../meta/intent.ts";
import { S } from "../meta/attributes.ts";
import {
  decodeAttributes,
  dentry,
  dentryKey,
  fileBytesMax,
  inlineBytesMax,
  keyNumber,
  kind,
  nameBytesMax,
  replyRecord,
  rootSequence,
  sequenceLimit,
  shardOf,
  shardState,
  targetBytesMax,
  usage as usageRecord,
  xattrBytesMax,
} from "../meta/layout.ts";
import { renameState } from "../meta/ops/rename.ts";
import { truncateState } from "../meta/ops/setattr.ts";
import { maskRecord } from "../meta/ops/write.ts";
import { placesRecord } from "../meta/places.ts";
import { discMax } from "../meta/tree.ts";
import { chunkShard } from "../placement/hash.ts";
import { type ClusterMap, rootInode, volumeState } from "../placement/map.ts";
import { nameHash } from "../placement/siphash.ts";
import { decode, DecodeError } from "../protocol/codec.ts";
import { LINK, MKDIR, RENAME, RMDIR, UNLINK } from "../protocol/messages.ts";
import type { EntryPlace, Finding, Repair } from "./finding.ts";
import { judge } from "./judge.ts";
import type { Complaint, Observed, ShardFacts, VolumeUsage } from "./observed.ts";
import { BlockSet, floorPart, InodeTable, NameTable, PartTable, seen } from "./tables.ts";

/** Findings that are kept; more are counted. */
export const findingsMax = 10_000;

/** See the module's comment. */
export class Checker implements Observed {
  readonly atRest: boolean;
  readonly inodes = new InodeTable();
  readonly names = new NameTable();
  readonly parts = new PartTable();
  readonly charged = new Map<number, readonly VolumeUsage[] | null>();
  readonly chunkBytes = new Map<number, Map<number, number>>();
  readonly facts = new Map<number, ShardFacts>();
  readonly intents: Observed["intents"] = [];
  readonly born: Observed["born"] = [];
  readonly held: Observed["held"] = [];
  readonly credits: Observed["credits"] = [];
  readonly strangers: Observed["strangers"] = new Map();
  readonly roots: ReadonlySet<number>;
  readonly liveSessions: ReadonlySet<number>;
  /** Records read so far, by what they are. */
  readonly counts = { records: 0, inodes: 0, names: 0, chunks: 0, dataBytes: 0 };
  /** Findings beyond {@linkcode findingsMax}. */
  omitted = 0;
  #findings: Finding[] = [];
  #blocks = new Map<string, BlockSet>();
  #volumes: ReadonlyMap<number, number>;

  constructor(readonly map: ClusterMap, options: { atRest: boolean }) {
    this.atRest = options.atRest;
    this.roots = new Set(map.volumes.map((volume) => rootInode(volume.id, map.shards)));
    this.liveSessions = new Set(map.sessions);
    this.#volumes = new Map(map.volumes.map((volume) => [volume.id, volume.state]));
  }

  /** Begins a shard. Give its records to what is returned, then end it. */
  shard(facts: ShardFacts): ShardScan {
    this.facts.set(facts.shard, facts);
    for (const inode of facts.opens) {
      const row = this.inodes.row(inode);
      this.inodes.seen[row] |= seen.open;
    }
    return new ShardScan(this, facts);
  }

  /** All records have been seen: what is wrong. */
  finish(): Finding[] {
    judge(this);
    return this.#findings;
  }

  /** Blocks that the chunks of a store use. */
  blocks(server: number, store: number): BlockSet {
    const key = `${server}/${store}`;
    let found = this.#blocks.get(key);
    if (found === undefined) this.#blocks.set(key, found = new BlockSet());
    return found;
  }

  volumeState(volume: number): number | undefined {
    return this.#volumes.get(volume);
  }

  /** A record of a volume that does not exist. */
  stranger(volume: number, shard: number, what: "inodes" | "chunks"): void {
    let found = this.strangers.get(volume);
    if (found === undefined) this.strangers.set(volume, found = { shard, inodes: 0, chunks: 0 });
    found[what]++;
  }

  add(finding: Complaint): void {
    if (this.#findings.length >= findingsMax) {
      this.omitted++;
      return;
    }
    const { kind, severity, shard, inode = 0, text, versions = [], about = [], entry, repair } = finding;
    const place = entry === undefined ? "" : `${entry.dir}/${entry.hash}/${entry.disc}`;
    const evidence = [kind, shard, inode, place, text, ...versions].join("|");
    const whom = [...new Set([inode, entry?.dir ?? 0, ...about])].filter((one) => one !== 0);
    this.#findings.push({ kind, severity, shard, inode, text, evidence, about: whom, entry, repair });
  }
}

/** Lengths of keys by kind, [least, most]. */
const keyLengths: Readonly<Record<number, readonly [number, number]>> = {
  [kind.shard]: [3, 3],
  [kind.usage]: [7, 7],
  [kind.inode]: [10, 10],
  [kind.hashKey]: [10, 10],
  [kind.dentry]: [17, 17],
  [kind.data]: [10, 10],
  [kind.symlink]: [10, 10],
  [kind.xattr]: [11, 10 + nameBytesMax],
  [kind.chunk]: [14, 14],
  [kind.floor]: [10, 10],
  [kind.orphan]: [10, 10],
  [kind.mask]: [10, 10],
  [kind.places]: [10, 10],
  [kind.intent]: [10, 10],
  [kind.step]: [13, 13],
  [kind.reply]: [12, 12],
  [kind.credit]: [13, 13],
};

/** Kinds whose key names an inode of the same shard. */
const nearKinds: ReadonlySet<number> = new Set([
  kind.inode,
  kind.hashKey,
  kind.dentry,
  kind.data,
  kind.symlink,
  kind.xattr,
  kind.orphan,
  kind.mask,
  kind.places,
]);
/** Kinds that a volume is charged for. */
const chargedKinds: ReadonlySet<number> = new Set([kind.inode, kind.data, kind.symlink, kind.chunk]);
/** Kinds that are better gone than damaged: what a name led to is found as lost, an answer is for a retry alone. */
const dispensableKinds: ReadonlySet<number> = new Set([kind.dentry, kind.reply, kind.credit]);
const types: ReadonlySet<number> = new Set(
  [S.IFSOCK, S.IFLNK, S.IFREG, S.IFBLK, S.IFDIR, S.IFCHR, S.IFIFO].map((type) => type >> 12),
);
const hashKeyBytes = 17;

/** Reads the records of one shard. */
export class ShardScan {
  readonly #checker: Checker;
  readonly #facts: ShardFacts;
  readonly #shard: number;
  readonly #hashKeys = new Map<number, Uint8Array>();
  readonly #stored: VolumeUsage[] = [];
  readonly #deadSessions = new Set<number>();
  #deadReplies = 0;
  readonly #blocks: BlockSet;
  /** Something charged could not be read. */
  #incomplete = false;
  #nextSequence = Infinity;
  #highestSequence = 0;
  /** The last entry's place, and the names seen under its hash. */
  #lastPlace: EntryPlace = { dir: 0, hash: 0, disc: 0 };
  #lastNames: Uint8Array[] = [];

  constructor(checker: Checker, facts: ShardFacts) {
    this.#checker = checker;
    this.#facts = facts;
    this.#shard = facts.shard;
    this.#blocks = checker.blocks(facts.server, facts.store);
  }

  /** One record. */
  record(key: Uint8Array, value: Uint8Array): void {
    this.#checker.counts.records++;
    const lengths = keyLengths[key[2]];
    if (lengths === undefined) return this.#damaged(key, "is of no known kind");
    if (key.length < lengths[0] || key.length > lengths[1]) {
      return this.#damaged(key, `has a key of ${key.length} bytes`);
    }
    const inode = nearKinds.has(key[2]) ? keyNumber(key, 3, 7) : 0;
    if (inode !== 0 && shardOf(inode) !== this.#shard) return this.#misplaced(key, inode, shardOf(inode));
    try {
      this.#read(key, value);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.#damaged(key, `cannot be read: ${error.message}`);
    }
  }

  /** The shard has been read. `charged`: what its store says; "stored": what its records say; null: do not compare. */
  end(charged: readonly VolumeUsage[] | "stored" | null): void {
    const checker = this.#checker, shard = this.#shard;
    // What cannot be read cannot be added up.
    checker.charged.set(shard, this.#incomplete ? null : charged === "stored" ? this.#stored : charged);
    if (this.#deadReplies > 0) {
      checker.add({
        kind: "reply",
        severity: "note",
        shard,
        text: `shard ${shard} keeps ${this.#deadReplies} answers for sessions that are dead`,
        repair: { do: "dropReplies", shard, sessions: [...this.#deadSessions] },
      });
    }
    if (!checker.atRest || this.#highestSequence < this.#nextSequence) return;
    checker.add({
      kind: "counter",
      severity: "error",
      shard,
      text: `the next inode number would be ${this.#nextSequence}, but ${this.#highestSequence} is in use`,
    });
  }

  #read(key: Uint8Array, value: Uint8Array): void {
    const { inodes } = this.#checker;
    let row: number;
    switch (key[2]) {
      case kind.shard:
        this.#nextSequence = decode(shardState, value).nextSequence;
        return;
      case kind.usage:
        this.#stored.push({ volume: keyNumber(key, 3, 4), ...decode(usageRecord, value) });
        return;
      case kind.inode:
        return this.#inode(key, value);
      case kind.hashKey:
        if (value.length !== hashKeyBytes) throw new DecodeError(`${value.length} bytes`);
        this.#hashKeys.set(keyNumber(key, 3, 7), value.slice());
        this.#saw(key, seen.hashKey);
        return;
      case kind.dentry:
        return this.#entry(key, value);
      case kind.data:
        if (value.length > inlineBytesMax) throw new DecodeError(`${value.length} bytes of inline data`);
        row = this.#saw(key, seen.data);
        inodes.inlineBytes[row] = value.length;
        return;
      case kind.symlink:
        if (value.length === 0 || value.length > targetBytesMax) {
          throw new DecodeError(`a target of ${value.length} bytes`);
        }
        row = this.#saw(key, seen.target);
        inodes.targetBytes[row] = value.length;
        return;
      case kind.xattr:
        return this.#xattr(key, value);
      case kind.chunk:
        return this.#chunk(key, value);
      case kind.floor:
        return this.#floor(key, value);
      case kind.orphan:
        if (value.length !== 4) throw new DecodeError(`${value.length} bytes`);
        this.#saw(key, seen.orphan);
        return;
      case kind.mask:
        decode(maskRecord, value);
        this.#saw(key, seen.mask);
        return;
      case kind.places:
        decode(placesRecord, value);
        this.#saw(key, seen.places);
        return;
      case kind.intent:
        return this.#intent(key, value);
      case kind.step:
        return this.#step(key, value);
      case kind.reply:
        return this.#reply(key, value);
      case kind.credit:
        return this.#credit(key, value);
    }
  }

  #saw(key: Uint8Array, what: number): number {
    const { inodes } = this.#checker, row = inodes.row(keyNumber(key, 3, 7));
    inodes.seen[row] |= what;
    return row;
  }

  #xattr(key: Uint8Array, value: Uint8Array): void {
    if (value.length > xattrBytesMax) throw new DecodeError(`a value of ${value.length} bytes`);
    const { inodes } = this.#checker, row = this.#saw(key, seen.xattr), name = key.subarray(10);
    if (sameName(name, capabilityName)) inodes.seen[row] |= seen.capability;
    const access = sameName(name, accessAclName);
    if (!access && !sameName(name, defaultAclName)) return;
    inodes.seen[row] |= access ? seen.accessAcl : seen.defaultAcl;
    const acl = decodeAcl(value);
    if (failed(acl) || acl.length === 0) throw new DecodeError("it is no ACL");
    if (access) inodes.aclPermissions[row] = aclPermissions(acl) + 1;
  }

  #inode(key: Uint8Array, value: Uint8Array): void {
    const checker = this.#checker, { inodes } = checker, inode = keyNumber(key, 3, 7);
    const read = decodeAttributes(inode, value), sequence = inode % sequenceLimit;
    if (!types.has(read.mode >>> 12)) throw new DecodeError(`mode 0${read.mode.toString(8)}`);
    if (read.size > fileBytesMax) throw new DecodeError(`size ${read.size}`);
    if (sequence < rootSequence) this.#highestSequence = Math.max(this.#highestSequence, sequence);
    checker.counts.inodes++;
    if (checker.volumeState(read.volume) === undefined) checker.stranger(read.volume, this.#shard, "inodes");
    const row = this.#saw(key, seen.inode);
    inodes.type[row] = read.mode >>> 12;
    inodes.mode[row] = read.mode;
    inodes.flags[row] = read.flags;
    inodes.nlink[row] = read.nlink;
    inodes.entries[row] = read.entries;
    inodes.volume[row] = read.volume;
    inodes.version[row] = read.version;
    inodes.parent[row] = read.parent;
    inodes.size[row] = read.size;
    inodes.blocks[row] = read.blocks;
    inodes.gen[row] = read.gen;
  }

  #entry(key: Uint8Array, value: Uint8Array): void {
    const checker = this.#checker, { inodes } = checker;
    const place = { dir: keyNumber(key, 3, 7), hash: keyNumber(key, 10, 6), disc: key[16] };
    const { inode, type, name } = decode(dentry, value);
    checker.counts.names++;
    const dir = inodes.row(place.dir), target = inodes.row(inode);
    inodes.names[target]++;
    inodes.ownNames[dir]++;
    if (type === S.IFDIR >> 12) inodes.ownDirectories[dir]++;
    checker.names.add({ dir, target, place: place.hash * 32 + place.disc, type });
    this.#judgeName(place, name, inode);
  }

  #judgeName(place: EntryPlace, name: Uint8Array, inode: number): void {
    const wrong = (text: string, repair: Repair) => {
      const entry = place, about = [inode];
      this.#checker.add({ kind: "name", severity: "error", shard: this.#shard, text, entry, about, repair });
    };
    if (!isName(name)) return wrong("is no name that a file can have", { do: "dropName", ...place });
    if (place.dir !== this.#lastPlace.dir || place.hash !== this.#lastPlace.hash) this.#lastNames.length = 0;
    this.#lastPlace = place;
    if (this.#lastNames.some((other) => sameBytes(other, name))) {
      return wrong("is there a second time in its directory", { do: "dropName", ...place });
    }
    this.#lastNames.push(name);
    const hashKey = this.#hashKeys.get(place.dir);
    if (hashKey === undefined) return;
    const lookedFor = place.disc <= discMax && (place.disc === 0 || hashKey[16] !== 0) &&
      nameHash(hashKey.subarray(0, 16), name) === place.hash;
    if (!lookedFor) wrong("lies where nobody looks for it", { do: "placeName", ...place });
  }

  #chunk(key: Uint8Array, value: Uint8Array): void {
    const checker = this.#checker, { counts, inodes, map } = checker, shard = this.#shard;
    const inode = keyNumber(key, 3, 7), chunk = keyNumber(key, 10, 4), { volume, granules } = decodeChunk(value);
    if (chunk * chunkBytesMax >= fileBytesMax) return this.#damaged(key, `has the number ${chunk}`);
    const home = chunk === 0 ? shardOf(inode) : chunkShard(inode, chunk, map.shards);
    let blocks = 0, dataEnd = 0;
    for (let at = 0; at < granules.length; at += 2) {
      if (granules[at] === 0) continue;
      blocks++;
      if (!isBlock(granules[at])) continue;
      dataEnd = at / 2 + 1;
      if (!this.#blocks.add(granules[at])) this.#sharedBlock(inode, chunk, granules[at]);
    }
    counts.chunks++;
    counts.dataBytes += blocks * granuleBytes;
    let bytes = checker.chunkBytes.get(shard);
    if (bytes === undefined) checker.chunkBytes.set(shard, bytes = new Map());
    bytes.set(volume, (bytes.get(volume) ?? 0) + blocks * granuleBytes);
    if (home !== shard) return this.#misplaced(key, inode, home);
    const state = checker.volumeState(volume);
    if (state === volumeState.deleting) return;
    if (state === undefined) return checker.stranger(volume, shard, "chunks");
    const row = this.#saw(key, chunk === 0 ? seen.chunkZero : seen.farChunk), count = granules.length / 2;
    inodes.chunkBlocks[row] += blocks;
    // Room may lie behind the end of a file (fallocate), data may not.
    if (dataEnd > 0) {
      inodes.dataEnd[row] = Math.max(inodes.dataEnd[row], chunk * chunkBytesMax + dataEnd * granuleBytes);
    }
    checker.parts.add({ owner: row, shard, chunk, volume, granules: dataEnd, blocks });
    if (count === 0 || granules[2 * count - 2] === 0) {
      checker.add({
        kind: "part",
        severity: "warning",
        shard,
        inode,
        text: `chunk ${chunk} of inode ${inode} ends with a hole`,
        repair: { do: "cutChunk", shard, inode, chunk, granules: count },
      });
    }
  }

  #sharedBlock(inode: number, chunk: number, block: number): void {
    const { shard, server, store } = this.#facts;
    const text = `chunk ${chunk} of inode ${inode} uses block ${block} of server ${server} store ${store}, ` +
      "which another chunk uses too";
    this.#checker.add({ kind: "block", severity: "error", shard, inode, text });
  }

  #floor(key: Uint8Array, value: Uint8Array): void {
    const { inodes, parts } = this.#checker;
    if (value.length !== 16) throw new DecodeError(`${value.length} bytes`);
    const view = new DataView(value.buffer, value.byteOffset, 16), gen = view.getFloat64(0, true);
    if (![gen, view.getFloat64(8, true)].every((one) => Number.isSafeInteger(one) && one >= 0)) {
      throw new DecodeError("no generation");
    }
    const row = this.#saw(key, seen.floor);
    inodes.floor[row] = Math.max(inodes.floor[row], gen);
    parts.add({ owner: row, shard: this.#shard, chunk: floorPart, volume: 0, granules: 0, blocks: 0 });
  }

  #intent(key: Uint8Array, value: Uint8Array): void {
    const about = inodesOf(decode(intentRecord, value));
    this.#checker.intents.push({ shard: this.#shard, n: keyNumber(key, 3, 7), key: key.slice(), about });
  }

  #step(key: Uint8Array, value: Uint8Array): void {
    const { born, held } = this.#checker, driver = keyNumber(key, 3, 2), n = keyNumber(key, 5, 7);
    const { holds, outcome, intent } = decode(stepRecord, value);
    if (holds !== null) held.push({ shard: this.#shard, driver, n, key: key.slice(), dir: holds.dir });
    if (decode(intentRecord, intent).kind !== intentKind.makeDirectory) return;
    born.push({ driver, n, inode: decode(actions.makeDirectory.outcome, outcome).attributes.inode });
  }

  #reply(key: Uint8Array, value: Uint8Array): void {
    const { liveSessions, map } = this.#checker, session = keyNumber(key, 3, 7);
    decode(replyRecord, value);
    if (session > map.sessionHorizon || liveSessions.has(session)) return;
    this.#deadSessions.add(session);
    this.#deadReplies++;
  }

  #credit(key: Uint8Array, value: Uint8Array): void {
    const volume = keyNumber(key, 3, 4);
    this.#checker.credits.push({
      shard: this.#shard,
      key: key.slice(),
      volume,
      server: keyNumber(key, 7, 4),
      store: keyNumber(key, 11, 2),
      given: { volume, ...decode(usageRecord, value) },
    });
  }

  #damaged(key: Uint8Array, how: string): void {
    const named = key.length >= 10 && (nearKinds.has(key[2]) || key[2] === kind.chunk);
    const inode = named ? keyNumber(key, 3, 7) : 0;
    if (key[2] === kind.inode && named) this.#saw(key, seen.damaged);
    this.#incomplete ||= chargedKinds.has(key[2]);
    this.#checker.add({
      kind: "record",
      severity: "error",
      shard: this.#shard,
      inode,
      text: `record ${describeKey(key)} ${how}`,
      repair: dispensableKinds.has(key[2]) ? { do: "dropRecord", key: key.slice() } : undefined,
    });
  }

  #misplaced(key: Uint8Array, inode: number, home: number): void {
    this.#incomplete ||= chargedKinds.has(key[2]);
    const text = `record ${describeKey(key)} lies in shard ${this.#shard}, its place is shard ${home}`;
    this.#checker.add({ kind: "place", severity: "error", shard: this.#shard, inode, text });
  }
}

/** Kind and rest of a key, for people. */
export function describeKey(key: Uint8Array): string {
  const letter = key[2] > 0x40 && key[2] < 0x5b ? String.fromCharCode(key[2]) : `0x${key[2]?.toString(16)}`;
  return `${letter} ${key.subarray(3, 40).toHex()}`.trim();
}

/** Key of a name's place. */
export function entryKey({ dir, hash, disc }: EntryPlace): Uint8Array {
  return dentryKey(dir, hash, disc);
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function isName(name: Uint8Array): boolean {
  if (name.length === 0 || name.length > nameBytesMax || name.includes(0) || name.includes(0x2f)) return false;
  return !(name[0] === 0x2e && (name.length === 1 || (name.length === 2 && name[1] === 0x2e)));
}

/** Inodes on which an intent works, as far as its record says. */
function inodesOf({ kind, request, state }: { kind: number; request: Uint8Array; state: Uint8Array }): number[] {
  switch (kind) {
    case intentKind.makeDirectory:
      return [decode(MKDIR.request, request).dir];
    case intentKind.removeDirectory:
      return [decode(RMDIR.request, request).dir];
    case intentKind.unlink:
      return [decode(UNLINK.request, request).dir];
    case intentKind.link: {
      const { dir, inode } = decode(LINK.request, request);
      return [dir, inode];
    }
    case intentKind.rename: {
      const { dir, newDir } = decode(RENAME.request, request), { inode, victim } = decode(renameState, state);
      return [dir, newDir, inode, victim];
    }
    case intentKind.truncate:
      return [decode(truncateState, state).inode];
  }
  throw new DecodeError(`intent of kind ${kind}`);
}
