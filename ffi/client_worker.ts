/**
 * The reactor Worker of one mount: serves the FUSE device from the volume's servers, and tells the main thread how it
 * goes (ffi/client_messages.ts). It never returns to the event loop until the mount has ended.
 *
 * @module
 */

/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />

import { ClientSession } from "../core/client/session.ts";
import { VolumeClient } from "../core/client/volume_client.ts";
import { FuseSession } from "../core/fuse/session.ts";
import { decodeMap } from "../core/placement/map.ts";
import { MapHolder } from "../core/placement/map_holder.ts";
import { Future, type Task, wait } from "../core/task.ts";
import type { ClientOrder, ClientReport, ClientStop, ClientWorkerStart } from "./client_messages.ts";
import { FuseDevice, type FuseDeviceOptions } from "./fuse/device.ts";
import { FuseNotifier } from "./fuse/notifier.ts";
import { FuseUring, possibleCpus, uringArenaBytes } from "./fuse/uring.ts";
import { openLogger } from "./log.ts";
import { type Answer, ReactorMailbox } from "./mailbox.ts";
import { clientMeter, clientTrips, publishClient } from "./metrics/client_metrics.ts";
import { SocketNetwork } from "./net.ts";
import { Reactor } from "./reactor.ts";

/** Time that closes which are still to be sent get at the end. */
const finishMs = 3_000;

/** One mount and everything around it. */
class MountWorker {
  readonly #reactor: Reactor;
  readonly #mailbox: ReactorMailbox;
  readonly #network: SocketNetwork;
  readonly #maps: MapHolder;
  readonly #session: ClientSession;
  readonly #device: FuseDevice | FuseUring;
  /** What is reported when the kernel knows that nobody serves the mount any more. */
  #last: ClientReport | null = null;
  #stopAnswer: Answer | null = null;

  constructor(start: ClientWorkerStart) {
    const logger = openLogger(start.log);
    const uring = start.transport === "uring";
    this.#reactor = new Reactor({
      log: logger.log,
      arenaBytes: uring ? uringArenaBytes : undefined,
      ring: { wideEntries: uring },
    });
    this.#mailbox = new ReactorMailbox(this.#reactor, start.mailbox);
    this.#network = new SocketNetwork(this.#reactor, { resolve: (host) => this.#resolve(host) });
    this.#maps = new MapHolder(decodeMap(start.map), (epoch) => this.#report({ type: "needMap", epoch }));
    this.#session = new ClientSession({
      runtime: this.#reactor,
      network: this.#network,
      maps: this.#maps,
      secret: start.secret === null ? null : new TextEncoder().encode(start.secret),
      session: start.session,
      ioTimeoutMs: start.ioTimeoutMs,
      sentFor: clientTrips(start.metrics),
    });
    const { volume: volumeId, readOnly, accessTimes } = start;
    const volume = new VolumeClient(this.#session, { volumeId, readOnly, accessTimes });
    const notifier = new FuseNotifier(this.#reactor, { device: start.fuseFd, keeper: start.keeperFd });
    const fuse = new FuseSession(volume, {
      onReady: ({ flags2 }) => {
        if (this.#device instanceof FuseUring) this.#device.agreed(flags2);
        else this.#report({ type: "ready" });
      },
      notifier,
      overUring: uring,
      readsAnew: accessTimes.atime === "strictatime",
      meter: clientMeter(this.#reactor, start.metrics),
    });
    publishClient({ reactor: this.#reactor, session: this.#session, mount: fuse }, start.metrics);
    const options: FuseDeviceOptions = {
      reactor: this.#reactor,
      fd: start.fuseFd,
      session: fuse,
      notifier,
      onEnd: (reason) => void this.#reactor.scheduler.spawn(this.#end(reason)),
    };
    this.#device = !uring ? new FuseDevice(options) : new FuseUring({
      ...options,
      queues: possibleCpus(),
      onServing: (transport, why) => {
        if (transport === "uring") this.#report({ type: "ready" });
        else this.#over({ type: "failed", message: `the mount cannot have transport=uring: ${why}` });
      },
    });
    this.#mailbox.onMessage = (message) => this.#order(message as ClientOrder);
    this.#mailbox.onCall = (message, answer) => this.#question(message as ClientStop, answer);
  }

  run(): void {
    this.#device.start();
    this.#mailbox.guard(() => {
      try {
        this.#reactor.run();
      } finally {
        // As long as the ring is open the kernel takes the mount for served, and programs wait.
        if (this.#device instanceof FuseUring) this.#device.close();
        this.#reactor.close();
      }
    });
    if (this.#last !== null) this.#report(this.#last);
    this.#mailbox.close();
  }

  /** Ends the Worker with a last report. */
  #over(last: ClientReport): void {
    this.#last = last;
    this.#reactor.stop();
  }

  #order(order: ClientOrder): void {
    if (order.type === "map") this.#maps.update(decodeMap(order.bytes));
    else this.#session.renew(order.number);
  }

  #question(_stop: ClientStop, answer: Answer): void {
    if (this.#stopAnswer !== null) return answer.fail("the mount is stopping");
    this.#stopAnswer = answer;
    this.#device.stop();
  }

  *#end(reason: string): Task<void> {
    const finished = this.#reactor.scheduler.spawn(this.#session.finish());
    const untilMs = this.#reactor.nowMs() + finishMs;
    while (!finished.settled && this.#reactor.nowMs() < untilMs) yield* wait(this.#reactor.sleep(10));
    this.#session.close();
    this.#network.close();
    this.#stopAnswer?.reply(true);
    this.#over({ type: "ended", reason });
  }

  #resolve(host: string): Future<string | null> {
    const found = new Future<string | null>();
    this.#mailbox.call({ type: "resolve", host }).listen((reply) => {
      found.resolve(reply.ok ? reply.value as string | null : null);
    });
    return found;
  }

  #report(report: ClientReport): void {
    this.#mailbox.post(report);
  }
}

self.onmessage = (event: MessageEvent) => {
  new MountWorker(event.data as ClientWorkerStart).run();
  self.close();
};
