/**
 * Following parents: where they may lie, what identifies them, and what is said when they are not
 * there.
 */
import { linkSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import t from 'tap';
import type { DiskImage } from '../../src/engine/disk-image.js';
import { ImageBase } from '../../src/formats/base.js';
import { type ChainOptions, openChain } from '../../src/formats/open-chain.js';
import { firstDifference, openDescriptors } from '../conformance/image-suite.js';
import { mergedContent, stampedModel } from '../support/disk-model.js';
import { writeQcow2 } from '../support/qcow2-writer.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeVdi } from '../support/vdi-writer.js';
import { writeMonolithic } from '../support/vmdk-writer.js';

const SIZE = 40 * 4096;

/** UUIDs of image `n` of a chain: its own and that of its last modification. */
const uuidOf = (n: number) => `${String(n).padStart(8, '0')}-0000-4000-8000-000000000000`;
const modificationOf = (n: number) => `${String(n).padStart(8, '0')}-1111-4000-8000-000000000000`;

function modelOf(n: number) {
  const pattern = n === 0 ? 'ddudz' : ['duuuz', 'uduzuuu', 'uuud'][n % 3]!;
  return stampedModel({ size: SIZE, unitSize: 4096, pattern, salt: n });
}

/** Image `n` of a chain, differencing unless it is image 0. */
function writeLink(path: string, n: number, parent = n - 1): string {
  writeVdi(path, modelOf(n), {
    uuid: uuidOf(n),
    modification: modificationOf(n),
    ...(n === 0
      ? {}
      : { type: 4, parent: uuidOf(parent), parentModification: modificationOf(parent) }),
  });
  return path;
}

function readAll(images: DiskImage[]): Buffer {
  const base = new ImageBase(images);
  const whole = Buffer.alloc(base.virtualSize, 0xee);
  base.readAt(whole, 0, 0, whole.length);
  return whole;
}

function closeAll(images: DiskImage[]): void {
  for (const image of images) image.close();
}

/** Opens, closes, and answers the file names, top first. */
function namesOf(path: string, options: ChainOptions = {}): string[] {
  const images = openChain(path, options);
  closeAll(images);
  return images.map((image) => basename(image.path));
}

t.test(
  'three VDIs deep, parents found by the name VirtualBox gives them or by their UUID',
  async (t) => {
    const folder = tempFolder(t);
    const before = openDescriptors();
    writeLink(join(folder, 'base disk.VDI'), 0);
    writeLink(join(folder, `{${uuidOf(1)}}.vdi`), 1);
    writeLink(join(folder, `${uuidOf(2)}.vdi`), 2);
    const top = writeLink(join(folder, 'top.vdi'), 3);
    writeLink(join(folder, 'stranger.vdi'), 0);
    writeLink(join(folder, 'stranger.vdi'), 7, 6);
    const warnings: string[] = [];
    const images = openChain(top, { onWarning: (text) => warnings.push(text) });
    const expected = mergedContent([3, 2, 1, 0].map(modelOf));
    t.equal(firstDifference(readAll(images), expected), -1);
    t.strictSame(
      images.map((image) => basename(image.path)),
      ['top.vdi', `${uuidOf(2)}.vdi`, `{${uuidOf(1)}}.vdi`, 'base disk.VDI'],
    );
    t.strictSame(warnings, []);
    closeAll(images);
    t.equal(openDescriptors(), before);
  },
);

t.test('the grandparent lies in an allowed folder, not elsewhere', async (t) => {
  const folder = tempFolder(t);
  const before = openDescriptors();
  const snapshots = join(folder, 'Snapshots');
  mkdirSync(snapshots);
  writeLink(join(folder, 'base.vdi'), 0);
  writeLink(join(snapshots, 'one.vdi'), 1);
  const top = writeLink(join(snapshots, 'two.vdi'), 2);
  const error = { code: 'not-found', message: /its parent is missing; tried .*every \*\.vdi in/ };
  t.throws(() => openChain(top), { ...error, hint: /--parent FILE/ });
  t.equal(openDescriptors(), before, 'nothing stays open after a refusal');
  t.strictSame(namesOf(top, { allowFolders: [folder] }), ['two.vdi', 'one.vdi', 'base.vdi']);
  t.strictSame(namesOf(top, { parent: join(folder, 'base.vdi') }), [
    'two.vdi',
    'one.vdi',
    'base.vdi',
  ]);
  const outside = { code: 'not-permitted', message: /lies outside the folder/ };
  symlinkSync(join(folder, 'base.vdi'), join(snapshots, `{${uuidOf(0)}}.vdi`));
  t.throws(() => openChain(top), outside, 'a link out of the folder does not help');
});

t.test('a parent known by an id is found by its bare name in an allowed folder', async (t) => {
  const [folder, elsewhere] = [tempFolder(t), tempFolder(t)];
  const model = stampedModel({ size: 65536, unitSize: 65536, pattern: 'd', salt: 1 });
  const empty = stampedModel({ size: 65536, unitSize: 65536, pattern: 'u', salt: 1 });
  const base = join(elsewhere, 'base.vmdk');
  const top = join(folder, 'top.vmdk');
  writeMonolithic(base, model, { cid: '00000abc' });
  for (const parentName of [
    'C:\\VMs\\base.vmdk',
    '/vmfs/volumes/one/base.vmdk',
    '../x/base.vmdk',
  ]) {
    writeMonolithic(top, empty, { parentCid: 'abc', parentName });
    t.throws(() => openChain(top), { code: 'not-found', hint: /--allow-folder/ }, parentName);
    const chain = openChain(top, { allowFolders: [elsewhere] });
    t.strictSame(
      chain.map((image) => image.path),
      [top, base],
      parentName,
    );
    for (const image of chain) image.close();
  }
  writeMonolithic(base, model, { cid: '00000abd' });
  t.throws(() => openChain(top, { allowFolders: [elsewhere] }), /CID 00000abc.* has CID 00000abd/);
  const overlay = join(folder, 'top.qcow2');
  const backing = { name: 'base.vmdk', format: 'vmdk' };
  writeQcow2(overlay, { model: empty, clusterBits: 16, backing });
  t.throws(() => openChain(overlay, { allowFolders: [elsewhere] }), { code: 'not-found' }, 'no id');
});

t.test('a parent known by an id is found by its name in another case', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: 65536, unitSize: 65536, pattern: 'd', salt: 1 });
  const empty = stampedModel({ size: 65536, unitSize: 65536, pattern: 'u', salt: 1 });
  const top = join(folder, 'top.vmdk');
  writeMonolithic(join(folder, 'Base.vmdk'), model, { cid: '00000abc' });
  writeMonolithic(top, empty, { parentCid: 'abc', parentName: 'C:\\VMs\\BASE.VMDK' });
  t.strictSame(namesOf(top), ['top.vmdk', 'Base.vmdk']);
  writeMonolithic(join(folder, 'base.vmdk'), model, { cid: '00000abd' });
  t.throws(() => openChain(top), { code: 'not-found' }, 'several: nobody guesses');
  writeMonolithic(join(folder, 'BASE.VMDK'), model, { cid: '00000abc' });
  t.strictSame(namesOf(top), ['top.vmdk', 'BASE.VMDK'], 'the very name comes first');
  const overlay = join(folder, 'top.qcow2');
  const backing = { name: 'bAsE.vmdk', format: 'vmdk' };
  writeQcow2(overlay, { model: empty, clusterBits: 16, backing });
  t.throws(() => openChain(overlay), { code: 'not-found' }, 'no id');
});

