/**
 * The command line, declared: what flags and arguments a command takes, from which come its parser, its types, its
 * `--help` and its errors.
 *
 * A command is a {@linkcode Command} made by {@linkcode command} or {@linkcode group}; running one returns the exit
 * code: 0 done, 1 failed ({@linkcode CommandError}), 2 wrong usage ({@linkcode UsageError}). Errors are one line.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { bold } from "@std/fmt/colors";
import { writeError, writeOut } from "./output.ts";
import {
  checkDuration,
  checkLimits,
  formatAddress,
  parseAddress,
  parseChoice,
  parseDuration,
  parseInteger,
  parseNumber,
  parseSize,
  quote,
  ValueError,
} from "./values.ts";

/** The command line was wrong: exit code 2. The message names the command and where its help is. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** The command failed: exit code 1. The message says what failed, on what, why, and what to do, in one line. */
export class CommandError extends Error {
  override name = "CommandError";
}

/**
 * What a flag holds: `string`; `boolean` (takes no value); `number` and `integer`; `size` in bytes; `duration` in
 * milliseconds; `address`, a checked `host:port`.
 */
export type FlagType = "string" | "boolean" | "number" | "integer" | "size" | "duration" | "address";

/** One flag. */
export interface FlagSpec {
  /** Without dashes: `manager-address`. */
  readonly name: string;
  /** One letter: `-o`. */
  readonly short?: string;
  readonly type: FlagType;
  /** What it does, in a few words, for the help. */
  readonly help: string;
  /** Placeholder of the value in the help; by default from the type. */
  readonly value?: string;
  /** May be given several times: the value is a list. Others take the last. */
  readonly repeatable?: boolean;
  /** The command cannot do without it. */
  readonly required?: boolean;
  readonly default?: string | number;
  /** The default that the help shows, for flags whose default the command itself puts in when nothing else says more. */
  readonly shownDefault?: string | number;
  /** Environment variable that is used when the flag is not given; an empty one counts as not set. */
  readonly env?: string;
  /** `size`: bytes that a plain number counts (1). `duration`: milliseconds (1000). */
  readonly unit?: number;
  /** `number`, `integer`, `size`, `duration`: bounds, both included. */
  readonly min?: number;
  readonly max?: number;
  /** `string`: the values there are. */
  readonly choices?: readonly string[];
}

/** One positional argument. Required ones come before optional ones; a `rest` is last. */
export interface PositionalSpec {
  /** In the help in capitals: `MOUNTPOINT`. */
  readonly name: string;
  readonly help: string;
  readonly optional?: boolean;
  /** Takes all that is left, at least one unless `optional`. */
  readonly rest?: boolean;
}

/** One command. */
export interface CommandSpec {
  /** With what stands before it: `sealfs client mount`. */
  readonly name: string;
  /** One sentence without a full stop. */
  readonly summary: string;
  /** More text for the help, lines of at most 100 characters. */
  readonly details?: string;
  readonly flags: readonly FlagSpec[];
  readonly positionals?: readonly PositionalSpec[];
  /** Everything after `--` is for someone else and lands in `after`. Without it `--` only ends the flags. */
  readonly passesRest?: boolean;
  /** Whole command lines for the help. */
  readonly examples?: readonly string[];
}

type FlagValue = string | number | boolean;

type ValueOf<F extends FlagSpec> = F["type"] extends "boolean" ? boolean
  : F["type"] extends "string" | "address" ? F extends { choices: readonly (infer C)[] } ? C : string
  : number;

/** The values of flags, by name: lists for repeatable ones, undefined where nothing was given and there is no default. */
export type FlagValues<F extends readonly FlagSpec[]> = {
  [S in F[number] as S["name"]]: S["repeatable"] extends true ? ValueOf<S>[]
    : S["type"] extends "boolean" ? boolean
    : S extends { required: true } | { default: string | number } ? ValueOf<S>
    : ValueOf<S> | undefined;
};

/** The positional arguments, by name. */
export type PositionalValues<P> = P extends readonly PositionalSpec[] ? {
    [S in P[number] as S["name"]]: S["rest"] extends true ? string[]
      : S["optional"] extends true ? string | undefined
      : string;
  }
  : Record<never, never>;

/** A command line, understood. */
export interface Parsed<C extends CommandSpec> {
  readonly flags: FlagValues<C["flags"]>;
  readonly positionals: PositionalValues<C["positionals"]>;
  /** Names of the flags that were on the command line or in the environment, rather than defaults. */
  readonly given: ReadonlySet<string>;
  /** What came after `--`, for commands with `passesRest`. */
  readonly after: readonly string[];
}

