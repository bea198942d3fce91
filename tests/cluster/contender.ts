/**
 * A program that several processes run against one file, through one mount or several:
 *
 * - `append FILE ID COUNT` appends COUNT records of {@linkcode recordBytes} bytes with O_APPEND, one write(2) each;
 * - `flock FILE ID COUNT` and `fcntl FILE ID COUNT` add 1 to the number in the file COUNT times, each under the lock;
 * - `hold flock|fcntl FILE` takes the lock, says so, and keeps it until it is killed;
 * - `take flock|fcntl FILE` takes the lock and gives it up, `try flock|fcntl FILE` says "free" or "taken" without waiting;
 * - `replace FILE ID COUNT` puts a new file in the place of FILE by rename, COUNT times, each with a record in it;
 * - `observe FILE ID COUNT` opens and reads FILE COUNT times: it is always there, with one whole record, and the records
 *   of a process never go back.
 *
 * Exit code 0 when every call did what it should.
 *
 * @module
 */

import { errnoText, LOCK, O } from "../../ffi/libc.ts";
import { fcntlLock, open, result, sys } from "../ffi/fuse_mounted.ts";

/** Length of a record of `append`, chosen to cross blocks and pages. */
export const recordBytes = 777;

const fcntlSet = 6, fcntlWait = 7, writeLock = 1, noLock = 2;
const numberBytes = 16;

/** The record that process `id` writes as its `number`-th: everything in it follows from both. */
export function record(id: number, number: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(recordBytes);
  const head = `${id}:${number}:`;
  const filler = 97 + (id * 7 + number) % 26;
  bytes.fill(filler);
  new TextEncoder().encodeInto(head, bytes);
  bytes[recordBytes - 1] = 10;
  return bytes;
}

function must(what: string, value: number): number {
  if (value < 0) throw new Error(`${what}: ${errnoText(value)}`);
  return value;
}

function append(path: string, id: number, count: number): void {
  const fd = must("open", open(path, O.WRONLY | O.APPEND | O.CREAT));
  for (let number = 0; number < count; number++) {
    const written = must("write", result(sys.write(fd, record(id, number), BigInt(recordBytes))));
    if (written !== recordBytes) throw new Error(`wrote ${written} of ${recordBytes} bytes`);
  }
  must("close", result(sys.close(fd)));
}

function lock(kind: string, fd: number): void {
  if (kind === "flock") must("flock", result(sys.flock(fd, LOCK.EX)));
  else must("fcntl", fcntlLock(fd, fcntlWait, writeLock, 0, 0).outcome);
}

function unlock(kind: string, fd: number): void {
  if (kind === "flock") must("flock", result(sys.flock(fd, LOCK.UN)));
  else must("fcntl", fcntlLock(fd, fcntlWait, noLock, 0, 0).outcome);
}

function count(kind: string, path: string, times: number): void {
  const fd = must("open", open(path, O.RDWR));
  const bytes = new Uint8Array(numberBytes);
  for (let time = 0; time < times; time++) {
    lock(kind, fd);
    const length = must("read", result(sys.pread64(fd, bytes, BigInt(numberBytes), 0n)));
    const number = Number(new TextDecoder().decode(bytes.subarray(0, length)));
    const next = new TextEncoder().encode(String(number + 1).padStart(numberBytes));
    must("write", result(sys.pwrite64(fd, next, BigInt(numberBytes), 0n)));
    unlock(kind, fd);
  }
  must("close", result(sys.close(fd)));
}

function hold(kind: string, path: string): void {
  const fd = must("open", open(path, O.RDWR));
  lock(kind, fd);
  console.log("held");
  setInterval(() => {}, 60_000);
}

function take(kind: string, path: string): void {
  const fd = must("open", open(path, O.RDWR));
  lock(kind, fd);
  unlock(kind, fd);
  must("close", result(sys.close(fd)));
}

function tryOnce(kind: string, path: string): void {
  const fd = must("open", open(path, O.RDWR)), again = -11;
  const outcome = kind === "flock"
    ? result(sys.flock(fd, LOCK.EX | LOCK.NB))
    : fcntlLock(fd, fcntlSet, writeLock, 0, 0).outcome;
  if (outcome !== again) must("lock", outcome);
  must("close", result(sys.close(fd)));
  console.log(outcome === again ? "taken" : "free");
}

function replace(path: string, id: number, count: number): void {
  for (let number = 0; number < count; number++) {
    Deno.writeFileSync(`${path}.${id}`, record(id, number));
    Deno.renameSync(`${path}.${id}`, path);
  }
}

function observe(path: string, count: number): void {
  const last = new Map<number, number>();
  for (let time = 0; time < count; time++) {
    const found = Deno.readFileSync(path);
    const [id, number] = new TextDecoder().decode(found.subarray(0, 20)).split(":").map(Number);
    if (number < (last.get(id) ?? 0)) throw new Error(`record ${number} of ${id} after ${last.get(id)}`);
    const whole = record(id, number);
    if (found.length !== whole.length || found.some((byte, at) => byte !== whole[at])) throw new Error("a torn record");
    last.set(id, number);
  }
}

if (import.meta.main) {
  const [verb, first, second, third] = Deno.args;
  if (verb === "append") append(first, Number(second), Number(third));
  else if (verb === "hold") hold(first, second);
  else if (verb === "take") take(first, second);
  else if (verb === "try") tryOnce(first, second);
  else if (verb === "replace") replace(first, Number(second), Number(third));
  else if (verb === "observe") observe(first, Number(third));
  else count(verb, first, Number(third));
}
