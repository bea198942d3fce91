/**
 * What the manager's HTTP service and its clients share: paths, bodies, encodings, the token. Bodies are CBOR between
 * programs of sealfs and JSON for people and scripts, chosen by Content-Type and Accept.
 *
 * @module
 */

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { Encoder } from "cbor-x";
import type { ErrorCode } from "../core/manager/manager.ts";

/** Media type of CBOR bodies. */
export const cborType = "application/cbor";
/** Media type of JSON bodies. */
export const jsonType = "application/json";
/** Longest body of a request. */
export const requestBytesMax = 1 << 20;
/** Longest body of a reply. */
export const replyBytesMax = 64 << 20;
/** Longest time a question for a newer map is left open. */
export const longPollMs = 25_000;

/** Paths of the service; volumes and sessions are named behind theirs. */
export const paths = {
  register: "/v1/register",
  serverHeartbeat: "/v1/heartbeat/server",
  clientHeartbeat: "/v1/heartbeat/client",
  sessions: "/v1/sessions",
  map: "/v1/map",
  status: "/v1/status",
  volumes: "/v1/volumes",
} as const;

/** Codes of refusals: those of the manager and those of HTTP around it. */
export type ApiErrorCode = ErrorCode | "unauthorized" | "malformed" | "tooLarge" | "noSuchPath" | "stopping";

/** HTTP status of each refusal. */
export const statusOf: Record<ApiErrorCode, number> = {
  invalid: 400,
  malformed: 400,
  unauthorized: 401,
  wrongCluster: 403,
  notFound: 404,
  noSuchPath: 404,
  exists: 409,
  busy: 409,
  identityInUse: 409,
  sessionDead: 410,
  tooLarge: 413,
  noServers: 503,
  settling: 503,
  stopping: 503,
  full: 507,
};

const cbor = new Encoder({ useRecords: false, tagUint8Array: false });

/** CBOR of plain data; byte arrays are byte strings. */
export function encodeCbor(value: unknown): Uint8Array<ArrayBuffer> {
  // The encoder uses its memory again.
  return Uint8Array.from(cbor.encode(value));
}

/** Data of CBOR; throws on malformed bytes. */
export function decodeCbor(bytes: Uint8Array): unknown {
  return cbor.decode(bytes);
}

/**
 * The token that opens a manager with a secret, as `Authorization: Bearer TOKEN`. The secret itself never travels.
 * By hand: `printf 'sealfs manager api' | openssl dgst -sha256 -hmac "$(cat SECRET_FILE)"`.
 */
export function managerToken(secret: string): string {
  return createHmac("sha256", secret).update("sealfs manager api").digest("hex");
}

/** Whether a request carries the token of a secret, as Bearer or as the password of Basic. Without a secret all do. */
export function tokenCheck(secret: string | undefined): (request: Request) => boolean {
  if (secret === undefined) return () => true;
  const wanted = digest(managerToken(secret));
  return (request) => timingSafeEqual(digest(tokenOf(request)), wanted);
}

function tokenOf(request: Request): string {
  const [scheme, value = ""] = (request.headers.get("authorization") ?? "").split(" ");
  if (scheme.toLowerCase() !== "basic") return value;
  try {
    return atob(value).split(":").slice(1).join(":");
  } catch {
    return "";
  }
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}
