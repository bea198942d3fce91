/** Tests of core/store/record.ts: records decode to what was written and can be applied and undone. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { DecodeError, Writer } from "../../../core/protocol/codec.ts";
import {
  applyPatch,
  changeOp,
  decodeRecord,
  intactRecord,
  type LoggedPatch,
  recordType,
  RecordWriter,
  sealRecord,
  undoPatch,
} from "../../../core/store/record.ts";
import { Random } from "../../sim/random.ts";

const head = { shard: 3, position: 2 ** 52 + 1, epoch: 9, session: 77, slot: 5, sequence: 123456789012 };
const key = new Uint8Array([0, 3, 0x58, 1, 2, 3]);

Deno.test("RecordWriter and decodeRecord() agree on every kind of change", () => {
  const writer = new Writer(16), records = new RecordWriter(writer);
  const old = new Uint8Array([1, 2, 3, 4, 5]);
  records.begin(recordType.operation, head, [{ volume: 4, bytesDelta: -8192, inodesDelta: 1 }]);
  records.put(key, undefined, old);
  records.put(key, old, new Uint8Array(0));
  records.remove(key, old);
  records.patch(key, old, 1, new Uint8Array([9, 9]), 4);
  const start = records.finish();
  sealRecord(writer, start, 42);
  const raw = writer.copy();
  assertEquals(intactRecord(raw, 0, 42), raw.length);
  assertEquals(intactRecord(raw, 0, 43), 0, "a record of another segment is none");
  const record = decodeRecord(raw);
  assertEquals({ ...record, changes: [] }, {
    ...head,
    type: recordType.operation,
    charges: [{ volume: 4, bytesDelta: -8192, inodesDelta: 1 }],
    changes: [],
  });
  assertEquals(record.changes[0], { op: changeOp.put, key, old: null, value: old });
  assertEquals(record.changes[1], { op: changeOp.put, key, old, value: new Uint8Array(0) });
  assertEquals(record.changes[2], { op: changeOp.remove, key, old });
  assertEquals(record.changes[3], {
    op: changeOp.patch,
    key,
    oldTotal: 5,
    newTotal: 4,
    offset: 1,
    replaced: new Uint8Array([2, 3, 5]),
    bytes: new Uint8Array([9, 9]),
  });
});

Deno.test("undoPatch() restores what applyPatch() changed", () => {
  const random = new Random(1);
  for (let round = 0; round < 3000; round++) {
    const old = randomBytes(random, random.below(40)), newTotal = random.below(50);
    const offset = random.below(newTotal + 1), patched = randomBytes(random, random.below(newTotal - offset + 1));
    const writer = new Writer(64), records = new RecordWriter(writer);
    records.begin(recordType.operation, head, []);
    records.patch(key, old, offset, patched, newTotal);
    records.finish();
    const change = decodeRecord(writer.copy()).changes[0] as LoggedPatch;
    const value = applyPatch(old, change.offset, change.bytes, change.newTotal);
    assertEquals(value.length, newTotal);
    assertEquals(value.subarray(offset, offset + patched.length), patched);
    assertEquals(undoPatch(value, change), old);
  }
});

Deno.test("intactRecord() finds no record when any one bit differs", () => {
  const writer = new Writer(64), records = new RecordWriter(writer);
  records.begin(recordType.operation, head, []);
  records.put(key, undefined, new Uint8Array([1, 2, 3]));
  sealRecord(writer, records.finish(), 7);
  const raw = writer.copy();
  for (let bit = 0; bit < raw.length * 8; bit++) {
    raw[bit >> 3] ^= 1 << (bit & 7);
    assertEquals(intactRecord(raw, 0, 7), 0, `bit ${bit}`);
    raw[bit >> 3] ^= 1 << (bit & 7);
  }
  for (let cut = 0; cut < raw.length; cut++) assertEquals(intactRecord(raw.subarray(0, cut), 0, 7), 0);
});

Deno.test("decodeRecord() refuses a barrier with changes, unknown types and bytes left over", () => {
  const writer = new Writer(64), records = new RecordWriter(writer);
  records.begin(recordType.barrier, head, []);
  records.put(key, undefined, new Uint8Array(1));
  records.finish();
  assertThrows(() => decodeRecord(writer.copy()), DecodeError);
  records.writer.reset();
  records.begin(3, head, []);
  records.finish();
  assertThrows(() => decodeRecord(writer.copy()), DecodeError);
  writer.reset();
  records.begin(recordType.operation, head, []);
  records.finish();
  const raw = new Uint8Array(writer.length + 1);
  raw.set(writer.view());
  raw[0]++;
  assertThrows(() => decodeRecord(raw), DecodeError);
  assert(decodeRecord(writer.copy()).changes.length === 0);
});

function randomBytes(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.below(256));
}
