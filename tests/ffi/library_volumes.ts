/**
 * Volumes in memory behind the library's Worker, and the local file system with the same methods, so that one script can
 * run on both and be compared.
 *
 * @module
 */

import { Volume } from "../../ffi/library/volume.ts";
import { WorkerLink } from "../../ffi/library/worker_link.ts";

/** What the two have in common. */
export type Files = Pick<
  Volume,
  | "readTextFile"
  | "writeTextFile"
  | "mkdir"
  | "remove"
  | "rename"
  | "link"
  | "symlink"
  | "readLink"
  | "realPath"
  | "chmod"
  | "truncate"
  | "copyFile"
  | "stat"
  | "lstat"
  | "readDir"
  | "utime"
>;

/** Opens a volume of a Worker. */
export async function openMemoryVolume(
  link: WorkerLink,
  id = 1,
  who = { uid: 0, gid: 0, groups: [] as number[] },
): Promise<Volume> {
  const caller = { ...who, umask: 0o022, pid: Deno.pid };
  const volume = await link.openVolume(id, { readOnly: false, who: caller, what: `open volume ${id}` });
  return new Volume(link, { name: `memory${id}`, volume, root: 7 * 2 ** 41 + 2, onClose: () => {} });
}

/** Starts a Worker with volumes in memory. */
export function startMemoryWorker(): Promise<WorkerLink> {
  return WorkerLink.start({
    url: new URL("./library_memory_worker.ts", import.meta.url),
    start: { log: { level: "error" }, session: 1, secret: null, map: new Uint8Array(), ioTimeoutMs: 1000 },
    resolve: () => Promise.resolve(null),
    onNeedMap: () => {},
  });
}

/** Runs `body` with a Worker of its own and one volume of it. */
export async function withMemoryVolume(body: (volume: Volume, link: WorkerLink) => Promise<void>): Promise<void> {
  const link = await startMemoryWorker();
  try {
    const volume = await openMemoryVolume(link);
    await body(volume, link);
    await volume.close();
  } finally {
    await link.close();
  }
}

/** The local file system below `root`; paths of scripts must be relative and stay below. */
export function localFiles(root: string): Files {
  const at = (path: string) => path === "" ? "" : `${root}/${path}`;
  return {
    readTextFile: (path) => Deno.readTextFile(at(path)),
    writeTextFile: (path, data, options) => Deno.writeTextFile(at(path), data, options),
    mkdir: (path, options) => Deno.mkdir(at(path), options),
    remove: (path, options) => Deno.remove(at(path), options),
    rename: (from, to) => Deno.rename(at(from), at(to)),
    link: (from, to) => Deno.link(at(from), at(to)),
    symlink: (target, path) => Deno.symlink(target, at(path)),
    readLink: (path) => Deno.readLink(at(path)),
    realPath: async (path) => (await Deno.realPath(at(path))).slice(root.length) || "/",
    chmod: (path, mode) => Deno.chmod(at(path), mode),
    truncate: (path, length) => Deno.truncate(at(path), length),
    copyFile: (from, to) => Deno.copyFile(at(from), at(to)),
    stat: (path) => Deno.stat(at(path)),
    lstat: (path) => Deno.lstat(at(path)),
    readDir: async function* (path) {
      yield* Deno.readDir(at(path));
    },
    utime: (path, atime, mtime) => Deno.utime(at(path), atime, mtime),
  };
}

/** What an operation came to: its value, or class, code and message of its error. */
export async function outcome(work: () => Promise<unknown>, root = ""): Promise<unknown> {
  try {
    return await work();
  } catch (error) {
    const { name, message, code } = error as Error & { code?: string };
    return { name, code, message: root === "" ? message : message.replaceAll(`${root}/`, "") };
  }
}

/** Everything below a folder: path, type, mode, size, links, content or target. */
export async function snapshot(files: Files, path = "."): Promise<string[]> {
  const lines: string[] = [];
  for (const { name } of (await Array.fromAsync(files.readDir(path))).sort((a, b) => a.name < b.name ? -1 : 1)) {
    const child = `${path}/${name}`, info = await files.lstat(child);
    const kind = info.isFile ? "file" : info.isDirectory ? "directory" : "link";
    const mode = ((info.mode ?? 0) & 0o7777).toString(8), links = info.isFile ? info.nlink : "";
    const content = info.isFile ? await files.readTextFile(child) : info.isSymlink ? await files.readLink(child) : "";
    lines.push(`${child} ${kind} ${mode} ${links} ${content}`);
    if (info.isDirectory) lines.push(...await snapshot(files, child));
  }
  return lines;
}
