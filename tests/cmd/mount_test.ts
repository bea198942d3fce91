/** Mounts as a user makes them: processes of sealfs, a real kernel mount, signals. Needs root and /dev/fuse. */

import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { buildExecutable } from "../../cmd/build.ts";
import { Child } from "../../cmd/child.ts";
import type { MountStatus } from "../../ffi/client_mounts.ts";
import { isMounted, readMounts, unmount } from "../../ffi/fuse/mount.ts";
import { run } from "../ffi/fuse_mounted.ts";
import { freePort, sealfs, withFolder } from "./processes.ts";

const canMount = Deno.uid() === 0 && (() => {
  try {
    return Deno.statSync("/dev/fuse").isCharDevice === true;
  } catch {
    return false;
  }
})();
const needs = canMount ? "" : " (ignored: needs root and /dev/fuse)";

/** A cluster of one server, and how to use it. */
class TestCluster implements AsyncDisposable {
  readonly folder: string;
  readonly managerAddress = `127.0.0.1:${freePort()}`;
  readonly serverAddress = `127.0.0.1:${freePort()}`;
  readonly mountpoint: string;
  readonly #children: Child[] = [];

  constructor(folder: string) {
    this.folder = folder;
    this.mountpoint = `${folder}/mnt`;
    Deno.mkdirSync(this.mountpoint);
  }

  start(...args: string[]): Child {
    const child = new Child(args);
    this.#children.push(child);
    return child;
  }

  manager(): Child {
    return this.start(
      "manager",
      `--address=${this.managerAddress}`,
      `--data-path=${this.folder}/manager`,
      "--heartbeat-interval-ms=100",
      "--server-timeout-ms=1000",
      "--shards=64",
    );
  }

  server(): Child {
    return this.start(
      "server",
      `--manager-address=${this.managerAddress}`,
      `--server-address=${this.serverAddress}`,
      `--database-path=${this.folder}/database`,
      `--storage-path=${this.folder}/storage`,
    );
  }

  /** Arguments of a client verb. */
  args(...verb: string[]): string[] {
    const flags = [`--socket-path=${this.folder}/c.sock`, `--state-path=${this.folder}/state`, "--io-timeout=20"];
    return ["client", `--manager-address=${this.managerAddress}`, ...flags, ...verb];
  }

  /** Runs a client verb that must succeed; its output. */
  async client(...verb: string[]): Promise<string> {
    const { code, stdout, stderr } = await sealfs(this.args(...verb));
    assertEquals([code, stderr], [0, ""], verb.join(" "));
    return stdout;
  }

  /** Runs a client verb that must fail; its one line. */
  async fails(...verb: string[]): Promise<string> {
    const { code, stderr } = await sealfs(this.args(...verb));
    assertEquals([code, stderr.split("\n").length], [1, 2], stderr);
    return stderr;
  }

  async mounts(): Promise<MountStatus[]> {
    return JSON.parse(await this.client("list-mountpoints", "--json"));
  }

  /** Id of the daemon that runs. */
  async daemonPid(): Promise<number> {
    return JSON.parse(await this.client("probe", "--json")).daemon.pid;
  }

  /** Manager, server, volume "v". */
  async up(): Promise<{ manager: Child; server: Child }> {
    const manager = this.manager(), server = this.server();
    await server.says(/server 1 ready at/);
    await this.client("create", "v", "1GiB", "--servers=1");
    return { manager, server };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      const pid = JSON.parse((await sealfs(this.args("probe", "--json"))).stdout).daemon?.pid;
      if (pid !== undefined) Deno.kill(pid, "SIGKILL");
    } catch { // No daemon.
    }
    for (const child of this.#children) await child.end("SIGKILL");
    while (isMounted(this.mountpoint)) unmount(this.mountpoint, { lazy: true });
  }
}

