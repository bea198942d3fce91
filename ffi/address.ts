/**
 * Socket addresses: `host:port` as people write it, sockaddr as the kernel wants it. Knows numbers and `localhost`
 * only; names are resolved elsewhere, because that may block.
 *
 * @module
 */

import type { Bytes } from "./libc.ts";

/** Address families of socket(2). */
export const AF = { UNIX: 1, INET: 2, INET6: 10 } as const;

/** `host:port` taken apart. */
export interface HostPort {
  host: string;
  /** 0..65535; 0 lets the kernel choose where one listens. */
  port: number;
}

/** Takes `10.0.0.1:8085`, `node-1:8085` or `[::1]:8085` apart; null when it is none of these. */
export function parseHostPort(text: string): HostPort | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+)):(\d{1,5})$/.exec(text);
  if (match === null) return null;
  const port = Number(match[3]);
  return port > 65535 ? null : { host: match[1] ?? match[2], port };
}

/** The 4 or 16 bytes of a numeric address or of `localhost`; null for a name. */
export function parseIp(host: string): number[] | null {
  if (host === "localhost") return [127, 0, 0, 1];
  return parseIpv4(host) ?? parseIpv6(host);
}

function parseIpv4(host: string): number[] | null {
  const parts = host.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return null;
  return parts.map(Number);
}

function parseIpv6(host: string): number[] | null {
  const sides = host.split("::");
  if (sides.length > 2 || !host.includes(":")) return null;
  const [head, tail] = sides.map(ipv6Bytes);
  if (head === null || tail === null) return null;
  if (tail === undefined) return head.length === 16 ? head : null;
  const missing = 16 - head.length - tail.length;
  return missing < 2 ? null : [...head, ...new Array<number>(missing).fill(0), ...tail];
}

function ipv6Bytes(side: string): number[] | null {
  if (side === "") return [];
  const bytes: number[] = [];
  const groups = side.split(":");
  for (const [i, group] of groups.entries()) {
    const v4 = i === groups.length - 1 ? parseIpv4(group) : null;
    if (v4 !== null) bytes.push(...v4);
    else if (/^[0-9a-fA-F]{1,4}$/.test(group)) bytes.push(parseInt(group, 16) >> 8, parseInt(group, 16) & 255);
    else return null;
  }
  return bytes;
}

/** sockaddr_in or sockaddr_in6 of the bytes of {@linkcode parseIp}. */
export function ipAddress(ip: readonly number[], port: number): Bytes {
  const v6 = ip.length === 16;
  const out = new Uint8Array(v6 ? 28 : 16);
  out[0] = v6 ? AF.INET6 : AF.INET;
  out[2] = port >> 8;
  out[3] = port & 255;
  out.set(ip, v6 ? 8 : 4);
  return out;
}

/** sockaddr_un of an abstract name: no file, visible in this network namespace only. */
export function abstractAddress(name: string): Bytes {
  const text = new TextEncoder().encode(name);
  const out = new Uint8Array(3 + text.length);
  out[0] = AF.UNIX;
  out.set(text, 3);
  return out;
}

/** `10.0.0.1:8085`, `[::1]:8085` or `unix` for what getsockname(2) and getpeername(2) give. */
export function addressText(address: Uint8Array): string {
  const port = address[2] << 8 | address[3];
  if (address[0] === AF.INET) return `${address.subarray(4, 8).join(".")}:${port}`;
  if (address[0] !== AF.INET6) return "unix";
  const groups = Array.from({ length: 8 }, (_, i) => (address[8 + 2 * i] << 8 | address[9 + 2 * i]).toString(16));
  return `[${groups.join(":").replace(/(^|:)0(:0)+(:|$)/, "::")}]:${port}`;
}

/** True for a loopback or unspecified address, and for those of this host's interfaces, given as {@linkcode ipKey}. */
export function isOwnAddress(ip: readonly number[], own: ReadonlySet<string>): boolean {
  if (ip.length === 4 && ip[0] === 127) return true;
  const zerosBut = ip.slice(0, -1).every((byte) => byte === 0);
  return (zerosBut && ip[ip.length - 1] <= (ip.length === 16 ? 1 : 0)) || own.has(ipKey(ip));
}

/** A key for sets of addresses. */
export function ipKey(ip: readonly number[]): string {
  return ip.join(".");
}
