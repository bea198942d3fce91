/**
 * Locks of one file in the model: what is held for certain, and what may be. Immutable values. An owner is a number that
 * no two actors share; flock and fcntl locks of one owner do not see each other.
 *
 * @module
 */

/** A lock of the model; `end` is the last byte. */
export interface HeldLock {
  client: number;
  owner: number;
  flock: boolean;
  write: boolean;
  start: number;
  end: number;
}

/** A lock that may be there: its request ended without a certain answer, or its owner is dead. */
export interface Ghost extends HeldLock {
  /** It goes by itself: nothing is left of it once all is quiet. */
  fading: boolean;
}

/** Locks of a file. */
export interface Locks {
  held: readonly HeldLock[];
  ghosts: readonly Ghost[];
}

export const noLocks: Locks = { held: [], ghosts: [] };

/** True when the locks cannot both be held, if they are of two owners. */
export function clash(a: HeldLock, b: HeldLock): boolean {
  return a.flock === b.flock && (a.write || b.write) && a.start <= b.end && b.start <= a.end;
}

/** What somebody else holds for certain and keeps `wanted` from being granted. */
export function blockers({ held }: Locks, wanted: HeldLock): HeldLock[] {
  return held.filter((one) => one.owner !== wanted.owner && clash(one, wanted));
}

/** True when `wanted` may be refused for a conflict. */
export function mayBeBlocked(locks: Locks, wanted: HeldLock): boolean {
  return blockers(locks, wanted).length > 0 ||
    locks.ghosts.some((one) => (one.owner !== wanted.owner || one.fading) && clash(one, wanted));
}

function cutOut<T extends HeldLock>(locks: readonly T[], part: HeldLock, isOwn: (one: T) => boolean): T[] {
  const out: T[] = [];
  for (const one of locks) {
    if (!isOwn(one) || one.flock !== part.flock || one.start > part.end || part.start > one.end) out.push(one);
    else {
      if (one.start < part.start) out.push({ ...one, end: part.start - 1 });
      if (one.end > part.end) out.push({ ...one, start: part.end + 1 });
    }
  }
  return out;
}

/** The owner holds nothing in the range any more. */
export function unlocked(locks: Locks, part: HeldLock): Locks {
  const held = cutOut(locks.held, part, (one) => one.owner === part.owner);
  const ghosts = cutOut(locks.ghosts, part, (one) => one.owner === part.owner && !one.fading);
  return { held: merged(held), ghosts };
}

/** The owner holds `lock`, instead of what it held in that range. */
export function locked(locks: Locks, lock: HeldLock): Locks {
  const { held, ghosts } = unlocked(locks, lock);
  return { held: merged([...held, lock]), ghosts };
}

/** `lock` may be held, too. */
export function haunted(locks: Locks, lock: HeldLock, fading: boolean): Locks {
  return { held: locks.held, ghosts: sorted([...locks.ghosts, { ...lock, fading }]) };
}

/** What is held for certain in the range by the owner may be gone. */
export function loosened(locks: Locks, part: HeldLock): Locks {
  const own = locks.held.filter((one) => one.owner === part.owner && one.flock === part.flock);
  const { held } = unlocked(locks, part);
  return { held, ghosts: sorted([...locks.ghosts, ...own.map((one) => ({ ...one, fading: false }))]) };
}

/** A client is dead: what it holds goes, sooner or later. */
export function orphaned(locks: Locks, client: number): Locks {
  const lost = (one: HeldLock) => one.client === client;
  if (!locks.held.some(lost) && !locks.ghosts.some(lost)) return locks;
  const ghosts = [...locks.held.filter(lost), ...locks.ghosts.filter(lost)].map((one) => ({ ...one, fading: true }));
  return {
    held: locks.held.filter((one) => !lost(one)),
    ghosts: sorted([...locks.ghosts.filter((one) => !lost(one)), ...ghosts]),
  };
}

/** All is quiet: what goes by itself has gone. */
export function settled(locks: Locks): Locks {
  return locks.ghosts.length === 0 ? locks : { held: locks.held, ghosts: locks.ghosts.filter((one) => !one.fading) };
}

/** Ranges of one owner and kind that touch are one. */
function merged(held: readonly HeldLock[]): HeldLock[] {
  const out: HeldLock[] = [];
  for (const one of sorted(held)) {
    const last = out.findLast((other) =>
      other.owner === one.owner && other.flock === one.flock && other.write === one.write
    );
    if (last !== undefined && last.end + 1 >= one.start) {
      out[out.indexOf(last)] = { ...last, end: Math.max(last.end, one.end) };
    } else out.push(one);
  }
  return out;
}

function sorted<T extends HeldLock>(locks: readonly T[]): T[] {
  return [...new Map(locks.map((one) => [describeLock(one), one])).values()].sort((a, b) =>
    a.start - b.start || a.owner - b.owner || describeLock(a).localeCompare(describeLock(b))
  );
}

function describeLock(lock: HeldLock | Ghost): string {
  const fading = "fading" in lock ? lock.fading ? "~" : "?" : "";
  return `${fading}${lock.flock ? "f" : "p"}${
    lock.write ? "w" : "r"
  }${lock.owner}@${lock.client}:${lock.start}-${lock.end}`;
}

/** Equal for equal locks. */
export function describeLocks({ held, ghosts }: Locks): string {
  return [...held, ...ghosts].map(describeLock).join(",");
}
