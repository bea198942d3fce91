/**
 * The daemon's side of its keeper (ffi/keeper_process.ts): starts it when the first mount needs it, and hands it mounts.
 *
 * @module
 */

import { inherit, sendDescriptors, SOCK, socketPair } from "./descriptors.ts";
import { encodeHold } from "./keeper_messages.ts";
import { closeFd } from "./libc.ts";
import type { Logger } from "./log.ts";

/** Starts of a keeper that ended by itself, in one life of the daemon. */
const startsMax = 8;

/** A keeper that is started when it is needed. For the main thread. */
export class Keeper {
  readonly #command: readonly string[];
  readonly #logger: Logger;
  #control = -1;
  #starts = 0;

  /** `command`: program and arguments that run a keeper; the number of its socket is added. */
  constructor(command: readonly string[], logger: Logger) {
    this.#command = command;
    this.#logger = logger;
  }

  /**
   * Hands a mount over: its device (the caller's stays open) and the number of its connection. The daemon's end of the
   * mount's socket, close-on-exec, for the Worker that serves the mount; -1 when there can be no keeper.
   */
  hold(device: number, connection: number): number {
    if (this.#control < 0 && !this.#start()) return -1;
    const [ours, theirs] = socketPair(SOCK.SEQPACKET);
    const sent = sendDescriptors(this.#control, encodeHold(connection), [device, theirs]);
    closeFd(theirs);
    if (sent) return ours;
    closeFd(ours);
    return -1;
  }

  /** No more mounts: the keeper ends when those that it has are gone. */
  close(): void {
    if (this.#control < 0) return;
    closeFd(this.#control);
    this.#control = -1;
  }

  #start(): boolean {
    if (this.#starts++ >= startsMax) return false;
    const [ours, theirs] = socketPair(SOCK.SEQPACKET), [program, ...args] = this.#command;
    try {
      inherit(theirs);
      const child = new Deno.Command(program, {
        args: [...args, String(theirs)],
        cwd: "/",
        stdin: "null",
        stdout: "null",
        stderr: "null",
        // It outlives what ends the daemon, to end the daemon's mounts.
        detached: true,
      }).spawn();
      child.unref();
      this.#control = ours;
      child.status.then(() => this.#ended(ours));
      return true;
    } catch (error) {
      closeFd(ours);
      this.#logger.log("warn", "mount", `no keeper: ${(error as Error).message}`);
      return false;
    } finally {
      closeFd(theirs);
    }
  }

  #ended(control: number): void {
    if (this.#control !== control) return;
    this.close();
    this.#logger.log("warn", "mount", "the keeper has ended: the next mount starts another");
  }
}
