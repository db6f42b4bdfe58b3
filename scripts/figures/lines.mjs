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
    id: 'R1',
    title: 'images of the corpus: opened and right, or refused, as its manifest says',
    tries: 135,
    file: 'test/formats/corpus.test.ts',
  },
  {
    id: 'R2',
    title: 'malformed and hostile images, made anew: wrong bytes, wrongly opened or refused',
    tries: 4000,
    file: 'test/formats/malformed.test.ts',
  },
  {
    id: 'R3',
    title: 'mutants of images of the corpus: wrong answers, errors that nobody caught',
    tries: 20_000,
    file: 'test/formats/corpus-fuzz.test.ts',
  },
  {
    id: 'R3d',
    title: 'mutants of VDIs and VMDKs, and noise behind every magic',
    tries: 20_000,
    file: 'test/formats/fuzz.test.ts',
  },
  {
    id: 'R3q',
    title: 'mutants of qcow2 images',
    tries: 20_000,
    file: 'test/formats/qcow2-fuzz.test.ts',
  },
  {
    id: 'R3v',
    title: 'mutants of VHDs, every other one with checksums that fit',
    tries: 20_000,
    file: 'test/formats/vhd-fuzz.test.ts',
  },
  {
    id: 'R3x',
    title: 'mutants of VHDXs, every other one with checksums that fit',
    tries: 20_000,
    file: 'test/formats/vhdx-fuzz.test.ts',
  },
  {
    id: 'R3m',
    title: 'mutants of machine files of every maker',
    tries: 20_000,
    file: 'test/machines/fuzz.test.ts',
  },
  {
    id: 'R4',
    title: 'random chains of every format, written and crafted, in process and through the mount',
    tries: 310,
    file: 'test/integration/random-chains.test.ts',
  },
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
    id: 'R7',
    title: 'states of a store that a power cut may leave, of every control operation',
    tries: 20_000,
    file: 'test/torture/crash-states.test.ts',
  },
  {
    id: 'R8',
    title: 'killed at every system call of each operation; so many of each call at most',
    tries: 100,
    file: 'test/torture/kill-at-call.test.ts',
  },
  {
    id: 'R9',
    title: 'every operation meets every error at every call to the host; so many of a hundred',
    tries: 100,
    file: 'test/vm/host-faults.test.ts',
  },
  {
    id: 'R9d',
    title: 'writes, discards and flushes meet every error at every call, always all of them',
    tries: 1,
    file: 'test/vm/data-faults.test.ts',
  },
  {
    id: 'R10',
    title: 'a full store, freed again, with and without a reserve',
    tries: 100,
    file: 'test/torture/full-store.test.ts',
  },
  {
    id: 'R11',
    title: 'bit flips in any file of a store, found and named by check --deep',
    tries: 1000,
    file: 'test/vm/check.test.ts',
  },
  {
    id: 'R11r',
    title: 'bit flips in sealed data, refused by reads that are verified',
    tries: 1000,
    file: 'test/engine/read-verifier.test.ts',
  },
  {
    id: 'R12',
    title: 'everything at once, a snapshot a second; so many seconds',
    tries: 600,
    file: 'test/torture/soak.test.ts',
  },
  {
    id: 'R13',
    title: 'two daemons for one store; bases that others alter; so many of each',
    tries: 100,
    file: 'test/torture/contenders.test.ts',
  },
  {
    id: 'R14',
    title: 'restores under readers of page cache, mappings and loop devices; stale sectors',
    tries: 200,
    file: 'test/torture/restores.test.ts',
  },
  {
    id: 'R15',
    title: 'fio with every engine on one layer and on ten, with trims; so many MiB a job',
    tries: 128,
    file: 'test/torture/fio-engines.test.ts',
  },
  {
    id: 'R15f',
    title: 'random operations as fsx does them, on files and loop devices, on one layer and on ten',
    tries: 1_000_000,
    file: 'test/torture/file-operations.test.ts',
  },
  {
    id: 'R15c',
    title: 'ext4, xfs and btrfs with SQLite and stress-ng on them, after each kind of crash',
    tries: 45,
    file: 'test/torture/crashed-guests.test.ts',
  },
  {
    id: 'R17',
    title: 'random disks in every subformat we write, read by us, by QEMU and by 7-Zip',
    tries: 1200,
    file: 'test/formats/random-disks.test.ts',
  },
  {
    id: 'R18',
    title: 'random operations of the engine against a model',
    tries: 1_000_000,
    file: 'test/engine/model.test.ts',
  },
  {
    id: 'R19',
    title: 'a chain of so many layers, a disk of 64 TiB, so many disks in one daemon',
    tries: 1000,
    file: 'test/torture/extremes.test.ts',
  },
  {
    id: 'R20',
    title: 'files that an image of the corpus, or a hostile one, has us open outside its folder',
    tries: 135,
    file: 'test/formats/opened-files.test.ts',
  },
  {
    id: 'S1',
    title: 'random messages to the control socket',
    tries: 1_000_000,
    file: 'test/control/fuzz.test.ts',
  },
];
