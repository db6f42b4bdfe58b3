/**
 * Checksums of sealed deltas: made, kept right by what gives blocks back, never making rot look
 * right.
 */
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { crc32cOf } from '../../src/common/checksum.js';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import { DeltaFiles } from '../../src/engine/delta/delta-files.js';
import {
  HEADER_OFFSETS,
  HEADER_SIZE,
  RECORDS_OFFSET,
} from '../../src/engine/delta/delta-layout.js';
import { SumsReader } from '../../src/engine/delta/sums-file.js';
import { SUMS_PAGE, SUMS_PER_PAGE } from '../../src/engine/delta/sums-layout.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import { answeredBlocks } from '../../src/engine/jobs/answered-blocks.js';
import { mergeRow } from '../../src/engine/jobs/merge.js';
import { punchZeroes } from '../../src/engine/jobs/punch-zeroes.js';
import { reclaimDelta } from '../../src/engine/jobs/reclaim.js';
import { sumDeltas } from '../../src/engine/jobs/sum-deltas.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';

const SIZE = 8 * MiB;

/** A chain of deltas: each writes its own number into the blocks given. */
class Chain {
  readonly scratch = new ScratchEngine();
  readonly deltas: DeltaId[] = [];
  readonly files: DeltaFiles;

  constructor(t: Test) {
    t.teardown(() => this.scratch.close());
    this.files = new DeltaFiles(`${this.scratch.folder}/deltas`, 'e'.repeat(32));
  }

  /** Puts a delta on top; what was the head is sealed. */
  async push(...blocks: readonly (readonly [first: number, count: number])[]): Promise<DeltaId> {
    const { deltas, volumes } = this.scratch.engine;
    const from = this.deltas.at(-1);
    const below =
      from === undefined ? { kind: 'none' as const } : { kind: 'delta' as const, id: from };
    const to = await deltas.create({ below, virtualSize: SIZE, allocation: 'dynamic' });
    if (from !== undefined) await volumes.switchHeads([{ from, to }], () => {});
    this.deltas.push(to);
    const open = await volumes.acquire(to, { writable: true });
    for (const [first, count] of blocks) {
      const data = Buffer.alloc(count * BLOCK_SIZE, this.deltas.length);
      this.scratch.volumeOf(open.handle).write(data, 0, first * BLOCK_SIZE, data.length);
    }
    volumes.release(open);
    await volumes.flush(to);
    return to;
  }

  async sum(): Promise<number> {
    const { deltas, problems, again } = await sumDeltas(this.files, { share: 1 });
    if (problems.length > 0 || again) throw new Error(problems.join());
    return deltas;
  }

  async findings(deep = true) {
    const { health, deltas } = this.scratch.engine;
    return health.check({ deltas: await deltas.list(), deep }, {});
  }

  dataPath(id: DeltaId): string {
    return this.files.dataPath(id, 1);
  }
}

function flip(path: string, offset: number, bit = 3): void {
  const bytes = readFileSync(path);
  bytes[offset]! ^= 1 << bit;
  writeFileSync(path, bytes);
}

t.test('every sealed delta is summed once; a head is not', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([0, SUMS_PER_PAGE + 5]);
  await chain.push([3, 2]);
  await chain.push();
  t.same((await chain.findings()).notSummed.length, 2, 'a store without checksums is whole');
  t.equal(await chain.sum(), 2);
  t.equal(await chain.sum(), 0);
  t.equal(statSync(chain.files.sumsPath(first)).size, 3 * SUMS_PAGE, 'a header and two pages');
  const { findings, notSummed, bytesRead } = await chain.findings();
  t.same([findings, notSummed], [[], []]);
  t.ok(bytesRead > (SUMS_PER_PAGE + 7) * BLOCK_SIZE);
});

