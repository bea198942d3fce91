/**
 * What a request costs a server: a real manager and servers, asked by a bare client of one reactor, with 1 and with 64
 * requests in flight. Prints for each kind of request the CPU time of the servers' busiest threads and of all their
 * threads, context switches, and the client's latencies (the last column counts requests that took over 5 ms).
 * CPU time, unlike the clock, hardly notices what else the machine does.
 *
 * deno run -A bench/server_cost.ts [--files=N] [--servers=N] [--at=1,64] [--json]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { ClientSession } from "../core/client/session.ts";
import { E } from "../core/errno.ts";
import { S } from "../core/meta/attributes.ts";
import { shardOf } from "../core/meta/layout.ts";
import { rootInode } from "../core/placement/map.ts";
import { MapHolder } from "../core/placement/map_holder.ts";
import * as m from "../core/protocol/messages.ts";
import type { Task } from "../core/task.ts";
import { openLogger } from "../ffi/log.ts";
import { ManagerSession } from "../ffi/manager_session.ts";
import { SocketNetwork } from "../ffi/net.ts";
import { Reactor } from "../ffi/reactor.ts";
import { type Cluster, withCluster } from "../tests/cluster/harness.ts";

const fileBytes = 4096;
/** Files of a round nobody measures. */
const warmFiles = 3000;
/** The event loop has a turn this often: the session's heartbeats need it. */
const sliceMs = 200;
/** Requests slower than this are counted. */
const slowMs = 5;

/** Times of a process's threads: nanoseconds on a CPU, and switches, by thread. */
type Usage = Map<string, { cpuNs: number; switches: number }>;

function usageOf(pids: readonly number[]): Usage {
  const usage: Usage = new Map();
  for (const pid of pids) {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
      try {
        const [cpuNs] = Deno.readTextFileSync(`/proc/${pid}/task/${name}/schedstat`).split(" ").map(Number);
        const status = Deno.readTextFileSync(`/proc/${pid}/task/${name}/status`);
        const counts = [...status.matchAll(/ctxt_switches:\s*(\d+)/g)].map((found) => Number(found[1]));
        usage.set(`${pid}/${name}`, { cpuNs, switches: counts.reduce((sum, one) => sum + one, 0) });
      } catch { // The thread has ended.
      }
    }
  }
  return usage;
}

/** What was spent between two moments: CPU of each process's busiest thread and of all threads, switches of the former. */
function spent(before: Usage, after: Usage): { storeNs: number; allNs: number; switches: number } {
  const busiest = new Map<string, { cpuNs: number; switches: number }>();
  let allNs = 0;
  for (const [thread, now] of after) {
    const then = before.get(thread) ?? { cpuNs: 0, switches: 0 }, [pid] = thread.split("/");
    const used = { cpuNs: now.cpuNs - then.cpuNs, switches: now.switches - then.switches };
    allNs += used.cpuNs;
    if (used.cpuNs > (busiest.get(pid)?.cpuNs ?? -1)) busiest.set(pid, used);
  }
  const all = [...busiest.values()];
  const sum = (field: "cpuNs" | "switches") => all.reduce((total, one) => total + one[field], 0);
  return { storeNs: sum("cpuNs"), allNs, switches: sum("switches") };
}

/** Every thread of a process, and of those it has started: the harness runs servers below a shell. */
function processes(pid: number): number[] {
  const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim();
  return [pid, ...children === "" ? [] : children.split(" ").flatMap((one) => processes(Number(one)))];
}

interface Figures {
  phase: string;
  inFlight: number;
  storeUs: number;
  allUs: number;
  switches: number;
  clientUs: number;
  perSecond: number;
  p50Us: number;
  p99Us: number;
  maxUs: number;
  slow: number;
}

/** A bare client: requests as they are, no cache. */
class Client {
  readonly reactor = new Reactor();
  readonly session: ClientSession;
  readonly dir: number;

