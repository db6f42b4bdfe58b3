/**
 * VMDK: the shared suite on every kind of extent, and agreement with qemu-img in both directions.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { ExtentState } from '../../src/engine/disk-image.js';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openImage, probeImage } from '../../src/formats/registry.js';
import { openVmdk } from '../../src/formats/vmdk/vmdk-image.js';
import { firstDifference, imageSuite } from '../conformance/image-suite.js';
import { type DiskModel, mergedContent, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';
import {
  buildCowd,
  buildSeSparse,
  buildSparse,
  descriptorText,
  type SparseOptions,
  writeMonolithic,
} from '../support/vmdk-writer.js';

const SPARSE = { format: 'vmdk', zeroExtents: true, unallocatedExtents: true };
const FLAT = { format: 'vmdk', zeroExtents: true, unallocatedExtents: false };
const GRAIN = 65536;

/**
 * Models as one: the parts of a split disk, in order. All units must be equal, all parts whole
 * units.
 */
function joined(parts: readonly DiskModel[]): DiskModel {
  const states: ExtentState[] = parts.flatMap((part) => [...part.states]);
  const content = Buffer.concat(parts.map((part) => part.content));
  return { size: content.length, unitSize: parts[0]!.unitSize, states, content };
}

t.test('one file: sparse and streamed', async (t) => {
  const folder = tempFolder(t);
  const shapes: {
    name: string;
    size: number;
    unit?: number;
    pattern: string;
    o?: SparseOptions;
  }[] = [
    { name: 'grains of 64 KiB', size: GRAIN * 30, pattern: 'dduud' },
    {
      name: 'zeroed grains',
      size: GRAIN * 30 + 512,
      pattern: 'dzudz',
      o: { zeroedGrains: true, version: 2 },
    },
    {
      name: 'smallest grains, many tables',
      size: 512 * 3000,
      unit: 512,
      pattern: `${'d'.repeat(5)}${'u'.repeat(1024)}`,
      o: { entriesPerTable: 64 },
    },
    { name: 'disk smaller than a grain', size: 5 * 512, pattern: 'd' },
    { name: 'empty', size: GRAIN * 600, pattern: 'u' },
    { name: 'streamed, directory first', size: GRAIN * 20, pattern: 'ddu', o: { stream: 'start' } },
    {
      name: 'streamed, directory last',
      size: GRAIN * 20 + 1024,
      pattern: 'ddu',
      o: { stream: 'end', version: 3 },
    },
    {
      name: 'streamed, more grains than are kept',
      size: GRAIN * 80,
      pattern: 'd',
      o: { stream: 'end' },
    },
  ];
  for (const [index, { name, size, unit = GRAIN, pattern, o = {} }] of shapes.entries()) {
    const model = stampedModel({ size, unitSize: unit, pattern, salt: index });
    const path = join(folder, `${index}.vmdk`);
    writeMonolithic(path, model, o);
    t.equal(probeImage(path), 'vmdk');
    imageSuite(t, name, () => openVmdk(path), model, SPARSE);
  }
});

t.test('ESXi sparse extents', async (t) => {
  const folder = tempFolder(t);
  const write = (name: string, kind: string, model: DiskModel, extent: Buffer) => {
    const line = `RW ${model.size / 512} ${kind} "${name}-delta.vmdk"`;
    const path = join(folder, `${name}.vmdk`);
    writeFileSync(path, descriptorText({ createType: 'vmfsSparse', extents: [line] }));
    writeFileSync(join(folder, `${name}-delta.vmdk`), extent);
    return path;
  };
  const cowd = stampedModel({ size: 512 * 9001, unitSize: 512, pattern: 'ddduud', salt: 1 });
  const hole = stampedModel({
    size: 4096 * 5000,
    unitSize: 4096,
    pattern: `d${'u'.repeat(4500)}`,
    salt: 2,
  });
  const se = stampedModel({
    size: 4096 * 5000 + 512,
    unitSize: 4096,
    pattern: `dzudz${'u'.repeat(400)}`,
    salt: 3,
  });
  const cowdPath = write('cowd', 'VMFSSPARSE', cowd, buildCowd(cowd));
  const holePath = write('hole', 'VMFSSPARSE', hole, buildCowd(hole));
  const sePath = write('se', 'SESPARSE', se, buildSeSparse(se));
  imageSuite(t, 'COWD, grains of a sector', () => openVmdk(cowdPath), cowd, SPARSE);
  imageSuite(t, 'COWD, an absent table', () => openVmdk(holePath), hole, SPARSE);
  imageSuite(t, 'seSparse', () => openVmdk(sePath), se, { ...SPARSE, reads: 100 });
});

