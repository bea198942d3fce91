/**
 * How two peers meet: HELLO names cluster, version, server and store; both sides prove that they know the cluster's
 * secret by an HMAC-SHA256 over both nonces, the server first. Without a secret proofs are empty. The two classes hold
 * no link and no clock: their owners carry the messages.
 *
 * | message     | from   | proof in it |
 * | ----------- | ------ | ----------- |
 * | HELLO       | client | none, a nonce |
 * | HELLO reply | server | HMAC(secret, "server" + client's nonce + server's nonce) |
 * | PROVE       | client | HMAC(secret, "client" + client's nonce + server's nonce) |
 *
 * @module
 */

import { createHmac, timingSafeEqual } from "node:crypto";
import type { Of } from "./codec.ts";
import { protocolVersion, status } from "./frame.ts";
import { type HELLO, peerKind } from "./messages.ts";

/** Bytes of a nonce. */
export const nonceBytes = 16;
/** Oldest version this build speaks. */
export const protocolVersionMin = Math.max(2, protocolVersion - 1);

type Hello = Of<typeof HELLO.request>;
type HelloReply = Of<typeof HELLO.reply>;

const none = new Uint8Array(0);

function proofOf(
  secret: Uint8Array | null,
  side: "client" | "server",
  client: Uint8Array,
  server: Uint8Array,
): Uint8Array {
  if (secret === null) return none;
  return new Uint8Array(createHmac("sha256", secret).update(side).update(client).update(server).digest());
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

function versionSpoken(version: number): boolean {
  return version >= protocolVersionMin && version <= protocolVersion;
}

/** `count` unpredictable bytes from a source of 32 bits; for nonces. */
export function randomNonce(random32: () => number): Uint8Array {
  const nonce = new Uint8Array(nonceBytes), view = new DataView(nonce.buffer);
  for (let at = 0; at < nonceBytes; at += 4) view.setUint32(at, random32());
  return nonce;
}

/** The side that connects. */
export class ClientHandshake {
  #hello: Hello;

  constructor(
    hello: Omit<Hello, "version">,
    /** The cluster's secret; null without one. */
    readonly secret: Uint8Array | null,
  ) {
    this.#hello = { version: protocolVersion, ...hello };
  }

  /** Body of HELLO. */
  get hello(): Hello {
    return this.#hello;
  }

  /** Judges the server's answer: the body of PROVE, or why this server is not to be trusted. */
  accept(reply: HelloReply): { proof: Uint8Array } | { reason: string } {
    const { nonce, serverId } = this.#hello;
    if (!versionSpoken(reply.version)) return { reason: `speaks protocol version ${reply.version}` };
    if (reply.serverId !== serverId) return { reason: `is server ${reply.serverId}, not ${serverId}` };
    if (reply.nonce.length !== nonceBytes) return { reason: "sent a nonce of a wrong length" };
    if (!sameBytes(reply.proof, proofOf(this.secret, "server", nonce, reply.nonce))) {
      return { reason: "does not know the cluster's secret" };
    }
    return { proof: proofOf(this.secret, "client", nonce, reply.nonce) };
  }
}

/** What a server says of itself in a handshake. */
export interface ServerIdentity {
  clusterId: string;
  serverId: number;
  store: number;
  /** Changes with every start of the store. */
  incarnation: number;
  /** The cluster's secret; null without one. */
  secret: Uint8Array | null;
}

/** Who is at the other end of a link. */
export interface PeerIdentity {
  /** One of peerKind. */
  kind: number;
  /** 0 for servers. */
  session: number;
  /** Protocol version both speak. */
  version: number;
}

/** The side that was connected to. One a link; every other message is refused until {@linkcode peer} is set. */
export class ServerHandshake {
  #identity: ServerIdentity;
  #nonce: Uint8Array;
  #hello: Hello | null = null;
  #version = 0;
  #reply: { status: number; reply: HelloReply } | null = null;
  /** Who it is, once proved. */
  peer: PeerIdentity | null = null;
  /** Why the handshake was refused, for the log and (as data of the reply) for the peer. */
  reason = "";

  /** `nonce`: {@linkcode nonceBytes} unpredictable bytes, fresh for this link. */
  constructor(identity: ServerIdentity, nonce: Uint8Array) {
    this.#identity = identity;
    this.#nonce = nonce;
  }

  /** Answers HELLO: status 0 with a reply, or status.refused (then close the link). */
  onHello(hello: Hello): { status: number; reply?: HelloReply } {
    const { clusterId, serverId, store, incarnation, secret } = this.#identity;
    if (this.#reply !== null) {
      // A frame that a network delivered twice gets the same answer; another peer on this link does not.
      if (this.#hello?.session === hello.session && sameBytes(this.#hello.nonce, hello.nonce)) return this.#reply;
      return this.#refuse("second HELLO on one link");
    }
    if (!versionSpoken(hello.version)) {
      return this.#refuse(
        `protocol version ${hello.version} is not spoken here (${protocolVersionMin} to ${protocolVersion})`,
      );
    }
    if (hello.clusterId !== clusterId) {
      return this.#refuse(`cluster ${hello.clusterId} was asked for, this is ${clusterId}`);
    }
    if (hello.serverId !== serverId) return this.#refuse(`server ${hello.serverId} was asked for, this is ${serverId}`);
    if (hello.store !== store) return this.#refuse(`store ${hello.store} was asked for, this is ${store}`);
    if (hello.kind < peerKind.client || hello.kind > peerKind.admin) {
      return this.#refuse(`kind ${hello.kind} is unknown`);
    }
    if (hello.nonce.length !== nonceBytes) return this.#refuse("nonce of a wrong length");
    this.#hello = hello;
    this.#version = Math.min(hello.version, protocolVersion);
    const proof = proofOf(secret, "server", hello.nonce, this.#nonce);
    this.#reply = { status: 0, reply: { version: this.#version, serverId, incarnation, nonce: this.#nonce, proof } };
    return this.#reply;
  }

  /** Answers PROVE: 0, and {@linkcode peer} is set; or status.refused (then close the link). */
  onProve(proof: Uint8Array): number {
    const hello = this.#hello;
    if (hello === null) return this.#refuse("PROVE before HELLO").status;
    if (!sameBytes(proof, proofOf(this.#identity.secret, "client", hello.nonce, this.#nonce))) {
      return this.#refuse("the peer does not know the cluster's secret").status;
    }
    this.peer = { kind: hello.kind, session: hello.session, version: this.#version };
    return 0;
  }

  #refuse(reason: string): { status: number } {
    this.reason = reason;
    return { status: status.refused };
  }
}