t.test('a flipped bit in data is found, with its block', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([100, 20]);
  const second = await chain.push([110, 1]);
  await chain.push();
  await chain.sum();
  flip(chain.dataPath(first), 10 * BLOCK_SIZE + 77);
  flip(chain.dataPath(first), 11 * BLOCK_SIZE);
  t.same((await chain.findings(false)).findings, [], 'not without reading it');
  t.match((await chain.findings()).findings, [
    { delta: first, part: 'data', block: 110, blocks: 2, offset: 10 * BLOCK_SIZE },
  ]);
  const ranges = [{ block: 110, blocks: 2 }];
  t.same(answeredBlocks(chain.files, { deltas: [second], ranges }), [[Uint8Array.of(1)]]);
});

t.test('flipped bits in tuples, headers and the checksums themselves are found', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([0, 4]);
  await chain.push();
  await chain.sum();
  const tuples = chain.files.tuplesPath(first);
  const sums = chain.files.sumsPath(first);
  const cases = [
    {
      file: tuples,
      at: HEADER_OFFSETS[0] + 100,
      expect: { part: 'header', offset: 0, remedy: 'copy' },
    },
    {
      file: tuples,
      at: HEADER_OFFSETS[1],
      expect: { part: 'header', offset: 4096, remedy: 'copy' },
    },
    { file: tuples, at: RECORDS_OFFSET + 9, expect: { part: 'tuples', offset: RECORDS_OFFSET } },
    { file: sums, at: 60, expect: { part: 'sums', offset: 0 } },
    { file: sums, at: SUMS_PAGE + 4, expect: { part: 'sums', offset: SUMS_PAGE } },
    { file: sums, at: 2 * SUMS_PAGE - 1, expect: { part: 'sums', offset: SUMS_PAGE } },
  ];
  for (const { file, at, expect } of cases) {
    flip(file, at);
    t.match(
      (await chain.findings()).findings,
      [{ delta: first, file, ...expect }],
      `${file} ${at}`,
    );
    flip(file, at);
  }
  t.same((await chain.findings()).findings, []);

  t.comment('what else may be wrong with checksums is said as it is');
  const whole = readFileSync(sums);
  writeFileSync(sums, whole.subarray(0, SUMS_PAGE));
  const short = { part: 'sums', file: sums, message: 'its checksums have the wrong length' };
  t.match((await chain.findings()).findings, [short]);
  const newer = Buffer.from(whole);
  newer.writeUInt32LE(2, 8);
  newer.writeUInt32LE(crc32cOf(newer.subarray(0, SUMS_PAGE - 4)), SUMS_PAGE - 4);
  writeFileSync(sums, newer);
  const hint = 'upgrade layerdisk to check this store';
  const [found] = (await chain.findings()).findings;
  t.match(found, { part: 'sums', message: 'checksums of version 2 are not known', hint });
  t.equal(found?.offset, undefined, 'which is no damage to any byte');
});

t.test(
  'either header copy may be lost: the disk shows the same, and the copy comes back',
  async (t) => {
    const chain = new Chain(t);
    const first = await chain.push([0, 4]);
    const head = await chain.push([1, 1]);
    const { health } = chain.scratch.engine;
    for (const id of [first, head]) {
      const path = chain.files.tuplesPath(id);
      const whole = readFileSync(path);
      for (const [offset, byte] of HEADER_OFFSETS.flatMap((at) => [
        [at, 0xff] as const,
        [at, 0] as const,
      ])) {
        const spoilt = Buffer.from(whole);
        spoilt.fill(byte, offset, offset + HEADER_SIZE);
        writeFileSync(path, spoilt);
        const { committedRecords, sealed } = chain.files.readHeader(id).current;
        t.same([committedRecords, sealed], [1, id === first]);
        t.match((await chain.findings()).findings, [{ part: 'header', offset, remedy: 'copy' }]);
        t.equal(await health.repairHeader(id), true);
        t.same((await chain.findings()).findings, []);
        t.equal(await health.repairHeader(id), false, 'nothing left to do');
      }
    }
  },
);

t.test('what an early store left blank until the first commit is no damage', async (t) => {
  const chain = new Chain(t);
  const path = chain.files.tuplesPath(await chain.push());
  const whole = readFileSync(path);
  for (const [index, offset] of HEADER_OFFSETS.entries()) {
    const blank = Buffer.from(whole).fill(0, offset, offset + HEADER_SIZE);
    writeFileSync(path, blank);
    const expected = index === 0 ? [] : [{ part: 'header', offset }];
    t.match((await chain.findings()).findings, expected);
    t.equal((await chain.findings()).findings.length, expected.length);
  }
});

