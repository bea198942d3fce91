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

Deno.test("Checker says which calls it could not explain", () => {
  const error = assertThrows(() => fresh().round([call(0, 0, 10, create("a"), E.EXIST)]), Inexplicable);
  assert(error.message.includes("create"));
});
