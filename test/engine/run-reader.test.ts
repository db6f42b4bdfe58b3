/** The run reader against sources in memory: right bytes, few calls, errors where they belong. */
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { BLOCK_SIZE } from '../../src/common/units.js';
import {
  FROM_BASE,
  FROM_NOBODY,
  RunReader,
  type RunSources,
} from '../../src/engine/volume/run-reader.js';
import { createRandom, newSeed, type Random } from '../support/random.js';

const BLOCKS = 257;
const SOURCE_BLOCKS = 600;

/** Sources whose blocks say where they are: no two blocks are alike. */
class StampedSources implements RunSources {
  calls = 0;
  /** A block of a source that cannot be read. */
  bad: { source: number; block: number } | undefined;

  static stamp(source: number, block: number): Buffer {
    const bytes = Buffer.alloc(BLOCK_SIZE, (source * 31 + block) % 251);
    bytes.writeInt32LE(source, 0);
    bytes.writeInt32LE(block, 4);
    return bytes;
  }

  readSource(
    source: number,
    target: Buffer,
    targetOffset: number,
    position: number,
    length: number,
  ): void {
    this.calls += 1;
    for (let done = 0; done < length; ) {
      const block = Math.floor((position + done) / BLOCK_SIZE);
      if (this.bad?.source === source && this.bad.block === block) {
        throw new DiskError('failed', 'a bad block', { errno: 'EIO' });
      }
      const inner = (position + done) % BLOCK_SIZE;
      const part = Math.min(BLOCK_SIZE - inner, length - done);
      StampedSources.stamp(source, block).copy(target, targetOffset + done, inner, inner + part);
      done += part;
    }
  }
}

interface Run {
  readonly source: number;
  readonly block: number;
  readonly count: number;
}

/** Mostly one source in order, as a written-out disk has it, with runs of others on it. */
function randomRuns(random: Random): Run[] {
  const runs: Run[] = [];
  const shift = random.below(SOURCE_BLOCKS - BLOCKS);
  const others = random.pick([[1], [1, 2, 3], [1, 2, FROM_BASE, FROM_NOBODY]]);
  for (let at = 0; at < BLOCKS; ) {
    const count = Math.min(BLOCKS - at, 1 + random.below(random.pick([1, 3, 40])));
    const source = random.below(2) === 0 ? 0 : random.pick(others);
    const follows = source === 0 || random.below(3) === 0;
    const block = follows ? at + shift : random.below(SOURCE_BLOCKS - count);
    runs.push({ source, block, count });
    at += count;
  }
  return runs;
}

/**
 * Asks for `runs`; the first begins `inner` bytes into its first block, which starts at `start`.
 */
function readAll(reader: RunReader, sources: RunSources, runs: readonly Run[], inner: number) {
  const start = 16;
  const total = runs.reduce((sum, run) => sum + run.count, 0) * BLOCK_SIZE - inner;
  const target = Buffer.alloc(start + total + 8, 0xee);
  const expected: Buffer[] = [];
  reader.begin();
  let at = start;
  for (const [index, { source, block, count }] of runs.entries()) {
    const skip = index === 0 ? inner : 0;
    const length = count * BLOCK_SIZE - skip;
    reader.add(source, block * BLOCK_SIZE + skip, at, length);
    at += length;
    const blocks = Array.from({ length: count }, (_, i) =>
      source === FROM_NOBODY ? Buffer.alloc(BLOCK_SIZE) : StampedSources.stamp(source, block + i),
    );
    expected.push(Buffer.concat(blocks).subarray(skip));
    if (reader.full) reader.finish(sources, target);
  }
  reader.finish(sources, target);
  return { target, start, total, expected: Buffer.concat(expected) };
}

t.test('random runs', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const reader = new RunReader();
  for (let round = 0; round < 300; round += 1) {
    const runs = randomRuns(random);
    const inner = random.pick([0, 0, 512, 4095]);
    const sources = new StampedSources();
    const { target, start, total, expected } = readAll(reader, sources, runs, inner);
    const right =
      target.subarray(start, start + total).equals(expected) &&
      target.subarray(0, start).every((byte) => byte === 0xee) &&
      target.subarray(start + total).every((byte) => byte === 0xee);
    if (!right) t.fail(`round ${round}: ${JSON.stringify(runs)}`);
  }
  t.pass('300 ranges');
});

t.test('a source in order with single blocks of others on it is read once', async (t) => {
  const runs = Array.from({ length: 61 }, (_, at) => ({
    source: at % 2 === 0 ? 0 : 1 + at,
    block: at,
    count: 1,
  }));
  const sources = new StampedSources();
  const { target, start, expected } = readAll(new RunReader(), sources, runs, 0);
  t.ok(target.subarray(start, start + expected.length).equals(expected));
  t.equal(sources.calls, 1 + 30);
});

t.test('a long gap is not read along', async (t) => {
  const runs = [
    { source: 0, block: 0, count: 1 },
    { source: 1, block: 9, count: 5 },
    { source: 0, block: 6, count: 1 },
  ];
  const sources = new StampedSources();
  const { target, start, expected } = readAll(new RunReader(), sources, runs, 0);
  t.ok(target.subarray(start, start + expected.length).equals(expected));
  t.equal(sources.calls, 3);
});

t.test('a bad block in a gap harms nobody', async (t) => {
  const runs = [
    { source: 0, block: 0, count: 1 },
    { source: 1, block: 9, count: 1 },
    { source: 0, block: 2, count: 1 },
  ];
  const sources = new StampedSources();
  sources.bad = { source: 0, block: 1 };
  const { target, start, expected } = readAll(new RunReader(), sources, runs, 0);
  t.ok(target.subarray(start, start + expected.length).equals(expected));
});

t.test('a bad block that was asked for is an error, and the next request is clean', async (t) => {
  const reader = new RunReader();
  const sources = new StampedSources();
  sources.bad = { source: 1, block: 9 };
  const bad = [
    { source: 0, block: 0, count: 1 },
    { source: 1, block: 9, count: 1 },
    { source: 0, block: 2, count: 1 },
  ];
  t.throws(() => readAll(reader, sources, bad, 0), { message: 'a bad block' });
  const good = [{ source: 2, block: 3, count: 2 }];
  const { target, start, expected } = readAll(reader, sources, good, 0);
  t.ok(target.subarray(start, start + expected.length).equals(expected));
});
