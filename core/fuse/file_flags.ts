/**
 * What chattr(1) and lsattr(1) ask for, FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, and the same by struct fsxattr,
 * FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR (include/uapi/linux/fs.h): the kernel sends them as FUSE_IOCTL once it has
 * seen that the caller may. Kept are "immutable" and "append only", of files and directories; to set another flag is
 * EOPNOTSUPP, as of every file system that lacks it.
 *
 * @module
 */

import { E, type Result } from "../errno.ts";
import { type Attributes, inodeFlags } from "../meta/attributes.ts";

/** Numbers of the requests, with the sizes that the kernel's own calls have in them. */
export const fileFlagsRequest = {
  getFlags: 0x80086601,
  setFlags: 0x40086602,
  getExtended: 0x801c581f,
  setExtended: 0x401c5820,
} as const;

/** FS_IMMUTABLE_FL, FS_APPEND_FL; FS_XFLAG_IMMUTABLE, FS_XFLAG_APPEND. */
const plain = { immutable: 0x10, appendOnly: 0x20 }, extended = { immutable: 0x08, appendOnly: 0x10 };
type Numbers = typeof plain;

/** Bytes of an argument: a u32, or struct fsxattr, whose first u32 are the flags. */
const plainBytes = 4, extendedBytes = 28;

/** What chattr(1) sets. */
export interface FileFlags {
  immutable: boolean;
  appendOnly: boolean;
}

/** Bytes of the argument of a request; 0 for one that is not known here. */
export function fileFlagsBytes(command: number): number {
  const { getFlags, setFlags, getExtended, setExtended } = fileFlagsRequest;
  if (command === getFlags || command === setFlags) return plainBytes;
  return command === getExtended || command === setExtended ? extendedBytes : 0;
}

/** True for the two requests that set. */
export function setsFileFlags(command: number): boolean {
  return command === fileFlagsRequest.setFlags || command === fileFlagsRequest.setExtended;
}

function numbersOf(command: number): Numbers {
  return fileFlagsBytes(command) === plainBytes ? plain : extended;
}

/** Writes an inode's flags as the request's answer has them, at `at`. */
export function encodeFileFlags(view: DataView, at: number, command: number, { flags }: Attributes): void {
  const numbers = numbersOf(command);
  for (let i = 0; i < fileFlagsBytes(command); i += 4) view.setUint32(at + i, 0, true);
  const immutable = (flags & inodeFlags.immutable) !== 0 ? numbers.immutable : 0;
  const appendOnly = (flags & inodeFlags.appendOnly) !== 0 ? numbers.appendOnly : 0;
  view.setUint32(at, immutable | appendOnly, true);
}

/** What the argument of a request that sets asks for. EOPNOTSUPP: also something that is not kept. */
export function decodeFileFlags(argument: Uint8Array, command: number): Result<FileFlags> {
  const numbers = numbersOf(command), view = new DataView(argument.buffer, argument.byteOffset, argument.length);
  const flags = view.getUint32(0, true);
  if ((flags & ~(numbers.immutable | numbers.appendOnly)) !== 0) return E.OPNOTSUPP;
  for (let at = 4; at < fileFlagsBytes(command); at += 4) if (view.getUint32(at, true) !== 0) return E.OPNOTSUPP;
  return { immutable: (flags & numbers.immutable) !== 0, appendOnly: (flags & numbers.appendOnly) !== 0 };
}
