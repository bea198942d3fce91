/**
 * Processes of sealfs for tests: started from the sources, waited for, ended by their own ids, whatever the test does.
 *
 * @module
 */

import { selfCommand } from "../../cmd/self.ts";

/** How long a process may take to say that it is ready, or to end. */
const patienceMs = 30_000;

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

/** A process that runs. */
export class Running implements AsyncDisposable {
  /** What it has written to stdout and stderr so far. */
  output = "";
  readonly #child: Deno.ChildProcess;
  readonly #streams: Promise<void>[];
  #ended: Deno.CommandStatus | null = null;
  #changed = Promise.withResolvers<void>();

  constructor(args: string[], env: Record<string, string> = {}) {
    const [path, ...rest] = selfCommand(args);
    this.#child = new Deno.Command(path, { args: rest, env, stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
    this.#streams = [this.#child.stdout, this.#child.stderr].map((stream) => this.#collect(stream));
    this.#child.status.then((status) => {
      this.#ended = status;
      this.#notify();
    });
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Waits until the output has `pattern`; throws with the output when the process ends or takes too long. */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    const limit = performance.now() + patienceMs;
    for (;;) {
      const found = pattern.exec(this.output);
      if (found !== null) return found;
      if (this.#ended !== null) throw new Error(`ended with ${this.#ended.code} before ${pattern}:\n${this.output}`);
      if (performance.now() > limit) throw new Error(`no ${pattern}:\n${this.output}`);
      await this.#wait(limit - performance.now());
    }
  }

  /** Sends a signal and waits for the end; the exit code. */
  async end(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    if (this.#ended === null) this.#child.kill(signal);
    return await this.code();
  }

  /** Waits for the end; the exit code. */
  async code(): Promise<number> {
    const late = setTimeout(() => this.#child.kill("SIGKILL"), patienceMs);
    const { code } = await this.#child.status;
    clearTimeout(late);
    await Promise.all(this.#streams);
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }

  async #collect(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.output += text;
      this.#notify();
    }
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  async #wait(ms: number): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, ms);
    await Promise.race([this.#changed.promise, late.promise]);
    clearTimeout(timer);
  }
}

/** A manager on a free port, in a folder. */
export async function startManager(
  folder: string,
  args: string[] = [],
): Promise<{ manager: Running; address: string }> {
  const manager = new Running(["manager", "--address=127.0.0.1:0", `--data-path=${folder}`, ...args]);
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
