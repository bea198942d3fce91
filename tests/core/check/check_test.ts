/** The check over records at rest: a clean cluster is clean, every kind of damage is found, what is repaired is clean. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import type { FindingKind, Severity } from "../../../core/check/finding.ts";
import { encodeChunk } from "../../../core/data/chunk_record.ts";
import { accessAclName, defaultAclName, encodeAcl } from "../../../core/meta/acl.ts";
import { inodeFlags, S } from "../../../core/meta/attributes.ts";
import { intentKind, intentRecord, stepRecord } from "../../../core/meta/intent.ts";
import {
  chunkKey,
  dentry,
  dentryKey,
  inodeKey,
  Key,
  kind,
  replyKey,
  replyRecord,
  shardOf,
  usage,
  xattrKey,
} from "../../../core/meta/layout.ts";
import { encodeFloor } from "../../../core/meta/ops/write.ts";
import { rootShard } from "../../../core/placement/hash.ts";
import { encode } from "../../../core/protocol/codec.ts";
import { UNLINK } from "../../../core/protocol/messages.ts";
import { decode } from "../../../core/protocol/codec.ts";
import { Random } from "../../sim/random.ts";
import { aclOf } from "../meta/acls.ts";
import { example, Image, map, shards, texts, volume } from "./images.ts";

type Example = ReturnType<typeof example>;
const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("Checker finds nothing in a clean cluster", () => {
  assertEquals(texts(example().check()), "");
  assertEquals(texts(new Image().check()), "");
});

Deno.test("Checker counts the bytes of every file and link, however many there are", () => {
  for (const link of [false, true]) {
    const image = new Image(), dir = image.directory(image.root, "many", 2);
    for (let number = 0; number < 3000; number++) {
      const file = image.file(dir, `name${number}`, link ? { mode: S.IFLNK | 0o777, size: 9 } : {});
      if (link) {
        image.put(inodeKey(shardOf(file), kind.symlink, file), new Uint8Array(9).fill(65));
        image.charge(shardOf(file), 9, 0);
      } else image.inline(file, 5);
    }
    assertEquals(texts(image.check()), "");
  }
});

/** A kind of damage: what it does, what is found, and whether it can be repaired to a clean cluster. */
interface Damage {
  name: string;
  make: (image: Example) => void;
  kind: FindingKind;
  text: RegExp;
  severity?: Severity;
  /** Repairing leaves the cluster clean. Default true. */
  repairs?: boolean;
  after?: (image: Example) => void;
}

