/**
 * The checker accepts what can be explained and nothing else: short histories, each right or wrong in one way.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { E } from "../../core/errno.ts";
import { type Call, Checker, Inexplicable } from "./checker.ts";
import { chunkBytes, type Observed, type Op, pattern, State } from "./model.ts";

const root = 1000;
const fresh = () => new Checker(State.fresh({ inode: root, mode: 0o40755, nlink: 2, size: 4096 }));
const file = (inode: number, size = 0, nlink = 1) => ({ seen: { inode, mode: 0o100644, nlink, size } });
const dir = (inode: number, nlink = 2) => ({ seen: { inode, mode: 0o40755, nlink, size: 4096 } });

let serial = 0;
function call(actor: number, from: number, to: number, op: Op, observed: Observed): Call {
  serial++;
  return {
    serial,
    actor,
    client: actor,
    op,
    invokedMs: from,
    returnedMs: observed === null ? Infinity : to,
    observed,
  };
}
const create = (name: string, exclusive = true): Op => ({
  kind: "create",
  dir: root,
  name,
  exclusive,
  open: false,
  mode: 0o644,
});
const lookup = (name: string): Op => ({ kind: "lookup", dir: root, name });
const write = (inode: number, offset: number, length: number, tag: number): Op => ({
  kind: "write",
  inode,
  offset,
  length,
  tag,
});
const read = (inode: number, offset: number, length: number): Op => ({ kind: "read", inode, offset, length });

Deno.test("Checker accepts concurrent creates of one name when one of them loses", () => {
  const checker = fresh();
  checker.round([call(0, 0, 10, create("a"), file(1)), call(1, 0, 10, create("a"), E.EXIST)]);
  checker.round([call(0, 20, 21, lookup("a"), file(1))]);
  assertEquals(checker.possibilities.length, 1);
});

Deno.test("Checker rejects exclusive creates of one name when both win", () => {
  assertThrows(
    () => fresh().round([call(0, 0, 10, create("a"), file(1)), call(1, 0, 10, create("a"), file(2))]),
    Inexplicable,
  );
});

Deno.test("Checker rejects a false EEXIST of a retried create", () => {
  assertThrows(() => fresh().round([call(0, 0, 10, create("a"), E.EXIST)]), Inexplicable);
});

Deno.test("Checker rejects a lookup that misses what had returned before it began", () => {
  const checker = fresh();
  assertThrows(
    () => checker.round([call(0, 0, 10, create("a"), file(1)), call(1, 11, 12, lookup("a"), E.NOENT)]),
    Inexplicable,
  );
  fresh().round([call(0, 0, 10, create("a"), file(1)), call(1, 9, 12, lookup("a"), E.NOENT)]);
});

Deno.test("Checker lets an unanswered create happen later, or never, but not both", () => {
  const checker = fresh();
  checker.round([call(0, 0, 10, create("a"), null)]);
  assertEquals(checker.possibilities.length, 3);
  checker.round([call(1, 20, 21, lookup("a"), E.NOENT)]);
  checker.round([call(1, 30, 31, lookup("a"), file(7))]);
  assertEquals(checker.state.known("file"), [7]);
  assertThrows(() => checker.round([call(1, 40, 41, lookup("a"), file(8))]), Inexplicable);
});

Deno.test("Checker knows after settle() that what has not happened never will", () => {
  const checker = fresh();
  checker.round([call(0, 0, 10, create("a"), null)]);
  checker.settle();
  checker.round([call(1, 20, 21, lookup("a"), E.NOENT)]);
  assertThrows(() => checker.round([call(1, 30, 31, lookup("a"), file(7))]), Inexplicable);
});

Deno.test("Checker rejects an inode number that is used again", () => {
  const checker = fresh();
  checker.round([call(0, 0, 1, create("a"), file(1))]);
  assertThrows(() => checker.round([call(0, 2, 3, create("b"), file(1))]), Inexplicable);
});

Deno.test("Checker rejects a rename seen at both names or at neither", () => {
  const rename: Op = { kind: "rename", dir: root, name: "a", newDir: root, newName: "b", flags: 0 };
  const start = () => {
    const checker = fresh();
    checker.round([call(0, 0, 1, create("a"), file(1))]);
    return checker;
  };
  assertThrows(
    () =>
      start().round([
        call(0, 10, 20, rename, {}),
        call(1, 11, 12, lookup("a"), E.NOENT),
        call(1, 13, 14, lookup("b"), E.NOENT),
      ]),
    Inexplicable,
  );
  assertThrows(
    () =>
      start().round([
        call(0, 10, 20, rename, {}),
        call(1, 11, 12, lookup("b"), file(1)),
        call(1, 13, 14, lookup("a"), file(1)),
      ]),
    Inexplicable,
  );
  start().round([
    call(0, 10, 20, rename, {}),
    call(1, 11, 12, lookup("a"), file(1)),
    call(1, 13, 14, lookup("b"), file(1)),
  ]);
});

Deno.test("Checker rejects a torn read within chunk 0", () => {
  const checker = fresh();
  checker.round([call(0, 0, 1, create("a"), file(1))]);
  checker.round([call(0, 2, 3, write(1, 0, 100, 5), {})]);
  const torn = pattern(6, 100);
  torn.set(pattern(5, 100).subarray(50), 50);
  const overwrite = call(0, 10, 20, write(1, 0, 100, 6), {});
  assertThrows(() => checker.round([overwrite, call(1, 11, 12, read(1, 0, 100), { bytes: torn })]), Inexplicable);
  checker.round([overwrite, call(1, 11, 12, read(1, 0, 100), { bytes: pattern(6, 100) })]);
});

Deno.test("Checker lets a write over two chunks appear in parts while it runs, and whole when it has returned", () => {
  const at = chunkBytes - 50;
  const start = () => {
    const checker = fresh();
    checker.round([call(0, 0, 1, create("a"), file(1))]);
    checker.round([call(0, 2, 3, write(1, at, 100, 5), {})]);
    return checker;
  };
  const half = pattern(6, 100);
  half.set(pattern(5, 100).subarray(50), 50);
  start().round([
    call(0, 10, 20, write(1, at, 100, 6), {}),
    call(1, 11, 12, read(1, at, 100), { bytes: half }),
    call(1, 13, 14, read(1, at, 100), { bytes: pattern(6, 100) }),
  ]);
  const checker = start();
  checker.round([call(0, 10, 20, write(1, at, 100, 6), {})]);
  assertThrows(() => checker.round([call(1, 30, 31, read(1, at, 100), { bytes: half })]), Inexplicable);
});

Deno.test("Checker takes what is gone for a ghost without names, and nothing else", () => {
  const afterwards = (op: Op, observed: Observed) => () => {
    const checker = fresh();
    checker.round([call(0, 0, 1, { kind: "mkdir", dir: root, name: "d", mode: 0o755 }, dir(2))]);
    checker.round([call(0, 2, 3, { kind: "rmdir", dir: root, name: "d" }, {})]);
    checker.round([call(0, 4, 5, op, observed)]);
  };
  afterwards({ kind: "stat", inode: 2 }, dir(2, 0))();
  afterwards({ kind: "stat", inode: 2 }, E.STALE)();
  afterwards({ kind: "listxattr", inode: 2 }, { names: [] })();
  assertThrows(afterwards({ kind: "stat", inode: 2 }, dir(2)), Inexplicable);
  assertThrows(afterwards({ kind: "listxattr", inode: 2 }, { names: ["user.a"] }), Inexplicable);
});

Deno.test("Checker keeps an unlinked file alive while it is open, and lets it go afterwards", () => {
  const checker = fresh();
  const { mode, ...rest } = create("a") as Op & { kind: "create" };
  checker.round([call(0, 0, 1, { ...rest, mode, open: true }, file(1))]);
  checker.round([call(1, 2, 3, { kind: "unlink", dir: root, name: "a" }, {})]);
  const stat: Op = { kind: "stat", inode: 1 };
  assertThrows(() => checker.round([call(1, 4, 5, stat, E.STALE)]), Inexplicable);
  checker.round([call(1, 4, 5, stat, file(1, 0, 0))]);
  checker.round([call(0, 6, 7, { kind: "release", inode: 1 }, {})]);
  checker.round([call(1, 8, 9, stat, E.STALE)]);
});

Deno.test("Checker keeps a file that only a dead client held until it is gone", () => {
  const checker = fresh();
  checker.round([call(0, 0, 1, { ...create("a") as Op & { kind: "create" }, open: true }, file(1))]);
  checker.round([call(1, 2, 3, { kind: "unlink", dir: root, name: "a" }, {})]);
  checker.forgetClient(0);
  checker.round([call(1, 4, 5, { kind: "stat", inode: 1 }, E.STALE)]);
});

Deno.test("Checker rejects a loop of directories and accepts the refusal", () => {
  const start = () => {
    const checker = fresh();
    checker.round([call(0, 0, 1, { kind: "mkdir", dir: root, name: "a", mode: 0o755 }, dir(1))]);
    checker.round([call(0, 2, 3, { kind: "mkdir", dir: root, name: "b", mode: 0o755 }, dir(2))]);
    return checker;
  };
  const into = (name: string, newDir: number): Op => ({
    kind: "rename",
    dir: root,
    name,
    newDir,
    newName: "x",
    flags: 0,
  });
  assertThrows(
    () => start().round([call(0, 10, 20, into("a", 2), {}), call(1, 10, 20, into("b", 1), {})]),
    Inexplicable,
  );
  start().round([call(0, 10, 20, into("a", 2), {}), call(1, 10, 20, into("b", 1), E.INVAL)]);
});

/** A lock of actor `owner` - 1 on inode 1. */
const lock = (owner: number, write: boolean | null, start = 0, end = 9, flock = false): Op => ({
  kind: "setlk",
  inode: 1,
  owner,
  flock,
  write,
  start,
  end,
  waitMs: 0,
});
const locking = () => {
  const checker = fresh();
  checker.round([call(0, 0, 1, create("a"), file(1)), call(0, 2, 3, lock(1, true), {})]);
  return checker;
};

