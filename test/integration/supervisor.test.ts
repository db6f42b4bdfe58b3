/**
 * What the supervisor does about daemons that die, and what happens without it: crashes of threads,
 * faults at start, a supervisor that is killed, restarts, kernels that cannot send requests again.
 */
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { errnoName } from '../../src/common/errors.js';
import { change, daemonOfCopy } from '../support/copied-program.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { mapForWriting } from '../support/memory-map.mjs';
import { mountsBelow } from '../support/mount-guard.js';
import { elsewhere } from '../support/mount-namespace.js';
import { checkPrefix, readNumbers, startWriter } from '../support/numbered-writer.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { cleanEnvironment, runProgram, tool } from '../support/run-program.js';
import {
  ask,
  askOnce,
  cannotTakeOver,
  eventually,
  spareWaits,
  successor,
} from '../support/takeover.js';

/** A mount that nobody serves would hold a test up for ever: what the daemon said is told then. */
const limits = { skip: cannotTakeOver(), timeout: 240_000 };

/** Threads of a process that the kernel has waiting there. */
function threadsIn(pid: number, place: RegExp): string[] {
  const folder = `/proc/${pid}/task`;
  return readdirSync(folder).filter((task) => {
    try {
      return place.test(readFileSync(`${folder}/${task}/wchan`, 'utf8'));
    } catch {
      return false;
    }
  });
}

/** Runs strace on threads that run already; resolves when it has them. */
async function strace(
  t: Test,
  options: readonly string[],
): Promise<(signal?: NodeJS.Signals) => Promise<void>> {
  const child = spawn('env', ['-u', 'NODE_OPTIONS', 'strace', ...options], {
    env: cleanEnvironment(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const stop = async (signal: NodeJS.Signals = 'SIGINT'): Promise<void> => {
    child.kill(signal);
    await ended;
  };
  t.teardown(() => stop());
  await eventually('strace', () => (/attached/.test(said) ? true : undefined));
  return stop;
}

async function checkNothingLeft(t: Test, daemon: TestDaemon): Promise<void> {
  t.same(mountsBelow(daemon.folder), [], 'nothing stays mounted');
  // A spare that still loads its program notices only then that nobody needs it.
  const left = await eventually('no process', async () => {
    const { stdout } = await runProgram('pgrep', ['-f', daemon.store]);
    return stdout === '' ? stdout : undefined;
  });
  t.equal(left, '', 'and no process stays');
}

/** Whether none of its threads goes before those of others any more. */
function takesItsTurn(pid: number): boolean {
  const threads = readdirSync(`/proc/${pid}/task`).map(Number);
  const session = `/proc/${pid}/autogroup`;
  const sessions = existsSync(session) ? readFileSync(session, 'utf8') : 'nice 0';
  return (
    threads.every((thread) => getPriority(thread) === getPriority()) && /nice 0/.test(sessions)
  );
}

t.test('a thread that fails ends the process, and the next one goes on', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await daemon.ok('create', 'vm', '--disk', 'a=4M');
  const files = [daemon.rawFile('vm', undefined, 'a')];
  const writer = await startWriter(t, 'direct', files);
  const former = daemon.servingPid;
  const [thread = ''] = await eventually('an idle thread', () => {
    const found = threadsIn(former, /fuse_dev_do_read/);
    return found.length > 0 ? found : undefined;
  });
  await strace(t, ['-p', thread, '-e', 'trace=read', '-e', 'inject=read:error=EIO:when=2+']);
  await eventually('the next daemon', () => successor(daemon, former));
  const { pid } = await ask(daemon, 'daemon.status', {});
  t.not(pid, former);
  await eventually('it takes its turn', () => (takesItsTurn(pid) ? true : undefined));
  const { last } = await writer.stop();
  t.equal(checkPrefix(t, await readNumbers(t, files), 'the disk'), last);
  // The error also hits the reads of the thread's own event loop, which libuv answers by abort():
  // whichever comes first ends the process.
  t.match(daemon.log, /I\/O thread \d died: ending|the daemon died \(SIGABRT\)/);
});

t.test('killed while a thread of its own waits for its own mount', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await daemon.ok('create', 'vm', '--disk', '4M');
  const file = await open(daemon.rawFile('vm'), 'r+');
  t.teardown(() => file.close());
  const mapping = mapForWriting(file.fd, 4096);
  t.teardown(() => mapping.unmap());
  const former = daemon.servingPid;
  const servers = await eventually('idle threads', () => {
    const found = threadsIn(former, /fuse_dev_do_read/);
    return found.length > 0 ? found : undefined;
  });
  const stop = await strace(t, [
    ...servers.flatMap((thread) => ['-p', thread]),
    ...['-e', 'trace=pwrite64', '-e', 'inject=pwrite64:delay_enter=60000000'],
  ]);
  mapping.write(0, Buffer.alloc(4096, 7));
  const snapshot = askOnce(daemon, 'snapshot.take', { vm: 'vm', snapshot: 's' });
  await eventually('a thread that waits', () =>
    threadsIn(former, /folio_wait/).length > 0 ? true : undefined,
  );
  process.kill(former, 'SIGKILL');
  // It would keep the dead threads until its delay is over.
  await stop('SIGKILL');
  t.equal(await snapshot, undefined, 'the snapshot was cut short');
  await ask(daemon, 'snapshot.take', { vm: 'vm', snapshot: 't' });
  const bytes = await readFile(daemon.rawFile('vm', 't'));
  t.equal(bytes[0], 7, 'what was mapped is in the next one');
});

t.test('what a failed flush said stays said', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await daemon.ok('create', 'vm', '--disk', '4M');
  const file = await open(daemon.rawFile('vm'), 'r+');
  t.teardown(() => file.close());
  const former = daemon.servingPid;
  const stop = await strace(t, [
    ...['-f', '-p', String(former), '-e', 'trace=fdatasync,fsync'],
    ...['-e', 'inject=fdatasync:error=EIO'],
  ]);
  await file.write(Buffer.alloc(4096, 7), 0, 4096, 0);
  await t.rejects(file.sync(), { code: 'EIO' });
  await stop();
  process.kill(former, 'SIGKILL');
  await eventually('the next daemon', () => successor(daemon, former));
  await t.rejects(file.sync(), { code: 'EIO' }, 'the next daemon knows');
});

