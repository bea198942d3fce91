/** Ordinary programs on two mounts of a cluster of three servers, all real processes of the executable. */

import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { record, recordBytes } from "./contender.ts";
import { attempt, type Cluster, root, run, script, shell, sleep, withCluster } from "./harness.ts";
import { full, needs, needyStep, needyTest } from "./needs.ts";

/** Entries of the tree that tar carries. */
const smallFiles = full ? 10_000 : 2_500;
const dbenchSeconds = full ? 30 : 8;
const stressSeconds = full ? 60 : 10;
const fioMebibytes = full ? 64 : 16;
/** Records of each process that appends, additions of each that counts. */
const appendsEach = full ? 2_000 : 400;
const countsEach = full ? 500 : 100;
const programMs = 180_000;
const testMs = full ? 1_800_000 : 420_000;

/** Stressors of stress-ng's class "filesystem" that work in the folder they are given. */
const stressors = [
  ...["access", "chdir", "chmod", "chown", "copy-file", "dentry", "dir", "dirdeep", "dirmany", "dup", "fallocate"],
  ...["fcntl", "filename", "flock", "fpunch", "fsize", "fstat", "getdent", "hdd", "io", "iomix", "link", "locka"],
  ...["lockf", "lockofd", "mknod", "open", "rename", "symlink", "sync-file", "touch", "utime", "xattr"],
];
/** The quick test runs these together: those that do not make thousands of names first. */
const stressorsQuick = [
  ...["access", "chmod", "chown", "copy-file", "dentry", "dir", "fallocate", "fpunch", "fstat", "getdent", "hdd"],
  ...["iomix", "lockf", "rename", "touch", "utime", "xattr"],
];

/** Numbers of the processes that contend, two a mount. */
const contenders = [1, 2, 3, 4];

function contend(cluster: Cluster, verb: string, name: string, each: number): Promise<string[]> {
  return Promise.all(contenders.map((id) => {
    const { path } = cluster.clients[id % cluster.clients.length];
    return run(script("contender.ts", verb, join(path, name), String(id), String(each)), { timeoutMs: programMs });
  }));
}

async function git(at: string, source: string): Promise<void> {
  const env = { GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_SYSTEM: "/dev/null" };
  await run(
    shell(`
      export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
      mkdir "$1/source" && cd "$1/source" && git init -q .
      for part in core ffi cmd tests; do
        cp -r "$2/$part" . && git add -A && git commit -q -m "$part"
      done
      git clone -q "file://$1/source" "$3/clone"
      cd "$3/clone" && git fsck --full --strict --no-progress
      git checkout -q -b other && git rm -q -r tests && git commit -q -m gone && git checkout -q -
      git gc -q && git fsck --full --no-progress
      test -z "$(git status --porcelain)"
      git diff --no-index --quiet "$1/source/core" "$3/clone/core"
      rm -rf "$3/clone"`).concat("git", at, root, source),
    { env, timeoutMs: programMs },
  );
}

/** Packs a package of a few hundred files and one it depends on, and installs both from their tarballs. */
async function npm(local: string, mount: string): Promise<void> {
  for (const [name, files] of [["leaf", 40], ["tree", 300]] as const) {
    const folder = join(local, name);
    Deno.mkdirSync(folder);
    Deno.writeTextFileSync(join(folder, "package.json"), JSON.stringify({ name, version: "1.0.0" }));
    for (let number = 0; number < files; number++) {
      const inner = join(folder, `lib${number % 10}`, `part${number % 3}`);
      Deno.mkdirSync(inner, { recursive: true });
      Deno.writeTextFileSync(join(inner, `file${number}.js`), `module.exports = ${number};\n`.repeat(number + 1));
    }
  }
  const script = `
    cd "$1" && npm pack --silent ./leaf ./tree
    mkdir "$2/app" && cd "$2/app" && npm init -y --silent >/dev/null
    npm install --offline --no-audit --no-fund --cache "$2/npm-cache" "$1"/leaf-1.0.0.tgz "$1"/tree-1.0.0.tgz
    npm ls --offline
    diff -r "$1/tree/lib0" node_modules/tree/lib0
    test "$(find node_modules/tree -name 'file*.js' | wc -l)" = 300
    rm -rf "$2/app" "$2/npm-cache"`;
  await run(shell(script).concat("npm", local, mount), { timeoutMs: programMs });
}

