/**
 * core's Network over TCP and Unix sockets: connects, listens, and flushes all links at the end of a turn, after the
 * store has written its log.
 *
 * A server listens on its TCP port and on an abstract Unix socket named after its id and port; who connects to an
 * address of this host tries that name first. The port is part of the name because two clusters on one host both have
 * a server 1. It authenticates nobody: HELLO does. Host names are resolved by a function that it is given.
 *
 * @module
 */

import type { Endpoint, Network } from "../core/runtime.ts";
import type { Future } from "../core/task.ts";
import { abstractAddress, addressText, AF, ipAddress, ipKey, isOwnAddress, parseHostPort, parseIp } from "./address.ts";
import { type Bytes, checked, closeFd, errnoText, F, libc, systemError } from "./libc.ts";
import { type LinkContext, type LinkStatistics, messageBytes, queueBytesMaxDefault, SocketLink } from "./link.ts";
import { type Completion, hookOrder, type Reactor } from "./reactor.ts";
import { type BufferRing, CQE } from "./ring.ts";

/** Receive buffers of a reactor: their number (a power of two) and size. */
const receiveBuffers = 128;
const receiveBufferBytes = 16384;
const receiveGroup = 1;
/** Connections that wait to be accepted. */
const backlogMax = 1024;
/** Pause before accepting again after a failure, such as no descriptors left. */
const acceptPauseMs = 100;
/** A Unix link over sooner than this, having brought no more than a HELLO's frames, was the wrong server's. */
const briefLinkMs = 2000;
const briefLinkFrames = 2;
const flushPassesMax = 4;
/** Links of one turn up to which each is flushed by a plain send. */
const directLinksMax = 4;
/** How long the list of this host's addresses is believed. */
const ownAddressesMs = 30_000;
// TCP notices a dead host after keepIdle + keepCount * keepInterval seconds, or userTimeout with data under way.
const keepIdleSeconds = 5, keepIntervalSeconds = 2, keepCount = 3, userTimeoutMs = 11_000;

const SOCK_STREAM = 1, SOCK_NONBLOCK = 0o4000, SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_KEEPALIVE = 9;
const IPPROTO_TCP = 6, TCP_NODELAY = 1, TCP_KEEPIDLE = 4, TCP_KEEPINTVL = 5, TCP_KEEPCNT = 6, TCP_USER_TIMEOUT = 18;

/** How a network is made; everything has a default. */
export interface NetworkOptions {
  /** Finds the numeric address of a host name; null when there is none. Default: names fail. */
  resolve?: (host: string) => Future<string | null>;
  /** Bytes that may wait to be sent on one link. */
  queueBytesMax?: number;
  /** Links at once; more are refused. */
  linksMax?: number;
  /** A connection that is not there after this has failed. */
  connectTimeoutMs?: number;
  /** How long TCP is used for a server whose Unix socket led nowhere. */
  avoidUnixMs?: number;
}

/** Where to listen, and who takes the links. */
export interface ListenOptions {
  /** `host:port` of this machine, numeric or `localhost`; port 0 takes a free one. */
  address: string;
  /** Names the Unix socket. */
  serverId: number;
  /** Called with each new link before anything is received: sets onFrame and onClose. */
  onLink: (link: SocketLink) => void;
}

/** A place where a network listens. */
export interface ListeningPoint {
  /** The TCP port, also when 0 was asked for. */
  readonly port: number;
  /** True when the Unix socket is there too. */
  readonly unix: boolean;
  /** Stops listening; links that were accepted stay. */
  close(): void;
}

/** Counters of a network. */
export interface NetworkStatistics extends LinkStatistics {
  /** Links that exist now. */
  links: number;
  /** Connections refused because there were `linksMax` links. */
  refused: number;
}