t.test('--parent: must be the right one, and must be needed', async (t) => {
  const folder = tempFolder(t);
  const elsewhere = tempFolder(t);
  const base = writeLink(join(elsewhere, 'base.vdi'), 0);
  const stranger = writeLink(join(elsewhere, 'stranger.vdi'), 5);
  const top = writeLink(join(folder, 'top.vdi'), 1);
  t.strictSame(namesOf(top, { parent: base }), ['top.vdi', 'base.vdi']);
  t.throws(() => openChain(top, { parent: stranger }), {
    code: 'damaged',
    message: /must be the disk with UUID 00000000-0000.* has UUID 00000005/,
  });
  t.throws(() => openChain(top, { parent: join(elsewhere, 'none') }), {
    code: 'not-found',
    message: /none: no such file/,
  });
  t.throws(() => openChain(base, { parent: stranger }), {
    code: 'usage',
    message: /needs .*stranger\.vdi as parent/,
  });
  const raw = join(elsewhere, 'raw');
  writeFileSync(raw, Buffer.alloc(512));
  t.throws(() => openChain(top, { parent: raw }), { code: 'damaged', message: /is raw/ });
});

t.test('a parent written to since its child was made is told', async (t) => {
  const folder = tempFolder(t);
  writeVdi(join(folder, 'base.vdi'), modelOf(0), { uuid: uuidOf(0), modification: uuidOf(99) });
  const top = writeLink(join(folder, 'top.vdi'), 1);
  const warnings: string[] = [];
  closeAll(openChain(top, { onWarning: (text) => warnings.push(text) }));
  t.match(warnings, [/base\.vdi was written to since its child was made/]);
});

