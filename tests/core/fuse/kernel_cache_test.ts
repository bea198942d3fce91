/** Tests of core/fuse/kernel_cache.ts: what is given out is taken back. */

import { assert, assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { KernelCache } from "../../../core/fuse/kernel_cache.ts";
import { MemoryFileSystem } from "../../fuse/memory_filesystem.ts";
import { FakeRuntime } from "../fake.ts";

const dir = 10;

class Kernel {
  readonly runtime = new FakeRuntime();
  readonly fileSystem = new MemoryFileSystem();
  /** Nodes of INVAL_INODE, as they came. */
  readonly nodes: number[] = [];
  knows = true;
  readonly cache: KernelCache;

  constructor() {
    this.fileSystem.validForMs = 3000;
    this.cache = new KernelCache(this.fileSystem, {
      write: (message) => {
        this.nodes.push(Number(new DataView(message.buffer).getBigUint64(16, true)));
        return this.knows ? 0 : E.NOENT;
      },
      nowMs: () => this.runtime.nowMs(),
      sleep: (ms) => this.runtime.sleep(ms),
    }, (inode) => inode);
  }

  /** The lease on an inode ends. Tells whether that is through. */
  void(inode: number): () => boolean {
    const task = this.fileSystem.listeners[0](inode);
    if (task === null) return () => true;
    const done = this.runtime.scheduler.spawn(task);
    this.runtime.pass(0);
    return () => done.settled;
  }
}

Deno.test("the end of a lease takes back attributes at once", () => {
  const kernel = new Kernel();
  assert(kernel.void(dir)());
  assertEquals(kernel.nodes, [dir]);
});

Deno.test("the end of a lease comes again for an inode that the kernel is just learning of", () => {
  const kernel = new Kernel(), { fileSystem } = kernel;
  const root = kernel.runtime.run(fileSystem.getAttributes(fileSystem.root));
  assert(typeof root !== "number");
  assertEquals(kernel.cache.attributesMs(root), 3000);
  kernel.knows = false;
  const through = kernel.void(root.inode);
  kernel.runtime.pass(2);
  assert(!through());
  kernel.knows = true;
  kernel.runtime.pass(2);
  assert(through());
});
