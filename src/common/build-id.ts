/**
 * Which build a program is of. Its threads share memory, so they must be of one build: the files
 * may be replaced while it runs, and a thread be loaded only after that.
 */

/** In a bundled program, scripts/bundle.mjs puts a checksum of all modules in its place. */
declare const LAYERDISK_BUILD: string | undefined;

/** Modules as the compiler leaves them have none of their own. */
export const BUILD_ID = typeof LAYERDISK_BUILD === 'undefined' ? 'modules' : LAYERDISK_BUILD;
