/** The library against real clusters: manager and servers as processes, from the sources. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { Child } from "../../cmd/child.ts";
import { connect } from "../../mod.ts";
import { freePort, startManager, withFolder } from "../cmd/processes.ts";
import { agreeWithLocal, localFiles, outcome, snapshot } from "./library_volumes.ts";

const root = fromFileUrl(new URL("../..", import.meta.url));
/** Longest time that a program of these tests may take to end. */
const programMsMax = 30_000;

/** A manager and servers; a server can be killed and started again. */
class Servers {
  readonly #servers: { child: Child; args: string[] }[] = [];

  constructor(readonly manager: Child, readonly address: string) {}

  async add(folder: string): Promise<void> {
    const args = [
      "server",
      `--manager-address=${this.address}`,
      `--server-address=127.0.0.1:${freePort()}`,
      `--database-path=${join(folder, "database")}`,
      `--storage-path=${join(folder, "storage")}`,
    ];
    const child = new Child(args);
    this.#servers.push({ child, args });
    await child.says(/ready at/);
  }

  async kill(index: number): Promise<void> {
    await this.#servers[index].child.end("SIGKILL");
  }

  async restart(index: number): Promise<void> {
    const server = this.#servers[index];
    server.child = new Child(server.args);
    await server.child.says(/ready at/);
  }

  async end(): Promise<void> {
    await Promise.all(this.#servers.map(({ child }) => child.end()));
    await this.manager.end();
  }
}

/** Runs `body` with a fresh cluster and ends it. */
async function withServers(count: number, body: (servers: Servers, folder: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const flags = ["--heartbeat-interval-ms=200", "--server-timeout-ms=2000"];
    const { manager, address } = await startManager(join(folder, "manager"), flags);
    const servers = new Servers(manager, address);
    try {
      for (let i = 0; i < count; i++) await servers.add(join(folder, `server${i}`));
      await body(servers, folder);
    } finally {
      await servers.end();
    }
  });
}

/** Runs a program that uses the library; its exit code and output. */
async function runProgram(args: string[], managerAddress: string): Promise<{ code: number; output: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--config", join(root, "deno.json"), ...args],
    env: { SEALFS_MANAGER_ADDRESS: managerAddress, NO_COLOR: "1" },
    stdin: "null",
    signal: AbortSignal.timeout(programMsMax),
  }).output();
  const decoder = new TextDecoder();
  return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
}

function pattern(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(length);
  for (let i = 0; i < length; i++) data[i] = (Math.imul(i + seed, 2654435761) >>> 24) ^ i;
  return data;
}

const codeOf = async (work: () => Promise<unknown>) => (await outcome(work) as { code?: string } | undefined)?.code;

Deno.test("connect() and Cluster manage volumes and open them", async () => {
  await withServers(1, async ({ address }) => {
    await using cluster = await connect({ managerAddress: address });
    assertEquals(await cluster.volumes(), []);
    await assertRejects(() => cluster.open("v"), Deno.errors.NotFound, "no volume");
    await cluster.createVolume("v", { sizeBytes: 64 << 20 });
    await assertRejects(() => cluster.createVolume("v", { sizeBytes: 1 << 20 }), Deno.errors.AlreadyExists);
    await assertRejects(() => cluster.createVolume("a/b", { sizeBytes: 1 << 20 }), TypeError);
    const volume = await cluster.open("v");
    await volume.writeTextFile("f", "x");
    await assertRejects(() => cluster.deleteVolume("v"), Error, "is mounted at (library)");
    const status = await cluster.status();
    assertEquals(status.servers.length, 1);
    assertEquals(status.sessions.map((session) => session.mounts), [[{ volume: "v", path: "(library)" }]]);

    await using reader = await cluster.open("v", { readOnly: true });
    assertEquals(await reader.readTextFile("f"), "x");
    assertEquals(await codeOf(() => reader.writeTextFile("f", "y")), "EROFS");
    await using alice = await cluster.open("v", { as: { uid: 1000, gid: 1000 } });
    assertEquals(await codeOf(() => alice.mkdir("d")), "EACCES");

    await cluster.deleteVolume("v", { force: true });
    for (let i = 0; i < 100 && await codeOf(() => volume.stat("f")) === undefined; i++) {
      await new Promise((done) => setTimeout(done, 50));
    }
    assertEquals(await codeOf(() => volume.stat("f")), "ESTALE");
    await volume.close();
    await cluster.close();
    await cluster.close();
    await assertRejects(() => cluster.status(), Deno.errors.BadResource);
    await assertRejects(() => volume.stat("f"), Deno.errors.BadResource);
  });
});

