/** Tests of core/client/lease_cache.ts: what is known, for how long, and what a session's own changes make of it. */

import { assertEquals } from "@std/assert";
import { absent, LeaseCache } from "../../../core/client/lease_cache.ts";
import { E } from "../../../core/errno.ts";
import { type Attributes, S } from "../../../core/meta/attributes.ts";
import { Call } from "../../../core/protocol/call.ts";
import { leaseBits, leaseHeldMs } from "../../../core/protocol/lease.ts";
import * as m from "../../../core/protocol/messages.ts";
import { FakeRuntime } from "../fake.ts";

const dir = 100, file = 200, both = leaseBits.attributes | leaseBits.directory;
const utf8 = (text: string) => new TextEncoder().encode(text);
const time = { sec: 1, nsec: 0 };

function attributesOf(inode: number, more: Partial<Attributes> = {}): Attributes {
  return {
    ...{ inode, mode: S.IFREG | 0o644, nlink: 1, uid: 0, gid: 0, rdev: 0, size: 0, blocks: 0, version: 1, gen: 0 },
    ...{ atime: time, mtime: time, ctime: time, btime: time, volume: 1, parent: dir, entries: 0, flags: 0 },
    ...more,
  };
}

class Session {
  readonly runtime = new FakeRuntime();
  readonly cache = new LeaseCache(this.runtime);

  /** A reply arrives now to a request that left `agoMs` ago. */
  reply(message: m.Message, body: object, reply: object, leases: number, options = { status: 0, agoMs: 0 }): void {
    const call = new Call(message, body, Infinity);
    call.firstSentAtMs = this.runtime.nowMs() - options.agoMs;
    call.status = options.status;
    call.replyBody = options.status === 0 ? reply : undefined;
    this.cache.replied(call, leases);
  }

  getattr(attributes: Attributes, leases: number = leaseBits.attributes): void {
    this.reply(m.GETATTR, { inode: attributes.inode }, { attributes }, leases);
  }

  lookup(name: string, inode: number): void {
    const options = { status: inode === 0 ? E.NOENT : 0, agoMs: 0 };
    this.reply(m.LOOKUP, { dir, name: utf8(name) }, { inode, type: 8, attributes: null }, both, options);
  }

  name(name: string): number | undefined {
    return this.cache.name(dir, utf8(name));
  }
}

Deno.test("attributes() gives what a granting reply said until the lease runs out, counted from the request", () => {
  const one = new Session(), attributes = attributesOf(file);
  one.getattr(attributes, 0);
  assertEquals(one.cache.attributes(file), null);
  one.reply(m.GETATTR, { inode: file }, { attributes }, leaseBits.attributes, { status: 0, agoMs: 1000 });
  assertEquals(one.cache.attributes(file), attributes);
  assertEquals(one.cache.validityMs(attributes), leaseHeldMs - 1000);
  one.runtime.pass(leaseHeldMs - 1000);
  assertEquals(one.cache.attributes(file), null);
  assertEquals(one.cache.validityMs(attributes), 0);
});

Deno.test("recalled() voids attributes and names, and hands over who still uses them", () => {
  const session = new Session(), heard: number[] = [];
  session.cache.watch((inode) => {
    heard.push(inode);
    return null;
  });
  session.lookup("a", file);
  assertEquals(session.name("a"), file);
  assertEquals(session.cache.recalled(dir), []);
  assertEquals(session.name("a"), undefined);
  assertEquals(heard, [dir]);
});

Deno.test("name() knows what was looked up, and what is not there", () => {
  const session = new Session();
  assertEquals(session.name("a"), undefined);
  session.lookup("a", file);
  session.lookup("b", 0);
  assertEquals([session.name("a"), session.name("b"), session.name("c")], [file, absent, undefined]);
});

Deno.test("name() knows every name of a directory that was empty, and of one that was listed", () => {
  const empty = new Session();
  empty.getattr(attributesOf(dir, { mode: S.IFDIR | 0o755 }));
  assertEquals(empty.name("a"), absent);
  const listed = new Session(), entries = [{ name: utf8("a"), inode: file, type: 8, cookie: 9, attributes: null }];
  listed.reply(m.READDIR, { dir, cookie: 0 }, { entries, end: false }, leaseBits.directory);
  assertEquals([listed.name("a"), listed.name("b")], [file, undefined]);
  listed.reply(m.READDIR, { dir, cookie: 0 }, { entries, end: true }, leaseBits.directory);
  assertEquals([listed.name("a"), listed.name("b")], [file, absent]);
});

Deno.test("a session's own creation and removal are known at once, with what they do to the directory", () => {
  const session = new Session(), made = attributesOf(file, { mtime: { sec: 5, nsec: 0 } });
  session.getattr(attributesOf(dir, { mode: S.IFDIR | 0o755, version: 7 }));
  session.reply(m.CREATE, { dir, name: utf8("a") }, { created: true, inode: file, attributes: made }, both);
  assertEquals(session.name("a"), file);
  const parent = session.cache.attributes(dir)!;
  assertEquals([parent.entries, parent.mtime.sec, parent.version], [1, 5, 8]);
  session.reply(m.UNLINK, { dir, name: utf8("a") }, { gone: null }, leaseBits.directory);
  assertEquals(session.name("a"), absent);
  assertEquals([session.cache.attributes(dir), session.cache.attributes(file)], [null, null]);
});

Deno.test("a reply that grants nothing makes unknown what it is about: it may be an old one", () => {
  const session = new Session();
  session.getattr(attributesOf(dir, { mode: S.IFDIR | 0o755 }));
  session.reply(m.CREATE, { dir, name: utf8("a") }, { created: true, inode: file, attributes: attributesOf(file) }, 0);
  assertEquals(session.name("a"), undefined);
  assertEquals(session.cache.attributes(dir), null);
  assertEquals(session.cache.attributes(file), null);
});

Deno.test("a session's own write moves what is known by one version, and voids it when there was more", () => {
  const session = new Session(), written = { size: 10, blocks: 8, mtime: { sec: 6, nsec: 0 } };
  session.getattr(attributesOf(file, { version: 3 }));
  session.reply(m.WRITE, { inode: file }, { ...written, version: 4 }, 0);
  assertEquals(session.cache.attributes(file)?.size, 10);
  session.reply(m.WRITE, { inode: file }, { ...written, size: 5, version: 4 }, 0);
  assertEquals(session.cache.attributes(file)?.size, 10);
  session.reply(m.WRITE, { inode: file }, { ...written, version: 6 }, 0);
  assertEquals(session.cache.attributes(file), null);
});

Deno.test("distrust() voids everything when a change of a name has an unknown outcome", () => {
  const session = new Session();
  session.getattr(attributesOf(file));
  session.lookup("a", file);
  session.cache.distrust(new Call(m.UNLINK, { dir, name: utf8("a") }, Infinity));
  assertEquals(session.cache.size, 0);
});

Deno.test("missed() asks for a list once, after names were asked for in vain", () => {
  const session = new Session();
  session.lookup("a", 0);
  assertEquals([1, 2, 3].map(() => session.cache.missed(dir)), [false, true, false]);
});
