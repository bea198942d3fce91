/**
 * The FUSE protocol as bytes: constants and layouts under the kernel's own names (include/uapi/linux/fuse.h, 7.45),
 * decoding of every request and encoding of every reply. Nothing here waits or asks a file system.
 *
 * What comes from the device is not trusted: every length is checked against what was read, names against the rules of
 * a directory entry. Layout objects give the byte offset of each field within its struct; `sizeof` is the struct's size.
 * All numbers are little-endian. 64-bit fields are read as doubles: exact below 2^53, larger ones only compare.
 *
 * @module
 */

import { E } from "../errno.ts";
import type { Attributes } from "../meta/attributes.ts";
import type { Totals } from "../client/filesystem.ts";
import type { Time } from "../runtime.ts";

/** Protocol version spoken here. */
export const FUSE_KERNEL_VERSION = 7;
/** The newest minor version known here; both sides use the smaller one. */
export const FUSE_KERNEL_MINOR_VERSION = 45;
/** Older kernels (before Linux 5.17) are refused: the layouts below would not be theirs. */
export const fuseMinorVersionMin = 36;
/** nodeid of the root of the mount. */
export const FUSE_ROOT_ID = 1;
/** Longest name of a directory entry in bytes. */
export const nameMax = 255;
/** Longest target of a symbolic link in bytes. */
export const targetMax = 4095;
/** Most bytes of one READ reply or WRITE request. */
export const maxWriteBytes = 1 << 20;

/** enum fuse_opcode. */
export const FUSE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const;

/** Bits of `flags` in INIT, both ways. */
export const INIT = {
  ASYNC_READ: 1 << 0,
  POSIX_LOCKS: 1 << 1,
  ATOMIC_O_TRUNC: 1 << 3,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  FLOCK_LOCKS: 1 << 10,
  AUTO_INVAL_DATA: 1 << 12,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  NO_OPEN_SUPPORT: 1 << 17,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  HANDLE_KILLPRIV_V2: 1 << 28,
  SETXATTR_EXT: 1 << 29,
  INIT_EXT: 1 << 30,
} as const;

/** Bits of `flags2` in INIT: the kernel's bits 32..63 shifted down by 32. */
export const INIT2 = {
  CREATE_SUPP_GROUP: 1 << 2,
  HAS_EXPIRE_ONLY: 1 << 3,
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
  OVER_IO_URING: 1 << 9,
} as const;

/** Bits of `valid` in SETATTR. */
export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const;

/** Bits of `open_flags` in the replies to OPEN and CREATE. */
export const FOPEN = { DIRECT_IO: 1 << 0, KEEP_CACHE: 1 << 1 } as const;
/** `open_flags` of the requests OPEN and CREATE: the O_TRUNC they carry clears setuid and setgid. */
export const FUSE_OPEN_KILL_SUIDGID = 1 << 0;
/** `release_flags`: the last close of an open file description that took a flock. */
export const FUSE_RELEASE_FLOCK_UNLOCK = 1 << 1;
/** `lk_flags`: flock(2), not fcntl(2). */
export const FUSE_LK_FLOCK = 1 << 0;
/** `write_flags`: written back from the page cache; handle and flags are a guess. */
export const FUSE_WRITE_CACHE = 1 << 0;
/** `write_flags`: the writer loses setuid and setgid of the file. */
export const FUSE_WRITE_KILL_SUIDGID = 1 << 2;
/** `setxattr_flags`: the access ACL is set by one who must not keep the file's setgid. */
export const FUSE_SETXATTR_ACL_KILL_SGID = 1 << 0;
/** Type of the request extension that names supplementary groups. */
export const FUSE_EXT_GROUPS = 32;

/** Flags of open(2), as Linux has them on x86-64 and arm64. */
export const O = {
  ACCMODE: 0o3,
  EXCL: 0o200,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  /** Part of O_SYNC as well. */
  DSYNC: 0o10000,
  /**
   * O_DIRECT of x86-64 (0o40000) and of arm64 (0o200000). Each is O_DIRECTORY on the other machine, which an OPEN of a
   * regular file never carries, so both can be asked for at once.
   */
  DIRECT: 0o240000,
  NOATIME: 0o1000000,
  TMPFILE: 0o20000000,
} as const;

/** Lock types of `struct fuse_file_lock`. */
export const LK = { RDLCK: 0, WRLCK: 1, UNLCK: 2 } as const;
/** `whence` of LSEEK. */
export const SEEK = { DATA: 3, HOLE: 4 } as const;

