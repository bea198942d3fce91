/**
 * The C library, as far as sealfs calls it: system calls, `errno`, and the constants they need.
 *
 * Calls follow the measured FFI rules: 32-bit results, BigInt for 64-bit parameters (a plain number falls off V8's
 * fast path), addresses as `u64`, no nonblocking calls. Everything here blocks its thread and touches raw memory:
 * an address must stay mapped for the whole call. Linux with glibc only.
 *
 * @module
 */

/** Bytes that may be handed to a `buffer` parameter. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** The raw symbols. A result below zero means failure: read {@linkcode errno} before anything else is called. */
export const libc = Deno.dlopen("libc.so.6", {
  // Files.
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  dup: { parameters: ["i32"], result: "i32" },
  read: { parameters: ["i32", "u64", "u64"], result: "i32" },
  write: { parameters: ["i32", "u64", "u64"], result: "i32" },
  readv: { parameters: ["i32", "u64", "i32"], result: "i32" },
  writev: { parameters: ["i32", "u64", "i32"], result: "i32" },
  pread64: { parameters: ["i32", "u64", "u64", "i64"], result: "i32" },
  pwrite64: { parameters: ["i32", "u64", "u64", "i64"], result: "i32" },
  readBuffer: { name: "read", parameters: ["i32", "buffer", "u64"], result: "i32" },
  writeBuffer: { name: "write", parameters: ["i32", "buffer", "u64"], result: "i32" },
  preadBuffer: { name: "pread64", parameters: ["i32", "buffer", "u64", "i64"], result: "i32" },
  pwriteBuffer: { name: "pwrite64", parameters: ["i32", "buffer", "u64", "i64"], result: "i32" },
  lseek64: { parameters: ["i32", "i64", "i32"], result: "i64" },
  fallocate64: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  ftruncate64: { parameters: ["i32", "i64"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  fdatasync: { parameters: ["i32"], result: "i32" },
  sync_file_range: { parameters: ["i32", "i64", "i64", "u32"], result: "i32" },
  posix_fadvise64: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  statfs64: { parameters: ["buffer", "buffer"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctlAddress: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  // Mounts.
  mount: { parameters: ["buffer", "buffer", "buffer", "u64", "buffer"], result: "i32" },
  umount2: { parameters: ["buffer", "i32"], result: "i32" },
  // Memory.
  mmap: { parameters: ["u64", "u64", "i32", "i32", "i32", "i64"], result: "pointer" },
  munmap: { parameters: ["u64", "u64"], result: "i32" },
  madvise: { parameters: ["u64", "u64", "i32"], result: "i32" },
  msync: { parameters: ["u64", "u64", "i32"], result: "i32" },
  // Sockets.
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  accept4: { parameters: ["i32", "pointer", "pointer", "i32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  recv: { parameters: ["i32", "u64", "u64", "i32"], result: "i32" },
  send: { parameters: ["i32", "u64", "u64", "i32"], result: "i32" },
  sendBuffer: { name: "send", parameters: ["i32", "buffer", "u64", "i32"], result: "i32" },
  sendmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  recvmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  // Threads, processes, clocks, randomness.
  getpid: { parameters: [], result: "i32" },
  gettid: { parameters: [], result: "i32" },
  kill: { parameters: ["i32", "i32"], result: "i32" },
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  sched_setaffinity: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  sched_getaffinity: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  clock_gettime: { parameters: ["i32", "u64"], result: "i32" },
  getrandom: { parameters: ["buffer", "u64", "u32"], result: "i32" },
  // io_uring has no wrappers in the C library.
  ioUringSetup: { name: "syscall", parameters: ["i32", "u32", "buffer"], result: "i32" },
  ioUringEnter: { name: "syscall", parameters: ["i32", "i32", "u32", "u32", "u32", "u64", "u64"], result: "i32" },
  ioUringRegister: { name: "syscall", parameters: ["i32", "i32", "u32", "u64", "u32"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
}).symbols;

// `errno` is a variable of each thread and every Worker loads its own copy of this module, so one view does.
const errnoView = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(libc.__errno_location()!, 4));

/**
 * Why the last failed call of this thread failed: a positive number. The runtime's own system calls (its collection of
 * garbage) may come in between and leave another: whoever acts on it must bear a wrong one, by trying again.
 */
export function errno(): number {
  return errnoView[0];
}

/** `result` itself when it is not negative, otherwise minus errno: `const n = checked(libc.read(...))`. */
export function checked(result: number): number {
  return result < 0 ? -errnoView[0] : result;
}

const encoder = new TextEncoder();

/** `text` in UTF-8 with a terminating zero, for `buffer` parameters that take a C string. */
export function cstr(text: string): Bytes {
  return encoder.encode(text + "\0");
}

// Numbers 1 to 133 of include/uapi/asm-generic/errno*.h in order; "?" has no name.
const errnoNames = ("EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT " +
  "ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS " +
  "EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ? ENOMSG EIDRM ECHRNG EL2NSYNC " +
  "EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT ? EBFONT ENOSTR ENODATA " +
  "ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ " +
  "EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ " +
  "EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE " +
  "EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN " +
  "ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL " +
  "EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD " +
  "ENOTRECOVERABLE ERFKILL EHWPOISON").split(" ");

/** "ENOSPC" for 28 or -28; "errno 4095" for a number without a name. For messages to people. */
export function errnoText(number: number): string {
  const name = errnoNames[Math.abs(number) - 1];
  return name === undefined || name === "?" ? `errno ${Math.abs(number)}` : name;
}

/** An Error that says what failed, on what, and why: `throw systemError("open", path)` right after the call. */
export function systemError(what: string, on: string, number: number = errno()): Error {
  return new Error(`cannot ${what} ${on}: ${errnoText(number)}`);
}

/** Closes a descriptor; a failure means it was not open, which is a bug. */
export function closeFd(fd: number): void {
  if (libc.close(fd) < 0 && errno() === 9) throw new Error(`closed descriptor ${fd} twice`);
}

/** Lets the calling thread run on the given processors only; 0 or minus errno. */
export function pinThread(processors: readonly number[]): number {
  const mask = new Uint8Array(128);
  for (const cpu of processors) mask[cpu >> 3] |= 1 << (cpu & 7);
  return checked(libc.sched_setaffinity(0, 128n, mask));
}

/** open(2) flags. */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  DIRECT: 0o40000,
  DIRECTORY: 0o200000,
  NOFOLLOW: 0o400000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
} as const;

/** fallocate(2) modes. */
export const FALLOC = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 16 } as const;

/** flock(2) operations. */
export const LOCK = { SH: 1, EX: 2, NB: 4, UN: 8 } as const;

/** fcntl(2) commands. */
export const F = { GETFD: 1, SETFD: 2, GETFL: 3, SETFL: 4, DUPFD_CLOEXEC: 1030 } as const;

/** sync_file_range(2) flags. */
export const SYNC_FILE_RANGE = { WAIT_BEFORE: 1, WRITE: 2, WAIT_AFTER: 4 } as const;

/** mount(2) and umount2(2) flags. */
export const MS = { RDONLY: 1, NOSUID: 2, NODEV: 4, NOEXEC: 8, REMOUNT: 32, NOATIME: 1024 } as const;
/** umount2(2) flags. */
export const MNT = { FORCE: 1, DETACH: 2 } as const;

/** poll(2) events. */
export const POLL = { IN: 1, OUT: 4, ERR: 8, HUP: 16, RDHUP: 0x2000 } as const;

/** mmap(2) protections, kinds and advice. */
export const MAP = { SHARED: 1, PRIVATE: 2, ANONYMOUS: 0x20, POPULATE: 0x8000, NORESERVE: 0x4000 } as const;
/** mmap(2) protections. */
export const PROT = { READ: 1, WRITE: 2 } as const;
/** madvise(2) advice. */
export const MADV = { DONTNEED: 4, DONTFORK: 10, HUGEPAGE: 14, NOHUGEPAGE: 15 } as const;

/**
 * Maps memory and returns its address with a view of all of it. Throws a systemError naming `what`.
 * `fd` is -1 for anonymous memory.
 */
export function mapMemory(
  what: string,
  request: { sizeBytes: number; flags: number; fd: number; offset: number },
): { address: number; buffer: ArrayBuffer } {
  const { sizeBytes, flags, fd, offset } = request;
  const pointer = libc.mmap(0n, BigInt(sizeBytes), PROT.READ | PROT.WRITE, flags, fd, BigInt(offset));
  const address = Number(Deno.UnsafePointer.value(pointer));
  // MAP_FAILED is all ones; as a double it is 2^64.
  if (pointer === null || address >= 2 ** 63 || address < 0) throw systemError("map", what);
  return { address, buffer: Deno.UnsafePointerView.getArrayBuffer(pointer, sizeBytes) };
}
