/**
 * What a test needs beyond Deno: root, /dev/fuse, programs of Debian packages. Root installs missing packages once and
 * quietly; what cannot be had is in the test's name with the command that installs it, and the test is ignored, or fails
 * when SEALFS_TEST_REQUIRE=1.
 *
 * @module
 */

import { installed } from "../ffi/fuse_mounted.ts";

/** Programs that tests use, and the Debian package each is in. */
const packages: Record<string, string> = {
  bindfs: "bindfs",
  dbench: "dbench",
  fio: "fio",
  git: "git",
  "mkfs.ext4": "e2fsprogs",
  mount: "mount",
  npm: "npm",
  sqlite3: "sqlite3",
  "stress-ng": "stress-ng",
  tar: "tar",
};
/** Installing these draws in hundreds of packages: a person decides. */
const notInstalled = ["npm"];
/** Time apt-get may take. */
const installTimeout = "300s";

/** A program that {@linkcode needs} knows. */
export type Program = keyof typeof packages;

/** True for the long versions of tests, `deno task test:full`. */
export const full = Deno.env.get("SEALFS_TEST_FULL") === "1";
const required = Deno.env.get("SEALFS_TEST_REQUIRE") === "1";

function isRoot(): boolean {
  return Deno.uid() === 0;
}

function hasFuse(): boolean {
  try {
    return Deno.statSync("/dev/fuse").isCharDevice === true;
  } catch {
    return false;
  }
}

function aptGet(...args: string[]): boolean {
  try {
    return new Deno.Command("timeout", {
      args: [installTimeout, "apt-get", "-y", "-qq", ...args],
      env: { DEBIAN_FRONTEND: "noninteractive" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).outputSync().success;
  } catch {
    return false;
  }
}

/** Installs what is absent and can be installed; what is absent then. */
function provide(programs: readonly string[]): string[] {
  const absent = programs.filter((program) => !installed(program));
  const wanted = absent.filter((program) => !notInstalled.includes(program)).map((program) => packages[program]);
  if (wanted.length === 0 || !isRoot()) return absent;
  const install = () => aptGet("--no-install-recommends", "install", ...wanted);
  if (!install() && aptGet("update")) install();
  return absent.filter((program) => !installed(program));
}

/** What a test is registered with. */
export interface Need {
  /** Added to the test's name. */
  suffix: string;
  ignore: boolean;
  /** What is missing, "" when nothing is. */
  missing: string;
}

/** Whether root, /dev/fuse and `programs` are there, after installing what can be. */
export function needs(...programs: Program[]): Need {
  const absent = provide(programs);
  const lacks: string[] = [];
  if (!isRoot()) lacks.push("root");
  if (!hasFuse()) lacks.push("/dev/fuse");
  if (absent.length > 0) lacks.push(`apt-get install ${absent.map((program) => packages[program]).join(" ")}`);
  const missing = lacks.join(", ");
  const words = ["root", "/dev/fuse", ...programs];
  return {
    suffix: missing === "" ? `(needs ${words.join(", ")})` : `(needs ${words.join(", ")}; missing: ${missing})`,
    ignore: missing !== "" && !required,
    missing,
  };
}

/** A test that is ignored, or fails, when something it needs is missing. */
export function needyTest(name: string, need: Need, fn: (t: Deno.TestContext) => Promise<void>): void {
  Deno.test({
    name: `${name} ${need.suffix}`,
    ignore: need.ignore,
    fn: (t) => {
      if (need.missing !== "") throw new Error(`SEALFS_TEST_REQUIRE=1, and missing: ${need.missing}`);
      return fn(t);
    },
  });
}

/** As {@linkcode needyTest}, for a step of a test. */
export async function needyStep(t: Deno.TestContext, name: string, need: Need, fn: () => Promise<void>): Promise<void> {
  await t.step({
    name: need.missing === "" ? name : `${name} ${need.suffix}`,
    ignore: need.ignore,
    fn: async () => {
      if (need.missing !== "") throw new Error(`SEALFS_TEST_REQUIRE=1, and missing: ${need.missing}`);
      await fn();
    },
  });
}
