/** The library's Worker with volumes in memory: volume N is the same for all who open it, volume 13 breaks the Worker. */

import { workerData } from "node:worker_threads";
import { E } from "../../core/errno.ts";
import { Future } from "../../core/task.ts";
import type { LibraryWorkerStart } from "../../ffi/library/messages.ts";
import { serveLibrary } from "../../ffi/library/serve.ts";
import { MemoryFileSystem } from "../fuse/memory_filesystem.ts";

/** Ids of volumes beyond this do not exist. */
const volumesMax = 100;
/** Every operation of volume 2 takes up to so long, in an order of its own. */
const delayMsMax = 2;

const start = workerData as LibraryWorkerStart;
serveLibrary(start, (reactor) => {
  const volumes = new Map<number, MemoryFileSystem>();
  return {
    openFileSystem(id) {
      if (id > volumesMax) return E.NOENT;
      if (id === 13) throw new Error("the reactor's own bug");
      let volume = volumes.get(id);
      if (volume === undefined) {
        const pause = (): Future<void> | null => {
          return id === 2 ? reactor.sleep(reactor.random32() % (delayMsMax * 1000) / 1000) : null;
        };
        volumes.set(id, volume = new MemoryFileSystem({ now: () => reactor.wallTime(), pause }));
      }
      return volume;
    },
    order() {},
    // deno-lint-ignore require-yield
    *finish() {
      for (const volume of volumes.values()) {
        if (volume.opens !== 0 || volume.locks !== 0) throw new Error("something is still open");
      }
    },
    close() {},
  };
});
