/**
 * The mounts of one client process: each is a FUSE mount served by a reactor Worker of its own, announced to the
 * manager, kept up through failures until somebody unmounts it.
 *
 * A mount that cannot be made or that breaks is tried again for ever, if it was asked for earlier (a restored one, or
 * one that has been up); a new one fails at once. For the main thread.
 *
 * @module
 */

import dns from "node:dns/promises";
import { volumeState } from "../core/placement/map.ts";
import { parseIp } from "./address.ts";
import type { ClientOrder, ClientReport, ClientStop, ClientWorkerStart } from "./client_messages.ts";
import type { ClientSession } from "./client_session.ts";
import {
  cleanDeadMount,
  isMounted,
  mountFuse,
  mountpointPath,
  parseMountOptions,
  setReadAhead,
  unmount,
} from "./fuse/mount.ts";
import { cstr, libc, MNT } from "./libc.ts";
import type { Logger } from "./log.ts";
import { MainMailbox } from "./mailbox.ts";
import { ManagerFailure, pause } from "./manager_client.ts";

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
  session: ClientSession;
  secret?: string;
  /** How long a request is retried before it ends in EIO, and how long mounting waits for the manager. */
  ioTimeoutMs: number;
  logger: Logger;
  /** Called after a mount was added for good or taken away. */
  onChange: () => void;
}

/** A Worker that serves. */
interface Served {
  worker: Worker;
  mailbox: MainMailbox;
  fd: number;
  /** Settles when the Worker has ended, with the reason. */
  ended: Promise<string>;
}

interface Mount {
  wish: MountWish;
  readOnly: boolean;
  state: MountStatus["state"];
  problem: string;
  /** Id of the volume; 0 until it is known. */
  volume: number;
  served: Served | null;
  /** Aborted when somebody wants it gone. */
  gone: AbortController;
}

/** See the module's comment. */
export class ClientMounts {
  readonly #options: ClientMountsOptions;
  readonly #mounts = new Map<string, Mount>();
  #stopping = false;

