/**
 * The check of a running cluster: reads all shards over a caller, believes what several passes agree on, has chunks
 * verified by their servers, and repairs.
 *
 * Clients may be at work all the time. A pass sees their work half done, so what it finds is looked for again after a
 * pause; a finding counts when nothing of it has changed through all passes, or when nothing at all has changed between
 * two. What was being changed each time is counted as unsettled.
 *
 * @module
 */

import { granuleBytes } from "../data/chunk_record.ts";
import { E, errnoName } from "../errno.ts";
import { Key, keyNumber, kind, shardOf } from "../meta/layout.ts";
import { rootInode } from "../placement/map.ts";
import type { MapHolder } from "../placement/map_holder.ts";
import type { Caller } from "../protocol/caller.ts";
import { DecodeError } from "../protocol/codec.ts";
import { status } from "../protocol/frame.ts";
import { LOOKUP, MKDIR, REPAIR, SCAN, SHARD_STATUS, VERIFY_CHUNK } from "../protocol/messages.ts";
import type { Runtime } from "../runtime.ts";
import { Future, Semaphore, type Task, wait, waitAll } from "../task.ts";
import { Checker, type ShardScan } from "./check.ts";
import { type Finding, repairPhase } from "./finding.ts";
import { Paths } from "./paths.ts";
import { listMax, planRepair, type Records, type RepairStep, type StoredRecord } from "./repair.ts";

/** Shards read, and chunks verified, at the same time. */
const shardsAtOnce = 8, chunksAtOnce = 8;
/** Bytes asked for at once. */
const pageBytes = 256 * 1024;
/** Passes that a finding has to outlast, and the pause between them. */
const passesMax = 3, pauseMs = 500;
/** Checks with repairs between them. */
const roundsMax = 10;
/** Times a repair is tried whose records are in use, and the pause between them. */
const repairAttempts = 5, repairPauseMs = 200;
/** Findings whose paths are looked up. */
const pathsMax = 1000;
/** Chunks with damaged data that are remembered. */
const damagedMax = 10_000;
/** Ranges of damaged bytes that a finding names. */
const rangesShown = 8;
const lostAndFoundName = new TextEncoder().encode("lost+found");
const lostAndFoundMode = 0o700;

/** What to do. */
export interface CheckOptions {
  /** Have the checksums of all data verified. */
  verifyData: boolean;
  repair: boolean;
  /** Hears how far it is, often. */
  onProgress?: (progress: CheckProgress) => void;
}

/** How far a check is. */
export interface CheckProgress {
  doing: "check" | "look again" | "repair";
  shardsDone: number;
  shards: number;
  inodes: number;
  names: number;
  chunks: number;
  verifiedBytes: number;
  repaired: number;
}

/** What a check has seen and found. */
export interface CheckReport {
  shards: number;
  inodes: number;
  names: number;
  chunks: number;
  /** Bytes of data in chunks, and those that were read and compared with their checksums. */
  dataBytes: number;
  verifiedBytes: number;
  /** What is wrong now. */
  findings: Finding[];
  /** Findings beyond those listed. */
  omitted: number;
  /** Suspicions about things that were being changed in every pass. */
  unsettled: number;
  /** What was wrong and has been repaired. */
  repaired: Finding[];
}

/** What a check works with. */
export interface CheckParts {
  runtime: Runtime;
  maps: MapHolder;
  /** Of kind admin, with a session of its own. */
  caller: Caller;
}

/** A chunk with data that does not match its checksums. */
interface Damaged {
  shard: number;
  inode: number;
  chunk: number;
}

/** Why a check cannot be made: one sentence. */
class Unreadable extends Error {}

/** Checks a whole cluster. A text is why that could not be done. */
export function* checkCluster(parts: CheckParts, options: CheckOptions): Task<CheckReport | string> {
  try {
    return yield* new ClusterCheck(parts, options).run();
  } catch (error) {
    if (error instanceof Unreadable) return error.message;
    throw error;
  }
}

interface Pass {
  checker: Checker;
  findings: Finding[];
  /** Positions of the shards before and after they were read. */
  before: Map<number, number>;
  after: Map<number, number>;
}

class ClusterCheck {
  readonly #parts: CheckParts;
  readonly #options: CheckOptions;
  readonly #records: Records;
  readonly #progress: CheckProgress;
  readonly #verifying = new Semaphore(chunksAtOnce);
  readonly #repaired: Finding[] = [];
  /** Why repairs were refused, by the evidence of their findings. */
  readonly #refused = new Map<string, string>();
  /** Inodes of lost+found by volume. */
  readonly #lostAndFound = new Map<number, number>();
  #damaged: Damaged[] = [];
  #verify: boolean;
  #unsettled = 0;
  #failure = "";
  #last!: Checker;