const damages: Damage[] = [
  {
    name: "an inode that does not know of its ACLs and capabilities",
    make: (image) => {
      image.edit(image.hard, { flags: 0 });
      image.edit(image.b, { flags: 0 });
      image.edit(image.big, { flags: inodeFlags.far });
    },
    kind: "attributes",
    text: /does not know which ACLs and capabilities it has/,
    after: (image) => {
      assertEquals(image.attributes(image.hard).flags, inodeFlags.accessAcl);
      assertEquals(image.attributes(image.b).flags, inodeFlags.defaultAcl);
      assertEquals(image.attributes(image.big).flags, inodeFlags.far | inodeFlags.capability);
    },
  },
  {
    name: "an inode that says it has an ACL and has none",
    make: (image) => image.remove(xattrKey(image.b, defaultAclName)),
    kind: "attributes",
    text: /does not know which ACLs/,
    after: (image) => assertEquals(image.attributes(image.b).flags, 0),
  },
  {
    name: "a mode that is not the ACL's",
    make: (image) => image.edit(image.hard, { mode: S.IFREG | 0o4666 }),
    kind: "attributes",
    text: /has mode 0666 and an ACL that says 0640/,
    after: (image) => assertEquals(image.attributes(image.hard).mode, S.IFREG | 0o4640),
  },
  {
    name: "an ACL that is none",
    make: (image) => image.put(xattrKey(image.hard, accessAclName), bytes("nonsense")),
    kind: "record",
    text: /it is no ACL/,
    repairs: false,
  },
  {
    name: "a default ACL of a file",
    make: (image) => {
      image.put(xattrKey(image.small, defaultAclName), encodeAcl(aclOf("u::rwx g::r-x o::---")));
      image.edit(image.small, { flags: image.attributes(image.small).flags | inodeFlags.defaultAcl });
    },
    kind: "part",
    text: /of a type that has no such ACL/,
    after: (image) => assertEquals(image.get(xattrKey(image.small, defaultAclName)), undefined),
  },
  {
    name: "a name that leads nowhere",
    make: (image) => {
      image.entry(image.a, "ghost", image.number(1), 8);
      image.edit(image.a, { entries: image.attributes(image.a).entries + 1 });
    },
    kind: "name",
    text: /leads to inode \d+, which does not exist/,
    after: (image) => assertEquals(image.get(image.place(image.a, "ghost")), undefined),
  },
  {
    name: "a name of a wrong type",
    make: (image) => image.entry(image.a, "small", image.small, 4),
    kind: "name",
    text: /says type 4, but inode \d+ is of type 8/,
  },
  {
    name: "a name that is none",
    make: (image) => image.entry(image.a, "x/y", image.small, 8),
    kind: "name",
    text: /no name that a file can have/,
  },
  {
    name: "a name where nobody looks for it",
    make: (image) => {
      const value = image.get(image.place(image.a, "small"))!;
      image.remove(image.place(image.a, "small"));
      image.put(dentryKey(image.a, 12345, 0), value);
    },
    kind: "name",
    text: /where nobody looks for it/,
    after: (image) => assert(image.get(image.place(image.a, "small")) !== undefined),
  },
  {
    name: "a second disambiguator in a directory that is not marked",
    make: (image) => {
      const value = image.get(image.place(image.a, "small"))!;
      image.remove(image.place(image.a, "small"));
      image.put(image.place(image.a, "small", 1), value);
    },
    kind: "name",
    text: /where nobody looks for it/,
  },
  {
    name: "a name twice",
    make: (image) => {
      image.put(image.place(image.a, "small", 1), image.get(image.place(image.a, "small"))!);
    },
    kind: "name",
    text: /a second time/,
  },
  {
    name: "a second name of a directory",
    make: (image) => image.link(image.root, "again", image.b),
    kind: "name",
    text: /second name of directory/,
    after: (image) => assert(image.get(image.place(image.a, "b")) !== undefined),
  },
  {
    name: "a name of a root",
    make: (image) => image.link(image.a, "root", image.root),
    kind: "name",
    text: /the root of a volume/,
  },
  {
    name: "names in a directory that does not exist",
    make: (image) => {
      image.remove(image.place(image.root, "a"));
      image.remove(inodeKey(shardOf(image.a), kind.inode, image.a));
      image.edit(image.root, { entries: 0, nlink: 2 });
    },
    kind: "name",
    text: /4 names lie in inode \d+, which does not exist/,
    after: (image) => {
      const lost = [...lostNames(image)];
      assert(lost.includes(image.b) && lost.includes(image.small));
    },
  },
  {
    name: "a volume without its root",
    make: (image) => image.remove(inodeKey(shardOf(image.root), kind.inode, image.root)),
    kind: "lost",
    text: /the root of volume v, inode \d+, does not exist, but 1 names in it do/,
    after: (image) => assertEquals([...lostNames(image)], []),
  },
  {
    name: "wrong counts of a directory",
    make: (image) => image.edit(image.a, { nlink: 9, entries: 1, flags: inodeFlags.sealed, parent: image.b }),
    kind: "attributes",
    text: /says 9 links and has 3, says 1 entries and has 4, is sealed, says it lies in/,
  },
  {
    name: "too many links of a file",
    make: (image) => image.edit(image.hard, { nlink: 3 }),
    kind: "attributes",
    text: /says 3 links and has 2/,
  },
  {
    name: "a file with names and no link",
    make: (image) => image.edit(image.hard, { nlink: 0 }),
    kind: "attributes",
    text: /says 0 links and has 2/,
  },
  {
    name: "a file without a name",
    make: (image) => {
      image.remove(image.place(image.a, "small"));
      image.edit(image.a, { entries: image.attributes(image.a).entries - 1 });
    },
    kind: "lost",
    text: /has no name$/,
    after: (image) => assertEquals([...lostNames(image)], [image.small]),
  },
  {
    name: "an empty file without a name",
    make: (image) => {
      image.inode(image.number(1), { mode: S.IFREG | 0o644 });
    },
    kind: "lost",
    text: /has no name and nothing in it/,
    after: (image) => assertEquals([...lostNames(image)], []),
  },
  {
    name: "a directory without a name",
    make: (image) => {
      image.remove(image.place(image.a, "b"));
      image.edit(image.a, { entries: image.attributes(image.a).entries - 1, nlink: 2 });
    },
    kind: "lost",
    text: /has no name$/,
    after: (image) => assertEquals([...lostNames(image)], [image.b]),
  },
  {
    name: "an empty directory without a name",
    make: (image) => {
      image.inode(image.number(1), { mode: S.IFDIR | 0o755, parent: image.a });
    },
    kind: "lost",
    text: /has no name and nothing in it/,
    after: (image) => assertEquals([...lostNames(image)], []),
  },
  {
    name: "a directory in itself",
    make: (image) => {
      image.remove(image.place(image.root, "a"));
      image.edit(image.root, { entries: 0, nlink: 2 });
      image.link(image.b, "a", image.a);
      image.edit(image.a, { parent: image.b });
    },
    kind: "cycle",
    text: /lies in itself, through 2 directories/,
    after: (image) => assertEquals([...lostNames(image)].length, 1),
  },
  {
    name: "a directory without the key of its names",
    make: (image) => image.remove(inodeKey(shardOf(image.a), kind.hashKey, image.a)),
    kind: "part",
    text: /lost the key of its names/,
  },
  {
    name: "a deleted file that nobody has open",
    make: (image) => {
      const inode = image.inode(image.number(1), { mode: S.IFREG | 0o644, nlink: 0 });
      image.put(inodeKey(shardOf(inode), kind.orphan, inode), new Uint8Array(4));
    },
    kind: "orphan",
    severity: "warning",
    text: /nobody has it open/,
  },
  {
    name: "a deleted file that is not marked",
    make: (image) => {
      const inode = image.inode(image.number(1), { mode: S.IFREG | 0o644, nlink: 0 });
      image.chunk(inode, 0, 2);
      image.chunk(inode, 3, 2);
    },
    kind: "orphan",
    text: /deleted and would stay for ever/,
  },
  {
    name: "a file that is marked as deleted",
    make: (image) => image.put(inodeKey(shardOf(image.small), kind.orphan, image.small), new Uint8Array(4)),
    kind: "orphan",
    text: /has a name and is marked as deleted/,
    after: (image) => assert(image.get(inodeKey(shardOf(image.small), kind.inode, image.small)) !== undefined),
  },
  {
    name: "inline data beyond the size",
    make: (image) => image.edit(image.small, { size: 10 }),
    kind: "attributes",
    text: /says 10 bytes and has 100/,
  },
  {
    name: "inline data that the inode does not know of",
    make: (image) => image.edit(image.small, { flags: 0 }),
    kind: "attributes",
    text: /does not know of its inline data/,
  },
  {
    name: "far chunks that the inode does not know of",
    make: (image) => image.edit(image.big, { flags: 0 }),
    kind: "attributes",
    text: /does not know of its far chunks/,
  },
  {
    name: "a wrong number of blocks",
    make: (image) => image.edit(image.small, { blocks: 80 }),
    kind: "attributes",
    severity: "warning",
    text: /says 80 blocks of 512 bytes and has 8/,
  },
  {
    name: "a wrong number of blocks in far chunks",
    make: (image) => image.edit(image.big, { blocks: 80 }),
    kind: "attributes",
    severity: "note",
    text: /says 80 blocks/,
  },
  {
    name: "data inline and in a chunk",
    make: (image) => image.rawChunk(image.small, 0, 1),
    kind: "part",
    text: /first bytes twice/,
    repairs: false,
  },
  {
    name: "a chunk behind the end",
    make: (image) => {
      image.rawChunk(image.big, 9, 4);
    },
    kind: "beyond",
    severity: "note",
    text: /chunk 9 of inode \d+ reaches 16384 bytes behind the end/,
  },
  {
    name: "a chunk partly behind the end",
    make: (image) => image.edit(image.big, { size: 5 * (1 << 20) + 5000 }),
    kind: "beyond",
    severity: "note",
    text: /chunk 5 of inode \d+ reaches 4096 bytes behind the end/,
  },
  {
    name: "parts of an inode that does not exist",
    make: (image) => {
      const inode = image.number(4);
      image.rawChunk(inode, 0, 2);
      image.rawChunk(inode, 7, 2);
      image.rawChunk(inode, 8, 2);
      image.put(new Key(4, kind.xattr, 20).u56(inode).raw(bytes("user.x")).done(), new Uint8Array(3));
      image.put(inodeKey(4, kind.data, inode), new Uint8Array(9));
    },
    kind: "leaked",
    severity: "warning",
    text: /3 chunks with 24576 bytes, inline data, extended attributes of inode/,
  },
  {
    name: "a floor of an inode that does not exist",
    make: (image) => image.put(inodeKey(6, kind.floor, image.number(4)), encodeFloor(3)),
    kind: "leaked",
    severity: "note",
    text: /floors of inode/,
  },
  {
    name: "a floor above the generation",
    make: (image) => image.put(inodeKey(6, kind.floor, image.big), encodeFloor(3)),
    kind: "part",
    text: /cannot be written: floor 3, generation 0/,
  },
  {
    name: "a symbolic link without its target",
    make: (image) => {
      image.remove(inodeKey(shardOf(image.symlink), kind.symlink, image.symlink));
      image.charge(shardOf(image.symlink), -5, 0);
    },
    kind: "part",
    text: /has lost its target/,
    repairs: false,
  },
  {
    name: "a symbolic link of another length",
    make: (image) => image.edit(image.symlink, { size: 9 }),
    kind: "attributes",
    severity: "warning",
    text: /says 9 bytes and has 5/,
  },
  {
    name: "a block in two chunks",
    make: (image) => {
      const key = image.chunk(image.file(image.a, "other"), 0, 1);
      image.put(key, encodeChunk({ volume, gen: 0, granules: Uint32Array.of(1, 0) }));
      const twin = image.file(image.a, "twin");
      image.put(image.chunk(twin, 0, 1), encodeChunk({ volume, gen: 0, granules: Uint32Array.of(1, 0) }));
    },
    kind: "block",
    text: /uses block 1 of server 2 store 0, which another chunk uses too/,
    repairs: false,
  },
  {
    name: "a chunk in another shard",
    make: (image) => {
      const key = chunkKey(image.home(image.big, 1), image.big, 1), value = image.get(key)!;
      image.remove(key);
      image.put(chunkKey((image.home(image.big, 1) + 1) % shards, image.big, 1), value);
    },
    kind: "place",
    text: /its place is shard/,
    repairs: false,
  },
  {
    name: "a chunk of another volume",
    make: (image) => {
      const key = chunkKey(shardOf(image.big), image.big, 0);
      image.put(key, encodeChunk({ volume: 2, gen: 0, granules: Uint32Array.of(99, 0) }));
    },
    kind: "usage",
    severity: "warning",
    text: /charges volume 1/,
  },
  {
    name: "an inode of a volume that does not exist",
    make: (image) => {
      image.inode(image.number(1), { mode: S.IFDIR | 0o755, volume: 7 });
    },
    kind: "volume",
    text: /1 inodes and 0 chunks of volume 7/,
    repairs: false,
  },
  {
    name: "a record that cannot be read",
    make: (image) => image.put(inodeKey(shardOf(image.small), kind.inode, image.small), new Uint8Array(7)),
    kind: "record",
    text: /record I [0-9a-f]{14} cannot be read/,
    repairs: false,
  },
  {
    name: "a record of no known kind",
    make: (image) => image.put(new Key(3, 0x5a, 10).u56(1).done(), new Uint8Array(7)),
    kind: "record",
    text: /record Z 0{13}1 is of no known kind/,
    repairs: false,
  },
  {
    name: "too much charged",
    make: (image) => image.charge(shardOf(image.a), 4096, 2),
    kind: "usage",
    severity: "warning",
    text: /charges volume 1/,
  },
  {
    name: "too little charged",
    make: (image) => image.charge(shardOf(image.big), -4096, -1),
    kind: "usage",
    severity: "warning",
    text: /charges volume 1/,
  },
  {
    name: "credit of a server that does not exist",
    make: (image) => {
      const key = new Key(rootShard(volume, shards), kind.credit, 13).u32(volume).u32(9).u16(0).done();
      image.put(key, encode(usage, { bytes: 1, inodes: 1 }));
    },
    kind: "credit",
    severity: "note",
    text: /of server 9, which does not exist/,
  },
  {
    name: "less credit than use",
    make: (image) => {
      const key = new Key(rootShard(volume, shards), kind.credit, 13).u32(volume).u32(1).u16(0).done();
      image.put(key, encode(usage, { bytes: 1, inodes: 1 }));
    },
    kind: "credit",
    severity: "note",
    text: /server 1 store 0 uses/,
    repairs: false,
  },
  {
    name: "answers for a dead session",
    make: (image) => {
      const reply = encode(replyRecord, { sequence: 1, type: 20, status: 0, body: new Uint8Array(4) });
      image.put(replyKey(1, 4, 0), reply);
      image.put(replyKey(1, 4, 1), reply);
      image.put(replyKey(1, 5, 1), reply);
    },
    kind: "reply",
    severity: "note",
    text: /shard 1 keeps 2 answers for sessions that are dead/,
  },
  {
    name: "an inode number above the shard's next",
    make: (image) => {
      const inode = image.number(1) + 2e6;
      image.inode(inode, { mode: S.IFREG | 0o644 });
      image.link(image.a, "high", inode);
    },
    kind: "counter",
    text: /the next inode number would be 1000000/,
    repairs: false,
  },
  {
    name: "a name that is locked for an intent that is over",
    make: (image) => {
      const key = new Key(2, kind.step, 13).u16(1).u56(3).u8(2).done();
      image.put(key, encode(stepRecord, held(image.b)));
    },
    kind: "intent",
    text: /a name in directory \d+ is locked for intent 3 of shard 1, which is over/,
  },
  {
    name: "an intent that nobody drives",
    make: (image) => image.put(new Key(1, kind.intent, 10).u56(3).done(), unlinkIntent(image.a)),
    kind: "intent",
    text: /intent 3 of shard 1 is not finished/,
    repairs: false,
  },
];

