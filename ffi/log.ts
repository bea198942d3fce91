/**
 * The log: one line an event, `ISO-time LEVEL component message`, to stderr or appended to a file.
 *
 * A line is one write of at most {@linkcode lineBytesMax} bytes on a descriptor opened for appending, so threads and
 * processes may share a file and lines stay whole. Writing is synchronous: it works in reactors, which have no event
 * loop. Logging never fails the caller: a line that cannot be written is dropped.
 *
 * @module
 */

import { type LogLevel, logLevels } from "../core/runtime.ts";

/** Longest line with its line break; more of a message is cut. A pipe takes this much in one piece. */
export const lineBytesMax = 4096;

/** Level when nobody says otherwise: problems only. */
export const defaultLogLevel: LogLevel = "warn";

/** What a logger is made from. Plain data, so that it can be posted to a worker. */
export interface LogOptions {
  /** Least severe level that is written. */
  level: LogLevel;
  /** File to append to; stderr without it. */
  file?: string;
}

/** Where log lines go. */
export interface Logger {
  /** What it was made from, for workers. */
  readonly options: LogOptions;
  /** Whether a line of this level would be written: ask before building an expensive message. */
  enabled(level: LogLevel): boolean;
  /** Writes one line; `component` is a short word such as "server" or "store". */
  log(level: LogLevel, component: string, message: string): void;
}

const encoder = new TextEncoder();
const levelWidth = Math.max(...logLevels.map((level) => level.length));

/** One line of the log with its line break; control characters in the message become spaces or `?`. */
export function formatLine(time: Date, level: LogLevel, component: string, message: string): Uint8Array {
  const text = message.trimEnd().replace(/\s*\n\s*/g, " | ").replace(/\p{Cc}/gu, "?");
  const line = `${time.toISOString()} ${level.toUpperCase().padEnd(levelWidth)} ${component} ${text}\n`;
  const bytes = new Uint8Array(lineBytesMax);
  const { read, written } = encoder.encodeInto(line, bytes.subarray(0, lineBytesMax - 1));
  if (read === line.length) return bytes.subarray(0, written);
  // Cut, or as long as can be: either way it ends its line.
  bytes[written] = 10;
  return bytes.subarray(0, written + 1);
}

/**
 * Opens a log. A file is made with mode 0640 if it is absent. Throws what opening the file throws (Deno.errors.NotFound
 * when its folder is absent).
 */
export function openLogger(options: LogOptions): Logger {
  const levelMax = logLevels.indexOf(options.level);
  const out = options.file === undefined
    ? Deno.stderr
    : Deno.openSync(options.file, { append: true, create: true, mode: 0o640 });
  const enabled = (level: LogLevel) => logLevels.indexOf(level) <= levelMax;
  const log = (level: LogLevel, component: string, message: string) => {
    if (!enabled(level)) return;
    try {
      out.writeSync(formatLine(new Date(), level, component, message));
    } catch { // A full disk or a closed pipe must not take the file system with it.
    }
  };
  return { options: { ...options }, enabled, log };
}
