/**
 * The slots of sessions, as far as they live in memory: what is being executed, and the highest sequence seen in each.
 * A request that comes again while it runs waits for the same answer; one below the highest is a late duplicate. What
 * was executed and recorded is in the store (kind R); an answer that left no record (a refusal, a name that was there)
 * is kept here, so that a duplicate does not take effect after its asker was told that it had none.
 *
 * @module
 */

/** Slots a session may use in a store: more is a bug or an attack. */
export const slotsMax = 65535;

/** A slot in use. `waiting` are those who want the answer of the request that runs. */
interface Slot<W, A> {
  sequence: number;
  running: boolean;
  waiting: W[];
  /** The last request's answer if it left no record and is final. */
  kept: A | null;
}

/** Slots by session. `W` is whoever waits for an answer, `A` an answer. */
export class Slots<W, A> {
  #sessions = new Map<number, Map<number, Slot<W, A>>>();

  /** Begins a request: "run" it, or "wait" (added to those who wait); it is "old", or the slot is "busy" with
   * an older request, whose asker gave it up: it must not take effect after a later one. */
  begin(session: number, slotNumber: number, sequence: number, who: W): "run" | "wait" | "old" | "busy" {
    let slots = this.#sessions.get(session);
    if (slots === undefined) this.#sessions.set(session, slots = new Map());
    const slot = slots.get(slotNumber);
    if (slot === undefined) {
      slots.set(slotNumber, { sequence, running: true, waiting: [who], kept: null });
      return "run";
    }
    if (sequence < slot.sequence) return "old";
    if (slot.running && sequence > slot.sequence) return "busy";
    if (slot.running) {
      slot.waiting.push(who);
      return "wait";
    }
    if (sequence > slot.sequence) slot.kept = null;
    slot.sequence = sequence;
    slot.running = true;
    slot.waiting = [who];
    return "run";
  }

  /** The answer kept of the slot's request, once {@linkcode begin} said "run"; null: it has to be executed. */
  kept(session: number, slotNumber: number): A | null {
    return this.#sessions.get(session)?.get(slotNumber)?.kept ?? null;
  }

  /** The request is answered: returns those who wait for it. `kept`: the answer, if it is final and has no record. */
  end(session: number, slotNumber: number, sequence: number, kept: A | null): W[] {
    const slot = this.#sessions.get(session)?.get(slotNumber);
    if (slot === undefined || slot.sequence !== sequence) return [];
    const { waiting } = slot;
    slot.running = false;
    slot.waiting = [];
    slot.kept = kept;
    return waiting;
  }

  /** The session is dead. */
  drop(session: number): void {
    this.#sessions.delete(session);
  }

  /** Sessions that have used a slot. */
  sessions(): number[] {
    return [...this.#sessions.keys()];
  }
}
