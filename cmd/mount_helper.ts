/**
 * `mount.fuse.sealfs`, the helper of mount(8): the executable under this name, as a symlink in /sbin. Called as
 * `mount.fuse.sealfs SOURCE TARGET [-sfnv] [-o OPTIONS] [-t TYPE]` with SOURCE = `HOST:PORT/VOLUME`, so that a line of
 * /etc/fstab or `mount -t fuse.sealfs` mounts by the client daemon, which is started when none runs. With the option
 * `remount` it changes the flags of the mount that is there (`mount -o remount,ro DIR`).
 *
 * Of mount(8)'s options, `relatime` (also without any), `noatime`, `strictatime` and `nodiratime` say which reads move
 * access times. Besides them: `transport=classic|uring`, `names`, `secret_file=PATH`, `socket_path=PATH`, `io_timeout=SECONDS`,
 * `log_level=LEVEL`.
 *
 * @module
 */

import { resolve } from "@std/path";
import { findMount, parseMountOptions, remountFuse } from "../ffi/fuse/mount.ts";
import { type ClientFlags, clientFlags, probeDaemon } from "./client/common.ts";
import { mountByDaemon } from "./client/mount.ts";
import { CommandError, parseCommand, UsageError } from "./flags.ts";
import { writeOut } from "./output.ts";
import { formatAddress, parseAddress, ValueError } from "./values.ts";

const name = "mount.fuse.sealfs";
const usage = `usage: ${name} HOST:PORT/VOLUME MOUNTPOINT [-o OPTIONS]`;

const help = `Mount a volume of sealfs for mount(8) and /etc/fstab, by the client daemon.

${usage}

Options: those of mount(8), and
  transport=classic   serve by /dev/fuse (the default)
  transport=uring     serve over io_uring
  names               let the kernel keep names for a second
  secret_file=PATH    file with the cluster's secret
  socket_path=PATH    control socket of the client daemon
  io_timeout=SECONDS  how long a request is retried before it fails with EIO
  log_level=LEVEL     least severe log lines of a daemon that is started
`;

/** Flags of the client that may stand among the mount options. */
const flagOptions: Record<string, string> = {
  secret_file: "secret-file",
  socket_path: "socket-path",
  io_timeout: "io-timeout",
  log_level: "log-level",
};

/** A call of the helper, understood. */
export interface HelperCall {
  manager: string;
  volume: string;
  mountpoint: string;
  /** For the mount itself. */
  options: string;
  /** For the client, as `--name=value`. */
  flags: string[];
  /** `-f`: do everything but mount. */
  fake: boolean;
}

/** Understands the arguments of mount(8)'s helper. Throws {@linkcode UsageError}. */
export function parseHelperCall(args: readonly string[]): HelperCall {
  const words: string[] = [], options: string[] = [];
  let fake = false;
  for (let at = 0; at < args.length; at++) {
    const arg = args[at];
    if (!arg.startsWith("-") || arg === "-") {
      words.push(arg);
      continue;
    }
    const takesValue = /^-[a-zA-Z]*[otN]$/.test(arg);
    if (arg.includes("f") && /^-[a-z]+$/.test(arg)) fake = true;
    if (!takesValue) continue;
    const value = args[++at];
    if (value === undefined) throw new UsageError(`${name}: ${arg} needs a value; ${usage}`);
    if (arg.endsWith("o")) options.push(...value.split(","));
  }
  const [source, target] = words;
  if (words.length !== 2) throw new UsageError(usage);
  const slash = source.indexOf("/");
  let manager: string;
  try {
    manager = formatAddress(parseAddress(source.slice(0, slash)));
  } catch (error) {
    if (error instanceof ValueError) throw new UsageError(`${name}: ${source} is not HOST:PORT/VOLUME; ${usage}`);
    throw error;
  }
  const flags: string[] = [], rest: string[] = [];
  for (const option of options) {
    const [key, value] = split(option);
    if (Object.hasOwn(flagOptions, key)) flags.push(`--${flagOptions[key]}=${value}`);
    else rest.push(option);
  }
  try {
    parseMountOptions(rest.join(","));
  } catch (error) {
    throw new UsageError(`${name}: ${(error as Error).message}`);
  }
  return {
    manager,
    volume: source.slice(slash + 1),
    mountpoint: resolve(target),
    options: rest.join(","),
    flags,
    fake,
  };
}

function split(option: string): [string, string] {
  const at = option.indexOf("=");
  return at < 0 ? [option, ""] : [option.slice(0, at), option.slice(at + 1)];
}

/** Runs the helper. */
export async function run(args: string[]): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    writeOut(help);
    return 0;
  }
  const { manager, volume, mountpoint, options, flags, fake } = parseHelperCall(args);
  const parsed = parseCommand(
    { name, summary: "Mount a volume for mount(8)", flags: clientFlags },
    [...flags, `--manager-address=${manager}`],
  );
  if (parsed === undefined) throw new UsageError(usage);
  if (fake) return 0;
  if (parseMountOptions(options).remount) await remount(parsed.flags, mountpoint, options);
  else await mountByDaemon(parsed.flags, { mountpoint, volume, options }, true);
  return 0;
}

async function remount(flags: ClientFlags, mountpoint: string, options: string): Promise<void> {
  const wanted = parseMountOptions(options);
  if (findMount(mountpoint)?.readOnly && !wanted.readOnly) {
    const mount = (await probeDaemon(flags))?.mounts.find((mount) => mount.mountpoint === mountpoint);
    if (mount?.readOnly) {
      throw new CommandError(`${mountpoint} was mounted read-only: unmount it and mount it again to write`);
    }
  }
  try {
    remountFuse(mountpoint, wanted);
  } catch (error) {
    throw new CommandError(`${name}: ${(error as Error).message}`);
  }
}
