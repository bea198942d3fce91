/**
 * The manager's settings: `manager.yaml`, flags that override it, defaults. Also the flags about logs and the secret that
 * several commands share.
 *
 * An unknown key or a bad value is an error that names the file and the line. Relative paths in the file count from the
 * file's folder, those in flags from the current one.
 *
 * @module
 */

import { dirname, join, resolve } from "@std/path";
import { parse } from "@std/yaml";
import { type LogLevel, logLevels } from "../core/runtime.ts";
import { defaultLogLevel } from "../ffi/log.ts";
import { readSecretFile } from "../ffi/secret.ts";
import { CommandError, type Environment, type FlagSpec, type FlagValues } from "./flags.ts";
import { checkLimits, formatAddress, parseAddress, parseChoice, quote, ValueError } from "./values.ts";

/** Longest configuration file that is read. */
const configBytesMax = 64 * 1024;
/** Longest message of the YAML parser that is shown. */
const parserMessageCharsMax = 200;
/** Bounds and defaults of the numbers. */
const limits = {
  shards: { min: 1, max: 4096 },
  replicas: { min: 1, max: 3 },
  heartbeatIntervalMs: { min: 10, max: 600_000 },
  serverTimeoutMs: { min: 50, max: 3_600_000 },
} as const;
/** Where a manager listens, and where others look for it. */
export const defaultManagerAddress = "127.0.0.1:8081";
/** Shards of a new cluster. */
export const defaultShards = 1024;
/** Copies of everything in a new cluster. */
export const defaultReplicas = 1;
/** Time between the signs of life of servers and clients. */
export const defaultHeartbeatIntervalMs = 1000;
/** Silence after which a server counts as down. */
export const defaultServerTimeoutMs = 5000;

/** `--log-level`, without a default of its own: a file may say more. */
const logLevelFlag = {
  name: "log-level",
  type: "string",
  choices: logLevels,
  help: "least severe log lines",
} as const satisfies FlagSpec;

const logFileFlag = {
  name: "log-file",
  type: "string",
  value: "FILE",
  help: "append the log to FILE instead of writing to stderr",
} as const satisfies FlagSpec;

/** `--log-level` and `--log-file`, for every long-running command. */
export const logFlags = [
  { ...logLevelFlag, default: defaultLogLevel },
  logFileFlag,
] as const satisfies readonly FlagSpec[];

/** `--secret-file`, for everything that talks to the cluster. */
export const secretFlag = {
  name: "secret-file",
  type: "string",
  value: "FILE",
  env: "SEALFS_SECRET_FILE",
  help: "file with the cluster's secret, readable by its owner only",
} as const satisfies FlagSpec;

/** `--metrics-address`, for processes that have no other HTTP service and for the manager. */
export const metricsFlag = {
  name: "metrics-address",
  type: "address",
  help: "where to serve /metrics and /healthz over HTTP; nowhere if not given",
} as const satisfies FlagSpec;

/** Root's place for a manager's state. */
const rootDataPath = "/var/lib/sealfs/manager";

/** The flags of `sealfs manager`: one for every key of the file, and where the file is. */
export const managerFlags = [
  { name: "config", type: "string", value: "FILE", help: "configuration file (or manager.yaml in SEALFS_CONFIG_PATH)" },
  { name: "address", type: "address", help: "where to listen", shownDefault: defaultManagerAddress },
  { ...metricsFlag, help: "another address for /metrics and /healthz, besides that of everything" },
  {
    name: "data-path",
    type: "string",
    value: "DIR",
    help: "folder for the cluster's state",
    shownDefault: Deno.uid() === 0 ? rootDataPath : "~/.local/state/sealfs/manager",
  },
  { name: "shards", type: "integer", ...limits.shards, help: "shards of a new cluster", shownDefault: defaultShards },
  {
    name: "replicas",
    type: "integer",
    ...limits.replicas,
    help: "copies of everything in a new cluster",
    shownDefault: defaultReplicas,
  },
  {
    name: "heartbeat-interval-ms",
    type: "integer",
    ...limits.heartbeatIntervalMs,
    help: "time between signs of life",
    shownDefault: defaultHeartbeatIntervalMs,
  },
  {
    name: "server-timeout-ms",
    type: "integer",
    ...limits.serverTimeoutMs,
    help: "silence after which a server is down",
    shownDefault: defaultServerTimeoutMs,
  },
  secretFlag,
  { ...logLevelFlag, shownDefault: defaultLogLevel },
  logFileFlag,
] as const satisfies readonly FlagSpec[];

