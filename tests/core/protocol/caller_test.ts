import { assert, assertEquals, assertLess, assertMatch } from "@std/assert";
import { E } from "../../../core/errno.ts";
import { MapHolder } from "../../../core/placement/map_holder.ts";
import { Caller, type CallerOptions } from "../../../core/protocol/caller.ts";
import { noSlot, status } from "../../../core/protocol/frame.ts";
import { slotsPerServer } from "../../../core/protocol/gate.ts";
import { GETATTRS, GRANTED, LISTXATTR, peerKind, READ, REMOVEXATTR, WRITE } from "../../../core/protocol/messages.ts";
import { waitAll } from "../../../core/task.ts";
import { type Asked, fakeMap, FakeNetwork, FakeRuntime, FakeStore, replyFrame, type Said } from "../fake.ts";

interface World {
  runtime: FakeRuntime;
  network: FakeNetwork;
  maps: MapHolder;
  stores: FakeStore[];
  caller: Caller;
  refreshes: number[];
}

const name = new Uint8Array([97]);

function world(
  answer: (asked: Asked, store: FakeStore) => Said,
  options: Partial<CallerOptions> = {},
  servers = 2,
): World {
  const runtime = new FakeRuntime();
  const network = new FakeNetwork(runtime);
  const refreshes: number[] = [];
  const maps = new MapHolder(fakeMap(1, new Array(servers).fill(1)), (epoch) => refreshes.push(epoch));
  const secret = new Uint8Array([1, 2, 3]);
  for (let id = 1; id <= servers; id++) {
    const store: FakeStore = new FakeStore(id, 0, (asked) => answer(asked, store), secret);
    network.stores.push(store);
  }
  const caller = new Caller({ runtime, network, maps, secret, kind: peerKind.client, session: 5, ...options });
  return { runtime, network, maps, stores: network.stores, caller, refreshes };
}

const names = (list: string[]) => ({ body: { names: new Uint8Array(list.length) } });

Deno.test("Caller.call() shakes hands, then sends many requests on one link", () => {
  const w = world(() => names(["a"]));
  const tasks = Array.from({ length: 20 }, () => w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 }));
  const replies = w.runtime.run(waitAll(tasks.map((task) => w.runtime.scheduler.spawn(task))));
  assertEquals(replies.map((reply) => reply.status), new Array(20).fill(0));
  assertEquals(replies[0].body?.names.length, 1);
  assertEquals(replies[0].server, 1);
  assertEquals(w.network.connections, 1);
  assertEquals(w.caller.roundTrips, { HELLO: 1, PROVE: 1, LISTXATTR: 20 });
});

Deno.test("Caller.call() keeps slot and sequence when the link is lost, and the slot is free after the answer", () => {
  let fail = 2;
  const w = world(() => fail-- > 0 ? "hangup" : {});
  const send = () => w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
  assertEquals(send().status, 0);
  assertEquals(send().status, 0);
  const heads = w.stores[0].asked.map((one) => one.head);
  assertEquals(heads.map((head) => [head.slot, head.sequence]), [[0, 1], [0, 1], [0, 1], [0, 2]]);
  assertEquals(heads[0].session, 5);
});

Deno.test("Caller.call() sends a non-mutation without a slot", () => {
  const w = world(() => names([]));
  w.runtime.run(w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 }));
  assertEquals(w.stores[0].asked[0].head.slot, noSlot);
});

Deno.test("Caller.call() waits for the newer map when the server is not the owner, and asks the new one in the same slot", () => {
  const w = world((_, store) => store.serverId === 1 ? { status: status.wrongOwner, epoch: 2 } : {});
  w.runtime.at(300, () => w.maps.update({ ...fakeMap(2, [1, 1]), owners: fakeMap(2, [1, 1]).owners.map(() => [2]) }));
  const start = w.runtime.nowMs();
  assertEquals(w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })).server, 2);
  assertLess(w.runtime.nowMs() - start, 400);
  assertEquals(w.stores[0].asked.length, 1);
  assertEquals(w.stores[1].asked[0].head.slot, 0);
  assertEquals(w.stores[1].asked[0].head.sequence, 1);
  assertEquals(w.stores[1].asked[0].head.epoch, 2);
  assert(w.refreshes.includes(2));
});

