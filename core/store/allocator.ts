/**
 * The free map of a container: which 4 KiB blocks hold data. It lives in memory and is built at start from the chunk
 * records. A freed block goes to quarantine first and may be used again only when the log that frees it is durable:
 * else a power cut would bring back the record and find other bytes there. Block 0 stands for a hole and is never given out.
 *
 * A wrong free or use of a block is a bug and throws. Not concerned with what the blocks hold, nor with I/O.
 *
 * @module
 */

/** Blocks in a row, no more than {@linkcode runBlocksMax}. */
export interface Run {
  block: number;
  count: number;
}

/** Longest run: one chunk. */
export const runBlocksMax = 256;
/** Blocks a group has. Runs never cross groups; containers grow by a multiple of it. */
export const groupBlocks = 4096;
/** Requests of this size and above are kept apart from smaller ones, so that small files do not break up the room for large ones. */
const largeBlocksMin = 64;

const groupWords = groupBlocks / 32;

interface Frozen extends Run {
  shard: number;
  position: number;
  serial: number;
}

/** Gives out blocks of a container of `blockCount` blocks. */
export class Allocator {
  #words = new Uint32Array(0);
  /** Free blocks of each group, and no less than its longest run. */
  #groupFree: number[] = [];
  #groupRunMax: number[] = [];
  #cursor = { small: 0, large: 0 };
  #quarantine: Frozen[] = [];
  #serial = 0;
  /** Blocks that the container has. */
  blockCount = 0;
  /** Blocks that hold data or are in quarantine. */
  usedBlocks = 0;
  /** Blocks that wait for the log to become durable. */
  quarantinedBlocks = 0;

  constructor(blockCount: number) {
    this.extend(blockCount);
  }

  /** Blocks that can be given out now. */
  get freeBlocks(): number {
    return this.blockCount - this.usedBlocks;
  }

  /** The container has grown to `blockCount` blocks. What lies behind the last whole group is not used. */
  extend(blockCount: number): void {
    const groups = Math.floor(blockCount / groupBlocks), had = this.#groupFree.length;
    if (groups <= had) return;
    const words = new Uint32Array(groups * groupWords);
    words.set(this.#words);
    this.#words = words;
    for (let group = had; group < groups; group++) {
      this.#groupFree.push(groupBlocks);
      this.#groupRunMax.push(groupBlocks);
    }
    this.blockCount = groups * groupBlocks;
    if (had === 0 && this.blockCount > 0) this.#take(0, 1);
  }

  /** Marks a block that a chunk record names. False when it is outside the container or taken already. */
  claim(block: number): boolean {
    if (block <= 0 || block >= this.blockCount || this.isUsed(block)) return false;
    this.#take(block, 1);
    return true;
  }

  /** True when the block holds data, was given out, or is in quarantine. */
  isUsed(block: number): boolean {
    return (this.#words[block >>> 5] >>> (block & 31) & 1) === 1;
  }

  /** Gives out `count` (1..{@linkcode runBlocksMax}) blocks in as few runs as can be found, or null when there are not enough. */
  allocate(count: number): Run[] | null {
    if (!(count >= 1 && count <= runBlocksMax)) throw new RangeError(`allocation of ${count} blocks`);
    if (count > this.freeBlocks) return null;
    const whole = this.#find(count, count);
    if (whole !== null) return [whole];
    const runs: Run[] = [];
    for (let want = count, left = count; left > 0;) {
      want = Math.min(want, left);
      const run = this.#find(want, count);
      if (run === null) {
        if (want === 1) throw new Error("allocator: free blocks are not where they are counted");
        want = want + 1 >>> 1;
        continue;
      }
      runs.push(run);
      left -= run.count;
    }
    return runs;
  }

  /** Takes back blocks that were given out and never named by a record: free at once. */
  giveBack(runs: readonly Run[]): void {
    for (const run of runs) this.#release(run.block, run.count);
  }

  /** A record of `shard` at `position` has dropped `block`. */
  free(block: number, shard: number, position: number): void {
    if (block <= 0 || block >= this.blockCount || !this.isUsed(block)) {
      throw new Error(`allocator: free of block ${block}`);
    }
    this.quarantinedBlocks++;
    const last = this.#quarantine.at(-1);
    // Two runs of one record may meet at a group's end: its free blocks are counted by group.
    const follows = last !== undefined && last.block + last.count === block && block % groupBlocks !== 0;
    if (follows && last.shard === shard && last.position === position) last.count++;
    else this.#quarantine.push({ block, count: 1, shard, position, serial: this.#serial++ });
  }

  /** A mark to give to {@linkcode thaw}: everything freed until now. */
  quarantineMark(): number {
    return this.#serial;
  }

  /** The log is durable up to `mark`: what was freed before goes back, except what `held(shard, position)` still needs. */
  thaw(mark: number, held: (shard: number, position: number) => boolean): void {
    const kept: Frozen[] = [];
    for (const run of this.#quarantine) {
      if (run.serial >= mark || held(run.shard, run.position)) {
        kept.push(run);
        continue;
      }
      this.quarantinedBlocks -= run.count;
      this.#release(run.block, run.count);
    }
    this.#quarantine = kept;
  }

  /** Finds and takes `count` blocks in a row; `wanted` is the size of the whole request. */
  #find(count: number, wanted: number): Run | null {
    const groups = this.#groupFree.length, kind = wanted >= largeBlocksMin ? "large" : "small";
    const start = this.#cursor[kind];
    for (let step = 0; step < groups; step++) {
      const group = (start + step) % groups;
      if (this.#groupFree[group] < count || this.#groupRunMax[group] < count) continue;
      const block = this.#findInGroup(group, count);
      if (block < 0) continue;
      this.#take(block, count);
      this.#cursor[kind] = group;
      return { block, count };
    }
    return null;
  }

  /** First free run of `count` in the group, or -1; learns the longest run when there is none. */
  #findInGroup(group: number, count: number): number {
    const words = this.#words, firstWord = group * groupWords;
    let run = 0, longest = 0;
    for (let at = 0; at < groupWords; at++) {
      const word = words[firstWord + at];
      if (word === 0xffffffff) {
        if (run > longest) longest = run;
        run = 0;
        continue;
      }
      if (word === 0) {
        run += 32;
        if (run >= count) return group * groupBlocks + (at + 1) * 32 - run;
        continue;
      }
      for (let bit = 0; bit < 32; bit++) {
        if ((word >>> bit & 1) === 0) {
          if (++run >= count) return group * groupBlocks + at * 32 + bit + 1 - run;
        } else {
          if (run > longest) longest = run;
          run = 0;
        }
      }
    }
    this.#groupRunMax[group] = Math.max(longest, run);
    return -1;
  }

  #take(block: number, count: number): void {
    this.#groupFree[Math.floor(block / groupBlocks)] -= count;
    this.usedBlocks += count;
    for (let at = block; at < block + count; at++) {
      const mask = 1 << (at & 31);
      if ((this.#words[at >>> 5] & mask) !== 0) throw new Error(`allocator: block ${at} given out twice`);
      this.#words[at >>> 5] |= mask;
    }
  }

  #release(block: number, count: number): void {
    const group = Math.floor(block / groupBlocks);
    this.#groupFree[group] += count;
    this.#groupRunMax[group] = groupBlocks;
    this.usedBlocks -= count;
    for (let at = block; at < block + count; at++) {
      const mask = 1 << (at & 31);
      if ((this.#words[at >>> 5] & mask) === 0) throw new Error(`allocator: block ${at} freed twice`);
      this.#words[at >>> 5] &= ~mask;
    }
  }
}
