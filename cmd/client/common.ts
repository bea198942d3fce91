/**
 * What the verbs of `sealfs client` share: flags, where socket and state are, how the manager and the daemon are asked,
 * how a daemon is started.
 *
 * @module
 */

import { join, resolve } from "@std/path";
import { askDaemon, ControlFailure, type ControlQuestion, type DaemonStatus, NoDaemon } from "../../ffi/control.ts";
import { openLogger } from "../../ffi/log.ts";
import { ManagerClient, ManagerFailure } from "../../ffi/manager_client.ts";
import { defaultManagerAddress, logFlags, readSecret, secretFlag } from "../config.ts";
import { CommandError, type FlagSpec, type FlagValues } from "../flags.ts";
import { writeError } from "../output.ts";
import { selfCommand } from "../self.ts";

/** How long a request of a program is retried, and a command waits, unless told otherwise. */
const ioTimeoutMsDefault = 60_000;
/** How long an admin command waits for a manager that is not there. */
const managerWaitMs = 5_000;
/** When to tell a person that the command is waiting. */
const tellAfterMs = 1_000;
/** How long a daemon that was just started may take to answer. */
const daemonStartMs = 20_000;
const probeMs = 5_000;

/** Root's places. */
const rootSocketPath = "/run/sealfs/client.sock", rootStatePath = "/var/lib/sealfs/client";

/** Program and arguments that run the keeper of a daemon. */
export function keeperCommand(): readonly string[] {
  return selfCommand(["client", "keeper"]);
}

/** Flags that every verb takes, before or after its name. */
export const clientFlags = [
  {
    name: "manager-address",
    type: "address",
    env: "SEALFS_MANAGER_ADDRESS",
    help: "where the manager is",
    default: defaultManagerAddress,
  },
  {
    name: "socket-path",
    type: "string",
    value: "PATH",
    help: "control socket of the client daemon",
    shownDefault: Deno.uid() === 0 ? rootSocketPath : "$XDG_RUNTIME_DIR/sealfs/client.sock",
  },
  {
    name: "state-path",
    type: "string",
    value: "DIR",
    help: "folder for the daemon's table of mounts and its log",
    shownDefault: Deno.uid() === 0 ? rootStatePath : "~/.local/state/sealfs",
  },
  {
    name: "io-timeout",
    type: "duration",
    min: 1000,
    value: "SECONDS",
    help: `how long a request is retried before it fails with EIO, ${ioTimeoutMsDefault / 1000} if nothing is said`,
  },
  secretFlag,
  ...logFlags,
] as const satisfies readonly FlagSpec[];

/** `--json`, for verbs that show something. */
export const jsonFlag = { name: "json", type: "boolean", help: "print JSON" } as const satisfies FlagSpec;

/** Values of {@linkcode clientFlags}. */
export type ClientFlags = FlagValues<typeof clientFlags>;

/** Where the daemon's socket is. */
export function socketPath(flags: ClientFlags): string {
  return flags["socket-path"] === undefined ? defaultSocketPath() : resolve(flags["socket-path"]);
}

function defaultSocketPath(): string {
  if (Deno.uid() === 0) return rootSocketPath;
  const folder = Deno.env.get("XDG_RUNTIME_DIR");
  if (!folder) throw new CommandError("no place for the daemon's socket: set XDG_RUNTIME_DIR or give --socket-path");
  return join(folder, "sealfs", "client.sock");
}

/** The folder for the daemon's table and log, made if it is absent. Daemons on other sockets have their own in it. */
export function statePath(flags: ClientFlags): string {
  const given = flags["state-path"];
  const path = given === undefined ? defaultStatePath(flags) : resolve(given);
  try {
    Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new CommandError(`cannot make the folder ${path}: ${error instanceof Error ? error.message : error}`);
  }
  return path;
}

function defaultStatePath(flags: ClientFlags): string {
  let folder = rootStatePath;
  if (Deno.uid() !== 0) {
    const home = Deno.env.get("HOME");
    const state = Deno.env.get("XDG_STATE_HOME") || (home ? join(home, ".local", "state") : undefined);
    if (state === undefined) throw new CommandError("no place for the daemon's mounts: give --state-path");
    folder = join(state, "sealfs");
  }
  const given = flags["socket-path"];
  return given === undefined ? folder : join(folder, "sockets", encodeURIComponent(resolve(given)));
}

/** `--io-timeout` in milliseconds. */
export function ioTimeoutMs(flags: ClientFlags): number {
  return flags["io-timeout"] ?? ioTimeoutMsDefault;
}

/** The cluster's secret, undefined without one. */
export function secretOf(flags: ClientFlags): string | undefined {
  const path = flags["secret-file"];
  return path === undefined ? undefined : readSecret(resolve(path));
}

/**
 * Asks the manager by `question`. A manager that is not there is waited for a few seconds, and one that says "later" as
 * long as `--io-timeout`; then, and when it refuses, it is a {@linkcode CommandError}.
 */
