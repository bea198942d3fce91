/**
 * How long-running commands are told to end.
 *
 * @module
 */

/** Settles at the first SIGINT, SIGTERM or SIGHUP; further ones are ignored, so that a stop is always a clean one. */
export function stopSignal(): Promise<Deno.Signal> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      Deno.addSignalListener(signal, () => resolve(signal));
    }
  });
}
