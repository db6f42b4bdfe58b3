/**
 * What hypervisors write beside their documents: what is read of each, without any file on disk.
 */
import t from 'tap';
import { readLibvirt } from '../../src/machines/libvirt.js';
import { readOvf } from '../../src/machines/ovf.js';
import { ovfDescriptor } from '../../src/machines/ovf-descriptor.js';
import { readVbox } from '../../src/machines/vbox.js';
import { readDictionary, readVmware } from '../../src/machines/vmware.js';
import { parseXml } from '../../src/machines/xml.js';
import { ovfText } from '../support/machine-writer.js';

function ovf(text: string) {
  return readOvf('m.ovf', parseXml('m.ovf', Buffer.from(text)));
}

function vmware(text: string, vmsd?: string) {
  const read = (content: string) => readDictionary('m.vmx', Buffer.from(content));
  return readVmware('m.vmx', read(text), vmsd === undefined ? undefined : read(vmsd));
}

function vbox(inner: string) {
  const text = `<VirtualBox version="1.20"><Machine name="m">${inner}</Machine></VirtualBox>`;
  return readVbox('m.vbox', parseXml('m.vbox', Buffer.from(text)));
}

t.test('words that objects of JavaScript have are in no table', async (t) => {
  for (const word of ['constructor', 'valueOf', 'toString']) {
    const xml = (text: string) => parseXml('m.xml', Buffer.from(text));
    const domain = xml(`<domain><devices><interface type='${word}'/></devices></domain>`);
    t.match(readLibvirt('m.xml', domain).hardware.nics, [{ mode: 'none' }]);
    const nic = 'ethernet0.present = "TRUE"\nethernet0.connectionType';
    const vmx = vmware(`memsize = "4"\n${nic} = "${word}"\n`);
    t.match(vmx.hardware.nics, [{ mode: 'none' }]);
    const items = `<Item><rasd:ResourceType>10</rasd:ResourceType>
      <rasd:Connection>${word}</rasd:Connection></Item>`;
    t.match(ovf(ovfText(1, { items })).hardware.nics[1], { mode: 'nat', network: word });
    t.equal(xml(`<a>&${word};</a>`).text, `&${word};`);
    const disk = `<HardDisk uuid="1" location="a" format="${word}"/>`;
    const settings = `<VirtualBox><Machine><MediaRegistry><HardDisks>${disk}</HardDisks>
      </MediaRegistry><StorageControllers><StorageController><AttachedDevice type="HardDisk">
      <Image uuid="1"/></AttachedDevice></StorageController></StorageControllers></Machine>
      </VirtualBox>`;
    t.throws(() => readVbox('m.vbox', xml(settings)), { code: 'not-supported' });
  }
});

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

t.test('VMware encrypts a machine in part for its TPM, and its disks are plain', async (t) => {
  const keys = 'encryption.keySafe = "vmware:key/list"\nencryption.data = "AAAA"\n';
  const rest = `memsize = "4"\nvtpm.present = "TRUE"\nnvme0:0.present = "TRUE"
nvme0:0.fileName = "a.vmdk"\n`;
  const machine = vmware(`vmx.encryptionType = "partial"\n${keys}${rest}`);
  t.match(machine.disks, [{ slot: 'nvme0:0', files: [{ names: ['a.vmdk'] }] }]);
  t.match(machine.warnings, [/TPM/]);
  t.throws(() => vmware(keys + rest), { code: 'not-supported' }, 'in whole');
});

t.test('which of two addresses of VMware is in use', async (t) => {
  const set = 'ethernet0.address = "00:50:56:00:00:01"\n';
  const generated = 'ethernet0.generatedAddress = "00:0c:29:00:00:02"\n';
  for (const [text, mac] of [
    [`${set}${generated}ethernet0.addressType = "generated"`, '00:0c:29:00:00:02'],
    [`${set}${generated}ethernet0.addressType = "vpx"`, '00:0c:29:00:00:02'],
    [`${set}${generated}ethernet0.addressType = "static"`, '00:50:56:00:00:01'],
    [`${set}`, '00:50:56:00:00:01'],
    [`ethernet0.address = ""\n${generated}`, '00:0c:29:00:00:02'],
  ] as const) {
    const { hardware } = vmware(`memsize = "4"\nethernet0.present = "TRUE"\n${text}\n`);
    t.match(hardware.nics, [{ mac }], text);
  }
});