Deno.test("Caller.call() returns wrongOwner of a call to a store", () => {
  const w = world(() => ({ status: status.wrongOwner, epoch: 2 }));
  assertEquals(
    w.runtime.run(w.caller.call(GETATTRS, { server: 1, store: 0 }, { inodes: [] })).status,
    status.wrongOwner,
  );
});

Deno.test("Caller.call() asks again after a growing pause while the server says retry", () => {
  let count = 0;
  const w = world(() => count++ < 8 ? { status: status.retry } : {});
  const start = w.runtime.nowMs();
  assertEquals(w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })).status, 0);
  const took = w.runtime.nowMs() - start;
  assert(took > 60 && took < 250, `${took} ms`);
  assertEquals(new Set(w.stores[0].asked.map((one) => one.head.sequence)), new Set([1]));
});

Deno.test("Caller.call() returns errno and staleGen at once", () => {
  for (const answer of [E.NOENT, status.staleGen]) {
    const w = world(() => ({ status: answer }));
    const reply = w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
    assertEquals([reply.status, reply.body, reply.sends], [answer, undefined, 1]);
  }
});

Deno.test("Caller.call() gives up with EIO after the io timeout when a server is silent", () => {
  const w = world(() => "silence", { callTimeoutMs: 1000, ioTimeoutMs: 5000 });
  const start = w.runtime.nowMs();
  assertEquals(w.runtime.run(w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 })).status, E.IO);
  const took = w.runtime.nowMs() - start;
  assert(took >= 5000 && took < 5500, `${took} ms`);
  assert(w.network.connections > 2, "a silent link is replaced");
});

Deno.test("Caller.call() gives up with EIO after the io timeout when a server is not there, and goes on when it returns", () => {
  const w = world(() => ({}), { ioTimeoutMs: 9000 });
  w.stores[0].up = false;
  assertEquals(w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })).status, E.IO);
  w.runtime.at(3000, () => w.stores[0].up = true);
  assertEquals(w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })).status, 0);
  assertEquals(w.stores[0].asked[0].head.slot, 0, "a slot of a request that was never sent is used again");
});

Deno.test("Caller.call() sends again on the same link when only one reply is overdue", () => {
  let first = true;
  const w = world((asked) => {
    if (asked.message !== REMOVEXATTR || !first) return names([]);
    first = false;
    return "silence";
  }, { callTimeoutMs: 1000 });
  const busy = function* () {
    for (let i = 0; i < 30; i++) {
      yield w.runtime.sleep(100);
      yield* w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 });
    }
    return 0;
  };
  w.runtime.scheduler.spawn(busy());
  const reply = w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
  assertEquals([reply.status, reply.sends], [0, 2]);
  assertEquals(w.network.connections, 1);
});

Deno.test("Caller fences the slot of a mutation that was given up before it is used again", () => {
  let silent = true;
  const w = world(() => silent ? "silence" : {}, { callTimeoutMs: 1000, ioTimeoutMs: 3000 });
  assertEquals(w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })).status, E.IO);
  w.runtime.pass(10_000);
  assertEquals(w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })).status, E.IO);
  silent = false;
  w.runtime.pass(10_000);
  w.stores[0].asked.length = 0;
  w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
  const next = w.stores[0].asked[0].head;
  assert(next.slot <= 1, "the slot came back");
  const w2 = world(() => "silence", { callTimeoutMs: 1000, ioTimeoutMs: 3000 });
  w2.runtime.run(w2.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
  w2.runtime.run(w2.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
  const used = w2.stores[0].asked.filter((one) => one.message === REMOVEXATTR).map((one) => one.head.slot);
  assertEquals(new Set(used), new Set([0, 1]), "while nobody answers another slot is used");
  const fences = w2.stores[0].asked.filter((one) => one.message.name === "FENCE").map((one) => one.head);
  assert(fences.length > 0 && fences.every((head) => head.slot === 0 && head.sequence > 1 && head.shard === 0));
});

