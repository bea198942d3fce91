/** The arena: what it hands out is disjoint, aligned, addressable, and comes back. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { Arena, bufferBytesMax, classBytes } from "../../ffi/arena.ts";
import { errno, errnoText, libc, O } from "../../ffi/libc.ts";

Deno.test("Arena.allocate() gives disjoint page-aligned buffers of every class until the limit", () => {
  const arena = new Arena(16 << 20);
  const taken: Uint8Array[] = [];
  let sum = 0;
  for (let i = 0;; i++) {
    const bytes = classBytes[i % classBytes.length] - (i % 3);
    const buffer = arena.allocate(bytes);
    if (buffer === null) break;
    assertEquals(buffer.length, bytes);
    assertEquals(buffer.byteOffset % 4096, 0);
    buffer.fill(i & 255);
    taken.push(buffer);
    sum += bytes;
  }
  assert(sum > 3 << 20, `only ${sum} bytes were handed out`);
  taken.forEach((buffer, i) => assert(buffer.every((byte) => byte === (i & 255)), `buffer ${i} was overwritten`));
  for (const buffer of taken) arena.release(buffer.subarray(0, 1));
  assertEquals(arena.usedBytes, 0);
  assert(arena.allocate(bufferBytesMax) !== null);
  arena.discard();
});

Deno.test("Arena.release() throws when a buffer comes back twice or from elsewhere", () => {
  const arena = new Arena(4 << 20);
  const buffer = arena.allocate(5000)!;
  assertEquals(arena.room(buffer.byteOffset), 8192);
  arena.release(buffer);
  assertThrows(() => arena.release(buffer));
  assertThrows(() => arena.release(new Uint8Array(10)));
  assertThrows(() => arena.addressOf(new Uint8Array(10)));
  assertThrows(() => arena.allocate(bufferBytesMax + 1), RangeError);
});

Deno.test("Arena.addressOf() is what the kernel reads and writes", () => {
  const arena = new Arena(4 << 20);
  const view = arena.allocate(100)!.subarray(7, 57);
  view.fill(1);
  const fd = libc.open(new TextEncoder().encode("/dev/zero\0"), O.RDONLY, 0);
  assertEquals(libc.read(fd, BigInt(arena.addressOf(view)), BigInt(view.length)), 50);
  libc.close(fd);
  assert(view.every((byte) => byte === 0));
  assertEquals(arena.u8[view.byteOffset - 1], 0);
});

Deno.test("errno() tells why the last call failed", () => {
  assertEquals(libc.close(-1), -1);
  assertEquals(errno(), 9);
  assertEquals(errnoText(-28), "ENOSPC");
  assertEquals(errnoText(133), "EHWPOISON");
  assertEquals(errnoText(35), "EDEADLK");
  assertEquals(errnoText(116), "ESTALE");
  assertEquals(errnoText(4095), "errno 4095");
});
