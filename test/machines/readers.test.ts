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