function held(dir: number) {
  return {
    holds: { dir, name: bytes("x") },
    outcome: new Uint8Array(0),
    intent: unlinkIntent(dir),
  };
}

function unlinkIntent(dir: number): Uint8Array {
  const request = encode(UNLINK.request, { dir, name: bytes("x") });
  const origin = { session: 5, slot: 0, sequence: 1, type: UNLINK.type };
  return encode(intentRecord, { kind: intentKind.unlink, phase: 1, ...origin, request, state: new Uint8Array(0) });
}

/** Inodes with a name in lost+found. */
function* lostNames(image: Image): Generator<number> {
  const value = image.get(image.place(image.root, "lost+found"));
  if (value === undefined) return;
  const dir = decode(dentry, value).inode, prefix = inodeKey(shardOf(dir), kind.dentry, dir).toHex();
  for (const [key, value] of image.records) if (key.startsWith(prefix)) yield decode(dentry, value).inode;
}

for (const { name, make, kind: expected, text, severity = "error", repairs = true, after } of damages) {
  Deno.test(`Checker finds ${name}${repairs ? ", and its repair leaves a clean cluster" : ""}`, () => {
    const image = example();
    make(image);
    const found = image.check();
    const match = found.filter((one) => one.kind === expected && text.test(one.text));
    assert(match.length > 0, `not found; instead:\n${texts(found)}`);
    assertEquals(match[0].severity, severity);
    if (!repairs) return;
    assertEquals(texts(image.repair().left), "");
    after?.(image);
  });
}