/** struct fuse_in_header: before every request. `totalExtlen` counts units of 8 bytes. */
export const inHeader = {
  len: 0,
  opcode: 4,
  unique: 8,
  nodeid: 16,
  uid: 24,
  gid: 28,
  pid: 32,
  totalExtlen: 36,
  sizeof: 40,
} as const;
/** struct fuse_out_header: before every reply. `error` is 0 or a negative errno. */
export const outHeader = { len: 0, error: 4, unique: 8, sizeof: 16 } as const;

/** struct fuse_init_in; up to 7.35 it ended before flags2. */
export const initIn = {
  major: 0,
  minor: 4,
  maxReadahead: 8,
  flags: 12,
  flags2: 16,
  sizeofCompat: 16,
  sizeof: 64,
} as const;
/** struct fuse_init_out. max_background, congestion_threshold and max_pages are u16. */
export const initOut = {
  major: 0,
  minor: 4,
  maxReadahead: 8,
  flags: 12,
  maxBackground: 16,
  congestionThreshold: 18,
  maxWrite: 20,
  timeGran: 24,
  maxPages: 28,
  flags2: 32,
  sizeof: 64,
} as const;
/** struct fuse_setattr_in. */
export const setattrIn = {
  valid: 0,
  fh: 8,
  size: 16,
  lockOwner: 24,
  atime: 32,
  mtime: 40,
  ctime: 48,
  atimensec: 56,
  mtimensec: 60,
  ctimensec: 64,
  mode: 68,
  uid: 76,
  gid: 80,
  sizeof: 88,
} as const;
/** struct fuse_mknod_in. */
export const mknodIn = { mode: 0, rdev: 4, umask: 8, sizeof: 16 } as const;
/** struct fuse_mkdir_in. */
export const mkdirIn = { mode: 0, umask: 4, sizeof: 8 } as const;
/** struct fuse_rename_in, and fuse_rename2_in that goes on with flags. */
export const rename2In = { newdir: 0, flags: 8, sizeofRename: 8, sizeof: 16 } as const;
/** struct fuse_link_in. */
export const linkIn = { oldnodeid: 0, sizeof: 8 } as const;
/** struct fuse_open_in. */
export const openIn = { flags: 0, openFlags: 4, sizeof: 8 } as const;
/** struct fuse_create_in. */
export const createIn = { flags: 0, mode: 4, umask: 8, openFlags: 12, sizeof: 16 } as const;
/** struct fuse_release_in. */
export const releaseIn = { fh: 0, flags: 8, releaseFlags: 12, lockOwner: 16, sizeof: 24 } as const;
/** struct fuse_flush_in. */
export const flushIn = { fh: 0, lockOwner: 16, sizeof: 24 } as const;
/** struct fuse_read_in, fuse_write_in: the same fields. READDIR and READDIRPLUS too. */
export const readIn = { fh: 0, offset: 8, size: 16, readFlags: 20, lockOwner: 24, flags: 32, sizeof: 40 } as const;
/** struct fuse_setxattr_in as with FUSE_SETXATTR_EXT. */
export const setxattrIn = { size: 0, flags: 4, setxattrFlags: 8, sizeof: 16 } as const;
/** struct fuse_batch_forget_in; as many struct fuse_forget_one follow, which begin with the nodeid. */
export const batchForgetIn = { count: 0, sizeof: 8 } as const;
export const forgetOne = { nodeid: 0, nlookup: 8, sizeof: 16 } as const;
/** struct fuse_getxattr_in, for LISTXATTR too. */
export const getxattrIn = { size: 0, sizeof: 8 } as const;
/** struct fuse_lk_in with its struct fuse_file_lock. */
export const lkIn = { fh: 0, owner: 8, start: 16, end: 24, type: 32, pid: 36, lkFlags: 40, sizeof: 48 } as const;
/** struct fuse_fallocate_in. */
export const fallocateIn = { fh: 0, offset: 8, length: 16, mode: 24, sizeof: 32 } as const;
/** struct fuse_ioctl_in; the argument follows. */
export const ioctlIn = { fh: 0, flags: 8, cmd: 12, arg: 16, inSize: 24, outSize: 28, sizeof: 32 } as const;
/** struct fuse_lseek_in. */
export const lseekIn = { fh: 0, offset: 8, whence: 16, sizeof: 24 } as const;
/** struct fuse_copy_file_range_in. */
export const copyFileRangeIn = {
  fhIn: 0,
  offIn: 8,
  nodeidOut: 16,
  fhOut: 24,
  offOut: 32,
  len: 40,
  flags: 48,
  sizeof: 56,
} as const;

