/**
 * The text format of Prometheus, version 0.0.4: what /metrics answers on every process.
 *
 * @module
 */

import { bucketEndMs, type OperationFigures } from "../../core/metrics/latency_table.ts";

/** Media type of the text. */
export const metricsType = "text/plain; version=0.0.4; charset=utf-8";

/** Histograms have a bound at each power of two of microseconds from 2^4 (16 us) to 2^24 (17 s). */
const boundPowers = { first: 4, last: 24 };
/** Units of /proc/self/stat's processor times: USER_HZ is 100 on Linux. */
const ticksPerSecond = 100;

/** Labels of a sample. */
export type Labels = Readonly<Record<string, string | number>>;

/** One line of a metric. */
export interface Sample {
  labels?: Labels;
  value: number;
}

/** A metric with its samples; nothing when there are none. */
export function metric(name: string, type: "counter" | "gauge", help: string, samples: readonly Sample[]): string {
  if (samples.length === 0) return "";
  const lines = samples.map(({ labels = {}, value }) => `${name}${labelText(labels)} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

/** The durations of operations as a histogram in seconds, one of each row's labels. */
export function histogram(
  name: string,
  help: string,
  rows: readonly { labels: Labels; figures: OperationFigures }[],
): string {
  if (rows.length === 0) return "";
  const lines = rows.map(({ labels, figures }) => {
    const { buckets, totalMs } = figures, count = buckets.reduce((sum, [, part]) => sum + part, 0);
    let below = 0, next = 0, text = "";
    for (let power = boundPowers.first; power <= boundPowers.last; power++) {
      const boundMs = 2 ** power / 1000;
      for (; next < buckets.length && bucketEndMs(buckets[next][0]) <= boundMs; next++) below += buckets[next][1];
      text += `${name}_bucket${labelText({ ...labels, le: 2 ** power / 1e6 })} ${below}\n`;
    }
    text += `${name}_bucket${labelText({ ...labels, le: "+Inf" })} ${count}\n`;
    return `${text}${name}_sum${labelText(labels)} ${totalMs / 1000}\n${name}_count${labelText(labels)} ${count}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} histogram\n${lines.join("")}`;
}

/** What every process says of itself. `role`: manager, server or client. */
export function processMetrics(role: string, version: string): string {
  const [user, system] = processorTicks();
  return [
    metric("sealfs_build_info", "gauge", "Version of the program", [{ labels: { role, version }, value: 1 }]),
    metric("process_cpu_seconds_total", "counter", "Processor time of all threads", [
      { value: (user + system) / ticksPerSecond },
    ]),
    metric("process_resident_memory_bytes", "gauge", "Resident memory", [{ value: Deno.memoryUsage().rss }]),
    metric("process_start_time_seconds", "gauge", "Start of the process since 1970", [
      { value: Math.round(performance.timeOrigin / 1000) },
    ]),
  ].join("");
}

/** User and system time of this process, in ticks. */
function processorTicks(): [number, number] {
  const line = Deno.readTextFileSync("/proc/self/stat");
  // The name may hold anything: fields count from behind it. utime is field 14, stime field 15.
  const fields = line.slice(line.lastIndexOf(")") + 2).split(" ");
  return [Number(fields[11]), Number(fields[12])];
}

/** Figures that every reactor has. */
type ReactorFigures = Record<"processorMs" | "turns" | "enters" | "submissions" | "tasks", number>;

/** Metrics of reactors, of clients and of servers. */
export function reactorMetrics(
  reactors: readonly { labels: Labels; figures: ReactorFigures }[],
): string[] {
  const each = (value: (figures: ReactorFigures) => number) =>
    reactors.map(({ labels, figures }) => ({ labels, value: value(figures) }));
  const time = each(({ processorMs }) => processorMs / 1000);
  return [
    metric("sealfs_reactor_cpu_seconds_total", "counter", "Processor time of a reactor's thread", time),
    metric("sealfs_reactor_turns_total", "counter", "Turns of a reactor", each(({ turns }) => turns)),
    metric("sealfs_reactor_enters_total", "counter", "Calls of io_uring_enter", each(({ enters }) => enters)),
    metric(
      "sealfs_reactor_submissions_total",
      "counter",
      "Operations submitted",
      each(({ submissions }) => submissions),
    ),
    metric("sealfs_reactor_tasks", "gauge", "Tasks that have not ended", each(({ tasks }) => tasks)),
  ];
}

function labelText(labels: Labels): string {
  const list = Object.entries(labels).map(([key, value]) => `${key}="${escape(String(value))}"`).join(",");
  return list === "" ? "" : `{${list}}`;
}

function escape(text: string): string {
  return text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
}