/** The links of one reactor. */
export class SocketNetwork implements Network {
  readonly #reactor: Reactor;
  readonly #context: LinkContext;
  readonly #options: Required<Omit<NetworkOptions, "resolve">>;
  readonly #resolve: ((host: string) => Future<string | null>) | null;
  readonly #links = new Set<SocketLink>();
  readonly #listeners = new Set<Listener>();
  readonly #removeHook: () => void;
  readonly #statistics: LinkStatistics = {
    framesIn: 0,
    framesOut: 0,
    bytesIn: 0,
    bytesOut: 0,
    badFrames: 0,
    overflows: 0,
  };
  // Unix links of which it is not known yet whether they reach the right server.
  readonly #unixLinks = new Map<SocketLink, { name: string; sinceMs: number }>();
  readonly #avoidUnixUntilMs = new Map<string, number>();
  #dirty: SocketLink[] = [];
  #refused = 0;
  #ownAddresses: ReadonlySet<string> = new Set();
  #ownAddressesUntilMs = -1;

  /** One a reactor: it registers the reactor's receive buffers and its end-of-turn hook. */
  constructor(reactor: Reactor, options: NetworkOptions = {}) {
    this.#reactor = reactor;
    this.#resolve = options.resolve ?? null;
    this.#options = {
      queueBytesMax: options.queueBytesMax ?? queueBytesMaxDefault,
      linksMax: options.linksMax ?? 16384,
      connectTimeoutMs: options.connectTimeoutMs ?? 5000,
      avoidUnixMs: options.avoidUnixMs ?? 60_000,
    };
    const buffers = reactor.ring.provideBuffers(receiveGroup, receiveBuffers, receiveBufferBytes);
    this.#context = this.#makeContext(buffers);
    this.#removeHook = reactor.atEndOfTurn(hookOrder.network, () => this.#flush());
  }

  /** As core's Network. A link that cannot be made fails later, by onClose. */
  connect(endpoint: Endpoint): SocketLink {
    const link = this.#newLink(endpoint.address);
    const target = parseHostPort(endpoint.address);
    if (this.#links.size > this.#options.linksMax) link.fail(`more than ${this.#options.linksMax} links`);
    else if (target === null || target.port === 0) link.fail(`"${endpoint.address}" is not host:port`);
    else this.#connectHost(link, endpoint.serverId, target.host, target.port);
    return link;
  }

  /** Listens on TCP and on the Unix socket, unless another has its name. Throws when the TCP address is not to be had. */
  listen(options: ListenOptions): ListeningPoint {
    const target = parseHostPort(options.address);
    const ip = target === null ? null : parseIp(target.host);
    if (target === null || ip === null) {
      throw new Error(`cannot listen on ${options.address}: not a numeric host:port such as 0.0.0.0:8085`);
    }
    const tcp = listeningSocket(ipAddress(ip, target.port));
    if (tcp < 0) throw systemError("listen on", options.address, tcp);
    const port = boundPort(tcp);
    const unix = listeningSocket(abstractAddress(unixName(options.serverId, port)));
    if (unix < 0) this.#reactor.log("warn", "net", `no Unix socket for server ${options.serverId}: ${errnoText(unix)}`);
    const listeners = [this.#listener(tcp, true, options.onLink)];
    if (unix >= 0) listeners.push(this.#listener(unix, false, options.onLink));
    return { port, unix: unix >= 0, close: () => listeners.forEach((listener) => listener.close()) };
  }

  /**
   * Takes over a connection that another reactor accepted and detached. `onLink` is called first; then the frames in
   * `received` are delivered, all before this returns.
   */
  adopt(fd: number, received: Uint8Array, onLink: (link: SocketLink) => void): SocketLink {
    const link = this.#newLink(peerName(fd));
    onLink(link);
    if (link.alive) {
      link.open(fd);
      link.feed(received);
    } else {
      closeFd(fd);
    }
    return link;
  }

  /** Counters since the start. */
  statistics(): NetworkStatistics {
    return { ...this.#statistics, links: this.#links.size, refused: this.#refused };
  }

  /** Closes listeners and links. Their descriptors go in the next turns, while the reactor runs on. */
  close(): void {
    for (const listener of this.#listeners) listener.close();
    for (const link of [...this.#links]) link.close();
    this.#reactor.defer(() => this.#removeHookWhenIdle());
  }

  #removeHookWhenIdle(): void {
    if (this.#links.size === 0) return this.#removeHook();
    this.#reactor.after(10, () => this.#removeHookWhenIdle());
  }

  #makeContext(buffers: BufferRing): LinkContext {
    const { reactor, options, statistics } = {
      reactor: this.#reactor,
      options: this.#options,
      statistics: this.#statistics,
    };
    // As many places as there can be submissions that the kernel has not read yet.
    const places = 256;
    const scratch = reactor.arena.reserve(places * messageBytes);
    let place = 0;
    return {
      reactor,
      buffers,
      bufferGroup: receiveGroup,
      queueBytesMax: options.queueBytesMax,
      statistics,
      messageScratch: () => scratch + (place++ % places) * messageBytes,
      markDirty: (link) => void this.#dirty.push(link),
      removed: (link) => this.#removed(link),
    };
  }

  #newLink(peer: string): SocketLink {
    const link = new SocketLink(this.#context, peer);
    this.#links.add(link);
    return link;
  }

  #flush(): void {
    // Flushing may end links, which come by once more to let go of their descriptors.
    for (let pass = 0; pass < flushPassesMax && this.#dirty.length > 0; pass++) {
      const dirty = this.#dirty;
      this.#dirty = [];
      const way = dirty.length <= directLinksMax ? "direct" : "ring";
      for (const link of dirty) link.flush(way);
    }
    if (this.#dirty.length > 0) this.#reactor.defer(() => {});
  }

  #connectHost(link: SocketLink, serverId: number, host: string, port: number): void {
    const ip = parseIp(host);
    if (ip !== null) return this.#connectIp(link, serverId, ip, port);
    if (this.#resolve === null) return link.fail(`cannot resolve ${host}`);
    this.#resolve(host).listen((found) => {
      const resolved = found === null ? null : parseIp(found);
      if (!link.connecting) return;
      if (resolved === null) link.fail(`cannot resolve ${host}`);
      else this.#connectIp(link, serverId, resolved, port);
    });
  }

  #connectIp(link: SocketLink, serverId: number, ip: number[], port: number): void {
    if (isOwnAddress(ip, this.#own()) && this.#connectUnix(link, unixName(serverId, port))) return;
    const address = ipAddress(ip, port);
    const fd = checked(libc.socket(address[0], SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd < 0) return link.fail(`cannot make a socket: ${errnoText(fd)}`);
    setTcpOptions(fd);
    link.connect(fd, address);
    const { connectTimeoutMs } = this.#options;
    this.#reactor.after(connectTimeoutMs, () => {
      if (link.connecting) link.fail(`cannot connect within ${connectTimeoutMs} ms`);
    });
  }

  /** A Unix socket connects at once or not at all. */
  #connectUnix(link: SocketLink, name: string): boolean {
    const now = this.#reactor.nowMs();
    const avoidUntil = this.#avoidUnixUntilMs.get(name);
    if (avoidUntil !== undefined) {
      if (now < avoidUntil) return false;
      this.#avoidUnixUntilMs.delete(name);
    }
    const fd = libc.socket(AF.UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    const address = abstractAddress(name);
    if (libc.connect(fd, address, address.length) < 0) {
      closeFd(fd);
      return false;
    }
    // The ring takes a nonblocking descriptor as a wish not to wait.
    libc.fcntl(fd, F.SETFL, 0);
    link.peer = `unix:${name}`;
    this.#unixLinks.set(link, { name, sinceMs: now });
    link.open(fd);
    return true;
  }

  #removed(link: SocketLink): void {
    this.#links.delete(link);
    const unix = this.#unixLinks.get(link);
    if (unix === undefined) return;
    this.#unixLinks.delete(link);
    const now = this.#reactor.nowMs();
    if (link.framesIn > briefLinkFrames || now - unix.sinceMs > briefLinkMs || this.#options.avoidUnixMs <= 0) return;
    // Another cluster's server, or a squatter on the name: HELLO failed. TCP will tell.
    this.#avoidUnixUntilMs.set(unix.name, now + this.#options.avoidUnixMs);
  }

  #own(): ReadonlySet<string> {
    const now = this.#reactor.nowMs();
    if (now < this.#ownAddressesUntilMs) return this.#ownAddresses;
    this.#ownAddressesUntilMs = now + ownAddressesMs;
    const numbers = Deno.networkInterfaces().map(({ address }) => parseIp(address) ?? []);
    return this.#ownAddresses = new Set(numbers.map(ipKey));
  }

  #listener(fd: number, tcp: boolean, onLink: (link: SocketLink) => void): Listener {
    const listener: Listener = new Listener(this.#reactor, fd, {
      accepted: (accepted) => this.#accepted(accepted, tcp, onLink),
      closed: () => void this.#listeners.delete(listener),
    });
    this.#listeners.add(listener);
    return listener;
  }

  #accepted(fd: number, tcp: boolean, onLink: (link: SocketLink) => void): void {
    if (this.#links.size >= this.#options.linksMax) {
      this.#refused++;
      return closeFd(fd);
    }
    if (tcp) setTcpOptions(fd);
    const link = this.#newLink(peerName(fd));
    onLink(link);
    if (link.alive) link.open(fd);
    else closeFd(fd);
  }
}

