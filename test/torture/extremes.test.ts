/**
 * As far as a store goes: a chain as deep as it may be, a disk as large as it may be, many disks in
 * one daemon. Each opens after a restart and holds what was written; what it takes of memory is
 * bounded, and told with the time that the start took.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { open } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { KiB, MAX_DISK_SIZE, MiB } from '../../src/common/units.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { residentBytes } from '../support/footprint.js';
import { delicateIslands } from '../support/image-sources.js';
import { cannotServe } from '../support/mount-guard.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { ask } from '../support/takeover.js';
import { Tally, triesOr } from '../torture/tally.js';

/** Layers of the chain, and disks of the daemon. */
const COUNT = triesOr(40);
/** Deltas of a chain at most. */
const MAX_LAYERS = 1000;
const TIMEOUT_MS = 120_000 + COUNT * 2000;
const PART = 4 * KiB;
/** What a daemon may take more than one with nothing to serve. */
const MEMORY_LIMIT = 256 * MiB;
const SIZE = 16 * MiB;

interface Started {
  readonly ms: number;
  /** Of resident memory, more than at rest. */
  readonly bytes: number;
}

/** A daemon that knows what it takes without any disk. */
class Measured {
  readonly daemon: TestDaemon;
  readonly #rest: number;

  constructor(daemon: TestDaemon) {
    this.daemon = daemon;
    this.#rest = residentBytes(daemon.servingPid);
  }

  /** Stops it and starts it anew, and does what opens its disks. */
  async again(use: () => Promise<void>): Promise<Started> {
    await this.daemon.stop();
    const begin = performance.now();
    await this.daemon.start();
    await use();
    const ms = Math.round(performance.now() - begin);
    return { ms, bytes: residentBytes(this.daemon.servingPid) - this.#rest };
  }
}

async function measure(t: Test): Promise<Measured> {
  return new Measured(await startDaemon(t));
}

async function writeAt(path: string, offset: number, bytes: Buffer): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, offset).finally(() => file.close());
}

/**
 * At once, for it is part of what is measured.
 * @returns what is wrong with a part of a file.
 */
function differs(path: string, offset: number, bytes: Buffer): string | undefined {
  const found = Buffer.alloc(bytes.length, 0xee);
  const fd = openSync(path, 'r');
  readSync(fd, found, 0, found.length, offset);
  closeSync(fd);
  return found.equals(bytes) ? undefined : `other bytes at ${offset}`;
}

function judgeMemory(tally: Tally, { bytes }: Started): void {
  if (bytes > MEMORY_LIMIT) tally.lost(`it took ${bytes} bytes more than without any disk`);
}

function facts({ ms, bytes }: Started): Record<string, string | number> {
  return { 'opened after ms': ms, 'MiB more': Math.round(bytes / MiB) };
}

t.test('a deep chain', { skip: cannotServe(), timeout: TIMEOUT_MS }, async (t) => {
  const measured = await measure(t);
  const { daemon } = measured;
  const tally = new Tally(t);
  const layers = Math.min(COUNT, MAX_LAYERS);
  const vm = 'deep';
  // Each layer has a part of its own, and a version of the part that all of them write.
  const [own, shared] = [(layer: number) => PART * (layer + 1), 0];
  await ask(daemon, 'create', { vm, disks: [{ size: PART * (layers + 1) }] });
  for (let layer = 0; layer < layers; layer += 1) {
    if (layer > 0) await ask(daemon, 'snapshot.take', { vm, snapshot: `s${layer - 1}` });
    await writeAt(daemon.rawFile(vm), own(layer), stampedPattern(layer, own(layer), PART));
    await writeAt(daemon.rawFile(vm), shared, stampedPattern(layer, shared, PART));
  }
  if (layers === MAX_LAYERS) {
    const refused = await ask(daemon, 'snapshot.take', { vm, snapshot: 'more' }).then(
      () => 'taken',
      (error: unknown) => (error instanceof DiskError ? error.message : String(error)),
    );
    t.match(refused, /the chain of deep\/disk0 has 1000 deltas, which is the limit/);
  }
  const started = await measured.again(async () => {
    for (let layer = 0; layer < layers; layer += 1) {
      const bytes = stampedPattern(layer, own(layer), PART);
      tally.judge(`layer ${layer}`, differs(daemon.rawFile(vm), own(layer), bytes));
    }
  });
  for (let layer = 0; layer < layers; layer += 1) {
    const path = daemon.rawFile(vm, layer === layers - 1 ? undefined : `s${layer}`);
    const bytes = stampedPattern(layer, shared, PART);
    tally.judge(`what layer ${layer} shows`, differs(path, shared, bytes));
  }
  judgeMemory(tally, started);
  tally.print({ layers, ...facts(started) });
});

t.test('a vast disk', { skip: cannotServe(), timeout: TIMEOUT_MS }, async (t) => {
  const measured = await measure(t);
  const { daemon } = measured;
  const tally = new Tally(t);
  const vm = 'vast';
  const islands = delicateIslands(MAX_DISK_SIZE);
  await ask(daemon, 'create', { vm, disks: [{ size: MAX_DISK_SIZE }] });
  for (const [index, { offset, length }] of islands.entries()) {
    // Half of them lie below a snapshot.
    if (index === Math.floor(islands.length / 2)) {
      await ask(daemon, 'snapshot.take', { vm, snapshot: 'half' });
    }
    await writeAt(daemon.rawFile(vm), offset, stampedPattern(1, offset, length));
  }
  const started = await measured.again(async () => {
    for (const { offset, length } of islands) {
      const bytes = stampedPattern(1, offset, length);
      tally.judge('an island', differs(daemon.rawFile(vm), offset, bytes));
      if (offset === 0) continue;
      const zeroes = Buffer.alloc(PART);
      const wrong = differs(daemon.rawFile(vm), offset - PART, zeroes);
      tally.judge('nothing before it', wrong);
    }
  });
  judgeMemory(tally, started);
  tally.print({ TiB: MAX_DISK_SIZE / MiB / MiB, ...facts(started) });
});

t.test('many disks', { skip: cannotServe(), timeout: TIMEOUT_MS }, async (t) => {
  const measured = await measure(t);
  const { daemon } = measured;
  const tally = new Tally(t);
  const disks = Array.from({ length: COUNT }, (_, index) => ({
    vm: `vm${index}`,
    offset: (index % (SIZE / PART)) * PART,
    generation: index,
  }));
  for (const { vm, offset, generation } of disks) {
    await ask(daemon, 'create', { vm, disks: [{ size: SIZE }] });
    await writeAt(daemon.rawFile(vm), offset, stampedPattern(generation, offset, PART));
  }
  const started = await measured.again(async () => {
    for (const { vm, offset, generation } of disks) {
      const bytes = stampedPattern(generation, offset, PART);
      tally.judge(vm, differs(daemon.rawFile(vm), offset, bytes));
    }
  });
  judgeMemory(tally, started);
  tally.print({ disks: COUNT, ...facts(started) });
});
