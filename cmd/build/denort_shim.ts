/**
 * A base for `deno compile` where Deno's own runtime-only binary, `denort`, cannot be had: the stock `deno` with a
 * few bytes before its entry point.
 *
 * The stock binary runs programs given by its arguments and never looks for a program inside itself. So one unused
 * ELF program header (PT_NOTE) is turned into a loaded segment with a stub that inserts `eval FLAGS CODE` after
 * argv[0] and jumps to the old entry point. CODE is `bootstrap.js`: it finds the program that `deno compile` appended,
 * unpacks it once and imports it. `eval` rather than `run`: it hands every argument on untouched and does not ask the
 * network for newer versions of Deno. x86-64 Linux only.
 *
 * @module
 */

const pageBytes = 4096;

/** ELF64 field offsets, from elf.h. */
const elf = {
  magic: 0x7f454c46,
  machineOffset: 18,
  machineX64: 62,
  entryOffset: 24,
  programHeadersOffset: 32,
  programHeaderCountOffset: 56,
  programHeaderBytes: 56,
  typeLoad: 1,
  typeNote: 4,
  flagsReadExecute: 5,
} as const;

/**
 * What runs first. On entry rsp points at argc, argv[0], ...; the table behind the stub holds the arguments to insert.
 * rdx (the dynamic linker's exit function) is left alone, and so are the strings, so `ps` shows the user's own words.
 */
const stub = Uint8Array.fromHex([
  "488b0424", //         mov  rax, [rsp]           argc
  "488b4c2408", //       mov  rcx, [rsp+8]         argv[0]
  "488d3548000000", //   lea  rsi, [rip+0x48]      table, at stubBytes
  "448b06", //           mov  r8d, [rsi]           number of arguments to insert (even: rsp stays 16-byte aligned)
  "4e8d0cc500000000", // lea  r9, [r8*8]
  "4c29cc", //           sub  rsp, r9              room for them, below the old argv
  "4c01c0", //           add  rax, r8
  "48890424", //         mov  [rsp], rax           new argc
  "48894c2408", //       mov  [rsp+8], rcx         argv[0] again
  "488d7c2410", //       lea  rdi, [rsp+16]        &argv[1]
  "4531d2", //           xor  r10d, r10d
  "4d39c2", //     next: cmp  r10, r8
  "7411", //             je   done
  "428b449608", //       mov  eax, [rsi+r10*4+8]   offset of the string from the table
  "4801f0", //           add  rax, rsi
  "4a8904d7", //         mov  [rdi+r10*8], rax
  "49ffc2", //           inc  r10
  "ebea", //             jmp  next
  "48634604", //   done: movsxd rax, [rsi+4]       old entry point, relative to the table
  "4801f0", //           add  rax, rsi
  "ffe0", //             jmp  rax
  "0f1f8000000000", //   nop
].join(""));
const stubBytes = 88;

function alignUp(value: number): number {
  return Math.ceil(value / pageBytes) * pageBytes;
}

/** The table behind the stub: u32 count, i32 entry point from the table, u32 offset of each string, the strings. */
function argumentTable(args: readonly string[], entryDelta: number): Uint8Array {
  const encoder = new TextEncoder();
  const strings = args.map((arg) => encoder.encode(arg + "\0"));
  const headBytes = 8 + 4 * args.length;
  const table = new Uint8Array(headBytes + strings.reduce((sum, string) => sum + string.length, 0));
  const view = new DataView(table.buffer);
  view.setUint32(0, args.length, true);
  view.setInt32(4, entryDelta, true);
  let offset = headBytes;
  for (const [index, string] of strings.entries()) {
    view.setUint32(8 + 4 * index, offset, true);
    table.set(string, offset);
    offset += string.length;
  }
  return table;
}

/**
 * The bytes of a base binary made from `deno` (the bytes of a stock Deno for x86-64 Linux) that runs `bootstrap`
 * (JavaScript, a module) with V8 `v8Flags`. Throws when `deno` is no such binary.
 */
export function makeDenortShim(deno: Uint8Array, bootstrap: string, v8Flags: readonly string[]): Uint8Array {
  const source = new DataView(deno.buffer, deno.byteOffset, deno.byteLength);
  if (source.getUint32(0) !== elf.magic || source.getUint16(elf.machineOffset, true) !== elf.machineX64) {
    throw new Error("the base must be a Deno for x86-64 Linux");
  }
  if (bootstrap.includes("\0")) throw new Error("the bootstrap holds a NUL character");
  const headers = Number(source.getBigUint64(elf.programHeadersOffset, true));
  const headerCount = source.getUint16(elf.programHeaderCountOffset, true);
  const oldEntry = Number(source.getBigUint64(elf.entryOffset, true));
  let addressMax = 0, note = -1;
  for (let index = 0; index < headerCount; index++) {
    const at = headers + index * elf.programHeaderBytes;
    const type = source.getUint32(at, true);
    if (type === elf.typeNote) note = at;
    if (type !== elf.typeLoad) continue;
    const end = source.getBigUint64(at + 16, true) + source.getBigUint64(at + 40, true);
    addressMax = Math.max(addressMax, Number(end));
  }
  if (note < 0) throw new Error("the base has no PT_NOTE program header to reuse");

  const segmentOffset = alignUp(deno.length);
  const segmentAddress = Math.max(alignUp(addressMax + pageBytes), segmentOffset);
  const args = ["eval", "--ext=js", "--no-config", "--no-lock", "--quiet"];
  if (v8Flags.length > 0) args.push(`--v8-flags=${v8Flags.join(",")}`);
  if (args.length % 2 === 0) args.push("--no-remote");
  args.push(bootstrap);
  const table = argumentTable(args, oldEntry - (segmentAddress + stubBytes));
  const segmentBytes = alignUp(stubBytes + table.length);

  const out = new Uint8Array(segmentOffset + segmentBytes);
  out.set(deno);
  out.set(stub, segmentOffset);
  out.set(table, segmentOffset + stubBytes);
  const view = new DataView(out.buffer);
  view.setUint32(note, elf.typeLoad, true);
  view.setUint32(note + 4, elf.flagsReadExecute, true);
  const fields = [segmentOffset, segmentAddress, segmentAddress, segmentBytes, segmentBytes, pageBytes];
  for (const [index, value] of fields.entries()) view.setBigUint64(note + 8 + 8 * index, BigInt(value), true);
  view.setBigUint64(elf.entryOffset, BigInt(segmentAddress), true);
  return out;
}
