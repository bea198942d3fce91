/**
 * `deno task build`: makes `build/sealfs`, one file that runs from an empty folder with an empty environment.
 *
 * The program is bundled (workers too, every `*_worker.ts` of `cmd/` and `ffi/`), lmdb's native library goes beside it,
 * and `deno compile` puts both into one executable on `denort` where that can be had, else on the base of
 * `build/denort_shim.ts`. Nothing is made again while no source has changed; it does not check types.
 *
 * @module
 */

import { dirname, fromFileUrl, join, relative } from "@std/path";
import { makeDenortShim } from "./build/denort_shim.ts";
import { version } from "./version.ts";

const root = fromFileUrl(new URL("..", import.meta.url));
const buildFolder = join(root, "build");
const output = join(buildFolder, "sealfs");
const stampFile = join(buildFolder, "sealfs.stamp");

/** Everything that the executable is made from. */
const sources = ["cmd", "core", "ffi", "types", "mod.ts", "deno.json", "deno.lock", "package.json"];
/** Where workers live. */
const workerFolders = ["cmd", "ffi"];
/** How a source names the worker that it starts: one beside it, for in the bundle they all are. */
const workerUrl = /new URL\("([^"]*_worker\.ts)"/g;
/** A heap (one a thread) that grows beyond this is a leak: it ends with an error instead of taking the machine. */
const v8Flags = ["--max-old-space-size=512"];
/** How long to look for denort on the network. */
const denortTimeoutMs = 5000;

/** What the executable is built on. */
interface Base {
  /** For people. */
  description: string;
  /** Set for `deno compile`; empty when it finds denort by itself. */
  env: Record<string, string>;
  /** Flags for `deno compile`. */
  flags: string[];
}

