/** `snapshot diff`: parts of the daemon's answer become one, shown in three ways. */
import t from 'tap';
import { recordingHandlers } from '../control/recording-handlers.js';
import { serve, temporaryFolder } from '../control/socket-fixture.js';
import { runBatch, runCli } from './run-cli.js';

const MiB = 2 ** 20;

t.test('asked for part by part, shown as one', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const words = ['--socket', path, 'snapshot', 'diff', 'web@clean'];
  const lines = [
    [...words, 'web@later', '--disk', 'disk0'],
    [...words, 'web', '--json'],
    [...words, '-q'],
  ];
  const [human, json, names] = await runBatch(lines, temporaryFolder(t));
  t.equal(
    human?.stdout,
    [
      'disk0:',
      'Offset          Length          Reads as',
      '0x1000          0x2000          data',
      '0x100000        0x100000        zeroes',
      'disk0: 1 MiB in web@clean, 2 MiB in web@later',
      'disk0: 1.0 MiB of 2 MiB in 2 ranges',
      'same: no difference',
      'gone: only in web@clean, 4 KiB',
      'scratch: only in web@later, 8 KiB',
      '',
    ].join('\n'),
  );
  t.strictSame(JSON.parse(json?.stdout ?? ''), {
    vm: 'web',
    from: 'clean',
    disks: [
      {
        ...{ disk: 'disk0', fromSize: MiB, toSize: 2 * MiB },
        extents: [
          { start: 4096, length: 8192, zero: false },
          { start: MiB, length: MiB, zero: true },
        ],
        changedBytes: 8192 + MiB,
      },
      { disk: 'same', fromSize: 4096, toSize: 4096, extents: [], changedBytes: 0 },
      { disk: 'gone', fromSize: 4096, extents: [], changedBytes: 4096 },
      { disk: 'scratch', toSize: 8192, extents: [], changedBytes: 8192 },
    ],
  });
  t.equal(names?.stdout, 'disk0\ngone\nscratch\n');
  const asked = { vm: 'web', from: 'clean' };
  const next = { disk: 'disk0', start: 8192 };
  t.strictSame(
    calls.map(({ params }) => params),
    [
      { ...asked, to: 'later', disk: 'disk0' },
      { ...asked, to: 'later', disk: 'disk0', next },
      asked,
      { ...asked, next },
      asked,
      { ...asked, next },
    ],
  );
});

t.test('what is no pair of states of one VM is refused', async (t) => {
  const lines = [
    ['snapshot', 'diff', 'web'],
    ['snapshot', 'diff', 'web@a', 'db@a'],
    ['snapshot', 'diff', 'web@a', 'web@'],
    ['snapshot', 'diff', 'web@a', 'web@b', 'web@c'],
    ['snapshot', 'diff', 'web@a', '--disk', 'a/b'],
  ];
  const results = await runBatch(lines, temporaryFolder(t));
  t.strictSame(
    results.map(({ code, stdout }) => ({ code, stdout })),
    lines.map(() => ({ code: 2, stdout: '' })),
  );
  t.match(results[0]?.stderr, /names no snapshot/);
  t.match(results[1]?.stderr, /"web" and "db" are two VMs\nhint: .*web@NAME/);
});

t.test('ctrl-C cancels the comparison', async (t) => {
  let wasCancelled = false;
  const { handlers } = recordingHandlers({
    'snapshot.diff': (_, { signal, progress }) => {
      progress('comparing web', MiB, 2 * MiB);
      return new Promise((_done, fail) => {
        signal.addEventListener('abort', () => {
          wasCancelled = true;
          fail(signal.reason);
        });
      });
    },
  });
  const { path } = await serve(t, handlers);
  let asked = false;
  const words = ['--socket', path, '--progress', 'plain', 'snapshot', 'diff', 'web@a', '--json'];
  const result = await runCli(words, {
    onStderr: (text, kill) => {
      if (asked || !text.includes('comparing web: 50 %')) return;
      asked = true;
      kill('SIGINT');
    },
  });
  t.match(result, { code: 130, stdout: '' });
  t.ok(wasCancelled);
});
