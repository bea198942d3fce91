/** Types of `@std/cli/parse-args`, for the npm packaging of @std, which ships none. Only what sealfs uses. */

/** Options of {@linkcode parseArgs}. */
export interface ParseOptions {
  "--"?: boolean;
  alias?: Record<string, string | readonly string[]>;
  boolean?: boolean | readonly string[];
  default?: Record<string, unknown>;
  string?: readonly string[];
  collect?: readonly string[];
  negatable?: readonly string[];
  stopEarly?: boolean;
  /** Called for every argument that no option names; false keeps it out of the result. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}
/** Flags by name, positional arguments under `_`, what follows `--` under `--` when asked for. */
export interface Args {
  _: (string | number)[];
  "--"?: string[];
  [flag: string]: unknown;
}
export function parseArgs(args: readonly string[], options?: ParseOptions): Args;