t.test('summing a delta that has lost a header copy ends, and the copy comes back', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([0, 4]);
  await chain.push();
  const path = chain.files.tuplesPath(first);
  const whole = readFileSync(path);
  for (const offset of HEADER_OFFSETS) {
    const spoilt = Buffer.from(whole);
    spoilt.fill(0xff, offset, offset + HEADER_SIZE);
    writeFileSync(path, spoilt);
    rmSync(chain.files.sumsPath(first), { force: true });
    let written = 0;
    const restore = aroundHostCalls(({ label }, run) => {
      if (label === 'copies.mirror') written += 1;
      if (written > 9) throw new Error('it never ends');
      return run();
    });
    try {
      t.equal(await chain.sum(), 1);
    } finally {
      restore();
    }
    t.same(readFileSync(path), whole);
  }
});

t.test('reclaiming takes what it punches out of the checksums', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([0, 64]);
  const second = await chain.push([10, 5]);
  await chain.push();
  await chain.sum();
  const job = { delta: first, child: second, childRecords: 1 };
  t.equal(await reclaimDelta(chain.files, job), 5 * BLOCK_SIZE);
  t.same((await chain.findings()).findings, []);
  const inode = statSync(chain.files.sumsPath(first)).ino;
  let punched = 0;
  const restore = aroundHostCalls(({ label }, run) => {
    if (label === 'reclaim.punch') punched += 1;
    return run();
  });
  t.equal(await reclaimDelta(chain.files, job), 0, 'nothing is given back twice');
  restore();
  t.equal(punched, 1, 'it is punched again, as after a crash between');
  t.equal(statSync(chain.files.sumsPath(first)).ino, inode, 'the checksums are written once');

  t.comment('damaged checksums are not made to look right, and the blocks stay');
  flip(chain.files.sumsPath(second), SUMS_PAGE);
  await chain.push([12, 1]);
  await chain.push();
  const third = chain.deltas[2]!;
  const before = readFileSync(chain.files.sumsPath(second));
  t.equal(await reclaimDelta(chain.files, { delta: second, child: third, childRecords: 1 }), 0);
  t.same(readFileSync(chain.files.sumsPath(second)), before);
});

t.test('a file that is gone is damage to all who look for it, and no bug', async (t) => {
  const chain = new Chain(t);
  for (let count = 0; count < 3; count += 1) await chain.push([0, 4]);
  await chain.push();
  const [first, second, third] = chain.deltas;
  const path = chain.files.dataPath(first!, 1);
  rmSync(path);
  const gone = { code: 'damaged', message: `${path}: this file of the store is missing` };
  const job = { delta: first!, child: second!, childRecords: 1 };
  await t.rejects(reclaimDelta(chain.files, job), gone);
  await t.rejects(mergeRow(chain.files, { row: [first!, second!, third!] }), gone);
  const { problems } = await punchZeroes(chain.files, { deltas: [first!, second!] });
  t.same(problems, [gone.message], 'the other one is compacted');
  const { engine, errors } = chain.scratch;
  const reached = new Set(chain.deltas);
  const labelled = new Set([chain.deltas.at(-1)!]);
  const { bytes } = await engine.reclaim({ reached, labelled });
  t.ok(bytes >= 4 * BLOCK_SIZE, 'the others give back what is hidden');
  t.match(errors, [gone, gone], 'and of that one it is said that it does not');
});

t.test('checksums that are made while blocks are given back cover none of them', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([0, 64]);
  const second = await chain.push([4, 2], [20, 3], [40, 5]);
  await chain.push();
  const job = { delta: first, child: second, childRecords: 3 };
  // Disks are in use, so that it rests between the three runs; what it rests for comes in there.
  let turns = 0;
  let summed: Promise<unknown> | undefined;
  const served = () => {
    turns += 1;
    if (turns === 2) summed = sumDeltas(chain.files, { share: 1 });
    // So long a stretch is followed by the longest rest, which is enough for the sums, unless the
    // host is busy: then they are put off, because blocks went while they were made.
    const start = performance.now();
    while (performance.now() - start < 15);
    return turns;
  };
  const reclaiming = reclaimDelta(chain.files, job, { served });
  t.equal(await reclaiming, 10 * BLOCK_SIZE);
  t.match(await summed, { problems: [] });
  await chain.sum();
  t.same((await chain.findings()).findings, []);
});

