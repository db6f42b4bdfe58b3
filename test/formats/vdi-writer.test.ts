/** VDI images that we write, judged by our reader, by qemu-img, and by the layout itself. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB, TiB } from '../../src/common/units.js';
import { NIL_UUID } from '../../src/common/uuid.js';
import { openImage } from '../../src/formats/registry.js';
import { VDI_BLOCK_FREE, VDI_BLOCK_ZERO, VDI_HEADER } from '../../src/formats/vdi/vdi-layout.js';
import { writerSuite } from '../conformance/writer-suite.js';
import { writtenSubformats } from '../conformance/written-formats.js';
import { stampedModel } from '../support/disk-model.js';
import { islandSource, modelSource } from '../support/image-sources.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeVdi } from '../support/vdi-writer.js';
import { writeTestChain, writeTestImage } from '../support/written-image.js';

for (const each of writtenSubformats('vdi')) writerSuite(t, each);

t.test('what VirtualBox checks in a child', async (t) => {
  const folder = tempFolder(t);
  const size = 3 * MiB;
  const models = [
    stampedModel({ size, unitSize: MiB, pattern: 'd', salt: 1 }),
    stampedModel({ size, unitSize: MiB, pattern: 'uzd', salt: 2 }),
  ];
  const kind = { format: 'vdi', subformat: 'diff', baseSubformat: 'dynamic' } as const;
  const levels = await writeTestChain(kind, folder, models);
  const [parent, child] = levels.map(({ written }) => readFileSync(written.path));
  const above = VDI_HEADER.decode(child!);
  const below = VDI_HEADER.decode(parent!);
  t.equal(above.parentUuid, below.imageUuid, 'parent');
  t.equal(above.parentModificationUuid, below.modificationUuid, 'its last modification');
  t.not(above.imageUuid, below.imageUuid);
  t.not(above.modificationUuid, NIL_UUID, 'VirtualBox refuses a nil one');
  t.equal(above.imageType, 4);
  t.equal(above.blocksAllocated, 1);
  const end = VDI_HEADER.offsetOf.headerSize + above.headerSize;
  t.equal(child!.readUInt32LE(end - 4), 512, 'VirtualBox refuses another sector size');
  const map = Array.from({ length: 3 }, (_, block) =>
    child!.readUInt32LE(above.blockMapOffset + 4 * block),
  );
  t.strictSame(map, [VDI_BLOCK_FREE, VDI_BLOCK_ZERO, 0]);
});

t.test('larger blocks for a disk whose map would be too large', async (t) => {
  const path = join(tempFolder(t), 'large.vdi');
  const size = 16 * TiB + 512;
  await writeTestImage({ format: 'vdi', subformat: 'dynamic' }, path, islandSource(size, []));
  const image = openImage(path);
  t.equal(image.virtualSize, size);
  t.equal(image.info().unitSize, 2 * MiB);
  image.close();
});

t.test('a parent without UUID', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: MiB, unitSize: MiB, pattern: 'd', salt: 1 });
  const base = join(folder, 'base.vdi');
  writeVdi(base, model, { uuid: NIL_UUID });
  const parent = { image: openImage(base), name: 'base.vdi' };
  const child = join(folder, 'child.vdi');
  const kind = { format: 'vdi', subformat: 'diff' } as const;
  await t.rejects(writeTestImage(kind, child, modelSource([model]), { parent }), {
    code: 'not-supported',
    message: /base\.vdi has no UUID/,
  });
  parent.image.close();
});
