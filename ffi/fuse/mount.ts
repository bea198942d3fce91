/**
 * Mounting and unmounting: mount(2) for root, fusermount3 for everybody else, and what the kernel says is mounted.
 *
 * Everything here blocks its thread and is for the main thread, never for the reactor that serves the mount. Failures
 * are Errors whose message is one line for a person.
 *
 * @module
 */

import { isAbsolute, resolve } from "@std/path";
import type { AccessTimePolicy } from "../../core/client/volume.ts";
import { inherit, receiveDescriptors, SOCK, socketPair } from "../descriptors.ts";
import { closeFd, cstr, errno, errnoText, libc, MNT, MS, O, systemError } from "../libc.ts";

/** `TYPE.SUBTYPE` of our mounts, as /proc/self/mountinfo and fstab have it. */
export const fuseFileSystemType = "fuse.sealfs";
/** Read-ahead that {@linkcode setReadAhead} sets, in KiB; the kernel's own 128 KiB keeps a network idle. */
export const readAheadKiB = 1024;
/** The device of the FUSE driver. */
const devicePath = "/dev/fuse";
/** Most bytes of one READ. */
const maxReadBytes = 1 << 20;

const MS_SYNCHRONOUS = 16, MS_DIRSYNC = 128, MS_NODIRATIME = 2048, MS_STRICTATIME = 1 << 24;
/** Links at the end of a path that are followed, as in the kernel. */
const linksMax = 40;
const ENOENT = 2, EINVAL = 22, EPERM = 1, EBUSY = 16;

/** What `-o` asks for: see {@linkcode parseMountOptions}. */
export interface MountOptions {
  readOnly: boolean;
  /** Which reads move access times: the servers keep them, the kernel only shows the flags. */
  accessTimes: AccessTimePolicy;
  /** MS_* flags of mount(2), MS_RDONLY among them. */
  flags: number;
  /** Words for fusermount3 that stand for `flags`. */
  words: string[];
  /** Others than the owner may use the mount. Root's mounts are always so; absent = as is usual for the user. */
  allowOther?: boolean;
  /** By what the mount is served; a remount does not change it. */
  transport: FuseTransport;
  /** The kernel may keep names for a second (core/fuse/kernel_cache.ts). */
  keepNames: boolean;
  /** Change the flags of the mount that is there. */
  remount: boolean;
}

/** By what a mount is served: device.ts or uring.ts. */
export type FuseTransport = "classic" | "uring";
const transports: readonly string[] = ["classic", "uring"] satisfies FuseTransport[];
/** What it is without the option `transport`. */
export const transportDefault: FuseTransport = "classic";
const transportPrefix = "transport=";

/** Flags by option; `no` in front is listed where it sets a flag. */
const flagOptions = new Map<string, number>([
  ["ro", MS.RDONLY],
  ["nosuid", MS.NOSUID],
  ["nodev", MS.NODEV],
  ["noexec", MS.NOEXEC],
  ["noatime", MS.NOATIME],
  ["nodiratime", MS_NODIRATIME],
  ["strictatime", MS_STRICTATIME],
  ["sync", MS_SYNCHRONOUS],
  ["dirsync", MS_DIRSYNC],
]);
const flagRemovers = new Map<string, string>([
  ["rw", "ro"],
  ["suid", "nosuid"],
  ["dev", "nodev"],
  ["exec", "noexec"],
  ["diratime", "nodiratime"],
  ["async", "sync"],
]);
/** Of these the last one counts; `atime` and `relatime` are what is done without any of them. */
const atimeOptions = ["noatime", "strictatime", "relatime", "atime"];
/** fusermount3 has no word for these. */
const wordless = new Set(["nodiratime", "strictatime"]);
/** Meant for mount(8), fstab and boot, or always in force: nothing to do. */
const ignoredOptions = new Set(
  "defaults auto noauto _netdev nofail user nouser users owner group default_permissions lazytime".split(" "),
);
/** What the kernel says of a mount besides its flags, and mount(8) hands back when it is to be remounted. */
const toldOptions = /^(user_id|group_id|max_read)=\d+$/;

/**
 * Reads a comma-separated `-o` list as mount(8) gives it. Later words win. Words for mount(8) itself and `x-...` are
 * skipped; an unknown one is an Error that names it.
 */
