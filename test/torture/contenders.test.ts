/**
 * Others who want what a daemon has: a second daemon for the same store, of which exactly one gets
 * it, and writers on a base image, whose every alteration is refused by name until it is undone.
 */
import {
  closeSync,
  copyFileSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { mkdtemp, open, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { StartRefused, startDaemon, TestDaemon } from '../support/daemon.js';
import { cannotServe, mountsBelow } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { tool } from '../support/run-program.js';
import { ask, cannotTakeOver } from '../support/takeover.js';
import { tempFolder } from '../support/temp-folder.js';
import { fillSectors, generationsOf } from './sector-stamps.mjs';
import { Tally, triesOr } from './tally.js';

const RACES = triesOr(2);
const ALTERATIONS = triesOr(10);
const SECTOR = 512;
const SECTORS = 512;
const TIMEOUT_MS = 120_000 + RACES * 20_000;
const VM = 'prize';
/** Whole seconds, which can be put back exactly. */
const MODIFIED = 1_000_000;
/** Small enough that all of it counts, whatever its times say. */
const BASE_BYTES = 512 * KiB;

class Races {
  readonly #store: string;
  readonly #random: Random;
  readonly #supervise: boolean;
  #written = 0;

  constructor(store: string, random: Random, supervise: boolean) {
    this.#store = store;
    this.#random = random;
    this.#supervise = supervise;
  }

  /** Two start at once. @returns what is wrong. */
  async one(t: Test): Promise<string | undefined> {
    const rivals: TestDaemon[] = [];
    for (const name of ['a', 'b']) {
      const folder = await mkdtemp(join(tmpdir(), `layerdisk-race-${name}-`));
      const options = { store: this.#store, supervise: this.#supervise };
      rivals.push(new TestDaemon(folder, options));
    }
    let isOver = false;
    const clear = async (): Promise<void> => {
      if (!isOver) for (const rival of rivals) await rival.clear();
      isOver = true;
    };
    t.teardown(clear);
    const starts = rivals.map((rival) => rival.start());
    const outcomes = await Promise.allSettled(starts);
    const winners = rivals.filter((_, index) => outcomes[index]?.status === 'fulfilled');
    const [winner] = winners;
    if (winner === undefined || winners.length > 1) return `${winners.length} got the store`;
    const loser = rivals.find((rival) => rival !== winner) as TestDaemon;
    const lost = outcomes.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    const wrong = judgeLoser(loser, lost.reason) ?? (await this.#use(winner));
    // Without a supervisor it may also just die, with its mount and its lock file left behind.
    if (!this.#supervise && this.#random.below(2) === 0) await winner.kill();
    await clear();
    return wrong;
  }

  /** All that winners before wrote is there, and one sector more. */
  async #use(daemon: TestDaemon): Promise<string | undefined> {
    if (this.#written === 0) {
      await ask(daemon, 'create', { vm: VM, disks: [{ size: SECTORS * SECTOR }] });
    }
    const found = generationsOf(await readFile(daemon.rawFile(VM)));
    const wrong = found.findIndex((each, sector) => each !== (sector < this.#written ? 1 : 0));
    if (wrong >= 0) return `sector ${wrong} of ${this.#written} is of ${found[wrong]}`;
    const file = await open(daemon.rawFile(VM), 'r+');
    const place = this.#written * SECTOR;
    await file
      .write(fillSectors(1, this.#written, 1), 0, SECTOR, place)
      .finally(() => file.close());
    this.#written += 1;
    return undefined;
  }
}

function judgeLoser(loser: TestDaemon, reason: unknown): string | undefined {
  if (!(reason instanceof StartRefused)) return `the loser did not say why: ${reason}`;
  if (!['busy', 'exists'].includes(reason.code)) return `${reason.code}: ${reason.message}`;
  const left = mountsBelow(loser.folder);
  return left.length > 0 ? `the loser left ${left} mounted` : undefined;
}

for (const supervise of [false, true]) {
  const name = `two daemons for one store${supervise ? ', supervised' : ''}`;
  const skip = supervise ? cannotTakeOver() : cannotServe();
  t.test(name, { skip, timeout: TIMEOUT_MS }, async (t) => {
    const seed = newSeed();
    t.comment(`LAYERDISK_SEED=${seed}`);
    const tally = new Tally(t);
    const races = new Races(join(tempFolder(t), 'store'), createRandom(seed), supervise);
    for (let race = 0; race < Math.ceil(RACES / 2); race += 1) {
      tally.judge(`race ${race}`, await races.one(t));
    }
    tally.print({ races: supervise ? 'supervised' : 'of single processes' });
  });
}

interface Base {
  readonly path: string;
  /** A copy, to put it back. */
  readonly pristine: string;
  readonly format: 'raw' | 'qcow2';
}

function flip(path: string, random: Random): void {
  const at = random.below(statSync(path).size);
  const bytes = Buffer.alloc(1);
  // Through a file of its own, as somebody else's program would.
  const fd = openSync(path, 'r+');
  readSync(fd, bytes, 0, 1, at);
  bytes[0] = (bytes[0] ?? 0) ^ (1 << random.below(8));
  writeSync(fd, bytes, 0, 1, at);
  closeSync(fd);
}

const putTimeBack = (path: string): void => utimesSync(path, MODIFIED, MODIFIED);

/** What others do to a base. */
const DEEDS: Readonly<Record<string, (base: Base, random: Random) => unknown>> = {
  'a bit': ({ path }, random) => flip(path, random),
  'a bit, and the time put back': ({ path }, random) => {
    flip(path, random);
    putTimeBack(path);
  },
  'cut short': ({ path }, random) => truncateSync(path, random.below(statSync(path).size)),
  'made longer': ({ path }, random) =>
    truncateSync(path, statSync(path).size + 1 + random.below(MiB)),
  touched: ({ path }) => utimesSync(path, MODIFIED, MODIFIED + 1),
  removed: ({ path }) => rmSync(path),
  replaced: ({ path, pristine }, random) => {
    copyFileSync(pristine, `${path}.new`);
    flip(`${path}.new`, random);
    renameSync(`${path}.new`, path);
  },
  'replaced, with the time of before': ({ path, pristine }, random) => {
    copyFileSync(pristine, `${path}.new`);
    flip(`${path}.new`, random);
    putTimeBack(`${path}.new`);
    renameSync(`${path}.new`, path);
  },
  'written to by QEMU': ({ path, format }, random) => {
    const at = random.below(BASE_BYTES / SECTOR) * SECTOR;
    return tool('qemu-io', ['-f', format, path, '-c', `write -P 0xa5 ${at} ${SECTOR}`]);
  },
  'written to by dd': ({ path }, random) => {
    const seek = `seek=${random.below(BASE_BYTES / SECTOR)}`;
    const how = ['if=/dev/urandom', 'bs=512', 'count=1', 'conv=notrunc', 'status=none'];
    return tool('dd', [`of=${path}`, seek, ...how]);
  },
};

async function makeBase(folder: string, format: Base['format']): Promise<Base> {
  const raw = join(folder, 'content');
  await writeFile(raw, fillSectors(1, 0, BASE_BYTES / SECTOR));
  const path = join(folder, `base.${format}`);
  await tool('qemu-img', ['convert', '-f', 'raw', '-O', format, raw, path]);
  const pristine = `${path}.pristine`;
  copyFileSync(path, pristine);
  return { path, pristine, format };
}

/** @returns what is wrong: the altered base was not refused, or the restored one was. */
async function alter(
  daemon: TestDaemon,
  base: Base,
  deed: keyof typeof DEEDS,
  random: Random,
): Promise<string | undefined> {
  const { path, pristine, format } = base;
  const vm = 'stands';
  copyFileSync(pristine, path);
  putTimeBack(path);
  await ask(daemon, 'import', { vm, files: [path], format });
  await DEEDS[deed]?.(base, random);
  const read = await readFile(daemon.rawFile(vm)).then(
    (bytes) => `${bytes.length} bytes were read`,
    (error: NodeJS.ErrnoException) => error.code,
  );
  const { findings } = await ask(daemon, 'check', { vm });
  const said = findings.some((each) => each.part === 'base' && each.message.includes(path));
  copyFileSync(pristine, path);
  putTimeBack(path);
  const wanted = fillSectors(1, 0, BASE_BYTES / SECTOR);
  const back = await readFile(daemon.rawFile(vm)).catch((error: Error) => error);
  await ask(daemon, 'delete', { vm });
  if (read !== 'EIO') return `reading answered ${read}`;
  if (!said) return `check did not name it: ${JSON.stringify(findings)}`;
  if (back instanceof Error) return `not even when it is as before: ${back.message}`;
  return back.equals(wanted) ? undefined : 'other bytes when it is as before';
}

t.test('a base that others alter', { skip: cannotServe(), timeout: TIMEOUT_MS }, async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const daemon = await startDaemon(t);
  const tally = new Tally(t);
  const bases = [await makeBase(daemon.folder, 'raw'), await makeBase(daemon.folder, 'qcow2')];
  const deeds = Object.keys(DEEDS);
  for (let index = 0; index < ALTERATIONS; index += 1) {
    const deed = deeds[index % deeds.length] as string;
    const base = random.pick(bases);
    tally.judge(`${base.format}, ${deed}`, await alter(daemon, base, deed, random));
  }
  tally.print({ kinds: deeds.length });
});
