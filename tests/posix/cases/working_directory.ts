/** chdir(2), fchdir(2), getcwd(2). */

import { assertEquals } from "@std/assert";
import { fails, kernel } from "../case.ts";
import { O } from "../constants.ts";
import { kernelPathCases } from "../path_cases.ts";

kernelPathCases({ name: "chdir() to", call: (fs, path) => fs.chdir(path), finds: true, follows: true });

kernel("paths start where chdir() went", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "found");
  await fs.chdir("dir");
  assertEquals(await fs.readText("file"), "found");
});

kernel("getcwd() tells the path of the working directory", async (fs) => {
  await fs.mkdir("dir");
  await fs.chdir("dir");
  assertEquals(await fs.getcwd(), `${fs.folder}/dir`);
});

kernel("getcwd() tells the new path after the directory was renamed", async (fs) => {
  await fs.mkdir("dir");
  await fs.chdir("dir");
  await fs.rename("../dir", "../moved");
  assertEquals(await fs.getcwd(), `${fs.folder}/moved`);
});

kernel("chdir() to a file is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", fs.chdir("file"));
});

kernel("fchdir() goes to an open directory", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "found");
  await fs.fchdir((await fs.open("dir", O.RDONLY)).fd);
  assertEquals(await fs.readText("file"), "found");
});

kernel("fchdir() to a file is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", fs.fchdir((await fs.open("file", O.RDONLY)).fd));
});

kernel("chdir(..) goes to the present parent of a moved directory", async (fs) => {
  await fs.mkdir("from");
  await fs.mkdir("to");
  await fs.mkdir("from/dir");
  await fs.chdir("from/dir");
  await fs.rename(`${fs.folder}/from/dir`, `${fs.folder}/to/dir`);
  await fs.chdir("..");
  assertEquals(await fs.getcwd(), `${fs.folder}/to`);
});

kernel("getcwd() into a buffer that is too small is ERANGE", async (fs) => {
  await fails("ERANGE", fs.call("getcwd", [{ out: 2 }, 2]));
});
