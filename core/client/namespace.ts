/**
 * Names: lookup, create, mkdir, unlink, rmdir, rename, link, readlink. The shard of the directory does the work, in one
 * request; an inode that is far from its name costs a second one to read.
 *
 * @module
 */

import { E, failed, type Result } from "../errno.ts";
import { accessTimes } from "../meta/access_times.ts";
import { type Attributes, isRegular, S } from "../meta/attributes.ts";
import { targetBytesMax } from "../meta/layout.ts";
import { nameErrno } from "../meta/names.ts";
import { frozenErrno, keptErrno } from "../meta/protection.ts";
import {
  CREATE,
  LINK,
  LOOKUP,
  MKDIR,
  OPEN,
  READDIR,
  READLINK,
  RENAME,
  RMDIR,
  TMPFILE,
  UNLINK,
} from "../protocol/messages.ts";
import type { Task } from "../task.ts";
import { setAttributes } from "./attributes.ts";
import { type Caller, type CreateOptions, type Done, done, renameFlags, type Writing } from "./filesystem.ts";
import { absent } from "./lease_cache.ts";
import { errnoOf, type Volume } from "./volume.ts";

/** A name whose inode is gone when it is asked for is looked up again this often. */
const lookupsMax = 4;
/** Longest list of names that is asked for unasked. */
const listBytes = 256 * 1024;
const permissionBits = 0o7777;
const dtReg = S.IFREG >>> 12, dtDir = S.IFDIR >>> 12;
const none = new Uint8Array(0);

/** True for the errno of an inode that is no more. */
export function isGone(errno: number): boolean {
  return errno === E.NOENT || errno === E.STALE;
}

/** LOOKUP, and GETATTR when the inode is far; under a lease what is known already. */
export function* lookup(volume: Volume, dir: number, name: Uint8Array): Task<Result<Attributes>> {
  const errno = nameErrno(name);
  if (errno !== 0) return errno;
  const known = volume.session.leases.name(dir, name);
  if (known === absent) return E.NOENT;
  if (known !== undefined) {
    const attributes = yield* volume.attributes(known);
    if (!failed(attributes) || !isGone(attributes)) return attributes;
  }
  for (let attempt = 0; attempt < lookupsMax; attempt++) {
    const found = yield* volume.ask(LOOKUP, dir, { dir, name });
    if (failed(found)) {
      if (found === E.NOENT) listAfterMisses(volume, dir);
      return found;
    }
    if (found.attributes !== null) return volume.seen(found.attributes);
    const attributes = yield* volume.attributes(found.inode);
    if (!failed(attributes) || !isGone(attributes)) return attributes;
  }
  return E.NOENT;
}

/** Learns all names of a directory when that will save more. The reply fills the lease cache; nobody waits for it. */
function listAfterMisses(volume: Volume, dir: number): void {
  const { leases, runtime } = volume.session;
  if (!leases.missed(dir)) return;
  const page = { dir, cookie: 0, limitBytes: listBytes, plus: false, accessTimes: accessTimes.never };
  runtime.scheduler.spawn(volume.ask(READDIR, dir, page));
}

/** The directory above. */
export function* parent(volume: Volume, dir: number): Task<Result<Attributes>> {
  const own = yield* volume.attributes(dir);
  if (failed(own)) return own;
  if ((own.mode & S.IFMT) !== S.IFDIR) return E.NOTDIR;
  return own.parent === dir ? own : yield* volume.attributes(own.parent);
}

