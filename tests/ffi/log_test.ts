/** The log. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { formatLine, lineBytesMax, openLogger } from "../../ffi/log.ts";

Deno.test("formatLine() makes one line of time, level, component and message", () => {
  const line = new TextDecoder().decode(formatLine(new Date(0), "warn", "store", "full\n  at\x1b[2J 95 %\n"));
  assertEquals(line, "1970-01-01T00:00:00.000Z WARN  store full | at?[2J 95 %\n");
});

Deno.test("formatLine() cuts what is too long, at a whole character, and ends the line", () => {
  for (const text of ["x".repeat(9000), "é".repeat(9000), "😀".repeat(9000)]) {
    const bytes = formatLine(new Date(0), "error", "c", text);
    assert(bytes.length <= lineBytesMax && bytes.length > lineBytesMax - 5);
    const line = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    assert(line.endsWith("\n") && !line.includes("\ufffd"));
  }
});

Deno.test("openLogger() writes lines of its level and above, appended to the file", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const file = `${folder}/log`;
    const first = openLogger({ level: "info", file }), second = openLogger({ level: "error", file });
    first.log("debug", "a", "unseen");
    first.log("info", "a", "one");
    second.log("warn", "b", "unseen");
    second.log("error", "b", "two");
    first.log("trace", "a", "unseen");
    first.log("warn", "a", "three");
    assertEquals([first.enabled("info"), first.enabled("debug")], [true, false]);
    const lines = Deno.readTextFileSync(file).split("\n");
    assertEquals(lines.map((line) => line.split(" ").at(-1)), ["one", "two", "three", ""]);
    assertMatch(lines[0], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO {2}a one$/);
    assertEquals((Deno.statSync(file).mode ?? 0) & 0o007, 0);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("openLogger() writes whole lines when workers share the file", async () => {
  const folder = await Deno.makeTempDir();
  const workers: Worker[] = [];
  try {
    const options = { level: "info", file: `${folder}/log` };
    const module = new URL("../../ffi/log.ts", import.meta.url).href;
    const source = `import { openLogger } from ${JSON.stringify(module)};
      const logger = openLogger(${JSON.stringify(options)});
      for (let i = 0; i < 500; i++) logger.log("info", "w", "x".repeat(i) + "end");
      self.postMessage("done");`;
    const done = [1, 2].map(() => {
      const worker = new Worker(`data:application/javascript;base64,${btoa(source)}`, { type: "module" });
      workers.push(worker);
      return new Promise((resolve, reject) => {
        worker.onmessage = resolve;
        worker.onerror = reject;
      });
    });
    await Promise.all(done);
    const lines = (await Deno.readTextFile(options.file)).trimEnd().split("\n");
    assertEquals(lines.length, 1000);
    for (const line of lines) assertMatch(line, /^\S+ INFO {2}w x*end$/);
  } finally {
    for (const worker of workers) worker.terminate();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("openLogger() does not fail its caller when the disk is full", { ignore: !exists("/dev/full") }, () => {
  openLogger({ level: "error", file: "/dev/full" }).log("error", "a", "lost");
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
