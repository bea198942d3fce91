/**
 * One run: a cluster, clients at work, troubles beside them, and the judgement. Everything about it is drawn from the
 * seed: what the clients do, what goes wrong, how slow things are, how many stores a server has.
 *
 * @module
 */

import { encodeAcl } from "../../core/meta/acl.ts";
import { S } from "../../core/meta/attributes.ts";
import { type Task, wait } from "../../core/task.ts";
import { aclOf } from "../core/meta/acls.ts";
import { Inexplicable, TooHard } from "./checker.ts";
import { Cluster, type ClusterOptions } from "./cluster.ts";
import { drawPlan, type Plan, type TroubleKind, Troubles } from "./faults.ts";
import { check, leftovers } from "./fsck.ts";
import { aclNames, chunkBytes, State } from "./model.ts";
import { Random } from "./random.ts";
import { Actor, Rounds } from "./rounds.ts";
import { inheritable, lockedEnd, mixes, Pool } from "./workload.ts";
import { SimulationError, World } from "./world.ts";

const clients = 3;
/** Troubles of one round. */
const troublesMax = 6;
const megabyte = 1 << 20;
/** A client must be back this long after its troubles. */
const backMsMax = 60_000;

/** Everything a seed decides. */
export interface Scenario {
  seed: number;
  mix: keyof typeof mixes;
  plan: Plan;
  cluster: ClusterOptions;
  /** Actors a client. */
  actors: number;
  rounds: number;
  /** Operations an actor and round. */
  operations: number;
  /** The volume is deleted at the end. */
  deletes: boolean;
  /** The root has a default ACL. */
  inherits: boolean;
}

/** What a run was. */
export interface Outcome {
  digest: number;
  virtualMs: number;
  events: number;
  frames: number;
  calls: number;
  unknown: number;
  configurations: number;
  troubles: ReadonlyMap<TroubleKind, number>;
  /** Why the answers were not judged to the end, or "". */
  unjudged: string;
}

/** Draws the scenario of a seed. */
export function scenarioOf(seed: number): Scenario {
  const random = new Random(seed, "scenario"), kinds = new Random(seed, "kinds"), lists = new Random(seed, "lists");
  const actors = random.pick([1, 1, 2]);
  const drawn = random.pick(["names", "names", "data", "data", "mixed", "moves"]);
  // About a third of the runs: the others stay what they were before there were locks.
  const mix = kinds.chance(0.4)
    ? kinds.pick(["locks", "locks", "ranges", "orphans"])
    : lists.chance(0.1)
    ? "listings"
    : drawn;
  return {
    seed,
    mix,
    plan: drawPlan(random),
    cluster: {
      servers: 3,
      stores: random.pick([1, 1, 1, 2]),
      clients,
      shards: random.pick([4, 12, 24]),
      volumeBytes: random.pick([256 * megabyte, 256 * megabyte, 256 * 1024]),
      ioTimeoutMs: random.pick([60_000, 60_000, 500]),
      callTimeoutMs: random.pick([10_000, 100]),
      limits: {
        segmentBytes: megabyte,
        logBytesMax: 8 * megabyte,
        checkpointMs: random.pick([20, 200, 1000]),
        growBlocks: 4096,
      },
    },
    actors,
    rounds: random.between(3, 7),
    operations: actors === 1 ? random.between(3, 5) : mix === "locks" ? 2 : random.between(2, 3),
    deletes: random.chance(0.2),
    inherits: random.chance(0.3),
  };
}

/** Runs a scenario. Throws {@linkcode SimulationError} when anything is wrong. */
export function simulate(scenario: Scenario, onTrace: ((line: string) => void) | null = null): Outcome {
  const world = new World(scenario.seed);
  world.onTrace = onTrace;
  const run = new Run(world, scenario);
  try {
    run.play();
  } catch (error) {
    if (error instanceof SimulationError) throw error;
    const reason = error instanceof Inexplicable ? error.message : error instanceof Error ? error.stack : String(error);
    throw new SimulationError(`${reason}`, scenario.seed, world.nowMs, error);
  }
  return run.outcome();
}