Deno.test("connect() says why when there is no manager or it has another secret", async () => {
  const nowhere = `127.0.0.1:${freePort()}`;
  await assertRejects(
    () => connect({ managerAddress: nowhere, ioTimeoutMs: 300 }),
    Deno.errors.TimedOut,
    `no answer from the manager at ${nowhere}`,
  );
  await withFolder(async (folder) => {
    const secretFile = join(folder, "secret");
    await Deno.writeTextFile(secretFile, "open sesame\n", { mode: 0o600 });
    const { manager, address } = await startManager(join(folder, "manager"), [`--secret-file=${secretFile}`]);
    try {
      await assertRejects(() => connect({ managerAddress: address }), Deno.errors.PermissionDenied);
      await using cluster = await connect({ managerAddress: address, secretFile });
      assertEquals(await cluster.volumes(), []);
      await Deno.chmod(secretFile, 0o644);
      await assertRejects(() => connect({ managerAddress: address, secretFile }), Error, "others could read it");
    } finally {
      await manager.end();
    }
  });
});

Deno.test("Volume keeps its promises on a cluster of two servers", async (t) => {
  await withServers(2, async ({ address }, folder) => {
    await using one = await connect({ managerAddress: address });
    await using two = await connect({ managerAddress: address });
    await one.createVolume("v", { sizeBytes: 1 << 30, servers: 2 });
    await using a = await one.open("v"), b = await two.open("v");

    await t.step("what one connection has done the other sees", async () => {
      await Promise.all(Array.from({ length: 100 }, async (_, i) => {
        await a.mkdir(`d${i % 10}/e`, { recursive: true });
        await a.writeTextFile(`d${i % 10}/e/f${i}`, `content ${i}`);
        assertEquals(await b.readTextFile(`d${i % 10}/e/f${i}`), `content ${i}`);
        await b.rename(`d${i % 10}/e/f${i}`, `g${i}`);
        assertEquals(await a.exists(`d${i % 10}/e/f${i}`), false);
        assertEquals(await a.readTextFile(`g${i}`), `content ${i}`);
      }));
      assertEquals((await Array.fromAsync(b.readDir("/"))).length, 110);
    });

    await t.step("steps come to what they come to on the local file system", async () => {
      const local = localFiles(folder);
      await Deno.mkdir(join(folder, "tree"));
      await a.mkdir("tree");
      for (const files of [local, a]) {
        await files.mkdir("tree/x/y", { recursive: true });
        await files.writeTextFile("tree/x/f", "one");
        await files.symlink("../../x", "tree/x/y/up");
        await files.writeTextFile("tree/x/y/up/f", " two", { append: true });
        await files.link("tree/x/f", "tree/hard");
        await files.chmod("tree/hard", 0o640);
        await files.rename("tree/x/y", "tree/z");
        await files.copyFile("tree/hard", "tree/z/copy");
        await files.truncate("tree/x/f", 2);
      }
      assertEquals(await snapshot(b, "tree"), await snapshot(local, "tree"));
      const failing = [
        (files: typeof local) => files.mkdir("tree/x"),
        (files: typeof local) => files.readTextFile("tree/no"),
        (files: typeof local) => files.readTextFile("tree"),
        (files: typeof local) => files.remove("tree"),
        (files: typeof local) => files.rename("tree", "tree/x/w"),
        (files: typeof local) => files.writeTextFile("tree/x/f/g", "x"),
        (files: typeof local) => files.symlink("x", "tree/hard"),
        (files: typeof local) => files.readLink("tree/hard"),
      ];
      for (const fail of failing) {
        assertEquals(await outcome(() => fail(b as typeof local)), await outcome(() => fail(local), folder));
      }
    });

    await t.step({
      name: "random steps come to what they come to on the local file system (needs root)",
      ignore: Deno.uid() !== 0,
      fn: async () => {
        for await (const { name } of a.readDir("/")) await a.remove(name, { recursive: true });
        await agreeWithLocal(a, 12);
      },
    });

    await t.step("large files go over all servers and come back whole", async () => {
      const data = pattern(21_000_003, 7);
      await a.writeFile("big", data);
      const read = await b.readFile("big");
      assert(read.length === data.length && read.every((byte, i) => byte === data[i]));
      await using file = await b.open("big", { read: true, write: true });
      await file.writeAt(pattern(3_000_000, 9), 5_000_001);
      await file.sync();
      data.set(pattern(3_000_000, 9), 5_000_001);
      const again = await a.readFile("big");
      assert(again.every((byte, i) => byte === data[i]));
      await a.copyFile("big", "copy");
      assert((await b.readFile("copy")).every((byte, i) => byte === data[i]));
    });

    await t.step("records that two connections append stay whole", async () => {
      const records = 150;
      await Promise.all([a, b].map(async (volume, who) => {
        await using file = await volume.open("log", { append: true, create: true });
        for (let i = 0; i < records; i++) {
          await file.write(new TextEncoder().encode(`${who} ${i} ${"x".repeat(i % 50)}\n`));
        }
      }));
      const lines = (await a.readTextFile("log")).trimEnd().split("\n");
      assertEquals(lines.length, 2 * records);
      for (const who of [0, 1]) {
        const own = lines.filter((line) => line.startsWith(`${who} `));
        assertEquals(own, Array.from({ length: records }, (_, i) => `${who} ${i} ${"x".repeat(i % 50)}`));
      }
    });

    await t.step("a lock of one connection holds the other off", async () => {
      await a.writeTextFile("counter", "0");
      const count = async (volume: typeof a) => {
        for (let i = 0; i < 10; i++) {
          const file = await volume.open("counter");
          await file.lock(true);
          await volume.writeTextFile("counter", String(Number(await volume.readTextFile("counter")) + 1));
          await file.close();
        }
      };
      await Promise.all([count(a), count(b)]);
      assertEquals(await b.readTextFile("counter"), "20");
    });

    await t.step("a file that is removed stays until it is closed", async () => {
      await a.writeTextFile("gone", "still here");
      const file = await b.open("gone");
      await a.remove("gone");
      assertEquals(await b.exists("gone"), false);
      const into = new Uint8Array(20);
      assertEquals(await file.read(into), 10);
      await file.close();
    });

    await t.step("a tree is removed with all that is in it", async () => {
      for await (const { name } of a.readDir("/")) await b.remove(name, { recursive: true });
      assertEquals(await Array.fromAsync(a.readDir("/")), []);
    });
  });
});

