/**
 * Reading and planning changes of the namespace inside one shard: inodes by number, names in directories.
 * Checks nothing of POSIX: that is the operations' part (core/meta/ops).
 *
 * A name's place is (dir, hash48 under the directory's own key, disambiguator). Two names of one hash get different
 * disambiguators, chosen at insert and never changed, so a readdir cookie stays good while others come and go.
 *
 * @module
 */

import { decode, encodeSmall } from "../protocol/codec.ts";
import { nameHash } from "../placement/siphash.ts";
import type { Time } from "../runtime.ts";
import type { Store } from "../store/store.ts";
import type { Attributes } from "./attributes.ts";
import {
  decodeAttributes,
  type Dentry,
  dentry as dentryCodec,
  dentryKey,
  inodeKey,
  Key,
  kind,
  shardOf,
} from "./layout.ts";
import type { Plan } from "./plan.ts";

/** Disambiguators of one hash: 5 bits of the cookie. */
export const discMax = 31;
/** Directories whose hash key is kept in memory. */
const hashKeysMax = 65536;

/** Where a name is, or would be. */
export interface Place {
  hash: number;
  /** Disambiguator of the entry, or a free one; -1 when the hash has no free one left. */
  disc: number;
  /** The entry, or null when the name is absent. */
  entry: Dentry | null;
}

/** Cookie of an entry: below 2^53, above the 1 and 2 of "." and "..". */
export function cookieOf(hash: number, disc: number): number {
  return hash * 32 + disc + 3;
}

function sameName(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

interface HashKey {
  key: Uint8Array;
  /** Some hash of the directory has ever had a second name: look at all disambiguators. */
  collided: boolean;
}

/** See the module's comment. */
export class Tree {
  /** Access times that are not recorded yet, by inode (core/meta/access_times.ts). */
  readonly accessTimes = new Map<number, Time>();
  #hashKeys = new Map<number, HashKey>();

  constructor(readonly store: Store) {}

  /** Attributes of an inode of this store, or null. */
  attributes(inode: number): Attributes | null {
    const value = this.store.get(inodeKey(shardOf(inode), kind.inode, inode));
    if (value === undefined) return null;
    const found = decodeAttributes(inode, value), read = this.accessTimes.get(inode);
    if (read !== undefined) found.atime = read;
    return found;
  }

  /** Finds a name in a directory that exists. */
  find(dir: number, name: Uint8Array): Place {
    const { key, collided } = this.#hashKey(dir);
    const hash = nameHash(key, name);
    const value = this.store.get(dentryKey(dir, hash, 0));
    if (value !== undefined) {
      const entry = decode(dentryCodec, value);
      if (sameName(entry.name, name)) return { hash, disc: 0, entry };
    }
    if (!collided) return { hash, disc: value === undefined ? 0 : 1, entry: null };
    let free = value === undefined ? 0 : -1;
    for (let disc = 1; disc <= discMax; disc++) {
      const other = this.store.get(dentryKey(dir, hash, disc));
      if (other === undefined) {
        if (free < 0) free = disc;
        continue;
      }
      const entry = decode(dentryCodec, other);
      if (sameName(entry.name, name)) return { hash, disc, entry };
    }
    return { hash, disc: free, entry: null };
  }

  /** Plans an entry at a place that `find` gave. */
  insert(plan: Plan, dir: number, place: Place, entry: Dentry): void {
    plan.put(dentryKey(dir, place.hash, place.disc), encodeSmall(dentryCodec, entry));
    const known = this.#hashKey(dir);
    if (place.disc === 0 || known.collided) return;
    const value = new Uint8Array(17);
    value.set(known.key);
    value[16] = 1;
    plan.put(inodeKey(shardOf(dir), kind.hashKey, dir), value);
    this.#hashKeys.delete(dir);
  }

  /** Plans the removal of the entry at a place. */
  remove(plan: Plan, dir: number, place: Place): void {
    plan.remove(dentryKey(dir, place.hash, place.disc));
  }

  /** Plans the hash key of a new directory. `key` is 16 random bytes. */
  newDirectory(plan: Plan, dir: number, key: Uint8Array): void {
    const value = new Uint8Array(17);
    value.set(key);
    plan.put(inodeKey(shardOf(dir), kind.hashKey, dir), value);
  }

  /** Forgets what is cached of a directory that goes. */
  forget(dir: number): void {
    this.#hashKeys.delete(dir);
  }

  /** Visits entries after `cookie` in order until `visit` returns false. */
  list(dir: number, cookie: number, visit: (entry: Dentry, cookie: number) => boolean): void {
    const shard = shardOf(dir);
    const next = cookie < 3 ? 0 : cookie - 2;
    const from = dentryKey(dir, Math.floor(next / 32), next % 32);
    const to = new Key(shard, kind.dentry, 10).u56(dir + 1).done();
    this.store.scan(from, to, (key, value) => {
      let hash = 0;
      for (let i = 10; i < 16; i++) hash = hash * 256 + key[i];
      return visit(decode(dentryCodec, value), cookieOf(hash, key[16]));
    });
  }

  #hashKey(dir: number): HashKey {
    const cached = this.#hashKeys.get(dir);
    if (cached !== undefined) return cached;
    const value = this.store.get(inodeKey(shardOf(dir), kind.hashKey, dir));
    if (value === undefined || value.length !== 17) throw new Error(`directory ${dir} has no hash key`);
    const made = { key: value.slice(0, 16), collided: value[16] !== 0 };
    if (this.#hashKeys.size >= hashKeysMax) this.#hashKeys.clear();
    this.#hashKeys.set(dir, made);
    return made;
  }
}
