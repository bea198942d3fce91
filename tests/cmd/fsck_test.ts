/** `sealfs client fsck` as a process, against a cluster of processes; without a mount. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Child } from "../../cmd/child.ts";
import { connect } from "../../mod.ts";
import { freePort, sealfs, startManager, withFolder } from "./processes.ts";

const mebibyte = 1 << 20;

/** Where the bytes of `pattern` are in the files under `folder`. */
function find(folder: string, pattern: Uint8Array): { path: string; at: number } {
  for (const entry of Deno.readDirSync(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) continue;
    const at = indexOf(Deno.readFileSync(path), pattern);
    if (at >= 0) return { path, at };
  }
  throw new Error(`the pattern is nowhere in ${folder}`);
}

function indexOf(bytes: Uint8Array, pattern: Uint8Array): number {
  for (let at = bytes.indexOf(pattern[0]); at >= 0; at = bytes.indexOf(pattern[0], at + 1)) {
    if (pattern.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}

Deno.test("sealfs client fsck says clean, names damaged data by its path, and is told apart by its exit code", async () => {
  await withFolder(async (folder) => {
    const { manager, address } = await startManager(`${folder}/manager`, ["--shards=32"]);
    await using _ = manager;
    const server = new Child([
      "server",
      `--manager-address=${address}`,
      `--server-address=127.0.0.1:${freePort()}`,
      `--database-path=${folder}/database`,
      `--storage-path=${folder}/storage`,
      "--stores=2",
    ]);
    await using __ = server;
    await server.says(/ready at/);
    const fsck = (...more: string[]) => sealfs(["client", "fsck", "--manager-address", address, ...more]);
    const data = new Uint8Array(3 * mebibyte).map((_, i) => (i >> 12) * 7 + i);
    data.set(new TextEncoder().encode("find me in the container"), 2 * mebibyte + 8192);
    {
      await using cluster = await connect({ managerAddress: address });
      await cluster.createVolume("v", { sizeBytes: 64 * mebibyte });
      await using volume = await cluster.open("v");
      await volume.mkdir("a/b", { recursive: true });
      await volume.writeFile("a/b/big", data);
      for (let i = 0; i < 50; i++) await volume.writeTextFile(`a/file ${i}`, "x".repeat(i * 100));
      await volume.link("a/file 1", "a/b/second");

      // Nothing is wrong while somebody works.
      let over = false;
      const working = (async () => {
        for (let i = 0; !over; i++) {
          await volume.mkdir(`work ${i}`);
          await volume.writeFile(`work ${i}/f`, data.subarray(0, 20_000));
          await volume.rename(`work ${i}/f`, `a/work`);
          await volume.remove(`work ${i}`);
        }
      })();
      const { code, stdout, stderr } = await fsck();
      over = true;
      await working;
      assertEquals({ code, stderr }, { code: 0, stderr: "" });
      assertMatch(stdout, /checked \d+ inodes, \d+ dentries, \d+ chunks \(3\.\d+ MiB\) in [\d.]+ m?s: .*clean/);
    }
    const json = await fsck("--json");
    assertEquals(json.code, 0);
    const report = JSON.parse(json.stdout);
    assertEquals([report.clean, report.findings, report.inodes, report.names], [true, [], 55, 55]);
    assertEquals(report.verifiedBytes, report.dataBytes);

    const { path, at } = find(`${folder}/storage`, new TextEncoder().encode("find me in the container"));
    using file = Deno.openSync(path, { read: true, write: true });
    file.seekSync(at + 100, Deno.SeekMode.Start);
    file.writeSync(Uint8Array.of(data[2 * mebibyte + 8192 + 100] ^ 1));
    const damaged = await fsck("--repair");
    assertEquals(damaged.code, 1);
    const bytes = `bytes ${2 * mebibyte + 8192} to ${2 * mebibyte + 12287}`;
    assertMatch(damaged.stdout, /^error: v:\/a\/b\/big: inode \d+ cannot be read whole \(EIO\)/);
    assertStringIncludes(damaged.stdout, `${bytes} do not match their checksums\n`);
    assertMatch(damaged.stdout, /: 1 error\n$/);
    assertEquals((await fsck("--no-data")).code, 0);
    assertEquals((await fsck("--nonsense")).code, 2);

    await server.end();
    const away = await fsck("--io-timeout", "2");
    assertEquals(away.code, 1);
    assertMatch(
      away.stderr,
      /^sealfs client fsck: cannot check the cluster: shard \d+ cannot be read from server 1 \(/,
    );
    assert(!away.stdout.includes("clean"));
  });
});
