/**
 * `verified_work.ts MOUNT OTHER CONTROL SEED`: works on `MOUNT/work` with random operations and remembers what each
 * acknowledged one means; whatever servers and manager do meanwhile, every call must succeed and every answer must be
 * right. It ends when `CONTROL/stop` is there, after comparing the whole tree, read through the mount OTHER, with what was
 * acknowledged. Prints one line of JSON; exit code 0 when everything was right.
 *
 * The number in `CONTROL/outages` counts kills of the client daemon: after one a call may fail, its outcome is then one of
 * the two it may have had, and the work goes on when the mount is back. `CONTROL/operations` says how many are done.
 *
 * @module
 */

import { Random } from "../sim/random.ts";

const filesMax = 250;
const foldersMax = 20;
const bytesMax = 96 << 20;
/** Time the mount may take to come back after its daemon was killed. */
const outageMsMax = 60_000;
const pauseMs = 50;
/** What a killed daemon had asked for may wait this long at a server, for leases that run out, and happen then. */
const lateMs = 5_000;
/** Outages that one operation may meet before it is settled. */
const settlesMax = 20;

interface File {
  kind: "file";
  content: Uint8Array;
}
type Entry = File | { kind: "folder" } | { kind: "link"; target: string };
/** Path relative to the work folder, to what is there. Hard links share one object. */
type Tree = Map<string, Entry>;

/** A change of the tree: the calls that make it, what it means, and the paths it touches. */
interface Change {
  name: string;
  paths: string[];
  call: () => void;
  apply: (tree: Tree) => void;
  /** Content that the touched file may have in the middle of the change, for those that take several calls. */
  partial?: (content: Uint8Array) => boolean;
}

const [mount, other, control, seedText] = Deno.args;
const home = `${mount}/work`;
const random = new Random(Number(seedText), "verified work");
let tree: Tree = new Map();
let serial = 0, operations = 0, outagesSeen = 0;
let longOpen: LongOpen | null = null;

function chance(oneIn: number): boolean {
  return random.below(oneIn) === 0;
}

function pick<T>(items: readonly T[]): T {
  return items[random.below(items.length)];
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}

function isPrefix(short: Uint8Array, long: Uint8Array): boolean {
  return short.length <= long.length && same(short, long.subarray(0, short.length));
}

/** Bytes that occur nowhere else: every 64 of them carry a serial number and their position. */
function fresh(length: number): Uint8Array {
  const bytes = new Uint8Array(length), view = new DataView(bytes.buffer);
  const mine = ++serial;
  for (let at = 0; at + 8 <= length; at += 64) {
    view.setUint32(at, mine);
    view.setUint32(at + 4, at);
    bytes.fill(mine + at / 64, at + 8, Math.min(length, at + 64));
  }
  return bytes;
}

function freshLength(): number {
  switch (random.below(8)) {
    case 0:
      return 0;
    case 1:
    case 2:
    case 3:
      return random.below(4096);
    case 4:
      return 4096;
    case 5:
    case 6:
      return random.below(200_000);
    default:
      return random.below(3_000_000);
  }
}

function join(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}

function paths(kind: Entry["kind"]): string[] {
  return [...tree].filter(([, entry]) => entry.kind === kind).map(([path]) => path);
}

function folder(): string {
  return pick(["", "", ...paths("folder").map((path) => `${path}/`)]);
}

function freshPath(): string {
  return `${folder()}n${++serial}`;
}

function storedBytes(): number {
  let sum = 0;
  for (const entry of tree.values()) if (entry.kind === "file") sum += entry.content.length;
  return sum;
}

function writeChange(path: string, content: Uint8Array): Change {
  const old = tree.get(path);
  return {
    name: "write",
    paths: [path],
    call: () => {
      using file = Deno.openSync(`${home}/${path}`, { write: true, create: true, truncate: true });
      for (let done = 0; done < content.length;) done += file.writeSync(content.subarray(done));
      if (chance(20)) file.syncSync();
    },
    apply: (tree) => {
      if (old?.kind === "file") (tree.get(path) as File).content = content;
      else tree.set(path, { kind: "file", content });
    },
    partial: (actual) => isPrefix(actual, content),
  };
}

