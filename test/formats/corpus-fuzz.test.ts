/**
 * Mutants of images that the corpus has: crafted differencing chains, and ones that were malformed
 * before. LAYERDISK_TRIES=N makes N mutants, dealt out to all
 * images evenly.
 */
import { readFileSync, statSync } from 'node:fs';
import { dirname, relative } from 'node:path';
import t from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { type CorpusImage, openCorpus } from '../support/corpus.js';
import { type FuzzSubject, type FuzzTarget, fuzzImage } from '../support/image-fuzz.js';
import { createRandom, newSeed } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';
import { dealt, Tally, triesOr } from '../torture/tally.js';

/** Larger ones are mostly data. */
const MAX_FILES = 16 * MiB;
/** Bytes at the beginnings of a file's parts that are worth mutating. */
const PART = 512;
const MAX_PARTS = 48;

/** Both ends of a file, and what is not zero at the borders where formats put their tables. */
function targetsOf(file: string, bytes: Buffer): FuzzTarget[] {
  if (bytes.length < PART)
    return bytes.length === 0 ? [] : [{ file, offset: 0, length: bytes.length }];
  const starts = new Set([0, bytes.length - PART]);
  for (const step of [PART, 4 * KiB, 64 * KiB, MiB]) {
    for (let count = 1; count <= 8 && starts.size < MAX_PARTS; count += 1) {
      const at = count * step;
      const part = bytes.subarray(at, at + PART);
      if (part.length === PART && part.some((byte) => byte !== 0)) starts.add(at);
    }
  }
  return [...starts].map((offset) => ({ file, offset, length: PART }));
}

function subjectOf(image: CorpusImage, paths: readonly [string, ...string[]]): FuzzSubject {
  const [main] = paths;
  const folder = dirname(main);
  const files = Object.fromEntries(
    paths.map((path) => [relative(folder, path), readFileSync(path)]),
  );
  const targets = Object.entries(files).flatMap(([file, bytes]) => targetsOf(file, bytes));
  return { name: image.id, files, main: relative(folder, main), targets };
}

t.test('mutants of the corpus', { timeout: 3_600_000 }, async (t) => {
  const corpus = openCorpus(t, tempFolder(t));
  if (corpus === undefined) return;
  const seed = newSeed();
  t.comment(`seed ${seed}: LAYERDISK_SEED=${seed} replays it`);
  const random = createRandom(seed);
  const tally = new Tally(t);
  const unpacked = corpus.images.map((image) => ({ image, paths: corpus.unpack(image) }));
  const fit = unpacked.filter(({ paths }) => {
    const bytes = paths.reduce((sum, path) => sum + statSync(path).size, 0);
    return bytes > 0 && bytes <= MAX_FILES;
  });
  const shares = dealt(triesOr(2 * fit.length), fit.length);
  for (const [index, { image, paths }] of fit.entries()) {
    const rounds = shares[index] ?? 0;
    if (rounds === 0) continue;
    await fuzzImage(t, dirname(paths[0]), subjectOf(image, paths), { random, rounds, tally });
  }
  tally.print({ images: fit.length });
});
