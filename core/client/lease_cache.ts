/**
 * What a session may use without asking: attributes of inodes and names of directories on which it holds leases.
 *
 * Filled and emptied as frames arrive, in their order on each link: a recall that follows a reply voids what the reply
 * said before any task has seen it. What a session changes itself is not recalled from it: replies to its own changes
 * update what is known here, or make it unknown.
 *
 * Bounded: what was not used for long goes first.
 *
 * @module
 */

import { E } from "../errno.ts";
import { type Attributes, inodeFlags, isDirectory, S } from "../meta/attributes.ts";
import type { Call } from "../protocol/call.ts";
import { leaseBits, leaseHeldMs } from "../protocol/lease.ts";
import * as m from "../protocol/messages.ts";
import { RecentMap } from "../recent_map.ts";
import type { Runtime } from "../runtime.ts";
import type { Task } from "../task.ts";
import type { VoidListener } from "./filesystem.ts";

/** Inodes known at most. */
export const inodesMax = 65_536;
/** Names known at most, over all directories. */
export const namesMax = 524_288;
/** Names of a directory that are asked for in vain before all of them are. */
const missesMax = 2;
/** Longer pages of a directory are not remembered: they would push out everything else. */
const namesPerPageMax = 4_096;
/** {@linkcode LeaseCache.name} of a name that the directory does not have. */
export const absent = 0;
/** Of one that may be there or not. */
const unknown = -1;

interface Held {
  untilMs: number;
  attributes: Attributes | null;
  /** Names and what they stand for: an inode, {@linkcode absent}, or -1: not known. */
  names: Map<string, number> | null;
  /** Every name that the directory has is in `names`. */
  complete: boolean;
  /** Names that were asked for in vain. */
  misses: number;
}

/** See the module's comment. One a session. */
export class LeaseCache {
  readonly #runtime: Runtime;
  readonly #held = new RecentMap<Held>(inodesMax, (held) => this.#forgetNames(held));
  #names = 0;
  readonly #listeners: VoidListener[] = [];
  /** Questions answered from here and not, by kind, and leases taken back. */
  readonly counters = { attributes: 0, names: 0, attributesMissed: 0, namesMissed: 0, recalls: 0 };

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** Inodes on which something is held. */
  get size(): number {
    return this.#held.size;
  }

  /** Attributes of an inode as they are now, or null. */
  attributes(inode: number): Attributes | null {
    const attributes = this.#live(inode)?.attributes ?? null;
    if (attributes !== null) this.counters.attributes++;
    else this.counters.attributesMissed++;
    return attributes;
  }

  /** Milliseconds for which `attributes`, got from here or from a reply, may still be used; 0: not any more. */
  validityMs(attributes: Attributes): number {
    const held = this.#live(attributes.inode);
    // Newer ones may have arrived meanwhile; those at hand are then as good as they were, but not worth keeping.
    if (held === undefined || held.attributes?.version !== attributes.version) return 0;
    return held.untilMs - this.#runtime.nowMs();
  }

  /** What a name stands for: an inode, {@linkcode absent}, or undefined when the directory has to be asked. */
  name(dir: number, name: Uint8Array): number | undefined {
    const held = this.#live(dir);
    const names = held?.names ?? null;
    const inode = names === null ? unknown : names.get(keyOf(name)) ?? (held!.complete ? absent : unknown);
    if (inode === unknown) {
      this.counters.namesMissed++;
      return undefined;
    }
    this.counters.names++;
    return inode;
  }

  /**
   * A name was not there. True when it is time to list the directory: somebody looks for, or makes, many names that it
   * does not have, and to know them all would answer that here.
   */
  missed(dir: number): boolean {
    const held = this.#live(dir);
    if (held === undefined || held.names === null || held.complete) return false;
    return ++held.misses === missesMax && (held.attributes?.entries ?? 0) <= namesPerPageMax;
  }

  /** As {@linkcode LeaseCache.validityMs}, for a name. */
  nameValidityMs(dir: number, name: Uint8Array, inode: number): number {
    return this.name(dir, name) === inode ? this.#held.get(dir)!.untilMs - this.#runtime.nowMs() : 0;
  }

  /** Has `listener` called for every inode whose attributes and names, given out before, are void. */
  watch(listener: VoidListener): void {
    this.#listeners.push(listener);
  }

  /** The server takes the lease back. Ends when nobody uses what was known any more. */
  recalled(inode: number): Task<void>[] {
    this.counters.recalls++;
    return this.#void(inode);
  }

