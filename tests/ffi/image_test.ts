/** Tests of ffi/store/image.ts: scans of the open transaction. */

import { assert, assertEquals } from "@std/assert";
import { LmdbImage } from "../../ffi/store/image.ts";

const bytes = (...values: number[]) => Uint8Array.from(values);

function withImage(use: (image: LmdbImage) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "sealfs-image-" });
  const image = new LmdbImage({ folder, log: () => {} });
  try {
    use(image);
  } finally {
    image.close();
    Deno.removeSync(folder, { recursive: true });
  }
}

function scan(image: LmdbImage, from: Uint8Array, to: Uint8Array, most = Infinity): [number[], number[]][] {
  const found: [number[], number[]][] = [];
  image.scan(from, to, (key, value) => found.push([[...key], [...value]]) < most);
  return found;
}

/** Memory of this process that is nobody else's, in bytes. */
function ownBytes(): number {
  const [, text] = /^RssAnon:\s+(\d+) kB/m.exec(Deno.readTextFileSync("/proc/self/status"))!;
  return Number(text) * 1024;
}

Deno.test("scan() visits what was put, removed and committed, in the order of bytes, up to its end", () => {
  withImage((image) => {
    for (const key of [bytes(2, 0), bytes(1), bytes(1, 255), bytes(1, 0), bytes(2)]) image.put(key, bytes(9, ...key));
    const ones = [[[1], [9, 1]], [[1, 0], [9, 1, 0]], [[1, 255], [9, 1, 255]]];
    assertEquals(scan(image, bytes(1), bytes(2)), ones);
    image.remove(bytes(1, 0));
    assertEquals(scan(image, bytes(0), bytes(2)), [ones[0], ones[2]]);
    assertEquals(image.commit(), 0);
    assertEquals(scan(image, bytes(1, 1), bytes(3)), [ones[2], [[2], [9, 2]], [[2, 0], [9, 2, 0]]]);
    assertEquals(scan(image, bytes(1), bytes(3), 1), [ones[0]]);
    assertEquals(scan(image, bytes(3), bytes(4)), []);
    assertEquals(scan(image, bytes(2), bytes(2)), []);
  });
});

Deno.test("scan() hands out keys and values that stay as they are", () => {
  withImage((image) => {
    for (let number = 1; number < 4; number++) image.put(bytes(number), bytes(number, number));
    const kept: Uint8Array[] = [];
    image.scan(bytes(0), bytes(9), (key, value) => kept.push(key, value) > 0);
    image.get(bytes(3));
    image.put(bytes(1), bytes(7, 7));
    assertEquals(kept.map((one) => [...one]), [[1], [1, 1], [2], [2, 2], [3], [3, 3]]);
  });
});

Deno.test("scan() gives values of all sizes whole, in any order of sizes", () => {
  withImage((image) => {
    const sizes = [0, 1, 4096, 40_000, 7, 1_000_000, 100_000, 1_048_576, 3];
    const value = (number: number) => new Uint8Array(sizes[number]).fill(number + 1);
    for (const number of sizes.keys()) image.put(bytes(number), value(number));
    for (const first of sizes.keys()) {
      let number = first;
      image.scan(bytes(first), bytes(99), (_, found) => {
        assertEquals(found, value(number++));
        return true;
      });
      assertEquals(number, sizes.length);
    }
  });
});

Deno.test("scan() leaves no memory behind in a thread that never returns to its event loop", () => {
  withImage((image) => {
    const some = () => {
      for (let number = 0; number < 100_000; number++) image.scan(bytes(1), bytes(2), () => true);
    };
    some();
    const before = ownBytes();
    some();
    assert(ownBytes() - before < 16 * 2 ** 20, `${ownBytes() - before} bytes more after 100,000 scans`);
  });
});

Deno.test("get() says what was put and removed last, whatever the lengths of keys and values, absent keys too", () => {
  withImage((image) => {
    const model = new Map<string, number[]>(), lengths = [0, 1, 17, 222, 223, 254, 255, 256, 257, 4096, 70_000];
    let random = 7;
    const below = (limit: number) => (random = random * 48271 % 2147483647) % limit;
    for (let step = 0; step < 30_000; step++) {
      // More keys than are remembered, some of which are used again and again.
      const number = below(2) === 0 ? below(40) : below(20_000);
      const key = new Uint8Array([3, 10, 30, 31, 60][number % 5]);
      new DataView(key.buffer).setUint16(1, number);
      const name = key.join();
      switch (below(4)) {
        case 0: {
          const value = new Uint8Array(lengths[below(number < 40 ? lengths.length : 5)]).fill(step);
          image.put(key, value);
          model.set(name, [value.length, value.at(-1) ?? -1]);
          break;
        }
        case 1:
          if (number % 3 === 0) image.remove(key);
          if (number % 3 === 0) model.delete(name);
          break;
        default: {
          const found = image.get(key);
          assertEquals(found === undefined ? undefined : [found.length, found.at(-1) ?? -1], model.get(name));
        }
      }
      if (step % 10_000 === 0) assertEquals(image.commit(), 0);
    }
  });
});
