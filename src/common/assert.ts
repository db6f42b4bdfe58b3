/** Assertions: a failed one is a bug in layerdisk, never the user's doing. */

/** Throws when a condition that the code relies on does not hold. */
export function invariant(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`bug: ${what}`);
}

/** For the branch of a switch that no value can reach. */
export function unreachable(value: never): never {
  throw new Error(`bug: unexpected value ${String(value)}`);
}
