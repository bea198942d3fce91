/**
 * A process of sealfs that another one starts as a part of itself: in a session of its own, so that Ctrl-C reaches the
 * starter alone, and gone when the starter is gone.
 *
 * @module
 */

import { selfCommand } from "./self.ts";
import { withParentVariable } from "./signals.ts";

/** How long a process may take to say that it is ready, or to end. */
const patienceMs = 60_000;
/** Characters of output that are kept. */
const outputCharsMax = 64 * 1024;

/** See the module's comment. */
export class Child implements AsyncDisposable {
  /** The end of what it has written to stdout and stderr. */
  output = "";
  /** Settles with the exit code. */
  readonly ended: Promise<number>;
  readonly #child: Deno.ChildProcess;
  #code: number | null = null;
  #changed = Promise.withResolvers<void>();

  /** Starts `sealfs ARGS`. */
  constructor(args: readonly string[], env: Record<string, string> = {}) {
    const [path, ...rest] = selfCommand(args);
    this.#child = new Deno.Command(path, {
      args: rest,
      env: { [withParentVariable]: "1", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      detached: true,
    }).spawn();
    const streams = [this.#child.stdout, this.#child.stderr].map((stream) => this.#collect(stream));
    this.ended = this.#child.status.then(async ({ code }) => {
      await Promise.all(streams);
      this.#code = code;
      this.#notify();
      return code;
    });
  }

  /** Process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** True until it has ended. */
  get runs(): boolean {
    return this.#code === null;
  }

  /** Waits until the output has `pattern`. Throws an Error with the output when the process ends or takes too long. */
  async says(pattern: RegExp): Promise<RegExpExecArray> {
    const limit = performance.now() + patienceMs;
    for (;;) {
      const found = pattern.exec(this.output);
      if (found !== null) return found;
      if (this.#code !== null) throw new Error(this.output.trim() || `ended with exit code ${this.#code}`);
      const leftMs = limit - performance.now();
      if (leftMs <= 0) throw new Error(`not ready within ${patienceMs / 1000} s: ${this.output.trim()}`);
      await this.#wait(leftMs);
    }
  }

  /** Sends a signal, if it still runs, and waits for the end, which is enforced in the end. The exit code. */
  async end(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    this.#kill(signal);
    const timer = setTimeout(() => this.#kill("SIGKILL"), patienceMs);
    const code = await this.ended;
    clearTimeout(timer);
    return code;
  }

  /** Kills it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }

  #kill(signal: Deno.Signal): void {
    try {
      if (this.#code === null) this.#child.kill(signal);
    } catch { // It ended in this moment.
    }
  }

  async #collect(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.output = (this.output + text).slice(-outputCharsMax);
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
