/**
 * What every call that takes a path promises of paths that lead nowhere, too far or where the caller may not go. Each
 * file of cases asks for its own call's.
 *
 * @module
 */

import { alice, both, fails, type Files, kernel } from "./case.ts";
import type { Kernel } from "./kernel.ts";
import { nameMax, pathMax } from "./constants.ts";

/** A call with a path; of a {@linkcode Kernel} for `kernelOnly`. */
export interface PathCall<F extends Files> {
  /** Such as "mkdir()", or "rename() to". */
  name: string;
  call: (fs: F, path: string) => Promise<unknown>;
  /** Makes in the case's folder what the call needs besides the path. */
  prepare?: (fs: F) => Promise<unknown>;
  /** It works on what is there: an absent name is ENOENT. */
  finds?: boolean;
  /** It follows a symbolic link at the end of the path. */
  follows?: boolean;
  /** It changes the directory of the name, so it needs permission to write there. */
  changesDirectory?: boolean;
}

/** A path of `length` bytes that leads to `name`: through "." so often that it is that long. */
export function longPath(name: string, length: number): string {
  const dots = length - name.length;
  return (dots % 2 === 0 ? "" : "/").padStart(dots, "./") + name;
}

type Register<F extends Files> = (promise: string, run: (fs: F) => Promise<void>) => void;

function shared<F extends Files>(register: Register<F>, asAlice: (fs: F) => F, what: PathCall<F>): void {
  const { name, call } = what;
  const prepare = async (fs: F) => void await what.prepare?.(fs);
  register(`${name} a path through a missing directory is ENOENT`, async (fs) => {
    await prepare(fs);
    await fails("ENOENT", call(fs, "none/name"));
  });
  register(`${name} a path through a file is ENOTDIR`, async (fs) => {
    await prepare(fs);
    await fs.writeFile("plain", "");
    await fails("ENOTDIR", call(fs, "plain/name"));
  });
  register(`${name} a name of 256 bytes is ENAMETOOLONG`, async (fs) => {
    await prepare(fs);
    await fails("ENAMETOOLONG", call(fs, "n".repeat(nameMax + 1)));
  });
  register(`${name} a path through a loop of links is ELOOP`, async (fs) => {
    await prepare(fs);
    await fs.symlink("one", "two");
    await fs.symlink("two", "one");
    await fails("ELOOP", call(fs, "one/name"));
  });
  register(`${name} a path through a directory without search permission is EACCES`, async (fs) => {
    await prepare(fs);
    await fs.mkdir("closed", 0o777);
    await fs.mkdir("closed/dir", 0o777);
    if (what.finds === true) await fs.writeFile("closed/dir/name", "", 0o777);
    await fs.chmod("closed", 0o666);
    await fails("EACCES", call(asAlice(fs), "closed/dir/name"));
  });
  if (what.finds === true) {
    register(`${name} an absent name is ENOENT`, async (fs) => {
      await prepare(fs);
      await fails("ENOENT", call(fs, "none"));
    });
  }
  if (what.follows === true) {
    register(`${name} a loop of links is ELOOP`, async (fs) => {
      await prepare(fs);
      await fs.symlink("loop", "loop");
      await fails("ELOOP", call(fs, "loop"));
    });
  }
  if (what.changesDirectory === true) {
    register(`${name} a name in a directory without write permission is EACCES`, async (fs) => {
      await prepare(fs);
      await fs.mkdir("closed", 0o777);
      if (what.finds === true) await fs.writeFile("closed/name", "", 0o777);
      await fs.chmod("closed", 0o555);
      await fails("EACCES", call(asAlice(fs), "closed/name"));
    });
  }
}

function ofKernel(what: PathCall<Kernel>): void {
  const { name, call } = what;
  kernel(`${name} a path of 4096 bytes is ENAMETOOLONG`, async (fs) => {
    await what.prepare?.(fs);
    await fails("ENAMETOOLONG", call(fs, longPath("name", pathMax + 1)));
  });
  kernel(`${name} an empty path is ENOENT`, async (fs) => {
    await what.prepare?.(fs);
    await fails("ENOENT", call(fs, ""));
  });
}

/** Registers the cases of a call that every way has. */
export function pathCases(what: PathCall<Files>): void {
  shared(both, (fs) => fs.as(alice), what);
  ofKernel(what);
}

/** Registers the cases of a call that only system calls have. */
export function kernelPathCases(what: PathCall<Kernel>): void {
  shared(kernel, (fs) => fs.as(alice), what);
  ofKernel(what);
}
