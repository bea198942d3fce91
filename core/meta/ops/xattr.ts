/**
 * Extended attributes: GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR. Each is a record of its own beside the inode; a
 * change moves the inode's ctime in the same record. Which namespaces a caller may use is the front end's affair.
 *
 * POSIX ACLs are attributes whose values are checked, and the inode's flags say which of those there are that others
 * ask for often: whoever has the attributes of an inode needs no request to know that it has none.
 *
 * @module
 */

import { xattrFlags } from "../../client/filesystem.ts";
import { E, failed } from "../../errno.ts";
import {
  accessAclName,
  type Acl,
  aclPermissions,
  capabilityName,
  decodeAcl,
  defaultAclName,
  encodeAcl,
  isMinimal,
  sameName,
} from "../acl.ts";
import { type Attributes, inodeFlags, isDirectory, S } from "../attributes.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { after, inodeKey, kind, shardOf, xattrBytesMax, xattrKey } from "../layout.ts";
import { xattrNameErrno } from "../names.ts";
import { Plan } from "../plan.ts";
import { keptErrno } from "../protection.ts";

/** Most bytes of names an inode can list (XATTR_LIST_MAX). */
const listBytesMax = 65536;
/** Most bytes of names and values of one inode: its end removes them in one record, which keeps the old values. */
const totalBytesMax = 1024 * 1024;

/** The flag that says of an inode whether it has this attribute; 0 for one without a flag. */
function flagOf(name: Uint8Array): number {
  if (sameName(name, accessAclName)) return inodeFlags.accessAcl;
  if (sameName(name, defaultAclName)) return inodeFlags.defaultAcl;
  return sameName(name, capabilityName) ? inodeFlags.capability : 0;
}

function isAclFlag(flag: number): boolean {
  return flag === inodeFlags.accessAcl || flag === inodeFlags.defaultAcl;
}

/** GETXATTR. ENODATA, ERANGE. */
export function getxattr(engine: Engine, request: Request): Answer {
  const found = engine.inode(request.body.inode), errno = xattrNameErrno(request.body.name);
  if (failed(found)) return answerErrno(found);
  if (errno !== 0) return answerErrno(errno);
  const value = engine.store.get(xattrKey(found.inode, request.body.name));
  return value === undefined ? answerErrno(E.NODATA) : { status: 0, body: { value: value.slice() } };
}

/** SETXATTR. EEXIST, ENODATA, EPERM, ERANGE, ENOSPC; of ACLs also EINVAL, EACCES, EOPNOTSUPP, E2BIG. */
export function setxattr(engine: Engine, request: Request): Answer {
  const { inode, name, value, flags } = request.body;
  const found = engine.inode(inode);
  if (failed(found)) return answerErrno(found);
  if (keptErrno(found) !== 0) return answerErrno(E.PERM);
  const errno = value.length > xattrBytesMax ? E.RANGE : xattrNameErrno(name);
  if (errno !== 0) return answerErrno(errno);
  const flag = flagOf(name);
  if (isAclFlag(flag)) return setAcl(engine, request, found, flag);
  const old = engine.store.get(xattrKey(inode, name));
  if (old !== undefined && (flags & xattrFlags.create) !== 0) return answerErrno(E.EXIST);
  if (old === undefined && (flags & xattrFlags.replace) !== 0) return answerErrno(E.NODATA);
  const plan = new Plan(), refused = put(engine, plan, found, name, value);
  return refused !== 0 ? answerErrno(refused) : changed(engine, request, plan, found);
}

/** The change moves ctime in the same record. */
function changed(engine: Engine, request: Request, plan: Plan, inode: Attributes): Answer {
  inode.ctime = engine.stamp(inode);
  plan.attributes(inode);
  return engine.answer(request, plan, {});
}

/** Plans an attribute with its flag. errno. */
function put(engine: Engine, plan: Plan, inode: Attributes, name: Uint8Array, value: Uint8Array): number {
  const key = xattrKey(inode.inode, name), old = engine.store.get(key);
  const growth = value.length - (old?.length ?? -name.length);
  if (!engine.store.canGrow()) return E.NOSPC;
  if (old === undefined && listNames(engine, inode.inode).length + name.length + 1 > listBytesMax) return E.NOSPC;
  if (growth > 0 && totalBytes(engine, inode.inode) + growth > totalBytesMax) return E.NOSPC;
  plan.put(key, value);
  inode.flags |= flagOf(name);
  return 0;
}

