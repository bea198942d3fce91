/** Types of `@std/fmt/colors`, for the npm packaging of @std, which ships none. Only what sealfs uses. */

/** Colours are on unless NO_COLOR is set; this overrides it. */
export function setColorEnabled(value: boolean): void;
/** Whether the functions below add escape codes. */
export function getColorEnabled(): boolean;
export function bold(str: string): string;
export function dim(str: string): string;
export function italic(str: string): string;
export function underline(str: string): string;
export function red(str: string): string;
export function green(str: string): string;
export function yellow(str: string): string;
export function blue(str: string): string;
export function magenta(str: string): string;
export function cyan(str: string): string;
export function gray(str: string): string;
/** The text without escape codes. */
export function stripAnsiCode(string: string): string;
