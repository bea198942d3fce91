/**
 * The log record: what one operation changed in one shard, with the values it replaced, so that a record can be applied
 * again (replay, a backup) and undone (a replica that ran ahead). All numbers are little-endian.
 *
 * | at | size | field |
 * | -- | ---- | ----- |
 * |  0 | 4    | length of the record in bytes, this field included; 0 marks the end of a segment |
 * |  4 | 4    | crc32 of bytes 8..length, started with the segment's seed (log.ts) |
 * |  8 | 2    | type: 1 operation, 2 barrier |
 * | 10 | 2    | shard |
 * | 12 | 8    | position u53: one more than the shard's record before it |
 * | 20 | 8    | epoch u53 of the map under which it was made |
 * | 28 | 8    | session u53, |
 * | 36 | 2    | slot and |
 * | 38 | 8    | sequence u53 of the request that caused it; all 0 when none did |
 * | 46 | 2    | number of charges, |
 * | 48 | 2    | number of changes |
 * | 50 |      | charges: volume u32, bytes delta f64 (whole), inodes delta f64 (whole) |
 * |    |      | changes, in the order in which they apply |
 *
 * A change is: operation u8, key length u16, key, then
 *
 * | operation  | rest |
 * | ---------- | ---- |
 * | 1 put      | old length u32 (2^32-1: the key was absent), new length u32, old value, new value |
 * | 2 remove   | old length u32, old value |
 * | 3 patch    | old total u32, new total u32, offset u32, length u32, replaced bytes, new bytes |
 *
 * A barrier (shard 0xffff, no changes, no charges) says that every data block is durable that is named by records before
 * byte `sequence` of segment `epoch`.
 *
 * A patch makes of a value of `old total` bytes one of `new total` bytes: cut or extended with zeros, then the new bytes
 * written at `offset` (offset + length <= new total). The replaced bytes are the old ones of [offset, offset + length) as
 * far as the old value reached, then those of [new total, old total) that were cut off.
 *
 * @module
 */

import { DecodeError, Reader, type Writer } from "../protocol/codec.ts";
import { crc32 } from "node:zlib";

/** Largest record in bytes. Operations that touch more are cut into several records by those who make them. */
export const recordBytesMax = 8 * 1024 * 1024;
/** Largest value in the image. */
export const valueBytesMax = 1024 * 1024;
/** Longest key: what the image takes. */
export const keyBytesMax = 511;
/** Most changes in a record. */
export const changesMax = 16384;
/** Most charges in a record. */
export const chargesMax = 256;
/** Bytes before the charges. */
export const recordHeadBytes = 50;

/** Types of records. */
export const recordType = { operation: 1, barrier: 2 } as const;
/** Operations of changes. */
export const changeOp = { put: 1, remove: 2, patch: 3 } as const;

const absent = 0xffffffff;
const chargeBytes = 20;

/** A change that an operation asks for. The arrays are only read, and only during the commit. */
export type Change =
  | { op: typeof changeOp.put; key: Uint8Array; value: Uint8Array }
  | { op: typeof changeOp.remove; key: Uint8Array }
  | { op: typeof changeOp.patch; key: Uint8Array; offset: number; bytes: Uint8Array; length: number };

/** Sets `key` to `value`, whether it exists or not. */
export function put(key: Uint8Array, value: Uint8Array): Change {
  return { op: changeOp.put, key, value };
}

/** Removes `key`; nothing happens when it is absent. */
export function remove(key: Uint8Array): Change {
  return { op: changeOp.remove, key };
}

/** Makes the existing value of `key` `length` bytes long (cut, or extended with zeros), then writes `bytes` at `offset`. */
export function patch(key: Uint8Array, offset: number, bytes: Uint8Array, length: number): Change {
  return { op: changeOp.patch, key, offset, bytes, length };
}

/** What a record adds to the usage of a volume in its shard. Deltas are whole numbers and may be negative. */
export interface Charge {
  volume: number;
  bytesDelta: number;
  inodesDelta: number;
}

/** Which record this is and why it was made. */
export interface RecordHead {
  shard: number;
  position: number;
  epoch: number;
  session: number;
  slot: number;
  sequence: number;
}

