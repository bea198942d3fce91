/**
 * What a reader sees while another client writes.
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
import { bytes, Cluster, shards } from "../server/cluster.ts";

Deno.test("read() sees no zeros where a write ended while its answers were on their way", () => {
  const c = new Cluster(), chunk = 2 ** 20, user = { uid: 0, gid: 0, pid: 1, umask: 0 };
  const client = (session: number, node = c.world.node(`client ${session}`)) => {
    const maps = new MapHolder(c.map);
    const own = new ClientSession({ runtime: node, network: node, maps, secret: bytes("secret"), session });
    return { node, fs: new VolumeClient(own, { volumeId: 1 }) };
  };
  const reader = client(20), writer = client(21);
  const options = { mode: S.IFREG | 0o644, exclusive: true, open: true };
  // A file whose inode and second chunk are on different servers.
  let inode = 0;
  for (let i = 0; inode === 0; i++) {
    const made = c.runOn(writer.node, writer.fs.create(c.root, bytes(`f${i}`), options, user));
    if (failed(made)) throw new Error(`errno ${made}`);
    if (c.ownerOf(made.inode) !== c.map.owners[chunkShard(made.inode, 1, shards)][0] - 1) inode = made.inode;
  }
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
