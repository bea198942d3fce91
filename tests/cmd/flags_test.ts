/** The declared command line. */

import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { command, type CommandSpec, group, helpText, parseCommand, UsageError } from "../../cmd/flags.ts";

const spec = {
  name: "sealfs client create",
  summary: "Make a volume",
  flags: [
    { name: "manager-address", type: "address", help: "where the manager is", default: "127.0.0.1:8081" },
    { name: "json", type: "boolean", help: "print JSON" },
    { name: "option", short: "o", type: "string", repeatable: true, help: "mount option" },
    { name: "weight", type: "number", min: 0, max: 10, help: "share of the data" },
    { name: "io-timeout", type: "duration", help: "give up after", default: 60_000 },
    { name: "limit", type: "size", unit: 2 ** 20, help: "most bytes" },
    { name: "secret-file", type: "string", env: "SEALFS_SECRET_FILE", help: "secret" },
    { name: "level", type: "string", choices: ["low", "high"], help: "how much" },
  ],
  positionals: [
    { name: "NAME", help: "the volume" },
    { name: "SIZE", help: "its size", optional: true },
  ],
} as const satisfies CommandSpec;

function parse(args: string[], env: Record<string, string> = {}) {
  const parsed = parseCommand(spec, args, (name) => env[name]);
  assert(parsed !== undefined);
  return parsed;
}

function usage(args: string[], message: string, env: Record<string, string> = {}) {
  const error = assertThrows(() => parse(args, env), UsageError, message);
  assertEquals(error.message.split("\n").length, 1);
  assertStringIncludes(error.message, "See sealfs client create --help");
}

Deno.test("parseCommand() gives typed values, defaults and positionals", () => {
  const { flags, positionals, given } = parse(["test1", "-o", "ro", "--limit", "3", "--option=noatime", "100"]);
  const timeoutMs: number = flags["io-timeout"];
  const weight: number | undefined = flags.weight;
  const size: string | undefined = positionals.SIZE;
  const level: "low" | "high" | undefined = flags.level;
  assertEquals([timeoutMs, weight, size, level], [60_000, undefined, "100", undefined]);
  assertEquals(flags.option, ["ro", "noatime"]);
  assertEquals(flags.limit, 3 * 2 ** 20);
  assertEquals(flags["manager-address"], "127.0.0.1:8081");
  assertEquals(flags.json, false);
  assertEquals([...given].sort(), ["limit", "option"]);
});

Deno.test("parseCommand() takes the last of a flag given twice", () => {
  assertEquals(parse(["a", "--weight=1", "--weight=2.5"]).flags.weight, 2.5);
});

Deno.test("parseCommand() does not let a boolean flag swallow the next word", () => {
  const { flags, positionals } = parse(["--json", "true", "false"]);
  assertEquals(flags.json, true);
  assertEquals(positionals, { NAME: "true", SIZE: "false" });
});

Deno.test("parseCommand() keeps words that look like numbers as they are", () => {
  assertEquals(parse(["007", "1e3"]).positionals, { NAME: "007", SIZE: "1e3" });
});

Deno.test("parseCommand() uses the environment where a flag is not given", () => {
  const env = { SEALFS_SECRET_FILE: "/from/env" };
  assertEquals(parse(["a"], env).flags["secret-file"], "/from/env");
  assert(parse(["a"], env).given.has("secret-file"));
  assertEquals(parse(["a", "--secret-file", "x"], env).flags["secret-file"], "x");
  assertEquals(parse(["a"], { SEALFS_SECRET_FILE: "" }).flags["secret-file"], undefined);
});

Deno.test("parseCommand() takes words that start with a dash behind --", () => {
  assertEquals(parse(["--", "-name", "--json"]).positionals, { NAME: "-name", SIZE: "--json" });
});

Deno.test("parseCommand() keeps what stands behind -- apart when the command passes it on", () => {
  const exec = { name: "x", summary: "X", flags: [], passesRest: true } as const;
  assertEquals(parseCommand(exec, ["--", "ls", "-l", "--", "x"])?.after, ["ls", "-l", "--", "x"]);
});

