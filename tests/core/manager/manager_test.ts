/**
 * The manager's promises, on a store in memory that can be "restarted" and with time passed by hand.
 *
 * @module
 */

import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import {
  isRefusal,
  Manager,
  type ManagerError,
  type ManagerOptions,
  placementSettleMs,
  type Registered,
  type Reply,
  sessionTimeoutMs,
  type StateStore,
} from "../../../core/manager/manager.ts";
import { decodeMap, rank, serverState, sessionIsDead, volumeState } from "../../../core/placement/map.ts";

/** Keeps what was committed; `crash` forgets the rest. */
class MemoryStore implements StateStore {
  committed = new Map<string, Uint8Array>();
  pending = new Map<string, Uint8Array | null>();
  get(key: string): Uint8Array | undefined {
    return this.pending.get(key) ?? this.committed.get(key);
  }
  put(key: string, value: Uint8Array): void {
    this.pending.set(key, value.slice());
  }
  remove(key: string): void {
    this.pending.set(key, null);
  }
  commit(): void {
    for (const [key, value] of this.pending) {
      if (value === null) this.committed.delete(key);
      else this.committed.set(key, value);
    }
    this.pending.clear();
  }
  crash(): void {
    this.pending.clear();
  }
}

const options: ManagerOptions = {
  newCluster: { clusterId: "cluster-one", shards: 64, replicas: 1 },
  expected: {},
  serverTimeoutMs: 5000,
};

function open(store: StateStore, nowMs = 0, changed: Partial<ManagerOptions> = {}): Manager {
  const manager = Manager.open(store, { ...options, ...changed }, nowMs);
  if (typeof manager === "string") throw new Error(manager);
  return manager;
}

function value<T>(reply: Reply<T>): T {
  if (isRefusal(reply)) throw new Error(`${reply.error}: ${reply.message}`);
  return reply;
}

function refusal(reply: unknown): ManagerError {
  assert(isRefusal(reply), "must be refused");
  return reply;
}

function registration(n: number, clusterId = "") {
  return {
    identity: `identity-of-server-${n}`,
    clusterId,
    address: `127.0.0.1:${9000 + n}`,
    stores: 1,
    weight: 100,
    capacityBytes: 1e9,
  };
}

function join(manager: Manager, n: number, nowMs = 0, clusterId = ""): Registered {
  return value(manager.registerServer(registration(n, clusterId), nowMs));
}

function beat(session: number, more: { swept?: number[]; volumes?: [] } = {}) {
  return {
    session,
    capacityBytes: 1e9,
    usedBytes: 5,
    requestsPerSecond: 0,
    hostLoad: 0,
    swept: [],
    volumes: [],
    ...more,
  };
}

Deno.test("Manager.open() formats an empty store and finds the same cluster after a restart", () => {
  const store = new MemoryStore();
  assertEquals(open(store).clusterId, "cluster-one");
  store.crash();
  const again = open(store, 0, { newCluster: { clusterId: "other", shards: 7, replicas: 1 } });
  assertEquals(again.clusterId, "cluster-one");
  assertEquals(again.map().shards, 64);
});

Deno.test("Manager.open() names both values when the settings contradict the store", () => {
  const store = new MemoryStore();
  open(store);
  const message = Manager.open(store, { ...options, expected: { shards: 128 } }, 0);
  assert(typeof message === "string");
  assertStringIncludes(message, "shards: 128");
  assertStringIncludes(message, "shards: 64");
});

Deno.test("Manager.open() refuses replicas that this version cannot keep, and leaves the store empty", () => {
  const store = new MemoryStore();
  const message = Manager.open(store, { ...options, newCluster: { clusterId: "c", shards: 8, replicas: 2 } }, 0);
  assertEquals(message, "replicas: 2 is not supported by this version");
  assertEquals(store.committed.size, 0);
});

Deno.test("Manager.open() refuses a store of another format and damaged bytes", () => {
  const store = new MemoryStore();
  open(store);
  const bytes = store.committed.get("cluster")!;
  store.committed.set("cluster", bytes.slice(0, 9));
  assertStringIncludes(String(Manager.open(store, options, 0)), "damaged");
  bytes[0] = 99;
  store.committed.set("cluster", bytes);
  assertStringIncludes(String(Manager.open(store, options, 0)), "format 99");
});

Deno.test("registerServer() gives every shard to the servers that are up, by rank()", () => {
  const manager = open(new MemoryStore());
  assertEquals(manager.map().owners, []);
  for (const n of [1, 2, 3]) join(manager, n);
  const map = manager.map();
  const servers = [1, 2, 3].map((id) => ({ id, weight: 100 }));
  assertEquals(map.owners, Array.from({ length: 64 }, (_, shard) => rank(shard, servers).slice(0, 1)));
  assertEquals(new Set(map.owners.flat()).size, 3);
});

