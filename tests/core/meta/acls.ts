/**
 * ACLs as text, for tests: entries like those of getfacl(1), with numbers for names, in the order in which they are to be.
 *
 * @module
 */

import { type Acl, aclTag, noId } from "../../../core/meta/acl.ts";

const plain: Record<string, number> = {
  u: aclTag.userObj,
  g: aclTag.groupObj,
  m: aclTag.mask,
  o: aclTag.other,
};
const named: Record<string, number> = { u: aclTag.user, g: aclTag.group };

/** "u::rwx u:1000:r-x g::r-x m::r-x o::r--" as a list. */
export function aclOf(text: string): Acl {
  return text.split(" ").map((entry) => {
    const [kind, id, letters] = entry.split(":");
    const perm = [..."rwx"].reduce((bits, letter) => bits * 2 + (letters.includes(letter) ? 1 : 0), 0);
    return { tag: (id === "" ? plain : named)[kind], perm, id: id === "" ? noId : Number(id) };
  });
}

/** A list as text, the inverse of {@linkcode aclOf}. */
export function aclText(acl: Acl): string {
  const letter = (tag: number) => {
    return Object.entries(plain).find(([, one]) => one === tag)?.[0] ??
      Object.entries(named).find(([, one]) => one === tag)?.[0] ?? "?";
  };
  return acl.map(({ tag, perm, id }) => {
    const letters = [..."rwx"].map((one, i) => (perm & 4 >> i) !== 0 ? one : "-").join("");
    return `${letter(tag)}:${id === noId ? "" : id}:${letters}`;
  }).join(" ");
}
