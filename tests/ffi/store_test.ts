/** Tests of ffi/store: a store on real files, through kills, torn tails, full disks and other people's files. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Chunks } from "../../core/data/chunk.ts";
import { E, failed } from "../../core/errno.ts";
import { Key, kind } from "../../core/meta/layout.ts";
import { put } from "../../core/store/record.ts";
import type { StoreIdentity, StoreLimits } from "../../core/store/store.ts";
import { type Task, wait } from "../../core/task.ts";
import { hookOrder, Reactor } from "../../ffi/reactor.ts";
import { type OpenedStore, openStore } from "../../ffi/store/open.ts";

const identity: StoreIdentity = { clusterId: "test", serverId: 1, storeIndex: 0, storeCount: 1 };
const inode = 2 ** 41 + 2;
const smallLog: Partial<StoreLimits> = { segmentBytes: 1 << 20, logBytesMax: 8 << 20 };

/** A reactor with an open store in it. */
class Session {
  readonly reactor: Reactor;
  readonly lines: string[] = [];

  constructor() {
    this.reactor = new Reactor({
      arenaBytes: 64 << 20,
      log: (level, component, message) => this.lines.push(`${level} ${component}: ${message}`),
    });
  }

  run<T>(task: Task<T>): T {
    const done = this.reactor.scheduler.spawn(task);
    this.reactor.run(() => done.settled);
    return done.value;
  }

  open(
    folder: string,
    options: { storagePaths?: string[]; limits?: Partial<StoreLimits>; identity?: StoreIdentity } = {},
  ) {
    const { storagePaths = [folder], limits } = options;
    const who = options.identity ?? identity, reactor = this.reactor;
    const opened = this.run(openStore({ reactor, databasePath: folder, storagePaths, identity: who, limits }));
    if (!("error" in opened)) {
      opened.store.openShard(1);
      reactor.atEndOfTurn(hookOrder.store, () => void opened.store.endOfTurn());
    }
    return opened;
  }

  mustOpen(folder: string, options: { storagePaths?: string[]; limits?: Partial<StoreLimits> } = {}): OpenedStore {
    const opened = this.open(folder, options);
    if ("error" in opened) throw new Error(opened.error);
    return opened;
  }

  /** Writes a chunk; errno. */
  write({ store }: OpenedStore, chunks: Chunks, chunk: number, offset: number, data: Uint8Array): number {
    const range = { shard: 1, inode, chunk, offset, length: data.length };
    const change = this.run(chunks.write({ ...range, data, volume: 1, gen: 1 }));
    if (failed(change)) return change;
    const charges = [{ volume: 1, bytesDelta: change.bytesDelta, inodesDelta: 0 }];
    const position = store.commit(1, { epoch: 1, session: 0, slot: 0, sequence: 0, changes: change.changes, charges });
    change.done();
    return position > 0 ? store.endOfTurn() : E.IO;
  }

  read(chunks: Chunks, chunk: number, offset: number, length: number): Uint8Array | number {
    const into = new Uint8Array(length);
    return this.run(chunks.read({ shard: 1, inode, chunk, offset, length }, into)) || into;
  }
}

function key(name: number): Uint8Array {
  return new Key(1, kind.xattr, 20).u56(inode).u48(name).done();
}

function set({ store }: OpenedStore, name: number, value: Uint8Array): number {
  const changes = [put(key(name), value)];
  const position = store.commit(1, { epoch: 1, session: 0, slot: 0, sequence: 0, changes });
  assertEquals(store.endOfTurn(), position > 0 ? 0 : E.IO);
  return position;
}

