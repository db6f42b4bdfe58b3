/**
 * `--on-full pause`: a write that there is no room for waits, while reads, overwrites and deletes
 * go on; it ends well when room is made, whoever serves it by then.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import type { DaemonStatus, SpaceView } from '../../src/control/protocol.js';
import { ControlSocket } from '../support/control-socket.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe, scratchFileSystem } from '../support/mount-guard.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { cleanEnvironment, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { tempFolder } from '../support/temp-tree.js';

const STORE_SIZE = 48 * MiB;
/** Does not fit beside the ballast, and does without. */
const DATA = 24 * MiB;
const MAPPING_WRITER = fileURLToPath(new URL('../support/mapping-writer.mjs', import.meta.url));
const PATIENCE_MS = 60_000;
/** A write that waits so long waits for room. */
const STAYS_MS = 3000;

async function until(what: string, look: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!(await look())) {
    if (performance.now() > end) throw new Error(`never: ${what}`);
    await sleep(20);
  }
}

async function spaceOf({ socket }: TestDaemon): Promise<SpaceView | undefined> {
  const client = await ControlSocket.connect(socket);
  try {
    return (await client.call<DaemonStatus>('daemon.status', {})).space;
  } finally {
    client.destroy();
  }
}

/** Waits until writes wait, and not just until the daemon has looked again what room there is. */
async function untilItStays(daemon: TestDaemon): Promise<void> {
  let since = performance.now();
  await until('a write waits', async () => {
    const now = performance.now();
    if (((await spaceOf(daemon))?.waitingWrites ?? 0) === 0) since = now;
    return now - since > STAYS_MS;
  });
}

/** A `dd` of a file of so many bytes into the disk, stopped by a full store. */
class Writer {
  readonly data: Buffer;
  readonly #child: ChildProcess;
  #said = '';

