/**
 * Stores that are used as they should not be: by two daemons, as copies, on full and read-only
 * file systems, under a clock that went back, by a version that is too old for them.
 */
import { existsSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir, open, readFile, rename, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import type { CheckView } from '../../src/control/protocol.js';
import { prepareDaemon, StartRefused, startDaemon, type TestDaemon } from '../support/daemon.js';
import {
  checkContents,
  checkSaid,
  digestsOf,
  type GoldStore,
  makeGoldStore,
  onCopy,
  refusalOf,
  writeBoth,
} from '../support/gold-store.js';
import { cannotServe, scratchFileSystem } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram, tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-tree.js';

const skip = cannotServe();
const gold: Promise<GoldStore> = skip === false ? makeGoldStore(t) : Promise.reject(skip);
gold.catch(() => undefined);

/** Another daemon on the same store: own socket, own mount point. */
async function rivalOf(t: Test, daemon: TestDaemon): Promise<TestDaemon> {
  return prepareDaemon(t, { store: daemon.store });
}

t.test('two daemons on one store', { skip }, async (t) => {
  const first = await onCopy(t, await gold);
  await first.start();
  const rival = await rivalOf(t, first);
  const said = await refusalOf(rival);
  checkSaid(t, said, 'busy', new RegExp(`${first.store} is in use by process ${first.pid} `));
  t.match(said.hint, new RegExp(`kill ${first.pid}$`));
  rmSync(join(first.store, 'lock'));
  checkSaid(t, await refusalOf(rival), 'busy', /is in use/);
  await checkContents(t, first, await gold);
  for (let round = 0; round < 3; round += 1) {
    // The lock goes with the process: whoever comes a moment too early is refused, not let in.
    const killed = first.kill();
    for (;;) {
      try {
        await rival.start();
        break;
      } catch (error) {
        if (!(error instanceof StartRefused)) throw error;
        t.equal(error.code, 'busy', error.message);
      }
    }
    await killed;
    await checkContents(t, rival, await gold);
    await rival.stop();
    await tool('umount', ['-l', first.mountpoint]);
    await first.start();
  }
});

/** Ways to copy a folder with holes, or without them. */
const COPIERS: Readonly<Record<string, string>> = {
  'cp --sparse=always': 'cp -a --sparse=always "$1" "$2"',
  ...(process.env.LAYERDISK_LONG === '1'
    ? {
        'cp --sparse=never': 'cp -a --sparse=never "$1" "$2"',
        'rsync -S': 'rsync -aS "$1/" "$2"',
      }
    : {}),
  tar: 'mkdir -m 700 "$2" && tar -C "$1" -cS . | tar -C "$2" -xS',
};

t.test('copies of a store that is closed', { skip }, async (t) => {
  const { path } = await gold;
  for (const [name, script] of Object.entries(COPIERS)) {
    const daemon = await prepareDaemon(t);
    await tool('sh', ['-ec', script, name, path, daemon.store]);
    await daemon.start();
    await t.test(name, async (t) => checkContents(t, daemon, await gold));
    await daemon.stop();
  }
});

t.test('a copy of a store in use', { skip }, async (t) => {
  const original = await onCopy(t, await gold);
  await original.start();
  await original.ok('check');
  const copy = await onCopy(t, { path: original.store });
  // As if the data had been copied before the last writes, and the tuples after them.
  const data = await dataFileOf(copy, 'web');
  await truncate(data, 8192);
  const before = digestsOf(copy.store);
  const said = await refusalOf(copy);
  checkSaid(t, said, 'damaged', /copied while a daemon had it in use/);
  t.match(said.hint, /--accept-copy/);
  t.same(digestsOf(copy.store), before, 'nothing was touched');
  await original.stop();

  const taken = await prepareDaemon(t, { store: copy.store, args: ['--accept-copy'] });
  await taken.start();
  const result = await runProgram('cat', [taken.rawFile('web')]);
  t.match(result, { code: 1, stderr: /Input\/output error/ }, 'no zeroes for what is missing');
  t.match(taken.log, /web\/disk0\.raw cannot be opened: .*shorter than its tuples/);
  const check = await taken.cli(['check', '--json']);
  t.equal(check.code, EXIT.damaged);
  t.match(check.json<CheckView>().findings, [{ part: 'data', vm: 'web', seenBy: ['web/disk0'] }]);
  const { one } = await gold;
  t.equal(one.difference(await readFile(taken.rawFile('web', 'one'))), undefined);
  await taken.stop();
  const again = await prepareDaemon(t, { store: copy.store });
  await again.start();
  await again.stop();

  // What a dead daemon leaves is no copy, wherever it is moved.
  await original.start();
  await original.kill();
  await tool('umount', ['-l', original.mountpoint]);
  const moved = await prepareDaemon(t);
  await rename(original.store, moved.store);
  await moved.start();
  await checkContents(t, moved, await gold);
});

/** The data file of a VM's present head. */
async function dataFileOf(daemon: TestDaemon, vm: string): Promise<string> {
  const manifest = await readFile(join(daemon.store, 'vms', `${vm}.json`), 'utf8');
  const { disks } = JSON.parse(manifest) as { disks: { head: string }[] };
  return join(daemon.store, 'deltas', `${disks[0]!.head}.1.data`);
}

/** Takes all the space there is. */
async function fill(folder: string): Promise<string> {
  const path = join(folder, 'ballast');
  for (const size of ['1M', '4k', '1k']) {
    const dd = [`if=/dev/zero`, `of=${path}`, `bs=${size}`, 'oflag=append', 'conv=notrunc'];
    t.match(await runProgram('dd', dd), { stderr: /No space left/ });
  }
  return path;
}

t.test('a store on a full file system', { skip }, async (t) => {
  const on = await scratchFileSystem(t, await tempFolder(t, 'full'), 32 * MiB);
  const daemon = await prepareDaemon(t, { store: join(on, 'store') });
  await tool('cp', ['-a', (await gold).path, daemon.store]);
  await daemon.start();
  await daemon.ok('snapshot', 'take', 'web@two');
  await daemon.stop();
  const ballast = await fill(on);
  await daemon.start();
  t.match(await daemon.ok('list'), /other[\s\S]*web/);
  await checkContents(t, daemon, await gold);
  checkRefusal(
    t,
    await daemon.cli(['create', 'new', '--disk', '1M']),
    [EXIT.failed],
    /needs .* free/,
  );
  await fill(on);
  await daemon.ok('snapshot', 'delete', 'web@two');
  await daemon.ok('delete', 'other');
  await daemon.ok('check');
  await daemon.stop();
  await daemon.start();
  t.equal(await daemon.ok('list', '-q'), 'web');
  await checkContents(t, daemon, await gold);
  rmSync(ballast);
  await daemon.ok('create', 'other', '--disk', '1M');
});

t.test('a store on a read-only file system', { skip }, async (t) => {
  const on = await scratchFileSystem(t, await tempFolder(t, 'read-only'), 32 * MiB);
  const daemon = await prepareDaemon(t, { store: join(on, 'store') });
  await tool('cp', ['-a', (await gold).path, daemon.store]);
  await tool('mount', ['-o', 'remount,ro', on]);
  const before = digestsOf(daemon.store);
  checkSaid(t, await refusalOf(daemon), 'not-permitted', /store\/lock \(EROFS\)/);
  const places = ['--store', daemon.store, '--socket', daemon.socket];
  const start = await daemon.cli(['daemon', 'start', ...places]);
  checkRefusal(t, start, [EXIT.notPermitted], /daemon\.log.*EROFS/);
  t.match(start.stderr, /hint: its file system is read-only/);
  t.same(digestsOf(daemon.store), before);
  await tool('mount', ['-o', 'remount,rw', on]);
  await daemon.start();
  const { web } = await gold;
  const opened = await open(daemon.rawFile('web'), 'r');
  t.teardown(() => opened.close());
  // What ext4 does by itself after an error.
  await tool('mount', ['-o', 'remount,abort', on]);
  t.equal(web.difference(await opened.readFile()), undefined, 'what is open can be read');
  t.match(await daemon.ok('list'), /other[\s\S]*web/);
  const take = await daemon.cli(['snapshot', 'take', 'web@two']);
  checkRefusal(t, take, [EXIT.failed, EXIT.notPermitted], /EROFS/);
  const create = await daemon.cli(['create', 'new', '--disk', '1M']);
  checkRefusal(t, create, [EXIT.failed], /EROFS/);
  t.match(create.stderr, /hint: .*remount it/);
  await opened.close();
  await daemon.stop();
});

t.test('no restart on a file system that became read-only', { skip }, async (t) => {
  const on = await scratchFileSystem(t, await tempFolder(t, 'read-only'), 32 * MiB);
  const daemon = await startDaemon(t, { store: join(on, 'store'), supervise: true });
  await daemon.ok('create', 'web', '--disk', '1M');
  const opened = await open(daemon.rawFile('web'), 'r');
  t.teardown(() => opened.close());
  await tool('mount', ['-o', 'remount,abort', on]);
  const restart = await daemon.cli(['daemon', 'restart']);
  checkRefusal(t, restart, [EXIT.failed], /would not start: .*store takes no writes/);
  t.equal((await opened.readFile()).length, MiB, 'the running daemon serves its disks');
  await opened.close();
  await daemon.stop();
});

t.test('a clock that was set back', { skip }, async (t) => {
  const daemon = await onCopy(t, await gold);
  const base = join(daemon.folder, 'base.raw');
  writeFileSync(base, Buffer.alloc(MiB, 7));
  await tool('touch', ['-d', '2099-01-01', base]);
  await tool('find', [daemon.store, '-exec', 'touch', '-d', '2099-01-01', '{}', '+']);
  const manifest = join(daemon.store, 'vms', 'web.json');
  const text = readFileSync(manifest, 'utf8').replace(/"checksum".*\n/, '');
  const later = text.replace(/"created": "20\d\d/g, '"created": "2099').replace(/,\s*}\s*$/, '}');
  writeFileSync(manifest, later);
  await daemon.start();
  await daemon.ok('import', base, 'imported');
  await daemon.ok('snapshot', 'take', 'web@two');
  await daemon.ok('snapshot', 'delete', 'web@two');
  await daemon.ok('gc');
  await checkContents(t, daemon, await gold);
  await daemon.stop();

  const has = (await runProgram('sh', ['-c', 'command -v faketime'])).code === 0;
  const through = has ? ['env', 'FAKETIME_DONT_FAKE_MONOTONIC=1', 'faketime', '-f', '-3000d'] : [];
  t.comment(has ? 'ten years back' : 'no faketime here: the clock stays');
  const back = await prepareDaemon(t, { store: daemon.store, through });
  await back.start();
  await checkContents(t, back, await gold);
  await writeBoth(back, (await gold).web, { generation: 3, offset: 0, length: 4096 });
  await back.ok('snapshot', 'take', 'web@three');
  await back.ok('snapshot', 'restore', 'web@three', '--discard');
  await back.ok('snapshot', 'delete', 'web@three');
  await back.ok('check', '--deep');
  t.equal(
    readFileSync(await back.ok('path', 'imported')).every((byte) => byte === 7),
    true,
  );
  const { pid } = back;
  await back.stop();
  // What faketime leaves behind.
  for (const name of [`faketime_shm_${pid}`, `sem.faketime_sem_${pid}`]) {
    rmSync(join('/dev/shm', name), { force: true });
  }
});

/** Lets both copies of a delta's header be of a later version. */
async function makeNewer(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const header = Buffer.alloc(512);
    for (const offset of [0, 4096]) {
      await file.read(header, 0, header.length, offset);
      header.writeUInt32LE(2, 8);
      header.writeUInt32LE(crc32(header.subarray(0, 508)), 508);
      await file.write(header, 0, header.length, offset);
    }
  } finally {
    await file.close();
  }
}

