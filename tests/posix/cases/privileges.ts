/** What a change of contents takes from a file besides setuid and setgid by write() (set_id.ts): capabilities(7) too. */

import { assertEquals } from "@std/assert";
import { alice, bob, both, fails, type Files, type Identity, kernel, root, staff } from "../case.ts";
import { O } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

const capability = "security.capability";
/** cap_net_raw+ep as setcap(8) writes it: struct vfs_cap_data, revision 2. */
const netRaw = Uint8Array.of(1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

/** A program of alice's and group staff that everybody may write. */
async function make(fs: Files): Promise<void> {
  await fs.writeFile("file", "x".repeat(10_000));
  await fs.chown("file", alice.uid, staff);
  await fs.chmod("file", 0o6777);
  await fs.writeFile("source", "y".repeat(10_000), 0o644);
}

/** Ways to change contents with an open file. */
const changes: Record<string, (file: KernelFile, source: KernelFile) => Promise<unknown>> = {
  "pwrite()": (file) => file.pwrite("z", 5000),
  "fallocate() beyond the end": (file) => file.fallocate(0, 0, 20_000),
  "fallocate() of a hole": (file) => file.fallocate(3, 4096, 4096),
  "fallocate() of zeros": (file) => file.fallocate(0x10, 100, 1000),
  "copy_file_range()": (file, source) => source.copyTo(file, { from: 0, to: 0, length: 5000 }),
};

async function change(fs: Kernel, who: Identity, by: (file: KernelFile, source: KernelFile) => Promise<unknown>) {
  await by(await fs.as(who).open("file", O.RDWR), await fs.as(who).open("source", O.RDONLY));
}

for (const [name, by] of Object.entries(changes)) {
  kernel(`${name} by another user clears setuid and setgid`, async (fs) => {
    await make(fs);
    await change(fs, bob, by);
    assertEquals((await fs.stat("file")).mode & 0o7777, 0o777);
  });
  kernel(`${name} by root keeps setuid and setgid`, async (fs) => {
    await make(fs);
    await change(fs, root, by);
    assertEquals((await fs.stat("file")).mode & 0o7777, 0o6777);
  });
  kernel(`${name} takes the file's capabilities, by root too`, async (fs) => {
    await make(fs);
    await fs.setxattr("file", capability, netRaw);
    await change(fs, root, by);
    await fails("ENODATA", fs.getxattr("file", capability));
  });
}

both("write() takes the file's capabilities, reading and chmod() do not", async (fs) => {
  await make(fs);
  await fs.setxattr("file", capability, netRaw);
  await fs.readFile("file");
  await fs.chmod("file", 0o700);
  assertEquals(await fs.getxattr("file", capability), netRaw);
  await (await fs.open("file", O.WRONLY)).write("z");
  await fails("ENODATA", fs.getxattr("file", capability));
});

both("truncate() takes the file's capabilities", async (fs) => {
  await make(fs);
  await fs.setxattr("file", capability, netRaw);
  await fs.truncate("file", 1);
  await fails("ENODATA", fs.getxattr("file", capability));
});

both("open() with O_TRUNC takes the file's capabilities", async (fs) => {
  await make(fs);
  await fs.setxattr("file", capability, netRaw);
  await (await fs.open("file", O.WRONLY | O.TRUNC)).close();
  await fails("ENODATA", fs.getxattr("file", capability));
});

both("chown() takes the file's capabilities", async (fs) => {
  await make(fs);
  await fs.setxattr("file", capability, netRaw);
  await fs.chown("file", bob.uid, -1);
  await fails("ENODATA", fs.getxattr("file", capability));
});

both("capabilities are set by root alone, and seen by all", async (fs) => {
  await make(fs);
  await fails("EPERM", fs.as(alice).setxattr("file", capability, netRaw));
  await fs.setxattr("file", capability, netRaw);
  assertEquals(await fs.as(bob).getxattr("file", capability), netRaw);
  await fails("EPERM", fs.as(alice).removexattr("file", capability));
});

both("what another client writes takes the capabilities that this one has set", async (fs) => {
  await make(fs);
  const other = await fs.elsewhere();
  await fs.setxattr("file", capability, netRaw);
  await (await other.open("file", O.WRONLY)).write("z");
  await fails("ENODATA", fs.getxattr("file", capability));
});
