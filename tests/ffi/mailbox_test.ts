/** The mailbox between the main thread and a reactor Worker. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { MainMailbox } from "../../ffi/mailbox.ts";

async function withWorker(directionBytes: number, body: (mailbox: MainMailbox) => Promise<void>): Promise<void> {
  const worker = new Worker(new URL("./mailbox_worker.ts", import.meta.url).href, { type: "module" });
  const mailbox = new MainMailbox(directionBytes);
  worker.onerror = (event) => event.preventDefault();
  worker.postMessage(mailbox.port);
  try {
    await body(mailbox);
  } finally {
    await mailbox.post({ do: "stop" }).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    mailbox.close();
    worker.terminate();
  }
}

Deno.test("MainMailbox.call() returns what the reactor answers, many at once and late ones too", () =>
  withWorker(1 << 16, async (mailbox) => {
    assertEquals(await mailbox.call({ do: "echo", value: { a: [1, "two", 2 ** 40] } }), { a: [1, "two", 2 ** 40] });
    const bytes = await mailbox.call({ do: "echo", value: new Uint8Array([1, 2, 3]) });
    assertEquals([...bytes as Uint8Array], [1, 2, 3]);
    const late = mailbox.call({ do: "late" });
    const many = await Promise.all(Array.from({ length: 3000 }, (_, i) => mailbox.call({ do: "echo", value: i })));
    assertEquals(many, Array.from({ length: 3000 }, (_, i) => i));
    assertEquals(await late, "late");
  }));

Deno.test("MainMailbox.call() rejects on a failure, a time-out and a message that is too large", () =>
  withWorker(4096, async (mailbox) => {
    await assertRejects(() => mailbox.call({ do: "nonsense" }), Error, "unknown order nonsense");
    await assertRejects(() => mailbox.call({ do: "never" }, 50), Error, "within 50 ms");
    await assertRejects(() => mailbox.call(new Uint8Array(5000)), Error, "at most 4084");
    await assertRejects(() => mailbox.post(new Uint8Array(5000)), Error, "at most 4084");
    assertEquals(await mailbox.call({ do: "echo", value: 1 }), 1);
  }));

Deno.test("MainMailbox.post() waits while the queue is full and loses nothing", () =>
  withWorker(4096, async (mailbox) => {
    await mailbox.post({ do: "stall" });
    let bytes = 0, settled = 0;
    const posts: Promise<void>[] = [];
    for (let i = 0; i < 500; i++) {
      bytes += i;
      posts.push(mailbox.post(new Uint8Array(i)).then(() => void settled++));
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert(settled < 200, `${settled} posts did not wait`);
    await Promise.all(posts);
    assertEquals(await mailbox.call({ do: "posted" }), bytes);
  }));

Deno.test("ReactorMailbox.post() delivers in order although far more is sent than fits", () =>
  withWorker(8192, async (mailbox) => {
    const seen: number[] = [];
    mailbox.onMessage = (message) => void seen.push((message as { flood: number }).flood);
    await mailbox.post({ do: "flood", count: 3000 });
    for (let i = 0; i < 200 && seen.length < 3000; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    assertEquals(seen, Array.from({ length: 3000 }, (_, i) => i));
  }));

Deno.test("ReactorMailbox.call() gets the main thread's reply, its failure, or a time-out", () =>
  withWorker(1 << 16, async (mailbox) => {
    mailbox.onCall = async (message) => {
      await Promise.resolve();
      if (message === "throw") throw new Error("main refuses");
      if (message === "hang") await new Promise((resolve) => setTimeout(resolve, 700));
      return [message];
    };
    assertEquals(await mailbox.call({ do: "ask", value: "x" }), { ok: true, value: ["x"] });
    assertEquals(await mailbox.call({ do: "ask", value: "throw" }), { ok: false, error: "main refuses" });
    assertEquals(await mailbox.call({ do: "ask", value: "hang" }), { ok: false, error: "no reply within 500 ms" });
    await new Promise((resolve) => setTimeout(resolve, 300));
  }));

Deno.test("MainMailbox.onDeath() hears why the reactor died and everything that waits is rejected", () =>
  withWorker(1 << 16, async (mailbox) => {
    let reason = "";
    const heard = new Promise<void>((resolve) => mailbox.onDeath = (why) => (reason = why, resolve()));
    const waiting = assertRejects(() => mailbox.call({ do: "never" }), Error, "the reactor's own bug");
    await mailbox.post({ do: "die" });
    await heard;
    await waiting;
    assert(reason.includes("the reactor's own bug"), reason);
    await assertRejects(() => mailbox.post(1), Error, "gone");
  }));

Deno.test("MainMailbox refuses a size that is no power of two", () => {
  assertThrows(() => new MainMailbox(5000), RangeError);
});
