/**
 * The image of a store: gets and puts through its one open transaction, against npm:lmdb used the ordinary way (reads by
 * a transaction of their own, one synchronous transaction for each batch of puts), both on the temporary folder's disk.
 *
 * @module
 */

import { open } from "lmdb";
import { LmdbImage } from "../ffi/store/image.ts";

const keys = 20_000;
const keyBytes = 16, valueBytes = 128;
/** Puts in one transaction of the peer: what a busy turn of a reactor carries. */
const batch = 64;

const folder = Deno.makeTempDirSync({ prefix: "sealfs-bench-" });
addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
Deno.mkdirSync(`${folder}/image`);

function keyOf(number: number): Uint8Array<ArrayBuffer> {
  const key = new Uint8Array(keyBytes);
  // Spread over the tree, as names are by their hashes.
  new DataView(key.buffer).setUint32(4, Math.imul(number, 2654435761) >>> 0);
  return key;
}

const all = Array.from({ length: keys }, (_, number) => keyOf(number));
const value = new Uint8Array(valueBytes).fill(7);
const image = new LmdbImage({ folder: `${folder}/image`, log: () => {} });
const peer = open<Uint8Array, Uint8Array>({
  path: `${folder}/peer`,
  encoding: "binary",
  keyEncoding: "binary",
  noSync: true,
});
peer.transactionSync(() => {
  for (const key of all) peer.putSync(key, value);
});
for (const key of all) image.put(key, value);
image.commit();
let at = 0;

function next(): Uint8Array<ArrayBuffer> {
  return all[at = (at + 1) % keys];
}

Deno.bench("sealfs image", { group: "get of 128 bytes", baseline: true }, () => void image.get(next()));
Deno.bench("lmdb", { group: "get of 128 bytes" }, () => void peer.getBinary(next()));

Deno.bench("sealfs image", { group: "64 puts of 128 bytes", baseline: true }, () => {
  for (let number = 0; number < batch; number++) image.put(next(), value);
});
Deno.bench("lmdb, one transaction, never synced", { group: "64 puts of 128 bytes" }, () => {
  peer.transactionSync(() => {
    for (let number = 0; number < batch; number++) peer.putSync(next(), value);
  });
});
