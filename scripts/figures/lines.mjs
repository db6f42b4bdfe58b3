/**
 * What scripts/torture runs: each line a test file that also runs in the everyday suite, with few
 * tries. To add one: let the test take `triesOr(few)` for its tries, count with `Tally`, and name
 * it here.
 *
 * @typedef {object} Line
 * @property {string} id
 * @property {string} title what is tried
 * @property {number} tries the usual number
 * @property {string} file a test file, below the project
 * @property {Record<string, string>} [env] more environment for it
 */

/** @type {readonly Line[]} */
export const LINES = [
  {
    id: 'R5',
    title: 'the daemon killed under fio, a random exerciser, snapshots and restores',
    tries: 1000,
    file: 'test/integration/takeover.test.ts',
  },
  {
    id: 'R6',
    title: 'power cuts below the store, on ext4 and xfs',
    tries: 1000,
    file: 'test/torture/power-cuts.test.ts',
  },
  {
    id: 'R8',
    title: 'killed at each system call of each operation (at most so many of each kind)',
    tries: 1000,
    file: 'test/torture/kill-at-call.test.ts',
  },
];
