/**
 * What every operation on a volume needs: the session, the volume's identity, and the little that is remembered of
 * inodes between operations. It caches nothing that a program could see of what exists: only what a write has to carry,
 * which the servers check, and what is left of inodes that are gone (ghosts.ts). What leases allow to be used without
 * asking is in the session's lease cache.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { accessTimes } from "../meta/access_times.ts";
import { type Attributes, inodeFlags } from "../meta/attributes.ts";
import { shardOf } from "../meta/layout.ts";
import { rootInode, volumeState } from "../placement/map.ts";
import type { CallOptions, Reply } from "../protocol/caller.ts";
import { status } from "../protocol/frame.ts";
import { GETATTR, type Message } from "../protocol/messages.ts";
import { RecentMap } from "../recent_map.ts";
import type { Task } from "../task.ts";
import { ghostOf, Ghosts } from "./ghosts.ts";
import type { ClientSession } from "./session.ts";

/** Inodes of which something is remembered. */
const rememberedMax = 8192;
/** Requests that one operation has in flight at most. */
export const parallelMax = 16;

/** What a write of far chunks has to know of an inode. */
export interface WriteHint {
  gen: number;
  volume: number;
  /** The inode is known to have far chunks. */
  far: boolean;
  /** What a server said last. */
  last: Attributes;
}

/** What is remembered of an inode: for a write, and the size that an answer gave last with its gen. */
interface Remembered {
  hint: WriteHint | null;
  size: number;
  gen: number;
}

/** errno for a reply's status: what is no errno (a dead session, a server out of its mind) is EIO. */
export function errnoOf(replyStatus: number): number {
  return replyStatus >= status.wrongOwner ? E.IO : replyStatus;
}

/** Which reads move access times, by the words of mount(8). */
export interface AccessTimePolicy {
  atime: "noatime" | "relatime" | "strictatime";
  /** Directories keep theirs. */
  noDirectories: boolean;
}

/** What a volume is opened with. */
export interface VolumeOptions {
  /** As in the map. */
  volumeId: number;
  /** Besides the volume's own setting. */
  readOnly?: boolean;
  /** relatime for everything when absent. */
  accessTimes?: AccessTimePolicy;
}

const numberOfPolicy = {
  noatime: accessTimes.never,
  relatime: accessTimes.relative,
  strictatime: accessTimes.always,
} as const;

/** See the module's comment. */
export class Volume {
  readonly session: ClientSession;
  readonly id: number;
  readonly root: number;
  readonly ghosts = new Ghosts();
  #readOnly: boolean;
  #policy: AccessTimePolicy;
  #remembered = new RecentMap<Remembered>(rememberedMax);

  constructor(session: ClientSession, options: VolumeOptions) {
    this.session = session;
    this.id = options.volumeId;
    this.root = rootInode(this.id, session.maps.current.shards);
    this.#readOnly = options.readOnly ?? false;
    this.#policy = options.accessTimes ?? { atime: "relatime", noDirectories: false };
  }

