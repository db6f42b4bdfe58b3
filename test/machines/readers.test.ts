/** What hypervisors write beside their documents: what is read of each, without any file on disk. */
import t from 'tap';
import { readOvf } from '../../src/machines/ovf.js';
import { parseXml } from '../../src/machines/xml.js';
import { ovfText } from '../support/machine-writer.js';

function ovf(text: string) {
  return readOvf('m.ovf', parseXml('m.ovf', Buffer.from(text)));
}

t.test('the disks of XenCenter are storage extents', async (t) => {
  const { disks } = ovf(ovfText(1).replace('ResourceType>17<', 'ResourceType>19<'));
  t.match(disks, [{ slot: 'Hard disk 1', files: [{ names: ['disk 1.vmdk'] }] }]);
});

t.test('a disk of oVirt has an empty parent, and a format of its own words', async (t) => {
  const vmdk = 'http://www.vmware.com/specifications/vmdk.html#sparse';
  const qcow = 'http://www.gnome.org/~markmc/qcow-image-format.html';
  for (const [uri, volume, format] of [
    [qcow, 'COW', 'qcow2'],
    [vmdk, 'COW', 'qcow2'],
    [vmdk, 'RAW', 'raw'],
    [vmdk, '', 'vmdk'],
  ] as const) {
    const disks = `<Disk ovf:diskId="vmdisk1" ovf:capacity="1" ovf:parentRef="" ovf:fileRef="file1"
      ovf:format="${uri}" ovf:volume-format="${volume}" ovf:volume-type="Sparse"/>`;
    t.match(ovf(ovfText(1, { disks })).disks, [{ files: [{ format }] }], `${uri} ${volume}`);
  }
});
