/** readlink(2). */

import { assertEquals } from "@std/assert";
import { both, fails, kernel, text } from "../case.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

pathCases({ name: "readlink() of", call: (fs, path) => fs.readlink(path), finds: true });

for (const target of ["name", "../up", "/absolute/path", ".", "a//b/", "ünïcödé", " spaces "]) {
  both(`readlink() tells the target ${JSON.stringify(target)} as it was given`, async (fs) => {
    await fs.symlink(target, "link");
    assertEquals(await fs.readlink("link"), target);
  });
}

for (const type of fileTypes) {
  if (type === "symlink") continue;
  kernel(`readlink() of a ${type} is EINVAL`, async (fs) => {
    await fs.make(type, "name");
    await fails("EINVAL", fs.readlink("name"));
  });
}

kernel("readlink() cuts what does not fit into the buffer", async (fs) => {
  await fs.symlink("0123456789", "link");
  assertEquals(text(await fs.readlinkBytes("link", 4)), "0123");
});

kernel("readlink() into a buffer of no bytes is EINVAL", async (fs) => {
  await fs.symlink("target", "link");
  await fails("EINVAL", fs.readlinkBytes("link", 0));
});

both("readlink() does not follow: a link to a link is the second's name", async (fs) => {
  await fs.symlink("nowhere", "one");
  await fs.symlink("one", "two");
  assertEquals(await fs.readlink("two"), "one");
});
