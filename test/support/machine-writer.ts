/** Machine files for tests, written after what VirtualBox 4 to 7, VMware and libvirt write. */
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DiskModel, mergedContent, stampedModel } from './disk-model.js';
import { writeVdi } from './vdi-writer.js';
import { writeMonolithic } from './vmdk-writer.js';

export const SIZE = 1024 * 1024;
const UNIT = 64 * 1024;

/** The trees that are built: which snapshot each stands on, and which image each freezes. */
export interface MadeMachine {
  readonly path: string;
  /** Every file, so that a test can see that none was changed. */
  readonly files: readonly string[];
  /** What each snapshot must show, and `` for the present state. */
  readonly contents: ReadonlyMap<string, Buffer>;
}

type Names<T> = Readonly<Record<'base' | 'one' | 'two' | 'side' | 'now', T>>;
type Name = keyof Names<unknown>;

/** What each image stands on. */
const PARENTS: Names<Name | undefined> = {
  base: undefined,
  one: 'base',
  two: 'one',
  side: 'base',
  now: 'side',
};

export const uuidOf = (number: number): string =>
  `${String(number).padStart(8, '0')}-1111-4222-8333-444444444444`;

/** Chains by name: the models, top first. */
function chainModels(): Names<DiskModel[]> {
  const model = (salt: number, pattern: string) =>
    stampedModel({ size: SIZE, unitSize: UNIT, pattern, salt });
  const base = [model(1, 'ddzdudd')];
  const one = [model(2, 'uduuzuu'), ...base];
  const two = [model(3, 'uuduuuzd'), ...one];
  const side = [model(4, 'zuuuuud'), ...base];
  const now = [model(5, 'uuuudu'), ...side];
  return { base, one, two, side, now };
}

/** Writes the image of every place, and says what the machine in `path` is made of. */
function writeTree(
  folder: string,
  path: string,
  places: Names<string>,
  write: (path: string, model: DiskModel, name: Name, parent: Name | undefined) => void,
): MadeMachine {
  const models = chainModels();
  for (const name of Object.keys(places) as Name[]) {
    write(join(folder, places[name]), models[name][0]!, name, PARENTS[name]);
  }
  return {
    path,
    files: [path, ...Object.values(places).map((place) => join(folder, place))],
    contents: new Map([
      ['First', mergedContent(models.base)],
      ['Second', mergedContent(models.one)],
      ['Side-branch', mergedContent(models.side)],
      ['', mergedContent(models.now)],
    ]),
  };
}

export interface VboxOptions {
  /** Storage controllers inside `Hardware`, as VirtualBox 7 has them. */
  readonly isNew?: boolean;
  /** Text that replaces another in the file. */
  readonly replace?: readonly (readonly [RegExp | string, string])[];
}

/**
 * A machine of VirtualBox in `folder`:
 *
 *     First (base) -- Second (one) -- (two, unused)
 *          \
 *           +- Side branch (side) -- present (now)
 */
export function writeVboxMachine(folder: string, options: VboxOptions = {}): MadeMachine {
  mkdirSync(join(folder, 'Snapshots'), { recursive: true });
  const places: Names<string> = {
    base: 'base.vdi',
    one: 'Snapshots/{one}.vdi',
    two: 'Snapshots/{two}.vdi',
    side: 'Snapshots/{side}.vdi',
    now: 'Snapshots/{now}.vdi',
  };
  const numbers = { base: 10, one: 11, two: 12, side: 13, now: 14 };
  const modification = (name: Name) => uuidOf(numbers[name] + 100);
  const path = join(folder, 'Test machine.vbox');
  let text = vboxText(places, numbers, options.isNew === true);
  for (const [from, to] of options.replace ?? []) text = text.replace(from, to);
  writeFileSync(path, text);
  return writeTree(folder, path, places, (image, model, name, parent) => {
    const ids = { uuid: uuidOf(numbers[name]), modification: modification(name) };
    if (parent === undefined) writeVdi(image, model, { type: 1, ...ids });
    else {
      const above = { parent: uuidOf(numbers[parent]), parentModification: modification(parent) };
      writeVdi(image, model, { type: 4, ...ids, ...above });
    }
  });
}

