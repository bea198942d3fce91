/**
 * sealfs, a distributed POSIX file system, as a library: volumes of a cluster through Deno's file API, without a mount.
 *
 * {@linkcode connect} reaches a cluster by its manager, `Cluster.open` one of its volumes, and a {@linkcode Volume} has
 * the methods of Deno's functions of the same names. It speaks to the servers itself, as a mount does: what it has done
 * is seen by every mount and every other program at once.
 *
 * ```ts
 * import { connect } from "@sealfs/sealfs";
 *
 * await using cluster = await connect(); // the manager of SEALFS_MANAGER_ADDRESS
 * await cluster.createVolume("photos", { sizeBytes: 2 ** 30 });
 * await using volume = await cluster.open("photos");
 *
 * await volume.mkdir("2026/summer", { recursive: true });
 * await volume.writeTextFile("2026/summer/notes.txt", "swimming\n");
 * await volume.writeTextFile("2026/summer/notes.txt", "and cycling\n", { append: true });
 * for await (const entry of volume.readDir("2026/summer")) console.log(entry.name, entry.isFile);
 * console.log(await volume.readTextFile("2026/summer/notes.txt"));
 * ```
 *
 * A file can be read and written in parts, also as a stream:
 *
 * ```ts
 * import { connect } from "@sealfs/sealfs";
 *
 * await using cluster = await connect();
 * await cluster.createVolume("logs", { sizeBytes: 2 ** 30 });
 * await using volume = await cluster.open("logs");
 *
 * await using file = await volume.open("today.log", { read: true, write: true, create: true });
 * await file.write(new TextEncoder().encode("started\n"));
 * await file.sync(); // survives power loss from here on
 * await file.seek(0, Deno.SeekMode.Start);
 * for await (const chunk of file.readable.pipeThrough(new TextDecoderStream())) console.log(chunk);
 * ```
 *
 * Errors are Deno's own:
 *
 * ```ts
 * import { connect } from "@sealfs/sealfs";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * await using cluster = await connect();
 * await cluster.createVolume("empty", { sizeBytes: 2 ** 20 });
 * await using volume = await cluster.open("empty");
 * const error = await assertRejects(() => volume.readTextFile("/a/b"), Deno.errors.NotFound);
 * assertEquals(error.message, "No such file or directory (os error 2): readfile '/a/b'");
 * assertEquals((error as Error & { code: string }).code, "ENOENT");
 * ```
 *
 * It needs Linux with io_uring and Deno's permissions to read, to reach the network and to use FFI.
 *
 * @module
 */

export { type Cluster, connect } from "./ffi/library/cluster.ts";
export type { ConnectOptions, CreateVolumeOptions, OpenVolumeOptions } from "./ffi/library/cluster.ts";
export type { FileError } from "./ffi/library/errors.ts";
export type { VolumeFile } from "./ffi/library/file.ts";
export type {
  FollowOptions,
  MkdirOptions,
  OpenOptions,
  Problem,
  ReadFileOptions,
  RemoveAllOptions,
  Removed,
  TreeUsage,
  Volume,
  WriteFileOptions,
} from "./ffi/library/volume.ts";
export type { ChunkPlace, Inspection, Lock, Totals } from "./core/client/filesystem.ts";
export type { ClusterStatus, ServerStatus, SessionStatus, VolumeStatus } from "./core/manager/manager.ts";
export type { LogLevel } from "./core/runtime.ts";
