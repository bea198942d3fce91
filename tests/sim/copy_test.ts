/**
 * Copies on the servers' side under seeded troubles: what a copy acknowledges is there, byte for byte and hole for hole,
 * whatever was killed or lost on the way; a truncation beside it lets nothing come back; and nothing is left over.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { FileSystem } from "../../core/client/filesystem.ts";
import { E, failed, type Result } from "../../core/errno.ts";
import { S } from "../../core/meta/attributes.ts";
import { Future, type Task, wait } from "../../core/task.ts";
import { Cluster } from "./cluster.ts";
import { type Plan, type TroubleKind, Troubles } from "./faults.ts";
import { check } from "./fsck.ts";
import { chunkBytes, pattern } from "./model.ts";
import { Random } from "./random.ts";
import { World } from "./world.ts";

const full = Deno.env.get("SEALFS_TEST_FULL") === "1";
const seeds = full ? 500 : 25;
const megabyte = 1 << 20;
const who = { uid: 0, gid: 0, pid: 1, umask: 0 };
const kinds: readonly TroubleKind[] = ["killServer", "cutLinks", "partition", "pause", "killAllServers"];
const sourceBytes = 3 * chunkBytes + 70_000;
const bytes = (text: string) => new TextEncoder().encode(text);

function value<T extends object>(result: Result<T>): T {
  if (failed(result)) throw new Error(`errno ${result}`);
  return result;
}

/** One run. */
class Run {
  readonly world: World;
  readonly random: Random;
  readonly cluster: Cluster;
  readonly troubles: Troubles;
  /** What the sources hold. */
  readonly sparse = new Uint8Array(sourceBytes);
  readonly small = pattern(5, 3000);

  constructor(readonly seed: number) {
    this.world = new World(seed);
    this.random = new Random(seed, "copies");
    this.cluster = new Cluster(this.world, {
      servers: 3,
      stores: this.random.pick([1, 2]),
      clients: 2,
      shards: this.random.pick([4, 24]),
      volumeBytes: 256 * megabyte,
      ioTimeoutMs: 60_000,
      callTimeoutMs: this.random.pick([10_000, 100]),
      limits: { segmentBytes: 16 * megabyte, logBytesMax: 64 * megabyte, checkpointMs: 200, growBlocks: 4096 },
    });
    const network = this.random.pick(["calm", "lossy", "doubling", "jumbled"]);
    const plan: Plan = { network, kinds: this.random.chance(0.8) ? [this.random.pick(kinds)] : [], meanMs: 15 };
    this.troubles = new Troubles(this.cluster, plan, this.random.fork("troubles"));
  }

