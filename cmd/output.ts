/**
 * What commands print: tables, JSON, sizes and times for people. Output is written at once and whole; a reader that
 * went away (`sealfs client list | head -1`) is no error.
 *
 * @module
 */

import { format as formatBytes } from "@std/fmt/bytes";
import { bold, setColorEnabled, stripAnsiCode } from "@std/fmt/colors";

// Files and pipes get plain text.
setColorEnabled(!Deno.noColor && Deno.stdout.isTerminal());

const encoder = new TextEncoder();

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let bytes = encoder.encode(text);
  try {
    while (bytes.length > 0) bytes = bytes.subarray(stream.writeSync(bytes));
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** Writes `text` to stdout as it is. */
export function writeOut(text: string): void {
  writeAll(Deno.stdout, text);
}

/** Writes one line to stderr. */
export function writeError(line: string): void {
  writeAll(Deno.stderr, `${line}\n`);
}

/** Writes `value` to stdout as indented JSON; bigints become numbers where they are exact, else strings. */
export function printJson(value: unknown): void {
  writeOut(jsonText(value));
}

/** The text that {@linkcode printJson} writes. */
export function jsonText(value: unknown): string {
  const replace = (_key: string, item: unknown) => {
    if (typeof item !== "bigint") return item;
    return Number.isSafeInteger(Number(item)) ? Number(item) : String(item);
  };
  return JSON.stringify(value, replace, 2) + "\n";
}

/** A column of a {@linkcode table}. */
export interface Column {
  title: string;
  /** Numbers are easier to compare at the right. */
  align?: "left" | "right";
}

/** Characters a text takes on screen; colours take none. */
function width(text: string): number {
  return [...stripAnsiCode(text)].length;
}

/** Rows under titles, columns two spaces apart, with a line break at the end. Control characters in cells become `?`. */
export function table(columns: readonly Column[], rows: readonly (readonly (string | number)[])[]): string {
  const lines = [columns.map((column) => column.title.toUpperCase()), ...rows.map((row) => row.map(printable))];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => width(line[index] ?? ""))));
  const texts = lines.map((line) => {
    const cells = columns.map((column, index) => {
      const cell = line[index] ?? "";
      const padding = " ".repeat(widths[index] - width(cell));
      return column.align === "right" ? padding + cell : cell + padding;
    });
    return cells.join("  ").trimEnd();
  });
  texts[0] = bold(texts[0]);
  return texts.join("\n") + "\n";
}

/** A cell that cannot break the table: escape sequences of colours stay, other control characters go. */
function printable(cell: string | number): string {
  // deno-lint-ignore no-control-regex
  return String(cell).replace(/(?!\x1b\[[0-9;]*m)\p{Cc}/gu, "?");
}

/** A byte count for people: `1.46 GiB`. */
export function humanSize(bytes: number): string {
  // The library writes kiB, which nothing else here does.
  return formatBytes(bytes, { binary: true, maximumFractionDigits: 2 }).replace("kiB", "KiB");
}

/** A duration for people: `320 ms`, `4.2 s`, `3 min`, `5 h`, `2 d`. */
export function humanDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`;
  if (ms < 48 * 3_600_000) return `${Math.floor(ms / 3_600_000)} h`;
  return `${Math.floor(ms / 86_400_000)} d`;
}
