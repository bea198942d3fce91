/**
 * Who a server is: `server.json` beside its database, and `storage.json` in each of its storage paths, so that data is
 * never served by another server, for another cluster, in another layout, or by two processes.
 *
 * @module
 */

import { join } from "@std/path";

/** Version of the files. */
const formatVersion = 1;

/** What `server.json` holds. */
export interface ServerIdentityFile {
  format: number;
  /** Random, made once; the manager knows the server by it. */
  identity: string;
  /** "" until the first registration. */
  clusterId: string;
  /** 0 until the first registration. */
  serverId: number;
  stores: number;
}

interface StorageFile {
  format: number;
  identity: string;
  /** Place of this path among the server's storage paths. */
  index: number;
  count: number;
}

/** A server's folders, held by this process. */
export interface HeldServer {
  readonly file: ServerIdentityFile;
  /** In their stored order, whatever order they were given in. */
  readonly storagePaths: string[];
  /** Stores what the first registration told. */
  join(clusterId: string, serverId: number): void;
  /** Lets go of the folders. */
  close(): void;
}

/** How {@linkcode holdServer} finds or makes a server. */
export interface ServerFolders {
  databasePath: string;
  storagePaths: readonly string[];
  /** Stores of a new server; an existing one has its own, and another number is an error. */
  stores?: number;
}

/** Locks a server's folders and finds or makes its identity. A text is why not. */
export function holdServer(folders: ServerFolders): HeldServer | string {
  const { databasePath } = folders;
  let lock: Deno.FsFile | undefined;
  try {
    Deno.mkdirSync(databasePath, { recursive: true, mode: 0o700 });
    lock = Deno.openSync(join(databasePath, "server.lock"), { create: true, write: true, mode: 0o600 });
    if (!lock.tryLockSync(true)) {
      lock.close();
      return `another server process uses the database path ${databasePath}`;
    }
    const held = findOrMake(folders, lock);
    if (typeof held === "string") lock.close();
    return held;
  } catch (error) {
    lock?.close();
    return `cannot use the folders of the server: ${error instanceof Error ? error.message : error}`;
  }
}

function findOrMake({ databasePath, storagePaths, stores }: ServerFolders, lock: Deno.FsFile): HeldServer | string {
  const path = join(databasePath, "server.json");
  for (const storage of storagePaths) Deno.mkdirSync(storage, { recursive: true, mode: 0o700 });
  let file = readFile<ServerIdentityFile>(path);
  if (typeof file === "string") return file;
  if (file === undefined) {
    const fault = claimFault(storagePaths, "");
    if (fault !== undefined) return fault;
    file = { format: formatVersion, identity: crypto.randomUUID(), clusterId: "", serverId: 0, stores: stores ?? 1 };
    writeFile(path, file);
  }
  // Before the first registration there is no data, so paths may still be claimed.
  const ordered = file.clusterId === "" ? claim(storagePaths, file.identity) : orderPaths(storagePaths, file.identity);
  if (typeof ordered === "string") return ordered;
  if (stores !== undefined && stores !== file.stores) {
    return `--stores ${stores} contradicts ${databasePath}, which was made with ${file.stores} (it cannot change)`;
  }
  const kept = file;
  return {
    file: kept,
    storagePaths: ordered,
    join(clusterId, serverId) {
      if (kept.clusterId === clusterId && kept.serverId === serverId) return;
      kept.clusterId = clusterId;
      kept.serverId = serverId;
      writeFile(path, kept);
    },
    close: () => lock.close(),
  };
}

/** Why these paths cannot be claimed for `identity`, or undefined. */
function claimFault(storagePaths: readonly string[], identity: string): string | undefined {
  for (const path of storagePaths) {
    const mark = readFile<StorageFile>(join(path, "storage.json"));
    if (typeof mark === "string") return mark;
    if (mark !== undefined && mark.identity !== identity) return `storage path ${path} belongs to another server`;
  }
  if (new Set(storagePaths.map((path) => Deno.realPathSync(path))).size === storagePaths.length) return undefined;
  return "two of the storage paths are the same folder";
}

/** Marks the paths as the server's, in the order given. */
function claim(storagePaths: readonly string[], identity: string): string[] | string {
  const fault = claimFault(storagePaths, identity);
  if (fault !== undefined) return fault;
  for (const [index, path] of storagePaths.entries()) {
    const mark: StorageFile = { format: formatVersion, identity, index, count: storagePaths.length };
    writeFile(join(path, "storage.json"), mark);
  }
  return [...storagePaths];
}

/** The paths in their stored order, if they are exactly those of the server. */
function orderPaths(storagePaths: readonly string[], identity: string): string[] | string {
  const ordered: string[] = [];
  let count = storagePaths.length;
  for (const path of storagePaths) {
    const mark = readFile<StorageFile>(join(path, "storage.json"));
    if (typeof mark === "string") return mark;
    if (mark === undefined) return `storage path ${path} holds no data of this server; paths cannot be added yet`;
    if (mark.identity !== identity) return `storage path ${path} belongs to another server`;
    if (ordered[mark.index] !== undefined) return `storage paths ${ordered[mark.index]} and ${path} are copies`;
    ordered[mark.index] = path;
    count = mark.count;
  }
  if (storagePaths.length === count) return ordered;
  return `this server has ${count} storage paths, ${storagePaths.length} were given`;
}

function readFile<T extends { format: number }>(path: string): T | undefined | string {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  try {
    const value = JSON.parse(text);
    if (value?.format === formatVersion) return value;
    if (Number.isInteger(value?.format)) {
      return `${path} has format ${value.format}, this version reads ${formatVersion}`;
    }
  } catch { // Said below.
  }
  return `${path} is damaged`;
}

/** Replaces a file so that a crash leaves the old or the new one, whole. */
function writeFile(path: string, value: object): void {
  const fresh = `${path}.new`;
  const file = Deno.openSync(fresh, { create: true, write: true, truncate: true, mode: 0o600 });
  const bytes = new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n");
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
  file.syncSync();
  file.close();
  Deno.renameSync(fresh, path);
  const folder = Deno.openSync(path.slice(0, path.lastIndexOf("/")) || "/");
  folder.syncSync();
  folder.close();
}
