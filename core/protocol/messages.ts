/**
 * Every message between clients and servers and between servers: number, bodies, and whether it changes anything.
 * A mutation carries (session, slot, sequence) and its outcome is stored with its effect, so that a retry gets the
 * same answer. "Store" messages go to a store as a whole (head.shard = noShard), the others to one shard.
 *
 * @module
 */

import {
  array,
  bool,
  bytes,
  type Codec,
  double,
  optional,
  shortBytes,
  struct,
  text,
  time,
  u16,
  u32,
  u53,
  u63,
  u8,
} from "./codec.ts";
import { attributes as storedAttributes, readAttributes } from "../meta/layout.ts";
import type { Attributes } from "../meta/attributes.ts";

/** Attributes on the wire: the inode number, then the stored layout. */
export const attributes: Codec<Attributes> = {
  write(writer, value) {
    writer.u53(value.inode);
    storedAttributes.write(writer, value);
  },
  read: (reader) => readAttributes(reader, reader.u53()),
};

const nothing = struct({});
const name = shortBytes;
const withAttributes = struct({ attributes });
const inodeOnly = struct({ inode: u53 });
/** What a removal has ended: attributes of the inode that lost its last name, and a symbolic link's target. */
const removed = struct({ gone: optional(attributes), target: shortBytes });

/** A lock on the wire. type: 0 read, 1 write, 2 unlock. */
export const lock = struct({
  flock: bool,
  type: u8,
  ownerLow: u32,
  ownerHigh: u32,
  pid: u32,
  start: u63,
  end: u63,
});

/** One entry of a directory page. */
export const directoryEntry = struct({ name, inode: u53, type: u8, cookie: u53, attributes: optional(attributes) });

/** What a message type is. */
// deno-lint-ignore no-explicit-any
export interface Message<Q = any, R = any> {
  readonly type: number;
  readonly name: string;
  readonly request: Codec<Q>;
  readonly reply: Codec<R>;
  /** Needs a slot: executed at most once. */
  readonly mutation: boolean;
}

/** By type. */
const registry: (Message | undefined)[] = [];

function message<Q, R>(
  type: number,
  name: string,
  request: Codec<Q>,
  reply: Codec<R>,
  mutation = false,
): Message<Q, R> {
  const made = { type, name, request, reply, mutation };
  if (registry[type] !== undefined) throw new Error(`message type ${type} twice`);
  registry[type] = made;
  return made;
}

/** The message of a type number, or undefined. */
export function messageOf(type: number): Message | undefined {
  return registry[type];
}

/** Zero of `blocksDelta` in WRITE_CHUNK's reply and in PUBLISH: it is sent as an unsigned number. */
export const blocksBias = 2 ** 31;

/** Bits of SETATTR's `valid`. */
export const setattrValid = {
  mode: 1,
  uid: 2,
  gid: 4,
  size: 8,
  atime: 16,
  mtime: 32,
  ctime: 64,
  atimeNow: 128,
  mtimeNow: 256,
  killSetId: 512,
  setImmutable: 1024,
  clearImmutable: 2048,
  setAppendOnly: 4096,
  clearAppendOnly: 8192,
} as const;

/** `kind` in HELLO. */
export const peerKind = { client: 1, server: 2, admin: 3 } as const;

