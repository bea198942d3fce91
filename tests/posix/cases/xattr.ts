/** Extended attributes: setxattr(2), getxattr(2), listxattr(2), removexattr(2), and their l- and f- kin. */

import { assertEquals, assertGreater } from "@std/assert";
import { alice, bob, both, fails, kernel, later, pattern, text } from "../case.ts";
import { O, XATTR } from "../constants.ts";
import { fileTypes } from "../kernel.ts";
import { pathCases } from "../path_cases.ts";

pathCases({
  name: "setxattr() of",
  call: (fs, path) => fs.setxattr(path, "user.name", "value"),
  finds: true,
  follows: true,
});
pathCases({ name: "getxattr() of", call: (fs, path) => fs.getxattr(path, "user.name"), finds: true, follows: true });
pathCases({ name: "listxattr() of", call: (fs, path) => fs.listxattr(path), finds: true, follows: true });
pathCases({
  name: "removexattr() of",
  call: (fs, path) => fs.removexattr(path, "user.name"),
  finds: true,
  follows: true,
});

both("an attribute is read as it was set", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.color", "blue");
  assertEquals(text(await fs.getxattr("file", "user.color")), "blue");
});

both("a directory has attributes too", async (fs) => {
  await fs.mkdir("dir");
  await fs.setxattr("dir", "user.color", "blue");
  assertEquals(text(await fs.getxattr("dir", "user.color")), "blue");
  await fs.rmdir("dir");
});

for (const size of [0, 1, 255, 2000]) {
  both(`a value of ${size} bytes is kept byte by byte`, async (fs) => {
    await fs.writeFile("file", "");
    await fs.setxattr("file", "user.data", pattern(size, size));
    assertEquals(await fs.getxattr("file", "user.data"), pattern(size, size));
  });
}

both("a value of 64 KiB is kept", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.data", pattern(65536));
  assertEquals(await fs.getxattr("file", "user.data"), pattern(65536));
}, { notOn: { local: "ext4 keeps at most a block" } });

kernel("a value of more than 64 KiB is E2BIG", async (fs) => {
  await fs.writeFile("file", "");
  await fails("E2BIG", fs.setxattr("file", "user.data", new Uint8Array(65537)));
});

both("a second set replaces the value", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "a long value at first");
  await fs.setxattr("file", "user.name", "short");
  assertEquals(text(await fs.getxattr("file", "user.name")), "short");
});

both("XATTR_CREATE of what is there is EEXIST and leaves it", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "old", XATTR.CREATE);
  await fails("EEXIST", fs.setxattr("file", "user.name", "new", XATTR.CREATE));
  assertEquals(text(await fs.getxattr("file", "user.name")), "old");
});

both("XATTR_REPLACE of what is absent is ENODATA and makes nothing", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENODATA", fs.setxattr("file", "user.name", "new", XATTR.REPLACE));
  assertEquals(await fs.listxattr("file"), []);
});

both("XATTR_REPLACE of what is there replaces it", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "old");
  await fs.setxattr("file", "user.name", "new", XATTR.REPLACE);
  assertEquals(text(await fs.getxattr("file", "user.name")), "new");
});

kernel("an unknown flag is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", fs.setxattr("file", "user.name", "x", 4));
});

both("an absent attribute is ENODATA to read", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENODATA", fs.getxattr("file", "user.none"));
});

both("an absent attribute is ENODATA to remove", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ENODATA", fs.removexattr("file", "user.none"));
});

both("a removed attribute is gone", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "value");
  await fs.removexattr("file", "user.name");
  await fails("ENODATA", fs.getxattr("file", "user.name"));
  assertEquals(await fs.listxattr("file"), []);
});

both("listxattr() tells all names, each once", async (fs) => {
  await fs.writeFile("file", "");
  const names = Array.from({ length: 30 }, (_, i) => `user.name${i}`);
  for (const name of names) await fs.setxattr("file", name, name);
  assertEquals((await fs.listxattr("file")).sort(), names.toSorted());
  assertEquals(text(await fs.getxattr("file", "user.name17")), "user.name17");
});

both("a file made anew has no attributes of the one before", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "value");
  await fs.unlink("file");
  await fs.writeFile("file", "");
  assertEquals(await fs.listxattr("file"), []);
});

both("attributes stay with a file that is renamed", async (fs) => {
  await fs.writeFile("file", "");
  await fs.mkdir("dir");
  await fs.setxattr("file", "user.name", "value");
  await fs.rename("file", "dir/file");
  assertEquals(text(await fs.getxattr("dir/file", "user.name")), "value");
});

both("attributes are the same by every link", async (fs) => {
  await fs.writeFile("one", "");
  await fs.mkdir("dir");
  await fs.link("one", "dir/two");
  await fs.setxattr("dir/two", "user.name", "value");
  assertEquals(text(await fs.getxattr("one", "user.name")), "value");
});

both("an attribute that another client sets is seen at once", async (fs) => {
  const other = await fs.elsewhere();
  await fs.writeFile("file", "");
  await fails("ENODATA", other.getxattr("file", "user.name"));
  await fs.setxattr("file", "user.name", "one");
  assertEquals(text(await other.getxattr("file", "user.name")), "one");
  await other.setxattr("file", "user.name", "two");
  assertEquals(text(await fs.getxattr("file", "user.name")), "two");
});

both("setting an attribute updates ctime, not mtime", async (fs) => {
  await fs.writeFile("file", "");
  const before = await fs.stat("file");
  await later();
  await fs.setxattr("file", "user.name", "value");
  const after = await fs.stat("file");
  assertGreater(after.ctime, before.ctime);
  assertEquals(after.mtime, before.mtime);
});

