/**
 * What a new inode takes from its directory, and what becomes of an inode's access ACL when its mode changes: the group
 * and setgid of a setgid directory, and the default ACL in place of the umask (acl(5), posix_acl_create).
 *
 * A directory without a default ACL, and an inode without an access ACL, say so in their flags: they cost no read.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { accessAclName, aclPermissions, chmodAcl, decodeAcl, defaultAclName, encodeAcl, inheritAcl } from "./acl.ts";
import { type Attributes, inodeFlags, isDirectory, S } from "./attributes.ts";
import type { Engine } from "./engine.ts";
import { xattrKey } from "./layout.ts";
import type { Plan } from "./plan.ts";

/** What is inherited: mode with type bits, group, and stored values of ACLs, empty for none. */
export interface Inherited {
  mode: number;
  gid: number;
  accessAcl: Uint8Array;
  defaultAcl: Uint8Array;
}

const none = new Uint8Array(0);

/** What an inode made in `parent` gets. EIO when the default ACL cannot be read. */
export function inherit(
  engine: Engine,
  parent: Attributes,
  asked: { mode: number; umask: number; gid: number },
): Result<Inherited> {
  const directory = isDirectory(asked.mode), setgid = (parent.mode & S.ISGID) !== 0;
  const gid = setgid ? parent.gid : asked.gid;
  if ((asked.mode & S.IFMT) === S.IFLNK) {
    return { mode: S.IFLNK | 0o777, gid, accessAcl: none, defaultAcl: none };
  }
  const mode = directory && setgid ? asked.mode | S.ISGID : asked.mode;
  if ((parent.flags & inodeFlags.defaultAcl) === 0) {
    return { mode: mode & ~(asked.umask & 0o777), gid, accessAcl: none, defaultAcl: none };
  }
  const value = engine.store.get(xattrKey(parent.inode, defaultAclName))?.slice();
  const acl = value === undefined ? E.IO : decodeAcl(value);
  if (value === undefined || failed(acl)) return E.IO;
  const { permissions, access } = inheritAcl(acl, mode);
  return {
    mode: mode & ~0o777 | permissions,
    gid,
    accessAcl: access.length === 0 ? none : encodeAcl(access),
    defaultAcl: directory ? value : none,
  };
}

/** Plans inherited ACLs of a new inode; its attributes are planned after. */
export function planInherited(
  plan: Plan,
  made: Attributes,
  { accessAcl, defaultAcl }: { accessAcl: Uint8Array; defaultAcl: Uint8Array },
): void {
  if (accessAcl.length > 0) {
    made.flags |= inodeFlags.accessAcl;
    plan.put(xattrKey(made.inode, accessAclName), accessAcl);
  }
  if (defaultAcl.length > 0) {
    made.flags |= inodeFlags.defaultAcl;
    plan.put(xattrKey(made.inode, defaultAclName), defaultAcl);
  }
}

/** Plans the access ACL of an inode whose mode has been set; one that cannot be read is left as it is. */
export function planChmodAcl(engine: Engine, plan: Plan, inode: Attributes): void {
  if ((inode.flags & inodeFlags.accessAcl) === 0) return;
  const key = xattrKey(inode.inode, accessAclName), value = engine.store.get(key);
  const acl = value === undefined ? E.IO : decodeAcl(value);
  if (failed(acl) || aclPermissions(acl) === (inode.mode & 0o777)) return;
  plan.put(key, encodeAcl(chmodAcl(acl, inode.mode)));
}
