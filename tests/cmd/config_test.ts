/** manager.yaml, flags over it, and the secret. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { managerFlags, managerSettings, parseManagerFile, readManagerFile, readSecret } from "../../cmd/config.ts";
import { CommandError, parseCommand } from "../../cmd/flags.ts";

function withFolder(body: (folder: string) => void): void {
  const folder = Deno.makeTempDirSync();
  try {
    body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function settings(args: string[], env: Record<string, string> = {}) {
  const parsed = parseCommand({ name: "sealfs manager", summary: "", flags: managerFlags }, args, (name) => env[name]);
  assert(parsed !== undefined);
  return managerSettings(parsed.flags, (name) => env[name]);
}

const whole = `address: "[::1]:9000"
metrics_address: "[::1]:9001"
data_path: data
log_level: info
shards: 64
replicas: 2
secret_file: /etc/secret
heartbeat_interval_ms: 100
server_timeout_ms: 1000
`;

Deno.test("parseManagerFile() reads every key, with paths from the file's folder", () => {
  assertEquals(parseManagerFile(whole, "/etc/sealfs/manager.yaml"), {
    address: "[::1]:9000",
    metricsAddress: "[::1]:9001",
    dataPath: "/etc/sealfs/data",
    logLevel: "info",
    shards: 64,
    replicas: 2,
    secretFile: "/etc/secret",
    heartbeatIntervalMs: 100,
    serverTimeoutMs: 1000,
  });
  assertEquals(parseManagerFile("# nothing\n", "m"), {});
  assertEquals(parseManagerFile("", "m"), {});
});

Deno.test("parseManagerFile() names file and line of what is wrong", () => {
  const cases: [string, string][] = [
    ["address: a:1\nshard: 5\n", 'm.yaml:2: unknown key "shard"'],
    ["\n\naddress: 8081\n", 'm.yaml:3: address: "8081" is not an address'],
    ["shards: 5000\n", 'm.yaml:1: shards: "5000" is too large: at most 4096'],
    ["# x\nreplicas: many\n", 'm.yaml:2: replicas: "many" is not a whole number'],
    ["replicas: 1.5\n", "whole number"],
    ["log_level: loud\n", 'm.yaml:1: log_level: "loud" is not one of error, warn'],
    ["data_path: [a]\n", "m.yaml:1: data_path: a list is not a text"],
    ["data_path:\n", 'm.yaml:1: data_path: "null" is not a text'],
    ["address: a:1\naddress: b:1\n", "m.yaml:2: not valid YAML"],
    ["a: b: c\n", "m.yaml:1: not valid YAML"],
    ["shards: 5\n\tx: 1\n", "m.yaml:2: "],
    ["shards: 5\n- x\n", "m.yaml:2: not valid YAML"],
    ["- a\n", 'm.yaml:1: must hold lines of the form "key: value"'],
    ["{shards: 5,\n bad: 6}\n", 'm.yaml:2: unknown key "bad"'],
    ['"toString": 5\n', 'm.yaml:1: unknown key "toString"'],
    ["__proto__: 5\n", "m.yaml:1: "],
    ["x".repeat(70_000), "m.yaml:1: longer than"],
  ];
  for (const [source, message] of cases) {
    const error = assertThrows(() => parseManagerFile(source, "m.yaml"), CommandError, message);
    assertEquals(error.message.split("\n").length, 1, error.message);
  }
});

Deno.test("parseManagerFile() refuses nested aliases at once", () => {
  let source = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n";
  for (let level = 1; level < 30; level++) {
    source += `a${level}: &a${level} [${Array(9).fill(`*a${level - 1}`).join(",")}]\n`;
  }
  assertThrows(() => parseManagerFile(source, "m"), CommandError, "unknown key");
  assertThrows(() => parseManagerFile(source.replace("a29:", "address:"), "m"), CommandError);
});

Deno.test("managerSettings() lets flags win over the file and the file over defaults", () =>
  withFolder((folder) => {
    Deno.writeTextFileSync(`${folder}/manager.yaml`, whole);
    const fromFile = settings(["--config", `${folder}/manager.yaml`]);
    assertEquals([fromFile.address, fromFile.shards, fromFile.dataPath], ["[::1]:9000", 64, `${folder}/data`]);
    const fromFlags = settings(["--config", `${folder}/manager.yaml`, "--address=h:1", "--log-level=error"]);
    assertEquals(fromFile.metricsAddress, "[::1]:9001");
    assertEquals(settings(["--metrics-address=h:2"]).metricsAddress, "h:2");
    assertEquals([fromFlags.address, fromFlags.logLevel, fromFlags.shards], ["h:1", "error", 64]);
    const fromEnv = settings([], { SEALFS_CONFIG_PATH: folder });
    assertEquals(fromEnv.address, "[::1]:9000");
    const defaults = settings(["--data-path", "/x"]);
    assertEquals([defaults.address, defaults.logLevel, defaults.shards], ["127.0.0.1:8081", "warn", undefined]);
  }));

Deno.test("managerSettings() refuses a file that does not exist and a timeout below the heartbeat", () => {
  assertThrows(() => settings(["--config", "/nowhere/m.yaml"]), CommandError, "/nowhere/m.yaml does not exist");
  assertThrows(() => settings([], { SEALFS_CONFIG_PATH: "/nowhere" }), CommandError, "/nowhere/manager.yaml");
  assertThrows(
    () => settings(["--data-path=/x", "--heartbeat-interval-ms=1000", "--server-timeout-ms=1500"]),
    CommandError,
    "at least twice",
  );
});

Deno.test("readManagerFile() understands the example", () => {
  const file = readManagerFile(new URL("../../examples/manager.yaml", import.meta.url).pathname);
  assertEquals(file.address, "127.0.0.1:8081");
  assert(file.dataPath?.endsWith("/examples/manager-data"));
});

Deno.test("every key of the file has a flag of the same name", () => {
  const names: string[] = managerFlags.map((flag) => flag.name);
  const message = assertThrows(() => parseManagerFile("x: 1", "m"), CommandError).message;
  const keys = message.slice(message.indexOf("there are") + 10).split(", ");
  assertEquals(keys.length, 9);
  for (const key of keys) assert(names.includes(key.replaceAll("_", "-")), key);
});

Deno.test("readSecret() trims the text and refuses files that others can read", () =>
  withFolder((folder) => {
    const path = `${folder}/secret`;
    Deno.writeTextFileSync(path, "  hush\n", { mode: 0o600 });
    assertEquals(readSecret(path), "hush");
    for (const mode of [0o644, 0o602, 0o660]) {
      Deno.chmodSync(path, mode);
      assertThrows(() => readSecret(path), CommandError, "chmod 600");
    }
    Deno.chmodSync(path, 0o600);
    Deno.writeTextFileSync(path, "\n");
    assertThrows(() => readSecret(path), CommandError, "is empty");
    assertThrows(() => readSecret(`${folder}/none`), CommandError, "does not exist");
    assertThrows(() => readSecret(folder), CommandError, "not a file");
  }));
