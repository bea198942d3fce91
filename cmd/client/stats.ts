/**
 * `sealfs client stats`: what the mounts of this machine do, interval by interval.
 *
 * @module
 */

import { resolve } from "@std/path";
import { bold } from "@std/fmt/colors";
import { command } from "../flags.ts";
import { humanSize, table, writeOut } from "../output.ts";
import { clientFlags, jsonFlag } from "./common.ts";
import {
  askMetrics,
  type CacheRate,
  countText,
  latencyText,
  type MountRates,
  ratesOf,
  shareText,
} from "./mount_rates.ts";

const intervalMsDefault = 1000;
/** Moves to the top of the screen and clears it. */
const clearScreen = "\x1b[H\x1b[2J";

function operationTable({ operations, seconds }: MountRates): string {
  const right = { align: "right" } as const, done = operations.filter(({ count }) => count > 0);
  if (done.length === 0) return "no operations\n";
  return table(
    [
      { title: "operation" },
      { title: "ops/s", ...right },
      { title: "p50", ...right },
      { title: "p99", ...right },
      { title: "max", ...right },
      { title: "trips/op", ...right },
      { title: "data/s", ...right },
    ],
    done.map((one) => [
      one.operation,
      countText(one.perSecond),
      latencyText(one.p50Ms),
      latencyText(one.p99Ms),
      latencyText(one.maxMs),
      (one.roundTrips / one.count).toFixed(2),
      one.bytes === 0 ? "" : humanSize(one.bytes / seconds),
    ]),
  );
}

/** The figures of an interval for people. */
export function statsText(rates: MountRates): string {
  const { mountpoint, volume, state, seconds, names, attributes, reactors } = rates;
  const each = (value: number) => countText(value / seconds);
  const cache = ({ hits, misses }: CacheRate) => {
    return `${shareText(hits, hits + misses)} of ${each(hits + misses)}/s`;
  };
  const rows: [string, string][] = [
    ["cache", `names ${cache(names)}, attributes ${cache(attributes)}, ${countText(rates.cachedInodes)} inodes`],
    ["leases", `${each(rates.recalls)}/s taken back`],
    [
      "servers",
      `${each(rates.roundTrips)} round trips/s, ${each(rates.retries)}/s again, ` +
      `${humanSize(rates.bytesSent / seconds)}/s sent, ${humanSize(rates.bytesReceived / seconds)}/s received`,
    ],
    [
      "in flight",
      `${rates.requestsInFlight} requests, ${rates.callsInFlight} calls to servers, ${rates.openFiles} open files`,
    ],
    ...reactors.map(({ cpu, turns, tasks }, index): [string, string] => {
      return [`reactor ${index}`, `${(cpu * 100).toFixed(1)} % CPU, ${each(turns)} turns/s, ${tasks} tasks`];
    }),
  ];
  const title = `${mountpoint}, volume ${volume}${state === "mounted" ? "" : `: ${state}`}`;
  const lines = rows.map(([name, text]) => `${name.padEnd(10)}  ${text}\n`);
  return `${bold(title)}\n${operationTable(rates)}${lines.join("")}`;
}

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client stats",
    summary: "Show what mounts do, interval by interval",
    details:
      "Operations are those of the kernel, measured in the daemon from their arrival to their reply; trips are\n" +
      "requests to servers. Percentiles are at most an eighth too high. Ends with Ctrl-C, or after --count intervals;\n" +
      "--json prints a line an interval and mount, with counts of the interval.",
    flags: [
      ...clientFlags,
      {
        name: "interval",
        type: "duration",
        min: 100,
        max: 86_400_000,
        value: "SECONDS",
        help: "length of an interval",
        default: intervalMsDefault,
        shownDefault: intervalMsDefault / 1000,
      },
      { name: "count", type: "integer", min: 1, help: "intervals to show; until Ctrl-C if not given" },
      jsonFlag,
    ],
    positionals: [{ name: "MOUNTPOINT", help: "one mount; all of the daemon if not given", optional: true }],
    examples: ["sealfs client stats", "sealfs client stats ~/fs --interval 5 --count 12 --json"],
  },
  async ({ flags, positionals }) => {
    const { count = Infinity, interval } = flags;
    const mountpoint = positionals.MOUNTPOINT === undefined ? undefined : resolve(positionals.MOUNTPOINT);
    const live = !flags.json && Deno.stdout.isTerminal();
    let before = await askMetrics(flags, mountpoint);
    for (let shown = 0; shown < count; shown++) {
      await new Promise((done) => setTimeout(done, interval));
      const after = await askMetrics(flags, mountpoint);
      const rates = after.flatMap((mount) => {
        const earlier = before.find((one) => one.mountpoint === mount.mountpoint);
        return earlier === undefined ? [] : [ratesOf(earlier, mount)];
      });
      if (flags.json) writeOut(rates.map((one) => `${JSON.stringify(one)}\n`).join(""));
      else if (rates.length === 0) writeOut("no mounts\n");
      else writeOut((live ? clearScreen : "") + rates.map((one) => `${statsText(one)}\n`).join(""));
      before = after;
    }
    return 0;
  },
);