t.test('a supervisor that is killed', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await daemon.ok('create', 'vm', '--disk', '4M');
  const { supervisorPid, pid } = await ask(daemon, 'daemon.status', {});
  t.equal(supervisorPid, daemon.pid);
  await daemon.kill();
  t.match(await daemon.ok('daemon', 'status'), /supervisor: +none/);
  t.equal((await readFile(daemon.rawFile('vm'))).length, 4 << 20, 'the daemon goes on');
  const refused = await daemon.cli(['daemon', 'restart']);
  checkRefusal(t, refused, [EXIT.notSupported], /supervisor/);
  process.kill(pid, 'SIGKILL');
  await daemon.start();
  t.same(mountsBelow(daemon.folder), [daemon.mountpoint], 'a new start clears what is dead');
  await daemon.kill();
  await daemon.ok('daemon', 'stop');
  await checkNothingLeft(t, daemon);
});

t.test('no signal opens a debugger', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  for (const pid of [daemon.pid, daemon.servingPid]) process.kill(pid, 'SIGUSR1');
  await daemon.ok('list');
  t.notMatch(daemon.log, /debugger/i);
  await daemon.stop();
});

t.test('signals to either end both', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  process.kill(daemon.servingPid, 'SIGTERM');
  t.equal(await daemon.ended(), 0);
  await checkNothingLeft(t, daemon);
  await daemon.start();
  await daemon.stop();
  await checkNothingLeft(t, daemon);
});

t.test('a mount that is taken away lazily while a file is open', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await daemon.ok('create', 'vm', '--disk', '4M');
  const first = await open(daemon.rawFile('vm'), 'r+');
  await tool('umount', ['-l', daemon.mountpoint]);
  checkRefusal(t, await daemon.cli(['daemon', 'stop']), [EXIT.busy], /files are still open/);
  await first.write(Buffer.alloc(4096, 7), 0, 4096, 0);
  await first.sync();
  await first.close();
  t.equal(await daemon.ended(), 1, 'ends with the last file');
  await checkNothingLeft(t, daemon);

  await daemon.start();
  const second = await open(daemon.rawFile('vm'), 'r+');
  t.equal((await second.read(Buffer.alloc(1), 0, 1, 0)).buffer[0], 7);
  await tool('umount', ['-l', daemon.mountpoint]);
  // The second one is not to wait until the file is closed.
  process.kill(daemon.servingPid, 'SIGTERM');
  process.kill(daemon.servingPid, 'SIGTERM');
  t.equal(await daemon.ended(), 0, 'ends although the file is open');
  await t.rejects(second.sync(), { code: /ENOTCONN|ECONNABORTED/ });
  await second.close().catch(() => undefined);
  await checkNothingLeft(t, daemon);
});