function test(name: string, body: (cluster: TestCluster) => Promise<void>): void {
  Deno.test({
    name: name + needs,
    ignore: !canMount,
    fn: () =>
      withFolder(async (folder) => {
        await using cluster = new TestCluster(folder);
        await body(cluster);
      }),
  });
}

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 150; tries++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`never: ${what}`);
}

test("sealfs client mount starts a daemon, and umount ends the mount when nothing in it is open", async (cluster) => {
  await cluster.up();
  const { mountpoint } = cluster;
  await cluster.client("mount", mountpoint, "v");
  await Deno.writeTextFile(`${mountpoint}/hello`, "world");
  assertEquals((await cluster.mounts()).map((one) => [one.mountpoint, one.volume, one.state]), [
    [mountpoint, "v", "mounted"],
  ]);
  assertStringIncludes(await cluster.client("status"), `v at ${mountpoint}`);
  assertStringIncludes(await cluster.fails("mount", mountpoint, "v"), "already mounted");
  assertStringIncludes(await cluster.fails("mount", `${cluster.folder}/absent`, "v"), "absent");
  assertStringIncludes(await cluster.fails("mount", cluster.folder, "w"), "no volume w; there is v");
  assertStringIncludes(await cluster.fails("delete", "v"), `v is mounted at ${mountpoint}`);

  const open = await Deno.open(`${mountpoint}/hello`);
  assertStringIncludes(await cluster.fails("umount", mountpoint), "EBUSY");
  assertEquals(Deno.readTextFileSync(`${mountpoint}/hello`), "world");
  await cluster.client("umount", "--lazy", mountpoint);
  assert(!isMounted(mountpoint));
  assertEquals(open.readSync(new Uint8Array(9)), 5);
  open.close();

  await cluster.client("mount", "--read-only", mountpoint, "v");
  assertEquals(Deno.readTextFileSync(`${mountpoint}/hello`), "world");
  assertThrows(() => Deno.writeTextFileSync(`${mountpoint}/x`, ""), Error, "Read-only");
  await cluster.client("umount", mountpoint);
  assert(!isMounted(mountpoint));
  assertEquals(await cluster.mounts(), []);
});

test("what is mounted in the place of a mount that was undone stays, and the place can be used again at once", async (cluster) => {
  await cluster.up();
  const { mountpoint } = cluster;
  for (let round = 0; round < 2; round++) {
    await cluster.client("mount", mountpoint, "v");
    const open = await Deno.open(`${mountpoint}/file${round}`, { create: true, write: true });
    await run("umount", "--lazy", mountpoint);
    await run("mount", "-t", "tmpfs", `other${round}`, mountpoint);
    open.close();
    await until("unmounted", async () => (await cluster.mounts()).length === 0);
    assertEquals(readMounts().findLast((mount) => mount.mountpoint === mountpoint)?.source, `other${round}`);
    await run("umount", mountpoint);
    await cluster.client("mount", mountpoint, "v");
    const held = await Deno.open(`${mountpoint}/held`, { create: true, write: true, truncate: true });
    await run("umount", "--lazy", mountpoint);
    await cluster.client("mount", mountpoint, "v");
    assertEquals(await held.write(new Uint8Array(3)), 3);
    assertEquals((await Deno.stat(`${mountpoint}/held`)).size, 3);
    held.close();
    await run("umount", mountpoint);
  }
});

