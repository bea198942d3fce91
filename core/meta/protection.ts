/**
 * What chattr(1) sets: nothing of an immutable inode changes, and no name comes into an immutable directory or goes from
 * it; an append-only file is only appended to, and no name goes from an append-only directory. Neither can be removed,
 * renamed or linked. As on Linux a file counts as it is when it is opened: who has it open for writing may write on.
 *
 * Whoever has an inode's attributes at hand checks by these functions; a rename asks for those of what is far from its
 * name before it commits.
 *
 * @module
 */

import { E } from "../errno.ts";
import { type Attributes, inodeFlags } from "./attributes.ts";

/** EPERM for an immutable inode: it gets no bytes and no names; else 0. */
export function frozenErrno(inode: Attributes): number {
  return (inode.flags & inodeFlags.immutable) !== 0 ? E.PERM : 0;
}

/** EPERM for an inode that may at most be added to: what it has and is stays, and its names stay; else 0. */
export function keptErrno(inode: Attributes): number {
  return (inode.flags & (inodeFlags.immutable | inodeFlags.appendOnly)) !== 0 ? E.PERM : 0;
}
