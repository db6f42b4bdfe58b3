/**
 * `layerdisk check` on a store in use, its exit codes, and checksums across the death of a daemon.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import type { CheckView, GcView } from '../../src/control/protocol.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { runProgram, tool } from '../support/run-program.js';

const SIZE = 16 * MiB;

/** Waits; the time limit of the test run ends a wait in vain. */
async function until(isDone: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isDone())) await delay(100);
}

function filesOf(daemon: TestDaemon, ending: string): string[] {
  const folder = join(daemon.store, 'deltas');
  return readdirSync(folder)
    .filter((name) => name.endsWith(ending))
    .map((name) => join(folder, name));
}

async function fill(daemon: TestDaemon, vm: string, value: string): Promise<void> {
  const raw = await daemon.ok('path', vm);
  const script = `head -c ${SIZE} /dev/zero | tr '\\0' '${value}' > "$0" && sync "$0"`;
  await tool('sh', ['-c', script, raw]);
}

function flip(path: string, offset: number): () => void {
  const whole = readFileSync(path);
  const spoilt = Buffer.from(whole);
  spoilt[offset]! ^= 16;
  writeFileSync(path, spoilt);
  return () => writeFileSync(path, whole);
}

t.test('damage and leaks, by exit code', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t, { args: ['--verify-reads'] });
  await daemon.ok('create', 'web', '--disk', String(SIZE));
  await fill(daemon, 'web', 'a');
  await daemon.ok('snapshot', 'take', 'web@first');
  await daemon.ok('clone', 'web@first', 'fork', '--linked');
  await until(() => filesOf(daemon, '.sums').length === 1);
  const clean = await daemon.cli(['check', '--deep', '--progress', 'plain']);
  t.equal(clean.code, 0, clean.stderr);
  t.match(clean.stdout, /^checked 2 VMs, 3 deltas; read 16/);
  t.match(clean.stderr, /checking the store/, 'tells how far it is');

  const [sums = ''] = filesOf(daemon, '.sums');
  const undo = flip(sums.replace('.sums', '.1.data'), 5 * 4096 + 1);
  t.equal((await daemon.cli(['check'])).code, 0, 'the structure is whole');
  const damaged = await daemon.cli(['check', '--deep', '--json']);
  t.equal(damaged.code, 7);
  t.match(JSON.parse(damaged.stderr), { error: { code: 'damaged' } });
  t.match(damaged.json<CheckView>(), {
    damaged: 1,
    findings: [
      {
        ...{ kind: 'damage', part: 'data', vm: 'web', disk: 'disk0', block: 5, blocks: 1 },
        seenBy: ['web/disk0', 'web@first/disk0', 'fork/disk0'],
      },
    ],
  });
  const read = (block: number) =>
    runProgram('dd', [
      ...[`if=${daemon.rawFile('web', 'first')}`, 'of=/dev/null', 'iflag=direct'],
      ...['bs=4096', 'count=1', `skip=${block}`, 'status=none'],
    ]);
  t.match(await read(5), { code: 1, stderr: /Input\/output error/ }, 'refused by --verify-reads');
  t.match(await read(6), { code: 0 }, 'the next block is not');
  t.match(daemon.log, /slot 5 is not what was sealed: its readers get EIO/);
  const told = await daemon.cli(['check', '--deep', '--repair']);
  t.equal(told.code, 7, 'what cannot be repaired stays damage');
  t.match(told.stdout, /seen by web\/disk0, web@first\/disk0, fork\/disk0\n {2}to do: restore/);
  undo();

  const stray = join(daemon.store, 'deltas', `${'0'.repeat(32)}.tuples`);
  writeFileSync(stray, 'x');
  // While a collection is due anyway, nothing is called a leak.
  await until(async () => !existsSync(stray) || (await daemon.cli(['check'])).code !== 0);
  writeFileSync(stray, 'x');
  const leaks = await daemon.cli(['check', '--json']);
  t.equal(leaks.code, 8, leaks.stderr);
  const garbage = await daemon.json<GcView>('gc', '--dry-run');
  t.match(garbage.files, [/^deltas\//], 'relative to the store, as all that gc and check name');
  t.equal((await daemon.cli(['check', '--repair'])).code, 0);
  t.notOk(existsSync(stray));
  t.equal((await daemon.cli(['check', 'nobody'])).code, 4);
});

t.test('a daemon that dies while it sums', { skip: cannotServe() }, async (t) => {
  const daemon = await startDaemon(t);
  await daemon.ok('create', 'web', '--disk', String(SIZE));
  for (const value of ['a', 'b', 'c', 'd']) {
    await fill(daemon, 'web', value);
    await daemon.ok('snapshot', 'take', `web@${value}`);
  }
  await until(() => readdirSync(join(daemon.store, 'deltas')).some((name) => /sums/.test(name)));
  await daemon.kill();
  await daemon.start();
  const early = await daemon.cli(['check', '--deep', '--json']);
  t.match([early.code, early.json<CheckView>().findings], [0, []], early.stderr);
  await until(() => filesOf(daemon, '.sums').length === 4);
  const late = await daemon.json<CheckView>('check', '--deep');
  t.match(late, { notSummed: 0, findings: [], damaged: 0 });
  t.same(filesOf(daemon, '.sums.new'), []);
});
