/**
 * Room that fallocate(2) makes: what it takes, what it promises on a full volume, and how it goes again. Over three
 * servers of the real core and a volume of 8 MiB.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { VolumeClient } from "../../../core/client/volume_client.ts";
import { ClientSession } from "../../../core/client/session.ts";
import { E, failed, type Result } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import type { Task } from "../../../core/task.ts";
import { bytes, Cluster } from "../server/cluster.ts";

const megabyte = 2 ** 20, block = 4096;
/** Modes of fallocate(2). */
const keepSize = 1, punch = 3, zeroRange = 16;
/** Files that lie in chunk 0 alone, in far chunks alone, and in both; with a small file before. */
const ranges: readonly [number, number][] = [[0, 10 * block], [100, 5000], [megabyte, 3 * megabyte], [
  5000,
  3 * megabyte,
]];

/** A client of three servers with a volume of 8 MiB. */
class Small {
  readonly cluster = new Cluster(8 * megabyte);
  readonly node = this.cluster.world.node("client 20");
  readonly fs: VolumeClient;

  constructor() {
    const maps = new MapHolder(this.cluster.map);
    const session = new ClientSession({
      runtime: this.node,
      network: this.node,
      maps,
      secret: bytes("secret"),
      session: 20,
    });
    this.fs = new VolumeClient(session, { volumeId: 1 });
  }

  run<T>(task: Task<T>): T {
    return this.cluster.runOn(this.node, task);
  }

  must<T extends object>(task: Task<Result<T>>): T {
    const result = this.run(task);
    if (failed(result)) throw new Error(`errno ${result}`);
    return result;
  }

  file(name: string): number {
    const options = { mode: S.IFREG | 0o644, exclusive: true, open: true };
    return this.must(this.fs.create(this.fs.root, bytes(name), options, { uid: 0, gid: 0, pid: 1, umask: 0 })).inode;
  }

  write(inode: number, offset: number, length: number): number {
    const result = this.run(this.fs.write(inode, offset, new Uint8Array(length).fill(7), { killSetId: false }));
    return failed(result) ? result : 0;
  }

  allocate(inode: number, mode: number, offset: number, length: number): number {
    const result = this.run(this.fs.allocate(inode, { mode, offset, length, killSetId: false }));
    return failed(result) ? result : 0;
  }

  read(inode: number, offset: number, length: number): Uint8Array {
    const into = new Uint8Array(length).fill(0xee);
    return into.subarray(0, this.must(this.fs.read(inode, offset, into)).count);
  }

  attributes(inode: number) {
    return this.must(this.fs.getAttributes(inode));
  }

  usedBytes(): number {
    return this.must(this.fs.statistics()).usedBytes;
  }

  /** Writes a file until nothing more goes in. */
  fill(name: string): number {
    const inode = this.file(name);
    let at = 0;
    for (const step of [256 * 1024, block]) {
      while (this.write(inode, at, step) === 0) at += step;
    }
    assertEquals(this.write(inode, at, block), E.NOSPC);
    return inode;
  }
}

function allZeros(data: Uint8Array): boolean {
  return data.every((byte) => byte === 0);
}

