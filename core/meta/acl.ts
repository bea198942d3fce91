/**
 * POSIX access control lists as values: the extended attributes system.posix_acl_access and system.posix_acl_default in
 * the kernel's own format (include/uapi/linux/posix_acl_xattr.h), and the rules of acl(5) as fs/posix_acl.c has them:
 * what is well formed, what a list says of the mode and the mode of a list, what a new inode inherits, who may do what.
 *
 * The format: u32 version 2, then 8 bytes an entry: u16 tag, u16 permissions, u32 id (0xffffffff where the tag has none).
 * Nothing here knows where lists are stored.
 *
 * @module
 */

import { E, type Result } from "../errno.ts";

/** One entry. `perm` is rwx as in access(2); `id` is a uid or gid, {@linkcode noId} for the other tags. */
export interface AclEntry {
  tag: number;
  perm: number;
  id: number;
}
/** A list in its canonical order. An empty one stands for none. */
export type Acl = readonly AclEntry[];

/** e_tag. */
export const aclTag = { userObj: 0x01, user: 0x02, groupObj: 0x04, group: 0x08, mask: 0x10, other: 0x20 } as const;
/** ACL_UNDEFINED_ID. */
export const noId = 0xffffffff;
/** Longest list in bytes: the kernel reads no more of one from a FUSE file system (fs/fuse/acl.c). */
export const aclBytesMax = 4096;
/** Names of the two lists, and of the attribute that holds a program's capabilities, as extended attributes. */
export const accessAclName: Uint8Array = new TextEncoder().encode("system.posix_acl_access");
export const defaultAclName: Uint8Array = new TextEncoder().encode("system.posix_acl_default");
export const capabilityName: Uint8Array = new TextEncoder().encode("security.capability");

const version = 2, headerBytes = 4, entryBytes = 8;
const permissionsMax = 7;

/** True for the same name of an attribute. */
export function sameName(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** The list in an attribute's value. EINVAL for what is no list, EOPNOTSUPP for another version of the format, E2BIG. */
export function decodeAcl(value: Uint8Array): Result<Acl> {
  if (value.length < headerBytes) return E.INVAL;
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  if (view.getUint32(0, true) !== version) return E.OPNOTSUPP;
  if ((value.length - headerBytes) % entryBytes !== 0) return E.INVAL;
  if (value.length > aclBytesMax) return E["2BIG"];
  const acl: AclEntry[] = [];
  for (let at = headerBytes; at < value.length; at += entryBytes) {
    const tag = view.getUint16(at, true), named = tag === aclTag.user || tag === aclTag.group;
    const id = named ? view.getUint32(at + 4, true) : noId;
    if (named && id === noId) return E.INVAL;
    acl.push({ tag, perm: view.getUint16(at + 2, true), id });
  }
  return acl.length === 0 || isWellFormed(acl) ? acl : E.INVAL;
}

/** The value of an attribute that holds a list. */
export function encodeAcl(acl: Acl): Uint8Array {
  const value = new Uint8Array(headerBytes + acl.length * entryBytes), view = new DataView(value.buffer);
  view.setUint32(0, version, true);
  acl.forEach(({ tag, perm, id }, i) => {
    const at = headerBytes + i * entryBytes;
    view.setUint16(at, tag, true);
    view.setUint16(at + 2, perm, true);
    view.setUint32(at + 4, id, true);
  });
  return value;
}

/** One owner, users, one group, groups, a mask (which named entries need), one other: posix_acl_valid. */
function isWellFormed(acl: Acl): boolean {
  const { userObj, user, groupObj, group, mask, other } = aclTag;
  let before = 0, masked = false, named = false;
  for (const { tag, perm } of acl) {
    if (perm > permissionsMax) return false;
    const expected = before === 0
      ? [userObj]
      : before === userObj || before === user
      ? [user, groupObj]
      : before === groupObj || before === group
      ? [group, mask, other]
      : before === mask
      ? [other]
      : [];
    if (!(expected as number[]).includes(tag)) return false;
    named ||= tag === user || tag === group;
    masked ||= tag === mask;
    before = tag;
  }
  return before === other && (masked || !named);
}

/** True for a list that says no more than the nine bits of a mode. */
export function isMinimal(acl: Acl): boolean {
  return acl.every(({ tag }) => tag === aclTag.userObj || tag === aclTag.groupObj || tag === aclTag.other);
}

function permOf(acl: Acl, tag: number): number | undefined {
  return acl.find((entry) => entry.tag === tag)?.perm;
}

/** The nine permission bits that a mode shows beside a list: the mask stands for the group. */
export function aclPermissions(acl: Acl): number {
  const group = permOf(acl, aclTag.mask) ?? permOf(acl, aclTag.groupObj) ?? 0;
  return (permOf(acl, aclTag.userObj) ?? 0) << 6 | group << 3 | (permOf(acl, aclTag.other) ?? 0);
}

/** Each entry that stands for bits of the mode as `edit` makes it of its own and of those bits. */
function withMode(acl: Acl, mode: number, edit: (perm: number, bits: number) => number): Acl {
  const groupTag = acl.some(({ tag }) => tag === aclTag.mask) ? aclTag.mask : aclTag.groupObj;
  return acl.map((entry) => {
    const shift = entry.tag === aclTag.userObj ? 6 : entry.tag === groupTag ? 3 : entry.tag === aclTag.other ? 0 : -1;
    return shift < 0 ? entry : { ...entry, perm: edit(entry.perm, mode >> shift & 7) };
  });
}

/** The list after chmod(2) to `mode`. */
export function chmodAcl(acl: Acl, mode: number): Acl {
  return withMode(acl, mode, (_, bits) => bits);
}

/**
 * What a new inode gets of its directory's default list when a program asks for `mode`: its permission bits, and its
 * own list, empty when the bits say it all.
 */
export function inheritAcl(acl: Acl, mode: number): { permissions: number; access: Acl } {
  const access = withMode(acl, mode, (perm, bits) => perm & bits);
  return { permissions: aclPermissions(access), access: isMinimal(access) ? [] : access };
}

/** Who asks, for {@linkcode aclErrno}. */
export interface AclSubject {
  uid: number;
  isMember: (gid: number) => boolean;
}

/** EACCES unless the list grants all of `wanted` (bits of access(2)) on an inode of this owner and group; else 0. */
export function aclErrno(acl: Acl, owner: { uid: number; gid: number }, who: AclSubject, wanted: number): number {
  const grants = (perm: number | undefined) => ((perm ?? 0) & wanted) === wanted;
  if (who.uid === owner.uid) return grants(permOf(acl, aclTag.userObj)) ? 0 : E.ACCES;
  const mask = permOf(acl, aclTag.mask) ?? permissionsMax;
  const user = acl.find(({ tag, id }) => tag === aclTag.user && id === who.uid);
  if (user !== undefined) return grants(user.perm & mask) ? 0 : E.ACCES;
  const groups = acl.filter(({ tag, id }) => {
    return tag === aclTag.groupObj ? who.isMember(owner.gid) : tag === aclTag.group && who.isMember(id);
  });
  if (groups.length > 0) return groups.some(({ perm }) => grants(perm & mask)) ? 0 : E.ACCES;
  return grants(permOf(acl, aclTag.other)) ? 0 : E.ACCES;
}
