/** Discarded space: given back to the host, read as zeroes, and never what lies below. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe, mountOn } from '../support/mount-guard.js';
import { ReferenceDisk } from '../support/reference-disk.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';

/** Bytes that the store takes on the host. */
async function storeBytes(daemon: TestDaemon): Promise<number> {
  const said = await tool('du', ['-s', '--block-size=1', daemon.store]);
  return Number.parseInt(said, 10);
}

async function checkDeviceDiscard(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'plain', '--disk', '256M');
  const before = await storeBytes(daemon);
  const device = await daemon.ok('attach', 'plain');
  const data = stampedPattern(1, 0, 48 * MiB);
  const source = join(daemon.folder, 'source');
  await writeFile(source, data);
  await tool('dd', [`if=${source}`, `of=${device}`, 'bs=1M', 'conv=fsync', 'status=none']);
  t.ok((await storeBytes(daemon)) - before >= 48 * MiB, 'written data takes space');

  await tool('blkdiscard', ['--offset', String(8 * MiB), '--length', String(32 * MiB), device]);
  const left = (await storeBytes(daemon)) - before;
  t.ok(left < 20 * MiB, `discarding gives it back (${left} bytes left of 16 MiB that stay)`);
  const model = new ReferenceDisk(48 * MiB);
  model.write(0, data);
  model.discard(8 * MiB, 32 * MiB);
  await tool('blockdev', ['--flushbufs', device]);
  const out = join(daemon.folder, 'out');
  await tool('dd', [`if=${device}`, `of=${out}`, 'bs=1M', 'count=48', 'status=none']);
  t.equal(model.difference(await readFile(out)), undefined, 'zeroes there, data around');
  await tool('blkdiscard', [device]);
  t.ok((await storeBytes(daemon)) - before < 2 * MiB, 'a whole disk is discarded');
  await daemon.ok('detach', device);
}

async function checkTrim(t: Test, daemon: TestDaemon) {
  await daemon.ok('create', 'trim', '--disk', '256M');
  const device = await daemon.ok('attach', 'trim');
  const on = join(daemon.folder, 'on');
  await tool('mkfs.ext4', ['-q', device]);
  await mountOn(t, device, on);
  await tool('sync', ['-f', on]);
  const empty = await storeBytes(daemon);
  await writeFile(join(on, 'big'), stampedPattern(1, 0, 64 * MiB));
  await tool('sync', ['-f', on]);
  t.ok((await storeBytes(daemon)) - empty >= 60 * MiB, 'a file takes space');
  await tool('rm', [join(on, 'big')]);
  await tool('sync', ['-f', on]);
  await tool('fstrim', [on]);
  const left = (await storeBytes(daemon)) - empty;
  t.ok(left < 8 * MiB, `fstrim gives the space of removed files back (${left} bytes left)`);
  await tool('umount', [on]);
  t.equal((await runProgram('e2fsck', ['-fn', device])).code, 0, 'and harms nothing');
  await daemon.ok('detach', device);
}

/** A discarded block is zero, not what the base, the snapshot or the clone's origin holds there. */
async function checkDiscardOverChain(t: Test, daemon: TestDaemon) {
  const size = 8 * MiB;
  const model = new ReferenceDisk(size);
  model.write(0, stampedPattern(1, 0, size));
  const base = join(daemon.folder, 'base.img');
  await writeFile(base, model.bytes);
  await daemon.ok('import', base, 'based', '--format', 'raw');
  await daemon.ok('snapshot', 'take', 'based@one');
  await daemon.ok('clone', 'based@one', 'cloned', '--linked');

  for (const vm of ['based', 'cloned']) {
    const expected = model.copy();
    const device = await daemon.ok('attach', vm);
    // Not aligned to blocks: the ends must keep their other half.
    await tool('blkdiscard', ['--offset', '1536', '--length', String(2 * MiB), device]);
    expected.discard(1536, 2 * MiB);
    await daemon.ok('detach', device);
    const path = await daemon.ok('path', vm);
    t.equal(expected.difference(await readFile(path)), undefined, `${vm} reads zeroes there`);
    await daemon.ok('snapshot', 'take', `${vm}@two`);
    t.equal(
      expected.difference(await readFile(daemon.rawFile(vm, 'two'))),
      undefined,
      `and so does ${vm}@two`,
    );
  }
  t.equal(model.difference(await readFile(daemon.rawFile('based', 'one'))), undefined);
  await daemon.stop();
  await daemon.start();
  const again = await readFile(daemon.rawFile('cloned'));
  t.ok(again.subarray(4096, MiB).equals(Buffer.alloc(MiB - 4096)), 'zeroes after a restart');
  t.equal(model.difference(await readFile(base)), undefined, 'the image file is unchanged');
}

// Over fuse-native nothing can be discarded: libfuse 2 has no fallocate.
t.test('over the kernel channel', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t, { transport: 'kernel' });
  await t.test('blkdiscard', (t) => checkDeviceDiscard(t, daemon));
  await t.test('fstrim', (t) => checkTrim(t, daemon));
  await t.test('over what lies below', (t) => checkDiscardOverChain(t, daemon));
});

t.test('over the fuse-native channel', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t, { transport: 'fuse-native' });
  await daemon.ok('create', 'plain', '--disk', '16M');
  const device = await daemon.ok('attach', 'plain');
  const data = stampedPattern(1, 0, MiB);
  await tool('dd', [`of=${device}`, 'conv=fsync', 'status=none'], { input: data });
  // A discard is a wish: the kernel calls it done where the device cannot.
  await runProgram('blkdiscard', [device]);
  await tool('blkdiscard', ['--zeroout', '--offset', '4096', '--length', '65536', device]);
  await daemon.ok('detach', device);
  const model = new ReferenceDisk(16 * MiB);
  model.write(0, data);
  model.discard(4096, 65_536);
  const now = await readFile(await daemon.ok('path', 'plain'));
  t.equal(model.difference(now), undefined, 'a discard changes nothing, zeroing does');
});
