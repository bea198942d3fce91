/**
 * What FUSE itself costs: fstat of an open file on a file system in memory, served by a reactor without any kernel
 * caching, against bindfs (libfuse, in C) without caching and the local disk. Needs root and /dev/fuse, and bindfs for the
 * comparison; without them there is nothing to measure.
 *
 * @module
 */

import { cleanDeadMount, isMounted, unmount } from "../ffi/fuse/mount.ts";
import { closeFd, cstr, errno, errnoText, libc, O } from "../ffi/libc.ts";
import { installed, serve } from "../tests/ffi/fuse_mounted.ts";

const statBytes = 144;
const waitMs = 20;

const { fstat } = Deno.dlopen("libc.so.6", { fstat: { parameters: ["i32", "buffer"], result: "i32" } }).symbols;
const stat = new Uint8Array(statBytes);
const files: number[] = [];

function fstats(path: string): () => void {
  const fd = libc.open(cstr(path), O.RDWR | O.CREAT | O.CLOEXEC, 0o644);
  if (fd < 0) throw new Error(`cannot open ${path}: ${errnoText(errno())}`);
  files.push(fd);
  return () => {
    if (fstat(fd, stat) < 0) throw new Error(errnoText(errno()));
  };
}

const folder = Deno.makeTempDirSync({ prefix: "sealfs-bench-" });
const mounts = [`${folder}/sealfs`, `${folder}/bindfs`];
for (const path of [...mounts, `${folder}/disk`]) Deno.mkdirSync(path);
addEventListener("unload", () => {
  // While there is somebody to answer: the end of a process closes files after its threads are gone.
  files.forEach(closeFd);
  for (const path of mounts) {
    if (isMounted(path)) unmount(path, { lazy: true });
    cleanDeadMount(path);
  }
  Deno.removeSync(folder, { recursive: true });
});

async function bindfs(path: string): Promise<void> {
  const options = "attr_timeout=0,entry_timeout=0";
  const args = ["-f", "-o", options, `${folder}/disk`, path];
  new Deno.Command("bindfs", { args, stdin: "null" }).spawn().unref();
  while (!isMounted(path)) await new Promise((done) => setTimeout(done, waitMs));
}

const able = Deno.uid() === 0 && (await Deno.stat("/dev/fuse").catch(() => null)) !== null;
const group = "fstat";
if (able) {
  await serve(mounts[0], {});
  Deno.bench("sealfs's FUSE layer", { group, baseline: true }, fstats(`${mounts[0]}/file`));
}
if (able && installed("bindfs")) {
  await bindfs(mounts[1]);
  Deno.bench("bindfs, no caching", { group }, fstats(`${mounts[1]}/file`));
}
Deno.bench("local disk", { group, baseline: !able }, fstats(`${folder}/disk/file`));
