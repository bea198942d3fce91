/**
 * The library's errors: the classes, texts and codes that Deno's file API has for the same errno, so that programs catch
 * both alike.
 *
 * @module
 */

import { E, errnoName } from "../../core/errno.ts";
import type { FailureCode, ManagerFailure } from "../manager_client.ts";

/** An error with the name of its errno, as Deno's file API throws it. */
export interface FileError extends Error {
  /** Such as `"ENOENT"`. */
  code: string;
}

/** Texts of strerror(3). */
const texts: Record<number, string> = {
  [E.PERM]: "Operation not permitted",
  [E.NOENT]: "No such file or directory",
  [E.INTR]: "Interrupted system call",
  [E.IO]: "Input/output error",
  [E.NXIO]: "No such device or address",
  [E["2BIG"]]: "Argument list too long",
  [E.BADF]: "Bad file descriptor",
  [E.AGAIN]: "Resource temporarily unavailable",
  [E.NOMEM]: "Cannot allocate memory",
  [E.ACCES]: "Permission denied",
  [E.BUSY]: "Device or resource busy",
  [E.EXIST]: "File exists",
  [E.XDEV]: "Invalid cross-device link",
  [E.NODEV]: "No such device",
  [E.NOTDIR]: "Not a directory",
  [E.ISDIR]: "Is a directory",
  [E.INVAL]: "Invalid argument",
  [E.NFILE]: "Too many open files in system",
  [E.NOTTY]: "Inappropriate ioctl for device",
  [E.TXTBSY]: "Text file busy",
  [E.FBIG]: "File too large",
  [E.NOSPC]: "No space left on device",
  [E.ROFS]: "Read-only file system",
  [E.MLINK]: "Too many links",
  [E.RANGE]: "Numerical result out of range",
  [E.DEADLK]: "Resource deadlock avoided",
  [E.NAMETOOLONG]: "File name too long",
  [E.NOLCK]: "No locks available",
  [E.NOSYS]: "Function not implemented",
  [E.NOTEMPTY]: "Directory not empty",
  [E.LOOP]: "Too many levels of symbolic links",
  [E.NODATA]: "No data available",
  [E.PROTO]: "Protocol error",
  [E.OVERFLOW]: "Value too large for defined data type",
  [E.OPNOTSUPP]: "Operation not supported",
  [E.TIMEDOUT]: "Connection timed out",
  [E.STALE]: "Stale file handle",
};

/** Classes that Deno has for an errno; Error for the rest. */
const classes: Record<number, new (message: string) => Error> = {
  [E.PERM]: Deno.errors.PermissionDenied,
  [E.NOENT]: Deno.errors.NotFound,
  [E.INTR]: Deno.errors.Interrupted,
  [E.AGAIN]: Deno.errors.WouldBlock,
  [E.ACCES]: Deno.errors.PermissionDenied,
  [E.EXIST]: Deno.errors.AlreadyExists,
  [E.NOTDIR]: Deno.errors.NotADirectory,
  [E.ISDIR]: Deno.errors.IsADirectory,
  [E.INVAL]: TypeError,
  [E.LOOP]: Deno.errors.FilesystemLoop,
  [E.TIMEDOUT]: Deno.errors.TimedOut,
};

/** The error of an errno; `what` says the operation and its paths: `open '/a'`. */
export function fileError(errno: number, what: string): FileError {
  const text = `${texts[errno] ?? "Error"} (os error ${errno}): ${what}`;
  return withCode(new (classes[errno] ?? Error)(text), errnoName(errno));
}

/** The error of using something after its close. */
export function closedError(what: string): Error {
  return new Deno.errors.BadResource(`Bad resource ID: ${what} is closed`);
}

const managerClasses: Partial<Record<FailureCode, new (message: string) => Error>> = {
  unauthorized: Deno.errors.PermissionDenied,
  notFound: Deno.errors.NotFound,
  exists: Deno.errors.AlreadyExists,
  invalid: TypeError,
  unreachable: Deno.errors.TimedOut,
  protocol: Deno.errors.InvalidData,
};

/** The error of a manager that refuses or does not answer. */
export function managerError(failure: ManagerFailure): FileError {
  return withCode(new (managerClasses[failure.code] ?? Error)(failure.message), failure.code);
}

function withCode(error: Error, code: string): FileError {
  return Object.assign(error, { code });
}
