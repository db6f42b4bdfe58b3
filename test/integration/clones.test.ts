/**
 * Hundreds of linked clones of one snapshot (with LAYERDISK_LONG=1 a thousand): each its own disk,
 * all sharing what they did not change.
 */
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { ControlSocket } from '../support/control-socket.js';
import { startDaemon, type TestDaemon, TRANSPORTS, type TransportName } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { ReferenceDisk } from '../support/reference-disk.js';
import { tool } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';

const LONG = process.env.LAYERDISK_LONG === '1';
const COUNT: Readonly<Record<TransportName, number>> = {
  kernel: LONG ? 1000 : 300,
  'fuse-native': LONG ? 1000 : 30,
};
const SIZE = 1 * MiB;

/**
 * Where clone `index` writes its own stamp: not aligned, in a block that others write to as well.
 */
function ownPlace(index: number): { offset: number; data: Buffer } {
  const offset = 512 * (1 + (index % 200));
  return { offset, data: stampedPattern(1000 + index, offset, 1024) };
}

function expectedOf(origin: ReferenceDisk, index: number): ReferenceDisk {
  const model = origin.copy();
  const { offset, data } = ownPlace(index);
  model.write(offset, data);
  return model;
}

async function checkClones(t: Test, daemon: TestDaemon) {
  const count = COUNT[daemon.transport];
  const origin = await makeOrigin(daemon);
  const client = await ControlSocket.connect(daemon.socket);
  t.teardown(() => client.destroy());

  const before = await storeBytes(daemon);
  for (let index = 0; index < count; index += 1) {
    const params = { vm: 'golden', snapshot: 'base', name: `c${index}`, mode: 'linked' };
    await client.call('clone', params);
  }
  const each = ((await storeBytes(daemon)) - before) / count;
  t.ok(each < 64 * KiB, `a clone takes ${Math.round(each)} bytes`);
  t.equal((await client.call<unknown[]>('list', {})).length, count + 1);

  for (let index = 0; index < count; index += 1) {
    const file = await open(daemon.rawFile(`c${index}`), 'r+');
    try {
      const { offset, data } = ownPlace(index);
      await file.write(data, 0, data.length, offset);
    } finally {
      await file.close();
    }
  }
  await checkAll(t, daemon, origin, 0, count);

  await client.call('snapshot.delete', { vm: 'golden', snapshot: 'base' });
  await client.call('delete', { vm: 'golden' });
  await checkAll(t, daemon, origin, 0, count);
  t.comment('the snapshot and its VM are gone');

  for (let index = 0; index < count / 2; index += 1) {
    await client.call('delete', { vm: `c${index}` });
  }
  await client.call('gc', {});
  await daemon.stop();
  await daemon.start();
  await checkAll(t, daemon, origin, count / 2, count);
}

/**
 * VM `golden` with a snapshot `base`, on an image file, with changes of its own above and below it.
 */
async function makeOrigin(daemon: TestDaemon): Promise<ReferenceDisk> {
  const model = new ReferenceDisk(SIZE);
  model.write(0, stampedPattern(1, 0, SIZE));
  const image = join(daemon.folder, 'golden.img');
  await writeFile(image, model.bytes);
  await daemon.ok('import', image, 'golden', '--format', 'raw');
  const writeHead = async (generation: number, offset: number) => {
    const data = stampedPattern(generation, offset, 100_000);
    const file = await open(daemon.rawFile('golden'), 'r+');
    await file.write(data, 0, data.length, offset).finally(() => file.close());
    return { offset, data };
  };
  const { offset, data } = await writeHead(2, 50_000);
  model.write(offset, data);
  await daemon.ok('snapshot', 'take', 'golden@base');
  await writeHead(3, 0);
  return model;
}

async function storeBytes(daemon: TestDaemon): Promise<number> {
  return Number.parseInt(await tool('du', ['-s', '--block-size=1', daemon.store]), 10);
}

/** One assertion for all: hundreds of lines of "ok" tell nobody anything. */
async function checkAll(
  t: Test,
  daemon: TestDaemon,
  origin: ReferenceDisk,
  from: number,
  to: number,
) {
  const wrong: string[] = [];
  for (let index = from; index < to; index += 1) {
    const bytes = await readFile(daemon.rawFile(`c${index}`));
    const difference = expectedOf(origin, index).difference(bytes);
    if (difference !== undefined) wrong.push(`c${index}: ${difference}`);
  }
  t.same(wrong, [], `clones ${from} to ${to - 1} hold the origin's bytes and their own`);
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    await checkClones(t, await startDaemon(t, { transport }));
  });
}