  constructor(parts: CheckParts, options: CheckOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#verify = options.verifyData;
    this.#records = this.#remoteRecords();
    this.#progress = {
      doing: "check",
      shardsDone: 0,
      shards: parts.maps.current.shards,
      inodes: 0,
      names: 0,
      chunks: 0,
      verifiedBytes: 0,
      repaired: 0,
    };
  }

  *run(): Task<CheckReport> {
    let findings = yield* this.#check();
    for (let round = 1; this.#options.repair && round < roundsMax; round++) {
      if (!(yield* this.#repairSome(findings, round))) break;
      findings = yield* this.#check();
    }
    for (const finding of findings) finding.refused = this.#refused.get(finding.evidence);
    findings.push(...yield* this.#damagedData());
    yield* this.#findPaths(findings);
    const { counts, omitted, map } = this.#last;
    return {
      shards: map.shards,
      inodes: counts.inodes,
      names: counts.names,
      chunks: counts.chunks,
      dataBytes: counts.dataBytes,
      verifiedBytes: this.#progress.verifiedBytes,
      findings,
      omitted,
      unsettled: this.#unsettled,
      repaired: this.#repaired,
    };
  }

  /** Passes until it is certain what is wrong. */
  *#check(): Task<Finding[]> {
    let kept: Finding[] = [], last: Pass | null = null;
    for (let number = 0; number < passesMax; number++) {
      if (number > 0) yield* wait(this.#parts.runtime.sleep(pauseMs));
      this.#progress.doing = number === 0 ? "check" : "look again";
      const pass: Pass = yield* this.#pass();
      const agreed = new Set(kept.map((finding) => finding.evidence));
      kept = number === 0 ? pass.findings : pass.findings.filter((finding) => agreed.has(finding.evidence));
      this.#unsettled = last === null ? 0 : countUnsettled(last.findings, pass.findings, agreed);
      if (pass.findings.length === 0 || (last !== null && isStill(last, pass))) break;
      last = pass;
    }
    return kept;
  }

  /** Reads everything once. */
  *#pass(): Task<Pass> {
    const { maps, runtime } = this.#parts, map = maps.current, checker = new Checker(map, { atRest: false });
    const pass: Pass = { checker, findings: [], before: new Map(), after: new Map() };
    Object.assign(this.#progress, { shardsDone: 0, shards: map.shards });
    let next = 0;
    const reader = function* (check: ClusterCheck): Task<void> {
      while (next < map.shards && check.#failure === "") yield* check.#readShard(pass, next++);
    };
    const readers = Array.from({ length: shardsAtOnce }, () => runtime.scheduler.spawn(reader(this)));
    yield* waitAll(readers);
    if (this.#failure !== "") throw new Unreadable(this.#failure);
    this.#verify = false;
    this.#last = checker;
    pass.findings = checker.finish();
    return pass;
  }

  *#readShard(pass: Pass, shard: number): Task<void> {
    const { checker } = pass, first = yield* this.#status(shard);
    if (first === null) return;
    const at = this.#parts.maps.ownerOf(shard) ?? { server: 0, store: 0 };
    const scan = checker.shard({ ...first, ...at, shard });
    pass.before.set(shard, first.position);
    const verifying: Future<void>[] = [], middle = new Key(shard, kind.hashKey, 3).done();
    // Keys of names have to come before names.
    const whole = (yield* this.#readRange(scan, { shard, from: middle, to: null, verifying })) &&
      (yield* this.#readRange(scan, { shard, from: new Key(shard, 0, 3).done(), to: middle, verifying }));
    yield* waitAll(verifying);
    const last = whole ? yield* this.#status(shard) : null;
    if (last === null) return;
    pass.after.set(shard, last.position);
    scan.end(first.position === last.position ? last.usage : null);
    this.#progress.shardsDone++;
    const { inodes, names, chunks } = checker.counts;
    this.#tell({ inodes, names, chunks });
  }

  /** Gives the records of [from, to) to the scan. False when the shard cannot be read. */
  *#readRange(
    scan: ShardScan,
    range: { shard: number; from: Uint8Array; to: Uint8Array | null; verifying: Future<void>[] },
  ): Task<boolean> {
    const { shard, to, verifying } = range;
    for (let from = range.from;;) {
      const reply = yield* this.#parts.caller.call(SCAN, { shard }, { from, limitBytes: pageBytes });
      if (reply.status !== 0) return this.#fail(shard, reply);
      const { records, end } = reply.body!;
      for (const { key, value } of records) {
        if (to !== null && compareKeys(key, to) >= 0) return true;
        scan.record(key, value);
        if (this.#verify && key[2] === kind.chunk && key.length === 14) {
          yield* this.#verifying.acquire();
          verifying.push(this.#parts.runtime.scheduler.spawn(this.#verifyChunk(shard, key, value.length)));
        }
      }
      if (end || records.length === 0) return true;
      const last = records[records.length - 1].key;
      from = new Uint8Array(last.length + 1);
      from.set(last);
    }
  }

  *#verifyChunk(shard: number, key: Uint8Array, recordBytes: number): Task<void> {
    const inode = keyNumber(key, 3, 7), chunk = keyNumber(key, 10, 4);
    const bad = yield* this.#badGranules({ shard, inode, chunk });
    this.#verifying.release();
    if (bad !== null && bad.length > 0 && this.#damaged.length < damagedMax) {
      this.#damaged.push({ shard, inode, chunk });
    }
    this.#tell({ verifiedBytes: this.#progress.verifiedBytes + Math.floor((recordBytes - 12) / 8) * granuleBytes });
  }

  /** Granules whose bytes are wrong; null when it could not be found out (the record is damaged, and found as such). */
  *#badGranules({ shard, inode, chunk }: Damaged): Task<number[] | null> {
    const reply = yield* this.#parts.caller.call(VERIFY_CHUNK, { shard }, { inode, chunk });
    return reply.status === 0 ? reply.body!.bad : null;
  }

  /** Chunks that are still damaged when they are looked at again. */
  *#damagedData(): Task<Finding[]> {
    const findings: Finding[] = [];
    for (const { shard, inode, chunk } of this.#damaged) {
      const bad = yield* this.#badGranules({ shard, inode, chunk });
      if (bad === null || bad.length === 0) continue;
      const text = `inode ${inode} cannot be read whole (EIO): ${rangesText(chunk, bad)} do not match their checksums`;
      const evidence = `data|${shard}|${inode}|${chunk}`;
      findings.push({ kind: "data", severity: "error", shard, inode, text, evidence, about: [inode] });
    }
    return findings;
  }

  *#status(shard: number) {
    const reply = yield* this.#parts.caller.call(SHARD_STATUS, { shard }, {});
    if (reply.status === 0) return reply.body!;
    this.#fail(shard, reply);
    return null;
  }

  /** The check ends: without all records nothing can be said. */
  #fail(shard: number, reply: { status: number }): false {
    const { maps, caller } = this.#parts, owner = maps.ownerOf(shard);
    const who = owner === null ? "no server" : `server ${owner.server} (${maps.server(owner.server)?.address})`;
    const why = caller.refusals[0] ?? (reply.status === E.IO ? "no answer in time" : errnoName(reply.status));
    if (reply.status === status.sessionDead) this.#failure = "the session of the check has died: the manager was away";
    else this.#failure ||= `shard ${shard} cannot be read from ${who}: ${why}`;
    return false;
  }

  #tell(change: Partial<CheckProgress>): void {
    Object.assign(this.#progress, change);
    this.#options.onProgress?.(this.#progress);
  }

  /** Makes the repairs that come first. True when something was repaired, so that a new check is needed. */
  *#repairSome(findings: readonly Finding[], round: number): Task<boolean> {
    const todo = findings.filter(({ repair, evidence }) => repair !== undefined && !this.#refused.has(evidence));
    if (todo.length === 0) return false;
    this.#progress.doing = "repair";
    const phase = Math.min(...todo.map((finding) => repairPhase(finding.repair!)));
    const now = todo.filter((finding) => repairPhase(finding.repair!) === phase);
    yield* this.#findPaths(now);
    let done = 0;
    for (const finding of now) {
      const refused = yield* this.#repair(finding);
      if (refused === "") {
        done++;
        // Later on usage is off because of what was removed, not because it was wrong.
        if (finding.kind !== "usage" || round === 1) this.#repaired.push(finding);
      } else {
        this.#refused.set(finding.evidence, refused);
      }
      this.#tell({ repaired: this.#repaired.length });
    }
    return done > 0 || now.length < todo.length;
  }

  /** Makes one repair; why not, or nothing. */
  *#repair(finding: Finding): Task<string> {
    let refused = "";
    for (let attempt = 0; attempt < repairAttempts; attempt++) {
      if (attempt > 0) yield* wait(this.#parts.runtime.sleep(repairPauseMs));
      const steps = yield* this.#plan(finding);
      if (typeof steps === "string") return steps;
      let errno = 0;
      for (const step of steps) if (errno === 0) errno = yield* this.#apply(step);
      if (errno === 0) return "";
      refused = errno === E.BUSY ? "it is in use" : errno === E.AGAIN ? "it keeps changing" : errnoName(errno);
      if (errno !== E.BUSY && errno !== E.AGAIN) return refused;
    }
    return refused;
  }

  *#plan(finding: Finding): Task<RepairStep[] | string> {
    try {
      return yield* planRepair(finding, this.#records);
    } catch (error) {
      if (error instanceof DecodeError) return `a record cannot be read (${error.message})`;
      throw error;
    }
  }

  *#apply({ shard, changes, charges }: RepairStep): Task<number> {
    const reply = yield* this.#parts.caller.call(REPAIR, { shard }, { changes, charges });
    return reply.status;
  }

  *#findPaths(findings: readonly Finding[]): Task<void> {
    const paths = new Paths(this.#last, (key) => this.#records.read(key));
    for (const finding of findings.slice(0, pathsMax)) finding.path ??= yield* paths.of(finding);
  }

  #remoteRecords(): Records {
    const { runtime } = this.#parts;
    // deno-lint-ignore no-this-alias
    const check = this;
    return {
      read: function* (key): Task<Uint8Array | null> {
        const found = (yield* check.#list(key, 1))[0];
        return found !== undefined && compareKeys(found.key, key) === 0 ? found.value : null;
      },
      list: (prefix) => check.#list(prefix, listMax),
      lostAndFound: (volume) => check.#findLostAndFound(volume),
      newHashKey: () => Uint8Array.from({ length: 16 }, () => runtime.random32() & 0xff),
    };
  }

  /** Records whose keys begin with `prefix`, `count` at most. */
  *#list(prefix: Uint8Array, count: number): Task<StoredRecord[]> {
    const shard = keyNumber(prefix, 0, 2), found: StoredRecord[] = [];
    for (let from = prefix; found.length < count;) {
      const limitBytes = count === 1 ? 1 : pageBytes;
      const reply = yield* this.#parts.caller.call(SCAN, { shard }, { from, limitBytes });
      if (reply.status !== 0) {
        this.#fail(shard, reply);
        throw new Unreadable(this.#failure);
      }
      const { records, end } = reply.body!;
      for (const record of records) {
        if (!record.key.subarray(0, prefix.length).every((byte, i) => byte === prefix[i])) return found;
        if (record.key.length >= prefix.length) found.push(record);
        if (found.length >= count) return found;
      }
      if (end || records.length === 0) return found;
      const last = records[records.length - 1].key;
      from = new Uint8Array(last.length + 1);
      from.set(last);
    }
    return found;
  }

  *#findLostAndFound(volume: number): Task<number> {
    const known = this.#lostAndFound.get(volume);
    if (known !== undefined) return known;
    const { caller, maps } = this.#parts, root = rootInode(volume, maps.current.shards), name = lostAndFoundName;
    const target = { shard: shardOf(root) };
    const body = { dir: root, name, mode: lostAndFoundMode, umask: 0, uid: 0, gid: 0 };
    const made = yield* caller.call(MKDIR, target, body);
    let inode = made.status === 0 ? made.body!.attributes.inode : 0;
    if (made.status === E.EXIST) {
      const found = yield* caller.call(LOOKUP, target, { dir: root, name });
      inode = found.status === 0 && found.body!.type === 4 ? found.body!.inode : 0;
    }
    if (inode !== 0) this.#lostAndFound.set(volume, inode);
    return inode;
  }
}

