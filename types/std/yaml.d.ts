/** Types of `@std/yaml`, for the npm packaging of @std, which ships none. Only what sealfs uses. */

/** Options of {@linkcode parse}. */
export interface ParseOptions {
  allowDuplicateKeys?: boolean;
  schema?: "core" | "default" | "failsafe" | "json" | "extended";
  onWarning?(error: Error): void;
}
/** Options of {@linkcode stringify}. */
export interface StringifyOptions {
  indent?: number;
  lineWidth?: number;
  sortKeys?: boolean | ((a: string, b: string) => number);
}
/** The value of a document; throws SyntaxError with `at line L, column C` in its message. */
export function parse(content: string, options?: ParseOptions): unknown;
export function stringify(data: unknown, options?: StringifyOptions): string;
