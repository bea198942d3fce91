/**
 * Slots: one execution a sequence, whatever comes twice, late or out of order.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Slots } from "../../../core/server/slots.ts";

Deno.test("begin() runs a sequence once and lets duplicates wait for its answer", () => {
  const slots = new Slots<string, string>();
  assertEquals(slots.begin(1, 0, 5, "first"), "run");
  assertEquals(slots.begin(1, 0, 5, "again"), "wait");
  assertEquals(slots.begin(1, 0, 4, "late"), "old");
  assertEquals(slots.begin(1, 0, 6, "next"), "busy");
  assertEquals(slots.end(1, 0, 5, null), ["first", "again"]);
  assertEquals(slots.begin(1, 0, 6, "next"), "run");
});

Deno.test("kept() gives a late duplicate the answer that left no record, until the next sequence", () => {
  const slots = new Slots<string, string>();
  slots.begin(1, 0, 5, "first");
  slots.end(1, 0, 5, "no such name");
  assertEquals(slots.begin(1, 0, 5, "duplicate"), "run");
  assertEquals(slots.kept(1, 0), "no such name");
  assertEquals(slots.end(1, 0, 5, "no such name"), ["duplicate"]);
  slots.begin(1, 0, 6, "next");
  assertEquals(slots.kept(1, 0), null);
});

Deno.test("drop() forgets a session", () => {
  const slots = new Slots<string, string>();
  slots.begin(1, 0, 5, "first");
  slots.drop(1);
  assertEquals(slots.sessions(), []);
  assertEquals(slots.end(1, 0, 5, "refused"), []);
});
