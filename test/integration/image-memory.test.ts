/**
 * What foreign images cost the daemon in memory: every thread opens them for itself, and together
 * they stay below 256 MiB.
 */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { errnoName } from '../../src/common/errors.js';
import { MiB, TiB } from '../../src/common/units.js';
import { MAX_LOG_UPDATES } from '../../src/formats/vhdx/vhdx-layout.js';
import { openCorpus } from '../support/corpus.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { stampedModel } from '../support/disk-model.js';
import { residentBytes } from '../support/footprint.js';
import {
  writeLongLog,
  writeSeSparseStack,
  writeSplit,
  writeStack,
  writeTables,
} from '../support/hollow-images.js';
import { writeQcow2 } from '../support/qcow2-writer.js';
import { createRandom } from '../support/random.js';
import { PROJECT, runProgram, tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

const LIMIT = 256 * MiB;
const READERS = 4;
const READ_BYTES = 65_536;
/** Of a chain that takes long to read. */
const DEPTH = process.env.LAYERDISK_LONG === '1' ? 1000 : 200;

/** Most resident memory since `forgetPeak`, bytes. */
function peakOf(pid: number): number {
  const [, kilobytes] = /^VmHWM:\s*(\d+) kB$/m.exec(statusOf(pid)) ?? [];
  return Number(kilobytes) * 1024;
}

function statusOf(pid: number): string {
  return readFileSync(`/proc/${pid}/status`, 'utf8');
}

function forgetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
}

/**
 * Reads all over the disk, from several sides at once, so that every thread has its turn.
 * @param isDamaged whether a read may fail with EIO.
 */
async function readWidely(path: string, reads: number, isDamaged = false): Promise<void> {
  const { size } = statSync(path);
  const readers = Array.from({ length: READERS }, async (_, reader) => {
    const random = createRandom(reader);
    const buffer = Buffer.alloc(READ_BYTES);
    const file = await open(path, 'r');
    for (let read = 0; read < reads; read += 1) {
      // All of its tables come by, in steps and at random.
      const step = Math.floor(size / reads) * read;
      const at = reader % 2 === 0 ? step : random.below(Math.max(1, size - READ_BYTES));
      await file.read(buffer, 0, READ_BYTES, at - (at % 4096)).catch((error: unknown) => {
        if (!isDamaged || errnoName(error) !== 'EIO') throw error;
      });
    }
    await file.close();
  });
  await Promise.all(readers);
}

/** The background thread reads it, too, until that is enough. */
async function whileExporting(daemon: TestDaemon, work: () => Promise<void>): Promise<void> {
  const enough = new AbortController();
  const program = join(PROJECT, 'dist/cli/main.js');
  const target = join(daemon.folder, 'out.qcow2');
  const places = ['--store', daemon.store, '--socket', daemon.socket];
  const exported = runProgram('node', [program, 'export', 'vm', target, ...places], {
    signal: enough.signal,
  });
  await work();
  enough.abort();
  await exported;
}

t.test('malformed images, imported one after another', { timeout: 600_000 }, async (t) => {
  const daemon = await startDaemon(t);
  const corpus = openCorpus(t, tempFolder(t));
  if (corpus === undefined) return;
  const broken = corpus.images.filter(({ expect }) => expect !== 'ok');
  const pid = daemon.servingPid;
  const idle = residentBytes(pid);
  forgetPeak(pid);
  let shown = 0;
  for (const image of broken) {
    const [path] = corpus.unpack(image);
    const imported = await daemon.quick(['import', path, 'vm']);
    if (imported.code === 0) {
      await readWidely(daemon.rawFile('vm'), 20, true);
      await daemon.ok('delete', 'vm');
      shown += 1;
    }
  }
  t.ok(shown > 0 && shown < broken.length, `${shown} of ${broken.length} can be read in part`);
  const grown = peakOf(pid) - idle;
  t.ok(grown > 0 && grown < LIMIT, `${Math.round(grown / MiB)} MiB for all of them`);
});

t.test('each of the worst images, read by all threads', { timeout: 600_000 }, async (t) => {
  const daemon = await startDaemon(t);
  const folder = (name: string) => {
    const path = join(daemon.folder, name);
    mkdirSync(path);
    return path;
  };
  const full = join(folder('full'), 'full.qcow2');
  writeTables(full, { clusterBits: 9, l1Entries: 4 * MiB, l2Tables: 4 * MiB });
  const shape = { clusterBits: 12, l1Entries: 512, l2Tables: 512 };
  const packed = join(folder('packed'), 'packed.qcow2');
  const model = stampedModel({ size: 32 * MiB, unitSize: 2 * MiB, pattern: 'd', salt: 1 });
  writeQcow2(packed, { model, clusterBits: 21, compressed: () => true, compression: 'zstd' });
  const vast = join(folder('vast'), 'vast.vhdx');
  const options = ['-o', 'block_size=1M'];
  await tool('qemu-img', ['create', '-q', '-f', 'vhdx', ...options, vast, String(64 * TiB)]);
  const logged = join(folder('logged'), 'logged.vhdx');
  writeLongLog(logged, MAX_LOG_UPDATES, 'zeroes');
  const images = [
    { name: 'the largest L1 table of a qcow2', path: full, reads: 400 },
    { name: 'many tables of a VMDK', path: writeSplit(folder('split'), 128), reads: 3000 },
    { name: 'compressed clusters of 2 MiB', path: packed, reads: 100 },
    { name: 'a deep chain', path: writeStack(folder('deep'), 200, shape), reads: 100 },
    { name: '64 TiB of a VHDX', path: vast, reads: 1000 },
    { name: 'the longest log of a VHDX', path: logged, reads: 100 },
    { name: 'deep seSparse', path: writeSeSparseStack(folder('se'), DEPTH, 1024), reads: 30 },
  ];
  const pid = daemon.servingPid;
  let most = 0;
  for (const { name, path, reads } of images) {
    // What an image before it left is taken up again (then nothing grows), or in the way.
    const idle = residentBytes(pid);
    forgetPeak(pid);
    await daemon.ok('import', path, 'vm');
    await whileExporting(daemon, () => readWidely(daemon.rawFile('vm'), reads));
    const grown = peakOf(pid) - idle;
    t.ok(grown < LIMIT, `${name}: ${Math.round(grown / MiB)} MiB`);
    most = Math.max(most, grown);
    await daemon.ok('delete', 'vm');
  }
  t.ok(most > 0, 'some of them took memory');
});