  constructor(manager: ManagerSession, readonly pids: readonly number[], volume: number) {
    const network = new SocketNetwork(this.reactor), maps = new MapHolder(manager.map);
    manager.onMap = () => void maps.update(manager.map);
    this.session = new ClientSession({
      runtime: this.reactor,
      network,
      maps,
      secret: null,
      session: manager.number,
    });
    this.dir = rootInode(volume, manager.map.shards);
  }

  /** Runs `count` requests, `inFlight` at once, and counts what they cost. */
  async phase(
    phase: string,
    run: { count: number; inFlight: number },
    request: (index: number) => Task<void>,
  ): Promise<Figures> {
    const { count, inFlight } = run, tookMs = new Float64Array(count);
    let next = 0, done = 0, running = 0;
    // deno-lint-ignore no-this-alias
    const self = this;
    function* worker(): Task<void> {
      running++;
      while (next < count) {
        const index = next++, startMs = performance.now();
        yield* request(index);
        tookMs[index] = performance.now() - startMs;
        done++;
      }
      running--;
    }
    const before = usageOf(this.pids), own = usageOf([Deno.pid]), startMs = performance.now();
    for (let i = 0; i < Math.min(inFlight, count); i++) this.reactor.scheduler.spawn(worker());
    while (done < count || running > 0) {
      const untilMs = self.reactor.nowMs() + sliceMs;
      self.reactor.run(() => (done >= count && running === 0) || self.reactor.nowMs() >= untilMs);
      await new Promise<void>((resume) => setTimeout(resume, 0));
    }
    const wallMs = performance.now() - startMs;
    const used = spent(before, usageOf(this.pids)), client = spent(own, usageOf([Deno.pid]));
    tookMs.sort();
    return {
      phase,
      inFlight,
      storeUs: used.storeNs / count / 1000,
      allUs: used.allNs / count / 1000,
      switches: used.switches / count,
      clientUs: client.storeNs / count / 1000,
      perSecond: count * 1000 / wallMs,
      p50Us: tookMs[count >> 1] * 1000,
      p99Us: tookMs[Math.floor(count * 0.99)] * 1000,
      maxUs: tookMs[count - 1] * 1000,
      slow: tookMs.reduce((sum, ms) => sum + (ms > slowMs ? 1 : 0), 0),
    };
  }

  /** The message to the shard of `inode`; throws when it fails. */
  *ask<Q, R>(message: m.Message<Q, R>, inode: number, body: Q, data?: Uint8Array): Task<R> {
    const reply = yield* this.session.caller.call(message, { shard: shardOf(inode) }, body, { data });
    if (reply.status !== 0) throw new Error(`${message.name}: ${reply.status}`);
    return reply.body!;
  }
}