/** Plans that an attribute is no more, with its flag. */
function drop(engine: Engine, plan: Plan, inode: Attributes, name: Uint8Array): void {
  const key = xattrKey(inode.inode, name);
  inode.flags &= ~flagOf(name);
  if (engine.store.get(key) !== undefined) plan.remove(key);
}

/**
 * An ACL: the access ACL sets the mode's permission bits, and is not kept when they say all of it; an empty list removes.
 * Flags of setxattr(2) mean nothing here, as in Linux.
 */
function setAcl(engine: Engine, request: Request, inode: Attributes, flag: number): Answer {
  const { name, value, flags } = request.body;
  if ((inode.mode & S.IFMT) === S.IFLNK) return answerErrno(E.OPNOTSUPP);
  const acl = decodeAcl(value);
  if (failed(acl)) return answerErrno(acl);
  if (flag === inodeFlags.defaultAcl && !isDirectory(inode.mode) && acl.length > 0) return answerErrno(E.ACCES);
  const plan = new Plan();
  const refused = flag === inodeFlags.accessAcl
    ? planAccessAcl(engine, plan, inode, acl, (flags & xattrFlags.killSetgid) !== 0)
    : planAcl(engine, plan, inode, name, acl);
  return refused !== 0 ? answerErrno(refused) : changed(engine, request, plan, inode);
}

function planAccessAcl(engine: Engine, plan: Plan, inode: Attributes, acl: Acl, killSetgid: boolean): number {
  if (acl.length > 0) inode.mode = inode.mode & ~0o777 | aclPermissions(acl);
  if (acl.length > 0 && killSetgid) inode.mode &= ~S.ISGID;
  return planAcl(engine, plan, inode, accessAclName, isMinimal(acl) ? [] : acl);
}

function planAcl(engine: Engine, plan: Plan, inode: Attributes, name: Uint8Array, acl: Acl): number {
  if (acl.length > 0) return put(engine, plan, inode, name, encodeAcl(acl));
  drop(engine, plan, inode, name);
  return 0;
}

/** LISTXATTR: names, each ended by NUL. */
export function listxattr(engine: Engine, request: Request): Answer {
  const found = engine.inode(request.body.inode);
  return failed(found) ? answerErrno(found) : { status: 0, body: { names: listNames(engine, found.inode) } };
}

function listNames(engine: Engine, inode: number): Uint8Array {
  const prefix = inodeKey(shardOf(inode), kind.xattr, inode), names: number[] = [];
  engine.store.scan(prefix, after(prefix), (key) => {
    names.push(...key.subarray(prefix.length), 0);
    return true;
  });
  return Uint8Array.from(names);
}

function totalBytes(engine: Engine, inode: number): number {
  const prefix = inodeKey(shardOf(inode), kind.xattr, inode);
  let bytes = 0;
  engine.store.scan(prefix, after(prefix), (key, value) => {
    bytes += key.length - prefix.length + value.length;
    return true;
  });
  return bytes;
}

/** REMOVEXATTR. ENODATA, EPERM, ERANGE. An ACL that is not there is no error, as in Linux. */
export function removexattr(engine: Engine, request: Request): Answer {
  const found = engine.inode(request.body.inode), errno = xattrNameErrno(request.body.name);
  if (failed(found)) return answerErrno(found);
  if (errno !== 0) return answerErrno(errno);
  if (keptErrno(found) !== 0) return answerErrno(E.PERM);
  const plan = new Plan();
  if (engine.store.get(xattrKey(found.inode, request.body.name)) === undefined) {
    return isAclFlag(flagOf(request.body.name)) ? engine.answer(request, plan, {}) : answerErrno(E.NODATA);
  }
  drop(engine, plan, found, request.body.name);
  return changed(engine, request, plan, found);
}