test("a killed daemon's mounts are cleaned and restored at the next start, a stopped one's too", async (cluster) => {
  await cluster.up();
  const { mountpoint } = cluster;
  await cluster.client("mount", mountpoint, "v");
  Deno.writeTextFileSync(`${mountpoint}/kept`, "yes");
  Deno.kill(await cluster.daemonPid(), "SIGKILL");
  await until("ENOTCONN", () => {
    try {
      Deno.statSync(`${mountpoint}/kept`);
      return false;
    } catch {
      return true;
    }
  });
  const daemon = cluster.start(...cluster.args("daemon"));
  await daemon.says(/ready at/);
  await until("mounted again", async () => (await cluster.mounts())[0]?.state === "mounted");
  assertEquals(Deno.readTextFileSync(`${mountpoint}/kept`), "yes");

  assertEquals(await daemon.end("SIGTERM"), 0);
  assert(!isMounted(mountpoint));
  const again = cluster.start(...cluster.args("daemon"));
  await until("mounted again", async () => (await cluster.mounts())[0]?.state === "mounted");
  assertEquals(Deno.readTextFileSync(`${mountpoint}/kept`), "yes");

  assertEquals(await again.end("SIGINT"), 0);
  // The daemon that this starts restores the mount: that is what was asked for.
  await cluster.client("mount", mountpoint, "v");
  assertEquals(Deno.readTextFileSync(`${mountpoint}/kept`), "yes");
  await cluster.client("umount", mountpoint);
});

test("a symbolic link serves as a mountpoint: what it names is mounted, and unmounted", async (cluster) => {
  await cluster.up();
  const { mountpoint } = cluster, link = `${cluster.folder}/link`;
  Deno.symlinkSync("mnt", link);
  await cluster.client("mount", link, "v");
  assertEquals((await cluster.mounts()).map((one) => one.mountpoint), [mountpoint]);
  await cluster.client("umount", link);
  assert(!isMounted(mountpoint));
});

test("programs go on when server, manager or both are killed and come back, and nothing is lost", async (cluster) => {
  let { manager, server } = await cluster.up();
  const { mountpoint } = cluster;
  await cluster.client("mount", mountpoint, "v");
  for (let round = 0; round < 3; round++) {
    for (let n = 0; n < 20; n++) Deno.writeTextFileSync(`${mountpoint}/r${round}-${n}`, `${round} ${n}`);
    if (round !== 1) await server.end("SIGKILL");
    if (round !== 0) await manager.end("SIGKILL");
    const writing = Deno.writeTextFile(`${mountpoint}/during${round}`, "written");
    await new Promise((resolve) => setTimeout(resolve, 300));
    if (round !== 0) manager = cluster.manager();
    if (round !== 1) server = cluster.server();
    await writing;
    await server.says(/ready at/);
  }
  const names = [...Deno.readDirSync(mountpoint)].map((entry) => entry.name);
  assertEquals(names.length, 63);
  for (let n = 0; n < 20; n++) assertEquals(Deno.readTextFileSync(`${mountpoint}/r1-${n}`), `1 ${n}`);

  assertEquals(await server.end("SIGTERM"), 0);
  assertMatch(await cluster.client("status"), /down/);
  server = cluster.server();
  await server.says(/server 1 ready/);
  assertEquals(Deno.readTextFileSync(`${mountpoint}/during2`), "written");
  await cluster.client("umount", mountpoint);
});

test("a mount of a volume that is deleted by force answers ESTALE, and can be unmounted", async (cluster) => {
  await cluster.up();
  const { mountpoint } = cluster;
  await cluster.client("mount", mountpoint, "v");
  Deno.writeTextFileSync(`${mountpoint}/f`, "x");
  await cluster.client("delete", "--force", "v");
  await until("ESTALE", () => {
    try {
      Deno.readTextFileSync(`${mountpoint}/f`);
      return false;
    } catch (error) {
      assertMatch(String(error), /[Ss]tale/);
      return true;
    }
  });
  await cluster.client("umount", mountpoint);
  await until("swept", async () => JSON.parse(await cluster.client("list", "--json")).length === 0);
});

test("sealfs client mount --foreground serves until a signal or until somebody unmounts", async (cluster) => {
  await cluster.up();
  const { mountpoint } = cluster;
  const first = cluster.start(...cluster.args("mount", "--foreground", mountpoint, "v"));
  await first.says(/is mounted at/);
  Deno.writeTextFileSync(`${mountpoint}/f`, "x");
  assertEquals(await first.end("SIGINT"), 0);
  assert(!isMounted(mountpoint));
  const second = cluster.start(...cluster.args("mount", "-f", mountpoint, "v", "-o", "noatime,ro"));
  await second.says(/is mounted at/);
  assertEquals(Deno.readTextFileSync(`${mountpoint}/f`), "x");
  unmount(mountpoint, { lazy: false });
  assertEquals(await second.ended, 0);
});

