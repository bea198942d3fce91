/**
 * What the reactor of a store shows: requests by message type, checkpoints, and figures of the reactor, the store, the
 * leases and the links.
 *
 * @module
 */

import { LatencyTable, type OperationFigures } from "../../core/metrics/latency_table.ts";
import type { Meter } from "../../core/metrics/meter.ts";
import { messageOf } from "../../core/protocol/messages.ts";
import type { StoreServer } from "../../core/server/server.ts";
import type { SocketNetwork } from "../net.ts";
import type { Reactor } from "../reactor.ts";
import type { OpenedStore } from "../store/open.ts";
import { Figures, publishWhenBusy, sharedMeter, tableMemory } from "./board.ts";
import { histogram, metric, processMetrics, reactorMetrics } from "./text.ts";

/** Message types that are told apart: those of core/protocol/messages.ts are below. */
const types = 128;

const figureNames = [
  "processorMs",
  "turns",
  "enters",
  "submissions",
  "tasks",
  "requestsInFlight",
  "links",
  "clients",
  "requests",
  "duplicates",
  "refused",
  "malformed",
  "callsInFlight",
  "roundTrips",
  "retries",
  "bytesReceived",
  "bytesSent",
  "leasedInodes",
  "leasesGranted",
  "recalls",
  "leaseWaits",
  "logWrites",
  "logBytes",
  "logSyncs",
  "logFill",
  "imageFill",
  "dataBytes",
  "dataBytesMax",
] as const;

/** Figures of a store; counts are since the start. */
export type StoreFigures = Record<typeof figureNames[number], number>;

/** The shared memory of one store. */
export interface StoreMetricsMemory {
  messages: SharedArrayBuffer;
  checkpoints: SharedArrayBuffer;
  figures: SharedArrayBuffer;
}

/** New memory, made by the main thread. */
export function storeMetricsMemory(): StoreMetricsMemory {
  return { messages: tableMemory(types), checkpoints: tableMemory(1), figures: Figures.memory(figureNames) };
}

/** The meters of a store, for its reactor. */
export function storeMeters(reactor: Reactor, memory: StoreMetricsMemory): { messages: Meter; checkpoints: Meter } {
  return {
    messages: sharedMeter(reactor, types, memory.messages),
    checkpoints: sharedMeter(reactor, 1, memory.checkpoints),
  };
}

/** What a store's figures are taken from. */
export interface StoreSources {
  reactor: Reactor;
  network: SocketNetwork;
  server: StoreServer;
  opened: OpenedStore;
}

/** Puts the store's figures up from now on. */
export function publishStore({ reactor, network, server, opened }: StoreSources, memory: StoreMetricsMemory): void {
  const figures = new Figures(figureNames, memory.figures), { caller, counters, engine } = server;
  publishWhenBusy(reactor, () => {
    const { turns, enters, submissions, tasks } = reactor.statistics(), { bytesIn, bytesOut } = network.statistics();
    const { log, image, dataBytes, dataBytesMax } = opened.store.fill(), { leases } = engine;
    let roundTrips = 0;
    caller.counters.sent.forEach((count) => roundTrips += count);
    figures.set({
      processorMs: reactor.processorMs(),
      turns,
      enters,
      submissions,
      tasks,
      requestsInFlight: server.active,
      links: server.links,
      clients: server.clients,
      requests: counters.requests,
      duplicates: counters.duplicates,
      refused: counters.refused,
      malformed: counters.malformed,
      callsInFlight: caller.active,
      roundTrips,
      retries: caller.counters.retries,
      bytesReceived: bytesIn,
      bytesSent: bytesOut,
      leasedInodes: leases.size,
      leasesGranted: leases.counters.granted,
      recalls: leases.counters.recalls,
      leaseWaits: leases.counters.waits,
      logWrites: opened.logCounters.writes,
      logBytes: opened.logCounters.bytes,
      logSyncs: opened.logCounters.syncs,
      logFill: log,
      imageFill: image,
      dataBytes,
      dataBytesMax,
    });
  });
}

/** What there is to tell of a store at a moment. */
export interface StoreMetrics {
  messages: OperationFigures[];
  checkpoints: OperationFigures[];
  figures: StoreFigures;
}

