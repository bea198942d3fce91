/** Mutated configuration files: read or refused, never a crash, never a hang. */

import { assert, assertLess } from "@std/assert";
import { parseManagerFile } from "../../cmd/config.ts";
import { CommandError } from "../../cmd/flags.ts";

const inputs = 100_000;
/** One file takes microseconds; this is a hang. */
const inputMsMax = 2000;

const seeds = [
  "address: 127.0.0.1:8081\ndata_path: ./data\nlog_level: warn\nshards: 1024\nreplicas: 2\n",
  "# c\n{address: 'a:1', \"shards\": 5, data_path: |\n  x\n}\n---\n...\n",
  "a: &x [1, *x, {b: c}]\n<<: *x\n? complex\n: value\n!!binary aGk=: !!set {a, b}\n",
  "secret_file: >-\n  folded\n  text\nheartbeat_interval_ms: 0x10\nserver_timeout_ms: 1e3\nk: ~\nd: 2001-01-01\n",
  "%YAML 1.2\n---\n- - - a\n  - ? b\n    : c\n- !<tag:yaml.org,2002:float> .inf\n",
];
const pieces = [
  ":",
  ": ",
  "\n",
  "\t",
  "  ",
  "- ",
  "? ",
  "&a ",
  "*a",
  "!!",
  "|",
  ">",
  "'",
  '"',
  "{",
  "}",
  "[",
  "]",
  "#",
  ",",
];
pieces.push(
  "%",
  "@",
  "`",
  "\\x41",
  "\u2028",
  "\0",
  "<<: ",
  "---\n",
  "...\n",
  "~",
  "0",
  "1e999",
  "\ufeff",
  "\ud800",
  "\r",
);

Deno.test(`parseManagerFile() reads or refuses ${inputs} mutated files without crash or hang`, () => {
  let state = 0x5ea1f5;
  const random = (limit: number) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
  const mutate = (text: string) => {
    for (let edits = 1 + random(8); edits > 0; edits--) {
      const at = random(text.length + 1), length = random(6);
      const kind = random(4);
      if (kind === 0) text = text.slice(0, at) + pieces[random(pieces.length)] + text.slice(at);
      else if (kind === 1) text = text.slice(0, at) + text.slice(at + length);
      else if (kind === 2) text = text.slice(0, at) + text.slice(random(text.length + 1), at + 40) + text.slice(at);
      else text = text.slice(0, at) + String.fromCharCode(random(256)) + text.slice(at + 1);
    }
    return text;
  };
  let read = 0, slowestMs = 0;
  for (let index = 0; index < inputs; index++) {
    const text = mutate(seeds[random(seeds.length)]);
    const startMs = performance.now();
    try {
      parseManagerFile(text, "m.yaml");
      read++;
    } catch (error) {
      assert(error instanceof CommandError, `input ${index} ${JSON.stringify(text)}: ${error}`);
      assert(/^m\.yaml:\d+: [^\n]+$/.test(error.message), error.message);
    }
    slowestMs = Math.max(slowestMs, performance.now() - startMs);
  }
  assertLess(slowestMs, inputMsMax);
  // Mutations that never leave a readable file would test little.
  assert(read > inputs / 200, `${read} read`);
});

Deno.test("parseManagerFile() is quick on files made to be slow", () => {
  const size = 60_000;
  const slow = [
    "[",
    "{",
    "- ",
    "? ",
    "a: ",
    "&a ",
    "*a,",
    "!!",
    '"\\',
    "'",
    "|\n",
    "#",
    "\n",
    "a:\n ",
    "{a: [",
    "0",
    " ",
    "<<: ",
  ];
  for (const piece of slow) {
    const startMs = performance.now();
    try {
      parseManagerFile(piece.repeat(size / piece.length), "m.yaml");
    } catch (error) {
      assert(error instanceof CommandError, `${JSON.stringify(piece)}: ${error}`);
    }
    assertLess(performance.now() - startMs, inputMsMax, JSON.stringify(piece));
  }
});
