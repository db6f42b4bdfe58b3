/** VHDX: the shared suite on images of many shapes, and differencing chains. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { decodeParentLocator } from '../../src/formats/vhdx/parent-locator.js';
import { openVhdx, probeVhdx } from '../../src/formats/vhdx/vhdx-image.js';
import {
  LOCATOR_TYPE_VHDX,
  MAX_ITEM_LENGTH,
  PARENT_LOCATOR,
  PARENT_LOCATOR_ENTRY,
} from '../../src/formats/vhdx/vhdx-layout.js';
import { firstDifference, imageSuite } from '../conformance/image-suite.js';
import { readChain } from '../support/chain-reader.js';
import { type DiskModel, mergedContent, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';
import { type VhdxPlan, writeVhdx } from '../support/vhdx-writer.js';

const CAPABILITIES = { format: 'vhdx', zeroExtents: true, unallocatedExtents: true, reads: 60 };

interface Shape extends Omit<VhdxPlan, 'model'> {
  readonly name: string;
  readonly size: number;
  readonly pattern: string;
}

const SHAPES: readonly Shape[] = [
  { name: 'all states', size: 6 * MiB, blockSize: MiB, pattern: 'dzud' },
  { name: 'cut last block', size: 2 * MiB + 512, blockSize: MiB, pattern: 'd' },
  {
    name: 'one block of 32 MiB, mostly beyond the disk',
    size: MiB,
    blockSize: 32 * MiB,
    pattern: 'd',
  },
  { name: 'fixed', size: 3 * MiB, blockSize: MiB, pattern: 'd', fixed: true },
  { name: 'nothing allocated', size: 5 * MiB, blockSize: 2 * MiB, pattern: 'u' },
  {
    name: '4096-byte sectors',
    size: 4 * MiB + 4096,
    blockSize: MiB,
    pattern: 'ddzu',
    logicalSectorSize: 4096,
  },
  {
    name: 'blocks in reverse order, equal sequence numbers',
    size: 5 * MiB,
    blockSize: MiB,
    pattern: 'dd',
    place: (nth) => (40 - nth) * MiB,
    sequenceNumbers: [5n, 5n],
  },
];

t.test('images of many shapes', async (t) => {
  const folder = tempFolder(t);
  const qemu = qemuImg(t);
  for (const [index, { name, size, pattern, ...plan }] of SHAPES.entries()) {
    const model = stampedModel({ size, unitSize: plan.blockSize, pattern, salt: index });
    const path = join(folder, `${index}.vhdx`);
    writeVhdx(path, { ...plan, model });
    imageSuite(t, name, () => openVhdx(path), model, CAPABILITIES);
    if (qemu === undefined || plan.logicalSectorSize === 4096) continue;
    const raw = join(folder, `${index}.raw`);
    execFileSync(qemu, ['convert', '-O', 'raw', path, raw]);
    t.equal(firstDifference(readFileSync(raw), model.content), -1, `${name}: qemu-img agrees`);
  }
});

const GUIDS = [1, 2, 3].map((digit) => `aaaaaaaa-0000-0000-0000-00000000000${digit}`);

/** Three images on each other, by sectors; every second is in another folder, names with spaces. */
function makeChain(
  folder: string,
  logicalSectorSize: 512 | 4096,
): { paths: string[]; models: DiskModel[] } {
  mkdirSync(join(folder, 'below it'), { recursive: true });
  const names = ['top.avhdx', 'below it/middle one.avhdx', 'base.vhdx'];
  const parents = ['.\\below it\\middle one.avhdx', '..\\base.vhdx'];
  const paths = names.map((name) => join(folder, name));
  const block = (pattern: string) => pattern.repeat(MiB / logicalSectorSize / pattern.length);
  const patterns = [
    block('duud') + block('u') + block('duuuuuuu') + block('d') + block('uuuudddd'),
    block('ud') + block('dduu') + block('z') + block('u') + block('uudd'),
    block('d') + block('z') + block('d') + block('u'),
  ];
  const sizes = [5 * MiB, 5 * MiB, 4 * MiB];
  const models = patterns.map((pattern, index) =>
    stampedModel({
      size: sizes[index]!,
      unitSize: logicalSectorSize,
      pattern,
      salt: 50 + index,
    }),
  );
  for (const [index, model] of models.entries()) {
    const relative = parents[index];
    writeVhdx(paths[index]!, {
      model,
      blockSize: MiB,
      logicalSectorSize,
      dataWriteGuid: GUIDS[index]!,
      ...(relative === undefined
        ? {}
        : {
            parent: {
              parent_linkage: `{${GUIDS[index + 1]!.toUpperCase()}}`,
              relative_path: relative,
              absolute_win32_path: `\\\\?\\C:\\gone\\${relative}`,
            },
          }),
    });
  }
  return { paths, models };
}

