/**
 * What an operation will change, collected while it checks: nothing reaches the store before every check has passed,
 * and then everything does in one record.
 *
 * @module
 */

import { type Change, changeOp, type Charge, put, remove } from "../store/record.ts";
import type { Store } from "../store/store.ts";
import type { Attributes } from "./attributes.ts";
import { encodeAttributes, inodeKey, kind, shardOf } from "./layout.ts";

/** Changes and charges of one record. Changes apply in the order in which they were added. */
export class Plan {
  readonly changes: Change[] = [];
  /** Session for which the changes are made, where the record does not name it; 0: none. */
  changer = 0;
  /** Inodes whose attributes change. */
  readonly inodes: number[] = [];
  /** One a volume. */
  readonly charges: Charge[] = [];

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
    this.inodes.push(value.inode);
    this.put(inodeKey(shardOf(value.inode), kind.inode, value.inode), encodeAttributes(value));
  }

  /** Stores an inode's attributes of which nothing but the atime has changed: no new version. */
  accessTime(value: Attributes): void {
    this.put(inodeKey(shardOf(value.inode), kind.inode, value.inode), encodeAttributes(value));
  }

  /** Charges a volume (negative deltas give back). */
  charge(volume: number, bytesDelta: number, inodesDelta: number): void {
    if (bytesDelta === 0 && inodesDelta === 0) return;
    const charge = this.charges.find((one) => one.volume === volume);
    if (charge === undefined) this.charges.push({ volume, bytesDelta, inodesDelta });
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

  /** The value that `key` will have; undefined: none. */
  after(store: Store, key: Uint8Array): Uint8Array | undefined {
    let value = store.get(key)?.slice();
    for (const change of this.changes) {
      if (!sameBytes(change.key, key)) continue;
      if (change.op === changeOp.remove) value = undefined;
      else if (change.op === changeOp.put) value = change.value.slice();
      else {
        const next = new Uint8Array(change.length);
        if (value !== undefined) next.set(value.subarray(0, change.length));
        next.set(change.bytes, change.offset);
        value = next;
      }
    }
    return value;
  }

  /** True when there is nothing to record. */
  get empty(): boolean {
    return this.changes.length === 0;
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
