/**
 * Extended attributes: GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR. Each is a record of its own beside the inode; a
 * change moves the inode's ctime in the same record. Which namespaces a caller may use is the front end's affair.
 *
 * @module
 */

import { E, failed } from "../../errno.ts";
import { type Answer, answerErrno, type Engine, type Request } from "../engine.ts";
import { after, inodeKey, Key, kind, shardOf, xattrBytesMax } from "../layout.ts";
import { xattrNameErrno } from "../names.ts";
import { Plan } from "../plan.ts";

/** flags of setxattr(2). */
export const xattrFlags = { create: 1, replace: 2 } as const;
/** Most bytes of names an inode can list (XATTR_LIST_MAX). */
const listBytesMax = 65536;
/** Most bytes of names and values of one inode: its end removes them in one record, which keeps the old values. */
const totalBytesMax = 1024 * 1024;

function xattrKey(inode: number, name: Uint8Array): Uint8Array {
  return new Key(shardOf(inode), kind.xattr, 10 + name.length).u56(inode).raw(name).done();
}

/** GETXATTR. ENODATA, ERANGE. */
export function getxattr(engine: Engine, request: Request): Answer {
  const found = engine.inode(request.body.inode), errno = xattrNameErrno(request.body.name);
  if (failed(found)) return answerErrno(found);
  if (errno !== 0) return answerErrno(errno);
  const value = engine.store.get(xattrKey(found.inode, request.body.name));
  return value === undefined ? answerErrno(E.NODATA) : { status: 0, body: { value: value.slice() } };
}

/** SETXATTR. EEXIST, ENODATA, ERANGE, ENOSPC. */
export function setxattr(engine: Engine, request: Request): Answer {
  const { inode, name, value, flags } = request.body;
  const found = engine.inode(inode);
  if (failed(found)) return answerErrno(found);
  const errno = value.length > xattrBytesMax ? E.RANGE : xattrNameErrno(name);
  if (errno !== 0) return answerErrno(errno);
  const key = xattrKey(inode, name), old = engine.store.get(key), growth = value.length - (old?.length ?? -name.length);
  if (old !== undefined && flags === xattrFlags.create) return answerErrno(E.EXIST);
  if (old === undefined && flags === xattrFlags.replace) return answerErrno(E.NODATA);
  if (!engine.store.canGrow()) return answerErrno(E.NOSPC);
  if (old === undefined && listNames(engine, inode).length + name.length + 1 > listBytesMax) {
    return answerErrno(E.NOSPC);
  }
  if (growth > 0 && totalBytes(engine, inode) + growth > totalBytesMax) return answerErrno(E.NOSPC);
  const plan = new Plan();
  plan.put(key, value);
  found.ctime = engine.stamp(found);
  plan.attributes(found);
  return engine.answer(request, plan, {});
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

/** REMOVEXATTR. ENODATA, ERANGE. */
export function removexattr(engine: Engine, request: Request): Answer {
  const found = engine.inode(request.body.inode), errno = xattrNameErrno(request.body.name);
  if (failed(found)) return answerErrno(found);
  if (errno !== 0) return answerErrno(errno);
  const key = xattrKey(found.inode, request.body.name);
  if (engine.store.get(key) === undefined) return answerErrno(E.NODATA);
  const plan = new Plan();
  plan.remove(key);
  found.ctime = engine.stamp(found);
  plan.attributes(found);
  return engine.answer(request, plan, {});
}
