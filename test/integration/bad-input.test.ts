/**
 * Every wrong command is answered with one line of error, one of hint and the right exit code, and
 * changes nothing.
 */
import { chmod, mkdir, open, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { runCli, startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { checkRefusal, EXIT, stateOf } from '../support/refusal.js';
import { tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';

/**
 * The command, its possible exit codes, and what its error line must name. FOLDER is the test's
 * folder.
 */
type Row = readonly [command: string, codes: readonly number[], about?: RegExp];

const LONG_NAME = 'x'.repeat(65);

/** VM `web` has one disk, is not in use, and has the snapshot `web@one`. VM `used` is attached. */
const ROWS: Readonly<Record<string, readonly Row[]>> = {
  'unknown things': [
    ['info nosuch', [EXIT.notFound], /no file "nosuch" is here, and .*nosuch/],
    ['path nosuch', [EXIT.notFound], /nosuch/],
    ['path web@nosuch', [EXIT.notFound], /nosuch/],
    ['path web --disk nosuch', [EXIT.notFound], /nosuch/],
    ['tree nosuch', [EXIT.notFound], /nosuch/],
    ['attach nosuch', [EXIT.notFound], /nosuch/],
    ['attach web@nosuch', [EXIT.notFound], /nosuch/],
    ['detach nosuch', [EXIT.notFound], /nosuch/],
    ['detach web', [EXIT.notFound], /web/],
    ['detach /dev/loop4095', [EXIT.notFound], /loop4095/],
    ['mount nosuch FOLDER/empty', [EXIT.notFound], /nosuch/],
    ['unmount FOLDER/empty', [EXIT.notFound], /empty/],
    ['delete nosuch', [EXIT.notFound], /nosuch/],
    ['rename nosuch other', [EXIT.notFound], /nosuch/],
    ['set nosuch --vcpus 2', [EXIT.notFound], /nosuch/],
    ['stats nosuch', [EXIT.notFound], /nosuch/],
    ['snapshot take nosuch@a', [EXIT.notFound], /nosuch/],
    ['snapshot list nosuch', [EXIT.notFound], /nosuch/],
    ['snapshot delete web@nosuch', [EXIT.notFound], /nosuch/],
    ['snapshot rename web@nosuch other', [EXIT.notFound], /nosuch/],
    ['snapshot restore web@nosuch --discard', [EXIT.notFound], /nosuch/],
    ['clone nosuch other --linked', [EXIT.notFound], /nosuch/],
    ['clone web@nosuch other --full', [EXIT.notFound], /nosuch/],
  ],
  names: [
    ['create a/b --disk 1M', [EXIT.usage], /a\/b/],
    ['create .. --disk 1M', [EXIT.usage], /\.\./],
    ['create . --disk 1M', [EXIT.usage]],
    ['create ../../etc --disk 1M', [EXIT.usage], /etc/],
    ['create a@b --disk 1M', [EXIT.usage], /a@b/],
    ['create .hidden --disk 1M', [EXIT.usage], /hidden/],
    ['create ü --disk 1M', [EXIT.usage]],
    [`create ${LONG_NAME} --disk 1M`, [EXIT.usage]],
    ['create ok --disk ../x=1M', [EXIT.usage]],
    ['rename web ../other', [EXIT.usage], /other/],
    ['clone web a/b --linked', [EXIT.usage], /a\/b/],
    ['snapshot take web@a/b', [EXIT.usage], /a\/b/],
    ['snapshot take web@..', [EXIT.usage]],
    ['snapshot take web', [EXIT.usage], /web/],
    ['snapshot rename web@one a/b', [EXIT.usage], /a\/b/],
    ['path web/../used', [EXIT.usage]],
    ['info ../used', [EXIT.usage, EXIT.notFound]],
    ['import FOLDER/good.img ../x --format raw', [EXIT.usage]],
  ],
  sizes: [
    ['create vm --disk 0', [EXIT.usage], /0/],
    ['create vm --disk=-1', [EXIT.usage], /-1/],
    ['create vm --disk -1G', [EXIT.usage]],
    ['create vm --disk 1.5s', [EXIT.usage]],
    ['create vm --disk 511', [EXIT.usage], /511/],
    ['create vm --disk 513', [EXIT.usage], /513/],
    ['create vm --disk 100E', [EXIT.usage], /100E/],
    ['create vm --disk 65T', [EXIT.usage]],
    ['create vm --disk 1e400', [EXIT.usage]],
    ['create vm --disk much', [EXIT.usage], /much/],
    ['create vm --disk x=', [EXIT.usage]],
    ['create vm --disk 1M,allocation=both', [EXIT.usage], /both/],
    ['create vm --disk a=1M --disk a=2M', [EXIT.usage], /a/],
    ['create vm', [EXIT.usage], /disk/],
    ['create vm --disk 1M --vcpus 0', [EXIT.usage], /vcpus|CPU/i],
    ['create vm --disk 1M --vcpus two', [EXIT.usage], /two/],
    ['create vm --disk 1M --memory 0', [EXIT.usage], /memory/i],
    ['create vm --disk 1M --nic wire', [EXIT.usage], /wire/],
    ['create vm --disk 1M --nic nat,mac=1:2', [EXIT.usage], /1:2/],
    ['set web --vcpus 99999999', [EXIT.usage]],
  ],
  images: [
    ['import FOLDER/nosuch.img vm', [EXIT.notFound], /nosuch\.img/],
    ['import FOLDER/empty vm', [EXIT.failed, EXIT.usage], /empty/],
    ['import FOLDER/zero.img vm', [EXIT.damaged, EXIT.notSupported, EXIT.usage], /zero\.img/],
    ['import FOLDER/fifo vm', [EXIT.failed, EXIT.usage, EXIT.notSupported], /fifo/],
    ['import /dev/null vm', [EXIT.failed, EXIT.usage, EXIT.notSupported], /null/],
    ['import FOLDER/good.img vm --format ntfs', [EXIT.usage, EXIT.notSupported], /ntfs/],
    ['import FOLDER/good.img vm --format vdi', [EXIT.usage], /good\.img.*raw/],
    ['info FOLDER/good.img --format qcow2', [EXIT.usage], /good\.img.*raw/],
    ['map FOLDER/good.img --format vhdx', [EXIT.usage], /good\.img.*raw/],
    ['import FOLDER/header-cut.vdi vm', [EXIT.damaged], /header-cut\.vdi/],
    ['import FOLDER/header-bad.vdi vm', [EXIT.damaged, EXIT.notSupported], /header-bad\.vdi/],
    ['import FOLDER/archive.gz vm', [EXIT.notSupported, EXIT.damaged], /archive\.gz/],
    ['import FOLDER/good.img web', [EXIT.exists], /web/],
    ['import FOLDER/good.img', [EXIT.usage]],
    ['import FOLDER/good.img FOLDER/nosuch.img vm', [EXIT.notFound], /nosuch\.img/],
    ['import MOUNTPOINT/web/disk0.raw vm', [EXIT.usage, EXIT.notPermitted], /disk0\.raw/],
  ],
  conflicts: [
    ['create web --disk 1M', [EXIT.exists], /web/],
    ['rename used web', [EXIT.exists, EXIT.busy], /web|used/],
    ['clone web used --linked', [EXIT.exists], /used/],
    ['snapshot take web@one', [EXIT.exists], /one/],
    ['snapshot restore web@one --save-current one', [EXIT.exists], /one/],
    ['delete used', [EXIT.busy], /used/],
    ['snapshot restore used@one --discard', [EXIT.busy], /used/],
    ['snapshot restore web@one', [EXIT.usage]],
    ['snapshot restore web@one --discard --save-current', [EXIT.usage]],
    ['clone web other', [EXIT.usage], /linked|full/],
    ['clone web other --linked --full', [EXIT.usage], /linked|full/],
    ['clone web other --linked --mac mine', [EXIT.usage], /mine/],
  ],
  mounting: [
    ['mount web FOLDER/nosuch', [EXIT.notFound], /nosuch/],
    ['mount web FOLDER/good.img', [EXIT.failed, EXIT.usage], /good\.img/],
    ['mount web FOLDER/empty', [EXIT.failed, EXIT.notSupported, EXIT.notFound], /web/],
    ['mount web FOLDER/empty --partition 1', [EXIT.notFound, EXIT.failed], /1/],
    ['mount web FOLDER/empty --partition 0', [EXIT.usage], /0/],
    ['mount used MOUNTPOINT', [EXIT.busy, EXIT.usage], /mnt/],
  ],
  'the command line': [
    ['', [EXIT.usage]],
    ['frobnicate', [EXIT.usage], /frobnicate/],
    ['snapshot', [EXIT.usage]],
    ['snapshot frobnicate', [EXIT.usage], /frobnicate/],
    ['list --frobnicate', [EXIT.usage], /frobnicate/],
    ['create vm --disk 1M --frobnicate', [EXIT.usage], /frobnicate/],
    ['info', [EXIT.usage]],
    ['info web extra', [EXIT.usage], /extra/],
    ['delete', [EXIT.usage]],
    ['path web --disk', [EXIT.usage], /disk/],
  ],
};

async function prepare(daemon: TestDaemon): Promise<void> {
  const at = (name: string) => join(daemon.folder, name);
  await mkdir(at('empty'));
  await writeFile(at('zero.img'), '');
  await writeFile(at('good.img'), stampedPattern(1, 0, MiB));
  await tool('mkfifo', [at('fifo')]);
  await tool('gzip', ['-k', at('good.img')]);
  await tool('mv', [at('good.img.gz'), at('archive.gz')]);
  for (const name of ['header-cut.vdi', 'header-bad.vdi']) {
    await tool('qemu-img', ['convert', '-f', 'raw', '-O', 'vdi', at('good.img'), at(name)]);
  }
  await truncate(at('header-cut.vdi'), 300);
  const bad = await open(at('header-bad.vdi'), 'r+');
  // The version, at byte 68: 9.9 was never published.
  await bad.write(Buffer.from([9, 0, 9, 0]), 0, 4, 68).finally(() => bad.close());
  await daemon.ok('create', 'web', '--disk', '1M');
  await daemon.ok('snapshot', 'take', 'web@one');
  await daemon.ok('create', 'used', '--disk', '1M');
  await daemon.ok('snapshot', 'take', 'used@one');
  await daemon.ok('attach', 'used');
}

async function checkRow(t: Test, daemon: TestDaemon, [command, codes, about]: Row) {
  const place = (word: string) =>
    word.replace('FOLDER', daemon.folder).replace('MOUNTPOINT', daemon.mountpoint);
  const args = command.split(' ').filter((word) => word !== '');
  const before = await stateOf(daemon);
  const result = await daemon.quick(args.map(place));
  checkRefusal(t, result, codes, about);
  t.same(await stateOf(daemon), before, 'nothing changed');
}

t.test('wrong commands', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await prepare(daemon);
  for (const [group, rows] of Object.entries(ROWS)) {
    await t.test(group, async (t) => {
      for (const row of rows) await t.test(row[0], (t) => checkRow(t, daemon, row));
    });
  }
  await t.test('an empty name', async (t) => {
    checkRefusal(t, await daemon.cli(['info', '']), [EXIT.usage]);
    checkRefusal(t, await daemon.cli(['create', 'vm', '--disk', '']), [EXIT.usage]);
    checkRefusal(t, await daemon.cli(['create', 'a\nb', '--disk', '1M']), [EXIT.usage]);
    checkRefusal(t, await daemon.cli(['create', '\u001b[31mred', '--disk', '1M']), [EXIT.usage]);
  });
  await t.test('as JSON', async (t) => {
    const result = await daemon.cli(['info', 'nosuch', '--json']);
    t.match(result, { code: EXIT.notFound, stdout: '' });
    const { error } = JSON.parse(result.stderr) as { error: Record<string, string> };
    t.match(error, { code: 'not-found', message: /nosuch/, hint: /./ });
    t.same(Object.keys(error), ['code', 'message', 'hint']);
  });
});

t.test('no daemon', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.stop();
  for (const command of ['list', 'daemon status', 'daemon stop', 'create vm --disk 1M']) {
    const result = await daemon.quick(command.split(' '));
    checkRefusal(t, result, [EXIT.unreachable]);
    t.match(result.stderr, /hint: .*layerdisk daemon start/, 'says how to start one');
  }
  await writeFile(daemon.socket, 'not a socket');
  checkRefusal(t, await daemon.cli(['list']), [EXIT.unreachable], /control\.sock/);
});

/** User and group `nobody` of every Debian. */
const NOBODY = { uid: 65534, gid: 65534 };

t.test('a socket that belongs to somebody else', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await chmod(daemon.folder, 0o755);
  const result = await daemon.cli(['list'], { user: NOBODY });
  if (/Cannot find module|EACCES.*dist|permission denied/i.test(result.stderr)) {
    t.pass('nobody', { skip: 'this checkout may not be read by other users' });
    return;
  }
  checkRefusal(t, result, [EXIT.notPermitted], /control\.sock/);
  const own = join(daemon.folder, 'own');
  await mkdir(own);
  await tool('chown', [`${NOBODY.uid}:${NOBODY.gid}`, own]);
  const there = ['--store', join(own, 'store'), '--socket', daemon.socket];
  const start = await runCli(['daemon', 'start', ...there, '--mountpoint', join(own, 'mnt')], {
    user: NOBODY,
  });
  t.not(start.code, 0, 'a second daemon cannot take the socket over');
  t.equal(await daemon.ok('list', '-q'), '', 'the daemon is as well as before');
});

t.test('an image that the daemon may not read', { skip: cannotServe() }, async (t) => {
  // Root reads everything, but for what it was forbidden.
  const through = ['setpriv', '--bounding-set=-dac_override,-dac_read_search'];
  const daemon = await startDaemon(t, { through });
  const secret = join(daemon.folder, 'secret.img');
  await writeFile(secret, stampedPattern(1, 0, MiB), { mode: 0o600 });
  await tool('chown', [`${NOBODY.uid}:${NOBODY.gid}`, secret]);
  const before = await stateOf(daemon);
  checkRefusal(t, await daemon.cli(['import', secret, 'vm']), [EXIT.notPermitted], /secret\.img/);
  t.same(await stateOf(daemon), before, 'nothing changed');
});
