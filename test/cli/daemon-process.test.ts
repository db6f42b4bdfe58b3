/**
 * Starting and stopping a daemon process: a script takes its place and keeps to the agreed line.
 */
import { spawn } from 'node:child_process';
import { existsSync, openSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { daemonArguments, startInBackground, waitForExit } from '../../src/cli/daemon-process.js';
import { holdersOf } from '../../src/cli/holders.js';
import { DiskError } from '../../src/common/errors.js';
import { recordingHandlers, STATUS } from '../control/recording-handlers.js';
import { serve, temporaryFolder } from '../control/socket-fixture.js';
import { runCli } from './run-cli.js';

/** Writes a program that runs `body` as the daemon would run: its arguments are in `argv`. */
function daemonScript(t: Test, body: string): { program: string; store: string } {
  const folder = temporaryFolder(t);
  const program = join(folder, 'daemon.mjs');
  const head =
    "import { writeSync, writeFileSync } from 'node:fs'; const argv = process.argv.slice(2);";
  writeFileSync(program, `${head}\n${body}\n`);
  return { program, store: join(folder, 'new', 'store') };
}

const placesIn = (store: string) => ({ store, socket: `${store}/s`, mountpoint: `${store}/mnt` });

t.test('the arguments say everything', async (t) => {
  t.same(daemonArguments({ ...placesIn('/s') }), [
    ...['--store', '/s', '--socket', '/s/s', '--mountpoint', '/s/mnt'],
  ]);
  const flags = { allowOther: true, verifyReads: true, supervise: false };
  const all = { transport: 'kernel', threads: 3, reserve: 1024, onFull: 'pause', ...flags };
  t.same(daemonArguments({ ...placesIn('/s'), ...all }).slice(6), [
    ...['--transport', 'kernel', '--threads', '3'],
    ...['--allow-other', '--verify-reads', '--reserve', '1024'],
    ...['--on-full', 'pause', '--no-supervise'],
  ]);
});

t.test('a daemon that gets ready goes on when its starter is done', async (t) => {
  const { program, store } = daemonScript(
    t,
    `const store = argv[1];
     process.stderr.write('log line\\n');
     writeFileSync(store + '/pid', JSON.stringify({ pid: process.pid, argv, cwd: process.cwd() }));
     writeSync(Number(argv[argv.indexOf('--ready-fd') + 1]), '{"ready":true}\\n');
     setInterval(() => {}, 1000);`,
  );
  await startInBackground(program, placesIn(store));
  const seen = JSON.parse(readFileSync(join(store, 'pid'), 'utf8')) as {
    pid: number;
    argv: string[];
    cwd: string;
  };
  t.equal(await waitForExit(seen.pid, 0), false, 'it runs');
  t.equal(seen.cwd, '/');
  t.same(seen.argv.slice(-2), ['--ready-fd', '3']);
  t.equal(readFileSync(join(store, 'daemon.log'), 'utf8'), 'log line\n');
  process.kill(seen.pid, 'SIGTERM');
  t.equal(await waitForExit(seen.pid, 20_000), true, 'it is gone');
});

t.test('a dead process that nobody reaps is gone', async (t) => {
  // The shell becomes a program that never asks how its child ended.
  const script = 'sleep 1000 & echo $!; exec sleep 1000';
  const parent = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  t.teardown(() => parent.kill('SIGKILL'));
  const pid = await new Promise<number>((resolve) => {
    parent.stdout.once('data', (chunk: Buffer) => resolve(Number(chunk.toString())));
  });
  while (readFileSync(`/proc/${parent.pid}/comm`, 'utf8') !== 'sleep\n') await setImmediate();
  t.equal(await waitForExit(pid, 0), false, 'it runs');
  process.kill(pid, 'SIGKILL');
  t.equal(await waitForExit(pid, 20_000), true);
  t.ok(existsSync(`/proc/${pid}`), 'its entry is there');
});

t.test('a daemon that fails says why', async (t) => {
  const error = JSON.stringify({
    error: new DiskError('busy', 'store is locked', { hint: 'stop the other one' }),
  });
  const said = daemonScript(t, `writeSync(3, ${JSON.stringify(`${error}\n`)}); process.exit(6);`);
  await t.rejects(startInBackground(said.program, placesIn(said.store)), {
    code: 'busy',
    message: 'store is locked',
    hint: 'stop the other one',
  });
  const silent = daemonScript(t, 'process.exit(4);');
  await t.rejects(startInBackground(silent.program, placesIn(silent.store)), {
    code: 'failed',
    message: 'the daemon ended before it was ready (exit code 4)',
    hint: /daemon\.log$/,
  });
  const killed = daemonScript(t, "process.kill(process.pid, 'SIGKILL');");
  await t.rejects(startInBackground(killed.program, placesIn(killed.store)), {
    message: /\(SIGKILL\)/,
  });
  for (const line of ['nonsense', '{"ready":false}', '{"error":{"code":"x"}}', '{"error":null}']) {
    const odd = daemonScript(t, `writeSync(3, ${JSON.stringify(`${line}\n`)});`);
    await t.rejects(startInBackground(odd.program, placesIn(odd.store)), {
      code: 'failed',
      message: 'the daemon did not say whether it is ready',
    });
  }
});

t.test('ctrl-C while it starts leaves no daemon behind', async (t) => {
  const { program, store } = daemonScript(
    t,
    `writeFileSync(argv[1] + '/pid', String(process.pid));
     process.kill(Number(process.env.LAYERDISK_TEST_STARTER), 'SIGINT');
     setInterval(() => {}, 1000);`,
  );
  process.env.LAYERDISK_TEST_STARTER = String(process.pid);
  t.teardown(() => {
    delete process.env.LAYERDISK_TEST_STARTER;
  });
  await t.rejects(startInBackground(program, placesIn(store)), { code: 'interrupted' });
  const pid = Number(readFileSync(join(store, 'pid'), 'utf8'));
  t.equal(await waitForExit(pid, 20_000), true);
});

t.test('a store that cannot be made', async (t) => {
  const { program } = daemonScript(t, '');
  await t.rejects(startInBackground(program, placesIn(join(program, 'store'))), {
    code: 'failed',
    message: /store\/daemon\.log.*ENOTDIR/,
    hint: /in the way/,
  });
});

t.test('start refuses where a daemon answers already', async (t) => {
  const { handlers } = recordingHandlers();
  const { path, folder } = await serve(t, handlers);
  const result = await runCli(['daemon', 'start', '--store', folder, '--socket', path]);
  t.equal(result.code, 5);
  t.match(result.stderr, /a daemon \(pid 4000000\) already serves \/store\nhint: /);
  t.notOk(existsSync(join(folder, 'daemon.log')));
});

t.test('stop waits for the process, and says who is in the way', async (t) => {
  const child = spawn('sleep', ['600'], { stdio: 'ignore' });
  const ended = new Promise((done) => child.once('exit', done));
  const { handlers, calls } = recordingHandlers({
    'daemon.status': async () => ({ ...STATUS, pid: child.pid }),
    'daemon.stop': async () => {
      setTimeout(() => child.kill(), 100);
      return {};
    },
  });
  const { path } = await serve(t, handlers);
  const result = await runCli(['daemon', 'stop', '--socket', path]);
  t.equal(result.stdout, `stopped the daemon (pid ${child.pid})\n`);
  t.equal(result.code, 0);
  await ended;
  t.same(
    calls.map((call) => call.method),
    ['daemon.status', 'daemon.stop'],
  );
});

t.test('holders of a mount are named', async (t) => {
  const folder = realpathSync(temporaryFolder(t));
  const file = join(folder, 'disk0.raw');
  writeFileSync(file, '');
  t.same(holdersOf(folder), []);
  const child = spawn('sleep', ['600'], { stdio: [openSync(file, 'r'), 'ignore', 'ignore'] });
  t.teardown(() => child.kill());
  const held = `sleep (pid ${child.pid}): ${file}`;
  t.ok(holdersOf(folder).includes(held), 'in whatever order');
  t.same(holdersOf(join(folder, 'disk0')), [], 'not by a common beginning of the name');

  const { handlers } = recordingHandlers({
    'daemon.status': async () => ({ ...STATUS, mountpoint: folder }),
    'daemon.stop': async () => {
      throw new DiskError('busy', '1 disk is open');
    },
  });
  const { path } = await serve(t, handlers);
  const result = await runCli(['daemon', 'stop', '--socket', path]);
  t.equal(result.code, 6);
  t.match(result.stderr, `layerdisk: 1 disk is open; ${folder} is held by `);
  t.match(result.stderr, held);
});
