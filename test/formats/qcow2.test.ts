/** qcow2: the shared suite on images of many shapes, from this project's own writer. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openChain } from '../../src/formats/open-chain.js';
import { openQcow2 } from '../../src/formats/qcow2/qcow2-image.js';
import { firstDifference, imageSuite } from '../conformance/image-suite.js';
import { readChain } from '../support/chain-reader.js';
import { mergedContent, stampedModel } from '../support/disk-model.js';
import { type Qcow2Plan, writeQcow2 } from '../support/qcow2-writer.js';
import { createRandom } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';

const CAPABILITIES = { format: 'qcow2', zeroExtents: true, unallocatedExtents: true };

interface Shape {
  readonly name: string;
  readonly size: number;
  readonly pattern: string;
  readonly plan: Omit<Qcow2Plan, 'model'>;
}

const SHAPES: readonly Shape[] = [
  {
    name: '64 KiB clusters, all states',
    size: 1 << 20,
    pattern: 'dduzzdud',
    plan: { clusterBits: 16 },
  },
  {
    name: 'zero clusters with a place',
    size: 1 << 20,
    pattern: 'dzuz',
    plan: { clusterBits: 16, zeroAllocated: true },
  },
  { name: '512-byte clusters', size: 512 * 777, pattern: 'ddduzzu', plan: { clusterBits: 9 } },
  { name: 'cut last cluster', size: 4096 * 9 + 512, pattern: 'dud', plan: { clusterBits: 12 } },
  { name: 'no whole sectors', size: 70_001, pattern: 'dz', plan: { clusterBits: 12 } },
  { name: 'one sector', size: 512, pattern: 'd', plan: { clusterBits: 16 } },
  { name: 'nothing allocated', size: 3 << 20, pattern: 'u', plan: { clusterBits: 16 } },
  { name: '2 MiB clusters', size: 9 << 20, pattern: 'dzud', plan: { clusterBits: 21 } },
  { name: 'version 2', size: 1 << 20, pattern: 'ddu', plan: { clusterBits: 16, version: 2 } },
  {
    name: 'deflate, every other cluster',
    size: 1 << 20,
    pattern: 'dddduz',
    plan: { clusterBits: 14, compressed: (cluster) => cluster % 2 === 0 },
  },
  {
    name: 'zstd, all clusters',
    size: 1 << 20,
    pattern: 'ddddu',
    plan: { clusterBits: 16, compression: 'zstd', compressed: () => true },
  },
  {
    name: 'subclusters',
    size: 1 << 20,
    pattern: 'dduzduzzzdddduuudz',
    plan: { clusterBits: 16, extendedL2: true },
  },
  {
    name: 'subclusters of 512 bytes, cut end, compressed clusters between',
    size: (1 << 18) + 512 * 5,
    pattern: `${'d'.repeat(64)}${'dzu'.repeat(32)}`,
    plan: { clusterBits: 14, extendedL2: true, compressed: (cluster) => cluster % 2 === 1 },
  },
  {
    name: 'host clusters in reverse order',
    size: 1 << 18,
    pattern: 'ddd',
    plan: { clusterBits: 12, place: (nth) => 200 - nth },
  },
];

t.test('images of many shapes', async (t) => {
  const folder = tempFolder(t);
  const qemu = qemuImg(t);
  for (const [index, { name, size, pattern, plan }] of SHAPES.entries()) {
    const clusterSize = 2 ** plan.clusterBits;
    const unitSize = plan.extendedL2 === true ? clusterSize / 32 : clusterSize;
    const model = stampedModel({ size, unitSize, pattern, salt: index });
    const path = join(folder, `${index}.qcow2`);
    writeQcow2(path, { ...plan, model });
    if (qemu !== undefined && plan.place === undefined && size % 512 === 0) {
      execFileSync(qemu, ['check', '-q', path]);
      t.pass(`${name}: qemu-img check finds the writer's image sound`);
    }
    imageSuite(t, name, () => openQcow2(path), model, CAPABILITIES);
  }
});

t.test('shuffled host clusters', async (t) => {
  const folder = tempFolder(t);
  const random = createRandom(7);
  const order = Array.from({ length: 256 }, (_, index) => index + 64);
  for (let index = order.length - 1; index > 0; index -= 1) {
    const other = random.below(index + 1);
    [order[index], order[other]] = [order[other]!, order[index]!];
  }
  const model = stampedModel({ size: 1 << 20, unitSize: 4096, pattern: 'dddddddduz', salt: 3 });
  const path = join(folder, 'a.qcow2');
  writeQcow2(path, { model, clusterBits: 12, place: (nth) => order[nth]! });
  imageSuite(t, 'shuffled', () => openQcow2(path), model, CAPABILITIES);
});

t.test('external data file', async (t) => {
  const folder = tempFolder(t);
  for (const extendedL2 of [false, true]) {
    const unitSize = extendedL2 ? 2048 : 65536;
    const model = stampedModel({ size: (1 << 20) + 512, unitSize, pattern: 'dduzd', salt: 9 });
    const path = join(folder, `x${extendedL2}.qcow2`);
    const dataFile = { name: `x${extendedL2}.raw`, path: join(folder, `x${extendedL2}.raw`) };
    writeQcow2(path, { model, clusterBits: 16, extendedL2, dataFile });
    imageSuite(t, `extended L2 ${extendedL2}`, () => openQcow2(path), model, CAPABILITIES);
    const image = openQcow2(path);
    t.strictSame(image.files, [path, dataFile.path]);
    image.close();
  }
});

t.test('names with the protocol of plain files', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: 8 * 4096, unitSize: 4096, pattern: 'd', salt: 1 });
  const empty = stampedModel({ size: 8 * 4096, unitSize: 4096, pattern: 'u', salt: 1 });
  const dataFile = { name: 'file:x.raw', path: join(folder, 'x.raw') };
  writeQcow2(join(folder, 'base.qcow2'), { model, clusterBits: 12, dataFile });
  const path = join(folder, 'top.qcow2');
  const absolute = join(folder, 'base.qcow2');
  for (const name of ['file:base.qcow2', `file://${absolute}`, `/${absolute}`]) {
    writeQcow2(path, { model: empty, clusterBits: 12, backing: { name, format: 'qcow2' } });
    const chain = openChain(path);
    t.equal(firstDifference(readChain(chain, 0, model.size), model.content), -1, name);
    for (const image of chain) image.close();
  }
  for (const name of ['file:/etc/passwd', 'file:nbd:host', 'file:', 'nbd:host']) {
    writeQcow2(path, { model: empty, clusterBits: 12, backing: { name, format: 'raw' } });
    t.throws(() => openChain(path), { name: 'DiskError', message: /its parent may not be/ }, name);
  }
});

t.test('backing files: an empty format counts as none', async (t) => {
  const folder = tempFolder(t);
  const [path, below] = [join(folder, 'top.qcow2'), join(folder, 'base.qcow2')];
  const models = ['ud', 'dd'].map((pattern, salt) =>
    stampedModel({ size: 8 * 4096, unitSize: 4096, pattern, salt }),
  );
  writeQcow2(below, { model: models[1]!, clusterBits: 12 });
  const backing = { name: 'base.qcow2', format: '' };
  writeQcow2(path, { model: models[0]!, clusterBits: 12, backing });
  const chain = openChain(path);
  t.strictSame(
    chain.map((image) => image.format),
    ['qcow2', 'qcow2'],
  );
  const expected = mergedContent(models);
  t.equal(firstDifference(readChain(chain, 0, expected.length), expected), -1);
  for (const image of chain) image.close();
  const qemu = qemuImg(t);
  if (qemu === undefined) return;
  const raw = join(folder, 'disk.raw');
  writeFileSync(raw, expected);
  execFileSync(qemu, ['compare', '-f', 'qcow2', '-F', 'raw', path, raw], { cwd: folder });
});

t.test('internal snapshots', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 's.qcow2');
  const shape = { unitSize: 65536, salt: 1 };
  const model = stampedModel({ ...shape, size: 1 << 20, pattern: 'dzu' });
  const first = stampedModel({ ...shape, size: 1 << 19, pattern: 'udd', salt: 2 });
  const second = stampedModel({ ...shape, size: 3 << 19, pattern: 'zdud', salt: 4 });
  const snapshots = [
    { name: 'before the update', model: first },
    { name: 'zweiter \u00e4', model: second },
  ];
  writeQcow2(path, { model, clusterBits: 16, snapshots });
  imageSuite(t, 'current state', () => openQcow2(path), model, CAPABILITIES);
  const byName = () => openQcow2(path, { snapshot: 'before the update' });
  imageSuite(t, 'snapshot by name', byName, first, CAPABILITIES);
  imageSuite(t, 'snapshot by id', () => openQcow2(path, { snapshot: '2' }), second, CAPABILITIES);
  const image = openQcow2(path, { snapshot: 'zweiter \u00e4' });
  const notes = image.info().notes.join('\n');
  image.close();
  t.match(notes, /shows the internal snapshot "zweiter \u00e4"/);
  const [oldest] = image.internalSnapshots ?? [];
  t.match(oldest, {
    id: '1',
    name: 'before the update',
    takenAt: Date.parse('2023-11-14T22:13:20Z') / 1000,
    virtualSize: 524288,
  });
  t.throws(() => openQcow2(path, { snapshot: 'x' }), { code: 'not-found', hint: /before the up/ });
});
