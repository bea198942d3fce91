/**
 * What the reactor of a mount shows: requests of the kernel by operation, and figures of the reactor, the lease cache and
 * the links to servers.
 *
 * @module
 */

import type { ClientSession } from "../../core/client/session.ts";
import { FUSE } from "../../core/fuse/protocol.ts";
import { LatencyTable, type OperationFigures, sumOfFigures } from "../../core/metrics/latency_table.ts";
import type { Meter } from "../../core/metrics/meter.ts";
import type { MountStatus } from "../client_mounts.ts";
import type { Reactor } from "../reactor.ts";
import { Figures, publishWhenBusy, sharedMeter, tableMemory } from "./board.ts";
import { histogram, metric, processMetrics, reactorMetrics } from "./text.ts";

/** Opcodes that are told apart; the kernel's are below. */
const opcodes = 64;

const names = new Map(Object.entries(FUSE).map(([name, opcode]) => [opcode as number, name.toLowerCase()]));

const figureNames = [
  "processorMs",
  "turns",
  "enters",
  "submissions",
  "tasks",
  "requestsInFlight",
  "openFiles",
  "callsInFlight",
  "roundTrips",
  "retries",
  "bytesSent",
  "bytesReceived",
  "cachedInodes",
  "attributesFound",
  "attributesMissed",
  "namesFound",
  "namesMissed",
  "recalls",
] as const;

/** Figures of one reactor of a mount; counts are since its start. */
export type ClientFigures = Record<typeof figureNames[number], number>;

/** The shared memory of one reactor. */
export interface ClientMetricsMemory {
  operations: SharedArrayBuffer;
  figures: SharedArrayBuffer;
}

/** New memory, made by the main thread. */
export function clientMetricsMemory(): ClientMetricsMemory {
  return { operations: tableMemory(opcodes), figures: Figures.memory(figureNames) };
}

/** What the reactor's figures are taken from. */
export interface ClientSources {
  reactor: Reactor;
  session: ClientSession;
  /** Requests of the kernel under way, and open files. */
  mount: { readonly inFlight: number; readonly openFiles: number };
}

/** The meter of a mount's requests, for its reactor. */
export function clientMeter(reactor: Reactor, memory: ClientMetricsMemory): Meter {
  return sharedMeter(reactor, opcodes, memory.operations);
}

/** Where the session of a mount counts what its requests to servers are sent for. */
export function clientTrips(memory: ClientMetricsMemory): Float64Array {
  return new LatencyTable(opcodes, memory.operations).trips;
}

/** Puts the reactor's figures up from now on. */
export function publishClient({ reactor, session, mount }: ClientSources, memory: ClientMetricsMemory): void {
  const figures = new Figures(figureNames, memory.figures);
  const { caller, leases } = session;
  publishWhenBusy(reactor, () => {
    const { turns, enters, submissions, tasks } = reactor.statistics(), { counters } = caller;
    figures.set({
      processorMs: reactor.processorMs(),
      turns,
      enters,
      submissions,
      tasks,
      requestsInFlight: mount.inFlight,
      openFiles: mount.openFiles,
      callsInFlight: caller.active,
      roundTrips: sum(counters.sent),
      retries: counters.retries,
      bytesSent: counters.bytesSent,
      bytesReceived: counters.bytesReceived,
      cachedInodes: leases.size,
      attributesFound: leases.counters.attributes,
      attributesMissed: leases.counters.attributesMissed,
      namesFound: leases.counters.names,
      namesMissed: leases.counters.namesMissed,
      recalls: leases.counters.recalls,
    });
  });
}

/** What there is to tell of a mount at a moment. Plain data: it travels as JSON. */
export interface MountMetrics {
  mountpoint: string;
  volume: string;
  state: MountStatus["state"];
  /** Milliseconds of a clock that differences are taken of. */
  atMs: number;
  /** By operation, over all reactors. Work that is no request's has the name "background". */
  operations: OperationFigures[];
  /** Of each reactor; none while the mount is down. */
  reactors: ClientFigures[];
}

