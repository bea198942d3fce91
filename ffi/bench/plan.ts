/**
 * What `sealfs client bench` does: its phases in their order, its sizes, and what its main thread and its workers
 * (`bench_worker.ts`, one a process of the plan) say to each other.
 *
 * @module
 */

/** What a worker does in a phase. */
export type PhaseKind =
  | "create"
  | "stat"
  | "read"
  | "list"
  | "rename"
  | "unlink"
  | "writeLarge"
  | "readLarge"
  | "writeRandom"
  | "readRandom";

/** Where the small files of a phase are. */
export type Place = "own" | "shared" | "large";

/** A phase: all workers begin it together. */
export interface Phase {
  /** For JSON. */
  name: string;
  /** For people. */
  title: string;
  kind: PhaseKind;
  place: Place;
}

const small: readonly [PhaseKind, string][] = [
  ["create", "create, write, close"],
  ["stat", "stat"],
  ["read", "open, read, close"],
  ["list", "list the directory"],
  ["rename", "rename"],
  ["unlink", "unlink"],
];
const large: readonly [PhaseKind, string][] = [
  ["writeLarge", "write 1 MiB, in order"],
  ["readLarge", "read 1 MiB, in order"],
  ["writeRandom", "write 4 KiB, anywhere"],
  ["readRandom", "read 4 KiB, anywhere"],
];

function smallPhases(place: Place, where: string): Phase[] {
  return small.map(([kind, title]) => ({ name: `${kind}-${place}`, title: `${title}; ${where}`, kind, place }));
}

/** The phases of a plan: those of small files, if there are any, then those of large ones, if there are any. */
export function phasesOf({ files, largeBytes }: Pick<BenchPlan, "files" | "largeBytes">): Phase[] {
  return [
    ...files === 0 ? [] : [...smallPhases("own", "own directory"), ...smallPhases("shared", "shared directory")],
    ...largeBytes === 0 ? [] : large.map(([kind, title]): Phase => ({ name: kind, title, kind, place: "large" })),
  ];
}

/** Sizes of a run. */
export interface BenchPlan {
  /** The run's own folder, which exists. */
  folder: string;
  processes: number;
  /** Small files of each process, in its own directory and then in the shared one. */
  files: number;
  fileBytes: number;
  /** Bytes of the large file of each process, a multiple of a MiB; 0: none. */
  largeBytes: number;
  /** A phase ends after this time, done or not. */
  phaseMsMax: number;
}

/** Largest piece of a small or large file that is read or written at once. */
export const pieceBytes = 1 << 20;
/** Bytes of a read or write at a random place. */
export const randomBytes = 4096;
/** Listings of a directory that a process makes in a phase. */
export const listings = 4;

/** Words of the shared control memory. */
export const control = {
  /** Not 0: end now. */
  stop: 0,
  /** Workers that have come to the beginning of a phase, over all phases. */
  arrived: 1,
  words: 2,
} as const;

/** The first message to a worker. */
export interface BenchStart {
  plan: BenchPlan;
  /** Its number, from 0. */
  process: number;
  /** Int32Array of {@linkcode control}. */
  control: SharedArrayBuffer;
  /** A LatencyTable with a kind a phase. */
  latencies: SharedArrayBuffer;
}

/** Every further message: do a phase. */
export interface BenchOrder {
  phase: number;
}

/** A worker has done a phase. */
export interface BenchDone {
  phase: number;
  /** Operations; entries where directories are listed. */
  operations: number;
  bytes: number;
  /** On the monotonic clock of the machine. */
  beganMs: number;
  endedMs: number;
  /** What failed, "" when nothing did: one line. */
  error: string;
}

/** Bytes that a plan needs at most, small files counted in blocks of 4 KiB. */
export function bytesNeeded({ processes, files, fileBytes, largeBytes }: BenchPlan): number {
  return processes * (largeBytes + files * Math.max(1, Math.ceil(fileBytes / 4096)) * 4096);
}