Deno.test("registerServer() knows a server by its identity on another address once the old one was silent", () => {
  const manager = open(new MemoryStore());
  const first = join(manager, 1);
  const moved = { ...registration(1, "cluster-one"), address: "10.0.0.7:8085" };
  assertEquals(refusal(manager.registerServer(moved, 100)).error, "identityInUse");
  const again = value(manager.registerServer(moved, 5000));
  assertEquals(again.serverId, first.serverId);
  assertNotEquals(again.session, first.session);
  assertEquals(manager.map().servers.map((server) => server.address), ["10.0.0.7:8085"]);
});

Deno.test("registerServer() lets a killed server return at once on its own address, and its old process is out", () => {
  const manager = open(new MemoryStore());
  const first = join(manager, 1);
  const again = join(manager, 1, 10, "cluster-one");
  assertEquals(again.serverId, first.serverId);
  assertEquals(refusal(manager.serverHeartbeat(beat(first.session), 20)).error, "sessionDead");
  value(manager.serverHeartbeat(beat(again.session), 20));
  assertEquals(manager.map().servers.length, 1);
});

Deno.test("closeSession() of a server puts it down at once, and it may return anywhere", () => {
  const manager = ready();
  manager.closeSession(1);
  assertEquals(manager.map().servers.map((server) => server.state), [serverState.down, serverState.up]);
  assertEquals(refusal(manager.serverHeartbeat(beat(1), 1)).error, "sessionDead");
  const moved = { ...registration(1, "cluster-one"), address: "10.0.0.7:8085" };
  assertEquals(value(manager.registerServer(moved, 2)).serverId, 1);
  assertEquals(manager.map().servers.map((server) => server.state), [serverState.up, serverState.up]);
});

Deno.test("registerServer() refuses data of another cluster, and data the manager does not know", () => {
  const manager = open(new MemoryStore());
  const other = refusal(manager.registerServer(registration(1, "cluster-two"), 0));
  assertEquals(other.error, "wrongCluster");
  assertStringIncludes(other.message, "cluster-two");
  assertStringIncludes(other.message, "cluster-one");
  assertEquals(refusal(manager.registerServer(registration(1, "cluster-one"), 0)).error, "wrongCluster");
  assertEquals(manager.map().servers, []);
});

Deno.test("registerServer() of a new server on an address puts the one that was there down", () => {
  const manager = open(new MemoryStore());
  const old = join(manager, 1);
  const fresh = value(manager.registerServer({ ...registration(2), address: "127.0.0.1:9001" }, 10));
  assertNotEquals(fresh.serverId, old.serverId);
  assertEquals(manager.map().servers.map((server) => server.state), [serverState.down, serverState.up]);
  assertEquals(new Set(manager.map().owners.flat()), new Set([fresh.serverId]));
  assertEquals(refusal(manager.serverHeartbeat(beat(old.session), 20)).error, "sessionDead");
});

Deno.test("registerServer() refuses malformed registrations", () => {
  const manager = open(new MemoryStore());
  const wrong = [{ identity: "short" }, { address: "nohost" }, { address: "h:0" }, { stores: 0 }, { weight: -1 }, {
    capacityBytes: NaN,
  }];
  for (const change of wrong) {
    assertEquals(refusal(manager.registerServer({ ...registration(1), ...change }, 0)).error, "invalid");
  }
});

Deno.test("registerServer() refuses another number of stores than the data was made with", () => {
  const manager = open(new MemoryStore());
  join(manager, 1);
  const message = refusal(manager.registerServer({ ...registration(1, "cluster-one"), stores: 2 }, 0)).message;
  assertStringIncludes(message, "1 stores");
});

Deno.test("createVolume() waits until no server has joined for a while, then freezes the placement", () => {
  const manager = open(new MemoryStore());
  const asked = { name: "v", sizeBytes: 1 };
  assertEquals(refusal(manager.createVolume(asked, 0)).error, "noServers");
  join(manager, 1, 1000);
  const early = refusal(manager.createVolume(asked, 1500));
  assertEquals([early.error, early.retryAfterMs], ["settling", placementSettleMs - 500]);
  value(manager.createVolume(asked, 1000 + placementSettleMs));
  const owners = manager.map().owners;
  const late = join(manager, 2, 9000);
  assertEquals(manager.map().owners, owners);
  const status = manager.status(9000);
  assert(status.placementFrozen);
  const shown = status.servers.find((server) => server.id === late.serverId)!;
  assertEquals([shown.state, shown.shards], ["joining", 0]);
});

Deno.test("createVolume() with a number of servers waits for exactly that many", () => {
  const manager = open(new MemoryStore());
  join(manager, 1);
  assertEquals(refusal(manager.createVolume({ name: "v", sizeBytes: 1, servers: 2 }, 60_000)).error, "noServers");
  join(manager, 2, 60_000);
  value(manager.createVolume({ name: "v", sizeBytes: 1, servers: 2 }, 60_000));
});