/** struct fuse_attr. */
export const attr = {
  ino: 0,
  size: 8,
  blocks: 16,
  atime: 24,
  mtime: 32,
  ctime: 40,
  atimensec: 48,
  mtimensec: 52,
  ctimensec: 56,
  mode: 60,
  nlink: 64,
  uid: 68,
  gid: 72,
  rdev: 76,
  blksize: 80,
  flags: 84,
  sizeof: 88,
} as const;
/** struct fuse_entry_out. */
export const entryOut = {
  nodeid: 0,
  generation: 8,
  entryValid: 16,
  attrValid: 24,
  entryValidNsec: 32,
  attrValidNsec: 36,
  attr: 40,
  sizeof: 128,
} as const;
/** struct fuse_attr_out. */
export const attrOut = { attrValid: 0, attrValidNsec: 8, attr: 16, sizeof: 104 } as const;
/** struct fuse_open_out. */
export const openOut = { fh: 0, openFlags: 8, sizeof: 16 } as const;
/** struct fuse_statfs_out. */
export const statfsOut = {
  blocks: 0,
  bfree: 8,
  bavail: 16,
  files: 24,
  ffree: 32,
  bsize: 40,
  namelen: 44,
  frsize: 48,
  sizeof: 80,
} as const;
/** struct fuse_ioctl_out; what the caller gets follows. */
export const ioctlOut = { result: 0, flags: 4, sizeof: 16 } as const;
/** struct fuse_lk_out. */
export const lkOut = { start: 0, end: 8, type: 16, pid: 20, sizeof: 24 } as const;
/** struct fuse_dirent; the name follows, the record is padded to 8 bytes. */
export const dirent = { ino: 0, off: 8, namelen: 16, type: 20, name: 24 } as const;
/** struct fuse_statx_out: validity, then struct fuse_statx at `stat`; the offsets below it are from the struct's start. */
export const statxOut = {
  attrValid: 0,
  attrValidNsec: 8,
  mask: 32,
  blksize: 36,
  nlink: 48,
  uid: 52,
  gid: 56,
  mode: 60,
  ino: 64,
  size: 72,
  blocks: 80,
  atime: 96,
  btime: 112,
  ctime: 128,
  mtime: 144,
  rdevMajor: 160,
  rdevMinor: 164,
  sizeof: 288,
} as const;
/**
 * struct fuse_uring_req_header: a request over io_uring without what has a variable length. `inOut` is the header of the
 * request, then that of the reply, `opIn` the struct of the operation; of struct fuse_uring_ent_in_out are `commitId`, to
 * be named with the reply, and `payloadSize`, the bytes of names and data in the payload, then of the reply's body.
 */
export const uringHeader = { inOut: 0, opIn: 128, commitId: 264, payloadSize: 272, sizeof: 288 } as const;
/** Commands of FUSE over io_uring (enum fuse_uring_cmd). */
export const FUSE_IO_URING_CMD = { REGISTER: 1, COMMIT_AND_FETCH: 2 } as const;
/** Longest struct of an operation over io_uring. */
const opInBytesMax = 128;
/** STATX_BASIC_STATS | STATX_BTIME: what a STATX reply fills in. */
export const statxMask = 0xfff;

/** Unit of st_blksize and statfs in bytes. */
const blockBytes = 4096;

/** What follows the struct of a request. */
const enum Tail {
  none,
  /** A directory entry's name. */
  name,
  /** Two of them. */
  names,
  /** A name and the target of a symbolic link. */
  nameTarget,
  /** An extended attribute's name. */
  attribute,
  /** An extended attribute's name and value. */
  attributeValue,
  /** As many bytes as the struct says. */
  data,
  /** Not looked at. */
  ignored,
}