async function sqlite(mount: string, journal: "delete" | "wal"): Promise<void> {
  const transactions = Array.from({ length: 50 }, (_, number) => `
    begin; insert into t (v, b) select value, randomblob(200) from generate_series(${number * 40 + 1}, ${
    number * 40 + 40
  }); commit;`);
  const text = `
    pragma journal_mode=${journal}; create table t (id integer primary key, v integer, b blob);
    create index i on t (v); ${transactions.join("")}
    update t set b = randomblob(300) where v % 3 = 0; delete from t where v % 7 = 0; vacuum;
    select count(*), sum(v) from t;`;
  const database = join(mount, `${journal}.db`);
  const said = await run(["sqlite3", database], { input: text, timeoutMs: programMs });
  // 2,000 numbers without the multiples of 7.
  assertEquals(said.trim().split("\n"), [journal, "1715|1715715"]);
  const again = await run(["sqlite3", database, "pragma integrity_check; select count(*) from t;"]);
  assertEquals(again, "ok\n1715\n");
  await Deno.remove(database);
}

/** Many small files by tar, out again by tar through the other mount, every content equal. */
async function tar(local: string, mounts: [string, string]): Promise<void> {
  const source = join(local, "many");
  for (let number = 0; number < smallFiles; number++) {
    const folder = join(source, `d${number % 50}`, `e${number % 3}`);
    if (number < 150) Deno.mkdirSync(folder, { recursive: true });
    const bytes = new Uint8Array(number * 7919 % 5000).map((_, at) => at * number);
    Deno.writeFileSync(join(folder, `f${number}`), bytes);
  }
  await run(
    shell(`
      sums() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum); }
      tar -C "$1" --format=posix -cf "$1/many.tar" many
      tar -C "$2" -xf "$1/many.tar"
      tar -C "$3" -cf "$1/back.tar" many
      mkdir "$1/back" && tar -C "$1/back" -xf "$1/back.tar"
      test "$(sums "$1/many")" = "$(sums "$1/back/many")"
      test "$(sums "$1/many")" = "$(sums "$3/many")"
      # Folders have sizes of their own kind.
      list() { (cd "$1" && find . -mindepth 1 -type d -printf '%p %m %T@\\n' -o -printf '%p %m %s %T@\\n' | sort); }
      diff <(list "$1/many") <(list "$3/many")
      rm -rf "$2/many"
      test ! -e "$3/many"`).concat("tar", local, ...mounts),
    { timeoutMs: programMs },
  );
}

async function stress(mount: string): Promise<void> {
  const folder = join(mount, "stress");
  await Deno.mkdir(folder);
  const common = ["--temp-path", folder, "--verify", "--hdd-bytes", "16m", "--iomix-bytes", "16m"];
  // By default these make thousands, and take them away after the time is over.
  common.push("--dentries", "200", "--dir-dirs", "200");
  if (full) {
    const each = Math.ceil(stressSeconds / stressors.length);
    for (const name of stressors) {
      await run(["stress-ng", ...common, `--${name}`, "2", "--timeout", `${each}s`], { timeoutMs: programMs });
    }
  } else {
    const chosen = stressorsQuick.flatMap((name) => [`--${name}`, "1"]);
    await run(["stress-ng", ...common, ...chosen, "--timeout", `${stressSeconds}s`], { timeoutMs: programMs });
  }
  await run(["rm", "-r", folder]);
}

async function fio(mount: string): Promise<void> {
  const folder = join(mount, "fio");
  await Deno.mkdir(folder);
  const common = [
    ...["fio", "--minimal", `--directory=${folder}`, "--rw=randrw", `--size=${fioMebibytes}m`, "--verify=crc32c"],
    ...["--verify_fatal=1", "--do_verify=1", "--verify_state_save=0", "--end_fsync=1", "--randseed=7"],
  ];
  await run([...common, "--name=calls", "--ioengine=psync", "--bsrange=512-128k", "--numjobs=2"], {
    timeoutMs: programMs,
  });
  await run([...common, "--name=mapped", "--ioengine=mmap", "--bs=4k"], { timeoutMs: programMs });
  await run(["rm", "-r", folder]);
}

async function append(cluster: Cluster): Promise<void> {
  await contend(cluster, "append", "appended", appendsEach);
  for (const { path } of cluster.clients) {
    const bytes = await Deno.readFile(join(path, "appended"));
    assertEquals(bytes.length, contenders.length * appendsEach * recordBytes);
    const nextOf = new Map<number, number>();
    for (let at = 0; at < bytes.length; at += recordBytes) {
      const found = bytes.subarray(at, at + recordBytes);
      const [id, number] = new TextDecoder().decode(found.subarray(0, 20)).split(":").map(Number);
      // Each process's records are there once, in its order, and whole.
      assertEquals(number, nextOf.get(id) ?? 0);
      nextOf.set(id, number + 1);
      assertEquals(found, record(id, number));
    }
  }
  await Deno.remove(join(cluster.clients[0].path, "appended"));
}

