/**
 * The simulated control plane: the real manager on a node of its own, asked over the simulated network. What HTTP does
 * in a real cluster is a question that may get no answer here. The manager's state outlives its crashes.
 *
 * @module
 */

import { Manager, type ManagerOptions, type StateStore } from "../../core/manager/manager.ts";
import { Future, type Task, wait } from "../../core/task.ts";
import type { Node, World } from "./world.ts";

/** A question without an answer ends after this time. */
const askTimeoutMs = 500;
/** A manager looks at the clock this often. */
const tickMs = 500;

/** The manager's database: what is committed survives. */
export class MemoryState implements StateStore {
  #stored = new Map<string, Uint8Array>();
  #changes = new Map<string, Uint8Array | null>();

  get(key: string): Uint8Array | undefined {
    const changed = this.#changes.get(key);
    return changed === null ? undefined : changed ?? this.#stored.get(key);
  }

  put(key: string, value: Uint8Array): void {
    this.#changes.set(key, value.slice());
  }

  remove(key: string): void {
    this.#changes.set(key, null);
  }

  commit(): void {
    for (const [key, value] of this.#changes) {
      if (value === null) this.#stored.delete(key);
      else this.#stored.set(key, value);
    }
    this.#changes.clear();
  }

  /** The process died. */
  crash(): void {
    this.#changes.clear();
  }
}

/** The manager and the way to it. */
export class ControlPlane {
  readonly node: Node;
  #manager: Manager | null = null;
  #state = new MemoryState();

  constructor(readonly world: World, readonly options: ManagerOptions) {
    this.node = world.node("manager");
    this.start();
  }

  /** The manager while it runs. For looking; programs ask. */
  get manager(): Manager | null {
    return this.#manager;
  }

  /** Starts the manager's process. */
  start(): void {
    const log: ManagerOptions["log"] = (level, message) => this.node.log(level, "manager", message);
    const opened = Manager.open(this.#state, { ...this.options, log }, this.node.nowMs());
    if (typeof opened === "string") return this.world.fail(`the manager does not start: ${opened}`);
    this.#manager = opened;
    this.node.spawn(this.#tick(opened));
  }

  /** Kills the manager's process. */
  crash(): void {
    this.node.crash();
    this.#manager = null;
    this.#state.crash();
  }

  /** Asks the manager; null when no answer came. */
  ask<T>(from: Node, question: (manager: Manager, nowMs: number) => T): Future<T | null> {
    const answer = new Future<T | null>();
    const { world, node } = this, { incarnation } = from;
    from.later(askTimeoutMs, () => answer.resolve(null));
    world.travel(from, node, () =>
      world.after(world.delayMs(), () =>
        node.post(() => {
          if (this.#manager === null) return;
          const said = question(this.#manager, node.nowMs());
          node.queue(() =>
            world.travel(node, from, () =>
              world.after(world.delayMs(), () => {
                if (from.incarnation === incarnation) from.post(() => answer.resolve(said));
              }))
          );
        })));
    return answer;
  }

  *#tick(manager: Manager): Task<void> {
    for (;;) {
      manager.tick(this.node.nowMs());
      yield* wait(this.node.sleep(tickMs));
    }
  }
}
