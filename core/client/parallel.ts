/**
 * Several tasks at once, with a limit.
 *
 * @module
 */

import { type Scheduler, type Task, waitAll } from "../task.ts";

/**
 * Runs `make(0)` to `make(count - 1)`, at most `limit` at a time. All of them end before this does, whatever they
 * return; values come in the order of the index.
 */
export function* inParallel<T>(
  scheduler: Scheduler,
  count: number,
  limit: number,
  make: (index: number) => Task<T>,
): Task<T[]> {
  const values = new Array<T>(count);
  if (count === 1) {
    values[0] = yield* make(0);
    return values;
  }
  let next = 0;
  const worker = function* (): Task<void> {
    while (next < count) {
      const index = next++;
      values[index] = yield* make(index);
    }
  };
  yield* waitAll(Array.from({ length: Math.min(limit, count) }, () => scheduler.spawn(worker())));
  return values;
}
