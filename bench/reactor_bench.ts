/**
 * A round trip of a small frame between two reactors on two threads, over a Unix socket and over TCP, against the same
 * by Deno's own event loop.
 *
 * @module
 */

import { SocketNetwork } from "../ffi/net.ts";
import { Reactor } from "../ffi/reactor.ts";

const frameBytes = 128;
/** Not a server's: a name of the abstract socket that nobody else has. */
const serverId = 1_000_000 + Deno.pid;

const worker = new Worker(new URL("./echo_worker.ts", import.meta.url), { type: "module" });
const port = await new Promise<number>((resolve) => {
  worker.onmessage = ({ data }) => resolve(data.port);
  worker.postMessage({ serverId });
});
const reactor = new Reactor({ arenaBytes: 64 << 20 });
const network = new SocketNetwork(reactor, { avoidUnixMs: 0 });
const frame = new Uint8Array(frameBytes);
new DataView(frame.buffer).setUint32(0, frameBytes, true);

function roundTrips(id: number): () => void {
  const link = network.connect({ serverId: id, address: `127.0.0.1:${port}`, store: 0 });
  let echoed = false;
  link.onFrame = () => echoed = true;
  link.onClose = (reason) => {
    throw new Error(reason);
  };
  return () => {
    echoed = false;
    link.send(frame);
    reactor.run(() => echoed);
  };
}

const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
const echo = new Worker(
  "data:text/javascript," + encodeURIComponent(`
    self.onmessage = async ({ data }) => {
      const connection = await Deno.connect({ port: data });
      connection.setNoDelay(true);
      const bytes = new Uint8Array(${frameBytes});
      for (;;) await connection.write(bytes.subarray(0, await connection.read(bytes)));
    };`),
  { type: "module" },
);
echo.postMessage((listener.addr as Deno.NetAddr).port);
const connection = await listener.accept();
connection.setNoDelay(true);
const bytes = new Uint8Array(frameBytes);

const unix = roundTrips(serverId), tcp = roundTrips(serverId + 1);
Deno.bench("two reactors, Unix socket", { group: "round trip of 128 bytes", baseline: true }, unix);
Deno.bench("two reactors, TCP", { group: "round trip of 128 bytes" }, tcp);
Deno.bench("two event loops, TCP", { group: "round trip of 128 bytes" }, async () => {
  await connection.write(frame);
  await connection.read(bytes);
});
