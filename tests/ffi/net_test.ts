/** Links over TCP and Unix sockets, both ends in one reactor. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { frameBytesMax, headBytes } from "../../core/protocol/frame.ts";
import { type Future, Future as Later } from "../../core/task.ts";
import { abstractAddress, addressText, ipAddress, parseHostPort, parseIp } from "../../ffi/address.ts";
import { libc } from "../../ffi/libc.ts";
import type { SocketLink } from "../../ffi/link.ts";
import { type NetworkOptions, SocketNetwork } from "../../ffi/net.ts";
import { Reactor } from "../../ffi/reactor.ts";
import type { RingOptions } from "../../ffi/ring.ts";

interface Bench {
  reactor: Reactor;
  network: SocketNetwork;
  accepted: SocketLink[];
  onLink: (link: SocketLink) => void;
  port: number;
  address: string;
  /** Turns until `done`, at most `limitMs`. */
  until(done: () => boolean, limitMs?: number): void;
}

let nextServerId = 1000;

function withNetwork(
  body: (bench: Bench) => void,
  options: NetworkOptions = {},
  ring: Partial<RingOptions> = {},
): void {
  const reactor = new Reactor({ arenaBytes: 512 << 20, ring });
  const network = new SocketNetwork(reactor, { avoidUnixMs: 0, ...options });
  const bench: Bench = {
    reactor,
    network,
    accepted: [],
    onLink: () => {},
    port: 0,
    address: "",
    until(done, limitMs = 20_000) {
      const end = reactor.nowMs() + limitMs;
      reactor.after(limitMs + 1, () => {});
      reactor.run(() => done() || reactor.nowMs() > end);
      assert(done(), "not done in time");
    },
  };
  const serverId = ++nextServerId;
  const fds = openDescriptors();
  const listening = network.listen({
    address: "127.0.0.1:0",
    serverId,
    onLink(link) {
      bench.accepted.push(link);
      bench.onLink(link);
    },
  });
  assert(listening.unix);
  bench.port = listening.port;
  bench.address = `127.0.0.1:${listening.port}`;
  try {
    body(bench);
    network.close();
    listening.close();
    bench.until(() => network.statistics().links === 0 && openDescriptors() === fds, 3000);
    assertEquals(reactor.arena.usedBytes, 0, "buffers were not given back");
  } finally {
    reactor.close();
  }
}

function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

function connect(bench: Bench, kind: "tcp" | "unix"): SocketLink {
  // A server id that has no Unix socket leaves TCP.
  const serverId = kind === "unix" ? nextServerId : nextServerId + 500_000;
  const link = bench.network.connect({ serverId, address: bench.address, store: 0 });
  assertEquals(link.peer.startsWith("unix:"), kind === "unix");
  return link;
}

function frame(length: number, seed: number): Uint8Array {
  const out = new Uint8Array(length);
  const words = new Uint32Array(out.buffer, 0, length >> 2);
  for (let i = 1; i < words.length; i++) words[i] = Math.imul(i + seed, 2654435761);
  words[0] = length;
  words[1] = seed;
  return out;
}

function checkFrame(got: Uint8Array, seed: number, length: number): void {
  assertEquals(got.length, length);
  const copy = got.slice();
  const want = frame(length, seed);
  for (let i = 0; i < length; i++) if (copy[i] !== want[i]) throw new Error(`frame ${seed} differs at byte ${i}`);
}

/** Lengths from 56 bytes to the largest frame, mostly small. */
function lengths(count: number, seed: number): number[] {
  const special = [headBytes, headBytes + 1, 16383, 16384, 16385, 16384 + 4, 32768, 1 << 20, frameBytesMax];
  return Array.from({ length: count }, (_, i) => {
    seed = (seed * 48271) % 2147483647;
    if (i % 97 < special.length) return special[i % 97];
    if (i % 50 === 1) return headBytes + seed % (1 << 20);
    return headBytes + seed % (i % 5 === 0 ? 60_000 : 600);
  });
}