t.test('split disks, flat and sparse and without a file, mixed', async (t) => {
  const folder = tempFolder(t);
  const unitSize = 4096;
  const part = (units: number, pattern: string, salt: number) =>
    stampedModel({ size: unitSize * units, unitSize, pattern, salt });
  const [flat, sparse, none, vmfs] = [
    part(9, 'dzz', 1),
    part(40, 'duu', 2),
    part(5, 'z', 3),
    part(7, 'd', 4),
  ];
  writeFileSync(
    join(folder, 's001.vmdk'),
    buildSparse(sparse, { capacity: (sparse.size + 8192) / 512 }),
  );
  const fd = openSync(join(folder, 'f 1.vmdk'), 'w');
  truncateSync(join(folder, 'f 1.vmdk'), 16384 + flat.size + 4096);
  for (const [unit, state] of flat.states.entries()) {
    const at = unit * unitSize;
    if (state === 'data') writeSync(fd, flat.content, at, unitSize, 16384 + at);
  }
  closeSync(fd);
  writeFileSync(join(folder, 'flat.vmdk'), vmfs.content);
  const extents = [
    `RW ${flat.size / 512} FLAT "f 1.vmdk" 32`,
    `RW ${sparse.size / 512} SPARSE "s001.vmdk"`,
    `RDONLY ${none.size / 512} ZERO`,
    `RW ${vmfs.size / 512} VMFS "flat.vmdk"`,
  ];
  const path = join(folder, 'disk.vmdk');
  writeFileSync(path, descriptorText({ createType: 'custom', extents }));
  const model = joined([flat, sparse, none, vmfs]);
  imageSuite(t, 'custom', () => openVmdk(path), model, SPARSE);
  const image = openVmdk(path);
  t.teardown(() => image.close());
  t.strictSame(
    image.files,
    ['disk.vmdk', 'f 1.vmdk', 's001.vmdk', 'flat.vmdk'].map((name) => join(folder, name)),
  );
  t.match(image.info(), {
    subformat: 'custom',
    unitSize,
    identity: { cid: '1234abcd', 'parent-cid': 'ffffffff' },
  });

  const flatOnly = join(folder, 'flat-only.vmdk');
  writeFileSync(
    flatOnly,
    descriptorText({ createType: 'monolithicFlat', extents: [extents[0]!, extents[2]!] }),
  );
  imageSuite(t, 'flat and zero', () => openVmdk(flatOnly), joined([flat, none]), FLAT);
});

t.test('descriptors: encodings, line ends, byte order mark', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: 4096, unitSize: 4096, pattern: 'd', salt: 1 });
  for (const [encoding, name, bytes] of [
    ['UTF-8', 'd\u00fcsk.vmdk', Buffer.from('d\u00fcsk.vmdk')],
    ['windows-1252', 'd\u00fcsk \u20ac.vmdk', Buffer.from('64fc736b20802e766d646b', 'hex')],
    ['IBM437', 'disk.img', Buffer.from('disk.img')],
    ['GBK', '\u78c1\u76d8.vmdk', Buffer.from('b4c5c5cc2e766d646b', 'hex')],
  ] as const) {
    writeFileSync(join(folder, name), model.content);
    const path = join(folder, `of ${encoding}.vmdk`);
    const text = descriptorText({ createType: 'vmfs', encoding, extents: ['RW 8 VMFS "@"'] });
    const [before, after] = text.replaceAll('\n', '\r\n').split('@');
    const parts = [Buffer.from(before!), bytes, Buffer.from(after!)];
    if (encoding === 'UTF-8') parts.unshift(Buffer.from([0xef, 0xbb, 0xbf]));
    writeFileSync(path, Buffer.concat(parts));
    imageSuite(t, encoding, () => openImage(path), model, FLAT);
  }
  const path = join(folder, 'disk.vmdk');
  const seven = descriptorText({ createType: 'vmfs', encoding: 'klingon', extents: ['RW 8 ZERO'] });
  writeFileSync(path, `${seven}# \x1b$B`);
  t.throws(() => openImage(path), { code: 'not-supported' }, 'a seven-bit encoding');
});