  constructor(options: ClientMountsOptions) {
    this.#options = options;
    const { session } = options;
    session.mounts = () =>
      [...this.#mounts.values()].filter((one) => one.volume !== 0)
        .map(({ volume, wish }) => ({ volume, path: wish.mountpoint }));
    session.onMap = (bytes) => this.#tellAll({ type: "map", bytes });
    session.onReplaced = (number) => this.#tellAll({ type: "session", number });
  }

  /** All mounts. */
  list(): MountStatus[] {
    return [...this.#mounts.values()].map(({ wish, readOnly, state, problem }) => ({
      ...wish,
      readOnly,
      state,
      problem,
    }));
  }

  /** Mounts a volume; programs can use it when this settles. Rejects with a {@linkcode MountFailure}, and nothing stays. */
  async mount(asked: MountWish): Promise<void> {
    const mount = this.#add(asked);
    try {
      await this.#serve(mount);
    } catch (error) {
      this.#mounts.delete(mount.wish.mountpoint);
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
      if (mount.served !== null) unmount(mountpoint, { lazy });
    } catch (error) {
      mount.state = before;
      throw new MountFailure((error as Error).message);
    }
    mount.gone.abort();
    this.#mounts.delete(mountpoint);
    this.#options.onChange();
    if (mount.served !== null && !lazy) await this.#end(mount.served);
    this.#log("info", `${mountpoint} is unmounted`);
  }

  /** Ends all mounts for the end of the process: busy ones disappear, and what is open in them fails. */
  async close(): Promise<void> {
    this.#stopping = true;
    await Promise.all([...this.#mounts.values()].map(async (mount) => {
      mount.gone.abort();
      if (mount.served === null) return;
      const { mountpoint } = mount.wish;
      try {
        unmount(mountpoint, { lazy: false });
      } catch (error) {
        this.#log("warn", `${(error as Error).message}: programs that use it get errors from now on`);
        this.#detach(mountpoint);
        await this.#stop(mount.served);
      }
      await this.#end(mount.served);
    }));
  }

  #add(asked: MountWish): Mount {
    const mountpoint = mountpointPath(asked.mountpoint);
    if (this.#mounts.has(mountpoint)) throw new MountFailure(`${mountpoint} is already mounted by this daemon`);
    if (this.#mounts.size >= mountsPerProcessMax) {
      throw new MountFailure(`there are ${mountsPerProcessMax} mounts already`);
    }
    let readOnly: boolean;
    try {
      readOnly = parseMountOptions(asked.options).readOnly;
    } catch (error) {
      throw new MountFailure((error as Error).message);
    }
    const mount: Mount = {
      wish: { ...asked, mountpoint },
      readOnly,
      state: "starting",
      problem: "",
      volume: 0,
      served: null,
      gone: new AbortController(),
    };
    this.#mounts.set(mountpoint, mount);
    return mount;
  }

  /** One attempt: volume, manager, kernel, Worker. Leaves nothing behind when it fails. */
  async #serve(mount: Mount): Promise<void> {
    const { session, ioTimeoutMs } = this.#options;
    const { mountpoint, volume: name } = mount.wish;
    try {
      await session.opened(AbortSignal.timeout(ioTimeoutMs));
      const volume = await this.#findVolume(name);
      mount.volume = volume.id;
      await session.announce(volume.id);
      const options = parseMountOptions(mount.wish.options);
      mount.readOnly = options.readOnly || volume.readOnly;
      const { fd } = mountFuse({ source: `${session.client.address}/${name}`, mountpoint, options });
      mount.served = await this.#startWorker(mount, fd);
      setReadAhead(mountpoint);
      mount.state = "mounted";
      mount.problem = "";
      this.#log("info", `${mountpoint} is mounted, volume ${name}`);
    } catch (error) {
      mount.volume = 0;
      mount.served = null;
      // An Error of ffi/fuse/mount.ts is one line for a person, like the others.
      throw new MountFailure(error instanceof Error ? error.message : String(error));
    }
  }

  async #findVolume(name: string): Promise<{ id: number; readOnly: boolean }> {
    const { session } = this.#options;
    const find = () => session.map.volumes.find((one) => one.name === name && one.state === volumeState.live);
    if (find() === undefined) {
      await session.refresh().catch((error) => {
        if (!(error instanceof ManagerFailure)) throw error;
      });
    }
    const found = find();
    if (found !== undefined) return found;
    const names = session.map.volumes.filter((one) => one.state === volumeState.live).map((one) => one.name);
    throw new MountFailure(`no volume ${name}; there ${names.length === 0 ? "are none" : `is ${names.join(", ")}`}`);
  }

  /** Starts the Worker of a mount and waits until it serves. The mount is gone when that fails. */
  async #startWorker(mount: Mount, fd: number): Promise<Served> {
    const { session, secret, ioTimeoutMs, logger } = this.#options;
    const mailbox = new MainMailbox();
    const worker = new Worker(new URL("./client_worker.ts", import.meta.url), { type: "module" });
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
      this.#abort(mount.wish.mountpoint, worker, fd);
      over(`internal error: ${reason.split("\n")[0]}`);
    };
    mailbox.onCall = (message) => resolveName((message as { host: string }).host);
    mailbox.onMessage = (message) => {
      const report = message as ClientReport;
      if (report.type === "ready") ready.resolve();
      else if (report.type === "failed") over(report.message);
      else if (report.type === "ended") over(report.reason);
      else session.want(report.epoch);
    };
    const start: ClientWorkerStart = {
      mailbox: mailbox.port,
      log: logger.options,
      clusterId: session.map.clusterId,
      session: session.number,
      secret: secret ?? null,
      map: session.mapBytes,
      volume: mount.volume,
      readOnly: mount.readOnly,
      fuseFd: fd,
      ioTimeoutMs,
    };
    worker.postMessage(start);
    const timer = setTimeout(() => over(`not ready within ${readyTimeoutMs / 1000} s`), readyTimeoutMs);
    try {
      await ready.promise;
    } catch (error) {
      mailbox.onDeath = () => {};
      mailbox.close();
      this.#abort(mount.wish.mountpoint, worker, fd);
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return { worker, mailbox, fd, ended: ended.promise };
  }

  /** Waits for the end of a mount that is up, and brings it back unless somebody wanted the end. */
  async #watch(mount: Mount): Promise<void> {
    const served = mount.served!;
    const reason = await served.ended;
    this.#release(served);
    if (mount.gone.signal.aborted || mount.served !== served) return;
    mount.served = null;
    const { mountpoint } = mount.wish;
    if (!isMounted(mountpoint)) {
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
        return this.#release(mount.served!);
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
  #abort(mountpoint: string, worker: Worker, fd: number): void {
    worker.terminate();
    // A ring of the Worker may hold the device a while longer than this descriptor does.
    if (Deno.uid() === 0) libc.umount2(cstr(mountpoint), MNT.FORCE | MNT.DETACH);
    else this.#detach(mountpoint);
    libc.close(fd);
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
    this.#release(served);
  }

  #release(served: Served): void {
    served.mailbox.close();
    served.worker.terminate();
  }

  #tellAll(order: ClientOrder): void {
    for (const { served } of this.#mounts.values()) {
      // A dead or full mailbox shows itself by other ways, and a lost map is asked for.
      served?.mailbox.post(order).catch((error) => this.#log("warn", String(error.message)));
    }
  }

  #log(level: "error" | "warn" | "info", message: string): void {
    this.#options.logger.log(level, "mount", message);
  }
}

async function resolveName(host: string): Promise<string | null> {
  if (parseIp(host) !== null) return host === "localhost" ? "127.0.0.1" : host;
  try {
    return (await dns.lookup(host)).address;
  } catch {
    return null;
  }
}
