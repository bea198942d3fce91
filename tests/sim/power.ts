/**
 * Power cuts: clients write and fsync files, then every server loses its power at once, and again. Whatever an fsync
 * acknowledged must be there afterwards: the file under its name (or the name that a later rename gave it), with the
 * contents of the fsync or of a later write. Names and data that were never synced may be gone, but not half.
 *
 * @module
 */

import type { FileSystem } from "../../core/client/filesystem.ts";
import { E, failed } from "../../core/errno.ts";
import { S } from "../../core/meta/attributes.ts";
import { type Task, wait } from "../../core/task.ts";
import { Cluster } from "./cluster.ts";
import { check } from "./fsck.ts";
import { chunkBytes, patternByte } from "./model.ts";
import { Random } from "./random.ts";
import { SimulationError, World } from "./world.ts";

const user = { uid: 1000, gid: 1000, pid: 1, umask: 0 };
const clients = 3;
const filesMax = 6;
const megabyte = 1 << 20;
/** After this time without work everything is in the image. */
const checkpointMsMax = 2000;
const encoder = new TextEncoder();

/**
 * What a cut may leave of changes that nobody synced: a file's blocks are counted on other servers than they lie on, and
 * chunks may be synced before the inode that they belong to. Space, no contents: the check command gives it back.
 */
const mayFollowCut = [/blocks of 512 bytes/, /^\d+ chunks with \d+ bytes of inode \d+, which does not exist$/];

/** A part of a file that is always written whole: within one chunk, so that it is one version or another. */
interface Part {
  offset: number;
  length: number;
  /** Tags of the writes since the last fsync, that one's first; one of them is there after a power cut. */
  tags: number[];
  /** The last of them that was answered. */
  answered: number;
  /** One writer at a time, so that the order is known. */
  busy: boolean;
}

interface File {
  inode: number;
  /** Where it may be: the place at the last fsync first, then where renames since took it. */
  places: { dir: number; name: string }[];
  /** Where it is while nothing is lost. */
  place: { dir: number; name: string };
  parts: Part[];
  synced: boolean;
  /** One rename at a time. */
  moving: boolean;
}

/** Where data of different fates begins. */
const partPlaces = [
  { offset: 0, length: 1000 },
  { offset: 8192, length: 6000 },
  { offset: chunkBytes, length: 5000 },
  { offset: 2 * chunkBytes + 100, length: 100 },
];

/** What a run was. */
export interface PowerOutcome {
  syncs: number;
  cuts: number;
  checked: number;
}

/** Runs a seed. `mixed`: directories are made and files renamed as well. Throws {@linkcode SimulationError}. */
export function simulatePower(
  seed: number,
  mixed: boolean,
  onTrace: ((line: string) => void) | null = null,
): PowerOutcome {
  const world = new World(seed);
  world.onTrace = onTrace;
  const run = new PowerRun(world, new Random(seed, "power"), mixed);
  try {
    run.play();
  } catch (error) {
    if (error instanceof SimulationError) throw error;
    throw new SimulationError(`${error instanceof Error ? error.stack : error}`, seed, world.nowMs, error);
  }
  return run.outcome;
}

class PowerRun {
  readonly outcome: PowerOutcome = { syncs: 0, cuts: 0, checked: 0 };
  readonly #cluster: Cluster;
  readonly #files: File[][] = Array.from({ length: clients }, () => []);
  /** Directories known to be durable with a file in them, by client. */
  readonly #dirs: number[][] = Array.from({ length: clients }, () => []);
  #tag = 0;
  #names = 0;
  #stopped = false;