t.test('descriptors: a million empty lines take no time', async (t) => {
  const path = join(tempFolder(t), 'disk.vmdk');
  const text = descriptorText({ createType: 'custom', extents: ['RW 8 ZERO'] });
  // The encoding would be looked for behind them.
  writeFileSync(path, text.replace(/encoding=.*\n/, '') + '\n'.repeat(1_000_000));
  const started = performance.now();
  openVmdk(path).close();
  t.ok(performance.now() - started < 10_000);
});

t.test('a capacity rounded up to whole grains: the descriptor tells the size', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: GRAIN * 4 + 1536, unitSize: GRAIN, pattern: 'ud', salt: 3 });
  for (const stream of [undefined, 'end'] as const) {
    const path = join(folder, `${stream}.vmdk`);
    writeFileSync(
      path,
      buildSparse(model, {
        capacity: (GRAIN * 5) / 512,
        descriptor: descriptorText({
          createType: stream === undefined ? 'monolithicSparse' : 'streamOptimized',
          extents: [`RW ${model.size / 512} SPARSE "disk.vmdk"`],
        }),
        ...(stream === undefined ? {} : { stream }),
      }),
    );
    imageSuite(t, `stream ${stream}`, () => openImage(path), model, {
      ...SPARSE,
      zeroExtents: false,
    });
  }
});

t.test('unknown flags that are compatible are noted', async (t) => {
  const path = join(tempFolder(t), 'disk.vmdk');
  const model = stampedModel({ size: GRAIN * 4, unitSize: GRAIN, pattern: 'ud', salt: 4 });
  writeMonolithic(path, model);
  const file = readFileSync(path);
  file.writeUInt32LE(0x8083, 8);
  writeFileSync(path, file);
  const image = openVmdk(path);
  t.strictSame(image.info().notes, ['unknown compatible flags: 0x8080']);
  image.close();
  imageSuite(t, 'read all the same', () => openVmdk(path), model, {
    ...SPARSE,
    zeroExtents: false,
  });
});

t.test('descriptors: names of values are free', async (t) => {
  const path = join(tempFolder(t), 'disk.vmdk');
  const text = descriptorText({ createType: 'custom', extents: ['RW 8 ZERO'] });
  writeFileSync(path, `${text}ddb.fcd.metadata/a-b:c = "1"\nddb.\u540d = x\n`);
  const image = openVmdk(path);
  t.equal(image.virtualSize, 4096);
  image.close();
});

