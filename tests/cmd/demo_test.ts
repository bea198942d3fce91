/** The demo, as a whole. */

import { assertEquals, assertMatch } from "@std/assert";
import { sealfs } from "./processes.ts";

const full = Deno.env.get("SEALFS_TEST_FULL") !== undefined;

Deno.test({
  name: "sealfs demo verifies everything and leaves nothing" +
    (full ? "" : " (ignored: takes a minute, task test:full)"),
  ignore: !full,
  fn: async () => {
    const { code, stdout, stderr } = await sealfs(["demo"]);
    assertEquals([code, stderr], [0, ""]);
    assertMatch(stdout, /\ndemo ok: \d+ files, \d+ MiB verified\n$/);
  },
});