  constructor(readonly world: World, readonly random: Random, readonly mixed: boolean) {
    this.#cluster = new Cluster(world, {
      servers: 3,
      stores: random.pick([1, 1, 2]),
      clients,
      shards: random.pick([4, 12]),
      volumeBytes: 256 * megabyte,
      ioTimeoutMs: 60_000,
      callTimeoutMs: 1_000,
      limits: {
        segmentBytes: megabyte,
        logBytesMax: 8 * megabyte,
        checkpointMs: random.pick([50, 1000]),
        growBlocks: 4096,
      },
    });
    const kept = random.pick([0, 0.5, 0.9]);
    for (const server of this.#cluster.servers) for (const media of server.media) media.faults.unsyncedKept = kept;
  }

  play(): void {
    const { world, random } = this, cluster = this.#cluster;
    cluster.boot();
    if (!this.mixed) this.#prepare();
    for (let cut = 0; cut < 3; cut++) {
      this.#stopped = false;
      const working = [0, 1].flatMap(() =>
        cluster.clients.map((client, index) => client.nodes[0].spawn(this.#work(index)))
      );
      world.pass(random.between(20, 400));
      this.#stopped = true;
      for (const server of cluster.servers) server.cutPower();
      this.outcome.cuts++;
      world.pass(random.between(1, 100));
      for (const server of cluster.servers) server.start();
      world.run(() => working.every((one) => one.settled), 300_000, "the clients to go on");
      cluster.quiet();
      // The counters in the image are of the last checkpoint.
      world.pass(checkpointMsMax);
      const { nodes } = cluster.clients[0];
      const verified = nodes[0].spawn(this.#verify(cluster.clients[0].fs!));
      world.run(() => verified.settled, 60_000, "the files to be read");
      const problems = check(cluster.servers.flatMap((server) => server.stored()), cluster.control.manager!.map())
        .filter((problem) => !mayFollowCut.some((pattern) => pattern.test(problem)));
      if (problems.length > 0) throw new Error(`the stores are damaged:\n${problems.join("\n")}`);
    }
  }

  /** Directories that are whole before the first cut. */
  #prepare(): void {
    const { world } = this, client = this.#cluster.clients[0];
    const made = client.nodes[0].spawn((function* (this: PowerRun): Task<void> {
      for (let i = 0; i < 6; i++) yield* this.#makeDirectory(client.fs!, this.#dirs[0]);
    }).call(this));
    world.run(() => made.settled, 60_000, "the directories to be made");
    for (const dirs of this.#dirs.slice(1)) dirs.push(...this.#dirs[0]);
    this.#cluster.quiet();
    world.pass(5000);
  }

  *#work(client: number): Task<void> {
    const fs = this.#cluster.clients[client].fs!, node = this.#cluster.clients[client].nodes[0], { random } = this;
    const files = this.#files[client], dirs = this.#dirs[client];
    while (!this.#stopped) {
      yield* wait(node.sleep(3 * random.fraction()));
      if (this.#stopped) return;
      const file = files.length > 0 ? random.pick(files) : null;
      const names = this.mixed ? 1 : 0;
      const what = random.weighted({ mkdir: names, create: 3, write: 8, sync: 5, rename: 2 * names });
      if (what === "mkdir") yield* this.#makeDirectory(fs, dirs);
      else if (what === "create" && files.length < filesMax) yield* this.#create(fs, files, dirs);
      else if (file === null) continue;
      else if (what === "write") yield* this.#write(fs, file);
      else if (what === "sync") yield* this.#sync(fs, file);
      else if (what === "rename") yield* this.#rename(fs, file, dirs);
    }
  }

  #pickDir(fs: FileSystem, dirs: readonly number[]): number {
    return dirs.length === 0 ? fs.root : this.random.pick(dirs);
  }

  *#makeDirectory(fs: FileSystem, dirs: number[]): Task<void> {
    const parent = this.#pickDir(fs, dirs);
    const made = yield* fs.makeDirectory(parent, encoder.encode(`d${++this.#names}`), 0o755, user);
    if (!failed(made) && !this.#stopped) dirs.push(made.inode);
  }

  *#create(fs: FileSystem, files: File[], dirs: readonly number[]): Task<void> {
    const place = { dir: this.#pickDir(fs, dirs), name: `f${++this.#names}` };
    const options = { mode: S.IFREG | 0o644, exclusive: true, open: true };
    const made = yield* fs.create(place.dir, encoder.encode(place.name), options, user);
    if (failed(made)) return;
    const parts = partPlaces.map((part) => ({ ...part, tags: [0], answered: 0, busy: false }));
    files.push({ inode: made.inode, places: [place], place, parts, synced: false, moving: false });
  }

  *#write(fs: FileSystem, file: File): Task<void> {
    const part = this.random.pick(file.parts), tag = ++this.#tag;
    if (part.busy) return;
    part.busy = true;
    const data = Uint8Array.from({ length: part.length }, (_, at) => patternByte(tag, at));
    // From here on it may be there, answered or not.
    part.tags.push(tag);
    const written = yield* fs.write(file.inode, part.offset, data, { killSetId: false });
    if (!failed(written)) part.answered = tag;
    part.busy = false;
  }

  *#sync(fs: FileSystem, file: File): Task<void> {
    const marks = file.parts.map((part) => part.answered), { place } = file;
    const synced = yield* fs.sync(file.inode);
    // One that was asked again after the cut says nothing of what was written before it.
    if (failed(synced) || this.#stopped) return;
    this.outcome.syncs++;
    file.parts.forEach((part, i) => part.tags.splice(0, Math.max(0, part.tags.indexOf(marks[i]))));
    file.places.splice(0, Math.max(0, file.places.indexOf(place)));
    file.synced = true;
  }

  *#rename(fs: FileSystem, file: File, dirs: readonly number[]): Task<void> {
    if (file.moving) return;
    file.moving = true;
    const { place } = file, to = { dir: this.#pickDir(fs, dirs), name: `f${++this.#names}` };
    file.places.push(to);
    const moved = yield* fs.rename(place.dir, encoder.encode(place.name), to.dir, encoder.encode(to.name), 0);
    if (!failed(moved)) file.place = to;
    file.moving = false;
  }

  /** What was synced must be there; the rest is forgotten. */
  *#verify(fs: FileSystem): Task<void> {
    for (const files of this.#files) {
      for (const file of files) if (file.synced) yield* this.#verifyFile(fs, file);
      files.length = 0;
    }
    // Directories that are gone are no place for new files.
    for (const dirs of this.#dirs) {
      const kept: number[] = [];
      for (const dir of dirs) if (!failed(yield* fs.getAttributes(dir))) kept.push(dir);
      dirs.splice(0, dirs.length, ...kept);
    }
  }

  *#verifyFile(fs: FileSystem, file: File): Task<void> {
    const found = yield* fs.getAttributes(file.inode);
    if (failed(found)) throw new Error(`inode ${file.inode} was synced and is gone (errno ${found})`);
    const names: string[] = [];
    for (const { dir, name } of file.places) {
      const there = yield* fs.lookup(dir, encoder.encode(name));
      if (!failed(there) && there.inode === file.inode) names.push(`${dir}/${name}`);
      else if (failed(there) && there !== E.NOENT && there !== E.STALE) throw new Error(`lookup: errno ${there}`);
    }
    if (names.length !== 1) {
      const places = file.places.map(({ dir, name }) => `${dir}/${name}`).join(", ");
      throw new Error(`inode ${file.inode} was synced and has ${names.length} of the names ${places}`);
    }
    for (const part of file.parts) yield* this.#verifyPart(fs, file, part);
    this.outcome.checked++;
  }

  *#verifyPart(fs: FileSystem, file: File, part: Part): Task<void> {
    const into = new Uint8Array(part.length).fill(0xee);
    const read = yield* fs.read(file.inode, part.offset, into);
    if (failed(read)) throw new Error(`inode ${file.inode} at ${part.offset}: errno ${read}`);
    into.fill(0, read.count);
    const fits = (tag: number) => into.every((byte, at) => byte === (tag === 0 ? 0 : patternByte(tag, at)));
    if (part.tags.some(fits)) return;
    throw new Error(
      `inode ${file.inode} at ${part.offset}: none of the writes ${part.tags} is there, but ${
        into.subarray(0, 8)
      } (${read.count} bytes)`,
    );
  }
}