/** A change as the log holds it, with what it replaced. The arrays are views of the record. */
export type LoggedChange =
  | { op: typeof changeOp.put; key: Uint8Array; old: Uint8Array | null; value: Uint8Array }
  | { op: typeof changeOp.remove; key: Uint8Array; old: Uint8Array }
  | LoggedPatch;

/** See the table above. */
export interface LoggedPatch {
  op: typeof changeOp.patch;
  key: Uint8Array;
  oldTotal: number;
  newTotal: number;
  offset: number;
  replaced: Uint8Array;
  bytes: Uint8Array;
}

/** A decoded record. */
export interface LogRecord extends RecordHead {
  type: number;
  charges: Charge[];
  changes: LoggedChange[];
}

/** Writes records into a buffer, one after the other, without objects of its own. */
export class RecordWriter {
  #start = 0;
  #changes = 0;

  /** Records are appended to `writer`. */
  constructor(readonly writer: Writer) {}

  /** Starts a record; then come the changes, then {@linkcode finish}. */
  begin(type: number, head: RecordHead, charges: readonly Charge[]): void {
    if (charges.length > chargesMax) throw new RangeError(`${charges.length} charges in a record`);
    const w = this.writer;
    this.#start = w.length;
    this.#changes = 0;
    w.u32(0);
    w.u32(0);
    w.u16(type);
    w.u16(head.shard);
    w.u53(head.position);
    w.u53(head.epoch);
    w.u53(head.session);
    w.u16(head.slot);
    w.u53(head.sequence);
    w.u16(charges.length);
    w.u16(0);
    for (const charge of charges) {
      w.u32(charge.volume);
      w.f64(charge.bytesDelta);
      w.f64(charge.inodesDelta);
    }
  }

  /** Adds a put; `old` is the present value. */
  put(key: Uint8Array, old: Uint8Array | undefined, value: Uint8Array): void {
    const w = this.#change(changeOp.put, key);
    w.u32(old === undefined ? absent : old.length);
    w.u32(value.length);
    if (old !== undefined) w.raw(old);
    w.raw(value);
  }

  /** Adds a removal of the present value `old`. */
  remove(key: Uint8Array, old: Uint8Array): void {
    const w = this.#change(changeOp.remove, key);
    w.u32(old.length);
    w.raw(old);
  }

  /** Adds a patch of the present value `old`. */
  patch(key: Uint8Array, old: Uint8Array, offset: number, bytes: Uint8Array, newTotal: number): void {
    const w = this.#change(changeOp.patch, key);
    w.u32(old.length);
    w.u32(newTotal);
    w.u32(offset);
    w.u32(bytes.length);
    const replacedEnd = Math.min(old.length, offset + bytes.length);
    if (offset < replacedEnd) w.raw(old.subarray(offset, replacedEnd));
    if (newTotal < old.length) w.raw(old.subarray(newTotal));
    w.raw(bytes);
  }

