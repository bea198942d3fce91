import { assert, assertEquals, assertMatch } from "@std/assert";
import { ClientHandshake, nonceBytes, ServerHandshake, type ServerIdentity } from "../../../core/protocol/hello.ts";
import { protocolVersion, status } from "../../../core/protocol/frame.ts";
import { peerKind } from "../../../core/protocol/messages.ts";

const secret = new TextEncoder().encode("correct horse");
const identity: ServerIdentity = { clusterId: "c1", serverId: 7, store: 1, incarnation: 42, secret };

function client(change: Record<string, unknown> = {}, key: Uint8Array | null = secret): ClientHandshake {
  const nonce = new Uint8Array(nonceBytes).fill(3);
  return new ClientHandshake(
    { clusterId: "c1", kind: peerKind.client, session: 9, store: 1, serverId: 7, nonce, ...change },
    key,
  );
}

function server(change: Partial<ServerIdentity> = {}): ServerHandshake {
  return new ServerHandshake({ ...identity, ...change }, new Uint8Array(nonceBytes).fill(5));
}

Deno.test("handshake ends with the peer known when both hold the secret", () => {
  for (const key of [secret, null]) {
    const a = client({}, key), b = server({ secret: key });
    const answer = b.onHello(a.hello);
    assertEquals(answer.status, 0);
    assertEquals(b.peer, null);
    const judged = a.accept(answer.reply!);
    assert("proof" in judged);
    assertEquals(judged.proof.length, key === null ? 0 : 32);
    assertEquals(b.onProve(judged.proof), 0);
    assertEquals(b.peer, { kind: peerKind.client, session: 9, version: protocolVersion });
  }
});

Deno.test("ServerHandshake.onHello() refuses another cluster, server, store, version or kind", () => {
  for (
    const [change, reason] of [
      [{ clusterId: "c2" }, /cluster c2/],
      [{ serverId: 8 }, /server 8/],
      [{ store: 0 }, /store 0/],
      [{ kind: 0 }, /kind 0/],
      [{ nonce: new Uint8Array(3) }, /nonce/],
      [{ version: protocolVersion + 1 }, /version/],
      [{ version: 1 }, /version/],
      [{ version: 0 }, /version/],
    ] as const
  ) {
    const b = server();
    assertEquals(b.onHello({ ...client().hello, ...change }).status, status.refused);
    assertMatch(b.reason, reason);
  }
});

Deno.test("ClientHandshake.accept() refuses a server without the right secret, and one that is not meant", () => {
  const others: [Partial<ServerIdentity>, Uint8Array | null][] = [
    [{ secret: null }, secret],
    [{ secret: new Uint8Array(4) }, secret],
    [{}, null],
  ];
  for (const [change, key] of others) {
    const a = client({}, key);
    assert("reason" in a.accept(server(change).onHello(a.hello).reply!));
  }
  const a = client();
  const reply = server().onHello(a.hello).reply!;
  assert("reason" in a.accept({ ...reply, serverId: 8 }));
  assert("reason" in a.accept({ ...reply, nonce: new Uint8Array(nonceBytes) }));
});

Deno.test("ServerHandshake.onProve() refuses a wrong proof, an early one and a reflected one", () => {
  assertEquals(server().onProve(new Uint8Array(32)), status.refused);
  for (const own of [false, true]) {
    const b = server();
    const reply = b.onHello(client().hello).reply!;
    assertEquals(b.onProve(own ? reply.proof : new Uint8Array(0)), status.refused);
    assertEquals(b.peer, null);
  }
});
