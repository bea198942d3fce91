/**
 * FSYNC, SYNC_UP, SYNC_STORE: what has been acknowledged survives power loss.
 *
 * An fsync makes durable: the data on every server written since the last fsync (kind M), then this store with the
 * inode, then every directory with a name that was made since (the one in the inode, and kind W) and their ancestors,
 * unless they are known to be durable.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { decode } from "../../protocol/codec.ts";
import { SYNC_STORE, SYNC_UP } from "../../protocol/messages.ts";
import { type Task, wait } from "../../task.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { inodeKey, kind, shardOf } from "../layout.ts";
import { everywhere, placesOf, planCovered, settledPlaces } from "../places.ts";
import { Plan } from "../plan.ts";
import { maskRecord } from "./write.ts";

/** Directories remembered as durable. */
const durableMax = 65536;

/** FSYNC. EIO when some server could not make it durable. */
export function* fsync(engine: Engine, request: Request): Task<Answer> {
  const { inode } = request.body, mark = { written: false }, marks = engine.syncing.get(inode) ?? new Set();
  engine.syncing.set(inode, marks.add(mark));
  const answer = yield* fsyncMarked(engine, request, mark);
  marks.delete(mark);
  if (marks.size === 0) engine.syncing.delete(inode);
  return answer;
}

function* fsyncMarked(engine: Engine, request: Request, mark: { written: boolean }): Task<Answer> {
  const { inode } = request.body, shard = request.head.shard;
  const file = engine.inode(inode);
  if (failed(file)) return answerErrno(file);
  const places = placesOf(engine, inode), settled = settledPlaces(engine, inode);
  const key = inodeKey(shard, kind.mask, inode), before = engine.store.get(key)?.slice();
  if (before !== undefined) {
    const errno = yield* syncServers(engine, decode(maskRecord, before).servers);
    if (errno !== 0) return answerErrno(errno);
  }
  yield* engine.logged();
  const errno = yield* wait(engine.store.sync());
  if (errno !== 0) return answerErrno(E.IO);
  if (!mark.written) forgetMask(engine, inode);
  if (file.nlink === 0 || file.parent === inode) return { status: 0, body: {} };
  const up = yield* syncDirectories(engine, [file.parent, ...places.map((place) => place.dir)], shard);
  if (up !== 0) return answerErrno(up);
  const plan = new Plan();
  planCovered(engine, plan, inode, settled);
  engine.commit(shard, plan);
  return { status: 0, body: {} };
}

/** Makes the directories of a file's names durable. One that is gone has none. errno. */
function* syncDirectories(engine: Engine, all: readonly number[], synced: number): Task<number> {
  if (all.includes(everywhere)) {
    const servers = [...new Set(engine.map.holders.map(({ server }) => server))];
    return yield* syncServers(engine, servers);
  }
  let errno = 0;
  for (const dir of new Set(all)) {
    const up = yield* syncUp(engine, dir, synced);
    if (up !== 0 && up !== E.STALE) errno = up;
  }
  return errno;
}

function* syncServers(engine: Engine, servers: readonly number[]): Task<number> {
  const others = servers.filter((server) => server !== 0 && server !== engine.serverId);
  const running = others.map((server) => engine.runtime.scheduler.spawn(engine.everyStore(server, SYNC_STORE, {})));
  if (servers.includes(engine.serverId)) {
    running.push(engine.runtime.scheduler.spawn(engine.everyStore(engine.serverId, SYNC_STORE, {})));
  }
  let errno = 0;
  for (const one of running) errno = (yield* wait(one)) || errno;
  return errno;
}

/** Clears the mask: nothing was written since the fsync began. */
function forgetMask(engine: Engine, inode: number): void {
  const shard = shardOf(inode), key = inodeKey(shard, kind.mask, inode);
  if (engine.store.get(key) === undefined) return;
  const plan = new Plan();
  plan.remove(key);
  engine.commit(shard, plan);
}

/** Makes a directory's own entry and ancestors durable, and the store of its names unless that is `synced` already. */
function* syncUp(engine: Engine, dir: number, synced: number): Task<number> {
  const shard = shardOf(dir);
  if (shard === synced && engine.durable.has(dir)) return 0;
  if (engine.owns(shard)) return yield* syncHere(engine, dir);
  const reply = yield* engine.caller.call(SYNC_UP, { shard }, { inode: dir });
  return reply.status;
}

/** SYNC_UP. */
export function* syncUpward(engine: Engine, request: Request): Task<Answer> {
  const errno = yield* syncHere(engine, request.body.inode);
  return errno === 0 ? { status: 0, body: {} } : answerErrno(errno);
}

function* syncHere(engine: Engine, inode: number): Task<number> {
  const dir = engine.inode(inode);
  if (failed(dir)) return dir;
  yield* engine.logged();
  if ((yield* wait(engine.store.sync())) !== 0) return E.IO;
  if (engine.durable.has(inode) || dir.parent === inode) return 0;
  const errno = yield* syncUp(engine, dir.parent, -1);
  if (errno !== 0) return errno;
  if (engine.durable.size >= durableMax) engine.durable.clear();
  engine.durable.add(inode);
  return 0;
}

/** SYNC_STORE. */
export function* syncStore(engine: Engine): Task<Answer> {
  yield* engine.logged();
  const errno = yield* wait(engine.store.sync());
  return errno === 0 ? { status: 0, body: {} } : answerErrno(E.IO);
}
