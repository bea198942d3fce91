/**
 * The terms of leases, known to both sides: how long one lasts, and how a reply says what it grants.
 *
 * A lease on an inode lets a session use what it last heard of it (attributes and, of a directory, names) without
 * asking. A change by anybody else waits until every holder has given the lease back or it has run out.
 *
 * @module
 */

/** A lease lasts this long from the moment the server grants it. */
export const leaseMs = 4_000;
/** A holder counts this long from the moment it sent the request: clocks may differ in speed, replies are used late. */
export const leaseHeldMs = 3_800;
/** Bits of a reply's `leases` field (frame.ts): which inodes of its request or reply the session holds from now on. */
export const leaseBits = {
  /** Every inode whose attributes are in the reply. */
  attributes: 1,
  /** The directory that the request names. */
  directory: 2,
  /** The second directory that the request names (RENAME). */
  newDirectory: 4,
} as const;
