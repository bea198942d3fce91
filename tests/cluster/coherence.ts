/**
 * `coherence.ts A B ROUNDS`: one process changes things through folder A and looks at them through folder B, both of the
 * same volume, with nothing in between: what has returned in one must be seen in the other. Exit code 0 when it always
 * was.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { errnoText, MAP, O, PROT } from "../../ffi/libc.ts";
import { open, result, sys } from "../ffi/fuse_mounted.ts";

const msSync = 4;
const pageBytes = 4096;

function names(path: string): string[] {
  return [...Deno.readDirSync(path)].map((entry) => entry.name).sort();
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Every kind of change once; `a` is where it is made, `b` where it must show. */
function changes(a: string, b: string, round: number): void {
  const text = `round ${round} `.repeat(round % 5 + 1);
  assert(!isThere(`${b}/file`)); // B has looked before: a cached absence must not stay.
  Deno.writeTextFileSync(`${a}/file`, text);
  assertEquals(Deno.readTextFileSync(`${b}/file`), text);
  assertEquals(names(b), ["file"]);
  Deno.writeTextFileSync(`${a}/file`, "more", { append: true });
  assertEquals(Deno.statSync(`${b}/file`).size, text.length + 4);
  assertEquals(Deno.readTextFileSync(`${b}/file`), text + "more");
  Deno.truncateSync(`${a}/file`, 3);
  assertEquals(Deno.readTextFileSync(`${b}/file`), text.slice(0, 3));
  Deno.chmodSync(`${a}/file`, 0o640);
  assertEquals((Deno.statSync(`${b}/file`).mode ?? 0) & 0o7777, 0o640);
  Deno.utimeSync(`${a}/file`, 1, 2 + round);
  assertEquals(Deno.statSync(`${b}/file`).mtime?.getTime(), (2 + round) * 1000);

  Deno.linkSync(`${a}/file`, `${a}/second`);
  assertEquals(Deno.statSync(`${b}/file`).nlink, 2);
  assertEquals(Deno.statSync(`${b}/second`).ino, Deno.statSync(`${a}/file`).ino);
  Deno.symlinkSync(`target${round}`, `${a}/symbolic`);
  assertEquals(Deno.readLinkSync(`${b}/symbolic`), `target${round}`);

  Deno.mkdirSync(`${a}/folder/inner`, { recursive: true });
  assertEquals(names(`${b}/folder`), ["inner"]);
  Deno.renameSync(`${a}/file`, `${a}/folder/inner/moved`);
  assert(!isThere(`${b}/file`));
  assertEquals(Deno.readTextFileSync(`${b}/folder/inner/moved`), text.slice(0, 3));
  Deno.renameSync(`${a}/folder`, `${a}/other`);
  assert(!isThere(`${b}/folder`));
  assertEquals(names(`${b}/other/inner`), ["moved"]);
  assertEquals(names(b), ["other", "second", "symbolic"]);

  Deno.removeSync(`${a}/second`);
  assert(!isThere(`${b}/second`));
  assertEquals(Deno.statSync(`${b}/other/inner/moved`).nlink, 1);
  assertThrows(() => Deno.removeSync(`${b}/other/inner`));
  Deno.removeSync(`${a}/other/inner/moved`);
  Deno.removeSync(`${a}/other/inner`);
  assert(!isThere(`${b}/other/inner`));
  Deno.removeSync(`${a}/other`);
  Deno.removeSync(`${a}/symbolic`);
  assertEquals(names(b), []);
}

/** Two open files: what is written through one is read through the other, without a close between. */
function openFiles(a: string, b: string): void {
  using writer = Deno.openSync(`${a}/open`, { write: true, create: true, truncate: true });
  using reader = Deno.openSync(`${b}/open`);
  const bytes = new Uint8Array(100);
  for (let number = 0; number < 20; number++) {
    const text = `line ${number}\n`;
    writer.writeSync(new TextEncoder().encode(text));
    const length = reader.readSync(bytes) ?? 0;
    assertEquals(new TextDecoder().decode(bytes.subarray(0, length)), text);
  }
  Deno.removeSync(`${b}/open`);
  assertEquals(writer.statSync().nlink, 0); // Unlinked by the other, it lives on while it is open.
  writer.writeSync(new TextEncoder().encode("end"));
  assertEquals(reader.readSync(bytes), 3);
}

function must(what: string, value: number): number {
  if (value < 0) throw new Error(`${what}: ${errnoText(value)}`);
  return value;
}

function map(path: string, length: number): Uint8Array {
  const fd = must("open", open(path, O.RDWR));
  const address = sys.mmap(0n, BigInt(length), PROT.READ | PROT.WRITE, MAP.SHARED, fd, 0n);
  must("close", result(sys.close(fd)));
  if (address === null || Deno.UnsafePointer.value(address) >= 2n ** 63n) throw new Error("mmap failed");
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(address, length));
}

function unmap(view: Uint8Array): void {
  const pointer = Deno.UnsafePointer.of(view as Uint8Array<ArrayBuffer>);
  must("msync", sys.msync(pointer, BigInt(view.length), msSync));
  must("munmap", sys.munmap(pointer, BigInt(view.length)));
}

/** A shared, writable mapping: what is stored in it is in the file for the other after msync and munmap. */
function mapping(a: string, b: string): void {
  const length = 300 * pageBytes;
  Deno.writeFileSync(`${a}/mapped`, new Uint8Array(length));
  const view = map(`${a}/mapped`, length);
  for (let at = 0; at < length; at += 1000) view[at] = at % 251;
  unmap(view);
  const bytes = Deno.readFileSync(`${b}/mapped`);
  assertEquals(bytes.length, length);
  for (let at = 0; at < length; at++) assertEquals(bytes[at], at % 1000 === 0 ? at % 251 : 0);
  bytes.fill(7, 5000, 9000);
  Deno.writeFileSync(`${b}/mapped`, bytes);
  const again = map(`${a}/mapped`, length);
  assertEquals([again[4999], again[5001], again[8999]], [bytes[4999], 7, 7]);
  unmap(again);
  Deno.removeSync(`${a}/mapped`);
}

const [a, b, rounds] = Deno.args;
for (let round = 0; round < Number(rounds); round++) {
  if (round % 2 === 0) changes(a, b, round);
  else changes(b, a, round);
}
openFiles(a, b);
mapping(a, b);
console.log("coherent");
