/**
 * The main thread's side of a check: a session with the manager, kept alive, and the Worker that does the work.
 *
 * @module
 */

import type { CheckProgress, CheckReport } from "../core/check/walk.ts";
import type { CheckEnd, CheckOrder, CheckResolve, CheckTold, CheckWorkerStart, ToldFinding } from "./check_messages.ts";
import type { Logger } from "./log.ts";
import { MainMailbox } from "./mailbox.ts";
import { ManagerFailure } from "./manager_client.ts";
import { ManagerSession } from "./manager_session.ts";
import { resolveHost } from "./resolve.ts";

/** Time the Worker may take to end. */
const endTimeoutMs = 2_000;

/** What a check is made with. */
export interface CheckProcessOptions {
  /** `host:port`. */
  managerAddress: string;
  secret?: string;
  logger: Logger;
  /** How long the manager, and a server, may take to answer. */
  ioTimeoutMs: number;
  /** Have the checksums of all data verified. */
  verifyData: boolean;
  repair: boolean;
  /** Hears how far it is, a few times a second. */
  onProgress: (progress: CheckProgress) => void;
}

/** What a check has found, in words. */
export type CheckResult = Omit<CheckReport, "findings" | "repaired"> & {
  findings: ToldFinding[];
  repaired: ToldFinding[];
};

/** Checks a cluster. A text is why that could not be done. */
export async function runCheck(options: CheckProcessOptions): Promise<CheckResult | string> {
  const { managerAddress, secret, logger, ioTimeoutMs } = options;
  const session = new ManagerSession({ managerAddress, secret, logger });
  try {
    await session.opened(AbortSignal.timeout(ioTimeoutMs));
    return await work(session, options);
  } catch (error) {
    if (error instanceof ManagerFailure) return error.message;
    throw error;
  } finally {
    await session.close();
  }
}

async function work(session: ManagerSession, options: CheckProcessOptions): Promise<CheckResult | string> {
  const { secret, logger, ioTimeoutMs, verifyData, repair, onProgress } = options;
  const mailbox = new MainMailbox();
  const worker = new Worker(new URL("./check_worker.ts", import.meta.url), { type: "module" });
  const over = Promise.withResolvers<CheckResult | string>();
  const lists = { findings: [] as ToldFinding[], repaired: [] as ToldFinding[] };
  worker.onerror = (event) => {
    event.preventDefault();
    mailbox.died(event.message);
  };
  mailbox.onDeath = (reason) => over.reject(new Error(reason));
  mailbox.onCall = (message) => resolveHost((message as CheckResolve).host);
  mailbox.onMessage = (message) => {
    const told = message as CheckTold;
    if (told.type === "needMap") session.want(told.epoch);
    else if (told.type === "progress") onProgress(told.progress);
    else if (told.type === "findings") lists[told.list].push(...told.some);
    else if (told.type === "done") over.resolve({ ...told.summary, ...lists });
    else over.resolve(told.message);
  };
  session.onMap = (bytes) => {
    // A map that is lost is asked for.
    mailbox.post({ type: "map", bytes } satisfies CheckOrder).catch(() => {});
  };
  session.onReplaced = () => over.resolve("the session of the check has died: the manager was away for too long");
  const start: CheckWorkerStart = {
    mailbox: mailbox.port,
    log: logger.options,
    session: session.number,
    secret: secret ?? null,
    map: session.mapBytes,
    ioTimeoutMs,
    verifyData,
    repair,
  };
  worker.postMessage(start);
  try {
    const result = await over.promise;
    // One that does not end by itself is ended.
    await mailbox.call({ type: "end" } satisfies CheckEnd, endTimeoutMs).catch(() => {});
    return result;
  } finally {
    mailbox.onDeath = () => {};
    mailbox.close();
    worker.terminate();
  }
}
