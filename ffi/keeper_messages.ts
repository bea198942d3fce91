/**
 * What a client daemon and its keeper (`keeper_process.ts`) say to each other. Each mount has a pair of seqpacket
 * sockets of its own; the control socket only carries {@linkcode encodeHold}, with two descriptors: the mount's FUSE device
 * and the keeper's end of the mount's pair. The end of a socket says that its other side is gone.
 *
 * Over a mount's socket the keeper first answers number 0: an errno, 0 when it holds the mount. Then: daemon to keeper
 * `number u32, notifications back to back`, keeper to daemon `number u32, errno u32`. Little-endian.
 *
 * @module
 */

import type { Bytes } from "./libc.ts";

/** Longest message over a mount's socket. */
export const keeperMessageBytes = 32 * 1024;
/** Bytes before the notifications, and of a whole answer. */
export const numberBytes = 4, answerBytes = 8;

/** The message that goes with the descriptors of a mount; `connection`: its number under fusectl. */
export function encodeHold(connection: number): Bytes {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, connection, true);
  return bytes;
}

/** The connection of {@linkcode encodeHold}; null for anything else. */
export function decodeHold(bytes: Uint8Array): number | null {
  return bytes.length === 4 ? new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) : null;
}

/** The lengths of the notifications (struct fuse_out_header: `len` first) in `bytes`; null when they are none. */
export function notificationLengths(bytes: Uint8Array): number[] | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), lengths: number[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = bytes.length - at >= 16 ? view.getUint32(at, true) : 0;
    if (length < 16 || at + length > bytes.length) return null;
    lengths.push(length);
    at += length;
  }
  return lengths;
}