/** What `manager.yaml` says; absent keys are absent. Paths are absolute. */
export interface ManagerFile {
  /** `host:port`. */
  address?: string;
  /** `host:port`. */
  metricsAddress?: string;
  dataPath?: string;
  logLevel?: LogLevel;
  shards?: number;
  replicas?: number;
  secretFile?: string;
  heartbeatIntervalMs?: number;
  serverTimeoutMs?: number;
}

/** All settings of a manager. */
export interface ManagerSettings {
  /** `host:port`. */
  address: string;
  /** `host:port` of a second place for metrics and health. */
  metricsAddress?: string;
  dataPath: string;
  logLevel: LogLevel;
  logFile?: string;
  /** As asked for, absent when nothing was said: a store that exists has its own, and a contradiction is an error. */
  shards?: number;
  /** As `shards`. */
  replicas?: number;
  secretFile?: string;
  heartbeatIntervalMs: number;
  serverTimeoutMs: number;
}

function integer(value: unknown, bounds: { min: number; max: number }): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) {
    throw new ValueError(`${quote(value)} is not a whole number`);
  }
  return checkLimits(value, bounds);
}

function address(value: unknown): string {
  // A bare port is a number to YAML; lists and mappings must not be turned into text, they can be endless.
  if (typeof value === "object") throw new ValueError(`${quote(value)} is not an address`);
  return formatAddress(parseAddress(String(value)));
}

function text(value: unknown): string {
  if (typeof value !== "string" || value === "") throw new ValueError(`${quote(value)} is not a text`);
  if (value.includes("\0")) throw new ValueError(`${quote(value)} holds a NUL character`);
  return value;
}

/** How each key of the file is read; `folder` is the file's. */
const readers: Record<string, (file: ManagerFile, value: unknown, folder: string) => void> = {
  address: (file, value) => file.address = address(value),
  metrics_address: (file, value) => file.metricsAddress = address(value),
  data_path: (file, value, folder) => file.dataPath = resolve(folder, text(value)),
  log_level: (file, value) => file.logLevel = parseChoice(text(value), logLevels),
  shards: (file, value) => file.shards = integer(value, limits.shards),
  replicas: (file, value) => file.replicas = integer(value, limits.replicas),
  secret_file: (file, value, folder) => file.secretFile = resolve(folder, text(value)),
  heartbeat_interval_ms: (file, value) => file.heartbeatIntervalMs = integer(value, limits.heartbeatIntervalMs),
  server_timeout_ms: (file, value) => file.serverTimeoutMs = integer(value, limits.serverTimeoutMs),
};

/** The line (from 1) where a top-level key stands, as well as it can be told without the parser's help. */
function lineOf(source: string, key: string): number {
  const name = `["']?${RegExp.escape(key)}["']?\\s*(:|$)`;
  const block = new RegExp(`^(\\? *)?${name}`), inline = new RegExp(`[{,\\s?]${name}`);
  const lines = source.split(/\r\n|\r|\n/);
  const found = lines.findIndex((line) => block.test(line));
  return 1 + Math.max(0, found >= 0 ? found : lines.findIndex((line) => inline.test(line)));
}

/**
 * Understands the text of a `manager.yaml`; `path` is its name, for errors and for relative paths. Throws
 * {@linkcode CommandError} with `path:line: what is wrong`.
 */
