/**
 * V8's options for processes that serve disks. V8 takes code that was kept at the build only from a
 * process with the same ones, so scripts/bundle.mjs keeps it with these.
 */

/**
 * New objects of a thread may take 48 MiB by default, and come to take 32 within minutes of work,
 * in every thread; they need none of that.
 */
const SEMI_SPACE_MIB = 4;

export const V8_FLAGS: readonly string[] = [`--max-semi-space-size=${SEMI_SPACE_MIB}`];
