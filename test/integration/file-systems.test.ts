/**
 * File systems on attached disks: made, filled with a real tree, checked, and found again later.
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe, mountOn } from '../support/mount-guard.js';
import { PROJECT, runProgram, tool } from '../support/run-program.js';

interface FileSystem {
  readonly size: string;
  readonly make: readonly string[];
  /** Checks without changing; exits non-zero for any finding. */
  readonly check: readonly string[];
}

const FILE_SYSTEMS: Readonly<Record<string, FileSystem>> = {
  ext4: { size: '256M', make: ['mkfs.ext4', '-q'], check: ['e2fsck', '-fn'] },
  xfs: { size: '320M', make: ['mkfs.xfs', '-q'], check: ['xfs_repair', '-n'] },
  btrfs: {
    size: '320M',
    make: ['mkfs.btrfs', '-q'],
    check: ['btrfs', 'check', '--readonly'],
  },
};

/** A real tree with links, modes, empty files and many small ones; still while the test runs. */
async function realTree(folder: string): Promise<string> {
  const tree = join(folder, 'tree');
  await tool('mkdir', [tree]);
  await tool('cp', ['-a', '/etc', join(PROJECT, 'node_modules/zod'), tree]);
  return tree;
}

async function checkFileSystem(t: Test, daemon: TestDaemon, kind: string, tree: string) {
  const { size, make, check } = FILE_SYSTEMS[kind] as FileSystem;
  const on = join(daemon.folder, `on-${kind}`);
  await daemon.ok('create', kind, '--disk', size);
  const device = await daemon.ok('attach', kind);
  t.match(device, /^\/dev\/loop\d+$/, 'attach prints the device');

  await tool(make[0] ?? '', [...make.slice(1), device]);
  await mountOn(t, device, on);
  await tool('cp', ['-a', tree, on]);
  await tool('umount', [on]);
  await runCheck(t, check, device, 'clean after the first use');

  await daemon.ok('snapshot', 'take', `${kind}@filled`);
  await mountOn(t, device, on);
  await tool('diff', ['-r', '--no-dereference', tree, join(on, 'tree')]);
  await tool('rm', ['-r', join(on, 'tree/etc')]);
  await tool('umount', [on]);
  await runCheck(t, check, device, 'clean after removing files');
  t.match(await daemon.ok('detach', kind), new RegExp(device), 'detach says what it detached');
  const devices = await tool('losetup', ['-j', daemon.rawFile(kind)]);
  t.equal(devices, '', 'the device is gone when detach returns');

  await daemon.ok('snapshot', 'restore', `${kind}@filled`, '--discard');
  await daemon.stop();
  await daemon.start();
  await tool('mkdir', ['-p', on]);
  const said = await daemon.ok('mount', kind, on, '--read-only');
  t.match(said, kind, 'mount says which file system it found');
  await tool('diff', ['-r', '--no-dereference', tree, join(on, 'tree')]);
  t.not((await runProgram('touch', [join(on, 'x')])).code, 0, 'mounted read-only');
  await daemon.ok('unmount', on);

  // The snapshot as a disk of its own: read-only, whatever is asked.
  const frozen = await daemon.ok('attach', `${kind}@filled`);
  t.equal((await tool('blockdev', ['--getro', frozen])).trim(), '1', 'a snapshot is read-only');
  await runCheck(t, check, frozen, 'the snapshot is clean');
  await daemon.ok('detach', frozen);
  await daemon.ok('delete', kind);
}

async function runCheck(t: Test, check: readonly string[], device: string, what: string) {
  const result = await runProgram(check[0] ?? '', [...check.slice(1), device]);
  t.equal(result.code, 0, `${what}: ${result.stdout}${result.stderr}`);
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const daemon = await startDaemon(t, { transport });
    const tree = await realTree(daemon.folder);
    for (const kind of Object.keys(FILE_SYSTEMS)) {
      await t.test(kind, (t) => checkFileSystem(t, daemon, kind, tree));
    }
  });
}
