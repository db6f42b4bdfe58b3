/**
 * VirtualBox's settings of a machine (`.vbox`) whose disks are VMDK descriptors of the exposed raw
 * files. Their kind is write-through: VirtualBox leaves such disks out of its own snapshots.
 */
import { MiB } from '../common/units.js';
import { unsupported } from '../formats/image-error.js';
import {
  DEFAULT_NETWORK,
  memoryNotes,
  memoryUnits,
  type OutputDisk,
  type OutputMachine,
  type OutputNic,
  type WrittenMachine,
} from './machine-output.js';
import { element } from './xml-text.js';

/** Settings of VirtualBox 5.1 and later, which all that came after read. */
const SETTINGS_VERSION = '1.16-linux';
/** Ports of an AHCI controller. */
const MAX_DISKS = 30;
/** Adapters that the older chipset has room for. */
const PIIX3_ADAPTERS = 8;
/** What VirtualBox calls the first host-only interface that it makes. */
const HOST_ONLY = 'vboxnet0';

/**
 * @param fileOf the VMDK descriptor of each disk, as the settings name it.
 * @throws DiskError `not-supported` for what VirtualBox has no room for.
 */
export function vboxSettings(
  machine: OutputMachine,
  fileOf: (index: number) => string,
  now: Date,
): WrittenMachine {
  const { name, id, memory, disks, nics } = machine;
  if (disks.length > MAX_DISKS) {
    throw unsupported(name, `more than ${MAX_DISKS} disks in VirtualBox`);
  }
  const attributes = {
    uuid: `{${id}}`,
    name,
    OSType: 'Linux_64',
    snapshotFolder: 'Snapshots',
    lastStateChange: now.toISOString().replace(/\.\d+Z$/, 'Z'),
  };
  const root = element(
    'VirtualBox',
    { xmlns: 'http://www.virtualbox.org/', version: SETTINGS_VERSION },
    [
      element('Machine', attributes, [
        element('MediaRegistry', {}, [registryElement(disks, fileOf)]),
        element('ExtraData', {}, disks.map(serialElement)),
        hardwareElement(machine),
        element('StorageControllers', {}, [controllerElement(disks)]),
      ]),
    ],
  );
  return {
    text: `<?xml version="1.0"?>\n${root}\n`,
    notes: [...memoryNotes(memory, memoryUnits(memory, MiB), MiB), ...networkNotes(nics)],
  };
}

function registryElement(disks: readonly OutputDisk[], fileOf: (index: number) => string): string {
  const registered = disks.map(({ uuid }, index) =>
    element('HardDisk', {
      uuid: `{${uuid}}`,
      location: fileOf(index),
      format: 'VMDK',
      type: 'Writethrough',
    }),
  );
  return element('HardDisks', {}, registered);
}

function serialElement({ serial }: OutputDisk, port: number): string {
  return element('ExtraDataItem', {
    name: `VBoxInternal/Devices/ahci/0/Config/Port${port}/SerialNumber`,
    value: serial,
  });
}

function controllerElement(disks: readonly OutputDisk[]): string {
  const attributes = {
    name: 'SATA',
    type: 'AHCI',
    PortCount: Math.max(1, disks.length),
    useHostIOCache: 'false',
    Bootable: 'true',
  };
  const attached = disks.map(({ uuid }, port) =>
    element('AttachedDevice', { type: 'HardDisk', hotpluggable: 'false', port, device: 0 }, [
      element('Image', { uuid: `{${uuid}}` }),
    ]),
  );
  return element('StorageController', attributes, attached);
}

function hardwareElement({ vcpus, memory, nics }: OutputMachine): string {
  const chipset = nics.length > PIIX3_ADAPTERS ? 'ICH9' : 'PIIX3';
  return element('Hardware', {}, [
    element('CPU', { count: vcpus }, [
      element('PAE', { enabled: 'true' }),
      element('LongMode', { enabled: 'true' }),
    ]),
    element('Memory', { RAMSize: memoryUnits(memory, MiB) }),
    element('Chipset', { type: chipset }),
    element('BIOS', {}, [element('IOAPIC', { enabled: 'true' })]),
    element('Network', {}, nics.map(adapterElement)),
    element('RTC', { localOrUTC: 'UTC' }),
  ]);
}

function adapterElement(nic: OutputNic, slot: number): string {
  const attributes = {
    slot,
    enabled: 'true',
    MACAddress: nic.mac.replaceAll(':', '').toUpperCase(),
    cable: nic.mode === 'none' ? 'false' : 'true',
    type: 'virtio',
  };
  return element('Adapter', attributes, attachment(nic));
}

function attachment(nic: OutputNic): string[] {
  switch (nic.mode) {
    case 'nat':
      return [element('NAT')];
    case 'bridged':
      return [element('BridgedInterface', { name: nic.bridge ?? nic.network ?? '' })];
    case 'host-only':
      return [element('HostOnlyInterface', { name: HOST_ONLY })];
    case 'internal':
      return [element('InternalNetwork', { name: nic.network ?? DEFAULT_NETWORK })];
    case 'none':
      return [];
  }
}

function networkNotes(nics: readonly OutputNic[]): string[] {
  const notes: string[] = [];
  if (nics.some(({ mode }) => mode === 'host-only')) {
    notes.push(`host-only NICs are on ${HOST_ONLY}: VBoxManage hostonlyif create makes it`);
  }
  if (nics.some(({ mode }) => mode === 'internal')) {
    notes.push(
      'internal networks are those of VirtualBox: guests of layerdisk run are not on them',
    );
  }
  return notes;
}
