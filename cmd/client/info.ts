/**
 * `sealfs client info`: where a file, directory or link and its data are, and who uses it.
 *
 * @module
 */

import { type Inspection, type Lock, lockEnd } from "../../core/client/filesystem.ts";
import { S } from "../../core/meta/attributes.ts";
import type { ClusterStatus } from "../../core/manager/manager.ts";
import { command, CommandError } from "../flags.ts";
import { humanSize, printJson, table, writeOut } from "../output.ts";
import { clientFlags, jsonFlag } from "./common.ts";
import { pathHelp, type Place, placeOf, reasonOf, Volumes } from "./place.ts";

const blockBytes = 4096, sectorBytes = 512;
const types: Record<number, string> = {
  [S.IFREG]: "file",
  [S.IFDIR]: "directory",
  [S.IFLNK]: "symbolic link",
  [S.IFCHR]: "character device",
  [S.IFBLK]: "block device",
  [S.IFIFO]: "fifo",
  [S.IFSOCK]: "socket",
};

/** What is printed, as JSON has it. */
function infoOf(place: Place, found: Inspection, status: ClusterStatus) {
  const { attributes: inode, shard, server, store, chunks, holders, opens, leases, locks } = found;
  const client = (session: number) => {
    const known = status.sessions.find((one) => one.session === session);
    return { session, host: known?.host ?? null, pid: known?.pid ?? null };
  };
  const address = (id: number) => status.servers.find((one) => one.id === id)?.address ?? null;
  return {
    path: place.given,
    volume: place.volume,
    inode: inode.inode,
    type: types[inode.mode & S.IFMT] ?? "unknown",
    mode: inode.mode & 0o7777,
    uid: inode.uid,
    gid: inode.gid,
    sizeBytes: inode.size,
    allocatedBytes: inode.blocks * sectorBytes,
    links: inode.nlink,
    entries: (inode.mode & S.IFMT) === S.IFDIR ? inode.entries : null,
    version: inode.version,
    shard,
    server: { id: server, store, address: address(server) },
    orphan: found.orphan,
    beingChanged: found.busy,
    inlineBytes: found.inlineBytes,
    holders: holders.map(({ blocks, ...one }) => ({
      ...one,
      address: address(one.server),
      allocatedBytes: blocks * blockBytes,
    })),
    chunks: chunks.map(({ blocks, ...one }) => ({ ...one, allocatedBytes: blocks * blockBytes })),
    opens: opens.map(client),
    leases: leases.map(client),
    locks: locks.map(({ session, lock }) => ({ ...client(session), ...lockInfo(lock) })),
  };
}

function lockInfo({ flock, type, pid, start, end }: Lock) {
  const range = flock ? { start: null, end: null } : { start, end: end >= lockEnd ? null : end };
  return { kind: flock ? "flock" : "fcntl", type, ...range, holderPid: pid };
}

type Info = ReturnType<typeof infoOf>;

function clientText({ session, host, pid }: { session: number; host: string | null; pid: number | null }): string {
  return host === null ? `session ${session}` : `session ${session} (${host}, process ${pid})`;
}

function lockText(lock: Info["locks"][number]): string {
  const range = lock.kind === "flock" ? "" : `, bytes ${lock.start} to ${lock.end ?? "the end"}`;
  return `${lock.kind} ${lock.type}${range}, process ${lock.holderPid}, ${clientText(lock)}`;
}

/** An inode for people. */
function infoText(info: Info): string {
  const { server, entries } = info;
  const lines: [string, string][] = [
    ["path", info.path],
    ["volume", info.volume],
    ["inode", String(info.inode)],
    ["type", info.type + (entries === null ? "" : `, ${entries.toLocaleString("en-US")} entries`)],
    ["mode", `${info.mode.toString(8).padStart(4, "0")}, owner ${info.uid}, group ${info.gid}`],
    ["links", String(info.links)],
    ["size", `${humanSize(info.sizeBytes)} (${info.sizeBytes} bytes), ${humanSize(info.allocatedBytes)} allocated`],
    ["shard", `${info.shard}, on server ${server.id} store ${server.store} (${server.address ?? "not in the map"})`],
  ];
  if (info.inlineBytes > 0) lines.push(["contents", `${info.inlineBytes} bytes, with the inode`]);
  if (info.orphan) lines.push(["state", "has no name any more"]);
  for (const { server, store, address, chunks, allocatedBytes } of info.holders) {
    const count = `${chunks.toLocaleString("en-US")} chunk${chunks === 1 ? "" : "s"}`;
    lines.push(["data", `${count}, ${humanSize(allocatedBytes)}, on server ${server} store ${store} (${address})`]);
  }
  const list = (title: string, texts: string[], none: string) => {
    lines.push([title, texts[0] ?? none], ...texts.slice(1).map((text): [string, string] => ["", text]));
  };
  list("open", info.opens.map(clientText), "nowhere");
  list("leases", info.leases.map(clientText), "none");
  list("locks", info.locks.map(lockText), "none");
  return lines.map(([title, text]) => `${title.padEnd(10)}${text}\n`).join("");
}

function chunkTable({ chunks }: Info): string {
  const right = { align: "right" } as const;
  return table(
    [
      { title: "chunk", ...right },
      { title: "shard", ...right },
      { title: "server", ...right },
      { title: "store", ...right },
      { title: "allocated", ...right },
    ],
    chunks.map((one) => [one.chunk, one.shard, one.server, one.store, humanSize(one.allocatedBytes)]),
  );
}

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs client info",
    summary: "Show where a file is and who uses it",
    details: "A symbolic link is shown itself. The list of chunks has the first 1024.",
    flags: [...clientFlags, { name: "chunks", type: "boolean", help: "list the chunks, too" }, jsonFlag],
    positionals: [{ name: "PATH", help: pathHelp }],
    examples: ["sealfs client info ~/fs/film.mkv", "sealfs client info --json test1:/film.mkv"],
  },
  async ({ flags, positionals, given }) => {
    await using volumes = new Volumes(flags);
    const place = placeOf(positionals.PATH, flags, given.has("manager-address"));
    const volume = await volumes.volume(place), cluster = await volumes.cluster(place);
    let info: Info;
    try {
      info = infoOf(place, await volume.inspect(place.path), await cluster.status());
    } catch (error) {
      throw new CommandError(`${place.given}: ${reasonOf(error)}`);
    }
    if (flags.json) printJson(info);
    else writeOut(infoText(info) + (flags.chunks && info.chunks.length > 0 ? `\n${chunkTable(info)}` : ""));
    return 0;
  },
);