/** Accepts on one socket until it is closed. */
class Listener implements Completion {
  readonly #slot: number;
  #armed = false;
  #closed = false;

  constructor(
    readonly reactor: Reactor,
    readonly fd: number,
    readonly owner: { accepted: (fd: number) => void; closed: () => void },
  ) {
    this.#slot = reactor.register(this);
    this.#arm();
  }

  complete(res: number, flags: number): void {
    this.#armed = (flags & CQE.MORE) !== 0;
    if (res >= 0) {
      if (this.#closed) closeFd(res);
      else this.owner.accepted(res);
    }
    if (this.#armed) return;
    if (this.#closed) return this.#release();
    if (res >= 0) return this.#arm();
    this.reactor.log("warn", "net", `cannot accept a connection: ${errnoText(res)}`);
    this.reactor.after(acceptPauseMs, () => {
      if (!this.#closed) this.#arm();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#armed) this.reactor.ring.cancel(this.#slot);
    else this.#release();
  }

  #arm(): void {
    this.#armed = true;
    this.reactor.ring.accept(this.#slot, this.fd);
  }

  #release(): void {
    this.reactor.unregister(this.#slot);
    closeFd(this.fd);
    this.owner.closed();
  }
}

function unixName(serverId: number, port: number): string {
  return `sealfs-${serverId}-${port}`;
}

/** A socket that listens on `address`, or minus errno. */
function listeningSocket(address: Bytes): number {
  const fd = checked(libc.socket(address[0], SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd < 0) return fd;
  if (address[0] !== AF.UNIX) setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  let result = checked(libc.bind(fd, address, address.length));
  if (result === 0) result = checked(libc.listen(fd, backlogMax));
  if (result === 0) return fd;
  closeFd(fd);
  return result;
}

function boundPort(fd: number): number {
  const address = new Uint8Array(28);
  libc.getsockname(fd, address, new Uint8Array([28, 0, 0, 0]));
  return address[2] << 8 | address[3];
}

function peerName(fd: number): string {
  const address = new Uint8Array(128);
  const result = libc.getpeername(fd, address, new Uint8Array([128, 0, 0, 0]));
  return result < 0 ? "unknown" : addressText(address);
}

function setTcpOptions(fd: number): void {
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepIdleSeconds);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, keepIntervalSeconds);
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, keepCount);
  setOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, userTimeoutMs);
}

function setOption(fd: number, level: number, option: number, value: number): void {
  libc.setsockopt(fd, level, option, new Uint8Array(new Uint32Array([value]).buffer), 4);
}
