/** POSIX ACLs, acl(5): the attributes system.posix_acl_access and system.posix_acl_default. */

import { assertEquals, assertGreater } from "@std/assert";
import { decodeAcl, encodeAcl } from "../../../core/meta/acl.ts";
import { aclOf, aclText } from "../../core/meta/acls.ts";
import { alice, bob, both, carol, fails, type Files, kernel, later, root, staff, text } from "../case.ts";
import { O } from "../constants.ts";

const accessName = "system.posix_acl_access", defaultName = "system.posix_acl_default";
const inheritable = "u::rwx u:5001:rwx g::r-x m::rwx o::---";

function setAcl(fs: Files, path: string, acl: string, name = accessName): Promise<void> {
  return fs.setxattr(path, name, encodeAcl(acl === "" ? [] : aclOf(acl)));
}

/** A list as text, "none" when there is none. */
async function aclAt(fs: Files, path: string, name = accessName): Promise<string> {
  const names = await fs.listxattr(path);
  if (!names.includes(name)) {
    await fails("ENODATA", fs.getxattr(path, name));
    return "none";
  }
  const acl = decodeAcl(await fs.getxattr(path, name));
  return typeof acl === "number" ? `errno ${acl}` : aclText(acl);
}

async function modeOf(fs: Files, path: string): Promise<number> {
  return (await fs.stat(path)).mode & 0o7777;
}

/** A folder of root's, with this access ACL, and a file in it that everybody may read. */
async function guarded(fs: Files, acl: string): Promise<void> {
  await fs.mkdir("guarded", 0o700);
  await fs.writeFile("guarded/file", "secret", 0o644);
  await setAcl(fs, "guarded", acl);
}

for (const name of [accessName, defaultName]) {
  both(`a new directory has no ${name}`, async (fs) => {
    await fs.mkdir("dir");
    assertEquals(await aclAt(fs, "dir", name), "none");
  });
  both(`${name} of what does not exist is ENOENT`, async (fs) => {
    await fails("ENOENT", fs.getxattr("absent", name));
    await fails("ENOENT", fs.setxattr("absent", name, encodeAcl(aclOf(inheritable))));
    await fails("ENOENT", fs.removexattr("absent", name));
  });
  both(`${name} is given back as it was set, with many entries`, async (fs) => {
    await fs.mkdir("dir");
    const users = Array.from({ length: 100 }, (_, i) => `u:${i}:r-x`).join(" ");
    const groups = Array.from({ length: 100 }, (_, i) => `g:${i}:-w-`).join(" ");
    const acl = `u::rwx ${users} g::r-x ${groups} m::rwx o::--x`;
    await setAcl(fs, "dir", acl, name);
    assertEquals(await aclAt(fs, "dir", name), acl);
  });
  both(`removing ${name} that is there removes it, one that is not there is no error`, async (fs) => {
    await fs.mkdir("dir");
    await setAcl(fs, "dir", inheritable, name);
    await fs.removexattr("dir", name);
    assertEquals(await aclAt(fs, "dir", name), "none");
    await fs.removexattr("dir", name);
  });
  both(`setting an empty ${name} removes it`, async (fs) => {
    await fs.mkdir("dir");
    await setAcl(fs, "dir", inheritable, name);
    await setAcl(fs, "dir", "", name);
    assertEquals(await aclAt(fs, "dir", name), "none");
  });
  both(`setting ${name} updates ctime, not mtime`, async (fs) => {
    await fs.mkdir("dir");
    const before = await fs.stat("dir");
    await later();
    await setAcl(fs, "dir", inheritable, name);
    const after = await fs.stat("dir");
    assertGreater(after.ctime, before.ctime);
    assertEquals(after.mtime, before.mtime);
  });
  both(`${name} is set and removed by the owner, by others it is EPERM`, async (fs) => {
    await fs.mkdir("dir", 0o777);
    await fs.chown("dir", alice.uid, alice.gid);
    await setAcl(fs.as(alice), "dir", inheritable, name);
    await fails("EPERM", setAcl(fs.as(bob), "dir", inheritable, name));
    await fails("EPERM", fs.as(bob).removexattr("dir", name));
    assertEquals(await aclAt(fs, "dir", name), inheritable);
    await fs.as(alice).removexattr("dir", name);
  });
  both(`${name} is read by those who may not read the contents`, async (fs) => {
    await fs.mkdir("dir", 0o700);
    await setAcl(fs, "dir", "u::rwx u:5001:--x g::--- m::--x o::---", name);
    assertEquals((await fs.as(bob).getxattr("dir", name)).length, 4 + 5 * 8);
  });
  for (
    const [why, acl] of [
      ["without an owner", "g::rwx o::r--"],
      ["without other", "u::rwx g::rwx"],
      ["with a named user and no mask", "u::rwx u:1:rwx g::rwx o::r--"],
      ["with two masks", "u::rwx g::rwx m::rwx m::rwx o::r--"],
      ["in another order", "u::rwx o::r-- g::rwx"],
    ]
  ) {
    both(`${name} ${why} is EINVAL and changes nothing`, async (fs) => {
      await fs.mkdir("dir", 0o750);
      await fails("EINVAL", setAcl(fs, "dir", acl, name));
      assertEquals([await aclAt(fs, "dir", name), await modeOf(fs, "dir")], ["none", 0o750]);
    });
  }
  both(`${name} that is cut short is EINVAL, of another version EOPNOTSUPP`, async (fs) => {
    await fs.mkdir("dir");
    const value = encodeAcl(aclOf(inheritable));
    await fails("EINVAL", fs.setxattr("dir", name, value.subarray(0, 3)));
    await fails("EINVAL", fs.setxattr("dir", name, value.subarray(0, value.length - 1)));
    value[0] = 1;
    await fails("EOPNOTSUPP", fs.setxattr("dir", name, value));
  });
  kernel(`${name} of a symbolic link is EOPNOTSUPP`, async (fs) => {
    await fs.symlink("nowhere", "link");
    await fails("EOPNOTSUPP", fs.lsetxattr("link", name, encodeAcl(aclOf("u::rwx g::rwx o::rwx"))));
    await fails("EOPNOTSUPP", fs.lgetxattr("link", name));
  });
}

