/**
 * The cluster's secret in a file: read and judged in one way wherever it is asked for.
 *
 * @module
 */

/** Longest secret file. */
export const secretBytesMax = 4096;

/**
 * The file's text without white space around it. Throws an Error of one line when the file cannot be read, others than
 * the owner's group may read it, others than the owner may write it, or it is empty.
 */
export function readSecretFile(path: string): string {
  const { mode, text } = readFile(path);
  if ((mode & 0o027) !== 0) {
    throw new Error(`secret file ${path} has mode 0${mode.toString(8)}: others could read it; run chmod 600 ${path}`);
  }
  if (text === "") throw new Error(`secret file ${path} is empty`);
  return text;
}

function readFile(path: string): { mode: number; text: string } {
  let info: Deno.FileInfo, text: string;
  try {
    info = Deno.statSync(path);
    text = info.isFile && info.size <= secretBytesMax ? Deno.readTextFileSync(path).trim() : "";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new Error(`secret file ${path} does not exist`);
    throw new Error(`cannot read secret file ${path}: ${error instanceof Error ? error.message : error}`);
  }
  if (!info.isFile) throw new Error(`secret file ${path} is not a file`);
  if (info.size > secretBytesMax) throw new Error(`secret file ${path} is longer than ${secretBytesMax} bytes`);
  return { mode: (info.mode ?? 0) & 0o777, text };
}
