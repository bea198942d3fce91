/**
 * Makes record changes of a repair. Pure but for the records it reads: what it reads becomes the expected old values, so
 * a repair either finds things as they were judged or does nothing.
 *
 * Repairs charge nothing: the next check finds usage that is off and {@linkcode Repair} "charge" sets it right. Data is
 * never made up: what cannot be repaired without guessing has no repair.
 *
 * @module
 */

import { type ChunkRecord, decodeChunk, encodeChunk } from "../data/chunk_record.ts";
import { type Attributes, isDirectory, S } from "../meta/attributes.ts";
import { stepRecord } from "../meta/intent.ts";
import {
  decodeAttributes,
  type Dentry,
  dentry,
  dentryKey,
  encodeAttributes,
  inodeKey,
  Key,
  keyNumber,
  kind,
  shardOf,
} from "../meta/layout.ts";
import { encodeFloor } from "../meta/ops/write.ts";
import { discMax } from "../meta/tree.ts";
import { nameHash } from "../placement/siphash.ts";
import { decode, encode } from "../protocol/codec.ts";
import type { Charge } from "../store/record.ts";
import type { Task } from "../task.ts";
import type { EntryPlace, Finding, InodeFix, Repair } from "./finding.ts";

/** A record as it is now. */
export interface StoredRecord {
  key: Uint8Array;
  value: Uint8Array;
}

/** The records that a plan looks at. */
export interface Records {
  read(key: Uint8Array): Task<Uint8Array | null>;
  /** Up to {@linkcode listMax} records whose keys begin with `prefix`. */
  list(prefix: Uint8Array): Task<StoredRecord[]>;
  /** The directory lost+found of a volume, made if there is none; 0 when it cannot be had. */
  lostAndFound(volume: number): Task<number>;
  /** 16 unpredictable bytes. */
  newHashKey(): Uint8Array;
}

/** A key, what it must have now (null: no such key), and what it gets. */
export interface RepairChange {
  key: Uint8Array;
  expected: Uint8Array | null;
  value: Uint8Array | null;
}

/** One record of changes in one shard. */
export interface RepairStep {
  shard: number;
  changes: RepairChange[];
  charges: Charge[];
}

/** Most records that {@linkcode Records.list} gives; what is left is found by the next check. */
export const listMax = 4096;
/** Most changes and bytes of a step. */
const stepChangesMax = 256, stepBytesMax = 512 * 1024;
/** Names that are tried in lost+found. */
const lostNamesMax = 16;
const directoryType = S.IFDIR >> 12;

/** The steps of a finding's repair, to be made in their order; a text says why there are none. */
export function* planRepair(finding: Finding, records: Records): Task<RepairStep[] | string> {
  const { repair } = finding;
  if (repair === undefined) return "nothing can be done without guessing";
  return yield* plan(repair, records);
}

function* plan(repair: Repair, records: Records): Task<RepairStep[] | string> {
  switch (repair.do) {
    case "dropName":
      return yield* dropName(records, repair);
    case "placeName":
      return yield* placeName(records, repair);
    case "typeName":
      return yield* typeName(records, repair, repair.type);
    case "dropNames":
      return yield* dropNames(records, repair.dir);
    case "newRoot":
      return yield* newRoot(records, repair);
    case "dropParts":
      return yield* dropParts(records, repair.inode, repair.shards);
    case "newHashKey":
      return yield* newHashKey(records, repair.dir);
    case "cutChunk":
      return yield* cutChunk(records, repair);
    case "lowerFloors":
      return yield* lowerFloors(records, repair);
    case "dropRecord":
      return batches(yield* present(records, [repair.key]));
    case "dropReplies":
      return yield* dropReplies(records, repair.shard, repair.sessions);
    case "freeName":
      return yield* freeName(records, repair.key);
    case "charge": {
      const { shard, volume, bytesDelta, inodesDelta } = repair;
      return [{ shard, changes: [], charges: [{ volume, bytesDelta, inodesDelta }] }];
    }
    case "adopt":
      return yield* adopt(records, repair.inode);
    case "dropInode":
      return yield* dropInode(records, repair.inode);
    case "markOrphan":
      return yield* markOrphan(records, repair.inode, repair.orphan);
    case "setInode":
      return yield* setInode(records, repair);
  }
}

const changed = "it has changed meanwhile";

function step(shard: number, changes: RepairChange[]): RepairStep {
  return { shard, changes, charges: [] };
}