export const HELLO = message(
  1,
  "HELLO",
  struct({
    version: u16,
    clusterId: text,
    /** {@linkcode peerKind}. */
    kind: u8,
    session: u53,
    /** The store (reactor) of the server that is meant. */
    store: u16,
    serverId: u32,
    /** 16 random bytes; the reply proves the secret over it. */
    nonce: shortBytes,
  }),
  struct({
    version: u16,
    serverId: u32,
    /** Changes with every start of the store: a client that sees a new one claims its opens and locks again. */
    incarnation: u53,
    nonce: shortBytes,
    /** HMAC-SHA256(secret, "server" + client nonce + server nonce), empty without a secret. */
    proof: shortBytes,
  }),
);
/** The client's proof; nothing else is served before it. */
export const PROVE = message(2, "PROVE", struct({ proof: shortBytes }), nothing);
export const PING = message(3, "PING", nothing, nothing);
/** After HELLO to a new incarnation: what this session holds on that store. Ends the store's grace for the session. */
export const RECLAIM = message(
  4,
  "RECLAIM",
  struct({
    opens: array(struct({ inode: u53, openId: u53 })),
    locks: array(struct({ inode: u53, lock })),
    /** CREATEs that open a file and have no answer yet: what they made is open, though the session cannot name it. */
    creating: array(struct({ shard: u16, slot: u16, sequence: u53 })),
    /** False when more RECLAIM messages follow. */
    last: bool,
  }),
  nothing,
);
/**
 * To a shard, in the slot of a mutation that was given up, with a higher sequence: does nothing, but once it is answered
 * the older request can no longer take effect there, so that the slot is good for another.
 */
export const FENCE = message(5, "FENCE", nothing, nothing, true);

export const LOOKUP = message(
  16,
  "LOOKUP",
  struct({ dir: u53, name }),
  /** Attributes are absent when the inode is far: ask its shard. */
  struct({ inode: u53, type: u8, attributes: optional(attributes) }),
);
export const GETATTR = message(17, "GETATTR", inodeOnly, withAttributes);
/** Store message: attributes of inodes of any of the store's shards; absent = gone. */
export const GETATTRS = message(
  18,
  "GETATTRS",
  struct({ inodes: array(u53, 4096) }),
  struct({ found: array(optional(attributes), 4096) }),
);
/** Any change of attributes, size included (then a truncation, which may be an intent). */
export const SETATTR = message(
  19,
  "SETATTR",
  struct({ inode: u53, valid: u16, mode: u32, uid: u32, gid: u32, size: u53, atime: time, mtime: time, ctime: time }),
  withAttributes,
  true,
);
export const CREATE = message(
  20,
  "CREATE",
  struct({
    dir: u53,
    name,
    /** As the program asked for it: `umask` is taken off it unless the directory has a default ACL. */
    mode: u32,
    umask: u16,
    uid: u32,
    gid: u32,
    rdev: u32,
    target: shortBytes,
    exclusive: bool,
    /** Non-zero: register an open with this id. */
    openId: u53,
    truncate: bool,
  }),
  /** `created` false: it was there. Attributes absent: it is far, and was not opened: send OPEN to its shard. */
  struct({ created: bool, inode: u53, type: u8, attributes: optional(attributes) }),
  true,
);
/** A regular file without a name, open with this id; `linkable`: LINK may name it. */
export const TMPFILE = message(
  28,
  "TMPFILE",
  struct({ dir: u53, mode: u32, umask: u16, uid: u32, gid: u32, openId: u53, linkable: bool }),
  withAttributes,
  true,
);
export const MKDIR = message(
  21,
  "MKDIR",
  struct({ dir: u53, name, mode: u32, umask: u16, uid: u32, gid: u32 }),
  withAttributes,
  true,
);
export const UNLINK = message(22, "UNLINK", struct({ dir: u53, name }), removed, true);
export const RMDIR = message(23, "RMDIR", struct({ dir: u53, name }), removed, true);
/** To the shard of the source's directory. */
export const RENAME = message(
  24,
  "RENAME",
  struct({ dir: u53, name, newDir: u53, newName: name, flags: u32 }),
  removed,
  true,
);
/** To the shard of the new dentry's directory. */
export const LINK = message(25, "LINK", struct({ inode: u53, dir: u53, name }), withAttributes, true);
/**
 * `accessTimes` here and below: when to move the atime ({@linkcode accessTimes} of core/meta/access_times.ts); `moved`:
 * it has, so that what the session knew of it is void.
 */
