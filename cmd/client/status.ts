/**
 * `sealfs client status`: the cluster at a glance.
 *
 * @module
 */

import { green, red, yellow } from "@std/fmt/colors";
import type { ClusterStatus, ServerStatus, SessionStatus } from "../../core/manager/manager.ts";
import { command } from "../flags.ts";
import { humanDuration, humanSize, printJson, table, writeOut } from "../output.ts";
import { askManager, clientFlags, jsonFlag } from "./common.ts";
import { volumeTable } from "./list.ts";

const stateColours = { up: green, down: red, joining: yellow };

function ago(ms: number | null): string {
  return ms === null ? "not yet" : `${humanDuration(ms)} ago`;
}

function serverTable(servers: readonly ServerStatus[]): string {
  if (servers.length === 0) return "no server has registered yet\n";
  return table(
    [
      { title: "server", align: "right" },
      { title: "address" },
      { title: "state" },
      { title: "shards", align: "right" },
      { title: "used", align: "right" },
      { title: "capacity", align: "right" },
      { title: "req/s", align: "right" },
      { title: "load", align: "right" },
      { title: "heartbeat", align: "right" },
    ],
    servers.map((server) => [
      server.id,
      server.address,
      stateColours[server.state](server.state),
      server.shards,
      humanSize(server.usedBytes),
      humanSize(server.capacityBytes),
      server.requestsPerSecond.toFixed(0),
      server.hostLoad.toFixed(2),
      ago(server.lastHeartbeatAgoMs),
    ]),
  );
}

/** A row a process: its mounts have a session each. */
function clientTable(sessions: readonly SessionStatus[]): string {
  const processes = Map.groupBy(sessions, ({ host, pid }) => `${host} ${pid}`);
  return table(
    [{ title: "client" }, { title: "pid", align: "right" }, { title: "heartbeat", align: "right" }, {
      title: "mounts",
    }],
    [...processes.values()].map((group) => {
      const known = group.map((session) => session.lastHeartbeatAgoMs).filter((ms) => ms !== null);
      const mounts = group.flatMap((session) => session.mounts).map(({ volume, path }) => `${volume} at ${path}`);
      return [group[0].host, group[0].pid, ago(known.length === 0 ? null : Math.max(...known)), mounts.join(", ")];
    }),
  );
}

/** The cluster for people. */
export function statusText(status: ClusterStatus): string {
  const { servers, sessions } = status;
  const lines = [
    `cluster ${status.clusterId}, map ${status.epoch}, ${status.shards} shards, ${status.replicas} replica`,
  ];
  if (!status.placementFrozen) {
    lines.push("the first volume that is created gives the shards to the servers that are up");
  }
  const joining = servers.filter((server) => server.state === "joining").map((server) => server.id);
  if (joining.length > 0) {
    lines.push(
      `joining: server ${joining.join(", ")} came after the first volume and holds no data, as this version cannot ` +
        "move any",
    );
  }
  const clients = sessions.length === 0 ? "no clients\n" : clientTable(sessions);
  return [lines.join("\n") + "\n", serverTable(servers), volumeTable(status.volumes), clients].join("\n");
}

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client status",
    summary: "Show servers, volumes and clients of the cluster",
    flags: [...clientFlags, jsonFlag],
  },
  async ({ flags }) => {
    const status = await askManager(flags, (client) => client.status());
    if (flags.json) printJson(status);
    else writeOut(statusText(status));
    return 0;
  },
);
