/**
 * Removal of a directory with everything below it, while others may go on creating there. Depth first with a stack of
 * its own, so the depth of the tree is no limit; files of a page go in parallel.
 *
 * Nothing is followed: links are removed. What others remove meanwhile is no error; a directory that keeps being filled
 * is ENOTEMPTY in the end, with what was there removed.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { type Attributes, S } from "../meta/attributes.ts";
import type { Task } from "../task.ts";
import { accessErrno, isSuperuser, may, stickyErrno } from "./access.ts";
import { type DirectoryEntry, type Done, done } from "./filesystem.ts";
import { inParallel } from "./parallel.ts";
import type { Paths } from "./paths.ts";

/** Names of one page, in bytes. */
const pageBytes = 32 * 1024;
/** Removals under way at once. */
const parallelMax = 16;
/** Times that a directory may be looked at without getting emptier. */
const barrenMax = 16;
const dtDir = S.IFDIR >>> 12;

/** A directory that is being emptied. */
interface Level {
  /** Where its name is. */
  dir: number;
  name: Uint8Array;
  inode: number;
  /** Its own attributes, when they matter. */
  attributes: Attributes | null;
  /** Looks in a row that brought nothing. */
  barren: number;
}

/** Removes the name; the caller has checked that it may go. */
export function* removeTree(paths: Paths, dir: number, name: Uint8Array): Task<Done> {
  const { fileSystem } = paths;
  const unlinked = yield* fileSystem.unlink(dir, name);
  if (unlinked !== E.ISDIR) return unlinked;
  const top = yield* enter(paths, dir, name);
  if (failed(top)) return top;
  const stack: Level[] = [top];
  while (stack.length > 0) {
    const level = stack[stack.length - 1];
    if (level.barren > barrenMax) return E.NOTEMPTY;
    const page = yield* fileSystem.readDirectory(level.inode, 0, pageBytes, {
      plus: !isSuperuser(paths.who),
      noAtime: true,
    });
    if (failed(page) && !isGone(page)) return page;
    const errno = failed(page) || page.length === 0
      ? yield* leave(paths, level, stack)
      : yield* empty(paths, level, stack, page);
    if (errno !== 0) return errno;
  }
  return done;
}

function isGone(errno: number): boolean {
  return errno === E.NOENT || errno === E.STALE;
}

/** Looks at a directory that is to be emptied. */
function* enter(paths: Paths, dir: number, name: Uint8Array, inode?: number): Task<Result<Level>> {
  if (inode !== undefined && isSuperuser(paths.who)) return { dir, name, inode, attributes: null, barren: 0 };
  const found = yield* paths.fileSystem.lookup(dir, name);
  if (failed(found)) return found;
  const level = { dir, name, inode: found.inode, attributes: found, barren: 0 };
  return (yield* accessErrno(paths.fileSystem, found, paths.who, may.read)) || level;
}

/** Removes the name of a directory that was found empty; it stays on the stack when it is not any more. errno. */
function* leave(paths: Paths, level: Level, stack: Level[]): Task<number> {
  const removed = yield* paths.fileSystem.removeDirectory(level.dir, level.name);
  if (removed === E.NOTEMPTY) {
    level.barren++;
    return 0;
  }
  stack.pop();
  return failed(removed) && !isGone(removed) ? removed : 0;
}

/** Removes the files of a page and puts its directories on the stack. errno. */
function* empty(paths: Paths, level: Level, stack: Level[], page: DirectoryEntry[]): Task<number> {
  const errno = yield* removalErrno(paths, level, page);
  if (errno !== 0) return errno;
  const files = page.filter((entry) => entry.type !== dtDir);
  const outcomes = yield* inParallel(paths.scheduler, files.length, parallelMax, (i) => {
    return paths.fileSystem.unlink(level.inode, files[i].name);
  });
  let progress = 0;
  for (const removed of outcomes) {
    if (!failed(removed)) progress++;
    // A directory may have taken a file's name: the next page shows it.
    else if (!isGone(removed) && removed !== E.ISDIR) return removed;
  }
  for (const entry of page) {
    if (entry.type !== dtDir) continue;
    const below = yield* enter(paths, level.inode, entry.name, entry.inode);
    if (failed(below) && !isGone(below)) return below;
    if (failed(below)) continue;
    stack.push(below);
    progress++;
  }
  level.barren = progress > 0 ? 0 : level.barren + 1;
  return 0;
}

function* removalErrno({ fileSystem, who }: Paths, level: Level, page: DirectoryEntry[]): Task<number> {
  const { attributes } = level;
  if (attributes === null || isSuperuser(who)) return 0;
  const errno = yield* accessErrno(fileSystem, attributes, who, may.write | may.execute);
  if (errno !== 0) return errno;
  const kept = page.find((entry) => entry.attributes !== null && stickyErrno(attributes, entry.attributes, who) !== 0);
  return kept === undefined ? 0 : E.PERM;
}