/** Reads the memory of a store. */
export function readStore(memory: StoreMetricsMemory): StoreMetrics {
  const nameOf = (type: number) => messageOf(type)?.name ?? `type ${type}`;
  return {
    messages: new LatencyTable(types, memory.messages).figures(nameOf),
    checkpoints: new LatencyTable(1, memory.checkpoints).figures(() => "checkpoint"),
    figures: new Figures(figureNames, memory.figures).get(),
  };
}

/** The page of a server's /metrics. `epoch`: of the map it has. */
export function serverMetricsText(
  { stores, serverId, epoch, version }: {
    stores: readonly StoreMetrics[];
    serverId: number;
    epoch: number;
    version: string;
  },
): string {
  const each = (value: (figures: StoreFigures) => number) =>
    stores.map(({ figures }, store) => ({ labels: { store }, value: value(figures) }));
  const rows = (pick: (store: StoreMetrics) => OperationFigures[], label: (name: string) => Record<string, string>) =>
    stores.flatMap((one, store) =>
      pick(one).map((figures) => ({ labels: { store, ...label(figures.name) }, figures }))
    );
  return [
    processMetrics("server", version),
    metric("sealfs_server_id", "gauge", "Number of the server; 0 until it is registered", [{ value: serverId }]),
    metric("sealfs_epoch", "counter", "Version of the cluster map that the server has", [{ value: epoch }]),
    histogram(
      "sealfs_request_seconds",
      "Requests by message type, from the turn that receives them until they are logged and answered",
      rows((store) => store.messages, (message) => ({ message })),
    ),
    metric("sealfs_requests_total", "counter", "Requests taken", each((one) => one.requests)),
    metric(
      "sealfs_requests_in_flight",
      "gauge",
      "Requests that are being executed",
      each((one) => one.requestsInFlight),
    ),
    metric("sealfs_request_duplicates_total", "counter", "Requests answered before", each((one) => one.duplicates)),
    metric("sealfs_requests_refused_total", "counter", "Requests refused", each((one) => one.refused)),
    metric("sealfs_frames_malformed_total", "counter", "Frames that could not be read", each((one) => one.malformed)),
    metric("sealfs_links", "gauge", "Connections of clients and servers", each((one) => one.links)),
    metric("sealfs_sessions", "gauge", "Client sessions that are connected", each((one) => one.clients)),
    metric("sealfs_calls_in_flight", "gauge", "Requests to other servers under way", each((one) => one.callsInFlight)),
    metric("sealfs_round_trips_total", "counter", "Requests sent to other servers", each((one) => one.roundTrips)),
    metric("sealfs_call_retries_total", "counter", "Requests sent again", each((one) => one.retries)),
    metric("sealfs_received_bytes_total", "counter", "Bytes received", each((one) => one.bytesReceived)),
    metric("sealfs_sent_bytes_total", "counter", "Bytes sent", each((one) => one.bytesSent)),
    metric("sealfs_leased_inodes", "gauge", "Inodes with leases, or being changed", each((one) => one.leasedInodes)),
    metric("sealfs_leases_granted_total", "counter", "Leases granted", each((one) => one.leasesGranted)),
    metric("sealfs_lease_recalls_total", "counter", "Leases taken back", each((one) => one.recalls)),
    metric("sealfs_lease_waits_total", "counter", "Changes that waited for leases", each((one) => one.leaseWaits)),
    metric("sealfs_log_writes_total", "counter", "Writes to the log", each((one) => one.logWrites)),
    metric("sealfs_log_written_bytes_total", "counter", "Bytes written to the log", each((one) => one.logBytes)),
    metric("sealfs_log_syncs_total", "counter", "Syncs of a log file", each((one) => one.logSyncs)),
    metric("sealfs_log_fill_ratio", "gauge", "Part of the log that is in use", each((one) => one.logFill)),
    metric("sealfs_image_fill_ratio", "gauge", "Part of the image that is in use", each((one) => one.imageFill)),
    metric("sealfs_data_used_bytes", "gauge", "Room taken by contents", each((one) => one.dataBytes)),
    metric("sealfs_data_capacity_bytes", "gauge", "Room that there can be", each((one) => one.dataBytesMax)),
    histogram(
      "sealfs_checkpoint_seconds",
      "Blocking parts of checkpoints",
      rows((store) => store.checkpoints, () => ({})),
    ),
    ...reactorMetrics(stores.map(({ figures }, store) => ({ labels: { store }, figures }))),
  ].join("");
}
