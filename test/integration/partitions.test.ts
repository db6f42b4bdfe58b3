/**
 * Partitioned disks: tables written by sfdisk, each partition made, mounted and checked by number.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { tool } from '../support/run-program.js';

/** Sectors. */
const FIRST = { start: 2048, count: 131_072 };
const SECOND = { start: FIRST.start + FIRST.count, count: 65_536 };

async function checkTable(t: Test, daemon: TestDaemon, label: 'dos' | 'gpt') {
  const vm = `disk-${label}`;
  const on = join(daemon.folder, `on-${label}`);
  await tool('mkdir', [on]);
  await daemon.ok('create', vm, '--disk', '128M');
  const path = await daemon.ok('path', vm);
  const table = [FIRST, SECOND].map(({ start, count }) => `start=${start}, size=${count}`);
  const input = `label: ${label}\n${table.join('\n')}\n`;
  await tool('sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', path], { input });
  t.match(await tool('sfdisk', ['--verify', path]), /No errors detected/i, 'the table is whole');

  await tool('mkfs.ext4', ['-q', '-E', `offset=${FIRST.start * 512}`, path, '64M']);
  await tool('mkfs.ext4', ['-q', '-E', `offset=${SECOND.start * 512}`, path, '32M']);

  for (const number of ['1', '2']) {
    const said = await daemon.ok('mount', vm, on, '--partition', number);
    t.match(said, 'ext4', 'mount says which file system it found');
    await writeFile(join(on, 'hello'), `from partition ${number}`);
    await daemon.ok('unmount', on);
  }
  await daemon.ok('snapshot', 'take', `${vm}@made`);
  for (const number of ['1', '2']) {
    await daemon.ok('mount', `${vm}@made`, on, '--partition', number, '--read-only');
    t.equal(await readFile(join(on, 'hello'), 'utf8'), `from partition ${number}`);
    await daemon.ok('unmount', on);
  }
  const absent = await daemon.cli(['mount', vm, on, '--partition', '7']);
  checkRefusal(t, absent, [EXIT.notFound], /partition 7|7/);
  const devices = await tool('losetup', ['-j', path]);
  t.equal(devices, '', 'nothing stays attached after a mount that failed');
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const daemon = await startDaemon(t, { transport });
    await t.test('MBR', (t) => checkTable(t, daemon, 'dos'));
    await t.test('GPT', (t) => checkTable(t, daemon, 'gpt'));
  });
}
