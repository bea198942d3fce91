/** Tests of core/fuse/kernel_cache.ts: what is given out, and that all of it is taken back. */

import { assert, assertEquals } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { changedMs, KernelCache, nameMsMax } from "../../../core/fuse/kernel_cache.ts";
import { Future } from "../../../core/task.ts";
import { MemoryFileSystem } from "../../fuse/memory_filesystem.ts";
import { FakeRuntime } from "../fake.ts";

const utf8Text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const dir = 10, utf8 = (text: string) => new TextEncoder().encode(text);

class Kernel {
  readonly runtime = new FakeRuntime();
  readonly fileSystem = new MemoryFileSystem();
  /** Nodes of INVAL_INODE, and names of INVAL_ENTRY, as they came. */
  readonly nodes: number[] = [];
  readonly names: string[] = [];
  /** INVAL_ENTRY under way, when they are held up. */
  readonly waiting: Future<number>[] = [];
  holdUp = false;
  knows = true;
  readonly cache: KernelCache;

  constructor() {
    this.fileSystem.validForMs = 3000;
    this.cache = new KernelCache(this.fileSystem, {
      write: (message) => {
        this.nodes.push(Number(new DataView(message.buffer).getBigUint64(16, true)));
        return this.knows ? 0 : E.NOENT;
      },
      mayWait: true,
      writeLater: (messages) => {
        const view = new DataView(messages.buffer);
        for (let at = 0; at < messages.length; at += view.getUint32(at, true)) {
          this.names.push(utf8Text(messages.subarray(at + 32, at + view.getUint32(at, true) - 1)));
        }
        const settled = new Future<number>();
        if (this.holdUp) this.waiting.push(settled);
        else settled.resolve(0);
        return settled;
      },
      nowMs: () => this.runtime.nowMs(),
      sleep: (ms) => this.runtime.sleep(ms),
    }, (inode) => inode);
    this.cache.names = true;
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

Deno.test("nameMs() gives out names of a directory that this mount has not changed lately", () => {
  const { cache, runtime } = new Kernel();
  assertEquals(cache.nameMs(dir, utf8("a"), 5), nameMsMax);
  cache.changing(dir);
  assertEquals(cache.nameMs(dir, utf8("a"), 5), 0);
  assertEquals(cache.nameMs(dir + 1, utf8("a"), 5), nameMsMax);
  runtime.pass(changedMs);
  assertEquals(cache.nameMs(dir, utf8("a"), 5), nameMsMax);
});

Deno.test("nameMs() gives nothing to a kernel that cannot let names expire", () => {
  const { cache } = new Kernel();
  cache.names = false;
  assertEquals(cache.nameMs(dir, utf8("a"), 5), 0);
});

Deno.test("the end of a lease takes back attributes and every name given out, and waits for the kernel", () => {
  const kernel = new Kernel();
  kernel.cache.nameMs(dir, utf8("a"), 5);
  kernel.cache.nameMs(dir, utf8("b"), 0);
  kernel.cache.nameMs(dir + 1, utf8("c"), 0);
  kernel.runtime.pass(100);
  kernel.holdUp = true;
  const through = kernel.void(dir);
  assertEquals(kernel.nodes, [dir]);
  assert(!through());
  kernel.waiting.pop()!.resolve(0);
  kernel.runtime.pass(1);
  assert(through());
  assertEquals(kernel.names.toSorted(), ["a", "b"]);
});

Deno.test("the end of a lease takes names back twice when they were given out a moment ago", () => {
  const kernel = new Kernel();
  kernel.cache.nameMs(dir, utf8("a"), 5);
  const through = kernel.void(dir);
  assert(!through());
  kernel.runtime.pass(10);
  assert(through());
  assertEquals(kernel.names, ["a", "a"]);
});

Deno.test("the end of a lease does not wait for the kernel longer than the names last", () => {
  const kernel = new Kernel();
  kernel.cache.nameMs(dir, utf8("a"), 5);
  kernel.runtime.pass(100);
  kernel.holdUp = true;
  const through = kernel.void(dir);
  kernel.runtime.pass(nameMsMax - 110);
  assert(!through());
  kernel.runtime.pass(20);
  assert(through());
});

Deno.test("the end of a lease takes many names back in batches", () => {
  const kernel = new Kernel(), many = Array.from({ length: 2000 }, (_, i) => `name-${i}`);
  for (const name of many) kernel.cache.nameMs(dir, utf8(name), 5);
  kernel.runtime.pass(100);
  kernel.holdUp = true;
  const through = kernel.void(dir);
  assert(kernel.waiting.length > 1 && kernel.waiting.length < 10);
  for (const batch of kernel.waiting.splice(0)) batch.resolve(0);
  kernel.runtime.pass(1);
  assert(through());
  assertEquals(kernel.names, many);
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