Deno.test("Checker rejects a lock that is given to two, or refused without a holder", () => {
  locking().round([call(1, 4, 5, lock(2, true, 10, 19), {}), call(1, 6, 7, lock(2, false, 5, 5), E.AGAIN)]);
  assertThrows(() => locking().round([call(1, 4, 5, lock(2, false, 5, 5), {})]), Inexplicable);
  assertThrows(() => locking().round([call(1, 4, 5, lock(2, true, 10, 19), E.AGAIN)]), Inexplicable);
  assertThrows(() => locking().round([call(1, 4, 5, lock(2, true, 0, 9, true), E.AGAIN)]), Inexplicable);
  const checker = locking();
  checker.round([call(0, 4, 9, lock(1, null, 5, 5), {}), call(1, 4, 9, lock(2, true, 5, 5), {})]);
  assertThrows(() => checker.round([call(0, 10, 11, lock(1, false, 5, 5), {})]), Inexplicable);
});

Deno.test("Checker frees the locks of a dead client later, and those that nobody is sure of perhaps", () => {
  const dead = locking();
  dead.forgetClient(0);
  dead.round([call(1, 4, 5, lock(2, true), E.AGAIN), call(1, 6, 7, lock(2, true), {})]);
  const settled = locking();
  settled.forgetClient(0);
  settled.settle();
  assertThrows(() => settled.round([call(1, 4, 5, lock(2, true), E.AGAIN)]), Inexplicable);
  const unsure = locking();
  unsure.round([call(0, 4, 5, lock(1, null), null)]);
  unsure.round([call(1, 6, 7, lock(2, false), E.AGAIN), call(1, 8, 9, lock(2, false), {})]);
  assertThrows(() => unsure.round([call(2, 10, 11, lock(3, true), {})]), Inexplicable);
});

