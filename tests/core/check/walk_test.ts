/**
 * The check of a running cluster, in the simulated world: nothing is wrong while clients work, damage is found and
 * repaired while the servers run, damaged data is named by its path, a server that is away is an error and not a finding.
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { checkCluster, type CheckOptions, type CheckReport } from "../../../core/check/walk.ts";
import { type FileSystem, renameFlags } from "../../../core/client/filesystem.ts";
import { decodeChunk } from "../../../core/data/chunk_record.ts";
import { isRefusal } from "../../../core/manager/manager.ts";
import { type Attributes, S } from "../../../core/meta/attributes.ts";
import {
  chunkKey,
  decodeAttributes,
  encodeAttributes,
  inodeKey,
  keyNumber,
  kind,
  shardOf,
} from "../../../core/meta/layout.ts";
import { chunkShard } from "../../../core/placement/hash.ts";
import { decodeMap } from "../../../core/placement/map.ts";
import type { MapHolder } from "../../../core/placement/map_holder.ts";
import { Caller } from "../../../core/protocol/caller.ts";
import { peerKind, REPAIR, SCAN } from "../../../core/protocol/messages.ts";
import { type Task, wait } from "../../../core/task.ts";
import { Cluster } from "../../sim/cluster.ts";
import { Random } from "../../sim/random.ts";
import { type Node, World } from "../../sim/world.ts";
import { texts } from "./images.ts";

const megabyte = 1 << 20;
const user = { uid: 1000, gid: 1000, pid: 1, umask: 0o22 };
const bytes = (text: string) => new TextEncoder().encode(text);

function must<T>(result: T | number): T {
  if (typeof result === "number") throw new Error(`errno ${result}`);
  return result;
}

/** A cluster and someone who administers it. */
class Bench {
  readonly world: World;
  readonly cluster: Cluster;
  readonly node: Node;
  readonly maps: MapHolder;
  readonly caller: Caller;
  #kept = false;

  constructor(seed: number, { stores = 1, ioTimeoutMs = 10_000 } = {}) {
    this.world = new World(seed);
    this.cluster = new Cluster(this.world, {
      servers: 3,
      stores,
      clients: 2,
      shards: 12,
      volumeBytes: 64 * megabyte,
      ioTimeoutMs,
      callTimeoutMs: 1000,
      limits: { segmentBytes: megabyte, logBytesMax: 8 * megabyte, checkpointMs: 200, growBlocks: 4096 },
    });
    this.node = this.world.node("admin");
    this.cluster.boot();
    const manager = this.cluster.control.manager!;
    const opened = manager.openSession({ host: "admin", pid: 1 }, this.cluster.control.node.nowMs());
    if (isRefusal(opened)) throw new Error(opened.message);
    this.maps = this.cluster.followMap(this.node, decodeMap(opened.map.slice()));
    this.caller = new Caller({
      runtime: this.node,
      network: this.node,
      maps: this.maps,
      secret: this.cluster.secret,
      kind: peerKind.admin,
      session: opened.session,
      ioTimeoutMs,
    });
  }

  get fs(): FileSystem {
    return this.cluster.clients[0].fs!;
  }

  /** Runs a task on a node. */
  on<T>(node: Node, task: Task<T>): T {
    const done = node.spawn(task);
    this.world.run(() => done.settled, 600_000, "a task");
    return done.value;
  }

  /** Runs a task of the first client. */
  do<T>(task: (fs: FileSystem) => Task<T>): T {
    return this.on(this.cluster.clients[0].nodes[0], task(this.fs));
  }

  check(options: Partial<CheckOptions> = {}): CheckReport {
    const report = this.tryCheck(options);
    if (typeof report === "string") throw new Error(report);
    return report;
  }

  tryCheck(options: Partial<CheckOptions> = {}): CheckReport | string {
    const parts = { runtime: this.node, maps: this.maps, caller: this.caller };
    return this.on(this.node, checkCluster(parts, { verifyData: true, repair: false, ...options }));
  }

