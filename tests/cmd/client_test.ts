/** The client daemon without mounts, and the helper of mount(8), as far as they need neither root nor /dev/fuse. */

import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../cmd/flags.ts";
import { parseHelperCall } from "../../cmd/mount_helper.ts";
import type { DaemonStatus } from "../../ffi/control.ts";
import { Child } from "../../cmd/child.ts";
import { freePort, sealfs, startManager, withFolder } from "./processes.ts";

Deno.test("sealfs client daemon answers before its manager is there, and gets a session when it comes", async () => {
  await withFolder(async (folder) => {
    const address = `127.0.0.1:${freePort()}`;
    const client = ["client", "--manager-address", address, "--socket-path", `${folder}/s/c.sock`];
    await using daemon = new Child([...client, "daemon", "--state-path", `${folder}/state`]);
    await daemon.says(/ready at/);
    const probe = async () => {
      const { code, stdout } = await sealfs([...client, "probe", "--json"]);
      return { code, ...JSON.parse(stdout) as { daemon: DaemonStatus; manager: { answers: boolean } } };
    };
    const nobody = `127.0.0.1:${freePort()}`;
    const other = await sealfs([...client, "probe", "--manager-address", nobody, "--json"]);
    assertEquals([other.code, JSON.parse(other.stdout).manager.address], [1, nobody]);
    const before = await probe();
    assertEquals([before.code, before.daemon.session, before.manager.answers], [1, 0, false]);
    await using _ = new Child(["manager", `--address=${address}`, `--data-path=${folder}/data`]);
    await daemon.says(/waiting for it/);
    for (let tries = 0; (await probe()).daemon.session === 0 && tries < 50; tries++);
    const after = await probe();
    assertEquals([after.code, after.daemon.session, after.daemon.pid], [0, 1, daemon.pid]);
    assertEquals(Deno.statSync(`${folder}/s/c.sock`).mode! & 0o777, 0o600);
    const second = await sealfs([...client, "daemon", "--state-path", `${folder}/state`]);
    assertEquals(second.code, 1);
    assertStringIncludes(second.stderr, "a daemon serves");
    const mount = await sealfs([...client, "mount", folder, "nothing"]);
    assertEquals([mount.code, mount.stderr], [1, "sealfs client mount: no volume nothing; there are none\n"]);
    assertEquals(await daemon.end(), 0);
    assertEquals((await probe()).daemon, null);
  });
});

Deno.test("sealfs client daemon replaces the socket of one that was killed", async () => {
  await withFolder(async (folder) => {
    const { manager, address } = await startManager(`${folder}/data`);
    await using _ = manager;
    const args = ["client", "daemon", "--manager-address", address, "--socket-path", `${folder}/c.sock`];
    args.push("--state-path", folder);
    const first = new Child(args);
    await first.says(/ready at/);
    await first.end("SIGKILL");
    await using second = new Child(args);
    await second.says(/ready at/);
  });
});

Deno.test("sealfs client daemon ends with a reason when the manager refuses it", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/secret`, "a secret\n", { mode: 0o600 });
    const { manager, address } = await startManager(`${folder}/data`, [`--secret-file=${folder}/secret`]);
    await using _ = manager;
    const args = ["--manager-address", address, "--socket-path", `${folder}/c.sock`, "--state-path", folder];
    const { code, stderr } = await sealfs(["client", "daemon", ...args]);
    assertEquals([code, stderr], [
      1,
      "sealfs client daemon: wrong or missing secret: give the cluster's --secret-file\n",
    ]);
  });
});

Deno.test("sealfs client daemon refuses a damaged table of mounts instead of losing it", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/mounts.json`, '{"format": 1, "mounts": [{}]}');
    const args = ["--socket-path", `${folder}/c.sock`, "--state-path", folder];
    const { code, stderr } = await sealfs(["client", "daemon", ...args]);
    assertEquals(code, 1);
    assertStringIncludes(stderr, "mounts.json is damaged");
  });
});

Deno.test("sealfs client list-mountpoints is empty, and umount fails, when there is no daemon", async () => {
  await withFolder(async (folder) => {
    const client = ["client", "--socket-path", `${folder}/c.sock`];
    assertEquals(await sealfs([...client, "list-mountpoints", "--json"]), { code: 0, stdout: "[]\n", stderr: "" });
    const { code, stderr } = await sealfs([...client, "umount", folder]);
    assertEquals(code, 1);
    assertStringIncludes(stderr, "no client daemon at");
    assertEquals((await sealfs([...client, "mount", folder, "v", "-o", "nonsense"])).code, 2);
  });
});

Deno.test("parseHelperCall() understands what mount(8) passes", () => {
  const call = parseHelperCall(
    "127.0.0.1:8081/test1 /mnt/fs -n -s -o rw,_netdev,noatime,secret_file=/etc/s,io_timeout=5 -t fuse.sealfs".split(
      " ",
    ),
  );
  assertEquals(call, {
    manager: "127.0.0.1:8081",
    volume: "test1",
    mountpoint: "/mnt/fs",
    options: "rw,_netdev,noatime",
    flags: ["--secret-file=/etc/s", "--io-timeout=5"],
    fake: false,
  });
  const again = "ro,relatime,remount,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576";
  assertEquals(parseHelperCall(["h:1/v", "/m", "-o", again]).options, again);
  assertThrows(() => parseHelperCall(["h:1/v", "/m", "-o", "user_id=0"]), UsageError);
  assertEquals(parseHelperCall(["[::1]:8081/v", "/m", "-sf"]).fake, true);
  for (const wrong of [["a"], ["nohost/v", "/m"], ["h:1/v", "/m", "-o"], ["h:1/v", "/m", "-o", "nonsense"]]) {
    assertThrows(() => parseHelperCall(wrong), UsageError);
  }
});