both("other names of system.* are EOPNOTSUPP", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EOPNOTSUPP", fs.setxattr("file", "system.nothing", "x"));
  await fails("EOPNOTSUPP", fs.getxattr("file", "system.nothing"));
});

both("an access ACL that says more than the mode is kept, and its mask is the mode's group", async (fs) => {
  await fs.writeFile("file", "", 0o600);
  await setAcl(fs, "file", "u::rw- u:5001:rwx g::--- m::r-x o::--x");
  assertEquals(await modeOf(fs, "file"), 0o651);
  assertEquals(await fs.listxattr("file"), [accessName]);
});

both("an access ACL that says no more than a mode becomes the mode", async (fs) => {
  await fs.writeFile("file", "", 0o600);
  await setAcl(fs, "file", "u::rwx u:5001:rwx g::--- m::r-x o::--x");
  await setAcl(fs, "file", "u::rw- g::r-- o::-w-");
  assertEquals([await modeOf(fs, "file"), await aclAt(fs, "file")], [0o642, "none"]);
});

both("removing the access ACL leaves the mode", async (fs) => {
  await fs.writeFile("file", "", 0o600);
  await setAcl(fs, "file", "u::rwx u:5001:rwx g::--- m::r-x o::--x");
  await fs.removexattr("file", accessName);
  assertEquals(await modeOf(fs, "file"), 0o751);
});

both("setting an access ACL keeps setuid, setgid and sticky for root", async (fs) => {
  await fs.mkdir("dir");
  await fs.chmod("dir", 0o7700);
  await setAcl(fs, "dir", "u::rwx u:5001:rwx g::--- m::r-x o::--x");
  assertEquals(await modeOf(fs, "dir"), 0o7751);
});

both("setting an access ACL drops setgid when the owner is not in the group", async (fs) => {
  for (const [name, groups, mode] of [["in", [staff], 0o2755], ["out", [], 0o755]] as const) {
    await fs.writeFile(name, "");
    await fs.chown(name, alice.uid, staff);
    await fs.chmod(name, 0o2755);
    await setAcl(fs.as({ ...alice, groups: [...groups] }), name, "u::rwx u:1:r-x g::r-x m::r-x o::r-x");
    assertEquals(await modeOf(fs, name), mode, name);
  }
});

