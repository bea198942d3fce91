/**
 * `sealfs client keeper SOCKET`: what a client daemon runs beside itself (ffi/keeper_process.ts). It ends with the daemon,
 * not with a signal: the daemon may still have to end its mounts.
 *
 * @module
 */

import { runKeeper } from "../../ffi/keeper_process.ts";
import { UsageError } from "../flags.ts";

const name = "sealfs client keeper";

/** Runs the command. */
export function run(args: string[]): Promise<number> {
  const socket = Number(args.at(-1));
  if (args.length !== 1 || !Number.isInteger(socket) || socket < 3) {
    throw new UsageError(`${name}: a client daemon runs this by itself`);
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, () => {});
  runKeeper(socket);
  return Promise.resolve(0);
}
