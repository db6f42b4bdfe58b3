/** VMDKs whose own CID is the number by which a child would say that it has no parent. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openImage } from '../../src/formats/registry.js';
import { vmdkWriting } from '../../src/formats/vmdk/vmdk-writer.js';
import { firstDifference } from '../conformance/image-suite.js';
import { mergedContent, stampedModel } from '../support/disk-model.js';
import { modelSource } from '../support/image-sources.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';
import { descriptorText, writeMonolithic } from '../support/vmdk-writer.js';
import { writeTestImage } from '../support/written-image.js';

const GRAIN = 65536;
const NO_PARENT = 'ffffffff';
const [below, above] = ['ddud', 'uduz'].map((pattern, salt) =>
  stampedModel({ size: GRAIN * 10, unitSize: GRAIN, pattern, salt }),
) as [ReturnType<typeof stampedModel>, ReturnType<typeof stampedModel>];

function shown(path: string): Buffer {
  const base = new ImageBase(openChain(path));
  const whole = Buffer.alloc(base.virtualSize);
  base.readAt(whole, 0, 0, whole.length);
  base.close();
  return whole;
}

t.test('a child by QEMU stands on the disk that it names', async (t) => {
  const folder = tempFolder(t);
  const base = join(folder, 'base.vmdk');
  const child = join(folder, 'child.vmdk');
  writeMonolithic(base, below, { zeroedGrains: true, cid: NO_PARENT });
  writeMonolithic(child, above, { zeroedGrains: true, parentName: 'base.vmdk' });
  t.equal(firstDifference(shown(child), mergedContent([above, below])), -1);
  const qemu = qemuImg(t);
  if (qemu !== undefined) {
    const made = join(folder, 'made.vmdk');
    const args = ['create', '-q', '-f', 'vmdk', '-b', 'base.vmdk', '-F', 'vmdk', made];
    execFileSync(qemu, args, { stdio: 'pipe' });
    t.equal(firstDifference(shown(made), below.content), -1);
    execFileSync(qemu, ['compare', '-f', 'vmdk', '-F', 'vmdk', base, made]);
  }
  writeMonolithic(base, below, { zeroedGrains: true });
  t.throws(() => openChain(child), {
    code: 'damaged',
    message: /the parent must be the VMDK with CID ffffffff, .*base\.vmdk has CID 1234abcd$/,
  });
});

t.test('a hint is left over where nothing of a parent could show', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'disk.vmdk');
  writeFileSync(join(folder, 'disk-flat.vmdk'), below.content);
  const extents = [`RW ${below.size / 512} FLAT "disk-flat.vmdk" 0`];
  const parentName = 'gone.vmdk';
  writeFileSync(path, descriptorText({ createType: 'monolithicFlat', parentName, extents }));
  t.equal(firstDifference(shown(path), below.content), -1);
  writeMonolithic(path, below, { zeroedGrains: true, parentName: '' });
  t.equal(firstDifference(shown(path), below.content), -1, 'nor is an empty one any');
});

t.test('no child is written that others would take for a disk without parent', async (t) => {
  const folder = tempFolder(t);
  const base = join(folder, 'base.vmdk');
  writeMonolithic(base, below, { zeroedGrains: true, cid: NO_PARENT });
  const image = openImage(base);
  t.teardown(() => image.close());
  for (const subformat of vmdkWriting.differencing) {
    const written = writeTestImage(
      { format: 'vmdk', subformat },
      join(folder, 'child.vmdk'),
      modelSource([above, below]),
      { parent: { image, name: 'base.vmdk' } },
    );
    await t.rejects(written, {
      code: 'not-supported',
      message: /child\.vmdk: its parent .*base\.vmdk has the CID ffffffff/,
      hint: /leave --differencing out$/,
    });
  }
});
