/**
 * How sealfs is running and how to start it again: as an executable or from its sources. For the main thread only.
 *
 * @module
 */

import { basename, fromFileUrl } from "@std/path";

/** Where Linux shows the running executable, also when its file was replaced or removed. */
const selfLink = "/proc/self/exe";
const deletedSuffix = " (deleted)";

/** Whether this is the executable rather than `deno run`. */
export function isExecutable(): boolean {
  // The first is Deno's own runtime, the second the base of build/denort_shim.ts.
  return Deno.build.standalone || Reflect.get(globalThis, Symbol.for("sealfs.lock")) !== undefined;
}

/** The command line (program, then arguments) that runs sealfs with `args`, the same way as this process runs. */
export function selfCommand(args: readonly string[]): [string, ...string[]] {
  const program = Deno.readLinkSync(selfLink);
  if (isExecutable()) {
    const path = program.endsWith(deletedSuffix) ? program.slice(0, -deletedSuffix.length) : program;
    return [exists(path) ? path : selfLink, ...args];
  }
  return [program, "run", "-A", fromFileUrl(new URL("./main.ts", import.meta.url)), ...args];
}

/** The name under which this process was started, without its folder: `sealfs`, or that of a symlink to it. */
export function invokedAs(): string {
  return basename(Deno.readTextFileSync("/proc/self/cmdline").split("\0")[0]);
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
