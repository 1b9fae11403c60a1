export * from "./client.js";
export * from "./errors.js";
export type { Options } from "./transport.js";
export type * from "./types.js";
export { verify } from "./webhooks.js";