/** Per opcode: size of the struct * 8 + {@linkcode Tail}, -1 for an unknown opcode. */
const shapes = new Int16Array(64).fill(-1);
for (
  const [opcode, size, tail] of [
    [FUSE.LOOKUP, 0, Tail.name],
    [FUSE.FORGET, 8, Tail.none],
    [FUSE.GETATTR, 16, Tail.none],
    [FUSE.SETATTR, setattrIn.sizeof, Tail.none],
    [FUSE.READLINK, 0, Tail.none],
    [FUSE.SYMLINK, 0, Tail.nameTarget],
    [FUSE.MKNOD, mknodIn.sizeof, Tail.name],
    [FUSE.MKDIR, mkdirIn.sizeof, Tail.name],
    [FUSE.UNLINK, 0, Tail.name],
    [FUSE.RMDIR, 0, Tail.name],
    [FUSE.RENAME, rename2In.sizeofRename, Tail.names],
    [FUSE.LINK, linkIn.sizeof, Tail.name],
    [FUSE.OPEN, openIn.sizeof, Tail.none],
    [FUSE.READ, readIn.sizeof, Tail.none],
    [FUSE.WRITE, readIn.sizeof, Tail.data],
    [FUSE.STATFS, 0, Tail.none],
    [FUSE.RELEASE, releaseIn.sizeof, Tail.none],
    [FUSE.FSYNC, 16, Tail.none],
    [FUSE.SETXATTR, setxattrIn.sizeof, Tail.attributeValue],
    [FUSE.GETXATTR, getxattrIn.sizeof, Tail.attribute],
    [FUSE.LISTXATTR, getxattrIn.sizeof, Tail.none],
    [FUSE.REMOVEXATTR, 0, Tail.attribute],
    [FUSE.FLUSH, flushIn.sizeof, Tail.none],
    [FUSE.INIT, initIn.sizeofCompat, Tail.ignored],
    [FUSE.OPENDIR, openIn.sizeof, Tail.none],
    [FUSE.READDIR, readIn.sizeof, Tail.none],
    [FUSE.RELEASEDIR, releaseIn.sizeof, Tail.none],
    [FUSE.FSYNCDIR, 16, Tail.none],
    [FUSE.GETLK, lkIn.sizeof, Tail.none],
    [FUSE.SETLK, lkIn.sizeof, Tail.none],
    [FUSE.SETLKW, lkIn.sizeof, Tail.none],
    [FUSE.ACCESS, 8, Tail.none],
    [FUSE.CREATE, createIn.sizeof, Tail.name],
    [FUSE.INTERRUPT, 8, Tail.none],
    [FUSE.BMAP, 16, Tail.none],
    [FUSE.DESTROY, 0, Tail.none],
    [FUSE.IOCTL, ioctlIn.sizeof, Tail.data],
    [FUSE.POLL, 24, Tail.none],
    [FUSE.NOTIFY_REPLY, 40, Tail.ignored],
    [FUSE.BATCH_FORGET, 8, Tail.ignored],
    [FUSE.FALLOCATE, fallocateIn.sizeof, Tail.none],
    [FUSE.READDIRPLUS, readIn.sizeof, Tail.none],
    [FUSE.RENAME2, rename2In.sizeof, Tail.names],
    [FUSE.LSEEK, lseekIn.sizeof, Tail.none],
    [FUSE.COPY_FILE_RANGE, copyFileRangeIn.sizeof, Tail.none],
    [FUSE.SYNCFS, 8, Tail.none],
    [FUSE.TMPFILE, createIn.sizeof, Tail.ignored],
    [FUSE.STATX, 24, Tail.none],
    [FUSE.COPY_FILE_RANGE_64, copyFileRangeIn.sizeof, Tail.none],
  ]
) shapes[opcode] = size * 8 + tail;

const noBytes = new Uint8Array(0);
const noGroups: readonly number[] = [];

/**
 * Where a request and its reply lie in a buffer of `fuseBufferBytes`: the data of a WRITE and of a READ reply both start
 * at the page boundary `fuseDataAt`. The reply overlays the request, so nothing of the request may be read once
 * encoding of the reply has begun.
 */
export const fuseDataAt = 4096;
/** Offset at which a request is read into its buffer. */
export const fuseRequestAt = fuseDataAt - inHeader.sizeof - readIn.sizeof;
/** Offset at which the reply's header is written. */
export const fuseReplyAt = fuseDataAt - outHeader.sizeof;
/** Bytes of a buffer for one request and its reply; the kernel refuses to fill one that could not hold a full WRITE. */
export const fuseBufferBytes = fuseDataAt + maxWriteBytes;

/**
 * One request in its buffer, and the place for its reply. Reused: {@linkcode decode} sets every field anew. Views
 * (`name`, `data`) point into the buffer and are valid until the reply is encoded.
 */
export class FuseRequest {
  /** The buffer's numbers. */
  readonly view: DataView;
  opcode = 0;
  /** Identity of the request; two halves to echo, and one number to compare (exact below 2^53). */
  uniqueLow = 0;
  uniqueHigh = 0;
  unique = 0;
  nodeid = 0;
  uid = 0;
  gid = 0;
  pid = 0;
  /** Offset of the request's struct in the buffer. */
  args = 0;
  /** Bytes from `args` to the end of the request, or of the struct where the rest lies elsewhere. */
  argsBytes = 0;
  /** First name, or the extended attribute's name. */
  name: Uint8Array = noBytes;
  /** Second name, or the target of a symbolic link. */
  newName: Uint8Array = noBytes;
  /** Data of a WRITE, value of a SETXATTR, argument of an IOCTL. */
  data: Uint8Array = noBytes;
  /** Supplementary groups that the kernel found relevant. */
  groups: readonly number[] = noGroups;
  /** errno of {@linkcode decode}. */
  error = 0;
  /** Handle made for this request, 0 for none: given back when the reply cannot be delivered. */
  handle = 0;