  /** Tells the manager for ever that the admin lives. */
  keepSession(): void {
    if (this.#kept) return;
    this.#kept = true;
    const { node, caller, cluster } = this;
    node.spawn((function* (): Task<void> {
      for (;;) {
        const beat = { session: caller.session, mounts: [] };
        yield* wait(cluster.control.ask(node, (manager, nowMs) => manager.clientHeartbeat(beat, nowMs)));
        yield* wait(node.sleep(5000));
      }
    })());
  }

  /** Changes a record behind everybody's back. */
  damage(key: Uint8Array, change: (value: Uint8Array | null) => Uint8Array | null): void {
    this.on(this.node, this.#damage(key, change));
  }

  *#damage(key: Uint8Array, change: (value: Uint8Array | null) => Uint8Array | null): Task<void> {
    const target = { shard: keyNumber(key, 0, 2) };
    const found = must(yield* this.caller.call(SCAN, target, { from: key, limitBytes: 1 })).body!.records[0];
    const expected = found?.key.toHex() === key.toHex() ? found.value : null;
    const value = change(expected?.slice() ?? null);
    const reply = yield* this.caller.call(REPAIR, target, { changes: [{ key, expected, value }], charges: [] });
    assertEquals(reply.status, 0);
  }

  edit(inode: number, change: Partial<Attributes>): void {
    this.damage(inodeKey(shardOf(inode), kind.inode, inode), (value) => {
      return encodeAttributes({ ...decodeAttributes(inode, value!), ...change });
    });
  }
}

/** A few directories and files, some of them far from their names. */
function* populate(fs: FileSystem): Task<{ dirs: number[]; files: number[]; big: number }> {
  const dirs = [fs.root], files: number[] = [];
  for (let i = 0; i < 6; i++) {
    dirs.push(must(yield* fs.makeDirectory(dirs[i >> 1], bytes(`dir${i}`), 0o755, user)).inode);
  }
  for (let i = 0; i < 12; i++) {
    const options = { mode: S.IFREG | 0o644, exclusive: true, open: false };
    const { inode } = must(yield* fs.create(dirs[i % dirs.length], bytes(`file${i}`), options, user));
    files.push(inode);
    must(yield* fs.write(inode, 0, new Uint8Array(i * 1500).fill(i), { killSetId: false }));
    if (i % 3 === 0) must(yield* fs.link(inode, dirs[(i + 1) % dirs.length], bytes(`link${i}`)));
  }
  const big = must(
    yield* fs.create(dirs[1], bytes("big"), { mode: S.IFREG | 0o644, exclusive: true, open: false }, user),
  ).inode;
  must(yield* fs.write(big, 0, new Uint8Array(3 * megabyte).fill(7), { killSetId: false }));
  const target = bytes("dir0/file1");
  must(yield* fs.create(dirs[2], bytes("sym"), { mode: S.IFLNK | 0o777, target, exclusive: true, open: false }, user));
  must(yield* fs.setExtendedAttribute(files[0], bytes("user.x"), bytes("value"), 0));
  return { dirs, files, big };
}

/** Random work until `until`; errors of all kinds are part of it. */
function* work(
  fs: FileSystem,
  node: Node,
  random: Random,
  dirs: readonly number[],
  until: () => boolean,
): Task<void> {
  const name = () => bytes(random.pick(["a", "b", "c", "d"]));
  while (!until()) {
    const dir = random.pick(dirs), other = random.pick(dirs), options = { mode: S.IFREG | 0o644, exclusive: false };
    const found = yield* fs.lookup(dir, name());
    const inode = typeof found === "number" ? 0 : found.inode;
    const file = typeof found !== "number" && (found.mode & S.IFMT) === S.IFREG;
    switch (random.below(11)) {
      case 0:
      case 1: {
        const made = yield* fs.create(dir, name(), { ...options, open: true }, user);
        if (typeof made === "number") break;
        yield* fs.write(made.inode, random.below(3 * megabyte), new Uint8Array(9000), { killSetId: false });
        yield* fs.release(made.inode);
        break;
      }
      case 2:
        yield* fs.makeDirectory(dir, name(), 0o755, user);
        break;
      case 3:
        yield* fs.unlink(dir, name());
        break;
      case 4:
        yield* fs.removeDirectory(dir, name());
        break;
      case 5:
      case 6:
        yield* fs.rename(dir, name(), other, name(), random.chance(0.3) ? renameFlags.exchange : 0);
        break;
      case 7:
        if (file) yield* fs.link(inode, other, name());
        break;
      case 8:
        if (file) yield* fs.setAttributes(inode, { size: random.below(2 * megabyte) });
        break;
      case 9:
        if (file) yield* fs.append(inode, new Uint8Array(5000), { killSetId: false });
        break;
      case 10: {
        const made = yield* fs.createUnnamed(dir, { mode: 0o644, linkable: true }, user);
        if (typeof made === "number") break;
        yield* fs.write(made.inode, random.below(2 * megabyte), new Uint8Array(5000), { killSetId: false });
        if (random.chance(0.6)) yield* fs.link(made.inode, other, name());
        yield* fs.release(made.inode);
        break;
      }
    }
    if (random.chance(0.2)) yield* wait(node.sleep(2));
  }
}

Deno.test("checkCluster() finds a cluster clean, and counts what is in it", () => {
  const bench = new Bench(1, { stores: 2 });
  bench.do(populate);
  bench.world.pass(3000);
  const report = bench.check();
  assertEquals(texts(report.findings), "");
  assertEquals({ inodes: report.inodes, names: report.names, shards: report.shards }, {
    inodes: 21,
    names: 24,
    shards: 12,
  });
  assertEquals(report.verifiedBytes, report.dataBytes);
  assert(report.dataBytes >= 3 * megabyte);
});

for (let seed = 1; seed <= 6; seed++) {
  Deno.test(`checkCluster() raises no false alarm while clients are at work (seed ${seed})`, () => {
    const bench = new Bench(seed);
    const { dirs } = bench.do(populate);
    if (seed % 2 === 0) bench.world.faults = { delayMs: [0.5, 20], loss: 0, duplicate: 0, stall: 0 };
    let operations = 0;
    const until = () => operations++ > 600;
    const working = bench.cluster.clients.map(({ fs, nodes }, i) => {
      return nodes[0].spawn(work(fs!, nodes[0], new Random(seed, `work ${i}`), dirs, until));
    });
    let checks = 0;
    for (; working.some((one) => !one.settled); checks++) {
      assertEquals(texts(bench.check().findings.filter(({ severity }) => severity !== "note")), "");
    }
    assert(checks > 0);
    bench.world.pass(3000);
    assertEquals(texts(bench.check().findings), "");
  });
}

for (let seed = 1; seed <= 6; seed++) {
  Deno.test(`checkCluster() finds nothing wrong after processes were killed at work (seed ${seed})`, () => {
    const bench = new Bench(seed), { cluster, world } = bench;
    const { dirs } = bench.do(populate);
    const random = new Random(seed, "kills");
    bench.keepSession();
    for (let round = 0; round < 4; round++) {
      let operations = 0;
      for (const [i, client] of cluster.clients.entries()) {
        const dice = new Random(seed, `work ${round} ${i}`);
        client.nodes[0].spawn(work(client.fs!, client.nodes[0], dice, dirs, () => operations++ > 10_000));
      }
      world.pass(20 + random.below(200));
      const victims = [...cluster.servers, ...cluster.clients].filter(() => random.chance(0.4));
      for (const victim of victims) victim.kill();
      world.pass(random.below(2000));
      for (const victim of victims) victim.start();
      operations = 10_000;
      const back = () => cluster.servers.every((one) => one.ready) && cluster.clients.every((one) => one.ready);
      world.run(back, 120_000, "everybody to be back");
      // The manager takes its time to declare the killed clients dead.
      world.pass(45_000);
      assertEquals(texts(bench.check().findings.filter(({ severity }) => severity !== "note")), "");
    }
    assertEquals(texts(bench.check({ repair: true }).findings), "");
  });
}

Deno.test("checkCluster() repairs damage while the servers run, and the volume works", () => {
  const bench = new Bench(3);
  const { dirs, files, big } = bench.do(populate);
  bench.world.pass(3000);
  const [root, dir0] = dirs;
  bench.edit(dir0, { nlink: 77, entries: 0 });
  bench.edit(files[3], { nlink: 9 });
  const lost = files[8];
  bench.damage(nameOf(bench, lost), () => null);
  const ghost = big + 1000, shard = chunkShard(ghost, 5, 12);
  bench.damage(inodeKey(shard, kind.floor, ghost), () => new Uint8Array(16));
  bench.damage(inodeKey(shardOf(files[2]), kind.orphan, files[2]), () => new Uint8Array(4));

  const found = bench.check();
  assertMatch(texts(found.findings), /has no name/);
  assertMatch(found.findings.find(({ inode }) => inode === files[3])!.path!, /^test:\/.*(file|link)3$/);
  const report = bench.check({ repair: true });
  assertEquals(texts(report.findings), "");
  assert(report.repaired.length >= 5, texts(report.repaired));
  assertEquals(texts(bench.check().findings), "");
  bench.do(function* (fs) {
    const home = must(yield* fs.lookup(root, bytes("lost+found")));
    const adopted = must(yield* fs.lookup(home.inode, bytes(`#${lost}`)));
    assertEquals(adopted.inode, lost);
    must(yield* fs.rename(home.inode, bytes(`#${lost}`), root, bytes("found again"), 0));
    const into = new Uint8Array(8 * 1500);
    assertEquals(must(yield* fs.read(lost, 0, into)).count, into.length);
    must(yield* fs.removeDirectory(root, bytes("lost+found")));
  });
  bench.world.pass(3000);
  assertEquals(texts(bench.check().findings), "");
});

Deno.test("checkCluster() sets usage right, and removes leaked chunks", () => {
  const bench = new Bench(4);
  const { big } = bench.do(populate);
  bench.world.pass(3000);
  // The file goes without its far chunks.
  for (const keyKind of [kind.inode, kind.mask]) bench.damage(inodeKey(shardOf(big), keyKind, big), () => null);
  const { findings } = bench.check();
  assertMatch(texts(findings), /leaked: 3 chunks with 3145728 bytes of inode/);
  const report = bench.check({ repair: true });
  assertEquals(texts(report.findings), "");
  assertEquals(report.dataBytes, bench.check().dataBytes);
  const used = bench.do((fs) => fs.statistics());
  assertEquals(must(used).usedBytes < 1 * megabyte, true);
  // What was freed can be used, and what is charged can be given back.
  bench.do(function* (fs) {
    const options = { mode: S.IFREG | 0o644, exclusive: true, open: false };
    const { inode } = must(yield* fs.create(fs.root, bytes("new"), options, user));
    must(yield* fs.write(inode, 0, new Uint8Array(3 * megabyte), { killSetId: false }));
    must(yield* fs.unlink(fs.root, bytes("new")));
  });
  bench.world.pass(3000);
  assertEquals(texts(bench.check().findings), "");
});

Deno.test("checkCluster() names the paths and bytes of damaged data, and leaves it alone", () => {
  const bench = new Bench(5);
  const { big } = bench.do(populate);
  bench.world.pass(3000);
  const shard = chunkShard(big, 2, 12), owner = bench.maps.ownerOf(shard)!;
  const server = bench.cluster.servers.find((one) => one.id === owner.server)!;
  const { granules } = decodeChunk(server.stores[owner.store].get(chunkKey(shard, big, 2))!);
  server.media[owner.store].container.corrupt(granules[2 * 3]);
  server.media[owner.store].container.corrupt(granules[2 * 4]);
  for (const repair of [false, true]) {
    const report = bench.check({ repair });
    assertEquals(report.findings.length, 1);
    const [{ text, path, severity }] = report.findings;
    assertEquals(severity, "error");
    assertEquals(path, "test:/dir0/big");
    assertMatch(text, /cannot be read whole \(EIO\): bytes 2109440 to 2117631 do not match/);
  }
  assertEquals(bench.check({ verifyData: false }).findings, []);
});

Deno.test("checkCluster() says which server does not answer", () => {
  const bench = new Bench(6, { ioTimeoutMs: 2000 });
  bench.cluster.servers[1].kill();
  assertMatch(
    String(bench.tryCheck()),
    /^shard \d+ cannot be read from server \d \(server2:8085\): no answer in time$/,
  );
});

/** Key of the first name of an inode in any store. */
function nameOf(bench: Bench, inode: number): Uint8Array {
  for (const server of bench.cluster.servers) {
    for (const media of server.media) {
      for (const [text, value] of media.image.entries()) {
        const key = Uint8Array.from(text, (c) => c.charCodeAt(0));
        if (key[2] !== kind.dentry || key.length !== 17) continue;
        const low = new DataView(value.buffer, value.byteOffset);
        if (low.getUint32(0, true) + low.getUint32(4, true) * 2 ** 32 === inode) return key;
      }
    }
  }
  throw new Error(`inode ${inode} has no name`);
}
