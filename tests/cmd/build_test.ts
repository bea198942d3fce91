/**
 * The executable: how a bundled program with workers and lmdb unpacks, starts and runs. The program is a small one of its
 * own, built by the same build script, so that a fault here is a fault of the packaging.
 */

import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";

const root = fromFileUrl(new URL("../..", import.meta.url));
const isRoot = Deno.uid() === 0;
/** Uid and gid of "nobody". */
const nobody = 65534;

const program: Record<string, string> = {
  "cmd/main.ts": `
    import { version } from "./version.ts";
    import { isExecutable, selfCommand } from "./self.ts";
    const [word, ...rest] = Deno.args;
    if (word === "args") console.log(JSON.stringify(rest));
    else if (word === "version") console.log(version, isExecutable());
    else if (word === "self") {
      const [path, ...args] = selfCommand(["args", "child"]);
      const { stdout } = await new Deno.Command(path, { args }).output();
      console.log(path, new TextDecoder().decode(stdout).trim());
    } else if (word === "wait") {
      console.log("waiting");
      await Deno.stdin.read(new Uint8Array(1));
      console.log(JSON.stringify(await (await import("./late.ts")).work()));
    } else if (word === "throw") throw new Error("boom");
    else console.log(JSON.stringify(await (await import("./late.ts")).work()));
    Deno.exit(word === "exit" ? 7 : 0);`,
  "cmd/late.ts": `
    import { decode, encode } from "cbor-x";
    import { open } from "lmdb";
    import { ask } from "../ffi/ask.ts";
    export async function work() {
      const folder = Deno.makeTempDirSync();
      const store = open({ path: folder + "/main" });
      store.putSync("k", 1);
      const cbor = decode(encode({ c: 2 })).c;
      const libc = Deno.dlopen("libc.so.6", { getpid: { parameters: [], result: "i32" } });
      const result = [store.get("k"), cbor, await ask("a", folder), await ask("b", folder)];
      if (libc.symbols.getpid() !== Deno.pid) throw new Error("getpid");
      Deno.removeSync(folder, { recursive: true });
      return result;
    }`,
  "ffi/ask.ts": `
    export function ask(name: string, folder: string): Promise<unknown> {
      const worker = name === "a"
        ? new Worker(new URL("./a_worker.ts", import.meta.url), { type: "module" })
        : new Worker(new URL("./b_worker.ts", import.meta.url), { type: "module" });
      return new Promise((resolve) => {
        worker.onmessage = (event) => resolve(event.data);
        worker.postMessage(folder);
      });
    }`,
  "ffi/a_worker.ts": `
    import { open } from "lmdb";
    self.onmessage = (event) => {
      const store = open({ path: event.data + "/a" });
      store.putSync("k", "a");
      self.postMessage(store.get("k"));
    };`,
  "ffi/b_worker.ts": `
    import { encode } from "cbor-x";
    self.onmessage = () => self.postMessage(encode([1]).length);`,
};
const result = '[1,2,"a",2]';

function copyTree(from: string, to: string): void {
  if (Deno.statSync(from).isFile) return Deno.copyFileSync(from, to);
  Deno.mkdirSync(to, { recursive: true });
  for (const entry of Deno.readDirSync(from)) copyTree(`${from}/${entry.name}`, `${to}/${entry.name}`);
}

