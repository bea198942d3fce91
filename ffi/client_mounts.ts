/**
 * The mounts of one client process: each is a FUSE mount served by a reactor Worker of its own, announced to the
 * manager, kept up through failures until somebody unmounts it.
 *
 * A mount that cannot be made or that breaks is tried again for ever, if it was asked for earlier (a restored one, or
 * one that has been up); a new one fails at once. For the main thread.
 *
 * @module
 */

import type { AccessTimePolicy } from "../core/client/volume.ts";
import { volumeState } from "../core/placement/map.ts";
import type { ClientOrder, ClientReport, ClientStop, ClientWorkerStart } from "./client_messages.ts";
import {
  cleanDeadMount,
  findMount,
  fuseFileSystemType,
  type FuseTransport,
  mountFuse,
  type MountOptions,
  mountpointPath,
  parseMountOptions,
  placeOfDevice,
  setReadAhead,
  unmount,
} from "./fuse/mount.ts";
import { uringMissing } from "./fuse/uring.ts";
import { Keeper } from "./keeper.ts";
import { closeFd, cstr, libc, MNT } from "./libc.ts";
import type { Logger } from "./log.ts";
import { MainMailbox } from "./mailbox.ts";
import { ManagerFailure, pause } from "./manager_client.ts";
import { ManagerSession } from "./manager_session.ts";
import {
  type ClientMetricsMemory,
  clientMetricsMemory,
  type MountMetrics,
  readClient,
} from "./metrics/client_metrics.ts";
import { resolveHost } from "./resolve.ts";

/** Mounts of one process. */
export const mountsPerProcessMax = 256;
/** Time a Worker may take until the kernel's INIT is answered. */
const readyTimeoutMs = 30_000;
/** Time a Worker may take to release everything after an unmount. */
const endTimeoutMs = 10_000;
/** Pauses between attempts to bring a mount up again: the first, then doubled up to the longest. */
const againMs = { first: 250, longest: 10_000 } as const;

/** What is to be mounted. */
export interface MountWish {
  /** Absolute path of a directory. */
  mountpoint: string;
  /** Name of the volume. */
  volume: string;
  /** Words of `-o`, comma-separated; `ro` among them means read-only. */
  options: string;
}

/** A mount as lists show it. */
export interface MountStatus extends MountWish {
  readOnly: boolean;
  transport: FuseTransport;
  /** `waiting`: it is down and will be tried again. */
  state: "starting" | "mounted" | "waiting" | "ending";
  /** Why it is down, "" when it is not. */
  problem: string;
}

/** A refusal: one line for a person. */
export class MountFailure extends Error {
  override name = "MountFailure";
}

/** What the mounts are served with. */
export interface ClientMountsOptions {
  /** `host:port`. */
  managerAddress: string;
  secret?: string;
  /** How long a request is retried before it ends in EIO, and how long mounting waits for the manager. */
  ioTimeoutMs: number;
  /** Program and arguments that run a keeper (ffi/keeper.ts). */
  keeperCommand: readonly string[];
  logger: Logger;
  /** Called after a mount was added for good or taken away. */
  onChange: () => void;
}

/** A Worker that serves. */
interface Served {
  worker: Worker;
  mailbox: MainMailbox;
  session: ManagerSession;
  /** Of each of its reactors. */
  metrics: ClientMetricsMemory[];
  /** Settles when the Worker has ended, with the reason. */
  ended: Promise<string>;
}

interface Mount {
  wish: MountWish;
  readOnly: boolean;
  transport: FuseTransport;
  state: MountStatus["state"];
  problem: string;
  /** For the next Worker; a Worker that ends takes its session with it. Null until it is needed. */
  session: ManagerSession | null;
  served: Served | null;
  /** `major:minor` of the kernel's mount: it is found by it when its folder has been renamed. */
  device: string;
  /** Aborted when somebody wants it gone. */
  gone: AbortController;
}

/** See the module's comment. */
export class ClientMounts {
  readonly #options: ClientMountsOptions;
  readonly #mounts = new Map<string, Mount>();
  readonly #keeper: Keeper;
  #stopping = false;

  constructor(options: ClientMountsOptions) {
    this.#options = options;
    this.#keeper = new Keeper(options.keeperCommand, options.logger);
  }