  /** Ends the record, all but its crc, and returns where in the buffer it starts. */
  finish(): number {
    const w = this.writer, length = w.length - this.#start;
    if (length > recordBytesMax) throw new RangeError(`record of ${length} bytes`);
    w.setU32(this.#start, length);
    w.bytes[this.#start + 48] = this.#changes;
    w.bytes[this.#start + 49] = this.#changes >>> 8;
    return this.#start;
  }

  #change(op: number, key: Uint8Array): Writer {
    const w = this.writer;
    if (++this.#changes > changesMax) throw new RangeError("too many changes in a record");
    w.u8(op);
    w.u16(key.length);
    w.raw(key);
    return w;
  }
}

/** Writes the crc of the record that starts at `start` and ends where the writer is. */
export function sealRecord(writer: Writer, start: number, seed: number): void {
  writer.setU32(start + 4, crc32(writer.bytes.subarray(start + 8, writer.length), seed));
}

/** Length of the intact record at `at`, or 0 when there is none: the end of the segment, a torn or foreign record. */
export function intactRecord(bytes: Uint8Array, at: number, seed: number): number {
  if (bytes.length - at < recordHeadBytes) return 0;
  const reader = new Reader(bytes, at);
  const length = reader.u32(), crc = reader.u32();
  if (length < recordHeadBytes || length > recordBytesMax || length > bytes.length - at) return 0;
  return crc32(bytes.subarray(at + 8, at + length), seed) === crc ? length : 0;
}

/** Decodes the record that fills `bytes`, crc unchecked; throws {@linkcode DecodeError} on anything the table forbids. */
export function decodeRecord(bytes: Uint8Array): LogRecord {
  const r = new Reader(bytes);
  if (r.u32() !== bytes.length) throw new DecodeError("record length");
  r.u32();
  const type = r.u16();
  if (type !== recordType.operation && type !== recordType.barrier) throw new DecodeError(`record type ${type}`);
  const record: LogRecord = {
    type,
    shard: r.u16(),
    position: r.u53(),
    epoch: r.u53(),
    session: r.u53(),
    slot: r.u16(),
    sequence: r.u53(),
    charges: [],
    changes: [],
  };
  const charges = r.u16(), changes = r.u16();
  if (charges > chargesMax || changes > changesMax) throw new DecodeError("too many charges or changes");
  if (type === recordType.barrier && charges + changes > 0) throw new DecodeError("barrier with changes");
  if (charges * chargeBytes > r.end - r.at) throw new DecodeError("charges beyond the record");
  for (let i = 0; i < charges; i++) record.charges.push(decodeCharge(r));
  for (let i = 0; i < changes; i++) record.changes.push(decodeChange(r));
  r.finish();
  return record;
}

function decodeCharge(r: Reader): Charge {
  const volume = r.u32(), bytesDelta = r.f64(), inodesDelta = r.f64();
  if (!Number.isSafeInteger(bytesDelta) || !Number.isSafeInteger(inodesDelta)) {
    throw new DecodeError("charge not whole");
  }
  return { volume, bytesDelta, inodesDelta };
}

function decodeChange(r: Reader): LoggedChange {
  const op = r.u8(), keyLength = r.u16();
  if (keyLength < 3 || keyLength > keyBytesMax) throw new DecodeError(`key of ${keyLength} bytes`);
  const key = view(r, keyLength);
  if (op === changeOp.put) {
    const oldLength = r.u32(), length = valueLength(r);
    const old = oldLength === absent ? null : view(r, oldLength);
    return { op, key, old, value: view(r, length) };
  }
  if (op === changeOp.remove) return { op, key, old: view(r, valueLength(r)) };
  if (op === changeOp.patch) return decodePatch(r, key);
  throw new DecodeError(`change operation ${op}`);
}

function decodePatch(r: Reader, key: Uint8Array): LoggedPatch {
  const oldTotal = valueLength(r), newTotal = valueLength(r), offset = r.u32(), length = r.u32();
  if (offset + length > newTotal) throw new DecodeError("patch beyond the value");
  const replaced = view(r, replacedBytes(oldTotal, newTotal, offset, length));
  return { op: changeOp.patch, key, oldTotal, newTotal, offset, replaced, bytes: view(r, length) };
}

function replacedBytes(oldTotal: number, newTotal: number, offset: number, length: number): number {
  return overwrittenBytes(oldTotal, offset, length) + Math.max(0, oldTotal - newTotal);
}

function overwrittenBytes(oldTotal: number, offset: number, length: number): number {
  return Math.max(0, Math.min(oldTotal, offset + length) - offset);
}

function valueLength(r: Reader): number {
  const length = r.u32();
  if (length > valueBytesMax) throw new DecodeError(`value of ${length} bytes`);
  return length;
}

function view(r: Reader, length: number): Uint8Array {
  const at = r.take(length);
  return r.bytes.subarray(at, at + length);
}

/** The value that a patch makes of `old`. */
export function applyPatch(old: Uint8Array, offset: number, bytes: Uint8Array, newTotal: number): Uint8Array {
  const value = new Uint8Array(newTotal);
  value.set(old.length <= newTotal ? old : old.subarray(0, newTotal));
  value.set(bytes, offset);
  return value;
}

/** The value that was there before a patch made `value`. */
export function undoPatch(value: Uint8Array, change: LoggedPatch): Uint8Array {
  const { oldTotal, newTotal, offset, replaced, bytes } = change;
  const old = new Uint8Array(oldTotal);
  old.set(value.length <= oldTotal ? value : value.subarray(0, oldTotal));
  const overwritten = overwrittenBytes(oldTotal, offset, bytes.length);
  if (overwritten > 0) old.set(replaced.subarray(0, overwritten), offset);
  if (replaced.length > overwritten) old.set(replaced.subarray(overwritten), newTotal);
  return old;
}