function appendChange(path: string): Change {
  const { content } = tree.get(path) as File;
  const whole = join(content, fresh(random.below(9000)));
  return {
    name: "append",
    paths: [path],
    call: () => {
      using file = Deno.openSync(`${home}/${path}`, { append: true });
      for (let done = content.length; done < whole.length;) done += file.writeSync(whole.subarray(done));
    },
    apply: (tree) => (tree.get(path) as File).content = whole,
    partial: (actual) => actual.length >= content.length && isPrefix(actual, whole),
  };
}

function overwriteChange(path: string): Change {
  const { content } = tree.get(path) as File;
  const at = random.below(content.length + 5000), bytes = fresh(random.below(70_000));
  const whole = new Uint8Array(Math.max(content.length, bytes.length === 0 ? 0 : at + bytes.length));
  whole.set(content);
  whole.set(bytes, Math.min(at, whole.length - bytes.length));
  return {
    name: "overwrite",
    paths: [path],
    call: () => {
      using file = Deno.openSync(`${home}/${path}`, { write: true });
      file.seekSync(at, Deno.SeekMode.Start);
      for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
    },
    apply: (tree) => (tree.get(path) as File).content = whole,
    partial: (actual) => {
      // Some of the new bytes over the old ones.
      for (let i = 0; i < actual.length; i++) {
        if (actual[i] !== whole[i] && actual[i] !== (content[i] ?? 0)) return false;
      }
      return actual.length >= content.length && actual.length <= whole.length;
    },
  };
}

function truncateChange(path: string): Change {
  const { content } = tree.get(path) as File;
  const whole = new Uint8Array(random.below(content.length * 2 + 2));
  whole.set(content.subarray(0, whole.length));
  return {
    name: "truncate",
    paths: [path],
    call: () => Deno.truncateSync(`${home}/${path}`, whole.length),
    apply: (tree) => (tree.get(path) as File).content = whole,
  };
}

function moveFile(path: string): Change {
  const target = chance(3) && paths("file").length > 1 ? pick(paths("file")) : freshPath();
  return {
    name: `rename ${path} to`,
    paths: [path, target],
    call: () => Deno.renameSync(`${home}/${path}`, `${home}/${target}`),
    apply: (tree) => {
      const entry = tree.get(path)!;
      // Two names of one file: rename does nothing.
      if (entry === tree.get(target)) return;
      tree.set(target, entry);
      tree.delete(path);
    },
  };
}

function moveFolder(path: string): Change | null {
  const target = freshPath();
  if (`${target}/`.startsWith(`${path}/`)) return null;
  return {
    name: `rename folder ${path} to`,
    paths: [path, target],
    call: () => Deno.renameSync(`${home}/${path}`, `${home}/${target}`),
    apply: (tree) => {
      for (const [inner, entry] of [...tree]) {
        if (inner !== path && !inner.startsWith(`${path}/`)) continue;
        tree.delete(inner);
        tree.set(target + inner.slice(path.length), entry);
      }
    },
  };
}

function removeChange(path: string): Change {
  return {
    name: "remove",
    paths: [path],
    call: () => Deno.removeSync(`${home}/${path}`),
    apply: (tree) => tree.delete(path),
  };
}

function linkChange(path: string): Change {
  const target = freshPath();
  return {
    name: "link",
    paths: [target],
    call: () => Deno.linkSync(`${home}/${path}`, `${home}/${target}`),
    apply: (tree) => tree.set(target, tree.get(path)!),
  };
}

function symlinkChange(): Change {
  const path = freshPath(), target = `to/${serial}`;
  return {
    name: "symlink",
    paths: [path],
    call: () => Deno.symlinkSync(target, `${home}/${path}`),
    apply: (tree) => tree.set(path, { kind: "link", target }),
  };
}

function makeFolder(): Change {
  const path = freshPath();
  return {
    name: "mkdir",
    paths: [path],
    call: () => Deno.mkdirSync(`${home}/${path}`),
    apply: (tree) => tree.set(path, { kind: "folder" }),
  };
}

