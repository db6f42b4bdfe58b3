/** `stats --watch`: looks a second apart, rates in between, and all the ways in which it ends. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import t from 'tap';
import { type WatchedStats, withRates } from '../../src/cli/stats-watch.js';
import { DiskError } from '../../src/common/errors.js';
import type { IoStats, StatsView } from '../../src/control/protocol.js';
import { recordingHandlers, SPACE } from '../control/recording-handlers.js';
import { serve, temporaryFolder } from '../control/socket-fixture.js';
import { CLI, runBatch, runCli } from './run-cli.js';

const run = promisify(execFile);

function io(count: number): IoStats {
  const bytes = { readBytes: 4096 * count, writtenBytes: 8192 * count };
  return { reads: count, writes: 2 * count, flushes: count, discards: 0, ...bytes };
}

function stats(uptimeSeconds: number, count: number, ofDisk: number): StatsView {
  return {
    ...{ uptimeSeconds, rssBytes: 2 ** 26, indexBytes: 2 ** 20, openDisks: 1 },
    ...{ storeBytes: 2 ** 30, storeFreeBytes: 2 ** 34, space: SPACE },
    io: io(count),
    vms: [{ name: 'web', disk: 'disk0', io: io(ofDisk) }],
  };
}

/** A daemon that reads ten times a second. */
function busyHandlers(onLook: (look: number) => void = () => undefined) {
  let look = 0;
  return recordingHandlers({
    stats: async () => {
      look += 1;
      onLook(look);
      return stats(look, 10 * look, 10 * look);
    },
  });
}

t.test('rates are by the clock of the daemon', async (t) => {
  const first = stats(100, 40, 7);
  t.equal(withRates(first, undefined), first);
  const second = withRates(stats(102, 60, 11), first);
  t.strictSame(second.perSecond, io(10));
  t.strictSame(second.vms?.[0]?.perSecond, io(2));
  const opened = withRates(stats(104, 60, 4), stats(102, 60, 11));
  t.strictSame(opened.vms?.[0]?.perSecond, io(2), 'a disk that was opened anew');
  t.strictSame(opened.perSecond, io(0));
  const restarted = stats(1, 5, 5);
  t.equal(withRates(restarted, first), restarted, 'another daemon');
});

t.test('a document a line, and ctrl-C', async (t) => {
  let kill: (signal: 'SIGINT') => void = () => undefined;
  const { handlers, calls } = busyHandlers((look) => {
    // While it waits for the next one.
    if (look === 3) setTimeout(() => kill('SIGINT'), 300);
  });
  const { path } = await serve(t, handlers);
  const words = [CLI, '--socket', path, 'stats', 'web', '--watch', '--json'];
  const running = run('env', ['-u', 'NODE_OPTIONS', process.execPath, ...words]);
  kill = (signal) => running.child.kill(signal);
  const end = await running.catch((error: unknown) => error as { code: number; stdout: string });
  t.match(end, { code: 130, stderr: /^\{"error":\{"code":"interrupted",.*\n$/ });
  const looks = end.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as WatchedStats);
  t.strictSame(
    looks.map(({ perSecond }) => perSecond),
    [undefined, io(10), io(10)],
  );
  t.match(looks[2]?.vms, [{ name: 'web', disk: 'disk0', io: io(30), perSecond: io(10) }]);
  t.strictSame(calls[0]?.params, { vm: 'web' });
});

t.test('a reader that leaves', async (t) => {
  const { path } = await serve(t, busyHandlers().handlers);
  const words = `${process.execPath} ${CLI} --socket ${path} stats --watch`;
  const script = `unset NODE_OPTIONS; { ${words}; echo "exit $?" >&2; } | grep -m 1 ' 20 '`;
  const { stdout, stderr } = await run('sh', ['-c', script]);
  t.match(stdout, /^web\/disk0 +10 +40 KiB +20 +80 KiB +10 +0\n$/);
  t.equal(stderr, 'exit 0\n');
});

t.test('a daemon that goes, and -q', async (t) => {
  const { handlers } = recordingHandlers({
    stats: async () => {
      throw new DiskError('unreachable', 'the daemon went');
    },
  });
  const { path } = await serve(t, handlers);
  t.match(await runCli(['--socket', path, 'stats', '--watch']), { code: 3, stdout: '' });
  const [quiet] = await runBatch([['stats', '--watch', '-q']], temporaryFolder(t));
  t.match(quiet, { code: 2, stdout: '', stderr: /--watch does not go with -q/ });
});