async function inFolder(work: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "sealfs-store-" });
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("openStore() makes a store, and finds everything again after close()", () =>
  inFolder((folder) => {
    const first = new Session(), opened = first.mustOpen(folder), chunks = new Chunks(opened.store);
    const data = crypto.getRandomValues(new Uint8Array(60000));
    assertEquals(first.write(opened, chunks, 3, 12345, data), 0);
    for (const size of [0, 1, 200, 4096, 4097, 65536]) set(opened, size, new Uint8Array(size).fill(size));
    assertEquals(first.read(chunks, 3, 12345, data.length), data);
    assertEquals(first.run(opened.close()), 0);
    const second = new Session(), again = second.mustOpen(folder), chunksAgain = new Chunks(again.store);
    assertEquals(again.store.shard(1)!.position, 7);
    for (const size of [0, 1, 200, 4096, 4097, 65536]) {
      assertEquals(again.store.get(key(size)), new Uint8Array(size).fill(size));
    }
    const seen: number[] = [];
    again.store.scan(key(0), key(2 ** 47), (_key, value) => seen.push(value.length) < 4);
    assertEquals(seen, [0, 1, 200, 4096]);
    assertEquals(second.read(chunksAgain, 3, 12345, data.length), data);
    assertEquals(second.read(chunksAgain, 3, 0, 100), new Uint8Array(100));
    assert(again.store.fill().dataBytesMax > again.store.fill().dataBytes);
    assertEquals(second.run(again.close()), 0);
    first.reactor.close();
    second.reactor.close();
  }));

Deno.test("a killed store loses nothing that was said, over several lives", () =>
  inFolder(async (folder) => {
    let said = 0;
    for (let life = 0; life < 4; life++) {
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", new URL("store_child.ts", import.meta.url).pathname, folder],
        stdout: "piped",
        stderr: "inherit",
      }).spawn();
      const wanted = said + 150 + 130 * life;
      let text = "";
      for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
        text += part;
        const last = text.lastIndexOf("\n"), line = text.slice(text.lastIndexOf("\n", last - 1) + 1, last);
        if (Number(line.replace("s", "")) >= wanted) break;
      }
      child.kill("SIGKILL");
      await child.status;
      said = Math.max(...text.split("\n").slice(0, -1).map((line) => Number(line.replace("s", ""))));
      assert(said >= wanted);
      const session = new Session(), opened = session.mustOpen(folder), chunks = new Chunks(opened.store);
      const position = opened.store.shard(1)!.position;
      assert(position >= said, `position ${position}, but ${said} was said`);
      for (let n = 1; n <= position; n++) assertEquals(opened.store.get(key(n)), new Uint8Array(200).fill(n));
      for (let n = Math.max(1, position - 49); n <= position; n++) {
        assertEquals(session.read(chunks, n % 50, 100, 20000), new Uint8Array(20000).fill(n));
      }
      assertEquals(opened.store.usage(1).bytes, opened.store.fill().dataBytes - 4096);
      assertEquals(session.run(opened.close()), 0);
      session.reactor.close();
      said = position;
    }
  }));

Deno.test("openStore() takes a torn log tail for the end", () =>
  inFolder((folder) => {
    const first = new Session(), opened = first.mustOpen(folder);
    for (let n = 1; n <= 20; n++) set(opened, n, new Uint8Array(1000).fill(n));
    // The process "dies" here: its files stay as they are, seen through a copy.
    const copy = `${folder}/copy`;
    Deno.mkdirSync(`${copy}/store-0/log`, { recursive: true });
    for (const name of ["data.mdb"]) Deno.copyFileSync(`${folder}/store-0/${name}`, `${copy}/store-0/${name}`);
    Deno.copyFileSync(`${folder}/store-0.data`, `${copy}/store-0.data`);
    const [segment] = [...Deno.readDirSync(`${folder}/store-0/log`)].map((entry) => entry.name);
    const log = Deno.readFileSync(`${folder}/store-0/log/${segment}`);
    let end = log.length;
    while (log[end - 1] === 0) end--;
    log.fill(0, end - 500, end);
    Deno.writeFileSync(`${copy}/store-0/log/${segment}`, log);
    const second = new Session(), again = second.mustOpen(copy);
    assertEquals(again.store.shard(1)!.position, 19);
    assertEquals(again.store.get(key(19)), new Uint8Array(1000).fill(19));
    assertEquals(again.store.get(key(20)), undefined);
    assertEquals(set(again, 20, new Uint8Array(3)), 20);
    for (const [session, store] of [[first, opened], [second, again]] as const) {
      assertEquals(session.run(store.close()), 0);
      session.reactor.close();
    }
  }));

