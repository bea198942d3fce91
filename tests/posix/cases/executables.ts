/** execve(2): programs that are on the file system. */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { alice, fails, kernel, staff } from "../case.ts";
import { O } from "../constants.ts";
import type { Kernel } from "../kernel.ts";

/** Puts a program of this machine at `name`. */
async function install(fs: Kernel, program: string, name: string, mode = 0o755): Promise<void> {
  await fs.writeFile(name, await Deno.readFile(program), mode);
}

/** A program that runs until it is ended. */
async function sleeper(fs: Kernel): Promise<{ end(): Promise<void> }> {
  await install(fs, "/usr/bin/sleep", "program");
  const child = new Deno.Command(`${fs.folder}/program`, { args: ["60"], stdout: "null", stderr: "null" }).spawn();
  const end = async () => {
    child.kill("SIGKILL");
    await child.status;
  };
  return { end };
}

kernel("a program runs from the file system", async (fs) => {
  await install(fs, "/usr/bin/echo", "program");
  assertEquals((await fs.run(["./program", "hello"])).stdout, "hello\n");
});

kernel("a script runs by the interpreter that its first line names", async (fs) => {
  await fs.writeFile("script", "#!/bin/sh\necho from $0 $1\n", 0o755);
  assertStringIncludes((await fs.run(["./script", "argument"])).stdout, "argument");
});

kernel("an interpreter may be on the file system itself", async (fs) => {
  await install(fs, "/usr/bin/cat", "cat");
  await fs.writeFile("script", `#!${fs.folder}/cat\ncontents\n`, 0o755);
  assertStringIncludes((await fs.run(["./script"])).stdout, "contents");
});

kernel("a program runs through a symbolic link", async (fs) => {
  await install(fs, "/usr/bin/echo", "program");
  await fs.symlink("program", "link");
  assertEquals((await fs.run(["./link", "linked"])).stdout, "linked\n");
});

kernel("a program without any x bit does not run, not even for root", async (fs) => {
  await install(fs, "/usr/bin/echo", "program", 0o644);
  const { code, stderr } = await fs.run(["./program"]);
  assertEquals(code, 126);
  assertStringIncludes(stderr, "Permission denied");
});

kernel("a program runs for those alone whose x bit is set", async (fs) => {
  await install(fs, "/usr/bin/echo", "program", 0o750);
  await fs.chown("program", 0, staff);
  assertEquals((await fs.as({ ...alice, gid: staff }).run(["./program", "member"])).stdout, "member\n");
  assertEquals((await fs.as(alice).run(["./program", "other"])).code, 126);
});

kernel("a setuid program runs with the rights of its owner", async (fs) => {
  await install(fs, "/usr/bin/id", "program");
  await fs.chown("program", 4242, 0);
  await fs.chmod("program", 0o4755);
  assertEquals((await fs.as(alice).run(["./program", "-u"])).stdout, "4242\n");
});

kernel("a setgid program runs with the rights of its group", async (fs) => {
  await install(fs, "/usr/bin/id", "program");
  await fs.chown("program", 0, 4343);
  await fs.chmod("program", 0o2755);
  assertEquals((await fs.as(alice).run(["./program", "-g"])).stdout, "4343\n");
});

kernel("opening a running program to write is ETXTBSY", async (fs) => {
  const { end } = await sleeper(fs);
  try {
    await fails("ETXTBSY", fs.open("program", O.WRONLY));
    await fails("ETXTBSY", fs.open("program", O.RDWR));
  } finally {
    await end();
  }
  await fs.open("program", O.WRONLY);
});

kernel("truncate() of a running program is ETXTBSY", async (fs) => {
  const { end } = await sleeper(fs);
  try {
    await fails("ETXTBSY", fs.truncate("program", 0));
  } finally {
    await end();
  }
});

kernel("a running program can be read, renamed, replaced and unlinked", async (fs) => {
  const { end } = await sleeper(fs);
  try {
    await fs.readFile("program");
    await fs.rename("program", "moved");
    await fs.writeFile("new", "");
    await fs.rename("new", "moved");
    await fs.unlink("moved");
  } finally {
    await end();
  }
});

kernel("a program that is open for writing does not run: ETXTBSY", async (fs) => {
  await install(fs, "/usr/bin/echo", "program");
  await fs.open("program", O.WRONLY);
  const { code, stderr } = await fs.run(["./program"]);
  assertEquals(code, 126);
  assertStringIncludes(stderr, "Text file busy");
});

kernel("another client runs what was just written", async (fs) => {
  const other = await fs.elsewhere();
  await install(fs, "/usr/bin/echo", "program");
  assertEquals((await other.run(["./program", "fresh"])).stdout, "fresh\n");
});