async function runDeno(args: string[], cwd: string, env: Record<string, string> = {}): Promise<void> {
  const command = new Deno.Command(Deno.execPath(), {
    args,
    cwd,
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { success, stdout, stderr } = await command.output();
  if (success) return;
  const decoder = new TextDecoder();
  throw new Error(`deno ${args[0]} failed:\n${decoder.decode(stdout)}${decoder.decode(stderr)}`);
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Paths of all files at or under `path`, in a stable order. */
function filesUnder(path: string): string[] {
  if (!exists(path)) return [];
  if (Deno.statSync(path).isFile) return [path];
  const names = [...Deno.readDirSync(path)].map((entry) => entry.name).sort();
  return names.flatMap((name) => filesUnder(join(path, name)));
}

/** A hash over every source, the Deno that builds and the choice of base. */
async function sourceStamp(): Promise<string> {
  const lines = [Deno.version.deno, Deno.env.get("DENORT_BIN") ?? ""];
  for (const path of sources.flatMap((source) => filesUnder(join(root, source)))) {
    const digest = await crypto.subtle.digest("SHA-256", Deno.readFileSync(path));
    lines.push(`${relative(root, path)} ${new Uint8Array(digest).toHex()}`);
  }
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lines.join("\n")));
  return new Uint8Array(digest).toHex();
}

interface DenoInfo {
  denoDir: string;
  npmCache: string;
}

async function denoInfo(): Promise<DenoInfo> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"], cwd: root }).output();
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** Bundles main and all workers into `stage/dist`, flat, so that a worker is beside whatever starts it. */
async function bundle(stage: string): Promise<string[]> {
  const files = workerFolders.flatMap((folder) => filesUnder(join(root, folder)));
  const workers = files.filter((path) => path.endsWith("_worker.ts"));
  for (const file of files.filter((path) => path.endsWith(".ts"))) checkWorkersBeside(file);
  const entries: string[] = [];
  const names = new Set<string>();
  for (const path of [join(root, "cmd", "main.ts"), ...workers]) {
    const name = path.slice(path.lastIndexOf("/") + 1, -".ts".length);
    if (names.has(name)) throw new Error(`two workers are named ${name}.ts: names must differ in the whole tree`);
    names.add(name);
    const entry = join(stage, "entries", `${name}.ts`);
    Deno.mkdirSync(dirname(entry), { recursive: true });
    Deno.writeTextFileSync(entry, `import ${JSON.stringify(path)};\n`);
    entries.push(entry);
  }
  const dist = join(stage, "dist");
  await runDeno(
    ["bundle", "--quiet", "--no-check", "--platform", "deno", "--code-splitting", "--outdir", dist, ...entries],
    root,
  );
  // The bundler leaves the URLs of workers as they are.
  const workerNames = [...names].filter((name) => name !== "main");
  for (const name of workerNames) Deno.writeTextFileSync(join(dist, `${name}.ts`), `import "./${name}.js";\n`);
  return workerNames.map((name) => `dist/${name}.ts`);
}

function checkWorkersBeside(file: string): void {
  for (const [, url] of Deno.readTextFileSync(file).matchAll(workerUrl)) {
    if (exists(join(dirname(file), url)) && /^\.\/[^/]+$/.test(url)) continue;
    throw new Error(`${relative(root, file)} starts ${url}: a worker lies beside what starts it`);
  }
}

/** Copies lmdb's native library to where lmdb looks for it from the bundle. */
function copyNative(stage: string, info: DenoInfo): void {
  const lock: { npm: Record<string, unknown> } = JSON.parse(Deno.readTextFileSync(join(root, "deno.lock")));
  const cpu = Deno.build.arch === "x86_64" ? "x64" : "arm64";
  const name = `@lmdb/lmdb-linux-${cpu}`;
  const locked = Object.keys(lock.npm).find((key) => key.startsWith(`${name}@`));
  if (locked === undefined) throw new Error(`deno.lock has no ${name}`);
  const path = join(name, locked.slice(name.length + 1), "node.napi.glibc.node");
  const found = [...Deno.readDirSync(info.npmCache)]
    .map((registry) => join(info.npmCache, registry.name, path)).find(exists);
  if (found === undefined) throw new Error(`no ${path} under ${info.npmCache}`);
  const folder = join(stage, "prebuilds", `linux-${cpu}`);
  Deno.mkdirSync(folder, { recursive: true });
  Deno.copyFileSync(found, join(folder, "node.napi.glibc.node"));
}

/** Why denort cannot be downloaded, undefined when it can. */
async function whyNoDownload(url: string): Promise<string | undefined> {
  try {
    const reply = await fetch(url, { method: "HEAD", signal: AbortSignal.timeout(denortTimeoutMs) });
    await reply.body?.cancel();
    return reply.ok ? undefined : `HTTP status ${reply.status}`;
  } catch (error) {
    return error instanceof Error && error.name === "TimeoutError" ? "no answer" : "not reachable";
  }
}

/** Deno's own runtime where it is at hand or can be downloaded, else the shim, written into `stage`. */
async function chooseBase(stage: string, info: DenoInfo): Promise<Base> {
  const denortFlags = [`--v8-flags=${v8Flags.join(",")}`];
  const given = Deno.env.get("DENORT_BIN");
  if (given) return { description: `denort (DENORT_BIN=${given})`, env: {}, flags: denortFlags };
  const path = `release/v${Deno.version.deno}/denort-${Deno.build.target}.zip`;
  if (exists(join(info.denoDir, "dl", path))) return { description: "denort (cached)", env: {}, flags: denortFlags };
  const why = await whyNoDownload(`https://dl.deno.land/${path}`);
  if (why === undefined) return { description: "denort (downloaded)", env: {}, flags: denortFlags };

  const bootstrap = Deno.readTextFileSync(join(root, "cmd", "build", "bootstrap.js"));
  const shim = makeDenortShim(Deno.readFileSync(Deno.execPath()), bootstrap, v8Flags);
  const shimPath = join(stage, "denort-shim");
  Deno.writeFileSync(shimPath, shim, { mode: 0o755 });
  return {
    description: `stock deno ${Deno.version.deno} with a loader (denort at dl.deno.land: ${why})`,
    env: { DENORT_BIN: shimPath },
    // The program is unpacked by the bootstrap; this flag makes its files whole and adds their hash.
    flags: ["--self-extracting"],
  };
}

async function make(stage: string): Promise<string> {
  const info = await denoInfo();
  const workers = await bundle(stage);
  copyNative(stage, info);
  const base = await chooseBase(stage, info);
  const includes = [...workers, "prebuilds"].flatMap((path) => ["--include", path]);
  const made = join(stage, "sealfs");
  const args = ["compile", "--quiet", "--no-check", "--no-config", "--no-lock", "-A", ...base.flags, ...includes];
  await runDeno([...args, "-o", made, "dist/main.js"], stage, base.env);
  // A running executable stays what it was: the name moves to a new file.
  Deno.renameSync(made, output);
  return base.description;
}

/**
 * Makes `build/sealfs` when a source has changed since it was made, and returns its absolute path. Processes that call
 * it at the same time wait for one another. Throws with the output of the tool that failed.
 */
export async function buildExecutable(): Promise<string> {
  Deno.mkdirSync(buildFolder, { recursive: true });
  const turn = await Deno.open(join(buildFolder, ".lock"), { create: true, write: true });
  try {
    await turn.lock(true);
    const stamp = await sourceStamp();
    if (exists(output) && exists(stampFile) && Deno.readTextFileSync(stampFile).split("\n")[0] === stamp) return output;
    // Inside the project: the bundler takes deno.json from above the entries.
    const stage = Deno.makeTempDirSync({ dir: buildFolder, prefix: "stage-" });
    try {
      const description = await make(stage);
      Deno.writeTextFileSync(stampFile, `${stamp}\n${description}\n`);
    } finally {
      Deno.removeSync(stage, { recursive: true });
    }
    return output;
  } finally {
    turn.close();
  }
}

if (import.meta.main) {
  const path = await buildExecutable();
  const mebibytes = Math.round(Deno.statSync(path).size / 2 ** 20);
  const base = Deno.readTextFileSync(stampFile).split("\n")[1];
  console.log(`${relative(Deno.cwd(), path)}: sealfs ${version}, ${mebibytes} MiB, on ${base}`);
}