Deno.test("Checker keeps quiet about open files, and about volumes that are being deleted", () => {
  const image = example();
  const orphan = image.inode(image.number(1), { mode: S.IFREG | 0o644, nlink: 0 });
  image.put(inodeKey(shardOf(orphan), kind.orphan, orphan), new Uint8Array(4));
  image.rawChunk(image.big, 9, 4);
  assertEquals(texts(image.check([orphan, image.big])), "");

  const gone = image.inode(image.number(3), { mode: S.IFDIR | 0o755, volume: 2, nlink: 7, entries: 4 });
  image.entry(gone, "x", image.number(2), 8);
  image.rawChunk(image.number(3), 4, 2, 2);
  assertEquals(texts(image.check([orphan, image.big])), "");
});

Deno.test("Checker leaves out what an intent under way explains, and nothing else", () => {
  const image = example();
  image.put(new Key(1, kind.intent, 10).u56(3).done(), unlinkIntent(image.a));
  image.edit(image.hard, { nlink: 1 });
  image.edit(image.big, { nlink: 5 });
  assertMatch(texts(image.check([], map, 1)), /^error attributes: inode \d+ says 5 links and has 1$/);
  assertMatch(texts(image.check([], map, 0)), /says 1 links and has 2/);
});

Deno.test("Checker tells findings apart by the versions of what they speak of", () => {
  const image = example();
  image.edit(image.hard, { nlink: 1 });
  const [before] = image.check();
  assertEquals(image.check()[0].evidence, before.evidence);
  image.edit(image.hard, { version: 2 });
  assert(image.check()[0].evidence !== before.evidence);
});