t.test('snapshots: three deep, zeroed grains hide the parent', async (t) => {
  const folder = tempFolder(t);
  const models = ['uduuzuu', 'udzuu', 'dduzd'].map((pattern, index) =>
    stampedModel({ size: GRAIN * 30, unitSize: GRAIN, pattern, salt: index }),
  );
  const cids = ['00000abc', 'deadbeef', '00000001'];
  const names = ['top.vmdk', 'middle.vmdk', 'base.vmdk'];
  for (const [index, model] of models.entries()) {
    writeMonolithic(join(folder, names[index]!), model, {
      zeroedGrains: true,
      // VMware drops leading zeroes.
      cid: Number.parseInt(cids[index]!, 16).toString(16),
      ...(index === 2
        ? {}
        : {
            parentCid: cids[index + 1]!,
            parentName: index === 0 ? names[1]! : `C:\\\\VMs\\\\${names[2]}`,
          }),
    });
  }
  const top = join(folder, 'top.vmdk');
  const images = openChain(top);
  const base = new ImageBase(images);
  const whole = Buffer.alloc(base.virtualSize);
  base.readAt(whole, 0, 0, whole.length);
  base.close();
  t.equal(firstDifference(whole, mergedContent(models)), -1);
  t.strictSame(
    images.map((image) => image.path),
    names.map((name) => join(folder, name)),
  );

  writeMonolithic(join(folder, 'base.vmdk'), models[2]!, { zeroedGrains: true, cid: '2' });
  t.throws(() => openChain(top), {
    code: 'damaged',
    message: /the parent must be the VMDK with CID 00000001, .*base\.vmdk has CID 00000002/,
  });
});

t.test('qemu-img reads ours the same', async (t) => {
  const qemu = qemuImg(t);
  if (qemu === undefined) return;
  const folder = tempFolder(t);
  const raw = join(folder, 'disk.raw');
  const path = join(folder, 'disk.vmdk');
  const compare = (name: string, model: DiskModel) => {
    writeFileSync(raw, model.content);
    execFileSync(qemu, ['compare', '-f', 'vmdk', '-F', 'raw', path, raw]);
    t.pass(name);
  };
  const model = stampedModel({ size: GRAIN * 30, unitSize: GRAIN, pattern: 'duuz', salt: 1 });
  writeMonolithic(path, model, { zeroedGrains: true });
  compare('monolithicSparse', model);
  const packed = stampedModel({ size: GRAIN * 30, unitSize: GRAIN, pattern: 'duud', salt: 2 });
  for (const stream of ['start', 'end'] as const) {
    writeMonolithic(path, packed, { stream });
    compare(`streamOptimized, directory at the ${stream}`, packed);
  }
  const cowd = stampedModel({ size: 512 * 9000, unitSize: 512, pattern: 'dduud', salt: 3 });
  writeFileSync(join(folder, 'd.vmdk'), buildCowd(cowd));
  writeFileSync(
    path,
    descriptorText({ createType: 'vmfsSparse', extents: ['RW 9000 VMFSSPARSE "d.vmdk"'] }),
  );
  compare('vmfsSparse', cowd);
  const se = stampedModel({
    size: 4096 * 5000,
    unitSize: 4096,
    pattern: `dzud${'u'.repeat(800)}`,
    salt: 4,
  });
  writeFileSync(join(folder, 'd.vmdk'), buildSeSparse(se));
  writeFileSync(
    path,
    descriptorText({ createType: 'seSparse', extents: ['RW 40000 SESPARSE "d.vmdk"'] }),
  );
  compare('seSparse', se);
});

t.test('ours reads what qemu-img makes', async (t) => {
  const qemu = qemuImg(t);
  if (qemu === undefined) return;
  const folder = tempFolder(t);
  const raw = join(folder, 'disk.raw');
  const model = stampedModel({
    size: GRAIN * 50 + 4096,
    unitSize: GRAIN,
    pattern: 'duud',
    salt: 1,
  });
  writeFileSync(raw, model.content);
  const types = [
    'monolithicSparse',
    'monolithicFlat',
    'twoGbMaxExtentSparse',
    'twoGbMaxExtentFlat',
    'streamOptimized',
  ];
  for (const type of types) {
    const path = join(folder, `${type}.vmdk`);
    execFileSync(qemu, ['convert', '-O', 'vmdk', '-o', `subformat=${type}`, raw, path]);
    const base = new ImageBase(openChain(path));
    const whole = Buffer.alloc(base.virtualSize);
    base.readAt(whole, 0, 0, whole.length);
    base.close();
    t.equal(firstDifference(whole, readFileSync(raw)), -1, type);
  }
  t.ok(readdirSync(folder).length > types.length, 'split ones have extents of their own');
});
