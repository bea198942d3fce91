/**
 * What one client sees while another changes the same file.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { VolumeClient } from "../../../core/client/volume_client.ts";
import { ClientSession } from "../../../core/client/session.ts";
import { failed } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { chunkShard } from "../../../core/placement/hash.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import type { Node } from "../../sim/world.ts";
import { bytes, Cluster, shards } from "../server/cluster.ts";

/** Another client of a cluster. */
function join(c: Cluster, session: number): { node: Node; fs: VolumeClient } {
  const node = c.world.node(`client ${session}`), maps = new MapHolder(c.map);
  const own = new ClientSession({ runtime: node, network: node, maps, secret: bytes("secret"), session });
  return { node, fs: new VolumeClient(own, { volumeId: 1 }) };
}

/** Makes a file whose inode and chunks 1 and 2 are on three servers. */
function farFile(c: Cluster, { node, fs }: { node: Node; fs: VolumeClient }): number {
  const options = { mode: S.IFREG | 0o644, exclusive: true, open: true };
  const ownerOf = (inode: number, chunk: number) => c.map.owners[chunkShard(inode, chunk, shards)][0] - 1;
  for (let i = 0;; i++) {
    const made = c.runOn(node, fs.create(c.root, bytes(`f${i}`), options, { uid: 0, gid: 0, pid: 1, umask: 0 }));
    if (failed(made)) throw new Error(`errno ${made}`);
    const { inode } = made;
    if (new Set([c.ownerOf(inode), ownerOf(inode, 1), ownerOf(inode, 2)]).size === 3) return inode;
  }
}

Deno.test("read() sees no zeros where a write ended while its answers were on their way", () => {
  const c = new Cluster(), chunk = 2 ** 20, reader = join(c, 20), writer = join(c, 21);
  const inode = farFile(c, writer);
  const write = (offset: number, data: Uint8Array) =>
    assertEquals(failed(c.runOn(writer.node, writer.fs.write(inode, offset, data, { killSetId: false }))), false);
  write(0, new Uint8Array(chunk + 1000).fill(1));
  c.runOn(reader.node, reader.fs.getAttributes(inode));
  const { node: home } = c.servers[c.ownerOf(inode)];
  const into = new Uint8Array(chunk);
  for (const offset of [chunk, chunk - 100]) {
    // The chunk is read now; what says the size comes after the write.
    c.world.part(reader.node, home, "hold");
    const read = c.begin(reader.fs.read(inode, offset, into), reader.node);
    c.world.pass(200);
    write(offset === chunk ? chunk + 1000 : chunk + 2000, new Uint8Array(1000).fill(1));
    c.world.healAll();
    const result = c.end(read);
    if (failed(result)) throw new Error(`errno ${result}`);
    assertEquals(result.count, offset === chunk ? 2000 : 3100);
    assertEquals(into.subarray(0, result.count).indexOf(0), -1);
  }
});

Deno.test("write() waits for a truncation that another client began, however long it takes", () => {
  const c = new Cluster(), chunk = 2 ** 20, cutter = join(c, 20), writer = join(c, 21);
  const inode = farFile(c, writer), data = new Uint8Array(3 * chunk).fill(1);
  assertEquals(c.runOn(writer.node, writer.fs.write(inode, 0, data, { killSetId: false })), {});
  // The floor is set where chunk 1 is; the server of chunk 2 cannot be asked.
  const away = c.map.owners[chunkShard(inode, 2, shards)][0] - 1;
  c.kill(away);
  const cut = c.begin(cutter.fs.setAttributes(inode, { size: 10 }), cutter.node);
  c.world.pass(1000);
  const written = c.begin(writer.fs.write(inode, chunk, data.subarray(0, 100), { killSetId: false }), writer.node);
  c.world.pass(5000);
  c.start(away);
  assertEquals(failed(c.end(cut)), false);
  assertEquals(c.end(written), {});
  const found = c.runOn(cutter.node, cutter.fs.getAttributes(inode));
  assertEquals(failed(found) ? found : found.size, chunk + 100);
});
