/** Snapshots that a qcow2 image holds of itself, each as a disk, against what QEMU shows. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import { startDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';

const BEFORE = 'before the "update"';
const SECOND = 'two';
/** The disk at the snapshots, and now, bytes. */
const THEN = 8 * MiB;
const NOW = 12 * MiB;

/** An image with two snapshots and a present state; a backing file below all of them. */
async function makeImage(folder: string): Promise<string> {
  const base = join(folder, 'base.qcow2');
  const image = join(folder, 'disk.qcow2');
  const write = (file: string, ...commands: string[]) =>
    tool('qemu-io', ['-f', 'qcow2', ...commands.flatMap((each) => ['-c', each]), file]);
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', base, `${THEN}`]);
  await write(base, `write -P 1 0 ${THEN}`);
  await tool('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', image]);
  await write(image, 'write -P 2 1M 1000k');
  await tool('qemu-img', ['snapshot', '-c', BEFORE, image]);
  await write(image, 'write -P 3 1500k 2M', 'write -z 5M 1M');
  await tool('qemu-img', ['snapshot', '-c', SECOND, image]);
  await tool('qemu-img', ['resize', '-q', image, `${NOW}`]);
  await write(image, 'write -P 4 7M 3M', 'discard 0 1M');
  return image;
}

/** What QEMU shows of it: a snapshot as large as the disk is now, with zeroes at its end. */
async function stateOf(image: string, folder: string, snapshot?: string): Promise<Buffer> {
  const path = join(folder, 'state.raw');
  const which = snapshot === undefined ? [] : ['-l', `snapshot.name=${snapshot}`];
  await tool('qemu-img', ['convert', ...which, '-O', 'raw', image, path]);
  const state = await readFile(path);
  return snapshot === undefined ? state : state.subarray(0, THEN);
}

t.test('snapshots inside an image', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  const { folder } = daemon;
  const image = await makeImage(folder);
  const states = new Map<string, Buffer>();
  const check = async (vm: string) => {
    const state = states.get(vm);
    t.ok(state?.equals(await readFile(daemon.rawFile(vm))), `${vm} is as QEMU shows it`);
  };

  const told = await daemon.cli(['import', image, 'now']);
  t.equal(told.code, 0);
  t.match(
    told.stderr,
    /warning: .*present state is taken; .*\("before .*, "two"\).* --image-snapshot/,
  );
  states.set('now', await stateOf(image, folder));
  const chosen = { before: BEFORE, second: SECOND, byid: '1' };
  for (const [vm, snapshot] of Object.entries(chosen)) {
    const result = await daemon.cli(['import', image, vm, '--image-snapshot', snapshot]);
    t.match(result, { code: 0, stderr: '' });
    states.set(vm, await stateOf(image, folder, vm === 'byid' ? BEFORE : snapshot));
  }
  await daemon.ok('import', image, 'copy', '--image-snapshot', SECOND, '--copy');
  states.set('copy', states.get('second')!);
  for (const vm of states.keys()) await check(vm);
  t.notOk(states.get('before')?.equals(states.get('second')!), 'the states differ');

  t.match(await daemon.ok('info', 'before'), /qcow2 .*disk\.qcow2, its snapshot "before the /);
  t.match(JSON.parse(await daemon.ok('info', 'second', '--json')), {
    disks: [{ base: { path: image, snapshot: SECOND, virtualSize: THEN } }],
  });
  const child = join(folder, 'child.qcow2');
  checkRefusal(
    t,
    await daemon.cli(['export', 'before', child, '--format', 'qcow2', '--differencing']),
    [EXIT.notSupported],
    /snapshot inside .*disk\.qcow2: a child would stand on its present state/,
  );
  const whole = join(folder, 'whole.raw');
  await daemon.ok('export', 'before', whole, '--format', 'raw');
  t.ok((await readFile(whole)).equals(states.get('before')!), 'an export of all of it is right');

  await daemon.stop();
  await daemon.start();
  for (const vm of states.keys()) await check(vm);
});

t.test('the snapshot that a disk stands on is deleted', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  const image = await makeImage(daemon.folder);
  await daemon.ok('import', image, 'vm', '--image-snapshot', SECOND);
  await tool('qemu-img', ['snapshot', '-d', SECOND, image]);
  const refused = await daemon.cli(['attach', 'vm']);
  checkRefusal(t, refused, [EXIT.damaged], /disk\.qcow2 is not what it was/);
  t.match(refused.stderr, /hint: bring the old file back: now .*no internal snapshot "two"/);
  t.notMatch(refused.stderr, /base accept/, 'that cannot help');
});

t.test('snapshots that are not there', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  const image = await makeImage(daemon.folder);
  const raw = join(daemon.folder, 'disk.raw');
  await tool('truncate', ['-s', '1M', raw]);
  const machine = join(daemon.folder, 'machine.vmx');
  const refused = [
    {
      files: [image],
      snapshot: 'x',
      code: EXIT.notFound,
      about: /disk\.qcow2: no internal snapshot "x"/,
    },
    { files: [raw], snapshot: 'two', code: EXIT.usage, about: /disk\.raw: raw images have no/ },
    { files: [image, raw], snapshot: 'two', code: EXIT.usage, about: /raw images have no/ },
    { files: [machine], snapshot: 'two', code: EXIT.usage, about: /is a whole machine/ },
  ];
  for (const { files, snapshot, code, about } of refused) {
    const result = await daemon.cli(['import', ...files, 'vm', '--image-snapshot', snapshot]);
    checkRefusal(t, result, [code], about);
  }
  t.equal(await daemon.ok('list', '-q'), '');
});
