/**
 * Troubles, composed by the seed: each run draws a few kinds and how dense they are, and they come at random moments
 * while the clients work. Every trouble ends by itself; {@linkcode Troubles.stop} ends what is left.
 *
 * @module
 */

import type { Random } from "./random.ts";
import { calmNetwork, type NetworkFaults, type Node, type World } from "./world.ts";

/** What can be done to a process. */
export interface Victim {
  readonly name: string;
  /** The nodes it runs on: one a reactor. */
  readonly nodes: readonly Node[];
  readonly up: boolean;
  /** Ends the process. */
  kill(): void;
  start(): void;
}

/** What troubles can be made with. */
export interface Victims {
  readonly world: World;
  readonly servers: readonly Victim[];
  readonly clients: readonly Victim[];
  readonly manager: Victim;
}

/** Kinds of troubles. */
export const troubleKinds = [
  "killServer",
  "killServerUnsaid",
  "killAllServers",
  "killClient",
  "killManager",
  "cutLinks",
  "partition",
  "pause",
] as const;
/** One of {@linkcode troubleKinds}. */
export type TroubleKind = typeof troubleKinds[number];

/** Networks a run can have. */
export const networks: Readonly<Record<string, NetworkFaults>> = {
  calm: calmNetwork,
  slow: { delayMs: [0.5, 20], loss: 0, duplicate: 0, stall: 0 },
  lossy: { delayMs: [0.05, 2], loss: 0.02, duplicate: 0, stall: 0 },
  doubling: { delayMs: [0.05, 2], loss: 0, duplicate: 0.1, stall: 0 },
  jumbled: { delayMs: [0.05, 2], loss: 0, duplicate: 0.03, stall: 0.1 },
};

/** What a run suffers from. */
export interface Plan {
  network: keyof typeof networks;
  kinds: TroubleKind[];
  /** Mean time between two troubles. */
  meanMs: number;
}

/** Draws a plan: about a third of the runs have no trouble but the network's. */
export function drawPlan(random: Random): Plan {
  const network = random.weighted({ calm: 4, slow: 1, lossy: 1, doubling: 2, jumbled: 1 });
  const count = random.pick([0, 1, 1, 2, 3]);
  const kinds: TroubleKind[] = [];
  for (let i = 0; i < count; i++) kinds.push(random.pick(troubleKinds));
  return { network, kinds, meanMs: random.pick([10, 40, 150]) };
}

/** Makes the troubles of a plan happen, a few a round: work must get on. */
export class Troubles {
  /** How often each kind happened. */
  readonly happened = new Map<TroubleKind, number>();
  #active = false;
  #generation = 0;
  #left = 0;

  constructor(readonly victims: Victims, readonly plan: Plan, readonly random: Random) {}

  start(): void {
    this.#active = true;
    this.#generation++;
    this.#left = 0;
    this.victims.world.faults = networks[this.plan.network];
  }

  /** A round begins: at most so many troubles until the next. */
  allow(count: number): void {
    const idle = this.#left === 0;
    this.#left = count;
    if (idle && this.#active && this.plan.kinds.length > 0) this.#next();
  }

  /** Ends every trouble; processes that are down are started. */
  stop(): void {
    const { world, servers, clients, manager } = this.victims;
    this.#active = false;
    this.#generation++;
    world.faults = calmNetwork;
    world.healAll();
    for (const victim of [manager, ...servers, ...clients]) if (!victim.up) victim.start();
  }

  #next(): void {
    const generation = this.#generation;
    const waitMs = -Math.log(1 - this.random.fraction()) * this.plan.meanMs;
    this.victims.world.after(waitMs, () => {
      if (this.#generation !== generation) return;
      this.#make(this.random.pick(this.plan.kinds));
      if (--this.#left > 0) this.#next();
    });
  }

  #make(kind: TroubleKind): void {
    const { victims, random } = this, { servers, clients, manager } = victims;
    this.happened.set(kind, (this.happened.get(kind) ?? 0) + 1);
    switch (kind) {
      case "killServer":
        return this.#kill(random.pick(servers), random.pick([1, 50, 500, 3000]));
      case "killServerUnsaid":
        return this.#killUnsaid(random.pick(servers));
      case "killAllServers":
        for (const server of servers) this.#kill(server, random.pick([1, 100, 1000]));
        return;
      case "killClient":
        return this.#kill(random.pick(clients), random.pick([10, 1000]));
      case "killManager":
        return this.#kill(manager, random.pick([10, 3000]));
      case "cutLinks":
        return random.pick(random.pick([...servers, ...clients]).nodes).cutLinks();
      case "partition":
        return this.#part();
      case "pause":
        return random.pick(random.pick([...servers, ...clients]).nodes).pause(random.pick([5, 100, 3000]));
    }
  }

  #kill(victim: Victim, downMs: number): void {
    if (!victim.up) return;
    victim.kill();
    this.#startLater(victim, downMs);
  }

  #killUnsaid(victim: Victim): void {
    if (!victim.up) return;
    const generation = this.#generation;
    this.random.pick(victim.nodes).crashUnsaid(() => {
      victim.kill();
      if (this.#generation === generation) this.#startLater(victim, this.random.pick([1, 200]));
      else victim.start();
    });
  }

  #startLater(victim: Victim, downMs: number): void {
    const generation = this.#generation;
    this.victims.world.after(downMs * (0.5 + this.random.fraction()), () => {
      if (this.#generation === generation && this.#active && !victim.up) victim.start();
    });
  }

  #part(): void {
    const { world, servers, clients, manager } = this.victims, { random } = this;
    const some = random.pick([...servers, ...clients]), other = random.pick([...servers, manager]);
    if (some === other) return;
    const mode = random.pick(["hold", "drop"] as const);
    for (const a of some.nodes) for (const b of other.nodes) world.part(a, b, mode);
    world.after(random.pick([5, 200, 4000]) * (0.5 + random.fraction()), () => {
      for (const a of some.nodes) for (const b of other.nodes) world.heal(a, b);
    });
  }
}
