/** A reactor that sends every frame back: the other side of reactor_bench.ts. */

import { SocketNetwork } from "../ffi/net.ts";
import { Reactor } from "../ffi/reactor.ts";

const scope = self as unknown as {
  onmessage: (event: { data: { serverId: number } }) => void;
  postMessage(message: unknown): void;
};

scope.onmessage = ({ data }) => {
  const reactor = new Reactor({ arenaBytes: 64 << 20 });
  const network = new SocketNetwork(reactor);
  const { port } = network.listen({
    address: "127.0.0.1:0",
    serverId: data.serverId,
    onLink: (link) => link.onFrame = (frame) => link.send(frame),
  });
  scope.postMessage({ port });
  reactor.run();
};
