/** `sealfs client bench`: what it prints and draws, and that Ctrl-C leaves nothing. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { stripAnsiCode } from "@std/fmt/colors";
import { benchText } from "../../cmd/client/bench.ts";
import { benchPlot } from "../../cmd/client/bench_plot.ts";
import { Child } from "../../cmd/child.ts";
import { phasesOf } from "../../ffi/bench/plan.ts";
import { sealfs, withFolder } from "./processes.ts";

const results = phasesOf({ files: 1, largeBytes: 1 }).map(({ name, title }, index) => ({
  phase: name,
  title,
  operations: 1000 * (index + 1),
  bytes: name.startsWith("stat") ? 0 : 4_096_000,
  seconds: 2,
  operationsPerSecond: 500 * (index + 1),
  mebibytesPerSecond: 1.95,
  p50Ms: 0.1,
  p99Ms: 12.34,
  maxMs: 2500,
}));

/** Throws unless `text` is well-formed XML of the kind that is drawn: elements, attributes, text, no comments. */
function checkXml(text: string): void {
  const open: string[] = [];
  let at = text.indexOf("?>") + 2;
  for (const { index, 0: tag } of text.slice(at).matchAll(/<[^>]*>/g)) {
    const between = text.slice(at, text.indexOf("?>") + 2 + index);
    assert(!/&(?!(amp|lt|gt|quot);)|>/.test(between), between);
    assertMatch(tag, /^<(\/[a-z]+|[a-z]+( [a-zA-Z-]+="[^"<&]*")*\/?)>$/);
    if (tag.startsWith("</")) assertEquals(open.pop(), tag.slice(2, -1));
    else if (!tag.endsWith("/>")) open.push(/^<([a-z]+)/.exec(tag)![1]);
    at = text.indexOf("?>") + 2 + index + tag.length;
  }
  assertEquals(open, []);
}

Deno.test("benchText() has a line a phase", () => {
  const lines = stripAnsiCode(benchText(results)).trimEnd().split("\n");
  assertEquals(lines.length, 17);
  assertMatch(lines[1], /^create, write, close; own directory +1,000 +2\.00 s +500 +2 +0\.100 ms +12\.3 ms +2\.5 s$/);
  assertMatch(lines[2], /^stat; own directory +2,000 +2\.00 s +1,000 +0\.100 ms/);
});

Deno.test("benchPlot() is well-formed and shows every phase, whatever its title holds", () => {
  const text = benchPlot(results, { title: 'bench of <a & "b">\x01', subtitle: "2 at once" });
  checkXml(text);
  assertStringIncludes(text, "bench of &lt;a &amp; &quot;b&quot;&gt;?</text>");
  for (const { title } of results) assertStringIncludes(text, `>${title}</text>`);
  assertEquals([...text.matchAll(/<rect [^>]*fill="#3b6ea5"/g)].length, 12);
  const widths = [...text.matchAll(/<rect [^>]*width="(\d+)"[^>]*fill="#3b6ea5"/g)].map(([, width]) => Number(width));
  // Listings have a chart of their own, behind the others.
  assert(widths.slice(0, 10).every((width, i) => i === 0 || width > widths[i - 1]));
  checkXml(benchPlot([], { title: "nothing", subtitle: "" }));
});

Deno.test("sealfs client bench measures a folder, prints JSON, draws, and says what is wrong", async () => {
  await withFolder(async (folder) => {
    const small = ["--files=20", "--size=1MiB", "--processes=3"], bench = ["client", "bench"];
    const { code, stdout, stderr } = await sealfs([...bench, folder, ...small, "--json", `--svg=${folder}/a.svg`]);
    assertEquals([code, stderr], [0, ""]);
    const { phases, processes } = JSON.parse(stdout);
    assertEquals([phases.length, processes, phases[0].operations], [16, 3, 60]);
    checkXml(await Deno.readTextFile(`${folder}/a.svg`));
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["a.svg"]);
    assertMatch((await sealfs([...bench, folder, ...small])).stdout, /^PHASE .*\ncreate, write, close; own directory/);
    const nothing = await sealfs([...bench, folder, "--files=0", "--size=0"]);
    assertEquals([nothing.code, nothing.stderr.includes("leave nothing to do")], [2, true]);
    const noPlot = await sealfs([...bench, folder, `--svg=${folder}/no/a.svg`]);
    assertEquals(noPlot.code, 1);
    assertStringIncludes(noPlot.stderr, `cannot write ${folder}/no/a.svg: `);
    assertMatch((await sealfs([...bench, folder, "--size=1023TiB"])).stderr, /too large/);
    assertMatch((await sealfs([...bench, folder, "--size=1TiB", "--processes=64"])).stderr, /MiB free, and the bench/);
  });
});

Deno.test("sealfs client bench removes everything after Ctrl-C", async () => {
  await withFolder(async (folder) => {
    await using bench = new Child(["client", "bench", folder, "--files=1000000", "--size=0", "--seconds=300"]);
    for (let tries = 0; tries < 400 && [...Deno.readDirSync(folder)].length === 0; tries++) {
      await new Promise((done) => setTimeout(done, 25));
    }
    await new Promise((done) => setTimeout(done, 300));
    assertEquals(await bench.end("SIGINT"), 1);
    assertStringIncludes(bench.output, "stopped; everything that it made is removed");
    assertEquals([...Deno.readDirSync(folder)], []);
  });
});
