/** `sealfs client du`, `rm` and `info` on trees that programs made and change through mounts. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { buildExecutable } from "../../cmd/build.ts";
import { attempt, type Cluster, type Outcome, run, shell, sleep, withCluster } from "./harness.ts";
import { needs, needyTest } from "./needs.ts";

const mebibyte = 1 << 20;
/** A server has heard of an open by then, however it was made. */
const toldMs = 1_500;

/** Command line of a verb of the executable: what it starts it has to find in itself. */
async function verbCommand(cluster: Cluster, ...args: string[]): Promise<string[]> {
  return [await buildExecutable(), "client", `--manager-address=${cluster.managerAddress}`, ...args];
}

async function verb(cluster: Cluster, ...args: string[]): Promise<Outcome> {
  return await attempt(await verbCommand(cluster, ...args));
}

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

/** Directories with files of all kinds, one of them large and sparse, and names that share a file. */
const makeTree = `
  mkdir -p "$1/a/b/c" "$1/many"; cd "$1"
  for i in $(seq 300); do echo "$i" > "many/file $i"; done
  head -c 20000 /dev/zero | tr '\\0' x > a/some; ln a/some a/b/hard; ln a/some many/hard; mv many/hard a/b/c/moved
  truncate -s 3G a/sparse; dd if=/dev/zero of=a/sparse bs=1M count=3 seek=2000 conv=notrunc status=none
  ln -s /etc a/link; mkfifo a/b/pipe; mkdir a/empty
`;

needyTest("sealfs client du, rm and info work on mounted trees", needs("mount"), async (t) => {
  await withCluster({}, async (cluster) => {
    const [{ path: one }, { path: two }] = cluster.clients, tree = join(one, "tree");
    await run(shell(`${makeTree}`).concat("tree", tree));

    await t.step("du agrees with du -s", async () => {
      const allocated = Number((await run(["du", "-s", "--block-size=1", tree])).split("\t")[0]);
      const files = Number(await run(shell(`find "$1" ! -type d -printf '%i\\n' | sort -u | wc -l`).concat("x", tree)));
      const { code, stdout } = await verb(
        cluster,
        "du",
        "--json",
        tree,
        "test1:/tree/a",
        join(two, "tree/many/file 7"),
      );
      assertEquals(code, 0);
      const [whole, part, file] = JSON.parse(stdout);
      assertEquals([whole.allocatedBytes, whole.files, whole.directories, whole.unread], [allocated, files, 6, 0]);
      assert(whole.apparentBytes > 3 * 1024 * mebibyte && part.path === "test1:/tree/a");
      // What was counted in the whole tree is not counted again.
      assertEquals([file.files, file.directories, file.apparentBytes], [1, 0, 2]);
      const people = await verb(cluster, "du", tree, join(one, "nothing"), "/proc");
      assertEquals(people.code, 1);
      assertMatch(people.stdout, /^ALLOCATED .*\n *4\.\d\d MiB +3 GiB +304 +6 +\S+tree\n$/);
      assertStringIncludes(people.stderr, `${join(one, "nothing")}: No such file or directory\n`);
      assertStringIncludes(people.stderr, "/proc is not in a mounted sealfs volume");
    });

    await t.step("info tells inode, servers, opens and locks", async () => {
      const path = join(tree, "a/sparse"), found = await Deno.stat(path);
      using file = await Deno.open(path);
      await file.lock(false);
      await sleep(toldMs);
      const { code, stdout } = await verb(cluster, "info", "--json", path);
      const info = JSON.parse(stdout);
      assertEquals([code, info.inode, info.type, info.sizeBytes], [0, found.ino, "file", 3 * 1024 * mebibyte]);
      assertEquals(info.chunks.map((chunk: { chunk: number }) => chunk.chunk), [2000, 2001, 2002]);
      const held = info.holders.reduce((sum: number, one: { allocatedBytes: number }) => sum + one.allocatedBytes, 0);
      assertEquals([held, info.allocatedBytes], [3 * mebibyte, 3 * mebibyte]);
      assertEquals([info.opens.length, info.opens[0].host, info.locks.length], [1, Deno.hostname(), 1]);
      assertEquals([info.locks[0].kind, info.locks[0].type], ["flock", "read"]);
      const people = await verb(cluster, "info", "--chunks", join(tree, "a"));
      assertMatch(people.stdout, /\ntype +directory, 5 entries\n/);
      assertEquals((await verb(cluster, "info", join(tree, "no"))).code, 1);
    });

    await t.step("rm refuses roots, mountpoints, directories without -r, . and ..", async () => {
      const refused: [string[], string][] = [
        [["-r", one], "is a mountpoint"],
        [["-rf", "test1:/"], "is the root of a volume"],
        [[join(tree, "many")], "is a directory: -r removes it"],
        [["-r", `${tree}/.`], "is . or .."],
        [["-r", "/etc"], "is not in a mounted sealfs volume"],
        [[join(tree, "no")], "No such file or directory"],
      ];
      const nested = join(tree, "a/empty");
      await run(["mount", "-t", "tmpfs", "none", nested]);
      try {
        refused.push([["-r", tree], `holds a mountpoint, ${nested}`]);
        for (const [args, reason] of refused) {
          const { code, stderr } = await verb(cluster, "rm", ...args);
          assertEquals(code, 1, args.join(" "));
          assertStringIncludes(stderr, reason);
        }
      } finally {
        await run(["umount", nested]);
      }
      assertEquals((await verb(cluster, "rm", "-f", join(tree, "no"))).code, 0);
      assert(await exists(join(tree, "many/file 300")));
    });

    await t.step("rm -r removes a tree while another client fills and empties it", async () => {
      const busy = run(
        shell(`
          cd "$1"; for i in $(seq 150); do mkdir -p "tree/new$i" && echo x > "tree/new$i/f"; rm -f "tree/a/b/hard"; done
        `).concat("busy", two),
      ).catch(() => "the tree went away under it, which is fine");
      using open = await Deno.open(join(tree, "a/some"));
      const first = await verb(cluster, "rm", "-r", "--json", tree);
      await busy;
      // Whoever wins the race: nothing of the old tree is left, and a second removal ends it.
      if (await exists(tree)) assertEquals((await verb(cluster, "rm", "-r", tree)).code, 0);
      else assertEquals(first.code, 0);
      assert(JSON.parse(first.stdout).files >= 303);
      assertEquals(await exists(tree), false);
      // Open files live on without a name.
      assertEquals((await open.stat()).size, 20000);
    });

    await t.step("rm stops at Ctrl-C, says what it did, and leaves the rest whole", async () => {
      await run(
        shell(`mkdir "$1"; cd "$1"; for i in $(seq 200); do mkdir $i; touch $i/{1..5}; done`).concat("x", tree),
      );
      const [program, ...args] = await verbCommand(cluster, "rm", "-r", "--json", tree);
      const child = new Deno.Command(program, { args, stdout: "piped", stderr: "piped" }).spawn();
      // As soon as something has gone.
      while ((await Array.fromAsync(Deno.readDir(tree)).catch(() => [])).length === 200) await sleep(5);
      child.kill("SIGINT");
      const { code, stdout } = await child.output();
      const { complete, stopped, files } = JSON.parse(new TextDecoder().decode(stdout));
      if (await exists(tree)) assertEquals([code, complete, stopped], [1, false, true]);
      else assertEquals([files, complete], [1000, !stopped]);
      assertEquals((await verb(cluster, "rm", "-rf", tree)).code, 0);
    });

    await cluster.check();
  });
});