async function round(client: Client, label: string, count: number, inFlight: number): Promise<Figures[]> {
  const { session, dir } = client, run = { count, inFlight }, figures: Figures[] = [];
  const names = Array.from({ length: count }, (_, i) => new TextEncoder().encode(`${label}.file.${i}`));
  const inodes: number[] = [], opens: number[] = [], data = new Uint8Array(fileBytes).fill(77);
  const measure = async (phase: string, request: (index: number) => Task<void>, runs = run) => {
    figures.push(await client.phase(phase, runs, request));
  };
  await measure("create", function* (i) {
    const openId = opens[i] = session.opens.newId();
    const made = yield* client.ask(m.CREATE, dir, {
      dir,
      name: names[i],
      mode: S.IFREG | 0o644,
      umask: 0,
      uid: 0,
      gid: 0,
      rdev: 0,
      target: new Uint8Array(0),
      exclusive: true,
      openId,
      truncate: false,
    });
    inodes[i] = made.inode;
  });
  await measure("write", function* (i) {
    yield* client.ask(m.WRITE, inodes[i], { inode: inodes[i], offset: 0, killSetId: false, far: null }, data);
  });
  await measure("write 100 B", function* (i) {
    const body = { inode: inodes[i], offset: 0, killSetId: false, far: null };
    yield* client.ask(m.WRITE, inodes[i], body, data.subarray(0, 100));
  });
  await measure("getattr", function* (i) {
    yield* client.ask(m.GETATTR, inodes[i], { inode: inodes[i] });
  });
  await measure("lookup", function* (i) {
    yield* client.ask(m.LOOKUP, dir, { dir, name: names[i] });
  });
  await measure("open", function* (i) {
    yield* client.ask(m.OPEN, inodes[i], { inode: inodes[i], openId: opens[i] = session.opens.newId() });
  });
  await measure("read", function* (i) {
    yield* client.ask(m.READ, inodes[i], { inode: inodes[i], offset: 0, length: fileBytes, gen: 0, accessTimes: 0 });
  });
  const page = 64, pages = Math.floor(count / page);
  const owner = session.maps.ownerOf(shardOf(dir))!;
  await measure("release 64", function* (i) {
    const closes = inodes.slice(i * page, (i + 1) * page).map((inode, k) => ({ inode, openId: opens[i * page + k] }));
    yield* session.caller.call(m.RELEASE, owner, { closes });
  }, { count: pages, inFlight });
  await measure("readdir 100", function* (i) {
    const body = { dir, cookie: Math.floor(i * 2 ** 53 / pages), limitBytes: 15_000, plus: true, accessTimes: 0 };
    yield* client.ask(m.READDIR, dir, body);
  }, { count: pages, inFlight });
  await measure("unlink", function* (i) {
    yield* client.ask(m.UNLINK, dir, { dir, name: names[i] });
  });
  await measure("lookup absent", function* (i) {
    const { status } = yield* session.caller.call(m.LOOKUP, { shard: shardOf(dir) }, { dir, name: names[i] });
    if (status !== E.NOENT) throw new Error(`LOOKUP of an absent name: ${status}`);
  });
  return figures;
}

function show(figures: readonly Figures[]): void {
  const columns = ["us", "all us", "switches", "client us", "per s", "p50 us", "p99 us", "max us", "> 5 ms"];
  console.log(["request".padEnd(14), "at once", ...columns.map((one) => one.padStart(9))].join(" "));
  for (const one of figures) {
    const numbers = [one.storeUs, one.allUs, one.switches, one.clientUs].map((number) => number.toFixed(1).padStart(9));
    const whole = [one.perSecond, one.p50Us, one.p99Us, one.maxUs, one.slow].map((n) => n.toFixed(0).padStart(9));
    console.log([one.phase.padEnd(14), String(one.inFlight).padStart(7), ...numbers, ...whole].join(" "));
  }
}

async function measured(cluster: Cluster, files: number, atOnce: readonly number[]): Promise<Figures[]> {
  const manager = new ManagerSession({ managerAddress: cluster.managerAddress, logger: openLogger({ level: "warn" }) });
  await manager.opened(AbortSignal.timeout(10_000));
  const volume = (await manager.client.listVolumes())[0].id;
  await manager.refresh();
  const pids = cluster.servers.flatMap((server) => processes(server.pid));
  if (Deno.env.has("SERVER_COST_PIDS")) console.error(`servers: ${pids.join(",")}`);
  const client = new Client(manager, pids, volume);
  await round(client, "warm", warmFiles, 16);
  const figures: Figures[] = [];
  for (const inFlight of atOnce) figures.push(...await round(client, `at${inFlight}`, files, inFlight));
  client.session.close();
  await manager.close();
  return figures;
}

if (import.meta.main) {
  const options = parseArgs(Deno.args, { string: ["files", "servers", "at"], boolean: ["json"] });
  const files = Number(options.files ?? 4000), servers = Number(options.servers ?? 1);
  const atOnce = String(options.at ?? "1,64").split(",").map(Number);
  let figures: Figures[] = [];
  await withCluster({ fromSource: true, servers, clients: 0 }, async (cluster) => {
    figures = await measured(cluster, files, atOnce);
  });
  if (options.json) console.log(JSON.stringify(figures));
  else show(figures);
  Deno.exit(0);
}
