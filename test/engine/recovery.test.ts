/** What an end without notice leaves in delta files, and what opening makes of it. */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { BLOCK_SIZE, KiB, MiB, TiB } from '../../src/common/units.js';
import {
  HEADER_OFFSETS,
  HEADER_SIZE,
  RECORD_SIZE,
  RECORDS_OFFSET,
} from '../../src/engine/delta/delta-layout.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';
import {
  block,
  changeEpoch,
  loseMirror,
  makeDisk,
  open,
  readBlock,
  SIZE,
  spoil,
} from '../support/power-cut.js';

t.test('a write that was acknowledged survives the process, flushed or not', async (t) => {
  const { scratch, head } = await makeDisk(t);
  (await open(scratch, head)).write(block(1), 0, 0, BLOCK_SIZE);
  scratch.crash();
  t.ok(readBlock(await open(scratch, head), 0).equals(block(1)));
});

t.test('after a power cut, what was flushed is there and the rest reads as before', async (t) => {
  const { scratch, head, tuples } = await makeDisk(t);
  const volume = await open(scratch, head);
  volume.write(block(1), 0, 0, BLOCK_SIZE);
  volume.flush();
  volume.write(block(2), 0, BLOCK_SIZE, BLOCK_SIZE);
  scratch.crash();
  changeEpoch(tuples);
  const again = await open(scratch, head);
  t.ok(readBlock(again, 0).equals(block(1)), 'flushed');
  t.ok(readBlock(again, 1).equals(block(0)), 'not flushed');
  again.write(block(3), 0, BLOCK_SIZE, BLOCK_SIZE);
  scratch.crash();
  const last = await open(scratch, head);
  t.ok(readBlock(last, 0).equals(block(1)));
  t.ok(readBlock(last, 1).equals(block(3)), 'new records follow the ones that count');
});

t.test('a record that was cut short does not count', async (t) => {
  const { scratch, head, tuples } = await makeDisk(t);
  const volume = await open(scratch, head);
  volume.write(block(1), 0, 0, BLOCK_SIZE);
  volume.write(block(2), 0, BLOCK_SIZE, BLOCK_SIZE);
  scratch.crash();
  truncateSync(tuples, RECORDS_OFFSET + RECORD_SIZE + 7);
  const again = await open(scratch, head);
  t.ok(readBlock(again, 0).equals(block(1)));
  t.ok(readBlock(again, 1).equals(block(0)));
  t.equal(statSync(tuples).size, RECORDS_OFFSET + RECORD_SIZE, 'and is cut off');
});

t.test(
  'a commit that a power cut tore was never acknowledged: its records are skipped',
  async (t) => {
    const { scratch, head, tuples } = await makeDisk(t);
    const volume = await open(scratch, head);
    volume.write(block(1), 0, 0, BLOCK_SIZE);
    volume.flush();
    volume.write(block(2), 0, BLOCK_SIZE, BLOCK_SIZE);
    volume.write(block(3), 0, 2 * BLOCK_SIZE, BLOCK_SIZE);
    const before = readFileSync(tuples);
    volume.flush();
    scratch.crash();
    loseMirror(tuples, before);
    changeEpoch(tuples);
    spoil(tuples, RECORDS_OFFSET + RECORD_SIZE);
    const again = await open(scratch, head);
    t.ok(readBlock(again, 0).equals(block(1)));
    t.ok(readBlock(again, 1).equals(block(0)), 'torn: old');
    t.ok(readBlock(again, 2).equals(block(3)), 'arrived: new');
    again.write(block(4), 0, 3 * BLOCK_SIZE, BLOCK_SIZE);
    again.flush();
    again.write(block(5), 0, 4 * BLOCK_SIZE, BLOCK_SIZE);
    again.flush();
    scratch.crash();
    changeEpoch(tuples);
    t.ok(
      readBlock(await open(scratch, head), 3).equals(block(4)),
      'later commits are not in doubt',
    );
  },
);

