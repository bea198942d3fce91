/**
 * Numbers of Linux on x86-64 that the cases use: system calls (arch/x86/entry/syscalls/syscall_64.tbl), flags and
 * limits (include/uapi/linux, asm-generic).
 *
 * @module
 */

/** System calls. */
export const SYS = {
  read: 0,
  write: 1,
  close: 3,
  fstat: 5,
  lseek: 8,
  mmap: 9,
  mprotect: 10,
  munmap: 11,
  ioctl: 16,
  pread64: 17,
  pwrite64: 18,
  readv: 19,
  writev: 20,
  access: 21,
  mremap: 25,
  msync: 26,
  dup: 32,
  sendfile: 40,
  fcntl: 72,
  flock: 73,
  fsync: 74,
  fdatasync: 75,
  truncate: 76,
  ftruncate: 77,
  getcwd: 79,
  chdir: 80,
  fchdir: 81,
  rename: 82,
  mkdir: 83,
  rmdir: 84,
  creat: 85,
  link: 86,
  unlink: 87,
  symlink: 88,
  readlink: 89,
  chmod: 90,
  fchmod: 91,
  chown: 92,
  fchown: 93,
  lchown: 94,
  mknod: 133,
  statfs: 137,
  fstatfs: 138,
  sync: 162,
  setxattr: 188,
  lsetxattr: 189,
  fsetxattr: 190,
  getxattr: 191,
  lgetxattr: 192,
  fgetxattr: 193,
  listxattr: 194,
  llistxattr: 195,
  flistxattr: 196,
  removexattr: 197,
  lremovexattr: 198,
  fremovexattr: 199,
  getdents64: 217,
  readahead: 187,
  fadvise64: 221,
  openat: 257,
  mkdirat: 258,
  mknodat: 259,
  fchownat: 260,
  newfstatat: 262,
  unlinkat: 263,
  renameat: 264,
  linkat: 265,
  symlinkat: 266,
  readlinkat: 267,
  fchmodat: 268,
  faccessat: 269,
  splice: 275,
  sync_file_range: 277,
  utimensat: 280,
  fallocate: 285,
  preadv: 295,
  pwritev: 296,
  prlimit64: 302,
  name_to_handle_at: 303,
  open_by_handle_at: 304,
  syncfs: 306,
  renameat2: 316,
  memfd_create: 319,
  copy_file_range: 326,
  preadv2: 327,
  pwritev2: 328,
  statx: 332,
  openat2: 437,
  fchmodat2: 452,
  faccessat2: 439,
} as const;

/** open(2). */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  DIRECT: 0o40000,
  DIRECTORY: 0o200000,
  NOFOLLOW: 0o400000,
  NOATIME: 0o1000000,
  CLOEXEC: 0o2000000,
  SYNC: 0o4010000,
  PATH: 0o10000000,
  TMPFILE: 0o20200000,
} as const;

/** Type and permission bits of a mode. */
export const S = {
  IFMT: 0o170000,
  IFSOCK: 0o140000,
  IFLNK: 0o120000,
  IFREG: 0o100000,
  IFBLK: 0o060000,
  IFDIR: 0o040000,
  IFCHR: 0o020000,
  IFIFO: 0o010000,
  ISUID: 0o4000,
  ISGID: 0o2000,
  ISVTX: 0o1000,
} as const;

/** Types of directory entries. */
export const DT = { FIFO: 1, CHR: 2, DIR: 4, BLK: 6, REG: 8, LNK: 10, SOCK: 12 } as const;

/** *at(2) calls. */
export const AT = {
  FDCWD: -100,
  SYMLINK_NOFOLLOW: 0x100,
  REMOVEDIR: 0x200,
  EACCESS: 0x200,
  SYMLINK_FOLLOW: 0x400,
  EMPTY_PATH: 0x1000,
} as const;

/** lseek(2). */
export const SEEK = { SET: 0, CUR: 1, END: 2, DATA: 3, HOLE: 4 } as const;
/** renameat2(2). */
export const RENAME = { NOREPLACE: 1, EXCHANGE: 2, WHITEOUT: 4 } as const;
/** fallocate(2). */
export const FALLOC = {
  KEEP_SIZE: 1,
  PUNCH_HOLE: 2,
  COLLAPSE_RANGE: 8,
  ZERO_RANGE: 16,
  INSERT_RANGE: 32,
  UNSHARE_RANGE: 64,
} as const;
/** flock(2). */
export const LOCK = { SH: 1, EX: 2, NB: 4, UN: 8 } as const;
/** Commands of fcntl(2), and types of its locks. */
export const F = {
  DUPFD: 0,
  GETFD: 1,
  SETFD: 2,
  GETFL: 3,
  SETFL: 4,
  GETLK: 5,
  SETLK: 6,
  SETLKW: 7,
  OFD_GETLK: 36,
  OFD_SETLK: 37,
  OFD_SETLKW: 38,
  RDLCK: 0,
  WRLCK: 1,
  UNLCK: 2,
  ADD_SEALS: 1033,
} as const;
/** setxattr(2). */
export const XATTR = { CREATE: 1, REPLACE: 2 } as const;
/** access(2). */
export const ACCESS = { F: 0, X: 1, W: 2, R: 4 } as const;
/** mmap(2). */
export const PROT = { NONE: 0, READ: 1, WRITE: 2, EXEC: 4 } as const;
/** mmap(2). */
export const MAP = { SHARED: 1, PRIVATE: 2, SHARED_VALIDATE: 3, FIXED: 16, SYNC: 0x80000 } as const;
/** msync(2). */
export const MS = { ASYNC: 1, INVALIDATE: 2, SYNC: 4 } as const;
/** utimensat(2). */
export const UTIME = { NOW: 0x3fffffff, OMIT: 0x3ffffffe } as const;
/** statx(2). */
export const STATX = { BASIC: 0x7ff, BTIME: 0x800, ALL: 0xfff, MNT_ID: 0x1000, DIOALIGN: 0x2000 } as const;
/** AT_STATX_*. */
export const STATX_SYNC = { AS_STAT: 0, FORCE: 0x2000, DONT: 0x4000 } as const;
/** preadv2(2), pwritev2(2). */
export const RWF = { HIPRI: 1, DSYNC: 2, SYNC: 4, NOWAIT: 8, APPEND: 16 } as const;
/** openat2(2). */
export const RESOLVE = { NO_XDEV: 1, NO_MAGICLINKS: 2, NO_SYMLINKS: 4, BENEATH: 8, IN_ROOT: 16 } as const;

/** Longest name, and longest path without its NUL, in bytes. */
export const nameMax = 255;
/** See {@linkcode nameMax}. */
export const pathMax = 4095;
/** Symbolic links that one path may lead through. */
export const linksMax = 40;

/** Resource of prlimit64(2): the largest file. */
export const RLIMIT_FSIZE = 1;