export const READLINK = message(
  26,
  "READLINK",
  struct({ inode: u53, accessTimes: u8 }),
  struct({ target: shortBytes, moved: bool }),
);
export const READDIR = message(
  27,
  "READDIR",
  struct({ dir: u53, cookie: u53, limitBytes: u32, plus: bool, accessTimes: u8 }),
  /** Attributes of near inodes when `plus`. `end`: nothing follows. */
  struct({ entries: array(directoryEntry, 8192), end: bool, moved: bool }),
);

/**
 * Removes files of a directory by the hundred, after `cookie`: those whose inodes are near and that nobody is changing.
 * With `owner` only those of that user (a sticky directory). `left`: what it has passed over, for the asker to deal with
 * one by one. What is open lives on without a name, as after UNLINK.
 */
export const CLEAR = message(
  30,
  "CLEAR",
  struct({ dir: u53, cookie: u53, owner: optional(u32) }),
  struct({
    removed: u32,
    left: array(struct({ name, inode: u53, type: u8 }), 256),
    cookie: u53,
    end: bool,
  }),
  true,
);
/**
 * Sums up a directory's entries after `cookie`, a page at a time. `files`, `bytes` and `blocks` are of near inodes with
 * one name that are no directories; `dirs` are for the asker to go on with, `far` inodes to be asked for, `linked` those
 * with several names, to be counted once.
 */
export const TALLY = message(
  31,
  "TALLY",
  struct({ dir: u53, cookie: u53 }),
  struct({
    directory: attributes,
    files: u32,
    bytes: u53,
    blocks: u53,
    dirs: array(struct({ name, inode: u53 }), 1024),
    far: array(u53, 1024),
    linked: array(struct({ inode: u53, nlink: u32, bytes: u53, blocks: u53 }), 1024),
    cookie: u53,
    end: bool,
  }),
);

/** `openId` ascends in a session; the last one counts. Truncation makes it a truncating SETATTR as well. */
export const OPEN = message(32, "OPEN", struct({ inode: u53, openId: u53 }), withAttributes);
/** Store message: ends opens whose id is not above the one given. */
export const RELEASE = message(
  33,
  "RELEASE",
  struct({ closes: array(struct({ inode: u53, openId: u53 }), 4096) }),
  nothing,
);
/**
 * Reads within chunk 0. The data is short only where the file ends; `size`, `version` and `gen` as of the read. It waits
 * for a truncation under way that leads to the `gen` asked for (0: to any).
 */
export const READ = message(
  34,
  "READ",
  struct({ inode: u53, offset: u53, length: u32, gen: u53, accessTimes: u8 }),
  struct({ size: u53, version: u53, gen: u53, moved: bool }),
);
/**
 * Reads within a chunk > 0, on its shard. Data short = zeros follow. `floor`: the gen of the last truncation that has
 * come here; a size of an older gen is not the size of these bytes.
 */
export const READ_CHUNK = message(
  35,
  "READ_CHUNK",
  struct({ inode: u53, chunk: u32, offset: u32, length: u32 }),
  struct({ floor: u53 }),
);
/** What a write has made of its file: fields of the attributes. */
const written = { size: u53, blocks: u53, mtime: time, version: u53 };
/** What a write has put into chunks > 0, as PUBLISH has it. */
const farPart = struct({ gen: u53, size: u53, blocksDelta: u32, servers: array(u32, 256) });
/**
 * Writes the frame's data within chunk 0, and publishes size and times in the same record. `far`: what the same write
 * has put into chunks > 0 before, as in PUBLISH, published in that record too: nobody sees a part of a write.
 */
