/**
 * Work on a tree whose shape is found out on the way: what is found last is done first, so that little waits, and a
 * limited number of tasks work at once.
 *
 * @module
 */

import { Future, type Scheduler, type Task, wait } from "../task.ts";

/**
 * Runs `work` for `first` and for everything it pushes, at most `limit` at a time, until nothing is left. What is pushed
 * together is done in reverse order.
 */
export function* workThrough<T>(
  scheduler: Scheduler,
  limit: number,
  first: readonly T[],
  work: (item: T, push: (items: readonly T[]) => void) => Task<void>,
): Task<void> {
  const stack: T[] = [], over = new Future<void>();
  let running = 0;
  const worker = function* (): Task<void> {
    for (let item = stack.pop(); item !== undefined; item = stack.pop()) yield* work(item, push);
    if (--running === 0) over.resolve();
  };
  const push = (items: readonly T[]) => {
    for (const item of items) stack.push(item);
    for (let more = Math.min(limit - running, items.length); more > 0; more--) {
      running++;
      scheduler.spawn(worker());
    }
  };
  push(first);
  if (running > 0) yield* wait(over);
}
