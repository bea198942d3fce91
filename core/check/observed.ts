/**
 * What a pass over all records has seen: filled by core/check/check.ts, judged by core/check/judge.ts.
 *
 * @module
 */

import type { ClusterMap } from "../placement/map.ts";
import type { EntryPlace, FindingKind, Repair, Severity } from "./finding.ts";
import type { InodeTable, NameTable, PartTable } from "./tables.ts";

/** A shard, as its store describes it. */
export interface ShardFacts {
  shard: number;
  server: number;
  store: number;
  /** Intents that are being driven. */
  intents: number;
  /** Inodes that sessions have open. */
  opens: readonly number[];
  /** The store does not know yet of all opens. */
  grace: boolean;
}

/** What a shard has charged to a volume. */
export interface VolumeUsage {
  volume: number;
  bytes: number;
  inodes: number;
}

/** What a finding is made of, before it has its evidence. */
export interface Complaint {
  kind: FindingKind;
  severity: Severity;
  shard: number;
  inode?: number;
  text: string;
  /** What else must not change for the finding to stay the same: versions of inodes. */
  versions?: readonly number[];
  about?: readonly number[];
  entry?: EntryPlace;
  repair?: Repair;
}

/** Everything that was seen, for the judgement. */
export interface Observed {
  readonly map: ClusterMap;
  /** Nothing is under way: an intent or an orphan is wrong in itself. */
  readonly atRest: boolean;
  readonly inodes: InodeTable;
  readonly names: NameTable;
  readonly parts: PartTable;
  /** Shards that were read, with what they charge; null when that cannot be compared. */
  readonly charged: Map<number, readonly VolumeUsage[] | null>;
  /** Bytes of chunks by shard, then by volume. */
  readonly chunkBytes: Map<number, Map<number, number>>;
  readonly facts: Map<number, ShardFacts>;
  readonly intents: { shard: number; n: number; key: Uint8Array; about: number[] }[];
  /** Directories made by a step of an intent. */
  readonly born: { driver: number; n: number; inode: number }[];
  /** Names that a step holds. */
  readonly held: { shard: number; driver: number; n: number; key: Uint8Array; dir: number }[];
  readonly credits: {
    shard: number;
    key: Uint8Array;
    volume: number;
    server: number;
    store: number;
    given: VolumeUsage;
  }[];
  readonly roots: ReadonlySet<number>;
  /** Records of volumes that do not exist, by volume. */
  readonly strangers: Map<number, { shard: number; inodes: number; chunks: number }>;
  /** State of a volume, undefined when there is none. */
  volumeState(volume: number): number | undefined;
  add(finding: Complaint): void;
}
