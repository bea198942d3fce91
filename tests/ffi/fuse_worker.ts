/** A reactor that serves one mount from a file system in memory: the other side of tests/ffi/fuse_mount_test.ts. */

import { FuseSession } from "../../core/fuse/session.ts";
import { FuseDevice } from "../../ffi/fuse/device.ts";
import { FuseUring, possibleCpus, uringArenaBytes } from "../../ffi/fuse/uring.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { MemoryFileSystem } from "../fuse/memory_filesystem.ts";

/** What to serve. */
export interface ServeOptions {
  fd: number;
  capacityBytes?: number;
  readOnly?: boolean;
  rootMode?: number;
  /** Ask the kernel for FUSE over io_uring. */
  uring?: boolean;
  /** Every operation takes up to so long, in an order of its own. */
  delayMsMax?: number;
}

/** What the reactor saw, after the mount is gone. */
export interface Served {
  reason: string;
  opens: number;
  locks: number;
  openFiles: number;
  inFlight: number;
  usedBytes: number;
  requests: number;
  undelivered: number;
  starved: number;
  minor: number;
  /** By what it was served, with the reason when that is not what was asked for. */
  transport: string;
}

const scope = self as unknown as {
  onmessage: (event: { data: ServeOptions }) => void;
  postMessage(message: unknown): void;
  close(): void;
};

scope.onmessage = ({ data }) => {
  const uring = data.uring === true;
  const reactor = new Reactor({
    arenaBytes: uring ? uringArenaBytes : 256 << 20,
    ring: { wideEntries: uring },
    log: (level, _, message) => console.error(level, message),
  });
  const delay = data.delayMsMax ?? 0;
  const fileSystem = new MemoryFileSystem({
    capacityBytes: data.capacityBytes,
    readOnly: data.readOnly,
    rootMode: data.rootMode,
    now: () => reactor.wallTime(),
    pause: () => delay === 0 ? null : reactor.sleep(reactor.random32() % (delay * 1000) / 1000),
  });
  let minor = 0, reason = "", transport = "classic";
  const session = new FuseSession(fileSystem, {
    overUring: uring,
    onReady: (version) => {
      minor = version.minor;
      if (device instanceof FuseUring) device.agreed(version.flags2);
    },
  });
  const options = {
    reactor,
    fd: data.fd,
    session,
    onEnd: (why: string) => {
      reason = why;
      reactor.stop();
    },
  };
  const onServing = (by: string, why: string) => transport = why === "" ? by : `${by}: ${why}`;
  const device = uring ? new FuseUring({ ...options, queues: possibleCpus(), onServing }) : new FuseDevice(options);
  device.start();
  scope.postMessage("ready");
  reactor.run();
  const { requests, undelivered, starved } = device.statistics;
  scope.postMessage(
    {
      reason,
      opens: fileSystem.opens,
      locks: fileSystem.locks,
      openFiles: session.openFiles,
      inFlight: session.inFlight,
      usedBytes: reactor.arena.usedBytes,
      requests,
      undelivered,
      starved,
      minor,
      transport,
    } satisfies Served,
  );
  reactor.close();
  scope.close();
};
