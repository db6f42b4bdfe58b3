/**
 * What stays behind when one call fails on the way: nothing that is in use for ever, and nothing
 * that a later one takes for done.
 */
import { readdirSync, statSync, symlinkSync, truncateSync } from 'node:fs';
import { basename, join } from 'node:path';
import t, { type Test } from 'tap';
import { BLOCK_SIZE, MiB } from '../../src/common/units.js';
import { DeltaFiles } from '../../src/engine/delta/delta-files.js';
import { type DeltaId, newDeltaId } from '../../src/engine/delta-id.js';
import { flatFileOf } from '../../src/engine/volume/flat-file.js';
import { CrashStates } from '../support/crash-states.js';
import { ScratchEngine } from '../support/engine.js';
import { aroundHostCalls } from '../support/host-faults.js';
import { HostTape } from '../support/host-tape.js';

const EMPTY = { below: { kind: 'none' }, virtualSize: MiB, allocation: 'dynamic' } as const;

function scratchEngine(t: Test): ScratchEngine {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  return scratch;
}

function on(id: DeltaId) {
  return { ...EMPTY, below: { kind: 'delta', id } } as const;
}

async function write(scratch: ScratchEngine, head: DeltaId, value: number): Promise<void> {
  const { volumes } = scratch.engine;
  const opened = await volumes.acquire(head, { writable: true });
  scratch.volumeOf(opened.handle).write(Buffer.alloc(BLOCK_SIZE, value), 0, 0, BLOCK_SIZE);
  volumes.release(opened);
}

/** A disk with a sealed delta below its head, each with a block. */
async function twoDeltas(scratch: ScratchEngine): Promise<{ below: DeltaId; head: DeltaId }> {
  const { deltas, volumes } = scratch.engine;
  const below = await deltas.create(EMPTY);
  await write(scratch, below, 1);
  const head = await deltas.create(on(below));
  await volumes.switchHeads([{ from: below, to: head }], () => {});
  await write(scratch, head, 2);
  return { below, head };
}

t.test('what a killed process had not synced is synced before it is used', async (t) => {
  const scratch = scratchEngine(t);
  const { below, head } = await twoDeltas(scratch);
  scratch.crash();
  const labels: string[] = [];
  let fails = true;
  const restore = aroundHostCalls(({ label }, run) => {
    labels.push(label);
    if (!fails || label !== 'inherit.sync-tuples') return run();
    throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
  });
  t.teardown(restore);
  const { volumes } = scratch.engine;
  await t.rejects(volumes.acquire(head, { writable: true }), { code: 'failed' }, 'or not used');
  fails = false;
  labels.length = 0;
  const opened = await volumes.acquire(head, { writable: true });
  const synced = labels.filter((label) => label === 'inherit.sync-tuples').length;
  t.equal(synced, 2, `the head ${head} and what it stands on, ${below}`);
  volumes.release(opened);
});

t.test('the same for many disks ahead of their opening', async (t) => {
  const scratch = scratchEngine(t);
  const { head } = await twoDeltas(scratch);
  scratch.crash();
  const { deltas, volumes } = scratch.engine;
  const { labels, end } = failing(t, 'inherit.sync-tuples');
  await deltas.prepareToOpen([newDeltaId(), head, head]);
  t.equal(tupleSyncs(labels), 2, 'the head and what it stands on');
  await t.rejects(volumes.acquire(head, { writable: true }), { code: 'failed' }, 'told here');
  end();
  await deltas.prepareToOpen([head]);
  t.equal(tupleSyncs(labels), 2, 'tried again');
  labels.length = 0;
  volumes.release(await volumes.acquire(head, { writable: true }));
  t.equal(tupleSyncs(labels), 0, 'and not a second time');
});

t.test('a tuple file that can be read in part only is not taken for a short one', async (t) => {
  const scratch = scratchEngine(t);
  const { below, head } = await twoDeltas(scratch);
  await scratch.reopen();
  const { volumes } = scratch.engine;
  // As the host reads what lies before a bad sector: behind it is the header that counts, or
  // tuples.
  for (const readable of [4096, 8192]) {
    let met = 0;
    const restore = aroundHostCalls(({ label, args }, run) => {
      if (label !== 'tuples.read-start') return run();
      const [fd, target, at, length, offset] = args as [number, Buffer, number, number, number];
      if (offset + length <= readable) return run();
      met += 1;
      if (offset < readable) return run(fd, target, at, readable - offset, offset, label);
      throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
    });
    t.teardown(restore);
    const opening = volumes.acquire(head, { writable: true });
    await t.rejects(opening, { code: 'failed', errno: 'EIO' }, `${readable} bytes`);
    restore();
    t.ok(met > 1);
  }
  const opened = await volumes.acquire(head, { writable: true });
  const bytes = Buffer.alloc(BLOCK_SIZE);
  scratch.volumeOf(opened.handle).read(bytes, 0, 0, BLOCK_SIZE);
  t.equal(bytes[0], 2, `the head ${head} on ${below}`);
  volumes.release(opened);
});

