/**
 * Which operation answers which message, and what the request's shard must agree with.
 *
 * @module
 */

import { E } from "../errno.ts";
import { type Answer, answerErrno, type Engine, type Operation, type Request } from "../meta/engine.ts";
import { credit } from "../meta/credit.ts";
import { shardOf } from "../meta/layout.ts";
import { nameErrno } from "../meta/names.ts";
import { repair, scan, shardStatus, statfs, verifyChunk } from "../meta/ops/admin.ts";
import { clear } from "../meta/ops/clear.ts";
import { cut, fallocate } from "../meta/ops/allocate.ts";
import { copy, copyChunk, fetch } from "../meta/ops/copy.ts";
import { create } from "../meta/ops/create.ts";
import { fsync, syncStore, syncUpward } from "../meta/ops/fsync.ts";
import { chunks, inodeStatus } from "../meta/ops/inspect.ts";
import { cancellock, droplocks, lockWaits, setlock, testlock } from "../meta/ops/locks.ts";
import { getattr, getattrs, lookup, readdir, readlink } from "../meta/ops/lookup.ts";
import { mkdir } from "../meta/ops/mkdir.ts";
import { open, release } from "../meta/ops/open.ts";
import { nextData, read, readChunk, seekChunk } from "../meta/ops/read.ts";
import { rename } from "../meta/ops/rename.ts";
import { rmdir } from "../meta/ops/rmdir.ts";
import { setattr } from "../meta/ops/setattr.ts";
import { tally } from "../meta/ops/tally.ts";
import { tmpfile } from "../meta/ops/tmpfile.ts";
import { link, unlink } from "../meta/ops/unlink.ts";
import { append, publish, reserveChunk, write, writeChunk, writeSmall } from "../meta/ops/write.ts";
import { getxattr, listxattr, removexattr, setxattr } from "../meta/ops/xattr.ts";
import { Plan } from "../meta/plan.ts";
import { DecodeError } from "../protocol/codec.ts";
import { status } from "../protocol/frame.ts";
import * as m from "../protocol/messages.ts";

/** What names the shard of a request: a field of its body, the head alone, or nothing (the store as a whole). */
export type Route = "dir" | "inode" | "shard" | "store";

/** An operation, its route, and which other fields of the body name entries of directories and inodes. */
export interface Entry {
  operation: Operation;
  /** Does what needs no waiting and no data beyond the frame's life; null: that is not this. */
  atOnce: ((engine: Engine, request: Request) => Answer | null) | null;
  route: Route;
  names: readonly string[];
  inodes: readonly string[];
}

/** By message type. */
const table: (Entry | undefined)[] = [];

function on(
  message: m.Message,
  route: Route,
  operation: Operation,
  more: Partial<Pick<Entry, "names" | "inodes" | "atOnce">> = {},
): void {
  table[message.type] = { operation, route, names: [], inodes: [], atOnce: null, ...more };
}

const named = { names: ["name"] };

on(m.PING, "store", () => ({ status: 0, body: {} }));
on(m.FENCE, "shard", (engine, request) => engine.answer(request, new Plan(), {}));
on(m.LOOKUP, "dir", lookup, named);
on(m.GETATTR, "inode", getattr);
on(m.GETATTRS, "store", getattrs);
on(m.SETATTR, "inode", setattr);
on(m.CREATE, "dir", create, named);
on(m.TMPFILE, "dir", tmpfile);
on(m.MKDIR, "dir", mkdir, named);
on(m.UNLINK, "dir", unlink, named);
on(m.RMDIR, "dir", rmdir, named);
on(m.RENAME, "dir", rename, { names: ["name", "newName"], inodes: ["newDir"] });
on(m.LINK, "dir", link, { names: ["name"], inodes: ["inode"] });
on(m.READLINK, "inode", readlink);
on(m.READDIR, "dir", readdir);
on(m.CLEAR, "dir", clear);
on(m.TALLY, "dir", tally);
on(m.OPEN, "inode", open);
on(m.RELEASE, "store", release);
on(m.READ, "inode", read);
on(m.READ_CHUNK, "shard", readChunk);
on(m.WRITE, "inode", write, { atOnce: writeSmall });
on(m.WRITE_CHUNK, "shard", writeChunk);
on(m.RESERVE_CHUNK, "shard", reserveChunk);
on(m.PUBLISH, "inode", publish);
on(m.APPEND, "inode", append);
on(m.FALLOCATE, "inode", fallocate);
on(m.SEEK_CHUNK, "shard", seekChunk);
on(m.NEXT_DATA, "store", nextData);
on(m.COPY, "inode", copy);
on(m.COPY_CHUNK, "shard", copyChunk);
on(m.FETCH, "shard", fetch);
on(m.FSYNC, "inode", fsync);
on(m.GETXATTR, "inode", getxattr);
on(m.SETXATTR, "inode", setxattr);
on(m.LISTXATTR, "inode", listxattr);
on(m.REMOVEXATTR, "inode", removexattr);
on(m.TESTLOCK, "inode", testlock);
on(m.SETLOCK, "inode", setlock);
on(m.CANCELLOCK, "inode", cancellock);
on(m.DROPLOCKS, "inode", droplocks);
on(m.RETURN, "store", (engine, request) => {
  const { inode, grant } = request.body, { session } = request.head;
  if (inode === 0) engine.leases.returnedAll(session);
  else engine.leases.returned({ inode, grant, session });
  return { status: 0, body: {} };
});
on(m.LOCK_WAITS, "store", lockWaits);
on(m.STATFS, "store", statfs);
on(m.STEP, "shard", step);
on(m.LOWEST, "store", (engine, request) => {
  const shards: number[] = request.body.shards;
  return { status: 0, body: { lowest: shards.map((shard) => engine.owns(shard) ? engine.intents.lowest(shard) : 0) } };
});
on(m.CUT, "store", cut);
on(m.SYNC_STORE, "store", syncStore);
on(m.SYNC_UP, "inode", syncUpward);
on(m.CREDIT, "shard", credit);
on(m.CREDIT_RECALL, "store", (engine, request) => ({ status: 0, body: engine.credit.recall(request.body.volume) }));
on(m.SCAN, "shard", scan);
on(m.VERIFY_CHUNK, "shard", verifyChunk);
on(m.REPAIR, "shard", repair);
on(m.SHARD_STATUS, "shard", shardStatus);
on(m.INODE_STATUS, "inode", inodeStatus);
on(m.CHUNKS, "store", chunks);

/** STEP. What cannot be read is refused; it reaches no plan. */
function step(engine: Engine, request: Request): Answer {
  try {
    const { errno, outcome } = engine.intents.apply(request.head.shard, request.body);
    return { status: 0, body: { errno, outcome } };
  } catch (error) {
    if (error instanceof DecodeError) return answerErrno(status.malformed);
    throw error;
  }
}

/** What is wrong with the names and inode numbers of a request that is well formed otherwise: errno, or 0. */
export function fieldsErrno(entry: Entry, body: Record<string, unknown>, shards: number): number {
  for (const field of entry.names) {
    const errno = nameErrno(body[field] as Uint8Array);
    if (errno !== 0) return errno;
  }
  return entry.inodes.some((field) => shardOf(body[field] as number) >= shards) ? E.STALE : 0;
}

/** The operation of a message type; undefined for those that the server answers itself, or does not know. */
export function operationOf(type: number): Entry | undefined {
  return table[type];
}
