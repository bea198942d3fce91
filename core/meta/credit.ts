/**
 * Volume size: the shard of the volume's root holds the budget, stores draw credit from it in shrinking steps and
 * charge what they allocate against their credit. A volume that is full answers ENOSPC, and not before: when the
 * budget is given out, unused credit is called back from the other stores first.
 *
 * Credit lives in memory here and in the root's shard (kind G): a store that starts asks anew.
 *
 * @module
 */

import { E, type Result } from "../errno.ts";
import { decode, encode } from "../protocol/codec.ts";
import { CREDIT, CREDIT_RECALL } from "../protocol/messages.ts";
import { rootShard } from "../placement/hash.ts";
import { inodeBudget } from "../placement/map.ts";
import { type Task, wait } from "../task.ts";
import type { Future } from "../task.ts";
import { type Answer, answerErrno, type Engine, type Request } from "./engine.ts";
import { after, Key, keyNumber, kind, usage as usageCodec } from "./layout.ts";
import { Plan } from "./plan.ts";

/** Largest step in which credit is drawn. */
const stepBytesMax = 256 * 1024 * 1024, stepInodesMax = 65536;
/** Part of what is left of the budget that one store may draw at once. */
const stepShare = 8;
/** After a refusal the volume counts as full for this long before the root is asked again. */
const refusedMs = 50;
/** How often credit is asked for when recalls overtake the answers. */
const drawsMax = 16;
/** A store that does not answer a recall in this time keeps what it has. */
const recallTimeoutMs = 2000;

interface Account {
  bytes: number;
  inodes: number;
  /** Promised to operations in progress. */
  reservedBytes: number;
  reservedInodes: number;
  refusedAtMs: number;
  asking: Future<number> | null;
  /** Counts what was called back. */
  recalls: number;
}

/** The credit of a store with all volumes. */
export class Credit {
  #accounts = new Map<number, Account>();

  constructor(readonly engine: Engine) {}

  /** 0: covered. ENOSPC: the store or the volume is full. EAGAIN: credit is being drawn, come again in a moment. */
  check(volume: number, bytes: number, inodes: number): number {
    if (!this.engine.store.canGrow()) return E.NOSPC;
    const account = this.#account(volume);
    if (this.#covers(volume, account, bytes, inodes)) return 0;
    if (this.engine.runtime.nowMs() - account.refusedAtMs < refusedMs) return E.NOSPC;
    this.#ask(volume, account, bytes, inodes);
    return E.AGAIN;
  }

  /** Waits until credit covers an operation and reserves it: errno. A 0 is paired with {@linkcode settle}. */
  *reserve(volume: number, bytes: number, inodes: number): Task<number> {
    if (!this.engine.store.canGrow()) return E.NOSPC;
    const account = this.#account(volume);
    for (let attempt = 0; !this.#covers(volume, account, bytes, inodes); attempt++) {
      if (attempt >= 3) return E.NOSPC;
      const errno = yield* wait(this.#ask(volume, account, bytes, inodes));
      if (errno !== 0) return errno;
    }
    account.reservedBytes += bytes;
    account.reservedInodes += inodes;
    return 0;
  }

  /**
   * As {@linkcode reserve} for a write that may take `most` bytes. Where that much is not there it reserves what the write
   * takes `exactly`: data in the place of other data needs nothing. `bytes` is what to settle.
   */
  *reserveWrite(volume: number, most: number, exactly: () => number): Task<Result<{ bytes: number }>> {
    const bytes = this.isPlenty(volume, most) ? most : exactly();
    if (bytes === 0) return this.engine.store.canRewrite() ? { bytes } : E.NOSPC;
    const errno = yield* this.reserve(volume, bytes, 0);
    return errno === 0 ? { bytes } : errno;
  }

  /** True when an operation that takes `bytes` can go ahead at once, if it charges them before anything else runs. */
  isPlenty(volume: number, bytes: number): boolean {
    return this.engine.store.canGrow() && this.#covers(volume, this.#account(volume), bytes, 0);
  }

  /** The operation has charged what it needed, or has failed: ends its reservation. */
  settle(volume: number, bytes: number, inodes: number): void {
    const account = this.#account(volume);
    account.reservedBytes -= bytes;
    account.reservedInodes -= inodes;
  }

  /** CREDIT_RECALL: keeps what is used and promised. */
  recall(volume: number): { bytes: number; inodes: number } {
    const account = this.#account(volume), used = this.engine.store.usage(volume);
    account.bytes = used.bytes + account.reservedBytes;
    account.inodes = used.inodes + account.reservedInodes;
    account.recalls++;
    return { bytes: account.bytes, inodes: account.inodes };
  }

  /** The volume is gone. */
  forget(volume: number): void {
    this.#accounts.delete(volume);
  }

  #covers(volume: number, account: Account, bytes: number, inodes: number): boolean {
    const used = this.engine.store.usage(volume);
    return used.bytes + account.reservedBytes + bytes <= account.bytes &&
      used.inodes + account.reservedInodes + inodes <= account.inodes;
  }

  #account(volume: number): Account {
    let account = this.#accounts.get(volume);
    if (account === undefined) {
      account = {
        bytes: 0,
        inodes: 0,
        reservedBytes: 0,
        reservedInodes: 0,
        refusedAtMs: -Infinity,
        asking: null,
        recalls: 0,
      };
      this.#accounts.set(volume, account);
    }
    return account;
  }

