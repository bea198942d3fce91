/**
 * The wire codec: a whole CREATE request, encoded and decoded, against cbor-x and JSON with the same fields.
 *
 * @module
 */

import { decode, encode } from "cbor-x";
import { Writer } from "../core/protocol/codec.ts";
import { beginFrame, finishFrame, readFrame } from "../core/protocol/frame.ts";
import { CREATE } from "../core/protocol/messages.ts";

const head = {
  type: CREATE.type,
  flags: 0,
  id: 12345,
  epoch: 7,
  status: 0,
  session: 99,
  sequence: 123456,
  slot: 3,
  shard: 77,
  leases: 0,
  clock: 1.7e12,
};
const body = {
  dir: 77 * 2 ** 41 + 5,
  name: new TextEncoder().encode("file.mdtest.00000000.123"),
  mode: 0o100644,
  umask: 0o22,
  uid: 1000,
  gid: 1000,
  rdev: 0,
  target: new Uint8Array(),
  exclusive: false,
  openId: 42,
  truncate: false,
};
const whole = { ...head, ...body, name: new TextDecoder().decode(body.name), target: "" };

const writer = new Writer(4096);

function encoded(): Uint8Array {
  beginFrame(writer, head);
  CREATE.request.write(writer, body);
  return finishFrame(writer);
}

const frame = encoded().slice(), cbor = encode(whole), json = JSON.stringify(whole);

Deno.bench("sealfs", { group: "encode a CREATE request", baseline: true }, () => void encoded());
Deno.bench("cbor-x", { group: "encode a CREATE request" }, () => void encode(whole));
Deno.bench("JSON", { group: "encode a CREATE request" }, () => void JSON.stringify(whole));

Deno.bench("sealfs", { group: "decode a CREATE request", baseline: true }, () => {
  CREATE.request.read(readFrame(frame).body);
});
Deno.bench("cbor-x", { group: "decode a CREATE request" }, () => decode(cbor));
Deno.bench("JSON", { group: "decode a CREATE request" }, () => JSON.parse(json));
