/**
 * Reading the namespace: LOOKUP, GETATTR, GETATTRS, READLINK, READDIR. One request, one shard, no record; the last two
 * may move an atime.
 * A name that work in progress is changing is waited for, and so is, to list a directory, what has left it and is not yet
 * where it goes: nobody sees a rename half done.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import type { Task } from "../../task.ts";
import { type Attributes, S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, nameLock, type Request } from "../engine.ts";
import { inodeKey, kind, shardOf } from "../layout.ts";

/** Bytes that an entry of a directory page counts besides its name: what it takes in a READDIR or READDIRPLUS reply. */
const entryBytes = 24, entryAttributesBytes = 128;

/** Times that a listing waits for renames out of its directory; where they never end it then shows what it finds. */
const leavingWaitsMax = 64;

/** Longest page of a directory. */
const pageBytesMax = 512 * 1024;

/** LOOKUP. ENOENT, ENOTDIR. */
export function lookup(engine: Engine, request: Request): Answer | Task<Answer> {
  const { dir, name } = request.body;
  if (engine.nameHeld(dir, name)) return lookupLater(engine, request);
  return lookupNow(engine, request);
}

function* lookupLater(engine: Engine, request: Request): Task<Answer> {
  yield* engine.names.settled(nameLock(request.body.dir, request.body.name));
  return lookupNow(engine, request);
}

function lookupNow(engine: Engine, request: Request): Answer {
  const { dir, name } = request.body;
  const parent = engine.directory(dir);
  if (failed(parent)) return answerErrno(parent);
  const { entry } = engine.tree.find(dir, name);
  if (entry === null) return answerErrno(E.NOENT);
  const near = shardOf(entry.inode) === request.head.shard;
  const attributes = near ? engine.tree.attributes(entry.inode) : null;
  if (near && attributes === null) return answerErrno(E.NOENT);
  return { status: 0, body: { inode: entry.inode, type: entry.type, attributes } };
}

/** GETATTR. ESTALE. */
export function getattr(engine: Engine, request: Request): Answer {
  const found = engine.inode(request.body.inode);
  return failed(found) ? answerErrno(found) : { status: 0, body: { attributes: found } };
}

/** GETATTRS: absent for what is gone, or not in a shard of this store. */
export function getattrs(engine: Engine, request: Request): Answer {
  const found = (request.body.inodes as number[]).map((inode): Attributes | null => {
    if (!engine.owns(shardOf(inode))) return null;
    const one = engine.inode(inode);
    return failed(one) ? null : one;
  });
  return { status: 0, body: { found } };
}

/** READLINK. EINVAL for what is no symbolic link. */
export function readlink(engine: Engine, request: Request): Answer {
  const found = engine.inode(request.body.inode);
  if (failed(found)) return answerErrno(found);
  const target = engine.store.get(inodeKey(request.head.shard, kind.symlink, found.inode));
  if ((found.mode & S.IFMT) !== S.IFLNK || target === undefined) return answerErrno(E.INVAL);
  const moved = engine.accessTimes.read(found, request.body.accessTimes, request.head.session);
  return { status: 0, body: { target: target.slice(), moved } };
}

/** READDIR: a page of about `limitBytes`, at least one entry, and never more than a frame takes. */
export function readdir(engine: Engine, request: Request): Answer | Task<Answer> {
  const { dir, accessTimes } = request.body, parent = engine.directory(dir);
  if (failed(parent)) return answerErrno(parent);
  const moved = engine.accessTimes.read(parent, accessTimes, request.head.session);
  return isLeft(engine, dir) ? readdirLater(engine, request, moved) : readdirNow(engine, request, moved);
}

/** True while names have left the directory that are nowhere else yet. */
function isLeft(engine: Engine, dir: number): boolean {
  return engine.leaving.size > 0 && engine.leaving.heldInGroup(dir, "") !== "none";
}

function* readdirLater(engine: Engine, request: Request, moved: boolean): Task<Answer> {
  const { dir } = request.body;
  for (let i = 0; i < leavingWaitsMax && isLeft(engine, dir); i++) yield* engine.leaving.groupSettled(dir);
  return readdirNow(engine, request, moved);
}

function readdirNow(engine: Engine, request: Request, moved: boolean): Answer {
  const { dir, cookie, plus } = request.body, limitBytes = Math.min(request.body.limitBytes, pageBytesMax);
  const parent = engine.directory(dir);
  if (failed(parent)) return answerErrno(parent);
  const entries: { name: Uint8Array; inode: number; type: number; cookie: number; attributes: Attributes | null }[] =
    [];
  let bytes = 0, end = true;
  engine.tree.list(dir, cookie, (entry, at) => {
    bytes += entry.name.length + entryBytes + (plus ? entryAttributesBytes : 0);
    if (entries.length > 0 && (bytes > limitBytes || entries.length >= 4096)) {
      end = false;
      return false;
    }
    entries.push({ ...entry, cookie: at, attributes: null });
    return true;
  });
  if (plus) {
    for (const entry of entries) {
      if (shardOf(entry.inode) === request.head.shard) entry.attributes = engine.tree.attributes(entry.inode);
    }
  }
  return { status: 0, body: { entries, end, moved } };
}