function vboxText(places: Names<string>, numbers: Names<number>, isNew: boolean): string {
  const medium = (name: keyof typeof places, inner = '') =>
    `<HardDisk uuid="{${uuidOf(numbers[name])}}" location="${places[name]}" format="VDI"` +
    `${name === 'base' ? ' type="Normal"' : ''}>${inner}</HardDisk>`;
  const state = (name: keyof typeof places, memory: number) => {
    const storage = `<StorageControllers>
        <StorageController name="SATA" type="AHCI" PortCount="2" Bootable="true">
          <AttachedDevice type="HardDisk" hotpluggable="false" port="0" device="0">
            <Image uuid="{${uuidOf(numbers[name])}}"/>
          </AttachedDevice>
          <AttachedDevice passthrough="false" type="DVD" port="1" device="0"/>
        </StorageController>
      </StorageControllers>`;
    const hardware = (inner: string) => `<Hardware>
        <CPU count="2"><PAE enabled="true"/></CPU>
        <Memory RAMSize="${memory}"/>
        <USB><Controllers><Controller name="OHCI" type="OHCI"/></Controllers></USB>
        <Network>
          <Adapter slot="0" enabled="true" MACAddress="0800270A0B0C" type="82540EM">
            <DisabledModes><BridgedInterface name="eth0"/></DisabledModes>
            <NAT/>
          </Adapter>
          <Adapter slot="1" enabled="true" MACAddress="0800270A0B0D" cable="true">
            <InternalNetwork name="int net"/>
          </Adapter>
          <Adapter slot="2" enabled="false"/>
        </Network>
        <SharedFolders><SharedFolder name="work" hostPath="/home"/></SharedFolders>
        ${inner}
      </Hardware>`;
    return isNew ? hardware(storage) : hardware('') + storage;
  };
  const snapshot = (number: number, name: string, image: keyof typeof places, inner: string) =>
    `<Snapshot uuid="{${uuidOf(number)}}" name="${name}" timeStamp="2021-03-0${number}T10:20:30Z">
       <Description>about ${name} &amp; &#x41;</Description>
       ${state(image, 512 * number)}
       ${inner === '' ? '' : `<Snapshots>${inner}</Snapshots>`}
     </Snapshot>`;
  const tree = snapshot(
    1,
    'First',
    'base',
    snapshot(2, 'Second', 'one', '') + snapshot(3, 'Side branch', 'side', ''),
  );
  const inner = medium('one', medium('two')) + medium('side', medium('now'));
  return `<?xml version="1.0"?>
<!-- ** DO NOT EDIT THIS FILE. ** -->
<VirtualBox xmlns="http://www.virtualbox.org/" version="${isNew ? '1.19' : '1.14'}-linux">
  <Machine uuid="{${uuidOf(99)}}" name="Test machine" OSType="Debian_64"
      currentSnapshot="{${uuidOf(3)}}" snapshotFolder="Snapshots">
    <MediaRegistry><HardDisks>${medium('base', inner)}</HardDisks></MediaRegistry>
    ${tree}
    ${state('now', 4096)}
  </Machine>
</VirtualBox>
`;
}

/** The same tree as VMware writes it, with two disks; names of VMDKs that VMware would give. */
export function writeVmwareMachine(folder: string, extra = ''): MadeMachine {
  mkdirSync(folder, { recursive: true });
  const places: Names<string> = {
    base: 'disk.vmdk',
    one: 'disk-000001.vmdk',
    two: 'disk-000002.vmdk',
    side: 'disk-000003.vmdk',
    now: 'disk-000004.vmdk',
  };
  const cid = (name: Name) => `0000000${Object.keys(places).indexOf(name) + 1}`;
  const path = join(folder, 'machine.vmx');
  writeFileSync(path, vmxText(places) + extra);
  writeFileSync(join(folder, 'machine.vmsd'), vmsdText(places));
  return writeTree(folder, path, places, (image, model, name, parent) => {
    const above =
      parent === undefined ? {} : { parentCid: cid(parent), parentName: places[parent] };
    writeMonolithic(image, model, { zeroedGrains: true, cid: cid(name), ...above });
  });
}

function vmxText(places: Names<string>): string {
  return `#!/usr/bin/vmware
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "14"
displayName = "Machine |22of|22 VMware"
numvcpus = "4"
memsize = "2048"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "${places.now}"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "tools.iso"
usb.present = "TRUE"
ethernet0.present = "TRUE"
ethernet0.connectionType = "nat"
ethernet0.addressType = "generated"
ethernet0.generatedAddress = "00:0c:29:01:02:03"
ethernet1.present = "TRUE"
ethernet1.connectionType = "custom"
ethernet1.vnet = "VMnet2"
`;
}

