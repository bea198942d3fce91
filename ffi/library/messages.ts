/**
 * What the library's main thread and its reactor Worker (`library_worker.ts`, one a connection to a cluster) say to each
 * other. The Worker gets {@linkcode LibraryWorkerStart} as its data; everything else goes through the mailbox as CBOR,
 * except contents of files: those lie in slots of memory that both threads see, and messages name the slot.
 *
 * @module
 */

import type { Caller, Inspection, Totals } from "../../core/client/filesystem.ts";
import type { OpenFlags } from "../../core/client/open_file.ts";
import type { SetTime } from "../../core/client/paths.ts";
import type { Removal, RemovalProgress } from "../../core/client/remove_tree.ts";
import type { Usage } from "../../core/client/usage.ts";
import type { Attributes } from "../../core/meta/attributes.ts";
import type { LogOptions } from "../log.ts";
import type { MailboxPort } from "../mailbox.ts";

/** Bytes of a slot, and so of one read or write. */
export const slotBytes = 4 << 20;
/** Slots of a Worker: reads and writes that are under way at once. Memory is taken as slots are filled. */
export const slotsMax = 16;

/** The Worker's data: all it needs to serve. */
export interface LibraryWorkerStart {
  mailbox: MailboxPort;
  log: LogOptions;
  session: number;
  /** The cluster's secret; null without one. */
  secret: string | null;
  /** The cluster map, encoded. */
  map: Uint8Array;
  /** How long a request is retried before it ends in EIO. */
  ioTimeoutMs: number;
}

/** Posted by the main thread. */
export type LibraryOrder =
  /** A newer map. */
  | { type: "map"; bytes: Uint8Array }
  /** The old session died: what was open fails, new requests are of this one. */
  | { type: "session"; number: number };

/** Posted by the Worker. */
export type LibraryReport =
  /** It serves; its slots begin at this address, in this arena. */
  | { type: "ready"; slotsAddress: number; arenaAddress: number; arenaBytes: number }
  /** A server knows this epoch; the Worker's map is older. */
  | { type: "needMap"; epoch: number };

/** Called by the Worker: answered with the numeric address of a host name, or null. */
export interface LibraryResolve {
  type: "resolve";
  host: string;
}

/** A path in a volume that was opened. */
export interface At {
  volume: number;
  path: string;
}

/** Times to set. */
export interface Times {
  atime: SetTime;
  mtime: SetTime;
}

/** Nothing to say. */
export type Nothing = Record<never, never>;

/** Calls of the main thread: what is asked, and the answer when it is not an errno. */
export interface LibraryCalls {
  openVolume: { ask: { id: number; readOnly: boolean; who: Caller }; answer: { volume: number } };
  /** Closes the volume's files too. */
  closeVolume: { ask: { volume: number }; answer: Nothing };
  /** Closes everything, then the Worker ends. */
  stop: { ask: Nothing; answer: Nothing };

  stat: { ask: At & { follow: boolean }; answer: Attributes };
  realPath: { ask: At; answer: { path: string } };
  readLink: { ask: At; answer: { path: string } };
  mkdir: { ask: At & { mode: number; recursive: boolean }; answer: Nothing };
  remove: { ask: At; answer: Nothing };
  /** `job`: the asker's number, in this volume, for `jobProgress` and `stopJob`. */
  removeAll: { ask: At & { keepGoing: boolean; job: number }; answer: Removal };
  /** How far a removal is; zeros when there is none of this number. */
  jobProgress: { ask: { volume: number; job: number }; answer: RemovalProgress };
  /** The removal begins nothing new. */
  stopJob: { ask: { volume: number; job: number }; answer: Nothing };
  /** Files with several names are counted once for all paths. */
  usage: { ask: { volume: number; paths: string[] }; answer: { found: (Usage | number)[] } };
  inspect: { ask: At; answer: Inspection };
  rename: { ask: At & { to: string }; answer: Nothing };
  link: { ask: At & { to: string }; answer: Nothing };
  symlink: { ask: At & { target: string }; answer: Nothing };
  copyFile: { ask: At & { to: string }; answer: Nothing };
  chmod: { ask: At & { mode: number }; answer: Nothing };
  chown: { ask: At & { uid: number | null; gid: number | null; follow: boolean }; answer: Nothing };
  utime: { ask: At & Times & { follow: boolean }; answer: Nothing };
  truncate: { ask: At & { size: number }; answer: Nothing };
  statfs: { ask: { volume: number }; answer: Totals };
  openDirectory: { ask: At; answer: { inode: number } };
  /** Names with their DT_* type, and where the next page begins; no names at the end. */
  readDirectory: {
    ask: { volume: number; inode: number; cookie: number };
    answer: { names: string[]; types: number[]; cookie: number };
  };
  getXattr: { ask: At & { name: string; follow: boolean }; answer: { value: Uint8Array } };
  setXattr: { ask: At & { name: string; value: Uint8Array; flags: number; follow: boolean }; answer: Nothing };
  listXattr: { ask: At & { follow: boolean }; answer: { names: string[] } };
  removeXattr: { ask: At & { name: string; follow: boolean }; answer: Nothing };

  /** The whole file in the slot, or, when it is larger, `file` open (0 = not) to be read from. */
  readWhole: { ask: At & { slot: number }; answer: { count: number; file: number } };
  /** Opens, writes or appends what is in the slot, closes. `setMode` null leaves the mode. */
  writeWhole: {
    ask: At & { flags: OpenFlags; setMode: number | null; slot: number; length: number };
    answer: Nothing;
  };

  open: { ask: At & { flags: OpenFlags }; answer: { file: number } };
  close: { ask: { file: number }; answer: Nothing };
  read: { ask: { file: number; offset: number; slot: number; length: number }; answer: { count: number } };
  write: { ask: { file: number; offset: number; slot: number; length: number }; answer: Nothing };
  append: { ask: { file: number; slot: number; length: number }; answer: { offset: number } };
  fileStat: { ask: { file: number }; answer: Attributes };
  fileTruncate: { ask: { file: number; size: number }; answer: Nothing };
  fileTimes: { ask: { file: number } & Times; answer: Nothing };
  fileMode: { ask: { file: number; mode: number }; answer: Nothing };
  fileSync: { ask: { file: number }; answer: Nothing };
  lock: { ask: { file: number; exclusive: boolean; block: boolean }; answer: Nothing };
  unlock: { ask: { file: number }; answer: Nothing };
}

/** A call as it travels. Its reply is an answer, or a positive errno. */
export interface LibraryCall<K extends keyof LibraryCalls = keyof LibraryCalls> {
  call: K;
  ask: LibraryCalls[K]["ask"];
}
