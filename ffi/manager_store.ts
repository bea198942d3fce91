/**
 * The manager's state in LMDB, in a folder that one manager at a time holds. A commit is on disk when it returns.
 *
 * @module
 */

import { join } from "@std/path";
import { open, type RootDatabase } from "lmdb";
import type { StateStore } from "../core/manager/manager.ts";

/** Most state there can be; the file grows as needed. */
const mapBytesMax = 1 << 30;

/** See the module's comment. */
export class LmdbStateStore implements StateStore {
  readonly #database: RootDatabase<Uint8Array, string>;
  readonly #lock: Deno.FsFile;
  #pending = new Map<string, Uint8Array | null>();

  private constructor(database: RootDatabase<Uint8Array, string>, lock: Deno.FsFile) {
    this.#database = database;
    this.#lock = lock;
  }

  /** Opens or makes the store in `folder`; a text is why not. */
  static async open(folder: string): Promise<LmdbStateStore | string> {
    let lock: Deno.FsFile;
    try {
      await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
      lock = await Deno.open(join(folder, "lock"), { create: true, write: true, mode: 0o600 });
    } catch (error) {
      return `cannot use the data path ${folder}: ${error instanceof Error ? error.message : error}`;
    }
    if (!await lock.tryLock(true)) {
      lock.close();
      return `another manager uses the data path ${folder}`;
    }
    try {
      const database = open<Uint8Array, string>({
        path: join(folder, "state.lmdb"),
        noSubdir: true,
        encoding: "binary",
        keyEncoding: "ordered-binary",
        mapSize: mapBytesMax,
        // A commit waits for the disk instead of being flushed later.
        overlappingSync: false,
      });
      return new LmdbStateStore(database, lock);
    } catch (error) {
      lock.close();
      return `cannot open the state in ${folder}: ${error instanceof Error ? error.message : error}`;
    }
  }

  get(key: string): Uint8Array | undefined {
    const pending = this.#pending.get(key);
    if (pending !== undefined) return pending ?? undefined;
    const value = this.#database.getBinary(key);
    return value === undefined ? undefined : Uint8Array.from(value);
  }

  put(key: string, value: Uint8Array): void {
    this.#pending.set(key, value);
  }

  remove(key: string): void {
    this.#pending.set(key, null);
  }

  commit(): void {
    const pending = this.#pending;
    if (pending.size === 0) return;
    this.#pending = new Map();
    this.#database.transactionSync(() => {
      for (const [key, value] of pending) {
        if (value === null) this.#database.removeSync(key);
        else this.#database.putSync(key, value);
      }
    });
  }

  /** Ends the use of the store. Nothing that was not committed is kept. */
  async close(): Promise<void> {
    await this.#database.close();
    this.#lock.close();
  }
}
