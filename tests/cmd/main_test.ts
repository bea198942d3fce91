/** The entry point, as a process. */

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { buildExecutable } from "../../cmd/build.ts";
import { selfCommand } from "../../cmd/self.ts";

async function run(...args: string[]) {
  const [path, ...rest] = selfCommand(args);
  const { code, stdout, stderr } = await new Deno.Command(path, { args: rest, stdin: "null" }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("sealfs --version prints the version of deno.json", async () => {
  assertEquals(await run("--version"), { code: 0, stdout: `sealfs ${config.version}\n`, stderr: "" });
});

Deno.test("sealfs --help lists the commands and exits 0, without colours in a pipe", async () => {
  const { code, stdout } = await run("--help");
  assertEquals(code, 0);
  assertStringIncludes(stdout, "Usage: sealfs [FLAGS] COMMAND");
});

Deno.test("sealfs exits 2 with one line when the command is unknown or missing", async () => {
  assertEquals(await run("nonsense"), {
    code: 2,
    stdout: "",
    stderr: 'sealfs: unknown command "nonsense". See sealfs --help\n',
  });
  assertMatch((await run()).stderr, /^sealfs: a command is missing\. See sealfs --help\n$/);
  assertEquals((await run("--nonsense")).code, 2);
});

Deno.test("buildExecutable() gives an executable that runs with an empty environment", async () => {
  const path = await buildExecutable();
  const cache = Deno.makeTempDirSync();
  try {
    const env = { XDG_CACHE_HOME: cache };
    const { code, stdout } = await new Deno.Command(path, { args: ["--version"], env, clearEnv: true }).output();
    assertEquals([code, new TextDecoder().decode(stdout)], [0, `sealfs ${config.version}\n`]);
  } finally {
    Deno.removeSync(cache, { recursive: true });
  }
});
