/**
 * A store on a full file system: said by name, nothing acknowledged is lost, and it goes on
 * afterwards.
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { prepareDaemon, type TestDaemon, TRANSPORTS } from '../support/daemon.js';
import { cannotServe, scratchFileSystem } from '../support/mount-guard.js';
import { ReferenceDisk } from '../support/reference-disk.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import { runProgram } from '../support/run-program.js';
import { stampedPattern } from '../support/stamped-pattern.js';
import { tempFolder } from '../support/temp-tree.js';

const STORE_SIZE = 48 * MiB;
const DISK_SIZE = 64 * MiB;
const CHUNK = 256 * 1024;

/**
 * Writes chunk after chunk with fsync until one fails; the model gets what was acknowledged.
 * @returns the error's code
 */
async function fill(path: string, model: ReferenceDisk, generation: number): Promise<string> {
  const file = await open(path, 'r+');
  try {
    for (let offset = 0; offset < DISK_SIZE; offset += CHUNK) {
      const data = stampedPattern(generation, offset, CHUNK);
      await file.write(data, 0, CHUNK, offset);
      await file.datasync();
      model.write(offset, data);
    }
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  } finally {
    await file.close();
  }
  return 'none';
}

/** The chunk at which writing failed may be old or new, sector by sector; the rest must agree. */
function checkAcknowledged(t: Test, model: ReferenceDisk, bytes: Buffer, what: string) {
  const wrong: number[] = [];
  let failing: number | undefined;
  for (let offset = 0; offset < DISK_SIZE; offset += CHUNK) {
    if (model.read(offset, CHUNK).equals(bytes.subarray(offset, offset + CHUNK))) continue;
    if (failing === undefined) failing = offset;
    else wrong.push(offset);
  }
  t.same(wrong, [], what);
}

async function checkFull(t: Test, daemon: TestDaemon) {
  const model = new ReferenceDisk(DISK_SIZE);
  await daemon.ok('create', 'ballast', '--disk', '16M,allocation=static');
  await daemon.ok('create', 'vm', '--disk', String(DISK_SIZE));
  const path = await daemon.ok('path', 'vm');
  t.equal(await fill(path, model, 1), 'ENOSPC', 'the writer is told');
  checkAcknowledged(t, model, await readFile(path), 'all that was acknowledged is there');

  const before = await daemon.json('list');
  const big = await daemon.cli(['create', 'big', '--disk', '1G,allocation=static']);
  checkRefusal(t, big, [EXIT.failed], /space|big/i);
  t.same(await daemon.json('list'), before, 'no half-made VM');
  // With a few bytes to spare a snapshot may still fit: done or refused, but not half.
  const snapshot = await daemon.cli(['snapshot', 'take', 'vm@full']);
  if (snapshot.code !== 0) checkRefusal(t, snapshot, [EXIT.failed], /space|vm/i);
  checkAcknowledged(t, model, await readFile(path), 'and a snapshot on a full store harms nothing');

  await daemon.ok('delete', 'ballast');
  await daemon.ok('gc');
  const data = stampedPattern(2, 0, 4 * MiB);
  const file = await open(path, 'r+');
  try {
    await file.write(data, 0, data.length, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  model.write(0, data);
  await daemon.stop();
  await daemon.start();
  checkAcknowledged(
    t,
    model,
    await readFile(path),
    'with room again it goes on, and over a restart',
  );
}

for (const transport of TRANSPORTS) {
  t.test(`over the ${transport} channel`, { skip: cannotServe() }, async (t) => {
    const on = await scratchFileSystem(t, await tempFolder(t, 'small'), STORE_SIZE);
    const daemon = await prepareDaemon(t, { transport, store: join(on, 'store') });
    // The log lies in the store, too.
    t.equal((await runProgram('test', ['-d', on])).code, 0);
    await daemon.start();
    await checkFull(t, daemon);
  });
}
