/**
 * What operations cost: requests of the client, requests of servers among themselves, and writes to logs, counted in a
 * simulated cluster of three servers where nothing goes wrong. The numbers are those of the calls that the kernel makes
 * for a program's system call, with every path looked up anew.
 */

import { assert, assertEquals } from "@std/assert";
import type { FileSystem } from "../../core/client/filesystem.ts";
import { renameFlags } from "../../core/client/filesystem.ts";
import { E } from "../../core/errno.ts";
import { type Attributes, S } from "../../core/meta/attributes.ts";
import { shardOf } from "../../core/meta/layout.ts";
import type { Task } from "../../core/task.ts";
import { Cluster } from "./cluster.ts";
import { World } from "./world.ts";

const megabyte = 1 << 20;
/** Upkeep of links and handles, which no operation waits for. */
const upkeep = ["HELLO", "PROVE", "PING", "RECLAIM", "RELEASE"];
const caller = { uid: 1000, gid: 1000, pid: 1, umask: 0o22 };
const operationMsMax = 10_000;

/** What an operation cost. */
interface Cost {
  /** Requests of the client by name. */
  client: Record<string, number>;
  /** Requests of servers to servers. */
  servers: number;
  /** Writes to logs, over all servers; each makes what it acknowledges survive a kill. */
  logWrites: number;
  /** Syncs of logs. */
  syncs: number;
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function must<T>(result: T | number): T {
  if (typeof result === "number") throw new Error(`errno ${result}`);
  return result;
}

/** A cluster whose operations are counted. */
class Counted {
  readonly world = new World(1);
  readonly cluster = new Cluster(this.world, {
    servers: 3,
    stores: 1,
    clients: 1,
    shards: 24,
    volumeBytes: 256 * megabyte,
    ioTimeoutMs: 60_000,
    callTimeoutMs: 10_000,
    limits: { segmentBytes: 16 * megabyte, logBytesMax: 64 * megabyte, checkpointMs: 3_600_000, growBlocks: 4096 },
  });

  constructor() {
    this.cluster.boot();
    this.run(function* (fs) {
      // Links are up, credit is drawn: what comes once is not counted.
      for (let number = 0; number < 40; number++) {
        const folder = must(yield* fs.makeDirectory(fs.root, utf8(`warm${number}`), 0o755, caller));
        const file = must(yield* create(fs, folder.inode, "f", true));
        must(yield* fs.write(file.inode, 0, new Uint8Array(4 * megabyte), { killSetId: false }));
        must(yield* fs.release(file.inode));
      }
    });
  }

  get fs(): FileSystem {
    return this.cluster.clients[0].fs!;
  }

  /** Runs a task on the client. */
  run<T>(task: (fs: FileSystem) => Task<T>): T {
    const done = this.cluster.clients[0].nodes[0].spawn(task(this.fs));
    this.world.run(() => done.settled, operationMsMax, "an operation");
    return done.value;
  }

  /** Runs a task on the client when everything is quiet, and tells what it cost. */
  cost(task: (fs: FileSystem) => Task<unknown>): Cost {
    this.cluster.quiet();
    const before = this.#totals();
    this.run(task);
    const after = this.#totals();
    const client: Record<string, number> = {};
    for (const [name, count] of Object.entries(after.client)) {
      const more = count - (before.client[name] ?? 0);
      if (more > 0 && !upkeep.includes(name)) client[name] = more;
    }
    return {
      client,
      servers: after.servers - before.servers,
      logWrites: after.logWrites - before.logWrites,
      syncs: after.syncs - before.syncs,
    };
  }

  #totals(): Cost {
    const { clients, servers } = this.cluster;
    let between = 0, logWrites = 0, syncs = 0;
    for (const server of servers) {
      for (const one of server.servers) {
        for (const [name, count] of Object.entries(one.caller.roundTrips)) if (!upkeep.includes(name)) between += count;
      }
      for (const media of server.media) {
        logWrites += media.log.writes;
        syncs += media.log.syncs;
      }
    }
    return { client: { ...clients[0].session!.caller.roundTrips }, servers: between, logWrites, syncs };
  }
}

