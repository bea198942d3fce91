/**
 * A whole cluster on this machine, one process a part: a manager, servers, client daemons. For `up` and `demo`.
 *
 * @module
 */

import { join } from "@std/path";
import { askDaemon, type DaemonStatus } from "../ffi/control.ts";
import { ManagerClient } from "../ffi/manager_client.ts";
import { Child } from "./child.ts";
import { CommandError } from "./flags.ts";

/** How long anything may take to come up. */
const startMs = 60_000;
const askMs = 120_000;
/** Detection of a lost server should not keep anybody waiting on one machine. */
const managerFlags = ["--heartbeat-interval-ms=500", "--server-timeout-ms=5000"];

/** How a cluster is made. */
export interface LocalClusterOptions {
  servers: number;
  /** Folder for the data of manager and servers; what is there already is used. */
  dataPath: string;
  /** Folder for sockets and logs; a short path. */
  runPath: string;
  logLevel: string;
  /** Hears of each part that is there. */
  progress: (line: string) => void;
}

/** A client daemon of the cluster. */
export interface LocalDaemon {
  readonly socketPath: string;
  readonly pid: number;
  mount(mountpoint: string, volume: string): Promise<void>;
  unmount(mountpoint: string): Promise<void>;
  status(): Promise<DaemonStatus>;
  stop(): Promise<void>;
}

/** See the module's comment. */
export class LocalCluster {
  /** `host:port` of the manager. */
  readonly managerAddress: string;
  readonly client: ManagerClient;
  /** Settles with a line when a part ends that was not told to. */
  readonly broken: Promise<string>;
  readonly #options: LocalClusterOptions;
  readonly #parts: { name: string; child: Child }[] = [];
  readonly #break: (line: string) => void;
  #stopping = false;

  private constructor(options: LocalClusterOptions, manager: Child, managerAddress: string) {
    this.#options = options;
    this.managerAddress = managerAddress;
    const { promise, resolve } = Promise.withResolvers<string>();
    this.broken = promise;
    this.#break = resolve;
    const logger = { options: { level: "error" as const }, enabled: () => false, log: () => {} };
    this.client = new ManagerClient({ address: managerAddress, logger });
    this.#add("manager", manager);
  }

  /** Starts manager and servers. Throws {@linkcode CommandError}, and then nothing is left running. */
  static async start(options: LocalClusterOptions): Promise<LocalCluster> {
    const { dataPath, progress } = options;
    const manager = new Child([
      "manager",
      "--address=127.0.0.1:0",
      `--data-path=${join(dataPath, "manager")}`,
      ...managerFlags,
      ...logArguments(options, "manager"),
    ]);
    let cluster: LocalCluster;
    try {
      const [, address] = await manager.says(/ready at (\S+:\d+),/);
      cluster = new LocalCluster(options, manager, address);
    } catch (error) {
      await manager.end();
      throw new CommandError(`the manager did not start: ${(error as Error).message}`);
    }
    progress(`manager at ${cluster.managerAddress}`);
    try {
      for (let n = 1; n <= options.servers; n++) await cluster.#startServer(n);
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  async #startServer(n: number): Promise<void> {
    const { dataPath, progress } = this.#options;
    const address = `127.0.0.1:${freePort()}`;
    const folder = join(dataPath, `server${n}`);
    const child = new Child([
      "server",
      `--manager-address=${this.managerAddress}`,
      `--server-address=${address}`,
      `--database-path=${join(folder, "database")}`,
      `--storage-path=${join(folder, "storage")}`,
      ...logArguments(this.#options, `server${n}`),
    ]);
    this.#add(`server ${n}`, child);
    try {
      await child.says(/ready at/);
    } catch (error) {
      throw new CommandError(`server ${n} did not start: ${(error as Error).message}`);
    }
    progress(`server ${n} at ${address}`);
  }

  /** Makes a volume unless there is one of the name. */
  async ensureVolume(name: string, sizeBytes: number): Promise<void> {
    const signal = AbortSignal.timeout(startMs);
    if ((await this.client.listVolumes()).some((one) => one.name === name && one.state === "live")) return;
    const asked = { name, sizeBytes, servers: this.#options.servers };
    await this.client.patiently(() => this.client.createVolume(asked), signal);
  }

  /** Starts a client daemon; `name` is for its socket and log. */
  async startDaemon(name: string): Promise<LocalDaemon> {
    const socketPath = join(this.#options.runPath, `${name}.sock`);
    const child = new Child([
      "client",
      "daemon",
      `--manager-address=${this.managerAddress}`,
      `--socket-path=${socketPath}`,
      `--state-path=${this.#options.runPath}/${name}`,
      ...logArguments(this.#options, name),
    ]);
    this.#add(name, child);
    try {
      await child.says(/ready at/);
    } catch (error) {
      throw new CommandError(`the client daemon did not start: ${(error as Error).message}`);
    }
    const ask = async (question: Parameters<typeof askDaemon>[1]) => {
      try {
        return await askDaemon(socketPath, question, askMs);
      } catch (error) {
        throw new CommandError((error as Error).message);
      }
    };
    return {
      socketPath,
      pid: child.pid,
      mount: async (mountpoint, volume) => void await ask({ ask: "mount", wish: { mountpoint, volume, options: "" } }),
      unmount: async (mountpoint) => void await ask({ ask: "unmount", mountpoint, lazy: false }),
      status: async () => await ask({ ask: "probe" }) as DaemonStatus,
      stop: () => this.#end(child),
    };
  }

  /** Stops everything, clients first, and waits for it. Returns what did not stop cleanly, in words. */
  async stop(): Promise<string[]> {
    this.#stopping = true;
    const problems: string[] = [];
    const end = async (parts: { name: string; child: Child }[]) => {
      await Promise.all(parts.map(async ({ name, child }) => {
        if (!child.runs) return;
        const code = await child.end();
        if (code !== 0) problems.push(`${name} ended with exit code ${code}: ${child.output.trim()}`);
      }));
    };
    const isServer = (name: string) => name.startsWith("server ");
    await end(this.#parts.filter(({ name }) => name !== "manager" && !isServer(name)));
    await end(this.#parts.filter(({ name }) => isServer(name)));
    await end(this.#parts.filter(({ name }) => name === "manager"));
    this.client.close();
    return problems;
  }

  #add(name: string, child: Child): void {
    this.#parts.push({ name, child });
    child.ended.then((code) => {
      if (this.#stopping || !this.#parts.some((part) => part.child === child)) return;
      this.#break(`${name} ended with exit code ${code}: ${child.output.trim()}`);
    });
  }

  async #end(child: Child): Promise<void> {
    const at = this.#parts.findIndex((part) => part.child === child);
    if (at >= 0) this.#parts.splice(at, 1);
    const code = await child.end();
    if (code !== 0) throw new CommandError(`a client daemon ended with exit code ${code}: ${child.output.trim()}`);
  }
}

function logArguments({ runPath, logLevel }: LocalClusterOptions, name: string): string[] {
  return [`--log-level=${logLevel}`, `--log-file=${join(runPath, `${name}.log`)}`];
}

/** A port that was free a moment ago. */
function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return listener.addr.port;
}
