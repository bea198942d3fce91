/**
 * Tasks: how everything that waits is written in sealfs.
 *
 * A task is a generator that yields a {@linkcode Future} each time it has to wait and is resumed with the
 * future's value. No promises: a reactor never returns to the event loop, so microtasks would not run there.
 * The same tasks run under a reactor (ffi/) and under the simulator, which resumes them in a seeded order.
 *
 * Inside core an operation returns a POSIX errno or a value; a task that throws is a bug and stops its process.
 *
 * @module
 */

/** A computation that may wait. Run one from another with `yield*`; start one with {@linkcode Scheduler.spawn}. */
// deno-lint-ignore no-explicit-any
export type Task<T> = Generator<Future<any>, T, unknown>;

/** A value that arrives later, once. There is no rejection: failures are values. */
export class Future<T> {
  /** True once {@linkcode resolve} was called. */
  settled = false;
  /** The value, meaningful when `settled`. */
  value!: T;
  #waiter: ((value: T) => void) | null = null;
  #more: ((value: T) => void)[] | null = null;

  /** Settles the future and tells those who wait. Returns false, and changes nothing, when it was settled already. */
  resolve(value: T): boolean {
    if (this.settled) return false;
    this.settled = true;
    this.value = value;
    const waiter = this.#waiter, more = this.#more;
    this.#waiter = this.#more = null;
    if (waiter !== null) waiter(value);
    if (more !== null) { for (const next of more) next(value); }
    return true;
  }

  /** Calls `listener` with the value when it is there: at once if it is there already. */
  listen(listener: (value: T) => void): void {
    if (this.settled) listener(this.value);
    else if (this.#waiter === null) this.#waiter = listener;
    else (this.#more ??= []).push(listener);
  }

  /** A future that is settled already. */
  static of<T>(value: T): Future<T> {
    const future = new Future<T>();
    future.resolve(value);
    return future;
  }
}

/** Waits for a future: `const reply = yield* wait(future)`. */
export function* wait<T>(future: Future<T>): Task<T> {
  if (future.settled) return future.value;
  return (yield future as Future<unknown>) as T;
}

/** Waits for all of `futures`; the values come in the order of the argument. */
export function* waitAll<T>(futures: readonly Future<T>[]): Task<T[]> {
  const values: T[] = [];
  for (const future of futures) values.push(yield* wait(future));
  return values;
}

/** A future of the first value among `futures`; the others are left to settle unheard. */
export function first<T>(...futures: Future<T>[]): Future<T> {
  const out = new Future<T>();
  for (const future of futures) future.listen((value) => out.resolve(value));
  return out;
}

/** A future that settles when one of `futures` does, whatever their values are. */
export function either<A, B>(a: Future<A>, b: Future<B>): Future<void> {
  const out = new Future<void>();
  a.listen(() => out.resolve());
  b.listen(() => out.resolve());
  return out;
}

/** Most steps one {@linkcode Scheduler.run} takes before it lets its reactor look at the kernel again. */
const stepsPerRunMax = 4096;

/** Runs tasks in the order in which they became ready. One a reactor; never shared. */
export class Scheduler {
  #ready: (() => void)[] = [];
  #next = 0;
  /** Tasks started and not finished. */
  active = 0;
  /** What the running task works for, a number of its owner's; 0 for nothing. Tasks that it starts inherit it. */
  origin = 0;

  /** `onPanic` hears of a task that threw: a bug. It should stop the process (or the simulated node). */
  constructor(readonly onPanic: (error: unknown) => void) {}

  /** Starts a task; its first step runs in the next {@linkcode run}. The future settles with what it returns. */
  spawn<T>(task: Task<T>): Future<T> {
    const done = new Future<T>();
    this.#ready.push(this.#begin(task, (value) => done.resolve(value)));
    return done;
  }

  /**
   * Starts a task inside the call: it runs until it has to wait for the first time. `done` hears of what it returns,
   * before this returns if it did not have to wait.
   */
  start<T>(task: Task<T>, done: (value: T) => void): void {
    const { origin } = this;
    this.#begin(task, done)();
    this.origin = origin;
  }

  /** What takes a task from one wait to the next. */
  #begin<T>(task: Task<T>, done: (value: T) => void): () => void {
    this.active++;
    let value: unknown = undefined;
    let origin = this.origin;
    const arrived = (settled: unknown) => {
      value = settled;
      this.#ready.push(step);
    };
    const step = () => {
      this.origin = origin;
      try {
        for (;;) {
          const at = task.next(value);
          if (at.done) {
            this.active--;
            return done(at.value);
          }
          if (!at.value.settled) {
            origin = this.origin;
            return at.value.listen(arrived);
          }
          value = at.value.value;
        }
      } catch (error) {
        this.active--;
        this.onPanic(error);
      }
    };
    return step;
  }

  /** True when a task can go on now. */
  get pending(): boolean {
    return this.#next < this.#ready.length;
  }

  /** Runs ready tasks until none is ready or `stepsPerRunMax` steps are done. Returns the number of steps. */
  run(): number {
    let steps = 0;
    while (this.#next < this.#ready.length && steps < stepsPerRunMax) {
      this.#ready[this.#next++]();
      steps++;
    }
    this.origin = 0;
    if (this.#next === this.#ready.length) {
      this.#ready.length = 0;
      this.#next = 0;
    } else if (this.#next > 65536) {
      this.#ready = this.#ready.slice(this.#next);
      this.#next = 0;
    }
    return steps;
  }
}

/** Lets at most `limit` tasks through at a time, first come first served. */
export class Semaphore {
  #waiting: Future<void>[] = [];
  #free: number;

  /** `limit` tasks may hold the semaphore at once. */
  constructor(limit: number) {
    this.#free = limit;
  }

  /** Waits for a place. Every acquire is paired with one {@linkcode release}. */
  *acquire(): Task<void> {
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    const turn = new Future<void>();
    this.#waiting.push(turn);
    yield* wait(turn);
  }

  /** Takes a place if one is free now. */
  tryAcquire(): boolean {
    if (this.#free === 0) return false;
    this.#free--;
    return true;
  }

  /** Gives the place to the one who has waited longest. */
  release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next.resolve();
  }

  /** Tasks that wait. */
  get queued(): number {
    return this.#waiting.length;
  }
}