Deno.test("createVolume() leaves a server that is down without shards; it joins later", () => {
  const manager = open(new MemoryStore());
  const first = join(manager, 1);
  const second = join(manager, 2);
  value(manager.serverHeartbeat(beat(second.session), 4000));
  manager.tick(5000);
  value(manager.createVolume({ name: "v", sizeBytes: 1 }, 5000));
  assertEquals(new Set(manager.map().owners.flat()), new Set([second.serverId]));
  value(manager.serverHeartbeat(beat(first.session), 6000));
  assertEquals(manager.map().servers[0].state, serverState.joining);
});

Deno.test("createVolume() refuses bad names and sizes, and names that exist", () => {
  const manager = ready();
  for (const name of ["", "..", ".", "a/b", "a b", "x".repeat(129), "ü"]) {
    assertEquals(refusal(manager.createVolume({ name, sizeBytes: 1 }, 0)).error, "invalid");
  }
  for (const sizeBytes of [0, -1, 1.5, NaN, Infinity]) {
    assertEquals(refusal(manager.createVolume({ name: "w", sizeBytes }, 0)).error, "invalid");
  }
  assertEquals(refusal(manager.createVolume({ name: "v", sizeBytes: 1 }, 0)).error, "exists");
});

/** Two servers with sessions 1 and 2, volume "v". */
function ready(store: StateStore = new MemoryStore()): Manager {
  const manager = open(store);
  join(manager, 1);
  join(manager, 2);
  value(manager.createVolume({ name: "v", sizeBytes: 1 << 20, servers: 2 }, 0));
  return manager;
}

Deno.test("tick() puts a silent server down, keeps its shards, and its heartbeat brings it up again", () => {
  const manager = ready();
  const owners = manager.map().owners, epoch = manager.epoch;
  value(manager.serverHeartbeat(beat(2), 3000));
  manager.tick(4999);
  assertEquals(manager.epoch, epoch);
  manager.tick(5000);
  assertEquals(manager.map().servers.map((server) => server.state), [serverState.down, serverState.up]);
  assertEquals(manager.map().owners, owners);
  value(manager.serverHeartbeat(beat(1), 6000));
  assertEquals(manager.map().servers.map((server) => server.state), [serverState.up, serverState.up]);
});

Deno.test("tick() declares a silent client session dead, and never one that beats", () => {
  const manager = ready();
  const a = value(manager.openSession({ host: "h", pid: 1 }, 0)).session;
  const b = value(manager.openSession({ host: "h", pid: 2 }, 0)).session;
  value(manager.clientHeartbeat({ session: b, mounts: [] }, 1000));
  manager.tick(sessionTimeoutMs);
  const map = manager.map();
  assert(sessionIsDead(map, a));
  assert(!sessionIsDead(map, b));
  assertEquals(refusal(manager.clientHeartbeat({ session: a, mounts: [] }, sessionTimeoutMs)).error, "sessionDead");
});

Deno.test("a restarted manager gives everyone a full timeout before it calls anyone dead or down", () => {
  const store = new MemoryStore();
  const session = value(ready(store).openSession({ host: "h", pid: 1 }, 0)).session;
  const start = 1e9;
  const manager = open(store, start);
  manager.tick(start + 4999);
  assertEquals(manager.map().servers.map((server) => server.state), [serverState.up, serverState.up]);
  assertEquals(manager.status(start).servers.map((server) => server.lastHeartbeatAgoMs), [null, null]);
  manager.tick(start + 5000);
  assertEquals(manager.map().servers.map((server) => server.state), [serverState.down, serverState.down]);
  assert(!sessionIsDead(manager.map(), session));
  manager.tick(start + sessionTimeoutMs);
  assert(sessionIsDead(manager.map(), session));
});

Deno.test("a restarted manager has the same map and never reuses a number", () => {
  const store = new MemoryStore();
  const before = ready(store);
  const session = value(before.openSession({ host: "h", pid: 1 }, 0)).session;
  before.closeSession(session);
  value(before.deleteVolume("v", false));
  for (const server of [1, 2]) value(before.serverHeartbeat(beat(server, { swept: [1] }), 0));
  assertEquals(before.listVolumes(), []);
  const manager = open(store);
  assertEquals(manager.map(), before.map());
  assertEquals(value(manager.openSession({ host: "h", pid: 1 }, 0)).session, session + 1);
  assertEquals(value(manager.createVolume({ name: "v", sizeBytes: 1 }, 0)).id, 2);
  assertEquals(join(manager, 9).serverId, 3);
});

