import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { installed } from "./fuse_mounted.ts";

const able = Deno.uid() === 0 && ["fusermount3", "unshare", "setpriv"].every(installed);

/**
 * In a mount namespace of its own, where /dev/fuse is open to all as Debian has it, and the user finds the runtime, its
 * cache and this tree whatever their folders' permissions are. Nothing of it outlives the shell.
 */
const script = `set -e
mount --make-rprivate /
mount -t tmpfs none "$FOLDER" && chmod 755 "$FOLDER"
cd "$FOLDER"
mknod fuse c 10 229 && chmod 666 fuse && mount --bind fuse /dev/fuse
touch deno && mount --bind "$DENO" deno
mkdir tree && mount --bind "$TREE" tree
mkdir cache && cp -r "$CACHE/npm" cache/ && chown -R 65534 cache
mkdir tmp && chmod 777 tmp
cd tree
export DENO_DIR="$FOLDER/cache" HOME="$FOLDER/tmp" TMPDIR="$FOLDER/tmp"
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$FOLDER/deno" run -A --cached-only tests/ffi/fuse_user.ts
`;

Deno.test({
  name: "an ordinary user mounts, uses and unmounts (needs root, fusermount3, unshare, setpriv)",
  ignore: !able,
  fn: async () => {
    const folder = Deno.makeTempDirSync();
    const info = JSON.parse(new TextDecoder().decode(
      (await new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).output()).stdout,
    ));
    try {
      const { stdout, stderr } = await new Deno.Command("unshare", {
        args: ["-m", "sh", "-c", script],
        env: {
          FOLDER: folder,
          DENO: Deno.realPathSync(Deno.execPath()),
          CACHE: info.denoDir,
          TREE: fromFileUrl(new URL("../..", import.meta.url)),
        },
      }).output();
      const said = new TextDecoder().decode(stdout);
      assertEquals(said.trim(), "ok", new TextDecoder().decode(stderr) + said);
    } finally {
      Deno.removeSync(folder);
    }
  },
});
