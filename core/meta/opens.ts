/**
 * Who has which inode open. In memory: after a start each session claims again what it holds (RECLAIM), and until all
 * sessions that the store remembers have done so, or are dead, nothing that might be open is deleted ("grace").
 *
 * @module
 */

/** Closes remembered a session, so that a late duplicate of an OPEN does not open again. */
const releasedMax = 1024;

/** Open inodes of a store. */
export class Opens {
  /** Inode -> session -> highest open id. */
  #byInode = new Map<number, Map<number, number>>();
  #bySession = new Map<number, Set<number>>();
  /** Session -> inode -> highest open id that was closed. */
  #released = new Map<number, Map<number, number>>();
  /** Sessions that have not claimed yet. */
  #awaited = new Set<number>();
  /** Inodes that may have been opened without anybody knowing yet, and how many requests say so. */
  #doubtful = new Map<number, number>();

  /** Begins grace: these sessions are waited for. */
  await(sessions: Iterable<number>): void {
    for (const session of sessions) this.#awaited.add(session);
  }

  /** True while some session has not claimed what it holds. */
  get grace(): boolean {
    return this.#awaited.size > 0;
  }

  /** Sessions still waited for. */
  get awaited(): ReadonlySet<number> {
    return this.#awaited;
  }

  /** The session has claimed, or is dead. True when that ended the grace. */
  claimed(session: number): boolean {
    return this.#awaited.delete(session) && this.#awaited.size === 0;
  }

  /** Registers an open, unless it has been closed: then this is a late duplicate. */
  open(session: number, inode: number, openId: number): void {
    if (openId <= (this.#released.get(session)?.get(inode) ?? -1)) return;
    let sessions = this.#byInode.get(inode);
    if (sessions === undefined) this.#byInode.set(inode, sessions = new Map());
    sessions.set(session, Math.max(openId, sessions.get(session) ?? 0));
    const inodes = this.#bySession.get(session);
    if (inodes === undefined) this.#bySession.set(session, new Set([inode]));
    else inodes.add(inode);
  }

  /** Ends the session's open unless a later one (higher id) has come. True when nobody has the inode open any more. */
  close(session: number, inode: number, openId: number): boolean {
    this.#remember(session, inode, openId);
    const sessions = this.#byInode.get(inode);
    const held = sessions?.get(session);
    if (sessions === undefined || held === undefined || held > openId) return false;
    sessions.delete(session);
    this.#bySession.get(session)?.delete(inode);
    if (sessions.size > 0) return false;
    this.#byInode.delete(inode);
    return true;
  }

  #remember(session: number, inode: number, openId: number): void {
    let released = this.#released.get(session);
    if (released === undefined) this.#released.set(session, released = new Map());
    const last = released.get(inode) ?? -1;
    released.delete(inode);
    released.set(inode, Math.max(openId, last));
    if (released.size > releasedMax) released.delete(released.keys().next().value!);
  }

  /** The session is dead: ends its opens and returns the inodes that nobody has open any more. */
  drop(session: number): number[] {
    const freed: number[] = [];
    this.#released.delete(session);
    for (const inode of this.#bySession.get(session) ?? []) {
      const sessions = this.#byInode.get(inode)!;
      sessions.delete(session);
      if (sessions.size > 0) continue;
      this.#byInode.delete(inode);
      freed.push(inode);
    }
    this.#bySession.delete(session);
    return freed;
  }

  /** True when a session has the inode open, or might have (grace, doubt). */
  mayBeOpen(inode: number): boolean {
    return this.#awaited.size > 0 || this.#byInode.has(inode) || this.#doubtful.has(inode);
  }

  /** A request that may have opened the inode is still to be answered. Paired with {@linkcode certain}. */
  doubt(inode: number): void {
    this.#doubtful.set(inode, (this.#doubtful.get(inode) ?? 0) + 1);
  }

  /** That request has been answered. */
  certain(inode: number): void {
    const left = (this.#doubtful.get(inode) ?? 0) - 1;
    if (left > 0) this.#doubtful.set(inode, left);
    else this.#doubtful.delete(inode);
  }

  /** Sessions that have an inode open. */
  sessionsOf(inode: number): number[] {
    return [...this.#byInode.get(inode)?.keys() ?? []];
  }

  /** Inodes that are open. */
  inodes(): number[] {
    return [...this.#byInode.keys()];
  }

  /** Sessions that have something open. */
  sessions(): number[] {
    return [...this.#bySession.keys()];
  }
}