Deno.test("parseCommand() collects all remaining words in a rest argument", () => {
  const rest = { name: "x", summary: "X", flags: [], positionals: [{ name: "F", help: "f", rest: true }] } as const;
  const files: string[] | undefined = parseCommand(rest, ["a", "b"])?.positionals.F;
  assertEquals(files, ["a", "b"]);
  assertThrows(() => parseCommand(rest, []), UsageError, "F is missing");
});

Deno.test("parseCommand() returns undefined when help is asked for, whatever else is missing", () => {
  assertEquals(parseCommand(spec, ["--help"]), undefined);
  assertEquals(parseCommand(spec, ["-h"]), undefined);
});

Deno.test("parseCommand() tells what is wrong in one line that names command and help", () => {
  usage(["a", "--jsom"], "unknown flag --jsom (did you mean --json?)");
  usage(["a", "--zzzzzz=1"], "unknown flag --zzzzzz.");
  usage(["a", "--__proto__=1"], "unknown flag --__proto__");
  usage(["a", "--a.b=1"], "unknown flag --a.b");
  usage(["a", "-x"], "unknown flag -x");
  usage(["a", "--weight"], "--weight: needs a value");
  usage(["a", "--weight", "--json"], "--weight: needs a value");
  usage(["a", "--weight=11"], '--weight: "11" is too large: at most 10');
  usage(["a", "--manager-address", "nowhere"], "HOST:PORT");
  usage(["a", "--level", "mid"], '"mid" is not one of low, high');
  usage(["a", "--json=maybe"], "--json takes no value");
  usage([], "NAME is missing");
  usage([""], "NAME is empty");
  usage(["a", "b", "c"], 'unexpected argument "c"');
});

Deno.test("helpText() shows usage, arguments, flags, defaults and environment", () => {
  const text = helpText(spec);
  assertStringIncludes(text, "Usage: sealfs client create [FLAGS] NAME [SIZE]");
  assertStringIncludes(text, "--manager-address HOST:PORT  where the manager is (default 127.0.0.1:8081)");
  assertStringIncludes(text, "  -o, --option TEXT");
  assertStringIncludes(text, "secret (or SEALFS_SECRET_FILE)");
  assertStringIncludes(text, "--level low|high");
  for (const line of text.split("\n")) assert(line.length <= 120, line);
});

Deno.test("group() passes flags before and after the subcommand's name on to it", async () => {
  const seen: unknown[] = [];
  const shared = [
    { name: "manager-address", type: "address", help: "where" },
    { name: "json", type: "boolean", help: "json" },
  ] as const;
  const exec = command(
    { name: "g exec", summary: "E", flags: shared, positionals: [{ name: "A", help: "a" }], passesRest: true },
    ({ flags, positionals, after }) => {
      seen.push([flags["manager-address"], flags.json, positionals.A, after]);
      return 7;
    },
  );
  const commands = group({ name: "g", summary: "G", flags: shared, commands: [exec] });
  assertEquals(await commands.run(["--json", "--manager-address", "h:1", "exec", "a", "--", "ls", "--json"]), 7);
  assertEquals(await commands.run(["exec", "--manager-address=h:2", "b"]), 7);
  assertEquals(seen, [["h:1", true, "a", ["ls", "--json"]], ["h:2", false, "b", []]]);
});

Deno.test("parseCommand() never throws anything but UsageError on random words", () => {
  const words = [
    "--",
    "-",
    "---",
    "-o",
    "--o",
    "--json",
    "--json=",
    "--=x",
    "-=",
    "--weight",
    "-1",
    "--no-json",
    "a.b",
  ];
  words.push(
    "--weight=-1",
    "--limit=1GiB",
    "--__proto__",
    "--constructor=1",
    "-ooo",
    "-o=",
    "",
    "true",
    "\0",
    "--help=x",
  );
  let state = 1;
  const random = (limit: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % limit;
  };
  for (let round = 0; round < 20_000; round++) {
    const args = Array.from({ length: random(6) }, () => words[random(words.length)]);
    try {
      parseCommand(spec, args, () => undefined);
    } catch (error) {
      assert(error instanceof UsageError, `${JSON.stringify(args)}: ${error}`);
    }
  }
});