t.test('LAN segments of VMware are networks of their own', async (t) => {
  const card = (number: number, id: string) =>
    `ethernet${number}.present = "TRUE"\nethernet${number}.connectionType = "pvn"\n` +
    `ethernet${number}.pvnID = "${id}"\n`;
  const { hardware } = vmware(`memsize = "4"\n${card(0, '52 aa')}${card(1, '52 bb')}`);
  t.match(hardware.nics, [
    { mode: 'internal', network: '52 aa' },
    { mode: 'internal', network: '52 bb' },
  ]);
});

t.test('the address of a network adapter of oVirt', async (t) => {
  const items = `<Item><rasd:ResourceType>10</rasd:ResourceType>
    <rasd:Connection>ovirtmgmt</rasd:Connection>
    <rasd:MACAddress>56:6f:00:00:00:01</rasd:MACAddress>
    <rasd:Address>{type=pci, slot=0x03, bus=0x00}</rasd:Address></Item>`;
  const [, nic] = ovf(ovfText(1, { items })).hardware.nics;
  t.match(nic, { network: 'ovirtmgmt', mac: '56:6f:00:00:00:01' });
});

t.test('where VirtualBox has the CPUs of a machine', async (t) => {
  for (const [text, count] of [
    ['<Hardware><CPU count="3"/></Hardware>', 3],
    ['<Hardware/><Platform architecture="ARM"><CPU count="3"/></Platform>', 3],
    ['<Hardware><CPU count="3"/></Hardware><Platform architecture="ARM"><CPU/></Platform>', 3],
    ['<Hardware/><Platform architecture="ARM"><CPU/></Platform>', 1],
  ] as const) {
    t.equal(vbox(text).hardware.vcpus, count, text);
  }
  const firmware = '<Firmware type="EFI"><NVRAM path="m.nvram"/></Firmware>';
  t.match(vbox(`<Hardware>${firmware}</Hardware>`).warnings, [/NVRAM/]);
});

t.test('disks of VirtualBox are in the order of their ports', async (t) => {
  const medium = (id: number) => `<HardDisk uuid="${id}" location="${id}.vdi" format="VDI"/>`;
  const device = (id: number, port: number, place: number) =>
    `<AttachedDevice type="HardDisk" port="${port}" device="${place}"><Image uuid="${id}"/>
     </AttachedDevice>`;
  const { disks } = vbox(`<MediaRegistry><HardDisks>${[1, 2, 3, 4].map(medium).join('')}
    </HardDisks></MediaRegistry><StorageControllers>
    <StorageController name="IDE">${device(2, 0, 1)}${device(1, 0, 0)}</StorageController>
    <StorageController name="SATA">${device(4, 10, 0)}${device(3, 2, 0)}</StorageController>
    </StorageControllers>`);
  t.strictSame(
    disks.map(({ slot, files }) => [slot, files[0]?.names[0]]),
    [
      ['IDE 0:0', '1.vdi'],
      ['IDE 0:1', '2.vdi'],
      ['SATA 2:0', '3.vdi'],
      ['SATA 10:0', '4.vdi'],
    ],
  );
});

t.test('comments in a .vmx', async (t) => {
  const { name, disks, hardware } = vmware(`# by hand
displayName = "one #2"   # "with a comment"
memsize = "64" # MiB
scsi0:0.present = "TRUE" # the disk
scsi0:0.fileName = "a#b.vmdk"
`);
  t.equal(name, 'one #2');
  t.equal(hardware.memory, 64 * 1024 * 1024);
  t.match(disks, [{ files: [{ names: ['a#b.vmdk'] }] }]);
});

t.test('an item of the configuration stands in for the general one', async (t) => {
  const item = (rest: string, id: number, type: number, inner: string) =>
    `<Item ${rest}>${inner}<rasd:InstanceID>${id}</rasd:InstanceID>
     <rasd:ResourceType>${type}</rasd:ResourceType></Item>`;
  const large = 'ovf:configuration="large huge"';
  const items = [
    item(large, 1, 3, '<rasd:VirtualQuantity>8</rasd:VirtualQuantity>'),
    item(large, 3, 10, '<rasd:Connection>Bridged</rasd:Connection>'),
    item('ovf:configuration="small"', 7, 10, '<rasd:Connection>NAT</rasd:Connection>'),
  ].join('');
  const options = `<DeploymentOptionSection><Configuration ovf:id="small"/>
    <Configuration ovf:id="large" ovf:default="true"/></DeploymentOptionSection>`;
  const { hardware } = ovf(ovfText(1, { items }).replace('<VirtualSystem ', `${options}$&`));
  t.equal(hardware.vcpus, 8);
  t.match(hardware.nics, [{ mode: 'bridged' }], 'one adapter');
  t.equal(hardware.nics.length, 1);
});

