/**
 * Opens the store of a reactor on its folders: image and log below the database path, containers on the storage paths.
 * A folder without a store gets a new one. The server's folders are locked by its process (ffi/server_identity.ts).
 *
 * @module
 */

import { join } from "@std/path";
import { Store, type StoreIdentity, type StoreLimits } from "../../core/store/store.ts";
import type { Task } from "../../core/task.ts";
import type { Reactor } from "../reactor.ts";
import { ContainerFiles } from "./container_files.ts";
import { LmdbImage } from "./lmdb_image.ts";
import { LogFiles } from "./log_files.ts";

/** Where a store lies, and which it is. */
export interface StoreFolders {
  reactor: Reactor;
  databasePath: string;
  storagePaths: readonly string[];
  identity: StoreIdentity;
  limits?: Partial<StoreLimits>;
}

/** An open store. */
export interface OpenedStore {
  store: Store;
  /** Last checkpoint, then everything is closed. errno. */
  close(): Task<number>;
}

/** Opens or makes a store; an error is one sentence. */
export function* openStore(folders: StoreFolders): Task<OpenedStore | { error: string }> {
  const { reactor, databasePath, storagePaths, identity, limits } = folders;
  const folder = join(databasePath, `store-${identity.storeIndex}`), path = join(folder, "image.mdb");
  let image: LmdbImage;
  try {
    Deno.mkdirSync(join(folder, "log"), { recursive: true, mode: 0o700 });
    image = new LmdbImage(path);
  } catch (error) {
    return { error: `cannot open the image ${path}: ${error instanceof Error ? error.message : error}` };
  }
  const log = new LogFiles(reactor, join(folder, "log"));
  if (image.empty) {
    if (log.segments().length > 0) return { error: `${path} is empty, but there is a log: the image was lost` };
    const failure = Store.format(image, identity);
    if (failure !== null) return failure;
  }
  const container = ContainerFiles.open(reactor, storagePaths, identity);
  if (typeof container === "string") return { error: container };
  const store = yield* Store.open({ image, log, container, runtime: reactor, limits }, identity);
  if (!(store instanceof Store)) return store;
  return {
    store,
    *close() {
      const errno = yield* store.close();
      container.close();
      log.close();
      image.close().catch((error) => reactor.log("error", "store", `closing the image: ${error}`));
      return errno;
    },
  };
}
