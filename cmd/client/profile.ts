/**
 * `sealfs client profile`: where the time of a mount goes.
 *
 * @module
 */

import { resolve } from "@std/path";
import { command } from "../flags.ts";
import { printJson, table, writeOut } from "../output.ts";
import { clientFlags, jsonFlag } from "./common.ts";
import { askMetrics, countText, latencyText, type MountRates, ratesOf, shareText } from "./mount_rates.ts";

const durationMsDefault = 10_000;

/** The profile for people. */
export function profileText({ operations, seconds, roundTrips, reactors }: MountRates): string {
  const right = { align: "right" } as const;
  const count = operations.reduce((sum, one) => sum + one.count, 0);
  const totalMs = operations.reduce((sum, one) => sum + one.totalMs, 0);
  const cpu = reactors.reduce((sum, one) => sum + one.cpu, 0);
  const rows = operations.map((one) => [
    one.operation,
    countText(one.count),
    latencyText(one.totalMs),
    shareText(one.totalMs, totalMs),
    one.count === 0 ? "" : latencyText(one.p50Ms),
    one.count === 0 ? "" : latencyText(one.p99Ms),
    one.count === 0 ? "" : latencyText(one.maxMs),
    countText(one.roundTrips),
    one.count === 0 ? "" : (one.roundTrips / one.count).toFixed(2),
  ]);
  const columns = [
    { title: "operation" },
    { title: "count", ...right },
    { title: "time", ...right },
    { title: "share", ...right },
    { title: "p50", ...right },
    { title: "p99", ...right },
    { title: "max", ...right },
    { title: "trips", ...right },
    { title: "trips/op", ...right },
  ];
  const list = rows.length === 0 ? "no operations\n" : table(columns, rows);
  return `${list}\n${countText(count)} operations and ${countText(roundTrips)} requests to servers in ` +
    `${seconds.toFixed(1)} s, ${(cpu * 100).toFixed(1)} % of a processor\n`;
}

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client profile",
    summary: "Show where the time of a mount goes",
    details:
      "Time is what operations of the kernel took in the daemon, their waiting for servers included; of operations\n" +
      'that run at once it adds up. Trips are requests to servers, those of "background" for no operation alone.',
    flags: [
      ...clientFlags,
      {
        name: "seconds",
        type: "duration",
        min: 100,
        max: 86_400_000,
        value: "SECONDS",
        help: "how long to watch",
        default: durationMsDefault,
        shownDefault: durationMsDefault / 1000,
      },
      jsonFlag,
    ],
    positionals: [{ name: "MOUNTPOINT", help: "where it is mounted" }],
    examples: ["sealfs client profile ~/fs --seconds 30"],
  },
  async ({ flags, positionals }) => {
    const mountpoint = resolve(positionals.MOUNTPOINT);
    const [before] = await askMetrics(flags, mountpoint);
    await new Promise((done) => setTimeout(done, flags.seconds));
    const [after] = await askMetrics(flags, mountpoint);
    const rates = ratesOf(before, after);
    if (flags.json) printJson(rates);
    else writeOut(profileText(rates));
    return 0;
  },
);