export async function askManager<T>(flags: ClientFlags, question: (client: ManagerClient) => Promise<T>): Promise<T> {
  // The command says itself what happens.
  const logger = { options: { level: "error" as const }, enabled: () => false, log: () => {} };
  const client = new ManagerClient({ address: flags["manager-address"], secret: secretOf(flags), logger });
  const started = performance.now();
  const patience = AbortSignal.timeout(ioTimeoutMs(flags));
  let told = false;
  const attempt = async () => {
    try {
      return await question(client);
    } catch (error) {
      if (!(error instanceof ManagerFailure)) throw error;
      const waitedMs = performance.now() - started;
      // Who gives a wrong address wants to hear of it.
      if (error.code === "unreachable" && waitedMs > managerWaitMs) {
        throw new CommandError(`${error.message}; is it running?`);
      }
      if (waitedMs > tellAfterMs && !told && (error.code === "unreachable" || error.retryAfterMs !== undefined)) {
        told = true;
        writeError(`waiting: ${error.message}`);
      }
      throw error;
    }
  };
  try {
    return await client.patiently(attempt, patience);
  } catch (error) {
    if (error instanceof ManagerFailure) throw new CommandError(error.message);
    throw error;
  } finally {
    client.close();
  }
}

/** Asks the daemon; {@linkcode CommandError} when it refuses or there is none. */
export async function askRunningDaemon(flags: ClientFlags, question: ControlQuestion): Promise<unknown> {
  try {
    return await askDaemon(socketPath(flags), question, daemonTimeoutMs(flags));
  } catch (error) {
    if (error instanceof ControlFailure || error instanceof NoDaemon) throw new CommandError(error.message);
    throw error;
  }
}

/** Mounting may wait for the manager as long as for anything else, and then takes its own time. */
function daemonTimeoutMs(flags: ClientFlags): number {
  return ioTimeoutMs(flags) + 60_000;
}

/** What the daemon says of itself, undefined when none runs. */
export async function probeDaemon(flags: ClientFlags): Promise<DaemonStatus | undefined> {
  try {
    return await askDaemon(socketPath(flags), { ask: "probe" }, probeMs) as DaemonStatus;
  } catch (error) {
    if (error instanceof NoDaemon) return undefined;
    if (error instanceof ControlFailure) throw new CommandError(error.message);
    throw error;
  }
}

/** Starts a daemon in a session of its own and waits until it answers. Throws {@linkcode CommandError} with its reason. */
export async function startDaemon(flags: ClientFlags): Promise<void> {
  const state = statePath(flags);
  const log = flags["log-file"] === undefined ? join(state, "daemon.log") : resolve(flags["log-file"]);
  const args = [
    "client",
    "daemon",
    `--manager-address=${flags["manager-address"]}`,
    `--socket-path=${socketPath(flags)}`,
    `--state-path=${state}`,
    `--io-timeout=${ioTimeoutMs(flags)}ms`,
    `--log-level=${flags["log-level"]}`,
    `--log-file=${log}`,
  ];
  if (flags["secret-file"] !== undefined) args.push(`--secret-file=${resolve(flags["secret-file"])}`);
  const [program, ...rest] = selfCommand(args);
  const child = new Deno.Command(program, {
    args: rest,
    // It must not keep anybody's folder busy.
    cwd: "/",
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    detached: true,
  }).spawn();
  child.unref();
  let ended = false;
  const said = collect(child.stderr);
  child.status.then(() => ended = true);
  const limit = performance.now() + daemonStartMs;
  while (performance.now() < limit) {
    if (await probeDaemon(flags) !== undefined) {
      said.cancel();
      return;
    }
    if (ended) throw new CommandError(`the client daemon did not start: ${await said.text || `see ${log}`}`);
    await new Promise((done) => setTimeout(done, 30));
  }
  throw new CommandError(`the client daemon has not answered for ${daemonStartMs / 1000} s: see ${log}`);
}

/** The text of a stream, up to a limit, on one line. */
function collect(stream: ReadableStream<Uint8Array>): { text: Promise<string>; cancel: () => void } {
  const reader = stream.getReader();
  const read = async () => {
    let text = "";
    const decoder = new TextDecoder();
    for (let part = await reader.read(); !part.done && text.length < 4096; part = await reader.read()) {
      text += decoder.decode(part.value, { stream: true });
    }
    return text.trim().replace(/^sealfs client daemon: /, "").replaceAll("\n", "; ");
  };
  return { text: read().catch(() => ""), cancel: () => void reader.cancel().catch(() => {}) };
}

/** A logger by the flags. */
export function loggerOf(flags: ClientFlags) {
  const file = flags["log-file"];
  try {
    return openLogger({ level: flags["log-level"], file: file === undefined ? undefined : resolve(file) });
  } catch (error) {
    throw new CommandError(`cannot write the log ${file}: ${error instanceof Error ? error.message : error}`);
  }
}
