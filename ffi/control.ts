/**
 * The control socket of a client daemon: one JSON line asks, one JSON line answers, over a Unix socket that only its
 * owner may use. A lock beside the socket says whose it is, so that a daemon never takes a living one's socket away.
 *
 * @module
 */

import { dirname } from "@std/path";
import type { MountStatus, MountWish } from "./client_mounts.ts";

/** Longest line. */
const lineBytesMax = 1 << 20;
/** Time the asking side may take to send its line. */
const askTimeoutMs = 5_000;
/** Connections that may be open at once. */
const connectionsMax = 256;

/** What a daemon can be asked. */
export type ControlQuestion =
  | { ask: "probe" }
  | { ask: "list" }
  | { ask: "mount"; wish: MountWish; /** Refused when the daemon has another manager. */ managerAddress?: string }
  /** Answered with MountMetrics of all mounts, or of one. */
  | { ask: "metrics"; mountpoint?: string }
  | { ask: "unmount"; mountpoint: string; lazy: boolean };

/** What it says of itself. */
export interface DaemonStatus {
  pid: number;
  version: string;
  managerAddress: string;
  /** Number of its session with the manager; 0 while it waits for the manager. */
  session: number;
  mounts: MountStatus[];
}

type Envelope = { ok: true; value: unknown } | { ok: false; error: string };

/** There is no daemon at a socket. */
export class NoDaemon extends Error {
  override name = "NoDaemon";
}

/** The daemon refused or failed: one line for a person. */
export class ControlFailure extends Error {
  override name = "ControlFailure";
}

/** A control socket that is served. */
export interface ControlServer {
  /** Takes no new questions and removes the socket. */
  close(): void;
}

/**
 * Serves a control socket: `answer` gets each question, its value is the answer and what it throws is the error.
 * A text is why the socket cannot be had.
 */
export function serveControl(
  path: string,
  answer: (question: ControlQuestion) => unknown | Promise<unknown>,
): ControlServer | string {
  let lock: Deno.FsFile;
  try {
    Deno.mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    lock = Deno.openSync(`${path}.lock`, { create: true, write: true, mode: 0o600 });
  } catch (error) {
    return `cannot make the socket ${path}: ${error instanceof Error ? error.message : error}`;
  }
  if (!lock.tryLockSync(true)) {
    lock.close();
    return `a daemon serves ${path} already`;
  }
  let listener: Deno.UnixListener;
  // Nobody else may connect even before a chmod could come.
  const mask = Deno.umask(0o177);
  try {
    removeIfThere(path);
    listener = Deno.listen({ transport: "unix", path });
  } catch (error) {
    lock.close();
    return `cannot make the socket ${path}: ${error instanceof Error ? error.message : error}`;
  } finally {
    Deno.umask(mask);
  }
  acceptAll(listener, answer);
  return {
    close: () => {
      listener.close();
      removeIfThere(path);
      lock.close();
    },
  };
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function acceptAll(listener: Deno.UnixListener, answer: (question: ControlQuestion) => unknown): Promise<void> {
  let open = 0;
  for (;;) {
    let connection: Deno.UnixConn;
    try {
      connection = await listener.accept();
    } catch (error) {
      if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
      await new Promise((resolve) => setTimeout(resolve, 100)); // No descriptors left, for instance.
      continue;
    }
    if (open >= connectionsMax) {
      connection.close();
      continue;
    }
    open++;
    serveOne(connection, answer).catch(() => {}).finally(() => {
      open--;
      connection.close();
    });
  }
}

async function serveOne(connection: Deno.UnixConn, answer: (question: ControlQuestion) => unknown): Promise<void> {
  const timer = setTimeout(() => connection.closeWrite().catch(() => {}), askTimeoutMs);
  const line = await readLine(connection);
  clearTimeout(timer);
  let envelope: Envelope;
  try {
    envelope = { ok: true, value: await answer(JSON.parse(line)) ?? null };
  } catch (error) {
    envelope = { ok: false, error: error instanceof Error ? error.message : String(error) };
  }
  await writeLine(connection, envelope);
}

async function readLine(connection: Deno.UnixConn): Promise<string> {
  let bytes = new Uint8Array(4096), length = 0;
  for (;;) {
    const count = await connection.read(bytes.subarray(length));
    if (count === null) throw new ControlFailure("the connection ended in the middle of a line");
    const end = bytes.subarray(length, length + count).indexOf(10);
    if (end >= 0) return new TextDecoder().decode(bytes.subarray(0, length + end));
    length += count;
    if (length > lineBytesMax) throw new ControlFailure("the line is too long");
    if (length < bytes.length) continue;
    const grown = new Uint8Array(bytes.length * 2);
    grown.set(bytes);
    bytes = grown;
  }
}

async function writeLine(connection: Deno.UnixConn, value: unknown): Promise<void> {
  let bytes = new TextEncoder().encode(JSON.stringify(value) + "\n");
  while (bytes.length > 0) bytes = bytes.subarray(await connection.write(bytes));
}

/**
 * Asks the daemon at a socket. Throws {@linkcode NoDaemon} when there is none, {@linkcode ControlFailure} when it refuses
 * or does not answer within `timeoutMs`.
 */
export async function askDaemon(path: string, question: ControlQuestion, timeoutMs: number): Promise<unknown> {
  let connection: Deno.UnixConn;
  try {
    connection = await Deno.connect({ transport: "unix", path });
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied) throw new ControlFailure(`no permission to use ${path}`);
    throw new NoDaemon(`no client daemon at ${path}`);
  }
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(new ControlFailure(`the client daemon at ${path} has not answered for ${timeoutMs / 1000} s`));
  }, timeoutMs);
  try {
    const exchange = async () => {
      await writeLine(connection, question);
      return JSON.parse(await readLine(connection)) as Envelope;
    };
    const envelope = await Promise.race([exchange(), late.promise]);
    if (envelope.ok) return envelope.value;
    throw new ControlFailure(envelope.error);
  } catch (error) {
    if (error instanceof ControlFailure) throw error;
    throw new ControlFailure(`the client daemon at ${path}: ${error instanceof Error ? error.message : error}`);
  } finally {
    clearTimeout(timer);
    connection.close();
  }
}
