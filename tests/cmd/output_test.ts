/** What commands print. */

import { assertEquals } from "@std/assert";
import { bold, setColorEnabled } from "@std/fmt/colors";
import { humanDuration, humanSize, jsonText, table } from "../../cmd/output.ts";

Deno.test("table() lines columns up and leaves no space at line ends", () => {
  const text = table([{ title: "name" }, { title: "size", align: "right" }], [["a", 5], ["long name", 12345]]);
  assertEquals(text, "NAME        SIZE\na              5\nlong name  12345\n");
});

Deno.test("table() does not count colours and does not let cells break lines", () => {
  setColorEnabled(true);
  const cell = bold("ab");
  setColorEnabled(false);
  assertEquals(
    table([{ title: "a" }, { title: "b" }], [[cell, "x\ny\x1b]0;t\x07"]]).split("\n")[1],
    `${cell}  x?y?]0;t?`,
  );
});

Deno.test("jsonText() writes bigints as numbers where they are exact", () => {
  assertEquals(JSON.parse(jsonText({ a: 5n, b: 2n ** 60n })), { a: 5, b: String(2n ** 60n) });
});

Deno.test("humanSize() and humanDuration() are short", () => {
  assertEquals([humanSize(0), humanSize(1536), humanSize(100 * 2 ** 30)], ["0 B", "1.5 KiB", "100 GiB"]);
  assertEquals([humanDuration(320), humanDuration(4200), humanDuration(200_000)], ["320 ms", "4.2 s", "3 min"]);
});
