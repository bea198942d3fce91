/**
 * Processes of sealfs for tests: started from the sources, waited for, ended by their own ids, whatever the test does.
 *
 * @module
 */

import { Child } from "../../cmd/child.ts";
import { selfCommand } from "../../cmd/self.ts";

/** What a command did. */
export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs sealfs to its end. */
export async function sealfs(args: string[], env: Record<string, string> = {}): Promise<Outcome> {
  const [path, ...rest] = selfCommand(args);
  const { code, stdout, stderr } = await new Deno.Command(path, { args: rest, env, stdin: "null" }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** A manager on a free port, in a folder. */
export async function startManager(
  folder: string,
  args: string[] = [],
): Promise<{ manager: Child; address: string }> {
  const manager = new Child(["manager", "--address=127.0.0.1:0", `--data-path=${folder}`, ...args]);
  try {
    const [, address] = await manager.says(/ready at (\S+:\d+),/);
    return { manager, address };
  } catch (error) {
    await manager.end("SIGKILL");
    throw error;
  }
}

/** A port that was free a moment ago. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return listener.addr.port;
}

/** Calls `body` with a new folder, which is removed afterwards. */
export async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "sealfs-test-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