both("chmod() changes the mask, not the group's entry nor named ones", async (fs) => {
  await fs.writeFile("file", "");
  await setAcl(fs, "file", "u::rw- u:5001:rwx g::r-x g:7:-wx m::rwx o::---");
  await fs.chmod("file", 0o741);
  assertEquals(await aclAt(fs, "file"), "u::rwx u:5001:rwx g::r-x g:7:-wx m::r-- o::--x");
  assertEquals(await modeOf(fs, "file"), 0o741);
});

both("chmod() leaves the default ACL", async (fs) => {
  await fs.mkdir("dir");
  await setAcl(fs, "dir", inheritable, defaultName);
  await fs.chmod("dir", 0o700);
  assertEquals(await aclAt(fs, "dir", defaultName), inheritable);
});

both("chown() leaves ACLs", async (fs) => {
  await fs.mkdir("dir");
  await setAcl(fs, "dir", inheritable, defaultName);
  await setAcl(fs, "dir", inheritable);
  await fs.chown("dir", bob.uid, bob.gid);
  assertEquals([await aclAt(fs, "dir"), await aclAt(fs, "dir", defaultName)], [inheritable, inheritable]);
});

both("ACLs move with a renamed file and are those of all its names", async (fs) => {
  await fs.mkdir("a");
  await fs.mkdir("b");
  await fs.writeFile("a/file", "");
  await setAcl(fs, "a/file", inheritable);
  await fs.rename("a/file", "b/moved");
  await fs.link("b/moved", "a/linked");
  assertEquals([await aclAt(fs, "b/moved"), await aclAt(fs, "a/linked")], [inheritable, inheritable]);
});

both("an ACL is seen by other clients at once", async (fs) => {
  const other = await fs.elsewhere();
  await guarded(fs, "u::rwx u:5001:r-x g::--- m::r-x o::---");
  assertEquals(await aclAt(other, "guarded"), "u::rwx u:5001:r-x g::--- m::r-x o::---");
  assertEquals(await other.as(alice).readText("guarded/file"), "secret");
  await setAcl(fs, "guarded", "u::rwx u:5002:r-x g::--- m::r-x o::---");
  await fails("EACCES", other.as(alice).readText("guarded/file"));
  assertEquals(await other.as(bob).readText("guarded/file"), "secret");
});

both("a named user gets what his entry grants under the mask", async (fs) => {
  await guarded(fs, "u::rwx u:5001:rwx g::--- m::r-x o::---");
  assertEquals(await fs.as(alice).readText("guarded/file"), "secret");
  await fails("EACCES", fs.as(alice).writeFile("guarded/new", ""));
  await fails("EACCES", fs.as(bob).readText("guarded/file"));
});

both("a named group grants to its members, supplementary ones too", async (fs) => {
  await guarded(fs, `u::rwx g::--- g:${staff}:rwx m::rwx o::---`);
  await fs.as({ ...bob, groups: [staff] }).writeFile("guarded/new", "");
  await fs.as({ ...carol, gid: staff }).writeFile("guarded/more", "");
  await fails("EACCES", fs.as(bob).readText("guarded/file"));
});

both("a named user's entry counts, not that of a group he is in", async (fs) => {
  await guarded(fs, `u::rwx u:5001:--- g::--- g:${staff}:rwx m::rwx o::rwx`);
  await fails("EACCES", fs.as({ ...alice, groups: [staff] }).readText("guarded/file"));
});

both("a member of a group whose entry denies is not an other", async (fs) => {
  await guarded(fs, `u::rwx g::--- g:${staff}:--- m::rwx o::rwx`);
  await fails("EACCES", fs.as({ ...alice, groups: [staff] }).readText("guarded/file"));
  assertEquals(await fs.as(alice).readText("guarded/file"), "secret");
});

both("of several groups one has to grant all that is asked for", async (fs) => {
  await guarded(fs, `u::rwx g::--- g:${staff}:r-x g:6002:-wx m::rwx o::---`);
  const member = fs.as({ ...alice, groups: [staff, 6002] });
  await member.writeFile("guarded/new", "");
  await fs.writeFile("file", "", 0o600);
  await setAcl(fs, "file", `u::rw- g::--- g:${staff}:r-- g:6002:-w- m::rw- o::---`);
  await (await member.open("file", O.RDONLY)).close();
  await (await member.open("file", O.WRONLY)).close();
  await fails("EACCES", member.open("file", O.RDWR));
});

