/** fio writes random blocks of random sizes from several jobs at once, and reads every one back. */
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { tool } from '../support/run-program.js';

const LONG = process.env.LAYERDISK_LONG === '1';
const JOBS = 4;
const JOB_MIB = LONG ? 256 : 16;

/** Each job has its own part of the disk, so that no job verifies another's blocks. */
const COMMON = [
  '--rw=randwrite',
  '--bsrange=512-64k',
  '--blockalign=512',
  `--size=${JOB_MIB}m`,
  `--offset_increment=${JOB_MIB}m`,
  `--numjobs=${JOBS}`,
  '--group_reporting',
  '--verify=crc32c',
  '--verify_fatal=1',
  '--do_verify=1',
  '--end_fsync=1',
  '--fallocate=none',
  '--overwrite=1',
  '--allow_file_create=0',
  '--output-format=terse',
  '--randrepeat=0',
];

const KINDS: Readonly<Record<string, readonly string[]>> = {
  'direct, many in flight': ['--direct=1', '--ioengine=libaio', '--iodepth=16'],
  'direct, one at a time': ['--direct=1', '--ioengine=psync'],
  'buffered, with fsyncs': ['--direct=0', '--ioengine=psync', '--fsync=16'],
};

async function checkKind(t: Test, daemon: TestDaemon, name: string, options: readonly string[]) {
  const vm = `fio-${Object.keys(KINDS).indexOf(name)}`;
  await daemon.ok('create', vm, '--disk', `${JOBS * JOB_MIB}M`);
  const path = await daemon.ok('path', vm);
  const args = ['--name=verify', `--filename=${path}`, ...COMMON, ...options];
  const timeoutMs = LONG ? 1_800_000 : 240_000;
  await tool('fio', args, { cwd: daemon.folder, timeoutMs });
  await daemon.ok('snapshot', 'take', `${vm}@after`);
  t.equal(
    (await tool('cmp', [path, daemon.rawFile(vm, 'after')])).trim(),
    '',
    'the snapshot is the same',
  );
  await daemon.ok('delete', vm);
}

/** Through a loop device and a chain: what a guest would do after a few snapshots. */
async function checkChain(t: Test, daemon: TestDaemon) {
  const vm = 'fio-chain';
  await daemon.ok('create', vm, '--disk', `${JOBS * JOB_MIB}M`);
  const device = await daemon.ok('attach', vm, '--direct-io');
  const args = ['--name=verify', `--filename=${device}`, ...COMMON];
  const direct = ['--direct=1', '--ioengine=libaio', '--iodepth=8'];
  for (const snapshot of ['one', 'two', 'three']) {
    await tool('fio', [...args, ...direct], { cwd: daemon.folder, timeoutMs: 1_800_000 });
    await daemon.ok('snapshot', 'take', `${vm}@${snapshot}`);
  }
  await daemon.ok('detach', device);
  const three = daemon.rawFile(vm, 'three');
  const same = await tool('cmp', [daemon.rawFile(vm), three]);
  t.equal(same, '', 'nothing changed since the last snapshot');
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const daemon = await startDaemon(t, { transport });
    for (const [name, options] of Object.entries(KINDS)) {
      await t.test(name, (t) => checkKind(t, daemon, name, options));
    }
    await t.test('attached, over a chain', (t) => checkChain(t, daemon));
  });
}
