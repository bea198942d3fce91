/**
 * What a request may change that sessions hold leases on: inodes (attributes, data, and of a directory its names). That
 * goes for reads too, which move access times.
 * Found out before the operation runs, while no name of the request is locked: what it finds then is what the operation
 * finds. Inodes on other shards are the affair of the steps that change them there.
 *
 * @module
 */

import { failed } from "../errno.ts";
import { S } from "../meta/attributes.ts";
import { type Engine, nameLock, type Request } from "../meta/engine.ts";
import { decodeAction, touchedByAction } from "../meta/intent.ts";
import { touchedByClear } from "../meta/ops/clear.ts";
import { shardOf } from "../meta/layout.ts";
import { DecodeError } from "../protocol/codec.ts";
import * as m from "../protocol/messages.ts";

const regularType = S.IFREG >>> 12;
const none: readonly number[] = [];
const noLocks: readonly string[] = [];

/** The name locks that a request will wait for, if they are held. */
export function heldLocks(engine: Engine, request: Request): readonly string[] {
  if (engine.names.size === 0) return noLocks;
  const { body } = request, locks: string[] = [];
  switch (request.message) {
    case m.CREATE:
    case m.MKDIR:
    case m.UNLINK:
    case m.RMDIR:
    case m.LINK:
      locks.push(nameLock(body.dir, body.name));
      break;
    case m.RENAME:
      locks.push(nameLock(body.dir, body.name));
      if (shardOf(body.newDir) === request.head.shard) locks.push(nameLock(body.newDir, body.newName));
  }
  return locks.filter((lock) => engine.names.held(lock));
}

/** Inodes of the request's shard that it may change. */
export function touched(engine: Engine, request: Request): readonly number[] {
  const { body, message } = request;
  switch (message) {
    case m.CREATE:
      return touchedByCreate(engine, request);
    case m.MKDIR:
      return find(engine, body.dir, body.name) === null ? near(request, [body.dir]) : none;
    case m.UNLINK:
    case m.RMDIR:
      return touchedByRemoval(engine, request);
    case m.LINK:
      return near(request, [body.dir, body.inode]);
    case m.RENAME:
      return touchedByRename(engine, request);
    case m.STEP:
      return touchedByStep(body.action);
    case m.CLEAR:
      return touchedByClear(engine, body.dir, body.cookie);
    case m.WRITE_CHUNK:
    case m.COPY_CHUNK:
      // Seen when it is published.
      return none;
    case m.READ:
    case m.READLINK:
      return touchedByRead(engine, body.inode, body.accessTimes);
    case m.READDIR:
      return touchedByRead(engine, body.dir, body.accessTimes);
    default:
      return typeof body.inode === "number" ? near(request, [body.inode]) : none;
  }
}

function touchedByCreate(engine: Engine, request: Request): readonly number[] {
  const { dir, name, exclusive, truncate } = request.body;
  const entry = find(engine, dir, name);
  if (entry === null) return [dir];
  return exclusive || !truncate || entry.type !== regularType ? none : near(request, [entry.inode]);
}

/** A read may move the atime. */
function touchedByRead(engine: Engine, inode: number, accessTimes: number): readonly number[] {
  const found = engine.tree.attributes(inode);
  return found !== null && engine.accessTimes.isDue(found, accessTimes) ? [inode] : none;
}

function touchedByRemoval(engine: Engine, request: Request): readonly number[] {
  const { dir, name } = request.body, entry = find(engine, dir, name);
  return entry === null ? none : near(request, [dir, entry.inode]);
}

function touchedByRename(engine: Engine, request: Request): readonly number[] {
  const { dir, name, newDir, newName } = request.body, source = find(engine, dir, name);
  if (source === null) return none;
  const inodes = [dir, source.inode];
  if (newDir !== dir) inodes.push(newDir);
  const target = shardOf(newDir) === request.head.shard ? find(engine, newDir, newName) : null;
  if (target !== null && target.inode !== source.inode) inodes.push(target.inode);
  return near(request, inodes);
}

/** What a name stands for; null also where there is no such directory. */
function find(engine: Engine, dir: number, name: Uint8Array): { inode: number; type: number } | null {
  return failed(engine.directory(dir)) ? null : engine.tree.find(dir, name).entry;
}

function touchedByStep(action: Uint8Array): readonly number[] {
  try {
    const { name, body } = decodeAction(action);
    return touchedByAction(name, body);
  } catch (error) {
    // The operation refuses it.
    if (error instanceof DecodeError) return none;
    throw error;
  }
}

function near(request: Request, inodes: number[]): readonly number[] {
  return inodes.filter((inode) => shardOf(inode) === request.head.shard);
}
