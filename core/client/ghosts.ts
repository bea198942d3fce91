/**
 * What programs may still hold although it is gone: a removed directory that is open or somebody's working directory, a
 * file or symbolic link held by O_PATH. No server knows it any more; it is answered from here as a local file system
 * would: its last attributes with no links, no entries, no extended attributes, its target.
 *
 * Kept are what this client removed, until the kernel forgets it, and open directories, which others may remove. Bounded:
 * beyond the limit the oldest answer ESTALE.
 *
 * @module
 */

import { type Attributes, isDirectory, isRegular, S } from "../meta/attributes.ts";
import type { Time } from "../runtime.ts";
import type { AttributeChange } from "./filesystem.ts";

/** Inodes kept. */
export const ghostsMax = 65536;

interface Kept {
  attributes: Attributes | null;
  /** Of a symbolic link. */
  target: Uint8Array | null;
  /** Times it is open as a directory. */
  holds: number;
  /** Removed by this client. */
  removed: boolean;
}

/** See the module's comment. */
export class Ghosts {
  #kept = new Map<number, Kept>();

  /** The last name of an inode is gone. `target`: of a symbolic link. */
  removed(attributes: Attributes, target: Uint8Array): void {
    const kept = this.#keep(attributes.inode);
    kept.attributes = attributes;
    kept.removed = true;
    if ((attributes.mode & S.IFMT) === S.IFLNK) kept.target = target;
  }

  /** A directory has been opened. */
  hold(inode: number, attributes: Attributes | null): void {
    const kept = this.#keep(inode);
    kept.holds++;
    kept.attributes ??= attributes;
  }

  /** It has been closed once. */
  letGo(inode: number): void {
    const kept = this.#kept.get(inode);
    if (kept === undefined) return;
    kept.holds--;
    if (kept.holds <= 0 && !kept.removed) this.#kept.delete(inode);
  }

  /** A server has told newer attributes. */
  seen(attributes: Attributes): void {
    if (this.#kept.size === 0) return;
    const kept = this.#kept.get(attributes.inode);
    if (kept !== undefined) kept.attributes = attributes;
  }

  /** Nobody holds it any more. */
  forget(inode: number): void {
    if (this.#kept.size > 0) this.#kept.delete(inode);
  }

  /** Last attributes of what is kept, or null. */
  find(inode: number): Attributes | null {
    return this.#kept.get(inode)?.attributes ?? null;
  }

  /** Target of a symbolic link that is kept, or null. */
  target(inode: number): Uint8Array | null {
    return this.#kept.get(inode)?.target ?? null;
  }

  /** Inodes kept. */
  get size(): number {
    return this.#kept.size;
  }

  #keep(inode: number): Kept {
    let kept = this.#kept.get(inode);
    if (kept !== undefined) return kept;
    this.#kept.set(inode, kept = { attributes: null, target: null, holds: 0, removed: false });
    if (this.#kept.size > ghostsMax) this.#kept.delete(this.#kept.keys().next().value!);
    return kept;
  }
}

/** Attributes as fstat(2) shows them of what has no name any more. */
export function ghostOf(last: Attributes): Attributes {
  return { ...last, nlink: 0, entries: 0 };
}

/** What a change of attributes makes of a ghost; null for a size, which is not to be had any more. */
export function changedGhost(last: Attributes, change: AttributeChange, now: Time): Attributes | null {
  if (change.size !== undefined && isRegular(last.mode)) return null;
  const moment = (time: Time | "now" | undefined, old: Time) => time === "now" ? now : time ?? old;
  let { mode } = last;
  if (change.killSetId && !isDirectory(mode)) mode &= ~(S.ISUID | ((mode & S.IXGRP) !== 0 ? S.ISGID : 0));
  if (change.mode !== undefined) mode = (mode & S.IFMT) | (change.mode & 0o7777);
  return {
    ...last,
    mode,
    uid: change.uid ?? last.uid,
    gid: change.gid ?? last.gid,
    atime: moment(change.atime, last.atime),
    mtime: moment(change.mtime, last.mtime),
    ctime: change.ctime ?? now,
  };
}
