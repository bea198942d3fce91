/** Values as people write them. */

import { assertEquals, assertThrows } from "@std/assert";
import {
  formatAddress,
  parseAddress,
  parseChoice,
  parseDuration,
  parseInteger,
  parseNumber,
  parseSize,
  quote,
  ValueError,
} from "../../cmd/values.ts";

Deno.test("parseSize() understands suffixes as powers of 1024", () => {
  assertEquals(parseSize("10GiB"), 10 * 2 ** 30);
  assertEquals(parseSize("1.5 tib"), 1.5 * 2 ** 40);
  assertEquals(parseSize("64K"), 65536);
  assertEquals(parseSize("7B", 2 ** 20), 7);
  assertEquals(parseSize("0"), 0);
});

Deno.test("parseSize() counts a plain number in the unit it is given", () => {
  assertEquals(parseSize("100", 2 ** 20), 100 * 2 ** 20);
  assertEquals(parseSize("100"), 100);
});

Deno.test("parseSize() refuses what is no size", () => {
  for (const text of ["", "GiB", "-1", "1e9", "10GB", "1 2", "0x10", "1.2.3", "constructor", "1constructor", "NaN"]) {
    assertThrows(() => parseSize(text), ValueError, "is not a size");
  }
  assertThrows(() => parseSize("9999999PiB"), ValueError, "too large");
});

Deno.test("parseDuration() gives milliseconds, plain numbers being seconds", () => {
  assertEquals(parseDuration("500ms"), 500);
  assertEquals(parseDuration("2"), 2000);
  assertEquals(parseDuration("1.5m"), 90_000);
  assertEquals(parseDuration("20", 1), 20);
  for (const text of ["", "s", "-1s", "1 fortnight", "toString"]) assertThrows(() => parseDuration(text), ValueError);
});

Deno.test("parseNumber() and parseInteger() keep to their limits", () => {
  assertEquals(parseNumber("-1.5"), -1.5);
  assertEquals(parseInteger("4096", { max: 4096 }), 4096);
  assertThrows(() => parseInteger("4097", { max: 4096 }), ValueError, "at most 4096");
  assertThrows(() => parseInteger("0", { min: 1 }), ValueError, "at least 1");
  assertThrows(() => parseInteger("1.5"), ValueError, "whole number");
  assertThrows(() => parseNumber("Infinity"), ValueError);
});

Deno.test("parseAddress() splits host and port, with IPv6 in brackets", () => {
  assertEquals(parseAddress("127.0.0.1:8081"), { hostname: "127.0.0.1", port: 8081 });
  assertEquals(parseAddress("[::1]:0"), { hostname: "::1", port: 0 });
  assertEquals(formatAddress(parseAddress("[fe80::1%eth0]:9")), "[fe80::1%eth0]:9");
  for (const text of ["", ":1", "host", "host:", "host:x", "host:65536", "::1:80", "a b:1", "http://a:1", "a:1/b"]) {
    assertThrows(() => parseAddress(text), ValueError, "HOST:PORT");
  }
});

Deno.test("parseChoice() names the choices when the value is none of them", () => {
  assertEquals(parseChoice("b", ["a", "b"]), "b");
  assertThrows(() => parseChoice("c", ["a", "b"]), ValueError, '"c" is not one of a, b');
});

Deno.test("quote() keeps error messages to one short line", () => {
  assertEquals(quote("a\nb"), '"a\\nb"');
  assertEquals(quote("x".repeat(1000)).length, 65);
  assertEquals([quote([1]), quote({}), quote(null), quote(5)], ["a list", "a mapping", '"null"', '"5"']);
});