/** Reads an environment variable. */
export type Environment = (name: string) => string | undefined;

/** `--manager-address`, `-o`. */
function dashed(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

/** Edits (insert, remove, replace) that make `b` of `a`. O(a.length * b.length). */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replaced, previous[j] + 1, row[j - 1] + 1));
    }
    previous = row;
  }
  return previous[b.length];
}

/** Longest word that is compared with the names there are. */
const comparedCharsMax = 64;

/** ` (did you mean X?)` for a name that is near one of `names`, else nothing. */
function suggestion(wrong: string, names: readonly string[], show: (name: string) => string): string {
  if (wrong.length > comparedCharsMax) return "";
  const near = names.map((name) => ({ name, edits: editDistance(wrong, name) })).sort((a, b) => a.edits - b.edits)[0];
  if (near === undefined || near.edits > Math.max(1, Math.floor(near.name.length / 3))) return "";
  return ` (did you mean ${show(near.name)}?)`;
}

function usageError(name: string, message: string): UsageError {
  return new UsageError(`${name}: ${message}. See ${name} --help`);
}

function convert(spec: FlagSpec, text: string): FlagValue {
  switch (spec.type) {
    case "string":
      return spec.choices === undefined ? text : parseChoice(text, spec.choices);
    case "boolean":
      if (text === "1" || text === "true") return true;
      if (text === "0" || text === "false") return false;
      throw new ValueError(`${quote(text)} is neither true nor false`);
    case "number":
      return parseNumber(text, spec);
    case "integer":
      return parseInteger(text, spec);
    case "size":
      return checkLimits(parseSize(text, spec.unit), spec, text);
    case "duration":
      return checkDuration(parseDuration(text, spec.unit), spec, text);
    case "address":
      return formatAddress(parseAddress(text));
  }
}

/** What the flags parser found: the texts of each flag by name, and the rest. */
interface RawArguments {
  texts: Map<string, string[]>;
  booleans: Map<string, boolean>;
  positionals: string[];
  after: string[];
  help: boolean;
}

/** The parser's name of a flag: what begins with `no-` it takes for the opposite of another one. */
function parserName(name: string): string {
  return name.replace(/^no-/, "no_");
}

function parseRaw(spec: CommandSpec, args: readonly string[], stopEarly: boolean): RawArguments {
  const booleanNames = spec.flags.filter((flag) => flag.type === "boolean").map((flag) => flag.name).concat("help");
  const valueNames = spec.flags.filter((flag) => flag.type !== "boolean").map((flag) => flag.name);
  const alias: Record<string, string> = { help: "h" };
  for (const flag of spec.flags) if (flag.short !== undefined) alias[flag.name] = flag.short;
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  // Without a value of its own a boolean would swallow a following "true".
  const ready = args.map((arg, index) => {
    return index < end && booleanNames.some((name) => arg === `--${name}`) ? `--${parserName(arg.slice(2))}=true` : arg;
  });
  const valued = args.slice(0, end).find((arg) => {
    return booleanNames.some((name) => arg.startsWith(`--${name}=`)) && !/=(true|false)$/.test(arg);
  });
  if (valued !== undefined) throw usageError(spec.name, `${valued.replace(/=.*$/s, "")} takes no value`);
  const unknown: string[] = [];
  const parsed = parseArgs(ready, {
    "--": spec.passesRest === true,
    stopEarly,
    alias,
    boolean: booleanNames.map(parserName),
    string: [...valueNames, "_"],
    collect: valueNames,
    unknown: (arg, key) => {
      if (key !== undefined) unknown.push(arg);
      return key === undefined;
    },
  });
  if (unknown.length > 0) {
    const wrong = unknown[0].replace(/=.*$/s, "");
    const hint = suggestion(wrong.replace(/^-+/, ""), [...booleanNames, ...valueNames], dashed);
    throw usageError(spec.name, `unknown flag ${wrong}${hint}`);
  }
  const texts = new Map<string, string[]>();
  for (const name of valueNames) {
    const list = parsed[name] as string[];
    if (list.length > 0) texts.set(name, list);
  }
  const booleans = new Map<string, boolean>();
  for (const name of booleanNames) {
    const value = parsed[parserName(name)] === true;
    if (value || args.some((arg) => arg.startsWith(`--${name}=`))) booleans.set(name, value);
  }
  return {
    texts,
    booleans,
    positionals: parsed._.map(String),
    after: parsed["--"] ?? [],
    help: booleans.get("help") === true,
  };
}

