/**
 * The asker's side of an agent (agent.ts): starts the process, makes calls, ends it. A call has a time limit; a process
 * that does not keep it is killed, so nothing that a file system does can hang the tests.
 *
 * @module
 */

import { fromFileUrl } from "@std/path";
import { decode } from "cbor-x";
import { type Answer, type Call, frame } from "./agent.ts";

/** Time a call may take, waiting for locks included. */
const callTimeoutMs = 30_000;

const agentFile = fromFileUrl(new URL("./agent.ts", import.meta.url));

/** Command line of an agent. Another way of running programs puts its own in front. */
export const agentCommand = [
  Deno.execPath(),
  "run",
  "-A",
  "--no-check",
  "--v8-flags=--max-old-space-size=128",
  agentFile,
];

interface Waiting {
  resolve: (answer: Answer) => void;
  reject: (error: Error) => void;
  deadlineMs: number;
}

/** A running agent. */
export class AgentProcess {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #waiting: Waiting[] = [];
  readonly #timer: ReturnType<typeof setInterval>;
  #ended: string | null = null;

  constructor(command: readonly string[]) {
    const [program, ...args] = command;
    this.#child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped", stderr: "inherit" }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#timer = setInterval(() => this.#watch(), 1000);
    void this.#receive();
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** True while an answer is waited for. */
  get busy(): boolean {
    return this.#waiting.length > 0;
  }

  /** False when it has ended or is about to. */
  get usable(): boolean {
    return this.#ended === null;
  }

  /** Makes a call; rejects when the process ends before the answer. */
  async call(call: Call): Promise<Answer> {
    if (this.#ended !== null) throw new Error(this.#ended);
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    this.#waiting.push({ resolve, reject, deadlineMs: performance.now() + callTimeoutMs });
    this.#writer.write(frame(call)).catch(() => {});
    return await promise;
  }

  /** Ends it, by force if it is in a call. */
  async end(): Promise<void> {
    if (this.#waiting.length > 0) this.kill();
    await this.#writer.close().catch(() => {});
    const late = setTimeout(() => this.kill(), 5000);
    await this.#child.status;
    clearTimeout(late);
    clearInterval(this.#timer);
  }

  /** kill -9. */
  kill(): void {
    this.#ended ??= "the process was killed";
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      // It may have ended by itself.
      if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  #watch(): void {
    const first = this.#waiting.at(0);
    if (first === undefined || performance.now() < first.deadlineMs) return;
    this.#ended ??= `a call did not end within ${callTimeoutMs / 1000} s`;
    this.kill();
  }

  async #receive(): Promise<void> {
    let pending = new Uint8Array(0);
    for await (const chunk of this.#child.stdout) {
      const joined = new Uint8Array(pending.length + chunk.length);
      joined.set(pending);
      joined.set(chunk, pending.length);
      pending = joined;
      for (;;) {
        if (pending.length < 4) break;
        const length = new DataView(pending.buffer, pending.byteOffset).getUint32(0, true);
        if (pending.length < 4 + length) break;
        this.#waiting.shift()?.resolve(decode(pending.slice(4, 4 + length)));
        pending = pending.subarray(4 + length);
      }
    }
    const { code, signal } = await this.#child.status;
    this.#ended ??= `the process ended: ${signal ?? `exit code ${code}`}`;
    clearInterval(this.#timer);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(new Error(this.#ended));
  }
}
