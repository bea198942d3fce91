/**
 * The file in which a client daemon remembers its mounts. Replaced whole: a crash leaves the old or the new table.
 *
 * @module
 */

import { dirname } from "@std/path";
import type { MountWish } from "./client_mounts.ts";

const formatVersion = 1;
/** Longest table that is read. */
const tableBytesMax = 1 << 20;

/** What is remembered in the file at `path`; nothing when there is no file. Throws an Error of one line. */
export function readMountTable(path: string): MountWish[] {
  let text: string;
  try {
    if (Deno.statSync(path).size > tableBytesMax) throw new Error(`mount table ${path} is too long`);
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  let table: { format?: unknown; mounts?: unknown } | null = null;
  try {
    table = JSON.parse(text);
  } catch { // Said below.
  }
  if (typeof table?.format === "number" && table.format !== formatVersion) {
    throw new Error(`mount table ${path} has format ${table.format}, this version reads ${formatVersion}`);
  }
  if (!Array.isArray(table?.mounts) || !table.mounts.every(isWish)) {
    throw new Error(`mount table ${path} is damaged: remove it and mount again`);
  }
  return table.mounts.map(({ mountpoint, volume, options }) => ({ mountpoint, volume, options }));
}

function isWish(value: unknown): value is MountWish {
  const wish = value as Partial<MountWish> | null;
  return typeof wish?.mountpoint === "string" && typeof wish.volume === "string" && typeof wish.options === "string";
}

/** Replaces the table. Throws when the disk does not take it. */
export function writeMountTable(path: string, mounts: readonly MountWish[]): void {
  const kept = mounts.map(({ mountpoint, volume, options }) => ({ mountpoint, volume, options }));
  const bytes = new TextEncoder().encode(JSON.stringify({ format: formatVersion, mounts: kept }, null, 2) + "\n");
  const file = Deno.openSync(`${path}.new`, { create: true, write: true, truncate: true, mode: 0o600 });
  try {
    for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
    file.syncSync();
  } finally {
    file.close();
  }
  Deno.renameSync(`${path}.new`, path);
  const folder = Deno.openSync(dirname(path));
  folder.syncSync();
  folder.close();
}