t.test('a copy of the mount in another mount namespace', limits, async (t) => {
  const daemon = await startDaemon(t, { supervise: true });
  await daemon.ok('create', 'vm', '--disk', '4M');
  const endIdle = await elsewhere(t);
  await daemon.ok('daemon', 'stop');
  t.equal(await daemon.ended(), 0, 'keeps no daemon that nobody needs');
  await checkNothingLeft(t, daemon);
  await endIdle();

  await daemon.start();
  const endUser = await elsewhere(t, { redirection: `<${daemon.rawFile('vm')}` });
  await eventually('the disk is open', async () => {
    const { openDisks } = await ask(daemon, 'daemon.status', {});
    return openDisks > 0 ? true : undefined;
  });
  checkRefusal(t, await daemon.cli(['daemon', 'stop']), [EXIT.busy], /still open/);
  await endUser();
  t.equal(await daemon.ended(), 1, 'ends with the last file');
  await checkNothingLeft(t, daemon);
});

t.test('restarts under load; a broken program is not started', limits, async (t) => {
  const { daemon, program } = await daemonOfCopy(t);
  await daemon.start();
  await daemon.ok('create', 'vm', '--disk', 'a=4M');
  const files = [daemon.rawFile('vm', undefined, 'a')];
  const writer = await startWriter(t, 'direct', files);
  const { pid } = await ask(daemon, 'daemon.status', {});
  await daemon.ok('daemon', 'restart');
  const next = await ask(daemon, 'daemon.status', {});
  t.not(next.pid, pid);
  t.equal(next.openDisks, 1, 'what was open is open');
  const serve = join(program, 'dist/daemon/serve.js');
  const whole = await readFile(serve, 'utf8');
  appendFileSync(serve, '\nthis is no program\n');
  const refused = await daemon.cli(['daemon', 'restart']);
  checkRefusal(t, refused, [EXIT.failed], /does not start/);
  t.equal((await ask(daemon, 'daemon.status', {})).pid, next.pid, 'the old one goes on');
  writeFileSync(serve, whole);
  await daemon.ok('daemon', 'restart');
  const { last, slowest } = await writer.stop();
  t.equal(checkPrefix(t, await readNumbers(t, files), 'the disk'), last);
  t.comment(`restarts: ${slowest}`);
  await daemon.ok('daemon', 'stop');
  await daemon.ended();
  await checkNothingLeft(t, daemon);
});

t.test('restarts asked for at once are one restart', limits, async (t) => {
  const { daemon } = await daemonOfCopy(t);
  await daemon.start();
  const { pid } = await ask(daemon, 'daemon.status', {});
  const several = [1, 2, 3].map(() => daemon.cli(['daemon', 'restart']));
  for (const { code, stderr } of await Promise.all(several)) t.equal(code, 0, stderr);
  t.not((await ask(daemon, 'daemon.status', {})).pid, pid);
  await daemon.ok('daemon', 'stop');
  await daemon.ended();
  await checkNothingLeft(t, daemon);
});

t.test('told to stop while the next program is loaded', limits, async (t) => {
  const { daemon, program } = await daemonOfCopy(t);
  await daemon.start();
  const [loading, gate] = [join(program, 'loading'), join(program, 'gate')];
  // It says when it begins to load, and is not loaded before the test says so.
  const wait = [
    "import { existsSync, writeFileSync } from 'node:fs';",
    `writeFileSync(${JSON.stringify(loading)}, '');`,
    `while (!existsSync(${JSON.stringify(gate)})) await new Promise((go) => setTimeout(go, 10));`,
  ];
  appendFileSync(join(program, 'dist/daemon/serve.js'), `\n${wait.join('\n')}\n`);
  const restarted = daemon.cli(['daemon', 'restart']);
  await eventually('the next daemon', () => existsSync(loading) || undefined);
  await askOnce(daemon, 'daemon.stop', {});
  writeFileSync(gate, '');
  t.equal(await daemon.ended(), 0, 'it ends in order');
  t.notMatch(daemon.log, /taken away from outside/);
  checkRefusal(t, await restarted, [EXIT.failed], /told to stop/);
  await checkNothingLeft(t, daemon);
});

t.test('a daemon that crashes at every start', limits, async (t) => {
  const { daemon, program } = await daemonOfCopy(t);
  await daemon.start();
  await daemon.ok('create', 'vm', '--disk', '4M');
  const file = await open(daemon.rawFile('vm'), 'r+');
  t.teardown(() => file.close().catch(() => undefined));
  const daemonFile = join(program, 'dist/daemon/daemon.js');
  change(daemonFile, 'await daemon.#mount();', 'throw new Error("broken");');
  const former = daemon.servingPid;
  process.kill(former, 'SIGKILL');
  const next = await eventually('the next daemon', () => successor(daemon, former));
  // If it was loaded before the change it serves once more; otherwise it may have died already.
  try {
    process.kill(next, 'SIGKILL');
  } catch (error) {
    t.equal(errnoName(error), 'ESRCH');
  }
  t.equal(await daemon.ended(), 1, 'the supervisor says so');
  t.match(daemon.log, /died \d+ times in a row: giving the mount up/);
  await t.rejects(file.read(Buffer.alloc(1), 0, 1, 0), /ENOTCONN|ECONNABORTED/);
  await file.close().catch(() => undefined);
  await checkNothingLeft(t, daemon);
});