export const WRITE = message(
  36,
  "WRITE",
  struct({
    inode: u53,
    offset: u53,
    killSetId: bool,
    far: optional(farPart),
  }),
  struct(written),
  true,
);
/** Writes the frame's data within a chunk > 0. `blocksDelta`: change of allocated 512-byte units, + 2^31. */
export const WRITE_CHUNK = message(
  37,
  "WRITE_CHUNK",
  struct({ inode: u53, volume: u32, gen: u53, chunk: u32, offset: u32 }),
  struct({ blocksDelta: u32 }),
  true,
);
/** Gives room to the holes of a range within a chunk > 0: they take space, so that writing there needs none. */
export const RESERVE_CHUNK = message(
  47,
  "RESERVE_CHUNK",
  struct({ inode: u53, volume: u32, gen: u53, chunk: u32, offset: u32, length: u32 }),
  struct({ blocksDelta: u32 }),
  true,
);
/** After WRITE_CHUNK and RESERVE_CHUNK: size becomes at least `size`, times move on. `servers`: ids written (for fsync). */
export const PUBLISH = message(
  38,
  "PUBLISH",
  struct({ inode: u53, gen: u53, size: u53, blocksDelta: u32, servers: array(u32, 256), killSetId: bool }),
  struct(written),
  true,
);
/** Appends the frame's data at the end of the file. */
export const APPEND = message(
  39,
  "APPEND",
  struct({ inode: u53, killSetId: bool }),
  struct({ offset: u53, ...written }),
  true,
);
/**
 * fallocate on the inode's shard: checks, size, and what concerns chunk 0. Punching and zeroing far chunks is its work,
 * room for their holes has been made by the client before.
 */
export const FALLOCATE = message(
  40,
  "FALLOCATE",
  struct({ inode: u53, mode: u32, offset: u53, length: u53, killSetId: bool }),
  nothing,
  true,
);
/** Within one chunk (chunk 0 included, inline too): first data or hole at or after `offset`; 2^32-1 = none in the chunk. */
export const SEEK_CHUNK = message(
  41,
  "SEEK_CHUNK",
  struct({ inode: u53, chunk: u32, offset: u32, hole: bool }),
  struct({ offset: u32 }),
);
/** Store message: lowest data offset >= `offset` in chunks > 0 of this store; 2^53-1 = none. */
export const NEXT_DATA = message(42, "NEXT_DATA", struct({ inode: u53, offset: u53 }), struct({ offset: u53 }));
/** Makes an inode, its dentry, its ancestors and its data on all servers durable. */
export const FSYNC = message(43, "FSYNC", inodeOnly, nothing);

/** Where a copy begins to read: a place in one chunk of a file, whose size was learnt with `gen`. */
const copySource = struct({ inode: u53, chunk: u32, offset: u32, gen: u53 });
/**
 * To the target inode's shard: copies within its chunk 0, as WRITE, from wherever the source's chunk is. Holes stay holes.
 * EAGAIN, and nothing is done, when the source has been truncated since its size was learnt.
 */
export const COPY = message(
  44,
  "COPY",
  struct({ inode: u53, offset: u32, length: u32, source: copySource, killSetId: bool, far: optional(farPart) }),
  struct(written),
  true,
);
/** As WRITE_CHUNK, with what the target's server fetches itself in place of the frame's data. EAGAIN as for COPY. */
export const COPY_CHUNK = message(
  45,
  "COPY_CHUNK",
  struct({ inode: u53, volume: u32, gen: u53, chunk: u32, offset: u32, length: u32, source: copySource }),
  struct({ blocksDelta: u32 }),
  true,
);
/**
 * Between servers: bytes of one chunk, chunk 0 included, zeros where nothing is; no data when there is nothing at all.
 * `map`: a bit for each granule of the chunk, lowest first, 1 where it has data. `size` and `gen`: of the file, for chunk 0; for the others the size
 * is 0 and the gen that of the last truncation that has come to the chunk's shard.
 */
export const FETCH = message(
  46,
  "FETCH",
  struct({ inode: u53, chunk: u32, offset: u32, length: u32 }),
  struct({ size: u53, gen: u53, map: shortBytes }),
);

export const GETXATTR = message(48, "GETXATTR", struct({ inode: u53, name }), struct({ value: bytes }));
export const SETXATTR = message(49, "SETXATTR", struct({ inode: u53, name, value: bytes, flags: u32 }), nothing, true);
export const LISTXATTR = message(50, "LISTXATTR", inodeOnly, struct({ names: bytes }));
export const REMOVEXATTR = message(51, "REMOVEXATTR", struct({ inode: u53, name }), nothing, true);

