/**
 * What programs still hold of what is gone, on clients and servers of the real core: fstat and the like go on as on a
 * local file system, and end when the kernel forgets.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { Ghosts, ghostsMax } from "../../../core/client/ghosts.ts";
import { E } from "../../../core/errno.ts";
import { type Attributes, S } from "../../../core/meta/attributes.ts";
import { caller, must, Pair, utf8 } from "./pair.ts";

Deno.test("a directory removed here answers as a local one until it is forgotten, near or far from its name", () => {
  const p = new Pair();
  for (let number = 0; number < 6; number++) {
    const name = `d${number}`, { inode } = p.mkdir(p.root, name);
    assertEquals(typeof p.run((fs) => fs.removeDirectory(p.root, utf8(name))), "object");
    const gone = must(p.run((fs) => fs.getAttributes(inode)));
    assertEquals([gone.inode, gone.mode, gone.nlink], [inode, S.IFDIR | 0o755, 0]);
    const changed = must(p.run((fs) => fs.setAttributes(inode, { mode: 0o700, mtime: { sec: 5, nsec: 0 } })));
    assertEquals([changed.mode, changed.mtime.sec], [S.IFDIR | 0o700, 5]);
    assertEquals(must(p.run((fs) => fs.getAttributes(inode))).mode, S.IFDIR | 0o700);
    assertEquals(p.run((fs) => fs.lookup(inode, utf8("x"))), E.NOENT);
    assertEquals(p.run((fs) => fs.makeDirectory(inode, utf8("x"), 0o755, caller)), E.NOENT);
    assertEquals(p.run((fs) => fs.readDirectory(inode, 0, 4096, { plus: true })), E.NOENT);
    assertEquals(p.run((fs) => fs.getExtendedAttribute(inode, utf8("user.a"))), E.NODATA);
    assertEquals(p.run((fs) => fs.listExtendedAttributes(inode)), new Uint8Array(0));
    assertEquals(typeof p.run((fs) => fs.sync(inode)), "object");
    p.run(function* (fs) {
      yield* [];
      fs.forget(inode);
    });
  }
});

Deno.test("a file or symbolic link that lost its last name still has attributes and target, by unlink and by rename", () => {
  const p = new Pair(), far = p.mkdir(p.root, "far").inode;
  const check = (inode: number, target?: string) => {
    assertEquals(must(p.run((fs) => fs.getAttributes(inode))).nlink, 0);
    if (target !== undefined) assertEquals(p.run((fs) => fs.readLink(inode)), utf8(target));
  };
  const near = p.create(p.root, "near", "target").inode;
  must(p.run((fs) => fs.unlink(p.root, utf8("near"))));
  check(near, "target");
  const moved = p.create(p.root, "moved", "elsewhere").inode;
  must(p.run((fs) => fs.rename(p.root, utf8("moved"), far, utf8("moved"), 0)));
  must(p.run((fs) => fs.unlink(far, utf8("moved"))));
  check(moved, "elsewhere");
  const replaced = p.create(far, "replaced").inode;
  p.create(p.root, "over");
  must(p.run((fs) => fs.rename(p.root, utf8("over"), far, utf8("replaced"), 0)));
  check(replaced);
  const here = p.create(p.root, "here").inode;
  p.create(p.root, "near");
  must(p.run((fs) => fs.rename(p.root, utf8("near"), p.root, utf8("here"), 0)));
  check(here);
  const empty = p.mkdir(far, "empty").inode;
  p.mkdir(p.root, "dir");
  must(p.run((fs) => fs.rename(p.root, utf8("dir"), far, utf8("empty"), 0)));
  check(empty);
});

Deno.test("a file with another name is no ghost", () => {
  const p = new Pair(), { inode } = p.create(p.root, "a");
  must(p.run((fs) => fs.link(inode, p.root, utf8("b"))));
  must(p.run((fs) => fs.unlink(p.root, utf8("a"))));
  assertEquals(must(p.run((fs) => fs.getAttributes(inode))).nlink, 1);
});

Deno.test("a directory that is open here and removed elsewhere still has attributes, however much came since", () => {
  const p = new Pair(), { inode } = p.mkdir(p.root, "d");
  p.run(function* (fs) {
    yield* [];
    fs.hold(inode);
  });
  must(p.run((fs) => fs.removeDirectory(p.root, utf8("d")), 1));
  assertEquals(must(p.run((fs) => fs.getAttributes(inode))).nlink, 0);
  assertEquals(p.run((fs) => fs.readDirectory(inode, 0, 4096, { plus: false })), E.NOENT);
  assertEquals(p.run((fs) => fs.getAttributes(inode + 1)), E.STALE);
});

Deno.test("Ghosts forgets the oldest beyond its limit, and open directories when they are closed", () => {
  const ghosts = new Ghosts(), like = { inode: 7, mode: S.IFDIR } as Attributes;
  ghosts.hold(7, like);
  ghosts.hold(7, null);
  ghosts.letGo(7);
  assertEquals(ghosts.find(7), like);
  ghosts.letGo(7);
  assertEquals([ghosts.find(7), ghosts.size], [null, 0]);
  for (let inode = 1; inode <= ghostsMax + 1; inode++) ghosts.removed({ ...like, inode }, new Uint8Array(0));
  assertEquals([ghosts.size, ghosts.find(1)], [ghostsMax, null]);
  ghosts.letGo(2);
  assertEquals(ghosts.find(2)?.inode, 2);
  ghosts.forget(2);
  assertEquals(ghosts.find(2), null);
});