/** Sends `plan` on `link` a few frames a turn, and tells when all of `plan` arrived at `other` unharmed. */
function stream(bench: Bench, plan: number[], link: SocketLink, other: SocketLink): () => boolean {
  let sent = 0, arrived = 0;
  other.onFrame = (got) => {
    checkFrame(got, arrived, plan[arrived]);
    arrived++;
  };
  const stop = bench.reactor.atEndOfTurn(10, () => {
    for (let i = 0; i < 40 && sent < plan.length && link.queuedBytes < 8 << 20; i++) {
      const whole = frame(plan[sent], sent);
      const cut = headBytes + (sent % 7);
      if (sent % 3 === 0 && cut < whole.length) link.send(whole.subarray(0, cut), whole.subarray(cut));
      else link.send(whole);
      sent++;
    }
    if (sent === plan.length) stop();
    else bench.reactor.defer(() => {});
  });
  return () => arrived === plan.length;
}

for (const kind of ["tcp", "unix"] as const) {
  for (const links of [1, 6]) {
    Deno.test(`SocketLink carries thousands of frames of all sizes both ways over ${links} x ${kind}`, () =>
      withNetwork((bench) => {
        const count = 3000 / links, done: (() => boolean)[] = [];
        for (let i = 0; i < links; i++) {
          const link = connect(bench, kind);
          link.onClose = (reason) => assert(false, reason);
          bench.until(() => bench.accepted.length === i + 1 && !link.connecting);
          done.push(stream(bench, lengths(count, 1 + i), link, bench.accepted[i]));
          done.push(stream(bench, lengths(count, 100 + i), bench.accepted[i], link));
        }
        bench.until(() => done.every((all) => all()));
        const { framesIn, framesOut, badFrames } = bench.network.statistics();
        assertEquals({ framesIn, framesOut, badFrames }, { framesIn: 6000, framesOut: 6000, badFrames: 0 });
      }));
  }

  Deno.test(`SocketLink.send() of one turn leaves as one send over ${kind}`, () =>
    withNetwork((bench) => {
      const link = connect(bench, kind);
      bench.until(() => bench.accepted.length === 1 && !link.connecting);
      let seen = 0;
      bench.accepted[0].onFrame = (got) => checkFrame(got, seen++, 700);
      for (let round = 0; round < 3; round++) bench.reactor.runOnce(0);
      const before = bench.reactor.statistics().submissions;
      for (let i = 0; i < 100; i++) link.send(frame(700, i));
      bench.until(() => seen === 100);
      const submissions = bench.reactor.statistics().submissions - before;
      assert(submissions <= 2, `${submissions} submissions`);
    }));

  Deno.test(`SocketLink.onClose() is called once when the peer closes in the middle of a frame over ${kind}`, () =>
    withNetwork((bench) => {
      for (const cut of [2, 100, 20_000, 900_000]) {
        const link = connect(bench, kind);
        let closed = 0, frames = 0;
        bench.onLink = (accepted) => {
          accepted.onClose = () => closed++;
          accepted.onFrame = () => frames++;
        };
        bench.until(() => !link.connecting);
        link.send(frame(60, 1), frame(1 << 20, 2).subarray(0, cut));
        link.close();
        bench.until(() => closed === 1);
        for (let i = 0; i < 5; i++) bench.reactor.runOnce(1);
        assertEquals([closed, frames], [1, 1]);
      }
    }));

  Deno.test(`SocketNetwork leaks no descriptor over 2000 connections over ${kind}`, () =>
    withNetwork((bench) => {
      const fds = openDescriptors();
      let echoed = 0, closed = 0;
      bench.onLink = (accepted) => {
        accepted.onFrame = (got) => accepted.send(got);
        accepted.onClose = () => closed++;
      };
      for (let i = 0; i < 200; i++) {
        for (let k = 0; k < 10; k++) {
          const link = connect(bench, kind);
          link.onFrame = () => {
            echoed++;
            link.close();
          };
          if (k === 9) link.close();
          else link.send(frame(100, k));
        }
        bench.until(() => echoed === (i + 1) * 9);
      }
      bench.until(() => bench.network.statistics().links === 0);
      assertEquals(openDescriptors(), fds);
      assert(closed >= 1800, `${closed} closed`);
    }));
}