t.test('the network "none" of vCloud Director is none', async (t) => {
  const items = `<Item><rasd:ResourceType>10</rasd:ResourceType>
    <rasd:Connection>none</rasd:Connection></Item>`;
  const { hardware, warnings } = ovf(ovfText(1, { items }));
  t.strictSame(hardware.nics[1], { mode: 'none' });
  t.notMatch(warnings.join(), /"none"/);
});

t.test('devices of an OVF are in the order of their places', async (t) => {
  const item = (type: number, place: string, inner: string) =>
    `<Item><rasd:AddressOnParent>${place}</rasd:AddressOnParent>${inner}
     <rasd:ResourceType>${type}</rasd:ResourceType></Item>`;
  const nic = (place: string, network: string) =>
    item(10, place, `<rasd:Connection>${network}</rasd:Connection>`);
  const disk = (place: string, parent: number, name: string) =>
    item(
      17,
      place,
      `<rasd:ElementName>${name}</rasd:ElementName><rasd:Parent>${parent}</rasd:Parent>
       <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>`,
    );
  const read = (items: string) => {
    const text = ovfText(1, { items: `<!-- here -->${items}` });
    const { hardware, disks } = ovf(text.replace(/<Item>.*<!-- here -->/s, ''));
    return [hardware.nics.map(({ network }) => network), disks.map(({ slot }) => slot)];
  };
  const disks = [disk('1', 4, 'b'), disk('9', 3, 'd'), disk('0', 4, 'a'), disk('2', 3, 'c')].join(
    '',
  );
  t.strictSame(read(nic('10', 'y') + nic('9', 'x') + disks), [
    ['x', 'y'],
    ['a', 'b', 'c', 'd'],
  ]);
  t.strictSame(read(nic('1', 'y') + nic('', 'x')), [['y', 'x'], []], 'one has no place');
});

t.test('an empty reference to a file is none', async (t) => {
  const disks =
    '<Disk ovf:diskId="vmdisk1" ovf:fileRef="" ovf:capacity="3"' +
    ' ovf:capacityAllocationUnits="MiB"/>';
  t.match(ovf(ovfText(1, { disks })).disks, [{ files: [], size: 3 * 2 ** 20 }]);
});

t.test('two networks of one mode come back as two', async (t) => {
  const nics = [
    { mode: 'internal', network: 'lan' },
    { mode: 'internal', network: 'dmz' },
    { mode: 'internal' },
    { mode: 'internal', network: 'lan' },
    { mode: 'bridged', network: 'br0' },
    { mode: 'nat' },
    { mode: 'host-only' },
    { mode: 'none' },
  ] as const;
  const text = ovfDescriptor({ name: 'web', vcpus: 1, memory: 2 ** 20, disks: [], nics });
  t.strictSame(ovf(text).hardware.nics, nics);
  const connections = [...text.matchAll(/<rasd:Connection>(.*?)</g)].map(([, name]) => name);
  t.strictSame(new Set(connections.slice(0, 4)).size, 3, 'for others, too');
  t.equal(connections[4], 'Bridged', 'one network of a mode has the name by which it is known');
});

t.test('interfaces of libvirt that meet at an address keep it as a name', async (t) => {
  const read = (type: string, source: string) => {
    const nic = `<interface type='${type}'><source ${source}/></interface>`;
    const text = `<domain><devices>${nic}</devices></domain>`;
    const { hardware, warnings } = readLibvirt('m.xml', parseXml('m.xml', Buffer.from(text)));
    return { ...hardware.nics[0], told: warnings.join('\n') };
  };
  for (const type of ['mcast', 'server', 'client']) {
    const found = read(type, "address='230.0.0.1' port='5558'");
    t.match(found, { mode: 'internal', network: '230.0.0.1:5558' });
    t.match(found.told, '"230.0.0.1:5558" is taken for an internal network of that name');
  }
  t.match(read('server', "port='5558'"), { mode: 'internal', network: '5558' });
  t.match(read('internal', "name='lan'"), { mode: 'internal', network: 'lan', told: '' });
  const udp = read('udp', "address='10.0.0.2' port='115'");
  t.match(udp, { mode: 'none', told: 'type "udp" ("10.0.0.2:115") is not taken over' });
});

