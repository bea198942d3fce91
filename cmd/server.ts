/**
 * `sealfs server`: one server with its stores, until a signal.
 *
 * @module
 */

import { resolve } from "@std/path";
import { openLogger } from "../ffi/log.ts";
import { runServer } from "../ffi/server_process.ts";
import { defaultManagerAddress, logFlags, metricsFlag, readSecret, secretFlag } from "./config.ts";
import { command, CommandError } from "./flags.ts";
import { writeOut } from "./output.ts";
import { stopSignal } from "./signals.ts";
import { version } from "./version.ts";

/** Where a server listens when nobody says. */
const defaultServerAddress = "127.0.0.1:8085";

/** Runs the command. */
export const { run } = command(
  {
    name: "sealfs server",
    summary: "Store a share of the files and of their names",
    details: "A server is known by its data: started again on another address it is the same server. It waits for\n" +
      "the manager if that is not there yet.",
    flags: [
      {
        name: "manager-address",
        type: "address",
        env: "SEALFS_MANAGER_ADDRESS",
        help: "where the manager is",
        default: defaultManagerAddress,
      },
      {
        name: "server-address",
        type: "address",
        help: "where this server listens and others reach it",
        default: defaultServerAddress,
      },
      { name: "database-path", type: "string", value: "DIR", help: "folder for names and logs", required: true },
      {
        name: "storage-path",
        type: "string",
        value: "DIR",
        help: "folder for the contents of files",
        required: true,
        repeatable: true,
      },
      {
        name: "stores",
        type: "integer",
        min: 1,
        max: 64,
        help: "stores of a new server, one thread each; 1 if not given",
      },
      { name: "weight", type: "integer", min: 1, max: 1_000_000, help: "share of the data it takes", default: 100 },
      metricsFlag,
      secretFlag,
      ...logFlags,
    ],
    examples: [
      "sealfs server --manager-address 10.0.0.1:8081 --server-address 10.0.0.2:8085 " +
      "--database-path /nvme/sealfs --storage-path /data/sealfs",
    ],
  },
  async ({ flags }) => {
    const secretFile = flags["secret-file"];
    const failure = await runServer({
      managerAddress: flags["manager-address"],
      address: flags["server-address"],
      databasePath: resolve(flags["database-path"]),
      storagePaths: flags["storage-path"].map((path) => resolve(path)),
      stores: flags.stores,
      weight: flags.weight,
      secret: secretFile === undefined ? undefined : readSecret(secretFile),
      metricsAddress: flags["metrics-address"],
      version,
      logger: openLogger({ level: flags["log-level"], file: flags["log-file"] }),
      stop: stopSignal(),
      onReady: (id, cluster) => {
        writeOut(`sealfs server: server ${id} ready at ${flags["server-address"]}, cluster ${cluster}\n`);
      },
    });
    if (failure !== undefined) throw new CommandError(failure);
    return 0;
  },
);
