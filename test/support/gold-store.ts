/** A small store that was closed in order, and copies of it to maltreat. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { prepareDaemon, StartRefused, startDaemon, type TestDaemon } from './daemon.js';
import { ReferenceDisk } from './reference-disk.js';
import { tool } from './run-program.js';
import { stampedPattern } from './stamped-pattern.js';

const SIZE = 4 * MiB;
/** Files that say something of a run, not of the disks. */
const OF_A_RUN = new Set(['daemon.log', 'lock', 'headroom']);

/** What is in the store: VM `web` with the snapshot `one` and changes on it, and VM `other`. */
export interface GoldStore {
  readonly path: string;
  readonly web: ReferenceDisk;
  readonly one: ReferenceDisk;
}

/** Writes to a raw file and to the model of it. */
export async function writeBoth(
  daemon: TestDaemon,
  model: ReferenceDisk,
  { generation, offset, length }: { generation: number; offset: number; length: number },
): Promise<void> {
  const data = stampedPattern(generation, offset, length);
  const file = await open(daemon.rawFile('web'), 'r+');
  try {
    await file.write(data, 0, length, offset);
    await file.sync();
  } finally {
    await file.close();
  }
  model.write(offset, data);
}

export async function makeGoldStore(t: Test): Promise<GoldStore> {
  const daemon = await startDaemon(t);
  const [web, one] = [new ReferenceDisk(SIZE), new ReferenceDisk(SIZE)];
  await daemon.ok('create', 'web', '--disk', String(SIZE));
  await daemon.ok('create', 'other', '--disk', '1M');
  const before = { generation: 1, offset: 4096, length: 1_000_000 };
  await writeBoth(daemon, web, before);
  one.write(before.offset, stampedPattern(1, before.offset, before.length));
  await daemon.ok('snapshot', 'take', 'web@one');
  await writeBoth(daemon, web, { generation: 2, offset: 500_000, length: 900_000 });
  await daemon.stop();
  return { path: daemon.store, web, one };
}

/** A daemon, not started, on a copy of the store. */
export async function onCopy(
  t: Test,
  gold: Pick<GoldStore, 'path'>,
  options: Parameters<typeof prepareDaemon>[1] = {},
): Promise<TestDaemon> {
  const daemon = await prepareDaemon(t, options);
  await tool('cp', ['-a', gold.path, daemon.store]);
  return daemon;
}

/** All that the store showed before. */
export async function checkContents(t: Test, daemon: TestDaemon, gold: GoldStore): Promise<void> {
  const read = (snapshot?: string) => readFile(daemon.rawFile('web', snapshot));
  t.equal(gold.web.difference(await read()), undefined, 'the disk reads as before');
  t.equal(gold.one.difference(await read('one')), undefined, 'and so does the snapshot');
}

export async function refusalOf(daemon: TestDaemon): Promise<StartRefused> {
  try {
    await daemon.start();
  } catch (error) {
    if (error instanceof StartRefused) return error;
    throw error;
  }
  throw new Error('it started');
}

/** One line that names the thing, and a hint. */
export function checkSaid(t: Test, error: StartRefused, code: string, about: RegExp): void {
  t.equal(error.code, code, error.message);
  t.match(error.message, about);
  t.match(error.message, /^\S[^\n]*$/, 'one line');
  t.match(error.hint, /^\S[^\n]*$/, 'and a hint');
}

/** Digests of all files, those aside that every run changes. */
export function digestsOf(folder: string): Record<string, string> {
  const digests: Record<string, string> = {};
  for (const name of (readdirSync(folder, { recursive: true }) as string[]).sort()) {
    const path = join(folder, name);
    if (OF_A_RUN.has(name) || !statSync(path).isFile()) continue;
    digests[name] = createHash('sha256').update(readFileSync(path)).digest('hex');
  }
  return digests;
}
