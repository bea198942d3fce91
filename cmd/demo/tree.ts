/**
 * Trees of files for the demo: read once into memory, written to any folder, compared there by checksum.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { dirname, join } from "@std/path";

/** Files in work at once. */
const parallel = 8;

/** One entry of a tree. */
export interface Entry {
  /** Relative, parents before children. */
  path: string;
  /** Permission bits. */
  mode: number;
  content: { kind: "folder" } | { kind: "link"; target: string } | { kind: "file"; bytes: Uint8Array; sha256: string };
}

/** How much was done in what time. */
export interface Work {
  files: number;
  bytes: number;
  seconds: number;
}

/** Something was not as it must be. The message names it. */
export class Mismatch extends Error {
  override name = "Mismatch";
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A file of these bytes. */
export function fileEntry(path: string, bytes: Uint8Array, mode = 0o644): Entry {
  return { path, mode, content: { kind: "file", bytes, sha256: sha256(bytes) } };
}

/** A folder. */
export function folderEntry(path: string): Entry {
  return { path, mode: 0o755, content: { kind: "folder" } };
}

/**
 * Reads everything under `source` except what `skip` names, as entries under `prefix`. What disappears meanwhile is left
 * out, and so are sockets and the like.
 */
export function readTree(source: string, prefix: string, skip: readonly string[] = []): Entry[] {
  const entries: Entry[] = [folderEntry(prefix)];
  const visit = (folder: string, at: string) => {
    for (const { name } of [...Deno.readDirSync(folder)].sort((a, b) => a.name < b.name ? -1 : 1)) {
      if (skip.includes(name)) continue;
      const from = join(folder, name), path = `${at}/${name}`;
      try {
        const info = Deno.lstatSync(from);
        const mode = (info.mode ?? 0o644) & 0o777;
        if (info.isSymlink) {
          entries.push({ path, mode: 0o777, content: { kind: "link", target: Deno.readLinkSync(from) } });
        } else if (info.isFile) entries.push(fileEntry(path, Deno.readFileSync(from), mode));
        else if (info.isDirectory) {
          entries.push({ path, mode: mode | 0o700, content: { kind: "folder" } });
          visit(from, path);
        }
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  };
  visit(source, prefix);
  return entries;
}

/** Calls `body` for every item, several at a time. */
export async function forAll<T>(items: readonly T[], body: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await body(items[next++]);
  };
  await Promise.all(Array.from({ length: parallel }, lane));
}

/** Measures `body`, which returns how many bytes it moved. */
export async function timed(files: number, body: () => Promise<number>): Promise<Work> {
  const start = performance.now();
  const bytes = await body();
  return { files, bytes, seconds: (performance.now() - start) / 1000 };
}

/** Makes a tree under `root`. */
export async function writeTree(entries: readonly Entry[], root: string): Promise<Work> {
  const folders = entries.filter((entry) => entry.content.kind === "folder");
  const others = entries.filter((entry) => entry.content.kind !== "folder");
  return await timed(others.length, async () => {
    let bytes = 0;
    for (const { path, mode } of folders) {
      await Deno.mkdir(join(root, path), { recursive: true });
      await Deno.chmod(join(root, path), mode);
    }
    await forAll(others, async ({ path, mode, content }) => {
      const to = join(root, path);
      if (content.kind === "link") return await Deno.symlink(content.target, to);
      if (content.kind !== "file") return;
      bytes += content.bytes.length;
      const file = await Deno.open(to, { write: true, createNew: true, mode });
      try {
        for (let done = 0; done < content.bytes.length;) done += await file.write(content.bytes.subarray(done));
      } finally {
        file.close();
      }
      // The umask took some bits away.
      await Deno.chmod(to, mode);
    });
    return bytes;
  });
}

/** Reads a tree under `root` and compares it with its entries: names, kinds, modes, targets, checksums. */
export async function verifyTree(entries: readonly Entry[], root: string): Promise<Work> {
  await compareNames(entries, root);
  const others = entries.filter((entry) => entry.content.kind !== "folder");
  return await timed(others.length, async () => {
    let bytes = 0;
    await forAll(entries, async ({ path, mode, content }) => {
      const at = join(root, path);
      const info = await Deno.lstat(at);
      const kind = info.isDirectory ? "folder" : info.isSymlink ? "link" : info.isFile ? "file" : "other";
      if (kind !== content.kind) throw new Mismatch(`${at} is a ${kind}, not a ${content.kind}`);
      if (content.kind === "link") {
        if (await Deno.readLink(at) !== content.target) throw new Mismatch(`${at} does not point to ${content.target}`);
        return;
      }
      if ((info.mode! & 0o777) !== mode) throw new Mismatch(`${at} has mode ${(info.mode! & 0o777).toString(8)}`);
      if (content.kind !== "file") return;
      const found = await Deno.readFile(at);
      if (found.length !== content.bytes.length) {
        throw new Mismatch(`${at} has ${found.length} bytes, not ${content.bytes.length}`);
      }
      if (sha256(found) !== content.sha256) throw new Mismatch(`${at} has other contents`);
      bytes += found.length;
    });
    return bytes;
  });
}

/** Each folder holds exactly the names that it should. */
async function compareNames(entries: readonly Entry[], root: string): Promise<void> {
  const expected = new Map<string, Set<string>>();
  for (const { path, content } of entries) {
    if (content.kind === "folder" && !expected.has(path)) expected.set(path, new Set());
    const parent = dirname(path);
    if (parent !== ".") expected.get(parent)!.add(path.slice(parent.length + 1));
  }
  await forAll([...expected], async ([folder, names]) => {
    const left = new Set(names);
    for await (const { name } of Deno.readDir(join(root, folder))) {
      if (!left.delete(name)) throw new Mismatch(`${join(root, folder, name)} should not be there, or is listed twice`);
    }
    for (const name of left) throw new Mismatch(`${join(root, folder, name)} is missing`);
  });
}