t.test('a damaged record that was durable is damage, named', async (t) => {
  const { scratch, head, tuples } = await makeDisk(t);
  const volume = await open(scratch, head);
  for (const index of [0, 1]) {
    volume.write(block(index), 0, index * BLOCK_SIZE, BLOCK_SIZE);
    volume.flush();
  }
  volume.write(block(9), 0, 5 * BLOCK_SIZE, BLOCK_SIZE);
  volume.flush();
  scratch.crash();
  spoil(tuples, RECORDS_OFFSET);
  await t.rejects(open(scratch, head), {
    code: 'damaged',
    errno: 'EIO',
    message: /tuple 0 is damaged/,
  });
});

t.test('one spoilt header copy does no harm; two are damage', async (t) => {
  const { scratch, head, tuples } = await makeDisk(t);
  const volume = await open(scratch, head);
  volume.write(block(1), 0, 0, BLOCK_SIZE);
  volume.flush();
  scratch.crash();
  spoil(tuples, HEADER_OFFSETS[0] + 100);
  t.ok(readBlock(await open(scratch, head), 0).equals(block(1)));
  scratch.crash();
  spoil(tuples, HEADER_OFFSETS[1] + 100);
  spoil(tuples, HEADER_OFFSETS[0] + 101);
  await t.rejects(open(scratch, head), { code: 'damaged', message: new RegExp(head) });
});

t.test('a header of a newer version is refused by name', async (t) => {
  const { scratch, head, tuples } = await makeDisk(t);
  const { crc32 } = await import('node:zlib');
  const file = readFileSync(tuples);
  for (const offset of HEADER_OFFSETS) {
    const header = file.subarray(offset, offset + HEADER_SIZE);
    if (header[0] === 0) continue;
    header.writeUInt32LE(2, 8);
    header.writeUInt32LE(crc32(header.subarray(0, HEADER_SIZE - 4)), HEADER_SIZE - 4);
  }
  writeFileSync(tuples, file);
  await t.rejects(open(scratch, head), { code: 'not-supported', message: /version 2/ });
});

t.test('disks of all sizes', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  for (const virtualSize of [512, 4096, 4608, 3 * MiB + 512, 64 * TiB]) {
    const spec = { below: { kind: 'none' }, virtualSize, allocation: 'dynamic' } as const;
    const volume = await open(scratch, await scratch.engine.deltas.create(spec));
    const last = Buffer.from('the last sector'.padEnd(512, '.'));
    volume.write(last, 0, virtualSize - 512, 512);
    const found = Buffer.alloc(512);
    volume.read(found, 0, virtualSize - 512, 512);
    t.ok(found.equals(last), `last sector of ${virtualSize} bytes`);
    t.equal(volume.nextData(0), Math.floor((virtualSize - 512) / BLOCK_SIZE) * BLOCK_SIZE);
    volume.discard(0, virtualSize);
    t.equal(volume.nextData(0), -1, 'discarded whole');
    t.equal(volume.allocatedSize, 0);
  }
});

t.test('a static disk has all its space from the start and keeps it', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const spec = { below: { kind: 'none' }, virtualSize: 8 * MiB, allocation: 'static' } as const;
  const head = await scratch.engine.deltas.create(spec);
  const data = join(scratch.folder, 'deltas', `${head}.1.data`);
  const taken = () => statSync(data).blocks * 512;
  t.ok(taken() >= 8 * MiB);
  const volume = await open(scratch, head);
  volume.write(block(7), 0, 64 * KiB, BLOCK_SIZE);
  volume.discard(0, 8 * MiB);
  t.ok(readBlock(volume, 16).equals(block(0)));
  t.ok(taken() >= 8 * MiB, 'a discard gives nothing back');
});

t.test('a static disk where the host cannot zero a range by a call', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const spec = { below: { kind: 'none' }, virtualSize: 8 * MiB, allocation: 'static' } as const;
  const volume = await open(scratch, await scratch.engine.deltas.create(spec));
  const filled = Buffer.alloc(8 * MiB, 7);
  volume.write(filled, 0, 0, filled.length);
  const restore = aroundHostCalls(({ name, label }, run) => {
    if (name !== 'allocate' || label !== 'head.zero') return run();
    throw Object.assign(new Error('EOPNOTSUPP: as on tmpfs'), { code: 'ENOTSUP' });
  });
  t.teardown(restore);
  volume.discard(2 * BLOCK_SIZE, 3 * MiB);
  filled.fill(0, 2 * BLOCK_SIZE, 2 * BLOCK_SIZE + 3 * MiB);
  const found = Buffer.alloc(filled.length);
  volume.read(found, 0, 0, found.length);
  t.ok(found.equals(filled), 'zeroes are written there, and nowhere else');
});

