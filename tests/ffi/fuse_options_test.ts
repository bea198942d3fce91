import { assertEquals, assertThrows } from "@std/assert";
import {
  findMount,
  isMounted,
  mountFuse,
  mountpointPath,
  parseMountInfo,
  parseMountOptions,
  unmount,
} from "../../ffi/fuse/mount.ts";
import { MS } from "../../ffi/libc.ts";

Deno.test("parseMountOptions() takes what fstab and mount(8) give, and the last word wins", () => {
  const accessTimes = { atime: "relatime", noDirectories: false } as const;
  const rest = { allowOther: undefined, transport: "classic", keepNames: false, remount: false } as const;
  const none = { readOnly: false, accessTimes, flags: 0, words: [], ...rest };
  assertEquals(parseMountOptions(""), none);
  assertEquals(parseMountOptions("defaults,_netdev,nofail,user,x-systemd.automount,relatime,rw"), none);
  const some = parseMountOptions("ro,nosuid,nodev,noexec,allow_other,suid");
  assertEquals(some.flags, MS.RDONLY | MS.NODEV | MS.NOEXEC);
  assertEquals([some.readOnly, some.words, some.allowOther], [true, ["ro", "nodev", "noexec"], true]);
  assertEquals(parseMountOptions("ro,rw").readOnly, false);
});

Deno.test("parseMountOptions() reads which accesses are noted, the last word winning", () => {
  const of = (text: string) => parseMountOptions(text).accessTimes;
  assertEquals(of("noatime"), { atime: "noatime", noDirectories: false });
  assertEquals(of("noatime,strictatime,nodiratime"), { atime: "strictatime", noDirectories: true });
  assertEquals(of("strictatime,relatime,nodiratime,diratime"), { atime: "relatime", noDirectories: false });
  assertEquals(of("noatime,atime").atime, "relatime");
  // fusermount3 would refuse words that it does not know.
  assertEquals(parseMountOptions("strictatime,nodiratime,nosuid").words, ["nosuid"]);
  assertEquals(parseMountOptions("noatime").words, ["noatime"]);
});

Deno.test("parseMountOptions() reads the transport and keeps it from fusermount3", () => {
  const { transport, words } = parseMountOptions("transport=classic,ro,transport=uring");
  assertEquals([transport, words], ["uring", ["ro"]]);
});

Deno.test("parseMountOptions() names an option that it does not know", () => {
  assertThrows(
    () => parseMountOptions("transport=rdma"),
    Error,
    'unknown transport "rdma": there are classic and uring',
  );
  assertThrows(() => parseMountOptions("ro,writeback"), Error, 'unknown mount option "writeback"');
  assertThrows(() => parseMountOptions("fd=3"), Error, 'unknown mount option "fd=3"');
});

Deno.test("parseMountInfo() undoes escapes and skips optional fields", () => {
  const text = [
    "23 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw",
    "42 23 0:39 / /mnt/a\\040b\\134c\\303\\274 ro,relatime - fuse.sealfs sealfs\\043vol rw,user_id=0",
    "43 23 0:40 / /x rw unknown:3 - tmpfs",
    "garbage",
    "",
  ].join("\n");
  const [root, ours, ...rest] = parseMountInfo(text);
  assertEquals([root.mountpoint, root.type, root.device, root.readOnly], ["/", "ext4", "8:1", false]);
  assertEquals(ours, {
    id: 42,
    parent: 23,
    device: "0:39",
    root: "/",
    mountpoint: "/mnt/a b\\cü",
    type: "fuse.sealfs",
    source: "sealfs#vol",
    readOnly: true,
  });
  assertEquals(rest, []);
});

Deno.test("mountpointPath() follows links above the mountpoint and at it", () => {
  const folder = Deno.realPathSync(Deno.makeTempDirSync());
  try {
    Deno.mkdirSync(`${folder}/real/mnt`, { recursive: true });
    Deno.symlinkSync(`${folder}/real`, `${folder}/link`);
    Deno.symlinkSync(`${folder}/real/mnt`, `${folder}/direct`);
    assertEquals(mountpointPath(`${folder}/link/./mnt/`), `${folder}/real/mnt`);
    assertEquals(mountpointPath(`${folder}/direct`), `${folder}/real/mnt`);
    Deno.symlinkSync("link/../direct", `${folder}/second`);
    assertEquals(mountpointPath(`${folder}/second`), `${folder}/real/mnt`);
    Deno.symlinkSync("loop", `${folder}/loop`);
    assertEquals(mountpointPath(`${folder}/loop`), `${folder}/loop`);
    assertEquals(mountpointPath("/"), "/");
    assertEquals(mountpointPath(`${folder}/absent/mnt`), `${folder}/absent/mnt`);
    assertEquals([isMounted(folder), findMount(folder), unmount(folder, { lazy: false })], [false, null, false]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("mountFuse() says what is wrong with a mountpoint", () => {
  const request = (mountpoint: string) => ({ source: "x", mountpoint, options: parseMountOptions("") });
  assertThrows(
    () => mountFuse(request("/nonexistent/place")),
    Error,
    "cannot mount on /nonexistent/place: no such directory",
  );
  assertThrows(() => mountFuse(request("/etc/passwd")), Error, "not a directory");
});
