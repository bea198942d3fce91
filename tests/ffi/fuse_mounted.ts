/**
 * Mounts for tests: a fresh folder with a file system in memory mounted on it, served by a reactor in a Worker, and the
 * system calls that Deno has no method for.
 *
 * @module
 */

import { cleanDeadMount, isMounted, mountFuse, parseMountOptions, unmount } from "../../ffi/fuse/mount.ts";
import { enableUringPath, uringMissing } from "../../ffi/fuse/uring.ts";
import { cstr, errno, O } from "../../ffi/libc.ts";
import type { Served, ServeOptions } from "./fuse_worker.ts";

/** A served mount. */
export interface Mounted {
  /** The mountpoint. */
  path: string;
  /** Unmounts and tells what the reactor saw. */
  end(): Promise<Served>;
  /** Settles when the mount is gone by other means. */
  served: Promise<Served>;
}

/** How long a reactor may take to end. */
const endMsMax = 10_000;

/** Mounts on `path` with `-o options` and serves it. */
export async function serve(path: string, options: Omit<ServeOptions, "fd"> & { mount?: string }): Promise<Mounted> {
  const { mount, ...rest } = options;
  const worker = new Worker(new URL("./fuse_worker.ts", import.meta.url), { type: "module" });
  const ready = Promise.withResolvers<void>(), served = Promise.withResolvers<Served>();
  worker.onmessage = ({ data }) => data === "ready" ? ready.resolve() : served.resolve(data);
  worker.onerror = (event) => {
    event.preventDefault();
    const error = new Error(`the reactor died: ${event.message}`);
    ready.reject(error);
    served.reject(error);
  };
  served.promise.catch(() => {});
  try {
    const { fd } = mountFuse({ source: "sealfs#test", mountpoint: path, options: parseMountOptions(mount ?? "") });
    worker.postMessage({ fd, ...rest } satisfies ServeOptions);
  } catch (error) {
    worker.terminate();
    throw error;
  }
  await ready.promise;
  const end = async () => {
    unmount(path, { lazy: false });
    const timer = Promise.withResolvers<never>();
    const id = setTimeout(() => timer.reject(new Error("the reactor did not end")), endMsMax);
    try {
      return await Promise.race([served.promise, timer.promise]);
    } finally {
      clearTimeout(id);
    }
  };
  return { path, end, served: served.promise };
}

/** Runs `body` on a mount in a fresh folder; everything is gone afterwards whatever happens. */
export async function withMount<T>(
  options: Omit<ServeOptions, "fd"> & { mount?: string },
  body: (mounted: Mounted) => Promise<T>,
): Promise<T> {
  const path = Deno.makeTempDirSync({ prefix: "sealfs-fuse-" });
  try {
    return await body(await serve(path, options));
  } finally {
    if (isMounted(path)) unmount(path, { lazy: true });
    cleanDeadMount(path);
    Deno.removeSync(path);
  }
}

/** Runs a program; its output. Throws with what it said when it fails. */
export async function run(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr, code } = await new Deno.Command(command, { args }).output();
  const text = new TextDecoder().decode(stdout);
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${code}: ${new TextDecoder().decode(stderr)}${text}`);
  return text;
}

/** Why there is no FUSE over io_uring here, "" when there is. Root switches it on where the kernel has it. */
export function withoutUring(): string {
  if (uringMissing() === "") return "";
  try {
    Deno.writeTextFileSync(enableUringPath, "Y");
  } catch { // Said below.
  }
  return uringMissing();
}

/** True when a program is there. */
export function installed(program: string): boolean {
  try {
    return new Deno.Command("sh", { args: ["-c", `command -v ${program}`], stdout: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

/** System calls of the test itself. They may block: never for what only another call of this thread would end. */
const calls = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  pread64: { parameters: ["i32", "buffer", "u64", "i64"], result: "i64" },
  write: { parameters: ["i32", "buffer", "u64"], result: "i64" },
  pwrite64: { parameters: ["i32", "buffer", "u64", "i64"], result: "i64" },
  ftruncate64: { parameters: ["i32", "i64"], result: "i32" },
  fallocate64: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  lseek64: { parameters: ["i32", "i64", "i32"], result: "i64" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  umask: { parameters: ["u32"], result: "u32" },
  mknod: { parameters: ["buffer", "u32", "u64"], result: "i32" },
  renameat2: { parameters: ["i32", "buffer", "i32", "buffer", "u32"], result: "i32" },
  copy_file_range: { parameters: ["i32", "buffer", "i32", "buffer", "u64", "u32"], result: "i64" },
  setxattr: { parameters: ["buffer", "buffer", "buffer", "u64", "i32"], result: "i32" },
  getxattr: { parameters: ["buffer", "buffer", "buffer", "u64"], result: "i64" },
  listxattr: { parameters: ["buffer", "buffer", "u64"], result: "i64" },
  removexattr: { parameters: ["buffer", "buffer"], result: "i32" },
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
  msync: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  opendir: { parameters: ["buffer"], result: "pointer" },
  readdir: { parameters: ["pointer"], result: "pointer" },
  telldir: { parameters: ["pointer"], result: "i64" },
  seekdir: { parameters: ["pointer", "i64"], result: "void" },
  closedir: { parameters: ["pointer"], result: "i32" },
}).symbols;

/** The raw calls, for what has no wrapper below. */
export const sys = calls;

/** The result, or minus errno. */
export function result(value: number | bigint): number {
  return value < 0 ? -errno() : Number(value);
}

/** open(2) with a path as text; programs started later do not inherit it. */
export function open(path: string, flags: number, mode = 0o644): number {
  return result(calls.open(cstr(path), flags | O.CLOEXEC, mode));
}

/** renameat2(2) of two paths. */
export function renameat2(from: string, to: string, flags: number): number {
  return result(calls.renameat2(-100, cstr(from), -100, cstr(to), flags));
}

/** Sets an extended attribute. */
export function setxattr(path: string, name: string, value: string, flags = 0): number {
  const bytes = new TextEncoder().encode(value);
  return result(calls.setxattr(cstr(path), cstr(name), bytes, BigInt(bytes.length), flags));
}

/** An extended attribute as text, or minus errno. */
export function getxattr(path: string, name: string, sizeBytes = 65536): string | number {
  const bytes = new Uint8Array(sizeBytes);
  const length = result(calls.getxattr(cstr(path), cstr(name), bytes, BigInt(sizeBytes)));
  return length < 0 ? length : new TextDecoder().decode(bytes.subarray(0, length));
}

/** struct flock of fcntl(2): type 0, whence 2, start 8, len 16, pid 24. */
export function fcntlLock(fd: number, command: number, type: number, start: number, length: number) {
  const bytes = new Uint8Array(32), view = new DataView(bytes.buffer);
  view.setInt16(0, type, true);
  view.setBigInt64(8, BigInt(start), true);
  view.setBigInt64(16, BigInt(length), true);
  const outcome = result(calls.fcntl(fd, command, bytes));
  return {
    outcome,
    type: view.getInt16(0, true),
    start: Number(view.getBigInt64(8, true)),
    length: Number(view.getBigInt64(16, true)),
    pid: view.getInt32(24, true),
  };
}
