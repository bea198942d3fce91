/**
 * Paths to inodes, as path_resolution(7) has it: component by component, symbolic links followed (at most
 * {@linkcode linksMax} in one walk), search permission checked in every directory on the way.
 *
 * The root is the volume's: absolute paths and absolute targets of links start there, and `..` never leaves it.
 * Nothing is cached, so a walk sees what every other client has done before it.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { type Attributes, isDirectory, S } from "../meta/attributes.ts";
import { nameBytesMax } from "../meta/layout.ts";
import type { Task } from "../task.ts";
import { accessErrno, isSuperuser, may } from "./access.ts";
import type { Caller, FileSystem } from "./filesystem.ts";

/** Symbolic links that one walk follows; ELOOP beyond (as Linux, MAXSYMLINKS). */
export const linksMax = 40;
/** Longest path in bytes; ENAMETOOLONG beyond (PATH_MAX without its NUL). */
export const pathBytesMax = 4095;

const slash = 0x2f, dot = 0x2e;

/** Where a walk to the parent ended: the last component, not looked up. */
export interface Last {
  /** The directory. */
  dir: number;
  /** `name` is one; otherwise the path ends in the root itself, "." or "..". */
  kind: "name" | "root" | "dot" | "dotdot";
  name: Uint8Array;
  /** A slash follows: only a directory will do. */
  slash: boolean;
}

/** A directory on the way. The root's attributes are asked for when they are needed. */
interface Step {
  inode: number;
  attributes: Attributes | null;
  name: Uint8Array;
}

const noName = new Uint8Array(0);

/** True for a symbolic link's mode. */
export function isSymlink(mode: number): boolean {
  return (mode & S.IFMT) === S.IFLNK;
}

/** One walk; it goes on from where it stands, so a link's target can be walked after the link's directory. */
export class Walk {
  readonly #fileSystem: FileSystem;
  readonly #who: Caller;
  #trail: Step[];
  #links = 0;

  /** Stands at the root. */
  constructor(fileSystem: FileSystem, who: Caller) {
    this.#fileSystem = fileSystem;
    this.#who = who;
    this.#trail = [this.#root()];
  }

  /** What `path` names; a link at its end is followed if `follow`, or if a slash comes after it. */
  *to(path: Uint8Array, follow: boolean): Task<Result<Attributes>> {
    const parts = this.#begin(path);
    if (failed(parts)) return parts;
    const must = { directory: endsInSlash(path) };
    const errno = yield* this.#advance(parts, follow || must.directory, must);
    if (errno !== 0) return errno;
    const here = yield* this.attributes();
    if (failed(here)) return here;
    return must.directory && !isDirectory(here.mode) ? E.NOTDIR : here;
  }

  /** The directory of the last component of `path`, without looking that up. */
  *toParent(path: Uint8Array): Task<Result<Last>> {
    const parts = this.#begin(path);
    if (failed(parts)) return parts;
    const name = parts.shift();
    if (name === undefined) return { dir: this.inode, kind: "root", name: noName, slash: true };
    if (name.length > nameBytesMax) return E.NAMETOOLONG;
    const errno = yield* this.#advance(parts, true, { directory: true });
    if (errno !== 0) return errno;
    const searchable = yield* this.#searchErrno();
    if (searchable !== 0) return searchable;
    const kind = isDot(name) ? "dot" : isDotDot(name) ? "dotdot" : "name";
    return { dir: this.inode, kind, name, slash: endsInSlash(path) };
  }

  /** Counts a link that is followed from outside: ELOOP when it is one too many, else 0. */
  countLink(): number {
    return ++this.#links > linksMax ? E.LOOP : 0;
  }

  /** Where the walk stands. */
  get inode(): number {
    return this.#trail[this.#trail.length - 1].inode;
  }

  /** Attributes of where it stands. */
  *attributes(): Task<Result<Attributes>> {
    const step = this.#trail[this.#trail.length - 1];
    if (step.attributes !== null) return step.attributes;
    const attributes = yield* this.#fileSystem.getAttributes(step.inode);
    if (!failed(attributes)) step.attributes = attributes;
    return attributes;
  }

  /** EACCES unless the caller may do all of `wanted` where it stands; else 0. */
  *accessErrno(wanted: number): Task<number> {
    if (isSuperuser(this.#who)) return 0;
    const attributes = yield* this.attributes();
    return failed(attributes) ? attributes : yield* accessErrno(this.#fileSystem, attributes, this.#who, wanted);
  }

  /** Absolute path, from the volume's root, of where it stands: no links, no dots. */
  get path(): Uint8Array {
    if (this.#trail.length === 1) return Uint8Array.of(slash);
    const names = this.#trail.slice(1).map((step) => step.name);
    const path = new Uint8Array(names.reduce((sum, name) => sum + name.length + 1, 0));
    let at = 0;
    for (const name of names) {
      path[at] = slash;
      path.set(name, at + 1);
      at += name.length + 1;
    }
    return path;
  }

  #root(): Step {
    return { inode: this.#fileSystem.root, attributes: null, name: noName };
  }

  /** Components of a path, last first; an absolute path moves the walk to the root. */
  #begin(path: Uint8Array): Result<Uint8Array[]> {
    if (path.length === 0) return E.NOENT;
    if (path.length > pathBytesMax) return E.NAMETOOLONG;
    if (path.includes(0)) return E.INVAL;
    if (path[0] === slash) this.#trail = [this.#root()];
    return components(path);
  }

  /** Walks `parts` (last first, consumed). `must.directory` is set when the last link's target ends in a slash. */
  *#advance(parts: Uint8Array[], follow: boolean, must: { directory: boolean }): Task<number> {
    for (let name = parts.pop(); name !== undefined; name = parts.pop()) {
      const errno = yield* this.#searchErrno();
      if (errno !== 0) return errno;
      if (isDot(name)) continue;
      if (isDotDot(name)) {
        if (this.#trail.length > 1) this.#trail.pop();
        continue;
      }
      if (name.length > nameBytesMax) return E.NAMETOOLONG;
      const found = yield* this.#fileSystem.lookup(this.inode, name);
      if (failed(found)) return found;
      if (!isSymlink(found.mode) || (parts.length === 0 && !follow)) {
        this.#trail.push({ inode: found.inode, attributes: found, name });
        continue;
      }
      const looped = this.countLink();
      if (looped !== 0) return looped;
      const target = yield* this.#fileSystem.readLink(found.inode);
      if (failed(target)) return target;
      if (parts.length === 0 && endsInSlash(target)) must.directory = true;
      const more = this.#begin(target);
      if (failed(more)) return more;
      parts.push(...more);
    }
    return 0;
  }

  /** ENOTDIR or EACCES when nothing can be looked up where the walk stands; else 0. */
  *#searchErrno(): Task<number> {
    const { attributes } = this.#trail[this.#trail.length - 1];
    if (attributes !== null && !isDirectory(attributes.mode)) return E.NOTDIR;
    return yield* this.accessErrno(may.execute);
  }
}

function components(path: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let end = path.length; end > 0;) {
    const start = path.lastIndexOf(slash, end - 1) + 1;
    if (start < end) parts.push(path.subarray(start, end));
    end = start - 1;
  }
  return parts;
}

function endsInSlash(path: Uint8Array): boolean {
  return path[path.length - 1] === slash;
}

function isDot(name: Uint8Array): boolean {
  return name.length === 1 && name[0] === dot;
}

function isDotDot(name: Uint8Array): boolean {
  return name.length === 2 && name[0] === dot && name[1] === dot;
}
