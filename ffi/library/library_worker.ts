/**
 * The reactor Worker of one of the library's connections to a cluster: the same client core over the same transports as
 * a mount's, with calls of the main thread (volume.ts) in place of FUSE.
 *
 * @module
 */

/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />

import { workerData } from "node:worker_threads";
import type { FileSystem } from "../../core/client/filesystem.ts";
import { ClientSession } from "../../core/client/session.ts";
import { VolumeClient } from "../../core/client/volume_client.ts";
import { E, type Result } from "../../core/errno.ts";
import { decodeMap } from "../../core/placement/map.ts";
import { MapHolder } from "../../core/placement/map_holder.ts";
import { Future, type Task } from "../../core/task.ts";
import type { LibraryOrder, LibraryReport, LibraryResolve, LibraryWorkerStart } from "./messages.ts";
import { type LibraryBackend, serveLibrary } from "./serve.ts";
import type { ReactorMailbox } from "../mailbox.ts";
import { SocketNetwork } from "../net.ts";
import type { Reactor } from "../reactor.ts";

/** Volumes of a cluster. */
class ClusterBackend implements LibraryBackend {
  readonly #maps: MapHolder;
  readonly #network: SocketNetwork;
  readonly #session: ClientSession;

  constructor(start: LibraryWorkerStart, reactor: Reactor, mailbox: ReactorMailbox) {
    const report = (message: LibraryReport) => mailbox.post(message);
    this.#maps = new MapHolder(decodeMap(start.map), (epoch) => report({ type: "needMap", epoch }));
    this.#network = new SocketNetwork(reactor, { resolve: (host) => resolve(mailbox, host) });
    this.#session = new ClientSession({
      runtime: reactor,
      network: this.#network,
      maps: this.#maps,
      secret: start.secret === null ? null : new TextEncoder().encode(start.secret),
      session: start.session,
      ioTimeoutMs: start.ioTimeoutMs,
    });
  }

  openFileSystem(id: number, readOnly: boolean): Result<FileSystem> {
    if (this.#maps.volume(id) === undefined) return E.NOENT;
    return new VolumeClient(this.#session, { volumeId: id, readOnly });
  }

  order(order: LibraryOrder): void {
    if (order.type === "map") this.#maps.update(decodeMap(order.bytes));
    else this.#session.renew(order.number);
  }

  *finish(): Task<void> {
    yield* this.#session.finish();
  }

  close(): void {
    this.#session.close();
    this.#network.close();
  }
}

function resolve(mailbox: ReactorMailbox, host: string): Future<string | null> {
  const found = new Future<string | null>();
  mailbox.call({ type: "resolve", host } satisfies LibraryResolve).listen((reply) => {
    found.resolve(reply.ok ? reply.value as string | null : null);
  });
  return found;
}

const start = workerData as LibraryWorkerStart;
serveLibrary(start, (reactor, mailbox) => new ClusterBackend(start, reactor, mailbox));