  /** `bytes` is the request's own; see {@linkcode fuseBufferBytes} for the sizes and offsets a device uses. */
  constructor(
    readonly bytes: Uint8Array,
    readonly requestAt: number = fuseRequestAt,
    readonly replyAt: number = fuseReplyAt,
    /** Offset of the reply's body. */
    readonly bodyAt: number = replyAt + outHeader.sizeof,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Most bytes of a reply's body. */
  get bodyBytes(): number {
    return this.bytes.length - this.bodyAt;
  }

  /**
   * Takes a request of `length` bytes that lies at `requestAt`. False when there is not even a header to answer to;
   * otherwise `error` is 0 or the errno to answer with: EIO for lengths that contradict each other, EINVAL for a
   * malformed name, ENOSYS for an unknown opcode.
   */
  decode(length: number): boolean {
    const at = this.requestAt;
    if (length < inHeader.sizeof || length > this.bytes.length - at) return false;
    this.#decodeHeader();
    this.args = at + inHeader.sizeof;
    this.argsBytes = length - inHeader.sizeof;
    this.error = this.view.getUint32(at, true) === length ? this.#decodeArgs(-1, 0) : E.IO;
    return true;
  }

  /**
   * As {@linkcode decode} for a request over io_uring: `requestAt` is a {@linkcode uringHeader}, and what follows the
   * struct is in the place of the reply's body, as many bytes as the header says.
   */
  decodeUring(): void {
    const { view, requestAt: at } = this;
    const payloadBytes = view.getUint32(at + uringHeader.payloadSize, true);
    this.#decodeHeader();
    this.args = at + uringHeader.opIn;
    this.argsBytes = view.getUint32(at, true) - inHeader.sizeof - payloadBytes;
    const fits = this.argsBytes >= 0 && this.argsBytes <= opInBytesMax && payloadBytes <= this.bodyBytes;
    this.error = fits ? this.#decodeArgs(this.bodyAt, this.bodyAt + payloadBytes) : E.IO;
  }

  #decodeHeader(): void {
    const { view, requestAt: at } = this;
    this.opcode = view.getUint32(at + inHeader.opcode, true);
    this.uniqueLow = view.getUint32(at + inHeader.unique, true);
    this.uniqueHigh = view.getUint32(at + inHeader.unique + 4, true);
    this.unique = this.uniqueHigh * 4294967296 + this.uniqueLow;
    this.nodeid = view.getUint32(at + inHeader.nodeid + 4, true) * 4294967296 +
      view.getUint32(at + inHeader.nodeid, true);
    this.uid = view.getUint32(at + inHeader.uid, true);
    this.gid = view.getUint32(at + inHeader.gid, true);
    this.pid = view.getUint32(at + inHeader.pid, true);
    this.name = this.newName = this.data = noBytes;
    this.groups = noGroups;
    this.handle = 0;
  }

  /** A copy with a small buffer of its own, for a request that may wait long and has no data. */
  detach(): FuseRequest {
    const length = inHeader.sizeof + this.argsBytes;
    const bytes = new Uint8Array(length + outHeader.sizeof);
    bytes.set(this.bytes.subarray(this.requestAt, this.requestAt + length));
    const copy = new FuseRequest(bytes, 0, length);
    copy.decode(length);
    return copy;
  }

