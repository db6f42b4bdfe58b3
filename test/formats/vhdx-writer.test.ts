/** VHDX images that we write, judged by our reader, by qemu-img, 7-Zip and libvhdi. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import { NIL_UUID } from '../../src/common/uuid.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openImage } from '../../src/formats/registry.js';
import { HEADER, HEADER_OFFSETS } from '../../src/formats/vhdx/vhdx-layout.js';
import { firstDifference } from '../conformance/image-suite.js';
import { writerSuite } from '../conformance/writer-suite.js';
import { writtenSubformats } from '../conformance/written-formats.js';
import { readChain } from '../support/chain-reader.js';
import { mergedContent, stampedModel } from '../support/disk-model.js';
import { islandSource, modelSource } from '../support/image-sources.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeVhdx } from '../support/vhdx-writer.js';
import { writeTestChain, writeTestImage } from '../support/written-image.js';

for (const each of writtenSubformats('vhdx')) writerSuite(t, each);

const SIZE = 5 * MiB + 4096;
const BASE = stampedModel({ size: SIZE, unitSize: MiB, pattern: 'du', salt: 1 });
const CHILD = { format: 'vhdx', subformat: 'differencing' } as const;

t.test('a parent with logical sectors of 4096 bytes', async (t) => {
  const folder = tempFolder(t);
  const base = join(folder, 'base.vhdx');
  const path = join(folder, 'child.vhdx');
  writeVhdx(base, {
    model: BASE,
    blockSize: MiB,
    logicalSectorSize: 4096,
    dataWriteGuid: 'dddddddd-0000-0000-0000-000000000001',
  });
  const parent = { image: openImage(base), name: 'base.vhdx' };
  const model = stampedModel({ size: SIZE, unitSize: 512, pattern: `d${'u'.repeat(90)}`, salt: 2 });
  const { granularity } = await writeTestImage(CHILD, path, modelSource([model, BASE]), { parent });
  t.equal(granularity, 4096);
  const images = openChain(path);
  t.equal(images[0]!.info().logicalSectorSize, 4096);
  const expected = mergedContent([model, BASE]);
  t.equal(firstDifference(readChain(images, 0, SIZE), expected), -1, 'content');
  for (const image of images) image.close();
  const uneven = islandSource(SIZE + 512, []);
  await t.rejects(
    writeTestImage(CHILD, join(folder, 'none.vhdx'), uneven, { parent }),
    {
      code: 'not-supported',
      message: /no multiple of the logical sectors of 4096/,
      hint: /leave --differencing out$/,
    },
    'a size that such sectors cannot say',
  );
  parent.image.close();
});

t.test('identity, headers, and zeroes that take no space', async (t) => {
  const folder = tempFolder(t);
  const whole = stampedModel({ size: 8 * MiB, unitSize: 2 * MiB, pattern: 'd', salt: 3 });
  const zeroes = stampedModel({ size: 8 * MiB, unitSize: 2 * MiB, pattern: 'zzzu', salt: 4 });
  const kind = { ...CHILD, baseSubformat: 'dynamic' };
  const levels = await writeTestChain(kind, folder, [whole, zeroes]);
  const [parent, child] = levels.map(({ written }) => openImage(written.path));
  const above = child!.info().identity;
  const below = parent!.info().identity;
  t.equal(above['parent-linkage'], `{${below['data-write-guid']}}`, 'the parent');
  t.equal(above['virtual-disk-id'], below['virtual-disk-id'], 'the guest sees the same disk');
  t.not(above['data-write-guid'], below['data-write-guid']);
  t.strictSame(child!.info().notes, [], 'nothing to remark');
  const file = readFileSync(child!.path);
  t.equal(file.length, 4 * MiB, 'header area, log, metadata and table; no block');
  const headers = HEADER_OFFSETS.map((offset) => HEADER.decode(file, offset));
  t.strictSame(
    headers.map(({ sequenceNumber }) => sequenceNumber),
    [1n, 2n],
  );
  t.ok(
    headers.every(({ logGuid }) => logGuid === NIL_UUID),
    'the log is empty',
  );
  parent!.close();
  child!.close();
});

t.test('a parent without data write GUID', async (t) => {
  const folder = tempFolder(t);
  const base = join(folder, 'base.vhdx');
  writeVhdx(base, { model: BASE, blockSize: MiB, dataWriteGuid: NIL_UUID });
  const parent = { image: openImage(base), name: 'base.vhdx' };
  await t.rejects(
    writeTestImage(CHILD, join(folder, 'none.vhdx'), modelSource([BASE]), { parent }),
    { code: 'not-supported', message: /no data write GUID/ },
  );
  parent.image.close();
});
