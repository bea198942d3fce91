/**
 * The manager's metrics: the cluster as it sees it, and what it is asked.
 *
 * @module
 */

import type { ClusterStatus } from "../core/manager/manager.ts";
import { paths } from "./manager_api.ts";
import { metric, processMetrics, type Sample } from "./metrics/text.ts";

/** Requests answered, by `METHOD path status`. */
export type RequestCounts = Map<string, number>;

/** The page behind /metrics. */
export function metricsText(status: ClusterStatus, requests: RequestCounts, version: string): string {
  const { servers, volumes, sessions } = status;
  const count = (state: string) => servers.filter((server) => server.state === state).length;
  const each = (value: (server: typeof servers[number]) => number): Sample[] =>
    servers.map((server) => ({ labels: { server: server.id, address: server.address }, value: value(server) }));
  const eachVolume = (value: (volume: typeof volumes[number]) => number): Sample[] =>
    volumes.map((volume) => ({ labels: { volume: volume.name, id: volume.id }, value: value(volume) }));
  const heard = servers.filter((server) => server.lastHeartbeatAgoMs !== null);
  return [
    processMetrics("manager", version),
    metric("sealfs_epoch", "counter", "Version of the cluster map", [{ value: status.epoch }]),
    metric("sealfs_shards", "gauge", "Shards of the cluster", [{ value: status.shards }]),
    metric(
      "sealfs_servers",
      "gauge",
      "Servers by state",
      ["up", "down", "joining"].map((state) => ({ labels: { state }, value: count(state) })),
    ),
    metric("sealfs_server_up", "gauge", "1 when the server is heard", each((one) => one.state === "down" ? 0 : 1)),
    metric("sealfs_server_shards", "gauge", "Shards a server is primary of", each((one) => one.shards)),
    metric("sealfs_server_capacity_bytes", "gauge", "Room of a server", each((one) => one.capacityBytes)),
    metric("sealfs_server_used_bytes", "gauge", "Used room of a server", each((one) => one.usedBytes)),
    metric("sealfs_server_requests_per_second", "gauge", "Load of a server", each((one) => one.requestsPerSecond)),
    metric("sealfs_server_host_load", "gauge", "Load average of a server's machine", each((one) => one.hostLoad)),
    metric(
      "sealfs_server_heartbeat_age_seconds",
      "gauge",
      "Time since a server was heard",
      heard.map(({ id, address, lastHeartbeatAgoMs }) => {
        return { labels: { server: id, address }, value: lastHeartbeatAgoMs! / 1000 };
      }),
    ),
    metric("sealfs_volumes", "gauge", "Volumes", [{ value: volumes.length }]),
    metric("sealfs_volume_size_bytes", "gauge", "Size of a volume", eachVolume((one) => one.sizeBytes)),
    metric("sealfs_volume_used_bytes", "gauge", "Use of a volume", eachVolume((one) => one.usedBytes)),
    metric("sealfs_volume_inodes", "gauge", "Inodes of a volume", eachVolume((one) => one.inodes)),
    metric("sealfs_client_sessions", "gauge", "Clients", [{ value: sessions.length }]),
    metric("sealfs_mounts", "gauge", "Mounts", [{ value: sessions.reduce((sum, one) => sum + one.mounts.length, 0) }]),
    metric("sealfs_manager_heartbeats_total", "counter", "Heartbeats taken", [
      { labels: { from: "servers" }, value: requests.get(`POST ${paths.serverHeartbeat} 200`) ?? 0 },
      { labels: { from: "clients" }, value: requests.get(`POST ${paths.clientHeartbeat} 200`) ?? 0 },
    ]),
    metric(
      "sealfs_manager_requests_total",
      "counter",
      "Requests answered",
      [...requests].map(([key, value]) => {
        const [method, path, code] = key.split(" ");
        return { labels: { method, path, code }, value };
      }),
    ),
  ].join("");
}
