/**
 * The process that makes the system calls of tests/posix: it reads calls from stdin, makes each with the identity that
 * it names, and writes results to stdout, one after the other. It blocks where a call blocks; a hung file system hangs
 * this process alone. It knows no single call: numbers, arguments and buffers are the asker's affair (kernel.ts).
 *
 * Frames are a length (u32, little-endian) and CBOR. Identities are set by raw system calls, so they hold for this
 * thread, which keeps a way back to root: it has to be started by root.
 *
 * @module
 */

import { decode, encode } from "cbor-x";

/** Who makes a call. */
export interface Identity {
  uid: number;
  gid: number;
  /** Supplementary groups. */
  groups: readonly number[];
  umask: number;
}

/** An argument: a number, memory to read from, to write to (as many zeros first), or both; a struct iovec array. */
export type Argument =
  | number
  | bigint
  | Uint8Array
  | { out: number }
  | { inout: Uint8Array }
  | { vector: (Uint8Array | { out: number })[] };

/** What is asked. `trim`: memory that was written to comes back cut to the call's result. */
export type Call =
  | { call: "system"; number: number; args: Argument[]; identity: Identity; trim: boolean }
  | { call: "peek"; address: number; length: number }
  | { call: "poke"; address: number; bytes: Uint8Array };

/** A call's result, minus errno when it failed, and the memory it wrote to, in the order of the arguments. */
export interface Answer {
  result: number;
  out: Uint8Array[];
}

const setgroups = 116, setresuid = 117, setresgid = 119, umask = 95;

const u64 = Array.from({ length: 6 }, () => "u64" as const);
const libc = Deno.dlopen("libc.so.6", {
  syscall: { parameters: ["i64", ...u64], result: "i64" },
  __errno_location: { parameters: [], result: "pointer" },
}).symbols;
const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(libc.__errno_location()!, 4));

function raw(number: number, ...args: (number | bigint)[]): number {
  const [a = 0n, b = 0n, c = 0n, d = 0n, e = 0n, f = 0n] = args.map((arg) => BigInt.asUintN(64, BigInt(arg)));
  const result = libc.syscall(BigInt(number), a, b, c, d, e, f);
  return result === -1n ? -errno[0] : Number(result);
}

function must(what: string, result: number): void {
  if (result < 0) throw new Error(`${what}: errno ${-result}`);
}

/** Memory that does not move while its address is in use. */
function memory(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(Math.max(length, 8)));
}

function addressOf(bytes: Uint8Array<ArrayBuffer>): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}

function view(address: number, length: number): Uint8Array {
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(Deno.UnsafePointer.create(BigInt(address))!, length));
}

function setGroups(groups: readonly number[]): void {
  const list = new Uint32Array(memory(groups.length * 4).buffer);
  list.set(groups);
  must("setgroups", raw(setgroups, groups.length, addressOf(new Uint8Array(list.buffer))));
}

function become({ uid, gid, groups, umask: mask }: Identity): void {
  raw(umask, mask);
  if (groups.length > 0) setGroups(groups);
  if (gid !== 0) must("setresgid", raw(setresgid, gid, gid, 0));
  if (uid !== 0) must("setresuid", raw(setresuid, uid, uid, 0));
}

function comeBack({ uid, gid, groups }: Identity): void {
  if (uid !== 0) must("setresuid", raw(setresuid, 0, 0, 0));
  if (gid !== 0) must("setresgid", raw(setresgid, 0, 0, 0));
  if (groups.length > 0) setGroups([]);
}

/** Memory of an argument, filled; null for a number. */
function memoryOf(arg: Exclude<Argument, { vector: unknown }>): Uint8Array<ArrayBuffer> | null {
  if (typeof arg === "number" || typeof arg === "bigint") return null;
  if ("out" in arg) return memory(arg.out);
  const source = arg instanceof Uint8Array ? arg : arg.inout;
  const bytes = memory(source.length);
  bytes.set(source);
  return bytes;
}

/** Memory that the call under way uses: it is not freed before the next one. */
let held: Uint8Array[] = [];

function system({ number, args, identity, trim }: Call & { call: "system" }): Answer {
  const out: Uint8Array[] = [];
  held = [];
  const place = (arg: Exclude<Argument, { vector: unknown }>): number | bigint => {
    const bytes = memoryOf(arg);
    if (bytes === null) return arg as number | bigint;
    held.push(bytes);
    if (!(arg instanceof Uint8Array)) {
      out.push(bytes.subarray(0, "out" in (arg as object) ? (arg as { out: number }).out : bytes.length));
    }
    return addressOf(bytes);
  };
  const numbers = args.map((arg) => {
    if (typeof arg !== "object" || !("vector" in arg)) return place(arg);
    const entries = memory(arg.vector.length * 16), words = new BigUint64Array(entries.buffer);
    for (const [i, part] of arg.vector.entries()) {
      words[2 * i] = BigInt(place(part));
      words[2 * i + 1] = BigInt(part instanceof Uint8Array ? part.length : part.out);
    }
    held.push(entries);
    return addressOf(entries);
  });
  become(identity);
  const result = raw(number, ...numbers);
  comeBack(identity);
  return { result, out: trim ? out.map((bytes) => bytes.slice(0, Math.max(0, result))) : out };
}

function perform(call: Call): Answer {
  if (call.call === "system") return system(call);
  if (call.call === "peek") return { result: 0, out: [view(call.address, call.length).slice()] };
  view(call.address, call.bytes.length).set(call.bytes);
  return { result: 0, out: [] };
}

/** Fills `bytes` from stdin; false when the asker has gone. */
function fill(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length;) {
    const count = Deno.stdin.readSync(bytes.subarray(at));
    if (count === null) return false;
    at += count;
  }
  return true;
}

/** A frame of the protocol. */
export function frame(value: Call | Answer): Uint8Array<ArrayBuffer> {
  const body = encode(value), bytes = new Uint8Array(4 + body.length);
  new DataView(bytes.buffer).setUint32(0, body.length, true);
  bytes.set(body, 4);
  return bytes;
}

if (import.meta.main) {
  setGroups([]);
  const head = new Uint8Array(4);
  while (fill(head)) {
    const body = new Uint8Array(new DataView(head.buffer).getUint32(0, true));
    if (!fill(body)) break;
    const answer = frame(perform(decode(body)));
    for (let at = 0; at < answer.length;) at += Deno.stdout.writeSync(answer.subarray(at));
  }
}
