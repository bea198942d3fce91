/**
 * OPEN and RELEASE: who has what open. Nothing is recorded; after a restart the sessions claim again (RECLAIM).
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { inodeKey, kind, shardOf } from "../layout.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";

/** OPEN. ESTALE, also for a file without names that nobody has open: it is being ended. */
export function open(engine: Engine, request: Request): Answer {
  const { inode, openId } = request.body;
  const found = engine.inode(inode);
  if (failed(found)) return answerErrno(found);
  if (found.nlink === 0 && !engine.opens.mayBeOpen(inode)) return answerErrno(E.STALE);
  engine.opens.open(request.head.session, inode, openId);
  return { status: 0, body: { attributes: found } };
}

/** RELEASE: orphans that nobody has open any more are ended. */
export function release(engine: Engine, request: Request): Answer {
  for (const { inode, openId } of request.body.closes) {
    if (!engine.opens.close(request.head.session, inode, openId)) continue;
    if (engine.store.get(inodeKey(shardOf(inode), kind.orphan, inode)) !== undefined) engine.reaper.consider(inode);
  }
  return { status: 0, body: {} };
}
