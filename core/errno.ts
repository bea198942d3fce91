/**
 * POSIX error numbers (Linux x86-64 and arm64 values, include/uapi/asm-generic/errno*.h) and the result convention
 * of core: an operation returns a value or a positive errno, never throws for a user's mistake.
 *
 * @module
 */

/** Errno values by name. */
export const E = {
  PERM: 1,
  NOENT: 2,
  INTR: 4,
  IO: 5,
  NXIO: 6,
  "2BIG": 7,
  BADF: 9,
  AGAIN: 11,
  NOMEM: 12,
  ACCES: 13,
  BUSY: 16,
  EXIST: 17,
  XDEV: 18,
  NODEV: 19,
  NOTDIR: 20,
  ISDIR: 21,
  INVAL: 22,
  NFILE: 23,
  NOTTY: 25,
  TXTBSY: 26,
  FBIG: 27,
  NOSPC: 28,
  ROFS: 30,
  MLINK: 31,
  RANGE: 34,
  DEADLK: 35,
  NAMETOOLONG: 36,
  NOLCK: 37,
  NOSYS: 38,
  NOTEMPTY: 39,
  LOOP: 40,
  NODATA: 61,
  PROTO: 71,
  OVERFLOW: 75,
  OPNOTSUPP: 95,
  TIMEDOUT: 110,
  STALE: 116,
  CANCELED: 125,
} as const;

/** A value, or a positive errno. Test with {@linkcode failed}. */
export type Result<T extends object> = T | number;

/** True when `result` is an errno: narrows the type. */
export function failed<T extends object>(result: Result<T>): result is number {
  return typeof result === "number";
}

const names = new Map<number, string>(Object.entries(E).map(([name, value]) => [value, "E" + name]));

/** "ENOENT" for 2, "errno 77" for one without a name here. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `errno ${errno}`;
}