function recordKey(inode: number): Uint8Array {
  return inodeKey(shardOf(inode), kind.inode, inode);
}

function removals(records: readonly StoredRecord[]): RepairChange[] {
  return records.map(({ key, value }) => ({ key, expected: value, value: null }));
}

/** Changes of any shards, cut into steps. */
function batches(changes: readonly RepairChange[]): RepairStep[] {
  const steps: RepairStep[] = [];
  let bytes = 0;
  for (const change of changes) {
    const shard = keyNumber(change.key, 0, 2), last = steps.at(-1);
    bytes += change.key.length + (change.expected?.length ?? 0) + (change.value?.length ?? 0);
    if (last?.shard === shard && last.changes.length < stepChangesMax && bytes <= stepBytesMax) {
      last.changes.push(change);
      continue;
    }
    steps.push(step(shard, [change]));
    bytes = change.key.length + (change.expected?.length ?? 0) + (change.value?.length ?? 0);
  }
  return steps;
}

/** Removals of those of `keys` that exist. */
function* present(records: Records, keys: readonly Uint8Array[]): Task<RepairChange[]> {
  const found: StoredRecord[] = [];
  for (const key of keys) {
    const value = yield* records.read(key);
    if (value !== null) found.push({ key, value });
  }
  return removals(found);
}

/** An inode and the change that stores it as `edit` makes it; null when there is none. */
function* editInode(
  records: Records,
  inode: number,
  edit: (attributes: Attributes) => void,
): Task<{ attributes: Attributes; change: RepairChange } | null> {
  const key = recordKey(inode), expected = yield* records.read(key);
  if (expected === null) return null;
  const attributes = decodeAttributes(inode, expected);
  edit(attributes);
  attributes.version++;
  return { attributes, change: { key, expected, value: encodeAttributes(attributes) } };
}

/** Changes a name and its directory's counts. */
function* changeName(
  records: Records,
  at: EntryPlace,
  edit: (entry: Dentry, dir: Attributes | null) => Dentry | null,
): Task<RepairStep[]> {
  const key = dentryKey(at.dir, at.hash, at.disc), expected = yield* records.read(key);
  if (expected === null) return [];
  const entry = decode(dentry, expected);
  let value: Dentry | null = null;
  const dir = yield* editInode(records, at.dir, (attributes) => value = edit(entry, attributes));
  if (dir === null) value = edit(entry, null);
  const changes: RepairChange[] = [{ key, expected, value: value === null ? null : encode(dentry, value) }];
  if (dir !== null) changes.push(dir.change);
  return [step(shardOf(at.dir), changes)];
}

function* dropName(records: Records, at: EntryPlace): Task<RepairStep[]> {
  return yield* changeName(records, at, ({ type }, dir) => {
    if (dir === null || !isDirectory(dir.mode)) return null;
    dir.entries = Math.max(0, dir.entries - 1);
    if (type === directoryType) dir.nlink = Math.max(2, dir.nlink - 1);
    return null;
  });
}

function* typeName(records: Records, at: EntryPlace, type: number): Task<RepairStep[]> {
  return yield* changeName(records, at, (entry, dir) => {
    if (dir !== null && entry.type === directoryType) dir.nlink = Math.max(2, dir.nlink - 1);
    if (dir !== null && type === directoryType) dir.nlink++;
    return { ...entry, type };
  });
}

/** Moves a name to the place its hash says, or marks its directory as one with equal hashes. */
function* placeName(records: Records, at: EntryPlace): Task<RepairStep[] | string> {
  const key = dentryKey(at.dir, at.hash, at.disc), expected = yield* records.read(key);
  const hashKeyAt = inodeKey(shardOf(at.dir), kind.hashKey, at.dir), hashKey = yield* records.read(hashKeyAt);
  if (expected === null) return [];
  if (hashKey === null) return "its directory has no key of names";
  const { name } = decode(dentry, expected), hash = nameHash(hashKey.subarray(0, 16), name);
  let disc = -1;
  for (let at = 0; at <= discMax; at++) {
    const other = dentryKey(keyNumber(key, 3, 7), hash, at), value = yield* records.read(other);
    const free = value === null || same(other, key);
    if (free && disc < 0) disc = at;
    if (!free && same(decode(dentry, value!).name, name)) return yield* dropName(records, atPlace(key));
  }
  if (disc < 0) return "there is no room left for its hash";
  const changes: RepairChange[] = [];
  const place = dentryKey(at.dir, hash, disc);
  if (!same(place, key)) {
    changes.push({ key, expected, value: null }, { key: place, expected: null, value: expected });
  }
  if (disc > 0 && hashKey[16] === 0) {
    const marked = hashKey.slice();
    marked[16] = 1;
    changes.push({ key: hashKeyAt, expected: hashKey, value: marked });
  }
  return changes.length === 0 ? [] : [step(shardOf(at.dir), changes)];
}

