/**
 * `phase.ts FOLDER PHASE FILES`: one phase of work on small files by one process with plain system calls, waiting for a
 * line on stdin before each round. A round does it for FILES files and prints the milliseconds that it took.
 *
 * @module
 */

import { errno, errnoText, O } from "../ffi/libc.ts";

/** Phases in the order in which they make sense. */
export const phases = ["create", "stat", "read", "unlink"] as const;
/** create: open(O_CREAT | O_EXCL), write 4 KiB, close. stat: by path. read: open, read 4 KiB, close. unlink. */
export type Phase = typeof phases[number];

const fileBytes = 4096;
const statBytes = 144;

const calls = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "u64"], result: "i32" },
  write: { parameters: ["i32", "buffer", "u64"], result: "i32" },
  stat: { parameters: ["buffer", "buffer"], result: "i32" },
  unlink: { parameters: ["buffer"], result: "i32" },
}).symbols;

function must(what: string, value: number, expected = value): number {
  if (value < 0) throw new Error(`${what}: ${errnoText(errno())}`);
  if (value !== expected) throw new Error(`${what}: ${value} of ${expected} bytes`);
  return value;
}

const bytes = new Uint8Array(fileBytes).fill(77), length = BigInt(fileBytes), stat = new Uint8Array(statBytes);

const work: Record<Phase, (path: Uint8Array<ArrayBuffer>) => void> = {
  create(path) {
    const fd = must("create", calls.open(path, O.WRONLY | O.CREAT | O.EXCL | O.CLOEXEC, 0o644));
    must("write", calls.write(fd, bytes, length), fileBytes);
    must("close", calls.close(fd));
  },
  stat(path) {
    must("stat", calls.stat(path, stat));
  },
  read(path) {
    const fd = must("open", calls.open(path, O.RDONLY | O.CLOEXEC, 0));
    must("read", calls.read(fd, bytes, length), fileBytes);
    must("close", calls.close(fd));
  },
  unlink(path) {
    must("unlink", calls.unlink(path));
  },
};

if (import.meta.main) {
  const [folder, files] = Deno.args, encoder = new TextEncoder(), line = new Uint8Array(64);
  const paths = Array.from({ length: Number(files) }, (_, number) => encoder.encode(`${folder}/file.${number}\0`));
  for (;;) {
    const read = Deno.stdin.readSync(line);
    if (read === null) break;
    const phase = new TextDecoder().decode(line.subarray(0, read)).trim() as Phase;
    const start = performance.now();
    for (const path of paths) work[phase](path);
    console.log(performance.now() - start);
  }
}
