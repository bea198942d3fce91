/**
 * Which leases go out with which answer. Only for what the answer says now: an answer from a reply slot may be old, so
 * nothing is granted with it.
 *
 * @module
 */

import { E } from "../errno.ts";
import type { Attributes } from "../meta/attributes.ts";
import type { Answer, Request } from "../meta/engine.ts";
import { shardOf } from "../meta/layout.ts";
import type { Leases } from "../meta/leases.ts";
import { leaseBits } from "../protocol/lease.ts";
import * as m from "../protocol/messages.ts";

/** Grants what can be granted with a fresh answer; bits of leaseBits. */
export function grantLeases(leases: Leases, request: Request, answer: Answer): number {
  const { message, head: { session }, body: asked } = request;
  const body = answer.body as Partial<Reply> | undefined;
  // An absent name is worth knowing, too.
  if (answer.status !== 0) {
    return message === m.LOOKUP && answer.status === E.NOENT && leases.grant(asked.dir, session)
      ? leaseBits.directory
      : 0;
  }
  if (body === undefined) return 0;
  switch (message) {
    case m.GETATTR:
    case m.SETATTR:
    case m.OPEN:
      return grant(leases, request, body.attributes!.inode, leaseBits.attributes);
    case m.LOOKUP:
    case m.CREATE:
    case m.MKDIR:
    case m.LINK:
      return grant(leases, request, asked.dir, leaseBits.directory) |
        (body.attributes ? grant(leases, request, body.attributes.inode, leaseBits.attributes) : 0);
    case m.UNLINK:
    case m.RMDIR:
      return grant(leases, request, asked.dir, leaseBits.directory);
    case m.RENAME:
      return grant(leases, request, asked.dir, leaseBits.directory) |
        grant(leases, request, asked.newDir, leaseBits.newDirectory);
    case m.GETATTRS:
      return grantAll(leases, body.found!, session);
    case m.READDIR:
      return grant(leases, request, asked.dir, leaseBits.directory) |
        grantAll(leases, body.entries!.map((entry) => entry.attributes), session);
    default:
      return 0;
  }
}

interface Reply {
  attributes: Attributes | null;
  found: (Attributes | null)[];
  entries: { attributes: Attributes | null }[];
}

/** `bit`, if the session gets a lease on an inode of the request's shard. */
function grant(leases: Leases, { head }: Request, inode: number, bit: number): number {
  return inode !== 0 && shardOf(inode) === head.shard && leases.grant(inode, head.session) ? bit : 0;
}

/** All or nothing, since one bit tells of all. */
function grantAll(leases: Leases, found: readonly (Attributes | null)[], session: number): number {
  let all = true;
  for (const one of found) if (one !== null && !leases.grant(one.inode, session)) all = false;
  return all ? leaseBits.attributes : 0;
}
