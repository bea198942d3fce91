/**
 * TALLY: what a directory's entries take, summed up where they are, so that no attributes travel. It reads a page in one
 * turn; entries that come and go between pages are counted or not, as with every reader of a directory.
 *
 * @module
 */

import { failed } from "../../errno.ts";
import { S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { type Dentry, shardOf } from "../layout.ts";

/** Entries of each list of a page; a page ends with the first that is full. */
const listMax = 1024;
const directoryType = S.IFDIR >>> 12;

/** TALLY. ENOENT, ENOTDIR, ESTALE. */
export function tally(engine: Engine, request: Request): Answer {
  const { dir, cookie } = request.body, shard = request.head.shard;
  const directory = engine.directory(dir);
  if (failed(directory)) return answerErrno(directory);
  const near: Dentry[] = [];
  const reply = {
    directory,
    files: 0,
    bytes: 0,
    blocks: 0,
    dirs: [] as { name: Uint8Array; inode: number }[],
    far: [] as number[],
    linked: [] as { inode: number; nlink: number; bytes: number; blocks: number }[],
    cookie,
    end: true,
  };
  engine.tree.list(dir, cookie, (entry, at) => {
    const { name, inode, type } = entry;
    if (Math.max(near.length, reply.dirs.length, reply.far.length) >= listMax) {
      reply.end = false;
      return false;
    }
    if (type === directoryType) reply.dirs.push({ name, inode });
    else if (shardOf(inode) !== shard) reply.far.push(inode);
    else near.push(entry);
    reply.cookie = at;
    return true;
  });
  for (const { inode } of near) {
    const file = engine.tree.attributes(inode);
    if (file === null) continue;
    if (file.nlink > 1) {
      reply.linked.push({ inode, nlink: file.nlink, bytes: file.size, blocks: file.blocks });
      continue;
    }
    reply.files++;
    reply.bytes += file.size;
    reply.blocks += file.blocks;
  }
  return { status: 0, body: reply };
}