  /** All mounts. */
  list(): MountStatus[] {
    return [...this.#mounts.values()].map(({ wish, readOnly, transport, state, problem }) => ({
      ...wish,
      readOnly,
      transport,
      state,
      problem,
    }));
  }

  /** Figures of all mounts, read without their reactors' doing. */
  metrics(): MountMetrics[] {
    const atMs = performance.now();
    return [...this.#mounts.values()].map(({ wish: { mountpoint, volume }, state, served }) => {
      return { mountpoint, volume, state, atMs, ...readClient(served?.metrics ?? []) };
    });
  }

  /** Mounts a volume; programs can use it when this settles. Rejects with a {@linkcode MountFailure}, and nothing stays. */
  async mount(asked: MountWish): Promise<void> {
    this.#forgetUndone(mountpointPath(asked.mountpoint));
    const mount = this.#add(asked);
    try {
      await this.#serve(mount);
    } catch (error) {
      this.#mounts.delete(mount.wish.mountpoint);
      await mount.session?.close();
      throw error;
    }
    this.#watch(mount);
    this.#options.onChange();
  }

  /** Brings mounts of an earlier life back, each as soon as it can be. */
  restore(wishes: readonly MountWish[]): void {
    for (const wish of wishes) {
      try {
        const mount = this.#add(wish);
        mount.state = "waiting";
        // A crash left it; the bare directory is better than a dead mount until the manager answers.
        cleanDeadMount(mount.wish.mountpoint);
        this.#again(mount);
      } catch (error) {
        this.#log("error", `${wish.mountpoint} is not restored: ${(error as Error).message}`);
      }
    }
  }

  /**
   * Unmounts; nothing is served any more when this settles. Lazy: the mount disappears now and is served until the last
   * file in it is closed. Rejects with a {@linkcode MountFailure} when it is busy.
   */
  async unmount(path: string, lazy: boolean): Promise<void> {
    const mountpoint = mountpointPath(path);
    const mount = this.#mounts.get(mountpoint);
    if (mount === undefined) throw new MountFailure(`${mountpoint} is not mounted by this daemon`);
    if (mount.state === "starting") throw new MountFailure(`${mountpoint} is being mounted`);
    const before = mount.state;
    mount.state = "ending";
    try {
      if (mount.served !== null) unmount(placeOfDevice(mount.device) ?? mountpoint, { lazy });
    } catch (error) {
      mount.state = before;
      throw new MountFailure((error as Error).message);
    }
    mount.gone.abort();
    this.#mounts.delete(mountpoint);
    this.#options.onChange();
    await mount.session?.close();
    if (mount.served !== null && !lazy) await this.#end(mount.served);
    this.#log("info", `${mountpoint} is unmounted`);
  }

  /** Ends all mounts for the end of the process: busy ones disappear, and what is open in them fails. */
  async close(): Promise<void> {
    this.#stopping = true;
    await Promise.all([...this.#mounts.values()].map(async (mount) => {
      mount.gone.abort();
      await mount.session?.close();
      if (mount.served === null) return;
      const mountpoint = placeOfDevice(mount.device) ?? mount.wish.mountpoint;
      try {
        unmount(mountpoint, { lazy: false });
      } catch (error) {
        this.#log("warn", `${(error as Error).message}: programs that use it get errors from now on`);
        this.#detach(mountpoint);
        await this.#stop(mount.served);
      }
      await this.#end(mount.served);
    }));
    this.#keeper.close();
  }

  /** Forgets a mount that somebody has undone with umount(8): it is served until the last file in it is closed. */
  #forgetUndone(mountpoint: string): void {
    const mount = this.#mounts.get(mountpoint);
    if (mount?.state !== "mounted" || placeOfDevice(mount.device) !== undefined) return;
    mount.gone.abort();
    this.#mounts.delete(mountpoint);
  }

  #add(asked: MountWish): Mount {
    const mountpoint = mountpointPath(asked.mountpoint);
    if (this.#mounts.has(mountpoint)) throw new MountFailure(`${mountpoint} is already mounted by this daemon`);
    if (this.#mounts.size >= mountsPerProcessMax) {
      throw new MountFailure(`there are ${mountsPerProcessMax} mounts already`);
    }
    let options: MountOptions;
    try {
      options = parseMountOptions(asked.options);
    } catch (error) {
      throw new MountFailure((error as Error).message);
    }
    const mount: Mount = {
      wish: { ...asked, mountpoint },
      readOnly: options.readOnly,
      transport: options.transport,
      state: "starting",
      problem: "",
      session: null,
      served: null,
      device: "",
      gone: new AbortController(),
    };
    this.#mounts.set(mountpoint, mount);
    return mount;
  }

  /** One attempt: session, volume, kernel, Worker. Leaves nothing behind when it fails but the session. */
  async #serve(mount: Mount): Promise<void> {
    const { ioTimeoutMs, managerAddress, secret, logger } = this.#options;
    const { mountpoint, volume: name } = mount.wish;
    const missing = mount.transport === "uring" ? uringMissing() : "";
    if (missing !== "") throw new MountFailure(`${mountpoint} cannot have transport=uring: ${missing}`);
    const session = mount.session ??= new ManagerSession({ managerAddress, secret, logger });
    try {
      await session.opened(AbortSignal.timeout(ioTimeoutMs));
      const volume = await findVolume(session, name);
      session.mounts = () => [{ volume: volume.id, path: mountpoint }];
      await session.announce(volume.id);
      const options = parseMountOptions(mount.wish.options);
      mount.readOnly = options.readOnly || volume.readOnly;
      const { fd } = mountFuse({ source: `${managerAddress}/${name}`, mountpoint, options });
      mount.session = null;
      mount.device = findMount(mountpoint)?.device ?? "";
      const { accessTimes, keepNames } = options;
      mount.served = await this.#startWorker(mount, session, { fd, volume: volume.id, accessTimes, keepNames });
      setReadAhead(mountpoint);
      mount.state = "mounted";
      mount.problem = "";
      this.#log("info", `${mountpoint} is mounted, volume ${name}`);
    } catch (error) {
      session.mounts = () => [];
      // An Error of ffi/fuse/mount.ts is one line for a person, like the others.
      throw new MountFailure(error instanceof Error ? error.message : String(error));
    }
  }

  /** Starts the Worker of a mount and waits until it serves. Mount and session are gone when that fails. */
  async #startWorker(
    mount: Mount,
    session: ManagerSession,
    { fd, volume, accessTimes, keepNames }: {
      fd: number;
      volume: number;
      accessTimes: AccessTimePolicy;
      keepNames: boolean;
    },
  ): Promise<Served> {
    const { secret, ioTimeoutMs, logger } = this.#options;
    const mailbox = new MainMailbox();
    const worker = new Worker(new URL("./client_worker.ts", import.meta.url), { type: "module" });
    const fds = { device: fd, keeper: keepNames ? this.#keeper.hold(fd, connectionOf(mount.device)) : -1 };
    const ready = Promise.withResolvers<void>(), ended = Promise.withResolvers<string>();
    const over = (reason: string) => {
      ready.reject(new MountFailure(reason));
      ended.resolve(reason);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      mailbox.died(event.message);
    };
    mailbox.onDeath = (reason) => {
      this.#log("error", `${mount.wish.mountpoint}: internal error: ${reason}`);
      this.#abort(mount.wish.mountpoint, worker, fds);
      over(`internal error: ${reason.split("\n")[0]}`);
    };
    mailbox.onCall = (message) => resolveHost((message as { host: string }).host);
    mailbox.onMessage = (message) => {
      const report = message as ClientReport;
      if (report.type === "ready") ready.resolve();
      else if (report.type === "failed") over(report.message);
      else if (report.type === "ended") over(report.reason);
      else session.want(report.epoch);
    };
    const metrics = clientMetricsMemory();
    const start: ClientWorkerStart = {
      mailbox: mailbox.port,
      log: logger.options,
      clusterId: session.map.clusterId,
      session: session.number,
      secret: secret ?? null,
      map: session.mapBytes,
      volume,
      readOnly: mount.readOnly,
      accessTimes,
      transport: mount.transport,
      fuseFd: fds.device,
      keeperFd: fds.keeper,
      ioTimeoutMs,
      metrics,
    };
    worker.postMessage(start);
    const tell = (order: ClientOrder) => {
      // A dead or full mailbox shows itself by other ways, and a lost map is asked for.
      mailbox.post(order).catch((error) => logger.log("warn", "mount", String(error.message)));
    };
    session.onMap = (bytes) => tell({ type: "map", bytes });
    session.onReplaced = (number) => tell({ type: "session", number });
    const timer = setTimeout(() => over(`not ready within ${readyTimeoutMs / 1000} s`), readyTimeoutMs);
    try {
      await ready.promise;
    } catch (error) {
      mailbox.onDeath = () => {};
      mailbox.close();
      this.#abort(mount.wish.mountpoint, worker, fds);
      await session.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return { worker, mailbox, session, metrics: [metrics], ended: ended.promise };
  }

  /** Waits for the end of a mount that is up, and brings it back unless somebody wanted the end. */
  async #watch(mount: Mount): Promise<void> {
    const served = mount.served!;
    const reason = await served.ended;
    await this.#release(served);
    if (mount.gone.signal.aborted || mount.served !== served) return;
    mount.served = null;
    const { mountpoint } = mount.wish;
    if (!isThere(mount)) {
      this.#mounts.delete(mountpoint);
      if (!this.#stopping) this.#options.onChange();
      this.#log("info", `${mountpoint} was unmounted`);
      return;
    }
    this.#log("warn", `${mountpoint} broke (${reason}): mounting it again`);
    this.#detach(mountpoint);
    mount.state = "waiting";
    mount.problem = reason;
    await this.#again(mount);
  }

  /** Tries until it is up or not wanted any more. */
  async #again(mount: Mount): Promise<void> {
    const { signal } = mount.gone;
    for (let waitMs: number = againMs.first; !signal.aborted; waitMs = Math.min(againMs.longest, waitMs * 2)) {
      try {
        await this.#serve(mount);
        if (!signal.aborted) return void this.#watch(mount);
        this.#detach(mount.wish.mountpoint);
        return await this.#release(mount.served!);
      } catch (error) {
        if (!(error instanceof MountFailure)) throw error;
        if (mount.problem !== error.message) this.#log("warn", `${mount.wish.mountpoint} waits: ${error.message}`);
        mount.problem = error.message;
        mount.state = mount.state === "ending" ? "ending" : "waiting";
      }
      await pause(waitMs, signal);
    }
  }

  #detach(mountpoint: string): void {
    try {
      unmount(mountpoint, { lazy: true });
    } catch (error) {
      this.#log("warn", (error as Error).message);
    }
  }

  /** Ends a mount that nobody serves: programs that wait in it get an error now instead of waiting for ever. */
  #abort(mountpoint: string, worker: Worker, fds: { device: number; keeper: number }): void {
    worker.terminate();
    // A ring of the Worker may hold the device a while longer than this descriptor does.
    if (Deno.uid() === 0) libc.umount2(cstr(mountpoint), MNT.FORCE | MNT.DETACH);
    else this.#detach(mountpoint);
    closeFd(fds.device);
    if (fds.keeper >= 0) closeFd(fds.keeper);
  }

  async #stop(served: Served): Promise<void> {
    const stop: ClientStop = { type: "stop" };
    await served.mailbox.call(stop, endTimeoutMs).catch(() => {}); // It may have ended already.
  }

  /** Waits until a Worker has ended after its mount went away; one that does not is cut off. */
  async #end(served: Served): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, endTimeoutMs);
    await Promise.race([served.ended, late.promise]);
    clearTimeout(timer);
    await this.#release(served);
  }

  /** Ends a Worker, and its session with what it may still hold. Harmless the second time. */
  async #release(served: Served): Promise<void> {
    served.mailbox.close();
    served.worker.terminate();
    await served.session.close();
  }

  #log(level: "error" | "warn" | "info", message: string): void {
    this.#options.logger.log(level, "mount", message);
  }
}

/** True while the kernel has the mount at its place. What somebody else has mounted there since is none of ours. */
function isThere({ wish, device }: Mount): boolean {
  const found = findMount(wish.mountpoint);
  return found?.type === fuseFileSystemType && found.device === device;
}

/** Number of a mount's connection: the kernel's number of its device, `major:minor` in mountinfo. */
function connectionOf(device: string): number {
  const [major, minor] = device.split(":").map(Number);
  return major * 0x100000 + minor;
}

async function findVolume(session: ManagerSession, name: string): Promise<{ id: number; readOnly: boolean }> {
  const find = () => session.map.volumes.find((one) => one.name === name && one.state === volumeState.live);
  if (find() === undefined) {
    // It may have been made a moment ago.
    await session.refresh().catch((error) => {
      if (!(error instanceof ManagerFailure)) throw error;
    });
  }
  const found = find();
  if (found !== undefined) return found;
  const names = session.map.volumes.filter((one) => one.state === volumeState.live).map((one) => one.name);
  throw new MountFailure(
    `no volume ${name}; there ${
      names.length === 0 ? "are none" : names.length === 1 ? `is ${names[0]}` : `are ${names.join(", ")}`
    }`,
  );
}
