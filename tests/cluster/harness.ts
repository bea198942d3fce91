/**
 * Whole clusters of real processes in a fresh temporary folder: manager, servers, client daemons with their own sockets
 * and mounts, from the built executable or from the sources.
 *
 * A file system that hangs fails its test and never takes the test runner with it, if the test touches mounts by child
 * processes or by Deno's asynchronous calls: everything has a time limit, and the end of the client daemons ends such
 * calls. What is started is ended by its own process id, and every mount is undone, whatever happens.
 *
 * @module
 */

import { fromFileUrl, join } from "@std/path";
import { buildExecutable } from "../../cmd/build.ts";
import { type FuseTransport, transportDefault } from "../../ffi/fuse/mount.ts";

/** The project's folder. */
export const root = fromFileUrl(new URL("../..", import.meta.url)).replace(/\/$/, "");

/** Time a process may take until it says that it is ready. */
const readyTimeoutMs = 30_000;
/** Time a process may take to end after SIGTERM. */
const stopTimeoutMs = 20_000;
/** Time a command of the client may take unless told otherwise. */
const cliTimeoutMs = 90_000;
/** Bytes of a log that a failure shows. */
const logTailBytes = 6_000;
/** Bytes of a program's output that a failure shows. */
const outputTailChars = 3_000;
const pollMs = 20;

/** Settles after `ms` milliseconds. */
export function sleep(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

/** A program's end. */
export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** How a program is run. */
export interface RunOptions {
  cwd?: string;
  env?: Record<string, string>;
  timeoutMs?: number;
  /** Written to its stdin, which is closed then. */
  input?: string;
}

/** Process groups of {@linkcode attempt} that have not ended. */
const running = new Set<number>();

/** Runs a program to its end, whatever its exit code. Kills it with all its children and throws when it takes too long. */
export async function attempt(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const { timeoutMs = 60_000, input } = options;
  const [program, ...args] = command;
  const child = new Deno.Command(program, {
    args,
    cwd: options.cwd,
    env: options.env,
    stdin: input === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    // A process group of its own, so that the whole of it can be killed.
    detached: true,
  }).spawn();
  running.add(child.pid);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    signal(-child.pid, "SIGKILL");
  }, timeoutMs);
  if (input !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(input)).catch(() => {});
    await writer.close().catch(() => {});
  }
  const output = await child.output();
  clearTimeout(timer);
  running.delete(child.pid);
  const decoder = new TextDecoder();
  const outcome = { code: output.code, stdout: decoder.decode(output.stdout), stderr: decoder.decode(output.stderr) };
  if (late) throw new Error(`${command.join(" ")}: not done after ${timeoutMs / 1000} s\n${tail(outcome)}`);
  return outcome;
}

/** Runs a program; its stdout. Throws with what it said when its exit code is not 0. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const outcome = await attempt(command, options);
  if (outcome.code !== 0) throw new Error(`${command.join(" ")}: exit code ${outcome.code}\n${tail(outcome)}`);
  return outcome.stdout;
}

/** Command line of a TypeScript program in this folder. */
export function script(name: string, ...args: string[]): string[] {
  return [Deno.execPath(), "run", "-A", "--no-check", join(root, "tests", "cluster", name), ...args];
}

/** A shell script that ends at the first failure. */
export function shell(text: string): string[] {
  return ["bash", "-euo", "pipefail", "-c", text];
}

function tail({ stdout, stderr }: Outcome): string {
  return [stdout, stderr].map((text) => text.slice(-outputTailChars)).join("\n").trim();
}

