/**
 * A client's session with the cluster: the caller, what is open and what is locked, shared by all volumes that the
 * client has mounted. After a store's start it claims them again, before anything else is asked there.
 *
 * When the manager has declared the session dead, everything that was open is void: programs get EIO from such files
 * until they have closed them. The control plane gets a new session and {@linkcode ClientSession.renew} starts anew;
 * what does not concern those files waits for that, within the io timeout.
 *
 * @module
 */

import { sessionIsDead } from "../placement/map.ts";
import type { MapHolder } from "../placement/map_holder.ts";
import { Caller } from "../protocol/caller.ts";
import type { Of } from "../protocol/codec.ts";
import { leaseMs } from "../protocol/lease.ts";
import { GRANTED, peerKind, RECALL, RECLAIM, RETURN } from "../protocol/messages.ts";
import type { Frame } from "../protocol/frame.ts";
import type { Network, Runtime } from "../runtime.ts";
import type { Task } from "../task.ts";
import { shardOf } from "../meta/layout.ts";
import { HeldLocks } from "./held_locks.ts";
import { LeaseCache } from "./lease_cache.ts";
import { inParallel } from "./parallel.ts";
import { OpenTable } from "./open_table.ts";

/** Whoever waits for a lease does not wait longer than it lasts. */
const returnOptions = { timeoutMs: leaseMs };
/** At its end a session waits for a store no longer than this: leases run out by themselves. */
const finishOptions = { timeoutMs: 1_000 };
/** Opens, and locks, in one RECLAIM message. */
export const claimsPerMessage = 1024;

/** What a session is made of. */
export interface ClientSessionOptions {
  runtime: Runtime;
  network: Network;
  maps: MapHolder;
  /** The cluster's secret; null without one. */
  secret: Uint8Array | null;
  /** Number from the manager. */
  session: number;
  /** A call without an answer ends with EIO after this time. */
  ioTimeoutMs?: number;
  callTimeoutMs?: number;
  /** The session is dead: get a new one from the manager and call {@linkcode ClientSession.renew}. */
  onSessionDead?: () => void;
  /** Counts the requests sent by what they are sent for, see CallerCounters. */
  sentFor?: Float64Array;
}

/** See the module's comment. One a reactor. */
export class ClientSession {
  readonly runtime: Runtime;
  readonly maps: MapHolder;
  readonly caller: Caller;
  readonly opens: OpenTable;
  readonly locks: HeldLocks;
  readonly leases: LeaseCache;

  constructor(options: ClientSessionOptions) {
    const { runtime, network, maps, secret, session, ioTimeoutMs, callTimeoutMs } = options;
    this.runtime = runtime;
    this.maps = maps;
    this.caller = new Caller({
      runtime,
      network,
      maps,
      secret,
      kind: peerKind.client,
      session,
      keepLinks: true,
      ioTimeoutMs,
      callTimeoutMs,
      sentFor: options.sentFor,
      hooks: {
        reclaim: (server, store) => this.#claims(server, store),
        push: (frame, server, store) => this.#push(frame, server, store),
        replied: (call, leases) => this.leases.replied(call, leases),
        uncertain: (call) => this.leases.distrust(call),
        sessionDead: () => {
          this.leases.drop(() => true);
          this.opens.sessionDied();
          this.locks.sessionDied();
          options.onSessionDead?.();
        },
      },
    });
    this.opens = new OpenTable(this.caller);
    this.locks = new HeldLocks(maps);
    this.leases = new LeaseCache(runtime);
    // Once the lease is returned the file may lose its last name.
    this.leases.watch((inode) => this.opens.tell(inode));
    maps.onChange((map) => {
      if (sessionIsDead(map, this.caller.session)) this.caller.sessionDied(this.caller.session);
    });
  }

  /** Goes on with a new session number. */
  renew(session: number): void {
    // A session may be replaced before anybody has heard of its death.
    this.caller.sessionDied(this.caller.session);
    this.caller.renew(session);
  }

  /** Sends what is still to be sent (closes), and returns all leases; then {@linkcode close} loses nothing. */
  *finish(): Task<void> {
    yield* this.opens.flush();
    this.opens.forget();
    this.leases.drop(() => true);
    const { caller, runtime } = this, targets = caller.linked, all = { inode: 0, grant: 0 };
    yield* inParallel(runtime.scheduler, targets.length, targets.length, (i) => {
      return caller.call(RETURN, targets[i], all, finishOptions);
    });
  }

  /** Ends every link; calls under way end with EIO. */
  close(): void {
    this.caller.close();
  }

  /** What the session holds on a store, in messages of bounded size; always at least one, the last marked. */
  #claims(server: number, store: number): Of<typeof RECLAIM.request>[] {
    // A store that was started anew knows of no leases: when it has heard the claims it changes what it likes.
    this.leases.drop((inode) => {
      const owner = this.maps.ownerOf(shardOf(inode));
      return owner === null || (owner.server === server && owner.store === store);
    });
    const opens = this.opens.claims(server, store), locks = this.locks.claims(server, store);
    const creating = this.caller.creating(server, store);
    const messages: Of<typeof RECLAIM.request>[] = [];
    for (let at = 0; at === 0 || at < opens.length || at < locks.length; at += claimsPerMessage) {
      const to = at + claimsPerMessage;
      const last = to >= opens.length && to >= locks.length;
      const claimed = { opens: opens.slice(at, to), locks: locks.slice(at, to), creating: last ? creating : [] };
      messages.push({ ...claimed, last });
    }
    return messages;
  }

  *#return(
    recall: Of<typeof RETURN.request>,
    users: Task<void>[],
    target: { server: number; store: number },
  ): Task<void> {
    for (const user of users) yield* user;
    yield* this.caller.call(RETURN, target, recall, returnOptions);
  }

  #push(frame: Frame, server: number, store: number): void {
    switch (frame.head.type) {
      case GRANTED.type:
        return this.locks.granted(GRANTED.request.read(frame.body).ticket);
      case RECALL.type: {
        const recall = RECALL.request.read(frame.body);
        this.runtime.scheduler.spawn(this.#return(recall, this.leases.recalled(recall.inode), { server, store }));
      }
    }
  }
}
