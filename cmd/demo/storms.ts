/**
 * What programs do to files besides writing them once: a database's random writes, and renames by two clients at once.
 *
 * @module
 */

import { join } from "@std/path";
import { fileEntry, folderEntry, forAll, Mismatch, timed, verifyTree, type Work } from "./tree.ts";

const pageBytes = 4096;
const databasePages = 2048;
const transactions = 60;
const pagesPerTransaction = 16;

/** Numbers that look random and are the same at every run (Numerical Recipes' generator). */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 4294967296 * below);
  };
}

/**
 * Works as SQLite with a rollback journal: each transaction saves old pages in a journal, syncs it, writes pages at
 * random places, syncs, and removes the journal. Returns the path of the file and what must be in it.
 */
export async function databaseWrites(root: string): Promise<{ work: Work; verify: (root: string) => Promise<Work> }> {
  const path = "database.db";
  const content = new Uint8Array(databasePages * pageBytes);
  const dice = random(7);
  const file = await Deno.open(join(root, path), { read: true, write: true, createNew: true });
  try {
    const writeAt = async (target: Deno.FsFile, bytes: Uint8Array, at: number) => {
      await target.seek(at, Deno.SeekMode.Start);
      for (let done = 0; done < bytes.length;) done += await target.write(bytes.subarray(done));
    };
    await writeAt(file, content, 0);
    const work = await timed(transactions * pagesPerTransaction, async () => {
      for (let n = 0; n < transactions; n++) {
        const pages = Array.from({ length: pagesPerTransaction }, () => dice(databasePages));
        const journal = await Deno.open(join(root, `${path}-journal`), { write: true, createNew: true });
        for (const [index, page] of pages.entries()) {
          await writeAt(journal, content.subarray(page * pageBytes, (page + 1) * pageBytes), index * pageBytes);
        }
        await journal.sync();
        journal.close();
        for (const page of pages) {
          const bytes = content.subarray(page * pageBytes, (page + 1) * pageBytes);
          for (let at = 0; at < pageBytes; at += 4) bytes[at] = dice(256);
          await writeAt(file, bytes, page * pageBytes);
        }
        await file.sync();
        await Deno.remove(join(root, `${path}-journal`));
      }
      return transactions * pagesPerTransaction * pageBytes * 2;
    });
    const entry = fileEntry(path, content, 0o644);
    return {
      work,
      verify: async (other) => {
        await Deno.chmod(join(root, path), 0o644);
        return await verifyTree([entry], other);
      },
    };
  } finally {
    file.close();
  }
}

const stormFolders = 8;
const stormFiles = 160;
const stormRenames = 1200;
const contested = 100;

/**
 * Two clients rename files among the same folders at the same time, each its own files, then both the same ones: of two
 * renames of one name exactly one may succeed. In the end every file is there once, with its contents.
 */
export async function renameStorm(a: string, b: string): Promise<{ work: Work; verified: Work }> {
  const folder = (n: number) => `storm/f${n}`;
  await Deno.mkdir(join(a, "storm"));
  for (let n = 0; n < stormFolders; n++) await Deno.mkdir(join(a, folder(n)));
  const places = Array.from({ length: stormFiles }, (_, n) => `${folder(n % stormFolders)}/n${n}`);
  await forAll(places, (path) => Deno.writeTextFile(join(a, path), path));
  const contents = [...places];
  const dice = random(11);
  const work = await timed(stormRenames, async () => {
    const client = async (root: string, remainder: number) => {
      for (let n = 0; n < stormRenames / 2; n++) {
        const file = dice(stormFiles / 2) * 2 + remainder;
        const to = `${folder(dice(stormFolders))}/r${file}-${n}`;
        await Deno.rename(join(root, places[file]), join(root, to));
        places[file] = to;
      }
    };
    await Promise.all([client(a, 0), client(b, 1)]);
    return 0;
  });
  for (let n = 0; n < contested; n++) {
    const from = places[n], targets = [`${folder(n % stormFolders)}/a${n}`, `${folder((n + 1) % stormFolders)}/b${n}`];
    const outcomes = await Promise.allSettled([
      Deno.rename(join(a, from), join(a, targets[0])),
      Deno.rename(join(b, from), join(b, targets[1])),
    ]);
    const won = outcomes.map((outcome) => outcome.status === "fulfilled");
    const lost = outcomes.find((outcome) => outcome.status === "rejected");
    if (won[0] === won[1] || !(lost!.reason instanceof Deno.errors.NotFound)) {
      throw new Mismatch(`${from} was renamed ${won[0] ? "twice" : `never: ${lost!.reason}`}`);
    }
    places[n] = targets[won.indexOf(true)];
  }
  const encoder = new TextEncoder();
  const entries = [folderEntry("storm"), ...Array.from({ length: stormFolders }, (_, n) => folderEntry(folder(n)))];
  for (const [n, path] of places.entries()) entries.push(fileEntry(path, encoder.encode(contents[n])));
  return { work, verified: await verifyTree(entries, b) };
}
