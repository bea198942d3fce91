/**
 * Descriptors that go from one process to another: pairs of Unix sockets, and descriptors sent over them (SCM_RIGHTS).
 *
 * @module
 */

import { type Bytes, F, libc, systemError } from "./libc.ts";

const AF_UNIX = 1, SOL_SOCKET = 1, SCM_RIGHTS = 1, MSG_DONTWAIT = 0x40, MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000, SOCK_CLOEXEC = 0o2000000;
/** struct msghdr and struct cmsghdr of 64-bit Linux. */
const msghdr = { iov: 16, iovLength: 24, control: 32, controlLength: 40, sizeof: 56 } as const;
const cmsghdr = { length: 0, level: 8, type: 12, data: 16 } as const;
/** Descriptors of one message. */
const descriptorsMax = 4;
const dataBytesMax = 64;

/** Kinds of socket: a stream of bytes, or messages that keep their bounds and their order. */
export const SOCK = { STREAM: 1, SEQPACKET: 5 } as const;

/** A pair of connected sockets, both close-on-exec. Throws when there are no descriptors left. */
export function socketPair(kind: number): [number, number] {
  const pair = new Int32Array(2);
  if (libc.socketpair(AF_UNIX, kind | SOCK_CLOEXEC, 0, new Uint8Array(pair.buffer)) < 0) {
    throw systemError("make", "a socket pair");
  }
  return [pair[0], pair[1]];
}

/** Lets a descriptor stay open in programs that this process starts from now on. */
export function inherit(fd: number): void {
  if (libc.fcntl(fd, F.SETFD, 0) < 0) throw systemError("hand on", "a descriptor");
}

function addressOf(bytes: Bytes): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}

interface Message {
  /** struct msghdr. */
  header: Bytes;
  view: DataView;
  /** One struct cmsghdr with its data. */
  control: DataView;
  /** What the header points to: it must not be collected meanwhile. */
  keep: Bytes[];
}

function messageOf(data: Bytes, controlBytes: number): Message {
  const header: Bytes = new Uint8Array(msghdr.sizeof), iov: Bytes = new Uint8Array(16);
  const control: Bytes = new Uint8Array(controlBytes), view = new DataView(header.buffer);
  const iovView = new DataView(iov.buffer);
  iovView.setBigUint64(0, addressOf(data), true);
  iovView.setBigUint64(8, BigInt(data.length), true);
  view.setBigUint64(msghdr.iov, addressOf(iov), true);
  view.setBigUint64(msghdr.iovLength, 1n, true);
  view.setBigUint64(msghdr.control, addressOf(control), true);
  view.setBigUint64(msghdr.controlLength, BigInt(controlBytes), true);
  return { header, view, control: new DataView(control.buffer), keep: [iov, control, data] };
}

/** Sends `data` (1 to 64 bytes) with copies of 1 to 4 descriptors. False when it cannot be sent now, or never. */
export function sendDescriptors(socket: number, data: Bytes, descriptors: readonly number[]): boolean {
  const { header, control, keep } = messageOf(data, cmsghdr.data + 4 * descriptorsMax);
  const length = cmsghdr.data + 4 * descriptors.length;
  control.setBigUint64(cmsghdr.length, BigInt(length), true);
  control.setInt32(cmsghdr.level, SOL_SOCKET, true);
  control.setInt32(cmsghdr.type, SCM_RIGHTS, true);
  descriptors.forEach((fd, index) => control.setInt32(cmsghdr.data + 4 * index, fd, true));
  const padded = cmsghdr.data + 8 * Math.ceil(descriptors.length / 2);
  new DataView(header.buffer).setBigUint64(msghdr.controlLength, BigInt(padded), true);
  const sent = libc.sendmsg(socket, addressOf(header), MSG_DONTWAIT | MSG_NOSIGNAL);
  return keep.length > 0 && sent === data.length;
}

/** A message that has been received. */
export interface Received {
  data: Bytes;
  /** Close-on-exec; the receiver closes them. */
  descriptors: number[];
}

/** Receives one message that was sent before. Undefined: there is none now; null: the other end is closed. */
export function receiveDescriptors(socket: number): Received | undefined | null {
  const data: Bytes = new Uint8Array(dataBytesMax);
  const { header, view, control, keep } = messageOf(data, cmsghdr.data + 4 * descriptorsMax);
  const length = libc.recvmsg(socket, addressOf(header), MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length < 0) return undefined;
  if (length === 0 || keep.length === 0) return null;
  const descriptors: number[] = [];
  const controlBytes = Number(view.getBigUint64(msghdr.controlLength, true));
  const has = controlBytes >= cmsghdr.data && control.getInt32(cmsghdr.level, true) === SOL_SOCKET &&
    control.getInt32(cmsghdr.type, true) === SCM_RIGHTS;
  const end = has ? Math.min(controlBytes, Number(control.getBigUint64(cmsghdr.length, true))) : 0;
  for (let at: number = cmsghdr.data; at + 4 <= end; at += 4) descriptors.push(control.getInt32(at, true));
  return { data: data.subarray(0, length), descriptors };
}
