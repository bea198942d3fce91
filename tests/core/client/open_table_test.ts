/**
 * Files that are opened under a lease, without a word to the server: they outlive their names, and the server hears of
 * them before it matters. Three servers of the real core.
 *
 * @module
 */

import { assertEquals, assertLess } from "@std/assert";
import { VolumeClient } from "../../../core/client/volume_client.ts";
import { ClientSession } from "../../../core/client/session.ts";
import { E, failed } from "../../../core/errno.ts";
import { S } from "../../../core/meta/attributes.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import type { Task } from "../../../core/task.ts";
import type { Node } from "../../sim/world.ts";
import { bytes, Cluster } from "../server/cluster.ts";

const caller = { uid: 0, gid: 0, pid: 1, umask: 0 };
const text = "contents";

class Client {
  readonly node: Node;
  readonly session: ClientSession;
  readonly fs: VolumeClient;

  constructor(readonly cluster: Cluster, session: number) {
    this.node = cluster.world.node(`client ${session}`);
    const maps = new MapHolder(cluster.map), secret = bytes("secret");
    this.session = new ClientSession({ runtime: this.node, network: this.node, maps, secret, session });
    this.fs = new VolumeClient(this.session, { volumeId: 1 });
  }

  run<T>(task: Task<T>): T {
    return this.cluster.runOn(this.node, task);
  }

  /** Makes a file with {@linkcode text} in it. */
  file(name: string): number {
    const options = { mode: S.IFREG | 0o644, exclusive: true, open: false };
    const made = this.run(this.fs.create(this.cluster.root, bytes(name), options, caller));
    if (failed(made)) throw new Error(`errno ${made}`);
    assertEquals(this.run(this.fs.write(made.inode, 0, bytes(text), { killSetId: false })), {});
    return made.inode;
  }

  /** Looks a file up and opens it; how many opens the server has not been told of then. */
  open(name: string): number {
    const found = this.run(this.fs.lookup(this.cluster.root, bytes(name)));
    if (failed(found)) throw new Error(`errno ${found}`);
    assertEquals(failed(this.run(this.fs.open(found.inode, { truncate: false }))), false);
    return this.session.opens.untold;
  }

  read(inode: number): string | number {
    const into = new Uint8Array(100), read = this.run(this.fs.read(inode, 0, into));
    return failed(read) ? read : new TextDecoder().decode(into.subarray(0, read.count));
  }

  unlink(name: string): void {
    assertEquals(this.run(this.fs.unlink(this.cluster.root, bytes(name))), {});
  }
}

/** A cluster, its clients, and the requests of a kind that the servers were sent during `work`. */
function clients(): { c: Cluster; a: Client; b: Client } {
  const c = new Cluster();
  return { c, a: new Client(c, 20), b: new Client(c, 21) };
}

Deno.test("open() under a lease sends nothing, and neither does the close", () => {
  const { c, a } = clients(), inode = a.file("f");
  a.run(a.fs.lookup(c.root, bytes("f")));
  const before = { ...a.session.caller.roundTrips };
  assertEquals(a.open("f"), 1);
  a.run(a.fs.release(inode));
  c.world.pass(100);
  assertEquals(a.session.caller.roundTrips, before);
  assertEquals([a.session.opens.size, a.session.opens.untold], [0, 0]);
});

Deno.test("a file opened under a lease outlives its name, whoever removes it", () => {
  for (const other of [true, false]) {
    const { c, a, b } = clients(), inode = a.file("f");
    assertEquals(a.open("f"), 1);
    (other ? b : a).unlink("f");
    assertEquals(a.session.opens.untold, 0);
    c.world.pass(10_000);
    assertEquals(a.read(inode), text);
    a.run(a.fs.release(inode));
    c.world.pass(10_000);
    assertEquals(a.read(inode), E.STALE);
  }
});

Deno.test("a file opened under a lease outlives the name that another file takes", () => {
  const { c, a } = clients(), inode = a.file("f");
  a.file("g");
  assertEquals(a.open("f"), 1);
  assertEquals(a.run(a.fs.rename(c.root, bytes("g"), c.root, bytes("f"), 0)), {});
  c.world.pass(10_000);
  assertEquals(a.read(inode), text);
});

Deno.test("the server is told of what stays open, before the lease runs out", () => {
  const { c, a, b } = clients(), inode = a.file("f");
  assertEquals(a.open("f"), 1);
  c.world.pass(1_000);
  assertEquals(a.session.opens.untold, 0);
  c.world.pass(10_000);
  b.unlink("f");
  assertEquals(a.read(inode), text);
});

Deno.test("a file opened under a lease is claimed from a server that was started anew", () => {
  const { c, a, b } = clients(), inode = a.file("f");
  assertEquals(a.open("f"), 1);
  const server = c.ownerOf(inode);
  c.kill(server);
  c.start(server);
  c.world.pass(5_000);
  b.unlink("f");
  c.world.pass(10_000);
  assertEquals(a.read(inode), text);
});

Deno.test("finish() returns all leases: nobody waits for a session that has ended", () => {
  const { a, b } = clients();
  a.file("f");
  a.open("f");
  b.file("g");
  a.open("f");
  a.run(a.session.finish());
  a.session.close();
  const beganMs = b.node.nowMs();
  b.unlink("f");
  assertLess(b.node.nowMs() - beganMs, 500);
});

Deno.test("open() asks the server while a removal of this client is under way", () => {
  const { c, a } = clients(), inode = a.file("f");
  a.file("g");
  a.run(a.fs.lookup(c.root, bytes("f")));
  a.session.opens.beginRemoval();
  assertEquals(a.open("f"), 0);
  a.session.opens.endRemoval();
  a.run(a.fs.release(inode));
  c.world.pass(100);
  assertEquals(a.session.opens.size, 0);
});
