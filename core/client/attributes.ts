/**
 * Changing attributes: chmod, chown, utimens, truncate, all as one SETATTR at the inode's shard.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import type { Attributes } from "../meta/attributes.ts";
import { fileBytesMax } from "../meta/layout.ts";
import { SETATTR, setattrValid } from "../protocol/messages.ts";
import type { Time } from "../runtime.ts";
import type { Task } from "../task.ts";
import type { AttributeChange } from "./filesystem.ts";
import type { Volume } from "./volume.ts";

const zero: Time = { sec: 0, nsec: 0 };

/** SETATTR. EFBIG, EINVAL for a size or time that cannot be. */
export function* setAttributes(volume: Volume, inode: number, change: AttributeChange): Task<Result<Attributes>> {
  const size = change.size ?? 0;
  if (!Number.isSafeInteger(size) || size < 0) return E.INVAL;
  if (size > fileBytesMax) return E.FBIG;
  const set = yield* volume.ask(SETATTR, inode, {
    inode,
    valid: validBits(change),
    mode: change.mode ?? 0,
    uid: change.uid ?? 0,
    gid: change.gid ?? 0,
    size,
    atime: given(change.atime),
    mtime: given(change.mtime),
    ctime: given(change.ctime),
  });
  return failed(set) ? set : volume.seen(set.attributes);
}

function given(time: Time | "now" | undefined): Time {
  return time === undefined || time === "now" ? zero : time;
}

function validBits(change: AttributeChange): number {
  let bits = 0;
  if (change.mode !== undefined) bits |= setattrValid.mode;
  if (change.uid !== undefined) bits |= setattrValid.uid;
  if (change.gid !== undefined) bits |= setattrValid.gid;
  if (change.size !== undefined) bits |= setattrValid.size;
  if (change.atime !== undefined) bits |= change.atime === "now" ? setattrValid.atimeNow : setattrValid.atime;
  if (change.mtime !== undefined) bits |= change.mtime === "now" ? setattrValid.mtimeNow : setattrValid.mtime;
  if (change.ctime !== undefined) bits |= setattrValid.ctime;
  if (change.killSetId) bits |= setattrValid.killSetId;
  const { immutable, appendOnly } = change;
  if (immutable !== undefined) bits |= immutable ? setattrValid.setImmutable : setattrValid.clearImmutable;
  if (appendOnly !== undefined) bits |= appendOnly ? setattrValid.setAppendOnly : setattrValid.clearAppendOnly;
  return bits;
}