Deno.test("log files are reused and checkpoints keep their number small", () =>
  inFolder((folder) => {
    const session = new Session(), opened = session.mustOpen(folder, { limits: smallLog });
    const names = () => [...Deno.readDirSync(`${folder}/store-0/log`)].map((entry) => entry.name);
    for (let n = 1; n <= 600; n++) {
      assert(set(opened, n % 10, new Uint8Array(30000).fill(n)) > 0);
      if (n % 50 === 0) assertEquals(session.run(opened.store.checkpoint()), 0);
      if (n % 30 === 0) assertEquals(session.run(wait(opened.store.sync())) as number, 0);
    }
    assert(names().length <= 8, names().join(" "));
    assert(names().some((name) => name.startsWith("spare-")));
    assertEquals(session.run(opened.close()), 0);
    const again = session.mustOpen(folder, { limits: smallLog });
    assertEquals(again.store.shard(1)!.position, 600);
    assertEquals(session.run(again.close()), 0);
    session.reactor.close();
  }));

Deno.test("openStore() refuses a folder in use, another identity, foreign files and missing data", () =>
  inFolder((folder) => {
    const session = new Session(), opened = session.mustOpen(folder);
    const error = (result: OpenedStore | { error: string }) => {
      assert("error" in result);
      return result.error;
    };
    assertStringIncludes(error(session.open(folder)), "another process uses");
    assertEquals(session.run(opened.close()), 0);
    assertStringIncludes(error(session.open(folder, { identity: { ...identity, serverId: 2 } })), "server 1");
    assertStringIncludes(
      error(session.open(folder, { identity: { ...identity, clusterId: "other" } })),
      "cluster test",
    );
    const data = `${folder}/store-0.data`, kept = `${folder}/kept`;
    Deno.renameSync(data, kept);
    assertStringIncludes(error(session.open(folder)), "missing");
    const foreign = new TextEncoder().encode("precious words of somebody else ".repeat(20000));
    Deno.writeFileSync(data, foreign);
    assertStringIncludes(error(session.open(folder)), "left alone");
    assertEquals(Deno.readFileSync(data), foreign);
    Deno.removeSync(data);
    Deno.renameSync(kept, data);
    const again = session.mustOpen(folder);
    assertEquals(session.run(again.close()), 0);
    session.reactor.close();
  }));

Deno.test("openStore() does not make a new database beside old data", () =>
  inFolder((folder) => {
    const session = new Session(), opened = session.mustOpen(folder), chunks = new Chunks(opened.store);
    assertEquals(session.write(opened, chunks, 0, 0, new Uint8Array(4096)), 0);
    assertEquals(session.run(opened.close()), 0);
    Deno.removeSync(`${folder}/store-0/data.mdb`);
    const lost = session.open(folder);
    assert("error" in lost);
    Deno.removeSync(`${folder}/store-0`, { recursive: true });
    const empty = session.open(folder);
    assert("error" in empty);
    assertStringIncludes(empty.error, "hold data");
    session.reactor.close();
  }));

Deno.test("a data file survives a torn write of its next head", () =>
  inFolder((folder) => {
    const session = new Session(), opened = session.mustOpen(folder, { limits: { growBlocks: 4096 } });
    const chunks = new Chunks(opened.store), full = new Uint8Array(1 << 20).fill(8);
    for (let chunk = 0; chunk < 20; chunk++) assertEquals(session.write(opened, chunks, chunk, 0, full), 0);
    assertEquals(session.run(opened.close()), 0);
    const file = Deno.openSync(`${folder}/store-0.data`, { read: true, write: true });
    const heads = [0, 131072].map((at) => {
      const bytes = new Uint8Array(32);
      file.seekSync(at, Deno.SeekMode.Start);
      file.readSync(bytes);
      return new DataView(bytes.buffer).getUint32(16, true);
    });
    assert(heads[0] !== heads[1]);
    // A torn write of the head that comes next hits the older one: all data is still there.
    file.seekSync((heads[0] < heads[1] ? 0 : 131072) + 40, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(600).fill(255));
    file.close();
    const again = session.mustOpen(folder), chunksAgain = new Chunks(again.store);
    for (let chunk = 0; chunk < 20; chunk++) assertEquals(session.read(chunksAgain, chunk, 0, 1 << 20), full);
    assertEquals(session.run(again.close()), 0);
    session.reactor.close();
  }));

