/**
 * Who may do what, by mode bits, ACLs, owner and groups: the checks that the kernel makes for a mount and that a front
 * end without a kernel makes itself (path_resolution(7), inode(7), acl(5), xattr(7)). uid 0 may do everything that
 * capabilities would let it do. An inode without an ACL says so in its attributes: then nothing is asked for.
 *
 * @module
 */

import { E, failed } from "../errno.ts";
import { accessAclName, aclErrno, decodeAcl, defaultAclName, sameName } from "../meta/acl.ts";
import { type Attributes, inodeFlags, isDirectory, isRegular, S } from "../meta/attributes.ts";
import type { Task } from "../task.ts";
import type { Caller, FileSystem } from "./filesystem.ts";

/** What is wanted of an inode: bits as in access(2). */
export const may = { read: 4, write: 2, execute: 1 } as const;

/** True when nothing has to be looked up to know that the caller may. */
export function isSuperuser(who: Caller): boolean {
  return who.uid === 0;
}

/** True for a group of the caller. */
export function isMember(who: Caller, gid: number): boolean {
  return who.gid === gid || (who.groups?.includes(gid) ?? false);
}

/**
 * EACCES unless mode and ACL grant all of `wanted` ({@linkcode may}) to the caller; else 0. As in Linux, the ACL has no
 * say over the owner, nor where the mode grants the group nothing.
 */
export function* accessErrno(fileSystem: FileSystem, inode: Attributes, who: Caller, wanted: number): Task<number> {
  if (isSuperuser(who)) return 0;
  const listed = (inode.flags & inodeFlags.accessAcl) !== 0 && (inode.mode & 0o070) !== 0 && who.uid !== inode.uid;
  const value = listed ? yield* fileSystem.getExtendedAttribute(inode.inode, accessAclName) : E.NODATA;
  if (value === E.NODATA) return modeErrno(inode, who, wanted);
  if (failed(value)) return value;
  const acl = decodeAcl(value);
  if (failed(acl)) return E.IO;
  return aclErrno(acl, inode, { uid: who.uid, isMember: (gid) => isMember(who, gid) }, wanted);
}

function modeErrno(inode: Attributes, who: Caller, wanted: number): number {
  const shift = who.uid === inode.uid ? 6 : isMember(who, inode.gid) ? 3 : 0;
  return ((inode.mode >> shift) & wanted) === wanted ? 0 : E.ACCES;
}

/** EPERM unless the caller owns the inode; else 0. */
export function ownerErrno(inode: Attributes, who: Caller): number {
  return isSuperuser(who) || who.uid === inode.uid ? 0 : E.PERM;
}

/** EPERM when the directory is sticky and neither it nor the victim is the caller's; else 0. */
export function stickyErrno(dir: Attributes, victim: Attributes, who: Caller): number {
  if ((dir.mode & S.ISVTX) === 0 || isSuperuser(who)) return 0;
  return who.uid === victim.uid || who.uid === dir.uid ? 0 : E.PERM;
}

/** The mode that chmod(2) sets: without setgid on a file of a group that the caller is not in. */
export function chmodMode(inode: Attributes, mode: number, who: Caller): number {
  const bits = mode & 0o7777;
  return isSuperuser(who) || isDirectory(inode.mode) || isMember(who, inode.gid) ? bits : bits & ~S.ISGID;
}

/** The mode of a file that is made in `dir`: without setgid on a program of the directory's group for others than it. */
export function createMode(dir: Attributes, mode: number, who: Caller): number {
  const both = S.ISGID | S.IXGRP;
  if (isSuperuser(who) || (mode & both) !== both || (dir.mode & S.ISGID) === 0) return mode;
  return isMember(who, dir.gid) ? mode : mode & ~S.ISGID;
}

/** EPERM unless chown(2) may set this owner and this group (null = leave); else 0. */
export function chownErrno(inode: Attributes, uid: number | null, gid: number | null, who: Caller): number {
  if (isSuperuser(who)) return 0;
  if (who.uid !== inode.uid || (uid !== null && uid !== inode.uid)) return E.PERM;
  return gid === null || gid === inode.gid || isMember(who, gid) ? 0 : E.PERM;
}

const namespaces = ["user.", "trusted.", "security."] as const;

/** True for the name of a POSIX ACL. */
export function isAclName(name: Uint8Array): boolean {
  return sameName(name, accessAclName) || sameName(name, defaultAclName);
}

/** Namespace of an extended attribute's name, or the errno of a name that no attribute can have here. */
function namespaceOf(name: Uint8Array): typeof namespaces[number] | number {
  const text = String.fromCharCode(...name.subarray(0, 16));
  const namespace = namespaces.find((prefix) => text.startsWith(prefix));
  if (namespace === undefined) return E.OPNOTSUPP;
  return name.length === namespace.length ? E.INVAL : namespace;
}

/**
 * errno of reading or changing an extended attribute: ACLs read by all and changed by the owner, but none of links;
 * user.* as the contents and only of files and directories, of a sticky directory by its owner; trusted.* for root
 * alone, security.* changed by root alone, EOPNOTSUPP for what else there is.
 */
export function* xattrErrno(
  fileSystem: FileSystem,
  inode: Attributes,
  name: Uint8Array,
  { who, change }: { who: Caller; change: boolean },
): Task<number> {
  if (isAclName(name)) {
    if ((inode.mode & S.IFMT) === S.IFLNK) return E.OPNOTSUPP;
    return change ? ownerErrno(inode, who) : 0;
  }
  const namespace = namespaceOf(name);
  if (typeof namespace === "number") return namespace;
  if (namespace === "security.") return change && !isSuperuser(who) ? E.PERM : 0;
  const refused = change ? E.PERM : E.NODATA;
  if (namespace === "trusted.") return isSuperuser(who) ? 0 : refused;
  if (!isRegular(inode.mode) && !isDirectory(inode.mode)) return refused;
  const sticky = change && isDirectory(inode.mode) && (inode.mode & S.ISVTX) !== 0;
  if (sticky && ownerErrno(inode, who) !== 0) return E.PERM;
  return yield* accessErrno(fileSystem, inode, who, change ? may.write : may.read);
}

/** True when listing shows this name to the caller: trusted.* is shown to root alone. */
export function xattrIsShown(name: Uint8Array, who: Caller): boolean {
  return isSuperuser(who) || namespaceOf(name) !== "trusted.";
}