test("sealfs client mount -o strictatime moves the atime at the first read of every open", async (cluster) => {
  await cluster.up();
  const file = `${cluster.mountpoint}/f`;
  await cluster.client("mount", cluster.mountpoint, "v", "-o", "strictatime");
  Deno.writeTextFileSync(file, "x".repeat(8192));
  let before = 0;
  for (let read = 0; read < 3; read++) {
    await new Promise((done) => setTimeout(done, 10));
    assertEquals(Deno.readTextFileSync(file).length, 8192);
    const now = Deno.statSync(file).atime!.getTime();
    assert(now > before, `read ${read} left the atime`);
    before = now;
  }
});

test("mount.fuse.sealfs, a symlink to the executable, mounts as mount(8) asks", async (cluster) => {
  await cluster.up();
  const { mountpoint, folder } = cluster;
  const helper = `${folder}/mount.fuse.sealfs`;
  await Deno.symlink(await buildExecutable(), helper);
  const options = `rw,noatime,_netdev,socket_path=${folder}/c.sock,io_timeout=20`;
  const args = [`${cluster.managerAddress}/v`, mountpoint, "-o", options];
  const { code, stderr } = await new Deno.Command(helper, { args, stdin: "null" }).output();
  assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
  Deno.writeTextFileSync(`${mountpoint}/f`, "x");
  const remount = async (options: string) => {
    const args = [`${cluster.managerAddress}/v`, mountpoint, "-o", `remount,socket_path=${folder}/c.sock,${options}`];
    return (await new Deno.Command(helper, { args, stdin: "null" }).output()).code;
  };
  assertEquals(await remount("ro,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576"), 0);
  assertThrows(() => Deno.writeTextFileSync(`${mountpoint}/f`, "y"), Error, "os error 30");
  assertEquals(await remount("rw"), 0);
  Deno.writeTextFileSync(`${mountpoint}/f`, "y");
  await cluster.client("umount", mountpoint);
  assertEquals(await remount("ro"), 1);
  await cluster.client("mount", "-o", "ro", mountpoint, "v");
  assertEquals(await remount("rw"), 1);
  assertEquals(Deno.readTextFileSync(`${mountpoint}/f`), "y");
  await cluster.client("umount", mountpoint);
});

test("sealfs up makes a cluster with a mount, and Ctrl-C leaves nothing", async (cluster) => {
  const { mountpoint } = cluster;
  const data = `${cluster.folder}/data`;
  for (let round = 0; round < 2; round++) {
    const up = cluster.start("up", "--servers=2", `--mount=${mountpoint}`, `--data-path=${data}`);
    await up.says(/^ready: volume test1 at \S+ \(Ctrl-C stops\)$/m);
    if (round === 0) Deno.writeTextFileSync(`${mountpoint}/f`, "still there");
    assertEquals(Deno.readTextFileSync(`${mountpoint}/f`), "still there");
    assertEquals(await up.end("SIGINT"), 0);
    assertStringIncludes(up.output, "stopping");
    assert(!isMounted(mountpoint));
  }
});

test("umount finds a mount whose folder was renamed", async (cluster) => {
  await cluster.up();
  const { folder } = cluster, before = `${folder}/a/mnt`, now = `${folder}/b/mnt`;
  Deno.mkdirSync(before, { recursive: true });
  await cluster.client("mount", before, "v");
  Deno.renameSync(`${folder}/a`, `${folder}/b`);
  try {
    assert(isMounted(now));
    await cluster.client("umount", before);
    assert(!isMounted(now));
  } finally {
    while (isMounted(now)) unmount(now, { lazy: true });
  }
});