/** The next change; null when the one that was drawn makes no sense now. */
function next(): Change | null {
  const files = paths("file"), folders = paths("folder"), links = paths("link");
  const isFull = files.length >= filesMax || storedBytes() > bytesMax;
  const kind = random.below(20);
  if (isFull && kind < 10) return removeChange(pick(files));
  if (kind < 6) return writeChange(freshPath(), fresh(freshLength()));
  if (kind === 6 && folders.length < foldersMax) return makeFolder();
  if (kind === 7 && links.length < foldersMax) return symlinkChange();
  if (kind === 8 && links.length > 0) return removeChange(pick(links));
  if (kind === 9 && folders.length > 0) return moveFolder(pick(folders));
  if (kind === 10 && folders.length > 0) {
    const empty = folders.filter((path) => ![...tree.keys()].some((inner) => inner.startsWith(`${path}/`)));
    return empty.length > 0 ? removeChange(pick(empty)) : null;
  }
  if (files.length === 0) return null;
  const path = pick(files);
  if (kind < 12) return writeChange(path, fresh(freshLength()));
  if (kind === 12) return appendChange(path);
  if (kind === 13) return overwriteChange(path);
  if (kind === 14) return truncateChange(path);
  if (kind < 17) return moveFile(path);
  if (kind === 17) return linkChange(path);
  return removeChange(path);
}

