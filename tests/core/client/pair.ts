/**
 * Two clients of three servers of the real core, all calm.
 *
 * @module
 */

import type { FileSystem } from "../../../core/client/filesystem.ts";
import { type Attributes, S } from "../../../core/meta/attributes.ts";
import type { Task } from "../../../core/task.ts";
import { Cluster } from "../../sim/cluster.ts";
import { World } from "../../sim/world.ts";

/** Root. */
export const caller = { uid: 0, gid: 0, pid: 1, umask: 0 };
/** Text as bytes. */
export const utf8 = (text: string) => new TextEncoder().encode(text);

/** A result that is no errno. */
export function must<T>(result: T | number): T {
  if (typeof result === "number") throw new Error(`errno ${result}`);
  return result;
}

/** See the module. */
export class Pair {
  readonly world = new World(3);
  readonly cluster = new Cluster(this.world, {
    servers: 3,
    stores: 1,
    clients: 2,
    shards: 24,
    volumeBytes: 2 ** 28,
    ioTimeoutMs: 60_000,
    callTimeoutMs: 10_000,
    limits: { segmentBytes: 2 ** 22, logBytesMax: 2 ** 24, checkpointMs: 3_600_000, growBlocks: 1024 },
  });

  constructor() {
    this.cluster.boot();
  }

  run<T>(task: (fs: FileSystem) => Task<T>, client = 0): T {
    const one = this.cluster.clients[client];
    const done = one.nodes[0].spawn(task(one.fs!));
    this.world.run(() => done.settled, 60_000, "an operation");
    return done.value;
  }

  mkdir(dir: number, name: string): Attributes {
    return must(this.run((fs) => fs.makeDirectory(dir, utf8(name), 0o755, caller)));
  }

  create(dir: number, name: string, target?: string): Attributes {
    const mode = target === undefined ? S.IFREG | 0o644 : S.IFLNK | 0o777;
    const options = { mode, exclusive: true, open: false, target: target === undefined ? undefined : utf8(target) };
    return must(this.run((fs) => fs.create(dir, utf8(name), options, caller)));
  }

  get root(): number {
    return this.cluster.clients[0].fs!.root;
  }
}
