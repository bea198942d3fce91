/** Fuzzes the decoders of stored records: mutated bytes give a DecodeError or a record, never anything else. */

import { assert } from "@std/assert";
import { decodeChunk, diffChunkPatch } from "../../core/data/chunk_record.ts";
import { DecodeError, Writer } from "../../core/protocol/codec.ts";
import { changeOp, decodeRecord, recordType, RecordWriter } from "../../core/store/record.ts";
import { Random } from "../sim/random.ts";

const rounds = 100_000;

function sample(random: Random): Uint8Array {
  const writer = new Writer(512), records = new RecordWriter(writer);
  const charges = Array.from({ length: random.below(3) }, () => ({ volume: 1, bytesDelta: 4096, inodesDelta: -1 }));
  records.begin(recordType.operation, { shard: 1, position: 2, epoch: 3, session: 4, slot: 5, sequence: 6 }, charges);
  for (let i = random.below(5); i > 0; i--) {
    const key = new Uint8Array(3 + random.below(20)).fill(0x43), old = new Uint8Array(random.below(60));
    const kind = random.below(4);
    if (kind === 0) records.put(key, undefined, old);
    else if (kind === 1) records.put(key, old, new Uint8Array(random.below(60)));
    else if (kind === 2) records.remove(key, old);
    else records.patch(key, old, 12, new Uint8Array(8 * random.below(4)), 44);
  }
  records.finish();
  return writer.copy();
}

function mutate(random: Random, bytes: Uint8Array): Uint8Array {
  const how = random.weighted({ cut: 2, extend: 2, change: 6 });
  let out = bytes.slice(0, how === "cut" ? random.below(bytes.length + 1) : bytes.length);
  if (how === "extend") out = new Uint8Array([...out, ...new Uint8Array(random.below(20))]);
  for (let i = random.below(4); i > 0 && out.length > 0; i--) {
    out[random.below(out.length)] = random.pick([0, 1, 255, random.below(256)]);
  }
  // Most mutants should get past the length.
  if (out.length >= 4 && random.chance(0.9)) new DataView(out.buffer).setUint32(0, out.length, true);
  return out;
}

Deno.test("decodeRecord() gives a record or a DecodeError for 100,000 mutated inputs", () => {
  const random = new Random(20);
  let decoded = 0, refused = 0;
  for (let round = 0; round < rounds; round++) {
    const bytes = mutate(random, sample(random));
    try {
      for (const change of decodeRecord(bytes).changes) {
        if (change.op === changeOp.patch) diffChunkPatch(change, () => {});
        else if (change.op === changeOp.put) decodeChunk(change.value);
      }
      decoded++;
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      refused++;
    }
  }
  assert(decoded > rounds / 20 && refused > rounds / 20, `${decoded} decoded, ${refused} refused`);
});