export function parseManagerFile(source: string, path: string): ManagerFile {
  if (source.length > configBytesMax) throw new CommandError(`${path}:1: longer than ${configBytesMax} bytes`);
  let document: unknown;
  try {
    document = parse(source, { schema: "core" });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const line = /at line (\d+), column -?\d+/.exec(error.message)?.[1] ?? "1";
    const words = error.message.replace(/\s*at line \d+, column -?\d+:[\s\S]*$/, "");
    const why = words.replace(/[\p{Cc}\s]+/gu, " ").slice(0, parserMessageCharsMax);
    // The parser recurses: only a file made for it nests so deep.
    const message = error instanceof RangeError ? "nested too deeply" : why;
    throw new CommandError(`${path}:${line}: not valid YAML: ${message}`);
  }
  if (document === null || document === undefined) return {};
  if (typeof document !== "object" || Array.isArray(document)) {
    throw new CommandError(`${path}:1: must hold lines of the form "key: value"`);
  }
  const file: ManagerFile = {};
  const folder = dirname(resolve(path));
  for (const [key, value] of Object.entries(document)) {
    const line = lineOf(source, key);
    if (!Object.hasOwn(readers, key)) {
      throw new CommandError(
        `${path}:${line}: unknown key ${quote(key)}; there are ${Object.keys(readers).join(", ")}`,
      );
    }
    try {
      readers[key](file, value, folder);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      throw new CommandError(`${path}:${line}: ${key}: ${error.message}`);
    }
  }
  return file;
}

/** Reads and understands a `manager.yaml`. Throws {@linkcode CommandError}. */
export function readManagerFile(path: string): ManagerFile {
  return parseManagerFile(readSmallFile(path, configBytesMax, "configuration file"), path);
}

function readSmallFile(path: string, bytesMax: number, what: string): string {
  try {
    const info = Deno.statSync(path);
    if (!info.isFile) throw new CommandError(`${what} ${path} is not a file`);
    if (info.size > bytesMax) throw new CommandError(`${what} ${path} is longer than ${bytesMax} bytes`);
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof CommandError) throw error;
    if (error instanceof Deno.errors.NotFound) throw new CommandError(`${what} ${path} does not exist`);
    throw new CommandError(`cannot read ${what} ${path}: ${error instanceof Error ? error.message : error}`);
  }
}

/** Where a manager keeps its state when nobody says. */
function defaultDataPath(env: Environment): string {
  if (Deno.uid() === 0) return rootDataPath;
  const home = env("HOME");
  const state = env("XDG_STATE_HOME") || (home ? join(home, ".local", "state") : undefined);
  if (state === undefined) throw new CommandError("no place for the cluster's state: give --data-path");
  return join(state, "sealfs", "manager");
}

/** Puts flags, the file and the defaults together, in this order. Throws {@linkcode CommandError}. */
export function managerSettings(
  flags: FlagValues<typeof managerFlags>,
  env: Environment = (name) => Deno.env.get(name),
): ManagerSettings {
  const folder = env("SEALFS_CONFIG_PATH");
  const path = flags.config ?? (folder ? join(folder, "manager.yaml") : undefined);
  const file = path === undefined ? {} : readManagerFile(path);
  const dataPath = flags["data-path"] ?? file.dataPath;
  const secretFile = flags["secret-file"] ?? file.secretFile;
  const settings: ManagerSettings = {
    address: flags.address ?? file.address ?? defaultManagerAddress,
    metricsAddress: flags["metrics-address"] ?? file.metricsAddress,
    dataPath: dataPath === undefined ? defaultDataPath(env) : resolve(dataPath),
    logLevel: flags["log-level"] ?? file.logLevel ?? defaultLogLevel,
    logFile: flags["log-file"],
    shards: flags.shards ?? file.shards,
    replicas: flags.replicas ?? file.replicas,
    secretFile: secretFile === undefined ? undefined : resolve(secretFile),
    heartbeatIntervalMs: flags["heartbeat-interval-ms"] ?? file.heartbeatIntervalMs ?? defaultHeartbeatIntervalMs,
    serverTimeoutMs: flags["server-timeout-ms"] ?? file.serverTimeoutMs ?? defaultServerTimeoutMs,
  };
  if (settings.serverTimeoutMs < 2 * settings.heartbeatIntervalMs) {
    throw new CommandError(
      `server_timeout_ms (${settings.serverTimeoutMs}) must be at least twice heartbeat_interval_ms ` +
        `(${settings.heartbeatIntervalMs}), or servers would count as down between two signs of life`,
    );
  }
  return settings;
}

/**
 * Reads the cluster's secret: the file's text without white space around it. Throws {@linkcode CommandError} when others
 * than the owner's group may read it, others than the owner may write it, or it is empty.
 */
export function readSecret(path: string): string {
  try {
    return readSecretFile(path);
  } catch (error) {
    throw new CommandError((error as Error).message);
  }
}
