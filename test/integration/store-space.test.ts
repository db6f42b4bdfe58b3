/**
 * A store that runs full, before the host is: warned of, new blocks refused at the reserve, all
 * else going on, and writers going on by themselves once room was made.
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import type { DaemonStatus, StatsView } from '../../src/control/protocol.js';
import { freeSpace } from '../../src/storage/free-space.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe, scratchFileSystem } from '../support/mount-guard.js';
import { ReferenceDisk } from '../support/reference-disk.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram, tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { tempFolder } from '../support/temp-tree.js';

const STORE_SIZE = 48 * MiB;
const RESERVE = 6 * MiB;
/** Twice the reserve. */
const LOW = 2 * RESERVE;
const DISK_SIZE = 64 * MiB;
const CHUNK = 256 * 1024;
const PATIENCE_MS = 60_000;

interface World {
  readonly daemon: TestDaemon;
  /** The file system of the store. */
  readonly on: string;
  readonly path: string;
  readonly model: ReferenceDisk;
}

async function prepare(t: Test): Promise<World> {
  const on = await scratchFileSystem(t, await tempFolder(t, 'space'), STORE_SIZE);
  const args = ['--reserve', String(RESERVE)];
  const daemon = await startDaemon(t, { store: join(on, 'store'), args });
  await daemon.ok('create', 'ballast', '--disk', '12M,allocation=static');
  await daemon.ok('create', 'vm', '--disk', String(DISK_SIZE));
  const path = await daemon.ok('path', 'vm');
  return { daemon, on, path, model: new ReferenceDisk(DISK_SIZE) };
}

/** Writes through to the daemon. @returns the error's code, undefined when it was acknowledged. */
async function write(world: World, offset: number, data: Buffer): Promise<string | undefined> {
  const file = await open(world.path, 'r+');
  try {
    await file.write(data, 0, data.length, offset);
    await file.sync();
    world.model.write(offset, data);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  } finally {
    await file.close();
  }
}

/** Fills the disk from `from` on. @returns where it was refused. */
async function fill(t: Test, world: World, from: number): Promise<number> {
  for (let offset = from; offset < DISK_SIZE; offset += CHUNK) {
    const refused = await write(world, offset, stampedPattern(1, offset, CHUNK));
    if (refused === undefined) continue;
    t.equal(refused, 'ENOSPC', 'the writer is told');
    return offset;
  }
  throw new Error('the disk is full, the store is not');
}

/**
 * Fills until there is too little room for the daemon to be at ease, and has it look then: a fast
 * host may go from plenty to full between two of its own looks. @returns where to go on.
 */
async function fillUntilLow(t: Test, world: World, from: number): Promise<number> {
  let offset = from;
  while (freeSpace(world.on).free >= LOW) {
    t.equal(await write(world, offset, stampedPattern(1, offset, CHUNK)), undefined);
    offset += CHUNK;
  }
  const { space } = await world.daemon.json<DaemonStatus>('daemon', 'status');
  t.match(space, { state: 'low', refusedWrites: 0, warnBelowBytes: LOW });
  return offset;
}

/** Tries until it is acknowledged, as a guest does that retries. */
async function writeOnceThereIsRoom(world: World, offset: number): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const refused = await write(world, offset, stampedPattern(3, offset, CHUNK));
    if (refused === undefined) return;
    if (refused !== 'ENOSPC' || performance.now() > end) throw new Error(`refused: ${refused}`);
    await sleep(10);
  }
}

async function checkContent(t: Test, { path, model }: World, what: string): Promise<void> {
  t.equal(model.difference(await readFile(path)), undefined, what);
}

