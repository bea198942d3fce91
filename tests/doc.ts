/**
 * Runs the examples in doc comments, and in the README, against a small cluster that lives as long as they run. Examples
 * find it by SEALFS_MANAGER_ADDRESS and make volumes of names of their own.
 *
 * @module
 */

import { fromFileUrl, join } from "@std/path";
import { LocalCluster } from "../cmd/local_cluster.ts";

const root = fromFileUrl(new URL("..", import.meta.url));
const places = ["mod.ts", "core", "ffi", "cmd", "README.md"];

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

const folder = Deno.makeTempDirSync({ prefix: "sealfs-doc-" });
let code = 1;
try {
  const cluster = await LocalCluster.start({
    servers: 1,
    dataPath: folder,
    runPath: folder,
    logLevel: "warn",
    progress: () => {},
  });
  try {
    const there = places.filter((place) => exists(join(root, place)));
    const args = ["test", "-A", "--doc", "--no-check", "--permit-no-files", ...there];
    const env = { SEALFS_MANAGER_ADDRESS: cluster.managerAddress };
    code = (await new Deno.Command(Deno.execPath(), { args, cwd: root, env, stdin: "null" }).spawn().status).code;
  } finally {
    for (const problem of await cluster.stop()) {
      console.error(problem);
      code ||= 1;
    }
  }
} finally {
  Deno.removeSync(folder, { recursive: true });
}
Deno.exit(code);
