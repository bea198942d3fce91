/**
 * The library's reactor: answers the calls of the main thread from whatever file systems a backend has, until it is told
 * to stop. For the Worker's thread.
 *
 * @module
 */

import type { FileSystem } from "../../core/client/filesystem.ts";
import { failed, type Result } from "../../core/errno.ts";
import { type Task, wait } from "../../core/task.ts";
import { openLogger } from "../log.ts";
import { type Answer, ReactorMailbox } from "../mailbox.ts";
import { Reactor } from "../reactor.ts";
import {
  type LibraryCall,
  type LibraryOrder,
  type LibraryReport,
  type LibraryWorkerStart,
  slotBytes,
  slotsMax,
} from "./messages.ts";
import { LibraryService } from "./service.ts";

/** Time that closes which are still to be sent get at the end. */
const finishMs = 3_000;
/** Time that closed links get to let go of their descriptors. */
const lingerMs = 20;

/** Where volumes come from. */
export interface LibraryBackend {
  /** A volume by its id in the map, or an errno. */
  openFileSystem(id: number, readOnly: boolean): Result<FileSystem>;
  order(order: LibraryOrder): void;
  /** Sends what is still to be sent. */
  finish(): Task<void>;
  close(): void;
}

/** Serves until the main thread says stop. */
export function serveLibrary(
  start: LibraryWorkerStart,
  make: (reactor: Reactor, mailbox: ReactorMailbox) => LibraryBackend,
): void {
  const reactor = new Reactor({ log: openLogger(start.log).log });
  const mailbox = new ReactorMailbox(reactor, start.mailbox);
  const backend = make(reactor, mailbox);
  const { arena, scheduler } = reactor;
  const slotsAt = arena.reserve(slotsMax * slotBytes, 4096);
  const service = new LibraryService({
    scheduler,
    slots: arena.u8.subarray(slotsAt, slotsAt + slotsMax * slotBytes),
    openFileSystem: (id, readOnly) => backend.openFileSystem(id, readOnly),
  });
  mailbox.onMessage = (message) => backend.order(message as LibraryOrder);
  mailbox.onCall = (message, answer) => {
    const call = message as LibraryCall;
    const served = call.call === "stop" ? stop(reactor, service, backend) : service.call(call);
    scheduler.spawn(served).listen((result) => reply(answer, result));
  };
  const { base: arenaAddress, limitBytes: arenaBytes } = arena;
  const ready: LibraryReport = { type: "ready", slotsAddress: arenaAddress + slotsAt, arenaAddress, arenaBytes };
  mailbox.post(ready);
  mailbox.guard(() => reactor.run());
  mailbox.close();
  reactor.close();
}

function reply(answer: Answer, result: Result<object>): void {
  answer.reply(failed(result) ? result : { ...result });
}

function* stop(reactor: Reactor, service: LibraryService, backend: LibraryBackend): Task<Result<object>> {
  const finished = reactor.scheduler.spawn(finish(service, backend));
  const untilMs = reactor.nowMs() + finishMs;
  while (!finished.settled && reactor.nowMs() < untilMs) yield* wait(reactor.sleep(2));
  backend.close();
  reactor.after(lingerMs, () => reactor.stop());
  return {};
}

function* finish(service: LibraryService, backend: LibraryBackend): Task<void> {
  yield* service.call({ call: "stop", ask: {} });
  yield* backend.finish();
}
