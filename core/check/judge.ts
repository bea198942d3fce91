/**
 * The judgement at the end of a pass: names against inodes, inodes against their parts, counts, reachability, usage.
 *
 * What work in progress explains is left out: everything about an inode that an intent under way works on. Volumes that
 * are being deleted are left out too: their sweeper is at work.
 *
 * @module
 */

import { chunkBytesMax, granuleBytes } from "../data/chunk_record.ts";
import { accessAclName, defaultAclName } from "../meta/acl.ts";
import { inodeFlags, S } from "../meta/attributes.ts";
import { rootSequence, sequenceLimit, shardOf, xattrKey } from "../meta/layout.ts";
import { volumeState } from "../placement/map.ts";
import type { EntryPlace, InodeFix, Repair, Severity } from "./finding.ts";
import { judgeCharges } from "./charges.ts";
import type { Complaint, Observed } from "./observed.ts";
import { floorPart, type InodeTable, seen } from "./tables.ts";

const directory = S.IFDIR >> 12, regular = S.IFREG >> 12, symlink = S.IFLNK >> 12;
/** What is seen of attributes that an inode's flags tell of. */
const extendedFlags = [
  [seen.accessAcl, inodeFlags.accessAcl],
  [seen.defaultAcl, inodeFlags.defaultAcl],
  [seen.capability, inodeFlags.capability],
] as const;
/** `blocks` counts units of this. */
const unitBytes = 512;

/** Adds what is wrong to `all`. */
export function judge(all: Observed): void {
  new Judgement(all).run();
}

class Judgement {
  readonly #all: Observed;
  readonly #inodes: InodeTable;
  /** Inodes on which driven intents work. */
  readonly #moving = new Set<number>();
  /** Row of the directory in which a directory has its name, plus one; 0 when it has none. */
  readonly #above: Uint32Array;
  /** Findings that wait for the directories which their inode's names are in. */
  readonly #waiting = new Map<number, { complaint: Complaint; dirs: number[] }[]>();

  constructor(all: Observed) {
    this.#all = all;
    this.#inodes = all.inodes;
    this.#above = new Uint32Array(all.inodes.count);
  }

  run(): void {
    this.#judgeIntents();
    this.#findParents();
    this.#judgeNames();
    for (let row = 0; row < this.#inodes.count; row++) this.#judgeInode(row);
    this.#judgeParts();
    this.#judgeReach();
    judgeCharges(this.#all);
    for (const [volume, { shard, inodes, chunks }] of this.#all.strangers) {
      const text = `${inodes} inodes and ${chunks} chunks of volume ${volume}, which does not exist`;
      this.#all.add({ kind: "volume", severity: "error", shard, text });
    }
    this.#tellWaiting();
  }

  /** Adds a complaint unless work in progress explains it. */
  #add(complaint: Complaint): void {
    const { inode = 0, entry, about = [] } = complaint;
    const moving = this.#moving;
    if (moving.size > 0 && [inode, entry?.dir ?? 0, ...about].some((one) => moving.has(one))) return;
    this.#all.add(complaint);
  }

  /** Adds a complaint about an inode once it is known which directories name it. */
  #addWithNames(row: number, complaint: Complaint): void {
    const waiting = { complaint, dirs: [] }, others = this.#waiting.get(row);
    if (others === undefined) this.#waiting.set(row, [waiting]);
    else others.push(waiting);
  }

  #tellWaiting(): void {
    const { names } = this.#all;
    if (this.#waiting.size === 0) return;
    for (let i = 0; i < names.count; i++) {
      for (const { dirs } of this.#waiting.get(names.target[i]) ?? []) dirs.push(this.#inodes.inode[names.dir[i]]);
    }
    for (const list of this.#waiting.values()) {
      for (const { complaint, dirs } of list) this.#add({ ...complaint, about: [...complaint.about ?? [], ...dirs] });
    }
  }

  /** True for an inode that exists and belongs to a volume that is to be checked. */
  #isHere(row: number): boolean {
    return this.#inodes.has(row, seen.inode) &&
      this.#all.volumeState(this.#inodes.volume[row]) === volumeState.live;
  }