t.test('a merge carries the checksums over, and refuses rot', async (t) => {
  for (const summed of [true, false]) {
    const chain = new Chain(t);
    const row = [
      await chain.push([0, 64]),
      await chain.push([10, 5], [100, 1]),
      await chain.push([12, 1]),
    ];
    await chain.push();
    if (summed) await chain.sum();
    const merged = await mergeRow(chain.files, { row });
    const { current } = chain.files.readHeader(merged);
    const sums = SumsReader.open(chain.files, current);
    t.equal(sums?.header.slots, 65);
    sums?.close();
    t.same((await chain.findings()).findings, []);
    if (!summed) continue;
    flip(chain.dataPath(merged), 5 * BLOCK_SIZE);
    t.match((await chain.findings()).findings, [{ delta: merged, part: 'data', block: 5 }]);
    flip(chain.dataPath(row[0]!), 20 * BLOCK_SIZE);
    const before = readdirSync(chain.files.folder).sort();
    await t.rejects(mergeRow(chain.files, { row }), { code: 'damaged', message: /block 20/ });
    t.same(readdirSync(chain.files.folder).sort(), before, 'nothing is left behind');
  }
});

t.test('summing is broken off and taken up again', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([0, 2000]);
  const second = await chain.push([0, 2000]);
  await chain.push();
  let polls = 0;
  const signal = {
    get aborted() {
      polls += 1;
      return polls > 12;
    },
  };
  const { files } = chain;
  await t.rejects(sumDeltas(files, { share: 1 }, { signal }), { code: 'interrupted' });
  t.same(
    readdirSync(files.folder).filter((name) => name.endsWith('.new')),
    [],
  );
  const made = [first, second].filter((id) => existsSync(files.sumsPath(id))).length;
  t.ok(made < 2);

  t.comment('a killed process leaves an unfinished file: it is written over');
  writeFileSync(`${files.sumsPath(first)}.new`, Buffer.alloc(9 * SUMS_PAGE, 1));
  t.equal(await chain.sum(), 2 - made);
  t.same((await chain.findings()).findings, []);
});

t.test('a collection under way leaves checksums alone that are begun meanwhile', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([0, 2000]);
  await chain.push();
  const { deltas, health } = chain.scratch.engine;
  const unfinished = `${chain.files.sumsPath(first)}.new`;
  writeFileSync(unfinished, Buffer.alloc(SUMS_PAGE, 1));
  const collecting = deltas.collect(new Set(chain.deltas), false);
  const summing = health.sum({});
  t.notOk((await collecting).files.includes(unfinished), 'the file is in use now');
  t.match(await summing, { deltas: 1, problems: [] });
  t.ok(existsSync(chain.files.sumsPath(first)));

  t.comment('nobody writes it: it is what a killed process left');
  writeFileSync(unfinished, Buffer.alloc(SUMS_PAGE, 1));
  t.same((await deltas.collect(new Set(chain.deltas), false)).files, [unfinished]);
});

t.test('a collection leaves out what went while it looked', async (t) => {
  const chain = new Chain(t);
  const first = await chain.push([0, 20]);
  await chain.push();
  const trash = `${chain.scratch.folder}/trash`;
  for (const dryRun of [false, true]) {
    const unfinished = `${chain.files.sumsPath(first)}.new`;
    writeFileSync(unfinished, Buffer.alloc(SUMS_PAGE, 1));
    const keep = new Map(chain.deltas.map((id) => [id, 1]));
    const finishedMeanwhile = () => {
      rmSync(unfinished);
      return false;
    };
    const found = await chain.files.collect(keep, trash, dryRun, finishedMeanwhile);
    t.same(found, { files: [], bytes: 0 });
  }
});
