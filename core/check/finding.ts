/**
 * What a check finds, and what would set it right.
 *
 * @module
 */

/**
 * How bad it is. "error": names or data are lost or contradict each other. "warning": something is wrong that loses
 * nothing. "note": a harmless leftover of work that was cut short, no problem at all.
 */
export type Severity = "error" | "warning" | "note";

/** What is wrong, in a word. */
export type FindingKind =
  /** A record that cannot be read, or of no known kind. */
  | "record"
  /** A record in a shard where nobody looks for it. */
  | "place"
  /** Records of a volume that does not exist. */
  | "volume"
  /** A name that leads nowhere, or to what it should not. */
  | "name"
  /** An inode without a name. */
  | "lost"
  /** An inode's own words (links, entries, size, ...) against what there is. */
  | "attributes"
  /** A directory that hangs on itself. */
  | "cycle"
  /** What belongs to an inode and does not fit it, or is missing. */
  | "part"
  /** Parts of an inode that does not exist. */
  | "leaked"
  /** Data behind the end of a file. */
  | "beyond"
  /** A block that two chunks use. */
  | "block"
  /** Data that does not match its checksum. */
  | "data"
  /** A deleted file that nobody has open. */
  | "orphan"
  /** Work under way that nobody drives, or a name it left locked. */
  | "intent"
  /** What a volume is charged against what lies there. */
  | "usage"
  /** Credit of a server that does not fit. */
  | "credit"
  /** Stored answers of a session that is dead. */
  | "reply"
  /** Numbers that would be given out twice. */
  | "counter";

/** A name's place in its directory. */
export interface EntryPlace {
  dir: number;
  hash: number;
  disc: number;
}

/** Fields of an inode that a repair sets. */
export interface InodeFix {
  nlink?: number;
  entries?: number;
  parent?: number;
  blocks?: number;
  size?: number;
  flags?: number;
  mode?: number;
}

/** What would set it right; core/check/repair.ts makes records of it. */
export type Repair =
  | ({ do: "dropName" } & EntryPlace)
  /** Puts a name where it is looked for. */
  | ({ do: "placeName" } & EntryPlace)
  | ({ do: "typeName"; type: number } & EntryPlace)
  /** Removes the names in a directory that does not exist. */
  | { do: "dropNames"; dir: number }
  /** Makes the lost inode of a volume's root again; its names are still there. */
  | { do: "newRoot"; volume: number; root: number }
  /** Removes what there is of an inode that does not exist. */
  | { do: "dropParts"; inode: number; shards: number[] }
  | { do: "newHashKey"; dir: number }
  | { do: "cutChunk"; shard: number; inode: number; chunk: number; granules: number }
  | { do: "lowerFloors"; inode: number; gen: number; shards: number[] }
  | { do: "dropRecord"; key: Uint8Array }
  | { do: "dropReplies"; shard: number; sessions: number[] }
  | { do: "freeName"; key: Uint8Array }
  | { do: "charge"; shard: number; volume: number; bytesDelta: number; inodesDelta: number }
  /** Gives a lost inode a name in lost+found. */
  | { do: "adopt"; inode: number }
  /** Removes an inode and what lies beside it. */
  | { do: "dropInode"; inode: number }
  /** Makes an orphan of an inode, or stops it from being one. */
  | { do: "markOrphan"; inode: number; orphan: boolean }
  | { do: "setInode"; inode: number; version: number; fix: InodeFix };

/** One thing that is wrong. */
export interface Finding {
  kind: FindingKind;
  severity: Severity;
  /** Shard of the record that is spoken of. */
  shard: number;
  /** Inode that is spoken of, 0 when none is. */
  inode: number;
  /** One line for a person. */
  text: string;
  /** The same in two checks exactly when nothing of it has changed in between. */
  evidence: string;
  /** Inodes that have to do with it: work under way on one of them explains it. */
  about: number[];
  /** The name that is spoken of. */
  entry?: EntryPlace;
  /** Path with the volume's name, when it could be found out. */
  path?: string;
  /** Absent when nothing can be done without guessing. */
  repair?: Repair;
  /** Why a repair that was tried was not made. */
  refused?: string;
}

/** Order in which repairs are made: what a later one relies on comes first, and a new check lies between. */
export function repairPhase(repair: Repair): number {
  switch (repair.do) {
    case "adopt":
    case "dropInode":
    case "markOrphan":
      return 2;
    case "setInode":
      return 3;
    default:
      return 1;
  }
}