/** Files of every kind but directories. */
export function* create(
  volume: Volume,
  dir: number,
  name: Uint8Array,
  options: CreateOptions,
  caller: Caller,
): Task<Result<Attributes>> {
  const type = (options.mode & S.IFMT) || S.IFREG, target = options.target ?? none;
  const errno = nameErrno(name) || targetErrno(type, options.target);
  if (errno !== 0) return errno;
  if (type === S.IFDIR) return E.PERM;
  const mode = type | (options.mode & permissionBits);
  for (let attempt = 0; attempt < lookupsMax; attempt++) {
    const openId = options.open ? volume.session.opens.newId() : 0;
    const reply = yield* volume.reply(CREATE, dir, {
      dir,
      name,
      mode,
      umask: caller.umask,
      uid: caller.uid,
      gid: caller.gid,
      rdev: options.rdev ?? 0,
      target,
      exclusive: options.exclusive,
      openId,
      truncate: options.truncate ?? false,
    });
    if (reply.status !== 0) return errnoOf(reply.status);
    const { inode, type: found, attributes } = reply.body!;
    if (options.open && found !== dtReg) return found === dtDir ? E.ISDIR : E.EXIST;
    if (attributes === null) {
      const far = yield* options.open ? open(volume, inode, options) : volume.attributes(inode);
      if (!failed(far) || !isGone(far)) return far;
      continue;
    }
    volume.seen(attributes);
    if (options.open) volume.session.opens.adopt(inode, openId);
    if (options.open && !reply.body!.created && writingErrno(attributes, options.writing) !== 0) {
      volume.session.opens.close(inode);
      return E.PERM;
    }
    if (reply.body!.created || !killsSetId(options, attributes)) return attributes;
    const cleared = yield* setAttributes(volume, inode, { killSetId: true });
    if (failed(cleared) && options.open) volume.session.opens.close(inode);
    return cleared;
  }
  return E.NOENT;
}

/** TMPFILE. */
export function* createUnnamed(
  volume: Volume,
  dir: number,
  options: { mode: number; linkable: boolean },
  caller: Caller,
): Task<Result<Attributes>> {
  const { opens } = volume.session, openId = opens.newId(), { uid, gid, umask } = caller;
  const mode = S.IFREG | (options.mode & permissionBits);
  const made = yield* volume.ask(TMPFILE, dir, { dir, mode, umask, uid, gid, openId, linkable: options.linkable });
  if (failed(made)) return made;
  opens.adopt(made.attributes.inode, openId);
  return volume.seen(made.attributes);
}

/** EPERM for an open that is to write what its protection lets nobody write; else 0. */
function writingErrno(file: Attributes, writing: Writing | undefined): number {
  if (writing === undefined) return 0;
  return writing === "end" ? frozenErrno(file) : keptErrno(file);
}

/** True when the truncation of an open takes setuid or setgid away. */
function killsSetId(options: { truncate?: boolean; killSetId?: boolean }, file: Attributes): boolean {
  return (options.truncate ?? false) && (options.killSetId ?? false) && (file.mode & (S.ISUID | S.ISGID)) !== 0;
}

function targetErrno(type: number, target: Uint8Array | undefined): number {
  if (type !== S.IFLNK) return target === undefined ? 0 : E.INVAL;
  if (target === undefined || target.length === 0) return E.NOENT;
  if (target.length > targetBytesMax) return E.NAMETOOLONG;
  return target.includes(0) ? E.INVAL : 0;
}

/**
 * Opens a file under a lease, which the server is told later; null: it has to be asked. Who may open a file that chattr
 * protects depends on how it is opened: there the server is asked, too.
 */
export function openKnown(volume: Volume, inode: number): Attributes | null {
  const { opens, leases } = volume.session, known = leases.attributes(inode);
  if (known === null || !isRegular(known.mode) || keptErrno(known) !== 0) return null;
  return opens.lend(inode, leases.validityMs(known)) ? known : null;
}

/** Opens: under a lease without a word to the server, else OPEN; with `truncate` the file is cut to nothing, which also moves its times when it was empty. */
export function* open(
  volume: Volume,
  inode: number,
  options: { truncate?: boolean; killSetId?: boolean; writing?: Writing },
): Task<Result<Attributes>> {
  const { opens } = volume.session, known = options.truncate ? null : openKnown(volume, inode);
  if (known !== null) return known;
  const reply = yield* volume.ask(OPEN, inode, { inode, openId: opens.begin(inode) });
  if (failed(reply)) {
    opens.ended(inode);
    return reply;
  }
  opens.opened(inode);
  const refused = writingErrno(reply.attributes, options.writing);
  if (refused !== 0) {
    opens.close(inode);
    return refused;
  }
  if (!options.truncate) return volume.seen(reply.attributes);
  const cut = yield* setAttributes(volume, inode, { size: 0, killSetId: options.killSetId });
  if (failed(cut)) opens.close(inode);
  return cut;
}