Deno.test("Checker knows what another client's test of a lock may say", () => {
  const test = (owner: number): Op => ({ kind: "getlk", inode: 1, owner, write: true, start: 5, end: 20 });
  const found = { owner: 1, write: true, start: 0, end: 9, pid: 0 };
  locking().round([call(1, 4, 5, test(2), { lock: found }), call(0, 4, 5, test(1), { lock: null })]);
  assertThrows(() => locking().round([call(1, 4, 5, test(2), { lock: null })]), Inexplicable);
  for (const wrong of [{ end: 8 }, { write: false }, { pid: 1 }]) {
    assertThrows(() => locking().round([call(1, 4, 5, test(2), { lock: { ...found, ...wrong } })]), Inexplicable);
  }
});

Deno.test("Checker judges searches, zeroed ranges and copies by the bytes", () => {
  const start = () => {
    const checker = fresh();
    checker.round([call(0, 0, 1, create("a"), file(1)), call(0, 2, 3, create("b"), file(2))]);
    checker.round([call(0, 4, 5, write(1, 8192, 100, 5), {}), call(0, 6, 7, write(1, 40_000, 100, 6), {})]);
    return checker;
  };
  const seek = (offset: number, hole: boolean): Op => ({ kind: "seek", inode: 1, offset, hole });
  start().round([
    call(0, 10, 11, seek(0, false), { offset: 8192 }),
    call(0, 12, 13, seek(8192, true), { offset: 12288 }),
    call(0, 14, 15, seek(9000, false), { offset: 36_864 }),
    call(0, 16, 17, seek(40_100, false), { offset: -1 }),
  ]);
  for (const offset of [8193, 36_864, -1]) {
    assertThrows(() => start().round([call(0, 10, 11, seek(0, false), { offset })]), Inexplicable);
  }
  assertThrows(() => start().round([call(0, 10, 11, seek(0, true), { offset: 8200 })]), Inexplicable);
  const punch: Op = { kind: "allocate", inode: 1, mode: 3, offset: 8192, length: 50 };
  const checker = start(), half = pattern(5, 100).fill(0, 0, 50);
  checker.round([call(0, 10, 11, punch, {}), call(0, 12, 13, read(1, 8192, 100), { bytes: half })]);
  const copy: Op = { kind: "copy", inode: 1, offset: 8192, to: 2, toOffset: 5, length: 100 };
  checker.round([call(0, 14, 15, copy, { count: 100 })]);
  checker.round([call(0, 16, 17, read(2, 5, 100), { bytes: half })]);
  assertThrows(() => checker.round([call(0, 18, 19, read(2, 4, 100), { bytes: half })]), Inexplicable);
});

Deno.test("Checker rejects zeros for bytes that a truncation has taken and the size still has", () => {
  const far = (length: number): Op => read(1, chunkBytes, length);
  const start = () => {
    const checker = fresh();
    checker.round([call(0, 0, 1, create("a"), file(1)), call(0, 2, 3, write(1, chunkBytes, 100, 5), {})]);
    return checker;
  };
  const cut: Op = { kind: "truncate", inode: 1, size: 0 };
  start().round([call(0, 4, 9, cut, file(1)), call(1, 5, 8, far(100), { bytes: pattern(5, 100) })]);
  assertThrows(
    () => start().round([call(0, 4, 9, cut, file(1)), call(1, 5, 8, far(100), { bytes: new Uint8Array(100) })]),
    Inexplicable,
  );
});

Deno.test("Checker says which calls it could not explain", () => {
  const error = assertThrows(() => fresh().round([call(0, 0, 10, create("a"), E.EXIST)]), Inexplicable);
  assert(error.message.includes("create"));
});