Deno.test("deleteVolume() is refused while a session has it mounted, unless forced", () => {
  const manager = ready();
  const session = value(manager.openSession({ host: "box", pid: 1 }, 0)).session;
  value(manager.clientHeartbeat({ session, mounts: [{ volume: 1, path: "/mnt/x" }] }, 0));
  const busy = refusal(manager.deleteVolume("v", false));
  assertEquals(busy.error, "busy");
  assertStringIncludes(busy.message, "/mnt/x on box");
  assertEquals(value(manager.deleteVolume("v", true)).state, "deleting");
  assertEquals(manager.map().volumes[0].state, volumeState.deleting);
  assertEquals(refusal(manager.deleteVolume("v", true)).error, "notFound");
});

Deno.test("deleteVolume() waits after a restart until every client has said what it has mounted", () => {
  const store = new MemoryStore();
  const before = ready(store);
  const session = value(before.openSession({ host: "box", pid: 1 }, 0)).session;
  const mounts = [{ volume: 1, path: "/mnt/x" }];
  value(before.clientHeartbeat({ session, mounts }, 0));
  const manager = open(store);
  assertEquals(refusal(manager.deleteVolume("v", false)).error, "settling");
  value(manager.clientHeartbeat({ session, mounts }, 0));
  assertEquals(refusal(manager.deleteVolume("v", false)).error, "busy");
  value(manager.clientHeartbeat({ session, mounts: [] }, 0));
  value(manager.deleteVolume("v", false));
});

Deno.test("a volume in deletion is gone when every server with shards has swept it, and its name is free at once", () => {
  const manager = ready();
  join(manager, 3);
  value(manager.deleteVolume("v", false));
  const next = value(manager.createVolume({ name: "v", sizeBytes: 2 }, 0));
  assertEquals(next.id, 2);
  value(manager.serverHeartbeat(beat(1, { swept: [1, 2, 77] }), 0));
  assertEquals(manager.listVolumes().map((volume) => volume.id), [1, 2]);
  value(manager.serverHeartbeat(beat(2, { swept: [1] }), 0));
  assertEquals(manager.listVolumes().map((volume) => volume.id), [2]);
});

Deno.test("clientHeartbeat() refuses to mount a volume that is not live, and keeps what was mounted", () => {
  const manager = ready();
  const session = value(manager.openSession({ host: "box", pid: 1 }, 0)).session;
  assertEquals(
    refusal(manager.clientHeartbeat({ session, mounts: [{ volume: 9, path: "/a" }] }, 0)).error,
    "notFound",
  );
  const mounts = [{ volume: 1, path: "/a" }];
  value(manager.clientHeartbeat({ session, mounts }, 0));
  value(manager.deleteVolume("v", true));
  value(manager.clientHeartbeat({ session, mounts }, 0));
  const other = value(manager.openSession({ host: "box", pid: 2 }, 0)).session;
  assertEquals(refusal(manager.clientHeartbeat({ session: other, mounts }, 0)).error, "notFound");
});

Deno.test("heartbeats with malformed fields are refused", () => {
  const manager = ready();
  // deno-lint-ignore no-explicit-any
  const wrong: any[] = [{ swept: "x" }, { swept: [-1] }, { volumes: [{}] }, { usedBytes: -1 }, { hostLoad: "1" }];
  for (const change of wrong) {
    assertEquals(refusal(manager.serverHeartbeat({ ...beat(1), ...change }, 0)).error, "invalid");
  }
  const session = value(manager.openSession({ host: "box", pid: 1 }, 0)).session;
  // deno-lint-ignore no-explicit-any
  for (const mounts of [null, [null], [{ volume: 1 }], [{ volume: "1", path: "/" }]] as any[]) {
    assertEquals(refusal(manager.clientHeartbeat({ session, mounts }, 0)).error, "invalid");
  }
});

Deno.test("mapAfter() gives the map only to those who have an older one", () => {
  const manager = ready();
  const bytes = manager.mapAfter(0)!;
  const map = decodeMap(bytes);
  assertEquals(map, manager.map());
  assertEquals(manager.mapAfter(map.epoch), undefined);
  value(manager.openSession({ host: "h", pid: 1 }, 0));
  assertEquals(decodeMap(manager.mapAfter(map.epoch)!).epoch, manager.epoch);
  assert(manager.epoch > map.epoch);
});

Deno.test("status() adds up what servers say about volumes", () => {
  const manager = ready();
  const volumes = [{ id: 1, usedBytes: 100, inodes: 3 }];
  for (const session of [1, 2]) value(manager.serverHeartbeat({ ...beat(session), volumes }, 0));
  const [volume] = manager.status(10).volumes;
  assertEquals([volume.usedBytes, volume.inodes], [200, 6]);
  assertEquals(manager.status(10).servers.map((server) => server.lastHeartbeatAgoMs), [10, 10]);
});
