/**
 * `sealfs client mount`: mounts a volume by the daemon, which it starts when none runs, or in this process.
 *
 * @module
 */

import { resolve } from "@std/path";
import { ClientMounts, MountFailure, type MountWish } from "../../ffi/client_mounts.ts";
import { mountpointPath, parseMountOptions } from "../../ffi/fuse/mount.ts";
import { command, CommandError, UsageError } from "../flags.ts";
import { writeOut } from "../output.ts";
import { stopSignal } from "../signals.ts";
import {
  askRunningDaemon,
  type ClientFlags,
  clientFlags,
  ioTimeoutMs,
  keeperCommand,
  loggerOf,
  probeDaemon,
  secretOf,
  startDaemon,
} from "./common.ts";

const name = "sealfs client mount";
/** How often a new daemon is asked whether it has restored a mount. */
const restorePauseMs = 50;

/**
 * True when a daemon that has just been started brings this very mount back by itself, once it is up. Throws
 * {@linkcode CommandError} when that takes longer than mounting may wait.
 */
async function isRestored(flags: ClientFlags, wish: MountWish): Promise<boolean> {
  const mountpoint = mountpointPath(wish.mountpoint), limit = performance.now() + ioTimeoutMs(flags);
  for (;;) {
    const found = (await probeDaemon(flags))?.mounts.find((mount) => mount.mountpoint === mountpoint);
    if (found === undefined || found.volume !== wish.volume || found.options !== wish.options) return false;
    if (found.state === "mounted") return true;
    if (performance.now() > limit) throw new CommandError(`${mountpoint} is being restored: ${found.problem}`);
    await new Promise((done) => setTimeout(done, restorePauseMs));
  }
}

/** Mounts by the daemon. `managerGiven`: the daemon must be of the manager that the flags name. */
export async function mountByDaemon(flags: ClientFlags, wish: MountWish, managerGiven: boolean): Promise<void> {
  const managerAddress = managerGiven ? flags["manager-address"] : undefined;
  if (await probeDaemon(flags) === undefined) {
    await startDaemon(flags);
    if (await isRestored(flags, wish)) return;
  }
  await askRunningDaemon(flags, { ask: "mount", wish, managerAddress });
}

/** Mounts in this process and serves until a signal or until somebody unmounts it. */
async function mountHere(flags: ClientFlags, wish: MountWish): Promise<number> {
  const logger = loggerOf(flags), secret = secretOf(flags);
  const stop = stopSignal();
  const unmounted = Promise.withResolvers<void>();
  const onChange = () => {
    if (mounts.list().length === 0) unmounted.resolve();
  };
  const mounts = new ClientMounts({
    managerAddress: flags["manager-address"],
    secret,
    ioTimeoutMs: ioTimeoutMs(flags),
    keeperCommand: keeperCommand(),
    logger,
    onChange,
  });
  try {
    await mounts.mount(wish);
    writeOut(`${name}: volume ${wish.volume} is mounted at ${wish.mountpoint}\n`);
    await Promise.race([stop, unmounted.promise]);
    return 0;
  } catch (error) {
    if (error instanceof MountFailure) throw new CommandError(error.message);
    throw error;
  } finally {
    await mounts.close();
  }
}

/** Runs the command. */
export const { run } = command(
  {
    name,
    summary: "Mount a volume",
    details:
      "The daemon of this machine serves the mount and restores it at its next start; it is started when none\n" +
      "runs. Options are those of mount(8), comma-separated, and transport=classic or transport=uring: whether the\n" +
      "mount is served by /dev/fuse (the default) or over io_uring; with names the kernel keeps names for a second.\n" +
      "--read-only is -o ro.",
    flags: [
      ...clientFlags,
      { name: "read-only", type: "boolean", help: "refuse writes through this mount" },
      { name: "foreground", short: "f", type: "boolean", help: "serve the mount in this process, without a daemon" },
      { name: "option", short: "o", type: "string", value: "OPTIONS", help: "mount options", repeatable: true },
    ],
    positionals: [
      { name: "MOUNTPOINT", help: "an existing directory" },
      { name: "VOLUME", help: "name of the volume" },
    ],
    examples: ["sealfs client mount ~/fs test1", "sealfs client mount /mnt/fs test1 -o noatime,nosuid"],
  },
  async ({ flags, positionals, given }) => {
    const options = [...flags.option, ...(flags["read-only"] ? ["ro"] : [])].join(",");
    try {
      if (parseMountOptions(options).remount) {
        throw new Error('"remount" is for mount(8): mount -o remount,... MOUNTPOINT');
      }
    } catch (error) {
      throw new UsageError(`${name}: ${(error as Error).message}`);
    }
    const wish = { mountpoint: resolve(positionals.MOUNTPOINT), volume: positionals.VOLUME, options };
    if (flags.foreground) return await mountHere(flags, wish);
    await mountByDaemon(flags, wish, given.has("manager-address"));
    return 0;
  },
);
