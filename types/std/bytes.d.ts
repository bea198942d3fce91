/** Types of `@std/fmt/bytes`, for the npm packaging of @std, which ships none. Only what sealfs uses. */

/** Options of {@linkcode format}. */
export interface FormatOptions {
  bits?: boolean;
  binary?: boolean;
  signed?: boolean;
  locale?: boolean | string | string[];
  minimumFractionDigits?: number;
  maximumFractionDigits?: number;
}
/** A byte count for people: `1.34 kB`, or `1.31 KiB` with `binary`. */
export function format(num: number, options?: FormatOptions): string;