function flagValue(spec: CommandSpec, flag: FlagSpec, raw: RawArguments, env: Environment, given: Set<string>) {
  const fromEnv = flag.env === undefined ? undefined : env(flag.env);
  const toValue = (text: string, source: string) => {
    try {
      if (text === "") throw new ValueError("needs a value");
      return convert(flag, text);
    } catch (error) {
      if (error instanceof ValueError) throw usageError(spec.name, `${source}: ${error.message}`);
      throw error;
    }
  };
  const texts = raw.texts.get(flag.name);
  const boolean = raw.booleans.get(flag.name);
  if (texts !== undefined || boolean !== undefined) {
    given.add(flag.name);
    if (boolean !== undefined) return boolean;
    const values = texts!.map((text) => toValue(text, `--${flag.name}`));
    return flag.repeatable ? values : values[values.length - 1];
  }
  if (fromEnv) {
    given.add(flag.name);
    const value = toValue(fromEnv, flag.env!);
    return flag.repeatable ? [value] : value;
  }
  if (flag.required) throw usageError(spec.name, `--${flag.name} is needed`);
  if (flag.repeatable) return [];
  return flag.type === "boolean" ? false : flag.default;
}

function positionalValues(spec: CommandSpec, words: readonly string[]): Record<string, string | string[] | undefined> {
  const values: Record<string, string | string[] | undefined> = {};
  let next = 0;
  for (const positional of spec.positionals ?? []) {
    if (next >= words.length && !positional.optional) throw usageError(spec.name, `${positional.name} is missing`);
    if (positional.rest) {
      values[positional.name] = words.slice(next);
      next = words.length;
    } else values[positional.name] = words[next++];
  }
  const empty = spec.positionals?.find(({ name }) => values[name] === "");
  if (empty !== undefined) throw usageError(spec.name, `${empty.name} is empty`);
  if (next < words.length) throw usageError(spec.name, `unexpected argument ${quote(words[next])}`);
  return values;
}

/**
 * Understands `args` by `spec`, or returns undefined when they ask for help. Throws {@linkcode UsageError}.
 */
export function parseCommand<const C extends CommandSpec>(
  spec: C,
  args: readonly string[],
  env: Environment = (name) => Deno.env.get(name),
): Parsed<C> | undefined {
  const raw = parseRaw(spec, args, false);
  if (raw.help) return undefined;
  const given = new Set<string>();
  const flags: Record<string, unknown> = {};
  for (const flag of spec.flags) flags[flag.name] = flagValue(spec, flag, raw, env, given);
  const positionals = positionalValues(spec, raw.positionals);
  return {
    flags: flags as FlagValues<C["flags"]>,
    positionals: positionals as PositionalValues<C["positionals"]>,
    given,
    after: raw.after,
  };
}

/** Widest left column of the help; longer entries have their text on the next line. */
const leftColumnMax = 34;

/** Two columns, the left one padded. */
function columns(rows: readonly (readonly [string, string])[]): string[] {
  const widths = rows.map(([left]) => left.length).filter((width) => width <= leftColumnMax);
  const width = Math.max(0, ...widths);
  return rows.flatMap(([left, right]) => {
    if (left.length > leftColumnMax) return [`  ${left}`, `  ${" ".repeat(width)}  ${right}`];
    return [`  ${left.padEnd(width)}  ${right}`.trimEnd()];
  });
}

const placeholders: Record<FlagType, string> = {
  string: "TEXT",
  boolean: "",
  number: "N",
  integer: "N",
  size: "SIZE",
  duration: "TIME",
  address: "HOST:PORT",
};

function flagRow(flag: FlagSpec): [string, string] {
  const placeholder = flag.value ?? (flag.choices ? flag.choices.join("|") : placeholders[flag.type]);
  const left = `${flag.short ? `-${flag.short}, ` : "    "}--${flag.name} ${placeholder}`.trimEnd();
  const notes: string[] = [];
  if (flag.required) notes.push("required");
  if (flag.repeatable) notes.push("may be repeated");
  const shown = flag.shownDefault ?? flag.default;
  if (shown !== undefined) notes.push(`default ${shown}`);
  if (flag.env !== undefined) notes.push(`or ${flag.env}`);
  return [left, notes.length === 0 ? flag.help : `${flag.help} (${notes.join("; ")})`];
}

function positionalUsage({ name, optional, rest }: PositionalSpec): string {
  const shown = rest ? `${name}...` : name;
  return optional ? `[${shown}]` : shown;
}

