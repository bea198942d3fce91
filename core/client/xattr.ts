/**
 * Extended attributes: one request each at the inode's shard.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { xattrBytesMax } from "../meta/layout.ts";
import { xattrNameErrno } from "../meta/names.ts";
import { GETXATTR, LISTXATTR, REMOVEXATTR, SETXATTR } from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import { type Done, xattrFlags } from "./filesystem.ts";
import { finished } from "./namespace.ts";
import type { Volume } from "./volume.ts";

/** GETXATTR. ENODATA. */
export function* getExtendedAttribute(volume: Volume, inode: number, name: Uint8Array): Task<Result<Uint8Array>> {
  const errno = xattrNameErrno(name);
  if (errno !== 0) return errno;
  const found = yield* volume.ask(GETXATTR, inode, { inode, name });
  return failed(found) ? found : found.value;
}

/** SETXATTR. E2BIG for a value above the limit, EEXIST and ENODATA by `flags`. */
export function* setExtendedAttribute(
  volume: Volume,
  inode: number,
  name: Uint8Array,
  value: Uint8Array,
  flags: number,
): Task<Done> {
  const errno = xattrNameErrno(name);
  if (errno !== 0) return errno;
  if (value.length > xattrBytesMax) return E["2BIG"];
  const { create, replace, killSetgid } = xattrFlags, both = create | replace;
  if ((flags & ~(both | killSetgid)) !== 0 || (flags & both) === both) return E.INVAL;
  return finished(yield* volume.ask(SETXATTR, inode, { inode, name, value, flags }));
}

/** LISTXATTR: names, each ended by NUL. */
export function* listExtendedAttributes(volume: Volume, inode: number): Task<Result<Uint8Array>> {
  const found = yield* volume.ask(LISTXATTR, inode, { inode });
  return failed(found) ? found : found.names;
}

/** REMOVEXATTR. ENODATA. */
export function* removeExtendedAttribute(volume: Volume, inode: number, name: Uint8Array): Task<Done> {
  return xattrNameErrno(name) || finished(yield* volume.ask(REMOVEXATTR, inode, { inode, name }));
}
