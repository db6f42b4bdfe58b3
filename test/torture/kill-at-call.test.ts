/**
 * SIGKILL at the Nth system call of each operation, for every N: it is there wholly or not at all,
 * what was acknowledged before is untouched, and the next start leaves no file behind.
 */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { cannotServe } from '../support/mount-guard.js';
import { createRandom, newSeed } from '../support/random.js';
import { fillSectors } from './sector-stamps.mjs';
import { Tally, triesOr } from './tally.js';
import { type Place, problemOf, runWorker } from './worker-process.js';

const OPERATIONS = [
  ...['create', 'write', 'discard', 'flush', 'snapshot', 'restore', 'delete-snapshot'],
  ...['linked-clone', 'full-clone', 'rename', 'delete', 'import-linked', 'import-copied'],
  ...['reclaim', 'compact', 'sum'],
];
/** Those that change what is on the disk. */
const CALLS = ['pwrite64', 'fsync', 'fdatasync', 'rename', 'unlink', 'ftruncate', 'fallocate'];
const DISK_SECTORS = 1024;

/** 0: a sample of a few; else every one, and so many of each call at most. */
const MOST = triesOr(0);
const SAMPLE = 8;

/** A store that has everything in it that the operations need, to be copied for each try. */
async function prepare(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'layerdisk-kill-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const place = placeIn(folder);
  await writeFile(`${place.journal}.img`, fillSectors(1, 0, DISK_SECTORS));
  const { code, stderr } = await runWorker(place, 'prepare');
  t.equal(code, 0, stderr);
  t.equal(await problemOf(place), undefined, 'the store to begin with is right');
  return folder;
}

function placeIn(folder: string): Place {
  return { store: join(folder, 'store'), journal: join(folder, 'journal'), death: 'process' };
}

/** @returns whether the operation ended before its Nth call, and what is wrong afterwards. */
async function killAt(folder: string, operation: string, call: string, count: number) {
  const from = placeIn(folder);
  const to = await mkdtemp(join(folder, 'try-'));
  const place = placeIn(to);
  try {
    await cp(from.store, place.store, { recursive: true, preserveTimestamps: true });
    await writeFile(place.journal, await readFile(from.journal));
    await writeFile(`${place.journal}.img`, await readFile(`${from.journal}.img`));
    const inject = `inject=${call}:signal=KILL:when=${count}`;
    const strace = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', `trace=${call}`, '-e', inject];
    const result = await runWorker(place, operation, strace);
    const killed = result.signal === 'SIGKILL' || result.code === 137;
    const failed = !killed && result.code !== 0 ? `it failed: ${result.stderr}` : undefined;
    return { unharmed: !killed, problem: failed ?? (await problemOf(place)) };
  } finally {
    await rm(to, { recursive: true, force: true });
  }
}

t.test('killed at a system call', { skip: cannotServe() }, async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const folder = await prepare(t);
  const tally = new Tally(t);
  const tryOne = async (operation: string, call: string, count: number): Promise<boolean> => {
    const { unharmed, problem } = await killAt(folder, operation, call, count);
    tally.judge(`${operation}, ${call} ${count}`, problem);
    return unharmed;
  };
  if (MOST === 0) {
    const random = createRandom(seed);
    for (let done = 0; done < SAMPLE; done += 1) {
      await tryOne(random.pick(OPERATIONS), random.pick(CALLS.slice(0, 4)), 1 + random.below(4));
    }
  } else {
    for (const operation of OPERATIONS) {
      for (const call of CALLS) {
        for (let count = 1; count <= MOST; count += 1) {
          if (await tryOne(operation, call, count)) break;
        }
      }
    }
  }
  tally.print();
});