Deno.test("SocketLink loses nothing when completions overflow the ring all the time", () =>
  withNetwork(
    (bench) => {
      const done: (() => boolean)[] = [];
      for (let i = 0; i < 20; i++) {
        const link = connect(bench, i % 2 === 0 ? "unix" : "tcp");
        bench.until(() => bench.accepted.length === i + 1 && !link.connecting);
        done.push(stream(bench, lengths(150, 1 + i), link, bench.accepted[i]));
      }
      bench.until(() => done.every((all) => all()));
    },
    {},
    { entries: 4, completions: 8, flushEvery: 2 },
  ));

Deno.test("SocketLink closes and counts a frame whose length is not allowed, reading nothing behind it", () =>
  withNetwork((bench) => {
    let closes: string[] = [];
    bench.onLink = (accepted) => {
      accepted.onFrame = () => assert(false, "a frame came through");
      accepted.onClose = (reason) => closes.push(reason);
    };
    let bad = 0;
    for (const length of [0, 1, headBytes - 1, frameBytesMax + 1, 0xffffffff]) {
      for (const split of [0, 2]) {
        closes = [];
        const link = connect(bench, "unix");
        let lost = "";
        link.onClose = (reason) => lost = reason;
        const head = frame(200, 7);
        new DataView(head.buffer).setUint32(0, length, true);
        link.send(head.subarray(0, split || 200));
        for (let i = 0; i < 3; i++) bench.reactor.runOnce(1);
        if (split > 0) link.send(head.subarray(split));
        bench.until(() => lost !== "");
        assertEquals(closes, [`bad frame length ${length}`]);
        assertEquals(bench.network.statistics().badFrames, ++bad);
      }
    }
  }));

Deno.test("SocketLink.frameBytesMax refuses long frames of a peer that is not trusted yet", () =>
  withNetwork((bench) => {
    let reason = "";
    bench.onLink = (accepted) => {
      accepted.frameBytesMax = 4096;
      accepted.onClose = (why) => reason = why;
    };
    const link = connect(bench, "tcp");
    link.send(frame(4096, 1));
    link.send(frame(4097, 1));
    bench.until(() => reason !== "");
    assertEquals([reason, bench.accepted[0].framesIn], ["bad frame length 4097", 1]);
  }));

Deno.test("SocketLink waits for a slow reader and closes, not inside send(), when too much waits", () =>
  withNetwork((bench) => {
    // A peer that does not read: a plain socket.
    const fd = libc.socket(2, 1, 0);
    const address = ipAddress([127, 0, 0, 1], bench.port);
    assertEquals(libc.connect(fd, address, address.length), 0);
    bench.until(() => bench.accepted.length === 1);
    const link = bench.accepted[0];
    let closed = 0;
    link.onClose = (reason) => {
      assert(reason.includes("does not read"), reason);
      closed++;
    };
    const big = frame(1 << 20, 3);
    for (let i = 0; i < 12; i++) {
      link.send(big);
      bench.reactor.runOnce(0);
    }
    assert(link.alive && link.queuedBytes > 0);
    for (let i = 0; i < 30 && link.alive; i++) link.send(big);
    assertEquals([link.alive, closed], [false, 0]);
    bench.until(() => closed === 1);
    for (let i = 0; i < 5; i++) bench.reactor.runOnce(1);
    assertEquals([closed, bench.network.statistics().overflows], [1, 1]);
    libc.close(fd);
  }, { queueBytesMax: 16 << 20 }));

Deno.test("SocketLink.close() lets what was sent before leave", () =>
  withNetwork((bench) => {
    let frames = 0, closed = 0;
    bench.onLink = (accepted) => {
      accepted.onFrame = (got) => checkFrame(got, frames++, 1 << 20);
      accepted.onClose = () => closed++;
    };
    const link = connect(bench, "tcp");
    bench.until(() => !link.connecting);
    for (let i = 0; i < 5; i++) link.send(frame(1 << 20, i));
    link.close();
    link.send(frame(100, 99));
    bench.until(() => closed === 1);
    assertEquals(frames, 5);
  }));