  /** Voids what is known of the inodes that `which` picks. */
  drop(which: (inode: number) => boolean): void {
    for (const inode of [...this.#held.keys()]) if (which(inode)) this.#voidUnwatched(inode);
  }

  /** The outcome of a change is not known, or not known yet: nothing that it may concern is used any more. */
  distrust(call: Call): void {
    const { dir, inode } = call.body as { dir?: number; inode?: number };
    // Which inode a name stood for is not known here, so that no attributes are certain.
    if (dir !== undefined) this.drop(() => true);
    else if (inode !== undefined) this.#voidUnwatched(inode);
  }

  /** A reply has arrived: takes over what it says and grants. Called for every reply, in their order on the link. */
  replied(call: Call, leases: number): void {
    const { message } = call, body = call.body as Asked, reply = call.replyBody as Reply;
    if (call.status !== 0) {
      if (message === m.LOOKUP && call.status === E.NOENT) this.#named(call, leases, absent);
      return;
    }
    switch (message) {
      case m.READ:
      case m.READLINK:
        if (reply.moved) this.#changed(body.inode);
        return;
      case m.GETATTR:
      case m.OPEN:
        return this.#learn(call, leases, reply.attributes);
      case m.SETATTR:
        this.#changed(body.inode);
        return this.#learn(call, leases, reply.attributes);
      case m.GETATTRS:
        for (const found of reply.found) if (found !== null) this.#learn(call, leases, found);
        return;
      case m.WRITE:
      case m.PUBLISH:
      case m.APPEND:
        return this.#written(body.inode, call.replyBody as Written);
      default:
        if (message.mutation && body.inode !== undefined) this.#changed(body.inode);
        this.#repliedToName(call, leases);
    }
  }

  #repliedToName(call: Call, leases: number): void {
    const { message } = call, body = call.body as Asked, reply = call.replyBody as Reply;
    switch (message) {
      case m.LOOKUP:
        this.#named(call, leases, reply.inode);
        if (reply.attributes !== null) this.#learn(call, leases, reply.attributes);
        return;
      case m.CREATE:
        if (reply.created) this.#added(body.dir, reply.attributes!, leases);
        else if (reply.attributes !== null) this.#changed(reply.inode);
        this.#named(call, leases, leases & leaseBits.directory ? reply.inode : unknown);
        if (reply.attributes !== null) this.#learn(call, leases, reply.attributes);
        return;
      case m.MKDIR:
      case m.LINK:
        this.#changed(body.dir);
        this.#changed(reply.attributes.inode);
        return this.#named(call, leases, leases & leaseBits.directory ? reply.attributes.inode : unknown);
      case m.UNLINK:
      case m.RMDIR:
        this.#changed(body.dir);
        if (reply.gone !== null) this.#changed(reply.gone.inode);
        else this.#changedBehind(body.dir, body.name);
        return this.#named(call, leases, leases & leaseBits.directory ? absent : unknown);
      case m.RENAME:
        this.#changed(body.dir);
        this.#changed(body.newDir);
        this.#changedBehind(body.dir, body.name);
        this.#changedBehind(body.newDir, body.newName);
        this.#setName(body.dir, body.name, unknown);
        return this.#setName(body.newDir, body.newName, unknown);
      case m.CLEAR:
        if (reply.removed > 0) this.#cleared(body.dir);
        return;
      case m.READDIR:
        if (reply.moved) this.#changed(body.dir);
        this.#listed(call, leases);
        for (const { attributes } of reply.entries) if (attributes !== null) this.#learn(call, leases, attributes);
    }
  }

  /** Takes over attributes that a reply grants a lease with. */
  #learn(call: Call, leases: number, attributes: Attributes): void {
    if ((leases & leaseBits.attributes) === 0) return;
    const held = this.#hold(attributes.inode, call);
    held.attributes = attributes;
    // Nobody can have put a name into it since.
    if (isDirectory(attributes.mode) && attributes.entries === 0 && !held.complete) {
      this.#forgetNames(held);
      held.names = new Map();
      held.complete = true;
    }
  }