export function parseMountOptions(text: string): MountOptions {
  const given = text.split(","), remount = given.includes("remount"), words = new Set<string>();
  let allowOther: boolean | undefined, transport = transportDefault, keepNames = false;
  for (const word of given) {
    if (word === "" || word.startsWith("x-") || word.startsWith("comment=") || ignoredOptions.has(word)) continue;
    if (remount && (word === "remount" || toldOptions.test(word))) continue;
    const removes = flagRemovers.get(word), isAtime = atimeOptions.includes(word);
    if (isAtime) { for (const other of atimeOptions) words.delete(other); }
    if (flagOptions.has(word)) words.add(word);
    else if (isAtime) continue;
    else if (removes !== undefined) words.delete(removes);
    else if (word === "allow_other") allowOther = true;
    else if (word === "names" || word === "nonames") keepNames = word === "names";
    else if (word.startsWith(transportPrefix)) transport = transportOf(word.slice(transportPrefix.length));
    else throw new Error(`unknown mount option "${word}"`);
  }
  let flags = 0;
  for (const word of words) flags |= flagOptions.get(word)!;
  const accessTimes: AccessTimePolicy = {
    atime: words.has("noatime") ? "noatime" : words.has("strictatime") ? "strictatime" : "relatime",
    noDirectories: words.has("nodiratime"),
  };
  const spoken = [...words].filter((word) => !wordless.has(word));
  return { readOnly: words.has("ro"), accessTimes, flags, words: spoken, allowOther, transport, keepNames, remount };
}

function transportOf(name: string): FuseTransport {
  if (transports.includes(name)) return name as FuseTransport;
  throw new Error(`unknown transport "${name}": there are ${transports.join(" and ")}`);
}

/** A line of /proc/self/mountinfo. */
export interface MountInfo {
  id: number;
  parent: number;
  /** `major:minor` of the device. */
  device: string;
  /** What of the file system is mounted: `/`, or a folder in it (a bind mount). */
  root: string;
  mountpoint: string;
  /** `fuse.sealfs`. */
  type: string;
  source: string;
  readOnly: boolean;
}