/** The flags part of a help text: every flag, then `--help`. */
function flagLines(flags: readonly FlagSpec[]): string[] {
  const rows = flags.map(flagRow);
  return ["", bold("Flags:"), ...columns([...rows, ["-h, --help", "show this text"]])];
}

/** The text that `--help` prints, with a line break at its end. */
export function helpText(spec: CommandSpec): string {
  const positionals = spec.positionals ?? [];
  const usage = [spec.name, "[FLAGS]", ...positionals.map(positionalUsage), ...(spec.passesRest ? ["-- ..."] : [])];
  const lines = [`${spec.summary}.`, "", `${bold("Usage:")} ${usage.join(" ")}`];
  if (positionals.length > 0) lines.push("", ...columns(positionals.map(({ name, help }) => [name, help])));
  if (spec.details !== undefined) lines.push("", spec.details);
  lines.push(...flagLines(spec.flags));
  if (spec.examples !== undefined) lines.push("", bold("Examples:"), ...spec.examples.map((line) => `  ${line}`));
  return lines.join("\n") + "\n";
}

/** Something that can be run from the command line. */
export interface Command {
  /** With what stands before it: `sealfs client mount`. */
  readonly name: string;
  readonly summary: string;
  /** A part of sealfs that people do not run: it is not in the help. */
  readonly internal?: boolean;
  /** Runs with the arguments behind the name; returns the exit code. Prints its own errors. */
  readonly run: (args: string[]) => Promise<number>;
}

/**
 * Runs `body` and turns what it throws into a line on stderr and an exit code. Errors that are neither
 * {@linkcode UsageError} nor {@linkcode CommandError} are bugs: they get their stack printed.
 */
export async function guard(name: string, body: () => number | Promise<number>): Promise<number> {
  try {
    return await body();
  } catch (error) {
    if (error instanceof UsageError) {
      writeError(error.message);
      return 2;
    }
    if (error instanceof CommandError) {
      writeError(`${name}: ${error.message}`);
      return 1;
    }
    writeError(`${name}: internal error, please report it: ${error instanceof Error ? error.stack : error}`);
    return 1;
  }
}

/** A command that does `body`; the value it returns is the exit code. */
export function command<const C extends CommandSpec>(
  spec: C,
  body: (parsed: Parsed<C>) => number | Promise<number>,
): Command {
  const run = (args: string[]) =>
    guard(spec.name, () => {
      const parsed = parseCommand(spec, args);
      if (parsed !== undefined) return body(parsed);
      writeOut(helpText(spec));
      return 0;
    });
  return { name: spec.name, summary: spec.summary, run };
}

/** A command that only has subcommands. */
export interface GroupSpec {
  readonly name: string;
  readonly summary: string;
  /** Flags that all subcommands take too: they may stand before or after the subcommand's name. */
  readonly flags: readonly FlagSpec[];
  readonly commands: readonly Command[];
  readonly examples?: readonly string[];
}

/** The text that `--help` prints for a group. */
export function groupHelpText(spec: GroupSpec): string {
  const shown = spec.commands.filter((entry) => !entry.internal);
  const rows = shown.map((entry) => [entry.name.slice(spec.name.length + 1), entry.summary] as const);
  const lines = [`${spec.summary}.`, "", `${bold("Usage:")} ${spec.name} [FLAGS] COMMAND ...`, "", bold("Commands:")];
  lines.push(...columns(rows));
  lines.push(...flagLines(spec.flags));
  if (spec.examples !== undefined) lines.push("", bold("Examples:"), ...spec.examples.map((line) => `  ${line}`));
  lines.push("", `${spec.name} COMMAND --help tells more.`);
  return lines.join("\n") + "\n";
}

/** A command that passes on to the subcommand its first word names, with the flags before and after that word. */
export function group(spec: GroupSpec): Command {
  const names = spec.commands.map((entry) => entry.name.slice(spec.name.length + 1));
  const run = (args: string[]) =>
    guard(spec.name, () => {
      const own = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
      const raw = parseRaw({ name: spec.name, summary: spec.summary, flags: spec.flags }, own, true);
      const [word] = raw.positionals;
      if (word === undefined) {
        if (!raw.help) throw usageError(spec.name, "a command is missing");
        writeOut(groupHelpText(spec));
        return 0;
      }
      const index = names.indexOf(word);
      if (index < 0) {
        throw usageError(spec.name, `unknown command ${quote(word)}${suggestion(word, names, (name) => name)}`);
      }
      const before = own.slice(0, own.length - raw.positionals.length);
      return spec.commands[index].run([...before, ...args.slice(before.length + 1)]);
    });
  return { name: spec.name, summary: spec.summary, run };
}