  /** What follows the struct is at [tailAt, tailEnd); `tailAt` < 0: behind it. */
  #decodeArgs(tailAt: number, tailEnd: number): number {
    const shape = this.opcode < shapes.length ? shapes[this.opcode] : -1;
    if (shape < 0) return E.NOSYS;
    const structBytes = shape >> 3, tail = shape & 7;
    if (this.argsBytes < structBytes) return E.IO;
    if (this.nodeid > Number.MAX_SAFE_INTEGER) return E.STALE;
    if (tail === Tail.none) return 0;
    const start = tailAt < 0 ? this.args + structBytes : tailAt;
    let end = tailAt < 0 ? this.args + this.argsBytes : tailEnd;
    const extensionBytes = this.view.getUint16(this.requestAt + inHeader.totalExtlen, true) * 8;
    if (extensionBytes > 0) {
      if (extensionBytes > end - start) return E.IO;
      end -= extensionBytes;
      const errno = this.#decodeExtensions(end, end + extensionBytes);
      if (errno !== 0) return errno;
    }
    return tail === Tail.ignored ? 0 : this.#decodeTail(tail, start, end);
  }

  #decodeTail(tail: Tail, start: number, end: number): number {
    const { bytes } = this;
    if (tail === Tail.data) {
      const size = this.u32(this.opcode === FUSE.IOCTL ? ioctlIn.inSize : readIn.size);
      if (size > end - start) return E.IO;
      this.data = bytes.subarray(start, start + size);
      return 0;
    }
    const nul = findNul(bytes, start, end);
    if (nul < 0 || nul === start) return E.INVAL;
    this.name = bytes.subarray(start, nul);
    if (tail === Tail.attribute) return 0;
    if (tail === Tail.attributeValue) {
      const size = this.u32(setxattrIn.size);
      if (size !== end - nul - 1) return E.INVAL;
      this.data = bytes.subarray(nul + 1, end);
      return 0;
    }
    const errno = checkName(this.name);
    if (errno !== 0 || tail === Tail.name) return errno;
    const second = findNul(bytes, nul + 1, end);
    if (second < 0 || second === nul + 1) return E.INVAL;
    this.newName = bytes.subarray(nul + 1, second);
    if (tail === Tail.names) return checkName(this.newName);
    return this.newName.length > targetMax ? E.NAMETOOLONG : 0;
  }

  /** struct fuse_ext_header {size, type} each, `size` counting the header and a multiple of 8. */
  #decodeExtensions(start: number, end: number): number {
    const { view } = this;
    for (let at = start; at < end;) {
      const size = view.getUint32(at, true);
      if (size < 8 || size % 8 !== 0 || size > end - at) return E.IO;
      if (view.getUint32(at + 4, true) === FUSE_EXT_GROUPS) {
        if (size < 16) return E.IO;
        const count = view.getUint32(at + 8, true);
        if (count > (size - 12) / 4) return E.IO;
        this.groups = Array.from({ length: count }, (_, i) => view.getUint32(at + 12 + i * 4, true));
      }
      at += size;
    }
    return 0;
  }

  /** A u32 of the request's struct. */
  u32(field: number): number {
    return this.view.getUint32(this.args + field, true);
  }

  /** A u64 of the request's struct, as a double. */
  u64(field: number): number {
    const at = this.args + field;
    return this.view.getUint32(at + 4, true) * 4294967296 + this.view.getUint32(at, true);
  }

  /** A u64 of the request's struct, exactly. */
  bigU64(field: number): bigint {
    return this.view.getBigUint64(this.args + field, true);
  }

  /** Signed seconds and unsigned nanoseconds of the request's struct. */
  time(secField: number, nsecField: number): Time {
    const at = this.args + secField;
    const sec = this.view.getInt32(at + 4, true) * 4294967296 + this.view.getUint32(at, true);
    const inRange = Math.max(Number.MIN_SAFE_INTEGER, Math.min(sec, Number.MAX_SAFE_INTEGER));
    return { sec: inRange, nsec: Math.min(this.u32(nsecField), 999_999_999) };
  }

  /** Ends a reply whose body has `bodyBytes` bytes: writes the header and returns the reply's length. */
  finish(bodyBytes: number): number {
    return this.#header(outHeader.sizeof + bodyBytes, 0);
  }

  /** Makes the reply an error and returns its length. */
  fail(errno: number): number {
    // The kernel takes -511..0 and would drop the reply, and hang the caller, for anything else.
    return this.#header(outHeader.sizeof, errno > 0 && errno < 512 ? -errno : -E.IO);
  }

  #header(length: number, error: number): number {
    const { view, replyAt } = this;
    view.setUint32(replyAt + outHeader.len, length, true);
    view.setInt32(replyAt + outHeader.error, error, true);
    view.setUint32(replyAt + outHeader.unique, this.uniqueLow, true);
    view.setUint32(replyAt + outHeader.unique + 4, this.uniqueHigh, true);
    return length;
  }

  /** A reply of `body` bytes. */
  reply(body: Uint8Array): number {
    if (body.length > this.bodyBytes) return this.fail(E.IO);
    this.bytes.set(body, this.bodyAt);
    return this.finish(body.length);
  }
}

/** Offset of the first NUL in [start, end), -1 without one. */
function findNul(bytes: Uint8Array, start: number, end: number): number {
  for (let at = start; at < end; at++) if (bytes[at] === 0) return at;
  return -1;
}

/** errno for a name that cannot be one of a directory entry. */
function checkName(name: Uint8Array): number {
  if (name.length > nameMax) return E.NAMETOOLONG;
  return name.includes(0x2f) ? E.INVAL : 0;
}

/** True for the name ".". */
export function isDot(name: Uint8Array): boolean {
  return name.length === 1 && name[0] === 0x2e;
}

/** True for the name "..". */
export function isDotDot(name: Uint8Array): boolean {
  return name.length === 2 && name[0] === 0x2e && name[1] === 0x2e;
}