Deno.test("Caller holds back mutations beyond the slots of a server", () => {
  let waiting = 0, most = 0;
  const w = world(() => {
    most = Math.max(most, ++waiting);
    return "silence";
  }, { ioTimeoutMs: 2000 });
  const tasks = Array.from(
    { length: 100 },
    () => w.runtime.scheduler.spawn(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })),
  );
  const replies = w.runtime.run(waitAll(tasks));
  assertEquals(
    most >= slotsPerServer && w.stores[0].asked.filter((one) => one.message === REMOVEXATTR).length,
    slotsPerServer,
  );
  assert(replies.every((reply) => reply.status === E.IO));
});

Deno.test("Caller gives each server slots of its own", () => {
  const w = world(() => ({}));
  w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
  w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 1 }, { inode: 1, name }));
  assertEquals(w.stores.map((store) => store.asked[0].head.slot), [0, slotsPerServer]);
});

Deno.test("Callers that share a session in lanes share no slot", () => {
  const used = new Set<number>();
  for (const index of [0, 1]) {
    const w = world((asked) => {
      used.add(asked.head.slot);
      return {};
    }, { lane: { index, of: 2 } });
    w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
    w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 1 }, { inode: 1, name }));
  }
  assertEquals(used.size, 4);
});

Deno.test("Caller.call() copies a reply's data to where it was asked for, and refuses more", () => {
  let data = new Uint8Array([1, 2, 3]);
  const w = world(() => ({ body: { size: 3, version: 1 }, data }));
  const into = new Uint8Array(5);
  const ask = () =>
    w.runtime.run(
      w.caller.call(READ, { shard: 0 }, { inode: 1, offset: 0, length: 5, gen: 0, accessTimes: 0 }, { into }),
    );
  assertEquals(ask().dataLength, 3);
  assertEquals([...into], [1, 2, 3, 0, 0]);
  data = new Uint8Array(6).fill(9);
  assertEquals(ask().status, E.IO);
  assertEquals([...into], [1, 2, 3, 0, 0]);
  assertEquals(w.caller.counters.malformed, 3);
});

Deno.test("Caller.call() sends a request's data behind its body", () => {
  const w = world(() => ({ body: { size: 4, blocks: 8, mtime: { sec: 1, nsec: 0 }, version: 1 } }));
  const data = new Uint8Array([5, 6, 7, 8]);
  w.runtime.run(w.caller.call(WRITE, { shard: 0 }, { inode: 1, offset: 0, killSetId: false, far: null }, { data }));
  assertEquals([...w.stores[0].asked[0].data], [5, 6, 7, 8]);
});

Deno.test("Caller closes the link at a malformed reply and asks again", () => {
  let bad = 1;
  const w = world((asked) => {
    if (bad-- <= 0) return names([]);
    const raw = replyFrame(asked.head, asked.message, names([]));
    return { raw: raw.subarray(0, raw.length - 1) };
  });
  assertEquals(w.runtime.run(w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 })).status, 0);
  assertEquals(w.network.connections, 2);
  assertEquals(w.caller.counters.malformed, 1);
});

Deno.test("Caller claims before anything else when a store was started anew, and not when only the link was lost", () => {
  const claimed: string[] = [];
  let answers = 0;
  const w = world((asked) => {
    if (asked.message.name !== "RECLAIM") return names([]);
    return answers++ < 1 ? { status: status.retry } : { body: {} };
  }, {
    keepLinks: true,
    hooks: {
      reclaim: (server, store) => {
        claimed.push(`${server}/${store}`);
        return [{ opens: [{ inode: 3, openId: 1 }], locks: [], creating: [], last: true }];
      },
    },
  });
  const ask = () => w.runtime.run(w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 }));
  ask();
  assertEquals(w.stores[0].asked.map((one) => one.message.name), ["RECLAIM", "RECLAIM", "LISTXATTR"]);
  w.stores[0].links[0].fail("cable");
  w.runtime.pass(1000);
  ask();
  assertEquals(claimed, ["1/0"]);
  w.stores[0].asked.length = 0;
  w.stores[0].crash();
  w.runtime.pass(1000);
  assertEquals(w.stores[0].asked.map((one) => one.message.name), ["RECLAIM"], "claimed without being asked");
  assertEquals(claimed, ["1/0", "1/0"]);
});