t.test('a delta that goes while space is given back', async (t) => {
  const scratch = scratchEngine(t);
  const { below, head } = await twoDeltas(scratch);
  const { deltas, volumes } = scratch.engine;
  await write(scratch, head, 3);
  await volumes.closeAll();
  const made = await deltas.create(on(below));
  const reached = new Set([below, head, made]);
  const request = { reached, labelled: new Set([head, made]) };
  await deltas.discard([made]);
  const done = await scratch.engine.reclaim(request);
  t.match(done, { merged: 0, left: true }, 'is nobody’s error: the next collection does the rest');
  const next = { reached: new Set([below, head]), labelled: new Set([head]) };
  t.match(await scratch.engine.reclaim(next), { left: false });
});

t.test('a change of what lies below that broke off is done again', async (t) => {
  const scratch = scratchEngine(t);
  const { below, head } = await twoDeltas(scratch);
  await scratch.reopen();
  const { deltas, volumes } = scratch.engine;
  const other = await deltas.create(EMPTY);
  await write(scratch, other, 1);
  await volumes.closeAll();
  let writes = 0;
  const restore = aroundHostCalls(({ label }, run) => {
    if (label !== 'below.header') return run();
    writes += 1;
    if (writes !== 2) return run();
    throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
  });
  t.teardown(restore);
  await t.rejects(volumes.changes.changeBelow(head, other), { code: 'failed' });
  const reached = new Set([head, other]);
  const kept = await deltas.collect(reached, true);
  const names = kept.files.map((file) => basename(file).slice(0, 32));
  t.notOk(names.includes(below), 'a power cut may lead back to it: it stays');
  await scratch.engine.reclaim({ reached, labelled: reached });
  t.equal(writes, 4, 'both copies are written anew');
  const after = await deltas.collect(reached, true);
  t.ok(
    after.files.some((file) => file.includes(below)),
    'now nothing leads there',
  );
  await write(scratch, head, 3);
});

t.test('what lies below changes durably, one header copy after the other', async (t) => {
  const scratch = scratchEngine(t);
  const { head } = await twoDeltas(scratch);
  await scratch.reopen();
  const other = await scratch.engine.deltas.create(EMPTY);
  const tape = new HostTape(scratch.folder);
  try {
    await scratch.engine.volumes.changes.changeBelow(head, other);
  } finally {
    tape.end();
  }
  const states = new CrashStates(tape);
  const headers = (length: number) =>
    states.pending(length).filter((index) => tape.ops[index]!.label === 'below.header').length;
  const written = tape.ops.filter(
    ({ label, kind }) => label === 'below.header' && kind === 'write',
  );
  t.equal(written.length, 2);
  t.equal(headers(tape.position), 0, 'a power cut afterwards leads back to nothing');
  const pending = tape.ops.map((_, index) => headers(index));
  t.equal(Math.max(...pending), 1, 'one copy is always whole');
});

t.test('a delta that cannot be made leaves no file behind', async (t) => {
  const scratch = scratchEngine(t);
  const folder = join(scratch.folder, 'deltas');
  const before = readdirSync(folder);
  for (const failing of ['delta.write-tuples', 'delta.sync-tuples', 'delta.sync-folder']) {
    const restore = aroundHostCalls(({ label }, run) => {
      if (label !== failing) return run();
      throw Object.assign(new Error('ENOSPC: injected'), { code: 'ENOSPC' });
    });
    t.teardown(restore);
    const making = scratch.engine.deltas.create(EMPTY);
    await t.rejects(making, { code: 'failed', errno: 'ENOSPC' }, failing);
    restore();
    t.same(readdirSync(folder), before, failing);
  }
});

