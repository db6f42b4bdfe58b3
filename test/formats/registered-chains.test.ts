/** Chains of which a machine's registry says what they consist of, and of which format each is. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ImageBase } from '../../src/formats/base.js';
import { type ChainOptions, openChain } from '../../src/formats/open-chain.js';
import { firstDifference } from '../conformance/image-suite.js';
import { mergedContent, stampedModel } from '../support/disk-model.js';
import { writeQcow2 } from '../support/qcow2-writer.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeVdi } from '../support/vdi-writer.js';
import { writeMonolithic } from '../support/vmdk-writer.js';

const BASE_UUID = '00000001-0000-4000-8000-000000000000';
const [base, child] = ['ddddd', 'duuuz'].map((pattern, salt) =>
  stampedModel({ size: 40 * 4096, unitSize: 4096, pattern, salt }),
) as [ReturnType<typeof stampedModel>, ReturnType<typeof stampedModel>];

function readAll(path: string, options: ChainOptions): Buffer {
  const disk = new ImageBase(openChain(path, options));
  const whole = Buffer.alloc(disk.virtualSize);
  disk.readAt(whole, 0, 0, whole.length);
  disk.close();
  return whole;
}

t.test('VDIs that VirtualBox puts on disks of other formats', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'now.vdi');
  writeVdi(path, child, { type: 4, parent: BASE_UUID });
  const raw = join(folder, 'base.img');
  writeFileSync(raw, base.content);
  const expected = mergedContent([child, base]);
  const registry = { parents: [raw], parentFormats: ['raw'] };
  t.equal(firstDifference(readAll(path, registry), expected), -1, 'raw');
  t.throws(() => openChain(path, { parents: [raw] }), {
    code: 'not-supported',
    message: /does not say that it is raw/,
  });
  t.throws(() => openChain(path, { parents: [raw], parentFormats: ['vdi'] }), {
    code: 'damaged',
    message: /its parent must be vdi/,
  });

  const vmdk = join(folder, 'base.vmdk');
  writeMonolithic(vmdk, base, { database: { 'uuid.image': BASE_UUID } });
  t.equal(firstDifference(readAll(path, { parents: [vmdk] }), expected), -1, 'VMDK');
  writeMonolithic(vmdk, base);
  t.throws(() => openChain(path, { parents: [vmdk] }), {
    code: 'damaged',
    message: /the parent must be the disk with UUID 00000001.*base\.vmdk is vmdk without one/,
  });
});

t.test('a backing file whose format the image does not state', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'top.qcow2');
  writeQcow2(path, { model: child, clusterBits: 12, backing: { name: '/moved/away.img' } });
  const raw = join(folder, 'base.img');
  // As a guest may write it: what it claims to be does not count.
  const content = Buffer.from(base.content);
  content.write('QFI\xfb', 'latin1');
  writeFileSync(raw, content);
  const found = readAll(path, { parents: [raw], parentFormats: ['raw'] });
  const expected = mergedContent([child, base]);
  t.equal(firstDifference(found, expected), -1);
});
