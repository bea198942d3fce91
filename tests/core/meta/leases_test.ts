/** Tests of core/meta/leases.ts: who may change what when, with virtual time. */

import { assert, assertEquals } from "@std/assert";
import { leasedInodesMax, Leases, sharedMs } from "../../../core/meta/leases.ts";
import { leaseMs } from "../../../core/protocol/lease.ts";
import { FakeRuntime } from "../fake.ts";

const inode = 7, holder = 1, changer = 2;

function setUp(): { runtime: FakeRuntime; leases: Leases; recalls: { session: number; grant: number }[] } {
  const runtime = new FakeRuntime(), leases = new Leases(runtime);
  const recalls: { session: number; grant: number }[] = [];
  leases.onRecall = (session, _inode, grant) => recalls.push({ session, grant });
  return { runtime, leases, recalls };
}

/** A change begins; tells when it may be made. */
function change(runtime: FakeRuntime, leases: Leases): () => boolean {
  leases.begin([inode]);
  const done = runtime.scheduler.spawn(leases.clear([inode], changer));
  runtime.pass(0);
  return () => done.settled;
}

Deno.test("held() counts the leases of others only, and only while they last", () => {
  const { runtime, leases } = setUp();
  assert(!leases.held([inode], changer));
  assert(leases.grant(inode, holder));
  assert(leases.held([inode], changer));
  assert(!leases.held([inode], holder));
  assert(!leases.held([inode + 1], changer));
  runtime.pass(leaseMs);
  assert(!leases.held([inode], changer));
});

Deno.test("clear() waits until the holder has returned its lease, and asks it once", () => {
  const { runtime, leases, recalls } = setUp();
  leases.grant(inode, holder);
  const cleared = change(runtime, leases);
  runtime.pass(10);
  assert(!cleared());
  assertEquals(recalls.length, 1);
  leases.returned({ inode, session: holder, grant: recalls[0].grant });
  runtime.pass(0);
  assert(cleared());
});

Deno.test("clear() goes on when the holder has ended and returned all it had", () => {
  const { runtime, leases } = setUp();
  leases.grant(inode, holder);
  leases.grant(inode + 1, holder);
  leases.grant(inode + 1, changer);
  const cleared = change(runtime, leases);
  runtime.pass(10);
  assert(!cleared());
  leases.returnedAll(holder);
  runtime.pass(0);
  assert(cleared());
  assertEquals(leases.holders(inode + 1), [changer]);
});

Deno.test("clear() ends when the lease has run out, and asks again meanwhile", () => {
  const { runtime, leases, recalls } = setUp();
  leases.grant(inode, holder);
  const cleared = change(runtime, leases);
  runtime.pass(leaseMs - 1);
  assert(!cleared());
  assert(recalls.length > 1);
  runtime.pass(leaseMs);
  assert(cleared());
});

Deno.test("grant() refuses while a change is under way, and for a while after a recall", () => {
  const { runtime, leases, recalls } = setUp();
  leases.grant(inode, holder);
  const cleared = change(runtime, leases);
  assert(!leases.grant(inode, 3));
  leases.returned({ inode, session: holder, grant: recalls[0].grant });
  runtime.pass(0);
  assert(cleared());
  assert(!leases.grant(inode, changer));
  leases.end([inode]);
  assert(!leases.grant(inode, changer));
  runtime.pass(sharedMs);
  assert(leases.grant(inode, changer));
});

Deno.test("returned() with the number of an older recall does not end a newer lease", () => {
  const { runtime, leases, recalls } = setUp();
  leases.grant(inode, holder);
  change(runtime, leases);
  leases.returned({ inode, session: holder, grant: recalls[0].grant });
  runtime.pass(0);
  leases.end([inode]);
  runtime.pass(sharedMs);
  leases.grant(inode, holder);
  leases.returned({ inode, session: holder, grant: recalls[0].grant });
  assert(leases.held([inode], changer));
});

Deno.test("held() is true for everything until the sessions of an earlier life have claimed, or no lease of then can live", () => {
  const { runtime, leases } = setUp();
  leases.await([holder, 3]);
  assert(leases.held([inode], holder));
  leases.claimed(holder);
  assert(leases.held([inode], holder));
  leases.claimed(3);
  assert(!leases.held([inode], holder));
  const late = new Leases(runtime);
  late.await([holder]);
  runtime.pass(leaseMs - 1);
  assert(late.held([inode], changer));
  runtime.pass(1);
  assert(!late.held([inode], changer));
});

Deno.test("check() counts a change that a lease should have held up", () => {
  const { leases } = setUp();
  leases.grant(inode, holder);
  leases.check([inode], holder);
  assertEquals(leases.counters.missed, 0);
  leases.check([inode], changer);
  assertEquals(leases.counters.missed, 1);
});

Deno.test("grant() refuses when all that the table holds is in use, and takes the place of what is over", () => {
  const { runtime, leases } = setUp();
  for (let number = 1; number <= leasedInodesMax; number++) assert(leases.grant(number, holder));
  assert(!leases.grant(0.5, holder));
  assert(leases.grant(1, changer), "one that has its place");
  runtime.pass(leaseMs / 2);
  for (let number = 1; number <= 1000; number++) assert(leases.grant(number, holder));
  runtime.pass(leaseMs / 2);
  // The first thousand are in use: each refusal has looked at some.
  const made = (from: number, count: number) => {
    let granted = 0;
    for (let number = from; number < from + count; number++) if (leases.grant(number + 0.5, holder)) granted++;
    return granted;
  };
  assert(made(1, 100) >= 100 - 1000 / 64);
  assertEquals(made(1000, leasedInodesMax - 1200), leasedInodesMax - 1200);
  for (let number = 1; number <= 1000; number++) assert(leases.held([number], changer), "still held");
  runtime.pass(leaseMs * 2);
  assertEquals(made(200_000, leasedInodesMax), leasedInodesMax);
});

Deno.test("returned() and end() free the place of an inode that nobody holds any more", () => {
  const { runtime, leases, recalls } = setUp();
  for (let number = 1; number <= leasedInodesMax; number++) leases.grant(number, holder);
  change(runtime, leases);
  leases.returned({ inode, session: holder, grant: recalls[0].grant });
  runtime.pass(sharedMs);
  assert(!leases.grant(0.5, holder), "its change is under way");
  leases.end([inode]);
  assert(leases.grant(0.5, holder));
  assert(!leases.grant(1.5, holder));
});
