/** `compact` as users have it: a real file system on a disk in use, and the space of the host. */
import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import type { CompactView } from '../../src/control/protocol.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path)) hash.update(part as Buffer);
  return hash.digest('hex');
}

/** Bytes of the host that all deltas take. */
function stored({ store }: TestDaemon): number {
  const folder = join(store, 'deltas');
  return (
    readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).blocks, 0) * 512
  );
}

t.test('zeroes in a disk that is in use', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'vm', '--disk', '256M');
  const file = daemon.rawFile('vm');
  const device = (await daemon.ok('attach', 'vm')).trim();
  await tool('mkfs.ext4', ['-q', device]);
  const folder = tempFolder(t);
  await tool('mount', ['-o', 'nodiscard', device, folder]);
  await tool('dd', ['if=/dev/urandom', `of=${folder}/data`, 'bs=1M', 'count=20', 'status=none']);
  await tool('dd', ['if=/dev/zero', `of=${folder}/zero`, 'bs=1M', 'count=100', 'status=none']);
  await daemon.ok('snapshot', 'take', 'vm@one');
  await tool('dd', ['if=/dev/zero', `of=${folder}/more`, 'bs=1M', 'count=60', 'status=none']);
  await tool('sync', ['-f', folder]);
  const before = await digest(daemon.rawFile('vm', 'one'));
  const took = stored(daemon);
  t.ok(took > 170 * MiB, 'zeroes take space');

  const result = await daemon.json<CompactView>('compact', 'vm');
  t.equal(result.vm, 'vm');
  t.same(result.left, []);
  t.ok(result.storedBefore > 170 * MiB, 'said before');
  t.ok(result.storedSize < 40 * MiB, `said after: ${result.storedSize}`);
  t.ok(stored(daemon) < 40 * MiB, `the host says so, too: ${stored(daemon)}`);
  t.equal(await digest(daemon.rawFile('vm', 'one')), before, 'the snapshot is what it was');
  await tool('dd', ['if=/dev/urandom', `of=${folder}/more`, 'bs=1M', 'count=5', 'status=none']);
  await tool('umount', [folder]);
  await tool('e2fsck', ['-fn', device]);
  await daemon.ok('detach', device);
  const now = await digest(file);
  t.match(await daemon.ok('compact', 'vm'), /^compacted vm: \S+ MiB -> \S+ MiB; read \S+ MiB$/);
  t.equal(await digest(file), now, 'nor has the disk changed');
  t.match(await daemon.ok('check', '--deep'), /checked 1 VM/);
});

t.test('what stays as it is is said', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'vm', '--disk', '8M,allocation=static', '--disk', 'empty=8M');
  await tool('dd', [
    'if=/dev/zero',
    `of=${daemon.rawFile('vm')}`,
    'bs=1M',
    'count=8',
    'conv=notrunc',
  ]);
  const before = readdirSync(join(daemon.store, 'deltas')).sort();
  const done = await daemon.cli(['compact', 'vm', '-q']);
  t.equal(done.code, 0);
  t.equal(done.stdout, 'vm\n');
  t.match(done.stderr, /left as it is: vm\/disk0 is static: it keeps its space/);
  t.same(readdirSync(join(daemon.store, 'deltas')).sort(), before, 'no head moved');
  checkRefusal(t, await daemon.cli(['compact', 'none']), [EXIT.notFound], /no VM "none"/);
});