for (const [start, end] of ranges) {
  const blocks = Math.ceil(end / block) - Math.floor(start / block);

  Deno.test(`allocate() of ${start} to ${end} takes the space, which reads as a hole of zeros`, () => {
    const small = new Small(), inode = small.file("f");
    assertEquals(small.allocate(inode, 0, start, end - start), 0);
    const { size, blocks: units } = small.attributes(inode);
    assertEquals([size, units], [end, blocks * 8]);
    assertEquals(small.usedBytes(), blocks * block);
    assert(allZeros(small.read(inode, 0, end)));
    assertEquals(small.run(small.fs.seek(inode, 0, "data")), E.NXIO);
    assertEquals(small.must(small.fs.seek(inode, 0, "hole")).offset, 0);
    assertEquals(small.allocate(inode, 0, start, end - start), 0);
    assertEquals([small.attributes(inode).blocks, small.usedBytes()], [blocks * 8, blocks * block]);
  });

  Deno.test(`writes to ${start} to ${end} that was allocated succeed on a full volume, again and again`, () => {
    const small = new Small(), inode = small.file("f");
    assertEquals(small.allocate(inode, keepSize, start, end - start), 0);
    assertEquals(small.attributes(inode).size, 0);
    small.fill("rest");
    const used = small.usedBytes();
    for (let round = 0; round < 3; round++) assertEquals(small.write(inode, start, end - start), 0);
    assertEquals(small.write(inode, start + 1, 1), 0);
    assertEquals(small.allocate(inode, 0, start, end - start), 0);
    assertEquals([small.usedBytes(), small.attributes(inode).blocks], [used, blocks * 8]);
    assertEquals(small.write(inode, end + 2 * block, block), E.NOSPC);
    assertEquals(small.allocate(inode, 0, end + 2 * block, block), E.NOSPC);
    assert(small.read(inode, start, end - start).every((byte) => byte === 7));
  });

  Deno.test(`zeroing ${start} to ${end} keeps the space, punching gives it back`, () => {
    const small = new Small(), inode = small.file("f");
    assertEquals(small.write(inode, 0, end + 100), 0);
    const before = small.attributes(inode).blocks, used = small.usedBytes();
    assertEquals(small.allocate(inode, zeroRange | keepSize, start, end - start), 0);
    assert(allZeros(small.read(inode, start, end - start)));
    assertEquals([...small.read(inode, end, 200)], Array(100).fill(7));
    assert(small.read(inode, 0, start).every((byte) => byte === 7));
    assertEquals([small.attributes(inode).blocks, small.usedBytes()], [before, used]);
    assertEquals(small.allocate(inode, punch, start, end - start), 0);
    const whole = Math.max(0, Math.floor(end / block) - Math.ceil(start / block));
    assertEquals([small.attributes(inode).blocks, small.usedBytes()], [before - whole * 8, used - whole * block]);
  });
}

Deno.test("allocate() keeps the contents of a small file and of what is written already", () => {
  const small = new Small(), inode = small.file("f");
  assertEquals(small.write(inode, 10, 100), 0);
  assertEquals(small.allocate(inode, 0, 50, 3 * block), 0);
  const read = small.read(inode, 0, 20000);
  assertEquals(read.length, 50 + 3 * block);
  assert(read.subarray(10, 110).every((byte) => byte === 7) && allZeros(read.subarray(110)));
  assertEquals(small.attributes(inode).blocks, 4 * 8);
  assertEquals(small.usedBytes(), 4 * block);
});

Deno.test("room is there after a restart of the servers, and goes with a truncation and with the file", () => {
  const small = new Small(), inode = small.file("f");
  assertEquals(small.allocate(inode, 0, 0, 4 * megabyte), 0);
  for (const id of [0, 1, 2]) small.cluster.kill(id);
  for (const id of [0, 1, 2]) small.cluster.start(id);
  assertEquals([small.usedBytes(), small.attributes(inode).blocks], [4 * megabyte, 4 * megabyte / 512]);
  small.fill("rest");
  assertEquals(small.write(inode, 3 * megabyte - 10, 5000), 0);
  small.must(small.fs.unlink(small.fs.root, bytes("rest")));
  small.must(small.fs.setAttributes(inode, { size: 10_000 }));
  assertEquals(small.attributes(inode).blocks, 3 * 8);
  small.must(small.fs.unlink(small.fs.root, bytes("f")));
});

Deno.test("allocate() of more than the volume has is ENOSPC and takes nothing", () => {
  const small = new Small(), inode = small.file("f");
  assertEquals(small.allocate(inode, 0, 0, 2 ** 40), E.NOSPC);
  assertEquals([small.attributes(inode).blocks, small.usedBytes(), small.attributes(inode).size], [0, 0, 0]);
});

Deno.test("data is overwritten on a full volume", () => {
  const small = new Small(), inode = small.fill("f"), { size } = small.attributes(inode);
  for (const [offset, length] of [[0, block], [100, 5000], [megabyte - 10, 20], [megabyte, 2 * megabyte]]) {
    assertEquals(small.write(inode, offset, length), 0);
  }
  assertEquals(small.attributes(inode).size, size);
});
