/**
 * Mounts as an ordinary user and uses the mount: a program that tests/ffi/fuse_user_test.ts runs under another uid.
 * Prints `ok` when everything was as expected.
 *
 * @module
 */

import { isMounted, mountFuse, parseMountOptions } from "../../ffi/fuse/mount.ts";
import { uringMissing } from "../../ffi/fuse/uring.ts";
import { serve } from "./fuse_mounted.ts";

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

const path = Deno.makeTempDirSync({ prefix: "sealfs-user- " });
try {
  const options = parseMountOptions("allow_other");
  try {
    mountFuse({ source: "sealfs#test", mountpoint: path, options });
    expect(false, "allow_other was permitted");
  } catch (error) {
    expect((error as Error).message.includes("user_allow_other"), (error as Error).message);
  }
  for (const uring of [false, uringMissing() === ""]) {
    const mounted = await serve(path, { mount: "nosuid,noexec", rootMode: 0o777, uring });
    Deno.mkdirSync(`${path}/dir`);
    Deno.writeTextFileSync(`${path}/dir/file`, "mine");
    expect(Deno.readTextFileSync(`${path}/dir/file`) === "mine", "the file reads back");
    expect(Deno.statSync(`${path}/dir/file`).uid === Deno.uid(), "the file belongs to the user");
    const { opens, reason, transport } = await mounted.end();
    expect(opens === 0 && reason === "unmounted", `${opens} opens, ${reason}`);
    expect(transport === (uring ? "uring" : "classic"), transport);
    expect(!isMounted(path), "the mount is gone");
  }
} finally {
  if (isMounted(path)) new Deno.Command("fusermount3", { args: ["-uz", path] }).outputSync();
  Deno.removeSync(path);
}
console.log("ok");
Deno.exit(0);