class Run {
  readonly cluster: Cluster;
  readonly troubles: Troubles;
  rounds!: Rounds;
  actors: Actor[] = [];
  unjudged = "";

  constructor(readonly world: World, readonly scenario: Scenario) {
    this.cluster = new Cluster(world, scenario.cluster);
    this.troubles = new Troubles(this.cluster, scenario.plan, world.random.fork("troubles"));
    const random = world.random.fork("clocks");
    for (const node of world.nodes) {
      node.clockOffsetMs = random.between(-300, 300);
      node.clockRate = 0.99 + 0.02 * random.fraction();
    }
  }

  play(): void {
    const { scenario } = this;
    this.cluster.boot();
    this.#prepare();
    try {
      this.#work();
    } catch (error) {
      if (!(error instanceof TooHard)) throw error;
      this.unjudged = error.message;
    }
    if (scenario.deletes) this.#delete();
  }

  #work(): void {
    const { scenario, world } = this;
    this.troubles.start();
    for (let round = 0; round < scenario.rounds; round++) {
      this.troubles.allow(world.random.between(1, troublesMax));
      this.rounds.play(this.actors, scenario.operations);
      if (scenario.mix === "ranges") this.rounds.copy(world.random.pick(this.actors));
      const { unresolved } = this.rounds.checker;
      if (unresolved > 2 || unresolved > 0 && world.random.chance(0.5)) this.#settle();
    }
    this.troubles.stop();
    this.#waitUp();
    this.#finish();
  }

  /** Lets everything that is still on its way happen or not. */
  #settle(): void {
    this.troubles.stop();
    this.#waitQuiet();
    this.rounds.checker.settle();
    this.troubles.start();
  }

  #waitQuiet(): void {
    try {
      this.cluster.quiet();
    } catch (error) {
      if (!(error instanceof SimulationError)) throw error;
      throw new SimulationError(
        `${error.message}\n${this.cluster.describe()}`,
        this.scenario.seed,
        this.world.nowMs,
        error,
      );
    }
  }

  #prepare(): void {
    const { world, scenario, cluster } = this, { fs } = cluster.clients[0];
    const root = fs!.root, pool = new Pool(root);
    const defaultAcl = scenario.inherits ? inheritable : "";
    if (scenario.inherits) this.#setDefaultAcl();
    const fresh = State.fresh({ inode: root, mode: S.IFDIR | 0o755, nlink: 2, size: 4096 }, defaultAcl);
    this.rounds = new Rounds(world, fresh, pool, world.random.fork("rounds"));
    for (const client of cluster.clients) {
      for (let i = 0; i < scenario.actors; i++) {
        const index = this.actors.length, random = world.random.fork(`actor ${index}`);
        const fsNow = () => client.fs;
        this.actors.push(new Actor(index, client.index, client.nodes[0], fsNow, random, mixes[scenario.mix], pool));
      }
      client.onLost = () => this.rounds.lost(client.index);
      client.onKilled = () => {
        for (const actor of this.actors) if (actor.client === client.index) actor.kill();
      };
    }
  }

  /** Everything made below inherits it, on whatever shard. */
  #setDefaultAcl(): void {
    const { fs, nodes } = this.cluster.clients[0], name = new TextEncoder().encode(aclNames.default);
    const set = nodes[0].spawn(fs!.setExtendedAttribute(fs!.root, name, encodeAcl(aclOf(inheritable)), 0));
    this.world.run(() => set.settled, 120_000, "the default ACL of the root");
    if (typeof set.value === "number") throw new Error(`setting a default ACL: errno ${set.value}`);
  }

  /** Closes what is open, waits for silence, reads everything through every client, and looks at the raw stores. */
  #finish(): void {
    const { cluster, rounds, world } = this;
    for (const actor of this.actors) {
      let done = false;
      actor.node.spawn(this.#close(actor)).listen(() => done = true);
      world.run(() => done, 120_000, "the files to be closed");
    }
    rounds.judge();
    for (const index of rounds.unsure) {
      cluster.clients[index].kill();
      cluster.clients[index].start();
    }
    this.#waitQuiet();
    rounds.checker.settle();
    for (const client of cluster.clients) {
      const actor = this.actors.find((one) => one.client === client.index)!;
      let done = false;
      actor.node.spawn(this.#audit(actor)).listen(() => done = true);
      world.run(() => done, 120_000, "the last look at everything");
      rounds.judge();
    }
    this.#waitQuiet();
    const problems = check(cluster.servers.flatMap((server) => server.stored()), cluster.control.manager!.map());
    if (problems.length > 0) throw new Error(`the stores are damaged:\n${problems.join("\n")}`);
  }

  #delete(): void {
    const { cluster } = this;
    this.troubles.stop();
    this.#waitUp();
    cluster.deleteVolume();
    const problems = leftovers(cluster.servers.flatMap((server) => server.stored()));
    if (problems.length > 0) throw new Error(`the deleted volume left something behind:\n${problems.join("\n")}`);
  }

  #waitUp(): void {
    const { clients } = this.cluster;
    this.world.run(() => clients.every((client) => client.ready), backMsMax, "the clients to come back");
  }

  *#close(actor: Actor): Task<void> {
    const { opens, owner } = actor.generator;
    if (this.scenario.mix === "locks") {
      for (const inode of new Set([...opens, ...this.rounds.pool.files])) {
        for (const flock of [true, false]) yield* this.rounds.once(actor, { kind: "droplk", inode, owner, flock });
      }
    }
    for (const inode of opens.splice(0)) yield* this.rounds.once(actor, { kind: "release", inode });
    yield* wait(actor.node.sleep(20));
  }

  /** Reads the whole volume. */
  *#audit(actor: Actor): Task<void> {
    const { rounds } = this;
    for (const dirs = [rounds.pool.root]; dirs.length > 0;) {
      const dir = dirs.pop()!;
      yield* rounds.once(actor, { kind: "stat", inode: dir });
      const { observed } = yield* rounds.once(actor, { kind: "readdir", dir });
      if (observed === null || typeof observed === "number") continue;
      for (const [name, inode, type] of observed.entries!) {
        yield* rounds.once(actor, { kind: "lookup", dir, name });
        if (type === S.IFDIR >> 12) dirs.push(inode);
        else if (type === S.IFLNK >> 12) yield* rounds.once(actor, { kind: "readlink", inode });
        else yield* this.#readAll(actor, inode);
        yield* rounds.once(actor, { kind: "listxattr", inode });
        for (const name of ["user.x", aclNames.access, aclNames.default]) {
          yield* rounds.once(actor, { kind: "getxattr", inode, name });
        }
      }
    }
  }

  *#readAll(actor: Actor, inode: number): Task<void> {
    if (this.scenario.mix === "locks") {
      yield* this.rounds.once(actor, { kind: "getlk", inode, owner: 0, write: true, start: 0, end: lockedEnd });
    }
    const parts: [offset: number, length: number][] = [
      [0, 65536],
      [chunkBytes - 16384, 32768],
      [2 * chunkBytes - 16384, 49152],
    ];
    for (const [offset, length] of parts) yield* this.rounds.once(actor, { kind: "read", inode, offset, length });
  }

  outcome(): Outcome {
    const { digest, nowMs, events, frames } = this.world;
    const { calls, unknown, checker } = this.rounds;
    return {
      digest,
      virtualMs: nowMs,
      events,
      frames,
      calls,
      unknown,
      configurations: checker.configurations,
      troubles: this.troubles.happened,
      unjudged: this.unjudged,
    };
  }
}
