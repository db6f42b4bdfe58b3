/**
 * Reads a file whole, again and again, closing it in between, until its standard input ends. Its
 * sectors carry generations: those below 1000 must be of one snapshot each time, unless a restore
 * overlapped; those from 1000 on were written since.
 *
 * node restore-reader.mjs FILE BYTES cached|mapped
 * Prints how many snapshots it saw come, how many reads overlapped a restore, and how often it
 * read; fails at a mixture that stays.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { mapFile } from '../support/memory-map.mjs';
import { generationsOf } from './sector-stamps.mjs';

/** From here on: written after the restore. */
const LATER = 1000;
/** Closed in between, so that a restore finds an instant without a user. */
const PAUSE_MS = 20;

const [path, bytesText, mode] = process.argv.slice(2);
const length = Number(bytesText);

let stopping = false;
process.stdin.on('end', () => {
  stopping = true;
});
process.stdin.resume();

function readWhole() {
  const fd = openSync(path, 'r');
  try {
    if (mode === 'mapped') {
      const map = mapFile(fd, length);
      const bytes = map.read();
      map.unmap();
      return bytes;
    }
    const bytes = Buffer.alloc(length);
    const count = readSync(fd, bytes, 0, length, 0);
    if (count !== length) throw new Error(`read ${count} of ${length}`);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

/** Of the snapshots that the sectors are of. */
function look() {
  return [...new Set([...generationsOf(readWhole())].filter((each) => each < LATER))];
}

let reads = 0;
let changes = 0;
let before = 0;
while (!stopping) {
  const seen = look();
  const [generation = before, ...others] = seen;
  if (others.length > 0) throw new Error(`read ${reads}: sectors of ${seen.join(', ')}`);
  if (generation !== before) changes += 1;
  before = generation;
  reads += 1;
  if (reads === 1) process.stdout.write('working\n');
  await sleep(PAUSE_MS);
}
process.stdout.write(`${changes} changes, ${reads} reads`);
