/** Folders of servers: whose data is where. */

import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { type HeldServer, holdServer } from "../../ffi/server_identity.ts";

function withFolder(body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync({ prefix: "sealfs-test-" });
  try {
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function held(result: HeldServer | string): HeldServer {
  assert(typeof result !== "string", String(result));
  return result;
}

/** Why the folders are refused. */
function fault(result: HeldServer | string): string {
  assert(typeof result === "string", "must be refused");
  return result;
}

Deno.test("holdServer() makes an identity once and finds it, with paths in any order", () => {
  withFolder((folder) => {
    const [databasePath, a, b] = ["db", "a", "b"].map((name) => `${folder}/${name}`);
    const first = held(holdServer({ databasePath, storagePaths: [a, b], stores: 3 }));
    const { identity } = first.file;
    first.join("cluster", 7);
    first.close();
    const again = held(holdServer({ databasePath, storagePaths: [b, a] }));
    assertEquals(again.file, { format: 1, identity, clusterId: "cluster", serverId: 7, stores: 3 });
    assertEquals(again.storagePaths, [a, b]);
    again.close();
  });
});

Deno.test("holdServer() refuses a second process, other stores, missing, added and foreign paths", () => {
  withFolder((folder) => {
    const [databasePath, a, b] = ["db", "a", "b"].map((name) => `${folder}/${name}`);
    const first = held(holdServer({ databasePath, storagePaths: [a, b] }));
    assertStringIncludes(fault(holdServer({ databasePath, storagePaths: [a, b] })), "another server process");
    first.join("cluster", 1);
    first.close();
    assertStringIncludes(
      fault(holdServer({ databasePath, storagePaths: [a, b], stores: 2 })),
      "--stores 2 contradicts",
    );
    assertStringIncludes(fault(holdServer({ databasePath, storagePaths: [a] })), "has 2 storage paths");
    const more = fault(holdServer({ databasePath, storagePaths: [a, b, `${folder}/c`] }));
    assertStringIncludes(more, "cannot be added");
    const stranger = fault(holdServer({ databasePath: `${folder}/db2`, storagePaths: [a] }));
    assertStringIncludes(stranger, "belongs to another server");
    const other = held(holdServer({ databasePath: `${folder}/db3`, storagePaths: [`${folder}/d`] }));
    assertNotEquals(other.file.identity, first.file.identity);
    other.close();
    assertStringIncludes(fault(holdServer({ databasePath, storagePaths: [a, `${folder}/d`] })), "another server");
  });
});

Deno.test("holdServer() goes on after a crash between the first files, and refuses damaged ones", () => {
  withFolder((folder) => {
    const databasePath = `${folder}/db`, storagePaths = [`${folder}/a`];
    held(holdServer({ databasePath, storagePaths })).close();
    Deno.removeSync(`${folder}/a/storage.json`);
    const again = held(holdServer({ databasePath, storagePaths }));
    again.join("cluster", 1);
    again.close();
    Deno.removeSync(`${folder}/a/storage.json`);
    assertStringIncludes(fault(holdServer({ databasePath, storagePaths })), "holds no data of this server");
    Deno.writeTextFileSync(`${databasePath}/server.json`, "{");
    assertStringIncludes(fault(holdServer({ databasePath, storagePaths })), "damaged");
    Deno.writeTextFileSync(`${databasePath}/server.json`, '{"format": 9}');
    assertStringIncludes(fault(holdServer({ databasePath, storagePaths })), "format 9");
  });
});