t.test('reclaim punches what the only child overrides, and nothing else', async (t) => {
  const { scratch, head } = await makeDisk(t);
  const { deltas, volumes } = scratch.engine;
  const below = await open(scratch, head);
  for (let index = 0; index < 64; index += 1)
    below.write(block(1), 0, index * BLOCK_SIZE, BLOCK_SIZE);
  const next = {
    below: { kind: 'delta', id: head },
    virtualSize: SIZE,
    allocation: 'dynamic',
  } as const;
  const child = await deltas.create(next);
  await volumes.switchHeads([{ from: head, to: child }], () => {});
  const above = await open(scratch, child);
  for (let index = 0; index < 48; index += 1)
    above.write(block(2), 0, index * BLOCK_SIZE, BLOCK_SIZE);
  const reached = new Set([head, child]);
  const data = join(scratch.folder, 'deltas', `${head}.1.data`);
  const taken = () => statSync(data).blocks * 512;
  const nothing = { bytes: 0, merged: 0, left: false };
  t.same(
    await scratch.engine.reclaim({ reached, labelled: reached }),
    nothing,
    'a label keeps all',
  );
  const labelled = new Set([child]);
  t.same(await scratch.engine.reclaim({ reached, labelled }), nothing, 'nothing durable above yet');
  above.flush();
  t.same(await scratch.engine.reclaim({ reached, labelled }), {
    bytes: 48 * BLOCK_SIZE,
    merged: 0,
    left: false,
  });
  t.ok(taken() <= 16 * BLOCK_SIZE);
  for (let index = 0; index < 64; index += 1) {
    if (!readBlock(above, index).equals(block(index < 48 ? 2 : 1))) t.fail(`block ${index}`);
  }
  await scratch.reopen();
  t.same(await scratch.engine.reclaim({ reached, labelled }), nothing, 'told once');
});

t.test('a snapshot of a closed disk keeps what a head had that nobody came to seal', async (t) => {
  const { scratch, head, tuples } = await makeDisk(t);
  (await open(scratch, head)).write(block(1), 0, 0, BLOCK_SIZE);
  const spec = { virtualSize: SIZE, allocation: 'dynamic' } as const;
  const on = (id: DeltaId) => ({ ...spec, below: { kind: 'delta', id } }) as const;
  // The manifest names it when the process dies.
  const next = await scratch.engine.deltas.create(on(head));
  scratch.crash();
  const last = await scratch.engine.deltas.create(on(next));
  await scratch.engine.volumes.switchHeads([{ from: next, to: last }], () => {});
  scratch.crash();
  changeEpoch(tuples);
  t.same(readBlock(await open(scratch, last), 0), block(1), 'written before it was asked for');
});

t.test(
  'a snapshot of a closed disk after a power cut keeps what counts, and no more',
  async (t) => {
    for (const torn of [true, false]) {
      const { scratch, head, tuples } = await makeDisk(t);
      const volume = await open(scratch, head);
      volume.write(block(1), 0, 0, BLOCK_SIZE);
      volume.flush();
      volume.write(block(2), 0, BLOCK_SIZE, BLOCK_SIZE);
      volume.write(block(3), 0, 2 * BLOCK_SIZE, BLOCK_SIZE);
      const before = readFileSync(tuples);
      if (torn) volume.flush();
      scratch.crash();
      if (torn) {
        loseMirror(tuples, before);
        spoil(tuples, RECORDS_OFFSET + RECORD_SIZE);
      }
      changeEpoch(tuples);
      const { deltas, volumes } = scratch.engine;
      const below = { kind: 'delta', id: head } as const;
      const to = await deltas.create({ below, virtualSize: SIZE, allocation: 'dynamic' });
      await volumes.switchHeads([{ from: head, to }], () => {});
      for (const round of ['at once', 'by a later process']) {
        const again = await open(scratch, to);
        const shown = [0, 1, 2].map((index) => readBlock(again, index)[0]);
        t.same(shown, torn ? [1, 0, 3] : [1, 0, 0], `${torn ? 'torn' : 'not flushed'}, ${round}`);
        await scratch.reopen();
      }
    }
  },
);
