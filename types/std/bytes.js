// @ts-self-types="./bytes.d.ts"
export * from "deno-std/fmt/bytes.js";
