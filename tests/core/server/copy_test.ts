/**
 * COPY and COPY_CHUNK by a whole client: bytes go from server to server, holes stay holes.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { ClientSession } from "../../../core/client/session.ts";
import { VolumeClient } from "../../../core/client/volume_client.ts";
import { E, failed, type Result } from "../../../core/errno.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import * as m from "../../../core/protocol/messages.ts";
import { chunkShard } from "../../../core/placement/hash.ts";
import { bytes, Cluster, shards } from "./cluster.ts";

const chunk = 1 << 20, granule = 4096;

function value<T extends object>(result: Result<T>): T {
  if (failed(result)) throw new Error(`errno ${result}`);
  return result;
}

const pattern = (length: number, tag = 1) => new Uint8Array(length).map((_, i) => 1 + (i * 7 + (i >>> 9) + tag) % 255);

/** A cluster and a client of it. */
class Copying {
  readonly c = new Cluster();
  readonly session: ClientSession;
  readonly volume: VolumeClient;

  constructor() {
    const { c } = this;
    const maps = new MapHolder(c.map), secret = bytes("secret");
    this.session = new ClientSession({ runtime: c.client, network: c.client, maps, secret, session: 11 });
    this.volume = new VolumeClient(this.session, { volumeId: 1 });
  }

  file(name: string, stretches: readonly (readonly [offset: number, data: Uint8Array])[]): number {
    const { inode } = this.c.create(this.c.root, name);
    for (const [offset, data] of stretches) {
      value(this.c.run(this.volume.write(inode, offset, data, { killSetId: false })));
    }
    return inode;
  }

  copy(from: number, fromOffset: number, to: number, toOffset: number, length: number): number {
    const copied = this.c.run(this.volume.copyRange({ from, fromOffset, to, toOffset, length, killSetId: false }));
    return failed(copied) ? -copied : copied.count;
  }

  content(inode: number): Uint8Array {
    const into = new Uint8Array(this.c.attributes(inode).size).fill(0xee);
    assertEquals(value(this.c.run(this.volume.read(inode, 0, into))).count, into.length);
    return into;
  }

  get traffic(): number {
    const { bytesSent, bytesReceived } = this.session.caller.counters;
    return bytesSent + bytesReceived;
  }
}

Deno.test("copyRange() moves no bytes through the client and takes the space of the source", () => {
  const w = new Copying(), size = 5 * chunk + 10_000;
  const from = w.file("from", [
    [100, pattern(50_000)],
    [chunk - 3 * granule, pattern(8 * granule, 2)],
    [4 * chunk, pattern(chunk + 10_000, 3)],
  ]);
  const to = w.file("to", []), before = w.traffic;
  assertEquals(w.copy(from, 0, to, 0, 10 * chunk), size);
  assert(w.traffic - before < 32 * 1024, `${w.traffic - before} bytes through the client`);
  assertEquals(w.content(to), w.content(from));
  assertEquals(w.c.attributes(to).blocks, w.c.attributes(from).blocks);
  // What stood where the source has holes goes.
  const full = w.file("full", [[0, pattern(size, 9)]]);
  assertEquals(w.copy(from, 0, full, 0, size), size);
  assertEquals([w.content(full), w.c.attributes(full).blocks], [w.content(from), w.c.attributes(from).blocks]);
  w.c.world.pass(100);
  const used = w.c.servers.reduce((sum, { server }) => sum + server.engine.store.usage(1).bytes, 0);
  assertEquals(used, 3 * w.c.attributes(from).blocks * 512);
});

Deno.test("copyRange() copies between any offsets, within a file too, and from inline files", () => {
  const w = new Copying(), source = pattern(3 * chunk + 777);
  const from = w.file("from", [[0, source]]), to = w.file("to", [[0, pattern(9000, 5)]]);
  const expected = new Uint8Array(2 * chunk + 1500);
  expected.set(pattern(9000, 5));
  expected.set(source.subarray(chunk - 777, 3 * chunk - 777), 1500);
  assertEquals(w.copy(from, chunk - 777, to, 1500, 2 * chunk), 2 * chunk);
  assertEquals(w.content(to), expected);
  assertEquals(w.copy(to, 0, to, chunk, 5000), 5000);
  expected.copyWithin(chunk, 0, 5000);
  assertEquals(w.content(to), expected);
  const small = w.file("small", [[0, pattern(100, 8)]]), other = w.file("other", []);
  assertEquals(w.copy(small, 10, other, 20, 4096), 90);
  assertEquals(w.content(other).subarray(20), pattern(100, 8).subarray(10));
  assertEquals(w.copy(small, 0, to, 2 * chunk, 100), 100);
  expected.set(pattern(100, 8), 2 * chunk);
  assertEquals(w.content(to), expected);
  assertEquals([w.copy(small, 100, to, 0, 10), w.copy(small, 0, w.c.root, 0, 10)], [0, -E.ISDIR]);
});

Deno.test("COPY_CHUNK of an older gen is refused, and ranges that cannot be are", () => {
  const w = new Copying(), { c } = w;
  const from = w.file("from", [[0, pattern(2 * chunk)]]), to = w.file("to", [[0, pattern(2 * chunk, 2)]]);
  value(c.run(w.volume.setAttributes(to, { size: 10 })));
  const shard = chunkShard(to, 1, shards), source = { inode: from, chunk: 1, offset: 0, gen: 0 };
  const ask = (body: object) =>
    c.run(c.caller.call(m.COPY_CHUNK, { shard }, {
      inode: to,
      volume: 1,
      gen: 9,
      chunk: 1,
      offset: 0,
      length: 100,
      source,
      ...body,
    })).status;
  assertEquals([ask({}), ask({ gen: 0 })], [0, 1004]);
  assertEquals([ask({ length: 0 }), ask({ offset: chunk - 50 })], [E.INVAL, E.INVAL]);
  assertEquals(ask({ source: { ...source, offset: chunk - 50 } }), E.INVAL);
  assertEquals(ask({ source: { ...source, inode: 9e15 } }), E.STALE);
});
