/**
 * Opens the store of a reactor in its folders, making it at the first start: `store-N/` below the database path holds the
 * image (data.mdb), the log (log/) and the lock; each storage path holds a part of the container (`store-N.data`).
 * A folder is held by one process at a time. What is there and belongs to somebody else is never touched.
 *
 * @module
 */

import { join } from "@std/path";
import { Store, type StoreError, type StoreIdentity, type StoreLimits } from "../../core/store/store.ts";
import type { Meter } from "../../core/metrics/meter.ts";
import type { Task } from "../../core/task.ts";
import type { Reactor } from "../reactor.ts";
import { FileContainer } from "./container.ts";
import { LmdbImage } from "./image.ts";
import { type FileLog, openLogFolder } from "./log_file.ts";

/** Where a store is and whose it is. */
export interface OpenStoreOptions {
  reactor: Reactor;
  /** Folder for log and image: the faster disk. It exists. */
  databasePath: string;
  /** Folders for data, in their stored order. They exist. */
  storagePaths: readonly string[];
  identity: StoreIdentity;
  limits?: Partial<StoreLimits>;
  /** Most bytes of the image. */
  imageBytesMax?: number;
  /** Measures checkpoints. */
  checkpoints?: Meter;
}

/** A store with its files. */
export interface OpenedStore {
  readonly store: Store;
  /** What was written to the log. */
  readonly logCounters: FileLog["counters"];
  /** Last checkpoint, then everything is closed and the folder is free. errno of the checkpoint. */
  close(): Task<number>;
  /** Closes everything after `store.close()`, once no task of the reactor can ask the store any more. */
  release(): void;
}

/** Opens a store. An error is one line for the user; nothing is left open or changed by it. */
export function* openStore(options: OpenStoreOptions): Task<OpenedStore | StoreError> {
  const folder = join(options.databasePath, `store-${options.identity.storeIndex}`);
  const parts = new Parts();
  try {
    const fault = parts.open(folder, options);
    if (fault === "") {
      const { image, log, container } = parts as Required<Parts>;
      const { reactor: runtime, limits, identity, checkpoints } = options;
      const store = yield* Store.open({ image, log, container, runtime, limits, checkpoints }, identity);
      if (!("error" in store)) return new OpenStore(store, parts);
      parts.close();
      return { error: `${folder}: ${store.error}` };
    }
    parts.close();
    return { error: fault };
  } catch (error) {
    parts.close();
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

/** What a store stands on, as far as it is open. */
class Parts {
  lock?: Deno.FsFile;
  image?: LmdbImage;
  log?: FileLog;
  container?: FileContainer;

  /** A text is why not. */
  open(folder: string, { reactor, storagePaths, identity, imageBytesMax }: OpenStoreOptions): string {
    Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
    const lock = Deno.openSync(join(folder, "lock"), { create: true, write: true, mode: 0o600 });
    if (!lock.tryLockSync(true)) {
      lock.close();
      return `another process uses the store in ${folder}`;
    }
    this.lock = lock;
    const log = (level: "error" | "warn" | "info" | "debug" | "trace", component: string, message: string) =>
      reactor.log(level, component, message);
    this.image = new LmdbImage({ folder, limitBytes: imageBytesMax, log });
    this.log = openLogFolder(reactor, join(folder, "log"));
    const fresh = isEmpty(this.image);
    if (fresh && this.log.segments().length > 0) return `${folder} has a log but an empty database: it was damaged`;
    const container = FileContainer.open({ reactor, identity, folders: storagePaths, create: fresh });
    if (typeof container === "string") return container;
    this.container = container;
    if (!fresh) return "";
    if (container.blockCount > 0) return `${folder} is empty, but its storage paths hold data of this store`;
    return Store.format(this.image, identity)?.error ?? "";
  }

  close(): void {
    this.container?.close();
    this.log?.close();
    this.image?.close();
    this.lock?.close();
  }
}

class OpenStore implements OpenedStore {
  constructor(readonly store: Store, readonly parts: Parts) {}

  get logCounters(): FileLog["counters"] {
    return this.parts.log!.counters;
  }

  *close(): Task<number> {
    const errno = yield* this.store.close();
    this.release();
    return errno;
  }

  release(): void {
    this.parts.close();
  }
}

function isEmpty(image: LmdbImage): boolean {
  let empty = true;
  image.scan(new Uint8Array(1), new Uint8Array(4).fill(255), () => empty = false);
  return empty;
}
