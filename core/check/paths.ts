/**
 * Paths of what a check has found: upwards through the names that it saw, whose texts are read again.
 *
 * @module
 */

import { S } from "../meta/attributes.ts";
import { dentry, dentryKey } from "../meta/layout.ts";
import { decode, DecodeError } from "../protocol/codec.ts";
import type { Task } from "../task.ts";
import type { Checker } from "./check.ts";
import type { EntryPlace, Finding } from "./finding.ts";
import { seen } from "./tables.ts";

/** Directories deeper than this have no path here. */
const depthMax = 256;
const decoder = new TextDecoder();

/** Finds paths after a pass. */
export class Paths {
  readonly #checker: Checker;
  readonly #read: (key: Uint8Array) => Task<Uint8Array | null>;
  /** For each inode's row one of its names, plus one; 0 when it has none. */
  readonly #nameOf: Uint32Array;
  readonly #known = new Map<number, string>();

  constructor(checker: Checker, read: (key: Uint8Array) => Task<Uint8Array | null>) {
    const { inodes, names } = checker;
    this.#checker = checker;
    this.#read = read;
    this.#nameOf = new Uint32Array(inodes.count);
    for (let i = 0; i < names.count; i++) {
      const row = names.target[i], first = this.#nameOf[row] === 0;
      // A directory's parent tells which of several names is its own.
      if (first || inodes.inode[names.dir[i]] === inodes.parent[row]) this.#nameOf[row] = i + 1;
    }
  }

  /** `volume:/path` of what a finding speaks of, undefined when there is none. */
  *of(finding: Finding): Task<string | undefined> {
    if (finding.entry !== undefined) return yield* this.#ofEntry(finding.entry);
    const row = finding.inode === 0 ? -1 : this.#checker.inodes.find(finding.inode);
    return row < 0 ? undefined : yield* this.#ofRow(row, 0);
  }

  *#ofEntry(entry: EntryPlace): Task<string | undefined> {
    const row = this.#checker.inodes.find(entry.dir);
    const above = row < 0 ? undefined : yield* this.#ofRow(row, 0);
    const name = yield* this.#name(entry);
    return above === undefined || name === null ? undefined : join(above, name);
  }

  *#ofRow(row: number, depth: number): Task<string | undefined> {
    const { inodes, names, map, roots } = this.#checker, inode = inodes.inode[row];
    const known = this.#known.get(row);
    if (known !== undefined) return known;
    if (roots.has(inode)) {
      const volume = map.volumes.find((one) => one.id === inodes.volume[row] && inodes.has(row, seen.inode));
      return `${volume?.name ?? "?"}:/`;
    }
    const at = this.#nameOf[row] - 1;
    if (at < 0 || depth >= depthMax) return undefined;
    const above = yield* this.#ofRow(names.dir[at], depth + 1);
    if (above === undefined) return undefined;
    const place = names.place[at];
    const name = yield* this.#name({
      dir: inodes.inode[names.dir[at]],
      hash: Math.floor(place / 32),
      disc: place % 32,
    });
    if (name === null) return undefined;
    const path = join(above, name);
    if (inodes.type[row] === S.IFDIR >> 12) this.#known.set(row, path);
    return path;
  }

  *#name({ dir, hash, disc }: EntryPlace): Task<string | null> {
    const value = yield* this.#read(dentryKey(dir, hash, disc));
    try {
      return value === null ? null : shown(decode(dentry, value).name);
    } catch (error) {
      if (error instanceof DecodeError) return null;
      throw error;
    }
  }
}

function join(above: string, name: string): string {
  return above.endsWith("/") ? above + name : `${above}/${name}`;
}

/** A name for people: control characters escaped. */
function shown(name: Uint8Array): string {
  return decoder.decode(name).replace(/\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}
