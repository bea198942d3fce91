/**
 * The cluster map as one process knows it now. Newer maps replace it, older ones are ignored; tasks that learned of a
 * newer epoch wait for it here. Fetching maps is the control plane's work, which this asks through a hook.
 *
 * @module
 */

import { Future } from "../task.ts";
import { type ClusterMap, primaryOf, type ServerEntry, storeOfShard, type VolumeEntry } from "./map.ts";

/** One store of one server. */
interface Place {
  server: number;
  store: number;
}

/** See the module's comment. */
export class MapHolder {
  #current: ClusterMap;
  #servers = new Map<number, ServerEntry>();
  #volumes = new Map<number, VolumeEntry>();
  #holders: Place[] = [];
  #sessions: ReadonlySet<number> = new Set();
  #waiters = new Map<number, Future<void>>();
  #listeners: ((map: ClusterMap) => void)[] = [];
  #asked = 0;

  /** `requestRefresh` hears of the lowest epoch that somebody needs; it may be called again for the same one. */
  constructor(map: ClusterMap, readonly requestRefresh: (epoch: number) => void = () => {}) {
    this.#current = map;
    this.#index();
  }

  /** The newest map. Never changed in place. */
  get current(): ClusterMap {
    return this.#current;
  }

  /** Takes a map if it is newer; returns whether it was. */
  update(map: ClusterMap): boolean {
    if (map.epoch <= this.#current.epoch) return false;
    this.#current = map;
    this.#asked = 0;
    this.#index();
    for (const listener of [...this.#listeners]) listener(map);
    for (const [epoch, waiter] of [...this.#waiters]) {
      if (map.epoch <= epoch) continue;
      this.#waiters.delete(epoch);
      waiter.resolve();
    }
    return true;
  }

  /** Settles when the map's epoch is above `epoch`, at once if it is; asks for a refresh if it is not. */
  newer(epoch: number): Future<void> {
    if (this.#current.epoch > epoch) return Future.of<void>(undefined);
    let waiter = this.#waiters.get(epoch);
    if (waiter === undefined) {
      waiter = new Future<void>();
      this.#waiters.set(epoch, waiter);
    }
    this.requestRefresh(epoch + 1);
    return waiter;
  }

  /** A peer knows `epoch`: asks for that map once if it is newer than what is known. */
  heard(epoch: number): void {
    if (epoch <= this.#current.epoch || epoch <= this.#asked) return;
    this.#asked = epoch;
    this.requestRefresh(epoch);
  }

  /** Calls `listener` after every change, before those who wait for it go on. */
  onChange(listener: (map: ClusterMap) => void): void {
    this.#listeners.push(listener);
  }

  /** The server's entry, if the map has it. */
  server(id: number): ServerEntry | undefined {
    return this.#servers.get(id);
  }

  /** The volume's entry, if the map has it. */
  volume(id: number): VolumeEntry | undefined {
    return this.#volumes.get(id);
  }

  /** True when the session was given out and is not alive any more. */
  sessionIsDead(session: number): boolean {
    return session <= this.#current.sessionHorizon && !this.#sessions.has(session);
  }

  /** Server and store that serve a shard now; null while nobody does. */
  ownerOf(shard: number): Place | null {
    const server = this.#servers.get(primaryOf(this.#current, shard));
    return server === undefined ? null : { server: server.id, store: storeOfShard(shard, server.stores) };
  }

  /** The stores that serve shards: all that hold names or data. A server that has no shard yet is not among them. */
  get holders(): readonly Place[] {
    return this.#holders;
  }

  #index(): void {
    this.#servers = new Map(this.#current.servers.map((server) => [server.id, server]));
    this.#volumes = new Map(this.#current.volumes.map((volume) => [volume.id, volume]));
    this.#sessions = new Set(this.#current.sessions);
    const holders = new Map<string, Place>();
    this.#current.owners.forEach((ids, shard) => {
      for (const id of ids) {
        const server = this.#servers.get(id);
        if (server === undefined) continue;
        const store = storeOfShard(shard, server.stores);
        holders.set(`${id}/${store}`, { server: id, store });
      }
    });
    this.#holders = [...holders.values()];
  }
}
