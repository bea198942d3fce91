/** The reactor's side of tests/ffi/mailbox_test.ts: answers by what the message says. */

import { ReactorMailbox } from "../../ffi/mailbox.ts";
import type { MailboxPort } from "../../ffi/mailbox.ts";
import { Reactor } from "../../ffi/reactor.ts";

interface Order {
  do: string;
  count?: number;
  value?: unknown;
}

const scope = self as unknown as { onmessage: (event: { data: MailboxPort }) => Promise<void>; close(): void };

scope.onmessage = async ({ data }) => {
  const reactor = new Reactor({ arenaBytes: 16 << 20 });
  const mailbox = new ReactorMailbox(reactor, data);
  let posted = 0;
  mailbox.onMessage = (message) => {
    if (message instanceof Uint8Array) {
      posted += message.length;
      return;
    }
    const order = message as Order;
    if (order.do === "stop") reactor.stop();
    if (order.do === "die") throw new Error("the reactor's own bug");
    if (order.do === "flood") {
      for (let i = 0; i < order.count!; i++) {
        mailbox.post({ flood: i, pad: "x".repeat(500) });
      }
    }
    if (order.do === "stall") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  };
  mailbox.onCall = (message, answer) => {
    const order = message as Order;
    switch (order.do) {
      case "echo":
        return answer.reply(order.value);
      case "late":
        return reactor.after(30, () => answer.reply("late"));
      case "never":
        return;
      case "posted":
        return answer.reply(posted);
      case "ask":
        return mailbox.call(order.value, 500).listen((reply) => answer.reply(reply));
      default:
        return answer.fail(`unknown order ${order.do}`);
    }
  };
  await mailbox.guard(() => reactor.serve(10));
  mailbox.close();
  reactor.close();
  scope.close();
};