Deno.test("Volume ends with EIO while a server is away, and goes on when it is back", async () => {
  await withServers(1, async (servers) => {
    {
      await using patient = await connect({ managerAddress: servers.address });
      await patient.createVolume("v", { sizeBytes: 1 << 30 });
    }
    await using cluster = await connect({ managerAddress: servers.address, ioTimeoutMs: 1500 });
    await using volume = await cluster.open("v");
    await volume.writeTextFile("f", "before");
    const file = await volume.open("f");
    await servers.kill(0);
    assertEquals(await codeOf(() => volume.readTextFile("f")), "EIO");
    await servers.restart(0);
    let code: string | undefined = "EIO";
    for (let i = 0; i < 20 && code === "EIO"; i++) code = await codeOf(() => volume.readTextFile("f"));
    assertEquals(code, undefined);
    assertEquals(await volume.readTextFile("f"), "before");
    assertEquals((await file.stat()).size, 6);
    await volume.writeTextFile("f", "after");
    assertEquals(await volume.readTextFile("f"), "after");
    await file.close();
  });
});

Deno.test("a program ends by itself after close(), and also when it forgets to close", async () => {
  await withServers(1, async ({ address }, folder) => {
    await using cluster = await connect({ managerAddress: address });
    await cluster.createVolume("v", { sizeBytes: 1 << 30 });
    const program = (end: string) => `
      import { connect } from ${JSON.stringify(new URL("../../mod.ts", import.meta.url).href)};
      const cluster = await connect();
      const volume = await cluster.open("v");
      await volume.writeTextFile("f", "written");
      const file = await volume.open("f");
      await new Promise((done) => setTimeout(done, 700));
      ${end}
      console.log(await Promise.resolve("the end"));
    `;
    const ends = [
      "await file.close(); await volume.close(); await cluster.close();",
      "",
      "volume.readTextFile('f').then(console.log);",
      "cluster.close();",
    ];
    for (const [i, end] of ends.entries()) {
      const path = join(folder, `program${i}.ts`);
      await Deno.writeTextFile(path, program(end));
      const { code, output } = await runProgram([path], address);
      assertEquals(code, 0, output);
      assert(output.includes("the end"), output);
      if (end.includes("readTextFile")) assert(output.includes("written"), output);
    }
  });
});

Deno.test("examples/library.ts runs on a fresh cluster", async () => {
  await withServers(1, async ({ address }) => {
    const { code, output } = await runProgram([join(root, "examples", "library.ts")], address);
    assertEquals(code, 0, output);
    assert(/^202 files, 17\d\d bytes/m.test(output), output);
    for (const line of ["index says: 200 notes", "/day-0\n", "removed: true"]) assert(output.includes(line), output);
  });
});