Deno.test("Caller pings a kept link that is idle and replaces it when it is dead", () => {
  const w = world(() => names([]), { keepLinks: true });
  w.runtime.run(w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 }));
  w.runtime.pass(12_000);
  assertEquals(w.caller.roundTrips["PING"], 2);
  assertEquals(w.network.connections, 1);
  w.stores[0].up = false;
  w.runtime.pass(30_000);
  w.stores[0].up = true;
  w.runtime.pass(10_000);
  assert(w.network.connections > 1);
});

Deno.test("Caller hands pushes to its owner", () => {
  const seen: number[] = [];
  const w = world(() => names([]), {
    hooks: { push: (frame) => void seen.push(GRANTED.request.read(frame.body).ticket) },
  });
  w.runtime.run(w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 }));
  w.stores[0].push(GRANTED, { inode: 1, ticket: 33 });
  w.runtime.pass(1);
  assertEquals(seen, [33]);
});

Deno.test("Caller tells once that its session is dead, and goes on with the next one", () => {
  let deaths = 0;
  const w = world((asked) => asked.head.session === 5 ? { status: status.sessionDead } : names([]), {
    hooks: { sessionDead: () => void deaths++ },
  });
  const ask = () => w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 });
  const tasks = [ask(), ask(), ask()].map((task) => w.runtime.scheduler.spawn(task));
  assertEquals(w.runtime.run(waitAll(tasks)).map((reply) => reply.status), new Array(3).fill(status.sessionDead));
  assertEquals(deaths, 1);
  w.runtime.at(500, () => w.caller.renew(6));
  assertEquals(w.runtime.run(ask()).status, 0);
  assertEquals(w.stores[0].asked.at(-1)?.head.session, 6);
});

Deno.test("Caller says why a server is not trusted", () => {
  const w = world(() => ({}), { secret: new Uint8Array([9]), ioTimeoutMs: 2000 });
  assertEquals(w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })).status, E.IO);
  assertMatch(w.caller.refusals[0], /server 1 store 0: it does not know the cluster's secret/);
  assertEquals(w.runtime.logs.filter((line) => line.startsWith("error")).length, 1);
});

Deno.test("Caller routes what waits for a dead server to the new owner when the map changes", () => {
  const w = world(() => ({}));
  w.stores[0].up = false;
  w.runtime.at(2000, () => {
    const next = fakeMap(2, [1, 1]);
    next.owners = next.owners.map(() => [2]);
    next.servers[0].state = 2;
    w.maps.update(next);
  });
  const start = w.runtime.nowMs();
  assertEquals(w.runtime.run(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name })).server, 2);
  assertLess(w.runtime.nowMs() - start, 2100);
});

Deno.test("Caller ends calls with EIO when it is closed or the server leaves the map", () => {
  const w = world(() => "silence");
  const first = w.runtime.scheduler.spawn(w.caller.call(GETATTRS, { server: 2, store: 0 }, { inodes: [] }));
  const second = w.runtime.scheduler.spawn(w.caller.call(REMOVEXATTR, { shard: 0 }, { inode: 1, name }));
  w.runtime.pass(100);
  w.maps.update(fakeMap(2, [1]));
  w.runtime.pass(10);
  assertEquals(first.value.status, E.IO);
  assertEquals(second.settled, false);
  w.caller.close();
  w.runtime.pass(10);
  assertEquals(second.value.status, E.IO);
});

Deno.test("Caller has nothing left to do when it is idle", () => {
  const w = world(() => names([]));
  w.runtime.run(w.caller.call(LISTXATTR, { shard: 0 }, { inode: 7 }));
  w.runtime.pass(2000);
  assertEquals([w.caller.active, w.runtime.scheduler.active], [0, 0]);
});
