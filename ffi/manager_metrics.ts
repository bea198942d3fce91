/**
 * The manager's metrics in the text format of Prometheus, version 0.0.4.
 *
 * @module
 */

import type { ClusterStatus } from "../core/manager/manager.ts";

/** Requests answered, by `METHOD path status`. */
export type RequestCounts = Map<string, number>;

interface Sample {
  labels?: Record<string, string | number>;
  value: number;
}

/** The page behind /metrics. */
export function metricsText(status: ClusterStatus, requests: RequestCounts): string {
  const { servers, volumes, sessions } = status;
  const count = (state: string) => servers.filter((server) => server.state === state).length;
  const each = (value: (server: typeof servers[number]) => number): Sample[] =>
    servers.map((server) => ({ labels: { server: server.id, address: server.address }, value: value(server) }));
  const eachVolume = (value: (volume: typeof volumes[number]) => number): Sample[] =>
    volumes.map((volume) => ({ labels: { volume: volume.name, id: volume.id }, value: value(volume) }));
  return [
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
    metric("sealfs_volumes", "gauge", "Volumes", [{ value: volumes.length }]),
    metric("sealfs_volume_size_bytes", "gauge", "Size of a volume", eachVolume((one) => one.sizeBytes)),
    metric("sealfs_volume_used_bytes", "gauge", "Use of a volume", eachVolume((one) => one.usedBytes)),
    metric("sealfs_volume_inodes", "gauge", "Inodes of a volume", eachVolume((one) => one.inodes)),
    metric("sealfs_client_sessions", "gauge", "Clients", [{ value: sessions.length }]),
    metric("sealfs_mounts", "gauge", "Mounts", [{ value: sessions.reduce((sum, one) => sum + one.mounts.length, 0) }]),
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

function metric(name: string, type: "counter" | "gauge", help: string, samples: Sample[]): string {
  const lines = samples.map(({ labels = {}, value }) => {
    const list = Object.entries(labels).map(([key, text]) => `${key}="${escape(String(text))}"`).join(",");
    return `${name}${list === "" ? "" : `{${list}}`} ${value}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function escape(text: string): string {
  return text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
}