Deno.test("SocketLink receives large frames with the pool exhausted, and fails to send without throwing", () =>
  withNetwork((bench) => {
    const link = connect(bench, "tcp");
    bench.until(() => bench.accepted.length === 1 && !link.connecting);
    let frames = 0, reason = "";
    bench.accepted[0].onFrame = (got) => checkFrame(got, frames++, 1 << 20);
    link.onClose = (why) => reason = why;
    link.send(frame(1 << 20, 0));
    const hogs: Uint8Array[] = [];
    for (const bytes of [1 << 20, 16384]) {
      for (let hog; (hog = bench.reactor.arena.allocate(bytes)) !== null;) hogs.push(hog);
    }
    bench.until(() => frames === 1);
    for (let hog; (hog = bench.reactor.arena.allocate(16384)) !== null;) hogs.push(hog);
    for (let i = 0; i < 4; i++) link.send(frame(1 << 20, 1));
    bench.until(() => reason !== "");
    assertEquals(reason, "out of buffers");
    for (const hog of hogs) bench.reactor.arena.release(hog);
  }));

Deno.test("SocketLink may be closed inside onFrame and gets nothing more", () =>
  withNetwork((bench) => {
    let frames = 0;
    bench.onLink = (accepted) => {
      accepted.onFrame = () => {
        frames++;
        accepted.close();
      };
      accepted.onClose = () => assert(false, "onClose after close()");
    };
    const link = connect(bench, "unix");
    let closed = false;
    link.onClose = () => closed = true;
    for (let i = 0; i < 10; i++) link.send(frame(2000, i));
    bench.until(() => closed);
    assertEquals(frames, 1);
  }));

Deno.test("SocketNetwork.connect() fails by onClose, later, when nobody listens or the address is wrong", () =>
  withNetwork((bench) => {
    const reasons: string[] = [];
    const addresses = ["127.0.0.1:1", "nonsense", "no.such.host:80", "[::1]:1", "127.0.0.1:0", "127.0.0.1:70000"];
    for (const address of addresses) {
      const link = bench.network.connect({ serverId: 1, address, store: 0 });
      link.send(frame(100, 1));
      link.onClose = (reason) => reasons.push(`${address} ${reason}`);
    }
    assertEquals(reasons, []);
    bench.until(() => reasons.length === addresses.length);
    assertEquals(reasons.toSorted(), [
      '127.0.0.1:0 "127.0.0.1:0" is not host:port',
      "127.0.0.1:1 cannot connect: ECONNREFUSED",
      '127.0.0.1:70000 "127.0.0.1:70000" is not host:port',
      "[::1]:1 cannot connect: ECONNREFUSED",
      "no.such.host:80 cannot resolve no.such.host",
      'nonsense "nonsense" is not host:port',
    ]);
  }));

Deno.test("SocketNetwork.connect() asks its resolver, and frames sent meanwhile arrive", () => {
  const asked: Future<string | null>[] = [];
  const resolve = () => (asked.push(new Later<string | null>()), asked[asked.length - 1]);
  withNetwork((bench) => {
    let frames = 0;
    bench.onLink = (accepted) => accepted.onFrame = (got) => checkFrame(got, 5, 500 + frames++);
    const link = bench.network.connect({ serverId: 1, address: `server-1:${bench.port}`, store: 0 });
    const given = bench.network.connect({ serverId: 1, address: `server-1:${bench.port}`, store: 0 });
    link.send(frame(500, 5));
    given.close();
    bench.reactor.runOnce(5);
    asked[0].resolve("127.0.0.1");
    asked[1].resolve("127.0.0.1");
    link.send(frame(501, 5));
    bench.until(() => frames === 2);
    assertEquals(bench.accepted.length, 1);
  }, { resolve });
});