  /** True for an inode that exists but is not to be checked, or cannot be because its record is damaged. */
  #isExempt(row: number): boolean {
    return this.#inodes.has(row, seen.damaged) || this.#inodes.has(row, seen.inode) && !this.#isHere(row);
  }

  #isRoot(row: number): boolean {
    return this.#all.roots.has(this.#inodes.inode[row]);
  }

  #isRootOf(row: number, volume: number): boolean {
    return this.#inodes.inode[row] % sequenceLimit === rootSequence + volume;
  }

  #judgeIntents(): void {
    const { intents, facts, atRest, born, held } = this.#all;
    const counts = new Map<number, number>(), alive = new Set<string>(), driven = new Set<string>();
    for (const { shard } of intents) counts.set(shard, (counts.get(shard) ?? 0) + 1);
    for (const { shard, n, about } of intents) {
      alive.add(`${shard}/${n}`);
      if (!atRest && counts.get(shard)! <= facts.get(shard)!.intents) {
        driven.add(`${shard}/${n}`);
        for (const inode of about) if (inode !== 0) this.#moving.add(inode);
        continue;
      }
      const text = `intent ${n} of shard ${shard} is not finished and nobody works on it: restart the shard's server`;
      this.#all.add({ kind: "intent", severity: "error", shard, text, about });
    }
    for (const { driver, n, inode } of born) if (driven.has(`${driver}/${n}`)) this.#moving.add(inode);
    for (const { shard, driver, n, key, dir } of held) {
      if (alive.has(`${driver}/${n}`)) continue;
      const text = `a name in directory ${dir} is locked for intent ${n} of shard ${driver}, which is over`;
      const repair: Repair = { do: "freeName", key };
      this.#all.add({ kind: "intent", severity: "error", shard, text, about: [dir], repair });
    }
  }

  /** Of several names of a directory the one in the directory that it takes for its parent counts. */
  #findParents(): void {
    const { names } = this.#all, { type, parent, inode } = this.#inodes;
    for (let i = 0; i < names.count; i++) {
      const row = names.target[i];
      if (type[row] !== directory) continue;
      if (this.#above[row] === 0 || inode[names.dir[i]] === parent[row]) this.#above[row] = names.dir[i] + 1;
    }
  }

  #judgeNames(): void {
    const { names } = this.#all, { inode } = this.#inodes;
    /** Directories whose one good name was met. */
    const met = new Set<number>();
    for (let i = 0; i < names.count; i++) {
      const dir = names.dir[i], target = names.target[i];
      if (!this.#isHere(dir) || this.#inodes.type[dir] !== directory || this.#isExempt(target)) continue;
      const wrong = this.#wrongName(i, met);
      if (wrong === null) continue;
      const place = names.place[i];
      const entry: EntryPlace = { dir: inode[dir], hash: Math.floor(place / 32), disc: place % 32 };
      this.#add({
        kind: "name",
        severity: "error",
        shard: shardOf(entry.dir),
        text: wrong.text,
        entry,
        versions: [this.#inodes.version[dir], this.#inodes.version[target]],
        about: [inode[target]],
        repair: wrong.type === undefined
          ? { do: "dropName", ...entry }
          : { do: "typeName", type: wrong.type, ...entry },
      });
    }
  }

  #wrongName(i: number, met: Set<number>): { text: string; type?: number } | null {
    const { names } = this.#all, { inode, type, volume } = this.#inodes;
    const dir = names.dir[i], target = names.target[i], number = inode[target];
    if (!this.#inodes.has(target, seen.inode)) return { text: `leads to inode ${number}, which does not exist` };
    if (this.#isRoot(target)) return { text: `leads to inode ${number}, the root of a volume` };
    if (volume[dir] !== volume[target]) {
      return { text: `leads to inode ${number}, which is of another volume (${volume[target]})` };
    }
    if (names.type[i] !== type[target]) {
      const text = `says type ${names.type[i]}, but inode ${number} is of type ${type[target]}`;
      return { text, type: type[target] };
    }
    if (type[target] !== directory || this.#inodes.names[target] === 1) return null;
    if (this.#above[target] === dir + 1 && !met.has(target)) {
      met.add(target);
      return null;
    }
    return { text: `is a second name of directory ${number}` };
  }

  #judgeInode(row: number): void {
    if (this.#isExempt(row)) return;
    const { inode, type, ownNames } = this.#inodes, here = this.#inodes.has(row, seen.inode), number = inode[row];
    const rootOf = here
      ? undefined
      : this.#all.map.volumes.find((one) => this.#isRoot(row) && this.#isRootOf(row, one.id));
    if (rootOf !== undefined) {
      if (ownNames[row] === 0 || rootOf.state !== volumeState.live) return;
      const text = `the root of volume ${rootOf.name}, inode ${number}, does not exist, but ${
        ownNames[row]
      } names in it do`;
      const repair: Repair = { do: "newRoot", volume: rootOf.id, root: number };
      return this.#add({ kind: "lost", severity: "error", shard: shardOf(number), inode: number, text, repair });
    }
    if (ownNames[row] > 0 && (!here || type[row] !== directory)) {
      const why = here ? "is no directory" : "does not exist";
      this.#add({
        kind: "name",
        severity: "error",
        shard: shardOf(number),
        inode: number,
        text: `${ownNames[row]} names lie in inode ${number}, which ${why}`,
        repair: here ? undefined : { do: "dropNames", dir: number },
      });
    }
    if (!here) return;
    if (type[row] === directory) this.#judgeDirectory(row);
    else this.#judgeFile(row);
    this.#judgeContents(row);
    this.#judgeExtended(row);
  }

  /** ACLs and capabilities, of which the inode's flags and mode speak too. */
  #judgeExtended(row: number): void {
    const { inode, type, mode, flags, version, aclPermissions } = this.#inodes, number = inode[row];
    const wrong: string[] = [], fix: InodeFix = {};
    let flagged = flags[row];
    for (const [bit, flag] of extendedFlags) flagged = this.#inodes.has(row, bit) ? flagged | flag : flagged & ~flag;
    if (flagged !== flags[row]) {
      fix.flags = flagged;
      wrong.push("does not know which ACLs and capabilities it has");
    }
    const permissions = mode[row] & 0o777, listed = aclPermissions[row] - 1;
    if (listed >= 0 && listed !== permissions) {
      fix.mode = mode[row] & ~0o777 | listed;
      wrong.push(`has mode 0${permissions.toString(8)} and an ACL that says 0${listed.toString(8)}`);
    }
    if (wrong.length > 0) this.#misstated(row, `inode ${number} ${wrong.join(", ")}`, "error", fix);
    const misplaced = [
      { name: accessAclName, is: type[row] === symlink && this.#inodes.has(row, seen.accessAcl) },
      { name: defaultAclName, is: type[row] !== directory && this.#inodes.has(row, seen.defaultAcl) },
    ];
    for (const { name, is } of misplaced) {
      if (!is) continue;
      const part = { shard: shardOf(number), inode: number, versions: [version[row]] };
      const text = `inode ${number} is of a type that has no such ACL`, key = xattrKey(number, name);
      this.#add({ ...part, kind: "part", severity: "error", text, repair: { do: "dropRecord", key } });
    }
  }

  #judgeDirectory(row: number): void {
    const { inode, names, ownNames, version, volume } = this.#inodes, number = inode[row];
    const part = { shard: shardOf(number), inode: number, versions: [version[row]] };
    if (!this.#inodes.has(row, seen.hashKey)) {
      const text = `directory ${number} has lost the key of its names`;
      this.#add({ ...part, kind: "part", severity: "error", text, repair: { do: "newHashKey", dir: number } });
    }
    if (this.#inodes.has(row, seen.orphan)) this.#strayOrphan(row);
    if (!this.#isRoot(row)) {
      if (number % sequenceLimit >= rootSequence) {
        const text = `directory ${number} has the number of a root of another volume than its own (${volume[row]})`;
        this.#add({ ...part, kind: "place", severity: "error", text });
      }
      if (names[row] === 0) {
        const empty = ownNames[row] === 0;
        const text = `directory ${number} has no name${empty ? " and nothing in it" : ""}`;
        const repair: Repair = { do: empty ? "dropInode" : "adopt", inode: number };
        this.#add({ ...part, kind: "lost", severity: "error", text, repair });
      }
    }
    this.#judgeDirectoryCounts(row);
  }

  #judgeDirectoryCounts(row: number): void {
    const { inode, nlink, entries, parent, flags, ownNames, ownDirectories } = this.#inodes;
    const wrong: string[] = [], fix: InodeFix = {};
    if (nlink[row] !== 2 + ownDirectories[row]) {
      fix.nlink = 2 + ownDirectories[row];
      wrong.push(`says ${nlink[row]} links and has ${fix.nlink}`);
    }
    if (entries[row] !== ownNames[row]) {
      fix.entries = ownNames[row];
      wrong.push(`says ${entries[row]} entries and has ${ownNames[row]}`);
    }
    if ((flags[row] & inodeFlags.sealed) !== 0) {
      fix.flags = flags[row] & ~inodeFlags.sealed;
      wrong.push("is sealed");
    }
    const above = this.#isRoot(row) ? inode[row] : this.#above[row] === 0 ? 0 : inode[this.#above[row] - 1];
    if (above !== 0 && parent[row] !== above) {
      fix.parent = above;
      wrong.push(`says it lies in ${parent[row]} and lies in ${above}`);
    }
    if (wrong.length > 0) this.#misstated(row, `directory ${inode[row]} ${wrong.join(", ")}`, "error", fix);
  }

  #misstated(row: number, text: string, severity: Severity, fix: InodeFix): void {
    const { inode, version } = this.#inodes, number = inode[row];
    this.#addWithNames(row, {
      kind: "attributes",
      severity,
      shard: shardOf(number),
      inode: number,
      text,
      versions: [version[row]],
      repair: { do: "setInode", inode: number, version: version[row], fix },
    });
  }

  /** Names of what is no directory. */
  #judgeFile(row: number): void {
    const { inode, nlink, names, version } = this.#inodes, number = inode[row];
    const part = { shard: shardOf(number), inode: number, versions: [version[row]] };
    const orphan = this.#inodes.has(row, seen.orphan), open = this.#inodes.has(row, seen.open);
    if (names[row] > 0) {
      if (orphan) this.#strayOrphan(row);
      if (nlink[row] !== names[row]) {
        const text = `inode ${number} says ${nlink[row]} links and has ${names[row]}`;
        this.#misstated(row, text, "error", { nlink: names[row] });
      }
      return;
    }
    if (nlink[row] > 0) {
      const empty = this.#isEmpty(row) && !open;
      const text = `inode ${number} has no name${empty ? " and nothing in it" : ""}`;
      const repair: Repair = { do: empty ? "dropInode" : "adopt", inode: number };
      return this.#addWithNames(row, { ...part, kind: "lost", severity: "error", text, repair });
    }
    if (!orphan) {
      const text = `inode ${number} is deleted and would stay for ever`;
      const repair: Repair = open
        ? { do: "markOrphan", inode: number, orphan: true }
        : { do: "dropInode", inode: number };
      return this.#add({ ...part, kind: "orphan", severity: "error", text, repair });
    }
    if (open || this.#all.facts.get(shardOf(number))?.grace) return;
    const text = `inode ${number} is deleted, nobody has it open, and it is still there`;
    this.#add({ ...part, kind: "orphan", severity: "warning", text, repair: { do: "dropInode", inode: number } });
  }

  #strayOrphan(row: number): void {
    const number = this.#inodes.inode[row];
    this.#add({
      kind: "orphan",
      severity: "error",
      shard: shardOf(number),
      inode: number,
      text: `inode ${number} has a name and is marked as deleted`,
      versions: [this.#inodes.version[row]],
      repair: { do: "markOrphan", inode: number, orphan: false },
    });
  }

  #isEmpty(row: number): boolean {
    return this.#inodes.type[row] === regular && this.#inodes.size[row] === 0 &&
      (this.#inodes.seen[row] & (seen.data | seen.farChunk | seen.chunkZero)) === 0;
  }

  /** Data, target, size, flags, blocks. */
  #judgeContents(row: number): void {
    const { inode, type, size, targetBytes, version } = this.#inodes, number = inode[row];
    const has = (bits: number) => (this.#inodes.seen[row] & bits) !== 0;
    const part = (text: string) =>
      this.#add({
        kind: "part",
        severity: "error",
        shard: shardOf(number),
        inode: number,
        text: `inode ${number} ${text}`,
        versions: [version[row]],
      });
    if (type[row] !== symlink && has(seen.target)) part("is no symbolic link and has a target");
    if (type[row] !== directory && has(seen.hashKey)) part("is no directory and has a key of names");
    if (type[row] !== regular && has(seen.data | seen.chunkZero | seen.farChunk)) {
      part("is no regular file and has data");
    }
    if (type[row] === symlink && !has(seen.target)) part("is a symbolic link that has lost its target");
    else if (type[row] === symlink && size[row] !== targetBytes[row]) {
      const text = `symbolic link ${number} says ${size[row]} bytes and has ${targetBytes[row]}`;
      this.#misstated(row, text, "warning", { size: targetBytes[row] });
    }
    if (type[row] !== regular) return;
    if (has(seen.data) && has(seen.chunkZero)) part("has its first bytes twice, inline and in chunk 0");
    this.#judgeRegular(row);
  }

  #judgeRegular(row: number): void {
    const { inode, size, flags, blocks, inlineBytes, chunkBlocks } = this.#inodes;
    const has = (bits: number) => this.#inodes.has(row, bits);
    const wrong: string[] = [], fix: InodeFix = {}, far = has(seen.farChunk);
    let severity: Severity = "warning", flagged = flags[row];
    if (has(seen.data)) flagged |= inodeFlags.inline;
    if (far) flagged |= inodeFlags.far;
    if (flagged !== flags[row]) {
      fix.flags = flagged;
      wrong.push(
        far && (flags[row] & inodeFlags.far) === 0
          ? "does not know of its far chunks"
          : "does not know of its inline data",
      );
    }
    if (inlineBytes[row] > size[row]) {
      fix.size = inlineBytes[row];
      wrong.push(`says ${size[row]} bytes and has ${inlineBytes[row]}`);
    }
    if (wrong.length > 0) severity = "error";
    const units = (Math.ceil(inlineBytes[row] / granuleBytes) + chunkBlocks[row]) * granuleBytes / unitBytes;
    // Space in far chunks is told apart from their writing, so it may be off after a failure; while open it is on its way.
    const mayDiffer = (flagged & inodeFlags.far) !== 0;
    if (blocks[row] !== units && !(mayDiffer && has(seen.open))) {
      if (wrong.length === 0 && mayDiffer) severity = "note";
      fix.blocks = units;
      wrong.push(`says ${blocks[row]} blocks of 512 bytes and has ${units}`);
    }
    if (wrong.length > 0) this.#misstated(row, `inode ${inode[row]} ${wrong.join(", ")}`, severity, fix);
  }

  /** Chunks and floors, and everything of inodes that do not exist. */
  #judgeParts(): void {
    const { parts } = this.#all, { inode, type, volume, floor, gen } = this.#inodes;
    const leaked = new Map<number, { shards: Set<number>; chunks: number; blocks: number }>();
    const floors = new Map<number, number[]>();
    for (let i = 0; i < parts.count; i++) {
      const row = parts.owner[i], shard = parts.shard[i], isFloor = parts.chunk[i] === floorPart;
      if (this.#isExempt(row)) continue;
      if (!this.#inodes.has(row, seen.inode)) {
        let found = leaked.get(row);
        if (found === undefined) leaked.set(row, found = { shards: new Set(), chunks: 0, blocks: 0 });
        found.shards.add(shard);
        found.chunks += isFloor ? 0 : 1;
        found.blocks += parts.blocks[i];
      } else if (isFloor) {
        if (floor[row] > gen[row]) floors.set(row, [...floors.get(row) ?? [], shard]);
      } else if (type[row] === regular) {
        if (parts.volume[i] !== volume[row]) {
          const text = `chunk ${parts.chunk[i]} of inode ${inode[row]} is of volume ${parts.volume[i]}, the inode of ${
            volume[row]
          }`;
          this.#add({ kind: "part", severity: "error", shard, inode: inode[row], text });
        }
        this.#judgeEnd(i, row);
      }
    }
    const nearParts = seen.hashKey | seen.data | seen.target | seen.xattr | seen.orphan | seen.mask | seen.places;
    for (let row = 0; row < this.#inodes.count; row++) {
      if (this.#inodes.has(row, seen.inode) || (this.#inodes.seen[row] & nearParts) === 0) continue;
      if (this.#isRoot(row) || this.#isExempt(row)) continue;
      if (!leaked.has(row)) leaked.set(row, { shards: new Set(), chunks: 0, blocks: 0 });
      leaked.get(row)!.shards.add(shardOf(inode[row]));
    }
    for (const [row, found] of leaked) this.#leaked(row, found);
    for (const [row, shards] of floors) {
      const number = inode[row],
        text = `inode ${number} cannot be written: floor ${floor[row]}, generation ${gen[row]}`;
      const repair: Repair = { do: "lowerFloors", inode: number, gen: gen[row], shards };
      const versions = [this.#inodes.version[row]];
      this.#add({ kind: "part", severity: "error", shard: shards[0], inode: number, text, versions, repair });
    }
  }

  #leaked(
    row: number,
    { shards, chunks, blocks }: { shards: ReadonlySet<number>; chunks: number; blocks: number },
  ): void {
    const number = this.#inodes.inode[row],
      has = (bit: number) => (this.#inodes.seen[row] & bit) !== 0,
      list: string[] = [];
    if (chunks > 0) list.push(`${chunks} chunks with ${blocks * granuleBytes} bytes`);
    if (has(seen.data)) list.push("inline data");
    if (has(seen.target)) list.push("a link's target");
    if (has(seen.xattr)) list.push("extended attributes");
    if (has(seen.hashKey)) list.push("a key of names");
    const harmless = list.length === 0;
    if (has(seen.floor)) list.push("floors");
    if (has(seen.orphan)) list.push("a mark as deleted");
    if (has(seen.mask)) list.push("a mask of servers");
    if (has(seen.places)) list.push("directories of names");
    this.#add({
      kind: "leaked",
      severity: harmless ? "note" : "warning",
      shard: shardOf(number),
      inode: number,
      text: `${list.join(", ")} of inode ${number}, which does not exist`,
      repair: { do: "dropParts", inode: number, shards: [...shards] },
    });
  }

  /** A chunk against the end of its file. What lies behind it may be a write whose size is not published yet. */
  #judgeEnd(part: number, row: number): void {
    const { parts } = this.#all, { inode, size, version } = this.#inodes;
    const chunk = parts.chunk[part], shard = parts.shard[part], number = inode[row];
    const inside = Math.max(0, Math.ceil((size[row] - chunk * chunkBytesMax) / granuleBytes));
    if (parts.granules[part] <= inside || this.#inodes.has(row, seen.open)) return;
    if (this.#all.facts.get(shardOf(number))?.grace) return;
    const bytes = (parts.granules[part] - inside) * granuleBytes;
    this.#add({
      kind: "beyond",
      severity: chunk === 0 ? "warning" : "note",
      shard,
      inode: number,
      text: `chunk ${chunk} of inode ${number} reaches ${bytes} bytes behind the end of the file`,
      versions: [version[row], parts.granules[part]],
      repair: { do: "cutChunk", shard, inode: number, chunk, granules: inside },
    });
  }

  /** Directories that are their own ancestors. Others hang on a root, or below one that was found lost. */
  #judgeReach(): void {
    const { count, type, inode, version } = this.#inodes, state = new Uint8Array(count);
    const onPath = 1, done = 2;
    for (let start = 0; start < count; start++) {
      if (state[start] !== 0 || type[start] !== directory || !this.#isHere(start)) continue;
      const path: number[] = [];
      let at = start;
      while (state[at] === 0 && type[at] === directory && this.#isHere(at)) {
        state[at] = onPath;
        path.push(at);
        if (this.#isRoot(at) || this.#above[at] === 0) break;
        at = this.#above[at] - 1;
      }
      const loops = state[at] === onPath && !this.#isRoot(at) && this.#above[at] !== 0;
      for (const row of path) state[row] = done;
      if (!loops) continue;
      const ring = path.slice(path.indexOf(at)), number = inode[at];
      const entry = this.#nameOf(at);
      this.#add({
        kind: "cycle",
        severity: "error",
        shard: shardOf(number),
        inode: number,
        text: `directory ${number} lies in itself, through ${ring.length} directories`,
        versions: ring.slice(0, 64).map((row) => version[row]),
        about: ring.slice(0, 64).map((row) => inode[row]),
        repair: entry === null ? undefined : { do: "dropName", ...entry },
      });
    }
  }

  /** Place of a directory's name. */
  #nameOf(row: number): EntryPlace | null {
    const { names } = this.#all;
    for (let i = 0; i < names.count; i++) {
      if (names.target[i] !== row || names.dir[i] + 1 !== this.#above[row]) continue;
      const place = names.place[i];
      return { dir: this.#inodes.inode[names.dir[i]], hash: Math.floor(place / 32), disc: place % 32 };
    }
    return null;
  }
}
