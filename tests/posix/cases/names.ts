/** Names: which bytes they may have, how long they may be, and that they differ. */

import { assertEquals } from "@std/assert";
import { both, fails, kernel } from "../case.ts";
import { nameMax, O } from "../constants.ts";
import { longPath } from "../path_cases.ts";

const odd = {
  "a space": " ",
  "three dots": "...",
  "a dot at the start": ".hidden",
  "a backslash": "\\",
  "a newline": "a\nb",
  "a tab and a bell": "\t\x07",
  "a star and a question mark": "*?",
  "a dash at the start": "-rf",
  "a colon": "a:b",
  "quotes": `'"`,
  "an emoji": "🦭",
  "Chinese": "文件系統",
  "a combining accent": "e\u0301",
  "a byte order mark": "\ufeffname",
  "a right-to-left mark": "a\u200fb",
  "DEL": "\x7f",
};

for (const [what, name] of Object.entries(odd)) {
  both(`a name may be or have ${what}`, async (fs) => {
    await fs.mkdir("dir");
    await fs.writeFile(`dir/${name}`, what);
    assertEquals((await fs.readdir("dir")).map((entry) => entry.name), [name]);
    assertEquals(await fs.readText(`dir/${name}`), what);
    await fs.rename(`dir/${name}`, `dir/${name}2`);
    await fs.unlink(`dir/${name}2`);
    assertEquals(await fs.readdir("dir"), []);
  });
}

kernel("a name may have every byte but NUL and slash", async (fs) => {
  const bytes = Uint8Array.from({ length: 253 }, (_, i) => i + 1 < 0x2f ? i + 1 : i + 2);
  await fs.writeFile(bytes, "contents");
  const found = await (await fs.open(".", O.RDONLY)).dirents();
  assertEquals(found.map(({ name }) => name).filter((name) => name.length > 2), [bytes]);
  assertEquals(await fs.readText(bytes), "contents");
  await fs.unlink(bytes);
});

kernel("names of single bytes from 1 to 255 can all be there together", async (fs) => {
  await fs.mkdir("dir");
  const prefix = new TextEncoder().encode("dir/");
  const names = Array.from({ length: 255 }, (_, i) => i + 1).filter((byte) => byte !== 0x2f && byte !== 0x2e);
  await Promise.all(names.map((byte) => fs.writeFile(new Uint8Array([...prefix, byte]), "")));
  const found = await (await fs.open("dir", O.RDONLY)).dirents();
  assertEquals(found.map(({ name }) => name[0]).filter((byte) => byte !== 0x2e).sort((a, b) => a - b), names);
});

kernel("a name that is no UTF-8 is kept", async (fs) => {
  const name = Uint8Array.of(0xff, 0xfe, 0x80, 0xc0);
  await fs.mkdir(name);
  await fs.rmdir(name);
});

both("names that differ in case alone are different", async (fs) => {
  await fs.writeFile("name", "lower");
  await fs.writeFile("NAME", "upper");
  await fs.writeFile("Name", "title");
  assertEquals([await fs.readText("name"), await fs.readText("NAME"), await fs.readText("Name")], [
    "lower",
    "upper",
    "title",
  ]);
});

both("composed and decomposed characters are different names", async (fs) => {
  await fs.writeFile("\u00e9", "composed");
  await fs.writeFile("e\u0301", "decomposed");
  assertEquals([await fs.readText("\u00e9"), await fs.readText("e\u0301")], ["composed", "decomposed"]);
});

both("a name of 255 bytes is counted in bytes, not in characters", async (fs) => {
  const fits = "é".repeat(127) + "x";
  await fs.writeFile(fits, "");
  assertEquals((await fs.readdir("."))[0].name, fits);
  await fails("ENAMETOOLONG", fs.writeFile("é".repeat(128), ""));
});

both("names of 255 bytes that differ in their last byte are different", async (fs) => {
  const start = "n".repeat(nameMax - 1);
  await fs.writeFile(`${start}a`, "a");
  await fs.writeFile(`${start}b`, "b");
  assertEquals([await fs.readText(`${start}a`), await fs.readText(`${start}b`)], ["a", "b"]);
});

both("slashes in a row are one", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir//file", "contents");
  assertEquals(await fs.readText("dir///file"), "contents");
});

both(". in a path is where it stands", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("./dir/./file", "contents");
  assertEquals(await fs.readText("dir/././file"), "contents");
});

both(".. in a path goes up, through links where they lead", async (fs) => {
  await fs.mkdir("a");
  await fs.mkdir("a/b");
  await fs.symlink("a/b", "link");
  await fs.writeFile("a/file", "found");
  assertEquals(await fs.readText("link/../file"), "found");
  await fails("ENOENT", fs.stat("link/../link"));
});

both(".. of a missing directory is ENOENT", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOENT", fs.stat("none/../file"));
});

both(".. of a file is ENOTDIR", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENOTDIR", fs.stat("file/../file"));
});

kernel("a path of 4095 bytes made of long names works", async (fs) => {
  let depth = 0;
  for (; depth < 15; depth++) {
    await fs.mkdir("d".repeat(200));
    await fs.chdir("d".repeat(200));
  }
  await fs.writeFile("file", "deep");
  for (let i = 0; i < depth; i++) await fs.chdir("..");
  const path = `${"d".repeat(200)}/`.repeat(15) + "file";
  assertEquals(await fs.readText(longPath(path, 4095)), "deep");
});

kernel("directories may be deeper than any path is long", async (fs) => {
  for (let depth = 0; depth < 20; depth++) {
    await fs.mkdir("d".repeat(nameMax));
    await fs.chdir("d".repeat(nameMax));
  }
  await fs.writeFile("file", "deep");
  assertEquals(await fs.readText("file"), "deep");
});
