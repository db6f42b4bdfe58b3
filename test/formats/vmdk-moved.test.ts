/** VMDK descriptors that name their extents by paths of another place or another host. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openChain } from '../../src/formats/open-chain.js';
import { stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { descriptorText } from '../support/vmdk-writer.js';

t.test('extents that were moved together with the descriptor', async (t) => {
  const folder = tempFolder(t);
  const other = tempFolder(t);
  const model = stampedModel({ size: 8 * 4096, unitSize: 4096, pattern: 'dz', salt: 9 });
  writeFileSync(join(folder, 'disk-flat.vmdk'), model.content);
  mkdirSync(join(folder, 'sub'));
  writeFileSync(join(folder, 'sub', 'disk-s.vmdk'), model.content);
  writeFileSync(join(other, 'far-flat.vmdk'), model.content);
  const path = join(folder, 'disk.vmdk');
  const filesOf = (name: string, allowFolders: string[] = []) => {
    const extents = [`RW ${model.size / 512} FLAT "${name}" 0`];
    writeFileSync(path, descriptorText({ createType: 'monolithicFlat', extents }));
    const images = openChain(path, { allowFolders });
    const [, extent] = images[0]!.files;
    for (const image of images) image.close();
    return extent;
  };
  const beside = join(folder, 'disk-flat.vmdk');
  for (const name of ['D:\\VMs\\web\\disk-flat.vmdk', 'D:/VMs/web/disk-flat.vmdk']) {
    t.equal(filesOf(name), beside, name);
  }
  t.equal(filesOf('\\\\server\\share\\disk-flat.vmdk'), beside, 'a share');
  t.equal(filesOf('/no/such/folder/disk-flat.vmdk'), beside, 'an absolute path');
  t.equal(filesOf('sub\\disk-s.vmdk'), join(folder, 'sub', 'disk-s.vmdk'), 'separators of Windows');
  t.equal(filesOf('C:\\old\\far-flat.vmdk', [other]), join(other, 'far-flat.vmdk'));
  t.throws(() => filesOf('C:\\old\\far-flat.vmdk'), { message: /"C:\\\\old.*protocol/ });
  t.throws(() => filesOf('/no/such/far-flat.vmdk'), { code: 'not-found', message: /no.such/ });
  t.throws(() => filesOf('..\\far-flat.vmdk'), { code: 'not-found' });
  // Which of two files is meant, the one that is named or the one beside, only the user knows.
  writeFileSync(join(other, 'disk-flat.vmdk'), model.content);
  t.throws(() => filesOf(join(other, 'disk-flat.vmdk')), {
    code: 'not-permitted',
    hint: new RegExp(`--allow-folder ${other}$`),
  });
  for (const name of ['\\\\.\\PhysicalDrive0', '/dev/sda', '/dev/disk/by-id/no-such']) {
    t.throws(() => filesOf(name), {
      code: 'not-supported',
      message: /disk\.vmdk: an extent that is a device \(".*"\) is not supported$/,
    });
  }
  t.throws(() => filesOf('/dev/shm/no-such/far.vmdk'), { code: 'not-found' }, 'memory is none');
});
