/** getdents64(2): what a directory tells of its names. */

import { assert, assertEquals } from "@std/assert";
import { both, fails, kernel, text } from "../case.ts";
import { DT, O, SEEK } from "../constants.ts";
import { fileTypes, typeBits } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

const large = 300;

pathCases({ name: "readdir() of", call: (fs, path) => fs.readdir(path), finds: true, follows: true });

both("an empty directory has no entries but . and ..", async (fs) => {
  await fs.mkdir("dir");
  assertEquals(await fs.readdir("dir"), []);
});

kernel("a directory tells . and .. with their inodes", async (fs) => {
  await fs.mkdir("dir");
  await fs.mkdir("dir/inner");
  const entries = await (await fs.open("dir/inner", O.RDONLY)).dirents();
  const inodes = Object.fromEntries(entries.map(({ name, ino }) => [text(name), ino]));
  assertEquals(inodes, { ".": (await fs.stat("dir/inner")).ino, "..": (await fs.stat("dir")).ino });
});

for (const type of fileTypes) {
  kernel(`readdir() tells that a ${type} is one`, async (fs) => {
    await fs.make(type, "name");
    assertEquals(await fs.readdir("."), [{ name: "name", type: typeBits[type] >> 12 }]);
  });
}

kernel("readdir() tells each name's inode", async (fs) => {
  for (const type of fileTypes) await fs.make(type, type);
  for (const { name, ino } of await (await fs.open(".", O.RDONLY)).dirents()) {
    const found = text(name);
    if (!found.startsWith(".")) assertEquals(ino, (await fs.lstat(found)).ino, found);
  }
});

both(`readdir() tells ${large} names, each once`, async (fs) => {
  const names = Array.from({ length: large }, (_, i) => `name-${i}`);
  await fs.mkdir("dir");
  await Promise.all(names.map((name) => fs.writeFile(`dir/${name}`, "")));
  assertEquals((await fs.readdir("dir")).map(({ name }) => name).sort(), names.toSorted());
});

kernel("readdir() by small buffers tells the same names", async (fs) => {
  const names = Array.from({ length: 100 }, (_, i) => `name-${i}`.padEnd(50 + i, "x"));
  await Promise.all(names.map((name) => fs.writeFile(name, "")));
  const dir = await fs.open(".", O.RDONLY), found: string[] = [];
  for (let page = await dir.getdents(400); page.length > 0; page = await dir.getdents(400)) {
    found.push(...page.map(({ name }) => text(name)));
  }
  assertEquals(found.sort(), [".", "..", ...names].sort());
});

kernel("getdents64() tells all names at once that its buffer holds", async (fs) => {
  for (const name of ["a", "b", "c"]) await fs.writeFile(name, "");
  const page = await (await fs.open(".", O.RDONLY)).getdents(512);
  assertEquals(page.map(({ name }) => text(name)).sort(), [".", "..", "a", "b", "c"]);
});

kernel("getdents64() into a buffer that holds no entry is EINVAL", async (fs) => {
  await fs.writeFile("a name that is not that short", "");
  await fails("EINVAL", (await fs.open(".", O.RDONLY)).getdents(16));
});

kernel("getdents64() of a file is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", (await fs.open("file", O.RDONLY)).getdents());
});

kernel("getdents64() of a descriptor of O_PATH is EBADF", async (fs) => {
  await fails("EBADF", (await fs.open(".", O.PATH)).getdents());
});

kernel("seeking to an entry's cookie goes on behind that entry", async (fs) => {
  await Promise.all(Array.from({ length: 50 }, (_, i) => fs.writeFile(`name-${i}`, "")));
  const dir = await fs.open(".", O.RDONLY), all = await dir.dirents();
  for (const at of [0, 1, 2, 25, 50]) {
    await dir.lseek(all[at].cookie, SEEK.SET);
    assertEquals(
      (await dir.dirents()).map(({ name }) => text(name)),
      all.slice(at + 1).map(({ name }) => text(name)),
    );
  }
});

