/**
 * Values as people write them: sizes, durations, numbers, addresses.
 *
 * Each parser returns the value or throws {@linkcode ValueError} with a message that tells what would be right; flags
 * and the configuration file put the name of the flag or key in front of it.
 *
 * @module
 */

/** A value that cannot be understood. The message quotes it and says what is expected; it fits in one line. */
export class ValueError extends Error {
  override name = "ValueError";
}

/** Longest piece of a bad value that is shown. */
const quotedCharsMax = 60;

/** `value` in quotes, shortened, without line breaks: for error messages. */
export function quote(value: unknown): string {
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "a mapping";
  const text = String(value);
  const short = text.length > quotedCharsMax ? `${text.slice(0, quotedCharsMax)}...` : text;
  return JSON.stringify(short);
}

const kibi = 1024;
/** Bytes of each suffix of a size. */
const sizeUnits: Record<string, number> = {
  b: 1,
  kib: kibi,
  mib: kibi ** 2,
  gib: kibi ** 3,
  tib: kibi ** 4,
  pib: kibi ** 5,
  k: kibi,
  m: kibi ** 2,
  g: kibi ** 3,
  t: kibi ** 4,
  p: kibi ** 5,
};

/**
 * Bytes of a size such as `10GiB`, `1.5 TiB`, `64K` or `100`; a plain number counts `unitBytes` (1 by default,
 * 2 ** 20 for volume sizes). K, M, G, T, P are powers of 1024; KB and the like are refused, as people disagree on them.
 *
 * @example
 * ```ts
 * import { parseSize } from "./values.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(parseSize("10GiB"), 10 * 2 ** 30);
 * assertEquals(parseSize("100", 2 ** 20), 100 * 2 ** 20);
 * ```
 */
export function parseSize(text: string, unitBytes = 1): number {
  const match = /^(\d{1,16}(?:\.\d{1,9})?)\s*([a-z]*)$/i.exec(text.trim());
  const scale = match === null ? undefined : match[2] === "" ? unitBytes : sizeUnits[match[2].toLowerCase()];
  if (match === null || scale === undefined || !Object.hasOwn(sizeUnits, match[2].toLowerCase() || "b")) {
    throw new ValueError(`${quote(text)} is not a size: write a number, with KiB, MiB, GiB or TiB where it is needed`);
  }
  const bytes = Math.round(Number(match[1]) * scale);
  if (!Number.isSafeInteger(bytes)) throw new ValueError(`${quote(text)} is too large a size`);
  return bytes;
}

/** Milliseconds of each suffix of a duration. */
const durationUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of a duration such as `500ms`, `10s`, `2m`, `1h` or `10`; a plain number counts `unitMs` (seconds by default). */
export function parseDuration(text: string, unitMs = 1000): number {
  const match = /^(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]*)$/i.exec(text.trim());
  const suffix = match?.[2].toLowerCase() ?? "";
  if (match === null || (suffix !== "" && !Object.hasOwn(durationUnits, suffix))) {
    throw new ValueError(`${quote(text)} is not a duration: write a number, with ms, s, m or h where it is needed`);
  }
  return Math.round(Number(match[1]) * (suffix === "" ? unitMs : durationUnits[suffix]));
}

/** Bounds of a number, both included. */
export interface NumberLimits {
  min?: number;
  max?: number;
}

/** Throws unless `value` lies within `limits`. Returns it. */
export function checkLimits(value: number, { min, max }: NumberLimits, shown: unknown = value): number {
  if (min !== undefined && value < min) throw new ValueError(`${quote(shown)} is too small: at least ${min}`);
  if (max !== undefined && value > max) throw new ValueError(`${quote(shown)} is too large: at most ${max}`);
  return value;
}

/** {@linkcode checkLimits} for milliseconds: the message has the limit as a duration. */
export function checkDuration(ms: number, { min, max }: NumberLimits, shown: string): number {
  const written = (limitMs: number) => limitMs % 1000 === 0 ? `${limitMs / 1000}s` : `${limitMs}ms`;
  if (min !== undefined && ms < min) throw new ValueError(`${quote(shown)} is too small: at least ${written(min)}`);
  if (max !== undefined && ms > max) throw new ValueError(`${quote(shown)} is too large: at most ${written(max)}`);
  return ms;
}

/** A decimal number, as `1.5`. */
export function parseNumber(text: string, limits: NumberLimits = {}): number {
  if (!/^[+-]?\d{1,16}(\.\d{1,16})?$/.test(text.trim())) throw new ValueError(`${quote(text)} is not a number`);
  return checkLimits(Number(text), limits, text);
}

/** A whole number. */
export function parseInteger(text: string, limits: NumberLimits = {}): number {
  if (!/^[+-]?\d{1,15}$/.test(text.trim())) throw new ValueError(`${quote(text)} is not a whole number`);
  return checkLimits(Number(text), limits, text);
}

/** Where something listens. */
export interface Address {
  /** A name, an IPv4 address, or an IPv6 address without brackets. */
  hostname: string;
  /** 0 to 65535; 0 lets the system choose. */
  port: number;
}

/** Splits `host:port`; an IPv6 address is in brackets, as `[::1]:8081`. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-f:.]+(?:%[\w.-]+)?)\]|([^\s:[\]/]+)):(\d{1,5})$/i.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new ValueError(`${quote(text)} is not an address: write HOST:PORT, as 127.0.0.1:8081`);
  }
  return { hostname: match[1] ?? match[2], port };
}

/** The opposite of {@linkcode parseAddress}. */
export function formatAddress({ hostname, port }: Address): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/** Throws unless `text` is one of `choices`. Returns it. */
export function parseChoice<T extends string>(text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw new ValueError(`${quote(text)} is not one of ${choices.join(", ")}`);
  return found;
}
