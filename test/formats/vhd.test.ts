/** VHD: the shared suite on images of many shapes, and differencing chains. */
import { mkdirSync, readFileSync, renameSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { NIL_UUID } from '../../src/common/uuid.js';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openImage, probeImage } from '../../src/formats/registry.js';
import { openVhd, probeVhd } from '../../src/formats/vhd/vhd-image.js';
import {
  EPOCH_SECONDS,
  LOCATOR_ABSOLUTE,
  LOCATOR_MACX,
  LOCATOR_RELATIVE,
} from '../../src/formats/vhd/vhd-layout.js';
import { firstDifference, imageSuite } from '../conformance/image-suite.js';
import { readChain } from '../support/chain-reader.js';
import { type DiskModel, mergedContent, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { type VhdParent, type VhdPlan, writeVhd } from '../support/vhd-writer.js';

const CAPABILITIES = { format: 'vhd', zeroExtents: true, unallocatedExtents: true, reads: 60 };
const FIXED = { format: 'vhd', zeroExtents: false, unallocatedExtents: false };

interface Shape extends Omit<VhdPlan, 'model'> {
  readonly name: string;
  readonly size: number;
  readonly pattern: string;
  readonly unitSize?: number;
}

const SHAPES: readonly Shape[] = [
  { name: 'dynamic, blocks of 2 MiB', size: 5 * MiB, pattern: 'dudd', unitSize: MiB },
  { name: 'sectors of their own', size: 3 * MiB + 512, pattern: 'duddduuuuudud' },
  { name: 'blocks of 512 KiB', size: 2 * MiB, pattern: 'ddu', unitSize: 65536, blockSize: 524288 },
  { name: 'blocks of one sector', size: 512 * 77, pattern: 'dud', blockSize: 512 },
  { name: 'blocks of 4 KiB', size: 65536 * 3, pattern: 'dddduuddddddddd', blockSize: 4096 },
  {
    name: 'a bitmap of several sectors',
    size: 9 * MiB,
    pattern: 'ddu',
    unitSize: 65536,
    blockSize: 8 * MiB,
  },
  { name: 'odd size', size: 104_448 + 512, pattern: 'd', unitSize: 4096 },
  { name: 'nothing allocated', size: 4 * MiB, pattern: 'u', spareEntries: 9 },
  {
    name: 'blocks in reverse order',
    size: 1 * MiB,
    pattern: 'd',
    blockSize: 65536,
    unitSize: 65536,
    place: (nth) => 5000 - nth * 129,
  },
  { name: 'footer of 511 bytes', size: MiB, pattern: 'ud', footerSize: 511 },
];

t.test('images of many shapes', async (t) => {
  const folder = tempFolder(t);
  for (const [index, { name, size, pattern, unitSize = 512, ...plan }] of SHAPES.entries()) {
    const model = stampedModel({ size, unitSize, pattern, salt: index });
    const path = join(folder, `${index}.vhd`);
    writeVhd(path, { ...plan, model });
    imageSuite(t, name, () => openVhd(path), model, CAPABILITIES);
  }
  for (const footerSize of [512, 511] as const) {
    const model = stampedModel({ size: MiB + 512, unitSize: 512, pattern: 'd', salt: 90 });
    const path = join(folder, `fixed${footerSize}.vhd`);
    writeVhd(path, { model, type: 'fixed', footerSize });
    imageSuite(t, `fixed, footer of ${footerSize} bytes`, () => openVhd(path), model, FIXED);
    t.equal(probeImage(path), 'vhd', 'told by its footer');
    const image = openImage(path);
    t.equal(image.complete, true);
    image.close();
  }
});

const UUIDS = [1, 2, 3].map((digit) => `dddddddd-0000-0000-0000-00000000000${digit}`);

function relative(path: string): { code: number; data: Buffer } {
  return { code: LOCATOR_RELATIVE, data: Buffer.from(path, 'utf16le') };
}

/** Three images on each other, by sectors, with names that need UTF-16. */
function makeChain(folder: string): { paths: string[]; models: DiskModel[] } {
  mkdirSync(join(folder, 'below'));
  const names = ['top.vhd', 'below/mittleres \u00dc.vhd', 'base \u{1f4be}.vhd'];
  const toParent = ['.\\below\\mittleres \u00dc.vhd', '..\\base \u{1f4be}.vhd'];
  const paths = names.map((name) => join(folder, name));
  const patterns = [
    'duud'.repeat(900) + 'u'.repeat(5000) + 'duuuuuuuu'.repeat(300),
    'ud'.repeat(1200) + 'd'.repeat(4096) + 'uuuudddd'.repeat(99),
    'ddddu'.repeat(1000) + 'u'.repeat(3000),
  ];
  const sizes = [5 * MiB, 5 * MiB, 4 * MiB];
  const models = patterns.map((pattern, index) =>
    stampedModel({ size: sizes[index]!, unitSize: 512, pattern, salt: 70 + index }),
  );
  for (const [index, model] of models.entries()) {
    const uuid = UUIDS[index]!;
    const parentPath = toParent[index];
    if (parentPath === undefined) {
      writeVhd(paths[index]!, { model, uuid, blockSize: MiB });
      continue;
    }
    const parent = {
      uuid: UUIDS[index + 1]!,
      name: 'C:\\gone.vhd',
      locators: [relative(parentPath)],
    };
    writeVhd(paths[index]!, { model, uuid, type: 'differencing', parent });
  }
  return { paths, models };
}

t.test('a differencing chain of three, partially present blocks', async (t) => {
  const folder = tempFolder(t);
  const { paths, models } = makeChain(folder);
  for (const [index, path] of paths.entries()) {
    imageSuite(t, `image ${index}`, () => openVhd(path), models[index]!, CAPABILITIES);
    const chain = openChain(path, { allowFolders: [folder] });
    t.equal(chain.length, 3 - index);
    const expected = mergedContent(models.slice(index));
    t.equal(firstDifference(readChain(chain, 0, expected.length), expected), -1, 'chain');
    const base = new ImageBase(chain);
    const whole = Buffer.alloc(expected.length);
    for (let at = 0; at < whole.length; at += 70_001) {
      base.readAt(whole, at, at, Math.min(70_001, whole.length - at));
    }
    t.equal(firstDifference(whole, expected), -1, 'as a base');
    base.close();
  }
});

/** A base and, at each call, a new empty child of it. */
function makeFamily(folder: string): {
  base: string;
  child: string;
  adopt: (p: VhdParent) => void;
} {
  const model = stampedModel({ size: MiB, unitSize: MiB, pattern: 'd', salt: 1 });
  const empty = stampedModel({ size: MiB, unitSize: MiB, pattern: 'u', salt: 1 });
  const base = join(folder, 'base.vhd');
  const child = join(folder, 'child.vhd');
  writeVhd(base, { model, uuid: UUIDS[0]!, timeStamp: 600_000_000 });
  const adopt = (parent: VhdParent) => {
    writeVhd(child, { model: empty, type: 'differencing', parent });
  };
  return { base, child, adopt };
}

const ABSOLUTE = { code: LOCATOR_ABSOLUTE, data: Buffer.from('C:\\vm\\base.vhd', 'utf16le') };

t.test('names of parents: relative, bare, absolute', async (t) => {
  const { child, adopt } = makeFamily(tempFolder(t));
  const namesOf = (parent: Omit<VhdParent, 'uuid'>) => {
    adopt({ uuid: UUIDS[0]!, ...parent });
    const image = openVhd(child);
    image.close();
    return image.parent!.names;
  };
  const mac = { code: LOCATOR_MACX, data: Buffer.from('file://localhost/vm/mac%20base.vhd\0') };
  const bigEndian = { code: LOCATOR_RELATIVE, data: Buffer.from('.\\be.vhd', 'utf16le').swap16() };
  t.strictSame(namesOf({ name: '\u78c1\u76d8.vhd' }), ['\u78c1\u76d8.vhd'], 'big endian, no Latin');
  t.strictSame(namesOf({ name: '\u78c1\u76d8' }), ['\u78c1\u76d8'], 'no Latin at all');
  const chinese = { code: LOCATOR_RELATIVE, data: Buffer.from('\u78c1/b.vhd', 'utf16le') };
  t.strictSame(namesOf({ locators: [chinese] }), ['\u78c1/b.vhd', 'b.vhd'], 'little endian');
  const broken = { code: LOCATOR_RELATIVE, data: Buffer.alloc(0) };
  t.strictSame(
    namesOf({ name: 'base.vhd', locators: [ABSOLUTE, mac, relative('..\\x\\base.vhd')] }),
    ['../x/base.vhd', 'base.vhd', 'mac base.vhd', 'C:/vm/base.vhd', '/vm/mac base.vhd'],
  );
  t.strictSame(namesOf({ locators: [bigEndian] }), ['be.vhd'], 'big endian');
  t.strictSame(namesOf({ name: 'a\u0301\u4e2d.vhd' }), ['a\u0301\u4e2d.vhd'], 'from the header');
  t.strictSame(namesOf({ name: 'x.vhd', locators: [broken] }), ['x.vhd']);
  const many = Array.from({ length: 8 }, (_, index) => relative(`${index}.vhd`));
  t.equal(namesOf({ locators: many }).length, 8, 'all eight locators');
  t.strictSame(namesOf({}), [], 'no name at all');
  t.throws(() => openChain(child), { code: 'not-found' });
});

t.test('parents are known by their UUID, a time stamp is worth a warning', async (t) => {
  const folder = tempFolder(t);
  const { base, child, adopt } = makeFamily(folder);
  const warnings: string[] = [];
  const open = (parent: VhdParent) => {
    adopt(parent);
    warnings.length = 0;
    const chain = openChain(child, { onWarning: (text) => warnings.push(text) });
    for (const image of chain) image.close();
    return chain.length;
  };
  const uuid = UUIDS[0]!;
  const name = 'base.vhd';
  t.equal(open({ uuid, name, timeStamp: 600_000_000 }), 2, 'the time stamp in the footer');
  t.strictSame(warnings, []);
  utimesSync(base, EPOCH_SECONDS + 555, EPOCH_SECONDS + 555.5);
  t.equal(open({ uuid, name, timeStamp: 555 }), 2, 'the time of the file');
  t.strictSame(warnings, []);
  t.equal(open({ uuid, name, timeStamp: 777 }), 2, 'another time');
  t.match(warnings.join(), /base.vhd was changed at 2000-01-01T00:09:15.000Z.*00:12:57.000Z/);
  t.equal(open({ uuid, name, timeStamp: 0 }), 2, 'none, as Windows 10 writes it');
  t.strictSame(warnings, []);
  t.throws(() => open({ uuid: UUIDS[1]!, name }), {
    code: 'damaged',
    message: /UUID dddddddd-.*2, .*base.vhd has dddddddd-.*1/,
  });
  renameSync(base, join(folder, 'moved.vhd'));
  t.throws(() => open({ uuid, locators: [ABSOLUTE] }), {
    code: 'not-found',
    message: /"C:\/vm\/base.vhd"/,
  });
  t.equal(statSync(join(folder, 'moved.vhd')).mtimeMs, (EPOCH_SECONDS + 555.5) * 1000);
});

t.test('a parent without UUID is a raw disk', async (t) => {
  const folder = tempFolder(t);
  const [child, base] = [join(folder, 'child.vhd'), join(folder, 'base.raw')];
  const below = stampedModel({ size: 3 * MiB, unitSize: 64 * KiB, pattern: 'd', salt: 5 });
  const model = stampedModel({ size: 4 * MiB, unitSize: 4 * KiB, pattern: 'uuud', salt: 6 });
  writeFileSync(base, below.content);
  const parent = { uuid: NIL_UUID, locators: [relative('./base.raw')] };
  const adopt = (creator: string) => {
    writeVhd(child, { model, type: 'differencing', parent, creator });
  };
  adopt('tap\0');
  const images = openChain(child);
  t.strictSame(
    images.map(({ format }) => format),
    ['vhd', 'raw'],
    'XenServer says it by that',
  );
  t.equal(
    firstDifference(readChain(images, 0, 4 * MiB), mergedContent([model, below])),
    -1,
    'content',
  );
  for (const image of images) image.close();
  adopt('win ');
  t.throws(() => openChain(child), { code: 'not-supported', hint: /--parent .*base\.raw/ });
  for (const image of openChain(child, { parent: base })) image.close();
  writeVhd(base, { model: below, uuid: UUIDS[0]! });
  t.throws(() => openChain(child), { code: 'damaged', message: /must be a raw disk.*is vhd/ });
});

t.test('a file that is no VHD is no parent', async (t) => {
  const folder = tempFolder(t);
  const { base, child, adopt } = makeFamily(folder);
  const data = Buffer.from(base.replaceAll('/', '\\'), 'utf16le');
  const absolute = { code: LOCATOR_ABSOLUTE, data };
  adopt({ uuid: UUIDS[0]!, locators: [absolute, relative('.\\base.vhd')] });
  const raw = join(folder, 'raw');
  writeFileSync(raw, Buffer.alloc(4096));
  renameSync(base, join(folder, 'moved.vhd'));
  t.throws(() => openChain(child), { code: 'not-found', message: /tried "[^",]*base\.vhd"$/ });
  t.throws(() => openChain(child, { parent: raw }), {
    code: 'damaged',
    message: /child\.vhd: its parent must be vhd: .*raw: .*looks like a raw disk$/,
    hint: /--parent FILE/,
  });
  renameSync(raw, base);
  t.throws(() => openChain(child), {
    code: 'damaged',
    message: /child\.vhd: its parent must be vhd: .*base\.vhd: .*looks like a raw disk$/,
  });
});

t.test('info and probe', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'a.vhd');
  const model = stampedModel({ size: 4 * MiB, unitSize: 2 * MiB, pattern: 'du', salt: 1 });
  writeVhd(path, { model, creator: 'vpc ', geometry: [100, 4, 17], uuid: UUIDS[1]! });
  const image = openVhd(path);
  t.strictSame(
    { ...image.info() },
    {
      format: 'vhd',
      subformat: 'dynamic',
      virtualSize: 4 * MiB,
      allocatedSize: 2 * MiB,
      unitSize: 2 * MiB,
      logicalSectorSize: 512,
      identity: { uuid: UUIDS[1], 'time-stamp': '2015-11-05T00:53:20.000Z' },
      creator: 'vpc 1.2 (Wi2k)',
      notes: ['its geometry gives 3481600 bytes: QEMU goes by that for images by "vpc "'],
    },
  );
  image.close();
  const bytes = readFileSync(path);
  const none = Buffer.alloc(1024);
  t.equal(probeVhd(bytes.subarray(0, 512), none), true, 'by its start');
  t.equal(probeVhd(none, bytes.subarray(-1024)), true, 'by its end');
  t.equal(probeVhd(none, bytes.subarray(-512)), true);
  t.equal(probeVhd(none, bytes.subarray(-512, -1)), true, '511 bytes');
  t.equal(probeVhd(none, bytes.subarray(-513, -2)), false);
  t.equal(probeVhd(Buffer.alloc(0), Buffer.alloc(0)), false);
});
