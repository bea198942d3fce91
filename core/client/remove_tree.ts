/**
 * Removal of a directory with everything below it, while others may go on working there. Directories are emptied many
 * at once, each by requests that remove files by the hundred where they are, and go when nothing is left in them. What
 * waits is kept small by going down first, so neither depth nor width of the tree is a limit.
 *
 * Nothing is followed: links are removed. What others remove meanwhile is no error; a directory that keeps being filled
 * is ENOTEMPTY in the end, with what was there removed.
 *
 * @module
 */

import { E, failed } from "../errno.ts";
import { S } from "../meta/attributes.ts";
import type { Task } from "../task.ts";
import { accessErrno, isSuperuser, may, stickyErrno } from "./access.ts";
import type { Cleared } from "./filesystem.ts";
import { isGone } from "./namespace.ts";
import { inParallel } from "./parallel.ts";
import type { Paths } from "./paths.ts";
import { Problems, type TreeProblem } from "./tree_problems.ts";
import { workThrough } from "./tree_work.ts";
import { joined } from "./usage.ts";

/** Directories emptied at once, and single removals in one of them. */
const directoriesMax = 16, unlinksMax = 8;
/** Times that a directory may be gone through in a row without anything in it going. */
const barrenMax = 16;
const dtDir = S.IFDIR >>> 12;

/** How far a removal is. Changed as it goes on. */
export interface RemovalProgress {
  files: number;
  directories: number;
}

/** How to remove. */
export interface RemovalOptions {
  /** After an error go on with the rest, as rm(1) does; otherwise the first ends it. */
  keepGoing?: boolean;
  /** Counted up on the way. */
  progress?: RemovalProgress;
  /** True ends it: what is under way is waited for, nothing new begun. */
  stopped?: () => boolean;
}

/** What became of a removal. */
export interface Removal extends RemovalProgress {
  /** It was stopped before its end. */
  stopped: boolean;
  problems: TreeProblem[];
  moreProblems: number;
}

/** A directory that is being emptied. */
interface Level {
  above: Level | null;
  /** Where its name is. */
  dir: number;
  name: Uint8Array;
  inode: number;
  /** Where to go on; -1: nothing has been looked at yet. */
  cookie: number;
  /** Whose files alone may go (a sticky directory); null: all. */
  owner: number | null;
  /** Directories in it that are still there; with 0 and `listed` it can go. */
  below: number;
  listed: boolean;
  /** Something went since it was begun to be gone through; times that nothing did. */
  moved: boolean;
  barren: number;
  /** Something in it stays for good. */
  stays: boolean;
}

/** Removes the name; the caller has checked that it may go. `path` is what problems are named by. */
export function* removeTree(
  paths: Paths,
  at: { dir: number; name: Uint8Array; path: Uint8Array },
  options: RemovalOptions = {},
): Task<Removal> {
  return yield* new TreeRemoval(paths, at.path, options).run(at.dir, at.name);
}

class TreeRemoval {
  readonly #paths: Paths;
  readonly #path: Uint8Array;
  readonly #options: RemovalOptions;
  readonly #progress: RemovalProgress;
  readonly #problems = new Problems();
  #stopped = false;

  constructor(paths: Paths, path: Uint8Array, options: RemovalOptions) {
    this.#paths = paths;
    this.#path = path;
    this.#options = options;
    this.#progress = options.progress ?? { files: 0, directories: 0 };
  }

