/** name_to_handle_at(2), open_by_handle_at(2): files without their names, as NFS servers use them. */

import { assertEquals, assertNotEquals } from "@std/assert";
import { alice, fails, kernel, text } from "../case.ts";
import { AT, O } from "../constants.ts";
import type { Kernel, KernelFile } from "../kernel.ts";

/** struct file_handle: bytes 0, type 4, then the handle, at most 128 bytes. */
async function handleOf(fs: Kernel, path: string): Promise<Uint8Array> {
  const empty = new Uint8Array(136);
  new DataView(empty.buffer).setUint32(0, 128, true);
  const args = [AT.FDCWD, path, { inout: empty }, { out: 8 }, 0];
  const { out } = await fs.call("name_to_handle_at", args);
  return out[0].slice(0, 8 + new DataView(out[0].buffer, out[0].byteOffset).getUint32(0, true));
}

async function openHandle(fs: Kernel, handle: Uint8Array): Promise<KernelFile> {
  const root = await fs.open(".", O.RDONLY);
  return fs.opened((await fs.call("open_by_handle_at", [root.fd, handle, O.RDWR])).result);
}

kernel("a file is opened by its handle", async (fs) => {
  await fs.writeFile("file", "contents");
  const file = await openHandle(fs, await handleOf(fs, "file"));
  assertEquals(text(await file.read(100)), "contents");
});

kernel("a handle leads to its file under every name", async (fs) => {
  await fs.writeFile("file", "contents");
  const handle = await handleOf(fs, "file");
  await fs.mkdir("dir");
  await fs.rename("file", "dir/moved");
  assertEquals(text(await (await openHandle(fs, handle)).read(100)), "contents");
});

kernel("a handle is good for another client", async (fs) => {
  await fs.writeFile("file", "contents");
  const handle = await handleOf(fs, "file");
  assertEquals(text(await (await openHandle(await fs.elsewhere(), handle)).read(100)), "contents");
});

kernel("a handle of a file that is gone is ESTALE", async (fs) => {
  await fs.writeFile("file", "contents");
  const handle = await handleOf(fs, "file");
  await fs.unlink("file");
  await fs.writeFile("file", "another");
  await fails("ESTALE", openHandle(fs, handle));
});

kernel("handles of different files differ", async (fs) => {
  await fs.writeFile("one", "");
  await fs.writeFile("two", "");
  assertNotEquals(await handleOf(fs, "one"), await handleOf(fs, "two"));
});

kernel("open_by_handle_at() by a user is EPERM", async (fs) => {
  await fs.writeFile("file", "");
  const handle = await handleOf(fs, "file");
  await fails("EPERM", openHandle(fs.as(alice), handle));
});