function vmsdText(places: Names<string>): string {
  const trees = [
    ['1', 'First', places.base, undefined],
    ['2', 'Second', places.one, '1'],
    ['3', 'Side branch', places.side, '1'],
  ] as const;
  const lines = trees.flatMap(([uid, name, file, parent], index) => {
    // 2021-03-01T10:20:30Z in microseconds, in two halves.
    const time = BigInt(Date.UTC(2021, 2, Number(uid), 10, 20, 30)) * 1000n;
    return [
      `snapshot${index}.uid = "${uid}"`,
      ...(parent === undefined ? [] : [`snapshot${index}.parent = "${parent}"`]),
      `snapshot${index}.displayName = "${name}"`,
      `snapshot${index}.description = "about|0Ait"`,
      `snapshot${index}.createTimeHigh = "${time >> 32n}"`,
      `snapshot${index}.createTimeLow = "${BigInt.asIntN(32, time)}"`,
      `snapshot${index}.numDisks = "1"`,
      `snapshot${index}.disk0.fileName = "${file}"`,
      `snapshot${index}.disk0.node = "scsi0:0"`,
    ];
  });
  return [
    '.encoding = "UTF-8"',
    'snapshot.lastUID = "3"',
    'snapshot.current = "3"',
    'snapshot.numSnapshots = "3"',
    ...lines,
    '',
  ].join('\n');
}

export interface OvfOptions {
  readonly files?: string;
  readonly items?: string;
  /** Instead of the one disk. */
  readonly disks?: string;
}

export function ovfText(size: number, options: OvfOptions = {}): string {
  const {
    files = `<File ovf:href="disk 1.vmdk" ovf:id="file1" ovf:size="${size}"/>`,
    disks = '<Disk ovf:diskId="vmdisk1" ovf:capacity="1"' +
      ' ovf:capacityAllocationUnits="byte * 2^20"' +
      ' ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html' +
      '#streamOptimized"/>',
    items = '',
  } = options;
  const item = (id: number, type: number, values: Readonly<Record<string, string>> = {}) => {
    const all = { InstanceID: String(id), ...values, ResourceType: String(type) };
    const fields = Object.entries(all).map(
      ([name, text]) => `<rasd:${name}>${text}</rasd:${name}>`,
    );
    return `<Item>${fields.join('')}</Item>`;
  };
  const cim = 'http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData';
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="${cim}">
  <References>${files}</References>
  <DiskSection><Info>disks</Info>${disks}</DiskSection>
  <NetworkSection><Network ovf:name="VM Network"/></NetworkSection>
  <VirtualSystem ovf:id="appliance"><Name>Appliance 1.0</Name>
    <VirtualHardwareSection><Info/>
      ${item(1, 3, { VirtualQuantity: '3' })}
      ${item(2, 4, { AllocationUnits: 'byte * 2^20', VirtualQuantity: '768' })}
      ${item(3, 10, { Connection: 'VM Network' })}
      ${item(4, 17, { ElementName: 'Hard disk 1', HostResource: 'ovf:/disk/vmdisk1' })}
      ${item(5, 15)}
      ${items}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`;
}

export function manifestText(
  members: Readonly<Record<string, Buffer>>,
  algorithm: 'sha1' | 'sha256' | 'sha512' = 'sha256',
): string {
  return Object.entries(members)
    .map(([name, bytes]) => {
      const hex = createHash(algorithm).update(bytes).digest('hex');
      return `${algorithm.toUpperCase()}(${name})= ${hex}\n`;
    })
    .join('');
}

export interface TarEntry {
  readonly name: string;
  readonly bytes?: Buffer;
  /** The type flag; default a regular file. */
  readonly type?: string;
  /** What the header says, where it lies. */
  readonly size?: number;
  /** What comes before the name, with a slash between. */
  readonly prefix?: string;
}

/** A ustar archive, straight from POSIX. */
export function tarBytes(entries: readonly TarEntry[]): Buffer {
  const parts = entries.flatMap(
    ({ name, bytes = Buffer.alloc(0), type = '0', size, prefix = '' }) => {
      const header = Buffer.alloc(512);
      header.write(name, 0, 100, 'utf8');
      header.write('0000644\0', 100);
      header.write('0000000\0', 108);
      header.write('0000000\0', 116);
      header.write(`${(size ?? bytes.length).toString(8).padStart(11, '0')}\0`, 124);
      header.write('00000000000\0', 136);
      header.write('        ', 148);
      header.write(type, 156);
      header.write('ustar\x0000', 257, 'latin1');
      header.write(prefix, 345, 155, 'utf8');
      const sum = header.reduce((total, byte) => total + byte, 0);
      header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
      return [header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
    },
  );
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}
