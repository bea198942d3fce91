/**
 * Host names to addresses, for reactors, which cannot ask the resolver themselves. For threads with an event loop.
 *
 * @module
 */

import dns from "node:dns/promises";
import { parseIp } from "./address.ts";

/** The numeric address of a host name, null when there is none. */
export async function resolveHost(host: string): Promise<string | null> {
  if (parseIp(host) !== null) return host === "localhost" ? "127.0.0.1" : host;
  try {
    return (await dns.lookup(host)).address;
  } catch {
    return null;
  }
}