const root = Deno.uid() === 0;

/** Runs `work` with small file systems mounted below a folder. */
async function onSmallDisks(sizes: string[], work: (folders: string[]) => void | Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    const mounted: string[] = [];
    const command = (name: string, args: string[]) => {
      const { success, stderr } = new Deno.Command(name, { args }).outputSync();
      if (!success) throw new Error(`${name}: ${new TextDecoder().decode(stderr)}`);
    };
    try {
      for (const [i, size] of sizes.entries()) {
        const path = `${folder}/disk${i}`;
        Deno.mkdirSync(path);
        command("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path]);
        mounted.push(path);
      }
      await work(mounted);
    } finally {
      for (const path of mounted) command("umount", ["-l", path]);
    }
  });
}

Deno.test({
  name: "a store on a full disk says ENOSPC, still removes, and goes on afterwards (needs root)",
  ignore: !root,
  fn: () =>
    onSmallDisks(["160m"], ([disk]) => {
      const session = new Session(), opened = session.mustOpen(disk, { limits: smallLog }), { store } = opened;
      const chunks = new Chunks(store), full = new Uint8Array(1 << 20).fill(1);
      let chunk = 0, failure = 0;
      while (failure === 0 && chunk < 400) failure = session.write(opened, chunks, chunk++, 0, full);
      assertEquals(failure, E.NOSPC);
      assert(chunk > 40, `${chunk}`);
      assert(!store.canGrow());
      // Fill what is left for others, so that log and image have to live on what they have.
      const filler = Deno.openSync(`${disk}/filler`, { create: true, write: true });
      try {
        for (;;) filler.writeSync(full.subarray(0, 65536));
      } catch {
        filler.close();
      }
      for (let n = 0; n < 400; n++) assert(set(opened, n % 20, new Uint8Array(30000).fill(n)) > 0, `record ${n}`);
      assertEquals(store.failure, 0);
      const drop = session.run(chunks.drop(1, inode, 5));
      const charges = [{ volume: 1, bytesDelta: drop.bytesDelta, inodesDelta: 0 }];
      assert(store.commit(1, { epoch: 1, session: 0, slot: 0, sequence: 0, changes: drop.changes, charges }) > 0);
      drop.done();
      assertEquals(session.write(opened, chunks, 500, 0, full), 0);
      assertEquals(session.run(store.checkpoint()), 0);
      assertEquals(session.run(opened.close()), 0);
      const again = session.mustOpen(disk, { limits: smallLog }), chunksAgain = new Chunks(again.store);
      assertEquals(session.read(chunksAgain, 500, 0, full.length), full);
      assertEquals(session.read(chunksAgain, 4, 0, full.length), full);
      assertEquals(session.run(again.close()), 0);
      session.reactor.close();
    }),
});

Deno.test({
  name: "a container spreads over its storage paths by their room (needs root)",
  ignore: !root,
  fn: () =>
    onSmallDisks(["96m", "128m"], ([small, large]) =>
      inFolder((folder) => {
        const session = new Session(), storagePaths = [small, large];
        const opened = session.mustOpen(folder, { storagePaths }), chunks = new Chunks(opened.store);
        const value = (chunk: number) => new Uint8Array(1 << 20).fill(chunk + 1);
        let chunk = 0;
        while (session.write(opened, chunks, chunk, 0, value(chunk)) === 0) chunk++;
        assert(chunk > 120, `${chunk} MiB`);
        assertEquals(session.run(opened.close()), 0);
        const swapped = session.open(folder, { storagePaths: [large, small] });
        assert("error" in swapped);
        assertStringIncludes(swapped.error, "place 2 of 2");
        const again = session.mustOpen(folder, { storagePaths }), chunksAgain = new Chunks(again.store);
        for (let i = 0; i < chunk; i++) assertEquals(session.read(chunksAgain, i, 0, 1 << 20), value(i));
        assertEquals(session.run(again.close()), 0);
        session.reactor.close();
      })),
});