/** Writes a whole number 0..2^53 as a u64. */
export function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 4294967296, true);
  view.setUint32(at + 4, Math.floor(value / 4294967296), true);
}

/** Writes a signed whole number as an i64. */
function setI64(view: DataView, at: number, value: number): void {
  const high = Math.floor(value / 4294967296);
  view.setUint32(at, value - high * 4294967296, true);
  view.setInt32(at + 4, high, true);
}

/** struct fuse_attr at `at`; `node` is the number that stat(2) shows. */
export function encodeAttr(view: DataView, at: number, node: number, a: Attributes): void {
  setU64(view, at + attr.ino, node);
  setU64(view, at + attr.size, a.size);
  setU64(view, at + attr.blocks, a.blocks);
  setI64(view, at + attr.atime, a.atime.sec);
  setI64(view, at + attr.mtime, a.mtime.sec);
  setI64(view, at + attr.ctime, a.ctime.sec);
  view.setUint32(at + attr.atimensec, a.atime.nsec, true);
  view.setUint32(at + attr.mtimensec, a.mtime.nsec, true);
  view.setUint32(at + attr.ctimensec, a.ctime.nsec, true);
  view.setUint32(at + attr.mode, a.mode, true);
  view.setUint32(at + attr.nlink, a.nlink, true);
  view.setUint32(at + attr.uid, a.uid, true);
  view.setUint32(at + attr.gid, a.gid, true);
  view.setUint32(at + attr.rdev, a.rdev, true);
  view.setUint32(at + attr.blksize, blockBytes, true);
  view.setUint32(at + attr.flags, 0, true);
}

/** How long the kernel may use what it is told without asking again, in milliseconds; 0: not at all. */
export interface Validity {
  nameMs: number;
  attributesMs: number;
}

/** Of what may not be kept. */
export const noValidity: Validity = { nameMs: 0, attributesMs: 0 };

function setValid(view: DataView, seconds: number, nanoseconds: number, ms: number): void {
  setU64(view, seconds, Math.floor(ms / 1000));
  view.setUint32(nanoseconds, Math.floor(ms % 1000 * 1e6), true);
}

/** struct fuse_entry_out at `at`. Inode numbers are never reused, so the generation is constant. */
export function encodeEntry(view: DataView, at: number, node: number, a: Attributes, valid: Validity): void {
  setU64(view, at + entryOut.nodeid, node);
  setU64(view, at + entryOut.generation, 1);
  setValid(view, at + entryOut.entryValid, at + entryOut.entryValidNsec, valid.nameMs);
  setValid(view, at + entryOut.attrValid, at + entryOut.attrValidNsec, valid.attributesMs);
  encodeAttr(view, at + entryOut.attr, node, a);
}

/** struct fuse_entry_out at `at` for a name that is absent: the kernel may keep that, too. */
export function encodeAbsent(view: DataView, at: number, nameMs: number): void {
  for (let i = 0; i < entryOut.sizeof; i += 4) view.setUint32(at + i, 0, true);
  setValid(view, at + entryOut.entryValid, at + entryOut.entryValidNsec, nameMs);
}

/** struct fuse_attr_out at `at`. */
export function encodeAttrOut(view: DataView, at: number, node: number, a: Attributes, validMs: number): void {
  setU64(view, at + attrOut.attrValidNsec, 0);
  setValid(view, at + attrOut.attrValid, at + attrOut.attrValidNsec, validMs);
  encodeAttr(view, at + attrOut.attr, node, a);
}

/** Notification codes: `error` of their header, whose `unique` is 0. */
const NOTIFY = { INVAL_INODE: 2, INVAL_ENTRY: 3 } as const;
const FUSE_EXPIRE_ONLY = 1;

function notification(code: number, bodyBytes: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(outHeader.sizeof + bodyBytes), view = new DataView(bytes.buffer);
  view.setUint32(outHeader.len, bytes.length, true);
  view.setInt32(outHeader.error, code, true);
  return { bytes, view };
}

/** FUSE_NOTIFY_INVAL_INODE: the attributes of a node are void; its pages are looked at when they are used. */
export function encodeInvalInode(node: number): Uint8Array {
  const { bytes, view } = notification(NOTIFY.INVAL_INODE, 24);
  setU64(view, outHeader.sizeof, node);
  setI64(view, outHeader.sizeof + 8, -1);
  return bytes;
}

