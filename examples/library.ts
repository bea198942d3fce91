/**
 * A volume used from a program, without a mount: writes a small tree, reads it back by another connection, which sees it
 * at once, and removes it.
 *
 *     deno run -A examples/library.ts [VOLUME]
 *
 * The manager is the one at SEALFS_MANAGER_ADDRESS, else at 127.0.0.1:8081; `sealfs up` starts a cluster
 * on this machine. The volume (example unless named) is made if it is absent.
 *
 * @module
 */

import { type Cluster, connect, type Volume } from "../mod.ts";

const files = 200;

/** Connects to the volume, which is made if it is absent. */
async function openVolume(cluster: Cluster, name: string): Promise<Volume> {
  try {
    await cluster.createVolume(name, { sizeBytes: 1 << 30 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  return await cluster.open(name);
}

/** Paths of all files below a folder. */
async function* walk(volume: Volume, folder: string): AsyncGenerator<string> {
  for await (const entry of volume.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) yield* walk(volume, path);
    else yield path;
  }
}

const name = Deno.args[0] ?? "example";
await using cluster = await connect();
await using writer = await openVolume(cluster, name);
const folder = `/library-example-${crypto.randomUUID()}`;

// Operations that do not depend on each other go on side by side.
await Promise.all(Array.from({ length: files }, async (_, i) => {
  const day = `${folder}/day-${i % 7}`;
  await writer.mkdir(day, { recursive: true });
  await writer.writeTextFile(`${day}/note-${i}.txt`, `note ${i}\n`);
}));
await writer.symlink("day-0", `${folder}/today`);

// A file that others must never see in part is written aside and renamed.
await writer.writeTextFile(`${folder}/index.tmp`, `${files} notes\n`);
await writer.rename(`${folder}/index.tmp`, `${folder}/index`);

// A log: each record goes to the end in one piece, whoever else appends; sync survives power loss.
{
  await using log = await writer.open(`${folder}/log`, { append: true, create: true });
  await log.write(new TextEncoder().encode("written\n"));
  await log.sync();
}

await using other = await connect();
await using reader = await other.open(name, { readOnly: true });
let bytes = 0, found = 0;
for await (const path of walk(reader, folder)) {
  const { size, isSymlink } = await reader.lstat(path);
  if (isSymlink) continue;
  bytes += size;
  found++;
}
console.log(`${found} files, ${bytes} bytes in ${folder} of volume ${name}`);
console.log("index says:", (await reader.readTextFile(`${folder}/index`)).trim());
console.log("today is:", await reader.realPath(`${folder}/today`));

await writer.remove(folder, { recursive: true });
console.log("removed:", !(await reader.exists(folder)));