t.test('the size of an empty disk may be that of a property', async (t) => {
  const disks =
    '<Disk ovf:diskId="vmdisk1" ovf:capacity="$X" ovf:capacityAllocationUnits="byte * 2^30"/>';
  const sections = `<ProductSection><Property ovf:key="size" ovf:type="int" ovf:value="5"/>
    </ProductSection><ProductSection ovf:class="com.x" ovf:instance="1">
    <Property ovf:key="size" ovf:value="7"/></ProductSection>`;
  const read = (name: string) => {
    const text = ovfText(1, { disks: disks.replace('$X', () => `\${${name}}`) });
    return ovf(text.replace('<VirtualHardwareSection>', `${sections}$&`)).disks;
  };
  t.match(read('size'), [{ files: [], size: 5 * 2 ** 30 }]);
  t.match(read('com.x.size.1'), [{ files: [], size: 7 * 2 ** 30 }]);
  t.throws(() => read('other'), { code: 'damaged' });
});

t.test('a device with a file of its own is not left out unsaid', async (t) => {
  const items = `<Item><rasd:ElementName>NVDIMM 0</rasd:ElementName>
    <rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource>
    <rasd:ResourceType>20</rasd:ResourceType></Item>`;
  t.match(ovf(ovfText(1, { items })).warnings.join(), /"NVDIMM 0" and its file are not taken over/);
  t.notMatch(ovf(ovfText(1)).warnings.join(), /file/);
});

t.test('a machine that starts by EFI is told of: guests get a BIOS', async (t) => {
  const libvirt = (os: string) =>
    readLibvirt('m.xml', parseXml('m.xml', Buffer.from(`<domain><os>${os}</os></domain>`)));
  const system = (inner: string) =>
    ovf(ovfText(1, { items: '' }).replace('</VirtualHardwareSection>', inner));
  const config = '<vmw:Config vmw:key="firmware" vmw:value="efi"/></VirtualHardwareSection>';
  const own = `</VirtualHardwareSection><vbox:Machine><Hardware><Firmware type="EFI"/></Hardware>
    </vbox:Machine>`;
  const firmware = (type: string) => vbox(`<Hardware><Firmware type="${type}"/></Hardware>`);
  const efi = [
    vmware('memsize = "4"\nfirmware = "efi"\n'),
    firmware('EFI'),
    firmware('EFI64'),
    readLibvirt('m.xml', parseXml('m.xml', Buffer.from('<domain><os firmware="efi"/></domain>'))),
    libvirt('<loader type="pflash">/usr/share/OVMF/OVMF_CODE.fd</loader>'),
    system(config),
    system(own),
  ];
  for (const [index, { warnings }] of efi.entries()) {
    t.match(warnings.join(), /EFI firmware is not taken over.* -bios/, `machine ${index}`);
  }
  const bios = [
    vmware('memsize = "4"\nfirmware = "bios"\n'),
    firmware('BIOS'),
    libvirt('<type>hvm</type>'),
    ovf(ovfText(1)),
  ];
  for (const { warnings } of bios) t.notMatch(warnings.join(), /EFI/);
  const tpm = vbox('<Hardware><TrustedPlatformModule type="v2_0"/></Hardware>');
  t.match(tpm.warnings, [/TPM/]);
});

t.test('libvirt: what lies below an image, as far as it is files', async (t) => {
  const read = (inner: string) => {
    const text = `<domain><devices><disk type='file' device='disk'><target dev='vda'/>
      <driver type='qcow2'/>${inner}</disk></devices></domain>`;
    return readLibvirt('m.xml', parseXml('m.xml', Buffer.from(text))).disks[0]?.files;
  };
  const source = (name: string) => `<source file='/x/${name}'/>`;
  const below = (format: string, name: string, inner: string) =>
    `<backingStore type='file'><format type='${format}'/>${source(name)}${inner}</backingStore>`;
  const raw = below('raw', 'c.img', '<backingStore/>');
  t.strictSame(read(source('a.qcow2') + below('qcow2', 'b.qcow2', raw)), [
    { names: ['/x/a.qcow2'], format: 'qcow2' },
    { names: ['/x/b.qcow2'], format: 'qcow2' },
    { names: ['/x/c.img'], format: 'raw' },
  ]);
  t.equal(read(`${source('a')}<backingStore/>`)?.length, 1);
  const block = "<format type='raw'/><source dev='/dev/x'/>";
  const device = `<backingStore type='block'>${block}</backingStore>`;
  t.equal(read(source('a') + device)?.length, 1, 'the image itself says what is refused');
  t.throws(() => read(`<source file='/x/a'><slices><slice type='storage'/></slices></source>`), {
    code: 'not-supported',
    message: /disk "vda" is a part of its file/,
  });
});