async function build(project: string): Promise<string> {
  const command = new Deno.Command(Deno.execPath(), { args: ["run", "-A", "cmd/build.ts"], cwd: project });
  const { success, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  assert(success, decoder.decode(stderr));
  return decoder.decode(stdout);
}

interface RunOptions {
  env?: Record<string, string>;
  cwd?: string;
  uid?: number;
}

async function run(path: string, args: string[], { env = {}, cwd, uid }: RunOptions = {}) {
  const command = new Deno.Command(path, { args, env, clearEnv: true, cwd, uid, gid: uid, stdin: "null" });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("the executable", { sanitizeResources: false }, async (t) => {
  const temp = Deno.makeTempDirSync();
  Deno.chmodSync(temp, 0o755);
  try {
    const project = `${temp}/project`, empty = `${temp}/empty`, app = `${empty}/sealfs`;
    for (const folder of [`${project}/ffi`, `${project}/cmd`, empty]) Deno.mkdirSync(folder, { recursive: true });
    for (const path of ["deno.json", "deno.lock", "package.json", "types", "cmd/build", "cmd/build.ts"]) {
      copyTree(`${root}/${path}`, `${project}/${path}`);
    }
    for (const name of ["cmd/version.ts", "cmd/self.ts"]) copyTree(`${root}/${name}`, `${project}/${name}`);
    for (const [path, text] of Object.entries(program)) Deno.writeTextFileSync(`${project}/${path}`, text);

    await t.step("is made, and made again only when a source has changed", async () => {
      assertMatch(await build(project), /^build\/sealfs: sealfs \d+\.\d+\.\d+, \d+ MiB, on \S/);
      const made = Deno.statSync(`${project}/build/sealfs`);
      await build(project);
      assertEquals(Deno.statSync(`${project}/build/sealfs`).ino, made.ino);
      assertEquals([...Deno.readDirSync(`${project}/build`)].length, 3);
    });
    copyTree(`${project}/build/sealfs`, app);
    Deno.chmodSync(app, 0o755);
    let count = 0;
    const freshCache = () => {
      const folder = `${temp}/cache${count++}`;
      Deno.mkdirSync(folder, { mode: 0o755 });
      return folder;
    };
    const cache = freshCache(), env = { XDG_CACHE_HOME: cache };

    await t.step("runs workers, lmdb, cbor-x and libc from an empty folder", async () => {
      const { code, stdout, stderr } = await run(app, [], { env, cwd: empty });
      assertEquals([code, stdout, stderr], [0, result + "\n", ""]);
      assertEquals([...Deno.readDirSync(empty)].map((entry) => entry.name), ["sealfs"]);
    });

    await t.step("hands every argument on untouched, and exit codes back", async () => {
      const args = ["--help", "-A", "--", "--version", "", "a b", "--v8-flags=x", "é"];
      assertEquals(JSON.parse((await run(app, ["args", ...args], { env })).stdout), args);
      assertEquals((await run(app, ["exit"], { env })).code, 7);
      const thrown = await run(app, ["throw"], { env });
      assertEquals(thrown.code, 1);
      assertStringIncludes(thrown.stderr, "boom");
    });

    await t.step("takes nothing from the folder it is started in", async () => {
      const hostile = `${temp}/hostile`;
      Deno.mkdirSync(hostile);
      for (const name of ["deno.json", "package.json", "deno.lock", ".npmrc", "import_map.json"]) {
        Deno.writeTextFileSync(`${hostile}/${name}`, "{ not json");
      }
      const { code, stdout, stderr } = await run(app, [], { env, cwd: hostile });
      assertEquals([code, stdout, stderr], [0, result + "\n", ""]);
    });

    await t.step("starts itself again by selfCommand()", async () => {
      assertEquals((await run(app, ["self"], { env })).stdout, `${app} ["child"]\n`);
      assertMatch((await run(app, ["version"], { env })).stdout, /^\d+\.\d+\.\d+ true\n$/);
    });

    await t.step("goes on when its file is replaced and removed while it runs", async () => {
      const copy = `${temp}/copy`;
      copyTree(app, copy);
      Deno.chmodSync(copy, 0o755);
      const child = new Deno.Command(copy, { args: ["wait"], env, clearEnv: true, stdin: "piped", stdout: "piped" })
        .spawn();
      const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
      assertEquals((await reader.read()).value, "waiting\n");
      Deno.removeSync(copy);
      await child.stdin.close();
      let text = "";
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) text += piece.value;
      assertEquals([(await child.status).code, text], [0, result + "\n"]);
    });

    const unpacked = (folder: string) => [...Deno.readDirSync(`${folder}/sealfs`)].map((entry) => entry.name).sort();

    await t.step("unpacks once when many start at the same moment for the first time", async () => {
      const folder = freshCache();
      const runs = await Promise.all(
        Array.from({ length: 8 }, () => run(app, ["args", "x"], { env: { XDG_CACHE_HOME: folder } })),
      );
      for (const { code, stdout, stderr } of runs) assertEquals([code, stdout, stderr], [0, '["x"]\n', ""]);
      assertEquals(unpacked(folder).filter((name) => name !== ".unpack").length, 1);
    });

    await t.step("unpacks again what is damaged, and clears what was left unfinished", async () => {
      const folder = freshCache();
      const mine = { env: { XDG_CACHE_HOME: folder } };
      await run(app, ["version"], mine);
      const [hash] = unpacked(folder).filter((name) => name !== ".unpack");
      Deno.truncateSync(`${folder}/sealfs/${hash}/dist/main.js`, 10);
      Deno.mkdirSync(`${folder}/sealfs/.${hash}/dist`, { recursive: true });
      assertEquals((await run(app, [], mine)).stdout, result + "\n");
      assertEquals(unpacked(folder), [".unpack", hash]);
    });

    await t.step("removes other versions that nobody uses, and only those", async () => {
      const folder = freshCache();
      const mine = { env: { XDG_CACHE_HOME: folder } };
      for (const name of ["used", "unused"]) {
        Deno.mkdirSync(`${folder}/sealfs/${name}`, { recursive: true, mode: 0o700 });
        Deno.writeTextFileSync(`${folder}/sealfs/${name}/.lock`, "");
      }
      using lock = Deno.openSync(`${folder}/sealfs/used/.lock`);
      lock.lockSync(false);
      assertEquals((await run(app, ["version"], mine)).code, 0);
      const names = unpacked(folder);
      assert(names.includes("used") && !names.includes("unused"), names.join());
    });

    await t.step("refuses a cache folder that others can write to", async () => {
      const folder = freshCache();
      Deno.mkdirSync(`${folder}/sealfs`);
      Deno.chmodSync(`${folder}/sealfs`, 0o770);
      const { code, stdout, stderr } = await run(app, ["version"], { env: { XDG_CACHE_HOME: folder } });
      assertEquals([code, stdout], [1, ""]);
      assertMatch(stderr, /^sealfs: will not run from .* mode 0700, and is a folder .* mode 0770; .*\n$/);
      Deno.removeSync(`${folder}/sealfs`);
      Deno.symlinkSync(cache + "/sealfs", `${folder}/sealfs`);
      assertStringIncludes((await run(app, [], { env: { XDG_CACHE_HOME: folder } })).stderr, "no folder");
    });

    await t.step("says in one line that it cannot unpack", async () => {
      const { code, stderr } = await run(app, [], { env: { XDG_CACHE_HOME: "/proc/nowhere" } });
      assertEquals(code, 1);
      assertMatch(stderr, /^sealfs: cannot make \/proc\/nowhere.*; set XDG_CACHE_HOME\n$/);
    });

    await t.step({
      name: "runs as an ordinary user, and refuses another user's cache (needs root to change the user)",
      ignore: !isRoot,
      fn: async () => {
        const folder = freshCache();
        Deno.chownSync(folder, nobody, nobody);
        const mine = { env: { XDG_CACHE_HOME: folder }, uid: nobody, cwd: "/" };
        const { code, stdout, stderr } = await run(app, [], mine);
        assertEquals([code, stdout, stderr], [0, result + "\n", ""]);
        const other = await run(app, [], { ...mine, env });
        assertEquals(other.code, 1);
        assertEquals(other.stderr.split("\n").length, 2);
      },
    });

    await t.step("is not made of a program that would not find its workers", async () => {
      const before = Deno.statSync(`${project}/build/sealfs`).ino;
      for (const url of ["../a_worker.ts", "./c_worker.ts"]) {
        Deno.mkdirSync(`${project}/ffi/deep`, { recursive: true });
        Deno.writeTextFileSync(`${project}/ffi/deep/start.ts`, `new Worker(new URL("${url}", import.meta.url));`);
        const command = new Deno.Command(Deno.execPath(), { args: ["run", "-A", "cmd/build.ts"], cwd: project });
        const { success, stderr } = await command.output();
        assertEquals(success, false);
        assertStringIncludes(new TextDecoder().decode(stderr), `ffi/deep/start.ts starts ${url}: `);
      }
      Deno.removeSync(`${project}/ffi/deep`, { recursive: true });
      assertEquals(Deno.statSync(`${project}/build/sealfs`).ino, before);
    });

    await t.step("a changed program runs from an unpacked version of its own", async () => {
      const before = unpacked(cache);
      Deno.writeTextFileSync(`${project}/cmd/late.ts`, `export const work = () => "changed";`);
      await build(project);
      assertEquals((await run(`${project}/build/sealfs`, [], { env })).stdout, '"changed"\n');
      assertNotEquals(unpacked(cache), before);
      assertEquals((await run(app, [], { env })).stdout, result + "\n");
    });
  } finally {
    Deno.removeSync(temp, { recursive: true });
  }
});
