/**
 * What a tree takes, from metadata alone: directories are summed up by the servers that hold them, many at once. Nothing
 * is followed; a file with several names is counted once.
 *
 * What comes and goes meanwhile is counted or not. A directory that may not be read, or that cannot be asked for, is
 * named, and the rest is counted.
 *
 * @module
 */

import { failed, type Result } from "../errno.ts";
import { type Attributes, isDirectory } from "../meta/attributes.ts";
import type { Task } from "../task.ts";
import { accessErrno, may } from "./access.ts";
import { isGone } from "./namespace.ts";
import type { Paths } from "./paths.ts";
import { Problems, type TreeProblem } from "./tree_problems.ts";
import { workThrough } from "./tree_work.ts";

/** Directories looked at at once. */
const parallelMax = 16;
const sectorBytes = 512;

/** What a tree takes. */
export interface Usage {
  /** Everything but directories. */
  files: number;
  directories: number;
  /** Sum of the sizes of files, and what files and directories have allocated. */
  apparentBytes: number;
  allocatedBytes: number;
  problems: TreeProblem[];
  /** Problems beyond those that are named. */
  moreProblems: number;
}

/** Files with several names, and how many of these have not been met yet. May be shared by several trees. */
export type LinksMet = Map<number, number>;

interface Place {
  inode: number;
  cookie: number;
  path: Uint8Array;
}

/** Sums up what `top` is, or holds. `met` remembers files with several names. */
export function* usageOf(
  paths: Paths,
  top: { attributes: Attributes; path: Uint8Array },
  met: LinksMet,
): Task<Result<Usage>> {
  const problems = new Problems();
  const usage = { files: 0, directories: 0, apparentBytes: 0, allocatedBytes: 0 };
  const link = (file: { inode: number; nlink: number; bytes: number; blocks: number }) => {
    const left = met.get(file.inode);
    if (left === undefined) {
      usage.files++;
      usage.apparentBytes += file.bytes;
      usage.allocatedBytes += file.blocks * sectorBytes;
    }
    const more = (left ?? file.nlink) - 1;
    if (more > 0) met.set(file.inode, more);
    else met.delete(file.inode);
  };
  const { attributes, path } = top;
  if (!isDirectory(attributes.mode)) {
    link({ inode: attributes.inode, nlink: attributes.nlink, bytes: attributes.size, blocks: attributes.blocks });
    return { ...usage, problems: [], moreProblems: 0 };
  }
  const first = [{ inode: attributes.inode, cookie: 0, path }];
  yield* workThrough<Place>(paths.scheduler, parallelMax, first, function* (place, push): Task<void> {
    const page = yield* paths.fileSystem.tallyDirectory(place.inode, place.cookie);
    if (failed(page)) {
      if (place.inode === attributes.inode || !isGone(page)) problems.add(place.path, page);
      return;
    }
    const { directory } = page;
    if (place.cookie === 0) {
      usage.directories++;
      usage.allocatedBytes += directory.blocks * sectorBytes;
      const errno = yield* accessErrno(paths.fileSystem, directory, paths.who, may.read | may.execute);
      if (errno !== 0) return problems.add(place.path, errno);
    }
    usage.files += page.files;
    usage.apparentBytes += page.bytes;
    usage.allocatedBytes += page.blocks * sectorBytes;
    for (const file of page.linked) link(file);
    if (!page.end) push([{ ...place, cookie: page.cookie }]);
    push(page.dirs.map(({ name, inode }) => ({ inode, cookie: 0, path: joined(place.path, name) })));
  });
  return { ...usage, ...problems.told };
}

/** `dir/name`. */
export function joined(dir: Uint8Array, name: Uint8Array): Uint8Array {
  const slash = 0x2f, separator = dir.length > 0 && dir[dir.length - 1] !== slash ? 1 : 0;
  const path = new Uint8Array(dir.length + separator + name.length);
  path.set(dir);
  if (separator > 0) path[dir.length] = slash;
  path.set(name, dir.length + separator);
  return path;
}
