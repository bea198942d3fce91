/**
 * Runs first inside an executable whose base is the shim of `denort_shim.ts`: finds the program that `deno compile`
 * appended, unpacks it once into the user's cache folder and imports it.
 *
 * Any number of processes may start at the same moment for the first time: one unpacks, into a folder that gets its
 * name when it is whole, and the others wait. A process holds a shared lock on the version it runs, so a newer
 * executable removes only versions that nobody uses. Nothing is read from a folder that somebody else could write to.
 *
 * @module
 */
// @ts-check
(async () => {
  const decoder = new TextDecoder();
  // Not execPath(): that name may point at another file by now, or at none.
  const image = Deno.openSync("/proc/self/exe");

  /** @param {string} message @returns {never} */
  function fail(message) {
    console.error(`sealfs: ${message}`);
    Deno.exit(1);
  }

  /** @param {number} offset @param {number} length */
  function readAt(offset, length) {
    const bytes = new Uint8Array(length);
    image.seekSync(offset, Deno.SeekMode.Start);
    for (let have = 0; have < length;) {
      const count = image.readSync(bytes.subarray(have));
      if (count === null) return fail(`${Deno.execPath()} is cut short`);
      have += count;
    }
    return bytes;
  }

  /** @param {number} offset */
  function uint32At(offset) {
    return new DataView(readAt(offset, 4).buffer).getUint32(0, true);
  }

  /** @param {number} offset */
  function uint64At(offset) {
    return Number(new DataView(readAt(offset, 8).buffer).getBigUint64(0, true));
  }

  /** Where Deno's program starts: in an ELF note named SUI, behind its name and the magic word, which are the same. */
  function findProgram() {
    const magic = "d3n0l4ndd3n0l4nd", noteType = 4, headerBytes = 56;
    const head = new DataView(readAt(0, 64).buffer);
    const count = head.getUint16(56, true);
    const headers = new DataView(readAt(Number(head.getBigUint64(32, true)), count * headerBytes).buffer);
    for (let index = 0; index < count; index++) {
      if (headers.getUint32(index * headerBytes, true) !== noteType) continue;
      const offset = Number(headers.getBigUint64(index * headerBytes + 8, true));
      const start = String.fromCharCode(...readAt(offset, 64));
      const at = start.indexOf(magic);
      if (start.startsWith("SUI", 12) && at > 0) return offset + at + magic.length;
    }
    return fail(`${Deno.execPath()} holds no program`);
  }

  /**
   * Reads the index of the program: metadata, npm snapshot, specifiers, redirects and remote modules (none in a
   * bundled program) come before the files. Lengths are u64 before texts, u32 counts before lists.
   */
  function readProgram() {
    let at = findProgram();
    const skipText = () => {
      const length = uint64At(at);
      const start = at + 8;
      at = start + length;
      return { start, length };
    };
    const text = skipText();
    const metadata = JSON.parse(decoder.decode(readAt(text.start, text.length)));
    skipText();
    const specifiers = uint32At(at);
    at += 4;
    for (let index = 0; index < specifiers; index++) at += 4 + uint32At(at) + 4;
    at += 4 + uint32At(at) * 8;
    if (uint32At(at) !== 0) fail(`${Deno.execPath()} holds remote modules, which this base cannot run`);
    at += 4;
    const files = skipText();
    const tree = JSON.parse(decoder.decode(readAt(files.start, files.length)));
    return {
      entry: metadata.entrypoint_key,
      hash: String(metadata.self_extracting?.hash ?? metadata.self_extracting),
      tree,
      dataOffset: at + 8,
    };
  }

  /** The folder for unpacked versions: private to the user, or refused. */
  function cacheFolder() {
    const uid = Deno.uid();
    const set = Deno.env.get("XDG_CACHE_HOME");
    let parent = set?.startsWith("/") ? set : uid === 0 ? "/var/cache" : undefined;
    if (parent === undefined) {
      const line = () =>
        Deno.readTextFileSync("/etc/passwd").split("\n").find((line) => line.split(":")[2] === `${uid}`);
      const home = Deno.env.get("HOME") || line()?.split(":")[5];
      if (!home?.startsWith("/")) return fail("no place to unpack to: set HOME or XDG_CACHE_HOME to a folder of yours");
      parent = `${home}/.cache`;
    }
    const folder = `${parent}/sealfs`;
    try {
      Deno.mkdirSync(parent, { recursive: true });
      makeFolder(folder);
    } catch (error) {
      return fail(`cannot make ${folder}: ${error instanceof Error ? error.message : error}; set XDG_CACHE_HOME`);
    }
    const info = Deno.lstatSync(folder);
    const mode = (info.mode ?? 0) & 0o777;
    if (info.isDirectory && info.uid === uid && (mode & 0o077) === 0) return folder;
    return fail(
      `will not run from ${folder}: it must be a folder owned by uid ${uid} with mode 0700, and is ` +
        `${info.isDirectory ? "a folder" : "no folder"} owned by uid ${info.uid} with mode 0${mode.toString(8)}; ` +
        "remove it, or set XDG_CACHE_HOME to a folder of yours",
    );
  }

  /** @param {string} path */
  function makeFolder(path) {
    try {
      Deno.mkdirSync(path, { mode: 0o700 });
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
  }

  /**
   * Calls `visit` for every file of the program.
   * @param {any} tree
   * @param {string} folder
   * @param {(path: string, file: { o: [number, number] }) => void} onFile
   * @param {(path: string) => void} onFolder
   */
  function walk(tree, folder, onFile, onFolder) {
    onFolder(folder);
    for (const entry of tree) {
      if (entry.Dir) walk(entry.Dir.e, `${folder}/${entry.Dir.n}`, onFile, onFolder);
      else if (entry.File) onFile(`${folder}/${entry.File.n}`, entry.File);
    }
  }

  /** @param {string} folder @param {ReturnType<typeof readProgram>} program */
  function isWhole(folder, program) {
    let whole = true;
    walk(program.tree, folder, (path, file) => {
      try {
        whole &&= Deno.statSync(path).size === file.o[1];
      } catch {
        whole = false;
      }
    }, () => {});
    return whole;
  }

  /** @param {string} folder @param {ReturnType<typeof readProgram>} program */
  function unpack(folder, program) {
    walk(program.tree, folder, (path, file) => {
      const out = Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
      const bytes = readAt(program.dataOffset + file.o[0], file.o[1]);
      for (let done = 0; done < bytes.length;) done += out.writeSync(bytes.subarray(done));
      // Without it a power cut could leave the name with empty files behind it.
      out.syncSync();
      out.close();
    }, makeFolder);
  }

  /**
   * Takes the shared lock of an unpacked version; undefined when it is not there, not whole, or went away meanwhile.
   * @param {string} folder @param {ReturnType<typeof readProgram>} program
   */
  function hold(folder, program) {
    let lock;
    try {
      lock = Deno.openSync(`${folder}/.lock`);
      lock.lockSync(false);
      if (lock.statSync().ino === Deno.statSync(`${folder}/.lock`).ino && isWhole(folder, program)) return lock;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    lock?.close();
    return undefined;
  }

  /**
   * Removes what no process uses: other versions whose lock is free, and (their names begin with a dot) folders that an
   * unpacking process left unfinished.
   * @param {string} cache
   */
  function removeUnused(cache) {
    for (const entry of Deno.readDirSync(cache)) {
      if (!entry.isDirectory) continue;
      const folder = `${cache}/${entry.name}`;
      try {
        const lock = entry.name.startsWith(".") ? undefined : Deno.openSync(`${folder}/.lock`);
        if (lock === undefined || lock.tryLockSync(true)) Deno.removeSync(folder, { recursive: true });
        lock?.close();
      } catch { // It costs some space until the next time.
      }
    }
  }

  /**
   * Unpacks, one process at a time, and holds the result.
   * @param {string} cache @param {ReturnType<typeof readProgram>} program
   */
  function unpackAndHold(cache, program) {
    const folder = `${cache}/${program.hash}`;
    const made = `${cache}/.${program.hash}`;
    const turn = Deno.openSync(`${cache}/.unpack`, { create: true, write: true, mode: 0o600 });
    turn.lockSync(true);
    let held = hold(folder, program);
    if (held === undefined) {
      removeUnused(cache);
      makeFolder(made);
      Deno.writeFileSync(`${made}/.lock`, new Uint8Array(), { mode: 0o600 });
      unpack(made, program);
      try {
        Deno.renameSync(made, folder);
      } catch { // A damaged version that a process still holds: it makes way.
        Deno.renameSync(folder, `${cache}/.damaged.${crypto.randomUUID()}`);
        Deno.renameSync(made, folder);
      }
      held = hold(folder, program);
    }
    turn.close();
    return held ?? fail(`cannot unpack to ${folder}`);
  }

  const program = readProgram();
  const cache = cacheFolder();
  let lock;
  try {
    lock = hold(`${cache}/${program.hash}`, program) ?? unpackAndHold(cache, program);
  } catch (error) {
    fail(`cannot unpack to ${cache}: ${error instanceof Error ? error.message : error}`);
  }
  image.close();
  // The file handle is the lock: it lives as long as the process.
  Object.assign(globalThis, { [Symbol.for("sealfs.lock")]: lock });
  await import(`file://${cache}/${program.hash}/${program.entry}`);
})();