t.test('differencing chains of three, partially present blocks', async (t) => {
  for (const logicalSectorSize of [512, 4096] as const) {
    const folder = tempFolder(t);
    const { paths, models } = makeChain(folder, logicalSectorSize);
    for (const [index, path] of paths.entries()) {
      const name = `${logicalSectorSize}-byte sectors, image ${index}`;
      imageSuite(t, name, () => openVhdx(path), models[index]!, CAPABILITIES);
      const chain = openChain(path, { allowFolders: [folder] });
      t.equal(chain.length, 3 - index);
      const expected = mergedContent(models.slice(index));
      t.equal(
        firstDifference(readChain(chain, 0, expected.length), expected),
        -1,
        `${name}: chain`,
      );
      const base = new ImageBase(chain);
      const whole = Buffer.alloc(expected.length);
      for (let at = 0; at < whole.length; at += 70_001) {
        base.readAt(whole, at, at, Math.min(70_001, whole.length - at));
      }
      t.equal(firstDifference(whole, expected), -1, `${name}: as a base`);
      base.close();
    }
  }
});

t.test('parents are known by their data write GUID', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: MiB, unitSize: MiB, pattern: 'd', salt: 1 });
  const empty = stampedModel({ size: MiB, unitSize: MiB, pattern: 'u', salt: 1 });
  const base = join(folder, 'base.vhdx');
  const child = join(folder, 'child.vhdx');
  writeVhdx(base, { model, blockSize: MiB, dataWriteGuid: GUIDS[0]! });
  const relative_path = 'base.vhdx';
  const open = (parent: Record<string, string>, plan: Partial<VhdxPlan> = {}) => {
    writeVhdx(child, { model: empty, blockSize: MiB, parent, ...plan });
    const chain = openChain(child);
    for (const image of chain) image.close();
    return chain.length;
  };
  const linkage = `{${GUIDS[0]}}`;
  const other = `{${GUIDS[1]}}`;
  t.equal(open({ parent_linkage: linkage, relative_path }), 2);
  t.equal(open({ parent_linkage: other, parent_linkage2: linkage, relative_path }), 2, 'linkage 2');
  const moved = { parent_linkage: linkage, relative_path: '..\\x\\base.vhdx' };
  t.equal(open(moved), 2, 'by its bare name');
  t.equal(
    open({ parent_linkage: linkage, volume_path: '\\\\?\\Volume{26a2}\\x\\base.vhdx' }),
    2,
    'by the bare name of its volume path',
  );
  t.throws(() => open({ parent_linkage: other, relative_path }), {
    code: 'damaged',
    message: /data write GUID aaaaaaaa-.*2, .*base.vhdx has aaaaaaaa-.*1/,
  });
  t.throws(() => open({ parent_linkage: linkage, relative_path }, { logicalSectorSize: 4096 }), {
    code: 'damaged',
    message: /logical sectors of 512, its child of 4096/,
  });
  t.throws(() => open({ relative_path }), { code: 'damaged', message: /does not identify/ });
  t.throws(() => open({ parent_linkage: linkage }), { code: 'damaged', message: /no path/ });
  const absolute_win32_path = '\\\\?\\d:\\vm\\lost.vhdx';
  t.throws(() => open({ parent_linkage: linkage, absolute_win32_path }), {
    code: 'not-found',
    message: /lost.vhdx.*"d:\/vm\/lost.vhdx"/,
  });
});

t.test('a parent locator whose entries lie on each other', async (t) => {
  const count = 40_000;
  const item = Buffer.alloc(MAX_ITEM_LENGTH);
  PARENT_LOCATOR.encode({ locatorType: LOCATOR_TYPE_VHDX, keyValueCount: count }).copy(item);
  const texts = PARENT_LOCATOR.size + count * PARENT_LOCATOR_ENTRY.size;
  for (let at = texts; at < item.length; at += 4) item.writeUInt32LE(at, at);
  for (let index = 0; index < count; index += 1) {
    const offset = texts + 2 * index;
    PARENT_LOCATOR_ENTRY.encode({
      keyOffset: offset,
      valueOffset: offset,
      lengths: [65_534, 65_534],
    }).copy(item, PARENT_LOCATOR.size + index * PARENT_LOCATOR_ENTRY.size);
  }
  t.throws(() => decodeParentLocator('x.vhdx', item), {
    code: 'damaged',
    message: /more than it can hold/,
  });
});

t.test('info and probe', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'a.vhdx');
  const model = stampedModel({ size: 3 * MiB, unitSize: MiB, pattern: 'duz', salt: 1 });
  writeVhdx(path, { model, blockSize: MiB, extraItems: [{ id: GUIDS[2]!, flags: 0 }] });
  const image = openVhdx(path);
  t.strictSame(
    { ...image.info() },
    {
      format: 'vhdx',
      subformat: 'dynamic',
      virtualSize: 3 * MiB,
      allocatedSize: MiB,
      unitSize: MiB,
      logicalSectorSize: 512,
      identity: {
        'data-write-guid': '99999999-0000-0000-0000-000000000001',
        'file-write-guid': '99999999-0000-0000-0000-000000000002',
        'virtual-disk-id': '99999999-0000-0000-0000-000000000003',
      },
      creator: 'layerdisk test',
      notes: [`unknown metadata item ${GUIDS[2]} is ignored`],
    },
  );
  image.close();
  t.equal(probeVhdx(readFileSync(path).subarray(0, 512)), true);
  t.equal(probeVhdx(Buffer.from('vhdxfil')), false);
  t.equal(probeVhdx(Buffer.alloc(0)), false);
});