/** The lock that blocks, of any session, and whose it is; `lock` as an unlock when nothing does. */
export const TESTLOCK = message(56, "TESTLOCK", struct({ inode: u53, lock }), struct({ lock, session: u53 }));
/**
 * Sets or removes a lock. `ticket` 0: EAGAIN when it conflicts. Else it waits: answer EAGAIN now, a GRANTED push with
 * the ticket later. Asking again for what one holds, or waits for with the same ticket, is harmless. EDEADLK.
 *
 * `order` in this and the next two ascends in a session; of one owner on one inode only one is under way at a time. What
 * comes again is answered as before; what comes after a higher one was given up: it has no effect (ECANCELED).
 */
export const SETLOCK = message(57, "SETLOCK", struct({ inode: u53, lock, ticket: u53, order: u53 }), nothing);
/** Ends a wait of the owner of `lock`. `granted` true: it had been granted in the meantime, or is not known here. */
export const CANCELLOCK = message(
  58,
  "CANCELLOCK",
  struct({ inode: u53, lock, ticket: u53, order: u53 }),
  struct({ granted: bool }),
);
/** Drops everything that the owner of `lock` holds of that kind on the inode. */
export const DROPLOCKS = message(59, "DROPLOCKS", struct({ inode: u53, lock, order: u53 }), nothing);
/** Push from a server (frameFlags.push, no answer): a waiting lock is granted. */
export const GRANTED = message(60, "GRANTED", struct({ inode: u53, ticket: u53 }), nothing);

/** Push from a server: somebody wants to change an inode. What the session knows of it is void; answer with RETURN. */
export const RECALL = message(61, "RECALL", struct({ inode: u53, grant: u53 }), nothing);
/** Store message: the session no longer uses what it knew of an inode. `grant` of the recall: a late duplicate ends no newer lease. Inode 0: of all. */
export const RETURN = message(62, "RETURN", struct({ inode: u53, grant: u53 }), nothing);
const lockOwner = struct({ session: u53, ownerLow: u32, ownerHigh: u32 });
/** Store message between servers: for which fcntl locks these owners wait in this store, and who keeps them waiting. */
export const LOCK_WAITS = message(
  63,
  "LOCK_WAITS",
  struct({ owners: array(lockOwner, 1024) }),
  struct({
    waits: array(struct({ owner: lockOwner, inode: u53, ticket: u53, blockers: array(lockOwner, 4096) }), 4096),
  }),
);

/** Store message. */
export const STATFS = message(
  64,
  "STATFS",
  struct({ volume: u32 }),
  /** Used by the volume in this store; free and total bytes of the store's container. */
  struct({ usedBytes: u53, inodes: u53, freeBytes: u53, totalBytes: u53 }),
);

/** A step of an intent (core/meta/intent.ts), on the participant's shard. `action` and `outcome` by their codecs. */
export const STEP = message(
  80,
  "STEP",
  struct({
    driverShard: u16,
    n: u53,
    step: u8,
    /** Lowest unfinished intent of the driver: what is below is forgotten and refused. */
    lowest: u53,
    intent: bytes,
    action: bytes,
  }),
  struct({ errno: u32, outcome: bytes }),
  true,
);
/** Store message: lowest unfinished intent of each of these shards; 0 for one that is not this store's. */
export const LOWEST = message(
  86,
  "LOWEST",
  struct({ shards: array(u16, 4096) }),
  struct({ lowest: array(u53, 4096) }),
);
/**
 * Store message: removes data of an inode in [start, end) from chunks > 0 in all shards of this store and sets their
 * floor to `gen` when `floor`. `end` 2^53-1 = to the end. With `forget` floors are removed too. Idempotent.
 */