/** True when no shard has changed between the two passes and no intent was under way. */
function isStill(first: Pass, second: Pass): boolean {
  if (first.checker.map !== second.checker.map || second.checker.intents.length > 0) return false;
  for (const [shard, position] of second.after) if (first.before.get(shard) !== position) return false;
  return true;
}

/** Findings about what another finding was about before, in other words. */
function countUnsettled(before: readonly Finding[], now: readonly Finding[], agreed: ReadonlySet<string>): number {
  const subject = ({ kind, inode, entry }: Finding) => `${kind}/${inode}/${entry?.dir}/${entry?.hash}/${entry?.disc}`;
  const subjects = new Set(before.map(subject));
  return now.filter((finding) => !agreed.has(finding.evidence) && subjects.has(subject(finding))).length;
}

function compareKeys(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

/** `bytes 4096 to 8191 and 12288 to 16383 of the file`. */
function rangesText(chunk: number, granules: readonly number[]): string {
  const ranges: [number, number][] = [];
  for (const granule of granules) {
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === granule) last[1]++;
    else ranges.push([granule, granule + 1]);
  }
  const start = chunk * (1 << 20);
  const shown = ranges.slice(0, rangesShown).map(([from, end]) => {
    return `${start + from * granuleBytes} to ${start + end * granuleBytes - 1}`;
  });
  if (ranges.length > rangesShown) shown.push(`${ranges.length - rangesShown} more ranges`);
  return `bytes ${shown.join(", ")}`;
}