  /** What the name of a request stands for, if the reply grants its directory. */
  #named(call: Call, leases: number, inode: number): void {
    const { dir, name } = call.body as Asked;
    if ((leases & leaseBits.directory) !== 0) this.#hold(dir, call).names ??= new Map();
    this.#setName(dir, name, inode);
  }

  /** A page of a directory: its names; the only page says all of them. */
  #listed(call: Call, leases: number): void {
    const { dir, cookie } = call.body as Asked, { entries, end } = call.replyBody as Reply;
    if ((leases & leaseBits.directory) === 0 || entries.length > namesPerPageMax) return;
    const held = this.#hold(dir, call);
    if (cookie === 0 && end) {
      this.#forgetNames(held);
      held.complete = true;
    }
    held.names ??= new Map();
    for (const { name, inode } of entries) this.#setName(dir, name, inode);
  }

  #setName(dir: number, name: Uint8Array, inode: number): void {
    const held = this.#held.get(dir);
    if (held === undefined || held.names === null) return;
    const key = keyOf(name), had = held.names.size;
    // In a complete set what is missing is absent.
    if (held.complete && inode === absent) held.names.delete(key);
    else held.names.set(key, inode);
    this.#names += held.names.size - had;
    if (this.#names > namesMax) this.#shrink();
  }

  /** The directory has one more entry, made by this session; `made` carries the time of the change. */
  #added(dir: number, made: Attributes, leases: number): void {
    const held = this.#held.get(dir);
    if (held === undefined || held.attributes === null) return;
    // A reply that grants nothing may be an old one, sent again: what is known may be newer.
    if ((leases & leaseBits.directory) === 0) return this.#changed(dir);
    const { mtime } = made;
    held.attributes = {
      ...held.attributes,
      mtime,
      ctime: mtime,
      entries: held.attributes.entries + 1,
      version: held.attributes.version + 1,
    };
  }

  /** The session has written a file: what is known follows, if this is the only change since. */
  #written(inode: number, written: Written): void {
    const held = this.#held.get(inode), known = held?.attributes ?? null;
    if (held === undefined || known === null || known.version >= written.version) return;
    const more = (known.mode & (S.ISUID | S.ISGID)) !== 0 || (known.flags & inodeFlags.capability) !== 0;
    if (more || known.version + 1 !== written.version) held.attributes = null;
    else {
      const { size, blocks, mtime, version } = written;
      held.attributes = { ...known, size, blocks, mtime, ctime: mtime, version };
    }
  }

  /** The session has changed an inode: its attributes are not known any more, its names still are. */
  #changed(inode: number): void {
    const held = this.#held.get(inode);
    if (held !== undefined) held.attributes = null;
  }

  /** The session has removed some names of a directory, and changed what they stood for. */
  #cleared(dir: number): void {
    const held = this.#held.get(dir);
    if (held !== undefined) this.#forgetNames(held);
    for (const one of this.#held.values()) one.attributes = null;
  }

  /** The session has changed the inode that a name stands, or stood, for. */
  #changedBehind(dir: number, name: Uint8Array): void {
    const inode = this.#held.get(dir)?.names?.get(keyOf(name)) ?? unknown;
    if (inode > 0) this.#changed(inode);
    // Which of them it was nobody has said.
    else for (const held of this.#held.values()) held.attributes = null;
  }

  #hold(inode: number, call: Call): Held {
    let held = this.#live(inode);
    const untilMs = call.firstSentAtMs + leaseHeldMs;
    if (held === undefined) {
      held = { untilMs, attributes: null, names: null, complete: false, misses: 0 };
      this.#held.set(inode, held);
      return held;
    }
    held.untilMs = Math.max(held.untilMs, untilMs);
    return held;
  }

  /** What is held now; what has run out is forgotten. */
  #live(inode: number): Held | undefined {
    const held = this.#held.get(inode);
    if (held === undefined || held.untilMs > this.#runtime.nowMs()) return held;
    this.#held.delete(inode);
    this.#forgetNames(held);
    return undefined;
  }

  #void(inode: number): Task<void>[] {
    this.#drop(inode);
    return this.#listeners.map((listener) => listener(inode)).filter((task) => task !== null);
  }

  /** Voids many at once, where nobody waits for the end of it. */
  #voidUnwatched(inode: number): void {
    for (const task of this.#void(inode)) this.#runtime.scheduler.spawn(task);
  }

  #drop(inode: number): void {
    const held = this.#held.get(inode);
    if (held === undefined) return;
    this.#forgetNames(held);
    this.#held.delete(inode);
  }

  #forgetNames(held: Held): void {
    this.#names -= held.names?.size ?? 0;
    held.names = null;
    held.complete = false;
  }

  /** Too many names: those of directories not used for long go. */
  #shrink(): void {
    for (const held of this.#held.values()) {
      if (this.#names <= namesMax / 2) return;
      this.#forgetNames(held);
    }
  }
}

type Written = Pick<Attributes, "size" | "blocks" | "mtime" | "version">;

interface Asked {
  inode: number;
  dir: number;
  name: Uint8Array;
  newDir: number;
  newName: Uint8Array;
  cookie: number;
}

interface Reply {
  inode: number;
  created: boolean;
  removed: number;
  /** What a removal has ended. */
  gone: Attributes | null;
  /** The atime of what was read has moved. */
  moved: boolean;
  attributes: Attributes;
  found: (Attributes | null)[];
  entries: { name: Uint8Array; inode: number; attributes: Attributes | null }[];
  end: boolean;
}

function keyOf(name: Uint8Array): string {
  let key = "";
  for (let i = 0; i < name.length; i++) key += String.fromCharCode(name[i]);
  return key;
}