async function locks(cluster: Cluster, kind: "flock" | "fcntl"): Promise<void> {
  const [first, second] = cluster.clients, name = `${kind}-counter`;
  await Deno.writeTextFile(join(first.path, name), "0");
  await contend(cluster, kind, name, countsEach);
  const number = Number(await Deno.readTextFile(join(second.path, name)));
  assertEquals(number, contenders.length * countsEach);
  // A lock dies with its holder.
  const [program, ...args] = script("contender.ts", "hold", kind, join(first.path, name));
  const holder = new Deno.Command(program, { args, stdin: "null", stdout: "piped" }).spawn();
  try {
    const reader = holder.stdout.getReader();
    await reader.read();
    await reader.cancel();
    const start = performance.now();
    const waiting = run(script("contender.ts", kind, join(second.path, name), "9", "1"), { timeoutMs: 30_000 });
    const early = await Promise.race([waiting.then(() => true), sleep(1_500).then(() => false)]);
    assert(!early, `the lock was given to two after ${Math.round(performance.now() - start)} ms`);
    holder.kill("SIGKILL");
    await waiting;
  } finally {
    // It may be dead already.
    await attempt(["kill", "-9", String(holder.pid)]);
    await holder.status;
  }
  assertEquals(Number(await Deno.readTextFile(join(first.path, name))), number + 1);
  await Deno.remove(join(first.path, name));
}

needyTest("ordinary programs run on the mounts of a cluster", needs("tar", "git"), async (t) => {
  await withCluster({ timeoutMs: testMs }, async (cluster) => {
    const [{ path: a }, { path: b }] = cluster.clients;
    const local = join(cluster.folder, "local");
    Deno.mkdirSync(local);
    const folder = (name: string) => {
      Deno.mkdirSync(join(local, name));
      return join(local, name);
    };
    const nothing = needs();
    await needyStep(t, "changes through one mount show through the other at once, mmap too", nothing, async () => {
      await Deno.mkdir(join(a, "coherence"));
      const rounds = full ? "200" : "30";
      await run(script("coherence.ts", join(a, "coherence"), join(b, "coherence"), rounds), { timeoutMs: programMs });
      await Deno.remove(join(b, "coherence"));
    });
    await needyStep(t, "two mounts append to one file without a lost or torn record", nothing, () => append(cluster));
    await needyStep(t, "flock excludes across mounts", nothing, () => locks(cluster, "flock"));
    await needyStep(t, "fcntl locks exclude across mounts", nothing, () => locks(cluster, "fcntl"));
    await needyStep(t, "git clones, checks, commits and collects garbage", needs("git"), () => git(folder("git"), a));
    await needyStep(t, "npm installs hundreds of files", needs("npm"), () => npm(folder("npm"), a));
    await needyStep(t, "sqlite3 keeps a database with a rollback journal", needs("sqlite3"), () => sqlite(a, "delete"));
    await needyStep(t, "sqlite3 keeps a database with a write-ahead log", needs("sqlite3"), () => sqlite(b, "wal"));
    await needyStep(
      t,
      `tar carries ${smallFiles} small files in and out`,
      needs("tar"),
      () => tar(folder("tar"), [a, b]),
    );
    await needyStep(t, `dbench 4 runs ${dbenchSeconds} s`, needs("dbench"), async () => {
      const at = join(a, "dbench");
      await Deno.mkdir(at);
      await run(["dbench", "-D", at, "-t", String(dbenchSeconds), "4"], { timeoutMs: programMs });
      await run(["rm", "-r", at]);
    });
    await needyStep(t, `stress-ng's file system stressors run ${stressSeconds} s`, needs("stress-ng"), () => stress(b));
    await needyStep(t, "fio verifies what it writes at random, by calls and by mmap", needs("fio"), () => fio(a));
    await t.step("nothing is left, nothing is wrong, and no error was logged", async () => {
      const left = await attempt(["ls", "-A", b]);
      assertEquals([left.code, left.stdout.trim()], [0, ""]);
      await cluster.check();
      assertEquals(cluster.logged("error"), []);
    });
  });
});