/** Undoes the kernel's octal escapes (space, tab, newline, backslash, #), byte by byte: names are UTF-8. */
function unescape(field: string): string {
  if (!field.includes("\\")) return field;
  const bytes: number[] = [];
  for (const part of field.split(/(\\[0-7]{3})/)) {
    if (/^\\[0-7]{3}$/.test(part)) bytes.push(parseInt(part.slice(1), 8));
    else bytes.push(...new TextEncoder().encode(part));
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

/** Reads the text of a mountinfo file (proc_pid_mountinfo(5)); the last line for a mountpoint is the one on top. */
export function parseMountInfo(text: string): MountInfo[] {
  const mounts: MountInfo[] = [];
  for (const line of text.split("\n")) {
    const fields = line.split(" ");
    // Optional fields end with "-"; type, source and super options follow.
    const dash = fields.indexOf("-", 6);
    if (dash < 0 || fields.length < dash + 3) continue;
    mounts.push({
      id: Number(fields[0]),
      parent: Number(fields[1]),
      device: fields[2],
      root: unescape(fields[3]),
      mountpoint: unescape(fields[4]),
      type: fields[dash + 1],
      source: unescape(fields[dash + 2]),
      readOnly: fields[5].split(",").includes("ro"),
    });
  }
  return mounts;
}

/** What is mounted now, oldest first. */
export function readMounts(): MountInfo[] {
  return parseMountInfo(Deno.readTextFileSync("/proc/self/mountinfo"));
}

/**
 * The absolute path by which the kernel knows a mountpoint. Links are followed, in the path to it and at its end; the
 * mountpoint itself is not asked for anything: a dead or hanging mount does no harm.
 */
export function mountpointPath(path: string): string {
  let absolute = isAbsolute(path) ? resolve(path) : resolve(Deno.cwd(), path);
  for (let links = 0; links < linksMax; links++) {
    const slash = absolute.lastIndexOf("/"), name = absolute.slice(slash + 1);
    if (name === "") return absolute;
    let parent: string;
    try {
      parent = Deno.realPathSync(absolute.slice(0, slash) || "/");
    } catch {
      return absolute;
    }
    absolute = resolve(parent, name);
    try {
      // readlink(2) looks at what the kernel knows of the name; unlike lstat(2) it sends no request to a mount.
      absolute = resolve(parent, Deno.readLinkSync(absolute));
    } catch {
      return absolute;
    }
  }
  return absolute;
}

/** The topmost mount at a path, or null. */
export function findMount(path: string): MountInfo | null {
  const mountpoint = mountpointPath(path);
  return readMounts().findLast((mount) => mount.mountpoint === mountpoint) ?? null;
}

/** A path in a mounted volume. */
export interface VolumePlace {
  /** `host:port` of the manager that the mount names. */
  managerAddress: string;
  volume: string;
  /** Absolute, in the volume. */
  path: string;
  /** The same by the kernel's names, without links on the way. */
  realPath: string;
}

/**
 * Where in which volume a path is, by what is mounted; undefined when it is in no volume. A link at its end is not
 * followed, unless a slash comes after it. Throws Deno's error when its directory cannot be reached.
 */
export function volumePlace(path: string, mounts = readMounts()): VolumePlace | undefined {
  const text = path.replace(/(?<=.)\/+$/, ""), slash = text.lastIndexOf("/"), last = text.slice(slash + 1);
  const whole = text !== path || last === "" || last === "." || last === "..";
  const above = slash < 0 ? "." : text.slice(0, slash) || "/";
  const realPath = whole ? Deno.realPathSync(text) : resolve(Deno.realPathSync(above), last);
  const isUnder = ({ mountpoint }: MountInfo) => {
    return mountpoint === "/" || realPath === mountpoint || realPath.startsWith(`${mountpoint}/`);
  };
  const longest = (best: MountInfo | undefined, one: MountInfo) => {
    return best === undefined || one.mountpoint.length >= best.mountpoint.length ? one : best;
  };
  const mount = mounts.filter(isUnder).reduce(longest, undefined as MountInfo | undefined);
  const name = mount?.source.lastIndexOf("/") ?? -1;
  if (mount === undefined || mount.type !== fuseFileSystemType || name < 0) return undefined;
  const inside = mount.mountpoint === "/" ? realPath : realPath.slice(mount.mountpoint.length);
  return {
    managerAddress: mount.source.slice(0, name),
    volume: mount.source.slice(name + 1),
    path: `${mount.root === "/" ? "" : mount.root}${inside}` || "/",
    realPath,
  };
}

/** The first mountpoint at or below a path that has no links on its way; undefined when there is none. */
export function mountAtOrBelow(realPath: string, mounts = readMounts()): string | undefined {
  return mounts.find(({ mountpoint }) => mountpoint === realPath || mountpoint.startsWith(`${realPath}/`))?.mountpoint;
}

/** True when something is mounted at exactly this path. */
export function isMounted(path: string): boolean {
  return findMount(path) !== null;
}

/**
 * Removes a mount of ours whose process is gone (every access says ENOTCONN), as a crash leaves it. Returns true when
 * there was one. Asks the mount: call it only where it cannot be one that the calling thread serves.
 */
export function cleanDeadMount(path: string): boolean {
  const mount = findMount(path);
  if (mount === null || mount.type !== fuseFileSystemType || !isDead(mount.mountpoint)) return false;
  unmount(mount.mountpoint, { lazy: true });
  return true;
}

function isDead(mountpoint: string): boolean {
  try {
    Deno.lstatSync(mountpoint);
    return false;
  } catch (error) {
    const code = (error as { code?: string }).code;
    return code === "ENOTCONN" || code === "ECONNABORTED";
  }
}

/** What to mount, and where. */
export interface MountRequest {
  /** What `df` shows, such as `sealfs#VOLUME` or `MANAGER/VOLUME`. */
  source: string;
  /** An existing directory. */
  mountpoint: string;
  options: MountOptions;
}

/** Where a mount of ours with this device is now; undefined when it is nowhere. */
export function placeOfDevice(device: string): string | undefined {
  if (device === "") return undefined;
  return readMounts().find((mount) => mount.device === device && mount.type === fuseFileSystemType)?.mountpoint;
}

/** A new mount. */
export interface FuseMount {
  /** Descriptor of the FUSE device, close-on-exec, for a transport to serve and close. */
  fd: number;
  mountpoint: string;
}

/**
 * Mounts. The mount answers nothing until `fd` is served, so serve it before anybody looks at the mountpoint. Root uses
 * mount(2); others, and a root without the privilege, use fusermount3. A dead mount of ours at the place is removed.
 */
export function mountFuse(request: MountRequest): FuseMount {
  const mountpoint = mountpointPath(request.mountpoint);
  cleanDeadMount(mountpoint);
  const mounted = findMount(mountpoint);
  if (mounted?.type === fuseFileSystemType) throw new Error(`${mountpoint} is already mounted (${mounted.source})`);
  checkDirectory(mountpoint);
  if (Deno.uid() === 0) {
    const fd = mountDirectly(request, mountpoint);
    if (fd >= 0) return { fd, mountpoint };
  }
  return { fd: mountByHelper(request, mountpoint), mountpoint };
}

/**
 * Sets the flags of a mount of ours, as `mount -o remount` does: all of them, so name those that are to stay. Root's
 * alone. A mount that was made read-only stays so, whatever its flags are.
 */
export function remountFuse(path: string, options: MountOptions): void {
  const mount = findMount(path);
  if (mount?.type !== fuseFileSystemType) throw new Error(`cannot remount ${path}: nothing of sealfs is mounted there`);
  const nothing = cstr(""), flags = BigInt(MS.REMOUNT | options.flags);
  if (libc.mount(cstr(mount.source), cstr(mount.mountpoint), nothing, flags, nothing) === 0) return;
  throw systemError("remount", mount.mountpoint);
}

function checkDirectory(mountpoint: string): void {
  let isDirectory: boolean;
  try {
    isDirectory = Deno.statSync(mountpoint).isDirectory;
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound ? "no such directory" : (error as Error).message;
    throw new Error(`cannot mount on ${mountpoint}: ${why}`);
  }
  if (!isDirectory) throw new Error(`cannot mount on ${mountpoint}: not a directory`);
}

/** The descriptor, or -1 when the kernel does not let this process mount. */
function mountDirectly(request: MountRequest, mountpoint: string): number {
  const { flags } = request.options;
  const fd = libc.open(cstr(devicePath), O.RDWR | O.CLOEXEC, 0);
  if (fd < 0) {
    const why = errno();
    const hint = why === ENOENT ? " (load the kernel's fuse module)" : "";
    throw new Error(`cannot open ${devicePath}: ${errnoText(why)}${hint}`);
  }
  const data = [
    `fd=${fd}`,
    "rootmode=40000",
    `user_id=${Deno.uid()}`,
    `group_id=${Deno.gid()}`,
    "default_permissions",
    "allow_other",
    `max_read=${maxReadBytes}`,
  ].join(",");
  const type = cstr(fuseFileSystemType);
  if (libc.mount(cstr(request.source), cstr(mountpoint), type, BigInt(flags), cstr(data)) === 0) return fd;
  const why = errno();
  closeFd(fd);
  if (why === EPERM) return -1;
  throw systemError(`mount ${request.source} on`, mountpoint, why);
}

/** Escapes what fusermount3 splits its options at. */
function escapeOption(value: string): string {
  return value.replace(/[\\,]/g, "\\$&");
}

/** fusermount3 mounts and sends the descriptor over the socket whose number is in _FUSE_COMMFD. */
function mountByHelper(request: MountRequest, mountpoint: string): number {
  const { words, allowOther } = request.options;
  const subtype = fuseFileSystemType.slice("fuse.".length);
  const options = [
    `fsname=${escapeOption(request.source)}`,
    `subtype=${subtype}`,
    "default_permissions",
    `max_read=${maxReadBytes}`,
    ...words,
    ...(allowOther ? ["allow_other"] : []),
  ];
  const [ours, theirs] = socketPair(SOCK.STREAM);
  try {
    inherit(theirs);
    const outcome = runHelper(["-o", options.join(","), "--", mountpoint], { _FUSE_COMMFD: String(theirs) });
    if (outcome !== "") throw new Error(`cannot mount ${request.source} on ${mountpoint}: ${outcome}`);
    const fd = receiveDescriptors(ours)?.descriptors[0];
    if (fd === undefined) {
      throw new Error(`cannot mount ${request.source} on ${mountpoint}: fusermount3 sent no descriptor`);
    }
    return fd;
  } finally {
    closeFd(ours);
    closeFd(theirs);
  }
}

/** Runs fusermount3: "" when it succeeded, otherwise why not. */
function runHelper(args: string[], env: Record<string, string> = {}): string {
  try {
    const { success, stderr } = new Deno.Command("fusermount3", { args, env, stdin: "null", stdout: "null" })
      .outputSync();
    if (success) return "";
    const said = new TextDecoder().decode(stderr).trim().replaceAll("\n", "; ").replace(/^fusermount3: /, "");
    return said === "" ? "fusermount3 failed" : said;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return "fusermount3 is not installed (Debian package fuse3), and only root mounts without it";
  }
}

/**
 * Unmounts what is on top at a path. Lazy: it disappears at once and ends when the last file in it is closed. Returns
 * false when nothing is mounted there. An Error when it is busy or not permitted.
 */
export function unmount(path: string, options: { lazy: boolean }): boolean {
  const mountpoint = mountpointPath(path);
  if (!isMounted(mountpoint)) return false;
  if (Deno.uid() === 0) {
    if (libc.umount2(cstr(mountpoint), options.lazy ? MNT.DETACH : 0) === 0) return true;
    const why = errno();
    if (why === EINVAL) return false;
    const hint = why === EBUSY ? " (files in it are open)" : "";
    if (why !== EPERM) throw new Error(`cannot unmount ${mountpoint}: ${errnoText(why)}${hint}`);
  }
  const outcome = runHelper(["-u", ...(options.lazy ? ["-z"] : []), "--", mountpoint]);
  if (outcome !== "") throw new Error(`cannot unmount ${mountpoint}: ${outcome}`);
  return true;
}

/** Sets the kernel's read-ahead for a mount. Only root may; false when it could not be done, which costs speed alone. */
export function setReadAhead(path: string, kiB: number = readAheadKiB): boolean {
  const mount = findMount(path);
  if (mount === null) return false;
  try {
    Deno.writeTextFileSync(`/sys/class/bdi/${mount.device}/read_ahead_kb`, String(kiB));
    return true;
  } catch {
    return false;
  }
}