/** What is said of a full store, wherever one looks. */
async function checkSaid(t: Test, { daemon }: World): Promise<void> {
  const { space } = await daemon.json<DaemonStatus>('daemon', 'status');
  t.match(space, { state: 'full', reserveBytes: RESERVE, totalBytes: Number, freeBytes: Number });
  t.ok((space?.refusedWrites ?? 0) > 0);
  t.match(await daemon.ok('daemon', 'status'), /space: .*6 MiB in reserve: FULL/);
  t.match((await daemon.json<StatsView>('stats')).space, { state: 'full' });
  t.match(await daemon.ok('stats'), /in reserve: FULL/);
  for (const json of [[], ['--json']]) {
    const list = await daemon.cli(['list', ...json]);
    t.match(list.stderr, /^layerdisk: warning: the store's file system is full/);
  }
  t.equal((await daemon.cli(['list', '-q'])).stderr, '', 'names only');
  t.match(daemon.log, /"level":"warn","message":"the store's file system runs full, .* free"/);
  t.match(daemon.log, /"level":"warn","message":"the store's file system is full, .*refused"/);
}

async function checkRefusals(t: Test, world: World, image: string): Promise<void> {
  const { daemon, on } = world;
  const before = await daemon.json('list');
  const refused: readonly (readonly string[])[] = [
    ['snapshot', 'take', 'vm@full'],
    ['clone', 'vm', 'linked', '--linked'],
    ['clone', 'vm@first', 'linked', '--linked'],
    ['clone', 'vm@first', 'copy', '--full'],
    ['create', 'new', '--disk', '1M'],
    ['create', 'fixed', '--disk', '32M,allocation=static'],
    ['import', image, 'copied', '--copy'],
    ['export', 'vm@first', join(on, 'out.raw'), '--format', 'raw', '--allocation', 'static'],
    ['export', 'vm@first', join(on, 'out.qcow2'), '--format', 'qcow2'],
  ];
  for (const command of refused) {
    t.comment(command.join(' '));
    const result = await daemon.quick(command);
    checkRefusal(t, result, [EXIT.failed], /MiB|reserve/);
    if (command[0] === 'export') t.match(result.stderr, command[2], 'names the file');
  }
  t.same(await daemon.json('list'), before, 'nothing half made');
  t.same((await runProgram('ls', ['-A', on])).stdout.includes('out'), false);
  await checkContent(t, world, 'and nothing changed');
}

t.test('a store that runs full', { skip: cannotServe() }, async (t) => {
  const world = await prepare(t);
  const { daemon, on } = world;
  const image = join(daemon.folder, 'image.raw');
  await tool('truncate', ['-s', '8M', image]);
  t.equal(await write(world, 0, stampedPattern(1, 0, 4 * MiB)), undefined);
  await daemon.ok('snapshot', 'take', 'vm@first');
  t.equal((await daemon.json<DaemonStatus>('daemon', 'status')).space?.state, 'plenty');
  const stopped = await fill(t, world, await fillUntilLow(t, world, 4 * MiB));
  t.ok(freeSpace(on).free >= RESERVE - CHUNK, `${freeSpace(on).free} bytes are left`);
  await checkSaid(t, world);

  t.comment('what goes on');
  await checkContent(t, world, 'all that was acknowledged is there');
  const again = stampedPattern(2, 8 * MiB, 4 * MiB);
  t.equal(await write(world, 8 * MiB, again), undefined, 'in place, and flushed');
  await checkRefusals(t, world, image);
  await daemon.ok('snapshot', 'delete', 'vm@first');
  await checkContent(t, world, 'a snapshot is deleted');

  t.comment('room is made: by a delete, by a discard');
  await daemon.ok('delete', 'ballast');
  await writeOnceThereIsRoom(world, stopped);
  t.match(daemon.log, /"level":"info","message":"the store's file system has room again/);
  const next = await fill(t, world, stopped + CHUNK);
  await tool('fallocate', ['-p', '-o', String(8 * MiB), '-l', String(12 * MiB), world.path]);
  world.model.discard(8 * MiB, 12 * MiB);
  await writeOnceThereIsRoom(world, next);
  await checkContent(t, world, 'and all of it is right');
  await daemon.stop();
  await daemon.start();
  await checkContent(t, world, 'over a restart');
  t.match(await daemon.json('check'), { damaged: 0, leaks: 0 });
});