  private constructor(data: Buffer, child: ChildProcess) {
    this.data = data;
    this.#child = child;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#said += chunk.toString();
    });
  }

  static async start(t: Test, daemon: TestDaemon, generation: number, flags: readonly string[]) {
    const data = stampedPattern(generation, 0, DATA);
    const source = join(daemon.folder, `data-${generation}`);
    await writeFile(source, data);
    const to = daemon.rawFile('vm');
    const args = [`if=${source}`, `of=${to}`, 'bs=1M', 'conv=notrunc', ...flags];
    const child = spawn('dd', args, {
      env: cleanEnvironment(),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    t.teardown(() => child.kill('SIGKILL'));
    const writer = new Writer(data, child);
    await untilItStays(daemon);
    return writer;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** @returns its exit code, null after a signal. */
  async ended(): Promise<{ readonly code: number | null; readonly said: string }> {
    if (this.isRunning) await once(this.#child, 'close');
    return { code: this.#child.exitCode, said: this.#said };
  }
}

async function prepare(t: Test): Promise<TestDaemon> {
  const on = await scratchFileSystem(t, await tempFolder(t, 'pause'), STORE_SIZE);
  const args = ['--on-full', 'pause', '--reserve', '2M'];
  const store = join(on, 'store');
  const daemon = await startDaemon(t, { store, supervise: true, args });
  await daemon.ok('create', 'vm', '--disk', '64M');
  return daemon;
}

const makeBallast = (daemon: TestDaemon) =>
  daemon.ok('create', 'ballast', '--disk', '24M,allocation=static');

/** Empties the disk, which gives the space back. */
async function clear(daemon: TestDaemon): Promise<void> {
  await tool('fallocate', ['-p', '-o', '0', '-l', '64M', daemon.rawFile('vm')]);
}

async function checkWritten(t: Test, daemon: TestDaemon, { data }: Writer): Promise<void> {
  const there = (await readFile(daemon.rawFile('vm'))).subarray(0, data.length);
  t.ok(there.equals(data), 'every byte is right');
}

async function checkWaiting(t: Test, daemon: TestDaemon): Promise<void> {
  const other = stampedPattern(9, 0, MiB);
  await daemon.ok('create', 'other', '--disk', '2M');
  await writeFile(daemon.rawFile('other'), other, { flag: 'r+' });

  await makeBallast(daemon);
  const first = await Writer.start(t, daemon, 1, []);
  const space = await spaceOf(daemon);
  t.match(space, { onFull: 'pause', waitingWrites: 1, waitingBytes: MiB });
  t.match(await daemon.ok('daemon', 'status'), /^waiting: .*1 write, 1 MiB/m);
  t.match(daemon.log, /"level":"warn","message":"writes wait for room/);
  const file = await open(daemon.rawFile('other'), 'r+');
  await file.write(stampedPattern(10, 0, MiB), 0, MiB, 0);
  await file.sync();
  await file.close();
  t.ok(
    (await readFile(daemon.rawFile('other'))).subarray(0, MiB).equals(stampedPattern(10, 0, MiB)),
  );
  checkRefusal(t, await daemon.quick(['snapshot', 'take', 'vm@now']), [EXIT.failed, EXIT.busy]);
  t.ok(first.isRunning, 'dd still waits');
  await daemon.ok('delete', 'ballast');
  t.match(await first.ended(), { code: 0 }, 'dd ends when a delete has made room');
  await checkWritten(t, daemon, first);
  t.match(daemon.log, /no write waits any more, after 1 did/);
}

/** A write through the page cache that ends within a page keeps that locked while it waits. */
async function checkTakeover(t: Test, daemon: TestDaemon, flags: readonly string[]): Promise<void> {
  await clear(daemon);
  await makeBallast(daemon);
  const second = await Writer.start(t, daemon, 2, flags);
  const before = daemon.servingPid;
  process.kill(before, 'SIGKILL');
  await until('another daemon', async () => daemon.servingPid !== before);
  const waitsAgain = async () =>
    ((await spaceOf(daemon).catch(() => undefined))?.waitingWrites ?? 0) > 0;
  await until('it waits again', waitsAgain);
  t.ok(second.isRunning);
  await daemon.ok('daemon', 'restart');
  await until('it waits for the third', waitsAgain);
  await daemon.ok('delete', 'ballast');
  t.match(await second.ended(), { code: 0 });
  await checkWritten(t, daemon, second);
}

async function checkKilledWriter(t: Test, daemon: TestDaemon): Promise<void> {
  await clear(daemon);
  await makeBallast(daemon);
  for (const flags of [[], ['oflag=direct']]) {
    const third = await Writer.start(t, daemon, 3, flags);
    third.kill();
    t.match(await third.ended(), { code: null });
    await until('nothing waits', async () => (await spaceOf(daemon))?.waitingWrites === 0);
  }
}

/** Nobody can look at such a process, not even at its command line, before its data is written. */
async function checkMapping(t: Test, daemon: TestDaemon): Promise<void> {
  await clear(daemon);
  const args = [MAPPING_WRITER, daemon.rawFile('vm'), String(DATA), '5'];
  const child = spawn(process.execPath, args, { env: cleanEnvironment(), stdio: 'inherit' });
  t.teardown(() => child.kill('SIGKILL'));
  const ended = once(child, 'close');
  await untilItStays(daemon);
  checkRefusal(t, await daemon.cli(['daemon', 'stop']), [EXIT.busy], /node/);
  await daemon.ok('delete', 'ballast');
  t.same(await ended, [0, null]);
  const there = (await readFile(daemon.rawFile('vm'))).subarray(0, DATA);
  t.ok(there.equals(Buffer.alloc(DATA, 5)), 'every byte is right');
  await clear(daemon);
  await makeBallast(daemon);
}

async function checkEnd(t: Test, daemon: TestDaemon): Promise<void> {
  const last = await Writer.start(t, daemon, 4, []);
  checkRefusal(t, await daemon.cli(['daemon', 'stop']), [EXIT.busy], /dd/);
  t.ok(last.isRunning, 'refused, and it still waits');
  process.kill(daemon.pid, 'SIGTERM');
  process.kill(daemon.pid, 'SIGTERM');
  const { code, said } = await last.ended();
  t.equal(code, 1, 'an end that is forced ends it, too');
  t.match(said, /No space left on device/);
  await daemon.stop();
}

t.test('writes wait for room', { skip: cannotServe() }, async (t) => {
  const daemon = await prepare(t);
  t.comment('what goes on meanwhile, and what is said');
  await checkWaiting(t, daemon);
  t.comment('the daemon is killed while a write waits');
  await checkTakeover(t, daemon, ['oflag=direct']);
  t.comment('and while one waits that ends within a page of the cache');
  await checkTakeover(t, daemon, ['bs=65000']);
  t.comment('a writer that is killed is let go');
  await checkKilledWriter(t, daemon);
  t.comment('what was written through a mapping waits');
  await checkMapping(t, daemon);
  t.comment('the daemon is told to end while a write waits');
  await checkEnd(t, daemon);
});
