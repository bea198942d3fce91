/**
 * SipHash-2-4 (Aumasson and Bernstein, 2012) over 32-bit halves, truncated to 48 bits: places names in a directory.
 * Keyed by a secret of the directory, so that nobody can choose names that collide.
 *
 * @module
 */

let v0l = 0, v0h = 0, v1l = 0, v1h = 0, v2l = 0, v2h = 0, v3l = 0, v3h = 0;

function round(): void {
  let l = (v0l >>> 0) + (v1l >>> 0);
  v0h = (v0h + v1h + (l > 0xffffffff ? 1 : 0)) | 0;
  v0l = l | 0;
  l = (v2l >>> 0) + (v3l >>> 0);
  v2h = (v2h + v3h + (l > 0xffffffff ? 1 : 0)) | 0;
  v2l = l | 0;
  let t = v1l << 13 | v1h >>> 19;
  v1h = (v1h << 13 | v1l >>> 19) ^ v0h;
  v1l = t ^ v0l;
  t = v3l << 16 | v3h >>> 16;
  v3h = (v3h << 16 | v3l >>> 16) ^ v2h;
  v3l = t ^ v2l;
  t = v0l;
  v0l = v0h;
  v0h = t;
  l = (v0l >>> 0) + (v3l >>> 0);
  v0h = (v0h + v3h + (l > 0xffffffff ? 1 : 0)) | 0;
  v0l = l | 0;
  l = (v2l >>> 0) + (v1l >>> 0);
  v2h = (v2h + v1h + (l > 0xffffffff ? 1 : 0)) | 0;
  v2l = l | 0;
  t = v3l << 21 | v3h >>> 11;
  v3h = (v3h << 21 | v3l >>> 11) ^ v0h;
  v3l = t ^ v0l;
  t = v1l << 17 | v1h >>> 15;
  v1h = (v1h << 17 | v1l >>> 15) ^ v2h;
  v1l = t ^ v2l;
  t = v2l;
  v2l = v2h;
  v2h = t;
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24;
}

/** The 64-bit hash of `data` under the 16-byte `key`, as [low, high] u32. */
export function sipHash(key: Uint8Array, data: Uint8Array): [number, number] {
  const k0l = word(key, 0), k0h = word(key, 4), k1l = word(key, 8), k1h = word(key, 12);
  v0l = k0l ^ 0x70736575, v0h = k0h ^ 0x736f6d65;
  v1l = k1l ^ 0x6e646f6d, v1h = k1h ^ 0x646f7261;
  v2l = k0l ^ 0x6e657261, v2h = k0h ^ 0x6c796765;
  v3l = k1l ^ 0x79746573, v3h = k1h ^ 0x74656462;
  const whole = data.length & ~7;
  for (let at = 0; at < whole; at += 8) {
    const l = word(data, at), h = word(data, at + 4);
    v3l ^= l, v3h ^= h;
    round();
    round();
    v0l ^= l, v0h ^= h;
  }
  let l = 0, h = data.length << 24;
  for (let i = whole; i < data.length; i++) {
    const shift = (i - whole) * 8;
    if (shift < 32) l |= data[i] << shift;
    else h |= data[i] << (shift - 32);
  }
  v3l ^= l, v3h ^= h;
  round();
  round();
  v0l ^= l, v0h ^= h;
  v2l ^= 0xff;
  round();
  round();
  round();
  round();
  return [(v0l ^ v1l ^ v2l ^ v3l) >>> 0, (v0h ^ v1h ^ v2h ^ v3h) >>> 0];
}

/** Highest value of {@linkcode nameHash}: one below 2^48 - 1, so that a readdir cookie stays below 2^53. */
export const nameHashMax = 2 ** 48 - 2;

/** Position of a name in its directory: 48 bits, at most {@linkcode nameHashMax}. */
export function nameHash(key: Uint8Array, name: Uint8Array): number {
  const [low, high] = sipHash(key, name);
  return Math.min((high & 0xffff) * 4294967296 + low, nameHashMax);
}
