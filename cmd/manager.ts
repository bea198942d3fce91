/**
 * `sealfs manager`: settings, state, service, until a signal.
 *
 * @module
 */

import { Manager } from "../core/manager/manager.ts";
import { openLogger } from "../ffi/log.ts";
import { type ManagerService, startManagerService } from "../ffi/manager_http.ts";
import { serveMetrics } from "../ffi/metrics/http.ts";
import { LmdbStateStore } from "../ffi/manager_store.ts";
import {
  defaultReplicas,
  defaultShards,
  managerFlags,
  type ManagerSettings,
  managerSettings,
  readSecret,
} from "./config.ts";
import { command, CommandError } from "./flags.ts";
import { writeOut } from "./output.ts";
import { stopSignal } from "./signals.ts";
import { formatAddress, parseAddress } from "./values.ts";
import { version } from "./version.ts";

async function serve(settings: ManagerSettings): Promise<number> {
  const secret = settings.secretFile === undefined ? undefined : readSecret(settings.secretFile);
  const logger = openLogger({ level: settings.logLevel, file: settings.logFile });
  const stop = stopSignal();
  const store = await LmdbStateStore.open(settings.dataPath);
  if (typeof store === "string") throw new CommandError(store);
  const manager = Manager.open(store, {
    newCluster: {
      clusterId: crypto.randomUUID(),
      shards: settings.shards ?? defaultShards,
      replicas: settings.replicas ?? defaultReplicas,
    },
    expected: { shards: settings.shards, replicas: settings.replicas },
    serverTimeoutMs: settings.serverTimeoutMs,
    log: (level, message) => logger.log(level, "manager", message),
  }, performance.now());
  if (typeof manager === "string") throw new CommandError(`${settings.dataPath}: ${manager}`);

  let service: ManagerService;
  try {
    const { hostname, port } = parseAddress(settings.address);
    const { heartbeatIntervalMs } = settings;
    service = startManagerService({ manager, hostname, port, secret, heartbeatIntervalMs, version, logger });
  } catch (error) {
    throw new CommandError(`cannot listen on ${settings.address}: ${error instanceof Error ? error.message : error}`);
  }
  const metrics = settings.metricsAddress === undefined ? undefined : serveMetrics({
    address: settings.metricsAddress,
    secret,
    metrics: () => service.metrics(),
    problems: () => [],
    logger,
  });
  if (typeof metrics === "string") {
    await service.stop();
    throw new CommandError(metrics);
  }
  writeOut(`sealfs manager: ready at ${formatAddress(service)}, cluster ${manager.clusterId}\n`);
  stop.then(() => service.stop());
  const failure = await service.finished;
  await metrics?.close();
  if (failure !== undefined) throw new CommandError(failure);
  await store.close();
  return 0;
}

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs manager",
    summary: "Coordinate a cluster: membership, the cluster map, volumes",
    details: "The manager is not on the data path: while it is away, files are read and written as before.",
    flags: managerFlags,
    examples: [
      "sealfs manager --config manager.yaml",
      "SEALFS_CONFIG_PATH=/etc/sealfs sealfs manager",
      "sealfs manager --address 0.0.0.0:8081 --data-path /var/lib/sealfs/manager --secret-file /etc/sealfs/secret",
    ],
  },
  ({ flags }) => serve(managerSettings(flags)),
);
