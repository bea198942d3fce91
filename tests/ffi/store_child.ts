/**
 * A process for tests/ffi/store_test.ts to kill: commits records to a store for ever and says on stdout what was
 * acknowledged: "N" after the turn that wrote record N, "sN" after a sync that covers it.
 *
 * @module
 */

import { Chunks } from "../../core/data/chunk.ts";
import { failed } from "../../core/errno.ts";
import { Key, kind } from "../../core/meta/layout.ts";
import { put } from "../../core/store/record.ts";
import { type Task, wait } from "../../core/task.ts";
import { hookOrder, Reactor } from "../../ffi/reactor.ts";
import { openStore } from "../../ffi/store/open.ts";

const [folder] = Deno.args;
const reactor = new Reactor({ log: (...line) => console.error(...line) });
const say = (line: string) => Deno.stdout.writeSync(new TextEncoder().encode(line + "\n"));

function* work(): Task<void> {
  const identity = { clusterId: "test", serverId: 1, storeIndex: 0, storeCount: 1 };
  const opened = yield* openStore({ reactor, databasePath: folder, storagePaths: [folder], identity });
  if ("error" in opened) throw new Error(opened.error);
  const { store } = opened, chunks = new Chunks(store), inode = 2 ** 41 + 2;
  store.openShard(1);
  reactor.scheduler.spawn(store.maintain());
  let acknowledged = store.shard(1)!.position;
  reactor.atEndOfTurn(hookOrder.store, () => {
    if (store.endOfTurn() !== 0) throw new Error("the store failed");
    const position = store.shard(1)!.position;
    if (position > acknowledged) say(String(acknowledged = position));
  });
  for (;;) {
    const next = store.shard(1)!.position + 1, data = new Uint8Array(20000).fill(next);
    const write = yield* chunks.write({
      shard: 1,
      inode,
      chunk: next % 50,
      offset: 100,
      length: data.length,
      data,
      volume: 1,
      gen: 1,
    });
    if (failed(write)) throw new Error(`write: errno ${write}`);
    const value = new Uint8Array(200).fill(next);
    const changes = [put(new Key(1, kind.xattr, 20).u56(inode).u48(next).done(), value), ...write.changes];
    store.commit(1, {
      epoch: 1,
      session: 0,
      slot: 0,
      sequence: 0,
      changes,
      charges: [{ volume: 1, bytesDelta: write.bytesDelta, inodesDelta: 0 }],
    });
    write.done();
    if (next % 40 === 0) {
      if ((yield* wait(store.sync())) !== 0) throw new Error("sync failed");
      say(`s${next}`);
    }
    yield* wait(reactor.sleep(0.2));
  }
}

reactor.scheduler.spawn(work());
reactor.run();
