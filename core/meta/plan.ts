/**
 * What an operation will change, collected while it checks: nothing reaches the store before every check has passed,
 * and then everything does in one record.
 *
 * @module
 */

import { type Change, type Charge, put, remove } from "../store/record.ts";
import type { Attributes } from "./attributes.ts";
import { encodeAttributes, inodeKey, kind, shardOf } from "./layout.ts";

/** Changes and charges of one record. Changes apply in the order in which they were added. */
export class Plan {
  readonly changes: Change[] = [];
  #charges = new Map<number, Charge>();

  /** Sets a key. */
  put(key: Uint8Array, value: Uint8Array): void {
    this.changes.push(put(key, value));
  }

  /** Removes a key. */
  remove(key: Uint8Array): void {
    this.changes.push(remove(key));
  }

  /** Stores an inode's attributes with the next version. Call once an inode and record, when all fields are set. */
  attributes(value: Attributes): void {
    value.version++;
    this.put(inodeKey(shardOf(value.inode), kind.inode, value.inode), encodeAttributes(value));
  }

  /** Charges a volume (negative deltas give back). */
  charge(volume: number, bytesDelta: number, inodesDelta: number): void {
    if (bytesDelta === 0 && inodesDelta === 0) return;
    const charge = this.#charges.get(volume);
    if (charge === undefined) this.#charges.set(volume, { volume, bytesDelta, inodesDelta });
    else {
      charge.bytesDelta += bytesDelta;
      charge.inodesDelta += inodesDelta;
    }
  }

  /** Adds what the chunk engine prepared. */
  add(changes: readonly Change[], charges: readonly Charge[] = []): void {
    for (const change of changes) this.changes.push(change);
    for (const c of charges) this.charge(c.volume, c.bytesDelta, c.inodesDelta);
  }

  /** The charges, one a volume. */
  get charges(): Charge[] {
    return [...this.#charges.values()];
  }

  /** True when there is nothing to record. */
  get empty(): boolean {
    return this.changes.length === 0;
  }
}
