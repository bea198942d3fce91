/**
 * Opens: who holds what, through closes that come late and opens that come twice.
 *
 * @module
 */

import { assert, assertEquals, assertFalse } from "@std/assert";
import { Opens } from "../../../core/meta/opens.ts";

Deno.test("close() ends an open, but not a newer one", () => {
  const opens = new Opens();
  opens.open(1, 100, 5);
  assertFalse(opens.close(1, 100, 4));
  assert(opens.mayBeOpen(100));
  assert(opens.close(1, 100, 5));
  assertFalse(opens.mayBeOpen(100));
});

Deno.test("open() ignores a late duplicate of what has been closed", () => {
  const opens = new Opens();
  opens.open(1, 100, 5);
  opens.close(1, 100, 5);
  opens.open(1, 100, 5);
  assertFalse(opens.mayBeOpen(100));
  opens.open(1, 100, 6);
  assert(opens.mayBeOpen(100));
});

Deno.test("open() ignores an open that arrives after its close", () => {
  const opens = new Opens();
  assertFalse(opens.close(1, 100, 5));
  opens.open(1, 100, 5);
  assertFalse(opens.mayBeOpen(100));
});

Deno.test("drop() frees what nobody else has open", () => {
  const opens = new Opens();
  opens.open(1, 100, 1);
  opens.open(1, 101, 2);
  opens.open(2, 101, 1);
  assertEquals(opens.drop(1), [100]);
  assert(opens.mayBeOpen(101));
});

Deno.test("mayBeOpen() says yes to everything while a session has not claimed", () => {
  const opens = new Opens();
  opens.await([1, 2]);
  assert(opens.mayBeOpen(100));
  assertFalse(opens.claimed(1));
  assert(opens.claimed(2));
  assertFalse(opens.mayBeOpen(100));
});
