/**
 * The frame: what travels on a link, request and reply alike. Little-endian.
 *
 * | offset | field    | type | meaning |
 * | ------ | -------- | ---- | ------- |
 * | 0      | length   | u32  | whole frame, 56..{@linkcode frameBytesMax} |
 * | 4      | type     | u16  | message type (messages.ts) |
 * | 6      | flags    | u16  | {@linkcode frameFlags} |
 * | 8      | id       | u32  | request: chosen by the sender, unique on the link; reply: the request's |
 * | 12     | body     | u32  | bytes of body that follow the head; what is left after it is data |
 * | 16     | epoch    | u32  | cluster map epoch the sender knows |
 * | 20     | status   | u32  | reply: 0, an errno, or one of {@linkcode status} |
 * | 24     | session  | u53  | request: the session that asks |
 * | 32     | sequence | u53  | mutation: number of the request in its session, ascending |
 * | 40     | slot     | u16  | mutation: reply slot, unique in the session; 0xffff = none |
 * | 42     | shard    | u16  | shard the request is for; 0xffff = the store as a whole |
 * | 44     | leases   | u32  | reply: what it grants, bits of leaseBits (lease.ts); else 0 |
 * | 48     | clock    | f64  | sender's hybrid clock in ms since 1970 (servers believe only servers) |
 *
 * The length is checked before anything else is read; every other field is checked by {@linkcode readHead}.
 *
 * @module
 */

import { DecodeError, Reader, type Writer } from "./codec.ts";

/**
 * Version of the frame and of all messages. Peers speak this one and the one before, except that 1 has gone: its writes,
 * reads and locks said too little to be answered beside those of 2.
 */
export const protocolVersion = 2;
/** Bytes of the head. */
export const headBytes = 56;
/** Longest data of one message: one chunk. */
export const dataBytesMax = 1 << 20;
/** Longest frame. */
export const frameBytesMax = dataBytesMax + 128 * 1024;
/** `slot` of a request that needs no reply record. */
export const noSlot = 0xffff;
/** `shard` of a request to the whole store. */
export const noShard = 0xffff;

/** Bits of `flags`. */
export const frameFlags = { reply: 1, push: 2 } as const;

/** Statuses beyond errno: what the caller's retry loop acts on; they never reach a user. */
export const status = {
  /** Not the primary of that shard: take the map with at least the reply's epoch, ask again. */
  wrongOwner: 1001,
  /** The manager declared the session dead. */
  sessionDead: 1002,
  /** Not now (starting, grace, locked name): ask again in the same slot after a moment. */
  retry: 1003,
  /** A chunk write or size publication from before a truncation: fetch attributes, do it again. */
  staleGen: 1004,
  /** The sequence is below the slot's last: a late duplicate. */
  oldSequence: 1005,
  /** The frame or body was malformed or of an unknown type. */
  malformed: 1006,
  /** Wrong cluster, version or secret in HELLO. */
  refused: 1007,
} as const;

/** A frame's head, decoded. */
export interface Head {
  type: number;
  flags: number;
  id: number;
  epoch: number;
  status: number;
  session: number;
  sequence: number;
  slot: number;
  shard: number;
  /** Replies: bits of leaseBits. */
  leases: number;
  clock: number;
}

/** Starts a frame in `writer` (which is reset): write the body, then {@linkcode finishFrame}. */
export function beginFrame(writer: Writer, head: Head): void {
  writer.reset();
  writer.u32(0);
  writer.u16(head.type);
  writer.u16(head.flags);
  writer.u32(head.id);
  writer.u32(0);
  writer.u32(head.epoch);
  writer.u32(head.status);
  writer.u53(head.session);
  writer.u53(head.sequence);
  writer.u16(head.slot);
  writer.u16(head.shard);
  writer.u32(head.leases);
  writer.f64(head.clock);
}

/** Fills in the lengths; `dataLength` bytes of data follow what `writer` holds. */
export function finishFrame(writer: Writer, dataLength = 0): Uint8Array {
  writer.setU32(0, writer.length + dataLength);
  writer.setU32(12, writer.length - headBytes);
  return writer.view();
}

/** A received frame: `body` reads the body; `data` is a view that lives as long as the frame does. */
export interface Frame {
  head: Head;
  body: Reader;
  data: Uint8Array;
}

const none = new Uint8Array(0);

/** Decodes a whole frame; throws {@linkcode DecodeError}. */
export function readFrame(frame: Uint8Array): Frame {
  if (frame.length < headBytes || frame.length > frameBytesMax) throw new DecodeError(`frame of ${frame.length} bytes`);
  const reader = new Reader(frame);
  const length = reader.u32();
  if (length !== frame.length) throw new DecodeError(`frame says ${length} bytes, has ${frame.length}`);
  const type = reader.u16(), flags = reader.u16(), id = reader.u32(), bodyLength = reader.u32();
  const epoch = reader.u32(), statusValue = reader.u32();
  const session = reader.u53(), sequence = reader.u53();
  const slot = reader.u16(), shard = reader.u16();
  const leases = reader.u32();
  const clock = reader.f64();
  if (bodyLength > frame.length - headBytes) {
    throw new DecodeError(`body of ${bodyLength} bytes in a frame of ${length}`);
  }
  const end = headBytes + bodyLength;
  // It is at the body already.
  reader.end = end;
  return {
    head: { type, flags, id, epoch, status: statusValue, session, sequence, slot, shard, leases, clock },
    body: reader,
    data: end === frame.length ? none : frame.subarray(end),
  };
}
