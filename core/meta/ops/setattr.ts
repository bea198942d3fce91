/**
 * SETATTR: mode, owner, times, size. Without a smaller size it is one record.
 *
 * A new size of a file that may have far chunks is an intent of the inode's shard: CUT on every server removes the data
 * beyond the lower of both sizes and sets the floor (a chunk write from before then answers STALE_GEN), then one record
 * sets size and gen. While the cut runs the inode is locked: writes, appends and size publications wait.
 *
 * @module
 */

import { blocksOf, chunkBytesMax, granuleBytes } from "../../data/chunk_record.ts";
import { E, failed, type Result } from "../../errno.ts";
import { decode, encode, struct, u53 } from "../../protocol/codec.ts";
import { CREATE, messageOf, setattrValid as valid } from "../../protocol/messages.ts";
import { type Task, wait } from "../../task.ts";
import { capabilityName } from "../acl.ts";
import { type Attributes, inodeFlags, isDirectory, isRegular, S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { type Intent, intentKind } from "../intent.ts";
import { planChmodAcl } from "../inherit.ts";
import { chunkKey, fileBytesMax, inodeKey, kind, shardOf, xattrKey } from "../layout.ts";
import { Plan } from "../plan.ts";
import { frozenErrno, keptErrno } from "../protection.ts";
import { cutEverywhere } from "../reaper.ts";

/** What a truncation's intent remembers. */
export const truncateState = struct({ inode: u53, size: u53 });
/** Pause before an unanswered CUT is sent again. */
const againMs = 50;

/** Bits of SETATTR that set and clear what chattr(1) does, and the inode's flags. */
const protections = [
  { set: valid.setImmutable, clear: valid.clearImmutable, flag: inodeFlags.immutable },
  { set: valid.setAppendOnly, clear: valid.clearAppendOnly, flag: inodeFlags.appendOnly },
] as const;
const protectionBits = protections.reduce((bits, { set, clear }) => bits | set | clear, 0);

/** SETATTR. EINVAL, EISDIR, EFBIG, EPERM, ESTALE; EOPNOTSUPP: only files and directories can be protected. */
export function setattr(engine: Engine, request: Request): Answer | Task<Answer> {
  const { inode, valid: bits, size } = request.body;
  if ((bits & valid.size) !== 0) return resize(engine, request, inode, size, (file) => ({ attributes: file }));
  const found = engine.inode(inode);
  if (failed(found)) return answerErrno(found);
  const refused = protectedErrno(found, bits);
  if (refused !== 0) return answerErrno(refused);
  const plan = new Plan();
  change(engine, plan, found, request.body);
  plan.attributes(found);
  return engine.answer(request, plan, { attributes: found });
}

/** What an inode's protection has against a change; "now" for both times is what a write would do as well. */
function protectedErrno(inode: Attributes, bits: number): number {
  if ((bits & protectionBits) !== 0 && !isRegular(inode.mode) && !isDirectory(inode.mode)) return E.OPNOTSUPP;
  const now = bits & (valid.atimeNow | valid.mtimeNow);
  const touch = now === (valid.atimeNow | valid.mtimeNow) && (bits & (valid.atime | valid.mtime)) === 0;
  const other = bits & (valid.mode | valid.uid | valid.gid | valid.size | valid.atime | valid.mtime | now);
  if (other === 0) return 0;
  return touch && other === now ? frozenErrno(inode) : keptErrno(inode);
}

/** Cuts a file to nothing in the name of another request (O_TRUNC); `body` makes its reply. */
export function truncateFor(
  engine: Engine,
  request: Request,
  inode: number,
  body: (file: Attributes) => unknown,
): Task<Answer> {
  return resize(engine, request, inode, 0, body);
}

/**
 * Plans what a file loses when its contents or its owner change: its capabilities always; setuid, and setgid if the
 * group may execute, when the one who does it must not keep them. Called before the file's attributes are planned.
 */
export function planDropPrivileges(plan: Plan, file: Attributes, killSetId: boolean): void {
  if (killSetId) {
    file.mode &= ~S.ISUID;
    if ((file.mode & S.IXGRP) !== 0) file.mode &= ~S.ISGID;
  }
  if ((file.flags & inodeFlags.capability) === 0) return;
  file.flags &= ~inodeFlags.capability;
  plan.remove(xattrKey(file.inode, capabilityName));
}

/** Applies everything but the size. */
function change(engine: Engine, plan: Plan, file: Attributes, body: {
  valid: number;
  mode: number;
  uid: number;
  gid: number;
  atime: Attributes["atime"];
  mtime: Attributes["mtime"];
  ctime: Attributes["ctime"];
}): void {
  const now = engine.stamp(file), bits = body.valid;
  const killSetId = (bits & valid.killSetId) !== 0;
  if (!isDirectory(file.mode) && (killSetId || (bits & (valid.uid | valid.gid)) !== 0)) {
    planDropPrivileges(plan, file, killSetId);
  }
  if ((bits & valid.mode) !== 0) {
    file.mode = (file.mode & S.IFMT) | (body.mode & 0o7777);
    planChmodAcl(engine, plan, file);
  }
  for (const { set, clear, flag } of protections) {
    if ((bits & set) !== 0) file.flags |= flag;
    if ((bits & clear) !== 0) file.flags &= ~flag;
  }
  if ((bits & valid.uid) !== 0) file.uid = body.uid;
  if ((bits & valid.gid) !== 0) file.gid = body.gid;
  if ((bits & (valid.atimeNow | valid.atime)) !== 0) engine.accessTimes.forget(file.inode);
  if ((bits & valid.atimeNow) !== 0) file.atime = now;
  else if ((bits & valid.atime) !== 0) file.atime = body.atime;
  if ((bits & valid.mtimeNow) !== 0) file.mtime = now;
  else if ((bits & valid.mtime) !== 0) file.mtime = body.mtime;
  file.ctime = (bits & valid.ctime) !== 0 ? body.ctime : now;
}

function* resize(
  engine: Engine,
  request: Request,
  inode: number,
  size: number,
  body: (file: Attributes) => unknown,
): Task<Answer> {
  const lock = String(inode), owner = engine.newOwner();
  yield* engine.inodes.acquire(lock, owner);
  const file = regular(engine, inode, size);
  if (failed(file)) {
    engine.inodes.release(lock, owner);
    return answerErrno(file);
  }
  // Whatever the sizes: a writer that died may have left far data beyond the end, which must not come back.
  if (size !== file.size && (file.flags & inodeFlags.far) !== 0) {
    const intent = engine.intents.begin(request, intentKind.truncate);
    engine.inodes.release(lock, owner);
    engine.inodes.tryAcquire(lock, intent.owner);
    yield* intent.record(1, encode(truncateState, { inode, size }));
    return yield* truncateStory(engine, intent, body);
  }
  const answer = yield* resizeNear(engine, request, inode, size, body);
  engine.inodes.release(lock, owner);
  return answer;
}

function regular(engine: Engine, inode: number, size: number): Result<Attributes> {
  const file = engine.inode(inode);
  if (failed(file)) return file;
  if (isDirectory(file.mode)) return E.ISDIR;
  if (!isRegular(file.mode)) return E.INVAL;
  if (keptErrno(file) !== 0) return E.PERM;
  return size > fileBytesMax ? E.FBIG : file;
}

/** A new size that concerns this shard only. The inode is locked. */
function* resizeNear(
  engine: Engine,
  request: Request,
  inode: number,
  size: number,
  body: (file: Attributes) => unknown,
): Task<Answer> {
  const plan = new Plan();
  const local = yield* cutLocal(engine, plan, inode, size);
  if (typeof local === "number") return answerErrno(local);
  const file = engine.inode(inode);
  if (failed(file)) {
    local.abandon();
    return answerErrno(file);
  }
  finishSize(engine, plan, file, { request: request.body, size, bytesDelta: local.bytesDelta });
  plan.attributes(file);
  const answer = engine.answer(request, plan, body(file));
  local.done();
  return answer;
}

function finishSize(
  engine: Engine,
  plan: Plan,
  file: Attributes,
  // deno-lint-ignore no-explicit-any
  to: { request: any; size: number; bytesDelta: number },
): void {
  const now = engine.stamp(file), { request, size, bytesDelta } = to;
  if (size !== file.size && (file.flags & inodeFlags.far) !== 0) file.gen++;
  file.size = size;
  file.blocks = Math.max(0, file.blocks + bytesDelta / 512);
  file.mtime = now;
  planDropPrivileges(plan, file, false);
  if (typeof request.valid === "number") change(engine, plan, file, request);
  else file.ctime = now;
}

/** Plans the cut of what lives in this shard: inline data, or chunk 0. errno, or how to end the change. */
export function* cutLocal(
  engine: Engine,
  plan: Plan,
  inode: number,
  size: number,
): Task<number | { bytesDelta: number; done(): void; abandon(): void }> {
  const shard = shardOf(inode), file = engine.inode(inode);
  if (failed(file)) return file;
  const key = inodeKey(shard, kind.data, inode), inline = engine.store.get(key)?.slice();
  if (inline !== undefined) {
    if (inline.length <= size) return { bytesDelta: 0, done() {}, abandon() {} };
    if (size === 0) plan.remove(key);
    else plan.put(key, inline.subarray(0, size));
    plan.charge(file.volume, size - inline.length, 0);
    const before = Math.ceil(inline.length / 4096), now = Math.ceil(size / 4096);
    return { bytesDelta: (now - before) * 4096, done() {}, abandon() {} };
  }
  if (size >= chunkBytesMax || engine.store.get(chunkKey(shard, inode, 0)) === undefined) {
    return { bytesDelta: 0, done() {}, abandon() {} };
  }
  const range = { shard, inode, chunk: 0, offset: size, length: chunkBytesMax - size };
  const zeroed = yield* engine.chunks.zero({ ...range, volume: file.volume, gen: file.gen });
  if (failed(zeroed)) return zeroed;
  plan.add(zeroed.changes, [{ volume: file.volume, bytesDelta: zeroed.bytesDelta, inodesDelta: 0 }]);
  return zeroed;
}

/** Blocks that chunk 0, or the inline data, of an inode takes once `plan` is done. */
export function nearBlocks(engine: Engine, plan: Plan, inode: number): number {
  const shard = shardOf(inode), chunk = plan.after(engine.store, chunkKey(shard, inode, 0));
  if (chunk !== undefined) return blocksOf(chunk);
  const inline = plan.after(engine.store, inodeKey(shard, kind.data, inode));
  return Math.ceil((inline?.length ?? 0) / granuleBytes);
}

/** The story of a truncation with far chunks. A resumed one answers with the attributes alone when its request had none. */
export function* truncateStory(
  engine: Engine,
  intent: Intent,
  body: (file: Attributes) => unknown = (file) => resumedBody(engine, intent, file),
): Task<Answer> {
  const { inode, size } = decode(truncateState, intent.state), lock = String(inode);
  engine.inodes.tryAcquire(lock, intent.owner);
  const answer = yield* driveTruncate(engine, intent, { inode, size, body });
  engine.inodes.release(lock, intent.owner);
  return answer;
}

/** The reply of a resumed intent, by the message that began it. A CREATE opened the file, in memory only: it does again. */
function resumedBody(engine: Engine, intent: Intent, file: Attributes): unknown {
  if (intent.type !== CREATE.type) return { attributes: file };
  const { openId } = decode(CREATE.request, intent.request);
  if (openId !== 0) engine.opens.open(intent.origin.session, file.inode, openId);
  return { created: false, inode: file.inode, type: file.mode >>> 12, attributes: file };
}

function* driveTruncate(
  engine: Engine,
  intent: Intent,
  to: { inode: number; size: number; body: (file: Attributes) => unknown },
): Task<Answer> {
  const { inode, size } = to;
  for (;;) {
    const file = engine.inode(inode);
    if (failed(file)) return intent.abort(file);
    // Every shard gets the floor, so that the blocks that are left cannot change before the inode says how many.
    const start = Math.min(size, file.size), end = Number.MAX_SAFE_INTEGER;
    const range = { inode, gen: file.gen + 1, start, end, forget: false, floor: true, room: false };
    const { errno, leftBlocks } = yield* cutEverywhere(engine, range);
    if (errno !== 0) {
      yield* wait(engine.runtime.sleep(againMs));
      continue;
    }
    const plan = new Plan();
    const local = yield* cutLocal(engine, plan, inode, size);
    if (typeof local === "number") {
      if (engine.store.failure !== 0) return intent.abort(E.IO);
      yield* wait(engine.runtime.sleep(againMs));
      continue;
    }
    const now = engine.inode(inode);
    if (failed(now)) {
      local.abandon();
      return intent.abort(now);
    }
    const request = decode(messageOf(intent.type)!.request, intent.request);
    finishSize(engine, plan, now, { request, size, bytesDelta: local.bytesDelta });
    now.blocks = (leftBlocks + nearBlocks(engine, plan, inode)) * (granuleBytes / 512);
    plan.attributes(now);
    const answer = intent.finish(plan, to.body(now));
    local.done();
    return answer;
  }
}
