/** What is handed to the kernel for FUSE over io_uring, seen without a mount; tests/ffi/fuse_mount_test.ts has the mounts. */

import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { fuseDataAt, INIT2 } from "../../core/fuse/protocol.ts";
import { FuseSession } from "../../core/fuse/session.ts";
import {
  FuseUring,
  possibleCpus,
  queueDepth,
  sparesMax,
  uringArenaBytes,
  uringMissing,
  uringQueuesMax,
} from "../../ffi/fuse/uring.ts";
import { libc } from "../../ffi/libc.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { MemoryFileSystem } from "../fuse/memory_filesystem.ts";

Deno.test("possibleCpus() counts the ranges of the kernel's list", () => {
  assertEquals(["0\n", "0-1\n", "0,2-3", "0-63,128-191\n"].map(possibleCpus), [1, 2, 3, 128]);
});

Deno.test("queueDepth() gives few processors many buffers each, and leaves a part of the arena to others", () => {
  assertEquals([1, 2, 8, 64, 256].map(queueDepth), [32, 32, 8, 4, 4]);
  const buffers = uringQueuesMax * queueDepth(uringQueuesMax) + sparesMax;
  assert(buffers * (9 << 17) < uringArenaBytes - 2 ** 29);
});

Deno.test("uringMissing() says what the kernel lacks and how it is switched on", () => {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(path, "N\n");
    assertEquals(uringMissing(path), `it is switched off (as root: echo Y > ${path})`);
    Deno.writeTextFileSync(path, "Y\n");
    assertEquals(uringMissing(path), "");
  } finally {
    Deno.removeSync(path);
  }
  assertStringIncludes(uringMissing(path), "Linux 6.14");
});

/** A transport with 3 queues on a descriptor that knows no commands, and what it says of itself. */
function transport(wideEntries: boolean) {
  const reactor = new Reactor({ arenaBytes: 256 << 20, ring: { wideEntries } });
  const said: string[] = [], fd = libc.eventfd(0, 0);
  const uring = new FuseUring({
    reactor,
    fd,
    session: new FuseSession(new MemoryFileSystem({})),
    queues: 3,
    onServing: (by, why) => said.push(`${by}: ${why}`),
    onEnd: (reason) => said.push(reason),
  });
  return { reactor, uring, said, fd };
}

Deno.test("FuseUring registers header and payload of every buffer with the queue it is of", () => {
  const { reactor, uring, said } = transport(true);
  uring.agreed(INIT2.OVER_IO_URING);
  reactor.runOnce(0);
  const { sqe } = reactor.ring, { u32 } = reactor.arena, depth = queueDepth(3);
  const queues: number[] = [], places = new Set<number>();
  for (let at = 0; at < sqe.length; at += 32) {
    if ((sqe[at] & 0xff) !== 46) continue;
    // struct io_uring_sqe: cmd_op 8, addr 16, len 24; struct fuse_uring_cmd_req at 48: commit_id 56, qid 64.
    assertEquals([sqe[at + 2], sqe[at + 6], sqe[at + 14], sqe[at + 15]], [1, 2, 0, 0]);
    const iovecs = sqe[at + 4] + sqe[at + 5] * 2 ** 32 - reactor.arena.base;
    const words = u32.subarray(iovecs / 4, iovecs / 4 + 8);
    const header = words[0] + words[1] * 2 ** 32, payload = words[4] + words[5] * 2 ** 32;
    assertEquals([words[2], words[3], words[6], words[7]], [288, 0, 1 << 20, 0]);
    assertEquals([payload - header, payload % 4096], [fuseDataAt, 0]);
    places.add(header);
    queues.push(sqe[at + 16]);
  }
  assertEquals(queues, [0, 1, 2].flatMap((queue) => Array(depth).fill(queue)));
  assertEquals(places.size, 3 * depth);
  while (said.length === 0) reactor.runOnce(10);
  assertEquals(said, ["classic: the kernel says EOPNOTSUPP"]);
  uring.stop();
  while (said.length === 1) reactor.runOnce(10);
  assertEquals([said[1], reactor.arena.usedBytes], ["stopped", 0]);
  uring.close();
  reactor.close();
});

Deno.test("FuseUring serves by /dev/fuse alone when the session has not agreed on io_uring", () => {
  const { reactor, uring, said } = transport(true);
  uring.agreed(0);
  reactor.runOnce(0);
  assertEquals(said, ["classic: the kernel does not offer it"]);
  uring.close();
  reactor.close();
});

Deno.test("Ring.command() refuses a ring with short entries", () => {
  const reactor = new Reactor({ arenaBytes: 1 << 20 });
  assertThrows(() => reactor.ring.command(1, 0, 1), Error, "wide entries");
  reactor.close();
});
