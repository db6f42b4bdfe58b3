/**
 * Two hundred snapshots deep (forty where every request is slow): the head and every snapshot hold
 * the bytes they held when taken.
 */
import { createHash } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { ControlSocket } from '../support/control-socket.js';
import { startDaemon, type TestDaemon, TRANSPORTS, type TransportName } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { ReferenceDisk } from '../support/reference-disk.js';
import { stampedPattern } from '../support/stamped-pattern.js';

const seed = newSeed();
const LONG = process.env.LAYERDISK_LONG === '1';
const DEPTH: Readonly<Record<TransportName, number>> = {
  kernel: 200,
  'fuse-native': LONG ? 200 : 40,
};
const SIZE = 4 * MiB;

/** A few writes of odd places and sizes, to the disk and to its model. */
async function writeSome(path: string, model: ReferenceDisk, random: Random, generation: number) {
  const file = await open(path, 'r+');
  try {
    for (let count = 0; count < 4; count += 1) {
      const length = 1 + random.below(random.pick([700, 9000, 60_000]));
      const offset = random.below(SIZE - length);
      const data = stampedPattern(generation, offset, length);
      await file.write(data, 0, length, offset);
      model.write(offset, data);
    }
  } finally {
    await file.close();
  }
}

async function sha256(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

async function checkDepth(t: Test, daemon: TestDaemon) {
  const last = DEPTH[daemon.transport];
  const random = createRandom(seed);
  const model = new ReferenceDisk(SIZE);
  const hashes: string[] = [];
  await daemon.ok('create', 'deep', '--disk', String(SIZE));
  const path = daemon.rawFile('deep');
  const client = await ControlSocket.connect(daemon.socket);
  t.teardown(() => client.destroy());
  for (let depth = 0; depth < last; depth += 1) {
    await writeSome(path, model, random, depth + 1);
    await client.call('snapshot.take', { vm: 'deep', snapshot: `s${depth}` });
    hashes.push(model.sha256());
  }
  await writeSome(path, model, random, last + 1);

  const checkSnapshots = async (step: number, what: string) => {
    const wrong: string[] = [];
    for (let depth = 0; depth < last; depth += step) {
      const held = await sha256(daemon.rawFile('deep', `s${depth}`));
      if (held !== hashes[depth]) wrong.push(`s${depth}`);
    }
    t.same(wrong, [], what);
  };
  t.equal(model.difference(await readFile(path)), undefined, 'the head');
  await checkSnapshots(1, 'every snapshot');

  await daemon.stop();
  await daemon.start();
  const again = await ControlSocket.connect(daemon.socket);
  t.teardown(() => again.destroy());
  t.equal(model.difference(await readFile(path)), undefined, 'the head after a restart');
  for (let depth = 1; depth < last; depth += 2) {
    await again.call('snapshot.delete', { vm: 'deep', snapshot: `s${depth}` });
  }
  await again.call('gc', {});
  t.equal(model.difference(await readFile(path)), undefined, 'the head after deleting every other');
  await checkSnapshots(2, 'and the snapshots that stay');

  await again.call('snapshot.restore', { vm: 'deep', snapshot: `s${last / 2}`, discard: true });
  t.equal(await sha256(path), hashes[last / 2], 'restored to the middle');
  await checkSnapshots(2, 'which touches no snapshot, older or younger');
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    t.comment(`LAYERDISK_SEED=${seed}`);
    await checkDepth(t, await startDaemon(t, { transport }));
  });
}