function atPlace(key: Uint8Array): EntryPlace {
  return { dir: keyNumber(key, 3, 7), hash: keyNumber(key, 10, 6), disc: key[16] };
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function* dropNames(records: Records, dir: number): Task<RepairStep[] | string> {
  if ((yield* records.read(recordKey(dir))) !== null) return changed;
  return batches(removals(yield* records.list(inodeKey(shardOf(dir), kind.dentry, dir))));
}

/** An empty root; the next check counts what is in it. */
function* newRoot(records: Records, { volume, root }: { volume: number; root: number }): Task<RepairStep[]> {
  const key = recordKey(root);
  if ((yield* records.read(key)) !== null) return [];
  const never = { sec: 0, nsec: 0 };
  const attributes: Attributes = {
    inode: root,
    mode: S.IFDIR | 0o755,
    nlink: 2,
    uid: 0,
    gid: 0,
    rdev: 0,
    size: 4096,
    blocks: 8,
    atime: never,
    mtime: never,
    ctime: never,
    btime: never,
    version: 1,
    gen: 0,
    volume,
    parent: root,
    entries: 0,
    flags: 0,
  };
  return [step(shardOf(root), [{ key, expected: null, value: encodeAttributes(attributes) }])];
}

/** Kinds of records beside an inode, in its own shard. */
const nearKinds = [
  kind.hashKey,
  kind.data,
  kind.symlink,
  kind.xattr,
  kind.mask,
  kind.floor,
  kind.chunk,
  kind.orphan,
  kind.places,
];
const farKinds = [kind.chunk, kind.floor];

function* partsOf(records: Records, inode: number, shard: number): Task<RepairChange[]> {
  const changes: RepairChange[] = [];
  for (const keyKind of shard === shardOf(inode) ? nearKinds : farKinds) {
    changes.push(...removals(yield* records.list(inodeKey(shard, keyKind, inode))));
  }
  return changes;
}

function* dropParts(records: Records, inode: number, shards: readonly number[]): Task<RepairStep[] | string> {
  if ((yield* records.read(recordKey(inode))) !== null) return changed;
  const changes: RepairChange[] = [];
  for (const shard of shards) changes.push(...yield* partsOf(records, inode, shard));
  return batches(changes);
}

function* newHashKey(records: Records, dir: number): Task<RepairStep[]> {
  const key = inodeKey(shardOf(dir), kind.hashKey, dir), expected = yield* records.read(key);
  if (expected?.length === 17) return [];
  const value = new Uint8Array(17);
  value.set(records.newHashKey());
  return [step(shardOf(dir), [{ key, expected, value }])];
}

function* cutChunk(
  records: Records,
  at: { shard: number; inode: number; chunk: number; granules: number },
): Task<RepairStep[]> {
  const key = new Key(at.shard, kind.chunk, 14).u56(at.inode).u32(at.chunk).done(), expected = yield* records.read(key);
  if (expected === null) return [];
  const record: ChunkRecord = decodeChunk(expected);
  let count = Math.min(at.granules, record.granules.length / 2);
  while (count > 0 && record.granules[2 * count - 2] === 0) count--;
  if (2 * count === record.granules.length && count > 0) return [];
  const value = count === 0 ? null : encodeChunk({ ...record, granules: record.granules.subarray(0, 2 * count) });
  return [step(at.shard, [{ key, expected, value }])];
}

function* lowerFloors(
  records: Records,
  { inode, gen, shards }: { inode: number; gen: number; shards: readonly number[] },
): Task<RepairStep[] | string> {
  const stored = yield* records.read(recordKey(inode));
  if (stored === null || decodeAttributes(inode, stored).gen !== gen) return changed;
  const changes: RepairChange[] = [];
  for (const shard of shards) {
    const key = inodeKey(shard, kind.floor, inode), expected = yield* records.read(key);
    if (expected === null) continue;
    const view = new DataView(expected.buffer, expected.byteOffset, 16);
    const floor = view.getFloat64(0, true), done = view.getFloat64(8, true);
    if (floor > gen) changes.push({ key, expected, value: encodeFloor(gen, Math.min(done, gen)) });
  }
  return batches(changes);
}

function* dropReplies(records: Records, shard: number, sessions: readonly number[]): Task<RepairStep[]> {
  const changes: RepairChange[] = [];
  for (const session of sessions) {
    changes.push(...removals(yield* records.list(new Key(shard, kind.reply, 10).u56(session).done())));
  }
  return batches(changes);
}

function* freeName(records: Records, key: Uint8Array): Task<RepairStep[]> {
  const expected = yield* records.read(key);
  if (expected === null) return [];
  const value = encode(stepRecord, { ...decode(stepRecord, expected), holds: null });
  return batches([{ key, expected, value }]);
}

/** The name in lost+found first: should the rest be lost, the next check sees a name and counts that do not fit. */
function* adopt(records: Records, inode: number): Task<RepairStep[] | string> {
  const lost = yield* records.read(recordKey(inode));
  if (lost === null) return [];
  const { volume, mode } = decodeAttributes(inode, lost), home = yield* records.lostAndFound(volume);
  if (home === 0) return "the volume's lost+found cannot be had";
  const hashKey = yield* records.read(inodeKey(shardOf(home), kind.hashKey, home));
  if (hashKey === null) return "lost+found has no key of names";
  const place = yield* freePlace(records, home, hashKey, inode);
  if (place === null) return "lost+found has no room for its name";
  const entry = encode(dentry, { inode, type: mode >>> 12, name: place.name });
  const dir = yield* editInode(records, home, (attributes) => {
    attributes.entries++;
    if (isDirectory(mode)) attributes.nlink++;
  });
  const file = yield* editInode(records, inode, (attributes) => {
    attributes.parent = home;
    if (!isDirectory(mode)) attributes.nlink = 1;
  });
  if (dir === null || file === null) return changed;
  const orphan = yield* present(records, [inodeKey(shardOf(inode), kind.orphan, inode)]);
  return [
    step(shardOf(home), [{ key: place.key, expected: null, value: entry }, dir.change]),
    step(shardOf(inode), [file.change, ...orphan]),
  ];
}

/** A name whose hash nobody has yet. */
function* freePlace(
  records: Records,
  dir: number,
  hashKey: Uint8Array,
  inode: number,
): Task<{ key: Uint8Array; name: Uint8Array } | null> {
  for (let i = 0; i < lostNamesMax; i++) {
    const name = new TextEncoder().encode(i === 0 ? `#${inode}` : `#${inode}.${i}`);
    const key = dentryKey(dir, nameHash(hashKey.subarray(0, 16), name), 0);
    if ((yield* records.read(key)) === null) return { key, name };
  }
  return null;
}

/** What is in other shards is found by the next check, as parts of an inode that does not exist. */
function* dropInode(records: Records, inode: number): Task<RepairStep[] | string> {
  const key = recordKey(inode), value = yield* records.read(key);
  if (value === null) return [];
  const names = yield* records.list(inodeKey(shardOf(inode), kind.dentry, inode));
  if (names.length > 0) return "it is not empty";
  const parts = yield* partsOf(records, inode, shardOf(inode));
  return batches([...parts, { key, expected: value, value: null }]);
}

function* markOrphan(records: Records, inode: number, orphan: boolean): Task<RepairStep[] | string> {
  const stored = yield* records.read(recordKey(inode));
  if (stored === null) return changed;
  const key = inodeKey(shardOf(inode), kind.orphan, inode), expected = yield* records.read(key);
  if ((expected !== null) === orphan) return [];
  const mark = new Uint8Array(4);
  new DataView(mark.buffer).setUint32(0, decodeAttributes(inode, stored).volume, true);
  return [step(shardOf(inode), [{ key, expected, value: orphan ? mark : null }])];
}

function* setInode(
  records: Records,
  { inode, version, fix }: { inode: number; version: number; fix: InodeFix },
): Task<RepairStep[] | string> {
  let before = -1;
  const edited = yield* editInode(records, inode, (attributes) => {
    before = attributes.version;
    Object.assign(attributes, fix);
  });
  if (edited === null || before !== version) return changed;
  return [step(shardOf(inode), [edited.change])];
}