  #ask(volume: number, account: Account, bytes: number, inodes: number): Future<number> {
    account.asking ??= this.engine.runtime.scheduler.spawn(this.#draw(volume, account, bytes, inodes));
    return account.asking;
  }

  *#draw(volume: number, account: Account, bytes: number, inodes: number): Task<number> {
    let errno: number = E.NOSPC;
    for (let attempt = 0; attempt < drawsMax; attempt++) {
      const { recalls } = account;
      errno = yield* this.#drawOnce(volume, account, bytes, inodes);
      // A recall that came meanwhile may have taken back what the answer gave: nobody can tell, so it is asked again.
      if (account.recalls === recalls) break;
      errno = E.NOSPC;
    }
    account.asking = null;
    return errno;
  }

  *#drawOnce(volume: number, account: Account, bytes: number, inodes: number): Task<number> {
    const used = this.engine.store.usage(volume);
    const body = {
      volume,
      server: this.engine.serverId,
      store: this.engine.storeIndex,
      usedBytes: used.bytes + account.reservedBytes,
      usedInodes: used.inodes + account.reservedInodes,
      wantBytes: bytes,
      wantInodes: inodes,
    };
    const { recalls } = account;
    const reply = yield* this.engine.caller.call(CREDIT, { shard: rootShard(volume, this.engine.shards) }, body);
    if (reply.status !== 0 || account.recalls !== recalls) return reply.status;
    const granted = reply.body as { bytes: number; inodes: number };
    account.bytes = granted.bytes;
    account.inodes = granted.inodes;
    if (granted.bytes < body.usedBytes + bytes || granted.inodes < body.usedInodes + inodes) {
      account.refusedAtMs = this.engine.runtime.nowMs();
      return E.NOSPC;
    }
    return 0;
  }
}

function creditKey(shard: number, volume: number, server: number, store: number): Uint8Array {
  return new Key(shard, kind.credit, 13).u32(volume).u32(server).u16(store).done();
}

/** CREDIT, on the shard of the volume's root. */
export function* credit(engine: Engine, request: Request): Task<Answer> {
  const { volume, server, store } = request.body;
  const entry = engine.map.current.volumes.find((v) => v.id === volume);
  if (entry === undefined || !engine.volumeLives(volume)) return answerErrno(E.STALE);
  const lock = `credit/${volume}`, owner = engine.newOwner();
  yield* engine.names.acquire(lock, owner);
  let granted = grant(engine, request, entry.sizeBytes);
  if (!enough(request, granted)) {
    yield* recallOthers(engine, request.head.shard, volume, { server, store });
    granted = grant(engine, request, entry.sizeBytes);
  }
  engine.names.release(lock, owner);
  return { status: 0, body: granted };
}

function enough(request: Request, granted: { bytes: number; inodes: number }): boolean {
  const { usedBytes, usedInodes, wantBytes, wantInodes } = request.body;
  return granted.bytes >= usedBytes + wantBytes && granted.inodes >= usedInodes + wantInodes;
}

/** Sets the asker's credit to what it uses, what it wants and a step more, as far as the budget goes. */
function grant(engine: Engine, request: Request, sizeBytes: number): { bytes: number; inodes: number } {
  const { volume, server, store, usedBytes, usedInodes, wantBytes, wantInodes } = request.body;
  const shard = request.head.shard;
  let freeBytes = sizeBytes, freeInodes = inodeBudget(sizeBytes);
  eachCredit(engine, shard, volume, (at, given) => {
    if (at.server === server && at.store === store) return;
    freeBytes -= given.bytes;
    freeInodes -= given.inodes;
  });
  const bytes = share(freeBytes - usedBytes, wantBytes, stepBytesMax);
  const inodes = share(freeInodes - usedInodes, wantInodes, stepInodesMax);
  const granted = { bytes: usedBytes + bytes, inodes: usedInodes + inodes };
  const plan = new Plan();
  plan.put(creditKey(shard, volume, server, store), encode(usageCodec, granted));
  engine.commit(shard, plan);
  return granted;
}

function share(free: number, want: number, stepMax: number): number {
  if (free <= 0) return 0;
  return Math.min(free, want + Math.min(stepMax, Math.floor(free / stepShare)));
}

function eachCredit(
  engine: Engine,
  shard: number,
  volume: number,
  visit: (at: { server: number; store: number }, given: { bytes: number; inodes: number }) => void,
): void {
  const prefix = new Key(shard, kind.credit, 7).u32(volume).done();
  const found: { server: number; store: number; given: { bytes: number; inodes: number } }[] = [];
  engine.store.scan(prefix, after(prefix), (key, value) => {
    found.push({ server: keyNumber(key, 7, 4), store: keyNumber(key, 11, 2), given: decode(usageCodec, value) });
    return true;
  });
  for (const { server, store, given } of found) visit({ server, store }, given);
}

function* recallOthers(
  engine: Engine,
  shard: number,
  volume: number,
  asker: { server: number; store: number },
): Task<void> {
  const others: { server: number; store: number }[] = [];
  eachCredit(engine, shard, volume, (at) => {
    if (at.server !== asker.server || at.store !== asker.store) others.push(at);
  });
  for (const at of others) {
    const reply = yield* engine.caller.call(CREDIT_RECALL, at, { volume }, { timeoutMs: recallTimeoutMs });
    if (reply.status !== 0) continue;
    const plan = new Plan();
    plan.put(
      creditKey(shard, volume, at.server, at.store),
      encode(usageCodec, reply.body as { bytes: number; inodes: number }),
    );
    engine.commit(shard, plan);
  }
}