both("the owner gets the owner's entry whatever the others say", async (fs) => {
  await fs.writeFile("file", "x", 0o600);
  await fs.chown("file", alice.uid, alice.gid);
  await setAcl(fs, "file", "u::-w- u:5001:rw- g::rw- m::rw- o::rw-");
  await fails("EACCES", fs.as(alice).open("file", O.RDONLY));
  await (await fs.as(alice).open("file", O.WRONLY)).close();
});

both("an access ACL lets somebody else unlink and create names in a directory", async (fs) => {
  await guarded(fs, "u::rwx u:5001:-wx g::--- m::-wx o::---");
  await fs.as(alice).unlink("guarded/file");
  await fs.as(alice).mkdir("guarded/sub");
  await fs.as(alice).rename("guarded/sub", "guarded/moved");
  await fails("EACCES", fs.as(alice).readdir("guarded"));
  await fails("EACCES", fs.as(bob).rmdir("guarded/moved"));
});

kernel("access() asks ACLs", async (fs) => {
  await fs.writeFile("file", "", 0o600);
  await setAcl(fs, "file", "u::rw- u:5001:r-- g::--- m::r-- o::---");
  await fs.as(alice).access("file", 4);
  await fails("EACCES", fs.as(alice).access("file", 2));
  await fails("EACCES", fs.as(bob).access("file", 4));
});

kernel("utimes() to now by a named user who may write is allowed, to another time EPERM", async (fs) => {
  await fs.writeFile("file", "", 0o600);
  await setAcl(fs, "file", "u::rw- u:5001:-w- g::--- m::-w- o::---");
  await fs.as(alice).utimens("file", "now", "now");
  await fails("EPERM", fs.as(alice).utimens("file", 0n, 0n));
  await fails("EACCES", fs.as(bob).utimens("file", "now", "now"));
});

both("a default ACL of a file is EACCES", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EACCES", setAcl(fs, "file", inheritable, defaultName));
  await setAcl(fs, "file", "", defaultName);
});

both("a default ACL does not change the directory's own permissions", async (fs) => {
  await fs.mkdir("dir", 0o700);
  await setAcl(fs, "dir", inheritable, defaultName);
  assertEquals([await modeOf(fs, "dir"), await aclAt(fs, "dir")], [0o700, "none"]);
  await fails("EACCES", fs.as(alice).readdir("dir"));
});

both("a file inherits the default ACL, without what its mode does not have", async (fs) => {
  await fs.mkdir("dir");
  await setAcl(fs, "dir", inheritable, defaultName);
  await fs.writeFile("dir/file", "", 0o664);
  assertEquals(await modeOf(fs, "dir/file"), 0o660);
  assertEquals(await aclAt(fs, "dir/file"), "u::rw- u:5001:rwx g::r-x m::rw- o::---");
  assertEquals(await fs.listxattr("dir/file"), [accessName]);
});

both("a directory inherits the default ACL as both of its own, and so does one below", async (fs) => {
  await fs.mkdir("dir");
  await setAcl(fs, "dir", inheritable, defaultName);
  for (const path of ["dir/a", "dir/a/b", "dir/c", "dir/d", "dir/e"]) {
    await fs.mkdir(path, 0o777);
    assertEquals(await modeOf(fs, path), 0o770);
    assertEquals([await aclAt(fs, path), await aclAt(fs, path, defaultName)], [inheritable, inheritable]);
  }
});

both("a default ACL takes the place of the umask, which counts where there is none", async (fs) => {
  await fs.mkdir("with");
  await fs.mkdir("without");
  await setAcl(fs, "with", "u::rwx g::rwx o::r-x", defaultName);
  const careful = fs.as({ ...root, umask: 0o077 });
  for (const dir of ["with", "without"]) {
    await careful.writeFile(`${dir}/file`, "", 0o666);
    for (const name of ["a", "b", "c"]) await careful.mkdir(`${dir}/${name}`, 0o777);
  }
  assertEquals([await modeOf(fs, "with/file"), await modeOf(fs, "without/file")], [0o664, 0o600]);
  for (const name of ["a", "b", "c"]) {
    assertEquals([await modeOf(fs, `with/${name}`), await modeOf(fs, `without/${name}`)], [0o775, 0o700]);
  }
});