export const CUT = message(
  81,
  "CUT",
  struct({ inode: u53, gen: u53, start: u53, end: u53, floor: bool, forget: bool, room: bool }),
  /** Blocks that the inode's chunks > 0 still have in this store. */
  struct({ leftBlocks: u53 }),
);
/** Store message: everything acknowledged by this store is durable when it answers. */
export const SYNC_STORE = message(82, "SYNC_STORE", nothing, nothing);
/** On the directory's shard: it and its ancestors are durable when it answers. */
export const SYNC_UP = message(83, "SYNC_UP", inodeOnly, nothing);
/**
 * On the shard of the volume's root: server `server` uses `usedBytes`/`usedInodes` and wants its credit to be at
 * least that much more. Answers its credit from now on.
 */
export const CREDIT = message(
  84,
  "CREDIT",
  struct({ volume: u32, server: u32, store: u16, usedBytes: u53, usedInodes: u53, wantBytes: u53, wantInodes: u53 }),
  struct({ bytes: u53, inodes: u53 }),
);
/** Store message: give back unused credit of a volume; answers what is kept. */
export const CREDIT_RECALL = message(85, "CREDIT_RECALL", struct({ volume: u32 }), struct({ bytes: u53, inodes: u53 }));

/** For the check command: raw records of a shard from key `from` on. */
export const SCAN = message(
  96,
  "SCAN",
  struct({ from: bytes, limitBytes: u32 }),
  struct({ records: array(struct({ key: bytes, value: bytes })), end: bool }),
);
/** Reads and checks the data of a chunk: numbers of granules whose checksum is wrong. */
export const VERIFY_CHUNK = message(
  97,
  "VERIFY_CHUNK",
  struct({ inode: u53, chunk: u32 }),
  struct({ bad: array(u16, 256) }),
);
/**
 * Applies raw changes in one record if each key still has the value given (absent = no such key); EAGAIN if not, EBUSY
 * while something of it is in use. `charges` are added to the usage of volumes in the shard (whole numbers; ERANGE if it
 * would be negative); the changes alone charge nothing.
 */
export const REPAIR = message(
  98,
  "REPAIR",
  struct({
    changes: array(struct({ key: bytes, expected: optional(bytes), value: optional(bytes) }), 1024),
    charges: array(struct({ volume: u32, bytesDelta: double, inodesDelta: double }), 256),
  }),
  nothing,
  true,
);
/**
 * What the shard is busy with: intents under way, inodes open in sessions, its log position (which moves with every
 * change), and what it has charged to volumes. `grace`: some session has not said yet what it has open.
 */
export const SHARD_STATUS = message(
  99,
  "SHARD_STATUS",
  nothing,
  struct({
    intents: u32,
    position: u53,
    opens: array(u53),
    grace: bool,
    usage: array(struct({ volume: u32, bytes: u53, inodes: u53 })),
  }),
);
/** What an inode's shard knows of it besides its attributes. Lists are cut off at their limits. */
export const INODE_STATUS = message(
  100,
  "INODE_STATUS",
  inodeOnly,
  struct({
    attributes,
    /** It has no name any more, and lives because somebody has it open or it is being removed. */
    orphan: bool,
    /** Bytes of contents that live with the inode (inline, or the target of a symbolic link); 4 KiB blocks of chunk 0. */
    inlineBytes: u32,
    nearBlocks: u32,
    /** Sessions that have it open. */
    opens: array(u53, 1024),
    locks: array(struct({ session: u53, lock }), 1024),
    /** Sessions that hold a lease on it. */
    leases: array(u53, 1024),
    /** Its data or size is being changed at this moment. */
    busy: bool,
  }),
);
/** Store message: chunks > 0 of an inode in this store from number `from` on, and their 4 KiB blocks. */
export const CHUNKS = message(
  101,
  "CHUNKS",
  struct({ inode: u53, from: u32 }),
  struct({ chunks: array(struct({ chunk: u32, blocks: u32 }), 4096), end: bool }),
);
