/**
 * Requests as the kernel would send them, and a session to send them to: for tests that need no mount.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { FUSE, fuseBufferBytes, FuseRequest, inHeader, outHeader } from "../../core/fuse/protocol.ts";
import { FuseSession, type FuseSessionOptions } from "../../core/fuse/session.ts";
import { Scheduler, type Task } from "../../core/task.ts";
import { MemoryFileSystem, type MemoryOptions } from "./memory_filesystem.ts";

const encoder = new TextEncoder();

/** Text as bytes. */
export const utf8 = (text: string): Uint8Array => encoder.encode(text);

/** Joins strings (ended by NUL) and bytes (as they are). */
export function join(...parts: (string | Uint8Array)[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => typeof part === "string" ? [...utf8(part), 0] : [...part]));
}

/** A struct of `size` bytes with fields {offset: value}; a bigint is a u64. */
export function struct(size: number, fields: Record<number, number | bigint> = {}): Uint8Array {
  const bytes = new Uint8Array(size), view = new DataView(bytes.buffer);
  for (const [at, value] of Object.entries(fields)) {
    if (typeof value === "bigint") view.setBigUint64(Number(at), value, true);
    else view.setUint32(Number(at), value, true);
  }
  return bytes;
}

/** Header fields of a request. */
export interface Header {
  opcode: number;
  nodeid?: number | bigint;
  unique?: number;
  uid?: number;
  gid?: number;
  /** 77 without. */
  pid?: number;
  extensions?: Uint8Array;
}

/** Bytes of a whole request. */
export function request(header: Header, ...body: (string | Uint8Array)[]): Uint8Array {
  const extensions = header.extensions ?? new Uint8Array();
  const payload = join(...body, extensions);
  const head = struct(inHeader.sizeof, {
    [inHeader.len]: inHeader.sizeof + payload.length,
    [inHeader.opcode]: header.opcode,
    [inHeader.unique]: BigInt(header.unique ?? 2),
    [inHeader.nodeid]: BigInt(header.nodeid ?? 1),
    [inHeader.uid]: header.uid ?? 0,
    [inHeader.gid]: header.gid ?? 0,
    [inHeader.pid]: header.pid ?? 77,
    [inHeader.totalExtlen]: extensions.length / 8,
  });
  return join(head, payload);
}

/** A decoded reply. */
export interface Reply {
  /** Positive errno, 0 for success, -1 when there was no reply. */
  errno: number;
  body: Uint8Array;
  view: DataView;
}

/** A session over a memory file system that is asked one request after the other. */
export class Harness {
  readonly fileSystem: MemoryFileSystem;
  readonly session: FuseSession;
  readonly scheduler = new Scheduler((error) => {
    throw error;
  });
  readonly #buffer = new FuseRequest(new Uint8Array(fuseBufferBytes));
  #unique = 2;

  constructor(options: MemoryOptions = {}, sessionOptions: FuseSessionOptions = {}) {
    this.fileSystem = new MemoryFileSystem(options);
    this.session = new FuseSession(this.fileSystem, sessionOptions);
  }

  /** Runs a task that must not have to wait. */
  run<T>(task: Task<T>): T {
    const future = this.scheduler.spawn(task);
    while (this.scheduler.run() > 0);
    if (!future.settled) throw new Error("the task waits");
    return future.value;
  }

  /** Sends bytes; the buffer is reused as by the device. */
  send(bytes: Uint8Array): Reply {
    this.#buffer.bytes.set(bytes, this.#buffer.requestAt);
    if (!this.#buffer.decode(bytes.length)) {
      return { errno: -1, body: new Uint8Array(), view: new DataView(new ArrayBuffer(0)) };
    }
    return this.reply(this.#buffer, this.run(this.session.handle(this.#buffer)));
  }

  /** Reads what `handle` left. */
  reply(request: FuseRequest, length: number): Reply {
    const body = request.bytes.slice(request.bodyAt, request.replyAt + length);
    const view = new DataView(body.buffer);
    if (length === 0) return { errno: -1, body, view };
    assertEquals(request.view.getUint32(request.replyAt + outHeader.len, true), length);
    assertEquals(request.view.getUint32(request.replyAt + outHeader.unique, true), request.uniqueLow);
    return { errno: -request.view.getInt32(request.replyAt + outHeader.error, true), body, view };
  }

  /** Asks with an opcode's name. */
  ask(opcode: keyof typeof FUSE, header: Omit<Header, "opcode">, ...body: (string | Uint8Array)[]): Reply {
    this.#unique += 2;
    return this.send(request({ opcode: FUSE[opcode], unique: this.#unique, ...header }, ...body));
  }

  /** What the session answers at once; null: it takes a task. */
  atOnce(opcode: keyof typeof FUSE, header: Omit<Header, "opcode">, ...body: (string | Uint8Array)[]): Reply | null {
    const bytes = request({ opcode: FUSE[opcode], ...header }, ...body);
    this.#buffer.bytes.set(bytes, this.#buffer.requestAt);
    this.#buffer.decode(bytes.length);
    const length = this.session.answer(this.#buffer);
    return length < 0 ? null : this.reply(this.#buffer, length);
  }

  /** As `ask`, but only starts it: for requests that wait. */
  start(opcode: keyof typeof FUSE, header: Omit<Header, "opcode">, ...body: (string | Uint8Array)[]) {
    const bytes = request({ opcode: FUSE[opcode], ...header }, ...body);
    const own = new FuseRequest(new Uint8Array(fuseBufferBytes));
    own.bytes.set(bytes, own.requestAt);
    own.decode(bytes.length);
    const copy = own.detach();
    const length = this.scheduler.spawn(this.session.handle(copy));
    this.scheduler.run();
    return { length, reply: () => this.reply(copy, length.value) };
  }
}
