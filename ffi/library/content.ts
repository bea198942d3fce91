/**
 * Contents of files between a program's memory and a library Worker: in pieces of a slot, several under way at once.
 *
 * @module
 */

import { slotBytes } from "./messages.ts";
import type { WorkerLink } from "./worker_link.ts";

/** Pieces of one read or write that are under way at once: others shall have slots too. */
const piecesMax = 4;

/** An open file of a Worker. */
export interface FileHandle {
  link: WorkerLink;
  file: number;
  /** Its path, for errors. */
  path: string;
}

/** Reads at an offset until `into` is full or the file ends; the count. */
export async function readAt(handle: FileHandle, offset: number, into: Uint8Array): Promise<number> {
  const counts = await inPieces(into.length, async (start, length) => {
    return await handle.link.withSlot(async (slot, bytes) => {
      const ask = { file: handle.file, offset: offset + start, slot, length };
      const { count } = await handle.link.call("read", ask, `read '${handle.path}'`);
      into.set(bytes.subarray(0, count), start);
      return count;
    });
  });
  let total = 0;
  for (const count of counts) {
    total += count;
    // What comes behind the end was read when the file was longer.
    if (count < slotBytes) break;
  }
  return total;
}

/** Writes all of `data` at an offset. An error may leave a part of it written. */
export async function writeAt(handle: FileHandle, offset: number, data: Uint8Array): Promise<void> {
  await inPieces(data.length, async (start, length) => {
    await handle.link.withSlot(async (slot, bytes) => {
      bytes.set(data.subarray(start, start + length));
      const ask = { file: handle.file, offset: offset + start, slot, length };
      await handle.link.call("write", ask, `write '${handle.path}'`);
    });
  });
}

/** Writes all of `data` at the end of the file; where it ends then. */
export async function append(handle: FileHandle, data: Uint8Array): Promise<number> {
  let end = 0;
  for (let start = 0; start === 0 || start < data.length; start += slotBytes) {
    const piece = data.subarray(start, start + slotBytes);
    end = await handle.link.withSlot(async (slot, bytes) => {
      bytes.set(piece);
      const ask = { file: handle.file, slot, length: piece.length };
      const { offset } = await handle.link.call("append", ask, `write '${handle.path}'`);
      return offset + piece.length;
    });
  }
  return end;
}

/** Does `work` for each piece of `length` bytes; all that was begun has ended when this does. */
async function inPieces<T>(length: number, work: (start: number, length: number) => Promise<T>): Promise<T[]> {
  const count = Math.ceil(length / slotBytes), results: T[] = new Array(count);
  let next = 0;
  const run = async () => {
    while (next < count) {
      const piece = next++, start = piece * slotBytes;
      try {
        results[piece] = await work(start, Math.min(slotBytes, length - start));
      } catch (error) {
        next = count;
        throw error;
      }
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: Math.min(piecesMax, count) }, run));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
  return results;
}
