/**
 * What went wrong in work on a whole tree: the first cases by name, the rest as a number.
 *
 * @module
 */

/** Problems that are named. */
const namedMax = 64;

/** Something of a tree that could not be dealt with. */
export interface TreeProblem {
  path: Uint8Array;
  errno: number;
}

/** See the module's comment. */
export class Problems {
  readonly #named: TreeProblem[] = [];
  #more = 0;

  add(path: Uint8Array, errno: number): void {
    if (this.#named.length < namedMax) this.#named.push({ path, errno });
    else this.#more++;
  }

  /** errno of the first, 0 when all went well. */
  get errno(): number {
    return this.#named[0]?.errno ?? 0;
  }

  get told(): { problems: TreeProblem[]; moreProblems: number } {
    return { problems: this.#named, moreProblems: this.#more };
  }
}