kernel("cookies of entries stay good while others are made and removed", async (fs) => {
  await Promise.all(Array.from({ length: 60 }, (_, i) => fs.writeFile(`stay-${i}`, "")));
  await Promise.all(Array.from({ length: 60 }, (_, i) => fs.writeFile(`go-${i}`, "")));
  const dir = await fs.open(".", O.RDONLY), all = await dir.dirents();
  const middle = all.findIndex(({ name }, i) => i > 50 && text(name).startsWith("stay"));
  await Promise.all(Array.from({ length: 60 }, (_, i) => fs.unlink(`go-${i}`)));
  await Promise.all(Array.from({ length: 30 }, (_, i) => fs.writeFile(`new-${i}`, "")));
  await dir.lseek(all[middle].cookie, SEEK.SET);
  const stays = (entries: { name: Uint8Array }[]) => {
    return entries.map(({ name }) => text(name)).filter((name) => name.startsWith("stay"));
  };
  assertEquals(stays(await dir.dirents()), stays(all.slice(middle + 1)));
});

kernel("names that stay are told once while others come and go", async (fs) => {
  const stay = Array.from({ length: 100 }, (_, i) => `stay-${i}`);
  await Promise.all(stay.map((name) => fs.writeFile(name, "")));
  const other = await fs.elsewhere(), dir = await fs.open(".", O.RDONLY), found: string[] = [];
  for (let round = 0, page = await dir.getdents(1000); page.length > 0; page = await dir.getdents(1000), round++) {
    found.push(...page.map(({ name }) => text(name)).filter((name) => name.startsWith("stay")));
    await other.writeFile(`new-${round}`, "");
    if (round > 0) await other.unlink(`new-${round - 1}`);
  }
  assertEquals(found.sort(), stay.toSorted());
});

kernel("names are removed while the directory is read, until it is empty", async (fs) => {
  await Promise.all(Array.from({ length: 150 }, (_, i) => fs.writeFile(`name-${i}`, "")));
  const dir = await fs.open(".", O.RDONLY);
  for (let page = await dir.getdents(1000); page.length > 0; page = await dir.getdents(1000)) {
    const names = page.map(({ name }) => text(name)).filter((name) => name.startsWith("name"));
    await Promise.all(names.map((name) => fs.unlink(name)));
  }
  assertEquals(await fs.readdir("."), []);
});

both("a name that another client makes or removes is in the next readdir() or not", async (fs) => {
  const other = await fs.elsewhere();
  await fs.mkdir("dir");
  assertEquals(await fs.readdir("dir"), []);
  await other.writeFile("dir/file", "");
  assertEquals((await fs.readdir("dir")).map(({ name }) => name), ["file"]);
  await other.unlink("dir/file");
  assertEquals(await fs.readdir("dir"), []);
});

both("a renamed name is told by its new name alone", async (fs) => {
  await fs.writeFile("old", "");
  await fs.rename("old", "new");
  assertEquals(await fs.readdir("."), [{ name: "new", type: DT.REG }]);
});

kernel("an open directory that was removed tells no more names", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  const dir = await fs.open("dir", O.RDONLY);
  await fs.unlink("dir/file");
  await fs.rmdir("dir");
  try {
    const names = (await dir.dirents()).map(({ name }) => text(name));
    assert(names.every((name) => name === "." || name === ".."), names.join(" "));
  } catch (error) {
    assert(/ENOENT|ESTALE/.test(String(error)), String(error));
  }
});

both("two readers of one directory do not disturb each other", async (fs) => {
  await fs.mkdir("dir");
  await Promise.all(Array.from({ length: 80 }, (_, i) => fs.writeFile(`dir/name-${i}`, "")));
  const lists = await Promise.all([fs.readdir("dir"), (await fs.elsewhere()).readdir("dir"), fs.readdir("dir")]);
  for (const list of lists) assertEquals(new Set(list.map(({ name }) => name)).size, 80);
});