  *run(dir: number, name: Uint8Array): Task<Removal> {
    const { fileSystem, scheduler } = this.#paths;
    const unlinked = yield* fileSystem.unlink(dir, name);
    if (!failed(unlinked)) this.#progress.files++;
    else if (unlinked !== E.ISDIR) this.#problems.add(this.#path, unlinked);
    else {
      const found = yield* fileSystem.lookup(dir, name);
      if (failed(found)) this.#problems.add(this.#path, found);
      else {
        const top = level(null, { dir, name, inode: found.inode });
        yield* workThrough(scheduler, directoriesMax, [top], (one, push) => this.#work(one, push));
      }
    }
    const { files, directories } = this.#progress;
    return { files, directories, stopped: this.#stopped, ...this.#problems.told };
  }

  /** True when nothing new may be begun. */
  get #ended(): boolean {
    if (this.#options.stopped?.() ?? false) this.#stopped = true;
    return this.#stopped || (this.#problems.errno !== 0 && !this.#options.keepGoing);
  }

  /** One page of a directory, or its end. */
  *#work(one: Level, push: (levels: readonly Level[]) => void): Task<void> {
    if (this.#ended) return;
    if (one.cookie < 0) {
      const errno = yield* this.#enter(one);
      if (errno !== 0) return yield* this.#settle(one, errno, push);
      one.cookie = 0;
    }
    const page = yield* this.#paths.fileSystem.clearDirectory(one.inode, one.cookie, one.owner);
    if (failed(page)) return yield* this.#settle(one, page, push);
    this.#progress.files += page.removed;
    one.moved ||= page.removed > 0;
    const levels = yield* this.#rest(one, page);
    one.cookie = page.cookie;
    one.listed = page.end;
    one.below += levels.length;
    if (!one.listed) push([one]);
    else if (one.below === 0) yield* this.#settle(one, 0, push);
    push(levels);
  }

  /** Looks at a directory that is to be emptied: errno when the caller may not do that. */
  *#enter(one: Level): Task<number> {
    const { fileSystem, who } = this.#paths;
    if (isSuperuser(who)) return 0;
    const found = yield* fileSystem.getAttributes(one.inode);
    if (failed(found)) return found;
    const sticky = (found.mode & S.ISVTX) !== 0 && found.uid !== who.uid;
    one.owner = sticky ? who.uid : null;
    // One that is empty may go without being looked into.
    return found.entries === 0 ? 0 : yield* accessErrno(fileSystem, found, who, may.read | may.write | may.execute);
  }

  /** Removes what a page has left one by one; its directories come back. */
  *#rest(one: Level, page: Cleared): Task<Level[]> {
    const { scheduler } = this.#paths, files = page.left.filter((entry) => entry.type !== dtDir);
    yield* inParallel(scheduler, files.length, unlinksMax, (i) => this.#unlink(one, files[i].name));
    return page.left.filter((entry) => entry.type === dtDir)
      .map(({ name, inode }) => level(one, { dir: one.inode, name, inode }));
  }

  *#unlink(one: Level, name: Uint8Array): Task<void> {
    if (this.#ended) return;
    const { fileSystem, who } = this.#paths;
    if (one.owner !== null) {
      const dir = yield* fileSystem.getAttributes(one.inode), victim = yield* fileSystem.lookup(one.inode, name);
      const errno = failed(dir) ? dir : failed(victim) ? victim : stickyErrno(dir, victim, who);
      if (errno !== 0) return isGone(errno) ? undefined : this.#keeps(one, name, errno);
    }
    const removed = yield* fileSystem.unlink(one.inode, name);
    if (!failed(removed)) {
      this.#progress.files++;
      one.moved = true;
      // A directory may have taken a file's name: it is seen the next time.
    } else if (!isGone(removed) && removed !== E.ISDIR) this.#keeps(one, name, removed);
  }

  /** A file stays, and so the directory. */
  #keeps(one: Level, name: Uint8Array, errno: number): void {
    this.#problems.add(joined(this.#pathOf(one), name), errno);
    one.stays = true;
  }

  /**
   * A directory has been gone through, or given up with an errno: its name goes, if nothing stays in it, and so do those
   * above that waited for it alone.
   */
  *#settle(one: Level, errno: number, push: (levels: readonly Level[]) => void): Task<void> {
    for (let at: Level | null = one; at !== null; errno = 0) {
      if (errno === 0 && !at.stays) {
        if (this.#ended) return;
        errno = yield* this.#removeName(at);
      }
      if (errno === E.NOTEMPTY && !this.#isBarren(at)) return push([at]);
      at = this.#over(at, errno);
    }
  }

  /** Something is in a directory again: true when it has been gone through in vain too often. */
  #isBarren(one: Level): boolean {
    one.barren = one.moved ? 0 : one.barren + 1;
    one.moved = false;
    one.cookie = 0;
    one.listed = false;
    return one.barren > barrenMax;
  }

  *#removeName(one: Level): Task<number> {
    const { fileSystem, who } = this.#paths, { above } = one;
    if (above !== null && above.owner !== null) {
      const dir = yield* fileSystem.getAttributes(above.inode), victim = yield* fileSystem.getAttributes(one.inode);
      const errno = failed(dir) ? dir : failed(victim) ? victim : stickyErrno(dir, victim, who);
      if (errno !== 0) return errno;
    }
    const removed = yield* fileSystem.removeDirectory(one.dir, one.name);
    if (failed(removed)) return removed;
    this.#progress.directories++;
    return 0;
  }

  /** The work on a directory is over: it is gone, or stays. The one above, if that can be settled now. */
  #over(one: Level, errno: number): Level | null {
    const stays = one.stays || (errno !== 0 && !isGone(errno)), { above } = one;
    if (stays && !one.stays) this.#problems.add(this.#pathOf(one), errno);
    if (above === null) return null;
    above.below--;
    if (stays) above.stays = true;
    else above.moved = true;
    return above.listed && above.below === 0 ? above : null;
  }

  #pathOf(one: Level): Uint8Array {
    const names: Uint8Array[] = [];
    for (let at = one; at.above !== null; at = at.above) names.push(at.name);
    return names.reduceRight(joined, this.#path);
  }
}

function level(above: Level | null, at: { dir: number; name: Uint8Array; inode: number }): Level {
  return { above, ...at, cookie: -1, owner: null, below: 0, listed: false, moved: false, barren: 0, stays: false };
}