t.test('a disk that cannot be opened leaves no row behind', async (t) => {
  const scratch = scratchEngine(t);
  const { head } = await twoDeltas(scratch);
  await scratch.reopen();
  const { volumes } = scratch.engine;
  truncateSync(join(scratch.folder, 'deltas', `${head}.1.data`), 0);
  for (let round = 0; round < 5; round += 1) {
    await t.rejects(volumes.acquire(head, { writable: true }), { code: 'damaged' });
  }
  t.ok(volumes.rowsUsed <= 1, `${volumes.rowsUsed} rows`);
});

t.test('a restore that cannot be made leaves the disk in nobody’s use', async (t) => {
  const scratch = scratchEngine(t);
  const { below, head } = await twoDeltas(scratch);
  const { deltas, volumes } = scratch.engine;
  scratch.bases.set('a'.repeat(32), Buffer.alloc(MiB));
  const based = await deltas.create({ ...EMPTY, below: { kind: 'base', id: 'a'.repeat(32) } });
  scratch.bases.clear();
  for (const to of [based, below]) {
    if (to === below) truncateSync(join(scratch.folder, 'deltas', `${below}.tuples`), 100);
    const target = to === based ? based : await deltas.create(on(head));
    const change = { from: head, to: target };
    if (to === below) truncateSync(join(scratch.folder, 'deltas', `${target}.tuples`), 100);
    await t.rejects(volumes.switchHeads([change], () => t.fail('committed')));
    t.notOk(volumes.isOpen(head), 'nobody uses it');
  }
  t.ok(volumes.rowsUsed <= 1, `${volumes.rowsUsed} rows`);
});

t.test('an open file whose disk could not be opened again answers errors', async (t) => {
  const scratch = scratchEngine(t);
  const { head } = await twoDeltas(scratch);
  scratch.crash();
  truncateSync(join(scratch.folder, 'deltas', `${head}.1.data`), 0);
  const row = 7;
  const { volumes } = scratch.engine;
  await t.rejects(volumes.reopen(head, { writable: true, row }), { code: 'damaged' });
  const lost = { code: 'failed', errno: 'EIO' };
  t.throws(() => scratch.volumeOf(row).size, lost, 'not an empty disk that nobody opened');
  t.throws(() => scratch.volumeOf(row).flush(), lost, 'what was written before is not durable');
});

t.test('a base is let go when the chain on it changes and cannot be read again', async (t) => {
  const scratch = scratchEngine(t);
  const { deltas, volumes } = scratch.engine;
  const base = 'a'.repeat(32);
  scratch.bases.set(base, Buffer.alloc(MiB));
  const top = await deltas.create({ ...EMPTY, below: { kind: 'base', id: base } });
  scratch.onResolve = () => truncateSync(join(scratch.folder, 'deltas', `${top}.tuples`), 100);
  await t.rejects(volumes.acquire(top, { writable: true }), { code: 'damaged' });
  const [opened, closed] = scratch.published;
  t.match(opened, { type: 'base', spec: { id: base } });
  t.same(closed, { type: 'base', index: opened?.index }, 'and closed again');
  t.ok(volumes.rowsUsed <= 1, `${volumes.rowsUsed} rows`);
});

t.test('a base that a thread cannot open is not the one of the row before', async (t) => {
  const scratch = scratchEngine(t);
  const { deltas, volumes } = scratch.engine;
  const [first, second] = ['a', 'b'].map((id) => id.repeat(32)) as [string, string];
  scratch.bases.set(first, Buffer.alloc(MiB, 1));
  scratch.bases.set(second, Buffer.alloc(MiB, 2));
  const create = (id: string) => deltas.create({ ...EMPTY, below: { kind: 'base', id } });
  const block = Buffer.alloc(BLOCK_SIZE);
  const read = (handle: number) => scratch.volumeOf(handle).read(block, 0, 0, BLOCK_SIZE);
  const tops = [await create(first), await create(second)] as const;
  const before = await volumes.acquire(tops[0], { writable: false });
  read(before.handle);
  t.equal(block[0], 1);
  volumes.release(before);
  await volumes.close(tops[0]);
  const opened = await volumes.acquire(tops[1], { writable: false });
  t.equal(opened.handle, before.handle, 'in the same row');
  scratch.bases.delete(second);
  for (const what of ['the first read', 'the next one', 'and the next']) {
    t.throws(() => read(opened.handle), { code: 'not-permitted' }, what);
  }
  scratch.bases.set(second, Buffer.alloc(MiB, 2));
  read(opened.handle);
  t.equal(block[0], 2, 'it can be opened again');
  volumes.release(opened);
});

