/**
 * CLEAR: removes many files of one directory in one record, for those who remove whole trees. Atomic, and executed once
 * however often it is sent: what it has removed and what it has left is in its reply slot.
 *
 * It takes what UNLINK would do in one record: names that nobody is changing, of inodes that are near. Directories, far
 * inodes and names that are locked are left to the asker, in the order of their cookies.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { type Attributes, inodeFlags, S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { type Dentry, dentryKey, shardOf } from "../layout.ts";
import { Plan } from "../plan.ts";
import { keptErrno } from "../protection.ts";
import { planDropLink } from "../steps.ts";

/** Entries looked at, entries left, and bytes of old contents in one record. */
const entriesMax = 256, leftMax = 128, contentBytesMax = 256 * 1024;
const directoryType = S.IFDIR >>> 12;

interface Found {
  entry: Dentry;
  hash: number;
  disc: number;
  cookie: number;
}

/** CLEAR. ENOENT, ENOTDIR, EPERM, ESTALE. */
export function clear(engine: Engine, request: Request): Answer {
  const { dir, cookie, owner } = request.body;
  const directory = engine.directory(dir);
  if (failed(directory)) return answerErrno(directory);
  if (keptErrno(directory) !== 0) return answerErrno(E.PERM);
  const plan = new Plan(), page = pageOf(engine, dir, cookie);
  const reply = { removed: 0, left: [] as { name: Uint8Array; inode: number; type: number }[], cookie, end: page.end };
  const seen = new Set<number>();
  let contentBytes = 0;
  for (const found of page.found) {
    if (reply.left.length >= leftMax || contentBytes >= contentBytesMax) {
      reply.end = false;
      break;
    }
    reply.cookie = found.cookie;
    const { entry } = found, file = removable(engine, dir, entry, owner);
    // Two names of one file in one record would each take one from the count that is stored.
    if (file === null || seen.has(entry.inode)) {
      reply.left.push({ name: entry.name, inode: entry.inode, type: entry.type });
      continue;
    }
    seen.add(entry.inode);
    contentBytes += (file.flags & inodeFlags.inline) !== 0 ? file.size : 0;
    plan.remove(dentryKey(dir, found.hash, found.disc));
    planDropLink(engine, plan, file);
    directory.entries--;
    reply.removed++;
  }
  if (reply.removed === 0) return { status: 0, body: reply };
  directory.mtime = directory.ctime = engine.stamp(directory);
  plan.attributes(directory);
  return engine.answer(request, plan, reply);
}

/** What a CLEAR may change: the directory and the files of its page. */
export function touchedByClear(engine: Engine, dir: number, cookie: number): readonly number[] {
  if (failed(engine.directory(dir))) return [];
  const { found } = pageOf(engine, dir, cookie), inodes = new Set([dir]);
  for (const { entry } of found) {
    if (entry.type !== directoryType && shardOf(entry.inode) === shardOf(dir)) inodes.add(entry.inode);
  }
  return [...inodes];
}

function pageOf(engine: Engine, dir: number, cookie: number): { found: Found[]; end: boolean } {
  const found: Found[] = [];
  let end = true;
  engine.tree.list(dir, cookie, (entry, at) => {
    if (found.length >= entriesMax) {
      end = false;
      return false;
    }
    found.push({ entry, hash: Math.floor((at - 3) / 32), disc: (at - 3) % 32, cookie: at });
    return true;
  });
  return { found, end };
}

/** Attributes of an entry's file if its name can go in this record, else null. */
function removable(engine: Engine, dir: number, entry: Dentry, owner: number | null): Attributes | null {
  if (entry.type === directoryType || shardOf(entry.inode) !== shardOf(dir)) return null;
  if (engine.nameHeld(dir, entry.name)) return null;
  const file = engine.tree.attributes(entry.inode);
  if (file === null || keptErrno(file) !== 0) return null;
  return owner !== null && file.uid !== owner ? null : file;
}