both("the umask counts again once the default ACL is removed", async (fs) => {
  await fs.mkdir("dir");
  await setAcl(fs, "dir", inheritable, defaultName);
  await fs.removexattr("dir", defaultName);
  await fs.as({ ...root, umask: 0o027 }).mkdir("dir/sub", 0o777);
  assertEquals([await modeOf(fs, "dir/sub"), await aclAt(fs, "dir/sub", defaultName)], [0o750, "none"]);
});

both("a default ACL that a mode can say gives files no ACL, and directories only the default one", async (fs) => {
  await fs.mkdir("dir");
  await setAcl(fs, "dir", "u::rwx g::r-x o::---", defaultName);
  await fs.writeFile("dir/file", "", 0o666);
  await fs.mkdir("dir/sub", 0o777);
  assertEquals([await modeOf(fs, "dir/file"), await aclAt(fs, "dir/file")], [0o640, "none"]);
  assertEquals([await modeOf(fs, "dir/sub"), await aclAt(fs, "dir/sub")], [0o750, "none"]);
  assertEquals(await aclAt(fs, "dir/sub", defaultName), "u::rwx g::r-x o::---");
});

for (const [name, type] of [["fifo", 0o010000], ["socket", 0o140000], ["file", 0o100000]] as const) {
  kernel(`mknod() of a ${name} inherits the default ACL`, async (fs) => {
    await fs.mkdir("dir");
    await setAcl(fs, "dir", inheritable, defaultName);
    await fs.mknod("dir/node", type | 0o666);
    assertEquals(await modeOf(fs, "dir/node"), 0o660);
    assertEquals(await aclAt(fs, "dir/node"), "u::rw- u:5001:rwx g::r-x m::rw- o::---");
  });
}

both("a symbolic link inherits nothing", async (fs) => {
  await fs.mkdir("dir");
  await setAcl(fs, "dir", inheritable, defaultName);
  await fs.symlink("nowhere", "dir/link");
  assertEquals((await fs.lstat("dir/link")).mode & 0o7777, 0o777);
});

both("a directory below a setgid directory with a default ACL inherits setgid and both ACLs", async (fs) => {
  await fs.mkdir("dir");
  await fs.chown("dir", root.uid, staff);
  await fs.chmod("dir", 0o2777);
  await setAcl(fs, "dir", inheritable, defaultName);
  await fs.as(bob).mkdir("dir/sub", 0o777);
  const { mode, gid } = await fs.stat("dir/sub");
  assertEquals([mode & 0o7777, gid, await aclAt(fs, "dir/sub")], [0o2770, staff, inheritable]);
});

both(
  "whoever creates a file in a directory with a default ACL works under it, with O_CREAT's descriptor too",
  async (fs) => {
    await fs.mkdir("dir", 0o777);
    await setAcl(fs, "dir", "u::r-- u:5001:rw- g::--- m::rw- o::---", defaultName);
    const file = await fs.as(bob).open("dir/file", O.CREAT | O.EXCL | O.RDWR, 0o600);
    await file.write("written");
    await file.close();
    // The owner's entry of the default ACL takes write permission away, and asked-for 0600 empties the mask.
    assertEquals([await modeOf(fs, "dir/file"), await aclAt(fs, "dir/file")], [
      0o400,
      "u::r-- u:5001:rw- g::--- m::--- o::---",
    ]);
    await fails("EACCES", fs.as(bob).open("dir/file", O.WRONLY));
    assertEquals(text(await fs.as(bob).readFile("dir/file")), "written");
    await fails("EACCES", fs.as(alice).readFile("dir/file"));
  },
);

both("inherited ACLs let the named user in", async (fs) => {
  await fs.mkdir("dir", 0o755);
  await setAcl(fs, "dir", inheritable, defaultName);
  await fs.mkdir("dir/sub", 0o770);
  await fs.as(alice).writeFile("dir/sub/file", "mine");
  await fails("EACCES", fs.as(bob).readdir("dir/sub"));
});