/** Makes calls with this label fail until `end`, and tells which labels came afterwards. */
function failing(t: Test, label: string): { readonly labels: string[]; end(): void } {
  const labels: string[] = [];
  let fails = true;
  const restore = aroundHostCalls((call, run) => {
    labels.push(call.label);
    if (!fails || call.label !== label) return run();
    const error = Object.assign(new Error('EIO: injected'), { code: 'EIO' });
    if (call.name.endsWith('Later')) return Promise.reject(error);
    throw error;
  });
  t.teardown(restore);
  const end = (): void => {
    fails = false;
    labels.length = 0;
  };
  return { labels, end };
}

/** Syncs of the tuple files of a head and of what it stands on. */
function tupleSyncs(labels: readonly string[]): number {
  return labels.filter((label) => label === 'inherit.sync-tuples').length;
}

t.test(
  'what a failed flush had published is synced before the disk is flushed again',
  async (t) => {
    const scratch = scratchEngine(t);
    const { head } = await twoDeltas(scratch);
    const { volumes } = scratch.engine;
    const fault = failing(t, 'head.sync-tuples');
    await t.rejects(volumes.flush(head), { code: 'failed', errno: 'EIO' });
    await t.rejects(volumes.close(head), { code: 'failed', errno: 'EIO' });
    fault.end();
    const opened = await volumes.acquire(head, { writable: true });
    scratch.volumeOf(opened.handle).flush();
    t.equal(tupleSyncs(fault.labels), 2, 'its header looks as if all were durable');
    volumes.release(opened);
  },
);

t.test(
  'a head that could not be sealed durably is synced before it is stood on again',
  async (t) => {
    for (const isOpen of [true, false]) {
      const scratch = scratchEngine(t);
      const { head } = await twoDeltas(scratch);
      const { deltas, volumes } = scratch.engine;
      if (!isOpen) await volumes.close(head);
      const to = await deltas.create(on(head));
      const fault = failing(t, isOpen ? 'seal.sync-tuples' : 'settle.sync-tuples');
      await t.rejects(
        volumes.switchHeads([{ from: head, to }], () => {}),
        {
          name: 'DiskError',
          code: 'failed',
          errno: 'EIO',
          message: /^cannot make .* durable: EIO$/,
        },
      );
      if (isOpen) await t.rejects(volumes.close(to), { code: 'failed', errno: 'EIO' });
      fault.end();
      const opened = await volumes.acquire(to, { writable: true });
      scratch.volumeOf(opened.handle).flush();
      t.ok(tupleSyncs(fault.labels) > 0, isOpen ? 'an open disk' : 'a closed one');
      volumes.release(opened);
      await volumes.closeAll();
    }
  },
);

t.test('a write gives back the room that it took, and one that fails its place, too', async (t) => {
  const scratch = scratchEngine(t);
  const { deltas, volumes, context } = scratch.engine;
  const head = await deltas.create(EMPTY);
  const opened = await volumes.acquire(head, { writable: true });
  const volume = scratch.volumeOf(opened.handle);
  const writeBlock = (block: number) =>
    volume.write(Buffer.alloc(BLOCK_SIZE, 1), 0, block * BLOCK_SIZE, BLOCK_SIZE);
  const { allowance } = context;
  const free = () => 10 * BLOCK_SIZE;
  allowance.publish(free, 1);
  const left = allowance.left;
  let failing = '';
  const restore = aroundHostCalls(({ label }, run) => {
    if (label !== failing) return run();
    throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
  });
  t.teardown(restore);
  for (failing of ['head.write', 'head.append']) t.throws(() => writeBlock(1), { message: /EIO/ });
  failing = '';
  writeBlock(5);
  allowance.publish(free, 1);
  t.equal(allowance.left, left, 'nothing is under way any more');
  volumes.release(opened);
  const data = new DeltaFiles(join(scratch.folder, 'deltas'), 'e'.repeat(32)).dataPath(head, 1);
  t.equal(statSync(data).size, BLOCK_SIZE, 'it lies in the first place');
});

t.test(
  'an image that the host does not let us look at is no flat file, and no error',
  async (t) => {
    const scratch = scratchEngine(t);
    const { deltas, volumes } = scratch.engine;
    const opened = await volumes.acquire(await deltas.create(EMPTY), { writable: false });
    const path = join(scratch.folder, 'circle');
    symlinkSync(path, path);
    const image = { path, format: 'raw' } as const;
    const base = { id: 'b', images: [image], virtualSize: MiB, allocatedSize: 0 };
    t.equal(flatFileOf(scratch.volumeOf(opened.handle), base), undefined);
    volumes.release(opened);
  },
);