t.test('two files with the UUID of the parent are one too many', async (t) => {
  const folder = tempFolder(t);
  writeLink(join(folder, 'base.vdi'), 0);
  writeLink(join(folder, 'copy.vdi'), 0);
  const top = writeLink(join(folder, 'top.vdi'), 1);
  t.throws(() => openChain(top), { code: 'exists', message: /several files claim.*copy\.vdi/ });
  t.strictSame(namesOf(top, { parent: join(folder, 'copy.vdi') }), ['top.vdi', 'copy.vdi']);
});

t.test('rings are seen, also through links', async (t) => {
  const folder = tempFolder(t);
  const before = openDescriptors();
  const self = writeLink(join(folder, 'self.vdi'), 4, 4);
  t.throws(() => openChain(self), { code: 'damaged', message: /is its own ancestor/ });
  const one = writeLink(join(folder, `{${uuidOf(1)}}.vdi`), 1, 2);
  writeLink(join(folder, `{${uuidOf(2)}}.vdi`), 2, 1);
  t.throws(() => openChain(one), { code: 'damaged', message: /is its own ancestor/ });
  const other = join(folder, 'other');
  mkdirSync(other);
  const hard = writeLink(join(other, 'hard.vdi'), 6, 6);
  linkSync(hard, join(other, `{${uuidOf(6)}}.vdi`));
  t.throws(() => openChain(hard), { code: 'damaged', message: /is its own ancestor/ });
  t.equal(openDescriptors(), before);
});

t.test('a thousand images are followed, one more is refused', async (t) => {
  const folder = tempFolder(t);
  const small = (n: number) =>
    stampedModel({ size: 512, unitSize: 512, pattern: n ? 'u' : 'd', salt: 0 });
  for (let n = 0; n <= 1000; n += 1) {
    writeVdi(join(folder, `{${uuidOf(n)}}.vdi`), small(n), {
      uuid: uuidOf(n),
      ...(n === 0 ? {} : { type: 4, parent: uuidOf(n - 1) }),
    });
  }
  const images = openChain(join(folder, `{${uuidOf(999)}}.vdi`));
  t.equal(images.length, 1000);
  t.ok(readAll(images).equals(small(0).content));
  closeAll(images);
  t.throws(() => openChain(join(folder, `{${uuidOf(1000)}}.vdi`)), {
    code: 'not-supported',
    message: /more than 1000 images/,
  });
});

t.test('a shorter parent ends in zeroes, whatever lies below it', async (t) => {
  const folder = tempFolder(t);
  const models = [
    stampedModel({ size: 50 * 512, unitSize: 512, pattern: 'uuud', salt: 3 }),
    stampedModel({ size: 21 * 512 - 100, unitSize: 512, pattern: 'udu', salt: 2 }),
    stampedModel({ size: 40 * 512, unitSize: 512, pattern: 'd', salt: 1 }),
  ];
  for (const [index, model] of models.entries()) {
    const n = 2 - index;
    writeVdi(join(folder, `{${uuidOf(n)}}.vdi`), model, {
      uuid: uuidOf(n),
      ...(n === 0 ? {} : { type: 4, parent: uuidOf(n - 1) }),
    });
  }
  const images = openChain(join(folder, `{${uuidOf(2)}}.vdi`));
  t.teardown(() => closeAll(images));
  const expected = mergedContent(models);
  const whole = readAll(images);
  t.equal(firstDifference(whole, expected), -1);
});

t.test('a link as top image: its parents lie beside what it points to', async (t) => {
  const folder = tempFolder(t);
  const elsewhere = tempFolder(t);
  writeLink(join(folder, 'base.vdi'), 0);
  const top = writeLink(join(folder, 'top.vdi'), 1);
  const link = join(elsewhere, 'link.vdi');
  symlinkSync(top, link);
  t.strictSame(namesOf(link), ['link.vdi', 'base.vdi']);
  renameSync(top, join(folder, 'moved.vdi'));
  t.throws(() => openChain(link), { code: 'not-found', message: /link\.vdi: no such file/ });
});
