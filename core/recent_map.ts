/**
 * A bounded map by number that keeps what was used recently. It has two generations: what is set or got is in the young
 * one; when that holds half of the limit the old one is dropped as a whole and the young one takes its place. Nothing is
 * moved at each use and nothing is searched for to be dropped: a Map whose first key is taken out again and again walks
 * over all the holes at its front, some 10 us at 65,536 entries.
 *
 * @module
 */

/** See the module's comment. */
export class RecentMap<V> {
  #young = new Map<number, V>();
  #old = new Map<number, V>();
  readonly #half: number;
  readonly #dropped: ((value: V) => void) | null;

  /** Keeps at most `limit` entries, at least the `limit / 2` used last. `dropped` hears of values that had to go. */
  constructor(limit: number, dropped: ((value: V) => void) | null = null) {
    this.#half = Math.max(1, limit >> 1);
    this.#dropped = dropped;
  }

  /** Entries now. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** The value of a key, which counts as a use of it. */
  get(key: number): V | undefined {
    const young = this.#young.get(key);
    if (young !== undefined || this.#old.size === 0) return young;
    const old = this.#old.get(key);
    if (old === undefined) return undefined;
    this.#old.delete(key);
    this.#add(key, old);
    return old;
  }

  /** Sets the value of a key; `dropped` does not hear of the one it had. */
  set(key: number, value: V): void {
    if (this.#old.size > 0) this.#old.delete(key);
    this.#add(key, value);
  }

  /** Takes a key out; `dropped` does not hear of it. */
  delete(key: number): void {
    if (!this.#young.delete(key)) this.#old.delete(key);
  }

  /** All keys, in no order. Taking out the one at hand is allowed meanwhile, nothing else. */
  *keys(): Iterable<number> {
    yield* this.#old.keys();
    yield* this.#young.keys();
  }

  /** All values, those used longest ago first. Nothing may be changed meanwhile. */
  *values(): Iterable<V> {
    yield* this.#old.values();
    yield* this.#young.values();
  }

  #add(key: number, value: V): void {
    this.#young.set(key, value);
    if (this.#young.size <= this.#half) return;
    const dropped = this.#dropped, old = this.#old;
    this.#old = this.#young;
    this.#young = new Map([[key, value]]);
    this.#old.delete(key);
    if (dropped !== null) { for (const value of old.values()) dropped(value); }
  }
}
