import { assertEquals } from "@std/assert";
import { Future, Scheduler, type Task, wait } from "../../core/task.ts";

function panics(error: unknown): void {
  throw error;
}

Deno.test("Scheduler.start() tells the outcome before it returns when the task does not wait", () => {
  const scheduler = new Scheduler(panics), heard: number[] = [];
  scheduler.start(
    (function* (): Task<number> {
      return yield* wait(Future.of(7));
    })(),
    (value) => heard.push(value),
  );
  assertEquals(heard, [7]);
  assertEquals(scheduler.active, 0);
  assertEquals(scheduler.pending, false);
});

Deno.test("Scheduler.start() runs the task up to its first wait, and on when the future has settled", () => {
  const scheduler = new Scheduler(panics), heard: string[] = [], future = new Future<string>();
  scheduler.start(
    (function* (): Task<string> {
      heard.push("begun");
      return (yield* wait(future)) + (yield* wait(Future.of("!")));
    })(),
    (value) => heard.push(value),
  );
  assertEquals(heard, ["begun"]);
  future.resolve("done");
  assertEquals(heard, ["begun"]);
  scheduler.run();
  assertEquals(heard, ["begun", "done!"]);
  assertEquals(scheduler.active, 0);
});

Deno.test("Scheduler.start() passes on what a task throws, at its start and later", () => {
  const errors: string[] = [], future = new Future<void>();
  const scheduler = new Scheduler((error) => errors.push((error as Error).message));
  scheduler.start(
    (function* (): Task<void> {
      yield* wait(future);
      throw new Error("later");
    })(),
    () => {},
  );
  scheduler.start(
    (function* (): Task<void> {
      yield* wait(Future.of<void>(undefined));
      throw new Error("at once");
    })(),
    () => {},
  );
  future.resolve();
  scheduler.run();
  assertEquals(errors, ["at once", "later"]);
  assertEquals(scheduler.active, 0);
});
