/**
 * `sealfs client fsck`: checks the whole cluster, and repairs it.
 *
 * @module
 */

import { bold, green, red, yellow } from "@std/fmt/colors";
import type { CheckProgress } from "../../core/check/walk.ts";
import type { ToldFinding } from "../../ffi/check_messages.ts";
import { type CheckResult, runCheck } from "../../ffi/check_process.ts";
import { openLogger } from "../../ffi/log.ts";
import { command, CommandError } from "../flags.ts";
import { humanDuration, humanSize, printJson, writeOut } from "../output.ts";
import { clientFlags, ioTimeoutMs, jsonFlag, secretOf } from "./common.ts";

/** Findings of a list that are shown without `--json`. */
const shownMax = 100;
const colours = { error: red, warning: yellow, note: (text: string) => text };
const encoder = new TextEncoder();

/** `1 error`, `2 errors`, `1,024 inodes`. */
function count(number: number, what: string): string {
  return `${number.toLocaleString("en-US")} ${what}${number === 1 ? "" : "s"}`;
}

/** Shows how far it is, on a terminal, in one line that is written over. */
class ProgressLine {
  readonly #shown = Deno.stderr.isTerminal();

  show({ doing, shardsDone, shards, inodes, verifiedBytes, repaired }: CheckProgress): void {
    const done = `${shardsDone} of ${count(shards, "shard")}, ${count(inodes, "inode")}`;
    if (doing === "repair") this.#write(`repairing: ${repaired} done`);
    else if (doing === "look again") {
      this.#write(`looking again, at what is wrong and at what is being changed: ${done}`);
    } else this.#write(`checking: ${done}, ${humanSize(verifiedBytes)} of data verified`);
  }

  clear(): void {
    this.#write("");
  }

  #write(text: string): void {
    if (this.#shown) Deno.stderr.writeSync(encoder.encode(`\r\x1b[K${text}`));
  }
}

function line({ severity, path, text, refused }: ToldFinding): string {
  const where = path === undefined ? "" : `${path}: `, why = refused === undefined ? "" : ` (not repaired: ${refused})`;
  return `${colours[severity](severity)}: ${where}${text}${why}\n`;
}

function list(title: string, findings: readonly ToldFinding[]): string {
  if (findings.length === 0) return "";
  const lines = findings.slice(0, shownMax).map(line);
  if (findings.length > shownMax) lines.push(`... and ${findings.length - shownMax} more: --json shows all\n`);
  return `${title === "" ? "" : bold(title) + "\n"}${lines.join("")}`;
}

/** What is wrong, notes left out. */
function problemsOf({ findings, omitted }: CheckResult): number {
  return findings.filter(({ severity }) => severity !== "note").length + omitted;
}

function verdict(result: CheckResult, repair: boolean): string {
  const { findings, omitted, repaired } = result;
  const of = (severity: string) => findings.filter((finding) => finding.severity === severity).length;
  const parts: string[] = [];
  if (of("error") > 0) parts.push(count(of("error"), "error"));
  if (of("warning") > 0) parts.push(count(of("warning"), "warning"));
  if (omitted > 0) parts.push(`${count(omitted, "finding")} more`);
  const wrong = problemsOf(result) > 0;
  if (of("note") > 0) parts.push(count(of("note"), "note"));
  const state = wrong ? red(parts.join(", ")) : green("clean") + (parts.length > 0 ? `, ${parts.join(", ")}` : "");
  const done = repaired.length > 0 ? `${count(repaired.length, "thing")} repaired, now ` : "";
  const can = findings.filter(({ repairable }) => repairable).length;
  const hint = wrong && !repair && can > 0
    ? `; --repair can repair ${can === findings.length ? "all of it" : can}`
    : "";
  return `${done}${state}${hint}`;
}

function summary(result: CheckResult, options: { repair: boolean; data: boolean; tookMs: number }): string {
  const { inodes, names, chunks, dataBytes, unsettled } = result;
  const data = `${humanSize(dataBytes)}${options.data ? "" : ", not verified"}`;
  const dentries = names === 1 ? "1 dentry" : `${names.toLocaleString("en-US")} dentries`;
  const what = `${count(inodes, "inode")}, ${dentries}, ${count(chunks, "chunk")} (${data})`;
  const busy = unsettled === 0
    ? ""
    : `${
      count(unsettled, "thing")
    } could not be settled, being changed all the time: check again when there is less work\n`;
  return `${busy}checked ${what} in ${humanDuration(options.tookMs)}: ${verdict(result, options.repair)}\n`;
}

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client fsck",
    summary: "Check the whole cluster, and repair it",
    details:
      "Every shard is read: names, inodes, link counts, chunks, usage, work left over; servers compare all data\n" +
      "with its checksums. Volumes may be in use meanwhile. Exit code 0: nothing is wrong, or all was repaired; 1:\n" +
      "something is wrong. A file without a name gets one in lost+found of its volume. Damaged data is only named.",
    flags: [
      ...clientFlags,
      { name: "repair", type: "boolean", help: "repair what can be repaired without guessing" },
      { name: "no-data", type: "boolean", help: "leave the contents of files alone: much faster" },
      jsonFlag,
    ],
    examples: ["sealfs client fsck", "sealfs client fsck --repair"],
  },
  async ({ flags }) => {
    const progress = new ProgressLine(), startMs = performance.now(), data = !flags["no-data"];
    const result = await runCheck({
      managerAddress: flags["manager-address"],
      secret: secretOf(flags),
      logger: openLogger({ level: flags["log-level"], file: flags["log-file"] }),
      ioTimeoutMs: ioTimeoutMs(flags),
      verifyData: data,
      repair: flags.repair,
      onProgress: (now) => progress.show(now),
    }).finally(() => progress.clear());
    if (typeof result === "string") throw new CommandError(`cannot check the cluster: ${result}`);
    const tookMs = Math.round(performance.now() - startMs), clean = problemsOf(result) === 0;
    if (flags.json) printJson({ ...result, tookMs, clean });
    else {
      writeOut(list(result.findings.length > 0 ? "repaired:" : "", result.repaired));
      writeOut(list(result.repaired.length > 0 ? "not repaired:" : "", result.findings));
      writeOut(summary(result, { repair: flags.repair, data, tookMs }));
    }
    return clean ? 0 : 1;
  },
);
