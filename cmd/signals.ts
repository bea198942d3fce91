/**
 * How long-running commands are told to end.
 *
 * @module
 */

/** Set by a process that starts others as parts of itself: they end cleanly when it is gone, however it went. */
export const withParentVariable = "SEALFS_STOP_WITH_PARENT";
/** Time between looks at the parent. */
const parentMs = 1_000;

/**
 * Settles at the first SIGINT, SIGTERM or SIGHUP, or when the parent is gone if the environment says so; further
 * signals are ignored, so that a stop is always a clean one.
 */
export function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, () => resolve());
    if (!Deno.env.get(withParentVariable)) return;
    const parent = Deno.ppid;
    const timer = setInterval(() => {
      if (Deno.ppid === parent) return;
      clearInterval(timer);
      resolve();
    }, parentMs);
  });
}
