/**
 * The client daemon: one session with a manager, any number of mounts, a control socket, and a table of its mounts that
 * it restores at its next start, whatever ended it.
 *
 * @module
 */

import { join } from "@std/path";
import { ClientMounts } from "./client_mounts.ts";
import { type ControlQuestion, type DaemonStatus, serveControl } from "./control.ts";
import type { Logger } from "./log.ts";
import { mountpointPath } from "./fuse/mount.ts";
import { clientMetricsText } from "./metrics/client_metrics.ts";
import { serveMetrics } from "./metrics/http.ts";
import { ManagerSession } from "./manager_session.ts";
import { readMountTable, writeMountTable } from "./mount_table.ts";

/** What a daemon is run with. */
export interface ClientDaemonOptions {
  /** `host:port`. */
  managerAddress: string;
  secret?: string;
  socketPath: string;
  /** Folder for the table of mounts; it must exist. */
  statePath: string;
  ioTimeoutMs: number;
  /** Program and arguments that run a keeper (ffi/keeper.ts). */
  keeperCommand: readonly string[];
  version: string;
  /** `host:port` of /metrics and /healthz; none without it. */
  metricsAddress?: string;
  logger: Logger;
  /** Settles when the daemon is to stop. */
  stop: Promise<unknown>;
  /** Called once when the control socket is served. */
  onReady: () => void;
}

/** Runs a daemon until it is to stop (undefined) or cannot be (why). Its mounts end with it, but stay in the table. */
export async function runClientDaemon(options: ClientDaemonOptions): Promise<string | undefined> {
  const { managerAddress, secret, socketPath, statePath, ioTimeoutMs, keeperCommand, logger } = options;
  const table = join(statePath, "mounts.json");
  // Questions wait until the socket is ours and the table has been read.
  const ready = Promise.withResolvers<(question: ControlQuestion) => unknown>();
  const control = serveControl(socketPath, async (question) => (await ready.promise)(question));
  if (typeof control === "string") return control;
  let wishes;
  try {
    wishes = readMountTable(table);
  } catch (error) {
    control.close();
    return (error as Error).message;
  }
  // The daemon's own: it shows in the cluster's status, and tells when the manager refuses the daemon.
  const session = new ManagerSession({ managerAddress, secret, logger });
  const onChange = () => {
    try {
      writeMountTable(table, mounts.list());
    } catch (error) {
      logger.log("error", "client", `the mounts are not remembered: ${(error as Error).message}`);
    }
  };
  const mounts = new ClientMounts({ managerAddress, secret, ioTimeoutMs, keeperCommand, logger, onChange });
  const service = options.metricsAddress === undefined ? undefined : serveMetrics({
    address: options.metricsAddress,
    secret,
    metrics: () => clientMetricsText(mounts.metrics(), options.version),
    problems: () => problems(session, mounts),
    logger,
  });
  if (typeof service === "string") {
    control.close();
    await session.close();
    return service;
  }
  mounts.restore(wishes);
  ready.resolve((question) => answer(question, options, session, mounts));
  options.onReady();
  const refused = Promise.withResolvers<string>();
  session.opened(new AbortController().signal).catch((error) => refused.resolve(error.message));
  const failure = await Promise.race([options.stop.then(() => undefined), refused.promise]);
  control.close();
  await mounts.close();
  await session.close();
  await service?.close();
  return failure;
}

/** What keeps the daemon from serving, a line each. */
function problems(session: ManagerSession, mounts: ClientMounts): string[] {
  const down = mounts.list().filter(({ state }) => state === "waiting"), { silentMs } = session;
  return [
    ...silentMs === 0 ? [] : [`no answer from the manager for ${Math.round(silentMs / 1000)} s`],
    ...session.isOpen ? [] : [`no session yet with the manager at ${session.client.address}`],
    ...down.map(({ mountpoint, problem }) => `${mountpoint} is down: ${problem}`),
  ];
}

async function answer(
  question: ControlQuestion,
  options: ClientDaemonOptions,
  session: ManagerSession,
  mounts: ClientMounts,
): Promise<unknown> {
  switch (question.ask) {
    case "probe":
    case "list":
      return {
        pid: Deno.pid,
        version: options.version,
        managerAddress: options.managerAddress,
        session: session.number,
        mounts: mounts.list(),
      } satisfies DaemonStatus;
    case "mount": {
      const { managerAddress } = question;
      if (managerAddress !== undefined && managerAddress !== options.managerAddress) {
        throw new Error(
          `the daemon at ${options.socketPath} belongs to the manager at ${options.managerAddress}, not ` +
            `${managerAddress}: give another --socket-path for another cluster`,
        );
      }
      return await mounts.mount(question.wish);
    }
    case "metrics": {
      if (question.mountpoint === undefined) return mounts.metrics();
      const mountpoint = mountpointPath(question.mountpoint);
      const found = mounts.metrics().filter((mount) => mount.mountpoint === mountpoint);
      if (found.length === 0) throw new Error(`${mountpoint} is not mounted by the daemon at ${options.socketPath}`);
      return found;
    }
    case "unmount":
      return await mounts.unmount(question.mountpoint, question.lazy);
    default:
      throw new Error("the daemon does not know this question: it may be of another version");
  }
}