/** What is at `path` under `base`, undefined when nothing is. */
function look(base: string, path: string): Entry | undefined {
  let info: Deno.FileInfo;
  try {
    info = Deno.lstatSync(`${base}/${path}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  if (info.isDirectory) return { kind: "folder" };
  if (info.isSymlink) return { kind: "link", target: Deno.readLinkSync(`${base}/${path}`) };
  const content = Deno.readFileSync(`${base}/${path}`);
  if (content.length !== info.size) throw new Error(`${path}: size ${info.size}, but ${content.length} bytes`);
  return { kind: "file", content };
}

/** Why `actual` is not `expected`; undefined when it is. */
function difference(expected: Entry | undefined, actual: Entry | undefined): string | undefined {
  if (expected?.kind !== actual?.kind) return `is ${actual?.kind ?? "absent"}, not ${expected?.kind ?? "absent"}`;
  if (expected?.kind === "link" && actual?.kind === "link" && expected.target !== actual.target) {
    return `leads to ${actual.target}, not ${expected.target}`;
  }
  if (expected?.kind !== "file" || actual?.kind !== "file" || same(expected.content, actual.content)) return undefined;
  const { content } = actual;
  const at = expected.content.findIndex((byte, index) => byte !== content[index]);
  return `has ${content.length} bytes instead of ${expected.content.length}, different from byte ${
    at < 0 ? expected.content.length : at
  } on`;
}

function clone(tree: Tree): Tree {
  const copies = new Map<Entry, Entry>();
  return new Map([...tree].map(([path, entry]) => {
    let copy = copies.get(entry);
    if (copy === undefined) copies.set(entry, copy = { ...entry });
    return [path, copy];
  }));
}

function isMounted(): boolean {
  const lines = Deno.readTextFileSync("/proc/self/mountinfo").split("\n");
  return lines.some((line) => line.split(" ")[4] === mount);
}

function outagesNow(): number {
  try {
    return Number(Deno.readTextFileSync(`${control}/outages`));
  } catch {
    return 0;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

/** Waits for the mount if its daemon was killed since we looked; false when it was not: the error is a real one. */
async function outage(): Promise<boolean> {
  const now = outagesNow();
  if (now === outagesSeen) return false;
  const limit = performance.now() + outageMsMax;
  for (;;) {
    try {
      if (isMounted()) Deno.statSync(home);
      if (isMounted()) break;
    } catch { // Not yet.
    }
    if (performance.now() > limit) throw new Error(`${mount} did not come back`);
    await sleep(pauseMs);
  }
  outagesSeen = now;
  await sleep(lateMs);
  // What is open died with the daemon.
  try {
    longOpen?.close();
  } catch { // Its flush cannot be answered.
  }
  longOpen = null;
  return true;
}

/** After an outage: whether a change happened, and the tree by that. */
function settle(change: Change): void {
  const after = clone(tree);
  change.apply(after);
  const actual = change.paths.map((path) => look(home, path));
  const differs = (expected: Tree) =>
    change.paths.map((path, index) => difference(expected.get(path), actual[index])).find((text) => text !== undefined);
  const notBefore = differs(tree);
  if (notBefore === undefined) return;
  const notAfter = differs(after);
  if (notAfter === undefined) {
    tree = after;
    return;
  }
  const [now] = actual;
  if (change.partial !== undefined && now?.kind === "file" && change.partial(now.content)) {
    const known = tree.get(change.paths[0]);
    if (known?.kind === "file") known.content = now.content;
    else tree.set(change.paths[0], now);
    return;
  }
  throw new Error(`${change.name} ${change.paths.join(" ")}, cut off: ${notBefore}; ${notAfter}`);
}

/** Runs a change; the tree is what was acknowledged. */
async function run(change: Change): Promise<void> {
  try {
    change.call();
    change.apply(tree);
    return;
  } catch (error) {
    if (!(await outage())) throw new Error(`${change.name} ${change.paths.join(" ")}: ${error}`);
  }
  for (let tries = 0; tries < settlesMax; tries++) {
    try {
      return settle(change);
    } catch (error) {
      if (!(await outage())) throw error;
    }
  }
  throw new Error("too many outages");
}

/** Compares one thing with what is known of it. */
function check(base: string, path: string): void {
  const different = difference(tree.get(path), look(base, path));
  if (different !== undefined) throw new Error(`${base}/${path} ${different}`);
}

/** A look at something in between, through either mount. */
async function glance(): Promise<void> {
  const known = [...tree.keys()];
  if (known.length === 0) return;
  const path = pick(known);
  try {
    check(chance(2) ? home : `${other}/work`, path);
  } catch (error) {
    if (!(await outage())) throw error;
  }
}

/** A file that is open for long, appended to, and unlinked: it must outlive every server. */
class LongOpen {
  #file: Deno.FsFile;
  #content: Uint8Array = new Uint8Array(0);

  constructor() {
    const path = `${home}/open${++serial}`;
    this.#file = Deno.openSync(path, { read: true, write: true, createNew: true });
    Deno.removeSync(path);
  }

  /** Writes some more and reads everything. */
  use(): void {
    const more = fresh(random.below(3000));
    this.#file.seekSync(this.#content.length, Deno.SeekMode.Start);
    for (let done = 0; done < more.length;) done += this.#file.writeSync(more.subarray(done));
    this.#content = join(this.#content, more);
    this.#file.seekSync(0, Deno.SeekMode.Start);
    const bytes = new Uint8Array(this.#content.length + 1);
    let length = 0;
    for (let count = 1; count > 0; length += count) count = this.#file.readSync(bytes.subarray(length)) ?? 0;
    if (!same(bytes.subarray(0, length), this.#content)) throw new Error("an unlinked open file has other content");
  }

  close(): void {
    this.#file.close();
  }
}

async function useLongOpen(): Promise<void> {
  try {
    if (longOpen === null) longOpen = new LongOpen();
    else if (chance(10)) {
      longOpen.close();
      longOpen = null;
    } else longOpen.use();
  } catch (error) {
    if (!(await outage())) throw new Error(`unlinked open file: ${error}`);
  }
}

function walk(base: string, path: string, found: string[]): string[] {
  for (const { name, isDirectory } of Deno.readDirSync(`${base}/${path}`)) {
    const inner = path === "" ? name : `${path}/${name}`;
    found.push(inner);
    if (isDirectory) walk(base, inner, found);
  }
  return found;
}

/** The whole tree as seen through `base` is what was acknowledged. */
function checkAll(base: string): void {
  // A file that was made to be unlinked may be left where an outage came between.
  const found = walk(base, "", []).filter((path) => !/^open\d+$/.test(path));
  const unknown = found.filter((path) => !tree.has(path));
  const lost = [...tree.keys()].filter((path) => !found.includes(path));
  if (unknown.length + lost.length > 0) throw new Error(`unknown: ${unknown.join(" ")}; lost: ${lost.join(" ")}`);
  for (const path of tree.keys()) check(base, path);
  for (const [path, entry] of tree) {
    if (entry.kind !== "file") continue;
    const names = [...tree.values()].filter((one) => one === entry).length;
    const { nlink } = Deno.lstatSync(`${base}/${path}`);
    if (nlink !== names) throw new Error(`${path}: ${nlink} links instead of ${names}`);
  }
}

function isStopped(): boolean {
  try {
    Deno.statSync(`${control}/stop`);
    return true;
  } catch {
    return false;
  }
}

outagesSeen = outagesNow();
Deno.mkdirSync(home);
while (!isStopped()) {
  const change = next();
  if (change !== null) await run(change);
  if (chance(4)) await glance();
  if (chance(15)) await useLongOpen();
  operations++;
  Deno.writeTextFileSync(`${control}/operations`, String(operations));
}
(longOpen as LongOpen | null)?.close();
checkAll(`${other}/work`);
checkAll(home);
console.log(JSON.stringify({ operations, entries: tree.size, bytes: storedBytes() }));