t.test('a disk that the next daemon cannot open again is told of in a line', limits, async (t) => {
  const { daemon } = await daemonOfCopy(t);
  await daemon.start();
  const image = join(daemon.folder, 'base.raw');
  writeFileSync(image, Buffer.alloc(1 << 20, 7));
  await daemon.ok('import', image, 'vm');
  const file = await open(daemon.rawFile('vm'), 'r+');
  t.teardown(() => file.close().catch(() => undefined));
  appendFileSync(image, 'changed');
  await daemon.ok('daemon', 'restart');
  await t.rejects(file.read(Buffer.alloc(1), 0, 1, 0), /EIO/);
  const line = daemon.log.split('\n').find((each) => each.includes('request reopen'));
  t.match(line, /"request reopen: the base image .*base\.raw is not what it was/);
  t.notMatch(line, /"stack"/);
  await file.close();
  await daemon.ok('daemon', 'stop');
  await daemon.ended();
  await checkNothingLeft(t, daemon);
});

t.test('a program that cannot go on with the mount says why', limits, async (t) => {
  const { daemon, program } = await daemonOfCopy(t, ['--transport', 'auto']);
  await daemon.start();
  const former = daemon.servingPid;
  await spareWaits(daemon);
  // It stands for an older program, which does not know how open files are noted today.
  change(join(program, 'dist/transport/kernel/handle-log.js'), 'VERSION = 2', 'VERSION = 1');
  const restarted = await daemon.cli(['daemon', 'restart']);
  checkRefusal(t, restarted, [EXIT.failed], /running mount belongs to another version/);
  const { pid } = await ask(daemon, 'daemon.status', {});
  t.equal(pid, former, 'the running one goes on');
  process.kill(pid, 'SIGKILL');
  const next = await eventually('the spare that it had', () => successor(daemon, pid));
  await ask(daemon, 'daemon.status', {});
  process.kill(next, 'SIGKILL');
  t.equal(await daemon.ended(), 1, 'the supervisor gives up');
  t.match(daemon.log, /the daemon died \(the running mount belongs to another version\)/);
  t.notMatch(daemon.log, /does not answer|fuse-native/, 'and nothing else is tried in its place');
  await checkNothingLeft(t, daemon);
});

t.test('a program that does not know the version of the store', limits, async (t) => {
  const { daemon, program } = await daemonOfCopy(t);
  await daemon.start();
  const former = daemon.servingPid;
  // An older program, as seen from the store that a newer one made.
  const layout = join(program, 'dist/vm/store/store-layout.js');
  change(layout, 'STORE_VERSION = 1', 'STORE_VERSION = 0');
  const restarted = await daemon.cli(['daemon', 'restart']);
  checkRefusal(t, restarted, [EXIT.failed], /has version 1, this layerdisk knows 0/);
  t.equal((await ask(daemon, 'daemon.status', {})).pid, former, 'the running one goes on');
  change(layout, 'STORE_VERSION = 0', 'STORE_VERSION = 1');
  await daemon.ok('daemon', 'restart');
  await daemon.ok('daemon', 'stop');
  t.equal(await daemon.ended(), 0);
  await checkNothingLeft(t, daemon);
});

t.test('a kernel that cannot send requests again', limits, async (t) => {
  const { daemon, program } = await daemonOfCopy(t);
  change(join(program, 'dist/transport/kernel/init.js'), ' | INIT2.HAS_RESEND', '');
  await daemon.start();
  await daemon.ok('create', 'vm', '--disk', '4M');
  const file = await open(daemon.rawFile('vm'), 'r+');
  t.teardown(() => file.close().catch(() => undefined));
  const former = daemon.servingPid;
  process.kill(former, 'SIGKILL');
  await eventually('the next daemon', () => successor(daemon, former));
  await ask(daemon, 'daemon.status', {});
  await t.rejects(file.read(Buffer.alloc(1), 0, 1, 0), /ENOTCONN|ECONNABORTED/, 'a clean error');
  await file.close().catch(() => undefined);
  t.equal((await readFile(daemon.rawFile('vm'))).length, 4 << 20, 'mounted anew');
  t.match(daemon.log, /cannot send requests again/);
  await daemon.ok('daemon', 'stop');
  await daemon.ended();
  await checkNothingLeft(t, daemon);
});