function create(fs: FileSystem, dir: number, name: string, open: boolean): Task<Attributes | number> {
  return fs.create(dir, utf8(name), { mode: S.IFREG | 0o644, exclusive: false, open }, caller);
}

/** The server that a directory and the files in it are on. */
function placed(counted: Counted, inode: number): number {
  return counted.cluster.clients[0].maps!.ownerOf(shardOf(inode))!.server;
}

/** A directory made in `parent`, on a server other than `not`: where it is follows from its name. */
function folder(counted: Counted, parent: number, prefix: string, not: number): { made: Attributes; name: Uint8Array } {
  for (let number = 0; number < 100; number++) {
    const name = utf8(`${prefix}${number}`);
    const made = must(counted.run((fs) => fs.makeDirectory(parent, name, 0o755, caller)));
    if (placed(counted, made.inode) !== not) return { made, name };
  }
  throw new Error("every directory is on the same server");
}

Deno.test("operations cost the round trips and log writes that the design gives them", async (t) => {
  const counted = new Counted();
  const { root } = counted.fs;
  const { made: here, name: hereName } = folder(counted, root, "here", placed(counted, root));
  const { made: there } = folder(counted, root, "there", placed(counted, here.inode));
  const { name: inner } = folder(counted, here.inode, "inner", placed(counted, here.inode));
  must(counted.run((fs) => fs.removeDirectory(here.inode, inner)));
  let file: Attributes, large: Attributes, empty: number;
  const small = new Uint8Array(4096).fill(7), piece = new Uint8Array(megabyte).fill(9);

  const costs = async (name: string, expected: Partial<Cost>, task: (fs: FileSystem) => Task<unknown>) => {
    await t.step(name, () => {
      assertEquals(counted.cost(task), { client: {}, servers: 0, logWrites: 0, syncs: 0, ...expected });
    });
  };

  await costs(
    "create + write 4 KiB + close",
    { client: { LOOKUP: 1, CREATE: 1, WRITE: 1 }, logWrites: 2 },
    function* (fs) {
      assertEquals(yield* fs.lookup(here.inode, utf8("a")), E.NOENT);
      file = must(yield* create(fs, here.inode, "a", true));
      must(yield* fs.write(file.inode, 0, small, { killSetId: false }));
      must(yield* fs.release(file.inode));
    },
  );
  await costs("stat of a file by name, just written", {}, function* (fs) {
    assertEquals(must(yield* fs.lookup(here.inode, utf8("a"))).size, 4096);
  });
  await costs("stat and fstat under a lease", {}, function* (fs) {
    assertEquals(must(yield* fs.lookup(here.inode, utf8("a"))).size, 4096);
    assertEquals(must(yield* fs.getAttributes(file.inode)).size, 4096);
  });
  await costs(
    "getattr of a new directory",
    { client: { MKDIR: 1, GETATTR: 1 }, servers: 1, logWrites: 3 },
    function* (fs) {
      const made = must(yield* fs.makeDirectory(here.inode, utf8("empty"), 0o755, caller));
      empty = must(yield* fs.getAttributes(made.inode)).inode;
    },
  );
  await costs(
    "create + write 4 KiB + close in a directory known to be empty",
    { client: { CREATE: 1, WRITE: 1 }, logWrites: 2 },
    function* (fs) {
      assertEquals(yield* fs.lookup(empty, utf8("a")), E.NOENT);
      const made = must(yield* create(fs, empty, "a", true));
      must(yield* fs.write(made.inode, 0, small, { killSetId: false }));
      must(yield* fs.release(made.inode));
      must(yield* fs.getAttributes(empty));
    },
  );
  await costs("stat of a directory on another server", { client: { LOOKUP: 1, GETATTR: 1 } }, function* (fs) {
    assertEquals(must(yield* fs.lookup(root, hereName)).inode, here.inode);
  });
  // Time has passed: the lease on the file has run out.
  await costs("open + read 4 KiB + close", { client: { GETATTR: 1, READ: 1 } }, function* (fs) {
    must(yield* fs.lookup(here.inode, utf8("a")));
    must(yield* fs.open(file.inode, { truncate: false }));
    assertEquals(must(yield* fs.read(file.inode, 0, new Uint8Array(4096))).count, 4096);
    must(yield* fs.release(file.inode));
  });
  await costs("overwrite 4 KiB", { client: { WRITE: 1 }, logWrites: 1 }, function* (fs) {
    must(yield* fs.write(file.inode, 0, small, { killSetId: false }));
  });
  await costs("chmod", { client: { SETATTR: 1 }, logWrites: 1 }, function* (fs) {
    must(yield* fs.setAttributes(file.inode, { mode: 0o600 }));
  });
  await costs(
    "fsync, of its new directory too",
    { client: { FSYNC: 1 }, servers: 1, logWrites: 2, syncs: 2 },
    function* (fs) {
      must(yield* fs.sync(file.inode));
    },
  );
  await costs("rename in a directory", { client: { RENAME: 1 }, logWrites: 1 }, function* (fs) {
    must(yield* fs.rename(here.inode, utf8("a"), here.inode, utf8("b"), 0));
  });
  await costs("link in a directory", { client: { LINK: 1 }, logWrites: 1 }, function* (fs) {
    must(yield* fs.link(file.inode, here.inode, utf8("c")));
  });
  await costs("unlink", { client: { UNLINK: 1 }, logWrites: 1 }, function* (fs) {
    must(yield* fs.unlink(here.inode, utf8("c")));
  });
  await costs(
    "rename to another server",
    { client: { RENAME: 1, RETURN: 1 }, servers: 2, logWrites: 6 },
    function* (fs) {
      must(yield* fs.rename(here.inode, utf8("b"), there.inode, utf8("d"), renameFlags.noReplace));
    },
  );
  await costs("unlink of a far inode", { client: { UNLINK: 1 }, servers: 1, logWrites: 3 }, function* (fs) {
    must(yield* fs.unlink(there.inode, utf8("d")));
  });
  await costs("mkdir on another server", { client: { MKDIR: 1 }, servers: 1, logWrites: 3 }, function* (fs) {
    must(yield* fs.makeDirectory(here.inode, inner, 0o755, caller));
  });
  await costs("rmdir on another server", { client: { RMDIR: 1 }, servers: 1, logWrites: 3 }, function* (fs) {
    must(yield* fs.removeDirectory(here.inode, inner));
  });
  await costs("create of a large file", { client: { CREATE: 1 }, logWrites: 1 }, function* (fs) {
    large = must(yield* create(fs, here.inode, "large", true));
  });
  await costs("write of its first MiB", { client: { WRITE: 1 }, logWrites: 1 }, function* (fs) {
    must(yield* fs.write(large.inode, 0, piece, { killSetId: false }));
  });
  // Its inode learns first that there are chunks elsewhere: whoever deletes it has to know.
  await costs("write of its second MiB", { client: { WRITE_CHUNK: 1, PUBLISH: 2 }, logWrites: 3 }, function* (fs) {
    must(yield* fs.write(large.inode, megabyte, piece, { killSetId: false }));
  });
  await costs("write of its third MiB", { client: { WRITE_CHUNK: 1, PUBLISH: 1 }, logWrites: 2 }, function* (fs) {
    must(yield* fs.write(large.inode, 2 * megabyte, piece, { killSetId: false }));
  });
  await costs("read of its second MiB", { client: { READ: 1, READ_CHUNK: 1 } }, function* (fs) {
    assertEquals(must(yield* fs.read(large.inode, megabyte, new Uint8Array(megabyte))).count, megabyte);
  });
  await costs("append beyond the first MiB", { client: { APPEND: 1 }, servers: 1, logWrites: 3 }, function* (fs) {
    must(yield* fs.append(large.inode, small, { killSetId: false }));
  });
  await costs("listing of 40 directories with attributes", { client: { READDIR: 1, GETATTRS: 3 } }, function* (fs) {
    const entries = must(yield* fs.readDirectory(root, 0, 65536, { plus: true }));
    assert(entries.length >= 40 && entries.every((entry) => entry.attributes !== null));
  });
  await costs("statfs", { client: { STATFS: 3 } }, function* (fs) {
    must(yield* fs.statistics());
  });
});
