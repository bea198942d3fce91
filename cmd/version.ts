/**
 * The version of sealfs, as `deno.json` states it.
 *
 * @module
 */

import config from "../deno.json" with { type: "json" };

/** The version of sealfs: `major.minor.patch`. */
export const version: string = config.version;
