/** `deno task io500`: what it asks for before it starts anything, and the configuration that it makes. */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { missingFor, withFolders } from "../../bench/io500.ts";

const example = new URL("../../examples/io500.ini", import.meta.url).pathname;

Deno.test("deno task io500 says in one line what is wrong, before it starts anything", async () => {
  const task = new URL("../../bench/io500.ts", import.meta.url).pathname;
  const attempt = async (...args: string[]) => {
    const command = new Deno.Command(Deno.execPath(), { args: ["run", "-A", "--no-check", task, ...args] });
    const { code, stderr } = await command.output();
    return [code, new TextDecoder().decode(stderr)];
  };
  const [code, message] = await attempt("--binary=/nowhere/io500");
  assertEquals(code, 1);
  assertStringIncludes(String(message), "/nowhere/io500 does not exist: build IO500");
  const [wrong, reason] = await attempt("--ranks=2");
  assertEquals([wrong, String(reason).split("\n").length], [2, 2]);
  assertStringIncludes(String(reason), "--binary is needed");
});

Deno.test("missingFor() says what is missing and how to get it", () => {
  const options = { binary: "/nowhere/io500", config: example, ranks: 2, servers: 3, timeoutMs: 1000 };
  assertStringIncludes(missingFor(options), "/nowhere/io500 does not exist: build IO500");
  assertStringIncludes(missingFor({ ...options, binary: example }), "is not an executable file");
  assertStringIncludes(missingFor({ ...options, binary: "/bin/true", config: "/no.ini" }), "/no.ini does not exist");
  const path = Deno.env.get("PATH")!;
  Deno.env.set("PATH", "/nowhere");
  try {
    assertStringIncludes(missingFor({ ...options, binary: "/bin/true" }), "mpirun is not in PATH: install an MPI");
  } finally {
    Deno.env.set("PATH", path);
  }
});

Deno.test("withFolders() puts the folders into the example, and nowhere else", () => {
  const text = Deno.readTextFileSync(example), folders = { datadir: "/m/$&", resultdir: "/r" };
  const made = withFolders(text, folders)!;
  const changed = made.split("\n").filter((line, i) => line !== text.split("\n")[i]);
  assertEquals(changed, ["datadir = /m/$&", "resultdir = /r"]);
  assertStringIncludes(made, "timestamp-datadir = FALSE\n");
  assertStringIncludes(made, "stonewall-time = 10\n");
  assertEquals(withFolders("[global]\ndatadir = x\n", folders), undefined);
});
