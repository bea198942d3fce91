/** access(2), faccessat(2). */

import { assertEquals } from "@std/assert";
import { alice, bob, fails, kernel, staff } from "../case.ts";
import { ACCESS, AT, O } from "../constants.ts";
import { kernelPathCases } from "../path_cases.ts";

kernelPathCases({ name: "access() of", call: (fs, path) => fs.access(path, ACCESS.F), finds: true, follows: true });

const rights = { read: ACCESS.R, write: ACCESS.W, execute: ACCESS.X };
const classes = {
  owner: { shift: 6, who: alice },
  group: { shift: 3, who: { ...bob, gid: staff } },
  "supplementary group": { shift: 3, who: { ...bob, groups: [1, 2, staff, 9] } },
  others: { shift: 0, who: bob },
};

for (const [className, { shift, who }] of Object.entries(classes)) {
  for (const [right, bit] of Object.entries(rights)) {
    kernel(`access() tells that ${className} may ${right} exactly by their own bit`, async (fs) => {
      await fs.writeFile("file", "");
      await fs.chown("file", alice.uid, staff);
      await fs.chmod("file", bit << shift);
      await fs.as(who).access("file", bit);
      await fs.chmod("file", 0o777 & ~(bit << shift));
      await fails("EACCES", fs.as(who).access("file", bit));
    });
  }
}

kernel("access() by root grants reading and writing whatever the mode", async (fs) => {
  await fs.writeFile("file", "", 0);
  await fs.access("file", ACCESS.R | ACCESS.W);
});

kernel("access() by root grants execution only when somebody may", async (fs) => {
  await fs.writeFile("file", "", 0o666);
  await fails("EACCES", fs.access("file", ACCESS.X));
  await fs.chmod("file", 0o001);
  await fs.access("file", ACCESS.X);
});

kernel("access() by root grants searching a directory whatever its mode", async (fs) => {
  await fs.mkdir("dir", 0);
  await fs.access("dir", ACCESS.R | ACCESS.W | ACCESS.X);
});

kernel("access() with an unknown mode is EINVAL", async (fs) => {
  await fs.writeFile("file", "");
  await fails("EINVAL", fs.access("file", 0o10));
});

kernel("access() needs all that is asked for", async (fs) => {
  await fs.writeFile("file", "");
  await fs.chown("file", alice.uid, alice.gid);
  await fs.chmod("file", 0o400);
  await fails("EACCES", fs.as(alice).access("file", ACCESS.R | ACCESS.W));
});

kernel("access() follows a symbolic link, faccessat2() with AT_SYMLINK_NOFOLLOW does not", async (fs) => {
  await fs.symlink("nowhere", "link");
  await fails("ENOENT", fs.access("link", ACCESS.F));
  const { result } = await fs.call("faccessat2", [AT.FDCWD, "link", ACCESS.F, AT.SYMLINK_NOFOLLOW]);
  assertEquals(result, 0);
});

kernel("faccessat() starts at its directory descriptor", async (fs) => {
  await fs.mkdir("dir");
  await fs.writeFile("dir/file", "");
  const dir = await fs.open("dir", O.RDONLY);
  assertEquals((await fs.call("faccessat", [dir.fd, "file", ACCESS.R])).result, 0);
});