Deno.test("SocketNetwork uses TCP for a while after a Unix link that led nowhere", () =>
  withNetwork((bench) => {
    const first = connect(bench, "unix");
    let lost = false;
    first.onClose = () => lost = true;
    bench.until(() => bench.accepted.length === 1);
    bench.accepted[0].close();
    bench.until(() => lost && bench.network.statistics().links === 0);
    const second = bench.network.connect({ serverId: nextServerId, address: bench.address, store: 0 });
    assertEquals(second.peer, bench.address);
    bench.until(() => !second.connecting);
    assert(second.alive);
  }, { avoidUnixMs: 60_000 }));

Deno.test("SocketLink.detach() and SocketNetwork.adopt() move a link with all its bytes to another reactor", () =>
  withNetwork((bench) => {
    const other = new Reactor({ arenaBytes: 64 << 20 });
    const network = new SocketNetwork(other);
    const got: number[] = [];
    let taken: SocketLink | null = null;
    bench.onLink = (accepted) => {
      accepted.onFrame = (first) => {
        const hello = first.slice();
        accepted.send(frame(64, 64));
        accepted.detach().listen(({ fd, received }) => {
          const bytes = new Uint8Array(hello.length + received.length);
          bytes.set(hello);
          bytes.set(received, hello.length);
          taken = network.adopt(fd, bytes, (link) => {
            link.onFrame = (next) => {
              checkFrame(next, got.length, next.length);
              got.push(next.length);
              link.send(next);
            };
          });
        });
      };
      accepted.onClose = () => assert(false, "onClose of a detached link");
    };
    const link = connect(bench, "tcp");
    const answers: number[] = [];
    link.onFrame = (answer) => void answers.push(answer.length);
    const plan = [200, 300, 100_000, 400, 70_000, 56, 1 << 20, 99];
    plan.forEach((length, i) => link.send(frame(length, i)));
    bench.until(() => (other.runOnce(0), bench.reactor.defer(() => {}), answers.length === plan.length + 1));
    assertEquals(got, plan);
    assertEquals(answers, [64, ...plan]);
    assert(taken !== null);
    network.close();
    for (let i = 0; i < 20; i++) other.runOnce(1);
    assertEquals(other.arena.usedBytes, 0);
    other.close();
  }));

Deno.test("SocketNetwork.listen() throws when the address is taken or is no number", () =>
  withNetwork((bench) => {
    const onLink = () => {};
    assertThrows(() => bench.network.listen({ address: bench.address, serverId: 1, onLink }), Error, "EADDRINUSE");
    assertThrows(() => bench.network.listen({ address: "name:80", serverId: 1, onLink }), Error, "numeric");
  }));

Deno.test("parseHostPort() and parseIp() take what people write and nothing else", () => {
  assertEquals(parseHostPort("10.0.0.1:8085"), { host: "10.0.0.1", port: 8085 });
  assertEquals(parseHostPort("[::1]:8085"), { host: "::1", port: 8085 });
  assertEquals(parseHostPort("node-1.cluster.local:1"), { host: "node-1.cluster.local", port: 1 });
  for (const bad of ["", "host", ":80", "host:", "host:99999", "::1:80", "a b:1", "[host]:1"]) {
    assertEquals(parseHostPort(bad), null, bad);
  }
  assertEquals(parseIp("1.2.3.256"), null);
  assertEquals(parseIp("1.2.3"), null);
  assertEquals(parseIp("::"), new Array(16).fill(0));
  assertEquals(parseIp("fe80::1:2")?.slice(-4), [0, 1, 0, 2]);
  assertEquals(parseIp("::ffff:10.1.2.3")?.slice(-6), [255, 255, 10, 1, 2, 3]);
  for (const bad of ["1::2::3", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "g::1", "host"]) {
    assertEquals(parseIp(bad), null, bad);
  }
  for (const text of ["10.0.0.1:8085", "[::1]:80", "[fe80::1:0:0:2]:443", "[2001:db8:1:2:3:4:5:6]:1", "[::]:9"]) {
    const { host, port } = parseHostPort(text)!;
    assertEquals(addressText(ipAddress(parseIp(host)!, port)), text);
  }
  assertEquals([...abstractAddress("ab")], [1, 0, 0, 97, 98]);
});
