/** Kinds of disks in VirtualBox's settings: what is said of those that become normal ones. */
import t from 'tap';
import { readVbox } from '../../src/machines/vbox.js';
import { parseXml } from '../../src/machines/xml.js';

const BASE = '11111111-1111-4111-8111-111111111111';
const CHILD = '22222222-2222-4222-8222-222222222222';

function warningsOf(kind: string): readonly string[] {
  const text = `<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">
  <Machine uuid="{33333333-3333-4333-8333-333333333333}" name="m">
    <MediaRegistry><HardDisks>
      <HardDisk uuid="{${BASE}}" location="base.vdi" format="VDI" type="${kind}">
        <HardDisk uuid="{${CHILD}}" location="child.vdi" format="VDI"/>
      </HardDisk>
    </HardDisks></MediaRegistry>
    <Hardware><StorageControllers><StorageController name="SATA">
      <AttachedDevice type="HardDisk" port="0" device="0">
        <Image uuid="{${CHILD}}"/>
      </AttachedDevice>
    </StorageController></StorageControllers></Hardware>
  </Machine>
</VirtualBox>`;
  return readVbox('m.vbox', parseXml('m.vbox', Buffer.from(text))).warnings;
}

t.test('the kind of a disk is that of its base', async (t) => {
  t.same(warningsOf('Normal'), []);
  t.same(warningsOf('MultiAttach'), [], 'every machine has its own differences: as here');
  const hint = (kind: string) => new RegExp(`SATA 0:0.*set VM --disk-kind DISK=${kind}`);
  t.match(warningsOf('Immutable'), [hint('immutable')]);
  t.match(warningsOf('Writethrough'), [hint('write-through')]);
  t.match(warningsOf('Readonly'), [hint('read-only')]);
  t.match(warningsOf('Shareable'), [/SATA 0:0.*shareable is not supported/]);
});
