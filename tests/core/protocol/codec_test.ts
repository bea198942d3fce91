import { assertEquals } from "@std/assert";
import {
  bool,
  bytes,
  type Codec,
  decode,
  encode,
  optional,
  shortBytes,
  struct,
  text,
  time,
  u16,
  u32,
  u53,
  u63,
  u8,
  Writer,
} from "../../../core/protocol/codec.ts";

// deno-lint-ignore no-explicit-any
const samples: Record<string, { codec: Codec<any>; value: unknown }> = {
  u8: { codec: u8, value: 0xa5 },
  bool: { codec: bool, value: true },
  u16: { codec: u16, value: 0xa55a },
  u32: { codec: u32, value: 0xdeadbeef },
  u53: { codec: u53, value: Number.MAX_SAFE_INTEGER },
  u63: { codec: u63, value: 2n ** 63n - 2n },
  time: { codec: time, value: { sec: -5, nsec: 999_999_999 } },
  text: { codec: text, value: "n\u00e4me" },
  bytes: { codec: bytes, value: new Uint8Array([1, 2, 3]) },
  optional: { codec: optional(u8), value: 7 },
};

for (const [name, { codec, value }] of Object.entries(samples)) {
  Deno.test(`${name} is read as it was written wherever the buffer has to grow`, () => {
    const record = struct({ before: shortBytes, value: codec, after: u8 });
    for (let length = 0; length <= 600; length++) {
      const written = { before: new Uint8Array(length).fill(9), value, after: 3 };
      assertEquals(decode(record, encode(record, written)), written, `after ${length} bytes`);
    }
  });
}

Deno.test("Writer keeps what every width wrote when each write grows it", () => {
  const writer = new Writer(1);
  writer.u8(1);
  writer.u8(2);
  writer.u16(0x0403);
  writer.u8(5);
  assertEquals(writer.copy(), new Uint8Array([1, 2, 3, 4, 5]));
});
