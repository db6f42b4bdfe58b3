/**
 * What an image costs in memory, in a process of its own: whatever its headers claim, and however
 * many stand on each other, the process stays below 256 MiB.
 */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { GiB, MiB, TiB } from '../../src/common/units.js';
import { MAX_LOG_UPDATES } from '../../src/formats/vhdx/vhdx-layout.js';
import { openCorpus } from '../support/corpus.js';
import { stampedModel } from '../support/disk-model.js';
import {
  writeLongLog,
  writeSeSparseStack,
  writeStack,
  writeTables,
} from '../support/hollow-images.js';
import { writeQcow2 } from '../support/qcow2-writer.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

const LIMIT = 256 * MiB;
const PROGRAM = fileURLToPath(new URL('../support/use-image.mjs', import.meta.url));

interface Use {
  readonly file: string;
  /** `read`, or the code of the error that opening ended with. */
  readonly outcome: string;
  readonly failures: number;
  readonly peak: number;
  readonly rest: number;
}

async function useImages(
  t: Test,
  files: readonly string[],
  { extents = 2000, reads = 100 } = {},
): Promise<Use[]> {
  const printed = await tool('node', [PROGRAM, String(extents), String(reads), ...files]);
  const uses = printed
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Use);
  const last = uses.at(-1)!;
  const grown = Math.round((last.peak - last.rest) / MiB);
  t.comment(`${last.outcome}: ${Math.round(last.peak / MiB)} MiB, ${grown} of them for images`);
  const tooMuch = uses.find(({ peak }) => peak >= LIMIT);
  t.equal(tooMuch, undefined, 'below 256 MiB');
  return uses;
}

t.test('the largest L1 table of a qcow2, full', async (t) => {
  const path = join(tempFolder(t), 'full.qcow2');
  writeTables(path, { clusterBits: 9, l1Entries: 4 * MiB, l2Tables: 4 * MiB });
  t.match(await useImages(t, [path]), [{ outcome: 'read', failures: 0 }]);
});

t.test('a thousand images, each with an L1 table of 8 MiB', async (t) => {
  const folder = tempFolder(t);
  const path = writeStack(folder, 1000, { clusterBits: 9, l1Entries: MiB, l2Tables: 0 });
  t.match(await useImages(t, [path]), [{ outcome: 'not-supported' }]);
});

t.test('a thousand images, all of whose tables are asked for', async (t) => {
  const folder = tempFolder(t);
  const path = writeStack(folder, 1000, { clusterBits: 12, l1Entries: 512, l2Tables: 512 });
  const uses = await useImages(t, [path], { extents: 4, reads: 1 });
  t.match(uses, [{ outcome: 'read', failures: 0 }]);
});

t.test('a thousand seSparse snapshots of 128 GiB, whose tables are all there', async (t) => {
  const path = writeSeSparseStack(tempFolder(t), 1000, 8192);
  const uses = await useImages(t, [path], { extents: 100, reads: 20 });
  t.match(uses, [{ outcome: 'read', failures: 0 }]);
});

t.test('the longest logs of a VHDX', async (t) => {
  const folder = tempFolder(t);
  const [zeroes, data] = [join(folder, 'zeroes.vhdx'), join(folder, 'data.vhdx')];
  writeLongLog(zeroes, MAX_LOG_UPDATES, 'zeroes');
  writeLongLog(data, 20_000, 'data');
  const uses = await useImages(t, [zeroes, data], { extents: 100, reads: 20 });
  t.match(uses, [
    { outcome: 'read', failures: 0 },
    { outcome: 'read', failures: 0 },
  ]);
  const grown = uses.at(-1)!.peak - uses[0]!.rest;
  t.ok(grown < 64 * MiB, 'four threads of a daemon have them open');
});

t.test('compressed clusters of the largest size', async (t) => {
  const folder = tempFolder(t);
  const size = 32 * MiB;
  const paths = (['deflate', 'zstd'] as const).map((compression) => {
    const model = stampedModel({ size, unitSize: 2 * MiB, pattern: 'd', salt: 1 });
    const path = join(folder, `${compression}.qcow2`);
    writeQcow2(path, { model, clusterBits: 21, compressed: () => true, compression });
    return path;
  });
  t.match(await useImages(t, paths), [{ outcome: 'read' }, { outcome: 'read' }]);
});

t.test('descriptors of a VMDK', async (t) => {
  const folder = tempFolder(t);
  const head = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="custom"\n';
  const large = join(folder, 'large.vmdk');
  writeFileSync(large, head + '# nothing\n'.repeat(2 * MiB));
  const extents = join(folder, 'extents.vmdk');
  writeFileSync(extents, head + 'RW 2048 ZERO\n'.repeat(70_000));
  const long = join(folder, 'long.vmdk');
  writeFileSync(long, `${head}x="${'y'.repeat(20 * MiB)}"\n`);
  const uses = await useImages(t, [large, extents, long]);
  t.equal(uses.length, 3);
});

t.test('disks of 64 TiB that only their headers claim', async (t) => {
  const folder = tempFolder(t);
  const raw = join(folder, 'disk.raw');
  closeSync(openSync(raw, 'w'));
  await tool('truncate', ['-s', '8E', raw]).catch(() => tool('truncate', ['-s', '15T', raw]));
  const vdi = join(folder, 'disk.vdi');
  await tool('qemu-img', ['create', '-q', '-f', 'vdi', vdi, String(2 * TiB - GiB)]);
  const vhdx = join(folder, 'disk.vhdx');
  const options = ['-o', 'block_size=1M'];
  await tool('qemu-img', ['create', '-q', '-f', 'vhdx', ...options, vhdx, String(16 * TiB)]);
  const vmdk = join(folder, 'disk.vmdk');
  await tool('qemu-img', ['create', '-q', '-f', 'vmdk', vmdk, String(2 * TiB - GiB)]);
  t.equal((await useImages(t, [raw, vdi, vhdx, vmdk], { extents: 20_000 })).length, 4);
});

t.test('images of the corpus that are refused or damaged', async (t) => {
  const corpus = openCorpus(t, tempFolder(t));
  if (corpus === undefined) return;
  const broken = corpus.images.filter(({ expect }) => expect !== 'ok');
  const paths = broken.map((image) => corpus.unpack(image)[0]);
  t.equal((await useImages(t, paths, { extents: 500, reads: 40 })).length, paths.length);
});
