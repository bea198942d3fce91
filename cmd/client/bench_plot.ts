/**
 * The results of `sealfs client bench` as a picture: an SVG of bars, without scripts or fonts of its own.
 *
 * @module
 */

import type { PhaseResult } from "../../ffi/bench/run.ts";
import { countText, latencyText } from "./mount_rates.ts";

const width = 960, rowHeight = 24, barHeight = 15, headHeight = 58, titleHeight = 40;
const labelWidth = 250, barWidthMax = 380, margin = 16;
const colours = { small: "#3b6ea5", large: "#4d8b57" };

interface Chart {
  title: string;
  unit: string;
  colour: string;
  rows: { label: string; value: number; note: string }[];
}

function escape(text: string): string {
  const named: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  // deno-lint-ignore no-control-regex -- XML has no place for them.
  return text.replace(/[&<>"]/g, (character) => named[character]).replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, "?");
}

function text(x: number, y: number, content: string, more = ""): string {
  return `<text x="${x}" y="${y}"${more}>${escape(content)}</text>\n`;
}

function chartOf(title: string, unit: string, colour: string, results: readonly PhaseResult[]): Chart {
  const rows = results.map(({ title, p50Ms, p99Ms, operationsPerSecond, mebibytesPerSecond }) => ({
    label: title,
    value: unit === "MiB/s" ? mebibytesPerSecond : operationsPerSecond,
    note: `p50 ${latencyText(p50Ms)}, p99 ${latencyText(p99Ms)}`,
  }));
  return { title, unit, colour, rows };
}

function draw({ title, unit, colour, rows }: Chart, top: number): string {
  const largest = Math.max(...rows.map(({ value }) => value), Number.MIN_VALUE);
  const bars = rows.map(({ label, value, note }, index) => {
    const y = top + titleHeight + index * rowHeight, baseline = y + barHeight - 3;
    const length = Math.max(1, Math.round(value / largest * barWidthMax)), x = margin + labelWidth;
    return text(x - 8, baseline, label, ' text-anchor="end"') +
      `<rect x="${x}" y="${y}" width="${length}" height="${barHeight}" fill="${colour}"/>\n` +
      text(x + length + 6, baseline, `${countText(value)} ${unit}`) +
      text(width - margin, baseline, note, ' text-anchor="end" fill="#777"');
  });
  return text(margin, top + 22, title, ' font-size="15" font-weight="bold"') + bars.join("");
}

/** The picture. `subtitle`: what was measured, and how. */
export function benchPlot(results: readonly PhaseResult[], { title, subtitle }: { title: string; subtitle: string }) {
  const large = results.filter(({ phase }) => /Large$/.test(phase));
  const random = results.filter(({ phase }) => /Random$/.test(phase));
  const lists = results.filter(({ phase }) => phase.startsWith("list"));
  const small = results.filter((result) => ![...large, ...random, ...lists].includes(result));
  const charts = [
    chartOf("Small files", "/s", colours.small, small),
    chartOf("Entries of directories listed", "/s", colours.small, lists),
    chartOf("Large files, in order", "MiB/s", colours.large, large),
    chartOf("Large files, anywhere", "/s", colours.large, random),
  ].filter(({ rows }) => rows.length > 0);
  let top = headHeight, body = "";
  for (const chart of charts) {
    body += draw(chart, top);
    top += titleHeight + chart.rows.length * rowHeight + margin;
  }
  return `<?xml version="1.0" encoding="UTF-8"?>\n` +
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${top}" width="${width}" height="${top}" ` +
    `font-family="sans-serif" font-size="12">\n<rect width="${width}" height="${top}" fill="#fff"/>\n` +
    text(margin, 26, title, ' font-size="18" font-weight="bold"') + text(margin, 46, subtitle, ' fill="#777"') +
    `${body}</svg>\n`;
}