/** Reads the memory of a mount's reactors. */
export function readClient(memories: readonly ClientMetricsMemory[]): Pick<MountMetrics, "operations" | "reactors"> {
  const nameOf = (opcode: number) => opcode === 0 ? "background" : names.get(opcode) ?? `opcode ${opcode}`;
  return {
    operations: sumOfFigures(memories.map((memory) => new LatencyTable(opcodes, memory.operations).figures(nameOf))),
    reactors: memories.map((memory) => new Figures(figureNames, memory.figures).get()),
  };
}

function sum(numbers: readonly number[]): number {
  // Counters by type have holes, which forEach skips.
  let total = 0;
  numbers.forEach((count) => total += count);
  return total;
}

/** The page of a client's /metrics. */
export function clientMetricsText(mounts: readonly MountMetrics[], version: string): string {
  const labelsOf = ({ mountpoint, volume }: MountMetrics) => ({ mountpoint, volume });
  const each = (value: (mount: MountMetrics) => number) =>
    mounts.map((mount) => ({ labels: labelsOf(mount), value: value(mount) }));
  const total = (name: keyof ClientFigures) => each(({ reactors }) => sum(reactors.map((one) => one[name])));
  const operations = mounts.flatMap((mount) =>
    mount.operations.map((figures) => ({ labels: { ...labelsOf(mount), operation: figures.name }, figures }))
  );
  const bytes = (name: string) => each((mount) => mount.operations.find((one) => one.name === name)?.bytes ?? 0);
  const cache = (kind: string, found: keyof ClientFigures, missed: keyof ClientFigures) => [
    ...total(found).map(({ labels, value }) => ({ labels: { ...labels, kind, outcome: "hit" }, value })),
    ...total(missed).map(({ labels, value }) => ({ labels: { ...labels, kind, outcome: "miss" }, value })),
  ];
  return [
    processMetrics("client", version),
    metric(
      "sealfs_mount_up",
      "gauge",
      "1 when the mount can be used",
      each(({ state }) => state === "mounted" ? 1 : 0),
    ),
    histogram(
      "sealfs_fuse_request_seconds",
      "Requests of the kernel, from the turn that reads them to their reply",
      operations.filter(({ figures }) => figures.count > 0),
    ),
    metric(
      "sealfs_fuse_round_trips_total",
      "counter",
      "Requests sent to servers, by the operation that they were sent for",
      operations.map(({ labels, figures }) => ({ labels, value: figures.trips })),
    ),
    metric("sealfs_read_bytes_total", "counter", "Bytes that programs have read", bytes("read")),
    metric("sealfs_written_bytes_total", "counter", "Bytes that programs have written", bytes("write")),
    metric("sealfs_fuse_requests_in_flight", "gauge", "Requests of the kernel under way", total("requestsInFlight")),
    metric("sealfs_open_files", "gauge", "Open files", total("openFiles")),
    metric("sealfs_calls_in_flight", "gauge", "Requests to servers under way", total("callsInFlight")),
    metric("sealfs_round_trips_total", "counter", "Requests sent to servers", total("roundTrips")),
    metric("sealfs_call_retries_total", "counter", "Requests sent again", total("retries")),
    metric("sealfs_sent_bytes_total", "counter", "Bytes sent to servers", total("bytesSent")),
    metric("sealfs_received_bytes_total", "counter", "Bytes received from servers", total("bytesReceived")),
    metric("sealfs_cached_inodes", "gauge", "Inodes known under a lease", total("cachedInodes")),
    metric("sealfs_cache_questions_total", "counter", "Questions that the lease cache could and could not answer", [
      ...cache("attributes", "attributesFound", "attributesMissed"),
      ...cache("names", "namesFound", "namesMissed"),
    ]),
    metric("sealfs_lease_recalls_total", "counter", "Leases that servers have taken back", total("recalls")),
    ...reactorMetrics(
      mounts.flatMap((mount) =>
        mount.reactors.map((figures, reactor) => ({ labels: { ...labelsOf(mount), reactor }, figures }))
      ),
    ),
  ].join("");
}