function signal(pid: number, name: Deno.Signal): void {
  try {
    Deno.kill(pid, name);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** A port on 127.0.0.1 that nobody listens on. */
function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}

/** Text of /proc/self/mountinfo. */
function mountInfo(): string {
  return Deno.readTextFileSync("/proc/self/mountinfo");
}

/** Whether something is mounted at `path` (which must have no characters that mountinfo escapes). */
export function isMountpoint(path: string): boolean {
  return mountInfo().split("\n").some((line) => line.split(" ")[4] === path);
}

/** A long-running process of the cluster; it can be killed and started again. */
export class Process {
  #child: Deno.ChildProcess | null = null;
  #status: Promise<Deno.CommandStatus> | null = null;
  /** Starts so far. */
  starts = 0;

  constructor(
    /** For messages, and of its log. */
    readonly name: string,
    readonly command: readonly string[],
    readonly env: Record<string, string>,
    readonly log: string,
  ) {}

  /** Process id; 0 while it does not run. */
  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Starts it; settles when it says that it is ready. */
  async start(): Promise<void> {
    const from = size(this.log);
    this.starts++;
    const child = new Deno.Command("sh", {
      args: ["-c", 'log=$1; shift; exec "$@" >>"$log" 2>&1', "sh", this.log, ...this.command],
      env: this.env,
      clearEnv: true,
      cwd: "/",
      stdin: "null",
      stdout: "null",
      stderr: "null",
      // A Ctrl-C at the terminal is the test runner's: it ends the processes in its own order.
      detached: true,
    }).spawn();
    this.#child = child;
    this.#status = child.status;
    let ended = false;
    child.status.then(() => ended = true);
    const limit = performance.now() + readyTimeoutMs;
    while (!/^sealfs [^\n]* ready at /m.test(textFrom(this.log, from))) {
      if (ended) throw new Error(`${this.name} ended at its start`);
      if (performance.now() > limit) throw new Error(`${this.name} was not ready in ${readyTimeoutMs / 1000} s`);
      await sleep(pollMs);
    }
  }

  /** `kill -9`; settles when it is dead. */
  async kill9(): Promise<void> {
    const status = this.#status;
    if (this.#child === null || status === null) return;
    signal(this.#child.pid, "SIGKILL");
    await status;
    this.#child = this.#status = null;
  }

  /** Sends a signal. */
  signal(name: Deno.Signal): void {
    if (this.#child !== null) signal(this.#child.pid, name);
  }

  /** SIGTERM, then SIGKILL when that takes too long. What went wrong, undefined when it ended cleanly. */
  async stop(): Promise<string | undefined> {
    const child = this.#child, status = this.#status;
    if (child === null || status === null) return undefined;
    signal(child.pid, "SIGTERM");
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      signal(child.pid, "SIGKILL");
    }, stopTimeoutMs);
    const { code } = await status;
    clearTimeout(timer);
    this.#child = this.#status = null;
    if (late) return `${this.name} did not stop within ${stopTimeoutMs / 1000} s of SIGTERM`;
    return code === 0 ? undefined : `${this.name} ended with exit code ${code}`;
  }
}

function size(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

function textFrom(path: string, offset: number): string {
  try {
    return new TextDecoder().decode(Deno.readFileSync(path).subarray(offset));
  } catch {
    return "";
  }
}

/** A client daemon and its mount. */
export interface Client {
  daemon: Process;
  /** The mountpoint. */
  path: string;
  /** Flags that lead `sealfs client` to this daemon. */
  flags: string[];
}

/** What a cluster is made of. */
export interface ClusterOptions {
  /** Default 3. */
  servers?: number;
  /** Client daemons, each with a mount of the volume; default 2. */
  clients?: number;
  /** Stores a server; default 1. */
  stores?: number;
  /** Size of the volume `test1`; default 20 GiB. */
  volumeSize?: string;
  /** Run `cmd/main.ts` instead of the built executable. */
  fromSource?: boolean;
  /** Where data goes; default: the cluster's own folder. It is not removed. */
  dataPath?: string;
  /** Run every process of the cluster on this processor only. */
  pin?: number;
  /** Least severe log lines; default warn. */
  logLevel?: string;
  /** `--io-timeout` of the client daemons in seconds; default 60. */
  ioTimeoutS?: number;
  /** Serve metrics and health of every process, see {@linkcode Cluster.metrics}. */
  metrics?: boolean;
  /** `-o transport` of the mounts; default {@linkcode transportAsked}. */
  transport?: FuseTransport;
  /** Time that everything done with it may take; default 5 minutes. */
  timeoutMs?: number;
}

/** What SEALFS_TEST_TRANSPORT asks for: by what mounts are served. */
const transportAsked = (Deno.env.get("SEALFS_TEST_TRANSPORT") ?? transportDefault) as FuseTransport;

/** The name of the volume of a {@linkcode Cluster}. */
export const volume = "test1";

/** A running cluster. Use {@linkcode withCluster}. */
export class Cluster {
  readonly servers: Process[] = [];
  readonly clients: Client[] = [];
  readonly managerAddress: string;
  /** `host:port` of /metrics of each process, by its name, if they were asked for. */
  readonly metrics: Record<string, string> = {};
  readonly manager: Process;
  readonly #options: ClusterOptions;
  readonly #program: readonly string[];
  readonly #env: Record<string, string>;
  readonly #data: string;

  constructor(
    /** The cluster's own folder: logs, mounts and, unless told otherwise, data. */
    readonly folder: string,
    program: readonly string[],
    options: ClusterOptions,
  ) {
    this.#options = options;
    this.#program = options.pin === undefined ? program : ["taskset", "-c", String(options.pin), ...program];
    this.#data = options.dataPath ?? join(folder, "data");
    this.#env = { PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin", HOME: Deno.env.get("HOME") ?? folder };
    this.#env.XDG_CACHE_HOME = join(folder, "cache");
    // From source, Deno's own cache is needed; it lies in the cache folder unless told.
    if (options.fromSource === true) {
      delete this.#env.XDG_CACHE_HOME;
      const denoDir = Deno.env.get("DENO_DIR");
      if (denoDir !== undefined) this.#env.DENO_DIR = denoDir;
    }
    this.managerAddress = `127.0.0.1:${freePort()}`;
    const config = join(folder, "manager.yaml");
    this.manager = this.#process("manager", ["manager", "--config", config]);
  }

  /** Where the processes log. */
  get logs(): string {
    return join(this.folder, "logs");
  }

  #process(name: string, args: string[]): Process {
    if (this.#options.metrics === true) {
      args.push(`--metrics-address=${this.metrics[name] = `127.0.0.1:${freePort()}`}`);
    }
    return new Process(name, [...this.#program, ...args], this.#env, join(this.logs, `${name}.log`));
  }

  /** Starts everything; volume `test1` is mounted at every client when it settles. */
  async start(): Promise<void> {
    const { servers = 3, clients = 2, stores = 1, volumeSize = "20GiB", logLevel = "warn" } = this.#options;
    const { folder } = this;
    for (const path of [this.logs, join(folder, "cache")]) Deno.mkdirSync(path, { mode: 0o700 });
    Deno.mkdirSync(this.#data, { recursive: true });
    Deno.writeTextFileSync(
      join(folder, "manager.yaml"),
      `address: ${this.managerAddress}\ndata_path: ${join(this.#data, "manager")}\nlog_level: ${logLevel}\n` +
        "heartbeat_interval_ms: 500\nserver_timeout_ms: 3000\n",
    );
    await this.manager.start();
    for (let number = 1; number <= servers; number++) {
      this.servers.push(this.#process(`server${number}`, [
        "server",
        `--manager-address=${this.managerAddress}`,
        `--server-address=127.0.0.1:${freePort()}`,
        `--database-path=${join(this.#data, `server${number}`, "database")}`,
        `--storage-path=${join(this.#data, `server${number}`, "storage")}`,
        `--stores=${stores}`,
        `--log-level=${logLevel}`,
      ]));
    }
    await Promise.all(this.servers.map((server) => server.start()));
    await this.cli("create", volume, volumeSize, `--servers=${servers}`);
    await Promise.all(Array.from({ length: clients }, () => this.addClient()));
  }

  /** Starts one more client daemon and mounts the volume by it. */
  async addClient(): Promise<Client> {
    const { logLevel = "warn", ioTimeoutS = 60 } = this.#options;
    const number = this.clients.length + 1, path = join(this.folder, `mount${number}`);
    const flags = [
      `--manager-address=${this.managerAddress}`,
      `--socket-path=${join(this.folder, `client${number}.sock`)}`,
      `--state-path=${join(this.folder, `client${number}`)}`,
      `--io-timeout=${ioTimeoutS}`,
    ];
    Deno.mkdirSync(path);
    const daemon = this.#process(`client${number}`, ["client", "daemon", ...flags, `--log-level=${logLevel}`]);
    const client = { daemon, path, flags };
    this.clients.push(client);
    await daemon.start();
    await this.mount(client, path, volume);
    return client;
  }

  /** Mounts a volume by the daemon of a client, with `-o options`. */
  async mount(client: Client, path: string, volume: string, options: string = ""): Promise<void> {
    const { transport = transportAsked } = this.#options;
    await this.clientCli(client, "mount", "-o", `transport=${transport},${options}`, path, volume);
  }

  /** Runs `sealfs client ...` against the manager; its stdout. Throws when its exit code is not 0. */
  cli(...args: string[]): Promise<string> {
    return run([...this.#program, "client", `--manager-address=${this.managerAddress}`, ...args], this.#cliOptions());
  }

  /** As {@linkcode cli}, for the daemon of a client. */
  clientCli(client: Client, ...args: string[]): Promise<string> {
    return run([...this.#program, "client", ...client.flags, ...args], this.#cliOptions());
  }

  #cliOptions(): RunOptions {
    return { env: this.#env, timeoutMs: cliTimeoutMs, cwd: "/" };
  }

  /** Settles when the mount of a client is up, as its daemon says. */
  async mounted(client: Client): Promise<void> {
    const limit = performance.now() + readyTimeoutMs;
    for (;;) {
      const mounts: { state: string }[] = JSON.parse(await this.clientCli(client, "list-mountpoints", "--json"));
      if (mounts.length === 1 && mounts[0].state === "mounted") return;
      if (performance.now() > limit) throw new Error(`${client.path} was not mounted: ${JSON.stringify(mounts)}`);
      await sleep(pollMs * 5);
    }
  }

  /** `sealfs client fsck` finds nothing, not even a thing that it could not settle; throws with its report otherwise. */
  async check(): Promise<void> {
    const report = await this.cli("fsck");
    if (!/^checked [^\n]*: clean\n$/.test(report)) throw new Error(`fsck: ${report}`);
  }

  /** Unmounts and stops everything in order; what did not end as it should, one line each. */
  async stop(): Promise<string[]> {
    const problems: string[] = [];
    await Promise.all(this.clients.map(async (client) => {
      if (!isMountpoint(client.path)) return;
      await this.clientCli(client, "umount", client.path).catch((error) => problems.push(error.message));
    }));
    for (const group of [this.clients.map((client) => client.daemon), this.servers, [this.manager]]) {
      const ends = await Promise.all(group.map((process) => process.stop()));
      problems.push(...ends.filter((end) => end !== undefined));
    }
    return problems;
  }

  /** Kills everything that still runs and undoes every mount. Never throws. */
  async clear(): Promise<void> {
    const processes = [...this.clients.map((client) => client.daemon), ...this.servers, this.manager];
    await Promise.all(processes.map((process) => process.kill9()));
    for (const pid of running) signal(-pid, "SIGKILL");
    for (const { path } of this.clients) {
      for (let layers = 0; isMountpoint(path) && layers < 10; layers++) {
        await attempt(["umount", "-l", path], { timeoutMs: 10_000 }).catch(() => {});
      }
    }
  }

  /** The ends of all logs, for a failure. */
  logTails(): string {
    const processes = [this.manager, ...this.servers, ...this.clients.map((client) => client.daemon)];
    return processes.map(({ name, log }) => {
      const text = textFrom(log, Math.max(0, size(log) - logTailBytes)).trim();
      return `--- log of ${name}\n${text}`;
    }).join("\n");
  }

  /** Lines of the logs with this level: "error" or "warn". */
  logged(level: "error" | "warn"): string[] {
    const processes = [this.manager, ...this.servers, ...this.clients.map((client) => client.daemon)];
    const pattern = new RegExp(`^\\S+Z ${level.toUpperCase()}\\s`);
    return processes.flatMap(({ name, log }) =>
      textFrom(log, 0).split("\n").filter((line) => pattern.test(line)).map((line) => `${name}: ${line}`)
    );
  }
}

/**
 * Runs `body` with a fresh cluster. Its end is part of the test: everything must stop cleanly. A failure shows the ends of
 * the logs; whatever happens, nothing of the cluster is left.
 */
export async function withCluster(options: ClusterOptions, body: (cluster: Cluster) => Promise<void>): Promise<void> {
  const main = join(root, "cmd", "main.ts");
  const program = options.fromSource === true ? [Deno.execPath(), "run", "-A", main] : [await buildExecutable()];
  const folder = Deno.makeTempDirSync({ prefix: "sealfs-cluster-" });
  const cluster = new Cluster(folder, program, options);
  const { timeoutMs = 300_000 } = options;
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`not done after ${timeoutMs / 1000} s`)), timeoutMs);
  try {
    await cluster.start();
    await Promise.race([body(cluster), late.promise]);
    const problems = await cluster.stop();
    if (problems.length > 0) throw new Error(problems.join("\n"));
  } catch (error) {
    const message = error instanceof Error ? error.stack ?? error.message : String(error);
    throw new Error(`${message}\n${cluster.logTails()}`);
  } finally {
    clearTimeout(timer);
    await cluster.clear();
    // What is still mounted must not be emptied.
    if (!cluster.clients.some((client) => isMountpoint(client.path))) Deno.removeSync(folder, { recursive: true });
  }
}