function newerText(path: string): void {
  const text = readFileSync(path, 'utf8').replace('"version": 1', '"version": 2');
  writeFileSync(path, text.replace(/,\s*"checksum": "[^"]*"/, ''));
}

t.test('a store of a newer version', { skip }, async (t) => {
  const whole = await onCopy(t, await gold);
  newerText(join(whole.store, 'store.json'));
  const files = digestsOf(whole.store);
  const lock = readFileSync(join(whole.store, 'lock'));
  checkSaid(t, await refusalOf(whole), 'not-supported', /store .* has version 2/);
  t.same(digestsOf(whole.store), files);
  t.same(readFileSync(join(whole.store, 'lock')), lock, 'not even the lock');

  const parts = await onCopy(t, await gold);
  const manifest = join(parts.store, 'vms', 'other.json');
  newerText(manifest);
  const head = (await dataFileOf(parts, 'web')).replace('.1.data', '.tuples');
  await makeNewer(head);
  const before = [manifest, `${manifest}.copy`, head].map((path) => readFileSync(path));
  await parts.start();
  t.match(await parts.ok('list'), /other: cannot be used: .*has version 2/);
  checkRefusal(t, await parts.cli(['info', 'other']), [EXIT.notSupported], /"other".*version 2/);
  checkRefusal(t, await parts.cli(['info', 'web']), [EXIT.notSupported], /\.tuples.*version 2/);
  checkRefusal(t, await parts.cli(['delete', 'other']), [EXIT.notSupported], /version 2/);
  checkRefusal(t, await parts.cli(['gc']), [EXIT.damaged, EXIT.notSupported], /other/);
  t.equal((await runProgram('cat', [parts.rawFile('web')])).code, 1);
  const { one } = await gold;
  t.equal(one.difference(await readFile(parts.rawFile('web', 'one'))), undefined);
  const check = await parts.cli(['check', '--repair', '--json']);
  t.equal(check.code, EXIT.damaged);
  const remedies = check.json<CheckView>().findings.map(({ remedy }) => remedy);
  t.match(remedies, [/use the newer layerdisk/, /upgrade layerdisk/]);
  // Longer than the collection at the start waits.
  await delay(3000);
  await parts.stop();
  t.same(
    [manifest, `${manifest}.copy`, head].map((path) => readFileSync(path)),
    before,
  );
  t.ok(existsSync(head));
});

t.test('folders that belong to others', { skip }, async (t) => {
  const daemon = await onCopy(t, await gold);
  const folder = join(daemon.folder, 'theirs');
  await mkdir(folder, { mode: 0o755 });
  await tool('chown', ['65534', folder]);
  const other = await prepareDaemon(t, { store: daemon.store, socket: join(folder, 's') });
  checkSaid(t, await refusalOf(other), 'not-permitted', /theirs belongs to another user/);
  await tool('chown', ['65534', daemon.store]);
  const places = ['--store', daemon.store, '--socket', daemon.socket];
  const precious = join(daemon.folder, 'precious');
  writeFileSync(precious, 'precious');
  // What the folder's owner might have waiting there.
  for (const name of ['lock', 'daemon.log']) {
    rmSync(join(daemon.store, name), { force: true });
    symlinkSync(precious, join(daemon.store, name));
  }
  checkSaid(t, await refusalOf(daemon), 'not-permitted', /store belongs to another user.* a store/);
  const start = await daemon.cli(['daemon', 'start', ...places]);
  checkRefusal(t, start, [EXIT.notPermitted], /store belongs to another user/);
  await tool('chown', ['0', daemon.store]);
  for (const mode of ['777', '1777']) {
    await tool('chmod', [mode, daemon.store]);
    checkSaid(t, await refusalOf(daemon), 'not-permitted', /store may be written by everyone/);
  }
  t.equal(readFileSync(precious, 'utf8'), 'precious', 'nothing was written through a link');
});