/** MKDIR. */
export function* makeDirectory(
  volume: Volume,
  dir: number,
  name: Uint8Array,
  mode: number,
  caller: Caller,
): Task<Result<Attributes>> {
  const errno = nameErrno(name);
  if (errno !== 0) return errno;
  const bits = S.IFDIR | (mode & permissionBits), { umask, uid, gid } = caller;
  const made = yield* volume.ask(MKDIR, dir, { dir, name, mode: bits, umask, uid, gid });
  return failed(made) ? made : volume.seen(made.attributes);
}

/** UNLINK. */
export function* unlink(volume: Volume, dir: number, name: Uint8Array): Task<Done> {
  const errno = nameErrno(name);
  if (errno !== 0) return errno;
  const removed = yield* removing(volume, { dir, name }, volume.ask(UNLINK, dir, { dir, name }));
  return removal(volume, removed);
}

/** RMDIR. */
export function* removeDirectory(volume: Volume, dir: number, name: Uint8Array): Task<Done> {
  return nameErrno(name) || removal(volume, yield* volume.ask(RMDIR, dir, { dir, name }));
}

/** RENAME. EINVAL for flags that are not offered. */
export function* rename(
  volume: Volume,
  from: { dir: number; name: Uint8Array },
  to: { dir: number; name: Uint8Array },
  flags: number,
): Task<Done> {
  const errno = nameErrno(from.name) || nameErrno(to.name);
  if (errno !== 0) return errno;
  if (flags !== 0 && flags !== renameFlags.noReplace && flags !== renameFlags.exchange) return E.INVAL;
  const body = { dir: from.dir, name: from.name, newDir: to.dir, newName: to.name, flags };
  return removal(volume, yield* removing(volume, to, volume.ask(RENAME, from.dir, body)));
}

/**
 * Sends a request that may remove the last name of what is there at `at` (null: of anything) once the server knows
 * whether this session has it open.
 */
export function* removing<T>(
  volume: Volume,
  at: { dir: number; name: Uint8Array } | null,
  request: Task<T>,
): Task<T> {
  const { opens, leases } = volume.session;
  opens.beginRemoval();
  if (opens.untold > 0) {
    const inode = at === null ? undefined : leases.name(at.dir, at.name);
    if (inode === undefined) yield* opens.tellAll();
    else {
      const telling = opens.tell(inode);
      if (telling !== null) yield* telling;
    }
  }
  const answer = yield* request;
  opens.endRemoval();
  return answer;
}

/** LINK. */
export function* link(volume: Volume, inode: number, dir: number, name: Uint8Array): Task<Result<Attributes>> {
  const errno = nameErrno(name);
  if (errno !== 0) return errno;
  const linked = yield* volume.ask(LINK, dir, { inode, dir, name });
  return failed(linked) ? linked : volume.seen(linked.attributes);
}

/** READLINK, also of a link that was removed here. */
export function* readLink(volume: Volume, inode: number): Task<Result<Uint8Array>> {
  const found = yield* volume.ask(READLINK, inode, { inode, accessTimes: volume.accessTimes() });
  if (found === E.STALE) return volume.ghosts.target(inode) ?? found;
  return failed(found) ? found : found.target;
}

/** The end of a removal: what has lost its last name may still be held by programs. */
function removal(volume: Volume, answer: Result<{ gone: Attributes | null; target: Uint8Array }>): Done {
  if (failed(answer)) return answer;
  if (answer.gone !== null) volume.ghosts.removed(answer.gone, answer.target);
  return done;
}

/** An answer without content. */
export function finished(answer: Result<object>): Done {
  return failed(answer) ? answer : done;
}