  play(): void {
    const { cluster } = this;
    cluster.boot();
    this.run((fs) => this.#prepare(fs));
    this.troubles.start();
    this.troubles.allow(20);
    const works = [0, 1].map((client) => this.begin(client, (fs) => this.#copies(fs, client)));
    works.push(this.begin(0, (fs) => this.#cutBeside(fs)), this.begin(1, (fs) => this.#shrunkUnder(fs)));
    this.world.run(() => works.every((one) => one.settled), 600_000, "the copies");
    this.troubles.stop();
    cluster.quiet();
    for (const one of works) this.run(one.value);
    this.run((fs) => this.#removeAll(fs));
    cluster.quiet();
    assertEquals(check(cluster.servers.flatMap((server) => server.stored()), cluster.control.manager!.map()), []);
  }

  begin<T>(client: number, task: (fs: FileSystem) => Task<T>): Future<T> {
    const { fs, nodes } = this.cluster.clients[client];
    return nodes[0].spawn(task(fs!));
  }

  run<T>(task: (fs: FileSystem) => Task<T>): T {
    const done = this.begin(0, task);
    this.world.run(() => done.settled, 600_000, "a task");
    return done.value;
  }

  *#file(fs: FileSystem, name: string): Task<number> {
    const options = { mode: S.IFREG | 0o644, exclusive: false, open: false };
    return value(yield* fs.create(fs.root, bytes(name), options, who)).inode;
  }

  *#write(fs: FileSystem, inode: number, offset: number, data: Uint8Array): Task<void> {
    value(yield* fs.write(inode, offset, data, { killSetId: false }));
  }

  *#content(fs: FileSystem, inode: number): Task<Uint8Array> {
    const { size } = value(yield* fs.getAttributes(inode)), into = new Uint8Array(size).fill(0xee);
    assertEquals(value(yield* fs.read(inode, 0, into)).count, size);
    return into;
  }

  *#prepare(fs: FileSystem): Task<void> {
    const sparse = yield* this.#file(fs, "sparse"), small = yield* this.#file(fs, "small");
    for (const [at, length] of [[100, 9000], [chunkBytes - 5000, 20_000], [3 * chunkBytes + 8192, 61_808]]) {
      const data = pattern(at % 97, length);
      this.sparse.set(data, at);
      yield* this.#write(fs, sparse, at, data);
    }
    yield* this.#write(fs, small, 0, this.small);
    const dense = yield* this.#file(fs, "dense");
    yield* this.#write(fs, dense, 0, pattern(9, 3 * chunkBytes));
  }

  /** Copies into a file of its own, as it is told to have gone. Returns the look at it when all is quiet. */
  *#copies(fs: FileSystem, client: number): Task<(fs: FileSystem) => Task<void>> {
    const random = this.random.fork(`client ${client}`), to = yield* this.#file(fs, `target${client}`);
    const sources = [[yield* this.#file(fs, "sparse"), this.sparse], [
      yield* this.#file(fs, "small"),
      this.small,
    ]] as const;
    let expected = new Uint8Array(0), sure = true;
    const grow = (size: number) => {
      const next = new Uint8Array(Math.max(size, expected.length));
      next.set(expected);
      expected = next;
    };
    for (let i = 0; i < 6 && sure; i++) {
      const [from, content] = random.pick(sources);
      const place = () => random.pick([0, 0, 1, 4096, 8192, chunkBytes - 100, chunkBytes, 2 * chunkBytes + 5]);
      const fromOffset = place(), toOffset = place(), length = random.pick([10, 5000, chunkBytes, sourceBytes]);
      const copied = yield* fs.copyRange({ from, fromOffset, to, toOffset, length, killSetId: false });
      // Given up: some of it may be there, or come.
      sure = !failed(copied);
      if (failed(copied)) {
        assertEquals(copied, E.IO);
        continue;
      }
      assertEquals(copied.count, Math.max(0, Math.min(length, content.length - fromOffset)));
      if (copied.count === 0) continue;
      grow(toOffset + copied.count);
      expected.set(content.subarray(fromOffset, fromOffset + copied.count), toOffset);
    }
    const content = (fs: FileSystem) => this.#content(fs, to), { seed } = this;
    return function* (fs) {
      if (sure) assert(equal(yield* content(fs), expected), `seed ${seed}: target ${client} differs`);
    };
  }

  /** Copies into a file that is cut meanwhile: every byte is the source's or zero, and what was cut stays away. */
  *#cutBeside(fs: FileSystem): Task<(fs: FileSystem) => Task<void>> {
    const { random, seed } = this, from = yield* this.#file(fs, "dense"), to = yield* this.#file(fs, "cut");
    const source = pattern(9, 3 * chunkBytes), node = this.cluster.clients[1].nodes[0];
    const looks = (content: Uint8Array) =>
      assert(
        content.every((byte, i) => byte === 0 || byte === source[i]),
        `seed ${seed}: the cut target has foreign bytes`,
      );
    const cut = node.spawn(function* (other: FileSystem): Task<void> {
      for (let i = 0; i < 4; i++) {
        yield* wait(node.sleep(random.between(1, 20)));
        yield* other.setAttributes(to, { size: random.pick([0, 100, chunkBytes, chunkBytes + 5000, 2 * chunkBytes]) });
      }
    }(this.cluster.clients[1].fs!));
    for (let i = 0; i < 3; i++) {
      yield* fs.copyRange({ from, fromOffset: 0, to, toOffset: 0, length: 3 * chunkBytes, killSetId: false });
    }
    yield* wait(cut);
    const content = (fs: FileSystem) => this.#content(fs, to);
    return function* (fs) {
      looks(yield* content(fs));
      value(yield* fs.setAttributes(to, { size: 50 }));
      value(yield* fs.setAttributes(to, { size: 3 * chunkBytes }));
      const after = yield* content(fs);
      assert(after.subarray(50).every((byte) => byte === 0), `seed ${seed}: what was cut came back`);
    };
  }

  /**
   * Copies from a file that becomes shorter: what is said to be copied are bytes that it had, never the zeros of a cut
   * whose size was not known yet.
   */
  *#shrunkUnder(fs: FileSystem): Task<(fs: FileSystem) => Task<void>> {
    const { random, seed } = this, node = this.cluster.clients[0].nodes[0], other = this.cluster.clients[0].fs!;
    const from = yield* this.#file(fs, "shrinks"), to = yield* this.#file(fs, "shrunk");
    const source = pattern(11, 2 * chunkBytes + 9000), size = random.pick([0, 5000, chunkBytes + 5000]);
    yield* this.#write(fs, from, 0, source);
    const shrinking = node.spawn(function* (): Task<void> {
      yield* wait(node.sleep(random.between(0, 12)));
      yield* other.setAttributes(from, { size });
    }());
    const copied = yield* fs.copyRange({
      from,
      fromOffset: 0,
      to,
      toOffset: 0,
      length: source.length,
      killSetId: false,
    });
    yield* wait(shrinking);
    const content = (fs: FileSystem) => this.#content(fs, to);
    return function* (fs) {
      if (failed(copied)) return;
      const got = yield* content(fs);
      assert(got.length >= copied.count, `seed ${seed}: ${got.length} bytes, ${copied.count} copied`);
      for (let i = 0; i < copied.count; i++) {
        if (got[i] === source[i]) continue;
        throw new Error(`seed ${seed}: byte ${i} was copied wrong`);
      }
    };
  }

  *#removeAll(fs: FileSystem): Task<void> {
    for (const { name } of value(yield* fs.readDirectory(fs.root, 0, 65536, { plus: false }))) {
      value(yield* fs.unlink(fs.root, name));
    }
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

Deno.test(`copyRange() keeps its promises under troubles in ${seeds} seeds`, () => {
  for (let seed = 1; seed <= seeds; seed++) {
    try {
      new Run(seed).play();
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.stack : error}`);
    }
  }
});
