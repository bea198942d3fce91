/**
 * Hostile bytes where frames come in: 100,000 mutated frames through the frame parser and every message's codecs, and
 * mutated replies through a caller. The only exception is DecodeError, every call ends, nothing is kept.
 */

import { assert, assertEquals } from "@std/assert";
import { attributes } from "../../core/protocol/messages.ts";
import { MapHolder } from "../../core/placement/map_holder.ts";
import { Caller } from "../../core/protocol/caller.ts";
import { type Codec, decode, DecodeError, encode, Reader, Writer } from "../../core/protocol/codec.ts";
import { beginFrame, finishFrame, frameFlags, type Head, readFrame } from "../../core/protocol/frame.ts";
import { type Message, messageOf, peerKind, READDIR } from "../../core/protocol/messages.ts";
import { fakeMap, FakeNetwork, FakeRuntime, FakeStore, replyFrame } from "../core/fake.ts";

const frames = 100_000, replies = 5_000;
/** Bytes of heap that may be in use after the run beyond those before it. */
const heapGrowthMax = 128 * 2 ** 20;

let seed = 0x5ea1f5;
function random(below: number): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor(seed / 4294967296 * below);
}

const messages: Message[] = [];
for (let type = 0; type < 256; type++) {
  const message = messageOf(type);
  if (message !== undefined) messages.push(message);
}

/** A value that a codec takes: what it makes of zeros. */
function sample(codec: Codec<unknown>): unknown {
  return codec.read(new Reader(new Uint8Array(4096)));
}

const head: Head = {
  type: 0,
  flags: 0,
  id: 1,
  epoch: 1,
  status: 0,
  session: 5,
  sequence: 7,
  slot: 3,
  shard: 2,
  leases: 0,
  clock: 1e12,
};

function richReaddir(): unknown {
  const entry = { name: new Uint8Array(20), inode: 7, type: 8, cookie: 9, attributes: sample(attributes) };
  return { entries: Array.from({ length: 5 }, () => entry), end: true };
}

function frameOf(message: Message, reply: boolean): Uint8Array {
  const writer = new Writer(4096);
  beginFrame(writer, { ...head, type: message.type, flags: reply ? frameFlags.reply : 0 });
  if (message === READDIR && reply) message.reply.write(writer, richReaddir());
  else if (reply) message.reply.write(writer, sample(message.reply));
  else message.request.write(writer, sample(message.request));
  return finishFrame(writer).slice();
}

const extremes = [0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xffff, 0x10000, 0x00200000, 4096, 65536];

/** One to four changes: bits, extreme numbers, a cut, more bytes. The length is put right half of the time. */
function mutate(original: Uint8Array): Uint8Array {
  let frame = original.slice();
  for (let n = 1 + random(4); n > 0; n--) {
    const at = random(frame.length || 1);
    switch (random(5)) {
      case 0:
        if (frame.length > 0) frame[at] ^= 1 << random(8);
        break;
      case 1:
        if (frame.length > 0) frame[at] = random(256);
        break;
      case 2:
        if (at + 4 <= frame.length) new DataView(frame.buffer).setUint32(at, extremes[random(extremes.length)], true);
        break;
      case 3:
        frame = frame.slice(0, at);
        break;
      default: {
        const longer = new Uint8Array(frame.length + random(64));
        longer.set(frame);
        for (let i = frame.length; i < longer.length; i++) longer[i] = random(256);
        frame = longer;
      }
    }
  }
  if (frame.length >= 4 && random(2) === 0) new DataView(frame.buffer).setUint32(0, frame.length, true);
  return frame;
}

/** True when the bytes were refused; anything but a DecodeError is a failure. */
function refused(run: () => void): boolean {
  try {
    run();
    return false;
  } catch (error) {
    if (error instanceof DecodeError) return true;
    throw error;
  }
}

Deno.test(`frame parser and codecs take ${frames} mutated frames`, () => {
  const originals = messages.flatMap((message) => [frameOf(message, false), frameOf(message, true)]);
  for (const original of originals) assertEquals(refused(() => void readFrame(original)), false);
  const before = Deno.memoryUsage().heapUsed;
  let bad = 0;
  for (let i = 0; i < frames; i++) {
    const frame = mutate(originals[random(originals.length)]);
    const failed = refused(() => {
      const { head, body } = readFrame(frame);
      const message = messageOf(head.type) ?? messages[random(messages.length)];
      const codec = (head.flags & frameFlags.reply) !== 0 ? message.reply : message.request;
      const value = codec.read(body);
      body.finish();
      // What was accepted can be written again, and reads as the same.
      const again = encode(codec, value);
      assertEquals(encode(codec, decode(codec, again)), again);
    });
    if (failed) bad++;
  }
  assert(bad > frames / 4 && bad < frames, `${bad} refused`);
  const growth = Deno.memoryUsage().heapUsed - before;
  assert(growth < heapGrowthMax, `${growth} bytes more`);
});

Deno.test(`a caller takes ${replies} mutated replies and still works`, () => {
  const runtime = new FakeRuntime(), network = new FakeNetwork(runtime);
  const maps = new MapHolder(fakeMap(1, [1]));
  let fuzzing = true;
  network.stores.push(
    new FakeStore(1, 0, ({ head, message }) => {
      const body = message === READDIR ? richReaddir() : sample(message.reply);
      if (!fuzzing) return { body };
      const raw = mutate(replyFrame(head, message, { body, data: new Uint8Array(random(3) * 10) }));
      return { raw };
    }),
  );
  const caller = new Caller({
    runtime,
    network,
    maps,
    secret: null,
    kind: peerKind.client,
    session: 5,
    callTimeoutMs: 500,
    ioTimeoutMs: 2000,
    hooks: { push: (frame) => void messageOf(frame.head.type)?.request.read(frame.body) },
  });
  const before = Deno.memoryUsage().heapUsed;
  const usable = messages.filter((message) => message.type > 4);
  const into = new Uint8Array(16);
  for (let i = 0; i < replies; i++) {
    if (!caller.sessionAlive) caller.renew(caller.session + 1);
    const message = usable[random(usable.length)];
    const options = random(2) === 0 ? { into } : {};
    const reply = runtime.run(caller.call(message, { shard: random(16) }, sample(message.request), options), 20_000);
    assert(reply.status === 0 || reply.body === undefined);
    network.stores[0].asked.length = 0;
    runtime.logs.length = 0;
  }
  assert(caller.counters.malformed > replies / 10, `${caller.counters.malformed} malformed`);
  fuzzing = false;
  if (!caller.sessionAlive) caller.renew(caller.session + 1);
  runtime.pass(10_000);
  assertEquals(
    runtime.run(caller.call(READDIR, { shard: 1 }, { dir: 1, cookie: 0, limitBytes: 1, plus: true, accessTimes: 0 }))
      .status,
    0,
  );
  assertEquals(caller.active, 0);
  const growth = Deno.memoryUsage().heapUsed - before;
  assert(growth < heapGrowthMax, `${growth} bytes more`);
});
