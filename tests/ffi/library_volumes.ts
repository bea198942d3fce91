/**
 * Volumes in memory behind the library's Worker, and the local file system with the same methods, so that one script can
 * run on both and be compared.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Volume } from "../../ffi/library/volume.ts";
import { WorkerLink } from "../../ffi/library/worker_link.ts";
import { Random } from "../sim/random.ts";

/** Random steps on one tree. */
const stepsPerSeed = 250;

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

/** A step of a script, and how a failure names it. */
export interface Step {
  say: string;
  run: (files: Files) => Promise<unknown>;
}

/** A {@linkcode Step}. */
export function step(say: string, run: Step["run"]): Step {
  return { say, run };
}

/** One random step; names are few, so that steps meet. */
function randomStep(random: Random): Step {
  const part = () => random.chance(0.08) ? random.pick([".", ".."]) : random.pick(["a", "b", "c", "d"]);
  const path = () => {
    const parts = Array.from({ length: random.between(1, 3) }, part);
    return `r/s/t/${parts.join("/")}${random.chance(0.08) ? "/" : ""}`;
  };
  const p = path(), q = path();
  switch (random.below(12)) {
    case 0:
    case 1: {
      const append = random.chance(0.5);
      return step(`write ${p}`, (fs) => fs.writeTextFile(p, q, { append }));
    }
    case 2:
    case 3:
      return step(`mkdir ${p}`, (fs) => fs.mkdir(p));
    case 4: {
      // Deno does not make "a" for "a/.".
      const made = p.replace(/(\/\.)+\/?$/, "");
      return step(`mkdir -p ${made}`, (fs) => fs.mkdir(made, { recursive: true }));
    }
    case 5:
      return step(`remove ${p}`, (fs) => fs.remove(p));
    case 6:
      return step(`rename ${p} ${q}`, (fs) => fs.rename(p, q));
    case 7: {
      const target = random.pick(["a", "b/c", "../a", "./d/", ".."]);
      return step(`symlink ${target} ${p}`, (fs) => fs.symlink(target, p));
    }
    case 8:
      return step(`link ${p} ${q}`, (fs) => fs.link(p, q));
    case 9:
      return step(`read ${p}`, (fs) => fs.readTextFile(p));
    case 10:
      return step(`real ${p}`, (fs) => fs.realPath(p));
    default:
      return step(`copy ${p} ${q}`, (fs) => fs.copyFile(p, q));
  }
}

/** Where both answers are right. */
function mayDiffer(say: string, expected: unknown, got: unknown): boolean {
  // The kernel sees that the target holds the source before it sees that it is a directory.
  if (say.startsWith("rename")) return expected === "ENOTEMPTY" && got === "EISDIR";
  // Deno looks where a link with a slash leads before it calls rmdir, which answers as we do.
  return /^remove .*\/$/.test(say) && (expected === "ENOENT" || expected === "ELOOP") && got === "ENOTDIR";
}

/** Runs random steps on a volume and on the local file system, both empty, and compares errnos, values and trees. */
export async function agreeWithLocal(volume: Files, seeds: number): Promise<void> {
  const root = await Deno.realPath(await Deno.makeTempDir({ prefix: "sealfs-local-" }));
  const local = localFiles(root);
  const codeOf = async (work: () => Promise<unknown>) => {
    const result = await outcome(work);
    return (result as { code?: string } | undefined)?.code ?? result;
  };
  try {
    for (let seed = 1; seed <= seeds; seed++) {
      for (const files of [local, volume]) await files.mkdir("r/s/t", { recursive: true });
      const random = new Random(seed), told: string[] = [];
      for (let n = 0; n < stepsPerSeed; n++) {
        const { say, run } = randomStep(random);
        told.push(say);
        const expected = await codeOf(() => run(local)), got = await codeOf(() => run(volume));
        if (!mayDiffer(say, expected, got)) assertEquals(got, expected, `seed ${seed}: ${told.slice(-12).join("; ")}`);
      }
      assertEquals(await snapshot(volume), await snapshot(local), `seed ${seed}`);
      for (const files of [local, volume]) await files.remove("r", { recursive: true });
    }
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}
