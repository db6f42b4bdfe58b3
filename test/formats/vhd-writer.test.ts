/** VHD images that we write, judged by our reader, by qemu-img, 7-Zip and libvhdi. */
import { execFileSync } from 'node:child_process';
import { readFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { GiB, MiB } from '../../src/common/units.js';
import { NIL_UUID } from '../../src/common/uuid.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openImage } from '../../src/formats/registry.js';
import { DYNAMIC_HEADER, EPOCH_SECONDS, FOOTER } from '../../src/formats/vhd/vhd-layout.js';
import type { ImageSource } from '../../src/formats/write-image.js';
import { writerSuite } from '../conformance/writer-suite.js';
import { writtenSubformats } from '../conformance/written-formats.js';
import { stampedModel } from '../support/disk-model.js';
import { islandSource, modelSource } from '../support/image-sources.js';
import { vhdiInfo } from '../support/second-readers.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';
import { writeVhd } from '../support/vhd-writer.js';
import { writeTestImage } from '../support/written-image.js';

for (const each of writtenSubformats('vhd')) writerSuite(t, each);

const MODEL = stampedModel({ size: 2 * MiB + 512, unitSize: 512, pattern: 'duzuuuuu', salt: 1 });

/** Sizes that the geometry cannot say: it would cut them. */
const SIZES = [512, MiB + 512, 511 * MiB + 1536, 127 * GiB + 512, 1000 * GiB + 512, 2040 * GiB];

t.test('everybody sees the same size', async (t) => {
  const folder = tempFolder(t);
  const qemuCommand = qemuImg(t);
  const info = vhdiInfo(t);
  for (const size of SIZES) {
    const path = join(folder, `${size}.vhd`);
    await writeTestImage({ format: 'vhd', subformat: 'dynamic' }, path, islandSource(size, []));
    const image = openImage(path);
    t.equal(image.virtualSize, size, 'our reader');
    t.strictSame(image.info().notes, [], 'with nothing to remark');
    image.close();
    if (qemuCommand !== undefined) {
      const told = execFileSync(qemuCommand, ['info', '--output=json', path], { encoding: 'utf8' });
      t.equal(JSON.parse(told)['virtual-size'], size, `qemu-img, ${size} bytes`);
    }
    if (info !== undefined) t.match(info(path).get('Media size'), `${size} bytes`, 'libvhdi');
  }
});

t.test('a geometry of at most the size, and the footer twice', async (t) => {
  const folder = tempFolder(t);
  for (const size of SIZES) {
    const path = join(folder, `${size}.vhd`);
    await writeTestImage({ format: 'vhd', subformat: 'dynamic' }, path, islandSource(size, []));
    const bytes = readFileSync(path);
    t.strictSame(bytes.subarray(0, 512), bytes.subarray(bytes.length - 512), 'footer and copy');
    const { cylinders, heads, sectorsPerTrack } = FOOTER.decode(bytes);
    const told = cylinders * heads * sectorsPerTrack * 512;
    // Below a cylinder of small disks nothing can be told, above the largest geometry neither.
    const cylinder = heads * sectorsPerTrack * 512;
    const most = Math.min(size, 65535 * 16 * 255 * 512);
    t.ok(told <= most && told > most - cylinder, `${told} of ${most} bytes`);
  }
});

t.test('a disk that is too large', async (t) => {
  const path = join(tempFolder(t), 'large.vhd');
  const size = 2040 * GiB + 512;
  for (const subformat of ['dynamic', 'fixed']) {
    await t.rejects(
      writeTestImage({ format: 'vhd', subformat }, path, islandSource(size, [])),
      {
        code: 'not-supported',
        message: /at most 2040 GiB/,
        hint: /vhdx/,
      },
      subformat,
    );
  }
});

t.test('parents that a VHD cannot have', async (t) => {
  const folder = tempFolder(t);
  const kind = { format: 'vhd', subformat: 'differencing' } as const;
  const base = join(folder, 'base.vhd');
  const child = join(folder, 'child.vhd');
  const write = async (source: ImageSource) => {
    const parent = { image: openImage(base), name: 'base.vhd' };
    try {
      await writeTestImage(kind, child, source, { parent });
    } finally {
      parent.image.close();
    }
  };
  writeVhd(base, { model: MODEL, uuid: NIL_UUID });
  await t.rejects(write(modelSource([MODEL])), { code: 'not-supported', message: /no UUID/ });
  writeVhd(base, { model: MODEL });
  await t.rejects(write(islandSource(4 * MiB, [])), {
    code: 'not-supported',
    message: /as large as its parent/,
    hint: /leave --differencing out$/,
  });
});

t.test('the time stamp of the parent', async (t) => {
  const folder = tempFolder(t);
  const base = join(folder, 'base.vhd');
  const child = join(folder, 'child.vhd');
  writeVhd(base, { model: MODEL, timeStamp: 1 });
  utimesSync(base, 1_600_000_000, 1_600_000_000);
  const parent = { image: openImage(base), name: 'base.vhd' };
  const kind = { format: 'vhd', subformat: 'differencing' } as const;
  await writeTestImage(kind, child, modelSource([MODEL]), { parent });
  parent.image.close();
  const header = DYNAMIC_HEADER.decode(readFileSync(child), FOOTER.size);
  t.equal(header.parentTimeStamp, 1_600_000_000 - EPOCH_SECONDS, 'when the file was changed last');
  const warnings: string[] = [];
  const open = () => {
    const images = openChain(child, { onWarning: (text) => warnings.push(text) });
    for (const image of images) image.close();
  };
  open();
  t.strictSame(warnings, []);
  utimesSync(base, 1_600_000_100, 1_600_000_100);
  open();
  t.match(warnings, [/was changed at/]);
});