/** FUSE_NOTIFY_INVAL_ENTRY with FUSE_EXPIRE_ONLY: a name is asked for again before it is used. */
export function encodeInvalEntry(parent: number, name: Uint8Array): Uint8Array {
  const { bytes, view } = notification(NOTIFY.INVAL_ENTRY, 16 + name.length + 1);
  setU64(view, outHeader.sizeof, parent);
  view.setUint32(outHeader.sizeof + 8, name.length, true);
  view.setUint32(outHeader.sizeof + 12, FUSE_EXPIRE_ONLY, true);
  bytes.set(name, outHeader.sizeof + 16);
  return bytes;
}

/** struct fuse_open_out at `at`. */
export function encodeOpen(view: DataView, at: number, fh: number, openFlags: number): void {
  setU64(view, at + openOut.fh, fh);
  setU64(view, at + openOut.openFlags, openFlags);
}

/** struct fuse_statfs_out at `at`. */
export function encodeStatfs(view: DataView, at: number, totals: Totals): void {
  const blocks = (bytes: number) => Math.max(0, Math.floor(bytes / blockBytes));
  setU64(view, at + statfsOut.blocks, blocks(totals.sizeBytes));
  setU64(view, at + statfsOut.bfree, blocks(totals.sizeBytes - totals.usedBytes));
  setU64(view, at + statfsOut.bavail, blocks(totals.availableBytes));
  // statfs(2) wants all of them, not those in use: df subtracts.
  setU64(view, at + statfsOut.files, totals.inodes + totals.inodesFree);
  setU64(view, at + statfsOut.ffree, totals.inodesFree);
  view.setUint32(at + statfsOut.bsize, blockBytes, true);
  view.setUint32(at + statfsOut.namelen, nameMax, true);
  view.setUint32(at + statfsOut.frsize, blockBytes, true);
  for (let i = statfsOut.frsize + 4; i < statfsOut.sizeof; i += 4) view.setUint32(at + i, 0, true);
}

/** struct fuse_statx_out at `at`. `rdev` is split as new_decode_dev does. */
export function encodeStatx(view: DataView, at: number, node: number, a: Attributes, validMs: number): void {
  for (let i = 0; i < statxOut.sizeof; i += 4) view.setUint32(at + i, 0, true);
  setValid(view, at + statxOut.attrValid, at + statxOut.attrValidNsec, validMs);
  view.setUint32(at + statxOut.mask, statxMask, true);
  view.setUint32(at + statxOut.blksize, blockBytes, true);
  view.setUint32(at + statxOut.nlink, a.nlink, true);
  view.setUint32(at + statxOut.uid, a.uid, true);
  view.setUint32(at + statxOut.gid, a.gid, true);
  view.setUint16(at + statxOut.mode, a.mode, true);
  setU64(view, at + statxOut.ino, node);
  setU64(view, at + statxOut.size, a.size);
  setU64(view, at + statxOut.blocks, a.blocks);
  for (
    const [field, time] of [["atime", a.atime], ["btime", a.btime], ["ctime", a.ctime], ["mtime", a.mtime]] as const
  ) {
    setI64(view, at + statxOut[field], time.sec);
    view.setUint32(at + statxOut[field] + 8, time.nsec, true);
  }
  view.setUint32(at + statxOut.rdevMajor, (a.rdev & 0xfff00) >>> 8, true);
  view.setUint32(at + statxOut.rdevMinor, (a.rdev & 0xff) | (a.rdev >>> 12 & 0xfff00), true);
}

/** Bytes of a directory record for a name of `nameBytes` bytes. */
export function direntBytes(nameBytes: number, plus: boolean): number {
  return ((plus ? entryOut.sizeof : 0) + dirent.name + nameBytes + 7) & ~7;
}

/** One record of a READDIR or READDIRPLUS reply. */
export interface Dirent {
  name: Uint8Array;
  /** Number that d_ino shows. */
  node: number;
  type: number;
  cookie: number;
  /** For READDIRPLUS: null tells the kernel to look the name up when it needs it. */
  attributes: Attributes | null;
  valid: Validity;
}

/** Writes one directory record at `at` and returns its length ({@linkcode direntBytes}). */
export function encodeDirent(request: FuseRequest, at: number, entry: Dirent, plus: boolean): number {
  const { view, bytes } = request;
  const length = direntBytes(entry.name.length, plus);
  bytes.fill(0, at, at + length);
  let record = at;
  if (plus) {
    if (entry.attributes !== null) encodeEntry(view, at, entry.node, entry.attributes, entry.valid);
    record += entryOut.sizeof;
  }
  setU64(view, record + dirent.ino, entry.node);
  setU64(view, record + dirent.off, entry.cookie);
  view.setUint32(record + dirent.namelen, entry.name.length, true);
  view.setUint32(record + dirent.type, entry.type, true);
  bytes.set(entry.name, record + dirent.name);
  return length;
}
