/**
 * The simulator's only source of chance: a small, fast, seeded generator. One seed gives one sequence on every machine.
 * Forked streams keep apart what must not disturb each other (what the clients do, what the network does). Not for
 * secrets.
 *
 * @module
 */

import { mix32 } from "../../core/placement/hash.ts";

/** sfc32 (Chris Doty-Humphrey, PractRand): 128 bits of state, a counter guarantees a period of at least 2^32. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** `label` tells streams of one seed apart. */
  constructor(readonly seed: number, readonly label = "") {
    let h = mix32(seed);
    for (let i = 0; i < label.length; i++) h = mix32(h ^ label.charCodeAt(i));
    this.#a = mix32(h + 0x9e3779b9);
    this.#b = mix32(this.#a ^ seed);
    this.#c = mix32(this.#b + Math.floor(seed / 4294967296));
    for (let i = 0; i < 12; i++) this.u32();
  }

  /** 32 bits. */
  u32(): number {
    const t = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + t | 0;
    return t >>> 0;
  }

  /** A whole number 0..limit-1. */
  below(limit: number): number {
    return Math.floor(this.u32() / 4294967296 * limit);
  }

  /** A whole number from..to, both included. */
  between(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }

  /** A number in [0, 1). */
  fraction(): number {
    return this.u32() / 4294967296;
  }

  /** True with probability `p`. Draws nothing when `p` is 0, so that a fault that is off does not shift the others. */
  chance(p: number): boolean {
    return p > 0 && this.fraction() < p;
  }

  /** One of `items`, which must not be empty. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }

  /** One of the names, each as likely as its weight. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const names = Object.keys(weights) as K[];
    let total = 0;
    for (const name of names) total += weights[name];
    let at = this.fraction() * total;
    for (const name of names) {
      at -= weights[name];
      if (at < 0) return name;
    }
    return names[names.length - 1];
  }

  /** Another stream of the same seed. */
  fork(label: string): Random {
    return new Random(this.seed, `${this.label}/${label}`);
  }
}
