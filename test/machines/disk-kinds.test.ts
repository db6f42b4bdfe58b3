/** Kinds of disks in the settings of other hypervisors, and what becomes of each on import. */
import t from 'tap';
import { readLibvirt } from '../../src/machines/libvirt.js';
import { readVbox } from '../../src/machines/vbox.js';
import { readDictionary, readVmware } from '../../src/machines/vmware.js';
import { parseXml } from '../../src/machines/xml.js';

const BASE = '11111111-1111-4111-8111-111111111111';
const CHILD = '22222222-2222-4222-8222-222222222222';

function read(kind: string, child = '') {
  const text = `<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">
  <Machine uuid="{33333333-3333-4333-8333-333333333333}" name="m">
    <MediaRegistry><HardDisks>
      <HardDisk uuid="{${BASE}}" location="base.vdi" format="VDI" type="${kind}">
        <HardDisk uuid="{${CHILD}}" location="child.vdi" format="VDI" ${child}/>
      </HardDisk>
    </HardDisks></MediaRegistry>
    <Hardware><StorageControllers><StorageController name="SATA">
      <AttachedDevice type="HardDisk" port="0" device="0">
        <Image uuid="{${CHILD}}"/>
      </AttachedDevice>
    </StorageController></StorageControllers></Hardware>
  </Machine>
</VirtualBox>`;
  const { disks, warnings } = readVbox('m.vbox', parseXml('m.vbox', Buffer.from(text)));
  const [disk] = disks;
  return { kind: disk?.kind, files: disk?.files.map(({ names }) => names[0]), warnings };
}

t.test('the kind of a disk is that of its base', async (t) => {
  const files = ['child.vdi', 'base.vdi'];
  t.match(read('Normal'), { kind: undefined, files, warnings: [] });
  t.match(read('MultiAttach'), { kind: undefined, warnings: [] }, 'as here, every VM has its own');
  t.match(read('Writethrough'), { kind: 'write-through', files, warnings: [] });
  t.match(read('Readonly'), { kind: 'read-only', files, warnings: [] });
  t.match(read('Immutable'), { kind: 'immutable', files, warnings: [] }, 'it keeps its changes');
  t.match(read('Shareable').warnings, [/SATA 0:0.*shareable is not supported/]);
});

t.test('what an immutable disk would lose at the next start is not taken over', async (t) => {
  const { kind, files, warnings } = read('Immutable', 'autoReset="true"');
  t.equal(kind, 'immutable');
  t.same(files, ['base.vdi']);
  t.match(warnings, [/SATA 0:0.*"?child.vdi"? is left out/]);
  t.equal(read('Normal', 'autoReset="true"').files?.length, 2, 'only of immutable ones');
});

t.test('modes of VMware', async (t) => {
  const disk = (place: number, mode: string) => `scsi0:${place}.present = "TRUE"
scsi0:${place}.fileName = "d${place}.vmdk"
scsi0:${place}.mode = "${mode}"
`;
  const text = `config.version = "8"
${disk(0, 'persistent')}${disk(1, 'independent-persistent')}
${disk(2, 'Independent-NonPersistent')}`;
  const vmx = readDictionary('m.vmx', Buffer.from(text));
  t.same(
    readVmware('m.vmx', vmx, undefined).disks.map(({ kind }) => kind),
    [undefined, 'write-through', 'immutable'],
  );
});

t.test('what libvirt says of a disk', async (t) => {
  const disk = (inner: string) =>
    `<disk type='file' device='disk'><source file='/a'/>${inner}</disk>`;
  const kinds = ['', '<readonly/>', '<transient/>', '<readonly/><transient/>', '<shareable/>'];
  const text = `<domain><devices>${kinds.map(disk).join('')}</devices></domain>`;
  const { disks, warnings } = readLibvirt('m.xml', parseXml('m.xml', Buffer.from(text)));
  t.same(
    disks.map(({ kind }) => kind),
    [undefined, 'read-only', 'immutable', 'immutable', undefined],
  );
  t.match(warnings, [/shareable is not supported/]);
});