  /** What a read of a file or symbolic link says of its atime. */
  accessTimes(options: { noAtime?: boolean } = {}): number {
    return options.noAtime || this.readOnly ? accessTimes.never : numberOfPolicy[this.#policy.atime];
  }

  /** What the listing of a directory says of its atime. */
  directoryAccessTimes(options: { noAtime?: boolean } = {}): number {
    return this.#policy.noDirectories ? accessTimes.never : this.accessTimes(options);
  }

  /** By the mount's wish or the volume's setting. */
  get readOnly(): boolean {
    return this.#readOnly || (this.session.maps.volume(this.id)?.readOnly ?? false);
  }

  /** ESTALE when the volume is gone, else 0. */
  get gone(): number {
    return this.session.maps.volume(this.id)?.state === volumeState.live ? 0 : E.STALE;
  }

  /** ESTALE when the volume is gone, EROFS when it must not be changed, else 0. */
  get unwritable(): number {
    return this.gone || (this.readOnly ? E.ROFS : 0);
  }

  /** EIO when programs hold the inode open since before the session died, else 0. */
  staleness(inode: number): number {
    return this.session.opens.isStale(inode) ? E.IO : 0;
  }

  /** Asks the shard of an inode; ESTALE for a number that no inode has. */
  reply<Q, R>(message: Message<Q, R>, inode: number, body: Q, options?: CallOptions): Task<Reply<R>> {
    const shard = shardOf(inode);
    if (!Number.isSafeInteger(inode) || inode <= 0 || shard >= this.session.maps.current.shards) return noInode();
    return this.session.caller.call(message, { shard }, body, options);
  }

  /** As {@linkcode reply}, for those who need the body alone, or the errno. */
  *ask<Q, R extends object>(message: Message<Q, R>, inode: number, body: Q, options?: CallOptions): Task<Result<R>> {
    const reply = yield* this.reply(message, inode, body, options);
    return reply.status === 0 ? reply.body! : errnoOf(reply.status);
  }

  /** Attributes of an inode: from under a lease, else GETATTR. */
  *attributes(inode: number): Task<Result<Attributes>> {
    return this.session.leases.attributes(inode) ?? (yield* this.#fetch(inode));
  }

  *#fetch(inode: number): Task<Result<Attributes>> {
    const body = yield* this.ask(GETATTR, inode, { inode });
    return failed(body) ? body : this.seen(body.attributes);
  }

  /** Remembers what a write will need; returns its argument. */
  seen(attributes: Attributes): Attributes {
    const { inode, size, gen } = attributes;
    const known = this.#note(inode, size, gen);
    known.hint = hintOf(attributes);
    this.ghosts.seen(attributes);
    return attributes;
  }

  /** Last attributes of an inode of which its server says that it is gone; null when nothing is remembered. */
  ghost(inode: number): Attributes | null {
    if (inode === this.root) return null;
    const last = this.ghosts.find(inode) ?? this.#lastOf(inode);
    return last === null ? null : ghostOf(last);
  }

  /** A directory has been opened: it may be removed while it is. */
  hold(inode: number): void {
    this.ghosts.hold(inode, this.session.leases.attributes(inode) ?? this.#lastOf(inode));
  }

  #lastOf(inode: number): Attributes | null {
    return this.#remembered.get(inode)?.hint?.last ?? null;
  }

  /** The size that an answer gave last, and its gen; null when none did. */
  sizeSeen(inode: number): { size: number; gen: number } | null {
    const known = this.#remembered.get(inode);
    return known === undefined ? null : { size: known.size, gen: known.gen };
  }

  /** An answer has given a file's size. */
  noteSize(inode: number, size: number, gen: number): void {
    this.#note(inode, size, gen);
  }

  #note(inode: number, size: number, gen: number): Remembered {
    let known = this.#remembered.get(inode);
    if (known === undefined) this.#remembered.set(inode, known = { hint: null, size, gen });
    known.size = size;
    known.gen = gen;
    return known;
  }

  /** What is remembered of an inode, else what its shard says. */
  *hint(inode: number): Task<Result<WriteHint>> {
    const known = this.#remembered.get(inode)?.hint;
    if (known) return known;
    // Not from under a lease: a server may just have refused what was known.
    const attributes = yield* this.#fetch(inode);
    return failed(attributes) ? attributes : hintOf(attributes);
  }

  /** What is remembered of an inode is out of date. */
  forget(inode: number): void {
    const known = this.#remembered.get(inode);
    if (known !== undefined) known.hint = null;
  }
}

function hintOf(last: Attributes): WriteHint {
  return { gen: last.gen, volume: last.volume, far: (last.flags & inodeFlags.far) !== 0, last };
}

// deno-lint-ignore require-yield
function* noInode(): Task<Reply<never>> {
  return { status: E.STALE, dataLength: 0, server: 0, sends: 0 };
}
