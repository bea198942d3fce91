/**
 * What a name may be: checked by clients before anything is sent, and by servers before anything is done.
 *
 * @module
 */

import { E } from "../errno.ts";
import { nameBytesMax } from "./layout.ts";

const slash = 0x2f, dot = 0x2e;

/** errno for a name that cannot be an entry of a directory: EINVAL or ENAMETOOLONG; 0 for one that can. */
export function nameErrno(name: Uint8Array): number {
  if (name.length === 0) return E.INVAL;
  if (name.length > nameBytesMax) return E.NAMETOOLONG;
  if (name[0] === dot && (name.length === 1 || (name.length === 2 && name[1] === dot))) return E.INVAL;
  return name.includes(0) || name.includes(slash) ? E.INVAL : 0;
}

/** errno for a name that cannot be one of an extended attribute: ERANGE by its length (as Linux says), EINVAL; or 0. */
export function xattrNameErrno(name: Uint8Array): number {
  if (name.length === 0 || name.length > nameBytesMax) return E.RANGE;
  return name.includes(0) ? E.INVAL : 0;
}