both("removing an attribute updates ctime", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "value");
  const before = await fs.stat("file");
  await later();
  await fs.removexattr("file", "user.name");
  assertGreater((await fs.stat("file")).ctime, before.ctime);
});

kernel("a buffer of no bytes asks for the size of a value", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "0123456789");
  assertEquals((await fs.call("getxattr", ["file", "user.name", 0, 0])).result, 10);
});

kernel("a buffer that is too small for a value is ERANGE", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "0123456789");
  await fails("ERANGE", fs.getxattr("file", "user.name", 9));
});

kernel("a buffer of no bytes asks for the size of the list", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.one", "");
  await fs.setxattr("file", "user.second", "");
  assertEquals((await fs.call("listxattr", ["file", 0, 0])).result, "user.one.user.second.".length);
});

kernel("a buffer that is too small for the list is ERANGE", async (fs) => {
  await fs.writeFile("file", "");
  await fs.setxattr("file", "user.name", "");
  await fails("ERANGE", fs.call("listxattr", ["file", { out: 5 }, 5]));
});

both("an attribute's name may have 255 bytes", async (fs) => {
  const name = "user.".padEnd(255, "n");
  await fs.writeFile("file", "");
  await fs.setxattr("file", name, "long");
  assertEquals(text(await fs.getxattr("file", name)), "long");
  assertEquals(await fs.listxattr("file"), [name]);
});

kernel("an attribute's name of 256 bytes is ERANGE", async (fs) => {
  await fs.writeFile("file", "");
  await fails(["ERANGE", "ENAMETOOLONG"], fs.setxattr("file", "user.".padEnd(256, "n"), "x"));
});

kernel("an empty attribute name is ERANGE", async (fs) => {
  await fs.writeFile("file", "");
  await fails("ERANGE", fs.setxattr("file", "", "x"));
});

both("a name without a namespace is EOPNOTSUPP", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EOPNOTSUPP", fs.setxattr("file", "name", "x"));
});

both("a namespace that is not there is EOPNOTSUPP", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EOPNOTSUPP", fs.setxattr("file", "other.name", "x"));
});

for (const type of fileTypes) {
  if (type === "file" || type === "directory") continue;
  kernel(`user attributes of a ${type} are EPERM to set`, async (fs) => {
    await fs.make(type, "name");
    await fails("EPERM", fs.lsetxattr("name", "user.name", "x"));
  });
  kernel(`trusted attributes of a ${type} can be set by root`, async (fs) => {
    await fs.make(type, "name");
    await fs.lsetxattr("name", "trusted.name", "kept");
    assertEquals(text(await fs.lgetxattr("name", "trusted.name")), "kept");
  });
}

kernel("lsetxattr() sets an attribute of the link itself", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await fs.lsetxattr("link", "trusted.name", "of the link");
  await fails("ENODATA", fs.getxattr("file", "trusted.name"));
});

both("setxattr() follows a symbolic link", async (fs) => {
  await fs.writeFile("file", "");
  await fs.symlink("file", "link");
  await fs.setxattr("link", "user.name", "of the file");
  assertEquals(text(await fs.getxattr("file", "user.name")), "of the file");
});

both("user attributes are read by those who may read", async (fs) => {
  await fs.writeFile("file", "", 0o600);
  await fs.setxattr("file", "user.name", "value");
  await fails("EACCES", fs.as(alice).getxattr("file", "user.name"));
  await fs.chmod("file", 0o604);
  assertEquals(text(await fs.as(alice).getxattr("file", "user.name")), "value");
});

both("user attributes are set by those who may write", async (fs) => {
  await fs.writeFile("file", "", 0o644);
  await fails("EACCES", fs.as(alice).setxattr("file", "user.name", "x"));
  await fs.chmod("file", 0o646);
  await fs.as(alice).setxattr("file", "user.name", "x");
  await fs.as(bob).removexattr("file", "user.name");
});

both("trusted attributes are root's alone: EPERM to set, ENODATA to read, not in the list", async (fs) => {
  await fs.writeFile("file", "", 0o666);
  await fs.chown("file", alice.uid, alice.gid);
  await fs.setxattr("file", "trusted.name", "root's");
  await fails("EPERM", fs.as(alice).setxattr("file", "trusted.name", "x"));
  await fails("ENODATA", fs.as(alice).getxattr("file", "trusted.name"));
  assertEquals([await fs.as(alice).listxattr("file"), await fs.listxattr("file")], [[], ["trusted.name"]]);
});

kernel("user attributes of another's sticky directory are EPERM to set", async (fs) => {
  await fs.mkdir("dir");
  await fs.chmod("dir", 0o1777);
  await fails("EPERM", fs.as(alice).setxattr("dir", "user.name", "x"));
});

kernel("fsetxattr() and fgetxattr() work on an open file", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await fs.call("fsetxattr", [file.fd, "user.name", new TextEncoder().encode("value"), 5, 0]);
  const { result } = await fs.call("fgetxattr", [file.fd, "user.name", { out: 100 }, 100]);
  assertEquals(result, 5);
});

kernel("attributes of an open file without a name can be set and read", async (fs) => {
  const file = await fs.open("file", O.RDWR | O.CREAT);
  await fs.unlink("file");
  await fs.call("fsetxattr", [file.fd, "user.name", new TextEncoder().encode("value"), 5, 0]);
  assertEquals((await fs.call("fgetxattr", [file.fd, "user.name", { out: 100 }, 100])).result, 5);
});

both("attributes leave contents and size alone", async (fs) => {
  await fs.writeFile("file", "contents");
  await fs.setxattr("file", "user.name", pattern(1000));
  assertEquals([(await fs.stat("file")).size, await fs.readText("file")], [8, "contents"]);
});
