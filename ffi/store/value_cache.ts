/**
 * Small values of keys that were used lately, and keys that are known to be absent: what a request looks up, its
 * operation looks up again, and its record replaces. A hit costs a tenth of asking the database.
 *
 * One flat piece of memory; a key has one place, where it drives out whatever is there. The owner says of every change:
 * what is here is what the database holds.
 *
 * @module
 */

/** Places; a power of two. */
const places = 8192;
/** Longest key and value that are kept: inodes, dentries, answers and counters fit. */
const keyBytesMax = 30, valueBytesMax = 222;
/** A place: key length (0: empty), value length + 1 (0: the key is absent), key, value. */
const keyAt = 2, valueAt = keyAt + keyBytesMax, placeBytes = valueAt + valueBytesMax + 2;

/** See the module. */
export class ValueCache {
  readonly #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(places * placeBytes);
  /** The value that was last handed out of each place; made again when its length changes. */
  readonly #views: (Uint8Array | undefined)[] = new Array(places).fill(undefined);

  /** The value, valid until the next change; undefined: there is none; null: it is not known here. */
  get(key: Uint8Array): Uint8Array | undefined | null {
    const length = key.length;
    if (length > keyBytesMax) return null;
    const place = placeOf(key), at = place * placeBytes, bytes = this.#bytes;
    if (!this.#holds(at, key)) return null;
    const valueLength = bytes[at + 1] - 1;
    if (valueLength < 0) return undefined;
    const view = this.#views[place];
    if (view !== undefined && view.length === valueLength) return view;
    return this.#views[place] = bytes.subarray(at + valueAt, at + valueAt + valueLength);
  }

  /** The key has this value now; undefined: none. */
  set(key: Uint8Array, value: Uint8Array | undefined): void {
    const length = key.length;
    if (length > keyBytesMax) return;
    const at = placeOf(key) * placeBytes, bytes = this.#bytes;
    if (value !== undefined && value.length > valueBytesMax) {
      if (this.#holds(at, key)) bytes[at] = 0;
      return;
    }
    bytes[at] = length;
    for (let i = 0; i < length; i++) bytes[at + keyAt + i] = key[i];
    bytes[at + 1] = value === undefined ? 0 : value.length + 1;
    if (value !== undefined) bytes.set(value, at + valueAt);
  }

  #holds(at: number, key: Uint8Array): boolean {
    const bytes = this.#bytes, length = key.length;
    if (bytes[at] !== length) return false;
    for (let i = length - 1; i >= 0; i--) if (bytes[at + keyAt + i] !== key[i]) return false;
    return length > 0;
  }
}

/** FNV-1a, its upper half folded in. */
function placeOf(key: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key[i], 0x01000193);
  return (hash ^ hash >>> 15) & (places - 1);
}