Deno.test("Checker repairs whatever random records are lost or damaged, as far as that needs no guess", () => {
  let repaired = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed, "damage"), image = example();
    for (let i = 0; i < 1 + seed % 6; i++) {
      // Without its usage a store does not start at all.
      const [key, value] = random.pick([...image.records].filter(([key]) => !/^.{4}56/.test(key)));
      if (random.chance(0.6)) image.records.delete(key);
      else if (value.length > 0) value[random.below(value.length)] ^= 1 << random.below(8);
    }
    const before = image.check().length, { left, refused } = image.repair();
    const possible = left.filter((finding) => finding.repair !== undefined);
    assert(possible.length <= refused.length, `seed ${seed}: ${refused}\n${texts(left)}`);
    if (before > left.length) repaired++;
  }
  assert(repaired > 150, `only ${repaired} of 300 clusters got better`);
});

Deno.test("Checker finds many damages at once, and repairs them all", () => {
  const image = example();
  const some = damages.filter(({ repairs, kind: one }) => repairs !== false && one !== "cycle");
  for (const { make, name } of some) {
    // The others take away what these work on.
    if (!/does not exist|without a name|root|disambiguator|twice|small/.test(name)) make(image);
  }
  assert(image.check().length > 15);
  assertEquals(texts(image.repair().left), "");
});
