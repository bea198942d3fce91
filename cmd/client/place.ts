/**
 * Paths as verbs take them, in a mounted volume or as VOLUME:/PATH, and the volumes they are in: opened as the calling
 * user, without the mount.
 *
 * @module
 */

import { type VolumePlace, volumePlace } from "../../ffi/fuse/mount.ts";
import { type Cluster, connect } from "../../ffi/library/cluster.ts";
import type { FileError } from "../../ffi/library/errors.ts";
import type { Volume } from "../../ffi/library/volume.ts";
import { CommandError } from "../flags.ts";
import { type ClientFlags, ioTimeoutMs, secretOf } from "./common.ts";

/** What a verb's help says of its paths. */
export const pathHelp = "a path in a mounted volume, or VOLUME:/PATH";

/** A path of the command line. */
export interface Place extends Omit<VolumePlace, "realPath"> {
  /** As it was written. */
  given: string;
  /** By the kernel's names; undefined when no mount was named. */
  realPath?: string;
}

/** The text of an error of a file operation, without its operation and path. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message.split(" (os error")[0] : String(error);
}

/** Finds the volume of a path. Throws {@linkcode CommandError} when it is in none. */
export function placeOf(given: string, flags: ClientFlags, managerGiven: boolean): Place {
  const named = /^([^/:]+):(\/.*)$/s.exec(given);
  if (named !== null) return { given, managerAddress: flags["manager-address"], volume: named[1], path: named[2] };
  let place;
  try {
    place = volumePlace(given);
  } catch (error) {
    throw new CommandError(`${given}: ${reasonOf(error)}`);
  }
  if (place === undefined) throw new CommandError(`${given} is not in a mounted sealfs volume: ${pathHelp} is wanted`);
  return { ...place, given, ...(managerGiven ? { managerAddress: flags["manager-address"] } : {}) };
}

/** A problem's path as the user wrote its beginning. */
export function shownPath({ given, path }: Place, inVolume: string): string {
  const rest = inVolume.slice(path.length).replace(/^\//, "");
  return rest === "" ? given : given.endsWith("/") ? given + rest : `${given}/${rest}`;
}

/** Volumes in use by one command; each is opened once. */
export class Volumes implements AsyncDisposable {
  readonly #flags: ClientFlags;
  readonly #clusters = new Map<string, Cluster>();
  readonly #volumes = new Map<string, Volume>();

  constructor(flags: ClientFlags) {
    this.#flags = flags;
  }

  /** The connection that a place's volume is of. */
  async cluster({ managerAddress }: Place): Promise<Cluster> {
    const known = this.#clusters.get(managerAddress);
    if (known !== undefined) return known;
    const secret = secretOf(this.#flags);
    const made = await orFail(() => connect({ managerAddress, secret, ioTimeoutMs: ioTimeoutMs(this.#flags) }));
    this.#clusters.set(managerAddress, made);
    return made;
  }

  /** A place's volume. */
  async volume(place: Place): Promise<Volume> {
    const key = `${place.managerAddress}/${place.volume}`, known = this.#volumes.get(key);
    if (known !== undefined) return known;
    const cluster = await this.cluster(place);
    const opened = await orFail(() => cluster.open(place.volume));
    this.#volumes.set(key, opened);
    return opened;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const cluster of this.#clusters.values()) await cluster.close();
  }
}

async function orFail<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    // What the manager says is one line for a person.
    if (error instanceof Error && (error as Partial<FileError>).code !== undefined) {
      throw new CommandError(error.message);
    }
    throw error;
  }
}
