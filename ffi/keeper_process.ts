/**
 * The keeper of a client daemon: a small process that takes names back from the kernel in the daemon's stead, and that
 * ends the daemon's mounts when the daemon is gone.
 *
 * To take a name back the kernel waits for its directory's lock, which a program may hold that waits for the daemon.
 * In a thread of the daemon that would survive the daemon's end, and the mount with it: nobody would ever answer. Here it
 * does no harm: without the daemon this process aborts the connection, and all that wait in it get an error. For that
 * it needs fusectl (/sys/fs/fuse/connections), or it holds nothing.
 *
 * @module
 */

import { type Received, receiveDescriptors } from "./descriptors.ts";
import { answerBytes, decodeHold, keeperMessageBytes, notificationLengths, numberBytes } from "./keeper_messages.ts";
import { closeFd, cstr, libc, O, POLL } from "./libc.ts";
import { type Poll, Reactor } from "./reactor.ts";

const connectionsPath = "/sys/fs/fuse/connections";
const ENOENT = 2, EIO = 5, EINVAL = 22;
const MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000;
/** Notifications of one mount under way at once; the daemon's next wait in its socket. */
const underWayMax = 4;
/** Enough for the notifications of all mounts. */
const arenaBytes = 64 << 20;

/** Serves the daemon at the other end of a socket until it is gone. Blocks the thread. */
export function runKeeper(control: number): void {
  const reactor = new Reactor({ arenaBytes });
  const held = new Set<HeldMount>();
  const receive = (events: number) => {
    for (;;) {
      const received = receiveDescriptors(control);
      if (received === undefined && (events & (POLL.HUP | POLL.ERR)) === 0 && events >= 0) return;
      if (received === undefined || received === null) return reactor.stop();
      hold(reactor, held, received);
    }
  };
  reactor.poll(control, POLL.IN | POLL.RDHUP, receive);
  reactor.run();
  for (const mount of held) mount.end();
  reactor.close();
}

function hold(reactor: Reactor, held: Set<HeldMount>, { data, descriptors }: Received): void {
  const connection = decodeHold(data), [device, socket] = descriptors;
  const abort = connection === null || socket === undefined ? -1 : openAbort(connection);
  if (abort >= 0) {
    const mount = new HeldMount(reactor, { device, socket, abort }, () => held.delete(mount));
    held.add(mount);
    return mount.start();
  }
  if (socket !== undefined) answer(socket, 0, ENOENT);
  for (const fd of descriptors) closeFd(fd);
}

/** The file by which a connection is aborted; -1 when it may not, or cannot, be. It stands for no later connection. */
function openAbort(connection: number): number {
  const path = `${connectionsPath}/${connection}/abort`, open = () => libc.open(cstr(path), O.WRONLY | O.CLOEXEC, 0);
  const fd = open();
  if (fd >= 0 || Deno.uid() !== 0) return fd;
  // Where no system has mounted it, root does.
  const kind = cstr("fusectl");
  return libc.mount(kind, cstr(connectionsPath), kind, 0n, cstr("")) === 0 ? open() : -1;
}

function answer(socket: number, number: number, why: number): void {
  const bytes = new Uint8Array(answerBytes), view = new DataView(bytes.buffer);
  view.setUint32(0, number, true);
  view.setUint32(4, why, true);
  // A daemon that does not take its answers waits until what it has given out has run out.
  libc.sendBuffer(socket, bytes, BigInt(answerBytes), MSG_DONTWAIT | MSG_NOSIGNAL);
}

/** One mount. */
class HeldMount {
  #poll: Poll | null = null;
  #underWay = 0;
  #ended = false;

  constructor(
    readonly reactor: Reactor,
    readonly fds: { device: number; socket: number; abort: number },
    readonly onEnd: () => void,
  ) {}

  start(): void {
    answer(this.fds.socket, 0, 0);
    this.#poll = this.reactor.poll(this.fds.socket, POLL.IN | POLL.RDHUP, () => this.#drain());
  }

  /** The daemon does not serve the mount any more: nobody waits in it for ever. Harmless where it is gone already. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#poll?.cancel();
    libc.writeBuffer(this.fds.abort, cstr("1"), 1n);
    this.#closeIfIdle();
    this.onEnd();
  }

  #drain(): void {
    const { arena } = this.reactor;
    while (!this.#ended && this.#underWay < underWayMax) {
      const buffer = arena.allocate(keeperMessageBytes);
      if (buffer === null) return this.reactor.after(1, () => this.#drain());
      const address = BigInt(arena.addressOf(buffer));
      const length = libc.recv(this.fds.socket, address, BigInt(keeperMessageBytes), MSG_DONTWAIT);
      if (length > 0) {
        this.#notify(buffer, length);
        continue;
      }
      arena.release(buffer);
      if (length === 0) this.end();
      return;
    }
  }

  /** Writes the notifications of one message, each in a thread of the kernel's, and answers when all are through. */
  #notify(buffer: Uint8Array, length: number): void {
    const { arena } = this.reactor, start = arena.addressOf(buffer);
    const number = length < numberBytes ? 0 : new DataView(buffer.buffer, buffer.byteOffset).getUint32(0, true);
    const lengths = length < numberBytes ? null : notificationLengths(buffer.subarray(numberBytes, length));
    let left = lengths?.length ?? 0, why = lengths === null ? EINVAL : 0, at = start + numberBytes;
    const end = () => {
      arena.release(buffer);
      this.#underWay--;
      if (!this.#ended) answer(this.fds.socket, number, why);
      if (this.#ended) this.#closeIfIdle();
      else this.reactor.defer(() => this.#drain());
    };
    this.#underWay++;
    if (left === 0) return end();
    for (const bytes of lengths!) {
      this.reactor.writeApart(this.fds.device, at, bytes).listen((result) => {
        // ENOENT: the kernel does not have the name.
        if (result < 0 && result !== -ENOENT) why = -result || EIO;
        if (--left === 0) end();
      });
      at += bytes;
    }
  }

  #closeIfIdle(): void {
    if (this.#underWay > 0) return;
    for (const fd of Object.values(this.fds)) closeFd(fd);
  }
}
