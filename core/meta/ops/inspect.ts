/**
 * INODE_STATUS and CHUNKS: what servers know of one inode, for a person who looks at it. Nothing is changed.
 *
 * @module
 */

import { blocksOf } from "../../data/chunk_record.ts";
import { failed } from "../../errno.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { chunkKey, inodeKey, keyNumber, kind } from "../layout.ts";

/** Opens, locks and leases that an answer names; and chunks. */
const listMax = 1024, chunksMax = 4096;

/** INODE_STATUS. ESTALE. */
export function inodeStatus(engine: Engine, request: Request): Answer {
  const { inode } = request.body, { shard } = request.head;
  const attributes = engine.inode(inode);
  if (failed(attributes)) return answerErrno(attributes);
  const lengthOf = (keyKind: number) => engine.store.get(inodeKey(shard, keyKind, inode))?.length ?? 0;
  const chunk = engine.store.get(chunkKey(shard, inode, 0));
  const nearBlocks = chunk === undefined ? 0 : blocksOf(chunk);
  return {
    status: 0,
    body: {
      attributes,
      orphan: lengthOf(kind.orphan) > 0,
      inlineBytes: lengthOf(kind.data) + lengthOf(kind.symlink),
      nearBlocks,
      opens: engine.opens.sessionsOf(inode).slice(0, listMax),
      locks: engine.locks.held(inode).slice(0, listMax).map((lock) => ({ session: lock.session, lock })),
      leases: engine.leases.holders(inode).slice(0, listMax),
      busy: engine.inodeHeld(inode),
    },
  };
}

/** CHUNKS: the lowest numbers from `from` on, ascending. */
export function chunks(engine: Engine, request: Request): Answer {
  const { inode, from } = request.body, found: { chunk: number; blocks: number }[] = [];
  for (const shard of engine.ownShards()) {
    let count = 0;
    engine.store.scan(chunkKey(shard, inode, Math.max(1, from)), chunkKey(shard, inode, 0xffffffff), (key, value) => {
      found.push({ chunk: keyNumber(key, 10, 4), blocks: blocksOf(value) });
      return ++count <= chunksMax;
    });
  }
  found.sort((a, b) => a.chunk - b.chunk);
  return { status: 0, body: { chunks: found.slice(0, chunksMax), end: found.length <= chunksMax } };
}
